//! The tables in the file, and the one way in which the file is touched.
//!
//! Everything that a group commit writes again and again (heads, the byte counter) lies in one small table, so that it
//! costs one page. The inventory is apart from the changes because it outlives them.

use crate::error::Fault;
use crate::key::{ChangeKey, EntryKey, Packed};
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) type Uuid = [u8; 16];

/// Server and CSN → the change ([`codec`](crate::codec)).
pub(crate) const CHANGES: TableDefinition<'static, &ChangeKey, &[u8]> = TableDefinition::new("changes");

/// entryUUID and CSN of every change in [`CHANGES`], so that those of one entry are found.
pub(crate) const CHANGES_BY_ENTRY: TableDefinition<'static, &EntryKey, ()> =
    TableDefinition::new("changes_by_entry");

/// entryUUID → entryCSN of every entry in the database.
pub(crate) const INVENTORY: TableDefinition<'static, &Uuid, &Packed> = TableDefinition::new("inventory");

/// entryUUID → CSN of the delete, and when it was recorded.
pub(crate) const TOMBSTONES: TableDefinition<'static, &Uuid, (&Packed, u64)> =
    TableDefinition::new("tombstones");

/// The tombstones by the time when they were recorded, so that a trim finds the old ones; and places that were recorded before
/// their tombstone, by [`UNDATED`] until a trim dates them.
pub(crate) const TOMBSTONES_BY_TIME: TableDefinition<'static, (u64, &Uuid), ()> =
    TableDefinition::new("tombstones_by_time");

/// Bare JID → peer ([`peer`](crate::peer)).
pub(crate) const PEERS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("peers");

/// CSN → entryUUID and reason of a change that could not be applied.
pub(crate) const SET_ASIDES: TableDefinition<'static, &Packed, (&Uuid, &str)> =
    TableDefinition::new("set_asides");

/// CSN → entryUUID of changes that are in the database before their turn.
pub(crate) const AHEAD: TableDefinition<'static, &Packed, &Uuid> = TableDefinition::new("ahead");

/// CSN → child, parent before, parent afterwards, whether it was made.
pub(crate) const MOVES: TableDefinition<'static, &Packed, (&Uuid, Option<&Uuid>, &Uuid, bool)> =
    TableDefinition::new("moves");

/// CSN and attribute → when it was recorded, and the rest of the loss ([`lost`](crate::lost)).
pub(crate) const LOST: TableDefinition<'static, (&Packed, &str), (u64, &[u8])> = TableDefinition::new("lost");

/// A mark of which entry → parent and RDN, if it is one with a place.
pub(crate) const MARKS: TableDefinition<'static, (u8, &Uuid), Option<(&Uuid, &str)>> =
    TableDefinition::new("marks");
/// Where a deleted entry was.
pub(crate) const MARK_PLACE: u8 = 0;
/// Where an entry is meant to be that is aside.
pub(crate) const MARK_DISPLACED: u8 = 1;
/// An entry that only holds a place in the tree. Without a place of its own.
pub(crate) const MARK_GLUE: u8 = 2;
/// An entry in doubt.
pub(crate) const MARK_DOUBT: u8 = 3;

/// Entries of which changes came before the entry. Not among the marks because they are counted.
pub(crate) const ORPHANS: TableDefinition<'static, &Uuid, ()> = TableDefinition::new("orphans");

/// The time of what has none yet.
pub(crate) const UNDATED: u64 = u64::MAX;

/// What of which → [`state`](crate::state).
pub(crate) const STATE: TableDefinition<'static, (u8, u16), &[u8]> = TableDefinition::new("state");

/// Runs one durable write transaction. It is committed if `body` succeeds and leaves no trace if not.
pub(crate) fn write<T>(
    db: &Database,
    body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
) -> Result<T, Fault> {
    guarded(|| {
        // Durable, in one phase, with one fsync: the defaults of redb, whose checksums tell a torn commit.
        let transaction = db.begin_write()?;
        let result = body(&transaction)?;
        transaction.commit()?;
        Ok(result)
    })
}

/// Runs `body` on what is committed.
pub(crate) fn read<T>(
    db: &Database,
    body: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
) -> Result<T, Fault> {
    guarded(|| body(&db.begin_read()?))
}

/// redb trusts a file that was closed cleanly, and panics over one that was altered since (`Builder::set_check_integrity_on_open`
/// says so; that check would read the whole file at every start). Such a panic is a damaged file.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(Fault::Panicked(text.to_owned()))
    })
}

/// Makes those tables that are not there, so that reading need not care.
pub(crate) fn make_tables(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(CHANGES)?;
    transaction.open_table(CHANGES_BY_ENTRY)?;
    transaction.open_table(INVENTORY)?;
    transaction.open_table(TOMBSTONES)?;
    transaction.open_table(TOMBSTONES_BY_TIME)?;
    transaction.open_table(PEERS)?;
    transaction.open_table(SET_ASIDES)?;
    transaction.open_table(AHEAD)?;
    transaction.open_table(MOVES)?;
    transaction.open_table(LOST)?;
    transaction.open_table(MARKS)?;
    transaction.open_table(ORPHANS)?;
    Ok(())
}

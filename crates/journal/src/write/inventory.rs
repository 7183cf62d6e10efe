//! Which entries there are, which are gone, and where those were.

use super::MarkTable;
use crate::error::Fault;
use crate::key::{Packed, pack, unpack};
use crate::store::{INVENTORY, MARK_PLACE, MARKS, TOMBSTONES, TOMBSTONES_BY_TIME, UNDATED, Uuid};
use redb::{ReadableTable, Table, WriteTransaction};
use xmppsync_replica::{Csn, EntryUuid, Place};

/// The inventory's tables, of which a write needs all or none.
pub(super) struct Inventory<'txn> {
    entries: Table<'txn, &'static Uuid, &'static Packed>,
    tombstones: Table<'txn, &'static Uuid, (&'static Packed, u64)>,
    by_time: Table<'txn, (u64, &'static Uuid), ()>,
    pub(super) marks: MarkTable<'txn>,
}

impl<'txn> Inventory<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Inventory<'txn>, Fault> {
        Ok(Inventory {
            entries: transaction.open_table(INVENTORY)?,
            tombstones: transaction.open_table(TOMBSTONES)?,
            by_time: transaction.open_table(TOMBSTONES_BY_TIME)?,
            marks: transaction.open_table(MARKS)?,
        })
    }
}

impl Inventory<'_> {
    pub(super) fn put(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Fault> {
        let uuid = uuid.as_bytes();
        if let Some((gone, at)) = self.tombstone(uuid)? {
            if gone >= csn {
                return Ok(());
            }
            self.exhume(uuid, at)?;
        }
        if self.entry(uuid)?.is_none_or(|known| known < csn) {
            self.entries.insert(uuid, &pack(csn))?;
        }
        Ok(())
    }

    pub(super) fn is(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Fault> {
        let uuid = uuid.as_bytes();
        if let Some((_, at)) = self.tombstone(uuid)? {
            self.exhume(uuid, at)?;
        }
        self.entries.insert(uuid, &pack(csn))?;
        Ok(())
    }

    pub(super) fn forget(&mut self, uuid: EntryUuid) -> Result<(), Fault> {
        self.entries.remove(uuid.as_bytes())?;
        Ok(())
    }

    pub(super) fn gone(&mut self, uuid: EntryUuid, csn: Csn, at: u64) -> Result<(), Fault> {
        let uuid = uuid.as_bytes();
        if self.entry(uuid)?.is_some_and(|known| known > csn) {
            return Ok(());
        }
        if let Some((gone, at)) = self.tombstone(uuid)? {
            if gone >= csn {
                return Ok(());
            }
            self.by_time.remove((at, uuid))?;
        }
        self.entries.remove(uuid)?;
        self.tombstones.insert(uuid, (&pack(csn), at))?;
        self.by_time.insert((at, uuid), ())?;
        Ok(())
    }

    pub(super) fn place(&mut self, uuid: EntryUuid, place: &Place) -> Result<(), Fault> {
        let uuid = uuid.as_bytes();
        let value = Some((place.parent.as_bytes(), place.rdn.as_str()));
        let is_new = self.marks.insert((MARK_PLACE, uuid), value)?.is_none();
        // With a tombstone it goes with that. Whatever was there before is dated already.
        if is_new && self.tombstone(uuid)?.is_none() {
            self.by_time.insert((UNDATED, uuid), ())?;
        }
        Ok(())
    }

    /// The tombstone goes, since the entry is there.
    fn exhume(&mut self, uuid: &Uuid, at: u64) -> Result<(), Fault> {
        self.tombstones.remove(uuid)?;
        self.by_time.remove((at, uuid))?;
        self.marks.remove((MARK_PLACE, uuid))?;
        Ok(())
    }

    fn entry(&self, uuid: &Uuid) -> Result<Option<Csn>, Fault> {
        let value = self.entries.get(uuid)?;
        Ok(value.map(|packed| unpack(packed.value())).transpose()?)
    }

    fn tombstone(&self, uuid: &Uuid) -> Result<Option<(Csn, u64)>, Fault> {
        let Some(value) = self.tombstones.get(uuid)? else { return Ok(None) };
        let (packed, at) = value.value();
        Ok(Some((unpack(packed)?, at)))
    }
}

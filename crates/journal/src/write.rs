//! What is written, always many records in one transaction.

mod inventory;
mod rules;

use crate::codec;
use crate::error::{Fault, JournalError};
use crate::journal::Journal;
use crate::key::{ChangeKey, EntryKey, KEYS_BYTES, change_key, entry_key, pack};
use crate::limits::{CHANGE_BYTES_MAX, SET_ASIDES_MAX};
use crate::peer::{self, SetAside};
use crate::record::Record;
use crate::state::{KEY_GENERATION, KEY_INCOMPLETE, KEY_LOADING, KEY_PUT_BACK, State, StateKey};
use crate::store::{
    AHEAD, CHANGES, CHANGES_BY_ENTRY, MARK_DISPLACED, MARK_DOUBT, MARK_GLUE, PEERS, SET_ASIDES, STATE, Uuid,
};
use inventory::Inventory;
use redb::{ReadableTableMetadata, Table, WriteTransaction};
use xmppsync_replica::{BootId, Change};

impl Journal {
    /// Writes `records` in their order and in one transaction, which is on disk when this returns.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`]: nothing was written. Otherwise see [`Journal`].
    pub fn write(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.write_with(|state, transaction| {
            let mut writer =
                Writer { transaction, state, buffer: &mut buffer, changes: None, inventory: None };
            records.iter().try_for_each(|record| writer.record(record))
        });
        // A large change does not hold its memory for ever.
        const CAPACITY_KEPT: usize = 1024 * 1024;
        if buffer.capacity() <= CAPACITY_KEPT {
            self.buffer = buffer;
        }
        result
    }
}

type MarkTable<'txn> = Table<'txn, (u8, &'static Uuid), Option<(&'static Uuid, &'static str)>>;

/// The changes and their index.
struct Changes<'txn> {
    changes: Table<'txn, &'static ChangeKey, &'static [u8]>,
    by_entry: Table<'txn, &'static EntryKey, ()>,
}

struct Writer<'txn> {
    transaction: &'txn WriteTransaction,
    state: &'txn mut State,
    buffer: &'txn mut Vec<u8>,
    changes: Option<Changes<'txn>>,
    inventory: Option<Inventory<'txn>>,
}

impl<'txn> Writer<'txn> {
    fn record(&mut self, record: &Record) -> Result<(), Fault> {
        match record {
            Record::Change { boot, seq, change } => self.change(*boot, *seq, change),
            Record::Put { uuid, csn } => self.inventory()?.put(*uuid, *csn),
            Record::Gone { uuid, csn, at } => self.inventory()?.gone(*uuid, *csn, *at),
            Record::Is { uuid, csn } => self.inventory()?.is(*uuid, *csn),
            Record::Forget { uuid } => self.inventory()?.forget(*uuid),
            Record::PutBack(yes) => self.mark(KEY_PUT_BACK, yes.then_some(&[])),
            Record::Incomplete(yes) => self.mark(KEY_INCOMPLETE, yes.then_some(&[])),
            Record::Generation(bytes) => {
                self.transaction.open_table(STATE)?.insert(KEY_GENERATION, bytes.as_slice())?;
                Ok(())
            }
            Record::Head(csn) => {
                self.state.head.advance(*csn);
                Ok(())
            }
            Record::Floor(csn) => {
                self.state.floor.advance(*csn);
                self.state.head.advance(*csn);
                Ok(())
            }
            Record::Unseen { unseen, at } => {
                self.state.unseen.extend(unseen);
                self.state.unseen_at = self.state.unseen_at.max(*at);
                Ok(())
            }
            Record::Reached(csn) => {
                if !self.state.head.covers(*csn) {
                    self.state.floor.advance(*csn);
                    self.state.head.advance(*csn);
                }
                Ok(())
            }
            Record::Peer(peer) => {
                let bytes = peer::encode(peer);
                self.transaction.open_table(PEERS)?.insert(peer.jid.as_str(), bytes.as_slice())?;
                Ok(())
            }
            Record::PeerRemoved(jid) => {
                self.transaction.open_table(PEERS)?.remove(jid.as_str())?;
                Ok(())
            }
            Record::SetAside(set_aside) => self.set_aside(set_aside),
            Record::ClearedAside(csn) => {
                self.transaction.open_table(SET_ASIDES)?.remove(&pack(*csn))?;
                Ok(())
            }
            Record::Ahead { csn, uuid } => {
                self.transaction.open_table(AHEAD)?.insert(&pack(*csn), uuid.as_bytes())?;
                Ok(())
            }
            Record::InTurn(csn) => {
                self.transaction.open_table(AHEAD)?.remove(&pack(*csn))?;
                Ok(())
            }
            Record::Move(movement) => self.movement(movement),
            Record::Place { uuid, place } => self.inventory()?.place(*uuid, place),
            Record::Lost { lost, at } => self.lost(lost, *at),
            Record::Displaced { uuid, place } => self.mark_entry(MARK_DISPLACED, *uuid, Some(place)),
            Record::Named(uuid) => self.unmark_entry(MARK_DISPLACED, *uuid),
            Record::Glue(uuid) => self.mark_entry(MARK_GLUE, *uuid, None),
            Record::NoGlue(uuid) => self.unmark_entry(MARK_GLUE, *uuid),
            Record::Doubt(uuid) => self.mark_entry(MARK_DOUBT, *uuid, None),
            Record::Certain(uuid) => self.unmark_entry(MARK_DOUBT, *uuid),
            Record::Orphan(uuid) => self.orphan(*uuid),
            Record::Adopted(uuid) => self.adopted(*uuid),
            Record::Loading(mark) => self.mark(KEY_LOADING, mark.as_deref()),
        }
    }

    fn mark(&mut self, key: StateKey, mark: Option<&[u8]>) -> Result<(), Fault> {
        let mut table = self.transaction.open_table(STATE)?;
        match mark {
            Some(mark) => table.insert(key, mark)?,
            None => table.remove(key)?,
        };
        Ok(())
    }

    fn change(&mut self, boot: BootId, seq: u64, change: &Change) -> Result<(), Fault> {
        if !self.state.is_above_floor(change.csn) {
            return Ok(());
        }
        self.buffer.clear();
        codec::encode(boot, seq, change, self.buffer);
        let bytes = self.buffer.len();
        if bytes > CHANGE_BYTES_MAX {
            return Err(Fault::TooLarge { csn: change.csn, bytes });
        }
        let Changes { changes, by_entry } = match &mut self.changes {
            Some(tables) => tables,
            none => none.insert(Changes {
                changes: self.transaction.open_table(CHANGES)?,
                by_entry: self.transaction.open_table(CHANGES_BY_ENTRY)?,
            }),
        };
        let (packed, uuid) = (pack(change.csn), change.uuid.as_bytes());
        let before = match changes.insert(&change_key(change.csn), self.buffer.as_slice())? {
            Some(before) => Some((codec::uuid(before.value())?, before.value().len() as u64)),
            None => None,
        };
        if let Some((of, _)) = before.filter(|(of, _)| of != uuid) {
            by_entry.remove(&entry_key(&of, &packed))?;
        }
        by_entry.insert(&entry_key(uuid, &packed), ())?;
        match before {
            Some((_, before)) => self.state.bytes = self.state.bytes.saturating_sub(before),
            None => self.state.bytes += KEYS_BYTES,
        }
        self.state.bytes += bytes as u64;
        Ok(())
    }

    fn set_aside(&mut self, set_aside: &SetAside) -> Result<(), Fault> {
        let mut table = self.transaction.open_table(SET_ASIDES)?;
        let value = (set_aside.uuid.as_bytes(), peer::cut(&set_aside.reason));
        table.insert(&pack(set_aside.csn), value)?;
        if table.len()? > SET_ASIDES_MAX {
            table.pop_first()?;
        }
        Ok(())
    }

    fn inventory(&mut self) -> Result<&mut Inventory<'txn>, Fault> {
        Ok(match &mut self.inventory {
            Some(inventory) => inventory,
            none => none.insert(Inventory::open(self.transaction)?),
        })
    }
}

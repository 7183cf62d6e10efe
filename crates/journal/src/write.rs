//! What is written, always many records in one transaction.

use crate::codec;
use crate::error::{Fault, JournalError};
use crate::journal::Journal;
use crate::key::{change_key, pack, unpack};
use crate::limits::{CHANGE_BYTES_MAX, SET_ASIDES_MAX};
use crate::peer::{self, Peer, SetAside};
use crate::state::{KEY_GENERATION, KEY_INCOMPLETE, KEY_LOADING, KEY_PUT_BACK, State, StateKey};
use crate::store::{CHANGES, INVENTORY, PEERS, SET_ASIDES, STATE, TOMBSTONES, TOMBSTONES_BY_TIME, Uuid};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use std::sync::Arc;
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Unseen};

/// One thing to write down.
#[derive(Clone, Debug)]
pub enum Record {
    /// A change of any origin, with its place in the origin's stream. One that is not above the floor is passed over;
    /// the same one again replaces itself.
    Change {
        /// The origin's run.
        boot: BootId,
        /// The sequence number in that run.
        seq: u64,
        /// The change.
        change: Arc<Change>,
    },
    /// The entry is in the database with this entryCSN. Passed over when a later one is known, or a delete that is not
    /// earlier; an earlier delete is forgotten.
    Put {
        /// The entry.
        uuid: EntryUuid,
        /// Its entryCSN.
        csn: Csn,
    },
    /// The entry was deleted. Passed over when the inventory or a tombstone has a later CSN.
    Gone {
        /// The entry.
        uuid: EntryUuid,
        /// The CSN of the delete.
        csn: Csn,
        /// Now, in seconds since 1970.
        at: u64,
    },
    /// The entry is in the database in just this state, whatever was known of it: the database was put back.
    Is {
        /// The entry.
        uuid: EntryUuid,
        /// Its entryCSN.
        csn: Csn,
    },
    /// The entry is not in the database, and was not deleted either: the database was put back.
    Forget {
        /// The entry.
        uuid: EntryUuid,
    },
    /// Whether the database was put back and lacks what the journal knows, see [`Journal::is_put_back`].
    PutBack(bool),
    /// Which state of the database the journal has seen: opaque, see [`Journal::generation`].
    Generation(Vec<u8>),
    /// Everything of this CSN's origin up to it is known: what is not yet in the journal is in the same call. Never
    /// moves back.
    Head(Csn),
    /// Everything up to this CSN is known, by a load or reconciliation, and not as changes: moves floor and head, never
    /// back. Changes below it stay in the file until they are trimmed.
    Floor(Csn),
    /// The database's vector covers these CSNs, which were not necessarily seen. They count as seen when no tombstone is
    /// as old any more as the last of these records.
    Unseen {
        /// Which ones.
        unseen: Unseen,
        /// Now, in seconds since 1970.
        at: u64,
    },
    /// [`Floor`](Record::Floor), unless the head has come that far: the changes are here then.
    Reached(Csn),
    /// A replica as it was seen now.
    Peer(Peer),
    /// This bare JID is no replica any more.
    PeerRemoved(String),
    /// A change could not be applied.
    SetAside(SetAside),
    /// It could after all, or was given up.
    ClearedAside(Csn),
    /// An initial load goes on, and how to resume it; or it is finished.
    Loading(Option<Vec<u8>>),
    /// The inventory is being taken, or is whole. A journal that was left before that is of no use at the next opening.
    Incomplete(bool),
}

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

type ChangeTable<'txn> = Table<'txn, &'static crate::key::ChangeKey, &'static [u8]>;

/// The inventory's tables, of which a write needs all or none.
struct Inventory<'txn> {
    entries: Table<'txn, &'static Uuid, &'static crate::key::Packed>,
    tombstones: Table<'txn, &'static Uuid, (&'static crate::key::Packed, u64)>,
    by_time: Table<'txn, (u64, &'static Uuid), ()>,
}

struct Writer<'txn> {
    transaction: &'txn WriteTransaction,
    state: &'txn mut State,
    buffer: &'txn mut Vec<u8>,
    changes: Option<ChangeTable<'txn>>,
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
        let table = match &mut self.changes {
            Some(table) => table,
            none => none.insert(self.transaction.open_table(CHANGES)?),
        };
        let key = change_key(change.csn);
        let before = table.insert(&key, self.buffer.as_slice())?;
        match before {
            Some(before) => self.state.bytes = self.state.bytes.saturating_sub(before.value().len() as u64),
            None => self.state.bytes += key.len() as u64,
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
            none => none.insert(Inventory {
                entries: self.transaction.open_table(INVENTORY)?,
                tombstones: self.transaction.open_table(TOMBSTONES)?,
                by_time: self.transaction.open_table(TOMBSTONES_BY_TIME)?,
            }),
        })
    }
}

impl Inventory<'_> {
    fn put(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Fault> {
        let uuid = uuid.as_bytes();
        if let Some((gone, at)) = self.tombstone(uuid)? {
            if gone >= csn {
                return Ok(());
            }
            self.tombstones.remove(uuid)?;
            self.by_time.remove((at, uuid))?;
        }
        if self.entry(uuid)?.is_none_or(|known| known < csn) {
            self.entries.insert(uuid, &pack(csn))?;
        }
        Ok(())
    }

    fn is(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Fault> {
        let uuid = uuid.as_bytes();
        if let Some((_, at)) = self.tombstone(uuid)? {
            self.tombstones.remove(uuid)?;
            self.by_time.remove((at, uuid))?;
        }
        self.entries.insert(uuid, &pack(csn))?;
        Ok(())
    }

    fn forget(&mut self, uuid: EntryUuid) -> Result<(), Fault> {
        self.entries.remove(uuid.as_bytes())?;
        Ok(())
    }

    fn gone(&mut self, uuid: EntryUuid, csn: Csn, at: u64) -> Result<(), Fault> {
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

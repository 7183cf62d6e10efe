//! The journal as its owner sees it: opened, read, closed.

use crate::codec;
use crate::error::{Fault, JournalError};
use crate::key::{change_key, unpack};
use crate::limits::SET_ASIDES_MAX;
use crate::open;
use crate::peer::{self, Peer, SetAside};
use crate::state::{KEY_CLEAN, KEY_GENERATION, KEY_PUT_BACK, State};
use crate::store::{self, CHANGES, INVENTORY, PEERS, SET_ASIDES, STATE, TOMBSTONES};
use redb::{Database, ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};
use std::cell::OnceCell;
use std::io;
use std::path::{Path, PathBuf};
use xmppsync_replica::{Change, Csn, EntryUuid, Unseen, Vector};

/// The journal of one replica, in a directory of its own.
///
/// Every call may take as long as the disk does. The first failure of the store poisons the journal: that call gives
/// [`JournalError::Failed`], all later ones [`JournalError::Poisoned`], and what is left to do is
/// [`set_aside`](Self::set_aside) and to open a new one. Dropped without [`close`](Self::close) it is as after a crash.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    database: Database,
    pub(crate) state: State,
    poisoned: OnceCell<String>,
    /// Where changes are encoded; kept for its capacity.
    pub(crate) buffer: Vec<u8>,
}

/// What was found at opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing: the journal is new.
    New,
    /// The journal as it was left.
    Existing {
        /// What [`Journal::close`] was given, if the last run ended with it.
        clean: Option<Vec<u8>>,
        /// What [`Record::Loading`](crate::Record::Loading) was given, if that load was not finished.
        loading: Option<Vec<u8>>,
    },
    /// A file that was of no use: damaged, of another suffix or format, no journal, not readable. The journal is new.
    Replaced {
        /// What the old file is called now.
        aside: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

impl Journal {
    /// Opens the journal in `dir`, or makes it, with access for the owner only. `suffix` is the normalised DN of the
    /// database.
    ///
    /// After a crash the whole file is read and verified: about four seconds per GiB of it were measured on two busy
    /// processors, with the file in the system's cache (`examples/cost.rs`).
    ///
    /// # Errors
    /// [`JournalError::Directory`] and [`JournalError::InUse`]. An unusable file is no error but
    /// [`Opened::Replaced`].
    pub fn open(dir: &Path, suffix: &str) -> Result<(Journal, Opened), JournalError> {
        open::open(dir, suffix)
    }

    /// Makes a journal for a database that is in use; what is there is set aside, it is of an earlier time.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn anew(dir: &Path, suffix: &str) -> Result<Journal, JournalError> {
        open::anew(dir, suffix)
    }

    pub(crate) fn new(path: PathBuf, database: Database, state: State) -> Journal {
        Journal { path, database, state, poisoned: OnceCell::new(), buffer: Vec::new() }
    }

    /// For every origin the CSN up to which everything is known.
    pub fn head(&self) -> &Vector {
        &self.state.head
    }

    /// For every origin the CSN up to which the changes are not (any more) in the journal.
    pub fn floor(&self) -> &Vector {
        &self.state.floor
    }

    /// What the database's vector covers and was not necessarily seen.
    pub fn unseen(&self) -> &Unseen {
        &self.state.unseen
    }

    /// When the last of [`unseen`](Self::unseen) was noted, in seconds since 1970.
    pub fn unseen_at(&self) -> u64 {
        self.state.unseen_at
    }

    /// Bytes of all changes with their keys, of which each has one in an index too. The file is larger; [`file_bytes`](Self::file_bytes).
    pub fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// Bytes of the file. It has everything in it, and room that was used before and will be used again.
    ///
    /// # Errors
    /// What the system said.
    pub fn file_bytes(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
    }

    /// One change, if it is here.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn change(&self, csn: Csn) -> Result<Option<Change>, JournalError> {
        self.read(|transaction| {
            let stored = transaction.open_table(CHANGES)?.get(&change_key(csn))?;
            Ok(stored.map(|bytes| codec::decode(csn, bytes.value())).transpose()?.map(|stored| stored.change))
        })
    }

    /// What [`Record::Generation`](crate::Record::Generation) was given last.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn generation(&self) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|transaction| {
            Ok(transaction.open_table(STATE)?.get(KEY_GENERATION)?.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// Whether the database was put back to an earlier state, and nothing has told yet that this is mended
    /// ([`Record::PutBack`](crate::Record::PutBack)).
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn is_put_back(&self) -> Result<bool, JournalError> {
        self.read(|transaction| Ok(transaction.open_table(STATE)?.get(KEY_PUT_BACK)?.is_some()))
    }

    /// The entryCSN of an entry, if it is in the database.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn inventory_get(&self, uuid: EntryUuid) -> Result<Option<Csn>, JournalError> {
        self.read(|transaction| {
            let value = transaction.open_table(INVENTORY)?.get(uuid.as_bytes())?;
            Ok(value.map(|packed| unpack(packed.value())).transpose()?)
        })
    }

    /// Every entry in the database with its entryCSN, by entryUUID, as of one moment.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn inventory_for_each(&self, mut each: impl FnMut(EntryUuid, Csn)) -> Result<(), JournalError> {
        self.read(|transaction| {
            for item in transaction.open_table(INVENTORY)?.iter()? {
                let (uuid, packed) = item?;
                each(EntryUuid::from_bytes(*uuid.value()), unpack(packed.value())?);
            }
            Ok(())
        })
    }

    /// How many entries are in the database.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn inventory_len(&self) -> Result<u64, JournalError> {
        self.read(|transaction| Ok(transaction.open_table(INVENTORY)?.len()?))
    }

    /// The CSN of the delete of an entry, and when it was recorded, in seconds since 1970.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn tombstone(&self, uuid: EntryUuid) -> Result<Option<(Csn, u64)>, JournalError> {
        self.read(|transaction| {
            let Some(value) = transaction.open_table(TOMBSTONES)?.get(uuid.as_bytes())? else {
                return Ok(None);
            };
            let (packed, at) = value.value();
            Ok(Some((unpack(packed)?, at)))
        })
    }

    /// The other replicas, by JID.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn peers(&self) -> Result<Vec<Peer>, JournalError> {
        self.read(|transaction| {
            let table = transaction.open_table(PEERS)?;
            let peers = table.iter()?.map(|item| {
                let (jid, value) = item?;
                Ok(peer::decode(jid.value(), value.value())?)
            });
            peers.collect()
        })
    }

    /// The changes that could not be applied, by CSN; at most [`SET_ASIDES_MAX`].
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn set_asides(&self) -> Result<Vec<SetAside>, JournalError> {
        let mut set_asides = Vec::new();
        self.read(|transaction| {
            for item in transaction.open_table(SET_ASIDES)?.iter()?.take(SET_ASIDES_MAX as usize) {
                let (packed, value) = item?;
                let (uuid, reason) = value.value();
                let uuid = EntryUuid::from_bytes(*uuid);
                set_asides.push(SetAside { csn: unpack(packed.value())?, uuid, reason: reason.to_owned() });
            }
            Ok(())
        })?;
        Ok(set_asides)
    }

    /// Closes the journal with a marker that the next opening gives back, once: a fingerprint of the database, by
    /// which its owner sees that nobody has changed it meanwhile.
    ///
    /// # Errors
    /// See [`Journal`]. The marker may then be missing.
    pub fn close(mut self, clean: &[u8]) -> Result<(), JournalError> {
        self.write_with(|_, transaction| {
            transaction.open_table(STATE)?.insert(KEY_CLEAN, clean)?;
            Ok(())
        })?;
        let database = self.database;
        store::guarded(|| Ok(database.close()?)).map_err(|fault| JournalError::Failed(fault.to_string()))
    }

    /// Closes the file without a marker and renames it, so that a new one can be opened. Gives its new name.
    ///
    /// # Errors
    /// What the system said to the renaming.
    pub fn set_aside(self) -> io::Result<PathBuf> {
        let Journal { path, database, .. } = self;
        // It may fail or not: the file is of no use any more.
        let _ = store::guarded(|| Ok(database.close()?));
        open::set_aside(&path)
    }

    /// Closes the file and removes it: nothing in it is of use.
    ///
    /// # Errors
    /// What the system said to the removing.
    pub fn discard(self) -> io::Result<()> {
        let Journal { path, database, .. } = self;
        let _ = store::guarded(|| Ok(database.close()?));
        std::fs::remove_file(&path)
    }

    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, JournalError> {
        self.usable()?;
        store::read(&self.database, body).map_err(|fault| self.failed(fault))
    }

    /// Runs one durable transaction. The state in memory becomes what `body` made of it once it is on disk.
    pub(crate) fn write_with<T>(
        &mut self,
        body: impl FnOnce(&mut State, &WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, JournalError> {
        self.usable()?;
        let mut state = self.state.clone();
        let result = store::write(&self.database, |transaction| {
            let result = body(&mut state, transaction)?;
            if state != self.state {
                state.store(&self.state, &mut transaction.open_table(STATE)?)?;
            }
            Ok(result)
        });
        let result = result.map_err(|fault| self.failed(fault))?;
        self.state = state;
        Ok(result)
    }

    fn usable(&self) -> Result<(), JournalError> {
        match self.poisoned.get() {
            Some(why) => Err(JournalError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    fn failed(&self, fault: Fault) -> JournalError {
        if let Fault::TooLarge { csn, bytes } = fault {
            return JournalError::TooLarge { csn, bytes };
        }
        JournalError::Failed(self.poisoned.get_or_init(|| fault.to_string()).clone())
    }
}

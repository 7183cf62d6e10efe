//! What the rules by which changes meet ask for: later changes of an entry, and what they remembered.

use crate::codec::{self, CodecError};
use crate::error::JournalError;
use crate::journal::Journal;
use crate::key::{
    ChangeKey, EntryKey, change_key, entry_key, entry_key_csn, first_entry_key, first_key, key_csn,
    last_entry_key, last_key, pack, unpack,
};
use crate::limits::MOVES_LOOKED_AT_MAX;
use crate::lost;
use crate::store::{
    AHEAD, CHANGES, CHANGES_BY_ENTRY, LOST, MARK_DISPLACED, MARK_DOUBT, MARK_GLUE, MARK_PLACE, MARKS, MOVES,
    ORPHANS, TOMBSTONES, Uuid,
};
use redb::ReadableTable;
use std::ops::Bound;
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Move, Place, ServerId};

/// By which CSN an entry was deleted, if it was, and where it was, if that is known.
pub type Deleted = (Option<Csn>, Option<Place>);

impl Journal {
    /// The changes of an entry that are later than `after` (`None`: all), whoever made them, in the order of their CSNs: all that are in
    /// the file, also those beyond a hole, and those below the [`floor`](Self::floor) that were not trimmed yet. Those that `is_known` names
    /// are named only, and not read.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn later(
        &self,
        uuid: EntryUuid,
        after: Option<Csn>,
        is_known: impl Fn(Csn) -> bool,
    ) -> Result<Vec<(Csn, Option<Change>)>, JournalError> {
        self.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let index = transaction.open_table(CHANGES_BY_ENTRY)?;
            let from = match after {
                Some(after) => entry_key(uuid.as_bytes(), &pack(after)),
                None => first_entry_key(uuid.as_bytes()),
            };
            let last = last_entry_key(uuid.as_bytes());
            let range = (Bound::Excluded(&from), Bound::Included(&last));
            let later = index.range::<&EntryKey>(range)?.map(|item| {
                let csn = entry_key_csn(item?.0.value())?;
                if is_known(csn) {
                    return Ok((csn, None));
                }
                let stored = changes.get(&change_key(csn))?.ok_or(CodecError::Missing)?;
                Ok((csn, Some(codec::decode(csn, stored.value())?.change)))
            });
            later.collect()
        })
    }

    /// Whether a change of the entry is here that another server than this one made.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn has_other_origin(&self, uuid: EntryUuid, origin: ServerId) -> Result<bool, JournalError> {
        self.read(|transaction| {
            let index = transaction.open_table(CHANGES_BY_ENTRY)?;
            let (first, last) = (first_entry_key(uuid.as_bytes()), last_entry_key(uuid.as_bytes()));
            for item in index.range::<&EntryKey>(&first..=&last)? {
                // The keys tell; no change is read.
                if entry_key_csn(item?.0.value())?.server_id() != origin {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// The changes that are in the database before their turn, by CSN, with their entries.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn ahead(&self) -> Result<Vec<(Csn, EntryUuid)>, JournalError> {
        self.read(|transaction| {
            let table = transaction.open_table(AHEAD)?;
            let ahead = table.iter()?.map(|item| {
                let (packed, uuid) = item?;
                Ok((unpack(packed.value())?, EntryUuid::from_bytes(*uuid.value())))
            });
            ahead.collect()
        })
    }

    /// The moves among the latest changes ([`MOVES_LOOKED_AT_MAX`](crate::limits::MOVES_LOOKED_AT_MAX) of each server) that the log of
    /// moves does not have, in the order of their CSNs: child, and parent afterwards. A move is noted a moment after its change.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn unnoted_moves(&self) -> Result<Vec<(Csn, EntryUuid, EntryUuid)>, JournalError> {
        self.read(|transaction| {
            let moves = transaction.open_table(MOVES)?;
            let mut found = Vec::new();
            let changes = transaction.open_table(CHANGES)?;
            for head in self.head().iter() {
                let server = head.server_id();
                let (first, last) = (first_key(server), last_key(server));
                for item in changes.range::<&ChangeKey>(&first..=&last)?.rev().take(MOVES_LOOKED_AT_MAX) {
                    let (key, value) = item?;
                    let csn = key_csn(key.value())?;
                    if codec::is_rename(value.value()) && moves.get(&pack(csn))?.is_none() {
                        let change = codec::decode(csn, value.value())?.change;
                        found.extend(change.parent.map(|to| (csn, change.uuid, to)));
                    }
                }
            }
            found.sort();
            Ok(found)
        })
    }

    /// The log of moves, in the order of their CSNs. [`trim`](Self::trim) forgets those that are older than the age.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn moves(&self) -> Result<Vec<Move>, JournalError> {
        self.read(|transaction| {
            let moves = transaction.open_table(MOVES)?;
            let moves = moves.iter()?.map(|item| {
                let (packed, value) = item?;
                let (child, from, to, made) = value.value();
                let entry = |uuid: &Uuid| EntryUuid::from_bytes(*uuid);
                let csn = unpack(packed.value())?;
                Ok(Move { csn, child: entry(child), from: from.map(entry), to: entry(to), made })
            });
            moves.collect()
        })
    }

    /// Where an entry was when it was deleted, see [`Record::Place`](crate::Record::Place).
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn place(&self, uuid: EntryUuid) -> Result<Option<Place>, JournalError> {
        self.read(|transaction| {
            let value = transaction.open_table(MARKS)?.get((MARK_PLACE, uuid.as_bytes()))?;
            Ok(value.and_then(|value| value.value().map(place)))
        })
    }

    /// What is known of the deletes of these entries.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn deleted(&self, uuids: &[EntryUuid]) -> Result<Vec<Deleted>, JournalError> {
        self.read(|transaction| {
            let (tombstones, marks) = (transaction.open_table(TOMBSTONES)?, transaction.open_table(MARKS)?);
            let deleted = uuids.iter().map(|uuid| {
                let csn =
                    tombstones.get(uuid.as_bytes())?.map(|value| unpack(value.value().0)).transpose()?;
                let known = marks.get((MARK_PLACE, uuid.as_bytes()))?;
                Ok((csn, known.and_then(|value| value.value().map(place))))
            });
            deleted.collect()
        })
    }

    /// What was lost, and when it was recorded in seconds since 1970, by CSN and attribute; at most
    /// [`CONFLICTS_MAX`](crate::limits::CONFLICTS_MAX). [`trim`](Self::trim) forgets what was recorded before the age.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn lost(&self) -> Result<Vec<(Lost, u64)>, JournalError> {
        self.read(|transaction| {
            let table = transaction.open_table(LOST)?;
            let lost = table.iter()?.map(|item| {
                let (key, value) = item?;
                let ((packed, attribute), (at, bytes)) = (key.value(), value.value());
                Ok((lost::decode(unpack(packed)?, attribute, bytes)?, at))
            });
            lost.collect()
        })
    }

    /// The entries that have not the name or place that they are meant to have, and what they are meant to have, by entryUUID.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn displaced(&self) -> Result<Vec<(EntryUuid, Place)>, JournalError> {
        let marked = self.marked(MARK_DISPLACED)?.into_iter();
        Ok(marked.filter_map(|(uuid, place)| Some((uuid, place?))).collect())
    }

    /// The entries that only hold their places in the tree, by entryUUID.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn glue(&self) -> Result<Vec<EntryUuid>, JournalError> {
        Ok(self.marked(MARK_GLUE)?.into_iter().map(|(uuid, _)| uuid).collect())
    }

    /// The entries in doubt, by entryUUID.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn doubts(&self) -> Result<Vec<EntryUuid>, JournalError> {
        Ok(self.marked(MARK_DOUBT)?.into_iter().map(|(uuid, _)| uuid).collect())
    }

    /// The entries of which changes came before the entry, by entryUUID; at most
    /// [`ORPHANS_MAX`](crate::limits::ORPHANS_MAX).
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn orphans(&self) -> Result<Vec<EntryUuid>, JournalError> {
        self.read(|transaction| {
            let table = transaction.open_table(ORPHANS)?;
            table.iter()?.map(|item| Ok(EntryUuid::from_bytes(*item?.0.value()))).collect()
        })
    }

    fn marked(&self, mark: u8) -> Result<Vec<(EntryUuid, Option<Place>)>, JournalError> {
        self.read(|transaction| {
            let table = transaction.open_table(MARKS)?;
            let range = (mark, &[0; 16])..=(mark, &[0xff; 16]);
            let marked = table.range::<(u8, &Uuid)>(range)?.map(|item| {
                let (key, value) = item?;
                let (_, uuid) = key.value();
                Ok((EntryUuid::from_bytes(*uuid), value.value().map(place)))
            });
            marked.collect()
        })
    }
}

fn place((parent, rdn): (&Uuid, &str)) -> Place {
    Place { parent: EntryUuid::from_bytes(*parent), rdn: rdn.to_owned() }
}

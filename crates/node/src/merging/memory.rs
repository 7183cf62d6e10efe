//! What the rules remember of the tree beside the entries: few things, as long as few changes meet.

use std::collections::{BTreeMap, BTreeSet};
use xmppsync_journal::{Journal, JournalError, Record};
use xmppsync_replica::{Csn, EntryUuid, Move, Place};

/// Moves, entries that are aside, and entries that are expected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) moves: BTreeMap<Csn, Move>,
    /// Entries with another name than they are meant to have, and what they are meant to have.
    pub(crate) displaced: BTreeMap<EntryUuid, Place>,
    /// Deleted entries that are there because of their children.
    pub(crate) glue: BTreeSet<EntryUuid>,
    /// Entries of which changes came before themselves.
    pub(crate) orphans: BTreeSet<EntryUuid>,
    /// Entries that may lack something, or have what should have lost.
    pub(crate) doubts: BTreeSet<EntryUuid>,
}

impl Names {
    /// As they were left.
    pub(crate) fn read(journal: &Journal) -> Result<Names, JournalError> {
        Ok(Names {
            moves: journal.moves()?.into_iter().map(|made| (made.csn, made)).collect(),
            displaced: journal.displaced()?.into_iter().collect(),
            glue: journal.glue()?.into_iter().collect(),
            orphans: journal.orphans()?.into_iter().collect(),
            doubts: journal.doubts()?.into_iter().collect(),
        })
    }

    /// Takes over what is noted in the journal.
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::Move(made) => {
                self.moves.insert(made.csn, *made);
            }
            Record::Displaced { uuid, place } => {
                self.displaced.insert(*uuid, place.clone());
            }
            Record::Named(uuid) => {
                self.displaced.remove(uuid);
            }
            Record::Glue(uuid) => {
                self.glue.insert(*uuid);
            }
            Record::NoGlue(uuid) => {
                self.glue.remove(uuid);
            }
            Record::Doubt(uuid) => {
                self.doubts.insert(*uuid);
            }
            Record::Certain(uuid) => {
                self.doubts.remove(uuid);
            }
            Record::Orphan(uuid) => {
                self.orphans.insert(*uuid);
            }
            Record::Adopted(uuid) => {
                self.orphans.remove(uuid);
            }
            _ => {}
        }
    }

    /// The journal has forgotten the moves up to this one.
    pub(crate) fn forget_moves(&mut self, until: Csn) {
        self.moves = self.moves.split_off(&until);
        self.moves.remove(&until);
    }

    /// All of it, for another journal.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let moves = self.moves.values().copied().map(Record::Move);
        let displaced = self.displaced.iter();
        let displaced =
            displaced.map(|(uuid, place)| Record::Displaced { uuid: *uuid, place: place.clone() });
        let glue = self.glue.iter().copied().map(Record::Glue);
        let orphans = self.orphans.iter().copied().map(Record::Orphan);
        let doubts = self.doubts.iter().copied().map(Record::Doubt);
        moves.chain(displaced).chain(glue).chain(orphans).chain(doubts)
    }

    /// Whether a name that becomes free, or a last child that goes, may mean something.
    pub(crate) fn is_tidy(&self) -> bool {
        self.displaced.is_empty() && self.glue.is_empty()
    }
}

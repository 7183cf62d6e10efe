//! What the rules remember of the tree beside the entries: few things, as long as few changes meet.

use std::collections::{BTreeMap, BTreeSet};
use xmppsync_journal::{Journal, JournalError};
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
}

impl Names {
    /// As they were left.
    pub(crate) fn read(journal: &Journal) -> Result<Names, JournalError> {
        Ok(Names {
            moves: journal.moves()?.into_iter().map(|made| (made.csn, made)).collect(),
            displaced: journal.displaced()?.into_iter().collect(),
            glue: journal.glue()?.into_iter().collect(),
            orphans: journal.orphans()?.into_iter().collect(),
        })
    }

    /// Whether a name that becomes free, or a last child that goes, may mean something.
    pub(crate) fn is_tidy(&self) -> bool {
        self.displaced.is_empty() && self.glue.is_empty()
    }
}

//! What is in the database and the vector does not tell of.

use crate::limits;
use std::collections::{BTreeMap, BTreeSet};
use xmppsync_journal::{Journal, JournalError, Record};
use xmppsync_replica::{Csn, EntryUuid, Seen};

/// Changes that are in the database already, in a state that was taken or because their entry came late, and of which the vector does not
/// tell: they come in their turn, or are among what counts as unseen. They are not made once more.
#[derive(Default)]
pub(crate) struct Ahead {
    entries: BTreeMap<Csn, EntryUuid>,
    by_entry: BTreeMap<EntryUuid, BTreeSet<Csn>>,
}

impl Ahead {
    /// As they were left; of some the turn may have come in the database's last moment.
    pub(crate) fn read(journal: &Journal, seen: &Seen) -> Result<Ahead, JournalError> {
        let mut ahead = Ahead::default();
        for (csn, uuid) in journal.ahead()?.into_iter().filter(|(csn, _)| !seen.covers(*csn)) {
            ahead.insert(csn, uuid);
        }
        Ok(ahead)
    }

    pub(crate) fn insert(&mut self, csn: Csn, uuid: EntryUuid) {
        self.entries.insert(csn, uuid);
        self.by_entry.entry(uuid).or_default().insert(csn);
    }

    pub(crate) fn remove(&mut self, csn: Csn) {
        let Some(uuid) = self.entries.remove(&csn) else { return };
        if let Some(csns) = self.by_entry.get_mut(&uuid) {
            csns.remove(&csn);
            if csns.is_empty() {
                self.by_entry.remove(&uuid);
            }
        }
    }

    pub(crate) fn contains(&self, csn: Csn) -> bool {
        self.entries.contains_key(&csn)
    }

    /// Those of an entry.
    pub(crate) fn of(&self, uuid: EntryUuid) -> impl Iterator<Item = Csn> + '_ {
        self.by_entry.get(&uuid).into_iter().flatten().copied()
    }

    /// Those that the vector tells of.
    pub(crate) fn reached<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = Csn> + 'a {
        self.entries.keys().copied().filter(|csn| seen.covers(*csn))
    }

    /// Of too many the earliest are forgotten: they are made once more, as any change that comes late.
    pub(crate) fn forget(&mut self) -> Vec<Csn> {
        let surplus = self.entries.len().saturating_sub(limits::AHEAD_MAX);
        let earliest: Vec<Csn> = self.entries.keys().copied().take(surplus).collect();
        earliest.iter().for_each(|csn| self.remove(*csn));
        earliest
    }

    /// Takes over what is noted in the journal.
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::Ahead { csn, uuid } => self.insert(*csn, *uuid),
            Record::InTurn(csn) => self.remove(*csn),
            _ => {}
        }
    }

    /// All of it, for a journal.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.entries.iter().map(|(csn, uuid)| Record::Ahead { csn: *csn, uuid: *uuid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csn(number: u8) -> Csn {
        format!("20261122235959.{number:06}Z#000000#001#000000").parse().unwrap()
    }

    fn uuid(number: u8) -> EntryUuid {
        EntryUuid::from_bytes([number; 16])
    }

    #[test]
    fn what_is_ahead_is_found_by_its_entry_and_forgotten_when_its_turn_comes() {
        let mut ahead = Ahead::default();
        for (number, of) in [(1, 2), (2, 1), (3, 2), (4, 3)] {
            ahead.insert(csn(number), uuid(of));
        }
        assert_eq!(ahead.of(uuid(2)).collect::<Vec<_>>(), [csn(1), csn(3)]);
        ahead.remove(csn(1));
        assert_eq!(ahead.of(uuid(2)).collect::<Vec<_>>(), [csn(3)]);
        assert!(!ahead.contains(csn(1)) && ahead.contains(csn(4)));
        let mut seen = Seen { vector: [csn(3)].into_iter().collect(), ..Seen::default() };
        assert_eq!(ahead.reached(&seen).collect::<Vec<_>>(), [csn(2), csn(3)]);
        seen.unseen.add_after(Some(csn(2)), csn(3));
        assert_eq!(ahead.reached(&seen).collect::<Vec<_>>(), [csn(2)]);
    }
}

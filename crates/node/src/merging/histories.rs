//! What was read of the journal lately: where two servers write to one entry again and again, each change that comes late wants all
//! that is later.

use crate::limits;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid};

/// Changes of one entry, as they are in the journal. They never change; which of them are still there, the journal tells.
pub(super) type History = BTreeMap<Csn, Arc<Change>>;

/// Those of the entries that were asked for last.
#[derive(Default)]
pub(crate) struct Histories(VecDeque<(EntryUuid, Arc<History>)>);

impl Histories {
    /// What is known of the entry, to be put back.
    pub(super) fn take(&mut self, uuid: EntryUuid) -> Arc<History> {
        let at = self.0.iter().position(|(known, _)| *known == uuid);
        at.and_then(|at| self.0.remove(at)).map(|(_, history)| history).unwrap_or_default()
    }

    /// Keeps what was asked for, unless it is too much.
    pub(super) fn put(&mut self, uuid: EntryUuid, history: Arc<History>) {
        let bytes: usize = history.values().map(|change| change.size()).sum();
        if bytes > limits::HISTORY_BYTES_MAX {
            return;
        }
        if self.0.len() == limits::HISTORIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((uuid, history));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmppsync_replica::Operation;

    fn uuid(number: usize) -> EntryUuid {
        EntryUuid::from_bytes([number as u8; 16])
    }

    #[test]
    fn the_entries_that_were_asked_for_last_are_known() {
        let csn: Csn = "20261122230000.000000Z#000000#001#000000".parse().unwrap();
        let history = |number| {
            let operation = Operation::Delete { dn: String::new() };
            let change = Change { csn, uuid: uuid(number), parent: None, operation };
            Arc::new(History::from([(csn, Arc::new(change))]))
        };
        let mut histories = Histories::default();
        for number in 0..=limits::HISTORIES_MAX {
            histories.put(uuid(number), history(number));
        }
        assert!(histories.take(uuid(0)).is_empty());
        assert_eq!(histories.take(uuid(1)), history(1));
        assert_eq!(histories.0.len(), limits::HISTORIES_MAX - 1);
    }
}

//! What clients had changed when the process was killed, and the journal did not have yet.

use super::Differences;
use crate::captured::Part;
use std::collections::{HashMap, HashSet};
use xmppsync_journal::pending::Kept;
use xmppsync_journal::{Journal, JournalError};
use xmppsync_replica::{Csn, EntryUuid, Operation, ServerId, Vector};

/// Changes that are in the database, in the order of their CSNs.
#[derive(Default)]
pub(super) struct Left {
    pub(super) changes: Vec<Part>,
    /// The last one of each entry.
    last: HashMap<EntryUuid, Csn>,
    deleted: HashSet<EntryUuid>,
}

impl Left {
    /// `read`: what was kept. After a power cut the database may lack some of it that it had not on disk. What comes after a change that was not
    /// kept is left out: an entry that is as the last kept change of it left it may have got that one before.
    pub(super) fn new(
        read: Vec<Kept>,
        own: ServerId,
        head: &Vector,
        differences: &Differences,
        journal: &Journal,
    ) -> Result<Left, JournalError> {
        let all: HashSet<Csn> = read.iter().map(|kept| kept.change.csn).collect();
        let is_news = |kept: &Kept| kept.change.csn.server_id() == own && !head.covers(kept.change.csn);
        let follows =
            |kept: &Kept| kept.before.is_none_or(|before| head.covers(before) || all.contains(&before));
        let news = read.into_iter().filter(is_news).take_while(follows);
        let read: Vec<Part> = news.map(|kept| (kept.change, kept.old_parent)).collect();
        let mut left = Left::default();
        if read.is_empty() {
            return Ok(left);
        }
        let newer: HashMap<EntryUuid, Option<Csn>> =
            differences.newer.iter().map(|newer| (newer.uuid, newer.csn)).collect();
        let gone: HashSet<EntryUuid> = differences.gone.iter().copied().collect();
        let is_delete = |(change, _): &&Part| matches!(change.operation, Operation::Delete { .. });
        let deleted: HashSet<EntryUuid> =
            read.iter().filter(is_delete).map(|(change, _)| change.uuid).collect();
        for part in read {
            let (uuid, csn) = (part.0.uuid, part.0.csn);
            let here = match newer.get(&uuid) {
                Some(csn) => *csn,
                None if gone.contains(&uuid) || differences.aside.is_glue(uuid) => None,
                None => journal.inventory_get(uuid)?,
            };
            let is_there = match (&part.0.operation, here) {
                (Operation::Delete { .. }, Some(here)) => here > csn,
                (_, Some(here)) => here >= csn,
                (Operation::Add(_), None) => {
                    deleted.contains(&uuid) || journal.tombstone(uuid)?.is_some_and(|(gone, _)| gone > csn)
                }
                (_, None) => true,
            };
            if is_there {
                left.last.insert(uuid, csn);
                if is_delete(&&part) {
                    left.deleted.insert(uuid);
                }
                left.changes.push(part);
            }
        }
        Ok(left)
    }

    /// Whether the entry is in the state that these changes led to.
    pub(super) fn explains(&self, uuid: EntryUuid, csn: Option<Csn>) -> bool {
        csn.is_some() && self.last.get(&uuid).copied() == csn
    }

    /// Whether the entry's delete is among them.
    pub(super) fn deletes(&self, uuid: EntryUuid) -> bool {
        self.deleted.contains(&uuid)
    }
}

//! What a replica keeps of the changes of all origins, to answer pulls.

use rand::RngExt;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use xmppsync_replica::{Batch, BootId, Change, Csn, ServerId, Vector};

/// The changes of one origin after the floor.
#[derive(Clone, Debug, Default)]
struct Log {
    floor: Option<Csn>,
    changes: VecDeque<Record>,
}

#[derive(Clone, Debug)]
struct Record {
    boot: BootId,
    seq: u64,
    change: Arc<Change>,
}

/// The changes of all origins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    logs: BTreeMap<ServerId, Log>,
}

/// The answer to a pull.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) batches: Vec<Batch>,
    pub(crate) beyond: Vec<Csn>,
    pub(crate) more: bool,
}

impl Log {
    fn head(&self) -> Option<Csn> {
        self.changes.back().map(|record| record.change.csn).or(self.floor)
    }
}

impl Journal {
    /// Notes what is new of a change.
    pub(crate) fn append(&mut self, boot: BootId, seq: u64, change: Arc<Change>) {
        let log = self.logs.entry(change.csn.server_id()).or_default();
        if log.head() < Some(change.csn) {
            log.changes.push_back(Record { boot, seq, change });
        }
    }

    /// Forgets what is not later than the vector.
    pub(crate) fn trim(&mut self, upto: &Vector) {
        for csn in upto.iter() {
            let Some(log) = self.logs.get_mut(&csn.server_id()) else { continue };
            while let Some(first) = log.changes.front().filter(|first| first.change.csn <= csn) {
                log.floor = Some(first.change.csn);
                log.changes.pop_front();
            }
        }
    }

    /// The server stopped: of what the database has not taken yet, the last may not have been on disk.
    pub(crate) fn lose(&mut self, applied: &Vector, rng: &mut SmallRng) {
        for (server, log) in &mut self.logs {
            let safe = log.changes.partition_point(|record| Some(record.change.csn) <= applied.get(*server));
            log.changes.truncate(rng.random_range(safe..=log.changes.len()));
        }
    }

    /// What is here of what one vector covers and the other one does not.
    pub(crate) fn between<'a>(
        &'a self,
        before: &'a Vector,
        now: &'a Vector,
    ) -> impl Iterator<Item = &'a Arc<Change>> {
        let all = self.logs.values().flat_map(|log| &log.changes).map(|record| &record.change);
        all.filter(|change| now.covers(change.csn) && !before.covers(change.csn))
    }

    /// Of what is not later no changes are here.
    pub(crate) fn floor(&self) -> Vector {
        self.logs.values().filter_map(|log| log.floor).collect()
    }

    /// A journal that begins where a database stands.
    pub(crate) fn beginning(at: &Vector) -> Journal {
        let mut journal = Journal::default();
        at.iter().for_each(|csn| journal.reached(csn));
        journal
    }

    /// What is before this is here, and not in the journal.
    pub(crate) fn reached(&mut self, csn: Csn) {
        let log = self.logs.entry(csn.server_id()).or_default();
        if log.head() < Some(csn) {
            log.changes.clear();
            log.floor = Some(csn);
        }
    }

    /// What somebody at `after` lacks, at most `max` changes, in the order of the CSNs.
    pub(crate) fn page(&self, after: &Vector, max: usize) -> Page {
        let mut page = Page::default();
        let mut cursors: Vec<(ServerId, usize, &Log)> = Vec::new();
        for (server, log) in &self.logs {
            let have = after.get(*server);
            match log.floor {
                Some(floor) if have < Some(floor) => page.beyond.push(floor),
                _ => {
                    let at = log.changes.partition_point(|record| Some(record.change.csn) <= have);
                    cursors.push((*server, at, log));
                }
            }
        }
        let mut prev = after.clone();
        for _ in 0..max {
            let next = cursors.iter_mut().filter(|(_, at, log)| *at < log.changes.len());
            let Some((server, at, log)) = next.min_by_key(|(_, at, log)| log.changes[*at].change.csn) else {
                return page;
            };
            let record = &log.changes[*at];
            *at += 1;
            page.push(*server, prev.get(*server), record);
            prev.advance(record.change.csn);
        }
        page.more = cursors.iter().any(|(_, at, log)| *at < log.changes.len());
        page
    }
}

impl Page {
    fn push(&mut self, origin: ServerId, prev: Option<Csn>, record: &Record) {
        let Record { boot, seq, change } = record;
        match self.batches.last_mut() {
            Some(batch)
                if (batch.origin, batch.boot) == (origin, *boot)
                    && batch.last().checked_add(1) == Some(*seq) =>
            {
                batch.changes.push(Change::clone(change));
            }
            _ => {
                let changes = vec![Change::clone(change)];
                self.batches.push(Batch { origin, boot: *boot, first: *seq, prev, changes });
            }
        }
    }
}

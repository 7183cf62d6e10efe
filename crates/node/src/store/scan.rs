//! The entries of a database that is in use, for a new journal.

use super::{Job, State};
use crate::host::{DumpEnd, Reader};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use tracing::warn;
use xmppsync_replica::{Csn, EntryUuid};

/// Entries that are handed over together.
const ENTRIES_MAX: usize = 10_000;

/// One reading of the database. Dropped before its end it tells the journal so.
///
/// An entry that is changed meanwhile is told of by its change, which is later: the inventory never goes back. What waits for
/// the journal is at most the whole inventory, as a comparison holds it.
pub(crate) struct Scan {
    number: u64,
    jobs: Sender<Job>,
    state: Arc<State>,
    entries: Vec<(EntryUuid, Csn)>,
    whole: bool,
}

impl Scan {
    pub(super) fn new(number: u64, jobs: Sender<Job>, state: Arc<State>) -> Scan {
        Scan { number, jobs, state, entries: Vec::new(), whole: false }
    }

    /// Returns itself when the host wants its thread back; then it begins again.
    pub(crate) fn run(mut self, reader: &mut dyn Reader) -> Option<Scan> {
        let end = reader.scan(&mut |uuid, csn| {
            self.entries.push((uuid, csn));
            if self.entries.len() >= ENTRIES_MAX {
                self.hand_over();
            }
            // Another journal may have taken the place of this one.
            self.state.filling.load(Ordering::Relaxed) == self.number
        });
        match end {
            Ok(DumpEnd::Yielded) => {
                self.entries.clear();
                return Some(self);
            }
            Ok(DumpEnd::Stopped) => {}
            Ok(DumpEnd::Whole) => {
                self.hand_over();
                self.whole = true;
            }
            Err(problem) => warn!("the database cannot be read for its new journal: {problem}"),
        }
        None
    }

    fn hand_over(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.state.queued_bytes.fetch_add(super::found_bytes(&entries), Ordering::Relaxed);
        // The journal may be closed.
        let _ = self.jobs.send(Job::Found(self.number, entries));
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        let _ = self.jobs.send(Job::Scanned(self.number, self.whole));
    }
}

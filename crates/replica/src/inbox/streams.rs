//! The live stream of one origin: what came behind a hole, and the numbers for people.

use crate::csn::is_within;
use crate::{Batch, BootId, Change, Csn};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Stream {
    /// The run, and the sequence number that comes next in it, for reports; 0 before the first batch.
    boot: BootId,
    next: u64,
    /// It is heard live.
    followed: bool,
    /// Batches behind the hole, by their first CSN.
    stash: BTreeMap<Csn, Batch>,
    stash_bytes: usize,
}

impl Default for Stream {
    fn default() -> Stream {
        Stream { boot: BootId::new(0), next: 0, followed: false, stash: BTreeMap::new(), stash_bytes: 0 }
    }
}

impl Stream {
    /// Remembers the last number that came, and of which run. Returns the one that was expected next; 0 when none was.
    pub(super) fn note(&mut self, boot: BootId, last: u64) -> u64 {
        let expected = if self.boot == boot { self.next } else { 0 };
        self.boot = boot;
        self.next = last.saturating_add(1).max(expected);
        self.followed = true;
        expected
    }

    /// Its origin, or the line, is gone.
    pub(super) fn end(&mut self) {
        self.followed = false;
    }

    /// Whether it is heard live.
    pub(super) fn is_followed(&self) -> bool {
        self.followed
    }

    pub(super) fn put_aside(&mut self, batch: Batch, bytes_max: usize) {
        let size = bytes(&batch);
        let Some(first) = batch.changes.first().map(|change| change.csn) else { return };
        if self.stash_bytes + size <= bytes_max {
            self.stash_bytes += size;
            if let Some(replaced) = self.stash.insert(first, batch) {
                self.stash_bytes -= bytes(&replaced);
            }
        }
    }

    /// The next batch that leaves no hole behind `have`.
    pub(super) fn take_next(&mut self, have: Option<Csn>) -> Option<Batch> {
        let entry =
            self.stash.first_entry().filter(|entry| is_within(entry.get().prev.as_ref(), have.as_ref()))?;
        let batch = entry.remove();
        self.stash_bytes -= bytes(&batch);
        Some(batch)
    }

    /// The latest change that waits.
    pub(super) fn latest(&self) -> Option<Csn> {
        self.stash.values().filter_map(Batch::last_csn).max()
    }
}

pub(super) fn bytes(batch: &Batch) -> usize {
    batch.changes.iter().map(Change::size).sum()
}

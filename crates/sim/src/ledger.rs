//! What the checkers know: every change that was acknowledged to a client, and which of them each replica has applied.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Unseen, Vector};

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// All replicas are alike within a bound after everything works again.
    Convergence,
    /// They are what all acknowledged changes give in the order of their CSNs: each is there or has lost to a later one.
    Content,
    /// A vector covers what was applied, and nothing else.
    Contiguity,
    /// A vector never moves back.
    Monotonicity,
    /// No change is applied twice.
    Repetition,
    /// No change comes back to the server that made it.
    Echo,
    /// What was deleted stays so.
    Resurrection,
    /// No orphan, no cycle, no name twice, no glue without children.
    Tree,
    /// Nothing comes any more that is earlier than something that was forgotten.
    Memory,
    /// Nothing waits for ever for an entry.
    Waiting,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which one.
    pub checker: Checker,
    /// Where and how.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.text)
    }
}

pub(crate) type Checked = Result<(), Violation>;

pub(crate) fn broken(checker: Checker, text: impl Into<String>) -> Checked {
    Err(Violation { checker, text: text.into() })
}

/// The acknowledged changes of all servers, in the order in which each made them.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    origins: Vec<Vec<Arc<Change>>>,
    /// What went into the state under which a server sends it after a crash.
    merged: BTreeSet<Csn>,
}

impl Ledger {
    /// A crash took the changes of an entry from the journal: what they led to is sent as a state, with the CSN of the last.
    pub(crate) fn merge(&mut self, changes: &[Csn], state: &Arc<Change>) {
        self.merged.extend(changes.iter().filter(|csn| **csn != state.csn));
        if let Some(at) = self.position(state.csn) {
            self.origins[index(state.csn)][at] = Arc::clone(state);
        }
    }

    pub(crate) fn made(&mut self, change: Arc<Change>) {
        let origin = index(change.csn);
        if self.origins.len() <= origin {
            self.origins.resize_with(origin + 1, Vec::new);
        }
        self.origins[origin].push(change);
    }

    fn of(&self, origin: usize) -> &[Arc<Change>] {
        self.origins.get(origin).map_or(&[], Vec::as_slice)
    }

    fn position(&self, csn: Csn) -> Option<usize> {
        self.of(index(csn)).binary_search_by_key(&csn, |change| change.csn).ok()
    }

    fn counts(&self, change: &Change) -> bool {
        !self.merged.contains(&change.csn)
    }

    /// What the one has applied and the other has not, in the order of the CSNs.
    pub(crate) fn lacking<'a>(&'a self, of: &Applied, at: &Applied) -> Vec<&'a Arc<Change>> {
        self.all(|csn| of.has(self, csn) && !at.has(self, csn))
    }

    /// All changes that somebody has applied, in the order of their CSNs.
    pub(crate) fn all(&self, by: impl Fn(Csn) -> bool) -> Vec<&Arc<Change>> {
        let mut all: Vec<_> =
            self.origins.iter().flatten().filter(|change| self.counts(change) && by(change.csn)).collect();
        all.sort_by_key(|change| change.csn);
        all
    }
}

/// The place of a server in lists.
pub(crate) fn index(csn: Csn) -> usize {
    usize::from(csn.server_id().get()) - 1
}

/// What one replica has applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    origins: Vec<Vec<u64>>,
}

impl Applied {
    /// Notes a change as applied here, or says that it was before. `None`: nobody ever made it.
    pub(crate) fn note(&mut self, ledger: &Ledger, csn: Csn) -> Option<bool> {
        let (origin, at) = (index(csn), ledger.position(csn)?);
        if self.origins.len() <= origin {
            self.origins.resize_with(origin + 1, Vec::new);
        }
        let words = &mut self.origins[origin];
        if words.len() <= at / 64 {
            words.resize(at / 64 + 1, 0);
        }
        let bit = 1 << (at % 64);
        let known = words[at / 64] & bit != 0;
        words[at / 64] |= bit;
        Some(!known)
    }

    pub(crate) fn has(&self, ledger: &Ledger, csn: Csn) -> bool {
        ledger.position(csn).is_some_and(|at| self.bit(index(csn), at))
    }

    fn bit(&self, origin: usize, at: usize) -> bool {
        let word = self.origins.get(origin).and_then(|words| words.get(at / 64));
        word.is_some_and(|word| word & 1 << (at % 64) != 0)
    }

    /// What is there as well after another database was taken over.
    pub(crate) fn extend(&mut self, other: &Applied) {
        if self.origins.len() < other.origins.len() {
            self.origins.resize_with(other.origins.len(), Vec::new);
        }
        for (own, theirs) in self.origins.iter_mut().zip(&other.origins) {
            if own.len() < theirs.len() {
                own.resize(theirs.len(), 0);
            }
            own.iter_mut().zip(theirs).for_each(|(own, theirs)| *own |= theirs);
        }
    }

    /// The first acknowledged change that the vector covers after `before` and that was not applied, although it is not known to be
    /// `unseen`, nor its entry in doubt.
    pub(crate) fn hole(
        &self,
        ledger: &Ledger,
        before: Option<Csn>,
        until: Csn,
        unseen: &Unseen,
        doubts: &BTreeSet<EntryUuid>,
    ) -> Option<Csn> {
        let origin = index(until);
        let all = ledger.of(origin);
        let from = all.partition_point(|change| Some(change.csn) <= before);
        let covered = all.iter().enumerate().skip(from).take_while(|(_, change)| change.csn <= until);
        let mut missing = covered.filter(|(at, change)| {
            let excused = unseen.contains(change.csn) || doubts.contains(&change.uuid);
            !self.bit(origin, *at) && !excused && ledger.counts(change)
        });
        missing.next().map(|(_, change)| change.csn)
    }

    /// As [`hole`](Self::hole), of all origins.
    pub(crate) fn any_hole(
        &self,
        ledger: &Ledger,
        vector: &Vector,
        unseen: &Unseen,
        doubts: &BTreeSet<EntryUuid>,
    ) -> Option<Csn> {
        vector.iter().find_map(|until| self.hole(ledger, None, until, unseen, doubts))
    }
}

//! What is on its way into the database, in its order.

mod ahead;

pub(crate) use ahead::Ahead;

use crate::heal::knowledge::Likeness;
use crate::limits;
use crate::merging::Taking;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xmppsync_replica::{Change, Csn, EntryUuid, Move, Place, Vector};

/// What is on its way into the database.
#[derive(Clone)]
pub(crate) enum Incoming {
    /// The next change of its origin: the vector moves to it.
    Change(Arc<Change>),
    /// An entry or a delete that a comparison or a load brought; the vector does not tell of it.
    State(Arc<Change>),
    /// The same for an entry that is not in the database, as far as is known.
    New(Arc<Change>),
    /// A change whose turn is over, or is not: it waited for another entry since, or a comparison brought it.
    Waited(Arc<Change>),
    /// An entry that is to become what it is at another replica, as a comparison judged.
    Take(Arc<Taking>),
    /// A delete that a comparison brought, as judged: it takes what was written without knowing of it, too.
    Gone(Arc<Change>),
    /// Moves that another replica knows.
    Moves(Arc<[Move]>),
    /// An entry that was in doubt, and is like another replica's, which is not, if it is still like this.
    Certain(EntryUuid, Option<Likeness>),
    /// Everything up to here is in the database with what came before.
    Reached(Vector),
}

impl Incoming {
    pub(crate) fn size(&self) -> usize {
        match self {
            Incoming::Change(change)
            | Incoming::State(change)
            | Incoming::New(change)
            | Incoming::Gone(change)
            | Incoming::Waited(change) => change.size(),
            Incoming::Take(taking) => taking.size(),
            Incoming::Moves(moves) => size_of_val(&**moves),
            Incoming::Certain(..) | Incoming::Reached(_) => 0,
        }
    }

    pub(crate) fn change(&self) -> Option<&Arc<Change>> {
        match self {
            Incoming::Change(change)
            | Incoming::State(change)
            | Incoming::New(change)
            | Incoming::Gone(change)
            | Incoming::Waited(change) => Some(change),
            Incoming::Take(taking) => Some(&taking.state),
            Incoming::Moves(_) | Incoming::Certain(..) | Incoming::Reached(_) => None,
        }
    }

    /// The latest CSN that comes into the database with it.
    pub(crate) fn latest(&self) -> Option<Csn> {
        match self {
            Incoming::Change(change)
            | Incoming::State(change)
            | Incoming::New(change)
            | Incoming::Gone(change)
            | Incoming::Waited(change) => Some(change.csn),
            Incoming::Take(taking) => taking.theirs.changes.last().copied().max(Some(taking.state.csn)),
            Incoming::Moves(moves) => moves.iter().map(|made| made.csn).max(),
            Incoming::Certain(..) => None,
            Incoming::Reached(reached) => reached.iter().max(),
        }
    }

    /// A change that waited.
    pub(crate) fn waited(&self) -> Option<&Arc<Change>> {
        match self {
            Incoming::Waited(change) => Some(change),
            _ => None,
        }
    }

    /// Moves the vector to where it is once this is in the database.
    pub(crate) fn advance(&self, vector: &mut Vector) {
        match self {
            Incoming::Change(change) => vector.advance(change.csn),
            Incoming::State(_) | Incoming::New(_) | Incoming::Waited(_) | Incoming::Gone(_) => {}
            Incoming::Take(_) | Incoming::Moves(_) | Incoming::Certain(..) => {}
            Incoming::Reached(reached) => reached.iter().for_each(|csn| vector.advance(csn)),
        }
    }
}

#[derive(Default)]
pub(crate) struct ToApply {
    queue: VecDeque<Incoming>,
    bytes: usize,
    /// A call of `apply` was asked for and has not ended.
    pub(crate) running: bool,
    /// The database wants a pause before the next attempt.
    pub(crate) pause: Option<Duration>,
    /// What was in the queue is gone, see `handle_panic`.
    lost: bool,
    /// How often that happened.
    losses: u64,
    paused_until: Option<Instant>,
    /// Attempts at the front of the queue that failed for a reason that may pass.
    pub(crate) temporary_failures: u32,
    pub(crate) waiting: Waiting,
    pub(crate) ahead: Ahead,
    pub(crate) set_aside: u64,
    /// How often an entry came into doubt, or a change began to wait.
    pub(crate) questions: u64,
    /// Deletes and renames of clients, with where their entries were: others may have waited for their names.
    pub(crate) to_follow: VecDeque<(Arc<Change>, Place)>,
    /// Attempts to follow the first of them.
    pub(crate) follow_failures: u32,
}

/// Changes that wait for another entry to come.
#[derive(Default)]
pub(crate) struct Waiting {
    by_entry: BTreeMap<EntryUuid, Vec<Arc<Change>>>,
    csns: HashSet<Csn>,
}

impl Waiting {
    /// `false`: too many wait.
    pub(crate) fn push(&mut self, missing: EntryUuid, change: Arc<Change>) -> bool {
        let has_room = self.csns.len() < limits::WAITING_CHANGES_MAX;
        if has_room && self.csns.insert(change.csn) {
            self.by_entry.entry(missing).or_default().push(change);
        }
        has_room
    }

    /// Those that wait for one of these entries, in the order of their CSNs.
    pub(crate) fn take(&mut self, come: impl Iterator<Item = EntryUuid>) -> Vec<Arc<Change>> {
        let mut taken: Vec<Arc<Change>> =
            come.filter_map(|uuid| self.by_entry.remove(&uuid)).flatten().collect();
        for change in &taken {
            self.csns.remove(&change.csn);
        }
        taken.sort_by_key(|change| change.csn);
        taken
    }

    /// The changes of this entry that wait.
    pub(crate) fn of(&self, uuid: EntryUuid) -> BTreeSet<Csn> {
        let waiting = self.by_entry.values().flatten().filter(|change| change.uuid == uuid);
        waiting.map(|change| change.csn).collect()
    }

    /// These wait no more: they are in a state that was taken.
    pub(crate) fn remove(&mut self, csns: &BTreeSet<Csn>) {
        self.by_entry.values_mut().for_each(|changes| changes.retain(|change| !csns.contains(&change.csn)));
        self.by_entry.retain(|_, changes| !changes.is_empty());
        self.csns.retain(|csn| !csns.contains(csn));
    }

    /// Whether changes wait for this entry.
    pub(crate) fn is_awaited(&self, uuid: EntryUuid) -> bool {
        self.by_entry.contains_key(&uuid)
    }

    /// Entries that are waited for, and those whose changes wait.
    pub(crate) fn entries(&self) -> BTreeSet<EntryUuid> {
        let waiting = self.by_entry.values().flatten().map(|change| change.uuid);
        self.by_entry.keys().copied().chain(waiting).collect()
    }

    pub(crate) fn contains(&self, csn: Csn) -> bool {
        self.csns.contains(&csn)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.csns.is_empty()
    }
}

impl ToApply {
    /// `false`: the queue is full, nothing was taken.
    pub(crate) fn push(&mut self, work: Vec<Incoming>) -> bool {
        let bytes: usize = work.iter().map(Incoming::size).sum();
        if self.bytes > 0 && self.bytes + bytes > limits::APPLY_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.queue.extend(work);
        true
    }

    /// As [`push`](Self::push), but leaves room for others.
    pub(crate) fn push_if_room(&mut self, work: &[Incoming]) -> bool {
        self.has_room() && self.push(work.to_vec())
    }

    /// The next changes for one transaction.
    pub(crate) fn take(&mut self) -> Vec<Incoming> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(next) = self.queue.front() {
            let size = next.size();
            let full = taken.len() >= limits::TRANSACTION_CHANGES_MAX
                || (bytes > 0 && bytes + size > limits::TRANSACTION_BYTES_MAX);
            if full {
                break;
            }
            bytes += size;
            taken.extend(self.queue.pop_front());
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    pub(crate) fn put_back(&mut self, changes: Vec<Incoming>) {
        self.bytes += changes.iter().map(Incoming::size).sum::<usize>();
        for incoming in changes.into_iter().rev() {
            self.queue.push_front(incoming);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.to_follow.is_empty()
    }

    /// Whether what a client did is to be followed once more after a failure that may pass.
    pub(crate) fn may_follow_again(&mut self) -> bool {
        self.follow_failures += 1;
        let again = self.follow_failures < limits::FOLLOW_ATTEMPTS;
        if !again {
            self.follow_failures = 0;
        }
        again
    }

    /// These entries have come: what waited for them is next.
    pub(crate) fn release(&mut self, come: &[EntryUuid]) {
        if !self.waiting.is_empty() {
            let waited = self.waiting.take(come.iter().copied());
            self.put_back(waited.into_iter().map(Incoming::Waited).collect());
        }
    }

    /// Whether the change waits for another entry.
    pub(crate) fn is_waiting(&self, change: &Change) -> bool {
        self.waiting.contains(change.csn)
    }

    /// The task that applied changes failed in a way that nobody foresaw. What it held is lost, so nothing that
    /// waits may be applied before it, and the vector tells from where to go on.
    pub(crate) fn handle_panic(&mut self) {
        *self = ToApply {
            waiting: std::mem::take(&mut self.waiting),
            ahead: std::mem::take(&mut self.ahead),
            set_aside: self.set_aside,
            questions: self.questions,
            to_follow: std::mem::take(&mut self.to_follow),
            lost: true,
            losses: self.losses + 1,
            pause: Some(limits::PANIC_PAUSE),
            ..ToApply::default()
        };
    }

    /// How often what was in the queue got lost: whoever put something into it compares before and after.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// Whether changes were lost since this was asked last.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Whether a comparison brought what is not in the database yet: the vector tells nothing of it.
    pub(crate) fn is_taking(&self) -> bool {
        self.queue.iter().any(|incoming| matches!(incoming, Incoming::Take(_) | Incoming::Reached(_)))
    }

    /// Whether another page can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < limits::APPLY_BYTES_MAX / 2
    }

    /// Nothing waits and nothing is being applied: the vector is up to date.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && !self.running
    }

    /// The end of the pause that the database wants; the first call begins it.
    pub(crate) fn pause_until(&mut self, now: Instant) -> Option<Instant> {
        if let Some(pause) = self.pause.take() {
            self.paused_until = Some(now + pause);
        }
        self.paused_until = self.paused_until.filter(|until| now < *until);
        self.paused_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmppsync_replica::Operation;

    fn change(number: u8) -> Arc<Change> {
        let csn = format!("20261122235959.{number:06}Z#000000#001#000000").parse().unwrap();
        let uuid = EntryUuid::from_bytes([number; 16]);
        Arc::new(Change { csn, uuid, parent: None, operation: Operation::Delete { dn: String::new() } })
    }

    #[test]
    fn what_is_in_a_state_that_was_taken_waits_no_more() {
        let mut waiting = Waiting::default();
        let missing = EntryUuid::from_bytes([9; 16]);
        assert!(waiting.push(missing, change(1)) && waiting.push(missing, change(2)));
        waiting.remove(&waiting.of(change(1).uuid));
        assert!(!waiting.contains(change(1).csn) && waiting.is_awaited(missing));
        waiting.remove(&waiting.of(change(2).uuid));
        assert!(waiting.is_empty() && !waiting.is_awaited(missing));
    }
}

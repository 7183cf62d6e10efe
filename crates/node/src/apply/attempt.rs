//! One transaction: as many changes as go into it, in the plain way or by the rules for changes that meet.

use super::{OTHER, tell_unmarked};
use crate::fail::{FailPoint, fail_point};
use crate::heal::knowledge;
use crate::host::{ContextCsnWrite, Failure, Outcome, Transaction};
use crate::limits;
use crate::merging::{self, Merged, Scratch, Taking};
use crate::shared::{Shared, inventory_record, lock};
use crate::to_apply::{Ahead, Incoming};
use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;
use xmppsync_journal::Record;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, Seen, Vector};

pub(super) enum Attempt<'a> {
    /// To be noted while this is held: what is in the database is not told of yet.
    Committed(Box<Committed>, MutexGuard<'a, ()>),
    /// The change at this index aborted the transaction.
    FailedAt(usize, Failure),
    /// The change at this index cannot be made inside of a transaction.
    AloneAt(usize),
    /// What was lost could not be marked.
    Unmarked(Failure),
    /// Failed for a reason that may pass; at the change with this index, if at one.
    Temporary(Option<usize>, Failure),
}

/// What a transaction led to.
#[derive(Default)]
pub(super) struct Committed {
    /// The first `count` are through; those at these indices were refused.
    pub(super) count: usize,
    pub(super) refused: Vec<(usize, Failure)>,
    /// For the inventory.
    pub(super) records: Vec<Record>,
    /// What is in the database before its turn from now on, and what is not any more.
    pub(super) ahead: Ahead,
    pub(super) not_ahead: BTreeSet<Csn>,
    /// States that were taken.
    pub(super) taken: Vec<Arc<Taking>>,
    /// Entries for which others may have waited.
    pub(super) come: Vec<EntryUuid>,
    pub(super) scratch: Scratch,
}

impl Committed {
    /// Whether the change is in the database already, before its turn.
    fn is_ahead(&self, shared: &Shared, incoming: &Incoming) -> bool {
        let (Incoming::Change(change) | Incoming::Waited(change)) = incoming else { return false };
        let csn = change.csn;
        self.ahead.contains(csn)
            || (!self.not_ahead.contains(&csn) && lock(&shared.to_apply).ahead.contains(csn))
    }

    fn note_ahead(&mut self, csn: Csn, uuid: EntryUuid) {
        self.not_ahead.remove(&csn);
        self.ahead.insert(csn, uuid);
    }

    fn note_not_ahead(&mut self, csn: Csn) {
        self.ahead.remove(csn);
        self.not_ahead.insert(csn);
    }

    /// What was made of the entry before its turn and is not in the state that was taken is to come.
    fn note_taken(&mut self, shared: &Shared, taking: &Taking, seen: &Seen) {
        let uuid = taking.state.uuid;
        let mut ahead: BTreeSet<Csn> = lock(&shared.to_apply).ahead.of(uuid).collect();
        ahead.extend(self.ahead.of(uuid));
        let is_lost = |csn: &Csn| !taking.there.has(&taking.theirs, *csn);
        ahead.into_iter().filter(is_lost).for_each(|csn| self.note_not_ahead(csn));
        taking.ahead(seen).for_each(|csn| self.note_ahead(csn, uuid));
    }
}

pub(super) fn attempt<'a>(
    shared: &'a Shared,
    transaction: &mut dyn Transaction,
    work: &[Incoming],
    careful: bool,
    marking: bool,
) -> Attempt<'a> {
    let atomic = match transaction.begin() {
        Ok(atomic) => atomic,
        Err(failure) => return Attempt::Temporary(None, failure),
    };
    // Without transactions each change stands alone, so that a failed one takes no other with it.
    let work = if atomic { work } else { &work[..work.len().min(1)] };
    let mut committing = (!atomic).then(|| lock(&shared.committing));
    match fill(shared, transaction, work, careful) {
        Ok((committed, vector)) => {
            committed.scratch.announce(shared);
            let marked = if marking { committed.scratch.mark_lost(shared, transaction) } else { Ok(()) };
            match marked {
                Err(failure) if atomic => {
                    transaction.abort();
                    return Attempt::Unmarked(failure);
                }
                Err(failure) => tell_unmarked(&failure),
                Ok(()) => {}
            }
            fail_point(FailPoint::Applying);
            let committing = committing.take().unwrap_or_else(|| lock(&shared.committing));
            match commit(transaction, &vector, atomic) {
                Ok(()) => Attempt::Committed(committed, committing),
                Err(failure) => Attempt::Temporary(None, failure),
            }
        }
        Err(failed) => {
            transaction.abort();
            failed
        }
    }
}

/// Makes the changes, until one fails or clients have waited long enough. Returns what the vector is then.
fn fill(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    work: &[Incoming],
    careful: bool,
) -> Result<(Box<Committed>, Vector), Attempt<'static>> {
    let mut vector = lock(&shared.vector).clone();
    let mut done = Box::new(Committed { count: work.len(), ..Committed::default() });
    let begun = Instant::now();
    for (index, incoming) in work.iter().enumerate() {
        if index > 0 && begun.elapsed() > limits::TRANSACTION_TIME {
            // Clients wait for it.
            done.count = index;
            break;
        }
        incoming.advance(&mut vector);
        let careful = careful && index == 0;
        let step = Step { shared, transaction: &mut *transaction, done: &mut done, vector: &vector, index };
        step.make(incoming, careful)?;
    }
    Ok((done, vector))
}

/// One piece of work in the open transaction.
struct Step<'a> {
    shared: &'a Shared,
    transaction: &'a mut dyn Transaction,
    done: &'a mut Committed,
    vector: &'a Vector,
    index: usize,
}

impl Step<'_> {
    /// `careful`: by the rules.
    fn make(mut self, incoming: &Incoming, careful: bool) -> Result<(), Attempt<'static>> {
        let Some(change) = incoming.change() else { return self.note(incoming) };
        if is_outdated(self.shared, incoming) {
            return Ok(());
        }
        if self.done.is_ahead(self.shared, incoming) {
            if matches!(incoming, Incoming::Change(_)) {
                self.done.note_not_ahead(change.csn);
            }
            return Ok(());
        }
        let is_made = match self.plainly(incoming, change, careful) {
            Outcome::Applied => {
                self.note_plain(incoming, change).map_err(|outcome| failed(self.index, outcome))?;
                true
            }
            Outcome::Refused(failure) if !failure.is_missing_entry() => {
                self.done.refused.push((self.index, failure));
                false
            }
            Outcome::Care | Outcome::Refused(_) => self.by_rules(incoming, change)?,
            other => return Err(failed(self.index, other)),
        };
        if is_made {
            self.note_made(incoming, change);
        }
        Ok(())
    }

    /// What is no change.
    fn note(&mut self, incoming: &Incoming) -> Result<(), Attempt<'static>> {
        let Step { shared, transaction, done, vector, index } = self;
        match incoming {
            Incoming::Moves(moves) => {
                let learned = merging::learn(shared, *transaction, &mut done.scratch, vector, moves);
                learned.map_err(|outcome| failed(*index, outcome))
            }
            Incoming::Certain(uuid, like) => {
                let here = transaction.read_entry(uuid);
                let here = here.map_err(|failure| Attempt::Temporary(None, failure))?;
                if knowledge::prints(here.as_ref()).0 == *like {
                    done.scratch.set_doubt(shared, *uuid, false);
                }
                Ok(())
            }
            Incoming::Reached(reached) => {
                let seen = shared.seen_up_to(reached);
                let mut came: Vec<Csn> = lock(&shared.to_apply).ahead.reached(&seen).collect();
                came.extend(done.ahead.reached(&seen));
                came.into_iter().for_each(|csn| done.note_not_ahead(csn));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn plainly(&mut self, incoming: &Incoming, change: &Arc<Change>, careful: bool) -> Outcome {
        let Step { shared, transaction, done, .. } = self;
        if careful || done.scratch.needs_rules(shared, incoming) {
            return Outcome::Care;
        }
        match incoming {
            Incoming::New(entry) => transaction.add_new(entry),
            Incoming::Take(taking) => match merging::is_plain(shared, *transaction, &done.scratch, taking) {
                Ok(true) => transaction.apply_state(change),
                Ok(false) => Outcome::Care,
                Err(outcome) => outcome,
            },
            Incoming::State(state) | Incoming::Gone(state) => transaction.apply_state(state),
            _ => transaction.apply(change),
        }
    }

    fn note_plain(&mut self, incoming: &Incoming, change: &Arc<Change>) -> Result<(), Outcome> {
        let Step { shared, transaction, done, vector, .. } = self;
        if matches!(incoming, Incoming::New(_) | Incoming::State(_) | Incoming::Take(_)) {
            done.scratch.note_state(shared, *transaction, vector, change)?;
        }
        match merging::is_glue(change) {
            true => {
                let records = merging::inventory(*transaction, change).map_err(Outcome::Temporary)?;
                done.records.extend(records);
            }
            false => done.records.push(inventory_record(change)),
        }
        if let Operation::Delete { .. } = change.operation {
            done.scratch.handle_deleted(shared, change);
        }
        Ok(())
    }

    /// Returns whether it is made.
    fn by_rules(&mut self, incoming: &Incoming, change: &Arc<Change>) -> Result<bool, Attempt<'static>> {
        let temporary = |failure| Attempt::Temporary(Some(self.index), failure);
        if is_overtaken(self.transaction, incoming).map_err(temporary)? {
            return Ok(false);
        }
        let (shared, scratch) = (self.shared, &mut self.done.scratch);
        let merged = match incoming {
            Incoming::Take(taking) => merging::take(shared, self.transaction, scratch, self.vector, taking),
            _ => merging::apply(shared, self.transaction, scratch, self.vector, incoming),
        };
        match merged {
            Merged::Done => {
                let records = merging::inventory(self.transaction, change).map_err(temporary)?;
                self.done.records.extend(records);
                Ok(true)
            }
            Merged::Waits(missing) => {
                scratch.wait(change, missing);
                Ok(false)
            }
            Merged::Left => Ok(false),
            Merged::Failed(outcome) => Err(failed(self.index, outcome)),
        }
    }

    fn note_made(&mut self, incoming: &Incoming, change: &Change) {
        handle_deleted(self.shared, change);
        match incoming {
            Incoming::Take(taking) => {
                let seen = self.shared.seen_up_to(self.vector);
                self.done.note_taken(self.shared, taking, &seen);
                self.done.taken.push(Arc::clone(taking));
            }
            Incoming::Waited(change) if !self.shared.seen_up_to(self.vector).covers(change.csn) => {
                self.done.note_ahead(change.csn, change.uuid);
            }
            _ => {}
        }
        if !matches!(change.operation, Operation::Modify(_)) {
            self.done.come.push(change.uuid);
        }
    }
}

/// What an outcome that ends the transaction means for the attempt.
fn failed(index: usize, outcome: Outcome) -> Attempt<'static> {
    match outcome {
        Outcome::Alone(_) => Attempt::AloneAt(index),
        Outcome::Failed(failure) | Outcome::Refused(failure) => Attempt::FailedAt(index, failure),
        // It may be something else that holds it up.
        Outcome::Temporary(failure) if failure.is_busy() => Attempt::Temporary(None, failure),
        Outcome::Temporary(failure) => Attempt::Temporary(Some(index), failure),
        Outcome::Applied | Outcome::Care => {
            let text = "the rules for changes that meet ask for themselves".to_owned();
            Attempt::FailedAt(index, Failure { result: OTHER, text })
        }
    }
}

/// A delete of a state that was written to later than whoever sent the delete knew.
fn is_overtaken(transaction: &mut dyn Transaction, incoming: &Incoming) -> Result<bool, Failure> {
    let Incoming::State(change) = incoming else { return Ok(false) };
    if !matches!(change.operation, Operation::Delete { .. }) {
        return Ok(false);
    }
    let here = transaction.read_entry(&change.uuid)?;
    Ok(here.is_some_and(|entry| entry.csn > change.csn && !merging::is_glue(&entry)))
}

/// A state that a delete has overtaken.
fn is_outdated(shared: &Shared, incoming: &Incoming) -> bool {
    let (Incoming::State(state) | Incoming::New(state)) = incoming else { return false };
    matches!(state.operation, Operation::Put(_)) && lock(&shared.captured).deleted.outdates(state)
}

/// A state that is on its way must not bring back what is deleted.
fn handle_deleted(shared: &Shared, change: &Change) {
    if matches!(change.operation, Operation::Delete { .. }) {
        lock(&shared.captured).deleted.note(change);
    }
}

/// Makes a change that commits by itself, like [`attempt`] without a transaction. A crash before the vector is stored makes it come
/// again.
pub(super) fn apply_alone<'a>(
    shared: &'a Shared,
    transaction: &mut dyn Transaction,
    incoming: &Incoming,
    careful: bool,
) -> Attempt<'a> {
    let committing = lock(&shared.committing);
    transaction.set_exclusive(true);
    let attempted = fill(shared, transaction, std::slice::from_ref(incoming), careful);
    let marked = match &attempted {
        Ok((committed, _)) => committed.scratch.mark_lost(shared, transaction),
        Err(_) => Ok(()),
    };
    transaction.set_exclusive(false);
    if let Err(failure) = marked {
        tell_unmarked(&failure);
    }
    let (committed, vector) = match attempted {
        Ok(done) => done,
        Err(failed) => return failed,
    };
    // Where that fails, the next transaction stores it.
    let _ = transaction.write_context_csn(&vector);
    Attempt::Committed(committed, committing)
}

/// The vector is written in the transaction that it describes: both are durable or neither is. Without a
/// transaction the changes are durable already, and a vector that cannot be written now is written next time.
fn commit(transaction: &mut dyn Transaction, vector: &Vector, atomic: bool) -> Result<(), Failure> {
    if transaction.write_context_csn(vector) == ContextCsnWrite::Failed && atomic {
        transaction.abort();
        return Err(Failure { result: OTHER, text: "contextCSN could not be written".to_owned() });
    }
    transaction.commit()
}

//! Changes of others into the database, many per transaction.

use crate::fail::{FailPoint, fail_point};
use crate::host::{ContextCsnWrite, Failure, Outcome, Transaction};
use crate::limits;
use crate::shared::{Incoming, Shared, inventory_record, lock};
use std::sync::Arc;
use tracing::{error, info, warn};
use xmppsync_journal::{Record, SetAside};
use xmppsync_replica::{Change, Operation, Vector};

/// Why the thread is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing waits.
    Empty,
    /// The host wants its thread; something waits.
    Yield,
    /// The database needs a pause before the next attempt.
    Pause,
}

enum Attempt {
    /// The first `count` are through; those at these indices were refused.
    Committed { count: usize, refused: Vec<(usize, Failure)> },
    /// The change at this index aborted the transaction.
    FailedAt(usize, Failure),
    /// The change at this index cannot be made inside of a transaction.
    AloneAt(usize),
    /// Failed for a reason that may pass; at the change with this index, if at one.
    Temporary(Option<usize>, Failure),
}

/// What is left of the work after a failure that may pass.
struct Held {
    rest: Vec<Incoming>,
    /// The change in `rest` at which it failed, if it was one.
    suspect: Option<usize>,
    failure: Failure,
}

/// Applies what waits until nothing does or the host wants its thread back.
pub(crate) fn run(shared: &Shared, transaction: &mut dyn Transaction) -> Rest {
    loop {
        let work = lock(&shared.to_apply).take();
        if work.is_empty() {
            return Rest::Empty;
        }
        let moved = work.iter().filter_map(Incoming::change).any(|change| makes_place(change));
        if let Err(held) = apply_all(shared, transaction, work) {
            return pause(shared, transaction, held);
        }
        lock(&shared.to_apply).temporary_failures = 0;
        if moved {
            retry_waiting(shared, transaction);
        }
        if transaction.must_yield() {
            return if lock(&shared.to_apply).is_empty() { Rest::Empty } else { Rest::Yield };
        }
    }
}

/// Whether others may have waited for what this change brings.
fn makes_place(change: &Change) -> bool {
    !matches!(change.operation, Operation::Modify(_))
}

/// Whether another change may make this one possible. A late rename could undo one that was made meanwhile.
fn waits(change: &Change, failure: &Failure) -> bool {
    let is_state =
        matches!(change.operation, Operation::Add(_) | Operation::Put(_) | Operation::Delete { .. });
    failure.is_missing_entry() || (is_state && failure.is_in_the_way())
}

fn apply_all(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    mut work: Vec<Incoming>,
) -> Result<(), Held> {
    let mut end = work.len();
    while !work.is_empty() {
        match attempt(shared, transaction, &work[..end]) {
            Attempt::Committed { count, refused } => {
                write_down(shared, &work[..count], refused);
                work.drain(..count);
                end = work.len();
            }
            Attempt::FailedAt(index, _) if matches!(work[index], Incoming::New(_)) => {
                // Known after all, or its parent is not: looked for like any other.
                if let Incoming::New(entry) = &work[index] {
                    work[index] = Incoming::State(Arc::clone(entry));
                }
            }
            Attempt::FailedAt(0, failure) => {
                // Nothing comes before it, so it is this one alone; it counts as seen, or the vector would
                // never move again.
                let incoming = work.remove(0);
                if let Some(change) = incoming.change() {
                    set_aside(shared, change, &failure);
                }
                incoming.advance(&mut lock(&shared.vector));
                end = work.len();
            }
            // Those before it went well and are made again without it.
            Attempt::FailedAt(index, _) => end = index,
            Attempt::AloneAt(0) => {
                if let Err(failure) = apply_alone(shared, transaction, &work[0]) {
                    return Err(Held { rest: work, suspect: Some(0), failure });
                }
                work.remove(0);
                end = work.len();
            }
            Attempt::AloneAt(index) => end = index,
            Attempt::Temporary(suspect, failure) => return Err(Held { rest: work, suspect, failure }),
        }
    }
    Ok(())
}

/// The inventory first, then the vector: who reads the vector and then the inventory finds in it all that the vector covers.
fn write_down(shared: &Shared, committed: &[Incoming], refused: Vec<(usize, Failure)>) {
    fail_point(FailPoint::Applied);
    let mut refused = refused.into_iter().peekable();
    let mut records = Vec::new();
    for (index, change) in committed.iter().map(Incoming::change).enumerate() {
        let Some(change) = change else { continue };
        match refused.next_if(|(at, _)| *at == index) {
            Some((_, failure)) => set_aside(shared, change, &failure),
            None => records.push(inventory_record(change)),
        }
    }
    shared.store.write(records);
    let mut vector = lock(&shared.vector);
    committed.iter().for_each(|incoming| incoming.advance(&mut vector));
}

fn attempt(shared: &Shared, transaction: &mut dyn Transaction, work: &[Incoming]) -> Attempt {
    let atomic = match transaction.begin() {
        Ok(atomic) => atomic,
        Err(failure) => return Attempt::Temporary(None, failure),
    };
    // Without transactions each change stands alone, so that a failed one takes no other with it.
    let work = if atomic { work } else { &work[..1] };
    let mut vector = lock(&shared.vector).clone();
    let mut refused = Vec::new();
    for (index, incoming) in work.iter().enumerate() {
        incoming.advance(&mut vector);
        let Some(change) = incoming.change() else { continue };
        if is_outdated(shared, incoming) {
            continue;
        }
        let outcome = match incoming {
            Incoming::New(entry) => transaction.add_new(entry),
            Incoming::State(state) => transaction.apply_state(state),
            _ => transaction.apply(change),
        };
        match outcome {
            Outcome::Applied => handle_deleted(shared, change),
            Outcome::Refused(failure) => refused.push((index, failure)),
            Outcome::Failed(failure) => {
                transaction.abort();
                return Attempt::FailedAt(index, failure);
            }
            Outcome::Temporary(failure) => {
                transaction.abort();
                return Attempt::Temporary(Some(index), failure);
            }
            Outcome::Alone(_) => {
                transaction.abort();
                return Attempt::AloneAt(index);
            }
        }
    }
    fail_point(FailPoint::Applying);
    match commit(transaction, &vector, atomic) {
        Ok(()) => Attempt::Committed { count: work.len(), refused },
        Err(failure) => Attempt::Temporary(None, failure),
    }
}

/// A state that a delete has overtaken.
fn is_outdated(shared: &Shared, incoming: &Incoming) -> bool {
    let (Incoming::State(state) | Incoming::New(state)) = incoming else { return false };
    matches!(state.operation, Operation::Put(_)) && lock(&shared.captured).deleted.outdates(state)
}

/// What waits for an entry that is deleted must not bring it back, nor may what is on its way.
fn handle_deleted(shared: &Shared, change: &Change) {
    if matches!(change.operation, Operation::Delete { .. }) {
        lock(&shared.captured).deleted.note(change);
        lock(&shared.to_apply).waiting.retain(|waiting| waiting.uuid != change.uuid);
    }
}

/// Makes a change that commits by itself. A crash before the vector is stored makes it come again.
fn apply_alone(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    incoming: &Incoming,
) -> Result<(), Failure> {
    if let Some(change) = incoming.change() {
        match transaction.apply(change) {
            Outcome::Applied => {
                handle_deleted(shared, change);
                shared.store.write(vec![inventory_record(change)]);
            }
            Outcome::Refused(failure) | Outcome::Failed(failure) | Outcome::Alone(failure) => {
                set_aside(shared, change, &failure);
            }
            Outcome::Temporary(failure) => return Err(failure),
        }
    }
    let vector = {
        let mut vector = lock(&shared.vector);
        incoming.advance(&mut vector);
        vector.clone()
    };
    // Where that fails, the next transaction stores it.
    let _ = transaction.write_context_csn(&vector);
    Ok(())
}

/// The vector is written in the transaction that it describes: both are durable or neither is. Without a
/// transaction the changes are durable already, and a vector that cannot be written now is written next time.
fn commit(transaction: &mut dyn Transaction, vector: &Vector, atomic: bool) -> Result<(), Failure> {
    if transaction.write_context_csn(vector) == ContextCsnWrite::Failed && atomic {
        transaction.abort();
        return Err(Failure { result: 80, text: "contextCSN could not be written".to_owned() });
    }
    transaction.commit()
}

fn set_aside(shared: &Shared, change: &Arc<Change>, failure: &Failure) {
    let (uuid, csn) = (change.uuid, change.csn);
    shared.store.write(vec![Record::SetAside(SetAside { csn, uuid, reason: failure.to_string() })]);
    let mut to_apply = lock(&shared.to_apply);
    to_apply.set_aside += 1;
    if waits(change, failure) && to_apply.waiting.len() < limits::WAITING_CHANGES_MAX {
        to_apply.waiting.push_back(Arc::clone(change));
    }
    let total = to_apply.set_aside;
    drop(to_apply);
    error!(
        "{} of \"{}\" (entryUUID {}, CSN {}) cannot be applied: {failure}; set aside, {total} in all",
        change.operation.name(),
        change.operation.dn(),
        change.uuid,
        change.csn,
    );
}

/// What a change waited for may have come or gone by now; and one may have waited for another.
fn retry_waiting(shared: &Shared, transaction: &mut dyn Transaction) {
    while retry_each(shared, transaction) && !transaction.must_yield() {}
}

/// Whether one was applied.
fn retry_each(shared: &Shared, transaction: &mut dyn Transaction) -> bool {
    let (count, mut any) = (lock(&shared.to_apply).waiting.len(), false);
    for _ in 0..count {
        // One at a time: what is taken out is lost if anything goes wrong in between.
        let Some(change) = lock(&shared.to_apply).waiting.pop_front() else { break };
        let applied = apply_one(transaction, &change);
        any |= applied;
        if applied {
            lock(&shared.to_apply).set_aside -= 1;
            shared.store.write(vec![Record::ClearedAside(change.csn), inventory_record(&change)]);
            let (operation, dn) = (change.operation.name(), change.operation.dn());
            info!("{operation} of \"{dn}\" (CSN {}) was applied late", change.csn);
        } else {
            transaction.abort();
            lock(&shared.to_apply).waiting.push_back(change);
        }
        if transaction.must_yield() {
            break;
        }
    }
    any
}

fn apply_one(transaction: &mut dyn Transaction, change: &Change) -> bool {
    if transaction.begin().is_err() {
        return false;
    }
    match transaction.apply(change) {
        Outcome::Applied => transaction.commit().is_ok(),
        Outcome::Alone(_) => {
            transaction.abort();
            transaction.apply(change) == Outcome::Applied
        }
        _ => false,
    }
}

/// The database cannot take changes now: they wait. A change that fails again and again is given up only when the
/// database proves to be well by taking another one.
fn pause(shared: &Shared, transaction: &mut dyn Transaction, held: Held) -> Rest {
    let Held { mut rest, suspect, failure } = held;
    let failures = {
        let mut to_apply = lock(&shared.to_apply);
        to_apply.temporary_failures += 1;
        to_apply.temporary_failures
    };
    if failures == 1 {
        warn!("changes of other servers cannot be applied now: {failure}; they wait, and are tried again");
    }
    if let Some(index) = suspect.filter(|_| failures.is_multiple_of(limits::TEMPORARY_ATTEMPTS)) {
        let suspect = rest.remove(index);
        let others = rest.len();
        rest = apply_all(shared, transaction, rest).err().map(|held| held.rest).unwrap_or_default();
        if rest.len() < others {
            if let Some(change) = suspect.change() {
                set_aside(shared, change, &failure);
            }
        } else {
            rest.insert(index, suspect);
        }
    }
    let mut to_apply = lock(&shared.to_apply);
    to_apply.put_back(rest);
    to_apply.pause = Some((limits::TEMPORARY_PAUSE * failures).min(limits::TEMPORARY_PAUSE_MAX));
    Rest::Pause
}

#[cfg(test)]
mod tests;

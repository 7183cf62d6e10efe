//! Changes of others into the database, many per transaction.

use crate::fail::{FailPoint, fail_point};
use crate::host::{ContextCsnWrite, Failure, Outcome, Transaction};
use crate::limits;
use crate::merging::{self, Merged, Scratch};
use crate::shared::{Shared, inventory_record, lock};
use crate::to_apply::{Incoming, Waiting};
use std::sync::Arc;
use std::time::Instant;
use tracing::{debug, error, warn};
use xmppsync_journal::{Journal, JournalError, Record, SetAside};
use xmppsync_replica::{Change, EntryUuid, Operation, Place, Vector};

/// LDAP result "other".
const OTHER: i32 = 80;

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
    Committed(Box<Committed>),
    /// The change at this index aborted the transaction.
    FailedAt(usize, Failure),
    /// The change at this index cannot be made inside of a transaction.
    AloneAt(usize),
    /// Failed for a reason that may pass; at the change with this index, if at one.
    Temporary(Option<usize>, Failure),
}

/// What a transaction led to.
#[derive(Default)]
struct Committed {
    /// The first `count` are through; those at these indices were refused.
    count: usize,
    refused: Vec<(usize, Failure)>,
    /// For the inventory.
    records: Vec<Record>,
    /// Entries for which others may have waited.
    come: Vec<EntryUuid>,
    scratch: Scratch,
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
        let followed = follow(shared, transaction);
        let work = lock(&shared.to_apply).take();
        if work.is_empty() {
            if followed {
                return Rest::Empty;
            }
            lock(&shared.to_apply).pause = Some(limits::TEMPORARY_PAUSE);
            return Rest::Pause;
        }
        if let Err(held) = apply_all(shared, transaction, work) {
            return pause(shared, transaction, held);
        }
        lock(&shared.to_apply).temporary_failures = 0;
        if transaction.must_yield() {
            return if lock(&shared.to_apply).is_empty() { Rest::Empty } else { Rest::Yield };
        }
    }
}

/// What clients did may have freed names for others. Each step commits by itself. `false`: not now.
fn follow(shared: &Shared, transaction: &mut dyn Transaction) -> bool {
    while let Some((change, from)) = pop_followed(shared) {
        let (mut scratch, vector) = (Scratch::default(), lock(&shared.vector).clone());
        transaction.set_exclusive(true);
        let followed = merging::follow(shared, transaction, &mut scratch, &vector, &change, from.clone());
        transaction.set_exclusive(false);
        let (operation, dn) = (change.operation.name(), change.operation.dn());
        match followed {
            Ok(()) => scratch.commit(shared),
            Err(Outcome::Temporary(failure)) if lock(&shared.to_apply).may_follow_again() => {
                debug!("what the {operation} of \"{dn}\" means waits: {failure}");
                lock(&shared.to_apply).to_follow.push_front((change, from));
                return false;
            }
            Err(outcome) => warn!(
                "the {operation} of \"{dn}\" may have freed a name that another entry is meant to have, which does not get it \
                 ({}); ldapsearch '(xmppSyncConflict=*)' shows such entries: rename it",
                outcome.failure().map(ToString::to_string).unwrap_or_default()
            ),
        }
    }
    true
}

fn pop_followed(shared: &Shared) -> Option<(Arc<Change>, Place)> {
    lock(&shared.to_apply).to_follow.pop_front()
}

fn apply_all(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    mut work: Vec<Incoming>,
) -> Result<(), Held> {
    let mut end = work.len();
    // The first one failed, and the rules for changes that meet are tried on it; it goes by itself.
    let (mut careful, mut alone) = (false, false);
    while !work.is_empty() {
        let attempted = match alone {
            true => apply_alone(shared, transaction, &work[0], careful),
            false => attempt(shared, transaction, &work[..end], careful),
        };
        match attempted {
            Attempt::Committed(committed) => {
                let count = committed.count;
                write_down(shared, &work[..count], *committed);
                work.drain(..count);
                (end, careful, alone) = (work.len(), false, false);
            }
            Attempt::FailedAt(index, _) if matches!(work[index], Incoming::New(_)) => {
                // Known after all, or its parent is not: looked for like any other.
                if let Incoming::New(entry) = &work[index] {
                    work[index] = Incoming::State(Arc::clone(entry));
                }
            }
            Attempt::FailedAt(0, failure) if !careful && may_meet(shared, &work[0], &failure) => {
                (end, careful) = (1, true);
            }
            Attempt::FailedAt(0, failure) => {
                // Nothing comes before it, so it is this one alone; it counts as seen, or the vector would
                // never move again.
                let incoming = work.remove(0);
                if let Some(change) = incoming.change() {
                    set_aside(shared, change, &failure);
                }
                incoming.advance(&mut lock(&shared.vector));
                (end, careful, alone) = (work.len(), false, false);
            }
            // Those before it went well and are made again without it.
            Attempt::FailedAt(index, _) => end = index,
            Attempt::AloneAt(0) if !alone => alone = true,
            Attempt::AloneAt(0) => {
                let failure = Failure::busy("it can be made neither in a transaction nor without one");
                return Err(Held { rest: work, suspect: Some(0), failure });
            }
            Attempt::AloneAt(index) => end = index,
            Attempt::Temporary(suspect, failure) => return Err(Held { rest: work, suspect, failure }),
        }
    }
    Ok(())
}

/// Whether it failed, perhaps, for what another server did at the same time.
fn may_meet(shared: &Shared, incoming: &Incoming, failure: &Failure) -> bool {
    let Some(change) = incoming.change() else { return false };
    !failure.is_of_schema() || merging::is_written_by_others(shared, change)
}

/// The inventory first, then the vector: who reads the vector and then the inventory finds in it all that the vector covers.
fn write_down(shared: &Shared, work: &[Incoming], committed: Committed) {
    fail_point(FailPoint::Applied);
    let Committed { refused, mut records, come, scratch, .. } = committed;
    for (index, failure) in refused {
        if let Some(change) = work.get(index).and_then(Incoming::change) {
            set_aside(shared, change, &failure);
        }
    }
    for change in work.iter().filter_map(Incoming::waited).filter(|change| !scratch.is_waiting(change.csn)) {
        records.push(Record::ClearedAside(change.csn));
        let (operation, dn) = (change.operation.name(), change.operation.dn());
        debug!("{operation} of \"{dn}\" (CSN {}) was applied late", change.csn);
    }
    shared.store.write(records);
    scratch.commit(shared);
    {
        let mut vector = lock(&shared.vector);
        work.iter().for_each(|incoming| incoming.advance(&mut vector));
    }
    lock(&shared.to_apply).release(&come);
}

fn attempt(shared: &Shared, transaction: &mut dyn Transaction, work: &[Incoming], careful: bool) -> Attempt {
    let atomic = match transaction.begin() {
        Ok(atomic) => atomic,
        Err(failure) => return Attempt::Temporary(None, failure),
    };
    // Without transactions each change stands alone, so that a failed one takes no other with it.
    let work = if atomic { work } else { &work[..work.len().min(1)] };
    match attempt_in(shared, transaction, work, careful) {
        Ok((committed, vector)) => {
            committed.scratch.announce(shared);
            fail_point(FailPoint::Applying);
            match commit(transaction, &vector, atomic) {
                Ok(()) => Attempt::Committed(committed),
                Err(failure) => Attempt::Temporary(None, failure),
            }
        }
        Err(failed) => {
            transaction.abort();
            failed
        }
    }
}

fn attempt_in(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    work: &[Incoming],
    careful: bool,
) -> Result<(Box<Committed>, Vector), Attempt> {
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
        let Some(change) = incoming.change() else { continue };
        if is_outdated(shared, incoming) {
            continue;
        }
        let plain = match incoming {
            _ if (careful && index == 0) || done.scratch.needs_rules(shared, incoming) => Outcome::Care,
            Incoming::New(entry) => transaction.add_new(entry),
            Incoming::State(state) => transaction.apply_state(state),
            _ => transaction.apply(change),
        };
        match plain {
            Outcome::Applied => {
                done.records.push(inventory_record(change));
                if matches!(incoming, Incoming::New(_) | Incoming::State(_)) {
                    done.scratch.note_state(shared, transaction, change);
                }
                if let Operation::Delete { .. } = change.operation {
                    done.scratch.handle_deleted(change);
                }
            }
            Outcome::Refused(failure) if !failure.is_missing_entry() => {
                done.refused.push((index, failure));
                continue;
            }
            Outcome::Care | Outcome::Refused(_) => {
                match merging::apply(shared, transaction, &mut done.scratch, &vector, incoming) {
                    Merged::Done => match merging::inventory(transaction, change) {
                        Ok(record) => done.records.extend(record),
                        Err(failure) => return Err(Attempt::Temporary(Some(index), failure)),
                    },
                    Merged::Waits(missing) => {
                        done.scratch.wait(change, missing);
                        continue;
                    }
                    Merged::Failed(outcome) => return Err(failed(index, outcome)),
                }
            }
            other => return Err(failed(index, other)),
        }
        handle_deleted(shared, change);
        if !matches!(change.operation, Operation::Modify(_)) {
            done.come.push(change.uuid);
        }
    }
    Ok((done, vector))
}

/// What an outcome that ends the transaction means for the attempt.
fn failed(index: usize, outcome: Outcome) -> Attempt {
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

/// What waited when the journal was closed.
pub(crate) fn waiting(journal: &Journal) -> Result<Waiting, JournalError> {
    let mut waiting = Waiting::default();
    for SetAside { csn, reason, .. } in journal.set_asides()? {
        let missing = reason.strip_prefix(merging::WAITS_FOR).and_then(|uuid| uuid.parse().ok());
        if let (Some(missing), Some(change)) = (missing, journal.change(csn)?) {
            waiting.push(missing, Arc::new(change));
        }
    }
    Ok(waiting)
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
fn apply_alone(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    incoming: &Incoming,
    careful: bool,
) -> Attempt {
    transaction.set_exclusive(true);
    let attempted = attempt_in(shared, transaction, std::slice::from_ref(incoming), careful);
    transaction.set_exclusive(false);
    let (committed, vector) = match attempted {
        Ok(done) => done,
        Err(failed) => return failed,
    };
    // Where that fails, the next transaction stores it.
    let _ = transaction.write_context_csn(&vector);
    Attempt::Committed(committed)
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

fn set_aside(shared: &Shared, change: &Arc<Change>, failure: &Failure) {
    let (uuid, csn) = (change.uuid, change.csn);
    shared.store.write(vec![Record::SetAside(SetAside { csn, uuid, reason: failure.to_string() })]);
    let mut to_apply = lock(&shared.to_apply);
    to_apply.set_aside += 1;
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

//! Changes of others into the database, many per transaction.

mod attempt;

use crate::fail::{FailPoint, fail_point};
use crate::host::{Failure, Outcome, Transaction};
use crate::limits;
use crate::merging::{self, Scratch, Taking};
use crate::shared::{Shared, lock};
use crate::to_apply::{Ahead, Incoming, Waiting};
use attempt::{Attempt, Committed, apply_alone, attempt};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::{debug, error, warn};
use xmppsync_journal::{Journal, JournalError, Record, SetAside};
use xmppsync_replica::{Change, Csn, EntryUuid, Place};

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
    let mut marking = true;
    while !work.is_empty() {
        let attempted = match alone {
            true => apply_alone(shared, transaction, &work[0], careful),
            false => attempt(shared, transaction, &work[..end], careful, marking),
        };
        match attempted {
            Attempt::Committed(committed, committing) => {
                let count = committed.count;
                write_down(shared, &work[..count], *committed);
                drop(committing);
                work.drain(..count);
                (end, careful, alone) = (work.len(), false, false);
                marking = true;
            }
            Attempt::Unmarked(failure) => {
                tell_unmarked(&failure);
                marking = false;
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

fn tell_unmarked(failure: &Failure) {
    warn!("conflict: what was lost cannot be marked at its entries ({failure}); the next lines tell of it");
}

/// Whether it failed, perhaps, for what another server did at the same time.
fn may_meet(shared: &Shared, incoming: &Incoming, failure: &Failure) -> bool {
    let Some(change) = incoming.change() else { return false };
    !failure.is_of_schema() || merging::is_written_by_others(shared, change)
}

/// The inventory first, then the vector: who reads the vector and then the inventory finds in it all that the vector covers.
fn write_down(shared: &Shared, work: &[Incoming], committed: Committed) {
    fail_point(FailPoint::Applied);
    let Committed { refused, mut records, come, scratch, ahead, not_ahead, taken, .. } = committed;
    records.extend(absorb(shared, &taken));
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
    records.extend(note_ahead(shared, &ahead, not_ahead));
    shared.store.write(records);
    scratch.commit(shared);
    {
        let mut vector = lock(&shared.vector);
        work.iter().for_each(|incoming| incoming.advance(&mut vector));
    }
    lock(&shared.to_apply).release(&come);
}

/// These changes are in entries that are here as they are with a peer, which has them in its own.
pub(crate) fn note_contained(shared: &Shared, contained: Vec<(Csn, EntryUuid)>) {
    if !contained.is_empty() {
        let mut ahead = Ahead::default();
        contained.into_iter().for_each(|(csn, uuid)| ahead.insert(csn, uuid));
        let records = note_ahead(shared, &ahead, BTreeSet::new());
        shared.store.write(records);
    }
}

/// What is in the database before its turn from now on, and what is not any more.
fn note_ahead(shared: &Shared, ahead: &Ahead, not_ahead: BTreeSet<Csn>) -> Vec<Record> {
    let mut records: Vec<Record> = not_ahead.into_iter().map(Record::InTurn).collect();
    records.extend(ahead.records());
    let known = &mut lock(&shared.to_apply).ahead;
    records.iter().for_each(|record| known.note(record));
    records.extend(known.forget().into_iter().map(Record::InTurn));
    records
}

/// What waited and is in a state that was taken is not made once more.
fn absorb(shared: &Shared, taken: &[Arc<Taking>]) -> Vec<Record> {
    let mut to_apply = lock(&shared.to_apply);
    let waiting = &mut to_apply.waiting;
    let mut records = Vec::new();
    if waiting.is_empty() {
        return records;
    }
    for taking in taken {
        let contained = taking.contained(waiting.of(taking.state.uuid));
        waiting.remove(&contained);
        records.extend(contained.into_iter().map(Record::ClearedAside));
    }
    records
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

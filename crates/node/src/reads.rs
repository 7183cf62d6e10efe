//! Reading the database on threads of the host, for whoever asks from the hub's thread.

use crate::heal::knowledge;
use crate::host::{DumpEnd, Reader};
use crate::limits;
use crate::shared::{Shared, lock};
use crate::snapshot::Draft;
use crate::store::Scan;
use crate::to_apply::ToApply;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, TryLockError};
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::warn;
use xmppsync_replica::{Change, Csn, EntryUuid, Fingerprint, Seen};

/// Something to be read.
pub(crate) enum Read {
    /// These entries as they are.
    Entries(Vec<EntryUuid>, oneshot::Sender<Moment>),
    /// The whole database, into a file.
    Dump(Box<Draft>),
    /// All entries, for a new journal.
    Inventory(Scan),
    /// All entries, for a comparison.
    Prints(Vec<Print>, oneshot::Sender<Vec<Print>>),
}

/// Entries as they were at one moment, and how far this replica had come just before: what others changed and the vector covers is in
/// them, and nothing else of others but what is ahead. What clients changed since may be in them.
pub(crate) struct Moment {
    pub(crate) seen: Seen,
    /// In the order asked, at least the first; `None` for one that there is not.
    pub(crate) states: Vec<Option<Change>>,
    /// In the same order.
    pub(crate) asides: Vec<OutOfTurn>,
}

/// Changes of an entry that the vector tells nothing of.
pub(crate) struct OutOfTurn {
    /// They wait and are not in it.
    pub(crate) waiting: BTreeSet<Csn>,
    /// Others wait for the entry.
    pub(crate) is_awaited: bool,
    /// They are in it.
    pub(crate) ahead: Vec<Csn>,
}

/// What tells whether two replicas have an entry alike.
pub(crate) type Print = (EntryUuid, Csn, Fingerprint);

/// What waits to be read.
#[derive(Default)]
pub(crate) struct Reads(Mutex<VecDeque<Read>>);

impl Reads {
    /// Does what waits. Called on a thread of the host.
    pub(crate) fn run(&self, shared: &Shared, reader: &mut dyn Reader) {
        while let Some(read) = self.next() {
            if let Some(rest) = step(read, shared, reader) {
                lock(&self.0).push_front(rest);
                shared.database.submit_read();
                return;
            }
        }
    }

    fn next(&self) -> Option<Read> {
        lock(&self.0).pop_front()
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// Returns what is left when the host wants its thread back.
fn step(read: Read, shared: &Shared, reader: &mut dyn Reader) -> Option<Read> {
    let (uuids, answer) = match read {
        Read::Entries(uuids, answer) => (uuids, answer),
        Read::Dump(mut draft) => {
            let made = draft.make(reader).transpose();
            return match made {
                Some(made) => {
                    shared.snapshots.finished(made);
                    None
                }
                None => Some(Read::Dump(draft)),
            };
        }
        Read::Inventory(scan) => return scan.run(reader).map(Read::Inventory),
        Read::Prints(found, answer) => return print(found, answer, reader),
    };
    match moment(&uuids, shared, reader) {
        // The asker may have gone away.
        Some(moment) => drop(answer.send(moment)),
        None => return Some(Read::Entries(uuids, answer)),
    }
    None
}

/// `None`: the host wants its thread back.
fn moment(uuids: &[EntryUuid], shared: &Shared, reader: &mut dyn Reader) -> Option<Moment> {
    // Nothing of others comes into the database meanwhile. A thread of the host may wait for a pause while it commits.
    let _committing = loop {
        match shared.committing.try_lock() {
            Ok(committing) => break committing,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if reader.must_yield() => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(limits::COMMIT_WAIT),
        }
    };
    let (begun, seen) = (Instant::now(), shared.seen());
    let mut states = Vec::with_capacity(uuids.len());
    for uuid in uuids {
        if reader.must_yield() {
            return None;
        }
        if !states.is_empty() && begun.elapsed() > limits::MOMENT_MAX {
            break;
        }
        states.push(reader.read_entry(uuid).unwrap_or_else(|problem| {
            warn!("entry {uuid} cannot be read: {problem}");
            None
        }));
    }
    let ToApply { waiting, ahead, .. } = &*lock(&shared.to_apply);
    let aside = |uuid: &EntryUuid| OutOfTurn {
        waiting: waiting.of(*uuid),
        is_awaited: waiting.is_awaited(*uuid),
        ahead: ahead.of(*uuid).collect(),
    };
    let asides = uuids.iter().take(states.len()).map(aside).collect();
    Some(Moment { seen, states, asides })
}

/// Begins again when the host wants its thread back.
fn print(
    mut found: Vec<Print>,
    answer: oneshot::Sender<Vec<Print>>,
    reader: &mut dyn Reader,
) -> Option<Read> {
    found.clear();
    let end = reader.read_all(&mut |state| {
        found.push((state.uuid, state.csn, knowledge::print(&state)));
        !answer.is_closed()
    });
    match end {
        Ok(DumpEnd::Yielded) => return Some(Read::Prints(found, answer)),
        Ok(DumpEnd::Stopped) => {}
        Ok(DumpEnd::Whole) => drop(answer.send(found)),
        Err(problem) => warn!("the database cannot be read for a comparison: {problem}"),
    }
    None
}

/// Asks for a thread to read on.
pub(crate) fn submit(shared: &Shared, read: Read) {
    lock(&shared.reads.0).push_back(read);
    shared.database.submit_read();
}

/// Asks for a thread again while something waits: the host may have had none, or have taken it back.
pub(crate) fn ask_again(shared: &Shared) {
    if !shared.reads.is_empty() {
        shared.database.submit_read();
    }
}

/// The entries as they are, in the order asked; `None` for one that there is not.
pub(crate) async fn entries(shared: &Shared, uuids: Vec<EntryUuid>) -> Option<Vec<Option<Change>>> {
    let mut states = Vec::with_capacity(uuids.len());
    while states.len() < uuids.len() {
        let rest = &uuids[states.len()..];
        let some = rest.iter().take(limits::LOOKED_UP_AT_ONCE).copied().collect();
        states.extend(entries_now(shared, some).await?.states);
    }
    Some(states)
}

/// As many entries as may be read while nothing of others comes into the database.
pub(crate) async fn entries_now(shared: &Shared, uuids: Vec<EntryUuid>) -> Option<Moment> {
    let (answer, answered) = oneshot::channel();
    lock(&shared.reads.0).push_back(Read::Entries(uuids, answer));
    wait(shared, answered).await
}

/// All entries, each once.
pub(crate) async fn prints(shared: &Shared) -> Option<Vec<Print>> {
    let (answer, answered) = oneshot::channel();
    lock(&shared.reads.0).push_back(Read::Prints(Vec::new(), answer));
    wait(shared, answered).await
}

async fn wait<T>(shared: &Shared, mut answered: oneshot::Receiver<T>) -> Option<T> {
    loop {
        ask_again(shared);
        match tokio::time::timeout(limits::READ_PATIENCE, &mut answered).await {
            Ok(answer) => return answer.ok(),
            Err(_) if lock(&shared.captured).is_closed() => return None,
            Err(_) => {}
        }
    }
}

//! Reading the database on threads of the host, for whoever asks from the hub's thread.

use crate::heal::knowledge;
use crate::host::{DumpEnd, Reader};
use crate::limits;
use crate::shared::{Shared, lock};
use crate::snapshot::Draft;
use crate::store::Scan;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::oneshot;
use tracing::warn;
use xmppsync_replica::{Change, Csn, EntryUuid, Fingerprint};

/// Something to be read.
pub(crate) enum Read {
    /// These entries as they are.
    Entries(VecDeque<EntryUuid>, Vec<Option<Change>>, oneshot::Sender<Vec<Option<Change>>>),
    /// The whole database, into a file.
    Dump(Box<Draft>),
    /// All entries, for a new journal.
    Inventory(Scan),
    /// All entries, for a comparison.
    Prints(Vec<Print>, oneshot::Sender<Vec<Print>>),
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
    let (mut uuids, mut found, answer) = match read {
        Read::Entries(uuids, found, answer) => (uuids, found, answer),
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
    while let Some(uuid) = uuids.pop_front() {
        found.push(reader.read_entry(&uuid).unwrap_or_else(|problem| {
            warn!("entry {uuid} cannot be read: {problem}");
            None
        }));
        if reader.must_yield() {
            return Some(Read::Entries(uuids, found, answer));
        }
    }
    // The asker may have gone away.
    let _ = answer.send(found);
    None
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
    let (answer, answered) = oneshot::channel();
    lock(&shared.reads.0).push_back(Read::Entries(uuids.into(), Vec::new(), answer));
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

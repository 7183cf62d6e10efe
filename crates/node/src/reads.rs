//! Reading the database on threads of the host, for whoever asks from the hub's thread.

use crate::host::{Database, Reader};
use crate::limits;
use crate::shared::{Shared, lock};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::oneshot;
use tracing::warn;
use xmppsync_replica::{Change, EntryUuid};

/// Something to be read.
pub(crate) enum Read {
    /// These entries as they are.
    Entries(VecDeque<EntryUuid>, Vec<Option<Change>>, oneshot::Sender<Vec<Option<Change>>>),
}

/// What waits to be read.
#[derive(Default)]
pub(crate) struct Reads(Mutex<VecDeque<Read>>);

impl Reads {
    /// Does what waits. Called on a thread of the host.
    pub(crate) fn run(&self, reader: &mut dyn Reader) {
        while let Some(read) = lock(&self.0).pop_front() {
            if let Some(rest) = step(read, reader) {
                lock(&self.0).push_front(rest);
                return;
            }
        }
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// Returns what is left when the host wants its thread back.
fn step(read: Read, reader: &mut dyn Reader) -> Option<Read> {
    let Read::Entries(mut uuids, mut found, answer) = read;
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

/// The entries as they are, in the order asked; `None` for one that there is not.
pub(crate) async fn entries(
    shared: &Shared,
    database: &dyn Database,
    uuids: Vec<EntryUuid>,
) -> Option<Vec<Option<Change>>> {
    let (answer, mut answered) = oneshot::channel();
    lock(&shared.reads.0).push_back(Read::Entries(uuids.into(), Vec::new(), answer));
    // Asked again while it is not done: a thread may have been given back half-way, or none was to be had.
    loop {
        if !shared.reads.is_empty() {
            database.submit_read();
        }
        match tokio::time::timeout(limits::READ_PATIENCE, &mut answered).await {
            Ok(answer) => return answer.ok(),
            Err(_) if lock(&shared.captured).is_closed() => return None,
            Err(_) => {}
        }
    }
}

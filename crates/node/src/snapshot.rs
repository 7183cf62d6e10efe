//! The whole database as one file, for a peer whose copy is empty: LDIF, compressed.
//!
//! The vector is taken before the first entry is read, so that whatever is changed meanwhile follows in the journal. One
//! file serves all who ask within a while; who was cut off goes on in the same one.

use crate::heal::as_put;
use crate::host::{DumpEnd, Reader};
use crate::limits;
use crate::reads::{self, Read};
use crate::shared::{Shared, lock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tracing::{info, warn};
use xmppsync_link::FileHash;
use xmppsync_replica::{EntryUuid, Unseen, Vector};
use xmppsync_wire::Snapshot;
use xmppsync_wire::ldif::{LdifError, LdifWriter};

/// The snapshot that there is, or is being made.
#[derive(Default)]
pub(crate) struct Snapshots {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// The one with this id.
    Making(String),
    /// It could not be made, since then.
    Failed(Instant),
    Ready(Ready),
}

/// A snapshot that can be sent.
struct Ready {
    what: Snapshot,
    path: PathBuf,
    touched: Instant,
}

/// What the answer to a peer is.
pub(crate) enum Answer {
    /// This will be sent; the file is open.
    Ready(Snapshot, File),
    /// It is being made.
    Wait,
    /// There is nothing to be sent.
    Empty,
}

/// Why it could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the database cannot be read: {0}")]
    Database(#[from] crate::host::Failure),
    #[error("an entry cannot be written: {0}")]
    Ldif(#[from] LdifError),
    #[error("the file cannot be written: {0}")]
    File(#[from] io::Error),
}

impl Snapshots {
    /// The snapshot for a peer. Begins to make one when there is none, or none that is young enough.
    /// `unseen` goes with the vector.
    pub(crate) fn answer(
        &self,
        shared: &Arc<Shared>,
        dir: &Path,
        unseen: Unseen,
        resume: Option<&str>,
    ) -> Answer {
        let mut state = lock(&self.state);
        if let State::Ready(ready) = &mut *state {
            let wanted = resume == Some(ready.what.id.as_str());
            if (wanted || ready.touched.elapsed() < limits::SNAPSHOT_AGE)
                && let Ok(file) = File::open(&ready.path)
            {
                if wanted {
                    ready.touched = Instant::now();
                }
                return Answer::Ready(ready.what.clone(), file);
            }
        }
        match &*state {
            State::Making(_) => {
                reads::ask_again(shared);
                return Answer::Wait;
            }
            State::Failed(at) if at.elapsed() < limits::SNAPSHOT_RETRY => return Answer::Empty,
            _ => {}
        }
        let Some(dataset) = *lock(&shared.dataset) else { return Answer::Empty };
        let vector = lock(&shared.vector).clone();
        let draft = Draft::new(dataset, vector, unseen, dir, &self.state);
        if let State::Ready(old) = std::mem::replace(&mut *state, State::Making(draft.id.clone())) {
            remove(&old.path);
        }
        drop(state);
        reads::submit(shared, Read::Dump(Box::new(draft)));
        Answer::Wait
    }

    /// The reading thread is done.
    pub(crate) fn finished(&self, made: Result<(Snapshot, PathBuf), SnapshotError>) {
        *lock(&self.state) = match made {
            Ok((what, path)) => {
                info!("a snapshot of {} entries is ready, {} bytes", what.entries, what.bytes);
                State::Ready(Ready { what, path, touched: Instant::now() })
            }
            Err(problem) => {
                warn!("no snapshot can be made for a peer: {problem}");
                State::Failed(Instant::now())
            }
        };
    }

    /// Removes a file that nobody has asked for in a while.
    pub(crate) fn expire(&self) {
        let mut state = lock(&self.state);
        if let State::Ready(ready) = &*state
            && ready.touched.elapsed() >= limits::SNAPSHOT_KEPT
        {
            remove(&ready.path);
            *state = State::None;
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let State::Ready(ready) = &*lock(&self.state) {
            remove(&ready.path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(problem) = fs::remove_file(path) {
        warn!("the old snapshot {} cannot be removed: {problem}", path.display());
    }
}

/// What an earlier run left behind.
pub(crate) fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
}

const PREFIX: &str = "snapshot-";

/// A snapshot that is being made.
pub(crate) struct Draft {
    id: String,
    dataset: EntryUuid,
    vector: Vector,
    unseen: Unseen,
    path: PathBuf,
    writer: Option<Writer>,
    /// Where it is waited for.
    state: Arc<Mutex<State>>,
}

type Writer = LdifWriter<zstd::stream::write::Encoder<'static, Hashing>>;

impl Draft {
    fn new(
        dataset: EntryUuid,
        vector: Vector,
        unseen: Unseen,
        dir: &Path,
        state: &Arc<Mutex<State>>,
    ) -> Draft {
        let id = format!("{:016x}", rand::random::<u64>());
        let path = dir.join(format!("{PREFIX}{id}.ldif.zst"));
        Draft { id, dataset, vector, unseen, path, writer: None, state: Arc::clone(state) }
    }

    /// Reads the database on a thread of the host. `None`: the host wanted the thread back; from the beginning again.
    pub(crate) fn make(
        &mut self,
        reader: &mut dyn Reader,
    ) -> Result<Option<(Snapshot, PathBuf)>, SnapshotError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            empty => empty.insert(begin(&self.path)?),
        };
        let (mut problem, mut left_out) = (None, false);
        let end = reader.dump(&mut |change| match writer.write(&as_put(change)) {
            Ok(()) => true,
            // Such an entry cannot be sent at all, and must not look deleted for that.
            Err(LdifError::NotAnEntry { .. } | LdifError::Unusable { .. }) => {
                left_out = true;
                true
            }
            Err(failed) => {
                problem = Some(failed);
                false
            }
        })?;
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        if end == DumpEnd::Yielded {
            // A search cannot be gone on with: from the beginning again.
            self.writer = None;
            remove(&self.path);
            return Ok(None);
        }
        let entries = writer.entries();
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let out = end_file(writer).inspect_err(|_| remove(&self.path))?;
        let what = Snapshot {
            id: self.id.clone(),
            bytes: out.hash.bytes(),
            sha256: out.hash.sha256(),
            entries,
            dataset: self.dataset,
            vector: self.vector.clone(),
            unseen: if left_out { Unseen::all(&self.vector) } else { self.unseen.clone() },
        };
        Ok(Some((what, self.path.clone())))
    }
}

impl Drop for Draft {
    /// Also of one that the host's end, or a bug, cut off: another one can be made then.
    fn drop(&mut self) {
        if self.writer.is_some() {
            remove(&self.path);
        }
        let mut state = lock(&self.state);
        if matches!(&*state, State::Making(id) if *id == self.id) {
            *state = State::Failed(Instant::now());
        }
    }
}

fn begin(path: &Path) -> Result<Writer, SnapshotError> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let out = Hashing { file, hash: FileHash::new() };
    let compressor =
        zstd::stream::write::Encoder::new(out, limits::SNAPSHOT_COMPRESSION).inspect_err(|_| remove(path))?;
    Ok(LdifWriter::new(compressor, &["a snapshot for a replica"]).inspect_err(|_| remove(path))?)
}

fn end_file(writer: Writer) -> io::Result<Hashing> {
    let mut out = writer.into_inner().finish()?;
    out.flush()?;
    Ok(out)
}

/// A file and the hash of what is in it.
struct Hashing {
    file: File,
    hash: FileHash,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_was_lost_while_it_was_made_is_waited_for_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::default();
        let draft = || {
            Draft::new(
                EntryUuid::from_bytes([1; 16]),
                Vector::default(),
                Unseen::default(),
                dir.path(),
                &snapshots.state,
            )
        };
        let (lost, next) = (draft(), draft());
        *lock(&snapshots.state) = State::Making(lost.id.clone());
        let path = lost.path.clone();
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let mut lost = lost;
            lost.writer = begin(&lost.path).ok();
            panic!("while it is made");
        }));
        assert!(panics.is_err() && !path.exists());
        assert!(matches!(*lock(&snapshots.state), State::Failed(_)));
        // What became of another one is not its business.
        *lock(&snapshots.state) = State::Making("other".to_owned());
        drop(next);
        assert!(matches!(*lock(&snapshots.state), State::Making(_)));
    }
}

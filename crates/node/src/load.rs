//! The initial load: an empty database is filled from a peer's snapshot, while it comes.

use crate::fail::{FailPoint, fail_point};
use crate::limits;
use crate::shared::{Shared, lock};
use crate::to_apply::Incoming;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;
use tracing::{Span, info, warn};
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_journal::Record;
use xmppsync_link::{FileHash, FileOffer, FileReader, Group, IncomingFile, RequestError, TransferError};
use xmppsync_replica::{Unseen, Vector};
use xmppsync_wire::ldif::{LdifError, LdifReader};
use xmppsync_wire::{LoadRequest, Payload, Progress, Snapshot, WireError};

/// Why a load came to nothing. It begins anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("the source does not answer: {0}")]
    Request(#[from] RequestError),
    #[error("the source's answer cannot be used: {0}")]
    Wire(#[from] WireError),
    #[error("the source answered something else than was asked")]
    Unexpected,
    #[error("the file does not come")]
    NoFile,
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("the file cannot be read: {0}")]
    Ldif(#[from] LdifError),
    #[error("the file cannot be unpacked: {0}")]
    Unpack(#[from] io::Error),
    #[error("this server has no journal, which has to know that the database is not whole")]
    NoJournal,
    #[error("what it brought was lost on the way into the database")]
    Lost,
    #[error("it has changes that are further ahead of this server's clock than xmppsync-max-drift allows")]
    Drift,
    #[error("this server is being stopped")]
    Stopped,
}

/// How far the load is: for the card and the log, by whoever looks.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    active: AtomicBool,
    /// The database had nothing when it began.
    into_nothing: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

impl Loading {
    pub(crate) fn begin(&self, into_nothing: bool) {
        self.into_nothing.store(into_nothing, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Release);
    }

    fn is_into_nothing(&self) -> bool {
        self.into_nothing.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.active.store(false, Ordering::Release);
    }

    /// `None`: no load runs.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.active.load(Ordering::Acquire).then(|| Progress {
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        })
    }
}

/// A load on its way.
pub(crate) struct Loader {
    pub(crate) group: Arc<Group>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: FullJid,
    /// Files that the source offers.
    pub(crate) files: Receiver<(FileOffer, IncomingFile)>,
}

/// What was loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) vector: Vector,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// More than one snapshot took part, so that what an earlier one brought may be gone in the last; or entries are missing.
    pub(crate) mixed: bool,
}

/// What of a file is here already; it is gone on with by another transfer.
struct Partial {
    snapshot: Snapshot,
    hash: FileHash,
    unpacker: Unpacker,
}

impl Loader {
    pub(crate) async fn run(mut self) -> Result<Loaded, LoadError> {
        let begun = Instant::now();
        let mut partial: Option<Partial> = None;
        let (mut cuts, mut snapshots) = (0, 0);
        let losses = lock(&self.shared.to_apply).losses();
        self.note_beginning().await?;
        loop {
            let (snapshot, file) = self.ask(partial.as_ref()).await?;
            if self.shared.clock.refuses_any(&snapshot.vector, &self.source) {
                file.refuse("it is too far ahead of this server's clock");
                return Err(LoadError::Drift);
            }
            let partial_now = match partial.take() {
                Some(partial) if partial.snapshot.id == snapshot.id => partial,
                _ => {
                    info!(
                        "loading {} entries from {} ({} bytes)",
                        snapshot.entries, self.source, snapshot.bytes
                    );
                    snapshots += 1;
                    self.shared.loading.total.store(snapshot.entries, Ordering::Relaxed);
                    if snapshots > 1 {
                        self.shared.loading.into_nothing.store(false, Ordering::Relaxed);
                    }
                    let unpacker =
                        Unpacker::new(Entries::new(Arc::clone(&self.shared), self.source.clone()))?;
                    Partial { snapshot, hash: FileHash::new(), unpacker }
                }
            };
            let Partial { snapshot, hash, unpacker } = partial_now;
            let reader = file.accept(hash);
            // Unpacking and reading LDIF would hold up everything else on the hub's thread.
            let span = Span::current();
            let taken = tokio::task::spawn_blocking(move || span.in_scope(|| take(reader, unpacker))).await;
            match taken.map_err(|_| LoadError::Stopped)? {
                Ok(Taken { entries, left_out }) => {
                    let Snapshot { vector, bytes, mut unseen, .. } = snapshot;
                    if left_out > 0 {
                        // The vector does not tell of them.
                        unseen = Unseen::all(&vector);
                    }
                    self.shared.take_over_unseen(&unseen).await.ok_or(LoadError::NoJournal)?;
                    finish(&self.shared, &vector, losses).await?;
                    let mixed = snapshots > 1 || left_out > 0;
                    return Ok(Loaded { vector, entries, bytes, took: begun.elapsed(), mixed });
                }
                Err(cut) => match *cut {
                    (LoadError::Transfer(problem), Some((hash, unpacker)))
                        if cuts < limits::LOAD_CUTS_MAX =>
                    {
                        cuts += 1;
                        warn!(
                            "the load was cut off after {} bytes ({problem}); it goes on from there",
                            hash.bytes()
                        );
                        partial = Some(Partial { snapshot, hash, unpacker });
                        tokio::time::sleep(limits::LOAD_PAUSE).await;
                    }
                    (problem, _) => return Err(problem),
                },
            }
        }
    }

    /// Durable before the first entry: what a stop in the middle leaves must not be taken for a whole database.
    async fn note_beginning(&self) -> Result<(), LoadError> {
        let noted = self.shared.store.note_loading().await;
        if noted == Ok(true) { Ok(()) } else { Err(LoadError::NoJournal) }
    }

    /// Asks for the snapshot until it is made, then waits for its file.
    async fn ask(&mut self, partial: Option<&Partial>) -> Result<(Snapshot, IncomingFile), LoadError> {
        let resume = partial.map(|partial| (partial.snapshot.id.clone(), partial.hash.bytes()));
        let begun = Instant::now();
        let deadline = begun + limits::SNAPSHOT_PATIENCE;
        // A source that went away for a moment still has what is not here.
        let may_return = || partial.is_some() && begun.elapsed() < limits::LOAD_RESUME_PATIENCE;
        loop {
            while self.files.try_recv().is_ok() {} // of an earlier question
            let question = Payload::LoadRequest(LoadRequest { resume: resume.clone() }).to_element()?;
            let answer = self.group.request(self.source.clone(), question, limits::PULL_TIMEOUT).await;
            match answer {
                Ok(answer) => {
                    let Payload::Snapshot(snapshot) = Payload::decode(&answer)? else {
                        return Err(LoadError::Unexpected);
                    };
                    match self.wait_for(&snapshot.id).await {
                        Some(file) => return Ok((snapshot, file)),
                        None if may_return() => {}
                        None => return Err(LoadError::NoFile),
                    }
                }
                Err(RequestError::Refused { condition: DefinedCondition::ResourceConstraint, .. })
                | Err(RequestError::Offline | RequestError::Timeout)
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(limits::SNAPSHOT_POLL).await;
                }
                Err(_) if may_return() => tokio::time::sleep(limits::LOAD_PAUSE).await,
                Err(problem) => return Err(problem.into()),
            }
        }
    }

    async fn wait_for(&mut self, id: &str) -> Option<IncomingFile> {
        loop {
            let (offer, file) =
                tokio::time::timeout(limits::PULL_TIMEOUT, self.files.recv()).await.ok()??;
            if offer.id == id {
                return Some(file);
            }
            file.refuse("another file is waited for");
        }
    }
}

/// Why a transfer ended early, and what it can go on with.
type Cut = Box<(LoadError, Option<(FileHash, Unpacker)>)>;

/// What was in a file.
struct Taken {
    entries: u64,
    left_out: u64,
}

/// Takes a file to its end, on a thread of its own.
fn take(mut file: FileReader, mut unpacker: Unpacker) -> Result<Taken, Cut> {
    while let Some(chunk) = file.blocking_chunk() {
        match chunk {
            Ok(bytes) => unpacker.write_all(&bytes).map_err(|problem| Box::new((problem.into(), None)))?,
            Err(problem) => {
                let hash = file.hash().clone();
                return Err(Box::new((problem.into(), Some((hash, unpacker)))));
            }
        }
    }
    unpacker.flush().map_err(|problem| Box::new((problem.into(), None)))?;
    unpacker.into_inner().finish().map_err(|problem| Box::new((problem, None)))
}

/// Compressed bytes go in. What comes out is taken as it comes: a few bytes may be packed from very many.
type Unpacker = zstd::stream::write::Decoder<'static, Entries>;

/// From LDIF to entries in the queue.
struct Entries {
    reader: LdifReader,
    shared: Arc<Shared>,
    source: FullJid,
    work: Vec<Incoming>,
    work_bytes: usize,
    entries: u64,
    /// Entries that could not be read.
    left_out: u64,
    log: Log,
}

impl Entries {
    fn new(shared: Arc<Shared>, source: FullJid) -> Entries {
        let (log, reader) = (Log::new(), LdifReader::new());
        Entries { reader, shared, source, work: Vec::new(), work_bytes: 0, entries: 0, left_out: 0, log }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.reader.push(bytes)?;
        while let Some(entry) = self.reader.next() {
            match entry {
                Ok(entry) => self.push(entry)?,
                Err(problem) => {
                    self.left_out += 1;
                    warn!("an entry of the snapshot is left out: {problem}");
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: xmppsync_replica::Change) -> Result<(), LoadError> {
        // Made while the snapshot was, so its vector did not tell.
        if self.shared.clock.refuses(entry.csn, &self.source) {
            return Err(LoadError::Drift);
        }
        let entry = Arc::new(entry);
        let entry =
            if self.shared.loading.is_into_nothing() { Incoming::New(entry) } else { Incoming::State(entry) };
        self.work_bytes += entry.size();
        self.work.push(entry);
        self.entries += 1;
        if self.work.len() >= limits::TRANSACTION_CHANGES_MAX
            || self.work_bytes >= limits::TRANSACTION_BYTES_MAX
        {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Waits for room in the queue: what comes faster than it can be written is held back, down to the sender.
    fn hand_over(&mut self) -> Result<(), LoadError> {
        let work = std::mem::take(&mut self.work);
        self.work_bytes = 0;
        self.shared.clock.observe(work.iter().filter_map(Incoming::latest));
        while !lock(&self.shared.to_apply).push_if_room(&work) {
            if lock(&self.shared.captured).is_closed() {
                return Err(LoadError::Stopped);
            }
            std::thread::sleep(limits::LOAD_HELD_PAUSE);
        }
        self.shared.wake.notify_one();
        self.shared.loading.done.store(self.entries, Ordering::Relaxed);
        self.log.tell(self.entries, self.shared.loading.total.load(Ordering::Relaxed));
        fail_point(FailPoint::Loading);
        Ok(())
    }

    fn finish(mut self) -> Result<Taken, LoadError> {
        self.reader.finish();
        while let Some(entry) = self.reader.next() {
            self.push(entry?)?;
        }
        self.hand_over()?;
        Ok(Taken { entries: self.entries, left_out: self.left_out })
    }
}

impl Write for Entries {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(limits::UNPACK_PIECE)];
        self.take(piece).map_err(io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Progress for the log, now and then.
struct Log {
    begun: Instant,
    told: Instant,
}

impl Log {
    fn new() -> Log {
        Log { begun: Instant::now(), told: Instant::now() }
    }

    fn tell(&mut self, done: u64, total: u64) {
        if self.told.elapsed() < limits::LOAD_LOG_INTERVAL {
            return;
        }
        self.told = Instant::now();
        let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let left = (total.saturating_sub(done) as f64 / rate.max(1.0)).ceil();
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or_default();
        info!("{done} of {total} entries loaded ({percent} %), {rate:.0} entries/s, about {left:.0} s to go");
    }
}

/// Waits until everything is in the database, and the vector with it: only then is that whole, whatever ends slapd. What is
/// before it is in no journal here.
async fn finish(shared: &Shared, vector: &Vector, losses: u64) -> Result<(), LoadError> {
    crate::states::push(shared, vec![Incoming::Reached(vector.clone())]).await;
    while !lock(&shared.vector).dominates(vector) {
        if lock(&shared.captured).is_closed() {
            return Err(LoadError::Stopped);
        }
        if lock(&shared.to_apply).losses() != losses {
            return Err(LoadError::Lost);
        }
        tokio::time::sleep(limits::LOAD_HELD_PAUSE).await;
    }
    if lock(&shared.to_apply).losses() != losses {
        return Err(LoadError::Lost);
    }
    shared.store.write(vector.iter().map(Record::Floor).collect());
    Ok(())
}

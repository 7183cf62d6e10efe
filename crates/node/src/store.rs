//! The journal on a thread of its own: whoever writes hands over records and goes on.
//!
//! Everything that waits is written in one transaction (group commit). When the journal fails it is set aside, the
//! database goes on serving and replicating, and a new journal is made from the database as soon as that goes.

mod keeper;
mod remembered;
mod scan;

pub(crate) use scan::Scan;

use crate::host::Database;
use crate::limits;
use crate::merging::Names;
use crate::shared::lock;
use keeper::Keeper;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, oneshot};
use tracing::{Span, warn};
use xmpp_parsers::jid::BareJid;
use xmppsync_journal::pending::Pending;
use xmppsync_journal::{Journal, JournalError, Record, Retention, loading};
use xmppsync_replica::{Change, Csn, EntryUuid, Unseen, Vector};

/// Names a write; later ones are larger.
pub(crate) type Ticket = u64;

/// What to do with the journal when there is one.
type Question = Box<dyn FnOnce(&mut Journal) -> Result<(), JournalError> + Send>;

enum Job {
    Write(Ticket, Vec<Record>, usize),
    Ask(Question),
    /// Entries that are in the database, for the new journal with this number.
    Found(u64, Vec<(EntryUuid, Csn)>),
    /// The database was read for it: to its end, or not.
    Scanned(u64, bool),
    Close(Vec<u8>, Sender<()>),
}

/// How the journal is kept.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) dir: PathBuf,
    /// The normalised suffix of the database.
    pub(crate) nsuffix: String,
    pub(crate) retention: Retention,
    /// How long to wait before a new journal is made from a database in use; the pauses grow.
    pub(crate) rebuild_pause: Duration,
}

/// A handle on the journal's thread. Every method returns at once, from any thread.
pub(crate) struct Store {
    dir: PathBuf,
    /// What clients have changed, until the journal has it.
    pending: Arc<OnceLock<Pending>>,
    /// That it cannot be kept was told.
    told: AtomicBool,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    state: Arc<State>,
}

struct State {
    last: AtomicU64,
    written: AtomicU64,
    queued_bytes: AtomicUsize,
    /// The number of the new journal that the database has to be read for; 0: none.
    filling: AtomicU64,
    /// Nobody has begun to read it.
    scan_wanted: AtomicBool,
    /// How far the listed peers are that are away or have not caught up.
    needed: Mutex<Vec<(BareJid, Vector)>>,
    /// What the rules remember; from here, what the journal has forgotten goes.
    names: Arc<Mutex<Names>>,
    /// Told after every write.
    wake: Arc<Notify>,
}

impl Store {
    /// Without a journal one is made from the database later. Everything up to `vector` is in the database.
    pub(crate) fn start(
        journal: Option<Journal>,
        config: StoreConfig,
        vector: &Vector,
        unseen: &Arc<Mutex<Unseen>>,
        database: Arc<dyn Database>,
        wake: Arc<Notify>,
    ) -> std::io::Result<Store> {
        let (jobs, queue) = mpsc::channel();
        let state = Arc::new(State {
            last: AtomicU64::new(0),
            written: AtomicU64::new(0),
            queued_bytes: AtomicUsize::new(0),
            filling: AtomicU64::new(0),
            scan_wanted: AtomicBool::new(false),
            needed: Mutex::default(),
            names: Arc::default(),
            wake,
        });
        let dir = config.dir.clone();
        let pending = Arc::new(OnceLock::new());
        if journal.is_some() {
            begin_pending(&pending, &dir);
        }
        let mut keeper =
            Keeper::new(journal, config, vector.clone(), Arc::clone(unseen), database, Arc::clone(&state));
        keeper.pending = Arc::clone(&pending);
        let span = Span::current();
        let thread = std::thread::Builder::new()
            .name("xmppsync-log".to_owned())
            .spawn(move || span.in_scope(|| keeper.run(&queue)))?;
        let told = AtomicBool::new(false);
        Ok(Store {
            dir,
            pending,
            told,
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            state,
        })
    }

    /// Keeps a change of a client over the death of this process, until the journal has it.
    pub(crate) fn keep(&self, change: &Change, old_parent: Option<EntryUuid>) {
        if let Some(pending) = self.pending.get()
            && let Err(problem) = pending.push(change, old_parent)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tell_pending(&problem);
        }
    }

    /// What the rules remember of the tree.
    pub(crate) fn names(&self) -> Arc<Mutex<Names>> {
        Arc::clone(&self.state.names)
    }

    /// Hands records over to be written together.
    pub(crate) fn write(&self, records: Vec<Record>) -> Ticket {
        // Under the lock: tickets are handed out in the order of the queue.
        let jobs = lock(&self.jobs);
        let ticket = self.state.last.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = records.iter().map(record_bytes).sum();
        self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Write(ticket, records, bytes)).is_ok());
        if !sent {
            self.state.done(ticket, bytes);
        }
        ticket
    }

    /// Whether the write is durable, or will never be because the journal failed.
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.state.written.load(Ordering::Acquire) >= ticket
    }

    /// Bytes of changes that wait to be written.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.state.queued_bytes.load(Ordering::Relaxed)
    }

    /// Whether more changes may be taken: what waits is bounded, however slow the disk is.
    pub(crate) fn has_room(&self) -> bool {
        self.queued_bytes() <= limits::JOURNAL_QUEUE_BYTES_MAX
    }

    /// A new journal wants to know which entries there are: to be run on a thread of the host. Given once.
    pub(crate) fn take_scan(&self) -> Option<Scan> {
        if !self.state.scan_wanted.swap(false, Ordering::AcqRel) {
            return None;
        }
        let jobs = lock(&self.jobs).clone()?;
        Some(Scan::new(self.state.filling.load(Ordering::Acquire), jobs, Arc::clone(&self.state)))
    }

    /// Whether a new journal waits for the entries of the database.
    pub(crate) fn is_filling(&self) -> bool {
        self.state.filling.load(Ordering::Acquire) != 0
    }

    /// Durable before the first entry: what a stop in the middle leaves must not be taken for a whole database.
    pub(crate) fn note_loading(&self) -> oneshot::Receiver<bool> {
        let dir = self.dir.clone();
        self.ask(move |journal| {
            if let Err(problem) = loading::note(&dir) {
                warn!("that a load begins cannot be noted in {}: {problem}", dir.display());
                return Ok(false);
            }
            journal.write(&[Record::Loading(Some(Vec::new()))])?;
            Ok(true)
        })
    }

    /// Asks the journal. `None`, or nothing at all, when it has failed or is not whole yet.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        self.send_question(question, |given| drop(answer.send(given)));
        answered
    }

    /// As [`ask`](Self::ask), and waits for the answer. `Ok(None)`: there is no journal, or it is not whole yet.
    pub(crate) fn ask_now<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
        patience: Duration,
    ) -> Result<Option<T>, RecvTimeoutError> {
        let (answer, answered) = mpsc::channel();
        self.send_question(question, move |given| drop(answer.send(given)));
        match answered.recv_timeout(patience) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(timeout) => Err(timeout),
        }
    }

    /// `answer` is called unless the journal fails; whoever asked may have gone away by then.
    fn send_question<T>(
        &self,
        question: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
        answer: impl FnOnce(T) + Send + 'static,
    ) {
        let question: Question = Box::new(move |journal| {
            answer(question(journal)?);
            Ok(())
        });
        if let Some(jobs) = lock(&self.jobs).as_ref() {
            let _ = jobs.send(Job::Ask(question));
        }
    }

    /// What the absent peers lack is kept as long as there is room.
    pub(crate) fn set_needed(&self, needed: Vec<(BareJid, Vector)>) {
        *lock(&self.state.needed) = needed;
    }

    /// Writes what waits and closes the journal with the marker. Waits at most `patience`.
    pub(crate) fn close(&self, clean: Vec<u8>, patience: Duration) {
        let Some(jobs) = lock(&self.jobs).take() else { return };
        let (done, closed) = mpsc::channel();
        let asked = jobs.send(Job::Close(clean, done)).is_ok();
        drop(jobs);
        if asked && closed.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            warn!("the journal does not close in time; the next start compares it with the database");
            return;
        }
        if let Some(thread) = lock(&self.thread).take() {
            drop(thread.join());
        }
    }
}

impl State {
    fn done(&self, ticket: Ticket, bytes: usize) {
        self.written.fetch_max(ticket, Ordering::AcqRel);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where there is no journal nothing is kept: at the next start it would be of no use.
fn begin_pending(pending: &OnceLock<Pending>, dir: &Path) {
    if pending.get().is_none() {
        match Pending::begin(dir) {
            Ok(begun) => drop(pending.set(begun)),
            Err(problem) => tell_pending(&problem),
        }
    }
}

fn tell_pending(problem: &std::io::Error) {
    warn!(
        "what clients change is not kept until the journal has it ({problem}): should slapd be killed, the next start sends the entries as \
         they are, and what other servers changed in them at the same time may be lost"
    );
}

fn found_bytes(entries: &[(EntryUuid, Csn)]) -> usize {
    std::mem::size_of_val(entries)
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::Change { change, .. } => change.size(),
        _ => 64,
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;

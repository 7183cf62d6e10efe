//! The journal on a thread of its own: whoever writes hands over records and goes on.
//!
//! Everything that waits is written in one transaction (group commit). When the journal fails it is set aside, the
//! database goes on serving and replicating, and the next start makes a new journal from the database.

use crate::host::Database;
use crate::limits;
use crate::shared::lock;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, oneshot};
use tracing::{Span, debug, error, warn};
use xmpp_parsers::jid::BareJid;
use xmppsync_journal::{Journal, JournalError, Record, Retention};
use xmppsync_replica::Vector;

/// Names a write; later ones are larger.
pub(crate) type Ticket = u64;

/// What to do with the journal when there is one.
type Question = Box<dyn FnOnce(&mut Journal) -> Result<(), JournalError> + Send>;

enum Job {
    Write(Ticket, Vec<Record>, usize),
    Ask(Question),
    Close(Vec<u8>, Sender<()>),
}

/// How the journal is kept.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) dir: PathBuf,
    pub(crate) retention: Retention,
}

/// A handle on the journal's thread. Every method returns at once, from any thread.
pub(crate) struct Store {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    state: Arc<State>,
}

struct State {
    last: AtomicU64,
    written: AtomicU64,
    queued_bytes: AtomicUsize,
    /// How far the listed peers are that are away or have not caught up.
    needed: Mutex<Vec<(BareJid, Vector)>>,
    /// Told after every write.
    wake: Arc<Notify>,
}

impl Store {
    pub(crate) fn start(
        journal: Journal,
        config: StoreConfig,
        database: Arc<dyn Database>,
        wake: Arc<Notify>,
    ) -> std::io::Result<Store> {
        let (jobs, queue) = mpsc::channel();
        let state = Arc::new(State {
            last: AtomicU64::new(0),
            written: AtomicU64::new(0),
            queued_bytes: AtomicUsize::new(0),
            needed: Mutex::default(),
            wake,
        });
        let mut keeper = Keeper {
            journal: Some(journal),
            config,
            database,
            seen: None,
            told: BTreeSet::new(),
            state: Arc::clone(&state),
        };
        let span = Span::current();
        let thread = std::thread::Builder::new()
            .name("xmppsync-log".to_owned())
            .spawn(move || span.in_scope(|| keeper.run(&queue)))?;
        Ok(Store { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), state })
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

    /// Asks the journal. `None`, or nothing at all, when it has failed.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |journal| {
            // The asker may have gone away.
            let _ = answer.send(question(journal)?);
            Ok(())
        });
        if let Some(jobs) = lock(&self.jobs).as_ref() {
            let _ = jobs.send(Job::Ask(question));
        }
        answered
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

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::Change { change, .. } => change.size(),
        _ => 64,
    }
}

/// What runs on the thread.
struct Keeper {
    journal: Option<Journal>,
    config: StoreConfig,
    database: Arc<dyn Database>,
    /// When the state of the database's file was noted last.
    seen: Option<Instant>,
    /// Absent peers of which it was told that they have to compare.
    told: BTreeSet<BareJid>,
    state: Arc<State>,
}

impl Keeper {
    fn run(&mut self, queue: &Receiver<Job>) {
        let age = Duration::from_secs(self.config.retention.age_seconds);
        let interval = limits::TRIM_INTERVAL.min(age.max(limits::TRIM_INTERVAL_MIN));
        let mut next_trim = Instant::now() + interval;
        loop {
            let job = match queue.recv_timeout(next_trim.saturating_duration_since(Instant::now())) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(job) = job
                && self.work(job, queue).is_break()
            {
                return;
            }
            if Instant::now() >= next_trim || self.is_too_large() {
                let pause = if self.trim() { limits::TRIM_PAUSE } else { interval };
                next_trim = Instant::now() + pause;
            }
        }
    }

    /// Does the job, and with a write all writes that wait behind it.
    fn work(&mut self, job: Job, queue: &Receiver<Job>) -> std::ops::ControlFlow<()> {
        let mut job = Some(job);
        while let Some(this) = job.take() {
            match this {
                Job::Write(ticket, mut records, mut bytes) => {
                    let mut last = ticket;
                    while records.len() < limits::JOURNAL_RECORDS_MAX && bytes < limits::JOURNAL_BYTES_MAX {
                        match queue.try_recv() {
                            Ok(Job::Write(ticket, more, more_bytes)) => {
                                records.extend(more);
                                bytes += more_bytes;
                                last = ticket;
                            }
                            Ok(other) => {
                                job = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    records.extend(self.generation());
                    self.write(&records);
                    self.state.done(last, bytes);
                    self.state.wake.notify_one();
                }
                Job::Ask(question) => {
                    if let Some(journal) = &mut self.journal
                        && let Err(problem) = question(journal)
                    {
                        self.failed(&problem);
                    }
                }
                Job::Close(clean, done) => {
                    if let Some(journal) = self.journal.take()
                        && let Err(problem) = journal.close(&clean)
                    {
                        warn!("{problem}; the next start compares the journal with the database");
                    }
                    let _ = done.send(());
                    return std::ops::ControlFlow::Break(());
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Now and then, which state of the database the journal has seen: whoever puts back an older one is found out.
    fn generation(&mut self) -> Option<Record> {
        if self.seen.is_some_and(|seen| seen.elapsed() < limits::GENERATION_INTERVAL) {
            return None;
        }
        self.seen = Some(Instant::now());
        self.database.generation().map(|generation| Record::Generation(generation.encode()))
    }

    fn write(&mut self, records: &[Record]) {
        let Some(journal) = &mut self.journal else { return };
        let mut result = journal.write(records);
        if let Err(JournalError::TooLarge { csn, .. }) = result {
            // It is not in the journal, and neither is what was before it: who lacks it has to compare.
            warn!("the change with CSN {csn} is too large for the journal");
            let rest: Vec<Record> = records
                .iter()
                .filter(|record| !matches!(record, Record::Change { change, .. } if change.csn == csn))
                .cloned()
                .chain([Record::Floor(csn)])
                .collect();
            result = journal.write(&rest);
        }
        if let Err(problem) = result {
            self.failed(&problem);
        }
    }

    fn failed(&mut self, problem: &JournalError) {
        let Some(journal) = self.journal.take() else { return };
        let aside = match journal.set_aside() {
            Ok(path) => format!("it is set aside as {}", path.display()),
            Err(problem) => format!("it cannot be set aside ({problem})"),
        };
        error!(
            "{problem}; {aside}. The database goes on serving and replicating; what a peer misses it gets from others, or \
             when slapd is started again, which begins a new journal in {}",
            self.config.dir.display()
        );
        self.state.wake.notify_one();
    }

    /// Whether it cannot wait. Some room, or every write would be followed by a trim.
    fn is_too_large(&self) -> bool {
        let bytes_max = self.config.retention.bytes_max;
        let bytes_max = bytes_max.saturating_add(bytes_max / limits::JOURNAL_EXCESS_PART);
        self.journal.as_ref().is_some_and(|journal| journal.bytes() > bytes_max)
    }

    /// Returns whether more is to be dropped.
    fn trim(&mut self) -> bool {
        let (absent, needed): (Vec<BareJid>, Vec<Vector>) = lock(&self.state.needed).iter().cloned().unzip();
        let Some(journal) = &mut self.journal else { return false };
        match journal.trim(now(), self.config.retention, &needed) {
            Ok(trimmed) => {
                if trimmed.dropped > 0 {
                    debug!("the journal forgot {} old changes", trimmed.dropped);
                }
                let lacking = trimmed.forced.map(|forced| forced.lacking).unwrap_or_default();
                self.told.retain(|told| absent.contains(told));
                for jid in lacking.into_iter().filter_map(|place| absent.get(place)) {
                    self.tell(jid);
                }
                trimmed.more
            }
            Err(problem) => {
                self.failed(&problem);
                false
            }
        }
    }

    /// Once in an absence.
    fn tell(&mut self, jid: &BareJid) {
        if self.told.insert(jid.clone()) {
            warn!(
                "the journal reached xmppsync-journal-size ({} bytes): changes were dropped that {jid} lacks; \
                 it compares its entries when it returns",
                self.config.retention.bytes_max
            );
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! What runs on the journal's thread.

use super::remembered::Remembered;
use super::{Job, State, StoreConfig, begin_pending, found_bytes, now};
use crate::host::Database;
use crate::limits;
use crate::shared::lock;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use xmpp_parsers::jid::BareJid;
use xmppsync_journal::pending::Pending;
use xmppsync_journal::{Journal, JournalError, Record, loading};
use xmppsync_replica::{Csn, EntryUuid, Unseen, Vector};

/// The journal, as far as there is one.
enum Book {
    Whole(Journal),
    /// It takes what happens from now on, and lacks some of what is there: nothing is answered from it.
    Filling(Journal),
    None,
}

impl Book {
    fn journal(&mut self) -> Option<&mut Journal> {
        match self {
            Book::Whole(journal) | Book::Filling(journal) => Some(journal),
            Book::None => None,
        }
    }
}

pub(super) struct Keeper {
    book: Book,
    config: StoreConfig,
    database: Arc<dyn Database>,
    /// When the state of the database's file was noted last.
    seen: Option<Instant>,
    /// Absent peers of which it was told that they have to compare.
    told: BTreeSet<BareJid>,
    remembered: Remembered,
    /// The driver's; it is seen here when that has expired.
    unseen: Arc<Mutex<Unseen>>,
    /// Up to here is, or is going to be, in the database what no journal has: the floor of the next one.
    passed: Vector,
    /// The number of the last journal that was made from the database in use.
    number: u64,
    /// When to try again to have a whole journal, and how long to wait after that.
    again: Option<Instant>,
    pause: Duration,
    whole_since: Instant,
    state: Arc<State>,
    /// Files of changes that go when the journal has them.
    pub(super) pending: Arc<OnceLock<Pending>>,
}

impl Keeper {
    pub(super) fn new(
        journal: Option<Journal>,
        config: StoreConfig,
        vector: Vector,
        unseen: Arc<Mutex<Unseen>>,
        database: Arc<dyn Database>,
        state: Arc<State>,
    ) -> Keeper {
        let mut remembered = journal.as_ref().map(Remembered::of).unwrap_or_default();
        remembered.note(&[Record::Unseen { unseen: lock(&unseen).clone(), at: now() }]);
        let pause = config.rebuild_pause;
        let again = journal.is_none().then(|| Instant::now() + pause);
        Keeper {
            book: journal.map_or(Book::None, Book::Whole),
            config,
            database,
            seen: None,
            told: BTreeSet::new(),
            remembered,
            unseen,
            passed: vector,
            number: 0,
            again,
            pause,
            whole_since: Instant::now(),
            state,
            pending: Arc::default(),
        }
    }

    pub(super) fn run(&mut self, queue: &Receiver<Job>) {
        let age = Duration::from_secs(self.config.retention.age_seconds);
        let interval = limits::TRIM_INTERVAL.min(age.max(limits::TRIM_INTERVAL_MIN));
        let mut next_trim = Instant::now() + interval;
        loop {
            let next = self.again.map_or(next_trim, |again| again.min(next_trim));
            let job = match queue.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(job) = job
                && self.work(job, queue).is_break()
            {
                return;
            }
            self.rebuild();
            if Instant::now() >= next_trim || self.is_too_large() {
                let pause = if self.trim() { limits::TRIM_PAUSE } else { interval };
                next_trim = Instant::now() + pause;
            }
        }
    }

    /// Does the job, and with a write all writes that wait behind it.
    fn work(&mut self, job: Job, queue: &Receiver<Job>) -> ControlFlow<()> {
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
                    self.write(records);
                    self.state.done(last, bytes);
                    self.state.wake.notify_one();
                }
                Job::Ask(question) => {
                    if let Book::Whole(journal) = &mut self.book
                        && let Err(problem) = question(journal)
                    {
                        self.failed(&problem);
                    }
                }
                Job::Found(number, entries) => self.found(number, entries),
                Job::Scanned(number, whole) => self.scanned(number, whole),
                Job::Close(clean, done) => {
                    self.close(&clean);
                    let _ = done.send(());
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn close(&mut self, clean: &[u8]) {
        match std::mem::replace(&mut self.book, Book::None) {
            Book::Whole(journal) => match journal.close(clean) {
                Ok(()) => {}
                Err(problem) => warn!("{problem}; the next start compares the journal with the database"),
            },
            // The next start makes another one.
            Book::Filling(journal) => drop(journal.discard()),
            Book::None => {}
        }
    }

    /// Now and then, which state of the database the journal has seen: whoever puts back an older one is found out.
    fn generation(&mut self) -> Option<Record> {
        if self.seen.is_some_and(|seen| seen.elapsed() < limits::GENERATION_INTERVAL) {
            return None;
        }
        self.seen = Some(Instant::now());
        self.database.generation().map(|generation| Record::Generation(generation.encode()))
    }

    fn write(&mut self, mut records: Vec<Record>) {
        self.remembered.note(&records);
        let generation = self.generation();
        records.extend(generation);
        if let Some(journal) = self.book.journal()
            && let Err(problem) = write(journal, &records)
        {
            self.failed(&problem);
        }
        self.trim_pending();
        if matches!(self.book, Book::None) {
            let passed = records.iter().filter_map(|record| match record {
                Record::Head(csn) | Record::Floor(csn) | Record::Reached(csn) => Some(*csn),
                _ => None,
            });
            passed.for_each(|csn| self.passed.advance(csn));
        }
        if records.iter().any(|record| matches!(record, Record::Loading(None)))
            && let Err(problem) = loading::forget(&self.config.dir)
        {
            warn!("that the load has ended cannot be noted ({problem}); the next start begins it anew");
        }
    }

    /// Without a journal the files are of no use at the next start.
    fn trim_pending(&mut self) {
        let Some(pending) = self.pending.get() else { return };
        let trimmed = match self.book.journal() {
            Some(journal) => pending.trim(journal.head()),
            None => pending.trim(&self.passed),
        };
        if let Err(problem) = trimmed {
            debug!("files of changes that the journal has stay: {problem}");
        }
    }

    fn failed(&mut self, problem: &JournalError) {
        let book = std::mem::replace(&mut self.book, Book::None);
        let (Book::Whole(journal) | Book::Filling(journal)) = &book else { return };
        journal.head().iter().for_each(|csn| self.passed.advance(csn));
        self.state.filling.store(0, Ordering::Release);
        self.state.scan_wanted.store(false, Ordering::Release);
        if let Book::Filling(journal) = book {
            debug!("the new journal came to nothing: {problem}");
            drop(journal.discard());
        } else if let Book::Whole(journal) = book {
            if self.whole_since.elapsed() > limits::REBUILD_PAUSE_MAX {
                self.pause = self.config.rebuild_pause;
            }
            let aside = match journal.set_aside() {
                Ok(path) => format!("it is set aside as {}", path.display()),
                Err(problem) => format!("it cannot be set aside ({problem})"),
            };
            error!(
                "{problem}; {aside}. The database goes on serving and replicating; what a peer misses it gets from others, or \
                 when a new journal in {} is made from the database, which is tried again and again",
                self.config.dir.display()
            );
        }
        self.try_later();
        self.state.wake.notify_one();
    }

    /// The pauses grow: a disk that is full may stay so.
    fn try_later(&mut self) {
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(limits::REBUILD_PAUSE_MAX);
    }

    /// When it is time, another step to a whole journal.
    fn rebuild(&mut self) {
        if self.again.is_none_or(|again| Instant::now() < again) {
            return;
        }
        self.again = None;
        match self.book {
            Book::Whole(_) => {}
            Book::Filling(_) => self.want_scan(),
            Book::None => {
                if let Err(problem) = self.begin_anew() {
                    debug!("there still is no journal: {problem}");
                    self.try_later();
                }
            }
        }
    }

    /// From here on it takes all that happens; then the database is read. So whatever is not seen there comes as a change.
    fn begin_anew(&mut self) -> Result<(), JournalError> {
        let mut journal = Journal::anew(&self.config.dir, &self.config.nsuffix)?;
        let mut records = vec![Record::Incomplete(true)];
        records.extend(self.passed.iter().map(Record::Floor));
        records.extend(self.remembered.records());
        if let Err(problem) = journal.write(&records) {
            drop(journal.discard());
            return Err(problem);
        }
        begin_pending(&self.pending, &self.config.dir);
        self.number += 1;
        self.book = Book::Filling(journal);
        self.want_scan();
        Ok(())
    }

    fn want_scan(&mut self) {
        self.state.filling.store(self.number, Ordering::Release);
        self.state.scan_wanted.store(true, Ordering::Release);
        self.state.wake.notify_one();
    }

    fn found(&mut self, number: u64, entries: Vec<(EntryUuid, Csn)>) {
        let bytes = found_bytes(&entries);
        if let Book::Filling(journal) = &mut self.book
            && number == self.number
        {
            let record = |(uuid, csn)| match self.remembered.is_glue(uuid) {
                true => Record::Gone { uuid, csn, at: now() },
                false => Record::Put { uuid, csn },
            };
            let records: Vec<Record> = entries.into_iter().map(record).collect();
            if let Err(problem) = journal.write(&records) {
                self.failed(&problem);
            }
        }
        self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.state.wake.notify_one();
    }

    fn scanned(&mut self, number: u64, whole: bool) {
        let Book::Filling(journal) = &mut self.book else { return };
        if number != self.number {
            return;
        }
        if !whole {
            self.try_later();
            return;
        }
        match journal.write(&[Record::Incomplete(false)]).and_then(|()| journal.inventory_len()) {
            Ok(entries) => {
                info!("there is a journal again: it is made from the database ({entries} entries)");
                self.state.filling.store(0, Ordering::Release);
                self.whole_since = Instant::now();
                if let Book::Filling(journal) = std::mem::replace(&mut self.book, Book::None) {
                    self.book = Book::Whole(journal);
                }
            }
            Err(problem) => self.failed(&problem),
        }
    }

    /// Whether it cannot wait. Some room, or every write would be followed by a trim.
    fn is_too_large(&mut self) -> bool {
        let bytes_max = self.config.retention.bytes_max;
        let bytes_max = bytes_max.saturating_add(bytes_max / limits::JOURNAL_EXCESS_PART);
        self.book.journal().is_some_and(|journal| journal.bytes() > bytes_max)
    }

    /// Returns whether more is to be dropped.
    fn trim(&mut self) -> bool {
        let (absent, needed): (Vec<BareJid>, Vec<Vector>) = lock(&self.state.needed).iter().cloned().unzip();
        let Some(journal) = self.book.journal() else { return false };
        match journal.trim(now(), self.config.retention, &needed) {
            Ok(trimmed) => {
                if trimmed.dropped > 0 {
                    debug!("the journal forgot {} old changes", trimmed.dropped);
                }
                if journal.unseen().is_empty() {
                    // What the driver has noted since is on its way here.
                    lock(&self.unseen).remove(&self.remembered.take_unseen());
                }
                if let Some(until) = trimmed.moves {
                    self.remembered.forget_moves(until);
                    lock(&self.state.names).forget_moves(until);
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

fn write(journal: &mut Journal, records: &[Record]) -> Result<(), JournalError> {
    let result = journal.write(records);
    let Err(JournalError::TooLarge { csn, .. }) = result else { return result };
    // It is not in the journal, and neither is what was before it: who lacks it has to compare.
    warn!("the change with CSN {csn} is too large for the journal");
    let is_it = |record: &Record| matches!(record, Record::Change { change, .. } if change.csn == csn);
    let rest = records.iter().filter(|record| !is_it(record)).cloned();
    journal.write(&rest.chain([Record::Floor(csn)]).collect::<Vec<_>>())
}

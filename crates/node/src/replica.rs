//! One replicated database, as its host holds it.

use crate::apply::{self, Rest};
use crate::clock::LocalClock;
use crate::driver::{Command, Driver};
use crate::host::{ContextCsnWrite, Database, Generation, Opening, Reader, Transaction};
use crate::hub::{Hub, HubError};
use crate::limits;
use crate::merging::Names;
use crate::opening::{self, OpeningError};
use crate::shared::{Shared, lock};
use crate::snapshot;
use crate::store::{Store, StoreConfig};
use crate::to_apply::Ahead;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tracing::{Span, info_span, warn};
use xmpp_parsers::jid::BareJid;
use xmppsync_journal::{Record, Retention};
use xmppsync_link::{GroupConfig, SessionConfig};
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Seen, ServerId, Vector};
use xmppsync_wire::Live;

/// What a replica is told by its host.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The suffix as the admin wrote it, for the log.
    pub suffix: String,
    /// The suffix normalised: two databases with different ones do not replicate.
    pub nsuffix: String,
    /// slapd's serverID.
    pub server_id: ServerId,
    /// Random, new in every run.
    pub boot: BootId,
    /// The connection; replicas with the same JID share one.
    pub session: SessionConfig,
    /// The room and nodes.
    pub group: GroupConfig,
    /// What carries the live stream.
    pub live: Live,
    /// What is kept, and how the database is filled and compared.
    pub keep: KeepConfig,
    /// How far a change of another server may be ahead of the system's clock.
    pub max_drift: Duration,
}

/// How much a replica keeps for others, and how it becomes whole itself.
#[derive(Clone, Debug)]
pub struct KeepConfig {
    /// The directory of the journal; no other database of the process has it.
    pub journal: PathBuf,
    /// How long changes are kept.
    pub retention: Duration,
    /// Bytes that the journal may take.
    pub journal_size: u64,
    /// Messages that may wait for an absent peer.
    pub offline_messages: u32,
    /// How often the database is compared with a peer's; `None`: never.
    pub check_interval: Option<Duration>,
    /// The peer from which an empty database is loaded; `None`: any.
    pub load_from: Option<BareJid>,
    /// Whether clients are served before the database is whole.
    pub serve_while_loading: bool,
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No thread, or a room that is taken.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] OpeningError),
    /// The system gives no thread.
    #[error("the thread of the journal cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A handle on the driver of one database. All methods but [`apply`](Self::apply) and [`stop`](Self::stop)
/// return at once; they may be called from any thread.
pub struct Replica {
    shared: Arc<Shared>,
    /// Held by the one thread that applies.
    applying: Mutex<()>,
    commands: mpsc::UnboundedSender<Command>,
    hub: Hub,
    database: Arc<dyn Database>,
    span: Span,
}

impl Replica {
    /// Compares the database with its journal and begins to collect local changes. Nothing is sent before
    /// [`start`](Self::start).
    ///
    /// # Errors
    /// [`OpenError`] says what cannot be had.
    pub fn open(
        config: ReplicaConfig,
        database: Arc<dyn Database>,
        opening: &mut dyn Opening,
    ) -> Result<Replica, OpenError> {
        let span = info_span!("database", suffix = %config.suffix);
        let entered = span.enter();
        let hub = Hub::enter(&config.group.room)?;
        let opened = Replica::open_journal(&config, &database, opening);
        let (shared, mut found) = opened.inspect_err(|_| hub.leave())?;
        std::mem::take(&mut found.unpublished).into_iter().for_each(|part| shared.handle_captured(part));
        let (commands, receiver) = mpsc::unbounded_channel();
        let driver =
            Driver::new(config, Arc::clone(&shared), Arc::clone(&database), hub.clone(), receiver, found);
        hub.spawn(driver.run(), span.clone());
        drop(entered);
        Ok(Replica { shared, applying: Mutex::default(), commands, hub, database, span })
    }

    fn open_journal(
        config: &ReplicaConfig,
        database: &Arc<dyn Database>,
        opening: &mut dyn Opening,
    ) -> Result<(Arc<Shared>, opening::Found), OpenError> {
        let (journal, mut found) =
            opening::open(&config.keep.journal, &config.nsuffix, opening, config.server_id)?;
        snapshot::remove_leftovers(&config.keep.journal);
        let wake = Arc::new(Notify::new());
        let retention =
            Retention { age_seconds: config.keep.retention.as_secs(), bytes_max: config.keep.journal_size };
        let store = StoreConfig {
            dir: config.keep.journal.clone(),
            nsuffix: config.nsuffix.clone(),
            retention,
            rebuild_pause: limits::REBUILD_PAUSE,
        };
        let clock = LocalClock::new(config.max_drift);
        // Later than all that was found.
        let opened = opening.new_csn().map_err(OpeningError::from)?;
        clock.observe([opened]);
        found.opened = Some(opened);
        let names = journal.as_ref().map(Names::read).transpose().map_err(OpeningError::from)?;
        let found_aside: Vec<Record> = found.names.records().collect();
        let names = names.unwrap_or_else(|| found.names.clone());
        let waiting =
            journal.as_ref().map(apply::waiting).transpose().map_err(OpeningError::from)?.unwrap_or_default();
        let seen = Seen { vector: found.vector.clone(), unseen: found.unseen.clone() };
        let ahead = journal.as_ref().map(|journal| Ahead::read(journal, &seen));
        let ahead = ahead.transpose().map_err(OpeningError::from)?.unwrap_or_default();
        let (vector, unseen) = (found.vector.clone(), Arc::new(Mutex::new(found.unseen.clone())));
        let store = Store::start(journal, store, &vector, &unseen, Arc::clone(database), Arc::clone(&wake))?;
        if !found_aside.is_empty() {
            store.write(found_aside);
        }
        let database = Arc::clone(database);
        let shared = Shared::new(clock, config.server_id, vector, unseen, store, database, wake);
        *lock(&shared.names) = names;
        {
            let mut to_apply = lock(&shared.to_apply);
            (to_apply.waiting, to_apply.ahead) = (waiting, ahead);
        }
        Ok((Arc::new(shared), found))
    }

    /// The database is served: joins the others.
    pub fn start(&self) {
        // The driver ends only after `stop`.
        let _ = self.commands.send(Command::Start);
    }

    /// Which entry is the suffix entry now, if there is one: the data set that this is a copy of.
    pub fn suffix_entry(&self, uuid: Option<EntryUuid>) {
        *lock(&self.shared.dataset) = uuid;
        self.shared.wake.notify_one();
    }

    /// The CSN of a write that begins now. `wall` is that of this moment by the host's clock; the answer is that or, where something
    /// later was seen, the next one after that. Until the write is committed, or given up, no other one begins.
    pub fn mint_csn(&self, wall: Csn) -> Csn {
        let _entered = self.span.enter();
        self.shared.clock.mint(wall)
    }

    /// A change of a client was committed. `old_parent`: the parent that the entry of a delete or rename had before.
    pub fn captured(&self, change: Change, old_parent: Option<EntryUuid>) {
        self.shared.handle_captured((change, old_parent));
        self.shared.wake.notify_one();
    }

    /// A part of an LDAP transaction went well; it is not committed yet.
    pub fn captured_in_transaction(&self, transaction: usize, change: Change, old_parent: Option<EntryUuid>) {
        lock(&self.shared.captured).push_part(transaction, (change, old_parent));
    }

    /// The LDAP transaction is committed, or nothing of it happened.
    pub fn transaction_ended(&self, transaction: usize, committed: bool) {
        let parts = lock(&self.shared.captured).end_transaction(transaction, committed);
        parts.into_iter().for_each(|part| self.shared.handle_captured(part));
        self.shared.wake.notify_one();
    }

    /// How far this replica has come.
    pub fn vector(&self) -> Vector {
        lock(&self.shared.vector).clone()
    }

    /// Applies what waits, on a thread of the host, after it took [`Database::submit_apply`]'s request.
    ///
    /// A request that the host took for a replica of this database that was closed meanwhile may come on top of
    /// this one's own; two threads at once would commit in the wrong order.
    pub fn apply(&self, transaction: &mut dyn Transaction) {
        let _entered = self.span.enter();
        let _applying = lock(&self.applying);
        let turn = Turn { shared: &self.shared };
        loop {
            let rest = apply::run(&self.shared, transaction);
            let mut to_apply = lock(&self.shared.to_apply);
            if rest == Rest::Empty && !to_apply.is_empty() {
                continue; // it came between the last look and the lock
            }
            to_apply.running = false;
            break;
        }
        std::mem::forget(turn);
        // What is left is asked for again by the driver.
        self.shared.wake.notify_one();
    }

    /// Reads what was asked for, on a thread of the host, after it took [`Database::submit_read`]'s request.
    pub fn read(&self, reader: &mut dyn Reader) {
        let _entered = self.span.enter();
        self.shared.reads.run(&self.shared, reader);
    }

    /// Sends what is left, leaves the room, and stores the vector. Takes at most [`limits::STOP_TIMEOUT`] and
    /// [`limits::CLOSE_TIMEOUT`] together; so do all replicas of the process when it `ends`.
    pub fn stop(self, transaction: Option<&mut dyn Transaction>, ends: bool) {
        let _entered = self.span.enter();
        if ends {
            self.hub.end_all();
        }
        let (done, stopped) = std::sync::mpsc::channel();
        let asked = self.commands.send(Command::Stop(done)).is_ok();
        if asked && stopped.recv_timeout(limits::STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            warn!("the XMPP connection did not end in time; it is dropped");
        }
        if let Some(transaction) = transaction {
            let vector = self.vector();
            if transaction.begin().is_ok() {
                match transaction.write_context_csn(&vector) {
                    ContextCsnWrite::Failed => transaction.abort(),
                    _ => drop(transaction.commit()),
                }
            }
        }
        // After the last write: the next start sees by it that nobody else wrote.
        let whole = !lock(&self.shared.captured).has_missed();
        let generation = self.database.generation().filter(|_| whole).map(Generation::encode);
        self.shared.store.close(generation.unwrap_or_default(), limits::JOURNAL_CLOSE_TIMEOUT);
        self.hub.leave();
    }
}

/// One call of [`Replica::apply`]. Dropped by a panic only: what was being applied is lost with it, and has to be
/// asked for again.
struct Turn<'a> {
    shared: &'a Shared,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.shared.to_apply).handle_panic();
        self.shared.wake.notify_one();
    }
}

//! What all replicas of a process share: one thread with its runtime, and one connection per JID.

use crate::limits;
use crate::shared::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tracing::{Instrument, Span, warn};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmppsync_link::{Session, SessionConfig};

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The system gives no thread or no event queue.
    #[error("the thread for the XMPP connections cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Two databases would mix.
    #[error(
        "the room {0} belongs to another database of this server; every database needs its own room, set xmppsync-room"
    )]
    RoomTaken(BareJid),
}

/// A replica's place in the process-wide hub.
///
/// The first replica starts the thread, the last one to leave joins it: nothing of the module runs before
/// slapd has detached, and nothing when it is unloaded.
#[derive(Clone)]
pub struct Hub {
    handle: Handle,
    sessions: Arc<Mutex<Sessions>>,
    room: BareJid,
    ending: watch::Sender<bool>,
}

type Sessions = BTreeMap<FullJid, (SessionConfig, Session, usize)>;

struct Running {
    handle: Handle,
    sessions: Arc<Mutex<Sessions>>,
    rooms: BTreeSet<BareJid>,
    /// The process ends: all replicas leave at once rather than one after the other.
    ending: watch::Sender<bool>,
    stop: oneshot::Sender<()>,
    stopped: Receiver<()>,
    thread: JoinHandle<()>,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

impl Hub {
    pub(crate) fn enter(room: &BareJid) -> Result<Hub, HubError> {
        let mut slot = lock(&RUNNING);
        let running = match &mut *slot {
            Some(running) => running,
            empty => empty.insert(start()?),
        };
        if !running.rooms.insert(room.clone()) {
            return Err(HubError::RoomTaken(room.clone()));
        }
        Ok(Hub {
            handle: running.handle.clone(),
            sessions: running.sessions.clone(),
            room: room.clone(),
            ending: running.ending.clone(),
        })
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, span: Span) {
        self.handle.spawn(task.instrument(span));
    }

    /// Every replica of the process leaves its room now.
    pub(crate) fn end_all(&self) {
        self.ending.send_replace(true);
    }

    /// Becomes true with [`end_all`](Self::end_all).
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// The connection of this JID, new or shared. Called on the hub's thread.
    pub(crate) fn session(&self, config: &SessionConfig) -> Session {
        let mut sessions = lock(&self.sessions);
        let (first, session, users) = sessions
            .entry(config.jid.clone())
            .or_insert_with(|| (config.clone(), Session::start(config.clone()), 0));
        let same = |other: &SessionConfig| {
            (&other.password, &other.server, other.tls, &other.ca)
                == (&config.password, &config.server, config.tls, &config.ca)
        };
        if !same(first) {
            warn!("another database uses {} with other settings; those are used", config.jid);
        }
        *users += 1;
        session.clone()
    }

    /// One user less; the last closes the connection.
    pub(crate) async fn release(&self, jid: &FullJid) {
        let last = {
            let mut sessions = lock(&self.sessions);
            let Some((_, _, users)) = sessions.get_mut(jid) else { return };
            *users -= 1;
            if *users == 0 { sessions.remove(jid) } else { None }
        };
        if let Some((_, session, _)) = last {
            session.close(limits::CLOSE_TIMEOUT).await;
        }
    }

    /// The room is free again; the last replica to leave ends the thread.
    pub(crate) fn leave(&self) {
        let mut slot = lock(&RUNNING);
        let Some(running) = &mut *slot else { return };
        running.rooms.remove(&self.room);
        if !running.rooms.is_empty() {
            return;
        }
        let Some(Running { stop, stopped, thread, .. }) = slot.take() else { return };
        drop(slot);
        let _ = stop.send(());
        // The runtime's tasks never block, so it ends at once; a thread that does not is left behind rather
        // than slapd held up.
        match stopped.recv_timeout(limits::CLOSE_TIMEOUT) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                warn!("the thread of the XMPP connections hangs")
            }
            _ => drop(thread.join()),
        }
    }
}

fn start() -> Result<Running, HubError> {
    // One thread: it carries everything that the overlay does beside slapd's own threads, and slapd's clients
    // need the processors more.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stop_asked) = oneshot::channel();
    let (done, stopped) = channel();
    let thread = std::thread::Builder::new()
        .name("xmppsync".to_owned())
        .stack_size(limits::STACK_BYTES)
        .spawn(move || {
            let _ = runtime.block_on(stop_asked);
            runtime.shutdown_timeout(limits::CLOSE_TIMEOUT / 2);
            let _ = done.send(());
        })?;
    Ok(Running {
        handle,
        sessions: Arc::default(),
        rooms: BTreeSet::new(),
        ending: watch::Sender::new(false),
        stop,
        stopped,
        thread,
    })
}

//! What the handles tell the session task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::StanzaError;

use crate::config::GroupConfig;
use crate::event::Event;
use crate::group::{AttachError, RequestError};
use crate::transfer::{Ask, OfferFile};

/// Names a group within its session; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) u64);

/// What handle and session task both look at without a message.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    joined: AtomicBool,
    node_ready: AtomicBool,
    outsiders: AtomicUsize,
    connected: AtomicBool,
}

impl Shared {
    pub(crate) fn joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }
    pub(crate) fn set_joined(&self, joined: bool) {
        self.joined.store(joined, Ordering::Release);
    }
    pub(crate) fn connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }
    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
    }
    pub(crate) fn node_ready(&self) -> bool {
        self.node_ready.load(Ordering::Acquire)
    }
    pub(crate) fn set_node_ready(&self, ready: bool) {
        self.node_ready.store(ready, Ordering::Release);
    }
    pub(crate) fn outsiders(&self) -> usize {
        self.outsiders.load(Ordering::Relaxed)
    }
    pub(crate) fn set_outsiders(&self, count: usize) {
        self.outsiders.store(count, Ordering::Relaxed);
    }
}

/// A group as it is handed to the session task.
pub(crate) struct Attach {
    pub(crate) config: GroupConfig,
    pub(crate) card: Element,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) done: oneshot::Sender<Result<GroupId, AttachError>>,
}

/// A command for one group.
#[derive(Debug)]
pub(crate) enum ToGroup {
    SendRoom { id: String, payload: Element },
    Say { body: String, payload: Option<Element> },
    Publish { id: String, payload: Element },
    SendStored { id: String, to: BareJid, payload: Element },
    SetCard(Element),
    Subscribe { peer: BareJid, node: String },
    Unsubscribe { node: String },
    SetPeers(Vec<BareJid>),
    Request { to: FullJid, payload: Element, timeout: Duration, answer: Answer },
    OfferFile(Box<OfferFile>),
    Detach,
}

/// Where the answer to a request goes.
pub(crate) type Answer = oneshot::Sender<Result<Element, RequestError>>;

/// A command for the session task.
pub(crate) enum Command {
    Attach(Box<Attach>),
    Group(GroupId, ToGroup),
    Answer { to: Jid, id: String, result: Result<Option<Element>, Box<StanzaError>> },
    Ask(GroupId, Box<Ask>),
    Close { done: oneshot::Sender<()> },
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Payloads do not belong into logs.
        f.write_str(match self {
            Self::Attach(_) => "Attach",
            Self::Group(..) => "Group",
            Self::Answer { .. } => "Answer",
            Self::Ask(..) => "Ask",
            Self::Close { .. } => "Close",
        })
    }
}

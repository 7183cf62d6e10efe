//! What the state machines produce: stanzas, and IQs whose answer they want to hear.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::StanzaError;

use crate::command::{Answer, GroupId};
use crate::elements::error_words;
use crate::limits::{IQ_TIMEOUT, IQS_MAX};
use crate::outlet::Outlet;

/// Who wants to hear the answer of an IQ.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The owner of the group, by `Group::request`.
    Caller(Answer),
    /// The owner of the group, by `Group::publish` with this id.
    Publish(String),
    /// The room.
    Room(RoomIq),
    /// The pubsub nodes.
    Node(NodeIq),
    /// The session, about the own server.
    Server,
    /// A transfer.
    Transfer(oneshot::Sender<IqResult>),
}

/// IQs of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomIq {
    /// disco#info of the MUC service.
    Service,
    /// disco#info of the room.
    Features,
    /// The form that configures the room.
    Configure,
    /// The current owners.
    Owners,
    /// Making peers owners.
    Grant,
    /// XEP-0410.
    SelfPing,
}

/// IQs of the pubsub nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeIq {
    /// disco#info of the service.
    Service,
    /// Creating the own node.
    Create,
    /// Configuring it; whether the strict form was sent.
    Configure { strict: bool },
    /// Listing the peers.
    Affiliations,
    /// The subscribers of the own node.
    Subscribers,
    /// Subscribing to this node.
    Subscribe(String),
}

/// Why an IQ has no result.
#[derive(Debug)]
pub(crate) enum IqFailure {
    /// The other side refuses.
    Refused(Box<StanzaError>),
    /// No answer in time.
    Timeout,
    /// The connection is lost, the answer unknown.
    Lost,
    /// Too many IQs without an answer already.
    TooMany,
}

impl std::fmt::Display for IqFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => f.write_str(&error_words(error)),
            Self::Timeout => f.write_str("no answer"),
            Self::Lost => f.write_str("the connection is lost"),
            Self::TooMany => f.write_str("too many requests without an answer"),
        }
    }
}

/// Answer of an IQ.
pub(crate) type IqResult = Result<Option<Element>, IqFailure>;

/// An IQ without an answer yet.
struct Open {
    group: GroupId,
    to: Jid,
    deadline: Instant,
    asked: Asked,
}

/// See the module's documentation.
pub(crate) struct Out {
    /// What the line writes next.
    pub(crate) stanzas: VecDeque<Stanza>,
    /// Evenly distributed in 0..1; a constant in tests.
    pub(crate) jitter: fn() -> f64,
    open: HashMap<u64, Open>,
    deadlines: BTreeSet<(Instant, u64)>,
    last_id: u64,
    /// Answers that are known without asking, to be handed on by the owner of this.
    pub(crate) settled: Vec<(GroupId, Asked, IqResult)>,
}

const ID_PREFIX: &str = "q";

impl Out {
    pub(crate) fn new(jitter: fn() -> f64) -> Self {
        Self {
            stanzas: VecDeque::new(),
            jitter,
            open: HashMap::new(),
            deadlines: BTreeSet::new(),
            last_id: 0,
            settled: Vec::new(),
        }
    }

    /// Sends an IQ of type `get`.
    pub(crate) fn get(&mut self, cx: (Instant, GroupId), to: Jid, payload: Element, asked: Asked) {
        self.ask(cx, to, IQ_TIMEOUT, asked, |to, id| Iq::Get { from: None, to, id, payload });
    }

    /// Sends an IQ of type `set`.
    pub(crate) fn set(&mut self, cx: (Instant, GroupId), to: Jid, payload: Element, asked: Asked) {
        self.ask(cx, to, IQ_TIMEOUT, asked, |to, id| Iq::Set { from: None, to, id, payload });
    }

    /// Sends an IQ with its own timeout.
    pub(crate) fn ask(
        &mut self,
        (now, group): (Instant, GroupId),
        to: Jid,
        timeout: Duration,
        asked: Asked,
        make: impl FnOnce(Option<Jid>, String) -> Iq,
    ) {
        if self.open.len() >= IQS_MAX {
            self.settled.push((group, asked, Err(IqFailure::TooMany)));
            return;
        }
        self.last_id += 1;
        let deadline = now + timeout;
        let id = format!("{ID_PREFIX}{}", self.last_id);
        self.stanzas.push_back(Stanza::Iq(make(Some(to.clone()), id)));
        self.deadlines.insert((deadline, self.last_id));
        self.open.insert(self.last_id, Open { group, to, deadline, asked });
    }

    /// Takes an answer; `None` for one that nobody waits for. The sender has to be who was asked: ids can be
    /// guessed.
    pub(crate) fn answered(&mut self, from: Option<&Jid>, id: &str) -> Option<(GroupId, Asked)> {
        let id: u64 = id.strip_prefix(ID_PREFIX)?.parse().ok()?;
        if self.open.get(&id).is_none_or(|open| Some(&open.to) != from) {
            return None;
        }
        let open = self.open.remove(&id)?;
        self.deadlines.remove(&(open.deadline, id));
        Some((open.group, open.asked))
    }

    /// When [`Self::expire`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Settles the IQs whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            if let Some(open) = self.open.remove(&id) {
                self.settled.push((open.group, open.asked, Err(IqFailure::Timeout)));
            }
        }
    }

    /// The connection is lost: nothing that was written or asked counts any more.
    pub(crate) fn lost(&mut self) {
        self.stanzas.clear();
        self.deadlines.clear();
        let mut open: Vec<_> = self.open.drain().collect();
        open.sort_by_key(|(id, _)| *id);
        let lost = open.into_iter().map(|(_, open)| (open.group, open.asked, Err(IqFailure::Lost)));
        self.settled.extend(lost);
    }

    /// Forgets what was asked for a group that is gone.
    pub(crate) fn forget(&mut self, group: GroupId) {
        let deadlines = &mut self.deadlines;
        self.open.retain(|id, open| {
            let keep = open.group != group;
            if !keep {
                deadlines.remove(&(open.deadline, *id));
            }
            keep
        });
    }
}

/// What a state machine of a group works with.
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) group: GroupId,
    pub(crate) own: &'a FullJid,
    pub(crate) peers: &'a BTreeSet<BareJid>,
    pub(crate) out: &'a mut Out,
    pub(crate) outlet: &'a mut Outlet,
}

impl Cx<'_> {
    pub(crate) fn get(&mut self, to: Jid, payload: impl Into<Element>, asked: Asked) {
        self.out.get((self.now, self.group), to, payload.into(), asked);
    }
    pub(crate) fn set(&mut self, to: Jid, payload: impl Into<Element>, asked: Asked) {
        self.out.set((self.now, self.group), to, payload.into(), asked);
    }
    pub(crate) fn jitter(&self) -> f64 {
        (self.out.jitter)()
    }
    /// Whether the JID belongs to a peer.
    pub(crate) fn is_peer(&self, jid: &BareJid) -> bool {
        self.peers.contains(jid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp_parsers::ping::Ping;

    fn asked(out: &mut Out, now: Instant) -> (Jid, String) {
        let to = Jid::new("conference.example.org").unwrap();
        out.get((now, GroupId(1)), to.clone(), Ping.into(), Asked::Room(RoomIq::SelfPing));
        let Some(Stanza::Iq(iq)) = out.stanzas.pop_back() else { panic!("no IQ") };
        (to, iq.id().to_owned())
    }

    #[test]
    fn an_answer_counts_only_from_whom_was_asked() {
        let mut out = Out::new(|| 0.5);
        let (to, id) = asked(&mut out, Instant::now());
        let other = Jid::new("mallory@example.org/x").unwrap();
        assert!(out.answered(Some(&other), &id).is_none());
        assert!(out.answered(None, &id).is_none());
        assert!(out.answered(Some(&to), &id).is_some());
        assert!(out.answered(Some(&to), &id).is_none(), "an answer counts once");
    }

    #[test]
    fn an_iq_without_an_answer_times_out() {
        let mut out = Out::new(|| 0.5);
        let now = Instant::now();
        let (to, id) = asked(&mut out, now);
        out.expire(now + IQ_TIMEOUT / 2);
        assert!(out.settled.is_empty());
        out.expire(now + IQ_TIMEOUT);
        assert!(matches!(out.settled.pop(), Some((GroupId(1), _, Err(IqFailure::Timeout)))));
        assert!(out.answered(Some(&to), &id).is_none());
        assert_eq!(out.deadline(), None);
    }

    #[test]
    fn a_lost_connection_settles_everything() {
        let mut out = Out::new(|| 0.5);
        let now = Instant::now();
        asked(&mut out, now);
        asked(&mut out, now);
        out.lost();
        assert_eq!(out.settled.len(), 2);
        assert_eq!(out.deadline(), None);
    }

    #[test]
    fn more_than_the_limit_is_refused_at_once() {
        let mut out = Out::new(|| 0.5);
        let now = Instant::now();
        for _ in 0..IQS_MAX {
            asked(&mut out, now);
        }
        let to = Jid::new("example.org").unwrap();
        out.get((now, GroupId(1)), to, Ping.into(), Asked::Publish("x".into()));
        assert!(matches!(out.settled.pop(), Some((_, _, Err(IqFailure::TooMany)))));
    }
}

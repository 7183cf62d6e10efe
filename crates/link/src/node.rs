//! The pubsub nodes of a group: the own one, on which this server publishes, and those of the peers.
//!
//! Off the critical path: a service that is missing or refuses is reported once, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use xmpp_parsers::disco::DiscoInfoQuery;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;
use xmpp_parsers::pubsub::pubsub::{Create, Item, Publish, Subscribe};
use xmpp_parsers::pubsub::{ItemId, NodeName, Owner, PubSub, event, owner};
use xmpp_parsers::stanza_error::DefinedCondition;

use crate::backoff::Backoff;
use crate::config::GroupConfig;
use crate::elements::{Member, MemberList, NodeMembers, form};
use crate::event::{Carrier, Event};
use crate::limits::{
    NODE_MAX, NODE_MIN, OUTSIDERS_EVERY, OUTSIDERS_RETRY, PAYLOAD_BYTES_MAX, PUBLISH_TIMEOUT,
    SUBSCRIBE_QUIET_ATTEMPTS, SUBSCRIPTIONS_MAX,
};
use crate::out::{Asked, Cx, IqFailure, IqResult, NodeIq};
use crate::problem::{Kind, Problem};
use crate::setup::features;

/// What is answered for a node or a service that is not there; `not-allowed` by a prosody that speaks with no other
/// server.
const GONE: [DefinedCondition; 5] = [
    DefinedCondition::ItemNotFound,
    DefinedCondition::NotAllowed,
    DefinedCondition::RemoteServerNotFound,
    DefinedCondition::RemoteServerTimeout,
    DefinedCondition::ServiceUnavailable,
];

/// See the module's documentation.
pub(crate) struct Nodes {
    service: BareJid,
    own: String,
    ready: bool,
    /// When to set the own node up again after a failure.
    retry: Option<Instant>,
    backoff: Backoff,
    next_count: Option<Instant>,
    subscriptions: BTreeMap<String, Sub>,
    up: bool,
}

/// A subscription to the node of a peer.
struct Sub {
    peer: BareJid,
    retry: Option<Instant>,
    backoff: Backoff,
}

impl Nodes {
    pub(crate) fn new(config: &GroupConfig) -> Self {
        Self {
            service: config.pubsub.clone(),
            own: config.node.clone(),
            ready: false,
            retry: None,
            backoff: Backoff::new(NODE_MIN, NODE_MAX),
            next_count: None,
            subscriptions: BTreeMap::new(),
            up: false,
        }
    }

    fn service(&self) -> Jid {
        self.service.clone().into()
    }

    fn name(&self) -> NodeName {
        NodeName(self.own.clone())
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let subscriptions = self.subscriptions.values().filter_map(|sub| sub.retry);
        subscriptions.chain(self.retry).chain(self.next_count).min()
    }

    /// The connection is there: sets the own node up and subscribes anew, since a subscription may have been
    /// lost with the state of the service.
    pub(crate) fn line_up(&mut self, cx: &mut Cx<'_>) {
        self.up = true;
        self.backoff.reset();
        cx.get(self.service(), DiscoInfoQuery { node: None }, Asked::Node(NodeIq::Service));
        let nodes: Vec<_> = self.subscriptions.keys().cloned().collect();
        for node in nodes {
            self.ask_subscribe(&node, cx);
        }
    }

    pub(crate) fn line_down(&mut self, cx: &mut Cx<'_>) {
        self.up = false;
        self.set_ready(false, cx);
        self.retry = None;
        self.next_count = None;
        for sub in self.subscriptions.values_mut() {
            sub.retry = None;
            sub.backoff.reset();
        }
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.next_count) {
            self.next_count = None;
            self.ask_subscribers(cx);
        }
        if due(self.retry) {
            self.retry = None;
            cx.get(self.service(), DiscoInfoQuery { node: None }, Asked::Node(NodeIq::Service));
        }
        let nodes: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, sub)| due(sub.retry))
            .map(|(node, _)| node.clone())
            .collect();
        for node in nodes {
            self.ask_subscribe(&node, cx);
        }
    }

    /// The list of peers changed.
    pub(crate) fn peers_changed(&mut self, cx: &mut Cx<'_>) {
        if self.ready {
            self.ask_affiliations(cx);
        }
    }

    fn ask_affiliations(&self, cx: &mut Cx<'_>) {
        let member = |jid: &BareJid| Member { jid: jid.clone(), affiliation: "member".to_owned() };
        let members = cx.peers.iter().map(member).collect();
        let list = NodeMembers { list: MemberList { node: self.own.clone(), members } };
        cx.set(self.service(), list, Asked::Node(NodeIq::Affiliations));
    }

    fn ask_configure(&self, strict: bool, cx: &mut Cx<'_>) {
        let size = PAYLOAD_BYTES_MAX.to_string();
        let mut fields = vec![
            ("pubsub#notification_type", "headline"),
            ("pubsub#send_last_published_item", "never"),
            ("pubsub#access_model", "whitelist"),
            ("pubsub#publish_model", "publishers"),
            ("pubsub#deliver_payloads", "1"),
            ("pubsub#deliver_notifications", "1"),
        ];
        if strict {
            fields.push(("pubsub#persist_items", "0"));
            fields.push(("pubsub#max_payload_size", &size));
        } else {
            // A service that has to persist may keep a few.
            fields.push(("pubsub#max_items", "10"));
        }
        let form = Some(form(ns::PUBSUB_CONFIGURE, &fields));
        let configure = Owner { payload: owner::Payload::Configure { node: Some(self.name()), form } };
        cx.set(self.service(), configure, Asked::Node(NodeIq::Configure { strict }));
    }

    fn ask_subscribers(&self, cx: &mut Cx<'_>) {
        let payload = owner::Payload::Subscriptions { node: self.name(), subscriptions: vec![] };
        cx.get(self.service(), Owner { payload }, Asked::Node(NodeIq::Subscribers));
    }

    fn ask_subscribe(&mut self, node: &str, cx: &mut Cx<'_>) {
        if let Some(sub) = self.subscriptions.get_mut(node) {
            sub.retry = None;
        }
        // The full JID: other resources of the account have no use for the traffic.
        let subscribe = Subscribe { jid: cx.own.clone().into(), node: Some(NodeName(node.to_owned())) };
        let request = PubSub::Subscribe { subscribe: Some(subscribe), options: None };
        cx.set(self.service(), request, Asked::Node(NodeIq::Subscribe(node.to_owned())));
    }

    /// Remembers the node of a peer and subscribes to it.
    pub(crate) fn subscribe(&mut self, peer: BareJid, node: String, cx: &mut Cx<'_>) {
        if self.subscriptions.get(&node).is_some_and(|sub| sub.peer == peer)
            || self.subscriptions.len() >= SUBSCRIPTIONS_MAX
        {
            return;
        }
        let sub = Sub { peer, retry: None, backoff: Backoff::new(NODE_MIN, NODE_MAX) };
        self.subscriptions.insert(node.clone(), sub);
        if self.up {
            self.ask_subscribe(&node, cx);
        }
    }

    /// Forgets the node of a peer. The service may go on sending; nothing of it is handed on.
    pub(crate) fn unsubscribe(&mut self, node: &str) {
        self.subscriptions.remove(node);
    }

    /// Publishes an item; the answer goes to the caller. An error when the node is not ready.
    pub(crate) fn publish(&mut self, id: String, payload: Element, cx: &mut Cx<'_>) {
        if !self.ready {
            let result = Err("the own node is not set up".to_owned());
            cx.outlet.send(Event::Published { id, result });
            return;
        }
        let item = Item { id: Some(ItemId(id.clone())), publisher: None, payload: Some(payload) };
        let publish = Publish { node: self.name(), items: vec![item] };
        let request = PubSub::Publish { publish, publish_options: None };
        cx.out.ask((cx.now, cx.group), self.service(), PUBLISH_TIMEOUT, Asked::Publish(id), |to, id| {
            Iq::Set { from: None, to, id, payload: request.into() }
        });
    }

    /// The answer to a publish. Where node or service are gone they are set up anew, so that the owner of the group
    /// sees meanwhile that nobody is reached this way.
    pub(crate) fn handle_published(&mut self, id: String, result: IqResult, cx: &mut Cx<'_>) {
        let gone = |failure| GONE.iter().any(|condition| is(failure, condition));
        if self.ready && result.as_ref().is_err_and(gone) {
            self.set_ready(false, cx);
            self.retry = Some(cx.now + self.backoff.next(cx.jitter()));
        }
        let result = result.map(|_| ()).map_err(|failure| failure.to_string());
        cx.outlet.send(Event::Published { id, result });
    }

    /// An answer to an IQ of the nodes.
    pub(crate) fn handle_iq(&mut self, what: NodeIq, result: IqResult, cx: &mut Cx<'_>) {
        if !self.up {
            return;
        }
        match what {
            NodeIq::Service => self.handle_service(result, cx),
            NodeIq::Create => match result {
                Err(failure) if !is(&failure, &DefinedCondition::Conflict) => self.failed(&failure, cx),
                // A conflict: the node is there, from an earlier connection.
                _ => self.ask_configure(true, cx),
            },
            NodeIq::Configure { strict } => match result {
                Ok(_) if cx.peers.is_empty() => self.set_up(cx),
                Ok(_) => self.ask_affiliations(cx),
                Err(IqFailure::Refused(_)) if strict => self.ask_configure(false, cx),
                Err(failure) => self.failed(&failure, cx),
            },
            NodeIq::Affiliations => match result {
                Ok(_) => self.set_up(cx),
                Err(failure) => self.failed(&failure, cx),
            },
            NodeIq::Subscribers => {
                let counted = matches!(result, Ok(Some(_)));
                // Nobody outside gets anything before they are counted.
                self.next_count = Some(cx.now + if counted { OUTSIDERS_EVERY } else { OUTSIDERS_RETRY });
                if let Ok(Some(payload)) = result {
                    count_outsiders(&payload, cx);
                }
            }
            NodeIq::Subscribe(node) => self.handle_subscribed(&node, result, cx),
        }
    }

    fn set_up(&mut self, cx: &mut Cx<'_>) {
        self.set_ready(true, cx);
        tracing::debug!(node = self.own, "the own node is set up");
        cx.outlet.solved(&Kind::Node);
        self.ask_subscribers(cx);
    }

    fn set_ready(&mut self, ready: bool, cx: &mut Cx<'_>) {
        self.ready = ready;
        cx.outlet.shared().set_node_ready(ready);
    }

    fn handle_service(&mut self, result: IqResult, cx: &mut Cx<'_>) {
        match features(result) {
            Ok(features) if features.contains(ns::PUBSUB) => {
                cx.outlet.solved(&Kind::Pubsub);
                let create = PubSub::Create { create: Create { node: Some(self.name()) }, configure: None };
                cx.set(self.service(), create, Asked::Node(NodeIq::Create));
            }
            other => {
                let reason = other.err().unwrap_or_else(|| "what is there is no pubsub service".to_owned());
                let service = self.service.to_string();
                // It is asked often; another reason for the same is no news.
                if !cx.outlet.is_open(&Kind::Pubsub) {
                    cx.outlet.problem(Problem::NoPubsubService { service, reason });
                }
                self.retry = Some(cx.now + self.backoff.next(cx.jitter()));
            }
        }
    }

    fn failed(&mut self, failure: &IqFailure, cx: &mut Cx<'_>) {
        let problem = Problem::NodeRefused { node: self.own.clone(), reason: failure.to_string() };
        cx.outlet.problem(problem);
        self.retry = Some(cx.now + self.backoff.next(cx.jitter()));
    }

    fn handle_subscribed(&mut self, node: &str, result: IqResult, cx: &mut Cx<'_>) {
        let Some(sub) = self.subscriptions.get_mut(node) else { return };
        let failure = match result {
            Ok(_) => {
                sub.backoff.reset();
                tracing::debug!(%node, "subscribed");
                cx.outlet.solved(&Kind::Subscription(node.to_owned()));
                return;
            }
            Err(failure) => failure,
        };
        // The peer may create its node, or list us, a moment later.
        sub.retry = Some(cx.now + sub.backoff.next(cx.jitter()));
        // That the service is missing is said already, and no peer can help it.
        let quiet = is(&failure, &DefinedCondition::ItemNotFound)
            || sub.backoff.attempts() < SUBSCRIBE_QUIET_ATTEMPTS
            || cx.outlet.is_open(&Kind::Pubsub);
        if !quiet {
            let (peer, node) = (sub.peer.clone(), node.to_owned());
            cx.outlet.problem(Problem::SubscriptionRefused { peer, node, reason: failure.to_string() });
        }
    }

    /// An event of the service about one of its nodes; what is not subscribed to is left out.
    pub(crate) fn handle_event(&mut self, payload: event::Payload, cx: &mut Cx<'_>) {
        let node = payload.node_name().0.clone();
        let Some(sub) = self.subscriptions.get_mut(&node) else { return };
        match payload {
            event::Payload::Items { published, .. } => {
                for item in published {
                    // Where the service names the publisher, it is the service's word and not the sender's.
                    let forged = item.publisher.is_some_and(|publisher| publisher.to_bare() != sub.peer);
                    match item.payload {
                        Some(payload) if !forged && crate::elements::is_payload(&payload) => cx
                            .outlet
                            .send(Event::Live { from: sub.peer.clone(), payload, carrier: Carrier::Node }),
                        _ => tracing::debug!(%node, forged, "item left out"),
                    }
                }
            }
            event::Payload::Delete { .. } => {
                sub.retry = Some(cx.now + sub.backoff.next(cx.jitter()));
            }
            _ => {}
        }
    }
}

fn is(failure: &IqFailure, condition: &DefinedCondition) -> bool {
    matches!(failure, IqFailure::Refused(error) if error.defined_condition == *condition)
}

/// Subscribers of the own node that are no peers. Read from the element itself, because prosody leaves the name of the
/// node out where the type for it wants one.
fn count_outsiders(payload: &Element, cx: &mut Cx<'_>) {
    let Some(list) = payload.get_child("subscriptions", ns::PUBSUB_OWNER) else { return };
    let outsiders: BTreeSet<_> = list
        .children()
        .filter(|child| child.attr("subscription") == Some("subscribed"))
        .filter_map(|child| Some(Jid::new(child.attr("jid")?).ok()?.to_bare()))
        .filter(|jid| !cx.is_peer(jid) && *jid != cx.own.to_bare())
        .collect();
    cx.outlet.shared().set_outsiders(outsiders.len());
}

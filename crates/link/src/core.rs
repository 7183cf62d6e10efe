//! The state of a session: which groups there are, and what goes to whom.
//!
//! Without IO and without a clock: inputs are `handle_*`, outputs are the stanzas in [`Core::out`] and the
//! events of the groups; [`Core::deadline`] says when `handle_timeout` has to be called. The order of calls:
//! `handle_up`, then stanzas, then `handle_down`; commands and timeouts at any time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::message::{Message, MessageType};
use xmpp_parsers::ns;
use xmpp_parsers::presence::Presence;
use xmpp_parsers::pubsub;
use xmpp_parsers::stanza::Stanza;

use crate::command::{Attach, Command, GroupId, ToGroup};
use crate::elements::error_words;
use crate::event::Event;
use crate::group::{AttachError, RequestError};
use crate::limits::STANZA_BYTES_MAX;
use crate::node::Nodes;
use crate::out::{Asked, Cx, IqFailure, IqResult, Out};
use crate::outlet::Outlet;
use crate::problem::{Kind, Problem};
use crate::requests;
use crate::room::Room;
use crate::stored::{self, Storage};
use crate::transfer::{self, Transfers};

/// One group of the session.
pub(crate) struct GroupState {
    pub(crate) peers: BTreeSet<BareJid>,
    pub(crate) pubsub: BareJid,
    pub(crate) room: Room,
    pub(crate) nodes: Nodes,
    pub(crate) outlet: Outlet,
}

/// See the module's documentation.
pub(crate) struct Core {
    pub(crate) own: FullJid,
    pub(crate) up: bool,
    pub(crate) out: Out,
    pub(crate) groups: BTreeMap<GroupId, GroupState>,
    pub(crate) rooms: HashMap<BareJid, GroupId>,
    pub(crate) commands: mpsc::WeakSender<Command>,
    pub(crate) storage: Storage,
    pub(crate) transfers: Transfers,
    last_group: u64,
    /// What is wrong with the line, and with its limits, for groups that are attached later.
    line_problem: Option<Problem>,
    limit_problem: Option<Problem>,
}

impl Core {
    pub(crate) fn new(own: FullJid, commands: mpsc::WeakSender<Command>, jitter: fn() -> f64) -> Self {
        Self {
            own,
            up: false,
            out: Out::new(jitter),
            groups: BTreeMap::new(),
            rooms: HashMap::new(),
            commands,
            storage: Storage::new(),
            transfers: Transfers::default(),
            last_group: 0,
            line_problem: None,
            limit_problem: None,
        }
    }

    /// Calls `f` with one group and its surroundings.
    pub(crate) fn with<R>(
        &mut self,
        id: GroupId,
        now: Instant,
        f: impl FnOnce(&mut Room, &mut Nodes, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        let GroupState { peers, room, nodes, outlet, .. } = self.groups.get_mut(&id)?;
        let mut cx = Cx { now, group: id, own: &self.own, peers, out: &mut self.out, outlet };
        Some(f(room, nodes, &mut cx))
    }

    pub(crate) fn for_all(&mut self, now: Instant, mut f: impl FnMut(&mut Room, &mut Nodes, &mut Cx<'_>)) {
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            self.with(id, now, &mut f);
        }
    }

    /// The line is up, bound to `own`.
    pub(crate) fn handle_up(&mut self, own: FullJid, now: Instant) {
        self.own = own;
        self.up = true;
        self.line_problem = None;
        stored::line_up(self, now);
        self.for_all(now, |room, nodes, cx| {
            cx.outlet.solved(&Kind::Line);
            cx.outlet.shared().set_connected(true);
            room.line_up(cx);
            nodes.line_up(cx);
        });
        self.settle(now);
    }

    /// The largest stanza that the server takes, if it said so: too small a limit is better told of before it ends the
    /// connection.
    pub(crate) fn handle_stanza_max(&mut self, bytes: Option<u32>, now: Instant) {
        let too_small = bytes.filter(|bytes| (*bytes as usize) < STANZA_BYTES_MAX);
        self.limit_problem = too_small.map(|bytes| Problem::StanzaLimit {
            domain: self.own.domain().as_str().to_owned(),
            reason: format!("it takes {bytes} bytes"),
        });
        if let Some(problem) = self.limit_problem.clone() {
            self.lasting_problem(problem, now);
        }
    }

    /// The server takes no more than so many bytes per second.
    pub(crate) fn handle_slow(&mut self, bytes_per_second: u64, now: Instant) {
        let domain = self.own.domain().as_str().to_owned();
        self.lasting_problem(Problem::Throttled { domain, bytes_per_second }, now);
    }

    /// Something that stays as it is until an admin changes it; told once, whatever the figures are later.
    fn lasting_problem(&mut self, problem: Problem, now: Instant) {
        self.for_all(now, |_, _, cx| {
            if !cx.outlet.is_open(&problem.kind()) {
                cx.outlet.problem(problem.clone());
            }
        });
    }

    /// The line is down; nothing in flight counts any more.
    pub(crate) fn handle_down(&mut self, problem: Problem, now: Instant) {
        self.up = false;
        let reason = problem.to_string();
        stored::line_down(self, now);
        self.out.lost();
        self.transfers.lost();
        self.settle(now);
        self.for_all(now, |room, nodes, cx| {
            room.line_down(&reason, cx);
            nodes.line_down(cx);
            cx.outlet.shared().set_connected(false);
            // A server that refuses a stanza may reset the connection before its reason is read: that was told.
            let is_told =
                matches!(problem, Problem::ConnectionLost { .. }) && cx.outlet.is_open(&Kind::StanzaLimit);
            if !is_told {
                cx.outlet.problem(problem.clone());
            }
        });
        // What the state machines wrote as a last word has nowhere to go.
        self.out.stanzas.clear();
        self.line_problem = Some(problem);
    }

    /// When [`Self::handle_timeout`] has to be called next.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let of_group = |group: &mut GroupState| {
            let lost = group.outlet.retry_at(now);
            [group.room.deadline(), group.nodes.deadline(), lost].into_iter().flatten().min()
        };
        self.groups
            .values_mut()
            .filter_map(of_group)
            .chain(self.out.deadline())
            .chain(self.storage.deadline())
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.out.expire(now);
        self.storage.expire(now);
        self.settle(now);
        let closed: Vec<_> =
            self.groups.iter().filter(|(_, group)| group.outlet.is_closed()).map(|(id, _)| *id).collect();
        for id in closed {
            self.detach(id, now);
        }
        self.for_all(now, |room, nodes, cx| {
            room.handle_timeout(cx);
            nodes.handle_timeout(cx);
            cx.outlet.ready();
            if cx.outlet.has_lost() {
                cx.outlet.recover(|| room.snapshot());
            }
        });
        self.settle(now);
    }

    /// Hands on answers that were known without asking.
    fn settle(&mut self, now: Instant) {
        while !self.out.settled.is_empty() {
            for (group, asked, result) in std::mem::take(&mut self.out.settled) {
                self.answer(group, asked, result, now);
            }
        }
    }

    fn answer(&mut self, group: GroupId, asked: Asked, result: IqResult, now: Instant) {
        match asked {
            Asked::Caller(answer) => {
                let result = match result {
                    Ok(Some(payload)) => Ok(payload),
                    Ok(None) => Err(RequestError::Empty),
                    Err(IqFailure::Refused(error)) => Err(RequestError::Refused {
                        condition: error.defined_condition.clone(),
                        reason: error_words(&error),
                    }),
                    Err(IqFailure::Timeout) => Err(RequestError::Timeout),
                    Err(IqFailure::Lost) => Err(RequestError::Offline),
                    Err(IqFailure::TooMany) => Err(RequestError::Full),
                };
                // The asker may have gone away.
                let _: Result<(), _> = answer.send(result);
            }
            Asked::Publish(id) => {
                self.with(group, now, |_, nodes, cx| nodes.handle_published(id, result, cx));
            }
            Asked::Transfer(answer) => {
                // The transfer may have ended.
                let _: Result<(), _> = answer.send(result);
            }
            // The state machines begin anew with the next connection; that this one is lost is no news about
            // rooms and services.
            Asked::Room(_) | Asked::Node(_) if matches!(result, Err(IqFailure::Lost)) => {}
            Asked::Server => stored::server_told(self, result, now),
            Asked::Room(what) => {
                self.with(group, now, |room, _, cx| room.handle_iq(what, result, cx));
            }
            Asked::Node(what) => {
                self.with(group, now, |_, nodes, cx| nodes.handle_iq(what, result, cx));
            }
        }
    }

    pub(crate) fn handle_stanza(&mut self, stanza: Stanza, now: Instant) {
        match stanza {
            Stanza::Message(message) => self.handle_message(message, now),
            Stanza::Presence(presence) => self.handle_presence(presence, now),
            Stanza::Iq(iq) => self.handle_iq(iq, now),
        }
        self.settle(now);
    }

    fn handle_presence(&mut self, presence: Presence, now: Instant) {
        let Some(from) = presence.from.clone() else { return };
        if let Some(id) = self.rooms.get(&from.to_bare()).copied() {
            self.with(id, now, |room, _, cx| room.handle_presence(&from, presence, cx));
        }
    }

    fn handle_message(&mut self, message: Message, now: Instant) {
        let Some(from) = message.from.clone() else { return };
        let bare = from.to_bare();
        if let Some(id) = self.rooms.get(&bare).copied() {
            self.with(id, now, |room, _, cx| room.handle_message(&from, message, cx));
            return;
        }
        let Some(message) = stored::receive(self, &from, message, now) else { return };
        if from.is_bare() && message.type_ != MessageType::Error {
            let groups: Vec<_> =
                self.groups.iter().filter(|(_, group)| group.pubsub == bare).map(|(id, _)| *id).collect();
            for payload in
                message.payloads.into_iter().filter(|payload| payload.is("event", ns::PUBSUB_EVENT))
            {
                let Ok(event) = pubsub::Event::try_from(payload) else { continue };
                for id in &groups {
                    let payload = event.payload.clone();
                    self.with(*id, now, |_, nodes, cx| nodes.handle_event(payload, cx));
                }
            }
        }
    }

    fn handle_iq(&mut self, iq: Iq, now: Instant) {
        let (from, id, result) = match iq {
            Iq::Result { from, id, payload, .. } => (from, id, Ok(payload)),
            Iq::Error { from, id, error, .. } => (from, id, Err(IqFailure::Refused(Box::new(error)))),
            Iq::Get { from, id, payload, .. } | Iq::Set { from, id, payload, .. } => {
                requests::handle(self, from, id, payload, now);
                return;
            }
        };
        if let Some((group, asked)) = self.out.answered(from.as_ref(), &id) {
            self.answer(group, asked, result, now);
        }
    }

    /// A stanza that cannot be written as XML.
    pub(crate) fn handle_unsendable(&mut self, stanza: &Stanza, now: Instant) {
        match stanza {
            Stanza::Iq(iq) => {
                if let Some((group, asked)) = self.out.answered(iq.to(), iq.id()) {
                    self.answer(group, asked, Err(IqFailure::TooMany), now);
                }
            }
            Stanza::Message(Message { to: Some(to), id: Some(id), .. }) => {
                let reason = "it is no XML";
                if let Some(group) = self.rooms.get(&to.to_bare()).copied() {
                    let event = Event::Refused { id: id.0.clone(), reason: reason.to_owned() };
                    self.with(group, now, |_, _, cx| cx.outlet.send(event));
                } else {
                    stored::failed(self, to.to_bare(), &id.0, reason, now);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Attach(attach) => self.attach(*attach, now),
            Command::Group(id, ToGroup::Detach) => self.detach(id, now),
            Command::Group(group, ToGroup::SendStored { id, to, payload }) => {
                stored::send(self, group, id, to, payload, now);
            }
            Command::Group(id, command) => self.command(id, command, now),
            Command::Answer { to, id, result } => {
                if self.up {
                    self.out.stanzas.push_back(requests::answer(to, id, result).into());
                }
            }
            Command::Ask(group, ask) => transfer::ask(self, group, *ask, now),
            // The session task's own business.
            Command::Close { .. } => {}
        }
        self.settle(now);
    }

    fn attach(&mut self, attach: Attach, now: Instant) {
        let Attach { config, card, events, shared, done } = attach;
        if self.rooms.contains_key(&config.room) {
            let _: Result<(), _> = done.send(Err(AttachError::RoomTaken { room: config.room }));
            return;
        }
        self.last_group += 1;
        let id = GroupId(self.last_group);
        let group = GroupState {
            peers: config.peers.iter().cloned().collect(),
            pubsub: config.pubsub.clone(),
            room: Room::new(&config, card),
            nodes: Nodes::new(&config),
            outlet: Outlet::new(events, Arc::clone(&shared)),
        };
        self.groups.insert(id, group);
        self.rooms.insert(config.room.clone(), id);
        if done.send(Ok(id)).is_err() {
            self.detach(id, now);
            return;
        }
        stored::attached(self, id, &config.room, now);
        let (up, problems) = (self.up, [self.line_problem.clone(), self.limit_problem.clone()]);
        self.with(id, now, |room, nodes, cx| {
            cx.outlet.shared().set_connected(up);
            problems.into_iter().flatten().for_each(|problem| cx.outlet.problem(problem));
            if up {
                room.line_up(cx);
                nodes.line_up(cx);
            }
        });
    }

    pub(crate) fn detach(&mut self, id: GroupId, now: Instant) {
        let up = self.up;
        let room = self.with(id, now, |room, _, cx| {
            if up {
                room.leave(cx);
            }
            room.jid.clone()
        });
        self.out.forget(id);
        transfer::end(self, Some(id), now);
        self.groups.remove(&id);
        if let Some(room) = room {
            self.rooms.remove(&room);
        }
        if self.groups.is_empty() {
            stored::disappear(self);
        }
    }

    fn command(&mut self, id: GroupId, command: ToGroup, now: Instant) {
        let up = self.up;
        if let ToGroup::SetPeers(peers) = command {
            if let Some(group) = self.groups.get_mut(&id) {
                group.peers = peers.into_iter().collect();
            }
            self.with(id, now, |room, nodes, cx| {
                if room.is_joined() {
                    room.setup.check(cx);
                }
                nodes.peers_changed(cx);
            });
            return;
        }
        if let ToGroup::OfferFile(offer) = command {
            transfer::offer(self, id, *offer);
            return;
        }
        self.with(id, now, |room, nodes, cx| match command {
            ToGroup::SendRoom { id, payload } => {
                // Not seated: `Offline` is on its way to the caller, who sends again after `Online`.
                room.send(Some(id), None, Some(payload), cx);
            }
            ToGroup::Say { body, payload } => {
                room.send(None, Some(body), payload, cx);
            }
            ToGroup::Publish { id, payload } => nodes.publish(id, payload, cx),
            ToGroup::SetCard(card) => room.set_card(card, cx),
            ToGroup::Subscribe { peer, node } => nodes.subscribe(peer, node, cx),
            ToGroup::Unsubscribe { node } => nodes.unsubscribe(&node),
            ToGroup::Request { to, mut payload, timeout, answer } => {
                if !up {
                    let _: Result<(), _> = answer.send(Err(RequestError::Offline));
                    return;
                }
                requests::tag(&mut payload, &room.jid);
                let asked = Asked::Caller(answer);
                cx.out.ask((cx.now, cx.group), Jid::from(to), timeout, asked, |to, id| Iq::Get {
                    from: None,
                    to,
                    id,
                    payload,
                });
            }
            ToGroup::SetPeers(_) | ToGroup::SendStored { .. } | ToGroup::OfferFile(_) | ToGroup::Detach => {}
        });
    }

    /// Leaves all rooms, for a clean end.
    pub(crate) fn leave_all(&mut self, now: Instant) {
        if self.up {
            transfer::end(self, None, now);
            self.for_all(now, |room, _, cx| room.leave(cx));
            stored::disappear(self);
        }
    }
}

//! The own seat in the room: joining, configuring a new room, who else is there, messages.
//!
//! A state machine without IO: inputs are `handle_*` and the deadlines, outputs go to [`Cx`].

use std::time::Instant;

use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::message::{Id, Lang, Message};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::muc::Muc;
use xmpp_parsers::muc::muc::History;
use xmpp_parsers::ping::Ping;
use xmpp_parsers::presence::Presence;
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::{DefinedCondition, StanzaError};

use crate::backoff::Backoff;
use crate::config::GroupConfig;
use crate::elements::NoStore;
use crate::event::Event;
use crate::limits::{JOIN_MAX, JOIN_MIN, JOIN_QUIET_ATTEMPTS, JOIN_STABLE, JOIN_TIMEOUT, SELF_PING_EVERY};
use crate::occupants::Occupants;
use crate::out::{Asked, Cx, IqFailure, IqResult, RoomIq};
use crate::problem::{Kind, Problem};
use crate::setup::Setup;
use crate::strangers::Strangers;

mod presence;

/// See the module's documentation.
pub(crate) struct Room {
    pub(crate) jid: BareJid,
    nick: String,
    card: Element,
    /// Whether the card changed after the presence that joins was sent.
    card_stale: bool,
    state: State,
    pub(crate) occupants: Occupants,
    backoff: Backoff,
    /// Joins in a row that showed somebody's JID hidden.
    hidden: u32,
    pub(crate) setup: Setup,
    pub(crate) strangers: Strangers,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// No connection.
    Off,
    /// Joins at that time.
    Waiting { until: Instant },
    /// Presence is sent.
    Joining { until: Instant },
    /// We created the room and configure it; the others cannot rely on it yet.
    Configuring { since: Instant },
    /// Seated.
    Joined { since: Instant, next_ping: Instant },
}

impl Room {
    pub(crate) fn new(config: &GroupConfig, card: Element) -> Self {
        Self {
            jid: config.room.clone(),
            nick: config.nick.clone(),
            card,
            card_stale: false,
            state: State::Off,
            occupants: Occupants::default(),
            backoff: Backoff::new(JOIN_MIN, JOIN_MAX),
            hidden: 0,
            setup: Setup::new(config.room.clone(), config.room_title.clone()),
            strangers: Strangers::default(),
        }
    }

    /// Whether payloads can be sent.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.state, State::Joined { .. })
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Off | State::Configuring { .. } => None,
            State::Waiting { until } | State::Joining { until } => Some(until),
            State::Joined { next_ping, .. } => Some(next_ping),
        }
    }

    /// The connection is there.
    pub(crate) fn line_up(&mut self, cx: &mut Cx<'_>) {
        self.setup.ask_service(cx);
        self.join(cx);
    }

    /// The connection is lost, and the seat with it.
    pub(crate) fn line_down(&mut self, reason: &str, cx: &mut Cx<'_>) {
        self.unseat(reason, cx);
        self.state = State::Off;
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        if self.deadline().is_none_or(|deadline| deadline > cx.now) {
            return;
        }
        match &mut self.state {
            State::Waiting { .. } => self.join(cx),
            State::Joining { .. } => {
                self.send_leave(cx);
                self.refused(None, "no answer", cx);
            }
            State::Joined { next_ping, .. } => {
                *next_ping = cx.now + SELF_PING_EVERY;
                if let Some(seat) = self.seat(&self.nick) {
                    cx.get(seat, Ping, Asked::Room(RoomIq::SelfPing));
                }
            }
            State::Off | State::Configuring { .. } => {}
        }
    }

    fn seat(&self, nick: &str) -> Option<Jid> {
        self.jid.with_resource_str(nick).ok().map(Jid::from)
    }

    fn join(&mut self, cx: &mut Cx<'_>) {
        let Some(seat) = self.seat(&self.nick) else {
            self.refused(None, "the nick cannot be part of a JID", cx);
            return;
        };
        self.occupants.clear();
        self.card_stale = false;
        let muc = Muc::new().with_history(History::new().with_maxstanzas(0));
        let mut presence = Presence::available().with_to(seat).with_payload(muc);
        presence.payloads.push(self.card.clone());
        cx.out.stanzas.push_back(presence.into());
        self.state = State::Joining { until: cx.now + JOIN_TIMEOUT };
    }

    /// Gives the seat up for good.
    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.state, State::Off | State::Waiting { .. }) {
            self.send_leave(cx);
        }
        cx.outlet.shared().set_joined(false);
        self.state = State::Off;
    }

    fn send_leave(&self, cx: &mut Cx<'_>) {
        if let Some(seat) = self.seat(&self.nick) {
            cx.out.stanzas.push_back(Presence::unavailable().with_to(seat).into());
        }
    }

    /// Tells of the lost seat, if there was one.
    fn unseat(&mut self, reason: &str, cx: &mut Cx<'_>) {
        if let State::Joined { since, .. } | State::Configuring { since } = self.state {
            self.backoff.lived(cx.now.saturating_duration_since(since), JOIN_STABLE);
        }
        if self.is_joined() {
            cx.outlet.shared().set_joined(false);
            cx.outlet.send(Event::Offline { reason: reason.to_owned() });
        }
        self.occupants.clear();
    }

    /// The seat was taken away, or is worthless: try again after a while. Who calls reports why.
    fn lose_seat(&mut self, reason: &str, cx: &mut Cx<'_>) {
        self.unseat(reason, cx);
        let wait = self.backoff.next(cx.jitter());
        self.state = State::Waiting { until: cx.now + wait };
    }

    /// The room did not let us in: report what does not pass by itself, try again.
    fn refused(&mut self, error: Option<&StanzaError>, reason: &str, cx: &mut Cx<'_>) {
        let wait = self.backoff.next(cx.jitter());
        self.state = State::Waiting { until: cx.now + wait };
        let quiet = self.backoff.attempts() < JOIN_QUIET_ATTEMPTS;
        // Said already by `Setup`; asked anew, since the service may have come.
        let no_service = cx.outlet.is_open(&Kind::Muc);
        if no_service {
            self.setup.ask_service(cx);
        }
        let (room, reason) = (self.jid.clone(), reason.to_owned());
        let problem = match error.map(|error| &error.defined_condition) {
            // Of a service that is not there, by a prosody that speaks with no other server.
            Some(DefinedCondition::NotAllowed) if no_service => return,
            Some(
                DefinedCondition::RegistrationRequired
                | DefinedCondition::Forbidden
                | DefinedCondition::NotAllowed
                | DefinedCondition::NotAuthorized,
            ) => Problem::RoomRefusesEntry { room, reason },
            Some(DefinedCondition::ResourceConstraint) => Problem::RoomFull { room, reason },
            // The ghost of an earlier connection gives the nick up after a while.
            Some(DefinedCondition::Conflict) if quiet => return,
            Some(DefinedCondition::Conflict) => Problem::NickTaken { room, nick: self.nick.clone() },
            // A room is locked while its creator configures it.
            Some(
                DefinedCondition::ItemNotFound
                | DefinedCondition::RemoteServerNotFound
                | DefinedCondition::ServiceUnavailable,
            ) if quiet || no_service => return,
            _ => Problem::RoomUnavailable { room, reason },
        };
        cx.outlet.problem(problem);
    }

    /// Somebody's JID is hidden, so that nothing of it could be attributed. Passes when the creator of the
    /// room is just configuring it; the JIDs are told only to who joins anew.
    fn hidden(&mut self, cx: &mut Cx<'_>) {
        let seated = self.is_joined();
        self.send_leave(cx);
        self.lose_seat("the room hides the JIDs of its occupants", cx);
        // Attempts that failed for another reason do not count, such as a service that was missing.
        self.hidden += 1;
        if seated || self.hidden >= JOIN_QUIET_ATTEMPTS {
            cx.outlet.problem(Problem::RoomTooOpen { room: self.jid.clone(), lacks: "non-anonymous".into() });
        }
    }

    fn seated(&mut self, cx: &mut Cx<'_>) {
        self.hidden = 0;
        self.state = State::Joined { since: cx.now, next_ping: cx.now + SELF_PING_EVERY };
        cx.outlet.solved(&Kind::Muc);
        cx.outlet.solved(&Kind::Entry);
        cx.outlet.solved(&Kind::Messages);
        cx.outlet.shared().set_joined(true);
        for event in self.snapshot() {
            cx.outlet.send(event);
        }
        if self.card_stale {
            self.send_card(cx);
        }
        self.setup.check(cx);
    }

    /// The state as events: `Online` and the cards, or `Offline`.
    pub(crate) fn snapshot(&self) -> Vec<Event> {
        if !self.is_joined() {
            return vec![Event::Offline { reason: "not in the room".to_owned() }];
        }
        let cards = self.occupants.iter().filter_map(|(nick, occupant)| {
            let (jid, payload) = (occupant.jid.clone()?, occupant.card.clone()?);
            Some(Event::Card { nick: nick.clone(), jid, payload })
        });
        std::iter::once(Event::Online).chain(cards).collect()
    }

    /// An answer to an IQ of the room.
    pub(crate) fn handle_iq(&mut self, what: RoomIq, result: IqResult, cx: &mut Cx<'_>) {
        if what == RoomIq::SelfPing {
            // XEP-0410: only this condition says that we are out.
            if let Err(IqFailure::Refused(error)) = &result
                && error.defined_condition == DefinedCondition::NotAcceptable
                && self.is_joined()
            {
                self.not_seated("the room does not know this server any more", cx);
            }
            return;
        }
        let configuring = matches!(self.state, State::Configuring { .. });
        if !configuring && !self.is_joined() && what != RoomIq::Service {
            return;
        }
        if self.setup.handle_iq(what, result, configuring, cx) && configuring {
            self.seated(cx);
        }
    }

    /// Remembers the card and shows it.
    pub(crate) fn set_card(&mut self, card: Element, cx: &mut Cx<'_>) {
        self.card = card;
        match self.state {
            State::Joined { .. } => self.send_card(cx),
            _ => self.card_stale = true,
        }
    }

    fn send_card(&mut self, cx: &mut Cx<'_>) {
        self.card_stale = false;
        if let Some(seat) = self.seat(&self.nick) {
            let mut presence = Presence::available().with_to(seat);
            presence.payloads.push(self.card.clone());
            cx.out.stanzas.push_back(presence.into());
        }
    }

    /// Sends to all occupants; `false` when we are not seated.
    pub(crate) fn send(
        &mut self,
        id: Option<String>,
        body: Option<String>,
        payload: Option<Element>,
        cx: &mut Cx<'_>,
    ) -> bool {
        if !self.is_joined() {
            return false;
        }
        let mut message = Message::groupchat(Jid::from(self.jid.clone()));
        message.id = id.map(Id);
        message.payloads.extend(payload);
        match body {
            Some(body) => message = message.with_body(Lang::new(), body),
            None => message.payloads.push(NoStore.into()),
        }
        cx.out.stanzas.push_back(Stanza::Message(message));
        true
    }

    pub(crate) fn own_nick(&self) -> &str {
        &self.nick
    }

    /// The real JID of an occupant.
    pub(crate) fn jid_of(&self, nick: &str) -> Option<&FullJid> {
        self.occupants.get(nick)?.jid.as_ref()
    }

    /// The room said that we are no occupant.
    pub(crate) fn not_seated(&mut self, reason: &str, cx: &mut Cx<'_>) {
        if self.is_joined() {
            let problem = Problem::SeatLost { room: self.jid.clone(), reason: reason.to_owned() };
            cx.outlet.problem(problem);
            self.lose_seat(reason, cx);
        }
    }
}

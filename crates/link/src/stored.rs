//! Messages to one peer, which its server keeps while it is away (XEP-0160).
//!
//! A payload names the group it is for, as that of a request does (see [`requests`]). The id of a message
//! names run and group of the sender, so that an error comes back to who sent it, and one about a message of
//! an earlier run, which may take minutes between servers, to nobody.
//!
//! # Which resource gets them
//! All our resources have the priority 0, thus are equal to the server. What comes while some of them are
//! there is delivered to each of them (RFC 6121, 8.5.2.1.1, "all of the most available"), and each session takes what is
//! for its groups. What was *stored* is delivered once, to the resource that sends presence first. With one
//! account under several resources (databases of one process with a resource each, or several processes)
//! that may be one whose session has no such group; the message is then lost, and the peer's changes have to
//! be pulled. One account for each server, and one resource for all of its databases, avoids that. So does
//! no other client on the account: with a higher priority it would get everything.

use std::time::Instant;

use xmpp_parsers::disco::DiscoInfoQuery;
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::message::{Id, Message, MessageType};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;
use xmpp_parsers::presence::Presence;
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::StanzaError;

use crate::command::GroupId;
use crate::core::Core;
use crate::elements::{Store, error_words, fit_for_wire, is_payload};
use crate::event::Event;
use crate::held::{Held, Stored};
use crate::out::{Asked, IqResult};
use crate::problem::{Kind, Problem};
use crate::requests;
use crate::setup::features;

/// XEP-0160: the feature of a server that keeps messages.
const FEATURE: &str = "msgoffline";

/// Who asks what no group asks for itself.
const SESSION: GroupId = GroupId(0);

/// What a session knows about stored messages.
pub(crate) struct Storage {
    /// Part of the ids of our messages; another in every run.
    run: u32,
    /// Whether presence is sent.
    present: bool,
    held: Held,
    /// That the server keeps nothing, for groups that are attached later.
    problem: Option<Problem>,
}

impl Storage {
    pub(crate) fn new() -> Self {
        Self { run: rand::random(), present: false, held: Held::default(), problem: None }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.held.deadline()
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.held.expire(now);
    }

    fn id(&self, group: GroupId, id: &str) -> Id {
        Id(format!("{:08x}.{}.{id}", self.run, group.0))
    }

    /// Group and id of the caller, if it is the id of a message of this run.
    fn own_id(&self, id: &str) -> Option<(GroupId, String)> {
        let (run, rest) = id.split_once('.')?;
        let (group, id) = rest.split_once('.')?;
        let own = u32::from_str_radix(run, 16) == Ok(self.run);
        own.then_some((GroupId(group.parse().ok()?), id.to_owned()))
    }
}

/// The line is up.
pub(crate) fn line_up(core: &mut Core, now: Instant) {
    core.storage.present = false;
    core.storage.problem = None;
    let server = Jid::from(BareJid::from_parts(None, core.own.domain()));
    core.out.get((now, SESSION), server, DiscoInfoQuery { node: None }.into(), Asked::Server);
    appear(core);
}

/// Sends presence once there is a group. Without presence the server delivers nothing to the bare JID
/// (RFC 6121); with it, it hands out what it stored and forgets it.
pub(crate) fn appear(core: &mut Core) {
    if core.up && !core.storage.present && !core.groups.is_empty() {
        core.storage.present = true;
        core.out.stanzas.push_back(Presence::available().into());
    }
}

/// Takes the presence back: from now on the server stores.
pub(crate) fn disappear(core: &mut Core) {
    if core.up && core.storage.present {
        core.storage.present = false;
        core.out.stanzas.push_back(Presence::unavailable().into());
    }
}

/// The line is down: tells of the messages that were not written.
pub(crate) fn line_down(core: &mut Core, now: Instant) {
    core.storage.present = false;
    let unsent: Vec<_> = core.out.stanzas.iter().filter_map(sent).collect();
    for (to, id) in unsent {
        failed(core, to, &id, "the connection is lost", now);
    }
}

fn sent(stanza: &Stanza) -> Option<(BareJid, String)> {
    match stanza {
        Stanza::Message(Message { to: Some(to), id: Some(id), .. }) => Some((to.to_bare(), id.0.clone())),
        _ => None,
    }
}

/// A new group: it hears what came for it before.
pub(crate) fn attached(core: &mut Core, group: GroupId, room: &BareJid, now: Instant) {
    appear(core);
    if let (Some(problem), true) = (core.storage.problem.clone(), core.up) {
        core.with(group, now, |_, _, cx| cx.outlet.problem(problem));
    }
    for stored in core.storage.held.take(room) {
        deliver(core, group, stored, now);
    }
    let lost = core.storage.held.lost();
    core.with(group, now, |room, _, cx| {
        if lost > 0 {
            cx.outlet.lose(lost);
            cx.outlet.recover(|| room.snapshot());
        }
    });
}

/// Sends a payload to a peer, wherever that is.
pub(crate) fn send(
    core: &mut Core,
    group: GroupId,
    id: String,
    to: BareJid,
    mut payload: Element,
    now: Instant,
) {
    let (up, wire_id) = (core.up, core.storage.id(group, &id));
    core.with(group, now, |room, _, cx| {
        let refused = match (up, cx.is_peer(&to)) {
            (true, true) => None,
            (false, _) => Some("no connection"),
            (_, false) => Some("it is no peer of this group"),
        };
        if let Some(reason) = refused {
            cx.outlet.send(Event::NotStored { id, to, reason: reason.to_owned() });
            return;
        }
        requests::tag(&mut payload, &room.jid);
        let mut message = Message::chat(Jid::from(to));
        message.id = Some(wire_id);
        message.payloads.extend([payload, Store.into()]);
        cx.out.stanzas.push_back(message.into());
    });
}

/// An error came back, or the message cannot be sent; nothing to do when it is not one of these messages.
pub(crate) fn failed(core: &mut Core, to: BareJid, id: &str, reason: &str, now: Instant) {
    if let Some((group, id)) = core.storage.own_id(id) {
        let reason = reason.to_owned();
        core.with(group, now, |_, _, cx| cx.outlet.send(Event::NotStored { id, to, reason }));
    }
}

/// A message that is from no room; `Some` gives it back when it is not for this module.
pub(crate) fn receive(core: &mut Core, from: &Jid, message: Message, now: Instant) -> Option<Message> {
    let ours = match message.type_ {
        MessageType::Error => message.id.is_some(),
        MessageType::Chat | MessageType::Normal => message.payloads.iter().any(is_payload),
        _ => false,
    };
    if !ours {
        return Some(message);
    }
    let from = from.to_bare();
    // Our own account speaks to us by copies of what its other clients send or get (XEP-0280).
    if from == core.own.to_bare() {
        return None;
    }
    if message.type_ == MessageType::Error {
        let error = message.payloads.into_iter().find_map(|payload| StanzaError::try_from(payload).ok());
        let reason = error.as_ref().map_or_else(|| "error without a reason".to_owned(), error_words);
        failed(core, from, message.id.as_ref().map_or("", |id| &id.0), &reason, now);
        return None;
    }
    let delayed = message.payloads.iter().any(|payload| payload.is("delay", ns::DELAY));
    for mut payload in message.payloads.into_iter().filter(is_payload) {
        let Some(room) = requests::untag(&mut payload) else {
            tracing::debug!(%from, "a message that names no room is left out");
            continue;
        };
        // The server limits the size of a stanza; what is nested deeper than a payload of ours is none.
        if fit_for_wire(&payload, usize::MAX).is_err() {
            tracing::debug!(%from, "a message that is nested too deep is left out");
            continue;
        }
        let stored = Stored::new(from.clone(), &payload, delayed);
        match core.rooms.get(&room).copied() {
            Some(group) => deliver(core, group, stored, now),
            None => core.storage.held.put(room, stored, now),
        }
    }
    None
}

/// Hands a payload to its group, if it comes from a peer.
fn deliver(core: &mut Core, group: GroupId, stored: Stored, now: Instant) {
    core.with(group, now, |room, _, cx| {
        if !cx.is_peer(stored.from()) {
            let jid = stored.from().to_string();
            if let Some(dropped) = room.strangers.dropped(&jid, cx.now) {
                cx.outlet.problem(Problem::Stranger { room: room.jid.clone(), jid, dropped });
            }
            return;
        }
        cx.outlet.send_stored(stored);
    });
}

/// The server told what it can do.
pub(crate) fn server_told(core: &mut Core, result: IqResult, now: Instant) {
    // A server that does not answer is no news about this.
    let Ok(features) = features(result) else { return };
    if !features.contains(FEATURE) {
        let domain = core.own.domain().as_str().to_owned();
        core.storage.problem = Some(Problem::NoOfflineStorage { domain });
    }
    let problem = core.storage.problem.clone();
    core.for_all(now, |_, _, cx| match &problem {
        Some(problem) => cx.outlet.problem(problem.clone()),
        None => cx.outlet.solved(&Kind::OfflineStorage),
    });
}

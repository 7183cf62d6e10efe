//! IQs that others send: requests of peers, and the little that every client has to answer.
//!
//! A request names the group it is for by the attribute `room` on its payload, since two servers may share
//! several groups. The attribute belongs to this crate: it is put on when sending and taken off when receiving.

use std::time::Instant;

use xmpp_parsers::disco::{DiscoInfoQuery, DiscoInfoResult, Identity};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use xso::exports::rxml::{Namespace, xml_ncname};

use crate::command::GroupId;
use crate::core::Core;
use crate::elements::{NS_LDAPSYNC, is_payload, stanza_error};
use crate::event::{Event, Reply};
use crate::limits::OUTBOX_ANSWERS_MAX;
use crate::problem::Problem;
use crate::transfer;

/// Names the group that a request is for.
pub(crate) fn tag(payload: &mut Element, room: &BareJid) {
    payload.set_attr(Namespace::NONE, xml_ncname!("room").to_owned(), room.as_str());
}

/// Takes the name of the group off; `None` when there is none.
pub(crate) fn untag(payload: &mut Element) -> Option<BareJid> {
    let room = payload.attrs_mut().remove(&Namespace::NONE, "room")?;
    BareJid::new(&room).ok()
}

/// What service discovery tells of this client.
const FEATURES: [&str; 9] = [
    ns::DISCO_INFO,
    ns::PING,
    ns::JINGLE,
    ns::JINGLE_FT,
    ns::JINGLE_S5B,
    ns::JINGLE_IBB,
    ns::IBB,
    ns::HASHES,
    NS_LDAPSYNC,
];

/// An IQ of type `get` or `set` came in.
pub(crate) fn handle(core: &mut Core, from: Option<Jid>, id: String, payload: Element, now: Instant) {
    // Somebody who asks faster than the socket takes answers does not get them.
    if core.out.stanzas.len() >= OUTBOX_ANSWERS_MAX {
        return;
    }
    let from = from.unwrap_or_else(|| Jid::from(core.own.to_bare()));
    if is_payload(&payload) {
        handle_request(core, from, id, payload, now);
        return;
    }
    if transfer::is_for_transfer(&payload) {
        if let Some(result) = transfer::handle(core, &from, &id, payload, now) {
            core.out.stanzas.push_back(answer(from, id, result).into());
        }
        return;
    }
    let result = if payload.is("ping", ns::PING) {
        Ok(None)
    } else if payload.is("query", ns::DISCO_INFO) {
        info(payload).map(Some)
    } else {
        Err(unavailable("this client does not handle that"))
    };
    core.out.stanzas.push_back(answer(from, id, result).into());
}

fn handle_request(core: &mut Core, from: Jid, id: String, mut payload: Element, now: Instant) {
    let room = untag(&mut payload);
    let group = room.as_ref().and_then(|room| core.rooms.get(room).copied());
    let refused = match (group, FullJid::try_from(from.clone())) {
        (Some(group), Ok(asker)) => match ask(core, group, asker, &id, payload, now) {
            Ok(()) => return,
            Err(error) => error,
        },
        (None, _) => {
            stanza_error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "no such group here now")
        }
        (_, Err(_)) => stanza_error(ErrorType::Modify, DefinedCondition::BadRequest, "no full JID"),
    };
    core.out.stanzas.push_back(answer(from, id, Err(refused)).into());
}

/// Hands a request to its group, if it comes from a peer.
fn ask(
    core: &mut Core,
    group: GroupId,
    from: FullJid,
    id: &str,
    payload: Element,
    now: Instant,
) -> Result<(), Box<StanzaError>> {
    let reply = Reply::new(from.clone().into(), id.to_owned(), core.commands.clone());
    core.with(group, now, |room, _, cx| {
        let bare = from.to_bare();
        if cx.is_peer(&bare) {
            cx.outlet.send(Event::Request { from, payload, reply });
            return Ok(());
        }
        reply.forget();
        let jid = bare.to_string();
        if let Some(dropped) = room.strangers.dropped(&jid, cx.now) {
            cx.outlet.problem(Problem::Stranger { room: room.jid.clone(), jid, dropped });
        }
        Err(stanza_error(ErrorType::Auth, DefinedCondition::Forbidden, "not a member of this group"))
    })
    .unwrap_or_else(|| Err(unavailable("the group is gone")))
}

/// The answer to a request.
pub(crate) fn answer(to: Jid, id: String, result: Result<Option<Element>, Box<StanzaError>>) -> Iq {
    match result {
        Ok(payload) => Iq::Result { from: None, to: Some(to), id, payload },
        Err(error) => Iq::Error { from: None, to: Some(to), id, error: *error, payload: None },
    }
}

fn unavailable(text: &str) -> Box<StanzaError> {
    stanza_error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, text)
}

fn info(query: Element) -> Result<Element, Box<StanzaError>> {
    let bad = |_| stanza_error(ErrorType::Modify, DefinedCondition::BadRequest, "no disco#info query");
    let DiscoInfoQuery { node } = DiscoInfoQuery::try_from(query).map_err(bad)?;
    let result = DiscoInfoResult {
        node,
        identities: vec![Identity::new("automation", "command-node", "en", "xmppsync")],
        features: FEATURES.into_iter().map(str::to_owned).collect(),
        extensions: vec![],
    };
    Ok(result.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_group_leaves_no_trace_on_the_payload() {
        let before: Element = "<pull xmlns='urn:xmpp:ldapsync:0' after='1'/>".parse().unwrap();
        let mut payload = before.clone();
        let room = BareJid::new("ldap@conference.example.org").unwrap();
        tag(&mut payload, &room);
        assert_ne!(payload, before);
        assert_eq!(untag(&mut payload), Some(room));
        assert_eq!(payload, before);
        assert_eq!(untag(&mut payload), None);
    }
}

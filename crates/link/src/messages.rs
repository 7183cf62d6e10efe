//! Groupchat messages: whose they are, and what becomes of them.

use xmpp_parsers::jid::Jid;
use xmpp_parsers::message::{Message, MessageType};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;
use xmpp_parsers::stanza_error::{DefinedCondition, StanzaError};

use crate::elements::{error_words, is_payload};
use crate::event::{Carrier, Event};
use crate::occupants::MucUser;
use crate::out::Cx;
use crate::problem::Problem;
use crate::room::Room;

impl Room {
    /// A message from the room or one of its occupants.
    pub(crate) fn handle_message(&mut self, from: &Jid, message: Message, cx: &mut Cx<'_>) {
        // History (XEP-0203) is no live stream, whoever sent it to us.
        if message.payloads.iter().any(|payload| payload.is("delay", ns::DELAY)) {
            return;
        }
        match (message.type_.clone(), from.resource()) {
            (MessageType::Error, _) => self.handle_message_error(message, cx),
            (MessageType::Groupchat, None) => {
                if let Some(user) = MucUser::find(&message.payloads)
                    && user.statuses.iter().any(|code| (104..=173).contains(code))
                {
                    // The room's configuration changed.
                    self.setup.ask_features(cx);
                }
            }
            (MessageType::Groupchat, Some(nick)) if nick.as_str() == self.own_nick() => {
                if let Some(id) = message.id.filter(|_| message.bodies.is_empty()) {
                    cx.outlet.send(Event::Echo { id: id.0 });
                }
            }
            (MessageType::Groupchat, Some(nick)) => self.handle_groupchat(nick.as_str(), message, cx),
            // Private messages of occupants carry nothing of ours.
            _ => {}
        }
    }

    fn handle_groupchat(&mut self, nick: &str, message: Message, cx: &mut Cx<'_>) {
        // Nobody was told of the others yet, and cannot tell whose changes these are; they come as what is missing. A seat that was
        // given up, because the room hid who sits there, is heard of for a while: longer over a line between servers.
        if !self.is_joined() {
            return;
        }
        let sender = self.jid_of(nick).map(|jid| jid.to_bare());
        let body = message.get_best_body(vec![]).map(|(_, body)| body.clone());
        let payloads = message.payloads.into_iter().filter(is_payload);
        match sender.filter(|jid| cx.is_peer(jid)) {
            Some(from) => deliver(from, body, payloads, cx),
            None if payloads.count() > 0 => self.stranger(nick, cx),
            // Humans may talk in the room.
            None => {}
        }
    }

    fn stranger(&mut self, nick: &str, cx: &mut Cx<'_>) {
        let jid = self.jid_of(nick).map_or_else(|| nick.to_owned(), |jid| jid.to_bare().to_string());
        if let Some(dropped) = self.strangers.dropped(&jid, cx.now) {
            cx.outlet.problem(Problem::Stranger { room: self.jid.clone(), jid, dropped });
        }
    }

    fn handle_message_error(&mut self, message: Message, cx: &mut Cx<'_>) {
        let error = message.payloads.into_iter().find_map(|payload| StanzaError::try_from(payload).ok());
        let reason = error.as_ref().map_or_else(|| "error without a reason".to_owned(), error_words);
        if let Some(id) = message.id {
            cx.outlet.send(Event::Refused { id: id.0, reason: reason.clone() });
        }
        if error.is_some_and(|error| error.defined_condition == DefinedCondition::NotAcceptable) {
            // XEP-0045, 7.4: the sender is no occupant.
            self.not_seated(&reason, cx);
        } else {
            cx.outlet.problem(Problem::MessageRefused { room: self.jid.clone(), reason });
        }
    }
}

fn deliver(
    from: xmpp_parsers::jid::BareJid,
    body: Option<String>,
    mut payloads: impl Iterator<Item = Element>,
    cx: &mut Cx<'_>,
) {
    if let Some(body) = body {
        cx.outlet.send(Event::Said { from, body, payload: payloads.next() });
        return;
    }
    for payload in payloads {
        cx.outlet.send(Event::Live { from: from.clone(), payload, carrier: Carrier::Room });
    }
}

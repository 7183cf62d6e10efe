//! Presence from the room: the own seat, the others, refusals.

use xmpp_parsers::jid::Jid;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::presence::{Presence, Type as PresenceType};
use xmpp_parsers::stanza_error::StanzaError;

use super::{Room, State};
use crate::elements::{error_words, is_payload};
use crate::event::Event;
use crate::occupants::{MucUser, Occupant};
use crate::out::Cx;
use crate::problem::{Kind, Problem};

impl Room {
    /// Presence from the room.
    pub(crate) fn handle_presence(&mut self, from: &Jid, presence: Presence, cx: &mut Cx<'_>) {
        let nick = from.resource().map(|nick| nick.as_str());
        match presence.type_ {
            PresenceType::Error => self.handle_presence_error(&presence, cx),
            PresenceType::Unavailable => {
                let user = MucUser::find(&presence.payloads).unwrap_or_default();
                if let Some(nick) = nick {
                    self.handle_unavailable(nick, &user, cx);
                }
            }
            PresenceType::None => {
                let user = MucUser::find(&presence.payloads).unwrap_or_default();
                match nick {
                    Some(nick) if self.is_self(nick, &user, cx) => self.handle_self(nick, &user, cx),
                    Some(nick) => self.handle_available(nick, &user, presence.payloads, cx),
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn is_self(&self, nick: &str, user: &MucUser, cx: &Cx<'_>) -> bool {
        user.has(110) || (nick == self.nick && user.jid.as_ref() == Some(cx.own))
    }

    fn handle_presence_error(&mut self, presence: &Presence, cx: &mut Cx<'_>) {
        let found = presence.payloads.iter().find_map(|payload| StanzaError::try_from(payload.clone()).ok());
        let reason = found.as_ref().map_or_else(|| "error without a reason".to_owned(), error_words);
        match self.state {
            State::Joining { .. } => self.refused(found.as_ref(), &reason, cx),
            // The answer to a card.
            State::Joined { .. } => {
                cx.outlet.problem(Problem::MessageRefused { room: self.jid.clone(), reason })
            }
            _ => {}
        }
    }

    /// Own presence: the list of occupants before it was complete.
    fn handle_self(&mut self, nick: &str, user: &MucUser, cx: &mut Cx<'_>) {
        let owner = user.affiliation.as_deref() == Some("owner");
        self.setup.set_owner(owner);
        match user.role.as_deref() {
            Some("visitor" | "none") => cx.outlet.problem(Problem::NoVoice { room: self.jid.clone() }),
            _ => cx.outlet.solved(&Kind::Voice),
        }
        if !matches!(self.state, State::Joining { .. }) {
            return;
        }
        // The service may have changed the nick (status 210).
        self.nick = nick.to_owned();
        if user.has(201) {
            self.state = State::Configuring { since: cx.now };
            self.setup.begin(cx);
        } else if self.occupants.iter().any(|(_, occupant)| occupant.jid.is_none()) {
            self.hidden(cx);
        } else {
            self.seated(cx);
        }
    }

    fn handle_available(&mut self, nick: &str, user: &MucUser, payloads: Vec<Element>, cx: &mut Cx<'_>) {
        let card = payloads.into_iter().find(is_payload);
        let Some(jid) = user.jid.clone() else {
            self.occupants.here(nick, Occupant { jid: None, card: None });
            if self.is_joined() {
                self.hidden(cx);
            }
            return;
        };
        let peer = cx.is_peer(&jid.to_bare());
        let card = card.filter(|_| peer);
        let event =
            card.clone().map(|payload| Event::Card { nick: nick.to_owned(), jid: jid.clone(), payload });
        if !peer {
            tracing::debug!(room = %self.jid, %jid, "an occupant who is no peer");
        }
        // The cards of those who were here before us follow `Online`, see `seated`.
        if self.occupants.here(nick, Occupant { jid: Some(jid), card })
            && self.is_joined()
            && let Some(event) = event
        {
            cx.outlet.send(event);
        }
    }

    fn handle_unavailable(&mut self, nick: &str, user: &MucUser, cx: &mut Cx<'_>) {
        if user.has(303) {
            // A change of nick: presence under the new one follows.
            let gone = self.occupants.gone(nick);
            if nick == self.nick {
                if let Some(new) = &user.nick {
                    self.nick.clone_from(new);
                }
            } else {
                self.tell_gone(nick, gone, cx);
            }
            return;
        }
        if user.has(110) || nick == self.nick {
            if matches!(self.state, State::Joined { .. } | State::Configuring { .. }) {
                let reason = user.farewell();
                cx.outlet.problem(Problem::PutOut { room: self.jid.clone(), reason: reason.clone() });
                self.lose_seat(&reason, cx);
            }
            return;
        }
        let gone = self.occupants.gone(nick);
        self.tell_gone(nick, gone, cx);
    }

    fn tell_gone(&self, nick: &str, gone: Option<Occupant>, cx: &mut Cx<'_>) {
        if let Some(Occupant { jid: Some(jid), .. }) = gone
            && self.is_joined()
            && cx.is_peer(&jid.to_bare())
        {
            cx.outlet.send(Event::Gone { nick: nick.to_owned(), jid });
        }
    }
}

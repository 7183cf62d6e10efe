//! What a group hears from its session.

use tokio::sync::mpsc;
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::command::Command;
use crate::elements::stanza_error;
use crate::problem::Problem;
use crate::transfer::{FileOffer, IncomingFile};

/// How a live payload travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// As a groupchat message of the room.
    Room,
    /// As an item of the sender's pubsub node.
    Node,
}

/// What a group hears, in the order in which it happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The own seat in the room is taken and the room is configured: payloads can be sent. Comes again after
    /// every reconnect; whatever was sent and not confirmed before it has to be sent again.
    Online,
    /// Connection or seat are lost; what was in flight may be lost.
    Offline {
        /// For logs.
        reason: String,
    },
    /// Presence of a peer in the room that carries a payload.
    Card {
        /// Its nick in the room.
        nick: String,
        /// Its real JID, as the server tells it.
        jid: FullJid,
        /// The payload.
        payload: Element,
    },
    /// A peer left the room, or the server believes so. A hint: a dead peer may stay for tens of seconds, and
    /// a live one be gone for a moment.
    Gone {
        /// Its nick in the room.
        nick: String,
        /// Its real JID.
        jid: FullJid,
    },
    /// A payload of a peer's live stream.
    Live {
        /// The peer.
        from: BareJid,
        /// The payload.
        payload: Element,
        /// How it came.
        carrier: Carrier,
    },
    /// A payload that a peer sent to this account alone, with `send_stored`. Those that the server kept come
    /// in the order in which one peer sent them, as soon as the connection is there, thus usually before
    /// [`Event::Online`]; they may repeat what came live.
    Stored {
        /// The peer.
        from: BareJid,
        /// The payload.
        payload: Element,
        /// Whether the server kept it (XEP-0203), as it says.
        delayed: bool,
    },
    /// A message sent with `send_stored` did not reach the peer's store, nor the peer.
    NotStored {
        /// The id given to `send_stored`.
        id: String,
        /// The peer.
        to: BareJid,
        /// Condition and text.
        reason: String,
    },
    /// A message for humans that a peer sent.
    Said {
        /// The peer.
        from: BareJid,
        /// The text.
        body: String,
        /// The payload, if there was one.
        payload: Option<Element>,
    },
    /// Own message came back from the room: every occupant gets it, in this order.
    Echo {
        /// The id given to `send_room`.
        id: String,
    },
    /// Own message was refused by the room; nobody got it.
    Refused {
        /// The id given to `send_room`.
        id: String,
        /// Condition and text.
        reason: String,
    },
    /// The pubsub service took or refused an item.
    Published {
        /// The id given to `publish`.
        id: String,
        /// The error is for logs.
        result: Result<(), String>,
    },
    /// A peer asks for something.
    Request {
        /// Who asks.
        from: FullJid,
        /// What it asks for.
        payload: Element,
        /// The way to answer.
        reply: Reply,
    },
    /// A peer offers a file; what of it is wanted is known to the application.
    FileOffered {
        /// Who offers.
        from: FullJid,
        /// What it offers.
        offer: FileOffer,
        /// The way to take or refuse it.
        incoming: IncomingFile,
    },
    /// This many events were dropped because they were not taken in time. The state follows anew: `Online` or
    /// `Offline`, and the cards of all peers. Live and stored payloads are lost: pull from a peer.
    Lost {
        /// How many.
        count: u64,
    },
    /// Something an admin has to know.
    Problem(Problem),
}

/// The answer to a request, to be given once. Dropping it answers service-unavailable.
#[derive(Debug)]
pub struct Reply {
    ticket: Option<(Jid, String)>,
    commands: mpsc::WeakSender<Command>,
}

impl Reply {
    pub(crate) fn new(to: Jid, id: String, commands: mpsc::WeakSender<Command>) -> Self {
        Self { ticket: Some((to, id)), commands }
    }

    /// Answers with a payload.
    ///
    /// # Errors
    /// [`ReplyLost`] when the session is gone or overwhelmed; the asker runs into its timeout.
    pub fn ok(mut self, payload: Element) -> Result<(), ReplyLost> {
        self.send(Ok(payload))
    }

    /// Answers with an error.
    ///
    /// # Errors
    /// [`ReplyLost`] when the session is gone or overwhelmed; the asker runs into its timeout.
    pub fn error(mut self, condition: DefinedCondition, text: &str) -> Result<(), ReplyLost> {
        self.send(Err(stanza_error(ErrorType::Cancel, condition, text)))
    }

    /// Another answer was given.
    pub(crate) fn forget(mut self) {
        self.ticket = None;
    }

    fn send(&mut self, result: Result<Element, Box<StanzaError>>) -> Result<(), ReplyLost> {
        let Some((to, id)) = self.ticket.take() else { return Ok(()) };
        let commands = self.commands.upgrade().ok_or(ReplyLost)?;
        let result = result.map(Some);
        commands.try_send(Command::Answer { to, id, result }).map_err(|_| ReplyLost)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let refused = stanza_error(
            ErrorType::Cancel,
            DefinedCondition::ServiceUnavailable,
            "the request was not handled",
        );
        // Nothing to be done when it is lost: the asker runs into its timeout.
        let _: Result<(), ReplyLost> = self.send(Err(refused));
    }
}

/// The answer did not reach the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is lost: the XMPP session has ended or its queue is full")]
pub struct ReplyLost;

//! The handle of one group.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::DefinedCondition;

use crate::command::{Command, GroupId, Shared, ToGroup};
use crate::elements::{NS_LDAPSYNC, Unfit, fit_for_wire};
use crate::limits::{FILE_NAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::transfer::{FileOffer, OfferFile, OutgoingFile};

/// Why a group was not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The session has ended.
    #[error("the XMPP session has ended")]
    Closed,
    /// Another group of the session has the room.
    #[error("the room {room} already belongs to another group of this session; every group needs its own")]
    RoomTaken {
        /// The room.
        room: BareJid,
    },
}

/// Why something was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The own seat in the room is not taken, or there is no connection; try after [`crate::Event::Online`].
    #[error("not in the room, or no connection")]
    Offline,
    /// Too much is waiting for the socket; try again when something was confirmed.
    #[error("the queue to the XMPP session is full")]
    Full,
    /// The payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has more than {max} bytes", max = PAYLOAD_BYTES_MAX)]
    TooLarge,
    /// The payload holds characters that XML forbids, or is nested too deep.
    #[error("the payload is no XML: control characters, or nested too deep")]
    NotXml,
    /// The session has ended.
    #[error("the XMPP session has ended")]
    Closed,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// It was not sent.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// The other side, or a server on the way, refuses.
    #[error("refused: {reason}")]
    Refused {
        /// The condition.
        condition: DefinedCondition,
        /// Condition and text.
        reason: String,
    },
    /// The answer has no payload.
    #[error("the answer is empty")]
    Empty,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// There is no connection, or it was lost before the answer.
    #[error("no connection")]
    Offline,
    /// Too many requests are open.
    #[error("too many requests are open")]
    Full,
}

/// One group of a session. Dropping it detaches the group.
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Group {
    pub(crate) fn new(id: GroupId, shared: Arc<Shared>, commands: mpsc::Sender<Command>) -> Self {
        Self { id, shared, commands }
    }

    /// Sends a payload to all occupants of the room. Confirmed by [`crate::Event::Echo`] with the same id,
    /// refused by [`crate::Event::Refused`], unknown after [`crate::Event::Offline`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_room(&self, id: String, payload: Element) -> Result<(), SendError> {
        self.joined()?;
        self.send(ToGroup::SendRoom { id, payload: fit(payload)? })
    }

    /// Says something to humans in the room, with a payload for servers if there is one. Not confirmed.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn say(&self, body: String, payload: Option<Element>) -> Result<(), SendError> {
        self.joined()?;
        self.send(ToGroup::Say { body, payload: payload.map(fit).transpose()? })
    }

    /// Publishes a payload on the own node. Answered by [`crate::Event::Published`] with the same id.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn publish(&self, id: String, payload: Element) -> Result<(), SendError> {
        self.send(ToGroup::Publish { id, payload: fit(payload)? })
    }

    /// Sends a payload to the account of a peer, whose server keeps it while the peer is away (XEP-0160). Needs
    /// a connection, not a seat in the room. At the peer it is [`crate::Event::Stored`].
    ///
    /// Not confirmed: [`crate::Event::NotStored`] with the same id tells that it failed, as far as servers tell.
    /// One that was written just before the connection broke may be lost without a word. Servers keep few
    /// messages (ejabberd on Debian: 100 for an account, of all senders together) and read slowly (3,000 bytes/s
    /// there): what waits here delays what is sent to the room after it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_stored(&self, id: String, to: BareJid, payload: Element) -> Result<(), SendError> {
        if !self.shared.connected() {
            return Err(SendError::Offline);
        }
        self.send(ToGroup::SendStored { id, to, payload: fit(payload)? })
    }

    /// Shows a new card to the room, now or as soon as it is joined.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn set_card(&self, card: Element) -> Result<(), SendError> {
        self.send(ToGroup::SetCard(fit(card)?))
    }

    /// Subscribes to the node of a peer, from now on and after every reconnect, also when the node does not
    /// exist yet. What comes from it is [`crate::Event::Live`] of that peer.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn subscribe(&self, peer: BareJid, node: String) -> Result<(), SendError> {
        self.send(ToGroup::Subscribe { peer, node })
    }

    /// Hands on nothing more of a peer's node.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn unsubscribe(&self, node: String) -> Result<(), SendError> {
        self.send(ToGroup::Unsubscribe { node })
    }

    /// Changes the list of peers: whose payloads count, and who is let into room and node.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn set_peers(&self, peers: Vec<BareJid>) -> Result<(), SendError> {
        self.send(ToGroup::SetPeers(peers))
    }

    /// Asks a peer (IQ get) and waits for the answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        to: FullJid,
        payload: Element,
        timeout: Duration,
    ) -> Result<Element, RequestError> {
        let (answer, answered) = oneshot::channel();
        let payload = fit(payload)?;
        self.send(ToGroup::Request { to, payload, timeout, answer })?;
        answered.await.unwrap_or(Err(RequestError::NotSent(SendError::Closed)))
    }

    /// Offers a file to a peer and serves it from `file`, which is read from any byte on and may be unlinked
    /// meanwhile. The peer hears [`crate::Event::FileOffered`].
    ///
    /// # Errors
    /// [`SendError`] when it cannot be offered; whatever comes later is told by [`OutgoingFile::done`].
    pub fn offer_file(&self, to: FullJid, offer: FileOffer, file: File) -> Result<OutgoingFile, SendError> {
        let words =
            Element::builder("offer", NS_LDAPSYNC).append(offer.id.as_str()).append(offer.name.as_str());
        fit(words.build())?;
        if offer.id.len() > FILE_NAME_BYTES_MAX || offer.name.len() > FILE_NAME_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let (sid, key) = (format!("{:032x}", rand::random::<u128>()), rand::random());
        let (sender, done) = oneshot::channel();
        self.send(ToGroup::OfferFile(Box::new(OfferFile { to, offer, file, sid, key, done: sender })))?;
        Ok(OutgoingFile { done })
    }

    /// Whether the own seat in the room is taken.
    pub fn is_online(&self) -> bool {
        self.shared.joined()
    }

    /// Whether the own node is set up, so that what is published on it reaches its subscribers.
    pub fn node_is_ready(&self) -> bool {
        self.shared.node_ready()
    }

    /// Subscribers of the own node that are no peers, as of the last count. Publishing is for them.
    pub fn outsiders(&self) -> usize {
        self.shared.outsiders()
    }

    /// Leaves the room and forgets the group; the receiver of its events ends.
    pub fn detach(self) {}

    fn joined(&self) -> Result<(), SendError> {
        if self.shared.joined() { Ok(()) } else { Err(SendError::Offline) }
    }

    fn send(&self, command: ToGroup) -> Result<(), SendError> {
        self.commands.try_send(Command::Group(self.id, command)).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Closed(_) => SendError::Closed,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A full queue is no leak: the session notices the closed receiver of events as well.
        let _: Result<(), SendError> = self.send(ToGroup::Detach);
    }
}

fn fit(payload: Element) -> Result<Element, SendError> {
    match fit_for_wire(&payload, PAYLOAD_BYTES_MAX) {
        Ok(_) => Ok(payload),
        Err(Unfit::TooLarge(_)) => Err(SendError::TooLarge),
        Err(Unfit::NotXml) => Err(SendError::NotXml),
    }
}

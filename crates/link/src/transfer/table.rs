//! The transfers of a session: which stanza belongs to which of them.

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use xmpp_parsers::ibb;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::jingle::{Action, Reason};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::command::GroupId;
use crate::config::TransferConfig;
use crate::core::Core;
use crate::elements::stanza_error;
use crate::event::Event;
use crate::limits::{TRANSFER_INBOX_MAX, TRANSFERS_IN_MAX, TRANSFERS_OUT_MAX};
use crate::out::{Asked, IqFailure};
use crate::problem::Problem;
use crate::transfer::elements::{Jingle, read_offer};
use crate::transfer::frames::Key;
use crate::transfer::meeting::Means;
use crate::transfer::offer::{FileOffer, IncomingFile, Sent, TransferError};
use crate::transfer::port::{Ask, FromPeer, Inbox, Port};
use crate::transfer::proxy;
use crate::transfer::receive::Receiving;
use crate::transfer::send::Sending;

/// Which transfer: the peer, and the id that the initiator gave to the session.
type SessionKey = (FullJid, String);

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Transfers {
    entries: HashMap<SessionKey, Entry>,
    /// To be run by the session.
    pub(crate) starts: Vec<Start>,
    pub(crate) config: TransferConfig,
    local: Option<IpAddr>,
    proxy: Arc<proxy::Found>,
}

struct Entry {
    group: GroupId,
    outgoing: bool,
    inbox: mpsc::Sender<FromPeer>,
}

/// A transfer that is to be run.
pub(crate) enum Start {
    Send(Box<Sending>),
    Receive(Box<Receiving>),
}

impl Start {
    pub(crate) async fn run(self) {
        match self {
            Self::Send(sending) => sending.run().await,
            Self::Receive(receiving) => receiving.run().await,
        }
    }
}

/// A file that the owner of a group offers.
#[derive(Debug)]
pub(crate) struct OfferFile {
    pub(crate) to: FullJid,
    pub(crate) offer: FileOffer,
    pub(crate) file: File,
    pub(crate) sid: String,
    pub(crate) key: Key,
    pub(crate) done: oneshot::Sender<Result<Sent, TransferError>>,
}

impl Transfers {
    /// A place for one more transfer; `None` when the group has as many as it may.
    fn add(&mut self, key: SessionKey, group: GroupId, outgoing: bool) -> Option<Inbox> {
        self.entries.retain(|_, entry| !entry.inbox.is_closed());
        let like = |entry: &&Entry| entry.group == group && entry.outgoing == outgoing;
        let max = if outgoing { TRANSFERS_OUT_MAX } else { TRANSFERS_IN_MAX };
        if self.entries.values().filter(like).count() >= max || self.entries.contains_key(&key) {
            return None;
        }
        let (inbox, receiver) = mpsc::channel(TRANSFER_INBOX_MAX);
        self.entries.insert(key, Entry { group, outgoing, inbox });
        Some(Inbox(receiver))
    }

    /// There is a connection, with this own address. Another server may have another proxy.
    pub(crate) fn line_up(&mut self, local: Option<IpAddr>) {
        self.local = local;
        self.proxy = Arc::default();
    }

    fn means(&self) -> Means {
        Means { config: self.config, local: self.local, proxy: Arc::clone(&self.proxy) }
    }

    /// The connection is lost, and the sessions with it.
    pub(crate) fn lost(&mut self) {
        self.entries.clear();
    }

    /// Forgets the transfers of a group, or all; whom to tell.
    fn end(&mut self, group: Option<GroupId>) -> Vec<(GroupId, SessionKey)> {
        let ended = self.entries.extract_if(|_, entry| group.is_none_or(|group| group == entry.group));
        ended.filter(|(_, entry)| !entry.inbox.is_closed()).map(|(key, entry)| (entry.group, key)).collect()
    }

    fn hand_on(&mut self, key: &SessionKey, what: FromPeer) -> Result<(), Box<StanzaError>> {
        let entry = self.entries.get(key).filter(|entry| !entry.inbox.is_closed());
        let unknown = || stanza_error(ErrorType::Cancel, DefinedCondition::ItemNotFound, "no such transfer");
        let full = |_| stanza_error(ErrorType::Wait, DefinedCondition::ResourceConstraint, "too fast");
        entry.ok_or_else(unknown)?.inbox.try_send(what).map_err(full)
    }
}

/// Begins to offer a file.
pub(crate) fn offer(core: &mut Core, group: GroupId, offer: OfferFile) {
    let OfferFile { to, offer, file, sid, key, done } = offer;
    let refuse = match core.groups.get(&group) {
        Some(state) if !state.peers.contains(&to.to_bare()) => Some(TransferError::NotPeer),
        _ if !core.up => Some(TransferError::Offline),
        _ => None,
    };
    let room = core.groups.get(&group).map(|state| state.room.jid.clone());
    let result = match (refuse, room) {
        (Some(error), _) => Err(error),
        (None, None) => Err(TransferError::Offline),
        (None, Some(room)) => match core.transfers.add((to.clone(), sid.clone()), group, true) {
            Some(inbox) => Ok((room, inbox)),
            None => Err(TransferError::TooMany),
        },
    };
    match result {
        Err(error) => {
            let _: Result<(), _> = done.send(Err(error));
        }
        Ok((room, inbox)) => {
            let port = port(core, group, to, sid);
            let means = core.transfers.means();
            let sending = Sending { port, inbox, means, room, offer, key, file, done };
            core.transfers.starts.push(Start::Send(Box::new(sending)));
        }
    }
}

fn port(core: &Core, group: GroupId, peer: FullJid, sid: String) -> Port {
    Port { group, own: core.own.clone(), peer, sid, commands: core.commands.clone() }
}

/// Whether an IQ is the business of a transfer.
pub(crate) fn is_for_transfer(payload: &Element) -> bool {
    payload.has_ns(ns::JINGLE) || payload.has_ns(ns::IBB)
}

/// Takes an IQ of a transfer; the answer, unless the transfer gives it later.
pub(crate) fn handle(
    core: &mut Core,
    from: &Jid,
    id: &str,
    payload: Element,
    now: Instant,
) -> Option<Result<Option<Element>, Box<StanzaError>>> {
    let Ok(peer) = FullJid::try_from(from.clone()) else { return Some(Err(bad("no full JID"))) };
    let done = |result: Result<(), Box<StanzaError>>| Some(result.map(|()| None));
    let later = |result: Result<(), Box<StanzaError>>| result.err().map(Err);
    let transfers = &mut core.transfers;
    let id = id.to_owned();
    match payload.name() {
        "jingle" => match Jingle::try_from(payload) {
            Ok(jingle) if jingle.action == Action::SessionInitiate => {
                done(initiated(core, peer, jingle, now))
            }
            Ok(jingle) => {
                let key = (peer, jingle.sid.clone());
                done(transfers.hand_on(&key, FromPeer::Jingle(Box::new(jingle))))
            }
            Err(_) => Some(Err(bad("no Jingle of this kind"))),
        },
        "open" => match ibb::Open::try_from(payload) {
            Ok(open) => later(transfers.hand_on(&(peer, open.sid.0), FromPeer::Open { id })),
            Err(_) => Some(Err(bad("no in-band stream"))),
        },
        "data" => match ibb::Data::try_from(payload) {
            Ok(block) => {
                let key = (peer, block.sid.0.clone());
                later(transfers.hand_on(&key, FromPeer::Block { id, block }))
            }
            Err(_) => Some(Err(bad("no block"))),
        },
        "close" => match ibb::Close::try_from(payload) {
            Ok(close) => {
                // A transfer that has everything does not wait for the end of the stream.
                let _: Result<(), _> = transfers.hand_on(&(peer, close.sid.0), FromPeer::Close);
                Some(Ok(None))
            }
            Err(_) => Some(Err(bad("no end of a stream"))),
        },
        _ => Some(Err(bad("unknown"))),
    }
}

/// A peer offers a file.
fn initiated(core: &mut Core, peer: FullJid, jingle: Jingle, now: Instant) -> Result<(), Box<StanzaError>> {
    let unwanted =
        || stanza_error(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "only files of a group");
    let Jingle { sid, content: Some(content), transfer: Some(transfer), .. } = jingle else {
        return Err(unwanted());
    };
    let group = core.rooms.get(&transfer.room).copied().ok_or_else(unwanted)?;
    known(core, group, &peer.to_bare(), now)?;
    let key = Key::try_from(transfer.key.as_slice()).map_err(|_| bad("a key has 32 bytes"))?;
    let offer = read_offer(&content, &transfer).ok_or_else(|| bad("name, size and SHA-256 are required"))?;
    let full = || stanza_error(ErrorType::Wait, DefinedCondition::ResourceConstraint, "too many transfers");
    let inbox = core.transfers.add((peer.clone(), sid.clone()), group, false).ok_or_else(full)?;
    let (decided, decision) = oneshot::channel();
    let port = port(core, group, peer.clone(), sid);
    let means = core.transfers.means();
    let receiving = Receiving { port, inbox, means, offer: offer.clone(), key, content, decision };
    core.transfers.starts.push(Start::Receive(Box::new(receiving)));
    let incoming = IncomingFile::new(offer.clone(), decided);
    core.with(group, now, |_, _, cx| {
        cx.outlet.send(Event::FileOffered { from: peer, offer, incoming });
    });
    Ok(())
}

/// Whether the sender of an offer is a peer; others are reported as everywhere.
fn known(core: &mut Core, group: GroupId, jid: &BareJid, now: Instant) -> Result<(), Box<StanzaError>> {
    let is_peer = core.with(group, now, |room, _, cx| {
        if cx.is_peer(jid) {
            return true;
        }
        let jid = jid.to_string();
        if let Some(dropped) = room.strangers.dropped(&jid, cx.now) {
            cx.outlet.problem(Problem::Stranger { room: room.jid.clone(), jid, dropped });
        }
        false
    });
    if is_peer == Some(true) {
        return Ok(());
    }
    Err(stanza_error(ErrorType::Auth, DefinedCondition::Forbidden, "not a member of this group"))
}

fn bad(text: &str) -> Box<StanzaError> {
    stanza_error(ErrorType::Modify, DefinedCondition::BadRequest, text)
}

/// Ends the transfers of a group, or all, and tells the peers.
pub(crate) fn end(core: &mut Core, group: Option<GroupId>, now: Instant) {
    for (group, (peer, sid)) in core.transfers.end(group) {
        let jingle = Jingle::terminate(&sid, Reason::Gone, "this server leaves");
        // Nobody waits for the answer.
        let asked = Asked::Transfer(oneshot::channel().0);
        core.out.set((now, group), peer.into(), jingle.into(), asked);
    }
}

/// A question of a transfer.
pub(crate) fn ask(core: &mut Core, group: GroupId, ask: Ask, now: Instant) {
    let Ask { to, set, payload, timeout, answer } = ask;
    let asked = Asked::Transfer(answer);
    if !core.up || !core.groups.contains_key(&group) {
        core.out.settled.push((group, asked, Err(IqFailure::Lost)));
        return;
    }
    core.out.ask((now, group), to, timeout, asked, |to, id| {
        if set { Iq::Set { from: None, to, id, payload } } else { Iq::Get { from: None, to, id, payload } }
    });
}

//! The elements of a transfer. Those of xmpp-parsers where they can be read and written whole; its Jingle and
//! SOCKS5 elements cannot: candidates have no accessors, and a host name in one fails the whole stanza.

use std::collections::BTreeMap;

use xmpp_parsers::hashes::{Algo, Hash};
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::jingle::{Action, Creator, Reason, ReasonElement, Senders};
use xmpp_parsers::jingle_ft::{Description, File, Range};
use xmpp_parsers::{ibb, jingle_ibb, ns};
use xso::{AsXml, FromXml, text::Base64};

use crate::elements::NS_LDAPSYNC;
use crate::limits::FILE_NAME_BYTES_MAX;
use crate::transfer::offer::{FileOffer, TransferError};

pub(crate) const NS_BYTESTREAMS: &str = "http://jabber.org/protocol/bytestreams";

/// The name of the one content of our sessions.
const CONTENT: &str = "file";

/// XEP-0166: one step of a session.
#[derive(FromXml, AsXml, Debug, Clone)]
#[xml(namespace = ns::JINGLE, name = "jingle")]
pub(crate) struct Jingle {
    #[xml(attribute)]
    pub(crate) action: Action,
    #[xml(attribute)]
    pub(crate) sid: String,
    #[xml(attribute(default))]
    pub(crate) initiator: Option<Jid>,
    #[xml(attribute(default))]
    pub(crate) responder: Option<Jid>,
    #[xml(child(default))]
    pub(crate) content: Option<Content>,
    #[xml(child(default))]
    pub(crate) reason: Option<ReasonElement>,
    #[xml(child(default))]
    pub(crate) transfer: Option<Transfer>,
}

/// Its only content, the file.
#[derive(FromXml, AsXml, Debug, Clone)]
#[xml(namespace = ns::JINGLE, name = "content")]
pub(crate) struct Content {
    #[xml(attribute)]
    pub(crate) creator: Creator,
    #[xml(attribute)]
    pub(crate) name: String,
    #[xml(attribute(default))]
    pub(crate) senders: Senders,
    #[xml(child(default))]
    pub(crate) description: Option<Description>,
    #[xml(child(default))]
    pub(crate) socks: Option<Socks>,
    #[xml(child(default))]
    pub(crate) ibb: Option<jingle_ibb::Transport>,
}

/// XEP-0260: SOCKS5 bytestreams, or news about them.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::JINGLE_S5B, name = "transport")]
pub(crate) struct Socks {
    #[xml(attribute)]
    pub(crate) sid: String,
    #[xml(child(n = ..))]
    pub(crate) candidates: Vec<Candidate>,
    #[xml(extract(default, name = "candidate-used", fields(attribute(name = "cid", type_ = String))))]
    pub(crate) used: Option<String>,
    #[xml(flag(name = "candidate-error"))]
    pub(crate) error: bool,
    #[xml(extract(default, name = "activated", fields(attribute(name = "cid", type_ = String))))]
    pub(crate) activated: Option<String>,
    #[xml(flag(name = "proxy-error"))]
    pub(crate) proxy_error: bool,
}

/// An address at which a side can be reached.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::JINGLE_S5B, name = "candidate")]
pub(crate) struct Candidate {
    #[xml(attribute)]
    pub(crate) cid: String,
    #[xml(attribute)]
    pub(crate) host: String,
    #[xml(attribute)]
    pub(crate) jid: Jid,
    #[xml(attribute)]
    pub(crate) port: u16,
    #[xml(attribute)]
    pub(crate) priority: u32,
    #[xml(attribute(default, name = "type"))]
    pub(crate) type_: xmpp_parsers::jingle_s5b::Type,
}

/// What a file is to the application, and the key of its bytes: SOCKS5 has no TLS, the stanzas have.
#[derive(FromXml, AsXml, Clone, PartialEq)]
#[xml(namespace = NS_LDAPSYNC, name = "transfer")]
pub(crate) struct Transfer {
    #[xml(attribute)]
    pub(crate) room: BareJid,
    #[xml(attribute)]
    pub(crate) id: String,
    #[xml(text = Base64)]
    pub(crate) key: Vec<u8>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("room", &self.room).field("id", &self.id).finish_non_exhaustive()
    }
}

/// XEP-0065: the address of a proxy, or the wish that it begins.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_BYTESTREAMS, name = "query")]
pub(crate) struct Bytestreams {
    #[xml(attribute(default))]
    pub(crate) sid: Option<String>,
    #[xml(child(n = ..))]
    pub(crate) hosts: Vec<StreamHost>,
    #[xml(extract(default, name = "activate", fields(text(type_ = Jid))))]
    pub(crate) activate: Option<Jid>,
}

/// The address.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_BYTESTREAMS, name = "streamhost")]
pub(crate) struct StreamHost {
    #[xml(attribute)]
    pub(crate) host: String,
    #[xml(attribute)]
    pub(crate) jid: Jid,
    #[xml(attribute(default))]
    pub(crate) port: Option<u16>,
}

impl Jingle {
    pub(crate) fn new(action: Action, sid: &str) -> Self {
        Self {
            action,
            sid: sid.to_owned(),
            initiator: None,
            responder: None,
            content: None,
            reason: None,
            transfer: None,
        }
    }

    /// A step about the transport or the file.
    pub(crate) fn with_content(action: Action, sid: &str, change: impl FnOnce(&mut Content)) -> Self {
        let mut content = Content {
            creator: Creator::Initiator,
            name: CONTENT.to_owned(),
            senders: Senders::Initiator,
            description: None,
            socks: None,
            ibb: None,
        };
        change(&mut content);
        Self { content: Some(content), ..Self::new(action, sid) }
    }

    /// The end of a session, with words for people.
    pub(crate) fn terminate(sid: &str, reason: Reason, text: &str) -> Self {
        let texts = if text.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([("en".to_owned(), text.to_owned())])
        };
        let reason = Some(ReasonElement { reason, texts });
        Self { reason, ..Self::new(Action::SessionTerminate, sid) }
    }
}

impl Socks {
    pub(crate) fn new(sid: &str) -> Self {
        Self {
            sid: sid.to_owned(),
            candidates: Vec::new(),
            used: None,
            error: false,
            activated: None,
            proxy_error: false,
        }
    }
}

/// An in-band transport.
pub(crate) fn in_band(sid: &str, block_bytes: usize) -> jingle_ibb::Transport {
    jingle_ibb::Transport {
        block_size: u16::try_from(block_bytes).unwrap_or(u16::MAX),
        sid: ibb::StreamId(sid.to_owned()),
        stanza: ibb::Stanza::Iq,
    }
}

/// The description of a file in an offer.
pub(crate) fn describe(offer: &FileOffer) -> Description {
    let file = File::new()
        .with_name(offer.name.clone())
        .with_size(offer.size)
        .with_range(Range::new())
        .add_hash(Hash::new(Algo::Sha_256, offer.sha256.to_vec()));
    Description { file }
}

/// The description in the answer: from which byte on.
pub(crate) fn describe_rest(offer: &FileOffer, from_byte: u64) -> Description {
    let mut description = describe(offer);
    description.file.range = Some(Range { offset: from_byte, ..Range::new() });
    description
}

/// Where the receiver wants the file to begin.
pub(crate) fn first_byte(accepted: &Content, offer: &FileOffer) -> Result<u64, TransferError> {
    let range = accepted.description.as_ref().and_then(|description| description.file.range.as_ref());
    let offset = range.map_or(0, |range| range.offset);
    if offset > offer.size || range.is_some_and(|range| range.length.is_some()) {
        return Err(TransferError::Protocol { what: "a range that the file does not have" });
    }
    Ok(offset)
}

/// The offer in a session-initiate; `None` when it is not one of ours.
pub(crate) fn read_offer(content: &Content, transfer: &Transfer) -> Option<FileOffer> {
    let file = &content.description.as_ref()?.file;
    let hash = file.hashes.iter().find(|hash| hash.algo == Algo::Sha_256)?;
    let offer = FileOffer {
        id: transfer.id.clone(),
        name: file.name.clone().unwrap_or_default(),
        size: file.size?,
        sha256: hash.hash.as_slice().try_into().ok()?,
    };
    let fits = offer.id.len() <= FILE_NAME_BYTES_MAX && offer.name.len() <= FILE_NAME_BYTES_MAX;
    let ours = content.creator == Creator::Initiator && content.senders == Senders::Initiator;
    (fits && ours).then_some(offer)
}

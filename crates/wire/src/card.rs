//! What a replica says of itself in its presence.

use crate::error::check;
use crate::{Place, VERSION, WireError, batch, limits, read, schema, text};
use minidom::Element;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use xmppsync_replica::{BootId, Csn, EntryUuid, ServerId, Span, Unseen, Vector};

/// A replica's card.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Its server.
    pub sid: ServerId,
    /// Its run.
    pub boot: BootId,
    /// The sequence number of the last change that it released in this run; 0 before the first.
    pub seq: u64,
    /// What it is doing.
    pub phase: Phase,
    /// Where its live stream goes.
    pub live: Live,
    /// The pubsub node to which its batches go; plain text.
    pub node: String,
    /// The normalised DN of the database's suffix.
    pub suffix: String,
    /// Name and version, as `xmppsync 0.1.0`; plain text.
    pub software: String,
    /// How far it has come.
    pub vector: Vector,
    /// The data set that it is a copy of; `None` while the database is empty.
    pub dataset: Option<EntryUuid>,
    /// How far an initial load has come, while one runs.
    pub progress: Option<Progress>,
}

/// How far an initial load has come. `total` is what the source announced: `done` may pass it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries that are here.
    pub done: u64,
    /// Entries that are expected.
    pub total: u64,
}

/// A word that is none of those which may stand there.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the word is none of: {0}")]
pub struct UnknownWord(pub(crate) &'static str);

/// An enum of words in attributes.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident, $all:literal, { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$variant_doc])* $variant),+ }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $word),+ })
            }
        }

        impl FromStr for $type {
            type Err = $crate::card::UnknownWord;

            fn from_str(word: &str) -> Result<$type, $crate::card::UnknownWord> {
                match word { $($word => Ok($type::$variant),)+ _ => Err($crate::card::UnknownWord($all)) }
            }
        }
    };
}
pub(crate) use words;

words!(
    /// What a replica is doing.
    Phase, "ready, refreshing, loading, busy, stopping", {
        /// It serves pulls and applies the live stream.
        Ready = "ready",
        /// It is catching up; its vector is true, but behind.
        Refreshing = "refreshing",
        /// Its initial load is not whole: no source for anything.
        Loading = "loading",
        /// It cannot serve: no source for others.
        Busy = "busy",
        /// It is about to leave.
        Stopping = "stopping",
    }
);

words!(
    /// Where a replica's live stream goes.
    Live, "muc, pubsub", {
        /// Into the room.
        Muc = "muc",
        /// To its pubsub node.
        Pubsub = "pubsub",
    }
);

impl Card {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        check_plain("pubsub node", &self.node, limits::NODE_BYTES_MAX)?;
        check_plain("software", &self.software, limits::SOFTWARE_BYTES_MAX)?;
        check("bytes of suffix", Place::Card, self.suffix.len(), limits::DN_BYTES_MAX)?;
        let csns: Vec<Csn> = self.vector.iter().collect();
        check_payload_size(Place::Card, card_size(self, csns.len()))?;
        let card = schema::Replica {
            version: VERSION,
            sid: self.sid,
            boot: self.boot,
            seq: self.seq,
            phase: self.phase,
            live: self.live,
            node: self.node.clone(),
            software: self.software.clone(),
            dataset: self.dataset,
            done: self.progress.map(|progress| progress.done),
            of: self.progress.map(|progress| progress.total),
            suffix: schema::Suffix::new(self.suffix.as_bytes()),
            csns,
        };
        batch::to_element(&card, Place::Card)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Card, WireError> {
        // First of all: another version may lack or rename any other attribute.
        let version = element.attr("version").unwrap_or_default();
        if version.parse() != Ok(VERSION) {
            const SHOWN_CHARS: usize = 16;
            return Err(WireError::Version {
                found: version.chars().take(SHOWN_CHARS).collect(),
                known: VERSION,
            });
        }
        let card: schema::Replica = read::element(element, Place::Card)?;
        check_plain("pubsub node", &card.node, limits::NODE_BYTES_MAX)?;
        check_plain("software", &card.software, limits::SOFTWARE_BYTES_MAX)?;
        let place = Place::Card;
        let suffix =
            card.suffix.into_bytes().ok_or(WireError::Base64 { what: "the suffix", place: place.clone() })?;
        check("bytes of suffix", Place::Card, suffix.len(), limits::DN_BYTES_MAX)?;
        let progress = both(card.done, card.of, "done and of", Place::Card)?;
        Ok(Card {
            sid: card.sid,
            boot: card.boot,
            seq: card.seq,
            phase: card.phase,
            live: card.live,
            node: card.node,
            suffix: String::from_utf8(suffix).map_err(|_| WireError::NotUtf8 { what: "suffix", place })?,
            software: card.software,
            vector: vector(&card.csns, Place::Card)?,
            dataset: card.dataset,
            progress: progress.map(|(done, total)| Progress { done, total }),
        })
    }
}

/// Two attributes that stand together or not at all.
pub(crate) fn both<A, B>(
    one: Option<A>,
    other: Option<B>,
    names: &'static str,
    place: Place,
) -> Result<Option<(A, B)>, WireError> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        _ => Err(WireError::Half { names, place }),
    }
}

/// A vector from its CSNs, of which a server has one.
pub(crate) fn vector(csns: &[Csn], place: Place) -> Result<Vector, WireError> {
    check("CSNs", place.clone(), csns.len(), limits::VECTOR_CSNS_MAX)?;
    let mut vector = Vector::default();
    for csn in csns {
        if vector.get(csn.server_id()).is_some() {
            return Err(WireError::TwoCsns { place, server: csn.server_id() });
        }
        vector.advance(*csn);
    }
    Ok(vector)
}

/// What a vector covers and was not seen, as elements.
pub(crate) fn unseen_elements(unseen: &Unseen) -> Vec<schema::UnseenSpan> {
    unseen.iter().map(|span| schema::UnseenSpan { after: span.after(), until: span.until() }).collect()
}

/// The same back.
pub(crate) fn unseen(spans: &[schema::UnseenSpan], place: Place) -> Result<Unseen, WireError> {
    check("spans", place.clone(), spans.len(), limits::UNSEEN_SPANS_MAX)?;
    let mut unseen = Unseen::default();
    for schema::UnseenSpan { after, until } in spans {
        let span = Span::new(*after, *until)
            .ok_or(WireError::TwoCsns { place: place.clone(), server: until.server_id() })?;
        unseen.add(span);
    }
    Ok(unseen)
}

/// `<unseen after='…' until='…'></unseen>`
pub(crate) const UNSEEN_BYTES: usize = 2 * Csn::LEN + 38;

/// `<csn>…</csn>`
pub(crate) const CSN_BYTES: usize = Csn::LEN + 11;

pub(crate) fn check_payload_size(place: Place, bytes: usize) -> Result<(), WireError> {
    let max = limits::PAYLOAD_BYTES_MAX;
    if bytes > max { Err(WireError::TooLarge { place, bytes, max }) } else { Ok(()) }
}

fn card_size(card: &Card, csns: usize) -> usize {
    // <replica …></replica> with the longest words and numbers, <suffix></suffix>
    const CARD_BYTES: usize = 360;
    CARD_BYTES
        + text::escaped_len(&card.node)
        + text::escaped_len(&card.software)
        + text::encoded_len(card.suffix.as_bytes())
        + csns * CSN_BYTES
}

/// A text that stands in an attribute, where there is no base64.
fn check_plain(what: &'static str, value: &str, bytes_max: usize) -> Result<(), WireError> {
    let unit = if what == "software" { "bytes of software" } else { "bytes of pubsub node" };
    check(unit, Place::Card, value.len(), bytes_max)?;
    text::plain(value.as_bytes()).map(|_| ()).ok_or(WireError::NotPlain { what, place: Place::Card })
}

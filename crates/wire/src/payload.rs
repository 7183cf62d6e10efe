//! Everything that replicas say to each other.

use crate::error::check;
use crate::{
    Card, NAMESPACE, Notice, Page, Part, Place, Pull, WireError, batch, batch_to_element, limits, read,
};
use minidom::Element;
use xmppsync_replica::Batch;

/// One payload of a stanza.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Changes: live in the room or on a pubsub node, or stored for a replica that is away.
    Batch(Batch),
    /// A piece of a batch that is too large for a stanza.
    Part(Part),
    /// In presence.
    Card(Card),
    /// In an IQ get.
    Pull(Pull),
    /// In an IQ result.
    Page(Page),
    /// In the room, beside a `<body>`.
    Notice(Notice),
}

impl Payload {
    /// Whether the element is of this protocol, whatever version and content.
    pub fn is_ours(element: &Element) -> bool {
        element.has_ns(NAMESPACE)
    }

    /// Decodes an element of a stanza.
    ///
    /// # Errors
    /// [`WireError::NotAPayload`] for an element of another protocol, others for one that is malformed.
    pub fn decode(element: &Element) -> Result<Payload, WireError> {
        if !Payload::is_ours(element) {
            return Err(WireError::NotAPayload);
        }
        if !read::nests_within(element, limits::NESTING_MAX) {
            return Err(read::too_deep(Place::Document));
        }
        match element.name() {
            "batch" => {
                let changes = element.children().count();
                check("changes", Place::Batch, changes, limits::CHANGES_PER_BATCH_MAX)?;
                batch::from_schema(read::element(element, Place::Batch)?).map(Payload::Batch)
            }
            "part" => Part::from_element(element).map(Payload::Part),
            "replica" => Card::from_element(element).map(Payload::Card),
            "pull" => Pull::from_element(element).map(Payload::Pull),
            "page" => Page::from_element(element).map(Payload::Page),
            "event" => Notice::from_element(element).map(Payload::Notice),
            _ => Err(WireError::NotAPayload),
        }
    }

    /// Encodes the payload for a stanza. A batch comes out whole, whatever its size: use
    /// [`split`](crate::split) for what goes out.
    ///
    /// # Errors
    /// What the receiver would refuse to decode, and what does not fit into a stanza.
    pub fn to_element(&self) -> Result<Element, WireError> {
        match self {
            Payload::Batch(batch) => batch_to_element(batch),
            Payload::Part(part) => part.to_element(),
            Payload::Card(card) => card.to_element(),
            Payload::Pull(pull) => pull.to_element(),
            Payload::Page(page) => page.to_element(),
            Payload::Notice(notice) => notice.to_element(),
        }
    }
}

/// Decodes a document of at most [`limits::DOCUMENT_BYTES_MAX`] bytes, parsed as the XMPP stack
/// parses a stanza.
///
/// # Errors
/// As [`Payload::decode`], and for XML that is not well-formed, too long or too deep.
pub fn decode_bytes(bytes: &[u8]) -> Result<Payload, WireError> {
    let element: Element = read::document(bytes, limits::DOCUMENT_BYTES_MAX, Place::Document)?;
    Payload::decode(&element)
}

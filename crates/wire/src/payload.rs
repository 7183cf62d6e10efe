//! Everything that replicas say to each other.

use crate::error::check;
use crate::{
    Card, Entries, Fetch, File, FileRequest, Large, LoadRequest, NAMESPACE, Notice, Offer, Page, Part, Place,
    Pull, Reconcile, Snapshot, WireError, batch, batch_to_element, limits, read,
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
    /// In an IQ get and in its result.
    Reconcile(Reconcile),
    /// In an IQ get.
    Fetch(Fetch),
    /// In an IQ set.
    Offer(Offer),
    /// In the result of a fetch, and in that of an offer.
    Entries(Entries),
    /// In an IQ get.
    LoadRequest(LoadRequest),
    /// In an IQ result.
    Snapshot(Snapshot),
    /// In an IQ get.
    FileRequest(FileRequest),
    /// In an IQ result.
    File(File),
    /// Where a batch would stand, or in an IQ result where a page would.
    Large(Large),
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
            "reconcile" => Reconcile::from_element(element).map(Payload::Reconcile),
            "fetch" => Fetch::from_element(element).map(Payload::Fetch),
            "offer" => Offer::from_element(element).map(Payload::Offer),
            "entries" => Entries::from_element(element).map(Payload::Entries),
            "load" => LoadRequest::from_element(element).map(Payload::LoadRequest),
            "snapshot" => Snapshot::from_element(element).map(Payload::Snapshot),
            // The request and the answer have one name; only the answer has an id.
            "file" if element.attr("id").is_some() => File::from_element(element).map(Payload::File),
            "file" => FileRequest::from_element(element).map(Payload::FileRequest),
            "large" => Large::from_element(element).map(Payload::Large),
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
            Payload::Reconcile(reconcile) => reconcile.to_element(),
            Payload::Fetch(fetch) => fetch.to_element(),
            Payload::Offer(offer) => offer.to_element(),
            Payload::Entries(entries) => entries.to_element(),
            Payload::LoadRequest(request) => request.to_element(),
            Payload::Snapshot(snapshot) => snapshot.to_element(),
            Payload::FileRequest(request) => request.to_element(),
            Payload::File(file) => file.to_element(),
            Payload::Large(large) => large.to_element(),
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

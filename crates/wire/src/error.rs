//! What can be wrong with a payload, and where.

use std::fmt;
use thiserror::Error;
use xmppsync_replica::{Csn, EntryUuid, ServerId};

/// Why a payload cannot be decoded or encoded. No text of it holds an attribute's value: values
/// can be passwords, and errors are logged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Not well-formed, or not what the element may hold.
    #[error("The XML of {place} is malformed: {reason}.")]
    Malformed {
        /// The element.
        place: Place,
        /// What the parser says.
        reason: String,
    },
    /// An element that is no payload of this protocol.
    #[error("The element is none of urn:xmpp:ldapsync:0.")]
    NotAPayload,
    /// The other side speaks another version.
    #[error("The replica's card states wire version {found}, this side speaks {known} only.")]
    Version {
        /// What the card states; empty when it states none.
        found: String,
        /// What this side speaks.
        known: u32,
    },
    /// More than [`limits`](crate::limits) allows.
    #[error("There are {found} {what} in {place}, the limit is {max}.")]
    Limit {
        /// What was counted, with its unit.
        what: &'static str,
        /// Where.
        place: Place,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A batch without changes.
    #[error("The batch of server {origin} is empty.")]
    EmptyBatch {
        /// Whose batch.
        origin: ServerId,
    },
    /// Sequence numbers start at 1 and `last` follows from `first` and the number of changes.
    #[error("The sequence {first} to {last} does not fit a batch of {changes} changes.")]
    Sequence {
        /// The stated first number.
        first: u64,
        /// The stated last number.
        last: u64,
        /// The changes that there are.
        changes: usize,
    },
    /// A change of one server in another's batch.
    #[error("The change {csn} is in a batch of server {origin}, which did not make it.")]
    ForeignChange {
        /// Whose batch.
        origin: ServerId,
        /// The change.
        csn: Csn,
    },
    /// Not an attribute description (RFC 4512, 2.5), nor what OpenLDAP takes for one.
    #[error("An attribute description in {place} has a character that none has, or is empty.")]
    AttributeName {
        /// The change.
        place: Place,
    },
    /// Marked as base64, and is none.
    #[error("The base64 of {what} in {place} is malformed.")]
    Base64 {
        /// Which text.
        what: &'static str,
        /// Where.
        place: Place,
    },
    /// A DN must be UTF-8 (RFC 4514).
    #[error("The {what} in {place} is not UTF-8.")]
    NotUtf8 {
        /// Which text.
        what: &'static str,
        /// Where.
        place: Place,
    },
    /// A text that cannot stand in an XML attribute.
    #[error("The {what} in {place} has control characters or spaces at its ends.")]
    NotPlain {
        /// Which text.
        what: &'static str,
        /// Where.
        place: Place,
    },
    /// Two CSNs of one server in a vector.
    #[error("The vector in {place} has two CSNs of server {server}.")]
    TwoCsns {
        /// Where.
        place: Place,
        /// The server.
        server: ServerId,
    },
    /// One of two attributes that stand together or not at all.
    #[error("The attributes {names} of {place} stand together or not at all.")]
    Half {
        /// Which attributes.
        names: &'static str,
        /// Of what.
        place: Place,
    },
    /// Two attributes of which one stands, and never the other with it.
    #[error("Exactly one of the attributes {names} of {place} stands.")]
    Either {
        /// Which attributes.
        names: &'static str,
        /// Of what.
        place: Place,
    },
    /// The vectors of a reconciliation are exchanged when it begins.
    #[error("Round {round} of a reconciliation names a vector, or round 0 names none.")]
    VectorRound {
        /// The round.
        round: u32,
    },
    /// Neither an entry nor its tombstone, where an entry's state is due.
    #[error("The change {csn} is neither a put nor a delete.")]
    NotAState {
        /// The change.
        csn: Csn,
    },
    /// A move of one entry in the past of another one.
    #[error("The past of entry {uuid} has a move of entry {child}.")]
    ForeignMove {
        /// Whose past.
        uuid: EntryUuid,
        /// The entry that moves.
        child: EntryUuid,
    },
    /// A name of a file that others could take for something else, such as a path.
    #[error("The id in {place} is not 1 to {max} letters, digits and hyphens.")]
    FileId {
        /// Where.
        place: Place,
        /// The limit in bytes.
        max: usize,
    },
    /// Larger than may be sent at all.
    #[error("{place} takes {bytes} bytes of XML, the limit is {max}.")]
    TooLarge {
        /// What is too large.
        place: Place,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The part's own numbers contradict each other.
    #[error("Part {n} of {of} from server {origin} contradicts itself: {reason}.")]
    PartHeader {
        /// Whose part.
        origin: ServerId,
        /// Its number, from 0.
        n: u32,
        /// How many there are.
        of: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// A part came without the ones before it. What was assembled of that batch is dropped.
    #[error(
        "Part {expected} of the batch {first} to {last} of server {origin} is missing: part {found} came."
    )]
    PartMissing {
        /// Whose part.
        origin: ServerId,
        /// The first sequence number of the batch.
        first: u64,
        /// The last one.
        last: u64,
        /// The number of the missing part, from 0.
        expected: u32,
        /// The part that came instead.
        found: u32,
    },
    /// A part was repeated with other content, or the whole is not what its parts announced.
    #[error("The parts of the batch {first} to {last} of server {origin} do not fit together: {reason}.")]
    PartsDisagree {
        /// Whose parts.
        origin: ServerId,
        /// The first sequence number of the batch.
        first: u64,
        /// The last one.
        last: u64,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Where in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Anywhere in the document.
    Document,
    /// A `<batch>`.
    Batch,
    /// One change of a batch.
    Change(Csn),
    /// One attribute or modification of a change, by its validated name.
    Attribute(Csn, String),
    /// A `<part>`.
    Part,
    /// A `<replica>`.
    Card,
    /// A `<pull>`.
    Pull,
    /// A `<page>`.
    Page,
    /// An `<event>`.
    Notice,
    /// A `<reconcile>`.
    Reconcile,
    /// A `<fetch>`.
    Fetch,
    /// An `<entries>`.
    Entries,
    /// What an `<entries>` tells of this entry's past.
    Past(EntryUuid),
    /// An `<offer>`.
    Offer,
    /// A `<load>`.
    Load,
    /// A `<snapshot>`.
    Snapshot,
    /// A `<file>`.
    File,
    /// A `<large>`.
    Large,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Document => f.write_str("the document"),
            Place::Batch => f.write_str("the batch"),
            Place::Change(csn) => write!(f, "change {csn}"),
            Place::Attribute(csn, name) => write!(f, "attribute {name} of change {csn}"),
            Place::Part => f.write_str("the part"),
            Place::Card => f.write_str("the replica's card"),
            Place::Pull => f.write_str("the pull"),
            Place::Page => f.write_str("the page"),
            Place::Notice => f.write_str("the event"),
            Place::Reconcile => f.write_str("the reconciliation"),
            Place::Fetch => f.write_str("the fetch"),
            Place::Entries => f.write_str("the entries"),
            Place::Past(uuid) => write!(f, "the past of entry {uuid}"),
            Place::Offer => f.write_str("the offer"),
            Place::Load => f.write_str("the request for a snapshot"),
            Place::Snapshot => f.write_str("the snapshot"),
            Place::File => f.write_str("the file"),
            Place::Large => f.write_str("the reference to a large change"),
        }
    }
}

/// Refuses what is over its limit.
pub(crate) fn check(what: &'static str, place: Place, found: usize, max: usize) -> Result<(), WireError> {
    if found > max { Err(WireError::Limit { what, place, found, max }) } else { Ok(()) }
}

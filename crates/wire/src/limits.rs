//! Every limit of the wire in one place. What exceeds one is refused, on both sides.

/// A stanza on the wire, in bytes. Debian's ejabberd takes 262,144, prosody 256 KiB; a stanza over
/// the server's limit ends the stream and loses what was queued behind it.
pub const STANZA_BYTES_MAX: usize = 128 * 1024;

/// What `<message>` with its addresses, hints and a human `<body>` may cost around a payload, in bytes.
pub const STANZA_WRAPPING_BYTES: usize = 1024;

/// A payload as it stands in a stanza, in bytes, with every character escaped that any server on
/// the way might escape.
pub const PAYLOAD_BYTES_MAX: usize = STANZA_BYTES_MAX - STANZA_WRAPPING_BYTES;

/// A document given to [`decode_bytes`](crate::decode_bytes), in bytes: the largest stanza that a
/// server lets through.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// The XML of one batch put together from parts, in bytes. Larger changes travel by reference.
pub const ASSEMBLED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What all unfinished assemblies of a receiver may hold together, in bytes.
pub const ASSEMBLING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Origins whose parts are put together at one time.
pub const ASSEMBLIES_MAX: usize = 16;

/// Parts of one batch: [`ASSEMBLED_BYTES_MAX`] with every character escaped to six bytes.
pub const PARTS_MAX: usize = 1024;

/// What `<part …></part>` costs around its text, in bytes.
pub const PART_WRAPPING_BYTES: usize = 320;

/// Changes of a batch that a receiver takes; senders flush at 50.
pub const CHANGES_PER_BATCH_MAX: usize = 1_000;

/// Attributes of an added entry, or modifications of one modify. More than any request of slapd's default size has.
pub const ATTRIBUTES_PER_CHANGE_MAX: usize = 400_000;

/// Values of one attribute: a large group has a member each. More than any request of slapd's default size has.
pub const VALUES_PER_ATTRIBUTE_MAX: usize = 1_500_000;

/// An attribute description with its options, in bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 512;

/// A DN, RDN or suffix, in bytes.
pub const DN_BYTES_MAX: usize = 8 * 1024;

/// The name of a pubsub node, in bytes. XML parsers on the way end the stream over an attribute
/// value of more than 8,192.
pub const NODE_BYTES_MAX: usize = 1024;

/// The name and version of the software in a card, in bytes.
pub const SOFTWARE_BYTES_MAX: usize = 64;

/// CSNs of a vector: one for each serverID that there can be.
pub const VECTOR_CSNS_MAX: usize = 4_095;

/// Spans of what a vector covers and was not seen.
pub const UNSEEN_SPANS_MAX: usize = 2 * VECTOR_CSNS_MAX;

/// Batches of one page.
pub const BATCHES_PER_PAGE_MAX: usize = 256;

/// A frame of a reconciliation, in bytes: as base64 it leaves room for the vector of some 190 servers.
pub const FRAME_BYTES_MAX: usize = 90_000;

/// Entries that are asked for at once, and that an answer speaks of.
pub const FETCH_UUIDS_MAX: usize = 512;

/// Changes that are asked for at once, and that an answer speaks of.
pub const FETCH_CHANGES_MAX: usize = 512;

/// Changes that a past tells to be in its entry, and as many that wait.
pub const PAST_CHANGES_MAX: usize = 1_000;

/// Moves that a past tells of: some 80 kB.
pub const PAST_MOVES_MAX: usize = 500;

/// What `<entries more='false'><changes></changes></entries>` costs around its content, in bytes.
pub const ENTRIES_WRAPPING_BYTES: usize = 80;

/// What naming one entry costs in `<fetch>`, `<offer>` or `<entries>`, in bytes.
pub const UUID_ELEMENT_BYTES: usize = 56;

/// What naming one change costs in `<fetch>` or `<entries>`, in bytes.
pub const CSN_ELEMENT_BYTES: usize = 64;

/// The id of a snapshot or file, in bytes.
pub const FILE_ID_BYTES_MAX: usize = 64;

/// The XML of one change that travels as a file, in bytes. It is held in memory whole.
pub const CHANGE_FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One entry of a snapshot as LDIF, in bytes.
pub const LDIF_RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Values of all attributes of one entry of a snapshot: each costs 24 bytes beside its own.
pub const LDIF_VALUES_PER_RECORD_MAX: usize = 2_000_000;

/// What a reader or writer of LDIF holds on to between two entries, in bytes.
pub const LDIF_KEPT_BYTES: usize = 1024 * 1024;

/// Elements within elements. A page nests five deep; a parser that builds trees recurses as deep
/// as a stanza nests, and a stack that overflows takes slapd down with it.
pub const NESTING_MAX: usize = 8;

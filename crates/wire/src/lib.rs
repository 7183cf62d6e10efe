//! The codec: what replicas tell each other, to and from XML. Pure: no IO, no clock.
//!
//! The protocol is described in `docs/PROTOCOL.md`; every example there is decoded by a test here.
//!
//! Reading order: what may be said at all ([`Payload`]), how large it may be ([`limits`]), how a
//! value stands in XML (`text`), the elements as types (`schema`), then one module per payload:
//! batches and their changes (`encode` writes them), parts of a batch too large for a stanza ([`split`], [`Assembler`]),
//! [`Card`], [`Pull`] and [`Page`], [`Reconcile`], [`Fetch`], [`Offer`] and [`Entries`] with what is remembered of them ([`Past`]),
//! [`LoadRequest`] and [`Snapshot`], [`Large`], [`FileRequest`] and [`File`], [`Notice`]. Last, the format of snapshots ([`ldif`]).
//!
//! Bytes from outside never panic and never cost more memory or stack than [`limits`] allows.
#![forbid(unsafe_code)]

mod assemble;
mod batch;
mod card;
mod change;
mod encode;
mod entries;
mod error;
mod large;
pub mod ldif;
pub mod limits;
mod load;
mod notice;
mod page;
mod part;
mod past;
mod payload;
mod read;
mod reconcile;
mod schema;
mod text;

pub use assemble::Assembler;
pub use batch::encoded_size_estimate;
pub use card::{Card, Live, Phase, Progress};
pub use encode::batch_to_element;
pub use entries::{Entries, Fetch, Offer};
pub use error::{Place, WireError};
pub use large::{Large, change_from_xml, change_to_xml};
pub use load::{File, FileRequest, LoadRequest, Snapshot};
pub use notice::{Notice, NoticeKind};
pub use page::{Page, Pull};
pub use part::{Part, split};
pub use past::{Past, past_size_estimate, side_size_estimate};
pub use payload::{Payload, decode_bytes};
pub use reconcile::{Reconcile, Session};

/// The namespace of every element of the protocol. Its last part is the wire version.
pub const NAMESPACE: &str = "urn:xmpp:ldapsync:0";

/// The wire version that a [`Card`] states.
pub const VERSION: u32 = 0;

//! Files from one member of a group to another: Jingle file transfer (XEP-0166, XEP-0234).
//!
//! # Map, in reading order
//! | module | is |
//! | --- | --- |
//! | `offer`, `hash` | what the owner of a group sees |
//! | `table` | the session's side: which stanza belongs to which transfer |
//! | `send`, `receive` | one task for each transfer and side |
//! | `port` | its way to the session and to the peer |
//! | `source`, `frames` | from the file to encrypted frames |
//! | `meeting` with `candidates`, `dial`, `socks`, `proxy` | TCP as transport |
//! | `ibb` | stanzas as transport, where TCP does not go |
//! | `elements` | the XML |
//!
//! A session is one file, from the initiator to the responder. The id of the transport is that of the session.

mod candidates;
mod dial;
mod elements;
mod frames;
mod hash;
mod ibb;
mod meeting;
mod offer;
mod port;
mod proxy;
mod receive;
mod send;
pub(crate) mod socks;
mod source;
mod table;

pub use hash::FileHash;
pub use offer::{FileOffer, FileReader, IncomingFile, OutgoingFile, Sent, TransferError, Transport};

pub(crate) use frames::{Opener, Sealer};
pub(crate) use port::Ask;
pub(crate) use socks::Read;
pub(crate) use table::{OfferFile, Transfers, ask, end, handle, is_for_transfer, offer};

//! One XMPP connection, shared by the groups of a server.
//!
//! A *group* is one room and one set of pubsub nodes; a [`Session`] is one full JID. The crate carries
//! payloads in the namespace [`NS_LDAPSYNC`] and does not look into them. It promises little, as XMPP does:
//! payloads may be lost, repeated or, between carriers, reordered. What it does promise is to say so:
//! [`Event::Offline`] and [`Event::Lost`] come before anything that follows a gap it knows of.
//!
//! # Map, in reading order
//! | module | is |
//! | --- | --- |
//! | `limits` | every limit, in one place |
//! | `config`, `event`, `problem`, `group`, `session` | what the owner of a session sees |
//! | `dns`, `tls`, `connector`, `line` | from a configuration to a stream that is up again and again |
//! | `core` | which groups there are, and what goes to whom |
//! | `room` with `presence`, `setup`, `messages`, `occupants`, `strangers` | the seat in the room |
//! | `node` | the pubsub nodes |
//! | `requests`, `out` | IQs of others, IQs of ours |
//! | `stored` with `held` | messages to one peer, kept by its server while it is away; own presence |
//! | `transfer` | files from one member to another |
//! | `outlet`, `backoff`, `elements`, `command` | tools of the above |
//!
//! `core` and what is below it are state machines without IO and without a clock; `session` is the one task
//! that drives them, `line` the one place that reads and writes.
#![forbid(unsafe_code)]

mod backoff;
mod command;
mod config;
mod connector;
mod core;
#[cfg(test)]
mod core_tests;
mod dns;
mod elements;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod held;
pub mod limits;
mod line;
mod messages;
mod node;
mod occupants;
mod out;
mod outlet;
mod pace;
mod problem;
mod requests;
mod room;
mod session;
mod setup;
mod stored;
mod strangers;
mod tls;
mod transfer;

pub use config::{GroupConfig, Password, Server, SessionConfig, Tls, TransferConfig};
pub use elements::NS_LDAPSYNC;
pub use event::{Carrier, Event, Reply, ReplyLost};
pub use group::{AttachError, Group, RequestError, SendError};
pub use problem::Problem;
pub use session::Session;
pub use transfer::{
    FileHash, FileOffer, FileReader, IncomingFile, OutgoingFile, Sent, TransferError, Transport,
};

pub use xmpp_parsers::jid::{BareJid, FullJid};
pub use xmpp_parsers::minidom::Element;
pub use xmpp_parsers::stanza_error::DefinedCondition;

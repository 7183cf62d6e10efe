//! The journal of one replica: what happened, what is there, what is gone, and how far the others are.
//!
//! It is one [`redb`] file in a directory. Truth is in the database; whenever the journal is lost, damaged or foreign it is made
//! anew from there, at the price of a reconciliation. It blocks, and is used by one thread at a time; time is a
//! parameter.
//!
//! **What always holds.** Of every origin the journal has all changes after its *floor* up to its *head*, and what
//! [`Journal::changes`] gives comes from there. Changes beyond the head, after a hole, are kept until the head comes to
//! them. An entryUUID is in the inventory or among the tombstones, never in both. What a call has acknowledged survives
//! a crash; a call that failed is there whole or not at all.
//!
//! **What is assumed of the medium.** After an fsync that succeeded the bytes are there. A torn write before it is
//! found by checksums. After one that failed nothing is assumed: the journal refuses everything from then on
//! ([`JournalError::Poisoned`]), and the host goes on without it.
//!
//! Reading order: [`Journal`] (opening, reading, closing), [`Record`] and [`Journal::write`], [`Journal::changes`],
//! [`Journal::trim`], [`Journal::later`] and what stands
//! with it; then the file: `open`, `store`, `state`, and the bytes: `key`, [`codec`], `peer`.
//! [`limits`] has every limit. [`loading`] is a mark beside the file, [`pending`] are files beside it.
#![forbid(unsafe_code)]

pub mod codec;
mod error;
mod journal;
mod key;
pub mod limits;
pub mod loading;
mod lost;
mod open;
mod page;
mod peer;
pub mod pending;
mod record;
mod rules;
mod state;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trim;
mod write;

pub use error::JournalError;
pub use journal::{Journal, Opened};
pub use page::{Page, Run};
pub use peer::{Peer, SetAside};
pub use record::Record;
pub use rules::Deleted;
pub use trim::{Forced, Retention, Trimmed};

//! The pure core of a replica: no randomness, no IO, and the time only as a parameter.
//!
//! Reading order: the words ([`Csn`], [`ServerId`], [`EntryUuid`], [`BootId`]), what changes
//! ([`Change`], [`Batch`]), how far a replica has come ([`Vector`]) and what its time is ([`Clock`]); then the way out
//! ([`CommitOrder`], [`Bookkeeping`], [`Outbox`]), the way in ([`Inbox`]), and the comparison of whole databases ([`Comparison`]).
#![forbid(unsafe_code)]

mod bookkeeping;
mod change;
mod clock;
mod commit_order;
mod compare;
mod csn;
mod fingerprint;
mod ids;
mod inbox;
pub mod merge;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
pub mod names;
mod outbox;
#[cfg(test)]
mod testing;
mod unseen;
mod vector;
mod verdict;

pub use bookkeeping::Bookkeeping;
pub use change::{Batch, Change, Operation};
pub use clock::{Clock, ahead};
pub use commit_order::CommitOrder;
pub use compare::{CompareError, Comparison, Differences, EntrySet, FRAME_BYTES_MAX, SET_ENTRY_BYTES, Step};
pub use csn::{Csn, CsnError};
pub use fingerprint::Fingerprint;
pub use ids::{BootId, EntryUuid, IdError, ServerId};
pub use inbox::{Action, Inbox, InboxLimits, PeerCard, PullId};
pub use merge::{Lost, Move, Place};
pub use outbox::{Outbox, OutboxLimits};
pub use unseen::{Span, Unseen};
pub use vector::Vector;
pub use verdict::{Judgement, Known, Seen, Side, Sides, Verdict};

//! The pure core of a replica: no randomness, no IO, and the time only as a parameter.
//!
//! Reading order: the words ([`Csn`], [`ServerId`], [`EntryUuid`], [`BootId`]), what changes
//! ([`Change`], [`Batch`]), how far a replica has come ([`Vector`]); then the way out
//! ([`CommitOrder`], [`Outbox`]) and the way in ([`Inbox`]).
#![forbid(unsafe_code)]

mod change;
mod commit_order;
mod csn;
mod ids;
mod inbox;
mod outbox;
#[cfg(test)]
mod testing;
mod vector;

pub use change::{Batch, Change, Operation};
pub use commit_order::CommitOrder;
pub use csn::{Csn, CsnError};
pub use ids::{BootId, EntryUuid, IdError, ServerId};
pub use inbox::{Action, Inbox, InboxLimits, PeerCard, PullId};
pub use outbox::{Outbox, OutboxLimits};
pub use vector::Vector;

//! The one loop that joins a database, the replication core and the XMPP network.
//!
//! ```text
//! client's thread: captured() ─┐                          ┌─ apply() on the host's thread
//!                              ▼                          ▲
//!            Shared ── queue of captured ──► driver ──► queue to apply
//!                                             │ ▲
//!                                    outbox ──┘ └── inbox
//!                                             ▼ │
//!                                     link::Group (room, node, requests)
//! ```
//!
//! Reading order: [`Database`] and [`Transaction`] (what a host provides), [`Replica`] (what it gets),
//! `apply` (changes of others into the database), `driver` (the loop) with `outgoing` and `incoming`,
//! [`Hub`] (the thread and the connections that all replicas of a process share).
#![forbid(unsafe_code)]

mod answers;
mod apply;
mod captured;
mod clock;
mod driver;
mod fail;
mod files;
mod heal;
mod host;
mod hub;
mod incoming;
mod known;
pub mod limits;
mod load;
mod members;
mod merging;
mod opening;
mod outgoing;
mod patience;
mod reads;
mod replica;
mod shared;
mod snapshot;
mod states;
mod store;
mod stored;
#[cfg(test)]
mod testing;
mod to_apply;

pub use fail::{FailPoint, fail_point};
pub use host::{
    ContextCsnWrite, Database, DumpEnd, Failure, Generation, Opening, Outcome, Reader, Standing, Stored,
    Transaction,
};
pub use hub::{Hub, HubError};
pub use opening::OpeningError;
pub use replica::{KeepConfig, OpenError, Replica, ReplicaConfig};

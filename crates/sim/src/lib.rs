//! A model of replicas, simple and separate from the overlay, to hunt for divergence: databases made of maps, a clock and a network
//! that are virtual, and the rules and state machines of `xmppsync-replica` as they are.
//!
//! Reading order: [`Model`] (one database), [`ops`] (what clients do to it); then the simulation of a group: `clock`, `journal`, `replica`
//! (one of them), `network` (virtual time), `world` (what happens between them), `comparison`, `mishaps` (what
//! breaks), `members` (who comes and goes), [`Scenario`] (a run
//! from its seed), `ledger` and `tree` (the checkers).
//!
//! What is simpler than in the overlay:
//!
//! - A comparison knows what two databases lack of each other by change, and happens at one moment. With
//!   [`Scenario::by_states`] it knows states and what both sides remember, and which deletes one of them does not know (`comparison`).
//! - A replica that comes loads a database together with the changes, moves and deletes that its source remembers, or by states without
//!   the changes (`members`).
//! - Changes are forgotten by a rule that is stricter than the time that a journal keeps them (`Replica::stable`), and deletes
//!   never. What tells of the values of an entry's name, and of several numbers that are incremented, is kept longer (`Model::forget`).
//! - A server that was put back notices it, and its clock is not put back with it (`members`).
//! - Of own changes that a crash takes from the journal deletes do not become what tells of them without their place, and the others become
//!   states only if the entry's last change is among them; else they are found whole (`mishaps`).
//! - Batches that are too large, the offline store, and what a database refuses are not there.
#![forbid(unsafe_code)]

mod clock;
mod comparison;
mod journal;
mod ledger;
mod members;
mod mishaps;
mod model;
#[cfg(feature = "mutations")]
pub mod mutations;
mod network;
pub mod ops;
mod replica;
mod scenario;
mod shrink;
mod tree;
mod world;

pub use ledger::{Checker, Violation};
pub use model::{Entry, Model};
pub use scenario::Scenario;
pub use shrink::shrink;
pub use world::Stats;

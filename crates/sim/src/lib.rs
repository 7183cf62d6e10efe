//! A model of replicas, simple and separate from the overlay, to hunt for divergence: databases made of maps, a clock and a network
//! that are virtual, and the rules and state machines of `xmppsync-replica` as they are.
//!
//! Reading order: [`Model`] (one database), [`ops`] (what clients do to it); then the simulation of a group: `clock`, `journal`, `replica`
//! (one of them), `network` (virtual time), `world` (what happens between them), `comparison`, `mishaps` (what
//! breaks), `members` (who comes and goes), [`Scenario`] (a run
//! from its seed), `ledger` and `tree` (the checkers).
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

//! A model of replicas, simple and separate from the overlay, to hunt for divergence: databases made of maps, a clock and a network
//! that are virtual, and the rules and state machines of `xmppsync-replica` as they are.
//!
//! Reading order: [`Model`] (one database), [`ops`] (what clients do to it).
#![forbid(unsafe_code)]

mod model;
pub mod ops;

pub use model::{Entry, Model};

//! Faults on purpose: servers on a network of their own, whose lines, processes, disks and clocks are harmed while
//! clients write. In the end all copies are equal, nothing acknowledged is lost and nothing deleted is back.
//!
//! It needs root, for network namespaces; elsewhere its tests say that they were left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cases;
mod checker;
mod client;
mod fault;
mod field;
mod history;
mod mix;
mod traffic;

/// `XMPPSYNC_SEED`, which repeats a run.
fn seed() -> Option<u64> {
    std::env::var("XMPPSYNC_SEED").ok().and_then(|seed| seed.parse().ok())
}

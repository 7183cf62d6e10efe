//! Debian's slapd with the overlay, and a real XMPP server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod aside;
mod attributes;
mod beside_syncrepl;
mod catching_up;
mod clocks;
mod comparing;
mod configuration;
mod conflicts;
mod convergence;
mod crash;
mod databases;
mod journal;
mod large;
mod ledger;
mod loading;
mod loading_faults;
mod marks;
mod meanwhile;
mod memory;
mod modify;
mod offline_messages;
mod offline_tools;
mod one_name;
mod onlooker;
mod order;
mod overlays;
mod prosody;
mod reconfiguration;
mod refusal;
mod releases;
mod rename;
mod session;
mod silence;
mod steps;
mod stock;
mod stopping;
mod storm;
mod transactions;
mod trouble;
mod two_xmpp_servers;

use std::time::Duration;

/// How long anything may take before a test gives up. Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(60);

//! The composed system of docker-compose.yml: three slapds and an ejabberd in containers of their own.
//!
//! `cargo xtask test --docker` builds the images, starts the system, runs these tests against it one after the other, and takes
//! it down. Each test leaves three running servers behind that are equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod images;
mod package;
mod secrets;
mod servers;
mod system;

use std::time::Duration;

/// How long anything may take before a test gives up. Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(120);

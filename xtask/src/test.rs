//! `cargo xtask test`: every test of the workspace, with everything that they need.

use std::ffi::OsString;

use anyhow::Result;

use crate::{process, setup, workspace};

/// Sets up, builds the overlay in release mode and runs `cargo test --workspace` with it.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::run()?;
    let module = workspace::build_overlay()?;
    process::run(
        workspace::cargo().args(["test", "--workspace"]).args(arguments).env("XMPPSYNC_MODULE", &module),
    )
}

//! `cargo xtask sim`: the simulator of `crates/sim`, optimised.

use std::ffi::OsString;

use anyhow::Result;

use crate::{process, workspace};

/// Builds the simulator in release mode and runs it with these arguments; with faults in the rules only if they ask for them.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let mut run = workspace::cargo();
    run.args(["run", "--quiet", "--release", "--package", "xmppsync-sim"]);
    if arguments.iter().any(|argument| argument == "--mutations") {
        run.args(["--features", "mutations"]);
    }
    process::run(run.arg("--").args(arguments))
}

//! `cargo xtask test`: every test of the workspace, with everything that they need.

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::{process, setup, workspace};

/// Sets up, builds the overlay in release mode and runs `cargo test --workspace` with it.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::run()?;
    if arguments.is_empty() {
        check_fuzz_targets()?;
    }
    let failpoints = workspace::build_overlay_with_failpoints()?;
    let module = workspace::build_overlay()?;
    let mut test = workspace::cargo();
    test.args(["test", "--workspace"]).args(arguments);
    test.env("XMPPSYNC_MODULE", &module).env("XMPPSYNC_FAILPOINTS_MODULE", &failpoints);
    process::run(&mut test)
}

/// The fuzz targets are a workspace of their own, which nothing else compiles.
fn check_fuzz_targets() -> Result<()> {
    let manifest = workspace::root().join("fuzz/Cargo.toml");
    let mut check = workspace::cargo();
    check.args(["check", "--quiet", "--locked", "--manifest-path"]).arg(&manifest);
    check.arg("--target-dir").arg(workspace::target_dir().join("fuzz"));
    // Nothing is linked, so that no C++ compiler is needed for the fuzzer itself; any file will do.
    check.env("CUSTOM_LIBFUZZER_PATH", &manifest);
    process::run(&mut check).context("the fuzz targets do not compile")
}

//! `cargo xtask test`: every test of the workspace, with everything that they need.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{docker, process, release, setup, workspace};

/// The suites that the first argument asks for.
pub(crate) const HELP: &str = "\
cargo xtask test --prosody [ARGUMENTS]       the end-to-end tests on prosody instead of ejabberd
cargo xtask test --debian 13 [ARGUMENTS]     the end-to-end tests on that release of Debian, and groups of both
cargo xtask test --docker [--all] [NAME…]    builds the images of docker-compose.yml, runs tests/docker against the composed
                                             system (NAME: only these) and a part of the end-to-end tests in the image
                                             `tests` (--all: every one), and takes everything down again
cargo xtask test --faults [ARGUMENTS]        every fault of networks, disks, clocks and servers, one after the other, as root;
                                             or with `--minutes N` at random for so long, which `--seed S` repeats";

/// Runs the suite that the first argument names, or everything.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    match arguments {
        [first, rest @ ..] if first == "--prosody" => end_to_end("prosody", rest),
        [first, rest @ ..] if first == "--debian" => release::test(rest),
        [first, rest @ ..] if first == "--docker" => docker::test(rest),
        [first, rest @ ..] if first == "--faults" => faults(rest),
        _ => everything(arguments),
    }
}

/// Sets up, builds the overlay in release mode and runs `cargo test --workspace` with it.
fn everything(arguments: &[OsString]) -> Result<()> {
    setup::run()?;
    if arguments.is_empty() {
        check_fuzz_targets()?;
    }
    // Without arguments this is the whole judgement of a change, which is to name everything that fails.
    let all: &[&str] = if arguments.is_empty() { &["--no-fail-fast"] } else { &[] };
    process::run(cargo_test()?.arg("--workspace").args(all).args(arguments))
}

/// The end-to-end tests on the named XMPP server.
fn end_to_end(xmpp_server: &str, arguments: &[OsString]) -> Result<()> {
    setup::run()?;
    let mut test = cargo_test()?;
    process::run(test.args(["--test", "end_to_end"]).args(arguments).env("XMPPSYNC_XMPP_SERVER", xmpp_server))
}

/// `cargo test` with the overlays that it needs.
fn cargo_test() -> Result<Command> {
    let failpoints = workspace::build_overlay_with_failpoints()?;
    let module = workspace::build_overlay()?;
    let mut test = workspace::cargo();
    test.arg("test").env("XMPPSYNC_MODULE", &module).env("XMPPSYNC_FAILPOINTS_MODULE", &failpoints);
    Ok(test)
}

/// The faults that take long; what is no word of ours goes to the tests.
fn faults(arguments: &[OsString]) -> Result<()> {
    setup::run()?;
    let module = workspace::build_overlay()?;
    let mut test = workspace::cargo();
    test.args(["test", "--test", "faults", "--", "--nocapture", "--test-threads=1"]);
    let mut rest = arguments.iter();
    let mut is_random = false;
    while let Some(argument) = rest.next() {
        let variable = match argument.to_str() {
            Some("--minutes") => "XMPPSYNC_MINUTES",
            Some("--seed") => "XMPPSYNC_SEED",
            _ => {
                test.arg(argument);
                continue;
            }
        };
        is_random |= variable == "XMPPSYNC_MINUTES";
        let value = rest.next().with_context(|| format!("{} needs a number", argument.display()))?;
        test.env(variable, value);
    }
    if is_random {
        test.args(["--ignored", "minutes_of_faults_at_random"]);
    } else {
        test.args(["--include-ignored", "--skip", "minutes_of_faults_at_random"]);
    }
    process::run(test.env("XMPPSYNC_MODULE", &module))
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

//! Where things lie in the workspace, and how cargo is called.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// The directory of the workspace's Cargo.toml.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR` or `target/`.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // cargo takes a relative one from where it was called.
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| PathBuf::from(dir)),
        None => root().join("target"),
    }
}

/// The cargo that called this command.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut cargo = Command::new(program);
    cargo.current_dir(root());
    cargo
}

/// Builds the overlay in release mode and returns the path of the module. `XMPPSYNC_MODULE` names one that
/// was built otherwise, such as with a sanitizer.
pub(crate) fn build_overlay() -> Result<PathBuf> {
    if let Some(module) = std::env::var_os("XMPPSYNC_MODULE") {
        println!("the overlay: {}, from XMPPSYNC_MODULE", module.display());
        return Ok(PathBuf::from(module));
    }
    process::run(cargo().args(["build", "--release", "--package", "xmppsync"]))
        .context("building the overlay")?;
    let module = target_dir().join("release/libxmppsync.so");
    if !module.is_file() {
        bail!("the build left no {}", module.display());
    }
    Ok(module)
}

/// Builds the overlay once more with fail points and returns the path of that module. Only the crates that have some are
/// compiled another time. `XMPPSYNC_FAILPOINTS_MODULE` names one that was built otherwise.
pub(crate) fn build_overlay_with_failpoints() -> Result<PathBuf> {
    if let Some(module) = std::env::var_os("XMPPSYNC_FAILPOINTS_MODULE") {
        return Ok(PathBuf::from(module));
    }
    process::run(cargo().args(["build", "--release", "--package", "xmppsync", "--features", "failpoints"]))
        .context("building the overlay with fail points")?;
    let place = target_dir().join("failpoints");
    let module = place.join("libxmppsync.so");
    // The next build without them writes to the same place; what runs may have this file open.
    let copy = place.join("libxmppsync.so.new");
    std::fs::create_dir_all(&place)
        .and_then(|()| std::fs::copy(target_dir().join("release/libxmppsync.so"), &copy))
        .and_then(|_| std::fs::rename(&copy, &module))
        .with_context(|| format!("cannot make {}", module.display()))?;
    Ok(module)
}

/// Compiles the end-to-end tests and returns the path of the program.
pub(crate) fn build_end_to_end() -> Result<PathBuf> {
    let mut test = cargo();
    // With the features of a test of the whole workspace, whose results are taken then.
    test.args(["test", "--workspace", "--test", "end_to_end", "--no-run"]);
    // What it compiles is seen: it takes its time.
    test.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let messages = process::output(&mut test)?;
    let program = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_this = message.pointer("/target/name")?.as_str()? == "end_to_end";
        message.get("executable")?.as_str().filter(|_| is_this).map(PathBuf::from)
    });
    program.context("cargo names no program of the end-to-end tests")
}

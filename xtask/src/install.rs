//! `cargo xtask install`: the overlay into slapd's module path.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages::Privilege;
use crate::{process, setup, workspace};

/// Debian's slapd looks for modules here when slapd.conf says no other `modulepath`.
const MODULE_DIR: &str = "/usr/lib/ldap";

/// Builds the overlay and copies it to where `moduleload libxmppsync` finds it: slapd's own module path, or
/// the directory, which is made if it is not there.
pub(crate) fn run(to: Option<&Path>) -> Result<()> {
    setup::run()?;
    let module = workspace::build_overlay()?;
    let destination = to.unwrap_or(Path::new(MODULE_DIR)).join("libxmppsync.so");
    let by_hand = format!("install -D -m 644 {} {}", module.display(), destination.display());
    let mut command = match (to, Privilege::available()) {
        (None, Some(privilege)) => privilege.command("install"),
        // The user's own directory, or one that an administrator has made writable.
        _ => Command::new("install"),
    };
    // `install` unlinks the old file first: a running slapd keeps the module that it has mapped.
    process::run(command.args(["-D", "-m", "644"]).arg(&module).arg(&destination))
        .with_context(|| format!("as root, run: {by_hand}"))?;
    println!("{} installed; load it with: moduleload libxmppsync", destination.display());
    if let Some(to) = to {
        println!("in slapd.conf before it: modulepath {MODULE_DIR}:{}", to.display());
    }
    Ok(())
}

//! `cargo xtask install`: the overlay into slapd's module path.

use std::process::Command;

use anyhow::{Context, Result};

use crate::packages::Privilege;
use crate::{process, setup, workspace};

/// Debian's slapd looks for modules here when slapd.conf says no other `modulepath`.
const MODULE_DIR: &str = "/usr/lib/ldap";

/// Builds the overlay and copies it to where `moduleload libxmppsync` finds it.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    let module = workspace::build_overlay()?;
    let destination = format!("{MODULE_DIR}/libxmppsync.so");
    let by_hand = format!("install -m 644 {} {destination}", module.display());
    let mut command = match Privilege::available() {
        Some(privilege) => privilege.command("install"),
        // An administrator may have made the directory writable for this user.
        None => Command::new("install"),
    };
    // `install` unlinks the old file first: a running slapd keeps the module that it has mapped.
    process::run(command.args(["-m", "644"]).arg(&module).arg(&destination))
        .with_context(|| format!("as root, run: {by_hand}"))?;
    println!("{destination} installed; load it with: moduleload libxmppsync");
    Ok(())
}

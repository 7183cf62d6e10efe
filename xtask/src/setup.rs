//! `cargo xtask setup`: whatever building, testing and the demo need from outside the workspace.
//!
//! Fast when all is there, so that the other commands call it first every time.

use anyhow::Result;

use crate::{headers, packages};

/// Installs the Debian packages that are missing, then prepares the headers of OpenLDAP.
pub(crate) fn run() -> Result<()> {
    packages::install_missing()?;
    headers::prepare()
}

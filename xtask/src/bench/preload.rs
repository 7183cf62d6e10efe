//! The same content on all servers before they start, so that no first synchronisation is measured.

use anyhow::{Context, Result};
use xmppsync_lab::{LabDir, SUFFIX, Slapd, SlapdConfig, SlapdOptions, ldif};

/// A directory with so many people as LDIF, with all operational attributes: entryUUIDs, entryCSNs of the
/// server with serverID 1, and contextCSN.
pub(super) fn ldif(people: usize) -> Result<String> {
    let lab = LabDir::new()?;
    let slapd = Slapd::prepare(&lab, "preload", SlapdConfig::default(), SlapdOptions::default())?;
    let records = ldif::directory(SUFFIX, people);
    slapd.slapadd_with(SUFFIX, &ldif::text(&records), &["-q", "-w", "-S", "1"])?;
    slapd.slapcat(SUFFIX).context("reading the content back")
}

/// Loads it into a server that is not running.
pub(super) fn load(server: &Slapd, ldif: &str) -> Result<()> {
    server.slapadd_with(SUFFIX, ldif, &["-q", "-w"]).with_context(|| format!("loading {}", server.name()))
}

//! What servers hold before they start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result};
use xmppsync_lab::{LabDir, SUFFIX, Slapd, SlapdConfig, SlapdOptions, ldif};

use crate::process;

/// Directories as LDIF by the number of people in them; each is made once.
#[derive(Default)]
pub(super) struct Contents {
    made: RefCell<BTreeMap<usize, Rc<str>>>,
}

impl Contents {
    /// A directory with so many people, with all operational attributes: entryUUIDs, entryCSNs of the
    /// server with serverID 1, and contextCSN.
    pub(super) fn ldif(&self, people: usize) -> Result<Rc<str>> {
        if let Some(ldif) = self.made.borrow().get(&people) {
            return Ok(Rc::clone(ldif));
        }
        let lab = LabDir::new()?;
        let slapd = Slapd::prepare(&lab, "preload", SlapdConfig::default(), SlapdOptions::default())?;
        let records = ldif::directory(SUFFIX, people);
        slapd.slapadd_with(SUFFIX, &ldif::text(&records), &["-q", "-w", "-S", "1"])?;
        let ldif: Rc<str> = slapd.slapcat(SUFFIX).context("reading the content back")?.into();
        self.made.borrow_mut().insert(people, Rc::clone(&ldif));
        Ok(ldif)
    }
}

/// Loads it into servers that are not running.
pub(super) fn load(servers: &[Slapd], ldif: &str) -> Result<()> {
    for server in servers {
        server
            .slapadd_with(SUFFIX, ldif, &["-q", "-w"])
            .with_context(|| format!("loading {}", server.name()))?;
    }
    Ok(())
}

/// Waits until the disk has what was written to the directory, or it would be busy with that while
/// something is measured.
pub(super) fn flush(dir: &Path) -> Result<()> {
    process::output(Command::new("sync").arg("--file-system").arg(dir)).map(drop)
}

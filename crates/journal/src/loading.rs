//! That an initial load is unfinished, as a file beside the journal: it outlives a journal that fails meanwhile, or a half
//! filled database would count as whole at the next start.

use crate::open::sync_directory;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const FILE: &str = "loading";

/// A load begins. Durable when this returns.
///
/// # Errors
/// What the system said; the load must not begin.
pub fn note(dir: &Path) -> io::Result<()> {
    let path = dir.join(FILE);
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?.sync_all()?;
    sync_directory(dir)
}

/// The load has ended, or there was none.
///
/// # Errors
/// What the system said; the next start begins the load anew.
pub fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(problem) if problem.kind() == ErrorKind::NotFound => Ok(()),
        Err(problem) => Err(problem),
        // After a power cut the load at worst begins anew.
        Ok(()) => sync_directory(dir).or(Ok(())),
    }
}

/// Whether a load was begun and has not ended. One that cannot be looked for was not: a load needs the directory.
pub fn is_noted(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

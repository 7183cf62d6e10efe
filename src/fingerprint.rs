//! Whether a database's file is the one that was left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// back-mdb's file of a database; every tool that writes to the database changes its time.
const FILE: &str = "data.mdb";

/// Name, inode, size and time (ns) of the file, to be compared byte by byte. `None`: there is none.
pub(crate) fn fingerprint(directory: &Path) -> Option<Vec<u8>> {
    let meta = fs::metadata(directory.join(FILE)).ok()?;
    let (seconds, nanoseconds) = (meta.mtime(), meta.mtime_nsec());
    Some(format!("{FILE} {} {} {seconds}.{nanoseconds:09}", meta.ino(), meta.size()).into_bytes())
}

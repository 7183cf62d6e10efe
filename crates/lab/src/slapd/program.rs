//! Which slapd, and which overlay.

use std::fs;
use std::path::{Path, PathBuf};

use crate::child::program;
use crate::dir::LabDir;
use crate::error::{IoContext, Result};

/// The overlay to load: `XMPPSYNC_MODULE`, or what `cargo build --release` made in this workspace.
///
/// # Errors
/// When the file is not there.
pub fn module_path() -> Result<PathBuf> {
    let path = match std::env::var_os("XMPPSYNC_MODULE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/libxmppsync.so"),
    };
    path.canonicalize().context(|| {
        format!(
            "no overlay at {}; build it with cargo build --release, or set XMPPSYNC_MODULE",
            path.display()
        )
    })
}

/// The overlay in which fail points are compiled in: `XMPPSYNC_FAILPOINTS_MODULE`, or what `cargo xtask test` made in
/// this workspace.
///
/// # Errors
/// When the file is not there.
pub fn failpoints_module_path() -> Result<PathBuf> {
    let path = match std::env::var_os("XMPPSYNC_FAILPOINTS_MODULE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/failpoints/libxmppsync.so"),
    };
    path.canonicalize().context(|| {
        format!(
            "no overlay with fail points at {}; `cargo xtask test` builds it, or build it with cargo build --features \
             failpoints and set XMPPSYNC_FAILPOINTS_MODULE",
            path.display()
        )
    })
}

/// A slapd of another release of Debian, and the overlay for it: `slapd` and `libxmppsync.so` in the directory that
/// `XMPPSYNC_OTHER_RELEASE` names; `cargo xtask test --debian` makes one. `None` without the variable.
#[must_use]
pub fn other_release() -> Option<(PathBuf, PathBuf)> {
    let dir = PathBuf::from(std::env::var_os("XMPPSYNC_OTHER_RELEASE")?);
    Some((dir.join("slapd"), dir.join("libxmppsync.so")))
}

/// The installed slapd, or a copy of it where AppArmor confines it.
///
/// Debian's profile holds for `/usr/sbin/slapd` and lets it read and write only where the machine's own
/// directory lies. It is bound to the path, so a copy elsewhere runs free.
pub(super) fn slapd_program(lab: &LabDir) -> Result<PathBuf> {
    let installed = program("slapd")?;
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if enabled.trim() != "Y" || !Path::new("/etc/apparmor.d/usr.sbin.slapd").exists() {
        return Ok(installed);
    }
    let copy = lab.path().join("slapd");
    if !copy.exists() {
        fs::copy(&installed, &copy).context(|| format!("cannot copy {}", installed.display()))?;
    }
    Ok(copy)
}

//! Another release of Debian, in a folder: its slapd with an overlay built for it, its XMPP servers.
//!
//! `cargo xtask test --debian 13` runs the end-to-end tests in the folder, with this machine's Rust and workspace, and then, on this machine,
//! those with groups in which both releases serve. The folder, `target/debian-13`, stays for the next time:
//!
//! - `root/`, the release, made by debootstrap; whatever the tests need is installed in it by their own `setup`;
//! - `target/`, what cargo builds there;
//! - `enter`, runs a command in it; `slapd`, its slapd, for groups of both.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{packages, process, setup, workspace};

/// The releases whose slapd the overlay is for, by number and name.
const RELEASES: &[(&str, &str)] = &[("12", "bookworm"), ("13", "trixie")];

/// Of the environment, what the commands in the folder get: the rest speaks of this machine.
const KEPT: &[&str] = &[
    "XMPPSYNC_OPERATIONS",
    "XMPPSYNC_SEED",
    "RUST_BACKTRACE",
    "RUST_TEST_THREADS",
    "http_proxy",
    "https_proxy",
];

/// Runs a command in the folder; everything that is mounted for it goes with it.
const ENTER: &str = r#"#!/bin/sh
# Made by `cargo xtask test --debian`.
exec unshare --mount --propagation private sh -eu -c '
root=$1; shift
cp /etc/resolv.conf "$root/etc/resolv.conf"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /tmp "$root/tmp"
for place in PLACES; do
    mkdir -p "$root$place"
    mount --bind "$place" "$root$place"
done
exec chroot "$root" "$@"
' enter 'ROOT' "$@"
"#;

/// Runs the end-to-end tests there, then those of groups of both releases here.
pub(crate) fn test(arguments: &[OsString]) -> Result<()> {
    let [number, rest @ ..] = arguments else { bail!("--debian needs the number of a release, such as 13") };
    let number = number.to_string_lossy();
    let Some((_, suite)) = RELEASES.iter().find(|(known, _)| *known == number) else {
        bail!(
            "no release {number} here; there are {}",
            RELEASES.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ")
        )
    };
    if !process::is_root() {
        bail!("entering another release works only as root");
    }
    let folder = Folder::prepare(&number, suite)?;
    let mut tests = folder.command()?;
    tests.args(["cargo", "xtask", "test", "--package", "xmppsync", "--test", "end_to_end"]).args(rest);
    process::run(&mut tests).with_context(|| format!("in Debian {number}"))?;
    folder.write_slapd()?;
    setup::run()?;
    let module = workspace::build_overlay()?;
    let mut both = workspace::cargo();
    both.args([
        "test",
        "--package",
        "xmppsync",
        "--test",
        "end_to_end",
        "releases::",
        "--",
        "--include-ignored",
    ]);
    process::run(both.env("XMPPSYNC_MODULE", &module).env("XMPPSYNC_OTHER_RELEASE", &folder.place))
}

struct Folder {
    place: PathBuf,
}

impl Folder {
    fn prepare(number: &str, suite: &str) -> Result<Self> {
        let place = workspace::target_dir().join(format!("debian-{number}"));
        let root = place.join("root");
        if !root.exists() {
            packages::install(&["debootstrap"])?;
            println!("making Debian {number} in {} (once, about a minute)", root.display());
            let half = place.join("root.half");
            if half.exists() {
                // Of a command that was interrupted.
                fs::remove_dir_all(&half).with_context(|| format!("cannot remove {}", half.display()))?;
            }
            fs::create_dir_all(&half)?;
            let mut make = Command::new("debootstrap");
            process::output(
                make.args(["--variant=minbase", "--include=ca-certificates,gcc,libc6-dev", suite]).arg(&half),
            )?;
            // A linker is what Rust needs of a machine. No service starts in it.
            write_script(&half.join("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n")?;
            fs::rename(&half, &root)?;
        }
        let folder = Self { place };
        let places = folder.bound()?.iter().map(|place| quoted(place)).collect::<Vec<_>>().join(" ");
        let text = ENTER.replace("PLACES", &places).replace("ROOT", &root.display().to_string());
        write_script(&folder.enter(), &text)?;
        Ok(folder)
    }

    fn enter(&self) -> PathBuf {
        self.place.join("enter")
    }

    /// What of this machine is there as well: the workspace, cargo's registry and the toolchain.
    fn bound(&self) -> Result<Vec<PathBuf>> {
        Ok(vec![workspace::root(), cargo_home()?, toolchain()?])
    }

    /// A command that runs in the release, in the workspace.
    fn command(&self) -> Result<Command> {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", toolchain()?.join("bin").display());
        let mut command = Command::new(self.enter());
        command.arg("env").arg("-i").arg("-C").arg(workspace::root()).args(["HOME=/root", "LANG=C.UTF-8"]);
        command.arg(format!("PATH={path}")).arg(assignment("CARGO_HOME", cargo_home()?.as_os_str()));
        command.arg(assignment("CARGO_TARGET_DIR", self.place.join("target").as_os_str()));
        let kept = KEPT.iter().filter_map(|name| Some(assignment(name, &std::env::var_os(name)?)));
        command.args(kept);
        Ok(command)
    }

    /// Its slapd, and the overlay for it, as groups of both releases find them.
    fn write_slapd(&self) -> Result<()> {
        let enter = quoted(&self.enter());
        write_script(
            &self.place.join("slapd"),
            &format!("#!/bin/sh\nexec {enter} /usr/sbin/slapd \"$@\"\n"),
        )?;
        let (built, module) =
            (self.place.join("target/release/libxmppsync.so"), self.place.join("libxmppsync.so"));
        fs::copy(&built, &module).with_context(|| format!("cannot copy {}", built.display()))?;
        Ok(())
    }
}

fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut assignment = OsString::from(format!("{name}="));
    assignment.push(value);
    assignment
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    Ok(PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"))
}

/// The directory of the compiler that builds this workspace.
fn toolchain() -> Result<PathBuf> {
    let root =
        process::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()))?;
    Ok(PathBuf::from(root.trim()))
}

/// For a shell, within single quotes of another one.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

//! The Debian packages that the project needs beside Rust, and how they are installed.

use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Needed under exactly this name.
const PACKAGES: &[&str] = &[
    // what the tests and the demo run
    "slapd",
    "ldap-utils",
    "ejabberd",
    "prosody",
    // prosody needs it to find the servers of other domains
    "lua-unbound",
    "valgrind",
    "iproute2",
    // fetching and unpacking the source package of OpenLDAP
    "dpkg-dev",
    // configuring it as Debian does: the features that it finds decide the layout of slapd's structures
    "make",
    "pkg-config",
    // its TLS library is the one or the other, by the release
    "libgnutls28-dev",
    "libssl-dev",
    "libltdl-dev",
    "libsasl2-dev",
    "libwrap0-dev",
];

/// Puts a policy in place that keeps package scripts from starting services, and takes it away whatever
/// happens. The machine's own services, and those that come with a package, are none of our business.
const INSTALL_SCRIPT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --yes --no-install-recommends "$@"; }
if [ "$1" = update-first ]; then
    shift
    apt-get update
    install "$@"
else
    shift
    # A package list that is out of date names files that the mirror no longer has.
    install "$@" || { apt-get update && install "$@"; }
fi
"#;

/// How this user becomes root.
pub(crate) enum Privilege {
    /// It is root.
    Root,
    /// By sudo, which may ask for a password in the terminal.
    Sudo,
}

impl Privilege {
    /// `None` when this user cannot become root from here.
    pub(crate) fn available() -> Option<Self> {
        if process::is_root() {
            return Some(Self::Root);
        }
        let sudo = process::in_path("sudo")
            && (process::succeeds(Command::new("sudo").args(["-n", "true"]))
                || std::io::stdin().is_terminal());
        sudo.then_some(Self::Sudo)
    }

    /// A command that runs the program as root.
    pub(crate) fn command(&self, program: &str) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg(program);
                command
            }
        }
    }
}

/// Installs what is missing, or says what to install when this user may not.
pub(crate) fn install_missing() -> Result<()> {
    install_until_none(missing)
}

/// The same for what one command needs, by the packages' names.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    install_until_none(|| {
        let installed = installed();
        let has = |name: &str| installed.iter().any(|package| package == name);
        packages.iter().filter(|name| !has(name)).map(|name| (*name).to_owned()).collect()
    })
}

fn install_until_none(missing_now: impl Fn() -> Vec<String>) -> Result<()> {
    let missing = missing_now();
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.join(" ");
    if !process::in_path("apt-get") {
        bail!("this machine has no apt-get; install what these Debian packages contain: {wanted}");
    }
    let Some(privilege) = Privilege::available() else {
        bail!(
            "packages are missing and this user cannot install them. As root, run:\n\
             apt-get update && apt-get install --no-install-recommends {wanted}"
        );
    };
    println!("installing: {wanted} (services are not started)");
    let mode = if all_have_a_candidate(&missing) { "install" } else { "update-first" };
    let mut command = privilege.command("sh");
    process::run(command.args(["-c", INSTALL_SCRIPT, "install-packages", mode]).args(&missing))?;
    let still_missing = missing_now();
    if !still_missing.is_empty() {
        bail!("apt-get ended well and yet these packages are missing: {}", still_missing.join(" "));
    }
    Ok(())
}

fn missing() -> Vec<String> {
    let installed = installed();
    let has = |name: &str| installed.iter().any(|package| package == name);
    let mut missing: Vec<String> =
        PACKAGES.iter().filter(|name| !has(name)).map(|name| (*name).to_owned()).collect();
    if !process::in_path("cc") {
        missing.extend(["gcc", "libc6-dev"].map(str::to_owned));
    }
    // bindgen loads libclang and reads clang's own headers; any version of the two will do.
    let libclang = installed.iter().any(|name| name.starts_with("libclang-") && name.ends_with("-dev"));
    if !libclang && std::env::var_os("LIBCLANG_PATH").is_none() {
        missing.push("libclang-dev".to_owned());
    }
    // The tests run it to be rid of their servers when they are killed themselves.
    if !Path::new("/usr/bin/setpriv").exists() && !process::in_path("setpriv") {
        missing.push("util-linux".to_owned());
    }
    missing
}

/// The names of all installed packages, without the architecture.
fn installed() -> Vec<String> {
    let format = "${db:Status-Status} ${Package}\n";
    // Where dpkg itself is missing everything is.
    let list = process::output(Command::new("dpkg-query").args(["-W", "-f", format])).unwrap_or_default();
    list.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect()
}

/// Whether apt knows a version of each package: it does not on a machine whose lists were never fetched.
fn all_have_a_candidate(packages: &[String]) -> bool {
    let policy = process::output(Command::new("apt-cache").arg("policy").args(packages).env("LC_ALL", "C"));
    let candidates = policy.unwrap_or_default();
    let known = candidates
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate:"))
        .filter(|version| version.trim() != "(none)")
        .count();
    known == packages.len()
}

//! The headers of OpenLDAP, which no Debian package installs.
//!
//! An overlay is compiled against the structures of the slapd that loads it. They come from the Debian
//! source package of exactly the installed version, configured with Debian's own options; nothing is
//! compiled. The result lies in `$XDG_DATA_HOME/xmppsync/openldap-VERSION/`:
//!
//! - `src/`, the sources: `include/` and `servers/slapd/slap.h` (`OPENLDAP_SRC`);
//! - `build/`, whose `include/` has what configure makes: `portable.h`, `lber_types.h`,
//!   `ldap_features.h` and `ldap_config.h` (`OPENLDAP_BUILD`);
//! - `xmppsync-setup.txt`, the version of the slapd package, written last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, sources};

/// Features that change the layout of slapd's structures and are on in Debian's build. A missing
/// development package would switch one off silently, and the overlay would crash the server.
const FEATURES: &[&str] = &[
    "HAVE_CYRUS_SASL",
    "HAVE_TCPD",
    "HAVE_TLS",
    "LDAP_DEBUG",
    "LDAP_PF_INET6",
    "LDAP_SLAPI",
    "LDAP_SYSLOG",
    "SLAPD_MODULES",
    "SLAP_DYNACL",
];

/// Options of Debian's build that no structure depends on, and that would ask for more packages.
const OPTIONS_LEFT_OUT: &[&str] = &["argon2", "backends", "odbc", "overlays", "perl", "sql"];

/// Makes the headers of the installed slapd, unless they are there.
pub(crate) fn prepare() -> Result<()> {
    if let Some(source) = std::env::var_os("OPENLDAP_SRC") {
        println!("headers: from OPENLDAP_SRC, {}", source.display());
        return Ok(());
    }
    let version = slapd_field("${Version}")?;
    let destination = data_dir()?.join(format!("openldap-{version}"));
    if fs::read_to_string(destination.join("xmppsync-setup.txt")).is_ok_and(|text| text.trim() == version) {
        return Ok(());
    }
    println!("preparing the headers of OpenLDAP {version} (once, about half a minute)");
    // Everything happens beside the destination and is renamed at the end: no half of it is ever found.
    let work =
        Scratch::new(destination.with_file_name(format!(".openldap-{version}.{}", std::process::id())))?;
    let source = fetch(&work.0, &slapd_field("${source:Version}")?)?;
    configure(&source, &work.0.join("result"))?;
    fs::write(work.0.join("result/xmppsync-setup.txt"), format!("{version}\n"))?;
    if destination.exists() {
        fs::remove_dir_all(&destination)?;
    }
    fs::rename(work.0.join("result"), &destination)
        .with_context(|| format!("cannot make {}", destination.display()))?;
    println!("headers: {}", destination.display());
    Ok(())
}

/// The place of what setup keeps for this user.
fn data_dir() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data_home = match absolute("XDG_DATA_HOME") {
        Some(dir) => dir,
        None => absolute("HOME").context("neither HOME nor XDG_DATA_HOME is set")?.join(".local/share"),
    };
    Ok(data_home.join("xmppsync"))
}

fn slapd_field(format: &str) -> Result<String> {
    process::output(Command::new("dpkg-query").args(["-W", "-f", format, "slapd"]))
        .context("which slapd is installed?")
}

/// Downloads the source package into the directory, with signature and hashes checked by apt, and unpacks it.
fn fetch(work: &Path, version: &str) -> Result<PathBuf> {
    for dir in ["lists/partial", "cache/archives/partial", "download"] {
        fs::create_dir_all(work.join(dir))?;
    }
    let list = work.join("debian.sources");
    fs::write(&list, sources::list()?)?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.current_dir(work.join("download"));
        apt.arg("-o").arg(format!("Dir::Etc::SourceList={}", list.display()));
        apt.args(["-o", "Dir::Etc::SourceParts=/dev/null"]);
        apt.arg("-o").arg(format!("Dir::State::Lists={}", work.join("lists").display()));
        apt.arg("-o").arg(format!("Dir::Cache={}", work.join("cache").display()));
        // The user that apt would rather download as cannot write to this one's directory.
        apt.args(["-o", "APT::Sandbox::User=root", "-qq"]);
        apt
    };
    process::output(apt().arg("update")).context("fetching the list of source packages")?;
    process::output(apt().args(["source", "--download-only", &format!("openldap={version}")])).with_context(
        || format!("no source package openldap {version} at this machine's mirrors; is slapd up to date? Run: apt-get update && apt-get install slapd"),
    )?;
    let dsc = fs::read_dir(work.join("download"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
        .context("apt-get source brought no .dsc file")?;
    // Not at once into its place: dpkg-source puts a copy of the tarball beside what it unpacks.
    let unpacked = work.join("unpacked");
    process::output(Command::new("dpkg-source").arg("-x").arg(dsc).arg(&unpacked))?;
    fs::create_dir(work.join("result"))?;
    let source = work.join("result/src");
    fs::rename(unpacked, &source)?;
    Ok(source)
}

/// Configures in `result/build` with Debian's options and checks what came out.
fn configure(source: &Path, result: &Path) -> Result<()> {
    let build = result.join("build");
    fs::create_dir(&build)?;
    let options = fs::read_to_string(source.join("debian/configure.options"))?;
    process::output(
        Command::new("../src/configure")
            .current_dir(&build)
            .args(["--quiet", "--prefix=/usr", "--sysconfdir=/etc", "--localstatedir=/var"])
            .args(active_options(&options)),
    )?;
    process::output(
        Command::new("make").arg("-s").arg("-C").arg(build.join("include")).arg("ldap_config.h"),
    )?;
    let portable = fs::read_to_string(build.join("include/portable.h"))?;
    let wanted = FEATURES.iter().copied().chain(tls_library(&options));
    let off: Vec<&str> = wanted.filter(|feature| !is_defined(&portable, feature)).collect();
    if !off.is_empty() {
        bail!(
            "configure left out what Debian's slapd is built with: {}; see {}",
            off.join(", "),
            build.join("config.log").display()
        );
    }
    Ok(())
}

/// The lines of debian/configure.options that are no comments, without those that do not matter here.
fn active_options(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("--"))
        .filter(|line| !OPTIONS_LEFT_OUT.iter().any(|part| line.contains(part)))
        // One path among the options is quoted for the shell that debian/rules runs.
        .map(|line| line.replace('\'', ""))
        .collect()
}

/// The feature that stands for the TLS library of this release: GnuTLS in Debian 12, OpenSSL in Debian 13.
fn tls_library(options: &str) -> Option<&'static str> {
    let libraries = [("--with-tls=gnutls", "HAVE_GNUTLS"), ("--with-tls=openssl", "HAVE_OPENSSL")];
    let options = active_options(options);
    let asked_for = |option: &str| options.iter().any(|active| active == option);
    libraries.into_iter().find(|(option, _)| asked_for(option)).map(|(_, feature)| feature)
}

fn is_defined(header: &str, name: &str) -> bool {
    header.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("#define") && words.next() == Some(name)
    })
}

/// A directory that goes away again, whatever way setup ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays would be in the way of nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_options_without_meaning_for_the_structures_are_left_out() {
        let text = "#  --enable-x  help\n--enable-slapi\n--enable-perl=mod\n--with-tls=gnutls\n\
                    --libexecdir='${prefix}/lib'\n--with-argon2=libargon2\n";
        let expected = ["--enable-slapi", "--with-tls=gnutls", "--libexecdir=${prefix}/lib"];
        assert_eq!(active_options(text), expected);
    }

    #[test]
    fn the_library_for_tls_is_the_one_that_the_release_is_built_with() {
        assert_eq!(tls_library("# --with-tls=gnutls\n--with-tls=openssl\n"), Some("HAVE_OPENSSL"));
        assert_eq!(tls_library("--with-tls=gnutls\n"), Some("HAVE_GNUTLS"));
        assert_eq!(tls_library("--enable-slapi\n"), None);
    }

    #[test]
    fn an_undefined_feature_is_not_taken_for_a_defined_one() {
        let header = "#define HAVE_TLS 1\n/* #undef HAVE_TCPD */\n#define HAVE_TCPD_H 1\n";
        assert!(is_defined(header, "HAVE_TLS"));
        assert!(!is_defined(header, "HAVE_TCPD"));
    }
}

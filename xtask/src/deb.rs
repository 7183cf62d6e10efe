//! `cargo xtask deb`: the overlay as a Debian package.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, setup, workspace};

const PACKAGE: &str = "slapd-xmppsync";
/// The first package of each release; a change of the packaging alone would be the second.
const REVISION: &str = "1";
/// For who sets no DEBFULLNAME and DEBEMAIL.
const MAINTAINER: (&str, &str) = ("The xmppsync authors", "xmppsync@example.com");
/// What there is to read in the package, beside the man page.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/CONFIGURATION.md",
    "docs/OPERATING.md",
    "docs/PERFORMANCE.md",
    "docs/PROTOCOL.md",
];

/// What nobody needs of a module, as Debian's own tools see it.
const OF_A_MODULE: [&str; 3] = ["--strip-unneeded", "--remove-section=.comment", "--remove-section=.note"];

/// Builds the package into the directory, `target/debian` without one; with `tests` also what the image of the tests needs.
pub(crate) fn run(to: Option<&Path>, tests: bool) -> Result<()> {
    setup::run()?;
    let to = to.map_or_else(|| workspace::target_dir().join("debian"), PathBuf::from);
    let to = std::path::absolute(to)?;
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    if tests {
        let failpoints = workspace::build_overlay_with_failpoints()?;
        strip(&failpoints, &to.join("libxmppsync-failpoints.so"), &OF_A_MODULE, 0o644)?;
        strip(&workspace::build_end_to_end()?, &to.join("end_to_end"), &["--strip-debug"], 0o755)?;
    }
    let module = workspace::build_overlay()?;
    let package = package(&module, &to)?;
    println!("{}", package.display());
    Ok(())
}

/// Lays out the files in a tree and packs it.
fn package(module: &Path, to: &Path) -> Result<PathBuf> {
    let tree = workspace::target_dir().join("deb").join(PACKAGE);
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let facts = Facts::find()?;
    let library = tree.join("usr/lib/ldap/libxmppsync.so");
    make_parent(&library)?;
    strip(module, &library, &OF_A_MODULE, 0o644)?;
    let share = tree.join("usr/share");
    let doc = share.join("doc").join(PACKAGE);
    let source = workspace::root();
    compress(&source.join("docs/slapo-xmppsync.5"), &share.join("man/man5/slapo-xmppsync.5.gz"))?;
    compress(&source.join("CHANGELOG.md"), &doc.join("changelog.gz"))?;
    for name in DOCUMENTS {
        copy(&source.join(name), &doc.join(name))?;
    }
    copy_examples(&source.join("slapd-conf-examples"), &doc.join("examples"))?;
    let overrides = share.join("lintian/overrides").join(PACKAGE);
    copy(&source.join("packaging/lintian-overrides"), &overrides)?;
    write(&doc.join("copyright"), &copyright(&source)?)?;
    let changelog = tree.with_file_name("changelog.Debian");
    write(&changelog, facts.fill(&read(&source.join("packaging/changelog"))?))?;
    compress(&changelog, &doc.join("changelog.Debian.gz"))?;

    let depends = format!("{}, {}", slapd_of_this_release()?, libraries(&library)?);
    let files = files(&tree)?;
    let size: u64 = files.iter().map(|file| fs::metadata(tree.join(file)).map_or(0, |file| file.len())).sum();
    let control = facts.fill(&read(&source.join("packaging/control"))?);
    let control = control.replace("@DEPENDS@", &depends).replace("@SIZE@", &size.div_ceil(1024).to_string());
    write(&tree.join("DEBIAN/control"), &control)?;
    let sums = process::output(Command::new("md5sum").current_dir(&tree).args(&files))?;
    write(&tree.join("DEBIAN/md5sums"), &sums)?;

    remove_old(to)?;
    let result = to.join(format!("{PACKAGE}_{}_{}.deb", facts.version, facts.architecture));
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "--build"]).arg(&tree).arg(&result);
    // What is younger gets this time: the same sources make the same package.
    pack.env("SOURCE_DATE_EPOCH", facts.epoch.to_string());
    process::output(&mut pack)?;
    Ok(result)
}

/// What several of the files tell.
struct Facts {
    version: String,
    architecture: String,
    maintainer: String,
    /// When the sources were last changed, in seconds since 1970, and as a mail's date.
    epoch: u64,
    date: String,
}

impl Facts {
    fn find() -> Result<Self> {
        let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let (name, address) = (variable("DEBFULLNAME", MAINTAINER.0), variable("DEBEMAIL", MAINTAINER.1));
        let epoch = epoch()?;
        let date = process::output(Command::new("date").args(["--utc", "-R", "-d", &format!("@{epoch}")]))?;
        let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
        Ok(Self {
            version: format!("{}-{REVISION}", env!("CARGO_PKG_VERSION")),
            architecture: architecture.trim().to_owned(),
            maintainer: format!("{name} <{address}>"),
            epoch,
            date: date.trim().to_owned(),
        })
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", &self.architecture)
            .replace("@MAINTAINER@", &self.maintainer)
            .replace("@DATE@", &self.date)
    }
}

/// `SOURCE_DATE_EPOCH`, or the time of the last commit; without git, that of the changelog.
fn epoch() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let root = workspace::root();
    let commit = process::output(Command::new("git").current_dir(&root).args(["log", "-1", "--format=%ct"]));
    if let Some(time) = commit.ok().and_then(|time| time.trim().parse().ok()) {
        return Ok(time);
    }
    let changed = fs::metadata(root.join("CHANGELOG.md"))?.modified()?;
    Ok(changed.duration_since(std::time::UNIX_EPOCH)?.as_secs())
}

/// The module is refused by every other release of slapd than the one whose headers it was built with.
fn slapd_of_this_release() -> Result<String> {
    let release = match std::env::var("XMPPSYNC_SLAPD_VERSION") {
        Ok(version) if !version.is_empty() => version,
        _ => process::output(Command::new("dpkg-query").args([
            "-W",
            "-f",
            "${source:Upstream-Version}",
            "slapd",
        ]))?,
    };
    relation(&release).with_context(|| format!("{release} is no version of OpenLDAP such as 2.5.13"))
}

/// From 2.5.13+dfsg, all packages of 2.5.13.
fn relation(version: &str) -> Option<String> {
    let release = version.split(['+', '~', '-']).next()?;
    let (series, patch) = release.rsplit_once('.')?;
    let next = patch.parse::<u32>().ok()? + 1;
    Some(format!("slapd (>= {release}), slapd (<< {series}.{next}~)"))
}

/// The packages with the libraries that the module is linked with.
fn libraries(library: &Path) -> Result<String> {
    let work = workspace::target_dir().join("deb/shlibdeps");
    write(
        &work.join("debian/control"),
        format!("Source: {PACKAGE}\n\nPackage: {PACKAGE}\nArchitecture: any\n"),
    )?;
    // The symbols of slapd itself come from no library.
    let mut command = Command::new("dpkg-shlibdeps");
    let said =
        process::output(command.current_dir(&work).args(["-O", "--warnings=0"]).arg("-e").arg(library))?;
    let depends = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps says only: {said}"))
}

/// The licences, with those of the crates that are part of the module.
fn copyright(source: &Path) -> Result<String> {
    let mut tree = workspace::cargo();
    tree.args(["tree", "--package", "xmppsync", "--edges", "normal", "--prefix", "none"]);
    let tree = process::output(tree.args(["--locked", "--format", "{p}, {l}"]))?;
    // Those of this workspace stand with their paths; procedural macros end in no binary.
    let crates: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.contains(" ("))
        .collect();
    if crates.is_empty() {
        bail!("cargo tree names no crates:\n{tree}");
    }
    let crates = crates.iter().map(|line| format!(" {line}")).collect::<Vec<_>>().join("\n");
    let mit: Vec<String> = read(&source.join("LICENSE-MIT"))?.trim().lines().map(indented).collect();
    let template = read(&source.join("packaging/copyright"))?;
    Ok(template.replace("@CRATES@", &crates).replace("@MIT@", &mit.join("\n")))
}

/// A line of a text in a field: an empty one is a dot.
fn indented(line: &str) -> String {
    format!(" {}", if line.trim().is_empty() { "." } else { line })
}

fn copy_examples(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        copy(&from.join(&file), &to.join(&file))?;
    }
    Ok(())
}

/// All files below the directory, by their paths from there, in order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(dir)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whoever looks for the package in the directory finds one.
fn remove_old(to: &Path) -> Result<()> {
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&format!("{PACKAGE}_")) && name.ends_with(".deb") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn strip(from: &Path, to: &Path, what: &[&str], mode: u32) -> Result<()> {
    process::output(Command::new("strip").args(what).arg("-o").arg(to).arg(from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn compress(from: &Path, to: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip");
    let text = gzip.args(["-9", "--no-name", "--stdout"]).arg(from).output()?;
    if !text.status.success() {
        bail!("gzip of {} ended with {}", from.display(), text.status);
    }
    write(to, &text.stdout)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    write(to, fs::read(from).with_context(|| format!("cannot read {}", from.display()))?)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    make_parent(file)?;
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

/// Directories as everybody's in a package are, whatever this user's umask is.
fn make_parent(file: &Path) -> Result<()> {
    let top = workspace::target_dir();
    let parent = file.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    for dir in parent.ancestors().take_while(|dir| *dir != top && dir.starts_with(&top)) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_goes_with_all_packages_of_one_release_of_slapd() {
        let expected = "slapd (>= 2.5.13), slapd (<< 2.5.14~)";
        assert_eq!(relation("2.5.13+dfsg").as_deref(), Some(expected));
        assert_eq!(relation("2.5.13").as_deref(), Some(expected));
        assert_eq!(relation("2"), None);
    }

    /// The directives in the table of docs/CONFIGURATION.md.
    fn documented() -> BTreeSet<String> {
        let text = read(&workspace::root().join("docs/CONFIGURATION.md")).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
        let names = rows.filter_map(|row| row.split([' ', '`']).next());
        names.filter(|name| name.starts_with("xmppsync-")).map(str::to_owned).collect()
    }

    #[test]
    fn the_man_page_has_every_directive_of_the_table_and_every_one_that_slapd_is_told_of() {
        let page = read(&workspace::root().join("docs/slapo-xmppsync.5")).unwrap().replace("\\-", "-");
        let source = read(&workspace::root().join("src/shim/config.c")).unwrap();
        let known: BTreeSet<&str> = source.split('"').filter(|word| word.starts_with("xmppsync-")).collect();
        let words = source.split(|letter: char| !letter.is_ascii_alphanumeric());
        let attributes: BTreeSet<&str> =
            words.filter(|word| word.starts_with("olcXmppSync") && *word != "olcXmppSyncConfig").collect();
        assert!(known.len() > 10 && attributes.len() == known.len(), "{known:?} {attributes:?}");
        for name in &known {
            assert!(page.contains(&format!("\n.B {name} ")), "the man page lacks {name}");
        }
        for name in attributes {
            assert!(page.contains(&format!("\n.BR {name} ")), "the man page lacks {name}");
        }
        assert_eq!(
            documented(),
            known.iter().map(|name| (*name).to_owned()).collect(),
            "docs/CONFIGURATION.md"
        );
        let described = page.lines().filter_map(|line| line.strip_prefix(".B xmppsync-"));
        assert_eq!(described.count(), known.len(), "the man page has what is no directive");
    }

    #[test]
    fn an_empty_line_of_a_licence_is_a_dot() {
        assert_eq!([indented("a"), indented("")], [" a", " ."]);
    }
}

//! The images that the Dockerfiles begin with, where no registry can be reached.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::{self, Privilege};
use crate::{process, sources, workspace};

/// What the Dockerfiles begin with.
const DEBIAN: &str = "debian:bookworm-slim";
const SUITE: &str = "bookworm";
/// Debian's ejabberd in the shape of the official image.
const EJABBERD: &str = "xmppsync-ejabberd-debian";
/// Marks the image that was made here.
const LABEL: &str = "xmppsync.base";
const MIRROR: &str = "http://deb.debian.org/debian";

/// What `docker compose build` has to be told.
pub(super) type Environment = Vec<(&'static str, OsString)>;

/// Finds out where the images come from, and makes them where there is no registry.
pub(super) fn prepare() -> Result<Option<Environment>> {
    let made_here = || {
        let label = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
        process::output(Command::new("docker").args(["image", "inspect", "--format", &label, DEBIAN]))
            .map(|label| !label.trim().is_empty())
    };
    match made_here() {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(_) if process::succeeds(Command::new("docker").args(["pull", "--quiet", DEBIAN])) => {
            return Ok(None);
        }
        Err(_) => println!("no registry has {DEBIAN}: making it"),
    }
    make().map(Some)
}

/// Makes what is missing, and returns what the build has to be told then: the compiled files come from this machine.
pub(super) fn make() -> Result<Environment> {
    if !process::succeeds(Command::new("docker").args(["image", "inspect", DEBIAN])) {
        make_debian()?;
    }
    let context = workspace::root().join("docker/ejabberd");
    let mut build = Command::new("docker");
    build.args(["build", "--quiet", "--tag", EJABBERD, "--file"]).arg(context.join("debian.Dockerfile"));
    process::output(build.arg(&context)).context("making the image of ejabberd")?;
    Ok(vec![
        ("BUILD_IMAGE", DEBIAN.into()),
        ("EJABBERD_IMAGE", EJABBERD.into()),
        ("PREBUILT", super::PREBUILT.into()),
        ("SOURCE", workspace::root().into()),
    ])
}

fn make_debian() -> Result<()> {
    packages::install(&["debootstrap"])?;
    let Some(privilege) = Privilege::available() else {
        bail!("debootstrap works only as root; as root, run: cargo xtask docker-base");
    };
    let suites = sources::of_release(SUITE)?;
    let mirror = suites.iter().find(|(_, suite)| suite == SUITE).map_or(MIRROR, |(uri, _)| uri.as_str());
    let mut list: String = suites.iter().map(|(uri, suite)| format!("deb {uri} {suite} main\n")).collect();
    if list.is_empty() {
        list = format!("deb {MIRROR} {SUITE} main\n");
    }
    let work = workspace::target_dir().join("docker-base");
    let script = workspace::root().join("docker/make-base");
    let mut command = privilege.command("sh");
    command.arg(script).args([DEBIAN, SUITE, mirror]).arg(&work);
    process::output_of(&mut command, &list).with_context(|| format!("making {DEBIAN}"))?;
    println!("made {DEBIAN} from the packages at {mirror}");
    Ok(())
}

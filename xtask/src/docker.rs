//! `cargo xtask test --docker` and `cargo xtask docker-base`: the composed system of docker-compose.yml.

mod base;
mod system;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{deb, packages, process, workspace};
use system::System;

/// Where the images find what this machine has compiled; from the workspace's directory.
const PREBUILT: &str = "target/docker";
/// What of the end-to-end tests runs in the image without `--all`: a group that becomes equal, a server that was killed, one that
/// is loaded, an XMPP server that restarts, rooms and nodes; about two minutes.
const END_TO_END: [&str; 4] = ["convergence::", "crash::", "loading::", "session::"];
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Set by Ctrl-C, SIGTERM and SIGHUP.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the images that a registry would have, and says how the composed system is built with them.
pub(crate) fn make_base() -> Result<()> {
    require_engine()?;
    let environment = base::make()?;
    deb::run(Some(&workspace::root().join(PREBUILT)), true)?;
    println!("build with them:");
    let words = environment.iter().map(|(name, value)| format!("{name}={}", value.display()));
    println!("{} docker compose build", words.collect::<Vec<_>>().join(" "));
    Ok(())
}

/// Builds, starts, tests, and takes everything down, whatever happens in between.
pub(crate) fn test(arguments: &[OsString]) -> Result<()> {
    let all = arguments.iter().any(|argument| argument == "--all");
    let names: Vec<&OsString> = arguments.iter().filter(|argument| *argument != "--all").collect();
    require_engine()?;
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("catching Ctrl-C")?;
    let compose = compose()?;
    let mut environment = base::prepare()?.unwrap_or_default();
    if !environment.is_empty() {
        deb::run(Some(&workspace::root().join(PREBUILT)), true)?;
    }
    environment.push(("XMPPSYNC_COMPOSE", compose.into()));
    let system = System::new(environment)?;
    let outcome = run(&system, all, &names);
    if outcome.is_err() && !INTERRUPTED.load(Ordering::Relaxed) {
        system.print_logs();
    }
    // The first error is why there is a second one.
    let down = system.down();
    outcome.and(down)
}

fn run(system: &System, all: bool, names: &[&OsString]) -> Result<()> {
    system.build()?;
    run_interruptibly(system.compose().args(["up", "--detach", "--no-build"]))?;
    let mut test = workspace::cargo();
    test.args(["test", "--workspace", "--test", "docker", "--", "--ignored"]).args(names);
    run_interruptibly(system.environ(&mut test))?;
    if names.is_empty() {
        let mut tests = system.compose();
        // It has no terminal: its output may go to a file.
        tests.args(["--profile", "test", "run", "--rm", "-T", "tests"]);
        if !all {
            tests.args(END_TO_END);
        }
        run_interruptibly(&mut tests)?;
    }
    Ok(())
}

fn require_engine() -> Result<()> {
    process::output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
        .map(drop)
        .context("no Docker engine answers")
}

/// The plugin, or the program that was before it.
fn compose() -> Result<&'static str> {
    if process::succeeds(Command::new("docker").args(["compose", "version"])) {
        return Ok("docker compose");
    }
    if !process::in_path("docker-compose") {
        packages::install(&["docker-compose"])?;
    }
    Ok("docker-compose")
}

/// Runs a command in a group of its own, which is ended when this process is to end: what has been started is taken down then.
fn run_interruptibly(command: &mut Command) -> Result<()> {
    let shown = process::shown(command);
    let mut child = command.process_group(0).spawn().with_context(|| format!("cannot run {shown}"))?;
    let status = wait(&mut child)?;
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if INTERRUPTED.load(Ordering::Relaxed) && !told {
            told = true;
            kill_process_group(Pid::from_child(child), Signal::TERM)?;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

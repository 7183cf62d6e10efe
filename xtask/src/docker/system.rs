//! One composed system, with a name, passwords and ports of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::base::Environment;
use crate::{process, workspace};

const PORTS: [&str; 6] =
    ["LDAP_PORT_A", "LDAP_PORT_B", "LDAP_PORT_C", "LDAPS_PORT_A", "LDAPS_PORT_B", "LDAPS_PORT_C"];
/// What compose marks all that it makes with, by the kind as `docker` names it.
const LABEL: &str = "com.docker.compose.project";
const KINDS: [(&str, &[&str]); 3] = [("container", &["--all"]), ("volume", &[]), ("network", &[])];
/// The mark of the images, in docker/Dockerfile.
const IMAGES: &str = "label=xmppsync.image";

pub(super) struct System {
    project: String,
    secrets: PathBuf,
    environment: Environment,
}

impl System {
    /// Makes the passwords; starts nothing yet.
    pub(super) fn new(environment: Environment) -> Result<Self> {
        let project = format!("xmppsync-test-{}", std::process::id());
        let secrets = workspace::target_dir().join(&project);
        let system = Self { project, secrets, environment };
        let script = workspace::root().join("docker/make-secrets");
        process::run(Command::new("sh").arg(script).arg(&system.secrets))?;
        Ok(system)
    }

    /// Gives a command all that tells it of this system.
    pub(super) fn environ<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Free ports, so that systems stand side by side.
        command.envs(PORTS.map(|name| (name, "0")));
        command.env("COMPOSE_PROJECT_NAME", &self.project).env("SECRETS", &self.secrets);
        // Lines, and no terminal's progress.
        command.env("COMPOSE_ANSI", "never").env("BUILDKIT_PROGRESS", "plain")
    }

    /// A command of compose, its arguments to follow.
    pub(super) fn compose(&self) -> Command {
        let named = self.environment.iter().find(|(name, _)| *name == "XMPPSYNC_COMPOSE");
        let words = named.map(|(_, words)| words.to_string_lossy().into_owned()).unwrap_or_default();
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap_or("docker-compose"));
        command.args(words).current_dir(workspace::root());
        self.environ(&mut command);
        command
    }

    /// Builds all images, and forgets those that they replace.
    pub(super) fn build(&self) -> Result<()> {
        super::run_interruptibly(self.compose().args(["--profile", "test", "build"]))?;
        process::output(Command::new("docker").args(["image", "prune", "--force", "--filter", IMAGES]))
            .map(drop)
    }

    pub(super) fn print_logs(&self) {
        // It is for the reader of an error, and no error of its own.
        let _ = process::run(self.compose().args(["ps", "--all"]));
        let _ = process::run(self.compose().args(["logs", "--no-color", "--tail", "60"]));
    }

    /// Removes everything, and looks whether it did.
    pub(super) fn down(&self) -> Result<()> {
        let down = ["--profile", "test", "down", "--volumes", "--remove-orphans", "--timeout", "10"];
        let ended = process::run(self.compose().args(down));
        fs::remove_dir_all(&self.secrets)?;
        ended?;
        let filter = format!("label={LABEL}={}", self.project);
        for (kind, arguments) in KINDS {
            let mut list = Command::new("docker");
            list.args([kind, "ls", "--quiet", "--filter", &filter]).args(arguments);
            let left = process::output(&mut list)?;
            if !left.trim().is_empty() {
                bail!("taken down, and yet there is the {kind} {}", left.trim());
            }
        }
        Ok(())
    }
}

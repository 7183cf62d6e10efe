//! Developer commands: `cargo xtask setup`, `demo`, `test`, `install`, `deb`, `docker-base`, `bench`, `sim`.
//!
//! A small dispatcher; each command is a module of its own.

#![forbid(unsafe_code)]

mod bench;
mod deb;
mod demo;
mod docker;
mod headers;
mod install;
mod packages;
mod process;
mod release;
mod setup;
mod simulate;
mod sources;
mod test;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of xmppsync")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: slapd, ejabberd, prosody, libclang, the headers of OpenLDAP
    Setup,
    /// Build the overlay and copy it into slapd's module path
    Install {
        /// Another directory, for `modulepath`; made if it is not there
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Build the overlay as a Debian package, for the installed release of slapd
    Deb {
        /// Another directory than target/debian; made if it is not there
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Also the end-to-end tests, for the image that runs them
        #[arg(long)]
        tests: bool,
    },
    /// Without a registry: make the images that the Dockerfiles begin with from Debian's packages
    DockerBase,
    /// Three servers on free loopback ports, replicating; shows what happens until Ctrl-C
    Demo {
        /// End after the show; the exit status is 0 only if all servers are equal
        #[arg(long)]
        once: bool,
    },
    /// Measure, beside slapd's own replication; close other programs first
    Bench {
        #[command(subcommand)]
        what: Box<bench::Bench>,
    },
    /// Look for divergence in random histories of a simulated group; `--seed N --steps M [--seeds COUNT]`, `--mutations`
    Sim {
        /// Passed to the simulator as they are; `--help` tells
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build the overlay, run every test; arguments go to `cargo test`. The first may ask for another suite: see below
    #[command(after_help = test::HELP)]
    Test {
        /// Passed to `cargo test` as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Install { to } => install::run(to.as_deref()),
        Command::Deb { to, tests } => deb::run(to.as_deref(), tests),
        Command::DockerBase => docker::make_base(),
        Command::Demo { once } => demo::run(once),
        Command::Bench { what } => bench::run(&what),
        Command::Sim { arguments } => simulate::run(&arguments),
        // Taken as they were given: clap drops a first `--`, which is for cargo to read.
        Command::Test { .. } => test::run(&std::env::args_os().skip(2).collect::<Vec<_>>()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

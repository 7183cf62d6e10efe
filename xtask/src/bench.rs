//! `cargo xtask bench`: how fast it is, beside what slapd has of its own.

mod benchmark;
mod ber;
mod client;
mod cpu;
mod figures;
mod live;
mod machine;
mod options;
mod preload;
mod report;
mod servers;

use anyhow::Result;

pub(crate) use live::LiveArguments;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Rates, latency and processor time of the live stream, of syncrepl, and of no replication at all
    Live(LiveArguments),
}

/// Measures and prints.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Live(arguments) => {
            benchmark::run(live::Parameters::new(arguments)?, arguments.common.json.as_deref())
        }
    }
}

//! `cargo xtask bench`: how fast it is, beside what slapd has of its own.

mod arrival;
mod benchmark;
mod ber;
mod catchup;
mod client;
mod cpu;
mod figures;
mod live;
mod load;
mod machine;
mod memory;
mod options;
mod preload;
mod report;
mod servers;

use anyhow::Result;

pub(crate) use catchup::CatchupArguments;
pub(crate) use live::LiveArguments;
pub(crate) use load::LoadArguments;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Rates, latency and processor time of the live stream, of syncrepl, and of no replication at all
    Live(LiveArguments),
    /// How long an empty server needs to hold what another one holds
    Load(LoadArguments),
    /// How long a server that was down needs to hold what was written meanwhile
    Catchup(CatchupArguments),
}

/// Measures and prints.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Live(arguments) => {
            benchmark::run(live::Parameters::new(arguments)?, arguments.common.json.as_deref())
        }
        Bench::Load(arguments) => {
            benchmark::run(load::InitialLoad::new(arguments)?, arguments.common.json.as_deref())
        }
        Bench::Catchup(arguments) => {
            benchmark::run(catchup::Catchup::new(arguments)?, arguments.common.json.as_deref())
        }
    }
}

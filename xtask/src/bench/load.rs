//! `cargo xtask bench load`: an empty server gets a whole database from another one.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use xmppsync_lab::Topology;

use super::arrival::{self, Watched};
use super::benchmark::{Benchmark, Means, Run};
use super::figures::Figure;
use super::options::{Common, CommonArguments, Kind, REPLICATING, Storage, or_default};
use super::report::Measured;
use super::{preload, servers};

/// Arguments of `cargo xtask bench load`.
#[derive(clap::Args)]
pub(crate) struct LoadArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// People in the directory; departments and groups come on top [default: 20000,100000]
    #[arg(long, value_delimiter = ',')]
    entries: Vec<usize>,
    /// A server that is not whole so many seconds after its start counts as one that will not be
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    deadline: u64,
}

/// How everything is measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct InitialLoad {
    #[serde(flatten)]
    common: Common,
    entries: Vec<usize>,
    deadline_s: u64,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    storage: Storage,
    entries: usize,
    kind: Kind,
}

impl InitialLoad {
    /// Fills in what was not given.
    pub(super) fn new(arguments: &LoadArguments) -> Result<Self> {
        let common = Common::new(&arguments.common, &REPLICATING)?;
        common.check_replicates()?;
        let usual: &[usize] = if common.quick { &[200] } else { &[20_000, 100_000] };
        let entries = or_default(&arguments.entries, usual);
        if entries.contains(&0) {
            bail!("--entries must be at least 1");
        }
        Ok(Self { common, entries, deadline_s: arguments.deadline })
    }
}

impl Benchmark for InitialLoad {
    type Place = Place;
    const HEAD: &'static str = "\
| storage | people | replication | s until whole | entries /s | peak MiB source | target | CPU source | target | ejabberd | equal |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
";
    const NOTE: &'static str = "\
Source: the server that has everything; target: the one that is started empty. All from the start of the target's process until it holds all \
entries and the source's contextCSN. Entries are more than people: departments and groups too. MiB: anonymous memory, without the databases' \
maps. CPU: seconds of processor time.";

    fn common(&self) -> &Common {
        &self.common
    }

    fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for &storage in &self.common.storages {
            for &entries in &self.entries {
                places.extend(self.common.kinds.iter().map(|&kind| Place { storage, entries, kind }));
            }
        }
        places
    }

    fn measure(&self, place: &Place, means: &Means) -> Result<Run> {
        let Place { storage, entries, kind } = *place;
        let dir = self.common.dir(storage);
        let mut group = servers::prepare(kind, 2, Topology::Star, means.module, (&self.common, storage))?;
        preload::load(&group.servers[..1], &means.contents.ldif(entries)?)?;
        preload::flush(dir)?;
        group.servers[0].start()?;
        if kind.uses_xmpp() {
            servers::wait_joined(&group, 1)?;
        }
        let wanted = Watched::connect(&group.servers[0])?.holding()?;
        let deadline = Duration::from_secs(self.deadline_s);
        let mut arrival = arrival::measure(&mut group, kind, &wanted, deadline)?;
        if let Some(whole) = arrival.whole {
            arrival.figures.insert(Figure::EntriesPerS, wanted.entries as f64 / whole.as_secs_f64());
        }
        Ok(Run { figures: arrival.figures, difference: arrival.difference })
    }

    fn sentence(&self) -> String {
        let Self { deadline_s, common, .. } = self;
        format!(
            "An empty server beside a full one; whole within {deadline_s} s or not; {}.",
            common.runs_text()
        )
    }

    fn columns(cell: &Measured<Place>) -> Vec<String> {
        let Place { storage, entries, kind } = &cell.place;
        vec![
            storage.to_string(),
            entries.to_string(),
            kind.to_string(),
            cell.figure(Figure::WholeS, 2),
            cell.figure(Figure::EntriesPerS, 0),
            cell.figure(Figure::SourceMemoryMib, 0),
            cell.figure(Figure::TargetMemoryMib, 0),
            cell.figure(Figure::SourceCpuS, 2),
            cell.figure(Figure::TargetCpuS, 2),
            cell.figure(Figure::EjabberdCpuS, 2),
            cell.equal.to_string(),
        ]
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storage, entries, kind } = self;
        write!(formatter, "{storage}, {entries} people, {kind}")
    }
}

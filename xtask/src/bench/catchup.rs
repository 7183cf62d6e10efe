//! `cargo xtask bench catchup`: a server that was down gets what was written meanwhile.

mod changes;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use xmppsync_lab::{Group, Topology};

use super::arrival::{self, Holding, Watched};
use super::benchmark::{Benchmark, Means, Run};
use super::figures::Figure;
use super::options::{Common, CommonArguments, Kind, REPLICATING, Storage};
use super::report::Measured;
use super::{preload, servers};
use changes::Changes;

/// Changes before the server is stopped: by then all connections stand.
const WARM_UP_CHANGES: usize = 500;
const IN_SYNC_DEADLINE: Duration = Duration::from_secs(60);

/// Arguments of `cargo xtask bench catchup`. What stands as an `Option` has another value with `--quick`.
#[derive(clap::Args)]
pub(crate) struct CatchupArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// People in the directory; departments and groups come on top [default: 20000]
    #[arg(long)]
    entries: Option<usize>,
    /// People changed while the server is down, two attributes each time [default: 10000]
    #[arg(long)]
    modifies: Option<usize>,
    /// People deleted [default: 1000]
    #[arg(long)]
    deletes: Option<usize>,
    /// People added
    #[arg(long, default_value_t = 0)]
    adds: usize,
    /// Clients that write at the same time, each one change after the other
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// syncrepl's `syncprov-sessionlog`, 0 for none [default: twice as many as there are changes]
    #[arg(long)]
    session_log: Option<usize>,
    /// A server that is not whole so many seconds after its start counts as one that will not be
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    deadline: u64,
}

/// How everything is measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Catchup {
    #[serde(flatten)]
    common: Common,
    entries: usize,
    modifies: usize,
    deletes: usize,
    adds: usize,
    clients: usize,
    session_log: usize,
    deadline_s: u64,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    storage: Storage,
    kind: Kind,
}

impl Catchup {
    /// Fills in what was not given.
    pub(super) fn new(arguments: &CatchupArguments) -> Result<Self> {
        let common = Common::new(&arguments.common, &REPLICATING)?;
        common.check_replicates()?;
        let mut catchup = Self {
            entries: common.size(arguments.entries, 20_000, 200),
            modifies: common.size(arguments.modifies, 10_000, 100),
            deletes: common.size(arguments.deletes, 1_000, 10),
            adds: arguments.adds,
            clients: arguments.clients,
            session_log: 0,
            deadline_s: arguments.deadline,
            common,
        };
        let all = 2 * (WARM_UP_CHANGES + catchup.changes());
        catchup.session_log = arguments.session_log.unwrap_or(all);
        let Self { entries, modifies, deletes, clients, .. } = catchup;
        if clients == 0 || modifies < clients {
            bail!("--clients must be at least 1, and --modifies at least as many: each client ends with one");
        }
        if entries < deletes + clients {
            bail!("--entries must be more than --deletes by as many as there are clients, or more");
        }
        Ok(catchup)
    }

    fn changes(&self) -> usize {
        self.modifies + self.deletes + self.adds
    }

    /// Two servers with equal content, the second one down, while the first one has everything written; what
    /// that one holds.
    fn prepare(&self, place: &Place, means: &Means) -> Result<(Group, Holding)> {
        let Place { storage, kind } = *place;
        let dir = self.common.dir(storage);
        let mut group = servers::prepare(kind, 2, Topology::Star, means.module, (&self.common, storage))?;
        if kind == Kind::Syncrepl && self.session_log > 0 {
            let mut config = group.config(0)?;
            // The overlay's lines are the database's last, and syncprov is the only overlay.
            let lines = config.databases.first_mut().map(|database| &mut database.overlay_lines);
            lines
                .into_iter()
                .for_each(|lines| lines.push(format!("syncprov-sessionlog {}", self.session_log)));
            group.servers[0].set_config(config)?;
        }
        preload::load(&group.servers, &means.contents.ldif(self.entries)?)?;
        preload::flush(dir)?;
        group.start()?;
        if kind.uses_xmpp() {
            servers::wait_joined(&group, 2)?;
            servers::wait_equal(&group)?;
        }
        let warm_up = Changes { modifies: WARM_UP_CHANGES, deletes: 0, adds: 0, ..self.to_write("warm") };
        let wanted = warm_up.write(&group.servers[0])?;
        let seen = Watched::connect(&group.servers[1])?.wait(&wanted, Instant::now() + IN_SYNC_DEADLINE)?;
        if seen != wanted {
            bail!("not in sync before the server was stopped: it has {seen}, the other one {wanted}");
        }
        group.servers[1].stop()?;
        if kind.uses_xmpp() {
            servers::wait_joined(&group, 1)?;
        }
        let wanted = self.to_write("missed").write(&group.servers[0])?;
        preload::flush(dir)?;
        Ok((group, wanted))
    }

    fn to_write(&self, name: &'static str) -> Changes {
        let Self { entries, modifies, deletes, adds, clients, .. } = *self;
        Changes { people: entries, modifies, deletes, adds, clients, name }
    }
}

impl Benchmark for Catchup {
    type Place = Place;
    const HEAD: &'static str = "\
| storage | replication | s from its start | s from its first answer | changes /s | peak MiB source | target | CPU source | target | ejabberd | equal |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
";
    const NOTE: &'static str = "\
Source: the server that was written to; target: the one that was down. All from the start of the target's process until it holds as many \
entries as the source and its contextCSN. MiB: anonymous memory, without the databases' maps. CPU: seconds of processor time.";

    fn common(&self) -> &Common {
        &self.common
    }

    fn places(&self) -> Vec<Place> {
        let Common { storages, kinds, .. } = &self.common;
        let of_storage = |&storage| kinds.iter().map(move |&kind| Place { storage, kind });
        storages.iter().flat_map(of_storage).collect()
    }

    fn measure(&self, place: &Place, means: &Means) -> Result<Run> {
        let (mut group, wanted) = self.prepare(place, means)?;
        let deadline = Duration::from_secs(self.deadline_s);
        let mut arrival = arrival::measure(&mut group, place.kind, &wanted, deadline)?;
        if let Some(whole) = arrival.whole {
            arrival.figures.insert(Figure::ChangesPerS, self.changes() as f64 / whole.as_secs_f64());
        }
        Ok(Run { figures: arrival.figures, difference: arrival.difference })
    }

    fn sentence(&self) -> String {
        let Self { entries, modifies, deletes, adds, clients, session_log, deadline_s, common } = self;
        let session_log = match session_log {
            0 => "syncrepl without a session log".to_owned(),
            size => format!("syncrepl with syncprov-sessionlog {size}"),
        };
        format!(
            "{entries} people; {modifies} modifies, {deletes} deletes and {adds} adds by {clients} clients while the \
             server was down; {session_log}; whole within {deadline_s} s or not; {}.",
            common.runs_text()
        )
    }

    fn columns(cell: &Measured<Place>) -> Vec<String> {
        vec![
            cell.place.storage.to_string(),
            cell.place.kind.to_string(),
            cell.figure(Figure::WholeS, 2),
            cell.figure(Figure::WholeAfterAnswerS, 2),
            cell.figure(Figure::ChangesPerS, 0),
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
        write!(formatter, "{}, {}", self.storage, self.kind)
    }
}

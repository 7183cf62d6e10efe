//! What is measured, and with which parameters.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::bench::options::{Common, CommonArguments, Kind, Storage, or_default};

/// Arguments of `cargo xtask bench live`. What stands as an `Option` has another value with `--quick`.
#[derive(clap::Args)]
pub(crate) struct LiveArguments {
    #[command(flatten)]
    pub(in crate::bench) common: CommonArguments,
    /// How many servers receive; 0 is the writer alone [default: 0,1,4]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<usize>,
    /// Which servers the clients write to
    #[arg(long, value_enum, default_value = "one")]
    writers: Writers,
    /// slapd's own replication from each server to each, and not only from the one that is written to
    #[arg(long)]
    mesh: bool,
    /// People in the directory; departments and groups come on top [default: 20000]
    #[arg(long)]
    entries: Option<usize>,
    /// Changes under load [default: 20000]
    #[arg(long)]
    writes: Option<usize>,
    /// Clients that write at the same time, each one change after the other
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Changes written one at a time, to measure latency [default: 1000]
    #[arg(long)]
    samples: Option<usize>,
}

/// Which servers are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::bench) enum Writers {
    /// One; the others only receive.
    One,
    /// All at once.
    All,
}

/// One line of the table: what is measured side by side.
#[derive(Clone, Debug, Serialize)]
pub(in crate::bench) struct Place {
    pub(super) storage: Storage,
    pub(super) peers: usize,
    pub(super) kind: Kind,
}

/// How everything is measured.
#[derive(Clone, Debug, Serialize)]
pub(in crate::bench) struct Parameters {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) peers: Vec<usize>,
    pub(super) writers: Writers,
    pub(super) mesh: bool,
    pub(super) entries: usize,
    pub(super) writes: usize,
    pub(super) clients: usize,
    pub(super) samples: usize,
}

impl Parameters {
    /// Fills in what was not given.
    pub(in crate::bench) fn new(arguments: &LiveArguments) -> Result<Self> {
        let all_kinds = [Kind::None, Kind::Xmppsync, Kind::Syncrepl, Kind::DeltaSyncrepl];
        let common = Common::new(&arguments.common, &all_kinds)?;
        let parameters = Self {
            peers: or_default(&arguments.peers, if common.quick { &[1] } else { &[0, 1, 4] }),
            writers: arguments.writers,
            mesh: arguments.mesh || arguments.writers == Writers::All,
            entries: common.size(arguments.entries, 20_000, 200),
            writes: common.size(arguments.writes, 20_000, 400),
            clients: arguments.clients,
            samples: common.size(arguments.samples, 1_000, 20),
            common,
        };
        parameters.check()?;
        Ok(parameters)
    }

    fn check(&self) -> Result<()> {
        let clients = self.peers.iter().map(|peers| self.clients_for(*peers)).max().unwrap_or_default();
        if self.clients == 0 {
            bail!("--clients must be at least 1");
        }
        if self.entries < clients || self.writes < clients {
            bail!("--entries and --writes must be at least the number of clients, {clients}");
        }
        Ok(())
    }

    /// Everything to be measured, what is compared standing side by side.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        let Common { kinds, storages, .. } = &self.common;
        for &storage in storages {
            // Servers that do not replicate are of no effect on the one that is written to.
            if self.writers == Writers::One && kinds.contains(&Kind::None) {
                places.push(Place { storage, peers: 0, kind: Kind::None });
            }
            for &peers in &self.peers {
                let kinds = kinds.iter().copied();
                let kinds = kinds.filter(|kind| kind.replicates() || self.writers == Writers::All);
                places.extend(kinds.map(|kind| Place { storage, peers, kind }));
            }
        }
        places
    }

    /// How many clients write: at least one for every server that is written to.
    pub(super) fn clients_for(&self, peers: usize) -> usize {
        match self.writers {
            Writers::One => self.clients,
            Writers::All => self.clients.max(peers + 1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storage, peers, kind } = self;
        write!(formatter, "{storage}, {peers} peers, {kind}")
    }
}

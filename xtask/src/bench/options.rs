//! What is measured, and with which parameters.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

/// Arguments of `cargo xtask bench live`. What stands as an `Option` has another value with `--quick`.
#[derive(clap::Args)]
pub(crate) struct LiveArguments {
    /// Which kinds of replication; the default is none, xmppsync, syncrepl and delta-syncrepl
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Kind>,
    /// How many servers receive; 0 is the writer alone [default: 0,1,4]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<usize>,
    /// Where the databases lie [default: tmpfs,disk]
    #[arg(long, value_delimiter = ',', value_enum)]
    storage: Vec<Storage>,
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
    /// Runs of everything; the median is shown
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Small: only to see that it works
    #[arg(long)]
    quick: bool,
    /// Also write everything measured to this file
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// A directory on a tmpfs
    #[arg(long, default_value = "/dev/shm")]
    tmpfs_dir: PathBuf,
    /// A directory on a disk
    #[arg(long, default_value = "/var/tmp")]
    disk_dir: PathBuf,
}

/// What keeps the servers equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Nothing: what slapd can do at all.
    None,
    /// The overlay, with its live stream in the room.
    Xmppsync,
    /// The overlay, with its live stream through pubsub nodes; measured only when asked for.
    XmppsyncPubsub,
    /// slapd's own.
    Syncrepl,
    /// slapd's own, with a log of changes.
    DeltaSyncrepl,
}

/// Where the databases lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Storage {
    /// In memory.
    Tmpfs,
    /// On a disk; slapd waits for it at every commit.
    Disk,
}

/// Which servers are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Writers {
    /// One; the others only receive.
    One,
    /// All at once.
    All,
}

/// One line of the table: what is measured side by side.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    pub(super) storage: Storage,
    pub(super) peers: usize,
    pub(super) kind: Kind,
}

/// How everything is measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Parameters {
    pub(super) kinds: Vec<Kind>,
    pub(super) peers: Vec<usize>,
    pub(super) storages: Vec<Storage>,
    pub(super) writers: Writers,
    pub(super) mesh: bool,
    pub(super) entries: usize,
    pub(super) writes: usize,
    pub(super) clients: usize,
    pub(super) samples: usize,
    pub(super) runs: usize,
    #[serde(skip)]
    tmpfs_dir: PathBuf,
    #[serde(skip)]
    disk_dir: PathBuf,
}

impl Parameters {
    /// Fills in what was not given.
    pub(super) fn new(arguments: &LiveArguments) -> Result<Self> {
        let quick = arguments.quick;
        let size = |given: Option<usize>, usual, small| given.unwrap_or(if quick { small } else { usual });
        let all_kinds = [Kind::None, Kind::Xmppsync, Kind::Syncrepl, Kind::DeltaSyncrepl];
        let parameters = Self {
            kinds: or_default(&arguments.only, &all_kinds),
            peers: or_default(&arguments.peers, if quick { &[1] } else { &[0, 1, 4] }),
            storages: or_default(
                &arguments.storage,
                if quick { &[Storage::Tmpfs] } else { &[Storage::Tmpfs, Storage::Disk] },
            ),
            writers: arguments.writers,
            mesh: arguments.mesh || arguments.writers == Writers::All,
            entries: size(arguments.entries, 20_000, 200),
            writes: size(arguments.writes, 20_000, 400),
            clients: arguments.clients,
            samples: size(arguments.samples, 1_000, 20),
            runs: arguments.runs,
            tmpfs_dir: arguments.tmpfs_dir.clone(),
            disk_dir: arguments.disk_dir.clone(),
        };
        parameters.check()?;
        Ok(parameters)
    }

    fn check(&self) -> Result<()> {
        let clients = self.peers.iter().map(|peers| self.clients_for(*peers)).max().unwrap_or_default();
        if self.clients == 0 || self.runs == 0 {
            bail!("--clients and --runs must be at least 1");
        }
        if self.entries < clients || self.writes < clients {
            bail!("--entries and --writes must be at least the number of clients, {clients}");
        }
        Ok(())
    }

    /// Everything to be measured, what is compared standing side by side.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for &storage in &self.storages {
            // Servers that do not replicate are of no effect on the one that is written to.
            if self.writers == Writers::One && self.kinds.contains(&Kind::None) {
                places.push(Place { storage, peers: 0, kind: Kind::None });
            }
            for &peers in &self.peers {
                let kinds = self.kinds.iter().copied();
                let kinds = kinds.filter(|kind| *kind != Kind::None || self.writers == Writers::All);
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

    /// Where the databases of a storage lie.
    pub(super) fn dir(&self, storage: Storage) -> &PathBuf {
        match storage {
            Storage::Tmpfs => &self.tmpfs_dir,
            Storage::Disk => &self.disk_dir,
        }
    }
}

fn or_default<T: Copy>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storage, peers, kind } = self;
        write!(formatter, "{storage}, {peers} peers, {kind}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::None => "none",
            Self::Xmppsync => "xmppsync",
            Self::XmppsyncPubsub => "xmppsync, pubsub",
            Self::Syncrepl => "syncrepl",
            Self::DeltaSyncrepl => "delta-syncrepl",
        })
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        })
    }
}

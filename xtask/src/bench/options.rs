//! What all benchmarks are asked: kinds of replication, where databases lie, how often.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

/// Neighbours in the order of writing are none in the database. A prime, so that every entry has its turn.
pub(super) const STRIDE: usize = 7919;

/// Arguments of every benchmark.
#[derive(clap::Args)]
pub(crate) struct CommonArguments {
    /// Which kinds of replication [default: all that the command can compare, but xmppsync-pubsub]
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Kind>,
    /// Where the databases lie [default: tmpfs,disk]
    #[arg(long, value_delimiter = ',', value_enum)]
    storage: Vec<Storage>,
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

/// All kinds that keep servers equal and are compared unless others are asked for.
pub(super) const REPLICATING: [Kind; 3] = [Kind::Xmppsync, Kind::Syncrepl, Kind::DeltaSyncrepl];

/// [`CommonArguments`], with what was not given filled in.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Common {
    pub(super) kinds: Vec<Kind>,
    pub(super) storages: Vec<Storage>,
    pub(super) runs: usize,
    #[serde(skip)]
    pub(super) quick: bool,
    #[serde(skip)]
    tmpfs_dir: PathBuf,
    #[serde(skip)]
    disk_dir: PathBuf,
}

impl Common {
    /// Fills in what was not given, of the kinds with these.
    pub(super) fn new(arguments: &CommonArguments, kinds: &[Kind]) -> Result<Self> {
        if arguments.runs == 0 {
            bail!("--runs must be at least 1");
        }
        let storages: &[Storage] =
            if arguments.quick { &[Storage::Tmpfs] } else { &[Storage::Tmpfs, Storage::Disk] };
        Ok(Self {
            kinds: or_default(&arguments.only, kinds),
            storages: or_default(&arguments.storage, storages),
            runs: arguments.runs,
            quick: arguments.quick,
            tmpfs_dir: arguments.tmpfs_dir.clone(),
            disk_dir: arguments.disk_dir.clone(),
        })
    }

    /// Refuses servers that know nothing of each other.
    pub(super) fn check_replicates(&self) -> Result<()> {
        if self.kinds.contains(&Kind::None) {
            bail!("--only none: servers that do not replicate never get anything from each other");
        }
        Ok(())
    }

    /// What was given, or the usual size, or the small one of `--quick`.
    pub(super) fn size(&self, given: Option<usize>, usual: usize, small: usize) -> usize {
        given.unwrap_or(if self.quick { small } else { usual })
    }

    /// Where the databases of a storage lie.
    pub(super) fn dir(&self, storage: Storage) -> &Path {
        match storage {
            Storage::Tmpfs => &self.tmpfs_dir,
            Storage::Disk => &self.disk_dir,
        }
    }

    /// The end of the sentence about the parameters.
    pub(super) fn runs_text(&self) -> String {
        if self.runs == 1 { "one run".to_owned() } else { format!("median of {} runs", self.runs) }
    }
}

impl Kind {
    pub(super) fn replicates(self) -> bool {
        self != Self::None
    }

    pub(super) fn uses_xmpp(self) -> bool {
        matches!(self, Self::Xmppsync | Self::XmppsyncPubsub)
    }
}

pub(super) fn or_default<T: Copy>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
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

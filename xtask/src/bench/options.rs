//! What all benchmarks are asked: kinds of replication, where databases lie, how often.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use xmppsync_lab::{XmppKind, XmppOptions};

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
    /// Which XMPP server, with the lab's configuration or with Debian's
    #[arg(long, value_enum, default_value = "ejabberd")]
    xmpp_server: XmppChoice,
    /// Another text in its configuration, such as 'rate: 3000=>rate: 200000'; several times if need be
    #[arg(long, value_name = "FROM=>TO")]
    xmpp_edit: Vec<String>,
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

/// Which XMPP server carries the overlay's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum XmppChoice {
    /// ejabberd without limits.
    Ejabberd,
    /// prosody without limits.
    Prosody,
    /// ejabberd as Debian configures it.
    StockEjabberd,
    /// prosody as Debian configures it, with rooms and nodes.
    StockProsody,
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
    pub(super) xmpp_server: XmppChoice,
    pub(super) xmpp_edits: Vec<(String, String)>,
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
        let edit = |text: &String| match text.split_once("=>") {
            Some((from, to)) => Ok((from.to_owned(), to.to_owned())),
            None => bail!("--xmpp-edit {text}: what is to be replaced, =>, and what it is replaced by"),
        };
        Ok(Self {
            xmpp_server: arguments.xmpp_server,
            xmpp_edits: arguments.xmpp_edit.iter().map(edit).collect::<Result<_>>()?,
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

    /// The XMPP server that was asked for.
    pub(super) fn xmpp(&self) -> XmppOptions {
        let (kind, stock) = match self.xmpp_server {
            XmppChoice::Ejabberd => (XmppKind::Ejabberd, false),
            XmppChoice::Prosody => (XmppKind::Prosody, false),
            XmppChoice::StockEjabberd => (XmppKind::Ejabberd, true),
            XmppChoice::StockProsody => (XmppKind::Prosody, true),
        };
        XmppOptions { kind, stock, edits: self.xmpp_edits.clone(), ..XmppOptions::default() }
    }

    /// The end of the sentence about the parameters.
    pub(super) fn runs_text(&self) -> String {
        let runs =
            if self.runs == 1 { "one run".to_owned() } else { format!("median of {} runs", self.runs) };
        let edits = self.xmpp_edits.iter().map(|(from, to)| format!(" with {to:?} for {from:?}"));
        match (self.xmpp_server, edits.collect::<String>()) {
            (XmppChoice::Ejabberd, edits) if edits.is_empty() => runs,
            (server, edits) => format!("on {server}{edits}; {runs}"),
        }
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

impl fmt::Display for XmppChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ejabberd => "ejabberd",
            Self::Prosody => "prosody",
            Self::StockEjabberd => "Debian's ejabberd",
            Self::StockProsody => "Debian's prosody",
        })
    }
}

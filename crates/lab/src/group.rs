//! An XMPP server and the slapds that replicate through it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::baseline;
use crate::dir::LabDir;
use crate::dump::assert_equal;
use crate::error::{IoContext, LabError, Result};
use crate::net::Network;
use crate::slapd::{Database, Slapd, SlapdConfig, SlapdOptions, module_path, other_release};
use crate::xmpp::{Cluster, Federation, XmppOptions, XmppServer};

/// The suffix of a group that asks for no other.
pub const SUFFIX: &str = "dc=example,dc=com";

/// What carries the live stream: `xmppsync-live`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// The room.
    Muc,
    /// The servers' pubsub nodes.
    Pubsub,
}

/// How the servers protect their connections: `xmppsync-tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, with the lab's certificate authority.
    Starttls,
    /// TLS from the first byte, with the lab's certificate authority.
    Direct,
    /// None.
    Plaintext,
}

/// What keeps the servers' databases equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// The overlay.
    Xmpp,
    /// Nothing.
    None,
    /// slapd's own, for comparison: syncrepl from each to each, refreshAndPersist.
    Syncrepl,
    /// The same with a log of changes. For one database only; it adds `cn=log`.
    DeltaSyncrepl,
}

/// Who asks whom in slapd's own replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each server asks each other one, and any may be written to.
    Mesh,
    /// All ask the first, the only one that may be written to.
    Star,
}

/// A second XMPP server, to which every second slapd logs in: `b`, `d`, …
#[derive(Clone, Debug)]
pub enum SecondXmpp {
    /// Of another domain, linked with the first one, which has the room and the nodes.
    Federated(XmppOptions),
    /// Another node of a cluster of ejabberd.
    ClusterNode,
}

/// What a group is made of.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// How many slapds: `a`, `b`, `c`, …, with the accounts `a@xmpp.test` and so on, serverID 1, 2, 3, ….
    pub servers: usize,
    /// The databases; each server has all of them, each replicated in a room of its own.
    pub suffixes: Vec<String>,
    /// `xmppsync-live`.
    pub live: Live,
    /// `xmppsync-tls`.
    pub tls: Tls,
    /// What keeps the servers equal. All but the overlay do without the XMPP server, which runs all the same.
    pub replication: Replication,
    /// Who asks whom in slapd's own replication; the overlay is always a mesh.
    pub topology: Topology,
    /// The numbers of the servers that are of another release, see [`other_release`].
    pub other_release: Vec<usize>,
    /// The module with the overlay; `None` is what [`module_path`] finds.
    pub module: Option<PathBuf>,
    /// More lines for each overlay.
    pub overlay_lines: Vec<String>,
    /// More lines for each database, such as `dbnosync`.
    pub database_lines: Vec<String>,
    /// More lines before the databases.
    pub global_lines: Vec<String>,
    /// More modules, such as `syncprov`.
    pub modules: Vec<String>,
    /// The size of each database's memory map.
    pub maxsize: u64,
    /// Where the lab's directory is made; `None` is the system's temporary directory.
    pub base_dir: Option<PathBuf>,
    /// The network in which each server is a host: 1 is the XMPP server, the slapds follow. `None` is this machine.
    pub network: Option<Network>,
    /// The XMPP server.
    pub xmpp: XmppOptions,
    /// A second one beside it.
    pub second_xmpp: Option<SecondXmpp>,
    /// How each slapd runs.
    pub slapd: SlapdOptions,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            servers: 3,
            suffixes: vec![SUFFIX.to_owned()],
            live: Live::Muc,
            tls: Tls::Starttls,
            replication: Replication::Xmpp,
            topology: Topology::Mesh,
            other_release: Vec::new(),
            module: None,
            overlay_lines: Vec::new(),
            database_lines: Vec::new(),
            global_lines: Vec::new(),
            modules: Vec::new(),
            maxsize: 4 << 30,
            base_dir: None,
            network: None,
            xmpp: XmppOptions::default(),
            second_xmpp: None,
            slapd: SlapdOptions::default(),
        }
    }
}

/// An XMPP server and its slapds. The databases are empty at first.
#[derive(Debug)]
pub struct Group {
    // First, so that they are gone before their XMPP server is.
    /// The servers, in the order of their names.
    pub servers: Vec<Slapd>,
    /// The XMPP server.
    pub xmpp: XmppServer,
    /// The second one, if there are two.
    pub second_xmpp: Option<XmppServer>,
    /// The directory of all but the second XMPP server, which has one of its own.
    pub lab: LabDir,
    options: GroupOptions,
}

impl Group {
    /// A group of so many servers with everything else as usual, started.
    ///
    /// # Errors
    /// When a server does not start, with its log.
    pub fn new(servers: usize) -> Result<Self> {
        Self::with(GroupOptions { servers, ..GroupOptions::default() })
    }

    /// A started group.
    ///
    /// # Errors
    /// When a server does not start, with its log.
    pub fn with(options: GroupOptions) -> Result<Self> {
        let mut group = Self::prepare(options)?;
        group.start()?;
        Ok(group)
    }

    /// A group whose XMPP server runs and whose slapds do not yet: to load or to change them first.
    ///
    /// # Errors
    /// When the XMPP server does not start.
    pub fn prepare(options: GroupOptions) -> Result<Self> {
        let lab = match &options.base_dir {
            Some(base) => LabDir::in_dir(base)?,
            None => LabDir::new()?,
        };
        let host = |number| options.network.as_ref().map(|network| network.host(number)).transpose();
        let first = XmppOptions { host: host(1)?, ..options.xmpp.clone() };
        let (xmpp, second_xmpp) = start_xmpp(&lab, first, options.second_xmpp.as_ref())?;
        let hosts = (0..options.servers).map(|number| host(number + 2)).collect::<Result<Vec<_>>>()?;
        let mut group = Self { servers: Vec::new(), xmpp, second_xmpp, lab, options };
        for (number, host) in hosts.into_iter().enumerate() {
            let name = server_name(number);
            group.home_mut(number).register(&name, &password(&name))?;
            let config = group.config(number)?;
            let mut slapd = SlapdOptions { host, ..group.options.slapd.clone() };
            if let Some((program, _)) = group.other_release(number)? {
                slapd.program = Some(program);
            }
            let slapd = Slapd::prepare(&group.lab, &name, config, slapd)?;
            group.servers.push(slapd);
        }
        // slapd's own replication names the others' addresses, which are known only now.
        for number in 0..group.servers.len() {
            let config = group.config(number)?;
            group.servers[number].set_config(config)?;
        }
        Ok(group)
    }

    /// Starts the slapds that are not running.
    ///
    /// # Errors
    /// When one does not start, with its log.
    pub fn start(&mut self) -> Result<()> {
        self.servers.iter_mut().filter(|server| server.pid().is_none()).try_for_each(Slapd::start)
    }

    /// Waits until all running servers hold the same in all databases, entry by entry with operational
    /// attributes.
    ///
    /// # Errors
    /// A timeout that lists the differences.
    pub fn assert_equal(&self, deadline: Duration) -> Result<()> {
        let running = || self.servers.iter().filter(|server| server.pid().is_some());
        self.options
            .suffixes
            .iter()
            .try_for_each(|suffix| assert_equal(running(), suffix, deadline).map(drop))
    }

    /// What it was made of.
    #[must_use]
    pub fn options(&self) -> &GroupOptions {
        &self.options
    }

    /// The bare JID of a server.
    #[must_use]
    pub fn jid(&self, number: usize) -> String {
        format!("{}@{}", server_name(number), self.home(number).domain())
    }

    /// The XMPP server to which a server logs in.
    fn home(&self, number: usize) -> &XmppServer {
        self.second_xmpp.as_ref().filter(|_| number % 2 == 1).unwrap_or(&self.xmpp)
    }

    fn home_mut(&mut self, number: usize) -> &mut XmppServer {
        self.second_xmpp.as_mut().filter(|_| number % 2 == 1).unwrap_or(&mut self.xmpp)
    }

    /// The configuration of a server, to change and hand to [`Slapd::set_config`]. Writes its password
    /// file.
    ///
    /// # Errors
    /// When the overlay was not built, or the password file cannot be written.
    pub fn config(&self, number: usize) -> Result<SlapdConfig> {
        let options = &self.options;
        let delta = options.replication == Replication::DeltaSyncrepl;
        let mut modules = options.modules.clone();
        let mut databases = Vec::new();
        match options.replication {
            Replication::Xmpp => {
                let module = match self.other_release(number)? {
                    Some((_, module)) => module,
                    None => options.module.clone().map_or_else(module_path, Ok)?,
                };
                modules.push(module.display().to_string());
            }
            Replication::None => {}
            Replication::Syncrepl | Replication::DeltaSyncrepl => modules.extend(baseline::modules(delta)),
        }
        for suffix in &options.suffixes {
            let mut database = Database::new(suffix);
            database.maxsize = options.maxsize;
            database.lines = options.database_lines.clone();
            let asks = |peer: usize| match options.topology {
                Topology::Mesh => peer != number,
                Topology::Star => peer == 0 && number != 0,
            };
            let peers = self.servers.iter().enumerate().filter(|(peer, _)| asks(*peer));
            let peers = peers.map(|(_, slapd)| slapd);
            database.overlay_lines = match options.replication {
                Replication::Xmpp => self.overlay_lines(number)?,
                Replication::None => Vec::new(),
                Replication::Syncrepl | Replication::DeltaSyncrepl => {
                    let is_asked = options.topology == Topology::Mesh || number == 0;
                    baseline::lines(&database, peers, delta, is_asked)
                }
            };
            databases.push(database);
        }
        if delta && (options.topology == Topology::Mesh || number == 0) {
            let reader = databases.first().map(|database| database.rootdn.as_str()).unwrap_or_default();
            let mut log = baseline::log_database(reader);
            log.maxsize = options.maxsize;
            log.lines.extend(options.database_lines.iter().cloned());
            // Not the first: that is the one that clients ask for. accesslog finds it all the same.
            databases.push(log);
        }
        let server_id = u16::try_from(number + 1).ok();
        let global_lines = options.global_lines.clone();
        Ok(SlapdConfig { server_id, modules, global_lines, databases, ..SlapdConfig::default() })
    }

    /// slapd and overlay of a server that is of another release.
    fn other_release(&self, number: usize) -> Result<Option<(PathBuf, PathBuf)>> {
        if !self.options.other_release.contains(&number) {
            return Ok(None);
        }
        other_release().map(Some).ok_or_else(|| LabError::Missing("slapd of another release".to_owned()))
    }

    /// The overlay's lines for a server, as in its slapd.conf. Writes its password file.
    ///
    /// # Errors
    /// When the password file cannot be written.
    pub fn overlay_lines(&self, number: usize) -> Result<Vec<String>> {
        let name = server_name(number);
        let password_file = self.lab.write(&format!("{name}.password"), format!("{}\n", password(&name)))?;
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600))
            .context(|| format!("cannot protect {}", password_file.display()))?;
        let domain = self.xmpp.domain();
        let home = self.home(number);
        let (address, tls) = match self.options.tls {
            Tls::Starttls => (home.client_address(), "starttls"),
            Tls::Direct => (home.client_tls_address(), "direct"),
            Tls::Plaintext => (home.client_address(), "insecure-plaintext"),
        };
        let mut lines = vec![
            "overlay xmppsync".to_owned(),
            format!("xmppsync-jid {}", self.jid(number)),
            format!("xmppsync-password-file {}", password_file.display()),
            format!("xmppsync-server {address}"),
            format!("xmppsync-tls {tls}"),
            format!("xmppsync-muc conference.{domain}"),
            format!("xmppsync-pubsub pubsub.{domain}"),
        ];
        if self.options.tls != Tls::Plaintext {
            lines.push(format!("xmppsync-tls-ca {}", home.ca_file().display()));
        }
        if self.options.live == Live::Pubsub {
            lines.push("xmppsync-live pubsub".to_owned());
        }
        let peers = (0..self.options.servers).filter(|peer| *peer != number);
        lines.extend(peers.map(|peer| format!("xmppsync-peer {}", self.jid(peer))));
        lines.extend(self.options.overlay_lines.iter().cloned());
        Ok(lines)
    }
}

/// The XMPP servers of a group.
fn start_xmpp(
    lab: &LabDir,
    mut options: XmppOptions,
    second: Option<&SecondXmpp>,
) -> Result<(XmppServer, Option<XmppServer>)> {
    let Some(second) = second else { return Ok((XmppServer::start(lab, options)?, None)) };
    if options.host.is_some() {
        return Err(LabError::Invalid("a second XMPP server in a network of hosts".to_owned()));
    }
    // For an address of its own: all nodes of a cluster use one port.
    let second_lab = LabDir::new()?;
    match second {
        SecondXmpp::Federated(second) => {
            let federation = Federation::new(lab, &[&options.domain, &second.domain])?;
            options.federation = Some(federation.clone());
            let second = XmppOptions { federation: Some(federation), ..second.clone() };
            Ok((XmppServer::start(lab, options)?, Some(XmppServer::start(&second_lab, second)?)))
        }
        SecondXmpp::ClusterNode => {
            options.cluster = Some(Cluster::default());
            let first = XmppServer::start(lab, options.clone())?;
            let second = XmppServer::start(&second_lab, options)?;
            second.join(&first)?;
            Ok((first, Some(second)))
        }
    }
}

/// `a` to `z`, then `s27` and so on.
fn server_name(number: usize) -> String {
    match u8::try_from(number) {
        Ok(number @ 0..26) => char::from(b'a' + number).to_string(),
        _ => format!("s{}", number + 1),
    }
}

fn password(name: &str) -> String {
    format!("secret of {name}")
}

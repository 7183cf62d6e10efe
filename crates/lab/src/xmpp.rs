//! A real XMPP server: ejabberd or prosody.

mod cluster;
mod ejabberd;
mod federation;
mod options;
mod prosody;

pub use cluster::Cluster;
pub use federation::Federation;
pub use options::{XmppKind, XmppOptions};

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeFrom;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::certificates::Authority;
use crate::child::{Server, Stopped, run_tool};
use crate::dir::LabDir;
use crate::error::{IoContext, LabError, Result};
use crate::http;
use crate::net::{Host, command_on};
use crate::wait::wait_until;

/// Loading takes 2 s on an idle machine; several at once on a busy one take their time.
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// On a host of its own, where none is in use.
const HOST_PORTS: RangeFrom<u16> = 5222..;

/// What becomes of rooms, nodes and messages at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmppData {
    /// They stay.
    Keep,
    /// They are lost, as on a machine set up anew; accounts that the lab registered are there again.
    Drop,
}

/// A part of the server that can be there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmppService {
    /// The rooms.
    Muc,
    /// The nodes.
    Pubsub,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
struct Listeners {
    /// Clients, plaintext or STARTTLS.
    client: SocketAddr,
    /// Clients, direct TLS.
    client_tls: SocketAddr,
    /// The management interface.
    http: SocketAddr,
    /// The SOCKS5 file transfer proxy.
    proxy: SocketAddr,
    /// Other XMPP servers.
    servers: SocketAddr,
    /// What Debian's configurations open beside these, and nobody here uses.
    unused: [SocketAddr; 4],
}

impl Listeners {
    fn new(lab: &LabDir, host: Option<&Host>) -> Result<Self> {
        let mut ports = HOST_PORTS;
        let mut free = || match host {
            Some(host) => Ok(host.address(ports.next().unwrap_or_default())),
            None => lab.free_address(),
        };
        Ok(Self {
            client: free()?,
            client_tls: free()?,
            http: free()?,
            proxy: free()?,
            servers: free()?,
            unused: [free()?, free()?, free()?, free()?],
        })
    }
}

/// An XMPP server with a directory, certificate and ports of its own.
#[derive(Debug)]
pub struct XmppServer {
    // Before the directory: fields drop in this order.
    server: Option<Server>,
    dir: PathBuf,
    lab: LabDir,
    options: XmppOptions,
    listeners: Listeners,
    accounts: Vec<(String, String)>,
    was_killed: bool,
    start_took: Duration,
}

impl XmppServer {
    /// Starts one and waits until it serves. Its files are in `xmpp/` of the lab.
    ///
    /// # Errors
    /// When it is not installed, does not start (with its log), or is not ready in time.
    pub fn start(lab: &LabDir, options: XmppOptions) -> Result<Self> {
        let dir = lab.subdir("xmpp")?;
        let domain = &options.domain;
        let names = [domain.clone(), format!("*.{domain}"), lab.ip().to_string()];
        let listeners = Listeners::new(lab, options.host.as_ref())?;
        let own_authority;
        let authority = match &options.federation {
            Some(federation) => {
                federation.announce(domain, listeners.servers);
                federation.authority()
            }
            None => {
                own_authority = Authority::new("xmppsync lab")?;
                &own_authority
            }
        };
        let (authority, certificate) = (authority.pem(), authority.server_pem(&names)?);
        let accounts = Vec::new();
        let mut xmpp = Self {
            server: None,
            dir,
            lab: lab.clone(),
            options,
            listeners,
            accounts,
            was_killed: false,
            start_took: Duration::ZERO,
        };
        xmpp.make_directories()?;
        xmpp.write("ca.pem", &authority)?;
        xmpp.write("server.pem", &certificate)?;
        if let (Some(federation), XmppKind::Ejabberd) = (&xmpp.options.federation, xmpp.options.kind) {
            xmpp.write(ejabberd::RESOLVER, &ejabberd::resolver(federation.name_server()))?;
        }
        if xmpp.options.kind == XmppKind::Prosody {
            for (name, text) in prosody::files(&xmpp.options, &certificate) {
                xmpp.write(&name, &text)?;
            }
        }
        xmpp.write_config()?;
        xmpp.run()?;
        Ok(xmpp)
    }

    /// Registers an account.
    ///
    /// # Errors
    /// When the server refuses it, such as one that exists.
    pub fn register(&mut self, user: &str, password: &str) -> Result<()> {
        self.register_again(user, password)?;
        self.accounts.push((user.to_owned(), password.to_owned()));
        Ok(())
    }

    /// Makes this node a part of the cluster that the other one is in; what it has is lost, and accounts and rooms are then those of all.
    ///
    /// # Errors
    /// When a node refuses, or does not serve in time.
    pub(crate) fn join(&self, other: &XmppServer) -> Result<()> {
        let cluster =
            self.options.cluster.as_ref().ok_or_else(|| LabError::Invalid("no cluster".to_owned()))?;
        let [own, other] = [self, other].map(|node| node.listeners.client.ip());
        // Not over HTTP: it stops its listeners for it, and with them whoever asked.
        let failed = |error: LabError| LabError::Failed { what: error.to_string(), output: self.log() };
        run_tool(&mut cluster.joining(own, other)?).map_err(failed)?;
        wait_until(&format!("{own} is a node of the cluster of {other}"), START_DEADLINE, || {
            let nodes = self.api("list_cluster", "{}").map_err(|error| error.to_string())?;
            if nodes.contains(&Cluster::name(other)) { Ok(()) } else { Err(nodes) }
        })
    }

    /// Calls a command of ejabberd's API, such as `kick_user` or `get_room_affiliations`, with JSON
    /// arguments; returns the JSON that it answers. prosody answers those that the lab's module has.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub fn api(&self, command: &str, arguments: &str) -> Result<String> {
        let what = || format!("command {command} {arguments} to {}", self.program());
        let answer = http::post(self.listeners.http, &format!("/api/{command}"), arguments).context(what)?;
        match answer {
            (200, body) => Ok(body),
            (status, body) => Err(LabError::Refused { what: what(), answer: format!("{status} {body}") }),
        }
    }

    /// Takes a service away while the server runs, or gives it back.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub fn set_service(&mut self, service: XmppService, offered: bool) -> Result<()> {
        match service {
            XmppService::Muc => self.options.rooms = offered,
            XmppService::Pubsub => self.options.pubsub = offered,
        }
        self.write_config()?;
        let (command, arguments) = match self.options.kind {
            XmppKind::Ejabberd => ("reload_config", "{}".to_owned()),
            XmppKind::Prosody => {
                let name = if service == XmppService::Muc { "conference" } else { "pubsub" };
                let command = if offered { "offer" } else { "withdraw" };
                (command, format!(r#"{{"service":"{name}.{}"}}"#, self.domain()))
            }
        };
        self.api(command, &arguments).map(drop)
    }

    /// Stops it and starts it again on the same ports.
    ///
    /// # Errors
    /// When it does not stop or start in time.
    pub fn restart(&mut self, data: XmppData) -> Result<()> {
        self.stop()?;
        self.start_again(data)
    }

    /// Starts it after [`XmppServer::stop`] or [`XmppServer::kill`], on the same ports.
    ///
    /// # Errors
    /// When it does not start in time.
    pub fn start_again(&mut self, data: XmppData) -> Result<()> {
        match (data, self.options.kind) {
            (XmppData::Keep, XmppKind::Ejabberd) if self.was_killed => self.run_ejabberd_with_accounts(),
            (XmppData::Keep, _) => self.run(),
            (XmppData::Drop, XmppKind::Ejabberd) => {
                let database = self.dir.join(ejabberd::DIRECTORIES[0]);
                fs::remove_dir_all(&database).context(|| format!("cannot remove {}", database.display()))?;
                self.run_ejabberd_with_accounts()
            }
            (XmppData::Drop, XmppKind::Prosody) => {
                prosody::drop_data(&self.dir)?;
                self.run()
            }
        }
    }

    /// It keeps in memory for a while what it is told, and a killed one may lack accounts that it had a moment before. Nobody may log
    /// in before all are there again: a client whose password is refused waits for minutes.
    fn run_ejabberd_with_accounts(&mut self) -> Result<()> {
        let whole = self.config_text()?;
        self.write(ejabberd::CONFIG, &ejabberd::without_clients(&whole, &self.options, &self.listeners))?;
        self.run()?;
        self.was_killed = false;
        for (user, password) in &self.accounts {
            if !self.has_account(user)? {
                self.register_again(user, password)?;
            }
        }
        self.write(ejabberd::CONFIG, &whole)?;
        self.api("reload_config", "{}").map(drop)
    }

    /// Ends it in good order: clients are told.
    ///
    /// # Errors
    /// When it is not running or does not end in time.
    pub fn stop(&mut self) -> Result<Stopped> {
        self.take_server()?.stop(Signal::TERM, STOP_DEADLINE)
    }

    /// Ends it at once, as a power failure would.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<Stopped> {
        self.was_killed = true;
        self.take_server()?.stop(Signal::KILL, STOP_DEADLINE)
    }

    /// Stops its processes without closing a connection: a server, or a network, that hangs.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.server.as_ref().ok_or_else(|| self.not_running())?.signal(Signal::STOP)
    }

    /// Lets it go on after [`XmppServer::pause`].
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.server.as_ref().ok_or_else(|| self.not_running())?.signal(Signal::CONT)
    }

    /// Which program serves.
    #[must_use]
    pub fn kind(&self) -> XmppKind {
        self.options.kind
    }

    /// Its name.
    #[must_use]
    pub fn program(&self) -> &'static str {
        match self.options.kind {
            XmppKind::Ejabberd => "ejabberd",
            XmppKind::Prosody => "prosody",
        }
    }

    /// The XMPP domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.options.domain
    }

    /// Where clients connect, plaintext or STARTTLS.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.listeners.client
    }

    /// Where clients connect with direct TLS.
    #[must_use]
    pub fn client_tls_address(&self) -> SocketAddr {
        self.listeners.client_tls
    }

    /// The file with the certificate of the authority that signed the server's.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The process id, while it is running.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// The memory that it occupies, in KiB, while it is running.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
        self.server.as_ref().and_then(Server::resident_kib)
    }

    /// How long the last start took until it served.
    #[must_use]
    pub fn start_took(&self) -> Duration {
        self.start_took
    }

    /// The lab that it runs in.
    #[must_use]
    pub fn lab(&self) -> &LabDir {
        &self.lab
    }

    /// Everything that it has printed and logged.
    #[must_use]
    pub fn log(&self) -> String {
        let names = match self.options.kind {
            XmppKind::Ejabberd => ejabberd::LOGS,
            XmppKind::Prosody => prosody::LOGS,
        };
        let bytes = names.map(|name| fs::read(self.dir.join(name)).unwrap_or_default()).concat();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How often it has refused a login.
    #[must_use]
    pub fn refused_logins(&self) -> usize {
        match self.options.kind {
            XmppKind::Ejabberd => ejabberd::refused_logins(&self.log()),
            XmppKind::Prosody => prosody::refused_logins(&self.log()),
        }
    }

    /// How often a full JID has logged in; only where the log level is `info`.
    #[must_use]
    pub fn logins(&self, jid: &str) -> usize {
        match self.options.kind {
            XmppKind::Ejabberd => ejabberd::logins(&self.log(), jid),
            XmppKind::Prosody => prosody::logins(&self.log(), jid),
        }
    }

    fn register_again(&self, user: &str, password: &str) -> Result<()> {
        let domain = &self.options.domain;
        let arguments = format!(r#"{{"user":"{user}","host":"{domain}","password":"{password}"}}"#);
        self.api("register", &arguments).map(drop)
    }

    fn has_account(&self, user: &str) -> Result<bool> {
        let arguments = format!(r#"{{"user":"{user}","host":"{}"}}"#, self.options.domain);
        Ok(self.api("check_account", &arguments)?.trim() == "0")
    }

    fn take_server(&mut self) -> Result<Server> {
        let not_running = self.not_running();
        self.server.take().ok_or(not_running)
    }

    fn not_running(&self) -> LabError {
        LabError::Invalid(format!("{} is not running", self.program()))
    }

    fn config_name(&self) -> &'static str {
        match self.options.kind {
            XmppKind::Ejabberd => ejabberd::CONFIG,
            XmppKind::Prosody => prosody::CONFIG,
        }
    }

    fn config_text(&self) -> Result<String> {
        let text = match (self.options.kind, self.options.stock) {
            (XmppKind::Ejabberd, false) => ejabberd::text(&self.options, &self.listeners, &self.dir),
            (XmppKind::Ejabberd, true) => ejabberd::stock(&self.options, &self.listeners, &self.dir)?,
            (XmppKind::Prosody, false) => prosody::text(&self.options, &self.listeners, &self.dir),
            (XmppKind::Prosody, true) => prosody::stock(&self.options, &self.listeners, &self.dir)?,
        };
        edited(text, &self.options.edits)
    }

    fn write_config(&self) -> Result<()> {
        self.write(self.config_name(), &self.config_text()?)
    }

    fn command(&self) -> Result<Command> {
        let command = |program: &Path| command_on(self.options.host.as_ref(), program);
        match self.options.kind {
            XmppKind::Ejabberd => {
                ejabberd::command(command, &self.options, self.listeners.client.ip(), &self.dir)
            }
            XmppKind::Prosody => prosody::command(command, &self.dir),
        }
    }

    fn make_directories(&self) -> Result<()> {
        let names: &[&str] = match self.options.kind {
            XmppKind::Ejabberd => &ejabberd::DIRECTORIES,
            XmppKind::Prosody => &prosody::DIRECTORIES,
        };
        names.iter().try_for_each(|name| {
            let path = self.dir.join(name);
            fs::create_dir_all(&path).context(|| format!("cannot make {}", path.display()))
        })
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, content).context(|| format!("cannot write {}", path.display()))
    }

    fn run(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.make_directories()?;
        let mut command = self.command()?;
        command.current_dir(&self.dir);
        let server = Server::start(self.program(), command, &self.dir.join("output.log"))?;
        self.server = Some(server);
        let ready = wait_until(&format!("{} serves", self.program()), START_DEADLINE, || self.ready());
        self.start_took = begin.elapsed();
        let what = match ready {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ended)) => format!("{} {ended}", self.program()),
            Err(late) => late.to_string(),
        };
        self.server = None;
        Err(LabError::Failed { what, output: self.log() })
    }

    /// `Ok` ends the wait: it serves, or it has ended.
    fn ready(&mut self) -> Result<Result<(), String>, LabError> {
        if let Some(status) = self.server.as_mut().and_then(Server::ended) {
            return Ok(Err(format!("ended at start with {status}")));
        }
        self.api("status", "{}").map(|_| Ok(()))
    }
}

/// The text with other words in the place of some, each of which has to be there.
fn edited<From: AsRef<str>, To: AsRef<str>>(mut text: String, edits: &[(From, To)]) -> Result<String> {
    for (from, to) in edits {
        let from = from.as_ref();
        if !text.contains(from) {
            return Err(LabError::Invalid(format!(
                "the configuration of the XMPP server does not say {from:?}"
            )));
        }
        text = text.replace(from, to.as_ref());
    }
    Ok(text)
}

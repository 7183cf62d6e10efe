//! A real ejabberd.

mod config;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::certificates::Authority;
use crate::child::{Server, Stopped, program};
use crate::dir::LabDir;
use crate::error::{IoContext, LabError, Result};
use crate::http;
use crate::wait::wait_until;

/// Loading takes 2 s on an idle machine; several at once on a busy one take their time.
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// What a test may want different.
#[derive(Clone, Debug)]
pub struct EjabberdOptions {
    /// The XMPP domain.
    pub domain: String,
    /// Whether rooms keep an archive. Off: archiving in mnesia gets slower with every message.
    pub room_archive: bool,
    /// The largest stanza in bytes; Debian's configuration has this default.
    pub max_stanza_size: u32,
    /// How many messages are kept for a user who is away; `None` is no limit, Debian has 100.
    pub max_offline_messages: Option<u32>,
    /// Whether messages are kept at all.
    pub offline: bool,
    /// Whether clients may stay without TLS.
    pub plaintext: bool,
    /// Whether there are rooms, and a pubsub service; without them the servers say so at service discovery.
    pub rooms: bool,
    /// See [`EjabberdOptions::rooms`].
    pub pubsub: bool,
    /// `warning` keeps it quiet; `debug` shows stanzas.
    pub log_level: String,
}

impl Default for EjabberdOptions {
    fn default() -> Self {
        Self {
            domain: "xmpp.test".to_owned(),
            room_archive: false,
            max_stanza_size: 262_144,
            max_offline_messages: None,
            offline: true,
            plaintext: true,
            rooms: true,
            pubsub: true,
            log_level: "warning".to_owned(),
        }
    }
}

/// What becomes of accounts, rooms and nodes at a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mnesia {
    /// They stay.
    Keep,
    /// They are lost, as on a machine set up anew; accounts that the lab registered are registered again.
    Drop,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listeners {
    /// Clients, plaintext or STARTTLS.
    pub(crate) client: SocketAddr,
    /// Clients, direct TLS.
    pub(crate) client_tls: SocketAddr,
    /// The management interface.
    pub(crate) http: SocketAddr,
    /// The SOCKS5 file transfer proxy.
    pub(crate) proxy: SocketAddr,
}

/// An ejabberd with a directory, certificate and ports of its own.
#[derive(Debug)]
pub struct Ejabberd {
    // Before the directory: fields drop in this order.
    server: Option<Server>,
    dir: PathBuf,
    lab: LabDir,
    options: EjabberdOptions,
    listeners: Listeners,
    accounts: Vec<(String, String)>,
    start_took: Duration,
}

impl Ejabberd {
    /// Starts one and waits until it serves. Its files are in `ejabberd/` of the lab.
    ///
    /// # Errors
    /// When it is not installed, does not start (with its log), or is not ready in time.
    pub fn start(lab: &LabDir, options: EjabberdOptions) -> Result<Self> {
        let dir = lab.subdir("ejabberd")?;
        let authority = Authority::new("xmppsync lab")?;
        let domain = &options.domain;
        let names = [domain.clone(), format!("*.{domain}"), lab.ip().to_string()];
        let write = |name: &str, content: &str| {
            let path = dir.join(name);
            fs::write(&path, content).context(|| format!("cannot write {}", path.display()))
        };
        write("ca.pem", &authority.pem())?;
        write("server.pem", &authority.server_pem(&names)?)?;
        let listeners = Listeners {
            client: lab.free_address()?,
            client_tls: lab.free_address()?,
            http: lab.free_address()?,
            proxy: lab.free_address()?,
        };
        write("ejabberd.yml", &config::text(&options, &listeners, &dir))?;
        let (lab, accounts) = (lab.clone(), Vec::new());
        let mut ejabberd =
            Self { server: None, dir, lab, options, listeners, accounts, start_took: Duration::ZERO };
        ejabberd.run()?;
        Ok(ejabberd)
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

    /// Calls a command of ejabberd's API, such as `kick_user` or `get_room_affiliations`, with JSON
    /// arguments; returns the JSON that it answers.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub fn api(&self, command: &str, arguments: &str) -> Result<String> {
        let what = || format!("ejabberd command {command} {arguments}");
        let answer = http::post(self.listeners.http, &format!("/api/{command}"), arguments).context(what)?;
        match answer {
            (200, body) => Ok(body),
            (status, body) => Err(LabError::Refused { what: what(), answer: format!("{status} {body}") }),
        }
    }

    /// Stops it and starts it again on the same ports.
    ///
    /// # Errors
    /// When it does not stop or start in time.
    pub fn restart(&mut self, mnesia: Mnesia) -> Result<()> {
        self.stop()?;
        self.start_again(mnesia)
    }

    /// Starts it after [`Ejabberd::stop`] or [`Ejabberd::kill`], on the same ports.
    ///
    /// # Errors
    /// When it does not start in time.
    pub fn start_again(&mut self, mnesia: Mnesia) -> Result<()> {
        match mnesia {
            Mnesia::Keep => self.run(),
            Mnesia::Drop => self.run_anew(),
        }
    }

    /// Nobody may log in before the accounts are there again: a client whose password is refused waits for minutes.
    fn run_anew(&mut self) -> Result<()> {
        let database = self.dir.join("db");
        fs::remove_dir_all(&database).context(|| format!("cannot remove {}", database.display()))?;
        let file = self.dir.join("ejabberd.yml");
        let whole = fs::read_to_string(&file).context(|| format!("cannot read {}", file.display()))?;
        let write =
            |text: &str| fs::write(&file, text).context(|| format!("cannot write {}", file.display()));
        write(&whole.replace(&config::clients(&self.options, &self.listeners), ""))?;
        self.run()?;
        for (user, password) in &self.accounts {
            self.register_again(user, password)?;
        }
        write(&whole)?;
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
        self.take_server()?.stop(Signal::KILL, STOP_DEADLINE)
    }

    /// Stops its processes without closing a connection: a server, or a network, that hangs.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.server.as_ref().ok_or_else(not_running)?.signal(Signal::STOP)
    }

    /// Lets it go on after [`Ejabberd::pause`].
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.server.as_ref().ok_or_else(not_running)?.signal(Signal::CONT)
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

    /// Everything that it has printed and logged.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read(self.dir.join(name)).unwrap_or_default();
        let bytes = [read("output.log"), read("log/ejabberd.log")].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn register_again(&self, user: &str, password: &str) -> Result<()> {
        let domain = &self.options.domain;
        let arguments = format!(r#"{{"user":"{user}","host":"{domain}","password":"{password}"}}"#);
        self.api("register", &arguments).map(drop)
    }

    fn take_server(&mut self) -> Result<Server> {
        self.server.take().ok_or_else(not_running)
    }

    fn run(&mut self) -> Result<()> {
        let begin = Instant::now();
        for name in ["db", "log", "upload", "home"] {
            let path = self.dir.join(name);
            fs::create_dir_all(&path).context(|| format!("cannot make {}", path.display()))?;
        }
        // ejabberdctl insists on being root or the user ejabberd, and starts the port mapper daemon and
        // distribution with a cookie; without it none of this is there to collide.
        let mut command = Server::command(&program("erl")?);
        command
            .current_dir(&self.dir)
            .env("ERL_LIBS", libraries()?)
            .env("HOME", self.dir.join("home"))
            .env("EJABBERD_CONFIG_PATH", self.dir.join("ejabberd.yml"))
            .env("EJABBERD_LOG_PATH", self.dir.join("log/ejabberd.log"))
            .env("EJABBERD_PID_PATH", self.dir.join("ejabberd.pid"))
            .env("ERL_CRASH_DUMP", self.dir.join("log/erl_crash.dump"))
            .env_remove("ERL_FLAGS")
            .env_remove("ERL_AFLAGS")
            .env_remove("ERL_ZFLAGS")
            // Idle schedulers must not spin: several servers share few processors.
            .args(["-noinput", "+K", "true", "+P", "250000"])
            .args(["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"])
            .args(["-mnesia", "dir", &format!("\"{}\"", self.dir.join("db").display()), "-s", "ejabberd"]);
        let server = Server::start("ejabberd", command, &self.dir.join("output.log"))?;
        self.server = Some(server);
        let ready = wait_until("ejabberd serves", START_DEADLINE, || self.ready());
        self.start_took = begin.elapsed();
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ended)) => {
                self.server = None;
                Err(LabError::Failed { what: format!("ejabberd {ended}"), output: self.log() })
            }
            Err(late) => {
                self.server = None;
                Err(LabError::Failed { what: late.to_string(), output: self.log() })
            }
        }
    }

    /// `Ok` ends the wait: it serves, or it has ended.
    fn ready(&mut self) -> Result<Result<(), String>, LabError> {
        if let Some(status) = self.server.as_mut().and_then(Server::ended) {
            return Ok(Err(format!("ended at start with {status}")));
        }
        self.api("status", "{}").map(|_| Ok(()))
    }

    /// The lab that it runs in.
    #[must_use]
    pub fn lab(&self) -> &LabDir {
        &self.lab
    }
}

fn not_running() -> LabError {
    LabError::Invalid("ejabberd is not running".to_owned())
}

/// The directory with ejabberd's own libraries: `/usr/lib/ARCHITECTURE` on Debian.
fn libraries() -> Result<PathBuf> {
    let has_ejabberd = |dir: &Path| {
        entries(dir).any(|entry| {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with("ejabberd-")) && entry.join("ebin").is_dir()
        })
    };
    std::iter::once(PathBuf::from("/usr/lib"))
        .chain(entries(Path::new("/usr/lib")))
        .find(|dir| has_ejabberd(dir))
        .ok_or_else(|| LabError::Missing("ejabberd".to_owned()))
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

//! A real slapd.

mod config;
mod program;
mod tools;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::child::{Server, Stopped, program};
use crate::dir::LabDir;
use crate::error::{IoContext, LabError, Result};
use crate::net::{Host, command_on};
use crate::wait::wait_until;

pub use config::{Database, SlapdConfig};
use program::slapd_program;
pub use program::{failpoints_module_path, module_path, other_release};

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// valgrind makes everything so much slower.
const VALGRIND_FACTOR: u32 = 10;
/// On a host of its own, where no port can be taken.
const LDAP_PORT: u16 = 389;
/// A port can be taken between being found free and being used.
const STARTS_MAX: usize = 5;
/// Makes the exit status 99 where valgrind found an error. Leaks are in the log only, since slapd has its own;
/// what is reachable at the end is none.
const VALGRIND_ARGUMENTS: [&str; 7] = [
    "--error-exitcode=99",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=none",
    "--num-callers=30",
    // Whole paths, which tell whose code it is.
    "--fullpath-after=",
    "--fair-sched=yes",
];

/// How a slapd is run; the content of its configuration is [`SlapdConfig`].
#[derive(Clone, Debug)]
pub struct SlapdOptions {
    /// For `slapd -d`. `sync` is what the overlay logs at; `none` is for benchmarks.
    pub debug_level: String,
    /// Run it under valgrind; an error makes the exit status 99, the report is in the log. Without TLS:
    /// what the cipher's assembly writes looks uninitialised to valgrind.
    pub valgrind: bool,
    /// Further environment.
    pub environment: Vec<(String, String)>,
    /// Another slapd than the installed one.
    pub program: Option<PathBuf>,
    /// Where it runs; `None` is this machine, at the lab's address.
    pub host: Option<Host>,
}

impl Default for SlapdOptions {
    fn default() -> Self {
        Self {
            debug_level: "sync".to_owned(),
            valgrind: false,
            environment: Vec::new(),
            program: None,
            host: None,
        }
    }
}

/// Where the configuration is.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Directory(PathBuf),
}

/// A slapd with a directory and a port of its own.
#[derive(Debug)]
pub struct Slapd {
    // Before the directory: fields drop in this order.
    server: Option<Server>,
    name: String,
    dir: PathBuf,
    lab: LabDir,
    config: SlapdConfig,
    source: Source,
    options: SlapdOptions,
    address: SocketAddr,
    /// Where in the log the current run begins.
    run_begins: usize,
}

impl Slapd {
    /// Writes the configuration into a directory of this name below the lab's; starts nothing yet.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn prepare(lab: &LabDir, name: &str, config: SlapdConfig, options: SlapdOptions) -> Result<Self> {
        let text = config.text(&lab.path().join(name));
        Self::prepare_text(lab, name, &text, config, options)
    }

    /// As [`Slapd::prepare`] with the text of a slapd.conf of one's own. Of the `config` only the databases
    /// are used, to know suffixes and passwords; their directories must be those of
    /// [`SlapdConfig::text`], or be there.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn prepare_text(
        lab: &LabDir,
        name: &str,
        text: &str,
        config: SlapdConfig,
        options: SlapdOptions,
    ) -> Result<Self> {
        let dir = lab.subdir(name)?;
        for number in 0..config.databases.len() {
            let database = config::database_dir(&dir, number);
            fs::create_dir_all(&database).context(|| format!("cannot make {}", database.display()))?;
        }
        let file = dir.join("slapd.conf");
        fs::write(&file, text).context(|| format!("cannot write {}", file.display()))?;
        let address = match &options.host {
            Some(host) => host.address(LDAP_PORT),
            None => lab.free_address()?,
        };
        Ok(Self {
            server: None,
            name: name.to_owned(),
            dir,
            lab: lab.clone(),
            config,
            source: Source::File(file),
            options,
            address,
            run_begins: 0,
        })
    }

    /// Prepares and starts in one.
    ///
    /// # Errors
    /// As [`Slapd::start`].
    pub fn run(lab: &LabDir, name: &str, config: SlapdConfig, options: SlapdOptions) -> Result<Self> {
        let mut slapd = Self::prepare(lab, name, config, options)?;
        slapd.start()?;
        Ok(slapd)
    }

    /// Turns slapd.conf into a configuration directory, which the next start uses: from then on changes of
    /// `cn=config` last.
    ///
    /// # Errors
    /// When slaptest refuses the configuration, with what it says.
    pub fn use_config_directory(&mut self) -> Result<()> {
        let directory = self.dir.join("slapd.d");
        fs::create_dir_all(&directory).context(|| format!("cannot make {}", directory.display()))?;
        // -n 0 opens no database: one that never served has no files yet.
        self.tool("slaptest")?.args(["-n", "0", "-F"]).arg(&directory).run()?;
        self.source = Source::Directory(directory);
        Ok(())
    }

    /// Makes the configuration directory from LDIF instead of slapd.conf, with `slapadd -n 0`.
    ///
    /// # Errors
    /// When slapadd refuses it, with what it says.
    pub fn use_config_ldif(&mut self, ldif: &str) -> Result<()> {
        let directory = self.dir.join("slapd.d");
        fs::create_dir_all(&directory).context(|| format!("cannot make {}", directory.display()))?;
        self.source = Source::Directory(directory);
        self.tool("slapadd")?.args(["-n", "0"]).input(ldif)?.run().map(drop)
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it ends instead, with its log, or does not answer in time.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Err(LabError::Invalid(format!("slapd {} is running already", self.name)));
        }
        for _ in 1..STARTS_MAX {
            match self.start_once() {
                Err(LabError::Failed { output, .. })
                    if self.options.host.is_none() && output.contains("Address already in use") =>
                {
                    self.address = self.lab.free_address()?;
                }
                outcome => return outcome,
            }
        }
        self.start_once()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it is not running, or does not end in time.
    pub fn stop(&mut self) -> Result<Stopped> {
        let deadline = self.patience(STOP_DEADLINE);
        let server = self.server.take().ok_or_else(|| self.not_running())?;
        server.stop(Signal::TERM, deadline)
    }

    /// Stops it and starts it again on the same port.
    ///
    /// # Errors
    /// As [`Slapd::stop`] and [`Slapd::start`].
    pub fn restart(&mut self) -> Result<Stopped> {
        let stopped = self.stop()?;
        self.start()?;
        Ok(stopped)
    }

    /// Ends it at once, as a power failure would.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill9(&mut self) -> Result<Stopped> {
        let server = self.server.take().ok_or_else(|| self.not_running())?;
        server.stop(Signal::KILL, STOP_DEADLINE)
    }

    /// SIGSTOP: it hangs, with all its connections open.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.server.as_ref().ok_or_else(|| self.not_running())?.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.server.as_ref().ok_or_else(|| self.not_running())?.signal(Signal::CONT)
    }

    /// Waits until it ends by itself; the exit status.
    ///
    /// # Errors
    /// When it is not running, or goes on running.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut server = self.server.take().ok_or_else(|| self.not_running())?;
        wait_until(&format!("slapd {} ends", self.name), deadline, || server.ended().ok_or("it is running"))
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| server.ended().is_none())
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

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: slapd.conf, databases, log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The host that it runs on, where it has one of its own.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.options.host.as_ref()
    }

    /// The directory of a database.
    #[must_use]
    pub fn database_dir(&self, number: usize) -> PathBuf {
        config::database_dir(&self.dir, number)
    }

    /// What it was configured with.
    #[must_use]
    pub fn config(&self) -> &SlapdConfig {
        &self.config
    }

    /// Writes slapd.conf anew, for the next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_config(&mut self, config: SlapdConfig) -> Result<()> {
        let file = self.dir.join("slapd.conf");
        for number in 0..config.databases.len() {
            let database = config::database_dir(&self.dir, number);
            fs::create_dir_all(&database).context(|| format!("cannot make {}", database.display()))?;
        }
        fs::write(&file, config.text(&self.dir)).context(|| format!("cannot write {}", file.display()))?;
        self.config = config;
        self.source = Source::File(file);
        Ok(())
    }

    /// Further environment, for the next start.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.options.environment = pairs.collect();
    }

    /// `ldap://ADDRESS:PORT`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("ldap://{}", self.address)
    }

    /// Everything that it and its earlier runs have logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// What it has logged since the last start.
    #[must_use]
    pub fn run_log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.run_begins..).unwrap_or_default()).into_owned()
    }

    /// Waits until a line logged since the last start contains the text; returns the line.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the end of the log.
    pub fn wait_log(&self, text: &str, deadline: Duration) -> Result<String> {
        let what = format!("slapd {} logs {text:?}", self.name);
        wait_until(&what, self.patience(deadline), || {
            let log = self.run_log();
            let found = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            found.ok_or_else(|| format!("\n{}", last_lines(&log)))
        })
    }

    fn start_once(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.run_begins = fs::metadata(self.log_file()).map_or(0, |file| file.len() as usize);
        let slapd = self.program()?;
        let host = self.options.host.as_ref();
        let mut command = if self.options.valgrind {
            let mut command = command_on(host, &program("valgrind")?);
            command.args(VALGRIND_ARGUMENTS).arg(slapd);
            command
        } else {
            command_on(host, &slapd)
        };
        let socket = self.dir.join("ldapi").display().to_string().replace('/', "%2F");
        // -s 0: nothing of this belongs in the machine's own system log.
        command.args(["-d", &self.options.debug_level, "-s", "0"]);
        command.arg("-h").arg(format!("{} ldapi://{socket}", self.uri()));
        match &self.source {
            Source::File(file) => command.arg("-f").arg(file),
            Source::Directory(directory) => command.arg("-F").arg(directory),
        };
        command.envs(self.options.environment.iter().cloned());
        let mut server = Server::start(&format!("slapd {}", self.name), command, &self.log_file())?;
        let deadline = self.patience(START_DEADLINE);
        let outcome = wait_until("slapd answers", deadline, || match server.ended() {
            Some(status) => Ok(Err(format!("ended at start with {status}"))),
            None => self.answers().map(Ok),
        });
        let what = match outcome {
            Ok(Ok(())) => {
                self.server = Some(server);
                return Ok(());
            }
            Ok(Err(ended)) => ended,
            Err(late) => format!("{late} (after {:.1?})", begin.elapsed()),
        };
        drop(server);
        Err(LabError::Failed { what: format!("slapd {} {what}", self.name), output: self.run_log() })
    }

    /// Whether it serves: the port is open before it does.
    fn answers(&self) -> Result<(), String> {
        let mut settings = ldap3::LdapConnSettings::new();
        settings = settings.set_conn_timeout(Duration::from_secs(5));
        let mut connection =
            ldap3::LdapConn::with_settings(settings, &self.uri()).map_err(|error| error.to_string())?;
        connection
            .with_timeout(Duration::from_secs(5))
            .search("", ldap3::Scope::Base, "(objectClass=*)", ["1.1"])
            .map(drop)
            .map_err(|error| error.to_string())
    }

    fn program(&self) -> Result<PathBuf> {
        self.options.program.clone().map_or_else(|| slapd_program(&self.lab), Ok)
    }

    fn patience(&self, time: Duration) -> Duration {
        if self.options.valgrind { time * VALGRIND_FACTOR } else { time }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("slapd.log")
    }

    fn not_running(&self) -> LabError {
        LabError::Invalid(format!("slapd {} is not running", self.name))
    }
}

/// The end of a log, for an error.
fn last_lines(text: &str) -> String {
    const LINES_MAX: usize = 40;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

impl Drop for Slapd {
    /// A test that fails says whether a slapd had ended by itself.
    fn drop(&mut self) {
        let Some(status) = self.server.as_mut().and_then(Server::ended) else { return };
        if std::thread::panicking() {
            eprintln!("slapd {} had ended by itself, {status}:\n{}", self.name, last_lines(&self.run_log()));
        }
    }
}

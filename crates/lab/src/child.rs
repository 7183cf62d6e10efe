//! Server processes that never outlive the lab.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{IoContext, LabError, Result};
use crate::wait::wait_until;

/// How a server ended.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// From the signal to the end of the process.
    pub took: Duration,
    /// What the process returned.
    pub status: ExitStatus,
}

/// A running server. Killed on drop.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
}

impl Server {
    /// A command that runs the program so that it dies with this process, whatever way that ends.
    pub(crate) fn command(program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Starts a command made by [`Server::command`], its output appended to the log file.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let output: File = open().context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // Ctrl-C in the terminal is for the owner, which then stops its servers in good order.
        command.process_group(0);
        let child = spawn(command).context(|| format!("cannot start {name} through setpriv"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it occupies, as the kernel counts it.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // The process is a child that was not waited for, so its id cannot belong to another one.
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(io::Error::from)
            .context(|| format!("cannot send {signal:?} to {}", self.name))
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(mut self, signal: Signal, deadline: Duration) -> Result<Stopped> {
        let begin = Instant::now();
        self.signal(signal)?;
        let status = wait_until(&format!("{} ends after {signal:?}", self.name), deadline, || {
            self.ended().ok_or("it is still running")
        })?;
        Ok(Stopped { took: begin.elapsed(), status })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Request = (Command, Sender<io::Result<Child>>);

/// Starts a process from a thread that lasts as long as this process.
///
/// The kernel sends the parent-death signal when the *thread* that started the child ends. A test that
/// starts its servers in helper threads would lose them when those are done.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                // Whoever asked may be gone after a panic; the child is then dropped, not killed, but
                // dies with this process.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (reply, answer) = channel();
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Runs a tool to its end and returns what it printed on standard output.
pub(crate) fn run_tool(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let arguments = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let printed = [output.stdout, output.stderr].concat();
    Err(LabError::Failed {
        what: format!("{name} {arguments}: {}", output.status),
        output: String::from_utf8_lossy(&printed).into_owned(),
    })
}

/// A program of the system, also where its directory is not in an ordinary user's search path.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| LabError::Missing(name.to_owned()))
}

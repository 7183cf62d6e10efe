//! The demo, whatever way it ends: it shows what it promises, and nothing of it stays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as the tests do"
)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use xmppsync_lab::{module_path, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// What the demo says in its course.
const STARTING: &str = "Starting one ejabberd and three slapds";
const WRITING: &str = "Writing on all three";
const STAYING: &str = "What changes where (Ctrl-C ends)";

/// Four servers at a time are enough.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running demo, in a process group of its own, as a shell would start it.
struct Demo {
    process: Child,
    output: BufReader<ChildStdout>,
    /// Everything that it makes lies here, and the command lines of its servers name it.
    place: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let place = tempfile::Builder::new().prefix("demo-").tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("demo").args(arguments).env("TMPDIR", place.path());
        // What is under test is the demo and not the build before it.
        command.env("XMPPSYNC_MODULE", module_path().unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Demo { process, output, place }
    }

    /// Reads until a line contains the text.
    fn read_until(&mut self, text: &str) {
        let mut said = String::new();
        while !said.lines().any(|line| line.contains(text)) {
            let read = self.output.read_line(&mut said).unwrap();
            assert!(read > 0, "{text:?} was not said, but\n{said}\n{}", self.errors());
        }
    }

    fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Reads what is left until it ends.
    fn end(&mut self) -> (String, ExitStatus) {
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        let status =
            wait_until("the demo ends", DEADLINE, || self.process.try_wait().unwrap().ok_or("it runs"));
        (said, status.unwrap())
    }

    fn assert_nothing_is_left(&self) {
        wait_until("nothing is left", DEADLINE, || {
            let files: Vec<_> = std::fs::read_dir(self.place.path()).unwrap().flatten().collect();
            let processes = processes_that_name(self.place.path());
            if files.is_empty() && processes.is_empty() {
                Ok(())
            } else {
                Err(format!("{files:?} and {processes:#?} are there"))
            }
        })
        .unwrap();
    }
}

/// The command lines of running processes that contain the path. Those of zombies are empty.
fn processes_that_name(path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&path)).collect()
}

/// Starts the demo, waits for a line, sends a signal. The demo has to end without leaving anything.
fn end_by(signal: Signal, at: &str) -> (String, ExitStatus) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut demo = Demo::start(&[]);
    demo.read_until(at);
    demo.signal(signal);
    let ended = demo.end();
    demo.assert_nothing_is_left();
    ended
}

#[test]
fn the_demo_shows_what_each_server_holds_and_that_all_are_equal() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut demo = Demo::start(&["--once"]);
    demo.read_until("slapd c");
    let running = processes_that_name(demo.place.path());
    // The three slapds, ejabberd, and the one that clears up.
    assert!(running.len() >= 5, "{running:#?}");
    let (said, status) = demo.end();
    assert!(status.success(), "{status}\n{said}\n{}", demo.errors());

    let entries = said.lines().rfind(|line| line.contains("entries:")).unwrap();
    let counts: Vec<_> = entries.split_once("entries:").unwrap().1.split_whitespace().collect();
    let [a, of_a, b, of_b, c, of_c] = counts[..] else { panic!("{entries}") };
    assert_eq!([a, b, c], ["a", "b", "c"]);
    assert!(of_a == of_b && of_b == of_c && of_a.parse::<usize>().unwrap() > 300, "{entries}");
    for text in ["everywhere after", "Geschäftsführerin", "the median was", "everywhere per second"] {
        assert!(said.contains(text), "{text:?} is not in\n{said}");
    }
    let (_, first) = said.split_once("a adds a person").unwrap();
    for (line, name) in first.lines().skip(1).zip(["a", "b", "c"]) {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some(name), "{line}");
        assert!(words.next().is_some_and(|time| time.ends_with("ms") || time.ends_with('s')), "{line}");
        assert!(words.any(|word| word.contains("zoe")), "{line}");
    }
    assert!(said.contains("a, b, c are equal: "), "{said}");
    demo.assert_nothing_is_left();
}

#[test]
fn nothing_is_left_after_ctrl_c_at_the_beginning() {
    let (said, status) = end_by(Signal::INT, STARTING);
    assert!(!status.success() && !said.contains("are equal"), "{status}\n{said}");
}

#[test]
fn nothing_is_left_after_ctrl_c_midway() {
    let (said, status) = end_by(Signal::INT, WRITING);
    assert!(!status.success() && !said.contains("are equal"), "{status}\n{said}");
}

#[test]
fn ctrl_c_at_the_end_stops_the_servers_in_good_order() {
    let (said, status) = end_by(Signal::INT, STAYING);
    assert!(status.success(), "{status}\n{said}");
    for name in ["a", "b", "c"] {
        let line = said.lines().find(|line| line.starts_with(&format!("slapd {name} stopped in"))).unwrap();
        assert!(line.ends_with("exit status: 0"), "{line}");
    }
}

#[test]
fn nothing_is_left_after_sigterm() {
    let (said, status) = end_by(Signal::TERM, WRITING);
    assert!(!status.success() && !said.contains("are equal"), "{status}\n{said}");
}

#[test]
fn nothing_is_left_after_sigkill() {
    let (_, status) = end_by(Signal::KILL, WRITING);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

//! Nothing stays, whatever way a process that owns a lab ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as the tests do")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use xmppsync_lab::{LabDir, Slapd, SlapdConfig, SlapdOptions, XmppOptions, XmppServer, wait_until};

const DEADLINE: Duration = Duration::from_secs(20);
const ENDING: &str = "XMPPSYNC_LAB_TEST_ENDING";

/// What a victim has started.
struct Left {
    dir: PathBuf,
    pids: Vec<String>,
}

#[test]
fn nothing_is_left_behind_after_a_panic() {
    let (mut victim, left) = start_victim("panic");
    assert!(!victim.wait().unwrap().success());
    assert_gone(&left);
}

#[test]
fn nothing_is_left_behind_after_kill_9() {
    let (mut victim, left) = start_victim("hang");
    assert!(left.dir.join("a/slapd.conf").exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_gone(&left);
}

/// Not a test of its own: the process that the others watch ending.
#[test]
#[ignore = "run by the other tests in a process of its own"]
fn victim() {
    let ending = std::env::var(ENDING).unwrap();
    let lab = LabDir::new().unwrap();
    let xmpp = XmppServer::start(&lab, XmppOptions::default()).unwrap();
    // Started by a thread that ends: the server must not end with it.
    let start = || Slapd::run(&lab, "a", SlapdConfig::default(), SlapdOptions::default()).unwrap();
    let mut slapd = std::thread::scope(|scope| scope.spawn(start).join().unwrap());
    assert!(slapd.is_running());
    slapd.ldap().unwrap();
    println!("started {} {} {}", lab.path().display(), xmpp.pid().unwrap(), slapd.pid().unwrap());
    assert_ne!(ending, "panic", "as planned");
    loop {
        std::thread::park();
    }
}

fn start_victim(ending: &str) -> (Child, Left) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .env(ENDING, ending)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let line = output.lines().map_while(Result::ok).find(|line| line.contains("started /"));
    let line = line.expect("the victim says what it has started");
    let (_, started) = line.split_once("started ").unwrap();
    let mut words = started.split(' ');
    let dir = PathBuf::from(words.next().unwrap());
    (victim, Left { dir, pids: words.map(str::to_owned).collect() })
}

fn assert_gone(left: &Left) {
    assert_eq!(left.pids.len(), 2);
    wait_until("nothing is left", DEADLINE, || {
        if left.dir.exists() {
            return Err(format!("{} is there", left.dir.display()));
        }
        match left.pids.iter().find(|pid| is_alive(pid)) {
            Some(pid) => Err(format!("process {pid} is there")),
            None => Ok(()),
        }
    })
    .unwrap();
}

/// A dead process whose parent died too is a zombie until init, in a container perhaps never, reaps it.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

//! The network of a lab: what goes through it, what does not, and what is left of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as the tests do")]

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xmppsync_lab::net::{CLIENT, Condition, Network};
use xmppsync_lab::{LabDir, wait_until};

const DEADLINE: Duration = Duration::from_secs(20);

/// A network of two hosts; `None`, and a line that says why, where there can be none.
fn network() -> Option<(LabDir, Network)> {
    if let Some(reason) = Network::why_not() {
        println!("left out: {reason}");
        return None;
    }
    let lab = LabDir::new().unwrap();
    let network = Network::new(&lab, 2, 1).unwrap();
    Some((lab, network))
}

/// Whether a host can connect to an address within a second, and how long that took.
fn connects(network: &Network, host: usize, to: SocketAddr) -> (bool, Duration) {
    let begin = Instant::now();
    let mut command = network.host(host).unwrap().command(Path::new("timeout"));
    let connect = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    command.args(["3", "bash", "-c", &connect]).stderr(Stdio::null());
    (command.status().unwrap().success(), begin.elapsed())
}

#[test]
fn a_link_can_be_cut_and_slow_and_others_are_not() {
    let Some((_lab, network)) = network() else { return };
    let here = TcpListener::bind((network.client(), 0)).unwrap();
    let to = here.local_addr().unwrap();
    assert!(connects(&network, 1, to).0);
    network.set(CLIENT, 1, Condition::CUT);
    assert!(!connects(&network, 1, to).0);
    assert!(connects(&network, 2, to).0);
    network.heal();
    let latency = Duration::from_millis(300);
    network.set_both(CLIENT, 1, Condition { latency, ..Condition::default() });
    let (connected, took) = connects(&network, 1, to);
    assert!(connected && took >= latency * 2, "{took:?}");
    let (_, lost) = network.packets();
    assert!(lost > 0);
}

#[test]
fn a_host_has_a_disk_that_only_its_own_programs_and_the_test_see() {
    let Some((lab, network)) = network() else { return };
    let host = network.host(1).unwrap();
    let directory = lab.subdir("disk").unwrap();
    host.mount_disk(&directory, 1 << 20).unwrap();
    std::fs::write(host.path(&directory).join("file"), "text").unwrap();
    assert!(!directory.join("file").exists());
    let mut read = host.command(Path::new("cat"));
    let output = read.arg(directory.join("file")).output().unwrap();
    assert_eq!(output.stdout, b"text");
    let too_much = std::fs::write(host.path(&directory).join("more"), vec![0; 2 << 20]);
    assert!(too_much.is_err());
}

#[test]
fn nothing_is_left_of_a_network_whose_owner_was_killed() {
    if let Some(reason) = Network::why_not() {
        println!("left out: {reason}");
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("started ")).expect("the victim says what it has started");
    let mut words = line.split_once("started ").unwrap().1.split(' ').map(str::to_owned);
    let (address, holder) = (words.next().unwrap(), words.next().unwrap());
    assert!(addresses().contains(&address) && is_alive(&holder));
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("nothing is left", DEADLINE, || match (addresses().contains(&address), is_alive(&holder)) {
        (false, false) => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .unwrap();
}

/// Not a test of its own: the process that the other one watches ending.
#[test]
#[ignore = "run by another test in a process of its own"]
fn victim() {
    let Some((_lab, network)) = network() else { return };
    let address: IpAddr = network.client();
    println!("started {address} {}", network.host(1).unwrap().pid());
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

fn addresses() -> String {
    let output = Command::new("ip").args(["-o", "-4", "addr"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A dead process that nobody has reaped yet is a zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

//! kill -9 of slapd at any moment loses no acknowledged write and brings no deleted entry back.

use crate::PATIENCE;
use crate::ledger::{Ledger, WRITES, Write};
use crate::meanwhile::{OnDrop, end_of, wait_joined};
use crate::steps::{group_with, settle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xmppsync_lab::{
    ContextCsn, Group, GroupOptions, Ldap, SUFFIX, assert_equal_with, failpoints_module_path, wait_for,
};

const FAIL_AT: &str = "XMPPSYNC_FAIL_AT";
/// Repeats a run of the random kills.
const SEED: &str = "XMPPSYNC_SEED";
/// How many kills; 200 is the long mode.
const KILLS: &str = "XMPPSYNC_KILLS";
const KILLS_USUALLY: u64 = 20;
/// Writes from one kill to the next, at most.
const WRITES_BETWEEN_MAX: u64 = 150;

/// A group whose servers can be made to die, with what a ledger needs.
fn group_with_failpoints() -> Group {
    let module = Some(failpoints_module_path().unwrap());
    let group = group_with(GroupOptions { module, ..GroupOptions::default() });
    Ledger::prepare(&mut group.servers[0].ldap().unwrap());
    settle(&group);
    group
}

/// Starts the server anew, to die at the point.
fn arm(group: &mut Group, server: usize, point: &str) {
    let slapd = &mut group.servers[server];
    slapd.set_environment(&[(FAIL_AT, point)]);
    slapd.restart().unwrap();
    wait_joined(slapd, PATIENCE);
}

fn assert_died_and_start(group: &mut Group, server: usize, point: &str) {
    let slapd = &mut group.servers[server];
    let status = slapd.wait_end(PATIENCE).unwrap();
    assert!(!status.success(), "{point}: {status}");
    slapd.set_environment(&[]);
    slapd.start().unwrap();
}

fn assert_agrees(group: &Group, ledgers: &mut [Ledger], when: &str) {
    let logs =
        || group.servers.iter().map(|server| end_of(&server.run_log())).collect::<Vec<_>>().join("\n\n");
    let dump = assert_equal_with(&group.servers, SUFFIX, ContextCsn::Compare, PATIENCE)
        .unwrap_or_else(|late| panic!("{when}: {late}\n{}", logs()));
    for ledger in ledgers {
        let wrong = ledger.check(&dump);
        assert!(wrong.is_empty(), "{when}:\n{}\n{}", wrong.join("\n"), logs());
        ledger.settle(&dump);
    }
}

/// Kills the first server at the point, once with each kind of write.
fn dies_at(group: &mut Group, ledger: &mut Ledger, point: &str) {
    for last in WRITES {
        arm(group, 0, &format!("{point}:4"));
        let mut ldap = group.servers[0].ldap().unwrap();
        // Two that it leaves behind, and then the one with which it dies or which comes too late.
        let writes = [Write::Add, Write::Add, Write::Add, last];
        let mut outcome = writes.into_iter().try_for_each(|write| ledger.write(&mut ldap, write));
        while outcome.is_ok() {
            outcome = ledger.write(&mut ldap, Write::Modify);
        }
        assert_died_and_start(group, 0, point);
        assert_agrees(group, std::slice::from_mut(ledger), &format!("{point}, {last:?}"));
    }
}

#[test]
fn a_write_survives_whatever_its_server_was_doing_with_it_when_it_was_killed() {
    let mut group = group_with_failpoints();
    let mut ledger = Ledger::new("a", 1);
    for point in ["committed", "captured", "journalled", "sent"] {
        dies_at(&mut group, &mut ledger, point);
    }
}

#[test]
fn a_write_arrives_whatever_a_receiver_was_doing_with_it_when_it_was_killed() {
    let mut group = group_with_failpoints();
    let mut ledger = Ledger::new("a", 2);
    for point in ["applying", "applied"] {
        for last in WRITES {
            arm(&mut group, 1, &format!("{point}:2"));
            let mut ldap = group.servers[0].ldap().unwrap();
            for write in [Write::Add, Write::Add, last, Write::Delete] {
                // One transaction each, as long as the receiver lives.
                ledger.write(&mut ldap, write).unwrap();
                let _ = group.servers[1].is_running();
            }
            while group.servers[1].is_running() {
                ledger.write(&mut ldap, Write::Modify).unwrap();
            }
            assert_died_and_start(&mut group, 1, point);
            assert_agrees(&group, std::slice::from_mut(&mut ledger), &format!("{point}, {last:?}"));
        }
    }
}

/// What the writers and the test share.
#[derive(Default)]
struct Traffic {
    written: AtomicU64,
    stop: AtomicBool,
}

/// Writes to one server for as long as the test goes on, whenever it is there.
fn keep_writing(uri: &str, mut ledger: Ledger, traffic: &Traffic) -> Ledger {
    while !traffic.stop.load(Ordering::Relaxed) {
        let Ok(mut ldap) = Ldap::bind(uri, &format!("cn=admin,{SUFFIX}"), "secret") else {
            std::thread::yield_now();
            continue;
        };
        while !traffic.stop.load(Ordering::Relaxed) && ledger.any(&mut ldap).is_ok() {
            traffic.written.fetch_add(1, Ordering::Relaxed);
        }
    }
    ledger
}

/// Returns after so many more writes, on whichever server.
fn wait_for_more(traffic: &Traffic, count: u64) {
    let goal = traffic.written.load(Ordering::Relaxed) + count;
    wait_for("writes go on", PATIENCE, || traffic.written.load(Ordering::Relaxed) >= goal).unwrap();
}

#[test]
fn servers_killed_at_random_times_lose_no_write_and_no_delete() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number(SEED).unwrap_or_else(rand::random);
    let kills = number(KILLS).unwrap_or(KILLS_USUALLY);
    println!("{SEED}={seed} {KILLS}={kills}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut group = group_with(GroupOptions::default());
    Ledger::prepare(&mut group.servers[0].ldap().unwrap());
    settle(&group);
    let traffic = Traffic::default();
    let mut ledgers = std::thread::scope(|scope| {
        let writers: Vec<_> = group
            .servers
            .iter()
            .map(|server| {
                let (uri, ledger) = (server.uri(), Ledger::new(server.name(), rng.random()));
                let traffic = &traffic;
                scope.spawn(move || keep_writing(&uri, ledger, traffic))
            })
            .collect();
        let stop = OnDrop(|| traffic.stop.store(true, Ordering::Relaxed));
        for _ in 0..kills {
            wait_for_more(&traffic, rng.random_range(1..=WRITES_BETWEEN_MAX));
            let killed = &mut group.servers[rng.random_range(0..3_usize)];
            killed.kill9().unwrap();
            if rng.random_bool(0.3) {
                wait_for_more(&traffic, rng.random_range(1..=WRITES_BETWEEN_MAX));
            }
            killed.start().unwrap();
        }
        drop(stop);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let left: usize = ledgers.iter().map(Ledger::len).sum();
    println!("{} writes, {left} entries", traffic.written.load(Ordering::Relaxed));
    assert_agrees(&group, &mut ledgers, &format!("after {kills} kills, {SEED}={seed}"));
    // And nothing was kept only in memory.
    for server in &mut group.servers {
        server.restart().unwrap();
    }
    assert_agrees(&group, &mut ledgers, &format!("restarted after {kills} kills, {SEED}={seed}"));
}

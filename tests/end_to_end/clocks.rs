//! Servers whose clocks differ, and clocks that are set while slapd runs.

use crate::PATIENCE;
use crate::meanwhile::{OnDrop, count, end_of};
use crate::reconfiguration::change;
use crate::steps::*;
use crate::transactions::Transaction;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use xmppsync_lab::{Database, Group, GroupOptions, SUFFIX, Slapd, wait_for};

const MINUTES: i64 = 60;

/// Two servers with clocks of their own, all right at first, that hold one person; its DN.
fn group_with_clocks(options: GroupOptions) -> (Group, String) {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..options }).unwrap();
    for number in 0..group.servers.len() {
        let mut config = group.config(number).unwrap();
        if config.modules.iter().any(|module| module == "accesslog") {
            config.databases.push(Database::new("cn=log"));
        }
        group.servers[number].set_config(config).unwrap();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/other_clock.c");
    let library = group.lab.path().join("other_clock.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.unwrap().success());
    for server in &mut group.servers {
        let clock = clock_of(server).display().to_string();
        let environment = [("LD_PRELOAD", &*library.display().to_string()), ("CLOCK_AHEAD", &*clock)];
        server.set_environment(&environment);
    }
    group.start().unwrap();
    populate(&group);
    let dn = add_person(&mut group.servers[0].ldap().unwrap(), "subject");
    settle(&group);
    (group, dn)
}

fn clock_of(server: &Slapd) -> std::path::PathBuf {
    server.dir().join("clock")
}

/// Sets a server's clock so many seconds ahead, or behind.
fn set_clock(server: &Slapd, ahead: i64) {
    let (file, new) = (clock_of(server), server.dir().join("clock.new"));
    fs::write(&new, ahead.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

/// Writes a value that replaces what is there, waits for it on all servers, and returns its CSN.
fn write(group: &Group, server: usize, dn: &str, value: &str) -> String {
    group.servers[server].ldap().unwrap().replace(dn, "description", &[value]).unwrap();
    group.servers.iter().for_each(|server| wait_values(server, dn, "description", &[value]));
    entry_csn(&group.servers[server], dn)
}

#[test]
fn who_writes_last_wins_whatever_the_clocks_say() {
    let (mut group, dn) = group_with_clocks(GroupOptions::default());
    set_clock(&group.servers[0], 10 * MINUTES);
    let mut csns = vec![write(&group, 0, &dn, "1 of a"), write(&group, 1, &dn, "2 of b")];
    csns.push(write(&group, 0, &dn, "3 of a"));
    group.servers[1].restart().unwrap();
    wait_together(&group);
    csns.push(write(&group, 1, &dn, "4 of b"));
    // Also what follows the own last write, and a clock that is set back.
    csns.push(write(&group, 1, &dn, "5 of b"));
    csns.push(write(&group, 0, &dn, "6 of a"));
    set_clock(&group.servers[0], -10 * MINUTES);
    csns.push(write(&group, 0, &dn, "7 of a"));
    group.servers[0].restart().unwrap();
    wait_together(&group);
    csns.push(write(&group, 0, &dn, "8 of a"));
    assert!(csns.is_sorted_by(|earlier, later| earlier < later), "{csns:#?}");
    settle(&group);
    for server in &group.servers {
        let log = server.run_log();
        assert_eq!(count(&log, "behind a change that it has seen"), 1, "{}", end_of(&log));
    }
    deletes_and_names_follow_too(&group);
}

/// What carries no entryCSN, or a new one beside the name.
fn deletes_and_names_follow_too(group: &Group) {
    set_clock(&group.servers[0], 20 * MINUTES);
    let mut ahead = group.servers[0].ldap().unwrap();
    let mut right = group.servers[1].ldap().unwrap();
    let [kept, gone] = ["kept", "gone"].map(|uid| add_person(&mut ahead, uid));
    wait_entry(&group.servers[1], &gone, true);
    right.delete(&gone).unwrap();
    right.rename(&kept, "uid=renamed", None).unwrap();
    let renamed = kept.replace("uid=kept", "uid=renamed");
    wait_entry(&group.servers[0], &renamed, true);
    wait_entry(&group.servers[0], &gone, false);
    let again = add_person(&mut ahead, "gone");
    wait_entry(&group.servers[1], &again, true);
    let mut transaction = Transaction::begin(&mut right);
    transaction.modify(&again, set("description", &["first"]));
    transaction.modify(&again, set("description", &["second"]));
    assert_eq!(transaction.end(true), 0);
    wait_values(&group.servers[0], &again, "description", &["second"]);
    let dump = settle(group);
    assert!(dump.contains_key(&renamed) && dump.contains_key(&again));
}

const REFUSED: &str = "more than xmppsync-max-drift allows";

#[test]
fn what_is_too_far_ahead_is_refused_and_comes_when_that_is_mended() {
    let overlay_lines = vec!["xmppsync-max-drift 5m".to_owned()];
    let (group, dn) = group_with_clocks(GroupOptions { overlay_lines, ..GroupOptions::default() });
    let [a, b] = [&group.servers[0], &group.servers[1]];
    set_clock(a, 10 * MINUTES);
    let mut ldap = a.ldap().unwrap();
    for value in ["too", "far", "ahead"] {
        ldap.replace(&dn, "description", &[value]).unwrap();
        sent(&group, 0, &entry_csn(a, &dn));
    }
    let line = b.wait_log(REFUSED, PATIENCE).unwrap();
    assert!(line.contains("server 1 ") && line.contains(&group.jid(0)), "{line}");
    // slapd goes on, and what it writes is not touched by the clock that it does not believe.
    let other = add_person(&mut b.ldap().unwrap(), "other");
    wait_entry(a, &other, true);
    assert!(b.ldap().unwrap().values(&dn, "description").unwrap().is_empty());
    assert!(entry_csn(b, &other) < entry_csn(a, &dn));
    assert_eq!(count(&b.run_log(), REFUSED), 1, "{}", end_of(&b.run_log()));
    // The clocks are right again.
    set_clock(b, 10 * MINUTES);
    wait_values(b, &dn, "description", &["ahead"]);
    assert_eq!(count(&b.run_log(), "are taken again"), 1, "{}", end_of(&b.run_log()));
    settle(&group);
    // Or the directive is.
    set_clock(a, 30 * MINUTES);
    ldap.replace(&dn, "description", &["further"]).unwrap();
    sent(&group, 0, &entry_csn(a, &dn));
    wait_for("it is told of once more", PATIENCE, || count(&b.run_log(), REFUSED) == 2).unwrap();
    assert_eq!(b.ldap().unwrap().values(&dn, "description").unwrap(), ["ahead"]);
    assert_eq!(count(&b.run_log(), REFUSED), 2, "{}", end_of(&b.run_log()));
    change(b, "replace: olcXmppSyncMaxDrift\nolcXmppSyncMaxDrift: 1h\n").unwrap();
    wait_values(b, &dn, "description", &["further"]);
    settle(&group);
}

#[test]
fn many_clients_and_a_peer_change_one_entry_at_once() {
    let (group, dn) = group_with_clocks(GroupOptions::default());
    set_clock(&group.servers[1], 2 * MINUTES);
    write_from_all_sides(&group, &dn, true, |wait_for_writes| wait_for_writes(5_000));
}

/// Overlays that wait for each other before a write, or write after it, below ours and above; somebody who follows the writes,
/// for whom syncprov makes those of one entry wait for each other; and slapd's pauses.
#[test]
fn many_clients_change_one_entry_beside_other_overlays_and_changes_of_the_configuration() {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let log = ["overlay accesslog", "logdb cn=log", "logops writes"];
    let others = ["overlay memberof", "overlay refint", "refint_attributes member", "overlay ppolicy"];
    for (below, above) in [
        (
            [&["overlay syncprov"][..], &others, &log].concat(),
            vec!["overlay unique", "unique_attributes uid"],
        ),
        (
            [&others[..], &["overlay unique", "unique_attributes uid"]].concat(),
            [&["overlay syncprov"][..], &log].concat(),
        ),
    ] {
        let options = GroupOptions {
            modules: lines(&["syncprov", "accesslog", "memberof", "refint", "ppolicy", "unique"]),
            database_lines: lines(&below),
            overlay_lines: lines(&above),
            ..GroupOptions::default()
        };
        let (group, dn) = group_with_clocks(options);
        set_clock(&group.servers[1], 2 * MINUTES);
        let follow = |server: &Slapd| {
            let mut search = Command::new("ldapsearch");
            search.args(["-x", "-H", &server.uri(), "-D", &format!("cn=admin,{SUFFIX}"), "-w", "secret"]);
            search
                .args(["-b", SUFFIX, "-E", "sync=rp"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut followers: Vec<_> = group.servers.iter().map(follow).collect();
        write_from_all_sides(&group, &dn, false, |wait_for_writes| {
            for number in 0..12 {
                let server = &group.servers[number % 2];
                let changes = format!(
                    "dn: cn=config\nchangetype: modify\nreplace: olcIdleTimeout\nolcIdleTimeout: {}\n",
                    1000 + number
                );
                server.ldapmodify_config(&changes).unwrap();
                wait_for_writes(100);
            }
        });
        for follower in &mut followers {
            follower.kill().unwrap();
            follower.wait().unwrap();
        }
    }
}

/// Eight clients and the client of transactions change the entry for as long as `meanwhile` takes, which can wait for that many
/// more writes; then the servers are equal.
fn write_from_all_sides(group: &Group, dn: &str, transactions: bool, meanwhile: impl FnOnce(&dyn Fn(usize))) {
    let (done, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (server, attribute) in [(0, "description"), (1, "title")].repeat(4) {
            let (done, writes, server) = (&done, &writes, &group.servers[server]);
            scope.spawn(move || {
                let mut ldap = server.ldap().unwrap();
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    ldap.replace(dn, attribute, &[&number.to_string()]).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (done, server) = (&done, &group.servers[0]);
        scope.spawn(move || {
            let mut ldap = server.ldap().unwrap();
            for number in 0.. {
                if done.load(Ordering::Relaxed) || !transactions {
                    break;
                }
                let mut transaction = Transaction::begin(&mut ldap);
                transaction.modify(dn, set("description", &["a part"]));
                transaction.modify(dn, set("description", &["the next part"]));
                if number % 3 == 0 {
                    transaction.modify(&format!("uid=nobody,{PEOPLE}"), set("description", &["fails"]));
                }
                transaction.end(number % 2 == 0);
            }
        });
        let end = OnDrop(|| done.store(true, Ordering::Relaxed));
        meanwhile(&|more| {
            let goal = writes.load(Ordering::Relaxed) + more;
            let made = || writes.load(Ordering::Relaxed) >= goal;
            wait_for("writes go on", PATIENCE, made).unwrap();
        });
        drop(end);
    });
    settle(group);
    for server in &group.servers {
        let log = server.log();
        assert_eq!(count(&log, "does not end"), 0, "{}", end_of(&log));
        // Nothing was forgotten, so nothing may seem to be.
        assert_eq!(count(&log, "does not reach back"), 0, "{}", end_of(&log));
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
}

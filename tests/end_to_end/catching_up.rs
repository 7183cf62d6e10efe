//! A server that was away gets what it missed: from whom, and although somebody else goes away meanwhile.

use crate::PATIENCE;
use crate::meanwhile::{assert_travels, count, end_of};
use crate::steps::{PEOPLE, add_person, complaints, entry_csn, group_with, settle, settle_smoothly};
use std::fmt::Write as _;
use std::thread;
use xmppsync_lab::{ContextCsn, Group, GroupOptions, Ldap, SUFFIX, Slapd, assert_equal_with, wait_for};

/// The age is not what counts while a listed server is away, nor whether anybody was restarted meanwhile.
#[test]
fn what_an_absent_server_lacks_is_kept_although_it_is_old() {
    let mut group = group_with(GroupOptions {
        servers: 2,
        overlay_lines: ["xmppsync-offline-messages 0", "xmppsync-retention 1s"].map(str::to_owned).to_vec(),
        ..GroupOptions::default()
    });
    // The other one has shown that it has what was written so far.
    let (csn, card) = (entry_csn(&group.servers[0], PEOPLE), format!("card of {}", group.jid(1)));
    let shown = |line: &str| line.contains(&card) && line.contains(&csn);
    wait_for("its card", PATIENCE, || group.servers[0].run_log().lines().any(shown)).unwrap();
    group.servers[1].stop().unwrap();
    add_many(&group.servers[0], "missed", 100, 100);
    // Those that the other one has are forgotten; by then these are old enough too.
    group.servers[0].wait_log("the journal forgot", PATIENCE).unwrap();
    group.servers[0].restart().unwrap();
    let dn = add_person(&mut group.servers[0].ldap().unwrap(), "last");
    group.servers[1].start().unwrap();
    settle_some(&group.servers);
    assert!(group.servers[1].ldap().unwrap().entry(&dn).unwrap().is_some());
    assert_pulled(&group.servers[1]);
    // And now they go.
    group.servers[0].wait_log("the journal forgot", PATIENCE).unwrap();
}

/// So many servers, and nothing that the XMPP server keeps for one that is away: only pulls bring what it missed.
fn group(servers: usize) -> Group {
    group_with(GroupOptions {
        servers,
        overlay_lines: vec!["xmppsync-offline-messages 0".to_owned()],
        ..GroupOptions::default()
    })
}

/// So many persons with a description of so many bytes, in one go.
pub(crate) fn add_many(server: &Slapd, name: &str, count: usize, bytes: usize) {
    let description = "x".repeat(bytes);
    let ldif = (0..count).fold(String::new(), |mut ldif, number| {
        let _ = write!(
            ldif,
            "dn: uid={name}{number},{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: {name}{number}\n\
             cn: {name}\nsn: Test\ndescription: {description}\n\n"
        );
        ldif
    });
    server.ldapmodify(SUFFIX, &ldif).unwrap();
}

/// Every kind of change on every running server, together, while one server is away, and when it is back.
pub(crate) fn change_while_one_is_away(group: &mut Group, away: usize) {
    let change = |group: &Group, name: &str| {
        for (number, server) in group.servers.iter().enumerate().filter(|(_, server)| server.pid().is_some())
        {
            let mut ldap = server.ldap().unwrap();
            let [modified, renamed, deleted] = ["modified", "renamed", "deleted"]
                .map(|kind| add_person(&mut ldap, &format!("{name}-{kind}-{number}")));
            ldap.replace(&modified, "description", &["changed"]).unwrap();
            ldap.rename(&renamed, &format!("uid={name}-new-{number}"), None).unwrap();
            ldap.delete(&deleted).unwrap();
        }
    };
    change(group, "together");
    settle_smoothly(group);
    group.servers[away].stop().unwrap();
    change(group, "away");
    add_many(&group.servers[0], "missed", 1_000, 100);
    group.assert_equal(PATIENCE).unwrap();
    group.servers[away].start().unwrap();
    settle(group);
    change(group, "again");
    settle(group);
}

/// One of each operation, on entries that are there.
fn change_everything(ldap: &mut Ldap, victims: &[String]) {
    ldap.replace(&victims[0], "description", &["changed meanwhile"]).unwrap();
    ldap.rename(&victims[1], "uid=renamed", None).unwrap();
    ldap.delete(&victims[2]).unwrap();
    add_person(ldap, "new");
}

fn victims(server: &Slapd) -> Vec<String> {
    let mut ldap = server.ldap().unwrap();
    ["modified", "renamed-later", "deleted"].iter().map(|uid| add_person(&mut ldap, uid)).collect()
}

/// Waits until these hold the same, although others of the group are down. Longer than others wait: thousands of entries
/// are on their way, and a journal is written for each; and prosody, which is one thread, waits for its turn on a busy machine.
pub(crate) fn settle_some<'a>(servers: impl IntoIterator<Item = &'a Slapd> + Clone) {
    assert_equal_with(servers.clone(), SUFFIX, ContextCsn::Compare, PATIENCE * 6).unwrap_or_else(|problem| {
        let logs =
            servers.into_iter().map(|server| format!("{}:\n{}\n", server.name(), end_of(&server.run_log())));
        panic!("{problem}\n{}", logs.collect::<String>())
    });
}

/// It pulled, and had no need to compare entries.
fn assert_pulled(server: &Slapd) {
    let log = server.run_log();
    assert_eq!(count(&log, "asking for them"), 1, "{}", end_of(&log));
    assert_eq!(count(&log, "compared with"), 0, "{}", end_of(&log));
    // What was there was told before.
    assert_eq!(complaints(server), "", "on {}", server.name());
}

#[test]
fn what_was_missed_comes_from_the_journal_of_an_origin_that_was_restarted_meanwhile() {
    let mut group = group(2);
    let victims = victims(&group.servers[0]);
    settle(&group);
    group.servers[1].stop().unwrap();
    add_many(&group.servers[0], "missed", 500, 200);
    change_everything(&mut group.servers[0].ldap().unwrap(), &victims);
    group.servers[0].restart().unwrap();
    group.servers[1].start().unwrap();
    settle_some(&group.servers);
    assert_pulled(&group.servers[1]);
    assert_travels(&group.servers[1], &group.servers[0], "and back");
    assert_travels(&group.servers[0], &group.servers[1], "and forth");
}

#[test]
fn what_was_missed_comes_from_another_peer_while_the_origin_is_down() {
    let mut group = group(3);
    let victims = victims(&group.servers[0]);
    settle(&group);
    group.servers[2].stop().unwrap();
    add_many(&group.servers[0], "missed", 500, 200);
    change_everything(&mut group.servers[0].ldap().unwrap(), &victims);
    settle_some(&group.servers[..2]);
    group.servers[0].stop().unwrap();
    // Its memory is gone too.
    group.servers[1].restart().unwrap();
    group.servers[2].start().unwrap();
    settle_some(&group.servers[1..]);
    assert_pulled(&group.servers[2]);
    group.servers[0].start().unwrap();
    assert_travels(&group.servers[0], &group.servers[2], "the origin is back");
    settle(&group);
}

#[test]
fn another_peer_goes_on_when_the_source_hangs_in_the_middle() {
    const MISSED: usize = 3_000;
    let mut group = group(3);
    group.servers[2].stop().unwrap();
    add_many(&group.servers[0], "missed", MISSED, 3_000);
    settle_some(&group.servers[..2]);
    group.servers[2].start().unwrap();
    // Which of the two it asks, nobody knows: the first that hangs is the one that gave the first pages.
    let (some, last) =
        (format!("uid=missed{},{PEOPLE}", MISSED / 10), format!("uid=missed{},{PEOPLE}", MISSED - 1));
    let mut ldap = group.servers[2].ldap().unwrap();
    wait_for("something has come", PATIENCE, || ldap.entry(&some).unwrap().is_some()).unwrap();
    let source = asked(&group.servers[2]);
    group.servers[source].pause().unwrap();
    assert!(ldap.entry(&last).unwrap().is_none(), "it was faster than the test");
    settle_some([&group.servers[1 - source], &group.servers[2]]);
    group.servers[source].resume().unwrap();
    settle(&group);
}

/// Whom the server asks, a place in the group.
fn asked(server: &Slapd) -> usize {
    let line = server.wait_log("asking server ", PATIENCE).unwrap();
    let id = line.split("asking server ").nth(1).and_then(|rest| rest.split([' ', ';', ',']).next());
    id.unwrap().parse::<usize>().unwrap() - 1
}

#[test]
fn three_servers_that_return_at_the_same_moment_catch_up_and_go_on() {
    let mut group = group(4);
    let victims = victims(&group.servers[0]);
    settle(&group);
    for server in &mut group.servers[1..] {
        server.stop().unwrap();
    }
    add_many(&group.servers[0], "missed", 2_000, 300);
    change_everything(&mut group.servers[0].ldap().unwrap(), &victims);
    thread::scope(|scope| {
        for server in &mut group.servers[1..] {
            scope.spawn(|| server.start().unwrap());
        }
    });
    settle_some(&group.servers);
    for (from, to) in [(1, 2), (2, 3), (3, 0), (0, 1)] {
        assert_travels(&group.servers[from], &group.servers[to], &format!("from {from} to {to}"));
    }
    settle(&group);
}

//! Displaced entries and glue are known from the entries themselves: whatever became of the journal, a name that becomes free is
//! given to the entry that is meant to have it, and glue goes with its last child.

use crate::PATIENCE;
use crate::loading::wait_loaded;
use crate::meanwhile::wait_joined;
use crate::steps::*;
use std::fs;
use xmppsync_lab::{Group, GroupOptions, SUFFIX, failpoints_module_path};

const UNIT: &str = "ou=unit,dc=example,dc=com";

fn same() -> String {
    format!("uid=same,{PEOPLE}")
}

/// Two servers, of which `b` has an entry displaced, and glue, by what `a` did meanwhile. Where it is to die, it does so between the
/// commit and its journal.
fn with_conflicts(dies: bool) -> Group {
    let module = Some(failpoints_module_path().unwrap());
    let mut group = group_with(GroupOptions { servers: 2, module, ..GroupOptions::default() });
    let mut ldap = group.servers[0].ldap().unwrap();
    ldap.add(UNIT, &[("objectClass", "organizationalUnit"), ("ou", "unit")]).unwrap();
    settle(&group);
    if dies {
        group.servers[1].set_environment(&[("XMPPSYNC_FAIL_AT", "applied:1")]);
        group.servers[1].restart().unwrap();
        wait_joined(&group.servers[1], PATIENCE);
    }
    let [mut a, mut b] = [0, 1].map(|server| group.servers[server].ldap().unwrap());
    group.xmpp.pause().unwrap();
    b.add(&same(), &[&person("same")[..], &[("description", "of b")]].concat()).unwrap();
    a.add(&same(), &[&person("same")[..], &[("description", "of a")]].concat()).unwrap();
    // Of two of one second the one with the smaller entryUUID has the name.
    a.add(&format!("uid=child,{UNIT}"), &person("child")).unwrap();
    b.delete(UNIT).unwrap();
    group.xmpp.resume().unwrap();
    if dies {
        let status = group.servers[1].wait_end(PATIENCE).unwrap();
        assert!(!status.success(), "{status}");
        group.servers[1].set_environment(&[]);
        group.servers[1].start().unwrap();
    }
    let dump = settle(&group);
    assert_eq!(dump.values().filter(|entry| entry.contains_key("xmppSyncConflict")).count(), 1);
    assert!(dump[UNIT]["objectClass"].contains(&b"glue"[..]));
    group
}

/// A client of `b`, the server that may have forgotten them, mends both.
fn assert_mended(group: &Group) {
    let mut ldap = group.servers[1].ldap().unwrap();
    let first = ldap.values(&same(), "description").unwrap();
    let second = if first == ["of a"] { "of b" } else { "of a" };
    ldap.delete(&same()).unwrap();
    ldap.delete(&format!("uid=child,{UNIT}")).unwrap();
    for server in &group.servers {
        wait_values(server, &same(), "description", &[second]);
        wait_values(server, &same(), "xmppSyncConflict", &[]);
        wait_entry(server, UNIT, false);
    }
    let dump = settle(group);
    assert!(dump.values().all(|entry| !entry.contains_key("xmppSyncConflict")), "{SUFFIX}");
    for server in &group.servers {
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
}

#[test]
fn a_name_that_becomes_free_is_given_after_a_crash_between_the_commit_and_the_journal() {
    let group = with_conflicts(true);
    assert_mended(&group);
}

#[test]
fn a_name_that_becomes_free_is_given_after_the_journal_was_lost() {
    let mut group = with_conflicts(false);
    group.servers[1].stop().unwrap();
    fs::remove_file(group.servers[1].database_dir(0).join("xmppsync/journal.redb")).unwrap();
    group.servers[1].start().unwrap();
    wait_joined(&group.servers[1], PATIENCE);
    settle(&group);
    assert_mended(&group);
}

#[test]
fn what_is_aside_is_the_same_on_a_server_that_was_loaded_with_it() {
    let mut group = with_conflicts(false);
    // Without its changes nothing can be pulled.
    group.servers[0].stop().unwrap();
    fs::remove_file(group.servers[0].database_dir(0).join("xmppsync/journal.redb")).unwrap();
    group.servers[0].start().unwrap();
    wait_joined(&group.servers[0], PATIENCE);
    settle(&group);
    group.servers[1].stop().unwrap();
    empty(&group.servers[1]);
    group.servers[1].start().unwrap();
    wait_loaded(&group.servers[1]);
    settle(&group);
    assert_mended(&group);
}

#[test]
fn a_name_that_becomes_free_is_given_where_there_is_no_journal_at_all() {
    let mut group = with_conflicts(false);
    let directory = group.servers[1].database_dir(0).join("xmppsync");
    group.servers[1].stop().unwrap();
    // Nothing can be made below a file.
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "").unwrap();
    group.servers[1].start().unwrap();
    wait_joined(&group.servers[1], PATIENCE);
    settle(&group);
    assert_mended(&group);
}

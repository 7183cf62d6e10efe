//! slapadd, slapmodify and databases that were put back: what happened while slapd was not running is found at the next
//! start, and goes the right way.

use crate::PATIENCE;
use crate::meanwhile::{count, end_of};
use crate::steps::{
    PEOPLE, add_person, complaints, entry_csn, group, group_with, person, set, settle, stored, wait_entry,
};
use std::fs;
use std::time::{Duration, Instant};
use xmppsync_lab::ldap3::Scope;
use xmppsync_lab::{Group, GroupOptions, SUFFIX, Slapd, ldif};

/// What a start says that found something.
const FOUND: &str = "the database was changed without the journal";
const WENT_BACK: &str = "the database was put back to an earlier state";
/// A start that has nothing to look for; slapd itself and a busy machine need most of it.
const QUICK: Duration = Duration::from_secs(5);

fn dn(uid: &str) -> String {
    format!("uid={uid},{PEOPLE}")
}

/// LDIF of a person.
fn person_ldif(uid: &str) -> String {
    let attributes = person(uid).into_iter().map(|(name, value)| format!("{name}: {value}\n"));
    format!("dn: {}\n{}\n", dn(uid), attributes.collect::<String>())
}

/// The journal of a server's database, gone.
fn remove_journal(server: &Slapd) {
    let directories = fs::read_dir(server.database_dir(0)).unwrap().map(|entry| entry.unwrap().path());
    let journals: Vec<_> = directories.filter(|path| path.is_dir()).collect();
    assert_eq!(journals.len(), 1, "{journals:?}");
    fs::remove_dir_all(&journals[0]).unwrap();
}

fn remove_database(server: &Slapd) {
    for file in ["data.mdb", "lock.mdb"] {
        fs::remove_file(server.database_dir(0).join(file)).unwrap();
    }
}

/// How many lines of the running servers' logs contain the text.
fn said(group: &Group, text: &str) -> Vec<usize> {
    group.servers.iter().map(|server| count(&server.run_log(), text)).collect()
}

fn assert_smooth(group: &Group) {
    for server in &group.servers {
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
}

#[test]
fn a_clean_restart_looks_for_nothing_and_sends_nothing() {
    let mut group = group(2);
    group.servers[0].ldapmodify(SUFFIX, &ldif::text(&ldif::directory(SUFFIX, 200)[2..])).unwrap();
    add_person(&mut group.servers[1].ldap().unwrap(), "b");
    let before = settle(&group);
    for _ in 0..2 {
        for number in 0..2 {
            group.servers[number].stop().unwrap();
            let begin = Instant::now();
            group.servers[number].start().unwrap();
            assert!(begin.elapsed() < QUICK, "{:?}", begin.elapsed());
        }
        assert_eq!(settle(&group), before);
        assert_eq!(said(&group, FOUND), [0, 0]);
        assert_eq!(said(&group, WENT_BACK), [0, 0]);
        assert_eq!(said(&group, "are compared with"), [0, 0]);
    }
}

#[test]
fn what_slapadd_and_slapmodify_did_is_sent_once_and_keeps_its_content() {
    let mut group = group(3);
    let mut ldap = group.servers[0].ldap().unwrap();
    for uid in ["changed", "changed-with-id", "gone"] {
        add_person(&mut ldap, uid);
    }
    settle(&group);
    let server = &mut group.servers[0];
    server.stop().unwrap();
    server.slapadd(SUFFIX, &person_ldif("without-id"), false).unwrap();
    server.slapadd_with(SUFFIX, &person_ldif("quick"), &["-q"]).unwrap();
    server.slapadd_with(SUFFIX, &person_ldif("with-id"), &["-S", "1"]).unwrap();
    // A number that no server has.
    server.slapadd_with(SUFFIX, &person_ldif("with-other-id"), &["-S", "9"]).unwrap();
    let change = |uid: &str| {
        format!("dn: {}\nchangetype: modify\nreplace: description\ndescription: offline\n\n", dn(uid))
    };
    server.slapmodify(SUFFIX, &change("changed"), &[]).unwrap();
    server.slapmodify(SUFFIX, &change("changed-with-id"), &["-S", "1"]).unwrap();
    server.slapmodify(SUFFIX, &format!("dn: {}\nchangetype: delete\n\n", dn("gone")), &[]).unwrap();
    // Others go on meanwhile.
    add_person(&mut group.servers[1].ldap().unwrap(), "meanwhile");
    group.servers[0].start().unwrap();
    let line = group.servers[0].wait_log(FOUND, PATIENCE).unwrap();
    // slapmodify makes another entry of one that it changes: that is a delete and an add.
    assert!(line.contains(": 9 changes are sent now"), "{line}");
    for server in &group.servers {
        wait_entry(server, &dn("with-other-id"), true);
        wait_entry(server, &dn("gone"), false);
    }
    let after = settle(&group);
    for uid in ["without-id", "quick", "with-id", "with-other-id"] {
        let entry = &after[&dn(uid)];
        for (name, value) in person(uid) {
            assert!(entry[name].contains(value.as_bytes()), "{uid}: {name} is {:?}", entry[name]);
        }
    }
    for uid in ["changed", "changed-with-id"] {
        assert!(after[&dn(uid)]["description"].contains(b"offline".as_slice()));
        // slapmodify leaves the indexes as they are; replication needs this one.
        let uuid = String::from_utf8(after[&dn(uid)]["entryUUID"].first().unwrap().clone()).unwrap();
        for server in &group.servers {
            let filter = format!("(entryUUID={uuid})");
            let found = server.ldap().unwrap().search(SUFFIX, Scope::Subtree, &filter, &["1.1"]).unwrap();
            assert_eq!(found.len(), 1, "{filter} on {}", server.name());
        }
    }
    let first = stored(&group.servers[0]);
    assert!(group.servers.iter().all(|server| stored(server).len() == first.len()));
    assert_smooth(&group);
    // A second start finds nothing any more.
    for server in &mut group.servers {
        server.restart().unwrap();
    }
    assert_eq!(settle(&group), after);
    assert_eq!(said(&group, FOUND), [0, 0, 0]);
}

#[test]
fn what_slapadd_brought_is_not_forgotten_by_a_start_that_ends_at_once() {
    let mut group = group(2);
    group.servers[0].stop().unwrap();
    group.xmpp.pause().unwrap();
    group.servers[0].slapadd(SUFFIX, &person_ldif("brought"), false).unwrap();
    for _ in 0..3 {
        group.servers[0].start().unwrap();
        group.servers[0].stop().unwrap();
    }
    group.xmpp.resume().unwrap();
    group.servers[0].start().unwrap();
    wait_entry(&group.servers[1], &dn("brought"), true);
    settle(&group);
}

#[test]
fn a_tree_deleted_offline_and_a_name_used_again_arrive_whatever_order_they_are_found_in() {
    let mut group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    let tree = format!("ou=tree,{SUFFIX}");
    let below = |parent: &str, number: usize| format!("ou={number},{parent}");
    let mut entries = vec![tree.clone()];
    entries.extend((0..5).map(|number| below(&tree, number)));
    entries.extend((0..5).map(|number| below(&below(&tree, number), number)));
    for dn in &entries {
        let ou = dn[3..].split(',').next().unwrap();
        ldap.add(dn, &[("objectClass", "organizationalUnit"), ("ou", ou)]).unwrap();
    }
    for number in 0..5 {
        add_person(&mut ldap, &format!("again-{number}"));
    }
    let before = settle(&group);
    group.servers[0].stop().unwrap();
    let delete = |dn: &str| format!("dn: {dn}\nchangetype: delete\n\n");
    let again: Vec<_> = (0..5).map(|number| format!("again-{number}")).collect();
    let deleted = entries.iter().rev().map(|dn| delete(dn)).chain(again.iter().map(|uid| delete(&dn(uid))));
    group.servers[0].slapmodify(SUFFIX, &deleted.collect::<String>(), &[]).unwrap();
    let added = again.iter().map(|uid| person_ldif(uid)).collect::<String>();
    group.servers[0].slapadd(SUFFIX, &added, false).unwrap();
    group.servers[0].start().unwrap();
    group.servers[0].wait_log(FOUND, PATIENCE).unwrap();
    let after = settle(&group);
    assert_eq!(after.len(), before.len() - entries.len());
    for uid in &again {
        assert_ne!(after[&dn(uid)]["entryUUID"], before[&dn(uid)]["entryUUID"]);
    }
}

#[test]
fn entries_loaded_before_the_group_began_are_not_sent_after_a_crash() {
    let mut group = Group::prepare(xmppsync_lab::GroupOptions::default()).unwrap();
    // Their CSNs are of serverID 0.
    crate::meanwhile::load_offline(&group);
    group.start().unwrap();
    let person = ldif::person_dn(SUFFIX, 1);
    group.servers[0].ldap().unwrap().replace(&person, "description", &["before"]).unwrap();
    settle(&group);
    group.servers[1].kill9().unwrap();
    // What the killed one has is older than this.
    group.servers[0].ldap().unwrap().replace(&ldif::person_dn(SUFFIX, 2), "description", &["new"]).unwrap();
    group.servers[0].ldap().unwrap().delete(&ldif::person_dn(SUFFIX, 3)).unwrap();
    group.servers[1].start().unwrap();
    let dump = settle(&group);
    assert!(dump[&ldif::person_dn(SUFFIX, 2)]["description"].contains(b"new".as_slice()));
    assert!(!dump.contains_key(&ldif::person_dn(SUFFIX, 3)));
    assert_eq!(said(&group, FOUND), [0, 0, 0]);
}

/// What there was when the backup was made, and what came later.
struct History {
    /// As slapcat wrote it.
    backup: String,
}

/// A backup of the first server in the middle of what everybody writes.
fn history(group: &mut Group) -> History {
    let mut ldap: Vec<_> = group.servers.iter().map(|server| server.ldap().unwrap()).collect();
    for (number, client) in ldap.iter_mut().enumerate() {
        for uid in ["kept", "changed", "renamed", "deleted"] {
            add_person(client, &format!("{uid}-{number}"));
        }
    }
    settle(group);
    let backup = group.servers[0].slapcat(SUFFIX).unwrap();
    change(group);
    // The first server knows all this; it is put back afterwards.
    for (number, client) in ldap.iter_mut().enumerate() {
        add_person(client, &format!("later-{number}"));
    }
    settle(group);
    History { backup }
}

fn change(group: &Group) {
    for (number, server) in group.servers.iter().enumerate() {
        let mut ldap = server.ldap().unwrap();
        ldap.modify(&dn(&format!("changed-{number}")), vec![set("description", &["later"])]).unwrap();
        ldap.rename(&dn(&format!("renamed-{number}")), &format!("uid=new-name-{number}"), None).unwrap();
        ldap.delete(&dn(&format!("deleted-{number}"))).unwrap();
    }
}

/// What must be everywhere in the end.
fn assert_nothing_is_lost_or_back(group: &Group) {
    wait_entry(&group.servers[0], &dn("later-0"), true);
    wait_entry(&group.servers[0], &dn("deleted-0"), false);
    let dump = settle(group);
    for number in 0..3 {
        let logs =
            || group.servers.iter().map(|server| end_of(&server.run_log())).collect::<Vec<_>>().join("\n\n");
        for uid in ["kept", "changed", "new-name", "later"] {
            let dn = dn(&format!("{uid}-{number}"));
            assert!(dump.contains_key(&dn), "{dn} is lost\n{}", logs());
        }
        for uid in ["deleted", "renamed"] {
            let dn = dn(&format!("{uid}-{number}"));
            assert!(!dump.contains_key(&dn), "{dn} is back\n{}", logs());
        }
        assert!(dump[&dn(&format!("changed-{number}"))]["description"].contains(b"later".as_slice()));
    }
}

/// Puts the first server's database back while the others go on.
fn put_back(group: &mut Group, put: impl FnOnce(&Slapd)) {
    group.servers[0].stop().unwrap();
    put(&group.servers[0]);
    add_person(&mut group.servers[1].ldap().unwrap(), "while-away");
    let csn = entry_csn(&group.servers[1], &dn("kept-1"));
    group.servers[0].start().unwrap();
    wait_entry(&group.servers[0], &dn("while-away"), true);
    assert_nothing_is_lost_or_back(group);
    assert_eq!(entry_csn(&group.servers[2], &dn("kept-1")), csn, "what did not change was written again");
    // And again, in case something was only in memory.
    let before = settle(group);
    group.servers[0].restart().unwrap();
    assert_eq!(settle(group), before);
    // Its own later writes go on from there.
    add_person(&mut group.servers[0].ldap().unwrap(), "afterwards");
    group.servers.iter().for_each(|server| wait_entry(server, &dn("afterwards"), true));
    settle(group);
}

#[test]
fn a_database_reloaded_from_an_older_backup_catches_up_and_brings_nothing_back() {
    let mut group = group(3);
    let history = history(&mut group);
    put_back(&mut group, |server| {
        remove_database(server);
        server.slapadd(SUFFIX, &history.backup, true).unwrap();
    });
    assert_eq!(count(&group.servers[0].log(), WENT_BACK), 1);
}

#[test]
fn a_database_reloaded_from_an_older_backup_without_its_journal_catches_up_and_brings_nothing_back() {
    let mut group = group(3);
    let history = history(&mut group);
    put_back(&mut group, |server| {
        remove_database(server);
        remove_journal(server);
        server.slapadd(SUFFIX, &history.backup, false).unwrap();
    });
}

#[test]
fn a_copy_of_the_files_that_was_put_back_catches_up_and_brings_nothing_back() {
    let mut group = group(3);
    group.servers[0].stop().unwrap();
    let file = group.servers[0].database_dir(0).join("data.mdb");
    let copy = group.lab.path().join("copy.mdb");
    fs::copy(&file, &copy).unwrap();
    group.servers[0].start().unwrap();
    history(&mut group);
    put_back(&mut group, |server| {
        // Into the same file, as cp does; its lock file belongs to nobody.
        fs::copy(&copy, server.database_dir(0).join("data.mdb")).unwrap();
        fs::remove_file(server.database_dir(0).join("lock.mdb")).unwrap();
    });
    assert_eq!(count(&group.servers[0].log(), WENT_BACK), 1);
}

/// Its own new changes are later than those that it lost, so that its contextCSN seems to tell that it has them.
fn assert_writing_alone_costs_nothing(put: impl FnOnce(&Slapd, &str)) {
    let overlay_lines = vec!["xmppsync-check-interval 2s".to_owned()];
    let mut group = group_with(GroupOptions { servers: 3, overlay_lines, ..GroupOptions::default() });
    let history = history(&mut group);
    for server in &mut group.servers {
        server.stop().unwrap();
    }
    put(&group.servers[0], &history.backup);
    group.servers[0].start().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    add_person(&mut ldap, "alone");
    ldap.replace(&dn("kept-0"), "description", &["alone"]).unwrap();
    drop(ldap);
    group.servers[0].restart().unwrap();
    add_person(&mut group.servers[0].ldap().unwrap(), "alone-again");
    // One that lacks what was lost as well as it can, then the other.
    for number in [2, 1] {
        group.servers[number].start().unwrap();
        wait_entry(&group.servers[number], &dn("alone-again"), true);
    }
    assert_nothing_is_lost_or_back(&group);
    let dump = settle(&group);
    assert!(dump[&dn("kept-0")]["description"].contains(b"alone".as_slice()));
    assert!(dump.contains_key(&dn("alone")));
}

#[test]
fn a_restored_server_that_is_written_to_before_it_meets_the_others_costs_nothing() {
    assert_writing_alone_costs_nothing(|server, backup| {
        remove_database(server);
        server.slapadd(SUFFIX, backup, true).unwrap();
    });
}

#[test]
fn a_restored_server_without_journal_that_is_written_to_before_it_meets_the_others_costs_nothing() {
    assert_writing_alone_costs_nothing(|server, backup| {
        remove_database(server);
        remove_journal(server);
        server.slapadd(SUFFIX, backup, true).unwrap();
    });
}

/// Each of them gets a new CSN in the database before slapd serves it.
#[test]
fn ten_thousand_entries_that_slapadd_brought_do_not_hold_up_the_start() {
    const START_MAX: Duration = Duration::from_secs(20);
    let mut group = group(1);
    group.servers[0].stop().unwrap();
    let people: String = (0..10_000).map(|number| person_ldif(&format!("p{number}"))).collect();
    group.servers[0].slapadd(SUFFIX, &people, true).unwrap();
    let begun = Instant::now();
    group.servers[0].start().unwrap();
    let took = begun.elapsed();
    let log = group.servers[0].run_log();
    assert_eq!(count(&log, "10000 changes are sent now"), 1, "{}", end_of(&log));
    assert!(took < START_MAX, "{took:?}");
    // They are durable, and each has a CSN of this server.
    group.servers[0].kill9().unwrap();
    assert!(!group.servers[0].slapcat(SUFFIX).unwrap().contains("#000#"));
}

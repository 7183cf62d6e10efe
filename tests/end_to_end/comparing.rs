//! Where no journal reaches back, and where nothing tells that databases differ: their entries are compared.

use crate::PATIENCE;
use crate::catching_up::{add_many, settle_some};
use crate::meanwhile::{assert_travels, count, end_of, load_offline};
use crate::steps::{PEOPLE, add_person, complaints, group_with, settle, wait_entry};
use std::fs;
use std::thread;
use xmppsync_lab::{Dump, Group, GroupOptions, Ldap, SUFFIX, Slapd, SlapdConfig, SlapdOptions, wait_until};

/// So many servers whose journals hold little, and nothing that the XMPP server keeps.
fn group(servers: usize) -> Group {
    let lines = ["xmppsync-offline-messages 0", "xmppsync-journal-size 1m"];
    let overlay_lines = lines.map(str::to_owned).to_vec();
    group_with(GroupOptions { servers, overlay_lines, ..GroupOptions::default() })
}

fn people(server: &Slapd, names: &[&str]) -> Vec<String> {
    let mut ldap = server.ldap().unwrap();
    names.iter().map(|uid| add_person(&mut ldap, uid)).collect()
}

fn dn(uid: &str) -> String {
    format!("uid={uid},{PEOPLE}")
}

fn assert_has(dump: &Dump, there: &[&str], gone: &[&str]) {
    there.iter().for_each(|uid| assert!(dump.contains_key(&dn(uid)), "{uid} is missing"));
    gone.iter().for_each(|uid| assert!(!dump.contains_key(&dn(uid)), "{uid} is back"));
}

/// Waits until the server has told that the journal has forgotten what the other one lacks.
fn wait_forgotten(server: &Slapd, jid: &str) {
    let line = server.wait_log("the journal reached xmppsync-journal-size", PATIENCE).unwrap();
    assert!(line.contains(jid), "{line}");
}

#[test]
fn a_server_that_was_away_for_longer_than_journals_reach_back_is_healed_by_comparison() {
    let mut group = group(3);
    people(&group.servers[0], &["modified", "renamed-later", "deleted", "moved", "same"]);
    settle(&group);
    group.servers[2].stop().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    ldap.replace(&dn("modified"), "description", &["changed meanwhile"]).unwrap();
    ldap.rename(&dn("renamed-later"), "uid=renamed", None).unwrap();
    ldap.delete(&dn("deleted")).unwrap();
    ldap.add(&format!("ou=new,{SUFFIX}"), &[("objectClass", "organizationalUnit"), ("ou", "new")]).unwrap();
    ldap.rename(&dn("moved"), "uid=moved", Some(&format!("ou=new,{SUFFIX}"))).unwrap();
    add_many(&group.servers[0], "missed", 1_300, 1_000);
    let absent = group.jid(2);
    for server in &group.servers[..2] {
        wait_forgotten(server, &absent);
        assert_eq!(count(&server.run_log(), "the journal reached xmppsync-journal-size"), 1);
    }
    group.servers[2].start().unwrap();
    let dump = settle(&group);
    assert_has(&dump, &["renamed", "same", "missed0", "missed1299"], &["renamed-later", "deleted", "moved"]);
    let log = group.servers[2].run_log();
    assert_eq!(count(&log, "nobody's journal reaches back"), 1, "{}", end_of(&log));
    let line = group.servers[2].wait_log("entries or deletes taken from it", PATIENCE).unwrap();
    assert!(line.contains("130") && line.contains("0 given to it"), "{line}");
    assert_travels(&group.servers[2], &group.servers[0], "and back");
    assert_travels(&group.servers[0], &group.servers[2], "and forth");
}

/// Both sides write more than their journals hold.
#[test]
fn a_server_that_was_cut_off_and_written_to_gives_the_others_what_it_made() {
    let mut group = group(3);
    let names =
        ["a-deletes", "c-deletes", "a-changes", "c-changes", "c-renames-later", "one-deletes", "same"];
    people(&group.servers[0], &names);
    settle(&group);
    let right = cut_off(&mut group);
    let (mut at_a, mut at_c) = (group.servers[0].ldap().unwrap(), group.servers[2].ldap().unwrap());
    at_a.delete(&dn("a-deletes")).unwrap();
    at_c.delete(&dn("c-deletes")).unwrap();
    // And the other one writes to it afterwards.
    at_a.delete(&dn("one-deletes")).unwrap();
    at_c.replace(&dn("one-deletes"), "description", &["from c"]).unwrap();
    at_a.replace(&dn("a-changes"), "description", &["from a"]).unwrap();
    at_c.replace(&dn("c-changes"), "description", &["from c"]).unwrap();
    at_c.rename(&dn("c-renames-later"), "uid=c-renames", None).unwrap();
    add_many(&group.servers[0], "a-adds", 1_300, 1_000);
    add_many(&group.servers[2], "c-adds", 1_300, 1_000);
    group.servers[0].wait_log("the journal reached xmppsync-journal-size", PATIENCE).unwrap();
    group.servers[2].wait_log("the journal reached xmppsync-journal-size", PATIENCE).unwrap();

    restart_with(&mut group.servers[2], right);
    settle_some(&group.servers);
    let dump = settle(&group);
    let there = ["a-changes", "c-changes", "c-renames", "same", "a-adds1299", "c-adds1299"];
    assert_has(&dump, &there, &["a-deletes", "c-deletes", "c-renames-later", "one-deletes"]);
    assert_eq!(dump[&dn("a-changes")]["description"], [b"from a".to_vec()].into());
    assert_eq!(dump[&dn("c-changes")]["description"], [b"from c".to_vec()].into());
    for (from, to) in [(0, 2), (2, 1), (1, 0)] {
        assert_travels(&group.servers[from], &group.servers[to], &format!("from {from} to {to}"));
    }
}

/// Restarts the third server where it reaches nobody. Returns how it was.
fn cut_off(group: &mut Group) -> SlapdConfig {
    let right = group.config(2).unwrap();
    let mut wrong = right.clone();
    // Nothing listens there.
    let server = format!("xmppsync-server {}", group.lab.free_address().unwrap());
    wrong.databases[0].overlay_lines.retain(|line| !line.starts_with("xmppsync-server "));
    wrong.databases[0].overlay_lines.push(server);
    restart_with(&mut group.servers[2], wrong);
    right
}

fn restart_with(server: &mut Slapd, config: SlapdConfig) {
    server.stop().unwrap();
    server.set_config(config).unwrap();
    server.start().unwrap();
}

fn values(dump: &Dump, uid: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let of = |name: &str| dump[&dn(uid)].get(name).into_iter().flatten().cloned().collect();
    (of("description"), of("telephoneNumber"))
}

/// What the others wrote to the entry is later, and another attribute.
#[test]
fn what_a_server_wrote_while_it_was_cut_off_is_not_hidden_by_a_later_state() {
    let mut group = group(3);
    people(&group.servers[0], &["both"]);
    settle(&group);
    let right = cut_off(&mut group);
    group.servers[2].ldap().unwrap().replace(&dn("both"), "description", &["of c"]).unwrap();
    add_many(&group.servers[0], "missed", 1_300, 1_000);
    group.servers[0].wait_log("the journal reached xmppsync-journal-size", PATIENCE).unwrap();
    group.servers[0].ldap().unwrap().replace(&dn("both"), "telephoneNumber", &["1"]).unwrap();
    restart_with(&mut group.servers[2], right);
    group.servers[2].wait_log("nobody's journal reaches back", PATIENCE).unwrap();
    settle_some(&group.servers);
    let dump = settle(&group);
    assert_eq!(values(&dump, "both"), (vec![b"of c".to_vec()], vec![b"1".to_vec()]));
}

/// It has forgotten what is later than a change that comes late; the first server has not.
#[test]
fn what_a_change_means_that_comes_late_is_asked_for_where_the_journal_is_lost() {
    let mut group = group_with(GroupOptions { servers: 3, ..GroupOptions::default() });
    people(&group.servers[0], &["both"]);
    settle(&group);
    let right = cut_off(&mut group);
    group.servers[2].ldap().unwrap().replace(&dn("both"), "description", &["of c"]).unwrap();
    group.servers[0].ldap().unwrap().replace(&dn("both"), "telephoneNumber", &["1"]).unwrap();
    settle_some(&group.servers[..2]);
    group.servers[1].stop().unwrap();
    fs::remove_dir_all(group.servers[1].database_dir(0).join("xmppsync")).unwrap();
    group.servers[1].start().unwrap();
    settle_some(&group.servers[..2]);
    restart_with(&mut group.servers[2], right);
    settle_some(&group.servers);
    let dump = settle(&group);
    assert_eq!(values(&dump, "both"), (vec![b"of c".to_vec()], vec![b"1".to_vec()]));
}

#[test]
fn entries_that_exchanged_their_names_while_a_server_was_away_have_them_there_too() {
    let mut group = group(2);
    people(&group.servers[0], &["one", "two"]);
    let before = settle(&group);
    group.servers[1].stop().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    for (from, to) in [("one", "third"), ("two", "one"), ("third", "two")] {
        ldap.rename(&dn(from), &format!("uid={to}"), None).unwrap();
    }
    add_many(&group.servers[0], "missed", 1_300, 1_000);
    wait_forgotten(&group.servers[0], &group.jid(1));
    group.servers[1].start().unwrap();
    settle_some(&group.servers);
    let dump = settle(&group);
    assert_eq!(dump[&dn("one")]["entryUUID"], before[&dn("two")]["entryUUID"]);
    assert_eq!(dump[&dn("two")]["entryUUID"], before[&dn("one")]["entryUUID"]);
    let conflicts = |entry: &str| dump[&dn(entry)].get("xmppSyncConflict");
    assert_eq!((conflicts("one"), conflicts("two")), (None, None));
}

/// As after a fault of the disk, or of this program.
#[test]
fn entries_that_differ_under_one_entry_csn_are_found_by_a_check_and_become_equal() {
    let overlay_lines = vec!["xmppsync-check-interval 2s".to_owned()];
    let mut group = group_with(GroupOptions { servers: 2, overlay_lines, ..GroupOptions::default() });
    people(&group.servers[0], &["one", "same"]);
    group.servers[0].ldap().unwrap().replace(&dn("one"), "description", &["right"]).unwrap();
    let before = settle(&group);
    group.servers[1].stop().unwrap();
    let now = group.servers[1].slapcat(SUFFIX).unwrap();
    let other = entry(&now, &dn("one")).replace("description: right", "description: other");
    let database = group.servers[1].database_dir(0);
    fs::remove_dir_all(&database).unwrap();
    fs::create_dir(&database).unwrap();
    group.servers[1].slapadd(SUFFIX, &with_entry(&now, &dn("one"), &other), true).unwrap();
    group.servers[1].start().unwrap();
    settle_some(&group.servers);
    let dump = settle(&group);
    assert_eq!(dump[&dn("one")]["entryCSN"], before[&dn("one")]["entryCSN"]);
    let description = values(&dump, "one").0;
    assert!(description == [b"right".to_vec()] || description == [b"other".to_vec()], "{description:?}");
    assert_eq!(dump[&dn("same")], before[&dn("same")]);
}

/// The second server's database is put back to another state, its journal with it, and its contextCSN says that it has
/// everything: nothing but a check can tell.
#[test]
fn a_regular_check_heals_what_nothing_told_of_and_is_silent_when_there_is_nothing() {
    let quiet = SlapdOptions { debug_level: "none".to_owned(), ..SlapdOptions::default() };
    let overlay_lines = vec!["xmppsync-check-interval 2s".to_owned()];
    let mut group = group_with(GroupOptions { servers: 2, overlay_lines, ..GroupOptions::default() });
    people(&group.servers[0], &["changed", "lost", "same"]);
    settle(&group);
    let before = group.servers[1].slapcat(SUFFIX).unwrap();
    group.servers[0].ldap().unwrap().replace(&dn("changed"), "description", &["later"]).unwrap();
    settle(&group);
    group.servers[1].stop().unwrap();
    let now = group.servers[1].slapcat(SUFFIX).unwrap();
    let older = with_entry(&now, &dn("changed"), &entry(&before, &dn("changed")));
    let database = group.servers[1].database_dir(0);
    fs::remove_dir_all(&database).unwrap();
    fs::create_dir(&database).unwrap();
    group.servers[1].slapadd(SUFFIX, &with_entry(&older, &dn("lost"), ""), true).unwrap();
    // The first one shows what an administrator always sees.
    group.servers[0].stop().unwrap();
    let config = group.config(0).unwrap();
    group.servers[0] = Slapd::prepare(&group.lab, "a", config, quiet).unwrap();
    group.start().unwrap();
    let dump = settle(&group);
    assert_eq!(dump[&dn("changed")]["description"], [b"later".to_vec()].into());
    // Without its journal the second server does not know whether it has seen the entry, whatever its contextCSN says.
    assert_has(&dump, &["changed", "lost", "same"], &[]);

    let logs =
        || [&group.servers[0], &group.servers[1]].map(|server| count(&server.run_log(), "compared with"));
    let before = count(&group.servers[1].run_log(), "a server compares its entries with this one");
    let said = logs()[0];
    wait_until("the first server checks twice more", PATIENCE, || {
        let now = count(&group.servers[1].run_log(), "a server compares its entries with this one");
        if now >= before + 2 { Ok(()) } else { Err(format!("{before}, now {now}")) }
    })
    .unwrap();
    assert_eq!(logs()[0], said, "{}", end_of(&group.servers[0].run_log()));
    wait_entry(&group.servers[1], &dn("same"), true);
}

/// An entry of an LDIF, with the empty line behind it.
fn entry(ldif: &str, dn: &str) -> String {
    let ldif = ldif.replace("\n ", "");
    let found = ldif.split_inclusive("\n\n").find(|entry| entry.starts_with(&format!("dn: {dn}\n")));
    found.unwrap().to_owned()
}

/// The LDIF with another text in the place of an entry.
fn with_entry(ldif: &str, dn: &str, text: &str) -> String {
    ldif.replace("\n ", "").replace(&entry(ldif, dn), text)
}

/// Nobody remembers that it was deleted; but who deleted it had seen it before.
#[test]
fn an_entry_that_was_deleted_longer_ago_than_tombstones_are_kept_does_not_return() {
    let lines = ["xmppsync-offline-messages 0", "xmppsync-journal-size 1m", "xmppsync-retention 1s"];
    let overlay_lines = lines.map(str::to_owned).to_vec();
    let mut group = group_with(GroupOptions { servers: 2, overlay_lines, ..GroupOptions::default() });
    people(&group.servers[0], &["deleted", "same"]);
    settle(&group);
    group.servers[1].stop().unwrap();
    group.servers[0].ldap().unwrap().delete(&dn("deleted")).unwrap();
    add_many(&group.servers[0], "missed", 1_300, 1_000);
    wait_forgotten(&group.servers[0], &group.jid(1));
    group.servers[1].start().unwrap();
    let dump = settle(&group);
    assert_has(&dump, &["same", "missed0", "missed1299"], &["deleted"]);
    assert_eq!(count(&group.servers[1].run_log(), "nobody's journal reaches back"), 1);
}

/// Entries come in the order of their entryUUIDs, which is none of the tree.
#[test]
fn subtrees_and_names_that_changed_hands_come_out_right_whatever_the_order() {
    const MANY: usize = 1_200;
    let mut group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    let unit = |ldap: &mut Ldap, name: &str| {
        let dn = format!("ou={name},{SUFFIX}");
        ldap.add(&dn, &[("objectClass", "organizationalUnit"), ("ou", name)]).unwrap();
        dn
    };
    let old = unit(&mut ldap, "old");
    let renamed = unit(&mut ldap, "renamed-later");
    let person = |uid: &str, unit: &str| {
        let object = "changetype: add\nobjectClass: inetOrgPerson";
        format!("dn: uid={uid},{unit}\n{object}\nuid: {uid}\ncn: {uid}\nsn: Test\n\n")
    };
    let below = |unit: &str| (0..MANY).map(|number| person(&format!("p{number}"), unit)).collect::<String>();
    group.servers[0].ldapmodify(SUFFIX, &(below(&old) + &below(&renamed) + &below(PEOPLE))).unwrap();
    people(&group.servers[0], &["again", "left"]);
    settle(&group);
    group.servers[1].stop().unwrap();

    // A subtree goes, another one is renamed, and many entries move below one that is younger than they are.
    let deletes =
        |unit: &str| (0..MANY).map(|n| format!("dn: uid=p{n},{unit}\nchangetype: delete\n\n")).collect();
    let deletes: String = deletes(&old);
    group.servers[0].ldapmodify(SUFFIX, &format!("{deletes}dn: {old}\nchangetype: delete\n\n")).unwrap();
    ldap.rename(&renamed, "ou=renamed", None).unwrap();
    let young = unit(&mut ldap, "young");
    let moves = (0..MANY).map(|n| {
        format!("dn: uid=p{n},{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=p{n}\ndeleteoldrdn: 1\nnewsuperior: {young}\n\n")
    });
    group.servers[0].ldapmodify(SUFFIX, &moves.collect::<String>()).unwrap();
    // Names that other entries have now.
    ldap.delete(&dn("again")).unwrap();
    add_person(&mut ldap, "again");
    ldap.rename(&dn("left"), "uid=right", None).unwrap();
    add_person(&mut ldap, "left");
    add_many(&group.servers[0], "missed", 1_500, 1_000);
    let absent = group.jid(1);
    wait_forgotten(&group.servers[0], &absent);
    group.servers[1].start().unwrap();
    settle_some(&group.servers);
    let log = group.servers[1].run_log();
    assert_eq!(count(&log, "entries or deletes taken from it"), 1, "{}", end_of(&log));
    assert_eq!(complaints(&group.servers[1]), "");
    assert_travels(&group.servers[1], &group.servers[0], "and back");
}

/// What differs is more than a comparison holds at once, and the parents are younger than their children.
#[test]
fn very_much_that_differs_comes_parents_before_children() {
    const MANY: usize = 700;
    const TEXT_BYTES: usize = 60_000;
    let mut group = group(2);
    settle(&group);
    group.servers[1].stop().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    let unit = |ldap: &mut Ldap, name: &str, above: &str| {
        let dn = format!("ou={name},{above}");
        ldap.add(&dn, &[("objectClass", "organizationalUnit"), ("ou", name)]).unwrap();
        dn
    };
    let old = unit(&mut ldap, "old", SUFFIX);
    let text = "x".repeat(TEXT_BYTES);
    for number in 0..MANY {
        let uid = format!("p{number}");
        let attributes = [
            ("objectClass", "inetOrgPerson"),
            ("uid", &uid),
            ("cn", &uid),
            ("sn", "Test"),
            ("description", &text),
        ];
        ldap.add(&format!("uid={uid},{old}"), &attributes).unwrap();
    }
    let young = unit(&mut ldap, "young", SUFFIX);
    let younger = unit(&mut ldap, "younger", &young);
    for number in 0..MANY {
        ldap.rename(&format!("uid=p{number},{old}"), &format!("uid=p{number}"), Some(&younger)).unwrap();
    }
    wait_forgotten(&group.servers[0], &group.jid(1));
    group.servers[1].start().unwrap();
    settle_some(&group.servers);
    assert_eq!(complaints(&group.servers[1]), "");
    assert_travels(&group.servers[1], &group.servers[0], "and back");
}

#[test]
fn three_servers_that_were_away_too_long_return_at_the_same_moment_and_none_waits_for_long() {
    let mut group = group(4);
    people(&group.servers[0], &["modified", "deleted"]);
    settle(&group);
    for server in &mut group.servers[1..] {
        server.stop().unwrap();
    }
    let mut ldap = group.servers[0].ldap().unwrap();
    ldap.replace(&dn("modified"), "description", &["changed meanwhile"]).unwrap();
    ldap.delete(&dn("deleted")).unwrap();
    add_many(&group.servers[0], "missed", 1_300, 1_000);
    wait_forgotten(&group.servers[0], "@xmpp.test");
    thread::scope(|scope| {
        for server in &mut group.servers[1..] {
            scope.spawn(|| server.start().unwrap());
        }
    });
    settle_some(&group.servers);
    for server in &group.servers[1..] {
        let log = server.run_log();
        assert_eq!(count(&log, "nobody's journal reaches back"), 1, "{}", end_of(&log));
        assert_eq!(count(&log, "came to nothing"), 0, "{}", end_of(&log));
    }
    for (from, to) in [(1, 2), (2, 3), (3, 0), (0, 1)] {
        assert_travels(&group.servers[from], &group.servers[to], &format!("from {from} to {to}"));
    }
}

/// What is on its way while two servers compare is neither lost nor taken for deleted.
#[test]
fn comparing_amid_writes_loses_nothing_and_brings_nothing_back() {
    const EACH: usize = 1_500;
    let overlay_lines = vec!["xmppsync-check-interval 1s".to_owned()];
    let group = group_with(GroupOptions { servers: 3, overlay_lines, ..GroupOptions::default() });
    thread::scope(|scope| {
        for server in &group.servers {
            scope.spawn(|| {
                let mut ldap = server.ldap().unwrap();
                for number in 0..EACH {
                    let dn = add_person(&mut ldap, &format!("{}{number}", server.name()));
                    match number % 3 {
                        0 => ldap.delete(&dn).unwrap(),
                        1 => ldap.replace(&dn, "description", &["changed"]).unwrap(),
                        _ => {}
                    }
                }
            });
        }
    });
    let dump = settle(&group);
    let mut checks = 0;
    for server in &group.servers {
        for number in 0..EACH {
            let there = dump.contains_key(&dn(&format!("{}{number}", server.name())));
            assert_eq!(there, number % 3 != 0, "{}{number}", server.name());
        }
        checks += count(&server.run_log(), "a server compares its entries with this one");
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
    assert!(checks > 3, "{checks} comparisons");
}

/// Neither has a journal of before.
#[test]
fn servers_that_were_loaded_alike_by_slapadd_make_sure_that_they_are_equal() {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    load_offline(&group);
    group.start().unwrap();
    settle(&group);
    for server in &group.servers {
        let log = server.run_log();
        assert_eq!(count(&log, "taken from it") + count(&log, "still differ"), 0, "{}", end_of(&log));
        assert!(count(&log, "nothing differs") > 0, "{}", end_of(&log));
    }
    // One that writes at once is not held up, nor is it written twice.
    add_many(&group.servers[0], "more", 200, 10);
    settle(&group);
}

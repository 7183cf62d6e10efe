//! Databases as wholes: several in one slapd, empty ones, the suffix entry, contextCSN.

use crate::PATIENCE;
use crate::steps::*;
use std::thread;
use xmppsync_lab::{ContextCsn, Group, GroupOptions, Ldap, SUFFIX, assert_equal_with, ldif};

#[test]
fn databases_of_one_slapd_do_not_mix() {
    let suffixes = ["dc=example,dc=com", "o=Ärzte & Söhne", "ou=units,dc=other"];
    let group = Group::with(GroupOptions {
        servers: 2,
        suffixes: suffixes.map(str::to_owned).to_vec(),
        ..GroupOptions::default()
    })
    .unwrap();
    // All at once, from both sides.
    thread::scope(|scope| {
        for (number, suffix) in suffixes.iter().enumerate() {
            let server = &group.servers[number % 2];
            scope.spawn(move || {
                let mut ldap = server.ldap_of(suffix).unwrap();
                for record in ldif::directory(suffix, 20 + 10 * number) {
                    ldap.add_bytes(&record.dn, record.attributes).unwrap();
                }
                ldap.replace(suffix, "description", &[&format!("database {number}")]).unwrap();
            });
        }
    });
    let dumps = suffixes
        .map(|suffix| assert_equal_with(&group.servers, suffix, ContextCsn::Compare, PATIENCE).unwrap());
    for (number, (suffix, dump)) in suffixes.iter().zip(&dumps).enumerate() {
        assert_eq!(dump.len(), ldif::directory(suffix, 20 + 10 * number).len());
        assert_eq!(dump[&suffix.to_lowercase()]["description"], [format!("database {number}").into()].into());
        // Each has come from one server only.
        assert_eq!(dump[&suffix.to_lowercase()]["contextCSN"].len(), 1, "{suffix}");
    }
    let rooms = group.xmpp.api("muc_online_rooms", r#"{"service":"conference.xmpp.test"}"#).unwrap();
    assert_eq!(rooms.matches("@conference").count(), suffixes.len(), "{rooms}");
}

#[test]
fn a_group_of_empty_databases_starts_at_once_and_is_written_to_at_once() {
    let mut group = Group::prepare(GroupOptions::default()).unwrap();
    let records = ldif::directory(SUFFIX, 100);
    thread::scope(|scope| {
        for (number, server) in group.servers.iter_mut().enumerate() {
            let records = &records;
            scope.spawn(move || {
                server.start().unwrap();
                if number == 1 {
                    let mut ldap = server.ldap().unwrap();
                    for record in records {
                        ldap.add_bytes(&record.dn, record.attributes.clone()).unwrap();
                    }
                }
            });
        }
    });
    let dump = settle(&group);
    assert_eq!(dump.len(), records.len());
    group.servers.iter().for_each(|server| assert!(!server.log().contains("set aside"), "{}", server.log()));
}

#[test]
fn what_was_written_before_the_others_came_reaches_them() {
    let mut group = Group::prepare(GroupOptions::default()).unwrap();
    group.servers[2].start().unwrap();
    let mut ldap = group.servers[2].ldap().unwrap();
    let records = ldif::directory(SUFFIX, 100);
    for record in &records[..50] {
        ldap.add_bytes(&record.dn, record.attributes.clone()).unwrap();
    }
    group.start().unwrap();
    for record in &records[50..] {
        ldap.add_bytes(&record.dn, record.attributes.clone()).unwrap();
    }
    drop(ldap);
    assert_eq!(settle(&group).len(), records.len());
    group.servers.iter().for_each(|server| assert!(!server.log().contains("set aside"), "{}", server.log()));
}

#[test]
fn the_suffix_entry_is_an_entry_like_any_other() {
    let group = group(2);
    let mut a = group.servers[0].ldap().unwrap();
    let mut b = group.servers[1].ldap().unwrap();
    a.replace(SUFFIX, "description", &["by a"]).unwrap();
    wait_values(&group.servers[1], SUFFIX, "description", &["by a"]);
    b.modify(SUFFIX, vec![set("description", &["by b"]), set("description;lang-de", &["von b"])]).unwrap();
    wait_values(&group.servers[0], SUFFIX, "description", &["by b", "von b"]);
    settle_smoothly(&group);
    // A database that becomes empty, and is founded anew by the other.
    b.delete(PEOPLE).unwrap();
    b.delete(SUFFIX).unwrap();
    wait_entry(&group.servers[0], SUFFIX, false);
    let record = ldif::suffix_entry(SUFFIX);
    a.add_bytes(&record.dn, record.attributes).unwrap();
    wait_entry(&group.servers[1], SUFFIX, true);
    b.replace(SUFFIX, "description", &["founded anew"]).unwrap();
    let dump = settle_smoothly(&group);
    assert_eq!(dump[SUFFIX]["contextCSN"].len(), 2);
}

#[test]
fn operational_attributes_and_context_csn_are_equal_everywhere_and_after_a_restart() {
    let mut group = group(3);
    let mut last = Vec::new();
    for (number, server) in group.servers.iter().enumerate() {
        let mut ldap = server.ldap().unwrap();
        let dn = add_person(&mut ldap, &format!("of-{number}"));
        ldap.replace(&dn, "description", &["changed"]).unwrap();
        last.push((dn.clone(), entry_csn(server, &dn)));
        // What comes last has no entryCSN to be found by.
        let passing = add_person(&mut ldap, &format!("passing-{number}"));
        ldap.delete(&passing).unwrap();
    }
    let dump = settle_smoothly(&group);
    for (number, (dn, csn)) in last.iter().enumerate() {
        let entry = &dump[dn];
        assert!(csn.contains(&format!("#{:03x}#", number + 1)), "{csn}");
        assert_eq!(entry["entryCSN"], [csn.clone().into_bytes()].into());
        for attribute in ["entryUUID", "creatorsName", "createTimestamp", "modifiersName", "modifyTimestamp"]
        {
            assert_eq!(entry[attribute].len(), 1, "{attribute} of {dn}");
        }
        assert_eq!(entry["modifiersName"], [b"cn=admin,dc=example,dc=com".to_vec()].into());
    }
    let before = dump[SUFFIX]["contextCSN"].clone();
    assert_eq!(before.len(), 3);
    // One server at a time, and nothing written since.
    for server in &mut group.servers {
        server.restart().unwrap();
    }
    assert_eq!(settle(&group)[SUFFIX]["contextCSN"], before);
    // All at once.
    for server in &mut group.servers {
        server.stop().unwrap();
    }
    let offline: Vec<String> = group.servers.iter().map(|server| server.slapcat(SUFFIX).unwrap()).collect();
    for csn in &before {
        let line = format!("contextCSN: {}", String::from_utf8_lossy(csn));
        offline.iter().for_each(|ldif| assert!(ldif.contains(&line), "{line} is not in\n{ldif}"));
    }
    group.start().unwrap();
    assert_eq!(settle(&group)[SUFFIX]["contextCSN"], before);
    let mut ldap = group.servers[2].ldap().unwrap();
    ldap.replace(&last[0].0, "description", &["after the restart"]).unwrap();
    drop(ldap);
    let dump = settle(&group);
    assert_eq!(dump[&last[0].0]["description"], [b"after the restart".to_vec()].into());
    assert_eq!(dump[SUFFIX]["contextCSN"].intersection(&before).count(), 2);
}

#[test]
fn what_a_user_adds_and_changes_bears_that_users_name_on_every_server() {
    let rights =
        ["access to attrs=userPassword by anonymous auth by * none", "access to * by users write by * read"];
    let database_lines = rights.map(str::to_owned).to_vec();
    let group = group_with(GroupOptions { servers: 2, database_lines, ..GroupOptions::default() });
    let mut root = group.servers[0].ldap().unwrap();
    let users = ["Writer One", "two"].map(|uid| add_person(&mut root, uid));
    for user in &users {
        root.replace(user, "userPassword", &["open sesame"]).unwrap();
        group.servers.iter().for_each(|server| {
            wait_values(server, user, "userPassword", &["open sesame"]);
        });
    }
    let mut one = Ldap::bind(&group.servers[0].uri(), &users[0], "open sesame").unwrap();
    let mut two = Ldap::bind(&group.servers[1].uri(), &users[1], "open sesame").unwrap();
    let by_one = add_person(&mut one, "by-one");
    let by_two = add_person(&mut two, "by-two");
    wait_entry(&group.servers[1], &by_one, true);
    two.replace(&by_one, "description", &["changed by two"]).unwrap();
    let dump = settle_smoothly(&group);
    let name = |user: &str| [user.as_bytes().to_vec()].into();
    assert_eq!(dump[&by_one]["creatorsName"], name(&users[0]));
    assert_eq!(dump[&by_one]["modifiersName"], name(&users[1]));
    assert_eq!(dump[&by_two]["creatorsName"], name(&users[1]));
    assert_eq!(dump[&by_two]["modifiersName"], name(&users[1]));
}

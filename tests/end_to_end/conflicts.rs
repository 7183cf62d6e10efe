//! Changes that were made apart from each other, and meet when the line is there again: one result on all servers.

use crate::PATIENCE;
use crate::steps::*;
use std::time::{SystemTime, UNIX_EPOCH};
use xmppsync_lab::ldap3::Mod;
use xmppsync_lab::{Dump, Group, GroupOptions, Ldap, SUFFIX, Slapd, XmppData, wait_for};

/// How the servers come together again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Healing {
    /// What was sent meanwhile arrives at last.
    Late,
    /// Everybody asks for what was missed.
    Asked,
}

/// Three servers with what `prepare` makes, then each by itself, then together.
fn apart(
    healing: Healing,
    prepare: impl FnOnce(&mut Ldap),
    meanwhile: impl FnOnce(&mut [Ldap]),
) -> (Group, Dump) {
    apart_with(GroupOptions::default(), healing, prepare, meanwhile)
}

/// [`apart`], for servers with something else in their configuration.
pub(crate) fn apart_with(
    options: GroupOptions,
    healing: Healing,
    prepare: impl FnOnce(&mut Ldap),
    meanwhile: impl FnOnce(&mut [Ldap]),
) -> (Group, Dump) {
    let mut group = group_with(GroupOptions { servers: 3, ..options });
    prepare(&mut group.servers[0].ldap().unwrap());
    settle(&group);
    let mut clients: Vec<Ldap> = group.servers.iter().map(|server| server.ldap().unwrap()).collect();
    match healing {
        Healing::Late => group.xmpp.pause().unwrap(),
        Healing::Asked => drop(group.xmpp.stop().unwrap()),
    }
    meanwhile(&mut clients);
    match healing {
        Healing::Late => group.xmpp.resume().unwrap(),
        Healing::Asked => group.xmpp.start_again(XmppData::Keep).unwrap(),
    }
    let dump = settle(&group);
    for server in &group.servers {
        assert!(!server.log().contains("set aside"), "on {}: {}", server.name(), complaints(server));
    }
    (group, dump)
}

fn both_ways(prepare: fn(&mut Ldap), meanwhile: fn(&mut [Ldap]), check: fn(&mut Ldap, &Group)) {
    for healing in [Healing::Late, Healing::Asked] {
        let (group, _) = apart(healing, prepare, meanwhile);
        for server in &group.servers {
            check(&mut server.ldap().unwrap(), &group);
        }
    }
}

fn dn(uid: &str) -> String {
    format!("uid={uid},{PEOPLE}")
}

fn plus_one(attribute: &str) -> Mod<Vec<u8>> {
    Mod::Increment(attribute.into(), b"1".to_vec())
}

#[test]
fn of_values_that_meet_the_later_one_counts_and_others_stand_side_by_side() {
    both_ways(
        |ldap| {
            let dn = add_person(ldap, "a");
            ldap.modify(&dn, vec![set("description", &["first", "second"]), set("title", &["none"])])
                .unwrap();
        },
        |clients| {
            let dn = dn("a");
            // Different attributes; an attribute with another option is another one.
            clients[0].replace(&dn, "givenName", &["Anna"]).unwrap();
            clients[1].replace(&dn, "l", &["Berlin"]).unwrap();
            clients[2].replace(&dn, "givenName;lang-de", &["Änne"]).unwrap();
            // Value by value.
            clients[0]
                .modify(&dn, vec![plus("description", &["third"]), minus("description", &["first"])])
                .unwrap();
            clients[1].modify(&dn, vec![minus("description", &["second"])]).unwrap();
            clients[2].modify(&dn, vec![plus("description", &["fourth"])]).unwrap();
            // A value with another spelling.
            clients[0].modify(&dn, vec![plus("mail", &["A@example.com"])]).unwrap();
            clients[1].modify(&dn, vec![plus("mail", &["a@example.com"])]).unwrap();
            // All values, and before and after it single ones.
            clients[0].modify(&dn, vec![plus("telephoneNumber", &["+49 1"])]).unwrap();
            clients[1].replace(&dn, "telephoneNumber", &["+49 2"]).unwrap();
            clients[2].modify(&dn, vec![plus("telephoneNumber", &["+49 3"])]).unwrap();
            // One value at most.
            clients[2].replace(&dn, "homeDirectory", &["/home/two"]).unwrap();
            clients[0].replace(&dn, "homeDirectory", &["/home/zero"]).unwrap();
            clients[1].replace(&dn, "employeeNumber", &["1"]).unwrap();
            clients[0].modify(&dn, vec![plus("employeeNumber", &["0"])]).unwrap();
            // Both count.
            for client in &mut *clients {
                client.modify(&dn, vec![plus_one("uidNumber")]).unwrap();
            }
            // No equality rule.
            clients[0].replace(&dn, "jpegPhoto", &["zero"]).unwrap();
            clients[1].replace(&dn, "jpegPhoto", &["one"]).unwrap();
            // An object class, with what it asks for.
            clients[2]
                .modify(&dn, vec![plus("objectClass", &["shadowAccount"]), plus("shadowMin", &["1"])])
                .unwrap();
            clients[1]
                .modify(&dn, vec![plus("objectClass", &["labeledURIObject"]), plus("labeledURI", &["x:y"])])
                .unwrap();
        },
        |ldap, _| {
            let dn = dn("a");
            let mut is = |attribute: &str, expected: &[&str]| {
                assert_eq!(ldap.values(&dn, attribute).unwrap(), expected, "{attribute}");
            };
            is("givenName;lang-de", &["Änne"]);
            is("l", &["Berlin"]);
            is("description", &["fourth", "third"]);
            is("mail", &["a@example.com"]);
            is("telephoneNumber", &["+49 2", "+49 3"]);
            is("homeDirectory", &["/home/zero"]);
            is("employeeNumber", &["0"]);
            is("uidNumber", &["1003"]);
            is("jpegPhoto", &["one"]);
            is("shadowMin", &["1"]);
            is("labeledURI", &["x:y"]);
        },
    );
}

#[test]
fn a_delete_takes_everything_that_was_done_to_the_entry() {
    both_ways(
        |ldap| {
            for uid in ["a", "b", "c"] {
                add_person(ldap, uid);
            }
        },
        |clients| {
            clients[0].delete(&dn("a")).unwrap();
            clients[1].replace(&dn("a"), "sn", &["Later"]).unwrap();
            clients[1].replace(&dn("b"), "sn", &["Earlier"]).unwrap();
            clients[0].delete(&dn("b")).unwrap();
            clients[2].rename(&dn("c"), "uid=d", None).unwrap();
            clients[0].delete(&dn("c")).unwrap();
            clients[1].delete(&dn("c")).unwrap();
        },
        |ldap, group| {
            for uid in ["a", "b", "c", "d"] {
                assert_eq!(ldap.entry(&dn(uid)).unwrap(), None, "{uid}");
            }
            let logs: String = group.servers.iter().map(Slapd::log).collect();
            assert!(logs.contains("conflict: a change of the entry"), "nobody told of a lost change");
        },
    );
}

#[test]
fn of_two_entries_with_one_name_the_earlier_keeps_it_until_it_goes() {
    for healing in [Healing::Late, Healing::Asked] {
        let (group, _) = apart(
            healing,
            |ldap| drop(add_person(ldap, "mover")),
            |clients| {
                add_person(&mut clients[1], "same");
                // createTimestamp has seconds: that of the next one is to be later.
                let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let first = second();
                wait_for("another second", PATIENCE, || second() > first).unwrap();
                add_person(&mut clients[0], "same");
                clients[0].replace(&dn("same"), "sn", &["Second"]).unwrap();
                clients[1].replace(&dn("same"), "sn", &["First"]).unwrap();
                // A rename onto a name that is in use: that entry is older.
                clients[2].rename(&dn("mover"), "uid=goal", None).unwrap();
                add_person(&mut clients[0], "goal");
            },
        );
        let mut ldap = group.servers[2].ldap().unwrap();
        assert_eq!(ldap.values(&dn("same"), "sn").unwrap(), ["First"]);
        assert_eq!(ldap.values(&dn("goal"), "uid").unwrap(), ["goal"]);
        let aside = ldap
            .search(SUFFIX, xmppsync_lab::ldap3::Scope::Subtree, "(xmppSyncConflict=displaced*)", &["sn"])
            .unwrap();
        assert_eq!(aside.len(), 2, "{aside:?}");
        assert!(
            aside.iter().all(|(dn, _)| dn.starts_with("entryUUID=") || dn.contains("+entryUUID=")),
            "{aside:?}"
        );
        // The name becomes free, by an ordinary write on any server.
        group.servers[1].ldap().unwrap().delete(&dn("same")).unwrap();
        for server in &group.servers {
            wait_values(server, &dn("same"), "sn", &["Second"]);
            wait_values(server, &dn("same"), "xmppSyncConflict", &[]);
        }
        settle(&group);
    }
}

#[test]
fn a_child_keeps_its_deleted_parent_until_it_goes_itself() {
    for healing in [Healing::Late, Healing::Asked] {
        let unit = "ou=unit,dc=example,dc=com";
        let (group, _) = apart(
            healing,
            |ldap| {
                ldap.add(unit, &[("objectClass", "organizationalUnit"), ("ou", "unit"), ("l", "here")])
                    .unwrap()
            },
            |clients| {
                let child = format!("uid=child,{}", "ou=unit,dc=example,dc=com");
                clients[0].add(&child, &person("child")).unwrap();
                clients[1].delete("ou=unit,dc=example,dc=com").unwrap();
            },
        );
        let child = format!("uid=child,{unit}");
        for server in &group.servers {
            let mut ldap = server.ldap().unwrap();
            assert!(ldap.entry(&child).unwrap().is_some(), "on {}", server.name());
            assert_eq!(
                ldap.values(unit, "objectClass").unwrap(),
                ["extensibleObject", "glue", "top"],
                "on {}",
                server.name()
            );
            assert_eq!(ldap.values(unit, "l").unwrap(), [""; 0]);
        }
        group.servers[2].ldap().unwrap().delete(&child).unwrap();
        for server in &group.servers {
            wait_entry(server, unit, false);
        }
        settle(&group);
    }
}

#[test]
fn renames_and_moves_that_meet_have_one_result() {
    both_ways(
        |ldap| {
            add_person(ldap, "a");
            for ou in ["x", "y", "z"] {
                ldap.add(&format!("ou={ou},{PEOPLE}"), &[("objectClass", "organizationalUnit"), ("ou", ou)])
                    .unwrap();
            }
            ldap.add(&format!("uid=below,ou=z,{PEOPLE}"), &person("below")).unwrap();
        },
        |clients| {
            // The later rename.
            clients[0].rename(&dn("a"), "uid=b", None).unwrap();
            clients[1].rename(&dn("a"), "uid=c", None).unwrap();
            clients[2].replace(&dn("a"), "sn", &["Kept"]).unwrap();
            // Below itself.
            clients[0].rename(&format!("ou=x,{PEOPLE}"), "ou=x", Some(&format!("ou=y,{PEOPLE}"))).unwrap();
            clients[1].rename(&format!("ou=y,{PEOPLE}"), "ou=y", Some(&format!("ou=x,{PEOPLE}"))).unwrap();
            // A subtree that moves while something is added to it, and changed in it.
            clients[2].rename(&format!("ou=z,{PEOPLE}"), "ou=moved", Some(SUFFIX)).unwrap();
            clients[0].add(&format!("uid=new,ou=z,{PEOPLE}"), &person("new")).unwrap();
            clients[1].replace(&format!("uid=below,ou=z,{PEOPLE}"), "sn", &["Changed"]).unwrap();
        },
        |ldap, _| {
            assert_eq!(ldap.values(&dn("c"), "sn").unwrap(), ["Kept"]);
            assert!(ldap.entry(&dn("b")).unwrap().is_none());
            assert!(ldap.entry(&format!("ou=x,ou=y,{PEOPLE}")).unwrap().is_some());
            assert_eq!(ldap.values("uid=below,ou=moved,dc=example,dc=com", "sn").unwrap(), ["Changed"]);
            assert!(ldap.entry("uid=new,ou=moved,dc=example,dc=com").unwrap().is_some());
        },
    );
}

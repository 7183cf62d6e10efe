//! What was lost where changes met is seen with an ordinary search on every server, and resolved by an ordinary write on any.

use crate::PATIENCE;
use crate::meanwhile::{end_of, wait_joined};
use crate::steps::*;
use std::process::Command;
use xmppsync_lab::ldap3::Scope;
use xmppsync_lab::{
    Dump, Group, GroupOptions, Ldap, SUFFIX, Slapd, XmppData, failpoints_module_path, wait_until,
};

/// All that the README tells to search for.
const ANY: &str = "(|(xmppSyncLost=*)(xmppSyncConflict=*)(objectClass=glue))";

fn dn(uid: &str) -> String {
    format!("uid={uid},{PEOPLE}")
}

/// Three servers with what `prepare` makes, then each by itself, then together, in late messages or by pulls.
fn apart(late: bool, prepare: impl FnOnce(&mut Ldap), meanwhile: impl FnOnce(&mut [Ldap])) -> Group {
    let group = group_with(GroupOptions { servers: 3, ..GroupOptions::default() });
    prepare(&mut group.servers[0].ldap().unwrap());
    settle(&group);
    cut(group, late, meanwhile)
}

fn cut(mut group: Group, late: bool, meanwhile: impl FnOnce(&mut [Ldap])) -> Group {
    let mut clients: Vec<Ldap> = group.servers.iter().map(|server| server.ldap().unwrap()).collect();
    match late {
        true => group.xmpp.pause().unwrap(),
        false => drop(group.xmpp.stop()),
    }
    meanwhile(&mut clients);
    match late {
        true => group.xmpp.resume().unwrap(),
        false => group.xmpp.start_again(XmppData::Keep).unwrap(),
    }
    group
}

/// The marks of an entry, without the CSNs: what they tell of, which server lost, which won, and the value.
fn marks(dump: &Dump, dn: &str) -> Vec<String> {
    let Some(values) = dump.get(dn).and_then(|entry| entry.get("xmppSyncLost")) else { return Vec::new() };
    let short = |value: &Vec<u8>| {
        let text = String::from_utf8(value.clone()).unwrap();
        let fields: Vec<&str> = text.splitn(4, ' ').collect();
        let server = |csn: &str| csn.split('#').nth(2).unwrap().trim_start_matches('0').to_owned();
        format!("{} {} {} {}", fields[0], server(fields[1]), server(fields[2]), fields[3])
    };
    let mut marks: Vec<String> = values.iter().map(short).collect();
    marks.sort();
    marks
}

/// Waits until the servers are equal and the entry has these marks.
fn wait_marks(group: &Group, dn: &str, expected: &[&str]) -> Dump {
    let what = format!("the marks of {dn:?} are {expected:?}");
    wait_until(&what, PATIENCE, || {
        let dump = settle(group);
        let found = marks(&dump, dn);
        if found == expected { Ok(dump) } else { Err(format!("{found:#?}")) }
    })
    .unwrap_or_else(|late| panic!("{late}\n{}", end_of(&group.servers[1].log())))
}

fn found(server: &Slapd, filter: &str) -> Vec<String> {
    let found = server.ldap().unwrap().search(SUFFIX, Scope::Subtree, filter, &["1.1"]).unwrap();
    found.into_iter().map(|(dn, _)| dn).collect()
}

/// As the README has it.
fn ldapsearch(server: &Slapd) -> String {
    let mut command = Command::new("ldapsearch");
    command.env("LDAPNOINIT", "1").args(["-x", "-LLL", "-o", "ldif-wrap=no", "-H", &server.uri()]);
    command.args(["-D", &format!("cn=admin,{SUFFIX}"), "-w", "secret", "-M", "-b", SUFFIX, ANY]);
    let output = command.args(["xmppSyncLost", "xmppSyncConflict", "objectClass"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lost_values_are_marked_on_every_server_and_only_once() {
    for late in [true, false] {
        let group = apart(
            late,
            |ldap| drop(add_person(ldap, "a")),
            |clients| {
                clients[0].replace(&dn("a"), "description", &["of a"]).unwrap();
                clients[1].replace(&dn("a"), "description", &["of b"]).unwrap();
                clients[2].replace(&dn("a"), "description", &["of c"]).unwrap();
                // Values that stand side by side are not lost, nor one that is there in another spelling.
                clients[0].modify(&dn("a"), vec![plus("mail", &["A@example.com"])]).unwrap();
                clients[1].modify(&dn("a"), vec![plus("mail", &["a@example.com", "b@example.com"])]).unwrap();
                clients[0].replace(&dn("a"), "employeeNumber", &["1"]).unwrap();
                clients[2].replace(&dn("a"), "employeeNumber", &["2"]).unwrap();
            },
        );
        // What the first one lost, it lost to both.
        let expected = [
            "description 1 2 text:of a",
            "description 1 3 text:of a",
            "description 2 3 text:of b",
            "employeeNumber 1 3 text:1",
        ];
        wait_marks(&group, &dn("a"), &expected);
        for server in &group.servers {
            assert_eq!(found(server, "(xmppSyncLost=*)"), [dn("a")]);
            assert_eq!(found(server, "(xmppSyncLost=employeeNumber *)"), [dn("a")]);
            assert_eq!(server.ldap().unwrap().values(&dn("a"), "description").unwrap(), ["of c"]);
        }
    }
}

#[test]
fn a_mark_goes_on_every_server_when_a_client_deletes_it_or_decides_on_the_attribute() {
    let group = apart(
        true,
        |ldap| drop(add_person(ldap, "a")),
        |clients| {
            for (at, value) in ["of a", "of b"].into_iter().enumerate() {
                for attribute in ["description", "title", "l"] {
                    clients[at].replace(&dn("a"), attribute, &[value]).unwrap();
                }
            }
        },
    );
    let expected = ["description 1 2 text:of a", "l 1 2 text:of a", "title 1 2 text:of a"];
    let dump = wait_marks(&group, &dn("a"), &expected);
    // One of them, as it is shown; on a server that neither lost nor won.
    let all = &dump[&dn("a")]["xmppSyncLost"];
    let mark = all.iter().find(|mark| mark.starts_with(b"l ")).unwrap();
    let mark = String::from_utf8(mark.clone()).unwrap();
    let ldif = format!("dn: {}\nchangetype: modify\ndelete: xmppSyncLost\nxmppSyncLost: {mark}\n", dn("a"));
    group.servers[2].ldapmodify(SUFFIX, &ldif).unwrap();
    wait_marks(&group, &dn("a"), &[expected[0], expected[2]]);
    // Who writes the attribute anew has decided.
    group.servers[0].ldap().unwrap().replace(&dn("a"), "title", &["of a"]).unwrap();
    wait_marks(&group, &dn("a"), &[expected[0]]);
    // All that are left.
    let ldif = format!("dn: {}\nchangetype: modify\ndelete: xmppSyncLost\n", dn("a"));
    group.servers[1].ldapmodify(SUFFIX, &ldif).unwrap();
    wait_marks(&group, &dn("a"), &[]);
    // They do not come back with the next conflict, or a start.
    let mut group = cut(group, false, |clients| {
        clients[1].replace(&dn("a"), "l", &["of b"]).unwrap();
        clients[2].replace(&dn("a"), "l", &["of c"]).unwrap();
    });
    wait_marks(&group, &dn("a"), &["l 2 3 text:of b"]);
    group.servers[2].restart().unwrap();
    wait_marks(&group, &dn("a"), &["l 2 3 text:of b"]);
}

#[test]
fn names_and_moves_that_were_lost_are_marked_and_what_a_delete_took_is_at_the_suffix_entry() {
    for late in [true, false] {
        let group = apart(
            late,
            |ldap| {
                for uid in ["a", "gone", "left"] {
                    add_person(ldap, uid);
                }
                for ou in ["x", "y"] {
                    let dn = format!("ou={ou},{PEOPLE}");
                    ldap.add(&dn, &[("objectClass", "organizationalUnit"), ("ou", ou)]).unwrap();
                }
            },
            |clients| {
                clients[0].rename(&dn("a"), "uid=b", None).unwrap();
                clients[1].rename(&dn("a"), "uid=c", None).unwrap();
                // The delete is the earlier one here, and the later one there.
                clients[0].delete(&dn("gone")).unwrap();
                clients[1].replace(&dn("gone"), "sn", &["Later"]).unwrap();
                clients[1].replace(&dn("left"), "sn", &["Earlier"]).unwrap();
                clients[2].delete(&dn("left")).unwrap();
                clients[0]
                    .rename(&format!("ou=x,{PEOPLE}"), "ou=x", Some(&format!("ou=y,{PEOPLE}")))
                    .unwrap();
                clients[2]
                    .rename(&format!("ou=y,{PEOPLE}"), "ou=y", Some(&format!("ou=x,{PEOPLE}")))
                    .unwrap();
            },
        );
        let taken = [format!("entry 2 1 text:{}", dn("gone")), format!("entry 2 3 text:{}", dn("left"))];
        let dump = wait_marks(&group, SUFFIX, &taken.each_ref().map(String::as_str));
        assert_eq!(marks(&dump, &dn("c")), ["dn 1 2 text:uid=b"]);
        let x = uuid_of(&dump, &format!("ou=x,ou=y,{PEOPLE}"));
        assert_eq!(marks(&dump, &format!("ou=y,{PEOPLE}")), [format!("dn 3 1 text:{x}")]);
        for server in &group.servers {
            assert_eq!(found(server, ANY).len(), 3, "on {}", server.name());
        }
        let ldif = format!("dn: {SUFFIX}\nchangetype: modify\ndelete: xmppSyncLost\n");
        group.servers[1].ldapmodify(SUFFIX, &ldif).unwrap();
        wait_marks(&group, SUFFIX, &[]);
        // Who gives it a name has decided.
        group.servers[2].ldap().unwrap().rename(&dn("c"), "uid=d", None).unwrap();
        wait_marks(&group, &dn("d"), &[]);
    }
}

fn uuid_of(dump: &Dump, dn: &str) -> String {
    String::from_utf8(dump[dn]["entryUUID"].first().unwrap().clone()).unwrap()
}

#[test]
fn one_filter_finds_every_kind_and_what_is_mended_is_found_no_more() {
    let unit = "ou=unit,dc=example,dc=com";
    let group = apart(
        true,
        |ldap| {
            add_person(ldap, "a");
            ldap.add(unit, &[("objectClass", "organizationalUnit"), ("ou", "unit")]).unwrap();
        },
        |clients| {
            clients[0].replace(&dn("a"), "sn", &["of a"]).unwrap();
            clients[1].replace(&dn("a"), "sn", &["of b"]).unwrap();
            add_person(&mut clients[0], "same");
            add_person(&mut clients[1], "same");
            clients[0].add(&format!("uid=child,{unit}"), &person("child")).unwrap();
            clients[1].delete(unit).unwrap();
        },
    );
    wait_marks(&group, &dn("a"), &["sn 1 2 text:of a"]);
    for server in &group.servers {
        assert_eq!(found(server, ANY).len(), 3, "on {}: {:?}", server.name(), found(server, ANY));
        let shown = ldapsearch(server);
        for line in ["xmppSyncLost: sn ", "xmppSyncConflict: displaced uid=same", "objectClass: glue"] {
            assert_eq!(shown.matches(line).count(), 1, "{line}\n{shown}");
        }
    }
    group.servers[2].ldap().unwrap().replace(&dn("a"), "sn", &["of both"]).unwrap();
    group.servers[1].ldap().unwrap().delete(&dn("same")).unwrap();
    group.servers[0].ldap().unwrap().delete(&format!("uid=child,{unit}")).unwrap();
    for server in &group.servers {
        let none = || match found(server, ANY) {
            all if all.is_empty() => Ok(()),
            all => Err(format!("{all:?}")),
        };
        wait_until(&format!("nothing is found on {}", server.name()), PATIENCE, none).unwrap();
    }
    let dump = settle(&group);
    assert!(dump.contains_key(&dn("same")) && !dump.contains_key(unit));
}

#[test]
fn a_mark_shows_a_value_only_to_those_who_may_read_the_attribute() {
    let rules = [
        "index xmppSyncLost,xmppSyncConflict pres",
        "access to attrs=userPassword by anonymous auth by * none",
        "access to * by * read",
    ];
    let database_lines = rules.iter().map(|line| (*line).to_owned()).collect();
    let group = group_with(GroupOptions { servers: 2, database_lines, ..GroupOptions::default() });
    for uid in ["open", "secret"] {
        add_person(&mut group.servers[0].ldap().unwrap(), uid);
    }
    settle(&group);
    let group = cut(group, true, |clients| {
        for (at, client) in clients.iter_mut().enumerate() {
            client.replace(&dn("secret"), "userPassword", &[["first", "second"][at]]).unwrap();
            client.replace(&dn("open"), "l", &[["first", "second"][at]]).unwrap();
        }
    });
    wait_marks(&group, &dn("secret"), &["userPassword 1 2 text:first"]);
    wait_marks(&group, &dn("open"), &["l 1 2 text:first"]);
    for server in &group.servers {
        let mut anybody = Ldap::bind(&server.uri(), "", "").unwrap();
        assert_eq!(anybody.values(&dn("open"), "xmppSyncLost").unwrap().len(), 1);
        assert_eq!(anybody.values(&dn("secret"), "xmppSyncLost").unwrap(), [""; 0]);
        for filter in ["(xmppSyncLost=*)", "(xmppSyncLost=*first)", "(!(xmppSyncLost=userPassword*))"] {
            let shown = anybody.search(SUFFIX, Scope::Subtree, filter, &["1.1"]).unwrap();
            assert!(shown.iter().all(|(found, _)| *found != dn("secret")), "{filter}: {shown:?}");
        }
    }
}

#[test]
fn what_slapd_itself_notes_is_not_marked() {
    let database_lines = vec!["lastbind on".to_owned()];
    let group = group_with(GroupOptions { servers: 2, database_lines, ..GroupOptions::default() });
    let mut ldap = group.servers[0].ldap().unwrap();
    for name in ["a", "b"] {
        add_person(&mut ldap, name);
        ldap.replace(&dn(name), "userPassword", &["secret"]).unwrap();
    }
    settle(&group);
    let servers: Vec<String> = group.servers.iter().map(Slapd::uri).collect();
    let group = cut(group, true, |clients| {
        let mut seen = Vec::new();
        for (uri, client) in servers.iter().zip(clients.iter_mut()) {
            // The time has seconds: those of the two are to differ.
            wait_until("another time of a bind is noted", PATIENCE, || {
                drop(Ldap::bind(uri, &dn("a"), "secret").unwrap());
                let noted = client.values(&dn("a"), "pwdLastSuccess").unwrap();
                if seen.contains(&noted) {
                    return Err(format!("{noted:?}"));
                }
                seen.push(noted);
                Ok(())
            })
            .unwrap();
            client.replace(&dn("a"), "l", &[uri]).unwrap();
        }
        drop(Ldap::bind(&servers[0], &dn("b"), "secret").unwrap());
        clients[1].delete(&dn("b")).unwrap();
    });
    wait_marks(&group, &dn("a"), &[&format!("l 1 2 text:{}", servers[0])]);
    for server in &group.servers {
        let marks = server.ldap().unwrap().values(SUFFIX, "xmppSyncLost").unwrap();
        assert!(marks.is_empty(), "{marks:?}");
    }
    let logs: String = group.servers.iter().map(Slapd::log).collect();
    assert!(logs.contains("values of pwdLastSuccess"), "{}", end_of(&group.servers[1].log()));
}

#[test]
fn a_server_that_is_killed_before_its_journal_knows_of_a_loss_has_marked_it() {
    let module = Some(failpoints_module_path().unwrap());
    let mut group = group_with(GroupOptions { servers: 2, module, ..GroupOptions::default() });
    add_person(&mut group.servers[0].ldap().unwrap(), "a");
    settle(&group);
    group.servers[1].set_environment(&[("XMPPSYNC_FAIL_AT", "applied:1")]);
    group.servers[1].restart().unwrap();
    wait_joined(&group.servers[1], PATIENCE);
    let mut group = cut(group, true, |clients| {
        clients[0].replace(&dn("a"), "l", &["of a"]).unwrap();
        clients[1].replace(&dn("a"), "l", &["of b"]).unwrap();
    });
    let status = group.servers[1].wait_end(PATIENCE).unwrap();
    assert!(!status.success(), "{status}");
    group.servers[1].set_environment(&[]);
    group.servers[1].start().unwrap();
    let dump = wait_marks(&group, &dn("a"), &["l 1 2 text:of a"]);
    assert!(dump[&dn("a")]["l"].contains(&b"of b"[..]));
}

#[test]
fn many_conflicts_at_once_leave_few_marks_and_equal_servers() {
    const ENTRIES: usize = 150;
    const WRITES: usize = 40;
    let group = apart(
        true,
        |ldap| {
            for number in 0..ENTRIES {
                add_person(ldap, &format!("p{number}"));
            }
        },
        |clients| {
            for client in &mut clients[..2] {
                for number in 0..ENTRIES {
                    client.replace(&dn(&format!("p{number}")), "l", &["here"]).unwrap();
                }
            }
            for number in 0..WRITES {
                let value = number.to_string();
                clients[0].modify(&dn("p0"), vec![plus("description", &[&value])]).unwrap();
            }
            clients[1].replace(&dn("p0"), "description", &["of b"]).unwrap();
            clients[1].replace(&dn("p1"), "l", &["there"]).unwrap();
        },
    );
    let last = format!("description 1 2 text:{}", WRITES - 1);
    let dump = wait_until("the marks are there", PATIENCE, || {
        let dump = settle(&group);
        let marks = marks(&dump, &dn("p0"));
        if marks.contains(&last) { Ok(dump) } else { Err(format!("{marks:?}")) }
    })
    .unwrap();
    assert_eq!(marks(&dump, &dn("p0")).len(), 32);
    assert_eq!(marks(&dump, &dn("p1")), ["l 1 2 text:here"]);
    assert_eq!(marks(&dump, &dn("p2")), [""; 0], "both wrote the same");
    for server in &group.servers {
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
}

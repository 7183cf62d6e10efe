//! Other overlays on the same database: what they write by themselves when a client does something.

use crate::PATIENCE;
use crate::meanwhile::{count, load};
use crate::steps::*;
use crate::transactions::Transaction;
use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;
use xmppsync_lab::{Group, GroupOptions, Ldap, SUFFIX, Slapd, XmppData, wait_until};

/// So many servers with these overlays, configured before ours or behind it.
fn group_beside(servers: usize, modules: &[&str], lines: &[&str], behind: bool) -> Group {
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let mut options = GroupOptions { servers, modules: own(modules), ..GroupOptions::default() };
    *(if behind { &mut options.overlay_lines } else { &mut options.database_lines }) = own(lines);
    group_with(options)
}

/// What the clients do while no server hears of another one, and then all together again: by late messages, or by asking for
/// what was missed.
fn apart(group: &mut Group, late: bool, meanwhile: impl FnOnce(&mut [Ldap])) {
    settle(group);
    let mut clients: Vec<Ldap> = group.servers.iter().map(|server| server.ldap().unwrap()).collect();
    if late {
        group.xmpp.pause().unwrap();
        meanwhile(&mut clients);
        group.xmpp.resume().unwrap();
    } else {
        group.xmpp.stop().unwrap();
        meanwhile(&mut clients);
        group.xmpp.start_again(XmppData::Keep).unwrap();
    }
    settle(group);
    for server in &group.servers {
        assert!(!server.log().contains("set aside"), "on {}: {}", server.name(), complaints(server));
    }
}

fn add_group(ldap: &mut Ldap, cn: &str, members: &[&str]) -> String {
    let dn = format!("cn={cn},{SUFFIX}");
    let mut attributes = vec![("objectClass", "groupOfNames"), ("cn", cn)];
    attributes.extend(members.iter().map(|member| ("member", *member)));
    ldap.add(&dn, &attributes).unwrap();
    dn
}

fn everywhere(group: &Group, dn: &str, attribute: &str, expected: &[&str]) {
    group.servers.iter().for_each(|server| wait_values(server, dn, attribute, expected));
}

const REFINT: [&str; 3] = ["overlay refint", "refint_attributes member", "refint_nothing cn=nobody"];

#[test]
fn what_refint_writes_for_a_client_travels_and_nobody_writes_it_again() {
    for behind in [false, true] {
        let mut group = group_beside(3, &["refint"], &REFINT, behind);
        let mut ldap = group.servers[0].ldap().unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|uid| add_person(&mut ldap, uid));
        let [team, other] = ["team", "other"].map(|cn| add_group(&mut ldap, cn, &[&a, &b, &c]));
        settle_smoothly(&group);
        ldap.delete(&a).unwrap();
        everywhere(&group, &team, "member", &[&b, &c]);
        everywhere(&group, &other, "member", &[&b, &c]);
        let e = b.replace("uid=b", "uid=e");
        group.servers[1].ldap().unwrap().rename(&b, "uid=e", None).unwrap();
        everywhere(&group, &team, "member", &[&c, &e]);
        let last = mark(&group, "last");
        settle_smoothly(&group);
        let last = entry_csn(&group.servers[0], &last);
        // Two groups each.
        assert_eq!(sent(&group, 0, &last), 2 + 4 + 2 + 3 + 1, "behind: {behind}");
        assert_eq!(sent(&group, 1, &last), 3, "behind: {behind}");
        assert_eq!(sent(&group, 2, &last), 0, "behind: {behind}");
        drop(ldap);
        for late in [true, false] {
            apart(&mut group, late, |clients| {
                clients[0].modify(&team, vec![plus("member", &[&d])]).unwrap();
                clients[1].delete(&d).unwrap();
                clients[1].modify(&other, vec![plus("member", &["cn=somebody"])]).unwrap();
                clients[2].modify(&other, vec![plus("member", &[&d])]).unwrap();
                clients[2].rename(&c, "uid=f", None).unwrap();
                let f = c.replace("uid=c", "uid=f");
                wait_until("refint has seen the rename", PATIENCE, || {
                    let members = clients[2].values(&team, "member").unwrap();
                    if members.contains(&f) { Ok(()) } else { Err(format!("{members:?}")) }
                })
                .unwrap();
                clients[0].modify(&team, vec![minus("member", &[&e])]).unwrap();
            });
            let mut ldap = group.servers[0].ldap().unwrap();
            // As it was, for the other way to come together.
            let f = c.replace("uid=c", "uid=f");
            ldap.rename(&f, "uid=c", None).unwrap();
            everywhere(&group, &team, "member", &[&c, &d]);
            ldap.modify(&team, vec![minus("member", &[&d]), plus("member", &[&e])]).unwrap();
            ldap.modify(&other, vec![set("member", &[&c, &e])]).unwrap();
            add_person(&mut ldap, "d");
        }
    }
}

#[test]
fn what_memberof_writes_for_a_client_travels_and_all_copies_stay_equal() {
    for behind in [false, true] {
        let mut group = group_beside(3, &["memberof"], &["overlay memberof", "memberof-refint TRUE"], behind);
        let mut ldap = group.servers[0].ldap().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|uid| add_person(&mut ldap, uid));
        let [team, other] = ["team", "other"].map(|cn| add_group(&mut ldap, cn, &["cn=nobody", &a]));
        everywhere(&group, &a, "memberOf", &[&other, &team]);
        for committed in [false, true] {
            let mut transaction = Transaction::begin(&mut ldap);
            transaction.modify(&team, plus("member", &[&c]));
            transaction.modify(&team, set("description", &["of a transaction"]));
            assert_eq!(transaction.end(committed), 0);
            let groups = [team.as_str()];
            everywhere(&group, &c, "memberOf", if committed { &groups } else { &[] });
        }
        ldap.modify(&team, vec![minus("member", &[&c])]).unwrap();
        drop(ldap);
        for late in [true, false] {
            apart(&mut group, late, |clients| {
                clients[0].modify(&team, vec![plus("member", &[&b])]).unwrap();
                clients[1].modify(&other, vec![plus("member", &[&b]), minus("member", &[&a])]).unwrap();
                clients[2].modify(&team, vec![plus("member", &[&c]), minus("member", &[&a])]).unwrap();
                clients[0].delete(&c).unwrap();
                add_person(&mut clients[0], "c");
                clients[2].replace(&a, "description", &["of c"]).unwrap();
            });
            everywhere(&group, &b, "memberOf", &[&other, &team]);
            everywhere(&group, &a, "memberOf", &[]);
            let mut ldap = group.servers[1].ldap().unwrap();
            ldap.replace(&team, "member", &["cn=nobody", &a]).unwrap();
            ldap.replace(&other, "member", &["cn=nobody", &a]).unwrap();
            everywhere(&group, &b, "memberOf", &[]);
            settle(&group);
        }
    }
}

/// A person below [`PEOPLE`] who can bind.
fn add_user(ldap: &mut Ldap, uid: &str) -> String {
    let dn = format!("uid={uid},{PEOPLE}");
    let mut attributes = person(uid);
    attributes.push(("userPassword", "right"));
    ldap.add(&dn, &attributes).unwrap();
    dn
}

fn binds(server: &Slapd, dn: &str, password: &str) -> bool {
    Ldap::bind(&server.uri(), dn, password).is_ok()
}

const POLICY: &str = "cn=policy,dc=example,dc=com";
const PPOLICY: [&str; 2] = ["overlay ppolicy", "ppolicy_default cn=policy,dc=example,dc=com"];

fn add_policy(ldap: &mut Ldap, more: &[(&str, &str)]) {
    let mut attributes = vec![
        ("objectClass", "device"),
        ("objectClass", "pwdPolicy"),
        ("cn", "policy"),
        ("pwdAttribute", "userPassword"),
    ];
    attributes.extend(more);
    ldap.add(POLICY, &attributes).unwrap();
}

fn failures(server: &Slapd, dn: &str) -> Vec<String> {
    server.ldap().unwrap().values(dn, "pwdFailureTime").unwrap()
}

#[test]
fn failed_binds_of_all_servers_count_and_a_lock_holds_on_all() {
    for behind in [false, true] {
        let mut group = group_beside(3, &["ppolicy"], &PPOLICY, behind);
        let mut ldap = group.servers[0].ldap().unwrap();
        add_policy(&mut ldap, &[("pwdMaxFailure", "5"), ("pwdLockout", "TRUE")]);
        let dn = add_user(&mut ldap, "user");
        drop(ldap);
        for late in [true, false] {
            let uris: Vec<String> = group.servers.iter().map(Slapd::uri).collect();
            let fail = |server: usize| assert!(Ldap::bind(&uris[server], &dn, "wrong").is_err());
            apart(&mut group, late, |clients| {
                [0, 1, 0, 1].into_iter().for_each(fail);
                clients[2].replace(&dn, "description", &["of c"]).unwrap();
            });
            let seen = failures(&group.servers[2], &dn);
            assert_eq!(seen.len(), 4, "{seen:?}");
            everywhere(&group, &dn, "pwdAccountLockedTime", &[]);
            // The fifth, wherever it is.
            fail(2);
            group.servers.iter().for_each(|server| wait_locked(server, &dn, true));
            settle(&group);
            assert!(group.servers.iter().all(|server| !binds(server, &dn, "right")));
            // A password that is set by somebody else ends that.
            let mut ldap = group.servers[1].ldap().unwrap();
            ldap.replace(&dn, "userPassword", &["new"]).unwrap();
            group.servers.iter().for_each(|server| wait_locked(server, &dn, false));
            everywhere(&group, &dn, "pwdFailureTime", &[]);
            settle(&group);
            assert!(group.servers.iter().all(|server| binds(server, &dn, "new")));
            ldap.replace(&dn, "userPassword", &["right"]).unwrap();
            everywhere(&group, &dn, "userPassword", &["right"]);
            drop(ldap);
            // Two locks.
            apart(&mut group, late, |clients| {
                [0, 0, 0, 0, 0, 1, 1, 1, 1, 1].into_iter().for_each(fail);
                clients[2].replace(&dn, "title", &["of c"]).unwrap();
            });
            let locked = group.servers[0].ldap().unwrap().values(&dn, "pwdAccountLockedTime").unwrap();
            assert_eq!((failures(&group.servers[2], &dn).len(), locked.len()), (10, 1));
            group.servers[2].ldap().unwrap().replace(&dn, "userPassword", &["right"]).unwrap();
            everywhere(&group, &dn, "pwdFailureTime", &[]);
        }
    }
}

fn wait_locked(server: &Slapd, dn: &str, locked: bool) {
    let mut ldap = server.ldap().unwrap();
    wait_until("locked or not", PATIENCE, || {
        let values = ldap.values(dn, "pwdAccountLockedTime").unwrap();
        if values.is_empty() != locked { Ok(()) } else { Err(format!("{values:?} on {}", server.name())) }
    })
    .unwrap();
}

const BIND_LINES: [&str; 4] = ["lastbind on", "overlay lastbind", PPOLICY[0], PPOLICY[1]];

/// slapd's own directive, the overlay, and ppolicy, all at once.
fn group_that_notes_binds(servers: usize, behind: bool) -> (Group, String) {
    let group = group_beside(servers, &["lastbind", "ppolicy"], &BIND_LINES, behind);
    let mut ldap = group.servers[0].ldap().unwrap();
    add_policy(&mut ldap, &[("pwdMaxRecordedFailure", "5")]);
    let dn = add_user(&mut ldap, "user");
    settle_smoothly(&group);
    (group, dn)
}

#[test]
fn what_a_bind_notes_takes_nothing_from_what_users_write() {
    let (mut group, dn) = group_that_notes_binds(3, true);
    let [gone, moved, both] =
        ["gone", "moved", "both"].map(|uid| add_user(&mut group.servers[0].ldap().unwrap(), uid));
    for late in [true, false] {
        let uris: Vec<String> = group.servers.iter().map(Slapd::uri).collect();
        let bind = |server: usize, dn: &str| drop(Ldap::bind(&uris[server], dn, "right").unwrap());
        let fail = |server: usize, dn: &str| assert!(Ldap::bind(&uris[server], dn, "wrong").is_err());
        apart(&mut group, late, |clients| {
            // User data, and on another server something that is noted before and after it.
            bind(0, &dn);
            clients[1].modify(&dn, vec![set("description", &["of b"]), set("title", &["of b"])]).unwrap();
            clients[2].replace(&dn, "title", &["of c"]).unwrap();
            fail(0, &dn);
            bind(2, &dn);
            clients[1].rename(&moved, "uid=elsewhere", None).unwrap();
            bind(0, &moved);
            clients[1].delete(&gone).unwrap();
            bind(0, &gone);
            bind(0, &both);
            bind(1, &both);
        });
        for server in &group.servers {
            let mut ldap = server.ldap().unwrap();
            assert_eq!(ldap.values(&dn, "description").unwrap(), ["of b"]);
            assert_eq!(ldap.values(&dn, "title").unwrap(), ["of c"]);
            assert_eq!(ldap.entry(&gone).unwrap(), None);
            let moved = moved.replace("uid=moved", "uid=elsewhere");
            for (dn, attribute) in
                [(&dn, "pwdLastSuccess"), (&moved, "authTimestamp"), (&both, "pwdLastSuccess")]
            {
                assert_eq!(ldap.values(dn, attribute).unwrap().len(), 1, "{attribute} of {dn}");
            }
        }
        let mut ldap = group.servers[1].ldap().unwrap();
        ldap.rename(&moved.replace("uid=moved", "uid=elsewhere"), "uid=moved", None).unwrap();
        add_user(&mut ldap, "gone");
    }
}

#[test]
fn many_binds_become_few_changes() {
    let (group, dn) = group_that_notes_binds(2, false);
    let other = add_user(&mut group.servers[0].ldap().unwrap(), "other");
    let before = sent(&group, 0, &entry_csn(&group.servers[0], &other));
    let begin = Instant::now();
    let uri = group.servers[0].uri();
    thread::scope(|scope| {
        for (dn, password) in [(&dn, "right"), (&dn, "right"), (&other, "wrong"), (&other, "wrong")] {
            let uri = &uri;
            scope.spawn(move || {
                for _ in 0..BINDS / 4 {
                    assert_eq!(Ldap::bind(uri, dn, password).is_ok(), password == "right");
                }
            });
        }
    });
    settle_smoothly(&group);
    let seconds = begin.elapsed().as_secs();
    assert_eq!(failures(&group.servers[1], &other).len(), 5, "ppolicy keeps so many");
    let csns = [&dn, &other].map(|dn| entry_csn(&group.servers[0], dn));
    let changes = sent(&group, 0, csns.iter().max().unwrap()) - before;
    eprintln!("{BINDS} binds in {:?}: {changes} changes", begin.elapsed());
    // One of each entry in a second, and the first one.
    assert!(changes <= 2 * (seconds + 2), "{changes} changes in {seconds} s");
}

const BINDS: usize = 1_000;

#[test]
fn a_bind_that_is_held_back_survives_a_stop_and_a_crash() {
    let (mut group, dn) = group_that_notes_binds(2, false);
    for crash in [false, true] {
        // The first goes at once, so that the next ones wait.
        for _ in 0..3 {
            assert!(binds(&group.servers[0], &dn, "right") && !binds(&group.servers[0], &dn, "wrong"));
        }
        let here = entry_csn(&group.servers[0], &dn);
        if crash {
            group.servers[0].kill9().unwrap();
        } else {
            group.servers[0].stop().unwrap();
            wait_values(&group.servers[1], &dn, "entryCSN", &[&here]);
        }
        group.servers[0].start().unwrap();
        wait_values(&group.servers[1], &dn, "entryCSN", &[&here]);
        settle(&group);
    }
}

#[test]
fn unique_and_constraint_bind_clients_and_what_was_right_on_its_server_holds_on_all() {
    let lines = [
        "overlay unique",
        "unique_uri ldap:///?mail?sub",
        "overlay constraint",
        "constraint_attribute description count 1",
    ];
    for behind in [false, true] {
        let mut group = group_beside(2, &["unique", "constraint"], &lines, behind);
        let mut ldap = group.servers[0].ldap().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|uid| add_person(&mut ldap, uid));
        drop(ldap);
        apart(&mut group, !behind, |clients| {
            clients[0].replace(&a, "mail", &["same@example.com"]).unwrap();
            clients[1].replace(&b, "mail", &["same@example.com"]).unwrap();
            clients[0].modify(&c, vec![plus("description", &["one"])]).unwrap();
            clients[1].modify(&c, vec![plus("description", &["two"])]).unwrap();
        });
        everywhere(&group, &a, "mail", &["same@example.com"]);
        everywhere(&group, &b, "mail", &["same@example.com"]);
        everywhere(&group, &c, "description", &["one", "two"]);
        for server in &group.servers {
            let mut ldap = server.ldap().unwrap();
            ldap.replace(&c, "mail", &["same@example.com"]).unwrap_err();
            ldap.modify(&c, vec![plus("description", &["three"])]).unwrap_err();
        }
        // A client mends it.
        let mut ldap = group.servers[1].ldap().unwrap();
        ldap.replace(&b, "mail", &["other@example.com"]).unwrap();
        ldap.replace(&c, "description", &["one"]).unwrap();
        settle(&group);
    }
}

/// Overlays that show clients more than is stored.
#[test]
fn an_initial_load_brings_what_is_stored_and_not_what_overlays_show() {
    for behind in [false, true] {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let lines = [
            "overlay collect",
            "collectinfo ou=people,dc=example,dc=com l",
            "overlay dynlist",
            "dynlist-attrset groupOfURLs memberURL member",
        ];
        let mut options =
            GroupOptions { servers: 2, modules: own(&["collect", "dynlist"]), ..GroupOptions::default() };
        options.global_lines.push("include /etc/ldap/schema/dyngroup.schema".to_owned());
        *(if behind { &mut options.overlay_lines } else { &mut options.database_lines }) = own(&lines);
        let mut group = Group::prepare(options).unwrap();
        group.servers[0].start().unwrap();
        load(&group.servers[0]);
        let mut ldap = group.servers[0].ldap().unwrap();
        ldap.replace(PEOPLE, "l", &["here"]).unwrap();
        let dn = add_person(&mut ldap, "one");
        let dynamic = format!("cn=dynamic,{SUFFIX}");
        let url = format!("ldap:///{PEOPLE}??sub?(objectClass=person)");
        ldap.add(&dynamic, &[("objectClass", "groupOfURLs"), ("cn", "dynamic"), ("memberURL", &url)])
            .unwrap();
        group.start().unwrap();
        settle_smoothly(&group);
        let [here, there] = [0, 1].map(|server| stored(&group.servers[server]));
        assert_eq!(here, there, "behind: {behind}");
        assert!(!there[&format!("dn: {dn}")].contains("l: here"), "behind: {behind}");
    }
}

const WARNING: &str = "stands before overlay xmppsync";

/// Two servers, of which the first has rwm. It is loaded, and the second one is empty.
fn group_with_rwm(behind: bool, directory: bool) -> Group {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    let mut config = group.config(0).unwrap();
    config.modules.push("rwm".to_owned());
    let database = &mut config.databases[0];
    let lines = if behind { &mut database.overlay_lines } else { &mut database.lines };
    let rwm = [
        "overlay rwm",
        "rwm-map attribute title description",
        "rwm-map attribute employeeNumber uid",
        "rwm-suffixmassage ou=virtual,dc=example,dc=com ou=people,dc=example,dc=com",
    ];
    lines.extend(rwm.map(str::to_owned));
    group.servers[0].set_config(config).unwrap();
    if directory {
        group.servers[0].use_config_directory().unwrap();
    }
    group.servers[0].start().unwrap();
    load(&group.servers[0]);
    group
}

#[test]
fn names_that_rwm_gives_clients_do_not_travel() {
    let mut group = group_with_rwm(true, false);
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_person(&mut ldap, "one");
    ldap.replace(&dn, "title", &["loaded"]).unwrap();
    group.start().unwrap();
    wait_values(&group.servers[1], &dn, "description", &["loaded"]);
    ldap.replace(&dn, "title", &["sent"]).unwrap();
    wait_values(&group.servers[1], &dn, "description", &["sent"]);
    group.servers[1].ldap().unwrap().replace(&dn, "description", &["of the peer"]).unwrap();
    wait_values(&group.servers[0], &dn, "title", &["of the peer"]);
    // Names; of those rwm changes the suffix only.
    let at = |uid: &str, ou: &str| format!("employeeNumber={uid},ou={ou},{SUFFIX}");
    let attributes = [("objectClass", "inetOrgPerson"), ("employeeNumber", "x"), ("cn", "x"), ("sn", "x")];
    ldap.add(&at("x", "virtual"), &attributes).unwrap();
    ldap.rename(&at("x", "virtual"), "employeeNumber=y", None).unwrap();
    wait_entry(&group.servers[1], &at("y", "people"), true);
    let moved = format!("employeeNumber=y,{SUFFIX}");
    ldap.rename(&at("y", "virtual"), "employeeNumber=y", Some(SUFFIX)).unwrap();
    wait_entry(&group.servers[1], &moved, true);
    // The entry comes whole.
    group.servers[1].stop().unwrap();
    let change = format!("dn: {dn}\nchangetype: modify\nreplace: sn\nsn: Offline\n");
    group.servers[1].slapmodify(SUFFIX, &change, &[]).unwrap();
    group.servers[1].start().unwrap();
    wait_values(&group.servers[0], &dn, "sn", &["Offline"]);
    ldap.delete(&moved).unwrap();
    wait_entry(&group.servers[1], &moved, false);
    let [here, there] = [0, 1].map(|server| {
        let entries = stored(&group.servers[server]).into_values();
        entries.map(|entry| entry.lines().map(str::to_owned).collect::<BTreeSet<_>>()).collect::<Vec<_>>()
    });
    assert_eq!(here, there);
    assert_eq!(complaints(&group.servers[1]), "");
    assert_eq!(count(&group.servers[0].log(), WARNING), 0);
}

const CHANGE: &str = "dn: olcOverlay={1}xmppsync,olcDatabase={1}mdb,cn=config\nchangetype: modify\n\
                      replace: olcXmppSyncRetention\nolcXmppSyncRetention: 2d\n";

#[test]
fn an_overlay_in_a_wrong_place_is_a_warning() {
    for directory in [false, true] {
        let mut group = group_with_rwm(false, directory);
        for _ in 0..2 {
            let server = &group.servers[0];
            let line = server.wait_log(WARNING, PATIENCE).unwrap();
            assert!(line.contains("overlay rwm") && line.contains(SUFFIX), "{line}");
            // Also where the database is opened again.
            server.ldapmodify_config(CHANGE).unwrap();
            assert_eq!(count(&server.run_log(), WARNING), 1);
            if !directory {
                break;
            }
            group.servers[0].restart().unwrap();
        }
    }
}

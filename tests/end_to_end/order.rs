//! Many writes: in their order, from everywhere, past what goes wrong.

use crate::PATIENCE;
use crate::steps::*;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use xmppsync_lab::{Group, GroupOptions, SUFFIX, wait_until};

fn fast(servers: usize) -> GroupOptions {
    GroupOptions { servers, database_lines: vec!["dbnosync".to_owned()], ..GroupOptions::default() }
}

fn unit(name: &str) -> Vec<(&str, &str)> {
    vec![("objectClass", "organizationalUnit"), ("ou", name)]
}

#[test]
fn changes_that_depend_on_those_of_other_clients_leave_in_commit_order() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 60;
    let group = group_with(fast(3));
    let server = &group.servers[0];
    thread::scope(|scope| {
        // Each client works below what the one before it has just been told is written.
        let (first, mut work) = mpsc::channel::<String>();
        for client in 0..CLIENTS {
            let (done, next) = mpsc::channel();
            let work = std::mem::replace(&mut work, next);
            scope.spawn(move || {
                let mut ldap = server.ldap().unwrap();
                for parent in work {
                    let name = format!("unit{client}");
                    let dn = format!("ou={name},{parent}");
                    ldap.add(&dn, &unit(&name)).unwrap();
                    ldap.replace(&parent, "description", &[&dn]).unwrap();
                    let leaf = format!("ou=leaf,{dn}");
                    ldap.add(&leaf, &unit("leaf")).unwrap();
                    ldap.replace(&leaf, "l", &["here"]).unwrap();
                    ldap.rename(&leaf, "ou=moved", Some(&parent)).unwrap();
                    ldap.delete(&format!("ou=moved,{parent}")).unwrap();
                    // Nobody listens to the last one.
                    let _ = done.send(dn);
                }
            });
        }
        drop(work);
        let mut ldap = server.ldap().unwrap();
        for round in 0..ROUNDS {
            let dn = format!("ou=round{round},{SUFFIX}");
            ldap.add(&dn, &unit(&format!("round{round}"))).unwrap();
            first.send(dn).unwrap();
        }
        drop(first);
    });
    assert_eq!(settle_smoothly(&group).len(), 2 + ROUNDS * (1 + CLIENTS));
}

#[test]
fn writes_on_all_three_servers_at_once_end_equal() {
    const ENTRIES: usize = 150;
    let group = group_with(fast(3));
    thread::scope(|scope| {
        for (number, server) in group.servers.iter().enumerate() {
            scope.spawn(move || {
                let mut ldap = server.ldap().unwrap();
                let base = format!("ou=of {},{SUFFIX}", server.name());
                ldap.add(&base, &unit(&format!("of {}", server.name()))).unwrap();
                for entry in 0..ENTRIES {
                    let uid = format!("{}{entry}", server.name());
                    let dn = format!("uid={uid},{base}");
                    ldap.add(&dn, &person(&uid)).unwrap();
                    ldap.modify(&dn, vec![plus("mail", &["a@x", "b@x"]), set("sn", &[&uid])]).unwrap();
                    match entry % 3 {
                        0 => ldap.rename(&dn, &format!("uid={uid}x"), Some(PEOPLE)).unwrap(),
                        1 => ldap.modify(&dn, vec![minus("mail", &["a@x"])]).unwrap(),
                        _ if number == 0 => ldap.delete(&dn).unwrap(),
                        _ => {}
                    }
                }
            });
        }
    });
    let dump = settle_smoothly(&group);
    assert_eq!(dump.len(), 2 + 3 + 3 * ENTRIES - ENTRIES / 3);
}

#[test]
fn a_burst_of_5000_modifies_by_4_clients_converges() {
    const CLIENTS: usize = 4;
    const MODIFIES: usize = 1_250;
    const ENTRIES: usize = 50;
    let group = group_with(fast(3));
    let server = &group.servers[0];
    let begin = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut ldap = server.ldap().unwrap();
                let dns: Vec<String> =
                    (0..ENTRIES).map(|entry| add_person(&mut ldap, &format!("c{client}e{entry}"))).collect();
                for number in 0..MODIFIES {
                    let value = format!("{number}");
                    let changes = vec![set("description", &[&value]), set("title", &[&value])];
                    ldap.modify(&dns[number % ENTRIES], changes).unwrap();
                }
            });
        }
    });
    let written = begin.elapsed();
    let dump = settle_smoothly(&group);
    let equal = begin.elapsed();
    let changes = (CLIENTS * (MODIFIES + ENTRIES)) as f64;
    println!(
        "{changes} changes written in {written:.1?} ({:.0}/s), equal on all three after {equal:.1?} ({:.0}/s)",
        changes / written.as_secs_f64(),
        changes / equal.as_secs_f64()
    );
    assert_eq!(dump.len(), 2 + CLIENTS * ENTRIES);
    let last = format!("uid=c3e{},{PEOPLE}", (MODIFIES - 1) % ENTRIES);
    assert_eq!(dump[&last]["title"], [(MODIFIES - 1).to_string().into_bytes()].into());
}

#[test]
fn writes_wait_for_no_network_and_arrive_when_it_is_back() {
    const CLIENTS: usize = 4;
    const WRITES: usize = 750;
    // Whatever a write would wait for on the network is longer than this.
    const SLOW: Duration = Duration::from_secs(10);
    let group = group_with(fast(3));
    group.xmpp.pause().unwrap();
    let begin = Instant::now();
    let slowest = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                // Two on each of two servers.
                let server = &group.servers[client / 2];
                scope.spawn(move || {
                    let mut ldap = server.ldap().unwrap();
                    let mut slowest = Duration::ZERO;
                    for number in 0..WRITES / 2 {
                        let write = Instant::now();
                        let dn = add_person(&mut ldap, &format!("c{client}n{number}"));
                        ldap.replace(&dn, "description", &["written in the dark"]).unwrap();
                        slowest = slowest.max(write.elapsed());
                    }
                    slowest
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).max().unwrap()
    });
    println!(
        "{} writes without a network in {:.1?}, the slowest two {slowest:.1?}",
        CLIENTS * WRITES,
        begin.elapsed()
    );
    assert!(slowest < SLOW, "two writes took {slowest:?}");
    let elsewhere =
        group.servers[2].ldap().unwrap().search(PEOPLE, scope_below(), "(uid=*)", &["1.1"]).unwrap();
    assert_eq!(elsewhere.len(), 0, "the network was not down");
    group.xmpp.resume().unwrap();
    let dump = settle(&group);
    assert_eq!(dump.len(), 2 + CLIENTS * WRITES / 2);
    for server in &group.servers {
        assert!(!server.log().contains("set aside"), "{}", complaints(server));
    }
}

fn scope_below() -> xmppsync_lab::ldap3::Scope {
    xmppsync_lab::ldap3::Scope::OneLevel
}

/// An object class that two servers know differently: the second one wants more of an entry.
fn badge(attributes: &str) -> String {
    format!(
        "objectclass ( 1.3.6.1.4.1.32473.1.1 NAME 'badge' SUP top AUXILIARY {attributes} ( employeeNumber ) )"
    )
}

#[test]
fn what_cannot_be_applied_is_set_aside_with_its_reason_and_stops_nothing() {
    let mut group = Group::prepare(fast(2)).unwrap();
    let mut config = group.config(0).unwrap();
    config.global_lines.push(badge("MAY"));
    group.servers[0].set_config(config).unwrap();
    let mut config = group.config(1).unwrap();
    config.global_lines.push(badge("MUST"));
    config.schemas.retain(|schema| schema != "nis");
    group.servers[1].set_config(config).unwrap();
    group.start().unwrap();
    populate(&group);
    let (writer, peer) = (&group.servers[0], &group.servers[1]);
    let mut ldap = writer.ldap().unwrap();
    // In one go, so that the good and the bad share transactions.
    group.xmpp.pause().unwrap();
    let mut good = Vec::new();
    for number in 0..40 {
        good.push(format!("cn=good{number},{PEOPLE}"));
        let name = format!("good{number}");
        let attributes =
            [("objectClass", "person"), ("cn", &name), ("sn", "x"), ("description", "first used here")];
        ldap.add(&good[number], &attributes).unwrap();
        match number {
            // The peer knows nothing of posixAccount; then it lacks the entry.
            10 => {
                let dn = add_person(&mut ldap, "posix");
                ldap.replace(&dn, "description", &["set aside"]).unwrap();
            }
            // Only the database itself finds out that the entry is not complete.
            20 => ldap.modify(&good[5], vec![plus("objectClass", &["badge"])]).unwrap(),
            30 => ldap
                .modify(&good[6], vec![plus("objectClass", &["badge"]), plus("employeeNumber", &["1"])])
                .unwrap(),
            _ => {}
        }
    }
    ldap.modify(&good[39], vec![set("telephoneNumber", &["1"]), set("seeAlso", &[&good[0]])]).unwrap();
    group.xmpp.resume().unwrap();
    good.iter().for_each(|dn| wait_entry(peer, dn, true));
    wait_values(peer, &good[39], "telephoneNumber", &["1"]);
    wait_values(peer, &good[6], "employeeNumber", &["1"]);
    wait_values(peer, &good[5], "objectClass", &["person"]);
    wait_entry(peer, &format!("uid=posix,{PEOPLE}"), false);
    for (what, reason) in [
        ("add of \"uid=posix", "attribute type undefined"),
        ("modify of \"cn=good5", "object class 'badge' requires attribute 'employeeNumber'"),
    ] {
        let line = peer.wait_log(what, PATIENCE).unwrap();
        assert!(line.contains(reason) && line.contains("set aside"), "{line}");
    }
    let line = peer.wait_log("modify of \"uid=posix", PATIENCE).unwrap();
    assert!(line.contains("it waits for the entry"), "{line}");
    assert_eq!(peer.log().matches("set aside").count(), 2, "{}", complaints(peer));
    // The vector moves past it.
    let csn = writer.ldap().unwrap().values(SUFFIX, "contextCSN").unwrap();
    wait_until("the peer has come as far", PATIENCE, || {
        let seen = peer.ldap().unwrap().values(SUFFIX, "contextCSN").unwrap();
        if seen == csn { Ok(()) } else { Err(format!("{seen:?}, not {csn:?}")) }
    })
    .unwrap();
    // Nothing that the two differ in is left after that.
    ldap.delete(&format!("uid=posix,{PEOPLE}")).unwrap();
    ldap.modify(&good[5], vec![minus("objectClass", &["badge"])]).unwrap();
    settle(&group);
}

/// An attribute of which the peer takes one value only.
fn nickname(single: &str) -> [String; 2] {
    let syntax = "1.3.6.1.4.1.1466.115.121.1.15";
    [
        format!(
            "attributetype ( 1.3.6.1.4.1.32473.1.2 NAME 'nickname' EQUALITY caseIgnoreMatch SYNTAX {syntax} {single} )"
        ),
        "objectclass ( 1.3.6.1.4.1.32473.1.3 NAME 'nicknamed' SUP top AUXILIARY MAY ( nickname ) )"
            .to_owned(),
    ]
}

/// slapd's own overlays judge what a client asks for, and take what is replicated as it is (ITS#9953): another copy
/// has let it pass, and the copies have to stay equal. What the database itself cannot hold is set aside.
#[test]
fn a_constraint_of_the_schema_sets_a_change_aside_and_one_of_an_overlay_binds_clients_only() {
    let mut group = Group::prepare(fast(2)).unwrap();
    let mut config = group.config(0).unwrap();
    config.global_lines.extend(nickname(""));
    group.servers[0].set_config(config).unwrap();
    let mut config = group.config(1).unwrap();
    config.modules.push("constraint".to_owned());
    config.global_lines.extend(nickname("SINGLE-VALUE"));
    let constraint = ["overlay constraint", "constraint_attribute description regex ^[a-z]*$"];
    config.databases[0].overlay_lines.extend(constraint.map(str::to_owned));
    group.servers[1].set_config(config).unwrap();
    group.start().unwrap();
    populate(&group);
    let (writer, peer) = (&group.servers[0], &group.servers[1]);
    let mut ldap = writer.ldap().unwrap();
    let dn = add_person(&mut ldap, "constrained");
    wait_entry(peer, &dn, true);

    let refused = peer.ldap().unwrap().replace(&dn, "description", &["42"]).unwrap_err().to_string();
    assert!(refused.contains("constraint"), "{refused}");
    ldap.replace(&dn, "description", &["42"]).unwrap();
    wait_values(peer, &dn, "description", &["42"]);

    let classes = plus("objectClass", &["nicknamed"]);
    ldap.modify(&dn, vec![classes, set("nickname", &["one"])]).unwrap();
    wait_values(peer, &dn, "nickname", &["one"]);
    ldap.modify(&dn, vec![plus("nickname", &["two"])]).unwrap();
    ldap.replace(&dn, "title", &["behind it"]).unwrap();
    wait_values(peer, &dn, "title", &["behind it"]);
    let line = peer.wait_log("set aside", PATIENCE).unwrap();
    assert!(line.contains("modify of \"uid=constrained") && line.contains("multiple values"), "{line}");
    wait_values(peer, &dn, "nickname", &["one"]);
    ldap.modify(&dn, vec![set("nickname", &["one"])]).unwrap();
    settle(&group);
    assert_eq!(peer.log().matches("set aside").count(), 1, "{}", complaints(peer));
}

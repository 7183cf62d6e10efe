//! slapd stops at once whatever goes on, and comes back.

use crate::PATIENCE;
use crate::meanwhile::{
    Writer, assert_arrives, assert_travels, count, end_of, load, load_offline, wait_for_occupants,
    wait_for_thread, wait_joined, write,
};
use std::time::Duration;
use xmppsync_lab::{Group, GroupOptions, SUFFIX, Slapd, XmppData, ldif, wait_for};

/// slapd itself needs a part of it.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Stops it and looks at how it ended.
fn assert_stops(slapd: &mut Slapd, when: &str) {
    wait_for_thread(slapd);
    let stopped = slapd.stop().unwrap();
    let log = slapd.run_log();
    assert!(stopped.status.success(), "{when}: {}\n{}", stopped.status, end_of(&log));
    assert!(stopped.took < STOP_MAX, "{when}: it took {:?}\n{}", stopped.took, end_of(&log));
    assert_eq!(count(&log, "thread of the XMPP connections hangs"), 0, "{when}: a thread was left");
    assert_eq!(count(&log, "bug:"), 0, "{when}: {}", end_of(&log));
}

#[test]
fn slapd_stops_in_two_seconds_with_its_thread_whatever_the_xmpp_server_does() {
    let suffixes = [SUFFIX, "dc=example,dc=org", "dc=example,dc=net"].map(str::to_owned).to_vec();
    let mut group =
        Group::with(GroupOptions { servers: 2, suffixes: suffixes.clone(), ..GroupOptions::default() })
            .unwrap();
    for suffix in &suffixes {
        group.servers[0].ldapmodify(suffix, &ldif::text(&ldif::directory(suffix, 3))).unwrap();
        group.servers[0].ldap_of(suffix).unwrap().replace(suffix, "description", &["0"]).unwrap();
    }
    assert_travels(&group.servers[0], &group.servers[1], "at first");
    assert_stops(&mut group.servers[0], "idle");

    group.servers[0].start().unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "started again");
    group.xmpp.pause().unwrap();
    // Something waits in every database that cannot be sent.
    for suffix in &suffixes {
        group.servers[0].ldap_of(suffix).unwrap().replace(suffix, "description", &["unsent"]).unwrap();
    }
    assert_stops(&mut group.servers[0], "the XMPP server hangs");
    group.servers[0].start().unwrap();
    wait_for_thread(&group.servers[0]);
    assert_stops(&mut group.servers[0], "the XMPP server hangs during the login");
    group.xmpp.resume().unwrap();

    group.xmpp.stop().unwrap();
    group.servers[0].start().unwrap();
    group.servers[0].wait_log("no connection to the XMPP server", PATIENCE).unwrap();
    assert_stops(&mut group.servers[0], "the XMPP server is down");
    group.xmpp.start_again(XmppData::Keep).unwrap();
    wait_for_occupants(&group, &["b-2"]);
    group.servers[0].start().unwrap();
    wait_joined(&group.servers[0], PATIENCE);
    assert_travels(&group.servers[0], &group.servers[1], "at the end");
    assert_stops(&mut group.servers[1], "idle, the other one");
}

#[test]
fn slapd_stops_in_two_seconds_while_it_sends_and_while_it_receives() {
    let mut group = Group::with(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    let writers: Vec<_> = (0..4).map(|number| spawn_writer(&group.servers[0], number)).collect();
    wait_for_entry(&group.servers[1], "0-100");
    assert_stops(&mut group.servers[1], "receiving");
    group.servers[1].start().unwrap();
    wait_joined(&group.servers[1], PATIENCE);
    assert_stops(&mut group.servers[0], "sending");
    for writer in writers {
        // Its connection ended with the server.
        assert!(writer.join().unwrap() > 0);
    }
    group.servers[0].start().unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "after the load");
    assert_travels(&group.servers[1], &group.servers[0], "and back");
}

/// Adds entries until the server stops; returns how many.
fn spawn_writer(slapd: &Slapd, number: usize) -> std::thread::JoinHandle<u64> {
    let mut ldap = slapd.ldap().unwrap();
    std::thread::spawn(move || {
        (0..)
            .take_while(|entry| {
                let cn = format!("{number}-{entry}");
                ldap.add(&format!("cn={cn},{SUFFIX}"), &[("objectClass", "device"), ("cn", &cn)]).is_ok()
            })
            .count() as u64
    })
}

/// Waits until an entry of the writers has come.
fn wait_for_entry(slapd: &Slapd, cn: &str) {
    let mut ldap = slapd.ldap().unwrap();
    let dn = format!("cn={cn},{SUFFIX}");
    wait_for("entries arrive", PATIENCE, || ldap.entry(&dn).unwrap().is_some()).unwrap();
}

#[test]
fn twenty_restarts_in_a_row_lose_nothing_and_leave_no_ghost() {
    let mut group = Group::prepare(GroupOptions { servers: 3, ..GroupOptions::default() }).unwrap();
    load_offline(&group);
    group.start().unwrap();
    wait_for_occupants(&group, &["a-1", "b-2", "c-3"]);
    let writers: Vec<_> = group.servers[1..].iter().map(Writer::start).collect();
    for number in 0..20 {
        let (restarted, others) = group.servers.split_first_mut().unwrap();
        let value = format!("before restart {number}");
        wait_joined(restarted, PATIENCE);
        write(&mut restarted.ldap().unwrap(), &value);
        assert_stops(restarted, &value);
        restarted.start().unwrap();
        writers.iter().for_each(|writer| writer.wait_for_more(10));
        others.iter().for_each(|other| assert_arrives(other, &value));
    }
    writers.into_iter().for_each(Writer::stop);
    assert_travels(&group.servers[0], &group.servers[1], "after the restarts");
    assert_travels(&group.servers[2], &group.servers[0], "and back");
    group.assert_equal(PATIENCE).unwrap();
    wait_for_occupants(&group, &["a-1", "b-2", "c-3"]);
    let rooms = group.xmpp.api("muc_online_rooms", r#"{"service":"global"}"#).unwrap();
    assert_eq!(rooms.matches('@').count(), 1, "{rooms}");
    for server in &group.servers {
        let log = server.log();
        assert_eq!(count(&log, "set aside"), 0, "{}:\n{}", server.name(), end_of(&log));
    }
}

#[test]
fn a_database_loaded_by_slapadd_is_changed_everywhere() {
    let mut group = Group::prepare(GroupOptions { servers: 3, ..GroupOptions::default() }).unwrap();
    load_offline(&group);
    let slapcat = |server: &Slapd| server.slapcat(SUFFIX).unwrap();
    let loaded = slapcat(&group.servers[0]);
    assert!(group.servers.iter().all(|server| slapcat(server) == loaded), "slapadd does not load the same");
    group.start().unwrap();
    for (number, server) in group.servers.iter().enumerate() {
        let value = format!("changed on {number}");
        write(&mut server.ldap().unwrap(), &value);
        group.servers.iter().for_each(|other| assert_arrives(other, &value));
    }
    group.assert_equal(PATIENCE).unwrap();
    let text = slapcat(&group.servers[2]);
    assert!(text.contains("description: changed on 2"), "slapcat of a running server: {text}");
}

//! Beside slapd's own replication, and after it.

use crate::PATIENCE;
use crate::meanwhile::{count, end_of};
use crate::steps::{PEOPLE, add_person, complaints, group_with, set, settle, wait_entry, wait_together};
use xmppsync_lab::{
    ContextCsn, Dump, Group, GroupOptions, Replication, SUFFIX, Slapd, SlapdConfig, SlapdOptions,
    assert_equal, assert_equal_with, difference, dump, ldif, module_path, wait_until,
};

/// A consumer without the overlay, downstream of the server. It knows the attributes that tell of conflicts.
fn consumer(group: &Group, provider: &Slapd) -> Slapd {
    let mut config = SlapdConfig { server_id: None, ..SlapdConfig::default() };
    config.modules = vec![module_path().unwrap().display().to_string()];
    let database = &mut config.databases[0];
    database.overlay_lines = vec![format!(
        "syncrepl rid=001 provider={} type=refreshAndPersist retry=\"1 +\" searchbase=\"{SUFFIX}\" bindmethod=simple \
         binddn=\"{}\" credentials={}",
        provider.uri(),
        database.rootdn,
        database.rootpw
    )];
    Slapd::run(&group.lab, "consumer", config, SlapdOptions::default()).unwrap()
}

/// Waits until the consumer holds what the group does.
fn assert_follows(consumer: &Slapd, provider: &Slapd) {
    assert_equal([provider, consumer], SUFFIX, PATIENCE)
        .unwrap_or_else(|late| panic!("{late}\n{}", end_of(&provider.run_log())));
}

/// One write of each kind on each server.
fn write(group: &Group, round: usize) {
    for (number, server) in group.servers.iter().enumerate() {
        let mut ldap = server.ldap().unwrap();
        let dn = |what: &str| format!("uid={what}-{round}-{number},{PEOPLE}");
        for what in ["stays", "renamed", "deleted"] {
            add_person(&mut ldap, &format!("{what}-{round}-{number}"));
        }
        ldap.modify(&dn("stays"), vec![set("description", &["changed"])]).unwrap();
        ldap.rename(&dn("renamed"), &format!("uid=new-{round}-{number}"), None).unwrap();
        ldap.delete(&dn("deleted")).unwrap();
    }
}

#[test]
fn a_syncrepl_consumer_of_one_server_follows_writes_on_all_over_restarts() {
    let mut group = group_with(GroupOptions {
        modules: vec!["syncprov".to_owned()],
        database_lines: vec!["overlay syncprov".to_owned()],
        ..GroupOptions::default()
    });
    let mut consumer = consumer(&group, &group.servers[0]);
    write(&group, 0);
    settle(&group);
    assert_follows(&consumer, &group.servers[0]);
    // The provider, the consumer, and another server are away in turn.
    group.servers[0].stop().unwrap();
    let mut ldap = group.servers[1].ldap().unwrap();
    add_person(&mut ldap, "while-the-provider-is-away");
    ldap.delete(&format!("uid=stays-0-0,{PEOPLE}")).unwrap();
    group.servers[0].start().unwrap();
    settle(&group);
    assert_follows(&consumer, &group.servers[0]);
    consumer.stop().unwrap();
    write(&group, 1);
    ldap.delete(&format!("uid=stays-0-1,{PEOPLE}")).unwrap();
    settle(&group);
    consumer.start().unwrap();
    assert_follows(&consumer, &group.servers[0]);
    group.servers[0].kill9().unwrap();
    ldap.delete(&format!("uid=stays-0-2,{PEOPLE}")).unwrap();
    group.servers[0].start().unwrap();
    write(&group, 2);
    settle(&group);
    assert_follows(&consumer, &group.servers[0]);
    for server in &group.servers {
        for word in ["set aside", "bug:"] {
            assert_eq!(count(&server.log(), word), 0, "{}: {}", server.name(), end_of(&server.log()));
        }
    }
}

/// Beside syncprov each change commits by itself, and so does the mark of what it lost.
#[test]
fn a_syncrepl_consumer_gets_the_marks_of_conflicts_like_all_else() {
    let group = group_with(GroupOptions {
        servers: 2,
        modules: vec!["syncprov".to_owned()],
        database_lines: vec!["overlay syncprov".to_owned()],
        ..GroupOptions::default()
    });
    let consumer = consumer(&group, &group.servers[0]);
    let dn = add_person(&mut group.servers[0].ldap().unwrap(), "a");
    settle(&group);
    assert_follows(&consumer, &group.servers[0]);
    let mut clients = [0, 1].map(|server| group.servers[server].ldap().unwrap());
    group.xmpp.pause().unwrap();
    for (client, value) in clients.iter_mut().zip(["of a", "of b"]) {
        client.replace(&dn, "description", &[value]).unwrap();
        client.rename(&dn, &format!("uid={}", value.replace(' ', "-")), None).unwrap();
    }
    group.xmpp.resume().unwrap();
    let dn = format!("uid=of-b,{PEOPLE}");
    wait_until("both losses are marked", PATIENCE, || {
        let dump = settle(&group);
        let marks = dump.get(&dn).and_then(|entry| entry.get("xmppSyncLost")).map_or(0, |marks| marks.len());
        if marks == 2 { Ok(()) } else { Err(format!("{:?}", dump.get(&dn))) }
    })
    .unwrap();
    assert_follows(&consumer, &group.servers[0]);
    add_person(&mut clients[1], "afterwards");
    settle(&group);
    assert_follows(&consumer, &group.servers[0]);
    for server in &group.servers {
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
}

/// The configurations of the same servers with the overlay. Accounts and rooms are those of the same XMPP server.
fn with_overlay(group: &Group, number: usize) -> SlapdConfig {
    let mut config = group.servers[number].config().clone();
    config.modules = vec![module_path().unwrap().display().to_string()];
    config.databases[0].overlay_lines = group.overlay_lines(number).unwrap();
    config
}

#[test]
fn servers_move_from_syncrepl_to_xmppsync_without_a_transfer() {
    let options = GroupOptions { servers: 2, replication: Replication::Syncrepl, ..GroupOptions::default() };
    let mut group = Group::with(options).unwrap();
    group.servers[0].ldapmodify(SUFFIX, &ldif::text(&ldif::directory(SUFFIX, 100))).unwrap();
    // syncrepl reads each write from its own connection; both servers write.
    wait_entry(&group.servers[1], &ldif::person_dn(SUFFIX, 99), true);
    write(&group, 0);
    let mut before = assert_equal_with(&group.servers, SUFFIX, ContextCsn::Compare, PATIENCE).unwrap();
    for server in &mut group.servers {
        server.stop().unwrap();
    }
    for number in 0..2 {
        let config = with_overlay(&group, number);
        group.servers[number].set_config(config).unwrap();
    }
    group.start().unwrap();
    wait_together(&group);
    let mut after = settle(&group);
    // It is taken over, and goes on with each server's start.
    let csns = |dump: &mut Dump| dump.get_mut(SUFFIX).unwrap().remove("contextCSN").unwrap();
    let (csns_before, csns_after) = (csns(&mut before), csns(&mut after));
    assert_eq!(csns_before.len(), csns_after.len());
    csns_before.iter().zip(&csns_after).for_each(|(before, after)| assert!(before <= after));
    assert_eq!(difference("before", &before, "after", &after), Vec::<String>::new());
    write(&group, 1);
    settle(&group);
    for server in &group.servers {
        let log = server.run_log();
        let words =
            ["the database was changed", "is loaded", "initial load", "taken from it", "still differ"];
        for word in words {
            assert_eq!(count(&log, word), 0, "{}: {word}\n{}", server.name(), end_of(&log));
        }
        // Neither has a journal of before, so they make sure of that.
        assert!(count(&log, "nothing differs") > 0, "{}", end_of(&log));
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
    // And what they have is what clients see.
    let mut ldap = group.servers[1].ldap().unwrap();
    wait_until("contextCSN is shown for both", PATIENCE, || {
        let shown = dump(&mut ldap, SUFFIX, ContextCsn::Compare).unwrap();
        let csns = shown[SUFFIX].get("contextCSN").map_or(0, |csns| csns.len());
        if csns == 2 { Ok(()) } else { Err(csns) }
    })
    .unwrap();
}

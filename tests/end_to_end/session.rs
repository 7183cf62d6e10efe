//! The connection, the room and the nodes, and that the group survives what happens to them.

use crate::PATIENCE;
use crate::meanwhile::{
    ROOM, Writer, assert_arrives, assert_travels, count, end_of, load, load_offline, wait_for_occupants,
    write,
};
use std::collections::BTreeSet;
use xmppsync_lab::{
    Group, GroupOptions, Live, SUFFIX, Slapd, SlapdConfig, SlapdOptions, XmppData, XmppOptions, XmppServer,
    ldif, wait_until,
};
use xmppsync_link::{
    BareJid, Element, Event, FullJid, GroupConfig, NS_LDAPSYNC, Password, Server, Session, SessionConfig,
    Tls, TransferConfig,
};

const OTHER: &str = "dc=example,dc=org";

fn group(servers: usize) -> Group {
    let group = Group::with(GroupOptions { servers, ..GroupOptions::default() }).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    group
}

/// Every server tells every other something.
fn assert_all_ways(group: &Group, what: &str) {
    for from in &group.servers {
        let value = format!("{what}, from {}", from.name());
        write(&mut from.ldap().unwrap(), &value);
        group.servers.iter().for_each(|to| assert_arrives(to, &value));
    }
}

/// The full JIDs that are logged in.
fn connected(xmpp: &XmppServer) -> BTreeSet<String> {
    let answer = xmpp.api("connected_users", "{}").unwrap();
    let jids = answer.split('"').filter(|word| word.contains('@'));
    // ejabberd escapes the slash.
    jids.map(|jid| jid.replace('\\', "")).collect()
}

fn room(name: &str) -> String {
    format!(r#"{{"name":"{name}","service":"conference.xmpp.test"}}"#)
}

#[test]
fn databases_share_the_connection_of_one_jid_and_have_a_room_each() {
    let suffixes = [SUFFIX, OTHER].map(str::to_owned).to_vec();
    let mut group = Group::prepare(GroupOptions { servers: 2, suffixes, ..GroupOptions::default() }).unwrap();
    let mut config = group.config(0).unwrap();
    for database in &mut config.databases {
        database.overlay_lines.retain(|line| !line.starts_with("xmppsync-jid"));
        database.overlay_lines.push("xmppsync-jid a@xmpp.test/ldap".to_owned());
    }
    group.servers[0].set_config(config).unwrap();
    group.start().unwrap();
    for suffix in [SUFFIX, OTHER] {
        let records = ldif::directory(suffix, 3);
        group.servers[0].ldapmodify(suffix, &ldif::text(&records)).unwrap();
    }
    let ldap = |number: usize, suffix: &str| group.servers[number].ldap_of(suffix).unwrap();
    for suffix in [SUFFIX, OTHER] {
        wait_until("the entries are on b", PATIENCE, || {
            let found = ldap(1, suffix).entry(suffix).unwrap();
            found.map(drop).ok_or("no suffix entry")
        })
        .unwrap();
    }
    group.assert_equal(PATIENCE).unwrap();

    let jids = connected(&group.xmpp);
    let of_b = jids.iter().filter(|jid| jid.starts_with("b@xmpp.test/ldapsync-")).count();
    assert!(jids.contains("a@xmpp.test/ldap") && of_b == 2 && jids.len() == 3, "{jids:?}");

    for name in [ROOM, OTHER] {
        let options = group.xmpp.api("get_room_options", &room(name)).unwrap();
        for (option, value) in [
            ("persistent", "true"),
            ("members_only", "true"),
            ("anonymous", "false"),
            ("public", "false"),
            ("moderated", "true"),
            ("title", &format!("LDAP replication of {name}")),
        ] {
            let expected = format!(r#""{option}":"{value}""#);
            assert!(options.contains(&expected), "room {name} is not {expected}: {options}");
        }
        let affiliations = group.xmpp.api("get_room_affiliations", &room(name)).unwrap();
        for user in ["a", "b"] {
            let owner = format!(r#""username":"{user}","domain":"xmpp.test","affiliation":"owner""#);
            assert!(affiliations.contains(&owner), "{affiliations}");
        }
        assert_eq!(affiliations.matches("username").count(), 2, "{affiliations}");
    }
}

#[test]
fn writes_during_a_restart_of_the_xmpp_server_arrive() {
    restart_while_writing(XmppOptions::default());
}

/// Restarts the XMPP server in three ways while three servers are written to.
pub(crate) fn restart_while_writing(xmpp: XmppOptions) {
    let mut group = Group::with(GroupOptions { servers: 3, xmpp, ..GroupOptions::default() }).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    let writers: Vec<_> = group.servers.iter().map(Writer::start_slow).collect();
    for data in [XmppData::Keep, XmppData::Drop] {
        writers.iter().for_each(|writer| writer.wait_for_more(20));
        group.xmpp.restart(data).unwrap();
        wait_for_occupants(&group, &["a-1", "b-2", "c-3"]);
        writers.iter().for_each(|writer| writer.wait_for_more(20));
    }
    // As a power failure would.
    group.xmpp.kill().unwrap();
    writers.iter().for_each(|writer| writer.wait_for_more(20));
    group.xmpp.start_again(XmppData::Keep).unwrap();
    writers.into_iter().for_each(Writer::stop);
    assert_all_ways(&group, "after the restarts");
    group.assert_equal(PATIENCE).unwrap();
    assert_nothing_set_aside(&group);
}

fn assert_nothing_set_aside(group: &Group) {
    for server in &group.servers {
        let log = server.log();
        assert_eq!(count(&log, "set aside"), 0, "{}:\n{}", server.name(), end_of(&log));
    }
}

#[test]
fn writes_during_cut_connections_arrive() {
    let group = group(3);
    let writers: Vec<_> = group.servers.iter().map(Writer::start_slow).collect();
    for user in ["a", "b", "c", "a", "b", "c"] {
        writers.iter().for_each(|writer| writer.wait_for_more(20));
        group.xmpp.api("kick_user", &format!(r#"{{"user":"{user}","host":"xmpp.test"}}"#)).unwrap();
        wait_for_occupants(&group, &["a-1", "b-2", "c-3"]);
    }
    writers.into_iter().for_each(Writer::stop);
    assert_all_ways(&group, "after the cuts");
    group.assert_equal(PATIENCE).unwrap();
    assert_nothing_set_aside(&group);
}

#[test]
fn two_logins_with_one_jid_are_said_and_not_repeated_hot_and_the_one_that_stays_recovers() {
    let mut options = GroupOptions { servers: 2, ..GroupOptions::default() };
    options.xmpp.log_level = "info".to_owned();
    let mut group = Group::prepare(options).unwrap();
    load_offline(&group);
    let jid = |config: &mut SlapdConfig| {
        let lines = &mut config.databases[0].overlay_lines;
        lines.retain(|line| !line.starts_with("xmppsync-jid"));
        lines.push("xmppsync-jid a@xmpp.test/ldap".to_owned());
    };
    let mut config = group.config(0).unwrap();
    jid(&mut config);
    group.servers[0].set_config(config.clone()).unwrap();
    group.start().unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "before");

    // A copy of the server that somebody forgot to give an account of its own.
    config.databases[0].overlay_lines.push("xmppsync-room elsewhere".to_owned());
    let mut double = Slapd::run(&group.lab, "double", config, SlapdOptions::default()).unwrap();
    for server in [&group.servers[0], &double] {
        let line = server.wait_log("somebody else is logged in as a@xmpp.test/ldap", PATIENCE).unwrap();
        assert!(line.contains("give every server its own account or resource"), "{line}");
    }
    let logins = group.xmpp.logins("a@xmpp.test/ldap");
    assert!((2..=6).contains(&logins), "{logins} logins until both were put out once");
    let writer = Writer::start(&group.servers[0]);
    writer.wait_for_more(20);
    writer.stop();
    assert!(double.stop().unwrap().status.success());
    assert_travels(&group.servers[0], &group.servers[1], "alone again");
    assert_travels(&group.servers[1], &group.servers[0], "and back");
    group.assert_equal(PATIENCE).unwrap();
}

/// What an administrator's client in the room shows of the servers, until `last` was said.
async fn read_along(group: &mut Group, last: &str) -> Vec<String> {
    let address = group.xmpp.client_address();
    let session = Session::start(SessionConfig {
        jid: FullJid::new("admin@xmpp.test/desk").unwrap(),
        password: Password::new("admin"),
        server: Server::Host { host: address.ip().to_string(), port: address.port() },
        tls: Tls::StartTls,
        ca: Some(group.xmpp.ca_file()),
        transfer: TransferConfig::default(),
    });
    let jid = |text: &str| BareJid::new(text).unwrap();
    let config = GroupConfig {
        room: jid(&format!("{ROOM}@conference.xmpp.test")),
        nick: "admin".to_owned(),
        peers: vec![jid("a@xmpp.test"), jid("b@xmpp.test")],
        room_title: String::new(),
        pubsub: jid("pubsub.xmpp.test"),
        node: "admin".to_owned(),
    };
    let card = Element::bare("none", NS_LDAPSYNC);
    let (_room, mut events) = session.attach(config, card).await.unwrap();
    let mut said = Vec::new();
    let reading = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Online => {
                    // In a thread of its own, because the client of the lab runs a runtime of its own.
                    let b = &mut group.servers[1];
                    let stopped =
                        std::thread::scope(|scope| scope.spawn(|| b.restart().unwrap()).join().unwrap());
                    assert!(stopped.status.success());
                }
                Event::Said { from, body, .. } => said.push(format!("{from}: {body}")),
                _ => {}
            }
            if said.last().is_some_and(|line| line == last) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, reading).await.is_ok();
    assert!(in_time, "{last:?} was not said, but {said:?}");
    said
}

#[test]
fn an_administrator_in_the_room_reads_who_comes_and_goes() {
    let mut group = group(2);
    group.xmpp.register("admin", "admin").unwrap();
    let member = r#"{"name":"dc=example,dc=com","service":"conference.xmpp.test","jid":"admin@xmpp.test","affiliation":"member"}"#;
    group.xmpp.api("set_room_affiliation", member).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(read_along(&mut group, "b@xmpp.test: server 2 joined"));
    assert_eq!(said, ["b@xmpp.test: server 2 leaves", "b@xmpp.test: server 2 joined"]);
    assert_travels(&group.servers[0], &group.servers[1], "with an onlooker");
    assert_eq!(count(&group.servers[0].run_log(), "does not take part"), 0, "the administrator is no server");
}

/// How often a server has asked for what did not reach it.
fn holes(group: &Group) -> usize {
    let of = |server: &Slapd| {
        let log = server.log();
        count(&log, "are missing") + count(&log, "lacks changes of server")
    };
    group.servers.iter().map(of).sum()
}

/// Writes until nobody has to ask for anything any more: the nodes are made and subscribed to.
fn wait_for_the_nodes(group: &Group) {
    // Before that the room carries what is meant for the nodes.
    for server in &group.servers {
        server.wait_log("the own node is set up", PATIENCE).unwrap();
        let others = group.servers.iter().filter(|other| other.name() != server.name());
        for id in others.filter_map(|other| other.config().server_id) {
            server.wait_log(&format!("subscribed node=ldapsync/{id}/"), PATIENCE).unwrap();
        }
    }
    let mut round = 0;
    wait_until("changes come without being asked for", PATIENCE, || {
        round += 1;
        let before = holes(group);
        assert_all_ways(group, &format!("round {round}"));
        group.assert_equal(PATIENCE).unwrap();
        let holes = holes(group);
        if holes == before { Ok(()) } else { Err(format!("{holes} holes")) }
    })
    .unwrap();
}

#[test]
fn the_nodes_carry_the_live_stream_where_they_are_asked_to() {
    stream_by_the_nodes(XmppOptions::default());
}

/// Writes to three servers of which each sends by its node.
pub(crate) fn stream_by_the_nodes(xmpp: XmppOptions) {
    let live = Live::Pubsub;
    let group = Group::with(GroupOptions { servers: 3, live, xmpp, ..GroupOptions::default() }).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    wait_for_the_nodes(&group);
    let holes_before = holes(&group);
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    writers.iter().for_each(|writer| writer.wait_for_more(100));
    writers.into_iter().for_each(Writer::stop);
    assert_all_ways(&group, "by the nodes");
    group.assert_equal(PATIENCE).unwrap();
    assert_nothing_set_aside(&group);
    assert_eq!(holes(&group), holes_before, "what the nodes should have carried was asked for");
}

#[test]
fn a_server_that_sends_by_its_node_and_one_that_sends_by_the_room_become_equal() {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    let mut config = group.config(0).unwrap();
    config.databases[0].overlay_lines.push("xmppsync-live pubsub".to_owned());
    group.servers[0].set_config(config).unwrap();
    group.start().unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    wait_for_the_nodes(&group);
    let holes_before = holes(&group);
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    writers.iter().for_each(|writer| writer.wait_for_more(100));
    writers.into_iter().for_each(Writer::stop);
    assert_all_ways(&group, "mixed");
    group.assert_equal(PATIENCE).unwrap();
    assert_nothing_set_aside(&group);
    assert_eq!(holes(&group), holes_before, "what the nodes should have carried was asked for");
}

#[test]
fn without_a_named_authority_those_of_the_system_are_trusted() {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    for number in 0..2 {
        let mut config = group.config(number).unwrap();
        let lines = &mut config.databases[0].overlay_lines;
        lines.retain(|line| !line.starts_with("xmppsync-tls-ca"));
        // What an administrator does by update-ca-certificates, for one process.
        let roots = ("SSL_CERT_FILE".to_owned(), group.xmpp.ca_file().display().to_string());
        let options = SlapdOptions { environment: vec![roots], ..SlapdOptions::default() };
        let name = group.servers[number].name().to_owned();
        group.servers[number] = Slapd::prepare(&group.lab, &name, config, options).unwrap();
    }
    group.start().unwrap();
    load(&group.servers[0]);
    assert_all_ways(&group, "by the system's roots");
    group.assert_equal(PATIENCE).unwrap();
    for server in &group.servers {
        assert!(!server.slapcat_config().unwrap().contains("olcXmppSyncTlsCa: "), "an authority is named");
    }
}

#[test]
fn databases_that_share_a_jid_and_not_its_settings_are_told_so() {
    let suffixes = [SUFFIX, OTHER].map(str::to_owned).to_vec();
    let mut group = Group::prepare(GroupOptions { servers: 1, suffixes, ..GroupOptions::default() }).unwrap();
    let mut config = group.config(0).unwrap();
    let copy = group.lab.path().join("copy.pem");
    std::fs::copy(group.xmpp.ca_file(), &copy).unwrap();
    for (database, ca) in config.databases.iter_mut().zip([group.xmpp.ca_file(), copy]) {
        let lines = &mut database.overlay_lines;
        lines.retain(|line| !line.starts_with("xmppsync-jid") && !line.starts_with("xmppsync-tls-ca"));
        lines.push("xmppsync-jid a@xmpp.test/ldap".to_owned());
        lines.push(format!("xmppsync-tls-ca {}", ca.display()));
    }
    group.servers[0].set_config(config).unwrap();
    group.start().unwrap();
    let line = group.servers[0].wait_log("with other settings", PATIENCE).unwrap();
    assert!(line.contains("another database uses a@xmpp.test/ldap"), "{line}");
}

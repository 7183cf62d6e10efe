//! Somebody with an XMPP client who sees what the servers send: in the room, or on a node.

use crate::PATIENCE;
use crate::meanwhile::{ROOM, Writer, assert_travels, load_offline, wait_joined, write};
use crate::steps::*;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use xmppsync_lab::{Group, GroupOptions, SUFFIX, ldif, wait_for, wait_until};
use xmppsync_link::{
    BareJid, Carrier, Element, Event, FullJid, GroupConfig, NS_LDAPSYNC, Password, Server, Session,
    SessionConfig, Tls,
};
use xmppsync_replica::{Batch, Operation};
use xmppsync_wire::Payload;

/// The account of the onlooker; its password is the same.
const USER: &str = "onlooker";
/// The node of the first server, as docs/ARCHITECTURE.md and its card name it.
const NODE_OF_FIRST: &str = "ldapsync/1/dc=example,dc=com";

/// An XMPP client in a thread of its own.
struct Onlooker {
    events: Receiver<Event>,
    log: Log,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the client's session tells.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn wait(&self, text: &str) {
        wait_until(&format!("the onlooker's log says {text:?}"), PATIENCE, || {
            let log = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
            if log.contains(text) { Ok(()) } else { Err(log) }
        })
        .unwrap();
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Onlooker {
    /// One that an administrator has let into the servers' room.
    fn in_room(group: &Group) -> Onlooker {
        group.xmpp.api(
            "set_room_affiliation",
            &format!(
                r#"{{"name":"{ROOM}","service":"conference.xmpp.test","jid":"{USER}@xmpp.test","affiliation":"member"}}"#
            ),
        )
        .unwrap();
        let onlooker = Onlooker::start(group, ROOM, None);
        onlooker.wait("it is in the room", |event| matches!(event, Event::Online).then_some(()));
        onlooker
    }

    /// Sits in the room, and subscribes to the node of the first server where one is named.
    fn start(group: &Group, room: &str, node: Option<&'static str>) -> Onlooker {
        let address = group.xmpp.client_address();
        let jid = |text: &str| BareJid::new(text).unwrap();
        let session = SessionConfig {
            jid: FullJid::new(&format!("{USER}@xmpp.test/desk")).unwrap(),
            password: Password::new(USER),
            server: Server::Host { host: address.ip().to_string(), port: address.port() },
            tls: Tls::StartTls,
            ca: Some(group.xmpp.ca_file()),
            transfer: xmppsync_link::TransferConfig::default(),
        };
        let servers: Vec<_> = (0..group.servers.len()).map(|number| jid(&group.jid(number))).collect();
        let first = servers[0].clone();
        let config = GroupConfig {
            room: jid(&format!("{room}@conference.xmpp.test")),
            nick: USER.to_owned(),
            peers: servers,
            room_title: String::new(),
            pubsub: jid("pubsub.xmpp.test"),
            node: USER.to_owned(),
        };
        let (sender, events) = channel();
        let (stop, stopped) = oneshot::channel();
        let log = Log::default();
        let written = log.clone();
        let thread = std::thread::spawn(move || {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_writer(move || written.clone())
                .finish();
            let _told = tracing::subscriber::set_default(subscriber);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let session = Session::start(session);
                let card = Element::bare("none", NS_LDAPSYNC);
                let (group, mut events) = session.attach(config, card).await.unwrap();
                if let Some(node) = node {
                    group.subscribe(first, node.to_owned()).unwrap();
                }
                let handing_on = async {
                    while let Some(event) = events.recv().await {
                        // The test may have seen enough.
                        let _ = sender.send(event);
                    }
                };
                tokio::select! {
                    () = handing_on => {}
                    _ = stopped => {}
                }
                drop(group);
                session.close(Duration::from_secs(5)).await;
            });
        });
        Onlooker { events, log, stop: Some(stop), thread: Some(thread) }
    }

    /// The first event for which there is a value; those before it are passed over.
    fn wait<T>(&self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("not in time: {what}"));
            if let Some(value) = pick(event) {
                return value;
            }
        }
    }

    /// The next batch that came this way and that the test looks for.
    fn wait_batch(&self, by: Carrier, what: &str, mut pick: impl FnMut(&Batch) -> bool) -> (BareJid, Batch) {
        self.wait(what, |event| match event {
            Event::Live { from, payload, carrier } if carrier == by => match Payload::decode(&payload) {
                Ok(Payload::Batch(batch)) => pick(&batch).then_some((from, batch)),
                other => panic!("{other:?} is no batch"),
            },
            _ => None,
        })
    }

    /// The next line in the room of this kind: who says it, about which server, in which words.
    fn wait_said(&self, kind: &str) -> (String, String, String) {
        self.wait(&format!("a line about a {kind}"), |event| match event {
            Event::Said { from, body, payload: Some(payload) }
                if payload.is("event", NS_LDAPSYNC) && payload.attr("kind") == Some(kind) =>
            {
                Some((from.to_string(), payload.attr("sid").unwrap().to_owned(), body))
            }
            _ => None,
        })
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Two servers with a few entries, and the account of an onlooker.
fn group_and_account() -> Group {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    group.xmpp.register(USER, USER).unwrap();
    load_offline(&group);
    group.start().unwrap();
    wait_together(&group);
    group
}

/// The descriptions of all attributes that a batch changes.
fn attributes(batch: &Batch) -> Vec<String> {
    let [change] = &batch.changes[..] else { panic!("one change was made, not {:?}", batch.changes) };
    let Operation::Modify(request) = &change.operation else { panic!("no modify: {:?}", change.operation) };
    let mut names: Vec<_> = request.changes.iter().map(|change| change.modification.atype.clone()).collect();
    names.sort();
    names
}

/// The values of `description` that it sets, in their order.
fn descriptions(batch: &Batch) -> Vec<String> {
    let modifies = batch.changes.iter().filter_map(|change| match &change.operation {
        Operation::Modify(request) => Some(&request.changes),
        _ => None,
    });
    let values = modifies.flatten().filter(|change| change.modification.atype == "description");
    let values = values.flat_map(|change| &change.modification.vals);
    values.map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fn is_about(batch: &Batch, dn: &str) -> bool {
    batch.changes.iter().any(|change| change.operation.dn() == dn)
}

#[test]
fn of_a_modify_only_what_it_modifies_travels() {
    let group = group_and_account();
    let dn = ldif::person_dn(SUFFIX, 0);
    let entry = group.servers[0].ldap().unwrap().entry(&dn).unwrap().unwrap();
    assert!(entry["jpegPhoto"].iter().any(|photo| photo.len() > 100), "the entry has a photo");
    let onlooker = Onlooker::in_room(&group);

    let mut ldap = group.servers[0].ldap().unwrap();
    ldap.modify(&dn, vec![set("description", &["a single value"]), plus("mail", &["more@example.com"])])
        .unwrap();
    let (from, batch) = onlooker.wait_batch(Carrier::Room, "the modify", |batch| is_about(batch, &dn));
    assert_eq!(from.to_string(), group.jid(0));
    assert_eq!(
        attributes(&batch),
        ["description", "entryCSN", "mail", "modifiersName", "modifyTimestamp"],
        "{batch:?}"
    );
    let Operation::Modify(request) = &batch.changes[0].operation else { unreachable!() };
    let values: Vec<_> = request.changes.iter().flat_map(|change| &change.modification.vals).collect();
    assert!(values.contains(&&b"a single value".to_vec()) && values.contains(&&b"more@example.com".to_vec()));
    // Not the address that was there before.
    let mails = request.changes.iter().find(|change| change.modification.atype == "mail").unwrap();
    assert_eq!(mails.modification.vals, [b"more@example.com"]);
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    assert!(bytes < 200, "{bytes} bytes of values");
}

/// What is written until the second server is back passes it by. The first batch after that tells of a hole, unless a card
/// has told of it before: then it happens again.
fn hole_in_the_stream(group: &Group) -> String {
    let b = &group.servers[1];
    for kicks in 1..=10 {
        let healed = || b.run_log().matches("everything that was missing is here").count();
        group.xmpp.api("kick_user", r#"{"user":"b","host":"xmpp.test"}"#).unwrap();
        let noticed =
            wait_for("it notices", PATIENCE, || b.run_log().contains("holes so far") || healed() >= kicks);
        noticed.unwrap();
        if let Some(line) = b.run_log().lines().find(|line| line.contains("holes so far")) {
            return line.to_owned();
        }
    }
    panic!("cards are always first");
}

#[test]
fn a_hole_is_logged_counted_told_in_the_room_and_healed() {
    let group = group_and_account();
    let onlooker = Onlooker::in_room(&group);
    let writer = Writer::start(&group.servers[0]);
    writer.wait_for_more(20);
    let line = hole_in_the_stream(&group);
    assert!(line.contains("of server 1 are missing") && line.contains("(1 holes so far)"), "{line}");
    let (from, about, words) = onlooker.wait_said("gap");
    assert_eq!((from.as_str(), about.as_str()), ("b@xmpp.test", "2"));
    let missing = line.split("changes ").nth(1).unwrap().split(" of server").next().unwrap();
    assert_eq!(words, format!("server 2 lacks changes {missing} of server 1"));
    group.servers[1].wait_log("everything that was missing is here", PATIENCE).unwrap();
    writer.stop();
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn where_no_journal_reaches_back_the_entries_are_compared_which_is_told_in_the_room() {
    let mut group = group_and_account();
    settle(&group);
    group.servers[1].stop().unwrap();
    // Or the XMPP server would keep it for the other.
    let mut config = group.config(0).unwrap();
    config.databases[0].overlay_lines.push("xmppsync-offline-messages 0".to_owned());
    group.servers[0].stop().unwrap();
    group.servers[0].set_config(config).unwrap();
    group.servers[0].start().unwrap();
    write(&mut group.servers[0].ldap().unwrap(), "while the other was away");
    // What it had in its journal for the other goes.
    group.servers[0].stop().unwrap();
    std::fs::remove_dir_all(group.servers[0].database_dir(0).join("xmppsync")).unwrap();
    group.servers[0].start().unwrap();
    wait_joined(&group.servers[0], PATIENCE);
    let onlooker = Onlooker::in_room(&group);
    group.servers[1].start().unwrap();
    group.servers[1].wait_log("nobody's journal reaches back", PATIENCE).unwrap();
    let (from, about, words) = onlooker.wait_said("problem");
    assert_eq!((from.as_str(), about.as_str()), ("b@xmpp.test", "2"));
    assert_eq!(words, "server 2 compares its entries with those of server 1");
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn who_is_no_member_of_the_room_reads_the_copy_on_the_node() {
    // A node lists who may subscribe; the group once had this user among its peers.
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    group.xmpp.register(USER, USER).unwrap();
    load_offline(&group);
    let right = group.config(0).unwrap();
    let mut with_onlooker = right.clone();
    with_onlooker.databases[0].overlay_lines.push(format!("xmppsync-peer {USER}@xmpp.test"));
    group.servers[0].set_config(with_onlooker).unwrap();
    group.start().unwrap();
    wait_together(&group);
    let onlooker = Onlooker::start(&group, "elsewhere", Some(NODE_OF_FIRST));
    onlooker.log.wait("subscribed");
    // While it is a peer and reads the room, nothing is published for it.
    group.servers[0].stop().unwrap();
    group.servers[0].set_config(right).unwrap();
    group.servers[0].start().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = ldif::person_dn(SUFFIX, 0);
    // Until the subscribers are counted, nothing is published.
    let mut number = 0;
    let (from, batch) = wait_until("a copy is on the node", PATIENCE, || {
        number += 1;
        ldap.replace(&dn, "description", &[&number.to_string()]).unwrap();
        let until = Instant::now() + Duration::from_millis(100);
        while let Ok(event) = onlooker.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let Event::Live { from, payload, carrier } = event {
                return Ok((from, carrier, payload));
            }
        }
        Err("nothing came")
    })
    .map(|(from, carrier, payload)| {
        assert_eq!(carrier, Carrier::Node);
        (from, payload)
    })
    .unwrap();
    assert_eq!(from.to_string(), group.jid(0));
    assert!(matches!(Payload::decode(&batch), Ok(Payload::Batch(batch)) if is_about(&batch, &dn)));

    // From now on the copy has everything that the room has, in the same order.
    ldap.replace(&dn, "description", &["first"]).unwrap();
    ldap.replace(&dn, "description", &["second"]).unwrap();
    let mut seen = Vec::new();
    onlooker.wait_batch(Carrier::Node, "the second value", |batch| {
        seen.extend(descriptions(batch));
        seen.ends_with(&["second".to_owned()])
    });
    assert!(seen.ends_with(&["first", "second"].map(str::to_owned)), "{seen:?}");
    assert_travels(&group.servers[0], &group.servers[1], "and the members have it too");
    group.assert_equal(PATIENCE).unwrap();
}

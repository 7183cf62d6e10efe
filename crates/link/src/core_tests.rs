//! What real servers do rarely or never: the state machines fed by hand.

mod told;
mod transfers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza::Stanza;

use crate::command::{Attach, Command, GroupId, Shared, ToGroup};
use crate::config::GroupConfig;
use crate::core::Core;
use crate::elements::NS_LDAPSYNC;
use crate::event::{Carrier, Event};
use crate::limits::{JOIN_MIN, SELF_PING_EVERY};
use crate::problem::Problem;

const ROOM: &str = "suffix@conference.example.org";

/// A core with one group that is logged in and was told nothing yet.
struct Rig {
    core: Core,
    events: mpsc::Receiver<Event>,
    now: Instant,
    shared: Arc<Shared>,
    // Replies upgrade a weak handle of it.
    _commands: mpsc::Sender<Command>,
}

impl Rig {
    fn new() -> Self {
        let (commands, _) = mpsc::channel(8);
        let own = FullJid::new("a@example.org/ldap").unwrap();
        let mut core = Core::new(own.clone(), commands.downgrade(), || 1.0);
        let (sender, events) = mpsc::channel(64);
        let config = GroupConfig {
            room: BareJid::new(ROOM).unwrap(),
            nick: "a".into(),
            peers: vec![BareJid::new("b@example.org").unwrap()],
            room_title: "t".into(),
            pubsub: BareJid::new("pubsub.example.org").unwrap(),
            node: "node-a".into(),
        };
        let shared = Arc::<Shared>::default();
        let attach = Attach {
            config,
            card: payload("card"),
            events: sender,
            shared: Arc::clone(&shared),
            done: oneshot::channel().0,
        };
        // The receiver of `done` has to be alive.
        let (done, _attached) = oneshot::channel();
        let now = Instant::now();
        core.handle_command(Command::Attach(Box::new(Attach { done, ..attach })), now);
        core.handle_up(own, now);
        Self { core, events, now, shared, _commands: commands }
    }

    /// One that sits in the room with b.
    fn joined() -> Self {
        let mut rig = Self::new();
        rig.presence("b", "<item affiliation='owner' role='moderator' jid='b@example.org/ldap'/>");
        rig.seat();
        assert!(matches!(rig.next(), Some(Event::Online)));
        assert!(matches!(rig.next(), Some(Event::Card { nick, .. }) if nick == "b"));
        rig.sent();
        rig
    }

    fn receive(&mut self, xml: &str) {
        let element: Element = xml.parse().unwrap();
        let stanza = match element.name() {
            "presence" => Stanza::Presence(element.try_into().unwrap()),
            "message" => Stanza::Message(element.try_into().unwrap()),
            _ => Stanza::Iq(element.try_into().unwrap()),
        };
        self.core.handle_stanza(stanza, self.now);
    }

    fn presence(&mut self, nick: &str, x: &str) {
        self.receive(&format!(
            "<presence xmlns='jabber:client' from='{ROOM}/{nick}'><card xmlns='{NS_LDAPSYNC}'>{nick}</card>\
             <x xmlns='http://jabber.org/protocol/muc#user'>{x}</x></presence>"
        ));
    }

    fn seat(&mut self) {
        let item = "<item affiliation='owner' role='moderator' jid='a@example.org/ldap'/>";
        self.presence("a", &format!("{item}<status code='110'/><status code='100'/>"));
    }

    fn groupchat(&mut self, nick: &str, inner: &str) {
        self.receive(&format!(
            "<message xmlns='jabber:client' type='groupchat' from='{ROOM}/{nick}' id='7'>{inner}</message>"
        ));
    }

    fn next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// What was written, as XML.
    fn sent(&mut self) -> Vec<String> {
        let write = |stanza| match stanza {
            Stanza::Iq(iq) => String::from(&Element::from(iq)),
            Stanza::Message(message) => String::from(&Element::from(message)),
            Stanza::Presence(presence) => String::from(&Element::from(presence)),
        };
        self.core.out.stanzas.drain(..).map(write).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
    }
}

fn payload(text: &str) -> Element {
    Element::builder("batch", NS_LDAPSYNC).append(text).build()
}

fn batch() -> String {
    format!("<batch xmlns='{NS_LDAPSYNC}'>x</batch>")
}

#[test]
fn before_it_has_a_seat_nothing_of_the_room_is_delivered_and_nobody_is_a_stranger() {
    let mut rig = Rig::new();
    rig.groupchat("nobody", &batch());
    rig.presence("b", "<item affiliation='owner' role='moderator' jid='b@example.org/ldap'/>");
    rig.groupchat("b", &batch());
    assert!(rig.next().is_none());
    rig.seat();
    rig.groupchat("b", &batch());
    assert!(matches!(rig.next(), Some(Event::Online)));
    assert!(matches!(rig.next(), Some(Event::Card { .. })));
    assert!(matches!(rig.next(), Some(Event::Live { .. })));
}

#[test]
fn a_forged_jid_in_a_message_does_not_make_a_peer() {
    let mut rig = Rig::joined();
    rig.presence("m", "<item affiliation='member' role='participant' jid='m@example.org/x'/>");
    let forged = "<x xmlns='http://jabber.org/protocol/muc#user'><item jid='b@example.org/ldap'/></x>";
    rig.groupchat("m", &format!("{forged}{}", batch()));
    assert!(
        matches!(rig.next(), Some(Event::Problem(Problem::Stranger { jid, .. })) if jid == "m@example.org")
    );
    rig.groupchat("nobody", &batch());
    assert!(matches!(rig.next(), Some(Event::Problem(Problem::Stranger { jid, .. })) if jid == "nobody"));
    rig.groupchat("b", &batch());
    assert!(matches!(rig.next(), Some(Event::Live { carrier: Carrier::Room, .. })));
}

#[test]
fn history_is_not_live() {
    let mut rig = Rig::joined();
    rig.groupchat("b", &format!("<delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/>{}", batch()));
    rig.groupchat("a", &format!("<delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/>{}", batch()));
    assert!(rig.next().is_none());
    rig.groupchat("a", &batch());
    assert!(matches!(rig.next(), Some(Event::Echo { id }) if id == "7"));
}

#[test]
fn a_private_message_is_no_live_payload() {
    let mut rig = Rig::joined();
    rig.receive(&format!(
        "<message xmlns='jabber:client' type='chat' from='{ROOM}/b' id='7'>{}</message>",
        batch()
    ));
    assert!(rig.next().is_none());
}

#[test]
fn a_room_that_hides_a_jid_is_left_and_joined_again() {
    let mut rig = Rig::new();
    rig.sent();
    rig.presence("b", "<item affiliation='owner' role='moderator'/>");
    rig.seat();
    assert!(rig.next().is_none(), "not online");
    assert!(rig.sent().iter().any(|xml| xml.contains("unavailable")));
    rig.pass(JOIN_MIN);
    assert!(rig.sent().iter().any(|xml| xml.contains("maxstanzas")), "not joined again");
    rig.presence("b", "<item affiliation='owner' role='moderator' jid='b@example.org/ldap'/>");
    rig.seat();
    assert!(matches!(rig.next(), Some(Event::Online)));
}

#[test]
fn a_seat_that_the_room_forgot_is_taken_again() {
    let mut rig = Rig::joined();
    rig.pass(SELF_PING_EVERY);
    let sent = rig.sent();
    let ping = sent.iter().find(|xml| xml.contains("urn:xmpp:ping")).unwrap();
    let ping: Element = ping.parse().unwrap();
    let id = ping.attr("id").unwrap().to_owned();
    rig.receive(&format!(
        "<iq xmlns='jabber:client' type='error' from='{ROOM}/a' id='{id}'><error type='cancel'>\
         <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    ));
    // Before it come the services that did not answer in the meantime.
    while !matches!(rig.next().unwrap(), Event::Problem(Problem::SeatLost { .. })) {}
    assert!(matches!(rig.next(), Some(Event::Offline { .. })));
    rig.pass(JOIN_MIN);
    assert!(rig.sent().iter().any(|xml| xml.contains("maxstanzas")));
}

#[test]
fn a_message_that_the_room_refuses_is_reported() {
    let mut rig = Rig::joined();
    let refused = |condition: &str| {
        format!(
            "<message xmlns='jabber:client' type='error' from='{ROOM}' id='9'><error type='wait'>\
             <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        )
    };
    rig.receive(&refused("policy-violation"));
    assert!(matches!(rig.next(), Some(Event::Refused { id, .. }) if id == "9"));
    assert!(matches!(rig.next(), Some(Event::Problem(Problem::MessageRefused { .. }))));
    rig.receive(&refused("not-acceptable"));
    assert!(matches!(rig.next(), Some(Event::Refused { .. })));
    assert!(matches!(rig.next(), Some(Event::Problem(Problem::SeatLost { .. }))));
    assert!(matches!(rig.next(), Some(Event::Offline { .. })), "not an occupant any more");
}

#[test]
fn an_item_counts_only_from_the_node_and_publisher_that_were_subscribed() {
    let mut rig = Rig::joined();
    let subscribe =
        ToGroup::Subscribe { peer: BareJid::new("b@example.org").unwrap(), node: "node-b".into() };
    rig.core.handle_command(Command::Group(GroupId(1), subscribe), rig.now);
    let mut item = |from: &str, node: &str, publisher: &str| {
        rig.receive(&format!(
            "<message xmlns='jabber:client' type='headline' from='{from}'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{node}'>\
             <item id='1'{publisher}>{}</item></items></event></message>",
            batch()
        ));
        rig.events.try_recv().ok()
    };
    assert!(item("mallory@example.org", "node-b", "").is_none());
    assert!(item("pubsub.example.org", "node-x", "").is_none());
    assert!(item("pubsub.example.org", "node-b", " publisher='m@example.org/x'").is_none());
    for publisher in ["", " publisher='b@example.org/ldap'", " publisher='b@example.org'"] {
        let event = item("pubsub.example.org", "node-b", publisher);
        assert!(matches!(event, Some(Event::Live { carrier: Carrier::Node, .. })), "{publisher}");
    }
}

#[test]
fn requests_of_strangers_and_for_unknown_groups_are_refused() {
    let mut rig = Rig::joined();
    rig.receive(&format!(
        "<iq xmlns='jabber:client' type='get' from='m@example.org/x' id='1'>\
         <pull xmlns='{NS_LDAPSYNC}' room='{ROOM}'/></iq>"
    ));
    assert!(rig.sent()[0].contains("forbidden"));
    rig.receive(&format!(
        "<iq xmlns='jabber:client' type='get' from='b@example.org/ldap' id='1'>\
         <pull xmlns='{NS_LDAPSYNC}' room='other@conference.example.org'/></iq>"
    ));
    assert!(rig.sent()[0].contains("service-unavailable"));
    rig.receive("<iq xmlns='jabber:client' type='set' from='x@example.org/x' id='1'><y xmlns='y'/></iq>");
    assert!(rig.sent()[0].contains("service-unavailable"));
    rig.receive(
        "<iq xmlns='jabber:client' type='get' from='example.org' id='p'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert!(rig.sent()[0].contains("type=\"result\"") || rig.sent().is_empty());
}

#[test]
fn nothing_is_sent_for_a_group_while_the_line_is_down() {
    let mut rig = Rig::joined();
    rig.core.handle_down(Problem::ConnectionLost { reason: "x".into() }, rig.now);
    assert!(matches!(rig.next(), Some(Event::Offline { .. })));
    assert!(matches!(rig.next(), Some(Event::Problem(_))));
    let commands = [
        ToGroup::SendRoom { id: "1".into(), payload: payload("x") },
        ToGroup::SetCard(payload("x")),
        ToGroup::Publish { id: "2".into(), payload: payload("x") },
    ];
    for command in commands {
        rig.core.handle_command(Command::Group(GroupId(1), command), rig.now);
    }
    rig.pass(Duration::from_secs(600));
    assert_eq!(rig.sent(), Vec::<String>::new());
    assert!(matches!(rig.next(), Some(Event::Published { result: Err(_), .. })));
    let own: FullJid = Jid::new("a@example.org/ldap").unwrap().try_into().unwrap();
    rig.core.handle_up(own, rig.now);
    let join = rig.sent();
    assert!(
        join.iter().any(|xml| xml.contains("maxstanzas") && xml.contains(">x<")),
        "the new card: {join:?}"
    );
}

/// The id of the last request that was written and holds the text.
fn id_of(sent: &[String], text: &str) -> String {
    let xml = sent.iter().rev().find(|xml| xml.contains(text));
    let xml = xml.unwrap_or_else(|| panic!("no {text} among {sent:#?}"));
    xml.parse::<Element>().unwrap().attr("id").unwrap().to_owned()
}

#[test]
fn a_lost_line_says_that_the_node_is_not_ready() {
    let mut rig = Rig::joined();
    let shared = Arc::clone(&rig.shared);
    rig.core.handle_down(Problem::ConnectionLost { reason: "x".into() }, rig.now);
    assert!(!shared.node_ready());
    let own = FullJid::new("a@example.org/ldap").unwrap();
    rig.core.handle_up(own, rig.now);
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'>\
                <feature var='http://jabber.org/protocol/pubsub'/></query>";
    for (request, answer) in [("disco#info", info), ("<create", ""), ("<configure", ""), ("affiliations", "")]
    {
        let sent = rig.sent();
        let of_service: Vec<_> =
            sent.into_iter().filter(|xml| xml.contains("to='pubsub.example.org'")).collect();
        let id = id_of(&of_service, request);
        assert!(!shared.node_ready(), "before {request}");
        rig.receive(&format!(
            "<iq xmlns='jabber:client' type='result' from='pubsub.example.org' id='{id}'>{answer}</iq>"
        ));
    }
    assert!(shared.node_ready());
    rig.core.handle_down(Problem::ConnectionLost { reason: "x".into() }, rig.now);
    assert!(!shared.node_ready());
}

fn attach(rig: &mut Rig, room: &str) -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(64);
    let config = GroupConfig {
        room: BareJid::new(room).unwrap(),
        nick: "a".into(),
        peers: vec![BareJid::new("b@example.org").unwrap()],
        room_title: "t".into(),
        pubsub: BareJid::new("pubsub.example.org").unwrap(),
        node: "node-a2".into(),
    };
    let (done, _attached) = oneshot::channel();
    let attach = Attach { config, card: payload("card"), events: sender, shared: Arc::default(), done };
    rig.core.handle_command(Command::Attach(Box::new(attach)), rig.now);
    events
}

fn chat(from: &str, room: &str) -> String {
    format!(
        "<message xmlns='jabber:client' type='chat' from='{from}' id='7'>\
         <batch xmlns='{NS_LDAPSYNC}' room='{room}'>x</batch></message>"
    )
}

#[test]
fn presence_waits_for_the_first_group_and_ends_with_the_last() {
    let mut rig = Rig::new();
    rig.sent();
    let presences = |rig: &mut Rig| {
        let is_broadcast = |xml: &String| xml.starts_with("<presence") && !xml.contains(" to=");
        rig.sent().into_iter().filter(is_broadcast).collect::<Vec<_>>()
    };
    rig.core.handle_command(Command::Group(GroupId(1), ToGroup::Detach), rig.now);
    assert!(presences(&mut rig)[0].contains("unavailable"));
    let own = rig.core.own.clone();
    rig.core.handle_down(Problem::ConnectionLost { reason: "x".into() }, rig.now);
    rig.core.handle_up(own, rig.now);
    assert_eq!(presences(&mut rig), Vec::<String>::new());
    let _first = attach(&mut rig, ROOM);
    assert_eq!(presences(&mut rig).len(), 1);
    let _second = attach(&mut rig, "second@conference.example.org");
    assert_eq!(presences(&mut rig), Vec::<String>::new());
}

#[test]
fn a_held_message_of_a_stranger_is_dropped_when_its_group_comes() {
    let mut rig = Rig::joined();
    let room = "second@conference.example.org";
    rig.receive(&chat("m@example.org/x", room));
    rig.receive(&chat("b@example.org/x", room));
    // The connection may end in between: the server has forgotten them already.
    rig.core.handle_down(Problem::ConnectionLost { reason: "x".into() }, rig.now);
    let mut events = attach(&mut rig, room);
    assert!(matches!(events.try_recv(), Ok(Event::Problem(Problem::Stranger { .. }))));
    assert!(matches!(events.try_recv(), Ok(Event::Stored { delayed: false, payload, .. })
        if payload.attrs().iter().count() == 0));
}

#[test]
fn a_copy_of_an_own_message_is_no_message_of_a_peer() {
    let mut rig = Rig::joined();
    let peers = ["a@example.org", "b@example.org"].map(|jid| BareJid::new(jid).unwrap()).to_vec();
    rig.core.handle_command(Command::Group(GroupId(1), ToGroup::SetPeers(peers)), rig.now);
    rig.receive(&chat("a@example.org/phone", ROOM));
    rig.receive(&chat("a@example.org", ROOM));
    let inner = chat("b@example.org/x", ROOM);
    rig.receive(&format!(
        "<message xmlns='jabber:client' type='chat' from='a@example.org'>\
         <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded>\
         </received></message>"
    ));
    // Neither is what names no room.
    rig.receive(&format!(
        "<message xmlns='jabber:client' type='chat' from='b@example.org/x'>{}</message>",
        batch()
    ));
    assert!(rig.next().is_none());
    rig.receive(&chat("b@example.org/x", ROOM));
    assert!(matches!(rig.next(), Some(Event::Stored { from, .. }) if from.as_str() == "b@example.org"));
}

#[test]
fn a_bounce_counts_only_for_a_message_of_this_run() {
    let mut rig = Rig::joined();
    let send = ToGroup::SendStored {
        id: "1.2".into(),
        to: BareJid::new("b@example.org").unwrap(),
        payload: payload("x"),
    };
    rig.core.handle_command(Command::Group(GroupId(1), send), rig.now);
    let sent: Element = rig.sent()[0].parse().unwrap();
    assert!(sent.has_child("store", "urn:xmpp:hints"));
    assert_eq!(sent.get_child("batch", NS_LDAPSYNC).unwrap().attr("room"), Some(ROOM));
    let id = sent.attr("id").unwrap();
    let run = u32::from_str_radix(&id[..8], 16).unwrap();
    let other = format!("{:08x}{}", run.wrapping_add(1), &id[8..]);
    for id in [&other, "", "1", "x.1.1", &id[..9], &format!("{}.99.1", &id[..8]), id] {
        rig.receive(&format!(
            "<message xmlns='jabber:client' type='error' from='b@example.org' id='{id}'><error type='wait'>\
             <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        ));
    }
    assert!(matches!(rig.next(), Some(Event::NotStored { id, reason, .. })
        if id == "1.2" && reason == "resource-constraint"));
    assert!(rig.next().is_none());
}

#[test]
fn a_stored_message_that_was_not_written_is_told_of_when_the_line_breaks() {
    let mut rig = Rig::joined();
    let send = |id: &str| ToGroup::SendStored {
        id: id.into(),
        to: BareJid::new("b@example.org").unwrap(),
        payload: payload("x"),
    };
    rig.core.handle_command(Command::Group(GroupId(1), send("1")), rig.now);
    rig.core.handle_down(Problem::ConnectionLost { reason: "x".into() }, rig.now);
    assert!(matches!(rig.next(), Some(Event::NotStored { id, .. }) if id == "1"));
    assert!(matches!(rig.next(), Some(Event::Offline { .. })));
    rig.core.handle_command(Command::Group(GroupId(1), send("2")), rig.now);
    while !matches!(rig.next().unwrap(), Event::NotStored { id, .. } if id == "2") {}
}

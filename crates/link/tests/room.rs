//! The room of a group on a real XMPP server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Bed, Member, card, payload};
use xmppsync_lab::XmppOptions;
use xmppsync_link::{DefinedCondition, Event, Problem, RequestError, SendError};

#[tokio::test]
async fn two_servers_that_create_the_room_at_once_both_get_in() {
    let bed = Bed::start(&["a", "b"]);
    let (mut a, mut b) = tokio::join!(bed.member("a", &["b"]), bed.member("b", &["a"]));
    tokio::join!(a.online(), b.online());
    let (jid_a, jid_b) = (bed.jid("a"), bed.jid("b"));
    let (card_b, card_a) = tokio::join!(a.card_of(&jid_b), b.card_of(&jid_a));
    assert_eq!((card_a.as_str(), card_b.as_str()), ("a@xmpp.test/ldap", "b@xmpp.test/ldap"));

    // Both send, both get it: whatever happened while the room was created, both have a voice and a name.
    a.group.send_room("1".into(), payload("from a")).unwrap();
    assert_eq!(b.live().await, (bed.jid("a"), "from a".to_owned()));
    b.group.send_room("1".into(), payload("from b")).unwrap();
    assert_eq!(a.live().await, (bed.jid("b"), "from b".to_owned()));
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_room_is_made_as_it_has_to_be() {
    let bed = Bed::start(&["a"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let arguments = r#"{"name":"suffix","service":"conference.xmpp.test"}"#;
    let options = bed.xmpp.api("get_room_options", arguments).unwrap();
    for (name, value) in [
        ("persistent", "true"),
        ("members_only", "true"),
        ("moderated", "true"),
        ("anonymous", "false"),
        ("public", "false"),
        ("title", "dc=example"),
    ] {
        let option = format!(r#""{name}":"{value}""#);
        assert!(options.contains(&option), "{option} is not in {options}");
    }
    let owners = bed.xmpp.api("get_room_affiliations", arguments).unwrap();
    assert_eq!(owners.matches("owner").count(), 2, "{owners}");
    a.close().await;
}

#[tokio::test]
async fn a_peer_that_is_added_later_is_let_in() {
    let bed = Bed::start(&["a", "c"]);
    let mut a = bed.member("a", &[]).await;
    a.online().await;
    let mut c = bed.member("c", &["a"]).await;
    c.problem("its owner has to list this JID").await;
    a.group.set_peers(vec![bed.jid("c")]).unwrap();
    c.online().await;
    assert_eq!(a.card_of(&bed.jid("c")).await, "c@xmpp.test/ldap");
    a.close().await;
    c.close().await;
}

#[tokio::test]
async fn a_non_member_is_refused() {
    let bed = Bed::start(&["a", "m"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut m = bed.member("m", &["a"]).await;
    let text = m.problem("refuses entry").await;
    assert!(text.contains("suffix@conference.xmpp.test") && text.contains("registration-required"), "{text}");
    assert_eq!(m.group.send_room("1".into(), payload("x")), Err(SendError::Offline));
    a.close().await;
    m.close().await;
}

#[tokio::test]
async fn an_echo_comes_back_in_order() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    for n in 0..500 {
        a.group.send_room(n.to_string(), payload(&n.to_string())).unwrap();
    }
    for n in 0..500 {
        let id = a.until("echo", |event| match event {
            Event::Echo { id } => Some(id.clone()),
            _ => None,
        });
        assert_eq!(id.await, n.to_string());
        assert_eq!(b.live().await, (bed.jid("a"), n.to_string()));
    }
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn an_occupant_who_is_no_peer_is_dropped_and_reported_once() {
    let bed = Bed::start(&["a", "m"]);
    // Both are owners of the room, but a does not know m.
    let mut m = bed.member("m", &["a"]).await;
    m.online().await;
    let mut a = bed.member("a", &[]).await;
    a.online().await;
    for n in 0..10 {
        m.group.send_room(n.to_string(), payload("forged")).unwrap();
    }
    m.group.say("hello humans".into(), None).unwrap();
    m.until("the last echo", |event| matches!(event, Event::Echo { id } if id == "9").then_some(())).await;
    let text = a.problem("is no member of this group").await;
    assert!(text.contains("m@xmpp.test"), "{text}");
    // A message of its own comes after all of m's.
    a.group.send_room("end".into(), payload("end")).unwrap();
    a.until("end", |event| {
        assert!(!matches!(event, Event::Live { .. } | Event::Card { .. } | Event::Said { .. }), "{event:?}");
        assert!(!matches!(event, Event::Problem(Problem::Stranger { .. })), "reported twice");
        matches!(event, Event::Echo { .. }).then_some(())
    })
    .await;
    let request = m.group.request(bed.config("a").jid, payload("pull"), common::DEADLINE).await;
    assert!(
        matches!(&request, Err(RequestError::Refused { condition: DefinedCondition::Forbidden, .. })),
        "{request:?}"
    );
    a.close().await;
    m.close().await;
}

#[tokio::test]
async fn a_request_is_answered_by_the_peer() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    let to = bed.config("b").jid;
    // What b heard of a's seat comes first.
    b.card_of(&bed.jid("a")).await;
    let answering = async {
        for n in 0..3 {
            let event = b.events.recv().await.expect("session ended");
            let Event::Request { from, payload: asked, reply } = event else { panic!("{event:?}") };
            assert_eq!(from, bed.config("a").jid);
            assert_eq!((asked.text(), asked.attrs().len()), ("pull".to_owned(), 0));
            match n {
                0 => reply.ok(payload("page")).unwrap(),
                1 => reply.error(DefinedCondition::ResourceConstraint, "later").unwrap(),
                _ => drop(reply),
            }
        }
    };
    let asking = async {
        let ask = || a.group.request(to.clone(), payload("pull"), common::DEADLINE);
        assert_eq!(ask().await.unwrap().text(), "page");
        let refused = ask().await.unwrap_err();
        assert_eq!(refused.to_string(), "refused: resource-constraint: later");
        let dropped = ask().await.unwrap_err();
        assert!(dropped.to_string().contains("service-unavailable"), "{dropped}");
    };
    tokio::join!(answering, asking);
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn cards_and_words_reach_the_peers_and_leaving_is_seen() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    b.card_of(&bed.jid("a")).await;
    a.group.set_card(card("ready")).unwrap();
    assert_eq!(b.card_of(&bed.jid("a")).await, "ready");
    a.group.say("refresh begun".into(), Some(payload("begun"))).unwrap();
    let said = b.until("said", |event| match event {
        Event::Said { from, body, payload } => {
            Some((from.clone(), body.clone(), payload.as_ref().map(|payload| payload.text())))
        }
        _ => None,
    });
    assert_eq!(said.await, (bed.jid("a"), "refresh begun".to_owned(), Some("begun".to_owned())));
    a.close().await;
    let gone = b.until("gone", |event| match event {
        Event::Gone { nick, jid } => Some((nick.clone(), jid.to_bare())),
        _ => None,
    });
    assert_eq!(gone.await, ("a-nick".to_owned(), bed.jid("a")));
    b.close().await;
}

#[tokio::test]
async fn who_is_put_out_comes_back() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let room = r#"{"name":"suffix","service":"conference.xmpp.test"}"#;
    bed.xmpp.api("destroy_room", room).unwrap();
    a.problem("was put out of the room").await;
    // The room is made anew.
    a.online().await;
    a.group.send_room("1".into(), payload("x")).unwrap();
    a.until("echo", |event| matches!(event, Event::Echo { .. }).then_some(())).await;
    a.close().await;
}

#[tokio::test]
async fn a_nick_that_is_taken_is_reported() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut group = bed.group("b", &["a"]);
    group.nick = "a-nick".into();
    let mut b = Member::new(bed.config("b"), group).await;
    b.problem("is taken").await;
    a.close().await;
    b.online().await;
    b.close().await;
}

#[tokio::test]
async fn a_missing_muc_service_is_named() {
    let bed = Bed::with(XmppOptions { rooms: false, ..Default::default() }, &["a"]);
    let mut a = bed.member("a", &["b"]).await;
    let text = a.problem("no MUC service").await;
    assert!(text.contains("conference.xmpp.test") && text.contains("xmppsync-muc"), "{text}");
    a.close().await;
}

#[tokio::test]
async fn two_groups_share_one_connection() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    let mut b = bed.member("b", &["a"]).await;
    let second = |user, peers: &[&str]| {
        let mut group = bed.group(user, peers);
        group.room = "second@conference.xmpp.test".parse().unwrap();
        group.node = format!("{}/second", group.node);
        group
    };
    let taken = a.session.attach(bed.group("a", &["b"]), card("x")).await;
    assert!(taken.is_err(), "one room for two groups");
    let (a2, mut a2_events) = a.session.attach(second("a", &["b"]), card("a2")).await.unwrap();
    let (b2, mut b2_events) = b.session.attach(second("b", &["a"]), card("b2")).await.unwrap();
    tokio::join!(a.online(), b.online());
    common::eventually("the second group is there", || a2.is_online() && b2.is_online()).await;

    // Payloads and requests of one group do not show up in the other.
    a2.send_room("1".into(), payload("for the second")).unwrap();
    let answering = async {
        loop {
            match b2_events.recv().await.expect("session ended") {
                Event::Live { payload, .. } => assert_eq!(payload.text(), "for the second"),
                Event::Request { payload: asked, reply, .. } => {
                    assert_eq!(asked.text(), "of the second");
                    return reply.ok(payload("answer")).unwrap();
                }
                _ => {}
            }
        }
    };
    let asking = a2.request(bed.config("b").jid, payload("of the second"), common::DEADLINE);
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer.unwrap().text(), "answer");
    let misled = |event: &Event| matches!(event, Event::Live { .. } | Event::Request { .. });
    assert!(!b.drain().iter().any(misled));

    // A group that leaves does not disturb the other.
    a2.detach();
    while a2_events.recv().await.is_some() {}
    a.group.send_room("2".into(), payload("still here")).unwrap();
    assert_eq!(b.live().await.1, "still here");
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_payload_that_cannot_travel_is_refused_before_it_harms_the_connection() {
    let bed = Bed::start(&["a"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let large = payload(&"x".repeat(xmppsync_link::limits::PAYLOAD_BYTES_MAX));
    assert_eq!(a.group.send_room("1".into(), large), Err(SendError::TooLarge));
    assert_eq!(a.group.send_room("2".into(), payload("\u{0}")), Err(SendError::NotXml));
    // The largest that is allowed does get through.
    let fits = payload(&"x".repeat(xmppsync_link::limits::PAYLOAD_BYTES_MAX - 100));
    a.group.send_room("3".into(), fits).unwrap();
    a.until("echo", |event| matches!(event, Event::Echo { id } if id == "3").then_some(())).await;
    a.close().await;
}

#[tokio::test]
async fn a_group_that_does_not_listen_is_told_of_its_loss_and_gets_the_state_anew() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    let total = xmppsync_link::limits::EVENTS_MAX + 500;
    let mut sent = 0;
    for echoed in 0..total {
        while sent < total && sent < echoed + 100 {
            a.group.send_room(sent.to_string(), payload("x")).unwrap();
            sent += 1;
        }
        a.until("echo", |event| matches!(event, Event::Echo { .. }).then_some(())).await;
    }
    let count = b.until("loss", |event| match event {
        Event::Lost { count } => Some(*count),
        _ => None,
    });
    assert!(count.await >= 500);
    b.online().await;
    assert_eq!(b.card_of(&bed.jid("a")).await, "a@xmpp.test/ldap");
    a.group.send_room("again".into(), payload("again")).unwrap();
    assert_eq!(b.live().await.1, "again");
    a.close().await;
    b.close().await;
}

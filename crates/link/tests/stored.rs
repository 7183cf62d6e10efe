//! Messages that a real XMPP server keeps for a peer that is away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Bed, Member, card, payload};
use xmppsync_lab::XmppOptions;
use xmppsync_link::limits::{PAYLOAD_BYTES_MAX, STORED_BYTES_MAX};
use xmppsync_link::{BareJid, Event, GroupConfig, Password, SendError, Session};

/// Sender, text, and whether the server kept it.
type Came = (BareJid, String, bool);

async fn stored(member: &mut Member) -> Came {
    member
        .until("stored payload", |event| match event {
            Event::Stored { from, payload, delayed } => Some((from.clone(), payload.text(), *delayed)),
            _ => None,
        })
        .await
}

async fn not_stored(member: &mut Member) -> (String, BareJid, String) {
    member
        .until("bounce", |event| match event {
            Event::NotStored { id, to, reason } => Some((id.clone(), to.clone(), reason.clone())),
            _ => None,
        })
        .await
}

fn send(from: &Member, to: BareJid, texts: impl IntoIterator<Item = String>) {
    for text in texts {
        from.group.send_stored(text.clone(), to.clone(), payload(&text)).unwrap();
    }
}

/// Waits until the server keeps that many for the user.
async fn kept(bed: &Bed, user: &str, count: usize) {
    let arguments = format!(r#"{{"user":"{user}","host":"xmpp.test"}}"#);
    let mut seen = String::new();
    common::eventually("messages in the store", || {
        seen = bed.xmpp.api("get_offline_count", &arguments).unwrap();
        seen.chars().filter(char::is_ascii_digit).collect::<String>() == count.to_string()
    })
    .await;
}

fn in_room(bed: &Bed, user: &str, peers: &[&str], room: &str) -> GroupConfig {
    let room = BareJid::new(&format!("{room}@conference.xmpp.test")).unwrap();
    GroupConfig { room, ..bed.group(user, peers) }
}

#[tokio::test]
async fn messages_to_a_peer_that_is_away_wait_for_it_in_order() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    send(&a, bed.jid("b"), (0..50).map(|n| n.to_string()));
    kept(&bed, "b", 50).await;
    let mut b = bed.member("b", &["a"]).await;
    for n in 0..50 {
        assert_eq!(stored(&mut b).await, (bed.jid("a"), n.to_string(), true));
    }
    // They come before the seat in the room, and leave no trace of how they travelled.
    b.online().await;
    send(&a, bed.jid("b"), ["present".to_owned()]);
    assert_eq!(stored(&mut b).await, (bed.jid("a"), "present".to_owned(), false));
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_stored_payload_comes_as_it_was_sent() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let sent = payload("  <&> zoë ");
    a.group.send_stored("1".into(), bed.jid("b"), sent.clone()).unwrap();
    kept(&bed, "b", 1).await;
    let mut b = bed.member("b", &["a"]).await;
    let came = b.until("stored", |event| match event {
        // As text: how a parser cuts text into nodes is its own affair.
        Event::Stored { payload, .. } => Some(String::from(payload)),
        _ => None,
    });
    assert_eq!(came.await, String::from(&sent));
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn what_the_server_does_not_keep_comes_back() {
    let options = XmppOptions { max_offline_messages: Some(3), ..Default::default() };
    let bed = Bed::with(options, &["a", "b"]);
    let mut a = bed.member("a", &["b", "nobody"]).await;
    a.online().await;
    send(&a, bed.jid("b"), (0..5).map(|n| format!("id.{n}")));
    for n in 3..5 {
        let (id, to, reason) = not_stored(&mut a).await;
        assert_eq!((id, to), (format!("id.{n}"), bed.jid("b")));
        assert!(reason.contains("full"), "{reason}");
    }
    send(&a, bed.jid("nobody"), ["x".to_owned()]);
    let (id, to, reason) = not_stored(&mut a).await;
    assert_eq!((id.as_str(), to), ("x", bed.jid("nobody")));
    assert!(reason.contains("service-unavailable"), "{reason}");
    let mut b = bed.member("b", &["a"]).await;
    for n in 0..3 {
        assert_eq!(stored(&mut b).await.1, format!("id.{n}"));
    }
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_server_without_a_store_is_reported_and_sends_messages_back() {
    let bed = Bed::with(XmppOptions { offline: false, ..Default::default() }, &["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    let text = a.problem("keeps no messages for absent users").await;
    assert!(text.contains("xmpp.test"), "{text}");
    a.online().await;
    send(&a, bed.jid("b"), ["1".to_owned()]);
    assert_eq!(not_stored(&mut a).await.0, "1");
    // A group that comes later is told as well.
    let config = in_room(&bed, "a", &["b"], "second");
    let (_second, mut events) = a.session.attach(config, card("second")).await.unwrap();
    let told =
        |event: Event| matches!(event, Event::Problem(problem) if problem.to_string().contains("keeps no"));
    common::eventually("the second group is told", || events.try_recv().is_ok_and(told)).await;
    a.close().await;
}

#[tokio::test]
async fn a_server_with_a_store_is_no_problem() {
    let bed = Bed::start(&["a"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    // Service discovery was asked before the room, and answered by the same server.
    a.group.send_room("1".into(), payload("x")).unwrap();
    let told = a.until("echo", |event| match event {
        Event::Problem(problem) => Some(Some(problem.to_string())),
        Event::Echo { .. } => Some(None),
        _ => None,
    });
    assert_eq!(told.await, None);
    a.close().await;
}

#[tokio::test]
async fn a_stored_message_of_a_stranger_is_dropped_and_reported() {
    let bed = Bed::start(&["a", "b", "m"]);
    let mut m = bed.member("m", &["b"]).await;
    m.online().await;
    send(&m, bed.jid("b"), (0..10).map(|n| n.to_string()));
    m.close().await;
    kept(&bed, "b", 10).await;
    let mut a = Member::new(bed.config("a"), in_room(&bed, "a", &["b"], "elsewhere")).await;
    a.online().await;
    let mut b = Member::new(bed.config("b"), in_room(&bed, "b", &["a"], "suffix")).await;
    let text = b.problem("is no member of this group").await;
    assert!(text.contains("m@xmpp.test") && text.contains(" 1 of its messages"), "{text}");
    // A peer, but of a room that b has no group for.
    send(&a, bed.jid("b"), ["other room".to_owned()]);
    let own = b.group.send_stored("2".into(), bed.jid("m"), payload("x"));
    assert_eq!(own, Ok(()));
    let (id, _, reason) = not_stored(&mut b).await;
    assert!(id == "2" && reason.contains("no peer"), "{reason}");
    assert!(!b.drain().iter().any(|event| matches!(event, Event::Stored { .. })));
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_message_for_a_group_that_is_attached_a_moment_later_arrives() {
    let bed = Bed::start(&["a", "b"]);
    let mut first = Member::new(bed.config("a"), in_room(&bed, "a", &["b"], "first")).await;
    first.online().await;
    let config = in_room(&bed, "a", &["b"], "second");
    let (second, _events) = first.session.attach(config, card("a")).await.unwrap();
    for n in 0..5 {
        second.send_stored(n.to_string(), bed.jid("b"), payload(&n.to_string())).unwrap();
    }
    send(&first, bed.jid("b"), ["of the first".to_owned()]);
    kept(&bed, "b", 6).await;

    let mut b = Member::new(bed.config("b"), in_room(&bed, "b", &["a"], "first")).await;
    assert_eq!(stored(&mut b).await.1, "of the first");
    b.online().await;
    let second = in_room(&bed, "b", &["a"], "second");
    let (group, mut events) = b.session.attach(second, card("b")).await.unwrap();
    let mut later = Vec::new();
    common::eventually("all of the second", || {
        later.extend(std::iter::from_fn(|| events.try_recv().ok()).filter_map(|event| match event {
            Event::Stored { payload, .. } => Some(payload.text()),
            _ => None,
        }));
        later.len() == 5
    })
    .await;
    assert_eq!(later, ["0", "1", "2", "3", "4"]);
    drop(group);
    first.close().await;
    b.close().await;
}

#[tokio::test]
async fn without_a_group_the_server_goes_on_to_keep_messages() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    // A session whose only group was taken off.
    let session = Session::start(bed.config("b"));
    let (group, mut events) = session.attach(bed.group("b", &["a"]), card("b")).await.unwrap();
    common::eventually("b is online", || group.is_online()).await;
    group.detach();
    while events.recv().await.is_some() {}
    send(&a, bed.jid("b"), ["1".to_owned()]);
    kept(&bed, "b", 1).await;
    let (group, mut events) = session.attach(bed.group("b", &["a"]), card("b")).await.unwrap();
    let is_it = |event: Event| matches!(event, Event::Stored { payload, .. } if payload.text() == "1");
    common::eventually("the message", || events.try_recv().is_ok_and(is_it)).await;
    drop(group);
    session.close(Duration::from_secs(5)).await;
    a.close().await;
}

#[tokio::test]
async fn a_hundred_large_messages_at_once_arrive() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    large(&mut a, &bed, 100).await;
    let mut b = bed.member("b", &["a"]).await;
    // All of them wait at once: the group looks only after it is in the room.
    common::eventually("b is online", || b.group.is_online()).await;
    for n in 0..100 {
        let (_, text, _) = stored(&mut b).await;
        assert_eq!(text.trim_start_matches('x'), n.to_string());
    }
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn more_than_may_wait_is_told_as_lost() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let fit = STORED_BYTES_MAX / LARGE;
    let count = fit + 40;
    large(&mut a, &bed, count).await;
    let mut b = bed.member("b", &["a"]).await;
    common::eventually("b is online", || b.group.is_online()).await;
    let mut arrived = 0;
    let lost = b.until("the loss", |event| match event {
        Event::Stored { .. } => {
            arrived += 1;
            None
        }
        Event::Lost { count } => Some(*count),
        _ => None,
    });
    let lost = lost.await;
    // Some are events already, the rest waits as text.
    assert!((fit - 1..fit + 20).contains(&arrived), "{arrived} of {fit}");
    // With what came after them: the own seat in the room, say.
    assert!(lost >= (count - arrived) as u64, "{lost}");
    b.online().await;
    a.close().await;
    b.close().await;
}

const LARGE: usize = PAYLOAD_BYTES_MAX - 1024;

/// Lets the server keep so many of nearly the largest size.
async fn large(a: &mut Member, bed: &Bed, count: usize) {
    for n in 0..count {
        let text = format!("{}{n}", "x".repeat(LARGE));
        let send = || a.group.send_stored(n.to_string(), bed.jid("b"), payload(&text));
        common::eventually("room in the queue", || match send() {
            Ok(()) => true,
            Err(SendError::Full) => false,
            Err(error) => panic!("{error}"),
        })
        .await;
    }
    kept(bed, "b", count).await;
}

#[tokio::test]
async fn without_a_connection_nothing_is_taken() {
    let bed = Bed::start(&["a"]);
    let mut config = bed.config("a");
    config.password = Password::new("wrong");
    let mut a = Member::new(config, bed.group("a", &["b"])).await;
    a.problem("refuses the password").await;
    assert_eq!(a.group.send_stored("1".into(), bed.jid("b"), payload("x")), Err(SendError::Offline));
    a.close().await;
}

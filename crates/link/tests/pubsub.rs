//! The pubsub nodes of a group on a real XMPP server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Bed, eventually, node_of, payload};
use xmppsync_lab::XmppOptions;
use xmppsync_link::{Carrier, Event};

#[tokio::test]
async fn pubsub_items_reach_the_peers() {
    let bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    // Subscribing before the node exists is no mistake: it is tried again.
    b.group.subscribe(bed.jid("a"), node_of("a")).unwrap();
    let mut sent = 0;
    let (from, text) = loop {
        // Until b is subscribed, nothing of what is published reaches it.
        sent += 1;
        a.group.publish(sent.to_string(), payload(&sent.to_string())).unwrap();
        a.until("published", |event| match event {
            Event::Published { id, .. } if *id == sent.to_string() => Some(()),
            _ => None,
        })
        .await;
        let next = tokio::time::timeout(std::time::Duration::from_millis(200), b.events.recv()).await;
        if let Ok(Some(Event::Live { from, payload, carrier })) = next {
            assert_eq!(carrier, Carrier::Node);
            break (from, payload.text());
        }
        assert!(sent < 200, "nothing came");
    };
    assert_eq!(from, bed.jid("a"));
    let first: u32 = text.parse().unwrap();
    for n in sent + 1..sent + 100 {
        a.group.publish(n.to_string(), payload(&n.to_string())).unwrap();
    }
    for n in first + 1..sent + 100 {
        assert_eq!(b.live().await, (bed.jid("a"), n.to_string()));
    }
    for n in sent + 1..sent + 100 {
        let result = a.until("published", |event| match event {
            Event::Published { id, result } if *id == n.to_string() => Some(result.clone()),
            _ => None,
        });
        assert_eq!(result.await, Ok(()));
    }
    assert_eq!(a.group.outsiders(), 0);
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_subscriber_who_is_no_peer_counts_as_an_outsider() {
    let bed = Bed::start(&["a", "b", "audit"]);
    let mut a = bed.member("a", &["b", "audit"]).await;
    a.online().await;
    let mut audit = bed.member("audit", &["a"]).await;
    audit.online().await;
    audit.group.subscribe(bed.jid("a"), node_of("a")).unwrap();
    let mut sent = 0;
    eventually("audit is subscribed", || {
        sent += 1;
        a.group.publish(sent.to_string(), payload("x")).unwrap();
        audit.drain().iter().any(|event| matches!(event, Event::Live { carrier: Carrier::Node, .. }))
    })
    .await;
    a.close().await;
    // The node and its subscribers outlive the session; now audit is no peer any more.
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    eventually("the outsider is counted", || a.group.outsiders() == 1).await;
    a.close().await;
    audit.close().await;
}

#[tokio::test]
async fn without_a_pubsub_service_the_room_goes_on() {
    let bed = Bed::with(XmppOptions { pubsub: false, ..Default::default() }, &["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    let mut b = bed.member("b", &["a"]).await;
    a.group.subscribe(bed.jid("b"), node_of("b")).unwrap();
    let text = a.problem("no pubsub service").await;
    assert!(text.contains("pubsub.xmpp.test") && text.contains("xmppsync-pubsub"), "{text}");
    b.online().await;
    eventually("a is in the room", || a.group.is_online()).await;
    b.group.send_room("1".into(), payload("goes on")).unwrap();
    a.live().await;
    assert!(!a.drain().iter().any(|event| matches!(event, Event::Problem(_))), "reported twice");
    a.close().await;
    b.close().await;
}

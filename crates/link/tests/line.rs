//! The connection to a real XMPP server: when it cannot be made, and when it is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Bed, DEADLINE, Member, payload};
use tokio::time::timeout;
use xmppsync_lab::{LabDir, XmppData, XmppOptions, XmppServer};
use xmppsync_link::{Event, Password, Problem, RequestError, Server, Tls};

#[tokio::test]
async fn a_wrong_password_is_reported_once_and_not_retried_hot() {
    let options = XmppOptions { log_level: "info".into(), ..Default::default() };
    let bed = Bed::with(options, &["a"]);
    let mut config = bed.config("a");
    config.password = Password::new("wrong");
    let mut a = Member::new(config, bed.group("a", &[])).await;
    let text = a.problem("refuses the password").await;
    assert!(text.contains("a@xmpp.test") && !text.contains("wrong"), "{text}");
    // Time for several attempts, were there any: the first back-off is a quarter of a second.
    let more = timeout(Duration::from_secs(3), a.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(bed.xmpp.refused_logins(), 1, "{}", bed.xmpp.log());
    a.close().await;
}

#[tokio::test]
async fn a_password_that_was_taken_before_is_soon_tried_again() {
    let bed = Bed::start(&["a"]);
    let mut a = bed.member("a", &[]).await;
    a.online().await;
    let change = |password: &str| {
        let arguments = format!(r#"{{"user":"a","host":"xmpp.test","newpass":"{password}"}}"#);
        bed.xmpp.api("change_password", &arguments).unwrap();
    };
    change("another");
    bed.xmpp.api("kick_user", r#"{"user":"a","host":"xmpp.test"}"#).unwrap();
    let text = a.problem("which it took before").await;
    assert!(text.contains("a@xmpp.test"), "{text}");
    // As a server does that answers before it has read its accounts.
    change("a");
    a.online().await;
    a.close().await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let bed = Bed::start(&["a"]);
    let other = LabDir::new().unwrap();
    let ca = other.subdir("ca").unwrap().join("ca.pem");
    let authority = xmppsync_lab::certificates::Authority::new("another").unwrap();
    std::fs::write(&ca, authority.pem()).unwrap();
    for tls in [Tls::StartTls, Tls::Direct] {
        let mut config = bed.config("a");
        config.tls = tls;
        config.ca = Some(ca.clone());
        if tls == Tls::Direct {
            config.server = direct(&bed.xmpp);
        }
        let mut a = Member::new(config, bed.group("a", &[])).await;
        let text = a.problem("is refused").await;
        assert!(text.contains("certificate") && text.contains("name its authority"), "{text}");
        a.close().await;
    }
}

fn direct(xmpp: &XmppServer) -> Server {
    let address = xmpp.client_tls_address();
    Server::Host { host: address.ip().to_string(), port: address.port() }
}

#[tokio::test]
async fn every_kind_of_protection_leads_to_the_room() {
    let bed = Bed::start(&["a"]);
    for tls in [Tls::StartTls, Tls::Direct, Tls::InsecurePlaintext] {
        let mut config = bed.config("a");
        config.tls = tls;
        if tls == Tls::Direct {
            config.server = direct(&bed.xmpp);
        }
        let mut a = Member::new(config, bed.group("a", &["b"])).await;
        a.online().await;
        a.close().await;
    }
}

#[tokio::test]
async fn a_dead_port_and_an_unknown_host_are_named() {
    let bed = Bed::start(&["a"]);
    let lab = LabDir::new().unwrap();
    let mut config = bed.config("a");
    config.server = Server::Host { host: "127.0.0.1".into(), port: lab.free_address().unwrap().port() };
    let mut a = Member::new(config, bed.group("a", &[])).await;
    let text = a.problem("no connection to the XMPP server").await;
    assert!(text.contains("127.0.0.1:") && text.contains("refused"), "{text}");
    assert!(timeout(Duration::from_secs(2), a.events.recv()).await.is_err(), "reported again");
    a.close().await;

    let mut config = bed.config("a");
    config.server = Server::Host { host: "nosuchhost.invalid".into(), port: 5222 };
    let mut a = Member::new(config, bed.group("a", &[])).await;
    a.problem("nosuchhost.invalid cannot be resolved").await;
    a.close().await;
}

#[tokio::test]
async fn after_a_server_restart_both_are_back() {
    restart(XmppData::Keep).await;
}

#[tokio::test]
async fn after_a_server_lost_its_memory_both_are_back() {
    restart(XmppData::Drop).await;
}

async fn restart(data: XmppData) {
    let mut bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    b.group.subscribe(bed.jid("a"), common::node_of("a")).unwrap();
    let restarted = tokio::task::spawn_blocking(move || {
        bed.xmpp.restart(data).unwrap();
        bed
    });
    let (bed, (), ()) = tokio::join!(restarted, offline_and_online(&mut a), offline_and_online(&mut b));
    let bed = bed.unwrap();
    common::eventually("both are in the room", || a.group.is_online() && b.group.is_online()).await;
    // The room may have been lost and made anew by either: a payload has to get through in the end.
    let mut n = 0;
    common::eventually("a payload by the room", || {
        n += 1;
        let _: Result<_, _> = a.group.send_room(n.to_string(), payload("again"));
        b.drain().iter().any(|event| matches!(event, Event::Live { from, .. } if *from == bed.jid("a")))
    })
    .await;
    common::eventually("a payload by the node", || {
        n += 1;
        let _: Result<_, _> = a.group.publish(n.to_string(), payload("again"));
        let is_item =
            |event: &Event| matches!(event, Event::Live { carrier: xmppsync_link::Carrier::Node, .. });
        b.drain().iter().any(is_item)
    })
    .await;
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_request_in_flight_ends_with_the_connection() {
    let mut bed = Bed::start(&["a", "b"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    let asked = a.group.request(bed.config("b").jid, payload("pull"), DEADLINE);
    let killed = async {
        // Held back, so that no answer goes out.
        let reply = loop {
            if let Some(Event::Request { reply, .. }) = b.events.recv().await {
                break reply;
            }
        };
        bed.xmpp.kill().unwrap();
        reply
    };
    let (answer, reply) =
        timeout(Duration::from_secs(5), async { tokio::join!(asked, killed) }).await.unwrap();
    assert_eq!(answer, Err(RequestError::Offline));
    drop(reply);
    a.close().await;
    b.close().await;
}

async fn offline_and_online(member: &mut Member) {
    member.offline().await;
    member.problem("connection").await;
    member.online().await;
}

#[tokio::test]
async fn two_clients_with_one_full_jid_do_not_end_each_other_hot() {
    let bed = Bed::start(&["a"]);
    let mut first = bed.member("a", &[]).await;
    first.online().await;
    let mut second = bed.member("a", &[]).await;
    let text = first.problem("somebody else is logged in").await;
    assert!(text.contains("a@xmpp.test/ldap"), "{text}");
    second.online().await;
    // Less than the shortest wait after a conflict.
    let taken =
        |event: &Event| matches!(event, Event::Problem(Problem::LoggedInElsewhere { .. })).then_some(());
    let again = timeout(Duration::from_secs(4), second.until("the second is ended", taken)).await;
    assert!(again.is_err(), "the first came back at once");
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let bed = Bed::start(&["a"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    bed.xmpp.pause().unwrap();
    let noticed = timeout(Duration::from_secs(60), async {
        loop {
            if let Some(Event::Offline { .. }) = a.events.recv().await {
                return;
            }
        }
    });
    let result = noticed.await;
    bed.xmpp.resume().unwrap();
    result.expect("a dead line was not noticed within a minute");
    a.online().await;
    a.close().await;
}

#[tokio::test]
async fn closing_while_the_server_is_away_does_not_hang() {
    let mut bed = Bed::start(&["a"]);
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    bed.xmpp.kill().unwrap();
    a.offline().await;
    let closed = timeout(Duration::from_secs(2), a.close()).await;
    assert!(closed.is_ok());
}

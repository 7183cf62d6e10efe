//! The lab's own servers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpStream;
use std::time::Duration;

use xmppsync_lab::{
    Database, LabDir, Slapd, SlapdConfig, SlapdOptions, XmppData, XmppKind, XmppOptions, XmppServer,
};

#[test]
fn ejabberd_starts_twice_side_by_side() {
    starts_twice_side_by_side(XmppKind::Ejabberd);
}

#[test]
fn prosody_starts_twice_side_by_side() {
    starts_twice_side_by_side(XmppKind::Prosody);
}

fn starts_twice_side_by_side(kind: XmppKind) {
    let options = XmppOptions { kind, ..XmppOptions::default() };
    let (first, second) = (LabDir::new().unwrap(), LabDir::new().unwrap());
    let mut first = XmppServer::start(&first, options.clone()).unwrap();
    let mut second = XmppServer::start(&second, options).unwrap();
    first.register("a", "secret").unwrap();
    second.register("a", "secret").unwrap();
    for xmpp in [&first, &second] {
        let users = xmpp.api("registered_users", r#"{"host":"xmpp.test"}"#).unwrap();
        assert_eq!(users, r#"["a"]"#);
        TcpStream::connect(xmpp.client_address()).unwrap();
        TcpStream::connect(xmpp.client_tls_address()).unwrap();
    }
    first.restart(XmppData::Keep).unwrap();
    assert!(first.register("a", "secret").is_err(), "the account is kept over a restart");
    second.kill().unwrap();
    second.start_again(XmppData::Drop).unwrap();
    assert!(second.register("a", "secret").is_err(), "the account is there again");
    for xmpp in [&first, &second] {
        let log = xmpp.log();
        assert!(!log.contains("[error]") && !log.contains("\terror\t"), "{log}");
    }
    println!("start: {:?}, {:?} KiB", first.start_took(), first.resident_kib());
}

#[test]
fn a_slapd_that_cannot_start_returns_its_log() {
    let lab = LabDir::new().unwrap();
    let mut database = Database::new("dc=example,dc=com");
    database.lines.push("no-such-directive on".to_owned());
    let config = SlapdConfig { databases: vec![database], ..SlapdConfig::default() };
    let error = Slapd::run(&lab, "a", config, SlapdOptions::default()).unwrap_err().to_string();
    assert!(error.contains("no-such-directive"), "{error}");
    assert!(error.contains("ended at start"), "{error}");
}

#[test]
fn slapd_stops_starts_and_is_killed() {
    let lab = LabDir::new().unwrap();
    let mut slapd = Slapd::run(&lab, "a", SlapdConfig::default(), SlapdOptions::default()).unwrap();
    slapd.wait_log("slapd starting", Duration::from_secs(5)).unwrap();
    assert!(slapd.restart().unwrap().status.success());
    assert!(!slapd.kill9().unwrap().status.success());
    slapd.start().unwrap();
    let ldif = slapd.slapcat_config().unwrap();
    assert!(ldif.contains("olcSuffix: dc=example,dc=com"), "{ldif}");
    slapd.stop().unwrap();
    slapd.use_config_directory().unwrap();
    slapd.start().unwrap();
}

#[test]
fn slapd_runs_under_valgrind() {
    let lab = LabDir::new().unwrap();
    let options = SlapdOptions { valgrind: true, ..SlapdOptions::default() };
    let mut slapd = Slapd::run(&lab, "a", SlapdConfig::default(), options).unwrap();
    let stopped = slapd.stop().unwrap();
    assert!(slapd.log().contains("ERROR SUMMARY: 0 errors"), "{:?}\n{}", stopped.status, slapd.log());
}

#[test]
fn debians_configurations_serve_in_a_lab() {
    for kind in [XmppKind::Ejabberd, XmppKind::Prosody] {
        let options = XmppOptions { kind, stock: true, ..XmppOptions::default() };
        let mut xmpp = XmppServer::start(&LabDir::new().unwrap(), options).unwrap();
        xmpp.register("a", "secret").unwrap();
        TcpStream::connect(xmpp.client_address()).unwrap();
        xmpp.restart(XmppData::Keep).unwrap();
        assert!(xmpp.register("a", "secret").is_err(), "the account is kept over a restart");
    }
}

//! The lab's own servers.

use std::net::TcpStream;
use std::time::Duration;

use xmppsync_lab::{Database, Ejabberd, EjabberdOptions, LabDir, Mnesia, Slapd, SlapdConfig, SlapdOptions};

#[test]
fn ejabberd_starts_twice_side_by_side() {
    let (first, second) = (LabDir::new().unwrap(), LabDir::new().unwrap());
    let mut first = Ejabberd::start(&first, EjabberdOptions::default()).unwrap();
    let mut second = Ejabberd::start(&second, EjabberdOptions::default()).unwrap();
    first.register("a", "secret").unwrap();
    second.register("a", "secret").unwrap();
    for ejabberd in [&first, &second] {
        let users = ejabberd.api("registered_users", r#"{"host":"xmpp.test"}"#).unwrap();
        assert_eq!(users, r#"["a"]"#);
        TcpStream::connect(ejabberd.client_tls_address()).unwrap();
    }
    first.restart(Mnesia::Keep).unwrap();
    assert!(first.register("a", "secret").is_err(), "the account is kept over a restart");
    second.kill().unwrap();
    second.start_again(Mnesia::Drop).unwrap();
    assert!(second.register("a", "secret").is_err(), "the account is registered again");
    for ejabberd in [&first, &second] {
        assert!(!ejabberd.log().contains("[error]"), "{}", ejabberd.log());
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

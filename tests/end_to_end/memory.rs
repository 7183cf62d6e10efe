//! A short run under valgrind.

use crate::PATIENCE;
use crate::meanwhile::{assert_travels, load, wait_joined};
use xmppsync_lab::{Group, GroupOptions, SUFFIX, SlapdOptions, Tls};

/// Reports that have a frame of the overlay, each as long as valgrind's paragraph is.
fn reports_of_overlay<'a>(log: &'a str, kind: &str) -> Vec<&'a str> {
    let mut reports = Vec::new();
    for (begin, _) in log.match_indices(kind) {
        let end = log[begin..]
            .match_indices("\n==")
            .find(|(at, _)| log[begin + at + 1..].lines().next().is_some_and(|line| line.ends_with("== ")));
        let report = &log[begin..end.map_or(log.len(), |(at, _)| begin + at)];
        if ["libxmppsync", "src/shim/", ".rs:"].iter().any(|ours| report.contains(ours)) {
            reports.push(report);
        }
    }
    reports
}

#[test]
fn valgrind_finds_no_error_and_no_leak_in_a_short_run() {
    let slapd = SlapdOptions { valgrind: true, ..SlapdOptions::default() };
    // The cipher's assembly looks to valgrind as if it used uninitialised memory.
    let tls = Tls::Plaintext;
    let mut group = Group::with(GroupOptions { servers: 2, tls, slapd, ..GroupOptions::default() }).unwrap();
    group.servers.iter().for_each(|server| wait_joined(server, PATIENCE));
    load(&group.servers[0]);
    group.assert_equal(PATIENCE * 4).unwrap();
    assert_travels(&group.servers[1], &group.servers[0], "from b");
    let mut ldap = group.servers[1].ldap().unwrap();
    ldap.add(&format!("cn=x,{SUFFIX}"), &[("objectClass", "device"), ("cn", "x")]).unwrap();
    ldap.rename(&format!("cn=x,{SUFFIX}"), "cn=y", None).unwrap();
    ldap.delete(&format!("cn=y,{SUFFIX}")).unwrap();
    // The overlay is closed and opened, which a short life else does once.
    let overlay = "dn: olcOverlay={0}xmppsync,olcDatabase={1}mdb,cn=config\nchangetype: modify\n";
    let change = format!("{overlay}add: olcXmppSyncPeer\nolcXmppSyncPeer: c@xmpp.test\n");
    group.servers[1].ldapmodify_config(&change).unwrap();
    assert_travels(&group.servers[1], &group.servers[0], "from b, reopened");
    group.assert_equal(PATIENCE * 4).unwrap();
    for server in &mut group.servers {
        let stopped = server.stop().unwrap();
        let log = server.log();
        // 99 is valgrind's own.
        assert!(stopped.status.success(), "{}: {}\n{log}", server.name(), stopped.status);
        assert!(log.contains("LEAK SUMMARY"), "valgrind did not look for leaks");
        let leaks = reports_of_overlay(&log, "definitely lost in loss record");
        assert!(leaks.is_empty(), "{}: {}", server.name(), leaks.join("\n\n"));
    }
}

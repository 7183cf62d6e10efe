//! Each example in `slapd-conf-examples/` is what slapd takes, and its servers become equal.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

use std::time::Duration;

use xmppsync_lab::{
    LabDir, Slapd, SlapdOptions, XmppOptions, XmppServer, assert_equal, examples, ldif, wait_until,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// The servers of an example, started, with the suffix entries added on the first.
struct Running {
    servers: Vec<Slapd>,
    _xmpp: XmppServer,
}

fn run(files: &[&str]) -> Running {
    let lab = LabDir::new().unwrap();
    let domain = examples::DOMAIN.to_owned();
    let options = XmppOptions { domain, ..XmppOptions::default() };
    let mut xmpp = XmppServer::start(&lab, options).unwrap();
    let mut servers = Vec::new();
    for file in files {
        let mut slapd = examples::slapd(&lab, &mut xmpp, file, SlapdOptions::default()).unwrap();
        if !slapd.is_running() {
            slapd.slaptest().unwrap();
            slapd.start().unwrap();
        }
        servers.push(slapd);
    }
    Running { servers, _xmpp: xmpp }
}

impl Running {
    /// Adds a directory on the first server and waits for it on the others.
    fn assert_replicates(&self, suffix: &str) {
        let records = ldif::directory(suffix, 5);
        self.servers[0].ldapmodify(suffix, &ldif::text(&records)).unwrap();
        wait_until("all entries are on the last server", DEADLINE, || {
            let mut ldap = self.servers.last().unwrap().ldap_of(suffix).unwrap();
            let count =
                xmppsync_lab::dump(&mut ldap, suffix, xmppsync_lab::ContextCsn::Ignore).unwrap().len();
            if count == records.len() { Ok(()) } else { Err(format!("{count} of {}", records.len())) }
        })
        .unwrap();
        assert_equal(&self.servers, suffix, DEADLINE).unwrap();
    }
}

#[test]
fn two_servers() {
    run(&["two-servers/ldap1.conf", "two-servers/ldap2.conf"]).assert_replicates("dc=example,dc=com");
}

#[test]
fn three_servers() {
    let files = ["three-servers/ldap1.conf", "three-servers/ldap2.conf", "three-servers/ldap3.conf"];
    run(&files).assert_replicates("dc=example,dc=com");
}

#[test]
fn several_databases() {
    let running = run(&["several-databases/ldap1.conf", "several-databases/ldap2.conf"]);
    running.assert_replicates("ou=people,dc=example,dc=com");
    running.assert_replicates("ou=machines,dc=example,dc=com");
}

#[test]
fn cn_config() {
    run(&["cn-config/ldap1.ldif", "cn-config/ldap2.ldif"]).assert_replicates("dc=example,dc=com");
}

#[test]
fn tls_own_ca() {
    run(&["tls-own-ca/ldap1.conf", "tls-own-ca/ldap2.conf"]).assert_replicates("dc=example,dc=com");
}

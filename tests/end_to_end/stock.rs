//! ejabberd and prosody as Debian configures them: a client is throttled, and little is kept for one that is away.

use crate::PATIENCE;
use crate::loading::{full_and_empty_with, wait_loaded};
use crate::meanwhile::{count, end_of};
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;
use xmppsync_lab::{GroupOptions, SUFFIX, Slapd, XmppKind, XmppOptions, ldif, wait_for};

/// Entries that are loaded at first.
const ENTRIES: usize = 3_000;
/// Changes on each server; so many that a throttle of 3 kB/s is felt. The environment variable asks for more.
const CHANGES: usize = 100;
const CHANGES_VARIABLE: &str = "XMPPSYNC_STOCK_CHANGES";
/// Changes on each of two servers while the third is away. Debian's ejabberd keeps 100 messages for a user.
const MISSED: usize = 60;
/// Between two of them, so that each is a message of its own although the server reads slowly.
const PACE: Duration = Duration::from_millis(250);

#[test]
fn debians_ejabberd_carries_a_group() {
    carries_a_group(XmppKind::Ejabberd);
}

#[test]
fn debians_prosody_carries_a_group() {
    carries_a_group(XmppKind::Prosody);
}

fn carries_a_group(kind: XmppKind) {
    let changes = std::env::var(CHANGES_VARIABLE).ok().map_or(CHANGES, |text| text.parse().unwrap());
    let patience = PATIENCE * 2 + Duration::from_millis(500) * u32::try_from(changes).unwrap();
    let xmpp = XmppOptions { kind, stock: true, ..XmppOptions::default() };
    let mut options = GroupOptions { xmpp, ..GroupOptions::default() };
    options.slapd.debug_level = "none".to_owned();
    let mut group = full_and_empty_with(options, &ldif::text(&ldif::directory(SUFFIX, ENTRIES)));
    group.start().unwrap();
    group.servers[1..].iter().for_each(|server| drop(wait_loaded(server)));

    change_all(&group.servers, changes);
    group.assert_equal(patience).unwrap();

    group.servers[2].stop().unwrap();
    for server in &group.servers[..2] {
        wait_for("its leaving is seen", PATIENCE, || count(&server.run_log(), "left the room") > 0).unwrap();
    }
    thread::scope(|scope| {
        for server in &group.servers[..2] {
            scope.spawn(move || miss(server));
        }
    });
    group.servers[2].start().unwrap();
    group.assert_equal(patience).unwrap();
    for server in &group.servers {
        let log = server.log();
        assert_eq!(count(&log, "set aside"), 0, "{}:\n{}", server.name(), end_of(&log));
    }
}

/// Modifies other entries on each server, at the same time.
fn change_all(servers: &[Slapd], changes: usize) {
    thread::scope(|scope| {
        for (number, server) in servers.iter().enumerate() {
            scope.spawn(move || {
                let text = (0..changes).fold(String::new(), |mut text, change| {
                    let dn = ldif::person_dn(SUFFIX, (change * servers.len() + number) % ENTRIES);
                    let _ = write!(
                        text,
                        "dn: {dn}\nchangetype: modify\nreplace: description\ndescription: change {change}\n\n"
                    );
                    text
                });
                server.ldapmodify(SUFFIX, &text).unwrap();
            });
        }
    });
}

/// Single changes that an absent server misses.
fn miss(server: &Slapd) {
    let mut ldap = server.ldap().unwrap();
    for number in 0..MISSED {
        ldap.replace(&ldif::person_dn(SUFFIX, number), "title", &[&format!("{number} on {}", server.name())])
            .unwrap();
        thread::sleep(PACE);
    }
}

//! cn=config of a running slapd.

use crate::PATIENCE;
use crate::meanwhile::{
    OnDrop, Writer, assert_arrives, assert_travels, count, end_of, has_thread, load, load_offline,
    wait_for_occupants, wait_for_thread, write,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use xmppsync_lab::{Group, GroupOptions, SUFFIX, Slapd, SlapdOptions, wait_until};

const DATABASE: &str = "olcDatabase={1}mdb,cn=config";
const OVERLAY: &str = "olcOverlay={0}xmppsync,olcDatabase={1}mdb,cn=config";

/// The overlay's entry in cn=config with what its lines in slapd.conf say.
fn overlay_ldif(lines: &[String]) -> String {
    let mut ldif = format!(
        "dn: olcOverlay=xmppsync,{DATABASE}\nobjectClass: olcOverlayConfig\nobjectClass: olcXmppSyncConfig\n\
         olcOverlay: xmppsync\n"
    );
    for (directive, value) in lines.iter().filter_map(|line| line.split_once(' ')) {
        if let Some(name) = directive.strip_prefix("xmppsync-") {
            let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
            let name: String = name.split('-').map(capital).collect();
            ldif.push_str(&format!("olcXmppSync{name}: {value}\n"));
        }
    }
    ldif
}

pub(crate) fn change(slapd: &Slapd, changes: &str) -> Result<(), String> {
    let ldif = format!("dn: {OVERLAY}\nchangetype: modify\n{changes}");
    slapd.ldapmodify_config(&ldif).map_err(|error| error.to_string())
}

fn assert_both_ways(group: &Group, what: &str) {
    assert_travels(&group.servers[1], &group.servers[0], &format!("{what}, from b"));
    assert_travels(&group.servers[0], &group.servers[1], &format!("{what}, from a"));
}

/// A database that is not replicated at first, on a server with a configuration directory, and one that is.
fn half_a_group() -> Group {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    let mut config = group.config(0).unwrap();
    config.databases[0].overlay_lines.clear();
    group.servers[0].set_config(config).unwrap();
    group.servers[0].use_config_directory().unwrap();
    group.start().unwrap();
    load(&group.servers[1]);
    group
}

#[test]
fn the_overlay_is_added_changed_deleted_and_added_again_while_writes_go_on() {
    let mut group = half_a_group();
    let overlay = overlay_ldif(&group.overlay_lines(0).unwrap());
    let writer = Writer::start(&group.servers[1]);
    assert!(!has_thread(&group.servers[0]));

    group.servers[0].ldapmodify_config(&overlay).unwrap();
    assert_both_ways(&group, "added");
    wait_for_thread(&group.servers[0]);

    change(&group.servers[0], "replace: olcXmppSyncReplicated\nolcXmppSyncReplicated: FALSE\n").unwrap();
    wait_for_occupants(&group, &["b-2"]);
    assert!(!has_thread(&group.servers[0]), "not replicated, and the thread is still there");
    write(&mut group.servers[1].ldap().unwrap(), "while a does not replicate");
    writer.wait_for_more(100);
    assert_eq!(group.servers[0].ldap().unwrap().values(SUFFIX, "description").unwrap(), ["added, from a"]);
    change(&group.servers[0], "replace: olcXmppSyncReplicated\nolcXmppSyncReplicated: TRUE\n").unwrap();
    assert_arrives(&group.servers[0], "while a does not replicate");
    assert_both_ways(&group, "replicated again");

    let domain = group.xmpp.domain().to_owned();
    let password = format!(r#"{{"user":"a","host":"{domain}","newpass":"a new one"}}"#);
    group.xmpp.api("change_password", &password).unwrap();
    change(
        &group.servers[0],
        "delete: olcXmppSyncPasswordFile\n-\nadd: olcXmppSyncPassword\nolcXmppSyncPassword: a new one\n",
    )
    .unwrap();
    assert_both_ways(&group, "with a new password");

    group.servers[0].ldap_config().unwrap().delete(OVERLAY).unwrap();
    wait_for_occupants(&group, &["b-2"]);
    wait_until("the thread of the deleted overlay ends", PATIENCE, || match has_thread(&group.servers[0]) {
        true => Err(end_of(&group.servers[0].run_log())),
        false => Ok(()),
    })
    .unwrap();
    writer.wait_for_more(100);
    assert!(group.servers[0].ldap().unwrap().entry(SUFFIX).unwrap().is_some());

    let overlay = overlay.replace(
        &overlay.lines().find(|line| line.starts_with("olcXmppSyncPasswordFile")).unwrap().to_owned(),
        "olcXmppSyncPassword: a new one",
    );
    group.servers[0].ldapmodify_config(&overlay).unwrap();
    assert_both_ways(&group, "added again");
    writer.stop();
    group.assert_equal(PATIENCE).unwrap();

    assert!(group.servers[0].restart().unwrap().status.success());
    assert_both_ways(&group, "after a restart");
    assert!(!group.servers[0].log().contains("a new one"), "the log shows the password");
}

/// slapd closes a deleted overlay when its threads run again. And what was written without the overlay is looked for when that is
/// added: the search showed no entry, and the peers were told that all were deleted.
#[test]
fn the_overlay_is_deleted_and_added_while_its_own_server_is_written_to() {
    let group = half_a_group();
    let overlay = overlay_ldif(&group.overlay_lines(0).unwrap());
    group.servers[0].ldapmodify_config(&overlay).unwrap();
    assert_both_ways(&group, "before");
    let writer = Writer::start(&group.servers[0]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut ldap = group.servers[0].ldap().unwrap();
                while !done.load(Ordering::Relaxed) {
                    write(&mut ldap, "meanwhile");
                }
            });
        }
        let end = OnDrop(|| done.store(true, Ordering::Relaxed));
        for _ in 0..10 {
            group.servers[0].ldap_config().unwrap().delete(OVERLAY).unwrap();
            writer.wait_for_more(20);
            group.servers[0].ldapmodify_config(&overlay).unwrap();
            writer.wait_for_more(20);
        }
        drop(end);
    });
    writer.stop();
    assert_both_ways(&group, "after");
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn a_change_that_cannot_be_used_is_refused_and_replication_goes_on() {
    // A change with which the database could not be opened was answered with "operations error", cn=config
    // showed the old values, and the database was silently no longer replicated.
    let group = half_a_group();
    group.servers[0].ldapmodify_config(&overlay_ldif(&group.overlay_lines(0).unwrap())).unwrap();
    assert_both_ways(&group, "before");
    let entry = || group.servers[0].ldap_config().unwrap().entry(OVERLAY).unwrap().unwrap();
    let mut before = entry();
    let wrong = [
        ("replace: olcXmppSyncJid\nolcXmppSyncJid: xmpp.test\n", "no local part"),
        ("delete: olcXmppSyncJid\n", "xmppsync-jid is missing"),
        ("delete: olcXmppSyncPasswordFile\n", "write one of the two"),
        ("add: olcXmppSyncPassword\nolcXmppSyncPassword: x\n", "write one of the two"),
        ("replace: olcXmppSyncTlsCa\nolcXmppSyncTlsCa: /absent\n", "cannot be read"),
        ("add: olcXmppSyncPeer\nolcXmppSyncPeer: c@xmpp.test/r\n", "has a resource"),
    ];
    for (changes, words) in wrong {
        let error = change(&group.servers[0], changes).unwrap_err();
        assert!(error.contains(words), "{changes}{error}");
        let mut now = entry();
        // slapd itself notes that it was asked.
        for name in ["entryCSN", "modifyTimestamp", "modifiersName"] {
            before.remove(name);
            now.remove(name);
        }
        assert_eq!(now, before, "after {changes}");
        assert_both_ways(&group, words);
    }
    change(&group.servers[0], "replace: olcXmppSyncRoom\nolcXmppSyncRoom: another room\n").unwrap();
    wait_for_occupants(&group, &["b-2"]);
    change(&group.servers[0], "delete: olcXmppSyncRoom\n").unwrap();
    assert_both_ways(&group, "after right changes");
}

#[test]
fn who_is_no_peer_is_not_let_in_until_it_is_added_at_run_time() {
    let mut group = Group::prepare(GroupOptions { servers: 3, ..GroupOptions::default() }).unwrap();
    for number in [0, 1] {
        let mut config = group.config(number).unwrap();
        config.databases[0].overlay_lines.retain(|line| line != "xmppsync-peer c@xmpp.test");
        group.servers[number].set_config(config).unwrap();
    }
    load_offline(&group);
    for number in [0, 1] {
        group.servers[number].start().unwrap();
    }
    assert_travels(&group.servers[0], &group.servers[1], "before c");
    group.servers[2].start().unwrap();
    let line = group.servers[2].wait_log("refuses entry", PATIENCE).unwrap();
    assert!(
        line.contains("registration-required") && line.contains("its owner has to list this JID"),
        "{line}"
    );
    assert_travels(&group.servers[1], &group.servers[0], "without c");
    assert!(group.servers[2].ldap().unwrap().values(SUFFIX, "description").unwrap().is_empty());
    wait_for_occupants(&group, &["a-1", "b-2"]);

    for number in [0, 1] {
        change(&group.servers[number], "add: olcXmppSyncPeer\nolcXmppSyncPeer: c@xmpp.test\n").unwrap();
    }
    wait_for_occupants(&group, &["a-1", "b-2", "c-3"]);
    assert_travels(&group.servers[1], &group.servers[2], "from b to c");
    assert_travels(&group.servers[2], &group.servers[0], "from c to a");
    group.assert_equal(PATIENCE).unwrap();
    assert_eq!(count(&group.servers[2].run_log(), "refuses entry"), 1, "it is said once");

    change(&group.servers[0], "delete: olcXmppSyncPeer\nolcXmppSyncPeer: b@xmpp.test\n").unwrap();
    let left = group.servers[0].ldap_config().unwrap().values(OVERLAY, "olcXmppSyncPeer").unwrap();
    assert_eq!(left, ["c@xmpp.test"]);
}

#[test]
fn a_log_of_everything_never_shows_the_password() {
    let slapd = SlapdOptions { debug_level: "any".to_owned(), ..SlapdOptions::default() };
    let mut group = Group::with(GroupOptions { servers: 2, slapd, ..GroupOptions::default() }).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    group.servers[0].restart().unwrap();
    assert_both_ways(&group, "after a restart");
    for server in &group.servers {
        let log = server.log();
        assert!(log.contains("xmppsync-password-file"), "this log does not show everything");
        assert_eq!(count(&log, &format!("secret of {}", server.name())), 0, "{} shows it", server.name());
    }
}

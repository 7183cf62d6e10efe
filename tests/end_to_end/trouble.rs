//! Trouble with the XMPP server: one clear line, a directory that goes on serving, and recovery.

use crate::PATIENCE;
use crate::meanwhile::{
    Writer, assert_arrives, assert_travels, count, end_of, load, load_offline, wait_joined, write,
};
use std::fs;
use xmppsync_lab::certificates::Authority;
use xmppsync_lab::{
    Group, GroupOptions, Live, SUFFIX, Slapd, SlapdConfig, SlapdOptions, XmppData, XmppKind, XmppOptions,
    XmppService, ldif, wait_for,
};

/// Servers that log what an administrator always sees, without debugging.
fn options(servers: usize) -> GroupOptions {
    let slapd = SlapdOptions { debug_level: "none".to_owned(), ..SlapdOptions::default() };
    GroupOptions { servers, slapd, ..GroupOptions::default() }
}

/// A group of two with a database, whose first server has other overlay lines; not started yet.
fn with_first(change: impl FnOnce(&Group, &mut Vec<String>)) -> Group {
    let mut group = Group::prepare(options(2)).unwrap();
    load_offline(&group);
    let mut config = group.config(0).unwrap();
    change(&group, &mut config.databases[0].overlay_lines);
    group.servers[0].set_config(config).unwrap();
    group
}

fn replace(lines: &mut Vec<String>, directive: &str, value: &str) {
    lines.retain(|line| !line.starts_with(&format!("{directive} ")));
    lines.push(format!("{directive} {value}"));
}

/// The server reads and writes although it cannot replicate.
fn assert_serves(slapd: &Slapd, value: &str) {
    let mut ldap = slapd.ldap().unwrap();
    write(&mut ldap, value);
    assert_eq!(ldap.values(SUFFIX, "description").unwrap(), [value]);
}

/// Gives the first server back its right configuration, and waits until everything written meanwhile is
/// everywhere.
fn assert_recovers_with(group: &mut Group, config: SlapdConfig) {
    group.servers[0].stop().unwrap();
    group.servers[0].set_config(config).unwrap();
    group.servers[0].start().unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "from a after the cure");
    assert_travels(&group.servers[1], &group.servers[0], "from b after the cure");
}

#[test]
fn a_wrong_password_is_one_line_and_one_attempt_and_the_directory_serves() {
    let mut group = with_first(|group, lines| {
        let file = group.lab.write("wrong.password", "wrong\n").unwrap();
        replace(lines, "xmppsync-password-file", &file.display().to_string());
    });
    group.start().unwrap();
    let line = group.servers[0].wait_log("refuses the password", PATIENCE).unwrap();
    assert!(line.contains("a@xmpp.test") && line.contains("tried again in 300 s"), "{line}");
    assert_serves(&group.servers[0], "with a wrong password");
    let writer = Writer::start(&group.servers[0]);
    writer.wait_for_more(500);
    // The other server logs in again, after the first has had more than its first pauses.
    group.servers[1].restart().unwrap();
    wait_joined(&group.servers[1], PATIENCE);
    writer.stop();
    assert_eq!(group.xmpp.refused_logins(), 1, "attempts");
    assert_eq!(count(&group.servers[0].run_log(), "refuses the password"), 1, "lines");

    // The password is corrected there; the next attempt is due in minutes, but a restart asks at once.
    group.xmpp.api("change_password", r#"{"user":"a","host":"xmpp.test","newpass":"wrong"}"#).unwrap();
    group.servers[0].restart().unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "from a after the cure");
    assert_travels(&group.servers[1], &group.servers[0], "from b after the cure");
}

#[test]
#[ignore = "takes five minutes: so long is the pause after a refused password"]
fn a_password_that_is_corrected_on_the_xmpp_server_is_used_without_a_restart() {
    let mut group = with_first(|group, lines| {
        let file = group.lab.write("wrong.password", "wrong\n").unwrap();
        replace(lines, "xmppsync-password-file", &file.display().to_string());
    });
    group.start().unwrap();
    group.servers[0].wait_log("refuses the password", PATIENCE).unwrap();
    write(&mut group.servers[0].ldap().unwrap(), "meanwhile");
    group.xmpp.api("change_password", r#"{"user":"a","host":"xmpp.test","newpass":"wrong"}"#).unwrap();
    wait_joined(&group.servers[0], PATIENCE * 6);
    assert_arrives(&group.servers[1], "meanwhile");
    assert_eq!(group.xmpp.refused_logins(), 1, "attempts");
}

#[test]
fn an_unknown_host_is_one_line_and_the_directory_serves() {
    let mut group = with_first(|_, lines| replace(lines, "xmppsync-server", "xmpp.invalid:5222"));
    group.start().unwrap();
    let line = group.servers[0].wait_log("cannot be resolved", PATIENCE).unwrap();
    assert!(line.contains("xmpp.invalid") && line.contains("xmppsync-server"), "{line}");
    assert_serves(&group.servers[0], "without a host");
    // Its pauses begin with a quarter of a second.
    let writer = Writer::start(&group.servers[0]);
    writer.wait_for_more(1_000);
    writer.stop();
    let log = group.servers[0].run_log();
    assert_eq!(count(&log, "cannot be resolved"), 1, "{}", end_of(&log));
    assert_eq!(count(&log, "xmpp.invalid"), 1, "{}", end_of(&log));
    let right = group.config(0).unwrap();
    assert_recovers_with(&mut group, right);
}

#[test]
fn a_certificate_of_another_authority_is_refused_in_one_line_and_the_directory_serves() {
    let mut group = with_first(|group, lines| {
        let other = Authority::new("another authority").unwrap().pem();
        let file = group.lab.write("other.pem", other).unwrap();
        replace(lines, "xmppsync-tls-ca", &file.display().to_string());
    });
    group.start().unwrap();
    let line = group.servers[0].wait_log("certificate of the XMPP server", PATIENCE).unwrap();
    for word in ["xmpp.test", "refused", "xmppsync-tls-ca"] {
        assert!(line.contains(word), "{line}");
    }
    let writer = Writer::start(&group.servers[0]);
    writer.wait_for_more(500);
    writer.stop();
    assert_eq!(count(&group.servers[0].run_log(), "certificate of the XMPP server"), 1, "lines");

    // The administrator corrects the file; it is read anew for the next attempt, and nobody restarts slapd.
    let file = group.lab.path().join("other.pem");
    fs::copy(group.xmpp.ca_file(), file).unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "from a after the cure");
    assert_travels(&group.servers[1], &group.servers[0], "from b after the cure");
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn a_xmpp_server_that_starts_after_slapd_is_found() {
    let mut group = Group::prepare(options(3)).unwrap();
    load_offline(&group);
    group.xmpp.stop().unwrap();
    group.start().unwrap();
    for server in &group.servers {
        let line = server.wait_log("no connection to the XMPP server", PATIENCE).unwrap();
        assert!(line.contains(&group.xmpp.client_address().to_string()), "{line}");
    }
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    writers.iter().for_each(|writer| writer.wait_for_more(50));
    group.xmpp.start_again(XmppData::Keep).unwrap();
    for server in &group.servers {
        wait_joined(server, PATIENCE);
        assert_eq!(count(&server.run_log(), "no connection to the XMPP server"), 1, "lines");
    }
    writers.into_iter().for_each(Writer::stop);
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn a_missing_muc_service_is_said_and_found_when_it_comes() {
    let mut group = Group::prepare(options(2)).unwrap();
    load_offline(&group);
    group.xmpp.set_service(XmppService::Muc, false).unwrap();
    group.start().unwrap();
    for server in &group.servers {
        let line = server.wait_log("offers no MUC service", PATIENCE).unwrap();
        assert!(line.contains("conference.xmpp.test") && line.contains("xmppsync-muc"), "{line}");
    }
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    writers.iter().for_each(|writer| writer.wait_for_more(50));
    group.xmpp.set_service(XmppService::Muc, true).unwrap();
    for server in &group.servers {
        wait_joined(server, PATIENCE);
        let log = server.run_log();
        let of_service = log.lines().filter(|line| line.contains("conference.xmpp.test"));
        let usual = |line: &&str| !["replicating as", "}: in room "].iter().any(|words| line.contains(words));
        assert_eq!(of_service.filter(usual).count(), 1, "{}", end_of(&log));
        assert_eq!(count(&log, "offers no MUC service"), 1, "lines");
    }
    writers.into_iter().for_each(Writer::stop);
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn without_a_pubsub_service_the_room_goes_on() {
    let mut options = options(2);
    options.xmpp.pubsub = false;
    let group = Group::with(options).unwrap();
    load(&group.servers[0]);
    for server in &group.servers {
        let line = server.wait_log("offers no pubsub service", PATIENCE).unwrap();
        assert!(line.contains("pubsub.xmpp.test") && line.contains("xmppsync-pubsub"), "{line}");
    }
    assert_travels(&group.servers[0], &group.servers[1], "from a");
    assert_travels(&group.servers[1], &group.servers[0], "from b");
    group.assert_equal(PATIENCE).unwrap();
    assert_one_line_of_the_missing_pubsub_service(&group);
}

/// After so long that subscriptions were asked for in vain more often than they are expected to be.
fn assert_one_line_of_the_missing_pubsub_service(group: &Group) {
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    // The pauses are 1, 2 and 4 seconds, and a write takes at least 2 ms.
    writers.iter().for_each(|writer| writer.wait_for_more(3_000));
    writers.into_iter().for_each(Writer::stop);
    for server in &group.servers {
        let log = server.run_log();
        assert_eq!(count(&log, "pubsub"), 1, "{}", end_of(&log));
        assert_eq!(count(&log, "offers no pubsub service"), 1, "lines");
        assert_eq!(count(&log, "cannot be subscribed"), 0, "lines");
    }
}

#[test]
fn without_a_pubsub_service_the_room_carries_what_was_meant_for_the_nodes() {
    let mut options = GroupOptions { live: Live::Pubsub, ..options(3) };
    options.xmpp.pubsub = false;
    let group = Group::with(options).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    writers.iter().for_each(|writer| writer.wait_for_more(200));
    writers.into_iter().for_each(Writer::stop);
    group.assert_equal(PATIENCE).unwrap();
    for server in &group.servers {
        let log = server.run_log();
        for unexpected in ["are refused by the XMPP server", "are missing", "set aside"] {
            assert_eq!(count(&log, unexpected), 0, "{}", end_of(&log));
        }
        let line = log.lines().find(|line| line.contains("offers no pubsub service")).unwrap();
        assert!(line.contains("replication by the room goes on"), "{line}");
    }
}

#[test]
fn a_pubsub_service_that_goes_and_comes_stops_nothing() {
    let mut group = Group::with(GroupOptions { live: Live::Pubsub, ..options(2) }).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    let writers: Vec<_> = group.servers.iter().map(Writer::start).collect();
    writers.iter().for_each(|writer| writer.wait_for_more(50));
    group.xmpp.set_service(XmppService::Pubsub, false).unwrap();
    for server in &group.servers {
        let line = server.wait_log("offers no pubsub service", PATIENCE).unwrap();
        assert!(line.contains("replication by the room goes on"), "{line}");
    }
    assert_travels(&group.servers[0], &group.servers[1], "without the service");
    group.xmpp.set_service(XmppService::Pubsub, true).unwrap();
    writers.iter().for_each(|writer| writer.wait_for_more(50));
    writers.into_iter().for_each(Writer::stop);
    group.assert_equal(PATIENCE).unwrap();
    for server in &group.servers {
        let log = server.run_log();
        assert_eq!(count(&log, "offers no pubsub service"), 1, "{}", end_of(&log));
        assert_eq!(count(&log, "set aside"), 0, "{}", end_of(&log));
    }
}

#[test]
fn a_cut_line_is_one_line_in_the_log() {
    let group = Group::with(options(2)).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    let server = &group.servers[0];
    let before = server.run_log().lines().filter(|line| line.contains("xmppsync")).count();
    group.xmpp.api("kick_user", r#"{"user":"a","host":"xmpp.test"}"#).unwrap();
    let again = || count(&server.run_log(), "}: in room ");
    wait_for("the server is in the room again", PATIENCE, || again() == 2).unwrap();
    let log = server.run_log();
    let ours: Vec<_> = log.lines().filter(|line| line.contains("xmppsync")).skip(before).collect();
    let lost: Vec<_> = ours.iter().filter(|line| !line.contains("in room ")).collect();
    let complaints = lost.iter().filter(|line| !line.contains("is in the room"));
    assert_eq!(complaints.count(), 1, "{ours:#?}");
}

#[test]
fn a_server_that_was_never_in_the_group_is_not_believed() {
    // Another account in another slapd, which lists the group as its peers and is listed by none of them.
    let mut group = Group::with(options(2)).unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    group.xmpp.register("stranger", "stranger").unwrap();
    // An administrator has let it into the room, so that only the servers' own lists stand against it.
    let member = format!(
        r#"{{"name":"{SUFFIX}","service":"conference.xmpp.test","jid":"stranger@xmpp.test","affiliation":"owner"}}"#
    );
    group.xmpp.api("set_room_affiliation", &member).unwrap();
    let mut config = group.config(0).unwrap();
    config.server_id = Some(9);
    let lines = &mut config.databases[0].overlay_lines;
    replace(lines, "xmppsync-jid", "stranger@xmpp.test");
    let file = group.lab.write("stranger.password", "stranger\n").unwrap();
    replace(lines, "xmppsync-password-file", &file.display().to_string());
    lines.push("xmppsync-peer a@xmpp.test".to_owned());
    let stranger = Slapd::run(&group.lab, "stranger", config, Default::default()).unwrap();
    wait_joined(&stranger, PATIENCE);
    let record = ldif::suffix_entry(SUFFIX);
    stranger.ldap().unwrap().add_bytes(&record.dn, record.attributes).unwrap();
    for server in &group.servers {
        let line = server.wait_log("is no member of this group", PATIENCE).unwrap();
        assert!(line.contains("stranger@xmpp.test"), "{line}");
    }
    assert_travels(&group.servers[0], &group.servers[1], "still a");
    group.assert_equal(PATIENCE).unwrap();
}

#[test]
fn a_stanza_limit_is_said_once_with_the_setting_that_raises_it() {
    stanza_limit(XmppOptions::default());
}

/// A change that fits into no stanza of the XMPP server, and others beside it.
pub(crate) fn stanza_limit(xmpp: XmppOptions) {
    // prosody may reset the connection before its reason is read, the first time as well.
    let lost_max = usize::from(xmpp.kind == XmppKind::Prosody);
    let xmpp = XmppOptions { max_stanza_size: 20_000, ..xmpp };
    let mut group = Group::prepare(GroupOptions { xmpp, ..options(2) }).unwrap();
    load_offline(&group);
    group.start().unwrap();
    assert_travels(&group.servers[0], &group.servers[1], "small enough");
    let server = &group.servers[0];
    write(&mut server.ldap().unwrap(), &"x".repeat(60_000));
    let line = server.wait_log("refuses large stanzas", PATIENCE).unwrap();
    for words in ["xmpp.test", "stanza is too big", "max_stanza_size", "c2s_stanza_size_limit"] {
        assert!(line.contains(words), "{line}");
    }
    // It is tried again, and said no more.
    wait_for("further attempts", PATIENCE, || count(&server.run_log(), "}: in room ") > 3).unwrap();
    let log = server.run_log();
    assert_eq!(count(&log, "refuses large stanzas"), 1, "{}", end_of(&log));
    assert!(count(&log, "is lost") <= lost_max, "{}", end_of(&log));
    assert_serves(&group.servers[0], "meanwhile");
}

#[test]
fn a_full_room_is_said_with_the_setting_that_raises_it() {
    let mut options = options(3);
    // prosody limits no room; what it does limit, the number of rooms, it refuses with the same condition.
    options.xmpp.kind = XmppKind::Ejabberd;
    options.xmpp.max_room_users = Some(2);
    let mut group = Group::prepare(options).unwrap();
    load_offline(&group);
    let (last, first) = group.servers.split_last_mut().unwrap();
    for server in first {
        server.start().unwrap();
        wait_joined(server, PATIENCE);
    }
    last.start().unwrap();
    let line = last.wait_log("takes nobody more", PATIENCE).unwrap();
    assert!(
        line.contains("Too many users") && line.contains("max_users of the room and of mod_muc"),
        "{line}"
    );
    let writer = Writer::start(&group.servers[2]);
    writer.wait_for_more(1_000);
    writer.stop();
    assert_eq!(count(&group.servers[2].run_log(), "takes nobody more"), 1, "lines");
    // A place becomes free, and nobody has to do anything.
    group.servers[1].stop().unwrap();
    wait_joined(&group.servers[2], PATIENCE);
    assert_travels(&group.servers[0], &group.servers[2], "with a seat");
}

#[test]
fn a_throttle_is_measured_and_said_once_with_the_setting_that_raises_it() {
    throttle(XmppKind::Ejabberd, 3_000);
}

/// Of a slow server so much has to be written until it is called so.
const MARKS_BYTES: usize = 80_000;

/// Debian's configuration has a throttle of so many bytes per second.
pub(crate) fn throttle(kind: XmppKind, rate: u64) {
    let xmpp = XmppOptions { kind, stock: true, ..XmppOptions::default() };
    let mut group = Group::prepare(GroupOptions { xmpp, ..options(2) }).unwrap();
    load_offline(&group);
    group.start().unwrap();
    group.servers.iter().for_each(|server| wait_joined(server, PATIENCE));
    let server = &group.servers[0];
    // A burst is free; then as much as it takes in 20 seconds.
    let bytes = 20_000 + 20 * usize::try_from(rate).unwrap().max(MARKS_BYTES / 20);
    let mut ldap = server.ldap().unwrap();
    (0..bytes / 1_000).for_each(|number| write(&mut ldap, &number.to_string().repeat(300)));
    let line = server.wait_log("takes only", PATIENCE).unwrap();
    for words in ["xmpp.test", "shaper", "unlimited_jids"] {
        assert!(line.contains(words), "{line}");
    }
    let told = line.split("takes only ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(told.is_some_and(|told| (rate / 2..rate * 2).contains(&told)), "{line}");
    write(&mut ldap, "slowly");
    group.assert_equal(PATIENCE * 3).unwrap();
    assert_eq!(count(&group.servers[0].run_log(), "takes only"), 1, "lines");
}

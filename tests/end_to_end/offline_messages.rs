//! What the XMPP server keeps for a server that is away, and that nothing depends on it.

use crate::PATIENCE;
use crate::catching_up::add_many;
use crate::meanwhile::{assert_travels, count, end_of};
use crate::steps::{PEOPLE, add_person, complaints, group_with, settle, wait_entry};
use xmppsync_lab::{Group, GroupOptions, XmppOptions, wait_for, wait_until};

/// Two servers that log what an administrator always sees.
fn group(overlay_line: &str, xmpp: XmppOptions) -> Group {
    group_of(2, overlay_line, xmpp)
}

fn group_of(servers: usize, overlay_line: &str, xmpp: XmppOptions) -> Group {
    let overlay_lines = vec![overlay_line.to_owned()];
    let mut options = GroupOptions { servers, overlay_lines, xmpp, ..GroupOptions::default() };
    options.slapd.debug_level = "none".to_owned();
    group_with(options)
}

/// Stops the second server, and waits until the first has seen that: what is written before that is sent to nobody who is
/// away.
fn leave(group: &mut Group) {
    let left = |group: &Group| count(&group.servers[0].run_log(), "left the room");
    let before = left(group);
    group.servers[1].stop().unwrap();
    wait_for("the first has seen it", PATIENCE, || left(group) > before).unwrap();
}

/// How many messages wait for the second server.
fn kept(group: &Group) -> usize {
    let answer = group.xmpp.api("get_offline_count", r#"{"user":"b","host":"xmpp.test"}"#).unwrap();
    let digits: String = answer.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{answer:?} is no count"))
}

fn wait_kept(group: &Group, messages: usize) {
    wait_until(&format!("{messages} messages are kept"), PATIENCE, || {
        let now = kept(group);
        if now == messages { Ok(()) } else { Err(now) }
    })
    .unwrap();
}

/// What is written to the first server while the second is down, more than a thousand changes.
fn write_much(group: &Group, bytes: usize) -> String {
    let mut ldap = group.servers[0].ldap().unwrap();
    let victim = add_person(&mut ldap, "victim");
    add_many(&group.servers[0], "missed", 1_000, bytes);
    ldap.replace(&victim, "description", &["changed"]).unwrap();
    ldap.rename(&victim, "uid=renamed", None).unwrap();
    ldap.delete(&format!("uid=missed0,{PEOPLE}")).unwrap();
    add_person(&mut ldap, "last")
}

/// The lines of the first server that speak of messages that are kept.
fn lines(group: &Group) -> Vec<String> {
    let log = group.servers[0].log();
    let ours = log.lines().filter(|line| line.contains("xmppsync: ") && line.contains("messages for"));
    ours.map(str::to_owned).collect()
}

#[test]
fn a_returning_server_uses_what_was_kept_although_nobody_else_is_there() {
    return_alone(XmppOptions::default());
}

/// Changes are written while the second server is down; it returns when the others are down.
pub(crate) fn return_alone(xmpp: XmppOptions) {
    let mut group = group_of(3, "xmppsync-offline-messages 100", xmpp);
    leave(&mut group);
    let last = write_much(&group, 10);
    // The XMPP server has taken what was written, but for a little that is sent before the first leaves.
    wait_entry(&group.servers[2], &last, true);
    group.servers[2].stop().unwrap();
    group.servers[0].stop().unwrap();
    let messages = kept(&group);
    assert!((1..=20).contains(&messages), "{messages} messages");
    group.servers[1].start().unwrap();
    wait_entry(&group.servers[1], &last, true);
    wait_entry(&group.servers[1], &format!("uid=renamed,{PEOPLE}"), true);
    wait_entry(&group.servers[1], &format!("uid=missed0,{PEOPLE}"), false);
    let log = group.servers[1].run_log();
    assert_eq!(count(&log, "asking for them"), 0, "{}", end_of(&log));
    assert_eq!(kept(&group), 0);
    group.start().unwrap();
    settle(&group);
    assert_eq!(complaints(&group.servers[1]), "");
    let log = group.servers[1].run_log();
    assert_eq!(count(&log, "asking for them"), 0, "{}", end_of(&log));
    assert_travels(&group.servers[1], &group.servers[0], "and back");
    assert_travels(&group.servers[0], &group.servers[1], "and forth");
}

/// The second server is away, the first is written to, so many messages wait; and when it returns all is well.
fn assert_kept(group: &mut Group, messages: usize, lines_said: usize) {
    leave(group);
    let last = write_much(group, 2_000);
    if lines_said > 0 {
        group.servers[0].wait_log("messages for", PATIENCE).unwrap();
    }
    wait_kept(group, messages);
    // Not more, however long it writes.
    let mut ldap = group.servers[0].ldap().unwrap();
    add_many(&group.servers[0], "later", 200, 2_000);
    ldap.delete(&last).unwrap();
    group.servers[1].start().unwrap();
    settle(group);
    assert_eq!(lines(group).len(), lines_said, "{:#?}", lines(group));
    assert_eq!(complaints(&group.servers[1]), "");
}

#[test]
fn no_more_are_kept_than_is_configured_and_the_rest_is_pulled() {
    let mut group = group("xmppsync-offline-messages 3", XmppOptions::default());
    assert_kept(&mut group, 3, 0);
    // The next absence has its own.
    assert_travels(&group.servers[0], &group.servers[1], "between");
    leave(&mut group);
    let last = add_person(&mut group.servers[0].ldap().unwrap(), "second-absence");
    wait_kept(&group, 1);
    group.servers[0].stop().unwrap();
    assert_eq!(kept(&group), 1);
    group.servers[1].start().unwrap();
    wait_entry(&group.servers[1], &last, true);
}

#[test]
fn none_are_kept_where_none_are_wanted() {
    let mut group = group("xmppsync-offline-messages 0", XmppOptions::default());
    assert_kept(&mut group, 0, 0);
}

#[test]
fn a_xmpp_server_that_keeps_few_is_told_of_once_and_the_rest_is_pulled() {
    let few = XmppOptions { max_offline_messages: Some(5), ..XmppOptions::default() };
    let mut group = group("xmppsync-offline-messages 100", few);
    assert_kept(&mut group, 5, 1);
}

#[test]
fn a_xmpp_server_that_keeps_none_is_told_of_once_and_all_is_pulled() {
    let none = XmppOptions { offline: false, ..XmppOptions::default() };
    let mut group = group("xmppsync-offline-messages 100", none);
    leave(&mut group);
    write_much(&group, 2_000);
    group.servers[0].wait_log("keeps no messages", PATIENCE).unwrap();
    group.servers[1].start().unwrap();
    settle(&group);
    assert_eq!(lines(&group).len(), 1, "{:#?}", lines(&group));
    assert_eq!(complaints(&group.servers[1]), "");
    assert_travels(&group.servers[1], &group.servers[0], "and back");
}

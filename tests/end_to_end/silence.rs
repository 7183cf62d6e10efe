//! What is not replicated.

use crate::PATIENCE;
use crate::steps::*;
use std::collections::HashSet;
use xmppsync_lab::ldap3::controls::RawControl;
use xmppsync_lab::ldap3::exop::Exop;
use xmppsync_lab::{Group, GroupOptions, Ldap, SUFFIX, wait_until};

/// OpenLDAP's no-op control (draft-zeilenga-ldap-noop) and the result of an operation that has it.
const NO_OP: &str = "1.3.6.1.4.1.4203.666.5.2";
const NO_OPERATION: u32 = 0x410e;
/// The suffix entry and ou=people.
const BASE_CHANGES: u64 = 2;

#[test]
fn what_changes_nothing_sends_nothing() {
    let group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_person(&mut ldap, "quiet");
    operations_with_the_no_op_control_send_nothing(&mut ldap, &dn);
    refused_operations_send_nothing(&mut ldap, &dn);
    let last = mark(&group, "last");
    settle_smoothly(&group);
    let last = entry_csn(&group.servers[0], &last);
    assert_eq!(sent(&group, 0, &last), BASE_CHANGES + 2, "changes of the first server");
    // The card that covers the last change shows what the peer itself has sent.
    assert_eq!(sent(&group, 1, &last), 0, "what the peer applied, it sent again");
}

fn operations_with_the_no_op_control_send_nothing(ldap: &mut Ldap, dn: &str) {
    let new = format!("uid=unborn,{PEOPLE}");
    let attributes = [("objectClass", "inetOrgPerson"), ("uid", "unborn"), ("cn", "x"), ("sn", "x")];
    let attributes = attributes.map(|(name, value)| (name, HashSet::from([value]))).to_vec();
    let raw = raw(ldap);
    let no_op = || RawControl { ctype: NO_OP.to_owned(), crit: true, val: None };
    assert_eq!(code(raw.with_controls(no_op()).add(&new, attributes)), NO_OPERATION);
    assert_eq!(code(raw.with_controls(no_op()).modify(dn, vec![set("sn", &["x"])])), NO_OPERATION);
    assert_eq!(code(raw.with_controls(no_op()).modifydn(dn, "uid=x", true, None)), NO_OPERATION);
    assert_eq!(code(raw.with_controls(no_op()).delete(dn)), NO_OPERATION);
    assert!(ldap.entry(&new).unwrap().is_none() && ldap.entry(dn).unwrap().is_some());
}

fn refused_operations_send_nothing(ldap: &mut Ldap, dn: &str) {
    let nobody = format!("uid=nobody,{PEOPLE}");
    // Against the schema, in the last of several modifications.
    ldap.modify(dn, vec![set("title", &["x"]), plus("uidNumber", &["not a number"])]).unwrap_err();
    ldap.modify(dn, vec![set("title", &["x"]), minus("objectClass", &["inetOrgPerson"])]).unwrap_err();
    ldap.modify(dn, vec![set("title", &["x"]), minus("mail", &["not@there"])]).unwrap_err();
    ldap.add(dn, &person("quiet")).unwrap_err();
    ldap.add(&format!("uid=x,{nobody}"), &person("x")).unwrap_err();
    ldap.replace(&nobody, "sn", &["x"]).unwrap_err();
    ldap.rename(dn, "ou=people", Some(SUFFIX)).unwrap_err();
    ldap.delete(PEOPLE).unwrap_err();
    ldap.delete(&nobody).unwrap_err();
}

#[test]
fn a_database_that_is_not_replicated_is_silent() {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    let mut config = group.config(0).unwrap();
    config.databases[0].overlay_lines.push("xmppsync-replicated off".to_owned());
    group.servers[0].set_config(config).unwrap();
    group.start().unwrap();
    group.servers[1].wait_log("in room", PATIENCE).unwrap();
    for server in &group.servers {
        let mut ldap = server.ldap().unwrap();
        let record = xmppsync_lab::ldif::suffix_entry(SUFFIX);
        ldap.add_bytes(&record.dn, record.attributes).unwrap();
        ldap.replace(SUFFIX, "description", &[server.name()]).unwrap();
    }
    assert_eq!(group.servers[0].ldap().unwrap().values(SUFFIX, "contextCSN").unwrap(), [""; 0]);
    group.servers[0].restart().unwrap();
    let log = group.servers[0].log();
    assert!(!log.contains("xmppsync:"), "{log}");
    let users = group.xmpp.api("connected_users", "{}").unwrap();
    assert!(users.contains("b@xmpp.test") && !users.contains("a@xmpp.test"), "{users}");
    for server in &group.servers {
        wait_values(server, SUFFIX, "description", &[server.name()]);
    }
}

/// refint looks for what names an entry as soon as it hears of its rename. It heard of it inside the peer's
/// transaction, did not see what the same transaction had brought just before, and left the old DN there.
#[test]
fn what_memberof_and_refint_write_is_sent_by_the_server_of_the_client_only() {
    let derived = ["overlay memberof", "overlay refint", "refint_attributes member manager"];
    let lines = |present: bool| if present { derived.map(str::to_owned).to_vec() } else { Vec::new() };
    // Below and above the overlay in slapd's stack.
    for above in [false, true] {
        let group = group_with(GroupOptions {
            servers: 2,
            modules: vec!["memberof".to_owned(), "refint".to_owned()],
            database_lines: lines(!above),
            overlay_lines: lines(above),
            ..GroupOptions::default()
        });
        let changes = write_members(&group);
        let last = mark(&group, "last");
        settle_smoothly(&group);
        let last = entry_csn(&group.servers[0], &last);
        assert_eq!(sent(&group, 0, &last), BASE_CHANGES + changes + 1, "above: {above}");
        assert_eq!(sent(&group, 1, &last), 0, "above: {above}");
    }
}

/// Returns how many changes it made, with those that follow from them.
fn write_members(group: &Group) -> u64 {
    let mut ldap = group.servers[0].ldap().unwrap();
    let people: Vec<String> = ["one", "two", "three"].iter().map(|uid| add_person(&mut ldap, uid)).collect();
    let team = "cn=team,dc=example,dc=com";
    let attributes =
        [("objectClass", "groupOfNames"), ("cn", "team"), ("member", &people[0]), ("member", &people[1])];
    ldap.add(team, &attributes).unwrap();
    let everywhere = |dn: &str, attribute: &str, expected: &[&str]| {
        group.servers.iter().for_each(|server| wait_values(server, dn, attribute, expected));
    };
    everywhere(&people[1], "memberOf", &[team]);
    ldap.modify(team, vec![plus("member", &[&people[2]]), minus("member", &[&people[0]])]).unwrap();
    everywhere(&people[2], "memberOf", &[team]);
    everywhere(&people[0], "memberOf", &[]);
    // In one batch: refint must not look for what still names the old DN before it can be seen.
    group.xmpp.pause().unwrap();
    // The first goes alone. Those at the end keep the peer's transaction open for a while.
    const FILLING: u64 = 40;
    ldap.replace(&people[2], "description", &["first"]).unwrap();
    ldap.replace(&people[2], "manager", &[&people[1]]).unwrap();
    ldap.rename(&people[1], "uid=renamed", None).unwrap();
    for number in 1..FILLING {
        ldap.replace(&people[0], "description", &[&number.to_string()]).unwrap();
    }
    group.xmpp.resume().unwrap();
    let renamed = format!("uid=renamed,{PEOPLE}");
    everywhere(team, "member", &[&renamed, &people[2]]);
    everywhere(&people[2], "manager", &[&renamed]);
    ldap.delete(&people[2]).unwrap();
    everywhere(team, "member", &[&renamed]);
    ldap.delete(team).unwrap();
    everywhere(&renamed, "memberOf", &[]);
    // memberOf of two new members, of two more that came and went, and of the last one; the group's member twice and a manager.
    const DERIVED: u64 = 8;
    9 + FILLING + DERIVED
}

/// entryTtl and entryExpireTimestamp came with the add, and the dds overlay of the peer ended slapd by an assertion
/// because the new entry had them already.
#[test]
fn a_dynamic_entry_lives_on_every_server_as_long_as_it_is_refreshed() {
    let group = group_with(GroupOptions {
        servers: 2,
        modules: vec!["dds".to_owned()],
        database_lines: ["overlay dds", "dds-default-ttl 1000"].map(str::to_owned).to_vec(),
        ..GroupOptions::default()
    });
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = format!("cn=meeting,{PEOPLE}");
    let attributes =
        [("objectClass", "dynamicObject"), ("objectClass", "person"), ("cn", "meeting"), ("sn", "x")];
    ldap.add(&dn, &attributes).unwrap();
    group.servers.iter().for_each(|server| wait_entry(server, &dn, true));
    let seconds_left = |number: usize| -> u32 {
        let values = group.servers[number].ldap().unwrap().values(&dn, "entryTtl").unwrap();
        values.first().map_or(0, |value| value.parse().unwrap())
    };
    assert!((1..=1000).contains(&seconds_left(1)), "{}", seconds_left(1));
    let refreshed = raw(&mut ldap).extended(refresh(&dn, 5_000)).unwrap().1;
    assert_eq!(refreshed.rc, 0, "{refreshed:?}");
    wait_until("the peer has the new time to live", PATIENCE, || match seconds_left(1) {
        4_000..=5_000 => Ok(()),
        other => Err(other),
    })
    .unwrap();
    ldap.replace(&dn, "description", &["not ended yet"]).unwrap();
    ldap.delete(&dn).unwrap();
    settle_smoothly(&group);
}

/// The refresh request of RFC 2589.
fn refresh(dn: &str, seconds: u16) -> Exop {
    let mut request = vec![0x80, u8::try_from(dn.len()).unwrap()];
    request.extend(dn.as_bytes());
    request.extend([0x81, 2]);
    request.extend(seconds.to_be_bytes());
    let mut value = vec![0x30, u8::try_from(request.len()).unwrap()];
    value.extend(request);
    Exop { name: Some("1.3.6.1.4.1.1466.101.119.1".to_owned()), val: Some(value) }
}

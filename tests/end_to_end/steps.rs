//! What the tests of capture and apply do again and again.

use crate::PATIENCE;
use std::collections::BTreeMap;
use std::fs;
use xmppsync_lab::ldap3::{LdapConn, LdapResult, Mod};
use xmppsync_lab::{
    ContextCsn, Dump, Group, GroupOptions, Ldap, SUFFIX, Slapd, assert_equal_with, ldif, wait_until,
};

/// Where most tests put their entries.
pub(crate) const PEOPLE: &str = "ou=people,dc=example,dc=com";

/// A started group with the suffix entry and [`PEOPLE`] on all servers.
pub(crate) fn group_with(options: GroupOptions) -> Group {
    let group = Group::with(options).unwrap();
    populate(&group);
    group
}

/// The suffix entry and [`PEOPLE`] on all servers of a started group.
pub(crate) fn populate(group: &Group) {
    wait_together(group);
    let mut ldap = group.servers[0].ldap().unwrap();
    let record = ldif::suffix_entry(SUFFIX);
    ldap.add_bytes(&record.dn, record.attributes).unwrap();
    ldap.add(PEOPLE, &[("objectClass", "organizationalUnit"), ("ou", "people")]).unwrap();
    settle(group);
}

/// Waits until every server has seen every other in the room.
pub(crate) fn wait_together(group: &Group) {
    for server in &group.servers {
        for other in (1..=group.servers.len()).filter(|id| Some(*id as u16) != server.config().server_id) {
            server.wait_log(&format!("server {other} ("), PATIENCE).unwrap();
        }
    }
}

/// So many servers, everything else as usual.
pub(crate) fn group(servers: usize) -> Group {
    group_with(GroupOptions { servers, ..GroupOptions::default() })
}

/// Waits until all servers hold the same, contextCSN among it.
pub(crate) fn settle(group: &Group) -> Dump {
    let mut dumps = group
        .options()
        .suffixes
        .iter()
        .map(|suffix| assert_equal_with(&group.servers, suffix, ContextCsn::Compare, PATIENCE).unwrap());
    dumps.next().unwrap()
}

/// [`settle`], and nothing of it was done in a roundabout way.
pub(crate) fn settle_smoothly(group: &Group) -> Dump {
    let dump = settle(group);
    for server in &group.servers {
        assert_eq!(complaints(server), "", "on {}", server.name());
    }
    dump
}

/// Lines of the log that no smooth run has.
pub(crate) fn complaints(server: &Slapd) -> String {
    let words =
        ["set aside", "applied late", "are missing", "bug:", "dropped", "is not replicated", "is not sent"];
    let log = server.log();
    let lines = log.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A person below [`PEOPLE`]; returns its DN.
pub(crate) fn add_person(ldap: &mut Ldap, uid: &str) -> String {
    let dn = format!("uid={uid},{PEOPLE}");
    ldap.add(&dn, &person(uid)).unwrap();
    dn
}

/// The attributes of such a person.
pub(crate) fn person(uid: &str) -> Vec<(&str, &str)> {
    vec![
        ("objectClass", "inetOrgPerson"),
        ("objectClass", "posixAccount"),
        ("uid", uid),
        ("cn", uid),
        ("sn", "Test"),
        ("uidNumber", "1000"),
        ("gidNumber", "1000"),
        ("homeDirectory", "/home/test"),
    ]
}

/// A modification that adds values.
pub(crate) fn plus(attribute: &str, values: &[&str]) -> Mod<Vec<u8>> {
    Mod::Add(attribute.into(), values.iter().map(|value| value.as_bytes().to_vec()).collect())
}

/// A modification that deletes values, or the whole attribute.
pub(crate) fn minus(attribute: &str, values: &[&str]) -> Mod<Vec<u8>> {
    Mod::Delete(attribute.into(), values.iter().map(|value| value.as_bytes().to_vec()).collect())
}

/// A modification that replaces all values.
pub(crate) fn set(attribute: &str, values: &[&str]) -> Mod<Vec<u8>> {
    Mod::Replace(attribute.into(), values.iter().map(|value| value.as_bytes().to_vec()).collect())
}

/// A disk that is new: database and journal are gone.
pub(crate) fn empty(server: &Slapd) {
    let directory = server.database_dir(0);
    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
}

/// Waits until the server holds these values of the attribute, in the order of their bytes.
pub(crate) fn wait_values(server: &Slapd, dn: &str, attribute: &str, expected: &[&str]) {
    let mut ldap = server.ldap().unwrap();
    let what = format!("{} of {dn:?} on {} is {expected:?}", attribute, server.name());
    wait_until(&what, PATIENCE, || {
        let values = ldap.values(dn, attribute).unwrap();
        if values == expected { Ok(()) } else { Err(format!("{values:?}")) }
    })
    .unwrap();
}

/// Waits until the server has the entry, or does not have it any more.
pub(crate) fn wait_entry(server: &Slapd, dn: &str, there: bool) {
    let mut ldap = server.ldap().unwrap();
    let what = format!("{dn:?} is {} {}", if there { "on" } else { "not on" }, server.name());
    wait_until(&what, PATIENCE, || {
        if ldap.entry(dn).unwrap().is_some() == there { Ok(()) } else { Err("the opposite") }
    })
    .unwrap_or_else(|late| panic!("{late}\n{}", server.log()));
}

/// The entries as slapcat writes them, in the order of the database, contextCSN left out: unlike a search, this
/// shows the order of attributes and values and how each is spelled.
pub(crate) fn stored(server: &Slapd) -> BTreeMap<String, String> {
    let text = server.slapcat(SUFFIX).unwrap().replace("\n ", "");
    let entries = text.split("\n\n").map(|entry| {
        let lines: Vec<&str> = entry.trim().lines().filter(|line| !line.starts_with("contextCSN")).collect();
        (lines.first().copied().unwrap_or_default().to_owned(), lines.join("\n"))
    });
    entries.collect()
}

/// When and where an entry was changed last.
pub(crate) fn entry_csn(server: &Slapd, dn: &str) -> String {
    server.ldap().unwrap().values(dn, "entryCSN").unwrap().remove(0)
}

/// How many changes a server has sent since it was started, as a peer saw on the card that covers `csn`.
pub(crate) fn sent(group: &Group, server: usize, csn: &str) -> u64 {
    let peer = usize::from(server == 0);
    let mark = format!("card of {}: sequence ", group.jid(server));
    let what = format!("{} sees a card of {} with {csn}", group.servers[peer].name(), group.jid(server));
    wait_until(&what, PATIENCE, || {
        let log = group.servers[peer].run_log();
        let card = log.lines().rfind(|line| line.contains(&mark) && line.contains(csn));
        let number = card.and_then(|line| line.split_once(&mark)?.1.split(',').next()?.parse().ok());
        number.ok_or_else(|| log.lines().rfind(|line| line.contains(&mark)).unwrap_or("no card").to_owned())
    })
    .unwrap()
}

/// Adds an entry to the first server and waits until it is everywhere. What was sent before it has come by
/// then.
pub(crate) fn mark(group: &Group, uid: &str) -> String {
    let dn = add_person(&mut group.servers[0].ldap().unwrap(), uid);
    group.servers.iter().for_each(|server| wait_entry(server, &dn, true));
    dn
}

/// The LDAP result code of a raw operation.
pub(crate) fn code(result: Result<LdapResult, xmppsync_lab::ldap3::LdapError>) -> u32 {
    result.unwrap().rc
}

/// The raw client of ldap3, for controls and extended operations.
pub(crate) fn raw(ldap: &mut Ldap) -> &mut LdapConn {
    ldap.raw()
}

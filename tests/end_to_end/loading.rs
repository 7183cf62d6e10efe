//! The initial load: an empty server gets the whole database as a file.

use crate::PATIENCE;
use crate::steps::*;
use std::fs;
use std::time::{Duration, Instant};
use xmppsync_lab::{Group, GroupOptions, Ldap, SUFFIX, Slapd, XmppOptions, ldif, wait_until};

/// Busy machines load slowly, and tests have unoptimised code.
pub(crate) const LOAD_PATIENCE: Duration = Duration::from_secs(240);
/// So many entries take some seconds.
pub(crate) const MANY: usize = 5_000;
/// Incompressible bytes of each, so that the file does not fit into the buffers on its way.
const FILLING: usize = 6_000;
/// "Busy" of RFC 4511.
pub(crate) const BUSY: u32 = 51;

/// A group of which no slapd runs yet; the first server has this content.
pub(crate) fn full_and_empty(servers: usize, content: &str) -> Group {
    full_and_empty_with(GroupOptions { servers, ..GroupOptions::default() }, content)
}

pub(crate) fn full_and_empty_with(options: GroupOptions, content: &str) -> Group {
    let group = Group::prepare(options).unwrap();
    group.servers[0].slapadd_with(SUFFIX, content, &["-q", "-w", "-S", "1"]).unwrap();
    group
}

/// The suffix entry, [`PEOPLE`], and so many people below it that do not compress well.
pub(crate) fn many(people: usize) -> String {
    let mut text = ldif::text(&[ldif::suffix_entry(SUFFIX)]);
    text += &format!("dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..people {
        let dn = person_dn(number);
        let name = format!("p{number}");
        text += &format!(
            "dn: {dn}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: Test\ndescription: "
        );
        for _ in 0..FILLING / 11 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text += &format!("{:011x}", random >> 20);
        }
        text += "\n\n";
    }
    text
}

/// The DN of a person of [`many`].
pub(crate) fn person_dn(number: usize) -> String {
    format!("uid=p{number},{PEOPLE}")
}

pub(crate) fn wait_loaded(server: &Slapd) -> String {
    let loaded = server.wait_log("entries loaded from", LOAD_PATIENCE);
    loaded.unwrap_or_else(|late| panic!("{late}"))
}

/// Waits until so many entries are there, of a load that is not done.
pub(crate) fn wait_half(server: &Slapd, entries: usize) {
    wait_until(&format!("{} has {entries} entries", server.name()), LOAD_PATIENCE, || {
        assert!(!server.run_log().contains("entries loaded from"), "the load is done already");
        let count = count(&mut server.ldap().unwrap());
        if count >= entries { Ok(()) } else { Err(count) }
    })
    .unwrap();
}

fn count(ldap: &mut Ldap) -> usize {
    // There is no suffix entry at first.
    ldap.search(SUFFIX, xmppsync_lab::ldap3::Scope::Subtree, "(objectClass=*)", &["1.1"])
        .map_or(0, |found| found.len())
}

pub(crate) fn snapshots(server: &Slapd) -> Vec<String> {
    fn look(dir: &std::path::Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                look(&entry.path(), found);
            } else if name.starts_with("snapshot-") {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    look(server.dir(), &mut found);
    found
}

#[test]
fn an_empty_server_is_loaded_from_its_peer_entry_by_entry() {
    load_two_empty_servers(XmppOptions::default());
}

pub(crate) fn load_two_empty_servers(xmpp: XmppOptions) {
    load_two_empty_servers_of(GroupOptions { xmpp, ..GroupOptions::default() });
}

/// Loads the second server from the first, and the third from either.
pub(crate) fn load_two_empty_servers_of(options: GroupOptions) {
    let mut group = full_and_empty_with(options, &ldif::text(&ldif::directory(SUFFIX, 500)));
    group.servers[0].start().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    let odd = add_person(&mut ldap, "zoë");
    ldap.replace(&odd, "cn", &["Zoë Müller-Łukasiewicz 東京", " blank at both ends "]).unwrap();
    ldap.replace(&odd, "description", &["line\nbreak", ":colon", "<less", "tab\t"]).unwrap();
    let photo = xmppsync_lab::ldap3::Mod::Replace(b"jpegPhoto".to_vec(), [ldif::photo(300_000)].into());
    ldap.modify(&odd, vec![photo]).unwrap();
    group.servers[1].start().unwrap();
    wait_loaded(&group.servers[1]);
    settle_smoothly_of(&group, &[0, 1]);
    group.servers[0].wait_log("by a direct connection", PATIENCE).unwrap();
    // From either.
    group.servers[2].start().unwrap();
    wait_loaded(&group.servers[2]);
    settle_smoothly(&group);
    // It takes part.
    for server in 0..3 {
        add_person(&mut group.servers[server].ldap().unwrap(), &format!("after{server}"));
    }
    settle_smoothly(&group);
    for server in &mut group.servers {
        server.stop().unwrap();
        assert_eq!(snapshots(server), [""; 0], "left behind by {}", server.name());
    }
}

fn settle_smoothly_of(group: &Group, servers: &[usize]) {
    let chosen = servers.iter().map(|server| &group.servers[*server]);
    let compare = xmppsync_lab::ContextCsn::Compare;
    xmppsync_lab::assert_equal_with(chosen.clone(), SUFFIX, compare, PATIENCE).unwrap();
    chosen.for_each(|server| assert_eq!(complaints(server), "", "on {}", server.name()));
}

/// The database shows its entries in the order in which they were made: all of these came before their parent, and all
/// but the first thousand were given up.
#[test]
fn a_subtree_that_was_moved_below_a_younger_entry_is_loaded_whole() {
    let mut group = full_and_empty(2, &ldif::text(&ldif::directory(SUFFIX, 2_500)));
    group.servers[0].start().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    for (name, parent) in [("old", SUFFIX), ("mid", SUFFIX), ("young", SUFFIX)] {
        ldap.add(&format!("ou={name},{parent}"), &[("objectClass", "organizationalUnit"), ("ou", name)])
            .unwrap();
    }
    ldap.rename(&format!("ou=mid,{SUFFIX}"), "ou=mid", Some(&format!("ou=young,{SUFFIX}"))).unwrap();
    ldap.rename(&format!("ou=old,{SUFFIX}"), "ou=old", Some(&format!("ou=mid,ou=young,{SUFFIX}"))).unwrap();
    let below = format!("ou=old,ou=mid,ou=young,{SUFFIX}");
    ldap.rename(PEOPLE, "ou=people", Some(&below)).unwrap();
    group.servers[1].start().unwrap();
    wait_loaded(&group.servers[1]);
    // Entries share transactions; a few are made at start and of what is sent on.
    let used = transactions(&group.servers[1]);
    assert!(used < 40, "{used} transactions for 2,600 entries");
    settle_smoothly(&group);
}

/// The number of LMDB's last transaction: what the newer of the two meta pages says (`MDB_meta` of lmdb's mdb.c).
fn transactions(server: &Slapd) -> u64 {
    const PAGE_BYTES: usize = 4_096;
    const TRANSACTION_AT: usize = 144;
    let file = fs::read(server.database_dir(0).join("data.mdb")).unwrap();
    let number = |page: usize| {
        let at = page * PAGE_BYTES + TRANSACTION_AT;
        u64::from_ne_bytes(file[at..at + 8].try_into().unwrap())
    };
    number(0).max(number(1))
}

/// slapd stops all its threads for a moment when cn=config is changed. A dump that held on to its thread would hold up
/// everybody.
#[test]
fn the_configuration_can_be_changed_while_a_snapshot_is_made_and_loaded() {
    let mut group = full_and_empty(2, &many(MANY));
    for server in &mut group.servers {
        server.use_config_directory().unwrap();
    }
    group.start().unwrap();
    let begun = Instant::now();
    let (mut longest, mut changes) = (Duration::ZERO, 0);
    // A dump begins anew after each, so that there must be an end of them.
    while changes < 8 && !group.servers[1].run_log().contains("entries loaded from") {
        for server in &group.servers {
            let asked = Instant::now();
            let change = format!("replace: olcIdleTimeout\nolcIdleTimeout: {}\n", 3_600 + changes);
            server.ldapmodify_config(&format!("dn: cn=config\nchangetype: modify\n{change}")).unwrap();
            longest = longest.max(asked.elapsed());
        }
        changes += 1;
        assert!(begun.elapsed() < LOAD_PATIENCE, "{}", group.servers[0].run_log());
    }
    wait_loaded(&group.servers[1]);
    println!("{changes} changes of cn=config on each side, the longest took {longest:.1?}");
    assert!(changes > 5 && longest < PATIENCE / 4, "{changes} changes, the longest took {longest:?}");
    settle_smoothly(&group);
}

#[test]
fn what_is_written_on_the_source_meanwhile_comes_as_well() {
    let mut group = full_and_empty(2, &many(MANY));
    group.servers[0].start().unwrap();
    group.servers[1].start().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    let young = format!("ou=young,{SUFFIX}");
    ldap.add(&young, &[("objectClass", "organizationalUnit"), ("ou", "young")]).unwrap();
    // Before and behind where the dump and the load are, over and over.
    let mut round = 0;
    while !group.servers[1].run_log().contains("entries loaded from") {
        for place in [0, MANY / 4, MANY / 2, MANY * 3 / 4] {
            let first = place + round * 5;
            ldap.replace(&person_dn(first), "sn", &["changed"]).unwrap();
            ldap.delete(&person_dn(first + 1)).unwrap();
            ldap.rename(&person_dn(first + 2), &format!("uid=r{}", first + 2), None).unwrap();
            ldap.rename(&person_dn(first + 3), &format!("uid=p{}", first + 3), Some(&young)).unwrap();
            ldap.replace(&person_dn(first + 4), "title", &["x"]).unwrap();
            ldap.modify(&person_dn(first + 4), vec![minus("title", &["x"]), plus("mail", &["a@b.test"])])
                .unwrap();
            add_person(&mut ldap, &format!("new{first}"));
        }
        round += 1;
        assert!(round * 5 < MANY / 4, "the load takes too long: {}", group.servers[1].run_log());
    }
    assert!(round > 3, "the load was too fast to write anything meanwhile");
    ldap.replace(SUFFIX, "description", &["last"]).unwrap();
    settle_smoothly(&group);
}

#[test]
fn while_it_loads_its_card_says_how_far_and_it_is_nobodys_source() {
    let mut group = full_and_empty(3, &many(MANY));
    group.servers[0].start().unwrap();
    group.servers[1].start().unwrap();
    wait_half(&group.servers[1], MANY / 20);
    group.servers[2].start().unwrap();
    wait_loaded(&group.servers[1]);
    let line = wait_loaded(&group.servers[2]);
    assert!(line.contains("from a@xmpp.test"), "{line}");
    settle_smoothly(&group);
    let log = group.servers[0].log();
    let mark = format!("card of {}: ", group.jid(1));
    let cards: Vec<&str> =
        log.lines().filter(|line| line.contains(&mark) && line.contains("loading")).collect();
    let far = cards.iter().filter(|card| !card.contains("loading 0 of ")).count();
    assert!(far > 0, "no card shows progress: {cards:#?}");
}

/// A server's disk is lost, and of the two others the one that is there knows less of what it made than the one that is away.
fn lose_the_disk_while_one_is_away(mut group: Group, is_loaded: bool) {
    for server in &mut group.servers {
        server.start().unwrap();
    }
    wait_entry(&group.servers[1], PEOPLE, true);
    let known = add_person(&mut group.servers[1].ldap().unwrap(), "known");
    settle(&group);
    group.servers[0].stop().unwrap();
    let before = add_person(&mut group.servers[1].ldap().unwrap(), "before");
    group.servers[1].ldap().unwrap().replace(&known, "description", &["of before"]).unwrap();
    wait_entry(&group.servers[2], &before, true);
    wait_values(&group.servers[2], &known, "description", &["of before"]);
    for server in [2, 1] {
        group.servers[server].stop().unwrap();
    }
    empty(&group.servers[1]);
    group.servers[0].start().unwrap();
    group.servers[1].start().unwrap();
    wait_entry(&group.servers[1], &known, true);
    // Later than what is to come from the one that is away, and of the same entry.
    group.servers[0].ldap().unwrap().replace(&known, "title", &["of meanwhile"]).unwrap();
    let after = add_person(&mut group.servers[1].ldap().unwrap(), "after");
    wait_entry(&group.servers[0], &after, true);
    group.servers[2].start().unwrap();
    for server in &group.servers {
        wait_entry(server, &before, true);
        wait_entry(server, &after, true);
        wait_values(server, &known, "description", &["of before"]);
        wait_values(server, &known, "title", &["of meanwhile"]);
    }
    settle(&group);
    assert_eq!(group.servers[1].run_log().contains("entries loaded from"), is_loaded);
    for server in &group.servers {
        assert!(!server.run_log().contains("was put back"), "on {}", server.name());
    }
}

fn without_offline_messages() -> GroupOptions {
    let overlay_lines = vec!["xmppsync-offline-messages 0".to_owned()];
    GroupOptions { servers: 3, overlay_lines, ..GroupOptions::default() }
}

#[test]
fn what_a_server_made_before_its_disk_was_lost_comes_from_one_that_was_away_when_it_was_loaded() {
    let content = ldif::text(&ldif::directory(SUFFIX, 50));
    lose_the_disk_while_one_is_away(full_and_empty_with(without_offline_messages(), &content), true);
}

#[test]
fn what_a_server_made_before_its_disk_was_lost_comes_from_one_that_was_away_when_it_pulled() {
    let mut group = group_with(without_offline_messages());
    for server in &mut group.servers {
        server.stop().unwrap();
    }
    lose_the_disk_while_one_is_away(group, false);
}

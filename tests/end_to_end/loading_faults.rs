//! Loads that are cut off, begin anew, or must not be.

use crate::PATIENCE;
use crate::loading::*;
use crate::meanwhile::count;
use crate::steps::*;
use std::fs;
use std::path::PathBuf;
use xmppsync_lab::{
    ContextCsn, Group, GroupOptions, SUFFIX, XmppData, assert_equal_with, failpoints_module_path, ldif,
    wait_for,
};

const HOLD_AT: &str = "XMPPSYNC_HOLD_AT";

/// The second server comes to a point of the load and waits there: a fast machine would have it done before anything
/// can happen to it.
struct Hold(PathBuf);

impl Hold {
    /// From its next start on.
    fn at(point: &str, group: &mut Group) -> Hold {
        let file = group.lab.write("hold", "").unwrap();
        group.servers[1].set_environment(&[(HOLD_AT, &format!("{point}:{}", file.display()))]);
        Hold(file)
    }

    fn release(self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// A group of which no slapd runs yet; the first server has so many entries, and the second will wait at the point.
fn held_at(point: &str, servers: usize, people: usize) -> (Group, Hold) {
    let module = Some(failpoints_module_path().unwrap());
    let options = GroupOptions { servers, module, ..GroupOptions::default() };
    let mut group = full_and_empty_with(options, &many(people));
    let hold = Hold::at(point, &mut group);
    (group, hold)
}

/// Waits until the load of the second server is on its way; it goes on when it is released.
fn begun() -> (Group, Hold) {
    let (mut group, hold) = held_at("loading", 2, MANY);
    group.servers[0].start().unwrap();
    group.servers[1].start().unwrap();
    wait_half(&group.servers[1], MANY / 20);
    (group, hold)
}

/// Cuts the connection of a server, and waits until it has seen that.
fn kick(group: &Group, server: usize) {
    let slapd = &group.servers[server];
    let cuts = || count(&slapd.run_log(), "}: not in room ");
    let (user, before) = (slapd.name(), cuts());
    group.xmpp.api("kick_user", &format!(r#"{{"user":"{user}","host":"xmpp.test"}}"#)).unwrap();
    wait_for("the connection is cut", PATIENCE, || cuts() > before).unwrap();
}

fn goes_on_when_cut_off(server: usize) {
    let (group, hold) = begun();
    kick(&group, server);
    hold.release();
    group.servers[1].wait_log("it goes on from there", PATIENCE).unwrap();
    wait_loaded(&group.servers[1]);
    assert!(!group.servers[1].log().contains("begins anew"), "{}", group.servers[1].log());
    settle_smoothly(&group);
}

#[test]
fn a_load_whose_receiver_is_cut_off_goes_on_from_there() {
    goes_on_when_cut_off(1);
}

#[test]
fn a_load_whose_source_is_cut_off_goes_on_from_there() {
    goes_on_when_cut_off(0);
}

#[test]
fn a_load_survives_a_restart_of_the_xmpp_server() {
    let (mut group, hold) = begun();
    group.xmpp.restart(XmppData::Keep).unwrap();
    hold.release();
    group.servers[1].wait_log("it goes on from there", PATIENCE).unwrap();
    wait_loaded(&group.servers[1]);
    settle_smoothly(&group);
}

/// What was loaded from the snapshot before the source died, and deleted before the next one was made, is in neither the
/// second snapshot nor any change behind it.
#[test]
fn a_source_that_is_killed_and_comes_back_leaves_nothing_behind_that_it_deleted() {
    let (mut group, hold) = begun();
    group.xmpp.pause().unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    for number in 0..10 {
        ldap.delete(&person_dn(number)).unwrap();
    }
    ldap.replace(&person_dn(11), "sn", &["changed"]).unwrap();
    group.servers[0].kill9().unwrap();
    hold.release();
    group.xmpp.resume().unwrap();
    group.servers[0].start().unwrap();
    wait_loaded(&group.servers[1]);
    settle(&group);
}

#[test]
fn another_server_takes_over_as_the_source() {
    let (mut group, hold) = held_at("loading", 3, MANY);
    group.servers[0].start().unwrap();
    group.servers[2].start().unwrap();
    wait_loaded(&group.servers[2]);
    group.servers[1].start().unwrap();
    let line = group.servers[1].wait_log(" entries from ", LOAD_PATIENCE).unwrap();
    let source = if line.contains("from a@") { 0 } else { 2 };
    wait_half(&group.servers[1], MANY / 20);
    group.servers[source].kill9().unwrap();
    hold.release();
    wait_loaded(&group.servers[1]);
    group.servers[source].start().unwrap();
    settle(&group);
}

#[test]
fn a_load_that_was_killed_begins_anew_and_keeps_nothing_that_is_gone() {
    let (mut group, hold) = begun();
    group.servers[1].kill9().unwrap();
    hold.release();
    let mut ldap = group.servers[0].ldap().unwrap();
    for number in 0..10 {
        ldap.delete(&person_dn(number)).unwrap();
    }
    ldap.rename(&person_dn(10), "uid=renamed", None).unwrap();
    // The next snapshot is another one.
    group.servers[0].restart().unwrap();
    group.servers[1].start().unwrap();
    group.servers[1].wait_log("an initial load was not finished", PATIENCE).unwrap();
    wait_loaded(&group.servers[1]);
    settle(&group);
    // It is whole for good.
    group.servers[1].restart().unwrap();
    settle(&group);
    assert!(!group.servers[1].run_log().contains("was not finished"), "{}", group.servers[1].run_log());
}

/// The journal failed, or was made anew, during the load: it does not know of that any more.
#[test]
fn a_load_that_was_killed_begins_anew_without_the_journal_of_its_beginning() {
    let (mut group, hold) = begun();
    group.servers[1].kill9().unwrap();
    hold.release();
    let journal = group.servers[1].database_dir(0).join("xmppsync");
    fs::remove_file(journal.join("journal.redb")).unwrap();
    assert!(journal.join("loading").exists());
    group.servers[1].start().unwrap();
    group.servers[1].wait_log("an initial load was not finished", PATIENCE).unwrap();
    wait_loaded(&group.servers[1]);
    settle(&group);
    assert!(!journal.join("loading").exists());
}

/// The whole file was there and many of its entries still waited for their transaction; the journal said already that the
/// load was done, and the next start took the vector from the entries that had been written.
#[test]
fn a_load_that_is_killed_when_its_file_is_there_is_not_taken_for_whole() {
    // No more than may wait: what is beyond would hold back the file.
    let people = MANY / 2;
    let (mut group, hold) = held_at("applying", 2, people);
    let mut config = group.config(1).unwrap();
    config.databases[0].overlay_lines.push("xmppsync-serve-while-loading off".to_owned());
    group.servers[1].set_config(config).unwrap();
    group.start().unwrap();
    // All of them, with the suffix entry and their parent.
    let whole = format!("loading {0} of {0}", people + 2);
    group.servers[0].wait_log(".ldif.zst went to", LOAD_PATIENCE).unwrap();
    group.servers[0].wait_log(&whole, PATIENCE).unwrap();
    group.servers[1].kill9().unwrap();
    hold.release();
    group.servers[0].stop().unwrap();
    group.servers[1].start().unwrap();
    // Nobody is there who could make it whole.
    group.servers[1].wait_log("in room", PATIENCE).unwrap();
    let mut ldap = group.servers[1].ldap().unwrap();
    assert_eq!(code(raw(&mut ldap).modify(SUFFIX, vec![set("description", &["x"])])), BUSY);
    group.servers[0].start().unwrap();
    wait_loaded(&group.servers[1]);
    settle(&group);
}

#[test]
fn the_source_that_the_admin_names_is_waited_for() {
    let content = ldif::text(&ldif::directory(SUFFIX, 300));
    let mut group = full_and_empty(3, &content);
    group.servers[0].start().unwrap();
    group.servers[2].start().unwrap();
    wait_loaded(&group.servers[2]);
    group.servers[2].stop().unwrap();
    let mut config = group.config(1).unwrap();
    config.databases[0].overlay_lines.push(format!("xmppsync-load-from {}", group.jid(2)));
    group.servers[1].set_config(config).unwrap();
    group.servers[1].start().unwrap();
    group.servers[1].wait_log("which is not in the room; waiting for it", PATIENCE).unwrap();
    group.servers[2].start().unwrap();
    let line = wait_loaded(&group.servers[1]);
    assert!(line.contains("from c@xmpp.test"), "{line}");
    assert_eq!(group.servers[1].log().matches("waiting for it").count(), 1);
    settle(&group);
}

#[test]
fn two_databases_that_were_made_apart_refuse_each_other() {
    let mut group = Group::prepare(GroupOptions { servers: 2, ..GroupOptions::default() }).unwrap();
    for (server, people) in [(0, 20), (1, 30)] {
        let (content, id) = (ldif::text(&ldif::directory(SUFFIX, people)), (server + 1).to_string());
        group.servers[server].slapadd_with(SUFFIX, &content, &["-q", "-w", "-S", &id]).unwrap();
    }
    let before: Vec<_> = group.servers.iter().map(stored).collect();
    group.start().unwrap();
    for server in &group.servers {
        server.wait_log("choose the one to keep", PATIENCE).unwrap();
    }
    for (server, before) in group.servers.iter().zip(before) {
        assert_eq!(stored(server), before, "{}", server.name());
    }
    group.servers[1].stop().unwrap();
    let database = group.servers[1].database_dir(0);
    fs::remove_dir_all(&database).unwrap();
    fs::create_dir_all(&database).unwrap();
    group.servers[1].start().unwrap();
    wait_loaded(&group.servers[1]);
    assert_equal_with(&group.servers, SUFFIX, ContextCsn::Compare, PATIENCE).unwrap();
    add_person(&mut group.servers[1].ldap().unwrap(), "together");
    settle(&group);
}

#[test]
fn clients_are_answered_busy_where_the_admin_wants_it_so() {
    let (mut group, hold) = held_at("loading", 3, MANY);
    group.servers[2].set_environment(&[(HOLD_AT, &format!("loading:{}", hold.0.display()))]);
    let mut config = group.config(1).unwrap();
    config.databases[0].overlay_lines.push("xmppsync-serve-while-loading off".to_owned());
    group.servers[1].set_config(config).unwrap();
    group.start().unwrap();
    group.servers[1].wait_log(&format!("loading {} entries from", MANY + 2), PATIENCE).unwrap();
    let mut ldap = group.servers[1].ldap().unwrap();
    let search = raw(&mut ldap).search(SUFFIX, xmppsync_lab::ldap3::Scope::Base, "(objectClass=*)", ["1.1"]);
    let found = search.unwrap().1.rc;
    let written = code(raw(&mut ldap).modify(SUFFIX, vec![set("description", &["x"])]));
    assert_eq!((found, written), (BUSY, BUSY));
    // By default clients are served what is there.
    wait_half(&group.servers[2], 10);
    hold.release();
    wait_loaded(&group.servers[1]);
    wait_loaded(&group.servers[2]);
    ldap.replace(SUFFIX, "description", &["served again"]).unwrap();
    settle(&group);
}

//! Entries that change their names, and entries that go.

use crate::steps::*;
use xmppsync_lab::{Group, Ldap};

#[test]
fn every_kind_of_rename_arrives() {
    let group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    a_new_rdn_takes_the_place_of_the_old_one(&group, &mut ldap);
    the_old_rdn_stays_as_a_value_when_asked_for(&group, &mut ldap);
    an_entry_moves_below_another(&group, &mut ldap);
    a_subtree_moves_with_everything_in_it(&group, &mut ldap);
    a_change_of_case_only_is_a_rename(&group, &mut ldap);
    awkward_names_come_and_go(&group, &mut ldap);
    settle_smoothly(&group);
    assert_eq!(stored(&group.servers[0]), stored(&group.servers[1]));
}

fn a_new_rdn_takes_the_place_of_the_old_one(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "old");
    ldap.rename(&dn, "uid=new", None).unwrap();
    wait_entry(&group.servers[1], &format!("uid=new,{PEOPLE}"), true);
    wait_entry(&group.servers[1], &dn, false);
    wait_values(&group.servers[1], &format!("uid=new,{PEOPLE}"), "uid", &["new"]);
    // The name is free for another.
    add_person(ldap, "old");
    settle_smoothly(group);
}

fn the_old_rdn_stays_as_a_value_when_asked_for(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "kept");
    assert_eq!(code(raw(ldap).modifydn(&dn, "uid=added", false, None)), 0);
    wait_values(&group.servers[1], &format!("uid=added,{PEOPLE}"), "uid", &["added", "kept"]);
    // By another attribute, of which the entry has the value already.
    assert_eq!(code(raw(ldap).modifydn(&format!("uid=added,{PEOPLE}"), "cn=kept+sn=Test", true, None)), 0);
    wait_values(&group.servers[1], &format!("cn=kept+sn=Test,{PEOPLE}"), "uid", &["kept"]);
}

fn unit(ldap: &mut Ldap, name: &str, parent: &str) -> String {
    let dn = format!("ou={name},{parent}");
    ldap.add(&dn, &[("objectClass", "organizationalUnit"), ("ou", name)]).unwrap();
    dn
}

fn an_entry_moves_below_another(group: &Group, ldap: &mut Ldap) {
    let to = unit(ldap, "to", PEOPLE);
    let dn = add_person(ldap, "mover");
    ldap.rename(&dn, "uid=mover", Some(&to)).unwrap();
    wait_entry(&group.servers[1], &format!("uid=mover,{to}"), true);
    ldap.rename(&format!("uid=mover,{to}"), "uid=moved back", Some(PEOPLE)).unwrap();
    wait_entry(&group.servers[1], &format!("uid=moved back,{PEOPLE}"), true);
    settle_smoothly(group);
}

fn a_subtree_moves_with_everything_in_it(group: &Group, ldap: &mut Ldap) {
    let top = unit(ldap, "top", PEOPLE);
    let elsewhere = unit(ldap, "elsewhere", "dc=example,dc=com");
    let middle = unit(ldap, "middle", &top);
    for number in 0..20 {
        let uid = format!("leaf{number}");
        ldap.add(&format!("uid={uid},{middle}"), &person(&uid)).unwrap();
    }
    ldap.rename(&top, "ou=Whole Tree", Some(&elsewhere)).unwrap();
    let leaf = format!("uid=leaf7,ou=middle,ou=Whole Tree,{elsewhere}");
    wait_entry(&group.servers[1], &leaf, true);
    // What was below goes on being found under its new name, from both sides.
    ldap.replace(&leaf, "description", &["after the move"]).unwrap();
    wait_values(&group.servers[1], &leaf, "description", &["after the move"]);
    let mut peer = group.servers[1].ldap().unwrap();
    peer.rename(&format!("ou=middle,ou=Whole Tree,{elsewhere}"), "ou=inner", Some(PEOPLE)).unwrap();
    wait_entry(&group.servers[0], &format!("uid=leaf7,ou=inner,{PEOPLE}"), true);
    settle_smoothly(group);
}

fn a_change_of_case_only_is_a_rename(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "lower");
    ldap.rename(&dn, "uid=LOWER", None).unwrap();
    wait_values(&group.servers[1], &dn, "uid", &["LOWER"]);
    let dump = settle_smoothly(group);
    assert_eq!(dump[&dn]["dn"], [format!("uid=LOWER,{PEOPLE}").into_bytes()].into());
}

fn awkward_names_come_and_go(group: &Group, ldap: &mut Ldap) {
    let mut dn = format!("cn=awkward,{PEOPLE}");
    let attributes = [("objectClass", "inetOrgPerson"), ("cn", "awkward"), ("sn", "x"), ("uid", "b")];
    ldap.add(&dn, &attributes).unwrap();
    for rdn in ["cn=Smith\\, John", "cn=\\#1 \\+ \\\"2\\\"", "cn=Jürgen\\ ", "cn=a+uid=b", "cn=]]\\> &amp\\;"]
    {
        ldap.rename(&dn, rdn, None).unwrap();
        dn = format!("{rdn},{PEOPLE}");
        wait_entry(&group.servers[1], &dn, true);
    }
    settle_smoothly(group);
}

/// back-mdb, inside a transaction, deletes the last child of an entry and then says that it could not: the peers
/// tried each such delete ten times and set it aside.
#[test]
fn deleted_entries_go_and_their_names_can_be_used_again() {
    let group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    let mut peer = group.servers[1].ldap().unwrap();
    let dn = add_person(&mut ldap, "phoenix");
    wait_entry(&group.servers[1], &dn, true);
    let first = ldap.values(&dn, "entryUUID").unwrap();
    ldap.delete(&dn).unwrap();
    wait_entry(&group.servers[1], &dn, false);
    // Again from the other side.
    peer.add(&dn, &person("phoenix")).unwrap();
    wait_entry(&group.servers[0], &dn, true);
    assert_ne!(ldap.values(&dn, "entryUUID").unwrap(), first);
    // In one go, many times, so that all of it lands in few transactions.
    for _ in 0..30 {
        ldap.delete(&dn).unwrap();
        ldap.add(&dn, &person("phoenix")).unwrap();
        ldap.replace(&dn, "description", &["risen"]).unwrap();
    }
    let dump = settle_smoothly(&group);
    assert_eq!(dump[&dn]["description"], [b"risen".to_vec()].into());
    // A whole tree, leaves first.
    let children: Vec<String> = (0..10).map(|number| format!("uid=child{number},{dn}")).collect();
    for (number, child) in children.iter().enumerate() {
        ldap.add(child, &person(&format!("child{number}"))).unwrap();
    }
    for child in &children {
        ldap.delete(child).unwrap();
    }
    ldap.delete(&dn).unwrap();
    assert_eq!(settle_smoothly(&group).len(), 2);
}

#[test]
fn an_entry_renamed_here_and_modified_there_is_found_by_its_entry_uuid() {
    let group = group(3);
    let mut a = group.servers[0].ldap().unwrap();
    let mut b = group.servers[1].ldap().unwrap();
    let dns: Vec<String> = ["one", "two", "three"].iter().map(|uid| add_person(&mut a, uid)).collect();
    let unit = unit(&mut a, "elsewhere", PEOPLE);
    settle(&group);
    // Neither sees what the other does.
    group.xmpp.pause().unwrap();
    a.rename(&dns[0], "uid=renamed", None).unwrap();
    b.replace(&dns[0], "description", &["written under the old name"]).unwrap();
    b.replace(&dns[1], "description", &["moved later"]).unwrap();
    a.rename(&dns[1], "uid=two", Some(&unit)).unwrap();
    a.rename(&dns[2], "uid=gone", None).unwrap();
    b.replace(&dns[2], "mail", &["three@x"]).unwrap();
    b.replace(&dns[2], "title", &["again"]).unwrap();
    group.xmpp.resume().unwrap();
    let dump = settle_smoothly(&group);
    let text = |dn: &str, attribute: &str| {
        let value = dump[dn][attribute].first().unwrap();
        String::from_utf8_lossy(value).into_owned()
    };
    assert_eq!(text(&format!("uid=renamed,{PEOPLE}"), "description"), "written under the old name");
    assert_eq!(text(&format!("uid=two,{unit}"), "description"), "moved later");
    assert_eq!(text(&format!("uid=gone,{PEOPLE}"), "title"), "again");
}

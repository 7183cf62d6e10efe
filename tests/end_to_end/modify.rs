//! Every kind of content, added and modified.

use crate::steps::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashSet;
use xmppsync_lab::ldap3::Mod;
use xmppsync_lab::ldap3::exop::{PasswordModify, PasswordModifyResp};
use xmppsync_lab::{Group, GroupOptions, Ldap, ldif};

const MEGABYTE: usize = 1_000_000;

#[test]
fn every_kind_of_modification_arrives() {
    let group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    values_are_added_deleted_and_replaced(&group, &mut ldap);
    modifications_of_one_request_are_made_in_their_order(&group, &mut ldap);
    increments_count_on_both(&group, &mut ldap);
    a_whole_attribute_is_deleted(&group, &mut ldap);
    an_object_class_comes_and_goes(&group, &mut ldap);
    settle_smoothly(&group);
    assert_eq!(stored(&group.servers[0]), stored(&group.servers[1]));
}

fn values_are_added_deleted_and_replaced(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "values");
    let peer = &group.servers[1];
    ldap.modify(&dn, vec![plus("mail", &["a@x", "b@x"])]).unwrap();
    wait_values(peer, &dn, "mail", &["a@x", "b@x"]);
    ldap.modify(&dn, vec![minus("mail", &["a@x"])]).unwrap();
    wait_values(peer, &dn, "mail", &["b@x"]);
    ldap.modify(&dn, vec![set("mail", &["c@x", "d@x"])]).unwrap();
    wait_values(peer, &dn, "mail", &["c@x", "d@x"]);
    ldap.modify(&dn, vec![set("mail", &[])]).unwrap();
    wait_values(peer, &dn, "mail", &[]);
    // Nothing to replace: no error, and no difference.
    ldap.modify(&dn, vec![set("mail", &[]), set("description", &["there"])]).unwrap();
    wait_values(peer, &dn, "description", &["there"]);
}

fn modifications_of_one_request_are_made_in_their_order(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "order");
    let changes = vec![
        plus("description", &["one", "two"]),
        minus("description", &["one"]),
        plus("description", &["three"]),
        plus("description", &["one"]),
        minus("description", &["two"]),
        set("title", &["first"]),
        set("title", &["last"]),
    ];
    ldap.modify(&dn, changes).unwrap();
    wait_values(&group.servers[1], &dn, "description", &["one", "three"]);
    wait_values(&group.servers[1], &dn, "title", &["last"]);
}

fn increments_count_on_both(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "increment");
    for step in ["5", "-2", "1"] {
        ldap.modify(&dn, vec![Mod::Increment("uidNumber".into(), step.into())]).unwrap();
    }
    wait_values(&group.servers[1], &dn, "uidNumber", &["1004"]);
}

fn a_whole_attribute_is_deleted(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "whole");
    ldap.modify(&dn, vec![plus("mail", &["a@x", "b@x"]), plus("mail;lang-de", &["c@x"])]).unwrap();
    wait_values(&group.servers[1], &dn, "mail", &["a@x", "b@x", "c@x"]);
    ldap.modify(&dn, vec![minus("mail", &[])]).unwrap();
    wait_values(&group.servers[1], &dn, "mail", &["c@x"]);
}

fn an_object_class_comes_and_goes(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "classes");
    let classes = ["inetOrgPerson", "posixAccount", "uidObject"];
    ldap.modify(&dn, vec![plus("objectClass", &["uidObject"])]).unwrap();
    wait_values(&group.servers[1], &dn, "objectClass", &classes);
    ldap.modify(&dn, vec![minus("objectClass", &["uidObject"])]).unwrap();
    wait_values(&group.servers[1], &dn, "objectClass", &classes[..2]);
}

#[test]
fn spelling_and_order_are_kept() {
    let group = group(2);
    let (writer, peer) = (&group.servers[0], &group.servers[1]);
    let mut text = String::new();
    for dn in AWKWARD_DNS {
        text.push_str(&format!("dn: {dn},{PEOPLE}\nobjectClass: person\nsn: Ärger\n\n"));
    }
    // Options in an order and a case that nobody would choose; values in no order at all.
    text.push_str(&format!(
        "dn: CN=MiXed CaSe,OU=People,DC=Example,DC=Com\nobjectClass: top\nobjectClass: inetOrgPerson\n\
         objectClass: uidObject\nSN: Von Und Zu\nuid: MiXed\ndescription;LANG-de: zuerst\n\
         description;lang-pt-BR;lang-AA: combinado\ndescription: zz\ndescription: aa\ndescription: mm\n\
         mail;lang-zz: z@x\nmail: b@x\nmail: a@x\nmail;lang-aa: a@x\n\n\
         dn: cn=MiXed CaSe,{PEOPLE}\nchangetype: modify\nadd: mail;lang-MM\nmail;lang-MM: m@x\nmail;lang-MM: k@x\n-\n\
         replace: description;LANG-de\ndescription;LANG-de: später\ndescription;LANG-de: früher\n-\n\
         add: mail\nmail: 0@x\n-\n\n"
    ));
    writer.ldapmodify("dc=example,dc=com", &text).unwrap();
    let dump = settle_smoothly(&group);
    assert_eq!(dump.len(), 2 + AWKWARD_DNS.len() + 1);
    let (here, there) = (stored(writer), stored(peer));
    assert_eq!(here, there);
    let mixed = here.iter().find(|(dn, _)| dn.contains("MiXed CaSe")).unwrap().1;
    // slapd itself writes options in lower case and sorts them.
    assert!(mixed.contains("description;lang-aa;lang-pt-br: combinado"), "{mixed}");
    assert!(mixed.contains("description: zz\ndescription: aa\ndescription: mm"), "{mixed}");
    assert!(mixed.contains("mail;lang-mm: m@x\nmail;lang-mm: k@x"), "{mixed}");
    // The same through every later operation.
    let mut ldap = peer.ldap().unwrap();
    for dn in AWKWARD_DNS {
        ldap.replace(&format!("{dn},{PEOPLE}"), "description", &["geändert"]).unwrap();
    }
    settle_smoothly(&group);
    assert_eq!(stored(writer), stored(peer));
    for dn in AWKWARD_DNS {
        ldap.delete(&format!("{dn},{PEOPLE}")).unwrap();
    }
    assert_eq!(settle_smoothly(&group).len(), 3);
}

const AWKWARD_DNS: [&str; 12] = [
    "cn=Jürgen Müller",
    "cn=\u{5c71}\u{7530}\u{592a}\u{90ce}",
    "cn=\u{1f600} \u{0416}",
    "cn=Smith\\, John",
    "cn=a \\+ b \\= c",
    "cn=\\\"quoted\\\" \\<angle\\> \\; \\\\",
    "cn=\\#hash",
    "cn=\\ leading and trailing\\ ",
    "cn=UPPER lower",
    "cn=two+sn=Ärger",
    "cn=e\u{301} is not \u{e9}",
    "cn=with \\22entities\\22 &amp\\; ]]\\>",
];

#[test]
fn bytes_of_any_kind_and_size_arrive() {
    let group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    octets_with_nul_arrive(&group, &mut ldap);
    a_certificate_and_a_photo_arrive(&group, &mut ldap);
    values_of_a_megabyte_arrive(&group, &mut ldap);
    a_group_of_a_thousand_members_arrives(&group, &mut ldap);
    settle_smoothly(&group);
    assert_eq!(stored(&group.servers[0]), stored(&group.servers[1]));
}

fn bytes(attribute: &str, values: impl IntoIterator<Item = Vec<u8>>) -> Mod<Vec<u8>> {
    Mod::Replace(attribute.into(), values.into_iter().collect::<HashSet<_>>())
}

fn octets_with_nul_arrive(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "octets");
    let values: Vec<Vec<u8>> = vec![
        b"\0".to_vec(),
        b"nul \0 inside".to_vec(),
        b"\0\xff\xfe\r\n\t".to_vec(),
        (0..=255).collect(),
        " both ends ".into(),
        "]]> & <b/> '\"".into(),
        "\u{fffe}\u{1}".into(),
    ];
    ldap.modify(&dn, vec![bytes("userPassword", values.clone())]).unwrap();
    let dump = settle_smoothly(group);
    assert_eq!(dump[&dn]["userPassword"], values.into_iter().collect());
}

fn a_certificate_and_a_photo_arrive(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "binary");
    let pem = std::fs::read_to_string(group.xmpp.ca_file()).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let certificate = STANDARD.decode(base64).unwrap();
    let changes = vec![
        bytes("userCertificate;binary", [certificate.clone()]),
        bytes("jpegPhoto", [ldif::photo(3_000), ldif::photo(90_000)]),
    ];
    ldap.modify(&dn, changes).unwrap();
    let dump = settle_smoothly(group);
    assert!(dump[&dn]["userCertificate;binary"].contains(&certificate));
    assert_eq!(dump[&dn]["jpegPhoto"].len(), 2);
}

fn values_of_a_megabyte_arrive(group: &Group, ldap: &mut Ldap) {
    let dn = add_person(ldap, "megabyte");
    let text = "é<&>\" ".repeat(MEGABYTE / 7);
    ldap.modify(&dn, vec![set("description", &[&text])]).unwrap();
    // Two more in one change, with small ones of others around it.
    add_person(ldap, "before-the-photos");
    let octets: Vec<u8> = (0..MEGABYTE).map(|index| (index * 7 % 256) as u8).collect();
    ldap.modify(&dn, vec![bytes("jpegPhoto", [ldif::photo(MEGABYTE)]), bytes("audio", [octets.clone()])])
        .unwrap();
    add_person(ldap, "after-the-photos");
    let dump = settle_smoothly(group);
    // Without printing megabytes.
    assert!(dump[&dn]["description"] == [text.into_bytes()].into());
    assert!(dump[&dn]["audio"] == [octets].into());
    ldap.modify(&dn, vec![set("description", &[]), set("jpegPhoto", &[]), set("audio", &[])]).unwrap();
    settle_smoothly(group);
}

fn a_group_of_a_thousand_members_arrives(group: &Group, ldap: &mut Ldap) {
    let dn = "cn=everybody,dc=example,dc=com";
    let members: Vec<String> = (0..1_000).map(|number| format!("uid=member{number},{PEOPLE}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let mut attributes = vec![("objectClass", "groupOfNames"), ("cn", "everybody")];
    attributes.extend(members[..900].iter().map(|member| ("member", *member)));
    ldap.add(dn, &attributes).unwrap();
    ldap.modify(dn, vec![plus("member", &members[900..])]).unwrap();
    assert_eq!(settle_smoothly(group)[dn]["member"].len(), 1_000);
    ldap.modify(dn, vec![minus("member", &members[..500]), plus("member", &members[..3])]).unwrap();
    for member in &members[700..720] {
        ldap.modify(dn, vec![minus("member", &[member])]).unwrap();
    }
    assert_eq!(settle_smoothly(group)[dn]["member"].len(), 483);
}

#[test]
fn a_password_set_by_the_extended_operation_is_good_on_the_peer() {
    let rights = ["access to attrs=userPassword by self write by anonymous auth", "access to * by * read"];
    let database_lines = rights.map(str::to_owned).to_vec();
    let group = group_with(GroupOptions { servers: 2, database_lines, ..GroupOptions::default() });
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_person(&mut ldap, "password");
    let request = PasswordModify { user_id: Some(&dn), old_pass: None, new_pass: Some("neues Paßwort") };
    raw(&mut ldap).extended(request).unwrap().success().unwrap();
    let dump = settle_smoothly(&group);
    let hash = dump[&dn]["userPassword"].first().unwrap();
    assert!(hash.starts_with(b"{SSHA}"), "{}", String::from_utf8_lossy(hash));
    assert!(Ldap::bind(&group.servers[1].uri(), &dn, "neues Paßwort").is_ok());
    assert!(Ldap::bind(&group.servers[1].uri(), &dn, "another").is_err());
    // By the user, on the other server, with a password that slapd makes up.
    let mut user = Ldap::bind(&group.servers[1].uri(), &dn, "neues Paßwort").unwrap();
    let request = PasswordModify { user_id: None, old_pass: Some("neues Paßwort"), new_pass: None };
    let (answer, _) = raw(&mut user).extended(request).unwrap().success().unwrap();
    let made_up = answer.parse::<PasswordModifyResp>().gen_pass;
    settle_smoothly(&group);
    assert!(Ldap::bind(&group.servers[0].uri(), &dn, &made_up).is_ok());
    assert!(Ldap::bind(&group.servers[0].uri(), &dn, "neues Paßwort").is_err());
}

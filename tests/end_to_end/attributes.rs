//! Attributes with rules of their own, changed on servers that are apart: one result on all, byte for byte.

use crate::PATIENCE;
use crate::catching_up::add_many;
use crate::conflicts::{Healing, apart_with};
use crate::meanwhile::OnDrop;
use crate::steps::*;
use crate::transactions::Transaction;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use xmppsync_lab::ldap3::Mod;
use xmppsync_lab::{Group, GroupOptions, Ldap, Slapd};

/// Types that no schema of Debian's has: `ordered` and `sibling` with the two kinds of order, `unmatched` without an equality rule,
/// `counts` with several numbers.
const SCHEMA: [&str; 5] = [
    "attributetype ( 2.999.1.1 NAME 'ordered' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 X-ORDERED 'VALUES' )",
    "attributetype ( 2.999.1.2 NAME 'sibling' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE X-ORDERED 'SIBLINGS' )",
    "attributetype ( 2.999.1.3 NAME 'unmatched' SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )",
    "attributetype ( 2.999.1.4 NAME 'counts' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 )",
    "objectclass ( 2.999.1.5 NAME 'special' SUP top AUXILIARY MAY ( ordered $ sibling $ unmatched $ counts ) )",
];

fn options() -> GroupOptions {
    GroupOptions { global_lines: SCHEMA.map(str::to_owned).to_vec(), ..GroupOptions::default() }
}

fn both_ways(prepare: fn(&mut Ldap), meanwhile: fn(&mut [Ldap]), check: fn(&Slapd, &Group)) {
    for healing in [Healing::Late, Healing::Asked] {
        let (group, _) = apart_with(options(), healing, prepare, meanwhile);
        for server in &group.servers {
            check(server, &group);
        }
    }
}

fn dn(uid: &str) -> String {
    format!("uid={uid},{PEOPLE}")
}

fn add_special(ldap: &mut Ldap, uid: &str) -> String {
    let dn = add_person(ldap, uid);
    ldap.modify(&dn, vec![plus("objectClass", &["special"])]).unwrap();
    dn
}

/// One modification for each value: what a client sends in one is a set for the library.
fn add_each(ldap: &mut Ldap, dn: &str, attribute: &str, values: &[&str]) {
    ldap.modify(dn, values.iter().map(|value| plus(attribute, &[value])).collect()).unwrap();
}

/// The values of an attribute in the order in which they are stored.
fn sequence(server: &Slapd, dn: &str, attribute: &str) -> Vec<String> {
    let entries = stored(server);
    let entry = entries.get(&format!("dn: {dn}")).cloned().unwrap_or_default();
    let values = entry.lines().filter_map(|line| line.split_once(": "));
    values.filter(|(name, _)| *name == attribute).map(|(_, value)| value.to_owned()).collect()
}

fn is(server: &Slapd, dn: &str, attribute: &str, expected: &[&str]) {
    let values = server.ldap().unwrap().values(dn, attribute).unwrap();
    assert_eq!(values, expected, "{attribute} on {}", server.name());
}

fn increment(attribute: &str, by: i32) -> Mod<Vec<u8>> {
    Mod::Increment(attribute.into(), by.to_string().into_bytes())
}

#[test]
fn ordered_values_that_meet_are_the_later_sequence_as_a_whole() {
    both_ways(
        |ldap| {
            for uid in ["a", "b", "c"] {
                let dn = add_special(ldap, uid);
                add_each(ldap, &dn, "ordered", &["one", "two", "three"]);
            }
        },
        |clients| {
            clients[0].modify(&dn("a"), vec![plus("ordered", &["{0}zero"])]).unwrap();
            clients[1].modify(&dn("a"), vec![minus("ordered", &["{1}"])]).unwrap();
            clients[2]
                .modify(&dn("a"), vec![plus("ordered", &["four"]), minus("ordered", &["one"])])
                .unwrap();
            // What comes last was made on the first server.
            clients[2].modify(&dn("b"), vec![plus("ordered", &["{1}x"])]).unwrap();
            clients[1].replace(&dn("b"), "ordered", &["y"]).unwrap();
            clients[0].modify(&dn("b"), vec![plus("ordered", &["{0}z"]), set("title", &["t"])]).unwrap();
            clients[1].modify(&dn("c"), vec![plus("ordered", &["{3}four"])]).unwrap();
            clients[0].modify(&dn("c"), vec![minus("ordered", &[])]).unwrap();
            clients[2].modify(&dn("c"), vec![set("title", &["t"])]).unwrap();
            // The order of siblings is part of their names.
            for (client, name) in clients.iter_mut().zip(["{0}x", "{1}x", "{0}x"]) {
                let mut entry = person("s");
                entry.extend([("objectClass", "special"), ("sibling", name)]);
                client.add(&format!("sibling={name},{PEOPLE}"), &entry).unwrap();
            }
        },
        |server, _| {
            assert_eq!(sequence(server, &dn("a"), "ordered"), ["{0}two", "{1}three", "{2}four"]);
            assert_eq!(sequence(server, &dn("b"), "ordered"), ["{0}z", "{1}one", "{2}two", "{3}three"]);
            assert_eq!(sequence(server, &dn("c"), "ordered"), [""; 0]);
            is(server, &dn("b"), "title", &["t"]);
            is(server, &format!("sibling={{0}}x,{PEOPLE}"), "sibling", &["{0}x"]);
            is(server, &format!("sibling={{1}}x,{PEOPLE}"), "sibling", &["{1}x"]);
        },
    );
}

#[test]
fn ordered_values_are_numbered_alike_from_the_add_on() {
    let group = group_with(GroupOptions { servers: 2, ..options() });
    let first = &group.servers[0];
    let mut ldap = first.ldap().unwrap();
    let entry = |uid: &str, values: [&str; 3]| {
        let base = "objectClass: inetOrgPerson\nobjectClass: special\ncn: x\nsn: x\n";
        let values = values.map(|value| format!("ordered: {value}\n")).concat();
        format!("dn: {}\n{base}uid: {uid}\n{values}", dn(uid))
    };
    let records = [
        ("bare", ["one", "two", "three"], ["{0}one", "{1}two", "{2}three"]),
        ("mixed", ["one", "{0}two", "three"], ["{0}one", "{1}two", "{2}three"]),
        ("given", ["{7}three", "{0}one", "{3}two"], ["{0}one", "{1}two", "{2}three"]),
    ];
    for (uid, values, _) in records {
        first.ldapmodify(xmppsync_lab::SUFFIX, &entry(uid, values)).unwrap();
    }
    settle_smoothly(&group);
    for (uid, _, expected) in records {
        assert_eq!(sequence(first, &dn(uid), "ordered"), expected);
    }
    assert_eq!(stored(first), stored(&group.servers[1]));
    // Live, one modify after the other, and two of one attribute in one.
    ldap.modify(&dn("bare"), vec![plus("ordered", &["{1}x"]), minus("ordered", &["{0}"])]).unwrap();
    ldap.modify(&dn("bare"), vec![plus("ordered", &["last"]), set("title", &["t"])]).unwrap();
    settle_smoothly(&group);
    for server in &group.servers {
        assert_eq!(sequence(server, &dn("bare"), "ordered"), ["{0}x", "{1}two", "{2}three", "{3}last"]);
    }
}

#[test]
fn ordered_values_of_a_transaction_arrive_in_their_sequence() {
    let group = group_with(GroupOptions { servers: 2, ..options() });
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_special(&mut ldap, "a");
    add_each(&mut ldap, &dn, "ordered", &["one", "two"]);
    for (value, commit) in [("aborted", false), ("zero", true)] {
        let mut transaction = Transaction::begin(&mut ldap);
        transaction.modify(&dn, plus("ordered", &[&format!("{{0}}{value}")]));
        transaction.modify(&dn, minus("ordered", &["two"]));
        transaction.modify(&dn, plus("ordered", &["{1}half"]));
        assert_eq!(transaction.end(commit), 0);
    }
    settle_smoothly(&group);
    for server in &group.servers {
        assert_eq!(sequence(server, &dn, "ordered"), ["{0}zero", "{1}half", "{2}one"]);
    }
}

#[test]
fn ordered_values_keep_their_sequence_where_entries_are_compared_as_a_whole() {
    let lines = ["xmppsync-offline-messages 0", "xmppsync-journal-size 1m"];
    let overlay_lines = lines.map(str::to_owned).to_vec();
    let mut group = group_with(GroupOptions { servers: 2, overlay_lines, ..options() });
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_special(&mut ldap, "a");
    let values: Vec<String> = (0..12).map(|number| format!("value {number}")).collect();
    add_each(&mut ldap, &dn, "ordered", &values.iter().map(String::as_str).collect::<Vec<_>>());
    settle(&group);
    group.servers[1].stop().unwrap();
    ldap.modify(&dn, vec![minus("ordered", &["value 3"]), plus("ordered", &["{1}new"])]).unwrap();
    add_many(&group.servers[0], "missed", 1_300, 1_000);
    group.servers[0].wait_log("the journal reached xmppsync-journal-size", PATIENCE).unwrap();
    group.servers[1].start().unwrap();
    settle(&group);
    assert!(group.servers[1].run_log().contains("nobody's journal reaches back"));
    let [first, second] = [0, 1].map(|at| sequence(&group.servers[at], &dn, "ordered"));
    assert_eq!((first[0].as_str(), first[1].as_str(), first.len()), ("{0}value 0", "{1}new", 12));
    assert_eq!(first, second);
}

#[test]
fn two_servers_that_shuffle_ordered_values_at_the_same_time_end_with_one_sequence() {
    const ROUNDS: usize = 60;
    let group = group_with(GroupOptions { servers: 2, ..options() });
    let dn = add_special(&mut group.servers[0].ldap().unwrap(), "a");
    settle(&group);
    std::thread::scope(|scope| {
        for server in &group.servers {
            let dn = dn.clone();
            scope.spawn(move || {
                let mut ldap = server.ldap().unwrap();
                for round in 0..ROUNDS {
                    let value = format!("{{0}}{}-{round}", server.name());
                    // The other server may have taken what is to go.
                    ldap.modify(&dn, vec![plus("ordered", &[&value])]).unwrap();
                    if round % 3 == 2 {
                        let _ = raw(&mut ldap).modify(&dn, vec![minus("ordered", &["{2}"])]).unwrap();
                    }
                }
            });
        }
    });
    settle(&group);
    let [first, second] = [0, 1].map(|at| sequence(&group.servers[at], &dn, "ordered"));
    assert_eq!(first, second);
    assert!(!first.is_empty());
    for (at, value) in first.iter().enumerate() {
        assert!(value.starts_with(&format!("{{{at}}}")), "{first:?}");
    }
}

#[test]
fn increments_of_several_values_count_beside_other_changes_of_them() {
    both_ways(
        |ldap| {
            for uid in ["a", "b", "c"] {
                let dn = add_special(ldap, uid);
                ldap.modify(&dn, vec![plus("counts", &["10", "20"])]).unwrap();
            }
        },
        |clients| {
            for (client, by) in clients.iter_mut().zip([1, 2, 4]) {
                client.modify(&dn("a"), vec![increment("counts", by)]).unwrap();
            }
            // Added before the increment, taken after it, and the other way round.
            clients[2].modify(&dn("b"), vec![plus("counts", &["30"])]).unwrap();
            clients[1].modify(&dn("b"), vec![increment("counts", 5)]).unwrap();
            clients[0].modify(&dn("b"), vec![plus("counts", &["40"])]).unwrap();
            clients[1].modify(&dn("b"), vec![minus("counts", &["25"])]).unwrap();
            clients[0].modify(&dn("c"), vec![increment("counts", 5)]).unwrap();
            clients[1].replace(&dn("c"), "counts", &["1", "2"]).unwrap();
            clients[2].modify(&dn("c"), vec![increment("counts", 5)]).unwrap();
        },
        |server, _| {
            is(server, &dn("a"), "counts", &["17", "27"]);
            is(server, &dn("b"), "counts", &["15", "35", "40"]);
            is(server, &dn("c"), "counts", &["6", "7"]);
        },
    );
}

#[test]
fn values_without_an_equality_rule_are_told_apart_byte_for_byte() {
    both_ways(
        |ldap| {
            for uid in ["a", "b", "c"] {
                let dn = add_special(ldap, uid);
                ldap.modify(&dn, vec![set("jpegPhoto", &["old"]), plus("objectClass", &["pkiCA"])]).unwrap();
            }
            ldap.replace(&dn("c"), "unmatched", &["old"]).unwrap();
        },
        |clients| {
            // slapd lets clients add such values only where there are none, and delete all of them only.
            clients[0].modify(&dn("a"), vec![plus("unmatched", &["Red"])]).unwrap();
            clients[1].modify(&dn("a"), vec![plus("unmatched", &["red"])]).unwrap();
            clients[2].modify(&dn("a"), vec![plus("unmatched", &["Red"])]).unwrap();
            clients[2].modify(&dn("b"), vec![minus("jpegPhoto", &[])]).unwrap();
            clients[0].replace(&dn("b"), "jpegPhoto", &["new"]).unwrap();
            clients[1].modify(&dn("c"), vec![minus("unmatched", &[])]).unwrap();
            clients[1].modify(&dn("c"), vec![plus("unmatched", &["one"])]).unwrap();
            clients[0].replace(&dn("c"), "unmatched", &["zero"]).unwrap();
            // An option that says how values are sent.
            clients[0].replace(&dn("a"), "crossCertificatePair;binary", &["0\u{3}\u{2}\u{1}\u{0}"]).unwrap();
            clients[1].replace(&dn("a"), "crossCertificatePair;Binary", &["0\u{3}\u{2}\u{1}\u{1}"]).unwrap();
        },
        |server, _| {
            is(server, &dn("a"), "unmatched", &["Red", "red"]);
            is(server, &dn("a"), "crossCertificatePair;binary", &["0\u{3}\u{2}\u{1}\u{1}"]);
            is(server, &dn("b"), "jpegPhoto", &["new"]);
            is(server, &dn("c"), "unmatched", &["zero"]);
        },
    );
}

#[test]
fn of_single_values_the_later_one_holds_however_it_came() {
    both_ways(
        |ldap| {
            for uid in ["a", "b", "c", "d"] {
                let dn = add_person(ldap, uid);
                if uid != "a" {
                    ldap.replace(&dn, "employeeNumber", &["old"]).unwrap();
                }
            }
        },
        |clients| {
            clients[1].modify(&dn("a"), vec![plus("employeeNumber", &["one"])]).unwrap();
            clients[0].modify(&dn("a"), vec![plus("employeeNumber", &["zero"])]).unwrap();
            clients[0].modify(&dn("b"), vec![minus("employeeNumber", &["old"])]).unwrap();
            clients[2].replace(&dn("b"), "employeeNumber", &["two"]).unwrap();
            clients[2].replace(&dn("c"), "employeeNumber", &["two"]).unwrap();
            clients[0].modify(&dn("c"), vec![minus("employeeNumber", &["old"])]).unwrap();
            for (client, value) in clients.iter_mut().zip(["zero", "one", "two"]) {
                let exchange = vec![minus("employeeNumber", &["old"]), plus("employeeNumber", &[value])];
                client.modify(&dn("d"), exchange).unwrap();
            }
        },
        |server, _| {
            is(server, &dn("a"), "employeeNumber", &["zero"]);
            is(server, &dn("b"), "employeeNumber", &["two"]);
            is(server, &dn("c"), "employeeNumber", &[]);
            is(server, &dn("d"), "employeeNumber", &["two"]);
        },
    );
}

#[test]
fn object_classes_that_meet_stand_side_by_side_and_what_the_schema_forbids_is_named() {
    let shadow = |value: &str| vec![plus("objectClass", &["shadowAccount"]), plus("shadowMin", &[value])];
    let no_shadow = || vec![minus("objectClass", &["shadowAccount"]), minus("shadowMin", &[])];
    for healing in [Healing::Late, Healing::Asked] {
        let (group, _) = apart_with(
            options(),
            healing,
            |ldap| {
                for uid in ["a", "b", "c"] {
                    let dn = add_person(ldap, uid);
                    ldap.modify(&dn, shadow("1")).unwrap();
                }
            },
            |clients| {
                let uri = vec![plus("objectClass", &["labeledURIObject"]), plus("labeledURI", &["x:y"])];
                clients[0].modify(&dn("a"), uri).unwrap();
                clients[1].modify(&dn("a"), vec![plus("objectClass", &["pkiUser"])]).unwrap();
                clients[2].modify(&dn("a"), no_shadow()).unwrap();
                // The class goes, and somebody sets an attribute that needs it, earlier or later.
                clients[2].modify(&dn("b"), no_shadow()).unwrap();
                clients[1].replace(&dn("b"), "shadowMin", &["2"]).unwrap();
                clients[1].replace(&dn("c"), "shadowMax", &["3"]).unwrap();
                clients[2].modify(&dn("c"), no_shadow()).unwrap();
            },
        );
        for server in &group.servers {
            let classes = ["inetOrgPerson", "labeledURIObject", "pkiUser", "posixAccount"];
            is(server, &dn("a"), "objectClass", &classes);
            is(server, &dn("a"), "structuralObjectClass", &["inetOrgPerson"]);
            is(server, &dn("a"), "shadowMin", &[]);
            is(server, &dn("b"), "objectClass", &["inetOrgPerson", "posixAccount"]);
            is(server, &dn("b"), "shadowMin", &["2"]);
            is(server, &dn("c"), "objectClass", &["inetOrgPerson", "posixAccount"]);
            is(server, &dn("c"), "shadowMax", &["3"]);
            let log = server.log();
            for attribute in ["shadowMin", "shadowMax"] {
                let says = format!("attribute '{attribute}' not allowed");
                let mut named = log.lines().filter(|line| line.contains("is against the schema"));
                assert!(named.any(|line| line.contains(&says)), "{attribute} on {}: {log}", server.name());
            }
        }
        // slapd wants it mended, and any client can.
        let mut ldap = group.servers[0].ldap().unwrap();
        ldap.replace(&dn("b"), "title", &["t"]).unwrap_err();
        ldap.modify(&dn("b"), vec![plus("objectClass", &["shadowAccount"])]).unwrap();
        ldap.replace(&dn("b"), "title", &["t"]).unwrap();
        settle(&group);
    }
}

#[test]
fn an_attribute_is_one_by_whatever_name_and_a_value_by_whatever_spelling() {
    both_ways(
        |ldap| {
            for uid in ["a", "b"] {
                add_person(ldap, uid);
            }
        },
        |clients| {
            for (client, name) in clients.iter_mut().zip(["surname", "2.5.4.4", "SN"]) {
                client.replace(&dn("a"), name, &[name]).unwrap();
            }
            let options = [
                ("description;lang-DE", "zero"),
                ("2.5.4.13;LANG-de", "one"),
                ("Description;Lang-De", "two"),
            ];
            for (client, (name, value)) in clients.iter_mut().zip(options) {
                client.modify(&dn("a"), vec![plus(name, &[value])]).unwrap();
            }
            clients[0].modify(&dn("a"), vec![minus("DESCRIPTION;lang-de", &["zero"])]).unwrap();
            // A DN, and text without regard to case and spaces.
            let spelled =
                ["cn=X, dc=example,dc=com", "CN=x,DC=Example,dc=com", "2.5.4.3=X,dc=example,dc=COM"];
            for (client, value) in clients.iter_mut().zip(spelled) {
                client.modify(&dn("a"), vec![plus("seeAlso", &[value])]).unwrap();
            }
            for (client, value) in clients.iter_mut().zip(["Some  Thing", "SOME THING", "some thing"]) {
                client.modify(&dn("a"), vec![plus("title", &[value])]).unwrap();
            }
            // In a name as well.
            clients[0].rename(&dn("b"), "userid=c", None).unwrap();
            clients[1].modify(&dn("b"), vec![plus("0.9.2342.19200300.100.1.1", &["d"])]).unwrap();
            clients[2].modify(&dn("b"), vec![set("USERID", &["b", "e"])]).unwrap();
        },
        |server, _| {
            let entry = server.ldap().unwrap().entry(&dn("a")).unwrap().unwrap();
            let names: Vec<&str> = entry.keys().map(String::as_str).collect();
            for alias in ["surname", "2.5.4.4", "SN"] {
                assert!(!names.contains(&alias), "{names:?}");
            }
            assert_eq!(names.iter().filter(|name| name.starts_with("description")).count(), 1, "{names:?}");
            is(server, &dn("a"), "sn", &["SN"]);
            is(server, &dn("a"), "description;lang-de", &["one", "two"]);
            is(server, &dn("a"), "seeAlso", &["cn=X,dc=example,dc=COM"]);
            is(server, &dn("a"), "title", &["some thing"]);
            is(server, &dn("c"), "uid", &["b", "c", "e"]);
        },
    );
}

/// slapd refuses the attribute types that a schema calls collective (RFC 3671) in every entry that it can hold; what there is is its
/// overlay `collect`, which shows an attribute of one entry in all below it.
#[test]
fn collective_attributes_travel_as_the_attribute_of_their_template() {
    let unit = "ou=unit,dc=example,dc=com";
    let options = || GroupOptions {
        modules: vec!["collect".to_owned()],
        database_lines: ["overlay collect", "collectinfo ou=unit,dc=example,dc=com l"]
            .map(str::to_owned)
            .to_vec(),
        ..options()
    };
    for healing in [Healing::Late, Healing::Asked] {
        let below = |uid: &str| format!("uid={uid},{unit}");
        let (group, _) = apart_with(
            options(),
            healing,
            |ldap| {
                ldap.add(unit, &[("objectClass", "organizationalUnit"), ("ou", "unit"), ("l", "here")])
                    .unwrap();
                ldap.add(&below("a"), &person("a")).unwrap();
            },
            |clients| {
                clients[0].modify(unit, vec![plus("l", &["zero"])]).unwrap();
                clients[1].modify(unit, vec![plus("l", &["one"]), minus("l", &["here"])]).unwrap();
                clients[2].replace(&below("a"), "title", &["two"]).unwrap();
                clients[1].replace(&below("a"), "title", &["one"]).unwrap();
                clients[0].add(&below("b"), &person("b")).unwrap();
                let refused = raw(&mut clients[0]).modify(&below("a"), vec![plus("l", &["mine"])]);
                assert_eq!(code(refused), 53);
            },
        );
        for server in &group.servers {
            for dn in [unit.to_owned(), below("a"), below("b")] {
                is(server, &dn, "l", &["one", "zero"]);
            }
            is(server, &below("a"), "title", &["one"]);
            // Shown only, and stored nowhere but in the template.
            assert_eq!(sequence(server, &below("a"), "l"), [""; 0]);
            assert_eq!(sequence(server, &below("b"), "l"), [""; 0]);
        }
    }
}

/// Each language is an attribute of its own to the database, which numbers them as they come.
#[test]
fn attributes_that_are_used_for_the_first_time_end_no_search_that_meets_them() {
    const LANGUAGES: usize = 400;
    let group = group(2);
    let dn = add_person(&mut group.servers[0].ldap().unwrap(), "polyglot");
    wait_entry(&group.servers[1], &dn, true);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        for server in [0, 1, 1, 1] {
            let (mut ldap, dn, done) = (group.servers[server].ldap().unwrap(), &dn, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    ldap.entry(dn).unwrap().unwrap();
                }
            });
        }
        let mut ldap = group.servers[0].ldap().unwrap();
        for language in 0..LANGUAGES {
            let attribute = format!("description;lang-x{language}");
            ldap.modify(&dn, vec![plus(&attribute, &["a word"])]).unwrap();
        }
        settle(&group);
    });
    settle_smoothly(&group);
}

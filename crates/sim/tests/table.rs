//! The table of conflicts, row by row: whatever the order in which the changes come, the result is the one that the row tells.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers may fail a test.

#[path = "table/attributes.rs"]
mod attributes;

use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Operation, Place};
use xmppsync_sim::Model;

const ROOT: u8 = 1;

fn uuid(number: u8) -> EntryUuid {
    EntryUuid::from_bytes([number; 16])
}

/// Made at this second; of server 1 at odd ones, of server 2 at even ones.
fn csn(second: u64) -> Csn {
    format!("202611220000{second:02}.000000Z#000000#{:03x}#000000", 2 - second % 2).parse().unwrap()
}

fn attribute(name: &str, values: &[&str]) -> LdapPartialAttribute {
    let vals = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    LdapPartialAttribute { atype: name.to_owned(), vals }
}

fn change(second: u64, entry: u8, parent: Option<u8>, operation: Operation) -> Arc<Change> {
    Arc::new(Change { csn: csn(second), uuid: uuid(entry), parent: parent.map(uuid), operation })
}

fn add(second: u64, entry: u8, parent: u8, name: &str) -> Arc<Change> {
    let (dn, attributes) = (format!("cn={name},dc=example"), vec![attribute("cn", &[name])]);
    change(second, entry, Some(parent), Operation::Add(LdapAddRequest { dn, attributes }))
}

fn delete(second: u64, entry: u8, parent: u8) -> Arc<Change> {
    change(second, entry, Some(parent), Operation::Delete { dn: "cn=x,dc=example".to_owned() })
}

fn modify(second: u64, entry: u8, operation: LdapModifyType, name: &str, values: &[&str]) -> Arc<Change> {
    modify_all(second, entry, &[(operation, name, values)])
}

fn modify_all(second: u64, entry: u8, changes: &[(LdapModifyType, &str, &[&str])]) -> Arc<Change> {
    let changes = changes.iter().map(|(operation, name, values)| LdapModify {
        operation: operation.clone(),
        modification: attribute(name, values),
    });
    let changes = changes.collect();
    let request = LdapModifyRequest { dn: "cn=x,dc=example".to_owned(), changes };
    change(second, entry, None, Operation::Modify(request))
}

fn rename(second: u64, entry: u8, from: &str, to: &str, parent: Option<u8>) -> Arc<Change> {
    let request = LdapModifyDNRequest {
        dn: format!("cn={from},dc=example"),
        newrdn: format!("cn={to}"),
        deleteoldrdn: true,
        new_superior: parent.map(|_| "dc=example".to_owned()),
    };
    change(second, entry, parent, Operation::ModifyDn { request, operational: Vec::new() })
}

/// Applies what both servers had, then the rest in every order, and gives what all of these lead to.
fn settled(before: &[Arc<Change>], rest: &[Arc<Change>]) -> Model {
    let mut start = Model::new(uuid(ROOT), csn(0));
    before.iter().for_each(|change| start.apply(change));
    let mut results: Vec<Model> = Vec::new();
    for order in orders(rest.len()) {
        let mut model = start.clone();
        for at in &order {
            model.apply(&rest[*at]);
            // There is a way from each to the top.
            model.entries().keys().for_each(|uuid| assert!(model.dn(*uuid).ends_with("dc=example")));
        }
        assert_eq!(model.waiting().count(), 0, "{order:?}");
        if let Some(first) = results.first() {
            assert_eq!(first.entries(), model.entries(), "{order:?}");
        }
        results.push(model);
    }
    // The last one has them the other way round: it is what notices losses.
    results.pop().unwrap()
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(count - 1) {
        for at in (0..count).rev() {
            let mut longer = order.clone();
            longer.insert(at, count - 1);
            all.push(longer);
        }
    }
    all
}

fn values(model: &Model, entry: u8, name: &str) -> Vec<String> {
    let values = model.entries().get(&uuid(entry)).and_then(|entry| entry.attributes.get(name));
    let values = values.into_iter().flat_map(|values| values.values());
    values.map(|value| String::from_utf8(value.clone()).unwrap()).collect()
}

fn is_there(model: &Model, entry: u8) -> bool {
    model.entries().contains_key(&uuid(entry))
}

#[test]
fn different_attributes_both_hold() {
    let rest = [
        modify(2, 9, LdapModifyType::Replace, "title", &["a"]),
        modify(3, 9, LdapModifyType::Replace, "mail", &["b"]),
    ];
    let model = settled(&[add(1, 9, ROOT, "x")], &rest);
    assert_eq!((values(&model, 9, "title"), values(&model, 9, "mail")), (vec!["a".into()], vec!["b".into()]));
}

#[test]
fn of_one_attribute_each_value_is_decided_by_the_later_change() {
    let rest = [
        modify(2, 9, LdapModifyType::Add, "mail", &["a", "b"]),
        modify(3, 9, LdapModifyType::Delete, "mail", &["a"]),
        modify(4, 9, LdapModifyType::Add, "mail", &["c"]),
    ];
    assert_eq!(values(&settled(&[add(1, 9, ROOT, "x")], &rest), 9, "mail"), ["b", "c"]);
}

#[test]
fn a_later_replace_takes_the_values_of_earlier_changes() {
    let rest = [
        modify(2, 9, LdapModifyType::Add, "mail", &["a"]),
        modify(3, 9, LdapModifyType::Replace, "mail", &["b"]),
        modify(4, 9, LdapModifyType::Add, "mail", &["c"]),
    ];
    assert_eq!(values(&settled(&[add(1, 9, ROOT, "x")], &rest), 9, "mail"), ["b", "c"]);
}

#[test]
fn of_a_single_value_the_later_one_holds() {
    let rest = [
        modify(2, 9, LdapModifyType::Replace, "title", &["a"]),
        modify(3, 9, LdapModifyType::Replace, "title", &["b"]),
    ];
    let model = settled(&[add(1, 9, ROOT, "x")], &rest);
    assert_eq!(values(&model, 9, "title"), ["b"]);
    let lost = model.lost().iter().find(|lost| lost.csn == csn(2)).unwrap();
    assert_eq!((lost.against, lost.attribute.as_str()), (csn(3), "title"));
}

#[test]
fn a_delete_wins_over_a_modify_that_is_noted_as_lost() {
    for (delete_at, modify_at) in [(2, 3), (3, 2)] {
        let gone = delete(delete_at, 9, ROOT);
        let rest = [modify(modify_at, 9, LdapModifyType::Replace, "title", &["a"]), gone.clone()];
        assert!(!is_there(&settled(&[add(1, 9, ROOT, "x")], &rest), 9));
        let mut model = settled(&[add(1, 9, ROOT, "x"), gone], &[]);
        model.apply(&rest[0]);
        assert!(model.lost().iter().any(|lost| lost.csn == csn(modify_at) && lost.against == csn(delete_at)));
    }
}

#[test]
fn a_delete_wins_over_a_later_rename_that_is_noted_as_lost() {
    let gone = delete(2, 9, ROOT);
    let late = rename(3, 9, "x", "y", None);
    let before = [add(1, 9, ROOT, "x")];
    assert!(!is_there(&settled(&before, &[gone.clone(), late.clone()]), 9));
    let mut model = settled(&before, &[late]);
    model.apply(&gone);
    assert!(model.lost().iter().any(|lost| lost.csn == csn(3) && lost.against == csn(2)));
}

#[test]
fn of_two_adds_of_one_dn_the_earlier_keeps_it_and_the_other_one_gets_it_when_it_is_free() {
    let both = [add(1, 8, ROOT, "x"), add(2, 9, ROOT, "x")];
    let model = settled(&[], &both);
    assert_eq!(model.dn(uuid(8)), "cn=x,dc=example");
    assert_eq!(model.dn(uuid(9)), format!("entryUUID={}+cn=x,dc=example", uuid(9)));
    let freed = settled(&[], &[both[0].clone(), both[1].clone(), delete(3, 8, ROOT)]);
    assert_eq!(freed.dn(uuid(9)), "cn=x,dc=example");
    let renamed = settled(&[], &[both[0].clone(), both[1].clone(), rename(3, 8, "x", "y", None)]);
    assert_eq!(renamed.dn(uuid(9)), "cn=x,dc=example");
}

#[test]
fn a_child_keeps_its_deleted_parent_as_glue_which_goes_with_the_last_child() {
    let parent = [add(1, 8, ROOT, "x")];
    let orphaned = [delete(2, 8, ROOT), add(3, 9, 8, "y")];
    let model = settled(&parent, &orphaned);
    assert!(model.entries()[&uuid(8)].glue && !model.entries()[&uuid(9)].glue);
    let mut emptied = model.clone();
    emptied.apply(&delete(4, 9, 8));
    assert!(!is_there(&emptied, 8) && !is_there(&emptied, 9));
    assert!(!is_there(&settled(&parent, &[delete(2, 8, ROOT), add(3, 9, 8, "y"), delete(4, 9, 8)]), 8));
}

#[test]
fn of_two_renames_the_later_holds() {
    let rest = [rename(2, 9, "x", "a", None), rename(3, 9, "x", "b", None)];
    let model = settled(&[add(1, 9, ROOT, "x")], &rest);
    assert_eq!(model.dn(uuid(9)), "cn=b,dc=example");
    assert!(model.lost().iter().any(|lost| lost.csn == csn(2) && lost.against == csn(3)));
}

#[test]
fn of_two_moves_that_would_form_a_cycle_the_later_falls_away() {
    let before = [add(1, 8, ROOT, "x"), add(1, 9, ROOT, "y")];
    let model = settled(&before, &[rename(2, 8, "x", "x", Some(9)), rename(3, 9, "y", "y", Some(8))]);
    assert_eq!(model.dn(uuid(8)), "cn=x,cn=y,dc=example");
    assert!(model.lost().iter().any(|lost| lost.csn == csn(3)));
}

#[test]
fn a_rename_onto_a_name_in_use_is_displaced_by_whoever_was_created_first() {
    let before = [add(1, 8, ROOT, "x"), add(2, 9, ROOT, "y"), add(3, 7, ROOT, "z")];
    let displaced = settled(&before, &[rename(4, 9, "y", "x", None)]);
    assert!(displaced.entries()[&uuid(9)].displaced && !displaced.entries()[&uuid(8)].displaced);
    // The one that had it was created later.
    let model = settled(&before, &[rename(4, 9, "y", "z", None)]);
    assert!(model.entries()[&uuid(7)].displaced && !model.entries()[&uuid(9)].displaced);
    let both = settled(&before, &[rename(4, 9, "y", "a", None), rename(5, 7, "z", "a", None)]);
    assert!(both.entries()[&uuid(7)].displaced && !both.entries()[&uuid(9)].displaced);
}

#[test]
fn two_increments_both_count() {
    let before = [add(1, 9, ROOT, "x"), modify(2, 9, LdapModifyType::Replace, "uidNumber", &["10"])];
    let rest = [
        modify(3, 9, LdapModifyType::Increment, "uidNumber", &["1"]),
        modify(4, 9, LdapModifyType::Increment, "uidNumber", &["5"]),
    ];
    assert_eq!(values(&settled(&before, &rest), 9, "uidnumber"), ["16"]);
}

#[test]
fn an_attribute_with_options_is_another_attribute() {
    let rest = [
        modify(2, 9, LdapModifyType::Replace, "description;lang-de", &["a"]),
        modify(3, 9, LdapModifyType::Replace, "description", &["b"]),
        modify(4, 9, LdapModifyType::Delete, "description", &[]),
    ];
    let model = settled(&[add(1, 9, ROOT, "x")], &rest);
    assert_eq!(values(&model, 9, "description;lang-de"), ["a"]);
    assert!(values(&model, 9, "description").is_empty());
}

#[test]
fn of_equal_values_the_later_spelling_stays() {
    let rest = [
        modify(2, 9, LdapModifyType::Add, "mail", &["Red"]),
        modify(3, 9, LdapModifyType::Add, "mail", &["red"]),
    ];
    assert_eq!(values(&settled(&[add(1, 9, ROOT, "x")], &rest), 9, "mail"), ["red"]);
}

/// What the last order noted as lost: of which second, against which, and the values.
fn lost(model: &Model) -> Vec<(Csn, Csn, Vec<String>)> {
    let text = |value: &Vec<u8>| String::from_utf8(value.clone()).unwrap();
    let lost = model.lost().iter();
    lost.map(|lost| (lost.csn, lost.against, lost.values.iter().map(text).collect())).collect()
}

#[test]
fn a_lost_value_names_the_first_change_of_each_server_that_took_it() {
    let rest: Vec<_> = [(2, "a"), (3, "b"), (4, "c"), (5, "d")]
        .map(|(second, value)| modify(second, 9, LdapModifyType::Replace, "mail", &[value]))
        .into();
    let mut expected = vec![(csn(4), csn(5), vec!["c".to_owned()])];
    expected.extend([5, 4].map(|against| (csn(3), csn(against), vec!["b".to_owned()])));
    expected.extend([3, 4].map(|against| (csn(2), csn(against), vec!["a".to_owned()])));
    let mut found = lost(&settled(&[add(1, 9, ROOT, "x")], &rest));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_is_there_in_another_form_or_was_given_again_is_not_lost() {
    let rest = [
        modify(2, 9, LdapModifyType::Add, "mail", &["Red"]),
        modify(3, 9, LdapModifyType::Delete, "mail", &["red"]),
        modify(4, 9, LdapModifyType::Add, "mail", &["RED"]),
        modify(5, 9, LdapModifyType::Add, "mail", &["blue"]),
    ];
    assert_eq!(lost(&settled(&[add(1, 9, ROOT, "x")], &rest)), []);
    let rest = [
        modify(2, 9, LdapModifyType::Replace, "uidNumber", &["5"]),
        modify(3, 9, LdapModifyType::Increment, "uidNumber", &["1"]),
    ];
    assert_eq!(lost(&settled(&[add(1, 9, ROOT, "x")], &rest)), []);
}

#[test]
fn marks_of_losses_are_values_like_others_that_nobody_misses() {
    let rest = [
        modify(2, 9, LdapModifyType::Add, Lost::MARK, &["title 1"]),
        modify(3, 9, LdapModifyType::Replace, Lost::MARK, &[]),
        modify(4, 9, LdapModifyType::Add, Lost::MARK, &["title 2"]),
    ];
    let before = [add(1, 9, ROOT, "x")];
    let model = settled(&before, &rest);
    assert_eq!(
        (values(&model, 9, &Lost::MARK.to_ascii_lowercase()), lost(&model)),
        (vec!["title 2".to_owned()], vec![])
    );
    // Neither with the entry.
    let mut model = settled(&before, &rest);
    model.apply(&delete(3, 9, ROOT));
    assert_eq!((is_there(&model, 9), lost(&model)), (false, vec![]));
}

/// A move that comes late sends others back below entries that are deleted by now, one of which stands below what is to go there.
#[test]
fn entries_go_back_below_deleted_ones_from_the_top_down() {
    // In this order of the entryUUIDs `a` is looked at before `b`.
    let (e, b, d, a, q, p) = (10, 22, 12, 21, 14, 20);
    let all = [
        add(1, e, ROOT, "e"),
        add(2, b, e, "b"),
        add(3, d, b, "d"),
        add(4, a, d, "a"),
        add(5, q, a, "q"),
        add(6, p, ROOT, "p"),
        rename(8, a, "a", "a", Some(p)),
        rename(9, b, "b", "b", Some(q)),
        delete(10, d, b),
        delete(11, e, ROOT),
    ];
    let model = settled(&all, &[rename(7, p, "p", "p", Some(q))]);
    assert_eq!(model.dn(uuid(p)), "cn=p,cn=q,cn=a,cn=d,cn=b,cn=e,dc=example");
    let mut in_order = Model::new(uuid(ROOT), csn(0));
    let late = rename(7, p, "p", "p", Some(q));
    all[..6].iter().chain([&late]).chain(&all[6..]).for_each(|change| in_order.apply(change));
    assert_eq!(in_order.entries(), model.entries());
}

/// A deleted entry that was never here has its place by its delete until its add comes; so have the moves below it.
#[test]
fn a_move_below_a_deleted_entry_that_has_not_come_yet_forms_no_cycle() {
    let (n, b, q, d) = (10, 11, 12, 13);
    let before = [add(1, n, ROOT, "n"), add(1, b, ROOT, "b"), add(2, q, ROOT, "q")];
    let rest = [
        rename(3, q, "q", "q", Some(b)),
        add(4, d, b, "d"),
        rename(5, b, "b", "b", Some(n)),
        rename(6, n, "n", "n", Some(d)),
        delete(7, d, b),
    ];
    let model = settled(&before, &rest);
    assert_eq!(model.dn(uuid(q)), "cn=q,cn=b,cn=n,dc=example");
    assert!(!is_there(&model, d));
}

/// The move below it makes a later one fall away, so that the deleted entry is to go back below one that has not come.
#[test]
fn a_move_waits_for_the_parent_to_which_another_one_goes_back() {
    let (e, n, b, c, d) = (10, 11, 12, 13, 14);
    let before =
        [add(1, e, ROOT, "e"), add(3, b, n, "b"), add(3, c, n, "c"), delete(5, d, c), add(4, d, c, "d")];
    let rest = [
        add(2, n, ROOT, "n"),
        rename(6, e, "e", "e", Some(b)),
        rename(7, b, "b", "b", Some(d)),
        rename(8, d, "d", "d", Some(e)),
    ];
    assert_eq!(settled(&before, &rest).dn(uuid(e)), "cn=e,cn=b,cn=d,cn=c,cn=n,dc=example");
}

/// A client moves an entry together with the name of its own that it was given; where it goes it does not need that.
#[test]
fn a_displaced_entry_that_a_client_moves_gets_its_name_where_that_is_free() {
    let before = [add(1, 7, ROOT, "p"), add(2, 8, ROOT, "x"), add(3, 9, ROOT, "x")];
    let mut here = settled(&before, &[]);
    let mut there = here.clone();
    let moved = rename(4, 9, "x", "x", Some(7));
    let mut change = Change::clone(&moved);
    if let Operation::ModifyDn { request, .. } = &mut change.operation {
        let own = format!("entryUUID={}+cn=x", uuid(9));
        (request.dn, request.newrdn) = (format!("{own},dc=example"), own);
    }
    let change = Arc::new(change);
    // What the database itself does for a client.
    let mut entry = here.take(uuid(9)).unwrap();
    let from = entry.place.replace(Place { parent: uuid(7), rdn: "cn=x".to_owned() });
    entry.csn = change.csn;
    here.insert(uuid(9), entry);
    here.follow(&change, from);
    there.apply(&change);
    assert_eq!(here.dn(uuid(9)), "cn=x,cn=p,dc=example");
    assert_eq!(here.entries(), there.entries());
}

fn put(second: u64, entry: u8, parent: u8, name: &str) -> Arc<Change> {
    let attributes = vec![attribute("cn", &[name]), attribute("createTimestamp", &[csn(1).as_str()])];
    let dn = format!("cn={name},dc=example");
    change(second, entry, Some(parent), Operation::Put(LdapAddRequest { dn, attributes }))
}

#[test]
fn a_state_takes_earlier_changes_and_moves_and_leaves_later_ones() {
    let rest = [
        add(1, 9, ROOT, "x"),
        rename(2, 9, "x", "x", Some(7)),
        modify(3, 9, LdapModifyType::Replace, "title", &["a"]),
        put(4, 9, ROOT, "y"),
        modify(5, 9, LdapModifyType::Replace, "mail", &["b"]),
    ];
    let model = settled(&[add(1, 7, ROOT, "p")], &rest);
    assert_eq!(model.dn(uuid(9)), "cn=y,dc=example");
    assert_eq!((values(&model, 9, "title").len(), values(&model, 9, "mail").len()), (0, 1));
    assert_eq!(
        settled(&[add(1, 7, ROOT, "p"), add(1, 9, ROOT, "x")], &rest[1..]).dn(uuid(9)),
        "cn=y,dc=example"
    );
}

#[test]
fn a_state_that_is_later_than_a_delete_brings_the_entry_back() {
    let rest = [
        delete(2, 9, ROOT),
        put(3, 9, ROOT, "x"),
        modify(4, 9, LdapModifyType::Replace, "title", &["a"]),
        rename(5, 9, "x", "y", None),
    ];
    let model = settled(&[add(1, 9, ROOT, "x")], &rest);
    assert_eq!(model.dn(uuid(9)), "cn=y,dc=example");
    assert_eq!(values(&model, 9, "title"), ["a"]);
}

#[test]
fn a_state_of_a_deleted_entry_that_has_children_brings_it_back_from_glue() {
    let before = [add(1, 8, ROOT, "x"), add(1, 7, ROOT, "p")];
    let rest = [
        delete(2, 8, ROOT),
        add(3, 9, 8, "y"),
        put(4, 8, 7, "z"),
        modify(5, 8, LdapModifyType::Replace, "title", &["a"]),
    ];
    let model = settled(&before, &rest);
    assert_eq!(model.dn(uuid(9)), "cn=y,cn=z,cn=p,dc=example");
    assert!(!model.entries()[&uuid(8)].glue && values(&model, 8, "title") == ["a"]);
}

#[test]
fn glue_has_the_name_and_the_place_of_the_last_state_before_the_delete() {
    let rest = [add(2, 9, 8, "y"), put(3, 8, 7, "z"), delete(4, 8, 7)];
    let model = settled(&[add(1, 8, ROOT, "x"), add(1, 7, ROOT, "p")], &rest);
    assert!(model.entries()[&uuid(8)].glue);
    assert_eq!(model.dn(uuid(9)), "cn=y,cn=z,cn=p,dc=example");
}

#[test]
fn values_of_a_state_stay_when_a_later_rename_came_before_it() {
    let mut state = Change::clone(&put(4, 9, ROOT, "f"));
    if let Operation::Put(entry) = &mut state.operation {
        entry.attributes[0] = attribute("cn", &["b", "f"]);
    }
    let rest =
        [rename(2, 9, "b", "f", None), delete(3, 9, ROOT), Arc::new(state), rename(5, 9, "b", "e", None)];
    let model = settled(&[add(1, 9, ROOT, "b")], &rest);
    assert_eq!(values(&model, 9, "cn"), ["e", "f"]);
}

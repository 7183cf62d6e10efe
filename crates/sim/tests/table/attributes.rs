//! The rows of the table of conflicts that are about attributes with rules of their own, in every order.

use super::*;
use ldap3_proto::proto::LdapModifyType::{Add, Delete, Increment, Replace};

/// What becomes of an entry with these values of the attribute when the rest comes, in any order.
fn outcome(name: &str, before: &[&str], rest: &[Arc<Change>]) -> Vec<String> {
    let before = [add(1, 9, ROOT, "x"), modify(2, 9, Replace, name, before)];
    values(&settled(&before, rest), 9, &name.to_ascii_lowercase())
}

#[test]
fn increments_of_several_values_all_count() {
    let rest = [
        modify(3, 9, Increment, "oncRpcNumber", &["1"]),
        modify(4, 9, Increment, "oncRpcNumber", &["-3"]),
        modify(5, 9, Increment, "oncRpcNumber", &["7"]),
    ];
    assert_eq!(outcome("oncRpcNumber", &["10", "20"], &rest), ["15", "25"]);
}

#[test]
fn an_increment_raises_what_is_there_at_its_csn() {
    let rest = [
        modify(3, 9, Add, "oncRpcNumber", &["30"]),
        modify(4, 9, Increment, "oncRpcNumber", &["1"]),
        modify(5, 9, Add, "oncRpcNumber", &["40"]),
        modify(6, 9, Delete, "oncRpcNumber", &["11"]),
    ];
    assert_eq!(outcome("oncRpcNumber", &["10", "20"], &rest), ["21", "31", "40"]);
    // A replace takes what earlier increments made.
    let rest = [
        modify(3, 9, Increment, "oncRpcNumber", &["1"]),
        modify(4, 9, Replace, "oncRpcNumber", &["50", "60"]),
        modify(5, 9, Increment, "oncRpcNumber", &["1"]),
    ];
    assert_eq!(outcome("oncRpcNumber", &["10", "20"], &rest), ["51", "61"]);
}

/// Nothing tells whether the value that the client saw is the one that was there before the increment.
#[test]
fn a_value_that_a_client_exchanged_without_an_earlier_increment_stays_beside_the_raised_one() {
    let exchange =
        |at| modify_all(at, 9, &[(Delete, "oncRpcNumber", &["10"]), (Add, "oncRpcNumber", &["11"])]);
    let rest = [modify(3, 9, Increment, "oncRpcNumber", &["5"]), exchange(4)];
    assert_eq!(outcome("oncRpcNumber", &["10"], &rest), ["11", "15"]);
    let rest = [exchange(3), modify(4, 9, Increment, "oncRpcNumber", &["5"])];
    assert_eq!(outcome("oncRpcNumber", &["10"], &rest), ["16"]);
}

#[test]
fn the_later_sequence_of_ordered_values_holds_as_a_whole() {
    // As they travel: all values that a client's change led to.
    let rest = [
        modify(3, 9, Replace, "olcAccess", &["{0}new", "{1}one", "{2}two"]),
        modify(4, 9, Replace, "olcAccess", &["{0}two"]),
        modify(5, 9, Replace, "olcAccess", &["{0}two", "{1}three"]),
    ];
    assert_eq!(outcome("olcAccess", &["{0}one", "{1}two"], &rest), ["{0}two", "{1}three"]);
    let gone = modify(6, 9, Delete, "olcAccess", &[]);
    assert!(
        outcome("olcAccess", &["{0}one", "{1}two"], &[rest[0].clone(), rest[2].clone(), gone]).is_empty()
    );
}

#[test]
fn values_without_an_equality_rule_are_equal_byte_for_byte() {
    let rest = [
        modify(3, 9, Delete, "jpegPhoto", &[]),
        modify(4, 9, Add, "jpegPhoto", &["Red"]),
        modify(5, 9, Add, "jpegPhoto", &["red"]),
    ];
    assert_eq!(outcome("jpegPhoto", &["old"], &rest), ["Red", "red"]);
    let rest = [rest[1].clone(), rest[2].clone(), modify(6, 9, Replace, "jpegPhoto", &["blue"])];
    assert_eq!(outcome("jpegPhoto", &[], &rest), ["blue"]);
}

#[test]
fn object_classes_are_values_like_others_and_their_attributes_too() {
    let before = ["top", "person", "labeledURIObject"];
    let rest = [
        modify_all(3, 9, &[(Delete, "objectClass", &["labeledURIObject"]), (Delete, "labeledURI", &[])]),
        modify_all(4, 9, &[(Add, "objectClass", &["shadowAccount"]), (Add, "shadowMin", &["1"])]),
        modify(5, 9, Add, "labeledURI", &["x:y"]),
    ];
    let all = [add(1, 9, ROOT, "x"), modify(2, 9, Replace, "objectClass", &before)];
    let model = settled(&all, &rest);
    assert_eq!(values(&model, 9, "objectclass"), ["person", "shadowAccount", "top"]);
    assert_eq!((values(&model, 9, "shadowmin").len(), values(&model, 9, "labeleduri").len()), (1, 1));
}

#[test]
fn of_single_values_the_later_one_holds_however_it_came() {
    let title = |at, operation, value: &str| {
        let values: &[&str] = if value.is_empty() { &[] } else { &[value] };
        modify(at, 9, operation, "title", values)
    };
    // Two adds.
    assert_eq!(outcome("title", &[], &[title(3, Add, "a"), title(4, Add, "b")]), ["b"]);
    // A replace and the delete of what was there, by its value or as a whole.
    assert_eq!(outcome("title", &["old"], &[title(3, Delete, "old"), title(4, Replace, "a")]), ["a"]);
    assert!(outcome("title", &["old"], &[title(3, Replace, "a"), title(4, Delete, "old")]).is_empty());
    assert!(outcome("title", &["old"], &[title(3, Replace, "a"), title(4, Delete, "")]).is_empty());
    // An exchange of the value, and another one.
    let exchange = |at, value: &'static str| {
        let values = [value];
        modify_all(at, 9, &[(Delete, "title", &["old"]), (Add, "title", &values)])
    };
    assert_eq!(
        outcome("title", &["old"], &[exchange(3, "a"), exchange(4, "b"), title(5, Delete, "")]),
        [""; 0]
    );
    assert_eq!(outcome("title", &["old"], &[exchange(3, "a"), exchange(4, "b")]), ["b"]);
}

/// The database has the names as the schema spells them; what others say of an attribute is compared without regard to case.
#[test]
fn an_attribute_is_one_whatever_the_case_of_its_name_and_options() {
    let rest = [
        modify(3, 9, Add, "Description;Lang-DE", &["a"]),
        modify(4, 9, Replace, "description;lang-de", &["b"]),
        modify(5, 9, Add, "DESCRIPTION;LANG-DE", &["c"]),
    ];
    assert_eq!(outcome("description;lang-de", &["old"], &rest), ["b", "c"]);
}

//! What is read of an entry, and what glue is made of.

use ldap3_proto::proto::{LdapModify, LdapModifyType, LdapPartialAttribute};
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, names};

/// slapd's own object class for entries that only hold a place in the tree.
const GLUE: &str = "glue";

/// Whether the entry is glue.
pub(crate) fn is_glue(entry: &Change) -> bool {
    has_value(entry, "objectClass", GLUE)
}

/// Whether the entry has a name of its own, because another one has that which it is meant to have.
pub(super) fn is_displaced(entry: &Change) -> bool {
    names::is_displaced(names::split(entry.operation.dn()).0)
}

pub(super) fn values<'a>(entry: &'a Change, attribute: &str) -> &'a [Vec<u8>] {
    let (Operation::Add(request) | Operation::Put(request)) = &entry.operation else { return &[] };
    let found = request.attributes.iter().find(|candidate| candidate.atype.eq_ignore_ascii_case(attribute));
    found.map_or(&[], |found| found.vals.as_slice())
}

fn has_value(entry: &Change, attribute: &str, value: &str) -> bool {
    values(entry, attribute).iter().any(|present| present.eq_ignore_ascii_case(value.as_bytes()))
}

pub(super) fn attribute(name: &str, vals: Vec<Vec<u8>>) -> LdapPartialAttribute {
    LdapPartialAttribute { atype: name.to_owned(), vals }
}

pub(super) fn replace(name: &str, vals: Vec<Vec<u8>>) -> LdapModify {
    LdapModify { operation: LdapModifyType::Replace, modification: attribute(name, vals) }
}

fn texts(values: &[&str]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.as_bytes().to_vec()).collect()
}

/// All that glue has beside its name.
pub(super) fn glue_attributes(uuid: EntryUuid, csn: Csn) -> Vec<LdapPartialAttribute> {
    vec![
        attribute("objectClass", texts(&["top", GLUE, "extensibleObject"])),
        attribute("structuralObjectClass", texts(&[GLUE])),
        attribute("entryUUID", texts(&[&uuid.to_string()])),
        attribute("entryCSN", texts(&[csn.as_str()])),
    ]
}

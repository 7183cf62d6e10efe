//! Changes to elements. By hand, while everything else goes by the types of `schema`: by way of
//! those every value would be copied twice more, and this is what runs for each change.

use crate::change::{check_count, check_dn, check_name, check_values};
use crate::{NAMESPACE, WireError, batch, text};
use ldap3_proto::proto::{LdapModify, LdapModifyType};
use minidom::{Element, Node};
use xmppsync_replica::{Batch, Change, Csn, Operation};
use xso::exports::rxml::{Namespace, NcNameStr, xml_ncname};

/// The element of a batch, whatever its size; [`split`](crate::split) is for what goes out.
///
/// # Errors
/// What a receiver would refuse: an empty batch, a change of another server, a limit exceeded.
pub fn batch_to_element(batch: &Batch) -> Result<Element, WireError> {
    let (origin, first, count) = (batch.origin, batch.first, batch.changes.len());
    batch::check_changes(origin, count)?;
    let last = first.checked_add(count as u64 - 1).filter(|_| first >= 1);
    let last = last.ok_or(WireError::Sequence { first, last: first, changes: count })?;
    let csns = batch.prev.into_iter().chain(batch.changes.iter().map(|change| change.csn));
    if let Some(csn) = csns.into_iter().find(|csn| csn.server_id() != origin) {
        return Err(WireError::ForeignChange { origin, csn });
    }
    let mut element = bare("batch");
    set(&mut element, xml_ncname!("sid"), origin.to_string());
    set(&mut element, xml_ncname!("boot"), batch.boot.to_string());
    set(&mut element, xml_ncname!("first"), first.to_string());
    set(&mut element, xml_ncname!("last"), last.to_string());
    if let Some(prev) = batch.prev {
        set(&mut element, xml_ncname!("prev"), prev.as_str().to_owned());
    }
    for change in &batch.changes {
        element.append_child(change_to_element(change)?);
    }
    Ok(element)
}

pub(crate) fn change_to_element(change: &Change) -> Result<Element, WireError> {
    let csn = change.csn;
    let mut element = bare(change.operation.name());
    set(&mut element, xml_ncname!("csn"), csn.as_str().to_owned());
    set(&mut element, xml_ncname!("uuid"), change.uuid.to_string());
    // A modification leaves an entry where it is, and a receiver refuses it with a parent.
    if let Some(parent) = change.parent.filter(|_| !matches!(change.operation, Operation::Modify(_))) {
        set(&mut element, xml_ncname!("parent"), parent.to_string());
    }
    append_dn(&mut element, "dn", "DN", change.operation.dn(), csn)?;
    match &change.operation {
        Operation::Add(request) | Operation::Put(request) => {
            check_count(request.attributes.len(), csn)?;
            for attribute in &request.attributes {
                let name = (xml_ncname!("name"), attribute.atype.as_str());
                append_attribute(&mut element, "attr", name, &attribute.vals, csn)?;
            }
        }
        Operation::Modify(request) => append_mods(&mut element, &request.changes, csn)?,
        Operation::ModifyDn { request, operational } => {
            set(&mut element, xml_ncname!("deleteoldrdn"), request.deleteoldrdn.to_string());
            append_dn(&mut element, "newrdn", "new RDN", &request.newrdn, csn)?;
            if let Some(superior) = &request.new_superior {
                append_dn(&mut element, "newsuperior", "new superior", superior, csn)?;
            }
            append_mods(&mut element, operational, csn)?;
        }
        Operation::Delete { .. } => {}
    }
    Ok(element)
}

fn append_dn(
    parent: &mut Element,
    name: &str,
    what: &'static str,
    dn: &str,
    csn: Csn,
) -> Result<(), WireError> {
    check_dn(dn.len(), what, csn)?;
    append_value(parent, name, dn.as_bytes());
    Ok(())
}

fn append_mods(parent: &mut Element, mods: &[LdapModify], csn: Csn) -> Result<(), WireError> {
    check_count(mods.len(), csn)?;
    for change in mods {
        let name = match change.operation {
            LdapModifyType::Add => "add",
            LdapModifyType::Delete => "delete",
            LdapModifyType::Replace => "replace",
            LdapModifyType::Increment => "increment",
        };
        let attribute = (xml_ncname!("attr"), change.modification.atype.as_str());
        append_attribute(parent, name, attribute, &change.modification.vals, csn)?;
    }
    Ok(())
}

fn append_attribute(
    parent: &mut Element,
    name: &str,
    (key, attribute): (&NcNameStr, &str),
    values: &[Vec<u8>],
    csn: Csn,
) -> Result<(), WireError> {
    check_name(attribute, csn)?;
    check_values(values.len(), attribute, csn)?;
    let mut element = bare(name);
    set(&mut element, key, attribute.to_owned());
    for value in values {
        append_value(&mut element, "v", value);
    }
    parent.append_child(element);
    Ok(())
}

fn append_value(parent: &mut Element, name: &str, value: &[u8]) {
    let mut element = bare(name);
    let (base64, text) = text::encode(value);
    if base64 {
        set(&mut element, xml_ncname!("b64"), "true".to_owned());
    }
    if !text.is_empty() {
        element.append_node(Node::Text(text));
    }
    parent.append_child(element);
}

pub(crate) fn bare(name: &str) -> Element {
    Element::bare(name, NAMESPACE)
}

pub(crate) fn set(element: &mut Element, name: &NcNameStr, value: String) {
    element.attrs_mut().insert(Namespace::NONE, name.to_owned(), value);
}

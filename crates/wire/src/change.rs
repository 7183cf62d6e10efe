//! A change from its element, and what both directions check.

use crate::error::check;
use crate::{Place, WireError, limits, schema};
use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use xmppsync_replica::{Change, Csn, EntryUuid, Operation};

/// # Errors
/// A limit, an attribute description, base64 or UTF-8 that does not hold.
pub(crate) fn from_schema(change: schema::Change) -> Result<Change, WireError> {
    let built = |csn: Csn, uuid: EntryUuid, parent, operation| Ok(Change { csn, uuid, parent, operation });
    match change {
        schema::Change::Add { csn, uuid, parent, dn, attrs } => {
            built(csn, uuid, parent, Operation::Add(entry_from_schema(dn, attrs, csn)?))
        }
        schema::Change::Put { csn, uuid, parent, dn, attrs } => {
            built(csn, uuid, parent, Operation::Put(entry_from_schema(dn, attrs, csn)?))
        }
        schema::Change::Modify { csn, uuid, dn, mods } => {
            let dn = dn_text(dn.into_bytes(), "DN", csn)?;
            let changes = mods_from_schema(mods, csn)?;
            built(csn, uuid, None, Operation::Modify(LdapModifyRequest { dn, changes }))
        }
        schema::Change::ModRdn { csn, uuid, parent, deleteoldrdn, dn, newrdn, newsuperior, mods } => {
            let request = LdapModifyDNRequest {
                dn: dn_text(dn.into_bytes(), "DN", csn)?,
                newrdn: dn_text(newrdn.into_bytes(), "new RDN", csn)?,
                deleteoldrdn,
                new_superior: newsuperior
                    .map(|superior| dn_text(superior.into_bytes(), "new superior", csn))
                    .transpose()?,
            };
            let operational = mods_from_schema(mods, csn)?;
            built(csn, uuid, parent, Operation::ModifyDn { request, operational })
        }
        schema::Change::Delete { csn, uuid, parent, dn } => {
            built(csn, uuid, parent, Operation::Delete { dn: dn_text(dn.into_bytes(), "DN", csn)? })
        }
    }
}

fn entry_from_schema(
    dn: schema::Dn,
    attrs: Vec<schema::Attr>,
    csn: Csn,
) -> Result<LdapAddRequest, WireError> {
    check_count(attrs.len(), csn)?;
    let attributes = attrs
        .into_iter()
        .map(|attr| attribute_from_schema(attr.name, attr.values, csn))
        .collect::<Result<_, _>>()?;
    Ok(LdapAddRequest { dn: dn_text(dn.into_bytes(), "DN", csn)?, attributes })
}

/// The CSN of a change that is not converted yet.
pub(crate) fn csn(change: &schema::Change) -> Csn {
    match change {
        schema::Change::Add { csn, .. }
        | schema::Change::Put { csn, .. }
        | schema::Change::Modify { csn, .. }
        | schema::Change::ModRdn { csn, .. }
        | schema::Change::Delete { csn, .. } => *csn,
    }
}

fn mods_from_schema(mods: Vec<schema::Mod>, csn: Csn) -> Result<Vec<LdapModify>, WireError> {
    check_count(mods.len(), csn)?;
    mods.into_iter()
        .map(|change| {
            let (operation, attr, values) = match change {
                schema::Mod::Add { attr, values } => (LdapModifyType::Add, attr, values),
                schema::Mod::Delete { attr, values } => (LdapModifyType::Delete, attr, values),
                schema::Mod::Replace { attr, values } => (LdapModifyType::Replace, attr, values),
                schema::Mod::Increment { attr, values } => (LdapModifyType::Increment, attr, values),
            };
            Ok(LdapModify { operation, modification: attribute_from_schema(attr, values, csn)? })
        })
        .collect()
}

fn attribute_from_schema(
    atype: String,
    values: Vec<schema::Value>,
    csn: Csn,
) -> Result<LdapPartialAttribute, WireError> {
    check_name(&atype, csn)?;
    check_values(values.len(), &atype, csn)?;
    let vals: Option<Vec<Vec<u8>>> = values.into_iter().map(schema::Value::into_bytes).collect();
    match vals {
        Some(vals) => Ok(LdapPartialAttribute { atype, vals }),
        None => Err(WireError::Base64 { what: "a value", place: Place::Attribute(csn, atype) }),
    }
}

fn dn_text(bytes: Option<Vec<u8>>, what: &'static str, csn: Csn) -> Result<String, WireError> {
    let place = || Place::Change(csn);
    let bytes = bytes.ok_or_else(|| WireError::Base64 { what, place: place() })?;
    check_dn(bytes.len(), what, csn)?;
    String::from_utf8(bytes).map_err(|_| WireError::NotUtf8 { what, place: place() })
}

pub(crate) fn check_dn(bytes: usize, what: &'static str, csn: Csn) -> Result<(), WireError> {
    // Only the error needs to know which of the names it is, and it is a rare one.
    let unit = match what {
        "DN" => "bytes of DN",
        "new RDN" => "bytes of new RDN",
        _ => "bytes of new superior",
    };
    check(unit, Place::Change(csn), bytes, limits::DN_BYTES_MAX)
}

pub(crate) fn check_count(attributes: usize, csn: Csn) -> Result<(), WireError> {
    check("attributes", Place::Change(csn), attributes, limits::ATTRIBUTES_PER_CHANGE_MAX)
}

pub(crate) fn check_values(values: usize, name: &str, csn: Csn) -> Result<(), WireError> {
    // The place owns its name: made only when it is needed, this is called for every attribute.
    if values <= limits::VALUES_PER_ATTRIBUTE_MAX {
        return Ok(());
    }
    check("values", Place::Attribute(csn, name.to_owned()), values, limits::VALUES_PER_ATTRIBUTE_MAX)
}

/// RFC 4512 2.5: a short name or an OID, then options. OpenLDAP also takes `_`, and `=` in range options.
pub(crate) fn check_name(name: &str, csn: Csn) -> Result<(), WireError> {
    check(
        "bytes of attribute description",
        Place::Change(csn),
        name.len(),
        limits::ATTRIBUTE_NAME_BYTES_MAX,
    )?;
    let begins = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    let continues =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_' | b'=');
    if begins && name.bytes().all(continues) {
        Ok(())
    } else {
        Err(WireError::AttributeName { place: Place::Change(csn) })
    }
}

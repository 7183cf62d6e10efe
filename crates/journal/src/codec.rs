//! A change as bytes, and back. The layout has a version of its own, apart from the wire's.
//!
//! ```text
//! change       = version:1 boot:8 seq:8 uuid:16 parent operation
//! parent       = 0 | 1 uuid:16
//! operation    = 0 dn list(attribute) | 1 dn list(modification) | 3 dn
//!              | 2 dn newrdn deleteoldrdn:1 superior list(modification) | 4 dn list(attribute)
//! superior     = 0 | 1 text
//! modification = type:1 attribute
//! attribute    = text list(bytes)
//! ```
//! `list`, `text` and `bytes` begin with their number of items or bytes, as a number of seven bits per byte, lowest
//! first. A number has one spelling, so equal changes are equal bytes. The CSN is the key.

use crate::limits::{ATTRIBUTES_PER_CHANGE_MAX, CHANGE_BYTES_MAX, VALUES_PER_ATTRIBUTE_MAX};
use crate::store::Uuid;
use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use thiserror::Error;
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Operation};

/// The version of the layout.
const VERSION: u8 = 2;

/// Where the entryUUID stands in a change.
const UUID: std::ops::Range<usize> = 17..33;

const ADD: u8 = 0;
const MODIFY: u8 = 1;
const MODIFY_DN: u8 = 2;
const DELETE: u8 = 3;
const PUT: u8 = 4;

/// Why bytes are not a record of this journal.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// Written by a later version.
    #[error("a record has the version {0}, this program knows {VERSION}")]
    Version(u8),
    /// It ends within a field.
    #[error("a record ends too early")]
    Short,
    /// Something follows its end.
    #[error("a record is too long")]
    Long,
    /// A byte that says what follows says nothing known.
    #[error("a record has an unknown mark")]
    Mark,
    /// A DN or name is not UTF-8.
    #[error("a record has a text that is not UTF-8")]
    Text,
    /// Larger than [`limits`](crate::limits) allow.
    #[error("a record exceeds a limit")]
    Limit,
    /// Not a packed CSN.
    #[error("a record has a CSN that is none")]
    Csn,
    /// The index names a change that is not there.
    #[error("a record is missing")]
    Missing,
}

/// A change with its place in its origin's stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The origin's run.
    pub boot: BootId,
    /// The sequence number in that run.
    pub seq: u64,
    /// The change itself.
    pub change: Change,
}

/// Appends a change to `out`.
pub fn encode(boot: BootId, seq: u64, change: &Change, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&boot.get().to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(change.uuid.as_bytes());
    put_optional(out, change.parent.as_ref().map(EntryUuid::as_bytes));
    match &change.operation {
        Operation::Add(request) | Operation::Put(request) => {
            out.push(if matches!(change.operation, Operation::Add(_)) { ADD } else { PUT });
            put_bytes(out, request.dn.as_bytes());
            put_number(out, request.attributes.len());
            request.attributes.iter().for_each(|attribute| put_attribute(out, attribute));
        }
        Operation::Modify(request) => {
            out.push(MODIFY);
            put_bytes(out, request.dn.as_bytes());
            put_modifications(out, &request.changes);
        }
        Operation::ModifyDn { request, operational } => {
            out.push(MODIFY_DN);
            put_bytes(out, request.dn.as_bytes());
            put_bytes(out, request.newrdn.as_bytes());
            out.push(u8::from(request.deleteoldrdn));
            out.push(u8::from(request.new_superior.is_some()));
            if let Some(superior) = &request.new_superior {
                put_bytes(out, superior.as_bytes());
            }
            put_modifications(out, operational);
        }
        Operation::Delete { dn } => {
            out.push(DELETE);
            put_bytes(out, dn.as_bytes());
        }
    }
}

/// Reads what [`encode`] wrote. Takes any bytes; memory is spent on what is there, not on what a length claims.
///
/// # Errors
/// [`CodecError`] for anything else.
pub fn decode(csn: Csn, bytes: &[u8]) -> Result<Stored, CodecError> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(CodecError::Limit);
    }
    let mut reader = Reader(bytes);
    let [version] = reader.array()?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let boot = BootId::new(u64::from_le_bytes(reader.array()?));
    let seq = u64::from_le_bytes(reader.array()?);
    let uuid = EntryUuid::from_bytes(reader.array()?);
    let parent = reader.optional()?.map(EntryUuid::from_bytes);
    let operation = operation(&mut reader)?;
    reader.end()?;
    Ok(Stored { boot, seq, change: Change { csn, uuid, parent, operation } })
}

/// The entry that an encoded change is about, without reading the rest.
pub(crate) fn uuid(bytes: &[u8]) -> Result<Uuid, CodecError> {
    bytes.get(UUID).and_then(|uuid| uuid.try_into().ok()).ok_or(CodecError::Short)
}

/// Whether an encoded change is a rename, without reading it.
pub(crate) fn is_rename(bytes: &[u8]) -> bool {
    let parent = match bytes.get(UUID.end) {
        Some(0) => 0,
        _ => size_of::<Uuid>(),
    };
    bytes.get(UUID.end + 1 + parent) == Some(&MODIFY_DN)
}

fn operation(reader: &mut Reader<'_>) -> Result<Operation, CodecError> {
    let [mark] = reader.array()?;
    let dn = reader.text()?;
    Ok(match mark {
        ADD | PUT => {
            let entry = LdapAddRequest { dn, attributes: reader.list(ATTRIBUTES_PER_CHANGE_MAX, attribute)? };
            if mark == ADD { Operation::Add(entry) } else { Operation::Put(entry) }
        }
        MODIFY => Operation::Modify(LdapModifyRequest { dn, changes: modifications(reader)? }),
        MODIFY_DN => {
            let newrdn = reader.text()?;
            let deleteoldrdn = reader.flag()?;
            let new_superior = if reader.flag()? { Some(reader.text()?) } else { None };
            let request = LdapModifyDNRequest { dn, newrdn, deleteoldrdn, new_superior };
            Operation::ModifyDn { request, operational: modifications(reader)? }
        }
        DELETE => Operation::Delete { dn },
        _ => return Err(CodecError::Mark),
    })
}

fn modifications(reader: &mut Reader<'_>) -> Result<Vec<LdapModify>, CodecError> {
    reader.list(ATTRIBUTES_PER_CHANGE_MAX, |reader| {
        let operation = match reader.array()? {
            [0] => LdapModifyType::Add,
            [1] => LdapModifyType::Delete,
            [2] => LdapModifyType::Replace,
            [3] => LdapModifyType::Increment,
            _ => return Err(CodecError::Mark),
        };
        Ok(LdapModify { operation, modification: attribute(reader)? })
    })
}

fn attribute(reader: &mut Reader<'_>) -> Result<LdapPartialAttribute, CodecError> {
    let atype = reader.text()?;
    let vals = reader.list(VALUES_PER_ATTRIBUTE_MAX, |reader| reader.bytes().map(<[u8]>::to_vec))?;
    Ok(LdapPartialAttribute { atype, vals })
}

fn put_modifications(out: &mut Vec<u8>, modifications: &[LdapModify]) {
    put_number(out, modifications.len());
    for modify in modifications {
        out.push(match modify.operation {
            LdapModifyType::Add => 0,
            LdapModifyType::Delete => 1,
            LdapModifyType::Replace => 2,
            LdapModifyType::Increment => 3,
        });
        put_attribute(out, &modify.modification);
    }
}

fn put_attribute(out: &mut Vec<u8>, attribute: &LdapPartialAttribute) {
    put_bytes(out, attribute.atype.as_bytes());
    put_number(out, attribute.vals.len());
    attribute.vals.iter().for_each(|value| put_bytes(out, value));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// `0`, or `1` and the bytes.
pub(crate) fn put_optional<const N: usize>(out: &mut Vec<u8>, bytes: Option<&[u8; N]>) {
    out.push(u8::from(bytes.is_some()));
    out.extend(bytes.into_iter().flatten());
}

pub(crate) fn put_number(out: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest > 0x7f {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What is left of a record.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    /// What [`put_optional`] wrote.
    pub(crate) fn optional<const N: usize>(&mut self) -> Result<Option<[u8; N]>, CodecError> {
        if self.flag()? { self.array().map(Some) } else { Ok(None) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<String, CodecError> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Text)?;
        Ok(text.to_owned())
    }

    pub(crate) fn list<T>(
        &mut self,
        items_max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        // Grows as the items come: a length alone buys no memory beyond this.
        const RESERVED_MAX: usize = 64;
        let count = self.number()?;
        if count > items_max {
            return Err(CodecError::Limit);
        }
        let mut items = Vec::with_capacity(count.min(RESERVED_MAX));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Long) }
    }

    fn flag(&mut self) -> Result<bool, CodecError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(CodecError::Mark),
        }
    }

    fn number(&mut self) -> Result<usize, CodecError> {
        // Five groups of seven bits hold every length up to CHANGE_BYTES_MAX, and fit into a u64 by far.
        const GROUPS_MAX: u32 = 5;
        let mut number: u64 = 0;
        for group in 0..GROUPS_MAX {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << (7 * group);
            if byte & 0x80 == 0 {
                // A last group of zero would be a second spelling of the same number.
                if byte == 0 && group > 0 {
                    return Err(CodecError::Mark);
                }
                return usize::try_from(number).map_err(|_| CodecError::Limit);
            }
        }
        Err(CodecError::Limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_change, csn};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_change_survives_the_round_trip(change in any_change(), boot: u64, seq: u64) {
            let mut bytes = Vec::new();
            encode(BootId::new(boot), seq, &change, &mut bytes);
            prop_assert_eq!(uuid(&bytes), Ok(*change.uuid.as_bytes()));
            let stored = decode(change.csn, &bytes).unwrap();
            prop_assert_eq!(stored, Stored { boot: BootId::new(boot), seq, change });
        }

        #[test]
        fn a_damaged_change_is_refused_or_another_one_but_never_a_panic(
            change in any_change(), at: prop::sample::Index, with: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            encode(BootId::new(1), 1, &change, &mut bytes);
            let short = cut.index(bytes.len());
            prop_assert!(decode(change.csn, &bytes[..short]).is_err());
            let place = at.index(bytes.len());
            bytes[place] = with;
            if let Ok(stored) = decode(change.csn, &bytes) {
                let mut again = Vec::new();
                encode(stored.boot, stored.seq, &stored.change, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        /// The short version of the fuzz target `journal_record`.
        #[test]
        fn any_bytes_decode_to_what_encodes_to_them(mut bytes: Vec<u8>) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            if let Ok(stored) = decode(csn(1, 1), &bytes) {
                let mut again = Vec::new();
                encode(stored.boot, stored.seq, &stored.change, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_length_that_is_not_there_buys_no_memory() {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&[0; 33]);
        bytes.extend_from_slice(&[ADD, 0, 0x80, 0x80, 0x10]);
        assert_eq!(decode(csn(1, 1), &bytes), Err(CodecError::Short));
        bytes.extend_from_slice(&[0xff; 8]);
        assert_eq!(decode(csn(1, 1), &bytes), Err(CodecError::Limit));
    }

    #[test]
    fn a_later_version_is_named() {
        assert_eq!(decode(csn(1, 1), &[9, 0, 0]), Err(CodecError::Version(9)));
    }
}

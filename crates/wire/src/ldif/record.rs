//! One record: lines to an entry.

use super::{ENTRY_CSN, ENTRY_UUID, LdifError, begins_a_change};
use crate::limits;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ldap3_proto::proto::{LdapAddRequest, LdapPartialAttribute};
use std::borrow::Cow;
use std::collections::HashMap;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation};

/// Attributes up to which looking at each is faster than an index.
const LOOKED_THROUGH_MAX: usize = 64;

/// The entry in a record's lines, of which `line` is the number of the first; `None` when there are
/// comments alone, or the version.
pub(super) fn parse(bytes: &[u8], line: u64, first: bool) -> Result<Option<Change>, LdifError> {
    check(line, "bytes", bytes.len(), limits::LDIF_RECORD_BYTES_MAX)?;
    let mut lines = Lines { rest: bytes, next: line, line };
    let Some(mut head) = lines.next() else { return Ok(None) };
    if first && head.starts_with(b"version:") {
        let (_, version) = value(&head, lines.line)?;
        if *version != *b"1" {
            return Err(LdifError::Version { line: lines.line });
        }
        match lines.next() {
            Some(next) => head = next,
            None => return Ok(None),
        }
    }
    let (name, dn) = value(&head, lines.line)?;
    if !name.eq_ignore_ascii_case(b"dn") {
        return Err(syntax(lines.line, "a record begins with its DN"));
    }
    check(line, "bytes of DN", dn.len(), limits::DN_BYTES_MAX)?;
    let dn = String::from_utf8(dn.into_owned()).map_err(|_| syntax(lines.line, "the DN is not UTF-8"))?;
    let attributes = attributes(&mut lines, line)?;
    let csn = single(&attributes, ENTRY_CSN).and_then(|value| Csn::parse_stored(value).ok());
    let uuid = single(&attributes, ENTRY_UUID).and_then(|value| EntryUuid::parse(value).ok());
    match (csn, uuid) {
        (Some(csn), Some(uuid)) => {
            let operation = Operation::Put(LdapAddRequest { dn, attributes });
            Ok(Some(Change { csn, uuid, parent: None, operation }))
        }
        (None, _) => Err(LdifError::Unusable { dn, attribute: ENTRY_CSN }),
        (_, None) => Err(LdifError::Unusable { dn, attribute: ENTRY_UUID }),
    }
}

fn attributes(lines: &mut Lines<'_>, first_line: u64) -> Result<Vec<LdapPartialAttribute>, LdifError> {
    let mut attributes: Vec<LdapPartialAttribute> = Vec::new();
    let mut index = HashMap::new();
    let mut values = 0;
    while let Some(text) = lines.next() {
        let (name, value) = value(&text, lines.line)?;
        if values == 0 && begins_a_change(name) {
            return Err(LdifError::ChangeRecord { line: lines.line });
        }
        values += 1;
        check(first_line, "values", values, limits::LDIF_VALUES_PER_RECORD_MAX)?;
        let value = value.into_owned();
        // Values of one attribute nearly always follow each other.
        match attributes.last_mut().filter(|last| last.atype.as_bytes().eq_ignore_ascii_case(name)) {
            Some(last) => last.vals.push(value),
            None => match position(&attributes, &mut index, name) {
                Some(known) => attributes[known].vals.push(value),
                None => {
                    // The name was checked to be ASCII.
                    let atype = String::from_utf8_lossy(name).into_owned();
                    attributes.push(LdapPartialAttribute { atype, vals: vec![value] });
                }
            },
        }
    }
    Ok(attributes)
}

/// Where the attribute is. Beyond a few attributes an index is kept, or a record of many would
/// take time by the square of their number.
fn position(
    attributes: &[LdapPartialAttribute],
    index: &mut HashMap<Vec<u8>, usize>,
    name: &[u8],
) -> Option<usize> {
    if attributes.len() <= LOOKED_THROUGH_MAX {
        return attributes.iter().position(|known| known.atype.as_bytes().eq_ignore_ascii_case(name));
    }
    for (position, known) in attributes.iter().enumerate().skip(index.len()) {
        index.insert(known.atype.to_ascii_lowercase().into_bytes(), position);
    }
    index.get(&name.to_ascii_lowercase()).copied()
}

fn single<'a>(attributes: &'a [LdapPartialAttribute], name: &str) -> Option<&'a [u8]> {
    let found = attributes.iter().find(|attribute| attribute.atype.eq_ignore_ascii_case(name))?;
    match found.vals.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

/// `name: text`, `name:: base64`; the name is checked.
fn value(line: &[u8], number: u64) -> Result<(&[u8], Cow<'_, [u8]>), LdifError> {
    let colon = memchr::memchr(b':', line).ok_or_else(|| syntax(number, "it has no colon"))?;
    let (name, rest) = (&line[..colon], &line[colon + 1..]);
    if !is_name(name) {
        return Err(syntax(number, "what stands before the colon is no attribute description"));
    }
    match rest.first() {
        Some(b':') => {
            let base64 = trim(&rest[1..]);
            let bytes = STANDARD.decode(base64).map_err(|_| syntax(number, "its base64 is malformed"))?;
            Ok((name, Cow::Owned(bytes)))
        }
        Some(b'<') => Err(LdifError::Url { line: number }),
        _ => Ok((name, Cow::Borrowed(trim_start(rest)))),
    }
}

/// As [`crate::change::check_name`], without an error that names a change.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.len() <= limits::ATTRIBUTE_NAME_BYTES_MAX
        && name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_' | b'='))
}

fn trim_start(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let spaces = text.iter().rev().take_while(|byte| **byte == b' ').count();
    &text[..text.len() - spaces]
}

fn syntax(line: u64, reason: &'static str) -> LdifError {
    LdifError::Syntax { line, reason }
}

fn check(line: u64, what: &'static str, found: usize, max: usize) -> Result<(), LdifError> {
    if found > max { Err(LdifError::Limit { line, what, found, max }) } else { Ok(()) }
}

/// The lines of a record, unfolded and without comments.
struct Lines<'a> {
    rest: &'a [u8],
    /// The number of the next physical line.
    next: u64,
    /// The number of the line that was given last.
    line: u64,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        while !self.rest.is_empty() {
            self.line = self.next;
            let mut line = Cow::Borrowed(self.physical());
            while self.rest.first() == Some(&b' ') {
                let more = self.physical();
                line.to_mut().extend_from_slice(&more[1..]);
            }
            if !line.is_empty() && line.first() != Some(&b'#') {
                return Some(line);
            }
        }
        None
    }

    fn physical(&mut self) -> &'a [u8] {
        let (line, rest) = match memchr::memchr(b'\n', self.rest) {
            Some(newline) => (&self.rest[..newline], &self.rest[newline + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        self.next += 1;
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

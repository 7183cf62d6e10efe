//! Entries to LDIF.

use super::{ENTRY_CSN, ENTRY_UUID, LdifError, begins_a_change};
use crate::{limits, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ldap3_proto::proto::LdapAddRequest;
use std::io::Write;
use xmppsync_replica::{Change, Operation};

/// Appends entries to `W`. It writes once for each entry: no buffer is needed around a file, but
/// one around a socket or a compressor does no harm.
#[derive(Debug)]
pub struct LdifWriter<W> {
    out: W,
    record: Vec<u8>,
    base64: String,
    entries: u64,
    bytes: u64,
}

impl<W: Write> LdifWriter<W> {
    /// Writes the header: a comment line for each of `comments`. There is no version line, as slapcat
    /// writes none: slapadd takes one for an attribute of the first entry, and gives up.
    ///
    /// # Errors
    /// Those of the output.
    pub fn new(out: W, comments: &[&str]) -> Result<LdifWriter<W>, LdifError> {
        let mut writer = LdifWriter { out, record: Vec::new(), base64: String::new(), entries: 0, bytes: 0 };
        for comment in comments {
            let line: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            writer.record.extend_from_slice(format!("# {line}\n").as_bytes());
        }
        if !comments.is_empty() {
            writer.record.push(b'\n');
        }
        writer.flush_record()?;
        Ok(writer)
    }

    /// Appends an entry: [`Operation::Add`] or [`Operation::Put`], with its entryCSN and entryUUID
    /// among the attributes.
    ///
    /// # Errors
    /// [`LdifError::NotAnEntry`] and [`LdifError::Unusable`] for what a reader would refuse, of
    /// which nothing is written; [`LdifError::Io`], after which the output is of no use.
    pub fn write(&mut self, change: &Change) -> Result<(), LdifError> {
        let (Operation::Add(entry) | Operation::Put(entry)) = &change.operation else {
            return Err(not_an_entry(change, "it is another operation"));
        };
        check_identity(change, entry)?;
        self.record.clear();
        self.line("dn", entry.dn.as_bytes());
        let mut begun = false;
        for attribute in entry.attributes.iter().filter(|attribute| !attribute.vals.is_empty()) {
            let name = &attribute.atype;
            if !super::record::is_name(name.as_bytes()) {
                return Err(not_an_entry(change, "an attribute description has a character that none has"));
            }
            if !begun && begins_a_change(name.as_bytes()) {
                return Err(not_an_entry(change, "its first attribute would be taken for a change"));
            }
            begun = true;
            attribute.vals.iter().for_each(|value| self.line(name, value));
        }
        self.record.push(b'\n');
        if self.record.len() > limits::LDIF_RECORD_BYTES_MAX {
            return Err(not_an_entry(change, "it is over the limit of a record"));
        }
        self.flush_record()?;
        self.entries += 1;
        Ok(())
    }

    /// The entries that were written.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The bytes that were written, with the header.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The output. LDIF needs nothing at its end.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// One value, on one line whatever its length: folding would only slow both sides down.
    fn line(&mut self, name: &str, value: &[u8]) {
        self.record.extend_from_slice(name.as_bytes());
        if value.is_empty() {
            self.record.extend_from_slice(b":\n");
        } else if is_safe(value) {
            self.record.extend_from_slice(b": ");
            self.record.extend_from_slice(value);
            self.record.push(b'\n');
        } else {
            self.record.extend_from_slice(b":: ");
            self.base64.clear();
            STANDARD.encode_string(value, &mut self.base64);
            self.record.extend_from_slice(self.base64.as_bytes());
            self.record.push(b'\n');
        }
    }

    fn flush_record(&mut self) -> Result<(), LdifError> {
        self.out.write_all(&self.record)?;
        self.bytes += self.record.len() as u64;
        if self.record.capacity() > limits::LDIF_KEPT_BYTES {
            self.record = Vec::new();
            self.base64 = String::new();
        }
        Ok(())
    }
}

/// RFC 2849, SAFE-STRING, without the control characters that it allows.
fn is_safe(value: &[u8]) -> bool {
    !matches!(value.first(), Some(b' ' | b':' | b'<'))
        && value.last() != Some(&b' ')
        && value.iter().all(text::is_printable)
}

/// What the reader takes CSN and entryUUID from has to be there, once, and the same.
fn check_identity(change: &Change, entry: &LdapAddRequest) -> Result<(), LdifError> {
    let has = |name: &str, fits: &dyn Fn(&[u8]) -> bool| {
        let found = entry.attributes.iter().find(|attribute| attribute.atype.eq_ignore_ascii_case(name));
        matches!(found.map(|attribute| attribute.vals.as_slice()), Some([only]) if fits(only))
    };
    let unusable = |attribute| LdifError::Unusable { dn: entry.dn.clone(), attribute };
    if entry.dn.len() > limits::DN_BYTES_MAX {
        return Err(not_an_entry(change, "its DN is over the limit"));
    }
    if !has(ENTRY_CSN, &|value| xmppsync_replica::Csn::parse_stored(value) == Ok(change.csn)) {
        return Err(unusable(ENTRY_CSN));
    }
    if !has(ENTRY_UUID, &|value| xmppsync_replica::EntryUuid::parse(value) == Ok(change.uuid)) {
        return Err(unusable(ENTRY_UUID));
    }
    Ok(())
}

fn not_an_entry(change: &Change, reason: &'static str) -> LdifError {
    LdifError::NotAnEntry { csn: change.csn, reason }
}

//! What can be wrong with LDIF. As in [`WireError`](crate::WireError), no text holds a value but a DN.

use std::io;
use thiserror::Error;
use xmppsync_replica::Csn;

/// Why an entry cannot be read or written.
#[derive(Debug, Error)]
pub enum LdifError {
    /// The line is none of LDIF's.
    #[error("Line {line} of the LDIF is malformed: {reason}.")]
    Syntax {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A value that stands elsewhere (`attribute:< file:///…`): nothing is fetched.
    #[error("Line {line} of the LDIF names a URL in place of a value.")]
    Url {
        /// Its number, from 1.
        line: u64,
    },
    /// A change where an entry is due.
    #[error("The record at line {line} of the LDIF is a change, not an entry.")]
    ChangeRecord {
        /// Its number, from 1.
        line: u64,
    },
    /// Another version than 1.
    #[error("The LDIF at line {line} is of another version than 1.")]
    Version {
        /// The number of the line, from 1.
        line: u64,
    },
    /// More than [`limits`](crate::limits) allows.
    #[error("The record at line {line} of the LDIF has {found} {what}, the limit is {max}.")]
    Limit {
        /// The number of its first line, from 1.
        line: u64,
        /// What was counted, with its unit.
        what: &'static str,
        /// How many there are, or at least are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// An entry that no replica can place.
    #[error("The entry {dn} has no usable {attribute}.")]
    Unusable {
        /// Its DN.
        dn: String,
        /// `entryCSN` or `entryUUID`.
        attribute: &'static str,
    },
    /// A change that is not an entry cannot be written as one.
    #[error("The change {csn} is no whole entry, or LDIF cannot say it: {reason}.")]
    NotAnEntry {
        /// The change.
        csn: Csn,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file or stream that is written to.
    #[error("The LDIF cannot be written: {0}.")]
    Io(#[from] io::Error),
}

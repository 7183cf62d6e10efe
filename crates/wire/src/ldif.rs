//! Snapshots as LDIF (RFC 2849): entries as slapcat writes them and slapadd reads them, so that a
//! file that was kept is of use without this program.
//!
//! [`LdifWriter`] appends entries to anything that takes bytes; [`LdifReader`] takes bytes as they
//! come and gives one entry after the other, in memory for one of them. Values come back byte for
//! byte; an attribute without values, which LDIF cannot say, does not come back. Nor does an entry's
//! parent, which a reader finds by the DN: parents come before their children.

mod error;
mod reader;
mod record;
mod writer;

pub use error::LdifError;
pub use reader::LdifReader;
pub use writer::LdifWriter;

/// The attributes that a replica needs of an entry.
const ENTRY_CSN: &str = "entryCSN";
const ENTRY_UUID: &str = "entryUUID";

/// Whether a record whose first attribute has this name is taken for a change (RFC 2849, `changerecord`).
fn begins_a_change(attribute: &[u8]) -> bool {
    attribute.eq_ignore_ascii_case(b"changetype") || attribute.eq_ignore_ascii_case(b"control")
}

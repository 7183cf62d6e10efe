//! A change that is too large for a batch: named where the batch would stand, sent as a file to
//! whoever asks for it.

use crate::load::check_file_size;
use crate::{Place, WireError, batch, change, encode, limits, read, schema};
use minidom::Element;
use xmppsync_replica::{BootId, Change, Csn, ServerId};

/// A reference to one change, in place of a batch or of a page that would hold it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// Whose change.
    pub origin: ServerId,
    /// The origin's run.
    pub boot: BootId,
    /// The change's sequence number.
    pub seq: u64,
    /// The CSN of the origin's change before it; `None` when there is none.
    pub prev: Option<Csn>,
    /// The change.
    pub csn: Csn,
    /// The file with it, in bytes; [`limits::CHANGE_FILE_BYTES_MAX`] at most.
    pub bytes: u64,
}

impl Large {
    pub(crate) fn to_element(self) -> Result<Element, WireError> {
        self.check()?;
        let Large { origin: sid, boot, seq, prev, csn, bytes } = self;
        batch::to_element(&schema::Large { sid, boot, seq, prev, csn, bytes }, Place::Large)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Large, WireError> {
        let schema::Large { sid: origin, boot, seq, prev, csn, bytes } =
            read::element(element, Place::Large)?;
        let large = Large { origin, boot, seq, prev, csn, bytes };
        large.check()?;
        Ok(large)
    }

    fn check(&self) -> Result<(), WireError> {
        let origin = self.origin;
        if let Some(csn) = self.prev.into_iter().chain([self.csn]).find(|csn| csn.server_id() != origin) {
            return Err(WireError::ForeignChange { origin, csn });
        }
        if self.seq == 0 {
            return Err(WireError::Sequence { first: 0, last: 0, changes: 1 });
        }
        check_file_size(self.bytes, Place::Large)
    }
}

/// The file of one change: its element as a document of its own.
///
/// # Errors
/// [`WireError::TooLarge`] over [`limits::CHANGE_FILE_BYTES_MAX`], and what a receiver would refuse.
pub fn change_to_xml(change: &Change) -> Result<Vec<u8>, WireError> {
    let (place, max) = (Place::Change(change.csn), limits::CHANGE_FILE_BYTES_MAX);
    let element = encode::change_to_element(change)?;
    let malformed =
        |error: xso::error::Error| WireError::Malformed { place: place.clone(), reason: error.to_string() };
    let xml = xso::to_vec(&element).map_err(malformed)?;
    if xml.len() > max { Err(WireError::TooLarge { place, bytes: xml.len(), max }) } else { Ok(xml) }
}

/// Reads what [`change_to_xml`] wrote.
///
/// # Errors
/// [`WireError::Limit`] over [`limits::CHANGE_FILE_BYTES_MAX`], and whatever is wrong with the change.
pub fn change_from_xml(bytes: &[u8]) -> Result<Change, WireError> {
    change::from_schema(read::document(bytes, limits::CHANGE_FILE_BYTES_MAX, Place::File)?)
}

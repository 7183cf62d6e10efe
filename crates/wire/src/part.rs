//! A batch too large for one stanza goes in parts: pieces of its XML as text.

use crate::error::check;
use crate::{Place, WireError, batch, batch_to_element, limits, read, schema, text};
use minidom::Element;
use xmppsync_replica::{Batch, BootId, Csn, ServerId};

/// Room for the text of one part, in escaped bytes.
const PART_TEXT_BYTES_MAX: usize = limits::PAYLOAD_BYTES_MAX - limits::PART_WRAPPING_BYTES;

/// A piece of a batch's XML. [`Assembler`](crate::Assembler) puts the batch together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose batch.
    pub origin: ServerId,
    /// In which run.
    pub boot: BootId,
    /// The batch's first sequence number.
    pub first: u64,
    /// Its last one.
    pub last: u64,
    /// The number of this part, from 0.
    pub n: u32,
    /// How many there are.
    pub of: u32,
    /// The whole XML, in bytes.
    pub bytes: u32,
    /// The batch's change, when it has one only: by this a part of it is asked for.
    pub change: Option<Csn>,
    /// The piece.
    pub text: String,
}

/// Encodes a batch for the wire: one `<batch>` that fits into a stanza, or its `<part>`s in order.
///
/// # Errors
/// [`WireError::TooLarge`] when it does not even fit into the parts that a receiver takes, and
/// whatever a receiver would refuse to decode.
pub fn split(batch: &Batch) -> Result<Vec<Element>, WireError> {
    let whole = batch_to_element(batch)?;
    if batch::batch_size_estimate(batch) <= limits::PAYLOAD_BYTES_MAX {
        return Ok(vec![whole]);
    }
    let malformed = |reason: String| WireError::Malformed { place: Place::Batch, reason };
    let xml = xso::to_vec(&whole).map_err(|error| malformed(error.to_string()))?;
    let xml = String::from_utf8(xml).map_err(|error| malformed(error.to_string()))?;
    if xml.len() > limits::ASSEMBLED_BYTES_MAX {
        let place = match batch.changes.as_slice() {
            [only] => Place::Change(only.csn),
            _ => Place::Batch,
        };
        return Err(WireError::TooLarge { place, bytes: xml.len(), max: limits::ASSEMBLED_BYTES_MAX });
    }
    let pieces = pieces(&xml);
    check("parts", Place::Batch, pieces.len(), limits::PARTS_MAX)?;
    let part = |(n, piece): (usize, &&str)| Part {
        origin: batch.origin,
        boot: batch.boot,
        first: batch.first,
        last: batch.last(),
        // Both are far below 2³² by the two checks above.
        n: n as u32,
        of: pieces.len() as u32,
        bytes: xml.len() as u32,
        change: if let [only] = batch.changes.as_slice() { Some(only.csn) } else { None },
        text: (*piece).to_owned(),
    };
    pieces.iter().enumerate().map(|numbered| part(numbered).to_element()).collect()
}

/// Cuts the XML so that each piece fits into a stanza when it is escaped.
fn pieces(xml: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = xml;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cut(rest));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Where to cut: never within a character, and not beside a space where that can be helped, since
/// servers may trim text. A quarter of the piece is looked through for a better place.
fn cut(rest: &str) -> usize {
    let mut escaped = 0;
    let over = rest.bytes().position(|byte| {
        escaped += text::escaped_byte_len(byte);
        escaped > PART_TEXT_BYTES_MAX
    });
    let Some(over) = over else { return rest.len() };
    let end = (0..=over).rev().find(|index| rest.is_char_boundary(*index)).unwrap_or(over);
    let bytes = rest.as_bytes();
    let clear =
        |index: &usize| rest.is_char_boundary(*index) && bytes[*index] != b' ' && bytes[*index - 1] != b' ';
    (end - end / 4..=end).rev().find(clear).unwrap_or(end)
}

impl Part {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        self.check()?;
        let part = schema::Part {
            sid: self.origin,
            boot: self.boot,
            first: self.first,
            last: self.last,
            number: self.n,
            of: self.of,
            bytes: self.bytes,
            change: self.change,
            text: self.text.clone(),
        };
        batch::to_element(&part, Place::Part)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Part, WireError> {
        let part: schema::Part = read::element(element, Place::Part)?;
        let part = Part {
            origin: part.sid,
            boot: part.boot,
            first: part.first,
            last: part.last,
            n: part.number,
            of: part.of,
            bytes: part.bytes,
            change: part.change,
            text: part.text,
        };
        part.check()?;
        Ok(part)
    }

    /// Whether the part can be one of a batch.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        let bytes = self.bytes as usize;
        check("bytes of assembled batch", Place::Part, bytes, limits::ASSEMBLED_BYTES_MAX)?;
        check("parts of a batch", Place::Part, self.of as usize, limits::PARTS_MAX)?;
        let span = self.last.checked_sub(self.first);
        let reason = if self.n >= self.of {
            "its number is not below their number"
        } else if self.text.is_empty() || self.text.len() > bytes {
            "its text is empty, or longer than the whole"
        } else if self.first == 0 || span.is_none_or(|span| span >= limits::CHANGES_PER_BATCH_MAX as u64) {
            "its sequence numbers are those of no batch"
        } else {
            return Ok(());
        };
        Err(WireError::PartHeader { origin: self.origin, n: self.n, of: self.of, reason })
    }
}

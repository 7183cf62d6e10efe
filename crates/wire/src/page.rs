//! The question for what a replica lacks, and the answer: an IQ get and its result.

use crate::card::{CSN_BYTES, check_payload_size, vector};
use crate::error::check;
use crate::{NAMESPACE, Place, WireError, batch, batch_to_element, limits, read, schema};
use minidom::Element;
use xmppsync_replica::{Batch, BootId, ServerId, Vector};
use xso::exports::rxml::xml_ncname;

/// "Give me what I lack of this origin."
#[derive(Clone, Debug, PartialEq)]
pub struct Pull {
    /// Whose changes.
    pub origin: ServerId,
    /// What the asker has.
    pub vector: Vector,
    /// The run of the origin and the last sequence number up to which the asker has them all.
    pub after: Option<(BootId, u64)>,
    /// Which part of the next change, when that is too large for a page and comes in parts.
    pub part: Option<u32>,
    /// How large the answer may be, in bytes; the answering side may stay below it.
    pub bytes_max: u32,
}

/// The next batches that the asker lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// In the order in which to apply them.
    pub batches: Vec<Batch>,
    /// Whether it is worth to ask again.
    pub more: bool,
}

impl Pull {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        // <pull …></pull> with the longest numbers
        const PULL_BYTES: usize = 160;
        let pull = schema::Pull {
            sid: self.origin,
            boot: self.after.map(|(boot, _)| boot),
            after: self.after.map(|(_, sequence)| sequence),
            part: self.part,
            bytes_max: self.bytes_max,
            csns: self.vector.iter().collect(),
        };
        check_payload_size(Place::Pull, PULL_BYTES + pull.csns.len() * CSN_BYTES)?;
        batch::to_element(&pull, Place::Pull)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Pull, WireError> {
        let pull: schema::Pull = read::element(element, Place::Pull)?;
        let after = match (pull.boot, pull.after) {
            (Some(boot), Some(sequence)) => Some((boot, sequence)),
            (None, None) => None,
            _ => return Err(WireError::HalfPosition),
        };
        let vector = vector(&pull.csns, Place::Pull)?;
        Ok(Pull { origin: pull.sid, vector, after, part: pull.part, bytes_max: pull.bytes_max })
    }
}

impl Page {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        // <page xmlns='urn:xmpp:ldapsync:0' more='false'></page>
        const PAGE_BYTES: usize = 60;
        check("batches", Place::Page, self.batches.len(), limits::BATCHES_PER_PAGE_MAX)?;
        let bytes = self.batches.iter().map(batch::batch_size_estimate).sum::<usize>();
        check_payload_size(Place::Page, PAGE_BYTES + bytes)?;
        let mut page = Element::builder("page", NAMESPACE)
            .attr(xml_ncname!("more").to_owned(), self.more.to_string())
            .build();
        for batch in &self.batches {
            page.append_child(batch_to_element(batch)?);
        }
        Ok(page)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Page, WireError> {
        let page: schema::Page = read::element(element, Place::Page)?;
        check("batches", Place::Page, page.batches.len(), limits::BATCHES_PER_PAGE_MAX)?;
        let batches = page.batches.into_iter().map(batch::from_schema).collect::<Result<_, _>>()?;
        Ok(Page { batches, more: page.more })
    }
}

//! The question for what a replica lacks, and the answer: an IQ get and its result.

use crate::card::{CSN_BYTES, both, check_payload_size, vector};
use crate::error::check;
use crate::{NAMESPACE, Place, WireError, batch, batch_to_element, limits, read, schema};
use minidom::Element;
use xmppsync_replica::{Batch, Csn, Vector};
use xso::exports::rxml::xml_ncname;

/// "Give me whatever I lack", of all origins, in the order of their CSNs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pull {
    /// What the asker has.
    pub vector: Vector,
    /// How large the answer may be, in bytes; the answering side may stay below it.
    pub bytes_max: u32,
    /// A change that is too large for a page, and which of its parts, from 0, the answer shall be.
    pub part: Option<(Csn, u32)>,
}

/// The next batches that the asker lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Of several origins, in the order in which to apply them; the `prev` of each ties it to what
    /// the asker has by then.
    pub batches: Vec<Batch>,
    /// For each origin of which the asker lacks more than the answering side's journal holds: the
    /// CSN up to which the journal lacks the changes. One of a server at most.
    pub beyond: Vec<Csn>,
    /// Whether it is worth to ask again.
    pub more: bool,
}

impl Pull {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        // <pull …></pull> with the longest numbers
        const PULL_BYTES: usize = 160;
        let pull = schema::Pull {
            change: self.part.map(|(csn, _)| csn),
            part: self.part.map(|(_, n)| n),
            bytes_max: self.bytes_max,
            csns: self.vector.iter().collect(),
        };
        check_payload_size(Place::Pull, PULL_BYTES + pull.csns.len() * CSN_BYTES)?;
        batch::to_element(&pull, Place::Pull)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Pull, WireError> {
        let pull: schema::Pull = read::element(element, Place::Pull)?;
        Ok(Pull {
            vector: vector(&pull.csns, Place::Pull)?,
            bytes_max: pull.bytes_max,
            part: both(pull.change, pull.part, "change and part", Place::Pull)?,
        })
    }
}

impl Page {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        // <page xmlns='urn:xmpp:ldapsync:0' more='false'></page>
        const PAGE_BYTES: usize = 60;
        // <beyond>…</beyond>
        const BEYOND_BYTES: usize = Csn::LEN + 17;
        self.check()?;
        let bytes = self.batches.iter().map(batch::batch_size_estimate).sum::<usize>();
        check_payload_size(Place::Page, PAGE_BYTES + self.beyond.len() * BEYOND_BYTES + bytes)?;
        let mut page = Element::builder("page", NAMESPACE)
            .attr(xml_ncname!("more").to_owned(), self.more.to_string())
            .build();
        for csn in &self.beyond {
            page.append_child(Element::builder("beyond", NAMESPACE).append(csn.as_str()).build());
        }
        for batch in &self.batches {
            page.append_child(batch_to_element(batch)?);
        }
        Ok(page)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Page, WireError> {
        let page: schema::Page = read::element(element, Place::Page)?;
        // Before the batches are converted, which costs more than they cost now.
        check("batches", Place::Page, page.batches.len(), limits::BATCHES_PER_PAGE_MAX)?;
        let batches = page.batches.into_iter().map(batch::from_schema).collect::<Result<_, _>>()?;
        let page = Page { batches, beyond: page.beyond, more: page.more };
        page.check()?;
        Ok(page)
    }

    fn check(&self) -> Result<(), WireError> {
        check("batches", Place::Page, self.batches.len(), limits::BATCHES_PER_PAGE_MAX)?;
        vector(&self.beyond, Place::Page).map(|_| ())
    }
}

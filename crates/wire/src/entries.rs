//! Entries as they are, of any origin, with what is remembered of them: what a comparison of two databases found to differ.
//! Asked for by an IQ get, also by a peer that an IQ set has told to look at them.

use crate::card::check_payload_size;
use crate::encode::{bare, change_to_element, set};
use crate::error::check;
use crate::past::{side_from_schema, side_to_element};
use crate::{
    NAMESPACE, Past, Place, WireError, batch, change, encoded_size_estimate, limits, past_size_estimate,
    read, schema, side_size_estimate,
};
use minidom::Element;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, Side};
use xso::exports::rxml::xml_ncname;

/// "Give me these entries as they are, and these changes."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Which entries; [`limits::FETCH_UUIDS_MAX`] at most.
    pub uuids: Vec<EntryUuid>,
    /// Changes that the journal of the asked one has, as an earlier answer told; [`limits::FETCH_CHANGES_MAX`] at most.
    pub changes: Vec<Csn>,
    /// How large the answer may be, in bytes; the answering side may stay below it.
    pub bytes_max: u32,
}

/// "Look at these entries of mine." Who is told so fetches them, judges, and answers with [`Entries`] that have a tombstone
/// for each that was deleted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which ones; [`limits::FETCH_UUIDS_MAX`] at most.
    pub uuids: Vec<EntryUuid>,
}

/// What became of the entries, each in one list or, with `more`, in none, and of the changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries {
    /// The entries ([`Operation::Put`]), in the order in which they were asked for.
    pub puts: Vec<Change>,
    /// Tombstones ([`Operation::Delete`]).
    pub deletes: Vec<Change>,
    /// There is neither entry nor tombstone.
    pub absent: Vec<EntryUuid>,
    /// The replica was given the entry and could not apply it, so has nothing of its own to give.
    pub refused: Vec<EntryUuid>,
    /// The entry alone is too large for an answer: it travels as a file.
    pub large: Vec<EntryUuid>,
    /// The rest was left out for its size: ask again for it.
    pub more: bool,
    /// How far the answering replica had come before it looked at the entries, and from where on it remembers changes.
    pub side: Option<Side>,
    /// What is remembered of the entries' pasts; none for an entry of which nothing is.
    pub pasts: Vec<Past>,
    /// The changes that were asked for, each as its origin made it.
    pub changes: Vec<Change>,
    /// Changes that were asked for and are not known (any more).
    pub forgotten: Vec<Csn>,
}

impl Fetch {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        self.check()?;
        let Fetch { uuids, changes, bytes_max } = self.clone();
        batch::to_element(&schema::Fetch { bytes_max, uuids, csns: changes }, Place::Fetch)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Fetch, WireError> {
        let schema::Fetch { bytes_max, uuids, csns } = read::element(element, Place::Fetch)?;
        let fetch = Fetch { uuids, changes: csns, bytes_max };
        fetch.check()?;
        Ok(fetch)
    }

    fn check(&self) -> Result<(), WireError> {
        check("entryUUIDs", Place::Fetch, self.uuids.len(), limits::FETCH_UUIDS_MAX)?;
        check("changes", Place::Fetch, self.changes.len(), limits::FETCH_CHANGES_MAX)
    }
}

impl Offer {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        self.check()?;
        batch::to_element(&schema::Offer { uuids: self.uuids.clone() }, Place::Offer)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Offer, WireError> {
        let offer: schema::Offer = read::element(element, Place::Offer)?;
        let offer = Offer { uuids: offer.uuids };
        offer.check()?;
        Ok(offer)
    }

    fn check(&self) -> Result<(), WireError> {
        check("entryUUIDs", Place::Offer, self.uuids.len(), limits::FETCH_UUIDS_MAX)
    }
}

impl Entries {
    /// How many bytes the answer takes on the wire: never less than it does. Who fills one adds
    /// [`encoded_size_estimate`] of each state and change, [`limits::UUID_ELEMENT_BYTES`] of each name,
    /// [`limits::CSN_ELEMENT_BYTES`] of each change that is not known, [`past_size_estimate`] and [`side_size_estimate`] to
    /// [`limits::ENTRIES_WRAPPING_BYTES`] as it goes.
    pub fn size_estimate(&self) -> usize {
        let changes = self.states().chain(&self.changes).map(encoded_size_estimate).sum::<usize>();
        limits::ENTRIES_WRAPPING_BYTES
            + changes
            + self.names() * limits::UUID_ELEMENT_BYTES
            + self.forgotten.len() * limits::CSN_ELEMENT_BYTES
            + self.pasts.iter().map(past_size_estimate).sum::<usize>()
            + self.side.as_ref().map_or(0, side_size_estimate)
    }

    /// The entries and the tombstones.
    pub fn states(&self) -> impl Iterator<Item = &Change> {
        self.puts.iter().chain(&self.deletes)
    }

    /// How many entries are named alone.
    fn names(&self) -> usize {
        self.absent.len() + self.refused.len() + self.large.len()
    }

    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        let is_put = |change: &Change| matches!(change.operation, Operation::Put(_));
        let is_delete = |change: &Change| matches!(change.operation, Operation::Delete { .. });
        self.check()?;
        let strays = self.puts.iter().filter(|change| !is_put(change));
        let mut strays = strays.chain(self.deletes.iter().filter(|change| !is_delete(change)));
        if let Some(change) = strays.next() {
            return Err(WireError::NotAState { csn: change.csn });
        }
        check_payload_size(Place::Entries, self.size_estimate())?;
        let mut element = bare("entries");
        set(&mut element, xml_ncname!("more"), self.more.to_string());
        for change in self.states() {
            element.append_child(change_to_element(change)?);
        }
        let names = [("absent", &self.absent), ("refused", &self.refused), ("large", &self.large)];
        for (name, uuids) in names {
            uuids.iter().for_each(|uuid| append_text(&mut element, name, &uuid.to_string()));
        }
        if let Some(side) = &self.side {
            element.append_child(side_to_element(side)?);
        }
        for past in &self.pasts {
            element.append_child(past.to_element()?);
        }
        if !self.changes.is_empty() {
            let mut changes = bare("changes");
            for change in &self.changes {
                changes.append_child(change_to_element(change)?);
            }
            element.append_child(changes);
        }
        self.forgotten.iter().for_each(|csn| append_text(&mut element, "forgotten", csn.as_str()));
        Ok(element)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Entries, WireError> {
        Counts::of_element(element).check()?;
        let schema: schema::Entries = read::element(element, Place::Entries)?;
        let mut entries = Entries {
            absent: schema.absent,
            refused: schema.refused,
            large: schema.large,
            more: schema.more,
            side: schema.side.as_ref().map(side_from_schema).transpose()?,
            pasts: schema.pasts.into_iter().map(Past::from_schema).collect::<Result<_, _>>()?,
            forgotten: schema.forgotten,
            ..Entries::default()
        };
        for state in schema.states {
            let change = change::from_schema(state)?;
            match change.operation {
                Operation::Put(_) => entries.puts.push(change),
                Operation::Delete { .. } => entries.deletes.push(change),
                _ => return Err(WireError::NotAState { csn: change.csn }),
            }
        }
        let changes = schema.changes.map(|wrapped| wrapped.changes).unwrap_or_default();
        entries.changes = changes.into_iter().map(change::from_schema).collect::<Result<_, _>>()?;
        Ok(entries)
    }

    fn check(&self) -> Result<(), WireError> {
        let entries = self.puts.len() + self.deletes.len() + self.names();
        let changes = self.changes.len() + self.forgotten.len();
        Counts { entries, pasts: self.pasts.len(), changes }.check()
    }
}

/// What an answer speaks of.
#[derive(Default)]
struct Counts {
    entries: usize,
    pasts: usize,
    changes: usize,
}

impl Counts {
    /// By the names of the elements, before they are converted.
    fn of_element(element: &Element) -> Counts {
        let mut counts = Counts::default();
        for child in element.children() {
            match child.name() {
                "side" => {}
                "past" => counts.pasts += 1,
                "changes" => counts.changes += child.children().count(),
                "forgotten" => counts.changes += 1,
                _ => counts.entries += 1,
            }
        }
        counts
    }

    fn check(&self) -> Result<(), WireError> {
        check("entries", Place::Entries, self.entries, limits::FETCH_UUIDS_MAX)?;
        check("pasts", Place::Entries, self.pasts, limits::FETCH_UUIDS_MAX)?;
        check("changes", Place::Entries, self.changes, limits::FETCH_CHANGES_MAX)
    }
}

fn append_text(parent: &mut Element, name: &str, text: &str) {
    parent.append_child(Element::builder(name, NAMESPACE).append(text).build());
}

//! Entries as they are, of any origin: what a comparison of two databases found to differ. Asked for
//! by an IQ get, or offered by an IQ set to a peer that lacks them.

use crate::card::check_payload_size;
use crate::encode::{bare, change_to_element, set};
use crate::error::check;
use crate::{NAMESPACE, Place, WireError, batch, change, encoded_size_estimate, limits, read, schema};
use minidom::Element;
use xmppsync_replica::{Change, EntryUuid, Operation};
use xso::exports::rxml::xml_ncname;

/// "Give me these entries as they are."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Which ones; [`limits::FETCH_UUIDS_MAX`] at most.
    pub uuids: Vec<EntryUuid>,
    /// How large the answer may be, in bytes; the answering side may stay below it.
    pub bytes_max: u32,
}

/// What became of the entries, each in one list or, with `more`, in none.
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
}

impl Fetch {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        self.check()?;
        let fetch = schema::Fetch { bytes_max: self.bytes_max, uuids: self.uuids.clone() };
        batch::to_element(&fetch, Place::Fetch)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Fetch, WireError> {
        let fetch: schema::Fetch = read::element(element, Place::Fetch)?;
        let fetch = Fetch { uuids: fetch.uuids, bytes_max: fetch.bytes_max };
        fetch.check()?;
        Ok(fetch)
    }

    fn check(&self) -> Result<(), WireError> {
        check("entryUUIDs", Place::Fetch, self.uuids.len(), limits::FETCH_UUIDS_MAX)
    }
}

impl Entries {
    /// How many bytes the answer takes on the wire: never less than it does. Who fills one adds
    /// [`encoded_size_estimate`] of each state and [`limits::UUID_ELEMENT_BYTES`] of each name to
    /// [`limits::ENTRIES_WRAPPING_BYTES`] as it goes.
    pub fn size_estimate(&self) -> usize {
        let states = self.states().map(encoded_size_estimate).sum::<usize>();
        let names = self.absent.len() + self.refused.len() + self.large.len();
        limits::ENTRIES_WRAPPING_BYTES + states + names * limits::UUID_ELEMENT_BYTES
    }

    /// The entries and the tombstones.
    pub fn states(&self) -> impl Iterator<Item = &Change> {
        self.puts.iter().chain(&self.deletes)
    }

    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        let names = self.absent.len() + self.refused.len() + self.large.len();
        check_count(self.puts.len() + self.deletes.len() + names)?;
        let is_put = |change: &Change| matches!(change.operation, Operation::Put(_));
        let is_delete = |change: &Change| matches!(change.operation, Operation::Delete { .. });
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
        for (name, uuids) in [("absent", &self.absent), ("refused", &self.refused), ("large", &self.large)] {
            for uuid in uuids {
                element.append_child(Element::builder(name, NAMESPACE).append(uuid.to_string()).build());
            }
        }
        Ok(element)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Entries, WireError> {
        check_count(element.children().count())?;
        let schema: schema::Entries = read::element(element, Place::Entries)?;
        let mut entries = Entries {
            absent: schema.absent,
            refused: schema.refused,
            large: schema.large,
            more: schema.more,
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
        Ok(entries)
    }
}

fn check_count(found: usize) -> Result<(), WireError> {
    check("entries", Place::Entries, found, limits::FETCH_UUIDS_MAX)
}

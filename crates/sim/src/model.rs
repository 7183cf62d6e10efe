//! One database: entries, names, and what is remembered of the past.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use xmppsync_replica::merge::{Applied, Node, Schema, Tree, apply, follow};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Move, Operation, Place, names};

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// entryCSN.
    pub csn: Csn,
    /// `None`: the suffix entry.
    pub place: Option<Place>,
    /// It is named after its entryUUID as well, because another entry has its name.
    pub displaced: bool,
    /// It is deleted.
    pub glue: bool,
    /// The CSN of its add.
    pub created: Csn,
    /// Attributes by lower-case name; values by the form in which equal ones are equal.
    pub attributes: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
}

type Name = (EntryUuid, String);

/// A database, with what a journal knows.
#[derive(Clone, Debug)]
pub struct Model {
    suffix: EntryUuid,
    entries: BTreeMap<EntryUuid, Entry>,
    names: BTreeMap<Name, EntryUuid>,
    aside: BTreeMap<Name, BTreeSet<EntryUuid>>,
    children: BTreeMap<EntryUuid, BTreeSet<EntryUuid>>,
    history: BTreeMap<EntryUuid, Vec<Arc<Change>>>,
    moves: BTreeMap<Csn, Move>,
    deleted: BTreeMap<EntryUuid, (Csn, Option<Place>)>,
    /// Changes that wait for an entry.
    waiting: BTreeMap<EntryUuid, Vec<Arc<Change>>>,
    lost: Vec<Lost>,
}

impl Model {
    /// A database with a suffix entry.
    pub fn new(suffix: EntryUuid, csn: Csn) -> Model {
        let entry = Entry {
            csn,
            place: None,
            displaced: false,
            glue: false,
            created: csn,
            attributes: BTreeMap::new(),
        };
        Model {
            suffix,
            entries: BTreeMap::from([(suffix, entry)]),
            names: BTreeMap::new(),
            aside: BTreeMap::new(),
            children: BTreeMap::new(),
            history: BTreeMap::new(),
            moves: BTreeMap::new(),
            deleted: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lost: Vec::new(),
        }
    }

    /// The entries.
    pub fn entries(&self) -> &BTreeMap<EntryUuid, Entry> {
        &self.entries
    }

    /// The suffix entry.
    pub fn suffix(&self) -> EntryUuid {
        self.suffix
    }

    /// Whether a delete of the entry is known.
    pub fn is_deleted(&self, uuid: EntryUuid) -> bool {
        self.deleted.contains_key(&uuid)
    }

    /// What had no effect, as far as that was noticed here.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Changes that wait for an entry to come.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Change>> {
        self.waiting.values().flatten()
    }

    /// The entry with this name.
    pub fn named(&self, parent: EntryUuid, rdn: &str) -> Option<EntryUuid> {
        self.names.get(&(parent, key(rdn))).copied()
    }

    /// The entries below this one.
    pub fn children(&self, uuid: EntryUuid) -> impl Iterator<Item = EntryUuid> + '_ {
        self.children.get(&uuid).into_iter().flatten().copied()
    }

    /// The DN, as a client would see it.
    pub fn dn(&self, uuid: EntryUuid) -> String {
        let mut dn = String::new();
        let mut at = uuid;
        let mut left = self.entries.len();
        while let Some(Entry { place: Some(place), displaced, .. }) = self.entries.get(&at) {
            assert!(left > 0, "an entry is below itself");
            left -= 1;
            match displaced {
                true => dn.push_str(&names::displaced(at, &place.rdn)),
                false => dn.push_str(&place.rdn),
            }
            dn.push(',');
            at = place.parent;
        }
        dn + "dc=example"
    }

    /// A change that another replica made.
    pub fn apply(&mut self, change: &Arc<Change>) {
        match apply(self, change).unwrap_or_else(|never| match never {}) {
            Applied::Done => self.applied(change),
            Applied::Waits(uuid) => {
                self.waiting.entry(uuid).or_default().push(Arc::clone(change));
            }
        }
    }

    /// A change that a client made here, which is carried out already.
    pub fn follow(&mut self, change: &Arc<Change>, from: Option<Place>) {
        if let Some(from) = from {
            follow(self, change, from).unwrap_or_else(|never| match never {});
        }
        self.applied(change);
    }

    fn applied(&mut self, change: &Arc<Change>) {
        let history = self.history.entry(change.uuid).or_default();
        let at = history.partition_point(|known| known.csn < change.csn);
        if history.get(at).is_none_or(|known| known.csn != change.csn) {
            history.insert(at, Arc::clone(change));
        }
        if matches!(change.operation, Operation::Delete { .. }) {
            let tombstone = self.deleted.entry(change.uuid).or_insert((change.csn, None));
            tombstone.0 = tombstone.0.max(change.csn);
        }
        let mut waiting = self.waiting.remove(&change.uuid).unwrap_or_default();
        waiting.sort_by_key(|change| change.csn);
        for change in waiting {
            self.apply(&change);
        }
    }

    /// Carries out what a client asked for; everything was checked.
    pub fn insert(&mut self, uuid: EntryUuid, entry: Entry) {
        if let Some(place) = &entry.place {
            self.children.entry(place.parent).or_default().insert(uuid);
            let name = (place.parent, key(&place.rdn));
            if entry.displaced {
                self.aside.entry(name).or_default().insert(uuid);
            } else {
                let before = self.names.insert(name, uuid);
                assert!(before.is_none_or(|before| before == uuid), "two entries have one name");
            }
        }
        self.entries.insert(uuid, entry);
    }

    /// Takes an entry out.
    pub fn take(&mut self, uuid: EntryUuid) -> Option<Entry> {
        let entry = self.entries.remove(&uuid)?;
        if let Some(place) = &entry.place {
            if let Some(children) = self.children.get_mut(&place.parent) {
                children.remove(&uuid);
                if children.is_empty() {
                    self.children.remove(&place.parent);
                }
            }
            let name = (place.parent, key(&place.rdn));
            if entry.displaced {
                if let Some(aside) = self.aside.get_mut(&name) {
                    aside.remove(&uuid);
                    if aside.is_empty() {
                        self.aside.remove(&name);
                    }
                }
            } else {
                self.names.remove(&name);
            }
        }
        Some(entry)
    }

    /// Changes an entry in its place.
    pub fn entry_mut(&mut self, uuid: EntryUuid) -> Option<&mut Entry> {
        self.entries.get_mut(&uuid)
    }
}

/// Names are equal without regard to case.
fn key(rdn: &str) -> String {
    rdn.to_ascii_lowercase()
}

/// The form in which equal values are equal.
pub(crate) fn normal(value: &[u8]) -> Vec<u8> {
    value.to_ascii_lowercase()
}

fn keyed(values: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    values.into_iter().map(|value| (normal(&value), value)).collect()
}

/// Whether the attribute has at most one value, in this model.
pub(crate) fn is_single(attribute: &str) -> bool {
    ["uidNumber", "title"].iter().any(|single| single.eq_ignore_ascii_case(attribute))
}

fn named_values(rdn: &str) -> BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>> {
    let avas = names::avas(rdn).into_iter();
    avas.map(|(name, value)| (name.to_ascii_lowercase(), keyed(vec![value]))).collect()
}

impl Schema for Model {
    type Error = Infallible;

    fn is_single(&mut self, attribute: &str) -> Result<bool, Infallible> {
        Ok(is_single(attribute))
    }

    fn normalize(&mut self, _: &str, value: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(normal(value))
    }
}

impl Tree for Model {
    fn node(&mut self, uuid: EntryUuid) -> Result<Option<Node>, Infallible> {
        Ok(self.entries.get(&uuid).map(|entry| Node {
            csn: Some(entry.csn),
            place: entry.place.clone(),
            displaced: entry.displaced,
            glue: entry.glue,
            created: entry.created.as_str().as_bytes().to_vec(),
        }))
    }

    fn holder(&mut self, place: &Place) -> Result<Option<EntryUuid>, Infallible> {
        Ok(self.named(place.parent, &place.rdn))
    }

    fn displaced(&mut self, place: &Place) -> Result<Vec<EntryUuid>, Infallible> {
        let aside = self.aside.get(&(place.parent, key(&place.rdn)));
        Ok(aside.into_iter().flatten().copied().collect())
    }

    fn has_children(&mut self, uuid: EntryUuid) -> Result<bool, Infallible> {
        Ok(self.children.contains_key(&uuid))
    }

    fn attributes(&mut self, uuid: EntryUuid) -> Result<Vec<(String, Vec<Vec<u8>>)>, Infallible> {
        let Some(entry) = self.entries.get(&uuid) else { return Ok(Vec::new()) };
        let values = |values: &BTreeMap<Vec<u8>, Vec<u8>>| values.values().cloned().collect();
        Ok(entry.attributes.iter().map(|(name, all)| (name.clone(), values(all))).collect())
    }

    fn later(&mut self, uuid: EntryUuid, after: Option<Csn>) -> Result<Vec<Arc<Change>>, Infallible> {
        let later = |change: &&Arc<Change>| after.is_none_or(|after| change.csn > after);
        Ok(self.history.get(&uuid).into_iter().flatten().filter(later).cloned().collect())
    }

    fn moves(&mut self, from: Csn) -> Result<Vec<Move>, Infallible> {
        Ok(self.moves.range(from..).map(|(_, made)| *made).collect())
    }

    fn deleted(&mut self, uuid: EntryUuid) -> Result<Option<(Csn, Option<Place>)>, Infallible> {
        Ok(self.deleted.get(&uuid).cloned())
    }

    fn add(&mut self, change: &Change, place: Option<&Place>, displaced: bool) -> Result<(), Infallible> {
        let (Operation::Add(request) | Operation::Put(request)) = &change.operation else { return Ok(()) };
        let mut attributes = BTreeMap::new();
        for attribute in &request.attributes {
            attributes.insert(attribute.atype.to_ascii_lowercase(), keyed(attribute.vals.clone()));
        }
        let (csn, place) = (change.csn, place.cloned());
        self.insert(change.uuid, Entry { csn, place, displaced, glue: false, created: csn, attributes });
        Ok(())
    }

    fn add_glue(
        &mut self,
        uuid: EntryUuid,
        csn: Csn,
        place: &Place,
        displaced: bool,
    ) -> Result<(), Infallible> {
        let (attributes, place) = (named_values(&place.rdn), Some(place.clone()));
        self.insert(uuid, Entry { csn, place, displaced, glue: true, created: csn, attributes });
        Ok(())
    }

    fn make_glue(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Infallible> {
        if let Some(entry) = self.entries.get_mut(&uuid) {
            entry.glue = true;
            entry.csn = csn;
            entry.created = csn;
            entry.attributes = entry.place.as_ref().map(|place| named_values(&place.rdn)).unwrap_or_default();
        }
        Ok(())
    }

    fn set(
        &mut self,
        uuid: EntryUuid,
        change: &Change,
        values: Vec<(String, Vec<Vec<u8>>)>,
    ) -> Result<(), Infallible> {
        let Some(entry) = self.entries.get_mut(&uuid) else { return Ok(()) };
        for (name, values) in values {
            let name = name.to_ascii_lowercase();
            match values.is_empty() {
                true => entry.attributes.remove(&name),
                false => entry.attributes.insert(name, keyed(values)),
            };
        }
        entry.csn = entry.csn.max(change.csn);
        Ok(())
    }

    fn name(&mut self, uuid: EntryUuid, place: &Place, displaced: bool) -> Result<(), Infallible> {
        if let Some(mut entry) = self.take(uuid) {
            for (name, values) in named_values(&place.rdn) {
                entry.attributes.entry(name).or_default().extend(values);
            }
            entry.place = Some(place.clone());
            entry.displaced = displaced;
            self.insert(uuid, entry);
        }
        Ok(())
    }

    fn remove(&mut self, uuid: EntryUuid) -> Result<(), Infallible> {
        assert!(!self.children.contains_key(&uuid), "an entry with children is removed");
        self.take(uuid);
        Ok(())
    }

    fn note_move(&mut self, made: Move) -> Result<(), Infallible> {
        self.moves.insert(made.csn, made);
        Ok(())
    }

    fn note_place(&mut self, uuid: EntryUuid, place: Place) -> Result<(), Infallible> {
        // The tombstone itself may come in the same step.
        let csn = self.deleted.get(&uuid).map(|(csn, _)| *csn);
        let placeholder = self.entries.get(&self.suffix).map(|entry| entry.created);
        if let Some(csn) = csn.or(placeholder) {
            self.deleted.insert(uuid, (csn, Some(place)));
        }
        Ok(())
    }

    fn note_lost(&mut self, lost: Lost) -> Result<(), Infallible> {
        self.lost.push(lost);
        Ok(())
    }
}

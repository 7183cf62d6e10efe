//! One database: entries, names, and what is remembered of the past.

mod comparing;
mod rules;

use ldap3_proto::proto::{LdapAddRequest, LdapPartialAttribute};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xmppsync_replica::merge::{Applied, apply, follow};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Move, Operation, Place, Vector, names};

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

/// The attribute of a state that tells when the entry was made.
const CREATED: &str = "createTimestamp";

/// More than any change takes: some mistakes in the rules would go round for ever.
const LOOKS_MAX: u32 = 100_000;

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
    /// The latest states of entries that were applied.
    states: BTreeMap<EntryUuid, Csn>,
    /// Changes that wait for an entry.
    waiting: BTreeMap<EntryUuid, Vec<Arc<Change>>>,
    lost: Vec<Lost>,
    /// The latest change that was forgotten.
    forgotten: Option<Csn>,
    /// Of what is earlier than this it is not known which later changes there are.
    horizon: Option<Csn>,
    /// Entries that may lack something, or have what should have lost.
    doubts: BTreeSet<EntryUuid>,
    /// Entries that were in doubt once.
    vague: BTreeSet<EntryUuid>,
    /// How often the rules may still look at an entry for this change.
    looks: u32,
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
            states: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lost: Vec::new(),
            forgotten: None,
            horizon: None,
            doubts: BTreeSet::new(),
            vague: BTreeSet::new(),
            looks: LOOKS_MAX,
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

    /// Whether a delete of the entry is known, and no later state.
    pub fn is_deleted(&self, uuid: EntryUuid) -> bool {
        self.deleted.get(&uuid).is_some_and(|(csn, _)| Some(csn) > self.states.get(&uuid))
    }

    /// Whether the entry is there for others only.
    pub(crate) fn is_glue(&self, uuid: EntryUuid) -> bool {
        self.entries.get(&uuid).is_some_and(|entry| entry.glue)
    }

    /// What had no effect, as far as that was noticed here.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Changes that wait for an entry to come.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Change>> {
        self.waiting.values().flatten()
    }

    /// The entry as it is, as a change.
    pub fn state(&self, uuid: EntryUuid) -> Option<Arc<Change>> {
        let entry = self.entries.get(&uuid)?;
        let attribute = |(name, values): (&String, &BTreeMap<_, Vec<u8>>)| LdapPartialAttribute {
            atype: name.clone(),
            vals: values.values().cloned().collect(),
        };
        let made = LdapPartialAttribute {
            atype: CREATED.to_owned(),
            vals: vec![entry.created.as_str().as_bytes().to_vec()],
        };
        let attributes = entry.attributes.iter().map(attribute).chain([made]).collect();
        let operation = Operation::Put(LdapAddRequest { dn: self.dn(uuid), attributes });
        let parent = entry.place.as_ref().map(|place| place.parent);
        Some(Arc::new(Change { csn: entry.csn, uuid, parent, operation }))
    }

    /// The journal has lost these changes of an entry, and has its state instead.
    pub fn merge(&mut self, changes: &[Csn], state: &Arc<Change>) {
        if let Some(history) = self.history.get_mut(&state.uuid) {
            history.retain(|change| !changes.contains(&change.csn));
        }
        self.moves.retain(|csn, _| !changes.contains(csn));
        if let Some(to) = state.parent {
            let (csn, child) = (state.csn, state.uuid);
            let from = self.parent_without(child, changes).or(Some(to));
            self.moves.insert(csn, Move { csn, child, from, to, made: true });
        }
        self.applied(state);
    }

    /// Where the entry was before these changes, as far as that is remembered.
    pub fn parent_without(&self, uuid: EntryUuid, changes: &[Csn]) -> Option<EntryUuid> {
        let is_other = |csn: &Csn| !changes.contains(csn);
        let moves = self.moves.values().rev();
        let moved = { moves }.find(|known| known.child == uuid && known.made && is_other(&known.csn));
        let is_add =
            |change: &&Arc<Change>| matches!(change.operation, Operation::Add(_)) && is_other(&change.csn);
        let add = || self.history.get(&uuid)?.iter().find(is_add);
        moved.map(|known| known.to).or_else(|| add()?.parent)
    }

    /// The latest change that was forgotten.
    pub fn forgotten(&self) -> Option<Csn> {
        self.forgotten
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
        self.looks = LOOKS_MAX;
        match apply(self, change).unwrap_or_else(|never| match never {}) {
            Applied::Done => self.applied(change),
            Applied::Waits(uuid) => {
                self.waiting.entry(uuid).or_default().push(Arc::clone(change));
            }
        }
    }

    /// A change that a client made here, which is carried out already.
    pub fn follow(&mut self, change: &Arc<Change>, from: Option<Place>) {
        self.looks = LOOKS_MAX;
        if let Some(from) = from {
            follow(self, change, from).unwrap_or_else(|never| match never {});
        }
        self.applied(change);
    }

    fn remember(&mut self, change: &Arc<Change>) {
        let history = self.history.entry(change.uuid).or_default();
        let at = history.partition_point(|known| known.csn < change.csn);
        if history.get(at).is_none_or(|known| known.csn != change.csn) {
            history.insert(at, Arc::clone(change));
        }
        if matches!(change.operation, Operation::Put(_)) {
            let state = self.states.entry(change.uuid).or_insert(change.csn);
            *state = change.csn.max(*state);
        }
    }

    fn applied(&mut self, change: &Arc<Change>) {
        self.remember(change);
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

    /// Forgets the changes up to here: nothing comes any more that is earlier than one of them. Returns how many.
    ///
    /// Kept is what tells of an entry's name: a value that was deleted and stays as long as it is the name goes with it, whenever
    /// that is; and all of an entry that has numbers which are incremented ([`is_counting`]).
    pub fn forget(&mut self, upto: &Vector) -> u64 {
        let mut count = 0;
        for (_, changes) in self.history.iter().filter(|(uuid, _)| !is_counting(**uuid)) {
            let last = changes.iter().rev().find(|change| upto.covers(change.csn));
            self.forgotten = self.forgotten.max(last.map(|change| change.csn));
        }
        let entries = &self.entries;
        self.history.retain(|uuid, changes| {
            if is_counting(*uuid) {
                return true;
            }
            let before = changes.len();
            let place = entries.get(uuid).and_then(|entry| entry.place.as_ref());
            let naming: Vec<String> = place
                .map(|place| names::avas(&place.rdn).into_iter().map(|(name, _)| name).collect())
                .unwrap_or_default();
            let modifies = |change: &Arc<Change>| match &change.operation {
                Operation::Modify(request) => request.changes.iter().any(|modify| {
                    naming.iter().any(|name| modify.modification.atype.eq_ignore_ascii_case(name))
                }),
                _ => false,
            };
            let names_change = changes.iter().any(modifies);
            let tells = |change: &Arc<Change>| {
                names_change && (modifies(change) || !matches!(change.operation, Operation::Modify(_)))
            };
            changes.retain(|change| !upto.covers(change.csn) || tells(change));
            count += (before - changes.len()) as u64;
            !changes.is_empty()
        });
        // Those that are kept are made again in their order, so none that is later than one of them is forgotten.
        let kept = self.moves.keys().find(|csn| !upto.covers(**csn)).copied();
        self.moves = kept.map(|kept| self.moves.split_off(&kept)).unwrap_or_default();
        count
    }

    /// Whether the change was applied, or waits, and was not forgotten.
    pub fn remembers(&self, change: &Change) -> bool {
        let is_it = |known: &Arc<Change>| known.csn == change.csn;
        let history = self.history.get(&change.uuid).into_iter().flatten();
        { history }.any(is_it) || self.waiting().any(is_it)
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
pub(crate) fn normal(attribute: &str, value: &[u8]) -> Vec<u8> {
    if is_unmatched(attribute) { value.to_vec() } else { value.to_ascii_lowercase() }
}

/// When an entry was made, as a state tells.
fn created(request: &LdapAddRequest) -> Option<Csn> {
    let found = request.attributes.iter().find(|attribute| attribute.atype == CREATED)?;
    Csn::parse(found.vals.first()?).ok()
}

pub(crate) fn keyed(attribute: &str, values: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    values.into_iter().map(|value| (normal(attribute, &value), value)).collect()
}

fn is_one_of(names: &[&str], attribute: &str) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(attribute))
}

/// Whether the attribute has no equality rule, in this model.
pub(crate) fn is_unmatched(attribute: &str) -> bool {
    is_one_of(&["jpegPhoto"], attribute)
}

/// Whether the values of the attribute are numbers, in this model.
pub(crate) fn is_number(attribute: &str) -> bool {
    is_one_of(&["uidNumber", "oncRpcNumber"], attribute)
}

/// Whether the entry may have an attribute with several numbers, in this model. It takes all that was done to one to tell what an
/// increment means.
pub(crate) fn is_counting(uuid: EntryUuid) -> bool {
    uuid.as_bytes().last().is_some_and(|last| last % 3 == 0)
}

/// Whether the values of the attribute have an order (X-ORDERED 'VALUES'), in this model.
pub(crate) fn is_ordered(attribute: &str) -> bool {
    is_one_of(&["olcAccess"], attribute)
}

/// Whether the attribute has at most one value, in this model.
pub(crate) fn is_single(attribute: &str) -> bool {
    is_one_of(&["uidNumber", "title"], attribute)
}

fn named_values(rdn: &str) -> BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>> {
    let avas = names::avas(rdn).into_iter();
    avas.map(|(name, value)| (name.to_ascii_lowercase(), keyed(&name, vec![value]))).collect()
}

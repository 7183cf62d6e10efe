//! What comparisons by states want to know of a database, and what they do to it.

use super::{Entry, LOOKS_MAX, Model, created, named_values};
use ldap3_proto::proto::LdapAddRequest;
use std::collections::BTreeSet;
use std::sync::Arc;
use xmppsync_replica::merge::{Applied, Past, learn, make_again, take, take_glue};
use xmppsync_replica::{Change, Csn, EntryUuid, Fingerprint, Known, Operation, Place, Side, Sides};

impl Model {
    /// What a comparison wants to know of an entry.
    pub(crate) fn known(&self, uuid: EntryUuid) -> Known {
        let entry = self.entries.get(&uuid);
        let (glue, entry) = (entry.filter(|entry| entry.glue), entry.filter(|entry| !entry.glue));
        let print = |entry: &Entry| {
            let values = entry.attributes.iter();
            let values = values.map(|(name, all)| (name.clone(), all.values().cloned().collect())).collect();
            let place = entry.place.as_ref();
            let (parent, rdn) = (place.map(|place| place.parent), place.map_or("", |place| &place.rdn));
            (entry.csn, Fingerprint::new(parent, rdn, &values))
        };
        let changes = self.history.get(&uuid).into_iter().flatten().map(|change| change.csn);
        let deleted = self.deleted.get(&uuid).filter(|_| entry.is_none() && self.is_deleted(uuid));
        // Where glue would be tells as much.
        let would_be = |(csn, place): &(Csn, Option<Place>)| {
            let Place { parent, rdn } = place.as_ref()?;
            let values = named_values(rdn).into_iter();
            let values = values.map(|(name, all)| (name, all.into_values().collect())).collect();
            Some((*csn, Fingerprint::new(Some(*parent), rdn, &values)))
        };
        Known {
            entry: entry.map(print),
            glue: glue.map(print).or(deleted.and_then(would_be)),
            tombstone: self.deleted.get(&uuid).map(|(csn, _)| *csn).filter(|_| self.is_deleted(uuid)),
            changes: changes.collect(),
            has_many: false,
            waiting: self.waiting().filter(|change| change.uuid == uuid).map(|change| change.csn).collect(),
            refused: false,
            in_doubt: self.doubts.contains(&uuid) || self.waiting.contains_key(&uuid),
        }
    }

    /// Makes an entry as it is at another replica, if that can be done now.
    pub(crate) fn take_state(&mut self, state: &Change, is_glue: bool, other: &Model, there: &Side) -> bool {
        self.looks = LOOKS_MAX;
        let is_forgotten =
            |csn| !other.moves.contains_key(&csn) && there.seen.covers(csn) && there.floor.covers(csn);
        let is_known = |csn| other.moves.contains_key(&csn);
        let past = Past { is_forgotten: &is_forgotten, is_known: &is_known };
        if is_glue {
            if let Some((csn, _)) = self.deleted.get_mut(&state.uuid) {
                *csn = state.csn.max(*csn);
            }
            return take_glue(self, state, past).unwrap_or_else(|never| match never {}) == Applied::Done;
        }
        let taken = take(self, state, past).unwrap_or_else(|never| match never {}) == Applied::Done;
        if let (true, Operation::Put(request), Some(entry)) =
            (taken, &state.operation, self.entries.get_mut(&state.uuid))
        {
            entry.created = created(request).unwrap_or(entry.created);
            self.deleted.remove(&state.uuid);
            self.release(state.uuid);
        }
        taken
    }

    /// What is to be told of an entry whose state is taken: also of a deleted one where it would be.
    pub(crate) fn told(&self, uuid: EntryUuid) -> Option<Arc<Change>> {
        if let Some((csn, Some(place))) =
            self.deleted.get(&uuid).filter(|_| !self.entries.contains_key(&uuid))
        {
            let operation =
                Operation::Put(LdapAddRequest { dn: format!("{},", place.rdn), attributes: Vec::new() });
            return Some(Arc::new(Change { csn: *csn, uuid, parent: Some(place.parent), operation }));
        }
        self.state(uuid)
    }

    /// Makes these changes of an entry again, whose state was taken.
    pub(crate) fn make_again(&mut self, again: &[Arc<Change>], state: &Change) {
        for change in again {
            self.looks = LOOKS_MAX;
            match make_again(self, change, state, again).unwrap_or_else(|never| match never {}) {
                Applied::Done => self.applied(change),
                Applied::Waits(uuid) => self.waiting.entry(uuid).or_default().push(Arc::clone(change)),
            }
        }
    }

    /// What is in the entry, as far as that is remembered.
    pub(crate) fn history(&self, uuid: EntryUuid) -> &[Arc<Change>] {
        self.history.get(&uuid).map_or(&[], Vec::as_slice)
    }

    /// As [`history`](Self::history), and what waits.
    pub(crate) fn remembered(&self, uuid: EntryUuid) -> impl Iterator<Item = &Arc<Change>> {
        self.history(uuid).iter().chain(self.waiting().filter(move |change| change.uuid == uuid))
    }

    /// These changes are in their entries.
    pub(crate) fn remember_all(&mut self, changes: &[Arc<Change>]) {
        changes.iter().for_each(|change| self.remember(change));
    }

    /// Learns of the moves that another one knows.
    pub(crate) fn learn_moves(&mut self, other: &Model, sides: &Sides) {
        self.looks = LOOKS_MAX;
        for known in other.moves.values().filter(|known| sides.is_new(known.csn)) {
            learn(self, known).unwrap_or_else(|never| match never {});
        }
    }

    /// Learns of deleted entries, and returns the deletes.
    pub(crate) fn learn_deleted(&mut self, other: &Model) -> Vec<Csn> {
        let mut learned = Vec::new();
        for (uuid, (csn, place)) in other.deleted.iter().filter(|(uuid, _)| other.is_deleted(**uuid)) {
            let own = self.deleted.get(uuid);
            // Of glue it may not be known either where it was when it was deleted.
            let is_there = self.entries.get(uuid).is_some_and(|entry| !entry.glue);
            if is_there || own.is_some_and(|(_, place)| place.is_some()) {
                continue;
            }
            // Glue is where it would be by all that is known.
            let glue = other.entries.get(uuid).and_then(|glue| glue.place.clone());
            learned.push(*csn);
            if let Some(place) = glue.or(place.clone()) {
                let csn = own.map_or(*csn, |(known, _)| *csn.max(known));
                self.deleted.insert(*uuid, (csn, Some(place)));
                self.release(*uuid);
            } else if own.is_none() {
                self.deleted.insert(*uuid, (*csn, None));
                self.release(*uuid);
            }
        }
        learned
    }

    /// Makes the changes that wait for the entry.
    fn release(&mut self, uuid: EntryUuid) {
        let mut waiting = self.waiting.remove(&uuid).unwrap_or_default();
        waiting.sort_by_key(|change| change.csn);
        waiting.iter().for_each(|change| self.apply(change));
    }

    /// Entries that are, or were, in doubt.
    pub(crate) fn vague(&self) -> &BTreeSet<EntryUuid> {
        &self.vague
    }

    /// What the entry is like is a guess.
    pub(crate) fn note_guess(&mut self, uuid: EntryUuid) {
        self.vague.insert(uuid);
    }

    /// Entries that are in doubt, or that changes wait for, or whose changes wait.
    pub(crate) fn asked_for(&self) -> BTreeSet<EntryUuid> {
        let waiting = self.waiting().map(|change| change.uuid);
        self.doubts.iter().chain(self.waiting.keys()).copied().chain(waiting).collect()
    }

    /// Notes whether an entry is in doubt.
    pub(crate) fn set_doubt(&mut self, uuid: EntryUuid, in_doubt: bool) {
        if in_doubt {
            self.vague.insert(uuid);
            self.doubts.insert(uuid);
        } else {
            self.doubts.remove(&uuid);
        }
    }

    /// What is earlier may have been changed later without that being known.
    pub(crate) fn reached(&mut self, csn: Csn) {
        self.horizon = self.horizon.max(Some(csn));
    }

    /// A database that was loaded comes without the changes that made it so.
    pub(crate) fn forget_history(&mut self) {
        self.history.clear();
    }
}

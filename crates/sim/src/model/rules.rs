//! The database as the rules see it.

use super::{CREATED, Entry, Model, created, is_single, key, keyed, named_values, normal};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use xmppsync_replica::merge::{Attributes, Node, Schema, Tree};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Move, Operation, Place};

impl Schema for Model {
    type Error = Infallible;

    fn is_single(&mut self, attribute: &str) -> Result<bool, Infallible> {
        Ok(is_single(attribute))
    }

    fn normalize(&mut self, attribute: &str, value: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(normal(attribute, value))
    }
}

impl Tree for Model {
    fn node(&mut self, uuid: EntryUuid) -> Result<Option<Node>, Infallible> {
        self.looks = self.looks.saturating_sub(1);
        assert!(self.looks > 0, "the rules do not come to an end");
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

    fn attributes(&mut self, uuid: EntryUuid) -> Result<Attributes, Infallible> {
        let Some(entry) = self.entries.get(&uuid) else { return Ok(Vec::new()) };
        let values = |values: &BTreeMap<Vec<u8>, Vec<u8>>| values.values().cloned().collect();
        Ok(entry.attributes.iter().map(|(name, all)| (name.clone(), values(all))).collect())
    }

    fn later(&mut self, uuid: EntryUuid, after: Option<Csn>) -> Result<Vec<Arc<Change>>, Infallible> {
        let later = |change: &&Arc<Change>| after.is_none_or(|after| change.csn > after);
        Ok(self.history.get(&uuid).into_iter().flatten().filter(later).cloned().collect())
    }

    fn horizon(&mut self) -> Result<Option<Csn>, Infallible> {
        Ok(self.horizon)
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
        for attribute in request.attributes.iter().filter(|attribute| attribute.atype != CREATED) {
            let values = keyed(&attribute.atype, attribute.vals.clone());
            attributes.insert(attribute.atype.to_ascii_lowercase(), values);
        }
        // It may be there as glue.
        self.take(change.uuid);
        let (csn, place, created) = (change.csn, place.cloned(), created(request).unwrap_or(change.csn));
        self.insert(change.uuid, Entry { csn, place, displaced, glue: false, created, attributes });
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
        for (name, values) in values.into_iter().filter(|(name, _)| name != CREATED) {
            let name = name.to_ascii_lowercase();
            match values.is_empty() {
                true => entry.attributes.remove(&name),
                false => entry.attributes.insert(name.clone(), keyed(&name, values)),
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

    fn note_doubt(&mut self, uuid: EntryUuid) -> Result<(), Infallible> {
        self.set_doubt(uuid, true);
        Ok(())
    }

    fn note_lost(&mut self, lost: Lost) -> Result<(), Infallible> {
        self.lost.push(lost);
        Ok(())
    }
}

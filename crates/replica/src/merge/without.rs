//! A tree of which some changes are not known yet.

use super::tree::{Attributes, Node, Schema, Tree};
use super::{Lost, Move, Place};
use crate::{Change, Csn, EntryUuid};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The tree, without these changes among those that are known.
pub(crate) struct Without<'a, T> {
    pub(crate) tree: &'a mut T,
    pub(crate) hidden: BTreeSet<Csn>,
}

impl<T: Tree> Schema for Without<'_, T> {
    type Error = T::Error;

    fn is_single(&mut self, attribute: &str) -> Result<bool, T::Error> {
        self.tree.is_single(attribute)
    }

    fn normalize(&mut self, attribute: &str, value: &[u8]) -> Result<Vec<u8>, T::Error> {
        self.tree.normalize(attribute, value)
    }
}

impl<T: Tree> Tree for Without<'_, T> {
    fn node(&mut self, uuid: EntryUuid) -> Result<Option<Node>, T::Error> {
        self.tree.node(uuid)
    }

    fn holder(&mut self, place: &Place) -> Result<Option<EntryUuid>, T::Error> {
        self.tree.holder(place)
    }

    fn displaced(&mut self, place: &Place) -> Result<Vec<EntryUuid>, T::Error> {
        self.tree.displaced(place)
    }

    fn has_children(&mut self, uuid: EntryUuid) -> Result<bool, T::Error> {
        self.tree.has_children(uuid)
    }

    fn attributes(&mut self, uuid: EntryUuid) -> Result<Attributes, T::Error> {
        self.tree.attributes(uuid)
    }

    fn later(&mut self, uuid: EntryUuid, after: Option<Csn>) -> Result<Vec<Arc<Change>>, T::Error> {
        let mut later = self.tree.later(uuid, after)?;
        later.retain(|change| !self.hidden.contains(&change.csn));
        Ok(later)
    }

    fn horizon(&mut self) -> Result<Option<Csn>, T::Error> {
        self.tree.horizon()
    }

    fn moves(&mut self, from: Csn) -> Result<Vec<Move>, T::Error> {
        self.tree.moves(from)
    }

    fn deleted(&mut self, uuid: EntryUuid) -> Result<Option<(Csn, Option<Place>)>, T::Error> {
        self.tree.deleted(uuid)
    }

    fn add(&mut self, change: &Change, place: Option<&Place>, displaced: bool) -> Result<(), T::Error> {
        self.tree.add(change, place, displaced)
    }

    fn add_glue(
        &mut self,
        uuid: EntryUuid,
        csn: Csn,
        place: &Place,
        displaced: bool,
    ) -> Result<(), T::Error> {
        self.tree.add_glue(uuid, csn, place, displaced)
    }

    fn make_glue(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), T::Error> {
        self.tree.make_glue(uuid, csn)
    }

    fn set(&mut self, uuid: EntryUuid, change: &Change, values: Attributes) -> Result<(), T::Error> {
        self.tree.set(uuid, change, values)
    }

    fn name(&mut self, uuid: EntryUuid, place: &Place, displaced: bool) -> Result<(), T::Error> {
        self.tree.name(uuid, place, displaced)
    }

    fn remove(&mut self, uuid: EntryUuid) -> Result<(), T::Error> {
        self.tree.remove(uuid)
    }

    fn note_move(&mut self, made: Move) -> Result<(), T::Error> {
        self.tree.note_move(made)
    }

    fn note_place(&mut self, uuid: EntryUuid, place: Place) -> Result<(), T::Error> {
        self.tree.note_place(uuid, place)
    }

    fn note_doubt(&mut self, uuid: EntryUuid) -> Result<(), T::Error> {
        self.tree.note_doubt(uuid)
    }

    fn note_lost(&mut self, lost: Lost) -> Result<(), T::Error> {
        self.tree.note_lost(lost)
    }
}

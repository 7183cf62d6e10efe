//! Moves in the order of their CSNs, however they come (Kleppmann et al., "A highly-available move operation for replicated
//! trees"): the later ones are undone, the one that comes is made, and the later ones are made again.

use super::Move;
use super::placing::place_of_delete;
use super::tree::Tree;
use crate::mutation::{self, Mutation};
use crate::{Csn, EntryUuid};
use std::collections::{BTreeMap, BTreeSet};

/// What a move leads to.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Entries with another parent than before, and that.
    pub(crate) parents: BTreeMap<EntryUuid, EntryUuid>,
    /// The moves that fell away, or did not any more, or have come.
    pub(crate) log: Vec<Move>,
}

/// The tree as it would be. An entry that is deleted has its place in it too.
struct Overlay<'a, T> {
    tree: &'a mut T,
    parents: BTreeMap<EntryUuid, Option<EntryUuid>>,
}

impl<T: Tree> Overlay<'_, T> {
    fn parent(&mut self, uuid: EntryUuid) -> Result<Option<EntryUuid>, T::Error> {
        match self.parents.get(&uuid) {
            Some(parent) => Ok(*parent),
            None => parent(self.tree, uuid),
        }
    }

    fn make(&mut self, mut this: Move) -> Result<Move, T::Error> {
        this.from = self.parent(this.child)?;
        this.made =
            mutation::is(Mutation::CycleAllowed) || !is_within(self, this.to, this.child, Self::parent)?;
        if this.made {
            self.parents.insert(this.child, Some(this.to));
        }
        Ok(this)
    }
}

/// Whether `below` is `above`, or somewhere below it.
pub(crate) fn is_within<C, E>(
    context: &mut C,
    below: EntryUuid,
    above: EntryUuid,
    parent: impl Fn(&mut C, EntryUuid) -> Result<Option<EntryUuid>, E>,
) -> Result<bool, E> {
    // Should deleted entries be below one another, that ends as well.
    let mut seen = BTreeSet::new();
    let mut at = Some(below);
    while let Some(uuid) = at.filter(|uuid| seen.insert(*uuid)) {
        if uuid == above {
            return Ok(true);
        }
        at = parent(context, uuid)?;
    }
    Ok(false)
}

/// The entry's parent, whether or not the entry is there.
pub(crate) fn parent<T: Tree>(tree: &mut T, uuid: EntryUuid) -> Result<Option<EntryUuid>, T::Error> {
    if let Some(node) = tree.node(uuid)? {
        return Ok(node.place.map(|place| place.parent));
    }
    let place = match tree.deleted(uuid)? {
        Some((_, None)) => place_of_delete(tree, uuid)?,
        Some((_, known)) => known,
        None => None,
    };
    Ok(place.map(|place| place.parent))
}

/// Works out what the move of `child` below `to` leads to.
pub(crate) fn work_out<T: Tree>(
    tree: &mut T,
    csn: Csn,
    child: EntryUuid,
    to: EntryUuid,
) -> Result<Moved, T::Error> {
    let mut known = tree.moves(csn)?;
    if mutation::is(Mutation::MovesNotRedone) {
        known.clear();
    }
    let mut overlay = Overlay { tree, parents: BTreeMap::new() };
    for undone in known.iter().rev().filter(|known| known.made) {
        overlay.parents.insert(undone.child, undone.from);
    }
    let mut log = vec![overlay.make(Move { csn, child, from: None, to, made: false })?];
    for again in known.into_iter().filter(|known| known.csn != csn) {
        let made = overlay.make(again)?;
        if made != again {
            log.push(made);
        }
    }
    let Overlay { tree, parents } = overlay;
    let mut moved = Moved { log, ..Moved::default() };
    for (uuid, now) in parents {
        if let Some(now) = now
            && parent(tree, uuid)? != Some(now)
        {
            moved.parents.insert(uuid, now);
        }
    }
    Ok(moved)
}

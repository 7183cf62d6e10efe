//! Moves in the order of their CSNs, however they come (Kleppmann et al., "A highly-available move operation for replicated
//! trees"): the later ones are undone, the one that comes is made, and the later ones are made again.

use super::Move;
use super::placing::place_of_delete;
use super::take::Past;
use super::tree::Tree;
use crate::mutation::{self, Mutation};
use crate::{Csn, EntryUuid, ServerId};
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
    /// What the tree said: each of thousands of moves asks for all that is above it.
    asked: BTreeMap<EntryUuid, Option<EntryUuid>>,
}

impl<'a, T: Tree> Overlay<'a, T> {
    /// The tree as it was before the moves.
    fn before(tree: &'a mut T, moves: &[Move]) -> Overlay<'a, T> {
        let made = moves.iter().rev().filter(|known| known.made);
        let parents = made.map(|undone| (undone.child, undone.from)).collect();
        Overlay { tree, parents, asked: BTreeMap::new() }
    }

    fn parent(&mut self, uuid: EntryUuid) -> Result<Option<EntryUuid>, T::Error> {
        match self.parents.get(&uuid) {
            Some(parent) => Ok(*parent),
            None => self.parent_there(uuid),
        }
    }

    /// In the tree as it is.
    fn parent_there(&mut self, uuid: EntryUuid) -> Result<Option<EntryUuid>, T::Error> {
        if let Some(parent) = self.asked.get(&uuid) {
            return Ok(*parent);
        }
        let parent = parent(self.tree, uuid)?;
        self.asked.insert(uuid, parent);
        Ok(parent)
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

    fn end(mut self, log: Vec<Move>) -> Result<Moved, T::Error> {
        let mut moved = Moved { log, ..Moved::default() };
        for (uuid, now) in std::mem::take(&mut self.parents) {
            if let Some(now) = now
                && self.parent_there(uuid)? != Some(now)
            {
                moved.parents.insert(uuid, now);
            }
        }
        Ok(moved)
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
    let mut overlay = Overlay::before(tree, &known);
    let mut log = vec![overlay.make(Move { csn, child, from: None, to, made: false })?];
    for again in known.into_iter().filter(|known| known.csn != csn) {
        let made = overlay.make(again)?;
        if made != again {
            log.push(made);
        }
    }
    overlay.end(log)
}

/// Works out what it means that `child` was below `base` before the moves that are known, unless one of them tells of that place. Where
/// the other one, at which it is below `base`, knows all of its moves, it is there, unless a move of another entry that the other one does not
/// know is in the way. `None`: something would be below itself.
pub(crate) fn rebase<T: Tree>(
    tree: &mut T,
    child: EntryUuid,
    base: EntryUuid,
    past: Past<'_>,
) -> Result<Option<Moved>, T::Error> {
    let known = tree.moves(Csn::from_parts(0, 0, 0, ServerId::NONE))?;
    let is_before = |known: &Move| (past.is_forgotten)(known.csn);
    let is_told = |known: &Move| known.child == child && known.to == base && !is_before(known);
    let is_told = known.iter().any(is_told);
    let is_known = |known: &&Move| (past.is_known)(known.csn) || is_before(known);
    let is_all_known = known.iter().all(|known| is_known(&known));
    let are_its_own = known.iter().filter(|known| known.child == child).all(|known| is_known(&known));
    let superseded = |known: &Move| !is_told && is_before(known);
    let moved = redo(tree, &known, (child, base), (!is_told, &superseded))?;
    match moved {
        Some((moved, parent)) if parent == Some(base) || !are_its_own => Ok(Some(moved)),
        None if !are_its_own => Ok(None),
        // What either side has forgotten was not the same.
        moved => {
            let there = redo(tree, &known, (child, base), (true, &|_| true))?;
            Ok(there.or(moved.filter(|_| !is_all_known)).map(|(moved, _)| moved))
        }
    }
}

/// Makes all moves again, `child` below `base` at first if that `is_base`, with the moves of it that are `superseded` going there as well.
fn redo<T: Tree>(
    tree: &mut T,
    known: &[Move],
    (child, base): (EntryUuid, EntryUuid),
    (is_base, superseded): (bool, &dyn Fn(&Move) -> bool),
) -> Result<Option<(Moved, Option<EntryUuid>)>, T::Error> {
    let mut overlay = Overlay::before(tree, known);
    if is_base {
        overlay.parents.insert(child, Some(base));
    }
    let mut log = Vec::new();
    for before in known {
        let mut again = *before;
        if again.child == child && superseded(&again) {
            again.to = base;
        }
        let made = overlay.make(again)?;
        if made != *before {
            log.push(made);
        }
    }
    for uuid in overlay.parents.keys().copied().collect::<Vec<_>>() {
        let above = overlay.parent(uuid)?;
        if let Some(above) = above
            && is_within(&mut overlay, above, uuid, Overlay::parent)?
        {
            return Ok(None);
        }
    }
    let parent = overlay.parent(child)?;
    Ok(Some((overlay.end(log)?, parent)))
}

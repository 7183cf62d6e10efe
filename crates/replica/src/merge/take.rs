//! A state that is taken as a whole.

use super::apply::{Applied, apply, rename, set_state};
use super::naming::{carry_out, lacking, move_all, relocate};
use super::placing::{settle, stand_in, unglue};
use super::tree::Tree;
use super::without::Without;
use super::{Move, Place, moves};
use crate::mutation::{self, Mutation};
use crate::{Change, Csn, EntryUuid, Operation, names};
use std::sync::Arc;

/// What a state of the other replica has in it.
#[derive(Clone, Copy)]
pub struct Past<'a> {
    /// Whether it has in it the move of the entry with this CSN without remembering it, so that its place tells of it.
    pub is_forgotten: &'a dyn Fn(Csn) -> bool,
    /// Whether the move with this CSN, of any entry, is in the other one's log of moves.
    pub is_known: &'a dyn Fn(Csn) -> bool,
}

/// Makes an entry as it is at another replica ([`Judgement::Take`](crate::Judgement::Take)), but for what is known here to be later. It is no
/// change of the entry: what else is known of its past counts on. The moves that the other one knows are to be learned before ([`learn`]),
/// and what it has not seen is to be made again afterwards ([`make_again`]).
///
/// # Errors
/// The database's. Nothing is to be kept of the transaction then.
pub fn take<T: Tree>(tree: &mut T, state: &Change, past: Past<'_>) -> Result<Applied, T::Error> {
    let uuid = state.uuid;
    let Some(place) = place(state) else {
        match tree.node(uuid)? {
            Some(node) => set_state(tree, state, &node)?,
            None => tree.add(state, None, false)?,
        }
        return Ok(Applied::Done);
    };
    let place = match go(tree, state, place, past)? {
        Ok(place) => place,
        Err(missing) => return Ok(Applied::Waits(missing)),
    };
    match tree.node(uuid)? {
        Some(node) if !node.glue => set_state(tree, state, &node)?,
        _ => {
            let taken = tree.holder(&place)?.is_some_and(|holder| holder != uuid);
            tree.add(state, Some(&place), taken)?;
            if taken {
                settle(tree, &place)?;
            }
        }
    }
    Ok(Applied::Done)
}

/// Makes a change of the entry again that the other one has not seen, whose state was taken. `again`: all of these.
///
/// # Errors
/// As [`take`].
pub fn make_again<T: Tree>(
    tree: &mut T,
    change: &Change,
    state: &Change,
    again: &[Arc<Change>],
) -> Result<Applied, T::Error> {
    if mutation::is(Mutation::NotMadeAgain) {
        return Ok(Applied::Done);
    }
    let is_later = change.csn > state.csn;
    let to_come = again.iter().map(|other| other.csn).filter(|csn| *csn > change.csn && *csn < state.csn);
    let mut tree = Without { hidden: to_come.collect(), tree };
    match (&change.operation, tree.node(change.uuid)?) {
        // It was known to be later when the state was taken.
        (Operation::Modify(_), Some(node)) if is_later && !node.glue => Ok(Applied::Done),
        (Operation::ModifyDn { .. }, Some(node)) => {
            // What the state has in it is before all that it has not.
            let first = again.iter().map(|other| other.csn).chain([state.csn]).min();
            let before = Change { csn: first.unwrap_or(state.csn), ..state.clone() };
            rename(&mut tree, change, node, Some(&before))
        }
        _ => apply(&mut tree, change),
    }
}

/// Gives an entry that is deleted on both sides the place that it has at the other replica.
///
/// # Errors
/// As [`take`].
pub fn take_glue<T: Tree>(tree: &mut T, state: &Change, past: Past<'_>) -> Result<Applied, T::Error> {
    let Some(place) = place(state) else { return Ok(Applied::Done) };
    match tree.node(state.uuid)? {
        Some(node) if node.glue => {}
        // It was brought back.
        Some(_) => return Ok(Applied::Done),
        None => {
            tree.note_place(state.uuid, place)?;
            return Ok(Applied::Done);
        }
    }
    if let Err(missing) = go(tree, state, place, past)? {
        return Ok(Applied::Waits(missing));
    }
    let known = tree.node(state.uuid)?.and_then(|node| node.csn);
    tree.make_glue(state.uuid, known.map_or(state.csn, |known| known.max(state.csn)))?;
    Ok(Applied::Done)
}

fn place(state: &Change) -> Option<Place> {
    let rdn = names::intended(&names::rdn(state.operation.dn())).into_owned();
    state.parent.map(|parent| Place { parent, rdn })
}

/// Returns where the entry is to be by all that is known, unless an entry has to come before, of which nothing is known.
///
/// Its parent is what the moves say that are known. What the other one has forgotten of them is before those.
fn go<T: Tree>(
    tree: &mut T,
    state: &Change,
    mut place: Place,
    past: Past<'_>,
) -> Result<Result<Place, EntryUuid>, T::Error> {
    let uuid = state.uuid;
    if let Some(missing) = stand_in(tree, place.parent)? {
        return Ok(Err(missing));
    }
    let to = place.parent;
    if let Some(node) = tree.node(uuid)?
        && node.place.is_some_and(|now| now.parent != to)
    {
        let Some(moved) = moves::rebase(tree, uuid, to, past)? else {
            unglue(tree, to)?;
            return Ok(Err(uuid));
        };
        carry_out(tree, moved)?;
    }
    if let Some(now) = tree.node(uuid)?.and_then(|node| node.place) {
        place.parent = now.parent;
        relocate(tree, uuid, place.clone())?;
        unglue(tree, to)?;
    }
    Ok(Ok(place))
}

/// Learns of a move that another replica knows. Where what it moves, or where it goes, is not here yet, it is noted as it is there: it counts as
/// soon as the states are taken ([`take`]).
///
/// # Errors
/// As [`take`].
pub fn learn<T: Tree>(tree: &mut T, known: &Move) -> Result<(), T::Error> {
    if tree.moves(known.csn)?.first().is_some_and(|first| first.csn == known.csn) {
        return Ok(());
    }
    let change = Change {
        csn: known.csn,
        uuid: known.child,
        parent: Some(known.to),
        operation: Operation::Delete { dn: String::new() },
    };
    let is_here = tree.node(known.child)?.is_some() || tree.deleted(known.child)?.is_some();
    let led = match is_here && stand_in(tree, known.to)?.is_none() {
        true => Some(moves::work_out(tree, change.csn, change.uuid, known.to)?),
        false => None,
    };
    match led {
        Some(led) if lacking(tree, &led)?.is_none() => move_all(tree, &change, led)?,
        _ => tree.note_move(*known)?,
    }
    unglue(tree, known.to)
}

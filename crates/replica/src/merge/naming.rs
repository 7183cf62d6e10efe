//! Where an entry is: its RDN by the latest rename, its parent by all moves in their order.

use super::Place;
use super::history::{History, doubt, history};
use super::moves::{self, Moved};
use super::placing::{settle, stand_in, unglue};
use super::tree::{Node, Tree, lose};
use crate::mutation::{self, Mutation};
use crate::{Change, Csn, EntryUuid, Lost, Operation, ServerId, names};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether a rename of the entry is known that is later.
pub(crate) fn is_renamed<T: Tree>(tree: &mut T, change: &Change) -> Result<bool, T::Error> {
    Ok(!later_renames(tree, change)?.is_empty())
}

/// The first rename of each server that is later.
fn later_renames<T: Tree>(tree: &mut T, change: &Change) -> Result<BTreeMap<ServerId, Csn>, T::Error> {
    let mut first = BTreeMap::new();
    if mutation::is(Mutation::RenameOutOfOrder) {
        return Ok(first);
    }
    let renames = |later: &&Arc<Change>| match &later.operation {
        Operation::ModifyDn { request, .. } => names::new_rdn(&request.dn, &request.newrdn).is_some(),
        Operation::Put(_) => true,
        _ => false,
    };
    let History { later, unknown } = match tree.node(change.uuid)? {
        Some(node) if !node.glue => history(tree, change, &node)?,
        _ => {
            doubt(tree, change)?;
            History { later: tree.later(change.uuid, Some(change.csn))?, unknown: None }
        }
    };
    for csn in later.iter().filter(renames).map(|later| later.csn).chain(unknown) {
        first.entry(csn.server_id()).or_insert(csn);
    }
    Ok(first)
}

/// Gives an entry its new RDN and parent, unless later changes did. Returns the parent if nothing is known of that.
pub(crate) fn go<T: Tree>(
    tree: &mut T,
    change: &Change,
    node: &Node,
    to: Option<EntryUuid>,
    rdn: Option<String>,
) -> Result<Option<EntryUuid>, T::Error> {
    let Some(place) = &node.place else { return Ok(None) };
    let mut moved = None;
    if let Some(to) = to {
        if let Some(missing) = stand_in(tree, to)? {
            return Ok(Some(missing));
        }
        let led = moves::work_out(tree, change.csn, change.uuid, to)?;
        if let Some(missing) = lacking(tree, &led)? {
            unglue(tree, to)?;
            return Ok(Some(missing));
        }
        // Where there are no transactions, a client may move something while the entry is renamed: then it is worked out anew.
        moved = Some(led).filter(|_| rdn.is_none());
    }
    if let Some(rdn) = rdn {
        let later = later_renames(tree, change)?;
        if later.is_empty() {
            relocate(tree, change.uuid, Place { rdn: rdn.clone(), ..place.clone() })?;
        }
        for against in later.into_values() {
            lose(tree, change, against, Lost::NAME, vec![rdn.clone().into_bytes()])?;
        }
    }
    if let Some(to) = to {
        match moved {
            Some(moved) => move_all(tree, change, moved)?,
            None => move_below(tree, change, to)?,
        }
        // It may have been made for a move that fell away.
        unglue(tree, to)?;
    }
    Ok(None)
}

/// An entry of which nothing is known yet, and below which the moves send one that is there: because of one of them a later move
/// falls away.
pub(crate) fn lacking<T: Tree>(tree: &mut T, moved: &Moved) -> Result<Option<EntryUuid>, T::Error> {
    for (uuid, parent) in &moved.parents {
        if tree.node(*uuid)?.is_none() {
            continue;
        }
        let mut seen = BTreeSet::new();
        let mut at = *parent;
        while seen.insert(at) && tree.node(at)?.is_none() {
            let above = match moved.parents.get(&at) {
                Some(above) => Some(*above),
                None => moves::parent(tree, at)?,
            };
            let Some(above) = above else { return Ok(Some(at)) };
            at = above;
        }
    }
    Ok(None)
}

pub(crate) fn move_below<T: Tree>(tree: &mut T, change: &Change, to: EntryUuid) -> Result<(), T::Error> {
    let moved = moves::work_out(tree, change.csn, change.uuid, to)?;
    move_all(tree, change, moved)
}

/// Makes the moves that the change led to; of each that fell away for it, the name is lost.
pub(crate) fn move_all<T: Tree>(tree: &mut T, change: &Change, moved: Moved) -> Result<(), T::Error> {
    for noted in moved.log {
        if !noted.made {
            lose(
                tree,
                &Change { csn: noted.csn, uuid: noted.child, ..change.clone() },
                change.csn,
                Lost::NAME,
                vec![noted.to.to_string().into_bytes()],
            )?;
        }
        tree.note_move(noted)?;
    }
    relocate_all(tree, moved.parents)
}

/// Notes the moves, and brings the entries where they go.
pub(crate) fn carry_out<T: Tree>(tree: &mut T, moved: Moved) -> Result<(), T::Error> {
    moved.log.into_iter().try_for_each(|noted| tree.note_move(noted))?;
    relocate_all(tree, moved.parents)
}

fn relocate_all<T: Tree>(tree: &mut T, parents: BTreeMap<EntryUuid, EntryUuid>) -> Result<(), T::Error> {
    // From the top down: whoever goes below another one finds it where it is to be.
    let mut left: Vec<(EntryUuid, EntryUuid)> = parents.into_iter().collect();
    while !left.is_empty() {
        let ready = |(_, to): &(EntryUuid, EntryUuid)| !left.iter().any(|(other, _)| other == to);
        let at = left.iter().position(ready).unwrap_or(0);
        let at = first_free(tree, &left, at)?;
        let (uuid, parent) = left.remove(at);
        match tree.node(uuid)? {
            Some(Node { place: Some(place), .. }) => {
                relocate(tree, uuid, Place { parent, ..place })?;
            }
            Some(_) => {}
            None => {
                if let Some((_, Some(place))) = tree.deleted(uuid)? {
                    tree.note_place(uuid, Place { parent, ..place })?;
                }
            }
        }
    }
    Ok(())
}

/// [`go`] for an entry that is not there: should it come back as glue, it is in the right place.
pub(crate) fn go_deleted<T: Tree>(
    tree: &mut T,
    change: &Change,
    place: Place,
    to: Option<EntryUuid>,
    rdn: Option<String>,
) -> Result<Option<EntryUuid>, T::Error> {
    if let Some(to) = to
        && tree.node(to)?.is_none()
        && tree.deleted(to)?.is_none_or(|(_, place)| place.is_none())
    {
        return Ok(Some(to));
    }
    if let Some(to) = to {
        let moved = moves::work_out(tree, change.csn, change.uuid, to)?;
        if let Some(missing) = lacking(tree, &moved)? {
            return Ok(Some(missing));
        }
    }
    if let Some(rdn) = rdn
        && !is_renamed(tree, change)?
    {
        tree.note_place(change.uuid, Place { rdn, ..place })?;
    }
    if let Some(to) = to {
        move_below(tree, change, to)?;
    }
    Ok(None)
}

/// One of them whose new parent is, for now, not below itself. A parent that is deleted would come back where it was.
fn first_free<T: Tree>(
    tree: &mut T,
    left: &[(EntryUuid, EntryUuid)],
    start: usize,
) -> Result<usize, T::Error> {
    for at in (start..left.len()).chain(0..start) {
        let (uuid, to) = left[at];
        if !moves::is_within(tree, to, uuid, moves::parent)? {
            return Ok(at);
        }
    }
    Ok(start)
}

/// Moves an entry that is there, with whatever that means for the two names.
pub(crate) fn relocate<T: Tree>(tree: &mut T, uuid: EntryUuid, place: Place) -> Result<(), T::Error> {
    let Some(Node { place: Some(before), glue, csn, .. }) = tree.node(uuid)? else { return Ok(()) };
    // Where nothing is known of the parent any more, the entry stays.
    if before == place || stand_in(tree, place.parent)?.is_some() {
        return Ok(());
    }
    if before.parent != place.parent
        && !mutation::is(Mutation::CycleAllowed)
        && moves::is_within(tree, place.parent, uuid, moves::parent)?
    {
        // What was forgotten of moves does not fit together: better in a wrong place than below itself.
        tree.note_doubt(uuid)?;
        return unglue(tree, place.parent);
    }
    let taken = tree.holder(&place)?.is_some_and(|holder| holder != uuid);
    tree.name(uuid, &place, taken)?;
    if let (true, Some(csn)) = (glue, csn) {
        // The old name leaves nothing behind.
        tree.make_glue(uuid, csn)?;
    }
    if taken {
        settle(tree, &place)?;
    }
    settle(tree, &before)?;
    unglue(tree, before.parent)
}

//! Where an entry is: its RDN by the latest rename, its parent by all moves in their order.

use super::Place;
use super::moves;
use super::placing::{settle, stand_in, unglue};
use super::tree::{Node, Tree, lose};
use crate::mutation::{self, Mutation};
use crate::{Change, Csn, EntryUuid, Operation, names};
use std::sync::Arc;

/// Whether a rename of the entry is known that is later.
pub(crate) fn is_renamed<T: Tree>(tree: &mut T, change: &Change) -> Result<Option<Csn>, T::Error> {
    if mutation::is(Mutation::RenameOutOfOrder) {
        return Ok(None);
    }
    let renames = |later: &&Arc<Change>| match &later.operation {
        Operation::ModifyDn { request, .. } => names::new_rdn(&request.dn, &request.newrdn).is_some(),
        Operation::Put(_) => true,
        _ => false,
    };
    Ok(tree.later(change.uuid, Some(change.csn))?.iter().rev().find(renames).map(|later| later.csn))
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
    if let Some(to) = to
        && let Some(missing) = stand_in(tree, to)?
    {
        return Ok(Some(missing));
    }
    if let Some(rdn) = rdn {
        match is_renamed(tree, change)? {
            Some(against) => lose(tree, change, against, "dn", vec![rdn.into_bytes()])?,
            None => relocate(tree, change.uuid, Place { rdn, ..place.clone() })?,
        }
    }
    if let Some(to) = to {
        move_below(tree, change, to)?;
        // It may have been made for a move that fell away.
        unglue(tree, to)?;
    }
    Ok(None)
}

pub(crate) fn move_below<T: Tree>(tree: &mut T, change: &Change, to: EntryUuid) -> Result<(), T::Error> {
    let moved = moves::work_out(tree, change.csn, change.uuid, to)?;
    for noted in moved.log {
        if !noted.made {
            lose(
                tree,
                &Change { csn: noted.csn, uuid: noted.child, ..change.clone() },
                change.csn,
                "dn",
                Vec::new(),
            )?;
        }
        tree.note_move(noted)?;
    }
    // From the top down: whoever goes below another one finds it where it is to be.
    let mut left: Vec<(EntryUuid, EntryUuid)> = moved.parents.into_iter().collect();
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
    if let Some(rdn) = rdn
        && is_renamed(tree, change)?.is_none()
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

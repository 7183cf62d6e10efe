//! Who has which name, and deleted entries that children need.

use super::Place;
use super::tree::{Node, Tree};
use crate::mutation::{self, Mutation};
use crate::{EntryUuid, Operation, names};

/// Who comes first has a right to a name: whether it is glue, when it was made, which one it is.
type Rank = (bool, Vec<u8>, EntryUuid);

/// Gives a name to the one that has the right to it: of the entries that are meant to have it, the one that was created first. Glue
/// comes behind all that are not deleted.
pub(crate) fn settle<T: Tree>(tree: &mut T, place: &Place) -> Result<(), T::Error> {
    let waiting = tree.displaced(place)?;
    if waiting.is_empty() {
        return Ok(());
    }
    let holder = tree.holder(place)?;
    let mut first: Option<(Rank, Place)> = None;
    for uuid in waiting.into_iter().chain(holder) {
        let Some(Node { place: Some(place), glue, created, .. }) = tree.node(uuid)? else { continue };
        // Glue has lost what told when it was made.
        let rank = (glue, if glue { Vec::new() } else { created }, uuid);
        if first.as_ref().is_none_or(|(before, _)| (rank < *before) != mutation::is(Mutation::NameToTheLater))
        {
            first = Some((rank, place));
        }
    }
    let Some(((_, _, winner), its)) = first.filter(|((_, _, winner), _)| Some(*winner) != holder) else {
        return Ok(());
    };
    if let Some(holder) = holder
        && let Some(Node { place: Some(theirs), .. }) = tree.node(holder)?
    {
        tree.name(holder, &theirs, true)?;
    }
    tree.name(winner, &its, false)
}

/// Makes sure that an entry is there to have children, as glue if it is deleted. Returns an entry of which nothing is known.
pub(crate) fn stand_in<T: Tree>(tree: &mut T, uuid: EntryUuid) -> Result<Option<EntryUuid>, T::Error> {
    climb(tree, uuid, &mut Vec::new())
}

/// `below`: deleted entries that wait for this one. Where two servers deleted them from, they may be below one another.
fn climb<T: Tree>(
    tree: &mut T,
    uuid: EntryUuid,
    below: &mut Vec<EntryUuid>,
) -> Result<Option<EntryUuid>, T::Error> {
    if tree.node(uuid)?.is_some() {
        return Ok(None);
    }
    if below.contains(&uuid) {
        return Ok(Some(uuid));
    }
    below.push(uuid);
    let Some((csn, known)) = tree.deleted(uuid)? else { return Ok(Some(uuid)) };
    let place = match known {
        Some(place) => {
            if let Some(missing) = climb(tree, place.parent, below)? {
                return Ok(Some(missing));
            }
            place
        }
        // It was never here. Where it was when it was deleted is good enough until its add comes, if ever.
        None => {
            let Some(place) = place_of_delete(tree, uuid)? else { return Ok(Some(uuid)) };
            if climb(tree, place.parent, below)?.is_some() {
                return Ok(Some(uuid));
            }
            place
        }
    };
    let taken = tree.holder(&place)?.is_some();
    tree.add_glue(uuid, csn, &place, taken)?;
    if taken {
        settle(tree, &place)?;
    }
    Ok(None)
}

/// Where an entry was when it was deleted, as far as its delete tells.
pub(crate) fn place_of_delete<T: Tree>(tree: &mut T, uuid: EntryUuid) -> Result<Option<Place>, T::Error> {
    let deletes = tree.later(uuid, None)?.into_iter().rev().filter_map(|change| {
        match (&change.operation, change.parent) {
            (Operation::Delete { dn }, Some(parent)) => {
                Some(Place { parent, rdn: names::rdn(dn).into_owned() })
            }
            _ => None,
        }
    });
    Ok({ deletes }.next())
}

/// Removes glue that nobody needs any more, from here upwards.
pub(crate) fn unglue<T: Tree>(tree: &mut T, mut uuid: EntryUuid) -> Result<(), T::Error> {
    while let Some(Node { glue: true, place: Some(place), .. }) = tree.node(uuid)? {
        if tree.has_children(uuid)? || mutation::is(Mutation::GlueStays) {
            break;
        }
        tree.remove(uuid)?;
        // Of one that was never here its add will tell, see `stand_in`.
        if tree.deleted(uuid)?.is_some_and(|(_, known)| known.is_some()) {
            tree.note_place(uuid, place.clone())?;
        }
        settle(tree, &place)?;
        uuid = place.parent;
    }
    Ok(())
}

//! One change of any server, early or late.

use super::Place;
use super::history::{History, doubt, history};
use super::naming::{go, go_deleted, is_renamed, move_below, relocate};
use super::placing::{settle, stand_in, unglue};
use super::tree::{Node, Tree, lose};
use super::values::{self, Around, Attribute, Step};
use crate::mutation::{self, Mutation};
use crate::{Change, Csn, EntryUuid, Lost, Operation, names};
use ldap3_proto::proto::{LdapAddRequest, LdapPartialAttribute};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Its effect, as far as nothing later took it away, is there.
    Done,
    /// It has none before this entry comes: then it is to be applied.
    Waits(EntryUuid),
}

/// Applies a change that another server made, or makes it again. The result is the same whatever the order in which changes come:
///
/// - different attributes, and different values of one, do not meet; of what meets, the later one counts;
/// - a delete takes everything, whatever came later; while the entry has children it stays as glue;
/// - of two entries with one name, the one that was created earlier has it, and the other one is named after its entryUUID as well
///   until the name is free;
/// - of two moves that would put an entry below itself the later one falls away.
///
/// # Errors
/// The database's. Nothing is to be kept of the transaction then.
pub fn apply<T: Tree>(tree: &mut T, change: &Change) -> Result<Applied, T::Error> {
    let node = tree.node(change.uuid)?;
    match (&change.operation, node) {
        (Operation::Delete { .. }, node) => delete(tree, change, node),
        (Operation::Add(_), Some(node)) => {
            if node.glue {
                add_deleted(tree, change, &node)?;
            }
            Ok(Applied::Done)
        }
        (Operation::Put(_), Some(node)) if !node.glue => put(tree, change, node),
        (Operation::Add(_) | Operation::Put(_), _) => add(tree, change),
        // It is in a state that came before.
        (Operation::Modify(_), Some(node)) if !node.glue && node.csn == Some(change.csn) => Ok(Applied::Done),
        (Operation::Modify(_), Some(node)) if !node.glue => {
            modify(tree, change, &node, Before::default())?;
            Ok(Applied::Done)
        }
        (Operation::ModifyDn { .. }, Some(node)) => rename(tree, change, node, None),
        (_, node) => {
            let Some((csn, place)) = tree.deleted(change.uuid)? else {
                return Ok(Applied::Waits(change.uuid));
            };
            if node.is_none()
                && let Some(missing) = rename_deleted(tree, change, place)?
            {
                return Ok(Applied::Waits(missing));
            }
            lose_entry(tree, change, csn)?;
            Ok(Applied::Done)
        }
    }
}

/// What was done to an entry that another server deleted. It cannot be seen at the entry, so its name goes with it.
fn lose_entry<T: Tree>(tree: &mut T, change: &Change, delete: Csn) -> Result<(), T::Error> {
    if values::is_bookkeeping(change) {
        return Ok(());
    }
    lose(tree, change, delete, Lost::ENTRY, vec![change.operation.dn().as_bytes().to_vec()])
}

/// What a change that was made here, by the host itself, means for others: a name may have become free, a glue entry be of no
/// use any more. `from` is where the entry was before.
///
/// # Errors
/// As [`apply`].
pub fn follow<T: Tree>(tree: &mut T, change: &Change, from: Place) -> Result<(), T::Error> {
    match &change.operation {
        Operation::Delete { .. } => {
            tree.note_place(change.uuid, from.clone())?;
        }
        Operation::ModifyDn { .. } => {
            if let Some(to) = change.parent {
                let (csn, child) = (change.csn, change.uuid);
                // An earlier move of another server may have come since, and been made before this one.
                if tree.moves(csn)?.first().is_none_or(|known| known.csn != csn) {
                    tree.note_move(super::Move { csn, child, from: Some(from.parent), to, made: true })?;
                }
            }
            // It may have taken along a name of its own that it does not need where it is now.
            if let Some(Node { place: Some(now), displaced: true, .. }) = tree.node(change.uuid)? {
                settle(tree, &now)?;
            }
        }
        _ => return Ok(()),
    }
    settle(tree, &from)?;
    unglue(tree, from.parent)
}

fn add<T: Tree>(tree: &mut T, change: &Change) -> Result<Applied, T::Error> {
    let rdn = names::rdn(change.operation.dn()).into_owned();
    let place = change.parent.map(|parent| Place { parent, rdn });
    if let Some((csn, known)) =
        tree.deleted(change.uuid)?.filter(|_| !mutation::is(Mutation::TombstoneForgotten))
    {
        // What an offline tool brought back is later than the delete.
        if !(matches!(change.operation, Operation::Put(_)) && change.csn > csn) {
            let is_state = matches!(change.operation, Operation::Put(_));
            let missing = match (known, place) {
                (None, Some(place)) => {
                    let parent = place.parent;
                    tree.note_place(change.uuid, place)?;
                    move_below(tree, change, parent)?;
                    None
                }
                // As a rename does, a state says where the entry is.
                (Some(known), Some(place)) if is_state => match tree.node(change.uuid)? {
                    Some(node) => go(tree, change, &node, Some(place.parent), Some(place.rdn))?,
                    None => go_deleted(tree, change, known, Some(place.parent), Some(place.rdn))?,
                },
                _ => None,
            };
            return Ok(missing.map_or(Applied::Done, Applied::Waits));
        }
    }
    let Some(place) = place else {
        tree.add(change, None, false)?;
        return Ok(Applied::Done);
    };
    if let Some(missing) = stand_in(tree, place.parent)? {
        return Ok(Applied::Waits(missing));
    }
    let to = place.parent;
    let mut place = place;
    if let Some(Node { place: Some(glue), .. }) = tree.node(change.uuid)? {
        // Whether it can go there from where it is, the moves tell.
        place.parent = glue.parent;
        relocate(tree, change.uuid, place.clone())?;
    }
    let taken = tree.holder(&place)?.is_some_and(|holder| holder != change.uuid);
    tree.add(change, Some(&place), taken)?;
    if taken {
        settle(tree, &place)?;
    }
    if matches!(change.operation, Operation::Put(_)) {
        bring_back(tree, change, to)?;
    }
    Ok(Applied::Done)
}

/// The entry of a state has come, perhaps after it was deleted: earlier moves do not take it away, and later changes, which had no
/// effect without it, are made.
fn bring_back<T: Tree>(tree: &mut T, change: &Change, parent: EntryUuid) -> Result<(), T::Error> {
    move_below(tree, change, parent)?;
    doubt(tree, change)?;
    for later in tree.later(change.uuid, Some(change.csn))? {
        match (&later.operation, tree.node(change.uuid)?) {
            (Operation::ModifyDn { .. }, Some(node)) => rename(tree, &later, node, Some(change))?,
            _ => apply(tree, &later)?,
        };
    }
    Ok(())
}

/// The add of an entry that came back as glue where it was deleted. Only now is it known where it was at first, and what that means
/// for the moves of others.
fn add_deleted<T: Tree>(tree: &mut T, change: &Change, node: &Node) -> Result<(), T::Error> {
    let is_known =
        tree.later(change.uuid, None)?.iter().any(|known| matches!(known.operation, Operation::Add(_)));
    let (Some(parent), Some(place)) = (change.parent.filter(|_| !is_known), &node.place) else {
        return Ok(());
    };
    if !is_renamed(tree, change)? {
        let rdn = names::rdn(change.operation.dn()).into_owned();
        relocate(tree, change.uuid, Place { rdn, ..place.clone() })?;
    }
    tree.note_place(change.uuid, place.clone())?;
    move_below(tree, change, parent)
}

/// What was before a change.
#[derive(Clone, Copy, Default)]
struct Before<'a> {
    /// The RDN that the entry had.
    rdn: &'a str,
    /// The state by which it just came back, which the database does not remember yet.
    state: Option<&'a Change>,
}

/// The change's effect on the values, late or not.
fn modify<T: Tree>(tree: &mut T, change: &Change, node: &Node, before: Before<'_>) -> Result<(), T::Error> {
    let later = later(tree, change, node)?;
    let mut touched = values::attributes(change);
    let current = tree.attributes(change.uuid)?;
    if matches!(change.operation, Operation::Put(_)) {
        // What the entry has and the state does not goes.
        let others = current.iter().map(|(name, _)| name).filter(|name| !values::is_stamp(name));
        let new = |name: &&String| !touched.iter().any(|known| known.eq_ignore_ascii_case(name));
        let others: Vec<String> = others.filter(new).cloned().collect();
        touched.extend(others);
    }
    let mut merged = Vec::new();
    for name in touched {
        let present = current.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        let present = present.map(|(_, values)| values.clone()).unwrap_or_default();
        let steps = values::steps(change, &name);
        let later_steps: Vec<_> = later.iter().map(|later| values::steps(later, &name)).collect();
        let single = tree.is_single(&name)?;
        let earlier = if !single && values::reaches_back(&steps, &later_steps) {
            earlier(tree, change, &name)?
        } else {
            Vec::new()
        };
        let mut attribute = Attribute { name: &name, single, schema: &mut *tree };
        let around = Around { earlier: &earlier, later: &later_steps };
        let mut after = attribute.merge(present, &steps, around)?;
        drop_name(tree, change, before, &name, &mut after)?;
        keep_name(tree, node, &name, &mut after)?;
        report(tree, change, &later, (&name, single), &after)?;
        merged.push((name, after));
    }
    tree.set(change.uuid, change, merged)
}

/// A value that was deleted and stayed as long as it was the name goes when it no longer is.
fn drop_name<T: Tree>(
    tree: &mut T,
    change: &Change,
    before: Before<'_>,
    attribute: &str,
    values: &mut Vec<Vec<u8>>,
) -> Result<(), T::Error> {
    let old = names::avas(before.rdn).into_iter().filter(|(name, _)| name.eq_ignore_ascii_case(attribute));
    for (_, value) in old {
        let mut all = tree.later(change.uuid, None)?;
        for new in before.state.into_iter().chain([change]) {
            let at = all.partition_point(|known| known.csn < new.csn);
            all.insert(at, Arc::new(new.clone()));
        }
        let steps: Vec<_> = all.iter().flat_map(|change| values::steps(change, attribute)).collect();
        let mut schema = Attribute { name: attribute, single: false, schema: &mut *tree };
        if !schema.drop_deleted(&value, &steps, values)? && tree.horizon()?.is_some() {
            // What told of it is forgotten.
            tree.note_doubt(change.uuid)?;
        }
    }
    Ok(())
}

/// The values of the RDN are in the entry, whatever becomes of the others.
fn keep_name<T: Tree>(
    tree: &mut T,
    node: &Node,
    attribute: &str,
    values: &mut Vec<Vec<u8>>,
) -> Result<(), T::Error> {
    let Some(place) = node.place.as_ref().filter(|_| !mutation::is(Mutation::NameValueForgotten)) else {
        return Ok(());
    };
    for (name, value) in names::avas(&place.rdn) {
        if !name.eq_ignore_ascii_case(attribute) {
            continue;
        }
        let key = tree.normalize(attribute, &value)?;
        let mut has = false;
        for present in values.iter() {
            has |= tree.normalize(attribute, present)? == key;
        }
        if !has {
            if tree.is_single(attribute)? {
                values.clear();
            }
            values.push(value);
        }
    }
    Ok(())
}

/// Values that a change wanted to be there, and that later ones took away.
fn report<T: Tree>(
    tree: &mut T,
    change: &Change,
    later: &[Arc<Change>],
    (name, single): (&str, bool),
    after: &[Vec<u8>],
) -> Result<(), T::Error> {
    if later.is_empty() || values::is_mark(name) {
        return Ok(());
    }
    let mut attribute = Attribute { name, single, schema: &mut *tree };
    let mut lost: BTreeMap<Csn, Vec<Vec<u8>>> = BTreeMap::new();
    for (value, against) in attribute.lost(&values::steps(change, name), later, after)? {
        lost.entry(against).or_default().push(value);
    }
    lost.into_iter().try_for_each(|(against, values)| lose(tree, change, against, name, values))
}

/// What was applied to the entry that is later than the change. What is not known of it counts as one state.
fn later<T: Tree>(tree: &mut T, change: &Change, node: &Node) -> Result<Vec<Arc<Change>>, T::Error> {
    let History { mut later, unknown } = history(tree, change, node)?;
    if let Some(csn) = unknown {
        let attributes = tree.attributes(change.uuid)?;
        let attributes = attributes.into_iter().map(|(atype, vals)| LdapPartialAttribute { atype, vals });
        let entry = LdapAddRequest { dn: String::new(), attributes: attributes.collect() };
        later.push(Arc::new(Change {
            csn,
            uuid: change.uuid,
            parent: None,
            operation: Operation::Put(entry),
        }));
    }
    Ok(later)
}

/// What is known to have been done to the attribute before the change.
fn earlier<T: Tree>(tree: &mut T, change: &Change, attribute: &str) -> Result<Vec<Vec<Step>>, T::Error> {
    if mutation::is(Mutation::EarlierForgotten) {
        return Ok(Vec::new());
    }
    let known = tree.later(change.uuid, None)?.into_iter();
    let earlier = known.filter(|known| known.csn < change.csn);
    Ok(earlier.map(|known| values::steps(&known, attribute)).collect())
}

/// A state of an entry that is there: its values, and its name like a rename's.
fn put<T: Tree>(tree: &mut T, change: &Change, node: Node) -> Result<Applied, T::Error> {
    if let (Some(parent), Some(_)) = (change.parent, &node.place) {
        let rdn = names::rdn(change.operation.dn()).into_owned();
        // Also where it is there already: it goes back there after an earlier move that comes late.
        if let Some(missing) = go(tree, change, &node, Some(parent), Some(rdn))? {
            return Ok(Applied::Waits(missing));
        }
    }
    let node = tree.node(change.uuid)?.unwrap_or(node);
    modify(tree, change, &node, Before::default())?;
    Ok(Applied::Done)
}

/// The values of a state that nothing is later than.
pub(crate) fn set_state<T: Tree>(tree: &mut T, state: &Change, node: &Node) -> Result<(), T::Error> {
    modify(tree, state, node, Before::default())
}

/// `state`: see [`Before`].
pub(crate) fn rename<T: Tree>(
    tree: &mut T,
    change: &Change,
    node: Node,
    state: Option<&Change>,
) -> Result<Applied, T::Error> {
    let Operation::ModifyDn { request, .. } = &change.operation else { return Ok(Applied::Done) };
    if node.glue && tree.deleted(change.uuid)?.is_none_or(|(_, place)| place.is_none()) {
        // Its add tells where it was before, see `stand_in`.
        return Ok(Applied::Waits(change.uuid));
    }
    // A move that repeats the RDN as it was renames nothing.
    let rdn = names::new_rdn(&request.dn, &request.newrdn).map(Cow::into_owned);
    if let Some(missing) = go(tree, change, &node, change.parent, rdn)? {
        return Ok(Applied::Waits(missing));
    }
    if !node.glue {
        let rdn = node.place.as_ref().map(|place| place.rdn.clone()).unwrap_or_default();
        let node = tree.node(change.uuid)?.unwrap_or(node);
        modify(tree, change, &node, Before { rdn: &rdn, state })?;
    }
    Ok(Applied::Done)
}

/// A rename of an entry that is not there. Returns an entry that has to come before.
fn rename_deleted<T: Tree>(
    tree: &mut T,
    change: &Change,
    place: Option<Place>,
) -> Result<Option<EntryUuid>, T::Error> {
    let Operation::ModifyDn { request, .. } = &change.operation else { return Ok(None) };
    // It was never here: its add tells where it was at first.
    let Some(place) = place else { return Ok(Some(change.uuid)) };
    let rdn = names::new_rdn(&request.dn, &request.newrdn).map(Cow::into_owned);
    go_deleted(tree, change, place, change.parent, rdn)
}

fn delete<T: Tree>(tree: &mut T, change: &Change, node: Option<Node>) -> Result<Applied, T::Error> {
    let Some(node) = node else { return Ok(Applied::Done) };
    if mutation::is(Mutation::DeleteLosesToLater) && node.csn > Some(change.csn) {
        return Ok(Applied::Done);
    }
    if !node.glue {
        let History { later, .. } = history(tree, change, &node)?;
        // What an offline tool brought back is later than the delete.
        if let Some(back) = later.iter().find(|later| matches!(later.operation, Operation::Put(_))) {
            lose(tree, change, back.csn, Lost::NAME, Vec::new())?;
            return Ok(Applied::Done);
        }
        for lost in later {
            lose_entry(tree, &lost, change.csn)?;
        }
    }
    if node.glue || (tree.has_children(change.uuid)? && !mutation::is(Mutation::GlueForgotten)) {
        let csn = node.csn.filter(|_| node.glue).map_or(change.csn, |csn| csn.max(change.csn));
        tree.make_glue(change.uuid, csn)?;
        if let Some(place) = &node.place {
            if !node.glue {
                tree.note_place(change.uuid, place.clone())?;
            }
            settle(tree, place)?;
        }
        return Ok(Applied::Done);
    }
    tree.remove(change.uuid)?;
    if let Some(place) = node.place {
        tree.note_place(change.uuid, place.clone())?;
        if !mutation::is(Mutation::NameStaysFree) {
            settle(tree, &place)?;
        }
        unglue(tree, place.parent)?;
    }
    Ok(Applied::Done)
}

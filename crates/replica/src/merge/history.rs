//! What was made of an entry after a change that comes late.

use super::tree::{Node, Tree};
use crate::mutation::{self, Mutation};
use crate::{Change, Csn};
use std::sync::Arc;

/// Later changes of an entry.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Those that are known, in the order of their CSNs.
    pub(crate) later: Vec<Arc<Change>>,
    /// The entry's last change, if that is none of them: nothing tells what it did.
    pub(crate) unknown: Option<Csn>,
}

/// What was applied to the entry that is later than the change. Nothing is, unless the entry tells so.
///
/// Where the journal does not reach back, the entry is in doubt.
pub(crate) fn history<T: Tree>(tree: &mut T, change: &Change, node: &Node) -> Result<History, T::Error> {
    let Some(last) = node.csn.filter(|csn| *csn > change.csn && !mutation::is(Mutation::LaterForgotten))
    else {
        return Ok(History::default());
    };
    let later = tree.later(change.uuid, Some(change.csn))?;
    let is_known = later.last().is_some_and(|later| later.csn >= last);
    if is_known {
        doubt(tree, change)?;
    } else {
        tree.note_doubt(change.uuid)?;
    }
    Ok(History { later, unknown: (!is_known).then_some(last) })
}

/// Notes a doubt if later changes of the entry than this one may be forgotten.
pub(crate) fn doubt<T: Tree>(tree: &mut T, change: &Change) -> Result<(), T::Error> {
    if tree.horizon()? > Some(change.csn) {
        tree.note_doubt(change.uuid)?;
    }
    Ok(())
}

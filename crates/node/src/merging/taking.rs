//! A state that another replica has, taken as a whole: what is known here and not in it is made again.

use super::tree::HostTree;
use super::{Merged, Scratch, is_glue};
use crate::heal::knowledge::{self, Likeness};
use crate::host::{Outcome, Transaction};
use crate::shared::{Shared, lock};
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::debug;
use xmppsync_journal::Record;
use xmppsync_replica::merge::{self, Applied, Past, Tree};
use xmppsync_replica::{Change, Csn, EntryUuid, Known, Move, Operation, Seen, Side, Vector};

/// A state to be taken, as a comparison judged.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    pub(crate) state: Arc<Change>,
    /// The entry here, as it was judged.
    pub(crate) here: Option<Likeness>,
    /// Nothing is known here that is not in the state.
    pub(crate) is_all: bool,
    /// Otherwise, what is in the state and not known here; and that, as far as it could be had.
    pub(crate) lacks: Vec<Csn>,
    pub(crate) history: Vec<Arc<Change>>,
    /// What the other one knows of the entry.
    pub(crate) theirs: Known,
    pub(crate) there: Arc<Side>,
    /// The moves of the entry that the other one remembers; they were learned before.
    pub(crate) moves: BTreeSet<Csn>,
}

impl Taking {
    /// What is in the state, and of what was seen here does not tell.
    pub(crate) fn ahead(&self, seen: &Seen) -> impl Iterator<Item = Csn> {
        let Known { changes, tombstone, .. } = &self.theirs;
        changes.iter().copied().filter(|csn| !seen.covers(*csn) && Some(*csn) != *tombstone)
    }

    /// Of these changes of the entry those that are in the state.
    pub(crate) fn contained(&self, csns: BTreeSet<Csn>) -> BTreeSet<Csn> {
        csns.into_iter().filter(|csn| self.there.has(&self.theirs, *csn)).collect()
    }

    /// Bytes that it takes, more or less.
    pub(crate) fn size(&self) -> usize {
        let csns = self.theirs.changes.len() + self.lacks.len() + self.moves.len();
        let history: usize = self.history.iter().map(|change| change.size()).sum();
        self.state.size() + csns * (Csn::LEN + CSN_OVERHEAD) + history
    }

    fn is_glue(&self) -> bool {
        self.theirs.glue.is_some()
    }

    /// Whether the database may make it as it is.
    fn is_plain(&self, here: Option<&Change>) -> bool {
        let is_later = here.is_none_or(|here| here.csn < self.state.csn);
        let is_as_judged = knowledge::prints(here).0 == self.here && !here.is_some_and(is_glue);
        // A move has its place among all moves.
        let is_in_place = here.is_none_or(|here| here.parent == self.state.parent);
        let Taking { is_all, theirs: Known { in_doubt, glue, .. }, .. } = self;
        *is_all && is_later && is_as_judged && is_in_place && glue.is_none() && !in_doubt
    }
}

/// Of a set.
const CSN_OVERHEAD: usize = 16;

/// Whether the state may go into the database as it is, or by [`take`].
pub(crate) fn is_plain(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &Scratch,
    taking: &Taking,
) -> Result<bool, Outcome> {
    let uuid = taking.state.uuid;
    let (is_tidy, is_special) = scratch.known(shared, |names| {
        (names.is_tidy(), names.orphans.contains(&uuid) || names.doubts.contains(&uuid))
    });
    if is_special || scratch.gone.contains_key(&uuid) || lock(&shared.captured).deleted.get(uuid).is_some() {
        return Ok(false);
    }
    let here = transaction.read_entry(&uuid).map_err(Outcome::Temporary)?;
    // The name that becomes free may be another one's.
    let dn = taking.state.operation.dn();
    let stays = is_tidy || here.as_ref().is_none_or(|here| here.operation.dn() == dn);
    Ok(stays && taking.is_plain(here.as_ref()))
}

/// Takes the state by the rules.
pub(crate) fn take(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &mut Scratch,
    applied: &Vector,
    taking: &Taking,
) -> Merged {
    match try_take(shared, transaction, scratch, applied, taking) {
        Ok(merged) => merged,
        Err(outcome) => Merged::Failed(outcome),
    }
}

fn try_take(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &mut Scratch,
    applied: &Vector,
    taking: &Taking,
) -> Result<Merged, Outcome> {
    let Taking { state, theirs, there, history, lacks, .. } = taking;
    let uuid = state.uuid;
    let mut tree = HostTree::new(shared, transaction, scratch, applied, state).for_state();
    let here = tree.node(uuid)?;
    if here.as_ref().is_none_or(|here| here.glue)
        && !taking.is_glue()
        && tree.deleted(uuid)?.is_some_and(|(gone, _)| !there.has(theirs, gone) || gone >= state.csn)
    {
        // It was deleted meanwhile, which the other one will hear of.
        return Ok(Merged::Left);
    }
    let mut again = tree.all_of(uuid)?;
    again.retain(|known| !there.has(theirs, known.csn));
    // What it has seen it remembers, unless it says otherwise.
    let is_known = |csn: Csn| there.saw(theirs, csn);
    let is_forgotten = |csn: Csn| is_known(csn) && there.floor.covers(csn) && !taking.moves.contains(&csn);
    let past = Past { is_forgotten: &is_forgotten, is_known: &is_known };
    let applied_state = match taking.is_glue() {
        true => merge::take_glue(&mut tree, state, past)?,
        false => merge::take(&mut tree, state, past)?,
    };
    if let Applied::Waits(missing) = applied_state {
        debug!("the entry {uuid} is not taken from another server before the entry {missing} is here");
        scratch.set_doubt(shared, uuid, true);
        // Glue, which no comparison sees, if it is deleted there.
        scratch.set_doubt(shared, missing, true);
        return Ok(Merged::Left);
    }
    for change in &again {
        let mut tree = HostTree::new(shared, transaction, scratch, applied, change).with_history(history);
        if let Applied::Waits(missing) = merge::make_again(&mut tree, change, state, &again)? {
            scratch.wait(change, missing);
        }
    }
    // Not all could be had of what tells what these mean.
    let is_vague = !again.is_empty() && history.len() < lacks.len();
    scratch.set_doubt(shared, uuid, theirs.in_doubt || is_vague);
    Ok(Merged::Done)
}

/// Learns of moves that another replica knows.
pub(crate) fn learn(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &mut Scratch,
    applied: &Vector,
    moves: &[Move],
) -> Result<(), Outcome> {
    for known in moves {
        let Move { csn, child, to, .. } = *known;
        let operation = Operation::Delete { dn: String::new() };
        let change = Arc::new(Change { csn, uuid: child, parent: Some(to), operation });
        merge::learn(&mut HostTree::new(shared, transaction, scratch, applied, &change), known)?;
    }
    Ok(())
}

impl Scratch {
    /// Notes whether an entry is in doubt, if that is news.
    pub(crate) fn set_doubt(&mut self, shared: &Shared, uuid: EntryUuid, in_doubt: bool) {
        if self.known(shared, |names| names.doubts.contains(&uuid)) != in_doubt {
            self.note(shared, if in_doubt { Record::Doubt(uuid) } else { Record::Certain(uuid) });
        }
    }
}

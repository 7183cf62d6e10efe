//! What is remembered of the past: by the journal, and by what is on its way into it.

use super::HostTree;
use crate::host::{Failure, Outcome};
use crate::limits;
use crate::merging::is_glue;
use crate::shared::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xmppsync_journal::{Deleted, Journal, JournalError};
use xmppsync_replica::{Change, Csn, EntryUuid, Move, Operation, Place};

pub(super) fn busy(text: &str) -> Outcome {
    Outcome::Temporary(Failure::busy(text))
}

/// Waits a moment until it is so. Clients wait for this transaction, and begin no write meanwhile.
fn patiently(is_so: impl Fn() -> bool) -> Result<(), Outcome> {
    for _ in 0..limits::CLIENT_TRIES {
        if is_so() {
            return Ok(());
        }
        std::thread::sleep(limits::CLIENT_PAUSE);
    }
    Err(busy("a write of this server is on its way"))
}

/// The latest change that the journal has forgotten, if any.
fn floor(journal: &Journal) -> Option<Csn> {
    journal.floor().iter().max()
}

impl HostTree<'_> {
    /// A client's write that is committed may not have been told yet. Others wait for this transaction.
    fn wait_for_clients(&self) -> Result<(), Outcome> {
        patiently(|| {
            let pending = self.shared.database.pending_csns();
            pending.iter().all(|csn| lock(&self.shared.captured).has_taken(*csn))
        })
    }

    /// Asks the journal, which has all that was handed to it before.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<Option<T>, Outcome> {
        self.shared
            .store
            .ask_now(question, limits::HISTORY_PATIENCE)
            .map_err(|_| busy("the journal does not answer"))
    }

    /// The inventory must not learn of a client's write to the entry after it has learnt that the entry is gone.
    fn wait_for_journal(&self, uuid: EntryUuid, after: Option<Csn>) -> Result<(), Outcome> {
        patiently(|| lock(&self.shared.captured).later(uuid, after).is_empty())
    }

    /// All that is known to be in the entry. Others wait for this transaction.
    pub(in crate::merging) fn all_of(&mut self, uuid: EntryUuid) -> Result<Vec<Arc<Change>>, Outcome> {
        self.wait_for_clients()?;
        self.remembered_later(uuid, None)
    }

    /// What the journal has of the entry's later changes.
    fn known_later(&mut self, uuid: EntryUuid, after: Option<Csn>) -> Result<Vec<Arc<Change>>, Outcome> {
        let mut history = lock(&self.shared.histories).take(uuid);
        let known = Arc::clone(&history);
        let found = self.ask(move |journal| {
            let later = journal.later(uuid, after, |csn| known.contains_key(&csn))?;
            Ok((later, floor(journal)))
        })?;
        let Some((found, floor)) = found else {
            let is_filling = self.shared.store.is_filling();
            return if is_filling { Err(busy("the journal is being made anew")) } else { Ok(Vec::new()) };
        };
        self.horizon = Some(floor);
        let mut later = Vec::with_capacity(found.len());
        for (csn, read) in found {
            if let Some(change) = read {
                Arc::make_mut(&mut history).insert(csn, Arc::new(change));
            }
            later.extend(history.get(&csn).cloned());
        }
        lock(&self.shared.histories).put(uuid, history);
        Ok(later)
    }

    /// Whether the change is in the database.
    fn is_applied(&self, change: &Change) -> bool {
        let csn = change.csn;
        let is_here = csn.server_id() == self.shared.own || self.applied.covers(csn);
        let waits = self.scratch.is_waiting(csn) || lock(&self.shared.to_apply).is_waiting(change);
        is_here && csn != self.change.csn && !waits
    }

    pub(super) fn remembered_later(
        &mut self,
        uuid: EntryUuid,
        after: Option<Csn>,
    ) -> Result<Vec<Arc<Change>>, Outcome> {
        let is_delete = matches!(self.change.operation, Operation::Delete { .. });
        if is_delete && uuid == self.change.uuid {
            self.wait_for_journal(uuid, after)?;
        }
        // Before both: what is told of while the journal is asked is in neither.
        let told = lock(&self.shared.vector).get(self.shared.own);
        // First what is not in the journal yet: it may get there meanwhile.
        let fresh = lock(&self.shared.captured).later(uuid, after);
        let mut later = self.known_later(uuid, after)?;
        later.retain(|change| self.is_applied(change));
        let known_elsewhere =
            self.history.iter().filter(|change| change.uuid == uuid && Some(change.csn) > after);
        for change in fresh.into_iter().chain(known_elsewhere.cloned()) {
            if !later.iter().any(|known| known.csn == change.csn) {
                later.push(change);
            }
        }
        later.sort_by_key(|change| change.csn);
        if uuid == self.change.uuid
            && later.iter().any(|change| change.csn.server_id() != self.change.csn.server_id())
        {
            self.checked = Some(false);
        }
        let Some(after) = after else { return Ok(later) };
        let Some(entry) = self.read(uuid)? else { return Ok(later) };
        let last = later.last().map(|change| change.csn);
        let is_own = entry.csn.server_id() == self.shared.own && !is_glue(&entry);
        if entry.csn > after && last < Some(entry.csn) && is_own && told < Some(entry.csn) {
            // A client's write that is committed, and that nobody was told of yet.
            return Err(busy("a write of this server is on its way"));
        }
        Ok(later)
    }

    pub(super) fn remembered_horizon(&mut self) -> Result<Option<Csn>, Outcome> {
        if self.horizon.is_none() {
            self.horizon = Some(self.ask(|journal| Ok(floor(journal)))?.flatten());
        }
        Ok(self.horizon.flatten())
    }

    pub(super) fn remembered_moves(&mut self, from: Csn) -> Result<Vec<Move>, Outcome> {
        self.wait_for_clients()?;
        let followed: Vec<Move> =
            lock(&self.shared.to_apply).to_follow.iter().filter_map(client_move).collect();
        let mut moves: BTreeMap<Csn, Move> =
            self.known(|names| names.moves.range(from..).map(|(csn, made)| (*csn, *made)).collect());
        for made in followed.into_iter().filter(|made| made.csn >= from) {
            moves.entry(made.csn).or_insert(made);
        }
        self.redoes |= moves.len() > 1;
        Ok(moves.into_values().collect())
    }

    pub(super) fn remembered_delete(
        &mut self,
        uuid: EntryUuid,
    ) -> Result<Option<(Csn, Option<Place>)>, Outcome> {
        let place = self.scratch.places.get(&uuid).cloned();
        let gone = self.scratch.gone.get(&uuid).copied().max(lock(&self.shared.captured).deleted.get(uuid));
        let (tombstone, known) = match self.scratch.deleted.get(&uuid) {
            Some(known) => known.clone(),
            None => self.look_for_delete(uuid)?,
        };
        Ok(gone.max(tombstone).map(|csn| (csn, place.or(known))))
    }

    /// Asks the journal for more than the one, where moves are made again: that needs the places of all that are gone, and one question
    /// for each would take most of the time.
    fn look_for_delete(&mut self, uuid: EntryUuid) -> Result<Deleted, Outcome> {
        let mut uuids = vec![uuid];
        if self.redoes {
            let asked = &self.scratch.asked;
            let others: BTreeSet<EntryUuid> = self.known(|names| {
                let named = names.moves.values().rev().flat_map(|made| [made.child, made.to]);
                named.filter(|other| !asked.contains(other)).take(limits::DELETES_ASKED_MAX).collect()
            });
            self.scratch.asked.extend(&others);
            uuids.extend(others.into_iter().filter(|other| *other != uuid));
        }
        let asked = uuids.clone();
        let found = self.ask(move |journal| journal.deleted(&asked))?.unwrap_or_default();
        let answer = found.first().cloned().unwrap_or_default();
        let certain = uuids.into_iter().zip(found).filter(|(_, (csn, _))| csn.is_some());
        self.scratch.deleted.extend(certain);
        Ok(answer)
    }
}

/// A move that a client made here.
pub(crate) fn client_move((change, from): &(Arc<Change>, Place)) -> Option<Move> {
    let is_rename = matches!(change.operation, Operation::ModifyDn { .. });
    let to = change.parent.filter(|_| is_rename)?;
    Some(Move { csn: change.csn, child: change.uuid, from: Some(from.parent), to, made: true })
}

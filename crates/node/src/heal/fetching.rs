//! What the peer knows of entries, asked for page by page.

use super::knowledge::prints;
use super::{HealError, Healed, Healer};
use crate::{files, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Known, Move, Operation, Side};
use xmppsync_wire::limits::{FETCH_CHANGES_MAX, FETCH_UUIDS_MAX};
use xmppsync_wire::{Entries, Fetch, FileRequest, Past, Payload};

/// An entry as the peer knows it.
pub(super) struct Theirs {
    pub(super) uuid: EntryUuid,
    /// The entry, if it is there.
    pub(super) state: Option<Change>,
    pub(super) known: Known,
    pub(super) moves: Vec<Move>,
    pub(super) side: Arc<Side>,
}

impl Theirs {
    /// It was written while the peer looked at it, and may have changes in it that the peer did not name, or not have what it named.
    pub(super) fn is_being_written(&self) -> bool {
        let entry = self.known.entry.or(self.known.glue).map(|(csn, _)| csn);
        let mut all = self.known.changes.iter().copied().chain(entry);
        all.any(|csn| !self.side.seen.vector.covers(csn))
    }
}

impl Healer {
    /// As many of the entries as the peer puts into one answer; `asked` is what is left.
    pub(super) async fn next_page(
        &self,
        asked: &mut &[EntryUuid],
        healed: &mut Healed,
    ) -> Result<Vec<Theirs>, HealError> {
        let chunk = &asked[..asked.len().min(FETCH_UUIDS_MAX)];
        let mut answer = self.fetch(chunk.to_vec(), Vec::new()).await?;
        let named = [&answer.absent, &answer.refused, &answer.large].into_iter().flatten().copied();
        let answered: BTreeSet<EntryUuid> = answer.states().map(|state| state.uuid).chain(named).collect();
        let consumed = chunk.iter().take_while(|uuid| answered.contains(*uuid)).count();
        // An answer that says nothing of anything would be asked for for ever.
        if consumed == 0 {
            return Err(HealError::Unexpected);
        }
        let page: BTreeSet<EntryUuid> = chunk[..consumed].iter().copied().collect();
        *asked = &asked[consumed..];
        healed.left += answer.refused.len();
        let large: Vec<EntryUuid> = answer.large.iter().copied().filter(|uuid| page.contains(uuid)).collect();
        let mut states = std::mem::take(&mut answer.puts);
        states.append(&mut answer.deletes);
        // One after the other, for each may take many megabytes.
        for uuid in large {
            states.push(self.fetch_large(uuid).await?);
        }
        let before = states.len();
        let states = self.shared.clock.filter(states, &self.peer);
        healed.left += before - states.len();
        together(answer, states, &page)
    }

    /// The content of changes that the peer remembers, in the order of their CSNs; those that it has forgotten since are left out.
    pub(super) async fn fetch_changes(&self, csns: &[Csn]) -> Result<Vec<Change>, HealError> {
        let mut left: Vec<Csn> = csns.to_vec();
        let mut found = Vec::new();
        while !left.is_empty() {
            let asked: Vec<Csn> = left.iter().copied().take(FETCH_CHANGES_MAX).collect();
            let answer = self.fetch(Vec::new(), asked.clone()).await?;
            let come = answer.changes.iter().map(|change| change.csn).chain(answer.forgotten);
            let come: BTreeSet<Csn> = come.collect();
            // The first of which it does not speak is too large for an answer.
            let large = asked.into_iter().find(|csn| !come.contains(csn)).filter(|_| !answer.more);
            let is_wanted = |change: &Change| left.contains(&change.csn);
            found.extend(answer.changes.into_iter().filter(is_wanted));
            let before = left.len();
            left.retain(|csn| !come.contains(csn) && large != Some(*csn));
            if left.len() == before {
                return Err(HealError::Unexpected);
            }
            if let Some(csn) = large {
                let what = FileRequest::Change(csn);
                found.push(files::fetch(&self.group, &self.shared.offers, &self.peer, what).await?);
            }
        }
        let mut found = self.shared.clock.filter(found, &self.peer);
        found.sort_by_key(|change| change.csn);
        Ok(found)
    }

    async fn fetch(&self, uuids: Vec<EntryUuid>, changes: Vec<Csn>) -> Result<Entries, HealError> {
        let fetch = Fetch { uuids, changes, bytes_max: limits::ENTRIES_BYTES_MAX };
        match self.request(Payload::Fetch(fetch)).await? {
            Payload::Entries(entries) => Ok(entries),
            _ => Err(HealError::Unexpected),
        }
    }

    /// An entry that is too large for an answer.
    async fn fetch_large(&self, uuid: EntryUuid) -> Result<Change, HealError> {
        let what = FileRequest::Entry(uuid);
        Ok(files::fetch(&self.group, &self.shared.offers, &self.peer, what).await?)
    }
}

/// The side of an entry of which it remembers too much to tell: as if it had forgotten all that it has seen.
pub(super) fn forgetful(side: &Side) -> Side {
    Side { floor: side.seen.vector.clone(), ..side.clone() }
}

/// What an answer says of each of these entries; nothing of those that the peer could not apply itself.
fn together(
    answer: Entries,
    states: Vec<Change>,
    page: &BTreeSet<EntryUuid>,
) -> Result<Vec<Theirs>, HealError> {
    let side = Arc::new(answer.side.ok_or(HealError::Unexpected)?);
    let forgetful = Arc::new(forgetful(&side));
    let mut pasts: BTreeMap<EntryUuid, Past> =
        answer.pasts.into_iter().map(|past| (past.uuid, past)).collect();
    let mut together = |uuid: EntryUuid, state: Option<Change>| {
        let past = pasts.remove(&uuid).unwrap_or_else(|| Past::new(uuid));
        let (state, tombstone) = match state {
            Some(Change { operation: Operation::Delete { .. }, csn, .. }) => (None, Some(csn)),
            state => (state, past.deleted),
        };
        let (entry, glue) = prints(state.as_ref());
        let side = if past.has_many { &forgetful } else { &side };
        let known = Known {
            entry,
            glue,
            tombstone,
            changes: past.changes.into_iter().collect(),
            has_many: past.has_many,
            waiting: past.waiting.into_iter().collect(),
            refused: past.is_refused,
            in_doubt: past.in_doubt,
        };
        Theirs { uuid, state, known, moves: past.moves, side: Arc::clone(side) }
    };
    let states = states.into_iter().filter(|state| page.contains(&state.uuid));
    let mut all: Vec<Theirs> = states.map(|state| together(state.uuid, Some(state))).collect();
    let absent = answer.absent.into_iter().filter(|uuid| page.contains(uuid));
    all.extend(absent.map(|uuid| together(uuid, None)));
    let each: BTreeSet<EntryUuid> = all.iter().map(|theirs| theirs.uuid).collect();
    if each.len() < all.len() { Err(HealError::Unexpected) } else { Ok(all) }
}

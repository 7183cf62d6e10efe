//! What becomes of the entries that both do not have alike, and what of that goes into the database here.

use super::fetching::{Theirs, forgetful};
use super::knowledge::{Likeness, Looked, look};
use super::offering::Offers;
use super::{HealError, Healed, Healer, as_put, tombstone};
use crate::apply;
use crate::limits;
use crate::merging::Taking;
use crate::states::{self, Deleting};
use crate::to_apply::Incoming;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tracing::{debug, info};
use xmppsync_replica::{Change, Csn, EntryUuid, Judgement, Known, Move, Side, Sides, Verdict};
use xmppsync_wire::limits::FETCH_CHANGES_MAX;

/// What is to be done here.
#[derive(Default)]
struct Gathered {
    /// Changes that the peer remembers, to be made here.
    apply: BTreeSet<Csn>,
    /// Those of them that are in an entry here, which is like the peer's.
    contained: Vec<(Csn, EntryUuid)>,
    deletes: Vec<Deleting>,
    takes: Vec<Taking>,
    /// Places of deleted entries, for those below them.
    places: Vec<Taking>,
    /// Of `takes`.
    bytes: usize,
    /// Entries are more than can be held, with their depths in the tree: they are fetched once more, parents before their
    /// children, and go into the database as they come.
    later: Vec<(usize, EntryUuid)>,
    /// Entries that were in doubt and are not any more.
    certain: Vec<(EntryUuid, Option<Likeness>)>,
    /// Moves that the peer knows, to be learned.
    moves: Vec<Move>,
    /// Entries of which neither side can tell whether all of it is right.
    guesses: usize,
}

impl Gathered {
    fn take(&mut self, taking: Taking) {
        self.bytes += taking.size();
        self.takes.push(taking);
        if !self.later.is_empty() || self.bytes > limits::STATES_BYTES_MAX {
            let place = |taking: Taking| (states::depth(taking.state.operation.dn()), taking.state.uuid);
            self.later.extend(self.takes.drain(..).map(place));
            self.bytes = 0;
        }
    }

    /// An entry that is deleted on both sides may have to have its place here.
    fn place(&mut self, theirs: Theirs, own: &Looked, sides: &Sides) {
        let again = sides.place(&own.known, &theirs.known);
        self.places.extend(again.and_then(|again| taking(theirs, own, &again)));
    }
}

/// An entry on both sides.
struct Pair {
    theirs: Theirs,
    own: Looked,
    sides: Arc<Sides>,
}

/// What a first look found of an entry that has the same entryCSN on both sides.
type Unlike = (Option<Likeness>, Option<Likeness>);

impl Healer {
    /// Looks at these entries on both sides, and does here what follows. Returns what the peer is to look at.
    pub(crate) async fn look_at(
        &self,
        uuids: &[EntryUuid],
        healed: &mut Healed,
    ) -> Result<Offers, HealError> {
        let (mut gathered, mut offers) = (Gathered::default(), Offers::default());
        let looked = self.judge_all(uuids, &mut gathered, &mut offers, healed).await;
        let Gathered { apply, contained, deletes, mut takes, places, mut later, certain, .. } = gathered;
        let (mut moves, guesses) = (gathered.moves, gathered.guesses);
        apply::note_contained(&self.shared, contained);
        // Whatever is later has to be made again: so hardly anything is.
        moves.sort_by_key(|made| made.csn);
        if guesses > 0 {
            info!(
                "{guesses} entries differ from those of {} and neither server remembers why: of each the one that is right as far as \
                 can be told is kept",
                self.peer
            );
        }
        // What has come is of use, whatever was to follow.
        let mut work: Vec<Incoming> =
            certain.into_iter().map(|(uuid, like)| Incoming::Certain(uuid, like)).collect();
        work.extend(moves.chunks(limits::MOVES_LEARNED_AT_ONCE).map(|moves| Incoming::Moves(moves.into())));
        states::push(&self.shared, work).await;
        let made = self.make(&apply.into_iter().collect::<Vec<_>>(), healed).await;
        takes.extend(places);
        let told = self.tell_history(&mut takes).await;
        // A name is given up before another entry gets it.
        let applied = states::apply(&self.shared, deletes, takes).await;
        looked.and(made).and(told)?;
        applied.ok_or(HealError::Lost)?;
        later.sort_by_key(|(depth, _)| *depth);
        let later: Vec<EntryUuid> = later.into_iter().map(|(_, uuid)| uuid).collect();
        self.take_in_order(&later, healed).await?;
        Ok(offers)
    }

    /// Makes changes here that the peer remembers.
    async fn make(&self, csns: &[Csn], healed: &mut Healed) -> Result<(), HealError> {
        for some in csns.chunks(FETCH_CHANGES_MAX) {
            let changes = self.fetch_changes(some).await?;
            healed.taken += changes.len();
            // It has forgotten the others meanwhile.
            healed.left += some.len() - changes.len();
            let changes = changes.into_iter().map(|change| Incoming::Waited(Arc::new(change)));
            states::push(&self.shared, changes.collect()).await;
        }
        Ok(())
    }

    async fn judge_all(
        &self,
        uuids: &[EntryUuid],
        gathered: &mut Gathered,
        offers: &mut Offers,
        healed: &mut Healed,
    ) -> Result<(), HealError> {
        let mut open = uuids.to_vec();
        let mut unlike: BTreeMap<EntryUuid, Unlike> = BTreeMap::new();
        for attempt in 0..limits::SETTLE_TRIES {
            if attempt > 0 {
                tokio::time::sleep(limits::SETTLE_PAUSE).await;
            }
            let mut again = Vec::new();
            let mut asked = &open[..];
            while !asked.is_empty() {
                for Pair { theirs, own, sides } in self.next_pairs(&mut asked, healed).await? {
                    let verdict = sides.judge(&own.known, &theirs.known);
                    gathered.moves.extend(theirs.moves.iter().filter(|made| sides.is_new(made.csn)));
                    let pair = (own.known.entry, theirs.known.entry);
                    // It may be half of something that is on its way.
                    let is_coming = verdict.then == Judgement::Leave && !own.known.refused;
                    // What comes in its turn may hide what does not: where the vector is to move, the entry has to be right.
                    let is_fresh = theirs.is_being_written()
                        || (is_coming && self.catches_up)
                        || (is_unexplained(&verdict, pair) && unlike.insert(theirs.uuid, pair) != Some(pair));
                    if is_fresh {
                        again.push(theirs.uuid);
                    } else {
                        healed.coming += usize::from(is_coming);
                        if !self.catches_up {
                            debug!(
                                "entry {}: {verdict:?}; here {:?}; there {:?}",
                                theirs.uuid, own.known, theirs.known
                            );
                        }
                        carry_out(verdict, theirs, &own, &sides, gathered, offers, healed);
                    }
                }
            }
            open = again;
            if open.is_empty() {
                return Ok(());
            }
        }
        healed.left += open.len();
        Ok(())
    }

    /// A page of entries as the peer has them, and as they are here. This side is looked at after the other one.
    async fn next_pairs(
        &self,
        asked: &mut &[EntryUuid],
        healed: &mut Healed,
    ) -> Result<Vec<Pair>, HealError> {
        let page = self.next_page(asked, healed).await?;
        let uuids: Vec<EntryUuid> = page.iter().map(|theirs| theirs.uuid).collect();
        let (here, mut own) = look(&self.shared, &uuids).await.ok_or(HealError::NoJournal)?;
        let mut pairs: Vec<Pair> = Vec::with_capacity(page.len());
        for theirs in page {
            let own = own.remove(&theirs.uuid).unwrap_or_default();
            // Both sides judge by the same.
            let has_many = own.known.has_many;
            let is_like = |before: &&Pair| {
                Arc::ptr_eq(&before.theirs.side, &theirs.side) && before.own.known.has_many == has_many
            };
            let sides = match pairs.last().filter(is_like) {
                Some(before) => Arc::clone(&before.sides),
                None if has_many => Arc::new(self.sides(&forgetful(&here), &theirs.side)),
                None => Arc::new(self.sides(&here, &theirs.side)),
            };
            pairs.push(Pair { theirs, own, sides });
        }
        Ok(pairs)
    }

    fn sides(&self, here: &Side, there: &Side) -> Sides {
        let mut reach = here.seen.vector.clone();
        if self.catches_up {
            there.seen.vector.iter().for_each(|csn| reach.advance(csn));
        }
        Sides { here: here.clone(), there: there.clone(), reach }
    }

    /// So many that they cannot all be held.
    async fn take_in_order(&self, mut asked: &[EntryUuid], healed: &mut Healed) -> Result<(), HealError> {
        let mut takes: Vec<Taking> = Vec::new();
        while !asked.is_empty() {
            for Pair { theirs, own, sides } in self.next_pairs(&mut asked, healed).await? {
                if theirs.is_being_written() {
                    healed.left += 1;
                    continue;
                }
                match sides.judge(&own.known, &theirs.known).then {
                    Judgement::Take(again) => takes.extend(taking(theirs, &own, &again)),
                    Judgement::Same(_) => {}
                    // It became another thing meanwhile.
                    _ => healed.left += 1,
                }
            }
            let bytes: usize = takes.iter().map(Taking::size).sum();
            if bytes > limits::STATES_BYTES_MAX {
                let mut takes = std::mem::take(&mut takes);
                self.tell_history(&mut takes).await?;
                states::apply(&self.shared, Vec::new(), takes).await.ok_or(HealError::Lost)?;
            }
        }
        self.tell_history(&mut takes).await?;
        states::apply(&self.shared, Vec::new(), takes).await.ok_or(HealError::Lost)
    }

    /// Where something that is known here is made again on top of a state, what is in that tells what it means. Of too many it stays
    /// open, and the entries are in doubt.
    async fn tell_history(&self, takes: &mut [Taking]) -> Result<(), HealError> {
        let mut wanted = BTreeSet::new();
        for taking in takes.iter().filter(|taking| !taking.lacks.is_empty()) {
            if wanted.len() + taking.lacks.len() <= limits::TOLD_CHANGES_MAX {
                wanted.extend(taking.lacks.iter().copied());
            }
        }
        let told = self.fetch_changes(&wanted.into_iter().collect::<Vec<_>>()).await?;
        let mut by_entry: BTreeMap<EntryUuid, Vec<Arc<Change>>> = BTreeMap::new();
        told.into_iter().for_each(|change| by_entry.entry(change.uuid).or_default().push(Arc::new(change)));
        for taking in takes.iter_mut().filter(|taking| !taking.lacks.is_empty()) {
            taking.history = by_entry.remove(&taking.state.uuid).unwrap_or_default();
        }
        Ok(())
    }
}

/// Whether one of two entries with one entryCSN is to become like the other.
fn is_unexplained(verdict: &Verdict, (own, theirs): Unlike) -> bool {
    let is_change = matches!(verdict.then, Judgement::Take(_) | Judgement::Give);
    let csn = |entry: Option<Likeness>| entry.map(|(csn, _)| csn);
    is_change && own.is_some() && csn(own) == csn(theirs)
}

fn taking(theirs: Theirs, own: &Looked, again: &[Csn]) -> Option<Taking> {
    let Theirs { state, known, moves, side, .. } = theirs;
    let is_all = again.is_empty() && own.unclear.is_empty();
    let lacks = known.changes.difference(&own.known.changes).copied().collect();
    Some(Taking {
        state: Arc::new(as_put(state?)),
        here: own.known.entry,
        is_all,
        lacks: if is_all { Vec::new() } else { lacks },
        history: Vec::new(),
        theirs: known,
        there: side,
        moves: moves.iter().map(|known| known.csn).collect(),
    })
}

fn carry_out(
    verdict: Verdict,
    theirs: Theirs,
    own: &Looked,
    sides: &Sides,
    gathered: &mut Gathered,
    offers: &mut Offers,
    healed: &mut Healed,
) {
    let uuid = theirs.uuid;
    gathered.guesses += usize::from(verdict.is_guess);
    let is_alike = is_alike(&own.known, &theirs.known);
    for csn in verdict.apply {
        if is_alike && sides.here.seen.vector.covers(csn) {
            gathered.contained.push((csn, uuid));
        } else {
            gathered.apply.insert(csn);
        }
    }
    match verdict.then {
        Judgement::Take(again) => {
            if let Some(taking) = taking(theirs, own, &again) {
                healed.taken += 1;
                gathered.take(taking);
            }
        }
        Judgement::Delete(csn, _) => {
            healed.taken += 1;
            gathered.deletes.push(Deleting { delete: tombstone(uuid, csn), takes_later: true });
            gathered.place(theirs, own, sides);
        }
        Judgement::Give => {
            if !is_coming_there(&own.known, sides) {
                let depth = own.state.as_ref().map_or(0, |state| states::depth(state.operation.dn()));
                offers.entries.push((depth, uuid));
            }
        }
        Judgement::GiveTombstone(csn) => offers.tombstones.push(tombstone(uuid, csn)),
        Judgement::Same(is_sure) => {
            if is_sure && own.known.in_doubt {
                gathered.certain.push((uuid, own.known.entry));
            }
            gathered.place(theirs, own, sides);
        }
        Judgement::Leave => {}
    }
}

/// Whether what counts as unseen here, and is in the entry there, is in this one as well: it was seen, or what came of it.
fn is_alike(own: &Known, theirs: &Known) -> bool {
    own.entry == theirs.entry
        && own.glue == theirs.glue
        && own.waiting.is_empty()
        && (own.entry.is_some() || own.tombstone.is_some())
}

/// Whether the other one gets in its turn what it lacks.
fn is_coming_there(own: &Known, Sides { here, there, .. }: &Sides) -> bool {
    let entry = own.entry.or(own.glue).map(|(csn, _)| csn).or(own.tombstone);
    let mut past = here.floor.iter().chain(own.changes.iter().copied()).chain(entry);
    past.any(|csn| !there.seen.vector.covers(csn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldap3_proto::proto::{LdapAddRequest, LdapPartialAttribute};
    use xmppsync_replica::Operation;

    fn csn(server: u16) -> Csn {
        format!("20261122235959.000000Z#000000#{server:03x}#000000").parse().unwrap()
    }

    fn take(number: u8, dn: &str, bytes: usize) -> Taking {
        let attributes =
            vec![LdapPartialAttribute { atype: "description".to_owned(), vals: vec![vec![b'x'; bytes]] }];
        let operation = Operation::Put(LdapAddRequest { dn: dn.to_owned(), attributes });
        let uuid = EntryUuid::from_bytes([number; 16]);
        let state = Change { csn: csn(1), uuid, parent: None, operation };
        Taking {
            state: Arc::new(state),
            here: None,
            is_all: true,
            lacks: Vec::new(),
            history: Vec::new(),
            theirs: Known::default(),
            there: Arc::default(),
            moves: BTreeSet::new(),
        }
    }

    #[test]
    fn entries_that_are_more_than_can_be_held_are_noted_with_their_place_in_the_tree() {
        let mut gathered = Gathered::default();
        gathered.take(take(1, "cn=b,cn=a,dc=x", limits::STATES_BYTES_MAX / 2));
        assert!(gathered.later.is_empty());
        gathered.take(take(2, "cn=a,dc=x", limits::STATES_BYTES_MAX / 2));
        gathered.take(take(3, "cn=c,cn=b,cn=a,dc=x", 1));
        assert!(gathered.takes.is_empty() && gathered.bytes == 0);
        let depths: Vec<usize> = gathered.later.iter().map(|(depth, _)| *depth).collect();
        assert_eq!(depths, [3, 2, 4]);
    }

    #[test]
    fn nothing_is_offered_that_comes_in_its_turn() {
        let side = |csns: &[Csn]| {
            let mut side = Side::default();
            csns.iter().for_each(|csn| side.seen.vector.advance(*csn));
            side
        };
        let own = Known { changes: BTreeSet::from([csn(1), csn(2)]), ..Known::default() };
        let sides = |there: &[Csn]| Sides { there: side(there), ..Sides::default() };
        assert!(is_coming_there(&own, &sides(&[csn(1)])));
        assert!(!is_coming_there(&own, &sides(&[csn(1), csn(2)])));
    }
}

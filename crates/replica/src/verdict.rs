//! What becomes of an entry that two replicas do not have alike, as a comparison of them found.
//!
//! A state does not tell which changes are in it. What tells is what both remember of the entry's past, and from where on their journals
//! do. Whatever one of them lacks and the other one remembers is made there as any change that comes late; what nobody remembers any more is in
//! the state.

use crate::mutation::{self, Mutation};
use crate::{Csn, Fingerprint, Unseen, Vector};
use std::collections::BTreeSet;

/// How far a replica has come, and what of that it has not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Up to where.
    pub vector: Vector,
    /// What of that is missing, or may be.
    pub unseen: Unseen,
}

impl Seen {
    /// Whether the change was seen.
    pub fn covers(&self, csn: Csn) -> bool {
        self.vector.covers(csn) && !self.unseen.contains(csn)
    }

    /// Whether everything up to `until` was seen that the other one, which has come as far as that, has seen.
    fn covers_all(&self, until: Csn, other: &Unseen) -> bool {
        let server = until.server_id();
        let is_missing_there = |after: Option<Csn>, until: Csn| {
            other.of(server).any(|span| span.after() <= after && span.until() >= until)
        };
        let reached = self.vector.get(server);
        let mut own = self.unseen.of(server).filter(|span| span.after() < Some(until));
        let all_else = reached >= Some(until) || is_missing_there(reached, until);
        all_else && own.all(|span| is_missing_there(span.after(), until.min(span.until())))
    }
}

/// One of the two sides of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// What it has seen, from before its entries were looked at.
    pub seen: Seen,
    /// Of what is not later it remembers no changes, or not all.
    pub floor: Vector,
}

impl Side {
    /// Whether the change is in the entry there, as far as that can be told.
    pub fn has(&self, known: &Known, csn: Csn) -> bool {
        let is_forgotten = self.saw(known, csn) && self.floor.covers(csn) && !known.waiting.contains(&csn);
        known.changes.contains(&csn) || is_forgotten
    }

    /// Whether the change was seen, if it was one of this entry. What is not later than an entry that is there is in it, unless the
    /// database was put back.
    pub fn saw(&self, known: &Known, csn: Csn) -> bool {
        let Seen { vector, unseen } = &self.seen;
        let is_in = !known.refused && known.last() >= Some(csn);
        vector.covers(csn) && !unseen.is_in_part(csn) && (is_in || !unseen.contains(csn))
    }

    /// What it has seen of the entries that it has, or of those that it lacks.
    fn seen_with(&self, known: &Known) -> Seen {
        let Seen { vector, unseen } = &self.seen;
        let is_whole = known.last().is_some() && !known.refused;
        let unseen = if is_whole { unseen.parts() } else { unseen.clone() };
        Seen { vector: vector.clone(), unseen }
    }
}

/// An entry as one of the two has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its entryCSN, and what it is like.
    pub entry: Option<(Csn, Fingerprint)>,
    /// When it was deleted.
    pub tombstone: Option<Csn>,
    /// It is deleted, and there for those below it: as `entry`.
    pub glue: Option<(Csn, Fingerprint)>,
    /// What is in it, as far as that is remembered.
    pub changes: BTreeSet<Csn>,
    /// Those are too many to be told to another replica.
    pub has_many: bool,
    /// What waits for it, or for its parent, and is not in it yet.
    pub waiting: BTreeSet<Csn>,
    /// It came once and could not be applied.
    pub refused: bool,
    /// It may have what should have lost, because changes came late of which it was not known which later ones there are.
    pub in_doubt: bool,
}

impl Known {
    /// What is to be said for it beside its state. Who is sure is right, or else who remembers more: where what is later was forgotten, what
    /// came late had no effect. What is remembered travels with the state.
    fn standing(&self) -> (bool, usize) {
        let remembered = if self.has_many { usize::MAX } else { self.changes.len() };
        (!self.in_doubt, if self.in_doubt { remembered } else { 0 })
    }

    /// The last change of the entry that is there.
    fn last(&self) -> Option<Csn> {
        self.entry.or(self.glue).map(|(csn, _)| csn)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// First these changes are to be made here, which the other one remembers.
    pub apply: Vec<Csn>,
    /// And then this.
    pub then: Judgement,
    /// Neither side can tell whether all of it is right: what they would have to know was forgotten or lost.
    pub is_guess: bool,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing: what differs comes, or goes, by itself.
    Leave,
    /// They are alike, and no doubt is left if so it says.
    Same(bool),
    /// The other one's state is to be taken as a whole, and these own changes to be made again.
    Take(Vec<Csn>),
    /// The entry is to be deleted, under this CSN, and no doubt is left if so it says.
    Delete(Csn, bool),
    /// What is here the other one is to look at: the entry, its past, or when it was deleted.
    Give,
    /// It was here once in just this state, and was deleted.
    GiveTombstone(Csn),
}

/// Both sides.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// This side.
    pub here: Side,
    /// The other one.
    pub there: Side,
    /// How far the own vector will be when the comparison has ended. What is beyond comes in its turn.
    pub reach: Vector,
}

/// Whether one side may have seen of the entry what it does not remember, and the other one has not seen.
fn hides((one, known): (&Side, &Known), (from, other): (&Side, &Known)) -> bool {
    let (unseen, seen) = (one.seen_with(known).unseen, from.seen_with(other));
    !mutation::is(Mutation::FloorForgotten) && !one.floor.iter().all(|until| seen.covers_all(until, &unseen))
}

/// What one side remembers of an entry and is not in it on the other side.
fn lacking(remembered: &Known, at: &Side, known: &Known) -> Vec<Csn> {
    // What waits on both sides comes on both.
    let waiting = remembered.waiting.difference(&known.waiting);
    let waiting = waiting.filter(|_| !mutation::is(Mutation::WaitingForgotten));
    let all: BTreeSet<Csn> = remembered.changes.iter().chain(waiting).copied().collect();
    { all }.into_iter().filter(|csn| !at.has(known, *csn)).collect()
}

impl Sides {
    /// What becomes of the entry here.
    pub fn judge(&self, own: &Known, theirs: &Known) -> Verdict {
        let missing = self.missing(own, theirs);
        let then = self.judgement(own, theirs, &missing);
        let keeps = !matches!(then, Judgement::Take(_) | Judgement::Leave | Judgement::GiveTombstone(_));
        let differ = own.entry != theirs.entry || own.glue != theirs.glue;
        let (there_hides, here_hides) = self.hide(own, theirs);
        let is_guess = differ && there_hides && here_hides;
        Verdict { apply: if keeps { missing } else { Vec::new() }, then, is_guess }
    }

    fn judgement(&self, own: &Known, theirs: &Known, missing: &[Csn]) -> Judgement {
        // A state has in it what was forgotten, and whatever is remembered.
        let is_coming = |csn: Csn| !self.reach.covers(csn);
        let past = || self.there.floor.iter().chain(theirs.changes.iter().copied());
        let any_is_coming = |csn| is_coming(csn) || past().any(is_coming);
        match (own.entry, theirs.entry, theirs.tombstone) {
            (here, there, _) if here == there && here.is_some() => Judgement::Same(self.is_sure(own, theirs)),
            (_, Some((csn, _)), _) if any_is_coming(csn) => Judgement::Leave,
            (Some(here), Some(there), _) => self.judge_entries(own, theirs, missing, (here, there)),
            (None, Some((csn, _)), _) => self.judge_new(own, theirs, csn),
            (Some((csn, _)), None, Some(gone)) => self.judge_gone(own, theirs, csn, gone),
            (None, None, Some(gone)) if own.tombstone.is_some() && any_is_coming(gone) => Judgement::Leave,
            (None, None, Some(gone)) => self.judge_both_gone(own, theirs, missing, gone),
            (Some(_), None, None) => Judgement::Give,
            (None, None, None) => Judgement::Same(false),
        }
    }

    /// Whether a change, or a move in the log of moves, that the other one remembers is to be learned here: it does not come in its turn, and
    /// is not among what was seen here and forgotten. Of that the tree has it already.
    pub fn is_new(&self, csn: Csn) -> bool {
        self.reach.covers(csn) && !(self.here.seen.covers(csn) && self.here.floor.covers(csn))
    }

    /// Where an entry is deleted here that has its place there: whether that is where it is to be, by what was forgotten there or because
    /// nothing is known of it here, as by [`Judgement::Take`], with these own changes to be made again. Those below it may need it as glue, here or later.
    pub fn place(&self, own: &Known, theirs: &Known) -> Option<Vec<Csn>> {
        let past = self.there.floor.iter().chain(theirs.changes.iter().copied());
        if { past }.any(|csn| !self.reach.covers(csn)) {
            return None;
        }
        let (there_hides, _) = self.hide(own, theirs);
        let is_unknown = own.tombstone.is_none() && own.changes.is_empty() || own.in_doubt;
        let is_unknown_here = own.entry.is_none() && own.glue.is_none() && is_unknown;
        (theirs.glue.is_some() && (there_hides || is_unknown_here)).then(|| lacking(own, &self.there, theirs))
    }

    /// Whether the other one's doubt about an entry becomes one here: it has seen more, and nothing of that comes any more but by this
    /// comparison. So it is also where the entry is alike on both sides.
    pub fn passes_doubt(&self, theirs: &Known) -> bool {
        let beyond = |until: Csn| !self.here.seen.covers_all(until, &self.there.seen.unseen);
        theirs.in_doubt
            && self.there.seen.vector.iter().any(beyond)
            && self.reach.dominates(&self.there.seen.vector)
    }

    /// Whether there is no more to learn from the other one: what it has, it has with all that is known here.
    fn is_sure(&self, own: &Known, theirs: &Known) -> bool {
        self.there.seen.vector.dominates(&self.here.seen.vector)
            && !theirs.in_doubt
            && lacking(own, &self.there, theirs).is_empty()
    }

    /// What the other one remembers and is not in the entry here, but for what comes in its turn and what waits.
    fn missing(&self, own: &Known, theirs: &Known) -> Vec<Csn> {
        // It was never here: all that is known may tell where it would be.
        let is_place_unknown = own.entry.is_none() && !own.waiting.is_empty() && theirs.entry.is_none();
        let missing = match is_place_unknown {
            true => theirs.changes.difference(&own.changes).copied().collect(),
            false => lacking(theirs, &self.here, own),
        };
        { missing }.into_iter().filter(|csn| self.reach.covers(*csn) && !own.waiting.contains(csn)).collect()
    }

    fn judge_entries(
        &self,
        own: &Known,
        theirs: &Known,
        missing: &[Csn],
        (here, there): ((Csn, Fingerprint), (Csn, Fingerprint)),
    ) -> Judgement {
        let to_give = lacking(own, &self.there, theirs);
        let (there_hides, here_hides) = self.hide(own, theirs);
        // What should be here may or may not be; the other one has all of it.
        let is_unclear = missing.iter().any(|csn| self.here.seen.vector.covers(*csn));
        if is_unclear && !here_hides && (own.in_doubt || !theirs.in_doubt) {
            return Judgement::Take(to_give);
        }
        if !(there_hides || missing.is_empty() && to_give.is_empty()) {
            return Judgement::Give;
        }
        let is_theirs = match (here_hides, there_hides) {
            // Something was lost, nobody knows where, and it has to be the same on both sides.
            _ if self.is_even() || !(here_hides || there_hides) => {
                (theirs.standing(), there) > (own.standing(), here)
            }
            (true, true) => there > here,
            (here_hides, _) => !here_hides,
        };
        match is_theirs {
            true => Judgement::Take(to_give),
            false => Judgement::Give,
        }
    }

    /// Whether the other side, and this one, may have something in the entry that it does not remember, and the other one lacks.
    fn hide(&self, own: &Known, theirs: &Known) -> (bool, bool) {
        let (here, there) = ((&self.here, own), (&self.there, theirs));
        (hides(there, here), hides(here, there))
    }

    /// Whether both have come as far.
    fn is_even(&self) -> bool {
        self.here.seen.vector == self.there.seen.vector
    }

    fn judge_gone(&self, own: &Known, theirs: &Known, csn: Csn, gone: Csn) -> Judgement {
        let is_here = own.changes.contains(&gone) || (self.here.seen.covers(gone) && !own.in_doubt);
        if is_here {
            // Then it was brought back.
            return if csn > gone { Judgement::Give } else { Judgement::Delete(gone, false) };
        }
        // What later changes were lost to the delete, and whether one of them brings the entry back, is known on one side at least.
        Judgement::Delete(gone, self.is_sure(own, theirs))
    }

    /// Those below it may need it, and then it is to have one name.
    fn judge_both_gone(&self, own: &Known, theirs: &Known, missing: &[Csn], gone: Csn) -> Judgement {
        let is_sure = self.is_sure(own, theirs);
        match (own.tombstone, own.glue.zip(theirs.glue)) {
            (Some(_), Some((here, there))) if here != there => {
                self.judge_entries(own, theirs, missing, (here, there))
            }
            (Some(_), _) => Judgement::Same(is_sure),
            (None, _) => Judgement::Delete(gone, is_sure),
        }
    }

    fn judge_new(&self, own: &Known, theirs: &Known, csn: Csn) -> Judgement {
        let is_seen = |gone| self.there.seen.covers(gone) && !theirs.in_doubt;
        let knows = |gone| theirs.changes.contains(&gone) || is_seen(gone);
        match own.tombstone {
            _ if own.refused && !own.in_doubt => Judgement::Leave,
            // It was brought back.
            Some(gone) if knows(gone) && csn > gone => Judgement::Take(Vec::new()),
            Some(_) => Judgement::Give,
            // It was here once in just this state.
            None if self.here.seen.covers(csn) && !own.in_doubt && own.waiting.is_empty() => {
                Judgement::GiveTombstone(csn)
            }
            None => Judgement::Take(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csn(second: u8, server: u8) -> Csn {
        format!("202611222359{second:02}.000000Z#000000#{server:03x}#000000").parse().unwrap()
    }

    fn vector(csns: &[Csn]) -> Vector {
        csns.iter().copied().collect()
    }

    /// A side that has seen all up to `seen`, and remembers what is after `floor`.
    fn side(seen: &[Csn], floor: &[Csn]) -> Side {
        let seen = Seen { vector: vector(seen), unseen: Unseen::default() };
        Side { seen, floor: vector(floor) }
    }

    /// An entry of which the changes are the last one's.
    fn entry(print: u8, changes: &[Csn]) -> Known {
        let entry = changes.iter().max().map(|last| (*last, Fingerprint::from_bytes([print; 16])));
        Known { entry, changes: changes.iter().copied().collect(), ..Known::default() }
    }

    /// One that the last of them deleted.
    fn gone(changes: &[Csn]) -> Known {
        let tombstone = changes.iter().max().copied();
        Known { tombstone, changes: changes.iter().copied().collect(), ..Known::default() }
    }

    fn judge(here: &Side, own: &Known, there: &Side, theirs: &Known) -> Verdict {
        let reach = here.seen.vector.iter().chain(there.seen.vector.iter()).collect();
        Sides { here: here.clone(), there: there.clone(), reach }.judge(own, theirs)
    }

    fn only(then: Judgement) -> Verdict {
        Verdict { apply: Vec::new(), then, is_guess: false }
    }

    #[test]
    fn what_only_the_other_one_remembers_is_made_here() {
        let (a, b) = (csn(1, 1), csn(2, 2));
        let (here, there) = (side(&[a], &[]), side(&[a, b], &[]));
        let verdict = judge(&here, &entry(1, &[a]), &there, &entry(2, &[a, b]));
        assert_eq!(verdict.apply, [b]);
        assert_eq!(judge(&there, &entry(2, &[a, b]), &here, &entry(1, &[a])), only(Judgement::Give));
    }

    #[test]
    fn what_a_server_wrote_before_it_lost_its_journal_is_not_replaced_by_what_was_before_it() {
        let (a, before, written) = (csn(1, 1), csn(2, 2), csn(3, 2));
        let here = side(&[a, before], &[]);
        let mut there = side(&[a, written], &[a, written]);
        there.seen.unseen = Unseen::all(&there.seen.vector);
        let own = entry(1, &[before]);
        let theirs = Known { changes: BTreeSet::new(), ..entry(2, &[written]) };
        assert_eq!(judge(&here, &own, &there, &theirs).then, Judgement::Take(Vec::new()));
        assert_eq!(judge(&there, &theirs, &here, &own), only(Judgement::Give));
        // What is later than its entry it has not.
        let later = entry(3, &[before, csn(4, 1)]);
        let here = side(&[csn(4, 1), before], &[]);
        assert_eq!(judge(&here, &later, &there, &theirs).then, Judgement::Take(vec![csn(4, 1)]));
    }

    #[test]
    fn where_it_is_not_known_what_was_seen_the_state_of_the_one_that_has_all_is_taken() {
        let (a, b) = (csn(1, 1), csn(2, 2));
        let mut here = side(&[a, b], &[a, b]);
        here.seen.unseen = Unseen::all(&here.seen.vector);
        let there = side(&[a, b], &[]);
        let theirs = entry(2, &[a, b]);
        let own = Known { changes: BTreeSet::new(), ..entry(1, &[a, b]) };
        assert_eq!(judge(&here, &own, &there, &theirs), only(Judgement::Take(Vec::new())));
        assert_eq!(judge(&there, &theirs, &here, &own), only(Judgement::Give));
    }

    #[test]
    fn what_the_other_one_has_forgotten_comes_with_its_state_and_what_it_lacks_is_made_again() {
        let (a, b, c) = (csn(1, 1), csn(2, 2), csn(3, 3));
        // The one there has forgotten its own change, and has not seen the one here.
        let (here, there) = (side(&[a, c], &[]), side(&[a, b], &[b]));
        let verdict = judge(&here, &entry(1, &[a, c]), &there, &entry(2, &[a]));
        assert_eq!(verdict, only(Judgement::Take(vec![c])));
    }

    #[test]
    fn what_comes_in_its_turn_is_left_to_come() {
        let (a, b) = (csn(1, 1), csn(2, 2));
        let sides = Sides { here: side(&[a], &[]), there: side(&[a, b], &[]), reach: vector(&[a]) };
        assert_eq!(sides.judge(&entry(1, &[a]), &entry(2, &[a, b])), only(Judgement::Leave));
    }

    #[test]
    fn a_delete_that_is_not_known_here_is_made_and_an_own_one_is_given() {
        let (a, b) = (csn(1, 1), csn(2, 2));
        let (here, there) = (side(&[a], &[]), side(&[a, b], &[]));
        let verdict = judge(&here, &entry(1, &[a]), &there, &gone(&[a, b]));
        assert_eq!((verdict.apply, verdict.then), (vec![b], Judgement::Delete(b, true)));
        assert_eq!(judge(&there, &gone(&[a, b]), &here, &entry(1, &[a])).then, Judgement::Give);
    }

    #[test]
    fn a_deleted_entry_of_which_nothing_is_known_here_gets_the_place_that_it_has_there_for_those_below_it() {
        let a = csn(1, 1);
        let both = side(&[a], &[a]);
        let sides = Sides { here: both.clone(), there: both, reach: vector(&[a]) };
        let theirs = Known { glue: Some((a, Fingerprint::from_bytes([1; 16]))), ..gone(&[a]) };
        assert_eq!(sides.judge(&Known::default(), &theirs).then, Judgement::Delete(a, true));
        assert_eq!(sides.place(&Known::default(), &theirs), Some(Vec::new()));
        assert_eq!(sides.place(&gone(&[a]), &theirs), None);
        assert_eq!(sides.place(&Known::default(), &gone(&[a])), None);
    }

    #[test]
    fn an_entry_that_was_here_once_was_deleted_unless_it_waits() {
        let a = csn(1, 1);
        let (here, there) = (side(&[a], &[a]), side(&[a], &[]));
        let theirs = entry(1, &[a]);
        assert_eq!(judge(&here, &Known::default(), &there, &theirs).then, Judgement::GiveTombstone(a));
        let waits = Known { waiting: [a].into_iter().collect(), ..Known::default() };
        assert_eq!(judge(&here, &waits, &there, &theirs).then, Judgement::Take(Vec::new()));
        // It never was.
        let nowhere = side(&[], &[]);
        assert_eq!(judge(&nowhere, &Known::default(), &there, &theirs).then, Judgement::Take(Vec::new()));
    }

    #[test]
    fn where_both_have_seen_the_same_the_one_that_is_sure_is_right_and_both_say_so() {
        let a = csn(1, 1);
        let all = side(&[a], &[]);
        let (sure, unsure) = (entry(1, &[a]), Known { in_doubt: true, ..entry(2, &[a]) });
        assert_eq!(judge(&all, &unsure, &all, &sure).then, Judgement::Take(Vec::new()));
        assert_eq!(judge(&all, &sure, &all, &unsure).then, Judgement::Give);
        // Both are in doubt: who remembers more is right.
        let forgetful = side(&[a], &[a]);
        let lost = Known { in_doubt: true, changes: BTreeSet::new(), ..entry(3, &[a]) };
        assert_eq!(judge(&forgetful, &lost, &all, &unsure).then, Judgement::Take(Vec::new()));
        assert_eq!(judge(&all, &unsure, &forgetful, &lost).then, Judgement::Give);
        // Nobody is in doubt: one of them, on both sides.
        let other = entry(2, &[a]);
        assert_eq!(judge(&all, &sure, &all, &other).then, Judgement::Take(Vec::new()));
        assert_eq!(judge(&all, &other, &all, &sure).then, Judgement::Give);
        assert_eq!(judge(&all, &sure, &all, &sure).then, Judgement::Same(true));
    }
}

//! Where no journal reaches back: a replica gets what another one has applied and it has not. The model has it all in one moment.
//!
//! By default what differs is known by change (`exact`). By states, which is what `cargo xtask sim --states` hunts, each side knows of the other how
//! far that has come, and of an entry its state and what is remembered of its past; what becomes of it the rules say
//! ([`Sides::judge`]).

mod exact;

use crate::ledger::{Checked, Checker, broken};
use crate::network::Micros;
use crate::world::World;
use rand::RngExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Judgement, Operation, Sides, Unseen, Vector, Verdict};

/// Time between two comparisons of a replica that has not seen everything, or has entries in doubt.
const COMPARE_INTERVAL: Micros = 5_000_000;

impl World {
    /// The replica takes from another one what it lacks.
    pub(crate) fn compare(&mut self, at: usize, with: usize) -> Checked {
        let now = self.network.instant();
        let is_lost = self.network.rng.random_range(0..1000) < self.network.weather.lost;
        if is_lost || !self.hear(at, with) {
            self.replicas[at].inbox.handle_reconcile_failure(now);
            return Ok(());
        }
        self.stats.compared += 1;
        self.replicas[with].exposed = true;
        if self.by_states {
            self.take_states(at, with)?;
        } else {
            self.take_changes(at, with)?;
        }
        let replica = &mut self.replicas[at];
        // What is on its way into the database comes again, if it is still missing.
        replica.queue.clear();
        replica.inbox.handle_reset(replica.disk.vector.clone(), now);
        replica.news = true;
        Ok(())
    }

    fn take_states(&mut self, at: usize, with: usize) -> Checked {
        let (before, theirs, unseen) = self.standing(at, with);
        let mut reach = before.clone();
        theirs.iter().for_each(|csn| reach.advance(csn));
        let differing = self.differing(at, with);
        self.tell(|| {
            format!("  server {} compares with {}: {differing:?}, unseen {unseen:?}", at + 1, with + 1)
        });
        self.mend(at, with, &differing, &reach)?;
        self.note_alike(at, with, &reach);
        self.pass_guesses(at, with);
        // What the other one has seen is here now.
        let seen = self.replicas[with].disk.unseen.clone();
        let replica = &mut self.replicas[at];
        replica.disk.unseen = replica.disk.unseen.without(&theirs, &seen);
        // The journal may have had what came with the states, and what nobody else has.
        let known: Vec<_> = replica.disk.journal.between(&before, &theirs).cloned().collect();
        let (alone, known): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|change| unseen.contains(change.csn));
        replica.disk.model.remember_all(&known);
        for change in alone {
            if replica.disk.applied.note(&self.ledger, change.csn) == Some(true) {
                replica.disk.model.apply(&change);
            }
        }
        theirs.iter().filter(|csn| !before.covers(*csn)).for_each(|csn| replica.disk.model.reached(csn));
        self.reach(at, &before, &theirs, &unseen)
    }

    /// What is a guess there, and alike here, is one here as well.
    fn pass_guesses(&mut self, at: usize, with: usize) {
        let there = &self.replicas[with].disk.model;
        let alike =
            |uuid: &EntryUuid| self.replicas[at].disk.model.entries().get(uuid) == there.entries().get(uuid);
        let guesses: Vec<_> = there.vague().iter().filter(|uuid| alike(uuid)).copied().collect();
        guesses.into_iter().for_each(|uuid| self.replicas[at].disk.model.note_guess(uuid));
    }

    /// The vector covers what the other one's does.
    fn reach(&mut self, at: usize, before: &Vector, theirs: &Vector, unseen: &Unseen) -> Checked {
        let replica = &mut self.replicas[at];
        replica.disk.unseen.extend(unseen);
        for csn in theirs.iter() {
            replica.clock.observe(csn);
            replica.disk.vector.advance(csn);
            replica.disk.journal.reached(csn);
        }
        let disk = &replica.disk;
        if !disk.vector.dominates(before) {
            let text = format!("{before:?} became {:?} by a comparison at {}", disk.vector, replica.server);
            return broken(Checker::Monotonicity, text);
        }
        match disk.applied.any_hole(&self.ledger, &disk.vector, &disk.unseen, disk.model.vague()) {
            Some(hole) => broken(
                Checker::Contiguity,
                format!("{hole} is covered at {} after a comparison", replica.server),
            ),
            None => Ok(()),
        }
    }

    /// Both vectors before a comparison, and what goes with the other one's.
    fn standing(&self, at: usize, with: usize) -> (Vector, Vector, Unseen) {
        let (own, other) = (&self.replicas[at].disk, &self.replicas[with].disk);
        let unseen = other.unseen.without(&own.vector, &own.unseen);
        (own.vector.clone(), other.vector.clone(), unseen)
    }

    /// Entries that are not alike.
    fn differing(&self, at: usize, with: usize) -> BTreeSet<EntryUuid> {
        let (here, there) = (&self.replicas[at].disk.model, &self.replicas[with].disk.model);
        let all = here.entries().keys().chain(there.entries().keys()).copied();
        let differ = all.filter(|uuid| here.entries().get(uuid) != there.entries().get(uuid));
        // What waits, or is in doubt, is told of as well: nobody sees it in the entries.
        differ.chain(here.asked_for()).chain(there.asked_for()).collect()
    }

    /// Entries that are not alike, or that are in doubt, become what the two replicas know together.
    fn mend(&mut self, at: usize, with: usize, uuids: &BTreeSet<EntryUuid>, reach: &Vector) -> Checked {
        let given = self.mend_one_side(at, with, uuids, reach)?;
        // What is given is judged there.
        let reach = self.replicas[with].disk.vector.clone();
        self.mend_one_side(with, at, &given, &reach)?;
        Ok(())
    }

    /// Returns what the other side is to look at.
    fn mend_one_side(
        &mut self,
        at: usize,
        with: usize,
        uuids: &BTreeSet<EntryUuid>,
        reach: &Vector,
    ) -> Result<BTreeSet<EntryUuid>, crate::Violation> {
        let sides = Sides {
            here: self.replicas[at].disk.side(),
            there: self.replicas[with].disk.side(),
            reach: reach.clone(),
        };
        let (mut deletes, mut states, mut given) = (Vec::new(), Vec::new(), BTreeSet::new());
        for uuid in uuids {
            let own = self.replicas[at].disk.model.known(*uuid);
            let theirs = self.replicas[with].disk.model.known(*uuid);
            let Verdict { apply, then, is_guess } = sides.judge(&own, &theirs);
            if is_guess {
                self.replicas[at].disk.model.note_guess(*uuid);
            }
            if sides.passes_doubt(&theirs) {
                self.replicas[at].disk.model.set_doubt(*uuid, true);
            }
            self.tell(|| format!("    {uuid} at server {}: {apply:?} {then:?}, {own:?}, {theirs:?}", at + 1));
            for change in self.remembered(with, *uuid, &apply) {
                self.replicas[at].disk.model.apply(&change);
            }
            self.note(at, with, reach, |change| apply.contains(&change.csn));
            match then {
                Judgement::Take(again) => states.push((*uuid, again)),
                Judgement::Delete(csn, sure) => {
                    deletes.push((*uuid, csn, sure));
                    sides.place(&own, &theirs).into_iter().for_each(|again| states.push((*uuid, again)));
                }
                Judgement::Give | Judgement::GiveTombstone(_) => {
                    given.insert(*uuid);
                }
                Judgement::Same(true) => self.replicas[at].disk.model.set_doubt(*uuid, false),
                Judgement::Same(false) | Judgement::Leave => {}
            }
        }
        self.carry_out(at, with, &sides, deletes, states);
        Ok(given)
    }

    fn remembered(&self, at: usize, uuid: EntryUuid, csns: &[Csn]) -> Vec<Arc<Change>> {
        let known = self.replicas[at].disk.model.remembered(uuid);
        known.filter(|change| csns.contains(&change.csn)).cloned().collect()
    }

    /// Deletes first, then states, those above before those below.
    fn carry_out(
        &mut self,
        at: usize,
        from: usize,
        sides: &Sides,
        deletes: Vec<(EntryUuid, Csn, bool)>,
        states: Vec<(EntryUuid, Vec<Csn>)>,
    ) {
        let there = self.replicas[from].disk.model.clone();
        let disk = &mut self.replicas[at].disk;
        for csn in disk.model.learn_deleted(&there) {
            // It may be here before its turn.
            if disk.applied.note(&self.ledger, csn) == Some(true) {
                disk.without_effect.insert(csn);
            }
        }
        self.replicas[at].disk.model.learn_moves(&there, sides);
        for (uuid, csn, sure) in deletes {
            let operation = Operation::Delete { dn: String::new() };
            let delete = Arc::new(Change { csn, uuid, parent: None, operation });
            let model = &mut self.replicas[at].disk.model;
            model.apply(&delete);
            if sure {
                model.set_doubt(uuid, false);
            }
            self.note_taken(at, from, &sides.reach, uuid);
        }
        let source = &self.replicas[from].disk.model;
        let place = |(uuid, again): &(EntryUuid, Vec<Csn>)| {
            let depth = source.dn(*uuid).matches(',').count();
            Some((depth, source.told(*uuid)?, again.clone()))
        };
        let mut ordered: Vec<_> = states.iter().filter_map(place).collect();
        ordered.sort_by_key(|(depth, state, _)| (*depth, state.csn));
        for (_, state, again) in ordered {
            self.take_one(at, from, sides, &state, &again);
        }
    }

    fn take_one(&mut self, at: usize, from: usize, sides: &Sides, state: &Change, again: &[Csn]) {
        let uuid = state.uuid;
        let again = self.remembered(at, uuid, again);
        let source = &self.replicas[from].disk.model;
        let (in_doubt, history) = (source.known(uuid).in_doubt, source.history(uuid).to_vec());
        let is_glue = source.is_glue(uuid) || source.is_deleted(uuid);
        let source = source.clone();
        let model = &mut self.replicas[at].disk.model;
        let taken = model.take_state(state, is_glue, &source, &sides.there);
        if taken {
            model.set_doubt(uuid, in_doubt);
            model.remember_all(&history);
            model.make_again(&again, state);
            self.stats.takeovers += 1;
            self.note_taken(at, from, &sides.reach, uuid);
        } else {
            model.set_doubt(uuid, true);
        }
        self.replicas[at].clock.observe(state.csn);
    }

    /// What the other one has applied to the entry is here now.
    fn note_taken(&mut self, at: usize, from: usize, reach: &Vector, uuid: EntryUuid) {
        self.note(at, from, reach, |change| change.uuid == uuid);
    }

    /// So is what it has applied to those that are alike, or are gone on both sides.
    fn note_alike(&mut self, at: usize, with: usize, reach: &Vector) {
        let (here, there) = (self.replicas[at].disk.model.clone(), self.replicas[with].disk.model.clone());
        self.note(at, with, reach, |change| here.known(change.uuid).entry == there.known(change.uuid).entry);
    }

    fn note(&mut self, at: usize, from: usize, reach: &Vector, counts: impl Fn(&Change) -> bool) {
        let (here, there) = (&self.replicas[at].disk.applied, &self.replicas[from].disk.applied);
        let new = self.ledger.lacking(there, here).into_iter().filter(|change| counts(change));
        let new: Vec<(EntryUuid, Csn)> = new.map(|change| (change.uuid, change.csn)).collect();
        let disk = &mut self.replicas[at].disk;
        for (uuid, csn) in new {
            disk.applied.note(&self.ledger, csn);
            // A delete may be here before its turn.
            if disk.model.is_deleted(uuid) || !reach.covers(csn) {
                disk.without_effect.insert(csn);
            }
        }
    }

    /// The check that replicas make from time to time: each with each of the others.
    pub(crate) fn check_all(&mut self) -> Checked {
        for at in 0..self.replicas.len() {
            for with in (0..self.replicas.len()).filter(|with| *with != at) {
                if self.hear(at, with) {
                    let reach = self.replicas[at].disk.vector.clone();
                    let differing = self.differing(at, with);
                    self.tell(|| format!("  server {} checks with {}: {differing:?}", at + 1, with + 1));
                    self.mend(at, with, &differing, &reach)?;
                }
            }
        }
        Ok(())
    }

    /// A replica that has not seen all that its vector covers compares with one after the other; one with entries in doubt asks for these.
    pub(crate) fn compare_in_doubt(&mut self, at: usize) -> Checked {
        let replica = &self.replicas[at];
        let (next, due) = replica.compares;
        if !replica.is_in_doubt(self.by_states) || replica.inbox.is_busy() || self.network.now < due {
            return Ok(());
        }
        let others = (next..self.replicas.len()).chain(0..next);
        let Some(with) = { others }.find(|other| *other != at && self.hear(at, *other)) else {
            return Ok(());
        };
        self.replicas[at].compares = (with + 1, self.network.now + COMPARE_INTERVAL);
        if !self.replicas[at].disk.unseen.is_empty() {
            return self.compare(at, with);
        }
        let uuids = self.replicas[at].disk.model.asked_for();
        self.tell(|| format!("  server {} asks {} for {uuids:?}", at + 1, with + 1));
        let reach = self.replicas[at].disk.vector.clone();
        self.mend(at, with, &uuids, &reach)
    }
}

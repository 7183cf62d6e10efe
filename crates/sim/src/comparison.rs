//! Where no journal reaches back: a replica gets what another one has applied and it has not.
//!
//! The model is exact where the real comparison, which knows entries by their entryCSNs, can only be as good: what differs is known by
//! change. Changes that the other one still remembers are applied as any that come late. When it has forgotten some, its states are
//! taken over, and the own changes that it lacks are made again.

use crate::ledger::{Checked, Checker, broken};
use crate::network::Micros;
use crate::world::{World, apply_one};
use rand::RngExt;
use std::sync::Arc;
use xmppsync_replica::Change;

/// Time between two comparisons of a replica that has not seen everything.
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
        self.take_from(at, with)?;
        let replica = &mut self.replicas[at];
        // What is on its way into the database comes again, if it is still missing.
        replica.queue.clear();
        replica.inbox.handle_reset(replica.disk.vector.clone(), now);
        replica.news = true;
        Ok(())
    }

    fn take_from(&mut self, at: usize, with: usize) -> Checked {
        let (before, theirs) =
            (self.replicas[at].disk.vector.clone(), self.replicas[with].disk.vector.clone());
        let unseen = {
            let (own, other) = (&self.replicas[at].disk, &self.replicas[with].disk);
            other.unseen.without(&own.vector, &own.unseen)
        };
        let missing = self.lacking(with, at);
        let remembered = missing.iter().all(|change| self.replicas[with].disk.model.remembers(change));
        if remembered {
            for change in &missing {
                apply_one(&mut self.replicas[at], &self.ledger, change)?;
            }
        } else {
            self.take_over(at, with)?;
        }
        let count = missing.len();
        self.tell(|| {
            format!(
                "  server {} compares with {}: {count} changes, remembered: {remembered}, unseen {unseen:?}",
                at + 1,
                with + 1
            )
        });
        let replica = &mut self.replicas[at];
        replica.disk.unseen.extend(&unseen);
        for csn in theirs.iter() {
            replica.clock.observe(csn);
            replica.disk.vector.advance(csn);
            replica.disk.journal.reached(csn);
        }
        let disk = &replica.disk;
        if !disk.vector.dominates(&before) {
            let text = format!("{before:?} became {:?} by a comparison at {}", disk.vector, replica.server);
            return broken(Checker::Monotonicity, text);
        }
        match disk.applied.any_hole(&self.ledger, &disk.vector, &disk.unseen) {
            Some(hole) => broken(
                Checker::Contiguity,
                format!("{hole} is covered at {} after a comparison", replica.server),
            ),
            None => Ok(()),
        }
    }

    fn lacking(&self, of: usize, at: usize) -> Vec<Arc<Change>> {
        let lacking = self.ledger.lacking(&self.replicas[of].disk.applied, &self.replicas[at].disk.applied);
        lacking.into_iter().cloned().collect()
    }

    fn take_over(&mut self, at: usize, from: usize) -> Checked {
        self.stats.takeovers += 1;
        let again = self.lacking(at, from);
        if let Some(change) = again.iter().find(|change| !self.replicas[at].disk.model.remembers(change)) {
            let text =
                format!("{} and {from} have each forgotten what the other lacks, as {}", at, change.csn);
            return broken(Checker::Content, text);
        }
        let (model, applied) = {
            let disk = &self.replicas[from].disk;
            (disk.model.clone(), disk.applied.clone())
        };
        let replica = &mut self.replicas[at];
        replica.disk.model = model;
        replica.disk.applied.extend(&applied);
        again.iter().for_each(|change| replica.disk.model.apply(change));
        Ok(())
    }

    /// A replica that has not seen all that its vector covers compares with one after the other.
    pub(crate) fn compare_in_doubt(&mut self, at: usize) -> Checked {
        let replica = &self.replicas[at];
        let (next, due) = replica.compares;
        if replica.disk.unseen.is_empty() || replica.inbox.is_busy() || self.network.now < due {
            return Ok(());
        }
        let others = (next..self.replicas.len()).chain(0..next);
        let Some(with) = { others }.find(|other| *other != at && self.hear(at, *other)) else {
            return Ok(());
        };
        self.replicas[at].compares = (with + 1, self.network.now + COMPARE_INTERVAL);
        self.compare(at, with)
    }
}

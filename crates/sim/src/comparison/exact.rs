//! The exact comparison: what differs is known by change.
//!
//! Changes that the other one still remembers are applied as any that come late. When it has forgotten some, its states are taken over, and the
//! own changes that it lacks are made again.

use crate::ledger::{Checked, Checker, broken};
use crate::world::{World, apply_one};
use std::sync::Arc;
use xmppsync_replica::Change;

impl World {
    pub(super) fn take_changes(&mut self, at: usize, with: usize) -> Checked {
        let (before, theirs, unseen) = self.standing(at, with);
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
        self.reach(at, &before, &theirs, &unseen)
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
}

//! What administrators do: they make backups and go back to them, and let replicas come and go.

use crate::clock::Clock;
use crate::journal::Journal;
use crate::ledger::Checked;
use crate::network::Micros;
use crate::replica::{Replica, Stored};
use crate::world::World;
use rand::RngExt;
use rand::rngs::SmallRng;
use xmppsync_replica::{ServerId, Vector};

/// Replicas of one run at most, those that went counted.
const REPLICAS_MAX: usize = 7;
/// Backups that are kept.
const BACKUPS_MAX: usize = 3;

/// A copy of a database.
#[derive(Debug)]
pub(crate) struct Backup {
    of: usize,
    disk: Stored,
}

impl World {
    /// A copy of the database is put aside.
    pub(crate) fn back_up(&mut self, at: usize) {
        self.replicas[at].exposed = true;
        let backup = Backup { of: at, disk: self.replicas[at].disk.clone() };
        if self.backups.len() == BACKUPS_MAX {
            self.backups.remove(0);
        }
        self.backups.push(backup);
    }

    /// A database is put back to an earlier state, which its server notices when it starts: it takes a new CSN, and what it made between
    /// the last one that it has and that counts as not seen.
    ///
    /// The clock is not put back: a server whose clock is behind what it made before would make CSNs again, or ones that others take
    /// for seen.
    pub(crate) fn restore(&mut self, rng: &mut SmallRng) -> Checked {
        if self.backups.is_empty() {
            return Ok(());
        }
        let Backup { of, disk } = self.backups.remove(rng.random_range(0..self.backups.len()));
        if !self.replicas[of].listed {
            return Ok(());
        }
        self.stats.restores += 1;
        self.leave(of)?;
        let replica = &mut self.replicas[of];
        replica.unsynced.clear();
        let until = replica.clock.next(self.network.now);
        let own = disk.vector.get(replica.server);
        replica.disk = disk;
        replica.disk.unseen.add_after(own, until);
        replica.disk.vector.advance(until);
        replica.disk.journal.reached(until);
        replica.compares = (0, 0);
        self.start(of)
    }

    /// A replica comes, and loads the database of another one. With that come the moves and deletes that the source still remembers; by
    /// states no other changes, else all: what is earlier than one of them may still come.
    pub(crate) fn join(&mut self, rng: &mut SmallRng) -> Checked {
        let up = (0..self.replicas.len()).filter(|at| self.replicas[*at].up && self.replicas[*at].listed);
        let up: Vec<usize> = up.collect();
        let count = self.replicas.len();
        let (Ok(server), false) = (ServerId::new(count as u32 + 1), up.is_empty() || count == REPLICAS_MAX)
        else {
            return Ok(());
        };
        self.stats.joined += 1;
        let source = up[rng.random_range(0..up.len())];
        self.replicas[source].exposed = true;
        let Replica { disk, room, .. } = &self.replicas[source];
        let mut disk = Stored { journal: Journal::beginning(&disk.vector), ..disk.clone() };
        // Of the source itself its card tells.
        disk.settled.resize(disk.settled.len().max(source + 1), Vector::default());
        disk.settled[source] = Vector::default();
        if self.by_states {
            disk.model.forget_history();
            disk.vector.iter().for_each(|csn| disk.model.reached(csn));
        }
        let mut clock = Clock::new(server, rng.random_range(-1_000_000..1_000_000), 0);
        disk.vector.iter().for_each(|csn| clock.observe(csn));
        let mut replica = Replica::new(server, disk, clock);
        replica.room = *room;
        self.replicas.push(replica);
        self.greet(count);
        self.turn(count)
    }

    /// A replica goes for good. What nobody else has of it is lost.
    pub(crate) fn remove(&mut self, at: usize) -> Checked {
        let listed = self.replicas.iter().filter(|replica| replica.listed).count();
        if listed <= 2 || !self.replicas[at].listed {
            return Ok(());
        }
        self.stats.removed += 1;
        self.leave(at)?;
        self.replicas[at].listed = false;
        self.replicas[at].up = false;
        Ok(())
    }

    /// How long it takes at most until whoever has not seen everything has compared with all others.
    pub(crate) fn doubt_ends(&self) -> Micros {
        let doubts =
            self.replicas.iter().any(|replica| replica.listed && replica.is_in_doubt(self.by_states));
        if doubts { 90_000_000 } else { 0 }
    }
}

//! What breaks, and what administrators do.

use crate::ledger::Checked;
use crate::network::Message;
use crate::world::World;
use rand::RngExt;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation};

impl World {
    /// A replica has come: it and those that it hears see each other's cards.
    pub(crate) fn greet(&mut self, at: usize) {
        let own = Rc::new(self.replicas[at].card());
        for other in 0..self.replicas.len() {
            if other != at && self.hear(at, other) {
                self.network.send_surely(at, other, Message::Card(Rc::clone(&own)));
                let theirs = Rc::new(self.replicas[other].card());
                self.network.send_surely(other, at, Message::Card(theirs));
            }
        }
    }

    /// A server stops in mid-run. What its database acknowledged is on disk.
    pub(crate) fn crash(&mut self, at: usize) -> Checked {
        if !self.replicas[at].up || !self.replicas[at].listed {
            return self.start(at);
        }
        self.stats.crashes += 1;
        self.leave(at)?;
        self.lose_own(at);
        let replica = &mut self.replicas[at];
        replica.up = false;
        replica.disk.journal.lose(&replica.disk.vector, &mut self.network.rng);
        Ok(())
    }

    /// The journal does not have what was committed last. What the database has of it is sent as states, if the entries tell of it.
    fn lose_own(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let mut lost: BTreeMap<EntryUuid, Vec<Csn>> = BTreeMap::new();
        for change in &replica.unsynced {
            match change.operation {
                Operation::Add(_) | Operation::Modify(_) | Operation::ModifyDn { .. } => {
                    lost.entry(change.uuid).or_default().push(change.csn)
                }
                // Where an entry was that is deleted is in the journal only.
                _ => return,
            }
        }
        if replica.exposed || self.network.rng.random_bool(0.3) {
            return;
        }
        let state = |(uuid, csns): (&EntryUuid, &Vec<Csn>)| {
            let state = replica.disk.model.state(*uuid)?;
            let is_glue = replica.disk.model.is_glue(*uuid);
            // Where it was before is needed to make earlier moves, see `Model::merge`; the overlay may have to guess.
            let is_new =
                |change: &Arc<Change>| change.uuid == *uuid && matches!(change.operation, Operation::Add(_));
            let has_base = replica.disk.model.parent_without(*uuid, csns).is_some()
                || replica.unsynced.iter().any(is_new);
            (state.csn == *csns.last()? && !is_glue && has_base).then_some(state)
        };
        let Some(mut states) = lost.iter().map(state).collect::<Option<Vec<_>>>() else { return };
        for (csns, state) in lost.values().zip(&states) {
            replica.disk.model.merge(csns, state);
            self.ledger.merge(csns, state);
        }
        self.stats.states += states.len() as u64;
        if let Some(story) = &mut self.story {
            story.extend(states.iter().map(|state| format!("  sent as a state: {state:?}")));
        }
        states.sort_by_key(|state| state.csn);
        replica.unsynced = states.into();
    }

    /// It starts again.
    pub(crate) fn start(&mut self, at: usize) -> Checked {
        if !self.replicas[at].listed {
            return Ok(());
        }
        self.replicas[at].restart();
        // What the journal had not taken is found at the start.
        self.replicas[at].publish();
        self.greet(at);
        self.turn(at)
    }

    /// Some replicas do not hear others any more, or do again.
    pub(crate) fn cut(&mut self, rng: &mut SmallRng) -> Checked {
        self.stats.cuts += 1;
        let rooms: Vec<u8> = match rng.random_range(0..3) {
            0 => vec![0; self.replicas.len()],
            _ => self.replicas.iter().map(|_| rng.random_range(0..3u8) / 2).collect(),
        };
        self.seat(&rooms)
    }

    /// All are in one room.
    pub(crate) fn gather(&mut self) -> Checked {
        let rooms = vec![0; self.replicas.len()];
        self.seat(&rooms)?;
        (0..self.replicas.len()).for_each(|at| self.greet(at));
        Ok(())
    }

    fn seat(&mut self, rooms: &[u8]) -> Checked {
        for (at, room) in rooms.iter().enumerate() {
            if self.replicas[at].room == *room {
                continue;
            }
            self.leave(at)?;
            self.replicas[at].room = *room;
            if self.replicas[at].up {
                // The line was down in between.
                self.replicas[at].outbox.handle_offline();
                self.replicas[at].outbox.handle_online();
                self.greet(at);
                self.turn(at)?;
            }
        }
        Ok(())
    }

    /// A replica and those that it hears lose each other.
    pub(crate) fn leave(&mut self, at: usize) -> Checked {
        let now = self.network.instant();
        for other in 0..self.replicas.len() {
            if other != at && self.hear(at, other) {
                let (one, two) = (self.replicas[at].server, self.replicas[other].server);
                self.replicas[at].inbox.handle_gone(two, now);
                self.replicas[other].inbox.handle_gone(one, now);
                self.turn(other)?;
            }
        }
        Ok(())
    }

    /// The journal forgets what nobody needs any more.
    pub(crate) fn trim(&mut self, at: usize) {
        // One that went counts on: what it sent last may still wait somewhere.
        let count = self.replicas.len();
        let replica = &mut self.replicas[at];
        // What was not seen may come by a comparison, and is earlier than anything that would be forgotten.
        if replica.is_in_doubt(self.by_states) {
            return;
        }
        let stable = replica.stable((0..count).filter(|peer| *peer != at));
        self.stats.trims += replica.disk.model.forget(&stable);
        replica.disk.journal.trim(&stable);
    }

    /// More comes than the database can take: what waits is dropped, and asked for again.
    pub(crate) fn overflow(&mut self, at: usize) -> Checked {
        let now = self.network.instant();
        let replica = &mut self.replicas[at];
        if !replica.up || replica.queue.is_empty() {
            return Ok(());
        }
        replica.queue.clear();
        replica.inbox.handle_reset(replica.disk.vector.clone(), now);
        self.turn(at)
    }

    /// Whether nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        let mut members = self.replicas.iter().filter(|replica| replica.listed);
        let Some(first) = members.next() else { return true };
        let rests = |replica: &crate::replica::Replica| {
            // Of a replica that went for good something may have come that nobody can complete.
            let is_behind = replica.inbox.is_behind() && self.stats.removed == 0;
            // What nobody knows any more stays in doubt, and is alike everywhere.
            let differs = |uuid| {
                let other = first.disk.model.entries().get(uuid);
                replica.disk.model.entries().get(uuid) != other
            };
            let in_doubt = self.by_states
                && replica.disk.model.asked_for().iter().any(differs)
                && self.stats.removed == 0;
            replica.queue.is_empty() && replica.unsynced.is_empty() && !is_behind && !in_doubt
        };
        rests(first) && members.all(|replica| rests(replica) && replica.disk.vector == first.disk.vector)
    }
}

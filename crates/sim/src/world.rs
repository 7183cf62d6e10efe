//! All replicas and what happens between them, one event at a time.

use crate::ledger::{Applied, Checked, Checker, Ledger, broken};
use crate::members::Backup;
use crate::network::{Event, Message, Micros, Network};
use crate::ops::{self, Mix};
use crate::replica::Replica;
use crate::tree;
use rand::RngExt;
use rand::rngs::SmallRng;
use std::rc::Rc;
use std::sync::Arc;
use xmppsync_replica::{Action, Batch, Change, Operation, PullId, Vector};

/// A replica shows its card no more often than this.
const CARD_INTERVAL: Micros = 1_000_000;
/// Who has nobody to compare with looks again after so long.
const LOOK_AGAIN: Micros = 1_000_000;
/// Who asked waits so long for a page.
const PULL_TIMEOUT: Micros = 10_000_000;

/// What happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What clients did and got acknowledged.
    pub operations: u64,
    /// Messages that arrived, changes that were applied, and everything else that happened.
    pub events: u64,
    /// Changes of others that were applied.
    pub applied: u64,
    /// Stops in mid-run.
    pub crashes: u64,
    /// Entries that were sent as states after that.
    pub states: u64,
    /// Cuts of the network.
    pub cuts: u64,
    /// Questions to journals.
    pub pulls: u64,
    /// Comparisons of two databases.
    pub compared: u64,
    /// Databases that took over the states of another one by a comparison.
    pub takeovers: u64,
    /// Databases put back to an earlier state.
    pub restores: u64,
    /// Replicas that came, and that went for good.
    pub joined: u64,
    /// See `joined`.
    pub removed: u64,
    /// Changes that journals forgot.
    pub trims: u64,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Stats) {
        self.operations += other.operations;
        self.events += other.events;
        self.applied += other.applied;
        self.crashes += other.crashes;
        self.states += other.states;
        self.cuts += other.cuts;
        self.pulls += other.pulls;
        self.compared += other.compared;
        self.takeovers += other.takeovers;
        self.restores += other.restores;
        self.joined += other.joined;
        self.removed += other.removed;
        self.trims += other.trims;
    }
}

/// The world of one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) ledger: Ledger,
    pub(crate) stats: Stats,
    pub(crate) backups: Vec<Backup>,
    /// Comparisons and loads go by states, see `comparison`.
    pub(crate) by_states: bool,
    /// What happened, if that is to be told.
    pub(crate) story: Option<Vec<String>>,
}

impl World {
    /// Notes what happens.
    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(what());
        }
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, until: Micros) -> Checked {
        while let Some(event) = self.network.next(until) {
            self.stats.events += 1;
            self.handle(event)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Deliver { from, to, message } => {
                if self.hear(from, to) {
                    self.deliver(from, to, message);
                    self.turn(to)?;
                }
            }
            Event::Wake(at) => {
                let replica = &mut self.replicas[at];
                if replica.wake.is_some_and(|wake| wake <= self.network.now) {
                    replica.wake = None;
                    self.turn(at)?;
                }
            }
            Event::Apply(at, run) if self.runs(at, run) => self.apply(at)?,
            Event::Sync(at, run) if self.runs(at, run) => {
                self.replicas[at].publish();
                self.turn(at)?;
            }
            Event::Late(at, run, id) if self.runs(at, run) => {
                let now = self.network.instant();
                self.replicas[at].inbox.handle_pull_failure(id, now);
                self.turn(at)?;
            }
            Event::Apply(..) | Event::Sync(..) | Event::Late(..) => {}
        }
        Ok(())
    }

    fn runs(&self, at: usize, run: u32) -> bool {
        self.replicas[at].up && self.replicas[at].run == run
    }

    /// Whether both are there and in one room.
    pub(crate) fn hear(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.replicas[one], &self.replicas[other]);
        one.up && other.up && one.listed && other.listed && one.room == other.room
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let now = self.network.instant();
        let sender = self.replicas[from].boot();
        let receiver = &mut self.replicas[to];
        match message {
            Message::Batch(batch) if from == to => {
                if batch.boot == receiver.boot() {
                    receiver.outbox.handle_echo(batch.last(), now);
                    receiver.news = true;
                }
            }
            Message::Batch(batch) => receiver.inbox.handle_batch(Batch::clone(&batch), now),
            // A room shows that an occupant has left before it shows that it is there again.
            Message::Card(card) if card.0.boot != sender => {}
            Message::Card(card) => {
                let (card, everything) = &*card;
                receiver.settle(from, everything.clone());
                receiver.inbox.handle_card(card.clone(), now);
            }
            Message::Pull { run, id, have } => {
                let max = self.network.rng.random_range(1..20);
                let page = Box::new(receiver.disk.journal.page(&have, max));
                self.network.send(to, from, Message::Page { run, id, page });
            }
            Message::Page { run, id, page } if run == receiver.run => {
                receiver.inbox.handle_page(id, page.batches, &page.beyond, page.more, now);
            }
            Message::Page { .. } => {}
        }
    }

    /// Does everything that can be done now at a replica.
    pub(crate) fn turn(&mut self, at: usize) -> Checked {
        let now = self.network.instant();
        self.replicas[at].inbox.handle_timeout(now);
        while let Some(action) = self.replicas[at].inbox.poll_action() {
            match action {
                Action::Apply(batch) => self.take(at, batch),
                Action::Pull { id, from, have } => self.pull(at, id, from, have),
                Action::Reconcile { with } => self.compare(at, usize::from(with.get()) - 1)?,
                Action::Gap { .. } | Action::Healed => {}
            }
        }
        self.compare_in_doubt(at)?;
        while let Some(batch) = self.replicas[at].outbox.poll_batch(now) {
            self.broadcast(at, batch);
        }
        let replica = &mut self.replicas[at];
        let mut wake = replica.due().map(|due| self.network.micros(due));
        if replica.is_in_doubt(self.by_states) {
            let next = replica.compares.1.max(self.network.now + LOOK_AGAIN);
            wake = Some(wake.map_or(next, |wake| wake.min(next)));
        }
        if replica.news {
            let due = replica.carded + CARD_INTERVAL;
            if due <= self.network.now {
                self.show(at);
            } else {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            }
        }
        let replica = &mut self.replicas[at];
        if let Some(due) = wake.map(|due| due.max(self.network.now + 1))
            && replica.wake.is_none_or(|planned| due < planned)
        {
            replica.wake = Some(due);
            self.network.plan(due, Event::Wake(at));
        }
        Ok(())
    }

    /// Into the journal, and then into the database.
    fn take(&mut self, at: usize, batch: Batch) {
        let replica = &mut self.replicas[at];
        let changes: Vec<Arc<Change>> = batch.changes.into_iter().map(Arc::new).collect();
        for (seq, change) in (batch.first..).zip(&changes) {
            replica.disk.journal.append(batch.boot, seq, Arc::clone(change));
        }
        replica.queue.push_back(changes);
        if replica.queue.len() == 1 {
            self.plan_apply(at);
        }
    }

    fn plan_apply(&mut self, at: usize) {
        let is_slow = self.network.rng.random_range(0..50) == 0;
        let delay = if is_slow { 50_000..500_000 } else { 100..3_000 };
        self.network.plan_in(delay, Event::Apply(at, self.replicas[at].run));
    }

    fn apply(&mut self, at: usize) -> Checked {
        let replica = &mut self.replicas[at];
        let Some(changes) = replica.queue.pop_front() else { return Ok(()) };
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(()) };
        let (origin, last) = (first.csn.server_id(), last.csn);
        let before = replica.disk.vector.get(origin);
        if let Some(story) = &mut self.story {
            story.push(format!("  server {} applies {before:?} -> {last}", at + 1));
        }
        for change in &changes {
            apply_one(replica, &self.ledger, change)?;
        }
        self.stats.applied += changes.len() as u64;
        replica.disk.vector.advance(last);
        replica.news = true;
        moved(replica, &self.ledger, before, last)?;
        if !replica.queue.is_empty() {
            self.plan_apply(at);
        }
        self.turn(at)
    }

    fn pull(&mut self, at: usize, id: PullId, from: xmppsync_replica::ServerId, have: Vector) {
        self.stats.pulls += 1;
        let run = self.replicas[at].run;
        self.network.send(at, usize::from(from.get()) - 1, Message::Pull { run, id, have });
        self.network.plan(self.network.now + PULL_TIMEOUT, Event::Late(at, run, id));
    }

    fn broadcast(&mut self, at: usize, batch: Batch) {
        self.replicas[at].news = true;
        let batch = Rc::new(batch);
        for to in 0..self.replicas.len() {
            if self.hear(at, to) {
                self.network.send(at, to, Message::Batch(Rc::clone(&batch)));
            }
        }
    }

    /// Shows the card to everybody in the room.
    fn show(&mut self, at: usize) {
        self.replicas[at].news = false;
        self.replicas[at].carded = self.network.now;
        let card = Rc::new(self.replicas[at].card());
        for to in 0..self.replicas.len() {
            if to != at && self.hear(at, to) {
                self.network.send(at, to, Message::Card(Rc::clone(&card)));
            }
        }
    }

    /// A client asks a replica for something.
    pub(crate) fn operate(&mut self, at: usize, mix: Mix, rng: &mut SmallRng) -> Checked {
        let replica = &mut self.replicas[at];
        if !replica.up || !replica.listed {
            return Ok(());
        }
        let csn = replica.clock.next(self.network.now);
        let Some(change) = ops::try_one(&mut replica.disk.model, csn, mix, rng) else { return Ok(()) };
        self.stats.operations += 1;
        if let Some(story) = &mut self.story {
            story.push(format!("  {change:?}"));
        }
        self.ledger.made(Arc::clone(&change));
        replica.disk.applied.note(&self.ledger, csn);
        replica.disk.vector.advance(csn);
        replica.news = true;
        tree::look(&replica.disk.model, change.uuid, replica.server)?;
        replica.unsynced.push_back(change);
        if replica.unsynced.len() == 1 {
            let run = replica.run;
            self.network.plan_in(200..8_000, Event::Sync(at, run));
        }
        Ok(())
    }
}

/// Applies a change of another server, with all that can be checked at once.
pub(crate) fn apply_one(replica: &mut Replica, ledger: &Ledger, change: &Arc<Change>) -> Checked {
    let csn = change.csn;
    let applied: &mut Applied = &mut replica.disk.applied;
    match applied.note(ledger, csn) {
        Some(true) => {}
        Some(false) if replica.disk.without_effect.remove(&csn) => {}
        Some(false) if csn.server_id() == replica.server => {
            return broken(Checker::Echo, format!("{csn} came back to the server that made it"));
        }
        Some(false) => {
            return broken(Checker::Repetition, format!("{csn} is applied twice at {}", replica.server));
        }
        None => return broken(Checker::Contiguity, format!("nobody made {csn}")),
    }
    let forgotten = replica.disk.model.forgotten();
    if forgotten > Some(csn) {
        let text = format!("{csn} comes to {} where {forgotten:?} is forgotten", replica.server);
        return broken(Checker::Memory, text);
    }
    replica.clock.observe(csn);
    replica.disk.model.apply(change);
    if replica.disk.model.is_deleted(change.uuid) {
        let is_there = replica.disk.model.entries().get(&change.uuid).is_some_and(|entry| !entry.glue);
        if is_there {
            let text = format!("{} is deleted and there at {}", change.uuid, replica.server);
            return broken(Checker::Resurrection, text);
        }
    }
    match change.operation {
        Operation::Modify(_) => Ok(()),
        // Others may have moved with it.
        _ => tree::look_up(&replica.disk.model, replica.server),
    }
}

/// The vector has moved.
fn moved(
    replica: &Replica,
    ledger: &Ledger,
    before: Option<xmppsync_replica::Csn>,
    last: xmppsync_replica::Csn,
) -> Checked {
    let now = replica.disk.vector.get(last.server_id());
    if now < before || now < Some(last) {
        let text = format!("{before:?} became {now:?} after {last} at {}", replica.server);
        return broken(Checker::Monotonicity, text);
    }
    match replica.disk.applied.hole(ledger, before, last, &replica.disk.unseen, replica.disk.model.vague()) {
        Some(hole) => broken(
            Checker::Contiguity,
            format!("{last} is covered at {}, and {hole} is not there", replica.server),
        ),
        None => Ok(()),
    }
}

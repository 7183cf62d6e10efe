//! One replica: a database, the state machines of the overlay as they are, a journal and a clock.

use crate::clock::Clock;
use crate::journal::Journal;
use crate::ledger::Applied;
use crate::model::Model;
use crate::network::Micros;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use xmppsync_replica::{
    BootId, Change, Csn, Inbox, InboxLimits, Outbox, OutboxLimits, PeerCard, Seen, ServerId, Side, Unseen,
    Vector,
};

/// What is on disk, and what the checkers know of it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// What was applied and the vector are committed together.
    pub(crate) model: Model,
    pub(crate) vector: Vector,
    pub(crate) journal: Journal,
    pub(crate) applied: Applied,
    /// Changes of deleted entries that are without effect, and may come all the same.
    pub(crate) without_effect: BTreeSet<Csn>,
    /// What the vector covers and was not seen.
    pub(crate) unseen: Unseen,
    /// For each peer the last that it has shown and everything of which is here: nothing comes from it any more that is
    /// earlier than what it had then.
    pub(crate) settled: Vec<Vector>,
}

/// A replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) server: ServerId,
    pub(crate) disk: Stored,
    pub(crate) clock: Clock,
    /// It runs.
    pub(crate) up: bool,
    /// It is one of the group.
    pub(crate) listed: bool,
    /// Those in one room hear each other.
    pub(crate) room: u8,
    /// Counts its runs.
    pub(crate) run: u32,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    /// Own changes that are committed and not in the journal yet.
    pub(crate) unsynced: VecDeque<Arc<Change>>,
    /// Somebody has read the database while such changes were in it.
    pub(crate) exposed: bool,
    /// What the journal has and the database is to take.
    pub(crate) queue: VecDeque<Vec<Arc<Change>>>,
    /// What each peer's last card told, as far as it is not settled.
    pub(crate) shown: Vec<Option<Vector>>,
    /// When the card was shown last, and whether it differs by now.
    pub(crate) carded: Micros,
    pub(crate) news: bool,
    /// While something is unseen: whom it compares with next, and when.
    pub(crate) compares: (usize, Micros),
    /// The next planned look at the state machines.
    pub(crate) wake: Option<Micros>,
}

impl Stored {
    pub(crate) fn side(&self) -> Side {
        let seen = Seen { vector: self.vector.clone(), unseen: self.unseen.clone() };
        Side { seen, floor: self.journal.floor() }
    }
}

impl Replica {
    pub(crate) fn new(server: ServerId, disk: Stored, clock: Clock) -> Replica {
        let (inbox, outbox) = machines(server, 0, &disk.vector);
        Replica {
            server,
            disk,
            clock,
            up: true,
            listed: true,
            room: 0,
            run: 0,
            inbox,
            outbox,
            unsynced: VecDeque::new(),
            exposed: false,
            queue: VecDeque::new(),
            shown: Vec::new(),
            carded: 0,
            news: true,
            compares: (0, 0),
            wake: None,
        }
    }

    /// It has not seen everything, or (where comparisons go by states) some of its entries may lack something.
    pub(crate) fn is_in_doubt(&self, by_states: bool) -> bool {
        !self.disk.unseen.is_empty() || (by_states && !self.disk.model.asked_for().is_empty())
    }

    /// What was in memory is gone.
    pub(crate) fn restart(&mut self) {
        self.run += 1;
        (self.inbox, self.outbox) = machines(self.server, self.run, &self.disk.vector);
        self.queue.clear();
        self.shown.clear();
        self.wake = None;
        self.news = true;
        self.carded = 0;
        self.up = true;
    }

    /// The name of the run.
    pub(crate) fn boot(&self) -> BootId {
        boot(self.server, self.run)
    }

    /// What it says of itself.
    pub(crate) fn card(&self) -> (PeerCard, Vector) {
        let (_, sent) = self.outbox.sent();
        let others = self.disk.vector.iter().filter(|csn| csn.server_id() != self.server);
        let vector = others.chain(sent).collect();
        (PeerCard { server: self.server, boot: self.boot(), vector, serves: true }, self.disk.vector.clone())
    }

    /// Puts what is in the journal where others hear of it.
    pub(crate) fn publish(&mut self) {
        self.exposed = false;
        while let Some(change) = self.unsynced.pop_front() {
            let csn = change.csn;
            self.outbox.push(Arc::clone(&change));
            let (boot, seq) = (self.boot(), self.outbox.last());
            self.disk.journal.append(boot, seq, change);
            self.inbox.handle_local(csn);
            self.news = true;
        }
    }

    /// When the state machines want to be looked at.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.inbox.poll_timeout(), self.outbox.poll_timeout()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    pub(crate) fn settle(&mut self, peer: usize, shown: Vector) {
        self.shown.resize(self.shown.len().max(peer + 1), None);
        self.shown[peer] = Some(shown);
    }

    /// Everything up to here is with each of the peers, and nothing comes any more that is earlier than anything of it.
    pub(crate) fn stable(&mut self, peers: impl Iterator<Item = usize>) -> Vector {
        let mut stable = self.disk.vector.clone();
        for peer in peers {
            let disk = &mut self.disk;
            disk.settled.resize(disk.settled.len().max(peer + 1), Vector::default());
            if let Some(shown) =
                self.shown.get_mut(peer).and_then(|shown| shown.take_if(|shown| disk.vector.dominates(shown)))
            {
                disk.settled[peer] = shown;
            }
            let settled = &disk.settled[peer];
            let least = |csn: Csn| settled.get(csn.server_id()).map(|other| other.min(csn));
            stable = stable.iter().filter_map(least).collect();
        }
        stable
    }
}

fn boot(server: ServerId, run: u32) -> BootId {
    BootId::new(u64::from(server.get()) << 32 | u64::from(run))
}

fn machines(server: ServerId, run: u32, vector: &Vector) -> (Inbox, Outbox) {
    let inbox = Inbox::new(server, vector.clone(), InboxLimits::default());
    let mut outbox = Outbox::new(server, boot(server, run), vector.get(server), OutboxLimits::default());
    outbox.handle_online();
    (inbox, outbox)
}

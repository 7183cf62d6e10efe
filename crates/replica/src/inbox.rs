//! The changes of the other servers: what is new, what was seen before, what is missing and who has it.

mod sources;
mod streams;

use crate::csn::is_within;
use crate::mutation::{self, Mutation};
use crate::{Batch, BootId, Csn, ServerId, Vector};
use sources::{Peer, Search};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use streams::Stream;

/// The bounds of an [`Inbox`].
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Bytes of content, per origin, of batches that came behind a hole. What goes beyond is dropped and
    /// pulled later.
    pub stash_bytes_max: usize,
    /// How long a card may show more than has come before it is asked for: other cards come as well, and may show a
    /// better source.
    pub patience: Duration,
    /// The same for an origin whose stream is followed: it may be on a slower way than the card.
    pub stream_patience: Duration,
    /// First pause before a peer that did not answer is asked again; it doubles.
    pub retry_delay_min: Duration,
    /// Longest such pause.
    pub retry_delay_max: Duration,
}

impl Default for InboxLimits {
    fn default() -> InboxLimits {
        InboxLimits {
            stash_bytes_max: 16 * 1024 * 1024,
            patience: Duration::from_millis(100),
            stream_patience: Duration::from_secs(2),
            retry_delay_min: Duration::from_millis(500),
            retry_delay_max: Duration::from_secs(30),
        }
    }
}

/// What a peer's card says of how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCard {
    /// The peer.
    pub server: ServerId,
    /// Its run.
    pub boot: BootId,
    /// Everything up to here is applied there, or was sent by it.
    pub vector: Vector,
    /// Whether it answers pulls.
    pub serves: bool,
}

/// Names one question to a peer; an answer to an earlier one is not used.
pub type PullId = u64;

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Apply these. Everything of the origin before them is applied or on its way, so the vector may move.
    Apply(Batch),
    /// Ask the peer for what follows `have`.
    Pull {
        /// Names the question.
        id: PullId,
        /// Whom to ask.
        from: ServerId,
        /// What is here or on its way.
        have: Vector,
    },
    /// No peer's journal reaches back to where this replica is: its set of entries has to be compared with that of
    /// this peer. Answered by [`Inbox::handle_state`] or [`Inbox::handle_reconcile_failure`].
    Reconcile {
        /// The peer that is ahead.
        with: ServerId,
    },
    /// To be told to the admin: changes `from..=to` of this stream have not come.
    Gap {
        /// Whose stream.
        origin: ServerId,
        /// First missing sequence number; 0 when only CSNs tell that something is missing.
        from: u64,
        /// Last missing sequence number.
        to: u64,
    },
    /// To be told to the admin: nothing that anybody has shown is missing any more.
    Healed,
}

/// Puts the changes of the other servers into order, and finds what is missing.
///
/// Each batch names the CSN of its origin's change before it. It continues what is here when everything up to
/// that CSN is here; otherwise it waits aside, and what lies between is pulled from a peer whose card covers it. One peer
/// is asked at a time.
///
/// Cards, batches and answers go in by the `handle_*` functions in the order of their arrival; after each, the
/// caller drains [`poll_action`](Self::poll_action) and arms a timer for [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Inbox {
    limits: InboxLimits,
    own: ServerId,
    /// Everything up to here is applied or on its way.
    have: Vector,
    /// The first and the last change that was made here in this run. Peers may know earlier ones that this replica
    /// forgot (its database was restored from a backup), and have later ones from here.
    made_here: Option<(Csn, Csn)>,
    peers: BTreeMap<ServerId, Peer>,
    streams: BTreeMap<ServerId, Stream>,
    /// When to look for a source of what is missing.
    due: Option<Instant>,
    work: Work,
    last_id: PullId,
    /// Something was missing, and it was told.
    behind: bool,
    actions: VecDeque<Action>,
}

/// What is going on; one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    None,
    Pull {
        id: PullId,
        from: ServerId,
    },
    Reconcile {
        with: ServerId,
    },
    /// The shell fills the database by other means.
    Held,
}

impl Inbox {
    /// `have`: everything up to there is in the database.
    pub fn new(own: ServerId, have: Vector, limits: InboxLimits) -> Inbox {
        Inbox {
            limits,
            own,
            have,
            made_here: None,
            peers: BTreeMap::new(),
            streams: BTreeMap::new(),
            due: None,
            work: Work::None,
            last_id: 0,
            behind: false,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| self.work == Work::None)
    }

    /// What is here or on its way.
    pub fn have(&self) -> &Vector {
        &self.have
    }

    /// Whether something is missing that a peer has shown.
    pub fn is_behind(&self) -> bool {
        self.behind || self.work != Work::None
    }

    /// A peer that serves, another one for every server.
    pub fn some_peer(&self) -> Option<ServerId> {
        self.serving_peers().min_by_key(|server| self.rank(*server))
    }

    /// The peers that serve.
    pub fn serving_peers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.serves).map(|(server, _)| *server)
    }

    /// A peer shows its card.
    pub fn handle_card(&mut self, card: PeerCard, now: Instant) {
        let peer = self.peers.entry(card.server).or_insert_with(|| Peer::new(card.boot));
        if peer.boot != card.boot {
            *peer = Peer::new(card.boot);
        }
        if card.serves && (!peer.serves || card.vector != peer.vector) {
            // It is there again, or goes on: no need to wait out a pause.
            peer.retry_at = None;
        }
        // Within a run it never goes back: a card that shows less was overtaken, by another one or by a batch on another way.
        card.vector.iter().for_each(|csn| peer.vector.advance(csn));
        // What it sent it has.
        let sent = self.streams.get(&card.server).and_then(Stream::latest);
        sent.into_iter().for_each(|csn| peer.vector.advance(csn));
        peer.serves = card.serves;
        for csn in card.vector.iter().filter(|csn| self.lacks(*csn)).collect::<Vec<_>>() {
            let followed = self.streams.get(&csn.server_id()).is_some_and(Stream::is_followed);
            let patience = if followed { self.limits.stream_patience } else { self.limits.patience };
            if !mutation::is(Mutation::CardForgotten) {
                self.look_at(now + patience);
            }
        }
    }

    /// A peer is gone, or the line to all of them is.
    pub fn handle_gone(&mut self, server: ServerId, now: Instant) {
        self.peers.remove(&server);
        if let Some(stream) = self.streams.get_mut(&server) {
            stream.end();
        }
        if matches!(self.work, Work::Pull { from, .. } if from == server) {
            // It may have got the question and never answer: another one is asked at once.
            self.work = Work::None;
            self.look_at(now);
        }
    }

    /// What was made here up to this change does not come by pulls any more.
    pub fn handle_forgotten(&mut self, csn: Csn) {
        self.have.advance(csn);
    }

    /// A change was made here. In the order of their CSNs.
    pub fn handle_local(&mut self, csn: Csn) {
        let first = self.made_here.map_or(csn, |(first, _)| first);
        self.made_here = Some((first, csn));
        self.catch_up_own();
    }

    /// A batch of the live stream. Its sender was checked to be its origin.
    pub fn handle_batch(&mut self, batch: Batch, now: Instant) {
        if batch.origin != self.own {
            let expected = self.streams.entry(batch.origin).or_default().note(batch.boot, batch.last());
            self.take(batch, expected, now);
        }
    }

    /// A batch that waited in the offline store; that what follows it was not stored is no hole in the live stream.
    pub fn handle_stored(&mut self, batch: Batch, now: Instant) {
        if batch.origin != self.own {
            self.take(batch, 0, now);
        }
    }

    /// `expected`: the number that should have come, if that is known.
    fn take(&mut self, batch: Batch, expected: u64, now: Instant) {
        let origin = batch.origin;
        if let (Some(peer), Some(last)) = (self.peers.get_mut(&origin), batch.last_csn()) {
            peer.vector.advance(last);
        }
        let held = self.work == Work::Held;
        let have = self.have.get(origin);
        let continues = is_within(batch.prev.as_ref(), have.as_ref()) || mutation::is(Mutation::HoleTaken);
        if !held && continues {
            self.accept(batch);
            self.drain_stash(origin);
            if self.behind {
                // It may have been the last that was missing, with nobody to ask for it.
                self.look_at(now);
            }
            return;
        }
        let (first, hole) = (batch.first, !is_within(batch.last_csn().as_ref(), have.as_ref()));
        let stream = self.streams.entry(origin).or_default();
        stream.put_aside(batch, self.limits.stash_bytes_max);
        if hole && self.work == Work::None {
            self.tell_hole(origin, expected, first);
            self.look_at(now);
        }
    }

    /// Its origin has made a change, with this number in the stream of its run, that is not sent to all: who lacks it asks for it.
    pub fn handle_large(&mut self, (boot, number): (BootId, u64), csn: Csn, now: Instant) {
        let origin = csn.server_id();
        if origin == self.own {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&origin) {
            peer.vector.advance(csn);
        }
        // What comes next in the stream follows it: it waits, and nothing is lost.
        let expected = self.streams.entry(origin).or_default().note(boot, number);
        if self.lacks(csn) {
            if expected > 0 && self.work == Work::None {
                self.tell_hole(origin, expected, number);
            }
            self.look_at(now);
        }
    }

    /// The answer to [`Action::Pull`]: batches in their order, the CSNs up to which the peer's journal lacks the
    /// changes of some origins, and whether asking again gives more.
    pub fn handle_page(&mut self, id: PullId, batches: Vec<Batch>, beyond: &[Csn], more: bool, now: Instant) {
        let Some(from) = self.asked(id) else { return };
        let before = self.have.clone();
        for batch in batches {
            // Any other would leave a hole; what is before it may come from somebody else.
            if is_within(batch.prev.as_ref(), self.have.get(batch.origin).as_ref()) {
                self.accept(batch);
            }
        }
        let progress = self.have != before;
        if more && progress {
            self.ask(from);
            return;
        }
        self.work = Work::None;
        if let Some(peer) = self.peers.get_mut(&from) {
            let mut news = false;
            for floor in beyond {
                news |= peer.beyond.insert(floor.server_id(), *floor) != Some(*floor);
            }
            match progress || news {
                true => peer.failures = 0,
                // It shows what it does not give (yet).
                false => peer.fail(now, &self.limits),
            }
        }
        self.catch_up_own();
        self.drain_stashes();
        self.look_at(now);
    }

    /// The peer did not answer, or could not.
    pub fn handle_pull_failure(&mut self, id: PullId, now: Instant) {
        let Some(from) = self.asked(id).filter(|_| !mutation::is(Mutation::FailureForgotten)) else { return };
        self.work = Work::None;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.fail(now, &self.limits);
        }
        self.look_at(now);
    }

    /// Looks for a source of what is missing, if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.work != Work::None || self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        match self.search(now) {
            Search::Nothing => {
                if std::mem::replace(&mut self.behind, false) {
                    self.actions.push_back(Action::Healed);
                }
            }
            Search::Ask(from, origin) => {
                if !self.behind {
                    self.told(origin, 0, 0);
                }
                self.ask(from);
            }
            Search::Reconcile(with) => {
                self.work = Work::Reconcile { with };
                self.actions.push_back(Action::Reconcile { with });
            }
            Search::Wait(until) => self.due = until,
        }
    }

    /// The database now holds everything up to `state`, by reconciliation or an initial load.
    pub fn handle_state(&mut self, state: &Vector, now: Instant) {
        self.work = Work::None;
        state.iter().for_each(|csn| self.have.advance(csn));
        self.catch_up_own();
        self.drain_stashes();
        self.look_at(now);
    }

    /// The comparison with the peer came to nothing.
    pub fn handle_reconcile_failure(&mut self, now: Instant) {
        let Work::Reconcile { with } = self.work else { return };
        self.work = Work::None;
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.fail(now, &self.limits);
        }
        self.look_at(now);
    }

    /// The shell fills the database by other means: what comes meanwhile waits aside. Ends with
    /// [`handle_state`](Self::handle_state) or [`handle_reset`](Self::handle_reset).
    pub fn hold(&mut self) {
        self.work = Work::Held;
    }

    /// Whether a question to a peer is open, or something else is going on.
    pub fn is_busy(&self) -> bool {
        self.work != Work::None
    }

    /// Whether [`hold`](Self::hold) has not ended.
    pub fn is_held(&self) -> bool {
        self.work == Work::Held
    }

    /// What was on its way is lost: everything behind `applied` has to come again.
    pub fn handle_reset(&mut self, applied: Vector, now: Instant) {
        if !mutation::is(Mutation::ResetForgotten) {
            self.have = applied;
        }
        self.work = Work::None;
        self.catch_up_own();
        self.look_at(now);
    }

    /// Whether the answer to this question is still waited for.
    pub fn is_asked(&self, id: PullId) -> bool {
        self.asked(id).is_some()
    }

    fn asked(&self, id: PullId) -> Option<ServerId> {
        match self.work {
            Work::Pull { id: open, from } if open == id => Some(from),
            _ => None,
        }
    }

    fn ask(&mut self, from: ServerId) {
        self.last_id += 1;
        self.work = Work::Pull { id: self.last_id, from };
        self.actions.push_back(Action::Pull { id: self.last_id, from, have: self.have.clone() });
    }

    fn look_at(&mut self, when: Instant) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// Something with the number `first` came instead of what was expected. What follows the first one behind a hole tells nothing new.
    fn tell_hole(&mut self, origin: ServerId, expected: u64, first: u64) {
        if expected == 0 || first > expected {
            self.told(origin, expected, first.saturating_sub(1));
        }
    }

    fn told(&mut self, origin: ServerId, from: u64, to: u64) {
        self.behind = true;
        self.actions.push_back(Action::Gap { origin, from, to });
    }

    /// Whether the change is missing here, as far as others can know it better.
    fn lacks(&self, csn: Csn) -> bool {
        let made_here = |first: Csn| csn.server_id() == self.own && csn >= first;
        !self.have.covers(csn) && !self.made_here.is_some_and(|(first, _)| made_here(first))
    }

    /// What was made here counts as here once nothing is missing before it.
    fn catch_up_own(&mut self) {
        let Some((_, last)) = self.made_here else { return };
        let known_elsewhere = self.peers.values().filter_map(|peer| peer.vector.get(self.own));
        if !known_elsewhere.into_iter().any(|csn| self.lacks(csn)) {
            self.have.advance(last);
        }
    }

    /// Takes what is new of a batch that leaves no hole.
    fn accept(&mut self, mut batch: Batch) {
        let origin = batch.origin;
        let have = self.have.get(origin);
        let seen = batch.changes.partition_point(|change| is_within(Some(&change.csn), have.as_ref()));
        if !mutation::is(Mutation::RepetitionTaken) {
            batch.changes.drain(..seen);
        }
        batch.first = batch.first.saturating_add(seen as u64);
        if is_within(batch.prev.as_ref(), have.as_ref()) {
            batch.prev = have;
        }
        if let Some((first, _)) = self.made_here.filter(|_| origin == self.own) {
            batch.changes.retain(|change| change.csn < first);
        }
        if let Some(last) = batch.last_csn() {
            self.have.advance(last);
            self.actions.push_back(Action::Apply(batch));
        }
    }

    fn drain_stash(&mut self, origin: ServerId) {
        while let Some(batch) =
            self.streams.get_mut(&origin).and_then(|stream| stream.take_next(self.have.get(origin)))
        {
            self.accept(batch);
        }
    }

    fn drain_stashes(&mut self) {
        let origins: Vec<ServerId> = self.streams.keys().copied().collect();
        origins.into_iter().for_each(|origin| self.drain_stash(origin));
    }
}

#[cfg(test)]
mod tests;

//! The streams of the other servers: what is new, what was seen before, what is missing.

use crate::{Batch, BootId, Csn, ServerId};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The bounds of an [`Inbox`].
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Bytes of content, per stream, of batches that came behind a hole. What goes beyond is dropped and
    /// pulled later.
    pub stash_bytes_max: usize,
    /// First pause before a failed pull is tried again; it doubles.
    pub retry_delay_min: Duration,
    /// Longest such pause.
    pub retry_delay_max: Duration,
}

impl Default for InboxLimits {
    fn default() -> InboxLimits {
        InboxLimits {
            stash_bytes_max: 16 * 1024 * 1024,
            retry_delay_min: Duration::from_millis(500),
            retry_delay_max: Duration::from_secs(30),
        }
    }
}

/// What a server's card says of its own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCard {
    /// Whose stream.
    pub origin: ServerId,
    /// Its run.
    pub boot: BootId,
    /// The last sequence number that it has sent.
    pub seq: u64,
    /// The CSN of that change, or where its database was before the first.
    pub csn: Option<Csn>,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Apply these. If `contiguous`, everything of the origin before them is applied or on its way, so the
    /// vector may move.
    Apply {
        /// The changes.
        batch: Batch,
        /// Whether nothing is missing before them.
        contiguous: bool,
    },
    /// Ask the origin for what follows: after this number of this boot, or, without, after what the vector
    /// says of it.
    Pull {
        /// Whom to ask, and for whose changes.
        origin: ServerId,
        /// The last that is here.
        after: Option<(BootId, u64)>,
    },
    /// To be told to the admin: changes `from..=to` of this stream have not come.
    Gap {
        /// Whose stream.
        origin: ServerId,
        /// First missing sequence number; 0 when only the vectors tell that something is missing.
        from: u64,
        /// Last missing sequence number.
        to: u64,
    },
    /// To be told to the admin: the stream is whole again.
    Healed {
        /// Whose stream.
        origin: ServerId,
    },
    /// To be told to the admin: the origin cannot give what is missing.
    Incomplete {
        /// Whose stream.
        origin: ServerId,
    },
}

/// Why a pull brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// No answer: gone, busy, line lost. It is tried again.
    Unreachable,
    /// The origin's log does not reach back that far.
    OutOfReach,
}

/// Puts the streams of the other servers back into order.
///
/// Cards, batches and pages go in by the `handle_*` functions in the order of their arrival; after each, the
/// caller drains [`poll_action`](Self::poll_action) and arms a timer for [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Inbox {
    limits: InboxLimits,
    streams: BTreeMap<ServerId, Stream>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Stream {
    boot: BootId,
    /// The sequence number that comes next, once it is known.
    next: Option<u64>,
    /// The last number that the origin's card named.
    card_seq: u64,
    pull: Option<Pull>,
    /// Batches behind the hole, by their first number.
    stash: BTreeMap<u64, Batch>,
    stash_bytes: usize,
    contiguous: bool,
}

#[derive(Debug, Default)]
struct Pull {
    failures: u32,
    retry_at: Option<Instant>,
}

impl Inbox {
    /// No stream is known yet.
    pub fn new(limits: InboxLimits) -> Inbox {
        Inbox { limits, streams: BTreeMap::new(), actions: VecDeque::new() }
    }

    /// The servers whose streams are known.
    pub fn origins(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.streams.keys().copied()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.pull.as_ref()?.retry_at).min()
    }

    /// A server shows its card. `covered` is the CSN up to which everything of it is applied here.
    pub fn handle_card(&mut self, card: StreamCard, covered: Option<Csn>) {
        let known = self.streams.get(&card.origin).is_some_and(|stream| stream.boot == card.boot);
        if !known {
            self.begin(card, covered);
            return;
        }
        let Some(stream) = self.streams.get_mut(&card.origin) else { return };
        stream.card_seq = stream.card_seq.max(card.seq);
        if let Some(pull) = &mut stream.pull {
            // It is there again: no need to wait out the pause.
            if pull.retry_at.take().is_some() {
                self.ask(card.origin);
            }
        } else if let Some(next) = stream.next.filter(|next| card.seq >= *next) {
            self.gap(card.origin, next, card.seq);
        }
    }

    fn begin(&mut self, card: StreamCard, covered: Option<Csn>) {
        let contiguous = self.streams.get(&card.origin).is_none_or(|stream| stream.contiguous);
        let mut stream = Stream::new(card.boot, contiguous);
        stream.card_seq = card.seq;
        if covered >= card.csn {
            stream.next = Some(card.seq.saturating_add(1));
        }
        let behind = stream.next.is_none();
        self.streams.insert(card.origin, stream);
        if behind {
            self.gap(card.origin, 0, card.seq);
        }
    }

    /// A live batch. Its sender was checked to be its origin.
    pub fn handle_batch(&mut self, batch: Batch) {
        let origin = batch.origin;
        let stream = self.streams.entry(origin).or_insert_with(|| Stream::new(batch.boot, true));
        if stream.boot != batch.boot {
            *stream = Stream::new(batch.boot, stream.contiguous);
        }
        match stream.next {
            Some(next) if stream.pull.is_none() && batch.first <= next => {
                if let Some(action) = stream.accept(batch) {
                    self.actions.push_back(action);
                }
                self.drain_stash(origin);
            }
            next => {
                let first = batch.first;
                stream.put_aside(batch, self.limits.stash_bytes_max);
                if stream.pull.is_none() {
                    // Without a number to expect, only the vector tells what is missing.
                    self.gap(origin, next.unwrap_or(0), first.saturating_sub(1));
                }
            }
        }
    }

    /// The answer to a pull from `origin`: batches in their order, and whether there is more. `after` is what
    /// [`Action::Pull`] said; an answer to a question that is no longer the right one is not used.
    pub fn handle_page(
        &mut self,
        origin: ServerId,
        after: Option<(BootId, u64)>,
        batches: Vec<Batch>,
        more: bool,
        now: Instant,
    ) {
        if !self.is_answer(origin, after) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&origin) else { return };
        for batch in batches {
            if batch.origin != origin {
                continue;
            }
            if batch.boot != stream.boot {
                *stream = Stream { pull: stream.pull.take(), ..Stream::new(batch.boot, stream.contiguous) };
            }
            // The origin answered by the vector: it begins where this replica ends.
            let next = *stream.next.get_or_insert(batch.first);
            if batch.first > next {
                // No answer to what was asked. What this replica has is certain, so it asks by that, later.
                stream.next = None;
                self.handle_pull_failure(origin, None, PullFailure::Unreachable, now);
                return;
            }
            if let Some(action) = stream.accept(batch) {
                self.actions.push_back(action);
            }
        }
        stream.next.get_or_insert(stream.card_seq.saturating_add(1));
        if more {
            stream.pull = Some(Pull::default());
            self.ask(origin);
            return;
        }
        stream.pull = None;
        if stream.contiguous {
            self.actions.push_back(Action::Healed { origin });
        }
        self.drain_stash(origin);
    }

    /// Whether this is the answer to the question that is open. If another one is, it is asked again.
    fn is_answer(&mut self, origin: ServerId, after: Option<(BootId, u64)>) -> bool {
        let Some(stream) = self.streams.get(&origin).filter(|stream| stream.pull.is_some()) else {
            return false;
        };
        let answer = stream.position() == after;
        if !answer {
            self.ask(origin);
        }
        answer
    }

    /// A pull from `origin` brought nothing. `after` is what [`Action::Pull`] said.
    pub fn handle_pull_failure(
        &mut self,
        origin: ServerId,
        after: Option<(BootId, u64)>,
        failure: PullFailure,
        now: Instant,
    ) {
        let limits = self.limits;
        if !self.is_answer(origin, after) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&origin) else { return };
        match failure {
            PullFailure::Unreachable => {
                let pull = stream.pull.get_or_insert_default();
                let delay = limits.retry_delay_min * 2u32.saturating_pow(pull.failures.min(16));
                pull.failures += 1;
                pull.retry_at = Some(now + delay.min(limits.retry_delay_max));
            }
            PullFailure::OutOfReach => {
                if std::mem::replace(&mut stream.contiguous, false) {
                    self.actions.push_back(Action::Incomplete { origin });
                }
                if stream.next.is_none() {
                    // What the origin made before this run is gone; what it made since may be there.
                    stream.next = Some(1);
                    self.ask(origin);
                    return;
                }
                stream.pull = None;
                let first = stream.stash.first_key_value().map(|(first, _)| *first);
                stream.next = Some(first.unwrap_or(stream.card_seq.saturating_add(1)));
                self.drain_stash(origin);
            }
        }
    }

    /// Asks again where a pause is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |stream: &Stream| {
            stream.pull.as_ref().is_some_and(|pull| pull.retry_at.is_some_and(|retry| retry <= now))
        };
        let origins: Vec<ServerId> =
            self.streams.iter().filter(|(_, stream)| due(stream)).map(|(origin, _)| *origin).collect();
        for origin in origins {
            if let Some(pull) = self.streams.get_mut(&origin).and_then(|stream| stream.pull.as_mut()) {
                pull.retry_at = None;
            }
            self.ask(origin);
        }
    }

    /// The shell could not take the last batches: what follows `covered` has to be pulled.
    pub fn handle_overflow(&mut self, origin: ServerId) {
        if let Some(stream) = self.streams.get_mut(&origin) {
            stream.next = None;
            if stream.pull.is_none() {
                self.gap(origin, 0, 0);
            }
        }
    }

    fn gap(&mut self, origin: ServerId, from: u64, to: u64) {
        if let Some(stream) = self.streams.get_mut(&origin) {
            stream.pull = Some(Pull::default());
            self.actions.push_back(Action::Gap { origin, from, to });
            self.ask(origin);
        }
    }

    fn ask(&mut self, origin: ServerId) {
        if let Some(stream) = self.streams.get(&origin) {
            let after = stream.position();
            self.actions.push_back(Action::Pull { origin, after });
        }
    }

    fn drain_stash(&mut self, origin: ServerId) {
        let Some(stream) = self.streams.get_mut(&origin) else { return };
        let Some(mut next) = stream.next else { return };
        while let Some(entry) = stream.stash.first_entry().filter(|entry| *entry.key() <= next) {
            let batch = entry.remove();
            stream.stash_bytes -= bytes(&batch);
            if let Some(action) = stream.accept(batch) {
                self.actions.push_back(action);
            }
            next = stream.next.unwrap_or(next);
        }
        if let Some(first) = stream.stash.first_key_value().map(|(first, _)| *first) {
            self.gap(origin, next, first.saturating_sub(1));
        }
    }
}

fn bytes(batch: &Batch) -> usize {
    batch.changes.iter().map(crate::Change::size).sum()
}

impl Stream {
    fn new(boot: BootId, contiguous: bool) -> Stream {
        Stream {
            boot,
            next: None,
            card_seq: 0,
            pull: None,
            stash: BTreeMap::new(),
            stash_bytes: 0,
            contiguous,
        }
    }

    /// The last that is here, once that is known.
    fn position(&self) -> Option<(BootId, u64)> {
        self.next.map(|next| (self.boot, next.saturating_sub(1)))
    }

    /// Cuts off what was seen before; `None` when that is all.
    fn accept(&mut self, mut batch: Batch) -> Option<Action> {
        let next = self.next?;
        if batch.last() < next {
            return None;
        }
        let seen = usize::try_from(next.saturating_sub(batch.first)).ok()?;
        batch.changes.drain(..seen);
        batch.first = batch.first.saturating_add(seen as u64);
        self.next = Some(batch.last().saturating_add(1));
        Some(Action::Apply { batch, contiguous: self.contiguous })
    }

    fn put_aside(&mut self, batch: Batch, bytes_max: usize) {
        let size = bytes(&batch);
        if self.stash_bytes + size <= bytes_max {
            self.stash_bytes += size;
            if let Some(replaced) = self.stash.insert(batch.first, batch) {
                self.stash_bytes -= bytes(&replaced);
            }
        }
    }
}

#[cfg(test)]
mod tests;

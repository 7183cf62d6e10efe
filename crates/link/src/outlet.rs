//! The way of events to a group: bounded, never blocking the session, and honest about what was lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::command::Shared;
use crate::event::Event;
use crate::limits::{LOST_RETRY, STORED_BYTES_MAX};
use crate::problem::{Kind, Problem};

/// The sending end of a group's events.
pub(crate) struct Outlet {
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
    lost: u64,
    /// When to look next whether there is room again.
    retry_at: Option<Instant>,
    problems: BTreeMap<Kind, Problem>,
    /// Events that went into the channel.
    sent: u64,
    /// The large ones that are still in it: place in the order of all, and bytes.
    large: VecDeque<(u64, usize)>,
    large_bytes: usize,
}

impl Outlet {
    pub(crate) fn new(events: mpsc::Sender<Event>, shared: Arc<Shared>) -> Self {
        Self {
            events,
            shared,
            lost: 0,
            retry_at: None,
            problems: BTreeMap::new(),
            sent: 0,
            large: VecDeque::new(),
            large_bytes: 0,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Hands an event on, or counts it as lost. Once one is lost, all that follow are, up to [`Self::recover`]:
    /// a stream with holes that nobody knows of is worse than none.
    pub(crate) fn send(&mut self, event: Event) {
        if self.lost > 0 {
            self.lost += 1;
            return;
        }
        match self.events.try_send(event) {
            Ok(()) => self.sent += 1,
            Err(TrySendError::Full(_)) => self.lost = 1,
            Err(TrySendError::Closed(_)) => {}
        }
    }

    /// Hands on an event of which many come at once: a hundred messages that the server kept, say. It is lost
    /// as well when too many bytes of that kind wait.
    pub(crate) fn send_large(&mut self, event: Event, bytes: usize) {
        let waiting = self.events.max_capacity() - self.events.capacity();
        while self.large.front().is_some_and(|(place, _)| place + waiting as u64 <= self.sent) {
            self.large_bytes -= self.large.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        if self.large_bytes + bytes > STORED_BYTES_MAX {
            self.lose(1);
            return;
        }
        let before = self.sent;
        self.send(event);
        if self.sent > before {
            self.large.push_back((self.sent, bytes));
            self.large_bytes += bytes;
        }
    }

    /// Counts events that were lost on the way here.
    pub(crate) fn lose(&mut self, count: u64) {
        self.lost += count;
    }

    /// Reports a problem unless it is known already.
    pub(crate) fn problem(&mut self, problem: Problem) {
        let kind = problem.kind();
        if kind != Kind::Incident {
            if self.problems.get(&kind) == Some(&problem) {
                return;
            }
            self.problems.insert(kind, problem.clone());
        }
        self.send(Event::Problem(problem));
    }

    /// Forgets problems of a kind, so that the next one is reported.
    pub(crate) fn solved(&mut self, kind: &Kind) {
        self.problems.remove(kind);
    }

    /// Whether events were lost and not yet told.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// When [`Self::recover`] is to be tried, if something was lost. It stays the same however often it is asked
    /// for: under load that is more often than it comes.
    pub(crate) fn retry_at(&mut self, now: Instant) -> Option<Instant> {
        self.has_lost().then(|| *self.retry_at.get_or_insert(now + LOST_RETRY))
    }

    /// Tells of the loss and gives the state anew, if there is room for all of it.
    pub(crate) fn recover(&mut self, state: impl FnOnce() -> Vec<Event>) {
        self.retry_at = None;
        if self.lost == 0 || self.events.capacity() < self.events.max_capacity() / 2 {
            return;
        }
        let count = std::mem::take(&mut self.lost);
        self.send(Event::Lost { count });
        for event in state() {
            self.send(event);
        }
        let problems: Vec<_> = self.problems.values().cloned().collect();
        for problem in problems {
            self.send(Event::Problem(problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlet(capacity: usize) -> (Outlet, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Outlet::new(sender, Arc::default()), receiver)
    }

    fn echo(n: u32) -> Event {
        Event::Echo { id: n.to_string() }
    }

    #[test]
    fn a_slow_group_is_told_how_many_events_it_lost() {
        let (mut outlet, mut events) = outlet(4);
        for n in 0..10 {
            outlet.send(echo(n));
        }
        for n in 0..4 {
            assert!(matches!(events.try_recv(), Ok(Event::Echo { id }) if id == n.to_string()));
        }
        outlet.send(echo(10));
        outlet.recover(|| vec![Event::Online]);
        assert!(matches!(events.try_recv(), Ok(Event::Lost { count: 7 })));
        assert!(matches!(events.try_recv(), Ok(Event::Online)));
        outlet.send(echo(11));
        assert!(matches!(events.try_recv(), Ok(Event::Echo { .. })));
    }

    #[test]
    fn a_full_channel_is_not_recovered() {
        let (mut outlet, _events) = outlet(2);
        for n in 0..3 {
            outlet.send(echo(n));
        }
        outlet.recover(Vec::new);
        assert!(outlet.has_lost());
    }

    #[test]
    fn a_problem_is_reported_once_until_it_is_solved() {
        let (mut outlet, mut events) = outlet(8);
        let problem = || Problem::ConnectionLost { reason: "x".into() };
        outlet.problem(problem());
        outlet.problem(problem());
        assert!(matches!(events.try_recv(), Ok(Event::Problem(_))));
        assert!(events.try_recv().is_err());
        outlet.solved(&Kind::Line);
        outlet.problem(problem());
        assert!(matches!(events.try_recv(), Ok(Event::Problem(_))));
    }
}

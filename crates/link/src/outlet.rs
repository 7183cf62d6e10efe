//! The way of events to a group: bounded, never blocking the session, and honest about what was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::command::Shared;
use crate::event::Event;
use crate::limits::LOST_RETRY;
use crate::problem::{Kind, Problem};

/// The sending end of a group's events.
pub(crate) struct Outlet {
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
    lost: u64,
    /// When to look next whether there is room again.
    retry_at: Option<Instant>,
    problems: BTreeMap<Kind, Problem>,
}

impl Outlet {
    pub(crate) fn new(events: mpsc::Sender<Event>, shared: Arc<Shared>) -> Self {
        Self { events, shared, lost: 0, retry_at: None, problems: BTreeMap::new() }
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
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.lost = 1;
        }
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

    /// Whether a problem of a kind is reported and not solved.
    pub(crate) fn is_open(&self, kind: &Kind) -> bool {
        self.problems.contains_key(kind)
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

//! The way of events to a group: bounded, never blocking the session, and honest about what was lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::command::Shared;
use crate::event::Event;
use crate::held::Stored;
use crate::limits::{LOST_RETRY, STORED_BYTES_MAX, STORED_READY_MAX};
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
    /// Those of stored messages that are still in it: place in the order of all, and bytes.
    ready: VecDeque<(u64, usize)>,
    ready_bytes: usize,
    /// Stored messages that wait for a place in it.
    backlog: VecDeque<Stored>,
    backlog_bytes: usize,
    backlog_max: usize,
    ready_max: usize,
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
            ready: VecDeque::new(),
            ready_bytes: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            backlog_max: STORED_BYTES_MAX,
            ready_max: STORED_READY_MAX,
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
        self.put(event);
    }

    fn put(&mut self, event: Event) {
        match self.events.try_send(event) {
            Ok(()) => self.sent += 1,
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Closed(_)) => {}
        }
    }

    /// Hands on a stored message, now or when those before it are taken: a hundred may come at once.
    pub(crate) fn send_stored(&mut self, stored: Stored) {
        if self.lost > 0 || self.backlog_bytes + stored.bytes() > self.backlog_max {
            self.lose(1);
            return;
        }
        self.backlog_bytes += stored.bytes();
        self.backlog.push_back(stored);
        self.ready();
    }

    /// Makes events of stored messages while there is room for them. They came before whatever was lost.
    pub(crate) fn ready(&mut self) {
        self.retry_at = None;
        while let Some(stored) = self.backlog.front() {
            let bytes = stored.bytes();
            let ready = self.ready_bytes();
            if self.events.capacity() == 0 || (ready > 0 && ready + bytes > self.ready_max) {
                return;
            }
            self.backlog_bytes -= bytes;
            let Some(event) = self.backlog.pop_front().and_then(Stored::event) else { continue };
            self.put(event);
            self.ready.push_back((self.sent, bytes));
            self.ready_bytes += bytes;
        }
    }

    /// Bytes of the stored messages among the events that were not taken yet.
    fn ready_bytes(&mut self) -> usize {
        let waiting = self.events.max_capacity() - self.events.capacity();
        while let Some((_, bytes)) =
            self.ready.pop_front_if(|(place, _)| *place + waiting as u64 <= self.sent)
        {
            self.ready_bytes -= bytes;
        }
        self.ready_bytes
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

    /// Whether a problem of a kind is reported and not solved.
    pub(crate) fn is_open(&self, kind: &Kind) -> bool {
        self.problems.contains_key(kind)
    }

    /// Whether events were lost and not yet told.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// When [`Self::ready`] and [`Self::recover`] are to be tried, if something waits or was lost. It stays the
    /// same however often it is asked for: under load that is more often than it comes.
    pub(crate) fn retry_at(&mut self, now: Instant) -> Option<Instant> {
        let waits = self.has_lost() || !self.backlog.is_empty();
        waits.then(|| *self.retry_at.get_or_insert(now + LOST_RETRY))
    }

    /// Tells of the loss and gives the state anew, if there is room for all of it.
    pub(crate) fn recover(&mut self, state: impl FnOnce() -> Vec<Event>) {
        self.retry_at = None;
        if self.lost == 0
            || self.events.capacity() < self.events.max_capacity() / 2
            || !self.backlog.is_empty()
        {
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
    use crate::elements::NS_LDAPSYNC;
    use xmpp_parsers::jid::BareJid;
    use xmpp_parsers::minidom::Element;

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

    fn stored(n: usize) -> Stored {
        let text = format!("{n}{}", "x".repeat(100));
        let payload = Element::builder("batch", NS_LDAPSYNC).append(text).build();
        Stored::new(BareJid::new("b@example.org").unwrap(), &payload, true)
    }

    fn next(events: &mut mpsc::Receiver<Event>) -> usize {
        match events.try_recv() {
            Ok(Event::Stored { payload, .. }) => payload.text().trim_end_matches('x').parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn few_of_many_stored_messages_are_events_at_a_time_and_all_come_in_order() {
        let (mut outlet, mut events) = outlet(64);
        outlet.ready_max = 4 * stored(10).bytes();
        outlet.send(echo(0));
        for n in 0..20 {
            outlet.send_stored(stored(n));
        }
        assert!(events.try_recv().is_ok());
        for n in 0..20 {
            assert!(events.len() <= 4 && !events.is_empty());
            assert_eq!(next(&mut events), n);
            assert_eq!(outlet.retry_at(Instant::now()).is_some(), n < 16);
            outlet.ready();
        }
        assert!(!outlet.has_lost());
        assert_eq!((outlet.backlog_bytes, outlet.ready_bytes()), (0, 0));
    }

    #[test]
    fn more_stored_messages_than_may_wait_are_told_as_lost_once_there_is_room() {
        let (mut outlet, mut events) = outlet(64);
        (outlet.ready_max, outlet.backlog_max) = (4 * stored(10).bytes(), 12 * stored(10).bytes());
        let fit = 16;
        for n in 0..fit + 10 {
            outlet.send_stored(stored(n));
        }
        outlet.recover(Vec::new);
        assert!(outlet.has_lost(), "not told before what came before it");
        for n in 0..fit {
            assert_eq!(next(&mut events), n);
            outlet.ready();
        }
        outlet.recover(Vec::new);
        assert!(matches!(events.try_recv(), Ok(Event::Lost { count: 10 })));
        outlet.send_stored(stored(1));
        assert_eq!(next(&mut events), 1);
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

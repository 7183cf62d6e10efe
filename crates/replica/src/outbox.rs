//! The own stream: what was committed here, what of it was sent, what of it has come back.

mod pacing;

use crate::mutation::{self, Mutation};
use crate::{Batch, BootId, Change, Csn, ServerId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pacing::Pacing;

/// The bounds of an [`Outbox`].
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Changes in one batch.
    pub batch_changes_max: usize,
    /// Bytes of content in one batch; a single change may be larger.
    pub batch_bytes_max: usize,
    /// Batches that were sent and whose echo has not come.
    pub window_batches_max: usize,
    /// Least time between two batches that are not full: with nothing sent for so long a change goes at once,
    /// under load changes wait for company.
    pub gather_delay: Duration,
    /// An echo that takes longer than this is lost, and everything after it is sent again; longer where echoes take long
    /// and come, so that a slow server is not given everything again and again.
    pub echo_timeout: Duration,
    /// Bytes of content that wait to be sent. What falls out is pulled from the journal by those who lack it.
    pub log_bytes_max: usize,
}

impl Default for OutboxLimits {
    fn default() -> OutboxLimits {
        OutboxLimits {
            batch_changes_max: 50,
            batch_bytes_max: 64 * 1024,
            window_batches_max: 16,
            gather_delay: Duration::from_millis(5),
            echo_timeout: Duration::from_secs(20),
            log_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// This boot's own changes that have not come back yet, with a cursor for what was sent.
///
/// The sequence numbers are dense: change `n` of the log has the number `first + n`. After a lost line the
/// stream is taken up at what had come back last, so a receiver may see changes twice, never a hole that
/// sending could have avoided.
#[derive(Debug)]
pub struct Outbox {
    origin: ServerId,
    boot: BootId,
    limits: OutboxLimits,
    /// The last own change before the log begins.
    start: Option<Csn>,
    log: VecDeque<Arc<Change>>,
    log_bytes: usize,
    /// Sequence number of the log's front.
    first: u64,
    /// Next to send.
    unsent: u64,
    in_flight: VecDeque<InFlight>,
    online: bool,
    last_sent: Option<Instant>,
    pacing: Pacing,
    /// Changes up to this number go in batches of one.
    alone_until: u64,
}

#[derive(Debug)]
struct InFlight {
    first: u64,
    last: u64,
    sent: Instant,
}

impl Outbox {
    /// An empty log of a new boot. `start` is the own CSN up to which the database already was.
    pub fn new(origin: ServerId, boot: BootId, start: Option<Csn>, limits: OutboxLimits) -> Outbox {
        Outbox {
            origin,
            boot,
            limits,
            start,
            log: VecDeque::new(),
            log_bytes: 0,
            first: 1,
            unsent: 1,
            in_flight: VecDeque::new(),
            online: false,
            last_sent: None,
            pacing: Pacing::new(&limits),
            alone_until: 0,
        }
    }

    /// Takes the next change in commit order. Returns how many changes fell out of the log unsent because
    /// it is full: receivers will see a hole there.
    pub fn push(&mut self, change: impl Into<Arc<Change>>) -> u64 {
        let change = change.into();
        self.log_bytes += change.size();
        self.log.push_back(change);
        let mut lost = 0;
        while self.log_bytes > self.limits.log_bytes_max && self.log.len() > 1 {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_bytes -= oldest.size();
            self.start = Some(oldest.csn);
            if self.first >= self.unsent {
                self.unsent = self.first + 1;
                lost += 1;
            }
            self.first += 1;
        }
        lost
    }

    /// The sequence number of the last change; 0 before the first.
    pub fn last(&self) -> u64 {
        self.first + self.log.len() as u64 - 1
    }

    /// The last sequence number that was sent, and the own CSN up to which that brings a receiver.
    pub fn sent(&self) -> (u64, Option<Csn>) {
        self.position_before(self.unsent)
    }

    /// As [`sent`](Self::sent), but what has come back.
    pub fn confirmed(&self) -> (u64, Option<Csn>) {
        let next = self.in_flight.front().map_or(self.unsent, |oldest| oldest.first);
        self.position_before(next.max(self.first))
    }

    fn position_before(&self, next: u64) -> (u64, Option<Csn>) {
        let last = (next - self.first).checked_sub(1).and_then(|index| self.log.get(index as usize));
        (next - 1, last.map(|change| change.csn).or(self.start))
    }

    /// The batch that was polled last cannot be sent as it is: its changes come one by one.
    pub fn handle_unsendable(&mut self, batch: &Batch) {
        if self.in_flight.back().is_some_and(|sent| sent.first == batch.first) {
            self.in_flight.pop_back();
        }
        self.unsent = batch.first;
        self.last_sent = None;
        self.alone_until = batch.last();
    }

    /// The batch that was polled last is passed over: receivers see the hole and ask for it.
    pub fn pass_over(&mut self, batch: &Batch) {
        if self.in_flight.back().is_some_and(|sent| sent.first == batch.first) {
            self.in_flight.pop_back();
        }
    }

    /// Changes up to `csn` will never be pushed: receivers see a hole there.
    pub fn skip_to(&mut self, csn: Csn) {
        self.first = self.last() + 1;
        self.unsent = self.first;
        self.log.clear();
        self.log_bytes = 0;
        self.in_flight.clear();
        self.start = Some(csn).max(self.start);
    }

    /// Before the first change receivers are to see a hole, up to `csn`. `false`: something was sent already, or is not later.
    pub fn begin_after(&mut self, csn: Csn) -> bool {
        let is_first = self.unsent == 1 && self.log.front().is_none_or(|change| change.csn > csn);
        if is_first {
            self.start = self.start.max(Some(csn));
        }
        is_first
    }

    /// The stream's boot id.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Whether everything was sent and has come back.
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.unsent > self.last()
    }

    /// The line is up: sending may begin.
    pub fn handle_online(&mut self) {
        self.online = true;
        self.rewind();
    }

    /// The line is down: what has not come back is sent again later.
    pub fn handle_offline(&mut self) {
        self.online = false;
        self.rewind();
    }

    /// What is in flight is lost, although the line is up.
    pub fn handle_loss(&mut self) {
        self.pacing.handle_timeout();
        self.rewind();
    }

    fn rewind(&mut self) {
        if let Some(oldest) = self.in_flight.front() {
            self.unsent = oldest.first.max(self.first);
        }
        self.in_flight.clear();
        self.last_sent = None;
    }

    /// The batch that ends with `last` has come back from the room, so everybody in it has it.
    pub fn handle_echo(&mut self, last: u64, now: Instant) {
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.last <= last) {
            self.pacing.handle_echo(now.saturating_duration_since(batch.sent), now);
        }
        let needed = self.in_flight.front().map_or(self.unsent, |oldest| oldest.first);
        while self.first < needed
            && let Some(oldest) = self.log.pop_front()
        {
            self.log_bytes -= oldest.size();
            self.start = Some(oldest.csn);
            self.first += 1;
        }
    }

    /// The next batch to send, if it is time for one.
    pub fn poll_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.in_flight.front().is_some_and(|oldest| now >= self.pacing.overdue(oldest.sent)) {
            self.pacing.handle_timeout();
            self.rewind();
        }
        let unsent = self.log.len().saturating_sub((self.unsent - self.first) as usize);
        if !self.online || unsent == 0 || self.in_flight.len() >= self.pacing.window() {
            return None;
        }
        let gathering = self.last_sent.is_some_and(|sent| now < sent + self.limits.gather_delay);
        if gathering && unsent < self.limits.batch_changes_max {
            return None;
        }
        let batch = self.read(self.unsent, self.pacing.batch_bytes())?;
        self.unsent = batch.last() + 1;
        self.last_sent = Some(now);
        self.in_flight.push_back(InFlight { first: batch.first, last: batch.last(), sent: now });
        Some(batch)
    }

    /// When [`poll_batch`](Self::poll_batch) has to be asked again although nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.online {
            return None;
        }
        let echo = self.in_flight.front().map(|oldest| self.pacing.overdue(oldest.sent));
        let room = self.in_flight.len() < self.pacing.window() && self.unsent <= self.last();
        let gathered = self.last_sent.filter(|_| room).map(|sent| sent + self.limits.gather_delay);
        match (echo, gathered) {
            (Some(echo), Some(gathered)) => Some(echo.min(gathered)),
            (one, other) => one.or(other),
        }
    }

    fn read(&self, from: u64, bytes_max: usize) -> Option<Batch> {
        let skip = usize::try_from(from.checked_sub(self.first)?).ok()?;
        let mut bytes = 0;
        let fits = |change: &&Change| {
            let first = bytes == 0;
            bytes += change.size();
            first || bytes <= bytes_max
        };
        let count = if from <= self.alone_until { 1 } else { self.limits.batch_changes_max };
        let changes: Vec<Change> =
            self.log.iter().map(Arc::as_ref).skip(skip).take(count).take_while(fits).cloned().collect();
        let (_, prev) = self.position_before(from);
        (!changes.is_empty()).then_some(Batch {
            origin: self.origin,
            boot: self.boot,
            first: from,
            prev: prev.filter(|_| !mutation::is(Mutation::PrevForgotten)),
            changes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{csn, delete, server};

    fn outbox(limits: OutboxLimits) -> Outbox {
        let mut outbox = Outbox::new(server(1), BootId::new(7), Some(csn(0, 1)), limits);
        outbox.handle_online();
        outbox
    }

    fn range(batch: Option<Batch>) -> Option<(u64, u64)> {
        batch.map(|batch| (batch.first, batch.last()))
    }

    #[test]
    fn the_first_change_goes_at_once_and_the_next_ones_gather() {
        let (now, mut outbox) = (Instant::now(), outbox(OutboxLimits::default()));
        outbox.push(delete(csn(1, 1)));
        assert_eq!(range(outbox.poll_batch(now)), Some((1, 1)));
        outbox.push(delete(csn(2, 1)));
        outbox.push(delete(csn(3, 1)));
        assert_eq!(range(outbox.poll_batch(now)), None);
        let later = outbox.poll_timeout().unwrap();
        assert_eq!(later, now + OutboxLimits::default().gather_delay);
        assert_eq!(range(outbox.poll_batch(later)), Some((2, 3)));
    }

    #[test]
    fn a_full_batch_waits_for_nothing() {
        let limits = OutboxLimits { batch_changes_max: 2, ..OutboxLimits::default() };
        let (now, mut outbox) = (Instant::now(), outbox(limits));
        outbox.push(delete(csn(1, 1)));
        outbox.poll_batch(now);
        outbox.push(delete(csn(2, 1)));
        assert_eq!(range(outbox.poll_batch(now)), None);
        outbox.push(delete(csn(3, 1)));
        assert_eq!(range(outbox.poll_batch(now)), Some((2, 3)));
    }

    #[test]
    fn what_has_not_come_back_is_sent_again_after_a_lost_line() {
        let (now, mut outbox) = (Instant::now(), outbox(OutboxLimits::default()));
        for second in 1..=3 {
            outbox.push(delete(csn(second, 1)));
            outbox.poll_batch(now + Duration::from_secs(second));
        }
        outbox.handle_echo(1, now);
        outbox.handle_offline();
        assert_eq!(range(outbox.poll_batch(now)), None);
        outbox.handle_online();
        assert_eq!(range(outbox.poll_batch(now)), Some((2, 3)));
    }

    #[test]
    fn a_lost_echo_is_a_lost_batch() {
        let (now, mut outbox) = (Instant::now(), outbox(OutboxLimits::default()));
        outbox.push(delete(csn(1, 1)));
        outbox.poll_batch(now);
        let timeout = outbox.poll_timeout().unwrap();
        assert_eq!(range(outbox.poll_batch(timeout)), Some((1, 1)));
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let limits = OutboxLimits { batch_changes_max: 1, window_batches_max: 2, ..OutboxLimits::default() };
        let (now, mut outbox) = (Instant::now(), outbox(limits));
        (1..=5).for_each(|second| {
            outbox.push(delete(csn(second, 1)));
        });
        assert_eq!(range(outbox.poll_batch(now)), Some((1, 1)));
        assert_eq!(range(outbox.poll_batch(now)), Some((2, 2)));
        assert_eq!(range(outbox.poll_batch(now)), None);
        outbox.handle_echo(2, now);
        assert_eq!(range(outbox.poll_batch(now)), Some((3, 3)));
    }

    #[test]
    fn a_full_log_forgets_the_oldest_and_says_what_was_never_sent() {
        let limits = OutboxLimits { log_bytes_max: 3 * delete(csn(1, 1)).size(), ..OutboxLimits::default() };
        let (now, mut outbox) = (Instant::now(), outbox(limits));
        outbox.handle_offline();
        let lost: u64 = (1..=5).map(|second| outbox.push(delete(csn(second, 1)))).sum();
        assert_eq!((lost, outbox.last()), (2, 5));
        outbox.handle_online();
        assert_eq!(range(outbox.poll_batch(now)), Some((3, 5)));
    }

    #[test]
    fn each_batch_names_the_change_before_it_whatever_was_forgotten_or_skipped() {
        let limits = OutboxLimits { batch_changes_max: 1, ..OutboxLimits::default() };
        let (now, mut outbox) = (Instant::now(), outbox(limits));
        let prev = |batch: Option<Batch>| batch.map(|batch| (batch.first, batch.prev));
        (1..=3).for_each(|second| assert_eq!(outbox.push(delete(csn(second, 1))), 0));
        assert_eq!(prev(outbox.poll_batch(now)), Some((1, Some(csn(0, 1)))));
        let unsendable = outbox.poll_batch(now).unwrap();
        outbox.pass_over(&unsendable);
        assert_eq!(prev(outbox.poll_batch(now)), Some((3, Some(csn(2, 1)))));
        outbox.skip_to(csn(9, 1));
        outbox.push(delete(csn(10, 1)));
        assert_eq!(prev(outbox.poll_batch(now)), Some((4, Some(csn(9, 1)))));
    }

    #[test]
    fn a_hole_is_shown_before_what_was_not_sent_yet_and_is_later() {
        let (now, mut outbox) = (Instant::now(), outbox(OutboxLimits::default()));
        outbox.push(delete(csn(5, 1)));
        assert!(!outbox.begin_after(csn(6, 1)));
        assert!(outbox.begin_after(csn(4, 1)));
        assert_eq!(outbox.poll_batch(now).unwrap().prev, Some(csn(4, 1)));
        assert!(!outbox.begin_after(csn(4, 1)));
    }

    #[test]
    fn a_batch_that_cannot_be_sent_is_taken_apart() {
        let (now, mut outbox) = (Instant::now(), outbox(OutboxLimits::default()));
        (1..=2).for_each(|second| assert_eq!(outbox.push(delete(csn(second, 1))), 0));
        let batch = outbox.poll_batch(now).unwrap();
        outbox.handle_unsendable(&batch);
        assert_eq!(range(outbox.poll_batch(now)), Some((1, 1)));
        let later = now + OutboxLimits::default().gather_delay;
        assert_eq!(range(outbox.poll_batch(later)), Some((2, 2)));
    }

    #[test]
    fn confirmed_is_what_has_come_back() {
        let (now, mut outbox) = (Instant::now(), outbox(OutboxLimits::default()));
        assert_eq!(outbox.confirmed(), (0, Some(csn(0, 1))));
        outbox.push(delete(csn(1, 1)));
        outbox.poll_batch(now);
        assert_eq!((outbox.sent(), outbox.confirmed()), ((1, Some(csn(1, 1))), (0, Some(csn(0, 1)))));
        outbox.handle_echo(1, now);
        assert_eq!(outbox.confirmed(), (1, Some(csn(1, 1))));
    }
}

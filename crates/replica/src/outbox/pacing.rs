//! How much may be in flight, and how long an echo may take: as much and as long as the XMPP server lets it.
//!
//! A server that throttles its clients reads some kilobytes a second. A full window waits there for minutes, and with it every
//! answer that a peer waits for; and sending all of it again because no echo came in time would add as much once more.

use super::OutboxLimits;
use std::time::{Duration, Instant};

/// An echo that takes longer than this says that too much is in flight.
const SLOW: Duration = Duration::from_secs(5);
/// One that is faster than this says that more may be.
const FAST: Duration = Duration::from_secs(1);
/// The next echo may take so much longer than one that came.
const PATIENCE_FACTOR: u32 = 4;
/// The longest that an echo may take.
const PATIENCE_MAX: Duration = Duration::from_secs(600);
/// With one batch in flight it is smaller by this factor, so that answers to peers do not wait behind it for long.
const SMALLER: usize = 4;

#[derive(Debug)]
pub(super) struct Pacing {
    limits: OutboxLimits,
    window: usize,
    patience: Duration,
    /// When an echo came last.
    heard: Option<Instant>,
}

impl Pacing {
    pub(super) fn new(limits: &OutboxLimits) -> Pacing {
        let (window, patience) = (limits.window_batches_max, limits.echo_timeout);
        Pacing { limits: *limits, window, patience, heard: None }
    }

    /// How many batches may be in flight.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// How large a batch may be.
    pub(super) fn batch_bytes(&self) -> usize {
        let slow = self.window == 1 && self.limits.window_batches_max > 1;
        self.limits.batch_bytes_max / if slow { SMALLER } else { 1 }
    }

    /// When the echo of the oldest batch in flight counts as lost. As long as others come it does not: they come in order.
    pub(super) fn overdue(&self, sent: Instant) -> Instant {
        self.heard.map_or(sent, |heard| heard.max(sent)) + self.patience
    }

    pub(super) fn handle_echo(&mut self, took: Duration, now: Instant) {
        if took > SLOW {
            self.window = (self.window / 2).max(1);
        } else if took < FAST {
            self.window = (self.window + 1).min(self.limits.window_batches_max);
        }
        self.patience = (took * PATIENCE_FACTOR).clamp(self.limits.echo_timeout, PATIENCE_MAX);
        self.heard = Some(now);
    }

    /// It was lost, or takes even longer.
    pub(super) fn handle_timeout(&mut self) {
        self.window = 1;
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_server_gets_less_at_a_time_and_more_again_when_it_is_fast() {
        let (mut pacing, now) = (Pacing::new(&OutboxLimits::default()), Instant::now());
        let full = (pacing.window(), pacing.batch_bytes());
        (0..10).for_each(|_| pacing.handle_echo(SLOW * 2, now));
        assert_eq!(pacing.window(), 1);
        assert!(pacing.batch_bytes() < full.1);
        (0..100).for_each(|_| pacing.handle_echo(Duration::from_millis(5), now));
        assert_eq!((pacing.window(), pacing.batch_bytes()), full);
    }

    #[test]
    fn an_echo_is_waited_for_longer_where_echoes_take_long() {
        let limits = OutboxLimits::default();
        let (mut pacing, sent) = (Pacing::new(&limits), Instant::now());
        assert_eq!(pacing.overdue(sent), sent + limits.echo_timeout);
        pacing.handle_timeout();
        assert_eq!(pacing.overdue(sent), sent + limits.echo_timeout * 2);
        let took = Duration::from_secs(40);
        pacing.handle_echo(took, sent + took);
        assert_eq!(pacing.overdue(sent), sent + took + took * PATIENCE_FACTOR);
        (0..20).for_each(|_| pacing.handle_timeout());
        assert!(pacing.overdue(sent) <= sent + took + PATIENCE_MAX);
    }
}

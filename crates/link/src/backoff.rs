//! Growing waits between attempts, without a clock and without randomness of their own.

use std::time::Duration;

/// Doubles the wait with every attempt up to a cap; half of each wait is jitter, so that the servers of a
/// group do not come back in step after the XMPP server was restarted.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0 }
    }

    /// Attempts since the last reset.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next wait; `jitter` is evenly distributed in 0..1.
    pub(crate) fn next(&mut self, jitter: f64) -> Duration {
        let whole = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// Starts anew, but only if what was reached lived for `stable`: something that is reached and lost
    /// again at once (two clients with one JID) must not be repeated hot.
    pub(crate) fn lived(&mut self, lived: Duration, stable: Duration) {
        if lived >= stable {
            self.attempts = 0;
        }
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(250), Duration::from_secs(30))
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut b = backoff();
        let waits: Vec<_> = (0..9).map(|_| b.next(1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn jitter_takes_at_most_half_of_the_wait() {
        assert_eq!(backoff().next(0.0), Duration::from_millis(125));
        assert_eq!(backoff().next(7.0), Duration::from_millis(250));
    }

    #[test]
    fn a_short_life_does_not_start_anew() {
        let mut b = backoff();
        b.next(1.0);
        b.next(1.0);
        b.lived(Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(b.next(1.0), Duration::from_secs(1));
        b.lived(Duration::from_secs(60), Duration::from_secs(60));
        assert_eq!(b.next(1.0), Duration::from_millis(250));
    }

    #[test]
    fn very_many_attempts_do_not_overflow() {
        let mut b = backoff();
        for _ in 0..100_000 {
            b.next(0.5);
        }
        assert_eq!(b.next(1.0), Duration::from_secs(30));
    }
}

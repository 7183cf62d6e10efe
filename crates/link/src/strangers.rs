//! Senders that are no members: dropped, counted, and reported now and then.

use std::collections::HashMap;
use std::time::Instant;

use crate::limits::{STRANGER_EVERY, STRANGERS_MAX};

/// Counts per sender.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    seen: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    reported: Instant,
    dropped: u64,
}

impl Strangers {
    /// Counts a dropped message; a number when it is time to report, namely of those dropped since the last
    /// report. When more senders come than are told apart, the oldest are forgotten.
    pub(crate) fn dropped(&mut self, who: &str, now: Instant) -> Option<u64> {
        if let Some(seen) = self.seen.get_mut(who) {
            seen.dropped += 1;
            if now.saturating_duration_since(seen.reported) < STRANGER_EVERY {
                return None;
            }
            seen.reported = now;
            return Some(std::mem::take(&mut seen.dropped));
        }
        if self.seen.len() >= STRANGERS_MAX {
            self.seen.retain(|_, seen| now.saturating_duration_since(seen.reported) < STRANGER_EVERY);
            if self.seen.len() >= STRANGERS_MAX {
                return None;
            }
        }
        self.seen.insert(who.to_owned(), Seen { reported: now, dropped: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_stranger_is_reported_once_a_minute_with_a_count() {
        let mut strangers = Strangers::default();
        let start = Instant::now();
        assert_eq!(strangers.dropped("m@example.org", start), Some(1));
        for second in 1..60 {
            assert_eq!(strangers.dropped("m@example.org", start + Duration::from_secs(second)), None);
        }
        assert_eq!(strangers.dropped("m@example.org", start + Duration::from_secs(60)), Some(60));
    }

    #[test]
    fn a_flood_of_names_does_not_grow_the_memory() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        for n in 0..10 * STRANGERS_MAX {
            strangers.dropped(&n.to_string(), now);
        }
        assert_eq!(strangers.seen.len(), STRANGERS_MAX);
        assert_eq!(strangers.dropped("later", now + STRANGER_EVERY), Some(1));
        assert_eq!(strangers.seen.len(), 1);
    }
}

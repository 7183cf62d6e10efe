//! The replica's clock: what it was told of, what it gives, and which clocks of others are too far ahead to be believed.

use crate::shared::lock;
use crate::store::now;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::Duration;
use tracing::{info, warn};
use xmppsync_replica::{Batch, Change, Clock, Csn, ServerId, Vector, ahead};

/// How far this server's time of day may be behind what it has seen before that is told: clocks that are kept by NTP are nearer.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// What is later than this server's clock by more than `max_drift` is refused: nothing of it is applied, and it does not move the
/// clock or the vector, so that it is asked for again until the clocks are right.
pub(crate) struct LocalClock {
    clock: Mutex<State>,
    max_drift: Duration,
    /// Seconds since 1970.
    now: fn() -> u64,
    /// Servers of which something was refused, and what.
    refused: Mutex<BTreeMap<ServerId, Csn>>,
}

#[derive(Default)]
struct State {
    clock: Clock,
    /// It was told that the time of day is behind; it has to catch up before that is told again.
    told: bool,
}

impl LocalClock {
    /// A clock that has seen nothing.
    pub(crate) fn new(max_drift: Duration) -> LocalClock {
        LocalClock { clock: Mutex::default(), max_drift, now, refused: Mutex::default() }
    }

    /// The CSN of a write that begins now; `wall` is the time of day.
    pub(crate) fn mint(&self, wall: Csn) -> Csn {
        let mut state = lock(&self.clock);
        let csn = state.clock.mint(wall);
        // Only then the time of day was not used.
        let behind = (csn != wall).then(|| state.tell(csn, (self.now)())).flatten();
        state.told &= csn != wall;
        drop(state);
        tell_behind(behind, csn);
        csn
    }

    /// What is minted from now on is later than these.
    pub(crate) fn observe(&self, csns: impl IntoIterator<Item = Csn>) {
        let Some(csn) = csns.into_iter().max() else { return };
        let mut state = lock(&self.clock);
        state.clock.observe(csn);
        let behind = state.tell(csn, (self.now)());
        drop(state);
        tell_behind(behind, csn);
    }

    /// Whether the clock of the server that made this is too far ahead. Each server is told of once, with `from`, the peer from which
    /// it came.
    pub(crate) fn refuses(&self, csn: Csn, from: &dyn Display) -> bool {
        let (drift, server) = (ahead(csn, (self.now)()), csn.server_id());
        let mut refused = lock(&self.refused);
        if drift <= self.max_drift {
            // What it made before its clock was wrong says nothing.
            if refused.get(&server).is_some_and(|refused| csn >= *refused) {
                refused.remove(&server);
                info!("changes of server {server} are taken again: they are within xmppsync-max-drift");
            }
            return false;
        }
        if refused.insert(server, csn).is_none() {
            warn!(
                "a change of server {server} (CSN {csn}, from {from}) is {} s ahead of this server's clock, more than xmppsync-max-drift \
                 allows ({} s): nothing that is so far ahead is taken; set the clocks right, or the directive higher",
                drift.as_secs(),
                self.max_drift.as_secs()
            );
        }
        true
    }

    /// The same for all that a vector tells of.
    pub(crate) fn refuses_any(&self, vector: &Vector, from: &dyn Display) -> bool {
        // Each is told of.
        vector.iter().filter(|csn| self.refuses(*csn, from)).count() > 0
    }

    /// Leaves what may be taken of a batch: the changes before the first that is too far ahead.
    pub(crate) fn cut(&self, mut batch: Batch, from: &dyn Display) -> Option<Batch> {
        // They are in the order of their CSNs.
        if batch.last_csn().is_some_and(|last| !self.refuses(last, from)) {
            return Some(batch);
        }
        let taken = batch.changes.iter().take_while(|change| !self.refuses(change.csn, from)).count();
        batch.changes.truncate(taken);
        (taken > 0).then_some(batch)
    }

    /// Leaves the states that may be taken.
    pub(crate) fn filter(&self, states: Vec<Change>, from: &dyn Display) -> Vec<Change> {
        states.into_iter().filter(|state| !self.refuses(state.csn, from)).collect()
    }
}

impl State {
    /// How far the time of day is behind the CSN, if that is to be told.
    fn tell(&mut self, csn: Csn, now: u64) -> Option<Duration> {
        let behind = ahead(csn, now);
        let tells = behind > BEHIND_MAX && !self.told;
        self.told |= tells;
        tells.then_some(behind)
    }
}

fn tell_behind(behind: Option<Duration>, csn: Csn) {
    if let Some(behind) = behind {
        warn!(
            "this server's clock is {} s behind a change that it has seen (CSN {csn}): writes get the time of that change until the \
             clock has caught up; set the clocks right",
            behind.as_secs()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// 2026-11-22, 23:59:59.
    const NOW: u64 = 1_795_391_999;

    fn clock() -> LocalClock {
        LocalClock { now: || NOW, ..LocalClock::new(Duration::from_secs(600)) }
    }

    fn csn(time: &str, server: u16) -> Csn {
        format!("{time}.000000Z#000000#{server:03x}#000000").parse().unwrap()
    }

    #[test]
    fn what_is_too_far_ahead_is_refused_until_its_server_is_near_again() {
        let mut clock = clock();
        let (near, far) = (csn("20261123000959", 2), csn("20261123001000", 2));
        assert!(!clock.refuses(near, &"a") && clock.refuses(far, &"a") && clock.refuses(far, &"a"));
        assert!(!clock.refuses(csn("20261122000000", 3), &"a"));
        let refused = || lock(&clock.refused).keys().map(|server| server.get()).collect::<BTreeSet<_>>();
        assert_eq!(refused(), BTreeSet::from([2]));
        assert!(!clock.refuses(near, &"a"));
        assert_eq!(refused(), BTreeSet::from([2]), "an earlier change says nothing of the clock");
        clock.now = || NOW + 1;
        assert!(!clock.refuses(far, &"a"));
        assert!(lock(&clock.refused).is_empty());
        assert_eq!(clock.mint(near), near, "nothing of it was observed");
    }

    #[test]
    fn what_is_minted_follows_what_was_observed() {
        let clock = clock();
        let wall = csn("20261122235959", 1);
        clock.observe([csn("20261122120000", 3), csn("20261123000500", 2), csn("20261122120000", 4)]);
        assert_eq!(clock.mint(wall).to_string(), "20261123000500.000000Z#000001#001#000000");
        assert!(lock(&clock.clock).told, "five minutes behind");
        let later = csn("20261123000600", 1);
        assert_eq!(clock.mint(later), later);
        assert!(!lock(&clock.clock).told);
    }
}

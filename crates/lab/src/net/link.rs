//! What becomes of a packet: pure, time and chance are parameters.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a link does to the packets of one direction. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Condition {
    /// Nothing goes through.
    pub cut: bool,
    /// The share of packets that are lost, from 0 to 1.
    pub loss: f64,
    /// How long a packet is on its way.
    pub latency: Duration,
    /// Cut and open by turns, each for so long; it begins with a cut.
    pub flaps: Option<Duration>,
}

impl Condition {
    /// Nothing goes through.
    pub const CUT: Self = Self { cut: true, loss: 0.0, latency: Duration::ZERO, flaps: None };
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Arrives(Duration),
}

/// All directions between so many ports.
#[derive(Debug)]
pub(super) struct Links {
    ports: usize,
    /// By sender, then by receiver, each with the time since when it is so.
    conditions: Vec<Option<(Condition, Instant)>>,
    rng: StdRng,
    pub(super) passed: u64,
    pub(super) lost: u64,
}

impl Links {
    pub(super) fn new(ports: usize, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { ports, conditions: vec![None; ports * ports], rng, passed: 0, lost: 0 }
    }

    pub(super) fn set(&mut self, from: usize, to: usize, condition: Condition, now: Instant) {
        if let Some(place) = self.conditions.get_mut(from * self.ports + to) {
            *place = (condition != Condition::default()).then_some((condition, now));
        }
    }

    pub(super) fn heal(&mut self) {
        self.conditions.fill(None);
    }

    pub(super) fn fate(&mut self, from: usize, to: usize, now: Instant) -> Fate {
        let fate = match self.conditions.get(from * self.ports + to) {
            Some(Some((condition, since))) => fate(condition, now - *since, &mut self.rng),
            _ => Fate::Arrives(Duration::ZERO),
        };
        match fate {
            Fate::Lost => self.lost += 1,
            Fate::Arrives(_) => self.passed += 1,
        }
        fate
    }
}

fn fate(condition: &Condition, lasts: Duration, rng: &mut StdRng) -> Fate {
    let is_flapped = condition.flaps.is_some_and(|turn| {
        let turns = lasts.as_nanos() / turn.as_nanos().max(1);
        turns.is_multiple_of(2)
    });
    if condition.cut || is_flapped || rng.random_bool(condition.loss.clamp(0.0, 1.0)) {
        Fate::Lost
    } else {
        Fate::Arrives(condition.latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Fate = Fate::Arrives(Duration::ZERO);

    #[test]
    fn a_direction_is_cut_and_the_other_one_is_not() {
        let (mut links, now) = (Links::new(3, 1), Instant::now());
        links.set(1, 2, Condition::CUT, now);
        assert_eq!(links.fate(1, 2, now), Fate::Lost);
        assert_eq!(links.fate(2, 1, now), NOW);
        assert_eq!(links.fate(1, 0, now), NOW);
        links.heal();
        assert_eq!(links.fate(1, 2, now), NOW);
        assert_eq!((links.passed, links.lost), (3, 1));
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let lost = |seed| {
            let (mut links, now) = (Links::new(2, seed), Instant::now());
            links.set(0, 1, Condition { loss: 0.2, ..Condition::default() }, now);
            (0..1000).map(|_| links.fate(0, 1, now) == Fate::Lost).collect::<Vec<_>>()
        };
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
        let count = lost(7).into_iter().filter(|lost| *lost).count();
        assert!((150..250).contains(&count), "{count} of 1000");
    }

    #[test]
    fn a_link_flaps_from_when_it_was_set() {
        let (mut links, now) = (Links::new(2, 1), Instant::now());
        let condition = Condition { flaps: Some(Duration::from_secs(2)), ..Condition::default() };
        links.set(0, 1, condition, now);
        let fates = [0, 1, 2, 3, 4, 5, 6].map(|seconds| links.fate(0, 1, now + Duration::from_secs(seconds)));
        assert_eq!(fates, [Fate::Lost, Fate::Lost, NOW, NOW, Fate::Lost, Fate::Lost, NOW]);
    }

    #[test]
    fn what_is_delayed_arrives_later() {
        let (mut links, now) = (Links::new(2, 1), Instant::now());
        let latency = Duration::from_millis(300);
        links.set(0, 1, Condition { latency, ..Condition::default() }, now);
        assert_eq!(links.fate(0, 1, now), Fate::Arrives(latency));
    }
}

//! The network and the virtual time: what is under way, and when it arrives.

use crate::journal::Page;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use xmppsync_replica::{Batch, PeerCard, PullId, Vector};

/// Microseconds of virtual time.
pub(crate) type Micros = u64;

/// What travels between replicas.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Of the live stream; to its sender it is the echo.
    Batch(Rc<Batch>),
    /// A card, with everything that was applied when it was shown, sent or not.
    Card(Rc<(PeerCard, Vector)>),
    /// A question from the run of the asker.
    Pull { run: u32, id: PullId, have: Vector },
    /// Its answer.
    Page { run: u32, id: PullId, page: Box<Page> },
}

/// What happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message arrives.
    Deliver { from: usize, to: usize, message: Message },
    /// A state machine asked to be looked at.
    Wake(usize),
    /// The database of a run takes what waits to be applied.
    Apply(usize, u32),
    /// The journal of a run is on disk.
    Sync(usize, u32),
    /// The answer to a pull did not come.
    Late(usize, u32, PullId),
}

#[derive(Debug)]
struct Due {
    at: Micros,
    /// Events of one moment happen in the order in which they were planned.
    turn: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.turn) == (other.at, other.turn)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Of a thousand messages so many are lost.
    pub(crate) lost: u32,
    /// So many come twice.
    pub(crate) repeated: u32,
    /// So many take long, and are overtaken.
    pub(crate) late: u32,
}

/// Virtual time, and what is to happen.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: Micros,
    pub(crate) weather: Weather,
    pub(crate) rng: SmallRng,
    start: Instant,
    turn: u64,
    queue: BinaryHeap<Reverse<Due>>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Network {
        Network {
            now: 0,
            weather: Weather::default(),
            rng: SmallRng::seed_from_u64(seed),
            start: Instant::now(),
            turn: 0,
            queue: BinaryHeap::new(),
        }
    }

    /// The virtual time as the state machines take it.
    pub(crate) fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    /// When that is.
    pub(crate) fn micros(&self, when: Instant) -> Micros {
        when.saturating_duration_since(self.start).as_micros() as Micros
    }

    pub(crate) fn plan(&mut self, at: Micros, event: Event) {
        self.turn += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), turn: self.turn, event }));
    }

    pub(crate) fn plan_in(&mut self, range: std::ops::Range<Micros>, event: Event) {
        let delay = self.rng.random_range(range);
        self.plan(self.now + delay, event);
    }

    /// Sends what may get lost.
    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message) {
        let dice = self.rng.random_range(0..1000);
        let Weather { lost, repeated, .. } = self.weather;
        if dice < lost {
            return;
        }
        if dice < lost + repeated {
            self.send_surely(from, to, message.clone());
        }
        self.send_surely(from, to, message);
    }

    /// Sends what arrives, unless the receiver is not there by then.
    pub(crate) fn send_surely(&mut self, from: usize, to: usize, message: Message) {
        let is_late = self.rng.random_range(0..1000) < self.weather.late;
        let delay = if is_late { 10_000..3_000_000 } else { 300..5_000 };
        self.plan_in(delay, Event::Deliver { from, to, message });
    }

    /// The next event up to a moment; without one it is that moment.
    pub(crate) fn next(&mut self, until: Micros) -> Option<Event> {
        match self.queue.peek() {
            Some(Reverse(due)) if due.at <= until => {
                let Reverse(due) = self.queue.pop()?;
                self.now = due.at;
                Some(due.event)
            }
            _ => {
                self.now = self.now.max(until);
                None
            }
        }
    }
}

//! A run: what clients and administrators do and what breaks, then everything works again and all must be alike.

use crate::clock::{self, Clock};
use crate::journal::Journal;
use crate::ledger::{Applied, Checked, Checker, Ledger, Violation, broken};
use crate::model::Model;
use crate::network::{Micros, Network, Weather};
use crate::ops::Mix;
use crate::replica::{Replica, Stored};
use crate::tree;
use crate::world::{Stats, World};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use xmppsync_replica::{Csn, EntryUuid, Operation, ServerId, Unseen, Vector};

/// When everything works again, so much virtual time may pass until all replicas are alike.
const HEALING_MAX: Micros = 300_000_000;
/// So often all compare with all at the end.
const CHECKS: u32 = 2;
/// How often it is looked whether they are.
const LOOK_EVERY: Micros = 500_000;

/// What is to be run. The same scenario does the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Everything that is left to chance comes from it.
    pub seed: u64,
    /// Things that are done, one after the other.
    pub steps: u32,
    /// Those of them that are left out.
    pub skip: BTreeSet<u32>,
    /// Comparisons and loads go by states and not by changes.
    pub by_states: bool,
}

impl Scenario {
    /// One in which nothing is left out.
    pub fn new(seed: u64, steps: u32) -> Scenario {
        Scenario { seed, steps, skip: BTreeSet::new(), by_states: false }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first rule that was found broken.
    pub fn run(&self) -> (Stats, Result<(), Violation>) {
        let mut run = Run::new(self.seed, self.by_states);
        let outcome = run.guarded(self);
        (run.world.stats, outcome)
    }

    /// Runs it, and tells what was done.
    pub fn story(&self) -> Vec<String> {
        let mut run = Run::new(self.seed, self.by_states);
        run.world.story = Some(Vec::new());
        if let Err(violation) = run.guarded(self) {
            run.world.tell(|| violation.to_string());
        }
        run.world.story.unwrap_or_default()
    }
}

fn server(at: usize) -> ServerId {
    // Few, and counted from 1.
    ServerId::new(at as u32 + 1).unwrap_or(ServerId::NONE)
}

fn fresh() -> Model {
    Model::new(EntryUuid::from_bytes([1; 16]), first_csn())
}

fn first_csn() -> Csn {
    clock::csn(0, 0, server(0))
}

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) mix: Mix,
    /// How often what is done in this run.
    rates: Rates,
}

/// What is done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Operate,
    Start,
    Crash,
    Cut,
    Weather,
    Clock,
    Trim,
    Overflow,
    BackUp,
    Restore,
    Join,
    Remove,
}

/// How often what is done, in ten thousand steps.
#[derive(Clone, Copy, Debug)]
struct Rates {
    crash: u32,
    cut: u32,
    weather: u32,
    clock: u32,
    trim: u32,
    reset: u32,
    back_up: u32,
    restore: u32,
    join: u32,
    remove: u32,
}

impl Run {
    fn new(seed: u64, by_states: bool) -> Run {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rng.random_range(2..=if seed.is_multiple_of(4) { 7 } else { 4 });
        let disk = Stored {
            model: fresh(),
            vector: Vector::default(),
            journal: Journal::default(),
            applied: Applied::default(),
            without_effect: BTreeSet::new(),
            unseen: Unseen::default(),
            settled: Vec::new(),
        };
        let replicas = (0..count)
            .map(|at| {
                let offset = rng.random_range(-1_000_000..1_000_000);
                let clock = Clock::new(server(at), offset, rng.random_range(-50_000..50_000));
                Replica::new(server(at), disk.clone(), clock)
            })
            .collect();
        let mut often = |most: u32| if rng.random_bool(0.3) { 0 } else { rng.random_range(0..=most) };
        let rates = Rates {
            crash: often(300),
            cut: often(400),
            weather: often(300),
            clock: often(200),
            trim: often(800),
            reset: often(200),
            back_up: often(200),
            restore: if seed.is_multiple_of(3) { often(200) } else { 0 },
            join: if seed % 5 < 3 { often(100) } else { 0 },
            remove: if seed.is_multiple_of(5) { often(100) } else { 0 },
        };
        let network = Network::new(rng.random());
        let world = World {
            network,
            replicas,
            ledger: Ledger::default(),
            stats: Stats::default(),
            backups: Vec::new(),
            by_states,
            story: None,
        };
        Run { world, mix: Mix::default(), rates }
    }

    fn guarded(&mut self, scenario: &Scenario) -> Checked {
        // The model of a database asserts what must not be.
        catch_unwind(AssertUnwindSafe(|| self.all(scenario))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            broken(Checker::Tree, text.unwrap_or_default())
        })
    }

    fn all(&mut self, scenario: &Scenario) -> Checked {
        for at in 0..self.world.replicas.len() {
            self.world.greet(at);
        }
        for step in (0..scenario.steps).filter(|step| !scenario.skip.contains(step)) {
            // Each step has its own chance, so that another one can be left out.
            let mut rng = SmallRng::seed_from_u64(scenario.seed << 24 ^ u64::from(step) << 1 ^ 1);
            self.step(step, &mut rng)?;
            let pause = match rng.random_range(0..40) {
                0 => 5_000_000,
                1..5 => 100_000,
                _ => 3_000,
            };
            let until = self.world.network.now + rng.random_range(0..pause);
            self.world.run_until(until)?;
        }
        self.heal()?;
        self.compare()
    }

    fn choose(&self, rng: &mut SmallRng) -> Deed {
        let Rates { crash, cut, weather, clock, trim, reset, back_up, restore, join, remove } = self.rates;
        let deeds = [
            (Deed::Crash, crash),
            (Deed::Cut, cut),
            (Deed::Weather, weather),
            (Deed::Clock, clock),
            (Deed::Trim, trim),
            (Deed::Overflow, reset),
            (Deed::BackUp, back_up),
            (Deed::Restore, restore),
            (Deed::Join, join),
            (Deed::Remove, remove),
        ];
        let mut dice = rng.random_range(0..10_000);
        for (deed, rate) in deeds {
            if dice < rate {
                return deed;
            }
            dice -= rate;
        }
        Deed::Operate
    }

    fn step(&mut self, number: u32, rng: &mut SmallRng) -> Checked {
        let at = rng.random_range(0..self.world.replicas.len());
        let chosen = self.choose(rng);
        let world = &mut self.world;
        let deed = match chosen {
            Deed::Operate if !world.replicas[at].up => Deed::Start,
            deed => deed,
        };
        let now = world.network.now;
        world.tell(|| format!("step {number} at {} ms: {deed:?}, server {}", now / 1_000, at + 1));
        match deed {
            Deed::Operate => world.operate(at, self.mix, rng)?,
            Deed::Start => world.start(at)?,
            Deed::Crash => world.crash(at)?,
            Deed::Cut => world.cut(rng)?,
            Deed::Weather => {
                world.network.weather = match rng.random_range(0..3) {
                    0 => Weather::default(),
                    1 => Weather { lost: 30, repeated: 50, late: 50 },
                    _ => Weather { lost: 300, repeated: 200, late: 300 },
                };
            }
            Deed::Clock => {
                let by = rng.random_range(-2..=2) * 3_600_000_000 + rng.random_range(-1_000_000..1_000_000);
                world.replicas[at].clock.jump(by);
            }
            Deed::Trim => world.trim(at),
            Deed::Overflow => world.overflow(at)?,
            Deed::BackUp => world.back_up(at),
            Deed::Restore => world.restore(rng)?,
            Deed::Join => world.join(rng)?,
            Deed::Remove => world.remove(at)?,
        }
        Ok(())
    }

    /// Everything works again.
    fn heal(&mut self) -> Checked {
        let world = &mut self.world;
        world.network.weather = Weather::default();
        for at in 0..world.replicas.len() {
            if !world.replicas[at].up {
                world.start(at)?;
            }
        }
        world.gather()?;
        let end = world.network.now + HEALING_MAX;
        world.run_until(world.network.now + world.doubt_ends())?;
        while !world.is_settled() {
            if world.network.now >= end {
                let states: Vec<_> =
                    world.replicas.iter().map(|replica| format!("{:?}", replica.inbox)).collect();
                world.tell(|| states.join("\n"));
                let behind = world.replicas.iter().map(|replica| &replica.disk.vector);
                let text = format!("not alike after all that time: {:?}", behind.collect::<Vec<_>>());
                return broken(Checker::Convergence, text);
            }
            world.run_until(world.network.now + LOOK_EVERY)?;
        }
        // Where histories are incomplete, something may be left for that.
        if world.by_states {
            for _ in 0..CHECKS {
                world.check_all()?;
            }
        }
        Ok(())
    }

    fn compare(&self) -> Checked {
        let world = &self.world;
        let members = || world.replicas.iter().filter(|replica| replica.listed);
        let applied = |csn| members().any(|replica| replica.disk.applied.has(&world.ledger, csn));
        // Nothing is forgotten that somebody still needs, but where states are taken over.
        let in_doubt = |replica: &&Replica| !world.by_states && !replica.disk.model.vague().is_empty();
        if let Some(replica) = members().find(in_doubt) {
            let text = format!("{:?} is in doubt at {}", replica.disk.model.vague(), replica.server);
            return broken(Checker::Memory, text);
        }
        for change in world.ledger.all(applied) {
            let lacks = |replica: &&Replica| {
                let disk = &replica.disk;
                // By states a delete may be known here and there before its turn, and its server be gone: another one took the entry.
                let is_gone = world.by_states
                    && matches!(change.operation, Operation::Delete { .. })
                    && disk.model.is_deleted(change.uuid);
                !disk.applied.has(&world.ledger, change.csn)
                    && !is_gone
                    && !disk.model.vague().contains(&change.uuid)
            };
            if let Some(replica) = members().find(lacks) {
                let text = format!("{} is covered at {} and was never applied", change.csn, replica.server);
                return broken(Checker::Contiguity, text);
            }
        }
        let models = members().map(|replica| (replica.server, &replica.disk.model));
        tree::compare(models, &world.ledger, fresh(), applied)
    }
}

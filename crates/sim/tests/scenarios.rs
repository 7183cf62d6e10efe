//! Groups of replicas on a virtual clock, with everything that breaks in between. `XMPPSYNC_SEEDS` tries more of them; a long hunt is
//! `cargo xtask sim --seeds 100000`.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers may fail a test.

use xmppsync_sim::{Scenario, Stats, shrink};

const STEPS: u32 = 300;

#[test]
fn replicas_are_alike_again_whatever_broke_and_nothing_acknowledged_is_lost() {
    let count: u64 = std::env::var("XMPPSYNC_SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(100);
    let all = run(count, false);
    // It is no test when nothing happens.
    for happened in [all.operations, all.crashes, all.cuts, all.pulls, all.compared, all.restores, all.joined]
    {
        assert!(happened > 0, "{all:?}");
    }
}

#[test]
fn so_they_are_when_comparisons_know_no_more_than_servers_do() {
    let all = run(100, true);
    for happened in [all.compared, all.takeovers, all.restores, all.joined, all.trims] {
        assert!(happened > 0, "{all:?}");
    }
}

fn run(count: u64, by_states: bool) -> Stats {
    let mut all = Stats::default();
    for seed in 0..count {
        let scenario = Scenario { by_states, ..Scenario::new(seed, STEPS) };
        let (stats, outcome) = scenario.run();
        all.add(&stats);
        if let Err(violation) = outcome {
            let (least, violation) = shrink(&scenario, &violation);
            let story = least.story().join("\n");
            let states = if by_states { " --states" } else { "" };
            panic!("cargo xtask sim --seed {seed} --steps {STEPS}{states}: {violation}\n{story}");
        }
    }
    all
}

#[test]
fn the_same_scenario_does_the_same() {
    for seed in 0..5 {
        let scenario = Scenario::new(seed, STEPS);
        assert_eq!(scenario.run().0, scenario.run().0);
        assert_eq!(scenario.story(), scenario.story());
    }
}

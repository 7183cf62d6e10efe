//! `cargo xtask sim`: runs scenarios, and tells the least that breaks a rule.
#![forbid(unsafe_code)]

use clap::Parser;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;
use xmppsync_sim::{Scenario, Stats, Violation, shrink};

#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    about = "Replicas on a virtual clock and a bad network, in the search for divergence"
)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Things that are done in each run
    #[arg(long, default_value_t = 300)]
    steps: u32,
    /// Steps that are left out, as a failure prints them: 3,7-12
    #[arg(long, default_value = "")]
    skip: String,
    /// Comparisons and loads go by states, as in the overlay, and not by changes
    #[arg(long)]
    states: bool,
    /// Go on after a seed that breaks a rule, and count
    #[arg(long)]
    count: bool,
    /// Print all that happens
    #[arg(long)]
    tell: bool,
    /// Put faults into the rules, one by one, and see that each is found within 1,000 seeds
    #[arg(long)]
    mutations: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What panics is reported as a rule that is broken.
    if !arguments.tell {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if arguments.mutations { mutations(&arguments) } else { hunt(&arguments) }
}

fn hunt(arguments: &Arguments) -> ExitCode {
    let Some(skip) = read_steps(&arguments.skip) else {
        eprintln!("--skip takes numbers and ranges: 3,7-12");
        return ExitCode::FAILURE;
    };
    let start = Instant::now();
    let (mut all, mut failed) = (Stats::default(), 0);
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let scenario =
            Scenario { seed, steps: arguments.steps, skip: skip.clone(), by_states: arguments.states };
        if arguments.tell {
            scenario.story().iter().for_each(|line| println!("{line}"));
            continue;
        }
        let (stats, outcome) = scenario.run();
        all.add(&stats);
        match outcome {
            Ok(()) => {}
            Err(violation) if arguments.count => {
                println!("seed {seed}: {violation}");
                failed += 1;
            }
            Err(violation) => {
                report(&scenario, &violation);
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let count = all.operations + all.events;
    let outcome =
        if failed == 0 { "nothing is broken".to_owned() } else { format!("{failed} of them broke a rule") };
    println!(
        "{} seeds of {} steps in {seconds:.1} s: {} operations of clients and {} events, {:.0} a second; {outcome}",
        arguments.seeds,
        arguments.steps,
        all.operations,
        all.events,
        count as f64 / seconds.max(1e-9),
    );
    println!(
        "{} changes applied, {} pulls, {} crashes after which {} entries were sent as states, {} cuts, {} changes forgotten by journals, {} databases put back, {} \
         comparisons, {} databases taken over, {} replicas came and {} went",
        all.applied,
        all.pulls,
        all.crashes,
        all.states,
        all.cuts,
        all.trims,
        all.restores,
        all.compared,
        all.takeovers,
        all.joined,
        all.removed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(scenario: &Scenario, violation: &Violation) {
    println!("seed {}, {} steps: {violation}", scenario.seed, scenario.steps);
    println!("shrinking");
    let (least, violation) = shrink(scenario, violation);
    println!("{} steps are enough: {violation}", least.steps as usize - least.skip.len());
    let Scenario { seed, steps, skip, by_states } = &least;
    let skip = if skip.is_empty() { String::new() } else { format!(" --skip {}", written(skip)) };
    let states = if *by_states { " --states" } else { "" };
    println!("to repeat it: cargo xtask sim --seed {seed} --steps {steps}{skip}{states}");
    println!("to see all of it: the same with --tell");
}

/// `3,7-12`
fn written(steps: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for step in steps {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *step => *last = *step,
            _ => ranges.push((*step, *step)),
        }
    }
    let text = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

fn read_steps(text: &str) -> Option<BTreeSet<u32>> {
    let mut steps = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        steps.extend(first.parse().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(steps)
}

#[cfg(feature = "mutations")]
fn mutations(arguments: &Arguments) -> ExitCode {
    use xmppsync_sim::mutations::{Caught, SEEDS_MAX, catch_all};
    let mut escaped = 0;
    for Caught { mutation, by } in catch_all(arguments.steps) {
        match by {
            Some((seed, checker)) => println!("{mutation:?}: caught by {checker:?} with seed {seed}"),
            None => {
                escaped += 1;
                println!("{mutation:?}: not caught within {SEEDS_MAX} seeds");
            }
        }
    }
    if escaped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(feature = "mutations"))]
fn mutations(_: &Arguments) -> ExitCode {
    eprintln!("built without the feature `mutations`");
    ExitCode::FAILURE
}

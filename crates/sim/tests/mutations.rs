//! The checkers are tested themselves: faults are put into the rules, and each is found.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers may fail a test.
#![cfg(feature = "mutations")]

use xmppsync_replica::mutation::{self, Mutation};
use xmppsync_sim::mutations::{Caught, SEEDS_MAX, catch_all};
use xmppsync_sim::{Scenario, shrink};

const STEPS: u32 = 300;

#[test]
fn every_fault_is_found() {
    let caught: Vec<Caught> = catch_all(STEPS).collect();
    for Caught { mutation, by } in &caught {
        match by {
            Some((seed, checker)) => println!("{mutation:?}: caught by {checker:?} with seed {seed}"),
            None => println!("{mutation:?}: not caught within {SEEDS_MAX} seeds"),
        }
    }
    assert!(caught.len() >= 10 && caught.iter().all(|caught| caught.by.is_some()));
}

#[test]
fn a_failure_shrinks_to_what_it_takes() {
    mutation::set(Some(Mutation::TombstoneForgotten));
    let failing = (0..SEEDS_MAX).map(|seed| Scenario::new(seed, STEPS));
    let failure =
        { failing }.find_map(|scenario| scenario.run().1.err().map(|violation| (scenario, violation)));
    let (scenario, violation) = failure.unwrap();
    let (least, again) = shrink(&scenario, &violation);
    assert_eq!(again.checker, violation.checker);
    assert!(least.steps as usize - least.skip.len() < STEPS as usize / 2);
    assert_eq!(least.run().1.unwrap_err().text, again.text);
    mutation::set(None);
    assert!(scenario.run().1.is_ok());
}

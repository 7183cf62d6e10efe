//! Whether the checkers find the faults that can be put into the rules.

use crate::{Checker, Scenario};
use xmppsync_replica::mutation::{self, Mutation};

/// A fault is to be found within so many seeds.
pub const SEEDS_MAX: u64 = 1_000;

/// What became of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// The fault.
    pub mutation: Mutation,
    /// The first seed that shows it, and the checker that found it.
    pub by: Option<(u64, Checker)>,
}

/// Tries all of them, with scenarios of so many steps.
pub fn catch_all(steps: u32) -> impl Iterator<Item = Caught> {
    Mutation::ALL.into_iter().map(move |mutation| catch(mutation, steps))
}

fn catch(mutation: Mutation, steps: u32) -> Caught {
    mutation::set(Some(mutation));
    let by = (0..SEEDS_MAX).find_map(|seed| {
        let scenario = Scenario { by_states: mutation.is_of_states(), ..Scenario::new(seed, steps) };
        let violation = scenario.run().1.err()?;
        Some((seed, violation.checker))
    });
    mutation::set(None);
    Caught { mutation, by }
}

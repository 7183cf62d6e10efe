//! The least that has to be done for a rule to be found broken.

use crate::{Checker, Scenario, Violation};

/// Runs that are spent on it at most.
const RUNS_MAX: u32 = 4_000;

/// Leaves out what is not needed for the violation: steps at the end, then any others.
pub fn shrink(scenario: &Scenario, violation: &Violation) -> (Scenario, Violation) {
    let mut search = Search { best: (scenario.clone(), violation.clone()), runs: 0 };
    let mut drop = scenario.steps / 2;
    while drop > 0 {
        let steps = search.best.0.steps.saturating_sub(drop);
        let fewer = Scenario { steps, ..search.best.0.clone() };
        if !search.fails(fewer) {
            drop /= 2;
        }
    }
    let mut size = search.best.0.steps.div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < search.best.0.steps {
            let mut fewer = search.best.0.clone();
            let before = fewer.skip.len();
            fewer.skip.extend(from..(from + size).min(fewer.steps));
            if fewer.skip.len() > before {
                search.fails(fewer);
            }
            from += size;
        }
        size /= 2;
    }
    search.best
}

struct Search {
    best: (Scenario, Violation),
    runs: u32,
}

impl Search {
    fn checker(&self) -> Checker {
        self.best.1.checker
    }

    fn fails(&mut self, scenario: Scenario) -> bool {
        self.runs += 1;
        if self.runs > RUNS_MAX {
            return false;
        }
        match scenario.run().1 {
            Err(violation) if violation.checker == self.checker() => {
                self.best = (scenario, violation);
                true
            }
            _ => false,
        }
    }
}

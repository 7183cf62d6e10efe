//! What benchmarks have in common: they measure rows of a table, again and again, and print it.

use std::fmt::{self, Display};
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use super::figures::{self, Figures, median};
use super::options::Common;
use super::report::{Measured, Report};
use super::{machine, preload};
use crate::{setup, workspace};

/// One of the commands.
pub(super) trait Benchmark: Serialize {
    /// One line of the table: what is measured side by side.
    type Place: Display + Serialize;
    /// The first two lines of the table.
    const HEAD: &'static str;
    /// What stands below the table, to explain it.
    const NOTE: &'static str;

    /// What all benchmarks are asked.
    fn common(&self) -> &Common;
    /// Everything to be measured, what is compared standing side by side.
    fn places(&self) -> Vec<Self::Place>;
    /// Starts everything, measures, ends everything.
    fn measure(&self, place: &Self::Place, means: &Means) -> Result<Run>;
    /// The parameters, for people.
    fn sentence(&self) -> String;
    /// A line of the table.
    fn columns(cell: &Measured<Self::Place>) -> Vec<String>;
}

/// What every run needs.
pub(super) struct Means<'a> {
    /// The overlay.
    pub(super) module: &'a Path,
    /// What the databases are filled with.
    pub(super) contents: &'a preload::Contents,
}

/// What was measured.
pub(super) struct Run {
    pub(super) figures: Figures,
    /// Why the servers are not equal at the end, if they are not.
    pub(super) difference: Option<Difference>,
}

/// What servers have that are not equal at the end.
pub(super) enum Difference {
    /// They are as they should be by all signs, but a comparison found this.
    NotEqual(String),
    /// One lacks something at the deadline.
    NotWhole(String),
}

/// Whether servers were equal at the end of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Equality {
    Yes,
    No,
    /// One lacked something at the deadline.
    NotWhole,
}

/// Measures and prints.
pub(super) fn run<B: Benchmark>(benchmark: B, json: Option<&Path>) -> Result<()> {
    setup::run()?;
    let module = workspace::build_overlay()?;
    let machine = machine::describe(benchmark.common())?;
    let contents = preload::Contents::default();
    let means = Means { module: &module, contents: &contents };
    let cells = measure(&benchmark, &means);
    let report = Report { machine, parameters: benchmark, cells };
    println!("{}", report.markdown());
    if let Some(file) = json {
        report.write_json(file)?;
    }
    let failures = report.cells.iter().map(|cell| cell.failures.len()).sum::<usize>();
    if failures > 0 {
        bail!("{failures} measurements failed");
    }
    Ok(())
}

fn measure<B: Benchmark>(benchmark: &B, means: &Means) -> Vec<Measured<B::Place>> {
    let places = benchmark.places();
    let mut results: Vec<Vec<Result<Run>>> = places.iter().map(|_| Vec::new()).collect();
    let runs = benchmark.common().runs;
    // Each run goes through all, so that what changes on the machine meanwhile changes all alike.
    for run in 1..=runs {
        for (place, results) in places.iter().zip(&mut results) {
            eprintln!("run {run} of {runs}: {place}");
            let result = benchmark.measure(place, means);
            match &result {
                Ok(run) => eprintln!("  {}", figures::line(&run.figures)),
                Err(error) => eprintln!("  failed: {error:#}"),
            }
            if let Ok(Run { difference: Some(difference), .. }) = &result {
                eprintln!("  {difference}");
            }
            results.push(result);
        }
    }
    places.into_iter().zip(results).map(|(place, runs)| measured(place, runs)).collect()
}

fn measured<P>(place: P, runs: Vec<Result<Run>>) -> Measured<P> {
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    let mut equal = Equality::Yes;
    for run in runs {
        match run {
            Ok(Run { figures, difference }) => {
                good.push(figures);
                if let Some(difference) = difference {
                    equal = equal.max(difference.equality());
                    failures.push(difference.to_string());
                }
            }
            Err(error) => {
                equal = equal.max(Equality::No);
                failures.push(format!("{error:#}"));
            }
        }
    }
    Measured { place, median: median(&good), runs: good, equal, failures }
}

impl Difference {
    fn equality(&self) -> Equality {
        match self {
            Self::NotEqual(_) => Equality::No,
            Self::NotWhole(_) => Equality::NotWhole,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEqual(text) => write!(formatter, "not equal at the end: {text}"),
            Self::NotWhole(text) => write!(formatter, "not whole: {text}"),
        }
    }
}

impl fmt::Display for Equality {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Yes => "yes",
            Self::No => "**no**",
            Self::NotWhole => "**not whole**",
        })
    }
}

//! `cargo xtask bench`: how fast it is, beside what slapd has of its own.

mod ber;
mod cell;
mod client;
mod cpu;
mod figures;
mod latency;
mod load;
mod machine;
mod options;
mod preload;
mod report;

use anyhow::{Result, bail};

use crate::{setup, workspace};
use cell::{Cell, Run};
use figures::median;
use options::{Parameters, Place};
use report::{Measured, Report};

pub(crate) use options::LiveArguments;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Rates, latency and processor time of the live stream, of syncrepl, and of no replication at all
    Live(LiveArguments),
}

/// Measures and prints.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let Bench::Live(arguments) = bench;
    let parameters = Parameters::new(arguments)?;
    setup::run()?;
    let module = workspace::build_overlay()?;
    let machine = machine::describe(&parameters)?;
    let ldif = preload::ldif(parameters.entries)?;
    let places = parameters.places();
    let mut runs: Vec<Vec<Result<Run>>> = places.iter().map(|_| Vec::new()).collect();
    // Each run goes through all, so that what changes on the machine meanwhile changes all alike.
    for run in 1..=parameters.runs {
        for (place, results) in places.iter().zip(&mut runs) {
            eprintln!("run {run} of {}: {place}", parameters.runs);
            let result = Cell { parameters: &parameters, place, module: &module, ldif: &ldif }.measure();
            match &result {
                Ok(run) => eprintln!("  {}", figures::line(&run.figures)),
                Err(error) => eprintln!("  failed: {error:#}"),
            }
            results.push(result);
        }
    }
    let cells = places.into_iter().zip(runs).map(|(place, runs)| measured(place, runs)).collect();
    let report = Report { machine, parameters, cells };
    println!("{}", report.markdown());
    if let Some(file) = &arguments.json {
        report.write_json(file)?;
    }
    let failures = report.cells.iter().map(|cell| cell.failures.len()).sum::<usize>();
    if failures > 0 {
        bail!("{failures} measurements failed");
    }
    Ok(())
}

fn measured(place: Place, runs: Vec<Result<Run>>) -> Measured {
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    for run in runs {
        match run {
            Ok(Run { figures, difference }) => {
                good.push(figures);
                failures.extend(difference.map(|text| format!("not equal at the end: {text}")));
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    Measured { place, median: median(&good), runs: good, failures }
}

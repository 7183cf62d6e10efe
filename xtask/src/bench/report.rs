//! The table, and everything as JSON.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::benchmark::{Benchmark, Equality};
use super::figures::{Figure, Figures};
use super::machine::Machine;

/// All that was measured.
#[derive(Serialize)]
pub(super) struct Report<B: Benchmark> {
    pub(super) machine: Machine,
    pub(super) parameters: B,
    pub(super) cells: Vec<Measured<B::Place>>,
}

/// One line of the table.
#[derive(Serialize)]
pub(super) struct Measured<P> {
    #[serde(flatten)]
    pub(super) place: P,
    /// The median of each figure over all runs.
    pub(super) median: Figures,
    /// The figures of each run.
    pub(super) runs: Vec<Figures>,
    /// Whether the servers were equal at the end.
    pub(super) equal: Equality,
    /// What went wrong.
    pub(super) failures: Vec<String>,
}

/// What stands where a figure does not apply.
pub(super) const NOTHING: &str = "–";

impl<B: Benchmark> Report<B> {
    /// For people.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n{}\n\n{}", self.machine, self.parameters.sentence(), B::HEAD);
        for cell in &self.cells {
            text.push_str(&format!("| {} |\n", B::columns(cell).join(" | ")));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}", B::NOTE);
        for cell in &self.cells {
            for failure in &cell.failures {
                let _ = writeln!(text, "\n{}: {failure}", cell.place);
            }
        }
        text
    }

    /// For programs.
    pub(super) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}

impl<P> Measured<P> {
    /// A figure as text.
    pub(super) fn figure(&self, figure: Figure, digits: usize) -> String {
        match self.median.get(&figure) {
            Some(value) => format!("{value:.digits$}"),
            None => NOTHING.to_owned(),
        }
    }

    /// Two figures of one kind as text.
    pub(super) fn pair(&self, first: Figure, second: Figure, digits: usize) -> String {
        match self.median.contains_key(&first) {
            true => format!("{}, {}", self.figure(first, digits), self.figure(second, digits)),
            false => NOTHING.to_owned(),
        }
    }
}

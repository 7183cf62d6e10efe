//! The table, and everything as JSON.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::figures::{Figure, Figures};
use super::machine::Machine;
use super::options::{Parameters, Place, Writers};

/// All that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) parameters: Parameters,
    pub(super) cells: Vec<Measured>,
}

/// One line of the table.
#[derive(Serialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub(super) place: Place,
    /// The median of each figure over all runs.
    pub(super) median: Figures,
    /// The figures of each run.
    pub(super) runs: Vec<Figures>,
    /// What went wrong.
    pub(super) failures: Vec<String>,
}

const HEAD: &str = "\
| storage | peers | replication | written /s | converged /s | write p50, p99 ms | visible p50, p99 ms | CPU writer | receiver | ejabberd | clients | equal |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
";

impl Report {
    /// For people.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n{}\n\n{HEAD}", self.machine(), self.parameters());
        for cell in &self.cells {
            text.push_str(&row(cell));
        }
        text.push_str("\nCPU: seconds of processor time per 1,000 changes, under load until all are equal; ");
        text.push_str("one writer, one receiver, ejabberd, all clients.\n");
        for cell in &self.cells {
            for failure in &cell.failures {
                // Writing to a String cannot fail.
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

    fn machine(&self) -> String {
        let Machine { date, cores, processor, memory_gib, kernel, slapd, ejabberd, disk, load_average } =
            &self.machine;
        format!(
            "{date}: {cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, disk {disk}, slapd {slapd}, \
             ejabberd {ejabberd}; load average before: {load_average}."
        )
    }

    fn parameters(&self) -> String {
        let Parameters { writers, mesh, entries, writes, clients, samples, runs, .. } = &self.parameters;
        let written_to = match writers {
            Writers::One => "one server",
            Writers::All => "all servers",
        };
        let topology = if *mesh { "from each server to each" } else { "from one provider" };
        let runs = if *runs == 1 { "one run".to_owned() } else { format!("median of {runs} runs") };
        format!(
            "{entries} people; {writes} changes of two attributes by {clients} clients on {written_to}; \
             {samples} changes one at a time; syncrepl {topology}; {runs}."
        )
    }
}

fn row(cell: &Measured) -> String {
    let Place { storage, peers, kind } = &cell.place;
    let figure = |figure, digits: usize| match cell.median.get(&figure) {
        Some(value) => format!("{value:.digits$}"),
        None => "–".to_owned(),
    };
    let pair = |first, second| match cell.median.contains_key(&first) {
        true => format!("{}, {}", figure(first, 2), figure(second, 2)),
        false => "–".to_owned(),
    };
    let equal = match (cell.failures.is_empty(), kind, peers) {
        (false, _, _) => "**no**",
        (true, super::options::Kind::None, _) | (true, _, 0) => "–",
        (true, _, _) => "yes",
    };
    let columns = [
        storage.to_string(),
        peers.to_string(),
        kind.to_string(),
        figure(Figure::WrittenPerS, 0),
        figure(Figure::ConvergedPerS, 0),
        pair(Figure::WriteP50Ms, Figure::WriteP99Ms),
        pair(Figure::VisibleP50Ms, Figure::VisibleP99Ms),
        figure(Figure::WriterCpuSPer1000, 3),
        figure(Figure::ReceiverCpuSPer1000, 3),
        figure(Figure::EjabberdCpuSPer1000, 3),
        figure(Figure::ClientsCpuSPer1000, 3),
        equal.to_owned(),
    ];
    format!("| {} |\n", columns.join(" | "))
}

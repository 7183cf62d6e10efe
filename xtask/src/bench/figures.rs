//! What is measured in one run, and the median of several.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// A figure; units last in the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    /// Changes that the servers answered for.
    WrittenPerS,
    /// Changes, over the time until all servers were equal.
    ConvergedPerS,
    /// Idle: from the request to its answer, median.
    WriteP50Ms,
    /// The same, 99 of 100 are faster.
    WriteP99Ms,
    /// Idle: from the request to the first search on a peer that shows it, median.
    VisibleP50Ms,
    /// The same, 99 of 100 are faster.
    VisibleP99Ms,
    /// Processor time for 1,000 changes under load, until all were equal: a server that is written to.
    WriterCpuSPer1000,
    /// The same: a server that only receives.
    ReceiverCpuSPer1000,
    /// The same: the XMPP server.
    EjabberdCpuSPer1000,
    /// The same: all clients together.
    ClientsCpuSPer1000,
    /// From the start of a server's process until it holds all that another one holds.
    WholeS,
    /// The same from its first answer to a client.
    WholeAfterAnswerS,
    /// Entries, over the time from the start of the process.
    EntriesPerS,
    /// Changes, over the time from the start of the process.
    ChangesPerS,
    /// The most anonymous memory meanwhile: the server that had everything.
    SourceMemoryMib,
    /// The same: the server that got it.
    TargetMemoryMib,
    /// Processor time meanwhile: the server that had everything.
    SourceCpuS,
    /// The same: the server that got it.
    TargetCpuS,
    /// The same: the XMPP server.
    EjabberdCpuS,
}

/// The figures of one run. What does not apply is not there.
pub(super) type Figures = BTreeMap<Figure, f64>;

/// The median of each figure.
pub(super) fn median(runs: &[Figures]) -> Figures {
    let mut values: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
    for (figure, value) in runs.iter().flatten() {
        values.entry(*figure).or_default().push(*value);
    }
    values.into_iter().filter_map(|(figure, values)| Some((figure, quantile(&values, 0.5)?))).collect()
}

/// The value that this part of all values does not exceed; between two values it lies between them.
pub(super) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = part * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted.get(position.floor() as usize)?, sorted.get(position.ceil() as usize)?);
    Some(low + (high - low) * position.fract())
}

/// Adds the median and the 99th percentile of times.
pub(super) fn add_quantiles(figures: &mut Figures, times: &[Duration], p50: Figure, p99: Figure) {
    let ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
    figures.extend(quantile(&ms, 0.5).map(|value| (p50, value)));
    figures.extend(quantile(&ms, 0.99).map(|value| (p99, value)));
}

/// The figures for whoever watches the run.
pub(super) fn line(figures: &Figures) -> String {
    let text = |(figure, value): (&Figure, &f64)| format!("{figure:?} {value:.2}");
    figures.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.99), Some(3.0));
        assert_eq!(quantile(&[9.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[4.0, 1.0], 0.5), Some(2.5));
    }

    #[test]
    fn a_figure_that_some_runs_lack_is_taken_from_the_others() {
        let with = |value| Figures::from([(Figure::WrittenPerS, value)]);
        assert_eq!(median(&[with(1.0), Figures::new(), with(3.0)]), with(2.0));
    }
}

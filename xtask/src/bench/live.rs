//! `cargo xtask bench live`: rates, latency and processor time of the live stream.

mod cell;
mod latency;
mod options;
mod writes;

use anyhow::Result;

use super::benchmark::{Benchmark, Equality, Means, Run};
use super::figures::Figure;
use super::options::{Common, Kind};
use super::report::{Measured, NOTHING};
use cell::Cell;
use options::{Place, Writers};

pub(crate) use options::LiveArguments;
pub(super) use options::Parameters;

impl Benchmark for Parameters {
    type Place = Place;
    const HEAD: &'static str = "\
| storage | peers | replication | written /s | converged /s | write p50, p99 ms | visible p50, p99 ms | CPU writer | receiver | ejabberd | clients | equal |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
";
    const NOTE: &'static str = "CPU: seconds of processor time per 1,000 changes, under load until all are equal; \
                                one writer, one receiver, ejabberd, all clients.";

    fn common(&self) -> &Common {
        &self.common
    }

    fn places(&self) -> Vec<Place> {
        self.places()
    }

    fn measure(&self, place: &Place, means: &Means) -> Result<Run> {
        let ldif = means.contents.ldif(self.entries)?;
        Cell { parameters: self, place, module: means.module, ldif: &ldif }.measure()
    }

    fn sentence(&self) -> String {
        let Self { writers, mesh, entries, writes, clients, samples, .. } = self;
        let written_to = match writers {
            Writers::One => "one server",
            Writers::All => "all servers",
        };
        let topology = if *mesh { "from each server to each" } else { "from one provider" };
        format!(
            "{entries} people; {writes} changes of two attributes by {clients} clients on {written_to}; \
             {samples} changes one at a time; syncrepl {topology}; {}.",
            self.common.runs_text()
        )
    }

    fn columns(cell: &Measured<Place>) -> Vec<String> {
        let Place { storage, peers, kind } = &cell.place;
        let equal = match (cell.equal, kind, peers) {
            (Equality::Yes, Kind::None, _) | (Equality::Yes, _, 0) => NOTHING.to_owned(),
            (equal, _, _) => equal.to_string(),
        };
        vec![
            storage.to_string(),
            peers.to_string(),
            kind.to_string(),
            cell.figure(Figure::WrittenPerS, 0),
            cell.figure(Figure::ConvergedPerS, 0),
            cell.pair(Figure::WriteP50Ms, Figure::WriteP99Ms, 2),
            cell.pair(Figure::VisibleP50Ms, Figure::VisibleP99Ms, 2),
            cell.figure(Figure::WriterCpuSPer1000, 3),
            cell.figure(Figure::ReceiverCpuSPer1000, 3),
            cell.figure(Figure::EjabberdCpuSPer1000, 3),
            cell.figure(Figure::ClientsCpuSPer1000, 3),
            equal,
        ]
    }
}

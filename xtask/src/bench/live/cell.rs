//! One line of the table: servers are started with equal content, measured, and compared at the end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use xmppsync_lab::{ContextCsn, Group, SUFFIX, Topology, assert_equal_with};

use super::latency;
use super::options::{Parameters, Place, Writers};
use super::writes::Load;
use crate::bench::benchmark::{Difference, Run};
use crate::bench::figures::{Figure, Figures, add_quantiles};
use crate::bench::servers::CpuTimes;
use crate::bench::{preload, servers};

/// Changes before anything is measured: by then all connections stand, and caches are warm.
const WARM_UP_WRITES: usize = 500;
/// They have converged already; this is for one that has not and only seems so.
const EQUAL_DEADLINE: Duration = Duration::from_secs(20);

/// What is to be measured.
pub(super) struct Cell<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) place: &'a Place,
    /// The overlay.
    pub(super) module: &'a Path,
    /// What [`preload::Contents::ldif`] made.
    pub(super) ldif: &'a str,
}

impl Cell<'_> {
    /// Starts everything, measures, ends everything.
    pub(super) fn measure(&self) -> Result<Run> {
        let group = self.start()?;
        let mut figures = Figures::new();
        let warm_up =
            Load { writes: WARM_UP_WRITES.min(self.parameters.writes), ..self.load(&group, "warm") };
        warm_up.run().context("warming up")?;
        self.measure_latency(&group, &mut figures).context("one change at a time")?;
        self.measure_load(&group, &mut figures).context("under load")?;
        let compared = if self.replicates() {
            assert_equal_with(&group.servers, SUFFIX, ContextCsn::Compare, EQUAL_DEADLINE).map(drop)
        } else {
            Ok(())
        };
        let difference = compared.err().map(|difference| Difference::NotEqual(difference.to_string()));
        Ok(Run { figures, difference })
    }

    fn measure_latency(&self, group: &Group, figures: &mut Figures) -> Result<()> {
        let Parameters { entries, samples, .. } = *self.parameters;
        let latency = latency::measure(&group.servers, self.replicates(), entries, samples)?;
        add_quantiles(figures, &latency.write, Figure::WriteP50Ms, Figure::WriteP99Ms);
        add_quantiles(figures, &latency.visible, Figure::VisibleP50Ms, Figure::VisibleP99Ms);
        Ok(())
    }

    fn measure_load(&self, group: &Group, figures: &mut Figures) -> Result<()> {
        let load = self.load(group, "load");
        let before = CpuTimes::now(group)?;
        let outcome = load.run()?;
        let after = CpuTimes::now(group)?;
        let rate = |time: Duration| load.writes as f64 / time.as_secs_f64();
        figures.insert(Figure::WrittenPerS, rate(outcome.written));
        figures.extend(outcome.converged.map(|time| (Figure::ConvergedPerS, rate(time))));
        let per_1000 = |time: Duration| time.as_secs_f64() / load.writes as f64 * 1_000.0;
        let slapds = after.slapds.iter().zip(&before.slapds);
        let slapds: Vec<Duration> = slapds.map(|(after, before)| after.saturating_sub(*before)).collect();
        let (writers, receivers) = slapds.split_at(load.writers);
        figures.extend(mean(writers).map(|time| (Figure::WriterCpuSPer1000, per_1000(time))));
        if self.replicates() {
            figures.extend(mean(receivers).map(|time| (Figure::ReceiverCpuSPer1000, per_1000(time))));
        }
        if self.place.kind.uses_xmpp() {
            let ejabberd = after.ejabberd.saturating_sub(before.ejabberd);
            figures.insert(Figure::EjabberdCpuSPer1000, per_1000(ejabberd));
        }
        figures.insert(Figure::ClientsCpuSPer1000, per_1000(outcome.clients_cpu));
        Ok(())
    }

    fn load<'a>(&self, group: &'a Group, name: &'a str) -> Load<'a> {
        let servers = group.servers.len();
        Load {
            servers: &group.servers,
            writers: if self.parameters.writers == Writers::All { servers } else { 1 },
            replicates: self.replicates(),
            entries: self.parameters.entries,
            clients: self.parameters.clients_for(self.place.peers),
            writes: self.parameters.writes,
            name,
        }
    }

    /// Servers with equal content, running and connected to each other.
    fn start(&self) -> Result<Group> {
        let Place { storage, peers, kind } = *self.place;
        let topology = if self.parameters.mesh { Topology::Mesh } else { Topology::Star };
        let dir = self.parameters.common.dir(storage);
        let mut group =
            servers::prepare(kind, peers + 1, topology, self.module, (&self.parameters.common, storage))?;
        preload::load(&group.servers, self.ldif)?;
        preload::flush(dir)?;
        group.start()?;
        if kind.uses_xmpp() {
            servers::wait_joined(&group, peers + 1)?;
            servers::wait_equal(&group)?;
        }
        Ok(group)
    }

    fn replicates(&self) -> bool {
        self.place.kind.replicates()
    }
}

fn mean(times: &[Duration]) -> Option<Duration> {
    let count = u32::try_from(times.len()).ok().filter(|count| *count > 0)?;
    Some(times.iter().sum::<Duration>() / count)
}

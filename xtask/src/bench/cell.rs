//! One line of the table: servers are started with equal content, measured, and compared at the end.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use xmppsync_lab::{
    ContextCsn, Group, GroupOptions, Live, Replication, SUFFIX, SlapdOptions, Topology, assert_equal_with,
    wait_until,
};

use super::figures::{Figure, Figures, add_quantiles};
use super::load::Load;
use super::options::{Kind, Parameters, Place, Writers};
use super::{cpu, latency, preload};
use crate::process;

/// Changes before anything is measured: by then all connections stand, and caches are warm.
const WARM_UP_WRITES: usize = 500;
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// They have converged already; this is for one that has not and only seems so.
const EQUAL_DEADLINE: Duration = Duration::from_secs(20);

/// What is to be measured.
pub(super) struct Cell<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) place: &'a Place,
    /// The overlay.
    pub(super) module: &'a Path,
    /// What [`preload::ldif`] made.
    pub(super) ldif: &'a str,
}

/// What was measured.
pub(super) struct Run {
    pub(super) figures: Figures,
    /// Why the servers are not equal at the end, if they are not.
    pub(super) difference: Option<String>,
}

/// Processor time of all servers at a moment.
struct CpuTimes {
    slapds: Vec<Duration>,
    ejabberd: Duration,
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
        Ok(Run { figures, difference: compared.err().map(|difference| difference.to_string()) })
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
        if self.uses_xmpp() {
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
        let (replication, live) = match self.place.kind {
            Kind::None => (Replication::None, Live::Muc),
            Kind::Xmppsync => (Replication::Xmpp, Live::Muc),
            Kind::XmppsyncPubsub => (Replication::Xmpp, Live::Pubsub),
            Kind::Syncrepl => (Replication::Syncrepl, Live::Muc),
            Kind::DeltaSyncrepl => (Replication::DeltaSyncrepl, Live::Muc),
        };
        let dir = self.parameters.dir(self.place.storage);
        let mut group = Group::prepare(GroupOptions {
            servers: self.place.peers + 1,
            replication,
            live,
            topology: if self.parameters.mesh { Topology::Mesh } else { Topology::Star },
            module: Some(self.module.to_owned()),
            base_dir: Some(dir.clone()),
            slapd: SlapdOptions { debug_level: "0".to_owned(), ..SlapdOptions::default() },
            ..GroupOptions::default()
        })?;
        group.servers.iter().try_for_each(|server| preload::load(server, self.ldif))?;
        // Or the disk would be busy with the content while changes are measured.
        process::output(Command::new("sync").arg("--file-system").arg(dir))?;
        group.start()?;
        if self.uses_xmpp() {
            wait_joined(&group)?;
        }
        Ok(group)
    }

    fn replicates(&self) -> bool {
        self.place.kind != Kind::None
    }

    fn uses_xmpp(&self) -> bool {
        matches!(self.place.kind, Kind::Xmppsync | Kind::XmppsyncPubsub)
    }
}

impl CpuTimes {
    fn now(group: &Group) -> Result<Self> {
        let pids = group.servers.iter().map(|server| server.pid().context("a slapd has ended"));
        let slapds = pids.map(|pid| cpu::of_process(pid?)).collect::<Result<_>>()?;
        let ejabberd = cpu::of_process(group.ejabberd.pid().context("ejabberd has ended")?)?;
        Ok(Self { slapds, ejabberd })
    }
}

/// Waits until all servers are in the room.
fn wait_joined(group: &Group) -> Result<()> {
    // A suffix of these characters is the room's name as it is.
    let service = format!("conference.{}", group.ejabberd.domain());
    let arguments = format!(r#"{{"name":"{SUFFIX}","service":"{service}"}}"#);
    wait_until("all servers are in the room", JOIN_DEADLINE, || {
        let answer = group.ejabberd.api("get_room_occupants_number", &arguments);
        let answer = answer.map_err(|error| error.to_string())?;
        let digits: String = answer.chars().filter(char::is_ascii_digit).collect();
        if digits.parse() == Ok(group.servers.len()) { Ok(()) } else { Err(answer) }
    })?;
    Ok(())
}

fn mean(times: &[Duration]) -> Option<Duration> {
    let count = u32::try_from(times.len()).ok().filter(|count| *count > 0)?;
    Some(times.iter().sum::<Duration>() / count)
}

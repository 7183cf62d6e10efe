//! The servers of a row.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use xmppsync_lab::{Group, GroupOptions, Live, Replication, SUFFIX, SlapdOptions, Topology, wait_until};

use super::arrival::Watched;
use super::cpu;
use super::options::{Common, Kind, Storage};

const JOIN_DEADLINE: Duration = Duration::from_secs(60);

/// Servers that are kept equal in this way, with empty databases, not started yet.
pub(super) fn prepare(
    kind: Kind,
    servers: usize,
    topology: Topology,
    module: &Path,
    (common, storage): (&Common, Storage),
) -> Result<Group> {
    let (replication, live) = match kind {
        Kind::None => (Replication::None, Live::Muc),
        Kind::Xmppsync => (Replication::Xmpp, Live::Muc),
        Kind::XmppsyncPubsub => (Replication::Xmpp, Live::Pubsub),
        Kind::Syncrepl => (Replication::Syncrepl, Live::Muc),
        Kind::DeltaSyncrepl => (Replication::DeltaSyncrepl, Live::Muc),
    };
    let options = GroupOptions {
        servers,
        replication,
        live,
        topology,
        module: Some(module.to_owned()),
        base_dir: Some(common.dir(storage).to_owned()),
        xmpp: common.xmpp(),
        slapd: SlapdOptions { debug_level: "0".to_owned(), ..SlapdOptions::default() },
        ..GroupOptions::default()
    };
    Ok(Group::prepare(options)?)
}

/// Waits until so many servers are in the room.
pub(super) fn wait_joined(group: &Group, servers: usize) -> Result<()> {
    // A suffix of these characters is the room's name as it is.
    let service = format!("conference.{}", group.xmpp.domain());
    let arguments = format!(r#"{{"name":"{SUFFIX}","service":"{service}"}}"#);
    wait_until(&format!("{servers} servers are in the room"), JOIN_DEADLINE, || {
        let answer = group.xmpp.api("get_room_occupants_number", &arguments);
        let answer = answer.map_err(|error| error.to_string())?;
        let digits: String = answer.chars().filter(char::is_ascii_digit).collect();
        if digits.parse() == Ok(servers) { Ok(()) } else { Err(answer) }
    })?;
    Ok(())
}

/// Waits until all that were loaded alike have made sure of that, and go on from one contextCSN.
pub(super) fn wait_equal(group: &Group) -> Result<()> {
    let mut watched = group.servers.iter().map(Watched::connect).collect::<Result<Vec<_>>>()?;
    wait_until("the servers hold the same", JOIN_DEADLINE, || {
        let held = watched.iter_mut().map(|server| server.holding().map_err(|error| format!("{error:#}")));
        let held = held.collect::<Result<Vec<_>, _>>()?;
        let is_equal = held.windows(2).all(|two| two[0] == two[1]);
        if is_equal {
            Ok(())
        } else {
            Err(held.iter().map(|held| held.to_string()).collect::<Vec<_>>().join("; "))
        }
    })?;
    Ok(())
}

/// Processor time of all servers at a moment.
pub(super) struct CpuTimes {
    pub(super) slapds: Vec<Duration>,
    pub(super) ejabberd: Duration,
}

impl CpuTimes {
    /// Since each process started.
    pub(super) fn now(group: &Group) -> Result<Self> {
        let pids = group.servers.iter().map(|server| server.pid().context("a slapd has ended"));
        let slapds = pids.map(|pid| cpu::of_process(pid?)).collect::<Result<_>>()?;
        let ejabberd = cpu::of_process(group.xmpp.pid().context("the XMPP server has ended")?)?;
        Ok(Self { slapds, ejabberd })
    }
}

//! The faults: how each begins and how it ends.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use xmppsync_lab::XmppData;
use xmppsync_lab::net::Condition;

use crate::field::{Field, PATIENCE, XMPP, set_clock};
use crate::traffic::Traffic;

const TEN_MINUTES: i64 = 600;
const LOSS: f64 = 0.2;
const LATENCY: Duration = Duration::from_millis(300);
const FLAPPING: Duration = Duration::from_secs(2);
/// What fills a disk.
const FILLER: &str = "filler";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: for comparison.
    Nothing,
    PartitionOfOne,
    PartitionOfHalf,
    /// Nothing from the XMPP server reaches the slapd.
    OneWayLossIn,
    /// Nothing from the slapd reaches the XMPP server.
    OneWayLossOut,
    Loss,
    Latency,
    Flapping,
    XmppServerKilled,
    XmppServerKilledAndEmpty,
    SlapdStopped,
    SlapdKilled,
    SlapdPaused,
    DiskFull,
    ClockAhead,
    ClockBehind,
    JournalDeleted,
    EmptyVolume,
    RollingRestart,
}

impl Fault {
    pub(crate) const ALL: [Fault; 18] = [
        Fault::PartitionOfOne,
        Fault::PartitionOfHalf,
        Fault::OneWayLossIn,
        Fault::OneWayLossOut,
        Fault::Loss,
        Fault::Latency,
        Fault::Flapping,
        Fault::XmppServerKilled,
        Fault::XmppServerKilledAndEmpty,
        Fault::SlapdStopped,
        Fault::SlapdKilled,
        Fault::SlapdPaused,
        Fault::DiskFull,
        Fault::ClockAhead,
        Fault::ClockBehind,
        Fault::JournalDeleted,
        Fault::EmptyVolume,
        Fault::RollingRestart,
    ];

    /// Whether it is one of the network, of which there is one at a time.
    pub(crate) fn is_of_network(self) -> bool {
        use Fault::*;
        matches!(
            self,
            PartitionOfOne | PartitionOfHalf | OneWayLossIn | OneWayLossOut | Loss | Latency | Flapping
        )
    }

    /// Whether it needs everything else to be well: what a server was told to be acknowledged must be elsewhere before
    /// its disk is thrown away.
    pub(crate) fn stands_alone(self) -> bool {
        matches!(self, Fault::EmptyVolume | Fault::RollingRestart)
    }

    /// Of which the XMPP server is the victim.
    pub(crate) fn is_of_xmpp_server(self) -> bool {
        matches!(self, Fault::XmppServerKilled | Fault::XmppServerKilledAndEmpty)
    }

    /// The server that it befalls: only one has a disk that can be filled.
    pub(crate) fn victim(self, field: &Field, wanted: usize) -> usize {
        if self == Fault::DiskFull { field.group.servers.len() - 1 } else { wanted }
    }

    pub(crate) fn begin(self, field: &mut Field, victim: usize, traffic: &Traffic) {
        field.history.nemesis(&format!("{self:?} begins, victim {victim}"));
        let one = [Field::host(victim)];
        let cut = Condition::CUT;
        let network = field.network.clone();
        match self {
            Fault::Nothing => {}
            Fault::PartitionOfOne => network.set_between(&one, &field.others(&[victim]), cut),
            Fault::PartitionOfHalf => {
                let other = (victim + 1) % field.group.servers.len();
                let half = [Field::host(victim), Field::host(other)];
                network.set_between(&half, &field.others(&[victim, other]), cut);
            }
            Fault::OneWayLossIn => network.set(XMPP, one[0], cut),
            Fault::OneWayLossOut => network.set(one[0], XMPP, cut),
            Fault::Loss => everywhere(field, Condition { loss: LOSS, ..Condition::default() }),
            Fault::Latency => everywhere(field, Condition { latency: LATENCY, ..Condition::default() }),
            Fault::Flapping => {
                let condition = Condition { flaps: Some(FLAPPING), ..Condition::default() };
                network.set_between(&one, &field.others(&[victim]), condition);
            }
            Fault::XmppServerKilled | Fault::XmppServerKilledAndEmpty => {
                field.group.xmpp.kill().unwrap();
            }
            Fault::SlapdStopped => drop(field.group.servers[victim].stop().unwrap()),
            Fault::SlapdKilled => drop(field.group.servers[victim].kill9().unwrap()),
            Fault::SlapdPaused => field.group.servers[victim].pause().unwrap(),
            Fault::DiskFull => fill(&database(field, victim)),
            Fault::ClockAhead => set_clock(&field.group.servers[victim], TEN_MINUTES),
            Fault::ClockBehind => set_clock(&field.group.servers[victim], -TEN_MINUTES),
            Fault::JournalDeleted => {
                fs::remove_dir_all(database(field, victim).join("xmppsync")).unwrap();
            }
            Fault::EmptyVolume => {
                let held = traffic.hold(field.group.servers[victim].name());
                field.wait_sent(victim);
                field.group.servers[victim].stop().unwrap();
                drop(held);
                empty(&database(field, victim));
            }
            Fault::RollingRestart => {
                for server in &mut field.group.servers {
                    server.restart().unwrap();
                    server.wait_log("}: in room ", PATIENCE).unwrap();
                }
                field.group.xmpp.restart(XmppData::Keep).unwrap();
            }
        }
    }

    pub(crate) fn end(self, field: &mut Field, victim: usize) {
        field.history.nemesis(&format!("{self:?} ends, victim {victim}"));
        match self {
            Fault::Nothing | Fault::RollingRestart => {}
            Fault::XmppServerKilled => field.group.xmpp.start_again(XmppData::Keep).unwrap(),
            Fault::XmppServerKilledAndEmpty => field.group.xmpp.start_again(XmppData::Drop).unwrap(),
            Fault::SlapdStopped | Fault::SlapdKilled | Fault::EmptyVolume => {
                field.group.servers[victim].start().unwrap();
            }
            Fault::SlapdPaused => field.group.servers[victim].resume().unwrap(),
            Fault::DiskFull => fs::remove_file(database(field, victim).join(FILLER)).unwrap(),
            Fault::ClockAhead | Fault::ClockBehind => set_clock(&field.group.servers[victim], 0),
            Fault::JournalDeleted => drop(field.group.servers[victim].restart().unwrap()),
            _ => field.network.heal(),
        }
    }
}

/// Every link between two servers.
fn everywhere(field: &Field, condition: Condition) {
    let all = field.others(&[]);
    field.network.set_between(&all, &all, condition);
}

/// The directory of the victim's database, on its own disk.
fn database(field: &Field, victim: usize) -> PathBuf {
    let server = &field.group.servers[victim];
    server.host().unwrap().path(&server.database_dir(0))
}

fn fill(directory: &std::path::Path) {
    let mut file = fs::File::create(directory.join(FILLER)).unwrap();
    let mut size = 1 << 20;
    // To the last byte: less and less, until not even one goes in.
    while size > 0 {
        if file.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

fn empty(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

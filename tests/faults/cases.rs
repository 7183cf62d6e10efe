//! One fault after the other: while clients write, then without them until all are equal, then with them again.

use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::fault::Fault;
use crate::field::{Field, Plan};

const SERVERS: usize = 4;
/// The one that faults befall.
const VICTIM: usize = 1;
/// Between two operations of a client; with two clients for each of four servers some hundred writes a second.
const PACE: Duration = Duration::from_millis(40);
/// 200 writes a second of eight clients, as far as the machine takes them.
const STEADY_PACE: Duration = Duration::from_millis(35);
/// How long clients go on when a fault is over.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Lines a minute that a server may log while a fault lasts, but for those of single conflicts: more is a hot loop.
const LINES_PER_MINUTE_MAX: f64 = 120.0;

fn field(fault: Fault) -> Option<Field> {
    // By default what an admin sees by default.
    let debug_level = std::env::var("XMPPSYNC_DEBUG_LEVEL").unwrap_or_else(|_| "none".to_owned());
    Field::new(Plan {
        name: &format!("{fault:?}"),
        servers: SERVERS,
        clients_per_server: 2,
        seed: crate::seed().unwrap_or(1),
        debug_level: &debug_level,
        how_to_repeat: "cargo xtask test --faults".to_owned(),
    })
}

/// What the servers cost and say while something lasts.
struct Watch {
    begin: Instant,
    servers: Vec<(Option<u32>, f64, usize, usize)>,
}

impl Watch {
    fn new(field: &Field) -> Watch {
        let servers = field.group.servers.iter().map(|server| {
            let log = server.log();
            (server.pid(), server.pid().map_or(0.0, cpu_seconds), lines(&log), conflicts(&log))
        });
        Watch { begin: Instant::now(), servers: servers.collect() }
    }

    /// The most that a server used of a processor in per cent, lines a minute, and lines of conflicts a minute.
    fn read(&self, field: &Field) -> (f64, f64, f64) {
        let (time, now) = (self.begin.elapsed().as_secs_f64(), Watch::new(field));
        let mut most = (0.0_f64, 0.0_f64, 0.0_f64);
        for (before, after) in self.servers.iter().zip(&now.servers) {
            if before.0 == after.0 {
                most.0 = most.0.max((after.1 - before.1) / time * 100.0);
            }
            most.1 = most.1.max((after.2 - before.2) as f64 / time * 60.0);
            most.2 = most.2.max((after.3 - before.3) as f64 / time * 60.0);
        }
        most
    }
}

/// User and system time of a process (proc(5), `stat`); the kernel's clock ticks for it 100 times a second.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// The overlay's lines. slapd has one for each control that clients use here to learn the CSN.
fn lines(log: &str) -> usize {
    log.lines().filter(|line| line.contains("xmppsync") && !line.contains("conflict:")).count()
}

fn conflicts(log: &str) -> usize {
    log.lines().filter(|line| line.contains("conflict:")).count()
}

/// The fault for so long, and what comes of it.
fn case(fault: Fault, lasts: Duration) {
    let Some(mut field) = field(fault) else { return };
    let victim = fault.victim(&field, VICTIM);
    let pace = if fault == Fault::RollingRestart { STEADY_PACE } else { PACE };
    let (writes, (cpu, lines, conflicts)) = field.with_traffic(pace, |field, traffic| {
        let (watch, before) = (Watch::new(field), field.history.acknowledged());
        let begin = Instant::now();
        fault.begin(field, victim, traffic);
        // That it lasts is what the fault is.
        thread::sleep(lasts.saturating_sub(begin.elapsed()));
        let writes = (field.history.acknowledged() - before) as f64 / begin.elapsed().as_secs_f64();
        let seen = watch.read(field);
        // What waits for an answer of a server that hangs, or is not there, is let go.
        traffic.end();
        if fault == Fault::SlapdPaused {
            fault.end(field, victim);
        }
        (writes, seen)
    });
    let healing = Instant::now();
    if fault != Fault::SlapdPaused {
        fault.end(&mut field, victim);
    }
    field.settle(&format!("after {fault:?}"));
    println!(
        "FAULT | {fault:?} | {:.0} s | {:.1} s | {writes:.0} writes/s | {lines:.0} lines/min | {conflicts:.0} \
         conflicts/min | {cpu:.0} % CPU",
        lasts.as_secs_f64(),
        healing.elapsed().as_secs_f64(),
    );
    if let Some(dir) = std::env::var_os("XMPPSYNC_LOGS") {
        for server in &field.group.servers {
            let file = format!("{fault:?}.{}.log", server.name());
            fs::write(std::path::Path::new(&dir).join(file), server.log()).unwrap();
        }
    }
    assert!(lines <= LINES_PER_MINUTE_MAX, "{lines} lines a minute");
    field.with_traffic(pace, |_, _| thread::sleep(AFTERWARDS));
    field.settle(&format!("some time after {fault:?}"));
}

macro_rules! cases {
    ($($(#[$attribute:meta])* $name:ident: $fault:ident for $seconds:literal;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                case(Fault::$fault, Duration::from_secs($seconds));
            }
        )*
    };
}

cases! {
    a_server_that_is_cut_off_and_the_others_write_and_become_equal: PartitionOfOne for 10;
    servers_behind_a_line_that_flaps_become_equal: Flapping for 10;
    a_fifth_of_all_packets_lost_loses_no_write: Loss for 10;
    #[ignore = "of cargo xtask test --faults"]
    nothing_at_all_happens: Nothing for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_server_that_is_cut_off_for_a_minute_comes_back: PartitionOfOne for 60;
    #[ignore = "of cargo xtask test --faults"]
    two_halves_that_are_cut_off_from_each_other_become_equal: PartitionOfHalf for 60;
    #[ignore = "of cargo xtask test --faults"]
    a_server_that_hears_nothing_and_is_heard_comes_back: OneWayLossIn for 60;
    #[ignore = "of cargo xtask test --faults"]
    a_server_that_hears_and_is_not_heard_comes_back: OneWayLossOut for 60;
    #[ignore = "of cargo xtask test --faults"]
    a_minute_of_lost_packets_loses_no_write: Loss for 60;
    #[ignore = "of cargo xtask test --faults"]
    slow_lines_lose_no_write: Latency for 30;
    #[ignore = "of cargo xtask test --faults"]
    a_minute_of_flapping_loses_no_write: Flapping for 60;
    #[ignore = "of cargo xtask test --faults"]
    an_xmpp_server_that_is_killed_and_started_is_found_again: XmppServerKilled for 20;
    #[ignore = "of cargo xtask test --faults"]
    an_xmpp_server_that_has_lost_its_database_is_set_up_again: XmppServerKilledAndEmpty for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_slapd_that_is_stopped_for_a_while_catches_up: SlapdStopped for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_slapd_that_is_killed_loses_nothing: SlapdKilled for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_slapd_that_hangs_for_a_minute_goes_on: SlapdPaused for 60;
    #[ignore = "of cargo xtask test --faults"]
    a_slapd_whose_disk_is_full_loses_nothing: DiskFull for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_clock_that_is_ahead_harms_nothing: ClockAhead for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_clock_that_is_behind_harms_nothing: ClockBehind for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_journal_that_is_deleted_while_slapd_runs_is_made_anew: JournalDeleted for 20;
    #[ignore = "of cargo xtask test --faults"]
    a_server_that_begins_anew_with_an_empty_volume_is_loaded: EmptyVolume for 10;
    #[ignore = "of cargo xtask test --faults"]
    all_servers_restarted_one_after_the_other_under_steady_writes_lose_nothing: RollingRestart for 20;
}

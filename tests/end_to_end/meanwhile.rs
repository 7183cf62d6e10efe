//! What goes on while something else happens, and small questions to the servers.

use crate::PATIENCE;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use xmppsync_lab::{Group, Ldap, SUFFIX, Slapd, ldif, wait_for, wait_until};

/// The room of a group's first database.
pub(crate) const ROOM: &str = "dc=example,dc=com";

/// Between two writes, so that the test and not the writing is what the machine is busy with.
const PACE: Duration = Duration::from_millis(2);
/// For an outage that lasts as long as the machine makes it: what is written meanwhile has to be caught up with in bounded
/// time.
const SLOW_PACE: Duration = Duration::from_millis(25);

/// Writes to a server, one modify after the other, until it is stopped. Fails when a write fails.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Writes to an entry of its own below the suffix.
    pub(crate) fn start(slapd: &Slapd) -> Writer {
        Writer::start_at(PACE, slapd)
    }

    /// Writes less often, while the line is down for who knows how long.
    pub(crate) fn start_slow(slapd: &Slapd) -> Writer {
        Writer::start_at(SLOW_PACE, slapd)
    }

    fn start_at(pace: Duration, slapd: &Slapd) -> Writer {
        let dn = format!("cn=writer on {},{SUFFIX}", slapd.name());
        let mut ldap = slapd.ldap().unwrap();
        ldap.add(&dn, &[("objectClass", "device"), ("cn", &format!("writer on {}", slapd.name()))]).unwrap();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed) + 1;
                ldap.replace(&dn, "description", &[&number.to_string()]).unwrap();
                count.store(number, Ordering::Relaxed);
                thread::sleep(pace);
            }
        });
        Writer { stop, written, thread }
    }

    /// Returns after so many more writes.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let goal = self.written.load(Ordering::Relaxed) + count;
        let enough = || self.thread.is_finished() || self.written.load(Ordering::Relaxed) >= goal;
        wait_for("writes go on", PATIENCE, enough).unwrap();
        assert!(!self.thread.is_finished(), "a write failed");
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Does something at its end, also when the test fails: it ends what would go on for ever.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Adds a small directory.
pub(crate) fn load(slapd: &Slapd) {
    slapd.ldapmodify(SUFFIX, &ldif::text(&ldif::directory(SUFFIX, 5))).unwrap();
}

/// Gives all servers, which are not running yet, the same small directory.
pub(crate) fn load_offline(group: &Group) {
    let (first, others) = group.servers.split_first().unwrap();
    first.slapadd(SUFFIX, &ldif::text(&ldif::directory(SUFFIX, 5)), true).unwrap();
    let ldif = first.slapcat(SUFFIX).unwrap();
    others.iter().for_each(|server| server.slapadd(SUFFIX, &ldif, true).unwrap());
}

/// Writes a value on one server and waits until the other has it.
pub(crate) fn assert_travels(from: &Slapd, to: &Slapd, value: &str) {
    write(&mut from.ldap().unwrap(), value);
    assert_arrives(to, value);
}

pub(crate) fn write(ldap: &mut Ldap, value: &str) {
    ldap.replace(SUFFIX, "description", &[value]).unwrap();
}

pub(crate) fn assert_arrives(on: &Slapd, value: &str) {
    let mut ldap = on.ldap().unwrap();
    wait_until(&format!("{value:?} is on {}", on.name()), PATIENCE, || {
        let values = ldap.values(SUFFIX, "description").unwrap();
        if values == [value] { Ok(()) } else { Err(format!("{values:?}\n{}", end_of(&on.run_log()))) }
    })
    .unwrap();
}

/// The end of a log, for a failure.
pub(crate) fn end_of(log: &str) -> String {
    let ours: Vec<_> = log.lines().filter(|line| line.contains("xmppsync")).collect();
    ours[ours.len().saturating_sub(20)..].join("\n")
}

/// How many lines of a log contain the text.
pub(crate) fn count(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

/// Whether the overlay's thread runs in a slapd.
pub(crate) fn has_thread(slapd: &Slapd) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", slapd.pid().unwrap())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim() == "xmppsync")
}

/// Waits for the overlay's thread. For a moment it bears another name, when it hands work to slapd's pool.
pub(crate) fn wait_for_thread(slapd: &Slapd) {
    wait_for("the overlay's thread runs", PATIENCE, || has_thread(slapd)).unwrap();
}

/// Nicks of the room's occupants, as the XMPP server knows them.
pub(crate) fn occupants(group: &Group) -> Vec<String> {
    let arguments = format!(r#"{{"name":"{ROOM}","service":"conference.{}"}}"#, group.xmpp.domain());
    let answer = group.xmpp.api("get_room_occupants", &arguments).unwrap_or_default();
    let nicks = answer.split(r#""nick":""#).skip(1).filter_map(|rest| rest.split('"').next());
    let mut nicks: Vec<_> = nicks.map(str::to_owned).collect();
    nicks.sort();
    nicks
}

/// Waits until a server has its seat in the room, in this run of it.
pub(crate) fn wait_joined(slapd: &Slapd, deadline: Duration) {
    slapd.wait_log("}: in room ", deadline).unwrap();
}

pub(crate) fn wait_for_occupants(group: &Group, expected: &[&str]) {
    wait_until(&format!("{expected:?} are in the room"), PATIENCE, || {
        let seen = occupants(group);
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .unwrap();
}

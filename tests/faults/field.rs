//! A group on a network of its own, its clients, and how it is judged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, mem, thread};

use xmppsync_lab::net::Network;
use xmppsync_lab::{
    ContextCsn, Dump, Group, GroupOptions, LabDir, SUFFIX, Slapd, SlapdOptions, assert_equal_with, ldif,
    wait_until,
};

use crate::checker;
use crate::client::Client;
use crate::history::History;
use crate::traffic::Traffic;

/// The XMPP server's host in the network; those of the slapds follow.
pub(crate) const XMPP: usize = 1;
/// How long healing may take. A server finds out after 25 + 20 s that nothing comes from the XMPP server any more, tries
/// to connect with pauses of up to 30 s, and enters the room with pauses of up to 45 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// The disk that the last server has for itself, so that it can be full without harm to the machine.
const DISK_SIZE: u64 = 96 << 20;

pub(crate) struct Field {
    pub(crate) group: Group,
    pub(crate) network: Network,
    pub(crate) history: Arc<History>,
    clients: Vec<Client>,
    seed: u64,
    how_to_repeat: String,
}

/// What a field is made of.
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    pub(crate) servers: usize,
    pub(crate) clients_per_server: usize,
    pub(crate) seed: u64,
    /// For `slapd -d`; `none` is what an admin sees by default.
    pub(crate) debug_level: &'a str,
    pub(crate) how_to_repeat: String,
}

impl Field {
    /// Started and equal, with the entries that clients share; `None`, and a line that says why, where this machine has
    /// no network for it.
    pub(crate) fn new(plan: Plan<'_>) -> Option<Field> {
        if let Some(reason) = Network::why_not() {
            println!("left out: {reason}");
            return None;
        }
        let lab = LabDir::new().unwrap();
        let network = Network::new(&lab, plan.servers + 1, plan.seed).unwrap();
        let mut group = Group::prepare(GroupOptions {
            servers: plan.servers,
            network: Some(network.clone()),
            slapd: SlapdOptions { debug_level: plan.debug_level.to_owned(), ..SlapdOptions::default() },
            ..GroupOptions::default()
        })
        .unwrap();
        let clock = clock_library(&lab);
        for server in &mut group.servers {
            let file = clock_file(server).display().to_string();
            let library = clock.display().to_string();
            server.set_environment(&[("LD_PRELOAD", &library), ("CLOCK_AHEAD", &file)]);
        }
        let last = group.servers.last().unwrap();
        last.host().unwrap().mount_disk(&last.database_dir(0), DISK_SIZE).unwrap();
        group.start().unwrap();
        let history = Arc::new(History::new(plan.name, plan.seed));
        let clients = (0..plan.clients_per_server * plan.servers).map(|number| {
            let server = &group.servers[number % plan.servers];
            let name = format!("{}{}", server.name(), number / plan.servers + 1);
            Client::new(&name, server.name(), &server.uri(), plan.seed + number as u64, &history)
        });
        let clients = clients.collect();
        let (seed, how_to_repeat) = (plan.seed, plan.how_to_repeat);
        let mut field = Field { group, network, history, clients, seed, how_to_repeat };
        field.populate();
        Some(field)
    }

    fn populate(&mut self) {
        for server in &self.group.servers {
            for id in
                (1..=self.group.servers.len()).filter(|id| Some(*id as u16) != server.config().server_id)
            {
                server.wait_log(&format!("server {id} ("), PATIENCE).unwrap();
            }
        }
        let first = &self.group.servers[0];
        let mut ldap = first.ldap().unwrap();
        let record = ldif::suffix_entry(SUFFIX);
        ldap.add_bytes(&record.dn, record.attributes).unwrap();
        Client::new("first", first.name(), &first.uri(), self.seed, &self.history).prepare(&mut ldap);
        self.settle("at the beginning");
    }

    /// Clients write to all servers while something is done.
    pub(crate) fn with_traffic<T>(
        &mut self,
        pace: Duration,
        done: impl FnOnce(&mut Field, &Traffic) -> T,
    ) -> T {
        let names: Vec<String> = self.group.servers.iter().map(|server| server.name().to_owned()).collect();
        let traffic = Traffic::new(names.iter().map(String::as_str), pace);
        let clients = mem::take(&mut self.clients);
        let (outcome, clients) = thread::scope(|scope| {
            let running: Vec<_> = clients
                .into_iter()
                .map(|client| {
                    let traffic = &traffic;
                    scope.spawn(move || client.run(traffic))
                })
                .collect();
            let end = EndOnDrop(&traffic);
            let outcome = done(self, &traffic);
            drop(end);
            (outcome, running.into_iter().map(|client| client.join().unwrap()).collect())
        });
        self.clients = clients;
        outcome
    }

    /// Waits until all servers are equal, entry by entry with operational attributes, and judges the history; how long
    /// the first took.
    pub(crate) fn settle(&self, when: &str) -> Duration {
        let begin = Instant::now();
        let dump = assert_equal_with(&self.group.servers, SUFFIX, ContextCsn::Compare, PATIENCE)
            .unwrap_or_else(|different| self.fail(&format!("{when}: {different}")));
        let took = begin.elapsed();
        self.judge(when, &dump);
        self.history.nemesis(checker::SETTLED);
        took
    }

    fn judge(&self, when: &str, dump: &Dump) {
        let losses: Vec<_> =
            self.group.servers.iter().flat_map(|server| checker::losses(&server.log())).collect();
        let mut wrong = checker::check(&self.history.events(), &checker::found(dump), &losses);
        for server in &self.group.servers {
            let log = server.log();
            let bugs = log.lines().filter(|line| line.contains("bug:") || line.contains("panicked"));
            wrong.extend(bugs.map(|line| format!("{} says: {line}", server.name())));
        }
        if !wrong.is_empty() {
            self.fail(&format!("{when}:\n{}", wrong.join("\n")));
        }
    }

    /// With the history, the servers' logs beside it, and how to do it once more.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let path = self.history.path().display();
        let mut logs: Vec<(String, String)> =
            self.group.servers.iter().map(|server| (server.name().to_owned(), server.log())).collect();
        logs.push((self.group.xmpp.program().to_owned(), self.group.xmpp.log()));
        for (name, log) in logs {
            let _ = fs::write(format!("{path}.{name}.log"), log);
        }
        for server in &self.group.servers {
            let ldif = server.slapcat(SUFFIX).unwrap_or_default();
            let _ = fs::write(format!("{path}.{}.ldif", server.name()), ldif);
        }
        panic!(
            "{what}\nthe history is {path}, the logs are beside it; seed {}; once more: {}",
            self.seed, self.how_to_repeat
        );
    }

    /// The slapd of this number as a host.
    pub(crate) fn host(server: usize) -> usize {
        server + XMPP + 1
    }

    /// The hosts of the XMPP server and all slapds but those of these numbers.
    pub(crate) fn others(&self, than: &[usize]) -> Vec<usize> {
        let slapds = (0..self.group.servers.len()).filter(|number| !than.contains(number));
        std::iter::once(XMPP).chain(slapds.map(Field::host)).collect()
    }

    /// Waits until some other server has all that this one has written.
    pub(crate) fn wait_sent(&self, server: usize) {
        let id = format!("#{:03x}#", server + 1);
        let own = |number: usize| -> Option<String> {
            let values = self.group.servers[number].ldap().ok()?.values(SUFFIX, "contextCSN").ok()?;
            values.into_iter().find(|value| value.contains(&id))
        };
        let other = usize::from(server == 0);
        wait_until(&format!("{other} has all of {server}"), PATIENCE, || {
            let (here, there) = (own(server), own(other));
            if here == there { Ok(()) } else { Err(format!("{here:?} {there:?}")) }
        })
        .unwrap_or_else(|late| self.fail(&late.to_string()));
    }
}

struct EndOnDrop<'a>(&'a Traffic);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A clock of its own for each server; see `clocks.rs`.
fn clock_library(lab: &LabDir) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/other_clock.c");
    let library = lab.path().join("other_clock.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.unwrap().success());
    library
}

fn clock_file(server: &Slapd) -> PathBuf {
    server.dir().join("clock")
}

/// Sets a server's clock so many seconds ahead, or behind.
pub(crate) fn set_clock(server: &Slapd, ahead: i64) {
    let (file, new) = (clock_file(server), server.dir().join("clock.new"));
    fs::write(&new, ahead.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

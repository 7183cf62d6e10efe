//! Many clients write as fast as they can; how long until they are done, and until all servers are equal.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xmppsync_lab::{SUFFIX, Slapd, ldif};

use crate::bench::client::{Client, at_once};
use crate::bench::cpu;
use crate::bench::options::STRIDE;

/// Servers that are not equal by then will not be.
const CONVERGED_DEADLINE: Duration = Duration::from_secs(300);
/// How often a receiver is asked when the clients are done. Short beside a run, and no load.
const POLL_PAUSE: Duration = Duration::from_millis(2);

/// What shall be written.
pub(super) struct Load<'a> {
    /// The servers, those that are written to first.
    pub(super) servers: &'a [Slapd],
    /// How many are written to.
    pub(super) writers: usize,
    /// Whether what is written on one arrives on the others.
    pub(super) replicates: bool,
    /// How many people there are to change.
    pub(super) entries: usize,
    /// How many clients write.
    pub(super) clients: usize,
    /// How many changes they write together.
    pub(super) writes: usize,
    /// Stands in the values.
    pub(super) name: &'a str,
}

/// How long it took.
pub(super) struct Outcome {
    /// Until the last client had its last answer.
    pub(super) written: Duration,
    /// Until all servers held everything.
    pub(super) converged: Option<Duration>,
    /// Processor time of all clients.
    pub(super) clients_cpu: Duration,
}

/// The last change of a client, by which one sees that all of its changes are there.
struct Marker {
    dn: String,
    title: String,
}

impl Load<'_> {
    /// Writes and waits.
    pub(super) fn run(&self) -> Result<Outcome> {
        let connect = |number: usize| Client::connect(&self.servers[number % self.writers]);
        let mut clients = (0..self.clients).map(connect).collect::<Result<Vec<_>>>()?;
        let mut watchers = self.servers.iter().map(Client::connect).collect::<Result<Vec<_>>>()?;
        let (begin, results) = at_once(&mut clients, |number, client| self.write(number, client))?;
        let written = begin.elapsed();
        let (mut markers, cpu): (Vec<_>, Vec<Duration>) = results.into_iter().unzip();
        let converged = if self.replicates && self.servers.len() > 1 {
            let vector = self.last_alone(&mut clients, &mut markers)?;
            watchers.iter_mut().try_for_each(|watcher| wait_equal(watcher, &markers, &vector, begin))?;
            Some(begin.elapsed())
        } else {
            None
        };
        Ok(Outcome { written, converged, clients_cpu: cpu.iter().sum() })
    }

    /// One client's part; its last change and the processor time it took.
    fn write(&self, number: usize, client: &mut Client) -> Result<(Marker, Duration)> {
        let cpu = cpu::of_this_thread();
        let writes = self.writes / self.clients + usize::from(number < self.writes % self.clients);
        let mut last = Marker { dn: String::new(), title: String::new() };
        for write in 0..writes {
            // No two clients write to the same entry.
            let own_entries = self.entries / self.clients;
            let person = number + self.clients * (write * STRIDE % own_entries);
            let (dn, title) = (ldif::person_dn(SUFFIX, person), format!("{} {number} {write}", self.name));
            let telephone = format!("+49 30 {number}{write:07}");
            client.replace(&dn, &[("title", &title), ("telephoneNumber", &telephone)])?;
            last = Marker { dn, title };
        }
        Ok((last, cpu::of_this_thread().saturating_sub(cpu)))
    }

    /// Makes one more change on each server that was written to, when nobody else writes there: where two changes
    /// end at the same moment, a contextCSN of stock slapd may stay at the earlier one until somebody writes again.
    /// What contextCSN must say of each of them then. Not asked of contextCSN itself, which may be behind what the
    /// server answered for.
    fn last_alone(&self, clients: &mut [Client], markers: &mut [Marker]) -> Result<Vec<String>> {
        // The first clients are connected to different servers.
        let firsts = clients.iter_mut().zip(markers).take(self.writers);
        let change = |(client, marker): (&mut Client, &mut Marker)| {
            marker.title.push_str(" end");
            client.replace(&marker.dn, &[("title", &marker.title)])?;
            let entry_csns = client.values(&marker.dn, "entryCSN")?;
            entry_csns.into_iter().max().context("an entry without an entryCSN")
        };
        firsts.map(change).collect()
    }
}

/// Waits until a server shows the last change of each client and a contextCSN that says it has all.
fn wait_equal(watcher: &mut Client, markers: &[Marker], vector: &[String], begin: Instant) -> Result<()> {
    let wanted_markers = markers.iter().map(|marker| (marker.dn.as_str(), "title", &marker.title));
    let wanted = wanted_markers.chain(vector.iter().map(|csn| (SUFFIX, "contextCSN", csn)));
    for (dn, attribute, value) in wanted {
        loop {
            let seen = watcher.values(dn, attribute)?;
            if seen.contains(value) {
                break;
            }
            if begin.elapsed() > CONVERGED_DEADLINE {
                bail!("{watcher} still has {attribute} {seen:?} instead of {value:?} in {dn}");
            }
            thread::sleep(POLL_PAUSE);
        }
    }
    Ok(())
}

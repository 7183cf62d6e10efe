//! Watches all servers for one change.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xmppsync_lab::ldap3::Scope;
use xmppsync_lab::{Group, Ldap, SUFFIX, Slapd};

use super::interrupted;

/// A change that is not everywhere by then has been lost.
const DEADLINE: Duration = Duration::from_secs(15);
/// Short beside what is measured, long enough not to be the load that is measured.
const PAUSE: Duration = Duration::from_micros(500);

/// What shows that a change has arrived.
#[derive(Clone, Debug)]
pub(super) enum View {
    /// The entry is there.
    Entry(String),
    /// The entry is not there.
    Gone(String),
    /// The entry's attribute has these values, in sorted order.
    Values(String, &'static str, Vec<String>),
    /// The entry's attribute has a value of this size.
    Size(String, &'static str, usize),
    /// A client can bind with this password.
    Password(String, &'static str),
    /// So many entries match the filter.
    Count(&'static str, usize),
}

/// When one server showed it, and what it holds.
pub(super) struct Sighting {
    pub(super) server: String,
    /// From the moment before the write was sent.
    pub(super) after: Duration,
    pub(super) holds: String,
}

impl View {
    /// What the server holds, for the reader: `Ok` when it is what was wanted.
    fn look(&self, uri: &str, ldap: &mut Ldap) -> Result<Result<String, String>> {
        let (reached, holds) = match self {
            Self::Entry(dn) | Self::Gone(dn) => {
                let there = ldap.entry(dn)?.is_some();
                let wanted = matches!(self, Self::Entry(_));
                (there == wanted, if there { dn.clone() } else { format!("no {dn}") })
            }
            Self::Values(dn, attribute, expected) => {
                let values = ldap.values(dn, attribute)?;
                (values == *expected, format!("{attribute}: {}", values.join(" | ")))
            }
            Self::Size(dn, attribute, expected) => {
                let entry = ldap.entry(dn)?.unwrap_or_default();
                let sizes = entry.get(*attribute).into_iter().flatten().map(Vec::len);
                let size = sizes.max().unwrap_or_default();
                (size == *expected, format!("{attribute}: {size} bytes"))
            }
            Self::Password(dn, password) => {
                let bound = Ldap::bind(uri, dn, password).is_ok();
                let answer = if bound { "lets in" } else { "refuses" };
                (bound, format!("{answer} {dn}"))
            }
            Self::Count(filter, expected) => {
                let found = ldap.search(SUFFIX, Scope::Subtree, filter, &["1.1"])?.len();
                (found == *expected, format!("{found} entries with {filter}"))
            }
        };
        // The suffix is the same everywhere.
        let holds = holds.replace(&format!(",{SUFFIX}"), "");
        Ok(if reached { Ok(holds) } else { Err(holds) })
    }
}

/// Writes, and waits on all servers at once until they show it.
pub(super) fn measure(
    group: &Group,
    view: &View,
    write: impl FnOnce() -> Result<()>,
) -> Result<Vec<Sighting>> {
    let mut clients = Vec::new();
    for server in &group.servers {
        clients.push((server, server.ldap()?));
    }
    let begin = Instant::now();
    thread::scope(|scope| {
        let watch = |(server, ldap)| scope.spawn(move || wait_for(view, server, ldap, begin));
        let watchers: Vec<_> = clients.into_iter().map(watch).collect();
        let written = write();
        let sightings: Result<Vec<_>> = watchers.into_iter().map(joined).collect();
        // A write that failed is why nobody saw it.
        written.and(sightings)
    })
}

/// What a thread found out.
pub(super) fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread of the demo panicked"))
}

fn wait_for(view: &View, server: &Slapd, mut ldap: Ldap, begin: Instant) -> Result<Sighting> {
    let uri = server.uri();
    loop {
        let looked = view.look(&uri, &mut ldap)?;
        let after = begin.elapsed();
        match looked {
            Ok(holds) => return Ok(Sighting { server: server.name().to_owned(), after, holds }),
            Err(_) if interrupted() => bail!("interrupted"),
            Err(holds) if after > DEADLINE => {
                bail!("{} does not show {view:?} after {after:.1?}; it holds: {holds}", server.name());
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

//! A server that lacks something is started; how long until it holds all that another one holds, and at what cost.

use std::collections::BTreeSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xmppsync_lab::{Group, SUFFIX, Slapd, check_equal};

use super::benchmark::Difference;
use super::client::Client;
use super::cpu;
use super::figures::{Figure, Figures};
use super::memory::Sampler;
use super::options::Kind;

/// Between two looks at the server: short beside what is measured, and no load.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// A server with the contextCSN of the other, but not its number of entries, has this long to prove that it
/// was about to get them.
const COUNT_DEADLINE: Duration = Duration::from_secs(10);
/// Where slapd tells how many entries the first database after `cn=config` holds.
const MONITOR: &str = "cn=Database 1,cn=Databases,cn=Monitor";

/// What a server holds, as far as it can be asked cheaply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// All values of contextCSN.
    pub(super) context_csn: BTreeSet<String>,
    /// How many entries.
    pub(super) entries: u64,
}

/// A server that is asked again and again.
pub(super) struct Watched {
    content: Client,
    monitor: Client,
}

/// What was measured.
pub(super) struct Arrival {
    /// From the start of the process until it held everything; `None` when it never did.
    pub(super) whole: Option<Duration>,
    /// Times, memory and processor time; nothing when it never held everything.
    pub(super) figures: Figures,
    /// Why the servers are not equal, if they are not.
    pub(super) difference: Option<Difference>,
}

/// Starts the group's second server and measures until it holds what the first one holds.
pub(super) fn measure(
    group: &mut Group,
    kind: Kind,
    wanted: &Holding,
    deadline: Duration,
) -> Result<Arrival> {
    let pid = |group: &Group, number: usize| group.servers[number].pid().context("a slapd has ended");
    let source = pid(group, 0)?;
    let ejabberd = group.xmpp.pid().context("the XMPP server has ended")?;
    let (source_before, ejabberd_before) = (cpu::of_process(source)?, cpu::of_process(ejabberd)?);
    let begin = Instant::now();
    group.servers[1].start()?;
    let answered = begin.elapsed();
    let target = pid(group, 1)?;
    let sampler = Sampler::start(vec![source, target]);
    let mut watched = Watched::connect(&group.servers[1])?;
    let seen = watched.wait(wanted, begin + deadline)?;
    let whole = begin.elapsed();
    let peaks = sampler.stop()?;
    let mut figures = Figures::new();
    if seen == *wanted {
        figures.insert(Figure::WholeS, whole.as_secs_f64());
        figures.insert(Figure::WholeAfterAnswerS, whole.saturating_sub(answered).as_secs_f64());
        figures.extend([Figure::SourceMemoryMib, Figure::TargetMemoryMib].into_iter().zip(peaks));
        let used = |pid, before| Ok::<_, anyhow::Error>(cpu::of_process(pid)?.saturating_sub(before));
        figures.insert(Figure::SourceCpuS, used(source, source_before)?.as_secs_f64());
        figures.insert(Figure::TargetCpuS, used(target, Duration::ZERO)?.as_secs_f64());
        if kind.uses_xmpp() {
            figures.insert(Figure::EjabberdCpuS, used(ejabberd, ejabberd_before)?.as_secs_f64());
        }
    }
    let whole = (seen == *wanted).then_some(whole);
    let has_vector = seen.context_csn.is_superset(&wanted.context_csn);
    // What differs says more than what is not there, but takes a while to find.
    let difference = if has_vector { difference(group) } else { None };
    let difference = difference.or_else(|| match whole {
        Some(_) => None,
        None => Some(Difference::NotWhole(format!("it had {seen}, the other one {wanted}"))),
    });
    Ok(Arrival { whole, figures, difference })
}

/// What differs now between the two servers.
fn difference(group: &Group) -> Option<Difference> {
    // The later one first: whatever is missing still gets no more time.
    let compared = check_equal(&group.servers[1], &group.servers[0], SUFFIX);
    compared.err().map(|difference| Difference::NotEqual(difference.to_string()))
}

impl Watched {
    /// Connects.
    pub(super) fn connect(server: &Slapd) -> Result<Self> {
        let content = Client::connect(server)?;
        Ok(Self { content, monitor: Client::connect_as(server, "cn=config", "secret")? })
    }

    /// What the server holds now.
    pub(super) fn holding(&mut self) -> Result<Holding> {
        let context_csn = self.content.values_so_far(SUFFIX, "contextCSN")?.into_iter().collect();
        let entries = self.monitor.values(MONITOR, "olmMDBEntries")?;
        let entries = entries.first().and_then(|entries| entries.parse().ok());
        Ok(Holding {
            context_csn,
            entries: entries.with_context(|| format!("no olmMDBEntries in {MONITOR}"))?,
        })
    }

    /// Waits until the server holds this, at most until the deadline; what it holds then.
    pub(super) fn wait(&mut self, wanted: &Holding, mut deadline: Instant) -> Result<Holding> {
        let mut has_vector = false;
        loop {
            let seen = self.holding()?;
            if !has_vector && seen.context_csn == wanted.context_csn {
                has_vector = true;
                deadline = deadline.min(Instant::now() + COUNT_DEADLINE);
            }
            if seen == *wanted || Instant::now() >= deadline {
                return Ok(seen);
            }
            thread::sleep(POLL_PAUSE);
        }
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context_csn: Vec<&str> = self.context_csn.iter().map(String::as_str).collect();
        write!(formatter, "{} entries and contextCSN [{}]", self.entries, context_csn.join(", "))
    }
}

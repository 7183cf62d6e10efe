//! One change at a time on servers that have nothing else to do.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xmppsync_lab::{SUFFIX, Slapd, ldif};

use crate::bench::client::Client;
use crate::bench::options::STRIDE;

/// A change that is not there by then is lost.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(30);
/// Between two searches on the peer that is watched. The searches cost processor time, so only one peer is
/// watched at a time; the same for all kinds of replication.
const POLL_PAUSE: Duration = Duration::from_micros(100);
/// After a change is everywhere: everybody comes to rest.
const REST: Duration = Duration::from_millis(5);

/// Times of all samples.
#[derive(Default)]
pub(super) struct Latency {
    /// From the request to its answer.
    pub(super) write: Vec<Duration>,
    /// From the request until a search on a peer showed it. The search begins after the answer, so this is
    /// what somebody sees whom the writer sends to look.
    pub(super) visible: Vec<Duration>,
}

/// Writes on the first server and watches the others, each in turn.
pub(super) fn measure(
    servers: &[Slapd],
    replicates: bool,
    entries: usize,
    samples: usize,
) -> Result<Latency> {
    let mut clients = servers.iter().map(Client::connect).collect::<Result<Vec<_>>>()?;
    let mut latency = Latency::default();
    let Some((writer, peers)) = clients.split_first_mut() else { return Ok(latency) };
    let peers = if replicates { peers } else { &mut [] };
    for sample in 0..samples {
        let dn = ldif::person_dn(SUFFIX, sample * STRIDE % entries);
        let title = format!("sample {sample}");
        let telephone = format!("+49 30 9{sample:07}");
        let begin = Instant::now();
        writer.replace(&dn, &[("title", &title), ("telephoneNumber", &telephone)])?;
        latency.write.push(begin.elapsed());
        // The one whose turn it is, then the others, so that the next change finds all at rest.
        let count = peers.len();
        for turn in 0..count {
            wait_visible(&mut peers[(sample + turn) % count], &dn, &title, begin)?;
            if turn == 0 {
                latency.visible.push(begin.elapsed());
            }
        }
        thread::sleep(REST);
    }
    Ok(latency)
}

fn wait_visible(peer: &mut Client, dn: &str, title: &str, begin: Instant) -> Result<()> {
    while peer.values(dn, "title")? != [title] {
        if begin.elapsed() > VISIBLE_DEADLINE {
            bail!("{peer} does not show {title:?} in {dn} after {VISIBLE_DEADLINE:.0?}");
        }
        thread::sleep(POLL_PAUSE);
    }
    Ok(())
}

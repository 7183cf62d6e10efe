//! How long peers are waited for, and how much is asked of them at a time.
//!
//! A peer whose XMPP server throttles it needs minutes for a page. Who asks again too soon gets an answer for each question,
//! one behind the other, and all of them too late.

use crate::limits;
use crate::shared::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::minidom::Element;
use xmppsync_link::{Group, RequestError};

/// The peers that are slow.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<BTreeMap<FullJid, Slow>>);

/// How slow a peer is.
#[derive(Clone, Copy, Debug, Default)]
struct Slow {
    /// The time doubles with each.
    steps: u32,
    /// Answers in a row that came quickly since it was late: small ones do where a large one does not, and both are needed
    /// for a comparison.
    quick: u32,
}

impl Patience {
    /// Asks a peer, and remembers whether it answered in time.
    pub(crate) async fn request(
        &self,
        group: &Group,
        to: FullJid,
        payload: Element,
        usual: Duration,
    ) -> Result<Element, RequestError> {
        let timeout = usual * (1 << self.steps(&to));
        let begin = Instant::now();
        let answer = group.request(to.clone(), payload, timeout).await;
        match &answer {
            Err(RequestError::Timeout) => self.note(to, Outcome::Late),
            Ok(_) if begin.elapsed() < usual / 2 => self.note(to, Outcome::Quick),
            _ => {}
        }
        answer
    }

    /// How many bytes to ask a peer for, who usually gives so many.
    pub(crate) fn bytes(&self, of: &FullJid, usual: u32) -> u32 {
        usual >> self.steps(of)
    }

    fn steps(&self, of: &FullJid) -> u32 {
        lock(&self.0).get(of).map_or(0, |slow| slow.steps)
    }

    fn note(&self, peer: FullJid, outcome: Outcome) {
        let mut peers = lock(&self.0);
        let mut slow = peers.remove(&peer).unwrap_or_default();
        match outcome {
            Outcome::Late => {
                slow = Slow { steps: (slow.steps + 1).min(limits::PATIENCE_STEPS_MAX), quick: 0 }
            }
            Outcome::Quick => slow.quick += 1,
        }
        if slow.quick >= limits::QUICK_ANSWERS {
            slow = Slow { steps: slow.steps.saturating_sub(1), quick: 0 };
        }
        if slow.steps > 0 && peers.len() < limits::SLOW_PEERS_MAX {
            peers.insert(peer, slow);
        }
    }
}

enum Outcome {
    Late,
    Quick,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_late_is_asked_for_less_until_it_is_quick_again() {
        let (patience, peer) = (Patience::default(), FullJid::new("a@example.org/ldap").unwrap());
        assert_eq!(patience.bytes(&peer, 64_000), 64_000);
        patience.note(peer.clone(), Outcome::Late);
        patience.note(peer.clone(), Outcome::Late);
        assert_eq!(patience.bytes(&peer, 64_000), 16_000);
        (0..10).for_each(|_| patience.note(peer.clone(), Outcome::Late));
        assert_eq!(patience.steps(&peer), limits::PATIENCE_STEPS_MAX);
        let quick = limits::QUICK_ANSWERS * limits::PATIENCE_STEPS_MAX;
        (0..quick).for_each(|_| patience.note(peer.clone(), Outcome::Quick));
        assert_eq!(patience.bytes(&peer, 64_000), 64_000);
    }

    #[test]
    fn quick_answers_between_late_ones_do_not_keep_the_time_too_short() {
        let (patience, peer) = (Patience::default(), FullJid::new("a@example.org/ldap").unwrap());
        for _ in 0..limits::PATIENCE_STEPS_MAX {
            (1..limits::QUICK_ANSWERS).for_each(|_| patience.note(peer.clone(), Outcome::Quick));
            patience.note(peer.clone(), Outcome::Late);
        }
        assert_eq!(patience.steps(&peer), limits::PATIENCE_STEPS_MAX);
    }
}

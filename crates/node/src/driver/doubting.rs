//! When another server is asked for entries that are in doubt, or that changes wait for.

use crate::heal;
use crate::limits;
use crate::shared::{Shared, lock};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use xmppsync_replica::{EntryUuid, ServerId};

/// Asks one server after the other, less and less often as long as none of them can tell.
#[derive(Default)]
pub(super) struct Doubting {
    /// When to ask, while there is something to ask for.
    pub(super) due: Option<Instant>,
    pause: Duration,
    /// How often something came up, when that was looked at last.
    questions: u64,
    asked: usize,
}

impl Doubting {
    /// Looks whether there is something to ask for. It may pass by itself in a moment.
    pub(super) fn look(&mut self, shared: &Shared, now: Instant) {
        let is_none = {
            let names = lock(&shared.names);
            names.doubts.is_empty() && lock(&shared.to_apply).waiting.is_empty()
        };
        let questions = lock(&shared.to_apply).questions;
        if is_none {
            self.due = None;
        } else if self.due.is_none() || questions != self.questions {
            self.pause = limits::DOUBT_PAUSE;
            let soon = now + self.pause;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
        self.questions = questions;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// What to ask for, and whom of these.
    pub(super) fn ask(
        &mut self,
        shared: &Shared,
        peers: &[ServerId],
        now: Instant,
    ) -> Option<(ServerId, BTreeSet<EntryUuid>)> {
        self.pause = (self.pause * 2).min(limits::DOUBT_PAUSE_MAX);
        self.due = Some(now + self.pause);
        self.asked = self.asked.wrapping_add(1);
        let peer = peers.get(self.asked.checked_rem(peers.len())?)?;
        Some((*peer, heal::in_question(shared)))
    }
}

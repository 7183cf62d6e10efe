//! What this server made before, and its database knows nothing of: the disk was lost, or put back without a trace of it.
//!
//! Others have some of it, and those that are away may have more. As after a journal that was lost, nothing counts as seen between the
//! last of it that is here and what this run makes; and who hears of that sees a hole, which only a comparison fills.

use super::{Driver, Running};
use crate::opening::Found;
use crate::shared::lock;
use xmppsync_journal::Record;
use xmppsync_replica::{Csn, ServerId, Unseen};

/// What is known of it.
#[derive(Default)]
pub(super) struct Forgotten {
    /// What others have of it is on its way into the empty database. It ends here, and what this run makes is later, and is not sent
    /// before.
    awaited: Option<Csn>,
    /// What they have is here, up to this change.
    here: Option<Csn>,
}

impl Forgotten {
    /// The run before may have ended while it was awaited.
    pub(super) fn new(found: &Found, own: ServerId) -> Forgotten {
        let was_awaited = found.loading && found.unseen.of(own).any(|span| span.after().is_none());
        Forgotten { awaited: found.opened.filter(|_| was_awaited), here: None }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// What others had of it, up to this change, is in the database.
    pub(super) fn here(&mut self, last: Option<Csn>) {
        self.here = last.filter(|_| self.is_awaited()).or(self.here);
    }
}

impl Running<'_> {
    /// A peer has changes of this server up to `last` that are not here.
    pub(super) fn handle_forgotten(&mut self, last: Csn) {
        let Driver { shared, config, found, .. } = self.driver;
        let until = found.opened.map_or(last, |opened| opened.max(last));
        if self.incoming.empty {
            let mut unseen = Unseen::default();
            unseen.add_after(None, until);
            shared.add_unseen(unseen);
            self.forgotten.awaited = Some(until);
            self.outgoing.hold_back();
        } else {
            self.begin_after(found.vector.get(config.server_id), until);
        }
    }

    /// Once what others have of it is here.
    pub(super) fn follow_forgotten(&mut self) {
        if std::mem::take(&mut self.incoming.healed) {
            self.forgotten.here(self.incoming.known_own());
        }
        let Forgotten { awaited: Some(until), here: Some(last) } = self.forgotten else { return };
        if lock(&self.driver.shared.to_apply).is_idle() {
            self.forgotten = Forgotten::default();
            self.begin_after(Some(last), until);
        }
    }

    /// `last`: of what this server made before that is the last that is here.
    fn begin_after(&mut self, last: Option<Csn>, until: Csn) {
        let shared = &self.driver.shared;
        let mut unseen = Unseen::default();
        unseen.add_after(last, until);
        shared.add_unseen(unseen);
        shared.store.write(vec![Record::Floor(until)]);
        lock(&shared.vector).advance(until);
        self.outgoing.begin_after(until);
        self.incoming.begin_after(until);
    }
}

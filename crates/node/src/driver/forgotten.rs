//! What this server made before, and its database knows nothing of: the disk was lost, or put back without a trace of it.
//!
//! Others have some of it, and those that are away may have more. As after a journal that was lost, nothing counts as seen between the
//! last of it that is here and what this run makes; and who hears of that sees a hole, which only a comparison fills.

use super::{Driver, Running};
use crate::shared::lock;
use xmppsync_journal::Record;
use xmppsync_replica::{Csn, Unseen};

/// What is known of it.
#[derive(Default)]
pub(super) struct Forgotten {
    /// What others have of it is on its way into the empty database. It ends here, and what this run makes is later.
    awaited: Option<Csn>,
    /// What they have is here, up to this change.
    here: Option<Csn>,
}

impl Forgotten {
    /// What others had of it, up to this change, is in the database.
    pub(super) fn here(&mut self, last: Option<Csn>) {
        self.here = last.filter(|_| self.awaited.is_some()).or(self.here);
    }
}

impl Running<'_> {
    /// A peer has changes of this server up to `last` that are not here.
    pub(super) fn handle_forgotten(&mut self, last: Csn) {
        let Driver { shared, config, found, .. } = self.driver;
        let until = found.opened.map_or(last, |opened| opened.max(last));
        let mut unseen = Unseen::default();
        unseen.add_after(found.vector.get(config.server_id), until);
        shared.add_unseen(unseen);
        shared.store.write(vec![Record::Floor(until)]);
        self.outgoing.handle_forgotten(until);
        if self.incoming.empty {
            self.forgotten.awaited = Some(until);
        } else {
            lock(&shared.vector).advance(until);
        }
    }

    /// Once what others have of it is here.
    pub(super) fn follow_forgotten(&mut self) {
        let shared = &self.driver.shared;
        if std::mem::take(&mut self.incoming.healed) {
            self.forgotten.here(self.incoming.known_own());
        }
        let Forgotten { awaited: Some(until), here: Some(last) } = self.forgotten else { return };
        if lock(&shared.to_apply).is_idle() {
            let mut unseen = Unseen::default();
            unseen.add_after(Some(last), until);
            shared.add_unseen(unseen);
            lock(&shared.vector).advance(until);
            self.forgotten = Forgotten::default();
        }
    }
}

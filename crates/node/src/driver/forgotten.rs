//! What this server made before, and its database knows nothing of: the disk was lost, or put back without a trace of it.
//!
//! Others have some of it, and those that are away may have more. As after a journal that was lost, nothing counts as seen between the
//! last of it that is here and what this run makes; and who hears of that sees a hole, which only a comparison fills.

use super::{Driver, Running};
use crate::shared::lock;
use xmppsync_journal::Record;
use xmppsync_replica::{Csn, Unseen};

impl Running<'_> {
    /// A peer has changes of this server up to `last` that are not here.
    pub(super) fn handle_forgotten(&mut self, last: Csn) {
        let Driver { shared, config, found, .. } = self.driver;
        let until = found.opened.map_or(last, |opened| opened.max(last));
        self.outgoing.begin_after(until);
        if self.incoming.is_filled_by_others() {
            // What others have of it is on its way. Until that is here this is the whole that is not.
            let mut unseen = Unseen::default();
            unseen.add_after(None, until);
            shared.add_unseen(unseen);
            self.incoming.own_awaited = true;
            self.outgoing.hides_own = true;
        } else {
            self.begin_after(found.vector.get(config.server_id), until);
        }
    }

    /// Once what others have of it was pulled.
    pub(super) fn follow_forgotten(&mut self) {
        let is_pulled = self.incoming.own_awaited && self.incoming.healed && !self.is_empty();
        if is_pulled && lock(&self.driver.shared.to_apply).is_idle() {
            self.handle_filled(self.incoming.own_pulled());
        }
    }

    /// What others have of it is in the database, which was empty, up to `last`.
    pub(super) fn handle_filled(&mut self, last: Option<Csn>) {
        let Driver { shared, config, .. } = self.driver;
        self.incoming.own_awaited = false;
        self.outgoing.hides_own = false;
        let whole = lock(&shared.unseen).of(config.server_id).find(|span| span.after().is_none());
        // A run before this one may have begun to fill it.
        if let Some(until) =
            whole.map(|whole| whole.until()).filter(|until| last.is_some() && last < Some(*until))
        {
            self.begin_after(last, until);
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
        self.incoming.begin_after(until);
    }
}

//! The initial load: when it begins, and what follows when it ends.

use super::{Driver, Running};
use crate::limits;
use crate::load::{LoadError, Loaded, Loader};
use crate::shared::lock;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info, warn};
use xmpp_parsers::jid::FullJid;
use xmppsync_journal::Record;
use xmppsync_link::{FileOffer, IncomingFile};
use xmppsync_replica::ServerId;
use xmppsync_wire::NoticeKind;

/// The initial load, while there is anything to do about it.
pub(super) struct Load {
    /// The database is not whole, from an earlier run or load.
    pub(super) unfinished: bool,
    /// The peer that has what is missing, and when to begin.
    pub(super) wanted: Option<(ServerId, Instant)>,
    pub(super) running: JoinSet<Result<Loaded, LoadError>>,
    /// The source of the load that runs, and the way of the files that it offers.
    pub(super) source: Option<(FullJid, mpsc::Sender<(FileOffer, IncomingFile)>)>,
    /// An earlier one was not finished: what it brought may be gone at the source. The load counts as unfinished in the
    /// journal until the comparison that finds this has ended.
    pub(super) again: bool,
    /// That comparison has ended; what it brought is still being applied.
    pub(super) settling: bool,
    /// That `xmppsync-load-from` is waited for was told.
    pub(super) waiting_told: bool,
}

impl Load {
    pub(super) fn new(unfinished: bool) -> Load {
        Load {
            unfinished,
            wanted: None,
            running: JoinSet::new(),
            source: None,
            again: unfinished,
            settling: false,
            waiting_told: false,
        }
    }
}

impl Driver {
    /// Until the database is whole. `into_nothing`: it has no entry.
    pub(super) fn show_loading(&self, into_nothing: bool) {
        self.shared.loading.begin(into_nothing);
        if !self.config.keep.serve_while_loading {
            self.database.set_loading(true);
        }
    }
}

impl Running<'_> {
    /// Whether this copy has nothing yet, or only a part.
    pub(super) fn is_empty(&self) -> bool {
        let shared = &self.driver.shared;
        let nothing = || lock(&shared.dataset).is_none() && lock(&shared.vector).iter().next().is_none();
        self.load.unfinished || nothing()
    }

    /// Begins the load that is wanted. Returns when to look again.
    pub(super) fn begin_load(&mut self, now: Instant) -> Option<Instant> {
        let (peer, due) = self.load.wanted.filter(|_| self.load.running.is_empty())?;
        if now < due {
            return Some(due);
        }
        let source = match &self.driver.config.keep.load_from {
            Some(jid) => self.incoming.member_of(jid),
            None => self.incoming.member(peer),
        };
        let Some(source) = source else {
            if let Some(jid) = &self.driver.config.keep.load_from {
                if !std::mem::replace(&mut self.load.waiting_told, true) {
                    warn!("this server is to be loaded from {jid}, which is not in the room; waiting for it");
                }
                self.load.wanted = Some((peer, now + limits::LOAD_RETRY));
                return Some(now + limits::LOAD_RETRY);
            }
            // It went away; somebody else may have what is missing.
            self.load.wanted = None;
            self.incoming.inbox.handle_reset(lock(&self.driver.shared.vector).clone(), now);
            return Some(now);
        };
        self.load.wanted = None;
        self.load.waiting_told = false;
        let shared = &self.driver.shared;
        let into_nothing = !self.load.again && lock(&shared.dataset).is_none();
        self.driver.show_loading(into_nothing);
        self.load.unfinished = true;
        let body = format!("server {} is loaded from {}", self.driver.config.server_id, source.to_bare());
        self.outgoing.say(&self.group, &self.driver.config, NoticeKind::Gap, body);
        let (files, offered) = mpsc::channel(1);
        let loader = Loader {
            group: Arc::clone(&self.group),
            shared: Arc::clone(shared),
            source: source.clone(),
            files: offered,
        };
        self.load.source = Some((source, files));
        self.load.running.spawn(loader.run().in_current_span());
        None
    }

    /// Nothing of an earlier load is left over any more.
    pub(super) fn settle_load(&mut self) {
        if self.load.settling && lock(&self.driver.shared.to_apply).is_idle() {
            (self.load.settling, self.load.again) = (false, false);
            self.driver.shared.store.write(vec![Record::Loading(None)]);
        }
    }

    pub(super) fn handle_loaded(
        &mut self,
        loaded: Result<Result<Loaded, LoadError>, tokio::task::JoinError>,
    ) {
        let now = Instant::now();
        let shared = &self.driver.shared;
        let source = self.load.source.take().map(|(jid, _)| jid.to_string()).unwrap_or_default();
        let loaded = loaded.unwrap_or(Err(LoadError::Stopped));
        match loaded {
            Ok(Loaded { vector, entries, bytes, took, mixed }) => {
                let rate = entries as f64 / took.as_secs_f64().max(0.001);
                info!(
                    "{entries} entries loaded from {source} in {took:.1?} ({bytes} bytes, {rate:.0} entries/s)"
                );
                self.load.unfinished = false;
                self.handle_filled(vector.get(self.driver.config.server_id));
                shared.loading.end();
                self.driver.database.set_loading(false);
                self.incoming.inbox.handle_state(&vector, now);
                self.load.again |= mixed;
                match self.load.again {
                    true => self.comparing.next_check = Some(now),
                    false => drop(shared.store.write(vec![Record::Loading(None)])),
                }
            }
            Err(problem) => {
                match problem {
                    // Whose clock it is, and how far ahead, was told when it was found.
                    LoadError::Drift => debug!("not loaded from {source}: {problem}"),
                    _ => warn!("the load from {source} came to nothing: {problem}; it begins anew"),
                }
                self.load.again = true;
                self.incoming.inbox.handle_reset(lock(&shared.vector).clone(), now + limits::LOAD_RETRY);
            }
        }
    }
}

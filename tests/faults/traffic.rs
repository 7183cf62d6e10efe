//! What clients and those who do harm agree on: when to write, how fast, and when to wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

pub(crate) struct Traffic {
    ended: AtomicBool,
    pace_microseconds: AtomicU64,
    /// Held by each client of a server while it asks for something.
    turns: Vec<(String, RwLock<()>)>,
}

impl Traffic {
    /// Each client waits for so long between two operations.
    pub(crate) fn new<'a>(servers: impl Iterator<Item = &'a str>, pace: Duration) -> Traffic {
        let pace = u64::try_from(pace.as_micros()).unwrap_or(u64::MAX);
        let turns = servers.map(|server| (server.to_owned(), RwLock::new(()))).collect();
        Traffic { ended: AtomicBool::new(false), pace_microseconds: pace.into(), turns }
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn pace(&self) -> Duration {
        Duration::from_micros(self.pace_microseconds.load(Ordering::Relaxed))
    }

    /// For one operation; waits while the server's clients are held.
    pub(crate) fn turn(&self, server: &str) -> RwLockReadGuard<'_, ()> {
        self.lock(server).read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the server's clients have their answers, and holds them.
    pub(crate) fn hold(&self, server: &str) -> RwLockWriteGuard<'_, ()> {
        self.lock(server).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, server: &str) -> &RwLock<()> {
        let turn = self.turns.iter().find(|(name, _)| name == server);
        &turn.unwrap_or_else(|| panic!("no server {server}")).1
    }
}

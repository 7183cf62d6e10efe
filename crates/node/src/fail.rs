//! Points at which a test lets the process die, or wait. Compiled in with the feature `failpoints` only.

/// The environment variable that names a point and a file: `loading:/tmp/hold`. Who comes to the point waits for as long as
/// the file exists.
#[cfg(feature = "failpoints")]
const HOLD_AT: &str = "XMPPSYNC_HOLD_AT";
/// The environment variable that names a point, and after a colon at which of its passings: `journalled:3`.
#[cfg(feature = "failpoints")]
const FAIL_AT: &str = "XMPPSYNC_FAIL_AT";

/// A place in the way of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailPoint {
    /// slapd has committed a client's change; nobody knows of it.
    Committed,
    /// It was taken over, and is not in the journal.
    Captured,
    /// It is in the journal, and was not sent.
    Journalled,
    /// It was sent and came back, and this server does not know.
    Sent,
    /// Changes of others are made, and their transaction is not committed.
    Applying,
    /// It is committed, and the inventory does not know.
    Applied,
    /// Some entries of a snapshot are on their way into the database, and the next ones were not looked at.
    Loading,
}

#[cfg(feature = "failpoints")]
impl FailPoint {
    fn name(self) -> &'static str {
        match self {
            FailPoint::Committed => "committed",
            FailPoint::Captured => "captured",
            FailPoint::Journalled => "journalled",
            FailPoint::Sent => "sent",
            FailPoint::Applying => "applying",
            FailPoint::Applied => "applied",
            FailPoint::Loading => "loading",
        }
    }
}

/// Waits, or ends the process at once as `kill -9` does, if this is the point that the environment names.
#[cfg(feature = "failpoints")]
pub fn fail_point(point: FailPoint) {
    hold(point);
    die(point);
}

#[cfg(feature = "failpoints")]
fn hold(point: FailPoint) {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

    let Ok(wanted) = std::env::var(HOLD_AT) else { return };
    let file = wanted.split_once(':').filter(|(name, _)| *name == point.name());
    while file.is_some_and(|(_, file)| std::path::Path::new(file).exists()) {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(feature = "failpoints")]
fn die(point: FailPoint) {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Ok(wanted) = std::env::var(FAIL_AT) else { return };
    let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if name == point.name() && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == count.parse().unwrap_or(1) {
        // It cannot be refused to a process about itself.
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn fail_point(_point: FailPoint) {}

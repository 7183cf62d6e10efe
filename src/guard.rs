//! No panic crosses the boundary: an unwinding Rust frame in slapd's stack is undefined behaviour, and a bug
//! here must not take the directory down.

use crate::log;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static CAUGHT: AtomicU64 = AtomicU64::new(0);
static HOOK: Once = Once::new();

/// Runs the body of an exported function; `fallback` is its documented code for a failure.
pub(crate) fn guard<R>(function: &'static str, fallback: R, body: impl FnOnce() -> R) -> R {
    // Whatever the body left half done is behind locks that are poisoned on purpose or data that is valid
    // after every statement.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let caught = CAUGHT.fetch_add(1, Ordering::Relaxed) + 1;
        log::error(&format!(
            "bug: {function} failed, see the line before; {caught} such failures so far; slapd goes on"
        ));
        fallback
    })
}

/// Panics are told to slapd's log with their place, on any thread of ours.
pub(crate) fn log_panics() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            log::error(&format!("bug: {panic}"));
            before(panic);
        }));
    });
}

//! Waiting for conditions. The only place that sleeps.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};

const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Asks again and again until the probe returns `Ok`, at most until the deadline.
///
/// The `Err` of a probe is no failure but what was seen instead; the last one is in the error.
///
/// # Errors
/// [`LabError::Timeout`] when the deadline has passed.
pub fn wait_until<T, S: Display>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<T, S>,
) -> Result<T> {
    let begin = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if begin.elapsed() >= deadline => {
                return Err(LabError::Timeout {
                    what: what.to_owned(),
                    waited: begin.elapsed(),
                    seen: seen.to_string(),
                });
            }
            Err(_) => {}
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// [`wait_until`] for a condition that has nothing to show but whether it holds.
///
/// # Errors
/// [`LabError::Timeout`] when the deadline has passed.
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, deadline, || if condition() { Ok(()) } else { Err("it does not hold") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thing_seen_is_in_the_error() {
        let mut count = 0;
        let result: Result<()> = wait_until("a miracle", Duration::from_millis(20), || {
            count += 1;
            Err(format!("attempt {count}"))
        });
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("a miracle: not after"), "{text}");
        assert!(text.ends_with(&format!("last seen: attempt {count}")), "{text}");
    }

    #[test]
    fn a_condition_that_holds_at_once_is_not_waited_for() {
        assert!(wait_for("now", Duration::ZERO, || true).is_ok());
    }
}

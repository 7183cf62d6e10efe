//! Processor time of servers and of our own threads.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// What a process has used since its start, in steps of 10 ms.
pub(super) fn of_process(pid: u32) -> Result<Duration> {
    // The unit of times in /proc for programs, whatever the kernel's own is: always 100 on Linux.
    const TICKS_PER_S: f64 = 100.0;
    const USER_TICKS: usize = 11;
    const SYSTEM_TICKS: usize = 12;
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the program's name in parentheses and may contain anything.
    let (_, fields) = text.rsplit_once(')').context("no name in it").with_context(|| path.clone())?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let used = ticks(USER_TICKS).zip(ticks(SYSTEM_TICKS)).map(|(user, system)| user + system);
    used.map(|used| Duration::from_secs_f64(used / TICKS_PER_S))
        .with_context(|| format!("no times in {path}"))
}

/// What the calling thread has used.
pub(super) fn of_this_thread() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

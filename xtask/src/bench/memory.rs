//! The memory of servers while something goes on.

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Between two looks; a shorter peak may be missed.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks at processes again and again until it is stopped.
pub(super) struct Sampler {
    /// Dropped to stop it.
    stop: Sender<()>,
    thread: JoinHandle<Vec<u64>>,
}

impl Sampler {
    /// Begins.
    pub(super) fn start(pids: Vec<u32>) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = thread::spawn(move || {
            let mut peaks = vec![0; pids.len()];
            let mut go_on = true;
            while go_on {
                go_on = stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout);
                // Also once more at the end, or what lasted less than a period would not be seen at all.
                for (peak, pid) in peaks.iter_mut().zip(&pids) {
                    // One that has ended is the other thread's trouble.
                    *peak = anonymous_kib(*pid).unwrap_or_default().max(*peak);
                }
            }
            peaks
        });
        Self { stop, thread }
    }

    /// Ends; the peak of each process in MiB.
    pub(super) fn stop(self) -> Result<Vec<f64>> {
        drop(self.stop);
        let Ok(peaks) = self.thread.join() else { bail!("the thread that looks at memory panicked") };
        Ok(peaks.into_iter().map(|kib| kib as f64 / 1024.0).collect())
    }
}

/// What a process has in memory that is not the content of files: a database's map is not in it, neither on a
/// disk nor on a tmpfs.
fn anonymous_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
    kib.with_context(|| format!("no RssAnon in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_in_use_is_in_the_peak() {
        const SIZE: usize = 64 << 20;
        let sampler = Sampler::start(vec![std::process::id()]);
        let memory = vec![1_u8; SIZE];
        let peaks = sampler.stop().unwrap();
        assert!(peaks[0] >= 64.0, "{peaks:?} MiB with {} bytes in use", memory.len());
    }
}

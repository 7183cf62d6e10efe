//! How fast the server takes what is written to it.
//!
//! A server that throttles its clients reads slowly and says nothing of it; a socket takes megabytes meanwhile. So a
//! ping to the server, a *mark*, goes into the stream after every so many bytes. Servers answer in order: the answer
//! tells that everything before the mark was read, and when.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{MARK_EVERY, MARKS_MAX, SLOW_BELOW, SLOW_FOR, SLOW_MARKS};

/// Ids of marks, followed by a number.
const MARK_ID: &str = "line-mark-";

/// See the module's documentation. Without IO and without a clock.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last_id: u64,
    next_mark: u64,
    /// Marks without an answer.
    open: VecDeque<Mark>,
    /// What the last answer told: when how many bytes were read.
    read: Option<(Instant, u64)>,
    /// Answers in a row that came slowly.
    slow: Slow,
}

#[derive(Debug)]
struct Mark {
    id: u64,
    at: Instant,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Slow {
    marks: u32,
    bytes: u64,
    time: Duration,
}

impl Pace {
    /// So many bytes of this connection were written; the id of the mark that is to follow, if one is due.
    pub(crate) fn written(&mut self, bytes: u64, now: Instant) -> Option<String> {
        if bytes < self.next_mark + MARK_EVERY || self.open.len() >= MARKS_MAX {
            return None;
        }
        self.next_mark = bytes;
        self.last_id += 1;
        self.open.push_back(Mark { id: self.last_id, at: now, bytes });
        Some(format!("{MARK_ID}{}", self.last_id))
    }

    /// Whether an id is that of a mark.
    pub(crate) fn is_mark(id: &str) -> bool {
        id.starts_with(MARK_ID)
    }

    /// A mark is answered. Returns how many bytes the server takes per second when it has been slow for a while, and
    /// not only held up once.
    pub(crate) fn answered(&mut self, id: &str, now: Instant) -> Option<u64> {
        let id: u64 = id.strip_prefix(MARK_ID)?.parse().ok()?;
        while self.open.front().is_some_and(|mark| mark.id < id) {
            self.open.pop_front();
        }
        let mark = self.open.pop_front_if(|mark| mark.id == id)?;
        let (read_at, read) = self.read.replace((now, mark.bytes)).unwrap_or((mark.at, 0));
        // It may have idled before the mark was written, so this is the least time and the most bytes.
        let time = now.saturating_duration_since(read_at.max(mark.at));
        let bytes = mark.bytes.saturating_sub(read);
        if bytes as f64 >= SLOW_BELOW as f64 * time.as_secs_f64() {
            self.slow = Slow::default();
            return None;
        }
        self.slow.marks += 1;
        self.slow.bytes += bytes;
        self.slow.time += time;
        let long = self.slow.marks >= SLOW_MARKS && self.slow.time >= SLOW_FOR;
        long.then(|| (self.slow.bytes as f64 / self.slow.time.as_secs_f64()) as u64)
    }
}

/// A transport that counts what is written.
pub(crate) struct Counted<S> {
    io: S,
    written: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    pub(crate) fn new(io: S, written: Arc<AtomicU64>) -> Self {
        Self { io, written }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = result {
            self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes so many marks at once and lets the server take so many bytes per second; what is told.
    fn told(marks: u64, bytes_per_second: u64) -> Option<u64> {
        let mut pace = Pace::default();
        let begin = Instant::now();
        let ids: Vec<_> = (1..=marks).map(|n| pace.written(n * MARK_EVERY, begin).unwrap()).collect();
        let after = |n: usize| {
            Duration::from_secs_f64(((n + 1) as u64 * MARK_EVERY) as f64 / bytes_per_second as f64)
        };
        let mut answers = ids.iter().enumerate().map(|(n, id)| pace.answered(id, begin + after(n)));
        answers.find_map(|told| told)
    }

    #[test]
    fn what_debians_servers_read_of_a_client_is_measured() {
        for rate in [3_000, 10_000] {
            let told = told(20, rate).unwrap();
            assert!(told.abs_diff(rate) < rate / 10, "{told} for {rate}");
        }
    }

    #[test]
    fn a_server_that_reads_fast_is_not_called_slow() {
        assert_eq!(told(60, 1_000_000), None);
    }

    #[test]
    fn a_server_that_hangs_once_is_not_called_slow() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for n in 1..=20 {
            let id = pace.written(n * MARK_EVERY, now).unwrap();
            now += Duration::from_millis(if n == 10 { 60_000 } else { 20 });
            assert_eq!(pace.answered(&id, now), None);
        }
    }

    #[test]
    fn little_traffic_is_not_slow() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for n in 1..=20 {
            now += Duration::from_secs(60);
            let id = pace.written(n * MARK_EVERY, now).unwrap();
            now += Duration::from_millis(20);
            assert_eq!(pace.answered(&id, now), None);
        }
    }

    #[test]
    fn marks_are_few_and_only_their_answers_count() {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.written(MARK_EVERY - 1, now), None);
        for n in 1..=MARKS_MAX as u64 {
            assert!(pace.written(n * MARK_EVERY, now).is_some());
        }
        assert_eq!(pace.written((MARKS_MAX as u64 + 1) * MARK_EVERY, now), None);
        assert_eq!(pace.answered("line-ping", now), None);
        assert_eq!(pace.answered("line-mark-x", now), None);
        assert_eq!(pace.open.len(), MARKS_MAX);
    }
}

//! Bytes that come in pieces to the records in them.

use super::{LdifError, record};
use crate::limits;
use xmppsync_replica::Change;

/// Reads LDIF as it comes: [`push`](LdifReader::push) some bytes, take entries until there is none,
/// push on; [`finish`](LdifReader::finish) after the last bytes, and take what is left.
///
/// As an iterator it gives `None` when it needs more bytes. Every entry is a `Put`. After an entry
/// that is refused it goes on with the next one. It holds what was pushed and not taken yet: one
/// record of at most [`limits::LDIF_RECORD_BYTES_MAX`] and one piece.
#[derive(Debug, Default)]
pub struct LdifReader {
    buffer: Vec<u8>,
    /// Where the record begins; what is before it was taken.
    start: usize,
    /// Where the line begins up to which the record was looked through.
    line_start: usize,
    /// Up to where that line was looked through.
    searched: usize,
    /// The number of the record's first line less one, and how many lines of it were seen.
    lines_before: u64,
    lines: u64,
    /// Whether a record came, before which a version may stand.
    begun: bool,
    finished: bool,
}

impl LdifReader {
    /// A reader that was given nothing yet.
    pub fn new() -> LdifReader {
        LdifReader::default()
    }

    /// Takes the next bytes, cut anywhere.
    ///
    /// # Errors
    /// [`LdifError::Limit`] when a whole record's limit waits already: the record is over it, or
    /// the entries before were not taken. The bytes are not taken.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LdifError> {
        let waiting = self.buffer.len() - self.start;
        let max = limits::LDIF_RECORD_BYTES_MAX;
        if waiting > max {
            let line = self.lines_before + 1;
            return Err(LdifError::Limit { line, what: "bytes", found: waiting, max });
        }
        self.buffer.drain(..self.start);
        self.line_start -= self.start;
        self.searched -= self.start;
        self.start = 0;
        // One large record shall not hold its memory to the end of the load.
        let needed = waiting + bytes.len();
        if self.buffer.capacity() > limits::LDIF_KEPT_BYTES && needed < limits::LDIF_KEPT_BYTES / 2 {
            self.buffer.shrink_to(needed);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// No bytes follow: what waits is the last record. Not to be called after a transfer that was
    /// cut off, which may have cut the record too.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Where the next record ends, and where what follows it begins.
    fn record(&mut self) -> Option<(usize, usize)> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                let rest = self.finished && self.start < self.buffer.len();
                return rest.then_some((self.buffer.len(), self.buffer.len()));
            };
            let newline = self.searched + found;
            let line = &self.buffer[self.line_start..newline];
            let blank = line.is_empty() || line == b"\r";
            let end = self.line_start;
            self.lines += 1;
            self.line_start = newline + 1;
            self.searched = newline + 1;
            if !blank {
                continue;
            }
            if end > self.start {
                return Some((end, newline + 1));
            }
            self.advance(newline + 1);
        }
    }

    fn advance(&mut self, start: usize) {
        self.start = start;
        self.line_start = start;
        self.searched = start;
        self.lines_before += self.lines;
        self.lines = 0;
    }
}

impl Iterator for LdifReader {
    type Item = Result<Change, LdifError>;

    fn next(&mut self) -> Option<Result<Change, LdifError>> {
        loop {
            let (end, next) = self.record()?;
            let bytes = &self.buffer[self.start..end];
            let parsed = record::parse(bytes, self.lines_before + 1, !self.begun);
            self.advance(next);
            // Comments and the version alone are no record.
            if let Some(result) = parsed.transpose() {
                self.begun = true;
                return Some(result);
            }
        }
    }
}

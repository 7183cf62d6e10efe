//! A server's clock: hybrid and logical. A CSN that it gives is later than everything the server has seen, whatever the time of
//! day is there.

use xmppsync_replica::{Csn, ServerId};

/// Microseconds of virtual time at which clocks begin, after midnight.
const NOON: i64 = 12 * 3600 * 1_000_000;
/// No clock is wrong by more than this, in microseconds.
const WRONG_MAX: i64 = 10 * 3600 * 1_000_000;

/// A clock that drifts and jumps.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    server: ServerId,
    /// What the time of day is wrong by, in microseconds.
    offset: i64,
    /// Parts per million that it runs too fast.
    drift: i64,
    /// The latest CSN that was seen or given.
    last: Option<Csn>,
}

impl Clock {
    pub(crate) fn new(server: ServerId, offset: i64, drift: i64) -> Clock {
        Clock { server, offset, drift, last: None }
    }

    /// Somebody sets it.
    pub(crate) fn jump(&mut self, by: i64) {
        self.offset = (self.offset + by).clamp(-WRONG_MAX, WRONG_MAX);
    }

    /// A change of another server is here.
    pub(crate) fn observe(&mut self, csn: Csn) {
        self.last = self.last.max(Some(csn));
    }

    /// The CSN of a change that is made at this (true) time, in microseconds.
    pub(crate) fn next(&mut self, now: u64) -> Csn {
        let now = now as i64;
        let local = (now + NOON + self.offset + now / 1_000_000 * self.drift).max(0) as u64;
        let mut text = written(local, 0, self.server);
        if let Some(last) = self.last
            && text[..TIME] <= last.as_str().as_bytes()[..TIME]
        {
            let bytes = last.as_str().as_bytes();
            let count = bytes[COUNT].iter().fold(0, |count, digit| count << 4 | value(*digit));
            text[..TIME].copy_from_slice(&bytes[..TIME]);
            text[COUNT].copy_from_slice(&hex::<6>(count + 1));
        }
        let made = made(&text);
        self.last = Some(made);
        made
    }
}

const TIME: usize = 22;
const COUNT: std::ops::Range<usize> = 23..29;

fn made(text: &[u8; Csn::LEN]) -> Csn {
    // It is put together from digits, below.
    Csn::parse(text).unwrap_or_else(|problem| unreachable!("{problem}"))
}

/// The CSN of this time, in microseconds after midnight of the first day.
pub(crate) fn csn(micros: u64, count: u32, server: ServerId) -> Csn {
    made(&written(micros, count, server))
}

fn written(micros: u64, count: u32, server: ServerId) -> [u8; Csn::LEN] {
    let mut text = *b"20261100000000.000000Z#000000#000#000000";
    let seconds = micros / 1_000_000;
    let mut put = |at: usize, digits: usize, mut number: u64| {
        for digit in (at..at + digits).rev() {
            text[digit] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(6, 2, 20 + seconds / 86_400);
    put(8, 2, seconds / 3600 % 24);
    put(10, 2, seconds / 60 % 60);
    put(12, 2, seconds % 60);
    put(15, 6, micros % 1_000_000);
    text[COUNT].copy_from_slice(&hex::<6>(count));
    text[30..33].copy_from_slice(&hex::<3>(u32::from(server.get())));
    text
}

fn hex<const N: usize>(number: u32) -> [u8; N] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (4 * (N - 1 - at)) & 15) as usize])
}

fn value(digit: u8) -> u32 {
    u32::from(if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_earlier_however_late_the_other_clock_is() {
        let (one, other) = (ServerId::new(1).unwrap(), ServerId::new(2).unwrap());
        let (mut fast, mut slow) = (Clock::new(one, WRONG_MAX, 0), Clock::new(other, 0, 0));
        let seen = fast.next(1);
        slow.observe(seen);
        let first = slow.next(2);
        let second = slow.next(3);
        assert!(seen < first && first < second && second.server_id() == other);
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on() {
        let mut clock = Clock::new(ServerId::new(4094).unwrap(), 0, 10);
        let before = clock.next(5_000_000);
        clock.jump(-3_600_000_000);
        assert!(clock.next(6_000_000) > before);
    }
}

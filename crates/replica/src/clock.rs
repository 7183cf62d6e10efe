//! A hybrid logical clock: the CSNs of this server are later than all that it has seen, and as near to the time of day as
//! that allows.

use crate::{Csn, ServerId};
use std::time::Duration;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// What six hex digits hold.
const COUNT_MAX: u32 = 0xff_ffff;
const MICROSECOND_MAX: u32 = 999_999;
/// From 1 March of the year 0 on, as [`days_before`] counts.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_PER_400_YEARS: u64 = 146_097;
/// Years have four digits.
const YEAR_MAX: u64 = 9999;

/// The latest CSN that was seen, of whatever server.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Option<Csn>,
}

impl Clock {
    /// Every CSN that is minted from now on is later than this one.
    pub fn observe(&mut self, csn: Csn) {
        self.last = self.last.max(Some(csn));
    }

    /// The latest CSN that was minted or observed.
    pub fn last(&self) -> Option<Csn> {
        self.last
    }

    /// A CSN of the server of `wall`, later than every one before. `wall` itself, the CSN of this moment, while the time of day
    /// is ahead of all that was seen; otherwise the next one after the latest, which has the same time and a higher count.
    pub fn mint(&mut self, wall: Csn) -> Csn {
        let csn = match self.last {
            Some(last) if last >= wall => next(last, wall.server_id()),
            _ => wall,
        };
        self.last = Some(csn);
        csn
    }
}

/// How far the CSN is ahead of `now`, the seconds since 1970; zero when it is not.
pub fn ahead(csn: Csn, now: u64) -> Duration {
    Duration::from_secs(Time::of(csn).unix_seconds().saturating_sub(now))
}

/// The first CSN of the server at the next count. Only the last microsecond of the year 9999 has none; there the count stands.
fn next(last: Csn, server: ServerId) -> Csn {
    let mut time = Time::of(last);
    if time.count < COUNT_MAX {
        time.count += 1;
    } else if time.microsecond < MICROSECOND_MAX {
        (time.microsecond, time.count) = (time.microsecond + 1, 0);
    } else if let Some(second) = time.next_second() {
        time = second;
    }
    Csn::from_parts(time.date, time.microsecond, time.count, server)
}

/// When a CSN was made.
struct Time {
    /// `YYYYmmddHHMMSS` as one number.
    date: u64,
    microsecond: u32,
    count: u32,
}

impl Time {
    fn of(csn: Csn) -> Time {
        let (microsecond, count) = csn.fraction();
        Time { date: csn.date_number(), microsecond, count }
    }

    /// A CSN may name a month 13 or a day 0: each part is taken for what it counts, so that a later number is a later time.
    fn unix_seconds(&self) -> u64 {
        let part = |above: u64, width: u64| self.date / above % width;
        let (month, day) = (part(100_000_000, 100).max(1), part(1_000_000, 100).max(1));
        let (years, month) = ((month - 1) / 12, (month - 1) % 12 + 1);
        let days = days_before(self.date / 10_000_000_000 + years, month) + day - 1;
        let (hour, minute, second) = (part(10_000, 100), part(100, 100), part(1, 100));
        (days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
            .saturating_sub(DAYS_BEFORE_1970 * SECONDS_PER_DAY)
    }

    /// Its beginning. `None`: no CSN can name it.
    fn next_second(&self) -> Option<Time> {
        let seconds = self.unix_seconds() + 1;
        let (days, rest) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let (year, month, day) = date_of(days);
        let clock = rest / 3600 * 10_000 + rest / 60 % 60 * 100 + rest % 60;
        let date = ((year * 100 + month) * 100 + day) * 1_000_000 + clock;
        (year <= YEAR_MAX).then_some(Time { date, microsecond: 0, count: 0 })
    }
}

/// Days from 1 March of the year 0 to the first of this month, in the Gregorian calendar. Years are counted from March on, so that
/// the leap day is the last of its year.
fn days_before(year: u64, month: u64) -> u64 {
    // January of the year 0 lies before the count, and before every clock.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5
}

/// Year, month and day that lie so many days after 1970-01-01.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day_of_month)
}

#[cfg(test)]
mod tests;

//! Numbers with units in the directives.

use std::time::Duration;

const TIME_UNITS: [(char, u64); 5] =
    [('s', 1), ('m', 60), ('h', 60 * 60), ('d', 24 * 60 * 60), ('w', 7 * 24 * 60 * 60)];
const BYTE_UNITS: [(char, u64); 3] = [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30)];
/// Ten years: far below what overflows a clock.
const TIME_SECONDS_MAX: u64 = 520 * 7 * 24 * 60 * 60;
/// Less would not hold what is under way.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;
const MESSAGES_MAX: u32 = 10_000;

/// `90s`, `15m`, `12h`, `7d`, `2w`; 0 where `zero` is allowed.
pub(crate) fn time(text: &str, zero: bool) -> Result<Duration, String> {
    let seconds = match text {
        "0" => Some(0),
        text => with_unit(text, &TIME_UNITS),
    };
    match seconds {
        Some(0) if zero => Ok(Duration::ZERO),
        Some(seconds @ 1..=TIME_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "\"{text}\" is no time; write a number of at most 520 weeks with s, m, h, d or w, for example 7d{}",
            if zero { ", or 0 for never" } else { "" }
        )),
    }
}

/// `1048576`, `512k`, `64m`, `1g`.
pub(crate) fn journal_bytes(text: &str) -> Result<u64, String> {
    with_unit(text, &BYTE_UNITS)
        .or_else(|| digits(text))
        .filter(|bytes| *bytes >= JOURNAL_BYTES_MIN)
        .ok_or_else(|| {
            format!("\"{text}\" is no size; write at least 1m, as a number with or without k, m or g, for example 1g")
        })
}

pub(crate) fn messages(text: &str) -> Result<u32, String> {
    digits(text)
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count <= MESSAGES_MAX)
        .ok_or_else(|| format!("\"{text}\" is no number of messages; write 0 to {MESSAGES_MAX}"))
}

fn with_unit(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let (letter, size) = units.iter().find(|(letter, _)| text.ends_with(*letter))?;
    digits(text.strip_suffix(*letter)?)?.checked_mul(*size)
}

/// parse() would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

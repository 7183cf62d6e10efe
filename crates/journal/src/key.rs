//! CSNs as short keys whose bytes compare as the CSNs do.

use crate::codec::CodecError;
use crate::store::Uuid;
use xmppsync_replica::{Csn, ServerId};

/// Date and time, microseconds, count, server, modification: a CSN's 40 characters in 17 bytes.
pub(crate) type Packed = [u8; 17];

/// The key of a change: its server, then its CSN, so that a server's changes lie together.
pub(crate) type ChangeKey = [u8; 19];

/// The key of a change in the index: its entry, then its CSN, so that an entry's changes lie together, in their order.
pub(crate) type EntryKey = [u8; 33];

/// Bytes that a change takes beside what [`codec`](crate::codec) makes of it: its two keys.
pub(crate) const KEYS_BYTES: u64 = (size_of::<ChangeKey>() + size_of::<EntryKey>()) as u64;

/// The first byte of each field in a [`Packed`].
const DATE: usize = 0;
const MICROS: usize = 6;
const COUNT: usize = 9;
const SERVER: usize = 12;
const MODIFICATION: usize = 14;

pub(crate) fn pack(csn: Csn) -> Packed {
    let text = csn.as_str().as_bytes();
    let mut packed = [0; 17];
    put(&mut packed[DATE..MICROS], number(&text[0..14], 10));
    put(&mut packed[MICROS..COUNT], number(&text[15..21], 10));
    put(&mut packed[COUNT..SERVER], number(&text[23..29], 16));
    put(&mut packed[SERVER..MODIFICATION], number(&text[30..33], 16));
    put(&mut packed[MODIFICATION..], number(&text[34..40], 16));
    packed
}

/// # Errors
/// [`CodecError::Csn`] for bytes that [`pack`] does not make.
pub(crate) fn unpack(packed: &Packed) -> Result<Csn, CodecError> {
    let mut text = *b"00000000000000.000000Z#000000#000#000000";
    let whole = write(&mut text[0..14], take(&packed[DATE..MICROS]), 10)
        && write(&mut text[15..21], take(&packed[MICROS..COUNT]), 10)
        && write(&mut text[23..29], take(&packed[COUNT..SERVER]), 16)
        && write(&mut text[30..33], take(&packed[SERVER..MODIFICATION]), 16)
        && write(&mut text[34..40], take(&packed[MODIFICATION..]), 16);
    if !whole {
        return Err(CodecError::Csn);
    }
    Csn::parse(&text).map_err(|_| CodecError::Csn)
}

pub(crate) fn change_key(csn: Csn) -> ChangeKey {
    join(csn.server_id(), &pack(csn))
}

/// The CSN of a change that is stored under `key`.
pub(crate) fn key_csn(key: &ChangeKey) -> Result<Csn, CodecError> {
    let (server, packed) = split(key);
    let csn = unpack(&packed)?;
    if csn.server_id().get().to_be_bytes() != server {
        return Err(CodecError::Csn);
    }
    Ok(csn)
}

/// Smaller than the key of every change of `server`.
pub(crate) fn first_key(server: ServerId) -> ChangeKey {
    join(server, &[0; 17])
}

/// Greater than the key of every change of `server`: no date is as late.
pub(crate) fn last_key(server: ServerId) -> ChangeKey {
    join(server, &[0xff; 17])
}

/// Smaller than the key of every change of `server` at `time` or later (seconds since 1970), greater than the
/// keys of all earlier ones.
pub(crate) fn time_key(server: ServerId, time: u64) -> ChangeKey {
    join(server, &time_packed(time))
}

/// Smaller than every CSN at `time` or later (seconds since 1970), greater than all earlier ones.
pub(crate) fn time_packed(time: u64) -> Packed {
    let mut packed = [0; 17];
    put(&mut packed[DATE..MICROS], date_number(time));
    packed
}

/// The packed CSN within a key.
pub(crate) fn key_packed(key: &ChangeKey) -> Packed {
    split(key).1
}

pub(crate) fn entry_key(uuid: &Uuid, packed: &Packed) -> EntryKey {
    let mut key = [0; 33];
    key[..16].copy_from_slice(uuid);
    key[16..].copy_from_slice(packed);
    key
}

/// Smaller than the key of every change of the entry.
pub(crate) fn first_entry_key(uuid: &Uuid) -> EntryKey {
    entry_key(uuid, &[0; 17])
}

/// Greater than the key of every change of the entry: no date is as late.
pub(crate) fn last_entry_key(uuid: &Uuid) -> EntryKey {
    entry_key(uuid, &[0xff; 17])
}

/// The CSN of a change of which `key` is in the index.
pub(crate) fn entry_key_csn(key: &EntryKey) -> Result<Csn, CodecError> {
    let mut packed = [0; 17];
    packed.copy_from_slice(&key[16..]);
    unpack(&packed)
}

fn join(server: ServerId, packed: &Packed) -> ChangeKey {
    let mut key = [0; 19];
    key[..2].copy_from_slice(&server.get().to_be_bytes());
    key[2..].copy_from_slice(packed);
    key
}

fn split(key: &ChangeKey) -> ([u8; 2], Packed) {
    let [high, low, packed @ ..] = *key;
    ([high, low], packed)
}

/// `YYYYmmddHHMMSS` as a number. Days to a date after Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn date_number(time: u64) -> u64 {
    const YEAR_9999: u64 = 253_402_300_799;
    let time = time.min(YEAR_9999);
    let (days, seconds) = (time / 86_400 + 719_468, time % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let date = (year * 100 + month) * 100 + day;
    ((date * 100 + seconds / 3_600) * 100 + seconds / 60 % 60) * 100 + seconds % 60
}

/// Digits that are known to be digits, as a number.
fn number(digits: &[u8], radix: u64) -> u64 {
    digits.iter().fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit.wrapping_sub(b'a').wrapping_add(10),
        };
        value.wrapping_mul(radix).wrapping_add(u64::from(digit))
    })
}

/// Whether `value` fitted.
fn write(digits: &mut [u8], mut value: u64, radix: u64) -> bool {
    for digit in digits.iter_mut().rev() {
        let low = (value % radix) as u8;
        *digit = if low < 10 { b'0' + low } else { b'a' + low - 10 };
        value /= radix;
    }
    value == 0
}

fn put(field: &mut [u8], value: u64) {
    let bytes = value.to_be_bytes();
    field.copy_from_slice(&bytes[bytes.len() - field.len()..]);
}

fn take(field: &[u8]) -> u64 {
    field.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_csn;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_compare_as_their_csns_and_give_them_back(a in any_csn(), b in any_csn()) {
            prop_assert_eq!(pack(a).cmp(&pack(b)), a.cmp(&b));
            prop_assert_eq!(unpack(&pack(a)), Ok(a));
            prop_assert_eq!(key_csn(&change_key(a)), Ok(a));
            let key = entry_key(&[7; 16], &pack(a));
            prop_assert_eq!(entry_key_csn(&key), Ok(a));
            prop_assert!(key < last_entry_key(&[7; 16]));
            prop_assert!(first_key(a.server_id()) < change_key(a) && change_key(a) < last_key(a.server_id()));
        }

        #[test]
        fn foreign_bytes_are_a_csn_or_refused(packed in any::<Packed>()) {
            if let Ok(csn) = unpack(&packed) {
                prop_assert_eq!(pack(csn), packed);
            }
        }
    }

    #[test]
    fn a_time_is_the_date_that_slapd_would_print() {
        assert_eq!(date_number(0), 19_700_101_000_000);
        assert_eq!(date_number(951_782_399), 20_000_228_235_959);
        assert_eq!(date_number(951_782_400), 20_000_229_000_000);
        assert_eq!(date_number(1_795_391_999), 20_261_122_235_959);
        assert_eq!(date_number(u64::MAX), 99_991_231_235_959);
    }
}

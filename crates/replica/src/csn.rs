//! Change sequence numbers (draft-ietf-ldup-model, as OpenLDAP writes them).

use crate::ids::ServerId;
use std::fmt;
use thiserror::Error;

/// `YYYYmmddHHMMSS.uuuuuuZ#cccccc#sss#mmmmmm`: time, count, server and modification, in hex after
/// the time. The bytes compare as the CSNs do, so the order of the bytes is the total order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Csn([u8; Csn::LEN]);

/// Why a text is not a CSN.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CsnError {
    /// Not the length of a CSN, in bytes.
    #[error("a CSN has {len} bytes, this has {0}", len = Csn::LEN)]
    Length(usize),
    /// A byte at this offset is not what the format has there.
    #[error("byte {0} of the CSN is out of place")]
    Format(usize),
    /// The server id is 0, which means that slapd's serverID is not set.
    #[error("the CSN has server id 0: serverID is not set where it was made")]
    ServerIdZero,
}

impl Csn {
    /// Length of a CSN in bytes.
    pub const LEN: usize = 40;
    const SHAPE: &[u8; Csn::LEN] = b"dddddddddddddd.ddddddZ#hhhhhh#hhh#hhhhhh";
    const MICROSECOND: std::ops::Range<usize> = 15..21;
    const COUNT: std::ops::Range<usize> = 23..29;
    const SID: std::ops::Range<usize> = 30..33;

    /// Reads a CSN as slapd prints it.
    ///
    /// # Errors
    /// [`CsnError`] when a byte is out of place or the server id is 0.
    pub fn parse(text: &[u8]) -> Result<Csn, CsnError> {
        let bytes: [u8; Csn::LEN] = text.try_into().map_err(|_| CsnError::Length(text.len()))?;
        for (offset, (byte, shape)) in bytes.iter().zip(Csn::SHAPE).enumerate() {
            let fits = match shape {
                b'd' => byte.is_ascii_digit(),
                // slapd prints lower-case hex; one spelling only, or equal CSNs would compare unequal.
                b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                literal => byte == literal,
            };
            if !fits {
                return Err(CsnError::Format(offset));
            }
        }
        let csn = Csn(bytes);
        if csn.sid_bits() == 0 {
            return Err(CsnError::ServerIdZero);
        }
        Ok(csn)
    }

    /// As [`parse`](Self::parse), for what a database holds: a CSN of serverID 0 (slapadd without `-S` makes such ones)
    /// becomes one of the same time and of [`ServerId::NONE`]. No vector tells of those.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but not [`CsnError::ServerIdZero`].
    pub fn parse_stored(text: &[u8]) -> Result<Csn, CsnError> {
        let mut named = text.to_vec();
        if let Some(sid) = named.get_mut(Csn::SID).filter(|sid| *sid == b"000") {
            sid.copy_from_slice(b"fff");
        }
        Csn::parse(&named)
    }

    /// `date` is the number `YYYYmmddHHMMSS`. The modification is 0, as in every CSN of slapd.
    pub(crate) fn from_parts(date: u64, microsecond: u32, count: u32, server: ServerId) -> Csn {
        let server = server.get();
        let text = format!("{date:014}.{microsecond:06}Z#{count:06x}#{server:03x}#{:06x}", 0);
        let mut bytes = [b'0'; Csn::LEN];
        bytes.iter_mut().zip(text.bytes()).for_each(|(byte, digit)| *byte = digit);
        Csn(bytes)
    }

    /// The server on which the change was made.
    pub fn server_id(&self) -> ServerId {
        ServerId::from_csn_bits(self.sid_bits())
    }

    /// The text, as slapd prints it.
    pub fn as_str(&self) -> &str {
        // Every byte was checked to be ASCII by `parse`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The date and time as one number, `YYYYmmddHHMMSS`.
    pub(crate) fn date_number(&self) -> u64 {
        self.0[..14].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }

    /// Microsecond and count.
    pub(crate) fn fraction(&self) -> (u32, u32) {
        let microsecond =
            self.0[Csn::MICROSECOND].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        (microsecond, self.hex(Csn::COUNT))
    }

    fn sid_bits(&self) -> u16 {
        // Three digits.
        self.hex(Csn::SID) as u16
    }

    fn hex(&self, digits: std::ops::Range<usize>) -> u32 {
        self.0[digits].iter().fold(0, |bits, digit| {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                _ => digit - b'a' + 10,
            };
            (bits << 4) | u32::from(value)
        })
    }
}

/// Whether `csn` is not later than `have`; none is before all others. By reference, so that the bytes of one that is not there
/// are not looked at: optimised code compared them first and asked afterwards, which Valgrind takes for a fault.
#[inline(never)]
pub(crate) fn is_within(csn: Option<&Csn>, have: Option<&Csn>) -> bool {
    match (csn, have) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(csn), Some(have)) => csn <= have,
    }
}

impl fmt::Display for Csn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Csn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Csn {
    type Err = CsnError;

    fn from_str(text: &str) -> Result<Csn, CsnError> {
        Csn::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "20261122235959.123456Z#000001#0ab#000000";

    #[test]
    fn a_csn_survives_the_round_trip_and_names_its_server() {
        let csn: Csn = GOOD.parse().unwrap();
        assert_eq!(csn.to_string(), GOOD);
        assert_eq!(csn.server_id().get(), 0xab);
    }

    #[test]
    fn a_csn_of_an_unset_server_id_is_refused() {
        assert_eq!(Csn::parse(b"20261122235959.123456Z#000001#000#000000"), Err(CsnError::ServerIdZero));
    }

    #[test]
    fn a_stored_csn_of_no_server_keeps_its_time() {
        let stored = Csn::parse_stored(b"20261122235959.123456Z#000001#000#000000").unwrap();
        assert_eq!(stored.to_string(), "20261122235959.123456Z#000001#fff#000000");
        assert_eq!(stored.server_id(), ServerId::NONE);
        assert_eq!(Csn::parse_stored(GOOD.as_bytes()), GOOD.parse());
        assert_eq!(Csn::parse_stored(b"000"), Err(CsnError::Length(3)));
    }

    #[test]
    fn bytes_out_of_place_are_refused_with_their_offset() {
        assert_eq!(Csn::parse(b"20261122235959.123456Z#000001#0AB#000000"), Err(CsnError::Format(31)));
        assert_eq!(Csn::parse(b"20261122"), Err(CsnError::Length(8)));
    }
}

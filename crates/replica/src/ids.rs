//! Identifiers whose constructors prove their bounds.

use std::fmt;
use thiserror::Error;

/// Why a value is not the identifier that it should be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdError {
    /// slapd.conf(5): 0 is "not set", 4095 the largest.
    #[error("a serverID is between 1 and {max}, not {0}", max = ServerId::MAX)]
    ServerId(u32),
    /// Not the hyphenated form of RFC 4122.
    #[error("an entryUUID has the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
    EntryUuid,
    /// Not 16 hexadecimal digits.
    #[error("a boot id has 16 hexadecimal digits")]
    BootId,
}

/// slapd's serverID, 1 to 4095: what sets the CSNs of one server apart from those of the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u16);

impl ServerId {
    /// The largest serverID that fits into a CSN's three hexadecimal digits.
    pub const MAX: u16 = 0xfff;
    /// Stands for serverID 0, which slapd takes for "none", in the CSNs of entries that were made without one. No replica
    /// has it.
    pub const NONE: ServerId = ServerId(ServerId::MAX);

    /// # Errors
    /// [`IdError::ServerId`] for 0 and beyond [`ServerId::MAX`].
    pub fn new(id: u32) -> Result<ServerId, IdError> {
        match u16::try_from(id) {
            Ok(bits @ 1..=ServerId::MAX) => Ok(ServerId(bits)),
            _ => Err(IdError::ServerId(id)),
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The caller has proven `bits` to be neither 0 nor more than three hexadecimal digits.
    pub(crate) fn from_csn_bits(bits: u16) -> ServerId {
        debug_assert!((1..=ServerId::MAX).contains(&bits));
        ServerId(bits)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for ServerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<ServerId, IdError> {
        ServerId::new(text.parse().map_err(|_| IdError::ServerId(0))?)
    }
}

/// An entry's entryUUID (RFC 4530): its identity, whatever its DN becomes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryUuid([u8; 16]);

impl EntryUuid {
    const TEXT_LEN: usize = 36;
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];

    /// Reads the hyphenated form; upper and lower case are the same.
    ///
    /// # Errors
    /// [`IdError::EntryUuid`] for any other form.
    pub fn parse(text: &[u8]) -> Result<EntryUuid, IdError> {
        if text.len() != EntryUuid::TEXT_LEN {
            return Err(IdError::EntryUuid);
        }
        let mut bits: u128 = 0;
        for (offset, byte) in text.iter().enumerate() {
            if EntryUuid::HYPHENS.contains(&offset) {
                if *byte != b'-' {
                    return Err(IdError::EntryUuid);
                }
                continue;
            }
            let digit = (*byte as char).to_digit(16).ok_or(IdError::EntryUuid)?;
            bits = (bits << 4) | u128::from(digit);
        }
        Ok(EntryUuid(bits.to_be_bytes()))
    }

    /// The identity that [`as_bytes`](Self::as_bytes) gave.
    pub fn from_bytes(bytes: [u8; 16]) -> EntryUuid {
        EntryUuid(bytes)
    }

    /// The 16 bytes, as RFC 4122 orders them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for EntryUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EntryUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for EntryUuid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<EntryUuid, IdError> {
        EntryUuid::parse(text.as_bytes())
    }
}

/// One run of one replica. A stream's sequence numbers start at 1 in every boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(u64);

impl BootId {
    /// `bits` comes from the shell's source of randomness.
    pub fn new(bits: u64) -> BootId {
        BootId(bits)
    }

    /// The 64 bits.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Another one, for a stream that has to begin anew within one run.
    pub fn next(self) -> BootId {
        BootId(self.0.wrapping_add(1))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for BootId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<BootId, IdError> {
        // from_str_radix takes a sign, and would let two spellings of one id through.
        if text.len() != 16 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(IdError::BootId);
        }
        u64::from_str_radix(text, 16).map(BootId).map_err(|_| IdError::BootId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_is_between_1_and_4095() {
        assert_eq!(ServerId::new(0), Err(IdError::ServerId(0)));
        assert_eq!(ServerId::new(4095).unwrap().get(), 4095);
        assert_eq!(ServerId::new(4096), Err(IdError::ServerId(4096)));
    }

    #[test]
    fn an_entry_uuid_is_one_whatever_its_case() {
        let lower: EntryUuid = "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d".parse().unwrap();
        assert_eq!("0F2B1C3D-4E5F-1A6B-8C7D-9E0F1A2B3C4D".parse(), Ok(lower));
        assert_eq!(lower.to_string(), "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d");
        assert_eq!("0f2b1c3d4e5f1a6b8c7d9e0f1a2b3c4d----".parse::<EntryUuid>(), Err(IdError::EntryUuid));
    }

    #[test]
    fn a_boot_id_has_one_spelling() {
        assert_eq!("00000000000000ff".parse(), Ok(BootId::new(255)));
        assert_eq!("+0000000000000ff".parse::<BootId>(), Err(IdError::BootId));
    }
}

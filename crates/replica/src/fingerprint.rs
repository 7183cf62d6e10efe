//! Whether two replicas have an entry alike, byte for byte, told by a few bytes.

use crate::EntryUuid;
use crate::merge::Attributes;
use sha2::{Digest, Sha256};

/// Of an entry's place and all its replicated attributes. The same whatever the order of attributes and values, and whatever an entry
/// further above is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; Fingerprint::BYTES]);

impl Fingerprint {
    /// Its length.
    pub const BYTES: usize = 16;

    /// `parent`: `None` for the suffix entry.
    pub fn new(parent: Option<EntryUuid>, rdn: &str, attributes: &Attributes) -> Fingerprint {
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        put(parent.as_ref().map_or(&[], |parent| parent.as_bytes()));
        put(rdn.as_bytes());
        let mut sorted: Vec<(String, Vec<&[u8]>)> = attributes
            .iter()
            .map(|(name, values)| (name.to_ascii_lowercase(), values.iter().map(Vec::as_slice).collect()))
            .collect();
        sorted.sort();
        for (name, mut values) in sorted {
            values.sort_unstable();
            put(name.as_bytes());
            put(&(values.len() as u64).to_le_bytes());
            values.into_iter().for_each(&mut put);
        }
        let mut bytes = [0; Fingerprint::BYTES];
        bytes.copy_from_slice(&hash.finalize()[..Fingerprint::BYTES]);
        Fingerprint(bytes)
    }

    /// One that was kept.
    pub fn from_bytes(bytes: [u8; Fingerprint::BYTES]) -> Fingerprint {
        Fingerprint(bytes)
    }

    /// To be kept.
    pub fn as_bytes(&self) -> &[u8; Fingerprint::BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(parent: u8, rdn: &str, attributes: &[(&str, &[&str])]) -> Fingerprint {
        let values = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let attributes = attributes.iter().map(|(name, all)| ((*name).to_owned(), values(all))).collect();
        Fingerprint::new(Some(EntryUuid::from_bytes([parent; 16])), rdn, &attributes)
    }

    #[test]
    fn neither_the_order_of_attributes_nor_that_of_values_matters() {
        let one = print(1, "cn=a", &[("cn", &["a"]), ("mail", &["x", "y"])]);
        assert_eq!(one, print(1, "cn=a", &[("Mail", &["y", "x"]), ("cn", &["a"])]));
    }

    #[test]
    fn place_name_and_every_byte_of_the_values_matter() {
        let one = print(1, "cn=a", &[("cn", &["a"]), ("mail", &["x", "y"])]);
        for other in [
            print(2, "cn=a", &[("cn", &["a"]), ("mail", &["x", "y"])]),
            print(1, "cn=A", &[("cn", &["a"]), ("mail", &["x", "y"])]),
            print(1, "cn=a", &[("cn", &["A"]), ("mail", &["x", "y"])]),
            print(1, "cn=a", &[("cn", &["a"]), ("mail", &["xy"])]),
            print(1, "cn=a", &[("cn", &["a", "mail"]), ("x", &["y"])]),
        ] {
            assert_ne!(one, other);
        }
    }
}

//! Names of entries (RFC 4514), as far as the rules look into them.

use crate::EntryUuid;
use std::borrow::Cow;

const ENTRY_UUID: &str = "entryUUID";

/// The RDN and the parent's DN.
pub fn split(dn: &str) -> (&str, &str) {
    match cut(dn, ',') {
        Some(at) => (&dn[..at], &dn[at + 1..]),
        None => (dn, ""),
    }
}

/// The RDN that the entry with this DN is meant to have.
pub fn rdn(dn: &str) -> Cow<'_, str> {
    intended(split(dn).0)
}

/// The attributes of an RDN with their values. What cannot be read is left out.
pub fn avas(rdn: &str) -> Vec<(String, Vec<u8>)> {
    parts(rdn)
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unescape(value)))
        .collect()
}

/// The RDN of an entry that cannot have the name it is meant to have.
pub fn displaced(uuid: EntryUuid, rdn: &str) -> String {
    format!("{ENTRY_UUID}={uuid}+{rdn}")
}

/// Whether [`displaced`] made the RDN.
pub fn is_displaced(rdn: &str) -> bool {
    let mut count = 0;
    let mut found = false;
    for part in parts(rdn) {
        count += 1;
        found |= is_entry_uuid(part);
    }
    found && count > 1
}

/// The RDN that a [`displaced`] one stands for; any other as it is.
pub fn intended(rdn: &str) -> Cow<'_, str> {
    if !is_displaced(rdn) {
        return Cow::Borrowed(rdn);
    }
    let kept: Vec<&str> = parts(rdn).filter(|part| !is_entry_uuid(part)).collect();
    Cow::Owned(kept.join("+"))
}

/// The RDN that a rename is meant to give, if it is meant to give another one: a move repeats the RDN as it was.
pub(crate) fn new_rdn<'a>(dn: &str, newrdn: &'a str) -> Option<Cow<'a, str>> {
    let new = intended(newrdn);
    (rdn(dn) != new).then_some(new)
}

fn is_entry_uuid(part: &str) -> bool {
    part.split_once('=').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case(ENTRY_UUID))
}

fn parts(rdn: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(rdn);
    std::iter::from_fn(move || {
        let all = rest.take()?;
        match cut(all, '+') {
            Some(at) => {
                rest = Some(&all[at + 1..]);
                Some(&all[..at])
            }
            None => Some(all),
        }
    })
}

/// The first separator that is not escaped.
fn cut(text: &str, separator: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == separator => return Some(at),
            _ => {}
        }
    }
    None
}

/// The value that its text in a DN stands for.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    if let Some(hex) = bytes.strip_prefix(b"#")
        && let Some(value) = from_ber(hex)
    {
        return value;
    }
    let mut value = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1), bytes.get(at + 2)) {
            (b'\\', Some(high), Some(low)) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                value.push(digit(*high) << 4 | digit(*low));
                at += 3;
            }
            (b'\\', Some(letter), _) => {
                value.push(*letter);
                at += 2;
            }
            (letter, _, _) => {
                value.push(letter);
                at += 1;
            }
        }
    }
    value
}

/// The content of a BER value of less than 128 bytes, in hex.
fn from_ber(hex: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_chunks::<2>();
    if !rest.is_empty() || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect();
    let (_, length, content) = (bytes.first()?, *bytes.get(1)?, bytes.get(2..)?);
    (usize::from(length) == content.len()).then(|| content.to_vec())
}

fn digit(letter: u8) -> u8 {
    match letter {
        b'0'..=b'9' => letter - b'0',
        _ => (letter | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::uuid;

    #[test]
    fn separators_that_are_escaped_are_part_of_the_value() {
        assert_eq!(split(r"cn=Doe\, John,dc=x"), (r"cn=Doe\, John", "dc=x"));
        assert_eq!(split("dc=x"), ("dc=x", ""));
        let expected = vec![("cn".to_owned(), b"a+b".to_vec()), ("sn".to_owned(), "Ä ".as_bytes().to_vec())];
        assert_eq!(avas(r"cn=a\+b+sn=\C3\84\20"), expected);
        assert_eq!(avas("cn=#04024869"), [("cn".to_owned(), b"Hi".to_vec())]);
    }

    #[test]
    fn a_displaced_name_tells_the_one_that_was_meant() {
        let name = displaced(uuid(1), r"cn=a\+b+sn=c");
        assert!(is_displaced(&name));
        assert_eq!(intended(&name), r"cn=a\+b+sn=c");
        let sorted = format!("cn=a+entryUUID={}", uuid(1));
        assert_eq!(intended(&sorted), "cn=a");
        assert!(!is_displaced(&format!("entryUUID={}", uuid(1))) && !is_displaced("cn=a"));
    }
}

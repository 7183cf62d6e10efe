//! How a value stands in XML: as itself where every parser and server on the way passes it on byte
//! for byte, as base64 otherwise. The rule is LDIF's (RFC 2849, SAFE-STRING), widened to UTF-8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// ` b64='true'`
const MARK_BYTES: usize = 11;

/// The value as text, if it survives the way.
///
/// Not plain are: what is not UTF-8; control characters, because parsers turn CR into LF and every
/// white space in attributes into a space, and refuse most others; the non-characters, U+FFFE and
/// U+FFFF being illegal in XML; the line ends of XML 1.1 and Unicode; and a space at either end,
/// which is lost where text is trimmed, and on an admin's eye.
pub(crate) fn plain(value: &[u8]) -> Option<&str> {
    if value.first() == Some(&b' ') || value.last() == Some(&b' ') {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    // Nearly every value is ASCII, for which no characters need to be decoded.
    let printable = value.iter().all(is_printable);
    (printable || text.chars().all(is_plain)).then_some(text)
}

/// ASCII without control characters.
pub(crate) fn is_printable(byte: &u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

fn is_plain(character: char) -> bool {
    let code = u32::from(character);
    let noncharacter = code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code);
    !character.is_control() && !noncharacter && !matches!(character, '\u{2028}' | '\u{2029}')
}

/// Writes a value by the rule; the flag says whether it is base64.
pub(crate) fn encode(value: &[u8]) -> (bool, String) {
    match plain(value) {
        Some(text) => (false, text.to_owned()),
        None => (true, STANDARD.encode(value)),
    }
}

/// Bytes that are none of a person's business.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads a value. Plain text is taken as it came, whether or not this side would have written it so.
pub(crate) fn decode(base64: bool, text: String) -> Option<Vec<u8>> {
    if base64 { STANDARD.decode(text).ok() } else { Some(text.into_bytes()) }
}

/// What [`encode`] makes of a value, in bytes on the wire, the flag included.
pub(crate) fn encoded_len(value: &[u8]) -> usize {
    match plain(value) {
        Some(text) => escaped_len(text),
        None => value.len().div_ceil(3) * 4 + MARK_BYTES,
    }
}

/// The text in bytes after the most generous escaping: ejabberd escapes quotes in text too.
pub(crate) fn escaped_len(text: &str) -> usize {
    text.bytes().map(escaped_byte_len).sum()
}

pub(crate) fn escaped_byte_len(byte: u8) -> usize {
    match byte {
        b'<' | b'>' => "&lt;".len(),
        b'&' => "&amp;".len(),
        b'\'' | b'"' => "&quot;".len(),
        _ => 1,
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(HEX[usize::from(digit)])).collect()
}

/// Lower case alone, so that one hash has one spelling.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: &u8| HEX.iter().position(|known| known == byte).map(|value| value as u8);
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(&digits[0])? << 4 | digit(&digits[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parser_or_server_might_change_is_base64() {
        let unclean: [&[u8]; 16] = [
            b" lead",
            b"trail ",
            b" ",
            b"tab\tbed",
            b"line\nfeed",
            b"carriage\rreturn",
            b"nul\0",
            b"\x7f",
            b"\xff",
            "nel\u{85}".as_bytes(),
            "ls\u{2028}".as_bytes(),
            "ps\u{2029}".as_bytes(),
            "\u{fffe}".as_bytes(),
            "\u{ffff}".as_bytes(),
            "\u{fdd0}".as_bytes(),
            b"\xed\xa0\x80",
        ];
        for value in unclean {
            let (base64, text) = encode(value);
            assert!(base64, "{value:?} went out as text");
            assert_eq!(decode(base64, text).as_deref(), Some(value));
        }
    }

    #[test]
    fn what_survives_stays_readable() {
        for text in
            ["", "a b", "<&>'\"", "]]>", "Zoë Müller", "日本語", "👩‍🚀", "e\u{301}", "\u{feff}x", "\u{a0}"]
        {
            assert_eq!(encode(text.as_bytes()), (false, text.to_owned()));
        }
    }
}

//! As much of BER as the operations of a benchmark need.

/// An element: tag, length, content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 6);
    bytes.push(tag);
    match content.len() {
        length @ 0..128 => bytes.push(length as u8),
        length => {
            let length = length.to_be_bytes();
            let zeros = length.iter().take_while(|byte| **byte == 0).count();
            bytes.push(0x80 | (length.len() - zeros) as u8);
            bytes.extend(&length[zeros..]);
        }
    }
    bytes.extend(content);
    bytes
}

/// An element that holds others.
pub(super) fn constructed<const N: usize>(tag: u8, parts: [Vec<u8>; N]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// A number that is not negative, as INTEGER or ENUMERATED.
pub(super) fn number(tag: u8, value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    // The first bit is the sign.
    let content = match bytes.get(zeros) {
        Some(first) if *first < 0x80 => bytes[zeros..].to_vec(),
        _ => [&[0], &bytes[zeros..]].concat(),
    };
    element(tag, &content)
}

/// The value of such a number.
pub(super) fn value(content: &[u8]) -> u32 {
    content.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The first element: tag, content, and what follows it. `None` while it is not complete.
pub(super) fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (length, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// All elements in a row.
pub(super) fn elements(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (tag, content, following) = split(rest)?;
        rest = following;
        Some((tag, content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_as_they_were_written() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let mut bytes = element(4, &content);
            bytes.push(9);
            assert_eq!(split(&bytes), Some((4, content.as_slice(), [9].as_slice())));
            assert_eq!(split(&bytes[..bytes.len() - 2]), None, "{length} bytes, one is missing");
        }
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be_and_never_negative() {
        assert_eq!(number(2, 0), [2, 1, 0]);
        assert_eq!(number(2, 127), [2, 1, 127]);
        assert_eq!(number(2, 128), [2, 2, 0, 128]);
        assert_eq!(number(2, 0x0102_0304), [2, 4, 1, 2, 3, 4]);
        assert_eq!(value(&[0, 128]), 128);
    }
}

//! What comes with files: frames and messages of SOCKS5.

use crate::transfer::{Opener, Read, Sealer, socks};

/// Bytes of a peer as frames, in pieces; a frame that nobody sealed must not open.
pub fn frames(bytes: &[u8], piece: usize) {
    let mut opener = Opener::new(&[7; 32]);
    for bytes in bytes.chunks(piece.max(1)) {
        opener.buffer().extend_from_slice(bytes);
        loop {
            match opener.open() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Any content, sealed in frames of any length, comes out as it went in, in pieces of any length.
///
/// # Panics
/// When it does not.
pub fn sealed(content: &[u8], frame: usize, piece: usize) {
    let (mut sealer, mut opener) = (Sealer::new(&[7; 32]), Opener::new(&[7; 32]));
    let parts: Vec<&[u8]> = content.chunks(frame.clamp(1, crate::limits::FRAME_BYTES_MAX)).collect();
    let sealed: Result<Vec<_>, _> = (0..parts.len().max(1))
        .map(|n| sealer.seal(parts.get(n).copied().unwrap_or_default(), n + 1 >= parts.len()))
        .collect();
    let mut opened = Vec::new();
    for bytes in sealed.unwrap_or_default().concat().chunks(piece.max(1)) {
        opener.buffer().extend_from_slice(bytes);
        while let Ok(Some(part)) = opener.open() {
            opened.extend_from_slice(&part);
        }
    }
    assert!(opener.has_ended() && opened == content, "the frames hold something else");
}

/// Bytes of whoever connects to the port of a transfer, as each message of SOCKS5: what is asked for next never runs
/// past a message, and is never nothing.
///
/// # Panics
/// When it is.
pub fn socks(bytes: &[u8]) {
    let more = |length: usize, read: Result<Read<()>, socks::SocksError>| {
        if let Ok(Read::More(count)) = read {
            assert!(count > 0 && length + count <= 512, "a message of {length} and {count} bytes");
        }
    };
    for end in 0..=bytes.len().min(600) {
        let part = bytes.get(..end).unwrap_or_default();
        more(end, socks::read_greeting(part));
        more(end, socks::read_choice(part));
        more(end, socks::read_reply(part));
        if let Ok(Read::Done(destination)) = socks::read_request(part) {
            assert!(destination.len() <= 255);
        }
    }
}

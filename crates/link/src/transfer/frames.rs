//! The bytes of a file on a transport: encrypted, authenticated, and with an end that cannot be cut off.
//!
//! A frame is four bytes, big-endian, and a ciphertext: bit 31 marks the last frame, the rest is the length of the
//! ciphertext. The frames are a STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) of ChaCha20-Poly1305: the nonce
//! is the number of the frame and whether it is the last, so that frames cannot be left out, repeated, exchanged
//! or cut off. The key is drawn for each session; a nonce is never used twice.

use aead_stream::{Nonce, StreamBE32, StreamPrimitive};
use bytes::{Buf, Bytes, BytesMut};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use crate::limits::FRAME_BYTES_MAX;

/// The key of a session.
pub(crate) type Key = [u8; 32];

type Cipher = StreamBE32<ChaCha20Poly1305>;

const HEADER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
const LAST: u32 = 1 << 31;

/// What a frame adds to the bytes in it.
pub(crate) const FRAME_OVERHEAD: usize = HEADER_BYTES + TAG_BYTES;

/// Why bytes are no frames of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is too short or too long")]
    Length,
    #[error("a frame was not made with the key of this session, or was altered")]
    Forged,
    #[error("bytes follow the last frame")]
    Trailing,
}

/// Makes frames.
pub(crate) struct Sealer {
    cipher: Cipher,
    position: u32,
}

impl Sealer {
    pub(crate) fn new(key: &Key) -> Self {
        Self { cipher: cipher(key), position: 0 }
    }

    /// The next frame, of at most [`FRAME_BYTES_MAX`] bytes; none may follow the last.
    pub(crate) fn seal(&mut self, bytes: &[u8], last: bool) -> Result<Bytes, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Length);
        }
        let header = header(bytes.len() + TAG_BYTES, last)?;
        let mut sealed = Vec::with_capacity(bytes.len() + TAG_BYTES);
        sealed.extend_from_slice(bytes);
        let position = self.position;
        let sealing = self.cipher.encrypt_in_place(position, last, &header, &mut sealed);
        sealing.map_err(|_| FrameError::Length)?;
        self.position = position.checked_add(1).ok_or(FrameError::Length)?;
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + sealed.len());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&sealed);
        Ok(frame.freeze())
    }
}

/// Takes frames apart, whatever the pieces in which they come.
pub(crate) struct Opener {
    cipher: Cipher,
    position: u32,
    buffer: BytesMut,
    ended: bool,
}

impl Opener {
    pub(crate) fn new(key: &Key) -> Self {
        Self { cipher: cipher(key), position: 0, buffer: BytesMut::new(), ended: false }
    }

    /// The place for bytes that come. What is in it is bounded if [`Self::open`] is called until it has nothing.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether the last frame was opened.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The content of the next frame; `None` when it is not there yet.
    pub(crate) fn open(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.ended {
            return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Trailing) };
        }
        let Some(&header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = u32::from_be_bytes(header);
        let last = word & LAST != 0;
        let length = usize::try_from(word & !LAST).map_err(|_| FrameError::Length)?;
        if !(TAG_BYTES..=FRAME_BYTES_MAX + TAG_BYTES).contains(&length) {
            return Err(FrameError::Length);
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let mut opened = Vec::from(&self.buffer.split_to(length)[..]);
        let opening = self.cipher.decrypt_in_place(self.position, last, &header, &mut opened);
        opening.map_err(|_| FrameError::Forged)?;
        self.position = self.position.checked_add(1).ok_or(FrameError::Length)?;
        self.ended = last;
        Ok(Some(opened.into()))
    }
}

fn cipher(key: &Key) -> Cipher {
    // The constant part of the nonces: the key is new in each session.
    let nonce = Nonce::<ChaCha20Poly1305, Cipher>::default();
    aead_stream::NewStream::from_aead(ChaCha20Poly1305::new(&(*key).into()), &nonce)
}

fn header(length: usize, last: bool) -> Result<[u8; HEADER_BYTES], FrameError> {
    let length = u32::try_from(length).map_err(|_| FrameError::Length)?;
    Ok((length | if last { LAST } else { 0 }).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn sealed(parts: &[&[u8]]) -> Vec<Bytes> {
        let mut sealer = Sealer::new(&KEY);
        let last = parts.len() - 1;
        parts.iter().enumerate().map(|(n, part)| sealer.seal(part, n == last).unwrap()).collect()
    }

    /// Everything in `bytes`, and whether the end was there.
    fn opened(key: &Key, bytes: &[u8]) -> Result<(Vec<u8>, bool), FrameError> {
        let mut opener = Opener::new(key);
        opener.buffer().extend_from_slice(bytes);
        let mut all = Vec::new();
        while let Some(part) = opener.open()? {
            all.extend_from_slice(&part);
        }
        Ok((all, opener.has_ended()))
    }

    #[test]
    fn frames_make_a_round_trip_in_pieces_of_any_size() {
        let big = vec![9; FRAME_BYTES_MAX];
        let all = sealed(&[b"one", b"", &big, b"two"]).concat();
        for piece in [1, 3, 1000, all.len()] {
            let mut opener = Opener::new(&KEY);
            let mut got = Vec::new();
            for bytes in all.chunks(piece) {
                opener.buffer().extend_from_slice(bytes);
                while let Some(part) = opener.open().unwrap() {
                    got.extend_from_slice(&part);
                }
            }
            assert!(opener.has_ended());
            assert_eq!(got, [b"one".as_slice(), &big, b"two"].concat());
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        assert_eq!(opened(&[8; 32], &sealed(&[b"one"]).concat()), Err(FrameError::Forged));
    }

    #[test]
    fn a_stream_that_is_cut_off_has_no_end() {
        let frames = sealed(&[b"one", b"two", b"three"]);
        assert_eq!(opened(&KEY, &frames[..2].concat()), Ok((b"onetwo".to_vec(), false)));
        let mut cut = frames.concat();
        cut.pop();
        assert_eq!(opened(&KEY, &cut), Ok((b"onetwo".to_vec(), false)));
    }

    #[test]
    fn altered_missing_repeated_and_exchanged_frames_are_refused() {
        let frames = sealed(&[b"one", b"two", b"end"]);
        let [a, b, end] = [&frames[0], &frames[1], &frames[2]].map(|frame| frame.to_vec());
        let mut altered = a.clone();
        altered[6] ^= 1;
        // A frame in the middle that says it is the last, and the last one that says it is not.
        let (mut early, mut late) = (b.clone(), end.clone());
        early[0] ^= 0x80;
        late[0] ^= 0x80;
        for stream in [
            [altered, b.clone(), end.clone()].concat(),
            [b.clone(), end.clone()].concat(),
            [a.clone(), a.clone(), b.clone(), end.clone()].concat(),
            [b.clone(), a.clone(), end.clone()].concat(),
            [a.clone(), early].concat(),
            [a.clone(), b.clone(), late].concat(),
        ] {
            assert_eq!(opened(&KEY, &stream), Err(FrameError::Forged));
        }
        assert_eq!(opened(&KEY, &[a, b, end, vec![0]].concat()), Err(FrameError::Trailing));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_spent() {
        for word in [0u32, 15, 70_000, u32::MAX >> 1] {
            assert_eq!(opened(&KEY, &word.to_be_bytes()), Err(FrameError::Length));
        }
        assert_eq!(Sealer::new(&KEY).seal(&vec![0; FRAME_BYTES_MAX + 1], true), Err(FrameError::Length));
    }
}

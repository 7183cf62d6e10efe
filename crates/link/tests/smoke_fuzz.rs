//! A short version of the fuzz targets, with the same bytes in every run.

use xmppsync_link::fuzzing;

/// Evenly distributed bits, from a seed (xorshift).
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, below: u64) -> Vec<u8> {
        let length = self.next() % below;
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn frames_of_anything_do_no_harm_and_content_makes_a_round_trip() {
    let mut bits = Bits(0x2026_1122);
    for _ in 0..300 {
        let (bytes, frame, piece) = (bits.bytes(3_000), bits.next() % 500, bits.next() % 700);
        fuzzing::frames(&bytes, piece as usize);
        // Most random headers are refused at once; one of a likely length is not.
        fuzzing::frames(&[&[0, 0, 1, 0], bytes.as_slice()].concat(), piece as usize);
        fuzzing::sealed(&bytes, frame as usize, piece as usize);
    }
}

#[test]
fn socks_messages_of_anything_do_no_harm() {
    let mut bits = Bits(0x2026_1122);
    for _ in 0..2_000 {
        let mut bytes = bits.bytes(300);
        fuzzing::socks(&bytes);
        // Behind the right beginning.
        for begin in [[5, 1, 0, 3], [5, 0, 0, 1], [5, 1, 0, 4]] {
            bytes.splice(0..bytes.len().min(4), begin);
            fuzzing::socks(&bytes);
        }
    }
}

//! In-band bytestreams (XEP-0047, XEP-0261): blocks in IQs, several of them without an answer.

use std::collections::VecDeque;

use bytes::Bytes;
use xmpp_parsers::ibb;

use crate::limits::{IBB_BLOCK_BYTES, IBB_BLOCK_BYTES_MIN, IBB_WINDOW, TRANSFER_HELD_TIMEOUT};
use crate::transfer::offer::TransferError;
use crate::transfer::port::{Answer, Port};

/// The sending end.
pub(crate) struct Writer {
    port: Port,
    block_bytes: usize,
    seq: u16,
    /// Answers on their way, the oldest first.
    answers: VecDeque<Answer>,
}

impl Writer {
    /// Opens the stream with blocks of at most `block_bytes`.
    pub(crate) async fn open(port: Port, block_bytes: usize) -> Result<Self, TransferError> {
        let sid = ibb::StreamId(port.sid.clone());
        let block_size = u16::try_from(block_bytes).unwrap_or(u16::MAX);
        port.set(ibb::Open { block_size, sid, stanza: ibb::Stanza::Iq }).await?;
        Ok(Self { port, block_bytes, seq: 0, answers: VecDeque::new() })
    }

    /// Sends bytes; waits while the receiver has a window of blocks to take.
    pub(crate) async fn write(&mut self, bytes: &Bytes) -> Result<(), TransferError> {
        for block in bytes.chunks(self.block_bytes) {
            while self.answers.len() >= IBB_WINDOW {
                self.oldest().await?;
            }
            let sid = ibb::StreamId(self.port.sid.clone());
            let data = ibb::Data { seq: self.seq, sid, data: block.to_vec() };
            self.seq = self.seq.wrapping_add(1);
            let to = self.port.peer.clone().into();
            self.answers.push_back(self.port.ask(to, true, data.into(), TRANSFER_HELD_TIMEOUT).await?);
        }
        Ok(())
    }

    /// Waits until the receiver has taken everything, and closes.
    pub(crate) async fn close(&mut self) -> Result<(), TransferError> {
        while !self.answers.is_empty() {
            self.oldest().await?;
        }
        self.port.set(ibb::Close { sid: ibb::StreamId(self.port.sid.clone()) }).await
    }

    async fn oldest(&mut self) -> Result<(), TransferError> {
        let Some(answer) = self.answers.front_mut() else { return Ok(()) };
        let result = answer.wait().await;
        self.answers.pop_front();
        result.map(drop).map_err(|error| match error {
            TransferError::NoAnswer => TransferError::Held,
            other => other,
        })
    }
}

/// The receiving end: the order of the blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    next: u16,
    block_bytes: usize,
}

impl Blocks {
    pub(crate) fn new(block_bytes: usize) -> Self {
        Self { next: 0, block_bytes }
    }

    /// The bytes of the next block.
    pub(crate) fn take(&mut self, block: ibb::Data) -> Result<Vec<u8>, TransferError> {
        if block.seq != self.next {
            return Err(TransferError::Protocol { what: "a block out of order" });
        }
        if block.data.len() > self.block_bytes {
            return Err(TransferError::Protocol { what: "a block larger than agreed upon" });
        }
        self.next = self.next.wrapping_add(1);
        Ok(block.data)
    }
}

/// The size of blocks on which both sides agree; an error when the other side wants none that is reasonable.
pub(crate) fn agree(theirs: u16) -> Result<usize, TransferError> {
    match usize::from(theirs) {
        bytes if bytes < IBB_BLOCK_BYTES_MIN => Err(TransferError::Protocol { what: "blocks too small" }),
        bytes => Ok(bytes.min(IBB_BLOCK_BYTES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(seq: u16, bytes: usize) -> ibb::Data {
        ibb::Data { seq, sid: ibb::StreamId("s".into()), data: vec![0; bytes] }
    }

    #[test]
    fn blocks_count_around_and_a_hole_is_an_error() {
        let mut blocks = Blocks::new(10);
        for n in 0..70_000u32 {
            assert!(blocks.take(block(n as u16, 1)).is_ok());
        }
        let next = 70_000u32 as u16;
        assert!(blocks.take(block(next + 1, 1)).is_err());
        assert!(blocks.take(block(next, 11)).is_err());
        assert!(blocks.take(block(next, 10)).is_ok());
    }

    #[test]
    fn the_smaller_block_wins_within_reason() {
        assert_eq!(agree(4096), Ok(4096));
        assert_eq!(agree(u16::MAX), Ok(IBB_BLOCK_BYTES));
        assert!(agree(0).is_err() && agree(16).is_err());
    }
}

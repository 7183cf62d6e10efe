//! From the file to frames, on a thread of its own: the runtime waits for no disk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::limits::FRAMES_AHEAD_MAX;
use crate::transfer::frames::{Key, Sealer};
use crate::transfer::offer::TransferError;

/// What is to be sent.
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) from_byte: u64,
    /// Bytes from there on.
    pub(crate) bytes: u64,
    pub(crate) key: Key,
    /// Bytes of the file in one frame.
    pub(crate) frame_bytes: usize,
}

impl Source {
    /// The frames of the file. Ends after an error, and when nobody takes them any more.
    pub(crate) fn frames(self) -> mpsc::Receiver<Result<Bytes, TransferError>> {
        let (sender, frames) = mpsc::channel(FRAMES_AHEAD_MAX);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.read(&sender) {
                // Nobody is there to hear it when the transfer has ended.
                let _: Result<(), _> = sender.blocking_send(Err(error));
            }
        });
        frames
    }

    fn read(mut self, frames: &mpsc::Sender<Result<Bytes, TransferError>>) -> Result<(), TransferError> {
        let failed = |error: std::io::Error| TransferError::File { reason: error.to_string() };
        self.file.seek(SeekFrom::Start(self.from_byte)).map_err(failed)?;
        let mut sealer = Sealer::new(&self.key);
        let mut buffer = vec![0; self.frame_bytes];
        let mut left = self.bytes;
        loop {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..length).unwrap_or_default();
            self.file.read_exact(part).map_err(failed)?;
            left -= length as u64;
            let sealed = sealer.seal(part, left == 0);
            let frame = sealed.map_err(|error| TransferError::File { reason: error.to_string() })?;
            if frames.blocking_send(Ok(frame)).is_err() || left == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::frames::Opener;
    use std::io::Write;

    async fn read(size: u64, bytes: u64, from_byte: u64) -> Result<(Vec<u8>, bool), TransferError> {
        let path = std::env::temp_dir().join(format!("xmppsync-source-{}", rand::random::<u64>()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&(0..size).map(|n| n as u8).collect::<Vec<_>>()).unwrap();
        let key = [1; 32];
        let mut frames = Source { file, from_byte, bytes, key, frame_bytes: 100 }.frames();
        let (mut opener, mut all) = (Opener::new(&key), Vec::new());
        while let Some(frame) = frames.recv().await {
            opener.buffer().extend_from_slice(&frame?);
            while let Some(part) = opener.open().unwrap() {
                all.extend_from_slice(&part);
            }
        }
        Ok((all, opener.has_ended()))
    }

    #[tokio::test]
    async fn a_file_is_read_from_a_byte_to_its_end() {
        for (size, from) in [(0, 0), (100, 0), (250, 0), (250, 99), (250, 250)] {
            let expected: Vec<u8> = (from..size).map(|n| n as u8).collect();
            assert_eq!(read(size, size - from, from).await, Ok((expected, true)));
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_has_no_end() {
        assert!(matches!(read(250, 300, 0).await, Err(TransferError::File { .. })));
    }
}

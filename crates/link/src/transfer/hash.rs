//! SHA-256 of a file that comes in pieces, over connections if need be.

use std::io::Read;

use sha2::{Digest, Sha256};

/// The SHA-256 of the first bytes of a file: taken along from one transfer to the next, so that the whole file is
/// verified although it came in several.
#[derive(Clone, Default)]
pub struct FileHash {
    state: Sha256,
    bytes: u64,
}

impl FileHash {
    /// The hash of nothing: a file from its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads everything that is there, such as what is left of an earlier transfer. Blocks.
    ///
    /// # Errors
    /// What the reader says.
    pub fn of(mut reader: impl Read) -> std::io::Result<Self> {
        let mut hash = Self::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hash),
                Ok(read) => hash.update(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes it is of.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The SHA-256 of these bytes.
    pub fn sha256(&self) -> [u8; 32] {
        self.state.clone().finalize().into()
    }
}

impl std::fmt::Debug for FileHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileHash").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_is_taken_along_is_that_of_the_whole() {
        let file: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut resumed = FileHash::of(&file[..40_000]).unwrap();
        assert_eq!(resumed.bytes(), 40_000);
        resumed.update(&file[40_000..]);
        assert_eq!(resumed.sha256(), FileHash::of(&file[..]).unwrap().sha256());
        assert_ne!(resumed.sha256(), FileHash::new().sha256());
    }
}

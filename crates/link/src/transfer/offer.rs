//! What the owner of a group sees of transfers.

use std::fmt;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::group::SendError;
use crate::limits::{
    CHUNKS_MAX, TRANSFER_ACCEPT_TIMEOUT, TRANSFER_HELD_TIMEOUT, TRANSFER_IDLE_TIMEOUT, TRANSFERS_OUT_MAX,
};
use crate::transfer::hash::FileHash;

/// A file that one member offers to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOffer {
    /// What the file is to the application, such as the id of the request that asked for it.
    pub id: String,
    /// A name for people and logs; never a path.
    pub name: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// SHA-256 of the whole file, also when only the rest of it travels.
    pub sha256: [u8; 32],
}

/// The way that the bytes took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection between the two (XEP-0260).
    Direct,
    /// TCP through the SOCKS5 proxy of a server (XEP-0065).
    Proxy,
    /// In stanzas (XEP-0047).
    InBand,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "a direct connection",
            Self::Proxy => "the SOCKS5 proxy",
            Self::InBand => "stanzas",
        })
    }
}

/// A file that arrived whole: the receiver said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the file that travelled; less than its size when the receiver had its beginning.
    pub bytes: u64,
    /// The way that they took.
    pub transport: Transport,
}

/// Why a transfer did not come to its end. What the receiver has taken is valid as far as it goes, and can be
/// completed by another transfer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The offer did not reach the session.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// The receiver of the offer is not listed.
    #[error("the receiver is no member of this group")]
    NotPeer,
    /// This group serves enough transfers already.
    #[error("this server sends {max} files to this group already", max = TRANSFERS_OUT_MAX)]
    TooMany,
    /// There is no connection to the XMPP server, or it was lost.
    #[error("no connection to the XMPP server")]
    Offline,
    /// The other side does not want the file.
    #[error("refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The other side ended the transfer.
    #[error("ended by the other side: {reason}")]
    Ended {
        /// What it said.
        reason: String,
    },
    /// The other side does not answer.
    #[error("no answer of the other side within {} s", TRANSFER_ACCEPT_TIMEOUT.as_secs())]
    NoAnswer,
    /// No byte came in time.
    #[error("nothing came for {} s", TRANSFER_IDLE_TIMEOUT.as_secs())]
    Idle,
    /// The receiver took nothing in time.
    #[error("the receiver took nothing for {} s", TRANSFER_HELD_TIMEOUT.as_secs())]
    Held,
    /// The owner of this side gave up: it dropped its handle.
    #[error("cancelled")]
    Cancelled,
    /// The bytes ended before the file.
    #[error("the transport broke before the end of the file")]
    Broken,
    /// The bytes are not those that the sender made.
    #[error("the bytes are not the sender's: {reason}")]
    Forged {
        /// What is wrong with them.
        reason: String,
    },
    /// More or fewer bytes than offered.
    #[error("the file has not the size that was offered")]
    WrongSize,
    /// Not the file that was offered.
    #[error("the file has not the SHA-256 that was offered")]
    WrongHash,
    /// The file cannot be read.
    #[error("the file cannot be read ({reason})")]
    File {
        /// What the system said.
        reason: String,
    },
    /// The other side breaks the protocol.
    #[error("the other side breaks the protocol: {what}")]
    Protocol {
        /// How.
        what: &'static str,
    },
}

/// A transfer on its way. Dropping it cancels the transfer.
#[derive(Debug)]
#[must_use = "dropping it cancels the transfer"]
pub struct OutgoingFile {
    pub(crate) done: oneshot::Receiver<Result<Sent, TransferError>>,
}

impl OutgoingFile {
    /// Waits until the receiver has the whole file, verified.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn done(self) -> Result<Sent, TransferError> {
        self.done.await.unwrap_or(Err(TransferError::Offline))
    }
}

/// What becomes of an offer.
#[derive(Debug)]
pub(crate) enum Decision {
    Accept { from_byte: u64, to: Delivery },
    Refuse { reason: String },
}

/// The task's end of a [`FileReader`].
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) chunks: mpsc::Sender<Result<Bytes, TransferError>>,
    /// What the reader says of the whole; an error when it is gone before the end.
    pub(crate) verdict: oneshot::Receiver<Result<(), TransferError>>,
}

/// A file that a peer offers. Dropping it refuses.
#[derive(Debug)]
pub struct IncomingFile {
    offer: FileOffer,
    decision: Option<oneshot::Sender<Decision>>,
}

impl IncomingFile {
    pub(crate) fn new(offer: FileOffer, decision: oneshot::Sender<Decision>) -> Self {
        Self { offer, decision: Some(decision) }
    }

    /// Takes the file behind what is there of it already: [`FileHash::new`] for the whole file. The bytes have
    /// to be taken from the reader; meanwhile the sender is held back.
    pub fn accept(mut self, so_far: FileHash) -> FileReader {
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        let (told, verdict) = oneshot::channel();
        let accept = Decision::Accept { from_byte: so_far.bytes(), to: Delivery { chunks, verdict } };
        self.decide(accept);
        FileReader { offer: self.offer.clone(), hash: so_far, chunks: receiver, verdict: Some(told) }
    }

    /// Refuses, with a reason that the sender reads.
    pub fn refuse(mut self, reason: &str) {
        self.decide(Decision::Refuse { reason: reason.to_owned() });
    }

    fn decide(&mut self, decision: Decision) {
        if let Some(sender) = self.decision.take() {
            // When the session has ended, a reader hears it from its channel.
            let _: Result<(), Decision> = sender.send(decision);
        }
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        self.decide(Decision::Refuse { reason: "nobody wants this file".to_owned() });
    }
}

/// The bytes of a file as they come, at most [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX) in a chunk and
/// [`CHUNKS_MAX`] chunks ahead. Dropping it before the end cancels the transfer.
#[derive(Debug)]
pub struct FileReader {
    offer: FileOffer,
    hash: FileHash,
    chunks: mpsc::Receiver<Result<Bytes, TransferError>>,
    verdict: Option<oneshot::Sender<Result<(), TransferError>>>,
}

impl FileReader {
    /// The next bytes; `None` after the last, when size and SHA-256 of the whole are those of the offer. After an
    /// error nothing more comes.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn chunk(&mut self) -> Option<Result<Bytes, TransferError>> {
        let next = self.chunks.recv().await;
        self.take(next)
    }

    /// The same, for a thread outside of the runtime.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub fn blocking_chunk(&mut self) -> Option<Result<Bytes, TransferError>> {
        let next = self.chunks.blocking_recv();
        self.take(next)
    }

    /// The hash of everything that was taken, with what was there before: for the next transfer if this one
    /// breaks.
    pub fn hash(&self) -> &FileHash {
        &self.hash
    }

    /// The offer.
    pub fn offer(&self) -> &FileOffer {
        &self.offer
    }

    fn take(&mut self, next: Option<Result<Bytes, TransferError>>) -> Option<Result<Bytes, TransferError>> {
        // An end was told already.
        self.verdict.as_ref()?;
        match next {
            // The task marks the end by an empty chunk; without it, it is gone.
            Some(Ok(bytes)) if bytes.is_empty() => {
                let verdict = self.verify();
                if let Some(told) = self.verdict.take() {
                    let _: Result<(), _> = told.send(verdict.clone());
                }
                verdict.err().map(Err)
            }
            Some(Ok(bytes)) => {
                self.hash.update(&bytes);
                Some(Ok(bytes))
            }
            Some(Err(error)) => {
                self.verdict = None;
                Some(Err(error))
            }
            None => self.verdict.take().map(|_| Err(TransferError::Offline)),
        }
    }

    fn verify(&self) -> Result<(), TransferError> {
        if self.hash.bytes() != self.offer.size {
            return Err(TransferError::WrongSize);
        }
        if self.hash.sha256() != self.offer.sha256 {
            return Err(TransferError::WrongHash);
        }
        Ok(())
    }
}

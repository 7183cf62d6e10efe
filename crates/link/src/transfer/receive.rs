//! The receiver of a file: the responder of the Jingle session.

use bytes::{BufMut, Bytes};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use xmpp_parsers::jingle::{Action, Reason};

use crate::limits::{FRAME_BYTES_MAX, TRANSFER_ACCEPT_TIMEOUT, TRANSFER_IDLE_TIMEOUT, TRANSFER_STEP_TIMEOUT};
use crate::transfer::elements::{Content, Jingle, describe_rest, in_band};
use crate::transfer::frames::{Key, Opener};
use crate::transfer::ibb::{self, Blocks};
use crate::transfer::meeting::{Means, Meeting};
use crate::transfer::offer::{Decision, Delivery, FileOffer, TransferError};
use crate::transfer::port::{End, FromPeer, Inbox, Port, farewell};

/// See the module's documentation.
pub(crate) struct Receiving {
    pub(crate) port: Port,
    pub(crate) inbox: Inbox,
    pub(crate) means: Means,
    pub(crate) offer: FileOffer,
    pub(crate) key: Key,
    /// What the peer offered, its transports in it.
    pub(crate) content: Content,
    pub(crate) decision: oneshot::Receiver<Decision>,
}

/// A transport that is ready.
enum Intake {
    Tcp(TcpStream),
    InBand(Blocks),
}

impl Receiving {
    /// Waits for the decision, and takes the file.
    pub(crate) async fn run(mut self) {
        match self.decided().await {
            None => {}
            Some(Decision::Refuse { reason }) => self.port.terminate(Reason::Decline, &reason).await,
            Some(Decision::Accept { from_byte, mut to }) => {
                let result = self.take(from_byte, &mut to).await;
                let (reason, text) = match &result {
                    Ok(()) => (Some(Reason::Success), String::new()),
                    Err(error) => (farewell(error), error.to_string()),
                };
                if let Some(reason) = reason {
                    self.port.terminate(reason, &text).await;
                }
                if let Err(error) = result {
                    // A reader that is gone does not want to hear it.
                    let _: Result<(), _> = to.chunks.send(Err(error)).await;
                }
            }
        }
    }

    /// `None` when the offer does not stand any more.
    async fn decided(&mut self) -> Option<Decision> {
        tokio::select! {
            decision = timeout(TRANSFER_ACCEPT_TIMEOUT, &mut self.decision) => {
                let late = || Decision::Refuse { reason: "no decision in time".to_owned() };
                Some(decision.ok().and_then(Result::ok).unwrap_or_else(late))
            }
            _ = self.inbox.end() => None,
        }
    }

    async fn take(&mut self, from_byte: u64, to: &mut Delivery) -> Result<(), TransferError> {
        let bytes = self.offer.size.checked_sub(from_byte).ok_or(TransferError::WrongSize)?;
        let mut intake = self.agree(from_byte).await?;
        self.pass_on(&mut intake, bytes, to).await?;
        // The empty chunk is the end; the reader says what it thinks of the whole.
        deliver(Bytes::new(), to).await?;
        (&mut to.verdict).await.unwrap_or(Err(TransferError::Cancelled))
    }

    /// Accepts, and agrees on a transport.
    async fn agree(&mut self, from_byte: u64) -> Result<Intake, TransferError> {
        let rest = describe_rest(&self.offer, from_byte);
        match (self.content.socks.take(), &self.content.ibb) {
            (Some(theirs), _) => {
                let meeting = Meeting::prepare(&self.port, &self.means).await;
                let ours = meeting.transport();
                let accept = |content: &mut Content| {
                    content.description = Some(rest);
                    content.socks = Some(ours);
                };
                self.port.step(Action::SessionAccept, accept).await?;
                match meeting.meet(false, &theirs, &mut self.inbox).await? {
                    Some((tcp, _)) => Ok(Intake::Tcp(tcp)),
                    None => self.fall_back().await,
                }
            }
            (None, Some(theirs)) => {
                let block_bytes = ibb::agree(theirs.block_size)?;
                let ours = in_band(&self.port.sid, block_bytes);
                let accept = |content: &mut Content| {
                    content.description = Some(rest);
                    content.ibb = Some(ours);
                };
                self.port.step(Action::SessionAccept, accept).await?;
                self.opened(block_bytes).await
            }
            (None, None) => Err(TransferError::Protocol { what: "no transport that this side knows" }),
        }
    }

    /// Waits until the peer offers stanzas instead.
    async fn fall_back(&mut self) -> Result<Intake, TransferError> {
        match self.inbox.step_in_time().await? {
            Jingle {
                action: Action::TransportReplace,
                content: Some(Content { ibb: Some(theirs), .. }),
                ..
            } => {
                let block_bytes = ibb::agree(theirs.block_size)?;
                let ours = in_band(&self.port.sid, block_bytes);
                self.port.step(Action::TransportAccept, |content| content.ibb = Some(ours)).await?;
                self.opened(block_bytes).await
            }
            _ => Err(TransferError::Protocol { what: "no other transport" }),
        }
    }

    /// Waits until the peer opens the in-band stream.
    async fn opened(&mut self, block_bytes: usize) -> Result<Intake, TransferError> {
        let next = timeout(TRANSFER_STEP_TIMEOUT, self.inbox.next()).await;
        match next.map_err(|_| TransferError::NoAnswer)?? {
            FromPeer::Open { id } => {
                self.port.confirm(id).await?;
                Ok(Intake::InBand(Blocks::new(block_bytes)))
            }
            _ => Err(TransferError::Protocol { what: "no in-band stream" }),
        }
    }

    /// Passes `bytes` bytes of the file on, up to the last frame.
    async fn pass_on(
        &mut self,
        intake: &mut Intake,
        mut bytes: u64,
        to: &mut Delivery,
    ) -> Result<(), TransferError> {
        let forged =
            |error: crate::transfer::frames::FrameError| TransferError::Forged { reason: error.to_string() };
        let mut opener = Opener::new(&self.key);
        while !opener.has_ended() {
            let taken = self.read(intake, &mut opener).await?;
            while let Some(part) = opener.open().map_err(forged)? {
                bytes = bytes.checked_sub(part.len() as u64).ok_or(TransferError::WrongSize)?;
                if !part.is_empty() {
                    deliver(part, to).await?;
                }
            }
            if let Some(id) = taken {
                self.port.confirm(id).await?;
            }
        }
        if bytes == 0 { Ok(()) } else { Err(TransferError::WrongSize) }
    }

    /// Reads what comes next; the id of what is to be confirmed when it is passed on.
    async fn read(
        &mut self,
        intake: &mut Intake,
        opener: &mut Opener,
    ) -> Result<Option<String>, TransferError> {
        match intake {
            Intake::Tcp(tcp) => {
                let buffer = opener.buffer();
                buffer.reserve(FRAME_BYTES_MAX);
                let mut room = buffer.limit(FRAME_BYTES_MAX);
                tokio::select! {
                    read = timeout(TRANSFER_IDLE_TIMEOUT, tcp.read_buf(&mut room)) => match read {
                        Err(_) => Err(TransferError::Idle),
                        Ok(Ok(0) | Err(_)) => Err(self.cause().await),
                        Ok(Ok(_)) => Ok(None),
                    },
                    end = self.inbox.end() => Err(end.into()),
                }
            }
            Intake::InBand(blocks) => {
                let next = timeout(TRANSFER_IDLE_TIMEOUT, self.inbox.next()).await;
                match next.map_err(|_| TransferError::Idle)?? {
                    FromPeer::Block { id, block } => {
                        opener.buffer().extend_from_slice(&blocks.take(block)?);
                        Ok(Some(id))
                    }
                    FromPeer::Close => Err(TransferError::Broken),
                    _ => Err(TransferError::Protocol { what: "not a block" }),
                }
            }
        }
    }

    /// Why the connection ended: the peer closes it before or after it says so.
    async fn cause(&mut self) -> TransferError {
        const SAID_SOON: std::time::Duration = std::time::Duration::from_millis(500);
        match timeout(SAID_SOON, self.inbox.end()).await {
            Ok(End::Failed(cause)) => cause,
            _ => TransferError::Broken,
        }
    }
}

/// Waits until the reader has room.
async fn deliver(chunk: Bytes, to: &Delivery) -> Result<(), TransferError> {
    to.chunks.send(Ok(chunk)).await.map_err(|_| TransferError::Cancelled)
}

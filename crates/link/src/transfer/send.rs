//! The sender of a file: the initiator of the Jingle session.

use std::fs::File;
use std::future::Future;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use xmpp_parsers::jid::BareJid;
use xmpp_parsers::jingle::Action;

use crate::limits::{FRAME_BYTES_MAX, IBB_BLOCK_BYTES, TRANSFER_ACCEPT_TIMEOUT, TRANSFER_HELD_TIMEOUT};
use crate::transfer::elements::{Content, Jingle, Transfer, describe, first_byte, in_band};
use crate::transfer::frames::{FRAME_OVERHEAD, Key};
use crate::transfer::ibb::{self, Writer};
use crate::transfer::meeting::{Means, Meeting};
use crate::transfer::offer::{FileOffer, Sent, TransferError, Transport};
use crate::transfer::port::{End, Inbox, Port, farewell};
use crate::transfer::source::Source;

/// See the module's documentation.
pub(crate) struct Sending {
    pub(crate) port: Port,
    pub(crate) inbox: Inbox,
    pub(crate) means: Means,
    pub(crate) room: BareJid,
    pub(crate) offer: FileOffer,
    pub(crate) key: Key,
    pub(crate) file: File,
    pub(crate) done: oneshot::Sender<Result<Sent, TransferError>>,
}

/// A transport that is ready.
enum Pipe {
    Tcp(TcpStream, Transport),
    InBand(Writer, usize),
}

impl Sending {
    /// Offers the file and serves it.
    pub(crate) async fn run(self) {
        let Self { port, inbox, means, room, offer, key, file, mut done } = self;
        let mut exchange = Exchange { port: port.clone(), inbox, means, room, offer, key };
        let result = tokio::select! {
            result = exchange.run(file) => result,
            () = done.closed() => Err(TransferError::Cancelled),
        };
        let told = result.as_ref().err().and_then(|error| Some((farewell(error)?, error.to_string())));
        // Nobody listens when it was cancelled.
        let _: Result<(), _> = done.send(result);
        if let Some((reason, text)) = told {
            port.terminate(reason, &text).await;
        }
    }
}

struct Exchange {
    port: Port,
    inbox: Inbox,
    means: Means,
    room: BareJid,
    offer: FileOffer,
    key: Key,
}

impl Exchange {
    async fn run(&mut self, file: File) -> Result<Sent, TransferError> {
        let config = self.means.config;
        let meeting = match config.direct || config.proxy {
            true => Some(Meeting::prepare(&self.port, &self.means).await),
            false => None,
        };
        self.initiate(meeting.as_ref()).await?;
        let accepted = self.accepted().await?;
        let from_byte = first_byte(&accepted, &self.offer)?;
        let pipe = self.agree(&accepted, meeting).await?;
        let sent = Sent { bytes: self.offer.size - from_byte, transport: pipe.transport() };
        let source =
            Source { file, from_byte, bytes: sent.bytes, key: self.key, frame_bytes: pipe.frame_bytes() };
        self.serve(pipe, source.frames()).await?;
        Ok(sent)
    }

    async fn initiate(&self, meeting: Option<&Meeting>) -> Result<(), TransferError> {
        let Self { port, offer, room, key, .. } = self;
        let mut jingle = Jingle::with_content(Action::SessionInitiate, &port.sid, |content| {
            content.description = Some(describe(offer));
            match meeting {
                Some(meeting) => content.socks = Some(meeting.transport()),
                None => content.ibb = Some(in_band(&port.sid, IBB_BLOCK_BYTES)),
            }
        });
        jingle.initiator = Some(port.own.clone().into());
        jingle.transfer = Some(Transfer { room: room.clone(), id: offer.id.clone(), key: key.to_vec() });
        port.set(jingle).await
    }

    /// Waits for the application of the peer.
    async fn accepted(&mut self) -> Result<Content, TransferError> {
        let step = timeout(TRANSFER_ACCEPT_TIMEOUT, self.inbox.step()).await;
        match step.unwrap_or(Err(TransferError::NoAnswer))? {
            Jingle { action: Action::SessionAccept, content: Some(content), .. } => Ok(content),
            _ => Err(TransferError::Protocol { what: "no answer to the offer" }),
        }
    }

    /// Makes the transport that was agreed upon, or falls back to stanzas.
    async fn agree(&mut self, accepted: &Content, meeting: Option<Meeting>) -> Result<Pipe, TransferError> {
        match (meeting, accepted) {
            (Some(meeting), Content { socks: Some(theirs), .. }) => {
                match meeting.meet(true, theirs, &mut self.inbox).await? {
                    Some((tcp, transport)) => Ok(Pipe::Tcp(tcp, transport)),
                    None => self.fall_back().await,
                }
            }
            (None, Content { ibb: Some(theirs), .. }) => self.in_band(theirs.block_size).await,
            _ => Err(TransferError::Protocol { what: "another transport than offered" }),
        }
    }

    async fn fall_back(&mut self) -> Result<Pipe, TransferError> {
        let sid = self.port.sid.clone();
        let offer = |content: &mut Content| content.ibb = Some(in_band(&sid, IBB_BLOCK_BYTES));
        self.port.step(Action::TransportReplace, offer).await?;
        match self.inbox.step_in_time().await? {
            Jingle {
                action: Action::TransportAccept,
                content: Some(Content { ibb: Some(theirs), .. }),
                ..
            } => self.in_band(theirs.block_size).await,
            _ => Err(TransferError::Protocol { what: "no answer to the other transport" }),
        }
    }

    async fn in_band(&mut self, block_bytes: u16) -> Result<Pipe, TransferError> {
        let block_bytes = ibb::agree(block_bytes)?;
        Ok(Pipe::InBand(Writer::open(self.port.clone(), block_bytes).await?, block_bytes))
    }

    /// Sends until the receiver says that it has the whole.
    async fn serve(
        &mut self,
        mut pipe: Pipe,
        mut frames: mpsc::Receiver<Result<Bytes, TransferError>>,
    ) -> Result<(), TransferError> {
        let sending = async {
            while let Some(frame) = frames.recv().await {
                pipe.write(&frame?).await?;
            }
            pipe.close().await
        };
        let ended = tokio::select! {
            // What the peer says of the end tells more than a broken pipe.
            biased;
            end = self.inbox.end() => end,
            sent = sending => match sent {
                Ok(()) => held(self.inbox.end()).await?,
                Err(error) => return Err(self.cause(error).await),
            },
        };
        match ended {
            End::Success => Ok(()),
            End::Failed(error) => Err(error),
        }
    }

    /// Why the pipe broke: the peer closes it before or after it says so.
    async fn cause(&mut self, error: TransferError) -> TransferError {
        const SAID_SOON: std::time::Duration = std::time::Duration::from_millis(500);
        match timeout(SAID_SOON, self.inbox.end()).await {
            Ok(End::Failed(cause)) => cause,
            _ => error,
        }
    }
}

impl Pipe {
    fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_, transport) => *transport,
            Self::InBand(..) => Transport::InBand,
        }
    }

    fn frame_bytes(&self) -> usize {
        match self {
            Self::Tcp(..) => FRAME_BYTES_MAX,
            // A frame fills a block.
            Self::InBand(_, block_bytes) => block_bytes - FRAME_OVERHEAD,
        }
    }

    async fn write(&mut self, frame: &Bytes) -> Result<(), TransferError> {
        match self {
            Self::Tcp(tcp, _) => held(tcp.write_all(frame)).await?.map_err(|_| TransferError::Broken),
            Self::InBand(writer, _) => writer.write(frame).await,
        }
    }

    /// All is written. A connection stays open until the receiver has said that it has everything: a proxy may
    /// forget what is in its buffers when one side closes.
    async fn close(&mut self) -> Result<(), TransferError> {
        match self {
            Self::Tcp(tcp, _) => tcp.flush().await.map_err(|_| TransferError::Broken),
            Self::InBand(writer, _) => writer.close().await,
        }
    }
}

/// Waits for the receiver, but not for ever.
async fn held<T>(what: impl Future<Output = T>) -> Result<T, TransferError> {
    timeout(TRANSFER_HELD_TIMEOUT, what).await.map_err(|_| TransferError::Held)
}

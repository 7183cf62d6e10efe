//! A transfer's way to the session and to its peer.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use xmpp_parsers::ibb;
use xmpp_parsers::jid::{FullJid, Jid};
use xmpp_parsers::jingle::{Action, Reason};
use xmpp_parsers::minidom::Element;

use crate::command::{Command, GroupId};
use crate::elements::error_words;
use crate::limits::{TRANSFER_REASON_MAX, TRANSFER_STEP_TIMEOUT};
use crate::out::{IqFailure, IqResult};
use crate::transfer::elements::{Content, Jingle};
use crate::transfer::offer::TransferError;

/// What the peer sends to a transfer.
#[derive(Debug)]
pub(crate) enum FromPeer {
    /// A step of the session; the session task has confirmed it.
    Jingle(Box<Jingle>),
    /// The peer opens the in-band stream; to be answered.
    Open { id: String },
    /// A block of it; to be answered when it is taken, which is how the sender is held back.
    Block { id: String, block: ibb::Data },
    /// The end of it; confirmed.
    Close,
}

/// The outgoing half.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) group: GroupId,
    pub(crate) own: FullJid,
    pub(crate) peer: FullJid,
    pub(crate) sid: String,
    // Weak: a transfer does not keep a session alive.
    pub(crate) commands: mpsc::WeakSender<Command>,
}

/// A question to somebody.
pub(crate) struct Ask {
    pub(crate) to: Jid,
    pub(crate) set: bool,
    pub(crate) payload: Element,
    pub(crate) timeout: Duration,
    pub(crate) answer: oneshot::Sender<IqResult>,
}

impl Port {
    /// Sends an IQ; the answer comes later.
    pub(crate) async fn ask(
        &self,
        to: Jid,
        set: bool,
        payload: Element,
        timeout: Duration,
    ) -> Result<Answer, TransferError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Ask(self.group, Box::new(Ask { to, set, payload, timeout, answer }))).await?;
        Ok(Answer(answered))
    }

    /// Sends an IQ to the peer and waits until it is confirmed.
    pub(crate) async fn set(&self, payload: impl Into<Element>) -> Result<(), TransferError> {
        let to = self.peer.clone().into();
        self.ask(to, true, payload.into(), TRANSFER_STEP_TIMEOUT).await?.wait().await.map(drop)
    }

    /// Sends a step about the content.
    pub(crate) async fn step(
        &self,
        action: Action,
        change: impl FnOnce(&mut Content),
    ) -> Result<(), TransferError> {
        self.set(Jingle::with_content(action, &self.sid, change)).await
    }

    /// Confirms something of the peer.
    pub(crate) async fn confirm(&self, id: String) -> Result<(), TransferError> {
        self.send(Command::Answer { to: self.peer.clone().into(), id, result: Ok(None) }).await
    }

    /// Ends the session. Nothing is to be done when that does not arrive.
    pub(crate) async fn terminate(&self, reason: Reason, text: &str) {
        let jingle = Jingle::terminate(&self.sid, reason, text);
        if let Err(error) = self.set(jingle).await {
            tracing::debug!(peer = %self.peer, %error, "the end of a transfer was not confirmed");
        }
    }

    async fn send(&self, command: Command) -> Result<(), TransferError> {
        let commands = self.commands.upgrade().ok_or(TransferError::Offline)?;
        commands.send(command).await.map_err(|_| TransferError::Offline)
    }
}

/// An answer on its way.
pub(crate) struct Answer(oneshot::Receiver<IqResult>);

impl Answer {
    pub(crate) async fn wait(&mut self) -> Result<Option<Element>, TransferError> {
        match (&mut self.0).await.unwrap_or(Err(IqFailure::Lost)) {
            Ok(payload) => Ok(payload),
            Err(IqFailure::Refused(error)) => Err(TransferError::Refused { reason: error_words(&error) }),
            Err(IqFailure::Timeout) => Err(TransferError::NoAnswer),
            Err(IqFailure::Lost) => Err(TransferError::Offline),
            Err(IqFailure::TooMany) => Err(TransferError::TooMany),
        }
    }
}

/// The incoming half.
pub(crate) struct Inbox(pub(crate) mpsc::Receiver<FromPeer>);

/// The session is over.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The peer says that it has everything.
    Success,
    /// It, or the connection, ended before.
    Failed(TransferError),
}

impl From<End> for TransferError {
    fn from(end: End) -> Self {
        match end {
            End::Success => Self::Protocol { what: "success before the end" },
            End::Failed(error) => error,
        }
    }
}

impl Inbox {
    /// What comes next, or the end. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<FromPeer, End> {
        match self.0.recv().await {
            None => Err(End::Failed(TransferError::Offline)),
            Some(FromPeer::Jingle(jingle)) if jingle.action == Action::SessionTerminate => {
                Err(ended(&jingle))
            }
            Some(other) => Ok(other),
        }
    }

    /// The next step of the session.
    pub(crate) async fn step(&mut self) -> Result<Jingle, TransferError> {
        match self.next().await? {
            FromPeer::Jingle(jingle) => Ok(*jingle),
            _ => Err(TransferError::Protocol { what: "a stream before it was agreed upon" }),
        }
    }

    /// The next step within the time for one.
    pub(crate) async fn step_in_time(&mut self) -> Result<Jingle, TransferError> {
        let step = tokio::time::timeout(TRANSFER_STEP_TIMEOUT, self.step()).await;
        step.unwrap_or(Err(TransferError::NoAnswer))
    }

    /// Waits for the end alone. Safe to cancel.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}

/// Why the peer ended the session.
fn ended(jingle: &Jingle) -> End {
    let Some(element) = &jingle.reason else {
        return End::Failed(TransferError::Ended { reason: "it gave no reason".to_owned() });
    };
    let reason: String = element.to_string().chars().take(TRANSFER_REASON_MAX).collect();
    match element.reason {
        Reason::Success => End::Success,
        Reason::Decline => End::Failed(TransferError::Refused { reason }),
        _ => End::Failed(TransferError::Ended { reason }),
    }
}

/// What the peer is told of an error; `None` when it knows, or cannot be reached.
pub(crate) fn farewell(error: &TransferError) -> Option<Reason> {
    Some(match error {
        TransferError::NotSent(_)
        | TransferError::NotPeer
        | TransferError::TooMany
        | TransferError::Offline
        | TransferError::Refused { .. }
        | TransferError::Ended { .. } => return None,
        TransferError::NoAnswer | TransferError::Idle | TransferError::Held => Reason::Timeout,
        TransferError::Cancelled => Reason::Cancel,
        TransferError::Broken => Reason::FailedTransport,
        TransferError::Forged { .. } => Reason::SecurityError,
        TransferError::WrongSize | TransferError::WrongHash => Reason::MediaError,
        TransferError::File { .. } => Reason::FailedApplication,
        TransferError::Protocol { .. } => Reason::GeneralError,
    })
}

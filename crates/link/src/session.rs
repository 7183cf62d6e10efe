//! The session: its handle, and the one task that owns line and state.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use xmpp_parsers::minidom::Element;

use crate::command::{Attach, Command, Shared};
use crate::config::{GroupConfig, SessionConfig};
use crate::core::Core;
use crate::event::Event;
use crate::group::{AttachError, Group};
use crate::limits::{
    COMMANDS_MAX, COMMANDS_PER_TURN, DROP_CLOSE_TIMEOUT, EVENTS_MAX, OUTBOX_MAX, WRONG_PASSWORD_WAIT,
};
use crate::line::{Line, LineEvent};

/// One XMPP connection, shared by groups. A cheap handle; when the last handle of session and groups is
/// dropped, the connection ends.
#[derive(Debug, Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    task: AbortHandle,
}

impl Session {
    /// Starts to connect, and goes on for ever. To be called within a tokio runtime with IO and time.
    pub fn start(config: SessionConfig) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let mut core = Core::new(config.jid.clone(), commands.downgrade(), rand::random::<f64>);
        core.transfers.config = config.transfer;
        let line = Line::new(Arc::new(config));
        let transfers = JoinSet::new();
        let task = tokio::spawn(Task { core, line, commands: receiver, transfers }.run()).abort_handle();
        Self { commands, task }
    }

    /// Adds a group: joins its room and sets its node up as soon as there is a connection, and again after
    /// every reconnect. `card` is the payload of its presence in the room.
    ///
    /// # Errors
    /// [`AttachError`] when another group has the room or the session has ended.
    pub async fn attach(
        &self,
        group: GroupConfig,
        card: Element,
    ) -> Result<(Group, mpsc::Receiver<Event>), AttachError> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (done, attached) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let attach = Attach { config: group, card, events, shared: Arc::clone(&shared), done };
        self.commands.send(Command::Attach(Box::new(attach))).await.map_err(|_| AttachError::Closed)?;
        let id = attached.await.map_err(|_| AttachError::Closed)??;
        Ok((Group::new(id, shared, self.commands.clone()), receiver))
    }

    /// Leaves the rooms and closes the stream, in at most `deadline`. Handles that are left see the session
    /// as ended.
    pub async fn close(self, deadline: Duration) {
        let (done, closed) = oneshot::channel();
        let clean = async {
            if self.commands.send(Command::Close { done }).await.is_ok() {
                // An error means that the task is gone, which is what was asked for.
                let _: Result<(), _> = closed.await;
            }
        };
        if tokio::time::timeout(deadline, clean).await.is_err() {
            tracing::debug!("the XMPP server did not answer the goodbye in time");
        }
        self.task.abort();
    }
}

struct Task {
    core: Core,
    line: Line,
    commands: mpsc::Receiver<Command>,
    /// They end with the session.
    transfers: JoinSet<()>,
}

/// Who has to be told that the session has ended.
type Farewell = Option<oneshot::Sender<()>>;

impl Task {
    async fn run(mut self) {
        let farewell = loop {
            if let ControlFlow::Break(farewell) = self.turn().await {
                break farewell;
            }
            self.run_transfers();
        };
        self.core.leave_all(Instant::now());
        self.transfers.abort_all();
        let goodbye = self.line.close(&mut self.core.out.stanzas);
        match farewell {
            // The deadline is the caller's.
            Some(done) => {
                goodbye.await;
                let _: Result<(), ()> = done.send(());
            }
            None => {
                let _: Result<(), _> = tokio::time::timeout(DROP_CLOSE_TIMEOUT, goodbye).await;
            }
        }
    }

    /// One thing that happened.
    async fn turn(&mut self) -> ControlFlow<Farewell> {
        let deadline = self.core.deadline(Instant::now());
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        // Backpressure: with a full outbox the commands wait in their channel, and a full channel is what
        // the caller is told.
        let has_room = self.core.out.stanzas.len() < OUTBOX_MAX;
        tokio::select! {
            command = self.commands.recv(), if has_room => return self.take(command),
            event = self.line.next(&mut self.core.out.stanzas) => self.handle_line(event),
            () = timer => self.core.handle_timeout(Instant::now()),
        }
        ControlFlow::Continue(())
    }

    /// Starts the transfers that began, forgets those that ended.
    fn run_transfers(&mut self) {
        for start in self.core.transfers.starts.drain(..) {
            self.transfers.spawn(start.run());
        }
        while self.transfers.try_join_next().is_some() {}
    }

    /// Takes a command, and those that wait behind it: under load they share a write to the socket.
    fn take(&mut self, first: Option<Command>) -> ControlFlow<Farewell> {
        let mut next = first;
        for taken in 1.. {
            match next {
                None => return ControlFlow::Break(None),
                Some(Command::Close { done }) => return ControlFlow::Break(Some(done)),
                Some(command) => self.core.handle_command(command, Instant::now()),
            }
            if taken == COMMANDS_PER_TURN {
                break;
            }
            match self.commands.try_recv() {
                Ok(command) => next = Some(command),
                Err(_) => break,
            }
        }
        ControlFlow::Continue(())
    }

    fn handle_line(&mut self, event: LineEvent) {
        let now = Instant::now();
        match event {
            LineEvent::Up(bound) => {
                tracing::debug!(own = %bound.jid, "logged in");
                self.core.transfers.line_up(bound.local);
                self.core.handle_up(bound.jid, now);
                self.core.handle_stanza_max(bound.stanza_max, now);
            }
            LineEvent::Slow { bytes_per_second } => self.core.handle_slow(bytes_per_second, now),
            LineEvent::Stanza(stanza) => self.core.handle_stanza(*stanza, now),
            LineEvent::Unsendable(stanza) => self.core.handle_unsendable(&stanza, now),
            LineEvent::Down { problem, retry_in } => {
                tracing::debug!(%problem, ?retry_in, "no connection");
                if retry_in >= WRONG_PASSWORD_WAIT && self.core.groups.is_empty() {
                    // Nobody else would tell.
                    tracing::warn!("{problem}");
                }
                self.core.handle_down(problem, now);
            }
        }
    }
}

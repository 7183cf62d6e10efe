//! The line to the server: it is up, or it is on the way to be up again.
//!
//! Owns the XML stream itself and not a `StanzaStream` of tokio-xmpp. The worker behind that type resumes
//! sessions with XEP-0198, panics when dropped or handed a stream without bind, hangs in `close()` while
//! disconnected, and hides the stream error that says *why* a connection ended. What it would add, a session
//! that outlives a connection, is not needed: every gap in the live stream is healed by the layers above, and
//! a resumed session whose room was lost meanwhile would only look alive.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::Sleep;
use tokio_xmpp::xmlstream::{FallibleStreamElement, ReadError, XmppStreamElement};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::ping::Ping;
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stream_error::StreamError;

use crate::backoff::Backoff;
use crate::config::SessionConfig;
use crate::connector::{self, Bound, Wire};
use crate::limits::{
    CONFLICT_MAX, CONFLICT_MIN, CONFLICT_STABLE, RECONNECT_MAX, RECONNECT_MIN, RECONNECT_STABLE,
    WRONG_PASSWORD_MIN, WRONG_PASSWORD_WAIT,
};
use crate::pace::Pace;
use crate::problem::Problem;

/// What happened on the line.
#[derive(Debug)]
pub(crate) enum LineEvent {
    /// Logged in; nothing of an earlier connection is left.
    Up(Bound),
    /// A stanza came.
    Stanza(Box<Stanza>),
    /// A stanza cannot be written as XML and was left out.
    Unsendable(Box<Stanza>),
    /// The server has been taking no more than so many bytes per second.
    Slow { bytes_per_second: u64 },
    /// The connection ended or did not come about; it is tried again after `retry_in`.
    Down { problem: Problem, retry_in: Duration },
}

type Connecting = Pin<Box<dyn Future<Output = Result<(Wire, Bound), Problem>> + Send>>;

enum State {
    Waiting(Pin<Box<Sleep>>),
    Connecting(Connecting),
    Up { wire: Box<Wire>, since: Instant, written: Arc<AtomicU64>, pace: Pace },
}

/// See the module's documentation.
pub(crate) struct Line {
    config: Arc<SessionConfig>,
    state: State,
    backoff: Backoff,
    conflicts: Backoff,
    /// Of a password that the server took before.
    refusals: Option<Backoff>,
}

/// Ids of pings on the line. Any stanza of the server counts as the answer.
const PING_ID: &str = "line-ping";

impl Line {
    /// A line that connects as soon as it is polled.
    pub(crate) fn new(config: Arc<SessionConfig>) -> Self {
        let state = State::Connecting(connecting(&config));
        let backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
        let conflicts = Backoff::new(CONFLICT_MIN, CONFLICT_MAX);
        Self { config, state, backoff, conflicts, refusals: None }
    }

    /// Writes what is in `outbox`, reads what comes. Safe to cancel. `outbox` is written only while the line
    /// is up; who fills it while it is down has to clear it before the next `Up`.
    pub(crate) async fn next(&mut self, outbox: &mut VecDeque<Stanza>) -> LineEvent {
        std::future::poll_fn(|cx| {
            // A panic in the XML or TLS libraries must cost the connection, not the session.
            match catch_unwind(AssertUnwindSafe(|| self.poll(outbox, cx))) {
                Ok(poll) => poll,
                Err(_) => Poll::Ready(self.down("internal error, a panic in the XMPP library")),
            }
        })
        .await
    }

    fn poll(&mut self, outbox: &mut VecDeque<Stanza>, cx: &mut Context<'_>) -> Poll<LineEvent> {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    std::task::ready!(sleep.as_mut().poll(cx));
                    self.state = State::Connecting(connecting(&self.config));
                }
                State::Connecting(connecting) => match std::task::ready!(connecting.as_mut().poll(cx)) {
                    Ok((wire, bound)) => {
                        self.refusals = Some(Backoff::new(WRONG_PASSWORD_MIN, WRONG_PASSWORD_WAIT));
                        let (written, pace) = (Arc::clone(&bound.written), Pace::default());
                        self.state = State::Up { wire: Box::new(wire), since: Instant::now(), written, pace };
                        return Poll::Ready(LineEvent::Up(bound));
                    }
                    Err(problem) => return Poll::Ready(self.failed(problem)),
                },
                State::Up { wire, written, pace, .. } => {
                    if let Some(event) = poll_write(wire, outbox, (pace, written), cx) {
                        return Poll::Ready(match event {
                            Written::Unsendable(stanza) => LineEvent::Unsendable(stanza),
                            Written::Broken(reason) => match last_words(wire, cx) {
                                Some(error) => self.failed(connector::stream_failed(&self.config, &error)),
                                None => self.down(&reason),
                            },
                        });
                    }
                    match std::task::ready!(Pin::new(&mut **wire).poll_next(cx)) {
                        Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::Stanza(Stanza::Iq(iq)))))
                            if Pace::is_mark(iq.id()) =>
                        {
                            if let Some(bytes_per_second) = pace.answered(iq.id(), Instant::now()) {
                                return Poll::Ready(LineEvent::Slow { bytes_per_second });
                            }
                        }
                        Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::Stanza(stanza)))) => {
                            return Poll::Ready(LineEvent::Stanza(Box::new(stanza)));
                        }
                        Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::StreamError(error)))) => {
                            let problem = connector::stream_failed(&self.config, &error.0);
                            return Poll::Ready(self.failed(problem));
                        }
                        Some(Ok(FallibleStreamElement::Ok(_))) => tracing::debug!("unknown nonza left out"),
                        Some(Ok(FallibleStreamElement::Err(error))) => {
                            tracing::debug!(%error, "stanza left out");
                        }
                        Some(Err(ReadError::SoftTimeout)) => {
                            outbox.push_back(Stanza::Iq(Iq::from_get(PING_ID, Ping)));
                        }
                        Some(Err(ReadError::StreamFooterReceived)) | None => {
                            return Poll::Ready(self.down("the server closed the stream"));
                        }
                        Some(Err(ReadError::ParseError(error))) => {
                            tracing::debug!(%error, "element left out")
                        }
                        Some(Err(ReadError::HardError(error))) => {
                            return Poll::Ready(self.down(&error.to_string()));
                        }
                    }
                }
            }
        }
    }

    fn down(&mut self, reason: &str) -> LineEvent {
        self.failed(Problem::ConnectionLost { reason: reason.to_owned() })
    }

    /// Decides when to try again.
    fn failed(&mut self, problem: Problem) -> LineEvent {
        if let State::Up { since, .. } = &self.state {
            self.backoff.lived(since.elapsed(), RECONNECT_STABLE);
            self.conflicts.lived(since.elapsed(), CONFLICT_STABLE);
        }
        let (problem, refused) = match (problem, &mut self.refusals) {
            (Problem::WrongPassword { jid, reason, .. }, Some(refusals)) => {
                (Problem::PasswordNoLongerTaken { jid, reason }, refusals.next(1.0))
            }
            (problem, _) => (problem, WRONG_PASSWORD_WAIT),
        };
        let retry_in = match &problem {
            Problem::WrongPassword { .. } | Problem::PasswordNoLongerTaken { .. } => refused,
            Problem::LoggedInElsewhere { .. } => self.conflicts.next(rand::random()),
            _ => self.backoff.next(rand::random()),
        };
        self.state = State::Waiting(Box::pin(tokio::time::sleep(retry_in)));
        LineEvent::Down { problem, retry_in }
    }

    /// Says goodbye: writes the rest of the outbox and the end of the stream, waits for the server's. To be
    /// called under a deadline, since a dead server never answers.
    pub(crate) async fn close(self, outbox: &mut VecDeque<Stanza>) {
        let State::Up { mut wire, .. } = self.state else { return };
        while let Some(stanza) = outbox.pop_front() {
            if wire.send(&stanza).await.is_err() {
                return;
            }
        }
        if wire.shutdown().await.is_err() {
            return;
        }
        while let Some(element) = wire.next().await {
            if matches!(element, Err(ReadError::HardError(_) | ReadError::StreamFooterReceived)) {
                return;
            }
        }
    }
}

fn connecting(config: &Arc<SessionConfig>) -> Connecting {
    let config = Arc::clone(config);
    Box::pin(async move { connector::connect(&config).await })
}

/// Why the server ended the stream, if it said so before it closed a connection that could no longer be written to:
/// prosody reads nothing more of a stanza that is too big.
fn last_words(wire: &mut Wire, cx: &mut Context<'_>) -> Option<StreamError> {
    loop {
        match Pin::new(&mut *wire).poll_next(cx) {
            Poll::Ready(Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::StreamError(error))))) => {
                return Some(error.0);
            }
            Poll::Ready(Some(Ok(_))) => {}
            _ => return None,
        }
    }
}

enum Written {
    Unsendable(Box<Stanza>),
    Broken(String),
}

/// Writes as much as the socket takes, and flushes; `None` when there is nothing to tell.
fn poll_write(
    wire: &mut Wire,
    outbox: &mut VecDeque<Stanza>,
    (pace, written): (&mut Pace, &AtomicU64),
    cx: &mut Context<'_>,
) -> Option<Written> {
    loop {
        if let Some(id) = pace.written(written.load(Ordering::Relaxed), Instant::now()) {
            outbox.push_front(Stanza::Iq(Iq::from_get(id, Ping)));
        }
        if outbox.is_empty() {
            break;
        }
        match <Wire as Sink<&Stanza>>::poll_ready(Pin::new(wire), cx) {
            Poll::Pending => return None,
            Poll::Ready(Err(error)) => return Some(Written::Broken(error.to_string())),
            Poll::Ready(Ok(())) => {}
        }
        let Some(stanza) = outbox.pop_front() else { break };
        if let Err(error) = Pin::new(&mut *wire).start_send(&stanza) {
            tracing::debug!(%error, "stanza cannot be written");
            return Some(Written::Unsendable(Box::new(stanza)));
        }
    }
    match <Wire as Sink<&Stanza>>::poll_flush(Pin::new(wire), cx) {
        Poll::Ready(Err(error)) => Some(Written::Broken(error.to_string())),
        _ => None,
    }
}

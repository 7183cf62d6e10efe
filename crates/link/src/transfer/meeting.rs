//! How two sides come to a TCP connection, direct or through a proxy (XEP-0260).

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use xmpp_parsers::jingle::Action;
use xmpp_parsers::jingle_s5b::Type;

use crate::config::TransferConfig;
use crate::transfer::candidates::{Choice, Negotiation, Verdict, to_try};
use crate::transfer::dial::{self, Doors};
use crate::transfer::elements::{Candidate, Jingle, Socks};
use crate::transfer::offer::{TransferError, Transport};
use crate::transfer::port::{Inbox, Port};
use crate::transfer::{proxy, socks};

/// What a side has to make a connection with.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) config: TransferConfig,
    /// The own address of the connection to the server.
    pub(crate) local: Option<IpAddr>,
    pub(crate) proxy: Arc<proxy::Found>,
}

/// A connection, and what it is; none when the sides do not reach each other.
pub(crate) type Met = Option<(TcpStream, Transport)>;

/// See the module's documentation.
pub(crate) struct Meeting {
    port: Port,
    config: TransferConfig,
    doors: Option<Doors>,
    offered: Vec<Candidate>,
}

impl Meeting {
    /// Opens own doors and finds the proxy.
    pub(crate) async fn prepare(port: &Port, means: &Means) -> Self {
        let config = means.config;
        let doors = if config.direct { Some(Doors::open(port, means.local).await) } else { None };
        let proxy = if config.proxy { proxy::candidate(port, &means.proxy).await } else { None };
        let direct = doors.iter().flat_map(|doors| doors.candidates.iter().cloned());
        let offered = direct.chain(proxy).collect();
        Self { port: port.clone(), config, doors, offered }
    }

    /// What is told to the peer.
    pub(crate) fn transport(&self) -> Socks {
        Socks { candidates: self.offered.clone(), ..Socks::new(&self.port.sid) }
    }

    /// Tries what the peer offered, tells it, and hears what came of the own offer.
    pub(crate) async fn meet(
        mut self,
        is_initiator: bool,
        theirs: &Socks,
        inbox: &mut Inbox,
    ) -> Result<Met, TransferError> {
        let mut negotiation = Negotiation::new(is_initiator, self.offered.clone());
        let destination = socks::destination(&self.port.sid, &self.port.peer, &self.port.own);
        let [first, second] = to_try(theirs, self.config.direct, self.config.proxy);
        let trying = async {
            match dial::reach_one(first, &destination).await {
                Some(reached) => Some(reached),
                None => dial::reach_one(second, &destination).await,
            }
        };
        tokio::pin!(trying);
        let mut reached = None;
        let verdict = loop {
            match negotiation.verdict() {
                Verdict::Pending => {}
                verdict => break verdict,
            }
            tokio::select! {
                tried = &mut trying, if negotiation.is_trying() => {
                    let (choice, stream) = match tried {
                        Some((candidate, stream)) => (Choice::Used(candidate), Some(stream)),
                        None => (Choice::Error, None),
                    };
                    reached = stream;
                    self.tell(&choice).await?;
                    negotiation.handle_tried(choice);
                }
                news = news(inbox) => negotiation.handle_news(&news?)?,
            }
        };
        match verdict {
            Verdict::Theirs(candidate) => use_theirs(candidate, reached, inbox).await,
            Verdict::Ours(candidate) => self.use_ours(candidate).await,
            Verdict::Failed | Verdict::Pending => Ok(None),
        }
    }

    async fn tell(&self, choice: &Choice) -> Result<(), TransferError> {
        self.inform(|news| match choice {
            Choice::Used(candidate) => news.used = Some(candidate.cid.clone()),
            Choice::Error => news.error = true,
        })
        .await
    }

    async fn inform(&self, change: impl FnOnce(&mut Socks)) -> Result<(), TransferError> {
        let mut news = Socks::new(&self.port.sid);
        change(&mut news);
        self.port.step(Action::TransportInfo, |content| content.socks = Some(news)).await
    }

    /// The peer reached a candidate of ours.
    async fn use_ours(&mut self, candidate: Candidate) -> Result<Met, TransferError> {
        if candidate.type_ != Type::Proxy {
            let Some(doors) = &mut self.doors else { return Ok(None) };
            let entered = doors.entered(&candidate.cid).await;
            let missing = TransferError::Protocol { what: "a candidate that was not reached" };
            return Ok(Some((entered.ok_or(missing)?, Transport::Direct)));
        }
        match self.through(&candidate).await {
            Ok(stream) => {
                self.inform(|news| news.activated = Some(candidate.cid)).await?;
                Ok(Some((stream, Transport::Proxy)))
            }
            Err(reason) => {
                tracing::debug!(proxy = %candidate.jid, reason, "the proxy cannot be used");
                self.inform(|news| news.proxy_error = true).await?;
                Ok(None)
            }
        }
    }

    async fn through(&self, candidate: &Candidate) -> Result<TcpStream, String> {
        let destination = socks::destination(&self.port.sid, &self.port.own, &self.port.peer);
        let stream = dial::reach(&candidate.host, candidate.port, &destination).await;
        let stream = stream.map_err(|error| error.to_string())?;
        proxy::activate(&self.port, candidate.jid.clone()).await.map_err(|error| error.to_string())?;
        Ok(stream)
    }
}

/// We reached a candidate of the peer.
async fn use_theirs(
    candidate: Candidate,
    reached: Option<TcpStream>,
    inbox: &mut Inbox,
) -> Result<Met, TransferError> {
    let Some(stream) = reached else { return Ok(None) };
    if candidate.type_ != Type::Proxy {
        return Ok(Some((stream, Transport::Direct)));
    }
    match news(inbox).await? {
        Socks { activated: Some(cid), .. } if cid == candidate.cid => Ok(Some((stream, Transport::Proxy))),
        Socks { proxy_error: true, .. } => Ok(None),
        _ => Err(TransferError::Protocol { what: "no word of the proxy" }),
    }
}

/// What the peer says of the transport.
async fn news(inbox: &mut Inbox) -> Result<Socks, TransferError> {
    match inbox.step_in_time().await? {
        Jingle { action: Action::TransportInfo, content: Some(content), .. } => {
            content.socks.ok_or(TransferError::Protocol { what: "news of another transport" })
        }
        _ => Err(TransferError::Protocol { what: "no news of the transport" }),
    }
}

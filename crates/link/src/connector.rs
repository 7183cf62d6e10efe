//! From a configuration to a stream with a bound resource.
//!
//! The stock connectors of tokio-xmpp are not used: they force SCRAM-PLUS with tls-exporter, which
//! ejabberd 23.01 advertises and cannot verify, and fall back to PLAIN; they know no CA file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::{SinkExt, StreamExt};
use sasl::common::{ChannelBinding, Credentials};
use tokio::io::{AsyncRead, AsyncWrite, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_xmpp::connect::AsyncReadAndWrite;
use tokio_xmpp::error::AuthError;
use tokio_xmpp::parsers::sasl::DefinedCondition as SaslCondition;
use tokio_xmpp::xmlstream::{
    FallibleStreamElement, ReadError, RecvFeaturesError, StreamHeader, Timeouts, XmppStream,
    XmppStreamElement, initiate_stream,
};
use xmpp_parsers::bind::{BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmpp_parsers::stream_features::StreamFeatures;
use xmpp_parsers::{ns, starttls, stream_error};

use crate::config::{SessionConfig, Tls};
use crate::dns::Names;
use crate::elements::error_words;
use crate::limits::{CONNECT_TIMEOUT, LOGIN_TIMEOUT, PING_AFTER, PING_ANSWER, WRONG_PASSWORD_WAIT};
use crate::pace::Counted;
use crate::problem::Problem;

/// A stream whose transport is forgotten.
pub(crate) type Wire = XmppStream<Box<dyn AsyncReadAndWrite + Send + 'static>>;

/// Who is connected.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The JID that the server gave.
    pub(crate) jid: FullJid,
    /// The own address of the connection.
    pub(crate) local: Option<IpAddr>,
    /// The largest stanza that the server takes, if it says so (XEP-0478).
    pub(crate) stanza_max: Option<u32>,
    /// Bytes that were written so far.
    pub(crate) written: Arc<AtomicU64>,
}

/// A transport before the XML.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

const BIND_ID: &str = "bind";

/// What servers say of a stanza over their limit, when they end the stream for it.
const STANZA_TOO_BIG: &str = "stanza is too big";

const TIMEOUTS: Timeouts = Timeouts { read_timeout: PING_AFTER, response_timeout: PING_ANSWER };

/// Connects, protects, logs in, and binds the resource.
pub(crate) async fn connect(config: &SessionConfig) -> Result<(Wire, Bound), Problem> {
    let tcp = open(config, &Names::of_system()).await?;
    let local = tcp.local_addr().ok().map(|address| address.ip());
    match timeout(LOGIN_TIMEOUT, negotiate(config, tcp)).await {
        Ok(result) => result.map(|(wire, bound)| (wire, Bound { local, ..bound })),
        Err(_) => Err(login_failed(config, "the server does not answer")),
    }
}

/// Tries the addresses one after the other.
async fn open(config: &SessionConfig, names: &Names) -> Result<TcpStream, Problem> {
    let domain = config.jid.domain().as_str();
    let mut last = None;
    for target in names.targets(&config.server, config.tls, domain).await {
        let addresses = match names.addresses(&target).await {
            Ok(addresses) => addresses,
            Err(problem) => {
                last = Some(problem);
                continue;
            }
        };
        for address in addresses {
            let result = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(result) => result,
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            };
            match result.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp)) {
                Ok(tcp) => return Ok(tcp),
                Err(error) => {
                    tracing::debug!(%address, %error, "no connection");
                    let address = format!("{}:{}", target.host.trim_end_matches('.'), target.port);
                    last = Some(Problem::Unreachable { address, reason: error.to_string() });
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| Problem::UnknownHost { host: domain.to_owned(), reason: "no target".into() }))
}

async fn negotiate(config: &SessionConfig, tcp: TcpStream) -> Result<(Wire, Bound), Problem> {
    let domain = config.jid.domain().as_str();
    let io: Box<dyn Io> = match config.tls {
        Tls::InsecurePlaintext => Box::new(tcp),
        Tls::Direct => Box::new(crate::tls::handshake(config.ca.as_deref(), tcp, domain).await?),
        Tls::StartTls => {
            let tcp = start_tls(config, tcp).await?;
            Box::new(crate::tls::handshake(config.ca.as_deref(), tcp, domain).await?)
        }
    };
    let written = Arc::default();
    let io = Counted::new(io, Arc::clone(&written));
    let (features, stream) = begin(config, BufStream::new(io)).await?;
    let stream = login(config, features.sasl_mechanisms, stream).await?;
    let stream = stream.send_header(header(config)).await.map_err(|error| login_failed(config, error))?;
    let (features, stream) = stream.recv_features().await.map_err(|error| features_failed(config, error))?;
    if !features.can_bind() {
        return Err(login_failed(config, "the server offers no resource binding"));
    }
    let stanza_max = features.limits.and_then(|limits| limits.max_bytes).map(NonZeroU32::get);
    let (wire, jid) = bind(config, stream.box_stream()).await?;
    Ok((wire, Bound { jid, local: None, stanza_max, written }))
}

/// Opens the XML stream.
async fn begin<S>(config: &SessionConfig, io: S) -> Result<(StreamFeatures, XmppStream<S>), Problem>
where
    S: AsyncReadAndWrite,
{
    let pending = initiate_stream(io, ns::JABBER_CLIENT, header(config), TIMEOUTS).await;
    let pending = pending.map_err(|error| login_failed(config, error))?;
    pending.recv_features().await.map_err(|error| features_failed(config, error))
}

async fn start_tls(config: &SessionConfig, tcp: TcpStream) -> Result<TcpStream, Problem> {
    let no_tls = || Problem::NoStartTls { domain: config.jid.domain().as_str().to_owned() };
    let (features, mut stream) = begin(config, BufStream::new(tcp)).await?;
    if !features.can_starttls() {
        return Err(no_tls());
    }
    let request = XmppStreamElement::Starttls(starttls::Nonza::Request(starttls::Request));
    stream.send(&request).await.map_err(|error| login_failed(config, error))?;
    match next_element(config, &mut stream).await? {
        XmppStreamElement::Starttls(starttls::Nonza::Proceed(_)) => {}
        _ => return Err(no_tls()),
    }
    // What a man in the middle puts behind <proceed/> must not be read as if it came through TLS: the XML
    // parser and the buffer go, only the socket stays.
    Ok(stream.into_inner().into_inner())
}

async fn login<S: AsyncReadAndWrite>(
    config: &SessionConfig,
    mut mechanisms: BTreeSet<String>,
    stream: XmppStream<S>,
) -> Result<tokio_xmpp::xmlstream::InitiatingStream<S>, Problem> {
    let offered = mechanisms.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    // Never the password itself, not even through TLS; and never as somebody else.
    mechanisms.retain(|name| name != "PLAIN" && name != "ANONYMOUS");
    let Some(user) = config.jid.node() else {
        return Err(login_failed(config, "the JID has no local part"));
    };
    let credentials = Credentials::default()
        .with_username(user.as_str())
        .with_password(config.password.reveal())
        .with_channel_binding(ChannelBinding::None);
    tokio_xmpp::client_login(stream, mechanisms, credentials).await.map_err(|error| match error {
        tokio_xmpp::Error::Auth(AuthError::NoMechanism) => {
            Problem::NoMechanism { domain: config.jid.domain().as_str().to_owned(), offered }
        }
        tokio_xmpp::Error::Auth(AuthError::Fail(SaslCondition::TemporaryAuthFailure)) => {
            login_failed(config, "temporary-auth-failure")
        }
        tokio_xmpp::Error::Auth(error) => Problem::WrongPassword {
            jid: config.jid.to_bare(),
            reason: match error {
                AuthError::Fail(condition) => format!("{condition:?}"),
                other => other.to_string(),
            },
            retry_secs: WRONG_PASSWORD_WAIT.as_secs(),
        },
        error => login_failed(config, error),
    })
}

async fn bind(config: &SessionConfig, mut wire: Wire) -> Result<(Wire, FullJid), Problem> {
    let query = BindQuery::new(Some(config.jid.resource().as_str().to_owned()));
    let request = Stanza::Iq(Iq::from_set(BIND_ID, query));
    wire.send(&request).await.map_err(|error| login_failed(config, error))?;
    loop {
        match next_element(config, &mut wire).await? {
            XmppStreamElement::Stanza(Stanza::Iq(iq)) if iq.id() == BIND_ID => {
                return match iq {
                    Iq::Result { payload: Some(payload), .. } => match BindResponse::try_from(payload) {
                        Ok(bound) => Ok((wire, bound.into())),
                        Err(error) => Err(login_failed(config, error)),
                    },
                    Iq::Error { error, .. } if error.defined_condition == DefinedCondition::Conflict => {
                        Err(Problem::LoggedInElsewhere { jid: config.jid.clone() })
                    }
                    Iq::Error { error, .. } => Err(login_failed(config, error_words(&error))),
                    _ => Err(login_failed(config, "the answer to the binding has no JID")),
                };
            }
            _ => continue,
        }
    }
}

/// The next element during the negotiation; stream errors are failures.
async fn next_element<S: AsyncReadAndWrite>(
    config: &SessionConfig,
    stream: &mut XmppStream<S>,
) -> Result<XmppStreamElement, Problem> {
    loop {
        match stream.next().await {
            Some(Ok(FallibleStreamElement::Ok(XmppStreamElement::StreamError(error)))) => {
                return Err(stream_failed(config, &error.0));
            }
            Some(Ok(FallibleStreamElement::Ok(element))) => return Ok(element),
            Some(Ok(FallibleStreamElement::Err(error))) => return Err(login_failed(config, error)),
            Some(Err(ReadError::SoftTimeout)) => continue,
            Some(Err(error)) => return Err(login_failed(config, error)),
            None => return Err(login_failed(config, "the server closed the connection")),
        }
    }
}

fn header(config: &SessionConfig) -> StreamHeader<'_> {
    StreamHeader { to: Some(Cow::Borrowed(config.jid.domain().as_str())), from: None, id: None }
}

fn features_failed(config: &SessionConfig, error: RecvFeaturesError) -> Problem {
    match error {
        RecvFeaturesError::StreamError(error) => stream_failed(config, &error.0),
        RecvFeaturesError::Io(error) => login_failed(config, error),
    }
}

/// A stream error of the server as a problem.
pub(crate) fn stream_failed(config: &SessionConfig, error: &stream_error::StreamError) -> Problem {
    match error.condition {
        stream_error::DefinedCondition::Conflict => Problem::LoggedInElsewhere { jid: config.jid.clone() },
        // ejabberd and prosody say the same; of the condition alone there are other reasons.
        stream_error::DefinedCondition::PolicyViolation if error.to_string().contains(STANZA_TOO_BIG) => {
            let domain = config.jid.domain().as_str().to_owned();
            Problem::StanzaLimit { domain, reason: error.to_string() }
        }
        _ => Problem::ConnectionLost { reason: error.to_string() },
    }
}

fn login_failed(config: &SessionConfig, reason: impl ToString) -> Problem {
    Problem::LoginFailed { jid: config.jid.clone(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Password, Server};
    use crate::dns::test_server::NameServer;
    use tokio::net::TcpListener;

    fn config() -> SessionConfig {
        SessionConfig {
            jid: FullJid::new("a@example.org/ldap").unwrap(),
            password: Password::new("x"),
            server: Server::Srv,
            tls: Tls::StartTls,
            ca: None,
            transfer: crate::config::TransferConfig::default(),
        }
    }

    /// A port at which nobody listens.
    async fn dead_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_dead_first_target_is_skipped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = "_xmpp-client._tcp.example.org.";
        let services = [
            (service, 1, "nowhere.example.org.", port),
            (service, 2, "dead.example.org.", dead_port().await),
            (service, 3, "alive.example.org.", port),
        ];
        let server = NameServer::start(&services, &["dead.example.org.", "alive.example.org."]).await;
        let tcp = open(&config(), &server.names()).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap().port(), port);
        let asked = server.asked();
        let at = |name: &str| asked.iter().position(|asked| asked == name);
        assert_eq!(at(&format!("SRV {service}")), Some(0));
        assert!(at("A nowhere.example.org.") < at("A dead.example.org."), "{asked:?}");
        assert!(at("A dead.example.org.") < at("A alive.example.org."), "{asked:?}");
    }

    #[tokio::test]
    async fn the_last_dead_target_is_the_one_that_is_reported() {
        let services = [("_xmpp-client._tcp.example.org.", 1, "dead.example.org.", dead_port().await)];
        let server = NameServer::start(&services, &["dead.example.org."]).await;
        let problem = open(&config(), &server.names()).await.unwrap_err().to_string();
        assert!(problem.starts_with("no connection to the XMPP server at dead.example.org:"), "{problem}");
    }
}

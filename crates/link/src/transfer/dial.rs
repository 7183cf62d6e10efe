//! The sockets of SOCKS5 bytestreams: waiting for the peer at own addresses, and reaching addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use xmpp_parsers::jingle_s5b::Type;

use crate::limits::{DIRECT_CANDIDATES_MAX, KNOCKS_MAX, TRANSFER_CONNECT_TIMEOUT};
use crate::transfer::candidates::priority;
use crate::transfer::elements::Candidate;
use crate::transfer::port::Port;
use crate::transfer::socks::{self, Read, SocksError};

/// Own addresses at which the peer may come in. They are open while this lives.
pub(crate) struct Doors {
    pub(crate) candidates: Vec<Candidate>,
    entered: mpsc::Receiver<(String, TcpStream)>,
    _listeners: JoinSet<()>,
}

impl Doors {
    /// Opens a port at each own address: that of the connection to the server first.
    pub(crate) async fn open(port: &Port, local: Option<IpAddr>) -> Self {
        let (sender, entered) = mpsc::channel(KNOCKS_MAX);
        let mut doors = Self { candidates: Vec::new(), entered, _listeners: JoinSet::new() };
        for (place, address) in own_addresses(local).into_iter().enumerate() {
            let bound = TcpListener::bind(SocketAddr::new(address, 0)).await;
            let Ok((listener, at)) =
                bound.and_then(|listener| listener.local_addr().map(|at| (listener, at)))
            else {
                continue;
            };
            let cid = format!("d{place}");
            doors.candidates.push(Candidate {
                cid: cid.clone(),
                host: at.ip().to_string(),
                jid: port.own.clone().into(),
                port: at.port(),
                priority: priority(&Type::Direct, place),
                type_: Type::Direct,
            });
            let destination = socks::destination(&port.sid, &port.own, &port.peer);
            doors._listeners.spawn(listen(listener, cid, destination, sender.clone()));
        }
        doors
    }

    /// The connection of the peer to one of the candidates, which the peer says to have made.
    pub(crate) async fn entered(&mut self, cid: &str) -> Option<TcpStream> {
        let entered = async {
            loop {
                match self.entered.recv().await {
                    Some((at, stream)) if at == cid => return Some(stream),
                    // The peer tries several ways and uses one.
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        timeout(TRANSFER_CONNECT_TIMEOUT, entered).await.ok().flatten()
    }
}

/// Addresses of this machine by which a peer may reach it.
fn own_addresses(local: Option<IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = local.into_iter().collect();
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    for interface in interfaces.iter().filter(|interface| !interface.is_loopback()) {
        let address = interface.ip();
        if !is_link_local(address) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(DIRECT_CANDIDATES_MAX);
    addresses
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Lets in who names the destination; somebody who knocks and says nothing keeps nobody out.
async fn listen(
    listener: TcpListener,
    cid: String,
    destination: String,
    entered: mpsc::Sender<(String, TcpStream)>,
) {
    let mut knocks = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if knocks.len() < KNOCKS_MAX => match accepted {
                Ok((stream, _)) => {
                    knocks.push(timeout(TRANSFER_CONNECT_TIMEOUT, admit(stream, &destination)));
                }
                Err(error) => {
                    // Such as no descriptor left: the same at once again.
                    tracing::debug!(%error, "a connection for a transfer is not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(knock) = knocks.next() => match knock {
                Ok(Ok(stream)) => {
                    if entered.send((cid.clone(), stream)).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => tracing::debug!(%error, "somebody else came to the port of a transfer"),
                Err(_) => tracing::debug!("somebody came to the port of a transfer and said nothing"),
            },
        }
    }
}

/// The server's side of SOCKS5.
async fn admit(mut stream: TcpStream, destination: &str) -> io::Result<TcpStream> {
    let mut buffer = Vec::new();
    read(&mut stream, &mut buffer, |bytes| done(socks::read_greeting(bytes)?)).await?;
    stream.write_all(&socks::CHOICE).await?;
    buffer.clear();
    read(&mut stream, &mut buffer, |bytes| match socks::read_request(bytes)? {
        Read::More(count) => Ok(Read::More(count)),
        Read::Done(asked) if asked == destination.as_bytes() => Ok(Read::Done(())),
        Read::Done(_) => Err(SocksError::Destination),
    })
    .await?;
    stream.write_all(&socks::granted(destination)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to `host` and asks for `destination`: the client's side of SOCKS5.
pub(crate) async fn reach(host: &str, port: u16, destination: &str) -> io::Result<TcpStream> {
    let reach = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        stream.write_all(&socks::GREETING).await?;
        read(&mut stream, &mut buffer, |bytes| done(socks::read_choice(bytes)?)).await?;
        stream.write_all(&socks::request(destination)).await?;
        buffer.clear();
        read(&mut stream, &mut buffer, |bytes| done(socks::read_reply(bytes)?)).await?;
        Ok(stream)
    };
    timeout(TRANSFER_CONNECT_TIMEOUT, reach).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The first of the candidates that can be reached.
pub(crate) async fn reach_one(
    candidates: Vec<Candidate>,
    destination: &str,
) -> Option<(Candidate, TcpStream)> {
    let tries = candidates.into_iter().map(|candidate| async move {
        match reach(&candidate.host, candidate.port, destination).await {
            Ok(stream) => Some((candidate, stream)),
            Err(error) => {
                let Candidate { host, port, .. } = &candidate;
                tracing::debug!(%host, port, %error, "a candidate of the peer is not reached");
                None
            }
        }
    });
    let mut tries: FuturesUnordered<_> = tries.collect();
    while let Some(tried) = tries.next().await {
        if tried.is_some() {
            return tried;
        }
    }
    None
}

fn done(read: Read<()>) -> Result<Read<()>, SocksError> {
    Ok(read)
}

/// Reads one message and not a byte more.
async fn read(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    parse: impl Fn(&[u8]) -> Result<Read<()>, SocksError>,
) -> io::Result<()> {
    loop {
        match parse(buffer).map_err(io::Error::other)? {
            Read::Done(()) => return Ok(()),
            Read::More(count) => {
                let begin = buffer.len();
                buffer.resize(begin + count, 0);
                stream.read_exact(buffer.get_mut(begin..).unwrap_or_default()).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn door(
        destination: &'static str,
    ) -> (SocketAddr, mpsc::Receiver<(String, TcpStream)>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (sender, entered) = mpsc::channel(1);
        let mut listeners = JoinSet::new();
        listeners.spawn(listen(listener, "d0".into(), destination.into(), sender));
        (at, entered, listeners)
    }

    #[tokio::test]
    async fn who_names_the_destination_comes_in_and_what_follows_is_kept() {
        let (at, mut entered, _listeners) = door("right").await;
        let mut stream = reach("127.0.0.1", at.port(), "right").await.unwrap();
        stream.write_all(b"file").await.unwrap();
        let (cid, mut inside) = entered.recv().await.unwrap();
        let mut bytes = [0; 4];
        inside.read_exact(&mut bytes).await.unwrap();
        assert_eq!((cid.as_str(), &bytes), ("d0", b"file"));
    }

    #[tokio::test]
    async fn others_stay_outside_and_keep_nobody_out() {
        let (at, mut entered, _listeners) = door("right").await;
        assert!(reach("127.0.0.1", at.port(), "wrong").await.is_err());
        let _silent = TcpStream::connect(at).await.unwrap();
        let mut rude = TcpStream::connect(at).await.unwrap();
        rude.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(reach("127.0.0.1", at.port(), "right").await.is_ok());
        assert!(entered.recv().await.is_some());
        assert!(entered.try_recv().is_err());
    }
}

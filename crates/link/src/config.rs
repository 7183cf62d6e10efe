//! What a session and a group are told by their owner.

use std::fmt;
use std::path::PathBuf;

use xmpp_parsers::jid::{BareJid, FullJid};

/// A password; its `Debug` shows three stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes the password as it is, without trimming.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the XMPP server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// The SRV records of the JID's domain, then the domain itself with port 5222 (direct TLS: 5223).
    Srv,
    /// This host name or address, without SRV records.
    Host {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// TLS after `<starttls/>` (RFC 6120); a server without it is refused.
    StartTls,
    /// TLS from the first byte (XEP-0368).
    Direct,
    /// No protection: for loopback and tests. The password still travels by SCRAM only.
    InsecurePlaintext,
}

/// One XMPP connection.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The account and the resource to bind.
    pub jid: FullJid,
    /// Its password.
    pub password: Password,
    /// Where the server is.
    pub server: Server,
    /// How the connection is protected.
    pub tls: Tls,
    /// PEM file of the authorities that may sign the server's certificate; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// How files travel.
    pub transfer: TransferConfig,
}

/// By which ways files may travel besides stanzas, which always go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferConfig {
    /// TCP connections between this machine and peers, in either direction.
    pub direct: bool,
    /// The SOCKS5 proxies of the XMPP servers.
    pub proxy: bool,
}

impl Default for TransferConfig {
    fn default() -> Self {
        Self { direct: true, proxy: true }
    }
}

/// One group: a room and a set of pubsub nodes.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The room; its domain is the MUC service.
    pub room: BareJid,
    /// Own nick in the room, different on every server.
    pub nick: String,
    /// Bare JIDs of the other members. What others send is dropped.
    pub peers: Vec<BareJid>,
    /// Name of the room for humans, set when the room is created.
    pub room_title: String,
    /// The pubsub service.
    pub pubsub: BareJid,
    /// Name of the own node at the service.
    pub node: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_in_debug_output() {
        let config = SessionConfig {
            jid: FullJid::new("a@example.org/ldap").unwrap(),
            password: Password::new("hunter2"),
            server: Server::Srv,
            tls: Tls::StartTls,
            ca: None,
            transfer: TransferConfig::default(),
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    }
}

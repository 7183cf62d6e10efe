//! Which XMPP server, and what a test may want different.

use super::cluster::Cluster;
use super::federation::Federation;
use crate::net::Host;

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmppKind {
    /// ejabberd.
    Ejabberd,
    /// prosody.
    Prosody,
}

/// The environment variable that says which one a lab takes: `ejabberd`, also without it, or `prosody`.
const KIND_VARIABLE: &str = "XMPPSYNC_XMPP_SERVER";

impl Default for XmppKind {
    fn default() -> Self {
        match std::env::var(KIND_VARIABLE).as_deref() {
            Ok("prosody") => Self::Prosody,
            _ => Self::Ejabberd,
        }
    }
}

/// What a test may want different.
#[derive(Clone, Debug)]
pub struct XmppOptions {
    /// Which program serves.
    pub kind: XmppKind,
    /// Debian's configuration as its package installs it, changed in nothing but domain, accounts, paths and ports, and
    /// with rooms and nodes where it has none. Everything below but the domain and the edits is then as it is there.
    pub stock: bool,
    /// Changes to the text of the configuration: what it says, and what it is to say instead.
    pub edits: Vec<(String, String)>,
    /// The XMPP domain.
    pub domain: String,
    /// Whether rooms keep an archive. Off: archiving in mnesia gets slower with every message.
    pub room_archive: bool,
    /// The largest stanza in bytes; Debian's configurations have this default.
    pub max_stanza_size: u32,
    /// How many messages are kept for a user who is away; `None` is no limit, Debian's ejabberd has 100.
    pub max_offline_messages: Option<u32>,
    /// Whether messages are kept at all.
    pub offline: bool,
    /// Whether clients may stay without TLS.
    pub plaintext: bool,
    /// Whether there are rooms, and a pubsub service; without them the servers say so at service discovery.
    pub rooms: bool,
    /// See [`XmppOptions::rooms`].
    pub pubsub: bool,
    /// How many occupants a room takes; `None` is the default. prosody knows no such limit.
    pub max_room_users: Option<u32>,
    /// `warning` keeps it quiet; `debug` shows stanzas.
    pub log_level: String,
    /// Where it runs; `None` is this machine, at the lab's address.
    pub host: Option<Host>,
    /// With whom it exchanges stanzas of other domains; `None` is nobody.
    pub federation: Option<Federation>,
    /// What nodes of one cluster have to know of each other; ejabberd only.
    pub cluster: Option<Cluster>,
}

impl Default for XmppOptions {
    fn default() -> Self {
        Self {
            kind: XmppKind::default(),
            stock: false,
            edits: Vec::new(),
            domain: "xmpp.test".to_owned(),
            room_archive: false,
            max_stanza_size: 262_144,
            max_offline_messages: None,
            offline: true,
            plaintext: true,
            rooms: true,
            pubsub: true,
            max_room_users: None,
            log_level: "warning".to_owned(),
            host: None,
            federation: None,
            cluster: None,
        }
    }
}

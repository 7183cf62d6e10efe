//! What an admin has to know: each problem is a sentence that says what happened and what to do.

use std::path::PathBuf;

use xmpp_parsers::jid::{BareJid, FullJid};

/// A state that does not go away by itself, or not soon. Reported when it begins, not with every retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The name servers know no address of the XMPP server.
    #[error(
        "the XMPP server's name {host} cannot be resolved ({reason}); check the name, or name host and port with xmppsync-server"
    )]
    UnknownHost {
        /// The name that was looked up.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No address of the XMPP server takes the connection.
    #[error(
        "no connection to the XMPP server at {address} ({reason}); check that it runs, its port, and firewalls between"
    )]
    Unreachable {
        /// The address tried last.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The server does not offer STARTTLS.
    #[error("the XMPP server of {domain} offers no STARTTLS; enable it there, or set xmppsync-tls to direct")]
    NoStartTls {
        /// Domain of the JID.
        domain: String,
    },
    /// The certificate does not verify.
    #[error(
        "the certificate of the XMPP server of {domain} is refused ({reason}); name its authority with xmppsync-tls-ca, or renew it for {domain}"
    )]
    CertificateRefused {
        /// Domain of the JID, for which the certificate has to hold.
        domain: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS handshake failed for another reason.
    #[error(
        "TLS with the XMPP server of {domain} fails ({reason}); it has to speak TLS 1.2 or 1.3 on that port"
    )]
    TlsFailed {
        /// Domain of the JID.
        domain: String,
        /// What failed.
        reason: String,
    },
    /// The authorities cannot be read.
    #[error("the certificate authorities in {} cannot be read ({reason}); check xmppsync-tls-ca", path.display())]
    CaUnreadable {
        /// The PEM file, or a word for the system's store.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The server refuses account or password.
    #[error(
        "the XMPP server refuses the password of {jid} ({reason}); correct it, it is tried again in {retry_secs} s"
    )]
    WrongPassword {
        /// The account.
        jid: BareJid,
        /// SASL condition.
        reason: String,
        /// Seconds until the next attempt.
        retry_secs: u64,
    },
    /// The server refuses a password that it took before: it was changed, or the server has not yet read its accounts.
    #[error(
        "the XMPP server refuses the password of {jid} ({reason}), which it took before; if it was changed, correct it, it is tried again"
    )]
    PasswordNoLongerTaken {
        /// The account.
        jid: BareJid,
        /// SASL condition.
        reason: String,
    },
    /// No common SASL mechanism.
    #[error(
        "the XMPP server of {domain} offers no SCRAM login (it offers: {offered}); PLAIN is not used, enable SCRAM-SHA-256 or SCRAM-SHA-1 there"
    )]
    NoMechanism {
        /// Domain of the JID.
        domain: String,
        /// What the server offers.
        offered: String,
    },
    /// The login failed for another reason.
    #[error("the login as {jid} fails ({reason}); the log of the XMPP server tells more")]
    LoginFailed {
        /// The account and resource.
        jid: FullJid,
        /// What failed.
        reason: String,
    },
    /// Somebody else logged in with the same full JID.
    #[error(
        "somebody else is logged in as {jid} and ends this connection; give every server its own account or resource"
    )]
    LoggedInElsewhere {
        /// The full JID that two clients use.
        jid: FullJid,
    },
    /// The server ended the connection, or it broke.
    #[error("the connection to the XMPP server is lost ({reason}); it is tried again")]
    ConnectionLost {
        /// What was seen.
        reason: String,
    },
    /// A stanza is over the limit of the server, or may come to be.
    #[error(
        "the XMPP server of {domain} refuses large stanzas ({reason}), so that changes cannot pass; allow {} bytes there (ejabberd: max_stanza_size of the listener; prosody: c2s_stanza_size_limit)",
        crate::limits::STANZA_BYTES_MAX
    )]
    StanzaLimit {
        /// Domain of the JID.
        domain: String,
        /// What the server said.
        reason: String,
    },
    /// The server reads slowly.
    #[error(
        "the XMPP server of {domain} takes only {bytes_per_second} bytes/s from this server; if it throttles clients, exempt this account or raise the limit there (ejabberd: shaper of the listener; prosody: limits, or unlimited_jids), else look at the network"
    )]
    Throttled {
        /// Domain of the JID.
        domain: String,
        /// What was measured.
        bytes_per_second: u64,
    },
    /// No MUC service answers.
    #[error("the server offers no MUC service at {service} ({reason}); set xmppsync-muc")]
    NoMucService {
        /// Domain of the room.
        service: String,
        /// What was answered.
        reason: String,
    },
    /// No pubsub service answers.
    #[error(
        "the server offers no pubsub service at {service} ({reason}); set xmppsync-pubsub; replication by the room goes on"
    )]
    NoPubsubService {
        /// JID of the service.
        service: String,
        /// What was answered.
        reason: String,
    },
    /// The own server keeps no messages for absent users (XEP-0160).
    #[error(
        "the XMPP server of {domain} keeps no messages for absent users; what this server misses while it is away it fetches from the others, or enable offline storage there"
    )]
    NoOfflineStorage {
        /// Domain of the JID.
        domain: String,
    },
    /// The own node cannot be created or configured.
    #[error("the pubsub node {node} cannot be set up ({reason}); replication by the room goes on")]
    NodeRefused {
        /// Own node.
        node: String,
        /// What was answered.
        reason: String,
    },
    /// A peer's node cannot be subscribed.
    #[error(
        "the pubsub node {node} of {peer} cannot be subscribed ({reason}); its owner has to list this JID"
    )]
    SubscriptionRefused {
        /// Owner of the node.
        peer: BareJid,
        /// Its node.
        node: String,
        /// What was answered.
        reason: String,
    },
    /// The room does not let us in.
    #[error("the room {room} refuses entry ({reason}); its owner has to list this JID")]
    RoomRefusesEntry {
        /// The room.
        room: BareJid,
        /// What was answered.
        reason: String,
    },
    /// The room or the MUC service takes nobody more.
    #[error(
        "the room {room} takes nobody more ({reason}); raise the limit of the MUC service (ejabberd: max_users of the room and of mod_muc, max_user_conferences; prosody: muc_max_rooms); it is tried again"
    )]
    RoomFull {
        /// The room.
        room: BareJid,
        /// What was answered.
        reason: String,
    },
    /// The room cannot be joined for another reason.
    #[error("the room {room} cannot be joined ({reason}); it is tried again")]
    RoomUnavailable {
        /// The room.
        room: BareJid,
        /// What was answered.
        reason: String,
    },
    /// Another occupant has the nick.
    #[error(
        "the nick {nick} is taken in the room {room}; give every server its own nick, a session of this server that died gives it up by itself"
    )]
    NickTaken {
        /// The room.
        room: BareJid,
        /// Own nick.
        nick: String,
    },
    /// The created room cannot be configured, or peers not listed.
    #[error(
        "the room {room} cannot be configured ({reason}); do it by hand: persistent, members only, moderated, JIDs visible to all, every server an owner"
    )]
    RoomNotConfigured {
        /// The room.
        room: BareJid,
        /// What was answered.
        reason: String,
    },
    /// The room is weaker than it has to be.
    #[error(
        "the room {room} is not {lacks}; its owner has to change that, others can read or join replication traffic"
    )]
    RoomTooOpen {
        /// The room.
        room: BareJid,
        /// `members-only`, `non-anonymous`, or both.
        lacks: String,
    },
    /// The room gives us no voice.
    #[error(
        "this server has no voice in the room {room}, so its changes reach nobody live; an owner of the room has to grant it"
    )]
    NoVoice {
        /// The room.
        room: BareJid,
    },
    /// We were put out of the room.
    #[error("this server was put out of the room {room} ({reason}); it tries to come back")]
    PutOut {
        /// The room.
        room: BareJid,
        /// Why.
        reason: String,
    },
    /// The room has forgotten us.
    #[error("the seat in the room {room} is lost ({reason}); it is taken again")]
    SeatLost {
        /// The room.
        room: BareJid,
        /// What was seen.
        reason: String,
    },
    /// Somebody who is no member sent replication traffic. Reported at most once per JID and minute.
    #[error(
        "{jid} is no member of this group; {dropped} of its messages were dropped; list it as a peer, or remove it from the room {room}"
    )]
    Stranger {
        /// The room.
        room: BareJid,
        /// Bare JID, or the nick if the room hides the JID.
        jid: String,
        /// Messages dropped since the last report.
        dropped: u64,
    },
    /// The room answers our messages with an error.
    #[error(
        "the room {room} refuses messages of this server ({reason}); check voice, size and rate limits of the MUC service"
    )]
    MessageRefused {
        /// The room.
        room: BareJid,
        /// What was answered.
        reason: String,
    },
}

/// Problems of one kind replace each other; only a change is reported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Everything between this process and a usable stream: one state.
    Line,
    StanzaLimit,
    Throttle,
    Muc,
    Pubsub,
    OfflineStorage,
    Node,
    Subscription(String),
    /// Everything between the stream and the seat in the room: one state.
    Entry,
    RoomConfig,
    RoomOpen,
    Voice,
    Messages,
    /// No state but an incident: never held back.
    Incident,
}

impl Problem {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::UnknownHost { .. }
            | Self::Unreachable { .. }
            | Self::NoStartTls { .. }
            | Self::CertificateRefused { .. }
            | Self::TlsFailed { .. }
            | Self::CaUnreadable { .. }
            | Self::WrongPassword { .. }
            | Self::PasswordNoLongerTaken { .. }
            | Self::NoMechanism { .. }
            | Self::LoginFailed { .. }
            | Self::LoggedInElsewhere { .. }
            | Self::ConnectionLost { .. } => Kind::Line,
            Self::StanzaLimit { .. } => Kind::StanzaLimit,
            Self::Throttled { .. } => Kind::Throttle,
            Self::NoMucService { .. } => Kind::Muc,
            Self::NoPubsubService { .. } => Kind::Pubsub,
            Self::NoOfflineStorage { .. } => Kind::OfflineStorage,
            Self::NodeRefused { .. } => Kind::Node,
            Self::SubscriptionRefused { node, .. } => Kind::Subscription(node.clone()),
            Self::RoomRefusesEntry { .. }
            | Self::RoomFull { .. }
            | Self::RoomUnavailable { .. }
            | Self::NickTaken { .. }
            | Self::PutOut { .. }
            | Self::SeatLost { .. } => Kind::Entry,
            Self::RoomNotConfigured { .. } => Kind::RoomConfig,
            Self::RoomTooOpen { .. } => Kind::RoomOpen,
            Self::NoVoice { .. } => Kind::Voice,
            Self::MessageRefused { .. } => Kind::Messages,
            Self::Stranger { .. } => Kind::Incident,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_sentence_that_says_what_to_do() {
        let problem = Problem::NoMucService {
            service: "conference.example.org".into(),
            reason: "item-not-found".into(),
        };
        assert_eq!(
            problem.to_string(),
            "the server offers no MUC service at conference.example.org (item-not-found); set xmppsync-muc"
        );
    }

    #[test]
    fn all_causes_of_a_dead_line_are_one_state() {
        let lost = Problem::ConnectionLost { reason: "x".into() };
        let host = Problem::UnknownHost { host: "h".into(), reason: "y".into() };
        assert_eq!(lost.kind(), host.kind());
    }
}

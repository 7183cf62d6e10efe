//! The directives of one database: kept as the admin wrote them, judged one by one and as a whole.

use crate::boundary::*;
use crate::quantity;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tracing::warn;
use xmpp_parsers::jid::{BareJid, FullJid, Jid};
use xmppsync_link::{GroupConfig, Password, Server, SessionConfig, Tls, TransferConfig};
use xmppsync_node::{KeepConfig, ReplicaConfig};
use xmppsync_replica::{BootId, EntryUuid, ServerId};
use xmppsync_wire::Live;

/// The port of XMPP clients (RFC 6120), and the customary one of direct TLS.
const PORT: u16 = 5222;
const PORT_DIRECT: u16 = 5223;

/// How a certificate in a PEM file begins (RFC 7468).
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The journal's directory in that of the database.
const JOURNAL: &str = "xmppsync";

/// Names of the directives by their key.
const NAMES: [(u32, &str); 20] = [
    (XS_KEY_REPLICATED, "xmppsync-replicated"),
    (XS_KEY_JID, "xmppsync-jid"),
    (XS_KEY_PASSWORD, "xmppsync-password"),
    (XS_KEY_PASSWORD_FILE, "xmppsync-password-file"),
    (XS_KEY_SERVER, "xmppsync-server"),
    (XS_KEY_TLS, "xmppsync-tls"),
    (XS_KEY_TLS_CA, "xmppsync-tls-ca"),
    (XS_KEY_MUC, "xmppsync-muc"),
    (XS_KEY_PUBSUB, "xmppsync-pubsub"),
    (XS_KEY_ROOM, "xmppsync-room"),
    (XS_KEY_PEER, "xmppsync-peer"),
    (XS_KEY_LIVE, "xmppsync-live"),
    (XS_KEY_JOURNAL, "xmppsync-journal"),
    (XS_KEY_RETENTION, "xmppsync-retention"),
    (XS_KEY_JOURNAL_SIZE, "xmppsync-journal-size"),
    (XS_KEY_OFFLINE_MESSAGES, "xmppsync-offline-messages"),
    (XS_KEY_CHECK_INTERVAL, "xmppsync-check-interval"),
    (XS_KEY_LOAD_FROM, "xmppsync-load-from"),
    (XS_KEY_SERVE_WHILE_LOADING, "xmppsync-serve-while-loading"),
    (XS_KEY_MAX_DRIFT, "xmppsync-max-drift"),
];

/// What slapd says of the database.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseFacts {
    pub(crate) suffix: String,
    pub(crate) nsuffix: String,
    pub(crate) server_id: u32,
    pub(crate) has_rootdn: bool,
    pub(crate) has_lastmod: bool,
    pub(crate) has_uuid_index: bool,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) suffix_uuid: Option<EntryUuid>,
}

/// Key and value of each directive in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings(Vec<(u32, String)>);

impl Settings {
    /// # Errors
    /// A sentence that names the directive and says what would be right.
    pub(crate) fn set(&mut self, key: u32, value: &str) -> Result<(), String> {
        let value = match key {
            XS_KEY_REPLICATED | XS_KEY_SERVE_WHILE_LOADING => on_or_off(value),
            _ => check(key, value).map(|()| value),
        };
        let value = value.map_err(|problem| format!("<{}> {problem}", name(key)))?;
        if key != XS_KEY_PEER {
            self.delete(key, None);
        } else if self.values(key).any(|known| known == value) {
            return Err(format!("<{}> \"{value}\" is there already", name(key)));
        }
        self.0.push((key, value.to_owned()));
        Ok(())
    }

    pub(crate) fn get(&self, key: u32, index: usize) -> Option<&str> {
        self.values(key).nth(index)
    }

    pub(crate) fn delete(&mut self, key: u32, index: Option<usize>) {
        let mut seen = 0;
        self.0.retain(|(other, _)| {
            if *other != key {
                return true;
            }
            let this = seen;
            seen += 1;
            index.is_some_and(|index| index != this)
        });
    }

    fn values(&self, key: u32) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| *other == key).map(|(_, value)| value.as_str())
    }

    fn value(&self, key: u32) -> Option<&str> {
        self.get(key, 0)
    }

    /// Whether anything is to be replicated at all.
    pub(crate) fn replicated(&self) -> bool {
        self.value(XS_KEY_REPLICATED) != Some("off")
    }

    /// Everything together, with the defaults filled in.
    ///
    /// # Errors
    /// A sentence that says what is missing and what would be right.
    pub(crate) fn complete(&self, facts: &DatabaseFacts, boot: BootId) -> Result<ReplicaConfig, String> {
        let of = format!("database \"{}\":", facts.suffix);
        if facts.nsuffix.is_empty() {
            return Err(format!("{of} it has no suffix; write a suffix line before overlay xmppsync"));
        }
        let server_id = ServerId::new(facts.server_id).map_err(|_| {
            format!("{of} serverID is not set; write serverID with a number from 1 to 4094, different on every server, before the databases")
        })?;
        if server_id == ServerId::NONE {
            return Err(format!(
                "{of} serverID {server_id} is taken: it stands for entries that were made without one; use another number"
            ));
        }
        if !facts.has_rootdn {
            return Err(format!("{of} rootdn is missing; changes of other servers are written in its name"));
        }
        if !facts.has_lastmod {
            return Err(format!("{of} lastmod is off; replication needs entryCSN, write lastmod on"));
        }
        if !facts.has_uuid_index {
            warn!(
                "{of} entryUUID is not indexed, so every new or renamed entry costs a walk through all of them; write index entryUUID eq"
            );
        }
        let jid = self.jid(&of, &facts.nsuffix)?;
        let domain = jid.domain().to_string();
        let service = |key, default: &str| match self.value(key) {
            Some(service) => {
                BareJid::new(service).map_err(|problem| format!("{of} <{}> {problem}", name(key)))
            }
            None => BareJid::new(&format!("{default}.{domain}")).map_err(|problem| format!("{of} {problem}")),
        };
        let room = self.value(XS_KEY_ROOM).unwrap_or(&facts.nsuffix);
        let muc = service(XS_KEY_MUC, "conference")?;
        let room = BareJid::new(&format!("{}@{}", escape_node(room), muc.domain())).map_err(|problem| {
            format!("{of} the room \"{room}\" is no name for a room ({problem}); set xmppsync-room")
        })?;
        let own = jid.to_bare();
        let peers: Vec<BareJid> = self
            .values(XS_KEY_PEER)
            .filter_map(|peer| BareJid::new(peer).ok())
            .filter(|peer| *peer != own)
            .collect();
        if peers.is_empty() {
            warn!("{of} no xmppsync-peer is configured: nobody is let into the group");
        }
        let keep = self.keep(&of, facts, &own, &peers)?;
        let node = own.node().map(ToString::to_string).unwrap_or_default();
        Ok(ReplicaConfig {
            suffix: facts.suffix.clone(),
            nsuffix: facts.nsuffix.clone(),
            server_id,
            boot,
            live: if self.value(XS_KEY_LIVE) == Some("pubsub") { Live::Pubsub } else { Live::Muc },
            group: GroupConfig {
                nick: format!("{node}-{server_id}"),
                peers,
                room_title: format!("LDAP replication of {}", facts.suffix),
                pubsub: service(XS_KEY_PUBSUB, "pubsub")?,
                node: format!("ldapsync/{server_id}/{}", facts.nsuffix),
                room,
            },
            session: self.session(&of, jid)?,
            keep,
            max_drift: quantity::time(self.value(XS_KEY_MAX_DRIFT).unwrap_or("1d"), false)
                .map_err(|problem| format!("{of} <{}> {problem}", name(XS_KEY_MAX_DRIFT)))?,
        })
    }

    fn keep(
        &self,
        of: &str,
        facts: &DatabaseFacts,
        own: &BareJid,
        peers: &[BareJid],
    ) -> Result<KeepConfig, String> {
        let journal = match (self.value(XS_KEY_JOURNAL), &facts.directory) {
            (Some(journal), _) => PathBuf::from(journal),
            (None, Some(directory)) => directory.join(JOURNAL),
            (None, None) => {
                return Err(format!(
                    "{of} its backend has no directory of its own; set xmppsync-journal to a directory for the journal"
                ));
            }
        };
        let value = |key, default| self.value(key).unwrap_or(default);
        let wrong = |key: u32| move |problem: String| format!("{of} <{}> {problem}", name(key));
        let load_from = match self.value(XS_KEY_LOAD_FROM).and_then(|jid| BareJid::new(jid).ok()) {
            // The configuration may be the same on every server.
            Some(jid) if jid == *own => None,
            Some(jid) if !peers.contains(&jid) => {
                return Err(format!(
                    "{of} <xmppsync-load-from> {jid} is no member of the group; write xmppsync-peer {jid}"
                ));
            }
            other => other,
        };
        let interval =
            quantity::time(value(XS_KEY_CHECK_INTERVAL, "1d"), true).map_err(wrong(XS_KEY_CHECK_INTERVAL))?;
        Ok(KeepConfig {
            journal,
            retention: quantity::time(value(XS_KEY_RETENTION, "7d"), false)
                .map_err(wrong(XS_KEY_RETENTION))?,
            journal_size: quantity::journal_bytes(value(XS_KEY_JOURNAL_SIZE, "1g"))
                .map_err(wrong(XS_KEY_JOURNAL_SIZE))?,
            offline_messages: quantity::messages(value(XS_KEY_OFFLINE_MESSAGES, "100"))
                .map_err(wrong(XS_KEY_OFFLINE_MESSAGES))?,
            check_interval: (!interval.is_zero()).then_some(interval),
            load_from,
            serve_while_loading: self.value(XS_KEY_SERVE_WHILE_LOADING) != Some("off"),
        })
    }

    fn jid(&self, of: &str, nsuffix: &str) -> Result<FullJid, String> {
        let jid = self.value(XS_KEY_JID).ok_or_else(|| {
            format!(
                "{of} xmppsync-jid is missing; write xmppsync-jid user@domain with this server's XMPP account"
            )
        })?;
        let jid = Jid::new(jid).map_err(|problem| format!("{of} <xmppsync-jid> {problem}"))?;
        match jid.try_into_full() {
            Ok(full) => Ok(full),
            Err(bare) => {
                let resource = format!("ldapsync-{}", short_hash(nsuffix));
                bare.with_resource_str(&resource).map_err(|problem| format!("{of} <xmppsync-jid> {problem}"))
            }
        }
    }

    fn session(&self, of: &str, jid: FullJid) -> Result<SessionConfig, String> {
        let tls = match self.value(XS_KEY_TLS) {
            Some("direct") => Tls::Direct,
            Some("insecure-plaintext") => Tls::InsecurePlaintext,
            _ => Tls::StartTls,
        };
        let default_port = if tls == Tls::Direct { PORT_DIRECT } else { PORT };
        let server = match self.value(XS_KEY_SERVER) {
            Some(server) => {
                let (host, port) =
                    host_and_port(server).map_err(|problem| format!("{of} <xmppsync-server> {problem}"))?;
                Server::Host { host, port: port.unwrap_or(default_port) }
            }
            None => Server::Srv,
        };
        Ok(SessionConfig {
            jid,
            password: self.password(of)?,
            server,
            tls,
            ca: self.value(XS_KEY_TLS_CA).map(PathBuf::from),
            transfer: TransferConfig::default(),
        })
    }

    fn password(&self, of: &str) -> Result<Password, String> {
        match (self.value(XS_KEY_PASSWORD), self.value(XS_KEY_PASSWORD_FILE)) {
            (Some(password), None) => Ok(Password::new(password)),
            (None, Some(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|problem| format!("{of} <xmppsync-password-file> {path}: {problem}"))?;
                let readable = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o007 != 0);
                if readable {
                    warn!(
                        "the password file {path} can be read by every user of this machine; run chmod o= {path}"
                    );
                }
                match text.lines().next().filter(|line| !line.is_empty()) {
                    Some(password) => Ok(Password::new(password)),
                    None => Err(format!(
                        "{of} <xmppsync-password-file> the first line of {path} is empty; it has to be the password"
                    )),
                }
            }
            (None, None) => Err(format!(
                "{of} xmppsync-password-file is missing (or xmppsync-password); write one of the two"
            )),
            (Some(_), Some(_)) => Err(format!(
                "{of} both xmppsync-password and xmppsync-password-file are set; write one of the two"
            )),
        }
    }
}

fn name(key: u32) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == key).map_or("?", |(_, name)| name)
}

/// Judges one value. The error goes on behind the directive's name.
fn check(key: u32, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("is empty".to_owned());
    }
    match key {
        XS_KEY_JID => match Jid::new(value) {
            Ok(jid) if jid.node().is_some() => Ok(()),
            Ok(_) => Err(format!("\"{value}\" has no local part; write user@domain or user@domain/resource")),
            Err(problem) => {
                Err(format!("\"{value}\" is no JID ({problem}); write user@domain or user@domain/resource"))
            }
        },
        XS_KEY_PEER | XS_KEY_LOAD_FROM => match Jid::new(value) {
            Ok(jid) if jid.node().is_some() && jid.resource().is_none() => Ok(()),
            Ok(jid) if jid.node().is_some() => {
                Err(format!("\"{value}\" has a resource; write {}", jid.to_bare()))
            }
            _ => Err(format!("\"{value}\" is no account; write user@domain")),
        },
        XS_KEY_MUC | XS_KEY_PUBSUB => match BareJid::new(value) {
            Ok(_) => Ok(()),
            Err(problem) => Err(format!(
                "\"{value}\" is no JID of a service ({problem}); write for example conference.example.com"
            )),
        },
        XS_KEY_ROOM => match BareJid::new(&format!("{}@x", escape_node(value))) {
            Ok(_) => Ok(()),
            Err(problem) => Err(format!("\"{value}\" cannot name a room ({problem})")),
        },
        XS_KEY_SERVER => host_and_port(value).map(drop),
        XS_KEY_TLS => one_of(value, &["starttls", "direct", "insecure-plaintext"]),
        XS_KEY_LIVE => one_of(value, &["muc", "pubsub"]),
        XS_KEY_PASSWORD_FILE => readable(value).map(drop),
        XS_KEY_TLS_CA => match readable(value)?
            .windows(PEM_CERTIFICATE.len())
            .any(|text| text == PEM_CERTIFICATE)
        {
            true => Ok(()),
            false => Err(format!("{value} holds no certificate; it has to be a PEM file of the authorities")),
        },
        XS_KEY_RETENTION | XS_KEY_MAX_DRIFT => quantity::time(value, false).map(drop),
        XS_KEY_CHECK_INTERVAL => quantity::time(value, true).map(drop),
        XS_KEY_JOURNAL_SIZE => quantity::journal_bytes(value).map(drop),
        XS_KEY_OFFLINE_MESSAGES => quantity::messages(value).map(drop),
        XS_KEY_JOURNAL if !Path::new(value).is_absolute() => Err(format!("\"{value}\" is no absolute path")),
        _ => Ok(()),
    }
}

/// slapd's words for a boolean, and LDAP's.
fn on_or_off(value: &str) -> Result<&'static str, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" => Ok("on"),
        "off" | "no" | "false" => Ok("off"),
        _ => Err(format!("\"{value}\" is unknown; write on, or off")),
    }
}

/// The content of a file; opening alone would not tell of a directory.
fn readable(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|problem| format!("{path} cannot be read: {problem}"))
}

fn one_of(value: &str, words: &[&str]) -> Result<(), String> {
    match words.contains(&value) {
        true => Ok(()),
        false => Err(format!("\"{value}\" is unknown; write {}", words.join(", or "))),
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`, or a bare IPv6 address.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let wrong =
        || format!("\"{text}\" is no server; write host or host:port, for example xmpp.example.com:5222");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")).ok_or_else(wrong)?)
        }
        None => match text.split_once(':') {
            Some((_, more)) if more.contains(':') => (text, ""),
            Some((host, "")) => {
                return Err(format!("\"{host}:\" has no port; write {host} or {host}:{PORT}"));
            }
            Some((host, port)) => (host, port),
            None => (text, ""),
        },
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let port = match port {
        "" => None,
        port => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
    };
    Ok((host.to_owned(), port))
}

/// XEP-0106: what a local part of a JID must not hold.
fn escape_node(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (index, character) in text.char_indices() {
        match character {
            ' ' | '"' | '&' | '\'' | '/' | ':' | '<' | '>' | '@' => {
                escaped.push_str(&format!("\\{:02x}", character as u32))
            }
            // A backslash that could be read as the beginning of an escape.
            '\\' if begins_escape(&text[index + 1..]) => escaped.push_str("\\5c"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn begins_escape(rest: &str) -> bool {
    const CODES: [&str; 10] = ["20", "22", "26", "27", "2f", "3a", "3c", "3e", "40", "5c"];
    rest.get(..2).is_some_and(|code| CODES.contains(&code.to_ascii_lowercase().as_str()))
}

fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

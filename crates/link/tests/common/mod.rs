//! A real ejabberd with accounts, and members of a group on it.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its part")]

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use xmppsync_lab::{LabDir, XmppOptions, XmppServer};
use xmppsync_link::{
    BareJid, Element, Event, FullJid, Group, GroupConfig, NS_LDAPSYNC, Password, Server, Session,
    SessionConfig, Tls, TransferConfig,
};

pub const DEADLINE: Duration = Duration::from_secs(40);

/// A server with accounts whose password is their name.
pub struct Bed {
    pub xmpp: XmppServer,
}

impl Bed {
    pub fn start(users: &[&str]) -> Self {
        Self::with(XmppOptions::default(), users)
    }

    pub fn with(options: XmppOptions, users: &[&str]) -> Self {
        let lab = LabDir::new().unwrap();
        let mut xmpp = XmppServer::start(&lab, options).unwrap();
        for user in users {
            xmpp.register(user, user).unwrap();
        }
        Self { xmpp }
    }

    pub fn jid(&self, user: &str) -> BareJid {
        BareJid::new(&format!("{user}@{}", self.xmpp.domain())).unwrap()
    }

    pub fn config(&self, user: &str) -> SessionConfig {
        let address = self.xmpp.client_address();
        SessionConfig {
            jid: FullJid::new(&format!("{}/ldap", self.jid(user))).unwrap(),
            password: Password::new(user),
            server: Server::Host { host: address.ip().to_string(), port: address.port() },
            tls: Tls::StartTls,
            ca: Some(self.xmpp.ca_file()),
            transfer: TransferConfig::default(),
        }
    }

    pub fn group(&self, user: &str, peers: &[&str]) -> GroupConfig {
        let domain = self.xmpp.domain();
        GroupConfig {
            room: BareJid::new(&format!("suffix@conference.{domain}")).unwrap(),
            nick: format!("{user}-nick"),
            peers: peers.iter().map(|peer| self.jid(peer)).collect(),
            room_title: "dc=example".to_owned(),
            pubsub: BareJid::new(&format!("pubsub.{domain}")).unwrap(),
            node: node_of(user),
        }
    }

    /// A member that connects as it should.
    pub async fn member(&self, user: &str, peers: &[&str]) -> Member {
        Member::new(self.config(user), self.group(user, peers)).await
    }
}

pub fn node_of(user: &str) -> String {
    format!("urn:xmpp:ldapsync:0/dc=example/{user}")
}

pub fn payload(text: &str) -> Element {
    Element::builder("batch", NS_LDAPSYNC).append(text).build()
}

pub fn card(text: &str) -> Element {
    Element::builder("card", NS_LDAPSYNC).append(text).build()
}

/// A session with one group.
pub struct Member {
    pub session: Session,
    pub group: Group,
    pub events: mpsc::Receiver<Event>,
    seen: Vec<String>,
}

impl Member {
    pub async fn new(config: SessionConfig, group: GroupConfig) -> Self {
        let name = config.jid.to_string();
        let session = Session::start(config);
        let (group, events) = session.attach(group, card(&name)).await.unwrap();
        Self { session, group, events, seen: Vec::new() }
    }

    /// The next event for which `pick` has a value; fails with what was seen instead.
    pub async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => {
                    self.seen.push(short(&event));
                    if let Some(value) = pick(&event) {
                        return value;
                    }
                }
                Ok(None) => panic!("{what}: the session ended; seen: {:#?}", self.seen),
                Err(_) => panic!("{what}: not in time; seen: {:#?}", self.seen),
            }
        }
    }

    pub async fn online(&mut self) {
        self.until("online", |event| matches!(event, Event::Online).then_some(())).await;
    }

    pub async fn offline(&mut self) {
        self.until("offline", |event| matches!(event, Event::Offline { .. }).then_some(())).await;
    }

    pub async fn problem(&mut self, words: &str) -> String {
        self.until(words, |event| match event {
            Event::Problem(problem) => Some(problem.to_string()).filter(|text| text.contains(words)),
            _ => None,
        })
        .await
    }

    pub async fn card_of(&mut self, jid: &BareJid) -> String {
        self.until("card", |event| match event {
            Event::Card { jid: from, payload, .. } if from.to_bare() == *jid => Some(payload.text()),
            _ => None,
        })
        .await
    }

    pub async fn live(&mut self) -> (BareJid, String) {
        self.until("live payload", |event| match event {
            Event::Live { from, payload, .. } => Some((from.clone(), payload.text())),
            _ => None,
        })
        .await
    }

    /// Everything that came up to now.
    pub fn drain(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub async fn close(self) {
        drop(self.group);
        self.session.close(Duration::from_secs(5)).await;
    }
}

/// What is printed of an event when a test fails.
fn short(event: &Event) -> String {
    match event {
        Event::Problem(problem) => format!("Problem: {problem}"),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}

/// Waits for a condition of the outside.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

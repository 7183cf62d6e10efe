//! The ways in for fuzz targets and their smoke run: whatever an XMPP server may send, without one.

mod files;

pub use files::{frames, sealed, socks};

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use xmpp_parsers::disco::DiscoInfoResult;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::pubsub::{self, Owner};
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::StanzaError;

use crate::command::{Attach, Command, GroupId, Shared, ToGroup};
use crate::config::GroupConfig;
use crate::core::Core;
use crate::elements::{MucAdmin, MucOwner, NS_LDAPSYNC, NodeMembers, error_words, fit_for_wire, is_payload};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::occupants::MucUser;
use crate::setup::features;

/// Room, peer and services of the group that [`receive`] feeds, as the seeds name them.
const ROOM: &str = "room@conference.example.org";

/// Stands in an input for the id of the oldest request without an answer, and for whom it went to.
const ID: &str = "REQUEST-ID";
const ASKED: &str = "REQUEST-TO";

/// Stanzas of one input; more would only make it slow.
const STANZAS_MAX: usize = 64;

/// Reads an element with each decoder of this crate. Panics where a list that was read is written otherwise.
pub fn decode(xml: &[u8]) {
    let Ok(element) = xso::from_bytes::<Element>(xml) else { return };
    let _ = (is_payload(&element), fit_for_wire(&element, PAYLOAD_BYTES_MAX));
    if let Some(user) = MucUser::find(std::slice::from_ref(&element)) {
        let _ = (user.farewell(), user.has(110));
    }
    let _ = features(Ok(Some(element.clone())));
    let _ = DiscoInfoResult::try_from(element.clone());
    let _ = (pubsub::Event::try_from(element.clone()), Owner::try_from(element.clone()));
    let _ = MucOwner::try_from(element.clone());
    if let Ok(error) = StanzaError::try_from(element.clone()) {
        let _ = error_words(&error);
    }
    if let Ok(list) = MucAdmin::try_from(element.clone()) {
        assert_eq!(MucAdmin::try_from(Element::from(list.clone())).ok(), Some(list));
    }
    if let Ok(list) = NodeMembers::try_from(element) {
        assert_eq!(NodeMembers::try_from(Element::from(list.clone())).ok(), Some(list));
    }
}

/// Receives stanzas, one a line, as a session that is logged in and has one group; no event comes of what is no
/// payload of this crate.
pub fn receive(lines: &[u8]) {
    let (commands, _queue) = mpsc::channel(8);
    let Ok(own) = FullJid::new("a@example.org/ldap") else { return };
    let mut core = Core::new(own.clone(), commands.downgrade(), || 0.5);
    let (events, mut received) = mpsc::channel(1024);
    let Some(config) = config() else { return };
    let peer = config.peers[0].clone();
    let (done, _attached) = oneshot::channel();
    let shared = Arc::<Shared>::default();
    let card = Element::bare("replica", NS_LDAPSYNC);
    let now = Instant::now();
    core.handle_command(Command::Attach(Box::new(Attach { config, card, events, shared, done })), now);
    core.handle_up(own, now);
    let subscribe = ToGroup::Subscribe { peer, node: "node-b".to_owned() };
    core.handle_command(Command::Group(GroupId(1), subscribe), now);
    let mut asked: std::collections::VecDeque<(String, String)> = std::collections::VecDeque::new();
    for (number, line) in lines.split(|byte| *byte == b'\n').take(STANZAS_MAX).enumerate() {
        for stanza in core.out.stanzas.drain(..) {
            if let Stanza::Iq(iq @ (Iq::Get { .. } | Iq::Set { .. })) = stanza {
                asked.push_back((iq.id().to_owned(), iq.to().map(ToString::to_string).unwrap_or_default()));
            }
        }
        let Ok(text) = str::from_utf8(line) else { continue };
        let text = if text.contains(ID) {
            let (id, to) = asked.pop_front().unwrap_or_default();
            text.replace(ID, &id).replace(ASKED, &to)
        } else {
            text.to_owned()
        };
        let now = now + Duration::from_secs(number as u64);
        if let Ok(stanza) = xso::from_bytes::<Stanza>(text.as_bytes()) {
            core.handle_stanza(stanza, now);
        }
        core.handle_timeout(now);
        while received.try_recv().is_ok() {}
    }
}

fn config() -> Option<GroupConfig> {
    Some(GroupConfig {
        room: BareJid::new(ROOM).ok()?,
        nick: "a".to_owned(),
        peers: vec![BareJid::new("b@example.org").ok()?],
        room_title: String::new(),
        pubsub: BareJid::new("pubsub.example.org").ok()?,
        node: "node-a".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::path::Path;

    /// The seeds of a fuzz target.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let mut files: Vec<_> = std::fs::read_dir(place).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    /// Puts pieces of the seeds and other bytes somewhere, and takes what was there away.
    fn bent(mut text: Vec<u8>, bends: &[(Index, usize, Vec<u8>)]) -> Vec<u8> {
        for (at, length, piece) in bends {
            let begin = at.index(text.len() + 1);
            let end = text.len().min(begin + length);
            text.splice(begin..end, piece.iter().copied());
        }
        text
    }

    fn piece(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let of_seed = (any::<Index>(), any::<Index>(), 0_usize..80).prop_map(move |(seed, at, length)| {
            let seed = &seeds[seed.index(seeds.len())];
            let begin = at.index(seed.len());
            seed[begin..seed.len().min(begin + length)].to_vec()
        });
        let words: [&[u8]; 8] =
            [b"", b"'", b"<", b"/>", b"&#x0;", b"jid='@'", b"code='99999'", b"<status code='110'/>"];
        prop_oneof![
            of_seed,
            proptest::collection::vec(any::<u8>(), 0..8),
            proptest::sample::select(words.to_vec()).prop_map(<[u8]>::to_vec),
        ]
    }

    fn inputs(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
        let seeds = seeds(target);
        let bends = proptest::collection::vec((any::<Index>(), 0_usize..40, piece(seeds.clone())), 0..5);
        (proptest::sample::select(seeds), bends).prop_map(|(seed, bends)| bent(seed, &bends))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn bent_elements_never_panic_a_decoder(input in inputs("link_elements")) {
            decode(&input);
        }

        #[test]
        fn bent_stanzas_never_panic_a_session(input in inputs("link_session")) {
            receive(&input);
        }
    }

    #[test]
    fn the_seeds_are_what_the_decoders_read() {
        for seed in seeds("link_elements") {
            xso::from_bytes::<Element>(&seed).unwrap();
            decode(&seed);
        }
        for seed in seeds("link_session") {
            for line in seed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let text = String::from_utf8_lossy(line).replace(ASKED, "example.org");
                xso::from_bytes::<Stanza>(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
            }
            receive(&seed);
        }
    }
}

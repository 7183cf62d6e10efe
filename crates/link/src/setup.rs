//! What a room has to be like: created, configured, and with the peers in its list of owners.

use xmpp_parsers::disco::{DiscoInfoQuery, DiscoInfoResult};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::muc::user::Affiliation;
use xmpp_parsers::ns;

use crate::elements::{MucAdmin, MucAdminItem, MucOwner, NS_MUC_CONFIG, form};
use crate::limits::IQ_TIMEOUT;
use crate::out::{Asked, Cx, IqResult, RoomIq};
use crate::problem::{Kind, Problem};

/// See the module's documentation.
pub(crate) struct Setup {
    room: BareJid,
    title: String,
    owner: bool,
    /// A room that stays open after we configured it is not configured again and again.
    repaired: bool,
}

impl Setup {
    pub(crate) fn new(room: BareJid, title: String) -> Self {
        Self { room, title, owner: false, repaired: false }
    }

    pub(crate) fn set_owner(&mut self, owner: bool) {
        self.owner = owner;
    }

    fn service(&self) -> Jid {
        BareJid::from_parts(None, self.room.domain()).into()
    }

    /// Looks whether there is a MUC service at all.
    pub(crate) fn ask_service(&mut self, cx: &mut Cx<'_>) {
        self.repaired = false;
        cx.get(self.service(), DiscoInfoQuery { node: None }, Asked::Room(RoomIq::Service));
    }

    /// Looks what the room is like.
    pub(crate) fn ask_features(&self, cx: &mut Cx<'_>) {
        cx.get(self.room.clone().into(), DiscoInfoQuery { node: None }, Asked::Room(RoomIq::Features));
    }

    /// The room is new: list the owners first, then close it. The other way round, a server that slipped in
    /// between would be put out as a non-member.
    pub(crate) fn begin(&mut self, cx: &mut Cx<'_>) {
        self.owner = true;
        if cx.peers.is_empty() {
            self.configure(cx);
        } else {
            let peers = cx.peers.iter().cloned().collect();
            self.grant(peers, cx);
        }
    }

    /// The seat is taken in a room that exists: is it as it has to be?
    pub(crate) fn check(&self, cx: &mut Cx<'_>) {
        self.ask_features(cx);
        if self.owner && !cx.peers.is_empty() {
            let item = MucAdminItem { affiliation: Affiliation::Owner, jid: None };
            cx.get(self.room.clone().into(), MucAdmin { items: vec![item] }, Asked::Room(RoomIq::Owners));
        }
    }

    /// Every server is an owner: whichever comes first can create and repair the room.
    fn grant(&self, peers: Vec<BareJid>, cx: &mut Cx<'_>) {
        let item = |jid| MucAdminItem { affiliation: Affiliation::Owner, jid: Some(jid) };
        let admin = MucAdmin { items: peers.into_iter().map(item).collect() };
        cx.set(self.room.clone().into(), admin, Asked::Room(RoomIq::Grant));
    }

    fn configure(&self, cx: &mut Cx<'_>) {
        let fields = [
            ("muc#roomconfig_roomname", self.title.as_str()),
            ("muc#roomconfig_persistentroom", "1"),
            ("muc#roomconfig_membersonly", "1"),
            ("muc#roomconfig_moderatedroom", "1"),
            ("muc#roomconfig_publicroom", "0"),
            ("muc#roomconfig_whois", "anyone"),
        ];
        let query = MucOwner { form: Some(form(NS_MUC_CONFIG, &fields)) };
        let room = self.room.clone().into();
        cx.out.ask((cx.now, cx.group), room, IQ_TIMEOUT, Asked::Room(RoomIq::Configure), |to, id| Iq::Set {
            from: None,
            to,
            id,
            payload: query.into(),
        });
    }

    /// An answer; `true` when a new room is ready.
    pub(crate) fn handle_iq(
        &mut self,
        what: RoomIq,
        result: IqResult,
        configuring: bool,
        cx: &mut Cx<'_>,
    ) -> bool {
        match what {
            RoomIq::Service => self.handle_service(result, cx),
            RoomIq::Features => self.handle_features(result, cx),
            RoomIq::Owners => self.handle_owners(result, cx),
            RoomIq::Grant => {
                self.note(result, cx);
                if configuring {
                    self.configure(cx);
                }
            }
            RoomIq::Configure => {
                if self.note(result, cx) && !configuring {
                    self.ask_features(cx);
                }
                return configuring;
            }
            RoomIq::SelfPing => {}
        }
        false
    }

    /// Reports a failed configuration.
    fn note(&self, result: IqResult, cx: &mut Cx<'_>) -> bool {
        match result {
            Ok(_) => {
                cx.outlet.solved(&Kind::RoomConfig);
                true
            }
            Err(failure) => {
                let reason = failure.to_string();
                cx.outlet.problem(Problem::RoomNotConfigured { room: self.room.clone(), reason });
                false
            }
        }
    }

    fn handle_service(&self, result: IqResult, cx: &mut Cx<'_>) {
        match features(result) {
            Ok(features) if features.contains(ns::MUC) => cx.outlet.solved(&Kind::Muc),
            // It is asked often; another reason for the same is no news.
            _ if cx.outlet.is_open(&Kind::Muc) => {}
            other => {
                let reason = other.err().unwrap_or_else(|| "what is there is no MUC service".to_owned());
                let service = self.service().to_string();
                cx.outlet.problem(Problem::NoMucService { service, reason });
            }
        }
    }

    fn handle_features(&mut self, result: IqResult, cx: &mut Cx<'_>) {
        let Ok(features) = features(result) else { return };
        let wanted = [("muc_membersonly", "members-only"), ("muc_nonanonymous", "non-anonymous")];
        let lacks: Vec<_> = wanted
            .iter()
            .filter(|(feature, _)| !features.contains(*feature))
            .map(|(_, word)| *word)
            .collect();
        if lacks.is_empty() {
            cx.outlet.solved(&Kind::RoomOpen);
        } else if self.owner && !self.repaired {
            self.repaired = true;
            self.configure(cx);
        } else {
            let lacks = lacks.join(" and ");
            cx.outlet.problem(Problem::RoomTooOpen { room: self.room.clone(), lacks });
        }
    }

    fn handle_owners(&self, result: IqResult, cx: &mut Cx<'_>) {
        let listed = match result.map(|payload| payload.map(MucAdmin::try_from)) {
            Ok(Some(Ok(admin))) => admin.items,
            _ => return,
        };
        let is_listed = |peer: &BareJid| listed.iter().any(|item| item.jid.as_ref() == Some(peer));
        let missing: Vec<_> = cx.peers.iter().filter(|peer| !is_listed(peer)).cloned().collect();
        if !missing.is_empty() {
            self.grant(missing, cx);
        }
    }
}

/// The features in an answer to disco#info.
pub(crate) fn features(result: IqResult) -> Result<std::collections::BTreeSet<String>, String> {
    match result {
        Ok(Some(payload)) => match DiscoInfoResult::try_from(payload) {
            Ok(info) => Ok(info.features),
            Err(error) => Err(error.to_string()),
        },
        Ok(None) => Err("empty answer".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}

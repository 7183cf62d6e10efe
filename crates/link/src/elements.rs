//! Elements that xmpp-parsers lacks, and what is needed to look into payloads without knowing them.

use xmpp_parsers::data_forms::{DataForm, DataFormType, Field};
use xmpp_parsers::jid::BareJid;
use xmpp_parsers::minidom::{Element, Node};
use xmpp_parsers::muc::user::Affiliation;
use xmpp_parsers::ns;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use xso::{AsXml, FromXml};

use crate::limits::PAYLOAD_DEPTH_MAX;

/// Namespace of the payloads that this crate carries.
pub const NS_LDAPSYNC: &str = "urn:xmpp:ldapsync:0";

pub(crate) const NS_HINTS: &str = "urn:xmpp:hints";
pub(crate) const NS_MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
pub(crate) const NS_MUC_ADMIN: &str = "http://jabber.org/protocol/muc#admin";
pub(crate) const NS_MUC_CONFIG: &str = "http://jabber.org/protocol/muc#roomconfig";

/// XEP-0334: change traffic does not belong into archives. Archiving in ejabberd's mnesia is quadratic.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_HINTS, name = "no-store")]
pub(crate) struct NoStore;

/// XEP-0334: a message without a body is not worth keeping to a server, unless told so.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_HINTS, name = "store")]
pub(crate) struct Store;

/// XEP-0045, section 10: the room's configuration.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_MUC_OWNER, name = "query")]
pub(crate) struct MucOwner {
    #[xml(child(default))]
    pub(crate) form: Option<DataForm>,
}

/// XEP-0045, section 9: lists of affiliations.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_MUC_ADMIN, name = "query")]
pub(crate) struct MucAdmin {
    #[xml(child(n = ..))]
    pub(crate) items: Vec<MucAdminItem>,
}

/// One entry of a list of affiliations.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = NS_MUC_ADMIN, name = "item")]
pub(crate) struct MucAdminItem {
    #[xml(attribute)]
    pub(crate) affiliation: Affiliation,
    #[xml(attribute(default))]
    pub(crate) jid: Option<BareJid>,
}

/// XEP-0060, 8.9: who may subscribe to a node. The type of xmpp-parsers has private fields.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::PUBSUB_OWNER, name = "pubsub")]
pub(crate) struct NodeMembers {
    #[xml(child)]
    pub(crate) list: MemberList,
}

/// The list within.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::PUBSUB_OWNER, name = "affiliations")]
pub(crate) struct MemberList {
    #[xml(attribute)]
    pub(crate) node: String,
    #[xml(child(n = ..))]
    pub(crate) members: Vec<Member>,
}

/// One entry of it.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::PUBSUB_OWNER, name = "affiliation")]
pub(crate) struct Member {
    #[xml(attribute)]
    pub(crate) jid: BareJid,
    #[xml(attribute)]
    pub(crate) affiliation: String,
}

/// A form that is filled in.
pub(crate) fn form(form_type: &str, fields: &[(&str, &str)]) -> DataForm {
    let fields = fields.iter().map(|(var, value)| Field::text_single(var, value)).collect();
    DataForm::new(DataFormType::Submit, form_type, fields)
}

/// Whether the element is a payload that this crate carries.
pub(crate) fn is_payload(element: &Element) -> bool {
    element.has_ns(NS_LDAPSYNC)
}

/// Why a payload cannot travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Larger than allowed, so many bytes at least.
    TooLarge(usize),
    /// Something that is no XML text, or too deep.
    NotXml,
}

/// Looks whether an element can travel in a stanza: the size on the wire at most `max`, and no character that
/// XML forbids. The serialiser would refuse the latter when the caller is no longer there to be told.
pub(crate) fn fit_for_wire(element: &Element, max: usize) -> Result<usize, Unfit> {
    let mut bytes = 0;
    measure(element, "", PAYLOAD_DEPTH_MAX, max, &mut bytes)?;
    Ok(bytes)
}

fn measure(element: &Element, ns: &str, depth: usize, max: usize, bytes: &mut usize) -> Result<(), Unfit> {
    let depth = depth.checked_sub(1).ok_or(Unfit::NotXml)?;
    let own_ns = element.ns();
    *bytes += 2 * element.name().len() + 5;
    if own_ns != ns {
        *bytes += 9 + own_ns.len();
    }
    for ((_, name), value) in element.attrs() {
        *bytes += name.len() + 4 + text_size(value)?;
    }
    for node in element.nodes() {
        match node {
            Node::Element(child) => measure(child, &own_ns, depth, max, bytes)?,
            Node::Text(text) => *bytes += text_size(text)?,
        }
        if *bytes > max {
            return Err(Unfit::TooLarge(*bytes));
        }
    }
    if *bytes > max { Err(Unfit::TooLarge(*bytes)) } else { Ok(()) }
}

fn text_size(text: &str) -> Result<usize, Unfit> {
    let mut size = text.len();
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '"' | '\'' | '\r' => size += 5,
            '\t' | '\n' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}' => {}
            _ => return Err(Unfit::NotXml),
        }
    }
    Ok(size)
}

/// A stanza error with a text.
pub(crate) fn stanza_error(type_: ErrorType, condition: DefinedCondition, text: &str) -> Box<StanzaError> {
    Box::new(StanzaError::new(type_, condition, "en", text))
}

/// Name of a condition as it is on the wire, with the text that came with it.
pub(crate) fn error_words(error: &StanzaError) -> String {
    let name = Element::from(error.defined_condition.clone()).name().to_owned();
    match error.texts.values().find(|text| !text.trim().is_empty()) {
        Some(text) => format!("{name}: {}", text.trim()),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Element {
        xml.parse().unwrap()
    }

    #[test]
    fn the_measured_size_is_not_below_the_size_on_the_wire() {
        for xml in [
            "<c xmlns='urn:xmpp:ldapsync:0'/>",
            "<c xmlns='urn:xmpp:ldapsync:0' a='1' b='&lt;&amp;'><d>x &lt; y</d><e xmlns='other'><f/></e></c>",
        ] {
            let element = parse(xml);
            let wire = String::from(&element).len();
            let measured = fit_for_wire(&element, 1000).unwrap();
            assert!(measured >= wire && measured < wire + 64, "{measured} for {wire}");
        }
    }

    #[test]
    fn too_large_and_control_characters_are_unfit() {
        let mut element = parse("<c xmlns='urn:xmpp:ldapsync:0'><d/></c>");
        element.append_text("x".repeat(500));
        assert!(matches!(fit_for_wire(&element, 100), Err(Unfit::TooLarge(n)) if n > 500));
        element.append_text("\u{1}");
        assert_eq!(fit_for_wire(&element, 1000), Err(Unfit::NotXml));
    }

    #[test]
    fn nesting_without_end_is_unfit() {
        let mut element = Element::bare("c", NS_LDAPSYNC);
        for _ in 0..PAYLOAD_DEPTH_MAX {
            let mut outer = Element::bare("c", NS_LDAPSYNC);
            outer.append_child(element);
            element = outer;
        }
        assert_eq!(fit_for_wire(&element, 10_000), Err(Unfit::NotXml));
    }

    #[test]
    fn lists_of_affiliations_make_a_round_trip() {
        let xml = "<query xmlns='http://jabber.org/protocol/muc#admin'>\
                   <item affiliation='owner' jid='b@example.org'/></query>";
        let admin = MucAdmin::try_from(parse(xml)).unwrap();
        assert_eq!(admin.items[0].affiliation, Affiliation::Owner);
        assert_eq!(Element::from(admin), parse(xml));
    }

    #[test]
    fn the_words_of_an_error_are_condition_and_text() {
        let error = stanza_error(ErrorType::Auth, DefinedCondition::RegistrationRequired, "members only");
        assert_eq!(error_words(&error), "registration-required: members only");
    }
}

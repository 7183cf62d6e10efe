//! The SOCKS5 proxy of the own server (XEP-0065): finding it, and switching a stream on.

use futures::future::join_all;
use tokio::sync::OnceCell;
use xmpp_parsers::disco::{DiscoInfoQuery, DiscoInfoResult, DiscoItemsQuery, DiscoItemsResult};
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::jingle_s5b::Type;
use xmpp_parsers::minidom::Element;

use crate::limits::{PROXY_SEARCH_MAX, TRANSFER_STEP_TIMEOUT};
use crate::transfer::candidates::priority;
use crate::transfer::elements::{Bytestreams, Candidate, StreamHost};
use crate::transfer::offer::TransferError;
use crate::transfer::port::Port;

/// The proxy of a connection's server, looked for when a transfer first needs it. One that was not found is
/// looked for again.
pub(crate) type Found = OnceCell<StreamHost>;

/// The proxy as a candidate; `None` when the server has none.
pub(crate) async fn candidate(port: &Port, found: &Found) -> Option<Candidate> {
    let host = found.get_or_try_init(|| async { find(port).await.ok_or(()) }).await.ok()?;
    Some(Candidate {
        cid: "p0".to_owned(),
        host: host.host.clone(),
        jid: host.jid.clone(),
        port: host.port?,
        priority: priority(&Type::Proxy, 0),
        type_: Type::Proxy,
    })
}

async fn find(port: &Port) -> Option<StreamHost> {
    let server = Jid::from(BareJid::from_parts(None, port.own.domain()));
    let items = get(port, server, DiscoItemsQuery { node: None, rsm: None }).await?;
    let items = DiscoItemsResult::try_from(items).ok()?.items.into_iter();
    let services = items.filter(|item| item.node.is_none()).take(PROXY_SEARCH_MAX);
    let hosts = join_all(services.map(|item| address(port, item.jid))).await;
    hosts.into_iter().flatten().next()
}

/// The address of a service, if it is a proxy.
async fn address(port: &Port, service: Jid) -> Option<StreamHost> {
    let info = get(port, service.clone(), DiscoInfoQuery { node: None }).await?;
    let info = DiscoInfoResult::try_from(info).ok()?;
    let is_proxy = info.identities.iter().any(|it| it.category == "proxy" && it.type_ == "bytestreams");
    if !is_proxy {
        return None;
    }
    let hosts = get(port, service, Bytestreams { sid: None, hosts: vec![], activate: None }).await?;
    Bytestreams::try_from(hosts).ok()?.hosts.into_iter().find(|host| host.port.is_some())
}

async fn get(port: &Port, to: Jid, query: impl Into<Element>) -> Option<Element> {
    port.ask(to, false, query.into(), TRANSFER_STEP_TIMEOUT).await.ok()?.wait().await.ok().flatten()
}

/// Switches the stream between both sides on. Both have to be connected to the proxy.
pub(crate) async fn activate(port: &Port, proxy: Jid) -> Result<(), TransferError> {
    let activate = Some(Jid::from(port.peer.clone()));
    let query = Bytestreams { sid: Some(port.sid.clone()), hosts: vec![], activate };
    port.ask(proxy, true, query.into(), TRANSFER_STEP_TIMEOUT).await?.wait().await.map(drop)
}

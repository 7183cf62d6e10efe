//! XMPP servers of several domains that find and trust each other.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::certificates::Authority;
use crate::dir::LabDir;
use crate::error::{IoContext, Result};

/// How often the name server looks whether anybody still needs it.
const TICK: Duration = Duration::from_millis(500);
const TTL_SECS: u32 = 60;
/// Before a domain, this is the name of the record that tells where other servers connect.
const SERVICE: &str = "_xmpp-server._tcp.";

/// One certificate authority and one name server for the XMPP servers of several domains. Clones are the same.
#[derive(Clone)]
pub struct Federation(Arc<Inner>);

struct Inner {
    authority: Authority,
    names: Vec<String>,
    name_server: SocketAddr,
    domains: Domains,
}

/// Where the servers of a domain, and of all domains below it, listen for other servers.
type Domains = Mutex<HashMap<String, SocketAddr>>;

impl std::fmt::Debug for Federation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Federation").field(&self.0.name_server).finish()
    }
}

impl Federation {
    /// Of these domains. Starts the name server, at an address of the lab; it ends with the last clone.
    ///
    /// # Errors
    /// When it cannot listen, or the authority's key cannot be made.
    pub fn new(lab: &LabDir, domains: &[&str]) -> Result<Self> {
        let authority = Authority::new("xmppsync lab federation")?;
        let names = domains.iter().map(|&domain| domain.to_owned()).collect();
        let what = || format!("no name server at {}", lab.ip());
        let socket = UdpSocket::bind((lab.ip(), 0)).context(what)?;
        let address = socket.local_addr().context(what)?;
        socket.set_read_timeout(Some(TICK)).context(what)?;
        let inner = Arc::new(Inner { authority, names, name_server: address, domains: Domains::default() });
        let weak = Arc::downgrade(&inner);
        thread::spawn(move || serve(&socket, &weak));
        Ok(Self(inner))
    }

    /// Who signs the certificates of all.
    pub(super) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// Where the name server answers, by UDP.
    pub(super) fn name_server(&self) -> SocketAddr {
        self.0.name_server
    }

    /// The domains.
    pub(super) fn domains(&self) -> &[String] {
        &self.0.names
    }

    /// From now on the domain and all below it are known.
    pub(super) fn announce(&self, domain: &str, listens: SocketAddr) {
        let mut domains = self.0.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.insert(domain.to_owned(), listens);
    }
}

fn serve(socket: &UdpSocket, inner: &Weak<Inner>) {
    // The largest that is asked for without an extension is 512 bytes.
    let mut buffer = [0; 2048];
    loop {
        let received = socket.recv_from(&mut buffer);
        let Some(inner) = inner.upgrade() else { return };
        // An error is the end of a tick.
        let Ok((length, client)) = received else { continue };
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let answer = answer(&request, &inner.domains);
        if let Ok(bytes) = answer.to_vec() {
            // Whoever does not get it asks again.
            let _ = socket.send_to(&bytes, client);
        }
    }
}

fn answer(request: &Message, domains: &Domains) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    for query in &request.queries {
        answer.add_query(query.clone());
        // No answer, rather than that there is no such name: a resolver would take that for all names below it.
        if let Some(service) = service(query, domains) {
            let name = query.name().clone();
            answer.add_answer(Record::from_rdata(name, TTL_SECS, RData::SRV(service)));
        }
    }
    answer
}

/// Where other servers connect, if the question is that. The target is an address in the place of a name: ejabberd asks the
/// system, not Erlang, for the addresses of names.
fn service(query: &Query, domains: &Domains) -> Option<SRV> {
    let asked = query.name().to_lowercase().to_utf8();
    let name = asked.trim_end_matches('.').strip_prefix(SERVICE)?;
    let domains = domains.lock().unwrap_or_else(PoisonError::into_inner);
    let is_of = |domain: &str| name == domain || name.ends_with(&format!(".{domain}"));
    let (_, listens) = domains.iter().find(|(domain, _)| is_of(domain))?;
    let target = Name::from_utf8(format!("{}.", listens.ip())).ok()?;
    (query.query_type() == RecordType::SRV).then(|| SRV::new(0, 0, listens.port(), target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode};

    fn ask(federation: &Federation, name: &str, kind: RecordType) -> Vec<String> {
        let mut request = Message::new(7, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
        let socket = UdpSocket::bind((federation.name_server().ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.send_to(&request.to_vec().unwrap(), federation.name_server()).unwrap();
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.id, 7);
        answer.answers.iter().map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn a_domain_and_what_is_below_it_are_found_and_nothing_else() {
        let lab = LabDir::new().unwrap();
        let federation = Federation::new(&lab, &["one.test", "two.test"]).unwrap();
        federation.announce("one.test", "127.5.6.7:5269".parse().unwrap());
        for name in ["one.test", "conference.one.test", "CONFERENCE.one.test"] {
            let found = ask(&federation, &format!("_xmpp-server._tcp.{name}."), RecordType::SRV);
            assert_eq!(found, ["0 0 5269 127.5.6.7."]);
        }
        for name in
            ["_xmpp-server._tcp.two.test.", "_xmpp-server._tcp.bone.test.", "_xmpps-server._tcp.one.test."]
        {
            assert_eq!(ask(&federation, name, RecordType::SRV), [""; 0], "{name}");
        }
    }
}

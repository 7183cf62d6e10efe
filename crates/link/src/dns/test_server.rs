//! A name server that knows what a test tells it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::Names;

/// Answers by UDP on a free port until the runtime ends.
pub(crate) struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// `services` are names with priority, target and port; every other name that is a host's is 127.0.0.1.
    pub(crate) async fn start(services: &[(&str, u16, &str, u16)], hosts: &[&str]) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let service = |(service, priority, target, port): &(&str, u16, &str, u16)| {
            let data = RData::SRV(SRV::new(*priority, 0, *port, name(target)));
            Record::from_rdata(name(service), 60, data)
        };
        let host = |host: &&str| Record::from_rdata(name(host), 60, RData::A(A(Ipv4Addr::LOCALHOST)));
        let records: Vec<_> = services.iter().map(service).chain(hosts.iter().map(host)).collect();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let query = &question.queries[0];
                log.lock().unwrap().push(format!("{} {}", query.query_type, query.name.to_ascii()));
                let answer = answer(&question, &records, query.query_type);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        NameServer { address, asked }
    }

    /// The names as this server, and no other, tells them.
    pub(crate) fn names(&self) -> Names {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        Names::built(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    /// Types and names that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(question: &Message, records: &[Record], wanted: RecordType) -> Message {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    let of_name: Vec<_> = records.iter().filter(|record| record.name == query.name).collect();
    if of_name.is_empty() {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.metadata.recursion_available = true;
    answer.add_query(query);
    answer.add_answers(of_name.into_iter().filter(|record| record.record_type() == wanted).cloned());
    answer
}

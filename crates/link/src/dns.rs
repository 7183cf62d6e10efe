//! From the configured server to addresses.
//!
//! Asks the name servers with hickory and reads /etc/hosts itself: getaddrinfo would block in a thread that
//! outlives a shutdown of slapd.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, rdata::SRV};
use hickory_resolver::{ResolverBuilder, TokioResolver};

use crate::config::{Server, Tls};
use crate::limits::{DNS_ATTEMPTS, DNS_TIMEOUT};
use crate::problem::Problem;

/// A host and a port to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The name servers and the hosts file.
pub(crate) struct Names(Result<TokioResolver, NetError>);

impl Names {
    /// As this system has them. Made anew for every connection, so that a changed resolv.conf or hosts file is
    /// seen without a restart.
    pub(crate) fn of_system() -> Names {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            // A host without resolv.conf still has its hosts file.
            tracing::debug!(%error, "no system configuration of name servers");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
        Names::built(builder)
    }

    fn built(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Names {
        let options = builder.options_mut();
        options.timeout = DNS_TIMEOUT;
        options.attempts = DNS_ATTEMPTS;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        Names(builder.build())
    }

    /// The targets of a configuration, best first.
    pub(crate) async fn targets(&self, server: &Server, tls: Tls, domain: &str) -> Vec<Target> {
        if let Server::Host { host, port } = server {
            return vec![Target { host: host.clone(), port: *port }];
        }
        let (service, port) = match tls {
            Tls::Direct => ("_xmpps-client._tcp", 5223),
            Tls::StartTls | Tls::InsecurePlaintext => ("_xmpp-client._tcp", 5222),
        };
        let fallback = Target { host: domain.to_owned(), port };
        if domain.parse::<IpAddr>().is_ok() {
            return vec![fallback];
        }
        let mut targets = order(self.srv_records(&format!("{service}.{domain}.")).await, rand::random);
        // RFC 6120, 3.2.2: the domain itself is tried only when there are no SRV records at all.
        if targets.is_empty() {
            targets.push(fallback);
        }
        targets
    }

    async fn srv_records(&self, name: &str) -> Vec<Record> {
        let found = match &self.0 {
            Ok(resolver) => resolver.srv_lookup(name).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(lookup) => srv_records(lookup.answers().iter().map(|record| &record.data)),
            Err(error) => {
                tracing::debug!(%name, %error, "no SRV records, taking the domain itself");
                Vec::new()
            }
        }
    }

    /// The addresses of one target.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Problem> {
        if let Ok(ip) = target.host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, target.port)]);
        }
        let unknown = |reason: String| Problem::UnknownHost { host: target.host.clone(), reason };
        let resolver = self.0.as_ref().map_err(|error| unknown(error.to_string()))?;
        let ips =
            resolver.lookup_ip(target.host.as_str()).await.map_err(|error| unknown(error.to_string()))?;
        let found: Vec<_> = ips.iter().map(|ip| SocketAddr::new(ip, target.port)).collect();
        if found.is_empty() { Err(unknown("no address".to_owned())) } else { Ok(found) }
    }
}

#[derive(Debug, Clone)]
struct Record {
    priority: u16,
    weight: u16,
    target: Target,
}

fn srv_records<'a>(answers: impl Iterator<Item = &'a RData>) -> Vec<Record> {
    let record = |srv: &SRV| Record {
        priority: srv.priority,
        weight: srv.weight,
        target: Target { host: srv.target.to_ascii(), port: srv.port },
    };
    answers
        .filter_map(|data| match data {
            // RFC 2782: the target "." says that the service is not offered.
            RData::SRV(srv) if !srv.target.is_root() => Some(record(srv)),
            _ => None,
        })
        .collect()
}

/// RFC 2782: lowest priority first; among equals drawn by weight.
fn order(mut records: Vec<Record>, mut random: impl FnMut() -> f64) -> Vec<Target> {
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let equals = records.iter().take_while(|record| record.priority == priority);
        let total: f64 = equals.map(|record| f64::from(record.weight)).sum();
        let mut rest = random() * total;
        let same = records.iter().take_while(|record| record.priority == priority).count();
        let drawn = records.iter().take(same).position(|record| {
            rest -= f64::from(record.weight);
            rest <= 0.0
        });
        ordered.push(records.remove(drawn.unwrap_or(0)).target);
    }
    ordered
}

#[cfg(test)]
pub(crate) mod test_server;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> Record {
        Record { priority, weight, target: Target { host: host.into(), port: 5222 } }
    }

    fn hosts(records: Vec<Record>, random: f64) -> Vec<String> {
        order(records, || random).into_iter().map(|target| target.host).collect()
    }

    #[test]
    fn lower_priority_is_tried_first() {
        let records = vec![record(20, 0, "c"), record(10, 0, "a"), record(15, 0, "b")];
        assert_eq!(hosts(records, 0.5), ["a", "b", "c"]);
    }

    #[test]
    fn equal_priorities_are_drawn_by_weight() {
        let records = || vec![record(1, 10, "light"), record(1, 90, "heavy"), record(2, 99, "last")];
        assert_eq!(hosts(records(), 0.5), ["heavy", "light", "last"]);
        assert_eq!(hosts(records(), 0.05), ["light", "heavy", "last"]);
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let found = Names::of_system().addresses(&Target { host: "[::1]".into(), port: 5 }).await.unwrap();
        assert_eq!(found, ["[::1]:5".parse().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_comes_from_the_hosts_file() {
        let found =
            Names::of_system().addresses(&Target { host: "localhost".into(), port: 5 }).await.unwrap();
        assert!(found.contains(&"127.0.0.1:5".parse().unwrap()), "{found:?}");
    }

    use super::test_server::NameServer;

    const SERVICE: &str = "_xmpp-client._tcp.example.org.";

    #[tokio::test]
    async fn the_srv_records_of_the_domain_tell_where_its_server_is() {
        let direct = "_xmpps-client._tcp.example.org.";
        let services = [
            (SERVICE, 20, "second.example.org.", 5299),
            (SERVICE, 10, "first.example.org.", 5298),
            (direct, 5, "direct.example.org.", 443),
        ];
        let server = NameServer::start(&services, &[]).await;
        let targets = server.names().targets(&Server::Srv, Tls::StartTls, "example.org").await;
        let expected = |host: &str, port| Target { host: host.to_owned(), port };
        assert_eq!(targets, [expected("first.example.org.", 5298), expected("second.example.org.", 5299)]);
        assert_eq!(server.asked(), [format!("SRV {SERVICE}")]);
        let targets = server.names().targets(&Server::Srv, Tls::Direct, "example.org").await;
        assert_eq!(targets, [expected("direct.example.org.", 443)]);
        assert_eq!(server.asked()[1..], [format!("SRV {direct}")]);
    }

    #[tokio::test]
    async fn without_srv_records_the_domain_itself_is_the_server() {
        let server = NameServer::start(&[], &["example.org."]).await;
        let names = server.names();
        let targets = names.targets(&Server::Srv, Tls::StartTls, "example.org").await;
        assert_eq!(targets, [Target { host: "example.org".into(), port: 5222 }]);
        assert_eq!(server.asked(), [format!("SRV {SERVICE}")]);
        assert_eq!(names.addresses(&targets[0]).await.unwrap(), ["127.0.0.1:5222".parse().unwrap()]);
        let targets = names.targets(&Server::Srv, Tls::Direct, "example.org").await;
        assert_eq!(targets, [Target { host: "example.org".into(), port: 5223 }]);
    }

    #[tokio::test]
    async fn a_configured_host_is_taken_without_asking_for_srv_records() {
        let server = NameServer::start(&[(SERVICE, 10, "first.example.org.", 5298)], &[]).await;
        let configured = Server::Host { host: "other.example.org".into(), port: 5 };
        let targets = server.names().targets(&configured, Tls::StartTls, "example.org").await;
        assert_eq!(targets, [Target { host: "other.example.org".into(), port: 5 }]);
        assert!(server.asked().is_empty());
    }

    #[tokio::test]
    async fn an_unknown_name_is_a_problem_that_names_it() {
        let server = NameServer::start(&[], &[]).await;
        let target = Target { host: "nowhere.example.org.".into(), port: 5 };
        let problem = server.names().addresses(&target).await.unwrap_err().to_string();
        assert!(
            problem.contains("nowhere.example.org") && problem.contains("cannot be resolved"),
            "{problem}"
        );
    }
}

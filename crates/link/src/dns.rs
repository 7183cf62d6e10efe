//! From the configured server to addresses.
//!
//! Asks the name servers with hickory and reads /etc/hosts itself: getaddrinfo would block in a thread that
//! outlives a shutdown of slapd.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, rdata::SRV};

use crate::config::{Server, Tls};
use crate::limits::{DNS_ATTEMPTS, DNS_TIMEOUT};
use crate::problem::Problem;

/// A host and a port to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The targets of a configuration, best first.
pub(crate) async fn targets(server: &Server, tls: Tls, domain: &str) -> Vec<Target> {
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
    let found = match resolver() {
        Ok(resolver) => resolver.srv_lookup(format!("{service}.{domain}.")).await,
        Err(error) => Err(error),
    };
    let records = match found {
        Ok(lookup) => srv_records(lookup.answers().iter().map(|record| &record.data)),
        Err(error) => {
            tracing::debug!(%domain, %error, "no SRV records, taking the domain itself");
            Vec::new()
        }
    };
    let mut targets = order(records, rand::random);
    // RFC 6120, 3.2.2: the domain itself is tried only when there are no SRV records at all.
    if targets.is_empty() {
        targets.push(fallback);
    }
    targets
}

/// The addresses of one target.
pub(crate) async fn addresses(target: &Target) -> Result<Vec<SocketAddr>, Problem> {
    if let Ok(ip) = target.host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let unknown = |reason: String| Problem::UnknownHost { host: target.host.clone(), reason };
    let resolver = resolver().map_err(|error| unknown(error.to_string()))?;
    let ips = resolver.lookup_ip(target.host.as_str()).await.map_err(|error| unknown(error.to_string()))?;
    let found: Vec<_> = ips.iter().map(|ip| SocketAddr::new(ip, target.port)).collect();
    if found.is_empty() { Err(unknown("no address".to_owned())) } else { Ok(found) }
}

/// Made anew for every connection, so that a changed resolv.conf or hosts file is seen without a restart.
fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // A host without resolv.conf still has its hosts file.
        tracing::debug!(%error, "no system configuration of name servers");
        TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.timeout = DNS_TIMEOUT;
    options.attempts = DNS_ATTEMPTS;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    builder.build()
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
        let found = addresses(&Target { host: "[::1]".into(), port: 5 }).await.unwrap();
        assert_eq!(found, ["[::1]:5".parse().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_comes_from_the_hosts_file() {
        let found = addresses(&Target { host: "localhost".into(), port: 5 }).await.unwrap();
        assert!(found.contains(&"127.0.0.1:5".parse().unwrap()), "{found:?}");
    }
}

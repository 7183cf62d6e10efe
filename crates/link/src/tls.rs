//! TLS with an explicit provider: with two providers compiled into one process (slapd loads other modules),
//! the process-wide default panics.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::problem::Problem;

/// Does the handshake; the certificate has to hold for the JID's domain (RFC 6120, 13.7.2.1), whatever host
/// name led to the server.
pub(crate) async fn handshake<S>(ca: Option<&Path>, io: S, domain: &str) -> Result<TlsStream<S>, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |reason: String| Problem::TlsFailed { domain: domain.to_owned(), reason };
    let name = ServerName::try_from(domain.to_owned()).map_err(|error| failed(error.to_string()))?;
    let config = client_config(ca).map_err(|error| match error {
        ConfigError::Roots(problem) => problem,
        ConfigError::Tls(error) => failed(error.to_string()),
    })?;
    TlsConnector::from(config).connect(name, io).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                Problem::CertificateRefused { domain: domain.to_owned(), reason: reason.to_string() }
            }
            _ => failed(error.to_string()),
        }
    })
}

enum ConfigError {
    Roots(Problem),
    Tls(rustls::Error),
}

/// Read anew for every connection: a renewed authority is seen without a restart of slapd.
fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, ConfigError> {
    let roots = match ca {
        Some(path) => roots_from_file(path),
        None => system_roots(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(ConfigError::Tls)?
        .with_root_certificates(roots.map_err(ConfigError::Roots)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots_from_file(path: &Path) -> Result<RootCertStore, Problem> {
    let unreadable = |reason: String| Problem::CaUnreadable { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unreadable("it holds no certificate".to_owned())) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, Problem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores of systems hold odd certificates; one that does not parse must not spoil the others.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    Err(Problem::CaUnreadable { path: PathBuf::from("the system's store"), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_ca_file_is_named() {
        let Err(problem) = roots_from_file(Path::new("/nonexistent/ca.pem")) else { panic!("read") };
        assert!(problem.to_string().contains("/nonexistent/ca.pem"), "{problem}");
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused() {
        let Err(problem) = roots_from_file(Path::new("/dev/null")) else { panic!("read") };
        assert!(problem.to_string().contains("no certificate"), "{problem}");
    }
}

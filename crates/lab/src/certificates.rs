//! Certificates for the servers of a lab, signed by a certificate authority of its own.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::error::Result;

/// A certificate authority that exists for one lab.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes one with a new key.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = parameters(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's own certificate: what clients must trust.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A new key and a certificate for these names or addresses, in one text as ejabberd reads it.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server_pem(&self, names: &[String]) -> Result<String> {
        let mut params = parameters(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("server", String::as_str));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // As a client it shows itself to the servers of other domains.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    }
}

/// Valid for longer than any lab. The default, until the year 4096, is more milliseconds than an Erlang
/// timer takes: ejabberd's certificate service would crash again and again.
fn parameters(names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

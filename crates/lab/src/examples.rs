//! The configurations in `slapd-conf-examples/`, made to run in a lab.
//!
//! They are written for real machines: Debian's paths, the domain `example.com`, its XMPP server
//! `xmpp.example.com`. A lab gives its XMPP server that domain, so names and JIDs stay as they are; paths, the
//! server's address and the certificate authority are replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dir::LabDir;
use crate::error::{IoContext, Result};
use crate::slapd::{Database, Slapd, SlapdConfig, SlapdOptions, module_path};
use crate::xmpp::XmppServer;

/// The XMPP domain of all examples: the one to start the XMPP server with.
pub const DOMAIN: &str = "example.com";

/// What replaces the machine's own.
#[derive(Clone, Debug)]
pub struct Replacements {
    /// For `moduleload libxmppsync`.
    pub module: PathBuf,
    /// Takes the place of `/var/lib/ldap` and `/run/slapd`, and of `/etc/ldap` except for schema files.
    pub dir: PathBuf,
    /// `ADDRESS:PORT` for `xmppsync-server`.
    pub server: String,
    /// The certificate authority that signed the server's certificate.
    pub ca_file: PathBuf,
}

/// The text of an example's file, such as `two-servers/ldap1.conf`, with everything replaced.
///
/// # Errors
/// When there is no such example.
pub fn load(file: &str, replacements: &Replacements) -> Result<String> {
    let text = read(file)?;
    let mut replaced = String::new();
    for line in text.lines() {
        for line in replace_line(line, replacements) {
            replaced.push_str(&line);
            replaced.push('\n');
        }
    }
    Ok(replaced)
}

/// A slapd with the configuration of an example's file, such as `two-servers/ldap1.conf`, prepared and not
/// started; or of `cn-config/ldap1.ldif`, whose changes were made to a running one as an administrator
/// would. The XMPP server must serve [`DOMAIN`]; the account is registered there.
///
/// The server is named after the file. Its rootdns have the password `secret`.
///
/// # Errors
/// When there is no such example, or slapd refuses it.
pub fn slapd(lab: &LabDir, xmpp: &mut XmppServer, file: &str, options: SlapdOptions) -> Result<Slapd> {
    let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let dir = lab.subdir(&name)?;
    let password = format!("secret of {name}");
    xmpp.register(&name, &password)?;
    let password_file = dir.join("xmppsync.password");
    fs::write(&password_file, format!("{password}\n"))
        .and_then(|()| fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600)))
        .context(|| format!("cannot write {}", password_file.display()))?;
    let original = read(file)?;
    let direct = original.lines().any(|line| line.trim() == "xmppsync-tls direct");
    let address = if direct { xmpp.client_tls_address() } else { xmpp.client_address() };
    let (server, ca_file) = (address.to_string(), xmpp.ca_file());
    let text = load(file, &Replacements { module: module_path()?, dir, server, ca_file })?;
    if Path::new(file).extension().is_some_and(|extension| extension == "ldif") {
        // As Debian sets it up: no serverID, and no index of entryUUID.
        let mut config = SlapdConfig { server_id: None, ..SlapdConfig::default() };
        let databases = config.databases.iter_mut();
        databases.for_each(|database| database.indexed.retain(|name| !name.starts_with("entry")));
        let mut slapd = Slapd::prepare(lab, &name, config, options)?;
        slapd.use_config_directory()?;
        slapd.start()?;
        slapd.ldapmodify_config(&text)?;
        return Ok(slapd);
    }
    for directory in values(&text, "directory") {
        fs::create_dir_all(&directory).context(|| format!("cannot make {directory}"))?;
    }
    let databases = values(&text, "suffix").map(|suffix| Database::new(&suffix)).collect();
    Slapd::prepare_text(lab, &name, &text, SlapdConfig { databases, ..SlapdConfig::default() }, options)
}

/// The values of a directive, without quotes.
fn values<'a>(text: &'a str, directive: &'a str) -> impl Iterator<Item = String> + 'a {
    let words = text.lines().filter_map(|line| line.split_once(' '));
    words.filter(move |(name, _)| *name == directive).map(|(_, value)| value.trim_matches('"').to_owned())
}

fn read(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../slapd-conf-examples").join(file);
    fs::read_to_string(&path).context(|| format!("no example {}", path.display()))
}

/// One line becomes one, two or none: the authority goes with the server, whether the example names one or
/// leaves it to the system's roots.
fn replace_line(line: &str, replacements: &Replacements) -> Vec<String> {
    let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let ca_file = replacements.ca_file.display();
    let server = &replacements.server;
    match name {
        "xmppsync-server" => {
            vec![format!("{indent}{name} {server}"), format!("{indent}xmppsync-tls-ca {ca_file}")]
        }
        "olcXmppSyncServer:" => vec![format!("{name} {server}"), format!("olcXmppSyncTlsCa: {ca_file}")],
        "xmppsync-tls-ca" | "olcXmppSyncTlsCa:" => Vec::new(),
        "moduleload" | "olcModuleLoad:" if value.trim() == "libxmppsync" => {
            vec![format!("{indent}{name} {}", replacements.module.display())]
        }
        _ if line.starts_with('#') => vec![line.to_owned()],
        _ => vec![replace_paths(line, &replacements.dir)],
    }
}

fn replace_paths(line: &str, dir: &Path) -> String {
    if line.contains("/etc/ldap/schema/") {
        return line.to_owned();
    }
    let dir = dir.display().to_string();
    ["/var/lib/ldap", "/run/slapd", "/etc/ldap"]
        .iter()
        .fold(line.to_owned(), |line, path| line.replace(path, &dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_the_machine_is_replaced_and_nothing_else() {
        let replacements = Replacements {
            module: "/m/libxmppsync.so".into(),
            dir: "/lab".into(),
            server: "127.1.2.3:5".to_owned(),
            ca_file: "/lab/ca.pem".into(),
        };
        let replaced = |line: &str| replace_line(line, &replacements).join("|");
        assert_eq!(replaced("moduleload libxmppsync"), "moduleload /m/libxmppsync.so");
        assert_eq!(replaced("moduleload back_mdb"), "moduleload back_mdb");
        assert_eq!(replaced("directory /var/lib/ldap/people"), "directory /lab/people");
        assert_eq!(replaced("include /etc/ldap/schema/core.schema"), "include /etc/ldap/schema/core.schema");
        assert_eq!(replaced("xmppsync-password-file /etc/ldap/p"), "xmppsync-password-file /lab/p");
        assert_eq!(replaced("xmppsync-server x"), "xmppsync-server 127.1.2.3:5|xmppsync-tls-ca /lab/ca.pem");
        assert_eq!(replaced("xmppsync-tls-ca /etc/ssl/x.pem"), "");
        assert_eq!(replaced("# see /etc/ldap"), "# see /etc/ldap");
    }
}

//! What is particular to prosody.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Federation, Listeners, XmppOptions, edited};
use crate::child::program;
use crate::error::{IoContext, Result};

/// The name of the configuration file.
pub(super) const CONFIG: &str = "prosody.cfg.lua";

/// What it writes, below its directory; the first is its database.
pub(super) const DIRECTORIES: [&str; 4] = ["data", "modules", "certs", "conf.d"];

/// Its log files below its directory.
pub(super) const LOGS: [&str; 2] = ["output.log", "prosody.log"];

/// Debian's configuration.
const STOCK: &str = "/etc/prosody/prosody.cfg.lua";

/// How many accounts may make pubsub nodes: those of the first servers of a group.
const NODE_OWNERS: u8 = 26;

/// In the foreground, or its process would be another one. Debian's has the directories of the machine's own prosody
/// compiled in; all are named in the configuration.
pub(super) fn command(on_host: impl Fn(&Path) -> Command, dir: &Path) -> Result<Command> {
    let mut command = on_host(&program("prosody")?);
    command.arg("--no-daemonize").arg("--config").arg(dir.join(CONFIG));
    Ok(command)
}

/// Logins in a log that were refused, as the lab's module tells.
pub(super) fn refused_logins(log: &str) -> usize {
    log.lines().filter(|line| line.contains("Refused login:")).count()
}

/// Logins of a full JID in a log, at the log level `info`, as the lab's module tells.
pub(super) fn logins(log: &str, jid: &str) -> usize {
    log.lines().filter(|line| line.contains(&format!("Opened session of {jid}"))).count()
}

/// Further files, by their names below its directory: a module of its own that gives it the part of ejabberd's
/// management interface that tests use, and what Debian's configuration includes.
pub(super) fn files(options: &XmppOptions, certificate: &str) -> Vec<(String, String)> {
    let api = include_str!("mod_lab_api.lua");
    let mut files = vec![("modules/mod_lab_api.lua".to_owned(), api.to_owned())];
    if options.stock {
        let hosts = [host(&options.domain), rooms(options), pubsub(options)].concat();
        files.push(("conf.d/lab.cfg.lua".to_owned(), hosts));
        // Certificate and key of a domain are looked for under these names.
        for ending in ["crt", "key"] {
            files.push((format!("certs/{}.{ending}", options.domain), certificate.to_owned()));
        }
    }
    files
}

/// Debian's configuration with the paths and the ports of a lab; the domain, rooms and nodes are in an included file,
/// which is the package's way.
pub(super) fn stock(options: &XmppOptions, listeners: &Listeners, dir: &Path) -> Result<String> {
    let text = fs::read_to_string(STOCK)
        .context(|| format!("cannot read {STOCK}: be root or a member of the group prosody"))?;
    let path = |name: &str| dir.join(name).display().to_string();
    let edits = [
        ("/run/prosody/prosody.pid", path("prosody.pid")),
        ("/usr/local/lib/prosody/modules", path("modules")),
        ("/var/log/prosody/prosody.log", path(LOGS[1])),
        ("/var/log/prosody/prosody.err", path("prosody.err")),
        // Not into the machine's own log.
        ("{ levels = { \"error\" }; to = \"syslog\";  };", String::new()),
    ];
    let text = edited(text, &edits)?;
    let (client, tls, http) = (listeners.client, listeners.client_tls.port(), listeners.http.port());
    let (ip, client, s2s) = (client.ip(), client.port(), listeners.servers.port());
    let (data, domain) = (path(DIRECTORIES[0]), &options.domain);
    Ok(format!(
        r#"run_as_root = true
data_path = "{data}"
interfaces = {{ "{ip}" }}
c2s_ports = {{ {client} }}
c2s_direct_tls_ports = {{ {tls} }}
s2s_ports = {{ {s2s} }}
http_ports = {{ {http} }}
http_interfaces = {{ "{ip}" }}
https_ports = {{}}
http_default_host = "{domain}"
{text}"#
    ))
}

fn host(domain: &str) -> String {
    format!("VirtualHost \"{domain}\"\n  modules_enabled = {{ \"lab_api\" }}\n")
}

/// Everything on the lab's address, no limits but those asked for.
pub(super) fn text(options: &XmppOptions, listeners: &Listeners, dir: &Path) -> String {
    let domain = &options.domain;
    let mut text = global(options, listeners, dir);
    text.push_str(&host(domain));
    if options.rooms {
        text.push_str(&rooms(options));
    }
    if options.pubsub {
        text.push_str(&pubsub(options));
    }
    let ip = listeners.proxy.ip();
    text.push_str(&format!("Component \"proxy.{domain}\" \"proxy65\"\n  proxy65_address = \"{ip}\"\n"));
    text
}

fn global(options: &XmppOptions, listeners: &Listeners, dir: &Path) -> String {
    let XmppOptions { domain, max_stanza_size, log_level, .. } = options;
    let level = if log_level == "warning" { "warn" } else { log_level };
    let offline = if options.offline { "" } else { r#""offline";"# };
    let offline_max = options.max_offline_messages.unwrap_or(u32::MAX);
    let encrypted = !options.plaintext;
    let ip = listeners.client.ip();
    let (client, tls) = (listeners.client.port(), listeners.client_tls.port());
    let (http, proxy) = (listeners.http.port(), listeners.proxy.port());
    let other_servers = other_servers(options, listeners);
    let s2s = if options.federation.is_some() { "" } else { r#""s2s"; "# };
    let (log, dir) = (dir.join(LOGS[1]), dir.display());
    format!(
        r#"run_as_root = true
data_path = "{dir}/data"
pidfile = "{dir}/prosody.pid"
plugin_paths = {{ "{dir}/modules" }}
certificates = "{dir}"
ssl = {{ certificate = "{dir}/server.pem", key = "{dir}/server.pem", cafile = "{dir}/ca.pem" }}
log = {{ {level} = "{log}" }}
interfaces = {{ "{ip}" }}
c2s_ports = {{ {client} }}
c2s_direct_tls_ports = {{ {tls} }}
{other_servers}proxy65_ports = {{ {proxy} }}
proxy65_interfaces = {{ "{ip}" }}
http_ports = {{ {http} }}
http_interfaces = {{ "{ip}" }}
https_ports = {{}}
http_default_host = "{domain}"
c2s_require_encryption = {encrypted}
c2s_stanza_size_limit = {max_stanza_size}
authentication = "internal_hashed"
password_hash = "SHA-256"
storage = "internal"
storage_archive_item_limit = {offline_max}
modules_enabled = {{
  "roster"; "saslauth"; "tls"; "disco"; "private"; "ping"; "pep"; "smacks"; "time"; "version"; "posix"; "http";
}}
modules_disabled = {{ {s2s}{offline} }}
"#,
        log = log.display()
    )
}

/// Where other servers connect, and whom to ask for names.
fn other_servers(options: &XmppOptions, listeners: &Listeners) -> String {
    let Some(federation) = &options.federation else { return "s2s_ports = {}\n".to_owned() };
    let name_server = federation.name_server();
    format!(
        r#"s2s_ports = {{ {} }}
s2s_require_encryption = true
s2s_secure_auth = true
unbound = {{ resolvconf = false; forward = "{}@{}"; options = {{ ["do-not-query-localhost:"] = "no" }} }}
"#,
        listeners.servers.port(),
        name_server.ip(),
        name_server.port(),
    )
}

fn rooms(options: &XmppOptions) -> String {
    let domain = &options.domain;
    let archive = if options.room_archive { "\n  modules_enabled = { \"muc_mam\" }" } else { "" };
    format!("Component \"conference.{domain}\" \"muc\"{archive}\n")
}

/// Only administrators of the service may make nodes.
fn pubsub(options: &XmppOptions) -> String {
    let domain = &options.domain;
    let domains = options.federation.as_ref().map_or(std::slice::from_ref(domain), Federation::domains);
    let users = |domain| (0..NODE_OWNERS).map(move |number| (char::from(b'a' + number), domain));
    let owners = domains.iter().flat_map(users).map(|(user, domain)| format!("\"{user}@{domain}\"; "));
    let owners: String = owners.collect();
    format!(
        r#"Component "pubsub.{domain}" "pubsub"
  admins = {{ {owners}}}
  pubsub_max_items = 1000000
"#
    )
}

/// Everything but the accounts, so that nobody is refused after the start.
pub(super) fn drop_data(dir: &Path) -> Result<()> {
    let hosts = dir.join(DIRECTORIES[0]);
    let what = || format!("cannot clear {}", hosts.display());
    for host in fs::read_dir(&hosts).context(what)? {
        let host = host.context(what)?.path();
        if !host.is_dir() {
            fs::remove_file(&host).context(what)?;
            continue;
        }
        for store in fs::read_dir(&host).context(what)? {
            let store = store.context(what)?.path();
            let is_accounts = store.file_name().is_some_and(|name| name == "accounts");
            match (is_accounts, store.is_dir()) {
                (true, _) => Ok(()),
                (false, true) => fs::remove_dir_all(&store),
                (false, false) => fs::remove_file(&store),
            }
            .context(what)?;
        }
    }
    Ok(())
}

//! What is particular to ejabberd.

mod config;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Listeners, XmppOptions, edited};
use crate::child::program;
use crate::error::{IoContext, LabError, Result};

pub(super) use config::{clients, text};

/// The name of the configuration file.
pub(super) const CONFIG: &str = "ejabberd.yml";

/// The name of the file that tells Erlang whom to ask for names.
pub(super) const RESOLVER: &str = "inetrc";

/// What it writes, below its directory; the first is its database.
pub(super) const DIRECTORIES: [&str; 4] = ["db", "log", "upload", "home"];

/// Its log files below its directory.
pub(super) const LOGS: [&str; 2] = ["output.log", "log/ejabberd.log"];

/// ejabberdctl insists on being root or the user ejabberd, and starts the port mapper daemon and distribution with a
/// cookie; without it, and outside of a cluster, none of this is there to collide.
pub(super) fn command(
    on_host: impl Fn(&Path) -> Command,
    options: &XmppOptions,
    ip: IpAddr,
    dir: &Path,
) -> Result<Command> {
    let mut command = on_host(&program("erl")?);
    without_flags(&mut command);
    if options.federation.is_some() {
        command.env("ERL_INETRC", dir.join(RESOLVER));
    }
    if let Some(cluster) = &options.cluster {
        command.args(cluster.arguments(ip));
    }
    command
        .env("ERL_LIBS", libraries()?)
        .env("HOME", dir.join("home"))
        .env("EJABBERD_CONFIG_PATH", dir.join(CONFIG))
        .env("EJABBERD_LOG_PATH", dir.join(LOGS[1]))
        .env("EJABBERD_PID_PATH", dir.join("ejabberd.pid"))
        .env("ERL_CRASH_DUMP", dir.join("log/erl_crash.dump"))
        // Idle schedulers must not spin: several servers share few processors.
        .args(["-noinput", "+K", "true", "+P", "250000"])
        .args(["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"])
        .args(["-mnesia", "dir", &format!("\"{}\"", dir.join(DIRECTORIES[0]).display()), "-s", "ejabberd"]);
    Ok(command)
}

/// The text of [`RESOLVER`]: only that server, whatever the machine itself asks.
pub(super) fn resolver(name_server: SocketAddr) -> String {
    let ip = erlang_ip(name_server.ip());
    format!(
        "{{resolv_conf, \"\"}}.\n{{nameserver, {ip}, {}}}.\n{{lookup, [file, dns]}}.\n",
        name_server.port()
    )
}

/// As Erlang writes it: `{127,0,0,1}`.
pub(super) fn erlang_ip(ip: IpAddr) -> String {
    format!("{{{}}}", ip.to_string().replace('.', ","))
}

/// Erlang is started as it is here, whatever is set for this process.
pub(super) fn without_flags(command: &mut Command) {
    for name in ["ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS"] {
        command.env_remove(name);
    }
}

/// What Debian's package makes its configuration of, at its installation.
const STOCK: &str = "/usr/share/ejabberd/ejabberd.yml.example";

/// Debian's configuration with the domain, the certificate and the ports of a lab, and the lab's way to manage it.
pub(super) fn stock(options: &XmppOptions, listeners: &Listeners, dir: &Path) -> Result<String> {
    let text = fs::read_to_string(STOCK).context(|| format!("cannot read {STOCK}"))?;
    let mut edits = vec![
        ("\n  - localhost\n".to_owned(), format!("\n  - \"{}\"\n", options.domain)),
        ("/etc/ejabberd/ejabberd.pem".to_owned(), dir.join("server.pem").display().to_string()),
    ];
    let [https, web, stun, mqtt] = listeners.unused;
    let ports = [
        (5222, listeners.client),
        (5223, listeners.client_tls),
        (5269, listeners.servers),
        (5443, https),
        (5280, web),
    ];
    for (port, address) in ports.into_iter().chain([(3478, stun), (1883, mqtt)]) {
        let (ip, own) = (address.ip(), address.port());
        edits.push((format!("port: {port}\n    ip: \"::\""), format!("port: {own}\n    ip: \"{ip}\"")));
    }
    let (ip, http) = (listeners.http.ip(), listeners.http.port());
    let listener = format!(
        "\nlisten:\n  -\n    port: {http}\n    ip: \"{ip}\"\n    module: ejabberd_http\n    request_handlers:\n      /api: mod_http_api\n"
    );
    const PERMISSION: &str = "\napi_permissions:
  lab:
    from: [mod_http_api]
    who: { ip: 127.0.0.0/8 }
    what: \"*\"
";
    edits.push(("\nlisten:\n".to_owned(), listener));
    edits.push(("\napi_permissions:\n".to_owned(), PERMISSION.to_owned()));
    edited(text, &edits)
}

/// The text in which nobody can log in, because nothing listens for clients.
pub(super) fn without_clients(text: &str, options: &XmppOptions, listeners: &Listeners) -> String {
    text.replace(&clients(options, listeners), "")
}

/// Logins in a log that were refused. It prints what it logs, so a line is there twice; the time at its beginning tells
/// attempts apart.
pub(super) fn refused_logins(log: &str) -> usize {
    let failed = log.lines().filter(|line| line.contains("Failed c2s"));
    failed.filter_map(|line| line.split(" [").next()).collect::<std::collections::HashSet<_>>().len()
}

/// Logins of a full JID in a log, at the log level `info`.
pub(super) fn logins(log: &str, jid: &str) -> usize {
    let opened = format!("Opened c2s session for {jid}");
    log.lines().filter(|line| line.contains(&opened)).count() / 2
}

/// The directory with ejabberd's own libraries: `/usr/lib/ARCHITECTURE` on Debian.
fn libraries() -> Result<PathBuf> {
    let has_ejabberd = |dir: &Path| {
        entries(dir).any(|entry| {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with("ejabberd-")) && entry.join("ebin").is_dir()
        })
    };
    std::iter::once(PathBuf::from("/usr/lib"))
        .chain(entries(Path::new("/usr/lib")))
        .find(|dir| has_ejabberd(dir))
        .ok_or_else(|| LabError::Missing("ejabberd".to_owned()))
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

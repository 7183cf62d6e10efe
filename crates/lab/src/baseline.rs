//! slapd's own replication, to compare with.

use crate::slapd::{Database, Slapd};

/// The database that delta-syncrepl keeps its log of changes in.
const LOG_SUFFIX: &str = "cn=log";

/// The modules that it needs.
pub(crate) fn modules(delta: bool) -> Vec<String> {
    let modules: &[&str] = if delta { &["syncprov", "accesslog"] } else { &["syncprov"] };
    modules.iter().map(|module| (*module).to_owned()).collect()
}

/// The log of changes; one for all databases of a server would mix them, so there is one per server with
/// one database. It is read by the rootdn of that database.
pub(crate) fn log_database(reader: &str) -> Database {
    let mut log = Database::new(LOG_SUFFIX);
    // Or a server that was down would get 500 changes, an error, and the next 500 after its retry pause: here
    // the reader is not the rootdn, for whom there are no limits.
    log.lines.push(format!("limits dn.exact=\"{reader}\" time=unlimited size=unlimited"));
    log.indexed = ["objectClass", "entryCSN", "entryUUID", "reqEnd", "reqResult", "reqStart", "reqDN"]
        .map(str::to_owned)
        .to_vec();
    log.overlay_lines = ["overlay syncprov", "syncprov-nopresent TRUE", "syncprov-reloadhint TRUE"]
        .map(str::to_owned)
        .to_vec();
    log
}

/// The lines of a replicated database: `peers` are the servers that it asks; others may ask it too, or not.
pub(crate) fn lines<'a>(
    database: &Database,
    peers: impl Iterator<Item = &'a Slapd>,
    delta: bool,
    is_asked: bool,
) -> Vec<String> {
    let Database { suffix, rootdn, rootpw, .. } = database;
    let mut lines = Vec::new();
    for (number, peer) in peers.enumerate() {
        let (rid, uri) = (number + 1, peer.uri());
        // Retries every second for ever: a peer may not have started yet.
        let mut line = format!(
            "syncrepl rid={rid:03} provider={uri} type=refreshAndPersist retry=\"1 +\" searchbase=\"{suffix}\" \
             bindmethod=simple binddn=\"{rootdn}\" credentials={rootpw}"
        );
        if delta {
            line.push_str(&format!(
                " logbase=\"{LOG_SUFFIX}\" logfilter=\"(&(objectClass=auditWriteObject)(reqResult=0))\" \
                 syncdata=accesslog"
            ));
        }
        lines.push(line);
    }
    if !is_asked {
        return lines;
    }
    if !lines.is_empty() {
        lines.push("multiprovider on".to_owned());
    }
    lines.push("overlay syncprov".to_owned());
    if delta {
        lines.extend(
            ["overlay accesslog", &format!("logdb {LOG_SUFFIX}"), "logops writes", "logsuccess TRUE"]
                .map(str::to_owned),
        );
    }
    lines
}

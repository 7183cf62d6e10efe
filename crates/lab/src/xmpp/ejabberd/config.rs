//! The text of ejabberd.yml.

use std::path::Path;

use super::super::{Listeners, XmppOptions};

/// Everything on the lab's address, no shapers, no limits but those asked for.
pub(in super::super) fn text(options: &XmppOptions, listeners: &Listeners, dir: &Path) -> String {
    let mut text = common(options, dir);
    text.push_str(&listen(options, listeners));
    if options.federation.is_some() {
        text.push_str(&other_servers(listeners, dir));
    }
    text.push_str(&access(options, listeners));
    text.push_str(&modules(listeners, dir));
    if options.federation.is_some() {
        text.push_str("  mod_s2s_dialback: {}\n");
    }
    if options.offline {
        text.push_str(OFFLINE);
    }
    if options.rooms {
        text.push_str(&rooms(options));
    }
    if options.pubsub {
        text.push_str(PUBSUB);
    }
    text
}

fn common(options: &XmppOptions, dir: &Path) -> String {
    let XmppOptions { domain, log_level, .. } = options;
    let certificate = dir.join("server.pem");
    format!(
        r#"loglevel: {log_level}
hosts: ["{domain}"]
certfiles: ["{}"]
language: en
auth_method: [internal]
auth_password_format: scram
auth_scram_hash: sha256
queue_type: ram
acme: {{ auto: false }}
"#,
        certificate.display()
    )
}

fn listen(options: &XmppOptions, listeners: &Listeners) -> String {
    let (ip, http) = (listeners.http.ip(), listeners.http.port());
    let clients = clients(options, listeners);
    format!(
        r#"listen:
{clients}  - port: {http}
    ip: "{ip}"
    module: ejabberd_http
    request_handlers:
      /upload: mod_http_upload
      /api: mod_http_api
"#
    )
}

/// Where other servers connect. It follows the other listeners.
fn other_servers(listeners: &Listeners, dir: &Path) -> String {
    let (ip, port) = (listeners.servers.ip(), listeners.servers.port());
    format!(
        r#"  - port: {port}
    ip: "{ip}"
    module: ejabberd_s2s_in
    shaper: none
s2s_use_starttls: required
s2s_access: local
ca_file: "{}"
outgoing_s2s_families: [ipv4]
s2s_max_retry_delay: 2
"#,
        dir.join("ca.pem").display()
    )
}

/// Where clients connect, as it stands in the text.
pub(in super::super) fn clients(options: &XmppOptions, listeners: &Listeners) -> String {
    let size = options.max_stanza_size;
    let starttls = if options.plaintext { "starttls: true" } else { "starttls_required: true" };
    let ip = listeners.client.ip();
    let (client, tls) = (listeners.client.port(), listeners.client_tls.port());
    format!(
        r#"  - port: {client}
    ip: "{ip}"
    module: ejabberd_c2s
    access: c2s
    shaper: none
    {starttls}
    max_stanza_size: {size}
    max_fsm_queue: 100000
  - port: {tls}
    ip: "{ip}"
    module: ejabberd_c2s
    access: c2s
    shaper: none
    tls: true
    max_stanza_size: {size}
    max_fsm_queue: 100000
"#
    )
}

fn access(options: &XmppOptions, listeners: &Listeners) -> String {
    let offline = options.max_offline_messages.map_or("infinity".to_owned(), |max| max.to_string());
    // The lab's address, or the network of the lab's hosts.
    let ip = listeners.http.ip();
    format!(
        r#"access_rules:
  c2s: {{ allow: all }}
  local: {{ allow: all }}
shaper_rules:
  max_user_sessions: 100
  max_user_offline_messages: {offline}
  soft_upload_quota: 100000
  hard_upload_quota: 100000
acl:
  lab: {{ ip: [127.0.0.0/8, "{ip}/24"] }}
api_permissions:
  lab:
    from: [mod_http_api]
    who: {{ access: {{ allow: {{ acl: lab }} }} }}
    what: "*"
"#
    )
}

fn modules(listeners: &Listeners, dir: &Path) -> String {
    let ip = listeners.client.ip();
    let (http, proxy) = (listeners.http, listeners.proxy.port());
    let upload = dir.join("upload");
    format!(
        r#"modules:
  mod_adhoc: {{}}
  mod_admin_extra: {{}}
  mod_caps: {{}}
  mod_disco: {{}}
  mod_http_api: {{}}
  mod_http_upload:
    put_url: "http://{http}/upload"
    docroot: "{}"
    max_size: 1073741824
    access: local
  mod_http_upload_quota: {{ max_days: 1 }}
  mod_last: {{}}
  mod_mam:
    db_type: mnesia
    default: never
    assume_mam_usage: true
    clear_archive_on_room_destroy: true
  mod_ping: {{}}
  mod_privacy: {{}}
  mod_private: {{}}
  mod_proxy65:
    ip: "{ip}"
    hostname: "{ip}"
    port: {proxy}
    shaper: none
    recbuf: 262144
    sndbuf: 262144
  mod_roster: {{ versioning: true }}
  mod_stream_mgmt:
    resume_timeout: 60
    max_resume_timeout: 300
    max_ack_queue: infinity
    ack_timeout: 60
    resend_on_timeout: true
  mod_version: {{}}
"#,
        upload.display()
    )
}

const OFFLINE: &str = "  mod_offline:
    access_max_user_messages: max_user_offline_messages
    store_groupchat: false
    use_mam_for_storage: false
    bounce_groupchat: false
";

fn rooms(options: &XmppOptions) -> String {
    let archive = options.room_archive;
    // The servers are owners of their rooms, for whom there are so many seats more.
    let (limit, threshold) = match options.max_room_users {
        // The least is one more.
        Some(users) => (format!("\n    max_users: {}", users.saturating_sub(1)), 1),
        None => (String::new(), 100),
    };
    format!(
        r#"  mod_muc:
    host: "conference.@HOST@"
    access: local
    access_admin: none
    access_create: local
    access_persistent: local
    access_mam: local
    history_size: 0
    max_user_conferences: 1000
    max_users_admin_threshold: {threshold}{limit}
    min_message_interval: 0
    user_message_shaper: none
    room_shaper: none
    default_room_options:
      mam: {archive}
  mod_muc_admin: {{}}
"#
    )
}

const PUBSUB: &str = r#"  mod_pubsub:
    host: "pubsub.@HOST@"
    access_createnode: local
    plugins: [flat, pep]
    max_items_node: 1000000
    last_item_cache: false
    ignore_pep_from_offline: false
"#;

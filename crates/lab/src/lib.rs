//! Real servers for tests, the demo and benchmarks: slapd, ejabberd, and groups of them.
//!
//! Everything a lab starts lives in its own temporary directory, on its own loopback address and on free
//! ports, so that any number of labs run side by side and none touches the machine's own services. Nothing
//! is left behind: servers die and directories go away on drop, on panic, and when the process that owns
//! them is killed with -9.
//!
//! In reading order:
//!
//! - [`LabDir`]: the directory, the address, free ports;
//! - [`wait_until`]: waiting for a condition, never for a time;
//! - [`XmppServer`], [`Slapd`]: one server each, with [`SlapdConfig`] for the text of slapd.conf;
//! - [`Ldap`], [`dump`](dump()), [`assert_equal`]: asking and comparing directories;
//! - [`ldif`]: realistic content; [`examples`]: what lies in `slapd-conf-examples/`;
//! - [`Group`]: an XMPP server and the slapds that replicate through it;
//! - [`net::Network`]: a network for a group, with faults on purpose.

#![forbid(unsafe_code)]

mod baseline;
pub mod certificates;
mod child;
mod dir;
mod dump;
mod error;
pub mod examples;
mod group;
mod http;
mod ldap;
pub mod ldif;
mod line;
pub mod net;
mod slapd;
mod wait;
mod xmpp;

pub use child::Stopped;
pub use dir::LabDir;
pub use dump::{
    ContextCsn, Dump, assert_equal, assert_equal_clients, assert_equal_with, check_equal, difference, dump,
};
pub use error::{LabError, Result};
pub use group::{Group, GroupOptions, Live, Replication, SUFFIX, SecondXmpp, Tls, Topology};
pub use ldap::{Entry, Ldap};
/// The LDAP client behind [`Ldap`], for its controls, scopes and extended operations.
pub use ldap3;
pub use line::Line;
pub use slapd::{
    Database, Slapd, SlapdConfig, SlapdOptions, failpoints_module_path, module_path, other_release,
};
pub use wait::{wait_for, wait_until};
pub use xmpp::{Cluster, Federation, XmppData, XmppKind, XmppOptions, XmppServer, XmppService};

//! Nodes of ejabberd that serve one domain together.

use std::net::IpAddr;
use std::ops::Range;
use std::process::Command;

use super::ejabberd::{self, erlang_ip};
use crate::child::{Server, program};
use crate::error::Result;

/// Below those that the kernel gives to who asks for any, so that at no node's address a listener has it.
const PORTS: Range<u16> = 20_000..30_000;
const JOIN_MILLISECONDS_MAX: u32 = 60_000;

/// What the nodes of a cluster have in common. Each runs at an address of its own, because all use one port.
#[derive(Clone, Debug)]
pub struct Cluster {
    port: u16,
    cookie: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { port: rand::random_range(PORTS), cookie: format!("{:x}", rand::random::<u128>()) }
    }
}

impl Cluster {
    /// Erlang's name of the node at an address.
    pub(super) fn name(ip: IpAddr) -> String {
        format!("ejabberd@{ip}")
    }

    /// What makes an Erlang a node that others at the same port reach, without the machine's port mapper.
    pub(super) fn arguments(&self, ip: IpAddr) -> Vec<String> {
        let mut words = self.words(&Self::name(ip));
        words.extend(["-kernel", "inet_dist_use_interface", &erlang_ip(ip)].map(str::to_owned));
        words
    }

    /// Asks a node to join the cluster of another one.
    pub(super) fn joining(&self, node: IpAddr, other: IpAddr) -> Result<Command> {
        let [node_name, other_name] = [node, other].map(Self::name);
        let asking = format!(
            "ok = rpc:call('{node_name}', ejabberd_cluster, join, ['{other_name}'], {JOIN_MILLISECONDS_MAX}), halt()."
        );
        let mut command = Server::command(&program("erl")?);
        ejabberd::without_flags(&mut command);
        command.args(self.words(&format!("lab@{node}"))).args([
            "-noinput",
            "-hidden",
            "-dist_listen",
            "false",
        ]);
        command.args(["-eval", &asking]);
        Ok(command)
    }

    fn words(&self, name: &str) -> Vec<String> {
        let port = self.port.to_string();
        let words =
            ["-name", name, "-setcookie", &self.cookie, "-start_epmd", "false", "-erl_epmd_port", &port];
        words.map(str::to_owned).to_vec()
    }
}

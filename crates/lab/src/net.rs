//! A network of its own for a lab: one network namespace per host, joined by a switch in this process.
//!
//! Every packet between two hosts goes through the [switch](switch), which loses, delays and holds back what a test
//! wants it to: no module of the kernel is needed, and the same seed loses the same packets of the same traffic.
//! The kernels' TCP is as it is, with its retransmissions and its patience.
//!
//! Host 0 is this process, by an interface in the machine's own namespace: clients come from there. The others are
//! namespaces without a name, each held by a process that dies with this one; an interface goes with its file
//! descriptor. So nothing is left behind, whatever way this process ends.

mod link;
mod switch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::child::{Server, program, run_tool};
use crate::dir::LabDir;
use crate::error::{IoContext, LabError, Result};
use crate::wait::wait_until;

pub use link::Condition;
use link::Links;
use switch::Switch;

/// This process, for [`Network::set`].
pub const CLIENT: usize = 0;
/// Of Ethernet: what one lost packet takes with it is what it is elsewhere.
const MTU: u16 = 1500;
const HOLDER_DEADLINE: Duration = Duration::from_secs(10);
/// Random subnets are tried until one is free.
const SUBNETS_MAX: usize = 100;
/// What a namespace needs beside its interface; it hears only of IPv4.
const SET_UP: &str = r#"set -e
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 || :
ip link set lo up
ip link set dev "$1" name eth0 mtu "$2"
ip addr add "$3/24" dev eth0
ip link set eth0 up
"#;

/// Hosts, and the switch between them. Ends with the last clone.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Field order is drop order: the interfaces go first, then the namespaces.
    switch: Switch,
    hosts: Vec<Host>,
    client: Ipv4Addr,
}

/// A host: a network namespace, with a mount namespace for disks of its own.
#[derive(Clone, Debug)]
pub struct Host {
    address: Ipv4Addr,
    holder: Arc<Server>,
}

impl Network {
    /// Why there can be no network here; `None` where there can.
    #[must_use]
    pub fn why_not() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("/dev/net/tun is not there".to_owned());
        }
        let missing = ["ip", "unshare", "nsenter"].into_iter().find(|name| program(name).is_err())?;
        Some(format!("{missing} is not installed"))
    }

    /// A network of so many hosts beside this process. The seed decides which packets are lost.
    ///
    /// # Errors
    /// When a namespace or an interface cannot be made.
    pub fn new(lab: &LabDir, hosts: usize, seed: u64) -> Result<Self> {
        let [first, second] = free_subnet()?;
        let address = |number: usize| {
            let last = u8::try_from(number + 1).ok().filter(|last| *last < u8::MAX);
            let too_many = || LabError::Invalid(format!("a network of {hosts} hosts is too large"));
            last.map(|last| Ipv4Addr::new(10, first, second, last)).ok_or_else(too_many)
        };
        let client = address(CLIENT)?;
        let mut devices = vec![client_device(client)?];
        let mut made = Vec::new();
        for number in 1..=hosts {
            let (host, device) = Host::new(lab, number, address(number)?)?;
            made.push(host);
            devices.push(device);
        }
        let addresses = (0..=hosts).map(address).collect::<Result<Vec<_>>>()?;
        let switch = Switch::start(devices, addresses, Links::new(hosts + 1, seed))?;
        Ok(Self(Arc::new(Inner { switch, hosts: made, client })))
    }

    /// A host, from 1.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn host(&self, number: usize) -> Result<Host> {
        let host = number.checked_sub(1).and_then(|index| self.0.hosts.get(index));
        host.cloned().ok_or_else(|| LabError::Invalid(format!("the network has no host {number}")))
    }

    /// The address of this process in it.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        IpAddr::V4(self.0.client)
    }

    /// What becomes of packets from one host to another, from now on.
    pub fn set(&self, from: usize, to: usize, condition: Condition) {
        self.0.switch.links(|links| links.set(from, to, condition, Instant::now()));
    }

    /// [`Network::set`] for both directions.
    pub fn set_both(&self, one: usize, other: usize, condition: Condition) {
        self.set(one, other, condition);
        self.set(other, one, condition);
    }

    /// [`Network::set_both`] for each host of one group with each of the other, but never with this process.
    pub fn set_between(&self, group: &[usize], others: &[usize], condition: Condition) {
        for one in group.iter().filter(|host| **host != CLIENT) {
            for other in others.iter().filter(|host| **host != CLIENT && *host != one) {
                self.set_both(*one, *other, condition);
            }
        }
    }

    /// Everything goes through again.
    pub fn heal(&self) {
        self.0.switch.links(Links::heal);
    }

    /// How many packets were let through and how many were lost.
    #[must_use]
    pub fn packets(&self) -> (u64, u64) {
        self.0.switch.links(|links| (links.passed, links.lost))
    }
}

impl Host {
    /// A namespace whose interface has the address; the interface's other end.
    fn new(lab: &LabDir, number: usize, address: Ipv4Addr) -> Result<(Self, SyncDevice)> {
        let name = format!("host {number}");
        let mut command = Server::command(&program("unshare")?);
        command.args(["--net", "--mount", "sleep", "infinity"]);
        let holder = Arc::new(Server::start(&name, command, &lab.path().join("network.log"))?);
        let host = Self { address, holder };
        wait_until(&format!("{name} has a namespace"), HOLDER_DEADLINE, || host.holds())?;
        let device_name = format!("xs{:08x}", rand::random::<u32>());
        let device = device(&device_name)?;
        let pid = host.holder.pid().to_string();
        run_tool(Command::new(program("ip")?).args(["link", "set", "dev", &device_name, "netns", &pid]))?;
        let mut set_up = host.command(Path::new("sh"));
        set_up.args(["-c", SET_UP, "set-up", &device_name, &MTU.to_string(), &address.to_string()]);
        run_tool(&mut set_up)?;
        Ok((host, device))
    }

    /// Whether the holder has come so far that it only sleeps.
    fn holds(&self) -> Result<(), String> {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.holder.pid()));
        match name {
            Ok(name) if name.trim() == "sleep" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// The process that holds its namespaces.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A command that runs the program on the host, so that it dies with this process.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Server::command(Path::new("nsenter"));
        let pid = self.holder.pid().to_string();
        command.args(["--target", &pid, "--net", "--mount", "--"]).arg(program);
        command
    }

    /// Its address, with a port.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }

    /// Gives it a disk of its own, of so many bytes in memory, at a directory. Others see what the directory held
    /// before; [`Host::path`] is how this process sees the disk.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount_disk(&self, directory: &Path, size: u64) -> Result<()> {
        let mut mount = self.command(&program("mount")?);
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "xmppsync"]).arg(directory);
        run_tool(&mut mount).map(drop)
    }

    /// A file of the host, as this process finds it.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// A command that runs the program on the host, or on this machine where there is none.
pub(crate) fn command_on(host: Option<&Host>, program: &Path) -> Command {
    host.map_or_else(|| Server::command(program), |host| host.command(program))
}

fn device(name: &str) -> Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).layer(Layer::L3).enable(false).build_sync();
    device.context(|| format!("cannot make the interface {name}"))
}

/// The interface of this process.
fn client_device(address: Ipv4Addr) -> Result<SyncDevice> {
    let name = format!("xs{:08x}", rand::random::<u32>());
    let made = device(&name)?;
    let ip = program("ip")?;
    let run = |arguments: &[&str]| run_tool(Command::new(&ip).args(arguments)).map(drop);
    run(&["link", "set", "dev", &name, "mtu", &MTU.to_string()])?;
    run(&["addr", "add", &format!("{address}/24"), "dev", &name])?;
    run(&["link", "set", &name, "up"])?;
    Ok(made)
}

/// The middle of 10.x.y.0/24: a subnet to which this machine knows no way but its default.
fn free_subnet() -> Result<[u8; 2]> {
    for _ in 0..SUBNETS_MAX {
        let [first, second]: [u8; 2] = rand::random();
        let subnet = format!("10.{first}.{second}.1");
        let mut show = Command::new(program("ip")?);
        let routes = run_tool(show.args(["-4", "route", "show", "match", &subnet]))?;
        if String::from_utf8_lossy(&routes).lines().all(|route| route.starts_with("default")) {
            return Ok([first, second]);
        }
    }
    Err(LabError::Invalid("no subnet of 10.0.0.0/8 is free".to_owned()))
}

//! The switch: a thread that reads packets from each interface and writes them to the one that they are for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use super::link::{Fate, Links};
use crate::error::{IoContext, Result};

/// The largest IP packet.
const PACKET_MAX: usize = 65_535;
/// From one interface at a time, so that the others get their turn.
const BURST_MAX: usize = 64;
/// Packets on their way; a router with full queues loses what comes then.
const QUEUE_MAX: usize = 65_536;

/// The running switch. Ends with the value.
#[derive(Debug)]
pub(super) struct Switch {
    links: Arc<Mutex<Links>>,
    /// Closed, it ends the thread.
    end: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Joins the interfaces; each has the address at its place in the list.
    pub(super) fn start(devices: Vec<SyncDevice>, addresses: Vec<Ipv4Addr>, links: Links) -> Result<Self> {
        for device in &devices {
            rustix::io::ioctl_fionbio(device, true)
                .map_err(io::Error::from)
                .context(|| "an interface cannot be read".to_owned())?;
        }
        let (ended, end) = io::pipe().context(|| "cannot make a pipe".to_owned())?;
        let links = Arc::new(Mutex::new(links));
        let ports = addresses.into_iter().enumerate().map(|(port, address)| (address, port)).collect();
        let mut table =
            Table { devices, ports, links: Arc::clone(&links), on_the_way: BinaryHeap::new(), sent: 0 };
        let thread = std::thread::spawn(move || table.run(&ended));
        Ok(Self { links, end: Some(end), thread: Some(thread) })
    }

    /// Reads or changes what the links do.
    pub(super) fn links<T>(&self, with: impl FnOnce(&mut Links) -> T) -> T {
        with(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A packet: when it arrives, a number that keeps the order of those that arrive at once, and the port that it is for.
type Delayed = (Instant, u64, usize, Vec<u8>);

/// What the thread knows.
struct Table {
    devices: Vec<SyncDevice>,
    ports: HashMap<Ipv4Addr, usize>,
    links: Arc<Mutex<Links>>,
    on_the_way: BinaryHeap<Reverse<Delayed>>,
    sent: u64,
}

impl Table {
    fn run(&mut self, ended: &PipeReader) {
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            let wait = self.deliver(Instant::now());
            match self.wait(ended, wait) {
                Ok(None) => return,
                Ok(Some(readable)) => readable.into_iter().for_each(|port| self.forward(port, &mut buffer)),
                // Nothing else can go wrong with descriptors that are open.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The interfaces that have something, once one has or the time is over; `None` at the end.
    fn wait(&self, ended: &PipeReader, at_most: Option<Duration>) -> io::Result<Option<Vec<usize>>> {
        let mut watched: Vec<PollFd<'_>> = self
            .devices
            .iter()
            .map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN))
            .collect();
        watched.push(PollFd::new(ended, PollFlags::IN));
        let timeout = at_most.and_then(|time| Timespec::try_from(time).ok());
        poll(&mut watched, timeout.as_ref())?;
        let mut ready = Vec::new();
        for (port, watched) in watched.iter().enumerate() {
            if !watched.revents().is_empty() {
                if port == self.devices.len() {
                    return Ok(None);
                }
                ready.push(port);
            }
        }
        Ok(Some(ready))
    }

    /// Writes what has arrived by now; how long it is until the next.
    fn deliver(&mut self, now: Instant) -> Option<Duration> {
        while let Some(Reverse((due, ..))) = self.on_the_way.peek() {
            if *due > now {
                return Some(*due - now);
            }
            if let Some(Reverse((_, _, port, packet))) = self.on_the_way.pop() {
                self.send(port, &packet);
            }
        }
        None
    }

    fn forward(&mut self, from: usize, buffer: &mut [u8]) {
        for _ in 0..BURST_MAX {
            // An error is that there is no more, or that the host is gone.
            let Ok(length) = self.devices[from].recv(buffer) else { return };
            let packet = &buffer[..length];
            let Some(to) = destination(packet).and_then(|address| self.ports.get(&address).copied()) else {
                continue;
            };
            let now = Instant::now();
            let fate = self.links.lock().unwrap_or_else(PoisonError::into_inner).fate(from, to, now);
            match fate {
                Fate::Arrives(Duration::ZERO) => self.send(to, packet),
                Fate::Arrives(latency) if self.on_the_way.len() < QUEUE_MAX => {
                    self.sent += 1;
                    self.on_the_way.push(Reverse((now + latency, self.sent, to, packet.to_vec())));
                }
                Fate::Arrives(_) | Fate::Lost => {}
            }
        }
    }

    fn send(&self, port: usize, packet: &[u8]) {
        // A packet that an interface does not take is lost, as it is anywhere.
        let _ = self.devices[port].send(packet);
    }
}

/// The destination of an IPv4 packet (RFC 791, section 3.1).
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    const DESTINATION: std::ops::Range<usize> = 16..20;
    let is_ipv4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
    let octets: [u8; 4] = packet.get(DESTINATION)?.try_into().ok()?;
    is_ipv4.then(|| Ipv4Addr::from(octets))
}

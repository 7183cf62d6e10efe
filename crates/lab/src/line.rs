//! A line to a server that can be cut: a TCP relay.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::dir::LabDir;
use crate::error::{IoContext, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Relays connections to a server while it is not cut. Ends with the value.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    is_cut: AtomicBool,
    ends: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Line {
    /// A line to the server at this address.
    ///
    /// # Errors
    /// When there is no port.
    pub fn to(lab: &LabDir, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(lab.free_address()?).context(|| "no port for a line".to_owned())?;
        let address = listener.local_addr().context(|| "a line has no address".to_owned())?;
        let shared = Arc::new(Shared {
            to,
            is_cut: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let relay = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &relay));
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it is entered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all that goes through it, and lets nothing through.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        let open = std::mem::take(&mut *self.shared.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Lets new connections through.
    pub fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes it.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ends.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream
            && !shared.is_cut.load(Ordering::SeqCst)
        {
            // Who is not let through sees a closed connection.
            let _ = relay(stream, shared);
        }
    }
}

fn relay(near: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let far = TcpStream::connect_timeout(&shared.to, CONNECT_TIMEOUT)?;
    let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
    // What is pushed before a cut is cut by it; what comes after sees that it is cut.
    if shared.is_cut.load(Ordering::SeqCst) {
        return Ok(());
    }
    open.push(near.try_clone()?);
    open.push(far.try_clone()?);
    drop(open);
    let (there, back) = ((near.try_clone()?, far.try_clone()?), (far, near));
    std::thread::spawn(move || copy(there.0, there.1));
    std::thread::spawn(move || copy(back.0, back.1));
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

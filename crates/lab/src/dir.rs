//! The directory and the address of a lab.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{IoContext, LabError, Result};

/// Removes a directory as soon as its standard input ends, which is when the process at the other end is
/// gone, even by `kill -9`. It tries for a while because servers killed at the same moment may still write.
const UNDERTAKER: &str = r#"
trap "" HUP INT TERM
while read -r _; do :; done
tries=0
while [ "$tries" -lt 100 ]; do
    rm -rf -- "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// A temporary directory, with a loopback address that no other lab uses.
///
/// Clones are handles to the same directory; servers hold one, so it outlives them. It is removed with the
/// last handle, and by a process that watches over it when this process is killed.
#[derive(Clone, Debug)]
pub struct LabDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Field order is drop order: the directory goes while the undertaker still watches.
    dir: tempfile::TempDir,
    _undertaker: Undertaker,
    address: Ipv4Addr,
    ports_given: Mutex<HashSet<u16>>,
}

impl LabDir {
    /// Makes a lab in the system's temporary directory.
    ///
    /// # Errors
    /// When the directory or the process that watches over it cannot be made.
    pub fn new() -> Result<Self> {
        Self::in_dir(&std::env::temp_dir())
    }

    /// Makes a lab below a directory of choice: on a disk, or on a tmpfs such as `/dev/shm`.
    ///
    /// # Errors
    /// When the directory or the process that watches over it cannot be made.
    pub fn in_dir(base: &Path) -> Result<Self> {
        // Short: paths of sockets below it may not be longer than 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("xmppsync-")
            .tempdir_in(base)
            .context(|| format!("cannot make a directory in {}", base.display()))?;
        let undertaker = Undertaker::watch(dir.path()).context(|| "cannot run sh".to_owned())?;
        // Any address of 127.0.0.0/8 is this machine. With a random one per lab, labs in other processes
        // never race for a port, and neither do outgoing connections, which use 127.0.0.1.
        let [low, middle, high]: [u8; 3] = rand::random();
        let address = Ipv4Addr::new(127, high % 254 + 1, middle, low % 254 + 1);
        Ok(Self(Arc::new(Inner { dir, _undertaker: undertaker, address, ports_given: Mutex::default() })))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.dir.path()
    }

    /// A directory below the lab's, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file below the lab's directory and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::write(&path, content).context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The loopback address of this lab.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.0.address)
    }

    /// A free port on the lab's address, never given out twice.
    ///
    /// # Errors
    /// When the system has none.
    pub fn free_address(&self) -> Result<SocketAddr> {
        let mut given = self.0.ports_given.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel may name the same free port again until a server listens on it.
        const TRIES: usize = 1000;
        for _ in 0..TRIES {
            let listener = TcpListener::bind((self.0.address, 0))
                .and_then(|listener| listener.local_addr())
                .context(|| format!("no free port on {}", self.0.address))?;
            if given.insert(listener.port()) {
                return Ok(listener);
            }
        }
        Err(LabError::Invalid(format!("no port of {} is left", self.0.address)))
    }
}

/// The watching process. On drop it is sent home.
#[derive(Debug)]
struct Undertaker(Child);

impl Undertaker {
    fn watch(path: &Path) -> io::Result<Self> {
        Command::new("sh")
            .args(["-c", UNDERTAKER, "xmppsync-lab-undertaker"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the terminal's group: Ctrl-C is for the process that it watches.
            .process_group(0)
            .spawn()
            .map(Self)
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        // Closes its input, whereupon it removes what may be left and ends. Nothing to do if it is gone.
        let _ = self.0.wait();
    }
}

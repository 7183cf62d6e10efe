//! Single changes and entries that are too large for stanzas: asked for, announced, sent as a file.

use crate::heal::as_put;
use crate::limits;
use crate::reads;
use crate::shared::{Shared, lock};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;
use xmpp_parsers::jid::FullJid;
use xmppsync_link::{FileHash, FileOffer, Group, IncomingFile, RequestError, TransferError};
use xmppsync_replica::Change;
use xmppsync_wire::{FileRequest, Payload, WireError, change_from_xml, change_to_xml};

/// Why a change did not come as a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the answer cannot be used: {0}")]
    Wire(#[from] WireError),
    #[error("the file was not offered, or is another one than announced")]
    NotOffered,
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

/// Files that peers offer, until those who asked for them take them. The announcement and the offer may come in
/// either order.
#[derive(Default)]
pub(crate) struct Offers(Mutex<BTreeMap<String, Slot>>);

enum Slot {
    Offered(FullJid, IncomingFile, Instant),
    Awaited(FullJid, oneshot::Sender<IncomingFile>),
}

impl Offers {
    /// A peer offers a file. One that nobody has asked for is refused after a while.
    pub(crate) fn offered(&self, from: FullJid, offer: FileOffer, file: IncomingFile) {
        let mut slots = lock(&self.0);
        slots.retain(|_, slot| match slot {
            Slot::Offered(_, _, at) => at.elapsed() < limits::PULL_TIMEOUT,
            Slot::Awaited(_, awaited) => !awaited.is_closed(),
        });
        match slots.remove(&offer.id) {
            // Whoever went away meanwhile refuses by dropping it.
            Some(Slot::Awaited(peer, awaited)) if peer == from => drop(awaited.send(file)),
            _ if slots.len() < limits::OFFERS_MAX => {
                slots.insert(offer.id, Slot::Offered(from, file, Instant::now()));
            }
            _ => file.refuse("too many files are offered"),
        }
    }

    async fn take(&self, from: &FullJid, id: &str) -> Option<IncomingFile> {
        let awaited = {
            let mut slots = lock(&self.0);
            match slots.remove(id) {
                Some(Slot::Offered(peer, file, _)) if peer == *from => return Some(file),
                _ => {}
            }
            let (sender, awaited) = oneshot::channel();
            slots.insert(id.to_owned(), Slot::Awaited(from.clone(), sender));
            awaited
        };
        tokio::time::timeout(limits::PULL_TIMEOUT, awaited).await.ok()?.ok()
    }
}

/// Gets one change from a peer.
pub(crate) async fn fetch(
    group: &Group,
    offers: &Offers,
    from: &FullJid,
    what: FileRequest,
) -> Result<Change, FileError> {
    let question = Payload::FileRequest(what).to_element()?;
    let answer = group.request(from.clone(), question, limits::PULL_TIMEOUT).await?;
    let Payload::File(announced) = Payload::decode(&answer)? else { return Err(FileError::NotOffered) };
    let file = offers.take(from, &announced.id).await.ok_or(FileError::NotOffered)?;
    let mut reader = file.accept(FileHash::new());
    let offer = reader.offer();
    if offer.size != announced.bytes || offer.sha256 != announced.sha256 {
        return Err(FileError::NotOffered);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(announced.bytes).unwrap_or_default());
    while let Some(chunk) = reader.chunk().await {
        bytes.extend_from_slice(&chunk?);
    }
    // Parsing some 10 MB would hold up everything else on the hub's thread.
    let parsed = tokio::task::spawn_blocking(move || change_from_xml(&bytes)).await;
    let change = parsed.map_err(|_| FileError::NotOffered)??;
    let asked_for = match what {
        FileRequest::Change(csn) => change.csn == csn,
        FileRequest::Entry(uuid) => change.uuid == uuid,
    };
    if asked_for { Ok(change) } else { Err(FileError::NotOffered) }
}

/// Looks up what a peer asks for, as a file without a name.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    dir: &Path,
    what: FileRequest,
) -> Option<(xmppsync_wire::File, FileOffer, File)> {
    let change = match what {
        FileRequest::Change(csn) => shared.store.ask(move |journal| journal.change(csn)).await.ok()??,
        FileRequest::Entry(uuid) => as_put(reads::entries(shared, vec![uuid]).await?.pop()??),
    };
    let csn = change.csn;
    let id = format!("change-{:016x}", rand::random::<u64>());
    let path = dir.join(&id);
    let written = tokio::task::spawn_blocking(move || write(&change, &path)).await.ok()?.ok()?;
    let (file, hash) = written;
    let (bytes, sha256) = (hash.bytes(), hash.sha256());
    let offer = FileOffer { id: id.clone(), name: format!("{id}.xml"), size: bytes, sha256 };
    Some((xmppsync_wire::File { id, csn, bytes, sha256 }, offer, file))
}

fn write(change: &Change, path: &Path) -> io::Result<(File, FileHash)> {
    let xml = change_to_xml(change).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // Gone with the last one who has it open.
    fs::remove_file(path)?;
    file.write_all(&xml)?;
    file.rewind()?;
    let mut hash = FileHash::new();
    hash.update(&xml);
    Ok((file, hash))
}

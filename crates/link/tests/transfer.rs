//! Files between members of a group on a real ejabberd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

use common::{Bed, Member};
use tokio::time::timeout;
use xmppsync_link::{
    Event, FileHash, FileOffer, FileReader, FullJid, IncomingFile, OutgoingFile, Sent, TransferError,
    Transport,
};

const MB: usize = 1_000_000;

/// A file that nobody else sees, and its bytes.
fn file(size: usize) -> (File, Vec<u8>) {
    let mut bytes = vec![0; size];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for chunk in bytes.chunks_mut(8) {
        // xorshift: bytes that repeat nowhere show every piece that is lost or doubled.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    let path = std::env::temp_dir().join(format!("xmppsync-transfer-{}-{}", std::process::id(), unique()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    (file, bytes)
}

fn unique() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn offer(bytes: &[u8]) -> FileOffer {
    let sha256 = FileHash::of(bytes).unwrap().sha256();
    FileOffer { id: "load-1".into(), name: "dc=example.ldif.zst".into(), size: bytes.len() as u64, sha256 }
}

impl Member {
    async fn offered(&mut self) -> (FullJid, IncomingFile) {
        let deadline = tokio::time::Instant::now() + common::DEADLINE;
        loop {
            match tokio::time::timeout_at(deadline, self.events.recv()).await {
                Ok(Some(Event::FileOffered { from, incoming, .. })) => return (from, incoming),
                Ok(Some(_)) => {}
                other => panic!("no offer: {other:?}"),
            }
        }
    }
}

/// Two members of a group that see each other.
async fn pair(bed: &Bed) -> (Member, Member) {
    let mut a = bed.member("a", &["b"]).await;
    a.online().await;
    let mut b = bed.member("b", &["a"]).await;
    b.online().await;
    (a, b)
}

async fn read_all(reader: &mut FileReader) -> Result<Vec<u8>, TransferError> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.chunk().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_file_arrives_byte_for_byte_in_stanzas() {
    arrives(Transport::InBand).await;
}

async fn arrives(transport: Transport) {
    let bed = Bed::start(&["a", "b"]);
    let (a, mut b) = pair(&bed).await;
    let (file, bytes) = file(30 * MB);
    let outgoing = a.group.offer_file(bed.config("b").jid, offer(&bytes), file).unwrap();
    let (from, incoming) = b.offered().await;
    assert_eq!(from, bed.config("a").jid);
    let mut reader = incoming.accept(FileHash::new());
    assert_eq!(reader.offer(), &offer(&bytes));
    let (sent, got) = tokio::join!(outgoing.done(), read_all(&mut reader));
    assert!(got.unwrap() == bytes);
    assert_eq!(sent, Ok(Sent { bytes: bytes.len() as u64, transport }));
    a.close().await;
    b.close().await;
}

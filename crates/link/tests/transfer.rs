//! Files between members of a group on a real XMPP server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::future::Future;
use std::io::{Seek, Write};
use std::time::Duration;

use common::{Bed, Member};
use tokio::time::timeout;
use xmppsync_link::limits::TRANSFERS_OUT_MAX;
use xmppsync_link::{
    Event, FileHash, FileOffer, FileReader, FullJid, IncomingFile, OutgoingFile, Problem, Sent,
    TransferConfig, TransferError, Transport,
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

const ALL: TransferConfig = TransferConfig { direct: true, proxy: true };
const NO_DIRECT: TransferConfig = TransferConfig { direct: false, proxy: true };
const NONE: TransferConfig = TransferConfig { direct: false, proxy: false };

/// Two members of a group, who send and receive files in these ways.
async fn pair(bed: &Bed, ways: [TransferConfig; 2]) -> (Member, Member) {
    let mut a = member(bed, "a", "b", ways[0]).await;
    a.online().await;
    let mut b = member(bed, "b", "a", ways[1]).await;
    b.online().await;
    (a, b)
}

async fn member(bed: &Bed, user: &str, peer: &str, ways: TransferConfig) -> Member {
    let mut config = bed.config(user);
    config.transfer = ways;
    Member::new(config, bed.group(user, &[peer])).await
}

/// Offers a file to b, who takes it behind what it has.
async fn transfer(
    bed: &Bed,
    a: &Member,
    b: &mut Member,
    file: File,
    offer: FileOffer,
    has: FileHash,
) -> (OutgoingFile, FileReader) {
    let outgoing = a.group.offer_file(bed.config("b").jid, offer, file).unwrap();
    let (from, incoming) = b.offered().await;
    assert_eq!(from, bed.config("a").jid);
    (outgoing, incoming.accept(has))
}

async fn read_all(reader: &mut FileReader) -> Result<Vec<u8>, TransferError> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.chunk().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

async fn arrives(megabytes: usize, ways: [TransferConfig; 2], transport: Transport) {
    let bed = Bed::start(&["a", "b"]);
    let (a, mut b) = pair(&bed, ways).await;
    let (file, bytes) = file(megabytes * MB);
    let (outgoing, mut reader) = transfer(&bed, &a, &mut b, file, offer(&bytes), FileHash::new()).await;
    assert_eq!(reader.offer(), &offer(&bytes));
    let (sent, got) = within(async { tokio::join!(outgoing.done(), read_all(&mut reader)) }).await;
    assert!(got.unwrap() == bytes, "other bytes");
    assert_eq!(sent, Ok(Sent { bytes: bytes.len() as u64, transport }));
    assert_eq!(reader.chunk().await, None);
    a.close().await;
    b.close().await;
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    // Longer than the time after which a silent peer is given up.
    timeout(3 * common::DEADLINE, what).await.expect("not in time")
}

#[tokio::test]
async fn a_file_arrives_byte_for_byte_by_a_direct_connection() {
    arrives(30, [ALL, ALL], Transport::Direct).await;
}

#[tokio::test]
async fn without_direct_connections_it_takes_the_proxy_of_the_server() {
    arrives(30, [NO_DIRECT, NO_DIRECT], Transport::Proxy).await;
    // The addresses of the sender are of no use to a receiver behind a firewall.
    arrives(1, [ALL, NO_DIRECT], Transport::Proxy).await;
}

#[tokio::test]
async fn without_either_it_goes_in_stanzas() {
    arrives(10, [NONE, NONE], Transport::InBand).await;
}

#[tokio::test]
async fn sides_that_do_not_reach_each_other_fall_back_to_stanzas() {
    arrives(3, [ALL, NONE], Transport::InBand).await;
}

#[tokio::test]
async fn an_empty_file_arrives() {
    arrives(0, [ALL, ALL], Transport::Direct).await;
    arrives(0, [NONE, NONE], Transport::InBand).await;
}

#[tokio::test]
async fn after_a_cut_the_rest_is_fetched_and_the_whole_verified() {
    let bed = Bed::start(&["a", "b"]);
    for ways in [ALL, NONE] {
        let (mut a, mut b) = pair(&bed, [ways, ways]).await;
        let (file, bytes) = file(20 * MB);
        let again = file.try_clone().unwrap();
        let (outgoing, mut reader) = transfer(&bed, &a, &mut b, file, offer(&bytes), FileHash::new()).await;
        let mut got = Vec::new();
        while got.len() < MB {
            got.extend_from_slice(&within(reader.chunk()).await.unwrap().unwrap());
        }
        bed.xmpp.api("kick_user", r#"{"user":"a","host":"xmpp.test"}"#).unwrap();
        let broken = within(async {
            loop {
                match reader.chunk().await.expect("an error at the end") {
                    Ok(chunk) => got.extend_from_slice(&chunk),
                    Err(error) => return error,
                }
            }
        });
        // Nobody tells a receiver in stanzas: it waits for as long as it may.
        println!("{ways:?}: {}", broken.await);
        assert_eq!(within(outgoing.done()).await, Err(TransferError::Offline));
        assert!(got.len() < bytes.len());
        a.online().await;

        let (has, rest) = (reader.hash().clone(), (bytes.len() - got.len()) as u64);
        assert_eq!(has.bytes(), got.len() as u64);
        let (outgoing, mut reader) = transfer(&bed, &a, &mut b, again, offer(&bytes), has).await;
        let (sent, more) = within(async { tokio::join!(outgoing.done(), read_all(&mut reader)) }).await;
        got.extend_from_slice(&more.unwrap());
        assert!(got == bytes, "other bytes");
        assert_eq!(sent.unwrap().bytes, rest);
        a.close().await;
        b.close().await;
    }
}

#[tokio::test]
async fn another_file_than_the_offered_one_is_not_taken_for_it() {
    let bed = Bed::start(&["a", "b"]);
    let (a, mut b) = pair(&bed, [ALL, ALL]).await;
    let (file, bytes) = file(MB);
    let altered = FileOffer { sha256: [0; 32], ..offer(&bytes) };
    let shorter = FileOffer { size: offer(&bytes).size - 1, ..offer(&bytes) };
    let longer = FileOffer { size: offer(&bytes).size + 1, ..offer(&bytes) };
    for (wrong, of_sender) in [(altered, "media-error"), (shorter, "media-error"), (longer, "cannot be read")]
    {
        let file = file.try_clone().unwrap();
        let (outgoing, mut reader) = transfer(&bed, &a, &mut b, file, wrong, FileHash::new()).await;
        let (sent, got) = within(async { tokio::join!(outgoing.done(), read_all(&mut reader)) }).await;
        let (sent, got) = (sent.unwrap_err().to_string(), got.unwrap_err());
        assert!(sent.contains(of_sender), "{sent}");
        assert!(matches!(got, TransferError::WrongHash | TransferError::Ended { .. }), "{got}");
        assert_eq!(reader.chunk().await, None, "an error is the last");
    }
    // What the receiver had before was of another file.
    let other = FileHash::of(&[1, 2, 3][..]).unwrap();
    let (outgoing, mut reader) = transfer(&bed, &a, &mut b, file, offer(&bytes), other).await;
    let (sent, got) = within(async { tokio::join!(outgoing.done(), read_all(&mut reader)) }).await;
    assert_eq!(got.unwrap_err(), TransferError::WrongHash);
    assert!(sent.is_err());
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn offers_that_nobody_wants_are_refused() {
    let bed = Bed::start(&["a", "b"]);
    let (a, mut b) = pair(&bed, [ALL, ALL]).await;
    let offered = |file| a.group.offer_file(bed.config("b").jid, offer(b"x"), file).unwrap();
    let outgoing = offered(file(1).0);
    b.offered().await.1.refuse("not today");
    let refused = within(outgoing.done()).await.unwrap_err();
    assert_eq!(refused, TransferError::Refused { reason: "decline: not today".into() });
    let outgoing = offered(file(1).0);
    drop(b.offered().await);
    assert!(matches!(within(outgoing.done()).await, Err(TransferError::Refused { .. })));
    let outgoing = a.group.offer_file(bed.config("a").jid, offer(b"x"), file(1).0).unwrap();
    assert_eq!(within(outgoing.done()).await, Err(TransferError::NotPeer));
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn the_offer_of_a_stranger_is_refused_and_reported() {
    let bed = Bed::start(&["a", "b", "m"]);
    let (a, mut b) = pair(&bed, [ALL, ALL]).await;
    let m = member(&bed, "m", "b", ALL).await;
    // m is in no room, but knows its name.
    let refused = within(async {
        loop {
            let outgoing = m.group.offer_file(bed.config("b").jid, offer(b"x"), file(1).0).unwrap();
            match outgoing.done().await.unwrap_err() {
                TransferError::Offline => tokio::task::yield_now().await,
                error => return error,
            }
        }
    })
    .await;
    assert!(
        matches!(&refused, TransferError::Refused { reason } if reason.contains("not a member")),
        "{refused}"
    );
    b.until("a report", |event| match event {
        Event::Problem(Problem::Stranger { jid, .. }) if jid == "m@xmpp.test" => Some(()),
        Event::FileOffered { .. } => panic!("the offer of a stranger"),
        _ => None,
    })
    .await;
    for member in [a, b, m] {
        member.close().await;
    }
}

#[tokio::test]
async fn a_sender_that_leaves_is_noticed_at_once() {
    let bed = Bed::start(&["a", "b"]);
    let (a, mut b) = pair(&bed, [ALL, ALL]).await;
    let (file, bytes) = file(30 * MB);
    let again = file.try_clone().unwrap();
    let (outgoing, mut reader) = transfer(&bed, &a, &mut b, file, offer(&bytes), FileHash::new()).await;
    within(reader.chunk()).await.unwrap().unwrap();
    drop(outgoing);
    let cancelled = timeout(Duration::from_secs(10), read_all(&mut reader)).await.unwrap();
    assert_eq!(cancelled, Err(TransferError::Ended { reason: "cancel: cancelled".into() }));

    let (outgoing, mut reader) = transfer(&bed, &a, &mut b, again, offer(&bytes), FileHash::new()).await;
    within(reader.chunk()).await.unwrap().unwrap();
    a.close().await;
    let gone = timeout(Duration::from_secs(10), read_all(&mut reader)).await.unwrap();
    assert!(matches!(&gone, Err(TransferError::Ended { reason }) if reason.starts_with("gone")), "{gone:?}");
    assert_eq!(outgoing.done().await, Err(TransferError::Offline));
    b.close().await;
}

#[tokio::test]
async fn a_sender_that_falls_silent_is_given_up() {
    let bed = Bed::start(&["a", "b"]);
    let mut b = member(&bed, "b", "a", NONE).await;
    b.online().await;
    let (config, group, to) = (bed.config("a"), bed.group("a", &["b"]), bed.config("b").jid);
    // A process of its own in small: what runs in it ends without a word.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = xmppsync_link::SessionConfig { transfer: NONE, ..config };
            let mut a = Member::new(config, group).await;
            a.online().await;
            let (file, bytes) = file(30 * MB);
            let _outgoing = a.group.offer_file(to, offer(&bytes), file).unwrap();
            stopped.await.unwrap();
            std::mem::forget(a);
        });
    });
    let (_, incoming) = b.offered().await;
    let mut reader = incoming.accept(FileHash::new());
    within(reader.chunk()).await.unwrap().unwrap();
    stop.send(()).unwrap();
    thread.join().unwrap();
    let silent = within(read_all(&mut reader)).await;
    assert_eq!(silent, Err(TransferError::Idle));
    b.close().await;
}

#[tokio::test]
async fn several_files_travel_at_once_but_not_too_many() {
    let bed = Bed::start(&["a", "b"]);
    let (mut a, mut b) = pair(&bed, [ALL, ALL]).await;
    let ((one, bytes), (two, others)) = (file(10 * MB), file(7 * MB));
    let (first, mut reader) = transfer(&bed, &a, &mut b, one, offer(&bytes), FileHash::new()).await;
    let (second, mut other) = transfer(&bed, &a, &mut b, two, offer(&others), FileHash::new()).await;
    // And one in the other direction.
    let third = b.group.offer_file(bed.config("a").jid, offer(&bytes), file(10 * MB).0).unwrap();
    let mut back = a.offered().await.1.accept(FileHash::new());
    let reads = async { tokio::join!(read_all(&mut reader), read_all(&mut other), read_all(&mut back)) };
    let ends = async { tokio::join!(first.done(), second.done(), third.done()) };
    let (reads, ends) = within(async { tokio::join!(reads, ends) }).await;
    assert!(reads.0.unwrap() == bytes && reads.1.unwrap() == others && reads.2.unwrap() == bytes);
    assert!(ends.0.is_ok() && ends.1.is_ok() && ends.2.is_ok());

    let offer_one = || a.group.offer_file(bed.config("b").jid, offer(b"x"), file(1).0).unwrap();
    let waiting: Vec<_> = (0..TRANSFERS_OUT_MAX).map(|_| offer_one()).collect();
    assert_eq!(within(offer_one().done()).await, Err(TransferError::TooMany));
    drop(waiting);
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_read_holds_the_sender_back() {
    let bed = Bed::start(&["a", "b"]);
    // The system's buffers of a connection take some megabytes.
    for (ways, ahead_max) in [(ALL, 16 * MB), (NONE, 2 * MB)] {
        let (a, mut b) = pair(&bed, [ways, ways]).await;
        let (file, bytes) = file(30 * MB);
        // Shares the position with the one that is read.
        let mut watched = file.try_clone().unwrap();
        let (outgoing, mut reader) = transfer(&bed, &a, &mut b, file, offer(&bytes), FileHash::new()).await;
        let (mut position, mut still) = (0, 0);
        common::eventually("the sender waits", || {
            let now = watched.stream_position().unwrap();
            still = if now == position && now > 0 { still + 1 } else { 0 };
            position = now;
            still > 50
        })
        .await;
        assert!(position < ahead_max as u64, "{position} bytes ahead of a reader that does not read");
        println!("{ways:?}: {position} bytes ahead");
        let (sent, got) = within(async { tokio::join!(outgoing.done(), read_all(&mut reader)) }).await;
        assert!(sent.is_ok() && got.unwrap() == bytes);
        a.close().await;
        b.close().await;
    }
}

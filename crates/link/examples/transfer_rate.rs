//! How fast a file travels by each transport, between two members on a real XMPP server on this machine. Run with
//! `cargo run --release -p xmppsync-link --example transfer_rate [MEGABYTES]`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "an example fails by panicking")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use common::{Bed, Member};
use xmppsync_link::{Event, FileHash, FileOffer, TransferConfig};

const MB: u64 = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let megabytes = std::env::args().nth(1).map_or(200, |text| text.parse().expect("a number of megabytes"));
    let bed = Bed::start(&["a", "b"]);
    for ways in [
        TransferConfig { direct: true, proxy: false },
        TransferConfig { direct: false, proxy: true },
        TransferConfig { direct: false, proxy: false },
    ] {
        let (mut a, mut b) = (member(&bed, "a", "b", ways).await, member(&bed, "b", "a", ways).await);
        a.online().await;
        b.online().await;
        measure(&bed, &a, &mut b, megabytes).await;
        a.close().await;
        b.close().await;
    }
}

async fn member(bed: &Bed, user: &str, peer: &str, ways: TransferConfig) -> Member {
    let mut config = bed.config(user);
    config.transfer = ways;
    Member::new(config, bed.group(user, &[peer])).await
}

async fn measure(bed: &Bed, a: &Member, b: &mut Member, megabytes: u64) {
    let (file, offer) = file(bed, megabytes);
    let begin = Instant::now();
    let outgoing = a.group.offer_file(bed.config("b").jid, offer, file).unwrap();
    let incoming = loop {
        match b.events.recv().await.expect("a session") {
            Event::FileOffered { incoming, .. } => break incoming,
            _ => continue,
        }
    };
    let mut reader = incoming.accept(FileHash::new());
    let read = async {
        let mut first = None;
        while let Some(chunk) = reader.chunk().await {
            chunk.expect("bytes");
            first.get_or_insert_with(|| begin.elapsed());
        }
        first.unwrap_or_default()
    };
    let (sent, first) = tokio::join!(outgoing.done(), read);
    let (sent, took) = (sent.expect("the whole file"), begin.elapsed());
    let rate = sent.bytes as f64 / MB as f64 / took.as_secs_f64();
    println!("{:8.1} MB/s by {} (first byte after {:?}, all after {took:?})", rate, sent.transport, first);
}

/// A file in the lab's directory, which goes with it.
fn file(bed: &Bed, megabytes: u64) -> (File, FileOffer) {
    let path = bed.xmpp.lab().path().join("file");
    let mut file = File::create(&path).unwrap();
    let (piece, mut hash) = (vec![0x5a; MB as usize], FileHash::new());
    for _ in 0..megabytes {
        file.write_all(&piece).unwrap();
        hash.update(&piece);
    }
    let (size, sha256) = (hash.bytes(), hash.sha256());
    let offer = FileOffer { id: "rate".into(), name: "rate".into(), size, sha256 };
    (File::open(path).unwrap(), offer)
}

//! How fast a payload comes back from the room. Run with
//! `cargo test --release -p xmppsync-link --test figures -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::{Bed, Member, payload};
use xmppsync_link::{Event, Tls};

/// Sends one after the other and returns the sorted times to the echo.
async fn latencies(a: &mut Member, size: usize, count: u32) -> Vec<Duration> {
    let text = "x".repeat(size);
    let mut times = Vec::new();
    for n in 0..count {
        let begin = Instant::now();
        a.group.send_room(format!("l{n}"), payload(&text)).unwrap();
        a.until("echo", |event| matches!(event, Event::Echo { .. }).then_some(())).await;
        times.push(begin.elapsed());
    }
    times.sort();
    times
}

/// Sends with a window of messages without an echo; returns messages per second.
async fn throughput(a: &mut Member, size: usize, count: u32, window: u32) -> f64 {
    let text = "x".repeat(size);
    let begin = Instant::now();
    let mut sent = 0;
    for echoed in 0..count {
        while sent < count && sent - echoed < window {
            a.group.send_room(format!("t{sent}"), payload(&text)).unwrap();
            sent += 1;
        }
        a.until("echo", |event| matches!(event, Event::Echo { .. }).then_some(())).await;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "measures; takes a while"]
async fn figures() {
    for (name, tls) in [("plaintext", Tls::InsecurePlaintext), ("STARTTLS", Tls::StartTls)] {
        let bed = Bed::start(&["a", "b"]);
        let mut config = bed.config("a");
        config.tls = tls;
        let mut a = Member::new(config, bed.group("a", &["b"])).await;
        a.online().await;
        let mut config = bed.config("b");
        config.tls = tls;
        let mut b = Member::new(config, bed.group("b", &["a"])).await;
        b.online().await;
        let receiver = tokio::spawn(async move { while b.events.recv().await.is_some() {} });
        latencies(&mut a, 600, 200).await;
        for (size, count) in [(600, 10_000), (25_000, 1_000)] {
            let times = latencies(&mut a, size, 1000).await;
            let rate = throughput(&mut a, size, count, 64).await;
            println!(
                "{name}, {size} B, 1 receiver: echo p50 {:?} p99 {:?}; window 64: {rate:.0} messages/s",
                times[times.len() / 2],
                times[times.len() * 99 / 100]
            );
        }
        receiver.abort();
        a.close().await;
    }
}

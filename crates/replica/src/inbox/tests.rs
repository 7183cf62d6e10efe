//! Streams with holes, repeats and restarts, and the search for who has what is missing.

use super::*;
use crate::testing::{batch, csn, delete, server};

const BOOT: u64 = 7;

/// A replica with the serverID 9 that has everything of server 1 up to `second`.
fn at(second: u64) -> Inbox {
    let have = (second > 0).then(|| csn(second, 1)).into_iter().collect();
    Inbox::new(server(9), have, InboxLimits::default())
}

fn live(inbox: &mut Inbox, first: u64, last: u64) {
    inbox.handle_batch(batch(BOOT, first, last), Instant::now());
}

/// The card of `peer`, which has everything of server 1 up to `second`.
fn card(inbox: &mut Inbox, peer: u32, second: u64, now: Instant) {
    card_with(inbox, peer, [csn(second, 1)].into_iter().collect(), true, now);
}

fn card_with(inbox: &mut Inbox, peer: u32, vector: Vector, serves: bool, now: Instant) {
    inbox.handle_card(PeerCard { server: server(peer), boot: BootId::new(BOOT), vector, serves }, now);
}

/// Everything that is due by now happens.
fn drain(inbox: &mut Inbox, now: Instant) -> Vec<String> {
    inbox.handle_timeout(now);
    std::iter::from_fn(|| inbox.poll_action())
        .map(|action| match action {
            Action::Apply(batch) => format!("apply {}-{}", batch.first, batch.last()),
            Action::Pull { from, have, .. } => {
                let have =
                    have.get(server(1)).map(|csn| csn.as_str()[12..14].trim_start_matches('0').to_owned());
                format!("pull from {from} after {}", have.unwrap_or_default())
            }
            Action::Reconcile { with } => format!("reconcile with {with}"),
            Action::Gap { from, to, .. } => format!("gap {from}-{to}"),
            Action::Healed => "healed".to_owned(),
        })
        .collect()
}

fn page(inbox: &mut Inbox, batches: Vec<Batch>, beyond: &[Csn], more: bool, now: Instant) {
    let id = inbox.last_id;
    inbox.handle_page(id, batches, beyond, more, now);
}

fn later(now: Instant) -> Instant {
    now + InboxLimits::default().patience
}

#[test]
fn a_stream_in_order_is_applied_as_it_comes_and_only_once() {
    let (now, mut inbox) = (Instant::now(), at(0));
    live(&mut inbox, 1, 2);
    live(&mut inbox, 1, 2);
    live(&mut inbox, 2, 4);
    assert_eq!(drain(&mut inbox, now), ["apply 1-2", "apply 3-4"]);
}

#[test]
fn a_hole_is_reported_and_pulled_and_what_came_behind_it_waits() {
    let (now, mut inbox) = (Instant::now(), at(0));
    card(&mut inbox, 1, 1, now);
    live(&mut inbox, 1, 1);
    live(&mut inbox, 4, 5);
    live(&mut inbox, 6, 6);
    assert_eq!(drain(&mut inbox, Instant::now()), ["apply 1-1", "gap 2-3", "pull from 1 after 1"]);
    page(&mut inbox, vec![batch(BOOT, 2, 4)], &[], false, now);
    assert_eq!(drain(&mut inbox, Instant::now()), ["apply 2-4", "apply 5-5", "apply 6-6", "healed"]);
}

#[test]
fn what_follows_a_change_that_is_fetched_apart_waits_and_is_no_hole() {
    let (now, mut inbox) = (Instant::now(), at(0));
    card(&mut inbox, 1, 1, now);
    live(&mut inbox, 1, 1);
    inbox.handle_large((BootId::new(BOOT), 2), csn(2, 1), now);
    live(&mut inbox, 3, 3);
    let pulled = ["apply 1-1", "gap 0-0", "pull from 1 after 1"];
    assert_eq!(drain(&mut inbox, Instant::now()), pulled);
    page(&mut inbox, vec![batch(BOOT, 2, 2)], &[], false, now);
    assert_eq!(drain(&mut inbox, Instant::now()), ["apply 2-2", "apply 3-3", "healed"]);
}

#[test]
fn a_hole_before_a_change_that_is_fetched_apart_is_reported() {
    let (now, mut inbox) = (Instant::now(), at(0));
    card(&mut inbox, 1, 1, now);
    live(&mut inbox, 1, 1);
    inbox.handle_large((BootId::new(BOOT), 4), csn(4, 1), now);
    assert_eq!(drain(&mut inbox, Instant::now()), ["apply 1-1", "gap 2-3", "pull from 1 after 1"]);
}

#[test]
fn a_card_tells_of_a_lost_last_batch_after_a_moment() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 1, 3, now);
    assert_eq!(drain(&mut inbox, now), [""; 0]);
    assert_eq!(inbox.poll_timeout(), Some(later(now)));
    assert_eq!(drain(&mut inbox, later(now)), ["gap 0-0", "pull from 1 after 1"]);
}

#[test]
fn what_comes_within_that_moment_was_not_lost() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 1, 3, now);
    live(&mut inbox, 2, 3);
    assert_eq!(drain(&mut inbox, later(now)), ["apply 2-3"]);
}

#[test]
fn a_card_that_was_overtaken_hides_nothing() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 1, 1, now);
    live(&mut inbox, 4, 5);
    card(&mut inbox, 1, 1, now);
    assert_eq!(drain(&mut inbox, later(now)), ["gap 0-3", "pull from 1 after 1"]);
}

#[test]
fn what_a_batch_showed_is_missing_although_the_card_of_another_run_does_not_tell() {
    let (now, mut inbox) = (Instant::now(), at(1));
    live(&mut inbox, 4, 5);
    card(&mut inbox, 1, 1, now);
    assert_eq!(drain(&mut inbox, later(now)), ["gap 0-3", "pull from 1 after 1"]);
}

#[test]
fn a_hole_that_nobody_was_asked_for_is_healed_when_the_batch_comes_late() {
    let (now, mut inbox) = (Instant::now(), at(1));
    live(&mut inbox, 3, 3);
    assert_eq!(drain(&mut inbox, Instant::now()), ["gap 0-2"]);
    live(&mut inbox, 2, 2);
    assert_eq!(drain(&mut inbox, later(now)), ["apply 2-2", "apply 3-3", "healed"]);
    assert!(!inbox.is_behind());
}

#[test]
fn any_peer_whose_card_covers_it_is_asked_and_the_next_one_when_it_does_not_answer() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 2, 5, now);
    card(&mut inbox, 3, 5, now);
    let now = later(now);
    assert_eq!(drain(&mut inbox, now), ["gap 0-0", "pull from 2 after 1"]);
    let id = inbox.last_id;
    inbox.handle_pull_failure(id, now);
    assert_eq!(drain(&mut inbox, now), ["pull from 3 after 1"]);
    inbox.handle_page(id, vec![batch(BOOT, 2, 5)], &[], false, now);
    assert_eq!(drain(&mut inbox, now), [""; 0]);
    page(&mut inbox, vec![batch(BOOT, 2, 3)], &[], true, now);
    page(&mut inbox, vec![batch(BOOT, 4, 5)], &[], false, now);
    assert_eq!(drain(&mut inbox, now), ["apply 2-3", "pull from 3 after 3", "apply 4-5", "healed"]);
}

#[test]
fn servers_that_return_together_do_not_all_ask_the_same_peer() {
    let asked: std::collections::BTreeSet<String> = (4..7)
        .map(|own| {
            let now = Instant::now();
            let mut inbox = Inbox::new(server(own), Vector::default(), InboxLimits::default());
            (1..=8).filter(|peer| *peer != own).for_each(|peer| card(&mut inbox, peer, 5, now));
            drain(&mut inbox, later(now)).pop().unwrap()
        })
        .collect();
    assert_eq!(asked.len(), 3);
}

#[test]
fn a_busy_peer_is_not_asked_until_it_serves() {
    let (now, mut inbox) = (Instant::now(), at(1));
    let vector: Vector = [csn(5, 1)].into_iter().collect();
    card_with(&mut inbox, 2, vector.clone(), false, now);
    assert_eq!(drain(&mut inbox, later(now)), [""; 0]);
    assert_eq!(inbox.poll_timeout(), None);
    card_with(&mut inbox, 2, vector, true, now);
    assert_eq!(drain(&mut inbox, later(now)), ["gap 0-0", "pull from 2 after 1"]);
}

#[test]
fn a_peer_that_does_not_answer_is_asked_again_after_growing_pauses() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 2, 5, now);
    let mut now = later(now);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        assert_eq!(drain(&mut inbox, now).pop().unwrap(), "pull from 2 after 1");
        let id = inbox.last_id;
        inbox.handle_pull_failure(id, now);
        assert_eq!(drain(&mut inbox, now), [""; 0]);
        let retry = inbox.poll_timeout().unwrap();
        pauses.push(retry - now);
        now = retry;
    }
    assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2]);
}

#[test]
fn where_no_journal_reaches_back_the_sets_are_compared() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 2, 9, now);
    card(&mut inbox, 3, 9, now);
    let now = later(now);
    drain(&mut inbox, now);
    page(&mut inbox, vec![], &[csn(4, 1)], false, now);
    assert_eq!(drain(&mut inbox, now), ["pull from 3 after 1"]);
    page(&mut inbox, vec![], &[csn(5, 1)], false, now);
    assert_eq!(drain(&mut inbox, now), ["reconcile with 2"]);
    live(&mut inbox, 10, 10);
    inbox.handle_state(&[csn(9, 1)].into_iter().collect(), now);
    assert_eq!(drain(&mut inbox, now), ["apply 10-10", "healed"]);
}

#[test]
fn a_journal_that_did_not_reach_back_does_once_this_replica_is_further() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 2, 9, now);
    let now = later(now);
    drain(&mut inbox, now);
    page(&mut inbox, vec![], &[csn(4, 1)], false, now);
    drain(&mut inbox, now);
    inbox.handle_state(&[csn(6, 1)].into_iter().collect(), now);
    assert_eq!(drain(&mut inbox, now), ["pull from 2 after 6"]);
}

#[test]
fn a_batch_that_would_leave_a_hole_is_not_taken_from_a_page() {
    let (now, mut inbox) = (Instant::now(), at(0));
    card(&mut inbox, 1, 9, now);
    let now = later(now);
    drain(&mut inbox, now);
    page(&mut inbox, vec![batch(BOOT, 1, 2), batch(BOOT, 5, 6)], &[], false, now);
    assert_eq!(drain(&mut inbox, now), ["apply 1-2", "pull from 1 after 2"]);
}

#[test]
fn what_was_lost_after_it_was_taken_is_pulled_again_and_an_answer_from_before_is_not_used() {
    let (now, mut inbox) = (Instant::now(), at(0));
    card(&mut inbox, 1, 4, now);
    let now = later(now);
    drain(&mut inbox, now);
    page(&mut inbox, vec![batch(BOOT, 1, 2)], &[], true, now);
    assert_eq!(drain(&mut inbox, now), ["apply 1-2", "pull from 1 after 2"]);
    let before = inbox.last_id;
    inbox.handle_reset(Vector::default(), now);
    inbox.handle_page(before, vec![batch(BOOT, 3, 4)], &[], false, now);
    assert_eq!(drain(&mut inbox, now), ["pull from 1 after "]);
}

#[test]
fn a_full_stash_drops_what_it_cannot_hold_and_pulls_it_later() {
    let limits =
        InboxLimits { stash_bytes_max: streams::bytes(&batch(BOOT, 3, 3)), ..InboxLimits::default() };
    let now = Instant::now();
    let mut inbox = Inbox::new(server(9), Vector::default(), limits);
    card(&mut inbox, 1, 1, now);
    live(&mut inbox, 2, 2);
    live(&mut inbox, 3, 3);
    drain(&mut inbox, Instant::now());
    page(&mut inbox, vec![batch(BOOT, 1, 1)], &[], false, now);
    assert_eq!(drain(&mut inbox, Instant::now()), ["apply 1-1", "apply 2-2", "pull from 1 after 2"]);
}

#[test]
fn while_the_database_is_loaded_everything_waits() {
    let (now, mut inbox) = (Instant::now(), at(0));
    inbox.hold();
    card(&mut inbox, 1, 1, now);
    live(&mut inbox, 1, 1);
    live(&mut inbox, 2, 2);
    assert_eq!(drain(&mut inbox, later(now)), [""; 0]);
    inbox.handle_state(&[csn(1, 1)].into_iter().collect(), now);
    assert_eq!(drain(&mut inbox, now), ["apply 2-2"]);
}

/// A database restored from a backup: its peers know changes that this server made and forgot.
#[test]
fn own_changes_that_only_others_remember_are_pulled_and_new_ones_do_not_come_back() {
    let now = Instant::now();
    let mut inbox = Inbox::new(server(1), [csn(2, 1)].into_iter().collect(), InboxLimits::default());
    card(&mut inbox, 2, 4, now);
    inbox.handle_local(csn(8, 1));
    let now = later(now);
    assert_eq!(drain(&mut inbox, now), ["gap 0-0", "pull from 2 after 2"]);
    card(&mut inbox, 2, 8, now);
    let known_there =
        Batch { changes: [3, 4, 8].map(|second| delete(csn(second, 1))).to_vec(), ..batch(BOOT, 3, 3) };
    page(&mut inbox, vec![known_there], &[], false, now);
    assert_eq!(drain(&mut inbox, now), ["apply 3-4", "healed"]);
    assert_eq!(inbox.have().get(server(1)), Some(csn(8, 1)));
}

#[test]
fn the_largest_sequence_number_does_no_harm() {
    let (now, mut inbox) = (Instant::now(), at(0));
    inbox.handle_batch(Batch { first: u64::MAX, ..batch(BOOT, 2, 3) }, now);
    inbox.handle_batch(Batch { first: u64::MAX, ..batch(BOOT, 1, 1) }, now);
    drain(&mut inbox, now);
}

#[test]
fn another_peer_is_asked_at_once_when_the_source_leaves() {
    let (now, mut inbox) = (Instant::now(), at(1));
    card(&mut inbox, 1, 3, now);
    card(&mut inbox, 2, 3, now);
    assert_eq!(drain(&mut inbox, later(now)), ["gap 0-0", "pull from 1 after 1"]);
    inbox.handle_gone(server(1), now);
    assert_eq!(drain(&mut inbox, now), ["pull from 2 after 1"]);
    // It was under way: the question is another one by now.
    inbox.handle_page(1, vec![batch(BOOT, 2, 3)], &[], false, now);
    assert_eq!(drain(&mut inbox, now), [""; 0]);
}

#[test]
fn what_follows_stored_batches_was_not_lost() {
    let (now, mut inbox) = (Instant::now(), at(0));
    card(&mut inbox, 1, 5, now);
    inbox.handle_stored(batch(BOOT, 1, 2), now);
    live(&mut inbox, 5, 5);
    assert_eq!(drain(&mut inbox, Instant::now()), ["apply 1-2", "gap 0-4", "pull from 1 after 2"]);
}

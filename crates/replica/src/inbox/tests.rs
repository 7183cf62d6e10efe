//! Streams with holes, repeats, restarts and answers that come late.

use super::*;
use crate::testing::{batch, csn, server};

fn inbox() -> Inbox {
    Inbox::new(InboxLimits::default())
}

fn card(boot: u64, seq: u64, at: Option<Csn>) -> StreamCard {
    StreamCard { origin: server(1), boot: BootId::new(boot), seq, csn: at }
}

fn at(boot: u64, seq: u64) -> Option<(BootId, u64)> {
    Some((BootId::new(boot), seq))
}

fn page(inbox: &mut Inbox, after: Option<(BootId, u64)>, batches: Vec<Batch>, more: bool) {
    inbox.handle_page(server(1), after, batches, more, Instant::now());
}

fn following(boot: u64) -> Inbox {
    let mut inbox = inbox();
    inbox.handle_card(card(boot, 0, None), None);
    inbox
}

fn drain(inbox: &mut Inbox) -> Vec<String> {
    std::iter::from_fn(|| inbox.poll_action())
        .map(|action| match action {
            Action::Apply { batch, contiguous } => {
                format!("apply {}-{}{}", batch.first, batch.last(), if contiguous { "" } else { " loose" })
            }
            Action::Pull { after, .. } => format!("pull {:?}", after.map(|(_, seq)| seq)),
            Action::Gap { from, to, .. } => format!("gap {from}-{to}"),
            Action::Healed { .. } => "healed".to_owned(),
            Action::Incomplete { .. } => "incomplete".to_owned(),
        })
        .collect()
}

#[test]
fn a_stream_in_order_is_applied_as_it_comes_and_only_once() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 1, 2));
    inbox.handle_batch(batch(7, 1, 2));
    inbox.handle_batch(batch(7, 2, 4));
    assert_eq!(drain(&mut inbox), ["apply 1-2", "apply 3-4"]);
}

#[test]
fn a_hole_is_reported_and_pulled_and_what_came_behind_it_waits() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 1, 1));
    inbox.handle_batch(batch(7, 4, 5));
    inbox.handle_batch(batch(7, 6, 6));
    assert_eq!(drain(&mut inbox), ["apply 1-1", "gap 2-3", "pull Some(1)"]);
    page(&mut inbox, at(7, 1), vec![batch(7, 2, 4)], false);
    assert_eq!(drain(&mut inbox), ["apply 2-4", "healed", "apply 5-5", "apply 6-6"]);
}

#[test]
fn a_card_tells_of_a_lost_last_batch() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 1, 1));
    inbox.handle_card(card(7, 3, Some(csn(3, 1))), Some(csn(1, 1)));
    assert_eq!(drain(&mut inbox), ["apply 1-1", "gap 2-3", "pull Some(1)"]);
}

#[test]
fn a_replica_that_is_behind_at_the_first_card_pulls_by_its_vector() {
    let mut inbox = inbox();
    inbox.handle_card(card(7, 9, Some(csn(9, 1))), Some(csn(3, 1)));
    inbox.handle_batch(batch(7, 10, 10));
    assert_eq!(drain(&mut inbox), ["gap 0-9", "pull None"]);
    page(&mut inbox, None, vec![batch(7, 4, 6)], true);
    page(&mut inbox, at(7, 6), vec![batch(7, 7, 10)], false);
    assert_eq!(drain(&mut inbox), ["apply 4-6", "pull Some(6)", "apply 7-10", "healed"]);
}

#[test]
fn a_replica_that_has_everything_at_the_first_card_follows_at_once() {
    let mut inbox = inbox();
    inbox.handle_card(card(7, 9, Some(csn(9, 1))), Some(csn(9, 1)));
    inbox.handle_batch(batch(7, 10, 10));
    assert_eq!(drain(&mut inbox), ["apply 10-10"]);
}

#[test]
fn a_new_boot_begins_a_new_stream() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 1, 3));
    inbox.handle_card(card(8, 0, Some(csn(3, 1))), Some(csn(3, 1)));
    inbox.handle_batch(batch(8, 1, 1));
    assert_eq!(drain(&mut inbox), ["apply 1-3", "apply 1-1"]);
}

#[test]
fn a_batch_of_an_unknown_boot_is_not_trusted_to_be_the_first() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(9, 1, 1));
    assert_eq!(drain(&mut inbox), ["gap 0-0", "pull None"]);
    page(&mut inbox, None, vec![batch(9, 1, 1)], false);
    assert_eq!(drain(&mut inbox), ["apply 1-1", "healed"]);
}

#[test]
fn an_unreachable_origin_is_asked_again_after_growing_pauses_and_at_once_when_it_shows_up() {
    let (now, mut inbox) = (Instant::now(), following(7));
    inbox.handle_batch(batch(7, 3, 3));
    drain(&mut inbox);
    inbox.handle_pull_failure(server(1), at(7, 0), PullFailure::Unreachable, now);
    let first = inbox.poll_timeout().unwrap();
    inbox.handle_timeout(first);
    assert_eq!(drain(&mut inbox), ["pull Some(0)"]);
    inbox.handle_pull_failure(server(1), at(7, 0), PullFailure::Unreachable, first);
    assert!(inbox.poll_timeout().unwrap() - first > first - now);
    inbox.handle_card(card(7, 3, Some(csn(3, 1))), None);
    assert_eq!(drain(&mut inbox), ["pull Some(0)"]);
    assert_eq!(inbox.poll_timeout(), None);
}

#[test]
fn what_cannot_be_had_leaves_the_vector_where_it_is_and_the_stream_goes_on() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 3, 3));
    drain(&mut inbox);
    inbox.handle_pull_failure(server(1), at(7, 0), PullFailure::OutOfReach, Instant::now());
    inbox.handle_batch(batch(7, 4, 4));
    assert_eq!(drain(&mut inbox), ["incomplete", "apply 3-3 loose", "apply 4-4 loose"]);
}

#[test]
fn of_an_origin_that_was_restarted_at_least_what_it_made_since_is_had() {
    let mut inbox = inbox();
    inbox.handle_card(card(7, 9, Some(csn(9, 1))), Some(csn(1, 1)));
    inbox.handle_pull_failure(server(1), None, PullFailure::OutOfReach, Instant::now());
    page(&mut inbox, at(7, 0), vec![batch(7, 1, 9)], false);
    assert_eq!(drain(&mut inbox), ["gap 0-9", "pull None", "incomplete", "pull Some(0)", "apply 1-9 loose"]);
}

#[test]
fn a_full_stash_drops_what_it_cannot_hold_and_pulls_it_later() {
    let limits = InboxLimits { stash_bytes_max: bytes(&batch(7, 3, 3)), ..InboxLimits::default() };
    let mut inbox = Inbox::new(limits);
    inbox.handle_card(card(7, 0, None), None);
    inbox.handle_batch(batch(7, 2, 2));
    inbox.handle_batch(batch(7, 3, 3));
    drain(&mut inbox);
    page(&mut inbox, at(7, 0), vec![batch(7, 1, 1)], false);
    assert_eq!(drain(&mut inbox), ["apply 1-1", "healed", "apply 2-2"]);
    inbox.handle_batch(batch(7, 4, 4));
    assert_eq!(drain(&mut inbox), ["gap 3-3", "pull Some(2)"]);
}

#[test]
fn pages_of_another_origin_and_unasked_ones_change_nothing() {
    let mut inbox = following(7);
    page(&mut inbox, at(7, 0), vec![batch(7, 1, 1)], false);
    assert!(drain(&mut inbox).is_empty());
    inbox.handle_batch(batch(7, 2, 2));
    drain(&mut inbox);
    let foreign = Batch { origin: server(2), ..batch(7, 1, 1) };
    page(&mut inbox, at(7, 0), vec![foreign], true);
    assert_eq!(drain(&mut inbox), ["pull Some(0)"]);
}

/// A page was on its way when changes before it were lost here. Taken for the answer to the new question, it
/// would have been the beginning, and the vector would have moved past what was lost.
#[test]
fn a_page_that_was_asked_for_before_an_overflow_is_not_used() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 4, 4));
    drain(&mut inbox);
    page(&mut inbox, at(7, 0), vec![batch(7, 1, 2)], true);
    assert_eq!(drain(&mut inbox), ["apply 1-2", "pull Some(2)"]);
    inbox.handle_overflow(server(1));
    page(&mut inbox, at(7, 2), vec![batch(7, 3, 4)], false);
    assert_eq!(drain(&mut inbox), ["pull None"]);
    page(&mut inbox, None, vec![batch(7, 1, 4)], false);
    assert_eq!(drain(&mut inbox), ["apply 1-4", "healed"]);
}

#[test]
fn a_page_with_a_hole_is_not_taken_for_whole() {
    let mut inbox = following(7);
    inbox.handle_batch(batch(7, 9, 9));
    drain(&mut inbox);
    page(&mut inbox, at(7, 0), vec![batch(7, 1, 2), batch(7, 5, 6)], false);
    assert_eq!(drain(&mut inbox), ["apply 1-2"]);
    inbox.handle_timeout(inbox.poll_timeout().unwrap());
    assert_eq!(drain(&mut inbox), ["pull None"]);
}

#[test]
fn the_largest_sequence_number_does_no_harm() {
    let mut inbox = inbox();
    inbox.handle_card(card(7, u64::MAX, None), None);
    inbox.handle_batch(Batch { first: u64::MAX, ..batch(7, 1, 1) });
    drain(&mut inbox);
}

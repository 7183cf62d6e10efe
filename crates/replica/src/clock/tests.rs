//! Clocks that are behind, ahead, at the end of a month, and at random.

use super::*;
use proptest::prelude::*;

fn csn(text: &str) -> Csn {
    text.parse().unwrap()
}

fn minted(seen: &str, wall: &str) -> String {
    let mut clock = Clock::default();
    clock.observe(csn(seen));
    clock.mint(csn(wall)).to_string()
}

#[test]
fn the_time_of_day_is_used_while_it_is_ahead() {
    let wall = "20261122235959.000002Z#000000#001#000000";
    assert_eq!(minted("20261122235959.000001Z#000005#002#000000", wall), wall);
    assert_eq!(Clock::default().mint(csn(wall)), csn(wall));
}

#[test]
fn behind_what_was_seen_the_count_goes_on_under_the_own_server_id() {
    let wall = "20261122235959.000002Z#000000#001#000000";
    assert_eq!(
        minted("20261123000959.000007Z#000004#002#000003", wall),
        "20261123000959.000007Z#000005#001#000000"
    );
    // The same moment, and another server's id decides.
    assert_eq!(
        minted("20261122235959.000002Z#000000#002#000000", wall),
        "20261122235959.000002Z#000001#001#000000"
    );
}

#[test]
fn a_full_count_carries_through_the_calendar() {
    let wall = "19990101000000.000000Z#000000#001#000000";
    let carried = |seen: &str| minted(&format!("{seen}Z#ffffff#002#000000"), wall)[..21].to_owned();
    assert_eq!(carried("20261122235959.000009"), "20261122235959.000010");
    for (last, next) in [
        ("20261122235959", "20261123000000"),
        ("20261231235959", "20270101000000"),
        ("20280228235959", "20280229000000"),
        ("20280229235959", "20280301000000"),
        ("21000228235959", "21000301000000"),
        ("20000228235959", "20000229000000"),
        ("20261122235960", "20261123000001"),
        ("20261122010203", "20261122010204"),
    ] {
        assert_eq!(carried(&format!("{last}.999999")), format!("{next}.000000"));
    }
}

#[test]
fn how_far_ahead_a_csn_is() {
    let at = csn("20261122235959.900000Z#000000#001#000000");
    let now = 1_795_391_999;
    assert_eq!(ahead(at, now), Duration::ZERO);
    assert_eq!(ahead(at, now - 600), Duration::from_secs(600));
    assert_eq!(ahead(at, now + 600), Duration::ZERO);
    assert_eq!(ahead(csn("19691231235959.000000Z#000000#001#000000"), 0), Duration::ZERO);
    assert_eq!(ahead(csn("19700101000001.000000Z#000000#001#000000"), 0), Duration::from_secs(1));
}

/// Anything that is a CSN, dates that no calendar has among them.
fn any_csn() -> impl Strategy<Value = Csn> {
    let counts = prop_oneof![0..3_u32, Just(COUNT_MAX), 0..=COUNT_MAX];
    let micros = prop_oneof![Just(MICROSECOND_MAX), 0..=MICROSECOND_MAX];
    // The last years have no successor.
    let dates = prop_oneof![0..98_999_999_999_999_u64, 20_261_122_000_000..20_261_123_000_000_u64];
    (dates, micros, counts, 1..4095_u16, 0..3_u32).prop_map(|(date, micro, count, sid, modification)| {
        csn(&format!("{date:014}.{micro:06}Z#{count:06x}#{sid:03x}#{modification:06x}"))
    })
}

proptest! {
    #[test]
    fn what_is_minted_is_later_than_all_before_and_a_csn_of_this_server(
        steps in prop::collection::vec((any::<bool>(), any_csn()), 1..50)
    ) {
        let mut clock = Clock::default();
        let mut latest: Option<Csn> = None;
        for (seen, at) in steps {
            if seen {
                clock.observe(at);
                latest = latest.max(Some(at));
                continue;
            }
            let csn = clock.mint(at);
            prop_assert!(Some(csn) > latest, "{csn} after {latest:?}");
            prop_assert_eq!(Csn::parse(csn.as_str().as_bytes()), Ok(csn));
            prop_assert_eq!(csn.server_id(), at.server_id());
            // No further ahead than it has to be: the time of day, or the one before with the next count.
            let before = latest.map_or(0, |latest| Time::of(latest).unix_seconds());
            let of = |csn| Time::of(csn).unix_seconds();
            prop_assert!(csn == at || of(csn) <= before.max(of(at)) + 1);
            latest = Some(csn);
        }
    }

    #[test]
    fn a_second_and_its_date_are_each_others(seconds in 0..250_000_000_000_u64) {
        let (year, month, day) = date_of(seconds / SECONDS_PER_DAY);
        prop_assert_eq!((days_before(year, month) + day - 1 - DAYS_BEFORE_1970) * SECONDS_PER_DAY, seconds - seconds % SECONDS_PER_DAY);
    }
}

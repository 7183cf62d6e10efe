//! The same on prosody: what is most likely to differ there. `cargo xtask test --prosody` runs everything on it.

use crate::catching_up::change_while_one_is_away;
use crate::steps::group_with;
use crate::{loading, offline_messages, session, trouble};
use xmppsync_lab::{GroupOptions, XmppKind, XmppOptions};

fn prosody() -> XmppOptions {
    XmppOptions { kind: XmppKind::Prosody, ..XmppOptions::default() }
}

#[test]
fn on_prosody_all_kinds_of_changes_arrive_and_a_server_that_was_away_catches_up() {
    let mut group = group_with(GroupOptions { xmpp: prosody(), ..GroupOptions::default() });
    change_while_one_is_away(&mut group, 2);
}

#[test]
fn on_prosody_an_empty_server_is_loaded_from_its_peer() {
    loading::load_two_empty_servers(prosody());
}

#[test]
fn on_prosody_the_nodes_carry_the_live_stream() {
    session::stream_by_the_nodes(prosody());
}

#[test]
fn on_prosody_a_returning_server_uses_what_was_kept() {
    offline_messages::return_alone(prosody());
}

#[test]
fn on_prosody_writes_during_a_restart_of_it_arrive() {
    session::restart_while_writing(prosody());
}

#[test]
fn on_prosody_a_stanza_limit_is_said_once() {
    trouble::stanza_limit(prosody());
}

#[test]
fn on_prosody_a_throttle_is_measured_and_said_once() {
    trouble::throttle(XmppKind::Prosody, 10_000);
}

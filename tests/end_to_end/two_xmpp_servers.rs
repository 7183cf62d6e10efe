//! Members that log in to different XMPP servers: two domains that are linked, and two nodes of a cluster.

use crate::catching_up::change_while_one_is_away;
use crate::meanwhile::{Writer, load, wait_for_occupants};
use crate::steps::*;
use crate::{PATIENCE, loading};
use std::time::Instant;
use xmppsync_lab::{Group, GroupOptions, SecondXmpp, XmppData, XmppKind, XmppOptions};

fn federated(first: XmppKind, second: XmppKind) -> GroupOptions {
    // What prosody's resolver knows of `.test` is that there is none.
    let xmpp = |kind, domain: &str| XmppOptions { kind, domain: domain.to_owned(), ..XmppOptions::default() };
    GroupOptions {
        xmpp: xmpp(first, "one.example"),
        second_xmpp: Some(SecondXmpp::Federated(xmpp(second, "two.example"))),
        ..GroupOptions::default()
    }
}

fn clustered() -> GroupOptions {
    GroupOptions {
        servers: 4,
        xmpp: XmppOptions { kind: XmppKind::Ejabberd, ..XmppOptions::default() },
        second_xmpp: Some(SecondXmpp::ClusterNode),
        ..GroupOptions::default()
    }
}

/// Members of two domains: changes, a member of the other domain that was away, and the other domain's server gone
/// for a while, under load.
fn share_a_room(options: GroupOptions) {
    let mut group = group_with(options);
    assert_ne!(group.jid(0).split_once('@').unwrap().1, group.jid(1).split_once('@').unwrap().1);
    change_while_one_is_away(&mut group, 1);

    let writers: Vec<_> = group.servers.iter().map(Writer::start_slow).collect();
    let wait = |count| writers.iter().for_each(|writer| writer.wait_for_more(count));
    wait(20);
    group.second_xmpp.as_mut().unwrap().kill().unwrap();
    wait(20);
    group.second_xmpp.as_mut().unwrap().start_again(XmppData::Keep).unwrap();
    let back = Instant::now();
    wait_for_occupants(&group, &["a-1", "b-2", "c-3"]);
    println!("all are in the room {:.1?} after the other domain is back", back.elapsed());
    wait(20);
    writers.into_iter().for_each(Writer::stop);
    settle(&group);
    println!("equal {:.1?} after the other domain is back", back.elapsed());
}

#[test]
fn members_of_prosody_and_the_room_of_ejabberd_are_one_group() {
    share_a_room(federated(XmppKind::Ejabberd, XmppKind::Prosody));
}

#[test]
fn members_of_ejabberd_and_the_room_of_prosody_are_one_group() {
    share_a_room(federated(XmppKind::Prosody, XmppKind::Ejabberd));
}

#[test]
fn an_empty_server_is_loaded_from_another_domain() {
    loading::load_two_empty_servers_of(federated(XmppKind::Ejabberd, XmppKind::Prosody));
}

/// The members of the node that is left go on, and all are equal when the other one is back.
fn node_is_killed_under_load(second: bool) {
    let mut group = Group::prepare(clustered()).unwrap();
    // The room is where its first occupant sits.
    group.servers[0].start().unwrap();
    wait_for_occupants(&group, &["a-1"]);
    group.start().unwrap();
    load(&group.servers[0]);
    group.assert_equal(PATIENCE).unwrap();
    let writers: Vec<_> = group.servers.iter().map(Writer::start_slow).collect();
    let wait = |count| writers.iter().for_each(|writer| writer.wait_for_more(count));
    wait(20);
    let other = group.second_xmpp.take().unwrap();
    let (killed, left, mut node) = match second {
        true => ([1, 3], [0, 2], other),
        false => ([0, 2], [1, 3], std::mem::replace(&mut group.xmpp, other)),
    };
    node.kill().unwrap();
    let died = Instant::now();
    let nicks = ["a-1", "b-2", "c-3", "d-4"];
    wait_for_occupants(&group, &left.map(|number: usize| nicks[number]));
    println!("those who are left are in the room {:.1?} after the kill", died.elapsed());
    wait(20);
    // What one of them writes now comes to the other one.
    let [from, to] = left.map(|number| &group.servers[number]);
    let dn = add_person(&mut from.ldap().unwrap(), "meanwhile");
    wait_entry(to, &dn, true);
    assert!(
        killed.iter().all(|number: &usize| group.servers[*number]
            .ldap()
            .unwrap()
            .entry(&dn)
            .unwrap()
            .is_none())
    );
    node.start_again(XmppData::Keep).unwrap();
    let back = Instant::now();
    wait_for_occupants(&group, &nicks);
    println!("all are in the room {:.1?} after the node is back", back.elapsed());
    wait(20);
    writers.into_iter().for_each(Writer::stop);
    settle(&group);
    println!("equal {:.1?} after the node is back", back.elapsed());
}

#[test]
fn members_of_two_nodes_of_a_cluster_are_one_group_and_outlive_the_second() {
    node_is_killed_under_load(true);
}

#[test]
fn members_of_two_nodes_of_a_cluster_are_one_group_and_outlive_the_one_that_has_the_room() {
    node_is_killed_under_load(false);
}

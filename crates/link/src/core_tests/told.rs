//! What an admin is told of the server, and how often.

use super::*;

fn refusal(from: &str, id: &str) -> String {
    format!(
        "<iq xmlns='jabber:client' type='error' from='{from}' id='{id}'><error type='cancel'>\
         <remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
}

#[test]
fn a_missing_pubsub_service_is_one_problem_whatever_is_asked_of_it() {
    let mut rig = Rig::new();
    let subscribe =
        ToGroup::Subscribe { peer: BareJid::new("b@example.org").unwrap(), node: "node-b".into() };
    rig.core.handle_command(Command::Group(GroupId(1), subscribe), rig.now);
    let mut problems = Vec::new();
    for _ in 0..20 {
        let sent = rig.sent();
        for xml in sent.iter().filter(|xml| xml.contains("to='pubsub.example.org'")) {
            let id = xml.parse::<Element>().unwrap().attr("id").unwrap().to_owned();
            rig.receive(&refusal("pubsub.example.org", &id));
        }
        while let Some(event) = rig.next() {
            problems.extend(match event {
                Event::Problem(problem) => Some(problem.to_string()),
                _ => None,
            });
        }
        rig.pass(Duration::from_secs(90));
    }
    problems.retain(|problem| problem.contains("pubsub"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains("no pubsub service"), "{problems:#?}");
}

#[test]
fn a_missing_muc_service_is_one_problem_and_the_seat_is_taken_when_it_comes() {
    let mut rig = Rig::new();
    let mut problems = Vec::new();
    for _ in 0..20 {
        let sent = rig.sent();
        for xml in &sent {
            if xml.contains("maxstanzas") {
                rig.receive(&format!(
                    "<presence xmlns='jabber:client' type='error' from='{ROOM}/a'><error type='cancel'>\
                     <remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
                ));
            } else if xml.contains("to='conference.example.org'") {
                rig.receive(&refusal("conference.example.org", &id_of(std::slice::from_ref(xml), "disco")));
            }
        }
        while let Some(event) = rig.next() {
            problems.extend(match event {
                Event::Problem(problem) => Some(problem.to_string()),
                _ => None,
            });
        }
        rig.pass(Duration::from_secs(90));
    }
    problems.retain(|problem| !problem.contains("pubsub"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains("no MUC service"), "{problems:#?}");
    rig.seat();
    assert!(std::iter::from_fn(|| rig.next()).any(|event| matches!(event, Event::Online)));
}

#[test]
fn a_limit_of_stanzas_that_the_server_names_is_told_once_if_it_is_too_small() {
    let mut rig = Rig::joined();
    rig.core.handle_stanza_max(Some(262_144), rig.now);
    rig.core.handle_stanza_max(None, rig.now);
    assert!(rig.next().is_none());
    for bytes in [20_000, 30_000] {
        rig.core.handle_stanza_max(Some(bytes), rig.now);
    }
    let Some(Event::Problem(problem)) = rig.next() else { panic!("nothing is told") };
    assert!(problem.to_string().contains("it takes 20000 bytes"), "{problem}");
    assert!(rig.next().is_none());
}

#[test]
fn a_slow_server_is_told_of_once_whatever_is_measured_later() {
    let mut rig = Rig::joined();
    [3_000, 3_100].into_iter().for_each(|rate| rig.core.handle_slow(rate, rig.now));
    let Some(Event::Problem(problem)) = rig.next() else { panic!("nothing is told") };
    assert!(problem.to_string().contains("takes only 3000 bytes/s"), "{problem}");
    assert!(rig.next().is_none());
}

#[test]
fn where_a_stanza_limit_was_told_a_lost_connection_is_no_news() {
    let mut rig = Rig::joined();
    let limit = Problem::StanzaLimit { domain: "example.org".into(), reason: "x".into() };
    let reset = Problem::ConnectionLost { reason: "reset".into() };
    let own = rig.core.own.clone();
    rig.core.handle_down(limit, rig.now);
    rig.core.handle_up(own, rig.now);
    rig.core.handle_down(reset, rig.now);
    let problems: Vec<Problem> = std::iter::from_fn(|| rig.next())
        .filter_map(|event| if let Event::Problem(problem) = event { Some(problem) } else { None })
        .collect();
    assert!(matches!(problems[..], [Problem::StanzaLimit { .. }]), "{problems:?}");
}

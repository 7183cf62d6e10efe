//! The checker itself: histories that went wrong, each in one way, and some that did not.

use super::*;

/// A history of the client `a1` at the server `a`, operation after operation.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
    /// Of the servers.
    log: String,
}

impl Story {
    fn then(mut self, operation: Operation, outcome: What) -> Self {
        let number = self.events.len() as u64;
        let event = |what| Event {
            milliseconds: number,
            client: "a1".to_owned(),
            server: "a".to_owned(),
            number,
            what,
        };
        self.events.push(event(What::Invoke { operation }));
        self.events.push(event(outcome));
        self
    }

    fn judge(&self, found: &[(&str, Found)]) -> String {
        let found: Vec<_> = found.iter().map(|(mark, found)| ((*mark).to_owned(), found.clone())).collect();
        check(&self.events, &found, &losses(&self.log)).join("\n")
    }

    fn killed(self, victim: usize) -> Self {
        self.nemesis(&format!("SlapdKilled begins, victim {victim}"))
    }

    fn nemesis(mut self, text: &str) -> Self {
        let what = What::Nemesis { text: text.to_owned() };
        let (client, server) = ("nemesis".to_owned(), String::new());
        let milliseconds = self.events.len() as u64;
        self.events.push(Event { milliseconds, client, server, number: 0, what });
        self
    }
}

fn ok(csn: &str) -> What {
    What::Ok { csn: Some(csn.to_owned()), mark: None }
}

fn deleted(mark: &str) -> What {
    What::Ok { csn: None, mark: Some(mark.to_owned()) }
}

fn fail() -> What {
    What::Fail { error: "68".to_owned() }
}

fn unknown() -> What {
    What::Unknown { error: "the connection is gone".to_owned() }
}

fn add(mark: &str) -> Operation {
    add_as(mark, &format!("uid={mark},{}", fold::PLACES[0]))
}

fn add_as(mark: &str, dn: &str) -> Operation {
    Operation::Add { mark: mark.to_owned(), dn: dn.to_owned(), value: "new".to_owned() }
}

fn set(mark: &str, value: &str) -> Operation {
    Operation::Set { mark: mark.to_owned(), value: value.to_owned() }
}

fn write(value: &str) -> Operation {
    Operation::Write { shared: "shared-1".to_owned(), value: value.to_owned() }
}

fn insert(value: &str) -> Operation {
    Operation::Insert { shared: "shared-1".to_owned(), value: value.to_owned() }
}

fn remove(value: &str) -> Operation {
    Operation::Remove { shared: "shared-1".to_owned(), value: value.to_owned() }
}

fn raise(by: i64) -> Operation {
    Operation::Raise { shared: "shared-1".to_owned(), by }
}

fn name(rdn: &str) -> Operation {
    Operation::Name { shared: "shared-1".to_owned(), rdn: rdn.to_owned() }
}

fn entry(mark: &str, value: &str) -> Found {
    let dn = format!("uid={mark},{}", fold::PLACES[0]);
    Found { dn, value: vec![value.to_owned()], ..Found::default() }
}

fn shared() -> Story {
    Story::default().then(add("shared-1"), ok("00"))
}

#[test]
fn what_was_acknowledged_and_is_there_is_right() {
    let story = Story::default().then(add("a-1"), ok("1")).then(set("a-1", "x"), ok("2"));
    assert_eq!(story.judge(&[("a-1", entry("a-1", "x"))]), "");
}

#[test]
fn an_acknowledged_entry_that_is_missing_is_found() {
    let story = Story::default().then(add("a-1"), ok("1"));
    assert!(story.judge(&[]).contains("a-1: is lost"));
}

#[test]
fn an_acknowledged_value_that_is_missing_is_found() {
    let story = Story::default().then(add("a-1"), ok("1")).then(set("a-1", "x"), ok("2"));
    assert!(story.judge(&[("a-1", entry("a-1", "new"))]).contains("is not as it was acknowledged"));
}

#[test]
fn an_entry_that_comes_back_is_found() {
    let delete = Operation::Delete { mark: "a-1".to_owned() };
    let story = Story::default().then(add("a-1"), ok("1")).then(delete, ok("2"));
    assert_eq!(story.judge(&[]), "");
    assert!(story.judge(&[("a-1", entry("a-1", "new"))]).contains("was deleted"));
}

#[test]
fn an_entry_that_nobody_wrote_is_found_and_so_is_one_that_was_refused() {
    assert!(Story::default().judge(&[("x", entry("x", "new"))]).contains("never written"));
    let story = Story::default().then(add("a-1"), fail());
    assert!(story.judge(&[("a-1", entry("a-1", "new"))]).contains("never accepted"));
}

#[test]
fn an_entry_that_is_there_twice_is_found() {
    let story = Story::default().then(add("a-1"), ok("1"));
    let entry = entry("a-1", "new");
    assert!(story.judge(&[("a-1", entry.clone()), ("a-1", entry)]).contains("more than once"));
}

#[test]
fn a_write_without_an_answer_may_have_happened_or_not_and_nothing_else() {
    let story = Story::default().then(add("a-1"), ok("1")).then(set("a-1", "x"), unknown());
    assert_eq!(story.judge(&[("a-1", entry("a-1", "x"))]), "");
    assert_eq!(story.judge(&[("a-1", entry("a-1", "new"))]), "");
    assert_ne!(story.judge(&[("a-1", entry("a-1", "y"))]), "");
    assert_ne!(story.judge(&[]), "");
}

#[test]
fn a_rename_that_is_undone_is_found() {
    let dn = format!("uid=other,{}", fold::PLACES[1]);
    let rename = Operation::Rename { mark: "a-1".to_owned(), dn: dn.clone() };
    let story = Story::default().then(add("a-1"), ok("1")).then(rename, ok("2"));
    assert_eq!(story.judge(&[("a-1", Found { dn, ..entry("a-1", "new") })]), "");
    assert!(story.judge(&[("a-1", entry("a-1", "new"))]).contains("is not as it was acknowledged"));
}

#[test]
fn a_name_that_is_given_again_belongs_to_any_and_a_delete_by_name_took_the_one_that_it_says() {
    let dn = "uid=hot,ou=hot,dc=example,dc=com";
    let delete = Operation::DeleteName { dn: dn.to_owned() };
    let story = Story::default()
        .then(add_as("a-1", dn), ok("1"))
        .then(delete.clone(), deleted("a-1"))
        .then(add_as("a-2", dn), ok("3"));
    let displaced = Found { dn: format!("entryUUID=u+{dn}"), ..entry("a-2", "new") };
    assert_eq!(story.judge(&[("a-2", displaced.clone())]), "");
    assert!(story.judge(&[]).contains("a-2: is lost"));
    assert!(
        story.judge(&[("a-1", displaced.clone()), ("a-2", displaced.clone())]).contains("a-1: was deleted")
    );
    let story = story.then(delete.clone(), unknown());
    assert_eq!(story.judge(&[("a-2", displaced)]), "");
    assert_eq!(story.judge(&[]), "");
    // Two servers delete it before they hear of each other.
    let story = story.then(delete.clone(), deleted("a-2")).then(delete, deleted("a-2"));
    assert_eq!(story.judge(&[]), "");
}

#[test]
fn the_latest_acknowledged_write_of_a_shared_value_has_to_be_there() {
    let story = shared().then(write("x"), ok("01")).then(write("y"), ok("03"));
    let story = story.then(write("z"), fail());
    assert_eq!(story.judge(&[("shared-1", entry("shared-1", "y"))]), "");
    let wrong = story.judge(&[("shared-1", entry("shared-1", "x"))]);
    assert!(wrong.contains(r#"Some(("03", "y"))"#), "{wrong}");
    assert_ne!(story.judge(&[("shared-1", entry("shared-1", "z"))]), "");
    let story = story.then(write("w"), unknown());
    assert_eq!(story.judge(&[("shared-1", entry("shared-1", "w"))]), "");
}

#[test]
fn the_latest_acknowledged_name_has_to_be_there() {
    let story = shared().then(name("uid=x"), ok("01")).then(name("uid=y"), ok("02"));
    let at = |rdn: &str| Found { dn: format!("{rdn},{}", fold::PLACES[0]), ..entry("shared-1", "new") };
    assert_eq!(story.judge(&[("shared-1", at("uid=y"))]), "");
    assert!(story.judge(&[("shared-1", at("uid=x"))]).contains("the latest acknowledged name"));
}

#[test]
fn values_that_were_added_are_there_and_values_that_were_deleted_are_not() {
    let with = |values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        [("shared-1", Found { values, ..entry("shared-1", "new") })]
    };
    let story = shared().then(insert("x"), ok("01")).then(insert("y"), ok("02")).then(remove("y"), ok("03"));
    assert_eq!(story.judge(&with(&["x"])), "");
    assert!(story.judge(&with(&[])).contains("value x is there: false"));
    assert!(story.judge(&with(&["x", "y"])).contains("value y is there: true"));
    assert!(story.judge(&with(&["x", "z"])).contains("value z was never accepted"));
    let story = story.then(insert("z"), unknown()).then(remove("x"), unknown());
    assert_eq!(story.judge(&with(&["x", "z"])), "");
    assert_eq!(story.judge(&with(&[])), "");
}

#[test]
fn what_was_lost_to_the_state_of_a_killed_server_is_excused_where_a_log_says_so() {
    let csn = |server| format!("20261130191555.771616Z#000000#00{server}#000000");
    let none = [("shared-1", entry("shared-1", "new"))];
    let line = format!(
        "xmppsync: conflict: values of mail in the entry u (CSN {}, of server 1) were replaced by later ones (CSN {})\n",
        csn(1),
        csn(2)
    );
    let lost = || shared().then(insert("x"), ok(&csn(1)));
    assert_ne!(lost().killed(1).judge(&none), "");
    assert_ne!(Story { log: line.clone(), ..lost() }.judge(&none), "");
    assert_ne!(Story { log: line.clone(), ..lost() }.killed(2).judge(&none), "");
    assert_eq!(Story { log: line, ..lost() }.killed(1).judge(&none), "");
}

#[test]
fn increments_add_up() {
    let at = |number| [("shared-1", Found { number, ..entry("shared-1", "new") })];
    let story = shared().then(raise(2), ok("01")).then(raise(3), unknown()).then(raise(5), fail());
    assert_eq!(story.judge(&at(2)), "");
    assert_eq!(story.judge(&at(5)), "");
    for wrong in [0, 1, 6, 7, 10] {
        assert!(story.judge(&at(wrong)).contains("the number is"), "{wrong}");
    }
}

#[test]
fn a_csn_that_goes_back_is_found() {
    let story = Story::default().then(add("a-1"), ok("2")).then(set("a-1", "x"), ok("1"));
    assert!(story.judge(&[("a-1", entry("a-1", "x"))]).contains("was given after"));
}

#[test]
fn an_operation_that_never_ended_is_unknown() {
    let mut story = Story::default().then(add("a-1"), ok("1"));
    story.events.pop();
    assert_eq!(story.judge(&[("a-1", entry("a-1", "new"))]), "");
    assert_eq!(story.judge(&[]), "");
}

#[test]
fn a_history_reads_as_it_was_written() {
    let story = shared().then(write("x"), ok("01")).then(raise(1), unknown()).then(name("uid=x"), fail());
    for event in &story.events {
        let line = serde_json::to_string(event).unwrap();
        assert_eq!(&serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
    }
}

#[test]
fn what_met_in_a_journal_that_was_deleted_unheard_is_excused_and_nothing_else() {
    let there = |number: i64| Found { number, ..entry("shared-1", "new") };
    let story = |other: &str| {
        let begun = shared()
            .then(raise(2), ok("1"))
            .then(add("a-1"), ok("2"))
            .nemesis(&format!("{other} begins, victim 0"));
        let deleted = begun
            .nemesis("JournalDeleted begins, victim 1")
            .then(raise(3), ok("3"))
            .then(set("a-1", "x"), ok("4"));
        let over =
            deleted.nemesis("JournalDeleted ends, victim 1").nemesis(&format!("{other} ends, victim 0"));
        over.nemesis(SETTLED).then(raise(4), ok("5"))
    };
    let unheard = story("Loss");
    let own = ("a-1", entry("a-1", "x"));
    assert_eq!(unheard.judge(&[("shared-1", there(9)), own.clone()]), "");
    assert_eq!(unheard.judge(&[("shared-1", there(6)), own.clone()]), "");
    assert!(
        unheard.judge(&[("shared-1", there(3)), own.clone()]).contains("the number is 3"),
        "the last raise came after"
    );
    assert!(
        unheard.judge(&[("shared-1", there(9)), ("a-1", entry("a-1", "new"))]).contains("a-1: is not as")
    );
    let begun = shared().then(raise(2), ok("1")).nemesis("JournalDeleted begins, victim 1");
    let alone = begun.nemesis("JournalDeleted ends, victim 1").nemesis("Loss begins, victim 0");
    assert!(alone.judge(&[("shared-1", there(0))]).contains("the number is 0"), "all had heard of it");
}

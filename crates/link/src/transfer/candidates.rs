//! Which address of which side carries the bytes (XEP-0260, section 2.4): both sides try the other's candidates and
//! tell each other the outcome, from which both draw the same conclusion. Without IO.

use crate::limits::CANDIDATES_MAX;
use crate::transfer::elements::{Candidate, Socks};
use crate::transfer::offer::TransferError;
use xmpp_parsers::jingle_s5b::Type;

/// What came of trying the other side's candidates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Choice {
    /// This one is reached.
    Used(Candidate),
    /// None is.
    Error,
}

/// What follows from both choices.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Not both are known.
    Pending,
    /// A candidate of ours: the peer reached it.
    Ours(Candidate),
    /// A candidate of the peer: we reached it.
    Theirs(Candidate),
    /// No side reaches the other.
    Failed,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Negotiation {
    is_initiator: bool,
    offered: Vec<Candidate>,
    ours: Option<Choice>,
    theirs: Option<Choice>,
}

impl Negotiation {
    /// `offered` are the own candidates.
    pub(crate) fn new(is_initiator: bool, offered: Vec<Candidate>) -> Self {
        Self { is_initiator, offered, ours: None, theirs: None }
    }

    /// We have tried theirs.
    pub(crate) fn handle_tried(&mut self, choice: Choice) {
        self.ours = Some(choice);
    }

    /// Whether that is still to come.
    pub(crate) fn is_trying(&self) -> bool {
        self.ours.is_none()
    }

    /// They have tried ours.
    pub(crate) fn handle_news(&mut self, news: &Socks) -> Result<(), TransferError> {
        let choice = match &news.used {
            Some(cid) => {
                let used = self.offered.iter().find(|candidate| candidate.cid == *cid);
                let unknown = TransferError::Protocol { what: "a candidate that was not offered" };
                Choice::Used(used.ok_or(unknown)?.clone())
            }
            None if news.error => Choice::Error,
            None => return Err(TransferError::Protocol { what: "news of no candidate" }),
        };
        if self.theirs.replace(choice).is_some() {
            return Err(TransferError::Protocol { what: "a second choice" });
        }
        Ok(())
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let (Some(ours), Some(theirs)) = (&self.ours, &self.theirs) else { return Verdict::Pending };
        match (ours, theirs) {
            (Choice::Error, Choice::Error) => Verdict::Failed,
            (Choice::Used(reached), Choice::Error) => Verdict::Theirs(reached.clone()),
            (Choice::Error, Choice::Used(offered)) => Verdict::Ours(offered.clone()),
            (Choice::Used(reached), Choice::Used(offered)) => {
                // Of two that are equal, the one that the initiator chose.
                let mine = (reached.priority, self.is_initiator) > (offered.priority, !self.is_initiator);
                if mine { Verdict::Theirs(reached.clone()) } else { Verdict::Ours(offered.clone()) }
            }
        }
    }
}

/// The candidates of the peer that are to be tried: first all of the first list, then those of the second.
pub(crate) fn to_try(theirs: &Socks, direct: bool, proxy: bool) -> [Vec<Candidate>; 2] {
    let mut candidates: Vec<_> = theirs.candidates.iter().take(CANDIDATES_MAX).cloned().collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
    let (proxies, others): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.type_ == Type::Proxy);
    [if direct { others } else { vec![] }, if proxy { proxies } else { vec![] }]
}

/// The priority of a candidate: the type first, then the place in the own list.
pub(crate) fn priority(type_: &Type, place: usize) -> u32 {
    let preference: u32 = match type_ {
        Type::Direct => 126,
        Type::Assisted => 120,
        Type::Tunnel => 110,
        Type::Proxy => 10,
    };
    (preference << 16) + u32::from(u16::MAX) - u32::try_from(place).unwrap_or(u32::MAX).min(u16::MAX.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp_parsers::jid::Jid;

    fn candidate(cid: &str, type_: Type, place: usize) -> Candidate {
        Candidate {
            cid: cid.into(),
            host: "192.0.2.1".into(),
            jid: Jid::new("a@example.org/r").unwrap(),
            port: 1,
            priority: priority(&type_, place),
            type_,
        }
    }

    fn news(used: Option<&str>) -> Socks {
        Socks { used: used.map(str::to_owned), error: used.is_none(), ..Socks::new("s") }
    }

    /// The conclusions of initiator and responder, who offer `i` and `r`.
    fn conclude(i: &Candidate, r: &Candidate, i_reaches: bool, r_reaches: bool) -> (Verdict, Verdict) {
        let choice = |reaches: bool, what: &Candidate| {
            if reaches { Choice::Used(what.clone()) } else { Choice::Error }
        };
        let mut initiator = Negotiation::new(true, vec![i.clone()]);
        let mut responder = Negotiation::new(false, vec![r.clone()]);
        assert_eq!(initiator.verdict(), Verdict::Pending);
        initiator.handle_tried(choice(i_reaches, r));
        responder.handle_news(&news(i_reaches.then_some(r.cid.as_str()))).unwrap();
        assert_eq!(initiator.verdict(), Verdict::Pending);
        responder.handle_tried(choice(r_reaches, i));
        initiator.handle_news(&news(r_reaches.then_some(i.cid.as_str()))).unwrap();
        (initiator.verdict(), responder.verdict())
    }

    #[test]
    fn both_sides_draw_the_same_conclusion() {
        let direct = |cid: &str| candidate(cid, Type::Direct, 0);
        let proxy = |cid: &str| candidate(cid, Type::Proxy, 0);
        for (i, r) in [
            (direct("i"), direct("r")),
            (direct("i"), proxy("r")),
            (proxy("i"), direct("r")),
            (proxy("i"), proxy("r")),
        ] {
            for (i_reaches, r_reaches) in [(true, true), (true, false), (false, true)] {
                match conclude(&i, &r, i_reaches, r_reaches) {
                    (Verdict::Ours(a), Verdict::Theirs(b)) => assert!(a == i && b == i && r_reaches),
                    (Verdict::Theirs(a), Verdict::Ours(b)) => assert!(a == r && b == r && i_reaches),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(conclude(&i, &r, false, false), (Verdict::Failed, Verdict::Failed));
        }
    }

    #[test]
    fn the_better_candidate_wins_and_of_equal_ones_that_of_the_initiators_choice() {
        let (direct, proxy) = (candidate("d", Type::Direct, 0), candidate("p", Type::Proxy, 0));
        assert_eq!(conclude(&direct, &proxy, true, true).0, Verdict::Ours(direct.clone()));
        assert_eq!(conclude(&proxy, &direct, true, true).0, Verdict::Theirs(direct.clone()));
        let other = candidate("o", Type::Direct, 0);
        assert_eq!(conclude(&direct, &other, true, true).0, Verdict::Theirs(other));
    }

    #[test]
    fn unknown_candidates_and_second_choices_are_refused() {
        let mut negotiation = Negotiation::new(true, vec![candidate("d", Type::Direct, 0)]);
        assert!(negotiation.handle_news(&news(Some("x"))).is_err());
        assert!(negotiation.handle_news(&Socks::new("s")).is_err());
        assert!(negotiation.handle_news(&news(None)).is_ok());
        assert!(negotiation.handle_news(&news(Some("d"))).is_err());
    }

    #[test]
    fn direct_ways_are_tried_before_proxies_and_only_if_allowed() {
        let mut theirs = Socks::new("s");
        theirs.candidates = vec![
            candidate("p", Type::Proxy, 0),
            candidate("d2", Type::Direct, 1),
            candidate("d", Type::Direct, 0),
        ];
        let cids = |list: &[Candidate]| list.iter().map(|c| c.cid.clone()).collect::<Vec<_>>();
        let [first, second] = to_try(&theirs, true, true);
        assert_eq!((cids(&first), cids(&second)), (vec!["d".into(), "d2".into()], vec!["p".to_owned()]));
        assert_eq!(to_try(&theirs, false, false), [vec![], vec![]]);
        theirs.candidates = vec![candidate("x", Type::Direct, 0); 10 * CANDIDATES_MAX];
        assert_eq!(to_try(&theirs, true, true)[0].len(), CANDIDATES_MAX);
    }
}

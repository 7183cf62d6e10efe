//! What a vector covers and was not seen all the same.

use crate::mutation::{self, Mutation};
use crate::{Csn, ServerId, Vector};
use std::collections::BTreeMap;

/// CSNs of one server after one and up to another, of which a vector tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    after: Option<Csn>,
    until: Csn,
}

impl Span {
    /// Everything of the server of `until` after `after`, or from the beginning; `None` when they are of two servers.
    pub fn new(after: Option<Csn>, until: Csn) -> Option<Span> {
        let fits = after.is_none_or(|after| after.server_id() == until.server_id());
        fits.then_some(Span { after, until })
    }

    /// The last CSN before the span.
    pub fn after(&self) -> Option<Csn> {
        self.after
    }

    /// The last CSN of the span.
    pub fn until(&self) -> Csn {
        self.until
    }

    fn contains(&self, csn: Csn) -> bool {
        csn.server_id() == self.until.server_id() && Some(csn) > self.after && csn <= self.until
    }

    /// What is in both, of two of one server.
    fn both(self, other: Span) -> Option<Span> {
        let Span { after, until } =
            Span { after: self.after.max(other.after), until: self.until.min(other.until) };
        (after < Some(until)).then_some(Span { after, until })
    }
}

/// Where a [`Vector`](crate::Vector) covers what was not seen: a database was put back to an earlier state, or told nothing of
/// where it stands. A replica that lacks a state in here has not necessarily had it; what else its vector covers, and it has
/// no more, it has seen deleted.
///
/// A span from the beginning says that something may have been refused, or left out: what is not there was not necessarily deleted.
/// It says nothing of what is there. A part, which begins after a CSN, was put back: what is there has not what is in it.
///
/// Whoever takes over a vector takes over what goes with it here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen(BTreeMap<(ServerId, Option<Csn>), Csn>);

/// Parts of one server. Of more the earliest become one around them.
const PARTS_MAX: usize = 16;

impl Unseen {
    /// Everything that the vector covers.
    pub fn all(vector: &Vector) -> Unseen {
        vector.iter().map(|until| Span { after: None, until }).collect()
    }

    /// What is left of it for a replica that is at `vector`, of which it has not seen `unseen`.
    pub fn without(&self, vector: &Vector, unseen: &Unseen) -> Unseen {
        let rest = |span: Span| {
            let server = span.until.server_id();
            let ahead = Span { after: vector.get(server), ..span };
            unseen.of(server).chain([ahead]).filter_map(move |other| span.both(other)).collect::<Vec<_>>()
        };
        self.iter().flat_map(rest).collect()
    }

    /// Adds all spans of another one.
    pub fn extend(&mut self, other: &Unseen) {
        other.iter().for_each(|span| self.add(span));
    }

    /// Takes away the spans that `expired` has just so; what has grown since is kept.
    pub fn remove(&mut self, expired: &Unseen) {
        self.0.retain(|key, until| expired.0.get(key) != Some(until));
    }

    /// Adds what lies after `after`, or from the beginning, up to `until`, if anything does.
    pub fn add_after(&mut self, after: Option<Csn>, until: Csn) {
        if after < Some(until) && !mutation::is(Mutation::UnseenForgotten) {
            Span::new(after, until).into_iter().for_each(|span| self.add(span));
        }
    }

    /// Whether there is no span.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a span. What it touches becomes one with it, if it is of its kind.
    pub fn add(&mut self, span: Span) {
        let server = span.until.server_id();
        let is_like = |other: &Span| match (span.after, other.after) {
            (None, after) => after.is_none(),
            (_, None) => false,
            (Some(after), Some(other_after)) => other_after <= span.until && after <= other.until,
        };
        let touched: Vec<Span> = self.of(server).filter(is_like).collect();
        self.join(span, &touched);
        let parts: Vec<Span> = self.of(server).filter(|span| span.after.is_some()).collect();
        if let ([first, second, ..], true) = (parts.as_slice(), parts.len() > PARTS_MAX) {
            self.join(*first, &[*second]);
        }
    }

    fn join(&mut self, span: Span, others: &[Span]) {
        let mut around = span;
        for other in others {
            self.0.remove(&(other.until.server_id(), other.after));
            around = Span { after: around.after.min(other.after), until: around.until.max(other.until) };
        }
        self.0.remove(&(span.until.server_id(), span.after));
        self.0.insert((around.until.server_id(), around.after), around.until);
    }

    /// Whether the CSN is in one of the spans.
    pub fn contains(&self, csn: Csn) -> bool {
        self.of(csn.server_id()).any(|span| span.contains(csn))
    }

    /// Whether the CSN is in a part.
    pub fn is_in_part(&self, csn: Csn) -> bool {
        self.of(csn.server_id()).any(|span| span.after.is_some() && span.contains(csn))
    }

    /// Without the spans from the beginning.
    #[must_use]
    pub fn parts(&self) -> Unseen {
        self.iter().filter(|span| span.after.is_some()).collect()
    }

    /// All spans: by serverID, then as they begin.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().map(|((_, after), until)| Span { after: *after, until: *until })
    }

    /// The spans of this server, as they begin.
    pub fn of(&self, server: ServerId) -> impl Iterator<Item = Span> + '_ {
        let spans = self.0.range((server, None)..).take_while(move |((of, _), _)| *of == server);
        spans.map(|((_, after), until)| Span { after: *after, until: *until })
    }
}

impl FromIterator<Span> for Unseen {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Unseen {
        let mut unseen = Unseen::default();
        spans.into_iter().for_each(|span| unseen.add(span));
        unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csn(second: u8, server: u8) -> Csn {
        format!("202611222359{second:02}.000000Z#000000#{server:03x}#000000").parse().unwrap()
    }

    fn span(after: Option<u8>, until: u8) -> Span {
        Span::new(after.map(|second| csn(second, 1)), csn(until, 1)).unwrap()
    }

    #[test]
    fn a_span_begins_after_its_first_csn_and_ends_with_its_last() {
        let unseen: Unseen = [span(Some(3), 5)].into_iter().collect();
        assert_eq!([3, 4, 5, 6].map(|second| unseen.contains(csn(second, 1))), [false, true, true, false]);
        assert!(!unseen.contains(csn(4, 2)));
    }

    #[test]
    fn what_touches_becomes_one_and_a_span_from_the_beginning_stays_another_kind() {
        let mut unseen: Unseen = [span(Some(3), 5), span(Some(8), 9)].into_iter().collect();
        unseen.add(span(None, 1));
        unseen.add(span(None, 4));
        assert_eq!(unseen.iter().collect::<Vec<_>>(), [span(None, 4), span(Some(3), 5), span(Some(8), 9)]);
        assert_eq!(unseen.parts().iter().collect::<Vec<_>>(), [span(Some(3), 5), span(Some(8), 9)]);
        assert_eq!([3, 4, 6, 9].map(|second| unseen.is_in_part(csn(second, 1))), [false, true, false, true]);
        assert_eq!([1, 4, 6].map(|second| unseen.contains(csn(second, 1))), [true, true, false]);
        unseen.add(span(Some(5), 8));
        assert_eq!(unseen.iter().collect::<Vec<_>>(), [span(None, 4), span(Some(3), 9)]);
    }

    #[test]
    fn of_too_many_parts_the_earliest_become_one() {
        let unseen: Unseen = (0..20).map(|part| span(Some(2 * part), 2 * part + 1)).collect();
        assert_eq!(unseen.iter().count(), PARTS_MAX);
        assert_eq!(unseen.iter().next(), Some(span(Some(0), 9)));
    }

    #[test]
    fn what_another_replica_has_seen_is_taken_away() {
        let unseen: Unseen = [span(Some(2), 8)].into_iter().collect();
        let rest = |reached: u8, theirs: &[Span]| {
            let vector: Vector = [csn(reached, 1)].into_iter().collect();
            unseen.without(&vector, &theirs.iter().copied().collect()).iter().collect::<Vec<_>>()
        };
        assert_eq!(rest(1, &[]), [span(Some(2), 8)]);
        assert_eq!(rest(5, &[]), [span(Some(5), 8)]);
        assert_eq!(rest(8, &[]), []);
        assert_eq!(rest(9, &[span(None, 5)]), [span(Some(2), 5)]);
        assert_eq!(rest(9, &[span(Some(4), 5)]), [span(Some(4), 5)]);
        assert_eq!(rest(9, &[span(Some(8), 9)]), []);
        assert_eq!(rest(6, &[span(Some(3), 4)]), [span(Some(3), 4), span(Some(6), 8)]);
        assert_eq!(rest(9, &[span(None, 1), span(Some(3), 4)]), [span(Some(3), 4)]);
        assert_eq!(unseen.without(&Vector::default(), &Unseen::default()), unseen);
    }

    #[test]
    fn what_has_grown_since_it_expired_is_kept() {
        let expired: Unseen = [span(Some(2), 8)].into_iter().collect();
        let mut unseen = expired.clone();
        unseen.remove(&expired);
        assert!(unseen.is_empty());
        let mut grown = expired.clone();
        grown.add(span(Some(2), 9));
        grown.remove(&expired);
        assert!(grown.contains(csn(5, 1)));
    }

    #[test]
    fn a_span_is_of_one_server() {
        assert_eq!(Span::new(Some(csn(1, 2)), csn(2, 1)), None);
    }
}

//! From bytes to a type, with a bound on bytes and nesting, by the parser that the XMPP stack uses.

use crate::error::check;
use crate::{NAMESPACE, Place, WireError, limits};
use minidom::{Element, Node};
use xso::error::{Error, FromEventsError};
use xso::exports::rxml::{
    self, AttrMap, Event, Namespace, NcName, Parse, QName, error::EndOrError, parser::EventMetrics,
};
use xso::{Context, FromEventsBuilder, FromXml};

/// Parses one document that is a `T` and nothing more.
///
/// # Errors
/// [`WireError::Limit`] over `bytes_max` or [`limits::NESTING_MAX`], [`WireError::Malformed`] when
/// it is no such document, [`WireError::NotAPayload`] when the root is no `T`.
pub(crate) fn document<T: FromXml>(bytes: &[u8], bytes_max: usize, place: Place) -> Result<T, WireError> {
    check("bytes", Place::Document, bytes.len(), bytes_max)?;
    let mut events = Events { parser: rxml::Parser::default(), rest: bytes, depth: 0, place };
    let mut builder = loop {
        match events.next()? {
            Some(Event::XmlDeclaration(..)) => {}
            Some(Event::StartElement(_, name, attributes)) => {
                break T::from_events(name, attributes, &Context::empty()).map_err(|error| match error {
                    FromEventsError::Mismatch { .. } => WireError::NotAPayload,
                    FromEventsError::Invalid(error) => malformed(&events.place, &error),
                })?;
            }
            _ => return Err(events.cut_short()),
        }
    };
    loop {
        let event = events.next()?.ok_or_else(|| events.cut_short())?;
        let built =
            builder.feed(event, &Context::empty()).map_err(|error| malformed(&events.place, &error))?;
        if let Some(value) = built {
            // What follows the root is no part of the document; the parser refuses all but white space.
            while events.next()?.is_some() {}
            return Ok(value);
        }
    }
}

/// Converts an element of the stack, which has parsed it already and which nests within the limit.
///
/// `xso::transform` does the same, by way of two more conversions of every item and twice as slowly.
pub(crate) fn element<T: FromXml>(element: &Element, place: Place) -> Result<T, WireError> {
    let failed = |error: Error| malformed(&place, &error);
    let (name, attributes) = head(element).map_err(failed)?;
    let mut builder = T::from_events(name, attributes, &Context::empty()).map_err(|error| match error {
        FromEventsError::Mismatch { .. } => WireError::NotAPayload,
        FromEventsError::Invalid(error) => failed(error),
    })?;
    feed(element, &mut builder).map_err(failed)?.ok_or(WireError::NotAPayload)
}

fn head(element: &Element) -> Result<(QName, AttrMap), Error> {
    let namespace = if element.has_ns(NAMESPACE) {
        Namespace::from_str(NAMESPACE)
    } else {
        Namespace::from(element.ns())
    };
    Ok(((namespace, NcName::try_from(element.name())?), element.attrs().clone()))
}

/// Feeds what stands in the element, and its end, which completes what the builder builds of it.
fn feed<B: FromEventsBuilder>(element: &Element, builder: &mut B) -> Result<Option<B::Output>, Error> {
    for node in element.nodes() {
        match node {
            Node::Text(text) => {
                builder.feed(Event::Text(EventMetrics::zero(), text.clone()), &Context::empty())?;
            }
            Node::Element(child) => {
                let (name, attributes) = head(child)?;
                let start = Event::StartElement(EventMetrics::zero(), name, attributes);
                builder.feed(start, &Context::empty())?;
                feed(child, builder)?;
            }
        }
    }
    builder.feed(Event::EndElement(EventMetrics::zero()), &Context::empty())
}

/// Whether no element is nested more than `levels` deep. Recurses that deep and no further: the
/// tree comes from outside.
pub(crate) fn nests_within(element: &Element, levels: usize) -> bool {
    levels > 0 && element.children().all(|child| nests_within(child, levels - 1))
}

pub(crate) fn too_deep(place: Place) -> WireError {
    let max = limits::NESTING_MAX;
    WireError::Limit { what: "levels of nested elements", place, found: max + 1, max }
}

fn malformed(place: &Place, error: &Error) -> WireError {
    // The texts of xso and rxml name fields and code points; the identifiers' own name offsets.
    let reason = error.to_string().trim_end_matches('.').to_owned();
    WireError::Malformed { place: place.clone(), reason }
}

/// What the parser is shown at a time. For each piece of a text, 8,192 bytes, it looks for the end of
/// the text in all that it is shown: shown the whole of a large document it takes minutes.
const WINDOW_BYTES: usize = 16 * 1024;

/// The parser with the depth at which it stands.
struct Events<'a> {
    parser: rxml::Parser,
    rest: &'a [u8],
    depth: usize,
    place: Place,
}

impl Events<'_> {
    fn next(&mut self) -> Result<Option<Event>, WireError> {
        let event = loop {
            let mut window = &self.rest[..self.rest.len().min(WINDOW_BYTES)];
            let (given, last) = (window.len(), window.len() == self.rest.len());
            let parsed = self.parser.parse(&mut window, last);
            let taken = given - window.len();
            self.rest = &self.rest[taken..];
            match parsed {
                Ok(event) => break event,
                Err(EndOrError::NeedMoreData) if !last && taken > 0 => {}
                Err(EndOrError::NeedMoreData) => return Err(self.cut_short()),
                Err(EndOrError::Error(error)) => return Err(malformed(&self.place, &error.into())),
            }
        };
        match event {
            Some(Event::StartElement(..)) => self.depth += 1,
            Some(Event::EndElement(..)) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > limits::NESTING_MAX { Err(too_deep(self.place.clone())) } else { Ok(event) }
    }

    fn cut_short(&self) -> WireError {
        WireError::Malformed {
            place: self.place.clone(),
            reason: "it ends before its root element does".into(),
        }
    }
}

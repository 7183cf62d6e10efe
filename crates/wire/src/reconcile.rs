//! One round of the comparison of two databases: an IQ get and its result.

use crate::card::{CSN_BYTES, UNSEEN_BYTES, check_payload_size, unseen, unseen_elements, vector};
use crate::error::check;
use crate::{Place, WireError, batch, limits, read, schema, text};
use minidom::Element;
use std::fmt;
use std::str::FromStr;
use xmppsync_replica::{BootId, IdError, Unseen, Vector};

/// One comparison of two databases; 64 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(BootId);

/// A frame of the reconciliation, to the answering side or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconcile {
    /// To which comparison it belongs.
    pub session: Session,
    /// The number of the question, from 0; its answer has the same.
    pub round: u32,
    /// In round 0 what the sender has, taken before the sender read its set; `None` in all others.
    pub vector: Option<Vector>,
    /// What of that vector was not seen; only beside one.
    pub unseen: Unseen,
    /// The frame in negentropy's format; empty when the sender has nothing to say any more.
    pub frame: Vec<u8>,
}

impl Session {
    /// `bits` comes from the shell's source of randomness.
    pub fn new(bits: u64) -> Session {
        Session(BootId::new(bits))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Session {
    type Err = IdError;

    /// 16 lower-case hexadecimal digits, as those of a boot id.
    fn from_str(text: &str) -> Result<Session, IdError> {
        text.parse().map(Session)
    }
}

impl Reconcile {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        // <reconcile …><frame></frame></reconcile> with the longest numbers
        const RECONCILE_BYTES: usize = 130;
        self.check()?;
        let csns: Vec<_> = self.vector.iter().flat_map(Vector::iter).collect();
        let base64 = text::base64(&self.frame);
        let spans = unseen_elements(&self.unseen);
        let bytes = RECONCILE_BYTES + csns.len() * CSN_BYTES + spans.len() * UNSEEN_BYTES + base64.len();
        check_payload_size(Place::Reconcile, bytes)?;
        let frame = (!base64.is_empty()).then_some(schema::Frame { base64 });
        let reconcile =
            schema::Reconcile { session: self.session, round: self.round, csns, unseen: spans, frame };
        batch::to_element(&reconcile, Place::Reconcile)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Reconcile, WireError> {
        let reconcile: schema::Reconcile = read::element(element, Place::Reconcile)?;
        let schema::Reconcile { session, round, csns, unseen: spans, frame } = reconcile;
        // An empty vector has no CSN to be seen by: the round says whether there is one.
        let vector =
            if round == 0 || !csns.is_empty() { Some(vector(&csns, Place::Reconcile)?) } else { None };
        let frame = text::decode(true, frame.map(|frame| frame.base64).unwrap_or_default())
            .ok_or(WireError::Base64 { what: "the frame", place: Place::Reconcile })?;
        let unseen = unseen(&spans, Place::Reconcile)?;
        let reconcile = Reconcile { session, round, vector, unseen, frame };
        reconcile.check()?;
        Ok(reconcile)
    }

    fn check(&self) -> Result<(), WireError> {
        check("bytes of frame", Place::Reconcile, self.frame.len(), limits::FRAME_BYTES_MAX)?;
        let fits = self.vector.is_some() == (self.round == 0)
            && (self.round == 0 || self.unseen == Unseen::default());
        if fits { Ok(()) } else { Err(WireError::VectorRound { round: self.round }) }
    }
}

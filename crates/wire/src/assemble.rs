//! Putting batches together from their parts.

use crate::{Part, Place, WireError, batch, limits, read, schema};
use std::collections::BTreeMap;
use xmppsync_replica::{Batch, BootId, ServerId};

/// Puts batches together from parts that may be lost, repeated or reordered on the way.
///
/// Feed it every part that comes. It holds at most one unfinished batch of each origin, at most
/// [`limits::ASSEMBLIES_MAX`] of them and [`limits::ASSEMBLING_BYTES_MAX`] bytes; beyond that the
/// one that has waited longest is dropped. What is dropped is a gap in the origin's sequence, which
/// heals as every gap does. It never yields a batch that differs from the one that was split.
#[derive(Debug, Default)]
pub struct Assembler {
    unfinished: BTreeMap<ServerId, Unfinished>,
    /// Counts the parts, so that the longest waiting assembly can be found without a clock.
    parts: u64,
}

#[derive(Debug)]
struct Unfinished {
    boot: BootId,
    first: u64,
    last: u64,
    of: u32,
    bytes: u32,
    text: String,
    /// Where in `text` each part that came so far ends.
    ends: Vec<usize>,
    /// The count of parts when the last one of these came.
    touched: u64,
}

impl Assembler {
    /// An assembler that holds nothing.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Takes a part; gives the batch when it was the last one that was missing.
    ///
    /// A part that was here already is passed over. Part 0 of another batch starts anew.
    ///
    /// # Errors
    /// [`WireError::PartMissing`] when parts were skipped, [`WireError::PartsDisagree`] when a
    /// repeated part differs or the whole is not what was announced, and whatever is wrong with the
    /// batch. The origin's unfinished batch is dropped each time.
    pub fn handle_part(&mut self, part: Part) -> Result<Option<Batch>, WireError> {
        part.check()?;
        self.parts += 1;
        let origin = part.origin;
        // Taken out: whatever fails from here on leaves nothing of it behind.
        let assembly = match self.unfinished.remove(&origin) {
            Some(assembly) if assembly.is_of(&part) => assembly,
            _ if part.n == 0 => Unfinished::new(&part),
            _ => return Err(missing(&part, 0)),
        };
        let mut assembly = assembly;
        assembly.add(&part)?;
        if assembly.ends.len() as u32 == assembly.of {
            return assembly.finish(origin).map(Some);
        }
        assembly.touched = self.parts;
        self.unfinished.insert(origin, assembly);
        self.keep_within_limits();
        Ok(None)
    }

    /// Drops what an origin has not finished: it left, or began another run.
    pub fn forget(&mut self, origin: ServerId) {
        self.unfinished.remove(&origin);
    }

    /// How many batches are unfinished.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    fn keep_within_limits(&mut self) {
        let held = |unfinished: &BTreeMap<_, Unfinished>| {
            unfinished.values().map(|one| one.text.len()).sum::<usize>()
        };
        while self.unfinished.len() > limits::ASSEMBLIES_MAX
            || held(&self.unfinished) > limits::ASSEMBLING_BYTES_MAX
        {
            let oldest = self.unfinished.iter().min_by_key(|(_, one)| one.touched).map(|(origin, _)| *origin);
            let Some(oldest) = oldest else { return };
            self.unfinished.remove(&oldest);
        }
    }
}

impl Unfinished {
    fn new(part: &Part) -> Unfinished {
        Unfinished {
            boot: part.boot,
            first: part.first,
            last: part.last,
            of: part.of,
            bytes: part.bytes,
            text: String::new(),
            ends: Vec::new(),
            touched: 0,
        }
    }

    fn is_of(&self, part: &Part) -> bool {
        (self.boot, self.first, self.last, self.of, self.bytes)
            == (part.boot, part.first, part.last, part.of, part.bytes)
    }

    fn add(&mut self, part: &Part) -> Result<(), WireError> {
        let next = self.ends.len() as u32;
        if part.n > next {
            return Err(missing(part, next));
        }
        if part.n < next {
            return if self.had(part.n as usize) == Some(part.text.as_str()) {
                Ok(())
            } else {
                Err(disagree(part.origin, self, "one came twice with different text"))
            };
        }
        if self.text.len() + part.text.len() > self.bytes as usize {
            return Err(disagree(part.origin, self, "they are longer than announced"));
        }
        self.text.push_str(&part.text);
        self.ends.push(self.text.len());
        Ok(())
    }

    fn had(&self, n: usize) -> Option<&str> {
        let start = if n == 0 { 0 } else { *self.ends.get(n - 1)? };
        self.text.get(start..*self.ends.get(n)?)
    }

    fn finish(self, origin: ServerId) -> Result<Batch, WireError> {
        if self.text.len() != self.bytes as usize {
            return Err(disagree(origin, &self, "they are shorter than announced"));
        }
        let schema: schema::Batch =
            read::document(self.text.as_bytes(), limits::ASSEMBLED_BYTES_MAX, Place::Batch)?;
        let announced = (origin, self.boot, self.first, self.last);
        if (schema.sid, schema.boot, schema.first, schema.last) != announced {
            return Err(disagree(origin, &self, "the batch in them is another one than announced"));
        }
        batch::from_schema(schema)
    }
}

fn missing(part: &Part, expected: u32) -> WireError {
    WireError::PartMissing {
        origin: part.origin,
        first: part.first,
        last: part.last,
        expected,
        found: part.n,
    }
}

fn disagree(origin: ServerId, assembly: &Unfinished, reason: &'static str) -> WireError {
    WireError::PartsDisagree { origin, first: assembly.first, last: assembly.last, reason }
}

//! What announces a file: the snapshot of a database for an empty one, and a change or entry that is
//! too large for a stanza. The files themselves go by Jingle, under the `id` that is named here.

use crate::card::{CSN_BYTES, UNSEEN_BYTES, both, check_payload_size, unseen, unseen_elements, vector};
use crate::{Place, WireError, batch, limits, read, schema};
use minidom::Element;
use xmppsync_replica::{Csn, EntryUuid, Unseen, Vector};

/// "Send me your database."
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// The id of a snapshot that was cut off, and how many of its bytes are here. The source sends
    /// the rest if it still has that snapshot, a new one from the start otherwise.
    pub resume: Option<(String, u64)>,
}

/// "I shall send you this."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// 1 to [`limits::FILE_ID_BYTES_MAX`] letters, digits and hyphens.
    pub id: String,
    /// The whole file, in bytes.
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: [u8; 32],
    /// How many entries it has.
    pub entries: u64,
    /// Which data set it is a copy of.
    pub dataset: EntryUuid,
    /// What it covers: taken before the first entry was read.
    pub vector: Vector,
    /// What of that vector was not seen.
    pub unseen: Unseen,
}

/// "Send me this alone, as a file."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRequest {
    /// The change with this CSN, which a [`Large`](crate::Large) announced.
    Change(Csn),
    /// The entry as it is, which [`Entries`](crate::Entries) named as large.
    Entry(EntryUuid),
}

/// "I shall send you this file." It holds one change: see [`change_to_xml`](crate::change_to_xml).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// 1 to [`limits::FILE_ID_BYTES_MAX`] letters, digits and hyphens.
    pub id: String,
    /// The change in it; of an entry, its entryCSN.
    pub csn: Csn,
    /// Its length, in bytes; [`limits::CHANGE_FILE_BYTES_MAX`] at most.
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: [u8; 32],
}

impl LoadRequest {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        let (id, resume) = self.resume.clone().unzip();
        if let Some(id) = &id {
            check_id(id, Place::Load)?;
        }
        batch::to_element(&schema::Load { id, resume }, Place::Load)
    }

    pub(crate) fn from_element(element: &Element) -> Result<LoadRequest, WireError> {
        let load: schema::Load = read::element(element, Place::Load)?;
        let resume = both(load.id, load.resume, "id and resume", Place::Load)?;
        if let Some((id, _)) = &resume {
            check_id(id, Place::Load)?;
        }
        Ok(LoadRequest { resume })
    }
}

impl Snapshot {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        // <snapshot …></snapshot> with the longest numbers
        const SNAPSHOT_BYTES: usize = 350;
        check_id(&self.id, Place::Snapshot)?;
        let snapshot = schema::Snapshot {
            id: self.id.clone(),
            size: self.bytes,
            sha256: self.sha256,
            entries: self.entries,
            dataset: self.dataset,
            csns: self.vector.iter().collect(),
            unseen: unseen_elements(&self.unseen),
        };
        let vector_bytes = snapshot.csns.len() * CSN_BYTES + snapshot.unseen.len() * UNSEEN_BYTES;
        check_payload_size(Place::Snapshot, SNAPSHOT_BYTES + vector_bytes)?;
        batch::to_element(&snapshot, Place::Snapshot)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Snapshot, WireError> {
        let snapshot: schema::Snapshot = read::element(element, Place::Snapshot)?;
        check_id(&snapshot.id, Place::Snapshot)?;
        Ok(Snapshot {
            id: snapshot.id,
            bytes: snapshot.size,
            sha256: snapshot.sha256,
            entries: snapshot.entries,
            dataset: snapshot.dataset,
            vector: vector(&snapshot.csns, Place::Snapshot)?,
            unseen: unseen(&snapshot.unseen, Place::Snapshot)?,
        })
    }
}

impl FileRequest {
    pub(crate) fn to_element(self) -> Result<Element, WireError> {
        let (csn, uuid) = match self {
            FileRequest::Change(csn) => (Some(csn), None),
            FileRequest::Entry(uuid) => (None, Some(uuid)),
        };
        batch::to_element(&schema::FileRequest { csn, uuid }, Place::File)
    }

    pub(crate) fn from_element(element: &Element) -> Result<FileRequest, WireError> {
        let file: schema::FileRequest = read::element(element, Place::File)?;
        match (file.csn, file.uuid) {
            (Some(csn), None) => Ok(FileRequest::Change(csn)),
            (None, Some(uuid)) => Ok(FileRequest::Entry(uuid)),
            _ => Err(WireError::Either { names: "csn and uuid", place: Place::File }),
        }
    }
}

impl File {
    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        self.check()?;
        let file = schema::File { id: self.id.clone(), csn: self.csn, size: self.bytes, sha256: self.sha256 };
        batch::to_element(&file, Place::File)
    }

    pub(crate) fn from_element(element: &Element) -> Result<File, WireError> {
        let file: schema::File = read::element(element, Place::File)?;
        let file = File { id: file.id, csn: file.csn, bytes: file.size, sha256: file.sha256 };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), WireError> {
        check_id(&self.id, Place::File)?;
        check_file_size(self.bytes, Place::File)
    }
}

/// Whether one change may be that large.
pub(crate) fn check_file_size(bytes: u64, place: Place) -> Result<(), WireError> {
    let found = usize::try_from(bytes).unwrap_or(usize::MAX);
    crate::error::check("bytes of file", place, found, limits::CHANGE_FILE_BYTES_MAX)
}

fn check_id(id: &str, place: Place) -> Result<(), WireError> {
    let max = limits::FILE_ID_BYTES_MAX;
    let fits = (1..=max).contains(&id.len());
    if fits && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        Ok(())
    } else {
        Err(WireError::FileId { place, max })
    }
}

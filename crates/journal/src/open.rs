//! The directory and the file: opened, made, or set aside.

use crate::error::{Fault, JournalError};
use crate::journal::{Journal, Opened};
use crate::limits::{ASIDE_FILES_MAX, CACHE_BYTES};
use crate::state::{
    FORMAT, KEY_CLEAN, KEY_FORMAT, KEY_INCOMPLETE, KEY_LOADING, KEY_SUFFIX, State, number, put_number,
};
use crate::store::{self, STATE};
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableTable, StorageBackend, TableHandle, WriteTransaction};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const FILE: &str = "journal.redb";
const ASIDE: &str = "journal.redb.aside-";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// What was in a file that could be opened.
pub(crate) struct Found {
    pub(crate) database: Database,
    pub(crate) state: State,
    pub(crate) opened: Opened,
}

/// Why a file could not be opened.
pub(crate) enum Unopened {
    /// It is of no use to this journal; another file may be.
    Unusable(String),
    /// Another file would fare no better.
    Hopeless(JournalError),
}

pub(crate) fn open(dir: &Path, suffix: &str) -> Result<(Journal, Opened), JournalError> {
    let hopeless = |source| JournalError::Directory { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir).map_err(hopeless)?;
    let path = dir.join(FILE);
    let why = match open_file(&path, suffix) {
        Ok(found) => return Ok(journal(path, found)),
        Err(Unopened::Hopeless(error)) => return Err(error),
        Err(Unopened::Unusable(why)) => why,
    };
    let aside = set_aside(&path).map_err(hopeless)?;
    match open_file(&path, suffix) {
        Ok(found) => {
            let (journal, _) = journal(path, found);
            Ok((journal, Opened::Replaced { aside, why }))
        }
        Err(problem) => Err(abandon(&path, problem)),
    }
}

/// A new journal, whatever is there. What comes to nothing leaves no file behind.
pub(crate) fn anew(dir: &Path, suffix: &str) -> Result<Journal, JournalError> {
    let hopeless = |source| JournalError::Directory { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir).map_err(hopeless)?;
    let path = dir.join(FILE);
    if fs::symlink_metadata(&path).is_ok() {
        set_aside(&path).map_err(hopeless)?;
    }
    match open_file(&path, suffix) {
        Ok(found) => Ok(journal(path, found).0),
        Err(problem) => Err(abandon(&path, problem)),
    }
}

/// What is left of a new file that came to nothing is no journal that anybody would keep.
fn abandon(path: &Path, problem: Unopened) -> JournalError {
    // There may be none.
    let _ = fs::remove_file(path);
    let directory = path.parent().unwrap_or(Path::new("."));
    match problem {
        Unopened::Hopeless(error) => error,
        Unopened::Unusable(why) => {
            JournalError::Directory { path: directory.to_owned(), source: io::Error::other(why) }
        }
    }
}

fn journal(path: PathBuf, found: Found) -> (Journal, Opened) {
    (Journal::new(path, found.database, found.state), found.opened)
}

fn open_file(path: &Path, suffix: &str) -> Result<Found, Unopened> {
    let file = file(path)?;
    let backend = store::guarded(|| Ok(FileBackend::new(file)?)).map_err(|fault| unopened(path, fault))?;
    open_backend(path, suffix, backend)
}

/// Opens what `backend` stores; `path` is for messages only.
pub(crate) fn open_backend(
    path: &Path,
    suffix: &str,
    backend: impl StorageBackend,
) -> Result<Found, Unopened> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    let database = store::guarded(|| Ok(builder.create_with_backend(backend)?));
    let database = database.map_err(|fault| unopened(path, fault))?;
    match store::write(&database, |transaction| take_over(transaction, suffix)) {
        Ok((state, opened)) => Ok(Found { database, state, opened }),
        Err(fault) => Err(unopened(path, fault)),
    }
}

/// Writes the state of a new journal, or reads that of an existing one and takes out the marker of a clean close, in one
/// transaction: whoever crashes from here on finds no marker.
fn take_over(transaction: &WriteTransaction, suffix: &str) -> Result<(State, Opened), Fault> {
    let mut names = transaction.list_tables()?;
    let is_new = names.next().is_none();
    if !is_new && !transaction.list_tables()?.any(|table| table.name() == STATE.name()) {
        return Err(Fault::Foreign("it is a database of something else".to_owned()));
    }
    let mut table = transaction.open_table(STATE)?;
    if is_new {
        put_number(&mut table, KEY_FORMAT, FORMAT)?;
        table.insert(KEY_SUFFIX, suffix.as_bytes())?;
        store::make_tables(transaction)?;
        return Ok((State::default(), Opened::New));
    }
    let format = table.get(KEY_FORMAT)?.map(|value| number(value.value())).transpose()?;
    if format != Some(FORMAT) {
        let format = format.unwrap_or_default();
        return Err(Fault::Foreign(format!("its format is {format}, not {FORMAT}")));
    }
    let whose = table.get(KEY_SUFFIX)?.map(|value| value.value().to_vec()).unwrap_or_default();
    if whose != suffix.as_bytes() {
        return Err(Fault::Foreign(format!("it is the journal of {:?}", String::from_utf8_lossy(&whose))));
    }
    if table.get(KEY_INCOMPLETE)?.is_some() {
        return Err(Fault::Foreign("it was not whole yet when slapd ended".to_owned()));
    }
    let state = State::load(&table)?;
    let clean = table.remove(KEY_CLEAN)?.map(|value| value.value().to_vec());
    let loading = table.get(KEY_LOADING)?.map(|value| value.value().to_vec());
    store::make_tables(transaction)?;
    Ok((state, Opened::Existing { clean, loading }))
}

fn file(path: &Path) -> Result<File, Unopened> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let hopeless =
        |source| Unopened::Hopeless(JournalError::Directory { path: directory.to_owned(), source });
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    match options.clone().create_new(true).open(path) {
        // The file's name has to survive a power cut as well as what is in it.
        Ok(file) => return sync_directory(directory).map(|()| file).map_err(hopeless),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(hopeless(error)),
    }
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Unopened::Unusable("it is not a file".to_owned()));
    }
    // Whoever copied it about may have left it readable to all: it holds password hashes.
    let file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::ReadOnlyFilesystem => hopeless(error),
        _ => Unopened::Unusable(format!("it cannot be read: {error}")),
    })?;
    file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(hopeless)?;
    Ok(file)
}

/// Whether a new file would help.
fn unopened(path: &Path, fault: Fault) -> Unopened {
    let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
    match fault {
        Fault::Store(error) => match *error {
            redb::Error::DatabaseAlreadyOpen => Unopened::Hopeless(JournalError::InUse(path.to_owned())),
            redb::Error::Io(source) if is_of_the_medium(source.kind()) => {
                Unopened::Hopeless(JournalError::Directory { path: directory, source })
            }
            error => Unopened::Unusable(error.to_string()),
        },
        fault => Unopened::Unusable(fault.to_string()),
    }
}

fn is_of_the_medium(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    )
}

/// Renames the file at `path`, keeps the latest [`ASIDE_FILES_MAX`] of its kind, and says what it is called now.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut numbers = aside_numbers(directory)?;
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let aside = directory.join(format!("{ASIDE}{next}"));
    fs::rename(path, &aside)?;
    numbers.push(next);
    let surplus = numbers.len().saturating_sub(ASIDE_FILES_MAX);
    for number in &numbers[..surplus] {
        // What cannot be removed is only untidy.
        let _ = fs::remove_file(directory.join(format!("{ASIDE}{number}")));
    }
    sync_directory(directory)?;
    Ok(aside)
}

fn aside_numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(ASIDE)).map(str::parse::<u64>);
        numbers.extend(number.and_then(Result::ok));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

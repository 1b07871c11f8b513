//! The data folder: its format version, and the lock that keeps a second broker out.

use std::io;
use std::path::Path;
use std::sync::Arc;

use portolan_core::store::StoreError;

use crate::filesystem::{FileSystem, Lock};

/// The format of the folder that this version writes, and the newest that it reads. Format 1 had no groups that count
/// as a whole, and no records of messages that were taken over; what it has is read as it was.
pub(crate) const FORMAT: u32 = 2;
const LABEL: &str = "portolan data folder, format ";
const LONGEST: usize = 256;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing had been stored there.
    Fresh,
    /// A store had been set up there.
    Known,
}

/// An error of the file system as the store tells it.
pub(crate) fn io_error(what: &'static str, file: &Path, error: io::Error) -> StoreError {
    StoreError::Io { what, file: file.to_path_buf(), error: Arc::new(error) }
}

/// Takes the folder for this process.
pub(crate) fn lock(files: &dyn FileSystem, folder: &Path) -> Result<Lock, StoreError> {
    files.create_folder(folder).map_err(|error| io_error("cannot make", folder, error))?;
    let path = folder.join("lock");
    let lock = files.lock(&path).map_err(|error| io_error("cannot lock", &path, error))?;
    lock.ok_or_else(|| StoreError::InUse { folder: folder.to_path_buf() })
}

/// Reads the folder's format and refuses one that is newer than ours.
pub(crate) fn check_format(files: &dyn FileSystem, folder: &Path) -> Result<Found, StoreError> {
    let path = folder.join("format");
    let file = match files.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Fresh),
        Err(error) => return Err(io_error("cannot open", &path, error)),
    };
    let mut bytes = [0; LONGEST];
    let read = file.read_at(&mut bytes, 0).map_err(|error| io_error("cannot read", &path, error))?;
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned();
    match text.trim().strip_prefix(LABEL.trim_end()).map(|number| number.trim().parse::<u32>()) {
        Some(Ok(found)) if found > FORMAT => Err(StoreError::TooNew { found, known: FORMAT }),
        Some(Ok(found)) => {
            if found < FORMAT {
                write_format(files, folder)?;
            }
            Ok(Found::Known)
        }
        _ => Err(StoreError::Damaged {
            file: path,
            offset: 0,
            what: format!("it should read \"{LABEL}{FORMAT}\": restore that line if the folder is Portolan's").into(),
        }),
    }
}

/// Writes the format, once the journal has its first segment.
pub(crate) fn write_format(files: &dyn FileSystem, folder: &Path) -> Result<(), StoreError> {
    let (path, new) = (folder.join("format"), folder.join("format.new"));
    let failed = |error| io_error("cannot write", &path, error);
    let file = files.create(&new).map_err(failed)?;
    file.write_at(format!("{LABEL}{FORMAT}\n").as_bytes(), 0).map_err(failed)?;
    file.sync().map_err(failed)?;
    files.rename(&new, &path).map_err(failed)?;
    files.sync_folder(folder).map_err(failed)
}

//! What the journal asks of a file system, and the real one.

use std::any::Any;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// What the operating system caches and disks write at once; no smaller piece can go past the cache.
pub const BLOCK: usize = 4096;

/// An open file.
pub trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `buffer` from `offset` on and says how much there was before the file ended.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Brings the data, and the length if it changed, to stable storage.
    ///
    /// # Errors
    /// The system's. What was written since the last success may or may not be there.
    fn sync(&self) -> io::Result<()>;

    /// Makes the file `length` bytes long with disk space reserved for all of it, reading as zeros.
    ///
    /// # Errors
    /// The system's; `StorageFull` above all.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Reserves disk space for `length` bytes from `offset` on, which are within the file. What is there stays.
    ///
    /// # Errors
    /// The system's; `StorageFull` above all.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Gives the disk space of `length` bytes from `offset` on back, both multiples of [`BLOCK`]. The file stays as
    /// long as it is and reads as zeros there.
    ///
    /// # Errors
    /// The system's; `Unsupported` where a file cannot have holes.
    fn release(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Bytes of disk that the file occupies.
    ///
    /// # Errors
    /// The system's.
    fn occupied(&self) -> io::Result<u64>;

    /// The file's length.
    ///
    /// # Errors
    /// The system's.
    fn length(&self) -> io::Result<u64>;
}

/// Held as long as the data folder is ours.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A file system, or something that behaves like one.
pub trait FileSystem: Send + Sync {
    /// Makes an empty file, in place of any that is there.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for writing past the cache, in whole [`BLOCK`]s from memory aligned to them, where the file system
    /// can do that; else as [`FileSystem::open`] does.
    ///
    /// # Errors
    /// The system's.
    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    /// Gives a file another name, in place of any file of that name.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// The system's, but not that it is there already.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a folder.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Brings the folder's names to stable storage.
    ///
    /// # Errors
    /// The system's.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Bytes that we could still write below that folder.
    ///
    /// # Errors
    /// The system's.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;

    /// Takes the lock file for this process, `None` when another has it.
    ///
    /// # Errors
    /// The system's.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

struct RealFile(fs::File);

impl File for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // Some network file systems cannot reserve; the zeros written next then take the space.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.0.set_len(length),
            other => Ok(other?),
        }
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn release(&self, offset: u64, length: u64) -> io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, hole, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn occupied(&self) -> io::Result<u64> {
        // The system counts in this unit whatever the file system's is.
        const UNIT: u64 = 512;
        Ok(self.0.metadata()?.blocks() * UNIT)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl FileSystem for RealFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::options().read(true).write(true).open(path)?)))
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => Ok(Arc::new(RealFile(file.into()))),
            // Some file systems have nothing but the cache.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.open(path),
            Err(error) => Err(error.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        names.collect()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(folder)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = fs::File::options().write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

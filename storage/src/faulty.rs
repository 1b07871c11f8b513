//! A file system in memory that fails when it is told to, fills up, and loses power.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::filesystem::{BLOCK, File, FileSystem, Lock};

/// Something that was done to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes were written.
    Write {
        /// To which file, by its name at the time.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
    },
    /// A file was synced.
    Sync {
        /// Which one.
        file: PathBuf,
    },
}

/// The file system. Clones show the same disk.
#[derive(Clone, Default)]
pub struct FaultyFs {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    released: Condvar,
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// The names as they were when the folder was synced last, and what changed since.
    synced_names: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    locks: HashSet<PathBuf>,
    operations: Vec<Operation>,
    writes: u64,
    syncs: u64,
    fail_write: Option<u64>,
    fail_sync: Option<u64>,
    capacity: Option<u64>,
    syncs_held: bool,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Written since the last sync.
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Blocks whose space was given back.
    holes: BTreeSet<usize>,
    name: PathBuf,
}

#[derive(Clone)]
enum Change {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

/// Numbers that only look random: the same seed gives the same ones.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // The multiplier is Knuth's for linear congruential generators; the upper bits are good enough for a choice.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

impl FaultyFs {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.disk.lock()
    }

    /// Has the write that comes after `more` others fail, half done.
    pub fn fail_write_after(&self, more: u64) {
        let mut disk = self.disk();
        disk.fail_write = Some(disk.writes + more);
    }

    /// Has the sync that comes after `more` others fail, with nothing on stable storage.
    pub fn fail_sync_after(&self, more: u64) {
        let mut disk = self.disk();
        disk.fail_sync = Some(disk.syncs + more);
    }

    /// Limits the disk to so many bytes.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Lets syncs wait until they are released.
    pub fn hold_syncs(&self) {
        self.disk().syncs_held = true;
    }

    /// Lets syncs go on.
    pub fn release_syncs(&self) {
        self.disk().syncs_held = false;
        self.shared.released.notify_all();
    }

    /// Everything written and synced so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.disk().operations.clone()
    }

    /// The disk as it may be found after power was lost now: of each page written since its file was synced, some
    /// version between the synced one and the last, chosen by `seed`; of names likewise.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let disk = self.disk();
        let mut dice = Dice(seed);
        let page = if dice.below(2) == 0 { 512 } else { 4096 };
        let mut names = disk.synced_names.clone();
        let kept = dice.below(disk.changes.len() + 1);
        disk.changes.iter().take(kept).for_each(|change| change.apply(&mut names));
        let inodes = disk.inodes.iter().map(|inode| inode.after_power_loss(&mut dice, page)).collect();
        Self::of(inodes, names)
    }

    /// The disk as it is found after the process was killed now: nothing is lost, nothing is locked.
    pub fn after_kill(&self) -> Self {
        let disk = self.disk();
        let whole = |inode: &Inode| Inode { unsynced: Vec::new(), synced: inode.bytes.clone(), ..inode.clone() };
        Self::of(disk.inodes.iter().map(whole).collect(), disk.names.clone())
    }

    fn of(inodes: Vec<Inode>, names: BTreeMap<PathBuf, usize>) -> Self {
        let copy = Self::default();
        *copy.disk() = Disk { inodes, synced_names: names.clone(), names, ..Disk::default() };
        copy
    }

    /// A file's bytes, for a test to look at or to change.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn edit<T>(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut disk = self.disk();
        let number = disk.find(path)?;
        let inode = disk.inode(number)?;
        let done = edit(&mut inode.bytes);
        inode.synced.clone_from(&inode.bytes);
        inode.unsynced.clear();
        Ok(done)
    }

    /// Paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }
}

impl Inode {
    fn occupied(&self) -> u64 {
        (self.bytes.len() as u64).saturating_sub((self.holes.len() * BLOCK) as u64)
    }

    fn after_power_loss(&self, dice: &mut Dice, page: usize) -> Self {
        let mut bytes = self.synced.clone();
        if dice.below(2) == 0 {
            bytes.resize(self.bytes.len(), 0);
        }
        let pages: BTreeSet<usize> = self
            .unsynced
            .iter()
            .flat_map(|(offset, written)| {
                let start = *offset as usize;
                start / page..=(start + written.len().max(1) - 1) / page
            })
            .collect();
        for number in pages {
            let (from, to) = (number * page, (number + 1) * page);
            let touching: Vec<_> = self
                .unsynced
                .iter()
                .filter(|(offset, written)| (*offset as usize) < to && *offset as usize + written.len() > from)
                .collect();
            for (offset, written) in touching.iter().take(dice.below(touching.len() + 1)) {
                for (place, byte) in written.iter().enumerate() {
                    let at = *offset as usize + place;
                    if (from..to).contains(&at)
                        && let Some(slot) = bytes.get_mut(at)
                    {
                        *slot = *byte;
                    }
                }
            }
        }
        let holes = self.holes.clone();
        Self { synced: bytes.clone(), bytes, unsynced: Vec::new(), holes, name: self.name.clone() }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(not_found)
    }

    fn inode(&mut self, number: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(number).ok_or_else(not_found)
    }

    fn used(&self) -> u64 {
        let named: HashSet<_> = self.names.values().collect();
        named.into_iter().filter_map(|number| self.inodes.get(*number)).map(Inode::occupied).sum()
    }

    /// Fills the holes from `from` up to `to`.
    fn fill(&mut self, number: usize, from: usize, to: usize) -> io::Result<()> {
        let blocks = from / BLOCK..to.div_ceil(BLOCK);
        let missing = self.inode(number)?.holes.range(blocks.clone()).count() * BLOCK;
        let full = self.capacity.is_some_and(|capacity| self.used() + missing as u64 > capacity);
        if missing > 0 && full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inode(number)?.holes.retain(|block| !blocks.contains(block));
        Ok(())
    }

    /// Makes the file at least that long.
    fn grow(&mut self, number: usize, length: usize) -> io::Result<()> {
        let before = self.inode(number)?.bytes.len();
        if length <= before {
            return Ok(());
        }
        let more = (length - before) as u64;
        if self.capacity.is_some_and(|capacity| self.used() + more > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inode(number)?.bytes.resize(length, 0);
        Ok(())
    }

    fn write(&mut self, number: usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = offset as usize;
        self.grow(number, start + bytes.len())?;
        self.fill(number, start, start + bytes.len())?;
        let inode = self.inode(number)?;
        if let Some(to) = inode.bytes.get_mut(start..start + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        inode.unsynced.push((offset, bytes.to_vec()));
        let file = inode.name.clone();
        self.operations.push(Operation::Write { file, offset, length: bytes.len() });
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

struct FaultyFile {
    shared: Arc<Shared>,
    number: usize,
}

impl File for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.shared.disk.lock();
        disk.writes += 1;
        if disk.fail_write.is_some_and(|at| disk.writes > at) {
            disk.fail_write = None;
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            disk.write(self.number, half, offset)?;
            return Err(io::Error::other("injected write error"));
        }
        disk.write(self.number, bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.shared.disk.lock();
        let inode = disk.inode(self.number)?;
        let there = inode.bytes.get(offset as usize..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), there.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.shared.disk.lock();
        while disk.syncs_held {
            self.shared.released.wait(&mut disk);
        }
        disk.syncs += 1;
        if disk.fail_sync.is_some_and(|at| disk.syncs > at) {
            disk.fail_sync = None;
            return Err(io::Error::other("injected sync error"));
        }
        let inode = disk.inode(self.number)?;
        let (bytes, synced) = (&inode.bytes, &mut inode.synced);
        synced.resize(bytes.len(), 0);
        for (offset, written) in inode.unsynced.drain(..) {
            let range = offset as usize..offset as usize + written.len();
            if let (Some(to), Some(from)) = (synced.get_mut(range.clone()), bytes.get(range)) {
                to.copy_from_slice(from);
            }
        }
        let file = inode.name.clone();
        disk.operations.push(Operation::Sync { file });
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.shared.disk.lock().grow(self.number, length as usize)
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        self.shared.disk.lock().fill(self.number, offset as usize, (offset + length) as usize)
    }

    fn release(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut disk = self.shared.disk.lock();
        let inode = disk.inode(self.number)?;
        let (from, to) = (offset as usize, (offset + length) as usize);
        if let Some(bytes) = inode.bytes.get_mut(from..to) {
            bytes.fill(0);
        }
        inode.unsynced.push((offset, vec![0; length as usize]));
        inode.holes.extend(from / BLOCK..to / BLOCK);
        Ok(())
    }

    fn occupied(&self) -> io::Result<u64> {
        Ok(self.shared.disk.lock().inode(self.number)?.occupied())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.shared.disk.lock().inode(self.number)?.bytes.len() as u64)
    }
}

impl FileSystem for FaultyFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        let number = disk.inodes.len();
        disk.inodes.push(Inode { name: path.to_path_buf(), ..Inode::default() });
        disk.change(Change::Create(path.to_path_buf(), number));
        Ok(Arc::new(FaultyFile { shared: Arc::clone(&self.shared), number }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let number = self.disk().find(path)?;
        Ok(Arc::new(FaultyFile { shared: Arc::clone(&self.shared), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let number = disk.find(from)?;
        disk.inode(number)?.name = to.to_path_buf();
        disk.change(Change::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.find(path)?;
        disk.change(Change::Remove(path.to_path_buf()));
        Ok(())
    }

    fn create_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let inside = disk.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let changes = std::mem::take(&mut disk.changes);
        for change in changes {
            let (Change::Create(path, _) | Change::Rename(_, path) | Change::Remove(path)) = &change;
            if path.parent() == Some(folder) {
                change.apply(&mut disk.synced_names);
            } else {
                disk.changes.push(change);
            }
        }
        Ok(())
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        let disk = self.disk();
        Ok(disk.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(disk.used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        if !self.disk().locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Held { shared: Arc::clone(&self.shared), path: path.to_path_buf() })))
    }
}

struct Held {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.disk.lock().locks.remove(&self.path);
    }
}

//! What a store can be told when it is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::filesystem::{FileSystem, RealFs};

/// What to do about bytes of the journal that were on stable storage and are no longer what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not start: say which file and where.
    #[default]
    Refuse,
    /// Skip the damaged records, log each place, go on with the rest.
    Repair,
}

/// Settings of a store.
#[derive(Clone)]
pub struct Options {
    /// The data folder.
    pub folder: PathBuf,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// What to do about damage.
    pub on_damage: OnDamage,
    /// Records are written at latest when that much has gathered, whether someone waits or not.
    pub write_bytes: usize,
    /// Records are written at latest after that long, whether someone waits or not.
    pub write_after: Duration,
    /// Memory for records that are not yet on stable storage. Beyond it messages are refused, beyond twice as much
    /// everything is. [`backlog`](portolan_core::store::Journal::backlog) tells publishers when to wait before that.
    pub unsynced_bytes: usize,
    /// Publishers are stopped while the disk has less than that left.
    pub free_floor: u64,
    /// Segments that may be on disk beyond one and a half times the live data before cleaning starts, under a load
    /// that fills them within seconds. The less is going on, the less may lie there: a quiet node keeps a quarter of
    /// the live data and a few MiB.
    pub slack_segments: u32,
    /// Bytes per second that cleaning reads at most.
    pub clean_bytes_per_second: u64,
    /// How often to look how much is going on, which decides on `slack_segments` and the space kept ready.
    pub pace: Duration,
    /// Mirror the facts into the checkpoint, a folder of its own on the real file system.
    pub checkpoint: bool,
    /// Where the files are.
    pub files: Arc<dyn FileSystem>,
}

impl Options {
    /// The defaults, on the operating system's files.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: 64 << 20,
            on_damage: OnDamage::Refuse,
            write_bytes: 1 << 20,
            write_after: Duration::from_millis(50),
            unsynced_bytes: 64 << 20,
            free_floor: 256 << 20,
            slack_segments: 4,
            clean_bytes_per_second: 128 << 20,
            pace: Duration::from_secs(1),
            checkpoint: true,
            files: Arc::new(RealFs),
        }
    }
}

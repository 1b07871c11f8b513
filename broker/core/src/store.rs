//! What must survive a restart, and the trait that a store implements. The store knows records, not queues.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use thiserror::Error;

use crate::message::Message;

/// Identifies a queue for good: never used again, also not for a later queue of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// Place of a record in the journal's single sequence. The first record has index 1.
pub type Index = u64;

/// Where a record's bytes lie: segment number in the upper 32 bits, byte offset in the lower 32.
/// Never 0, and grows with the index. Offsets are multiples of 8; the journal may keep notes of its own in the low
/// three bits, so positions are handed back to it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(std::num::NonZeroU64);

impl Position {
    /// The position `offset` bytes into segment `segment`, with the journal's notes in the low three bits.
    pub fn new(segment: u32, offset: u32) -> Option<Self> {
        Self::from_number(u64::from(segment) << 32 | u64::from(offset))
    }

    /// The position with that number; 0 stands for none.
    pub fn from_number(number: u64) -> Option<Self> {
        std::num::NonZeroU64::new(number).map(Self)
    }

    /// As one number.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// The segment's number.
    pub fn segment(self) -> u32 {
        (self.number() >> 32) as u32
    }

    /// Bytes from the start of the segment.
    pub fn offset(self) -> u32 {
        self.number() as u32
    }
}

/// `count` consecutive sequence numbers of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// First number.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// Where a queue's record finds its message.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In the record itself.
    Inline(&'a Message),
    /// In the record at that position, which another queue wrote. Append answers `Missing` when that record's
    /// segment is about to go or gone: then append the message inline.
    At(Position),
}

/// A durable fact, sufficient with those before it to rebuild the state.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A message entered a queue. A later record of the same queue and sequence number replaces it: that is how
    /// the cleaner moves messages forward.
    Enqueued {
        /// The queue.
        queue: QueueId,
        /// Its sequence number in the queue.
        seq: u64,
        /// Milliseconds since the epoch at which it expires, 0 for never.
        expires_at: u64,
        /// The message.
        content: Content<'a>,
    },
    /// Messages left a queue: settled, expired, dropped or purged.
    Settled {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: &'a [SeqRange],
        /// Where their `Enqueued` records are. Not written: it tells the journal what has died in which segment.
        freed: &'a [Position],
    },
    /// Messages were delivered at least once and returned: they carry the redelivered mark.
    /// Written at a clean stop only; after a crash everything is marked.
    Redelivered {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: &'a [SeqRange],
    },
    /// The clients of sessions have taken QoS 2 messages over (PUBREC): they are not sent again, only let go of.
    Released {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: &'a [SeqRange],
    },
    /// Messages of a queue that limits how often they may come back have come back so many times. The highest number
    /// counts. It stands behind the message's `Enqueued`, also behind one that replaces it.
    Returned {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: &'a [SeqRange],
        /// How often altogether.
        times: u32,
    },
    /// A queue is gone with everything in it. Its definition is a fact of its own.
    Dropped {
        /// The queue.
        queue: QueueId,
        /// Where its live `Enqueued` records are. Not written.
        freed: &'a [Position],
    },
    /// The catalogue learned or forgot something: the last record of a key counts.
    Fact {
        /// Names the fact.
        key: &'a [u8],
        /// What is known, `None` when it is no more.
        value: Option<&'a [u8]>,
    },
}

/// Where an appended record will be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the sequence.
    pub index: Index,
    /// Where its bytes are.
    pub position: Position,
}

/// One queue's messages after recovery, in sequence order, live ones only.
#[derive(Debug, Default)]
pub struct RecoveredQueue {
    /// The live messages.
    pub entries: Vec<RecoveredEntry>,
    /// The lowest sequence number never used.
    pub next_seq: u64,
}

/// A live message after recovery; its content stays in the journal until it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Sequence number in the queue.
    pub seq: u64,
    /// Position of its `Enqueued` record.
    pub position: Position,
    /// Milliseconds since the epoch at which it expires, 0 for never.
    pub expires_at: u64,
    /// Times it came back, as far as that is written.
    pub returns: u32,
    /// It had been delivered before.
    pub redelivered: bool,
    /// Its client had taken it over, see [`Record::Released`].
    pub released: bool,
}

/// Everything that a store knew when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The catalogue's facts, latest of each key, in key order.
    pub facts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Each queue's live messages.
    pub queues: HashMap<QueueId, RecoveredQueue>,
    /// The last stop was clean.
    pub clean: bool,
}

/// A record of a segment that the journal wants to reclaim.
#[derive(Clone, Debug)]
pub struct Relocation {
    /// The queue.
    pub queue: QueueId,
    /// Its sequence number there.
    pub seq: u64,
    /// Where it is now.
    pub from: Position,
    /// Position of the content when the record only refers to it, else `from`.
    pub content_at: Position,
    /// Milliseconds since the epoch, 0 for never.
    pub expires_at: u64,
    /// The message, already read.
    pub message: Message,
}

/// What the journal asks of the broker whose state it holds. Called from the journal's own threads, never while
/// the journal holds a lock.
pub trait Owner: Send + Sync {
    /// Appends anew those that are still live; dead ones are left behind. After it returns nothing refers to
    /// `from` any more.
    fn relocate(&self, entries: Vec<Relocation>) -> Result<(), StoreError>;
    /// The record at `at` cannot be read and is about to go. Who still has the message in memory appends it anew; if
    /// nobody has, it is lost: then it leaves its queue, whose name is returned.
    fn lost(&self, queue: QueueId, seq: u64, at: Position) -> Result<Option<Arc<str>>, StoreError>;
    /// Appends every fact of the catalogue anew.
    fn restate(&self) -> Result<(), StoreError>;
}

/// Is told when the journal is durable up to what it waits for.
pub trait Waiter: Send + Sync {
    /// Everything up to `durable` is on stable storage. Called from the journal's thread: must not block.
    fn durable(&self, durable: Index);
    /// The journal failed: nothing more will be confirmed.
    fn failed(&self);
}

/// Whether publishers may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// There is room.
    Plenty,
    /// The disk is nearly full: only records that free space are welcome.
    Low,
}

/// The durable sequence of records. Appending is cheap and does no I/O; durability follows in groups.
pub trait Journal: Send + Sync {
    /// Adds a record to the sequence. It is durable once [`Journal::durable`] has reached its index.
    ///
    /// # Errors
    /// `Full` when no space is left for this kind of record, `Failed` after a write or sync failed.
    fn append(&self, record: &Record<'_>) -> Result<Appended, StoreError>;

    /// Begins a unit: after a crash, either all the records that are appended while it lives are there, or none. For
    /// as long as an append takes, and begun without any other lock or unit held: the journal writes nothing meanwhile.
    fn unit(&self) -> Unit<'_>;

    /// The last index given out, durable or not; 0 before the first.
    fn last(&self) -> Index;

    /// Everything up to this index is on stable storage.
    fn durable(&self) -> Index;

    /// Calls `waiter` once when the journal is durable up to `index`, at once if it already is. Wakes the
    /// journal's thread.
    fn wait_for(&self, index: Index, waiter: Arc<dyn Waiter>);

    /// Makes what was appended durable soon though nobody waits for it.
    fn nudge(&self);

    /// Reads the messages of `Enqueued` records, in order; references are followed. Does I/O: not for a thread
    /// that serves sockets. `each` gets the place in `positions`.
    ///
    /// A record that cannot be read or fails its checksum yields an error for that one only.
    fn read(&self, positions: &[Position], each: &mut dyn FnMut(usize, Result<Message, StoreError>));

    /// Bytes appended that are not durable yet. Publishers wait when there are too many.
    fn backlog(&self) -> usize;

    /// Whether publishers may go on.
    fn space(&self) -> Space;

    /// Bytes on disk, for operators.
    fn disk_bytes(&self) -> u64;
}

/// Records that are appended while it lives are in the journal together or not at all; see [`Journal::unit`].
#[must_use]
pub struct Unit<'a> {
    _open: Option<RwLockReadGuard<'a, ()>>,
}

impl<'a> Unit<'a> {
    /// Of a journal that cuts no group while the guard lives.
    pub fn of(open: RwLockReadGuard<'a, ()>) -> Self {
        Self { _open: Some(open) }
    }

    /// Of a journal that loses nothing, or everything.
    pub fn trivial() -> Self {
        Self { _open: None }
    }
}

/// What can go wrong in a store.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The disk, or the share of it that we may use, is full.
    #[error("no space left for the journal: free disk space or consume messages")]
    Full,
    /// A write or sync failed; nothing is confirmed any more.
    #[error("the journal failed and confirms nothing more: {0}")]
    Failed(Arc<str>),
    /// Stored bytes are not what was written.
    #[error("{file}: damaged at byte {offset}: {what}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong, and what to do.
        what: Arc<str>,
    },
    /// The data folder was written by a newer version.
    #[error("the data folder has format {found}, this version reads up to {known}: run a newer portolan")]
    TooNew {
        /// The folder's format.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// Another broker runs on the data folder.
    #[error("another broker is using {folder}: stop it, or give this one another --data-dir", folder = folder.display())]
    InUse {
        /// The data folder.
        folder: PathBuf,
    },
    /// The file system refused.
    #[error("{what} {file}: {error}", file = file.display())]
    Io {
        /// What we were doing.
        what: &'static str,
        /// To which file.
        file: PathBuf,
        /// The system's words.
        error: Arc<std::io::Error>,
    },
    /// No record at that position.
    #[error("nothing is stored at {0:?}")]
    Missing(Position),
}

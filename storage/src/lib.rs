//! Portolan's store: the journal, which is the truth for everything durable, and the checkpoint beside it.
//!
//! Start with [`Store`], which implements the core's [`Journal`](portolan_core::store::Journal). [`MemoryJournal`]
//! is for a broker without a disk, [`faulty`] has a file system that fails and loses power on demand.

mod checkpoint;
pub mod encode;
pub mod faulty;
mod filesystem;
mod folder;
pub mod journal;
mod memory;
mod options;

pub use filesystem::{BLOCK, File, FileSystem, Lock, RealFs};
pub use journal::{RecordAt, Store};
pub use memory::MemoryJournal;

pub use options::{OnDamage, Options};

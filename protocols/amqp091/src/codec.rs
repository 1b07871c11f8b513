//! Bytes to frames, methods, tables and properties, and back.

pub mod encode;
pub mod frame;
pub mod malformed;
pub mod method;
pub mod properties;
mod reader;
pub mod table;

pub use malformed::Malformed;

/// Bounds on what one table may make us do, whatever the frame that carries it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tables and arrays within each other, the outermost counted; at most [`Limits::DEEPEST`] has an effect.
    pub depth: usize,
    /// Values in all of the table together.
    pub entries: usize,
    /// Encoded bytes of the table.
    pub bytes: usize,
}

impl Limits {
    /// The depth beyond which a larger setting has no effect: readers of nested values recurse, and so do their
    /// destructors and `amq-protocol`, which takes up to 2 KiB of stack for each level.
    pub const DEEPEST: usize = 128;
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 32, entries: 65_536, bytes: 1 << 20 }
    }
}

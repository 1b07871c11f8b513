//! Reads frames out of a file through a window that is filled in large pieces.

use std::io;

use crate::filesystem::File;
use crate::journal::frame::{self, Frame, HEADER};

/// Bytes that are read at once when nothing else is known.
pub(crate) const AHEAD: usize = 1 << 20;

/// A piece of a file in memory.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    start: u64,
    filled: usize,
}

impl Window {
    /// Forgets what it holds, not its memory.
    pub(crate) fn reset(&mut self) {
        self.filled = 0;
    }

    /// The byte at `offset` is in it.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        offset.checked_sub(self.start).is_some_and(|skip| skip < self.filled as u64)
    }

    /// Bytes of the file from `offset` on, `length` of them unless the file ends before. When they are not in the
    /// window it is filled with at least `ahead` bytes.
    pub(crate) fn bytes(&mut self, file: &dyn File, offset: u64, length: usize, ahead: usize) -> io::Result<&[u8]> {
        let inside = |start: u64, filled: usize| {
            offset.checked_sub(start).is_some_and(|skip| skip + length as u64 <= filled as u64)
        };
        if !inside(self.start, self.filled) {
            let wanted = length.max(ahead);
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted, 0);
            }
            self.filled = 0;
            self.start = offset;
            let into = self.bytes.get_mut(..wanted).unwrap_or_default();
            self.filled = file.read_at(into, offset)?;
        }
        let skip = (offset - self.start) as usize;
        let end = self.filled.min(skip + length);
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }

    /// The sound frame at `offset`, which must end before `limit`.
    pub(crate) fn frame(
        &mut self,
        file: &dyn File,
        offset: u64,
        limit: u64,
        seed: u32,
        ahead: usize,
    ) -> io::Result<Option<Frame<'_>>> {
        let left = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        if left < HEADER {
            return Ok(None);
        }
        let ahead = ahead.min(left);
        let Some(head) = frame::peek(self.bytes(file, offset, HEADER, ahead)?) else { return Ok(None) };
        // The length is not to be trusted before the checksum has been seen: a wild one ends here.
        if head.length > left - HEADER {
            return Ok(None);
        }
        Ok(frame::parse(self.bytes(file, offset, HEADER + head.length, ahead)?, seed))
    }
}

//! Reading messages by position: from memory while they are unsynced, else from their segment in large pieces.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use portolan_core::message::Message;
use portolan_core::store::{Position, StoreError};

use crate::encode::{self, Enqueued, Stored};
use crate::filesystem::File;
use crate::journal::Shared;
use crate::journal::buffer::Chunk;
use crate::journal::frame::{self, Frame};
use crate::journal::segment::{self, Class, offset_of};
use crate::journal::window::{AHEAD, Window};

/// Segments kept open for reading.
const OPEN: usize = 128;
/// Windows kept for the next reader.
const WINDOWS: usize = 2;
/// Bytes between two records worth reading rather than seeking over.
const SEEK: u64 = 64 << 10;

/// What readers share.
#[derive(Default)]
pub(crate) struct Readers {
    open: Mutex<HashMap<u32, Arc<dyn File>>>,
    windows: Mutex<Vec<Window>>,
}

/// Where a record's content is.
enum Found {
    Message(Message),
    Elsewhere(Position),
}

/// Keeps a window, and the file that it shows.
struct View {
    window: Window,
    file: Option<(u32, Arc<dyn File>)>,
    /// Bytes of the file.
    length: u64,
}

impl Shared {
    /// See [`Journal::read`](portolan_core::store::Journal::read).
    pub(crate) fn read(&self, positions: &[Position], each: &mut dyn FnMut(usize, Result<Message, StoreError>)) {
        let take = || Window::default();
        let mut windows = self.readers.windows.lock();
        let near = windows.pop().unwrap_or_else(take);
        let far = windows.pop().unwrap_or_else(take);
        drop(windows);
        let mut near = View { window: near, file: None, length: 0 };
        let mut far = View { window: far, file: None, length: 0 };
        for (place, position) in positions.iter().enumerate() {
            let rest = positions.get(place..).unwrap_or_default();
            let message = match self.find(&mut near, *position, rest) {
                Ok(Found::Message(message)) => Ok(message),
                Ok(Found::Elsewhere(content)) => match self.find(&mut far, content, &[content]) {
                    Ok(Found::Message(message)) => {
                        message.set_stored(content);
                        Ok(message)
                    }
                    Ok(Found::Elsewhere(_)) => Err(StoreError::Missing(content)),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            each(place, message);
        }
        let mut windows = self.readers.windows.lock();
        for mut view in [far, near] {
            if windows.len() < WINDOWS {
                view.window.reset();
                windows.push(view.window);
            }
        }
    }

    fn find(&self, view: &mut View, position: Position, rest: &[Position]) -> Result<Found, StoreError> {
        let seed = frame::seed(position.segment());
        // What has been written is read without the journal's lock.
        if position.number() >= self.written.load(Ordering::Acquire)
            && let Some(found) = self.find_unsynced(position, seed)
        {
            return found;
        }
        let offset = u64::from(offset_of(position));
        let file = view.open(self, position)?;
        let failed = |error| self.io("cannot read", position.segment(), error);
        // A window that was filled while its end was still being written shows what was there before.
        for _ in 0..2 {
            let ahead = if view.window.covers(offset) { 0 } else { ahead(rest) };
            if let Some(frame) = view.window.frame(&*file, offset, view.length, seed, ahead).map_err(failed)? {
                return content(position, &frame);
            }
            view.window.reset();
        }
        Err(self.unreadable(position))
    }

    /// Shows `each` the frame at `position`.
    pub(crate) fn with_frame(&self, position: Position, each: &mut dyn FnMut(&Frame<'_>)) -> Result<(), StoreError> {
        self.sync_all()?;
        let number = position.segment();
        let failed = |error| self.io("cannot read", number, error);
        let file = self.open_segment(number).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let offset = u64::from(offset_of(position));
        let mut window = Window::default();
        let seed = frame::seed(number);
        match window.frame(&*file, offset, length, seed, Class::of_position(position).limit()).map_err(failed)? {
            Some(frame) => {
                each(&frame);
                Ok(())
            }
            None => Err(self.unreadable(position)),
        }
    }

    /// The segment is gone.
    pub(crate) fn forget_file(&self, segment: u32) {
        self.readers.open.lock().remove(&segment);
    }

    fn find_unsynced(&self, position: Position, seed: u32) -> Option<Result<Found, StoreError>> {
        let state = self.state.lock();
        let flying = state.in_flight.iter().find(|chunk| holds(chunk, position)).map(Arc::clone);
        if let Some(chunk) = flying {
            drop(state);
            return in_chunk(&chunk, position, seed);
        }
        let waiting = state.full.iter().chain([&state.chunk]).find(|chunk| holds(chunk, position))?;
        in_chunk(waiting, position, seed)
    }

    fn unreadable(&self, position: Position) -> StoreError {
        let offset = offset_of(position);
        let state = self.state.lock();
        match state.table.get(position.segment()) {
            Some(segment) if u64::from(offset) < segment.length => StoreError::Damaged {
                file: segment::path(&self.folder, position.segment()),
                offset: u64::from(offset),
                what: "the record fails its checksum: restore the file from a backup".into(),
            },
            _ => StoreError::Missing(position),
        }
    }

    /// The file of a segment, opened once.
    pub(crate) fn open_segment(&self, number: u32) -> io::Result<Arc<dyn File>> {
        let mut open = self.readers.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        if open.len() >= OPEN {
            let oldest = open.keys().copied().min();
            oldest.and_then(|oldest| open.remove(&oldest));
        }
        let file = self.options.files.open(&segment::path(&self.folder, number))?;
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

impl View {
    fn open(&mut self, shared: &Shared, position: Position) -> Result<Arc<dyn File>, StoreError> {
        let number = position.segment();
        if let Some((open, file)) = &self.file
            && *open == number
        {
            return Ok(Arc::clone(file));
        }
        let file = shared.open_segment(number).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing(position),
            _ => shared.io("cannot open", number, error),
        })?;
        self.window.reset();
        self.length = file.length().map_err(|error| shared.io("cannot read", number, error))?;
        self.file = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}

/// How much to read at the first of `positions` so that those that lie close behind come with it.
fn ahead(positions: &[Position]) -> usize {
    let Some(first) = positions.first() else { return 0 };
    let start = u64::from(offset_of(*first));
    let mut end = start + Class::of_position(*first).limit() as u64;
    // Looking at a sample is enough: positions rise, and the window is limited.
    for position in positions.iter().skip(1).step_by(16).chain(positions.get(1)) {
        let offset = u64::from(offset_of(*position));
        if position.segment() != first.segment() || offset < start || offset > start + AHEAD as u64 {
            break;
        }
        if offset > end + SEEK * 16 {
            break;
        }
        end = end.max(offset + Class::of_position(*position).limit() as u64);
    }
    ((end - start) as usize).min(AHEAD)
}

fn holds(chunk: &Chunk, position: Position) -> bool {
    let offset = offset_of(position);
    chunk.segment == position.segment()
        && offset.checked_sub(chunk.start).is_some_and(|skip| (skip as usize) < chunk.bytes.len())
}

fn in_chunk(chunk: &Chunk, position: Position, seed: u32) -> Option<Result<Found, StoreError>> {
    let skip = offset_of(position).checked_sub(chunk.start)? as usize;
    let frame = chunk.bytes.get(skip..).and_then(|bytes| frame::parse(bytes, seed));
    Some(frame.map_or(Err(StoreError::Missing(position)), |frame| content(position, &frame)))
}

fn content(position: Position, frame: &Frame<'_>) -> Result<Found, StoreError> {
    match encode::decode(frame.head.kind, frame.payload) {
        Ok(Stored::Enqueued(enqueued)) => Ok(Found::Message(stored_message(position, &enqueued))),
        Ok(Stored::Referred { content, .. }) => Ok(Found::Elsewhere(content)),
        _ => Err(StoreError::Missing(position)),
    }
}

/// The message of a record, remembering that its content is stored already.
pub(crate) fn stored_message(position: Position, enqueued: &Enqueued<'_>) -> Message {
    let message = enqueued.message();
    message.set_stored(position);
    message
}

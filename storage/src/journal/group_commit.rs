//! The journal's thread: writes and syncs what has gathered, tells who waits, and takes what came meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;
use portolan_core::store::{StoreError, Waiter};

use crate::filesystem::{BLOCK, File};
use crate::journal::Shared;
use crate::journal::buffer::{Chunk, Sleep};
use crate::journal::footer::TRAILER;
use crate::journal::frame;

/// Runs until the store is closed or fails.
pub(crate) fn run(shared: &Shared) {
    let mut writer = Writer { shared, file: None };
    let mut due: Vec<Arc<dyn Waiter>> = Vec::new();
    while let Some(mut chunk) = wait_for_work(shared) {
        loop {
            if let Err(error) = writer.commit(&chunk) {
                shared.fail(&error.to_string());
                return;
            }
            let last = chunk.last;
            let next = shared.committed(chunk, &mut due);
            for waiter in due.drain(..) {
                waiter.durable(last);
            }
            match next {
                Some(more) => chunk = more,
                None => break,
            }
        }
    }
}

/// Sleeps until something is due, and takes it.
fn wait_for_work(shared: &Shared) -> Option<Arc<Chunk>> {
    let mut state = shared.state.lock();
    let mut deadline = Instant::now() + shared.options.write_after;
    loop {
        let idle = state.is_idle();
        let due = state.urgent || !state.full.is_empty() || state.unsynced >= state.limits.write || state.closing;
        if !idle && (due || Instant::now() >= deadline) {
            // A unit that is being appended is waited for, so that it is not cut in two. Who begins one holds no lock.
            let at_once = shared.units.try_write();
            let _cut = at_once.unwrap_or_else(|| MutexGuard::unlocked(&mut state, || shared.units.write()));
            state.take();
            state.sleep = Sleep::Awake;
            return state.in_flight.front().cloned();
        }
        if idle {
            state.urgent = false;
            if state.closing {
                return None;
            }
        }
        if idle && Instant::now() >= deadline {
            state.sleep = Sleep::Deep;
            shared.work.wait(&mut state);
            deadline = Instant::now() + shared.options.write_after;
        } else {
            // While records come in, looking again by itself costs less than being woken for the first of them.
            state.sleep = Sleep::Light;
            if shared.work.wait_until(&mut state, deadline).timed_out() && state.is_idle() {
                continue;
            }
        }
    }
}

impl Shared {
    /// The chunk is on stable storage. Collects who waited for it and returns the next chunk in flight.
    fn committed(&self, chunk: Arc<Chunk>, due: &mut Vec<Arc<dyn Waiter>>) -> Option<Arc<Chunk>> {
        let end = u64::from(chunk.segment) << 32 | (u64::from(chunk.start) + chunk.bytes.len() as u64);
        self.written.store(end, Ordering::Release);
        if chunk.ends_group {
            self.durable.store(chunk.last, Ordering::Release);
        }
        // Its memory is used again for the records to come, when nobody reads from it.
        drop(chunk);
        let mut state = self.state.lock();
        state.done(due);
        if state.synced_watchers > 0 {
            self.synced.notify_all();
        }
        state.in_flight.front().cloned()
    }

    /// Nothing will be confirmed any more.
    pub(crate) fn fail(&self, reason: &str) {
        tracing::error!(reason, "the journal failed: nothing more will be confirmed");
        let mut state = self.state.lock();
        state.failed = Some(reason.into());
        state.sleep = Sleep::Awake;
        let waiters = std::mem::take(&mut state.waiters);
        self.synced.notify_all();
        drop(state);
        for (_, waiter) in waiters {
            waiter.failed();
        }
    }
}

/// Writes the chunk's bytes. Where they end in a block that they are the first to write to, that block is made all
/// zeros before: a cache that does not know the block would have to read it from the disk to change a part of it.
fn write(file: &dyn File, chunk: &Chunk) -> io::Result<()> {
    const BLANK: [u8; BLOCK] = [0; BLOCK];
    let start = u64::from(chunk.start);
    let end = start + chunk.bytes.len() as u64;
    let last = end / BLOCK as u64 * BLOCK as u64;
    // The first block holds the header, without which a recovery would take the segment for a lost one.
    if last > 0 && last >= start && last < end && last + BLOCK as u64 <= chunk.length {
        file.write_at(&BLANK, last)?;
    }
    file.write_at(&chunk.bytes, start)
}

struct Writer<'s> {
    shared: &'s Shared,
    file: Option<(u32, Arc<dyn File>)>,
}

impl Writer<'_> {
    /// Writes and syncs one chunk. An error is final: what is on disk is unknown from then on, and a second sync
    /// that succeeds would not prove that the first one's bytes are there.
    fn commit(&mut self, chunk: &Chunk) -> Result<(), StoreError> {
        let file = self.file_of(chunk)?;
        let shared = self.shared;
        let failed = |what| move |error| shared.io(what, chunk.segment, error);
        if !chunk.bytes.is_empty() {
            let end = u64::from(chunk.start) + chunk.bytes.len() as u64;
            shared.segments.admit(shared, chunk, &*file, end)?;
            write(&*file, chunk).map_err(failed("cannot write"))?;
        }
        let Some(footer) = &chunk.footer else {
            file.sync().map_err(failed("cannot sync"))?;
            shared.segments.prepare_ahead(shared);
            return Ok(());
        };
        shared.segments.finish(shared, chunk, &*file, footer)?;
        // A sealed segment without a successor would look like a lost one to a recovery.
        let next = self.shared.segments.obtain(self.shared, chunk.segment + 1)?;
        let seed = frame::seed(chunk.segment);
        file.write_at(&footer.frame(seed), u64::from(footer.end)).map_err(failed("cannot write"))?;
        file.write_at(&footer.trailer(seed), chunk.length - TRAILER as u64).map_err(failed("cannot write"))?;
        file.sync().map_err(failed("cannot sync"))?;
        shared.segments.give_back_gap(shared, chunk, &*file, footer);
        self.file = Some((chunk.segment + 1, next));
        Ok(())
    }

    fn file_of(&mut self, chunk: &Chunk) -> Result<Arc<dyn File>, StoreError> {
        let failed = |error| self.shared.io("cannot open", chunk.segment, error);
        let file = match &self.file {
            Some((number, file)) if *number == chunk.segment => Arc::clone(file),
            // The segment that an earlier run wrote to last.
            _ if chunk.start > 0 => self.shared.open_segment(chunk.segment).map_err(failed)?,
            _ => self.shared.segments.obtain(self.shared, chunk.segment)?,
        };
        if chunk.start == 0 && file.length().map_err(failed)? < chunk.length {
            // A record larger than a segment has one of its own.
            self.shared.segments.lengthen(self.shared, chunk.segment, &*file, chunk.length)?;
        }
        self.file = Some((chunk.segment, Arc::clone(&file)));
        Ok(file)
    }
}

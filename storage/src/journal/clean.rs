//! Gives disk space back: dead segments at the oldest end at once, mostly dead ones after moving what is live.
//!
//! Only ever the oldest segment goes. So whatever settles a message is never discarded before the message, and what
//! is left is always a suffix of one sequence, as a Raft log must be.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use portolan_core::message::Message;
use portolan_core::store::{Index, Owner, Position, QueueId, Relocation, StoreError};

use crate::encode::{self, Stored};
use crate::filesystem::File;
use crate::journal::Shared;
use crate::journal::extent;
use crate::journal::footer::{self, Entry, Footer, Mark};
use crate::journal::frame;
use crate::journal::segment::{self, Class, Segment, offset_of};
use crate::journal::window::{AHEAD, Window};

/// How often to look whether cleaning pays, beside being told of dead segments.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages handed to the owner at once, by number and by bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// After a cleaning that failed.
const PAUSE: Duration = Duration::from_secs(10);

thread_local! {
    static CLEANING: Cell<bool> = const { Cell::new(false) };
}

/// This thread moves records so that space becomes free: lack of space is no reason to refuse it.
pub(crate) fn is_cleaning() -> bool {
    CLEANING.get()
}

#[derive(Default)]
struct Orders {
    owner: Option<Arc<dyn Owner>>,
    wanted: bool,
    closing: bool,
}

/// Tells the cleaning thread what to do.
#[derive(Default)]
pub(crate) struct Cleaner {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// Held while segments are discarded, by whoever does it.
    pub(crate) discarding: Mutex<()>,
}

impl Cleaner {
    pub(crate) fn set_owner(&self, owner: Arc<dyn Owner>) {
        self.orders.lock().owner = Some(owner);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        let mut orders = self.orders.lock();
        if !orders.wanted {
            orders.wanted = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn close(&self) {
        let mut orders = self.orders.lock();
        orders.closing = true;
        orders.owner = None;
        self.changed.notify_all();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.orders.lock().closing
    }

    /// Sleeps unless the store closes meanwhile.
    fn pause(&self, time: Duration) {
        let mut orders = self.orders.lock();
        if !orders.closing {
            self.changed.wait_for(&mut orders, time);
        }
    }
}

/// The cleaning thread.
pub(crate) fn run(shared: &Shared) {
    CLEANING.set(true);
    let mut work = Work { shared, restated: 0, pause_until: Instant::now(), course: Course::default() };
    loop {
        let mut orders = shared.cleaner.orders.lock();
        if !orders.wanted && !orders.closing {
            shared.cleaner.changed.wait_for(&mut orders, AGAIN);
        }
        if orders.closing {
            return;
        }
        orders.wanted = false;
        let owner = orders.owner.clone();
        drop(orders);
        if let Err(error) = work.round(owner.as_deref()) {
            tracing::warn!(%error, "cannot give disk space back, trying again later");
            work.pause_until = Instant::now() + PAUSE;
        }
    }
}

struct Work<'s> {
    shared: &'s Shared,
    /// Facts in segments below this one have all been appended anew.
    restated: u32,
    pause_until: Instant,
    course: Course,
}

/// Once through the journal. The next one starts only after clients have left enough dead: whatever else the figures
/// say, what is copied is then at most some times that much.
#[derive(Clone, Copy, Default)]
struct Course {
    /// Segments after this one were begun since, and hold what was copied.
    last: u32,
    /// Bytes that clients had written, and those that were live, when it began.
    written: u64,
    live: u64,
}

impl Course {
    /// Bytes that have died since it began.
    fn died(&self, written: u64, live: u64) -> u64 {
        (written + self.live).saturating_sub(self.written + live)
    }
}

impl Work<'_> {
    fn round(&mut self, owner: Option<&dyn Owner>) -> Result<(), StoreError> {
        self.discard_dead()?;
        let Some(owner) = owner else { return Ok(()) };
        while Instant::now() >= self.pause_until && !self.shared.cleaner.is_closing() {
            let Some(oldest) = self.worth_cleaning()? else { return Ok(()) };
            self.clean(&oldest, owner)?;
            self.discard_dead()?;
            let state = self.shared.state.lock();
            if state.table.oldest().is_some_and(|segment| segment.number == oldest.number) {
                drop(state);
                return Err(StoreError::Failed("a segment is still referred to after cleaning".into()));
            }
        }
        Ok(())
    }

    /// Discards what is dead at the oldest end.
    fn discard_dead(&self) -> Result<(), StoreError> {
        let dead = |segment: &Segment| segment.is_dead() && (segment.facts == 0 || segment.number < self.restated);
        self.shared.discard_while(&dead)
    }

    /// The oldest segment, when the disk holds too much in comparison with what is live.
    fn worth_cleaning(&mut self) -> Result<Option<Segment>, StoreError> {
        let shared = self.shared;
        let kept = extent::keep(shared.options.segment_bytes);
        let slack = shared.segments.slack(&shared.options);
        let may_end_early = shared.segments.may_end_early();
        let mut state = shared.state.lock();
        let live = state.table.live_bytes() + state.facts.bytes;
        // Nobody is in the way of a thorough cleaning of a quiet node.
        let share = if slack > kept { live / 2 } else { live / 4 };
        if state.table.used_bytes(state.offset) <= live + share + slack {
            return Ok(None);
        }
        let written = state.appended - state.copied;
        let Some(oldest) = state.table.oldest().cloned() else { return Ok(None) };
        if oldest.number > self.course.last {
            if self.course.last > 0 && self.course.died(written, live) < (live / 8).max(kept / 2) {
                return Ok(None);
            }
            self.course = Course { last: state.table.active().map_or(0, |active| active.number), written, live };
        }
        if state.table.len() == 1 && may_end_early {
            state.end_segment()?;
            drop(state);
            shared.sync_all()?;
        }
        // What is still in memory cannot be read from its file.
        Ok((oldest.number < shared.written_segment()).then_some(oldest))
    }

    /// Has everything that is still needed of the oldest segment appended anew.
    fn clean(&mut self, oldest: &Segment, owner: &dyn Owner) -> Result<(), StoreError> {
        let shared = self.shared;
        let number = oldest.number;
        // From here on nothing new can refer to it.
        shared.state.lock().leaving = number;
        tracing::debug!(segment = number, "cleaning");
        let following = shared.state.lock().table.get(number + 1).map_or(0, |next| next.first);
        let moving = Moving::new(shared, oldest, following, owner)?;
        let pinned = shared.state.lock().table.referring_to(number);
        moving.run(pinned)?;
        if oldest.facts > 0 && number >= self.restated {
            let from = shared.state.lock().table.active().map_or(0, |active| active.number);
            owner.restate()?;
            self.restated = from;
        }
        shared.sync_all()?;
        shared.state.lock().table.forget(number);
        Ok(())
    }
}

/// One cleaning of the oldest segment.
struct Moving<'s> {
    shared: &'s Shared,
    owner: &'s dyn Owner,
    number: u32,
    length: u64,
    file: Arc<dyn File>,
    footer: Footer,
    window: Window,
    batch: Vec<Relocation>,
    bytes: usize,
    started: Instant,
    read: u64,
}

impl<'s> Moving<'s> {
    fn new(shared: &'s Shared, oldest: &Segment, following: Index, owner: &'s dyn Owner) -> Result<Self, StoreError> {
        let number = oldest.number;
        let failed = |error| shared.io("cannot read", number, error);
        let file = shared.open_segment(number).map_err(failed)?;
        let footer = shared.sealed_index(number, oldest.length, following)?;
        let window = Window::default();
        let (batch, bytes, read, started) = (Vec::new(), 0, 0, Instant::now());
        Ok(Self { shared, owner, number, length: oldest.length, file, footer, window, batch, bytes, started, read })
    }

    fn run(mut self, pinned: Vec<Position>) -> Result<(), StoreError> {
        let mut places = Vec::new();
        let entries = std::mem::take(&mut self.footer.entries);
        footer::visit(&entries, self.number, self.footer.first, &mut |_, entry| {
            if let Entry::Enqueued(it) = entry {
                places.extend(footer::position(self.number, &it).map(|position| (position, it.queue, it.seq)));
            }
        });
        drop(entries);
        for (position, queue, seq) in places {
            if !self.candidate(position)? {
                self.unreadable(position, queue, seq)?;
            }
        }
        for position in pinned {
            if self.shared.state.lock().table.refers(position) {
                self.referring(position)?;
            }
        }
        self.hand_over()
    }

    /// Nothing can be moved that cannot be read: who has the message learns it while the file is still there to be
    /// named.
    fn unreadable(&self, position: Position, queue: QueueId, seq: u64) -> Result<(), StoreError> {
        if let Some(name) = self.owner.lost(queue, seq, position)? {
            let file = segment::path(&self.shared.folder, position.segment());
            tracing::error!(
                file = %file.display(), offset = offset_of(position), queue = %name, seq,
                "a message is lost: its record fails its checksum, or that of the content that it shares does"
            );
        }
        // It holds the content no longer, whoever thinks so.
        if position.segment() != self.number {
            self.shared.state.lock().table.free_reference(position);
        }
        Ok(())
    }

    /// A record of the segment itself; false when it cannot be read.
    fn candidate(&mut self, position: Position) -> Result<bool, StoreError> {
        let offset = u64::from(offset_of(position));
        let seed = frame::seed(self.number);
        let failed = |error| self.shared.io("cannot read", self.number, error);
        let frame = self.window.frame(&*self.file, offset, self.length, seed, AHEAD).map_err(failed)?;
        let Some(frame) = frame else { return Ok(false) };
        self.read += frame.head.size() as u64;
        match encode::decode(frame.head.kind, frame.payload) {
            Ok(Stored::Enqueued(it)) => {
                let (queue, seq, expires_at, message) = (it.queue, it.seq, it.expires_at, it.message());
                self.add(queue, seq, expires_at, position, position, message)?;
            }
            Ok(Stored::Referred { queue, seq, expires_at, content }) => {
                self.referred(queue, seq, expires_at, position, content)?;
            }
            _ => {}
        }
        Ok(true)
    }

    /// A record of a later segment whose content is in this one.
    fn referring(&mut self, position: Position) -> Result<(), StoreError> {
        let mut found = None;
        let mut from = position;
        let read = self.shared.with_frame(position, &mut |frame| {
            let class = Class::of(frame.head.size());
            from = Position::new(position.segment(), offset_of(position) | u32::from(class.number())).unwrap_or(from);
            if let Ok(Stored::Referred { queue, seq, expires_at, content }) =
                encode::decode(frame.head.kind, frame.payload)
            {
                found = Some((queue, seq, expires_at, content));
            }
        });
        match (read, found) {
            (Err(StoreError::Damaged { .. }), _) => self.unreadable_reference(position),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Ok(()),
            (Ok(()), Some((queue, seq, expires_at, content))) => self.referred(queue, seq, expires_at, from, content),
        }
    }

    /// Moves a message whose content is in another record.
    fn referred(
        &mut self,
        queue: QueueId,
        seq: u64,
        expires_at: u64,
        from: Position,
        content: Position,
    ) -> Result<(), StoreError> {
        let mut message = Err(StoreError::Missing(content));
        self.shared.read(&[content], &mut |_, read| message = read);
        match message {
            Ok(message) => self.add(queue, seq, expires_at, from, content, message),
            Err(StoreError::Damaged { .. } | StoreError::Missing(_)) => self.unreadable(from, queue, seq),
            Err(error) => Err(error),
        }
    }

    /// A record that refers to this segment cannot be read itself: its own segment's index says whose it is.
    fn unreadable_reference(&self, position: Position) -> Result<(), StoreError> {
        let mut found = None;
        self.shared.visit_segment(position.segment(), &mut |_, entry| {
            if let Entry::Enqueued(it) = entry
                && it.offset == offset_of(position)
            {
                found = footer::position(position.segment(), &it).map(|from| (from, it.queue, it.seq));
            }
        })?;
        match found {
            Some((from, queue, seq)) => self.unreadable(from, queue, seq),
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        queue: QueueId,
        seq: u64,
        expires_at: u64,
        from: Position,
        content_at: Position,
        message: Message,
    ) -> Result<(), StoreError> {
        self.bytes += message.footprint();
        self.batch.push(Relocation { queue, seq, from, content_at, expires_at, message });
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), StoreError> {
        if self.shared.cleaner.is_closing() {
            return Err(StoreError::Failed("the store is being closed".into()));
        }
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let moved: Vec<_> = batch.iter().map(|relocation| relocation.from).collect();
        self.owner.relocate(batch)?;
        let mut state = self.shared.state.lock();
        for position in moved.into_iter().filter(|position| position.segment() != self.number) {
            state.table.free_reference(position);
        }
        drop(state);
        self.slow_down();
        Ok(())
    }

    /// Keeps to the rate, so that cleaning never stands in the way of work.
    fn slow_down(&self) {
        let rate = self.shared.options.clean_bytes_per_second.max(1);
        let due = Duration::from_micros(self.read.saturating_mul(1_000_000) / rate);
        if let Some(early) = due.checked_sub(self.started.elapsed()).filter(|early| early.as_millis() > 1) {
            self.shared.cleaner.pause(early.min(AGAIN));
        }
    }
}

impl Shared {
    /// Discards segments from the oldest on as long as `dead` says so, never one that is not on stable storage whole.
    pub(crate) fn discard_while(&self, dead: &dyn Fn(&Segment) -> bool) -> Result<(), StoreError> {
        let _discarding = self.cleaner.discarding.lock();
        let synced = self.written_segment();
        let before = {
            let state = self.state.lock();
            let most = state.table.len().saturating_sub(1);
            let gone = state.table.iter().take(most).take_while(|segment| segment.number < synced && dead(segment));
            let Some(last) = gone.last() else { return Ok(()) };
            last.number + 1
        };
        {
            let mut state = self.state.lock();
            // Nothing can refer to them between this look and the end.
            state.leaving = state.leaving.max(before - 1);
            if !state.table.iter().take_while(|segment| segment.number < before).all(dead) {
                return Ok(());
            }
            state.append_mark(Mark::Discarded(before))?;
        }
        // Files must not go before the journal says that they may: they would look lost.
        self.sync_all()?;
        loop {
            let mut state = self.state.lock();
            if state.table.oldest().is_none_or(|segment| segment.number >= before) {
                return Ok(());
            }
            let gone = state.table.discard_oldest();
            drop(state);
            let Some(gone) = gone else { return Ok(()) };
            self.forget_file(gone.number);
            tracing::debug!(segment = gone.number, "discarded");
            let recycled = self.segments.recycle(self, &gone);
            recycled.map_err(|error| self.io("cannot remove", gone.number, error))?;
        }
    }
}

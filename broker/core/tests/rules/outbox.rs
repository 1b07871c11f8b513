//! The outbox: what leaves when, what is held back, and when consumers pause.

use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_core::delivery::ConsumerRef;
use portolan_core::exchange::QueueTarget;
use portolan_core::outbox::{Chunk, Outbox, Sessions, Wire};
use portolan_core::store::{Index, Journal, QueueId, Record};

use crate::ledger::Ledger;

/// A wire that takes what the test allows.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    written: Vec<u8>,
    /// Bytes that it still takes, `None` for all.
    takes: Option<usize>,
    broken: bool,
    wakes: usize,
}

impl Line {
    fn written(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().written)).unwrap()
    }

    fn take(&self, bytes: Option<usize>) {
        self.0.lock().takes = bytes;
    }

    fn wakes(&self) -> usize {
        std::mem::take(&mut self.0.lock().wakes)
    }
}

impl Wire for Line {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        let take = state.takes.unwrap_or(all.len()).min(all.len());
        if take == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.takes = state.takes.map(|left| left - take);
        state.written.extend_from_slice(&all[..take]);
        Ok(take)
    }

    fn wake(&self) {
        self.0.lock().wakes += 1;
    }
}

/// Confirms are their own numbers.
#[derive(Default)]
struct Confirms(Vec<Index>);

impl Sessions for Confirms {
    fn durable(&mut self, durable: Index, out: &mut Chunk) {
        for index in self.0.extract_if(.., |index| *index <= durable) {
            out.bytes.extend_from_slice(format!("[{index}]").as_bytes());
        }
    }

    fn awaited(&self) -> Option<Index> {
        self.0.first().copied()
    }
}

struct Rig {
    outbox: Arc<Outbox<Confirms>>,
    journal: Arc<Ledger>,
    line: Line,
}

fn rig() -> Rig {
    let (journal, line) = (Arc::<Ledger>::default(), Line::default());
    journal.by_hand();
    let outbox = Outbox::new(Confirms::default(), Box::new(line.clone()), Arc::clone(&journal) as _, 10, 4);
    Rig { outbox, journal, line }
}

impl Rig {
    fn record(&self) -> Index {
        self.journal.append(&Record::Fact { key: b"k", value: None }).unwrap().index
    }

    fn say(&self, text: &str) {
        self.outbox.lock().out().bytes.extend_from_slice(text.as_bytes());
        self.outbox.flush();
        self.outbox.await_durable();
    }

    fn hold(&self, index: Index) {
        self.outbox.lock().hold(index);
    }
}

fn consumer(key: u32) -> ConsumerRef {
    ConsumerRef { queue: QueueTarget { id: QueueId(1), shard: 0, slot: 0 }, key }
}

#[test]
fn what_follows_a_change_waits_until_the_change_is_durable() {
    let rig = rig();
    rig.say("a");
    let index = rig.record();
    rig.hold(index);
    rig.say("b");
    rig.say("c");
    assert_eq!(rig.line.written(), "a");
    rig.journal.sync();
    assert_eq!(rig.line.written(), "bc");
    rig.say("d");
    assert_eq!(rig.line.written(), "d");
}

#[test]
fn a_second_change_holds_the_rest_longer() {
    let rig = rig();
    rig.hold(rig.record());
    rig.say("a");
    rig.hold(rig.record());
    rig.say("b");
    assert_eq!(rig.line.written(), "");
    rig.journal.sync();
    assert_eq!(rig.line.written(), "ab");
}

#[test]
fn a_change_that_is_durable_already_holds_nothing_for_long() {
    let rig = rig();
    let index = rig.record();
    rig.journal.sync();
    rig.hold(index);
    rig.say("a");
    assert_eq!(rig.line.written(), "a");
}

#[test]
fn confirms_leave_in_order_and_only_when_durable() {
    let rig = rig();
    let first = rig.record();
    rig.outbox.lock().sessions.0.push(first);
    rig.outbox.await_durable();
    let second = rig.record();
    rig.outbox.lock().sessions.0.push(second);
    rig.say("x");
    assert_eq!(rig.line.written(), "x");
    rig.journal.sync();
    assert_eq!(rig.line.written(), "[1][2]");
    let third = rig.record();
    rig.outbox.lock().sessions.0.push(third);
    rig.outbox.await_durable();
    assert_eq!(rig.line.written(), "");
    rig.journal.sync();
    assert_eq!(rig.line.written(), "[3]");
}

#[test]
fn confirms_do_not_overtake_what_is_held() {
    let rig = rig();
    let change = rig.record();
    let publish = rig.record();
    rig.hold(change);
    rig.outbox.lock().sessions.0.push(publish);
    rig.say("ok");
    rig.journal.sync();
    assert_eq!(rig.line.written(), "ok[2]");
}

#[test]
fn a_slow_wire_gets_the_rest_later_and_the_task_is_woken() {
    let rig = rig();
    rig.line.take(Some(3));
    rig.say("abcdef");
    assert_eq!((rig.line.written(), rig.line.wakes()), ("abc".into(), 1));
    assert!(!rig.outbox.is_lost());
    assert_eq!(rig.outbox.lock().bytes(), 3);
    rig.line.take(None);
    rig.say("gh");
    assert_eq!(rig.line.written(), "defgh");
    assert_eq!(rig.outbox.lock().bytes(), 0);
}

#[test]
fn paused_consumers_are_resumed_when_there_is_room_again() {
    let rig = rig();
    rig.line.take(Some(0));
    rig.say("0123456789");
    rig.outbox.lock().pause(consumer(1));
    rig.outbox.lock().pause(consumer(2));
    assert!(rig.outbox.take_paused().is_empty(), "no room yet");
    rig.line.wakes();
    rig.line.take(Some(9));
    rig.outbox.flush();
    assert_eq!(rig.outbox.take_paused(), [consumer(1), consumer(2)]);
    assert!(rig.outbox.take_paused().is_empty());
    rig.outbox.lock().pause(consumer(3));
    rig.line.take(None);
    rig.line.wakes();
    rig.outbox.flush();
    assert_eq!(rig.line.wakes(), 1, "the task must resume it");
}

#[test]
fn held_bytes_count_as_waiting() {
    let rig = rig();
    rig.hold(rig.record());
    rig.say("0123456789");
    rig.outbox.lock().pause(consumer(1));
    assert_eq!(rig.outbox.lock().bytes(), 10);
    assert!(rig.outbox.take_paused().is_empty());
    rig.journal.sync();
    assert_eq!(rig.outbox.take_paused(), [consumer(1)]);
}

#[test]
fn a_broken_wire_is_noticed() {
    let rig = rig();
    rig.line.0.lock().broken = true;
    rig.say("a");
    assert!(rig.outbox.is_lost());
    assert_eq!(rig.line.wakes(), 1);
}

#[test]
fn a_closed_outbox_forgets_and_takes_nothing() {
    let rig = rig();
    rig.line.take(Some(0));
    rig.say("abc");
    rig.hold(rig.record());
    rig.say("def");
    rig.outbox.close();
    assert!(rig.outbox.lock().is_closed());
    rig.line.take(None);
    rig.outbox.flush();
    rig.journal.sync();
    assert_eq!(rig.line.written(), "");
    assert_eq!(rig.outbox.lock().bytes(), 0);
}

#[test]
fn the_first_to_mark_flushes_for_all() {
    let rig = rig();
    assert!(rig.outbox.mark() && !rig.outbox.mark());
    rig.outbox.flush();
    assert!(rig.outbox.mark());
}

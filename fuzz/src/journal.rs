//! A journal in memory whose files the fuzzer changes before it is opened again.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::store::{Content, Journal, QueueId, Record, SeqRange};
use portolan_storage::encode::VERSION;
use portolan_storage::faulty::FaultyFs;
use portolan_storage::journal::frame;
use portolan_storage::{OnDamage, Options, Store};

use crate::feed::Feed;

fn options(files: &FaultyFs, on_damage: OnDamage) -> Options {
    Options {
        segment_bytes: 8 << 10,
        on_damage,
        free_floor: 0,
        checkpoint: false,
        write_after: Duration::from_secs(1),
        files: Arc::new(files.clone()),
        ..Options::new("/data")
    }
}

fn message(seq: u64) -> Message {
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin: Origin::Amqp091,
        priority: 0,
        persistent: true,
        ttl: None,
    };
    Message::assemble(facts, b"x", b"key", &[0x10, 0, 2], &[seq as u8; 100])
}

/// A journal of a few segments with every kind of record, left without a goodbye.
fn base() -> &'static (FaultyFs, Vec<PathBuf>) {
    static BASE: OnceLock<(FaultyFs, Vec<PathBuf>)> = OnceLock::new();
    BASE.get_or_init(|| {
        let files = FaultyFs::new();
        let (store, _) = Store::open(&options(&files, OnDamage::Refuse)).expect("opens");
        for seq in 1..120 {
            let message = message(seq);
            let enqueue = |queue, content| {
                let record = Record::Enqueued { queue: QueueId(queue), seq, expires_at: seq % 2, content };
                store.append(&record).expect("appends").position
            };
            let first = enqueue(1, Content::Inline(&message));
            enqueue(2, Content::At(first));
            let ranges = [SeqRange { first: seq, count: 1 }];
            if seq % 3 == 0 {
                let record = Record::Settled { queue: QueueId(1), ranges: &ranges, freed: &[first] };
                store.append(&record).expect("appends");
            }
            if seq % 10 == 0 {
                store.append(&Record::Redelivered { queue: QueueId(2), ranges: &ranges }).expect("appends");
                store.append(&Record::Returned { queue: QueueId(2), ranges: &ranges, times: 2 }).expect("appends");
                store.append(&Record::Fact { key: b"key", value: Some(b"value") }).expect("appends");
            }
        }
        store.close().expect("closes");
        let files = files.after_kill();
        let mut paths = files.paths();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        paths.sort();
        assert!(paths.len() > 2, "several segments");
        (files, paths)
    })
}

/// Segment number in a file's name.
fn number(path: &std::path::Path) -> u32 {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).unwrap_or_default()
}

/// A frame with a right checksum around any payload.
fn forged(seed: u32, index: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = (payload.len() as u32).to_le_bytes().to_vec();
    rest.extend(index.to_le_bytes());
    rest.extend([0; 6]);
    rest.extend([kind, VERSION]);
    rest.extend_from_slice(payload);
    let mut out = crc32c::crc32c_append(seed, &rest).to_le_bytes().to_vec();
    out.extend(rest);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

/// Changes bytes here and there, and puts forged records behind sound ones.
fn change(files: &FaultyFs, paths: &[PathBuf], feed: &mut Feed<'_>) {
    while !feed.is_empty() {
        let path = feed.pick(paths);
        let seed = frame::seed(number(&path));
        let (what, place) = (feed.byte(), usize::from(feed.word()));
        let edited = files.edit(&path, |bytes| match what % 4 {
            0 | 1 => {
                let sound: Vec<usize> = (0..bytes.len().saturating_sub(frame::HEADER))
                    .step_by(8)
                    .filter(|at| frame::parse(&bytes[*at..], seed).is_some())
                    .collect();
                let Some(&at) = sound.get(place % sound.len().max(1)) else { return };
                let index = frame::peek(&bytes[at..]).map_or(1, |head| head.index);
                let (kind, length) = (feed.byte() % 16, usize::from(feed.byte()));
                let frame =
                    forged(seed, index.wrapping_add_signed(i64::from(feed.byte() as i8)), kind, feed.bytes(length));
                let room = bytes.len() - at;
                bytes[at..at + frame.len().min(room)].copy_from_slice(&frame[..frame.len().min(room)]);
            }
            2 => {
                let count = usize::from(feed.byte() % 32);
                for (to, from) in bytes.iter_mut().skip(place).zip(feed.bytes(count)) {
                    *to = *from;
                }
            }
            _ => bytes.truncate(place),
        });
        drop(edited);
    }
}

/// Opens what the fuzzer made of a journal, as an operator would: as it is, then with repair; reads everything that
/// it says is there, and appends to it.
pub fn open_changed(input: &[u8]) {
    let (sound, paths) = base();
    let files = sound.after_kill();
    change(&files, paths, &mut Feed(input));
    for on_damage in [OnDamage::Refuse, OnDamage::Repair] {
        let files = files.after_kill();
        let Ok((store, recovered)) = Store::open(&options(&files, on_damage)) else { continue };
        for queue in recovered.queues.values() {
            let positions: Vec<_> = queue.entries.iter().map(|entry| entry.position).collect();
            let mut read = 0;
            store.read(&positions, &mut |_, _| read += 1);
            assert_eq!(read, positions.len());
        }
        drop(store.append(&Record::Fact { key: b"key", value: None }));
        drop(store.close());
    }
}

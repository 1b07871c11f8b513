//! Prints what the store costs on this machine: appends, group commit, confirm latency, reopening and draining.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::store::{Content, Index, Journal, Position, QueueId, Record, SeqRange, Waiter};
use portolan_storage::{MemoryJournal, Options, Store};

const MESSAGES: u64 = 1_000_000;

struct Tell(Sender<Index>);

impl Waiter for Tell {
    fn durable(&self, durable: Index) {
        let _ = self.0.send(durable);
    }

    fn failed(&self) {
        panic!("the journal failed");
    }
}

fn message(len: usize) -> Message {
    let facts = Facts {
        exchange: Span::default(),
        routing_key: Span::default(),
        properties: Span::default(),
        body: Span::default(),
        origin: Origin::Amqp091,
        priority: 0,
        persistent: true,
        ttl: None,
    };
    Message::assemble(facts, b"", b"bench", &[0x10, 0, 2], &vec![7; len])
}

fn enqueue(journal: &dyn Journal, seq: u64, message: &Message) -> (Index, Position) {
    let content = Content::Inline(message);
    loop {
        match journal.append(&Record::Enqueued { queue: QueueId(1), seq, expires_at: 0, content }) {
            Ok(appended) => return (appended.index, appended.position),
            Err(portolan_core::store::StoreError::Full) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn wait(journal: &dyn Journal, index: Index) {
    let (tell, told) = channel();
    journal.wait_for(index, Arc::new(Tell(tell)));
    told.recv().expect("told");
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[sorted.len() * percent / 100]
}

fn bare_sync(folder: &Path, bytes: usize) -> Vec<Duration> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(folder.join("bare")).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let bytes = vec![1; bytes];
    let mut times = Vec::new();
    for round in 0..2000 {
        let start = Instant::now();
        file.write_all_at(&bytes, round * bytes.len() as u64).unwrap();
        file.sync_data().unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    times
}

fn confirms(store: &dyn Journal, message: &Message, first: u64) -> (Vec<Duration>, Vec<Position>) {
    let mut times = Vec::new();
    let mut positions = Vec::new();
    for seq in 0..2000 {
        let start = Instant::now();
        let (index, position) = enqueue(store, first + seq, message);
        wait(store, index);
        times.push(start.elapsed());
        positions.push(position);
    }
    times.sort();
    (times, positions)
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = tempfile::tempdir_in(parent).unwrap();
    let message = message(1024);

    let memory = MemoryJournal::default();
    let start = Instant::now();
    for seq in 0..100_000 {
        enqueue(&memory, seq, &message);
    }
    println!("append 1 KiB, memory journal      {:>8.0} ns", start.elapsed().as_nanos() as f64 / 1e5);
    drop(memory);

    let mut options = Options::new(folder.path().join("data"));
    options.unsynced_bytes = 512 << 20;
    let start = Instant::now();
    let (store, _) = Store::open(&options).unwrap();
    println!("first open                        {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let bare = bare_sync(folder.path(), 1128);
    let (times, warm) = confirms(&*store, &message, 0);
    let bare_after = bare_sync(folder.path(), 1128);
    println!(
        "bare write+fdatasync p50          {:>8.1} µs (before), {:.1} µs (after)",
        percentile(&bare, 50).as_secs_f64() * 1e6,
        percentile(&bare_after, 50).as_secs_f64() * 1e6
    );
    println!(
        "confirm p50 / p99                 {:>8.1} µs / {:.1} µs",
        percentile(&times, 50).as_secs_f64() * 1e6,
        percentile(&times, 99).as_secs_f64() * 1e6
    );
    settle(&*store, 0, &warm);

    // Appends alone: few enough to stay in memory while the last sync runs.
    let mut best = f64::MAX;
    let mut seq = 10_000;
    let mut freed = Vec::new();
    for _ in 0..200 {
        wait(&*store, store.last());
        let start = Instant::now();
        for _ in 0..500 {
            freed.push(enqueue(&*store, seq, &message).1);
            seq += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 500.0);
    }
    println!("append 1 KiB, best of 200 × 500   {best:>8.0} ns");
    settle(&*store, 10_000, &freed);

    let first = seq;
    let start = Instant::now();
    let mut positions = Vec::with_capacity(MESSAGES as usize);
    let mut last = 0;
    for _ in 0..MESSAGES {
        if store.backlog() > 8 << 20 {
            wait(&*store, last);
        }
        let (index, position) = enqueue(&*store, seq, &message);
        last = index;
        seq += 1;
        positions.push(position);
    }
    wait(&*store, last);
    let took = start.elapsed().as_secs_f64();
    println!(
        "group commit, 1 KiB               {:>8.0} msg/s ({:.0} MB on disk)",
        MESSAGES as f64 / took,
        store.disk_bytes() as f64 / 1e6
    );

    drop(store);
    let before = rss_kib();
    let start = Instant::now();
    let (store, recovered) = Store::open(&options).unwrap();
    let took = start.elapsed();
    let entries = recovered.queues.values().map(|queue| queue.entries.len()).sum::<usize>();
    println!(
        "reopen {entries} unclean        {:>8.1} ms (RSS {} -> {} MiB)",
        took.as_secs_f64() * 1e3,
        before >> 10,
        rss_kib() >> 10
    );
    assert_eq!(entries, MESSAGES as usize);
    drop(recovered);
    store.close().unwrap();
    drop(store);
    let start = Instant::now();
    let (store, recovered) = Store::open(&options).unwrap();
    println!("reopen clean                      {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(recovered);

    let start = Instant::now();
    let mut bytes = 0;
    for some in positions.chunks(1000) {
        store.read(some, &mut |_, message| bytes += message.unwrap().body().len());
    }
    assert_eq!(bytes, 1024 * MESSAGES as usize);
    println!("drain 1 KiB, 1000 at a time       {:>8.0} msg/s", MESSAGES as f64 / start.elapsed().as_secs_f64());

    let start = Instant::now();
    for (at, some) in positions.chunks(100).enumerate() {
        settle(&*store, first + at as u64 * 100, some);
    }
    wait(&*store, store.last());
    println!("settle 100 at a time              {:>8.0} msg/s", MESSAGES as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    while store.disk_bytes() > 6 * options.segment_bytes && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!(
        "space back to {:>4} MB after       {:>8.0} ms",
        store.disk_bytes() / 1_000_000,
        start.elapsed().as_secs_f64() * 1e3
    );

    for queue in 0..50_000u32 {
        let key = format!("queue/vhost/name-of-a-queue-{queue}");
        let value = vec![9; 120];
        store.append(&Record::Fact { key: key.as_bytes(), value: Some(&value) }).unwrap();
    }
    wait(&*store, store.last());
    store.close().unwrap();
    drop(store);
    let start = Instant::now();
    let (store, recovered) = Store::open(&options).unwrap();
    println!("reopen with {} facts           {:>8.1} ms", recovered.facts.len(), start.elapsed().as_secs_f64() * 1e3);
    drop(store);
    std::fs::remove_dir_all(options.folder.join("checkpoint")).unwrap();
    let start = Instant::now();
    let (_store, recovered) = Store::open(&options).unwrap();
    println!(
        "reopen, checkpoint removed        {:>8.1} ms ({} facts)",
        start.elapsed().as_secs_f64() * 1e3,
        recovered.facts.len()
    );
}

fn settle(journal: &dyn Journal, first: u64, freed: &[Position]) {
    let ranges = [SeqRange { first, count: freed.len() as u64 }];
    journal.append(&Record::Settled { queue: QueueId(1), ranges: &ranges, freed }).unwrap();
}

//! The data folder on real files: format version, lock, and a checkpoint that may be lost, damaged or ahead.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;

use portolan_core::store::{Journal, StoreError};
use portolan_storage::Options;
use support::*;

#[test]
fn a_second_broker_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = on_disk(folder.path());
    let (store, _) = open(&options);
    match refusal(&options) {
        StoreError::InUse { folder: named } => assert_eq!(named, folder.path()),
        other => panic!("{other}"),
    }
    store.close().unwrap();
    open(&options);
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = on_disk(folder.path());
    drop(open(&options));
    let path = folder.path().join("format");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("format 2\n"), "{text}");
    std::fs::write(&path, text.replace('2', "3")).unwrap();
    assert!(matches!(refusal(&options), StoreError::TooNew { found: 3, known: 2 }));
    for nonsense in ["", "hello", "portolan data folder, format x"] {
        std::fs::write(&path, nonsense).unwrap();
        assert!(matches!(refusal(&options), StoreError::Damaged { .. }));
    }
    // An older one is read, and says from then on that older versions must leave it alone.
    std::fs::write(&path, text.replace('2', "1")).unwrap();
    drop(open(&options));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

const FACTS: u64 = 300;

/// A store with facts, closed, so that its checkpoint has them all.
fn with_facts(folder: &Path) -> Options {
    let options = on_disk(folder);
    let (store, _) = open(&options);
    for number in 0..FACTS {
        fact(&*store, &format!("key{number:03}"), Some(&"v".repeat(100))).unwrap();
        enqueue(&*store, 1, number, &body(1, number, 100)).unwrap();
    }
    fact(&*store, "key007", None).unwrap();
    store.close().unwrap();
    options
}

fn check(options: &Options) {
    let (store, recovered) = open(options);
    assert_eq!(recovered.facts.len() as u64, FACTS - 1);
    assert!(!recovered.facts.iter().any(|(key, _)| key == b"key007"));
    assert_eq!(check_live(&store, &recovered, 100).len() as u64, FACTS);
    store.close().unwrap();
}

#[test]
fn the_checkpoint_is_used_and_kept_up() {
    let folder = tempfile::tempdir().unwrap();
    let options = with_facts(folder.path());
    check(&options);
    // Facts that only the checkpoint can still read: the journal's are damaged.
    let (store, _) = open(&options);
    fact(&*store, "late", Some("fact")).unwrap();
    store.close().unwrap();
    drop(store);
    let path = folder.path().join("journal/0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"key003").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (_, recovered) = open(&options);
    assert_eq!(recovered.facts.len() as u64, FACTS);
}

#[test]
fn a_checkpoint_that_is_gone_or_damaged_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let options = with_facts(folder.path());
    let checkpoint = folder.path().join("checkpoint");
    std::fs::remove_dir_all(&checkpoint).unwrap();
    check(&options);
    check(&options);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.clear(),
        |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.iter_mut().skip(100).step_by(97).for_each(|byte| *byte ^= 0xff),
    ];
    for damage in damages {
        for name in ["db", "conf"] {
            let path = checkpoint.join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            check(&options);
            check(&options);
        }
    }
    std::fs::remove_dir_all(&checkpoint).unwrap();
    std::fs::write(&checkpoint, "a file in its place").unwrap();
    let (_, recovered) = open(&options);
    assert_eq!(recovered.facts.len() as u64, FACTS - 1);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_checkpoint_newer_than_the_journal_is_rebuilt() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = with_facts(old.path());
    copy_folder(old.path(), new.path());
    let ahead = on_disk(new.path());
    let (store, _) = open(&ahead);
    fact(&*store, "from the future", Some("x")).unwrap();
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(old.path().join("checkpoint")).unwrap();
    copy_folder(&new.path().join("checkpoint"), &old.path().join("checkpoint"));
    check(&options);
}

#[test]
fn a_checkpoint_older_than_the_journal_begins_is_rebuilt() {
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = with_facts(folder.path());
    let old = kept.path().join("checkpoint");
    copy_folder(&folder.path().join("checkpoint"), &old);
    let (store, _) = open(&options);
    for seq in FACTS..FACTS + 1000 {
        enqueue(&*store, 1, seq, &body(1, seq, 100)).unwrap();
    }
    fact(&*store, "restated", Some("x")).unwrap();
    assert!(sync(&*store));
    let last = store.last();
    store.discard_before(last - 1).unwrap();
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.path().join("checkpoint")).unwrap();
    copy_folder(&old, &folder.path().join("checkpoint"));
    let (_, recovered) = open(&options);
    assert_eq!(recovered.facts, [(b"restated".to_vec(), b"x".to_vec())]);
}

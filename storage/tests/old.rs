//! The old generation: backlogs, state, shared bodies, repetition, space.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod support;

use std::collections::BTreeMap;

use postroad_base::{Placement, QueueId, Record, Sequence, SessionExpiry, TopicName, WallMillis};
use postroad_storage::old::{Bounds, IngestBatch, Old, OldConfig, Pending, StateKey};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use support::{begin, message, queue, recipient};
use tempfile::TempDir;

fn open(directory: &TempDir) -> Old {
    Old::open(&directory.path().join("old"), OldConfig::new(Placement::new(256, 1, [3; 16]))).unwrap()
}

fn pending(queue: QueueId, sequence: u64, bytes: usize) -> Pending {
    Pending { queue, sequence: Sequence(sequence), recipient: recipient(queue), message: message(sequence, bytes) }
}

fn upto(sequence: u64) -> IngestBatch {
    IngestBatch { as_of: Sequence(sequence), upto: Sequence(sequence), ..IngestBatch::default() }
}

/// Everything stored of a queue, read in portions.
fn backlog(old: &Old, queue: QueueId) -> Vec<u64> {
    let (mut sequences, mut after) = (Vec::new(), Sequence(0));
    loop {
        let portion = old.read_backlog(queue, after, 7, 5000).unwrap();
        for entry in &portion.entries {
            assert_eq!(entry.message.id, message(entry.sequence.0, 0).id, "the body of its own sequence");
            assert_eq!(entry.recipient, recipient(queue));
            sequences.push(entry.sequence.0);
            after = entry.sequence;
        }
        if portion.end {
            return sequences;
        }
        assert!(!portion.entries.is_empty(), "a portion without an end holds something");
    }
}

fn bounds(old: &Old) -> BTreeMap<QueueId, Bounds> {
    let mut bounds = BTreeMap::new();
    old.backlog_bounds(&mut |queue, one| assert!(bounds.insert(queue, one).is_none())).unwrap();
    bounds
}

fn state(old: &Old) -> Vec<Record> {
    let mut records = Vec::new();
    old.load_state(&mut |as_of, record| {
        assert_eq!(as_of, old.as_of());
        records.push(record);
    })
    .unwrap();
    records
}

#[test]
fn deliveries_survive_a_reopening_and_go_when_they_are_settled() {
    let directory = TempDir::new().unwrap();
    let (a, b) = (queue(0, 1), queue(200, 9));
    let mut batch = upto(10);
    batch.pending = vec![pending(b, 9, 50), pending(a, 2, 10), pending(a, 5, 3000), pending(a, 9, 50)];
    open(&directory).ingest(batch).unwrap();

    let old = open(&directory);
    assert_eq!((old.as_of(), old.upto()), (Sequence(10), Sequence(10)));
    assert_eq!((backlog(&old, a), backlog(&old, b)), (vec![2, 5, 9], vec![9]));
    let portion = old.read_backlog(a, Sequence(2), 1, usize::MAX).unwrap();
    assert_eq!((portion.entries.len(), portion.entries[0].sequence, portion.end), (1, Sequence(5), false));
    assert_eq!(*portion.entries[0].message, *message(5, 3000));
    let of_a = bounds(&old)[&a];
    assert_eq!((of_a.first, of_a.last, of_a.count), (Sequence(2), Sequence(9), 3));

    let mut batch = upto(11);
    batch.settled =
        vec![(a, Sequence(9)), (a, Sequence(2)), (a, Sequence(3)), (a, Sequence(2)), (queue(1, 1), Sequence(2))];
    old.ingest(batch).unwrap();
    assert_eq!((backlog(&old, a), backlog(&old, b)), (vec![5], vec![9]));
    assert_eq!((bounds(&old)[&a].first, bounds(&old)[&a].count), (Sequence(5), 1));
    assert_eq!(bounds(&old)[&a].bytes, ("topic/5".len() + 3000) as u64);
}

#[test]
fn every_field_of_a_message_and_a_recipient_comes_back() {
    let directory = TempDir::new().unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut batch, mut expected) = (upto(100), Vec::new());
    for sequence in 1..=100 {
        let message = support::any_message().new_tree(&mut runner).unwrap().current();
        let mut recipient = support::any_recipient().new_tree(&mut runner).unwrap().current();
        recipient.queue = queue(0, 1 + sequence % 2);
        expected.push((recipient.clone(), message.clone()));
        batch.pending.push(Pending { queue: recipient.queue, sequence: Sequence(sequence), recipient, message });
    }
    let old = open(&directory);
    old.ingest(batch).unwrap();
    let mut read = Vec::new();
    for ordinal in 1..=2 {
        read.extend(old.read_backlog(queue(0, ordinal), Sequence(0), 1000, usize::MAX).unwrap().entries);
    }
    read.sort_by_key(|entry| entry.sequence);
    assert_eq!(read.into_iter().map(|entry| (entry.recipient, entry.message)).collect::<Vec<_>>(), expected);
}

#[test]
fn a_shared_body_stays_until_its_last_recipient_is_done() {
    let directory = TempDir::new().unwrap();
    let old = open(&directory);
    let queues: Vec<_> = (0..50).map(|n| queue(n % 5, u64::from(n))).collect();
    let mut batch = upto(1);
    batch.pending = queues.iter().map(|&queue| pending(queue, 1, 200_000)).collect();
    old.ingest(batch).unwrap();
    old.compact().unwrap();
    assert!(old.disk_bytes() < 400_000, "{} bytes: stored once", old.disk_bytes());
    for (n, &queue) in queues.iter().enumerate() {
        assert_eq!(backlog(&old, queue), [1]);
        let mut batch = upto(2 + n as u64);
        // One of them by the end of its queue.
        if n == 20 {
            batch.ended = vec![queue]
        } else {
            batch.settled = vec![(queue, Sequence(1))]
        }
        old.ingest(batch).unwrap();
        assert_eq!(backlog(&old, queue), [0_u64; 0]);
    }
    old.compact().unwrap();
    assert!(bounds(&old).is_empty());
    assert!(old.disk_bytes() < 10_000, "{} bytes: the body is gone", old.disk_bytes());
}

#[test]
fn state_is_replaced_piece_by_piece() {
    let directory = TempDir::new().unwrap();
    let old = open(&directory);
    let (one, two) = (queue(3, 1), queue(3, 2));
    let connected = Record::Connected { queue: one, expiry: SessionExpiry(5), at: WallMillis(9) };
    let retained = Record::Retain { message: message(4, 20) };
    let topic = TopicName::new("topic/4").unwrap();
    let mut batch = upto(5);
    batch.as_of = Sequence(8);
    batch.state = vec![
        (StateKey::Queue(two), Some(vec![begin(two, "two")])),
        (StateKey::Queue(one), Some(vec![begin(one, "one"), connected.clone()])),
        (StateKey::Retained(topic.clone()), Some(vec![retained.clone()])),
    ];
    old.ingest(batch).unwrap();
    let mut loaded = state(&old);
    loaded.retain(|record| *record != retained);
    assert_eq!(loaded, [begin(one, "one"), connected, begin(two, "two")]);
    assert_eq!((old.as_of(), old.upto()), (Sequence(8), Sequence(5)));

    let mut batch = upto(9);
    batch.state = vec![(StateKey::Queue(one), Some(vec![begin(one, "one")])), (StateKey::Retained(topic), None)];
    batch.ended = vec![two];
    old.ingest(batch).unwrap();
    assert_eq!(state(&old), [begin(one, "one")]);
}

/// Killed between the ingestion and the recycling, the server comes up with a window that begins below `upto` and may
/// retire it again; what was settled in between must not come back, nothing may be counted twice.
#[test]
fn a_retirement_done_again_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let old = open(&directory);
    let (a, b) = (queue(0, 1), queue(0, 2));
    let mut batch = upto(10);
    batch.pending = vec![pending(a, 1, 10), pending(b, 1, 10), pending(a, 3, 10)];
    old.ingest(batch.clone()).unwrap();
    let mut settle = upto(10);
    settle.settled = vec![(a, Sequence(1))];
    old.ingest(settle.clone()).unwrap();
    let before = bounds(&old);
    for again in [batch, settle] {
        old.ingest(again).unwrap();
        assert_eq!(bounds(&old), before);
        assert_eq!((backlog(&old, a), backlog(&old, b)), (vec![3], vec![1]));
    }
    let mut batch = upto(11);
    batch.settled = vec![(b, Sequence(1)), (a, Sequence(3))];
    old.ingest(batch).unwrap();
    old.compact().unwrap();
    assert!(old.disk_bytes() < 5_000, "{} bytes: no reference was counted twice", old.disk_bytes());
}

/// Bytes of all table files below a directory.
fn table_bytes(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => table_bytes(&entry.path()),
        false if path.ends_with("tables") => entry.metadata().unwrap().len(),
        false => 0,
    });
    bytes.sum()
}

#[test]
fn space_comes_back_after_acknowledgement() {
    let directory = TempDir::new().unwrap();
    let old = open(&directory);
    let queues: Vec<_> = (0..20).map(|n| queue(n, 1)).collect();
    let mut sequence = 0;
    for _ in 0..20 {
        let from = sequence;
        sequence += 1000;
        let mut batch = upto(sequence);
        batch.pending = (from + 1..=sequence).map(|n| pending(queues[(n % 20) as usize], n, 1000)).collect();
        old.ingest(batch).unwrap();
    }
    let full = old.disk_bytes();
    assert!(full > 15_000_000, "{full}");
    for from in (0..sequence).step_by(1000) {
        let mut batch = upto(sequence + from / 1000 + 1);
        batch.settled = (from + 1..=from + 1000).map(|n| (queues[(n % 20) as usize], Sequence(n))).collect();
        old.ingest(batch).unwrap();
    }
    // `ingest` compacts by itself once more is dead than alive; the rest goes with the next time, or by hand.
    assert!(old.disk_bytes() < full / 2, "{} of {full}", old.disk_bytes());
    old.compact().unwrap();
    assert!(old.disk_bytes() < 10_000, "{} of {full}", old.disk_bytes());
    let files = table_bytes(directory.path());
    assert!(files < full / 20, "{files} of {full}: files that no version needs are deleted");
    assert!(queues.iter().all(|&queue| backlog(&old, queue).is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Random publications to some of six queues, settlements and ends, against a plain model.
    #[test]
    fn agrees_with_a_model(
        rounds in prop::collection::vec(
            (prop::collection::vec(0_u8..64, 1..12), prop::collection::vec((0_u64..6, any::<prop::sample::Index>()), 0..20), 0_u64..20),
            1..10,
        ),
    ) {
        let directory = TempDir::new().unwrap();
        let mut old = open(&directory);
        let queues: Vec<_> = (0..6_u16).map(|n| queue(n % 3, u64::from(n))).collect();
        let mut model: BTreeMap<QueueId, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut last = 0;
        for (publications, settlements, action) in rounds {
            let mut batch = upto(last + publications.len() as u64);
            for (number, sequence) in settlements {
                let of = model.entry(queues[number as usize]).or_default();
                if !of.is_empty() {
                    let chosen = *of.keys().nth(sequence.index(of.len())).unwrap();
                    of.remove(&chosen);
                    batch.settled.push((queues[number as usize], Sequence(chosen)));
                }
            }
            if let Some(&ended) = queues.get(action as usize) {
                model.remove(&ended);
                batch.ended.push(ended);
            }
            for targets in publications {
                last += 1;
                for (number, &queue) in queues.iter().enumerate() {
                    if targets & 1 << number != 0 && !batch.ended.contains(&queue) {
                        batch.pending.push(pending(queue, last, 40));
                        model.entry(queue).or_default().insert(last, (message(last, 40).topic.as_str().len() + 40) as u64);
                    }
                }
            }
            old.ingest(batch).unwrap();
            if action == 19 {
                drop(old);
                old = open(&directory);
            }
            let bounds = bounds(&old);
            for &queue in &queues {
                let expected = model.get(&queue).cloned().unwrap_or_default();
                prop_assert_eq!(backlog(&old, queue), expected.keys().copied().collect::<Vec<_>>());
                let found = bounds.get(&queue).copied().unwrap_or_default();
                prop_assert_eq!((found.count, found.bytes), (expected.len() as u64, expected.values().sum()));
                prop_assert_eq!(found.first.0, expected.keys().next().copied().unwrap_or_default());
            }
        }
    }
}

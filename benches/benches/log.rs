//! What does a record in the log cost, by records per commit and by durability?
//!
//! `memory` encodes and lays out (what every durability pays), `os` writes too, `fsync` also waits for fdatasync. By plain
//! calls on one file at a time; `engine` uses io_uring. Messages of 256 B to one queue.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use base::{Message, MessageId, PartitionId, Qos, QueueId, Recipient, Record, Sequence, TopicName};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postroad_base as base;
use postroad_storage::log::{FileLog, Log, SegmentLog, Sync};
use postroad_storage::record::{decode, encode};
use postroad_storage::young::{FileDirectory, LogId, Position, Writer, WriterConfig};

const BATCHES: [u64; 3] = [1, 64, 1024];

fn record() -> Record {
    let queue = QueueId::new(PartitionId(17), 4711);
    let message = Message {
        id: MessageId(0x0192_0000_0000_0000_0000_0000_0001_0002),
        topic: TopicName::new("vehicles/4711/commands").expect("a valid topic"),
        payload: Bytes::from(vec![0x5A; 256]),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    };
    let (qos, identifiers) = (Qos::AtLeastOnce, Default::default());
    let recipient = Recipient { queue, qos, retain: false, given: false, identifiers, group: None };
    Record::Publish { message: Arc::new(message), recipients: vec![recipient] }
}

/// The same message to `count` queues of one partition, far apart: what a durable fan-out writes for its publication.
fn fan_out_record(count: u64) -> Record {
    let Record::Publish { message, recipients } = record() else { unreachable!("record() makes a publication") };
    let recipient = |number: u64| {
        let mut recipient = recipients[0].clone();
        recipient.queue = QueueId::new(PartitionId(17), 7 * number);
        recipient
    };
    Record::Publish { message, recipients: (0..count).map(recipient).collect() }
}

fn codec(criterion: &mut Criterion) {
    fan_out_codec(criterion);
    let record = record();
    let mut bytes = Vec::new();
    criterion.bench_function("record/encode", |bencher| {
        bencher.iter(|| {
            bytes.clear();
            encode(black_box(&record), &mut bytes);
        });
    });
    criterion.bench_function("record/decode", |bencher| bencher.iter(|| decode(&mut black_box(bytes.as_slice()))));
}

fn fan_out_codec(criterion: &mut Criterion) {
    let record = fan_out_record(1_000);
    let mut bytes = Vec::new();
    encode(&record, &mut bytes);
    let mut group = criterion.benchmark_group("record/1,000 recipients");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            bytes.clear();
            encode(black_box(&record), &mut bytes);
        });
    });
    group.bench_function("decode", |bencher| bencher.iter(|| decode(&mut black_box(bytes.as_slice()))));
    group.finish();
}

/// A commit of `batch` records without any I/O; full segments are used again at once.
fn memory_commit(writer: &mut Writer, record: &Record, batch: u64) {
    for _ in 0..batch {
        writer.append(record);
    }
    while let Some(commit) = writer.begin_commit() {
        black_box(&commit.bytes);
        writer.finish_commit(commit);
    }
    while let Some((segment, _)) = writer.oldest_segment_last_sequence() {
        writer.retire(segment);
    }
}

fn file_commit(log: &mut FileLog, record: &Record, batch: u64) {
    for _ in 0..batch {
        log.append(record);
    }
    log.commit().expect("the disk of the bench works");
    while let Some((segment, _)) = log.oldest() {
        log.retire(segment).expect("the disk of the bench works");
    }
}

fn open(path: &Path, sync: Sync) -> FileLog {
    let config = WriterConfig::new(LogId(1), 8 << 20, 64 << 20);
    let opened = SegmentLog::open(FileDirectory::new(path), config, Sequence(0), sync, &mut |_, _| {});
    opened.expect("an empty directory opens").0
}

fn append(criterion: &mut Criterion) {
    let record = record();
    let mut group = criterion.benchmark_group("log/append");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch));
        let config = WriterConfig::new(LogId(1), 8 << 20, 64 << 20);
        let mut writer = Writer::new(config, Position::fresh(Sequence(1)));
        group.bench_function(BenchmarkId::new("memory", batch), |bencher| {
            bencher.iter(|| memory_commit(&mut writer, &record, batch));
        });
        for (name, sync) in [("os", Sync::Never), ("fsync", Sync::Data)] {
            // Beside the build, not in /tmp, which may be memory.
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is there");
            let mut log = open(directory.path(), sync);
            // Two laps over the segments first, so that they are all made.
            while log.writer().last_sequence().0 < 100_000 {
                file_commit(&mut log, &record, 1024);
            }
            group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                bencher.iter(|| file_commit(&mut log, &record, batch));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, codec, append);
criterion_main!(benches);

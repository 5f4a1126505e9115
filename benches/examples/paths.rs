//! The paths whose instructions are counted, one for each process: `paths PATH COUNT`. Without arguments: their names.
//!
//! Run twice, with different counts, under a tool that counts instructions: the difference is the path's own, whatever it takes
//! to get there (`tests/instructions.rs`).

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use base::{
    ConnectionId, PartitionId, Placement, Qos, QueueId, Recipient, Record, Sequence, SessionExpiry, ShardId,
    SubscriptionOptions, Tag, TopicFilter,
};
use postroad_base as base;
use postroad_broker::api::{Event, Inbound, Subscribe};
use postroad_broker::{Broker, Config};
use postroad_protocol::mqtt::{
    Decoded, HeadTopic, Packet, Publish, PublishHead, PublishProperties, Version, decode, encode_publish_head,
};
use postroad_storage::record::encode;
use postroad_storage::young::{LogId, Position, Writer, WriterConfig};
use support::{NOW, connect, message, settle};

/// As in the binary (ADR 17).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../../broker/examples/support/mod.rs"]
mod support;

const TOPIC: &str = "vehicles/4711/position";
/// Records of one commit.
const BATCH: u64 = 64;

type Path = (&'static str, fn(u64));

const PATHS: [Path; 10] = [
    ("decode PUBLISH, QoS 1, 64 B", decode_publish),
    ("encode the head of a PUBLISH", encode_head),
    ("broker: QoS 0, 1 to 1", |count| publish(count, 1, Qos::AtMostOnce, false)),
    ("broker: QoS 0, 1 to 1,000", |count| publish(count, 1_000, Qos::AtMostOnce, false)),
    ("broker: QoS 1, 1 to 1, in memory", |count| publish(count, 1, Qos::AtLeastOnce, false)),
    ("broker: QoS 1, 1 to 1, durable", |count| publish(count, 1, Qos::AtLeastOnce, true)),
    ("broker: QoS 2, 1 to 1, durable", |count| publish(count, 1, Qos::ExactlyOnce, true)),
    ("broker: QoS 1, 1 to 1,000, durable", |count| publish(count, 1_000, Qos::AtLeastOnce, true)),
    ("log: encode a record, 256 B", encode_record),
    ("log: append and lay out, 64 per commit", append),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => PATHS.iter().for_each(|(name, _)| println!("{name}")),
        [name, count] => {
            let path = PATHS.iter().find(|(known, _)| known == name);
            let (Some((_, run)), Ok(count)) = (path, count.parse()) else { return ExitCode::from(2) };
            run(count);
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn decode_publish(count: u64) {
    let tag = Tag::new(17);
    let payload = [7; 64];
    let properties = PublishProperties::default();
    let publish =
        Publish { dup: false, qos: Qos::AtLeastOnce, retain: false, topic: TOPIC, tag, payload: &payload, properties };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(Version::V5, &mut bytes);
    for _ in 0..count {
        let Ok(Decoded::Packet { packet, .. }) = decode(black_box(&bytes), Some(Version::V5), 1 << 20) else {
            unreachable!("it was encoded above")
        };
        black_box(packet);
    }
}

fn encode_head(count: u64) {
    let mut out = Vec::with_capacity(1024);
    for _ in 0..count {
        out.clear();
        let head = PublishHead {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: HeadTopic::Name(black_box(TOPIC)),
            tag: Tag::new(17),
            message_expiry: None,
            subscription_identifiers: &[],
        };
        encode_publish_head(Version::V5, &head, &[], 64, &mut out);
        black_box(&out);
    }
}

/// A message to so many subscribers, which acknowledge; the log commits at once.
fn publish(count: u64, subscribers: u64, qos: Qos, durable: bool) {
    let placement = Placement::new(256, 1, [0; 16]);
    let mut broker = Broker::new(Config::new(ShardId(0), placement, durable, 1), Sequence(1));
    let mut appended = 0;
    let expiry = if durable { SessionExpiry::NEVER } else { SessionExpiry(0) };
    for number in 0..=subscribers {
        broker.handle(NOW, connect(number, expiry));
        settle(&mut broker, &mut appended, false);
        if number > 0 {
            let options = SubscriptionOptions { qos: Qos::ExactlyOnce, ..SubscriptionOptions::default() };
            let filters = vec![Subscribe { filter: Ok(TopicFilter::new("a/b").expect("a filter")), options }];
            let (connection, tag) = (ConnectionId(number), Tag::new(1).expect("not 0"));
            broker.handle(NOW, Event::Subscribe { connection, tag, filters });
            settle(&mut broker, &mut appended, false);
        }
    }
    let message = message("a/b", qos);
    for round in 0..count {
        let tag = qos.is_acknowledged().then(|| Tag::new((round % 1000 + 1) as u16).expect("not 0"));
        let message = Inbound { message: message.clone().into(), tag, dup: false, flaw: None };
        broker.handle(NOW, Event::Publish { connection: ConnectionId(0), message });
        settle(&mut broker, &mut appended, qos == Qos::ExactlyOnce);
    }
}

fn record() -> Record {
    let mut message = message("vehicles/4711/commands", Qos::AtLeastOnce);
    message.payload = vec![0x5A; 256].into();
    let queue = QueueId::new(PartitionId(17), 4711);
    let (qos, identifiers) = (Qos::AtLeastOnce, Default::default());
    let recipient = Recipient { queue, qos, retain: false, given: false, identifiers, group: None };
    Record::Publish { message: Arc::new(message), recipients: vec![recipient] }
}

fn encode_record(count: u64) {
    let (record, mut bytes) = (record(), Vec::with_capacity(1024));
    for _ in 0..count {
        bytes.clear();
        encode(black_box(&record), &mut bytes);
        black_box(&bytes);
    }
}

fn append(count: u64) {
    let record = record();
    let mut writer = Writer::new(WriterConfig::new(LogId(1), 8 << 20, 64 << 20), Position::fresh(Sequence(1)));
    for number in 1..=count {
        writer.append(&record);
        if number.is_multiple_of(BATCH) {
            while let Some(commit) = writer.begin_commit() {
                black_box(&commit.bytes);
                writer.finish_commit(commit);
            }
            while let Some((segment, _)) = writer.oldest_segment_last_sequence() {
                writer.retire(segment);
            }
        }
    }
}

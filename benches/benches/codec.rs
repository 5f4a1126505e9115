//! What do reading and writing a packet cost? PUBLISH of QoS 0 and 1 with 64 and 256 bytes, and a batch of PUBACKs.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use postroad_base::{Qos, ReasonCode, Tag};
use postroad_protocol::mqtt::{
    Ack, Decoded, HeadTopic, Packet, Publish, PublishHead, PublishProperties, Version, decode, encode_publish_head,
};
use std::hint::black_box;

const TOPIC: &str = "vehicles/4711/position";
const ACKS: u16 = 100;

fn tag() -> Tag {
    Tag::new(17).expect("not 0")
}

fn publish(qos: Qos, payload: &[u8]) -> Publish<'_> {
    let tag = qos.is_acknowledged().then(tag);
    let properties = PublishProperties::default();
    Publish { dup: false, qos, retain: false, topic: TOPIC, tag, payload, properties }
}

/// Decodes all of `input`; returns the number of packets.
fn decode_all(mut input: &[u8], version: Version) -> usize {
    let mut count = 0;
    while let Ok(Decoded::Packet { packet, size }) = decode(input, Some(version), 1 << 20) {
        black_box(packet);
        input = &input[size..];
        count += 1;
    }
    count
}

fn publishes(c: &mut Criterion) {
    for version in [Version::V3_1_1, Version::V5] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            for payload in [vec![7; 64], vec![7; 256]] {
                let case = format!("{version:?}/qos{}/{}B", qos.number(), payload.len());
                publish_case(c, &case, version, qos, &payload);
            }
        }
    }
}

fn publish_case(c: &mut Criterion, case: &str, version: Version, qos: Qos, payload: &[u8]) {
    let packet = Packet::Publish(publish(qos, payload));
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    c.bench_function(&format!("decode/{case}"), |b| b.iter(|| decode_all(black_box(&bytes), version)));

    let mut out = Vec::with_capacity(1024);
    c.bench_function(&format!("encode/{case}"), |b| {
        b.iter(|| {
            out.clear();
            black_box(&packet).encode(version, &mut out);
            out.len()
        });
    });
    c.bench_function(&format!("encode_head/{case}"), |b| {
        b.iter(|| {
            out.clear();
            let head = PublishHead {
                dup: false,
                qos,
                retain: false,
                topic: HeadTopic::Name(black_box(TOPIC)),
                tag: qos.is_acknowledged().then(tag),
                message_expiry: None,
                subscription_identifiers: &[],
            };
            encode_publish_head(version, &head, &[], payload.len(), &mut out)
        });
    });
}

fn acks(c: &mut Criterion) {
    let packets: Vec<_> = (1..=ACKS)
        .map(|number| Packet::PubAck(Ack::new(Tag::new(number).expect("from 1"), ReasonCode::Success)))
        .collect();
    let mut bytes = Vec::new();
    packets.iter().for_each(|packet| packet.encode(Version::V5, &mut bytes));

    let mut group = c.benchmark_group("acks");
    group.throughput(Throughput::Elements(ACKS.into()));
    group.bench_function("decode", |b| b.iter(|| decode_all(black_box(&bytes), Version::V5)));
    group.bench_function("encode", |b| {
        b.iter_batched_ref(
            || Vec::with_capacity(1024),
            |out| packets.iter().for_each(|packet| packet.encode(Version::V5, out)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, publishes, acks);
criterion_main!(benches);

//! What does it cost to read and to write a declared frame? The four that are shipped, 100 of each in a row.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postroad_protocol::frame::{Codec, Declared, Decoded, Frame, Kind, Plan, Spec, examples};

const FRAMES: u64 = 100;

fn codec(spec: &Spec) -> Declared {
    Declared::new(Arc::new(Plan::compile(spec).expect("it is shipped")))
}

/// Decodes all of `input`; returns the number of frames.
fn decode_all(codec: &mut Declared, mut input: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Decoded::Frame { frame, size }) = codec.decode(input, "vehicle-4711") {
        black_box(frame);
        input = &input[size..];
        count += 1;
    }
    count
}

fn gt06_location() -> Vec<u8> {
    let body =
        b"\x17\x12\x1a\x0c\x22\x2d\x0e\xc9\x02\x7a\xc8\xac\x0c\x46\x58\x60\x00\x14\x00\x01\xcc\x00\x28\x7d\x00\x1f\x71";
    let mut frame = vec![0x78, 0x78, u8::try_from(body.len() + 5).expect("small"), 0x12];
    frame.extend_from_slice(body);
    frame.extend_from_slice(&[0, 3]);
    let crc = postroad_protocol::frame::Checksum::Crc16X25.of(&frame[2..]);
    frame.extend_from_slice(&u16::try_from(crc).expect("16 bits").to_be_bytes());
    frame.extend_from_slice(b"\r\n");
    frame
}

fn reading(c: &mut Criterion) {
    let cases = [
        ("vehicle40/publish", examples::vehicle40(), vec![0x21, 0x23, 0x45, 0x67, 0x89]),
        ("vehicle40/ping", examples::vehicle40(), vec![0x10, 0, 0, 0, 0]),
        ("gt06/publish", examples::gt06(), gt06_location()),
        ("crlf_lines/publish", examples::crlf_lines(), b"PUB 17 vehicles/4711/position 52.5 13.4\r\n".to_vec()),
        ("padded1024/publish", examples::padded1024(), format!("{:1024}", "PUB 17 a/b 52.5 13.4").into_bytes()),
    ];
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, spec, frame) in cases {
        let mut codec = codec(&spec);
        let input = frame.repeat(FRAMES as usize);
        assert_eq!(decode_all(&mut codec, &input), FRAMES as usize, "{name}");
        group.bench_function(name, |b| b.iter(|| decode_all(&mut codec, black_box(&input))));
    }
    group.finish();
}

fn writing(c: &mut Criterion) {
    let push = |payload| Frame { tag: Some(17), topic: "a/b", payload, ..Frame::new(Kind::Push) };
    let cases = [
        ("vehicle40/push", examples::vehicle40(), push(b"4711")),
        ("gt06/push", examples::gt06(), push(b"RELAY,1#")),
        ("crlf_lines/push", examples::crlf_lines(), push(b"52.5 13.4")),
        ("padded1024/push", examples::padded1024(), push(b"52.5 13.4")),
    ];
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, spec, frame) in cases {
        let mut codec = codec(&spec);
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                for _ in 0..FRAMES {
                    codec.encode(black_box(&frame), &mut out).expect("it fits");
                }
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reading, writing);
criterion_main!(benches);

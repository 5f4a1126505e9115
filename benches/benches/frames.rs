//! What does it cost to read and to write a frame? The four declared ones that are shipped, 100 of each in a row; and one of
//! them as functions of a script, which has to cost 20 times as much, or nobody need declare anything.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postroad_base::{Now, ShardId};
use postroad_plugins::codec::{Calls, Functions, Made, of_plugin};
use postroad_plugins::{Callable, Failure, Limits, Plain, PluginName, Set, Source, Vm};
use postroad_protocol::frame::{Codec, Declared, Decoded, Frame, Kind, Plan, Spec, examples};

const FRAMES: u64 = 100;

fn codec(spec: &Spec) -> Declared {
    Declared::new(Arc::new(Plan::compile(spec).expect("it is shipped")))
}

/// Decodes all of `input`; returns the number of frames.
fn decode_all(codec: &mut dyn Codec, mut input: &[u8]) -> usize {
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

/// What the declaration of the vehicle's frame says, as a function.
const FUNCTIONS: &str = r#"
local publishes = { [2] = "position", [3] = "status" }
return {
  codec = {
    longest = 5,
    encode = function() end,
    decode = function(bytes, client)
      if #bytes < 5 then return nil, 5 end
      local number = string.unpack(">I5", bytes)
      local command, content = number >> 36, number & 0xfffffffff
      local topic = "vehicles/" .. client .. "/" .. publishes[command]
      return { kind = "publish", command = command, topic = topic, payload = content }, 5
    end,
  },
}
"#;

struct Shared(Rc<RefCell<Vm>>);

impl Calls for Shared {
    fn call(&mut self, function: &Callable, arguments: &[Plain]) -> Result<Vec<Plain>, Failure> {
        self.0.borrow_mut().call(Now::default(), function, arguments)
    }
}

fn functions() -> Functions<Shared> {
    let name = PluginName::new("vehicle").expect("a name");
    let source = Source::new(name.clone(), "vehicle.lua", FUNCTIONS);
    let limits = Limits::default();
    let compiled = Set::from_sources(vec![source]).expect("one").compile(&limits).expect("it compiles");
    let mut vm = Vm::new(&compiled, &limits, ShardId(0), Rc::default()).expect("it loads");
    let Some(Ok(Made::Functions(table))) = of_plugin(&mut vm, &name) else { panic!("functions") };
    Functions::new(Shared(Rc::new(RefCell::new(vm))), *table)
}

fn reading_by_functions(c: &mut Criterion) {
    let (mut functions, mut declared) = (functions(), codec(&examples::vehicle40()));
    let input = [0x21, 0x23, 0x45, 0x67, 0x89].repeat(FRAMES as usize);
    assert_eq!(functions.decode(&input, "c"), declared.decode(&input, "c"));
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(FRAMES));
    group
        .bench_function("vehicle40 by functions/publish", |b| b.iter(|| decode_all(&mut functions, black_box(&input))));
    group.finish();
}

criterion_group!(benches, reading, reading_by_functions, writing);
criterion_main!(benches);

//! Frames in Lua: tables become declarations, functions become codecs, and what is wrong is said with its place.

mod common;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use postroad_plugins::codec::{Calls, Functions, Made, check_splits, of_plugin, spec_of};
use postroad_plugins::{Callable, Failure, Limits, Plain, PluginName, Vm};
use postroad_protocol::frame::{Codec, Declared, Decoded, Frame, Kind, examples};

use common::{NOW, lines, try_vm, vm, vm_with};

/// The VM of a test, shared as a shard shares it.
#[derive(Clone)]
struct Shared(Rc<RefCell<Vm>>);

impl Calls for Shared {
    fn call(&mut self, function: &Callable, arguments: &[Plain]) -> Result<Vec<Plain>, Failure> {
        self.0.borrow_mut().call(NOW, function, arguments)
    }
}

fn name(text: &str) -> PluginName {
    PluginName::new(text).expect("a name")
}

fn codec(mut vm: Vm, plugin: &str) -> Box<dyn Codec> {
    let made = of_plugin(&mut vm, &name(plugin)).expect("it has a codec").expect("it can be");
    match made {
        Made::Declared(plan) => Box::new(Declared::new(plan)),
        Made::Functions(table) => Box::new(Functions::new(Shared(Rc::new(RefCell::new(vm))), *table)),
    }
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/frames").join(format!("{name}.lua"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The scripts are what operators have, the declarations in Rust what tests and benches use: they say the same.
#[test]
fn the_shipped_scripts_are_the_declarations_that_are_tested() {
    for (frame, spec) in examples::all() {
        let mut vm = vm_with(&[(frame, &shipped(frame))], &Limits::default());
        let table = vm.codec_table(&name(frame)).expect("it has one").expect("plain data");
        assert_eq!(spec_of(&table.data), Ok(spec), "{frame}");
        assert!(matches!(of_plugin(&mut vm, &name(frame)), Some(Ok(Made::Declared(_)))));
    }
}

/// The vehicle's frame as functions: what the declaration says in eight lines.
const FUNCTIONS: &str = r#"
local publishes = { [2] = "position", [3] = "status" }
local answers = { welcome = 8, pong = 9, accepted = 10, push = 11, refused = 12 }
local kinds = { [0] = "hello", [1] = "ping", [4] = "ack", [5] = "bye" }
return {
  codec = {
    longest = 5, keep_alive = 120, acknowledge = "in_turn",
    answers = { "welcome", "pong", "accepted", "push", "refused" },
    decode = function(bytes, client)
      if #bytes < 5 then return nil, 5 end
      local number = string.unpack(">I5", bytes)
      local command, content = number >> 36, number & 0xfffffffff
      if publishes[command] then
        local topic = "vehicles/" .. client .. "/" .. publishes[command]
        return { kind = "publish", command = command, topic = topic, payload = content }, 5
      end
      local kind = kinds[command]
      if not kind then return false, "command " .. command end
      return { kind = kind, command = command, client = kind == "hello" and "vehicle-" .. content or nil }, 5
    end,
    encode = function(frame)
      local content = 0
      if frame.kind == "push" then
        content = math.tointeger(tonumber(frame.payload) or 0.5)
        if not content or content < 0 or content >> 36 ~= 0 then return nil, "no number of 36 bits" end
      end
      if frame.kind == "refused" then content = frame.reason end
      return string.pack(">I5", answers[frame.kind] << 36 | content)
    end,
  },
}
"#;

/// The same bytes, the same frames; and the same frames, the same bytes.
#[test]
fn functions_say_what_the_declaration_says() {
    let mut functions = codec(vm(FUNCTIONS), "p");
    let plan = postroad_protocol::frame::Plan::compile(&examples::vehicle40()).expect("shipped");
    let mut declared = Declared::new(Arc::new(plan));
    assert_eq!(functions.abilities(), declared.abilities());
    for input in [[0x00, 0, 0, 0x12, 0x67], [0x10, 0, 0, 0, 0], [0x2f, 0xff, 0xff, 0xff, 0xff], [0x30, 0, 0, 0, 1]] {
        let expected = declared.decode(&input, "c1").expect("a frame");
        assert_eq!(functions.decode(&input, "c1").expect("a frame"), expected);
        assert_eq!(functions.decode(&input[..3], "c1"), Ok(Decoded::Incomplete { needed: 5 }));
    }
    let broken = functions.decode(&[0xf0, 0, 0, 0, 0], "c1").expect_err("no such command");
    assert_eq!(broken.to_string(), "command 15 (value)");
    for frame in [
        Frame::new(Kind::Welcome),
        Frame::new(Kind::Accepted),
        Frame { payload: b"68719476735", ..Frame::new(Kind::Push) },
        Frame { reason: 0x87, ..Frame::new(Kind::Refused) },
    ] {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        declared.encode(&frame, &mut left).expect("it fits");
        functions.encode(&frame, &mut right).expect("it fits");
        assert_eq!(left, right, "{}", frame.kind);
    }
    let mut out = vec![7];
    let unfit = functions.encode(&Frame { payload: b"x", ..Frame::new(Kind::Push) }, &mut out).expect_err("no number");
    assert_eq!((unfit.to_string(), out), ("no number of 36 bits (unfit)".to_owned(), vec![7]));
}

/// [INT-5], for declarations and for functions.
#[test]
fn every_codec_survives_every_cut() {
    let stream = [0x00, 0, 0, 0x12, 0x67, 0x10, 0, 0, 0, 0, 0x21, 2, 3, 4, 5, 0xf0, 0, 0, 0, 0];
    for mut codec in [codec(vm(FUNCTIONS), "p"), codec(vm(&shipped("vehicle40")), "p")] {
        let said = check_splits(&mut *codec, &stream, "c1").expect("the same at each cut");
        assert_eq!(said.len(), 4);
        assert!(said[3].starts_with("broken: "), "{said:?}");
    }
    let mut lines = codec(vm(&shipped("crlf_lines")), "p");
    let said = check_splits(&mut *lines, b"HELLO d1\r\nPUB 1 a b c\r\nPING\r\n", "").expect("the same at each cut");
    assert_eq!(said.len(), 3);

    // One that looks at how much there is.
    let hasty = r#"return { codec = { longest = 10, encode = function() end, decode = function(bytes)
        if #bytes < 2 then return nil end
        return { kind = "ping" }, #bytes
    end } }"#;
    let error = check_splits(&mut *codec(vm(hasty), "p"), &[1; 6], "").expect_err("it depends on the cuts");
    assert!(error.to_string().starts_with("cut at byte 2 the stream says"), "{error}");
}

/// What a script returns that is no answer, and what it does that fails, ends the connection and nothing else.
#[test]
fn answers_that_mean_nothing_are_faults_of_the_function() {
    let said = |decode: &str| {
        let script = format!(
            "return {{ codec = {{ longest = 8, encode = function(f) return 5 end, decode = function(bytes) {decode} end }} }}"
        );
        let mut codec = codec(vm(&script), "p");
        let decoded = codec.decode(&[1, 2, 3], "").map(|decoded| format!("{decoded:?}"));
        decoded.unwrap_or_else(|error| error.to_string())
    };
    for (decode, expected) in [
        ("return 1", "decode returns a frame and its size, nil, or false and what is broken (function)"),
        ("return {}", "decode: a frame, and how many bytes of the input it takes (function)"),
        ("return { kind = 'ping' }, 4", "decode: a frame, and how many bytes of the input it takes (function)"),
        ("return { kind = 'ping' }, 0", "decode: a frame, and how many bytes of the input it takes (function)"),
        ("return { kind = 'push' }, 3", "the kind of a frame is hello, ping, publish, ack or bye (function)"),
        (
            "return { kin = 'ping' }, 3",
            "a frame has kind, tag, command, client, user, password, topic and payload (function)",
        ),
        ("return { kind = 'ping', tag = {} }, 3", "'tag' of a frame is a whole number (function)"),
        ("return { kind = 'hello', client = '\\xff' }, 3", "the client is not well-formed UTF-8 (value)"),
        ("return false", "the function does not say why (value)"),
        ("return nil, 100", "Incomplete { needed: 8 }"),
        ("return nil, 2", "Incomplete { needed: 4 }"),
        ("return nil", "Incomplete { needed: 4 }"),
        ("error('oh')", "oh (function)"),
    ] {
        assert_eq!(said(decode), expected, "{decode}");
    }
    assert!(said("while true do end").contains("(function)"));
    let mut full =
        codec(vm("return { codec = { longest = 3, encode = function() end, decode = function() end } }"), "p");
    assert_eq!(full.decode(&[1; 9], "").expect_err("too long").to_string(), "no frame within 3 bytes (too_long)");
    let mut out = Vec::new();
    let unfit = full.encode(&Frame::new(Kind::Pong), &mut out).expect_err("nothing");
    assert_eq!(unfit.to_string(), "the function does not say why (unfit)");
}

/// What is wrong in a table is found when the set is compiled, with file and place.
#[test]
fn errors_name_their_place_in_the_table() {
    let said = |codec: &str| {
        let script = format!("return {{\n  codec = {{ {codec} }},\n}}");
        let flaws = try_vm(&[("p", &script)], &Limits::default()).expect_err("it can't be");
        lines(&flaws).trim_end().to_owned()
    };
    let hello = "messages = { { kind = 'hello', client = 'c' } }";
    for (table, expected) in [
        ("", "'framing' is missing"),
        ("framin = 1", "unknown key 'framin': did you mean 'framing'?"),
        ("framing = {}", "framing: one of 'fixed', 'delimiter', 'length' and 'fields' says where a frame ends"),
        ("framing = { fixed = 5, longest = 5 }", "framing: 'fixed' has no use for 'longest'"),
        ("framing = { delimiter = '\\n' }", "framing: 'longest' is missing"),
        ("framing = { fixed = -1 }", "framing.fixed: -1 is out of range"),
        ("framing = { fixed = 1 }, fields = { { bits = 8 } }", "fields[1]: 'name' is missing"),
        (
            "framing = { fixed = 1 }, fields = { { name = 'a', bit = 8 } }",
            "fields[1]: unknown key 'bit': did you mean 'bits'?",
        ),
        (
            "framing = { fixed = 1 }, fields = { { name = 'a' } }",
            "fields[1]: a field has one of 'bits', 'bytes' and 'checksum', or a 'constant' alone",
        ),
        (
            "framing = { fixed = 1 }, fields = { { name = 'a', bits = 8, pad = ' ' } }",
            "fields[1]: field `a` has no use for 'pad'",
        ),
        (
            "framing = { fixed = 1 }, fields = { { name = 'a', bits = 8, endian = 'middle' } }",
            "fields[1].endian: expected \"big\" or \"little\"",
        ),
        (
            "framing = { fixed = 1 }, fields = { { name = 'a', bytes = 'all' } }",
            "fields[1].bytes: expected a number, \"rest\", or { field = …, plus = … }",
        ),
        (
            "framing = { fixed = 1 }, fields = { { name = 'a', checksum = 'crc' } }",
            "fields[1].checksum: expected one of crc8, crc16_x25, crc16_ccitt_false, crc16_modbus, crc32, xor, sum8",
        ),
        (
            "framing = { fixed = 1 }, messages = { { kind = 'hallo' } }",
            "messages[1].kind: expected one of hello, ping, publish, ack, bye, welcome, pong, push, accepted, refused",
        ),
        (
            "framing = { fixed = 1 }, messages = { { kind = 'ping', when = { a = 'x' } } }",
            "messages[1].when: expected whole numbers, or \"asked\"",
        ),
        (
            "framing = { fixed = 1 }, messages = { { kind = 'ping', text = 'PING' } }",
            "messages[1].text: expected a table with one entry: { field = \"PUB {topic} {payload}\" }",
        ),
        (
            &format!("framing = {{ fixed = 2 }}, fields = {{ {{ name = 'a', bits = 8 }} }}, {hello}"),
            "framing: a frame has 2 bytes, its fields have 1",
        ),
        ("framing = { fixed = 1 }, fields = { { name = 'a', bits = 8 } }", "framing: no message is a hello"),
        ("decode = print, encode = tostring", "'longest' is missing"),
        ("decode = tostring, longest = 5", "'encode' is missing"),
        (
            "decode = tostring, encode = tostring, longest = 5, answers = { 'pung' }",
            "answers[1]: expected welcome, pong, accepted, accepted_by_tag, refused or push",
        ),
        (
            "decode = tostring, encode = tostring, longest = 5, acknowledge = 'never'",
            "acknowledge: expected \"in_turn\", or the bits of a push's tag, 1 to 64",
        ),
        (
            "decode = tostring, encode = tostring, longest = 5, acknowledge = 16",
            "'acknowledge', and no \"push\" among the answers",
        ),
        (
            "decode = tostring, encode = tostring, check = tostring, longest = 5",
            "unknown function 'check': known are decode, encode",
        ),
    ] {
        let line = said(table);
        assert_eq!(line, format!("scripts/p.lua:2: codec: {expected}"), "{table}");
    }
}

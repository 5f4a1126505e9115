//! Plugins: any text, or a hook made of pieces that do harm in all combinations. Under tight limits it is compiled, loaded and asked everything.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use postroad_base::{
    ClientId, ConnectionId, Death, Extras, Message, MessageId, MonoMillis, Now, Outcome, Qos, QueueId, SessionExpiry,
    ShardId, TopicFilter, TopicName, WallMillis,
};
use postroad_broker::Resend;
use postroad_broker::api::{ClientName, Connect, DisconnectCause, Principal};
use postroad_broker::hooks::Peer;
use postroad_plugins::{Limits, Plain, PluginName, Saved, Set, Source, Stores, Vm};

use crate::input::Input;

const NOW: Now = Now { mono: MonoMillis(5_000), wall: WallMillis(1_700_000_000_000) };

/// Statements. `v` and `w` are values of the script, `f` a function; each piece may change them.
const PIECES: &[&str] = &[
    "v = m",
    "v = w",
    "w = v",
    "v = {}",
    "v = { v, w }",
    "v = 'abc%d[]^$(.-)*'",
    "v = ('ab'):rep(50)",
    "v = 0/0",
    "v = math.maxinteger",
    "v = nil",
    "v = function(...) return ... end",
    "f = v",
    "v = f",
    "v = setmetatable({}, { __index = f, __newindex = f, __call = f })",
    "v = setmetatable({}, { __len = f, __eq = f, __lt = f, __le = f, __concat = f, __tostring = f, __close = f, __pairs = f })",
    "v = coroutine.create(f)",
    "v = coroutine.wrap(f)",
    "v = coroutine.running()",
    "coroutine.yield(v)",
    "v = { coroutine.resume(v, w) }",
    "coroutine.close(v)",
    "v = { pcall(f, v, w) }",
    "v = { xpcall(f, f, v, w) }",
    "pcall(error, v)",
    "error(v)",
    "while true do end",
    "for i = 1, 300 do f(v) end",
    "f(f, v)",
    "local c <close> = v",
    "for a, b in pairs(v) do w = a end",
    "for a in next, {}, nil, v do end",
    "return v",
    "v = v .. w",
    "v = #v",
    "v = v < w",
    "v = v[w]",
    "v[w] = v",
    "v = tostring(v)",
    "v = tonumber(v)",
    "v = select('#', v, w)",
    "v = rawlen(v)",
    "rawset(v, w, v)",
    "v = string.find(v, w)",
    "v = string.match(v, w)",
    "v = string.gsub(v, w, f)",
    "v = string.gsub(v, w, w)",
    "for x in string.gmatch(v, w) do f(x) end",
    "v = string.rep(v, 1000, w)",
    "v = string.format(v, w, w)",
    "v = string.format('%q %s %5.1f', v, w, 1)",
    "v = string.pack(v, w)",
    "v = string.unpack(v, w)",
    "v = string.byte(v, 1, -1)",
    "v = utf8.len(v)",
    "v = utf8.codepoint(v, 1, -1)",
    "for p, c in utf8.codes(v) do w = c end",
    "table.insert(v, w)",
    "table.insert(v, 1, w)",
    "table.remove(v, 1)",
    "v = table.concat(v, w)",
    "v = table.unpack(v)",
    "table.move(v, 1, 9, 2, w)",
    "table.sort(v, f)",
    "table.sort(v)",
    "v = table.pack(f(v, w))",
    "v = postroad.json.encode(v)",
    "v = postroad.json.decode(v)",
    "v = postroad.msgpack.encode(v)",
    "v = postroad.msgpack.decode(v)",
    "v = postroad.array(v)",
    "v = postroad.null",
    "v = postroad.hex.encode(v)",
    "v = postroad.base64.decode(v)",
    "v = postroad.sha256(v)",
    "v = postroad.xxh64(v, 7)",
    "postroad.store.set(v, w, 5)",
    "v = postroad.store.get(v)",
    "v = postroad.store.incr('n', w)",
    "postroad.counter('c'):add(v)",
    "postroad.gauge('g'):set(v)",
    "postroad.log.debug(v, w)",
    "v = postroad.time.utc(v)",
    "v = postroad.match(v, w)",
    "m.topic = v",
    "m.payload = v",
    "m.qos = v",
    "m.ttl = v",
    "m.priority = 'high'",
    "m.content_type = v",
    "m.collapse_key = v",
    "m:set_property('k', v)",
    "v = m:property(v)",
    "v = m.topic",
    "v = m.payload",
    "v = m.properties",
    "v = m.client",
    "v = m.groups",
    "m:also { topic = 'x', payload = v }",
    "stash = m",
    "v = stash",
    "v = postroad.drop(v)",
    "v = postroad.refuse(v)",
    "v = postroad.park('n')",
    "v = postroad.split { { topic = 'x', payload = v } }",
    "v = postroad.publish { topic = 'x', payload = v }",
    "v = postroad.stop()",
    "v = postroad.deny()",
    "v = postroad.groups { 'g' }",
    "v = postroad.requeue()",
    "v[1] = w",
    "v = getmetatable(v)",
    "setmetatable(v, w)",
    "setmetatable(v, { __gc = f })",
    "v = _G",
    "v = string",
    "v = collectgarbage('count')",
];

fn limits() -> Limits {
    Limits {
        instructions: 20_000,
        load_instructions: 50_000,
        millis: 2_000,
        load_millis: 2_000,
        memory_bytes: 1 << 20,
        plugin_memory_bytes: 512 << 10,
        allocated_bytes: 4 << 20,
        block_bytes: 128 << 10,
        results: 8,
        result_bytes: 64 << 10,
        store_entries: 16,
        store_bytes: 4 << 10,
        metric_names: 4,
        log_lines: 2,
        quarantine_after: 1_000,
        depth: 8,
    }
}

/// The first byte chooses: a text as a plugin, or pieces as its hooks; the second where memory ends.
pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let chooses_text = input.byte() % 4 == 0;
    let refused = input.byte();
    let text = if chooses_text { String::from_utf8_lossy(input.0).into_owned() } else { of_pieces(input.0) };
    let bad = PluginName::new("bad").expect("a name");
    let good = PluginName::new("good").expect("a name");
    let sources = vec![Source::new(bad.clone(), "bad.lua", text), Source::new(good, "good.lua", GOOD)];
    let set = Set::from_sources(sources).expect("names differ");
    let compiled = match set.compile(&limits()) {
        Ok(compiled) => compiled,
        Err(diagnostics) => {
            assert!(diagnostics.iter().all(|diagnostic| diagnostic.plugin == bad && !diagnostic.message.is_empty()));
            return;
        }
    };
    let stores = Rc::new(RefCell::new(Stores::new()));
    let Ok(mut vm) = Vm::new(&compiled, &limits(), ShardId(0), stores) else { return };
    ask_everything(&mut vm, &bad);
    assert!(vm.figures().iter().all(|figures| figures.plugin == bad || figures.failures_in_a_row == 0));
    vm.refuse_memory_after(Some(u64::from(refused)));
    ask_everything(&mut vm, &bad);
    vm.refuse_memory_once(u64::from(refused), 1 + u64::from(refused % 3));
    ask_everything(&mut vm, &bad);
    vm.refuse_memory_after(None);
    ask_everything(&mut vm, &bad);
}

const GOOD: &str =
    "return { priority = 900, route = { filters = { '#', '$bad/#' }, run = function(m) m.payload = 'seen' end } }";

fn of_pieces(bytes: &[u8]) -> String {
    let body: String = bytes.iter().take(64).map(|byte| piece(*byte)).collect();
    let run = format!(
        "function(m, w) local v, f = 'x', function(...) if depth < 9 then depth = depth + 1 return run(m, ...) end return ... end {body} return v end"
    );
    let hooks = [
        "on_connect",
        "on_disconnect",
        "on_subscribe",
        "on_inbound",
        "route",
        "on_deliver",
        "on_dead_letter",
        "on_save",
        "on_load",
    ];
    let hooks: String =
        hooks.iter().map(|hook| format!("{hook} = function(...) depth = 0 return run(...) end, ")).collect();
    format!("stash, depth = nil, 0 run = {run} return {{ {hooks} test = {{ t = function() return run({{}}) end }} }}")
}

/// The lower bits choose it; the highest one lets the script go on after its error. A variable that is closed at the end stays one.
fn piece(byte: u8) -> String {
    let piece = PIECES[usize::from(byte & 0x7F) % PIECES.len()];
    match piece {
        "local c <close> = v" => format!("{piece} "),
        _ if byte & 0x80 != 0 => format!("pcall(function() {piece} end) "),
        _ => format!("do {piece} end "),
    }
}

fn ask_everything(vm: &mut Vm, bad: &PluginName) {
    let client = ClientId::from("c");
    let principal = Principal { user: Some("u".into()), groups: ["g".into()].into() };
    let peer = Peer { client: &client, principal: &principal, is_application: false };
    let message = message();
    let letter = Message {
        extras: Some(Box::new(Extras { death: Some(Box::new(death())), ..Extras::default() })),
        ..message.clone()
    };
    let _answers = vm.connect(NOW, &connect());
    let _answers = vm.subscribe(NOW, peer, &TopicFilter::new("a/+").expect("a filter"), Qos::AtLeastOnce);
    let _answers = vm.publish(NOW, &message, peer);
    let _places = vm.deliver(NOW, &message, &[&client, &client]);
    let _answers = vm.dead_letter(NOW, &letter);
    let _messages = vm.disconnected(NOW, peer, DisconnectCause::Lost);
    let saved = vm.save(NOW).unwrap_or_default();
    let _loaded = vm.load(NOW, &saved);
    let _loaded = vm.load(NOW, &Saved::default());
    let _outcomes = vm.self_test(NOW);
    if let Some(Ok(codec)) = vm.codec_table(bad) {
        for (_, function) in codec.functions {
            let _results = vm.call(NOW, &function, &[Plain::Bytes(Bytes::from_static(b"abc"))]);
        }
    }
    let _failures = vm.take_failures();
}

fn message() -> Message {
    Message {
        id: MessageId::default(),
        topic: TopicName::new("a/b").expect("a topic"),
        payload: Bytes::from_static(b"{\"a\":[1,2]}"),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

fn death() -> Death {
    Death {
        client: ClientId::from("d"),
        is_push: false,
        is_group: false,
        outcome: Outcome::Attempts,
        reason_code: 0,
        attempts: 3,
        sent: None,
        at: NOW.wall,
        error: None,
    }
}

fn connect() -> Connect {
    Connect {
        connection: ConnectionId(1),
        client: ClientId::from("c"),
        name: ClientName::Chosen,
        principal: Principal::default(),
        clean_start: false,
        expiry: SessionExpiry(0),
        receive_maximum: 1,
        delivery: None,
        will: None,
        hears_refusals: true,
        resend: Resend::Live,
    }
}

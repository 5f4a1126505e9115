//! What is below `postroad`, one function after the other: scripts in, text out.

mod common;

use common::*;
use expect_test::{Expect, expect};
use postroad_base as base;
use postroad_broker as broker;
use postroad_plugins::{Limits, api};
use proptest::prelude::*;

/// What an expression is, as `show` says, or how it fails.
fn eval(expression: &str) -> String {
    let script = format!(
        "local function show(...)
            local parts = {{}}
            for i = 1, select('#', ...) do
                local v = select(i, ...)
                if type(v) == 'table' then
                    local keys = {{}}
                    for k in pairs(v) do keys[#keys + 1] = k end
                    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
                    local inner = {{}}
                    for _, k in ipairs(keys) do inner[#inner + 1] = tostring(k) .. '=' .. show(v[k]) end
                    parts[i] = '{{' .. table.concat(inner, ' ') .. '}}'
                elseif type(v) == 'string' then parts[i] = ('%q'):format(v)
                elseif v == postroad.null then parts[i] = 'null'
                else parts[i] = tostring(v) end
            end
            return table.concat(parts, ', ')
        end
        return {{ route = function(m) m.payload = show({expression}) end }}"
    );
    let mut vm = vm(&script);
    let answer = publish(&mut vm, "a", "");
    let failures = failures(&mut vm);
    if !failures.is_empty() {
        return failures.trim_end().to_owned();
    }
    let broker::hooks::Decision::Replace(messages) = answer.answer else { return "nothing".to_owned() };
    String::from_utf8_lossy(&messages[0].payload).into_owned()
}

fn check(expressions: &[&str], expected: Expect) {
    let lines: Vec<String> = expressions.iter().map(|text| format!("{text}  →  {}\n", eval(text))).collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn json() {
    check(
        &[
            r#"postroad.json.decode('{"b": [1, 2.0, -3e2, "x\\u00e9\\ud83d\\ude00\\n"], "a": {"n": null, "t": true}}')"#,
            "postroad.json.decode('9223372036854775807')",
            "postroad.json.decode('9223372036854775808')",
            "postroad.json.decode('[] ')",
            "postroad.json.decode('')",
            "postroad.json.decode('{\"a\": }')",
            "postroad.json.decode('[1,\\n 2,]')",
            "postroad.json.decode('01')",
            "postroad.json.decode('1e999')",
            "postroad.json.decode('\"\\\\ud800\"')",
            "postroad.json.decode('\"a\\nb\"')",
            "postroad.json.decode('nul')",
            "postroad.json.decode('1 2')",
            "postroad.json.decode('\"\\xff\"')",
            "postroad.json.decode(7)",
            "postroad.json.encode({ b = 1, a = { 1, 2.5, 'x\"\\n\\1', true, postroad.null } })",
            "postroad.json.encode({})",
            "postroad.json.encode(postroad.array {})",
            "postroad.json.encode(postroad.json.decode('[[],{}]'))",
            "postroad.json.encode({ 1, nil, 3 })",
            "postroad.json.encode({ [2] = 'x' })",
            "postroad.json.encode(1e300), postroad.json.encode(1.0), postroad.json.encode(-0.0)",
            "postroad.json.encode(0/0)",
            "postroad.json.encode('\\xff')",
            "postroad.json.encode(print or function() end)",
            "postroad.json.encode(nil)",
        ],
        expect![[r#"
            postroad.json.decode('{"b": [1, 2.0, -3e2, "x\\u00e9\\ud83d\\ude00\\n"], "a": {"n": null, "t": true}}')  →  {a={n=null t=true} b={1=1 2=2.0 3=-300.0 4="xé😀\
            "}}
            postroad.json.decode('9223372036854775807')  →  9223372036854775807
            postroad.json.decode('9223372036854775808')  →  9.2233720368548e+18
            postroad.json.decode('[] ')  →  {}
            postroad.json.decode('')  →  nil, "the text ends too early, at byte 1 (line 1)"
            postroad.json.decode('{"a": }')  →  nil, "not a value, at byte 7 (line 1)"
            postroad.json.decode('[1,\n 2,]')  →  nil, "not a value, at byte 8 (line 2)"
            postroad.json.decode('01')  →  nil, "not a number, at byte 3 (line 1)"
            postroad.json.decode('1e999')  →  nil, "the number is too large, at byte 6 (line 1)"
            postroad.json.decode('"\\ud800"')  →  nil, "half a surrogate pair, at byte 8 (line 1)"
            postroad.json.decode('"a\nb"')  →  nil, "a control character in a string, at byte 4 (line 2)"
            postroad.json.decode('nul')  →  nil, "not a value, at byte 1 (line 1)"
            postroad.json.decode('1 2')  →  nil, "something behind the value, at byte 3 (line 1)"
            postroad.json.decode('"\xff"')  →  nil, "a string is not UTF-8, at byte 3 (line 1)"
            postroad.json.decode(7)  →  p.lua:18: route: argument 1: expected a string
            postroad.json.encode({ b = 1, a = { 1, 2.5, 'x"\n\1', true, postroad.null } })  →  "{\"a\":[1,2.5,\"x\\\"\\n\\u0001\",true,null],\"b\":1}"
            postroad.json.encode({})  →  "{}"
            postroad.json.encode(postroad.array {})  →  "[]"
            postroad.json.encode(postroad.json.decode('[[],{}]'))  →  "[[],{}]"
            postroad.json.encode({ 1, nil, 3 })  →  nil, "a key of an object is no string: use postroad.array for arrays with gaps"
            postroad.json.encode({ [2] = 'x' })  →  nil, "a key of an object is no string: use postroad.array for arrays with gaps"
            postroad.json.encode(1e300), postroad.json.encode(1.0), postroad.json.encode(-0.0)  →  "1e300", "1.0", "-0.0"
            postroad.json.encode(0/0)  →  nil, "JSON has no NaN and no infinity"
            postroad.json.encode('\xff')  →  nil, "a string is not UTF-8: use postroad.base64.encode"
            postroad.json.encode(print or function() end)  →  nil, "a function can't be written"
            postroad.json.encode(nil)  →  "null"
        "#]],
    );
}

#[test]
fn msgpack() {
    check(
        &[
            "postroad.hex.encode(postroad.msgpack.encode({ 1, -1, 127, 128, 256, 65536, 4294967296, -33, -129, -32769, -2147483649 }))",
            "postroad.hex.encode(postroad.msgpack.encode({ a = 1.5, b = 0.1, c = 'x', d = '\\xff', e = true, f = postroad.null }))",
            "postroad.hex.encode(postroad.msgpack.encode(postroad.array {})), postroad.hex.encode(postroad.msgpack.encode({}))",
            "postroad.msgpack.decode(postroad.hex.decode('93c001cb3ff8000000000000'))",
            "postroad.msgpack.decode(postroad.hex.decode('cfffffffffffffffff'))",
            "postroad.msgpack.decode(postroad.hex.decode('82a161ca3fc0000001c3'))",
            "postroad.msgpack.decode(postroad.hex.decode('dd7fffffff'))",
            "postroad.msgpack.decode(postroad.hex.decode('81c001'))",
            "postroad.msgpack.decode(postroad.hex.decode('d40001'))",
            "postroad.msgpack.decode(postroad.hex.decode('c1'))",
            "postroad.msgpack.decode(postroad.hex.decode('0101'))",
            "postroad.msgpack.decode('')",
        ],
        expect![[r#"
            postroad.hex.encode(postroad.msgpack.encode({ 1, -1, 127, 128, 256, 65536, 4294967296, -33, -129, -32769, -2147483649 }))  →  "9b01ff7fcc80cd0100ce00010000cf0000000100000000d0dfd1ff7fd2ffff7fffd3ffffffff7fffffff"
            postroad.hex.encode(postroad.msgpack.encode({ a = 1.5, b = 0.1, c = 'x', d = '\xff', e = true, f = postroad.null }))  →  "86a161ca3fc00000a162cb3fb999999999999aa163a178a164c401ffa165c3a166c0"
            postroad.hex.encode(postroad.msgpack.encode(postroad.array {})), postroad.hex.encode(postroad.msgpack.encode({}))  →  "90", "80"
            postroad.msgpack.decode(postroad.hex.decode('93c001cb3ff8000000000000'))  →  {1=null 2=1 3=1.5}
            postroad.msgpack.decode(postroad.hex.decode('cfffffffffffffffff'))  →  1.844674407371e+19
            postroad.msgpack.decode(postroad.hex.decode('82a161ca3fc0000001c3'))  →  {1=true a=1.5}
            postroad.msgpack.decode(postroad.hex.decode('dd7fffffff'))  →  nil, "the bytes end too early, at byte 6"
            postroad.msgpack.decode(postroad.hex.decode('81c001'))  →  nil, "a key that Lua's tables can't have, at byte 3"
            postroad.msgpack.decode(postroad.hex.decode('d40001'))  →  nil, "extensions are not read, at byte 2"
            postroad.msgpack.decode(postroad.hex.decode('c1'))  →  nil, "a byte that MessagePack never uses, at byte 2"
            postroad.msgpack.decode(postroad.hex.decode('0101'))  →  nil, "something behind the value, at byte 2"
            postroad.msgpack.decode('')  →  nil, "the bytes end too early, at byte 1"
        "#]],
    );
}

#[test]
fn hashes_and_encodings() {
    // Of "123456789" and "": published check values.
    check(
        &[
            "('%08x'):format(postroad.crc32('123456789'))",
            "postroad.hex.encode(postroad.sha256('abc'))",
            "('%016x'):format(postroad.fnv1a('')), ('%016x'):format(postroad.fnv1a('a'))",
            "('%016x'):format(postroad.xxh64('')), ('%016x'):format(postroad.xxh64('', 1))",
            "postroad.hex.encode('\\0\\xffa'), postroad.hex.decode('00FFff')",
            "postroad.hex.decode('0')",
            "postroad.hex.decode('0g')",
            "postroad.base64.encode(''), postroad.base64.encode('f'), postroad.base64.encode('fo'), postroad.base64.encode('foo'), postroad.base64.encode('foob')",
            "postroad.base64.decode('Zm9vYg=='), postroad.base64.decode('Zm9vYg'), postroad.base64.decode('')",
            "postroad.base64.decode('Zm9vY')",
            "postroad.base64.decode('Zm9v!m9v')",
            "postroad.base64.decode('Zh')",
        ],
        expect![[r#"
            ('%08x'):format(postroad.crc32('123456789'))  →  "cbf43926"
            postroad.hex.encode(postroad.sha256('abc'))  →  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            ('%016x'):format(postroad.fnv1a('')), ('%016x'):format(postroad.fnv1a('a'))  →  "cbf29ce484222325", "af63dc4c8601ec8c"
            ('%016x'):format(postroad.xxh64('')), ('%016x'):format(postroad.xxh64('', 1))  →  "ef46db3751d8e999", "d5afba1336a3be4b"
            postroad.hex.encode('\0\xffa'), postroad.hex.decode('00FFff')  →  "00ff61", "\0��"
            postroad.hex.decode('0')  →  nil, "an odd number of hexadecimal digits"
            postroad.hex.decode('0g')  →  nil, "not a pair of hexadecimal digits"
            postroad.base64.encode(''), postroad.base64.encode('f'), postroad.base64.encode('fo'), postroad.base64.encode('foo'), postroad.base64.encode('foob')  →  "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="
            postroad.base64.decode('Zm9vYg=='), postroad.base64.decode('Zm9vYg'), postroad.base64.decode('')  →  "foob", "foob", ""
            postroad.base64.decode('Zm9vY')  →  nil, "not the length of base64"
            postroad.base64.decode('Zm9v!m9v')  →  nil, "not a letter of base64"
            postroad.base64.decode('Zh')  →  nil, "bits behind the end of base64"
        "#]],
    );
}

#[test]
fn times_and_topics() {
    check(
        &[
            "postroad.now()",
            "postroad.time.utc(1700000000123)",
            "postroad.time.utc(0, -60)",
            "postroad.time.utc(951782400000, 330)",
            "postroad.time.utc(-1)",
            "postroad.time.text(1700000000999)",
            "postroad.match('a/+/c/#', 'a/b/c'), postroad.match('#', '$SYS/x'), postroad.match('a', 'b')",
            "postroad.match('a/#/b', 'a')",
        ],
        expect![[r#"
            postroad.now()  →  1700000000000
            postroad.time.utc(1700000000123)  →  {day=14 hour=22 millisecond=123 minute=13 month=11 second=20 weekday=2 year=2023}
            postroad.time.utc(0, -60)  →  p.lua:18: route: argument 2: expected an offset that leads to a time from 1970 to the year 9999
            postroad.time.utc(951782400000, 330)  →  {day=29 hour=5 millisecond=0 minute=30 month=2 second=0 weekday=2 year=2000}
            postroad.time.utc(-1)  →  p.lua:18: route: argument 1: expected milliseconds since 1970, up to the year 9999
            postroad.time.text(1700000000999)  →  "2023-11-14T22:13:20Z"
            postroad.match('a/+/c/#', 'a/b/c'), postroad.match('#', '$SYS/x'), postroad.match('a', 'b')  →  true, false, false
            postroad.match('a/#/b', 'a')  →  p.lua:18: route: argument 1: expected a topic filter
        "#]],
    );
}

#[test]
fn the_store_is_a_plugins_own_and_outlives_its_vm() {
    let stores = stores();
    let script = "return { route = function(m)
        m.payload = tostring(postroad.store.incr('n')) .. tostring(postroad.store.get('ttl')) .. tostring(postroad.store.get('x'))
        if not postroad.store.get('x') then postroad.store.set('ttl', 'here', 10) postroad.store.set('x', 1.5) end
    end }";
    let compiled = set(&[("a", script), ("b", script)]).compile(&Limits::default()).expect("compiled");
    let mut now = NOW;
    let mut said = Vec::new();
    for wait in [0, 9_999, 1] {
        now.mono = now.mono.after(wait);
        let mut vm =
            postroad_plugins::Vm::new(&compiled, &Limits::default(), base::ShardId(0), stores.clone()).expect("loaded");
        said.push(show(&vm.publish(now, &message("a", ""), Someone::new().peer())));
    }
    expect![[r#"
        replace
          a "1nilnil"
        replace
          a "2here1.5"
        replace
          a "3nil1.5""#]]
    .assert_eq(&said.join("\n"));
    let name = |text| postroad_plugins::PluginName::new(text).expect("a name");
    assert_eq!(stores.borrow().used_by(&name("a")).0, 2);
    stores.borrow_mut().keep_only(|plugin| *plugin == name("b"));
    assert_eq!(stores.borrow().used_by(&name("a")), (0, 0));
}

#[test]
fn metrics_are_a_plugins_own() {
    let script = "local c = postroad.counter('seen') return { route = function(m) c:add(2) c:add() postroad.gauge('size'):set(#m.payload / 2) end }";
    let mut vm = vm_with(&[("a", script), ("b", script)], &Limits::default());
    publish(&mut vm, "a", "12345");
    publish(&mut vm, "a", "123");
    for figures in vm.figures() {
        assert_eq!(figures.counters.get("seen"), Some(&6));
        assert_eq!(figures.gauges.get("size"), Some(&1.5));
    }
}

#[test]
fn lines_of_log_are_counted_when_there_are_too_many() {
    let mut vm = vm("return { route = function(m) for i = 1, 150 do postroad.log.debug('line', i, true, {}) end end }");
    publish(&mut vm, "a", "");
    assert_eq!(vm.figures()[0].log_lines_dropped, 50);
}

/// What is installed is what the table says, name by name.
#[test]
fn the_table_of_the_api_is_what_scripts_find() {
    for entry in api::ENTRIES {
        let said = eval(&format!("type(postroad.{})", entry.name));
        assert_eq!(said, if entry.is_function() { "\"function\"" } else { "\"userdata\"" }, "{}", entry.name);
    }
    for (library, name) in postroad_plugins::sandbox::names() {
        let path = library.map_or(name.to_owned(), |library| format!("{library}.{name}"));
        assert_ne!(eval(&format!("type({path})")), "\"nil\"", "{path}");
    }
    let signatures: Vec<String> = api::ENTRIES.iter().map(api::Entry::signature).collect();
    expect![[r#"
        postroad.drop(reason?) -> answer
        postroad.refuse(reason, text?) -> answer
        postroad.park(note) -> answer
        postroad.split(messages) -> answer
        postroad.stop() -> answer
        postroad.deny(reason?, text?) -> answer
        postroad.groups(names) -> answer
        postroad.requeue() -> answer
        postroad.publish(messages) -> answer
        postroad.match(filter, topic) -> matches
        postroad.now() -> ms
        postroad.log.debug(...)
        postroad.log.info(...)
        postroad.log.warn(...)
        postroad.log.error(...)
        postroad.counter(name) -> counter
        postroad.gauge(name) -> gauge
        postroad.store.get(key) -> value
        postroad.store.set(key, value, ttl?) -> is_stored
        postroad.store.incr(key, by?, ttl?) -> value
        postroad.store.delete(key) -> was_there
        postroad.null
        postroad.array(table?) -> array
        postroad.json.encode(value) -> bytes, error?
        postroad.json.decode(text) -> value, error?
        postroad.msgpack.encode(value) -> bytes, error?
        postroad.msgpack.decode(bytes) -> value, error?
        postroad.crc32(bytes) -> hash
        postroad.sha256(bytes) -> digest
        postroad.fnv1a(bytes) -> hash
        postroad.xxh64(bytes, seed?) -> hash
        postroad.hex.encode(bytes) -> text
        postroad.hex.decode(text) -> value, error?
        postroad.base64.encode(bytes) -> text
        postroad.base64.decode(text) -> value, error?
        postroad.time.utc(ms, offset?) -> fields
        postroad.time.text(ms) -> text"#]]
    .assert_eq(&signatures.join("\n"));
}

#[derive(Clone, Debug)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Array(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// As a text of Lua.
    fn lua(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Integer(i64::MIN) => "math.mininteger".to_owned(),
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => format!("{value:?}"),
            Self::Text(text) => quoted(text),
            Self::Array(values) => {
                format!("postroad.array {{ {} }}", values.iter().map(Self::lua).collect::<Vec<_>>().join(", "))
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("[{}] = {}", quoted(key), value.lua()));
                format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let bytes: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("'{bytes}'")
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Integer),
        prop::num::f64::NORMAL.prop_map(Value::Number),
        "[a-zé\"\\\\\n\u{1}😀]{0,40}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec(("[a-z]{1,3}", inner), 0..5).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded(value in value()) {
        let text = value.lua();
        for codec in ["json", "msgpack"] {
            let same = eval(&format!(
                "(function()
                    local once = postroad.{codec}.encode({text})
                    local again = postroad.{codec}.encode(postroad.{codec}.decode(once))
                    return once == again or {{ once, again }}
                end)()"
            ));
            prop_assert_eq!(same, "true");
        }
        let direct = eval(&format!("postroad.json.encode(postroad.msgpack.decode(postroad.msgpack.encode({text})))"));
        prop_assert_eq!(direct, eval(&format!("postroad.json.encode({text})")));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        for codec in ["json", "msgpack", "hex", "base64"] {
            let said = eval(&format!("type(postroad.{codec}.decode('{bytes}'))"));
            prop_assert!(said.starts_with('"'), "{codec}: {said}");
        }
    }
}

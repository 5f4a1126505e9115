use expect_test::{Expect, expect};

use super::*;

/// A plugin that does something in each hook.
const PLUGIN: &str = r#"
local seen = 0
return {
  description = "for the tests of the kit",
  route = function(message)
    seen = seen + 1
    postroad.counter("routed"):add(1)
    postroad.gauge("seen"):set(seen)
    if message.topic == "drop" then return postroad.drop("not wanted") end
    if message.topic == "refuse" then return postroad.refuse("quota_exceeded", "too much") end
    if message.topic == "park" then return postroad.park("look at it") end
    if message.topic == "fail" then error("on purpose") end
    if message.topic == "split" then
      return postroad.split { { topic = "a" }, { topic = "b", payload = "other" } }, postroad.publish { { topic = "log/split" } }
    end
    if message.topic == "move" then
      message.topic = "moved/" .. message.client
      message.priority = "high"
      message.ttl = 60
      message:set_property("from", "move")
    end
    if postroad.store.get("block") then return postroad.drop("blocked") end
  end,
  on_deliver = function(message, clients)
    local gets = {}
    for place, name in ipairs(clients) do
      if name:sub(1, 1) == "x" then gets[place] = false end
    end
    return gets
  end,
  on_dead_letter = function(letter)
    if letter.reason == "too_large" then
      letter.payload = letter.payload:sub(1, 3)
      letter.ttl = 30
      return postroad.requeue()
    elseif letter.attempts > 5 then
      return postroad.drop("hopeless")
    elseif letter.topic == "old" then
      letter.topic = "new"
      return postroad.requeue()
    elseif letter.topic == "odd" then
      return postroad.park("odd")
    end
  end,
  on_connect = function(client)
    if client.user == nil then return postroad.deny("banned") end
    return postroad.groups { "staff" }, postroad.publish { { topic = "hello/" .. client.client } }
  end,
  on_disconnect = function(client) return postroad.publish { { topic = "bye/" .. client.cause } } end,
  on_subscribe = function(subscription)
    if subscription.filter == "secret" then return postroad.deny() end
    subscription.qos = 0
  end,
  on_save = function() return { seen = seen } end,
  on_load = function(previous) seen = previous and previous.seen or 0 end,
  test = {
    passes = function() assert(1 == 1) end,
    fails = function() assert(1 == 2, "one is not two") end,
  },
}
"#;

fn source() -> Source {
    Source::new(PluginName::new("demo").expect("a name"), "scripts/demo.lua", PLUGIN)
}

fn ran(test_text: &str) -> Report {
    let file = TestFile { file: "scripts/demo_test.lua".to_owned(), text: test_text.to_owned() };
    test(&source(), Some(&file), &Limits::default(), |name| !name.starts_with("self-test"))
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for CaseReport { name, printed, failure } in &report.cases {
        text += &format!("{} {name}\n", if failure.is_some() { "failed" } else { "ok" });
        printed.iter().for_each(|line| text += &format!("  | {line}\n"));
        failure.iter().for_each(|failure| text += &format!("  {failure}\n"));
    }
    report.broken.iter().for_each(|flaw| text += &format!("broken {flaw}\n"));
    text
}

#[expect(clippy::needless_pass_by_value, reason = "as expect-test is used")]
fn check(test_text: &str, expected: Expect) {
    expected.assert_eq(&shown(&ran(test_text)));
}

/// One case with this body.
#[expect(clippy::needless_pass_by_value, reason = "as expect-test is used")]
fn check_case(body: &str, expected: Expect) {
    expected.assert_eq(&shown(&ran(&format!("return {{\n  case = function(t)\n{body}\n  end,\n}}"))));
}

#[test]
fn what_becomes_of_a_publish_is_told() {
    check(
        r#"
return {
  ["each action"] = function(t)
    for _, topic in ipairs { "other", "drop", "refuse", "park", "move", "split" } do
      t.print(topic, t.publish { topic = topic, payload = "x", properties = { a = "1" } })
    end
  end,
}"#,
        expect![[r#"
            ok each action
              | other { action = "keep", besides = {}, messages = { { payload = "x", priority = "normal", properties = { a = "1" }, qos = 1, retain = false, topic = "other" } } }
              | drop { action = "drop", besides = {}, messages = {} }
              | refuse { action = "refuse", besides = {}, messages = {}, reason = "quota_exceeded", reason_code = 151 }
              | park { action = "park", besides = {}, messages = {}, note = "look at it" }
              | move { action = "replace", besides = {}, messages = { { payload = "x", priority = "high", properties = { a = "1", from = "move" }, qos = 1, retain = false, topic = "moved/tester", ttl = 60 } } }
              | split { action = "replace", besides = { { payload = "", priority = "normal", qos = 0, retain = false, topic = "log/split" } }, messages = { { payload = "x", priority = "normal", properties = { a = "1" }, qos = 1, retain = false, topic = "a" }, { payload = "other", priority = "normal", properties = { a = "1" }, qos = 1, retain = false, topic = "b" } } }
        "#]],
    );
}

#[test]
fn every_hook_can_be_asked() {
    check_case(
        r#"
    t.print(t.deliver { topic = "a", clients = { "x1", "a1", "x2", "b" } })
    for _, letter in ipairs {
      { topic = "a", payload = "abcdef", reason = "too_large" }, { topic = "a", attempts = 6 }, { topic = "old", payload = "p" },
      { topic = "odd" }, { topic = "a", requeues = 1, error = "no" },
    } do t.print(t.dead_letter(letter)) end
    t.print(t.connect { client = "c" })
    t.print(t.connect { client = "c", user = "u", groups = { "g" } })
    t.print(t.disconnect { client = "c", cause = "normal" }.besides[1].topic)
    t.print(t.subscribe { filter = "a/#", qos = 2 }, t.subscribe { filter = "secret" })
"#,
        expect![[r#"
            ok case
              | { "a1", "b" }
              | { action = "requeue", besides = {}, letter = { payload = "abc", priority = "normal", qos = 1, retain = false, topic = "a", ttl = 30 } }
              | { action = "drop", besides = {} }
              | { action = "publish", besides = {}, letter = { payload = "p", priority = "normal", qos = 1, retain = false, topic = "new" } }
              | { action = "park", besides = {}, note = "odd" }
              | { action = "keep", besides = {}, letter = { payload = "", priority = "normal", qos = 1, retain = false, topic = "a" } }
              | { allowed = false, besides = {}, reason = "banned", reason_code = 138 }
              | { allowed = true, besides = { { payload = "", priority = "normal", qos = 0, retain = false, topic = "hello/c" } }, groups = { "staff" } }
              | bye/normal
              | { besides = {}, qos = 0 } { besides = {}, reason = "not_authorized", reason_code = 135 }
        "#]],
    );
}

#[test]
fn a_case_has_a_world_of_its_own() {
    check(
        r#"
return {
  ["counts from 0"] = function(t)
    t.equal(t.counter("routed"), 0)
    t.equal(t.gauge("seen"), nil)
    t.publish { topic = "a" }
    t.publish { topic = "a" }
    t.equal({ t.counter("routed"), t.gauge("seen") }, { 2, 2 })
    t.reload()
    t.publish { topic = "a" }
    t.equal(t.gauge("seen"), 3)
    seen_by_the_file = 1
  end,
  ["and the next one again"] = function(t)
    t.equal(t.counter("routed"), 0)
    t.equal(seen_by_the_file, nil)
  end,
  ["the clock stands still"] = function(t)
    t.equal(postroad.time.text(t.now()), "2026-01-01T00:00:00Z")
    t.equal(t.advance(90000), t.now())
    t.equal(postroad.time.text(postroad.now()), "2026-01-01T00:01:30Z")
  end,
  ["the store is the plugin's"] = function(t)
    postroad.store.set("block", true, 5)
    t.equal(t.publish { topic = "a" }.action, "drop")
    t.advance(5000)
    t.equal(t.publish { topic = "a" }.action, "keep")
  end,
}"#,
        expect![[r#"
            ok counts from 0
            ok and the next one again
            ok the clock stands still
            ok the store is the plugin's
        "#]],
    );
}

#[test]
fn failures_of_the_plugin_fail_the_case_that_does_not_ask() {
    check(
        r#"
return {
  ["asks"] = function(t)
    t.equal(t.publish { topic = "fail" }.action, "keep")
    local failures = t.failures()
    t.equal(#failures, 1)
    t.matches(failures[1].text, "on purpose")
    t.equal({ failures[1].hook, failures[1].line }, { "route", 12 })
    t.equal(t.failures(), {})
  end,
  ["does not ask"] = function(t)
    t.publish { topic = "fail" }
    t.publish { topic = "fail" }
  end,
}"#,
        expect![[r#"
            ok asks
            failed does not ask
              scripts/demo.lua:12: route: on purpose (and 1 more); if the case expects that, it asks t.failures()
        "#]],
    );
}

#[test]
fn assertions_say_what_they_got() {
    check(
        r#"
return {
  ["equal"] = function(t) t.equal(1, 1.0); t.equal({ a = { 1, 2 } }, { a = { 1, 2 } }); t.equal("a\n\xff\"", "b") end,
  ["deep"] = function(t)
    t.equal({ a = { 1, { b = "x" } }, c = true, ["d e"] = 1 }, { a = { 1, { b = "y" } }, ["d e"] = 2, f = {} })
  end,
  ["ok"] = function(t) t.ok(1); t.ok(nil, "there must be one") end,
  ["contains"] = function(t)
    t.contains("abc", "b"); t.contains({ 1, 2 }, 2); t.contains({ a = 1, b = { c = 2, d = 3 } }, { b = { c = 2 } })
    t.contains({ { a = 1 }, { a = 2, b = 3 } }, { a = 2 }); t.contains({ 1, 2, 3 }, { 1, 2 })
    t.contains({ { a = 1 }, { a = 2 } }, { a = 3 })
  end,
  ["matches"] = function(t) t.matches("abc", "^a.c$"); t.matches("abc", "^b") end,
  ["raises"] = function(t)
    t.equal(t.raises(function() error("x") end, "x"), "demo_test.lua:15: x")
    t.raises(function() end)
  end,
  ["another"] = function(t) t.raises(function() error({ 1 }) end, "y") end,
  ["fail"] = function(t) t.fail("never") end,
  ["error"] = function(t) local x = nil; return x.y end,
  ["helper"] = function(t)
    local function helper(value) t.equal(value, 2) end
    helper(1)
  end,
}"#,
        expect![[r#"
            failed equal
              scripts/demo_test.lua:3: not equal
              expected "b"
              got      "a\n\xff\""
            failed deep
              scripts/demo_test.lua:5: not equal
            at a[2].b
              expected "y"
              got      "x"
            at c
              expected nil
              got      true
            at ["d e"]
              expected 2
              got      1
            at f
              expected {}
              got      nil
            failed ok
              scripts/demo_test.lua:7: there must be one
              expected something true
              got      nil
            failed contains
              scripts/demo_test.lua:11: does not contain
              expected { a = 3 }
              in       { { a = 1 }, { a = 2 } }
            failed matches
              scripts/demo_test.lua:13: does not match
              expected "^b"
              got      "abc"
            failed raises
              scripts/demo_test.lua:16: no error was raised
            failed another
              scripts/demo_test.lua:18: another error was raised
              expected "y"
              got      "{ 1 }"
            failed fail
              scripts/demo_test.lua:19: never
            failed error
              scripts/demo_test.lua:20: attempt to index a nil value (local 'x')
            failed helper
              scripts/demo_test.lua:22: not equal
              expected 2
              got      1
        "#]],
    );
}

#[test]
fn what_a_question_lacks_is_said_at_the_line_that_asks() {
    for (body, wrong) in [
        ("t.publish { topik = 'a', payload = '' }", "topic: a message has one"),
        ("t.publish { topic = 'a', paylod = '' }", "message: unknown key \"paylod\": did you mean \"payload\"?"),
        ("t.publish { topic = 'a/#' }", "topic: \"a/#\": "),
        ("t.publish { topic = 'a', qos = 3 }", "message: qos: expected a whole number from 0 to 2, got 3"),
        ("t.publish { topic = 'a', groups = 'g' }", "message: groups: expected a list of texts, got \"g\""),
        (
            "t.publish { topic = 'a', properties = { 'x' } }",
            "message: properties: expected a table of texts by names, got a list",
        ),
        ("t.publish { topic = 'a', payload = t.publish }", "t.publish: a function is no plain data"),
        ("t.dead_letter { topic = 'a', reason = 'gone' }", "reason: \"gone\" is none; they are "),
        ("t.disconnect { cause = 'x' }", "cause: \"x\" is none; they are normal, with_will, lost, shutdown"),
        ("t.subscribe { qos = 1 }", "filter: a subscription has one"),
        ("t.advance(-1)", "advance: expected milliseconds, a number from 0 on"),
        ("t.pubish { topic = 'a' }", "t.pubish: there is none; did you mean t.publish?"),
        ("t.equals(1, 1)", "t.equals: there is none; did you mean t.equal?"),
    ] {
        let report = ran(&format!("return {{\n  case = function(t)\n    {body}\n  end,\n}}"));
        let failure = report.cases[0].failure.as_ref().expect("it fails");
        assert!(failure.message.starts_with(wrong), "{body}: {failure}");
        assert_eq!((&*failure.file, failure.line), ("scripts/demo_test.lua", Some(3)), "{body}");
    }
}

#[test]
fn a_file_that_is_no_test_file_is_said_to_be_none() {
    for (text, wrong) in [
        ("return 1", "scripts/demo_test.lua: a test file must return a table of functions"),
        ("return { 1 }", "scripts/demo_test.lua: a test file returns functions under names; [\"?\"] is a number"),
        ("\nx = = 1", "scripts/demo_test.lua:2: unexpected symbol near '='"),
        ("\nerror('no')", "scripts/demo_test.lua:2: no"),
        ("io.open('x')", "scripts/demo_test.lua:1: attempt to index a nil value (global 'io')"),
    ] {
        let report = ran(text);
        assert!(!report.is_good());
        assert_eq!(report.broken[0].to_string(), wrong);
    }
}

#[test]
fn self_tests_are_run_too() {
    let report = test(&source(), None, &Limits::default(), |_| true);
    expect![[r#"
        failed self-test: fails
          scripts/demo.lua:58: test: one is not two
        ok self-test: passes
    "#]]
    .assert_eq(&shown(&report));
    assert!(!report.is_good());
}

#[test]
fn a_plugin_that_does_not_load_is_broken() {
    let source = Source::new(PluginName::new("bad").expect("a name"), "bad.lua", "return {\n rout = function() end }");
    let report = test(&source, None, &Limits::default(), |_| true);
    expect![[r#"
        broken bad.lua:2: rout: unknown key 'rout': did you mean 'route'?
    "#]]
    .assert_eq(&shown(&report));
}

const FRAMES: &str = r#"
return {
  codec = {
    decode = function(bytes)
      if #bytes < 2 then return nil, 2 end
      local length = bytes:byte(2)
      if bytes:sub(1, 1) ~= "P" then return false, "no P" end
      if #bytes < 2 + length then return nil, 2 + length end
      return { kind = "publish", topic = "a", payload = bytes:sub(3, 2 + length) }, 2 + length
    end,
    encode = function(frame) return "S" .. string.char(#frame.payload) .. frame.payload end,
    longest = 300,
    answers = { "push" },
  },
}
"#;

#[test]
fn frames_are_read_at_every_split() {
    let plugin = |text: &str| Source::new(PluginName::new("frames").expect("a name"), "frames.lua", text);
    let tests = r#"
return {
  ["decode"] = function(t) t.print(t.decode("P\1xrest"), t.decode("P"), t.decode("Q\0")) end,
  ["splits"] = function(t)
    t.every_split("P\1xP\0P\3abc", { { payload = "x" }, { payload = "" }, { topic = "a", payload = "abc" } })
  end,
  ["others"] = function(t) t.every_split("P\1x", { { payload = "y" } }) end,
  ["left"] = function(t) t.every_split("P\1xP") end,
  ["encode"] = function(t) t.equal(t.encode { kind = "push", topic = "a", payload = "hi" }, "S\2hi") end,
}"#;
    let file = TestFile { file: "frames_test.lua".to_owned(), text: tests.to_owned() };
    let report = test(&plugin(FRAMES), Some(&file), &Limits::default(), |_| true);
    expect![[r#"
        ok decode
          | { frame = { command = 0, kind = "publish", payload = "x", topic = "a" }, size = 3 } { needed = 2 } { broken = "value", detail = "no P" }
        ok splits
        failed others
          frames_test.lua:7: other frames than expected
        at [1].payload
          expected "y"
          got      "x"
        failed left
          frames_test.lua:8: 1 bytes are left at the end, which are no frame before there are 2
        ok encode
    "#]].assert_eq(&shown(&report));
    // It looks at what has come so far: the mistake that this is for.
    let careless = FRAMES
        .replace("if #bytes < 2 + length then return nil, 2 + length end", "length = math.min(length, #bytes - 2)");
    let report = test(&plugin(&careless), Some(&file), &Limits::default(), |name| name == "splits");
    expect![[r#"
        failed splits
          frames_test.lua:5: cut at byte 2 the stream says ["Frame { kind: Publish, tag: None, command: 0, client: \"\", user: None, password: None, topic: \"a\", payload: [], reason: 0 }", "broken: value"], and as a whole ["Frame { kind: Publish, tag: None, command: 0, client: \"\", user: None, password: None, topic: \"a\", payload: [120], reason: 0 }", "Frame { kind: Publish, tag: None, command: 0, client: \"\", user: None, password: None, topic: \"a\", payload: [], reason: 0 }", "Frame { kind: Publish, tag: None, command: 0, client: \"\", user: None, password: None, topic: \"a\", payload: [97, 98, 99], reason: 0 }"]
    "#]].assert_eq(&shown(&report));
    let report = ran("return { a = function(t) t.decode('x') end }");
    expect![[r#"
        failed a
          scripts/demo_test.lua:1: the plugin has no codec
    "#]]
    .assert_eq(&shown(&report));
}

/// Nothing that a test does takes for ever, nor all memory; and the kit goes on behind it.
#[test]
fn a_test_is_bounded_too() {
    let report = ran("return { a = function(t) local x = 'x' while true do x = x .. x end end, b = function() end }");
    let outcomes: Vec<bool> = report.cases.iter().map(|case| case.failure.is_none()).collect();
    assert_eq!(outcomes, [false, true]);
    assert!(report.cases[0].failure.as_ref().is_some_and(|failure| failure.message.starts_with("not enough memory")));
}

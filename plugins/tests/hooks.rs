//! What hooks say, and what the broker is told.

mod common;

use common::*;
use expect_test::{Expect, expect};
use postroad_plugins::Limits;

/// Publishes `a/b` with payload `hello` through one script.
fn check(script: &str, expected: Expect) {
    let mut vm = vm(script);
    let answer = publish(&mut vm, "a/b", "hello");
    expected.assert_eq(&format!("{}\n{}", show(&answer), failures(&mut vm)));
}

#[test]
fn a_hook_that_says_nothing_keeps_the_message() {
    check(
        "return { route = function(message) local t = message.topic end }",
        expect![[r#"
        keep
    "#]],
    );
}

#[test]
fn what_is_set_goes_on() {
    check(
        r#"return { route = function(message)
            message.topic = "new/" .. message.topic
            message.payload = message.payload:upper()
            message.qos = 0
            message.retain = true
            message.priority = "high"
            message.ttl = 60
            message.collapse_key = "k"
            message.retry_attempts_max = 3
            message.retry_age_max = 0.5
            message.deliver_at = postroad.now() + 1000
            message.content_type = "text/plain"
            message:set_property("colour", "red")
        end }"#,
        expect![[r#"
            replace
              new/a/b "HELLO" qos=0 retain ttl=60 priority=high deliver_at=1700000001000 collapse_key=k attempts_max=3 age_max_ms=500 content_type=text/plain colour:red
        "#]],
    );
}

#[test]
fn everything_can_be_read() {
    check(
        r##"return { on_inbound = function(m)
            m.payload = table.concat({
                m.topic, m.payload, m.qos, tostring(m.retain), m.priority, tostring(m.ttl), tostring(m.deliver_at),
                tostring(m.collapse_key), tostring(m.retry_attempts_max), tostring(m.retry_age_max), tostring(m.content_type),
                tostring(next(m.properties)), m.client, m.user, table.concat(m.groups, "+"), tostring(m.is_application),
                tostring(m.id), tostring(m:property("x")) }, " ")
        end }"##,
        expect![[r#"
            replace
              a/b "a/b hello 1 false normal nil nil nil nil nil nil nil c1 ann staff+night false nil nil"
        "#]],
    );
}

#[test]
fn user_properties_keep_their_place() {
    check(
        r##"return {
            priority = 1,
            route = function(m)
                m:set_property("a", "1") m:set_property("b", "2") m:set_property("c", "3")
                return postroad.publish { topic = "besides", properties = { z = "26", y = "25" }, content_type = "x/y" }
            end }"##,
        expect![[r#"
            replace
              a/b "hello" a:1 b:2 c:3
            besides
              besides "" qos=0 content_type=x/y y:25 z:26
        "#]],
    );
    let scripts = [
        (
            "first",
            r##"return { priority = 1, route = function(m) m:set_property("a", "1") m:set_property("b", "2") end }"##,
        ),
        (
            "second",
            r##"return { route = function(m)
                m:set_property("a", "one") m:set_property("b", nil) m:set_property("d", "4")
                m.payload = m:property("a") .. tostring(m:property("b")) .. m.properties.d
            end }"##,
        ),
    ];
    let mut vm = vm_with(&scripts, &Limits::default());
    let answer = publish(&mut vm, "a/b", "");
    expect![[r#"
        replace
          a/b "onenil4" a:one d:4
    "#]]
    .assert_eq(&format!("{}\n{}", show(&answer), failures(&mut vm)));
}

#[test]
fn answers() {
    let answer =
        |text: &str, expected: Expect| check(&format!("return {{ route = function(m) {text} end }}"), expected);
    answer(
        r#"return postroad.drop("why")"#,
        expect![[r#"
        drop
    "#]],
    );
    answer(
        r#"return postroad.refuse("quota_exceeded", "why")"#,
        expect![[r#"
        refuse 0x97
    "#]],
    );
    answer(
        r#"return postroad.refuse(0x87)"#,
        expect![[r#"
        refuse 0x87
    "#]],
    );
    answer(
        r#"return postroad.refuse(0)"#,
        expect![[r#"
        keep
        p.lua:1: route: argument 1: expected a reason code from 0x80 on, or its name, such as "not_authorized"
    "#]],
    );
    answer(
        r#"return postroad.park("look")"#,
        expect![[r#"
        park "look"
    "#]],
    );
    answer(
        r#"return postroad.park()"#,
        expect![[r#"
        keep
        p.lua:1: route: argument 1: expected a text
    "#]],
    );
    answer(
        r#"m.topic = "x" return postroad.stop()"#,
        expect![[r#"
        replace
          x "hello"
    "#]],
    );
    answer(
        r#"m.qos = 0 return postroad.split { { topic = "x" }, { payload = "y", retain = true } }"#,
        expect![[r#"
            replace
              x "hello" qos=0
              a/b "y" qos=0 retain
        "#]],
    );
    answer(
        r#"m:also { topic = "x" } m.payload = "both" "#,
        expect![[r#"
        replace
          x "both"
          a/b "both"
    "#]],
    );
    answer(
        r#"m:also { topic = "x" } return postroad.drop()"#,
        expect![[r#"
        replace
          x "hello"
    "#]],
    );
    answer(
        r#"m:also { payload = "x" }"#,
        expect![[r#"
        keep
        p.lua:1: route: a part needs a topic
    "#]],
    );
    answer(
        r#"return nil, postroad.publish { topic = "x", qos = 2 }, postroad.publish { { topic = "y" } }"#,
        expect![[r#"
            keep
            besides
              x "" qos=2
              y "" qos=0
        "#]],
    );
    answer(
        r#"return postroad.drop(), postroad.stop()"#,
        expect![[r#"
        keep
        p.lua: route: more than one answer that decides
    "#]],
    );
    answer(
        r#"return postroad.deny()"#,
        expect![[r#"
        keep
        p.lua: route: postroad.deny is no answer here
    "#]],
    );
    answer(
        r#"return true"#,
        expect![[r#"
        keep
        p.lua: route: a boolean is no answer: see postroad.drop and others
    "#]],
    );
    answer(
        r#"m.topic = "lost" return { "drop" }"#,
        expect![[r#"
        keep
        p.lua: route: a table is no answer: see postroad.drop and others
    "#]],
    );
    answer(
        r#"return postroad.split {}"#,
        expect![[r#"
        keep
        p.lua:1: route: expected 1 to 64 messages, not 0
    "#]],
    );
    answer(
        r#"return postroad.split { { tpoic = "x" } }"#,
        expect![[r#"
        keep
        p.lua:1: route: there is no field 'tpoic' here: did you mean 'topic'?
    "#]],
    );
    answer(
        r#"local d = postroad.drop() d[1] = "explode" return d"#,
        expect![[r#"
        keep
        p.lua: route: an answer was changed so that it means nothing
    "#]],
    );
}

#[test]
fn what_can_t_be_set_is_said_with_its_line_and_undone() {
    let set = |text: &str, expected: Expect| {
        check(&format!("return {{ route = function(m) m.payload = 'lost'\n{text} end }}"), expected)
    };
    set(
        "m.topic = 'a/+'",
        expect![[r#"
        keep
        p.lua:2: route: 'topic': topic name holds a wildcard: '+' and '#' are for topic filters
    "#]],
    );
    set(
        "m.topic = 7",
        expect![[r#"
        keep
        p.lua:2: route: 'topic' can't be 7
    "#]],
    );
    set(
        "m.qos = 2",
        expect![[r#"
        keep
        p.lua:2: route: 'qos' can't be made higher: it was 1
    "#]],
    );
    set(
        "m.qos = 'high'",
        expect![[r#"
        keep
        p.lua:2: route: 'qos' can't be "high"
    "#]],
    );
    set(
        "m.priority = 'urgent'",
        expect![[r#"
        keep
        p.lua:2: route: 'priority' can't be "urgent"
    "#]],
    );
    set(
        "m.ttl = -1",
        expect![[r#"
        keep
        p.lua:2: route: 'ttl' can't be -1
    "#]],
    );
    set(
        "m.colour = 'red'",
        expect![[r#"
        keep
        p.lua:2: route: there is no field 'colour' here
    "#]],
    );
    set(
        "m.payloda = 'red'",
        expect![[r#"
        keep
        p.lua:2: route: there is no field 'payloda' here: did you mean 'payload'?
    "#]],
    );
    set(
        "return m.topik",
        expect![[r#"
        keep
        p.lua:2: route: there is no field 'topik' here: did you mean 'topic'?
    "#]],
    );
    set(
        "m.client = 'x'",
        expect![[r#"
        keep
        p.lua:2: route: 'client' can't be set here
    "#]],
    );
    set(
        "m.payload = {}",
        expect![[r#"
        keep
        p.lua:2: route: 'payload' can't be a table
    "#]],
    );
    set(
        "error({})",
        expect![[r#"
        keep
        p.lua:2: route: an error that is a table
    "#]],
    );
    set(
        "local t = nil; t.x = 1",
        expect![[r#"
        keep
        p.lua:2: route: attempt to index a nil value (local 't')
    "#]],
    );
}

//! What hooks say, and what the broker is told.

mod common;

use common::*;
use expect_test::{Expect, expect};

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
        expect![[r#""#]],
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
        expect![[r#""#]],
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
        expect![[r#""#]],
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
    expect![[r#""#]].assert_eq(&format!("{}\n{}", show(&answer), failures(&mut vm)));
}

#[test]
fn answers() {
    let answer =
        |text: &str, expected: Expect| check(&format!("return {{ route = function(m) {text} end }}"), expected);
    answer(r#"return postroad.drop("why")"#, expect![[r#""#]]);
    answer(r#"return postroad.refuse("quota_exceeded", "why")"#, expect![[r#""#]]);
    answer(r#"return postroad.refuse(0x87)"#, expect![[r#""#]]);
    answer(r#"return postroad.refuse(0)"#, expect![[r#""#]]);
    answer(r#"return postroad.park("look")"#, expect![[r#""#]]);
    answer(r#"return postroad.park()"#, expect![[r#""#]]);
    answer(r#"m.topic = "x" return postroad.stop()"#, expect![[r#""#]]);
    answer(
        r#"m.qos = 0 return postroad.split { { topic = "x" }, { payload = "y", retain = true } }"#,
        expect![[r#""#]],
    );
    answer(r#"m:also { topic = "x" } m.payload = "both" "#, expect![[r#""#]]);
    answer(r#"m:also { topic = "x" } return postroad.drop()"#, expect![[r#""#]]);
    answer(r#"m:also { payload = "x" }"#, expect![[r#""#]]);
    answer(
        r#"return nil, postroad.publish { topic = "x", qos = 2 }, postroad.publish { { topic = "y" } }"#,
        expect![[r#""#]],
    );
    answer(r#"return postroad.drop(), postroad.stop()"#, expect![[r#""#]]);
    answer(r#"return postroad.deny()"#, expect![[r#""#]]);
    answer(r#"return true"#, expect![[r#""#]]);
    answer(r#"m.topic = "lost" return { "drop" }"#, expect![[r#""#]]);
    answer(r#"return postroad.split {}"#, expect![[r#""#]]);
    answer(r#"return postroad.split { { tpoic = "x" } }"#, expect![[r#""#]]);
    answer(r#"local d = postroad.drop() d[1] = "explode" return d"#, expect![[r#""#]]);
}

#[test]
fn what_can_t_be_set_is_said_with_its_line_and_undone() {
    let set = |text: &str, expected: Expect| {
        check(&format!("return {{ route = function(m) m.payload = 'lost'\n{text} end }}"), expected)
    };
    set("m.topic = 'a/+'", expect![[r#""#]]);
    set("m.topic = 7", expect![[r#""#]]);
    set("m.qos = 2", expect![[r#""#]]);
    set("m.qos = 'high'", expect![[r#""#]]);
    set("m.priority = 'urgent'", expect![[r#""#]]);
    set("m.ttl = -1", expect![[r#""#]]);
    set("m.colour = 'red'", expect![[r#""#]]);
    set("m.payloda = 'red'", expect![[r#""#]]);
    set("return m.topik", expect![[r#""#]]);
    set("m.client = 'x'", expect![[r#""#]]);
    set("m.payload = {}", expect![[r#""#]]);
    set("error({})", expect![[r#""#]]);
    set("local t = nil; t.x = 1", expect![[r#""#]]);
}

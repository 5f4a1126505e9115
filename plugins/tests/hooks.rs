//! What hooks say, and what the broker is told.

mod common;

use base::{
    ClientId, ConnectionId, Death, Extras, Message, MessageId, Outcome, Qos, SessionExpiry, TopicFilter, WallMillis,
};
use broker::Resend;
use broker::api::{Connect, DisconnectCause};
use common::*;
use expect_test::{Expect, expect};
use postroad_base as base;
use postroad_broker as broker;
use postroad_plugins::{Limits, Plain, PluginName, Saved, Vm};

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

#[test]
fn inbound_is_for_clients_and_comes_before_route() {
    let scripts = [
        ("a", "return { route = function(m) m.topic = m.topic .. '/route-a' end }"),
        ("b", "return { priority = 1, route = function(m) m.topic = m.topic .. '/route-b' end }"),
        ("c", "return { on_inbound = function(m) m.topic = m.topic .. '/inbound-c' end }"),
    ];
    let mut vm = vm_with(&scripts, &Limits::default());
    assert_eq!(show(&publish(&mut vm, "t", "")), "replace\n  t/inbound-c/route-b/route-a \"\"");
    let answer = vm.publish(NOW, &message("t", ""), Someone::new().application());
    assert_eq!(show(&answer), "replace\n  t/route-b/route-a \"\"");
    let order: Vec<String> = vm.figures().iter().map(|figures| figures.plugin.to_string()).collect();
    assert_eq!(order, ["b", "a", "c"]);
}

#[test]
fn later_plugins_see_what_earlier_ones_set_and_filters_do_too() {
    let scripts = [
        (
            "a",
            "return { priority = 1, route = function(m) m.topic = 'moved/' .. m.topic m:also { topic = 'copy' } end }",
        ),
        (
            "b",
            "return { priority = 2, route = { filters = { 'moved/#' }, run = function(m) m.payload = m.topic end } }",
        ),
        ("c", "return { priority = 3, route = { filters = { 't/#' }, run = function(m) error('not asked') end } }"),
        ("d", "return { priority = 4, route = function(m) m.payload = m.payload .. '!' return postroad.stop() end }"),
        ("e", "return { priority = 5, route = function(m) error('not asked') end }"),
    ];
    let mut vm = vm_with(&scripts, &Limits::default());
    expect![[r#"
        replace
          copy "x"
          moved/t "moved/t!"
    "#]]
    .assert_eq(&format!("{}\n{}", show(&publish(&mut vm, "t", "x")), failures(&mut vm)));
}

#[test]
fn a_drop_ends_the_chain_and_what_was_added_goes() {
    let scripts = [
        ("a", "return { priority = 1, route = function(m) m:also { topic = 'copy' } end }"),
        ("b", "return { priority = 2, route = function(m) return postroad.drop() end }"),
        ("c", "return { priority = 3, route = function(m) error('not asked') end }"),
    ];
    let mut vm = vm_with(&scripts, &Limits::default());
    assert_eq!(show(&publish(&mut vm, "t", "x")), "replace\n  copy \"x\"");
    assert_eq!(failures(&mut vm), "");
}

#[test]
fn topics_of_the_server_are_for_filters_that_name_them() {
    let plain = "return { route = function(m) m.topic = 'seen' end }";
    let all = "return { route = { filters = { '#', '+/x' }, run = function(m) m.topic = 'seen' end } }";
    let named = "return { route = { filters = { '$x/#' }, run = function(m) m.topic = 'seen' end } }";
    for (script, expected) in [(plain, "keep"), (all, "keep"), (named, "replace\n  seen \"\"")] {
        assert_eq!(show(&publish(&mut vm(script), "$x/x", "")), expected);
    }
}

#[test]
fn a_message_that_nobody_wants_never_enters_lua() {
    let mut vm = vm("return { route = { filters = { 'a/b' }, run = function() end } }");
    publish(&mut vm, "a/c", "");
    assert_eq!(vm.figures()[0].hooks[0].1.calls, 0);
    publish(&mut vm, "a/b", "");
    assert_eq!(vm.figures()[0].hooks[0].1.calls, 1);
}

#[test]
fn an_error_is_open_or_closed() {
    let mut open = vm("return { route = function(m) m.topic = 'lost' error('x') end }");
    assert_eq!(show(&publish(&mut open, "a", "")), "keep");
    let mut closed = vm("return { on_inbound = { on_error = 'closed', run = function(m) error('x') end } }");
    assert_eq!(show(&publish(&mut closed, "a", "")), "refuse 0x83");
}

#[test]
fn deliveries() {
    let clients: Vec<ClientId> = ["c1", "c2", "c3"].into_iter().map(ClientId::from).collect();
    let clients: Vec<&ClientId> = clients.iter().collect();
    let left_out = |run: &str| {
        let script = format!(
            "return {{ on_deliver = {{ on_error = 'closed', filters = {{ 'a/#' }}, run = function(m, clients) {run} end }} }}"
        );
        let mut vm = vm(&script);
        assert!(vm.wants_deliveries("a/b") && !vm.wants_deliveries("b"));
        assert_eq!(vm.deliver(NOW, &message("b", "x"), &clients), Vec::<usize>::new());
        let places = vm.deliver(NOW, &message("a", "x"), &clients);
        format!("{places:?} {}", failures(&mut vm))
    };
    assert_eq!(left_out(""), "[] ");
    assert_eq!(left_out("return { [2] = false }"), "[1] ");
    assert_eq!(left_out("local t = {} for i, name in ipairs(clients) do t[i] = name == 'c2' end return t"), "[0, 2] ");
    expect![[r#"
        [0, 1, 2] p.lua: on_deliver: on_deliver returns a table { [index] = false }, with indices of clients
    "#]]
    .assert_eq(&left_out("return { [4] = false }"));
    expect![[r#"
        [0, 1, 2] p.lua: on_deliver: on_deliver returns a table { [index] = false }, with indices of clients
    "#]]
    .assert_eq(&left_out("return { c1 = false }"));
    expect![[r#"
        [0, 1, 2] p.lua:1: on_deliver: 'topic' can't be set here
    "#]]
    .assert_eq(&left_out("m.topic = 'x'"));
    expect!["[0, 1, 2] "].assert_eq(&left_out("return m.client == nil and { false, false, false }"));
}

fn letter() -> Message {
    let death = Death {
        client: ClientId::from("c9"),
        is_push: true,
        is_group: false,
        outcome: Outcome::Attempts,
        reason_code: 0x83,
        attempts: 7,
        sent: None,
        at: WallMillis(1_600_000_000_000),
        error: Some("too hot".into()),
    };
    let extras = Extras { death: Some(Box::new(death)), requeues: 2, ..Extras::default() };
    Message { extras: Some(Box::new(extras)), id: MessageId(77), ..message("a/b", "hello") }
}

#[test]
fn dead_letters() {
    let repaired = |run: &str| {
        let mut vm =
            vm(&format!("return {{ on_dead_letter = {{ filters = {{ 'a/#' }}, run = function(letter) {run} end }} }}"));
        assert!(vm.wants_letters("a/b") && !vm.wants_letters("b"));
        let answer = vm.dead_letter(NOW, &letter());
        format!("{} {}", show_repair(&answer), failures(&mut vm))
    };
    assert_eq!(repaired(""), "keep ");
    expect![[r#"park "c9 attempts 7 1600000000000 2 131 too hot true a/b 0000000000000000000000000000004d nil" "#]].assert_eq(&repaired(
        "return postroad.park(table.concat({ letter.client, letter.reason, letter.attempts, letter.died_at, letter.requeues, letter.reason_code,
            letter.error, tostring(letter.is_push), letter.topic, letter.id, tostring(letter.user) }, ' '))",
    ));
    expect!["requeue None ttl=None "].assert_eq(&repaired("return postroad.requeue()"));
    expect![[r#"requeue Some(b"short") ttl=Some(1) "#]]
        .assert_eq(&repaired("letter.payload = 'short' letter.ttl = 0.5 return postroad.requeue()"));
    expect![[r#"publish c/d "moved" "#]]
        .assert_eq(&repaired("letter.topic = 'c/d' letter.payload = 'moved' return postroad.requeue()"));
    expect![[r#"
        drop
        besides
          x "" qos=0 "#]]
    .assert_eq(&repaired("return postroad.drop(), postroad.publish { topic = 'x' }"));
    expect![[r#"
        keep p.lua:1: on_dead_letter: 'qos' can't be set here
    "#]]
    .assert_eq(&repaired("letter.qos = 0"));
    expect![[r#"
        keep p.lua: on_dead_letter: postroad.split is no answer here
    "#]]
    .assert_eq(&repaired("return postroad.split { { topic = 'x' } }"));
}

fn connect(vm: &mut Vm) -> String {
    let someone = Someone::new();
    let connect = Connect {
        connection: ConnectionId(1),
        client: someone.client.clone(),
        name: Default::default(),
        principal: someone.principal.clone(),
        clean_start: true,
        expiry: SessionExpiry(3600),
        receive_maximum: 10,
        delivery: None,
        will: None,
        hears_refusals: true,
        resend: Resend::default(),
    };
    let answer = vm.connect(NOW, &connect);
    format!("{:?} {} {}", answer.answer, answer.publish.len(), failures(vm))
}

#[test]
fn connections() {
    let connected = |run: &str| connect(&mut vm(&format!("return {{ on_connect = function(client) {run} end }}")));
    assert_eq!(connected(""), "Allow 0 ");
    assert_eq!(connected("return postroad.deny()"), "Deny(NotAuthorized) 0 ");
    assert_eq!(connected("return postroad.deny('banned', 'why')"), "Deny(Banned) 0 ");
    expect![[r#"AllowWith(["a", "b"]) 1 "#]]
        .assert_eq(&connected("return postroad.groups { 'b', 'a', 'b' }, postroad.publish { topic = 'x' }"));
    expect![[r#"
        Deny(ImplementationSpecificError) 0 p.lua:1: on_connect: expected an array of names of groups: texts without '/', '+', '#', not beginning with '$'
    "#]].assert_eq(&connected("return postroad.groups { 'a/b' }"));
    expect![[r#"
        Deny(ImplementationSpecificError) 0 p.lua:1: on_connect: c1 ann staff true 3600 nil
    "#]].assert_eq(&connected(
        "error(table.concat({ client.client, client.user, client.groups[1], tostring(client.clean_start), client.expiry, tostring(client.will_topic) }, ' '))",
    ));
    expect![[r#"
        Deny(ImplementationSpecificError) 0 p.lua:1: on_connect: there is no field 'topic' here
    "#]]
    .assert_eq(&connected("return client.topic"));
}

#[test]
fn subscriptions() {
    let someone = Someone::new();
    let subscribed = |run: &str| {
        let mut vm = vm(&format!("return {{ on_subscribe = function(s) {run} end }}"));
        let filter = TopicFilter::new("a/+").expect("a filter");
        let answer = vm.subscribe(NOW, someone.peer(), &filter, Qos::AtLeastOnce);
        format!("{:?} {} {}", answer.answer, answer.publish.len(), failures(&mut vm))
    };
    assert_eq!(subscribed(""), "Ok(AtLeastOnce) 0 ");
    assert_eq!(subscribed("s.qos = 0 return postroad.publish { topic = 'x' }"), "Ok(AtMostOnce) 1 ");
    assert_eq!(
        subscribed("if s.filter == 'a/+' and s.user == 'ann' then return postroad.deny() end"),
        "Err(NotAuthorized) 0 "
    );
    expect![[r#"
        Err(ImplementationSpecificError) 0 p.lua:1: on_subscribe: 'qos' can't be made higher: it was 1
    "#]]
    .assert_eq(&subscribed("s.qos = 2"));
    expect![[r#"
        Err(ImplementationSpecificError) 0 p.lua:1: on_subscribe: c11
    "#]]
    .assert_eq(&subscribed("error(s.client .. s.qos)"));
}

#[test]
fn ended_connections() {
    let someone = Someone::new();
    let mut vm = vm("return { on_disconnect = function(client)
        return postroad.publish { topic = 'gone/' .. client.client, payload = client.cause .. ' ' .. tostring(client.is_application), qos = 1 }
    end }");
    let messages = vm.disconnected(NOW, someone.peer(), DisconnectCause::Lost);
    assert_eq!(show_messages(&messages), "\n  gone/c1 \"lost false\"");
}

#[test]
fn state_goes_to_the_next_version() {
    let first = vm_state(
        "return { on_save = function() return { n = 7, list = { 1, 2.5, 'x' }, [3] = true, empty = {} } end }",
    );
    let mut second = vm(
        "local got
         return {
             on_load = function(previous, version) got = postroad.json.encode { previous.n, previous.list, previous[3], #version } end,
             route = function(m) m.payload = got end,
         }",
    );
    second.load(NOW, &first).expect("loaded");
    assert_eq!(show(&publish(&mut second, "a", "")), "replace\n  a \"[7,[1,2.5,\\\"x\\\"],true,64]\"");
    let mut fresh =
        vm("return { on_load = function(previous, version) assert(previous == nil and version == nil) end }");
    fresh.load(NOW, &Saved::default()).expect("loaded");
}

fn vm_state(script: &str) -> Saved {
    vm(script).save(NOW).expect("saved")
}

#[test]
fn what_can_t_be_handed_over_is_said() {
    let save = |script: &str| {
        vm(&format!("return {{ on_save = function() {script} end }}")).save(NOW).expect_err("fails").to_string()
    };
    expect!["scripts/p.lua: on_save: a function is no plain data"].assert_eq(&save("return print or function() end"));
    expect!["scripts/p.lua: on_save: data is too deep, or holds itself"]
        .assert_eq(&save("local t = {} t.t = t return t"));
    expect!["scripts/p.lua: on_save: too much data"]
        .assert_eq(&save("local t = { 1 } for i = 1, 25 do t = { t, t } end return t"));
    let mut vm = vm("return { on_load = function() postroad.store.set('a', 1) end }");
    let error = vm.load(NOW, &Saved::default()).expect_err("fails").to_string();
    assert!(error.contains("the store is read-only while a plugin is loaded, in on_load"), "{error}");
}

#[test]
fn self_tests_are_run_by_name() {
    let mut vm = vm("return { test = { b = function() error('wrong') end, a = function() assert(1 == 1) end } }");
    let outcomes: Vec<String> = vm
        .self_test(NOW)
        .iter()
        .map(|outcome| {
            format!("{} {}", outcome.name, outcome.failure.as_ref().map_or("ok".to_owned(), ToString::to_string))
        })
        .collect();
    expect![[r#"
        a ok
        b scripts/p.lua:1: test: wrong"#]]
    .assert_eq(&outcomes.join("\n"));
}

#[test]
fn a_codecs_table_is_read_as_data_and_its_functions_are_called() {
    let mut vm = vm(
        "return { codec = { kind = 'crlf', fields = { { name = 'a', bits = 3 } }, decode = function(bytes) return bytes:upper(), #bytes end } }",
    );
    let name = PluginName::new("p").expect("a name");
    let codec = vm.codec_table(&name).expect("it has one").expect("it is data");
    assert_eq!(codec.data.get("kind").and_then(Plain::as_str), Some("crlf"));
    assert_eq!(codec.functions.len(), 1);
    let results = vm.call(NOW, &codec.functions[0].1, &[Plain::Bytes("abc".into())]);
    assert_eq!(results, Ok(vec![Plain::Bytes("ABC".into()), Plain::Integer(3)]));
    let failure = vm.call(NOW, &codec.functions[0].1, &[Plain::Nil]).expect_err("fails").to_string();
    assert!(failure.contains("codec: attempt to index a nil value"), "{failure}");
    assert_eq!(vm.codec_table(&PluginName::new("q").expect("a name")), None);
}

//! What does a hook cost for each message? At most 1 us for one that reads topic and QoS, 2 us for one that sets the topic.
//!
//! End to end of `Vm::publish`, with a message of 200 bytes. `table` is the rejected alternative, measured in Lua itself: a table with the nine plain fields of
//! a message, built for each call, beside a call that gets the one object.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

use base::{ClientId, Message, MessageId, MonoMillis, Now, Qos, QueueId, ShardId, TopicName, WallMillis};
use broker::api::Principal;
use broker::hooks::Peer;
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use postroad_base as base;
use postroad_broker as broker;
use postroad_plugins::{Limits, PluginName, Set, Source, Stores, Vm};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Now = Now { mono: MonoMillis(1), wall: WallMillis(1_700_000_000_000) };

fn vm(scripts: &[String]) -> Vm {
    let sources = scripts.iter().enumerate().map(|(number, text)| {
        Source::new(PluginName::new(&format!("p{number}")).expect("a name"), format!("p{number}.lua"), text.as_str())
    });
    let limits = Limits::default();
    let compiled = Set::from_sources(sources.collect()).expect("names differ").compile(&limits).expect("compiled");
    Vm::new(&compiled, &limits, ShardId(0), Rc::new(RefCell::new(Stores::new()))).expect("loaded")
}

fn route(body: &str) -> String {
    format!(
        "local count = 0 return {{ route = {{ filters = {{ 'tenants/+/in/#' }}, run = function(message) {body} end }} }}"
    )
}

fn message(topic: &str) -> Message {
    Message {
        id: MessageId::default(),
        topic: TopicName::new(topic).expect("a topic"),
        payload: Bytes::from(vec![b'x'; 200]),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

fn hooks(c: &mut Criterion) {
    let client = ClientId::from("client-4711");
    let principal = Principal { user: Some("ann".into()), groups: ["staff".into()].into() };
    let peer = Peer { client: &client, principal: &principal, is_application: false };
    let wanted = message("tenants/t17/in/orders/4711");
    let unwanted = message("other/t17/in/orders/4711");
    let mut group = c.benchmark_group("plugins");
    let mut run = |name: &str, scripts: &[String], message: &Message| {
        let mut vm = vm(scripts);
        group.bench_function(name, |b| b.iter(|| black_box(vm.publish(NOW, black_box(message), peer))));
        assert!(vm.take_failures().is_empty(), "{name} fails");
    };
    let reads = route("if message.topic == 'x' and message.qos == 0 then return postroad.drop() end");
    run("no plugin", &[], &wanted);
    run("no filter matches", std::slice::from_ref(&reads), &unwanted);
    run("empty", &[route("")], &wanted);
    run("reads topic and qos", std::slice::from_ref(&reads), &wanted);
    run("reads the payload", &[route("if #message.payload == 7 then return postroad.drop() end")], &wanted);
    run("sets the topic", &[route("message.topic = 'elsewhere/' .. message.topic")], &wanted);
    run(
        "sets the topic by a pattern",
        &[route("message.topic = message.topic:gsub('^tenants/([^/]+)/in/', 'by-tenant/%1/')")],
        &wanted,
    );
    run(
        "sets the priority",
        &[route("if message.topic:find('/orders/', 1, true) then message.priority = 'high' end")],
        &wanted,
    );
    run("drops", &[route("return postroad.drop('why')")], &wanted);
    run("counts", &["local c = postroad.counter('c') return { route = function() c:add(1) end }".to_owned()], &wanted);
    run("five plugins that read topic and qos", &vec![reads.clone(); 5], &wanted);
    run("a table for each message", &[route(TABLE)], &wanted);
}

/// What the host would build for each message: the strings of topic, payload, client and user are asked of the object, as it would push them.
const TABLE: &str = "local t = { topic = message.topic, payload = message.payload, qos = message.qos, retain = message.retain,
    priority = message.priority, ttl = message.ttl, client = message.client, user = message.user, is_application = message.is_application }
    if t.topic == 'x' and t.qos == 0 then return postroad.drop() end";

criterion_group!(benches, hooks);
criterion_main!(benches);

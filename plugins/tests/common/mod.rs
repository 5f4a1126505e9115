//! Scripts in, text out: a VM of scripts, messages for it, and its answers as text.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use base::{ClientId, Message, MessageId, MonoMillis, Now, Qos, QueueId, ShardId, TopicName, WallMillis};
use broker::api::Principal;
use broker::hooks::{Answer, Decision, Peer, Repair};
use bytes::Bytes;
use postroad_base as base;
use postroad_broker as broker;
use postroad_plugins::{Diagnostic, Limits, PluginName, Set, Source, Stores, Vm};
use postroad_protocol::mqtt::Forwarded;

pub const NOW: Now = Now { mono: MonoMillis(5_000), wall: WallMillis(1_700_000_000_000) };

pub fn set(scripts: &[(&str, &str)]) -> Set {
    let source = |(name, text): &(&str, &str)| {
        Source::new(PluginName::new(name).expect("a name"), format!("scripts/{name}.lua"), *text)
    };
    Set::from_sources(scripts.iter().map(source).collect()).expect("names differ")
}

pub fn stores() -> Rc<RefCell<Stores>> {
    Rc::new(RefCell::new(Stores::new()))
}

pub fn try_vm(scripts: &[(&str, &str)], limits: &Limits) -> Result<Vm, Vec<Diagnostic>> {
    Vm::new(&set(scripts).compile(limits)?, limits, ShardId(0), stores())
}

pub fn vm_with(scripts: &[(&str, &str)], limits: &Limits) -> Vm {
    try_vm(scripts, limits).unwrap_or_else(|diagnostics| panic!("{}", lines(&diagnostics)))
}

pub fn vm(script: &str) -> Vm {
    vm_with(&[("p", script)], &Limits::default())
}

pub fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

pub fn message(topic: &str, payload: &str) -> Message {
    Message {
        id: MessageId::default(),
        topic: TopicName::new(topic).expect("a topic"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

pub struct Someone {
    pub client: ClientId,
    pub principal: Principal,
}

impl Someone {
    pub fn new() -> Self {
        let principal = Principal { user: Some("ann".into()), groups: ["staff".into(), "night".into()].into() };
        Self { client: ClientId::from("c1"), principal }
    }

    pub fn peer(&self) -> Peer<'_> {
        Peer { client: &self.client, principal: &self.principal, is_application: false }
    }

    pub fn application(&self) -> Peer<'_> {
        Peer { is_application: true, ..self.peer() }
    }
}

pub fn publish(vm: &mut Vm, topic: &str, payload: &str) -> Answer<Decision> {
    vm.publish(NOW, &message(topic, payload), Someone::new().peer())
}

/// One message in a line: what differs from the dull one.
pub fn show_message(message: &Message) -> String {
    let mut text = format!("{} {:?}", message.topic, String::from_utf8_lossy(&message.payload));
    if message.qos != Qos::AtLeastOnce {
        let _written = write!(text, " qos={}", message.qos.number());
    }
    if message.retain {
        text += " retain";
    }
    if let Some(at) = message.expires_at {
        let _written = write!(text, " ttl={}", at.since(NOW.wall) as f64 / 1000.0);
    }
    if let Some(wishes) = message.wishes() {
        let _written = write!(text, " priority={}", wishes.priority.name());
        for (name, value) in [
            ("deliver_at", wishes.deliver_at.map(|at| at.0.to_string())),
            ("collapse_key", wishes.collapse_key.as_ref().map(ToString::to_string)),
            ("attempts_max", wishes.attempts_max.map(|max| max.to_string())),
            ("age_max_ms", wishes.age_max_ms.map(|max| max.to_string())),
        ] {
            if let Some(value) = value {
                let _written = write!(text, " {name}={value}");
            }
        }
    }
    let properties = Forwarded::from_stored(&message.properties);
    if let Some(kind) = properties.content_type() {
        let _written = write!(text, " content_type={kind}");
    }
    for (name, value) in properties.user_properties().iter() {
        let _written = write!(text, " {name}:{value}");
    }
    text
}

pub fn show_messages(messages: &[Message]) -> String {
    messages.iter().map(|message| format!("\n  {}", show_message(message))).collect()
}

pub fn show(answer: &Answer<Decision>) -> String {
    let mut text = match &answer.answer {
        Decision::Keep => "keep".to_owned(),
        Decision::Replace(messages) => format!("replace{}", show_messages(messages)),
        Decision::Drop => "drop".to_owned(),
        Decision::Refuse(code) => format!("refuse {:#04x}", code.number()),
        Decision::Park(note) => format!("park {note:?}"),
    };
    if !answer.publish.is_empty() {
        text += &format!("\nbesides{}", show_messages(&answer.publish));
    }
    text
}

pub fn show_repair(answer: &Answer<Repair>) -> String {
    let mut text = match &answer.answer {
        Repair::Keep => "keep".to_owned(),
        Repair::Requeue(changed) => format!("requeue {:?} ttl={:?}", changed.payload, changed.ttl_seconds),
        Repair::Publish(message) => format!("publish {}", show_message(message)),
        Repair::Drop => "drop".to_owned(),
        Repair::Park(note) => format!("park {note:?}"),
    };
    if !answer.publish.is_empty() {
        text += &format!("\nbesides{}", show_messages(&answer.publish));
    }
    text
}

pub fn failures(vm: &mut Vm) -> String {
    vm.take_failures().iter().map(|failure| format!("{failure}\n")).collect()
}

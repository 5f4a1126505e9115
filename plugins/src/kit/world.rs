//! What surrounds the plugin in a test: one VM with that plugin alone, its stores, a clock that moves when it is told to.
//!
//! Every question is a table, every answer is one: no Lua is seen here.

use std::cell::RefCell;
use std::rc::Rc;

use base::{ClientId, Message, MessageId, MonoMillis, Now, Qos, ReasonCode, ShardId, TopicFilter, WallMillis};
use broker::Resend;
use broker::api::{ClientName, Connect, DisconnectCause, Principal};
use broker::hooks::{Admission, Answer, Decision, Peer, Repair};
use bytestring::ByteString;
use postroad_base as base;
use postroad_broker as broker;

use super::messages::{read, read_letter, shown};
use super::record::{Fields, Table};
use crate::diagnostic::nearest;
use crate::{Compiled, Diagnostic, Failure, Limits, Plain, PluginName, Stores, TestOutcome, Vm};

/// The clock of each case begins here: 2026-01-01T00:00:00Z, a Thursday.
pub(super) const BEGIN: WallMillis = WallMillis(1_767_225_600_000);
/// And the other one: not at 0, so that what is subtracted from it does not end there.
const BEGIN_MONO: MonoMillis = MonoMillis(1_000_000_000);

/// A question by its name.
type Question = fn(&mut World, &Plain) -> Result<Plain, String>;

/// What `kit.lua` has besides.
pub(super) const ASSERTIONS: &[&str] = &["equal", "ok", "contains", "matches", "raises", "fail", "show"];

macro_rules! questions {
    ($($name:ident),*) => {
        /// Everything that a test can ask.
        pub(super) const QUESTION_NAMES: &[&str] = &[$(stringify!($name)),*];
        const QUESTIONS: &[Question] = &[$(World::$name),*];
    };
}

questions!(
    publish,
    deliver,
    dead_letter,
    connect,
    disconnect,
    subscribe,
    advance,
    now,
    counter,
    gauge,
    failures,
    reload,
    decode,
    encode,
    every_split,
    print
);

pub(super) struct World {
    plugin: PluginName,
    vm: Vm,
    compiled: Compiled,
    limits: Limits,
    stores: Rc<RefCell<Stores>>,
    now: Now,
    messages: u128,
    /// What the plugin did wrong, and whether the case has looked at it.
    failed: Vec<Failure>,
    looked_at: usize,
    /// What the case has printed.
    printed: Vec<String>,
}

impl World {
    /// `compiled` is of one plugin.
    pub(super) fn new(compiled: &Compiled, limits: &Limits) -> Result<Self, Vec<Diagnostic>> {
        let plugin = compiled.plugins().next().map(|(name, _)| name.clone()).expect("the set has one plugin");
        let stores = Rc::new(RefCell::new(Stores::new()));
        let now = Now { mono: BEGIN_MONO, wall: BEGIN };
        let vm = new_vm(compiled, limits, &stores)?;
        let mut world = Self {
            plugin,
            vm,
            compiled: compiled.clone(),
            limits: *limits,
            stores,
            now,
            messages: 0,
            failed: Vec::new(),
            looked_at: 0,
            printed: Vec::new(),
        };
        world.vm.load(now, &crate::Saved::default()).map_err(|diagnostic| vec![diagnostic])?;
        Ok(world)
    }

    /// Answers a question of the case.
    pub(super) fn ask(&mut self, name: &str, about: &Plain) -> Result<Plain, String> {
        let Some(place) = QUESTION_NAMES.iter().position(|known| *known == name) else { return Err(unknown(name)) };
        let answer = QUESTIONS[place](self, about);
        let failed = self.vm.take_failures();
        self.failed.extend(failed);
        answer
    }

    /// What the plugin did wrong, and the case has not asked for.
    pub(super) fn unseen_failures(&self) -> &[Failure] {
        &self.failed[self.looked_at.min(self.failed.len())..]
    }

    pub(super) fn stores(&self) -> Rc<RefCell<Stores>> {
        Rc::clone(&self.stores)
    }

    pub(super) fn self_test(&mut self) -> Vec<TestOutcome> {
        self.vm.self_test(self.now)
    }

    pub(super) fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    pub(super) fn vm(&mut self) -> &mut Vm {
        &mut self.vm
    }

    pub(super) fn time(&self) -> Now {
        self.now
    }

    pub(super) fn take_printed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.printed)
    }

    fn publish(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut fields = Fields::of("message", about)?;
        let peer = PeerParts::read(&mut fields)?;
        let mut message = read(&mut fields, self.now.wall)?;
        fields.end()?;
        message.id = self.next_id();
        let Answer { answer, publish } = self.vm.publish(self.now, &message, peer.as_peer());
        let table = self.decision(&message, answer);
        Ok(self.with_besides(table, &publish))
    }

    fn decision(&self, message: &Message, decision: Decision) -> Table {
        let none = Plain::Array(Vec::new());
        let table = Table::new().with("action", action_of(&decision));
        match decision {
            Decision::Keep => table.with("messages", self.shown(std::slice::from_ref(message))),
            Decision::Replace(mut messages) => {
                // As the broker does: what came at a level goes on at no higher one.
                messages.iter_mut().for_each(|made| made.qos = made.qos.min(message.qos));
                table.with("messages", self.shown(&messages))
            }
            Decision::Drop => table.with("messages", none),
            Decision::Refuse(reason) => with_reason(table.with("messages", none), reason),
            Decision::Park(note) => table.with("messages", none).with("note", &*note),
        }
    }

    fn deliver(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut fields = Fields::of("message", about)?;
        let clients: Vec<ClientId> = fields.texts("clients")?.into_iter().map(ClientId).collect();
        let mut message = read(&mut fields, self.now.wall)?;
        fields.end()?;
        message.id = self.next_id();
        if !self.vm.wants_deliveries(message.topic.as_str()) {
            return Ok(names(&clients));
        }
        let to: Vec<&ClientId> = clients.iter().collect();
        let left_out = self.vm.deliver(self.now, &message, &to);
        let gets_it = |(place, client): (usize, &ClientId)| (!left_out.contains(&place)).then(|| client.clone());
        Ok(names(&clients.iter().enumerate().filter_map(gets_it).collect::<Vec<_>>()))
    }

    fn dead_letter(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut letter = read_letter(about, self.now.wall)?;
        letter.id = self.next_id();
        let Answer { answer, publish } = if self.vm.wants_letters(letter.topic.as_str()) {
            self.vm.dead_letter(self.now, &letter)
        } else {
            Answer::default()
        };
        let table = self.repair(letter, answer);
        Ok(self.with_besides(table, &publish))
    }

    fn repair(&self, mut letter: Message, repair: Repair) -> Table {
        let table = |action| Table::new().with("action", action);
        match repair {
            Repair::Keep => table("keep").with("letter", shown(&letter, self.now.wall)),
            Repair::Requeue(requeue) => {
                letter.payload = requeue.payload.unwrap_or(letter.payload);
                letter.expires_at = requeue.ttl_seconds.map(|seconds| self.now.wall.after(1000 * u64::from(seconds)));
                table("requeue").with("letter", shown(&letter, self.now.wall))
            }
            Repair::Publish(made) => table("publish").with("letter", shown(&made, self.now.wall)),
            Repair::Drop => table("drop"),
            Repair::Park(note) => table("park").with("note", &*note),
        }
    }

    fn connect(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut fields = Fields::of("client", about)?;
        let PeerParts { client, principal, .. } = PeerParts::read(&mut fields)?;
        let connect = Connect {
            connection: base::ConnectionId(1),
            client,
            name: ClientName::Chosen,
            principal,
            clean_start: fields.boolean("clean_start")?,
            expiry: base::SessionExpiry::NEVER,
            receive_maximum: u16::MAX,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::default(),
        };
        fields.end()?;
        let Answer { answer, publish } = self.vm.connect(self.now, &connect);
        let table = match answer {
            Admission::Allow => Table::new().with("allowed", true).with("groups", Plain::Array(Vec::new())),
            Admission::AllowWith(groups) => Table::new().with("allowed", true).with("groups", texts(&groups)),
            Admission::Deny(reason) => with_reason(Table::new().with("allowed", false), reason),
        };
        Ok(self.with_besides(table, &publish))
    }

    fn disconnect(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut fields = Fields::of("client", about)?;
        let peer = PeerParts::read(&mut fields)?;
        let cause = cause(&fields.text("cause")?.unwrap_or_else(|| "lost".into()))?;
        fields.end()?;
        let publish = self.vm.disconnected(self.now, peer.as_peer(), cause);
        Ok(self.with_besides(Table::new(), &publish))
    }

    fn subscribe(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut fields = Fields::of("subscription", about)?;
        let peer = PeerParts::read(&mut fields)?;
        let filter = fields.text("filter")?.ok_or("filter: a subscription has one")?;
        let filter = TopicFilter::new(filter.clone()).map_err(|error| format!("filter: \"{filter}\": {error}"))?;
        let qos = fields.number("qos", 2)?.unwrap_or(1) as u8;
        let qos = Qos::from_number(qos).expect("the number was at most 2");
        fields.end()?;
        let Answer { answer, publish } = self.vm.subscribe(self.now, peer.as_peer(), &filter, qos);
        let table = match answer {
            Ok(granted) => Table::new().with("qos", u64::from(granted.number())),
            Err(reason) => with_reason(Table::new(), reason),
        };
        Ok(self.with_besides(table, &publish))
    }

    fn advance(&mut self, about: &Plain) -> Result<Plain, String> {
        let millis = match about {
            Plain::Integer(millis) => u64::try_from(*millis).ok(),
            Plain::Number(millis) if *millis >= 0.0 && *millis < 9e15 => Some(*millis as u64),
            _ => None,
        };
        let millis = millis.ok_or("advance: expected milliseconds, a number from 0 on")?;
        self.now = Now { mono: self.now.mono.after(millis), wall: self.now.wall.after(millis) };
        self.now(&Plain::Nil)
    }

    fn now(&mut self, _about: &Plain) -> Result<Plain, String> {
        Ok(self.now.wall.0.into())
    }

    fn counter(&mut self, about: &Plain) -> Result<Plain, String> {
        let name = about.as_str().ok_or("counter: expected a name")?;
        let figures = self.vm.figures();
        Ok(figures.iter().find_map(|figures| figures.counters.get(name).copied()).unwrap_or(0).into())
    }

    fn gauge(&mut self, about: &Plain) -> Result<Plain, String> {
        let name = about.as_str().ok_or("gauge: expected a name")?;
        let figures = self.vm.figures();
        Ok(figures.iter().find_map(|figures| figures.gauges.get(name).copied()).into())
    }

    fn failures(&mut self, _about: &Plain) -> Result<Plain, String> {
        let shown = |failure: &Failure| {
            let line = failure.line.map(u64::from);
            Table::new().with("hook", failure.hook.name()).with("line", line).with("text", failure.text.as_str()).into()
        };
        let all: Vec<Plain> = self.unseen_failures().iter().map(shown).collect();
        self.looked_at = self.failed.len();
        Ok(Plain::Array(all))
    }

    fn print(&mut self, about: &Plain) -> Result<Plain, String> {
        self.printed.push(about.as_str().unwrap_or_default().to_owned());
        Ok(Plain::Nil)
    }

    /// As the server does it: `on_save`, a new VM, `on_load`. The stores stay.
    fn reload(&mut self, _about: &Plain) -> Result<Plain, String> {
        let saved = self.vm.save(self.now).map_err(|diagnostic| diagnostic.to_string())?;
        let mut next = new_vm(&self.compiled, &self.limits, &self.stores).map_err(|found| one_text(&found))?;
        next.load(self.now, &saved).map_err(|diagnostic| diagnostic.to_string())?;
        self.vm = next;
        Ok(Plain::Nil)
    }

    /// Of messages as the broker gives them ids: each later than the one before.
    fn next_id(&mut self) -> MessageId {
        self.messages += 1;
        MessageId(u128::from(self.now.wall.0) << 80 | self.messages << 48)
    }

    fn shown(&self, messages: &[Message]) -> Plain {
        Plain::Array(messages.iter().map(|message| shown(message, self.now.wall).into()).collect())
    }

    fn with_besides(&self, table: Table, publish: &[Message]) -> Plain {
        table.with("besides", self.shown(publish)).into()
    }
}

fn new_vm(compiled: &Compiled, limits: &Limits, stores: &Rc<RefCell<Stores>>) -> Result<Vm, Vec<Diagnostic>> {
    Vm::new(compiled, limits, ShardId(0), Rc::clone(stores))
}

fn unknown(name: &str) -> String {
    match nearest(name, QUESTION_NAMES.iter().chain(ASSERTIONS).copied()) {
        Some(meant) => format!("t.{name}: there is none; did you mean t.{meant}?"),
        None => format!("t.{name}: there is none"),
    }
}

fn one_text(found: &[Diagnostic]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn action_of(decision: &Decision) -> &'static str {
    match decision {
        Decision::Keep => "keep",
        Decision::Replace(_) => "replace",
        Decision::Drop => "drop",
        Decision::Refuse(_) => "refuse",
        Decision::Park(_) => "park",
    }
}

fn with_reason(table: Table, reason: ReasonCode) -> Table {
    table.with("reason", reason.name()).with("reason_code", u64::from(reason.number()))
}

fn texts(list: &[ByteString]) -> Plain {
    Plain::Array(list.iter().map(|text| Plain::from(&**text)).collect())
}

fn names(clients: &[ClientId]) -> Plain {
    Plain::Array(clients.iter().map(|client| Plain::from(client.as_str())).collect())
}

fn cause(name: &str) -> Result<DisconnectCause, String> {
    Ok(match name {
        "normal" => DisconnectCause::Normal { expiry: None },
        "with_will" => DisconnectCause::WithWill { expiry: None },
        "lost" => DisconnectCause::Lost,
        "shutdown" => DisconnectCause::ServerShutdown,
        _ => return Err(format!("cause: \"{name}\" is none; they are normal, with_will, lost, shutdown")),
    })
}

/// Who publishes, connects or subscribes.
struct PeerParts {
    client: ClientId,
    principal: Principal,
    is_application: bool,
}

impl PeerParts {
    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let client = fields.text("client")?.unwrap_or_else(|| "tester".into());
        let (user, groups) = (fields.text("user")?, fields.texts("groups")?);
        let principal = Principal { user, groups: groups.into() };
        Ok(Self { client: ClientId(client), principal, is_application: fields.boolean("is_application")? })
    }

    fn as_peer(&self) -> Peer<'_> {
        Peer { client: &self.client, principal: &self.principal, is_application: self.is_application }
    }
}

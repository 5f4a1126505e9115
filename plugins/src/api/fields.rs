//! The one object that a hook gets: a message, a letter, a client or a subscription. There is one for each VM; what it shows is the call's subject, and
//! nothing is built that is not asked for.

use std::num::NonZeroU32;

use base::{Message, Priority, Qos, ReasonCode, TopicName, WallMillis, Wishes};
use broker::api::{DisconnectCause, Principal};
use broker::hooks::Peer;
use bytes::Bytes;
use bytestring::ByteString;
use postroad_base as base;
use postroad_broker as broker;
use postroad_protocol::mqtt::Forwarded;

use super::{Value, part_from_table, saying, v};
use crate::Hook;
use crate::call::{Draft, Subject, seconds_left};
use crate::diagnostic::nearest;
use crate::lua::{Fault, Kind, Returned, Stack};

/// What has a field: a set of kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of(u8);

impl Of {
    /// Nothing has it.
    pub const NONE: Self = Self(0);
    /// A message: `route`, `on_inbound`, `on_deliver`.
    pub const MESSAGE: Self = Self(1);
    /// A dead letter: `on_dead_letter`.
    pub const LETTER: Self = Self(2);
    /// Who wants to connect: `on_connect`.
    pub const CONNECT: Self = Self(4);
    /// Whose connection is over: `on_disconnect`.
    pub const GONE: Self = Self(8);
    /// `on_subscribe`.
    pub const SUBSCRIPTION: Self = Self(16);
    /// A table that stands for a message: in `split`, `also`, `publish`.
    pub const PART: Self = Self(32);

    /// One of both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `other` is among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

const MESSAGES: Of = Of::MESSAGE.or(Of::LETTER);
const PARTS: Of = Of::MESSAGE.or(Of::PART);
const PARTS_AND_LETTERS: Of = PARTS.or(Of::LETTER);
const WITH_PEER: Of = MESSAGES.or(Of::CONNECT).or(Of::GONE).or(Of::SUBSCRIPTION);

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type, as language servers read it.
    pub kind: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Where it can be read.
    pub read: Of,
    /// Where it can be set; in `on_deliver` nothing can.
    pub set: Of,
}

/// A method of a message.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub parameters: &'static [Value],
    /// What it gives.
    pub results: &'static [Value],
    /// What it is for.
    pub doc: &'static str,
    /// What has it.
    pub of: Of,
}

macro_rules! fields {
    ($($id:ident, $name:literal, $kind:literal, $read:expr, $set:expr, $doc:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Id { $($id),* }

        impl Id {
            /// By lengths and bytes: a match of a few nanoseconds.
            fn of(name: &[u8]) -> Option<Self> {
                match std::str::from_utf8(name).ok()? {
                    $($name => Some(Self::$id),)*
                    _ => None,
                }
            }

            const fn field(self) -> &'static Field {
                &FIELDS[self as usize]
            }
        }

        /// Every field, in the order of the reference.
        pub static FIELDS: &[Field] =
            &[$(Field { name: $name, kind: $kind, doc: $doc, read: $read, set: $set }),*];
    };
}

fields! {
    Topic, "topic", "string", MESSAGES, PARTS_AND_LETTERS, "The topic name.";
    Payload, "payload", "string", MESSAGES, PARTS_AND_LETTERS, "The application's bytes.";
    Qos, "qos", "integer", MESSAGES.or(Of::SUBSCRIPTION), PARTS.or(Of::SUBSCRIPTION), "0, 1 or 2. It can be made lower, not higher.";
    Retain, "retain", "boolean", MESSAGES, PARTS, "Whether the message is to be retained.";
    Priority, "priority", "\"low\"|\"normal\"|\"high\"", MESSAGES, PARTS, "Which of the messages that wait go first.";
    Ttl, "ttl", "number?", MESSAGES, PARTS_AND_LETTERS, "Seconds for which the message is worth delivering; `nil`: without limit.";
    DeliverAt, "deliver_at", "integer?", MESSAGES, PARTS, "Not before that: milliseconds since 1970.";
    CollapseKey, "collapse_key", "string?", MESSAGES, PARTS, "What has this key and has not been sent is replaced by the message.";
    RetryAttemptsMax, "retry_attempts_max", "integer?", MESSAGES, PARTS, "How often it is sent to one recipient at most.";
    RetryAgeMax, "retry_age_max", "number?", MESSAGES, PARTS, "For how many seconds it is sent again; 0: without limit.";
    ContentType, "content_type", "string?", MESSAGES, PARTS, "What the payload is, in the application's words.";
    Properties, "properties", "table<string, string>", MESSAGES, Of::PART, "The first value of each user property. A new table each time: see `property` and `set_property`.";
    Client, "client", "string?", WITH_PEER, Of::NONE, "Who publishes, connects or subscribes; of a letter: who did not get it. In `on_deliver`: nil.";
    User, "user", "string?", WITH_PEER, Of::NONE, "The user that the client proved to be.";
    Groups, "groups", "string[]", WITH_PEER, Of::NONE, "The groups of the client. A new table each time.";
    IsApplication, "is_application", "boolean", Of::MESSAGE.or(Of::GONE).or(Of::SUBSCRIPTION), Of::NONE, "An application published it, by the API.";
    Identifier, "id", "string?", MESSAGES, Of::NONE, "The id of the message, before it has one `nil`.";
    Reason, "reason", "string", Of::LETTER, Of::NONE, "How the delivery ended, such as `\"attempts\"`.";
    Attempts, "attempts", "integer", Of::LETTER, Of::NONE, "How often it was sent.";
    DiedAt, "died_at", "integer", Of::LETTER, Of::NONE, "When the delivery ended: milliseconds since 1970.";
    Requeues, "requeues", "integer", Of::LETTER, Of::NONE, "How many requeues the message has behind it.";
    ReasonCode, "reason_code", "integer", Of::LETTER, Of::NONE, "The receiver's reason code, or 0.";
    Error, "error", "string?", Of::LETTER, Of::NONE, "What its receiver had against it, in words.";
    IsPush, "is_push", "boolean", Of::LETTER, Of::NONE, "It had been pushed to the client, and waited for its registration.";
    CleanStart, "clean_start", "boolean", Of::CONNECT, Of::NONE, "The client wants its old session ended.";
    Expiry, "expiry", "integer", Of::CONNECT, Of::NONE, "Seconds for which the session outlives the connection.";
    WillTopic, "will_topic", "string?", Of::CONNECT, Of::NONE, "The topic of its will, if it has one.";
    Cause, "cause", "\"normal\"|\"with_will\"|\"lost\"|\"shutdown\"", Of::GONE, Of::NONE, "How the connection ended.";
    Filter, "filter", "string", Of::SUBSCRIPTION, Of::NONE, "The topic filter that the client subscribes to.";
}

/// Methods of messages.
pub static METHODS: &[Method] = &[
    Method {
        name: "property",
        parameters: &[v("name", "string", "The name of a user property.")],
        results: &[v("value", "string?", "Its first value.")],
        doc: "One user property.",
        of: MESSAGES,
    },
    Method {
        name: "set_property",
        parameters: &[
            v("name", "string", "The name."),
            v("value", "string?", "The value; `nil`: none of that name any more."),
        ],
        results: &[],
        doc: "Sets one user property. Others of the name go.",
        of: Of::MESSAGE,
    },
    Method {
        name: "also",
        parameters: &[v("part", "postroad.Part", "A table with `topic` and other fields of a message.")],
        results: &[],
        doc: "Adds a message, and keeps this one. What the part does not say it has from this one as the hook leaves it.",
        of: Of::MESSAGE,
    },
];

/// Makes the object and its type. May raise: once, when a VM is made.
pub(super) fn install(stack: Stack<'_>) {
    let functions = [property, set_property, also];
    for (place, function) in functions.into_iter().enumerate() {
        stack.push_function(function, 0);
        stack.host().kept.methods[place] = stack.keep();
    }
    stack.push_userdata(1);
    super::push_type(stack, "postroad.Message", &[]);
    stack.push_function(index, 0);
    stack.raw_set_name(-2, "__index");
    stack.push_function(set_index, 0);
    stack.raw_set_name(-2, "__newindex");
    stack.set_metatable(-2);
    stack.host().kept.message = stack.keep();
}

const STALE: Fault = Fault::Text("the object is used after its call: copy what you want to keep");

fn kind_of(subject: Subject<'_>) -> Of {
    match subject {
        Subject::None => Of::NONE,
        Subject::Message(..) => Of::MESSAGE,
        Subject::Letter(_) => Of::LETTER,
        Subject::Connect(_) => Of::CONNECT,
        Subject::Gone(..) => Of::GONE,
        Subject::Subscription(..) => Of::SUBSCRIPTION,
    }
}

fn no_field(stack: Stack<'_>, name: &[u8], of: Of) -> Fault {
    let fields = FIELDS.iter().filter(|field| field.read.or(field.set).has(of)).map(|field| field.name);
    let known = fields.chain(METHODS.iter().filter(|method| method.of.has(of)).map(|method| method.name));
    let shown = String::from_utf8_lossy(&name[..name.len().min(64)]);
    let fault = match nearest(&shown, known) {
        Some(near) => saying(stack, format_args!("there is no field '{shown}' here: did you mean '{near}'?")),
        None => saying(stack, format_args!("there is no field '{shown}' here")),
    };
    drop(shown); // a fault is raised in a frame that owns nothing
    fault
}

/// `object[key]`
fn index(stack: Stack<'_>) -> Returned {
    let name = stack.bytes(2).ok_or(Fault::Argument(2, "expected the name of a field"))?;
    let subject = stack.host().call.subject();
    let of = kind_of(subject);
    if of == Of::NONE {
        return Err(STALE);
    }
    let Some(id) = Id::of(name).filter(|id| id.field().read.has(of)) else {
        return push_method(stack, name, of);
    };
    match subject {
        Subject::Message(message, _) | Subject::Letter(message) if push_of_message(stack, id, message) => {}
        Subject::Letter(letter) => push_of_letter(stack, id, letter),
        _ => push_of_peer(stack, id, subject),
    }
    Ok(1)
}

fn push_method(stack: Stack<'_>, name: &[u8], of: Of) -> Returned {
    let place = METHODS.iter().position(|method| method.name.as_bytes() == name && method.of.has(of));
    let Some(place) = place else { return Err(no_field(stack, name, of)) };
    stack.push_reference(stack.host().kept.methods[place]);
    Ok(1)
}

/// What messages and letters have; `false` and nothing pushed if it is something else.
#[inline]
fn push_of_message(stack: Stack<'_>, id: Id, message: &Message) -> bool {
    let draft = &stack.host().call.draft;
    match id {
        Id::Topic => stack.push_bytes(draft.topic.as_ref().unwrap_or(&message.topic).as_str().as_bytes()),
        Id::Payload => stack.push_bytes(draft.payload.as_ref().unwrap_or(&message.payload)),
        Id::Qos => stack.push_integer(draft.qos.unwrap_or(message.qos).number().into()),
        Id::Retain => stack.push_boolean(draft.retain.unwrap_or(message.retain)),
        Id::Priority => stack.push_bytes(draft.priority.unwrap_or(message.priority()).name().as_bytes()),
        Id::Ttl => {
            let left = match draft.expires_at {
                Some(at) => at.map(|at| at.since(stack.host().now.wall).div_ceil(1000)),
                None => seconds_left(message, stack.host().now),
            };
            push_count(stack, left);
        }
        Id::DeliverAt => {
            let at = draft.deliver_at.unwrap_or_else(|| message.wishes().and_then(|wishes| wishes.deliver_at));
            push_count(stack, at.map(|at| at.0));
        }
        Id::CollapseKey => push_text(stack, draft.collapse_key.as_ref().map_or(message.collapse_key(), Option::as_ref)),
        Id::RetryAttemptsMax => {
            let max = draft.attempts_max.unwrap_or_else(|| message.wishes().and_then(|wishes| wishes.attempts_max));
            push_count(stack, max.map(|max| max.get().into()));
        }
        Id::RetryAgeMax => {
            let max = draft.age_max_ms.unwrap_or_else(|| message.wishes().and_then(|wishes| wishes.age_max_ms));
            push_count(stack, max.map(|ms| ms / 1000));
        }
        Id::ContentType => match &draft.content_type {
            Some(text) => push_text(stack, text.as_ref()),
            None => push_str(stack, Forwarded::from_stored(&message.properties).content_type()),
        },
        Id::Properties => push_properties(stack, message),
        Id::Identifier if message.id == base::MessageId::default() => stack.push_nil(),
        Id::Identifier => {
            super::say(stack, format_args!("{}", message.id));
            stack.push_scratch();
        }
        _ => return false,
    }
    true
}

/// The first value of each name, with what was set. May raise: what it walks over is the subject's and the draft's.
fn push_properties(stack: Stack<'_>, message: &Message) {
    stack.push_table(0, 4);
    for (name, value) in Forwarded::from_stored(&message.properties).user_properties().iter() {
        stack.push_bytes(name.as_bytes());
        stack.push_copy(-1);
        stack.raw_get(-3);
        let is_new = stack.is_nil(-1);
        stack.pop(1);
        if is_new {
            stack.push_bytes(value.as_bytes());
            stack.raw_set(-3);
        } else {
            stack.pop(1);
        }
    }
    for (name, value) in &stack.host().call.draft.properties {
        push_text(stack, value.as_ref());
        stack.raw_set_name(-2, name);
    }
}

fn push_of_letter(stack: Stack<'_>, id: Id, letter: &Message) {
    let Some(death) = letter.death() else { return stack.push_nil() };
    match id {
        Id::Client => stack.push_bytes(death.client.as_str().as_bytes()),
        Id::Reason => stack.push_bytes(death.outcome.name().as_bytes()),
        Id::Attempts => stack.push_integer(death.attempts.into()),
        Id::DiedAt => push_count(stack, Some(death.at.0)),
        Id::Requeues => stack.push_integer(letter.requeues().into()),
        Id::ReasonCode => stack.push_integer(death.reason_code.into()),
        Id::Error => push_text(stack, death.error.as_ref()),
        Id::IsPush => stack.push_boolean(death.is_push),
        _ => stack.push_nil(), // who it was as a user is not kept with a letter
    }
}

fn push_of_peer(stack: Stack<'_>, id: Id, subject: Subject<'_>) {
    let peer = match subject {
        Subject::Message(_, peer) => peer,
        Subject::Gone(peer, _) | Subject::Subscription(peer, ..) => Some(peer),
        Subject::Connect(connect) => {
            Some(Peer { client: &connect.client, principal: &connect.principal, is_application: false })
        }
        Subject::None | Subject::Letter(_) => None,
    };
    match (id, subject) {
        (Id::Client, _) => push_str(stack, peer.map(|peer| peer.client.as_str())),
        (Id::User, _) => push_text(stack, peer.and_then(|peer| peer.principal.user.as_ref())),
        (Id::Groups, _) => push_groups(stack, peer.map(|peer| peer.principal)),
        (Id::IsApplication, _) => stack.push_boolean(peer.is_some_and(|peer| peer.is_application)),
        (Id::CleanStart, Subject::Connect(connect)) => stack.push_boolean(connect.clean_start),
        (Id::Expiry, Subject::Connect(connect)) => stack.push_integer(connect.expiry.0.into()),
        (Id::WillTopic, Subject::Connect(connect)) => {
            push_str(stack, connect.will.as_ref().map(|will| will.topic.as_str()));
        }
        (Id::Cause, Subject::Gone(_, cause)) => stack.push_bytes(cause_name(cause).as_bytes()),
        (Id::Filter, Subject::Subscription(_, filter, _)) => stack.push_bytes(filter.as_str().as_bytes()),
        (Id::Qos, Subject::Subscription(_, _, qos)) => {
            stack.push_integer(stack.host().call.draft.qos.unwrap_or(qos).number().into());
        }
        _ => stack.push_nil(),
    }
}

fn cause_name(cause: DisconnectCause) -> &'static str {
    match cause {
        DisconnectCause::Normal { .. } => "normal",
        DisconnectCause::WithWill { .. } => "with_will",
        DisconnectCause::Lost => "lost",
        DisconnectCause::ServerShutdown => "shutdown",
    }
}

fn push_groups(stack: Stack<'_>, principal: Option<&Principal>) {
    let groups = principal.map_or(&[][..], |principal| &principal.groups);
    stack.push_table(groups.len(), 0);
    for (place, group) in groups.iter().enumerate() {
        stack.push_bytes(group.as_bytes());
        stack.raw_set_at(-2, place as i64 + 1);
    }
}

fn push_str(stack: Stack<'_>, text: Option<&str>) {
    match text {
        Some(text) => stack.push_bytes(text.as_bytes()),
        None => stack.push_nil(),
    }
}

fn push_text(stack: Stack<'_>, text: Option<&ByteString>) {
    push_str(stack, text.map(|text| &**text));
}

fn push_count(stack: Stack<'_>, count: Option<u64>) {
    match count {
        Some(count) => stack.push_integer(i64::try_from(count).unwrap_or(i64::MAX)),
        None => stack.push_nil(),
    }
}

/// `object[key] = value`
fn set_index(stack: Stack<'_>) -> Returned {
    let name = stack.bytes(2).ok_or(Fault::Argument(2, "expected the name of a field"))?;
    let call = &stack.host().call;
    let (subject, hook) = (call.subject(), call.hook);
    let of = kind_of(subject);
    if of == Of::NONE {
        return Err(STALE);
    }
    let Some(id) = Id::of(name) else { return Err(no_field(stack, name, of)) };
    if !id.field().set.has(of) || hook == Some(Hook::Deliver) {
        return Err(saying(stack, format_args!("'{}' can't be set here", id.field().name)));
    }
    let qos_max = match subject {
        Subject::Message(message, _) => message.qos,
        Subject::Subscription(_, _, qos) => qos,
        _ => Qos::ExactlyOnce,
    };
    fill(stack, id, 3, &mut stack.host().call.draft, qos_max)?;
    Ok(0)
}

/// Takes the value of a field into a draft. Raises nothing: what it makes is Rust's.
fn fill(stack: Stack<'_>, id: Id, value: i32, draft: &mut Draft, qos_max: Qos) -> Result<(), Fault> {
    let wrong = || saying(stack, format_args!("'{}' can't be {}", id.field().name, shown(stack, value)));
    let is_nil = stack.is_nil(value);
    match id {
        Id::Topic => {
            let text = stack.text(value).ok_or_else(wrong)?;
            let topic = TopicName::new(text);
            draft.topic = Some(topic.map_err(|error| saying(stack, format_args!("'topic': {error}")))?);
        }
        Id::Payload => {
            let bytes = stack.bytes(value).ok_or_else(wrong)?;
            stack.host().charge_bytes(bytes.len())?;
            draft.payload = Some(Bytes::copy_from_slice(bytes));
        }
        Id::Qos => {
            let number = stack.integer(value).and_then(|number| u8::try_from(number).ok());
            let qos = number.and_then(Qos::from_number).ok_or_else(wrong)?;
            if qos > qos_max {
                return Err(saying(stack, format_args!("'qos' can't be made higher: it was {}", qos_max.number())));
            }
            draft.qos = Some(qos);
        }
        Id::Retain => draft.retain = Some(stack.boolean(value).ok_or_else(wrong)?),
        Id::Priority => draft.priority = Some(stack.text(value).and_then(Priority::from_name).ok_or_else(wrong)?),
        Id::Ttl => {
            let ms = optional(is_nil, || milliseconds(stack, value)).ok_or_else(wrong)?;
            draft.expires_at = Some(ms.map(|ms| stack.host().now.wall.after(ms)));
            draft.ttl_seconds = ms.map(|ms| u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX));
        }
        Id::DeliverAt => {
            let latest = stack.host().now.wall.after(1000 * Wishes::SECONDS_MAX).0;
            let at = optional(is_nil, || stack.integer(value).and_then(|at| u64::try_from(at).ok()));
            let at = at.filter(|at| at.is_none_or(|at| at <= latest)).ok_or_else(wrong)?;
            draft.deliver_at = Some(at.map(WallMillis));
        }
        Id::CollapseKey => {
            let is_key = |key: &&str| (1..=Wishes::KEY_BYTES_MAX).contains(&key.len()) && !key.contains('\0');
            let key = optional(is_nil, || stack.text(value).filter(is_key)).ok_or_else(wrong)?;
            draft.collapse_key = Some(key.map(ByteString::from));
        }
        Id::RetryAttemptsMax => {
            let count = || stack.integer(value).and_then(|count| u32::try_from(count).ok()).and_then(NonZeroU32::new);
            draft.attempts_max = Some(optional(is_nil, count).ok_or_else(wrong)?);
        }
        Id::RetryAgeMax => draft.age_max_ms = Some(optional(is_nil, || milliseconds(stack, value)).ok_or_else(wrong)?),
        Id::ContentType => {
            let text = optional(is_nil, || stack.text(value).filter(|text| is_mqtt_text(text))).ok_or_else(wrong)?;
            draft.content_type = Some(text.map(ByteString::from));
        }
        Id::Properties => fill_properties(stack, value, draft)?,
        _ => return Err(saying(stack, format_args!("'{}' can't be set", id.field().name))),
    }
    Ok(())
}

fn optional<T>(is_nil: bool, read: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
    if is_nil { Some(None) } else { read().map(Some) }
}

/// Seconds of a script, with or without a fraction, up to ten years.
fn milliseconds(stack: Stack<'_>, value: i32) -> Option<u64> {
    let seconds = stack.number(value).filter(|seconds| (0.0..=Wishes::SECONDS_MAX as f64).contains(seconds))?;
    Some((seconds * 1000.0).ceil() as u64)
}

/// A text of MQTT: 65,535 bytes at most, no U+0000.
fn is_mqtt_text(text: &str) -> bool {
    text.len() <= 65_535 && !text.contains('\0')
}

/// A value as an error shows it.
fn shown(stack: Stack<'_>, value: i32) -> Shown {
    match stack.kind(value) {
        Kind::String => {
            let mut text = String::from("\"");
            stack.describe(value, &mut text);
            text.truncate(text.floor_char_boundary(60));
            text.push('"');
            Shown(text)
        }
        Kind::Number | Kind::Boolean => {
            let mut text = String::new();
            stack.describe(value, &mut text);
            Shown(text)
        }
        other => Shown(other.name().to_owned()),
    }
}

struct Shown(String);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Most user properties that are set in one message.
const PROPERTIES_MAX: usize = 256;

fn check_properties(draft: &Draft) -> Result<(), Fault> {
    if draft.properties.len() < PROPERTIES_MAX {
        Ok(())
    } else {
        Err(Fault::Text("more than 256 user properties are set"))
    }
}

const WRONG_PROPERTY: Fault = Fault::Text("user properties have names and values of text, 65,535 bytes at most");

fn fill_properties(stack: Stack<'_>, table: i32, draft: &mut Draft) -> Result<(), Fault> {
    if stack.kind(table) != Kind::Table {
        return Err(Fault::Text("'properties' must be a table of texts"));
    }
    let table = stack.absolute(table);
    if !stack.has_room(4) {
        return Err(Fault::Text("no room on the stack"));
    }
    let from = draft.properties.len();
    stack.push_nil();
    while stack.next(table) {
        check_properties(draft)?;
        let name = stack.text(-2).filter(|name| is_mqtt_text(name)).ok_or(WRONG_PROPERTY)?;
        let value = stack.text(-1).filter(|value| is_mqtt_text(value)).ok_or(WRONG_PROPERTY)?;
        draft.properties.push((name.into(), Some(value.into())));
        stack.pop(1);
    }
    draft.properties[from..].sort_unstable(); // Lua's order differs from VM to VM
    Ok(())
}

/// A table that stands for a message. Raises nothing.
pub(super) fn read_part(stack: Stack<'_>, table: i32, qos_max: Qos) -> Result<Draft, Fault> {
    if stack.kind(table) != Kind::Table {
        return Err(Fault::Text("expected a table with the fields of a message"));
    }
    if !stack.has_room(8) {
        return Err(Fault::Text("no room on the stack"));
    }
    let table = stack.absolute(table);
    let mut draft = Draft::default();
    stack.push_nil();
    while stack.next(table) {
        let name = stack.bytes(-2).ok_or(Fault::Text("expected a table with the fields of a message"))?;
        let id = Id::of(name).filter(|id| id.field().set.has(Of::PART));
        let id = id.ok_or_else(|| no_field(stack, name, Of::PART))?;
        fill(stack, id, stack.absolute(-1), &mut draft, qos_max)?;
        stack.pop(1);
    }
    let host = stack.host();
    host.call.bytes = host.call.bytes.saturating_add(draft.size());
    if host.call.bytes > host.limits.result_bytes {
        return Err(saying(stack, format_args!("its messages have more than {} bytes", host.limits.result_bytes)));
    }
    Ok(draft)
}

fn subject_message<'a>(stack: Stack<'a>) -> Result<&'a Message, Fault> {
    match stack.host().call.subject() {
        Subject::Message(message, _) | Subject::Letter(message) => Ok(message),
        Subject::None => Err(STALE),
        _ => Err(Fault::Text("this is no message")),
    }
}

/// `message:property(name)`
fn property(stack: Stack<'_>) -> Returned {
    let message = subject_message(stack)?;
    let name = stack.text(2).ok_or(Fault::Argument(1, "expected the name of a user property"))?;
    let set = stack.host().call.draft.properties.iter().rev().find(|(known, _)| **known == *name);
    match set {
        Some((_, value)) => push_text(stack, value.as_ref()),
        None => {
            let mut all = Forwarded::from_stored(&message.properties).user_properties().iter();
            push_str(stack, all.find(|(known, _)| *known == name).map(|(_, value)| value));
        }
    }
    Ok(1)
}

/// `message:set_property(name, value)`
fn set_property(stack: Stack<'_>) -> Returned {
    check_route(stack)?;
    let name = stack.text(2).filter(|name| is_mqtt_text(name)).ok_or(WRONG_PROPERTY)?;
    let value =
        optional(stack.is_nil(3), || stack.text(3).filter(|value| is_mqtt_text(value))).ok_or(WRONG_PROPERTY)?;
    let properties = &mut stack.host().call.draft.properties;
    let value = value.map(ByteString::from);
    match properties.iter_mut().find(|(known, _)| **known == *name) {
        Some((_, known)) => *known = value,
        None => {
            check_properties(&stack.host().call.draft)?;
            stack.host().call.draft.properties.push((name.into(), value));
        }
    }
    Ok(0)
}

/// `message:also { … }`
fn also(stack: Stack<'_>) -> Returned {
    let message = check_route(stack)?;
    if stack.host().call.also.len() >= stack.host().limits.results {
        return Err(saying(stack, format_args!("more than {} messages", stack.host().limits.results)));
    }
    let draft = part_from_table(stack, 2, message.qos)?;
    if draft.topic.is_none() {
        return Err(Fault::Text("a part needs a topic"));
    }
    stack.host().call.also.push(draft);
    Ok(0)
}

fn check_route<'a>(stack: Stack<'a>) -> Result<&'a Message, Fault> {
    let message = subject_message(stack)?;
    match stack.host().call.hook {
        Some(Hook::Route | Hook::Inbound) => Ok(message),
        _ => Err(Fault::Text("only route and on_inbound can do this")),
    }
}

/// The name of a reason code in scripts: as the specification has it, in small letters, with underscores.
pub(super) fn reason_code(stack: Stack<'_>, index: i32) -> Option<ReasonCode> {
    if let Some(name) = stack.bytes(index) {
        let is_same = |code: &&ReasonCode| {
            let words = code
                .name()
                .bytes()
                .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' });
            words.eq(name.iter().copied())
        };
        return base::ReasonCode::ALL.iter().filter(|code| code.is_error()).find(is_same).copied();
    }
    let number = stack.integer(index).and_then(|number| u8::try_from(number).ok())?;
    base::ReasonCode::from_number(number).filter(|code| code.is_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_found_by_its_name() {
        for (place, field) in FIELDS.iter().enumerate() {
            let id = Id::of(field.name.as_bytes()).expect("it has an id");
            assert_eq!((id as usize, id.field().name), (place, field.name));
            assert!(field.doc.ends_with('.'), "{field:?}");
        }
        assert_eq!(Id::of(b"nothing"), None);
    }
}

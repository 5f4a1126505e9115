//! All plugins asked in their order, and what comes of it in the broker's terms.

use base::{ClientId, Extras, Message, Now, Qos, ReasonCode, TopicFilter};
use broker::api::{Connect, DisconnectCause};
use broker::hooks::{Admission, Answer, Decision, Peer, Repair};
use bytestring::ByteString;
use postroad_base as base;
use postroad_broker as broker;

use super::{Failed, Said, Vm};
use crate::Hook;
use crate::api::Given;
use crate::call::{Draft, Subject};
use crate::lua::{Fault, Kind};

/// What a closed hook says.
const CLOSED: ReasonCode = ReasonCode::ImplementationSpecificError;

/// A message on its way through the chain.
struct Flow<'a> {
    now: Now,
    from: Peer<'a>,
    came: &'a Message,
    /// As plugins have changed it, if any has.
    changed: Option<Message>,
    /// Added targets, in their order.
    added: Vec<Message>,
    /// Published besides.
    besides: Vec<Message>,
}

impl Flow<'_> {
    fn message(&self) -> &Message {
        self.changed.as_ref().unwrap_or(self.came)
    }

    fn id(&self) -> Option<base::MessageId> {
        (self.came.id != base::MessageId::default()).then_some(self.came.id)
    }
}

/// Whether the next plugin is asked.
enum Next {
    Goes,
    /// What was set holds; nobody else is asked.
    Stops,
    Ends(Decision),
}

pub(super) fn publish(vm: &mut Vm, now: Now, message: &Message, from: Peer<'_>) -> Answer<Decision> {
    let mut flow = Flow { now, from, came: message, changed: None, added: Vec::new(), besides: Vec::new() };
    let hooks: &[Hook] = if from.is_application { &[Hook::Route] } else { &[Hook::Inbound, Hook::Route] };
    for hook in hooks {
        for step in 0..vm.chains[*hook as usize].len() {
            let place = vm.chains[*hook as usize][step];
            let topic = flow.message().topic.as_str();
            if !vm.plugins[place].hook(*hook).is_some_and(|about| about.filters.match_topic(topic)) {
                continue;
            }
            match ask(vm, place, *hook, &mut flow) {
                Next::Goes => {}
                Next::Stops => return kept(flow),
                Next::Ends(decision) => return Answer { answer: decision, publish: flow.besides },
            }
        }
    }
    kept(flow)
}

fn kept(flow: Flow<'_>) -> Answer<Decision> {
    let Flow { came, changed, mut added, besides, .. } = flow;
    if added.is_empty() && changed.is_none() {
        return Answer { answer: Decision::Keep, publish: besides };
    }
    added.push(changed.unwrap_or_else(|| came.clone()));
    Answer { answer: Decision::Replace(added), publish: besides }
}

/// One plugin's turn with the message.
fn ask(vm: &mut Vm, place: usize, hook: Hook, flow: &mut Flow<'_>) -> Next {
    let subject = Subject::Message(flow.changed.as_ref().unwrap_or(flow.came), Some(flow.from));
    let said = vm.ask(place, hook, flow.now, subject, flow.id());
    match said.and_then(|said| take(vm, place, hook, flow, said)) {
        Ok(next) => next,
        Err(Failed { is_open: true }) => Next::Goes,
        Err(Failed { is_open: false }) => Next::Ends(Decision::Refuse(CLOSED)),
    }
}

/// Most hooks set nothing and say nothing: that costs nothing here.
fn take(vm: &mut Vm, place: usize, hook: Hook, flow: &mut Flow<'_>, said: Said) -> Result<Next, Failed> {
    let Said { given, draft, also } = said;
    if given.is_empty() && also.is_empty() && draft.is_empty() {
        return Ok(Next::Goes);
    }
    let changed = (!draft.is_empty()).then(|| draft.applied_to(flow.message().clone()));
    let base = changed.as_ref().unwrap_or(flow.message());
    let mut made = Made::new(vm);
    let mut added: Vec<Message> = Vec::new();
    let mut besides = Vec::new();
    let mut end = None;
    let result = (|| {
        for part in also {
            added.push(made.part_of(base, part)?);
        }
        for given in given {
            let decision = match given {
                Given::Publish(parts) => {
                    for part in parts {
                        besides.push(made.besides(part)?);
                    }
                    continue;
                }
                Given::Split(parts) => {
                    for part in parts {
                        added.push(made.part_of(base, part)?);
                    }
                    Next::Ends(Decision::Drop)
                }
                Given::Drop => Next::Ends(Decision::Drop),
                Given::Refuse(code) => Next::Ends(Decision::Refuse(code)),
                Given::Park(note) => Next::Ends(Decision::Park(note)),
                Given::Stop => Next::Stops,
                other => return Err(format!("postroad.{} is no answer here", other.name())),
            };
            if end.replace(decision).is_some() {
                return Err("more than one answer that decides".to_owned());
            }
        }
        Ok(())
    })();
    if let Err(text) = result {
        return Err(vm.fail(place, hook, flow.id(), text));
    }
    flow.besides.append(&mut besides);
    flow.added.append(&mut added);
    if changed.is_some() {
        flow.changed = changed;
    }
    Ok(match end {
        None => Next::Goes,
        // What was added goes, the message itself does not.
        Some(Next::Ends(Decision::Drop)) if !flow.added.is_empty() => {
            Next::Ends(Decision::Replace(std::mem::take(&mut flow.added)))
        }
        Some(next) => next,
    })
}

/// Messages that one call makes, within its limits.
struct Made {
    results_left: usize,
    bytes_left: usize,
}

impl Made {
    fn new(vm: &Vm) -> Self {
        let limits = &vm.state.host().limits;
        Self { results_left: limits.results, bytes_left: limits.result_bytes }
    }

    /// A part of a message: what it does not say, it has from it. It repeats no publish, so it has no key of one.
    fn part_of(&mut self, base: &Message, part: Draft) -> Result<Message, String> {
        let mut message = part.applied_to(base.clone());
        if let Some(extras) = &mut message.extras {
            extras.wishes.idempotency_key = None;
        }
        message.extras = message.extras.filter(|extras| **extras != Extras::default());
        self.counted(message)
    }

    fn besides(&mut self, part: Draft) -> Result<Message, String> {
        let message = part.into_message().ok_or_else(|| "a message to publish needs a topic".to_owned())?;
        self.counted(message)
    }

    fn counted(&mut self, message: Message) -> Result<Message, String> {
        self.results_left = self.results_left.checked_sub(1).ok_or("it makes more messages than plugins.results")?;
        let left = self.bytes_left.checked_sub(message.size());
        self.bytes_left = left.ok_or("its messages have more bytes than plugins.result_bytes")?;
        Ok(message)
    }
}

/// What a hook without a message of its own wants published; its other answers are left in `rest`.
fn besides(vm: &mut Vm, place: usize, hook: Hook, given: Vec<Given>) -> Result<(Vec<Message>, Vec<Given>), Failed> {
    let mut made = Made::new(vm);
    let (mut messages, mut rest) = (Vec::new(), Vec::new());
    for given in given {
        match given {
            Given::Publish(parts) => {
                for part in parts {
                    match made.besides(part) {
                        Ok(message) => messages.push(message),
                        Err(text) => return Err(vm.fail(place, hook, None, text)),
                    }
                }
            }
            other => rest.push(other),
        }
    }
    Ok((messages, rest))
}

/// At most one answer that decides.
fn one(vm: &mut Vm, place: usize, hook: Hook, rest: Vec<Given>) -> Result<Option<Given>, Failed> {
    let mut rest = rest.into_iter();
    let first = rest.next();
    if rest.next().is_some() {
        return Err(vm.fail(place, hook, None, "more than one answer that decides".to_owned()));
    }
    Ok(first)
}

fn no_answer(vm: &mut Vm, place: usize, hook: Hook, given: &Given) -> Failed {
    vm.fail(place, hook, None, format!("postroad.{} is no answer here", given.name()))
}

pub(super) fn deliver(vm: &mut Vm, now: Now, message: &Message, to: &[&ClientId]) -> Vec<usize> {
    let mut left_out = vec![false; to.len()];
    for step in 0..vm.chains[Hook::Deliver as usize].len() {
        let place = vm.chains[Hook::Deliver as usize][step];
        let about = vm.plugins[place].hook(Hook::Deliver);
        if !about.is_some_and(|about| about.filters.match_topic(message.topic.as_str())) {
            continue;
        }
        let rest: Vec<usize> = (0..to.len()).filter(|client| !left_out[*client]).collect();
        match ask_delivery(vm, place, now, message, to, &rest) {
            Ok(found) => found.into_iter().for_each(|client| left_out[client] = true),
            Err(Failed { is_open: true }) => {}
            Err(Failed { is_open: false }) => return (0..to.len()).collect(),
        }
    }
    (0..to.len()).filter(|client| left_out[*client]).collect()
}

/// Those of `rest` that a plugin leaves out.
fn ask_delivery(
    vm: &mut Vm,
    place: usize,
    now: Now,
    message: &Message,
    to: &[&ClientId],
    rest: &[usize],
) -> Result<Vec<usize>, Failed> {
    let object = vm.state.host().kept.message;
    let mut found = Vec::with_capacity(rest.len());
    let subject = Subject::Message(message, None);
    vm.run(place, Hook::Deliver, now, subject, Some(message.id), |stack, function| {
        stack.push_reference(function);
        stack.push_reference(object);
        stack.push_table(rest.len(), 0);
        for (index, client) in rest.iter().enumerate() {
            stack.push_bytes(to[*client].as_str().as_bytes());
            stack.raw_set_at(-2, index as i64 + 1);
        }
        stack.call(2, 1);
        match stack.kind(-1) {
            Kind::Nil => return Ok(0),
            Kind::Table => {}
            _ => return Err(Fault::Text("on_deliver returns nothing, or a table { [index] = false }")),
        }
        let table = stack.top();
        stack.push_nil();
        while stack.next(table) {
            let index = stack.integer(-2).and_then(|index| usize::try_from(index - 1).ok());
            let client = index.and_then(|index| rest.get(index)).copied();
            match (client, stack.boolean(-1)) {
                (Some(client), Some(false)) if found.len() < rest.len() => found.push(client),
                (Some(_), Some(true)) => {}
                _ => {
                    return Err(Fault::Text("on_deliver returns a table { [index] = false }, with indices of clients"));
                }
            }
            stack.pop(1);
        }
        Ok(0)
    })?;
    Ok(found)
}

pub(super) fn dead_letter(vm: &mut Vm, now: Now, letter: &Message) -> Answer<Repair> {
    let mut answer = Answer::default();
    for step in 0..vm.chains[Hook::DeadLetter as usize].len() {
        let place = vm.chains[Hook::DeadLetter as usize][step];
        let about = vm.plugins[place].hook(Hook::DeadLetter);
        if !about.is_some_and(|about| about.filters.match_topic(letter.topic.as_str())) {
            continue;
        }
        match repair(vm, place, now, letter, &mut answer.publish) {
            Ok(None) | Err(Failed { is_open: true }) => {}
            Ok(Some(repair)) => {
                answer.answer = repair;
                break;
            }
            Err(Failed { is_open: false }) => {
                answer.answer = Repair::Park(format!("plugin {} failed", vm.plugins[place].name).into());
                break;
            }
        }
    }
    answer
}

fn repair(
    vm: &mut Vm,
    place: usize,
    now: Now,
    letter: &Message,
    publish: &mut Vec<Message>,
) -> Result<Option<Repair>, Failed> {
    let said = vm.ask(place, Hook::DeadLetter, now, Subject::Letter(letter), Some(letter.id))?;
    let (mut messages, rest) = besides(vm, place, Hook::DeadLetter, said.given)?;
    let repair = match one(vm, place, Hook::DeadLetter, rest)? {
        None => None,
        Some(Given::Requeue) => Some(requeue(letter, said.draft)),
        Some(Given::Drop) => Some(Repair::Drop),
        Some(Given::Park(note)) => Some(Repair::Park(note)),
        Some(other) => return Err(no_answer(vm, place, Hook::DeadLetter, &other)),
    };
    publish.append(&mut messages);
    Ok(repair)
}

/// To its client again; or, if it has another topic, as a new message without what is left of the delivery's life.
fn requeue(letter: &Message, draft: Draft) -> Repair {
    if draft.topic.as_ref().is_none_or(|topic| *topic == letter.topic) {
        return Repair::Requeue(base::Requeue { payload: draft.payload, ttl_seconds: draft.ttl_seconds });
    }
    let mut message = Message { expires_at: None, retain: false, id: base::MessageId::default(), ..letter.clone() };
    message.extras = letter.wishes().and_then(|wishes| Extras::of_wishes(wishes.of_repeat()));
    message.publisher = base::QueueId::NONE;
    Repair::Publish(Box::new(draft.applied_to(message)))
}

pub(super) fn connect(vm: &mut Vm, now: Now, connect: &Connect) -> Answer<Admission> {
    let mut groups: Vec<ByteString> = Vec::new();
    let mut publish = Vec::new();
    for step in 0..vm.chains[Hook::Connect as usize].len() {
        let place = vm.chains[Hook::Connect as usize][step];
        match admit(vm, place, now, connect, &mut groups, &mut publish) {
            Ok(None) | Err(Failed { is_open: true }) => {}
            Ok(Some(code)) => return Answer { answer: Admission::Deny(code), publish },
            Err(Failed { is_open: false }) => return Answer { answer: Admission::Deny(CLOSED), publish },
        }
    }
    groups.sort_unstable();
    groups.dedup();
    let answer = if groups.is_empty() { Admission::Allow } else { Admission::AllowWith(groups) };
    Answer { answer, publish }
}

/// The reason for which one plugin denies it, if it does.
fn admit(
    vm: &mut Vm,
    place: usize,
    now: Now,
    connect: &Connect,
    groups: &mut Vec<ByteString>,
    publish: &mut Vec<Message>,
) -> Result<Option<ReasonCode>, Failed> {
    let said = vm.ask(place, Hook::Connect, now, Subject::Connect(connect), None)?;
    let (mut messages, rest) = besides(vm, place, Hook::Connect, said.given)?;
    let denied = match one(vm, place, Hook::Connect, rest)? {
        None => None,
        Some(Given::Deny(code)) => Some(code),
        Some(Given::Groups(mut names)) => {
            groups.append(&mut names);
            None
        }
        Some(other) => return Err(no_answer(vm, place, Hook::Connect, &other)),
    };
    publish.append(&mut messages);
    Ok(denied)
}

pub(super) fn disconnected(vm: &mut Vm, now: Now, peer: Peer<'_>, cause: DisconnectCause) -> Vec<Message> {
    let mut publish = Vec::new();
    for step in 0..vm.chains[Hook::Disconnect as usize].len() {
        let place = vm.chains[Hook::Disconnect as usize][step];
        let said = vm.ask(place, Hook::Disconnect, now, Subject::Gone(peer, cause), None);
        let read = said.and_then(|said| besides(vm, place, Hook::Disconnect, said.given));
        // Nothing can be closed here: the connection is over.
        if let Ok((mut messages, rest)) = read {
            match rest.first() {
                None => publish.append(&mut messages),
                Some(other) => {
                    let _nothing_to_close = no_answer(vm, place, Hook::Disconnect, other);
                }
            }
        }
    }
    publish
}

pub(super) fn subscribe(
    vm: &mut Vm,
    now: Now,
    peer: Peer<'_>,
    filter: &TopicFilter,
    qos: Qos,
) -> Answer<Result<Qos, ReasonCode>> {
    let mut granted = qos;
    let mut publish = Vec::new();
    for step in 0..vm.chains[Hook::Subscribe as usize].len() {
        let place = vm.chains[Hook::Subscribe as usize][step];
        let subject = Subject::Subscription(peer, filter, granted);
        match grant(vm, place, now, subject, &mut publish) {
            Ok(Ok(lowered)) => granted = lowered.unwrap_or(granted),
            Ok(Err(code)) => return Answer { answer: Err(code), publish },
            Err(Failed { is_open: true }) => {}
            Err(Failed { is_open: false }) => return Answer { answer: Err(CLOSED), publish },
        }
    }
    Answer { answer: Ok(granted), publish }
}

/// The level that one plugin sets, if it does, or why it denies it.
fn grant(
    vm: &mut Vm,
    place: usize,
    now: Now,
    subject: Subject<'_>,
    publish: &mut Vec<Message>,
) -> Result<Result<Option<Qos>, ReasonCode>, Failed> {
    let said = vm.ask(place, Hook::Subscribe, now, subject, None)?;
    let (mut messages, rest) = besides(vm, place, Hook::Subscribe, said.given)?;
    let answer = match one(vm, place, Hook::Subscribe, rest)? {
        None => Ok(said.draft.qos),
        Some(Given::Deny(code)) => Err(code),
        Some(other) => return Err(no_answer(vm, place, Hook::Subscribe, &other)),
    };
    publish.append(&mut messages);
    Ok(answer)
}

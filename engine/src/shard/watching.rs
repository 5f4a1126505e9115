//! What becomes of messages that somebody follows, for their history; and what happens on this shard, for who watches it.
//!
//! While nobody watches, a packet costs one look whether the list of watchers is empty. A watcher never makes the shard wait: a
//! line that finds no room, or is one too many in its second, is left out and counted; the next one tells how many.

use postroad_base::{
    Addressee, ClientId, ConnectionId, Ended, MonoMillis, Moved, Published, Qos, ReasonCode, Step, Tag, TopicName,
};
use postroad_broker::api::{Effect, Event};
use postroad_control::{Watch, Watched, WatchedLine};

use super::Shard;

/// Somebody who watches.
pub(super) struct Watcher {
    watch: Watch,
    /// The second that is counted, and its lines.
    second: MonoMillis,
    lines: u32,
    left_out: u64,
}

/// What a line is about.
struct About<'a> {
    what: Watched,
    client: Option<&'a ClientId>,
    topic: Option<&'a TopicName>,
}

const SECOND_MILLIS: u64 = 1_000;

impl Shard {
    pub(super) fn watch(&mut self, watch: Watch) {
        self.watchers.push(Watcher { watch, second: self.now.mono, lines: 0, left_out: 0 });
        self.broker.set_watched(true);
    }

    /// Those that are gone are forgotten.
    pub(super) fn forget_watchers(&mut self) {
        self.watchers.retain(|watcher| !watcher.watch.lines.is_disconnected());
        self.broker.set_watched(!self.watchers.is_empty());
    }

    /// A followed message took a step.
    pub(super) fn moved(&mut self, moved: Box<Moved>) {
        if let Some(recorder) = self.common.recorder.as_ref().filter(|_| moved.is_kept) {
            recorder.tell(moved);
        }
    }

    fn tell(&mut self, about: &About<'_>, text: impl Fn() -> String) {
        let (now, shard) = (self.now, self.id);
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.wants(about)) {
            if !watcher.may_tell(now.mono) {
                continue;
            }
            let client = about.client.cloned();
            let left_out = std::mem::take(&mut watcher.left_out);
            let line = WatchedLine { at: now.wall, shard, client, what: about.what, text: text(), left_out };
            if watcher.watch.lines.try_send(line).is_err() {
                watcher.left_out = left_out + 1;
            }
        }
    }

    /// A packet came in, which begins with this byte; or a frame.
    pub(super) fn watched_packet(&mut self, id: ConnectionId, first: Option<u8>, size: usize, event: Option<&Event>) {
        let client = self.broker.client_of(id).cloned();
        let topic = match event {
            Some(Event::Publish { message, .. }) => Some(message.message.topic.clone()),
            _ => None,
        };
        let about = About { what: Watched::In, client: client.as_ref(), topic: topic.as_ref() };
        self.tell(&about, || match event {
            Some(event) => words_of_event(event, size),
            None => format!("{} ({size} B)", first.map_or("frame", packet_name)),
        });
    }

    /// Bytes of an output went to the kernel.
    pub(super) fn watched_write(&mut self, id: ConnectionId, bytes: usize) {
        let Some(client) = self.broker.client_of(id).cloned() else { return };
        let left = self.connection(id).map_or(0, |connection| connection.output.len());
        let about = About { what: Watched::Write, client: Some(&client), topic: None };
        self.tell(&about, || format!("{bytes} B written, {left} B wait"));
    }

    /// Its connection is over.
    pub(super) fn watched_end(&mut self, id: ConnectionId, why: &str) {
        let Some(client) = self.broker.client_of(id).cloned() else { return };
        self.tell(&About { what: Watched::End, client: Some(&client), topic: None }, || why.to_owned());
    }

    /// The broker wants this done.
    pub(super) fn watched_effect(&mut self, effect: &Effect) {
        if let Effect::Moved(moved) = effect {
            let by = match &moved.step {
                Step::Published(published) => published.by.as_ref(),
                _ => None,
            };
            let client = moved.to.as_ref().and_then(Addressee::client);
            let about = About { what: Watched::Step, client: client.or(by), topic: Some(&moved.topic) };
            return self.tell(&about, || words_of_step(moved));
        }
        let Some((id, topic)) = addressee(effect) else { return };
        let Some(client) = self.broker.client_of(id).cloned() else { return };
        let about = About { what: Watched::Out, client: Some(&client), topic };
        self.tell(&about, || words_of_effect(effect));
    }
}

impl Watcher {
    /// All that is set has to fit.
    fn wants(&self, about: &About<'_>) -> bool {
        let Watch { client, topic, .. } = &self.watch;
        client.as_ref().is_none_or(|client| about.client.is_some_and(|one| one.0 == *client))
            && topic.as_ref().is_none_or(|filter| about.topic.is_some_and(|topic| filter.matches(topic)))
    }

    /// Whether one more line fits into this second; else it is counted.
    fn may_tell(&mut self, now: MonoMillis) -> bool {
        if now.since(self.second) >= SECOND_MILLIS {
            (self.second, self.lines) = (now, 0);
        }
        self.lines += 1;
        let may = self.lines <= self.watch.lines_per_second;
        self.left_out += u64::from(!may);
        may
    }
}

/// Whose connection an effect speaks to, and of which topic.
fn addressee(effect: &Effect) -> Option<(ConnectionId, Option<&TopicName>)> {
    match effect {
        Effect::Deliver { connection, delivery } => Some((*connection, Some(&delivery.message.topic))),
        Effect::Connected { connection, .. }
        | Effect::ConnectRefused { connection, .. }
        | Effect::Published { connection, .. }
        | Effect::Completed { connection, .. }
        | Effect::Subscribed { connection, .. }
        | Effect::Unsubscribed { connection, .. }
        | Effect::ReleaseDelivery { connection, .. }
        | Effect::Close { connection, .. }
        | Effect::Park { connection }
        | Effect::Unpark { connection } => Some((*connection, None)),
        _ => None,
    }
}

fn words_of_effect(effect: &Effect) -> String {
    let list = |reasons: &[ReasonCode]| reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(" ");
    match effect {
        Effect::Deliver { delivery, .. } => {
            let topic = delivery.topic.as_ref().unwrap_or(&delivery.message.topic);
            let (id, bytes) = (delivery.message.id, delivery.message.payload.len());
            let flags = [(delivery.dup, " dup"), (delivery.retain, " retain")];
            let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
            format!("PUBLISH {topic}{} message={id} ({bytes} B){flags}", level(delivery.qos, delivery.tag))
        }
        Effect::Connected { session_present, .. } => format!("CONNACK session_present={session_present}"),
        Effect::ConnectRefused { reason, .. } => format!("CONNACK {}", reason.name()),
        Effect::Published { tag, reason, .. } => format!("PUBACK or PUBREC id={} {}", tag.get(), reason.name()),
        Effect::Completed { tag, reason, .. } => format!("PUBCOMP id={} {}", tag.get(), reason.name()),
        Effect::ReleaseDelivery { tag, reason, .. } => format!("PUBREL id={} {}", tag.get(), reason.name()),
        Effect::Subscribed { tag, reasons, .. } => format!("SUBACK id={} {}", tag.get(), list(reasons)),
        Effect::Unsubscribed { tag, reasons, .. } => format!("UNSUBACK id={} {}", tag.get(), list(reasons)),
        Effect::Close { reason, .. } => format!("DISCONNECT {}", reason.name()),
        Effect::Park { .. } => "nothing more is read".into(),
        Effect::Unpark { .. } => "reading goes on".into(),
        _ => String::new(),
    }
}

fn words_of_event(event: &Event, size: usize) -> String {
    let what = match event {
        Event::Publish { message, .. } => {
            let (topic, qos) = (&message.message.topic, message.message.qos);
            let dup = if message.dup { " dup" } else { "" };
            format!("PUBLISH {topic}{}{dup}", level(qos, message.tag))
        }
        Event::Release { tag, .. } => format!("PUBREL id={}", tag.get()),
        Event::Acknowledge { tag, reason, .. } => format!("PUBACK id={} {}", tag.get(), reason.name()),
        Event::Receive { tag, reason, .. } => format!("PUBREC id={} {}", tag.get(), reason.name()),
        Event::Complete { tag, .. } => format!("PUBCOMP id={}", tag.get()),
        Event::Subscribe { tag, filters, .. } => {
            let filters = filters.iter().map(|line| line.filter.as_ref().map_or("-", |filter| filter.as_str()));
            format!("SUBSCRIBE id={} {}", tag.get(), filters.collect::<Vec<_>>().join(" "))
        }
        Event::Unsubscribe { tag, filters, .. } => {
            let filters = filters.iter().map(|filter| filter.as_ref().map_or("-", |filter| filter.as_str()));
            format!("UNSUBSCRIBE id={} {}", tag.get(), filters.collect::<Vec<_>>().join(" "))
        }
        _ => "a packet".into(),
    };
    format!("{what} ({size} B)")
}

fn words_of_step(moved: &Moved) -> String {
    let (id, step, topic) = (moved.id, moved.step.name(), &moved.topic);
    let details = match &moved.step {
        Step::Published(published) => {
            let Published { by, user, qos, bytes, .. } = &**published;
            let by = by.as_ref().map_or("-", ClientId::as_str);
            format!(" by={by} user={} qos={} ({bytes} B)", user.as_deref().unwrap_or("-"), qos.number())
        }
        Step::Stored { matched } => format!(" has_subscribers={matched}"),
        Step::Sent { attempt, qos } => format!(" attempt={attempt} qos={}", qos.number()),
        Step::Acknowledged { attempts } => format!(" attempts={attempts}"),
        Step::Over { how, reason_code, attempts } => ended(*how, *reason_code, *attempts),
        Step::Dead { letter, how, reason_code, attempts } => {
            format!("{} letter={letter}", ended(*how, *reason_code, *attempts))
        }
        Step::Requeued { letter, id } => format!(" letter={letter} as={id}"),
        Step::LetterOver { letter, how } => format!(" letter={letter} {}", how.name()),
        Step::Rejected { reason } => format!(" {}", reason.name()),
        Step::Plugins { did } => format!(" {}", did.name()),
        Step::Queued => String::new(),
    };
    let group = moved.to.as_ref().and_then(Addressee::group).map(|name| format!(" group={name}"));
    format!("{step} {topic} message={id}{}{details}", group.unwrap_or_default())
}

fn ended(how: Ended, reason_code: u8, attempts: u32) -> String {
    format!(" {} reason_code={reason_code} attempts={attempts}", how.name())
}

fn level(qos: Qos, tag: Option<Tag>) -> String {
    match tag {
        Some(tag) => format!(" qos={} id={}", qos.number(), tag.get()),
        None => format!(" qos={}", qos.number()),
    }
}

/// What the first byte says, of packets that make no event.
fn packet_name(first: u8) -> &'static str {
    match first >> 4 {
        12 => "PINGREQ",
        14 => "DISCONNECT",
        15 => "AUTH",
        _ => "a packet",
    }
}

#[cfg(test)]
mod tests {
    use postroad_base::TopicFilter;

    use super::*;

    fn watcher(client: Option<&str>, topic: Option<&str>, lines_per_second: u32) -> Watcher {
        let (lines, _) = flume::bounded(1);
        let topic = topic.map(|topic| TopicFilter::new(topic).expect("a filter"));
        let watch = Watch { client: client.map(Into::into), topic, lines_per_second, lines };
        Watcher { watch, second: MonoMillis(0), lines: 0, left_out: 0 }
    }

    #[test]
    fn a_watcher_gets_what_fits_all_that_it_named() {
        let (client, topic) = (ClientId::from("a"), TopicName::new("t/1").expect("a topic"));
        let about = |client, topic| About { what: Watched::In, client, topic };
        let both = about(Some(&client), Some(&topic));
        for (name, filter, wanted) in [
            (Some("a"), None, true),
            (Some("b"), None, false),
            (None, Some("t/#"), true),
            (None, Some("u/#"), false),
            (Some("a"), Some("u/#"), false),
            (Some("a"), Some("t/+"), true),
        ] {
            assert_eq!(watcher(name, filter, 1).wants(&both), wanted, "{name:?} {filter:?}");
        }
        assert!(!watcher(Some("a"), Some("#"), 1).wants(&about(Some(&client), None)), "a packet without a topic");
    }

    #[test]
    fn lines_beyond_those_of_a_second_are_counted() {
        let mut watcher = watcher(None, None, 2);
        let told: Vec<bool> = [0, 10, 20, 30, 1_000].map(|at| watcher.may_tell(MonoMillis(at))).into();
        assert_eq!((told, watcher.left_out), (vec![true, true, false, false, true], 2));
    }
}

//! Callers of the API: each is a connection of the broker without a socket, so that what it publishes is judged, parked,
//! stored and answered as any client's is.
//!
//! ```text
//! Request::Publish ─► waiting ─► Event::Publish ─► under way ─ Effect::Taken, Published ─► outcomes ─► answer
//!                        ▲ Unpark        │ Effect::Park
//!                        └───────────────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use postroad_base::{ClientId, ConnectionId, Extras, Message, MessageId, Qos, QueueId, ReasonCode, SessionExpiry, Tag};
use postroad_broker::Resend;
use postroad_broker::api::{ClientName, Connect, DisconnectCause, Event, Inbound, Principal};
use postroad_control::{Batch, Caller, Outcome, Properties, Publication, Request, Turn};
use postroad_protocol::mqtt::{ForwardedParts, UserProperties};
use slab::Slab;

use super::{Phase, Shard};
use crate::connection::caller_id;

/// What callers may take of a turn: messages, and as many again for each so many bytes of them.
const PUBLISHES_PER_TURN: usize = 1024;
const BYTES_OF_A_PUBLISH: usize = 4096;
/// Nothing is delivered to a caller.
const RECEIVE_MAXIMUM: u16 = 1;
/// Callers that are known here at most: beyond, one that is idle is forgotten for a new one.
const CALLERS_MAX: usize = 256;

/// The callers that have published here. Tokens of one name that differ in their groups are callers of their own.
#[derive(Default)]
pub(super) struct Callers {
    all: Vec<Calling>,
    batches: Slab<Underway>,
}

/// A caller here.
struct Calling {
    caller: Caller,
    connection: ConnectionId,
    /// The broker has its connection.
    is_known: bool,
    is_parked: bool,
    /// Why the broker did not let it in, or sent it away.
    refusal: ReasonCode,
    last_tag: u16,
    /// What was taken in last of what has no tag.
    took_untagged: bool,
    /// Not given to the broker yet.
    waiting: VecDeque<(Place, Publication)>,
    /// Given to it and not answered, in order: so are the answers `[MQTT-4.6.0-2]`.
    under_way: VecDeque<Sent>,
}

/// A message that the broker has.
struct Sent {
    tag: Tag,
    qos: Qos,
    place: Place,
}

/// A message's place among the outcomes of its batch.
#[derive(Clone, Copy)]
struct Place {
    batch: usize,
    message: usize,
}

/// A batch that is not answered.
struct Underway {
    outcomes: Vec<Outcome>,
    ids: Vec<Option<MessageId>>,
    left: usize,
    answer: flume::Sender<Vec<Outcome>>,
    _turn: Turn,
}

impl Shard {
    /// A batch waits from here on; see `publish_for_callers`.
    pub(super) fn called(&mut self, batch: Batch) {
        let Batch { caller, messages, answer, turn } = batch;
        let count = messages.len();
        if self.phase != Phase::Serving || count == 0 {
            let _gone = answer.try_send(vec![Outcome::NotServing; count]);
            return;
        }
        let (outcomes, ids) = (vec![Outcome::Unknown; count], vec![None; count]);
        let batch = self.callers.batches.insert(Underway { outcomes, ids, left: count, answer, _turn: turn });
        let index = self.calling(caller);
        let places = (0..count).map(|message| Place { batch, message });
        self.callers.all[index].waiting.extend(places.zip(messages));
    }

    /// Its place, with a connection.
    fn calling(&mut self, caller: Caller) -> usize {
        let known = self.callers.all.iter().position(|calling| calling.caller == caller);
        let index = known.unwrap_or_else(|| self.new_calling(caller));
        if !self.callers.all[index].is_known {
            self.connect_caller(index);
        }
        index
    }

    fn new_calling(&mut self, caller: Caller) -> usize {
        let is_idle =
            |calling: &Calling| calling.waiting.is_empty() && calling.under_way.is_empty() && !calling.is_parked;
        let is_full = self.callers.all.len() >= CALLERS_MAX;
        let idle = self.callers.all.iter().position(is_idle).filter(|_| is_full);
        let calling = Calling {
            caller,
            connection: ConnectionId(0),
            is_known: false,
            is_parked: false,
            refusal: ReasonCode::NotAuthorized,
            last_tag: 0,
            took_untagged: false,
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
        };
        let Some(index) = idle else {
            self.callers.all.push(calling);
            return self.callers.all.len() - 1;
        };
        self.hang_up(index);
        self.callers.all[index] = calling;
        index
    }

    fn connect_caller(&mut self, index: usize) {
        let connection = caller_id(self.id, self.serial, index);
        self.serial += 1;
        let calling = &mut self.callers.all[index];
        calling.connection = connection;
        calling.is_known = true;
        let Caller { name, groups } = calling.caller.clone();
        let client = self.client_of_caller(index, &name);
        self.handle(Event::Connect(Box::new(Connect {
            connection,
            client,
            name: ClientName::Caller,
            principal: Principal { user: Some(name), groups },
            clean_start: true,
            expiry: SessionExpiry(0),
            receive_maximum: RECEIVE_MAXIMUM,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        })));
        self.drain_effects();
    }

    /// A name that lives on this shard, and that no client can send `[MQTT-1.5.4-2]`.
    fn client_of_caller(&self, index: usize, name: &str) -> ClientId {
        let placement = &self.common.placement;
        let names = (0_u64..).map(|attempt| format!("\0api/{index:x}/{attempt:x}/{name}"));
        let mut here = names.filter(|name| placement.home(name.as_bytes()) == self.id);
        ClientId(ByteString::from(here.next().expect("one in as many as there are shards")))
    }

    /// Gives the broker what waits of this caller, at most so much.
    fn publish_for(&mut self, index: usize, most: usize) {
        let mut left = most;
        while left > 0 {
            let calling = &mut self.callers.all[index];
            if !calling.is_known {
                let refusal = Outcome::Refused(calling.refusal);
                return self.fail_waiting(index, refusal);
            }
            let is_parked = calling.is_parked;
            let Some((place, _)) = calling.waiting.front() else { return };
            let is_given_up = self.callers.batches[place.batch].answer.is_disconnected();
            if is_parked && !is_given_up {
                return;
            }
            let Some((place, publication)) = self.callers.all[index].waiting.pop_front() else { return };
            let bytes = publication.bytes();
            left = left.saturating_sub(1 + bytes / BYTES_OF_A_PUBLISH);
            if is_given_up {
                self.callers.settle(place, Outcome::Unknown); // nobody hears it
            } else if bytes > self.live.limits.packet_bytes_max as usize {
                self.callers.settle(place, Outcome::Refused(ReasonCode::PacketTooLarge));
            } else {
                self.publish_one(index, place, publication);
            }
        }
    }

    fn publish_one(&mut self, index: usize, place: Place, publication: Publication) {
        let calling = &mut self.callers.all[index];
        let (qos, connection) = (publication.qos, calling.connection);
        let tag = qos.is_acknowledged().then(|| calling.next_tag());
        if let Some(tag) = tag {
            calling.under_way.push_back(Sent { tag, qos, place });
        }
        calling.took_untagged = false;
        let message = Arc::new(self.message_of(publication));
        self.handle(Event::Publish { connection, message: Inbound { message, tag, dup: false, flaw: None } });
        self.drain_effects();
        if tag.is_none() {
            let calling = &self.callers.all[index];
            // What waits for credit will go; else it was refused, and at QoS 0 nobody says why.
            let outcome = match calling.took_untagged || calling.is_parked {
                true => Outcome::Published { id: None, has_subscribers: true },
                false => Outcome::Refused(ReasonCode::UnspecifiedError),
            };
            self.callers.settle(place, outcome);
        }
    }

    fn message_of(&self, publication: Publication) -> Message {
        let Publication { topic, payload, qos, retain, ttl_seconds, properties, wishes } = publication;
        let from = wishes.deliver_at.map_or(self.now.wall, |at| at.max(self.now.wall));
        Message {
            id: MessageId(0),
            topic,
            payload,
            properties: encoded(&properties),
            qos,
            retain,
            expires_at: ttl_seconds.map(|seconds| from.after(u64::from(seconds) * 1000)),
            publisher: QueueId::NONE,
            extras: Extras::of_wishes(Arc::unwrap_or_clone(wishes)),
        }
    }

    /// Whether some that wait can be taken in.
    pub(super) fn callers_have_work(&self) -> bool {
        self.callers.all.iter().any(Calling::may_publish)
    }

    /// Takes in what callers publish, of each its share.
    pub(super) fn publish_for_callers(&mut self) {
        let count = self.callers.all.iter().filter(|calling| calling.may_publish()).count();
        let share = PUBLISHES_PER_TURN / count.max(1);
        (0..self.callers.all.len()).for_each(|index| self.publish_for(index, share.max(1)));
    }

    pub(super) fn caller_taken(&mut self, connection: ConnectionId, tag: Option<Tag>, id: MessageId) {
        let Some(index) = self.callers.index_of(connection) else { return };
        self.callers.all[index].took_untagged |= tag.is_none();
        if let Some(Sent { place, .. }) = self.callers.all[index].under_way.iter().rfind(|sent| Some(sent.tag) == tag) {
            self.callers.batches[place.batch].ids[place.message] = Some(id);
        }
    }

    /// PUBACK or PUBREC for what a caller has published.
    pub(super) fn caller_answered(&mut self, connection: ConnectionId, tag: Tag, reason: ReasonCode) {
        let Some(index) = self.callers.index_of(connection) else { return };
        let Some(Sent { tag: sent, qos, place }) = self.callers.all[index].under_way.pop_front() else { return };
        assert_eq!(sent, tag, "answers come in the order of the publishes");
        let outcome = match reason {
            reason if reason.is_error() => Outcome::Refused(reason),
            reason => Outcome::Published {
                id: self.callers.batches[place.batch].ids[place.message],
                has_subscribers: reason != ReasonCode::NoMatchingSubscribers,
            },
        };
        self.callers.settle(place, outcome);
        if qos == Qos::ExactlyOnce && !reason.is_error() {
            self.handle(Event::Release { connection, tag });
        }
    }

    pub(super) fn caller_parked(&mut self, connection: ConnectionId, is_parked: bool) {
        if let Some(index) = self.callers.index_of(connection) {
            self.callers.all[index].is_parked = is_parked;
        }
    }

    /// The broker does not let it in, or wants it gone.
    pub(super) fn caller_gone(&mut self, connection: ConnectionId, reason: ReasonCode) {
        if let Some(index) = self.callers.index_of(connection) {
            self.callers.all[index].refusal = reason;
            self.hang_up(index);
        }
    }

    /// Its connection ends, if it has one: what is under way stays without an answer.
    fn hang_up(&mut self, index: usize) {
        let calling = &mut self.callers.all[index];
        let (connection, was_known) = (calling.connection, std::mem::take(&mut calling.is_known));
        calling.is_parked = false;
        for Sent { place, .. } in std::mem::take(&mut calling.under_way) {
            self.callers.settle(place, Outcome::Unknown);
        }
        if was_known {
            self.handle(Event::Disconnect { connection, cause: DisconnectCause::Normal { expiry: None } });
            self.drain_effects();
        }
    }

    fn fail_waiting(&mut self, index: usize, outcome: Outcome) {
        for (place, _) in std::mem::take(&mut self.callers.all[index].waiting) {
            self.callers.settle(place, outcome);
        }
    }

    /// The shard has ended: what stands in its queue would keep its caller waiting.
    pub(crate) fn turn_requests_away(&mut self) {
        for request in self.requests.drain() {
            if let Request::Publish(batch) = request {
                let _gone = batch.answer.try_send(vec![Outcome::NotServing; batch.messages.len()]);
            }
        }
    }

    /// Whether an answer is still to come.
    pub(super) fn callers_are_owed(&self) -> bool {
        !self.callers.batches.is_empty()
    }

    /// The server stops: what was not given to the broker is not published.
    pub(super) fn turn_callers_away(&mut self) {
        (0..self.callers.all.len()).for_each(|index| self.fail_waiting(index, Outcome::NotServing));
    }
}

impl Callers {
    fn index_of(&self, connection: ConnectionId) -> Option<usize> {
        self.all.iter().position(|calling| calling.is_known && calling.connection == connection)
    }

    /// One more outcome is known; the last one of a batch answers it.
    fn settle(&mut self, place: Place, outcome: Outcome) {
        let batch = &mut self.batches[place.batch];
        batch.outcomes[place.message] = outcome;
        batch.left -= 1;
        if batch.left == 0 {
            let Underway { outcomes, answer, .. } = self.batches.remove(place.batch);
            let _gone = answer.try_send(outcomes);
        }
    }
}

impl Calling {
    /// Some of what waits can be taken in.
    fn may_publish(&self) -> bool {
        !self.is_parked && !self.waiting.is_empty()
    }

    fn next_tag(&mut self) -> Tag {
        self.last_tag = self.last_tag.checked_add(1).unwrap_or(1);
        Tag::new(self.last_tag).expect("counted from 1")
    }
}

pub(super) fn encoded(properties: &Properties) -> Bytes {
    if *properties == Properties::default() {
        return Bytes::new();
    }
    let pairs: Vec<(&str, &str)> = properties.user.iter().map(|(name, value)| (&**name, &**value)).collect();
    let parts = ForwardedParts {
        payload_format: properties.is_text.then_some(true),
        content_type: properties.content_type.as_deref(),
        response_topic: properties.response_topic.as_deref(),
        correlation_data: properties.correlation_data.as_deref(),
        user_properties: UserProperties::from_pairs(&pairs),
    };
    parts.encode().into()
}

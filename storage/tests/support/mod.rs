//! Records and messages for tests.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part, and a test may panic")]

pub mod fixture;
pub mod life;

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use postroad_base::{
    ClientId, Death, Digest, Extras, KeyHolder, KeyName, KeyedPublish, LetterId, Message, MessageId, Outcome,
    PartitionId, Priority, Qos, QueueId, QueueOwner, ReasonCode, ReceiptLevel, Recipient, Record, RegisteredBy,
    RetainHandling, Sequence, SessionExpiry, SubscriptionOptions, Tag, TopicFilter, TopicName, WallMillis, Will,
    Wishes,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::{option, strategy::Strategy};

/// A queue of a partition.
pub fn queue(partition: u16, ordinal: u64) -> QueueId {
    QueueId::new(PartitionId(partition), ordinal)
}

/// A QoS 1 recipient.
pub fn recipient(queue: QueueId) -> Recipient {
    let (qos, identifiers) = (Qos::AtLeastOnce, Default::default());
    Recipient { queue, qos, retain: false, given: false, identifiers, group: None }
}

/// A message told apart by `n`, with a payload of `bytes`.
pub fn message(n: u64, bytes: usize) -> Arc<Message> {
    let mut payload = n.to_le_bytes().to_vec();
    let noise = (0..).map(|i: u64| (i.wrapping_mul(n | 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8);
    payload.extend(noise.take(bytes.saturating_sub(8)));
    Arc::new(Message {
        id: MessageId(u128::from(n) << 64 | 7),
        topic: TopicName::new(format!("topic/{n}")).unwrap(),
        payload: payload.into(),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    })
}

/// A publication to these queues.
pub fn publish(n: u64, bytes: usize, queues: &[QueueId]) -> Record {
    Record::Publish { message: message(n, bytes), recipients: queues.iter().map(|&q| recipient(q)).collect() }
}

/// The same at QoS 2.
pub fn publish_once(n: u64, bytes: usize, queues: &[QueueId]) -> Record {
    let message = Arc::new(Message { qos: Qos::ExactlyOnce, ..(*message(n, bytes)).clone() });
    Record::Publish { message, recipients: queues.iter().map(|&q| recipient(q)).collect() }
}

/// A publisher has sent a QoS 2 message under this tag, and may repeat it.
pub fn inbound(queue: QueueId, tag: u16, id: MessageId) -> Record {
    Record::InboundBegin { queue, tag: Tag::new(tag).unwrap(), id }
}

/// The session of a client begins.
pub fn begin(queue: QueueId, client: &str) -> Record {
    let owner = QueueOwner::Session(ClientId::from(client));
    Record::QueueBegin { queue, owner, expiry: SessionExpiry::NEVER, at: WallMillis(1) }
}

/// A delivery is acknowledged.
pub fn settle(queue: QueueId, sequence: Sequence) -> Record {
    Record::Settle { queue, sequence, outcome: Outcome::Acknowledged }
}

fn any_queue() -> impl Strategy<Value = QueueId> {
    prop_oneof![
        (0_u16..4, 0_u64..300).prop_map(|(partition, ordinal)| queue(partition, ordinal)),
        any::<u64>().prop_map(QueueId),
    ]
}

fn any_sequence() -> impl Strategy<Value = Sequence> {
    any::<u64>().prop_map(Sequence)
}

fn any_time() -> impl Strategy<Value = WallMillis> {
    any::<u64>().prop_map(WallMillis)
}

fn any_text() -> impl Strategy<Value = ByteString> {
    "\\PC{0,12}".prop_map(ByteString::from)
}

fn any_client() -> impl Strategy<Value = ClientId> {
    any_text().prop_map(ClientId)
}

fn any_topic() -> impl Strategy<Value = TopicName> {
    "[a-zäß/$]{1,20}".prop_map(|text| TopicName::new(text).unwrap())
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    prop_oneof!["[a-z/]{1,20}", "[a-z]{1,4}/\\+/[a-z]{1,4}/#", "\\$share/[a-z]{1,4}/[a-z/]{1,9}"]
        .prop_map(|text| TopicFilter::new(text).unwrap())
}

fn any_qos() -> impl Strategy<Value = Qos> {
    (0_u8..3).prop_map(|number| Qos::from_number(number).unwrap())
}

fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn any_identifier() -> impl Strategy<Value = NonZeroU32> {
    (1_u32..=268_435_455).prop_map(|number| NonZeroU32::new(number).unwrap())
}

fn any_tag() -> impl Strategy<Value = Tag> {
    (1_u16..).prop_map(|number| Tag::new(number).unwrap())
}

/// Any message. Boxed, as its parts are: else each that holds it takes as much of the stack.
pub fn any_message() -> BoxedStrategy<Arc<Message>> {
    let first = (any::<u128>(), any_topic(), any_bytes(300), any_bytes(20));
    let second = (any_qos(), any::<bool>(), option::of(any_time()), any_queue(), option::of(any_extras()));
    (first, second)
        .prop_map(|((id, topic, payload, properties), (qos, retain, expires_at, publisher, extras))| {
            let (id, extras) = (MessageId(id), extras.map(Box::new));
            Arc::new(Message { id, topic, payload, properties, qos, retain, expires_at, publisher, extras })
        })
        .boxed()
}

fn any_extras() -> impl Strategy<Value = Extras> {
    let letter = (any_queue(), any_sequence()).prop_map(|(queue, sequence)| LetterId { queue, sequence });
    let last = (any_wishes().boxed(), option::of(any_holder()));
    (option::of(any_death()), option::of(any::<u128>()), any::<u32>(), option::of(letter), last).prop_map(
        |(death, original, requeues, letter, (wishes, scheduled_by))| Extras {
            death: death.map(Box::new),
            original: original.map(MessageId),
            requeues,
            letter,
            wishes,
            scheduled_by,
        },
    )
}

fn any_holder() -> impl Strategy<Value = KeyHolder> {
    prop_oneof![any_text().prop_map(KeyHolder::User), any_client().prop_map(KeyHolder::Client)]
}

fn any_wishes() -> impl Strategy<Value = Wishes> {
    let priority = (0_u8..3).prop_map(|number| Priority::from_number(number).unwrap());
    let receipt = (1_u8..5).prop_map(|number| ReceiptLevel::from_number(number).unwrap());
    let first = (priority, option::of(any_text()), option::of(any_time()), option::of(any_text()));
    let second = (option::of(receipt), option::of(any::<NonZeroU32>()), option::of(any::<u64>()));
    (first, second).prop_map(
        |((priority, collapse_key, deliver_at, idempotency_key), (receipt, attempts_max, age_max_ms))| Wishes {
            priority,
            collapse_key,
            deliver_at,
            idempotency_key,
            receipt,
            attempts_max,
            age_max_ms,
        },
    )
}

fn any_death() -> impl Strategy<Value = Death> {
    let first = (any_client(), any::<bool>(), any::<bool>(), any_outcome(), any::<u8>(), any::<u32>());
    let sent = option::of((any_time(), any_time()));
    (first, sent, any_time(), option::of(any_text())).prop_map(
        |((client, is_push, is_group, outcome, reason_code, attempts), sent, at, error)| Death {
            client,
            is_push,
            is_group,
            outcome,
            reason_code,
            attempts,
            sent,
            at,
            error,
        },
    )
}

fn any_will() -> impl Strategy<Value = Will> {
    let first = (any_topic(), any_bytes(30), any_bytes(20));
    let second = (any_qos(), any::<bool>(), any::<u32>(), option::of(any::<u32>()), any_wishes());
    (first, second).prop_map(|((topic, payload, properties), (qos, retain, delay_seconds, expiry_seconds, wishes))| {
        Will { topic, payload, properties, qos, retain, delay_seconds, expiry_seconds, wishes }
    })
}

fn any_options() -> impl Strategy<Value = SubscriptionOptions> {
    let handling = prop_oneof![Just(RetainHandling::Always), Just(RetainHandling::IfNew), Just(RetainHandling::Never)];
    (any_qos(), any::<bool>(), any::<bool>(), handling, option::of(any_identifier())).prop_map(
        |(qos, no_local, retain_as_published, retain_handling, identifier)| SubscriptionOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
            identifier,
        },
    )
}

fn any_owner() -> impl Strategy<Value = QueueOwner> {
    prop_oneof![
        any_client().prop_map(QueueOwner::Session),
        any_client().prop_map(QueueOwner::Registration),
        (any_text(), any_text()).prop_map(|(name, filter)| QueueOwner::Share(name, filter)),
        Just(QueueOwner::Dead),
        Just(QueueOwner::Scheduled),
        any_text().prop_map(QueueOwner::Group),
    ]
}

/// Any recipient.
pub fn any_recipient() -> impl Strategy<Value = Recipient> {
    let group = option::of("\\$share/[a-z]{1,3}/[a-z]{1,8}(/[a-z+]|/#)?")
        .prop_map(|text| text.map(|text| Arc::new(TopicFilter::new(text).expect("a share group"))));
    let flags = (any_qos(), any::<bool>(), any::<bool>());
    (any_queue(), flags, vec(any_identifier(), 0..6), group).prop_map(
        |(queue, (qos, retain, given), identifiers, group)| Recipient {
            queue,
            qos,
            retain,
            given,
            identifiers: identifiers.into(),
            group,
        },
    )
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    proptest::sample::select(&Outcome::ALL[..])
}

fn any_expiry() -> impl Strategy<Value = SessionExpiry> {
    any::<u32>().prop_map(SessionExpiry)
}

fn any_queue_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (any_queue(), any_owner(), any_expiry(), any_time())
            .prop_map(|(queue, owner, expiry, at)| Record::QueueBegin { queue, owner, expiry, at }),
        (any_queue(), any_expiry(), any_time()).prop_map(|(queue, expiry, at)| Record::Connected { queue, expiry, at }),
        (any_queue(), any_expiry(), any_time()).prop_map(|(queue, expiry, at)| Record::Disconnected {
            queue,
            expiry,
            at
        }),
        any_queue().prop_map(|queue| Record::QueueEnd { queue }),
        (any_queue(), option::of(any_will()))
            .prop_map(|(queue, will)| Record::WillSet { queue, will: will.map(Box::new) }),
        (any_queue(), any_filter(), any_options()).prop_map(|(queue, filter, options)| Record::Subscribe {
            queue,
            filter,
            options
        }),
        (any_queue(), any_filter()).prop_map(|(queue, filter)| Record::Unsubscribe { queue, filter }),
        any_queue().prop_map(|next| Record::OrdinalsUsed { next }),
        (any_queue(), any_filter()).prop_map(|(queue, filter)| Record::RetainedDue { queue, filter }),
        (any_queue(), any_filter()).prop_map(|(queue, filter)| Record::RetainedGiven { queue, filter }),
    ]
}

fn any_delivery_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (any_message(), vec(any_recipient(), 0..40))
            .prop_map(|(message, recipients)| Record::Publish { message, recipients }),
        (any_queue(), any_sequence(), any_outcome()).prop_map(|(queue, sequence, outcome)| Record::Settle {
            queue,
            sequence,
            outcome
        }),
        (any_queue(), any_sequence(), any_tag()).prop_map(|(queue, sequence, tag)| Record::Tagged {
            queue,
            sequence,
            tag
        }),
        (any_queue(), any_sequence()).prop_map(|(queue, sequence)| Record::Received { queue, sequence }),
        (any_queue(), any_tag(), any::<u128>()).prop_map(|(queue, tag, id)| Record::InboundBegin {
            queue,
            tag,
            id: MessageId(id)
        }),
        (any_queue(), any_tag()).prop_map(|(queue, tag)| Record::InboundEnd { queue, tag }),
        (any_queue(), any_sequence()).prop_map(|(queue, upto)| Record::Watermark { queue, upto }),
        (any_queue(), any_sequence(), any_outcome(), any_message(), vec(any_recipient(), 0..4)).prop_map(
            |(queue, sequence, outcome, message, recipients)| Record::Transfer {
                queue,
                sequence,
                outcome,
                message,
                recipients
            }
        ),
        (any_queue(), any_sequence(), any::<u32>(), any_time(), any_time()).prop_map(
            |(queue, sequence, attempts, first, last)| Record::Attempt { queue, sequence, attempts, first, last }
        ),
        (any_queue(), any_sequence(), any_sequence(), any::<u64>(), any_time()).prop_map(
            |(queue, sequence, from, dropped, since)| Record::FullSync { queue, sequence, from, dropped, since }
        ),
        (any_queue(), any_sequence(), any_time(), option::of(any_text()))
            .prop_map(|(queue, sequence, at, note)| Record::Park { queue, sequence, at, note }),
        (any_queue(), any_sequence(), any::<u32>(), any::<bool>(), option::of(any_text())).prop_map(
            |(queue, sequence, bytes, is_high, collapse_key)| Record::Noted {
                queue,
                sequence,
                bytes,
                is_high,
                collapse_key
            }
        ),
    ]
}

fn any_name_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        any_message().prop_map(|message| Record::Retain { message }),
        any_topic().prop_map(|topic| Record::RetainClear { topic }),
        (any_client(), any_origin(), any_time(), option::of(any_text()), vec(any_text(), 0..4))
            .prop_map(|(client, by, seen, user, groups)| Record::Register { client, by, seen, user, groups }),
        any_client().prop_map(|client| Record::Unregister { client }),
        any_keyed().prop_map(|publish| Record::Key { publish: Box::new(publish) }),
    ]
}

fn any_keyed() -> impl Strategy<Value = KeyedPublish> {
    let holder = any_holder();
    let reason = (0_u8..=255).prop_filter_map("a reason", ReasonCode::from_number);
    let name = (holder, any_text()).prop_map(|(holder, key)| KeyName { holder, key });
    (name, any::<u128>(), any::<u128>(), any_time(), option::of(reason)).prop_map(|(name, id, digest, at, answer)| {
        KeyedPublish { name, id: MessageId(id), digest: Digest(digest), at, answer }
    })
}

/// A publish under a key of this user.
pub fn keyed(user: &str, key: &str, id: u128, answer: Option<ReasonCode>) -> KeyedPublish {
    let name = KeyName { holder: KeyHolder::User(user.into()), key: key.into() };
    KeyedPublish { name, id: MessageId(id), digest: Digest(7), at: WallMillis(9), answer }
}

fn any_origin() -> impl Strategy<Value = RegisteredBy> {
    use RegisteredBy::{Api, Assigned, Connection, File, Push};
    prop_oneof![Just(Connection), Just(File), Just(Push), Just(Assigned), Just(Api)]
}

/// Any record of any kind.
pub fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![any_queue_record(), any_delivery_record(), any_name_record()]
}

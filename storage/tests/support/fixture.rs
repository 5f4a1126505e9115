//! What is in the fixture directory of the current format: every kind of record, owner and outcome that there is.
//!
//! `every_kind_is_in_the_fixture` in `tests/directory.rs` fails for a kind that is missing: write one here, and make the fixture anew
//! (`examples/make_fixture.rs`), as long as its format is not released. After that it stays as it is, and so does this life.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use postroad_base::{
    Death, Extras, KeyHolder, LetterId, Message, MessageId, Outcome, Priority, Qos, QueueId, QueueOwner, ReasonCode,
    ReceiptLevel, Recipient, Record, RegisteredBy, RetainHandling, Sequence, SessionExpiry, SubscriptionOptions, Tag,
    TopicFilter, TopicName, WallMillis, Will, Wishes,
};

use super::life::Shard;
use super::{inbound, keyed, message, publish, publish_once, queue, recipient, settle};

const AT: WallMillis = WallMillis(1_795_000_000_000);
/// The queues of the six owners, in their order.
const OWNED: u16 = 6;

fn owned(owner: u16) -> QueueId {
    queue(owner, 1)
}

fn owners() -> [QueueOwner; OWNED as usize] {
    [
        QueueOwner::Session("device".into()),
        QueueOwner::Registration("device".into()),
        QueueOwner::Share("name".into(), "a/+".into()),
        QueueOwner::Dead,
        QueueOwner::Scheduled,
        QueueOwner::Group("work".into()),
    ]
}

/// Lives it: first what moves to the old generation, then what stays in the young one.
pub fn live(shard: &mut Shard) {
    let stored = begin(shard);
    publish_stored(shard);
    // Segments are let go whole: these fill up the one that holds the last of that.
    (0..8).for_each(|n| _ = shard.write(publish(900 + n, 100, &[owned(0)])));
    shard.state.set_watermarks(Sequence(1)); // before all deliveries
    shard.retire();
    go_on(shard, stored);
    end_in_every_way(shard);
}

fn begin(shard: &mut Shard) -> Sequence {
    let begins = owners().into_iter().zip(0..).map(|(owner, number)| {
        let expiry = SessionExpiry(if number == 0 { 3_600 } else { u32::MAX });
        Record::QueueBegin { queue: owned(number), owner, expiry, at: AT }
    });
    let ended = Record::QueueBegin {
        queue: queue(0, 2),
        owner: QueueOwner::Session("gone".into()),
        expiry: SessionExpiry::NEVER,
        at: AT,
    };
    begins.chain([ended]).for_each(|record| _ = shard.append(record));
    use RegisteredBy::{Api, Assigned, Connection, File, Push};
    for (by, number) in [Connection, File, Push, Assigned, Api].into_iter().zip(0..) {
        let user = (number > 0).then(|| "user".into());
        let groups = (0..number).map(|group| format!("group-{group}").into()).collect();
        let client = format!("client-{number}").as_str().into();
        shard.append(Record::Register { client, by, seen: AT, user, groups });
    }
    for (filter, owner) in [("a/+", 0), ("b/#", 0), ("$share/name/a/+", 0), ("work/#", 5)] {
        shard.append(subscribe(owner, filter));
    }
    shard.append(Record::WillSet { queue: owned(0), will: Some(Box::new(will())) });
    shard.append(Record::Retain { message: message(77, 20) });
    shard.append(Record::Retain { message: message(78, 20) });
    shard.append(inbound(owned(0), 7, MessageId(7)));
    shard.append(Record::Key { publish: Box::new(keyed("user", "stored", 70, Some(ReasonCode::Success))) });
    shard.write(publish(1, 500, &[owned(0), owned(5)]))
}

fn subscribe(owner: u16, filter: &str) -> Record {
    let options = SubscriptionOptions {
        qos: Qos::ExactlyOnce,
        no_local: owner == 0,
        retain_as_published: true,
        retain_handling: RetainHandling::IfNew,
        identifier: NonZeroU32::new(300),
    };
    Record::Subscribe { queue: owned(owner), filter: TopicFilter::new(filter).unwrap(), options }
}

fn will() -> Will {
    Will {
        topic: TopicName::new("last/words").unwrap(),
        payload: "gone".into(),
        properties: Bytes::from_static(&[1, 1]),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay_seconds: 5,
        expiry_seconds: Some(60),
        wishes: wishes(),
    }
}

fn with(n: u64, extras: Extras) -> Arc<Message> {
    Arc::new(Message { extras: Some(Box::new(extras)), ..(*message(n, 40)).clone() })
}

fn wishes() -> Wishes {
    Wishes {
        priority: Priority::High,
        collapse_key: Some("temperature".into()),
        deliver_at: Some(WallMillis(AT.0 + 1_000)),
        idempotency_key: Some("key".into()),
        receipt: Some(ReceiptLevel::Acknowledged),
        attempts_max: NonZeroU32::new(3),
        age_max_ms: Some(60_000),
    }
}

/// A letter of the consumer group, that is a requeue of another one.
fn letter(n: u64, outcome: Outcome) -> Arc<Message> {
    let death = Death {
        client: "work".into(),
        is_push: false,
        is_group: true,
        outcome,
        reason_code: 0x83,
        attempts: 2,
        sent: Some((AT, WallMillis(AT.0 + 1))),
        at: WallMillis(AT.0 + 2),
        error: Some("no number".into()),
    };
    let origin = LetterId { queue: owned(3), sequence: Sequence(5) };
    with(
        n,
        Extras {
            death: Some(Box::new(death)),
            original: Some(MessageId(1)),
            requeues: 2,
            letter: Some(origin),
            wishes: Wishes::default(),
            scheduled_by: None,
        },
    )
}

/// One that waits for its time, of somebody known.
fn put_off(n: u64) -> Arc<Message> {
    let scheduled_by = Some(KeyHolder::User("ann".into()));
    with(n, Extras { wishes: wishes(), scheduled_by, ..Extras::default() })
}

/// What a recipient may have besides its queue.
fn full_recipient(queue: QueueId) -> Recipient {
    let group = Some(Arc::new(TopicFilter::new("$share/name/a/+").unwrap()));
    let identifiers = [300, 301].into_iter().filter_map(NonZeroU32::new).collect();
    Recipient { qos: Qos::ExactlyOnce, retain: true, given: true, identifiers, group, ..recipient(queue) }
}

fn publish_stored(shard: &mut Shard) {
    let recipients = vec![full_recipient(owned(0)), recipient(owned(1))];
    shard.append(Record::Publish { message: with(2, Extras { wishes: wishes(), ..Extras::default() }), recipients });
    for (message, owner) in [(letter(3, Outcome::Refused), 3), (put_off(4), 4)] {
        shard.append(Record::Publish { message, recipients: vec![recipient(owned(owner))] });
    }
    shard.write(publish_once(5, 5_000, &[owned(0)]));
}

/// What changes a delivery, a session or a name without ending a delivery.
fn go_on(shard: &mut Shard, stored: Sequence) {
    let (session, group) = (owned(0), owned(5));
    let at = WallMillis(AT.0 + 5_000);
    shard.append(Record::Connected { queue: session, expiry: SessionExpiry(60), at });
    let sent = shard.append(publish_once(10, 100, &[session]));
    shard.append(Record::Tagged { queue: session, sequence: sent, tag: Tag::new(9).unwrap() });
    shard.append(Record::Received { queue: session, sequence: sent });
    let again = shard.append(publish(11, 100, &[session]));
    shard.append(Record::Attempt { queue: session, sequence: again, attempts: 2, first: AT, last: at });
    shard.append(Record::Attempt { queue: group, sequence: stored, attempts: 3, first: AT, last: at });
    let letter =
        shard.append(Record::Publish { message: letter(12, Outcome::Attempts), recipients: vec![recipient(owned(3))] });
    shard.append(Record::Park { queue: owned(3), sequence: letter, at, note: Some("why?".into()) });
    let overflow = shard.append(publish(13, 60, &[owned(1)]));
    shard.append(Record::FullSync { queue: owned(1), sequence: overflow, from: Sequence(1), dropped: 3, since: AT });
    let filter = |text| TopicFilter::new(text).unwrap();
    shard.append(Record::RetainedDue { queue: session, filter: filter("a/+") });
    shard.append(Record::RetainedDue { queue: session, filter: filter("b/#") });
    shard.append(Record::RetainedGiven { queue: session, filter: filter("b/#") });
    shard.append(Record::Unsubscribe { queue: session, filter: filter("b/#") });
    shard.append(Record::RetainClear { topic: TopicName::new("topic/78").unwrap() });
    shard.append(Record::Unregister { client: "client-3".into() });
    shard.append(Record::QueueEnd { queue: queue(0, 2) });
    shard.append(Record::InboundEnd { queue: session, tag: Tag::new(7).unwrap() });
    shard.append(inbound(session, 8, MessageId(8)));
    shard.append(Record::Key { publish: Box::new(keyed("user", "young", 71, None)) });
    shard.append(Record::WillSet { queue: session, will: None });
    shard.write(Record::Disconnected { queue: session, expiry: SessionExpiry(60), at });
}

/// A delivery for each outcome; the last one goes on as a letter, and one is left.
fn end_in_every_way(shard: &mut Shard) {
    let session = owned(0);
    for (outcome, n) in Outcome::ALL.into_iter().zip(20..) {
        let sequence = shard.append(publish(n, 50, &[session]));
        shard.append(Record::Settle { queue: session, sequence, outcome });
    }
    let sequence = shard.append(publish(50, 50, &[session]));
    let (outcome, message) = (Outcome::Unacknowledged, letter(51, Outcome::Unacknowledged));
    shard.append(Record::Transfer {
        queue: session,
        sequence,
        outcome,
        message,
        recipients: vec![recipient(owned(3))],
    });
    let settled = shard.append(publish(52, 50, &[session]));
    shard.append(settle(session, settled));
    shard.write(publish(53, 50, &[session]));
}

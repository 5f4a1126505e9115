//! Bytes to record.

use std::num::NonZeroU32;
use std::sync::Arc;

use base::{
    ClientId, Death, Digest, Extras, KeyHolder, KeyName, KeyedPublish, LetterId, Message, MessageId, Outcome, Priority,
    Qos, QueueId, QueueOwner, ReasonCode, ReceiptLevel, Recipient, Record, RegisteredBy, RetainHandling, SessionExpiry,
    SubscriptionIdentifier, SubscriptionOptions, Tag, TopicFilter, TopicName, WallMillis, Will, Wishes,
};
use bytes::Bytes;
use postroad_base as base;
use smallvec::SmallVec;

use super::wire::Reader;
use super::{death_flag, extra, flag, kind};

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("record is cut off")]
    Truncated,
    /// No record of this format version begins like this.
    #[error("unknown kind of record: {0}")]
    UnknownKind(u8),
    /// A value that no record holds.
    #[error("bad value in a record: {0}")]
    Invalid(&'static str),
}

/// Takes one record from the front of `bytes`. On an error `bytes` stays as it was.
///
/// # Errors
/// As the variants of [`RecordError`] say.
pub fn decode(bytes: &mut &[u8]) -> Result<Record, RecordError> {
    let mut reader = Reader::new(bytes);
    let record = record(&mut reader)?;
    *bytes = reader.rest;
    Ok(record)
}

fn record(r: &mut Reader<'_>) -> Result<Record, RecordError> {
    Ok(match r.u8()? {
        kind::QUEUE_BEGIN => {
            Record::QueueBegin { queue: r.queue()?, owner: owner(r)?, expiry: expiry(r)?, at: r.time()? }
        }
        kind::CONNECTED => Record::Connected { queue: r.queue()?, expiry: expiry(r)?, at: r.time()? },
        kind::DISCONNECTED => Record::Disconnected { queue: r.queue()?, expiry: expiry(r)?, at: r.time()? },
        kind::QUEUE_END => Record::QueueEnd { queue: r.queue()? },
        kind::WILL_SET => Record::WillSet { queue: r.queue()?, will: option(r, will)?.map(Box::new) },
        kind::SUBSCRIBE => Record::Subscribe { queue: r.queue()?, filter: filter(r)?, options: options(r)? },
        kind::UNSUBSCRIBE => Record::Unsubscribe { queue: r.queue()?, filter: filter(r)? },
        kind::PUBLISH => Record::Publish { message: Arc::new(message(r)?), recipients: recipients(r)? },
        kind::SETTLE => Record::Settle { queue: r.queue()?, sequence: r.sequence()?, outcome: outcome(r)? },
        kind::TAGGED => Record::Tagged { queue: r.queue()?, sequence: r.sequence()?, tag: tag(r)? },
        kind::RECEIVED => Record::Received { queue: r.queue()?, sequence: r.sequence()? },
        kind::INBOUND_BEGIN => Record::InboundBegin { queue: r.queue()?, tag: tag(r)?, id: id(r)? },
        kind::INBOUND_END => Record::InboundEnd { queue: r.queue()?, tag: tag(r)? },
        kind::RETAIN => Record::Retain { message: Arc::new(message(r)?) },
        kind::RETAIN_CLEAR => Record::RetainClear { topic: topic(r)? },
        kind::REGISTER => Record::Register {
            client: ClientId(r.text()?),
            by: registered_by(r)?,
            seen: WallMillis(r.varint()?),
            user: option(r, |r| r.text())?,
            groups: groups(r)?,
        },
        kind::UNREGISTER => Record::Unregister { client: ClientId(r.text()?) },
        kind::WATERMARK => Record::Watermark { queue: r.queue()?, upto: r.sequence()? },
        kind::ORDINALS_USED => Record::OrdinalsUsed { next: r.queue()? },
        kind::RETAINED_DUE => Record::RetainedDue { queue: r.queue()?, filter: filter(r)? },
        kind::RETAINED_GIVEN => Record::RetainedGiven { queue: r.queue()?, filter: filter(r)? },
        kind::TRANSFER => Record::Transfer {
            queue: r.queue()?,
            sequence: r.sequence()?,
            outcome: outcome(r)?,
            message: Arc::new(message(r)?),
            recipients: recipients(r)?,
        },
        kind::ATTEMPT => Record::Attempt {
            queue: r.queue()?,
            sequence: r.sequence()?,
            attempts: r.varint_u32()?,
            first: r.time()?,
            last: r.time()?,
        },
        kind::PARK => {
            Record::Park { queue: r.queue()?, sequence: r.sequence()?, at: r.time()?, note: option(r, |r| r.text())? }
        }
        kind::NOTED => Record::Noted {
            queue: r.queue()?,
            sequence: r.sequence()?,
            bytes: r.varint_u32()?,
            is_high: flag_byte(r)?,
            collapse_key: option(r, |r| r.text())?,
        },
        kind::KEY => Record::Key { publish: Box::new(keyed(r)?) },
        kind::FULL_SYNC => Record::FullSync {
            queue: r.queue()?,
            sequence: r.sequence()?,
            from: r.sequence()?,
            dropped: r.varint()?,
            since: r.time()?,
        },
        other => return Err(RecordError::UnknownKind(other)),
    })
}

fn option<T>(
    r: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, RecordError>,
) -> Result<Option<T>, RecordError> {
    match r.u8()? {
        0 => Ok(None),
        1 => read(r).map(Some),
        _ => Err(RecordError::Invalid("neither absent nor present")),
    }
}

fn owner(r: &mut Reader<'_>) -> Result<QueueOwner, RecordError> {
    match r.u8()? {
        0 => Ok(QueueOwner::Session(ClientId(r.text()?))),
        1 => Ok(QueueOwner::Registration(ClientId(r.text()?))),
        2 => Ok(QueueOwner::Share(r.text()?, r.text()?)),
        3 => Ok(QueueOwner::Dead),
        4 => Ok(QueueOwner::Scheduled),
        5 => Ok(QueueOwner::Group(r.text()?)),
        _ => Err(RecordError::Invalid("unknown owner of a queue")),
    }
}

fn keyed(r: &mut Reader<'_>) -> Result<KeyedPublish, RecordError> {
    let holder_kind = r.u8()?;
    let holder =
        KeyHolder::from_parts(holder_kind, r.text()?).ok_or(RecordError::Invalid("unknown holder of a key"))?;
    let name = KeyName { holder, key: r.text()? };
    let (id, digest, at) = (id(r)?, Digest(u128::from_le_bytes(r.array()?)), r.time()?);
    Ok(KeyedPublish { name, id, digest, at, answer: option(r, reason)? })
}

fn reason(r: &mut Reader<'_>) -> Result<ReasonCode, RecordError> {
    ReasonCode::from_number(r.u8()?).ok_or(RecordError::Invalid("unknown reason code"))
}

fn registered_by(r: &mut Reader<'_>) -> Result<RegisteredBy, RecordError> {
    match r.u8()? {
        0 => Ok(RegisteredBy::Connection),
        1 => Ok(RegisteredBy::File),
        2 => Ok(RegisteredBy::Push),
        3 => Ok(RegisteredBy::Assigned),
        4 => Ok(RegisteredBy::Api),
        _ => Err(RecordError::Invalid("unknown origin of a registration")),
    }
}

fn expiry(r: &mut Reader<'_>) -> Result<SessionExpiry, RecordError> {
    r.varint_u32().map(SessionExpiry)
}

fn topic(r: &mut Reader<'_>) -> Result<TopicName, RecordError> {
    TopicName::new(r.text()?).map_err(|_| RecordError::Invalid("no topic name"))
}

fn filter(r: &mut Reader<'_>) -> Result<TopicFilter, RecordError> {
    TopicFilter::new(r.text()?).map_err(|_| RecordError::Invalid("no topic filter"))
}

fn tag(r: &mut Reader<'_>) -> Result<Tag, RecordError> {
    let number = u16::try_from(r.varint()?).map_err(|_| RecordError::Invalid("tag above 16 bits"))?;
    Tag::new(number).ok_or(RecordError::Invalid("tag 0"))
}

fn id(r: &mut Reader<'_>) -> Result<MessageId, RecordError> {
    r.array().map(|bytes| MessageId(u128::from_le_bytes(bytes)))
}

fn outcome(r: &mut Reader<'_>) -> Result<Outcome, RecordError> {
    Outcome::from_number(r.u8()?).ok_or(RecordError::Invalid("unknown outcome"))
}

fn qos(flags: u8) -> Result<Qos, RecordError> {
    Qos::from_number(flags & flag::QOS).ok_or(RecordError::Invalid("QoS 3"))
}

fn check_flags(flags: u8, known: u8) -> Result<u8, RecordError> {
    if flags & !known == 0 { Ok(flags) } else { Err(RecordError::Invalid("unknown flag")) }
}

fn options(r: &mut Reader<'_>) -> Result<SubscriptionOptions, RecordError> {
    let flags = check_flags(r.u8()?, 0b0111_1111)?;
    let retain_handling = match flags >> flag::RETAIN_HANDLING_SHIFT & 0b11 {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(RecordError::Invalid("retain handling 3")),
    };
    let identifier = if flags & flag::IDENTIFIER == 0 { None } else { Some(identifier(r)?) };
    Ok(SubscriptionOptions {
        qos: qos(flags)?,
        no_local: flags & flag::NO_LOCAL != 0,
        retain_as_published: flags & flag::RETAIN_AS_PUBLISHED != 0,
        retain_handling,
        identifier,
    })
}

fn identifier(r: &mut Reader<'_>) -> Result<SubscriptionIdentifier, RecordError> {
    SubscriptionIdentifier::new(r.varint_u32()?).ok_or(RecordError::Invalid("subscription identifier 0"))
}

fn properties(r: &mut Reader<'_>, flags: u8) -> Result<Bytes, RecordError> {
    if flags & flag::PROPERTIES == 0 { Ok(Bytes::new()) } else { r.bytes() }
}

pub(crate) fn message(r: &mut Reader<'_>) -> Result<Message, RecordError> {
    let flags = check_flags(r.u8()?, 0b0111_1111)?;
    Ok(Message {
        qos: qos(flags)?,
        retain: flags & flag::RETAIN != 0,
        id: id(r)?,
        topic: topic(r)?,
        payload: r.bytes()?,
        properties: properties(r, flags)?,
        expires_at: if flags & flag::EXPIRES == 0 { None } else { Some(r.time()?) },
        publisher: if flags & flag::PUBLISHER == 0 { QueueId::NONE } else { r.queue()? },
        extras: if flags & flag::EXTRAS == 0 { None } else { Some(Box::new(extras(r)?)) },
    })
}

/// Fields in ascending order, each once.
fn extras(r: &mut Reader<'_>) -> Result<Extras, RecordError> {
    let mut fields = Reader::new(r.slice()?);
    let mut extras = Extras::default();
    let mut before = 0;
    while !fields.rest.is_empty() {
        let field = fields.u8()?;
        if field <= before {
            return Err(RecordError::Invalid("extras out of order"));
        }
        before = field;
        match field {
            extra::DEATH => extras.death = Some(Box::new(death(&mut fields)?)),
            extra::ORIGINAL => extras.original = Some(id(&mut fields)?),
            extra::REQUEUES => extras.requeues = fields.varint_u32()?,
            extra::LETTER => {
                extras.letter = Some(LetterId { queue: fields.queue()?, sequence: fields.sequence()? });
            }
            extra::PRIORITY => extras.wishes.priority = priority(&mut fields)?,
            extra::COLLAPSE_KEY => extras.wishes.collapse_key = Some(fields.text()?),
            extra::DELIVER_AT => extras.wishes.deliver_at = Some(fields.time()?),
            extra::IDEMPOTENCY_KEY => extras.wishes.idempotency_key = Some(fields.text()?),
            extra::RECEIPT => {
                let level = ReceiptLevel::from_number(fields.u8()?);
                extras.wishes.receipt = Some(level.ok_or(RecordError::Invalid("receipt"))?);
            }
            extra::ATTEMPTS_MAX => {
                let attempts = NonZeroU32::new(fields.varint_u32()?);
                extras.wishes.attempts_max = Some(attempts.ok_or(RecordError::Invalid("attempts"))?);
            }
            extra::AGE_MAX => extras.wishes.age_max_ms = Some(fields.varint()?),
            extra::SCHEDULED_BY => {
                let holder = KeyHolder::from_parts(fields.u8()?, fields.text()?);
                extras.scheduled_by = Some(holder.ok_or(RecordError::Invalid("holder"))?);
            }
            _ => return Err(RecordError::Invalid("unknown extra")),
        }
    }
    Ok(extras)
}

fn priority(r: &mut Reader<'_>) -> Result<Priority, RecordError> {
    Priority::from_number(r.u8()?)
        .filter(|priority| *priority != Priority::Normal)
        .ok_or(RecordError::Invalid("priority"))
}

fn death(r: &mut Reader<'_>) -> Result<Death, RecordError> {
    let client = ClientId(r.text()?);
    let flags = check_flags(r.u8()?, death_flag::PUSH | death_flag::GROUP | death_flag::ERROR)?;
    Ok(Death {
        client,
        is_push: flags & death_flag::PUSH != 0,
        is_group: flags & death_flag::GROUP != 0,
        outcome: outcome(r)?,
        reason_code: r.u8()?,
        attempts: r.varint_u32()?,
        sent: option(r, |r| Ok((r.time()?, r.time()?)))?,
        at: r.time()?,
        error: if flags & death_flag::ERROR == 0 { None } else { Some(r.text()?) },
    })
}

fn flag_byte(r: &mut Reader<'_>) -> Result<bool, RecordError> {
    option(r, |_| Ok(())).map(|flag| flag.is_some())
}

fn will(r: &mut Reader<'_>) -> Result<Will, RecordError> {
    let known = flag::QOS | flag::RETAIN | flag::EXPIRES | flag::PROPERTIES | flag::EXTRAS;
    let flags = check_flags(r.u8()?, known)?;
    Ok(Will {
        qos: qos(flags)?,
        retain: flags & flag::RETAIN != 0,
        topic: topic(r)?,
        payload: r.bytes()?,
        properties: properties(r, flags)?,
        delay_seconds: r.varint_u32()?,
        expiry_seconds: if flags & flag::EXPIRES == 0 { None } else { Some(r.varint_u32()?) },
        wishes: if flags & flag::EXTRAS == 0 { Wishes::default() } else { only_wishes(r)? },
    })
}

/// Extras of a message that has not been published.
fn only_wishes(r: &mut Reader<'_>) -> Result<Wishes, RecordError> {
    let Extras { death, original, requeues, letter, wishes, scheduled_by } = extras(r)?;
    match (death, original, requeues, letter, scheduled_by, wishes.is_none()) {
        (None, None, 0, None, None, false) => Ok(wishes),
        _ => Err(RecordError::Invalid("extras of a will")),
    }
}

fn groups(r: &mut Reader<'_>) -> Result<Vec<bytestring::ByteString>, RecordError> {
    (0..r.count()?).map(|_| r.text()).collect()
}

fn recipients(r: &mut Reader<'_>) -> Result<Vec<Recipient>, RecordError> {
    let count = r.count()?;
    let mut recipients: Vec<Recipient> = Vec::new();
    for _ in 0..count {
        let one = recipient(r, recipients.last().map(|before| before.queue))?;
        recipients.push(one);
    }
    Ok(recipients)
}

pub(crate) fn recipient(r: &mut Reader<'_>, before: Option<QueueId>) -> Result<Recipient, RecordError> {
    let flags = r.u8()?; // all have a meaning
    let queue = if flags & flag::NEAR == 0 { r.queue()? } else { near(r, before)? };
    let identifiers = match flags >> flag::IDENTIFIERS_SHIFT & 0b11 {
        flag::IDENTIFIERS_MANY => r.count()?,
        few => usize::from(few),
    };
    Ok(Recipient {
        queue,
        qos: qos(flags)?,
        retain: flags & flag::RETAIN != 0,
        given: flags & flag::GIVEN != 0,
        identifiers: (0..identifiers).map(|_| identifier(r)).collect::<Result<SmallVec<_>, _>>()?,
        group: if flags & flag::GROUP == 0 { None } else { Some(Arc::new(group(r)?)) },
    })
}

fn group(r: &mut Reader<'_>) -> Result<TopicFilter, RecordError> {
    let filter = filter(r)?;
    if filter.is_shared() { Ok(filter) } else { Err(RecordError::Invalid("no share group")) }
}

fn near(r: &mut Reader<'_>, before: Option<QueueId>) -> Result<QueueId, RecordError> {
    let before = before.ok_or(RecordError::Invalid("first recipient without its queue"))?;
    let ordinal = r.varint()?.checked_add(before.ordinal() + 1).filter(|ordinal| ordinal >> QueueId::ORDINAL_BITS == 0);
    let ordinal = ordinal.ok_or(RecordError::Invalid("queue ordinal above 48 bits"))?;
    Ok(QueueId::new(before.partition(), ordinal))
}

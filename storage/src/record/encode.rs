//! Record to bytes.

use base::{
    Death, Extras, KeyedPublish, Message, Priority, QueueId, QueueOwner, Recipient, Record, Sequence, SessionExpiry,
    SubscriptionOptions, TopicFilter, WallMillis, Will, Wishes,
};
use postroad_base as base;

use super::wire::{put_bytes, put_queue, put_varint};
use super::{death_flag, extra, flag, kind};

/// Appends the record to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::QueueBegin { queue, owner, expiry, at } => {
            head(out, kind::QUEUE_BEGIN, *queue);
            put_owner(out, owner);
            put_expiry_at(out, *expiry, *at);
        }
        Record::Connected { queue, expiry, at } => {
            head(out, kind::CONNECTED, *queue);
            put_expiry_at(out, *expiry, *at);
        }
        Record::Disconnected { queue, expiry, at } => {
            head(out, kind::DISCONNECTED, *queue);
            put_expiry_at(out, *expiry, *at);
        }
        Record::QueueEnd { queue } => head(out, kind::QUEUE_END, *queue),
        Record::WillSet { queue, will } => {
            head(out, kind::WILL_SET, *queue);
            put_option(out, will.as_deref(), put_will);
        }
        Record::Subscribe { queue, filter, options } => {
            head(out, kind::SUBSCRIBE, *queue);
            put_filter(out, filter);
            put_options(out, options);
        }
        Record::Unsubscribe { queue, filter } => {
            head(out, kind::UNSUBSCRIBE, *queue);
            put_filter(out, filter);
        }
        Record::Publish { message: body, recipients } => {
            out.push(kind::PUBLISH);
            message(out, body);
            put_recipients(out, recipients);
        }
        Record::Settle { queue, sequence, outcome } => {
            delivery(out, kind::SETTLE, *queue, *sequence);
            out.push(*outcome as u8);
        }
        Record::Tagged { queue, sequence, tag } => {
            delivery(out, kind::TAGGED, *queue, *sequence);
            put_varint(out, u64::from(tag.get()));
        }
        Record::Received { queue, sequence } => delivery(out, kind::RECEIVED, *queue, *sequence),
        Record::InboundBegin { queue, tag, id } => {
            head(out, kind::INBOUND_BEGIN, *queue);
            put_varint(out, u64::from(tag.get()));
            out.extend_from_slice(&id.0.to_le_bytes());
        }
        Record::InboundEnd { queue, tag } => {
            head(out, kind::INBOUND_END, *queue);
            put_varint(out, u64::from(tag.get()));
        }
        Record::Retain { message: body } => {
            out.push(kind::RETAIN);
            message(out, body);
        }
        Record::RetainClear { topic } => {
            out.push(kind::RETAIN_CLEAR);
            put_bytes(out, topic.as_str().as_bytes());
        }
        Record::Register { client, by, seen, user, groups } => {
            out.push(kind::REGISTER);
            put_bytes(out, client.as_str().as_bytes());
            out.push(*by as u8);
            put_varint(out, seen.0);
            put_option(out, user.as_ref(), |out, user| put_bytes(out, user.as_bytes()));
            put_varint(out, groups.len() as u64);
            for group in groups {
                put_bytes(out, group.as_bytes());
            }
        }
        Record::Unregister { client } => {
            out.push(kind::UNREGISTER);
            put_bytes(out, client.as_str().as_bytes());
        }
        Record::Watermark { queue, upto } => delivery(out, kind::WATERMARK, *queue, *upto),
        Record::OrdinalsUsed { next } => head(out, kind::ORDINALS_USED, *next),
        Record::RetainedDue { queue, filter } => {
            head(out, kind::RETAINED_DUE, *queue);
            put_filter(out, filter);
        }
        Record::RetainedGiven { queue, filter } => {
            head(out, kind::RETAINED_GIVEN, *queue);
            put_filter(out, filter);
        }
        Record::Transfer { queue, sequence, outcome, message: body, recipients } => {
            delivery(out, kind::TRANSFER, *queue, *sequence);
            out.push(*outcome as u8);
            message(out, body);
            put_recipients(out, recipients);
        }
        Record::Attempt { queue, sequence, attempts, first, last } => {
            delivery(out, kind::ATTEMPT, *queue, *sequence);
            put_varint(out, u64::from(*attempts));
            put_varint(out, first.0);
            put_varint(out, last.0);
        }
        Record::FullSync { queue, sequence, from, dropped, since } => {
            delivery(out, kind::FULL_SYNC, *queue, *sequence);
            put_varint(out, from.0);
            put_varint(out, *dropped);
            put_varint(out, since.0);
        }
        Record::Park { queue, sequence, at, note } => {
            delivery(out, kind::PARK, *queue, *sequence);
            put_varint(out, at.0);
            put_option(out, note.as_ref(), |out, note| put_bytes(out, note.as_bytes()));
        }
        Record::Noted { queue, sequence, bytes, is_high, collapse_key } => {
            delivery(out, kind::NOTED, *queue, *sequence);
            put_varint(out, u64::from(*bytes));
            out.push(u8::from(*is_high));
            put_option(out, collapse_key.as_ref(), |out, key| put_bytes(out, key.as_bytes()));
        }
        Record::Key { publish } => {
            out.push(kind::KEY);
            put_keyed(out, publish);
        }
    }
}

fn put_keyed(out: &mut Vec<u8>, KeyedPublish { name, id, digest, at, answer }: &KeyedPublish) {
    let (holder_kind, holder) = name.holder.parts();
    out.push(holder_kind);
    put_bytes(out, holder.as_bytes());
    put_bytes(out, name.key.as_bytes());
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&digest.0.to_le_bytes());
    put_varint(out, at.0);
    put_option(out, answer.as_ref(), |out, reason| out.push(*reason as u8));
}

fn head(out: &mut Vec<u8>, kind: u8, queue: QueueId) {
    out.push(kind);
    put_queue(out, queue);
}

fn delivery(out: &mut Vec<u8>, kind: u8, queue: QueueId, sequence: Sequence) {
    head(out, kind, queue);
    put_varint(out, sequence.0);
}

fn put_expiry_at(out: &mut Vec<u8>, expiry: SessionExpiry, at: WallMillis) {
    put_varint(out, u64::from(expiry.0));
    put_varint(out, at.0);
}

fn put_option<T: ?Sized>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_owner(out: &mut Vec<u8>, owner: &QueueOwner) {
    match owner {
        QueueOwner::Session(client) => {
            out.push(0);
            put_bytes(out, client.as_str().as_bytes());
        }
        QueueOwner::Registration(client) => {
            out.push(1);
            put_bytes(out, client.as_str().as_bytes());
        }
        QueueOwner::Share(name, filter) => {
            out.push(2);
            put_bytes(out, name.as_bytes());
            put_bytes(out, filter.as_bytes());
        }
        QueueOwner::Dead => out.push(3),
        QueueOwner::Scheduled => out.push(4),
        QueueOwner::Group(name) => {
            out.push(5);
            put_bytes(out, name.as_bytes());
        }
    }
}

fn put_filter(out: &mut Vec<u8>, filter: &TopicFilter) {
    put_bytes(out, filter.as_str().as_bytes());
}

fn put_options(out: &mut Vec<u8>, options: &SubscriptionOptions) {
    let flags = options.qos.number()
        | flag_if(options.no_local, flag::NO_LOCAL)
        | flag_if(options.retain_as_published, flag::RETAIN_AS_PUBLISHED)
        | (options.retain_handling as u8) << flag::RETAIN_HANDLING_SHIFT
        | flag_if(options.identifier.is_some(), flag::IDENTIFIER);
    out.push(flags);
    if let Some(identifier) = options.identifier {
        put_varint(out, u64::from(identifier.get()));
    }
}

pub(crate) fn message(out: &mut Vec<u8>, message: &Message) {
    let publisher = (message.publisher != QueueId::NONE).then_some(message.publisher);
    out.push(
        message.qos.number()
            | flag_if(message.retain, flag::RETAIN)
            | flag_if(message.expires_at.is_some(), flag::EXPIRES)
            | flag_if(publisher.is_some(), flag::PUBLISHER)
            | flag_if(!message.properties.is_empty(), flag::PROPERTIES)
            | flag_if(message.extras.is_some(), flag::EXTRAS),
    );
    out.extend_from_slice(&message.id.0.to_le_bytes());
    put_bytes(out, message.topic.as_str().as_bytes());
    put_bytes(out, &message.payload);
    if !message.properties.is_empty() {
        put_bytes(out, &message.properties);
    }
    if let Some(at) = message.expires_at {
        put_varint(out, at.0);
    }
    if let Some(queue) = publisher {
        put_queue(out, queue);
    }
    if let Some(extras) = &message.extras {
        put_extras(out, extras);
    }
}

fn put_extras(out: &mut Vec<u8>, extras: &Extras) {
    let Extras { death, original, requeues, letter, wishes, scheduled_by } = extras;
    let mut fields = Vec::new();
    if let Some(death) = death {
        fields.push(extra::DEATH);
        put_death(&mut fields, death);
    }
    if let Some(original) = original {
        fields.push(extra::ORIGINAL);
        fields.extend_from_slice(&original.0.to_le_bytes());
    }
    if *requeues > 0 {
        fields.push(extra::REQUEUES);
        put_varint(&mut fields, u64::from(*requeues));
    }
    if let Some(letter) = letter {
        fields.push(extra::LETTER);
        put_queue(&mut fields, letter.queue);
        put_varint(&mut fields, letter.sequence.0);
    }
    put_wishes(&mut fields, wishes);
    if let Some(holder) = scheduled_by {
        let (kind, name) = holder.parts();
        fields.extend_from_slice(&[extra::SCHEDULED_BY, kind]);
        put_bytes(&mut fields, name.as_bytes());
    }
    put_bytes(out, &fields);
}

fn put_wishes(fields: &mut Vec<u8>, wishes: &Wishes) {
    let Wishes { priority, collapse_key, deliver_at, idempotency_key, receipt, attempts_max, age_max_ms } = wishes;
    if *priority != Priority::Normal {
        fields.extend_from_slice(&[extra::PRIORITY, *priority as u8]);
    }
    if let Some(key) = collapse_key {
        fields.push(extra::COLLAPSE_KEY);
        put_bytes(fields, key.as_bytes());
    }
    if let Some(at) = deliver_at {
        fields.push(extra::DELIVER_AT);
        put_varint(fields, at.0);
    }
    if let Some(key) = idempotency_key {
        fields.push(extra::IDEMPOTENCY_KEY);
        put_bytes(fields, key.as_bytes());
    }
    if let Some(level) = receipt {
        fields.extend_from_slice(&[extra::RECEIPT, *level as u8]);
    }
    if let Some(attempts) = attempts_max {
        fields.push(extra::ATTEMPTS_MAX);
        put_varint(fields, u64::from(attempts.get()));
    }
    if let Some(age) = age_max_ms {
        fields.push(extra::AGE_MAX);
        put_varint(fields, *age);
    }
}

fn put_death(out: &mut Vec<u8>, death: &Death) {
    let Death { client, is_push, is_group, outcome, reason_code, attempts, sent, at, error } = death;
    let flags = flag_if(*is_push, death_flag::PUSH)
        | flag_if(*is_group, death_flag::GROUP)
        | flag_if(error.is_some(), death_flag::ERROR);
    put_bytes(out, client.as_str().as_bytes());
    out.extend_from_slice(&[flags, *outcome as u8, *reason_code]);
    put_varint(out, u64::from(*attempts));
    put_option(out, sent.as_ref(), |out, (first, last)| {
        put_varint(out, first.0);
        put_varint(out, last.0);
    });
    put_varint(out, at.0);
    if let Some(error) = error {
        put_bytes(out, error.as_bytes());
    }
}

fn put_will(out: &mut Vec<u8>, will: &Will) {
    out.push(
        will.qos.number()
            | flag_if(will.retain, flag::RETAIN)
            | flag_if(will.expiry_seconds.is_some(), flag::EXPIRES)
            | flag_if(!will.properties.is_empty(), flag::PROPERTIES)
            | flag_if(!will.wishes.is_none(), flag::EXTRAS),
    );
    put_bytes(out, will.topic.as_str().as_bytes());
    put_bytes(out, &will.payload);
    if !will.properties.is_empty() {
        put_bytes(out, &will.properties);
    }
    put_varint(out, u64::from(will.delay_seconds));
    if let Some(seconds) = will.expiry_seconds {
        put_varint(out, u64::from(seconds));
    }
    if !will.wishes.is_none() {
        put_extras(out, &Extras { wishes: will.wishes.clone(), ..Extras::default() });
    }
}

fn put_recipients(out: &mut Vec<u8>, recipients: &[Recipient]) {
    put_varint(out, recipients.len() as u64);
    let mut before = None;
    for one in recipients {
        recipient(out, one, before);
        before = Some(one.queue);
    }
}

/// `before`: the queue of the recipient in front. Lists ascend, so most recipients take two or three bytes.
pub(crate) fn recipient(out: &mut Vec<u8>, recipient: &Recipient, before: Option<QueueId>) {
    let near =
        before.filter(|b| b.partition() == recipient.queue.partition() && b.ordinal() < recipient.queue.ordinal());
    let identifiers = recipient.identifiers.len();
    let identifier_bits =
        if identifiers < usize::from(flag::IDENTIFIERS_MANY) { identifiers as u8 } else { flag::IDENTIFIERS_MANY };
    out.push(
        recipient.qos.number()
            | flag_if(recipient.retain, flag::RETAIN)
            | identifier_bits << flag::IDENTIFIERS_SHIFT
            | flag_if(near.is_some(), flag::NEAR)
            | flag_if(recipient.group.is_some(), flag::GROUP)
            | flag_if(recipient.given, flag::GIVEN),
    );
    match near {
        Some(before) => put_varint(out, recipient.queue.ordinal() - before.ordinal() - 1),
        None => put_queue(out, recipient.queue),
    }
    if identifier_bits == flag::IDENTIFIERS_MANY {
        put_varint(out, identifiers as u64);
    }
    for identifier in &recipient.identifiers {
        put_varint(out, u64::from(identifier.get()));
    }
    if let Some(group) = &recipient.group {
        put_filter(out, group);
    }
}

fn flag_if(condition: bool, flag: u8) -> u8 {
    if condition { flag } else { 0 }
}

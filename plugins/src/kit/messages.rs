//! Messages and letters as tables of a test, both ways.

use std::num::NonZeroU32;

use base::{
    ClientId, Death, Extras, Message, MessageId, Outcome, Priority, Qos, QueueId, TopicName, WallMillis, Wishes,
};
use bytestring::ByteString;
use postroad_base as base;
use postroad_protocol as protocol;
use protocol::mqtt::{Forwarded, ForwardedParts, UserProperties};

use super::record::{Fields, Table};
use crate::Plain;

/// What every message has, read from a table; `now` is when it is published.
pub(super) fn read(fields: &mut Fields<'_>, now: WallMillis) -> Result<Message, String> {
    let topic = fields.text("topic")?.ok_or("topic: a message has one")?;
    let topic = TopicName::new(topic.clone()).map_err(|error| format!("topic: \"{topic}\": {error}"))?;
    let qos = fields.number("qos", 2)?.map_or(Some(Qos::AtLeastOnce), |number| Qos::from_number(number as u8));
    let ttl = fields.number("ttl", Wishes::SECONDS_MAX)?;
    let wishes = wishes(fields)?;
    Ok(Message {
        id: MessageId(0),
        topic,
        payload: fields.bytes("payload")?.unwrap_or_default(),
        properties: properties(fields)?,
        qos: qos.expect("the number was at most 2"),
        retain: fields.boolean("retain")?,
        expires_at: ttl.map(|seconds| now.after(1000 * seconds)),
        publisher: QueueId::NONE,
        extras: Extras::of_wishes(wishes),
    })
}

fn wishes(fields: &mut Fields<'_>) -> Result<Wishes, String> {
    let priority = match fields.text("priority")? {
        Some(name) => {
            Priority::from_name(&name).ok_or_else(|| format!("priority: \"{name}\" is not low, normal or high"))?
        }
        None => Priority::Normal,
    };
    Ok(Wishes {
        priority,
        collapse_key: fields.text("collapse_key")?,
        deliver_at: fields.number("deliver_at", i64::MAX as u64)?.map(WallMillis),
        attempts_max: fields
            .number("retry_attempts_max", u32::MAX.into())?
            .and_then(|most| NonZeroU32::new(most as u32)),
        age_max_ms: fields.number("retry_age_max", Wishes::SECONDS_MAX)?.map(|seconds| 1000 * seconds),
        idempotency_key: fields.text("idempotency_key")?,
        receipt: None,
    })
}

fn properties(fields: &mut Fields<'_>) -> Result<bytes::Bytes, String> {
    let content_type = fields.text("content_type")?;
    let pairs = fields.pairs("properties")?;
    let parts = ForwardedParts {
        content_type: content_type.as_deref(),
        user_properties: UserProperties::from_pairs(&pairs),
        ..ForwardedParts::default()
    };
    let too_long = |text: &str| text.len() > usize::from(u16::MAX);
    if content_type.as_deref().is_some_and(too_long)
        || pairs.iter().any(|(name, value)| too_long(name) || too_long(value))
    {
        return Err("properties: a text has at most 65,535 bytes".to_owned());
    }
    Ok(parts.encode().into())
}

/// The whole letter, read from a table.
pub(super) fn read_letter(table: &Plain, now: WallMillis) -> Result<Message, String> {
    let mut fields = Fields::of("letter", table)?;
    let mut message = read(&mut fields, now)?;
    let reason = fields.text("reason")?.unwrap_or_else(|| ByteString::from(Outcome::Attempts.name()));
    let outcome = Outcome::from_name(&reason).ok_or_else(|| unknown_reason(&reason))?;
    let death = Death {
        client: ClientId(fields.text("client")?.unwrap_or_else(|| "device".into())),
        is_push: fields.boolean("is_push")?,
        is_group: fields.boolean("is_group")?,
        outcome,
        reason_code: fields.number("reason_code", 255)?.unwrap_or(0) as u8,
        attempts: fields.number("attempts", u32::MAX.into())?.unwrap_or(1) as u32,
        sent: None,
        at: fields.number("died_at", i64::MAX as u64)?.map_or(now, WallMillis),
        error: fields.text("error")?,
    };
    let requeues = fields.number("requeues", u32::MAX.into())?.unwrap_or(0) as u32;
    fields.end()?;
    let extras = message.extras.get_or_insert_default();
    extras.death = Some(Box::new(death));
    extras.requeues = requeues;
    Ok(message)
}

fn unknown_reason(reason: &str) -> String {
    let known = Outcome::ALL.map(Outcome::name);
    format!("reason: \"{reason}\" is none; they are {}", known.join(", "))
}

/// It as a table with the keys that are read. What it does not have is not there; `qos`, `retain` and `priority` always are.
pub(super) fn shown(message: &Message, now: WallMillis) -> Table {
    let wishes = message.wishes().cloned().unwrap_or_default();
    let forwarded = Forwarded::from_stored(&message.properties);
    let seconds_left = message.expires_at.map(|at| at.since(now).div_ceil(1000));
    Table::new()
        .with("topic", message.topic.as_str())
        .with("payload", message.payload.clone())
        .with("qos", u64::from(message.qos.number()))
        .with("retain", message.retain)
        .with("priority", wishes.priority.name())
        .with("ttl", seconds_left)
        .with("deliver_at", wishes.deliver_at.map(|at| at.0))
        .with("collapse_key", wishes.collapse_key.as_deref())
        .with("retry_attempts_max", wishes.attempts_max.map(|most| u64::from(most.get())))
        .with("retry_age_max", wishes.age_max_ms.map(|millis| millis / 1000))
        .with("idempotency_key", wishes.idempotency_key.as_deref())
        .with("content_type", forwarded.content_type())
        .with("properties", user_properties(&forwarded))
}

/// By name, the first of each.
fn user_properties(forwarded: &Forwarded<'_>) -> Plain {
    let mut entries: Vec<(Plain, Plain)> = Vec::new();
    for (name, value) in forwarded.user_properties().iter() {
        if !entries.iter().any(|(known, _)| known.as_str() == Some(name)) {
            entries.push((name.into(), value.into()));
        }
    }
    if entries.is_empty() { Plain::Nil } else { Plain::Map(entries) }
}

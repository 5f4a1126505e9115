//! Reading: the state at start, backlogs while serving, whole deliveries for a change of the number of shards.

use std::sync::Arc;

use base::{Message, MessageId, QueueId, Recipient, Record, Sequence};
use fjall::{Readable, Snapshot, UserValue};
use postroad_base as base;

use super::keys::{
    BODY, BOUNDS, BodyKey, DELIVERY, STATE, body_key, bounds_key, deliveries, delivery_key, meta_key, parse_body,
    parse_bounds, parse_covered, parse_delivery, parse_queue, references_key,
};
use super::{Bounds, Covered, Old, OldError, message_bytes};
use crate::record::wire::{Reader, put_varint};
use crate::record::{RecordError, decode, decode_message, decode_recipient, encode, encode_message, encode_recipient};

/// A stored delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogEntry {
    /// Its place in the queue.
    pub sequence: Sequence,
    /// What was decided at the commit.
    pub recipient: Recipient,
    /// The message.
    pub message: Arc<Message>,
}

/// A portion of a queue's stored deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// In order.
    pub entries: Vec<BacklogEntry>,
    /// Nothing is stored behind them.
    pub end: bool,
}

/// The value of a delivery's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) recipient: Recipient,
    /// Size of the message, whether it stands here or not.
    pub(crate) bytes: u64,
    pub(crate) body: StoredBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredBody {
    Inline(Arc<Message>),
    Shared(MessageId),
}

impl Stored {
    pub(crate) fn inline(recipient: &Recipient, message: &Arc<Message>) -> Self {
        let body = StoredBody::Inline(Arc::clone(message));
        Self { recipient: recipient.clone(), bytes: message_bytes(message), body }
    }

    pub(crate) fn shared(recipient: &Recipient, message: &Message) -> Self {
        let body = StoredBody::Shared(message.id);
        Self { recipient: recipient.clone(), bytes: message_bytes(message), body }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::new();
        encode_recipient(&mut value, &self.recipient, None);
        put_varint(&mut value, self.bytes);
        match &self.body {
            StoredBody::Inline(message) => {
                value.push(0);
                encode_message(&mut value, message);
            }
            StoredBody::Shared(id) => {
                value.push(1);
                value.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, OldError> {
        let mut reader = Reader::new(value);
        Self::read(&mut reader).map_err(|error| OldError::Value { what: "a delivery", error })
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let recipient = decode_recipient(reader, None)?;
        let bytes = reader.varint()?;
        let body = match reader.u8()? {
            0 => StoredBody::Inline(Arc::new(decode_message(reader)?)),
            1 => StoredBody::Shared(MessageId(u128::from_le_bytes(reader.array()?))),
            _ => return Err(RecordError::Invalid("neither a message nor a reference")),
        };
        Ok(Self { recipient, bytes, body })
    }

    /// The shared body that it refers to, if it does.
    pub(crate) fn shared_body(&self, sequence: Sequence) -> Option<BodyKey> {
        match self.body {
            StoredBody::Inline(_) => None,
            StoredBody::Shared(id) => Some((sequence, id)),
        }
    }
}

pub(super) fn wrong(what: &'static str) -> impl Fn(RecordError) -> OldError {
    move |error| OldError::Value { what, error }
}

impl Old {
    pub(super) fn read_covered(&self) -> Result<Covered, OldError> {
        match self.data.get(meta_key())? {
            None => Ok(Covered::default()),
            Some(value) => parse_covered(&value).map_err(wrong("the bounds")),
        }
    }

    /// The state as of [`Old::as_of`], each record with that sequence, by partition. Replay it before the young generation.
    ///
    /// # Errors
    /// If fjall can't read it or a value is no list of records.
    pub fn load_state(&self, then: &mut dyn FnMut(Sequence, Record)) -> Result<(), OldError> {
        let as_of = self.as_of();
        for entry in self.db.snapshot().prefix(&self.data, [STATE]) {
            let value = entry.value()?;
            decode_records(&value, &mut |record| then(as_of, record)).map_err(wrong("a piece of state"))?;
        }
        Ok(())
    }

    /// What is stored of each queue, in order of queues.
    ///
    /// # Errors
    /// If fjall can't read it.
    pub fn backlog_bounds(&self, then: &mut dyn FnMut(QueueId, Bounds)) -> Result<(), OldError> {
        for entry in self.db.snapshot().prefix(&self.data, [BOUNDS]) {
            let (key, value) = entry.into_inner()?;
            let queue = parse_queue(&key).map_err(wrong("a queue"))?;
            then(queue, parse_bounds(&value).map_err(wrong("the bounds of a queue"))?);
        }
        Ok(())
    }

    /// Stored deliveries of `queue` behind `after`: at most so many messages and bytes, but at least one if there is one.
    ///
    /// # Errors
    /// If fjall can't read it, or a shared body is missing.
    pub fn read_backlog(
        &self,
        queue: QueueId,
        after: Sequence,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Backlog, OldError> {
        let snapshot = self.db.snapshot();
        let mut backlog = Backlog::default();
        let mut bytes = 0;
        for entry in snapshot.range(&self.data, deliveries(queue, after.next())) {
            if backlog.entries.len() >= messages_max.max(1) || bytes >= bytes_max as u64 {
                return Ok(backlog);
            }
            let (key, value) = entry.into_inner()?;
            let (_, sequence) = parse_delivery(&key).map_err(wrong("a delivery"))?;
            let stored = Stored::decode(&value)?;
            bytes += stored.bytes;
            let message = self.body_of(&snapshot, sequence, stored.body)?;
            backlog.entries.push(BacklogEntry { sequence, recipient: stored.recipient, message });
        }
        backlog.end = true;
        Ok(backlog)
    }

    fn body_of(&self, snapshot: &Snapshot, sequence: Sequence, body: StoredBody) -> Result<Arc<Message>, OldError> {
        let id = match body {
            StoredBody::Inline(message) => return Ok(message),
            StoredBody::Shared(id) => id,
        };
        let value = snapshot.get(&self.data, body_key((sequence, id)))?;
        let value = value.ok_or(OldError::MissingBody { sequence: sequence.0 })?;
        let message = decode_message(&mut Reader::new(&value)).map_err(wrong("a message"))?;
        Ok(Arc::new(message))
    }

    pub(super) fn delivery(
        &self,
        snapshot: &Snapshot,
        queue: QueueId,
        sequence: Sequence,
    ) -> Result<Option<Stored>, OldError> {
        let value = snapshot.get(&self.data, delivery_key(queue, sequence))?;
        value.map(|value| Stored::decode(&value)).transpose()
    }

    /// The stored deliveries of a queue from `first` on, read as they are asked for.
    pub(super) fn deliveries_of(
        &self,
        snapshot: &Snapshot,
        queue: QueueId,
        first: Sequence,
    ) -> impl Iterator<Item = Result<(Sequence, Stored), OldError>> + use<> {
        snapshot.range(&self.data, deliveries(queue, first)).map(|entry| {
            let (key, value) = entry.into_inner()?;
            let (_, sequence) = parse_delivery(&key).map_err(wrong("a delivery"))?;
            Ok((sequence, Stored::decode(&value)?))
        })
    }

    /// Every stored delivery, by queue and sequence.
    pub(crate) fn all_deliveries(&self) -> impl Iterator<Item = Result<(QueueId, Sequence, Stored), OldError>> + use<> {
        self.db.snapshot().prefix(&self.data, [DELIVERY]).map(|entry| {
            let (key, value) = entry.into_inner()?;
            let (queue, sequence) = parse_delivery(&key).map_err(wrong("a delivery"))?;
            Ok((queue, sequence, Stored::decode(&value)?))
        })
    }

    /// Every shared body as it is stored, by sequence.
    pub(crate) fn all_bodies(&self) -> impl Iterator<Item = Result<(BodyKey, UserValue), OldError>> + use<> {
        self.db.snapshot().prefix(&self.data, [BODY]).map(|entry| {
            let (key, value) = entry.into_inner()?;
            Ok((parse_body(&key).map_err(wrong("a body"))?, value))
        })
    }

    pub(super) fn bounds(&self, snapshot: &Snapshot, queue: QueueId) -> Result<Bounds, OldError> {
        let value = snapshot.get(&self.data, bounds_key(queue))?;
        value.map_or(Ok(Bounds::default()), |value| parse_bounds(&value).map_err(wrong("the bounds of a queue")))
    }

    pub(super) fn references(&self, snapshot: &Snapshot, body: BodyKey) -> Result<u64, OldError> {
        let value = snapshot.get(&self.data, references_key(body))?;
        value.map_or(Ok(0), |value| Reader::new(&value).varint().map_err(wrong("a number of references")))
    }
}

pub(crate) fn encode_records(records: &[Record]) -> Vec<u8> {
    let mut value = Vec::new();
    put_varint(&mut value, records.len() as u64);
    for record in records {
        encode(record, &mut value);
    }
    value
}

fn decode_records(value: &[u8], then: &mut dyn FnMut(Record)) -> Result<(), RecordError> {
    let mut reader = Reader::new(value);
    let count = reader.count()?;
    let mut rest = reader.rest;
    for _ in 0..count {
        then(decode(&mut rest)?);
    }
    if rest.is_empty() { Ok(()) } else { Err(RecordError::Invalid("bytes behind the last record")) }
}

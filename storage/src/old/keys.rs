//! Keys and small values. Integers in keys are big-endian, so that keys sort as numbers do.

use std::ops::RangeInclusive;

use base::{MessageId, PartitionId, Placement, QueueId, Sequence};
use postroad_base as base;

use super::{Bounds, Covered, StateKey};
use crate::record::RecordError;
use crate::record::wire::{Reader, put_varint};

pub(super) const META: u8 = 0;
pub(super) const STATE: u8 = 1;
pub(super) const BOUNDS: u8 = 2;
pub(super) const DELIVERY: u8 = 3;
pub(super) const BODY: u8 = 4;
pub(super) const REFERENCES: u8 = 5;

/// Sequence and id of a shared body.
pub(crate) type BodyKey = (Sequence, MessageId);

pub(crate) fn meta_key() -> Vec<u8> {
    vec![META]
}

pub(crate) fn state_key(key: &StateKey, placement: &Placement) -> Vec<u8> {
    match key {
        StateKey::Queue(queue) => state(queue.partition(), 0, &queue.0.to_be_bytes()),
        StateKey::Retained(topic) => {
            let name = topic.as_str().as_bytes();
            state(placement.partition_of(name), 1, name)
        }
        StateKey::Registration(client) => {
            let name = client.as_str().as_bytes();
            state(placement.partition_of(name), 2, name)
        }
        StateKey::Ordinals(partition) => state(*partition, 3, &[]),
        StateKey::Key(name) => state(placement.partition_of_key(name), 4, &name.bytes()),
    }
}

fn state(partition: PartitionId, kind: u8, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + name.len());
    key.push(STATE);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.push(kind);
    key.extend_from_slice(name);
    key
}

pub(crate) fn bounds_key(queue: QueueId) -> Vec<u8> {
    queue_prefix(BOUNDS, queue)
}

fn queue_prefix(space: u8, queue: QueueId) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(space);
    key.extend_from_slice(&queue.0.to_be_bytes());
    key
}

pub(super) fn delivery_key(queue: QueueId, sequence: Sequence) -> Vec<u8> {
    let mut key = queue_prefix(DELIVERY, queue);
    key.extend_from_slice(&sequence.0.to_be_bytes());
    key
}

/// All deliveries of a queue from `first` on.
pub(super) fn deliveries(queue: QueueId, first: Sequence) -> RangeInclusive<Vec<u8>> {
    delivery_key(queue, first)..=delivery_key(queue, Sequence(u64::MAX))
}

pub(super) fn parse_queue(key: &[u8]) -> Result<QueueId, RecordError> {
    Reader::new(key.get(1..).ok_or(RecordError::Truncated)?).array().map(|bytes| QueueId(u64::from_be_bytes(bytes)))
}

pub(super) fn parse_delivery(key: &[u8]) -> Result<(QueueId, Sequence), RecordError> {
    let sequence = Reader::new(key.get(9..).ok_or(RecordError::Truncated)?).array()?;
    Ok((parse_queue(key)?, Sequence(u64::from_be_bytes(sequence))))
}

fn body_or_references(space: u8, (sequence, id): BodyKey) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.push(space);
    key.extend_from_slice(&sequence.0.to_be_bytes());
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

pub(super) fn body_key(body: BodyKey) -> Vec<u8> {
    body_or_references(BODY, body)
}

pub(super) fn references_key(body: BodyKey) -> Vec<u8> {
    body_or_references(REFERENCES, body)
}

pub(super) fn parse_body(key: &[u8]) -> Result<BodyKey, RecordError> {
    let mut reader = Reader::new(key.get(1..).ok_or(RecordError::Truncated)?);
    let sequence = Sequence(u64::from_be_bytes(reader.array()?));
    Ok((sequence, MessageId(u128::from_be_bytes(reader.array()?))))
}

pub(super) fn put_covered(covered: Covered) -> Vec<u8> {
    [covered.as_of.0.to_le_bytes(), covered.upto.0.to_le_bytes()].concat()
}

pub(super) fn parse_covered(value: &[u8]) -> Result<Covered, RecordError> {
    let mut reader = Reader::new(value);
    let as_of = Sequence(u64::from_le_bytes(reader.array()?));
    Ok(Covered { as_of, upto: Sequence(u64::from_le_bytes(reader.array()?)) })
}

pub(super) fn put_bounds(bounds: &Bounds) -> Vec<u8> {
    let mut value = Vec::new();
    for number in [bounds.first.0, bounds.last.0, bounds.count, bounds.bytes] {
        put_varint(&mut value, number);
    }
    value
}

pub(super) fn parse_bounds(value: &[u8]) -> Result<Bounds, RecordError> {
    let mut reader = Reader::new(value);
    Ok(Bounds { first: reader.sequence()?, last: reader.sequence()?, count: reader.varint()?, bytes: reader.varint()? })
}

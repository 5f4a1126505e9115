//! What the API tells of dead letters, and what is asked of a shard about them.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postroad_base::{Letter, LetterAction, LetterId, LetterQuery, MessageId, ShardId};
use serde::Serialize;

use crate::publication::Properties;

/// A letter, with what travelled with its message.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterReport {
    /// The letter.
    pub letter: Letter,
    /// Of its message.
    pub properties: Arc<Properties>,
}

/// Letters that a shard has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LettersPage {
    /// In the order in which they died.
    pub letters: Vec<LetterReport>,
    /// Behind which one to go on; `None`: those were all of this shard.
    pub next: Option<LetterId>,
}

/// Find these letters.
#[derive(Debug)]
pub struct LettersQuestion {
    /// Which.
    pub query: LetterQuery,
    /// Where the answer goes.
    pub answer: flume::Sender<LettersPage>,
}

/// Do this with a letter.
#[derive(Debug)]
pub struct LetterOrder {
    /// Which one.
    pub id: LetterId,
    /// What.
    pub action: LetterAction,
    /// Where the answer goes, once what was done is as safe as `durability` asks.
    pub answer: flume::Sender<LetterResult>,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum LetterResult {
    /// Done. A requeue tells the id of the new message.
    Done(Option<MessageId>),
    /// It is this.
    Letter(Box<LetterReport>),
    /// There is no such letter (any more).
    Gone,
    /// Its client has neither a session nor a registration any more.
    NoClient,
    /// Its client's queue takes no more.
    QueueFull,
}

/// Where a look over all shards goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LettersCursor {
    pub shard: ShardId,
    pub after: Option<LetterId>,
}

impl LettersCursor {
    pub fn first_of(shard: ShardId) -> Self {
        Self { shard, after: None }
    }

    /// As it is given to callers: `2`, or `2.0-3-1017`.
    pub fn text(self) -> String {
        let after = self.after.map_or(String::new(), |after| format!(".{after}"));
        format!("{}{after}", self.shard.0)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (shard, after) = match text.split_once('.') {
            Some((shard, after)) => (shard, Some(after.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { shard: ShardId(shard.parse().ok()?), after })
    }
}

/// A letter in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct LetterJson {
    id: String,
    message_id: String,
    /// The message of which this one is a requeue: the first of its line.
    original_id: Option<String>,
    requeues: u32,
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data_base64: Option<String>,
    properties: Vec<(String, String)>,
    published_unix_ms: u64,
    client: String,
    is_push: bool,
    reason: &'static str,
    reason_code: u8,
    attempts: u32,
    first_sent_unix_ms: Option<u64>,
    last_sent_unix_ms: Option<u64>,
    died_unix_ms: u64,
    parked: Option<ParkedJson>,
    is_leased: bool,
}

#[derive(Debug, Serialize)]
struct ParkedJson {
    since_unix_ms: u64,
    note: String,
}

impl LetterJson {
    /// `None` for what says nothing of how it ended, which no letter does.
    pub fn of(report: &LetterReport) -> Option<Self> {
        let LetterReport { letter: Letter { id, message, qos, parked, is_leased }, properties } = report;
        let death = message.death()?;
        let text = std::str::from_utf8(&message.payload).ok();
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        Some(Self {
            id: id.to_string(),
            message_id: message.id.to_string(),
            original_id: Some(message.original()).filter(|original| *original != message.id).map(|id| id.to_string()),
            requeues: message.requeues(),
            topic: message.topic.to_string(),
            payload: text.map(str::to_owned),
            payload_base64: if text.is_some() { None } else { Some(base64(&message.payload)) },
            qos: qos.number(),
            retain: message.retain,
            content_type: properties.content_type.as_ref().map(ToString::to_string),
            response_topic: properties.response_topic.as_ref().map(ToString::to_string),
            correlation_data_base64: properties.correlation_data.as_ref().map(|data| base64(data)),
            properties: properties.user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            published_unix_ms: message.id.published_at().0,
            client: death.client.as_str().to_owned(),
            is_push: death.is_push,
            reason: death.outcome.name(),
            reason_code: death.reason_code,
            attempts: death.attempts,
            first_sent_unix_ms: death.sent.map(|(first, _)| first.0),
            last_sent_unix_ms: death.sent.map(|(_, last)| last.0),
            died_unix_ms: death.at.0,
            parked: parked
                .as_ref()
                .map(|parked| ParkedJson { since_unix_ms: parked.at.0, note: parked.note.to_string() }),
            is_leased: *is_leased,
        })
    }
}

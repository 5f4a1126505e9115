//! What the API tells of dead letters, and what is asked of a shard about them.

mod desk;
mod follow;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use postroad_base::{
    ClientId, Death, Letter, LetterAction, LetterId, LetterQuery, MessageId, Outcome, Qos, TopicName, WallMillis,
};
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::publication::{GivenProperties, Properties, base64_of, checked, topic_of};

pub(crate) use desk::{WantedLetters, gone, lease_ms, letter_id};
pub use follow::LettersBell;
pub(crate) use follow::{Begin, Follower, Heard, Seen};

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
    /// The last letter of each queue when the look began, whether it was meant or not.
    pub ends: Vec<LetterId>,
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

/// A letter from another server, or from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedLetter {
    /// Of its message; new if it is `None`.
    pub message_id: Option<MessageId>,
    /// The message of which this one is a requeue.
    pub original: Option<MessageId>,
    /// How many requeues lie between them.
    pub requeues: u32,
    /// Where it was published to.
    pub topic: TopicName,
    /// The application's bytes.
    pub payload: Bytes,
    /// At which level its client was to get it.
    pub qos: Qos,
    /// The retain flag that its client was to see.
    pub retain: bool,
    /// What travelled with it.
    pub properties: Properties,
    /// How its delivery ended.
    pub death: Death,
    /// It waits for a human, with this note.
    pub parked: Option<String>,
}

/// Keep this letter.
#[derive(Debug)]
pub struct LetterImport {
    /// Which one.
    pub import: ImportedLetter,
    /// Where its name goes, once it is as safe as `durability` asks; `None`: none are kept.
    pub answer: flume::Sender<Option<LetterId>>,
}

/// Behind which letter to go on, on which shard.
pub(crate) type LettersCursor = Cursor<Option<LetterId>>;

/// A letter in JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LetterJson {
    #[serde(default)]
    id: String,
    #[serde(default)]
    message_id: Option<String>,
    /// The message of which this one is a requeue: the first of its line.
    #[serde(default)]
    original_id: Option<String>,
    #[serde(default)]
    requeues: u32,
    topic: String,
    /// Text goes as it is, other bytes in base64.
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    payload_base64: Option<String>,
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    is_text: bool,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    response_topic: Option<String>,
    #[serde(default)]
    correlation_data_base64: Option<String>,
    #[serde(default)]
    properties: Vec<(String, String)>,
    #[serde(default)]
    published_unix_ms: u64,
    client: String,
    #[serde(default)]
    is_push: bool,
    /// `client` is the name of a consumer group.
    #[serde(default)]
    is_group: bool,
    reason: String,
    #[serde(default)]
    reason_code: u8,
    /// What the receiver had against it, in words.
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    first_sent_unix_ms: Option<u64>,
    #[serde(default)]
    last_sent_unix_ms: Option<u64>,
    died_unix_ms: u64,
    #[serde(default)]
    parked: Option<ParkedJson>,
    #[serde(default)]
    is_leased: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct ParkedJson {
    #[serde(default)]
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
            message_id: Some(message.id.to_string()),
            original_id: Some(message.original()).filter(|original| *original != message.id).map(|id| id.to_string()),
            requeues: message.requeues(),
            topic: message.topic.to_string(),
            payload: text.map(str::to_owned),
            payload_base64: if text.is_some() { None } else { Some(base64(&message.payload)) },
            qos: qos.number(),
            retain: message.retain,
            is_text: properties.is_text,
            content_type: properties.content_type.as_ref().map(ToString::to_string),
            response_topic: properties.response_topic.as_ref().map(ToString::to_string),
            correlation_data_base64: properties.correlation_data.as_ref().map(|data| base64(data)),
            properties: properties.user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            published_unix_ms: message.id.published_at().0,
            client: death.client.as_str().to_owned(),
            is_push: death.is_push,
            is_group: death.is_group,
            reason: death.outcome.name().to_owned(),
            reason_code: death.reason_code,
            error: death.error.as_ref().map(ToString::to_string),
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

    /// As it is imported: anything that MQTT can't carry is refused.
    pub fn import(self) -> Result<ImportedLetter, String> {
        let payload = match (self.payload, self.payload_base64) {
            (Some(text), None) => text.into(),
            (None, Some(text)) => base64_of(&text)?,
            (None, None) => Bytes::new(),
            (Some(_), Some(_)) => return Err("give one of payload and payload_base64".into()),
        };
        let properties = GivenProperties {
            is_text: self.is_text,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data_base64.as_deref().map(base64_of).transpose()?,
            user: self.properties,
        };
        let letter = GivenLetter {
            message_id: self.message_id,
            original_id: self.original_id,
            requeues: self.requeues,
            topic: self.topic,
            payload,
            qos: self.qos,
            retain: self.retain,
            properties,
            client: self.client,
            is_push: self.is_push,
            is_group: self.is_group,
            reason: self.reason,
            reason_code: self.reason_code,
            error: self.error,
            attempts: self.attempts,
            sent_unix_ms: self.first_sent_unix_ms.zip(self.last_sent_unix_ms),
            died_unix_ms: self.died_unix_ms,
            note: self.parked.map(|parked| parked.note),
        };
        letter.checked()
    }
}

/// A letter from elsewhere, as a caller gave it.
#[derive(Debug)]
pub(crate) struct GivenLetter {
    pub message_id: Option<String>,
    pub original_id: Option<String>,
    pub requeues: u32,
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub properties: GivenProperties,
    pub client: String,
    pub is_push: bool,
    pub is_group: bool,
    pub reason: String,
    pub reason_code: u8,
    pub error: Option<String>,
    pub attempts: u32,
    /// When it was sent first and last.
    pub sent_unix_ms: Option<(u64, u64)>,
    pub died_unix_ms: u64,
    /// It waits for a human, with this note.
    pub note: Option<String>,
}

impl GivenLetter {
    /// As it can be kept; else why not.
    pub fn checked(self) -> Result<ImportedLetter, String> {
        let outcome =
            Outcome::from_name(&self.reason).ok_or_else(|| format!("there is no reason {:?}", self.reason))?;
        Ok(ImportedLetter {
            message_id: message_id("message_id", self.message_id)?,
            original: message_id("original_id", self.original_id)?,
            requeues: self.requeues,
            topic: topic_of(&self.topic)?,
            payload: self.payload,
            qos: Qos::from_number(self.qos).filter(|qos| qos.is_acknowledged()).ok_or("qos must be 1 or 2")?,
            retain: self.retain,
            properties: self.properties.checked()?,
            death: Death {
                client: ClientId(checked("client", self.client)?),
                is_push: self.is_push,
                is_group: self.is_group,
                outcome,
                reason_code: self.reason_code,
                attempts: self.attempts,
                sent: self.sent_unix_ms.map(|(first, last)| (WallMillis(first), WallMillis(last))),
                at: WallMillis(self.died_unix_ms),
                error: self.error.map(|error| checked("error", error)).transpose()?,
            },
            parked: self.note,
        })
    }
}

fn message_id(name: &str, text: Option<String>) -> Result<Option<MessageId>, String> {
    let parse = |text: String| {
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        number.map(MessageId).ok_or_else(|| format!("{name} must be 32 hexadecimal digits"))
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: &str = r#"{"topic": "t/1", "payload_base64": "AP8=", "qos": 2, "client": "truck-7", "reason": "refused",
        "reason_code": 131, "died_unix_ms": 5, "properties": [["k", "v"]], "parked": {"note": "look"}}"#;

    #[test]
    fn what_is_shown_is_read_back() {
        let letter: LetterJson = serde_json::from_str(LETTER).expect("a letter");
        let import = letter.import().expect("a good letter");
        assert_eq!((&import.payload[..], import.qos), (&[0, 255][..], Qos::ExactlyOnce));
        assert_eq!((import.death.outcome, import.death.reason_code), (Outcome::Refused, 131));
        assert_eq!(import.parked.as_deref(), Some("look"));
    }

    #[test]
    fn what_can_not_be_is_refused_with_a_reason() {
        let refused = |from: &str, to: &str| {
            let text = LETTER.replace(from, to);
            assert_ne!(text, LETTER);
            serde_json::from_str::<LetterJson>(&text).map_err(|error| error.to_string()).and_then(LetterJson::import)
        };
        for (from, to, why) in [
            ("t/1", "t/#", "topic"),
            ("\"qos\": 2", "\"qos\": 0", "qos"),
            ("\"refused\"", "\"bored\"", "reason"),
            ("AP8=", "??", "base64"),
            ("truck-7", "\\u0000", "client"),
            ("\"parked\"", "\"porked\"", "unknown field"),
        ] {
            let error = refused(from, to).expect_err(to);
            assert!(error.contains(why), "{error}");
        }
    }
}

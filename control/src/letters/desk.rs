//! What callers may ask of dead letters, and what becomes of it, whatever the transport.

use std::sync::Arc;

use bytes::Bytes;
use postroad_base::{
    LetterAction, LetterFilter, LetterId, LetterIdError, MessageId, Outcome, ReasonCode, Requeue, TopicFilter,
    TopicName, WallMillis, Wishes,
};

use super::{ImportedLetter, LetterReport, LetterResult};
use crate::problem::{Kind, Problem};
use crate::publication::Outcome::Published;
use crate::publication::{Caller, Publication};
use crate::shared::Server;

/// How long a lease is, if nothing else is said, and at most, in seconds.
const LEASE_SECONDS: u64 = 60;
const LEASE_SECONDS_MAX: u64 = 86_400;

/// Which letters, as a caller says it. What is not set is not asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedLetters {
    pub client: Option<String>,
    pub topic: Option<String>,
    pub reason: Option<String>,
    pub since_unix_ms: Option<u64>,
    pub until_unix_ms: Option<u64>,
    pub parked: Option<bool>,
    pub leased: Option<bool>,
}

impl WantedLetters {
    /// Those that fit.
    pub fn filter(self) -> Result<LetterFilter, Problem> {
        let topic = self.topic.as_deref().map(TopicFilter::new).transpose();
        let unknown = |name: &str| Problem::bad(format!("there is no reason {name:?}"));
        let outcome = self.reason.map(|name| Outcome::from_name(&name).ok_or_else(|| unknown(&name)));
        Ok(LetterFilter {
            client: self.client.map(Into::into),
            topic: topic.map_err(|error| Problem::bad(format!("topic: {error}")))?,
            outcome: outcome.transpose()?,
            since: self.since_unix_ms.map(WallMillis),
            until: self.until_unix_ms.map(WallMillis),
            is_parked: self.parked,
            is_leased: self.leased,
        })
    }

    /// Those that fit and can be leased.
    pub fn filter_of_lease(self) -> Result<LetterFilter, Problem> {
        if self.parked.is_some() || self.leased.is_some() {
            return Err(Problem::bad("a lease is of letters that are neither parked nor leased"));
        }
        Self { parked: Some(false), leased: Some(false), ..self }.filter()
    }
}

/// For how long letters are leased, in milliseconds.
pub(crate) fn lease_ms(seconds: Option<u64>) -> Result<u64, Problem> {
    let seconds = seconds.unwrap_or(LEASE_SECONDS);
    if !(1..=LEASE_SECONDS_MAX).contains(&seconds) {
        return Err(Problem::bad(format!("a lease must be of 1 to {LEASE_SECONDS_MAX} seconds")));
    }
    Ok(seconds * 1000)
}

/// A letter's name as a caller gives it.
pub(crate) fn letter_id(text: &str) -> Result<LetterId, Problem> {
    text.parse().map_err(|error: LetterIdError| Problem::bad(error.to_string()))
}

/// There is no such letter.
pub(crate) fn gone() -> Problem {
    Problem::new(Kind::Gone, "there is no such letter (any more)")
}

impl Server {
    /// One letter, with its message.
    pub async fn letter(&self, id: LetterId) -> Result<LetterReport, Problem> {
        match self.api.act_on_letter(id, LetterAction::Show).await? {
            LetterResult::Letter(report) => Ok(*report),
            _ => Err(gone()),
        }
    }

    /// Does something with a letter that answers no more than that it is done; a requeue tells the id of the new message.
    pub async fn act_on_letter(&self, id: LetterId, action: LetterAction) -> Result<Option<MessageId>, Problem> {
        let result = self.api.act_on_letter(id, action).await?;
        tracing::debug!(letter = %id, ?result, "a dead letter was acted on through the API");
        match result {
            LetterResult::Done(message_id) => Ok(message_id),
            LetterResult::Letter(_) => Ok(None),
            LetterResult::Gone => Err(gone()),
            LetterResult::NoClient => Err(Problem::new(
                Kind::NoClient,
                "its client has neither a session nor a registration any more, or a plugin kept it before it went to anybody: name a topic",
            )),
            LetterResult::QueueFull => {
                Err(Problem::new(Kind::Refused(ReasonCode::QuotaExceeded), "its client's queue is full"))
            }
        }
    }

    /// Sends a letter to whoever subscribes to this topic, for a caller who may publish. Published first: if we end in between,
    /// both are there, and nothing is lost.
    pub async fn requeue_to(
        &self,
        caller: &Caller,
        id: LetterId,
        topic: TopicName,
        requeue: Requeue,
    ) -> Result<Option<MessageId>, Problem> {
        let LetterReport { letter, properties } = self.letter(id).await?;
        let publication = Publication {
            topic,
            payload: requeue.payload.unwrap_or_else(|| Bytes::clone(&letter.message.payload)),
            qos: letter.qos,
            retain: false,
            ttl_seconds: requeue.ttl_seconds,
            properties: Arc::clone(&properties),
            wishes: letter.message.wishes().map(Wishes::of_repeat).unwrap_or_default().into(),
        };
        let outcome = self.api.publish(caller, vec![publication], self.api.publish_deadline()).await[0];
        let message_id = match (Problem::of(outcome), outcome) {
            (None, Published { id, has_subscribers: true }) => id,
            (Some(problem), _) => return Err(problem),
            (None, _) => {
                return Err(Problem::new(Kind::NoClient, "nobody subscribes to that topic: the letter stays"));
            }
        };
        // Not "busy" from here on: it is published.
        match self.api.act_on_letter(id, LetterAction::Drop).await {
            Ok(LetterResult::Gone) => {
                Err(Problem::new(Kind::Gone, "published; but somebody was faster with the letter itself"))
            }
            Ok(_) => Ok(message_id),
            Err(_) => Err(Problem::new(Kind::Unknown, "published; the letter may still be there, drop it")),
        }
    }

    /// Keeps a letter from elsewhere; its name here.
    pub async fn import_letter(&self, import: ImportedLetter) -> Result<LetterId, Problem> {
        let kept = self.api.import_letter(import).await?;
        kept.ok_or_else(|| Problem::new(Kind::NoStorage, "the disk is full, or dead_letters.max is 0"))
    }
}

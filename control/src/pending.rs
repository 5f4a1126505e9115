//! What the API tells of deliveries that wait for a client, and what is asked of a shard about them.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postroad_base::{ClientId, Pending, PendingAnswer, PendingId, PendingIdError};
use serde::Serialize;

use crate::checks::LIMIT_MAX;
use crate::clients::unknown_client;
use crate::problem::{Kind, Problem};
use crate::publication::{Caller, Properties};
use crate::shared::Server;

/// A delivery, with what travelled with its message.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingReport {
    /// The delivery.
    pub pending: Pending,
    /// Of its message.
    pub properties: Arc<Properties>,
}

/// Deliveries that a shard has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PendingReports {
    /// Oldest first.
    pub deliveries: Vec<PendingReport>,
    /// Behind which one to go on; `None`: those were all.
    pub next: Option<PendingId>,
}

/// Show these deliveries.
#[derive(Debug)]
pub struct PendingQuestion {
    /// Whose.
    pub client: ClientId,
    /// From behind this one on; `None`: from the oldest.
    pub after: Option<PendingId>,
    /// At most so many.
    pub limit: usize,
    /// Where the answer goes; `None`: nothing is known of the client.
    pub answer: flume::Sender<Option<PendingReports>>,
}

/// These are acknowledged in the place of their client.
#[derive(Debug)]
pub struct PendingOrder {
    /// Whose.
    pub client: ClientId,
    /// Which.
    pub ids: Vec<PendingId>,
    /// Where the answer goes, once what was done is as safe as `durability` asks.
    pub answer: flume::Sender<PendingAnswer>,
}

/// Which of the deliveries that somebody acknowledged are over by that.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    pub ended: Vec<PendingId>,
    /// Over before, or none of this client.
    pub gone: Vec<PendingId>,
}

impl Server {
    /// What waits for a client or is in flight to it, behind this delivery, at most so many.
    pub async fn pending(
        &self,
        client: &str,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<PendingReports, Problem> {
        self.api.pending(known_name(client)?, after, limit).await?.ok_or_else(unknown_client)
    }

    /// Acknowledges deliveries in the place of their client, for a caller who may.
    pub async fn acknowledge_pending(
        &self,
        caller: &Caller,
        client: &str,
        named: &[String],
    ) -> Result<Acknowledged, Problem> {
        if !(1..=LIMIT_MAX).contains(&named.len()) {
            return Err(Problem::bad(format!("deliveries must name 1 to {LIMIT_MAX}")));
        }
        let ids: Result<Vec<PendingId>, PendingIdError> = named.iter().map(|text| text.parse()).collect();
        let ids = ids.map_err(|error| Problem::bad(format!("deliveries: {error}")))?;
        let ended = match self.api.end_pending(known_name(client)?, ids.clone()).await? {
            PendingAnswer::Ended(ended) => ended,
            PendingAnswer::Connected => {
                let why = "the client is connected: it acknowledges by itself";
                return Err(Problem::new(Kind::ClientConnected, why));
            }
            PendingAnswer::NoClient => return Err(unknown_client()),
        };
        let count = ended.len();
        tracing::info!(client, caller = &*caller.name, count, "deliveries are acknowledged through the API");
        let gone = ids.into_iter().filter(|id| !ended.contains(id)).collect();
        Ok(Acknowledged { ended, gone })
    }
}

/// No client has a name with a zero byte, callers of ours do.
fn known_name(client: &str) -> Result<&str, Problem> {
    if client.contains('\0') { Err(unknown_client()) } else { Ok(client) }
}

/// A delivery in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct PendingJson {
    id: String,
    message_id: String,
    queue: &'static str,
    state: &'static str,
    topic: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data_base64: Option<String>,
    properties: Vec<(String, String)>,
    published_unix_ms: u64,
    expires_unix_ms: Option<u64>,
}

impl PendingJson {
    pub fn of(report: &PendingReport) -> Self {
        let PendingReport { pending: Pending { id, is_push, is_in_flight, message, topic, qos, retain }, properties } =
            report;
        let text = std::str::from_utf8(&message.payload).ok();
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        Self {
            id: id.to_string(),
            message_id: message.id.to_string(),
            queue: if *is_push { "registration" } else { "session" },
            state: if *is_in_flight { "in_flight" } else { "waiting" },
            topic: topic.to_string(),
            payload: text.map(str::to_owned),
            payload_base64: if text.is_some() { None } else { Some(base64(&message.payload)) },
            qos: qos.number(),
            retain: *retain,
            content_type: properties.content_type.as_ref().map(ToString::to_string),
            response_topic: properties.response_topic.as_ref().map(ToString::to_string),
            correlation_data_base64: properties.correlation_data.as_ref().map(|data| base64(data)),
            properties: properties.user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            published_unix_ms: message.id.published_at().0,
            expires_unix_ms: message.expires_at.map(|at| at.0),
        }
    }
}

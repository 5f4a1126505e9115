//! What the API tells of messages that are to be published later, and what is asked of a shard about them.
//!
//! Whoever has the right `clients` sees all of them and may take any back, whoever has `publish` those of its own name.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postroad_base::{
    CancelAnswer, KeyHolder, MessageId, PendingId, ScheduledFilter, ScheduledMessage, ScheduledQuery, ShardId,
    TopicFilter, WallMillis,
};
use serde::Serialize;

use crate::api::{Api, NoAnswer};
use crate::cursor::Cursor;
use crate::problem::{Kind, Problem};
use crate::publication::{Caller, Properties, checked};
use crate::report::Request;
use crate::shared::Server;
use crate::tokens::Right;

/// Bytes of the payloads of one answer, at most one shard's answer more.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// How often shards are asked for one answer, each time for a thousand messages: what a filter leaves out is work, too.
const LOOKS_MAX: usize = 64;

/// A message that waits, with what travels with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledEntry {
    /// The message.
    pub found: ScheduledMessage,
    /// Of it.
    pub properties: Arc<Properties>,
}

/// Messages that a shard has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScheduledEntries {
    /// In the order in which they were published.
    pub messages: Vec<ScheduledEntry>,
    /// Where to go on; `None`: those were all of this shard.
    pub next: Option<PendingId>,
}

/// Find these messages.
#[derive(Debug)]
pub struct ScheduledQuestion {
    /// Which.
    pub query: ScheduledQuery,
    /// Where the answer goes; `None`: too many look already.
    pub answer: flume::Sender<Option<ScheduledEntries>>,
}

/// Take a message back.
#[derive(Debug)]
pub struct CancelOrder {
    /// Which one.
    pub id: MessageId,
    /// Only if it is this one's; `None`: whoever's.
    pub of: Option<KeyHolder>,
    /// Where the answer goes, once what was done is as safe as `durability` asks.
    pub answer: flume::Sender<CancelAnswer>,
}

/// Where to go on with those of all shards.
pub(crate) type ScheduledCursor = Cursor<Option<PendingId>>;

/// Which messages, as a caller says it. What is not set is not asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedScheduled {
    pub topic: Option<String>,
    pub user: Option<String>,
    pub client: Option<String>,
    pub from_unix_ms: Option<u64>,
    pub until_unix_ms: Option<u64>,
}

impl WantedScheduled {
    /// Those that fit, as far as somebody may see them who sees those of `own` alone, or all.
    pub fn filter(self, own: Option<&str>) -> Result<ScheduledFilter, Problem> {
        let Self { topic, user, client, from_unix_ms, until_unix_ms } = self;
        let by = match (user, client) {
            (Some(_), Some(_)) => return Err(Problem::bad("give one of user and client")),
            (Some(user), None) => Some(KeyHolder::User(checked("user", user).map_err(Problem::bad)?)),
            (None, Some(client)) => {
                Some(KeyHolder::Client(postroad_base::ClientId(checked("client", client).map_err(Problem::bad)?)))
            }
            (None, None) => None,
        };
        let by = match own.map(holder) {
            Some(own) if by.as_ref().is_some_and(|by| *by != own) => {
                let why = "without the right clients a caller sees what it has published itself";
                return Err(Problem::new(Kind::Forbidden, why));
            }
            Some(own) => Some(own),
            None => by,
        };
        let topic = topic.map(TopicFilter::new).transpose();
        Ok(ScheduledFilter {
            topic: topic.map_err(|error| Problem::bad(format!("topic: {error}")))?,
            by,
            from: from_unix_ms.map(WallMillis),
            until: until_unix_ms.map(WallMillis),
        })
    }
}

/// Callers publish as the user of their name.
fn holder(own: &str) -> KeyHolder {
    KeyHolder::User(own.into())
}

impl Server {
    /// Who calls, and whose messages that one may see and take back; `None`: everybody's.
    pub fn may_see_scheduled(
        &self,
        caller: impl Fn(Right) -> Result<Caller, Problem>,
    ) -> Result<(Caller, Option<String>), Problem> {
        self.may_see(Right::Clients, caller)
    }

    /// The next messages that fit, at most so many, and where to go on if those were not all. Fewer, or none, is no sign of the
    /// end.
    pub async fn scheduled(
        &self,
        filter: &ScheduledFilter,
        from: Option<ScheduledCursor>,
        limit: usize,
    ) -> Result<(Vec<ScheduledEntry>, Option<ScheduledCursor>), Problem> {
        let mut cursor = Some(from.unwrap_or_default());
        let (mut found, mut bytes, mut looks) = (Vec::new(), 0, 0);
        while let Some(at) = cursor
            && found.len() < limit
            && bytes < ANSWER_BYTES_MAX
            && looks < LOOKS_MAX
        {
            looks += 1;
            let query = ScheduledQuery { after: at.place, filter: filter.clone(), limit: limit - found.len() };
            let page = self.api.some_scheduled(at.shard, query).await?.ok_or_else(busy)?;
            bytes += page.messages.iter().map(|report| report.found.message.payload.len()).sum::<usize>();
            found.extend(page.messages);
            cursor = Cursor::behind(at.shard, page.next.map(Some), self.api.shard_count());
        }
        Ok((found, cursor))
    }

    /// Takes a message back for a caller who sees those of `own` alone, or all.
    pub async fn cancel_scheduled(&self, caller: &Caller, id: MessageId, own: Option<&str>) -> Result<(), Problem> {
        let answer = self.api.cancel(id, own.map(holder)).await?;
        // One for each message, also for those that there are not: whoever may publish could fill the log.
        tracing::debug!(id = %id, caller = &*caller.name, ?answer, "a message for later is asked back through the API");
        match answer {
            CancelAnswer::Cancelled => Ok(()),
            CancelAnswer::Published => {
                Err(Problem::new(Kind::Published, "it is due and being published: it can't be taken back any more"))
            }
            CancelAnswer::Unknown => Err(Problem::new(
                Kind::Gone,
                "no message of this id waits to be published (any more), or it is somebody else's",
            )),
            CancelAnswer::Busy => Err(busy()),
        }
    }
}

fn busy() -> Problem {
    Problem::new(Kind::Busy, "too many look at what is to be published later; nothing was done")
}

impl Api {
    async fn some_scheduled(
        &self,
        shard: ShardId,
        query: ScheduledQuery,
    ) -> Result<Option<ScheduledEntries>, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        self.ask(shard, Request::Scheduled(Box::new(ScheduledQuestion { query, answer })), answered).await
    }

    /// Asks the shard first on which such an id most likely waits, then the others: another number of shards may have brought its
    /// queue elsewhere.
    async fn cancel(&self, id: MessageId, of: Option<KeyHolder>) -> Result<CancelAnswer, NoAnswer> {
        let shards = self.all_lines()?;
        let count = u16::try_from(shards.lines.len()).unwrap_or(u16::MAX);
        let first = ShardId(id.shard().0 % count.max(1));
        let others = (0..count).map(ShardId).filter(|shard| *shard != first);
        for shard in std::iter::once(first).chain(others) {
            let (answer, answered) = flume::bounded(1);
            let order = CancelOrder { id, of: of.clone(), answer };
            match self.ask(shard, Request::CancelScheduled(Box::new(order)), answered).await? {
                CancelAnswer::Unknown => {}
                known => return Ok(known),
            }
        }
        Ok(CancelAnswer::Unknown)
    }
}

/// A message in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ScheduledJson {
    message_id: String,
    topic: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data_base64: Option<String>,
    properties: Vec<(String, String)>,
    user: Option<String>,
    client: Option<String>,
    published_unix_ms: u64,
    deliver_at_unix_ms: u64,
    tried_again_unix_ms: Option<u64>,
    expires_unix_ms: Option<u64>,
}

impl ScheduledJson {
    pub fn of(report: &ScheduledEntry) -> Self {
        let ScheduledEntry { found: ScheduledMessage { message, tried_again }, properties } = report;
        let text = std::str::from_utf8(&message.payload).ok();
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let (user, client) = publisher(report);
        Self {
            message_id: message.id.to_string(),
            topic: message.topic.to_string(),
            payload: text.map(str::to_owned),
            payload_base64: if text.is_some() { None } else { Some(base64(&message.payload)) },
            qos: message.qos.number(),
            retain: message.retain,
            content_type: properties.content_type.as_ref().map(ToString::to_string),
            response_topic: properties.response_topic.as_ref().map(ToString::to_string),
            correlation_data_base64: properties.correlation_data.as_ref().map(|data| base64(data)),
            properties: properties.user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            user,
            client,
            published_unix_ms: message.id.published_at().0,
            deliver_at_unix_ms: deliver_at(report),
            tried_again_unix_ms: tried_again.map(|at| at.0),
            expires_unix_ms: message.expires_at.map(|at| at.0),
        }
    }
}

/// The user that published it, or the client if it is none.
pub(crate) fn publisher(report: &ScheduledEntry) -> (Option<String>, Option<String>) {
    match report.found.message.scheduled_by() {
        Some(KeyHolder::User(user)) => (Some(user.to_string()), None),
        Some(KeyHolder::Client(client)) => (None, Some(client.as_str().to_owned())),
        None => (None, None),
    }
}

/// When it is due, in milliseconds since 1970.
pub(crate) fn deliver_at(report: &ScheduledEntry) -> u64 {
    report.found.message.wishes().and_then(|wishes| wishes.deliver_at).unwrap_or_default().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_its_own_alone_sees_no_others() {
        let wanted = |user: Option<&str>| WantedScheduled { user: user.map(Into::into), ..WantedScheduled::default() };
        let by = |user: &'static str| Some(KeyHolder::User(user.into()));
        assert_eq!(wanted(None).filter(None).expect("all").by, None);
        assert_eq!(wanted(Some("eve")).filter(None).expect("eve's").by, by("eve"));
        assert_eq!(wanted(None).filter(Some("adam")).expect("its own").by, by("adam"));
        assert_eq!(wanted(Some("adam")).filter(Some("adam")).expect("its own").by, by("adam"));
        let refused = wanted(Some("eve")).filter(Some("adam")).expect_err("another's");
        assert_eq!(refused.kind, Kind::Forbidden);
        let client = WantedScheduled { client: Some("adam".into()), ..WantedScheduled::default() };
        assert_eq!(client.clone().filter(Some("adam")).expect_err("a client, not a user").kind, Kind::Forbidden);
        let both = WantedScheduled { user: Some("adam".into()), ..client };
        assert_eq!(both.filter(None).expect_err("of whom?").kind, Kind::Bad);
    }
}

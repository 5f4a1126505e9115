//! What the API tells of consumer groups, and what is asked of a shard about them.
//!
//! A take waits at its shard for something to come, at most for as long as its caller does. Whose caller is gone, [`Awaited`] hands
//! the place of the answer to the shard, which alone puts something there: so it is either withdrawn, or what was leased for it was
//! not given, and no answer falls in between. A shard that has no room for that word gets it when it has ([`Line::tell`]).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytestring::ByteString;
use postroad_base::{
    DeliveryId, GroupAnswer, GroupOrder, GroupRefusal, Leased, ReasonCode, ShardId, Take, TopicFilter, Verdict,
    is_user_name,
};
use serde::Serialize;
use tokio::time::timeout;

use crate::api::{Api, NoAnswer};
use crate::checks::LIMIT_MAX;
use crate::line::Line;
use crate::problem::{Kind, Problem};
use crate::publication::{Caller, Properties, checked};
use crate::report::Request;

/// How long a lease is, if nothing else is said, and at most, in seconds.
pub(crate) const LEASE_SECONDS: u64 = 30;
const LEASE_SECONDS_MAX: u64 = 86_400;
/// How long a take may wait, in seconds.
pub(crate) const WAIT_SECONDS_MAX: u64 = 60;
/// How long a refused delivery may wait, in seconds.
const AFTER_SECONDS_MAX: u64 = 86_400;
/// Bytes of what a consumer has against a delivery, and of a group's name.
const REASON_BYTES_MAX: usize = 1_024;
const NAME_BYTES_MAX: usize = 255;
/// Filters of one group, if the shard has no lower bound.
const FILTERS_MAX: usize = 10_000;

/// A group as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub group: String,
    /// What it subscribes to.
    pub filters: Vec<String>,
    /// Deliveries that nobody has.
    pub waiting: usize,
    /// Deliveries that a consumer has.
    pub leased: usize,
    /// Bytes of all of them, in memory and stored.
    pub bytes: usize,
    /// Consumers that wait for something to come.
    pub waiting_consumers: usize,
    /// When the oldest of the deliveries that are in memory was published, in milliseconds since 1970.
    pub oldest_unix_ms: Option<u64>,
}

/// A look at a shard's groups.
#[derive(Debug)]
pub struct GroupsQuestion {
    /// Those behind this name.
    pub after: Option<String>,
    /// So many at most.
    pub limit: usize,
    /// Where they go, in the order of their names.
    pub answer: flume::Sender<Vec<GroupReport>>,
}

/// Do this with a group.
#[derive(Debug)]
pub struct GroupQuestion {
    /// Which one.
    pub name: ByteString,
    /// For whom.
    pub caller: Caller,
    /// What.
    pub order: GroupOrder,
    /// Where the answer goes.
    pub answer: flume::Sender<GroupResult>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupResult {
    /// These are leased.
    Taken(Vec<LeasedReport>),
    /// Anything else.
    Other(GroupAnswer),
}

/// A leased delivery, with what travelled with its message.
#[derive(Clone, Debug, PartialEq)]
pub struct LeasedReport {
    /// The delivery.
    pub leased: Leased,
    /// Of its message.
    pub properties: Arc<Properties>,
}

/// What was done with deliveries, one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answered {
    /// For so many it was done.
    pub done: usize,
    /// These are over, or somebody else has them.
    pub gone: Vec<String>,
}

impl Answered {
    /// Of these deliveries, those that were done and those that were not.
    pub fn of(deliveries: &[DeliveryId], done: Vec<bool>) -> Self {
        Self {
            done: done.iter().filter(|done| **done).count(),
            gone: deliveries.iter().zip(done).filter(|(_, done)| !done).map(|(id, _)| id.to_string()).collect(),
        }
    }
}

/// Nobody waits for the answer to a take any more.
#[derive(Debug)]
pub struct GroupLeft {
    /// Which group.
    pub name: ByteString,
    /// Who has asked.
    pub caller: Caller,
    /// Where the answer went, or goes.
    pub unread: flume::Receiver<GroupResult>,
}

/// The answer to a take, which is waited for.
struct Awaited {
    /// `None` once it has come.
    answered: Option<flume::Receiver<GroupResult>>,
    line: Line,
    name: ByteString,
    caller: Caller,
}

impl Awaited {
    /// `None`: the shard is gone. Nothing is lost if this is dropped while it waits.
    async fn answer(&mut self) -> Option<GroupResult> {
        let result = self.answered.as_ref()?.recv_async().await.ok();
        self.answered = None;
        result
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(unread) = self.answered.take() {
            let left = GroupLeft { name: self.name.clone(), caller: self.caller.clone(), unread };
            self.line.tell(Request::GroupLeft(Box::new(left)));
        }
    }
}

/// Nobody waits for the answer.
fn give_back(line: &Line, name: &ByteString, caller: &Caller, order: GroupOrder) {
    let (answer, _nobody) = flume::bounded(1);
    let question = GroupQuestion { name: name.clone(), caller: caller.clone(), order, answer };
    line.tell(Request::Group(Box::new(question)));
}

impl Api {
    /// The groups of all shards behind this one, in the order of their names.
    pub async fn groups(&self, after: Option<&str>, limit: usize) -> Result<Vec<GroupReport>, NoAnswer> {
        let mut all = Vec::new();
        for shard in 0..self.shard_count() {
            let (answer, answered) = flume::bounded(1);
            let question = GroupsQuestion { after: after.map(Into::into), limit, answer };
            let shard = ShardId(u16::try_from(shard).unwrap_or(u16::MAX));
            all.extend(self.ask(shard, Request::Groups(Box::new(question)), answered).await?);
        }
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all.truncate(limit);
        Ok(all)
    }

    /// One group.
    pub async fn group(&self, name: &ByteString) -> Result<GroupReport, Problem> {
        let (answer, answered) = flume::bounded(1);
        let (home, _) = self.home_line(name)?;
        let asked = self.ask(home, Request::GroupState { name: name.clone(), answer }, answered);
        asked.await?.ok_or_else(|| GroupRefusal::NoGroup.into())
    }

    /// Makes a group or changes its filters; whether it is new.
    pub async fn set_group(
        &self,
        caller: &Caller,
        name: &ByteString,
        filters: Vec<TopicFilter>,
    ) -> Result<bool, Problem> {
        match self.order(caller, name, GroupOrder::Set { filters }, self.answer_timeout()).await? {
            GroupResult::Other(GroupAnswer::Set { is_new }) => Ok(is_new),
            _ => Err(unexpected()),
        }
    }

    pub async fn delete_group(&self, caller: &Caller, name: &ByteString) -> Result<(), Problem> {
        match self.order(caller, name, GroupOrder::Delete, self.answer_timeout()).await? {
            GroupResult::Other(GroupAnswer::Deleted) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Leases what waits, or the first that comes. The leases of an answer that nobody waits for any more are given back.
    pub async fn take(&self, caller: &Caller, name: &ByteString, take: Take) -> Result<Vec<LeasedReport>, Problem> {
        let patience = self.answer_timeout() + Duration::from_millis(take.wait_ms);
        match self.order(caller, name, GroupOrder::Take(take), patience).await? {
            GroupResult::Taken(leased) => Ok(leased),
            GroupResult::Other(_) => Err(unexpected()),
        }
    }

    pub async fn answer(
        &self,
        caller: &Caller,
        name: &ByteString,
        deliveries: Vec<DeliveryId>,
        verdict: Verdict,
    ) -> Result<Answered, Problem> {
        let done = self.each_answer(caller, name, deliveries.clone(), verdict).await?;
        Ok(Answered::of(&deliveries, done))
    }

    /// For each delivery, in their order, whether it was done.
    pub async fn each_answer(
        &self,
        caller: &Caller,
        name: &ByteString,
        deliveries: Vec<DeliveryId>,
        verdict: Verdict,
    ) -> Result<Vec<bool>, Problem> {
        let count = deliveries.len();
        let order = GroupOrder::Answer { deliveries, verdict };
        match self.order(caller, name, order, self.answer_timeout()).await? {
            GroupResult::Other(GroupAnswer::Answered(done)) if done.len() == count => Ok(done),
            _ => Err(unexpected()),
        }
    }

    /// Gives back what a consumer that has gone had, or was to have: the verdict says which.
    pub fn give_back(&self, caller: &Caller, name: &ByteString, deliveries: Vec<DeliveryId>, verdict: Verdict) {
        if !deliveries.is_empty()
            && let Ok((_, line)) = self.home_line(name)
        {
            give_back(&line, name, caller, GroupOrder::Answer { deliveries, verdict });
        }
    }

    async fn order(
        &self,
        caller: &Caller,
        name: &ByteString,
        order: GroupOrder,
        patience: Duration,
    ) -> Result<GroupResult, Problem> {
        let (_, line) = self.home_line(name)?;
        let (answer, answered) = flume::bounded(1);
        let is_take = matches!(order, GroupOrder::Take(_));
        let question = GroupQuestion { name: name.clone(), caller: caller.clone(), order, answer };
        if !line.ask(Request::Group(Box::new(question))) {
            return Err(NoAnswer::NotTaken.into());
        }
        let result = if is_take {
            let mut awaited = Awaited { answered: Some(answered), line, name: name.clone(), caller: caller.clone() };
            timeout(patience, awaited.answer()).await.ok().flatten()
        } else {
            timeout(patience, answered.recv_async()).await.ok().and_then(Result::ok)
        };
        match result {
            Some(GroupResult::Other(GroupAnswer::Refused(why))) => Err(why.into()),
            Some(result) => Ok(result),
            None => Err(NoAnswer::Late.into()),
        }
    }
}

fn unexpected() -> Problem {
    Problem::new(Kind::Unknown, "the shard answered something else")
}

impl From<GroupRefusal> for Problem {
    fn from(why: GroupRefusal) -> Self {
        let kind = match why {
            GroupRefusal::NoGroup => Kind::UnknownGroup,
            GroupRefusal::NotAuthorized => Kind::Refused(ReasonCode::NotAuthorized),
            GroupRefusal::BadFilter => Kind::Bad,
            GroupRefusal::TooManyFilters | GroupRefusal::TooManyGroups | GroupRefusal::DiskFull => {
                Kind::Refused(ReasonCode::QuotaExceeded)
            }
            GroupRefusal::TooManyWait | GroupRefusal::Unconfirmed => Kind::Busy,
        };
        Self::new(kind, why.to_string())
    }
}

/// The name of a group, as a caller gave it.
pub(crate) fn name_of(name: &str) -> Result<ByteString, Problem> {
    let is_name = name.len() <= NAME_BYTES_MAX && is_user_name(name);
    let wrong = || {
        Problem::bad(
            "a group's name must be 1 to 255 bytes without '/', '+', '#' and control characters, and not begin with '$'",
        )
    };
    is_name.then(|| name.into()).ok_or_else(wrong)
}

pub(crate) fn filters_of(filters: &[String]) -> Result<Vec<TopicFilter>, Problem> {
    if filters.len() > FILTERS_MAX {
        return Err(Problem::bad(format!("more than {FILTERS_MAX} filters")));
    }
    let filter =
        |text: &String| TopicFilter::new(text.as_str()).map_err(|error| Problem::bad(format!("filter: {error}")));
    filters.iter().map(filter).collect()
}

pub(crate) fn deliveries_of(names: &[String]) -> Result<Vec<DeliveryId>, Problem> {
    if names.is_empty() || names.len() > LIMIT_MAX {
        return Err(Problem::bad(format!("deliveries must be 1 to {LIMIT_MAX}")));
    }
    names.iter().map(|name| name.parse().map_err(|error| Problem::bad(format!("{error}")))).collect()
}

/// Seconds as a caller gave them, in milliseconds.
fn millis_of(name: &str, seconds: u64, least: u64, most: u64) -> Result<u64, Problem> {
    if !(least..=most).contains(&seconds) {
        return Err(Problem::bad(format!("{name} must be {least} to {most}")));
    }
    Ok(seconds * 1000)
}

pub(crate) fn lease_of(seconds: Option<u64>) -> Result<u64, Problem> {
    millis_of("lease_seconds", seconds.unwrap_or(LEASE_SECONDS), 1, LEASE_SECONDS_MAX)
}

pub(crate) fn take_of(limit: usize, lease: Option<u64>, wait: u64) -> Result<Take, Problem> {
    let wait_ms = millis_of("wait_seconds", wait, 0, WAIT_SECONDS_MAX)?;
    Ok(Take { limit, lease_ms: lease_of(lease)?, wait_ms })
}

/// How deliveries are refused. `after` is for those that are to be given again.
pub(crate) fn refusal_of(after: Option<u64>, is_dead: bool, reason: Option<String>) -> Result<Verdict, Problem> {
    if reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(Problem::bad(format!("reason must have at most {REASON_BYTES_MAX} bytes")));
    }
    let reason = reason.map(|reason| checked("reason", reason)).transpose().map_err(Problem::bad)?;
    match (is_dead, after) {
        (true, Some(_)) => Err(Problem::bad("after_seconds is for what is to be given again, not for what is dead")),
        (true, None) => Ok(Verdict::Bury { reason }),
        (false, after) => {
            let after_ms = after.map(|after| millis_of("after_seconds", after, 0, AFTER_SECONDS_MAX)).transpose()?;
            Ok(Verdict::Refuse { after_ms, reason })
        }
    }
}

/// A delivery in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct LeasedJson {
    delivery: String,
    attempt: u32,
    may_repeat: bool,
    message_id: String,
    topic: String,
    /// Text goes as it is, other bytes in base64.
    payload: Option<String>,
    payload_base64: Option<String>,
    qos: u8,
    is_text: bool,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data_base64: Option<String>,
    properties: Vec<(String, String)>,
    published_unix_ms: u64,
}

impl LeasedJson {
    pub fn of(report: &LeasedReport) -> Self {
        let LeasedReport { leased: Leased { id, message, may_repeat }, properties } = report;
        let text = std::str::from_utf8(&message.payload).ok();
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        Self {
            delivery: id.to_string(),
            attempt: id.attempt,
            may_repeat: *may_repeat,
            message_id: message.id.to_string(),
            topic: message.topic.to_string(),
            payload: text.map(str::to_owned),
            payload_base64: if text.is_some() { None } else { Some(base64(&message.payload)) },
            qos: message.qos.number(),
            is_text: properties.is_text,
            content_type: properties.content_type.as_ref().map(ToString::to_string),
            response_topic: properties.response_topic.as_ref().map(ToString::to_string),
            correlation_data_base64: properties.correlation_data.as_ref().map(|data| base64(data)),
            properties: properties.user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            published_unix_ms: message.id.published_at().0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_is_refused_with_a_reason() {
        let why = |problem: Result<(), Problem>| problem.expect_err("it can't be").detail.into_owned();
        for name in ["", "a/b", "$api", "a\0", &"x".repeat(256)] {
            assert!(why(name_of(name).map(drop)).contains("name"), "{name:?}");
        }
        assert!(why(filters_of(&["a/#/b".into()]).map(drop)).contains("filter"));
        assert!(why(deliveries_of(&[]).map(drop)).contains("deliveries"));
        assert!(why(deliveries_of(&["0-1-2".into()]).map(drop)).contains("five numbers"));
        assert!(why(take_of(1, Some(0), 0).map(drop)).contains("lease_seconds"));
        assert!(why(take_of(1, None, 61).map(drop)).contains("wait_seconds"));
        assert!(why(refusal_of(Some(1), true, None).map(drop)).contains("after_seconds"));
        assert!(why(refusal_of(None, false, Some("x".repeat(1025))).map(drop)).contains("reason"));
        let refuse = Verdict::Refuse { after_ms: Some(2_000), reason: Some("busy".into()) };
        assert_eq!(refusal_of(Some(2), false, Some("busy".into())), Ok(refuse));
        assert_eq!(take_of(7, None, 5), Ok(Take { limit: 7, lease_ms: 30_000, wait_ms: 5_000 }));
    }
}

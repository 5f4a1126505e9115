//! `postroad.v1.Messages`: publishing.
//!
//! A stream is pipelined: what has come is given to the shards while what came before is not answered, in portions of whatever
//! was there at once, so that few large requests and many small ones cost the same.
//!
//! ```text
//! requests ─ take what is there ─► begin ─► under way (few portions, few bytes) ─ wait in order ─► answers
//! ```
//!
//! A portion is under way until its last answer is taken: who does not read the answers is not read either.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::{Either, FutureExt, select};
use futures_util::stream::{Stream, unfold};
use postroad_base::{Priority, ReceiptLevel};
use postroad_proto::v1;
use postroad_proto::v1::message::Content;
use postroad_proto::v1::publish_result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::letters::property;
use super::{Call, status};
use crate::api::Pending;
use crate::checks::{check_key, check_spread, qos_of};
use crate::problem::{Kind, Problem};
use crate::publication::{Caller, GivenProperties, GivenWishes, Outcome, Properties, Publication, topic_of, wall_now};
use crate::shared::Server;
use crate::tokens::Right;

/// Portions of a stream that are under way at most: half of what a shard takes of all callers.
const PORTIONS_MAX: usize = 4;
/// What an answer takes in memory, about, however small its message was.
const ANSWER_BYTES: usize = 160;
/// No more is put into a portion that holds so much.
const PORTION_MESSAGES: usize = 1_024;
const PORTION_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Service {
    server: Arc<Server>,
    /// A place for each open stream.
    streams: Arc<Semaphore>,
}

impl Service {
    pub fn new(server: Arc<Server>, streams: Arc<Semaphore>) -> Self {
        Self { server, streams }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::PublishStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::messages_server::Messages for Service {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let call = Call::in_request(&request)?;
        let message = request.into_inner().message.ok_or_else(|| Problem::bad("there is no message"))?;
        let messages = vec![publication(message)?];
        let outcomes =
            self.server.api.publish(call.caller(Right::Publish)?, messages, deadline(&self.server, &call)).await;
        let published = published(outcomes[0])?;
        Ok(Response::new(v1::PublishResponse { published: Some(published) }))
    }

    async fn publish_many(
        &self,
        request: Request<v1::PublishManyRequest>,
    ) -> Result<Response<v1::PublishManyResponse>, Status> {
        let call = Call::in_request(&request)?;
        let portion = many(request.into_inner())?;
        check_spread(&portion.messages, self.server.settings.body_bytes_max)?;
        let deadline = deadline(&self.server, &call);
        let outcomes = self.server.api.publish(call.caller(Right::Publish)?, portion.messages, deadline).await;
        let results = results(portion.refused, &mut outcomes.into_iter());
        Ok(Response::new(v1::PublishManyResponse { results }))
    }

    type PublishStreamStream = Answers;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let call = Call::in_request(&request)?;
        let caller = call.caller(Right::Publish)?.clone();
        let place = place_for_stream(&self.streams)?;
        let (portions, under_way) = mpsc::channel(PORTIONS_MAX + 1); // and the end
        let reading = Reading::new(Arc::clone(&self.server), call, caller);
        tokio::spawn(reading.read(request.into_inner(), portions));
        let answering = Answering { under_way, ready: VecDeque::new(), room: None, _place: place };
        Ok(Response::new(Box::pin(unfold(answering, Answering::next))))
    }
}

/// A place among the open streams.
pub(super) fn place_for_stream(streams: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let busy = |_| Problem::new(Kind::Busy, "http.connections_max streams are open");
    Arc::clone(streams).try_acquire_owned().map_err(busy)
}

/// When a publish of this call is given up.
fn deadline(server: &Server, call: &Call) -> Instant {
    let most = server.api.publish_deadline();
    call.deadline.map_or(most, |deadline| deadline.min(most))
}

/// What is published together.
#[derive(Default)]
struct Portion {
    messages: Vec<Publication>,
    /// One for each message that was asked for: what is wrong with it; `None`: it is among `messages`.
    refused: Vec<Option<Problem>>,
}

impl Portion {
    fn add(&mut self, message: v1::Message) {
        match publication(message) {
            Ok(publication) => {
                self.messages.push(publication);
                self.refused.push(None);
            }
            Err(problem) => self.refused.push(Some(problem)),
        }
    }
}

fn many(request: v1::PublishManyRequest) -> Result<Portion, Problem> {
    let v1::PublishManyRequest { messages, topics } = request;
    let mut portion = Portion::default();
    if topics.is_empty() {
        messages.into_iter().for_each(|message| portion.add(message));
        return Ok(portion);
    }
    let message = <[v1::Message; 1]>::try_from(messages).ok().filter(|[message]| message.topic.is_empty());
    let wrong = || Problem::bad("topics are for one message, which has no topic of its own");
    let [message] = message.ok_or_else(wrong)?;
    // Checked under a topic that can be, then sent to each: payload and properties are there once.
    let model = publication(v1::Message { topic: "t".into(), ..message })?;
    check_key(&model.wishes, topics.len()).map_err(Problem::bad)?;
    for topic in topics {
        match topic_of(&topic) {
            Ok(topic) => {
                portion.messages.push(Publication { topic, ..model.clone() });
                portion.refused.push(None);
            }
            Err(why) => portion.refused.push(Some(Problem::bad(why))),
        }
    }
    Ok(portion)
}

fn publication(message: v1::Message) -> Result<Publication, Problem> {
    checked_publication(message).map_err(Problem::bad)
}

fn checked_publication(message: v1::Message) -> Result<Publication, String> {
    let v1::Message { topic, content, qos, retain, ttl_seconds, .. } = message;
    let v1::Message { content_type, response_topic, correlation_data, properties, wishes, .. } = message;
    let (payload, is_text) = match content {
        Some(Content::Payload(payload)) => (payload.into(), false),
        Some(Content::PayloadText(text)) => (text.into(), true),
        None => (bytes::Bytes::new(), false),
    };
    let properties = GivenProperties {
        is_text,
        content_type,
        response_topic,
        correlation_data: correlation_data.map(Into::into),
        user: properties.into_iter().map(|v1::Property { name, value }| (name, value)).collect(),
    };
    let properties = properties.checked()?;
    let (topic, qos) = (topic_of(&topic)?, qos_of(qos)?);
    let wishes = wishes.map(given_wishes).transpose()?.unwrap_or_default().checked(wall_now())?.into();
    Ok(Publication { topic, payload, qos, retain, ttl_seconds, properties: properties.into(), wishes })
}

fn given_wishes(wishes: v1::Wishes) -> Result<GivenWishes, String> {
    let v1::Wishes { priority, collapse_key, deliver, idempotency_key, receipt, .. } = wishes;
    let v1::Wishes { retry_attempts_max, retry_age_max_seconds, .. } = wishes;
    let priority =
        match v1::wishes::Priority::try_from(priority).map_err(|_| "priority: there is none of this number")? {
            v1::wishes::Priority::Normal => Priority::Normal,
            v1::wishes::Priority::Low => Priority::Low,
            v1::wishes::Priority::High => Priority::High,
        };
    let receipt = receipt_level(receipt)?;
    let (deliver_at_unix_ms, deliver_after_seconds) = match deliver {
        Some(v1::wishes::Deliver::DeliverAtUnixMs(at)) => (Some(at), None),
        Some(v1::wishes::Deliver::DeliverAfterSeconds(seconds)) => (None, Some(seconds)),
        None => (None, None),
    };
    Ok(GivenWishes {
        priority: Some(priority.name().into()),
        collapse_key,
        deliver_at_unix_ms,
        deliver_after_seconds,
        idempotency_key,
        receipt: receipt.map(|level| level.name().into()),
        retry_attempts_max,
        retry_age_max_seconds,
    })
}

/// The level of receipts with this number.
pub(super) fn receipt_level(number: i32) -> Result<Option<ReceiptLevel>, String> {
    Ok(match v1::wishes::Receipt::try_from(number).map_err(|_| "receipt: there is none of this number")? {
        v1::wishes::Receipt::None => None,
        v1::wishes::Receipt::Stored => Some(ReceiptLevel::Stored),
        v1::wishes::Receipt::Sent => Some(ReceiptLevel::Sent),
        v1::wishes::Receipt::Acknowledged => Some(ReceiptLevel::Acknowledged),
        v1::wishes::Receipt::Dead => Some(ReceiptLevel::Dead),
    })
}

fn published(outcome: Outcome) -> Result<v1::Published, Problem> {
    match (Problem::of(outcome), outcome) {
        (None, Outcome::Published { id, has_subscribers }) => {
            Ok(v1::Published { id: id.map(|id| id.to_string()).unwrap_or_default(), has_subscribers })
        }
        (Some(problem), _) => Err(problem),
        (None, _) => unreachable!("what is not published is a problem"),
    }
}

/// One for each message that was asked for; those that were published have the next of the outcomes.
fn results(refused: Vec<Option<Problem>>, outcomes: &mut impl Iterator<Item = Outcome>) -> Vec<v1::PublishResult> {
    let result = |refused: Option<Problem>| match refused {
        Some(problem) => Err(problem),
        None => published(outcomes.next().unwrap_or(Outcome::Unknown)),
    };
    refused.into_iter().map(result).map(told).collect()
}

fn told(result: Result<v1::Published, Problem>) -> v1::PublishResult {
    let outcome = match result {
        Ok(published) => publish_result::Outcome::Published(published),
        Err(problem) => publish_result::Outcome::Error(problem.into()),
    };
    v1::PublishResult { outcome: Some(outcome) }
}

/// What a stream's answers are made of, in the order of its requests.
enum UnderWay {
    Portion {
        pending: Pending,
        /// Number and messages of each request.
        requests: Vec<(u64, Vec<Option<Problem>>)>,
        room: Room,
    },
    /// The call ends so.
    End(Status),
}

/// A portion's share of what its stream may hold, until its answers are taken.
struct Room {
    _portion: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// Reads a stream.
struct Reading {
    server: Arc<Server>,
    call: Call,
    caller: Caller,
    /// Portions, and bytes, that may still come under way.
    portions: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Why a stream is read no more.
enum Over {
    /// Nobody waits for its answers.
    Unheard,
    /// It has to end, so.
    Told(Status),
    /// Its caller has ended it.
    Done,
}

impl Reading {
    fn new(server: Arc<Server>, call: Call, caller: Caller) -> Self {
        let [portions, bytes] =
            [PORTIONS_MAX, server.settings.body_bytes_max].map(|most| Arc::new(Semaphore::new(most)));
        Self { server, call, caller, portions, bytes }
    }

    /// Reads until the stream ends, its connection or its time does, the server stops, or nobody hears the answers; what was
    /// handed on is answered all the same.
    async fn read(self, mut requests: Streaming<v1::PublishStreamRequest>, portions: mpsc::Sender<UnderWay>) {
        let over = {
            let unheard = pin!(portions.closed());
            let ended = pin!(self.server.end_of_stream(self.call.closing.clone(), self.call.deadline));
            // The end is looked at first: there may always be another request.
            match select(select(unheard, ended), pin!(self.hand_on(&mut requests, &portions))).await {
                Either::Left((Either::Left(_), _)) => Over::Unheard,
                Either::Left((Either::Right((problem, _)), _)) => Over::Told(problem.into()),
                Either::Right((over, _)) => over,
            }
        };
        if let Over::Told(status) = over {
            let _nobody_reads = portions.send(UnderWay::End(status)).await;
        }
    }

    /// Hands on what comes. Where it is dropped while it gives a portion to the shards, that portion has no answers.
    async fn hand_on(
        &self,
        requests: &mut Streaming<v1::PublishStreamRequest>,
        portions: &mpsc::Sender<UnderWay>,
    ) -> Over {
        loop {
            let came = Came::next(requests).await;
            if !came.requests.is_empty() {
                let begun = self.begin(came.requests).await;
                if portions.try_send(begun).is_err() {
                    return Over::Unheard; // there is a place for each portion, and one for the end
                }
            }
            match came.end {
                None => {}
                Some(Ok(())) => return Over::Done,
                Some(Err(status)) => return Over::Told(status::problem_of(&status).map_or(status, Into::into)),
            }
        }
    }

    /// Gives a portion to the shards once there is room for it and its answers.
    async fn begin(&self, requests: Vec<v1::PublishStreamRequest>) -> UnderWay {
        let mut messages = Vec::new();
        let mut told = Vec::with_capacity(requests.len());
        for request in requests {
            let mut portion = Portion { messages, refused: Vec::with_capacity(request.messages.len()) };
            request.messages.into_iter().for_each(|message| portion.add(message));
            messages = portion.messages;
            told.push((request.number, portion.refused));
        }
        let answers: usize = told.iter().map(|(_, results)| results.len()).sum();
        let bytes = messages.iter().map(Publication::bytes).sum::<usize>() + answers * ANSWER_BYTES;
        let share = u32::try_from(bytes.min(self.server.settings.body_bytes_max)).unwrap_or(u32::MAX);
        let portion = Arc::clone(&self.portions).acquire_owned().await.expect(NEVER_CLOSED);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(share).await.expect(NEVER_CLOSED);
        let pending = self.server.api.begin(&self.caller, messages, deadline(&self.server, &self.call)).await;
        UnderWay::Portion { pending, requests: told, room: Room { _portion: portion, _bytes: bytes } }
    }
}

const NEVER_CLOSED: &str = "nobody closes the places of a stream";

/// What has come of a stream, and whether that was all.
struct Came {
    requests: Vec<v1::PublishStreamRequest>,
    end: Option<Result<(), Status>>,
}

impl Came {
    /// Waits for a request, and takes those that are there besides, as far as they fit into a portion.
    async fn next(requests: &mut Streaming<v1::PublishStreamRequest>) -> Self {
        let mut came = Self { requests: Vec::new(), end: None };
        let (mut messages, mut bytes) = (0, 0);
        let mut next = requests.message().await;
        loop {
            match next {
                Ok(Some(request)) => {
                    messages += request.messages.len();
                    bytes += request.messages.iter().map(bytes_of).sum::<usize>();
                    came.requests.push(request);
                }
                Ok(None) => came.end = Some(Ok(())),
                Err(status) => came.end = Some(Err(status)),
            }
            let is_full =
                messages >= PORTION_MESSAGES || bytes >= PORTION_BYTES || came.requests.len() >= PORTION_MESSAGES;
            if is_full || came.end.is_some() {
                return came;
            }
            match requests.message().now_or_never() {
                Some(there) => next = there,
                None => return came,
            }
        }
    }
}

fn bytes_of(message: &v1::Message) -> usize {
    let content = match &message.content {
        Some(Content::Payload(payload)) => payload.len(),
        Some(Content::PayloadText(text)) => text.len(),
        None => 0,
    };
    message.topic.len() + content
}

/// The answers of a stream, made as they are read.
struct Answering {
    under_way: mpsc::Receiver<UnderWay>,
    /// Those of a portion that is done, and its share.
    ready: VecDeque<v1::PublishStreamResponse>,
    room: Option<Room>,
    _place: OwnedSemaphorePermit,
}

impl Answering {
    async fn next(mut self) -> Option<(Result<v1::PublishStreamResponse, Status>, Self)> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Some((Ok(answer), self));
            }
            drop(self.room.take());
            match self.under_way.recv().await? {
                UnderWay::End(status) => {
                    self.under_way.close();
                    return Some((Err(status), self));
                }
                UnderWay::Portion { pending, requests, room } => {
                    let mut outcomes = pending.outcomes().await.into_iter();
                    let answers = requests.into_iter().map(|(number, refused)| v1::PublishStreamResponse {
                        number,
                        results: results(refused, &mut outcomes),
                    });
                    self.ready.extend(answers);
                    self.room = Some(room);
                }
            }
        }
    }
}
/// A message that somebody is shown, as it was published, without its wishes.
pub(super) fn told_message(message: &postroad_base::Message, properties: &Properties) -> v1::Message {
    let content = match (properties.is_text, std::str::from_utf8(&message.payload)) {
        (true, Ok(text)) => Content::PayloadText(text.to_owned()),
        _ => Content::Payload(message.payload.to_vec()),
    };
    v1::Message {
        topic: message.topic.to_string(),
        content: Some(content),
        qos: Some(message.qos.number().into()),
        retain: message.retain,
        content_type: properties.content_type.as_ref().map(ToString::to_string),
        response_topic: properties.response_topic.as_ref().map(ToString::to_string),
        correlation_data: properties.correlation_data.as_ref().map(|data| data.to_vec()),
        properties: properties.user.iter().map(property).collect(),
        ..v1::Message::default()
    }
}

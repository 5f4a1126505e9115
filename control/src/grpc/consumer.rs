//! `postroad.v1.Consumer`: taking from a group, by single calls or by a stream.
//!
//! A stream is one task. It takes as long as the consumer has fewer deliveries than it wants at once, and hands on what the
//! consumer says of them; acknowledgements that have come together are one order, so that many small ones cost few commits.
//! Whoever does not read is not given more.
//!
//! ```text
//! requests ─ first: Begin ─► [ takes while there is credit ─► deliveries ]─► answers (few at once)
//!            then: of deliveries ─► [ orders, one after the other        ]─►
//! ```
//!
//! When the stream ends, what its consumer has is given back. A delivery whose lease is over takes no credit any more.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytestring::ByteString;
use futures_util::future::{BoxFuture, Either, FutureExt, pending, select};
use futures_util::stream::{Stream, unfold};
use postroad_base::{DeliveryId, Leased, Verdict};
use postroad_proto::v1;
use postroad_proto::v1::consume_request::Request as Said;
use postroad_proto::v1::consume_response::Response as Told;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::messages::{place_for_stream, told_message};
use super::{Call, status};
use crate::checks::{LIMIT_MAX, page_limit};
use crate::groups::{Answered, LeasedReport, WAIT_SECONDS_MAX, deliveries_of, lease_of, name_of, refusal_of, take_of};
use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::shared::Server;
use crate::tokens::Right;

/// Answers of a stream that nobody has read yet.
const ANSWERS_MAX: usize = 2;
/// Requests that are handed on together.
const TOGETHER_MAX: usize = 256;
/// How long one take of a stream waits before it is asked again.
const WAIT_SECONDS: u64 = WAIT_SECONDS_MAX;

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

    async fn answer<T>(
        &self,
        request: Request<T>,
        of: impl FnOnce(T) -> (String, Result<Order, Problem>),
    ) -> Result<Response<v1::Answered>, Status> {
        let call = Call::in_request(&request)?;
        let (group, order) = of(request.into_inner());
        let Order { deliveries, verdict } = order?;
        let answered =
            self.server.api.answer(call.caller(Right::Consume)?, &name_of(&group)?, deliveries, verdict).await?;
        Ok(Response::new(told(0, answered)))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::ConsumeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::consumer_server::Consumer for Service {
    type ConsumeStream = Answers;

    async fn consume(&self, request: Request<Streaming<v1::ConsumeRequest>>) -> Result<Response<Answers>, Status> {
        let call = Call::in_request(&request)?;
        let caller = call.caller(Right::Consume)?.clone();
        let place = place_for_stream(&self.streams)?;
        let (answers, unread) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(serve(Arc::clone(&self.server), call, caller, request.into_inner(), answers));
        Ok(Response::new(Box::pin(unfold((unread, place), next_answer))))
    }

    async fn take(&self, request: Request<v1::TakeRequest>) -> Result<Response<v1::Deliveries>, Status> {
        let call = Call::in_request(&request)?;
        let v1::TakeRequest { group, limit, lease_seconds, wait_seconds } = request.into_inner();
        let take = take_of(page_limit("limit", limit)?, lease_seconds, wait_seconds)?;
        let name = name_of(&group)?;
        let taken =
            self.server.until_it_stops(self.server.api.take(call.caller(Right::Consume)?, &name, take)).await??;
        Ok(Response::new(deliveries(taken)))
    }

    async fn acknowledge(&self, request: Request<v1::Acknowledge>) -> Result<Response<v1::Answered>, Status> {
        self.answer(request, |said| (said.group.clone(), acknowledged(said))).await
    }

    async fn refuse(&self, request: Request<v1::Refuse>) -> Result<Response<v1::Answered>, Status> {
        self.answer(request, |said| (said.group.clone(), refused(said))).await
    }

    async fn extend(&self, request: Request<v1::Extend>) -> Result<Response<v1::Answered>, Status> {
        self.answer(request, |said| (said.group.clone(), extended(said))).await
    }
}

type Unread = mpsc::Receiver<Result<v1::ConsumeResponse, Status>>;

async fn next_answer(
    (mut unread, place): (Unread, OwnedSemaphorePermit),
) -> Option<(Result<v1::ConsumeResponse, Status>, (Unread, OwnedSemaphorePermit))> {
    unread.recv().await.map(|answer| (answer, (unread, place)))
}

/// What is said of deliveries.
struct Order {
    deliveries: Vec<DeliveryId>,
    verdict: Verdict,
}

fn acknowledged(said: v1::Acknowledge) -> Result<Order, Problem> {
    Ok(Order { deliveries: deliveries_of(&said.deliveries)?, verdict: Verdict::Acknowledge })
}

fn refused(said: v1::Refuse) -> Result<Order, Problem> {
    let v1::Refuse { deliveries, after_seconds, dead, reason, .. } = said;
    Ok(Order { deliveries: deliveries_of(&deliveries)?, verdict: refusal_of(after_seconds, dead, reason)? })
}

fn extended(said: v1::Extend) -> Result<Order, Problem> {
    let v1::Extend { deliveries, lease_seconds, .. } = said;
    let lease_ms = lease_of(lease_seconds)?;
    Ok(Order { deliveries: deliveries_of(&deliveries)?, verdict: Verdict::Extend { lease_ms } })
}

fn told(number: u64, Answered { done, gone }: Answered) -> v1::Answered {
    v1::Answered { number, done: done as u64, gone }
}

fn deliveries(taken: Vec<LeasedReport>) -> v1::Deliveries {
    v1::Deliveries { deliveries: taken.into_iter().map(Into::into).collect() }
}

impl From<LeasedReport> for v1::Delivery {
    fn from(report: LeasedReport) -> Self {
        let LeasedReport { leased: Leased { id, message, may_repeat }, properties } = report;
        let told = v1::Message { retain: false, ..told_message(&message, &properties) };
        Self {
            delivery: id.to_string(),
            attempt: id.attempt,
            may_repeat,
            message_id: message.id.to_string(),
            published_unix_ms: message.id.published_at().0,
            message: Some(told),
        }
    }
}

/// A stream's consumer.
struct Consumer {
    server: Arc<Server>,
    caller: Caller,
    group: ByteString,
    prefetch: usize,
    lease: Duration,
    /// What it has, and until when.
    held: BTreeMap<DeliveryId, Instant>,
    /// What it is to have, once it reads its answers.
    leaving: Vec<DeliveryId>,
    taking: Option<BoxFuture<'static, Result<Vec<LeasedReport>, Problem>>>,
    answers: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
}

/// What a stream goes on with.
enum Came {
    Requests(Vec<v1::ConsumeRequest>, Option<Option<Status>>),
    Taken(Result<Vec<LeasedReport>, Problem>),
    LeaseOver,
    /// Nobody reads the answers any more.
    NoReader,
}

async fn serve(
    server: Arc<Server>,
    call: Call,
    caller: Caller,
    mut requests: Streaming<v1::ConsumeRequest>,
    answers: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
) {
    let end = server.end_of_stream(call.closing.clone(), call.deadline);
    let served = async {
        let begin = timeout(server.settings.request_timeout, requests.message());
        let late = |_| Problem::new(Kind::Timeout, "the first request did not come in http.request_timeout");
        let first = begin.await.map_err(late).map_err(Status::from)?.map_err(in_our_words)?;
        let mut consumer = Consumer::begin(&server, caller, first, answers.clone())?;
        let ended = consumer.run(&mut requests).await;
        // Also if this future is dropped; see `Drop`.
        drop(consumer);
        ended
    };
    let ended = match select(pin!(end), pin!(served)).await {
        Either::Left((problem, _)) => Err(problem.into()),
        Either::Right((ended, _)) => ended,
    };
    if let Err(status) = ended {
        let _nobody_reads = answers.send(Err(status)).await;
    }
}

fn in_our_words(status: Status) -> Status {
    status::problem_of(&status).map_or(status, Into::into)
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let (held, leaving) = (self.held.keys().copied().collect(), std::mem::take(&mut self.leaving));
        self.server.api.give_back(&self.caller, &self.group, held, Verdict::GiveBack);
        self.server.api.give_back(&self.caller, &self.group, leaving, Verdict::Untaken);
    }
}

impl Consumer {
    fn begin(
        server: &Arc<Server>,
        caller: Caller,
        first: Option<v1::ConsumeRequest>,
        answers: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
    ) -> Result<Self, Status> {
        let Some(v1::ConsumeRequest { request: Some(Said::Begin(begin)), .. }) = first else {
            return Err(Problem::bad("the first request must begin: it names the group").into());
        };
        let v1::Begin { group, prefetch, lease_seconds } = begin;
        Ok(Self {
            server: Arc::clone(server),
            caller,
            group: name_of(&group)?,
            prefetch: page_limit("prefetch", prefetch)?,
            lease: Duration::from_millis(lease_of(lease_seconds)?),
            held: BTreeMap::new(),
            leaving: Vec::new(),
            taking: None,
            answers,
        })
    }

    /// Until its requests end, nobody reads its answers, or something is wrong with it.
    async fn run(&mut self, requests: &mut Streaming<v1::ConsumeRequest>) -> Result<(), Status> {
        loop {
            self.take_more()?;
            match self.next(requests).await {
                Came::Requests(said, end) => {
                    self.hand_on(said).await?;
                    match end {
                        None => {}
                        Some(None) => return Ok(()),
                        Some(Some(status)) => return Err(in_our_words(status)),
                    }
                }
                Came::Taken(taken) => self.push(taken?).await?,
                Came::LeaseOver => {}
                Came::NoReader => return Ok(()),
            }
        }
    }

    /// Asks for as many as it may have beside those whose leases last, unless it has been asked.
    fn take_more(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        self.held.retain(|_, until| *until > now);
        let credit = self.prefetch.saturating_sub(self.held.len());
        if credit == 0 || self.taking.is_some() {
            return Ok(());
        }
        let take = take_of(credit, Some(self.lease.as_secs()), WAIT_SECONDS)?;
        let (server, caller, group) = (Arc::clone(&self.server), self.caller.clone(), self.group.clone());
        self.taking = Some(async move { server.api.take(&caller, &group, take).await }.boxed());
        Ok(())
    }

    async fn next(&mut self, requests: &mut Streaming<v1::ConsumeRequest>) -> Came {
        let answers = self.answers.clone();
        let lease_over = self.held.values().min().copied();
        let taking = &mut self.taking;
        let taken = async {
            match taking {
                Some(future) => future.await,
                None => pending().await,
            }
        };
        let over = async {
            match lease_over {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        let asked = pin!(together(requests));
        let (taken, over, gone) = (pin!(taken), pin!(over), pin!(answers.closed()));
        let came = match select(asked, select(taken, select(over, gone))).await {
            Either::Left(((said, end), _)) => Came::Requests(said, end),
            Either::Right((Either::Left((taken, _)), _)) => Came::Taken(taken),
            Either::Right((Either::Right((Either::Left(_), _)), _)) => Came::LeaseOver,
            Either::Right((Either::Right((Either::Right(_), _)), _)) => Came::NoReader,
        };
        if matches!(came, Came::Taken(_)) {
            self.taking = None;
        }
        came
    }

    async fn push(&mut self, taken: Vec<LeasedReport>) -> Result<(), Status> {
        if taken.is_empty() {
            return Ok(());
        }
        self.leaving = taken.iter().map(|report| report.leased.id).collect();
        // Telling waits for a slow reader; leases don't.
        let until = Instant::now() + self.lease;
        self.tell(Told::Deliveries(deliveries(taken))).await?;
        self.held.extend(std::mem::take(&mut self.leaving).into_iter().map(|id| (id, until)));
        Ok(())
    }

    async fn tell(&mut self, told: Told) -> Result<(), Status> {
        let answer = v1::ConsumeResponse { response: Some(told) };
        self.answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("nobody reads the answers"))
    }

    /// Each answered by itself, in order. Acknowledgements that stand together are one order.
    async fn hand_on(&mut self, said: Vec<v1::ConsumeRequest>) -> Result<(), Status> {
        let mut acknowledged: Vec<(u64, Vec<DeliveryId>)> = Vec::new();
        let mut count = 0;
        for request in said {
            let (number, order) = of_request(request)?;
            let is_more = order.verdict != Verdict::Acknowledge || count + order.deliveries.len() > LIMIT_MAX;
            if is_more {
                self.acknowledge(std::mem::take(&mut acknowledged)).await?;
                count = 0;
            }
            if order.verdict == Verdict::Acknowledge {
                count += order.deliveries.len();
                acknowledged.push((number, order.deliveries));
            } else {
                let deliveries = order.deliveries.clone();
                let answered = Answered::of(&deliveries, self.order(order).await?);
                self.tell(Told::Answered(told(number, answered))).await?;
            }
        }
        self.acknowledge(acknowledged).await
    }

    async fn acknowledge(&mut self, requests: Vec<(u64, Vec<DeliveryId>)>) -> Result<(), Status> {
        if requests.is_empty() {
            return Ok(());
        }
        let all = requests.iter().flat_map(|(_, deliveries)| deliveries).copied().collect();
        // By place, not by name: the same delivery may stand in two requests, and only the first of them ends it.
        let mut done = self.order(Order { deliveries: all, verdict: Verdict::Acknowledge }).await?.into_iter();
        for (number, deliveries) in requests {
            let done = done.by_ref().take(deliveries.len()).collect();
            self.tell(Told::Answered(told(number, Answered::of(&deliveries, done)))).await?;
        }
        Ok(())
    }

    /// What is over, or another's, takes no credit any more.
    async fn order(&mut self, order: Order) -> Result<Vec<bool>, Status> {
        let Order { deliveries, verdict } = order;
        let extended = match verdict {
            Verdict::Extend { lease_ms } => Some(Instant::now() + Duration::from_millis(lease_ms)),
            _ => None,
        };
        let answered = self.server.api.each_answer(&self.caller, &self.group, deliveries.clone(), verdict).await?;
        for (id, done) in deliveries.into_iter().zip(answered.iter().copied()) {
            match (extended.filter(|_| done), self.held.get_mut(&id)) {
                (Some(until), Some(known)) => *known = until,
                (None, Some(_)) => drop(self.held.remove(&id)),
                (_, None) => {}
            }
        }
        Ok(answered)
    }
}

fn of_request(request: v1::ConsumeRequest) -> Result<(u64, Order), Problem> {
    let order = match request.request {
        Some(Said::Acknowledge(said)) => acknowledged(said)?,
        Some(Said::Refuse(said)) => refused(said)?,
        Some(Said::Extend(said)) => extended(said)?,
        Some(Said::Begin(_)) => return Err(Problem::bad("the stream has begun: another group is another stream")),
        None => return Err(Problem::bad("a request without anything in it")),
    };
    Ok((request.number, order))
}

/// Waits for a request, and takes those that are there besides. Nothing is lost if this is dropped while it waits: it holds
/// nothing before something has come, and then waits no more.
async fn together(requests: &mut Streaming<v1::ConsumeRequest>) -> (Vec<v1::ConsumeRequest>, Option<Option<Status>>) {
    let mut said = Vec::new();
    let mut next = requests.message().await;
    loop {
        match next {
            Ok(Some(request)) => said.push(request),
            Ok(None) => return (said, Some(None)),
            Err(status) => return (said, Some(Some(status))),
        }
        match requests.message().now_or_never() {
            Some(there) if said.len() < TOGETHER_MAX => next = there,
            Some(Ok(Some(request))) => {
                said.push(request);
                return (said, None);
            }
            Some(Ok(None)) => return (said, Some(None)),
            Some(Err(status)) => return (said, Some(Some(status))),
            None => return (said, None),
        }
    }
}

//! `postroad.v1.DeadLetters`: what nobody has got, and what becomes of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{Stream, unfold};
use postroad_base::{LetterAction, LetterFilter, Requeue};
use postroad_proto::v1;
use postroad_proto::v1::follow_letters_request::From as WantedFrom;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::messages::place_for_stream;
use super::{Call, page_begin};
use crate::checks::page_limit;
use crate::letters::{
    Begin, Follower, GivenLetter, Heard, LetterReport, LettersCursor, Seen, WantedLetters, lease_ms, letter_id,
};
use crate::problem::Problem;
use crate::publication::{Caller, GivenProperties, checked, topic_of};
use crate::shared::Server;
use crate::tokens::Right;

/// Letters that an export takes from the shards at once.
const EXPORTED_AT_ONCE: usize = 100;
/// How often a follower that hears nothing looks whether anybody listens; HTTP/2 has its own heartbeat.
const LOOK: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Service {
    server: Arc<Server>,
    /// A place for each open stream.
    streams: Arc<Semaphore>,
}

type Told<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(server: Arc<Server>, streams: Arc<Semaphore>) -> Self {
        Self { server, streams }
    }

    async fn act(&self, id: &str, action: LetterAction) -> Result<String, Status> {
        let message_id = self.server.act_on_letter(letter_id(id)?, action).await?;
        Ok(message_id.map(|id| id.to_string()).unwrap_or_default())
    }
}

/// Who calls, if it may see letters.
fn caller_of<T>(request: &Request<T>) -> Result<Caller, Status> {
    Ok(Call::in_request(request)?.caller(Right::DeadLetters)?.clone())
}

#[tonic::async_trait]
impl v1::dead_letters_server::DeadLetters for Service {
    async fn list(&self, request: Request<v1::ListLettersRequest>) -> Told<v1::ListLettersResponse> {
        caller_of(&request)?;
        let v1::ListLettersRequest { filter, page_size, page_token } = request.into_inner();
        let (filter, limit) = (wanted(filter).filter()?, page_limit("page_size", page_size)?);
        let from = page_begin(&page_token, LettersCursor::parse)?.unwrap_or_default();
        let (letters, next) = self.server.api.letters(&filter, from, limit, None).await.map_err(Problem::from)?;
        let next_page_token = next.map(LettersCursor::text).unwrap_or_default();
        Ok(Response::new(v1::ListLettersResponse { letters: told(letters), next_page_token }))
    }

    async fn get(&self, request: Request<v1::GetLetterRequest>) -> Told<v1::DeadLetter> {
        caller_of(&request)?;
        let report = self.server.letter(letter_id(&request.get_ref().id)?).await?;
        Ok(Response::new(report.into()))
    }

    async fn lease(&self, request: Request<v1::LeaseLettersRequest>) -> Told<v1::LeaseLettersResponse> {
        caller_of(&request)?;
        let v1::LeaseLettersRequest { filter, limit, seconds } = request.into_inner();
        let (filter, limit) = (wanted(filter).filter_of_lease()?, page_limit("limit", limit)?);
        let lease = lease_ms(Some(seconds).filter(|seconds| *seconds > 0).map(u64::from))?;
        let from = LettersCursor::default();
        let (letters, _) = self.server.api.letters(&filter, from, limit, Some(lease)).await.map_err(Problem::from)?;
        Ok(Response::new(v1::LeaseLettersResponse { letters: told(letters) }))
    }

    async fn requeue(&self, request: Request<v1::RequeueLetterRequest>) -> Told<v1::RequeueLetterResponse> {
        let peer = Call::in_request(&request)?.peer;
        caller_of(&request)?;
        let publisher = self.server.grpc_caller(peer, request.metadata().as_ref(), Right::Publish);
        let v1::RequeueLetterRequest { id, topic, payload, ttl_seconds } = request.into_inner();
        let requeue = Requeue { payload: payload.map(Into::into), ttl_seconds };
        let message_id = match topic {
            None => self.act(&id, LetterAction::Requeue(requeue)).await?,
            Some(topic) => {
                let topic = topic_of(&topic).map_err(Problem::bad)?;
                let message_id = self.server.requeue_to(&publisher?, letter_id(&id)?, topic, requeue).await?;
                message_id.map(|id| id.to_string()).unwrap_or_default()
            }
        };
        Ok(Response::new(v1::RequeueLetterResponse { message_id }))
    }

    async fn drop(&self, request: Request<v1::DropLetterRequest>) -> Told<v1::DropLetterResponse> {
        caller_of(&request)?;
        self.act(&request.get_ref().id, LetterAction::Drop).await?;
        Ok(Response::new(v1::DropLetterResponse {}))
    }

    async fn park(&self, request: Request<v1::ParkLetterRequest>) -> Told<v1::ParkLetterResponse> {
        caller_of(&request)?;
        let v1::ParkLetterRequest { id, note } = request.into_inner();
        let note = checked("note", note).map_err(Problem::bad)?;
        self.act(&id, LetterAction::Park { note }).await?;
        Ok(Response::new(v1::ParkLetterResponse {}))
    }

    async fn unpark(&self, request: Request<v1::UnparkLetterRequest>) -> Told<v1::UnparkLetterResponse> {
        caller_of(&request)?;
        self.act(&request.get_ref().id, LetterAction::Unpark).await?;
        Ok(Response::new(v1::UnparkLetterResponse {}))
    }

    async fn release(&self, request: Request<v1::ReleaseLetterRequest>) -> Told<v1::ReleaseLetterResponse> {
        caller_of(&request)?;
        self.act(&request.get_ref().id, LetterAction::Release).await?;
        Ok(Response::new(v1::ReleaseLetterResponse {}))
    }

    type ExportStream = Answers<v1::DeadLetter>;

    async fn export(&self, request: Request<v1::ExportLettersRequest>) -> Told<Answers<v1::DeadLetter>> {
        let call = Call::in_request(&request)?;
        call.caller(Right::DeadLetters)?;
        let filter = wanted(request.into_inner().filter).filter()?;
        let place = place_for_stream(&self.streams)?;
        let (ending, stopping) = (Arc::clone(&self.server), call.closing.clone());
        let end = Box::pin(async move { ending.end_of_stream(stopping, call.deadline).await });
        let (server, page, next) = (Arc::clone(&self.server), VecDeque::new(), LettersCursor::default());
        let export = Export { server, filter, page, next: Some(next), end, _place: place };
        Ok(Response::new(Box::pin(unfold(Some(export), Export::next))))
    }

    async fn import(&self, request: Request<v1::ImportLetterRequest>) -> Told<v1::ImportLetterResponse> {
        caller_of(&request)?;
        let letter = request.into_inner().letter.ok_or_else(|| Problem::bad("there is no letter"))?;
        let import = given(letter).and_then(GivenLetter::checked).map_err(Problem::bad)?;
        let id = self.server.import_letter(import).await?;
        Ok(Response::new(v1::ImportLetterResponse { id: id.to_string() }))
    }

    type FollowStream = Answers<v1::FollowLettersResponse>;

    async fn follow(&self, request: Request<v1::FollowLettersRequest>) -> Told<Answers<v1::FollowLettersResponse>> {
        let call = Call::in_request(&request)?;
        call.caller(Right::DeadLetters)?;
        let v1::FollowLettersRequest { filter, lease_seconds, from } = request.into_inner();
        let lease = lease_seconds.map(|seconds| lease_ms(Some(seconds.into()))).transpose()?;
        let begin = match from {
            Some(WantedFrom::Behind(seen)) => Begin::Behind(Seen::parse(&seen)?),
            Some(WantedFrom::Oldest(true)) => Begin::Oldest,
            Some(WantedFrom::Oldest(false)) => Begin::Now,
            None if lease.is_some() => Begin::Oldest,
            None => Begin::Now,
        };
        let wanted = wanted(filter);
        let filter = if lease.is_some() { wanted.filter_of_lease()? } else { wanted.filter()? };
        let place = place_for_stream(&self.streams)?;
        let (ending, stopping) = (Arc::clone(&self.server), call.closing.clone());
        let end = async move { ending.end_of_stream(stopping, call.deadline).await };
        let lease = lease.map(Duration::from_millis);
        let follower = Follower::begin(Arc::clone(&self.server), filter, lease, begin, end).await?;
        let first = v1::FollowLettersResponse { letter: None, seen: follower.seen() };
        let following = Following { first: Some(first), follower, _place: place };
        Ok(Response::new(Box::pin(unfold(Some(following), Following::next))))
    }
}

/// A follower by gRPC: first where it begins, then what it hears.
struct Following {
    first: Option<v1::FollowLettersResponse>,
    follower: Follower,
    _place: OwnedSemaphorePermit,
}

impl Following {
    async fn next(following: Option<Self>) -> Option<(Result<v1::FollowLettersResponse, Status>, Option<Self>)> {
        let mut following = following?;
        if let Some(first) = following.first.take() {
            return Some((Ok(first), Some(following)));
        }
        loop {
            match following.follower.next(LOOK).await {
                Heard::Letter(report, seen) => {
                    let letter = Some((*report).into());
                    return Some((Ok(v1::FollowLettersResponse { letter, seen }), Some(following)));
                }
                Heard::Nothing => {}
                Heard::End(problem) => return Some((Err(problem.into()), None)),
            }
        }
    }
}

/// All letters that fit: one page is in memory at a time.
struct Export {
    server: Arc<Server>,
    filter: LetterFilter,
    page: VecDeque<LetterReport>,
    next: Option<LettersCursor>,
    end: Pin<Box<dyn Future<Output = Problem> + Send>>,
    _place: OwnedSemaphorePermit,
}

impl Export {
    async fn next(export: Option<Self>) -> Option<(Result<v1::DeadLetter, Status>, Option<Self>)> {
        let mut export = export?;
        loop {
            if let Some(report) = export.page.pop_front() {
                return Some((Ok(report.into()), Some(export)));
            }
            let from = export.next.take()?;
            let page = std::pin::pin!(export.server.api.letters(&export.filter, from, EXPORTED_AT_ONCE, None));
            match select(export.end.as_mut(), page).await {
                Either::Left((problem, _)) => return Some((Err(problem.into()), None)),
                Either::Right((Err(why), _)) => return Some((Err(Problem::from(why).into()), None)),
                Either::Right((Ok((letters, next)), _)) => (export.page, export.next) = (letters.into(), next),
            }
        }
    }
}

fn wanted(filter: Option<v1::LetterFilter>) -> WantedLetters {
    let v1::LetterFilter { client, topic, reason, since_unix_ms, until_unix_ms, parked, leased } =
        filter.unwrap_or_default();
    WantedLetters { client, topic, reason, since_unix_ms, until_unix_ms, parked, leased }
}

fn told(reports: Vec<LetterReport>) -> Vec<v1::DeadLetter> {
    reports.into_iter().map(Into::into).collect()
}

impl From<LetterReport> for v1::DeadLetter {
    fn from(LetterReport { letter, properties }: LetterReport) -> Self {
        let message = &letter.message;
        let original = Some(message.original()).filter(|original| *original != message.id);
        let mut told = Self {
            id: letter.id.to_string(),
            message_id: message.id.to_string(),
            original_id: original.map(|id| id.to_string()).unwrap_or_default(),
            requeues: message.requeues(),
            topic: message.topic.to_string(),
            payload: message.payload.to_vec(),
            qos: letter.qos.number().into(),
            retain: message.retain,
            is_text: properties.is_text,
            content_type: properties.content_type.as_ref().map(ToString::to_string),
            response_topic: properties.response_topic.as_ref().map(ToString::to_string),
            correlation_data: properties.correlation_data.as_ref().map(|data| data.to_vec()),
            properties: properties.user.iter().map(property).collect(),
            published_unix_ms: message.id.published_at().0,
            parked: letter
                .parked
                .as_ref()
                .map(|parked| v1::ParkedLetter { since_unix_ms: parked.at.0, note: parked.note.to_string() }),
            is_leased: letter.is_leased,
            ..Self::default()
        };
        if let Some(death) = message.death() {
            told.client = death.client.as_str().to_owned();
            told.is_push = death.is_push;
            told.is_group = death.is_group;
            told.error = death.error.as_ref().map(ToString::to_string);
            told.reason = death.outcome.name().to_owned();
            told.reason_code = death.reason_code.into();
            told.attempts = death.attempts;
            told.first_sent_unix_ms = death.sent.map(|(first, _)| first.0);
            told.last_sent_unix_ms = death.sent.map(|(_, last)| last.0);
            told.died_unix_ms = death.at.0;
        }
        told
    }
}

pub(super) fn property((name, value): &(bytestring::ByteString, bytestring::ByteString)) -> v1::Property {
    v1::Property { name: name.to_string(), value: value.to_string() }
}

/// A letter from elsewhere, in the words that both transports share.
fn given(letter: v1::DeadLetter) -> Result<GivenLetter, String> {
    let small = |name: &str, number: u32| u8::try_from(number).map_err(|_| format!("{name} must be below 256"));
    let id = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(GivenLetter {
        message_id: id(letter.message_id),
        original_id: id(letter.original_id),
        requeues: letter.requeues,
        topic: letter.topic,
        payload: letter.payload.into(),
        qos: small("qos", letter.qos)?,
        retain: letter.retain,
        properties: GivenProperties {
            is_text: letter.is_text,
            content_type: letter.content_type,
            response_topic: letter.response_topic,
            correlation_data: letter.correlation_data.map(Into::into),
            user: letter.properties.into_iter().map(|v1::Property { name, value }| (name, value)).collect(),
        },
        client: letter.client,
        is_push: letter.is_push,
        is_group: letter.is_group,
        reason: letter.reason,
        reason_code: small("reason_code", letter.reason_code)?,
        error: letter.error,
        attempts: letter.attempts,
        sent_unix_ms: letter.first_sent_unix_ms.zip(letter.last_sent_unix_ms),
        died_unix_ms: letter.died_unix_ms,
        note: letter.parked.map(|parked| parked.note),
    })
}

//! gRPC over loopback, with shards played by the test: deadlines, pressure, streams and limits.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use postroad_base::{
    DeliveryId, GroupAnswer, GroupOrder, Leased, Message, MessageId, Moved, Placement, Published, Qos, QueueId,
    ReasonCode, ReceiptLevel, Sequence, ShardId, Step, TopicFilter, TopicName, Verdict, WallMillis,
};
use postroad_control::{
    Batch, BuildInfo, ClientReport, ClientsPage, Control, FilterCount, FilterCounts, FiltersPage, FiltersQuery,
    GroupLeft, GroupQuestion, GroupResult, LeasedReport, Line, Listeners, Outcome, Phase, Request, Settings, Shards,
};
use postroad_proto::v1;
use postroad_proto::v1::admin_client::AdminClient;
use postroad_proto::v1::clients_client::ClientsClient;
use postroad_proto::v1::consumer_client::ConsumerClient;
use postroad_proto::v1::messages_client::MessagesClient;
use postroad_proto::v1::receipts_client::ReceiptsClient;
use postroad_proto::v1::topics_client::TopicsClient;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

/// Longest wait for what ought to happen at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane with one shard, which the test plays.
struct Stage {
    control: Control,
    address: SocketAddr,
    queue: flume::Sender<Request>,
    asked: flume::Receiver<Request>,
}

impl Stage {
    fn new(settings: Settings) -> Self {
        Self::with_queue(settings, 64)
    }

    fn with_queue(settings: Settings, places: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let build = BuildInfo { version: "0.0.0-test", revision: "none" };
        let listeners = Listeners { http: Vec::new(), grpc: vec![listener] };
        let control = Control::start(listeners, build, settings).expect("a thread");
        let address = control.addresses()[0];
        let (queue, asked) = flume::bounded(places);
        let placement = Some(Placement::new(16, 1, [7; 16]));
        control.handle().attach(Shards {
            lines: vec![Line::new(queue.clone(), || ())],
            placement,
            ..Shards::default()
        });
        control.handle().enter(Phase::Serving);
        Self { control, address, queue, asked }
    }

    /// The next batch that the shard is given.
    async fn batch(&self) -> Batch {
        loop {
            let request = soon(self.asked.recv_async()).await.expect("the control plane asks");
            if let Request::Publish(batch) = request {
                return *batch;
            }
        }
    }

    /// From here on every batch is published at once.
    fn publish_all(&self) {
        let asked = self.asked.clone();
        std::thread::spawn(move || {
            for request in asked.iter() {
                if let Request::Publish(batch) = request {
                    answer(*batch);
                }
            }
        });
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens soon")
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

/// One connection, without what tonic's own channel does for its caller: no deadline here, no new connection.
#[derive(Clone)]
struct Connection(SendRequest<Body>);

async fn socket(address: SocketAddr) -> tokio::net::TcpStream {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket option"); // else each round trip waits for a delayed acknowledgement
    stream
}

impl Connection {
    /// One that takes no more than so many bytes of an answer before they are read.
    async fn with_window(address: SocketAddr, bytes: u32) -> Self {
        let stream = socket(address).await;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(bytes);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.expect("it speaks HTTP/2");
        tokio::spawn(driver);
        Self(sender)
    }

    async fn open(address: SocketAddr) -> Self {
        let stream = socket(address).await;
        let (sender, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("it speaks HTTP/2");
        tokio::spawn(driver);
        Self(sender)
    }
}

impl tower::Service<hyper::Request<Body>> for Connection {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

type Publisher = MessagesClient<Connection>;

async fn publisher(stage: &Stage) -> Publisher {
    let origin = hyper::Uri::from_static("http://localhost");
    MessagesClient::with_origin(Connection::open(stage.address).await, origin)
}

fn message(topic: &str) -> v1::Message {
    v1::Message { topic: topic.to_owned(), ..v1::Message::default() }
}

fn one() -> v1::PublishRequest {
    v1::PublishRequest { message: Some(message("t")) }
}

fn part(number: u64, messages: usize) -> v1::PublishStreamRequest {
    v1::PublishStreamRequest { number, messages: vec![message("t"); messages] }
}

fn answer(batch: Batch) {
    let published = Outcome::Published { id: Some(MessageId(7)), has_subscribers: true };
    let _nobody_waits = batch.answer.try_send(vec![published; batch.messages.len()]);
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason in {status:?}"));
    assert_eq!(info.domain, "postroad");
    (status.code(), info.reason)
}

fn assert_reason(status: &Status, code: Code, text: &str) {
    assert_eq!(reason(status), (code, text.to_owned()), "{status:?}");
}

/// What a shard says of a message is the end of the call, with the reason that HTTP has for it.
#[test]
fn outcomes_are_codes_with_reasons() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut publisher = publisher(&stage).await;
        let cases = [
            (Outcome::Refused(ReasonCode::NotAuthorized), Code::PermissionDenied, "not_authorized"),
            (Outcome::Refused(ReasonCode::QuotaExceeded), Code::ResourceExhausted, "quota_exceeded"),
            (Outcome::Refused(ReasonCode::TopicNameInvalid), Code::InvalidArgument, "topic_name_invalid"),
            (Outcome::Refused(ReasonCode::PacketTooLarge), Code::InvalidArgument, "packet_too_large"),
            (Outcome::Refused(ReasonCode::UnspecifiedError), Code::FailedPrecondition, "unspecified_error"),
            (Outcome::Busy, Code::ResourceExhausted, "busy"),
            (Outcome::NotServing, Code::Unavailable, "busy"),
            (Outcome::Unknown, Code::DeadlineExceeded, "unknown"),
        ];
        for (outcome, code, text) in cases {
            let (said, ()) = join(publisher.publish(one()), async {
                let batch = stage.batch().await;
                batch.answer.try_send(vec![outcome]).expect("somebody waits");
            })
            .await;
            assert_reason(&said.expect_err("it was not published"), code, text);
        }
        let (said, ()) = join(publisher.publish(one()), async { answer(stage.batch().await) }).await;
        let published = said.expect("published").into_inner().published.expect("an outcome");
        assert_eq!((published.id, published.has_subscribers), (MessageId(7).to_string(), true));
        for phase in [Phase::Starting, Phase::Draining] {
            stage.control.handle().enter(phase);
            let said = publisher.publish(one()).await.expect_err("it does not serve");
            assert_reason(&said, Code::Unavailable, "busy");
        }
        stage.control.stop();
    });
}

#[test]
fn a_full_shard_is_pressure() {
    run(async {
        let stage = Stage::with_queue(Settings::default(), 1);
        let mut publisher = publisher(&stage).await;
        let (pong, _nobody_reads) = flume::bounded(1);
        let _full_already = stage.queue.try_send(Request::Ping(pong));
        let said = publisher.publish(one()).await.expect_err("the shard takes no more");
        assert_reason(&said, Code::ResourceExhausted, "busy");
        stage.publish_all();
        soon(async { while publisher.publish(one()).await.is_err() {} }).await;
        stage.control.stop();
    });
}

/// The connection of this test knows of no deadline: it is the server that gives up.
#[test]
fn a_call_is_given_up_at_its_deadline() {
    run(async {
        let stage = Stage::new(Settings { publish_timeout: PATIENCE * 4, ..Settings::default() });
        let mut publisher = publisher(&stage).await;
        let mut request = tonic::Request::new(one());
        request.set_timeout(Duration::from_millis(500));
        let said = soon(publisher.publish(request)).await.expect_err("nobody answered");
        assert_eq!(said.code(), Code::DeadlineExceeded, "{said:?}");
        let late = stage.batch().await;
        assert!(late.answer.is_disconnected(), "the shard can see that nobody waits");

        let mut request = tonic::Request::new(stream::iter([part(1, 1)]).chain(stream::pending()));
        request.set_timeout(Duration::from_millis(500));
        let mut answers = soon(publisher.publish_stream(request)).await.expect("it is taken").into_inner();
        let held = stage.batch().await;
        let results = soon(answers.message()).await.expect("what was read is answered").expect("an answer").results;
        let Some(v1::publish_result::Outcome::Error(error)) = &results[0].outcome else { panic!("{results:?}") };
        assert_eq!((error.code, error.reason.as_str()), (Code::DeadlineExceeded as i32, "unknown"));
        let end = soon(answers.message()).await.expect_err("its time is over");
        assert_reason(&end, Code::DeadlineExceeded, "timeout");
        drop(held);

        let mut request = tonic::Request::new(one());
        request.metadata_mut().insert("grpc-timeout", "soon".parse().expect("text"));
        let said = publisher.publish(request).await.expect_err("that is no time");
        assert_reason(&said, Code::InvalidArgument, "bad_request");
        stage.control.stop();
    });
}

/// Calls that nobody waits for any more give their turns back once the shard is done with them, and not before.
#[test]
fn dropped_calls_give_their_turns_back() {
    run(async {
        let stage = Stage::new(Settings::default());
        let publisher = publisher(&stage).await;
        let call = || {
            let mut publisher = publisher.clone();
            tokio::spawn(async move { publisher.publish(one()).await })
        };
        let mut calls: Vec<_> = (0..8).map(|_| call()).collect();
        let mut held = Vec::new();
        for _ in 0..calls.len() {
            held.push(stage.batch().await);
        }
        calls.drain(..).for_each(|call| call.abort());
        soon(async {
            while !held.iter().all(|batch| batch.answer.is_disconnected()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let ninth = call();
        let mut admin = AdminClient::with_origin(
            Connection::open(stage.address).await,
            hyper::Uri::from_static("http://localhost"),
        );
        admin.get_status(v1::GetStatusRequest {}).await.expect("questions of another kind find room");
        assert!(stage.asked.is_empty(), "the shard has eight at most");
        drop(held.pop());
        answer(stage.batch().await);
        assert!(ninth.await.expect("no panic").is_ok());
        stage.control.stop();
    });
}

/// Several requests of a stream are with the shard at once; whatever it answers first, the caller hears them in order.
#[test]
fn a_stream_is_pipelined_and_answered_in_order() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut publisher = publisher(&stage).await;
        let (send, sent) = flume::unbounded();
        let mut answers = publisher.publish_stream(sent.into_stream()).await.expect("it is taken").into_inner();
        let mut held = Vec::new();
        for number in 1..=3 {
            send.send(part(number, 2)).expect("it is read");
            held.push(stage.batch().await); // before anything is answered
        }
        held.into_iter().rev().for_each(answer);
        for number in 1..=3 {
            let answer = soon(answers.message()).await.expect("no error").expect("an answer");
            assert_eq!((answer.number, answer.results.len()), (number, 2));
        }
        // One that can't be among others: it has an answer, the others are published.
        let messages = vec![message("t"), message("#"), v1::Message { qos: Some(3), ..message("t") }, message("t")];
        send.send(v1::PublishStreamRequest { number: 9, messages }).expect("it is read");
        let batch = stage.batch().await;
        assert_eq!(batch.messages.len(), 2);
        answer(batch);
        let results = soon(answers.message()).await.expect("no error").expect("an answer").results;
        let codes: Vec<Option<i32>> = results
            .iter()
            .map(|result| match &result.outcome {
                Some(v1::publish_result::Outcome::Error(error)) => Some(error.code),
                _ => None,
            })
            .collect();
        let wrong = Some(Code::InvalidArgument as i32);
        assert_eq!(codes, [None, wrong, wrong, None]);
        drop(send);
        assert!(soon(answers.message()).await.expect("a good end").is_none());
        stage.control.stop();
    });
}

/// `count` requests with many small messages: their answers are much larger than they are. Counts those that were taken.
fn crowd(count: u64, taken: &Arc<AtomicUsize>) -> impl Stream<Item = v1::PublishStreamRequest> + use<> {
    let taken = Arc::clone(taken);
    stream::iter(1..=count).map(move |number| {
        taken.fetch_add(1, Ordering::Relaxed);
        part(number, 1_000)
    })
}

/// Who does not read the answers is not read either, holds up nobody, and misses nothing when it reads at last.
#[test]
fn a_stream_whose_answers_are_not_read_is_not_read() {
    const COUNT: u64 = 400;
    run(async {
        let stage = Stage::new(Settings { request_timeout: PATIENCE * 4, ..Settings::default() });
        stage.publish_all();
        let mut publisher = publisher(&stage).await;
        let taken = Arc::new(AtomicUsize::new(0));
        let answers = publisher.publish_stream(crowd(COUNT, &taken)).await.expect("it is taken");
        let mut before = usize::MAX;
        // Others go on meanwhile: so many round trips without progress are no accident.
        while before != taken.load(Ordering::Relaxed) {
            before = taken.load(Ordering::Relaxed);
            for _ in 0..50 {
                soon(publisher.publish(one())).await.expect("others are served");
            }
        }
        assert!((1..200).contains(&before), "{before} requests of {COUNT} were taken, no answer was read");
        let mut answers = answers.into_inner();
        for number in 1..=COUNT {
            let answer = soon(answers.message()).await.expect("no error").expect("an answer");
            assert_eq!((answer.number, answer.results.len()), (number, 1_000));
        }
        assert!(soon(answers.message()).await.expect("a good end").is_none());
        stage.control.stop();
    });
}

/// A connection as old as it may be takes no more; what was read of its streams is answered, and they are told.
#[test]
fn an_old_connection_ends_its_streams_in_order() {
    run(async {
        let stage = Stage::new(Settings { connection_age_max: Duration::from_secs(1), ..Settings::default() });
        let connection = Connection::open(stage.address).await;
        let origin = || hyper::Uri::from_static("http://localhost");
        let mut publisher = MessagesClient::with_origin(connection.clone(), origin());
        let mut admin = AdminClient::with_origin(connection, origin());
        let requests = stream::iter([part(1, 1)]).chain(stream::pending());
        let mut answers = publisher.publish_stream(requests).await.expect("it is taken").into_inner();
        let held = stage.batch().await;
        soon(async { while admin.get_status(v1::GetStatusRequest {}).await.is_ok() {} }).await;
        answer(held);
        let last = soon(answers.message()).await.expect("what was read is answered").expect("an answer");
        assert!(matches!(last.results[0].outcome, Some(v1::publish_result::Outcome::Published(_))), "{last:?}");
        let end = soon(answers.message()).await.expect_err("told to go");
        assert_reason(&end, Code::Unavailable, "connection_age");
        stage.control.stop();
    });
}

/// A stream whose next request was always there never looked at its end, and was cut off instead of told.
#[test]
fn a_stream_that_is_never_idle_ends_in_order() {
    run(async {
        let stage = Stage::new(Settings { connection_age_max: Duration::from_millis(500), ..Settings::default() });
        stage.publish_all();
        for _ in 0..4 {
            let mut publisher = publisher(&stage).await;
            let requests = stream::iter(0..).map(|number| part(number, 50));
            let mut answers = publisher.publish_stream(requests).await.expect("it is taken").into_inner();
            let end = loop {
                match soon(answers.message()).await {
                    Ok(answer) => assert_eq!(answer.expect("the stream has no end").results.len(), 50),
                    Err(end) => break end,
                }
            };
            assert_reason(&end, Code::Unavailable, "connection_age");
        }
        stage.control.stop();
    });
}

/// The server stops: streams end, and those who watch its health hear of it.
#[test]
fn health_follows_the_phases_and_streams_end_with_them() {
    run(async {
        let stage = Stage::new(Settings::default());
        let origin = hyper::Uri::from_static("http://localhost");
        let mut health = HealthClient::with_origin(Connection::open(stage.address).await, origin);
        let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let mut watch = health.watch(asked("postroad.v1.Messages")).await.expect("known").into_inner();
        // The phase was entered a moment ago; health follows.
        while soon(watch.message()).await.expect("no error").expect("a status").status() != ServingStatus::Serving {}
        let mut publisher = publisher(&stage).await;
        let mut answers = publisher.publish_stream(stream::pending()).await.expect("it is taken").into_inner();
        stage.control.handle().enter(Phase::Draining);
        let next = soon(watch.message()).await.expect("no error").expect("a status");
        assert_eq!(next.status(), ServingStatus::NotServing);
        let overall = health.check(asked("")).await.expect("known").into_inner();
        assert_eq!(overall.status(), ServingStatus::NotServing);
        assert_eq!(health.check(asked("nothing")).await.expect_err("unknown").code(), Code::NotFound);
        let end = soon(answers.message()).await.expect_err("the server stops");
        assert_reason(&end, Code::Unavailable, "busy");
        stage.control.stop();
    });
}

/// What is too large is refused with a reason before it costs much, also when it is small on the wire.
#[test]
fn large_requests_are_refused() {
    run(async {
        let stage = Stage::new(Settings { body_bytes_max: 64 << 10, ..Settings::default() });
        stage.publish_all();
        let mut publisher = publisher(&stage).await;
        let payload = |bytes: usize| {
            let content = Some(v1::message::Content::Payload(vec![0; bytes]));
            v1::PublishRequest { message: Some(v1::Message { content, ..message("t") }) }
        };
        let large = publisher.publish(payload(70_000)).await.expect_err("above http.body_bytes_max");
        assert_reason(&large, Code::ResourceExhausted, "too_large");
        publisher.publish(payload(60_000)).await.expect("below it");
        let many = v1::PublishManyRequest { messages: vec![v1::Message::default(); 10_001], topics: Vec::new() };
        let said = publisher.publish_many(many).await.expect_err("too many");
        assert_reason(&said, Code::ResourceExhausted, "too_large");
        let content = Some(v1::message::Content::Payload(vec![0; 10_000]));
        let model = v1::Message { content, ..v1::Message::default() };
        let spread = v1::PublishManyRequest { messages: vec![model], topics: vec!["t".to_owned(); 100] };
        let said = publisher.publish_many(spread).await.expect_err("a million bytes of it");
        assert_reason(&said, Code::ResourceExhausted, "too_large");
        // In a stream it ends the stream; what was sent before it is answered.
        let requests = stream::iter([part(1, 1), part(2, 40_000)]).chain(stream::pending());
        let mut answers = publisher.publish_stream(requests).await.expect("it is taken").into_inner();
        assert_eq!(soon(answers.message()).await.expect("no error").expect("an answer").number, 1);
        let end = soon(answers.message()).await.expect_err("too large");
        assert_reason(&end, Code::ResourceExhausted, "too_large");
        stage.control.stop();
    });
}

/// Reads until the other side ends the connection.
fn until_closed(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it was not closed"),
    }
}

#[test]
fn what_is_no_grpc_is_closed_and_nobody_else_suffers() {
    let stage = Stage::new(Settings { request_timeout: Duration::from_secs(1), ..Settings::default() });
    stage.publish_all();
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut broken = [preface.as_bytes(), settings, &[0xFF; 64]].concat();
    for bytes in [
        vec![0xFF; 4_000],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client says hello".to_vec(),
        preface.as_bytes()[..10].to_vec(), // and then nothing
        Vec::new(),
        std::mem::take(&mut broken),
    ] {
        let mut stream = TcpStream::connect(stage.address).expect("it listens");
        let _closed_meanwhile = stream.write_all(&bytes);
        until_closed(stream);
    }
    run(async {
        let mut publisher = publisher(&stage).await;
        publisher.publish(one()).await.expect("others are served");
        let mut unknown = tonic::client::Grpc::with_origin(
            Connection::open(stage.address).await,
            hyper::Uri::from_static("http://localhost"),
        );
        unknown.ready().await.expect("it is open");
        let path = hyper::http::uri::PathAndQuery::from_static("/postroad.v1.Messages/Teleport");
        let codec = postroad_proto::codec::Codec::<v1::PublishRequest, v1::PublishResponse>::default();
        let said = unknown.unary(tonic::Request::new(one()), path, codec).await.expect_err("no such method");
        assert_reason(&said, Code::Unimplemented, "not_found");
    });
    stage.control.stop();
}

#[test]
fn connections_and_streams_are_limited() {
    run(async {
        let stage = Stage::new(Settings { connections_max: 1, ..Settings::default() });
        let mut publisher = publisher(&stage).await;
        let _open = publisher.publish_stream(stream::pending()).await.expect("one stream");
        let said = publisher.publish_stream(stream::pending()).await.expect_err("one stream at most");
        assert_reason(&said, Code::ResourceExhausted, "busy");
        let second = TcpStream::connect(stage.address).expect("it listens");
        tokio::task::spawn_blocking(move || until_closed(second)).await.expect("closed");
        stage.control.stop();
    });
}

fn moved(id: u128, user: Option<&str>, step: Step) -> Box<Moved> {
    let published = |user: &str| Published {
        by: Some("truck-7".into()),
        user: Some(user.into()),
        qos: Qos::AtLeastOnce,
        bytes: 5,
        original: None,
    };
    let step = user.map_or(step, |user| Step::Published(Box::new(published(user))));
    let topic = TopicName::new("t/1").expect("a topic");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let at = WallMillis(u64::try_from(now.as_millis()).expect("for some time to come"));
    let (receipt, to) = (Some(ReceiptLevel::Acknowledged), None);
    Box::new(Moved { id: MessageId(id), topic, at, shard: ShardId(0), to, receipt, is_kept: true, step })
}

/// Receipts are followed for as long as the call goes on, from a position on; the stream ends with its deadline, or with what
/// there is if that is asked for.
#[test]
fn receipts_are_followed() {
    run(async {
        let mut stage = Stage::new(Settings::default());
        stage.control.keep_history(None, 0).expect("a thread");
        let recorder = stage.control.recorder();
        for (id, user) in [(1, "billing"), (2, "orders")] {
            recorder.tell(moved(id, Some(user), Step::Queued));
            recorder.tell(moved(id, None, Step::Stored { matched: true }));
        }
        let origin = hyper::Uri::from_static("http://localhost");
        let mut client = ReceiptsClient::with_origin(Connection::open(stage.address).await, origin);
        let once = v1::FollowReceiptsRequest { once: true, ..Default::default() };
        let all: Vec<_> = client.follow(once.clone()).await.expect("a stream").into_inner().collect().await;
        let all: Vec<v1::Receipt> = all.into_iter().map(|receipt| receipt.expect("no error")).collect();
        assert_eq!(all.iter().map(|receipt| receipt.user.as_str()).collect::<Vec<_>>(), ["billing", "orders"]);
        assert_eq!((all[0].level(), all[0].topic.as_str()), (v1::wishes::Receipt::Stored, "t/1"));
        let one = v1::FollowReceiptsRequest { message_id: MessageId(2).to_string(), ..once.clone() };
        assert_eq!(client.follow(one).await.expect("a stream").into_inner().count().await, 1);
        let wrong = v1::FollowReceiptsRequest { message_id: "2".into(), ..once };
        assert_reason(&client.follow(wrong).await.expect_err("no id"), Code::InvalidArgument, "bad_request");

        let behind = v1::FollowReceiptsRequest { after: Some(all[0].position), ..Default::default() };
        let mut stream = client.follow(behind).await.expect("a stream").into_inner();
        assert_eq!(soon(stream.message()).await.expect("no error").expect("a receipt").user, "orders");
        recorder.tell(moved(1, None, Step::Acknowledged { attempts: 3 }));
        let next = soon(stream.message()).await.expect("no error").expect("a receipt");
        assert_eq!((next.user.as_str(), next.attempts), ("billing", 3));
        stage.control.handle().enter(Phase::Draining);
        assert_reason(&soon(stream.message()).await.expect_err("the server stops"), Code::Unavailable, "busy");
    });
}
/// Answers each look for clients with one whose name is so long; counts the looks.
fn answer_clients(stage: &Stage, bytes: usize) -> Arc<AtomicUsize> {
    let (asked, looks) = (stage.asked.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&looks);
    std::thread::spawn(move || {
        for request in asked.iter() {
            let Request::Clients(query) = request else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            let client = ClientReport {
                client: "c".repeat(bytes),
                user: None,
                groups: Vec::new(),
                connected: false,
                address: None,
                backlog: 0,
                session: None,
                registration: None,
                delivery: None,
                road: None,
            };
            let _nobody_waits = query.answer.try_send(ClientsPage { clients: vec![client], next: None });
        }
    });
    looks
}

/// Asks for all clients, and reads no more of the answer than its head.
async fn list_unread(deaf: &Connection) -> Incoming {
    let call = hyper::Request::post("http://localhost/postroad.v1.Clients/List")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(http_body_util::Full::new(Bytes::from_static(&[0; 5]))))
        .expect("a request");
    soon(deaf.clone().0.send_request(call)).await.expect("it is answered").into_body()
}

/// An answer that nobody read was held in memory after its call had given its place to the next one: the more calls, the more
/// of them.
#[test]
fn an_answer_that_is_not_read_keeps_its_place() {
    run(async {
        let settings = Settings { connections_max: 2, request_timeout: PATIENCE * 4, ..Settings::default() };
        let stage = Stage::new(settings);
        let asked = answer_clients(&stage, 3 << 20);
        let origin = || hyper::Uri::from_static("http://localhost");
        let deaf = Connection::with_window(stage.address, 1 << 10).await;
        let unread = [list_unread(&deaf).await, list_unread(&deaf).await];
        let other = Connection::open(stage.address).await;
        let mut admin = AdminClient::with_origin(other.clone(), origin());
        let mut clients = ClientsClient::with_origin(other, origin()).max_decoding_message_size(8 << 20);
        let third = tokio::spawn(async move { clients.list(v1::ListClientsRequest::default()).await });
        for _ in 0..50 {
            admin.get_status(v1::GetStatusRequest {}).await.expect("what needs no place is served");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "there are two places");
        for body in unread {
            let bytes = soon(body.collect()).await.expect("it is whole").to_bytes();
            assert!(bytes.len() > 3 << 20);
        }
        let read = soon(third).await.expect("no panic").expect("there is a place now").into_inner();
        assert_eq!(read.clients[0].client.len(), 3 << 20);
        stage.control.stop();
    });
}

/// Whoever reads nothing of what it has asked for is cut off; until then its connection is as good as any.
#[test]
fn who_does_not_read_its_answer_is_cut_off() {
    run(async {
        let stage = Stage::new(Settings { request_timeout: Duration::from_secs(1), ..Settings::default() });
        answer_clients(&stage, 3 << 20);
        let deaf = Connection::with_window(stage.address, 1 << 10).await;
        let unread = list_unread(&deaf).await;
        let idle = Connection::open(stage.address).await;
        soon(async {
            while !deaf.0.is_closed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert!(soon(unread.collect()).await.is_err(), "it was cut off in the middle");
        assert!(!idle.0.is_closed(), "who is owed nothing is not");
        stage.control.stop();
    });
}

/// The reader of a stream that was reset stood in line for a turn until `publish_timeout`, and took it from those who wait.
#[test]
fn a_stream_that_is_reset_takes_no_turn() {
    run(async {
        let stage = Stage::new(Settings { publish_timeout: PATIENCE * 4, ..Settings::default() });
        let publisher = publisher(&stage).await;
        let call = |topic: &'static str| {
            let mut publisher = publisher.clone();
            tokio::spawn(async move { publisher.publish(v1::PublishRequest { message: Some(message(topic)) }).await })
        };
        let calls: Vec<_> = (0..8).map(|_| call("first")).collect();
        let mut held = Vec::new();
        for _ in 0..calls.len() {
            held.push(stage.batch().await);
        }
        let mut streaming = publisher.clone();
        let (send, sent) = flume::bounded(1);
        let answers = streaming.publish_stream(sent.into_stream()).await.expect("it is taken");
        send.send(part(1, 1)).expect("it is read");
        let mut admin = AdminClient::with_origin(
            Connection::open(stage.address).await,
            hyper::Uri::from_static("http://localhost"),
        );
        for _ in 0..50 {
            admin.get_status(v1::GetStatusRequest {}).await.expect("served");
        }
        drop((answers, send)); // with both halves gone the stream is reset
        for _ in 0..50 {
            admin.get_status(v1::GetStatusRequest {}).await.expect("served");
        }
        let later = call("later");
        answer(held.pop().expect("eight"));
        let next = stage.batch().await;
        assert_eq!(next.messages[0].topic.as_str(), "later", "the turn of a stream that nobody hears");
        answer(next);
        assert!(later.await.expect("no panic").is_ok());
        held.into_iter().for_each(answer);
        stage.control.stop();
    });
}

/// A stream whose answers nobody reads has an end like any other: it is told when it is read again.
#[test]
fn a_stream_that_is_not_read_hears_its_end() {
    run(async {
        let settings = Settings { connection_age_max: Duration::from_secs(1), ..Settings::default() };
        let stage = Stage::new(Settings { request_timeout: PATIENCE * 4, publish_timeout: PATIENCE * 4, ..settings });
        stage.publish_all();
        let connection = Connection::open(stage.address).await;
        let origin = || hyper::Uri::from_static("http://localhost");
        let mut publisher = MessagesClient::with_origin(connection.clone(), origin());
        let mut admin = AdminClient::with_origin(connection, origin());
        let taken = Arc::new(AtomicUsize::new(0));
        let answers = publisher.publish_stream(crowd(100_000, &taken)).await.expect("it is taken");
        soon(async { while admin.get_status(v1::GetStatusRequest {}).await.is_ok() {} }).await;
        let mut answers = answers.into_inner();
        let end = loop {
            match soon(answers.message()).await {
                Ok(answer) => assert!(answer.is_some(), "the stream has no end of its own"),
                Err(end) => break end,
            }
        };
        assert_reason(&end, Code::Unavailable, "connection_age");
        stage.control.stop();
    });
}

/// Health did not know a service that had been there for weeks, and the documents did not say who may call it.
#[test]
fn every_service_is_known_to_health_and_to_the_documents() {
    run(async {
        let stage = Stage::new(Settings::default());
        let origin = hyper::Uri::from_static("http://localhost");
        let connection = Connection::open(stage.address).await;
        let mut reflection = ServerReflectionClient::with_origin(connection.clone(), origin.clone());
        let list = MessageRequest::ListServices(String::new());
        let asked = ServerReflectionRequest { message_request: Some(list), ..ServerReflectionRequest::default() };
        let mut told =
            reflection.server_reflection_info(stream::iter([asked])).await.expect("it is taken").into_inner();
        let answer = soon(told.message()).await.expect("no error").expect("an answer").message_response;
        let Some(MessageResponse::ListServicesResponse(listed)) = answer else { panic!("no list: {answer:?}") };
        let names: Vec<&str> =
            listed.service.iter().map(|service| &*service.name).filter(|name| name.starts_with("postroad.")).collect();
        assert!(names.len() >= 9, "{names:?}");

        let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grpc-api.md");
        let guide = std::fs::read_to_string(guide).expect("the guide is there");
        let (_, callers) = guide.split_once("## Who may call").expect("it says who may call");
        let (callers, _) = callers.split_once("\n## ").expect("it goes on");
        let mut unknown = tonic::client::Grpc::with_origin(connection.clone(), origin.clone());
        unknown.ready().await.expect("it is open");
        let path = hyper::http::uri::PathAndQuery::from_static("/postroad.v1.Nothing/At");
        let codec = postroad_proto::codec::Codec::<v1::PublishRequest, v1::PublishResponse>::default();
        let said = unknown.unary(tonic::Request::new(one()), path, codec).await.expect_err("no such service");
        let mut health = HealthClient::with_origin(connection, origin);
        for name in names {
            let health = health.check(HealthCheckRequest { service: name.to_owned() }).await;
            assert!(health.is_ok(), "health does not know {name}");
            let short = name.rsplit('.').next().expect("a name");
            assert!(callers.contains(&format!("`{short}`")), "who may call {name}?");
            assert!(said.message().contains(short), "who looks for another one hears nothing of {name}: {said:?}");
        }
        stage.control.stop();
    });
}

/// Streams of the standard services ended without a status when their connection did: their callers saw a broken connection.
#[test]
fn streams_of_the_standard_services_end_with_a_status() {
    run(async {
        let stage = Stage::new(Settings { connection_age_max: Duration::from_secs(1), ..Settings::default() });
        let origin = hyper::Uri::from_static("http://localhost");
        let connection = Connection::open(stage.address).await;
        let mut health = HealthClient::with_origin(connection.clone(), origin.clone());
        let asked = || HealthCheckRequest { service: String::new() };
        let mut watch = health.watch(asked()).await.expect("known").into_inner();
        let mut reflection = ServerReflectionClient::with_origin(connection, origin.clone());
        let mut reflected =
            reflection.server_reflection_info(stream::pending()).await.expect("it is taken").into_inner();
        let end = loop {
            match soon(watch.message()).await {
                Ok(status) => assert!(status.is_some(), "it has no end of its own"),
                Err(end) => break end,
            }
        };
        assert_reason(&end, Code::Unavailable, "connection_age");
        let end = soon(reflected.message()).await.expect_err("it ends, too");
        assert_reason(&end, Code::Unavailable, "connection_age");
        let mut health = HealthClient::with_origin(Connection::open(stage.address).await, origin);
        let mut request = tonic::Request::new(asked());
        request.set_timeout(Duration::from_millis(200));
        let mut watch = health.watch(request).await.expect("known").into_inner();
        soon(watch.message()).await.expect("no error").expect("a status");
        assert_reason(&soon(watch.message()).await.expect_err("its time is over"), Code::DeadlineExceeded, "timeout");
        stage.control.stop();
    });
}

#[test]
fn what_is_refused_of_a_stream_has_a_reason() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut publisher = publisher(&stage).await;
        let mut request = tonic::Request::new(stream::pending());
        request.metadata_mut().insert("grpc-encoding", "gzip".parse().expect("text"));
        let said = publisher.publish_stream(request).await.expect_err("nothing is unfolded here");
        assert_reason(&said, Code::Unimplemented, "not_found");
        stage.control.stop();
    });
}

/// Whoever broke its connection kept a place among the connections for `http.request_timeout`, until it had closed its side.
#[test]
fn a_broken_connection_gives_its_place_back_at_once() {
    let stage = Stage::new(Settings { connections_max: 1, request_timeout: PATIENCE * 4, ..Settings::default() });
    let mut broken = TcpStream::connect(stage.address).expect("it listens");
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings, &[0xFF; 64]].concat();
    broken.write_all(&bytes).expect("it is taken");
    run(async {
        let origin = || hyper::Uri::from_static("http://localhost");
        soon(async {
            loop {
                let Ok(stream) = tokio::net::TcpStream::connect(stage.address).await else { continue };
                let Ok((sender, driver)) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await else {
                    continue;
                };
                tokio::spawn(driver);
                let mut admin = AdminClient::with_origin(Connection(sender), origin());
                if admin.get_status(v1::GetStatusRequest {}).await.is_ok() {
                    break;
                }
            }
        })
        .await;
    });
    drop(broken);
    stage.control.stop();
}

// ---- consumer groups ----

type GroupConsumer = ConsumerClient<Connection>;

/// A stream, and what is said on it.
struct Consuming {
    says: tokio::sync::mpsc::UnboundedSender<v1::ConsumeRequest>,
    answers: tonic::Streaming<v1::ConsumeResponse>,
}

impl Consuming {
    async fn begin(stage: &Stage, begin: v1::Begin) -> Self {
        Self::begin_on(Connection::open(stage.address).await, begin).await
    }

    async fn begin_on(connection: Connection, begin: v1::Begin) -> Self {
        let origin = hyper::Uri::from_static("http://localhost");
        let mut client = GroupConsumer::with_origin(connection, origin);
        let (says, mut said) = tokio::sync::mpsc::unbounded_channel();
        let requests = stream::poll_fn(move |context| said.poll_recv(context));
        let consuming = |answers: tonic::Response<_>| Self { says, answers: answers.into_inner() };
        let answered = soon(client.consume(requests)).await.map(consuming).expect("it begins");
        answered.say(0, v1::consume_request::Request::Begin(begin));
        answered
    }

    fn say(&self, number: u64, request: v1::consume_request::Request) {
        self.says.send(v1::ConsumeRequest { number, request: Some(request) }).expect("it is open");
    }

    fn acknowledge(&self, number: u64, deliveries: &[&str]) {
        let deliveries = deliveries.iter().map(ToString::to_string).collect();
        let said = v1::Acknowledge { group: String::new(), deliveries };
        self.say(number, v1::consume_request::Request::Acknowledge(said));
    }

    async fn next(&mut self) -> v1::consume_response::Response {
        let answer = soon(self.answers.message()).await.expect("no error").expect("no end");
        answer.response.expect("an answer says something")
    }

    async fn deliveries(&mut self) -> Vec<String> {
        match self.next().await {
            v1::consume_response::Response::Deliveries(all) => {
                all.deliveries.into_iter().map(|delivery| delivery.delivery).collect()
            }
            other => panic!("no deliveries: {other:?}"),
        }
    }

    async fn answered(&mut self) -> v1::Answered {
        match self.next().await {
            v1::consume_response::Response::Answered(answered) => answered,
            other => panic!("no answer: {other:?}"),
        }
    }
}

fn begin(prefetch: u32, lease_seconds: u64) -> v1::Begin {
    v1::Begin { group: "work".into(), prefetch, lease_seconds: Some(lease_seconds) }
}

/// The next order that the shard is given for a group.
async fn filters_query(stage: &Stage) -> FiltersQuery {
    loop {
        if let Request::Filters(query) = soon(stage.asked.recv_async()).await.expect("the control plane asks") {
            return *query;
        }
    }
}

/// What a look found is told, with where the next one goes on.
fn tell_filters(query: &FiltersQuery, found: &[(&str, FilterCount)], next: Option<(u32, Option<TopicFilter>)>) {
    let mut filters = FilterCounts::default();
    for (filter, count) in found {
        filters.add(&TopicFilter::new(*filter).expect("a filter"), *count, query.limit);
    }
    query.answer.send(FiltersPage { filters, next }).expect("somebody waits");
}

#[test]
fn filters_are_listed_page_by_page() {
    run(async {
        let stage = Stage::new(Settings::default());
        let origin = hyper::Uri::from_static("http://localhost");
        let mut topics = TopicsClient::with_origin(Connection::open(stage.address).await, origin);
        let asked = v1::ListFiltersRequest { prefix: Some("a".into()), page_size: 1, ..Default::default() };
        let (of_client, of_group) = (FilterCount::of_one(false), FilterCount::of_one(true));

        let looks = async {
            let first = filters_query(&stage).await;
            assert_eq!((first.from.clone(), first.wanted.prefix.as_deref()), ((0, None), Some("a")));
            tell_filters(&first, &[("a/1", of_client), ("a/2", of_client)], Some((3, None)));
            let second = filters_query(&stage).await;
            assert_eq!(second.from, (3, None), "it goes on in the same shard");
            tell_filters(&second, &[("a/1", of_group), ("a/2", of_client)], None);
        };
        let (page, ()) = join(topics.list_filters(asked.clone()), looks).await;
        let page = page.expect("no error").into_inner();
        let of_first = v1::Filter { filter: "a/1".into(), subscribers: 1, groups: 1 };
        assert_eq!(page.filters, [of_first]);

        let asked = v1::ListFiltersRequest { page_token: page.next_page_token, ..asked };
        let looks = async {
            let query = filters_query(&stage).await;
            assert_eq!(query.wanted.after.as_ref().map(TopicFilter::as_str), Some("a/1"));
            tell_filters(&query, &[("a/2", of_client)], None);
        };
        let (page, ()) = join(topics.list_filters(asked.clone()), looks).await;
        let page = page.expect("no error").into_inner();
        assert_eq!(page.filters, [v1::Filter { filter: "a/2".into(), subscribers: 1, groups: 0 }]);
        assert_eq!(page.next_page_token, "", "that was all");

        let wrong = v1::ListFiltersRequest { page_token: "?".into(), ..asked.clone() };
        let said = topics.list_filters(wrong).await.expect_err("no page gave that");
        assert_reason(&said, Code::InvalidArgument, "bad_request");
        let wrong = v1::ListFiltersRequest { topic: Some("a/#".into()), ..asked };
        let said = topics.list_filters(wrong).await.expect_err("no topic");
        assert_reason(&said, Code::InvalidArgument, "bad_request");
        stage.control.stop();
    });
}

async fn order(stage: &Stage) -> GroupQuestion {
    loop {
        if let Request::Group(question) = soon(stage.asked.recv_async()).await.expect("the control plane asks") {
            return *question;
        }
    }
}

/// The next word that a caller is gone.
async fn left(stage: &Stage) -> GroupLeft {
    loop {
        if let Request::GroupLeft(left) = soon(stage.asked.recv_async()).await.expect("the control plane asks") {
            return *left;
        }
    }
}

/// The next one that is no take, with what it says of which deliveries. Takes wait on, among `waiting`: one that nobody has any more
/// ends its stream.
async fn said(stage: &Stage, waiting: &mut Vec<GroupQuestion>) -> (GroupQuestion, Vec<String>, Verdict) {
    loop {
        let question = order(stage).await;
        if let GroupOrder::Answer { deliveries, verdict } = question.order.clone() {
            return (question, deliveries.iter().map(ToString::to_string).collect(), verdict);
        }
        waiting.push(question);
    }
}

fn leased(numbers: std::ops::Range<u64>) -> GroupResult {
    leased_with(numbers, b"x")
}

fn leased_with(numbers: std::ops::Range<u64>, payload: &[u8]) -> GroupResult {
    let message = Message {
        id: MessageId(1),
        topic: TopicName::new("work/1").expect("a topic"),
        payload: Bytes::copy_from_slice(payload),
        properties: Default::default(),
        qos: postroad_base::Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    };
    let message = Arc::new(message);
    let report = |number| {
        let id = DeliveryId { queue: QueueId(0), sequence: Sequence(number), start: 9, attempt: 1 };
        let leased = Leased { id, message: Arc::clone(&message), may_repeat: false };
        LeasedReport { leased, properties: Arc::default() }
    };
    GroupResult::Taken(numbers.map(report).collect())
}

fn give(question: &GroupQuestion, result: GroupResult) {
    question.answer.try_send(result).expect("somebody waits");
}

/// What comes while an acknowledgement is being stored waits, and goes to the shard together if it has come by then; each request has
/// its own answer, in order.
#[test]
fn acknowledgements_that_wait_are_answered_one_by_one() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut waiting = Vec::new();
        let mut consuming = Consuming::begin(&stage, begin(4, 30)).await;
        let take = order(&stage).await;
        let GroupOrder::Take(wanted) = &take.order else { panic!("no take: {take:?}") };
        assert_eq!((wanted.limit, wanted.lease_ms), (4, 30_000));
        give(&take, leased(1..5));
        assert_eq!(consuming.deliveries().await, ["0-0-1-9-1", "0-0-2-9-1", "0-0-3-9-1", "0-0-4-9-1"]);
        consuming.acknowledge(1, &["0-0-1-9-1"]);
        let (first, deliveries, _) = said(&stage, &mut waiting).await;
        assert_eq!(deliveries, ["0-0-1-9-1"]);
        consuming.acknowledge(2, &["0-0-2-9-1", "0-0-3-9-1"]);
        consuming.acknowledge(3, &["0-0-4-9-1"]);
        give(&first, GroupResult::Other(GroupAnswer::Answered(vec![true])));
        assert_eq!(consuming.answered().await, v1::Answered { number: 1, done: 1, gone: Vec::new() });
        let (second, mut deliveries, verdict) = said(&stage, &mut waiting).await;
        assert_eq!(verdict, Verdict::Acknowledge);
        if deliveries.len() == 3 {
            give(&second, GroupResult::Other(GroupAnswer::Answered(vec![true, false, true])));
        } else {
            // The network has kept them apart.
            give(&second, GroupResult::Other(GroupAnswer::Answered(vec![true, false])));
            let (third, more, _) = said(&stage, &mut waiting).await;
            deliveries.extend(more);
            give(&third, GroupResult::Other(GroupAnswer::Answered(vec![true])));
        }
        assert_eq!(deliveries, ["0-0-2-9-1", "0-0-3-9-1", "0-0-4-9-1"]);
        assert_eq!(consuming.answered().await, v1::Answered { number: 2, done: 1, gone: vec!["0-0-3-9-1".into()] });
        assert_eq!(consuming.answered().await, v1::Answered { number: 3, done: 1, gone: Vec::new() });
        stage.control.stop();
    });
}

/// The answers of one order were told apart by name: a delivery in two requests was gone in the first one, which had ended it.
#[test]
fn a_delivery_in_two_requests_is_gone_in_the_second() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut waiting = Vec::new();
        let mut consuming = Consuming::begin(&stage, begin(4, 30)).await;
        give(&order(&stage).await, leased(1..3));
        assert_eq!(consuming.deliveries().await.len(), 2);
        // While this one is stored the two behind it come, and go together.
        consuming.acknowledge(1, &["0-0-2-9-1"]);
        let (first, ..) = said(&stage, &mut waiting).await;
        consuming.acknowledge(2, &["0-0-1-9-1"]);
        consuming.acknowledge(3, &["0-0-1-9-1"]);
        give(&first, GroupResult::Other(GroupAnswer::Answered(vec![true])));
        assert_eq!(consuming.answered().await.done, 1);
        let (second, deliveries, _) = said(&stage, &mut waiting).await;
        let is_together = deliveries.len() == 2; // unless the network has kept them apart
        let done = if is_together { vec![true, false] } else { vec![true] };
        give(&second, GroupResult::Other(GroupAnswer::Answered(done)));
        if !is_together {
            let (third, ..) = said(&stage, &mut waiting).await;
            give(&third, GroupResult::Other(GroupAnswer::Answered(vec![false])));
        }
        assert_eq!(consuming.answered().await, v1::Answered { number: 2, done: 1, gone: Vec::new() });
        assert_eq!(consuming.answered().await, v1::Answered { number: 3, done: 0, gone: vec!["0-0-1-9-1".into()] });
        stage.control.stop();
    });
}

/// What its consumer has, and has not said anything of, is given back when the stream breaks; a take that is under way finds
/// nobody.
#[test]
fn a_stream_that_breaks_gives_back() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut waiting = Vec::new();
        let mut consuming = Consuming::begin(&stage, begin(3, 30)).await;
        give(&order(&stage).await, leased(1..3));
        assert_eq!(consuming.deliveries().await.len(), 2);
        let under_way = order(&stage).await;
        consuming.acknowledge(1, &["0-0-1-9-1"]);
        let (question, ..) = said(&stage, &mut waiting).await;
        give(&question, GroupResult::Other(GroupAnswer::Answered(vec![true])));
        assert_eq!(consuming.answered().await.done, 1);
        drop(consuming);
        let (_, deliveries, verdict) = said(&stage, &mut waiting).await;
        assert_eq!((&deliveries[..], verdict), (&["0-0-2-9-1".to_owned()][..], Verdict::GiveBack));
        drop(left(&stage).await);
        assert!(under_way.answer.is_disconnected(), "nobody reads an answer that comes now");
        stage.control.stop();
    });
}

/// A caller that has gone hands the place of its answer to the shard, so that an answer which has come at the same time is not lost;
/// who has its answer hands over nothing.
#[test]
fn a_take_whose_caller_is_gone_is_withdrawn() {
    run(async {
        let stage = Stage::new(Settings::default());
        let consuming = Consuming::begin(&stage, begin(1, 30)).await;
        let take = order(&stage).await;
        drop(consuming);
        let left = left(&stage).await;
        assert_eq!((&*left.name, &left.caller.name), ("work", &take.caller.name));
        give(&take, leased(1..2));
        assert_eq!(left.unread.try_recv(), Ok(leased(1..2)));
        let mut consuming = Consuming::begin(&stage, begin(1, 30)).await;
        give(&order(&stage).await, leased(1..2));
        assert_eq!(consuming.deliveries().await, ["0-0-1-9-1"]);
        drop(consuming);
        let next = soon(stage.asked.recv_async()).await.expect("the control plane asks");
        assert!(matches!(next, Request::Group(question) if matches!(question.order, GroupOrder::Answer { .. })));
        stage.control.stop();
    });
}

/// The line to a shard may be full when consumers go: what they had was leased to nobody then, for up to a day.
#[test]
fn streams_that_break_give_back_when_the_shard_has_no_room() {
    run(async {
        let stage = Stage::with_queue(Settings { connections_max: 2, ..Settings::default() }, 1);
        let mut all = Vec::new();
        for number in 1..=2 {
            let mut consuming = Consuming::begin(&stage, begin(1, 3_600)).await;
            give(&order(&stage).await, leased(number..number + 1));
            assert_eq!(consuming.deliveries().await.len(), 1);
            all.push(consuming);
        }
        stage.queue.try_send(Request::Ping(flume::bounded(1).0)).expect("it was empty");
        drop(all);
        // Who has their places knows that they are gone.
        let mut places = Vec::new();
        soon(async {
            while places.len() < 2 {
                let mut publisher = publisher(&stage).await;
                places.extend(publisher.publish_stream(stream::pending()).await);
            }
        })
        .await;
        let mut waiting = Vec::new();
        let mut given_back = Vec::new();
        for _ in 0..2 {
            let (_, deliveries, verdict) = said(&stage, &mut waiting).await;
            assert_eq!(verdict, Verdict::GiveBack);
            given_back.extend(deliveries);
        }
        given_back.sort();
        assert_eq!(given_back, ["0-0-1-9-1", "0-0-2-9-1"]);
        stage.control.stop();
    });
}

/// A take waits for as long as its caller says, whatever a request may take otherwise.
#[test]
fn a_take_has_a_deadline_of_its_own() {
    run(async {
        let millis = Duration::from_millis;
        let settings = Settings { request_timeout: millis(100), publish_timeout: millis(50), ..Settings::default() };
        let stage = Stage::new(settings);
        let origin = hyper::Uri::from_static("http://localhost");
        let connection = Connection::open(stage.address).await;
        let mut client = GroupConsumer::with_origin(connection.clone(), origin);
        let asked = v1::TakeRequest { group: "work".into(), wait_seconds: 60, ..v1::TakeRequest::default() };
        let taken = tokio::spawn(async move { client.take(asked).await });
        let take = order(&stage).await;
        let GroupOrder::Take(wanted) = &take.order else { panic!("no take: {take:?}") };
        assert_eq!(wanted.wait_ms, 60_000);
        // A call that begins later, and whose request does not come, is over first.
        let never = http_body_util::StreamBody::new(stream::pending::<Result<hyper::body::Frame<Bytes>, Status>>());
        let call = hyper::Request::post("http://localhost/postroad.v1.Consumer/Acknowledge")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(never))
            .expect("a request");
        let over = soon(connection.clone().0.send_request(call)).await.expect("it is answered");
        assert_reason(&Status::from_header_map(over.headers()).expect("a status"), Code::DeadlineExceeded, "timeout");
        assert!(stage.asked.is_empty() && !take.answer.is_disconnected(), "the take has left");
        give(&take, leased(1..2));
        let taken = taken.await.expect("no panic").expect("deliveries").into_inner();
        assert_eq!(taken.deliveries[0].delivery, "0-0-1-9-1");
        stage.control.stop();
    });
}

/// Consumers that waited had every place of the calls for up to a minute each: nobody could publish, or acknowledge what one of
/// them had been given.
#[test]
fn takes_that_wait_leave_room_for_others() {
    run(async {
        let stage = Stage::new(Settings { connections_max: 4, ..Settings::default() });
        let origin = hyper::Uri::from_static("http://localhost");
        let client = GroupConsumer::with_origin(Connection::open(stage.address).await, origin);
        let asked = v1::TakeRequest { group: "work".into(), wait_seconds: 60, ..v1::TakeRequest::default() };
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let (mut client, asked) = (client.clone(), asked.clone());
            tokio::spawn(async move { client.take(asked).await });
            waiting.push(order(&stage).await);
        }
        let one_more = client.clone().take(asked.clone()).await.expect_err("four wait");
        assert_reason(&one_more, Code::ResourceExhausted, "busy");
        let said = v1::Acknowledge { group: "work".into(), deliveries: vec!["0-0-1-9-1".into()] };
        let mut other = client.clone();
        let acknowledged = tokio::spawn(async move { other.acknowledge(said).await });
        give(&order(&stage).await, GroupResult::Other(GroupAnswer::Answered(vec![true])));
        assert_eq!(acknowledged.await.expect("no panic").expect("answered").into_inner().done, 1);
        stage.control.stop();
    });
}

/// Leases counted from when their reader had room for them: a slow one had fewer than it wanted, by as many as were over.
#[test]
fn leases_pass_while_their_reader_is_slow() {
    run(async {
        let stage = Stage::new(Settings { request_timeout: PATIENCE * 4, ..Settings::default() });
        let slow = Connection::with_window(stage.address, 1 << 10).await;
        let mut slow = Consuming::begin_on(slow, begin(4, 1)).await;
        // One is on its way, two wait behind it, and the fourth has no room.
        for number in 1..=4 {
            let take = order(&stage).await;
            give(&take, leased_with(number..number + 1, &[0; 1 << 20]));
        }
        // A lease that began later is over.
        let mut other = Consuming::begin(&stage, begin(1, 1)).await;
        give(&order(&stage).await, leased(5..6));
        assert_eq!(other.deliveries().await, ["0-0-5-9-1"]);
        let _takes_again = order(&stage).await;
        for number in 1..=4 {
            assert_eq!(slow.deliveries().await, [format!("0-0-{number}-9-1")]);
        }
        let take = order(&stage).await;
        let GroupOrder::Take(wanted) = &take.order else { panic!("no take: {take:?}") };
        assert_eq!(wanted.limit, 4, "all four are over");
        stage.control.stop();
    });
}

/// A consumer that never answers is not stuck with what is not its own any more.
#[test]
fn a_lease_that_is_over_takes_no_credit() {
    run(async {
        let stage = Stage::new(Settings::default());
        let mut consuming = Consuming::begin(&stage, begin(1, 1)).await;
        give(&order(&stage).await, leased(1..2));
        assert_eq!(consuming.deliveries().await, ["0-0-1-9-1"]);
        let next = order(&stage).await;
        assert!(matches!(next.order, GroupOrder::Take(_)), "{next:?}");
        give(&next, leased(2..3));
        assert_eq!(consuming.deliveries().await, ["0-0-2-9-1"]);
        stage.control.stop();
    });
}

//! gRPC: its limits, and who may call what.
//!
//! ```text
//! connection ─ preface in time ─► HTTP/2 ─ call: right, deadline, a place ─► tonic ─► messages, consumer, letters, … ─► api
//!                                                                              └────► health, reflection
//! ```
//!
//! Limits: connections, calls of a connection at once; calls at once of all, each with one request in hand or one answer that is
//! not read, and besides as many that wait for something to come; bytes of a head and of a request; time for a connection's beginning, for a call, for an answer to be read and for a
//! connection. A caller is known, and a call has its place, before a byte of its request is read.

mod admin;
mod clients;
mod consumer;
mod deadline;
mod ending;
mod groups;
mod lent;
mod letters;
mod messages;
mod receipts;
mod scheduled;
mod status;
mod topics;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use postroad_proto::v1::admin_server::AdminServer;
use postroad_proto::v1::clients_server::ClientsServer;
use postroad_proto::v1::consumer_server::ConsumerServer;
use postroad_proto::v1::dead_letters_server::DeadLettersServer;
use postroad_proto::v1::groups_server::GroupsServer;
use postroad_proto::v1::messages_server::MessagesServer;
use postroad_proto::v1::receipts_server::ReceiptsServer;
use postroad_proto::v1::scheduled_server::ScheduledServer;
use postroad_proto::v1::topics_server::TopicsServer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tonic::Status;
use tonic::server::NamedService;
use tower::ServiceExt;

use crate::groups::WAIT_SECONDS_MAX;
use crate::listener::{Ended, Figures, Protocol, serve_to_its_end};
use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::server::Settings;
use crate::shared::{Closing, Peer, Server};
use crate::tokens::Right;
use crate::unread::Unread;
use lent::Lent;

/// What every connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Calls that one connection may have at once.
const CALLS_PER_CONNECTION_MAX: u32 = 100;
/// What may come of one call, and of all calls of a connection, before anybody has read it. The second is larger, so that one
/// call that is not read does not stop the others.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What of one call's answer may wait for its reader.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a request to health and reflection: these are for everybody.
const SMALL_REQUEST_BYTES_MAX: usize = 4 << 10;

/// gRPC on a connection.
#[derive(Clone)]
pub(crate) struct Grpc {
    router: Router,
    /// A place for each call that has a request in hand and is soon over.
    places: Arc<Semaphore>,
    /// One for each that may wait for something to come: these must not keep out what ends their waiting, a publish.
    patient: Arc<Semaphore>,
}

/// What is known of a call before its request is read.
#[derive(Clone, Debug)]
struct Call {
    peer: Peer,
    /// Who calls, and the right that was asked for; `None` where nobody asks.
    caller: Option<(Right, Caller)>,
    /// It may see what this user has published and what becomes of that, and nothing else.
    own_only: Option<String>,
    /// When it is given up by who calls.
    deadline: Option<Instant>,
    closing: Closing,
}

/// The connection that a call has come by.
#[derive(Clone)]
struct Connection {
    peer: Peer,
    closing: Closing,
    unread: Unread,
}

/// How a call is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One request, one answer.
    Unary(Option<Right>),
    /// One request, one answer, which may be waited for; these have places of their own.
    Patient(Right),
    /// Requests for as long as it goes; these have places of their own.
    Stream(Right),
    /// One request, answers for as long as it goes, of what its caller may see.
    Receipts,
    /// One request, one answer, of what its caller may see.
    Scheduled,
    /// For everybody, and small.
    Open,
    /// What is not listed here is not served, whatever the router knows: a new service says who may call it.
    Unknown,
}

impl Shape {
    fn of(path: &str) -> Self {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        match service {
            MessagesServer::<messages::Service>::NAME if method == "PublishStream" => Self::Stream(Right::Publish),
            MessagesServer::<messages::Service>::NAME => Self::Unary(Some(Right::Publish)),
            ClientsServer::<clients::Service>::NAME => Self::Unary(Some(Right::Clients)),
            TopicsServer::<topics::Service>::NAME => Self::Unary(Some(Right::Clients)),
            ReceiptsServer::<receipts::Service>::NAME => Self::Receipts,
            ScheduledServer::<scheduled::Service>::NAME => Self::Scheduled,
            DeadLettersServer::<letters::Service>::NAME if matches!(method, "Export" | "Follow") => {
                Self::Stream(Right::DeadLetters)
            }
            DeadLettersServer::<letters::Service>::NAME => Self::Unary(Some(Right::DeadLetters)),
            GroupsServer::<groups::Service>::NAME => Self::Unary(Some(Right::Consume)),
            ConsumerServer::<consumer::Service>::NAME if method == "Consume" => Self::Stream(Right::Consume),
            ConsumerServer::<consumer::Service>::NAME if method == "Take" => Self::Patient(Right::Consume),
            ConsumerServer::<consumer::Service>::NAME => Self::Unary(Some(Right::Consume)),
            AdminServer::<admin::Service>::NAME if matches!(method, "GetStatus" | "GetMetrics") => Self::Unary(None),
            AdminServer::<admin::Service>::NAME => Self::Unary(Some(Right::Admin)),
            "grpc.health.v1.Health"
            | "grpc.reflection.v1.ServerReflection"
            | "grpc.reflection.v1alpha.ServerReflection" => Self::Open,
            _ => Self::Unknown,
        }
    }

    /// How long a call may wait for something to come, beside what it takes.
    fn patience(self) -> Duration {
        match self {
            Self::Patient(_) => Duration::from_secs(WAIT_SECONDS_MAX),
            _ => Duration::ZERO,
        }
    }

    fn right(self) -> Option<Right> {
        match self {
            Self::Unary(right) => right,
            Self::Patient(right) | Self::Stream(right) => Some(right),
            Self::Receipts | Self::Scheduled | Self::Open | Self::Unknown => None,
        }
    }
}

impl Grpc {
    /// Its services; from here on health follows the server's status.
    pub async fn start(server: &Arc<Server>) -> Self {
        let Settings { body_bytes_max, connections_max, .. } = server.settings;
        let streams = Arc::new(Semaphore::new(connections_max));
        let messages = MessagesServer::new(messages::Service::new(Arc::clone(server), Arc::clone(&streams)));
        let letters = DeadLettersServer::new(letters::Service::new(Arc::clone(server), Arc::clone(&streams)));
        let groups = GroupsServer::new(groups::Service(Arc::clone(server)));
        let consumer = ConsumerServer::new(consumer::Service::new(Arc::clone(server), streams));
        let clients = ClientsServer::new(clients::Service(Arc::clone(server)));
        let receipts = ReceiptsServer::new(receipts::Service(Arc::clone(server)));
        let scheduled = ScheduledServer::new(scheduled::Service(Arc::clone(server)));
        let topics = TopicsServer::new(topics::Service(Arc::clone(server)));
        let admin = AdminServer::new(admin::Service(Arc::clone(server)));
        let health = admin::health(server).await.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX);
        let reflected = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(postroad_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The details of errors: without it, whoever has no file of ours can't read their reasons.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let v1 = reflected().build_v1().expect("the generated definition is sound");
        let v1alpha = reflected().build_v1alpha().expect("the generated definition is sound");
        let router = Router::new()
            .route_service(&path_of(&messages), messages.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&groups), groups.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&consumer), consumer.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&clients), clients.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&receipts), receipts.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .route_service(&path_of(&scheduled), scheduled.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&topics), topics.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&letters), letters.max_decoding_message_size(body_bytes_max))
            .route_service(&path_of(&admin), admin.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .route_service(&path_of(&health), health)
            .route_service(&path_of(&v1), v1.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .route_service(&path_of(&v1alpha), v1alpha.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .fallback(async || unknown_method());
        let [places, patient] = [(); 2].map(|()| Arc::new(Semaphore::new(connections_max)));
        Self { router, places, patient }
    }

    /// Answers a call; what is wrong with it is an answer, too.
    async fn call(self, server: Arc<Server>, mut request: hyper::Request<Incoming>, from: Connection) -> Response {
        server.grpc.count_request();
        let shape = Shape::of(request.uri().path());
        let call = match Call::of(&server, shape, &request, &from) {
            Ok(call) => call,
            Err(problem) => return refused(problem),
        };
        let deadline = call.deadline;
        request.extensions_mut().insert(call);
        let (answer, place) = match shape {
            Shape::Unary(_) | Shape::Patient(_) | Shape::Scheduled => {
                let answered = self.unary(&server, shape, request, deadline).await;
                answered.unwrap_or_else(|problem| (refused(problem), None))
            }
            Shape::Stream(_) | Shape::Receipts => (self.routed(request).await, None),
            Shape::Open => {
                let (answer, closing) = (self.routed(request).await, from.closing.clone());
                (ending::ending(answer, async move { server.end_of_connection(closing, deadline).await }), None)
            }
            Shape::Unknown => (unknown_method(), None),
        };
        from.unread.watch(status::with_reason(answer), place)
    }

    /// Bounded in time, and with a place of its kind, which its answer keeps: what asks for no right, and is small, takes none
    /// from those that do.
    async fn unary(
        self,
        server: &Server,
        shape: Shape,
        request: hyper::Request<Incoming>,
        deadline: Option<Instant>,
    ) -> Result<(Response, Option<OwnedSemaphorePermit>), Problem> {
        let Settings { request_timeout, publish_timeout, .. } = server.settings;
        let most = Instant::now() + request_timeout + publish_timeout + shape.patience();
        let deadline = deadline.map_or(most, |deadline| deadline.min(most));
        let busy = |why: &'static str| move || Problem::new(Kind::Busy, why);
        let place = match shape {
            Shape::Unary(None) => None,
            // At once: those that have a place may keep it for a minute, so that waiting for one is no better than to come again.
            Shape::Patient(_) => {
                let place = Arc::clone(&self.patient).try_acquire_owned().ok();
                Some(place.ok_or_else(busy("http.connections_max calls wait for something to come; try again"))?)
            }
            _ => {
                let place = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await;
                let place = place.ok().and_then(Result::ok);
                Some(place.ok_or_else(busy("http.connections_max calls are under way; try again"))?)
            }
        };
        let late =
            |_| Problem::new(Kind::Timeout, "the call was not done by its deadline: nobody knows what became of it");
        let answer = timeout_at(deadline, self.routed(request)).await.map_err(late)?;
        Ok((answer, place))
    }

    async fn routed(self, request: hyper::Request<Incoming>) -> Response {
        let Ok(response) = self.router.oneshot(request).await;
        response
    }
}

impl Call {
    fn of(
        server: &Server,
        shape: Shape,
        request: &hyper::Request<Incoming>,
        from: &Connection,
    ) -> Result<Self, Problem> {
        let headers = request.headers();
        let (caller, own_only) = match shape {
            // Who may not see all may see its own: either way it may see receipts.
            Shape::Receipts => {
                let known = |right| server.grpc_caller(from.peer, headers, right);
                let (caller, own_only) = server.may_see(Right::Trace, known)?;
                (Some((Right::Trace, caller)), own_only)
            }
            Shape::Scheduled => {
                let known = |right| server.grpc_caller(from.peer, headers, right);
                let (caller, own_only) = server.may_see_scheduled(known)?;
                (Some((Right::Clients, caller)), own_only)
            }
            _ => {
                let known = |right| server.grpc_caller(from.peer, headers, right).map(|caller| (right, caller));
                (shape.right().map(known).transpose()?, None)
            }
        };
        let wait = deadline::wait_of(headers)?;
        let (peer, closing) = (from.peer, from.closing.clone());
        Ok(Self { peer, caller, own_only, deadline: wait.map(|wait| Instant::now() + wait), closing })
    }

    /// That of a request which has come through [`Grpc::call`].
    fn in_request<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get().cloned().ok_or_else(|| Status::internal("the call is not known"))
    }

    /// Who calls, if it has this right: each method says which one it needs, so that a wrong line in [`Shape::of`] opens none.
    fn caller(&self, needed: Right) -> Result<&Caller, Status> {
        match &self.caller {
            Some((right, caller)) if *right == needed => Ok(caller),
            _ => Err(Status::internal("nobody asked whether the caller may")),
        }
    }
}

/// Where a page begins, if it is not the first one.
fn page_begin<C>(token: &str, parse: impl Fn(&str) -> Option<C>) -> Result<Option<C>, Problem> {
    let wrong = || Problem::bad("page_token must be what a page before gave as next_page_token");
    if token.is_empty() { Ok(None) } else { parse(token).map(Some).ok_or_else(wrong) }
}

fn path_of<S: NamedService>(_: &S) -> String {
    format!("/{}/{{*method}}", S::NAME)
}

fn refused(problem: Problem) -> Response {
    Status::from(problem).into_http()
}

fn unknown_method() -> Response {
    refused(Problem::new(
        Kind::NotFound,
        "there are postroad.v1.Messages, Scheduled, Groups, Consumer, Clients, Topics, Receipts, DeadLetters and Admin, health and reflection",
    ))
}

impl Protocol for Grpc {
    const NAME: &str = "grpc";

    fn figures(server: &Server) -> &Figures {
        &server.grpc
    }

    async fn speak(self, server: Arc<Server>, mut stream: TcpStream, peer: Peer) {
        let settings = server.settings;
        let mut preface = [0; PREFACE.len()];
        let began = timeout(settings.request_timeout, stream.read_exact(&mut preface)).await;
        if !matches!(began, Ok(Ok(_))) || preface != PREFACE {
            return tracing::debug!(peer = %peer.0, "a connection to a gRPC listener did not begin as HTTP/2 does");
        }
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%error, "a connection to a gRPC listener has gone");
        }
        let (stream, returned) = Lent::new(stream, PREFACE);
        let (closing, is_closing) = watch::channel(false);
        let from = Connection { peer, closing: Closing(is_closing), unread: Unread::default() };
        let (called, unread) = (Arc::clone(&server), from.unread.clone());
        let service = service_fn(move |request| {
            let call = self.clone().call(Arc::clone(&called), request, from.clone());
            async move { Ok::<_, std::convert::Infallible>(call.await) }
        });
        let head_bytes_max = u32::try_from(settings.request_bytes_max).unwrap_or(u32::MAX);
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .max_header_list_size(head_bytes_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(settings.request_timeout)
            .keep_alive_timeout(settings.request_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let close = || {
            closing.send_replace(true);
        };
        let ended = serve_to_its_end::<Self, _>(connection, &server, &unread, close).await;
        if ended == Ended::ByUs
            && let Ok(stream) = returned.await
        {
            lent::close(stream, settings.request_timeout).await;
        }
    }
}

//! The thread, its listeners, and the three pages.
//!
//! Limits: connections open at once, bytes of a request's head, time for the head and for a connection. A
//! request with a body is refused: no page takes one.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::line::Line;
use crate::metrics::{HttpFigures, Snapshot, render};
use crate::report::{Request, ShardReport};
use crate::stall::Watch;

/// Limits of the control plane; each is an option of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections open at once; one above is closed unanswered.
    pub connections_max: usize,
    /// Bytes of a request's head (at least 8,192).
    pub request_bytes_max: usize,
    /// Time for a request's head to arrive, also for the next one on an idle connection.
    pub request_timeout: Duration,
    /// Time that one connection may last.
    pub connection_age_max: Duration,
    /// Time for the shards to answer a question.
    pub shard_timeout: Duration,
    /// Time without a turn after which a shard counts as stalled.
    pub stall_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 64,
            request_bytes_max: 16 * 1024,
            request_timeout: Duration::from_secs(15),
            connection_age_max: Duration::from_secs(600),
            shard_timeout: Duration::from_secs(2),
            stall_max: Duration::from_secs(1),
        }
    }
}

/// What is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// The release.
    pub version: &'static str,
    /// What it was built from.
    pub revision: &'static str,
}

/// Where the server is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Recovering; no client is let in yet.
    #[default]
    Starting,
    /// All shards take clients.
    Serving,
    /// No new clients; it will stop.
    Draining,
    /// The log can't be trusted to hold what comes: nothing is acknowledged any more. The text says why.
    Poisoned(String),
}

impl Phase {
    /// The names of all phases, in the order of a life.
    pub const NAMES: &'static [&'static str] = &["starting", "serving", "draining", "poisoned"];

    /// Its name, as pages and metrics show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Poisoned(_) => "poisoned",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting => Some("recovering the log"),
            Self::Serving => None,
            Self::Draining => Some("the server is stopping"),
            Self::Poisoned(reason) => Some(reason),
        }
    }
}

/// What an operator should know although the server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// In words.
    pub text: String,
    /// Not shown after this time.
    pub until: Option<SystemTime>,
}

/// Notes that are shown at most: the newest.
const NOTES_MAX: usize = 64;

/// What `/ready` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The phase; 200 only while serving.
    pub phase: Phase,
    /// A barred client, a delivery that was set aside (and one day a disabled plugin).
    pub notes: Vec<Note>,
}

/// The running control plane. Dropping it leaves the thread running; call [`Control::stop`].
#[derive(Debug)]
pub struct Control {
    handle: Handle,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// The way from the rest of the process to the control thread; cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct Handle {
    status: watch::Sender<Status>,
    shards: watch::Sender<Arc<[Line]>>,
}

impl Handle {
    /// From now on questions go to these shards (index = shard).
    pub fn attach(&self, shards: Vec<Line>) {
        self.shards.send_replace(shards.into());
    }

    /// Enters a phase. A poisoned server stays poisoned, whatever comes after.
    pub fn enter(&self, phase: Phase) {
        self.status.send_modify(|status| {
            if !matches!(status.phase, Phase::Poisoned(_)) {
                status.phase = phase;
            }
        });
    }

    /// Adds a note to `/ready`, unless it stands there.
    pub fn note(&self, note: Note) {
        self.status.send_modify(|status| {
            if !status.notes.contains(&note) {
                status.notes.push(note);
                let too_many = status.notes.len().saturating_sub(NOTES_MAX);
                status.notes.drain(..too_many);
            }
        });
    }

    /// Puts these notes in the place of all that stood there.
    pub fn replace_notes(&self, notes: Vec<Note>) {
        self.status.send_modify(|status| status.notes.clear());
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// What `/ready` tells at present.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

impl Control {
    /// Starts the thread on these bound sockets.
    ///
    /// # Errors
    /// When a socket can't be made non-blocking, or the thread or its runtime can't be made.
    pub fn start(listeners: Vec<TcpListener>, build: BuildInfo, settings: Settings) -> io::Result<Self> {
        let mut addresses = Vec::with_capacity(listeners.len());
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            addresses.push(listener.local_addr()?);
        }
        let (status, status_seen) = watch::channel(Status::default());
        let (shards, shards_seen) = watch::channel(Arc::from(Vec::new()));
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let started = Instant::now();
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            let server = Rc::new(Server {
                status: status_seen,
                shards: shards_seen,
                build,
                settings,
                started,
                open: Cell::new(0),
                figures: Cell::new(HttpFigures::default()),
                stalled: RefCell::default(),
            });
            tokio::task::LocalSet::new().block_on(&runtime, serve(server, listeners, stopped));
        })?;
        Ok(Self { handle: Handle { status, shards }, addresses, stop, thread })
    }

    /// The way to the thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where it listens, in the order of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the listeners and all connections and waits for the thread's end.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the control thread had panicked");
        }
    }
}

/// State of the thread.
struct Server {
    status: watch::Receiver<Status>,
    shards: watch::Receiver<Arc<[Line]>>,
    build: BuildInfo,
    settings: Settings,
    started: Instant,
    open: Cell<usize>,
    figures: Cell<HttpFigures>,
    /// Shards that take no turns, as far as the watch has seen.
    stalled: RefCell<Vec<usize>>,
}

/// Counts a connection as open for as long as it lives.
struct Open(Rc<Server>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

type Page = Response<Full<Bytes>>;

async fn serve(server: Rc<Server>, listeners: Vec<TcpListener>, mut stopped: watch::Receiver<bool>) {
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::task::spawn_local(accept(Rc::clone(&server), listener))),
            Err(error) => tracing::error!(%error, "an HTTP listener could not be registered"),
        }
    }
    drop(tokio::task::spawn_local(watch_shards(Rc::clone(&server))));
    // An error means that the `Control` is gone without `stop`: go on serving for the process's life.
    if stopped.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Asks every shard for a sign of life, again and again, and notes those that give none for `stall_max`. From outside,
/// since a shard that stands still can't tell. What it costs a shard is one wake-up per half `stall_max`.
async fn watch_shards(server: Rc<Server>) {
    let patience = server.settings.stall_max;
    let mut watch = Watch::new(patience);
    loop {
        watch.ask(&server.shards.borrow(), Instant::now());
        let next = tokio::time::Instant::now() + patience / 2;
        while let Ok(Ok(shard)) = tokio::time::timeout_at(next, watch.answers().recv_async()).await {
            watch.answered(usize::from(shard.0), Instant::now());
        }
        server.stalled.replace(watch.stalled(Instant::now()));
    }
}

async fn accept(server: Rc<Server>, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if server.open.get() < server.settings.connections_max => {
                server.open.set(server.open.get() + 1);
                tokio::task::spawn_local(connection(Open(Rc::clone(&server)), stream));
            }
            Ok(_) => server.count(|figures| figures.refused += 1),
            Err(error) => {
                // Out of descriptors, or the peer was faster: wait, or this loop would spin.
                tracing::debug!(%error, "accept failed on an HTTP listener");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(open: Open, stream: tokio::net::TcpStream) {
    let server = Rc::clone(&open.0);
    let settings = server.settings;
    let service = service_fn(move |request| {
        let server = Rc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(&request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.request_timeout)
        .max_buf_size(settings.request_bytes_max.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    match timeout(settings.connection_age_max, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended"),
        Err(_) => tracing::debug!("an HTTP connection reached its maximum age"),
    }
    drop(open);
}

impl Server {
    fn count(&self, change: impl FnOnce(&mut HttpFigures)) {
        let mut figures = self.figures.get();
        change(&mut figures);
        self.figures.set(figures);
    }

    async fn answer(&self, request: &hyper::Request<Incoming>) -> Page {
        self.count(|figures| figures.requests += 1);
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are known here\n".into());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return closing(refusal);
        }
        if request.body().size_hint().upper() != Some(0) {
            return closing(text(StatusCode::PAYLOAD_TOO_LARGE, "no page here takes a body\n".into()));
        }
        match request.uri().path() {
            "/ready" => self.ready(),
            "/health" => self.health(),
            "/metrics" => self.metrics().await,
            _ => text(StatusCode::NOT_FOUND, "not found; pages: /ready /health /metrics\n".into()),
        }
    }

    /// 200 while clients are served, else 503 with the reason.
    fn ready(&self) -> Page {
        let status = self.status.borrow();
        let code = match status.phase {
            Phase::Serving => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let now = SystemTime::now();
        let standing = status.notes.iter().filter(|note| note.until.is_none_or(|until| now < until));
        let notes: Vec<_> = standing.map(|note| note.text.as_str()).collect();
        let body = serde_json::json!({
            "ready": code == StatusCode::OK,
            "phase": status.phase.name(),
            "reason": status.phase.reason(),
            "notes": notes,
            "stalled_shards": *self.stalled.borrow(),
        });
        json(code, &body)
    }

    /// 200 as long as the process can do its work, whatever it waits for; 503 once it is poisoned.
    fn health(&self) -> Page {
        let phase = &self.status.borrow().phase;
        let healthy = !matches!(phase, Phase::Poisoned(_));
        let body = serde_json::json!({
            "healthy": healthy,
            "phase": phase.name(),
            "version": self.build.version,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "stalled_shards": *self.stalled.borrow(),
        });
        json(if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
    }

    async fn metrics(&self) -> Page {
        let shards = Arc::clone(&self.shards.borrow());
        let reports = self.reports(&shards).await;
        let process = crate::process::read();
        let phase = self.status.borrow().phase.name();
        let body = render(&Snapshot {
            build: &self.build,
            phase,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            process: &process,
            shards: &reports,
            shards_asked: shards.len(),
            http: self.figures.get(),
        });
        let mut page = text(StatusCode::OK, body);
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        page.headers_mut().insert(CONTENT_TYPE, kind);
        page
    }

    /// Asks all shards at once; those that don't answer in time are missing from the result.
    async fn reports(&self, shards: &[Line]) -> Vec<ShardReport> {
        let (answers, answered) = flume::bounded(shards.len().max(1));
        let asked = shards.iter().filter(|shard| shard.ask(Request::Report(answers.clone()))).count();
        drop(answers);
        let mut reports: Vec<ShardReport> = Vec::with_capacity(asked);
        let collect = async {
            while let Ok(report) = answered.recv_async().await {
                reports.push(report);
            }
        };
        let _late = timeout(self.settings.shard_timeout, collect).await;
        self.count(|figures| figures.unanswered += (shards.len() - reports.len()) as u64);
        reports.sort_by_key(|report| report.shard);
        reports
    }
}

fn text(code: StatusCode, body: String) -> Page {
    page(code, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}

fn json(code: StatusCode, body: &serde_json::Value) -> Page {
    page(code, HeaderValue::from_static("application/json"), format!("{body}\n"))
}

fn page(code: StatusCode, kind: HeaderValue, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = code;
    page.headers_mut().insert(CONTENT_TYPE, kind);
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

fn closing(mut page: Page) -> Page {
    page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    page
}

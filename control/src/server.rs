//! The thread, its life, and the way to it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, oneshot, watch};

use crate::admin::{Obey, Order};
use crate::api::Api;
use crate::grpc::Grpc;
use crate::history::{History, HistoryOptions, Recorder, Recording, TRY_AGAIN, history};
use crate::http::Http;
use crate::line::Shards;
use crate::listener::{self, Figures};
use crate::shared::Server;
use crate::stall::Watch;
use crate::tokens::Tokens;

/// Time for answers to be read once the server has stopped, if there is no more: what was stored should be known to who published
/// it.
pub const STOP_PATIENCE: Duration = Duration::from_millis(500);

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
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Time for a publish to be answered, from its last byte on.
    pub publish_timeout: Duration,
    /// Steps of followed messages that may wait to be kept.
    pub trace_queue_max: usize,
    /// For how long they are kept.
    pub trace_retention: Duration,
    /// Bytes of those that are kept.
    pub trace_bytes_max: u64,
    /// Streams of receipts and of what happens that are read at once.
    pub trace_readers_max: usize,
    /// Lines in a second of who watches what happens.
    pub trace_lines_per_second: u32,
    /// Time for plugins to be changed.
    pub plugins_timeout: Duration,
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
            body_bytes_max: 8 << 20,
            publish_timeout: Duration::from_secs(10),
            trace_queue_max: 65_536,
            trace_retention: Duration::from_secs(86_400),
            trace_bytes_max: 256 << 20,
            trace_readers_max: 16,
            trace_lines_per_second: 1_000,
            plugins_timeout: Duration::from_secs(30),
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

    pub(crate) fn reason(&self) -> Option<&str> {
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

/// Bound sockets, by what is spoken on them.
#[derive(Debug, Default)]
pub struct Listeners {
    /// HTTP/1.1.
    pub http: Vec<TcpListener>,
    /// gRPC, which is HTTP/2 without TLS.
    pub grpc: Vec<TcpListener>,
}

/// The running control plane. Dropping it leaves the thread running; call [`Control::stop`].
#[derive(Debug)]
pub struct Control {
    handle: Handle,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    /// Told how long to wait for peers, before `stop`.
    patience: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
    settings: Settings,
    recorder: Recorder,
    /// Until it is kept.
    recording: Option<Recording>,
    history: History,
    history_thread: Option<JoinHandle<()>>,
}

/// The way from the rest of the process to the control thread; cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct Handle {
    status: watch::Sender<Status>,
    shards: watch::Sender<Arc<Shards>>,
    tokens: watch::Sender<Option<Arc<Tokens>>>,
    orders: watch::Sender<Option<Obey>>,
}

impl Handle {
    /// From now on questions go to these shards.
    pub fn attach(&self, shards: Shards) {
        self.shards.send_replace(shards.into());
    }

    /// From now on the API is for who shows one of these; without any it is for callers on this machine.
    pub fn use_tokens(&self, tokens: Option<Tokens>) {
        self.tokens.send_replace(tokens.map(Arc::new));
    }

    /// From now on orders go there; it must not wait, and tells whether it had room.
    pub fn obey(&self, orders: impl Fn(Order) -> bool + Send + Sync + 'static) {
        self.orders.send_replace(Some(Obey(Arc::new(orders))));
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
    pub fn start(listeners: Listeners, build: BuildInfo, settings: Settings) -> io::Result<Self> {
        let mut addresses = Vec::new();
        for listener in listeners.http.iter().chain(&listeners.grpc) {
            listener.set_nonblocking(true)?;
            addresses.push(listener.local_addr()?);
        }
        let (status, status_seen) = watch::channel(Status::default());
        let (shards, shards_seen) = watch::channel(Arc::default());
        let (tokens, tokens_seen) = watch::channel(None);
        let (orders, orders_seen) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let (patience, mut told_patience) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let api = Api::new(shards_seen.clone(), status_seen.clone(), &settings);
        let stalled = watch::Sender::new(Vec::new());
        let (recorder, recording, history) = history(settings.trace_queue_max, settings.shard_timeout);
        let server = Arc::new(Server {
            status: status_seen,
            shards: shards_seen.clone(),
            tokens: tokens_seen,
            orders: orders_seen,
            api,
            build,
            settings,
            started: Instant::now(),
            http: Figures::default(),
            grpc: Figures::default(),
            unanswered: AtomicU64::new(0),
            history: history.clone(),
            readers: Arc::new(Semaphore::new(settings.trace_readers_max)),
            own_readers: Arc::new(Semaphore::new(settings.trace_readers_max / 2)),
            patient_http: Semaphore::new(settings.connections_max.div_ceil(2)),
            stopped: stopped.clone(),
            stalled: stalled.subscribe(),
        });
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async {
                drop(tokio::spawn(watch_shards(shards_seen, settings.stall_max, stalled)));
                listener::serve(&server, &Http::new(&server), listeners.http);
                if !listeners.grpc.is_empty() {
                    listener::serve(&server, &Grpc::start(&server).await, listeners.grpc);
                }
                wait_for_stop(stopped).await;
                let all_closed = async {
                    server.http.all_closed().await;
                    server.grpc.all_closed().await;
                };
                let patience = told_patience.try_recv().unwrap_or(STOP_PATIENCE);
                let _some_stay = tokio::time::timeout(patience, all_closed).await;
            });
        })?;
        let (handle, recording) = (Handle { status, shards, tokens, orders }, Some(recording));
        let history_thread = None;
        Ok(Self { handle, addresses, stop, patience, thread, settings, recorder, recording, history, history_thread })
    }

    /// Where the shards tell what becomes of messages that somebody follows.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Keeps what they tell in this file, or in memory. Nobody else may have the file.
    ///
    /// # Errors
    /// When the thread for it can't be made.
    pub fn keep_history(&mut self, path: Option<PathBuf>, free_bytes_min: u64) -> io::Result<()> {
        let Some(recording) = self.recording.take() else { return Ok(()) };
        let Settings { trace_retention: retention, trace_bytes_max: bytes_max, .. } = self.settings;
        let options = HistoryOptions { path, retention, bytes_max, free_bytes_min, try_again: TRY_AGAIN };
        self.history_thread = Some(recording.start(options)?);
        Ok(())
    }

    /// The way to the thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where it listens: HTTP, then gRPC, each in the order of its listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// [`Control::stop_within`] the shortest time.
    pub fn stop(self) {
        self.stop_within(STOP_PATIENCE);
    }

    /// Lets what is answered be read, closes the listeners and all connections, and waits for the thread's end. A peer that is slow
    /// has so long; the wait ends with the last connection.
    pub fn stop_within(self, patience: Duration) {
        let _thread_gone = self.patience.send(patience);
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the control thread had panicked");
        }
        if let Some(thread) = self.history_thread {
            self.history.stop();
            if thread.join().is_err() {
                tracing::error!("the thread of the history had panicked");
            }
        }
    }
}

/// An error means that the `Control` is gone without `stop`: go on serving for the process's life.
pub(crate) async fn wait_for_stop(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Asks every shard for a sign of life, again and again, and notes those that give none for `stall_max`. From outside,
/// since a shard that stands still can't tell. What it costs a shard is one wake-up per half `stall_max`.
async fn watch_shards(shards: watch::Receiver<Arc<Shards>>, patience: Duration, stalled: watch::Sender<Vec<usize>>) {
    let mut watch = Watch::new(patience);
    loop {
        let asked = Arc::clone(&shards.borrow());
        watch.ask(&asked.lines, Instant::now());
        let next = tokio::time::Instant::now() + patience / 2;
        while let Ok(Ok(shard)) = tokio::time::timeout_at(next, watch.answers().recv_async()).await {
            watch.answered(usize::from(shard.0), Instant::now());
        }
        stalled.send_replace(watch.stalled(Instant::now()));
    }
}

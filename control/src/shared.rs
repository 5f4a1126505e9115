//! What all requests share, whatever protocol they come by.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures_util::future::{Either, select};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::admin::Obey;
use crate::api::Api;
use crate::history::History;
use crate::line::Shards;
use crate::listener::Figures;
use crate::problem::{Kind, Problem};
use crate::server::{BuildInfo, Phase, Settings, Status};
use crate::tokens::Tokens;

/// See the module head.
#[derive(Debug)]
pub(crate) struct Server {
    pub status: watch::Receiver<Status>,
    pub shards: watch::Receiver<Arc<Shards>>,
    pub tokens: watch::Receiver<Option<Arc<Tokens>>>,
    pub api: Api,
    pub build: BuildInfo,
    pub settings: Settings,
    pub started: std::time::Instant,
    /// Who takes orders; `None`: not yet.
    pub orders: watch::Receiver<Option<Obey>>,
    /// What the listeners of each protocol count.
    pub http: Figures,
    pub grpc: Figures,
    /// Questions that a shard did not answer in time.
    pub unanswered: AtomicU64,
    /// What happened to messages that somebody follows.
    pub history: History,
    /// A place for each that reads for as long as it likes.
    pub readers: Arc<Semaphore>,
    /// Of them, those that who may read only what is its own may have: operators find one, however many of these read.
    pub own_readers: Arc<Semaphore>,
    /// A place for each take by HTTP that may wait: it holds a connection meanwhile, and must leave some to those that publish,
    /// acknowledge, and look how the server does.
    pub patient_http: Semaphore,
    /// Whether the server is about to end: connections end with what they owe.
    pub stopped: watch::Receiver<bool>,
    /// Shards that take no turns, as far as the watch has seen.
    pub stalled: watch::Receiver<Vec<usize>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

/// Whether a request's connection takes no more.
#[derive(Clone, Debug)]
pub(crate) struct Closing(pub watch::Receiver<bool>);

impl Server {
    /// Resolves when a stream is to end although its caller has not ended it: the server stops, its connection closes, or its
    /// time is over.
    pub async fn end_of_stream(&self, closing: Closing, deadline: Option<Instant>) -> Problem {
        let mut status = self.status.clone();
        let stops = pin!(status.wait_for(|status| status.phase != Phase::Serving));
        match select(stops, pin!(self.end_of_connection(closing, deadline))).await {
            Either::Left(_) => not_serving(),
            Either::Right((problem, _)) => problem,
        }
    }

    /// The same for a stream that also tells of a server that does not serve: its connection closes, or its time is over.
    pub async fn end_of_connection(&self, Closing(mut closing): Closing, deadline: Option<Instant>) -> Problem {
        let closes = pin!(closing.wait_for(|closing| *closing));
        let passes = pin!(async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        });
        match select(closes, passes).await {
            Either::Left(_) if *self.stopped.borrow() => not_serving(),
            Either::Left(_) => connection_age(),
            Either::Right(_) => Problem::new(Kind::Timeout, "the deadline of the stream has passed"),
        }
    }

    /// Waits for it only for as long as clients are served: what waits long must not hold up the server's end.
    pub async fn until_it_stops<T>(&self, what: impl Future<Output = T>) -> Result<T, Problem> {
        let mut status = self.status.clone();
        let stops = pin!(status.wait_for(|status| status.phase != Phase::Serving));
        match select(stops, pin!(what)).await {
            Either::Left(_) => Err(not_serving()),
            Either::Right((done, _)) => Ok(done),
        }
    }

    pub fn count_unanswered(&self, questions: usize) {
        self.unanswered.fetch_add(questions as u64, Ordering::Relaxed);
    }
}

pub(crate) fn connection_age() -> Problem {
    Problem::new(Kind::ConnectionAge, "the connection is as old as it may be: begin another stream")
}

pub(crate) fn not_serving() -> Problem {
    Problem::new(Kind::NotServing, "the server is starting or stopping")
}

impl Status {
    /// The notes that still stand.
    pub(crate) fn standing_notes(&self) -> impl Iterator<Item = &str> {
        let now = SystemTime::now();
        let standing = self.notes.iter().filter(move |note| note.until.is_none_or(|until| now < until));
        standing.map(|note| note.text.as_str())
    }
}

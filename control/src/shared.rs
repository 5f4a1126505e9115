//! What all requests share, whatever protocol they come by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use tokio::sync::{Semaphore, watch};

use crate::api::Api;
use crate::history::History;
use crate::line::Shards;
use crate::listener::Figures;
use crate::server::{BuildInfo, Settings, Status};
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
    pub started: Instant,
    /// What the listeners of each protocol count.
    pub http: Figures,
    pub grpc: Figures,
    /// Questions that a shard did not answer in time.
    pub unanswered: AtomicU64,
    /// What happened to messages that somebody follows.
    pub history: History,
    /// A place for each that reads for as long as it likes.
    pub readers: Arc<Semaphore>,
    /// Whether the server is about to end: connections end with what they owe.
    pub stopped: watch::Receiver<bool>,
    /// Shards that take no turns, as far as the watch has seen.
    pub stalled: watch::Receiver<Vec<usize>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

impl Server {
    pub fn count_unanswered(&self, questions: usize) {
        self.unanswered.fetch_add(questions as u64, Ordering::Relaxed);
    }
}

impl Status {
    /// The notes that still stand.
    pub(crate) fn standing_notes(&self) -> impl Iterator<Item = &str> {
        let now = SystemTime::now();
        let standing = self.notes.iter().filter(move |note| note.until.is_none_or(|until| now < until));
        standing.map(|note| note.text.as_str())
    }
}

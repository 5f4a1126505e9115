//! The lines to the shards: a bounded queue of questions and a bell for each.

use std::fmt;
use std::sync::Arc;

use postroad_base::{KeyHolder, KeyName, Placement, ShardId};
use tokio::sync::Semaphore;

use crate::letters::LettersBell;
use crate::publication::{Caller, Publication};
use crate::report::Request;

/// All shards, and where names live.
#[derive(Clone, Debug, Default)]
pub struct Shards {
    /// Index = shard.
    pub lines: Vec<Line>,
    /// Where names live; `None`: there are no shards.
    pub placement: Option<Placement>,
    /// Rung by them when there are new dead letters.
    pub letters: LettersBell,
}

impl Shards {
    /// The shard on which a client lives.
    pub fn home_of_client(&self, client: &str) -> ShardId {
        self.placement.as_ref().map_or(ShardId(0), |placement| placement.home(client.as_bytes()))
    }

    /// The shard that a caller's message is given to: with an idempotency key the one on which that lives, so that it need not be
    /// handed on.
    pub fn home_of_publication(&self, caller: &Caller, message: &Publication) -> ShardId {
        let Some((key, placement)) = message.wishes.idempotency_key.as_ref().zip(self.placement.as_ref()) else {
            return self.home_of(message.topic.as_str());
        };
        let holder = KeyHolder::User(caller.name.clone());
        placement.home_of_key(&KeyName { holder, key: key.clone() })
    }

    /// The shard that a message for this topic is given to: where its reader lives, if it has one, and the same one for
    /// all of a topic, so that they keep their order.
    pub fn home_of(&self, topic: &str) -> ShardId {
        let reader = topic.strip_prefix("$client/").and_then(|rest| rest.split('/').next());
        self.home_of_client(reader.unwrap_or(topic))
    }
}

/// Batches of publishes that one shard may have at once; others wait for their turn. Fewer than its queue holds, so that
/// there is always room for a question of another kind.
const BATCHES_MAX: usize = 8;

/// Where questions for one shard are put.
#[derive(Clone)]
pub struct Line {
    queue: flume::Sender<Request>,
    /// A permit for each batch that is not answered.
    pub(crate) batches: Arc<Semaphore>,
    bell: Arc<dyn Fn() + Send + Sync>,
}

impl Line {
    /// `bell` is rung after each question: the shard looks into the other end of `queue` when it hears it. The queue must
    /// be bounded.
    pub fn new(queue: flume::Sender<Request>, bell: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue, batches: Arc::new(Semaphore::new(BATCHES_MAX)), bell: Arc::new(bell) }
    }

    /// Puts a question, without waiting. Whether there was room for it and somebody to hear it.
    pub fn ask(&self, request: Request) -> bool {
        let asked = self.queue.try_send(request).is_ok();
        if asked {
            (self.bell)();
        }
        asked
    }

    /// Whether the shard has ended.
    pub fn is_dead(&self) -> bool {
        self.queue.is_disconnected()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

//! The lines to the shards: a bounded queue of questions and a bell for each.

use std::fmt;
use std::sync::Arc;

use postroad_base::{KeyHolder, KeyName, Placement, ShardId};
use tokio::sync::Semaphore;

use crate::letters::LettersBell;
use crate::plugins::PluginsLine;
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
    /// Who runs other plugins, if anybody.
    pub plugins: Option<PluginsLine>,
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

    /// Puts what must not be lost, behind what waits for room already; its asker is gone and waits for nothing. Only for what
    /// follows upon a question that had room, so that no more of these wait than the shard has taken questions.
    pub fn tell(&self, request: Request) {
        let Err(flume::TrySendError::Full(request)) = self.queue.try_send(request) else { return (self.bell)() };
        // Without a runtime the control plane is at its end, and so is whatever the shard has for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let line = self.clone();
            runtime.spawn(async move {
                if line.queue.send_async(request).await.is_ok() {
                    (line.bell)();
                }
            });
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What leases were to be given back by was dropped when the line was full: they lasted for up to a day.
    #[test]
    fn what_is_told_is_not_lost_when_the_line_is_full() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (queue, asked) = flume::bounded(1);
        let rings = Arc::new(AtomicUsize::new(0));
        let rung = Arc::clone(&rings);
        let ring = move || {
            rung.fetch_add(1, Ordering::Relaxed);
        };
        let line = Line::new(queue, ring);
        let ping = || Request::Ping(flume::bounded(1).0);
        runtime.block_on(async {
            (0..3).for_each(|_| line.tell(ping()));
            assert!(!line.ask(ping()), "there is no room");
            for _ in 0..3 {
                asked.recv_async().await.expect("it was told");
            }
            while rings.load(Ordering::Relaxed) < 3 {
                tokio::task::yield_now().await;
            }
        });
        assert!(asked.is_empty());
        line.tell(ping());
        line.tell(ping()); // not from within a runtime: it is lost, and nothing else
        assert_eq!(asked.len(), 1);
    }
}

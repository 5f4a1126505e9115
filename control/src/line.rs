//! The line to one shard: a bounded queue of questions, and a bell.

use std::fmt;
use std::sync::Arc;

use crate::report::Request;

/// Where questions for one shard are put.
#[derive(Clone)]
pub struct Line {
    queue: flume::Sender<Request>,
    bell: Arc<dyn Fn() + Send + Sync>,
}

impl Line {
    /// `bell` is rung after each question: the shard looks into the other end of `queue` when it hears it. The queue must
    /// be bounded.
    pub fn new(queue: flume::Sender<Request>, bell: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue, bell: Arc::new(bell) }
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

//! A shard of either world: the broker, its disk, and what is under way between them.

use std::collections::VecDeque;

use base::{Now, QueueId, Sequence};
use postroad_base as base;
use postroad_broker::Broker;
use postroad_broker::api::{BacklogEntry, Retirement};

use crate::disk::Disk;

/// Work of the old generation's worker, done some time later.
#[derive(Debug)]
pub(crate) enum Job {
    Read {
        queue: QueueId,
        after: Sequence,
        messages_max: usize,
    },
    /// It was read at once, by another thread: what is stored before it is told comes too late for it.
    Answer {
        queue: QueueId,
        entries: Vec<BacklogEntry>,
        end: bool,
    },
    Ingest(Box<Retirement>),
}

/// See the module head.
pub(crate) struct Shard {
    pub broker: Broker,
    pub disk: Disk,
    pub jobs: VecDeque<Job>,
    /// A retirement is under way.
    pub retiring: bool,
    /// What the broker was told is committed (differs from the disk only for the canary).
    pub told: Sequence,
}

impl Shard {
    /// One with an empty disk.
    pub fn new(broker: Broker) -> Self {
        Self { broker, disk: Disk::new(), jobs: VecDeque::new(), retiring: false, told: Sequence(0) }
    }

    /// The process has died: `broker` goes on with what the disk holds.
    pub fn recover(&mut self, mut broker: Broker, now: Now) {
        self.jobs.clear();
        self.retiring = false;
        self.disk.crash(&mut broker);
        self.told = Sequence(self.disk.next().0 - 1);
        broker.recovered(now, self.disk.next());
        self.broker = broker;
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        let has_work = self.broker.has_steps() || self.broker.has_drains();
        self.disk.uncommitted() == 0 && self.jobs.is_empty() && !self.retiring && !has_work
    }
}

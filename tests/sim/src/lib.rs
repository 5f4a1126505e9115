//! A deterministic simulation of the broker: several shards, a network between them and to the clients, and
//! a log that forgets at a crash what was not committed. Everything that happens is drawn from a seed.
//!
//! ```text
//! client ⇄ FIFO, lost with the connection ⇄ shard ⇄ FIFO per pair ⇄ shard
//!                                             │
//!                                        log │ commits a prefix; a crash cuts the rest
//!                                   old generation │ ingests later, or not before the crash
//! ```
//!
//! The oracle (`oracle`) holds what was promised to clients against what they got. A canary is a bug that is
//! planted on purpose: a simulator that doesn't find it proves nothing.

mod client;
mod disk;
mod groups;
mod letters;
mod operator;
mod oracle;
mod plugins;
mod random;
mod retained;
mod retry;
mod rollout;
mod shard;
mod wisher;
mod world;

pub use random::Random;
pub use retained::{RetainedOptions, RetainedReport, run_retained};
pub use retry::{RetryOptions, RetryReport, run_retry};
pub use world::{Options, run};

/// A bug to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The log says that a record is safe before it is.
    CommitTooEarly,
    /// A message between shards is lost now and then.
    LostForward,
    /// The records that keep QoS 2 exactly once across a crash are not written.
    NoTagRecords,
    /// A registration's queue begins without a record: a crash forgets the pushes in it.
    NoRegistrationQueue,
    /// The old generation gives a portion of a backlog in the wrong order.
    BacklogOutOfOrder,
    /// A fence between shards is answered before what was sent in front of it has arrived.
    OvertakingFence,
    /// A share group's message that comes to a shard whose last member has left is given up.
    GroupLeftIsNobody,
    /// The queue of a session that ends is gone before what it held for share groups is safe elsewhere.
    QueueEndsFirst,
    /// A publisher that can't be told of a refusal is treated as one that can.
    RefusalTold,
    /// A retirement does not store who has taken QoS 2 messages that may be repeated.
    RetirementForgets,
    /// Shards are not told what publishers may repeat because a slow shard has not answered.
    NobodyTold,
    /// A delivery that is refused ends, without a letter in the log.
    LetterLost,
    /// A crash forgets that a letter was dropped.
    DropForgotten,
    /// A crash forgets that a letter was requeued, but not the new message.
    RequeueKeepsLetter,
    /// A crash forgets that a consumer of a group has acknowledged.
    DoneForgotten,
    /// A consumer group's queue begins without a record.
    NoGroupQueue,
    /// A message that replaces an older one is taken for the older one by whoever reads the log.
    NewestIsOver,
    /// The road is said to be clear while copies are still on it.
    RoadSaysClear,
    /// The log does not hold how often a delivery was sent.
    AttemptForgotten,
    /// A client of MQTT 5 is taken for one that may be sent a message again.
    SentAgainOnMqtt5,
    /// A crash forgets keys.
    KeyForgotten,
    /// A crash forgets that a message that was due is over.
    DueAgain,
    /// A crash forgets that a message was due and on its way.
    DueUntold,
    /// What is put off is published a little too early.
    DueEarly,
    /// A crash forgets that a message was taken back.
    CancelForgotten,
    /// Who wants to pull is pushed to.
    PushesToAll,
    /// A part of what plugins made of a publish is lost, if it goes to another shard.
    PartLost,
    /// The word that a shard has committed a generation of plugins overtakes what the last one has seen.
    SettledEarly,
    /// Other shards are not told which generation of plugins has seen a message.
    StampLost,
    /// The script that answers is asked about a delivery, whichever has seen the message.
    WrongScript,
    /// A crash forgets for how many deliveries the message stands into which a queue has overflowed.
    OverflowForgotten,
}

/// What a run saw, so that a test can assert that it was not idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Messages that publishers sent for the first time.
    pub published: usize,
    /// Messages that were acknowledged to their publisher.
    pub acknowledged: usize,
    /// Messages that subscribers took, duplicates included.
    pub received: usize,
    /// Crashes of the server.
    pub crashes: usize,
    /// Connections that broke or were taken over.
    pub disconnects: usize,
    /// Times that a connection was parked for want of credit.
    pub parks: usize,
    /// Retirements.
    pub retirements: usize,
    /// Portions read back from the old generation.
    pub portions: usize,
    /// Messages for a share group that came to a shard whose last member had left.
    pub missed: usize,
    /// Deliveries that moved from a session that ended to another member.
    pub moved: usize,
    /// Publishes that were refused for a full queue.
    pub refused: usize,
    /// Times that a drain waited for its turn or its rate.
    pub waits: usize,
    /// Times that a shard was told what may be repeated because another one is slow.
    pub told: usize,
    /// Dead letters of former queues that a run begins with.
    pub brought: usize,
    /// Refusals that the server has read.
    pub letters: usize,
    /// Pages of dead letters that an operator has got.
    pub pages: usize,
    /// Dead letters that were requeued, as an answer has told.
    pub requeued: usize,
    /// Actions on letters that were over.
    pub gone: usize,
    /// Takes from the consumer group.
    pub takes: usize,
    /// Deliveries that it gave and that somebody may have had before.
    pub again: usize,
    /// Deliveries that a newer one has replaced.
    pub collapsed: usize,
    /// Publishes under a key that was used before.
    pub repeated: usize,
    /// Messages that were put off.
    pub put_off: usize,
    /// Times that the wall clock was put forward or back.
    pub jumps: usize,
    /// Of them, those that were taken back.
    pub cancelled: usize,
    /// Times that a subscriber asked for deliveries.
    pub pulls: usize,
    /// Messages that told a subscriber that its queue has overflowed, duplicates included.
    pub full_syncs: usize,
    /// Publishes that plugins were asked about; those of them at which they failed; deliveries of what they had made; letters that they requeued.
    pub asked: usize,
    pub failed: usize,
    pub delivered: usize,
    pub repaired: usize,
    /// Generations that were settled; publishes that canaries were asked about; canaries that were promoted; those that were aborted.
    pub settled: usize,
    pub tried: usize,
    pub promoted: usize,
    pub aborted: usize,
}

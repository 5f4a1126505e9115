//! The shards, the network, the scheduler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::{
    CancelAnswer, ClientId, ConnectionId, Death, Extras, Letter, LetterAnswer, LetterId, LetterQuery, Message,
    MessageId, MonoMillis, Now, Outcome, PartitionId, Placement, Qos, QueueId, QueueOwner, Record, Sequence,
    SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter, WallMillis,
};
use postroad_base as base;
use postroad_broker::access::Acl;
use postroad_broker::api::{
    BacklogEntry, ClientName, Connect, Delivery, DisconnectCause, Effect, Event, Forwarded, MeshMessage, Principal,
    StateKey, Subscribe,
};
use postroad_broker::consumers::GroupState;
use postroad_broker::hooks::Stamp;
use postroad_broker::{Broker, Config, DeliveryMode, Limits, QueuePolicy, Resend, RestartDelivery, UnknownClient};

use crate::client::{At, Link, Publisher, Subscriber, overflow_of, topic_name};
use crate::groups::{Consumers, GROUP, Told};
use crate::letters::{LifeId, REFUSAL, REQUEUES_MAX, Refused};
use crate::operator::{Operator, Page, Question};
use crate::oracle::{FILTERS, GROUPS, Name, Oracle, PUSH_TOPIC, SHARED_TOPIC};
use crate::plugins::{Seen, echo_of, is_echo};
use crate::random::Random;
use crate::rollout::{Made, Rollout};
use crate::shard::{Job, Shard};
use crate::wisher::{Canceller, WishIds, WishList, Wisher};
use crate::{Canary, Report};

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Shards.
    pub shards: u16,
    /// How many things happen before all comes to rest.
    pub steps: usize,
    /// Credits between two shards.
    pub credits: u32,
    /// Deliveries that a queue holds before publishers are refused. Then they speak MQTT 3, and nobody stays away for good.
    pub queue_max: Option<usize>,
    /// In how many of a thousand steps a shard gets slow, beside the usual.
    pub slow: usize,
    /// How many of a thousand deliveries subscribers refuse. Then an operator looks for the dead letters, and acts on them.
    pub refusals: usize,
    /// Whether each shard begins with two queues of dead letters, as a change of the number of shards brings them together.
    pub brings: bool,
    /// Whether messages have priorities and collapse keys.
    pub wishes: bool,
    /// In how many of a thousand steps something is published under a key, or for later.
    pub wishers: usize,
    /// Whether half of the subscribers ask for what they get.
    pub pulls: bool,
    /// Whether a full queue overflows into one message, instead of refusing.
    pub full_sync: bool,
    /// Whether there is a consumer group, too.
    pub consumers: bool,
    /// Whether there are plugins, and of how many of a thousand publishes they make nothing.
    pub plugins: Option<usize>,
    /// Whether there is a log. Without one nothing crashes.
    pub durable: bool,
    /// The wall clock is put forward and back.
    pub jumps: bool,
    /// The bug that is planted.
    pub canary: Option<Canary>,
    /// Prints everything that happens.
    pub trace: bool,
}

impl Options {
    /// Three shards, a single credit: the narrowest road. Half of the seeds have dead letters, a quarter of them from the
    /// beginning; a third has subscribers that pull.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            shards: 3,
            steps: 3_000,
            credits: 1,
            queue_max: None,
            slow: 0,
            refusals: [0, 0, 100, 400][seed as usize / 8 % 4],
            brings: seed / 16 % 4 == 3,
            wishes: seed / 4 % 2 == 1,
            wishers: [0, 0, 60][seed as usize % 3],
            pulls: seed / 32 % 3 == 1,
            full_sync: false,
            consumers: false,
            plugins: None,
            durable: true,
            jumps: false,
            canary: None,
            trace: false,
        }
    }
}

const PUBLISHERS: usize = 3;
/// The last one is a device: it subscribes to nothing and forgets its session at each connection.
const SUBSCRIBERS: usize = 4;
const DEVICE: usize = SUBSCRIBERS - 1;
/// Members of share groups that come, go and end. They are subscribers, too, numbered after the others.
const MEMBERS: usize = 4;
const CLIENTS: usize = PUBLISHERS + SUBSCRIBERS + MEMBERS;
const TOPICS: usize = SHARED_TOPIC + 1;

/// They publish under keys, and for later. They are numbered after all other clients.
const WISHERS: usize = 2;

/// The shards that brought letters, at most: two for each that is.
const FORMER_SHARDS: u16 = PARTITIONS;
const PARTITIONS: u16 = 16;

/// Most milliseconds by which the wall clock is ahead of where it begins. Less than the window of keys: what a jump ends is not
/// promised.
const AHEAD_MAX: usize = 200_000;

/// Of a look at all letters that is not the operator's.
const TOKEN_OF_ALL: u64 = 0;

/// Runs; what the oracle has to say, with the seed.
///
/// # Errors
/// The promise that was broken.
pub fn run(options: Options) -> Result<Report, String> {
    let mut world = World::new(options);
    let outcome = (0..options.steps).try_for_each(|_| world.step()).and_then(|()| world.finish());
    outcome.map(|()| world.report).map_err(|what| format!("seed {}: {what} ({:?})", options.seed, world.report))
}

struct World {
    options: Options,
    random: Random,
    shards: Vec<Shard>,
    mesh: BTreeMap<(u16, u16), VecDeque<MeshMessage>>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Steps until a crash: soon after a member's session ended, while it gives back.
    crash_in: Option<usize>,
    /// A shard that answers no other and commits nothing, for so many steps.
    slow: Option<(usize, usize)>,
    /// Some member's session is in memory only.
    memory_members: bool,
    /// Which client a connection belongs to.
    clients: BTreeMap<ConnectionId, usize>,
    connection_last: u64,
    boots: u32,
    clock: u64,
    /// By so many milliseconds the wall clock is ahead, for now.
    ahead: u64,
    /// The latest time that a shard was told.
    wall_latest: WallMillis,
    oracle: Oracle,
    /// What `auth.file` says.
    file: Vec<(ClientId, Principal)>,
    operator: Operator,
    wishers: Vec<Wisher>,
    wish_list: WishList,
    wish_ids: WishIds,
    canceller: Canceller,
    /// Queues of what is put off.
    scheduled: BTreeSet<QueueId>,
    consumers: Consumers,
    /// The queue of the consumer group.
    group_queue: Option<QueueId>,
    rollout: Rollout,
    /// What the last look has found that is no page of the operator's.
    page: Option<Page>,
    /// A promise was broken by an effect.
    broken: Option<String>,
    report: Report,
}

impl World {
    fn new(options: Options) -> Self {
        let mut world = Self {
            options,
            random: Random::new(options.seed),
            shards: Vec::new(),
            mesh: BTreeMap::new(),
            publishers: (0..PUBLISHERS).map(|_| Publisher::new(options.wishes, options.plugins.is_some())).collect(),
            subscribers: (0..SUBSCRIBERS + MEMBERS).map(|_| Subscriber::default()).collect(),
            crash_in: None,
            slow: None,
            memory_members: false,
            clients: BTreeMap::new(),
            connection_last: 0,
            boots: 0,
            clock: 1,
            ahead: 0,
            wall_latest: WallMillis(0),
            oracle: Oracle::default(),
            file: Vec::new(),
            operator: Operator::default(),
            wishers: (0..WISHERS).map(|_| Wisher::default()).collect(),
            wish_list: WishList::default(),
            wish_ids: WishIds::default(),
            canceller: Canceller::default(),
            scheduled: BTreeSet::new(),
            consumers: Consumers::default(),
            group_queue: None,
            rollout: Rollout::new(options.seed, options.plugins.unwrap_or(0), options.canary),
            page: None,
            broken: None,
            report: Report::default(),
        };
        world.oracle.letters.queues_are_narrow = options.queue_max.is_some();
        world.oracle.letters.plugins_repair = options.plugins.is_some();
        world.oracle.overtaking = options.queue_max.is_some() || options.plugins.is_some_and(|failures| failures > 0);
        world.oracle.wishes = options.wishes;
        for (number, subscriber) in world.subscribers.iter_mut().enumerate() {
            subscriber.pulls = options.pulls && (number + options.seed as usize).is_multiple_of(2);
        }
        for shard in 0..options.shards {
            let mut broker = Broker::new(world.config(shard), Sequence(1));
            broker.set_access(everybody_everything());
            world.shards.push(Shard::new(broker));
        }
        world.start_plugins();
        if options.brings && options.durable {
            world.bring_letters();
        }
        world
    }

    fn start_plugins(&mut self) {
        if self.options.plugins.is_none() {
            return;
        }
        self.rollout.start(self.options.shards, self.now());
        for (shard, plugins) in self.shards.iter_mut().zip(&self.rollout.shards) {
            shard.broker.set_hooks(Some(Box::new(plugins.clone())));
        }
    }

    fn plugins_step(&mut self) {
        let now = self.now();
        let Some(Made { shard, committed }) = self.rollout.step(&mut self.random, now) else { return };
        if let Some(generation) = committed {
            self.shards[shard].broker.plugins_committed(generation);
        }
        self.poll(shard);
    }

    fn placement(&self) -> Placement {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.options.seed.to_le_bytes());
        Placement::new(PARTITIONS, self.options.shards, key)
    }

    fn config(&self, shard: u16) -> Config {
        let mut config = Config::new(ShardId(shard), self.placement(), self.options.durable, self.boots);
        config.mesh_credits = self.options.credits;
        config.routing_max = 1 + self.options.seed as usize % 4;
        config.backlog_messages_max = 2;
        config.drained_per_tick = [1, 2, 256][self.options.seed as usize / 3 % 3];
        config.retired_per_step = [1, 3, 100][self.options.seed as usize % 3];
        config.limits.drained_per_second = [0, 10, 200, 5_000][self.options.seed as usize / 9 % 4];
        config.limits.drain_jitter_ms = [0, 0, 100][self.options.seed as usize / 36 % 3];
        config.limits.restart_sessions_per_second = [0, 3, 50][self.options.seed as usize / 5 % 3];
        config.limits.restart_delivery =
            [RestartDelivery::Scheduled, RestartDelivery::Pull][usize::from(self.options.seed.is_multiple_of(7))];
        config.limits.inflight_max = 3;
        config.limits.trace_sample = [0, 300_000, 1_000_000][self.options.seed as usize / 2 % 3]; // telling of it changes nothing
        config.limits.keys_window_ms = 1 << 50; // nobody is to be told that it was forgotten
        config.limits.requeues_max = REQUEUES_MAX;
        if self.options.consumers {
            config.limits.retry.attempts_max = 0; // nobody waits for letters here
        }
        config.limits.unknown_client = UnknownClient::Queue;
        config.limits.queue_messages_max = self.options.queue_max.unwrap_or(config.limits.queue_messages_max);
        if self.options.full_sync {
            config.limits.queue_policy = QueuePolicy::FullSync;
        }
        config
    }

    fn now(&self) -> Now {
        Now { mono: MonoMillis(self.clock), wall: WallMillis(self.clock + self.ahead + 1_000_000) }
    }

    /// Long work goes on soon, but not at once.
    fn take_steps(&mut self) {
        let shard = self.random.below(self.shards.len());
        if self.shards[shard].broker.has_steps() {
            self.handle(shard, Event::Tick);
        }
        if self.shards[shard].broker.has_drains() && self.random.chance(100) {
            self.drains_go_on(shard);
        }
    }

    /// Time passes until a drain that waits for it goes on.
    fn drains_go_on(&mut self, shard: usize) {
        let Some(due) = self.shards[shard].broker.next_deadline() else { return };
        self.report.waits += usize::from(due.0 > self.clock);
        // No more: what ends with time is not to end for that.
        self.clock = self.clock.max(due.0.min(self.clock + 100));
        if due.0 <= self.clock {
            self.handle(shard, Event::Tick);
        }
    }

    /// The wall clock is put right: time as it passes goes on. Nobody is told.
    fn clock_jumps(&mut self) {
        self.ahead = self.random.below(AHEAD_MAX) as u64;
        self.report.jumps += 1;
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), String> {
        self.thing()?;
        let mut seen = self.rollout.seen();
        let Seen { asked, failed, repaired, delivered, tried, promoted, aborted, .. } = *seen;
        self.report = Report { asked, failed, repaired, delivered, tried, promoted, aborted, ..self.report };
        seen.broken.take().or_else(|| self.broken.take()).map_or(Ok(()), Err)
    }

    fn thing(&mut self) -> Result<(), String> {
        self.take_steps();
        if self.options.jumps && self.random.chance(10) {
            self.clock_jumps();
        }
        if let Some(left) = self.crash_in {
            self.crash_in = left.checked_sub(1);
            if left == 0 {
                self.crash();
            }
        }
        self.slow = self.slow.and_then(|(shard, left)| Some((shard, left.checked_sub(1)?)));
        if self.options.slow > 0 && self.slow.is_none() && self.random.chance(self.options.slow) {
            self.slow_step();
        }
        if self.options.queue_max.is_none() && self.random.chance(25) {
            self.member_step();
            return Ok(());
        }
        if self.options.wishers > 0 && self.random.chance(self.options.wishers) {
            return self.wish_step();
        }
        if self.options.consumers && self.random.chance(120) {
            self.consumer_step();
            return Ok(());
        }
        if self.has_letters() && self.random.chance(40) {
            self.operator_step();
            return Ok(());
        }
        if self.options.pulls && self.random.chance(60) {
            self.pull_step();
            return Ok(());
        }
        if self.options.plugins.is_some() && self.random.chance(15) {
            self.plugins_step();
            return Ok(());
        }
        match self.random.below(1000) {
            0..=249 => self.mesh_step(),
            250..=449 => self.commit_step(),
            450..=549 => self.server_reads(),
            550..=719 => self.client_reads()?,
            720..=799 => self.acknowledge_step(),
            800..=879 => self.publish_step(),
            880..=929 => self.job_step(),
            930..=959 => self.subscribe_step(),
            960..=984 => self.connect_step(),
            985..=988 => self.disconnect_step(),
            989..=992 if self.options.queue_max.is_none() => self.guest_step(),
            993..=996 => self.retire_step(),
            997 if self.random.chance(500) => self.crash(),
            998 if self.random.chance(500) => self.reload_file(),
            999 if self.random.chance(500) => self.slow_step(),
            _ => self.clock += 1,
        }
        Ok(())
    }

    // ---- the server ----

    fn handle(&mut self, shard: usize, event: Event) {
        let mut now = self.now();
        self.wall_latest = self.wall_latest.max(now.wall);
        if matches!(event, Event::Tick) && self.options.canary == Some(Canary::DueEarly) {
            now.wall = now.wall.after(500);
        }
        if self.options.trace {
            println!("{shard} < {event:?}");
        }
        self.shards[shard].broker.handle(now, event);
        self.poll(shard);
    }

    fn poll(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].broker.poll() {
            self.effect(shard, effect);
        }
    }

    fn effect(&mut self, shard: usize, effect: Effect) {
        if self.options.trace {
            println!("{shard} > {effect:?} at {}", self.shards[shard].disk.next().0);
        }
        match effect {
            Effect::Deliver { connection, ref delivery } if self.is_early(delivery) => {
                let what = format!("{:?} comes early on {connection:?}", delivery.message);
                self.complain(Err(what));
            }
            Effect::Append { record } => self.append(shard, record),
            Effect::Mesh { to, mut message } => {
                if self.options.canary == Some(Canary::StampLost)
                    && let MeshMessage::Forward { stamp, .. } = &mut message
                {
                    *stamp = Stamp::default();
                }
                let overtakes = self.options.canary == Some(Canary::SettledEarly)
                    && matches!(message, MeshMessage::PluginsCommitted { .. });
                let road = self.mesh.entry((shard as u16, to.0)).or_default();
                if overtakes { road.push_front(message) } else { road.push_back(message) }
            }
            Effect::ReadBacklog { queue, after, messages_max, .. } => {
                let job = if self.random.chance(500) {
                    let (entries, end) = self.shards[shard].disk.portion(queue, after, messages_max);
                    Job::Answer { queue, entries, end }
                } else {
                    Job::Read { queue, after, messages_max }
                };
                self.shards[shard].jobs.push_back(job);
            }
            Effect::Ingest { mut batch } => {
                if self.options.canary == Some(Canary::RetirementForgets) {
                    let holds_ids = |key: &StateKey| matches!(key, StateKey::Queue(queue) if queue.holds_known_ids());
                    batch.state.retain(|(key, _)| !holds_ids(key));
                }
                self.shards[shard].jobs.push_back(Job::Ingest(batch));
            }
            Effect::PluginsSettled { generation } => {
                self.rollout.shards[shard].settled(generation);
                self.report.settled += 1;
            }
            Effect::Count { .. } | Effect::Moved(_) => {}
            Effect::LettersFound { token, letters, next, .. } => self.letters_found(shard, token, letters, next),
            Effect::LetterDone { token, answer } => self.letter_done(token, answer),
            Effect::ClientDone { .. } => unreachable!("no caller registers clients here"),
            Effect::Peeked { .. } | Effect::PendingEnded { .. } => unreachable!("nobody looks"),
            Effect::ScheduledFound { page, .. } => {
                let outcome = self.canceller.found(shard, *page.expect("nobody else looks"));
                self.complain(outcome);
            }
            Effect::CancelDone { token, answer } => self.cancel_answered(token, answer),
            Effect::GroupDone { token, answer } => {
                let outcome = self.consumers.answered(token, *answer);
                self.complain(outcome);
            }
            Effect::LetterKept { .. } => unreachable!("no letter comes from elsewhere here"),
            Effect::SetAside { .. } => unreachable!("nothing is named as poison here"),
            Effect::Probe { .. } => unreachable!("nobody here is sent anything again on the same connection"),
            Effect::Close { connection, .. } => self.cut(connection),
            Effect::Park { connection } => {
                self.report.parks += 1;
                self.with_link(connection, |link| link.parked = true);
            }
            Effect::Unpark { connection } => self.with_link(connection, |link| link.parked = false),
            Effect::Connected { connection, session_present, .. } => {
                let number = self.clients.get(&connection).and_then(|client| client.checked_sub(PUBLISHERS));
                if let Some(subscriber) = number.and_then(|number| self.subscribers.get_mut(number)) {
                    let begins_in_memory = !session_present && !subscriber.has_begun();
                    if begins_in_memory {
                        subscriber.begin();
                    }
                    subscriber.begun();
                }
                self.with_link(connection, |link| link.from_server.push_back(effect));
            }
            Effect::ConnectRefused { connection, .. }
            | Effect::Taken { connection, .. }
            | Effect::Published { connection, .. }
            | Effect::Completed { connection, .. }
            | Effect::Subscribed { connection, .. }
            | Effect::Unsubscribed { connection, .. }
            | Effect::Deliver { connection, .. }
            | Effect::ReleaseDelivery { connection, .. } => {
                self.with_link(connection, |link| link.from_server.push_back(effect));
            }
        }
    }

    fn append(&mut self, shard: usize, record: Record) {
        let record = match record {
            // A record that says nothing stands in: sequences must not shift.
            Record::Tagged { queue, .. } if self.options.canary == Some(Canary::NoTagRecords) => {
                Record::WillSet { queue, will: None }
            }
            Record::QueueBegin { queue, owner: QueueOwner::Registration(_), .. }
                if self.options.canary == Some(Canary::NoRegistrationQueue) =>
            {
                Record::WillSet { queue, will: None }
            }
            // The mark of a session that ends.
            Record::Disconnected { queue, expiry: SessionExpiry(0), .. }
                if self.options.canary == Some(Canary::QueueEndsFirst) =>
            {
                Record::QueueEnd { queue }
            }
            Record::Transfer { queue, sequence, outcome: outcome @ Outcome::Refused, .. }
                if self.options.canary == Some(Canary::LetterLost) =>
            {
                Record::Settle { queue, sequence, outcome }
            }
            Record::Settle { queue, outcome: Outcome::Dropped, .. }
                if self.options.canary == Some(Canary::DropForgotten) =>
            {
                Record::WillSet { queue, will: None }
            }
            Record::Transfer { outcome: Outcome::Requeued, message, recipients, .. }
                if self.options.canary == Some(Canary::RequeueKeepsLetter) =>
            {
                Record::Publish { message, recipients }
            }
            Record::Settle { queue, outcome: Outcome::Acknowledged, .. }
                if self.options.canary == Some(Canary::DoneForgotten) && self.group_queue == Some(queue) =>
            {
                Record::WillSet { queue, will: None }
            }
            Record::QueueBegin { queue, owner: QueueOwner::Group(_), .. }
                if self.options.canary == Some(Canary::NoGroupQueue) =>
            {
                Record::WillSet { queue, will: None }
            }
            Record::Settle { queue, outcome: outcome @ Outcome::Collapsed, .. }
                if self.options.canary == Some(Canary::NewestIsOver) =>
            {
                // The newer one has the record before, or one of a few before.
                Record::Settle { queue, sequence: Sequence(self.shards[shard].disk.next().0 - 1), outcome }
            }
            Record::Key { .. } if self.options.canary == Some(Canary::KeyForgotten) => nothing(),
            Record::Settle { queue, outcome: Outcome::Moved, .. }
                if self.scheduled.contains(&queue) && self.options.canary == Some(Canary::DueAgain) =>
            {
                nothing()
            }
            Record::Settle { outcome: Outcome::Cancelled, .. }
                if self.options.canary == Some(Canary::CancelForgotten) =>
            {
                nothing()
            }
            Record::InboundBegin { queue, .. }
                if self.scheduled.contains(&queue) && self.options.canary == Some(Canary::DueUntold) =>
            {
                nothing()
            }
            Record::FullSync { queue, .. } if self.options.canary == Some(Canary::OverflowForgotten) => {
                Record::WillSet { queue, will: None }
            }
            record => record,
        };
        if let Record::QueueBegin { queue, owner: QueueOwner::Scheduled, .. } = record {
            self.scheduled.insert(queue);
        }
        if let Record::QueueBegin { queue, owner: QueueOwner::Group(_), .. } = &record {
            self.group_queue = Some(*queue);
        }
        self.report.collapsed += usize::from(matches!(record, Record::Settle { outcome: Outcome::Collapsed, .. }));
        if let Record::QueueBegin { owner: QueueOwner::Session(client), .. } = &record
            && let Some(number) = (0..SUBSCRIBERS + MEMBERS).find(|n| client_name(PUBLISHERS + n) == client.as_str())
        {
            self.subscribers[number].begin();
        }
        self.report.moved += usize::from(matches!(record, Record::Settle { outcome: Outcome::Moved, .. }));
        self.shards[shard].disk.append(record);
    }

    fn mesh_step(&mut self) {
        let slow = self.slow.map(|(shard, _)| shard as u16);
        let busy = self.mesh.iter().filter(|((_, to), queue)| !queue.is_empty() && Some(*to) != slow);
        let busy: Vec<_> = busy.map(|(pair, _)| *pair).collect();
        if busy.is_empty() {
            return;
        }
        let pair = busy[self.random.below(busy.len())];
        let Some(mut message) = self.mesh.get_mut(&pair).and_then(VecDeque::pop_front) else { return };
        if let MeshMessage::Confirm { outcome: outcome @ Forwarded::NoMember, .. } = &mut message {
            self.report.missed += 1;
            if self.options.canary == Some(Canary::GroupLeftIsNobody) {
                *outcome = Forwarded::NoneHere;
            }
        }
        if matches!(message, MeshMessage::MayRepeat { .. }) {
            self.report.told += 1;
            if self.options.canary == Some(Canary::NobodyTold) {
                return;
            }
        }
        let is_lost = |message: &Message| match self.options.canary {
            Some(Canary::LostForward) => true,
            Some(Canary::PartLost) => is_echo(message),
            _ => false,
        };
        if let MeshMessage::Forward { token, message: forwarded, .. } = &message
            && is_lost(forwarded)
            && self.random.chance(20)
        {
            let confirm = MeshMessage::Confirm { token: *token, outcome: Forwarded::Taken };
            return self.mesh.entry((pair.1, pair.0)).or_default().push_back(confirm);
        }
        self.handle(usize::from(pair.1), Event::Mesh { from: ShardId(pair.0), message });
    }

    fn commit_step(&mut self) {
        let shard = self.random.below(self.shards.len());
        if self.slow.is_some_and(|(slow, _)| slow == shard) {
            return;
        }
        if self.options.canary == Some(Canary::CommitTooEarly)
            && let Some(upto) = self.shards[shard].disk.last()
            && self.random.chance(500)
        {
            return self.tell_committed(shard, upto);
        }
        let uncommitted = self.shards[shard].disk.uncommitted();
        let count = self.random.below(uncommitted + 1);
        if let Some(upto) = self.shards[shard].disk.commit(count) {
            self.tell_committed(shard, upto);
        }
    }

    fn tell_committed(&mut self, shard: usize, upto: Sequence) {
        if upto > self.shards[shard].told {
            self.shards[shard].told = upto;
            self.handle(shard, Event::Committed { upto });
        }
    }

    fn commit_all(&mut self) {
        for shard in 0..self.shards.len() {
            if let Some(upto) = self.shards[shard].disk.commit(usize::MAX) {
                self.tell_committed(shard, upto);
            }
        }
    }

    fn job_step(&mut self) {
        let shard = self.random.below(self.shards.len());
        match self.shards[shard].jobs.pop_front() {
            None => {}
            Some(Job::Read { queue, after, messages_max }) => {
                let (entries, end) = self.shards[shard].disk.portion(queue, after, messages_max);
                self.read(shard, queue, entries, end);
            }
            Some(Job::Answer { queue, entries, end }) => self.read(shard, queue, entries, end),
            Some(Job::Ingest(batch)) => {
                self.shards[shard].disk.ingest(&batch);
                // The segments go a little later, or, at a crash in between, after the next retirement.
                if self.random.chance(700) {
                    self.shards[shard].disk.recycle(batch.upto);
                }
                self.shards[shard].retiring = false;
                self.handle(shard, Event::Ingested);
            }
        }
    }

    fn read(&mut self, shard: usize, queue: QueueId, mut entries: Vec<BacklogEntry>, end: bool) {
        self.report.portions += 1;
        if self.options.canary == Some(Canary::BacklogOutOfOrder) {
            entries.reverse();
        }
        self.handle(shard, Event::Backlog { queue, entries, end });
    }

    /// A segment retires whatever another shard has not answered yet: it may be slow.
    fn retire_step(&mut self) {
        let shard = self.random.below(self.shards.len());
        let Some(upto) = self.shards[shard].disk.last_committed() else { return };
        if std::mem::replace(&mut self.shards[shard].retiring, true) {
            return;
        }
        self.report.retirements += 1;
        self.handle(shard, Event::Retire { upto });
    }

    /// A shard gets slow, and now and then the crash comes before it is fast again.
    fn slow_step(&mut self) {
        let steps = self.random.below(800);
        self.slow = Some((self.random.below(self.shards.len()), steps));
        if self.random.chance(500) {
            self.crash_in = Some(steps);
        }
    }

    /// The process dies and begins again from the disk.
    fn crash(&mut self) {
        if !self.options.durable {
            return;
        }
        self.report.crashes += 1;
        self.slow = None;
        if self.options.trace {
            println!("crash");
        }
        self.boots += 1;
        self.clock += 1;
        for client in 0..CLIENTS + WISHERS {
            self.cut_client(client);
        }
        self.subscribers.iter_mut().for_each(Subscriber::crash);
        self.clients.clear();
        self.oracle.member_ended();
        if std::mem::take(&mut self.memory_members) {
            self.oracle.memory_lost();
        }
        self.mesh.clear();
        self.restart();
    }

    /// The process begins from the disk.
    fn restart(&mut self) {
        for number in 0..self.shards.len() {
            let (now, mut broker) = (self.now(), Broker::new(self.config(number as u16), Sequence(1)));
            broker.set_access(everybody_everything());
            self.shards[number].recover(broker, now);
        }
        self.start_plugins();
        self.letters_crash();
        self.consumers.crash();
        for name in self.canceller.crash() {
            self.oracle.cancelled(name);
        }
        for number in 0..self.shards.len() {
            self.poll(number);
        }
        self.tell_file();
        // No listener opens before every shard knows what the others want (DESIGN 3).
        while self.mesh.values().any(|queue| !queue.is_empty()) {
            self.mesh_step();
        }
    }

    // ---- the clients ----

    fn link(&mut self, client: usize) -> &mut Link {
        if let Some(wisher) = client.checked_sub(CLIENTS) {
            return &mut self.wishers[wisher].link;
        }
        match client.checked_sub(PUBLISHERS) {
            None => &mut self.publishers[client].link,
            Some(subscriber) => &mut self.subscribers[subscriber].link,
        }
    }

    fn with_link(&mut self, connection: ConnectionId, change: impl FnOnce(&mut Link)) {
        if let Some(&client) = self.clients.get(&connection) {
            let link = self.link(client);
            if link.connection == Some(connection) {
                change(link);
            }
        }
    }

    fn cut(&mut self, connection: ConnectionId) {
        if let Some(client) = self.clients.remove(&connection)
            && self.link(client).connection == Some(connection)
        {
            self.cut_client(client);
        }
    }

    fn cut_client(&mut self, client: usize) {
        if let Some(wisher) = client.checked_sub(CLIENTS) {
            return self.wishers[wisher].cut();
        }
        match client.checked_sub(PUBLISHERS) {
            None => self.publishers[client].link.cut(),
            Some(subscriber) => self.subscribers[subscriber].cut(),
        }
    }

    fn home(&self, client: usize) -> usize {
        usize::from(self.placement().home(client_name(client).as_bytes()).0)
    }

    fn connect_step(&mut self) {
        let client = self.random.below(PUBLISHERS + SUBSCRIBERS);
        // Now and then a take-over.
        if self.link(client).connection.is_none() || self.random.chance(30) {
            self.connect(client);
        }
    }

    fn connect(&mut self, client: usize) {
        let old = self.link(client).connection;
        if old.is_some() {
            self.report.disconnects += 1;
            self.cut_client(client);
        }
        self.connection_last += 1;
        let connection = ConnectionId(self.connection_last);
        self.clients.insert(connection, client);
        self.link(client).connection = Some(connection);
        let is_publisher = client < PUBLISHERS;
        let is_device = client == PUBLISHERS + DEVICE;
        if is_device {
            self.subscribers[DEVICE].forget();
        }
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: client_name(client).as_str().into(),
            principal: principal_of(client),
            clean_start: is_device,
            expiry: if is_device { SessionExpiry(0) } else { SessionExpiry::NEVER },
            receive_maximum: 3,
            delivery: self.delivery_of(client),
            will: None,
            hears_refusals: !is_publisher || self.options.canary == Some(Canary::RefusalTold),
            resend: Resend::Reconnect,
        };
        self.handle(self.home(client), Event::Connect(Box::new(connect)));
    }

    // ---- subscribers that pull ----

    fn delivery_of(&self, client: usize) -> Option<DeliveryMode> {
        let pulls = client.checked_sub(PUBLISHERS).is_some_and(|number| self.subscribers[number].pulls);
        let is_pushed_to = self.options.canary == Some(Canary::PushesToAll);
        (pulls && !is_pushed_to).then_some(DeliveryMode::Pull)
    }

    fn pull_step(&mut self) {
        let subscriber = &mut self.subscribers[self.random.below(SUBSCRIBERS + MEMBERS)];
        if subscriber.pulls && subscriber.link.open {
            let (count, qos) = (self.random.below(4) as u16, self.random.below(3) as u8);
            subscriber.pull(count, qos);
            self.report.pulls += 1;
        }
    }

    /// Whoever pulls asks for more than there is.
    fn pull_all(&mut self) {
        for subscriber in &mut self.subscribers[..SUBSCRIBERS] {
            if subscriber.pulls && subscriber.link.open && !std::mem::replace(&mut subscriber.has_pulled_all, true) {
                subscriber.pull(u16::MAX, 0);
            }
        }
    }

    // ---- members of share groups that come, go and end ----

    fn member_step(&mut self) {
        let member = SUBSCRIBERS + self.random.below(MEMBERS);
        let Subscriber { link, .. } = &self.subscribers[member];
        let Some(connection) = link.connection else { return self.member_comes(member) };
        if !link.open || self.subscribers[member].is_changing() {
            return;
        }
        match self.random.below(100) {
            0..=54 => {
                let group = SHARED_TOPIC + self.random.below(GROUPS);
                let subscribe = self.random.chance(750);
                self.subscribers[member].request(group, subscribe);
            }
            55..=69 => self.member_leaves(member, connection, DisconnectCause::Lost),
            70..=89 => {
                let cause = DisconnectCause::Normal { expiry: Some(SessionExpiry(0)) };
                self.member_leaves(member, connection, cause);
            }
            90..=94 => self.member_comes(member),
            _ => self.time_passes(),
        }
    }

    fn member_comes(&mut self, member: usize) {
        self.cut_client(PUBLISHERS + member);
        self.connection_last += 1;
        let connection = ConnectionId(self.connection_last);
        self.clients.insert(connection, PUBLISHERS + member);
        let link = &mut self.subscribers[member].link;
        // Whether it is still there is not judged.
        (link.connection, link.known) = (Some(connection), false);
        let in_memory = self.options.seed.is_multiple_of(2);
        let expiry = SessionExpiry([u32::from(!in_memory), 1, 100, u32::MAX][self.random.below(4)]);
        self.memory_members |= in_memory;
        let clean_start = self.random.chance(200);
        if clean_start {
            self.oracle.member_ended();
        }
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: client_name(PUBLISHERS + member).as_str().into(),
            principal: Principal::default(),
            clean_start,
            expiry,
            receive_maximum: 1 + self.random.below(3) as u16,
            delivery: self.delivery_of(PUBLISHERS + member),
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        };
        self.handle(self.home(PUBLISHERS + member), Event::Connect(Box::new(connect)));
    }

    fn member_leaves(&mut self, member: usize, connection: ConnectionId, cause: DisconnectCause) {
        if self.random.chance(100) {
            self.crash_in = Some(self.random.below(30));
        }
        self.oracle.member_ended();
        self.cut(connection);
        self.handle(self.home(PUBLISHERS + member), Event::Disconnect { connection, cause });
    }

    /// Sessions of a second end.
    fn time_passes(&mut self) {
        self.oracle.member_ended();
        self.clock += 2_000;
        (0..self.shards.len()).for_each(|shard| self.handle(shard, Event::Tick));
    }

    /// All end: what they have not acknowledged has to come to the one that stays.
    fn members_end(&mut self) {
        if self.options.queue_max.is_some() {
            return;
        }
        for member in SUBSCRIBERS..SUBSCRIBERS + MEMBERS {
            self.member_comes(member);
            let Some(connection) = self.subscribers[member].link.connection else { continue };
            let cause = DisconnectCause::Normal { expiry: Some(SessionExpiry(0)) };
            self.member_leaves(member, connection, cause);
        }
    }

    fn disconnect_step(&mut self) {
        let client = self.random.below(PUBLISHERS + SUBSCRIBERS);
        let Some(connection) = self.link(client).connection else { return };
        self.report.disconnects += 1;
        self.cut(connection);
        let cause = DisconnectCause::Lost;
        self.handle(self.home(client), Event::Disconnect { connection, cause });
    }

    // ---- keys, and what is put off ----

    /// Whether it comes before it was to be published.
    fn is_early(&self, delivery: &Delivery) -> bool {
        let wish = Name::parse(&delivery.message.payload).and_then(|name| self.wish_list.get(name));
        wish.and_then(|wish| wish.deliver_at).is_some_and(|at| at > self.wall_latest)
    }

    /// Something is published under a key or for later, is published again, is read, or is due.
    fn wish_step(&mut self) -> Result<(), String> {
        let wisher = self.random.below(WISHERS);
        match self.random.below(100) {
            0..=9 => self.connect_wisher(wisher),
            10..=13 => self.disconnect_wisher(wisher),
            14..=39 => self.wish(wisher),
            40..=59 => self.server_reads_wisher(wisher),
            60..=79 => self.wisher_reads(wisher)?,
            80..=87 => self.cancel_step(),
            _ => self.due_step(),
        }
        Ok(())
    }

    /// Some time passes: what is due is published.
    fn due_step(&mut self) {
        self.clock += self.random.below(200) as u64;
        for shard in 0..self.shards.len() {
            if self.shards[shard].broker.next_deadline().is_some_and(|at| at.0 <= self.clock) {
                self.handle(shard, Event::Tick);
            }
        }
    }

    /// Somebody looks at what is put off, or takes some of it back.
    fn cancel_step(&mut self) {
        let shard = self.random.below(self.shards.len());
        let (shard, event) = self.canceller.ask(shard, &mut self.random);
        self.handle(shard, event);
    }

    fn cancel_answered(&mut self, token: u64, answer: CancelAnswer) {
        match self.canceller.answered(token, answer, &self.wish_ids) {
            Ok(Some(name)) => {
                self.report.cancelled += 1;
                self.oracle.cancelled(name);
            }
            Ok(None) => {}
            Err(what) => self.complain(Err(what)),
        }
    }

    fn connect_wisher(&mut self, wisher: usize) {
        if self.wishers[wisher].link.connection.is_some() {
            return;
        }
        self.connection_last += 1;
        let connection = ConnectionId(self.connection_last);
        self.clients.insert(connection, CLIENTS + wisher);
        self.wishers[wisher].link.connection = Some(connection);
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: client_name(CLIENTS + wisher).as_str().into(),
            principal: Principal { user: Some("wisher".into()), ..Principal::default() },
            clean_start: true,
            expiry: SessionExpiry(0),
            receive_maximum: 3,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        };
        self.handle(self.home(CLIENTS + wisher), Event::Connect(Box::new(connect)));
    }

    fn disconnect_wisher(&mut self, wisher: usize) {
        let Some(connection) = self.wishers[wisher].link.connection else { return };
        self.cut(connection);
        self.handle(self.home(CLIENTS + wisher), Event::Disconnect { connection, cause: DisconnectCause::Lost });
    }

    fn wish(&mut self, wisher: usize) {
        if !self.wishers[wisher].has_room() {
            return;
        }
        if self.random.chance(400) {
            return self.wish_again(wisher);
        }
        // Who forgets its session may get it twice, and so may a share group whose member does.
        let topic = self.random.below(TOPICS + SUBSCRIBERS - 1);
        let qos = if topic == SHARED_TOPIC { 1 } else { 1 + self.random.below(2) as u8 };
        let is_put_off = self.random.chance(500);
        let deliver_at = is_put_off.then(|| self.now().wall.after(self.random.below(3_000) as u64));
        let is_keyed = !is_put_off || self.random.chance(500);
        let wish = self.wish_list.add(topic, qos, is_keyed, deliver_at);
        self.oracle.published(wish.name, SUBSCRIBERS);
        self.report.put_off += usize::from(is_put_off);
        self.wishers[wisher].publish(wish, true);
    }

    fn wish_again(&mut self, wisher: usize) {
        let Some(wish) = self.wish_list.again(&mut self.random) else { return };
        self.report.repeated += 1;
        let is_own = !wish.was_taken() || self.random.chance(900);
        self.wishers[wisher].publish(wish, is_own);
    }

    fn server_reads_wisher(&mut self, wisher: usize) {
        let link = &mut self.wishers[wisher].link;
        if link.parked {
            return;
        }
        if let Some(event) = link.to_server.pop_front() {
            self.handle(self.home(CLIENTS + wisher), event);
        }
    }

    fn wisher_reads(&mut self, wisher: usize) -> Result<(), String> {
        let Some(effect) = self.wishers[wisher].link.from_server.pop_front() else { return Ok(()) };
        let is_refused = self.wishers[wisher].take(effect, &mut self.wish_list, &mut self.oracle)?;
        self.report.refused += usize::from(is_refused);
        if is_refused && self.options.queue_max.is_none() {
            return Err("a publish was refused".into());
        }
        Ok(())
    }

    /// All come to rest: what nobody has heard of is repeated, and time passes until nothing is put off any more.
    fn wishes_flow(&mut self) -> Result<(), String> {
        for wisher in 0..WISHERS {
            self.connect_wisher(wisher);
            self.server_reads_wisher(wisher);
            self.wisher_reads(wisher)?;
            if self.wishers[wisher].is_idle() && self.wishers[wisher].has_room() && !self.wish_list.is_heard() {
                self.wish_again(wisher);
            }
        }
        if self.shards.iter().any(|shard| shard.broker.stats().scheduled > 0) {
            self.due_step();
        }
        Ok(())
    }

    fn wishes_are_at_rest(&self) -> bool {
        let quiet = |wisher: &Wisher| {
            wisher.is_idle() && wisher.link.to_server.is_empty() && wisher.link.from_server.is_empty()
        };
        self.options.wishers == 0
            || self.wishers.iter().all(quiet)
                && self.wish_list.is_heard()
                && self.canceller.is_at_rest()
                && self.shards.iter().all(|shard| shard.broker.stats().scheduled == 0)
    }

    /// A guest comes, or comes again, with a session that may end soon; it subscribes and acknowledges nothing.
    /// The oracle doesn't judge it: it stands in the way.
    fn guest_step(&mut self) {
        let client = format!("guest-{}", self.random.below(3));
        let shard = usize::from(self.placement().home(client.as_bytes()).0);
        self.connection_last += 1;
        let connection = ConnectionId(self.connection_last);
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: client.as_str().into(),
            principal: Principal::default(),
            clean_start: self.random.chance(300),
            expiry: SessionExpiry([0, 1, 100][self.random.below(3)]),
            receive_maximum: 2,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        };
        self.handle(shard, Event::Connect(Box::new(connect)));
        let filter = TopicFilter::new(["t/#", "t/0", "t/1"][self.random.below(3)]).expect("a filter");
        let options = SubscriptionOptions { qos: Qos::ExactlyOnce, ..SubscriptionOptions::default() };
        let (tag, filters) = (Tag::new(1).expect("not 0"), vec![Subscribe { filter: Ok(filter), options }]);
        self.handle(shard, Event::Subscribe { connection, tag, filters });
        if self.random.chance(500) {
            let cause = DisconnectCause::Normal { expiry: None };
            self.handle(shard, Event::Disconnect { connection, cause });
            self.clock += 1_000;
            (0..self.shards.len()).for_each(|shard| self.handle(shard, Event::Tick));
        }
    }

    /// The server reads one packet of some client.
    fn server_reads(&mut self) {
        let client = self.random.below(CLIENTS);
        let link = self.link(client);
        if link.parked {
            return;
        }
        let Some(event) = link.to_server.pop_front() else { return };
        match client.checked_sub(PUBLISHERS).and_then(|number| self.subscribers[number].refusal(&event)) {
            Some(refused) => self.take_refusal(client, refused, event),
            None => self.handle(self.home(client), event),
        }
    }

    /// Some client reads one packet.
    fn client_reads(&mut self) -> Result<(), String> {
        let client = self.random.below(CLIENTS);
        self.client_reads_one(client)
    }

    fn client_reads_one(&mut self, client: usize) -> Result<(), String> {
        let Some(effect) = self.link(client).from_server.pop_front() else { return Ok(()) };
        match client.checked_sub(PUBLISHERS) {
            None => {
                if let Effect::Published { connection, reason, .. } = &effect {
                    self.report.acknowledged += usize::from(!reason.is_error());
                    if reason.is_error() {
                        self.report.refused += 1;
                        return self.refused(client, *connection);
                    }
                }
                self.publishers[client].take(effect, &mut self.oracle)
            }
            Some(number) => {
                let is_delivery = matches!(effect, Effect::Deliver { .. });
                self.report.received += usize::from(is_delivery);
                let tells = |delivery: &Delivery| overflow_of(&delivery.message).is_some();
                let is_full_sync = matches!(&effect, Effect::Deliver { delivery, .. } if tells(delivery));
                self.report.full_syncs += usize::from(is_full_sync);
                let refusals = self.options.refusals;
                let refuses = is_delivery && refusals > 0 && self.random.chance(refusals);
                let at = At { number, shard: self.home(client), refuses };
                if let Effect::Deliver { delivery, .. } = &effect
                    && let Some(name) = Name::parse(&delivery.message.payload)
                    && number < DEVICE
                {
                    self.wish_ids.came(name, &delivery.message)?;
                    self.canceller.came(name)?;
                }
                self.subscribers[number].take(at, effect, &mut self.oracle)
            }
        }
    }

    /// MQTT 3 has no way to tell a publisher: its connection ends.
    fn refused(&mut self, client: usize, connection: ConnectionId) -> Result<(), String> {
        if self.options.queue_max.is_none() && self.options.plugins.is_none_or(|failures| failures == 0) {
            return Err("a publish was refused".into());
        }
        self.cut(connection);
        let cause = DisconnectCause::Lost;
        self.handle(self.home(client), Event::Disconnect { connection, cause });
        Ok(())
    }

    /// `auth.file` is read again: it names some subscribers, with or without their users. An entry never goes: what waits
    /// for its client would go with it.
    fn reload_file(&mut self) {
        let before = std::mem::take(&mut self.file);
        for subscriber in 0..SUBSCRIBERS {
            let client = PUBLISHERS + subscriber;
            let name = client_name(client);
            if before.iter().any(|(known, _)| known.as_str() == name) || self.random.chance(500) {
                let principal = if self.random.chance(500) { principal_of(client) } else { Principal::default() };
                self.file.push((name.as_str().into(), principal));
            }
        }
        self.tell_file();
    }

    fn tell_file(&mut self) {
        if self.file.is_empty() {
            return;
        }
        for shard in 0..self.shards.len() {
            let home = |client: &ClientId| usize::from(self.placement().home(client.as_str().as_bytes()).0);
            let clients = self.file.iter().filter(|(client, _)| home(client) == shard).cloned().collect();
            self.handle(shard, Event::Registrations { clients });
        }
    }

    /// Some subscriber sends an acknowledgement that it owes; mostly the oldest.
    fn acknowledge_step(&mut self) {
        let number = self.random.below(SUBSCRIBERS + MEMBERS);
        self.acknowledge_one(number);
    }

    fn acknowledge_one(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        if let Some(event) = subscriber.due.pop_front() {
            subscriber.link.to_server.push_back(event);
        }
    }

    fn publish_step(&mut self) {
        let publisher = self.random.below(PUBLISHERS);
        if !self.publishers[publisher].has_room() {
            return;
        }
        let any = self.random.below(TOPICS + SUBSCRIBERS);
        let topic = if self.random.chance(300) { SHARED_TOPIC } else { any };
        // Exactly once does not hold for who forgets its session.
        let qos = if topic == PUSH_TOPIC + DEVICE { 1 } else { 1 + self.random.below(2) as u8 };
        let name = self.publishers[publisher].publish(publisher, topic, qos);
        self.oracle.published(name, SUBSCRIBERS);
        if self.options.plugins.is_some() {
            self.oracle.published(echo_of(name), SUBSCRIBERS);
        }
        self.consumers.published(name);
        self.report.published += 1;
    }

    fn subscribe_step(&mut self) {
        let number = self.random.below(SUBSCRIBERS);
        let topic = self.random.below(FILTERS);
        let subscriber = &mut self.subscribers[number];
        if number == DEVICE || !subscriber.link.open || subscriber.is_changing() {
            return;
        }
        if topic >= SHARED_TOPIC && number > 0 {
            return; // the one that stays is enough
        }
        if topic >= SHARED_TOPIC || self.random.chance(700) {
            self.oracle.subscribing(number, topic);
            subscriber.request(topic, true);
        } else {
            self.oracle.unsubscribing(number, topic);
            subscriber.request(topic, false);
        }
    }

    // ---- the consumer group ----

    fn consumer_step(&mut self) {
        if self.random.chance(100) {
            return self.leases_end(100);
        }
        if let Some(told) = self.consumers.act(&mut self.random) {
            self.tell_group(told);
        }
    }

    fn group_home(&self) -> usize {
        usize::from(self.placement().home(GROUP.as_bytes()).0)
    }

    fn tell_group(&mut self, told: Told) {
        let (name, caller) = (GROUP.into(), Principal::default());
        let event = match told {
            Told::Order(token, order) => Event::Group { token, name, caller, order: Box::new(order) },
            Told::Left(token) => Event::GroupLeft { token, name },
        };
        self.handle(self.group_home(), event);
    }

    /// So much time passes on the group's shard.
    fn leases_end(&mut self, millis: u64) {
        self.clock += millis;
        let shard = self.group_home();
        if self.shards[shard].broker.next_deadline().is_some_and(|due| due.0 <= self.clock) {
            self.handle(shard, Event::Tick);
        }
    }

    /// Consumers take and acknowledge until nothing is left.
    fn consumers_drain(&mut self) {
        if !self.options.consumers {
            return;
        }
        if let Some(told) = self.consumers.drain(&mut self.random) {
            self.tell_group(told);
        }
        let state = self.shards[self.group_home()].broker.group_state(GROUP);
        let has_any = state.is_some_and(|state| state.queue.waiting + state.queue.in_flight > 0);
        if has_any || self.consumers.waits() {
            self.leases_end(100); // what somebody died with comes back, and who waits in vain hears it
        }
    }

    fn are_consumers_at_rest(&self) -> bool {
        let is_empty = |state: GroupState| state.queue.waiting + state.queue.in_flight == 0;
        let state = self.shards[self.group_home()].broker.group_state(GROUP);
        !self.options.consumers || (self.consumers.is_at_rest() && state.is_some_and(is_empty))
    }

    // ---- dead letters ----

    /// The server reads a refusal: the delivery is a letter from then on, once the log holds what it has written of that.
    fn take_refusal(&mut self, client: usize, refused: Refused, event: Event) {
        self.report.letters += 1;
        let shard = self.home(client);
        let before = self.shards[shard].disk.next();
        self.handle(shard, event);
        let last = self.shards[shard].disk.next();
        let records = (Sequence(before.0 - 1), Sequence(last.0 - 1));
        let outcome = self.oracle.letters.refused(refused, records);
        self.complain(outcome);
    }

    /// Each shard has been given the letters of two others: of some clients that live there, and of some that do not.
    fn bring_letters(&mut self) {
        for (shard, place) in self.shards.iter_mut().enumerate() {
            for queue in [shard as u16, shard as u16 + FORMER_SHARDS / 2] {
                let mut letters = Vec::new();
                for number in 0..=self.random.below(6) {
                    let subscriber = self.random.below(SUBSCRIBERS);
                    // Its publisher is not here.
                    let (publisher, topic) = (PUBLISHERS + usize::from(queue), PUSH_TOPIC + subscriber);
                    let name = Name { publisher, topic, qos: 1, number };
                    let message = former_letter(name, MessageId(u128::from(queue) << 16 | (number + 1) as u128));
                    self.oracle.letters.brought(shard, subscriber, name, message.id);
                    letters.push(message);
                    self.report.brought += 1;
                }
                place.disk.bring_letters(QueueId::new(PartitionId(queue), 0), letters);
            }
        }
        self.restart();
    }

    fn operator_step(&mut self) {
        let shard = self.random.below(self.shards.len());
        let question = if self.random.chance(600) {
            self.operator.look(shard, self.clock, &self.oracle.letters, &mut self.random)
        } else {
            self.operator.act(&mut self.random)
        };
        match question {
            None => {}
            Some(Question::Find { shard, token, query }) => {
                self.handle(shard, Event::FindLetters { token, query: Box::new(query) });
            }
            Some(Question::Act { shard, token, ask }) => {
                let (id, action) = (ask.letter, Box::new(ask.action.clone()));
                self.oracle.letters.asked(token, ask);
                self.handle(shard, Event::Letter { token, id, action });
            }
        }
    }

    fn has_letters(&self) -> bool {
        self.options.refusals > 0 || self.options.brings
    }

    fn letters_found(&mut self, shard: usize, token: u64, letters: Vec<Letter>, next: Option<LetterId>) {
        let page = Page { letters, next };
        if token == TOKEN_OF_ALL {
            self.page = Some(page);
            return;
        }
        self.report.pages += 1;
        let outcome = self.operator.found(shard, token, page, self.clock, &mut self.oracle.letters);
        self.complain(outcome);
    }

    fn letter_done(&mut self, token: u64, answer: LetterAnswer) {
        self.report.requeued += usize::from(matches!(answer, LetterAnswer::Done(Some(_))));
        self.report.gone += usize::from(matches!(answer, LetterAnswer::Gone));
        let outcome = self.oracle.letters.answered(token, answer);
        self.complain(outcome);
    }

    fn letters_crash(&mut self) {
        let committed: Vec<Sequence> = self.shards.iter().map(|shard| Sequence(shard.disk.next().0 - 1)).collect();
        self.oracle.letters.crash(&committed);
        self.operator.crash();
    }

    fn complain(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.broken.get_or_insert(what);
        }
    }

    /// Nothing is under way: what is found on all shards is what there has to be, and as much as each shard says.
    fn check_letters(&mut self) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for shard in 0..self.shards.len() {
            let before = found.len();
            self.all_letters_of(shard, &mut found)?;
            let (count, told) = (found.len() - before, self.shards[shard].broker.stats().letters);
            if count != told {
                return Err(format!("shard {shard} says that it has {told} letters, but {count} are found"));
            }
        }
        self.oracle.settle_letters(&found)
    }

    fn all_letters_of(&mut self, shard: usize, found: &mut BTreeSet<LifeId>) -> Result<(), String> {
        let mut query = LetterQuery { limit: 3, ..LetterQuery::default() };
        loop {
            let asked = Event::FindLetters { token: TOKEN_OF_ALL, query: Box::new(query.clone()) };
            self.handle(shard, asked);
            while self.page.is_none() && !self.shards[shard].is_at_rest() {
                self.commit_all();
                self.job_step();
            }
            let Page { letters, next } = self.page.take().ok_or("a look for letters is not answered")?;
            for letter in letters {
                let (life, _) = self.oracle.letters.found(&letter)?;
                if !found.insert(life) {
                    return Err(format!("{letter:?} is found twice"));
                }
            }
            match next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    // ---- rest ----

    /// Everybody connects, everything flows, until nothing is left to do; then the oracle judges.
    fn finish(&mut self) -> Result<(), String> {
        self.slow = None;
        if self.options.jumps {
            self.ahead = AHEAD_MAX as u64; // what was to be published at its latest time is due soon
        }
        self.members_end();
        for _ in 0..200_000 {
            for client in 0..PUBLISHERS + SUBSCRIBERS {
                if self.link(client).connection.is_none() {
                    self.connect(client);
                }
            }
            if self.is_at_rest() {
                return self.judge();
            }
            self.flow_step()?;
        }
        Err("it does not come to rest".into())
    }

    fn judge(&mut self) -> Result<(), String> {
        self.oracle.settle()?;
        self.consumers.settle(&self.oracle)?;
        (self.report.takes, self.report.again) = (self.consumers.takes, self.consumers.again);
        self.check_letters()?;
        self.keys_end()?;
        self.check_space()?;
        self.check_letters()?;
        if self.has_letters() {
            self.crash();
            self.check_letters()?;
        }
        Ok(())
    }

    /// The window of all keys is over: also of those whose publishers had an answer that a crash made the server forget, and that are
    /// not repeated.
    fn keys_end(&mut self) -> Result<(), String> {
        self.clock += 10;
        for shard in 0..self.shards.len() {
            let limits = Limits { keys_window_ms: 1, ..self.config(shard as u16).limits };
            self.shards[shard].broker.set_limits(limits);
            while self.shards[shard].broker.has_steps() {
                self.handle(shard, Event::Tick);
            }
        }
        self.commit_all();
        while self.mesh.values().any(|queue| !queue.is_empty()) {
            self.mesh_step();
        }
        let left: usize = self.shards.iter().map(|shard| shard.broker.stats().keys).sum();
        if left > 0 { Err(format!("{left} keys are not forgotten")) } else { Ok(()) }
    }

    /// What ended has left nothing in the old generation, once all is retired.
    fn check_space(&mut self) -> Result<(), String> {
        for shard in 0..self.shards.len() {
            let Some(upto) = self.shards[shard].disk.last_committed() else { continue };
            self.shards[shard].retiring = true;
            self.handle(shard, Event::Retire { upto });
            while self.shards[shard].retiring {
                self.take_steps();
                self.commit_all();
                self.job_step();
            }
            // What was said last of each shard's publishes may be left over.
            let (told, kept) = self.shards[shard].broker.remembered();
            let most = self.shards.len() * (1 + self.options.seed as usize % 4 + GROUPS);
            if told > 0 || kept > most {
                return Err(format!(
                    "all is released, but shard {shard} was told of {told} publishes and keeps {kept}"
                ));
            }
            let orphans = self.shards[shard].disk.orphans();
            if orphans > 0 {
                return Err(format!("{orphans} deliveries of ended queues are stored on shard {shard}"));
            }
        }
        Ok(())
    }

    fn flow_step(&mut self) -> Result<(), String> {
        self.pull_all();
        self.take_steps();
        self.mesh_step();
        self.commit_step();
        self.commit_all();
        self.job_step();
        self.server_reads();
        self.client_reads()?;
        self.acknowledge_step();
        if self.options.wishers > 0 {
            self.wishes_flow()?;
        }
        self.consumers_drain();
        self.broken.take().map_or(Ok(()), Err)
    }

    fn is_at_rest(&self) -> bool {
        let quiet = |link: &Link| link.open && link.to_server.is_empty() && link.from_server.is_empty();
        self.mesh.values().all(VecDeque::is_empty)
            && !self.operator.waits()
            && self.wishes_are_at_rest()
            && self.are_consumers_at_rest()
            && self.shards.iter().all(Shard::is_at_rest)
            && self.publishers.iter().all(|publisher| quiet(&publisher.link) && publisher.is_idle())
            && self.subscribers[..SUBSCRIBERS].iter().all(|subscriber| {
                quiet(&subscriber.link) && subscriber.due.is_empty() && subscriber.has_what_it_wants()
            })
    }
}

/// A record that says nothing: sequences must not shift.
fn nothing() -> Record {
    Record::WillSet { queue: QueueId::NONE, will: None }
}

pub(crate) fn client_of_subscriber(subscriber: usize) -> String {
    client_name(PUBLISHERS + subscriber)
}

pub(crate) fn subscriber_of_client(client: &ClientId) -> Option<usize> {
    (0..SUBSCRIBERS + MEMBERS).find(|&subscriber| client_of_subscriber(subscriber) == client.as_str())
}

/// Subscribers are users, hence registered with their first connection, if no push was first.
fn principal_of(client: usize) -> Principal {
    let user = (client >= PUBLISHERS).then(|| format!("user-{client}").into());
    Principal { user, ..Principal::default() }
}

/// A letter of a push to a client that has refused it.
fn former_letter(name: Name, id: MessageId) -> Arc<Message> {
    let client = ClientId::from(client_of_subscriber(name.topic - PUSH_TOPIC).as_str());
    let (outcome, reason_code, at) = (Outcome::Refused, REFUSAL as u8, WallMillis(1));
    let death = Death {
        client,
        is_push: true,
        is_group: false,
        outcome,
        reason_code,
        attempts: 1,
        sent: None,
        at,
        error: None,
    };
    let extras = Extras { death: Some(Box::new(death)), ..Extras::default() };
    Arc::new(Message {
        id,
        topic: topic_name(name.topic),
        payload: name.text().into(),
        properties: Default::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: Some(Box::new(extras)),
    })
}

fn everybody_everything() -> Arc<Acl> {
    let rules = "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"allow\"\n";
    Arc::new(Acl::parse(rules).expect("a valid rule"))
}

fn client_name(client: usize) -> String {
    format!("client-{client}")
}

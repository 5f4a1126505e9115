//! Retained messages: several shards with a single credit between them, portions of one topic, crashes.
//!
//! Publishers number what they retain; now and then they clear. Subscribers come with a new session each time, so that
//! what one of them gets for a topic must be strictly ascending: nothing twice, nothing older after newer, be it live or
//! retained. When all has come to rest, each subscriber's last of a topic is the last that was retained, and a new one
//! gets exactly the last of each topic, once.

use std::collections::{BTreeMap, VecDeque};

use base::{
    ConnectionId, Message, MessageId, MonoMillis, Now, Placement, Qos, QueueId, ReasonCode, Sequence, SessionExpiry,
    ShardId, SubscriptionOptions, Tag, TopicFilter, TopicName, WallMillis,
};
use postroad_base as base;
use postroad_broker::api::{
    ClientName, Connect, Delivery, DisconnectCause, Effect, Event, Inbound, MeshMessage, Principal, Subscribe,
};
use postroad_broker::{Broker, Config, Resend};

use crate::Canary;
use crate::random::Random;
use crate::shard::{Job, Shard};

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct RetainedOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// Shards.
    pub shards: u16,
    /// How many things happen before all comes to rest.
    pub steps: usize,
    /// The bug that is planted.
    pub canary: Option<Canary>,
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetainedReport {
    /// Publishes that were answered.
    pub acknowledged: usize,
    /// Deliveries that came live.
    pub live: usize,
    /// Deliveries that came as retained ones.
    pub retained: usize,
    /// Subscribers that subscribed.
    pub subscribed: usize,
    /// Crashes of the server.
    pub crashes: usize,
}

const TOPICS: usize = 6;
const PUBLISHERS: usize = 3;
const SUBSCRIBERS: usize = 4;

/// Runs; what was broken, with the seed.
///
/// # Errors
/// The promise that was broken.
pub fn run_retained(options: RetainedOptions) -> Result<RetainedReport, String> {
    let mut world = World::new(options);
    let outcome = (0..options.steps).try_for_each(|_| world.step()).and_then(|()| world.finish());
    outcome.map(|()| world.report).map_err(|what| format!("seed {}: {what} ({:?})", options.seed, world.report))
}

/// What both kinds of client have. A client has a new name, and so a new session, after each crash.
#[derive(Default)]
struct Client {
    name: String,
    connection: Option<ConnectionId>,
    to_server: VecDeque<Event>,
    parked: bool,
}

#[derive(Default)]
struct Publisher {
    client: Client,
    /// Sent and not answered: tag, topic, number.
    unanswered: VecDeque<(Tag, usize, u32)>,
    unreleased: Vec<Tag>,
}

#[derive(Default)]
struct Subscriber {
    client: Client,
    subscribed: bool,
    /// The number that came last, by topic.
    last: BTreeMap<usize, u32>,
    came: usize,
    received: Vec<Tag>,
    congested: bool,
}

struct World {
    options: RetainedOptions,
    random: Random,
    shards: Vec<Shard>,
    mesh: BTreeMap<(u16, u16), VecDeque<MeshMessage>>,
    /// The way between two shards on which nothing moves for a while.
    slow: Option<(u16, u16)>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// What may be retained for a topic: number, whether it is a clearing. One, but for a crash.
    candidates: Vec<VecDeque<(u32, bool)>>,
    numbers: Vec<u32>,
    names: usize,
    connection_last: u64,
    boots: u32,
    clock: u64,
    report: RetainedReport,
}

impl World {
    fn new(options: RetainedOptions) -> Self {
        let mut world = Self {
            options,
            random: Random::new(options.seed),
            shards: Vec::new(),
            mesh: BTreeMap::new(),
            slow: None,
            publishers: (0..PUBLISHERS).map(|_| Publisher::default()).collect(),
            subscribers: (0..SUBSCRIBERS).map(|_| Subscriber::default()).collect(),
            candidates: vec![VecDeque::from([(0, true)]); TOPICS],
            numbers: vec![0; TOPICS],
            names: 0,
            connection_last: 0,
            boots: 0,
            clock: 1,
            report: RetainedReport::default(),
        };
        for shard in 0..options.shards {
            let broker = Broker::new(world.config(shard), Sequence(1));
            world.shards.push(Shard::new(broker));
        }
        world
    }

    fn placement(&self) -> Placement {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.options.seed.to_le_bytes());
        Placement::new(16, self.options.shards, key)
    }

    fn config(&self, shard: u16) -> Config {
        let mut config = Config::new(ShardId(shard), self.placement(), true, self.boots);
        config.mesh_credits = 1;
        config.limits.inflight_max = 2;
        config.retained_portion_max = 1 + self.options.seed as usize % 3;
        config.retired_per_step = 1 + self.options.seed as usize % 3;
        config
    }

    fn now(&self) -> Now {
        Now { mono: MonoMillis(self.clock), wall: WallMillis(self.clock + 1_000_000) }
    }

    fn step(&mut self) -> Result<(), String> {
        if self.random.chance(10) {
            let shards = usize::from(self.options.shards);
            let mut shard = || self.random.below(shards) as u16;
            self.slow = Some((shard(), shard()));
        }
        match self.random.below(1000) {
            0..=249 => self.mesh_step()?,
            250..=399 => self.commit_step()?,
            400..=549 => self.tick_step()?,
            550..=749 => self.server_reads()?,
            750..=899 => self.publish_step(),
            900..=964 => self.subscribe_step()?,
            965..=976 => self.leave_step()?,
            977..=984 => self.congestion_step()?,
            985..=990 => self.retire_step()?,
            991..=996 => self.job_step()?,
            997 if self.random.chance(200) => self.crash()?,
            _ => self.clock += 1,
        }
        Ok(())
    }

    // ---- the server ----

    fn handle(&mut self, shard: usize, event: Event) -> Result<(), String> {
        let now = self.now();
        self.shards[shard].broker.handle(now, event);
        self.poll(shard)
    }

    fn poll(&mut self, shard: usize) -> Result<(), String> {
        while let Some(effect) = self.shards[shard].broker.poll() {
            self.effect(shard, effect)?;
        }
        Ok(())
    }

    fn effect(&mut self, shard: usize, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Append { record } => self.shards[shard].disk.append(record),
            Effect::Mesh { to, message: MeshMessage::Fence { token } }
                if self.options.canary == Some(Canary::OvertakingFence) =>
            {
                let way = self.mesh.entry((to.0, shard as u16)).or_default();
                way.push_front(MeshMessage::FenceReached { token });
            }
            Effect::Mesh { to, message } => self.mesh.entry((shard as u16, to.0)).or_default().push_back(message),
            Effect::Ingest { batch } => self.shards[shard].jobs.push_back(Job::Ingest(batch)),
            Effect::ReadBacklog { queue, after, messages_max, .. } => {
                self.shards[shard].jobs.push_back(Job::Read { queue, after, messages_max });
            }
            Effect::Park { connection } => self.set_parked(connection, true),
            Effect::Unpark { connection } => self.set_parked(connection, false),
            Effect::Connected { connection, .. } => self.opened(connection),
            Effect::Published { connection, tag, reason } => self.published(connection, tag, reason)?,
            Effect::Completed { connection, tag, .. } => {
                let publisher = self.publishers.iter_mut().find(|p| p.client.connection == Some(connection));
                if let Some(publisher) = publisher {
                    publisher.unreleased.retain(|other| *other != tag);
                }
            }
            Effect::Subscribed { connection, reasons, .. } => {
                if reasons[0].is_error() {
                    return Err(format!("{connection:?} could not subscribe: {reasons:?}"));
                }
                self.report.subscribed += 1;
            }
            Effect::Deliver { connection, delivery } => self.deliver(connection, &delivery)?,
            Effect::ReleaseDelivery { connection, tag, .. } => {
                if let Some(subscriber) = self.subscriber(connection) {
                    subscriber.received.retain(|other| *other != tag);
                    subscriber.client.to_server.push_back(Event::Complete { connection, tag });
                }
            }
            Effect::Count { .. } => {}
            other => return Err(format!("not expected: {other:?}")),
        }
        Ok(())
    }

    fn mesh_step(&mut self) -> Result<(), String> {
        let moves = |(pair, way): &(&(u16, u16), &VecDeque<_>)| !way.is_empty() && Some(**pair) != self.slow;
        let busy: Vec<_> = self.mesh.iter().filter(moves).map(|(pair, _)| *pair).collect();
        let Some(&pair) = busy.get(self.random.below(busy.len())) else { return Ok(()) };
        let Some(message) = self.mesh.get_mut(&pair).and_then(VecDeque::pop_front) else { return Ok(()) };
        self.handle(usize::from(pair.1), Event::Mesh { from: ShardId(pair.0), message })
    }

    fn commit_step(&mut self) -> Result<(), String> {
        let shard = self.random.below(self.shards.len());
        let count = self.random.below(self.shards[shard].disk.uncommitted() + 1);
        self.commit(shard, count)
    }

    fn commit(&mut self, shard: usize, count: usize) -> Result<(), String> {
        match self.shards[shard].disk.commit(count) {
            Some(upto) if upto > self.shards[shard].told => {
                self.shards[shard].told = upto;
                self.handle(shard, Event::Committed { upto })
            }
            _ => Ok(()),
        }
    }

    fn tick_step(&mut self) -> Result<(), String> {
        let shard = self.random.below(self.shards.len());
        if self.is_due(shard) { self.handle(shard, Event::Tick) } else { Ok(()) }
    }

    fn is_due(&self, shard: usize) -> bool {
        self.shards[shard].broker.next_deadline().is_some_and(|at| at.0 <= self.clock)
    }

    fn retire_step(&mut self) -> Result<(), String> {
        let shard = self.random.below(self.shards.len());
        match self.shards[shard].disk.last_committed() {
            Some(upto) if !std::mem::replace(&mut self.shards[shard].retiring, true) => {
                self.handle(shard, Event::Retire { upto })
            }
            _ => Ok(()),
        }
    }

    fn job_step(&mut self) -> Result<(), String> {
        let shard = self.random.below(self.shards.len());
        match self.shards[shard].jobs.pop_front() {
            None => Ok(()),
            Some(Job::Read { queue, after, messages_max }) => {
                let (entries, end) = self.shards[shard].disk.portion(queue, after, messages_max);
                self.handle(shard, Event::Backlog { queue, entries, end })
            }
            Some(Job::Answer { .. }) => unreachable!("here all is read later"),
            Some(Job::Ingest(batch)) => {
                self.shards[shard].disk.ingest(&batch);
                self.shards[shard].disk.recycle(batch.upto);
                self.shards[shard].retiring = false;
                self.handle(shard, Event::Ingested)
            }
        }
    }

    /// The process dies and begins again from the disk. Nobody repeats what was not answered: it may be retained or not.
    fn crash(&mut self) -> Result<(), String> {
        self.report.crashes += 1;
        self.boots += 1;
        self.clock += 1;
        self.publishers.iter_mut().for_each(|publisher| *publisher = Publisher::default());
        self.subscribers.iter_mut().for_each(|subscriber| *subscriber = Subscriber::default());
        self.mesh.clear();
        self.slow = None;
        for number in 0..self.shards.len() {
            let (now, broker) = (self.now(), Broker::new(self.config(number as u16), Sequence(1)));
            self.shards[number].recover(broker, now);
        }
        (0..self.shards.len()).try_for_each(|number| self.poll(number))?;
        while self.mesh.values().any(|way| !way.is_empty()) {
            self.mesh_step()?;
        }
        Ok(())
    }

    // ---- the clients ----

    fn connect(&mut self, expiry: SessionExpiry) -> Result<Client, String> {
        self.names += 1;
        self.connection_last += 1;
        let (name, connection) = (format!("client-{}", self.names), ConnectionId(self.connection_last));
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: name.as_str().into(),
            principal: Principal::default(),
            clean_start: true,
            expiry,
            receive_maximum: 2,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        };
        let home = usize::from(self.placement().home(name.as_bytes()).0);
        let client = Client { name, connection: Some(connection), ..Client::default() };
        self.handle(home, Event::Connect(Box::new(connect)))?;
        Ok(client)
    }

    /// A client sends only after its CONNACK; in this world it is enough that what it sends is read later.
    fn opened(&mut self, _: ConnectionId) {}

    fn set_parked(&mut self, connection: ConnectionId, parked: bool) {
        let publishers = self.publishers.iter_mut().map(|publisher| &mut publisher.client);
        for client in publishers.filter(|client| client.connection == Some(connection)) {
            client.parked = parked;
        }
    }

    fn client(&mut self, number: usize) -> &mut Client {
        match number.checked_sub(PUBLISHERS) {
            None => &mut self.publishers[number].client,
            Some(number) => &mut self.subscribers[number].client,
        }
    }

    fn server_reads(&mut self) -> Result<(), String> {
        let number = self.random.below(PUBLISHERS + SUBSCRIBERS);
        let client = self.client(number);
        let event = if client.parked { None } else { client.to_server.pop_front() };
        let home = client.name.clone();
        match event {
            Some(event) => self.handle(usize::from(self.placement().home(home.as_bytes()).0), event),
            None => Ok(()),
        }
    }

    /// A topic has one publisher, so that it is known what its last message is, and one QoS: order is promised within
    /// one only `[MQTT-4.6.0-6]`.
    fn publish_step(&mut self) {
        let topic = self.random.below(TOPICS);
        let (qos, clears) = ((topic / 2) as u8, self.random.chance(100));
        let number = topic % PUBLISHERS;
        if self.publishers[number].client.connection.is_none() {
            let Ok(client) = self.connect(SessionExpiry::NEVER) else { return };
            self.publishers[number] = Publisher { client, ..Publisher::default() };
        }
        let busy = |publisher: &Publisher| publisher.unanswered.len() + publisher.unreleased.len() >= 4;
        if busy(&self.publishers[number]) || self.publishers[number].client.parked {
            return;
        }
        self.publish(topic, qos, clears);
    }

    fn publish(&mut self, topic: usize, qos: u8, clears: bool) {
        self.numbers[topic] += 1;
        let number = self.numbers[topic];
        self.candidates[topic].push_back((number, clears));
        let publisher = &mut self.publishers[topic % PUBLISHERS];
        let Some(connection) = publisher.client.connection else { return };
        let free = (1..10).filter_map(Tag::new).find(|tag| {
            !publisher.unreleased.contains(tag) && publisher.unanswered.iter().all(|(other, ..)| other != tag)
        });
        let tag = free.filter(|_| qos > 0);
        if let Some(tag) = tag {
            publisher.unanswered.push_back((tag, topic, number));
        }
        let message = Message {
            id: MessageId(0),
            topic: TopicName::new(format!("r/{topic}")).expect("a topic"),
            payload: if clears { "".into() } else { "x".into() },
            properties: number.to_string().into(),
            qos: Qos::from_number(qos).expect("0 to 2"),
            retain: true,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        let message = Inbound { message: message.into(), tag, dup: false, flaw: None };
        publisher.client.to_server.push_back(Event::Publish { connection, message });
    }

    fn published(&mut self, connection: ConnectionId, tag: Tag, reason: ReasonCode) -> Result<(), String> {
        let Some(publisher) = self.publishers.iter_mut().find(|p| p.client.connection == Some(connection)) else {
            return Ok(());
        };
        if reason.is_error() {
            return Err(format!("publish refused: {reason:?}"));
        }
        let Some(place) = publisher.unanswered.iter().position(|(other, ..)| *other == tag) else {
            return Err(format!("answer to {tag:?} out of the blue"));
        };
        let Some((_, topic, number)) = publisher.unanswered.remove(place) else { return Ok(()) };
        publisher.unreleased.push(tag);
        publisher.client.to_server.push_back(Event::Release { connection, tag });
        self.report.acknowledged += 1;
        // This one is safe: what is older can't be the last any more.
        while self.candidates[topic].front().is_some_and(|(older, _)| *older < number) {
            self.candidates[topic].pop_front();
        }
        Ok(())
    }

    fn subscribe_step(&mut self) -> Result<(), String> {
        let number = self.random.below(SUBSCRIBERS);
        if self.subscribers[number].client.connection.is_none() {
            return self.subscribe(number);
        }
        Ok(())
    }

    fn subscribe(&mut self, number: usize) -> Result<(), String> {
        let expiry = SessionExpiry([0, 100][self.random.below(2)]);
        let mut client = self.connect(expiry)?;
        let qos = Qos::from_number(self.random.below(3) as u8).expect("0 to 2");
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let filter = Ok(TopicFilter::new("r/#").expect("a filter"));
        if let Some(connection) = client.connection {
            let (tag, filters) = (Tag::new(1).expect("not 0"), vec![Subscribe { filter, options }]);
            client.to_server.push_back(Event::Subscribe { connection, tag, filters });
        }
        self.subscribers[number] = Subscriber { client, subscribed: true, ..Subscriber::default() };
        Ok(())
    }

    /// It goes, and comes again as another one.
    fn leave_step(&mut self) -> Result<(), String> {
        let number = self.random.below(SUBSCRIBERS);
        let subscriber = std::mem::take(&mut self.subscribers[number]);
        let Some(connection) = subscriber.client.connection else { return Ok(()) };
        let home = usize::from(self.placement().home(subscriber.client.name.as_bytes()).0);
        self.handle(home, Event::Disconnect { connection, cause: DisconnectCause::Normal { expiry: None } })
    }

    /// A congested connection may lose live QoS 0 messages, so numbers may be missing; never the last one that is
    /// retained, unless it came before.
    fn congestion_step(&mut self) -> Result<(), String> {
        let number = self.random.below(SUBSCRIBERS);
        let subscriber = &mut self.subscribers[number];
        let Some(connection) = subscriber.client.connection else { return Ok(()) };
        // Only before anything has come: later, a live message may be lost for good, and nothing could be judged.
        let congested = !subscriber.congested && subscriber.came == 0;
        subscriber.congested = congested;
        let home = usize::from(self.placement().home(self.subscribers[number].client.name.as_bytes()).0);
        let event = if congested { Event::Congested { connection } } else { Event::Writable { connection } };
        self.handle(home, event)
    }

    fn subscriber(&mut self, connection: ConnectionId) -> Option<&mut Subscriber> {
        self.subscribers.iter_mut().find(|subscriber| subscriber.client.connection == Some(connection))
    }

    fn deliver(&mut self, connection: ConnectionId, delivery: &Delivery) -> Result<(), String> {
        if self.subscriber(connection).is_none_or(|subscriber| !subscriber.subscribed) {
            return Ok(()); // gone
        }
        let topic = delivery.message.topic.as_str().strip_prefix("r/").and_then(|text| text.parse().ok());
        let number = std::str::from_utf8(&delivery.message.properties).ok().and_then(|text| text.parse().ok());
        let (Some(topic), Some(number)) = (topic, number) else { return Err(format!("strange: {delivery:?}")) };
        match delivery.retain {
            true => self.report.retained += 1,
            false => self.report.live += 1,
        }
        let Some(subscriber) = self.subscriber(connection) else { return Ok(()) };
        subscriber.came += 1;
        let last = subscriber.last.insert(topic, number);
        if last.is_some_and(|last| last >= number) {
            let name = &subscriber.client.name;
            return Err(format!("{name} got number {number} of r/{topic} after {last:?}: {delivery:?}"));
        }
        let Some(tag) = delivery.tag else { return Ok(()) };
        let reason = ReasonCode::Success;
        let answer = match delivery.qos {
            Qos::ExactlyOnce => Event::Receive { connection, tag, reason },
            _ => Event::Acknowledge { connection, tag, reason },
        };
        subscriber.client.to_server.push_back(answer);
        Ok(())
    }

    // ---- rest ----

    fn finish(&mut self) -> Result<(), String> {
        for number in 0..SUBSCRIBERS {
            if self.subscribers[number].congested {
                self.subscribers[number].congested = false;
                let subscriber = &self.subscribers[number].client;
                let home = usize::from(self.placement().home(subscriber.name.as_bytes()).0);
                if let Some(connection) = subscriber.connection {
                    self.handle(home, Event::Writable { connection })?;
                }
            }
        }
        self.rest()?;
        (0..SUBSCRIBERS).filter(|number| self.subscribers[*number].subscribed).try_for_each(|n| self.judge(n))?;
        for number in 0..SUBSCRIBERS {
            self.subscribe(number)?;
            self.rest()?;
            self.judge(number)?;
            let retained = self.candidates.iter().filter(|all| all.iter().any(|(_, clears)| !clears)).count();
            if self.subscribers[number].came > retained {
                return Err(format!("a new subscriber got {} for {retained} topics", self.subscribers[number].came));
            }
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), String> {
        self.slow = None;
        for _ in 0..200_000 {
            let idle = (0..PUBLISHERS + SUBSCRIBERS).all(|number| self.client(number).to_server.is_empty());
            let quiet = self.mesh.values().all(VecDeque::is_empty)
                && (0..self.shards.len()).all(|s| self.shards[s].disk.uncommitted() == 0 && !self.is_due(s))
                && self.shards.iter().all(|shard| shard.jobs.is_empty());
            if idle && quiet {
                return Ok(());
            }
            self.mesh_step()?;
            self.tick_step()?;
            self.server_reads()?;
            self.job_step()?;
            let shard = self.random.below(self.shards.len());
            self.commit(shard, usize::MAX)?;
        }
        Err("it does not come to rest".into())
    }

    /// What a subscriber has last of each topic is what is retained.
    fn judge(&self, number: usize) -> Result<(), String> {
        let subscriber = &self.subscribers[number];
        for (topic, candidates) in self.candidates.iter().enumerate() {
            let last = subscriber.last.get(&topic);
            let right = candidates.iter().any(|(number, clears)| last == Some(number) || (*clears && last.is_none()));
            if !right {
                let name = &subscriber.client.name;
                return Err(format!("{name} has {last:?} of r/{topic}, retained is {candidates:?}"));
            }
        }
        Ok(())
    }
}

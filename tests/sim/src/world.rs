//! The shards, the network, the scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{
    ConnectionId, MonoMillis, Now, Placement, Qos, QueueId, QueueOwner, Record, Sequence, SessionExpiry, ShardId,
    SubscriptionOptions, Tag, TopicFilter, WallMillis,
};
use postroad_base as base;
use postroad_broker::access::Acl;
use postroad_broker::api::{
    Connect, DisconnectCause, Effect, Event, Forwarded, MeshMessage, Principal, Retirement, Subscribe,
};
use postroad_broker::{Broker, Config, UnknownClient};

use crate::client::{Link, Publisher, Subscriber};
use crate::disk::Disk;
use crate::oracle::{Oracle, PUSH_TOPIC, SHARED_TOPIC};
use crate::random::Random;
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
    /// The bug that is planted.
    pub canary: Option<Canary>,
    /// Prints everything that happens.
    pub trace: bool,
}

impl Options {
    /// Three shards, a single credit: the narrowest road.
    pub fn new(seed: u64) -> Self {
        Self { seed, shards: 3, steps: 3_000, credits: 1, canary: None, trace: false }
    }
}

const PUBLISHERS: usize = 3;
/// The last one is a device: it subscribes to nothing and forgets its session at each connection.
const SUBSCRIBERS: usize = 4;
const DEVICE: usize = SUBSCRIBERS - 1;
const TOPICS: usize = SHARED_TOPIC + 1;

/// Runs; what the oracle has to say, with the seed.
///
/// # Errors
/// The promise that was broken.
pub fn run(options: Options) -> Result<Report, String> {
    let mut world = World::new(options);
    let outcome = (0..options.steps).try_for_each(|_| world.step()).and_then(|()| world.finish());
    outcome.map(|()| world.report).map_err(|what| format!("seed {}: {what} ({:?})", options.seed, world.report))
}

/// Work of the old generation's worker, done some time later.
#[derive(Debug)]
enum Job {
    Read { queue: QueueId, after: Sequence, messages_max: usize },
    Ingest(Box<Retirement>),
}

struct Shard {
    broker: Broker,
    disk: Disk,
    jobs: VecDeque<Job>,
    /// What the broker was told is committed (differs from the disk only for the canary).
    told: Sequence,
}

struct World {
    options: Options,
    random: Random,
    shards: Vec<Shard>,
    mesh: BTreeMap<(u16, u16), VecDeque<MeshMessage>>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Which client a connection belongs to.
    clients: BTreeMap<ConnectionId, usize>,
    connection_last: u64,
    boots: u32,
    clock: u64,
    oracle: Oracle,
    report: Report,
}

impl World {
    fn new(options: Options) -> Self {
        let mut world = Self {
            options,
            random: Random::new(options.seed),
            shards: Vec::new(),
            mesh: BTreeMap::new(),
            publishers: (0..PUBLISHERS).map(|_| Publisher::default()).collect(),
            subscribers: (0..SUBSCRIBERS).map(|_| Subscriber::default()).collect(),
            clients: BTreeMap::new(),
            connection_last: 0,
            boots: 0,
            clock: 1,
            oracle: Oracle::default(),
            report: Report::default(),
        };
        for shard in 0..options.shards {
            let mut broker = Broker::new(world.config(shard), Sequence(1));
            broker.set_access(everybody_everything());
            world.shards.push(Shard { broker, disk: Disk::new(), jobs: VecDeque::new(), told: Sequence(0) });
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
        config.mesh_credits = self.options.credits;
        config.backlog_messages_max = 2;
        config.inflight_max = 3;
        config.unknown_client = UnknownClient::Queue;
        config
    }

    fn now(&self) -> Now {
        Now { mono: MonoMillis(self.clock), wall: WallMillis(self.clock + 1_000_000) }
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), String> {
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
            989..=992 => self.guest_step(),
            993..=996 => self.retire_step(),
            997..=998 if self.random.chance(500) => self.crash(),
            _ => self.clock += 1,
        }
        Ok(())
    }

    // ---- the server ----

    fn handle(&mut self, shard: usize, event: Event) {
        let now = self.now();
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
            Effect::Append { record } => self.append(shard, record),
            Effect::Mesh { to, message } => {
                self.mesh.entry((shard as u16, to.0)).or_default().push_back(message);
            }
            Effect::ReadBacklog { queue, after, messages_max, .. } => {
                self.shards[shard].jobs.push_back(Job::Read { queue, after, messages_max });
            }
            Effect::Ingest { batch } => self.shards[shard].jobs.push_back(Job::Ingest(batch)),
            Effect::Count { .. } => {}
            Effect::Close { connection, .. } => self.cut(connection),
            Effect::Park { connection } => {
                self.report.parks += 1;
                self.with_link(connection, |link| link.parked = true);
            }
            Effect::Unpark { connection } => self.with_link(connection, |link| link.parked = false),
            Effect::Connected { connection, .. }
            | Effect::ConnectRefused { connection, .. }
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
            record => record,
        };
        self.shards[shard].disk.append(record);
    }

    fn mesh_step(&mut self) {
        let busy: Vec<_> = self.mesh.iter().filter(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair).collect();
        if busy.is_empty() {
            return;
        }
        let pair = busy[self.random.below(busy.len())];
        let Some(message) = self.mesh.get_mut(&pair).and_then(VecDeque::pop_front) else { return };
        if self.options.canary == Some(Canary::LostForward)
            && let MeshMessage::Forward { token, .. } = &message
            && self.random.chance(20)
        {
            let confirm = MeshMessage::Confirm { token: *token, outcome: Forwarded::Taken };
            return self.mesh.entry((pair.1, pair.0)).or_default().push_back(confirm);
        }
        self.handle(usize::from(pair.1), Event::Mesh { from: ShardId(pair.0), message });
    }

    fn commit_step(&mut self) {
        let shard = self.random.below(self.shards.len());
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
                let (mut entries, end) = self.shards[shard].disk.portion(queue, after, messages_max);
                self.report.portions += 1;
                if self.options.canary == Some(Canary::BacklogOutOfOrder) {
                    entries.reverse();
                }
                self.handle(shard, Event::Backlog { queue, entries, end });
            }
            Some(Job::Ingest(batch)) => {
                self.shards[shard].disk.ingest(&batch);
                // The segments go a little later, or, at a crash in between, after the next retirement.
                if self.random.chance(700) {
                    self.shards[shard].disk.recycle(batch.upto);
                }
                self.handle(shard, Event::Ingested { upto: batch.upto });
            }
        }
    }

    /// A segment retires when it is old: what was said between shards when it was written has arrived long ago.
    fn retire_step(&mut self) {
        let shard = self.random.below(self.shards.len());
        let Some(upto) = self.shards[shard].disk.last_committed() else { return };
        if self.shards[shard].jobs.iter().any(|job| matches!(job, Job::Ingest(_))) {
            return;
        }
        let is_busy = |world: &Self| {
            let uncommitted = world.shards.iter().any(|shard| shard.disk.uncommitted() > 0);
            uncommitted || world.mesh.values().any(|queue| !queue.is_empty())
        };
        while is_busy(self) {
            self.mesh_step();
            self.commit_all();
        }
        self.report.retirements += 1;
        self.handle(shard, Event::Retire { upto });
    }

    /// The process dies and begins again from the disk.
    fn crash(&mut self) {
        self.report.crashes += 1;
        if self.options.trace {
            println!("crash");
        }
        self.boots += 1;
        self.clock += 1;
        for client in 0..PUBLISHERS + SUBSCRIBERS {
            self.cut_client(client);
        }
        self.clients.clear();
        self.mesh.clear();
        for number in 0..self.shards.len() {
            let (now, config) = (self.now(), self.config(number as u16));
            let shard = &mut self.shards[number];
            shard.broker = Broker::new(config, Sequence(1));
            shard.broker.set_access(everybody_everything());
            shard.jobs.clear();
            for (sequence, as_of, record) in shard.disk.crash() {
                shard.broker.replay(sequence, as_of, record);
            }
            shard.told = Sequence(shard.disk.next().0 - 1);
            shard.broker.recovered(now, shard.disk.next());
        }
        for number in 0..self.shards.len() {
            self.poll(number);
        }
        // No listener opens before every shard knows what the others want (DESIGN 3).
        while self.mesh.values().any(|queue| !queue.is_empty()) {
            self.mesh_step();
        }
    }

    // ---- the clients ----

    fn link(&mut self, client: usize) -> &mut Link {
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
        let is_device = client == PUBLISHERS + DEVICE;
        if is_device {
            self.subscribers[DEVICE].forget();
        }
        let connect = Connect {
            connection,
            client: client_name(client).as_str().into(),
            principal: principal_of(client),
            clean_start: is_device,
            expiry: if is_device { SessionExpiry(0) } else { SessionExpiry::NEVER },
            receive_maximum: 3,
            will: None,
            hears_refusals: true,
        };
        self.handle(self.home(client), Event::Connect(Box::new(connect)));
    }

    fn disconnect_step(&mut self) {
        let client = self.random.below(PUBLISHERS + SUBSCRIBERS);
        let Some(connection) = self.link(client).connection else { return };
        self.report.disconnects += 1;
        self.cut(connection);
        let cause = DisconnectCause::Lost;
        self.handle(self.home(client), Event::Disconnect { connection, cause });
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
            client: client.as_str().into(),
            principal: Principal::default(),
            clean_start: self.random.chance(300),
            expiry: SessionExpiry([0, 1, 100][self.random.below(3)]),
            receive_maximum: 2,
            will: None,
            hears_refusals: true,
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
        let client = self.random.below(PUBLISHERS + SUBSCRIBERS);
        let link = self.link(client);
        if link.parked {
            return;
        }
        if let Some(event) = link.to_server.pop_front() {
            self.handle(self.home(client), event);
        }
    }

    /// Some client reads one packet.
    fn client_reads(&mut self) -> Result<(), String> {
        let client = self.random.below(PUBLISHERS + SUBSCRIBERS);
        self.client_reads_one(client)
    }

    fn client_reads_one(&mut self, client: usize) -> Result<(), String> {
        let Some(effect) = self.link(client).from_server.pop_front() else { return Ok(()) };
        match client.checked_sub(PUBLISHERS) {
            None => {
                self.report.acknowledged += usize::from(matches!(effect, Effect::Published { .. }));
                self.publishers[client].take(effect, &mut self.oracle)
            }
            Some(number) => {
                self.report.received += usize::from(matches!(effect, Effect::Deliver { .. }));
                self.subscribers[number].take(number, effect, &mut self.oracle)
            }
        }
    }

    /// Some subscriber sends an acknowledgement that it owes; mostly the oldest.
    fn acknowledge_step(&mut self) {
        let number = self.random.below(SUBSCRIBERS);
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
        let topic = self.random.below(TOPICS + SUBSCRIBERS);
        // After a crash a repeat may go to another member: exactly once holds per subscriber, not per group. Nor does it
        // hold for who forgets its session.
        let at_least_once = topic == SHARED_TOPIC || topic == PUSH_TOPIC + DEVICE;
        let qos = if at_least_once { 1 } else { 1 + self.random.below(2) as u8 };
        let name = self.publishers[publisher].publish(publisher, topic, qos);
        self.oracle.published(name, SUBSCRIBERS);
        self.report.published += 1;
    }

    fn subscribe_step(&mut self) {
        let number = self.random.below(SUBSCRIBERS);
        let topic = self.random.below(TOPICS);
        let subscriber = &mut self.subscribers[number];
        if number == DEVICE || !subscriber.link.open || subscriber.is_changing() {
            return;
        }
        if topic == SHARED_TOPIC || self.random.chance(700) {
            self.oracle.subscribing(number, topic);
            subscriber.request(topic, true);
        } else {
            self.oracle.unsubscribing(number, topic);
            subscriber.request(topic, false);
        }
    }

    // ---- rest ----

    /// Everybody connects, everything flows, until nothing is left to do; then the oracle judges.
    fn finish(&mut self) -> Result<(), String> {
        for client in 0..PUBLISHERS + SUBSCRIBERS {
            if self.link(client).connection.is_none() {
                self.connect(client);
            }
        }
        for _ in 0..200_000 {
            if self.is_at_rest() {
                self.oracle.settle()?;
                return self.check_space();
            }
            self.flow_step()?;
        }
        Err("it does not come to rest".into())
    }

    /// What ended has left nothing in the old generation, once all is retired.
    fn check_space(&mut self) -> Result<(), String> {
        for shard in 0..self.shards.len() {
            let Some(upto) = self.shards[shard].disk.last_committed() else { continue };
            self.handle(shard, Event::Retire { upto });
            self.commit_all();
            while !self.shards[shard].jobs.is_empty() {
                self.job_step();
            }
            let orphans = self.shards[shard].disk.orphans();
            if orphans > 0 {
                return Err(format!("{orphans} deliveries of ended queues are stored on shard {shard}"));
            }
        }
        Ok(())
    }

    fn flow_step(&mut self) -> Result<(), String> {
        self.mesh_step();
        self.commit_step();
        self.commit_all();
        self.job_step();
        self.server_reads();
        self.client_reads()?;
        self.acknowledge_step();
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let quiet = |link: &Link| link.open && link.to_server.is_empty() && link.from_server.is_empty();
        self.mesh.values().all(VecDeque::is_empty)
            && self.shards.iter().all(|shard| shard.disk.uncommitted() == 0 && shard.jobs.is_empty())
            && self.publishers.iter().all(|publisher| quiet(&publisher.link) && publisher.is_idle())
            && self.subscribers.iter().all(|subscriber| quiet(&subscriber.link) && subscriber.due.is_empty())
    }
}

pub(crate) fn client_of_subscriber(subscriber: usize) -> String {
    client_name(PUBLISHERS + subscriber)
}

/// Subscribers are users, hence registered with their first connection, if no push was first.
fn principal_of(client: usize) -> Principal {
    let user = (client >= PUBLISHERS).then(|| format!("user-{client}").into());
    Principal { user, ..Principal::default() }
}

fn everybody_everything() -> Arc<Acl> {
    let rules = "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"allow\"\n";
    Arc::new(Acl::parse(rules).expect("a valid rule"))
}

fn client_name(client: usize) -> String {
    format!("client-{client}")
}

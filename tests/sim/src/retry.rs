//! Clients that leave deliveries unanswered on connections that live: one shard, a road with three places, a clock that moves.
//!
//! ```text
//! server ─► on the road ─► in the client's kernel ─► read: taken, answered now, later or never
//!        ◄──────────────────────────────────────────── answers, unread until the server reads
//! ```
//!
//! What must hold, whatever crashes, breaks and retires:
//! - A delivery whose acknowledgement is committed does not come again; nor, in the same run, one whose acknowledgement was read.
//! - What the server counts as acknowledged its client has read: an answer to one message never counts for another.
//! - No copy leaves while an earlier one of the same connection has not arrived; on MQTT 5 none leaves at all.
//! - Attempts count one by one, through crashes, and never above the maximum.
//! - At QoS 2 a client takes nothing twice. In the end everybody has got, or has a letter of, each message that was answered for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::{
    ConnectionId, LetterId, LetterQuery, Message, MessageId, MonoMillis, Now, Outcome, Placement, Qos, QueueId,
    QueueOwner, ReasonCode, Record, Sequence, SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter, TopicName,
    WallMillis,
};
use postroad_base as base;
use postroad_broker::access::Acl;
use postroad_broker::api::{
    ClientName, Connect, Delivery, DisconnectCause, Effect, Event, Inbound, Principal, Road, Subscribe,
};
use postroad_broker::{Broker, Config, Resend, RetryPolicy};

use crate::Canary;
use crate::random::Random;
use crate::shard::{Job, Shard};

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct RetryOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// How many things happen before all comes to rest.
    pub steps: usize,
    /// The bug that is planted.
    pub canary: Option<Canary>,
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryReport {
    /// Publishes that were answered.
    pub published: usize,
    /// Deliveries that were sent again on the connection that they were sent on.
    pub resent: usize,
    /// Answers that told of a road that is not clear.
    pub jams: usize,
    /// Letters in the end.
    pub letters: usize,
    /// Answers to a second copy, after the first one was answered.
    pub echoes: usize,
    /// Crashes of the server.
    pub crashes: usize,
}

const CLIENTS: usize = 4;
/// The last one speaks MQTT 5.
const NEW: usize = CLIENTS - 1;
const PUBLISHER: usize = CLIENTS;

/// Runs; what was broken, with the seed.
///
/// # Errors
/// The promise that was broken.
pub fn run_retry(options: RetryOptions) -> Result<RetryReport, String> {
    let mut world = World::new(options);
    let outcome = (0..options.steps).try_for_each(|_| world.step()).and_then(|()| world.finish());
    outcome.map(|()| world.report).map_err(|what| format!("seed {}: {what} ({:?})", options.seed, world.report))
}

/// A connection and what is under way on it.
#[derive(Default)]
struct Link {
    connection: Option<ConnectionId>,
    open: bool,
    on_the_road: VecDeque<Effect>,
    in_kernel: VecDeque<Effect>,
    /// Answers that it will send some time.
    due: VecDeque<Event>,
    to_server: VecDeque<Event>,
    /// Packets that were sent to it.
    sent: u64,
    /// Where the last copy of each message ends.
    copies: BTreeMap<u64, u64>,
}

impl Link {
    fn arrived(&self) -> u64 {
        self.sent - self.on_the_road.len() as u64
    }
}

#[derive(Default)]
struct Client {
    link: Link,
    is_subscribed: bool,
    /// QoS 2: received, not released.
    received: BTreeSet<Tag>,
    /// Messages that it has read.
    taken: BTreeSet<u64>,
}

/// What the records say of one delivery.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    attempts: u32,
    /// … of which a crash leaves these.
    attempts_committed: u32,
    /// The record that tells of its acknowledgement.
    acknowledged_at: Option<Sequence>,
}

struct World {
    options: RetryOptions,
    random: Random,
    shard: Shard,
    clients: Vec<Client>,
    publisher: Link,
    unanswered: BTreeMap<Tag, u64>,
    answered: BTreeSet<u64>,
    number_last: u64,
    connection_last: u64,
    boots: u32,
    clock: u64,
    queues: BTreeMap<QueueId, usize>,
    numbers: BTreeMap<(QueueId, Sequence), u64>,
    facts: BTreeMap<(usize, u64), Facts>,
    /// Records of attempts that are not committed: where, whose.
    open_attempts: Vec<(Sequence, usize, u64)>,
    letters: BTreeSet<(usize, u64)>,
    /// Those that were made, be they committed or not.
    given_up: BTreeSet<(usize, u64)>,
    /// The last look for letters was answered: where the next one goes on.
    letters_next: Option<Option<LetterId>>,
    is_calm: bool,
    broken: Option<String>,
    report: RetryReport,
}

impl World {
    fn new(options: RetryOptions) -> Self {
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        let mut broker = Broker::new(config(options.seed, 0), Sequence(1));
        broker.set_access(everything());
        Self {
            options,
            random: Random::new(options.seed),
            shard: Shard::new(broker),
            clients,
            publisher: Link::default(),
            unanswered: BTreeMap::new(),
            answered: BTreeSet::new(),
            number_last: 0,
            connection_last: 0,
            boots: 0,
            clock: 1,
            queues: BTreeMap::new(),
            numbers: BTreeMap::new(),
            facts: BTreeMap::new(),
            open_attempts: Vec::new(),
            letters: BTreeSet::new(),
            given_up: BTreeSet::new(),
            letters_next: None,
            is_calm: false,
            broken: None,
            report: RetryReport::default(),
        }
    }

    fn now(&self) -> Now {
        Now { mono: MonoMillis(self.clock), wall: WallMillis(self.clock + 1_000_000) }
    }

    fn step(&mut self) -> Result<(), String> {
        let client = self.random.below(CLIENTS);
        match self.random.below(1000) {
            0..=149 => self.commit(),
            150..=299 => self.arrive(client),
            300..=449 => self.read(client),
            450..=599 => self.answer(client),
            600..=749 => self.server_reads(client),
            750..=829 => self.publish(),
            830..=929 => self.time_passes(),
            930..=959 => self.job(),
            960..=974 => self.connect(client),
            975..=979 => self.cut(client),
            980..=984 => self.retire(),
            985 => self.crash(),
            _ => self.connect_publisher(),
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    // ---- the server ----

    fn handle(&mut self, event: Event) {
        self.shard.broker.handle(self.now(), event);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(effect) = self.shard.broker.poll() {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Append { record } => self.append(record),
            Effect::ReadBacklog { queue, after, messages_max, .. } => {
                self.shard.jobs.push_back(Job::Read { queue, after, messages_max });
            }
            Effect::Ingest { batch } => self.shard.jobs.push_back(Job::Ingest(batch)),
            Effect::Probe { connection } => self.tell_road(connection),
            Effect::LettersFound { letters, next, .. } => {
                for letter in letters {
                    let client = self.client_of(letter.message.death().map_or("", |death| death.client.as_str()));
                    self.letters.extend(client.zip(number_of(&letter.message)));
                }
                self.letters_next = Some(next);
            }
            Effect::Published { connection, tag, .. } if self.publisher.connection == Some(connection) => {
                self.report.published += 1;
                self.answered.extend(self.unanswered.remove(&tag));
                self.publisher.to_server.push_back(Event::Release { connection, tag });
            }
            Effect::Connected { connection, .. } => {
                if let Some(link) = self.link_of(connection) {
                    link.open = true;
                }
                self.subscribe_if_new(connection);
            }
            Effect::Deliver { connection, ref delivery } => {
                self.check_delivery(connection, delivery);
                self.send(connection, effect);
            }
            Effect::ReleaseDelivery { connection, .. } => self.send(connection, effect),
            Effect::Close { connection, .. } => {
                if let Some(link) = self.link_of(connection) {
                    *link = Link::default();
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, connection: ConnectionId, effect: Effect) {
        if let Some(link) = self.link_of(connection) {
            link.sent += 1;
            link.on_the_road.push_back(effect);
        }
    }

    fn tell_road(&mut self, connection: ConnectionId) {
        let lies = self.options.canary == Some(Canary::RoadSaysClear);
        let Some(link) = self.link_of(connection) else { return };
        let (sent, arrived, has_unread) = (link.sent, link.arrived(), !link.to_server.is_empty());
        let road = if lies { Road { sent, arrived: sent, has_unread } } else { Road { sent, arrived, has_unread } };
        self.report.jams += usize::from(arrived < sent);
        self.handle(Event::Road { connection, road });
    }

    fn append(&mut self, record: Record) {
        let at = self.shard.disk.next();
        let mut kept = None;
        match &record {
            Record::QueueBegin { queue, owner: QueueOwner::Session(client), .. } => {
                self.queues.extend(self.client_of(client.as_str()).map(|client| (*queue, client)));
            }
            Record::Publish { message, .. } | Record::Transfer { message, .. } if message.death().is_some() => {
                let client = self.client_of(message.death().map_or("", |death| death.client.as_str()));
                self.given_up.extend(client.zip(number_of(message)));
            }
            Record::Publish { message, recipients } => {
                let number = number_of(message);
                let all = recipients.iter().filter_map(|to| Some(((to.queue, at), number?)));
                self.numbers.extend(all);
            }
            Record::Attempt { queue, sequence, attempts, .. } => {
                if let Some((client, number)) = self.delivery_at(*queue, *sequence) {
                    self.check_attempt(client, number, *attempts);
                    self.open_attempts.push((at, client, number));
                }
                if self.options.canary == Some(Canary::AttemptForgotten) {
                    kept = Some(Record::WillSet { queue: *queue, will: None });
                }
            }
            Record::Settle { queue, sequence, outcome: Outcome::Acknowledged }
            | Record::Received { queue, sequence } => {
                if let Some((client, number)) = self.delivery_at(*queue, *sequence) {
                    self.check_acknowledged(client, number, matches!(record, Record::Settle { .. }));
                    self.facts.entry((client, number)).or_default().acknowledged_at.get_or_insert(at);
                }
            }
            _ => {}
        }
        self.shard.disk.append(kept.unwrap_or(record));
    }

    fn delivery_at(&self, queue: QueueId, sequence: Sequence) -> Option<(usize, u64)> {
        Some((*self.queues.get(&queue)?, *self.numbers.get(&(queue, sequence))?))
    }

    fn check_attempt(&mut self, client: usize, number: u64, attempts: u32) {
        let most = config(self.options.seed, 0).limits.retry.attempts_max;
        let facts = self.facts.entry((client, number)).or_default();
        let expected = facts.attempts.max(1) + 1;
        facts.attempts = attempts;
        if attempts != expected || (most > 0 && attempts > most) {
            self.complain(format!("attempt {attempts} of {number} to {client} follows {}", expected - 1));
        }
    }

    /// `Received` is written of a delivery that is given up, too, and such a one is settled as acknowledged if it is released
    /// after a crash: which one that is its letter says.
    fn check_acknowledged(&mut self, client: usize, number: u64, is_settled: bool) {
        let is_read = self.clients[client].taken.contains(&number) || self.given_up.contains(&(client, number));
        if is_settled && !is_read {
            self.complain(format!("client {client} is said to have acknowledged {number}, which it has not read"));
        }
    }

    fn check_delivery(&mut self, connection: ConnectionId, delivery: &Delivery) {
        let Some(client) = self.clients.iter().position(|client| client.link.connection == Some(connection)) else {
            return;
        };
        let Some(number) = number_of(&delivery.message) else { return };
        let facts = self.facts.get(&(client, number)).copied().unwrap_or_default();
        if facts.acknowledged_at.is_some() {
            return self.complain(format!("{number} comes to {client} after it was acknowledged"));
        }
        let link = &mut self.clients[client].link;
        let (arrived, position) = (link.arrived(), link.sent + 1);
        let Some(before) = link.copies.insert(number, position) else { return };
        self.report.resent += 1;
        if client == NEW {
            return self.complain(format!("{number} comes twice on a connection of MQTT 5"));
        }
        if before > arrived || !delivery.dup {
            self.complain(format!("{number} is sent again to {client}: copy at {before}, arrived {arrived}"));
        }
    }

    fn complain(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn commit(&mut self) {
        let count = self.random.below(self.shard.disk.uncommitted() + 1);
        if let Some(upto) = self.shard.disk.commit(if self.is_calm { usize::MAX } else { count }) {
            self.note_committed(upto);
            self.handle(Event::Committed { upto });
        }
    }

    fn note_committed(&mut self, upto: Sequence) {
        for (at, client, number) in std::mem::take(&mut self.open_attempts) {
            match at <= upto {
                true => self.facts.entry((client, number)).or_default().attempts_committed += 1,
                false => self.open_attempts.push((at, client, number)),
            }
        }
    }

    fn job(&mut self) {
        match self.shard.jobs.pop_front() {
            None => {}
            Some(Job::Read { queue, after, messages_max }) => {
                let (entries, end) = self.shard.disk.portion(queue, after, messages_max);
                self.handle(Event::Backlog { queue, entries, end });
            }
            Some(Job::Answer { .. }) => unreachable!("here all is read later"),
            Some(Job::Ingest(batch)) => {
                self.shard.disk.ingest(&batch);
                self.shard.disk.recycle(batch.upto);
                self.shard.retiring = false;
                self.handle(Event::Ingested);
            }
        }
    }

    fn retire(&mut self) {
        let Some(upto) = self.shard.disk.last_committed() else { return };
        if !std::mem::replace(&mut self.shard.retiring, true) {
            self.handle(Event::Retire { upto });
        }
    }

    /// Until something is due, or a moment.
    fn time_passes(&mut self) {
        let most = self.clock + 1 + self.random.below(400) as u64;
        let due = self.shard.broker.next_deadline().map_or(most, |due| due.0.max(self.clock));
        self.clock = due.min(most);
        if self.shard.broker.next_deadline().is_some_and(|due| due.0 <= self.clock) {
            self.handle(Event::Tick);
        }
    }

    fn crash(&mut self) {
        if self.random.chance(600) {
            return;
        }
        self.report.crashes += 1;
        self.boots += 1;
        self.clock += 1;
        (0..CLIENTS).for_each(|client| self.clients[client].link = Link::default());
        self.publisher = Link::default();
        self.unanswered.clear();
        self.open_attempts.clear();
        let committed = Sequence(self.shard.disk.next().0 - 1 - self.shard.disk.uncommitted() as u64);
        for facts in self.facts.values_mut() {
            facts.attempts = if facts.attempts_committed > 0 { facts.attempts_committed + 1 } else { 0 };
            facts.acknowledged_at = facts.acknowledged_at.filter(|at| *at <= committed);
        }
        self.numbers.retain(|(_, at), _| *at <= committed);
        let mut broker = Broker::new(config(self.options.seed, self.boots), Sequence(1));
        broker.set_access(everything());
        self.shard.recover(broker, self.now());
        self.poll();
    }

    // ---- the clients ----

    fn link_of(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        let links = self.clients.iter_mut().map(|client| &mut client.link).chain([&mut self.publisher]);
        links.into_iter().find(|link| link.connection == Some(connection))
    }

    fn client_of(&self, name: &str) -> Option<usize> {
        (0..CLIENTS).find(|client| name_of(*client) == name)
    }

    fn connect(&mut self, client: usize) {
        if self.clients[client].link.connection.is_none() || self.random.chance(50) {
            self.clients[client].link = self.new_link(client);
        }
    }

    fn connect_publisher(&mut self) {
        if self.publisher.connection.is_none() {
            self.publisher = self.new_link(PUBLISHER);
        }
    }

    fn new_link(&mut self, client: usize) -> Link {
        self.connection_last += 1;
        let connection = ConnectionId(self.connection_last);
        let is_live = client < NEW || self.options.canary == Some(Canary::SentAgainOnMqtt5);
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: name_of(client).as_str().into(),
            principal: Principal::default(),
            clean_start: client == PUBLISHER,
            expiry: SessionExpiry(if client == PUBLISHER { 0 } else { u32::MAX }),
            receive_maximum: 100,
            delivery: None,
            will: None,
            hears_refusals: client >= NEW,
            resend: if is_live { Resend::Live } else { Resend::Reconnect },
        };
        let link = Link { connection: Some(connection), ..Link::default() };
        // Before what follows from it: that finds its client by the connection.
        match self.clients.get_mut(client) {
            Some(known) => known.link = link,
            None => self.publisher = link,
        }
        self.handle(Event::Connect(Box::new(connect)));
        std::mem::take(if client == PUBLISHER { &mut self.publisher } else { &mut self.clients[client].link })
    }

    fn subscribe_if_new(&mut self, connection: ConnectionId) {
        let is_it = |client: &&mut Client| client.link.connection == Some(connection) && !client.is_subscribed;
        let Some(client) = self.clients.iter_mut().find(is_it) else { return };
        client.is_subscribed = true;
        let options = SubscriptionOptions { qos: Qos::ExactlyOnce, ..SubscriptionOptions::default() };
        let filters = vec![Subscribe { filter: TopicFilter::new("t/#").map_err(|_| ReasonCode::Success), options }];
        self.handle(Event::Subscribe { connection, tag: Tag::new(1).expect("not 0"), filters });
    }

    fn cut(&mut self, client: usize) {
        let Some(connection) = std::mem::take(&mut self.clients[client].link).connection else { return };
        self.handle(Event::Disconnect { connection, cause: DisconnectCause::Lost });
    }

    fn arrive(&mut self, client: usize) {
        let link = &mut self.clients[client].link;
        let count = 1 + self.random.below(4);
        for _ in 0..count.min(link.on_the_road.len()) {
            link.in_kernel.extend(link.on_the_road.pop_front());
        }
    }

    /// It reads a packet, and answers it in its time, or never.
    fn read(&mut self, client: usize) {
        let forgets = !self.is_calm && self.random.chance(200);
        let known = &mut self.clients[client];
        let (Some(effect), Some(connection)) = (known.link.in_kernel.pop_front(), known.link.connection) else {
            return;
        };
        let answer = match effect {
            Effect::Deliver { delivery, .. } => {
                let (Some(tag), Some(number)) = (delivery.tag, number_of(&delivery.message)) else { return };
                let reason = ReasonCode::Success;
                let is_repeat = known.taken.contains(&number);
                if delivery.qos == Qos::ExactlyOnce {
                    let is_new = known.received.insert(tag);
                    known.taken.insert(number);
                    if is_new && is_repeat {
                        return self.complain(format!("client {client} takes {number} twice at QoS 2"));
                    }
                    Event::Receive { connection, tag, reason }
                } else {
                    known.taken.insert(number);
                    Event::Acknowledge { connection, tag, reason }
                }
            }
            Effect::ReleaseDelivery { tag, .. } => {
                known.received.remove(&tag);
                Event::Complete { connection, tag }
            }
            _ => return,
        };
        if !forgets {
            self.clients[client].link.due.push_back(answer);
        }
    }

    fn answer(&mut self, client: usize) {
        let link = &mut self.clients[client].link;
        link.to_server.extend(link.due.pop_front());
    }

    fn server_reads(&mut self, client: usize) {
        let count = 1 + self.random.below(3);
        for _ in 0..count {
            let Some(event) = self.clients[client].link.to_server.pop_front() else { break };
            let unknown = self.shard.broker.stats().count(postroad_broker::api::Counted::UnknownTag);
            let ended = self.shard.broker.stats().ended(Outcome::Acknowledged);
            self.handle(event);
            let stats = self.shard.broker.stats();
            let was_echo = stats.count(postroad_broker::api::Counted::UnknownTag) == unknown
                && stats.ended(Outcome::Acknowledged) == ended;
            self.report.echoes += usize::from(was_echo);
        }
        if let Some(event) = self.publisher.to_server.pop_front() {
            self.handle(event);
        }
    }

    fn publish(&mut self) {
        let (Some(connection), true) = (self.publisher.connection, self.publisher.open) else { return };
        if self.unanswered.len() >= 8 {
            return;
        }
        self.number_last += 1;
        let number = self.number_last;
        let Some(tag) = Tag::new((number % 60_000) as u16 + 1) else { return };
        let qos = if self.random.chance(300) { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        let message = Message {
            id: MessageId(0),
            topic: TopicName::new("t/x").expect("a topic"),
            payload: number.to_string().into(),
            properties: Default::default(),
            qos,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        self.unanswered.insert(tag, number);
        let message = Inbound { message: message.into(), tag: Some(tag), dup: false, flaw: None };
        self.handle(Event::Publish { connection, message });
    }

    // ---- rest ----

    fn find_letters(&mut self) {
        let mut query = LetterQuery { limit: 1_000, ..LetterQuery::default() };
        loop {
            self.letters_next = None;
            self.handle(Event::FindLetters { token: 1, query: Box::new(query.clone()) });
            while self.letters_next.is_none() {
                self.job();
                self.handle(Event::Tick);
            }
            match self.letters_next.flatten() {
                Some(next) => query.after = Some(next),
                None => return,
            }
        }
    }

    /// Everybody comes anew, answers all, and time passes.
    fn finish(&mut self) -> Result<(), String> {
        self.is_calm = true;
        for client in 0..CLIENTS {
            self.cut(client);
        }
        for _ in 0..20_000 {
            for client in 0..CLIENTS {
                self.connect_if_gone(client);
                self.arrive(client);
                self.read(client);
                self.answer(client);
                self.server_reads(client);
            }
            self.commit();
            self.job();
            self.time_passes();
            self.broken.take().map_or(Ok(()), Err)?;
            let stats = self.shard.broker.stats();
            if stats.inflight == 0 && stats.queued_messages == 0 && self.shard.is_at_rest() && self.all_here() {
                return self.judge();
            }
        }
        Err(format!("it does not come to rest: {:?}", self.shard.broker.stats()))
    }

    fn connect_if_gone(&mut self, client: usize) {
        if self.clients[client].link.connection.is_none() {
            self.clients[client].link = self.new_link(client);
        }
    }

    fn all_here(&self) -> bool {
        let is_quiet = |link: &Link| link.open && link.on_the_road.is_empty() && link.in_kernel.is_empty();
        self.clients.iter().all(|client| is_quiet(&client.link) && client.link.due.is_empty())
    }

    fn judge(&mut self) -> Result<(), String> {
        self.find_letters();
        self.report.letters = self.letters.len();
        let subscribed_from = self.clients.iter().map(|client| client.taken.first().copied().unwrap_or(u64::MAX));
        for (client, from) in subscribed_from.enumerate() {
            for number in self.answered.iter().filter(|number| **number >= from) {
                if !self.clients[client].taken.contains(number) && !self.letters.contains(&(client, *number)) {
                    return Err(format!("client {client} has neither got {number} nor is there a letter"));
                }
            }
        }
        Ok(())
    }
}

fn config(seed: u64, boots: u32) -> Config {
    let mut config = Config::new(ShardId(0), Placement::new(16, 1, [5; 16]), true, boots);
    // Above 16, a full window uses a tag again as soon as it is free.
    config.limits.inflight_max = [3, 24][seed as usize % 2];
    config.backlog_messages_max = 2;
    (config.limits.ack_timeout_min_ms, config.limits.ack_timeout_max_ms) = (100, 1_000);
    config.resent_per_tick = [1, 3, 256][seed as usize % 3];
    config.limits.resent_per_second = [0, 0, 20][seed as usize / 3 % 3];
    config.limits.retry = RetryPolicy {
        attempts_max: [0, 3, 6][seed as usize / 9 % 3],
        age_max_ms: [0, 3_000][seed as usize / 27 % 2],
        immediate: 1,
        backoff_min_ms: 50,
        backoff_max_ms: 500,
    };
    config
}

fn number_of(message: &Message) -> Option<u64> {
    std::str::from_utf8(&message.payload).ok()?.parse().ok()
}

fn name_of(client: usize) -> String {
    format!("client-{client}")
}

fn everything() -> Arc<Acl> {
    let rules = "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"allow\"\n";
    Arc::new(Acl::parse(rules).expect("a valid rule"))
}

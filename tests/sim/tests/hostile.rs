//! Events that make no sense, in any order: nothing panics, and what is held stays within the bounds.

use std::collections::VecDeque;

use base::{
    ConnectionId, DeliveryId, GroupAnswer, GroupOrder, LetterAction, LetterId, LetterQuery, Message, MessageId,
    MonoMillis, Now, PartitionId, Placement, Qos, QueueId, ReasonCode, ReceiptLevel, Requeue, RetainHandling, Sequence,
    SessionExpiry, ShardId, SubscriptionOptions, Tag, Take, TopicFilter, TopicName, Verdict, WallMillis, Will, Wishes,
};
use postroad_base as base;
use postroad_broker::api::{
    ClientName, Connect, DisconnectCause, Effect, Event, Inbound, MeshMessage, Principal, Road, Subscribe,
};
use postroad_broker::{Broker, Config, QueuePolicy, Resend, RetryPolicy};
use postroad_sim::Random;

const SHARDS: u16 = 2;
const QUEUE_MAX: usize = 5;
const LETTERS_MAX: usize = 3;
const GROUPS_MAX: usize = 2;
const LEASES_MAX: usize = 3;

struct World {
    random: Random,
    brokers: Vec<Broker>,
    appended: Vec<u64>,
    mesh: VecDeque<(u16, u16, MeshMessage)>,
    clock: u64,
    durable: bool,
    /// Connections that were made, the newest last; some are gone.
    connections: Vec<ConnectionId>,
    connection_last: u64,
    /// The connection whose road was asked for last.
    probed: ConnectionId,
    /// Letters that were found last; some are gone.
    letters: Vec<LetterId>,
    /// Deliveries that a group gave last.
    deliveries: Vec<DeliveryId>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let durable = random.chance(500);
        let policies = [
            QueuePolicy::RejectPublisher,
            QueuePolicy::DropOldest,
            QueuePolicy::DropNew,
            QueuePolicy::DeadLetterOldest,
        ];
        let policy = policies[random.below(policies.len())];
        let placement = Placement::new(16, SHARDS, [seed as u8; 16]);
        let broker = |shard| {
            let mut config = Config::new(ShardId(shard), placement.clone(), durable, 1);
            config.limits.queue_messages_max = QUEUE_MAX;
            config.limits.queue_policy = policy;
            config.limits.inflight_max = 3;
            config.limits.retained_max = 2;
            config.sessions_max = 4;
            config.limits.subscriptions_max = 3;
            config.mesh_credits = 2;
            config.answers_max = 3;
            config.deferred_max = 2;
            config.limits.letters_max = LETTERS_MAX;
            (config.limits.ack_timeout_min_ms, config.resent_per_tick) = (500, 2);
            config.limits.retry =
                RetryPolicy { attempts_max: 3, age_max_ms: 9_000, backoff_min_ms: 500, ..config.limits.retry };
            config.limits.groups_max = GROUPS_MAX;
            config.limits.groups_leases_max = LEASES_MAX;
            config.limits.groups_waiting_max = 2;
            config.limits.groups_delay_ms = 50;
            Broker::new(config, Sequence(1))
        };
        let brokers = (0..SHARDS).map(broker).collect();
        Self {
            random,
            brokers,
            appended: vec![0; 2],
            mesh: VecDeque::new(),
            clock: 1,
            durable,
            connections: vec![ConnectionId(0)],
            connection_last: 0,
            probed: ConnectionId(0),
            letters: Vec::new(),
            deliveries: Vec::new(),
        }
    }

    fn handle(&mut self, shard: usize, event: Event) {
        let now = Now { mono: MonoMillis(self.clock), wall: WallMillis(self.clock) };
        self.brokers[shard].handle(now, event);
        while let Some(effect) = self.brokers[shard].poll() {
            match effect {
                Effect::Append { .. } => {
                    assert!(self.durable, "nothing is appended without a log");
                    self.appended[shard] += 1;
                }
                Effect::Mesh { to, message } => self.mesh.push_back((shard as u16, to.0, message)),
                Effect::LettersFound { letters, .. } if !letters.is_empty() => {
                    self.letters = letters.into_iter().map(|letter| letter.id).collect();
                }
                Effect::Probe { connection } => self.probed = connection,
                Effect::GroupDone { answer, .. } => {
                    if let GroupAnswer::Taken(leased) = *answer {
                        self.deliveries.extend(leased.into_iter().map(|leased| leased.id));
                        let old = self.deliveries.len().saturating_sub(20);
                        self.deliveries.drain(..old);
                    }
                }
                Effect::Deliver { delivery, .. } => {
                    assert_eq!(delivery.tag.is_some(), delivery.qos.is_acknowledged());
                }
                _ => {}
            }
        }
    }

    fn step(&mut self) {
        let shard = self.random.below(SHARDS.into());
        match self.random.below(20) {
            0..=4 => {
                if let Some((from, to, message)) = self.mesh.pop_front() {
                    self.handle(to.into(), Event::Mesh { from: ShardId(from), message });
                }
            }
            5..=6 => {
                let upto = Sequence(self.appended[shard]);
                self.handle(shard, Event::Committed { upto });
            }
            7 => {
                self.clock += self.random.below(3_000) as u64;
                self.handle(shard, Event::Tick);
            }
            _ => {
                let event = self.nonsense();
                self.handle(shard, event);
            }
        }
    }

    fn nonsense(&mut self) -> Event {
        let newest = self.connections.len() - self.random.below(self.connections.len().min(6)) - 1;
        let connection = self.connections[newest];
        let tag = Tag::new(1 + self.random.below(5) as u16).expect("not 0");
        let reason = if self.random.chance(200) { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        match self.random.below(23) {
            20..=21 => {
                let connection = if self.random.chance(700) { self.probed } else { connection };
                let (sent, arrived) = (self.random.below(3) as u64, self.random.below(3) as u64);
                Event::Road { connection, road: Road { sent, arrived, has_unread: self.random.chance(200) } }
            }
            0..=1 => self.connect(),
            2..=6 => self.publish(connection, tag),
            7 => Event::Release { connection, tag },
            8 => Event::Acknowledge { connection, tag, reason },
            9 => Event::Receive { connection, tag, reason },
            10 => Event::Complete { connection, tag },
            11 => Event::Subscribe { connection, tag, filters: vec![self.subscribe(), self.subscribe()] },
            12 => Event::Unsubscribe { connection, tag, filters: vec![self.subscribe().filter] },
            13 => Event::Congested { connection },
            14 => Event::Writable { connection },
            15 => self.look(),
            16 => self.act(),
            17..=19 => self.order(),
            _ => self.disconnect(connection),
        }
    }

    /// For a consumer group that is there, or not, in good order or not.
    fn order(&mut self) -> Event {
        let millis = |random: &mut Random| random.below(3_000) as u64;
        let order = match self.random.below(8) {
            0 => GroupOrder::Set {
                filters: vec![self.subscribe(), self.subscribe()]
                    .into_iter()
                    .filter_map(|line| line.filter.ok())
                    .collect(),
            },
            1 if self.random.chance(100) => GroupOrder::Delete,
            1..=3 => GroupOrder::Take(Take {
                limit: self.random.below(3),
                lease_ms: millis(&mut self.random),
                wait_ms: millis(&mut self.random),
            }),
            _ => {
                let verdict = match self.random.below(7) {
                    0..=1 => Verdict::Acknowledge,
                    2 => {
                        Verdict::Refuse { after_ms: self.random.chance(500).then_some(100), reason: Some("why".into()) }
                    }
                    3 => Verdict::Bury { reason: None },
                    4 => Verdict::Extend { lease_ms: millis(&mut self.random) },
                    5 => Verdict::Untaken,
                    _ => Verdict::GiveBack,
                };
                let deliveries = (0..self.random.below(4)).map(|_| self.delivery()).collect();
                GroupOrder::Answer { deliveries, verdict }
            }
        };
        let name = ["g", "h", "i"][self.random.below(3)].into();
        if self.random.chance(100) {
            return Event::GroupLeft { token: 3, name };
        }
        Event::Group { token: 3, name, caller: Principal::default(), order: Box::new(order) }
    }

    /// One that was given, maybe long ago, or none.
    fn delivery(&mut self) -> DeliveryId {
        let number = self.random.below(self.deliveries.len() + 2);
        let queue = QueueId::new(PartitionId(0), 0);
        let none = DeliveryId { queue, sequence: Sequence(number as u64), start: 0, attempt: 1 };
        self.deliveries.get(number).copied().unwrap_or(none)
    }

    fn look(&mut self) -> Event {
        let after = self.random.chance(500).then(|| self.letter());
        let lease_ms = self.random.chance(500).then_some(1_000);
        let query = LetterQuery { after, limit: self.random.below(3), lease_ms, ..LetterQuery::default() };
        Event::FindLetters { token: 1, query: Box::new(query) }
    }

    fn act(&mut self) -> Event {
        let action = match self.random.below(6) {
            0 => LetterAction::Show,
            1 => LetterAction::Drop,
            2 => LetterAction::Park { note: "why".into() },
            3 => LetterAction::Unpark,
            4 => LetterAction::Release,
            _ => LetterAction::Requeue(Requeue { payload: None, ttl_seconds: self.random.chance(500).then_some(1) }),
        };
        Event::Letter { token: 2, id: self.letter(), action: Box::new(action) }
    }

    /// One that was found, or none.
    fn letter(&mut self) -> LetterId {
        let number = self.random.below(2 * self.letters.len() + 1);
        let none = LetterId { queue: QueueId::new(PartitionId(0), 0), sequence: Sequence(number as u64) };
        self.letters.get(number).copied().unwrap_or(none)
    }

    fn wishes_for_will(&mut self) -> Wishes {
        let receipt = self.random.chance(100).then_some(ReceiptLevel::Acknowledged);
        let collapse_key = self.random.chance(100).then(|| "k".into());
        Wishes { receipt, collapse_key, ..Wishes::default() }
    }

    fn connect(&mut self) -> Event {
        let will = Will {
            topic: self.topic(),
            payload: "will".into(),
            properties: Default::default(),
            qos: Qos::AtLeastOnce,
            retain: self.random.chance(300),
            delay_seconds: self.random.below(3) as u32,
            expiry_seconds: None,
            wishes: self.wishes_for_will(),
        };
        // A connection's id is never used again.
        self.connection_last += 1;
        let connection = ConnectionId(self.connection_last);
        self.connections.push(connection);
        Event::Connect(Box::new(Connect {
            connection,
            name: ClientName::Chosen,
            client: format!("c{}", self.random.below(7)).as_str().into(),
            principal: Principal::default(),
            clean_start: self.random.chance(300),
            expiry: SessionExpiry(self.random.below(3) as u32),
            receive_maximum: self.random.below(4) as u16,
            delivery: None,
            will: self.random.chance(500).then(|| Box::new(will)),
            hears_refusals: self.random.chance(500),
            resend: if self.random.chance(700) { Resend::Live } else { Resend::Reconnect },
        }))
    }

    fn publish(&mut self, connection: ConnectionId, tag: Tag) -> Event {
        let qos = Qos::from_number(self.random.below(3) as u8).expect("below 3");
        let message = Message {
            id: MessageId(0),
            topic: self.topic(),
            payload: ["", "x"][self.random.below(2)].into(),
            properties: Default::default(),
            qos,
            retain: self.random.chance(300),
            expires_at: self.random.chance(300).then(|| WallMillis(self.clock + 1_000)),
            publisher: QueueId::NONE,
            extras: None,
        };
        Event::Publish {
            connection,
            message: Inbound {
                message: message.into(),
                tag: qos.is_acknowledged().then_some(tag),
                dup: false,
                flaw: None,
            },
        }
    }

    fn topic(&mut self) -> TopicName {
        TopicName::new(["a", "b", "a/b", "$SYS/x"][self.random.below(4)]).expect("a topic")
    }

    fn subscribe(&mut self) -> Subscribe {
        let filter = ["a", "#", "+/b", "$share/g/a", "$share/g/#", "a/#"][self.random.below(6)];
        let handling = [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never];
        let options = SubscriptionOptions {
            qos: Qos::from_number(self.random.below(3) as u8).expect("below 3"),
            no_local: self.random.chance(200),
            retain_as_published: self.random.chance(200),
            retain_handling: handling[self.random.below(3)],
            identifier: None,
        };
        Subscribe { filter: TopicFilter::new(filter).map_err(|_| ReasonCode::TopicFilterInvalid), options }
    }

    fn disconnect(&mut self, connection: ConnectionId) -> Event {
        let cause = match self.random.below(4) {
            0 => DisconnectCause::Normal { expiry: Some(SessionExpiry(0)) },
            1 => DisconnectCause::WithWill { expiry: None },
            2 => DisconnectCause::Lost,
            _ => DisconnectCause::ServerShutdown,
        };
        Event::Disconnect { connection, cause }
    }
}

#[test]
fn nonsense_neither_panics_nor_grows() {
    let (mut sessions, mut letters, mut resent, mut groups) = (0, 0, 0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..1_000 {
            world.step();
        }
        for broker in &world.brokers {
            let stats = broker.stats();
            sessions += stats.sessions;
            letters += stats.letters;
            groups += stats.groups;
            let queues = stats.sessions + stats.groups;
            assert!(
                stats.groups <= GROUPS_MAX && stats.group_leased <= LEASES_MAX * stats.groups,
                "seed {seed}: {stats:?}"
            );
            assert!(stats.sessions <= 4 && stats.retained <= 2 && stats.subscriptions <= 3 * queues, "{stats:?}");
            assert!(stats.letters <= LETTERS_MAX, "seed {seed}: {stats:?}");
            assert!(stats.queued_messages + stats.inflight <= queues * QUEUE_MAX, "seed {seed}: {stats:?}");
            assert!(stats.overdue <= stats.inflight, "seed {seed}: {stats:?}");
            resent += stats.resent_live;
        }
    }
    assert!(resent > 100, "only {resent} deliveries were sent again");
    assert!(sessions > 100 && letters > 100, "only {sessions} sessions and {letters} letters were left: too idle");
    assert!(groups > 100, "only {groups} groups were left");
}

//! Text in, text out: a few shards, driven line by line, and what they did in words.
//!
//! ```text
//! connect 1 anna expiry=60 max=10 clean will=t/w:gone v3 [pull|push]  connection 1, client "anna", MQTT 3
//! sub 1 5 a/+:1,rap,id=7 b:2                               tag 5
//! pub 2 a/b hello qos=1 tag=9 retain dup expires=500
//! ack|rec|comp|rel 1 9 [reason=128]
//! unsub 1 6 a/+      disc 1 [lost|will|shutdown] [expiry=0]
//! congested 1        writable 1      at 5000 (advances the clock, ticks)
//! commit             hold / flow (commits by hand / after each line)
//! commit 1 2         the next two records of shard 1 only
//! rest / work        ticks wait / go on
//! stop 1 / go        mesh messages from shard 1 wait / go on
//! cut 1 0 / join 1 0 those from shard 1 to shard 0 only
//! allow a/# [to=user:u] the access rules: this, and nothing else, may be subscribed to
//! watch / unwatch    somebody looks at all that happens / no more
//! retire             crash           stats [letters|wishes]
//! store / stored     a retirement's batch is stored, and nobody is told / shard 0 is told
//! reading / read     what is read of the old generation stays on its way / comes, to shard 0
//! drain rate=100 jitter=50 sessions=10 delivery=pull       limits of the drain lane, as by a reload
//! policy full_sync                                         what happens to a full queue, as by a reload
//! peek anna [after=0-0-9] [limit=2]                        what waits for her; and these are acknowledged in her place:
//! end anna 0-0-9 0-0-10
//! scheduled [shard=1] [topic=t/#] [by=user:u|client:p] [from=0] [until=9000] [limit=2] [after=0-0-9]   what waits for its time
//! cancel later [shard=1] [of=user:u]                       takes back the one with this payload, which a look has shown
//! due                                                      how long until the next tick is due
//! road 1 90 of 100 [unread]                                the answer to a probe: so many bytes of so many have arrived
//! retry a/# attempts=3 age=9000 immediate=0 backoff=1000   a policy by topic, beside those before; without one: none
//! client a                                                 what the road of this client is like
//! drains                                                   what the drain lane holds, and what has left by it
//! file a b:anna c:anna:cars                                auth.file names these clients (user, group)
//! poison hello       the next crash is that of a server which knows messages with this payload to be poison
//! moved 1 3          the data comes from 3 shards, of which number 1 had taken what publishers of QoS 2 may repeat
//! letters [shard=1] [after=0-0-9] [client=a] [topic=t/#] [outcome=refused] [limit=2] [lease=5000] [free] [parked]
//! bring 3            the next crash finds a second queue of letters, of another shard
//! letter 0-0-9 show|drop|park|unpark|release|requeue [payload=x] [ttl=60] [note=x]
//! group orders set t/# u [as=ann] | delete              a consumer group, for this user
//! group orders take [limit=10] [lease=30000] [wait=0]
//! group orders ack|refuse|bury|extend|back|untaken 0-0-9-7-1 … [after=500] [why=x] [lease=5000]
//! left orders 3                                           who asked that group by order 3 is gone
//! groups                                                   what is known of them
//! disk full / disk free
//! log pressed / log calm
//! plugins 2 publish t/# drop                               one rule for plugins on all shards (`plugins::Rules`), as generation 2
//! committed 2 0      shard 0 has committed that generation
//! aside 1 9          sending tag 9 to connection 1 has panicked too often
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use base::{
    Addressee, ClientId, ConnectionId, DeliveryId, Extras, FormerShard, GroupAnswer, GroupOrder, KeyHolder, KeyName,
    KnownIds, Leased, Letter, LetterAction, LetterAnswer, LetterFilter, LetterId, LetterQuery, Message, MessageId,
    MonoMillis, Moved, Now, Outcome, Pending, PendingAnswer, Placement, Priority, Published, Qos, QueueId, ReasonCode,
    ReceiptLevel, Record, Requeue, RetainHandling, ScheduledFilter, ScheduledMessage, ScheduledQuery, Sequence,
    SessionExpiry, ShardId, Step, SubscriptionOptions, Tag, Take, TopicFilter, TopicName, Verdict, WallMillis, Will,
    Wishes,
};
use postroad_base as base;
use postroad_broker::access::Acl;
use postroad_broker::api::{
    BacklogEntry, ClientName, Connect, Counted, DisconnectCause, Effect, Event, Inbound, MeshMessage, Principal,
    Retirement, Road, StateKey, Subscribe,
};
use postroad_broker::clients::{ClientState, ClientsCursor, QueueState};
use postroad_broker::consumers::GroupState;
use postroad_broker::{
    Broker, Config, DeliveryMode, Limits, Push, QueuePolicy, Resend, RestartDelivery, RetryPolicy, Stats,
};

/// The log and the old generation of one shard, as a model.
#[derive(Default)]
struct Disk {
    records: Vec<(Sequence, Record)>,
    committed: usize,
    as_of: Sequence,
    state: BTreeMap<StateKey, Vec<Record>>,
    stored: BTreeMap<(QueueId, Sequence), BacklogEntry>,
}

impl Disk {
    fn ingest(&mut self, batch: Retirement) {
        for (key, state) in batch.state {
            match state {
                Some(records) => self.state.insert(key, records),
                None => self.state.remove(&key),
            };
        }
        self.stored.extend(batch.pending.into_iter().map(|(queue, entry)| ((queue, entry.sequence), entry)));
        for key in batch.settled {
            self.stored.remove(&key);
        }
        self.stored.retain(|(queue, _), _| !batch.ended.contains(queue));
        self.state.retain(|key, _| !matches!(key, StateKey::Queue(queue) if batch.ended.contains(queue)));
        self.as_of = batch.as_of;
        let before = self.records.len();
        self.records.retain(|(sequence, _)| *sequence > batch.upto);
        self.committed -= before - self.records.len();
    }
}

struct Shard {
    broker: Broker,
    disk: Disk,
    next: Sequence,
    inbox: VecDeque<(ShardId, MeshMessage)>,
    stopped: bool,
}

/// Who asks for no letters.
const WHERE_THEY_END: u64 = 2;

pub struct World {
    shards: Vec<Shard>,
    config: Config,
    now: u64,
    /// Nobody is told that a batch is stored.
    stores_silently: bool,
    /// What was read, and is on its way: `Some` while nothing comes.
    on_its_way: Option<Vec<Event>>,
    hold: bool,
    /// Ticks wait.
    rest: bool,
    /// Pairs of shards whose messages wait.
    cuts: BTreeSet<(u16, u16)>,
    connections: BTreeMap<u64, usize>,
    out: String,
    show_log: bool,
    /// The most deliveries that came of one event.
    pub burst_max: usize,
    /// Ticks that were due.
    pub ticks: usize,
    /// Fences that were asked for between shards.
    pub fences: usize,
    /// Questions for retained messages between shards.
    pub questions: usize,
    /// The most subscriptions that the rules ended in one event.
    pub revoked_max: usize,
    acl: Arc<Acl>,
    topics: Vec<(TopicFilter, RetryPolicy)>,
    /// What `auth.file` says, once it was read.
    file: Option<Vec<(ClientId, Principal)>>,
    poison: Vec<MessageId>,
    /// Of what was seen to wait for its time, by payload.
    scheduled_ids: BTreeMap<String, MessageId>,
    /// Orders for groups so far: names the next one.
    orders: u64,
    /// What plugins were asked.
    asked: std::rc::Rc<std::cell::RefCell<String>>,
}

/// One shard, with a log.
pub fn durable() -> World {
    World::new(1, true, |_| {})
}

/// One shard, in memory.
pub fn memory() -> World {
    World::new(1, false, |_| {})
}

impl World {
    pub fn new(shards: u16, durable: bool, tune: impl Fn(&mut Config)) -> Self {
        let placement = Placement::new(16, shards, [3; 16]);
        let mut config = Config::new(ShardId(0), placement, durable, 7);
        tune(&mut config);
        let mut world = Self {
            shards: Vec::new(),
            config,
            now: 1_000,
            stores_silently: false,
            on_its_way: None,
            hold: false,
            rest: false,
            cuts: BTreeSet::new(),
            connections: BTreeMap::new(),
            out: String::new(),
            show_log: false,
            burst_max: 0,
            ticks: 0,
            fences: 0,
            questions: 0,
            revoked_max: 0,
            acl: Arc::new(Acl::default()),
            topics: Vec::new(),
            file: None,
            poison: Vec::new(),
            scheduled_ids: BTreeMap::new(),
            orders: 0,
            asked: std::rc::Rc::default(),
        };
        for number in 0..shards {
            let broker = Broker::new(world.config_of(number), Sequence(1));
            let (disk, inbox) = (Disk::default(), VecDeque::new());
            world.shards.push(Shard { broker, disk, next: Sequence(1), inbox, stopped: false });
        }
        world
    }

    /// Everybody may do everything.
    pub fn open(mut self) -> Self {
        self.set_rules("allow");
        self
    }

    /// Nobody may do anything.
    pub fn close(&mut self) {
        self.set_rules("deny");
    }

    /// Everybody may connect and subscribe, and publish nothing.
    pub fn listen_only(&mut self) {
        self.set_access("[[rule]]\nprincipal = \"*\"\naction = [\"connect\", \"subscribe\"]\neffect = \"allow\"\n");
    }

    fn set_rules(&mut self, effect: &str) {
        let rules = ["connect", "publish", "subscribe"]
            .map(|action| format!("[[rule]]\nprincipal = \"*\"\naction = \"{action}\"\neffect = \"{effect}\"\n"));
        let letters = format!(
            "[[rule]]\nprincipal = \"*\"\naction = \"subscribe\"\ntopic = [\"$dead/#\", \"$receipt/#\"]\neffect = \"{effect}\"\n"
        );
        self.set_access(&(rules.concat() + &letters));
    }

    /// Everybody may connect and publish; this one may subscribe to what is below this filter.
    fn allow(&mut self, filter: &str, to: &str) {
        self.set_access(&format!(
            "[[rule]]\nprincipal = \"*\"\naction = [\"connect\", \"publish\"]\neffect = \"allow\"\n\
             [[rule]]\nprincipal = \"{to}\"\naction = \"subscribe\"\ntopic = \"{filter}\"\neffect = \"allow\"\n"
        ));
    }

    /// All clients, looking at so many places at a time.
    fn print_clients(&mut self, looks_max: u32) {
        for shard in 0..self.shards.len() {
            let mut cursor = Some(ClientsCursor::default());
            while let Some(from) = cursor {
                let mut found = Vec::new();
                cursor = self.shards[shard].broker.walk_clients(from, looks_max, |state| {
                    found.push(state);
                    true
                });
                found.iter().for_each(|state| self.print_client(state));
            }
        }
    }

    fn print_client(&mut self, state: &ClientState) {
        let queue = |queue: QueueState| format!("{}+{} ({} B)", queue.waiting, queue.in_flight, queue.bytes);
        let session = state.session.map(|s| format!(" session {} subscriptions {}", s.subscriptions, queue(s.queue)));
        let known = state.registration.map(|known| format!(" {:?} {}", known.by, queue(known.queue)));
        let here = match (state.connection, state.allowance) {
            (None, _) => String::new(),
            (Some(_), None) => " here".to_owned(),
            (Some(_), Some(allowance)) => format!(" here, pulls, allowance {allowance}"),
        };
        let (user, client) = (state.user.as_deref().unwrap_or("-"), state.client.as_str());
        let line = format!("{client} {user}{here}{}{}", session.unwrap_or_default(), known.unwrap_or_default());
        writeln!(self.out, "    {line}").unwrap();
    }

    /// Every shard has these rules for plugins, under this generation.
    pub fn set_plugins(&mut self, generation: u32, rules: &str) {
        for shard in &mut self.shards {
            let rules = crate::plugins::Rules::new(generation, rules, &self.asked);
            shard.broker.set_hooks(Some(Box::new(rules)));
        }
    }

    fn set_push(&mut self, word: &str) {
        let push = if word == "off" { Push::Off } else { Push::On };
        self.shards.iter_mut().for_each(|shard| shard.broker.set_limits(Limits { push, ..self.config.limits }));
        self.config.limits.push = push;
    }

    fn set_policy(&mut self, word: &str) {
        self.config.limits.queue_policy = match word {
            "drop_oldest" => QueuePolicy::DropOldest,
            "full_sync" => QueuePolicy::FullSync,
            other => panic!("unknown policy {other}"),
        };
        let limits = self.config.limits;
        self.shards.iter_mut().for_each(|shard| shard.broker.set_limits(limits));
    }

    fn set_drain(&mut self, arguments: &Arguments<'_>) {
        let mut limits = self.config.limits;
        let or = |key: &str, before: u32| arguments.option(key).unwrap_or(before);
        limits.drained_per_second = or("rate", limits.drained_per_second);
        limits.restart_sessions_per_second = or("sessions", limits.restart_sessions_per_second);
        limits.drain_jitter_ms = arguments.option("jitter").unwrap_or(limits.drain_jitter_ms);
        limits.restart_delivery = match arguments.text("delivery") {
            Some("pull") => RestartDelivery::Pull,
            Some(_) => RestartDelivery::Scheduled,
            None => limits.restart_delivery,
        };
        self.config.limits = limits;
        self.shards.iter_mut().for_each(|shard| shard.broker.set_limits(limits));
    }

    fn print_due(&mut self) {
        let due = self.shards.iter().filter_map(|shard| shard.broker.next_deadline()).min();
        let due = due.map_or_else(|| "never".to_owned(), |at| format!("in {} ms", at.since(MonoMillis(self.now))));
        writeln!(self.out, "    due {due}").unwrap();
    }

    fn set_retry_topics(&mut self, arguments: &Arguments<'_>) {
        let Some(filter) = arguments.0.first() else {
            self.topics.clear();
            return self.tell_retry_topics();
        };
        let usual = self.config.limits.retry;
        let policy = RetryPolicy {
            attempts_max: arguments.option("attempts").unwrap_or(usual.attempts_max),
            age_max_ms: arguments.option("age").unwrap_or(usual.age_max_ms),
            immediate: arguments.option("immediate").unwrap_or(usual.immediate),
            backoff_min_ms: arguments.option("backoff").unwrap_or(usual.backoff_min_ms),
            ..usual
        };
        self.topics.push((TopicFilter::new(*filter).unwrap(), policy));
        self.tell_retry_topics();
    }

    fn tell_retry_topics(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.broker.set_retry_topics(&self.topics));
    }

    fn print_road(&mut self, client: &str) {
        let state = self.shards[self.home(client)].broker.client_state(client);
        let words = state.and_then(|state| state.road).map_or("none".to_owned(), |road| format!("{road:?}"));
        writeln!(self.out, "    {words}").unwrap();
    }

    fn print_drains(&mut self) {
        for shard in &self.shards {
            let s = shard.broker.stats();
            writeln!(
                self.out,
                "    clients: {} await, {} drain; wait: {:?}; left: {} realtime, {} drained",
                s.drains_awaiting, s.drains_begun, s.lanes, s.realtime, s.drained
            )
            .unwrap();
        }
    }

    fn print_oldest(&mut self) {
        let now = self.clock().wall;
        for shard in &self.shards {
            let age = |oldest: Option<Option<WallMillis>>| match oldest {
                None => "none".to_owned(),
                Some(None) => "before the start".to_owned(),
                Some(Some(at)) => format!("{} ms", now.since(at)),
            };
            let [realtime, offline, awaiting, draining] = shard.broker.stats().oldest.map(age);
            writeln!(
                self.out,
                "    oldest: realtime {realtime}, offline {offline}, awaiting {awaiting}, draining {draining}"
            )
            .unwrap();
        }
    }

    fn set_access(&mut self, rules: &str) {
        self.acl = Arc::new(Acl::parse(rules).unwrap());
        for shard in &mut self.shards {
            shard.broker.set_access(Arc::clone(&self.acl));
        }
    }

    /// Shows the records that are appended, too.
    pub fn showing_log(mut self) -> Self {
        self.show_log = true;
        self
    }

    /// Runs the script; the script with what came of each line below it.
    pub fn run(&mut self, script: &str) -> String {
        self.out.clear();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            writeln!(self.out, "{line}").unwrap();
            self.line(line);
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    fn config_of(&self, shard: u16) -> Config {
        Config { shard: ShardId(shard), ..self.config.clone() }
    }

    fn clock(&self) -> Now {
        Now { mono: MonoMillis(self.now), wall: WallMillis(1_000_000 + self.now) }
    }

    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let arguments = Arguments(&words);
        match verb {
            "commit" if words.len() == 2 => {
                self.commit_some(arguments.number(0) as usize, arguments.number(1) as usize)
            }
            "commit" => self.commit(),
            "plugins" => self.set_plugins(arguments.number(0) as u32, &words[1..].join(" ")),
            "committed" => {
                let shard = &mut self.shards[arguments.number(1) as usize];
                shard.broker.plugins_committed(arguments.number(0) as u32);
                self.poll(arguments.number(1) as usize);
            }
            "store" => self.stores_silently = true,
            "stored" => {
                self.stores_silently = false;
                self.handle(0, Event::Ingested);
            }
            "reading" => self.on_its_way = Some(Vec::new()),
            "read" => self.on_its_way.take().into_iter().flatten().for_each(|event| self.handle(0, event)),
            "hold" => self.hold = true,
            "flow" => self.hold = false,
            "rest" => self.rest = true,
            "work" => self.rest = false,
            "at" => self.advance(arguments.number(0)),
            "crash" => self.crash(),
            "retire" => self.retire(),
            "bring" => self.bring(arguments.number(0)),
            "moved" => self.moved(ShardId(arguments.number(0) as u16), arguments.number(1) as u16),
            "poison" => self.name_poison(words[0]),
            "stats" if arguments.has("letters") => self.print_letters_stats(),
            "stats" if arguments.has("wishes") => self.print_wishes_stats(),
            "stats" => self.print_stats(),
            "stop" => self.shards[arguments.number(0) as usize].stopped = true,
            "cut" => drop(self.cuts.insert((arguments.number(0) as u16, arguments.number(1) as u16))),
            "join" => drop(self.cuts.remove(&(arguments.number(0) as u16, arguments.number(1) as u16))),
            "kick" => {
                let client = arguments.0[0];
                self.handle(self.home(client), Event::CutOff { client: client.into() });
            }
            "clients" => self.print_clients(arguments.number(0) as u32),
            "register" => {
                let client: &str = words[0];
                let groups: Vec<_> = arguments
                    .text("groups")
                    .map(|groups| groups.split(',').map(Into::into).collect())
                    .unwrap_or_default();
                let principal = Principal { user: arguments.text("user").map(Into::into), groups: groups.into() };
                self.handle(self.home(client), Event::Register { token: 1, client: client.into(), principal });
            }
            "unregister" => {
                self.handle(self.home(words[0]), Event::Unregister { token: 1, client: words[0].into() });
            }
            "drain-now" => self.handle(self.home(words[0]), Event::DrainNow { client: words[0].into() }),
            "letters" => {
                let query = Box::new(arguments.letter_query());
                let token = if query.limit == 0 { WHERE_THEY_END } else { 1 };
                let event = Event::FindLetters { token, query };
                self.handle(arguments.option("shard").unwrap_or(0), event);
            }
            "letter" => {
                let id: LetterId = words[0].parse().unwrap();
                let shard = usize::from(self.config.placement.shard_of(id.queue.partition()).0);
                let action = Box::new(arguments.letter_action());
                self.handle(shard, Event::Letter { token: 2, id, action });
            }
            "watch" | "unwatch" => {
                self.shards.iter_mut().for_each(|shard| shard.broker.set_watched(verb == "watch"));
            }
            "peek" => {
                let client = words[0];
                let (after, limit) = (arguments.text("after").map(|id| id.parse().unwrap()), arguments.option("limit"));
                let event = Event::Peek { token: 3, client: client.into(), after, limit: limit.unwrap_or(100) };
                self.handle(self.home(client), event);
            }
            "end" => {
                let client = words[0];
                let ids = words[1..].iter().map(|id| id.parse().unwrap()).collect();
                self.handle(self.home(client), Event::EndPending { token: 4, client: client.into(), ids });
            }
            "scheduled" => self.find_scheduled(&arguments),
            "cancel" => {
                let id = self.scheduled_ids.get(words[0]).copied().unwrap_or(MessageId(1));
                let event = Event::Cancel { token: 5, id, of: arguments.text("of").map(holder) };
                self.handle(arguments.option("shard").unwrap_or(0), event);
            }
            "group" => self.group(&arguments),
            "groups" => self.print_groups(),
            "left" => {
                let name = words[0];
                self.handle(self.home(name), Event::GroupLeft { token: arguments.number(1), name: name.into() });
            }
            "log" => {
                let pressed = arguments.has("pressed");
                (0..self.shards.len()).for_each(|shard| self.handle(shard, Event::LogPressed { pressed }));
            }
            "disk" => {
                let full = arguments.has("full");
                (0..self.shards.len()).for_each(|shard| self.handle(shard, Event::DiskFull { full }));
            }
            "push" => self.set_push(arguments.0[0]),
            "policy" => self.set_policy(arguments.0[0]),
            "drain" => self.set_drain(&arguments),
            "due" => self.print_due(),
            "retry" => self.set_retry_topics(&arguments),
            "client" => self.print_road(arguments.0[0]),
            "drains" => self.print_drains(),
            "oldest" => self.print_oldest(),
            "allow" => self.allow(arguments.0[0], arguments.text("to").unwrap_or("*")),
            "go" => self.shards.iter_mut().for_each(|shard| shard.stopped = false),
            "connect" => self.connect(&arguments),
            "file" => {
                self.file = Some(words.iter().map(|word| registration_of(word)).collect());
                self.read_file();
            }
            _ => {
                let connection = ConnectionId(arguments.number(0));
                let shard = self.connections[&connection.0];
                let event = arguments.event(verb, connection, self.clock());
                self.handle(shard, event);
            }
        }
    }

    /// The shard on which a client or a topic lives.
    pub fn home(&self, name: &str) -> usize {
        usize::from(self.config.placement.home(name.as_bytes()).0)
    }

    /// The shard on which a key of this user lives.
    pub fn home_of_key(&self, user: &str, key: &str) -> usize {
        let name = KeyName { holder: KeyHolder::User(user.to_owned().into()), key: key.to_owned().into() };
        usize::from(self.config.placement.home_of_key(&name).0)
    }

    /// The shard on which a client lives if there are so many.
    pub fn home_among(&self, client: &str, shards: u16) -> ShardId {
        Placement::shard_among(self.config.placement.partition_of(client.as_bytes()), shards)
    }

    fn connect(&mut self, arguments: &Arguments<'_>) {
        let (connection, client) = (arguments.number(0), arguments.0[1]);
        let shard = self.home(client);
        self.connections.insert(connection, shard);
        let connect = Connect {
            connection: ConnectionId(connection),
            client: client.into(),
            name: match (arguments.has("assigned"), arguments.has("caller")) {
                (true, _) => ClientName::Assigned,
                (_, true) => ClientName::Caller,
                _ => ClientName::Chosen,
            },
            principal: Principal {
                user: arguments.text("user").map(Into::into),
                groups: arguments.text("group").map(Into::into).into_iter().collect(),
            },
            clean_start: arguments.has("clean"),
            expiry: SessionExpiry(arguments.option("expiry").unwrap_or(0)),
            receive_maximum: arguments.option("max").unwrap_or(100),
            delivery: match (arguments.has("pull"), arguments.has("push")) {
                (true, _) => Some(DeliveryMode::Pull),
                (_, true) => Some(DeliveryMode::Push),
                _ => None,
            },
            will: arguments.text("will").map(|will| Box::new(will_of(will, arguments))),
            hears_refusals: !arguments.has("v3"),
            resend: if arguments.has("v3") { Resend::Live } else { Resend::Reconnect },
        };
        self.handle(shard, Event::Connect(Box::new(connect)));
    }

    fn group(&mut self, arguments: &Arguments<'_>) {
        let name = arguments.0[0];
        self.orders += 1;
        let user = arguments.text("as").unwrap_or("app").into();
        let event = Event::Group {
            token: self.orders,
            name: name.into(),
            caller: Principal { user: Some(user), ..Principal::default() },
            order: Box::new(arguments.group_order()),
        };
        self.handle(self.home(name), event);
    }

    fn print_groups(&mut self) {
        for shard in &self.shards {
            for state in shard.broker.group_states(None) {
                let GroupState { name, filters, queue, waiting_consumers, oldest } = state;
                let filters: Vec<&str> = filters.iter().map(TopicFilter::as_str).collect();
                let oldest = oldest.map_or("-".to_owned(), |at| at.0.to_string());
                let QueueState { waiting, in_flight, bytes } = queue;
                writeln!(
                    self.out,
                    "    {name} {filters:?}: {waiting}+{in_flight} ({bytes} B), oldest {oldest}, {waiting_consumers} wait"
                )
                .unwrap();
            }
        }
    }

    fn read_file(&mut self) {
        let Some(all) = self.file.clone() else { return };
        for shard in 0..self.shards.len() {
            let lives_here = |(client, _): &&(ClientId, Principal)| {
                usize::from(self.config.placement.home(client.as_str().as_bytes()).0) == shard
            };
            let clients = all.iter().filter(lives_here).cloned().collect();
            self.handle(shard, Event::Registrations { clients });
        }
    }

    fn handle(&mut self, shard: usize, event: Event) {
        let now = self.clock();
        self.shards[shard].broker.handle(now, event);
        self.poll(shard);
    }

    /// What a shard wants done is done.
    fn poll(&mut self, shard: usize) {
        self.out.push_str(&self.asked.take());
        let (mut burst, mut revoked) = (0, 0);
        while let Some(effect) = self.shards[shard].broker.poll() {
            burst += usize::from(matches!(effect, Effect::Deliver { .. }));
            if let Effect::Count { what: Counted::SubscriptionRevoked, by } = effect {
                revoked += by as usize;
            }
            self.effect(shard, effect);
        }
        self.burst_max = self.burst_max.max(burst);
        self.revoked_max = self.revoked_max.max(revoked);
    }

    fn find_scheduled(&mut self, arguments: &Arguments<'_>) {
        let wall = |key| arguments.option(key).map(|at: u64| WallMillis(1_000_000 + at));
        let filter = ScheduledFilter {
            topic: arguments.text("topic").map(|filter| TopicFilter::new(filter).unwrap()),
            by: arguments.text("by").map(holder),
            from: wall("from"),
            until: wall("until"),
        };
        let limit = arguments.option("limit").unwrap_or(100);
        let query = Box::new(ScheduledQuery { after: arguments.option("after"), filter, limit });
        self.handle(arguments.option("shard").unwrap_or(0), Event::FindScheduled { token: 5, query });
    }

    fn effect(&mut self, shard: usize, effect: Effect) {
        if let Effect::ScheduledFound { page: Some(page), .. } = &effect {
            let payload = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
            let seen = page.messages.iter().map(|found| (payload(&found.message), found.message.id));
            self.scheduled_ids.extend(seen);
        }
        let line = words_of(&effect);
        match effect {
            Effect::Append { record } => {
                let place = &mut self.shards[shard];
                if self.show_log {
                    writeln!(self.out, "    log {} {}", place.next.0, record_words(&record)).unwrap();
                }
                place.disk.records.push((place.next, record));
                place.next = place.next.next();
            }
            Effect::Mesh { to, message } => {
                self.fences += usize::from(matches!(message, MeshMessage::Fence { .. }));
                self.questions += usize::from(matches!(message, MeshMessage::RetainedQuery { .. }));
                self.shards[usize::from(to.0)].inbox.push_back((ShardId(shard as u16), message));
            }
            Effect::ReadBacklog { queue, after, messages_max, .. } => {
                let stored = &self.shards[shard].disk.stored;
                let all = stored.range((queue, after.next())..=(queue, Sequence(u64::MAX)));
                let entries: Vec<_> = all.map(|(_, entry)| entry.clone()).take(messages_max).collect();
                let end = entries.len() < messages_max;
                writeln!(self.out, "    read backlog: {} entries, end={end}", entries.len()).unwrap();
                let event = Event::Backlog { queue, entries, end };
                match &mut self.on_its_way {
                    Some(waiting) => waiting.push(event),
                    None => self.handle(shard, event),
                }
            }
            Effect::Ingest { batch } => {
                let (pending, settled) = (batch.pending.len(), batch.settled.len());
                writeln!(self.out, "    ingest: {pending} pending, {settled} settled").unwrap();
                self.shards[shard].disk.ingest(*batch);
                if !self.stores_silently {
                    self.handle(shard, Event::Ingested);
                }
            }
            _ => writeln!(self.out, "    {}", line.expect("everything else has words")).unwrap(),
        }
    }

    /// Lets mesh messages flow, work that waits go on, and commits, until nothing happens.
    fn settle(&mut self) {
        loop {
            let now = MonoMillis(self.now);
            let is_due = |shard: &Shard| shard.broker.next_deadline().is_some_and(|at| at <= now);
            if let Some((place, (from, message))) = self.next_message() {
                self.handle(place, Event::Mesh { from, message });
            } else if let Some(place) = self.shards.iter().position(is_due).filter(|_| !self.rest) {
                self.ticks += 1;
                self.handle(place, Event::Tick);
            } else if !self.hold && self.shards.iter().any(|s| s.disk.committed < s.disk.records.len()) {
                self.commit();
            } else {
                return;
            }
        }
    }

    /// The next mesh message that may move, and where to: what is behind one from a stopped shard waits, too; a cut
    /// pair holds up nobody else.
    fn next_message(&mut self) -> Option<(usize, (ShardId, MeshMessage))> {
        for place in 0..self.shards.len() {
            let is_cut = |from: ShardId| self.cuts.contains(&(from.0, place as u16));
            let inbox = &self.shards[place].inbox;
            let next = inbox.iter().position(|(from, _)| !is_cut(*from));
            let Some(next) = next.filter(|next| !self.shards[usize::from(inbox[*next].0.0)].stopped) else { continue };
            return self.shards[place].inbox.remove(next).map(|message| (place, message));
        }
        None
    }

    fn commit(&mut self) {
        for place in 0..self.shards.len() {
            let disk = &mut self.shards[place].disk;
            if disk.committed < disk.records.len() {
                disk.committed = disk.records.len();
                let upto = disk.records[disk.committed - 1].0;
                self.handle(place, Event::Committed { upto });
            }
        }
    }

    fn commit_some(&mut self, place: usize, count: usize) {
        let disk = &mut self.shards[place].disk;
        disk.committed = disk.records.len().min(disk.committed + count);
        let upto = disk.records[disk.committed - 1].0;
        self.handle(place, Event::Committed { upto });
    }

    /// QoS 2 publishes that a shard was told of, and that it keeps beyond these.
    pub fn remembered(&self, shard: usize) -> (usize, usize) {
        self.shards[shard].broker.remembered()
    }

    fn advance(&mut self, to: u64) {
        self.now = to;
        for shard in 0..self.shards.len() {
            if self.shards[shard].broker.next_deadline().is_some_and(|at| at.0 <= to) {
                self.handle(shard, Event::Tick);
            }
        }
    }

    fn moved(&mut self, shard: ShardId, shards: u16) {
        let (mut taken, mut known) = (KnownIds::default(), KnownIds::default());
        for (_, record) in self.shards.iter().flat_map(|shard| &shard.disk.records) {
            if let Record::InboundBegin { id, .. } = record {
                taken.know(*id, None);
            }
        }
        known.know_former(&taken, FormerShard { shard, shards });
        for (place, number) in self.shards.iter_mut().zip(0..) {
            let own = ShardId(number);
            place.disk.state.insert(StateKey::Queue(QueueId::of_known_ids(own)), known.records(own));
        }
    }

    /// A second queue of letters, stored, as a change of the number of shards may bring: so many, that died now.
    fn bring(&mut self, count: u64) {
        let queue = QueueId::new(base::PartitionId(1), 0);
        let (expiry, at) = (SessionExpiry::NEVER, self.clock().wall);
        let begin = Record::QueueBegin { queue, owner: base::QueueOwner::Dead, expiry, at };
        let marks = [0, count].map(|upto| Record::Watermark { queue, upto: Sequence(upto) });
        let disk = &mut self.shards[0].disk;
        disk.state.insert(StateKey::Queue(queue), [vec![begin], marks.to_vec()].concat());
        for number in 1..=count {
            let death = base::Death {
                client: "gone".into(),
                is_push: false,
                is_group: false,
                outcome: Outcome::Refused,
                reason_code: 131,
                attempts: 1,
                sent: None,
                at,
                error: None,
            };
            let message = Message {
                id: MessageId(number.into()),
                topic: TopicName::new("brought").unwrap(),
                payload: number.to_string().into(),
                properties: Default::default(),
                qos: Qos::AtLeastOnce,
                retain: false,
                expires_at: None,
                publisher: QueueId::NONE,
                extras: Some(Box::new(base::Extras { death: Some(Box::new(death)), ..Default::default() })),
            };
            let qos = Qos::AtLeastOnce;
            let identifiers = Default::default();
            let recipient = base::Recipient { queue, qos, retain: false, given: true, identifiers, group: None };
            let entry = BacklogEntry { sequence: Sequence(number), recipient, message: Arc::new(message) };
            disk.stored.insert((queue, Sequence(number)), entry);
        }
    }

    fn retire(&mut self) {
        for place in 0..self.shards.len() {
            let disk = &self.shards[place].disk;
            let upto = disk.records[..disk.committed].last().map(|(sequence, _)| *sequence);
            if let Some(upto) = upto {
                self.handle(place, Event::Retire { upto });
            }
        }
    }

    /// What was not committed is forgotten; everything begins again from the log.
    fn crash(&mut self) {
        self.connections.clear();
        self.config.boot += 1;
        for number in 0..self.shards.len() {
            let mut broker = Broker::new(self.config_of(number as u16), Sequence(1));
            broker.set_poison(self.poison.iter().copied());
            let now = self.clock();
            let shard = &mut self.shards[number];
            shard.inbox.clear();
            let disk = &mut shard.disk;
            disk.records.truncate(disk.committed);
            for record in disk.state.values().flatten() {
                broker.replay(Sequence(0), disk.as_of, record.clone());
            }
            let mut sizes = BTreeMap::new();
            for ((queue, _), entry) in &disk.stored {
                let size: &mut (usize, usize) = sizes.entry(*queue).or_default();
                *size = (size.0 + 1, size.1 + entry.message.payload.len() + entry.message.topic.as_str().len());
            }
            for (queue, (messages, bytes)) in sizes {
                broker.replay_stored(queue, messages, bytes);
            }
            for (sequence, record) in &disk.records {
                broker.replay(*sequence, disk.as_of, record.clone());
            }
            let last = disk.records.last().map_or(disk.as_of, |(sequence, _)| *sequence).max(disk.as_of);
            shard.next = last.next();
            broker.recovered(now, shard.next);
            broker.set_access(Arc::clone(&self.acl));
            broker.set_retry_topics(&self.topics);
            shard.broker = broker;
        }
        for number in 0..self.shards.len() {
            while let Some(effect) = self.shards[number].broker.poll() {
                self.effect(number, effect);
            }
        }
        self.read_file();
    }

    /// The longest that the queues of a shard are now: deliveries that wait, in flight ones not counted.
    pub fn queued_max(&self) -> usize {
        self.shards.iter().map(|shard| shard.broker.stats().queued_messages).max().unwrap_or(0)
    }

    /// One figure, of all shards together.
    pub fn stats(&self, figure: impl Fn(&Stats) -> usize) -> usize {
        self.shards.iter().map(|shard| figure(&shard.broker.stats())).sum()
    }

    fn name_poison(&mut self, payload: &str) {
        let disks = || self.shards.iter().map(|shard| &shard.disk);
        let state = disks().flat_map(|disk| disk.state.values().flatten());
        let logged = disks().flat_map(|disk| &disk.records).map(|(_, record)| record).chain(state);
        let logged = logged.filter_map(|record| match record {
            Record::Publish { message, .. } | Record::Retain { message } => Some(message),
            _ => None,
        });
        let stored = disks().flat_map(|disk| disk.stored.values()).map(|entry| &entry.message);
        let found = logged.chain(stored).filter(|message| message.payload == payload);
        self.poison = found.map(|message| message.id).collect();
        assert!(!self.poison.is_empty(), "no message {payload:?} is stored");
    }

    fn print_letters_stats(&mut self) {
        for shard in &self.shards {
            let Stats { letters, letters_bytes, .. } = shard.broker.stats();
            writeln!(self.out, "    letters={letters} bytes={letters_bytes}").unwrap();
        }
    }

    fn print_wishes_stats(&mut self) {
        for shard in &self.shards {
            let Stats { keys, scheduled, scheduled_bytes, scheduled_under_way, .. } = shard.broker.stats();
            writeln!(
                self.out,
                "    keys={keys} scheduled={scheduled} bytes={scheduled_bytes} under_way={scheduled_under_way}"
            )
            .unwrap();
        }
    }

    fn print_stats(&mut self) {
        for shard in &self.shards {
            let s = shard.broker.stats();
            let (queued, bytes) = (s.queued_messages, s.queued_bytes);
            writeln!(
                self.out,
                "    sessions={} registrations={} connections={} subscriptions={} retained={} queued={queued} bytes={bytes} inflight={} log={}",
                s.sessions, s.registrations, s.connections, s.subscriptions, s.retained, s.inflight, shard.disk.records.len()
            )
            .unwrap();
        }
    }
}

struct Arguments<'a>(&'a [&'a str]);

impl Arguments<'_> {
    fn number(&self, place: usize) -> u64 {
        self.0[place].parse().unwrap_or_else(|_| panic!("not a number: {}", self.0[place]))
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn option<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key).map(|text| text.parse().ok().unwrap_or_else(|| panic!("bad {key}: {text}")))
    }

    fn tag(&self, place: usize) -> Tag {
        Tag::new(self.number(place) as u16).unwrap()
    }

    fn reason(&self) -> ReasonCode {
        self.option("reason").and_then(ReasonCode::from_number).unwrap_or(ReasonCode::Success)
    }

    fn event(&self, verb: &str, connection: ConnectionId, now: Now) -> Event {
        match verb {
            "pub" => Event::Publish { connection, message: self.inbound(now) },
            "rel" => Event::Release { connection, tag: self.tag(1) },
            "ack" => Event::Acknowledge { connection, tag: self.tag(1), reason: self.reason() },
            "rec" => Event::Receive { connection, tag: self.tag(1), reason: self.reason() },
            "comp" => Event::Complete { connection, tag: self.tag(1) },
            "sub" => {
                let filters = self.0[2..].iter().map(|text| subscribe_of(text)).collect();
                Event::Subscribe { connection, tag: self.tag(1), filters }
            }
            "unsub" => {
                let filters = self.0[2..].iter().map(|text| Ok(TopicFilter::new(*text).unwrap())).collect();
                Event::Unsubscribe { connection, tag: self.tag(1), filters }
            }
            "aside" => Event::SetAside { connection, tag: self.tag(1) },
            "congested" => Event::Congested { connection },
            "writable" => Event::Writable { connection },
            "road" => {
                let (arrived, sent) = (self.number(1), self.number(3));
                Event::Road { connection, road: Road { sent, arrived, has_unread: self.has("unread") } }
            }
            "disc" => {
                let expiry = self.option("expiry").map(SessionExpiry);
                let cause = match self.0.get(1) {
                    Some(&"lost") => DisconnectCause::Lost,
                    Some(&"will") => DisconnectCause::WithWill { expiry },
                    Some(&"shutdown") => DisconnectCause::ServerShutdown,
                    _ => DisconnectCause::Normal { expiry },
                };
                Event::Disconnect { connection, cause }
            }
            other => panic!("unknown verb {other}"),
        }
    }

    fn group_order(&self) -> GroupOrder {
        let rest = || self.0[2..].iter().filter(|word| !word.contains('='));
        let deliveries = || rest().map(|id| id.parse::<DeliveryId>().unwrap()).collect();
        let answer = |verdict| GroupOrder::Answer { deliveries: deliveries(), verdict };
        let reason = self.text("why").map(Into::into);
        match self.0[1] {
            "set" => GroupOrder::Set { filters: rest().map(|filter| TopicFilter::new(*filter).unwrap()).collect() },
            "delete" => GroupOrder::Delete,
            "take" => GroupOrder::Take(Take {
                limit: self.option("limit").unwrap_or(10),
                lease_ms: self.option("lease").unwrap_or(30_000),
                wait_ms: self.option("wait").unwrap_or(0),
            }),
            "ack" => answer(Verdict::Acknowledge),
            "refuse" => answer(Verdict::Refuse { after_ms: self.option("after"), reason }),
            "bury" => answer(Verdict::Bury { reason }),
            "extend" => answer(Verdict::Extend { lease_ms: self.option("lease").unwrap() }),
            "back" => answer(Verdict::GiveBack),
            "untaken" => answer(Verdict::Untaken),
            other => panic!("unknown order {other}"),
        }
    }

    fn letter_query(&self) -> LetterQuery {
        let filter = LetterFilter {
            client: self.text("client").map(Into::into),
            topic: self.text("topic").map(|topic| TopicFilter::new(topic).unwrap()),
            outcome: self.text("outcome").map(|name| Outcome::from_name(name).unwrap()),
            is_parked: self.has("parked").then_some(true),
            is_leased: self.has("free").then_some(false),
            ..LetterFilter::default()
        };
        let after = self.text("after").map(|id| id.parse().unwrap());
        let seen = self.text("seen").into_iter().flat_map(|ids| ids.split(',')).map(|id| id.parse().unwrap()).collect();
        let (limit, lease_ms) = (self.option("limit").unwrap_or(100), self.option("lease"));
        LetterQuery { after, filter, seen, limit, lease_ms }
    }

    fn letter_action(&self) -> LetterAction {
        match self.0[1] {
            "show" => LetterAction::Show,
            "drop" => LetterAction::Drop,
            "park" => LetterAction::Park { note: self.text("note").unwrap_or("look").into() },
            "unpark" => LetterAction::Unpark,
            "release" => LetterAction::Release,
            "requeue" => LetterAction::Requeue(Requeue {
                payload: self.text("payload").map(|payload| payload.to_owned().into()),
                ttl_seconds: self.option("ttl"),
            }),
            other => panic!("unknown action {other}"),
        }
    }

    fn inbound(&self, now: Now) -> Inbound {
        let payload = match self.0.get(2) {
            Some(&"-") | None => String::new(),
            Some(text) => (*text).to_owned(),
        };
        let message = Message {
            id: MessageId(0),
            topic: TopicName::new(self.0[1]).unwrap(),
            payload: payload.into(),
            properties: Default::default(),
            qos: qos_of(self.option("qos").unwrap_or(0)),
            retain: self.has("retain"),
            expires_at: self.option("expires").map(|ms| now.wall.after(ms)),
            publisher: QueueId::NONE,
            extras: Extras::of_wishes(self.wishes(now)),
        };
        let flaw = self.has("flawed").then_some(ReasonCode::ImplementationSpecificError);
        Inbound { message: message.into(), tag: self.option("tag").and_then(Tag::new), dup: self.has("dup"), flaw }
    }

    fn wishes(&self, now: Now) -> Wishes {
        Wishes {
            priority: self.text("priority").map_or(Priority::Normal, |name| Priority::from_name(name).unwrap()),
            collapse_key: self.text("collapse").map(Into::into),
            deliver_at: self.option("deliver").map(|ms| now.wall.after(ms)),
            idempotency_key: self.text("key").map(Into::into),
            receipt: self.text("receipt").map(|name| ReceiptLevel::from_name(name).unwrap()),
            attempts_max: self.option("attempts"),
            age_max_ms: self.option("age"),
        }
    }
}

/// `client`, `client:user` or `client:user:group`; an empty user is none.
fn registration_of(text: &str) -> (ClientId, Principal) {
    let mut parts = text.split(':');
    let client = parts.next().unwrap_or_default().into();
    let user = parts.next().filter(|user| !user.is_empty()).map(Into::into);
    (client, Principal { user, groups: parts.map(Into::into).collect() })
}

fn qos_of(number: u8) -> Qos {
    Qos::from_number(number).unwrap()
}

fn will_of(text: &str, arguments: &Arguments<'_>) -> Will {
    let (topic, payload) = text.split_once(':').unwrap();
    Will {
        topic: TopicName::new(topic).unwrap(),
        payload: payload.to_owned().into(),
        properties: Default::default(),
        qos: qos_of(arguments.option("willqos").unwrap_or(0)),
        retain: arguments.has("willretain"),
        delay_seconds: arguments.option("willdelay").unwrap_or(0),
        expiry_seconds: None,
        wishes: arguments.wishes(Now { mono: MonoMillis(0), wall: WallMillis(0) }),
    }
}

/// `filter:qos,nl,rap,rh1,rh2,id=7`
fn subscribe_of(text: &str) -> Subscribe {
    let (filter, options) = text.split_once(':').unwrap_or((text, "0"));
    let mut parsed = SubscriptionOptions::default();
    for option in options.split(',') {
        match option {
            "nl" => parsed.no_local = true,
            "rap" => parsed.retain_as_published = true,
            "rh1" => parsed.retain_handling = RetainHandling::IfNew,
            "rh2" => parsed.retain_handling = RetainHandling::Never,
            other => match other.strip_prefix("id=") {
                Some(id) => parsed.identifier = id.parse().ok(),
                None => parsed.qos = qos_of(other.parse().unwrap()),
            },
        }
    }
    Subscribe { filter: TopicFilter::new(filter).map_err(|_| ReasonCode::TopicFilterInvalid), options: parsed }
}

fn words_of(effect: &Effect) -> Option<String> {
    let list = |reasons: &[ReasonCode]| reasons.iter().map(|r| r.name()).collect::<Vec<_>>().join(" ");
    Some(match effect {
        Effect::Connected { connection, session_present, inbound } => {
            let tags: Vec<u16> = inbound.iter().map(|tag| tag.get()).collect();
            let inbound = if tags.is_empty() { String::new() } else { format!(" inbound={tags:?}") };
            format!("{}: connected present={session_present}{inbound}", connection.0)
        }
        Effect::PluginsSettled { generation } => format!("plugins settled {generation}"),
        Effect::ConnectRefused { connection, reason } => format!("{}: refused {}", connection.0, reason.name()),
        Effect::Taken { connection, tag, id } => {
            format!("{}: taken {:?} at {}", connection.0, tag.map(Tag::get), id.published_at().0)
        }
        Effect::Published { connection, tag, reason } => {
            format!("{}: published {} {}", connection.0, tag.get(), reason.name())
        }
        Effect::Completed { connection, tag, reason } => {
            format!("{}: completed {} {}", connection.0, tag.get(), reason.name())
        }
        Effect::Subscribed { connection, tag, reasons } => {
            format!("{}: subscribed {} {}", connection.0, tag.get(), list(reasons))
        }
        Effect::Unsubscribed { connection, tag, reasons } => {
            format!("{}: unsubscribed {} {}", connection.0, tag.get(), list(reasons))
        }
        Effect::Deliver { connection, delivery } => {
            let topic = delivery.topic.as_ref().unwrap_or(&delivery.message.topic);
            let payload = String::from_utf8_lossy(&delivery.message.payload);
            let mut line = format!("{}: deliver {topic} {payload:?} qos={}", connection.0, delivery.qos.number());
            if let Some(tag) = delivery.tag {
                write!(line, " tag={}", tag.get()).unwrap();
            }
            for (flag, name) in [(delivery.dup, " dup"), (delivery.retain, " retain")] {
                line.push_str(if flag { name } else { "" });
            }
            if !delivery.identifiers.is_empty() {
                write!(line, " ids={:?}", delivery.identifiers.as_slice()).unwrap();
            }
            line
        }
        Effect::ReleaseDelivery { connection, tag, reason } => {
            format!("{}: release {} {}", connection.0, tag.get(), reason.name())
        }
        Effect::Probe { connection } => format!("{}: probe", connection.0),
        Effect::Close { connection, reason } => format!("{}: close {}", connection.0, reason.name()),
        Effect::Park { connection } => format!("{}: park", connection.0),
        Effect::Unpark { connection } => format!("{}: unpark", connection.0),
        Effect::SetAside { message, clients } => {
            let clients: Vec<_> = clients.iter().map(ClientId::as_str).collect();
            format!("set aside {:?} of {clients:?}", String::from_utf8_lossy(&message.payload))
        }
        Effect::LettersFound { token: WHERE_THEY_END, letters, next, ends } => {
            assert!(letters.is_empty() && next.is_none(), "none were wanted");
            format!("the last ones are {ends:?}", ends = ends.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        Effect::LettersFound { letters, next, .. } => {
            let mut lines: Vec<String> = letters.iter().map(letter_words).collect();
            lines.push(next.map_or("that was all".to_owned(), |next| format!("more behind {next}")));
            lines.join("\n    ")
        }
        Effect::ClientDone { answer, .. } => format!("client {answer:?}"),
        Effect::LetterKept { id, .. } => format!("kept {}", id.map_or("none".to_owned(), |id| id.to_string())),
        Effect::Peeked { page: None, .. } => "nobody".to_owned(),
        Effect::Peeked { page: Some(page), .. } => {
            let mut lines: Vec<String> = page.deliveries.iter().map(pending_words).collect();
            lines.push(page.next.map_or("that was all".to_owned(), |next| format!("more behind {next}")));
            lines.join("\n    ")
        }
        Effect::ScheduledFound { page: None, .. } => "too many look".to_owned(),
        Effect::ScheduledFound { page: Some(page), .. } => {
            let mut lines: Vec<String> = page.messages.iter().map(scheduled_words).collect();
            lines.push(page.next.map_or("that was all".to_owned(), |next| format!("more behind {next}")));
            lines.join("\n    ")
        }
        Effect::CancelDone { answer, .. } => format!("{answer:?}"),
        Effect::PendingEnded { answer, .. } => match answer {
            PendingAnswer::Ended(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                format!("ended [{}]", ids.join(" "))
            }
            other => format!("{other:?}"),
        },
        Effect::LetterDone { answer, .. } => match answer {
            LetterAnswer::Done(id) => format!("done{}", id.map_or("", |_| ", as a new message")),
            LetterAnswer::Letter(letter) => letter_words(letter),
            other => format!("{other:?}"),
        },
        Effect::Moved(moved) => step_words(moved),
        Effect::GroupDone { token, answer } => match &**answer {
            GroupAnswer::Taken(leased) => {
                let lines = leased.iter().map(|Leased { id, message, may_repeat }| {
                    let again = if *may_repeat { " maybe again" } else { "" };
                    format!("{id} {} {:?}{again}", message.topic, String::from_utf8_lossy(&message.payload))
                });
                [format!("group {token}: {} leased", leased.len())]
                    .into_iter()
                    .chain(lines)
                    .collect::<Vec<_>>()
                    .join("\n        ")
            }
            other => format!("group {token}: {other:?}"),
        },
        Effect::Count { what, by } => format!("count {} {by}", what.name()),
        Effect::Append { .. } | Effect::Mesh { .. } | Effect::ReadBacklog { .. } | Effect::Ingest { .. } => {
            return None;
        }
    })
}

/// `told` at the end: its publisher asked for this one.
fn step_words(moved: &Moved) -> String {
    let whom = match &moved.to {
        None => "-".to_owned(),
        Some(Addressee::Client(client)) => client.0.to_string(),
        Some(Addressee::Group(name)) => format!("group {name}"),
    };
    let told = if moved.receipt_level().is_some() { ", told" } else { "" };
    let kept = if moved.is_kept { "" } else { ", not kept" };
    let attempts = |attempts: &u32| format!("after {attempts} sends");
    let rest = match &moved.step {
        Step::Published(published) => {
            let (Published { by, user, qos, bytes, original }, topic) = (&**published, &moved.topic);
            let original = if original.is_some() { ", again" } else { "" };
            let (by, user) = (by.as_ref().map_or("-", ClientId::as_str), user.as_deref().unwrap_or("-"));
            format!("by {by} {user} to {topic} qos={} {bytes} B{original}", qos.number())
        }
        Step::Stored { matched } => format!("matched={matched}"),
        Step::Sent { attempt, qos } => format!("{attempt} qos={}", qos.number()),
        Step::Over { reason_code, attempts: sends, .. } => {
            format!("{} {reason_code} {}", reason(moved), attempts(sends))
        }
        Step::Dead { letter, reason_code, attempts: sends, .. } => {
            format!("{} {reason_code} {} letter {letter}", reason(moved), attempts(sends))
        }
        Step::Requeued { letter, .. } => format!("letter {letter}"),
        Step::LetterOver { letter, .. } => format!("letter {letter} {}", reason(moved)),
        Step::Rejected { .. } => reason(moved).to_owned(),
        Step::Acknowledged { attempts: sends } => attempts(sends),
        Step::Plugins { did } => did.name().to_owned(),
        Step::Queued => String::new(),
    };
    let (shard, step) = (moved.shard.0, moved.step.name());
    format!("step {shard} {whom} {step} {rest}{told}{kept}").replace(" ,", ",").trim_end().to_owned()
}

fn reason(moved: &Moved) -> &'static str {
    moved.step.reason().unwrap_or("-")
}

fn pending_words(pending: &Pending) -> String {
    let Pending { id, is_push, is_in_flight, message, topic, qos, .. } = pending;
    let payload = String::from_utf8_lossy(&message.payload);
    let of = if *is_push { " push" } else { "" };
    let state = if *is_in_flight { " in flight" } else { "" };
    format!("pending {id} {topic} {payload:?} qos={}{of}{state}", qos.number())
}

fn scheduled_words(found: &ScheduledMessage) -> String {
    let ScheduledMessage { message, tried_again } = found;
    let since = |at: WallMillis| at.0 - 1_000_000;
    let at = message.wishes().and_then(|wishes| wishes.deliver_at).expect("it waits for that");
    let by = match message.scheduled_by() {
        Some(KeyHolder::User(user)) => format!(" by user {user}"),
        Some(KeyHolder::Client(client)) => format!(" by client {}", client.as_str()),
        None => String::new(),
    };
    let again = tried_again.map_or(String::new(), |at| format!(", tried again at {}", since(at)));
    format!("at {} {} {:?}{by}{again}", since(at), message.topic, String::from_utf8_lossy(&message.payload))
}

/// `user:u` or `client:c`.
fn holder(text: &str) -> KeyHolder {
    match text.split_once(':') {
        Some(("user", user)) => KeyHolder::User(user.into()),
        Some(("client", client)) => KeyHolder::Client(client.into()),
        _ => panic!("no holder: {text}"),
    }
}

fn letter_words(letter: &Letter) -> String {
    let Letter { id, message, qos, parked, is_leased } = letter;
    let death = message.death().expect("how it ended");
    let mut line = format!(
        "letter {id} {} {:?} qos={} of {} {} code={} attempts={} requeues={} at {}",
        message.topic,
        String::from_utf8_lossy(&message.payload),
        qos.number(),
        death.client.as_str(),
        death.outcome.name(),
        death.reason_code,
        death.attempts,
        message.requeues(),
        death.at.0,
    );
    if let Some(error) = &death.error {
        write!(line, " error={:?}", &**error).unwrap();
    }
    if let Some(parked) = parked {
        write!(line, " parked {:?}", &*parked.note).unwrap();
    }
    line.push_str(if *is_leased { " leased" } else { "" });
    line
}

fn record_words(record: &Record) -> String {
    let text = format!("{record:?}");
    let name = text.split([' ', '{']).next().unwrap_or_default().to_owned();
    match record {
        Record::Publish { recipients, .. } => format!("{name} to {}", recipients.len()),
        Record::Transfer { sequence, outcome, .. } => format!("{name} {} {outcome:?}", sequence.0),
        Record::FullSync { sequence, from, dropped, .. } => {
            format!("{name} {} from {} dropped {dropped}", sequence.0, from.0)
        }
        Record::Park { sequence, note, .. } => format!("{name} {} {note:?}", sequence.0),
        Record::Attempt { sequence, attempts, .. } => format!("{name} {} {attempts}", sequence.0),
        Record::Settle { sequence, outcome, .. } => format!("{name} {} {outcome:?}", sequence.0),
        Record::Tagged { sequence, tag, .. } => format!("{name} {} tag={}", sequence.0, tag.get()),
        Record::Received { sequence, .. } => format!("{name} {}", sequence.0),
        Record::Key { publish } => {
            let answer = publish.answer.map_or("?", ReasonCode::name);
            format!("{name} {} {answer}", publish.name.key)
        }
        _ => name,
    }
}

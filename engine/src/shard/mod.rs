//! One shard: everything that one core owns, as a plain struct, and its turn.
//!
//! ```text
//!  a turn:  readiness ─► read, decode ─► broker ─► effects ─► outputs
//!           mesh, inbox, timers ───────────┘                    │
//!           …at its end, once: write each dirty output, tell the mesh, begin a commit, set the alarm
//! ```
//! Invariants
//! - Nothing here awaits or blocks, but for [`Shard::sleep`].
//! - Each entry point ends with [`Shard::settle`]: after it the broker has no effect left, and each output
//!   is either empty or waits for the kernel.
//! - The broker learns of each connection's end exactly once (`Flags::known`).

mod arriving;
mod calling;
mod clients;
mod dying;
mod effects;
mod groups;
mod jams;
mod leaving;
mod letters;
mod pending;
mod plugins;
mod reading;
mod road;
mod scheduled;
mod sys;
mod timing;
mod topics;
mod turn;
mod watching;
mod writing;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use crossbeam::queue::{ArrayQueue, SegQueue};
use postroad_base::{
    ClientId, ConnectionId, MessageId, MonoMillis, Now, Placement, QueueId, ReasonCode, ShardId, WallMillis,
};
use postroad_broker::Broker;
use postroad_broker::access::Acl;
use postroad_broker::api::{Event, Principal};
use postroad_control::{LettersBell, Note, Recorder, Request};
use postroad_plugins::generations::Plugins;
use postroad_protocol::frame::Codec;
use postroad_session::mqtt::Limits;
use slab::Slab;

use calling::Callers;

use crate::auth::{Auth, CheckOutcome, Pool, Registration};
use crate::clock::Clock;
use crate::coalesce::{Coalescing, Inputs};
use crate::codecs::{Codecs, CodecsOfShard};
use crate::config::Config;
use crate::connection::{Connection, Flags, connection_index};
use crate::counters::Counters;
use crate::crash::Verdict;
use crate::log::{ShardLog, WorkDone};
use crate::mesh::Mesh;
use crate::plugins::{Step, Told};
use crate::poller::{Alarm, Doorbell, Poller, Ready};
use crate::ramp::Ramp;
use crate::session::Request as Introduction;
use crate::wheel::Wheel;

pub(crate) use sys::SysFigures;
pub(crate) use turn::Next;

/// Options that a reload replaces, all at once.
pub(crate) struct Live {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) broker: postroad_broker::Limits,
    pub(crate) auth: Auth,
    pub(crate) acl: Arc<Acl>,
    /// Who is kept away because of earlier crashes.
    pub(crate) verdict: Verdict,
    /// Connections of all shards together at most, below what the file limit allows.
    pub(crate) connections_max: usize,
}

/// A connection on its way to its home shard. The socket closes if it gets lost on the way.
pub(crate) struct HandOver {
    pub(crate) socket: std::os::fd::OwnedFd,
    pub(crate) listener: u16,
    pub(crate) request: Box<Introduction>,
    pub(crate) client: ClientId,
    pub(crate) principal: Principal,
    /// What the client sent behind its CONNECT or hello.
    pub(crate) unread: Vec<u8>,
}

/// What other threads tell a shard, besides the mesh. Closed: a new need is a new variant.
pub(crate) enum Order {
    /// The options have changed.
    Reload(Arc<Live>),
    /// Stop gracefully.
    Drain,
    /// The worker has done something for the log.
    Work(WorkDone),
    /// Another shard can't go on: stop at once, acknowledging nothing more.
    Abort,
    /// The control plane has a question in `requests`.
    Asked,
    /// The pool has checked a password.
    Checked { connection: ConnectionId, client: ClientId, outcome: CheckOutcome },
    /// The coordinator changes plugins.
    Plugins(Step),
    /// Another shard has panicked over a message of this queue's client, and waits a moment for the name.
    WhoIs { queue: QueueId, answer: flume::Sender<ClientId> },
}

/// Where others put what is for a shard. Ring the bell afterwards.
pub(crate) struct Inbox {
    /// Bounded: when it is full, the client is told to come back.
    pub(crate) arrivals: ArrayQueue<HandOver>,
    /// Few by nature: from the operator, and answers to what the shard itself has asked.
    pub(crate) orders: SegQueue<Order>,
    pub(crate) doorbell: Doorbell,
}

/// Connections that may wait for their home shard's next turn.
const ARRIVALS_MAX: usize = 4096;
/// Consumer groups that metrics tell of by name, the largest ones.
const GROUPS_REPORTED_MAX: usize = 16;

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        let arrivals = ArrayQueue::new(ARRIVALS_MAX);
        Ok(Self { arrivals, orders: SegQueue::new(), doorbell: Doorbell::new()? })
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.push(order);
        self.doorbell.ring();
    }

    fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.orders.is_empty()
    }
}

/// What all shards share.
pub(crate) struct Common {
    pub(crate) inboxes: Vec<Arc<Inbox>>,
    /// Open connections of all shards.
    pub(crate) connections: AtomicUsize,
    /// Shards whose filters are in the others' queues.
    pub(crate) announced: AtomicUsize,
    /// Shards that have said goodbye to all their clients.
    pub(crate) drained: AtomicUsize,
    /// Each shard's figures for `$SYS`.
    pub(crate) sys: Vec<SysFigures>,
    pub(crate) pool: Pool,
    pub(crate) placement: Placement,
    pub(crate) clock: Clock,
    /// What an operator should know, for `/ready`.
    pub(crate) notes: flume::Sender<Note>,
    /// Where steps of followed messages are kept, if anywhere.
    pub(crate) recorder: Option<Recorder>,
    /// Heard by whoever follows dead letters.
    pub(crate) letters: LettersBell,
    /// What listeners' frames are read and written by, where no plugin is.
    pub(crate) codecs: Arc<dyn Codecs>,
    /// Who changes plugins.
    pub(crate) coordinator: flume::Sender<Told>,
}

impl Common {
    /// Counts this shard in `counter`; the last one wakes all, also one that is on its way to sleep: it has looked at
    /// the counter already, and what it looks at once more before it sleeps are its queues. With `ring` such a shard
    /// slept for ever, and a start of several shards hung once in some dozens.
    pub(crate) fn arrive_at(&self, counter: &AtomicUsize) {
        if counter.fetch_add(1, Ordering::SeqCst) + 1 >= self.inboxes.len() {
            self.inboxes.iter().for_each(|inbox| inbox.doorbell.ring_always());
        }
    }

    pub(crate) fn all_at(&self, counter: &AtomicUsize) -> bool {
        counter.load(Ordering::SeqCst) >= self.inboxes.len()
    }
}

/// One address that connections come in by, as this shard sees it.
struct Door {
    listener: TcpListener,
    /// Accepting is paused: the process had no descriptor left.
    paused: bool,
}

/// Where the shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its own filters are not all in the others' queues yet.
    Announcing,
    /// It waits for the others' filters.
    Gathering,
    Serving,
    /// Saying goodbye; the flag says that all clients are gone.
    Draining {
        gone: bool,
    },
    Stopped,
}

/// See the module head.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    common: Arc<Common>,
    pub(crate) live: Arc<Live>,
    phase: Phase,
    /// When a drain ends, whoever is still there.
    drain_until: MonoMillis,
    started: MonoMillis,
    /// When to publish the `$SYS` topics.
    sys_due: MonoMillis,
    /// The instant of this turn.
    pub(crate) now: Now,
    broker: Broker,
    plugins: Plugins,
    /// The broker knows of them.
    plugins_are_asked: bool,
    pub(crate) log: Option<ShardLog>,
    mesh: Mesh,
    inbox: Arc<Inbox>,

    poller: Poller,
    alarm: Alarm,
    wheel: Wheel,
    doors: Vec<Door>,
    /// With more connections waiting than one turn takes.
    doors_again: Vec<usize>,
    /// How many may come after the start.
    ramp: Ramp,
    connections: Slab<Connection>,
    codecs: CodecsOfShard,
    /// Connections made so far.
    serial: u64,
    /// With output to write.
    dirty: Vec<ConnectionId>,
    /// To read again although the kernel will not say so.
    again: Vec<ConnectionId>,
    /// Whose empty buffers are given back at the next sweep.
    warm: Vec<ConnectionId>,
    /// Whose clients talk while something for them is on the road.
    jams: jams::Jams,
    /// All connections of the shard receive into it, one after the other.
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    fired: Vec<u64>,
    coalescing: Coalescing,
    /// What this turn has taken in.
    inputs: Inputs,
    /// What clients have taken of this turn, in packets' worth.
    worth: u64,
    counters: Counters,
    /// How often sending a message has panicked.
    panics_by_message: AHashMap<MessageId, u32>,
    /// Questions of the control plane.
    requests: flume::Receiver<Request>,
    asking: letters::Asking,
    consuming: groups::Consuming,
    /// Who watches what happens here.
    watchers: Vec<watching::Watcher>,
    looking: pending::Looking,
    scheduled: scheduled::Asking,
    /// Callers of the API that have published here.
    callers: Callers,
    opened: Option<flume::Sender<ShardId>>,
    failure: Option<String>,
}

/// What a shard is made of; the rest it makes itself.
pub(crate) struct Parts {
    pub(crate) id: ShardId,
    pub(crate) common: Arc<Common>,
    pub(crate) live: Arc<Live>,
    pub(crate) broker: Broker,
    pub(crate) plugins: Plugins,
    pub(crate) log: Option<ShardLog>,
    pub(crate) mesh: Mesh,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) requests: flume::Receiver<Request>,
    /// Told once connections come in.
    pub(crate) opened: flume::Sender<ShardId>,
}

const TOKEN_DOORBELL: u64 = u64::MAX;
const TOKEN_ALARM: u64 = u64::MAX - 1;
const TOKEN_LOG: u64 = u64::MAX - 2;
/// Minus the number of the door.
const TOKEN_DOOR: u64 = u64::MAX - 3;
const DOORS_MAX: u64 = 1024;

/// Size of the receive buffer.
const BUFFER_BYTES: usize = 64 * 1024;

impl Shard {
    /// Makes it, on its own thread.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts { id, common, live, mut broker, plugins, log, mesh, listeners, requests, opened } = parts;
        broker.set_access(Arc::clone(&live.acl));
        broker.set_retry_topics(&crate::engine::retry_topics(&live.config));
        let inbox = Arc::clone(&common.inboxes[usize::from(id.0)]);
        let poller = Poller::new()?;
        let alarm = Alarm::new()?;
        poller.add_read(inbox.doorbell.descriptor(), TOKEN_DOORBELL)?;
        poller.add_read(alarm.descriptor(), TOKEN_ALARM)?;
        if let Some(log) = &log {
            poller.add_read(log.descriptor(), TOKEN_LOG)?;
        }
        let now = common.clock.now();
        let counters = Counters::new(&live.config);
        let coalescing = Coalescing::new(live.config.coalesce);
        let ramp = Ramp::new(live.config.restart.accept_per_second, now.mono);
        let codecs = CodecsOfShard::new(&live.config.listeners, &plugins, &*common.codecs);
        let doors = listeners.into_iter().map(|listener| Door { listener, paused: false }).collect();
        let mut shard = Self {
            id,
            common,
            live,
            phase: Phase::Announcing,
            drain_until: MonoMillis(u64::MAX),
            started: now.mono,
            sys_due: Self::first_sys_due(now.mono),
            now,
            broker,
            plugins,
            plugins_are_asked: false,
            log,
            mesh,
            inbox,
            poller,
            alarm,
            wheel: Wheel::new(now.mono),
            doors,
            doors_again: Vec::new(),
            ramp,
            connections: Slab::new(),
            codecs,
            serial: 0,
            dirty: Vec::new(),
            again: Vec::new(),
            warm: Vec::new(),
            jams: jams::Jams::default(),
            buffer: vec![0; BUFFER_BYTES],
            ready: Vec::new(),
            fired: Vec::new(),
            coalescing,
            inputs: Inputs::default(),
            worth: 0,
            counters,
            panics_by_message: AHashMap::new(),
            requests,
            asking: letters::Asking::default(),
            consuming: groups::Consuming::default(),
            watchers: Vec::new(),
            looking: pending::Looking::default(),
            scheduled: scheduled::Asking::default(),
            callers: Callers::default(),
            opened: Some(opened),
            failure: None,
        };
        shard.register_named_clients();
        if shard.plugins.generation() != 0 {
            shard.ask_plugins();
        }
        Ok(shard)
    }

    /// The broker hears which clients of this shard `auth.file` names.
    fn register_named_clients(&mut self) {
        let placement = &self.common.placement;
        let lives_here = |named: &&Registration| placement.home(named.client.as_str().as_bytes()) == self.id;
        let Some(named) = self.live.auth.registrations() else { return };
        let principal = |named: &Registration| Principal { user: named.user.clone(), groups: named.groups.clone() };
        let clients = named.filter(lives_here).map(|named| (named.client.clone(), principal(named))).collect();
        self.handle(Event::Registrations { clients });
    }

    /// Why it stopped, if not because it was asked to.
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Whether everything that was logged is safe.
    fn log_is_idle(&self) -> bool {
        self.log.as_ref().is_none_or(ShardLog::is_idle)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Answers the control plane; nobody waiting is no reason to wait.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Ping(back) => {
                let _gone = back.try_send(self.id);
            }
            Request::Report(back) => {
                let log = self.log.as_ref().map(ShardLog::report).unwrap_or_default();
                let up = self.now.mono.since(self.started);
                let started = WallMillis(self.now.wall.0.saturating_sub(up));
                let largest = self.broker.largest_groups(GROUPS_REPORTED_MAX);
                let times = [self.now.wall, started];
                let mut report = self.counters.report(self.id, &self.broker.stats(), log, largest, times);
                report.plugins = self.plugins_report();
                let _gone = back.try_send(report);
            }
            Request::Publish(batch) => self.called(*batch),
            Request::Letters(question) => self.find_letters(*question),
            Request::ImportLetter(import) => self.import_letter(*import),
            Request::Letter(order) => self.act_on_letter(*order),
            Request::Watch(watch) => self.watch(*watch),
            Request::Group(question) => self.order_of_group(*question),
            Request::GroupLeft(left) => self.group_left(*left),
            Request::Groups(question) => self.find_groups(*question),
            Request::GroupState { name, answer } => self.tell_of_group(&name, &answer),
            Request::Subscriptions(query) => self.find_subscriptions(*query),
            Request::Filters(query) => self.find_filters(*query),
            Request::Retained(query) => self.find_retained(*query),
            Request::Pending(question) => self.show_pending(*question),
            Request::EndPending(order) => self.end_pending(*order),
            Request::Scheduled(question) => self.find_scheduled(*question),
            Request::CancelScheduled(order) => self.cancel_scheduled(*order),
            Request::Clients(query) => self.find_clients(*query),
            Request::Client { client, action, answer } => self.tell_of_client(&client, action, &answer),
            Request::ChangeClient(order) => self.change_client(*order),
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.broker.handle(self.now, event);
    }

    /// The connection of this id, unless it is gone.
    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(connection_index(id)).filter(|connection| connection.id == id)
    }

    /// The connection of this id, and the codec of its listener.
    fn speaking(&mut self, id: ConnectionId) -> Option<(&mut Connection, &mut dyn Codec)> {
        let connection = self.connections.get_mut(connection_index(id)).filter(|connection| connection.id == id)?;
        let codec = self.codecs.of(connection.listener);
        Some((connection, codec))
    }

    fn flags(&mut self, id: ConnectionId) -> Option<&mut Flags> {
        self.connection(id).map(|connection| &mut connection.flags)
    }

    /// There is output: it is written at the end of the turn.
    fn mark_dirty(&mut self, id: ConnectionId) {
        let Some(flags) = self.flags(id) else { return };
        if !std::mem::replace(&mut flags.dirty, true) {
            self.dirty.push(id);
        }
    }

    /// Read it in a turn to come, also if the kernel has nothing to say.
    fn read_again(&mut self, id: ConnectionId) {
        let Some(flags) = self.flags(id) else { return };
        if !std::mem::replace(&mut flags.again, true) {
            self.again.push(id);
        }
    }

    /// Look after its buffers at the next sweep.
    fn mark_warm(&mut self, id: ConnectionId) {
        let Some(flags) = self.flags(id) else { return };
        if std::mem::replace(&mut flags.warm, true) {
            return;
        }
        if self.warm.is_empty() {
            self.schedule_sweep();
        }
        self.warm.push(id);
    }

    /// The log can't be trusted any more: nothing is acknowledged from here on.
    pub(crate) fn poison(&mut self, reason: String) {
        tracing::error!(shard = self.id.0, reason, "the log is poisoned: the server stops without acknowledging");
        self.failure.get_or_insert(reason);
        self.phase = Phase::Stopped;
        for inbox in &self.common.inboxes {
            inbox.order(Order::Abort);
        }
    }

    fn refusal_reason_of_full(&self) -> ReasonCode {
        ReasonCode::QuotaExceeded
    }
}

//! The state machine of a shard: [`Broker::handle`] takes what happened, [`Broker::poll`] gives what to do.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use base::{ConnectionId, MessageIdGenerator, Now, QueueId, ReasonCode, Sequence};
use postroad_base as base;
use slab::Slab;

use crate::access::Acl;
use crate::api::{Counted, Effect, Event};
use crate::config::{Config, Limits, Push};
use crate::consumers::Consumers;
use crate::drain::Drain;
use crate::fence::Fences;
use crate::gate::Gate;
use crate::hooks::{Hooks, Repairs, Settling};
use crate::index::{Retained, Subscriptions};
use crate::keys::Keys;
use crate::letters::Letters;
use crate::mesh::Mesh;
use crate::overdue::Overdue;
use crate::peek::Peeks;
use crate::places::Places;
use crate::poison::Poison;
use crate::registration::Registrations;
use crate::repeats::Repeats;
use crate::resend::Resends;
use crate::retained::Kept;
use crate::retire::Retiring;
use crate::retry::TopicPolicies;
use crate::route::Scratch;
use crate::scheduled::Scheduled;
use crate::session::{ByClient, ByConnection, ByQueue, Connection, ConnectionIndex, Role, Session, SessionIndex};
use crate::share::Groups;
use crate::stats::Stats;
use crate::subscribe::Operation;
use crate::timers::{Timer, Timers};
use crate::turns::Step;

/// The heart of one shard.
pub struct Broker {
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) ids: MessageIdGenerator,
    pub(crate) acl: Arc<Acl>,
    pub(crate) gate: Gate,
    pub(crate) timers: Timers,
    pub(crate) connections: Slab<Connection>,
    pub(crate) connection_places: Places<ByConnection>,
    /// See [`Broker::place_of`].
    last_place: Cell<ConnectionIndex>,
    pub(crate) sessions: Slab<Session>,
    pub(crate) clients: Places<ByClient>,
    pub(crate) queues: Places<ByQueue>,
    /// Next free ordinal of each partition.
    pub(crate) ordinals: Vec<u64>,
    /// Ordinals of sessions that the log does not know, counted apart.
    pub(crate) ordinals_unlogged: u64,
    pub(crate) subscriptions: Subscriptions<u32, Interested>,
    pub(crate) retained: Retained<Kept>,
    /// Bytes of their topics, properties and payloads.
    pub(crate) retained_bytes: usize,
    pub(crate) groups: Groups,
    pub(crate) registrations: Registrations,
    pub(crate) letters: Letters,
    /// Who is asked, if there are plugins.
    pub(crate) hooks: Option<Box<dyn Hooks>>,
    pub(crate) settling: Settling,
    pub(crate) repairs: Repairs,
    /// What has become of the parts of the publish whose answer is the next to leave on this connection, if it is more than that nobody took them.
    pub(crate) parts_said: AHashMap<ConnectionIndex, ReasonCode>,
    pub(crate) keys: Keys,
    pub(crate) scheduled: Scheduled,
    pub(crate) consumers: Consumers,
    pub(crate) overdue: Overdue,
    /// The lane of what is sent again while its connection lives.
    pub(crate) resends: Resends,
    /// Which messages are retried by other rules.
    pub(crate) topic_policies: TopicPolicies,
    pub(crate) peeks: Peeks,
    pub(crate) operations: AHashMap<u64, Operation>,
    pub(crate) mesh: Mesh,
    pub(crate) repeats: Repeats,
    pub(crate) fences: Fences,
    /// Pieces of long work, for turns to come.
    pub(crate) later: VecDeque<Step>,
    /// Realtime connections that would take more of what waits for them; each says so itself (`is_draining`), and is here once.
    pub(crate) draining: VecDeque<ConnectionId>,
    /// How many deliveries that have waited may leave before the next tick.
    pub(crate) drain_quota: usize,
    /// How many have come since the last tick to wait behind others for a client that is here: as many more may leave, else
    /// a queue that is full of life would grow for ever.
    pub(crate) arrived_behind: usize,
    /// The lane of what had waited when its client came back.
    pub(crate) drain: Drain,
    /// The place of the session whose subscriptions are judged next, while the rules are new.
    pub(crate) judged: Option<usize>,
    /// How often the rules have been replaced.
    pub(crate) rules: u32,
    pub(crate) scratch: Scratch,
    pub(crate) retiring: Retiring,
    pub(crate) poison: Poison,
    pub(crate) disk_full: bool,
    pub(crate) log_pressed: bool,
    /// Somebody watches: see `followed`.
    pub(crate) is_watched: bool,
    pub(crate) stats: Stats,
}

impl Broker {
    /// An empty shard whose log goes on with `first`.
    pub fn new(config: Config, first: Sequence) -> Self {
        assert!(first > Sequence(0), "sequence 0 means that nothing was appended");
        let steps = [config.drained_per_tick, config.resent_per_tick, config.retired_per_step];
        assert!(!steps.contains(&0), "a step that does nothing would never end");
        Self {
            now: Now::default(),
            effects: VecDeque::new(),
            ids: MessageIdGenerator::new(config.shard, config.boot),
            acl: Arc::new(Acl::default()),
            gate: Gate::new(first),
            timers: Timers::default(),
            connections: Slab::new(),
            connection_places: Places::default(),
            last_place: Cell::new(0),
            sessions: Slab::new(),
            clients: Places::default(),
            queues: Places::default(),
            ordinals: vec![0; usize::from(config.placement.partitions())],
            ordinals_unlogged: 0,
            subscriptions: Subscriptions::default(),
            retained: Retained::default(),
            retained_bytes: 0,
            groups: Groups::default(),
            registrations: Registrations::default(),
            letters: Letters::default(),
            hooks: None,
            settling: Settling::default(),
            repairs: Repairs::default(),
            parts_said: AHashMap::new(),
            keys: Keys::default(),
            scheduled: Scheduled::new(&config),
            consumers: Consumers::default(),
            overdue: Overdue::default(),
            resends: Resends::new(&config),
            topic_policies: TopicPolicies::default(),
            peeks: Peeks::default(),
            operations: AHashMap::new(),
            mesh: Mesh::new(&config),
            repeats: Repeats::new(&config),
            fences: Fences::default(),
            later: VecDeque::new(),
            draining: VecDeque::new(),
            drain_quota: config.drained_per_tick,
            arrived_behind: 0,
            drain: Drain::new(&config),
            judged: None,
            rules: 0,
            scratch: Scratch::default(),
            retiring: Retiring::default(),
            poison: Poison::default(),
            disk_full: false,
            log_pressed: false,
            is_watched: false,
            stats: Stats::default(),
            config,
        }
    }

    /// Takes in what happened. Effects follow from [`Broker::poll`].
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Connect(connect) => self.connect(*connect),
            Event::Publish { connection, message } => self.publish(connection, message),
            Event::Release { connection, tag } => self.release(connection, tag),
            Event::Acknowledge { connection, tag, reason } => self.acknowledge(connection, tag, reason),
            Event::Receive { connection, tag, reason } => self.receive(connection, tag, reason),
            Event::Complete { connection, tag } => self.complete(connection, tag),
            Event::Subscribe { connection, tag, filters } => self.subscribe(connection, tag, filters),
            Event::Unsubscribe { connection, tag, filters } => self.unsubscribe(connection, tag, filters),
            Event::Disconnect { connection, cause } => self.disconnect(connection, cause),
            Event::Congested { connection } => self.set_congested(connection, Congestion::Congested),
            Event::Writable { connection } => self.set_congested(connection, Congestion::Writable),
            Event::Road { connection, road } => self.road(connection, road),
            Event::PublishInternal { message } => self.publish_internal(message.message),
            Event::Committed { upto } => self.committed(upto),
            Event::Mesh { from, message } => self.mesh_message(from, message),
            Event::Backlog { queue, entries, end } => self.backlog(queue, entries, end),
            Event::Retire { upto } => self.retire(upto),
            Event::Ingested => self.ingested(),
            Event::Registrations { clients } => self.registrations_of_file(clients),
            Event::FindLetters { token, query } => self.find_letters(token, *query),
            Event::Letter { token, id, action } => self.act_on_letter(token, id, *action),
            Event::Peek { token, client, after, limit } => self.peek(token, client, after, limit),
            Event::EndPending { token, client, ids } => self.end_pending(token, client, ids),
            Event::FindScheduled { token, query } => self.find_scheduled(token, *query),
            Event::Cancel { token, id, of } => self.cancel_scheduled(token, id, of),
            Event::ImportLetter { token, message, note } => self.import_letter(token, message, note),
            Event::GroupLeft { token, name } => self.group_left(token, &name),
            Event::Group { token, name, caller, order } => self.group_order(token, &name, &caller, *order),
            Event::DiskFull { full } => self.disk_full = full,
            Event::LogPressed { pressed } => self.log_pressed = pressed,
            Event::SetAside { connection, tag } => self.set_aside(connection, tag),
            Event::CutOff { client } => {
                if let Some(index) = self.session_of_client(client.as_str()) {
                    self.cut_off(index, ReasonCode::AdministrativeAction);
                }
            }
            Event::Register { token, client, principal } => self.register_by_api(token, &client, principal),
            Event::Unregister { token, client } => self.unregister_by_api(token, &client),
            Event::DrainNow { client } => self.drain_now(client.as_str()),
            Event::Tick => self.tick(),
        }
    }

    /// The next thing to do; `None` when all is done for now.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Replaces the bounds that can be changed: they hold for what comes.
    pub fn set_limits(&mut self, limits: Limits) {
        let (before, watched) = (self.config.limits.push, self.config.limits.watches());
        self.config.limits = limits;
        if watched != self.config.limits.watches() {
            self.watch_anew();
        }
        self.drain.set_rates(&self.config, self.now.mono);
        self.resends.set_rate(&self.config, self.now.mono);
        self.letters_bounded();
        self.keys_bounded();
        self.scheduled.set_rate(&self.config, self.now.mono);
        if before == Push::Off && self.config.limits.push == Push::On {
            self.all_may_drain();
        }
    }

    /// Whether sessions that have ended still hold what other members of their groups are to get. After a recovery
    /// those that the log holds wait for the other shards first: nothing goes out meanwhile.
    pub fn is_giving_back(&self) -> bool {
        self.groups.ending > 0 && !self.repeats.recovering
    }

    /// The shard in one line. Walks all sessions: for a report, not for each message.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        let callers = self.connections.iter().filter(|(_, connection)| connection.is_caller()).count();
        stats.sessions = self.clients.len() - callers;
        stats.registrations = self.registrations.len();
        stats.ending = self.groups.ending;
        stats.connections = self.connections.len() - callers;
        (stats.drains_awaiting, stats.drains_begun) = self.drain.sessions();
        stats.overdue = self.resends.overdue();
        (stats.groups, stats.group_leased) = (self.consumers.len(), self.consumers.leased());
        stats.retained = self.retained.len();
        stats.keys = self.keys.len();
        stats.retained_bytes = self.retained_bytes;
        for (_, session) in &self.sessions {
            if session.role == Role::Letters {
                stats.letters += session.queue.messages();
                stats.letters_bytes += session.queue.bytes_pending();
                continue;
            }
            if session.role == Role::Scheduled {
                stats.scheduled += session.queue.messages();
                stats.scheduled_bytes += session.queue.bytes_pending();
                stats.scheduled_under_way += session.inbound.len();
                continue;
            }
            stats.subscriptions += session.subscriptions.len();
            stats.inflight += session.queue.window.len();
            let waiting = session.queue.messages() - session.queue.window.len();
            stats.queued_messages += waiting;
            stats.queued_bytes += session.queue.bytes;
            if session.role == Role::Group {
                stats.group_messages += session.queue.messages();
                continue;
            }
            let standing = self.drain.standing_of(session.connection);
            *stats.lanes.of(standing) += waiting;
            if waiting > 0
                && let Some(oldest) = session.queue.oldest_waiting()
            {
                let known = &mut stats.oldest[standing as usize];
                *known = Some(known.map_or(oldest, |known| known.min(oldest)));
            }
        }
        stats
    }

    pub(crate) fn count(&mut self, what: Counted) {
        self.count_by(what, 1);
    }

    pub(crate) fn count_by(&mut self, what: Counted, by: u64) {
        if by == 0 {
            return;
        }
        self.stats.counted.add(what, by);
        // A message for 100,000 absent sessions is one effect, not as many.
        match self.effects.back_mut() {
            Some(Effect::Count { what: last, by: sum }) if *last == what => *sum += by,
            _ => self.effects.push_back(Effect::Count { what, by }),
        }
    }

    /// What a connection has sent comes in a row: the last one that was asked for is looked at first.
    pub(crate) fn place_of(&self, connection: ConnectionId) -> Option<ConnectionIndex> {
        let last = self.last_place.get();
        if self.connections.get(last as usize).is_some_and(|known| known.id == connection) {
            return Some(last);
        }
        let place = self.connection_places.find(&self.connections, &connection)?;
        self.last_place.set(place);
        Some(place)
    }

    pub(crate) fn session_of_client(&self, client: &str) -> Option<SessionIndex> {
        self.clients.find(&self.sessions, client)
    }

    pub(crate) fn session_of_queue(&self, queue: QueueId) -> Option<SessionIndex> {
        self.queues.find(&self.sessions, &queue)
    }

    /// The places of all sessions, in ascending order: for walks that change them.
    pub(crate) fn session_places(&self) -> Vec<SessionIndex> {
        self.sessions.iter().map(|(place, _)| place as SessionIndex).collect()
    }

    pub(crate) fn session_of(&self, connection: ConnectionIndex) -> SessionIndex {
        self.connections[connection as usize].session
    }

    fn tick(&mut self) {
        while let Some(timer) = self.timers.pop(self.now.mono) {
            match timer {
                Timer::SessionEnd(session, id) => self.session_expired(session, id),
                Timer::Will(session, id) => self.will_due(session, id),
                Timer::Retained(topic) => self.retained_expired(&topic),
                Timer::IdleRegistrations => self.end_idle_registrations(),
                Timer::Subscribe(operation) => self.subscribe_timeout(operation),
                Timer::Letters => self.letters_aged(),
                Timer::Keys => self.keys_aged(),
                Timer::Group(session, id) => self.group_due(session, id),
            }
        }
        self.check_overdue();
        self.take_steps();
    }
}

/// Whether a connection takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Congestion {
    Congested,
    Writable,
}

/// What stands in the index beside a subscriber: its options. For another shard they mean nothing.
pub(crate) type Interested = base::SubscriptionOptions;

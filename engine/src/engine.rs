//! Start, run, stop: one executor per shard, and what the rest of the process holds of them.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement as Cores};
use postroad_base::{MessageId, Placement, Sequence, SessionExpiry, ShardId, TopicFilter};
use postroad_broker::access::Acl;
use postroad_broker::{Broker, Push, QueuePolicy, Resend, RestartDelivery, RetryPolicy, UnknownClient};
use postroad_control::{LettersBell, Line, Note, PluginsLine, Recorder, Request, Shards};
use postroad_plugins::generations::{Plugins, Prepared};
use postroad_session::mqtt::Limits;
use postroad_storage::directory::{DataDirectory, DirectoryError, DirectoryOptions};
use postroad_storage::young::{FileDirectory, RecoverError, Writer, WriterConfig, recover};

use crate::auth::{Anonymous, Auth, AuthError, Pool, PoolOptions};
use crate::clock::Clock;
use crate::codecs::{Codecs, Plans, missing};
use crate::config::{self, Config, Durability};
use crate::crash::{self, Verdict};
use crate::listener;
use crate::log::{self, Carrier, LogOptions, ShardLog, Worker};
use crate::mesh::Mesh;
use crate::plugins;
use crate::probe;
use crate::replay::{replay_state, take_in_hand};
use crate::shard::{Common, Inbox, Live, Next, Order, Parts, Shard, SysFigures};

/// Why the engine does not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An address can't be listened on.
    #[error("listener {name}: can't bind {address}: {error}")]
    Bind {
        /// Its name.
        name: String,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The data directory can't be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// `auth.file` can't be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// `acl.file` can't be used.
    #[error("acl.file {}: {error}", path.display())]
    Acl {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// No plugins load, neither those of `plugins.dir` nor any that ran here before.
    #[error("{0}")]
    Plugins(String),
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
    /// The machine does not give what is needed.
    #[error("can't start: {0}; `postroad doctor` shows what is missing")]
    System(String),
    /// A shard could not go on: what it acknowledged is in its log.
    #[error("shard {}: {reason}", shard.0)]
    Shard {
        /// Which.
        shard: ShardId,
        /// Why.
        reason: String,
    },
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The listener's name.
    pub name: String,
    /// The bound address, with the port that the kernel picked if 0 was asked for.
    pub address: SocketAddr,
}

/// Starts servers.
#[derive(Debug)]
pub struct Engine;

/// A running server.
pub struct Running {
    handle: Handle,
    ports: Vec<Port>,
    shards: Vec<ExecutorJoinHandle<Result<(), EngineError>>>,
    coordinator: plugins::Thread,
    /// Locked for as long as the server runs.
    _directory: Option<Arc<DataDirectory>>,
}

/// The way to a running server from any thread.
#[derive(Clone)]
pub struct Handle {
    common: Arc<Common>,
    config: Arc<std::sync::Mutex<Config>>,
    lines: Vec<Line>,
    noted: flume::Receiver<Note>,
    plugins: PluginsLine,
}

/// Notes that may wait for somebody who shows them.
const NOTES_MAX: usize = 64;
/// Questions of the control plane that may wait for a shard.
const REQUESTS_MAX: usize = 16;

impl Engine {
    /// Whether the files that `config` names can be used: what `postroad check-config` says beyond the option table.
    ///
    /// # Errors
    /// When `auth.file` or `acl.file` can't be used.
    pub fn check(config: &Config) -> Result<(), EngineError> {
        Auth::load(config.auth_file.as_deref(), Anonymous::Deny)?;
        load_acl(config)?;
        Ok(())
    }

    /// Whether what is in `plugins.dir` loads and passes its tests. A start that finds that it does not runs what was committed before, so
    /// this is no part of [`Self::check`].
    ///
    /// # Errors
    /// Everything that is wrong with the plugins.
    pub fn check_plugins(config: &Config) -> Result<(), EngineError> {
        crate::plugins::check(&config.plugins, Clock::new().now()).map_err(EngineError::Plugins)
    }

    /// Starts all shards and returns once they take clients.
    ///
    /// # Errors
    /// When something that the configuration asks for can't be had; nothing is left running then.
    pub fn start(config: Config) -> Result<Running, EngineError> {
        Self::start_recorded(config, None, Arc::new(Plans::shipped()))
    }

    /// The same; what becomes of messages that somebody follows is told to `recorder`, and listeners have their codecs of
    /// `codecs`.
    ///
    /// # Errors
    /// As [`Self::start`], and if a listener names a codec that is not there.
    pub fn start_recorded(
        config: Config,
        recorder: Option<Recorder>,
        codecs: Arc<dyn Codecs>,
    ) -> Result<Running, EngineError> {
        crate::fault::announce();
        let cores = cores();
        let shards = config.shards.count(cores.len());
        if config.partitions.get() < shards {
            let partitions = config.partitions;
            return Err(EngineError::Config(format!(
                "{shards} shards need at least as many partitions, not {partitions}"
            )));
        }
        let live = Arc::new(make_live(&config, shards)?);
        let directory = open_directory(&config, shards)?;
        warn_of(&live.verdict); // after the lock: what another server here has left is not for us to tell
        let (listeners, ports) = bind_all(&config, shards)?;
        let placement = match &directory {
            Some(directory) => directory.placement(),
            None => throw_away_placement(&config, shards),
        };
        let (notes, noted) = flume::bounded(NOTES_MAX);
        let (coordinator, told) = flume::unbounded();
        let parts = CommonParts { notes: notes.clone(), recorder, coordinator, codecs };
        let common = Arc::new(make_common(shards, placement, parts).map_err(|error| system(&error))?);
        let (coordinator, plugins_line, plugins) = open_plugins(&config, &common, told, notes)?;
        check_codecs(&config, plugins.as_deref(), &*common.codecs)?;
        let doorbells: Vec<_> = common.inboxes.iter().map(|inbox| inbox.doorbell.clone()).collect();
        let credits = postroad_broker::Config::new(ShardId(0), common.placement.clone(), false, 0).mesh_credits;
        let mut boot = [0; 4];
        crate::random::fill(&mut boot);
        let boot = u32::from_le_bytes(boot);
        let poison = live.verdict.poison.keys().copied().collect();
        let mut starter = Starter {
            plan: Arc::new(Plan { config: config.clone(), directory: directory.clone(), boot, poison, plugins }),
            common,
            live,
            cores,
            opened: flume::bounded(usize::from(shards)),
            lines: Vec::new(),
            shards: Vec::new(),
        };
        for (mesh, listeners) in Mesh::full(&doorbells, credits).into_iter().zip(listeners) {
            starter.start_shard(mesh, listeners)?;
        }
        starter.wait_until_open()?;
        let told = starter.common.coordinator.clone();
        let coordinator = coordinator.run(told).map_err(|error| starter.give_up(system(&error)))?;
        let Starter { common, lines, shards, .. } = starter;
        let config = Arc::new(std::sync::Mutex::new(config));
        let handle = Handle { common, config, lines, noted, plugins: plugins_line };
        Ok(Running { handle, ports, shards, coordinator, _directory: directory })
    }
}

impl Running {
    /// The way to the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where it listens.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Waits until all shards have ended: after [`Handle::drain`], or when one of them can't go on.
    ///
    /// # Errors
    /// What a shard ended with, if not because it was asked to.
    pub fn wait(self) -> Result<(), EngineError> {
        let outcome = join_all(self.shards);
        self.coordinator.stop();
        outcome
    }
}

impl Handle {
    /// Stops gracefully: no new clients, DISCONNECT to the old ones, commits finished. [`Running::wait`] returns then.
    pub fn drain(&self) {
        self.common.inboxes.iter().for_each(|inbox| inbox.order(Order::Drain));
    }

    /// Applies what is live of `new` to all shards, or nothing if something in it can't be used. Returns the
    /// names of the restart options that differ: they stay as they are.
    ///
    /// # Errors
    /// When `auth.file` or `acl.file` can't be used.
    pub fn reload(&self, new: Config) -> Result<Vec<&'static str>, EngineError> {
        let mut current = self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waiting = current.restart_differences(&new);
        let new = current.with_live_of(new);
        let plugins = Box::new(new.plugins.clone());
        let live = Arc::new(make_live(&new, u16::try_from(self.common.inboxes.len()).expect("counted in 16 bits"))?);
        self.common.inboxes.iter().for_each(|inbox| inbox.order(Order::Reload(Arc::clone(&live))));
        let _has_ended = self.common.coordinator.send(plugins::Told::Options(plugins));
        *current = new;
        Ok(waiting)
    }

    /// What an operator should know because of earlier crashes, as `crash.json` says now.
    pub fn standing_notes(&self) -> Vec<Note> {
        let config = self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        notes_of(&verdict_of(&config))
    }

    /// What has come up since, one after the other; each is taken by one reader.
    pub fn notes(&self) -> flume::Receiver<Note> {
        self.noted.clone()
    }

    /// What the control plane asks its questions by.
    pub fn shards(&self) -> Shards {
        let (lines, placement) = (self.lines.clone(), Some(self.common.placement.clone()));
        Shards { lines, placement, letters: self.common.letters.clone(), plugins: Some(self.plugins.clone()) }
    }
}

fn verdict_of(config: &Config) -> Verdict {
    crash::judge(&crash::read(&config.data_dir), config.crash_bar_time, Clock::new().now().wall)
}

fn notes_of(verdict: &Verdict) -> Vec<Note> {
    let barred = verdict.barred.iter().map(|(client, until)| Note {
        text: format!(
            "client {:?} is barred until {}: the server crashed twice over what it sent",
            client.as_str(),
            crash::utc(until.0 / 1000)
        ),
        until: Some(std::time::UNIX_EPOCH + Duration::from_millis(until.0)),
    });
    let poison = verdict.poison.iter().map(|(id, why)| Note {
        text: format!("message {id} is poison, its deliveries are set aside in quarantine/poison-{id}.json: {why}"),
        until: None,
    });
    let disabled = verdict.disabled.iter().map(|(version, (name, why))| Note {
        text: format!(
            "plugin {name} is not called, its hooks are open or closed: {why} (of version {}; another one is called)",
            &version.to_string()[..12]
        ),
        until: None,
    });
    let mut notes: Vec<_> = barred.chain(poison).chain(disabled).collect();
    notes.sort_by(|a, b| a.text.cmp(&b.text));
    notes
}

fn warn_of(verdict: &Verdict) {
    for note in notes_of(verdict) {
        tracing::warn!("{}", note.text);
    }
}

fn system(error: &dyn std::fmt::Display) -> EngineError {
    EngineError::System(error.to_string())
}

/// What each shard has to know to start; shared.
struct Plan {
    config: Config,
    directory: Option<Arc<DataDirectory>>,
    /// Drawn once per start, for message ids.
    boot: u32,
    /// Messages that must not be handled any more.
    poison: Vec<MessageId>,
    /// The plugins to begin with.
    plugins: Option<Arc<Prepared>>,
}

/// What is gathered while the shards start.
struct Starter {
    plan: Arc<Plan>,
    common: Arc<Common>,
    live: Arc<Live>,
    cores: Vec<usize>,
    opened: (flume::Sender<ShardId>, flume::Receiver<ShardId>),
    lines: Vec<Line>,
    shards: Vec<ExecutorJoinHandle<Result<(), EngineError>>>,
}

/// What one shard's thread gets.
struct Seed {
    id: ShardId,
    plan: Arc<Plan>,
    common: Arc<Common>,
    live: Arc<Live>,
    mesh: Mesh,
    listeners: Vec<TcpListener>,
    opened: flume::Sender<ShardId>,
    requests: flume::Receiver<Request>,
}

/// So long that it never fires: see `docs/adr/0005-no-preempt-timer.md`.
const PREEMPT_TIMER: Duration = Duration::from_secs(10);
/// Memory that an executor registers for its own I/O, of which there is none: see [`turn_until_stopped`].
const IO_MEMORY_BYTES: usize = 64 << 10;

impl Starter {
    fn start_shard(&mut self, mesh: Mesh, listeners: Vec<TcpListener>) -> Result<(), EngineError> {
        let number = self.shards.len();
        let id = ShardId(u16::try_from(number).expect("shards are counted in 16 bits"));
        // More shards than cores share them as the kernel sees fit.
        let pinned = self.common.inboxes.len() <= self.cores.len();
        let cores = if pinned { Cores::Fixed(self.cores[number]) } else { Cores::Unbound };
        let (request, requests) = flume::bounded(REQUESTS_MAX);
        let inbox = Arc::clone(&self.common.inboxes[number]);
        let seed = Seed {
            id,
            plan: Arc::clone(&self.plan),
            common: Arc::clone(&self.common),
            live: Arc::clone(&self.live),
            mesh,
            listeners,
            opened: self.opened.0.clone(),
            requests,
        };
        let spawned = LocalExecutorBuilder::new(cores)
            .name("shard")
            .preempt_timer(PREEMPT_TIMER)
            .io_memory(IO_MEMORY_BYTES)
            .spawn(move || async move { run_shard(seed) });
        match spawned {
            Ok(thread) => {
                self.shards.push(thread);
                self.lines.push(Line::new(request, move || inbox.order(Order::Asked)));
                Ok(())
            }
            Err(error) => Err(self.give_up(system(&error))),
        }
    }

    /// Waits until all shards take clients; if one ends before, all end.
    fn wait_until_open(&mut self) -> Result<(), EngineError> {
        // Ours goes away, so that the channel closes when the shards' ends do.
        self.opened.0 = flume::bounded(0).0;
        let expected = self.shards.len();
        let opened = self.opened.1.iter().take(expected).count();
        if opened == expected {
            return Ok(());
        }
        Err(self.give_up(EngineError::System("a shard has ended while starting".to_owned())))
    }

    /// Ends what has been started, and returns why: what a shard says, if one says anything, else `otherwise`.
    fn give_up(&mut self, otherwise: EngineError) -> EngineError {
        self.common.inboxes.iter().for_each(|inbox| inbox.order(Order::Abort));
        join_all(std::mem::take(&mut self.shards)).err().unwrap_or(otherwise)
    }
}

/// Waits for all, and returns the first error.
fn join_all(shards: Vec<ExecutorJoinHandle<Result<(), EngineError>>>) -> Result<(), EngineError> {
    let mut outcome = Ok(());
    for shard in shards {
        let ended = shard.join().unwrap_or_else(|error| Err(system(&error)));
        outcome = outcome.and(ended);
    }
    outcome
}

/// The life of one shard, on its own thread.
fn run_shard(seed: Seed) -> Result<(), EngineError> {
    let (id, common) = (seed.id, Arc::clone(&seed.common));
    crate::crash::watch_this_thread(id, &seed.plan.config.data_dir);
    let outcome = live_shard(seed);
    if outcome.is_err() {
        // The others wait for this one, now or later.
        common.inboxes.iter().for_each(|inbox| inbox.order(Order::Abort));
    }
    tracing::info!(shard = id.0, "ended");
    outcome
}

fn live_shard(seed: Seed) -> Result<(), EngineError> {
    let Seed { id, plan, common, live, mesh, listeners, opened, requests } = seed;
    let failed = |reason: String| EngineError::Shard { shard: id, reason };
    let plugins = first_plugins(id, &plan, &common).map_err(failed)?;
    let (broker, log) = recover_shard(id, &plan, &common)?;
    let mut shard = Shard::new(Parts { id, common, live, broker, plugins, log, mesh, listeners, requests, opened })
        .map_err(|error| failed(error.to_string()))?;
    turn_until_stopped(&mut shard).map_err(|error| failed(error.to_string()))?;
    shard.turn_requests_away();
    drop(shard.log.take()); // its commit ends, its threads end, its files close
    let failure = shard.take_failure();
    failure.map_or(Ok(()), |reason| Err(failed(reason)))
}

/// The plugins of the start. They have loaded in the coordinator's hands; what speaks against them here is a limit of time, or chance.
fn first_plugins(id: ShardId, plan: &Plan, common: &Common) -> Result<Plugins, String> {
    let plugins = Plugins::new(id);
    if let Some(first) = &plan.plugins {
        let (now, generation) = (common.clock.now(), first.generation);
        let listed = |failures: Vec<postroad_plugins::Diagnostic>| {
            let failures = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            format!(
                "plugins of generation {generation} do not load on this shard, though they did when the server tried them (start again; if \
                 that does not help, change plugins.dir: what is new there runs): {failures}"
            )
        };
        plugins.prepare(now, Arc::clone(first)).map_err(listed)?;
        plugins.commit(now, generation);
        plugins.settled(generation);
    }
    Ok(plugins)
}

/// Turns until the shard stops. It waits for its descriptors itself, the log's ring among them, so the executor never
/// sleeps: its way through its own rings cost fourteen calls for each commit, and a third of each wake-up.
fn turn_until_stopped(shard: &mut Shard) -> std::io::Result<()> {
    loop {
        match shard.turn() {
            Next::Turn => {}
            Next::Coalesce(time) => std::thread::sleep(time),
            Next::Sleep => shard.sleep()?,
            Next::Stop => return Ok(()),
        }
    }
}

/// Brings the state of a shard back, and opens its log. Blocks, before there is anybody to keep waiting.
fn recover_shard(id: ShardId, plan: &Plan, common: &Common) -> Result<(Broker, Option<ShardLog>), EngineError> {
    let config = &plan.config;
    let mut broker = Broker::new(broker_config(id, plan, common), Sequence(1));
    broker.set_poison(plan.poison.iter().copied());
    let Some(directory) = &plan.directory else {
        broker.recovered(common.clock.now(), Sequence(1));
        return Ok((broker, None));
    };
    let begin = std::time::Instant::now();
    let old = Arc::new(directory.open_old(id)?);
    let as_of = old.as_of();
    replay_state(&old, &mut broker, &plan.poison).map_err(|error| DirectoryError::Old { shard: id, error })?;
    let path = directory.young_path(id);
    let mut files = FileDirectory::new(path.clone());
    let mut replay = |sequence, record| {
        take_in_hand(&record, &plan.poison);
        broker.replay(sequence, as_of, record);
    };
    let recovered = recover(&mut files, directory.log_id(id), old.covered(), &mut replay)
        .map_err(|error: RecoverError| DirectoryError::Young { shard: id, error })?;
    if let Some(torn) = recovered.torn {
        tracing::warn!(
            shard = id.0,
            ?torn,
            "the log ended in an unfinished commit, which was cut: nobody was told that it was safe"
        );
    }
    let (records, took) = (recovered.records, begin.elapsed());
    tracing::info!(shard = id.0, records, ?took, "recovered");
    crash::take_in_hand(None);
    broker.recovered(common.clock.now(), recovered.position.next());
    let writer_config = WriterConfig::new(directory.log_id(id), config.log.segment_bytes, config.log.young_bytes);
    let mut writer = Writer::new(writer_config, recovered.position);
    log::make_first_segment(&mut writer, &mut files).map_err(|error| system(&error))?;
    let inbox = Arc::clone(&common.inboxes[usize::from(id.0)]);
    let worker = Worker::start(old, path.clone(), inbox, id, &config.data_dir).map_err(|error| system(&error))?;
    let options = LogOptions {
        data_dir: config.data_dir.clone(),
        young_bytes: config.log.young_bytes,
        young_age_millis: u64::try_from(config.log.young_age.as_millis()).unwrap_or(u64::MAX),
        opened: common.clock.now().mono,
    };
    let carrier = Carrier::new(path, config.durability == Durability::Fsync).map_err(|error| system(&error))?;
    Ok((broker, Some(ShardLog::new(writer, worker, carrier, options))))
}

fn broker_config(id: ShardId, plan: &Plan, common: &Common) -> postroad_broker::Config {
    let mut config = postroad_broker::Config::new(id, common.placement.clone(), plan.directory.is_some(), plan.boot);
    config.limits = broker_limits(&plan.config, common.inboxes.len());
    config
}

/// The broker's part of what a reload replaces.
fn broker_limits(config: &Config, shards: usize) -> postroad_broker::Limits {
    postroad_broker::Limits {
        queue_messages_max: config.queue.messages_max,
        queue_bytes_max: config.queue.bytes_max,
        queue_policy: match config.queue.policy {
            config::QueuePolicy::RejectPublisher => QueuePolicy::RejectPublisher,
            config::QueuePolicy::DropOldest => QueuePolicy::DropOldest,
            config::QueuePolicy::RejectNew => QueuePolicy::DropNew,
            config::QueuePolicy::DeadLetterOldest => QueuePolicy::DeadLetterOldest,
            config::QueuePolicy::FullSync => QueuePolicy::FullSync,
        },
        inflight_max: config.mqtt.in_flight_max.get(),
        retained_max: config.retained_max.div_ceil(shards),
        retained_bytes_max: config.retained_bytes_max.div_ceil(shards),
        topic_levels_max: usize::from(config.mqtt.topic_levels_max.get()),
        subscriptions_max: config.mqtt.subscriptions_max,
        registrations_max: config.registrations.clients_max.div_ceil(shards),
        registrations_idle_max_ms: u64::try_from(config.registrations.idle_max.as_millis()).unwrap_or(u64::MAX),
        unknown_client: match config.registrations.unknown_client {
            config::UnknownClient::Reject => UnknownClient::Reject,
            config::UnknownClient::Queue => UnknownClient::Queue,
        },
        session_expiry_max: SessionExpiry(config.mqtt.session_expiry_max_seconds),
        retry: config.retry.policy(),
        resend: match config.retry.resend {
            config::Resend::Live => Resend::Live,
            config::Resend::Reconnect => Resend::Reconnect,
        },
        ack_timeout_min_ms: config::millis(config.retry.ack_timeout_min),
        ack_timeout_max_ms: config::millis(config.retry.ack_timeout_max),
        resent_per_second: config::part_of(config.retry.per_second, shards),
        letters_max: config.dead_letters.max.div_ceil(shards),
        letters_bytes_max: config.dead_letters.bytes_max.div_ceil(shards),
        letters_age_max_ms: u64::try_from(config.dead_letters.age_max.as_millis()).unwrap_or(u64::MAX),
        requeues_max: config.dead_letters.requeues_max,
        trace_sample: config.trace_sample,
        keys_window_ms: u64::try_from(config.idempotency.window.as_millis()).unwrap_or(u64::MAX),
        keys_max: config.idempotency.keys_max,
        keys_total_max: config.idempotency.total_max.div_ceil(shards),
        scheduled_max: config.scheduled.max.div_ceil(shards),
        scheduled_bytes_max: config.scheduled.bytes_max.div_ceil(shards),
        scheduled_delay_max_ms: u64::try_from(config.scheduled.delay_max.as_millis()).unwrap_or(u64::MAX),
        scheduled_per_second: config.scheduled.rate_of_shard(shards),
        groups_max: config.groups.max,
        groups_leases_max: usize::from(config.groups.leases_max),
        groups_waiting_max: config.groups.waiting_max,
        groups_delay_ms: u64::try_from(config.groups.delay.as_millis()).unwrap_or(u64::MAX),
        groups_delay_max_ms: u64::try_from(config.groups.delay_max.as_millis()).unwrap_or(u64::MAX),
        push: match config.push {
            config::Push::On => Push::On,
            config::Push::Off => Push::Off,
        },
        delivery_mode: config.delivery_mode,
        drained_per_second: config.drain.rate_of_shard(shards),
        drain_jitter_ms: u64::try_from(config.drain.jitter.as_millis()).unwrap_or(u64::MAX),
        restart_delivery: match config.restart.delivery {
            config::RestartDelivery::Scheduled => RestartDelivery::Scheduled,
            config::RestartDelivery::Pull => RestartDelivery::Pull,
        },
        restart_sessions_per_second: config.restart.sessions_per_second,
    }
}

/// What holds for the messages of some topics.
pub(crate) fn retry_topics(config: &Config) -> Vec<(TopicFilter, RetryPolicy)> {
    let policy = |topic: &config::RetryTopic| (topic.filter.clone(), config.retry.policy_of(topic));
    config.retry_topics.iter().map(policy).collect()
}

/// Where shards tell something.
struct CommonParts {
    notes: flume::Sender<Note>,
    recorder: Option<Recorder>,
    coordinator: flume::Sender<plugins::Told>,
    codecs: Arc<dyn Codecs>,
}

fn open_plugins(
    config: &Config,
    common: &Arc<Common>,
    told: flume::Receiver<plugins::Told>,
    notes: flume::Sender<Note>,
) -> Result<(plugins::Waiting, PluginsLine, Option<Arc<Prepared>>), EngineError> {
    let inboxes = common.inboxes.clone();
    let is_kept = config.durability != Durability::Memory;
    let parts = plugins::Parts {
        place: is_kept.then(|| plugins::place_in(&config.data_dir)),
        options: config.plugins.clone(),
        shards: inboxes.len(),
        clock: common.clock,
        tell: Box::new(move |shard, step| inboxes[usize::from(shard.0)].order(Order::Plugins(step))),
        disabled: {
            let data_dir = config.data_dir.clone();
            Box::new(move || crash::disabled_plugins(&data_dir))
        },
        told,
        notes,
    };
    plugins::open(parts).map_err(EngineError::Plugins)
}

fn make_common(shards: u16, placement: Placement, parts: CommonParts) -> std::io::Result<Common> {
    let CommonParts { notes, recorder, coordinator, codecs } = parts;
    let inboxes: std::io::Result<Vec<_>> = (0..shards).map(|_| Inbox::new().map(Arc::new)).collect();
    Ok(Common {
        inboxes: inboxes?,
        connections: AtomicUsize::new(0),
        announced: AtomicUsize::new(0),
        drained: AtomicUsize::new(0),
        sys: (0..shards).map(|_| SysFigures::default()).collect(),
        pool: Pool::start(PoolOptions::default())?,
        placement,
        clock: Clock::new(),
        notes,
        recorder,
        letters: LettersBell::default(),
        codecs,
        coordinator,
    })
}

/// Files that the process needs whatever the number of shards: HTTP connections, standard streams, signals, files that
/// are read at a reload.
const PROCESS_FILES_MAX: u64 = 128;
/// Files of one shard besides connections, its listeners, and the tables of its old generation: the executor's rings and
/// events, readiness sets, bell, alarm, segments that are written, made and read, fjall's journal and directories.
const SHARD_FILES_MAX: u64 = 32;

/// Open files that a server of so many shards and listeners needs besides connections, at most.
pub fn files_besides_connections(shards: u16, listeners: usize) -> u64 {
    let each = SHARD_FILES_MAX + listeners as u64 + postroad_storage::old::OLD_FILES_MAX as u64;
    PROCESS_FILES_MAX + u64::from(shards) * each
}

fn make_live(config: &Config, shards: u16) -> Result<Live, EngineError> {
    let anonymous = if config.allow_anonymous { Anonymous::Allow } else { Anonymous::Deny };
    let auth = Auth::load(config.auth_file.as_deref(), anonymous)?;
    let (limit, others) = (probe::raise_open_files_limit(), files_besides_connections(shards, config.listeners.len()));
    if limit <= others {
        return Err(EngineError::System(format!(
            "the limit of {limit} open files leaves none for clients: {shards} shards need {others} themselves; raise \
             the limit (LimitNOFILE, ulimit -n) or run fewer shards"
        )));
    }
    let files = usize::try_from(limit - others).unwrap_or(usize::MAX);
    let connections_max = if config.connections_max == 0 { files } else { config.connections_max.min(files) };
    let (broker, limits) = (broker_limits(config, usize::from(shards)), limits(config));
    let (acl, verdict) = (Arc::new(load_acl(config)?), verdict_of(config));
    Ok(Live { limits, broker, auth, acl, verdict, connections_max, config: config.clone() })
}

fn check_codecs(config: &Config, plugins: Option<&Prepared>, others: &dyn Codecs) -> Result<(), EngineError> {
    let names = plugins.map(|first| postroad_plugins::codec::names_of(&first.compiled, &first.limits));
    let has = |name: &postroad_plugins::PluginName| names.as_ref().is_some_and(|names| names.contains(name));
    missing(&config.listeners, has, others).map_or(Ok(()), |missing| Err(EngineError::Config(missing)))
}

fn load_acl(config: &Config) -> Result<Acl, EngineError> {
    let Some(path) = &config.acl_file else { return Ok(Acl::default()) };
    let failed = |error: String| EngineError::Acl { path: path.clone(), error };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Acl::parse(&text).map_err(|error| failed(error.to_string()))
}

fn limits(config: &Config) -> Limits {
    let mqtt = &config.mqtt;
    Limits {
        packet_bytes_max: mqtt.packet_bytes_max,
        receive_maximum: mqtt.receive_maximum.get(),
        topic_alias_maximum: mqtt.topic_alias_maximum,
        topic_alias_out_max: mqtt.topic_alias_outbound_max,
        keep_alive_max: mqtt.keep_alive_max_seconds,
        session_expiry_max: SessionExpiry(mqtt.session_expiry_max_seconds),
        connect_bytes_max: mqtt.packet_bytes_max.min(Limits::default().connect_bytes_max),
        retain_available: config.retained_max > 0,
    }
}

fn open_directory(config: &Config, shards: u16) -> Result<Option<Arc<DataDirectory>>, EngineError> {
    if config.durability == Durability::Memory {
        return Ok(None);
    }
    let options = DirectoryOptions { shards, partitions: config.partitions.get() };
    Ok(Some(Arc::new(DataDirectory::open(&config.data_dir, options)?)))
}

/// Without a data directory names are placed anew at each start.
fn throw_away_placement(config: &Config, shards: u16) -> Placement {
    let mut key = [0; 16];
    crate::random::fill(&mut key);
    Placement::new(config.partitions.get(), shards, key)
}

/// The sockets of each shard, one per listener, and where they are.
fn bind_all(config: &Config, shards: u16) -> Result<(Vec<Vec<TcpListener>>, Vec<Port>), EngineError> {
    let mut by_shard: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    for config::Listener { name, address, .. } in &config.listeners {
        let failed = |error| EngineError::Bind { name: name.clone(), address: *address, error };
        let sockets = listener::bind(*address, shards).map_err(failed)?;
        let bound = sockets[0].local_addr().map_err(failed)?;
        ports.push(Port { name: name.clone(), address: bound });
        by_shard.iter_mut().zip(sockets).for_each(|(shard, socket)| shard.push(socket));
    }
    Ok((by_shard, ports))
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

//! `postroad serve`: starts the control plane and the engine, then waits for signals.
//!
//! ```text
//! load ─► HTTP (starting) ─► engine recovers ─► ports.json ─► ready ─► wait ─► drain ─► stop
//!                                                              SIGHUP: reload ┘   └ SIGTERM, SIGINT, a shard's end
//! ```
//!
//! One loop, one list of events. The watchdog is fed only when every shard has taken a turn `[HA-3]`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postroad_control::{BuildInfo, Control, Line, Listeners, Order, Phase, Reloaded, Request, STOP_PATIENCE, Tokens};
use postroad_engine::codecs::Plans;
use postroad_engine::{Engine, EngineError, Handle, Running};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::logging::{self, LogLevel};
use crate::notify::Notifier;
use crate::options::{self, ListenerTable, Settings, Sources};

const BUILD: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    revision: match option_env!("POSTROAD_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
};

/// Time beyond `drain_timeout` after which a drain that does not end is given up.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// Events that may wait; a crowd of signals is one signal to us.
const EVENTS_MAX: usize = 16;
/// File in the data directory that holds what became of messages that somebody follows.
const HISTORY_FILE: &str = "history.redb";
/// File in the data directory that names the bound ports.
const PORTS_FILE: &str = "ports.json";

enum Event {
    Signal(i32),
    /// What a caller of the API wants.
    Order(Order),
    Ended(Result<(), EngineError>),
}

/// Runs the server until it is asked to stop or can't go on.
pub fn serve(sources: &Sources) -> Result<ExitCode> {
    let settings = options::load(sources)?;
    let level = logging::start(&settings)?;
    let (events, waiting) = flume::bounded(EVENTS_MAX);
    let started = Arc::new(AtomicBool::new(false));
    watch_signals(events.clone(), Arc::clone(&started))?;
    postroad_engine::watch_process(&settings.engine.data_dir);
    let tokens = tokens(&settings)?;
    let mut control = start_control(&settings)?;
    control.handle().use_tokens(tokens);
    forget_foreign_ports(&settings.engine.data_dir);
    let running =
        Engine::start_recorded(settings.engine.clone(), Some(control.recorder()), Arc::new(Plans::shipped()))?;
    // Now that the data directory is ours.
    control.keep_history(history_file(&settings), settings.engine.storage_free_bytes_min)?;
    started.store(true, Ordering::Relaxed);

    let engine = running.handle();
    let ports = write_ports(&settings, &running, &control)?;
    control.handle().attach(engine.shards());
    control.handle().replace_notes(engine.standing_notes());
    show_notes(&engine, &control)?;
    let ordered = events.clone();
    control.handle().obey(move |order| ordered.try_send(Event::Order(order)).is_ok());
    control.handle().enter(Phase::Serving);
    let notifier = Notifier::from_environment();
    notifier.ready("serving");
    tracing::info!(version = BUILD.version, data = %settings.engine.data_dir.display(), %ports, "serving");
    std::thread::Builder::new().name("engine-end".into()).spawn(move || {
        let _gone = events.send(Event::Ended(running.wait()));
    })?;

    let tick_due = notifier.watchdog_interval().map(|interval| Instant::now() + interval);
    let mut server = Server { sources, settings, engine, control, notifier, level, tick_due, drain_until: None };
    let outcome = server.run(&waiting);
    server.stop(outcome.is_ok(), &waiting);
    outcome.map(|()| ExitCode::SUCCESS)
}

struct Server<'a> {
    sources: &'a Sources,
    settings: Settings,
    engine: Handle,
    control: Control,
    notifier: Notifier,
    level: LogLevel,
    /// When the watchdog wants to be fed, however many signals come meanwhile.
    tick_due: Option<Instant>,
    /// While draining: when it must be over.
    drain_until: Option<Instant>,
}

impl Server<'_> {
    fn run(&mut self, events: &flume::Receiver<Event>) -> Result<()> {
        loop {
            match self.next(events) {
                Some(Event::Ended(outcome)) => return self.ended(outcome),
                Some(Event::Signal(SIGHUP)) => drop(self.reload()),
                Some(Event::Signal(_)) if self.drain_until.is_some() => {
                    bail!("asked to stop a second time while draining");
                }
                Some(Event::Signal(signal)) => self.drain(signal_name(signal)),
                Some(Event::Order(Order::Reload(answer))) => {
                    let _gone = answer.try_send(self.reload());
                }
                Some(Event::Order(Order::Drain)) => self.drain("the API"),
                None => {}
            }
            self.look_at_the_clock()?;
        }
    }

    /// The next event, or `None` when something is due.
    fn next(&self, events: &flume::Receiver<Event>) -> Option<Event> {
        match [self.tick_due, self.drain_until].into_iter().flatten().min() {
            Some(due) => events.recv_deadline(due).ok(),
            None => events.recv().ok(),
        }
    }

    fn look_at_the_clock(&mut self) -> Result<()> {
        let is_past = |due: Option<Instant>| due.is_some_and(|due| Instant::now() >= due);
        if is_past(self.drain_until) {
            bail!("the drain did not end in time; what was acknowledged is in the log");
        }
        if let Some(interval) = self.notifier.watchdog_interval()
            && is_past(self.tick_due)
        {
            self.tick_due = Some(Instant::now() + interval);
            match silent_shards(&self.engine.shards().lines, interval) {
                silent if silent.is_empty() => self.notifier.watchdog(),
                silent => tracing::error!(shards = ?silent, "shards took no turn: the watchdog is not fed"),
            }
        }
        Ok(())
    }

    fn drain(&mut self, by: &str) {
        if self.drain_until.is_some() {
            return;
        }
        tracing::info!(by, "draining");
        self.control.handle().enter(Phase::Draining);
        self.notifier.stopping();
        self.drain_until = Some(Instant::now() + self.settings.engine.drain_timeout + DRAIN_GRACE);
        self.engine.drain();
    }

    fn ended(&self, outcome: Result<(), EngineError>) -> Result<()> {
        if let Err(error) = outcome {
            self.control.handle().enter(Phase::Poisoned(error.to_string()));
            self.notifier.status(&error.to_string());
            return Err(error.into());
        }
        if self.drain_until.is_none() {
            bail!("all shards ended without being asked to");
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// The whole file applies or nothing; then an error says why.
    fn reload(&mut self) -> Result<Reloaded, String> {
        self.try_reload().map_err(|error| {
            let why = format!("reload refused, nothing is changed: {error:#}");
            tracing::error!("{why}");
            why
        })
    }

    fn try_reload(&mut self) -> Result<Reloaded> {
        let plan = options::plan(&self.settings, options::load(self.sources)?)?;
        let tokens = tokens(&plan.settings)?;
        self.engine.reload(plan.settings.engine.clone())?;
        self.control.handle().use_tokens(tokens);
        self.control.handle().replace_notes(self.engine.standing_notes());
        self.level.set(plan.settings.log_level)?;
        for change in &plan.applied {
            tracing::info!("reloaded {change}");
        }
        for key in &plan.waiting {
            tracing::warn!("{key} has changed and waits for a restart");
        }
        let (applied, waiting) = (plan.applied.len(), plan.waiting.len());
        tracing::info!(applied, waiting, "configuration, users and access rules are read anew");
        self.settings = plan.settings;
        let waiting = plan.waiting.iter().map(ToString::to_string).collect();
        Ok(Reloaded { applied: plan.applied, waiting })
    }

    /// In order, what is left of the time for draining is for callers of the API that are slow to read their answers. A second
    /// signal ends it.
    fn stop(self, in_order: bool, events: &flume::Receiver<Event>) {
        let _none_there = std::fs::remove_file(self.settings.engine.data_dir.join(PORTS_FILE));
        let drain_end = self.drain_until.filter(|_| in_order).and_then(|until| until.checked_sub(DRAIN_GRACE));
        let left = drain_end.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        let (control, patience, (done, is_done)) = (self.control, left.max(STOP_PATIENCE), flume::bounded(1));
        let stopping = std::thread::Builder::new().name("stopping".into()).spawn(move || {
            control.stop_within(patience);
            let _nobody_waits = done.send(());
        });
        if let Err(error) = stopping {
            return tracing::error!(%error, "callers of the API are cut off");
        }
        let notifier = &self.notifier;
        feeding(
            notifier.watchdog_interval(),
            Instant::now() + patience,
            || notifier.watchdog(),
            |due| {
                let selector = flume::Selector::new().recv(&is_done, |_| true);
                let selector = selector
                    .recv(events, |event| event.is_err() || matches!(event, Ok(Event::Signal(SIGINT | SIGTERM))));
                match due {
                    Some(due) => selector.wait_deadline(due).ok(),
                    None => Some(selector.wait()),
                }
            },
        );
    }
}

/// Waits until it is over, and feeds the watchdog meanwhile: there may be less of its patience than of ours. Not for longer than
/// `until`: who hangs then is not saved. `wait` gives `None` when the time that it is given has come.
fn feeding(
    interval: Option<Duration>,
    until: Instant,
    feed: impl Fn(),
    mut wait: impl FnMut(Option<Instant>) -> Option<bool>,
) {
    let next = || interval.map(|interval| Instant::now() + interval).filter(|next| *next < until);
    let mut due = next();
    loop {
        match wait(due) {
            Some(true) => return,
            Some(false) => {}
            None => {
                feed();
                due = next();
            }
        }
    }
}

/// Shards that took no turn within `patience`. A shard that has ended is not silent: its end is an event.
fn silent_shards(shards: &[Line], patience: Duration) -> Vec<usize> {
    let deadline = Instant::now() + patience;
    let (answer, answers) = flume::bounded(shards.len().max(1));
    let mut silent: Vec<usize> = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        if shard.ask(Request::Ping(answer.clone())) || !shard.is_dead() {
            silent.push(index);
        }
    }
    drop(answer);
    while let Ok(shard) = answers.recv_deadline(deadline) {
        silent.retain(|index| *index != usize::from(shard.0));
        if silent.is_empty() {
            break;
        }
    }
    silent.retain(|index| !shards[*index].is_dead());
    silent
}

fn signal_name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("unknown")
}

/// Before the start is done there is nothing to drain: recovery can be broken off at any point.
fn watch_signals(events: flume::Sender<Event>, started: Arc<AtomicBool>) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if !started.load(Ordering::Relaxed) && signal != SIGHUP {
                eprintln!("postroad: stopped by {} before it was ready", signal_name(signal));
                std::process::exit(0);
            }
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Who may call the API, if that is said.
pub fn tokens(settings: &Settings) -> Result<Option<Tokens>> {
    Ok(settings.tokens_file.as_deref().map(Tokens::load).transpose()?)
}

fn start_control(settings: &Settings) -> Result<Control> {
    let listeners = Listeners { http: bound(&settings.http)?, grpc: bound(&settings.grpc)? };
    // Older generations end, all shards make ready, all commit: each has its time.
    let plugins_timeout = 3 * settings.engine.plugins.reload_timeout + Duration::from_secs(1);
    let stall_max = settings.engine.stall_max;
    let watched = postroad_control::Settings { stall_max, plugins_timeout, ..settings.control };
    Control::start(listeners, BUILD, watched).context("can't start the control plane")
}

/// Beside the log; where there is none, what is kept of messages goes with the process, too.
fn history_file(settings: &Settings) -> Option<PathBuf> {
    let is_kept = settings.engine.durability != postroad_engine::config::Durability::Memory;
    is_kept.then(|| settings.engine.data_dir.join(HISTORY_FILE))
}

fn bound(tables: &[ListenerTable]) -> Result<Vec<TcpListener>> {
    let bind = |table: &ListenerTable| {
        let bound = TcpListener::bind(table.address);
        bound.with_context(|| format!("listener {}: can't bind {}", table.name, table.address))
    };
    tables.iter().map(bind).collect()
}

/// What comes up while the server runs goes to `/ready`; ends with the engine.
fn show_notes(engine: &Handle, control: &Control) -> Result<()> {
    let (notes, control) = (engine.notes(), control.handle());
    std::thread::Builder::new().name("notes".into()).spawn(move || notes.iter().for_each(|note| control.note(note)))?;
    Ok(())
}

/// A directory that was used with `durability = "memory"` holds nothing but this file; the log would take it
/// for somebody else's directory.
fn forget_foreign_ports(data: &Path) {
    if !data.join("lock").exists() {
        let _none_there = std::fs::remove_file(data.join(PORTS_FILE));
    }
}

/// Name and port of every listener, written beside and renamed: a reader sees all of it or nothing.
fn write_ports(settings: &Settings, running: &Running, control: &Control) -> Result<String> {
    let engine = running.ports().iter().map(|port| (port.name.as_str(), port.address.port()));
    let tables = settings.http.iter().chain(&settings.grpc).zip(control.addresses());
    let control = tables.map(|(table, bound)| (table.name.as_str(), bound.port()));
    let ports: BTreeMap<&str, u16> = engine.chain(control).collect();
    let text = serde_json::to_string(&ports).context("names and numbers")?;
    let path: PathBuf = settings.engine.data_dir.join(PORTS_FILE);
    let beside = path.with_extension("json.new");
    let written = std::fs::create_dir_all(&settings.engine.data_dir)
        .and_then(|()| std::fs::write(&beside, &text))
        .and_then(|()| std::fs::rename(&beside, &path));
    written.with_context(|| format!("can't write {}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use postroad_base::ShardId;

    use super::*;

    /// A shard that answers pings until its channel closes.
    fn shard(id: u16) -> (Line, std::thread::JoinHandle<()>) {
        let (line, asked) = line();
        let thread = std::thread::spawn(move || {
            for request in asked.iter() {
                if let Request::Ping(answer) = request {
                    answer.try_send(ShardId(id)).expect("room for one answer of each");
                }
            }
        });
        (line, thread)
    }

    fn line() -> (Line, flume::Receiver<Request>) {
        let (queue, questions) = flume::bounded(4);
        (Line::new(queue, || ()), questions)
    }

    #[test]
    fn a_shard_that_takes_no_turn_is_named_and_one_that_ended_is_not() {
        let (lively, thread) = shard(0);
        let (stuck, never_read) = line();
        let (ended, receiver) = line();
        drop(receiver);
        let shards = [lively, stuck, ended];
        assert_eq!(silent_shards(&shards, Duration::from_millis(200)), [1]);
        drop((shards, never_read));
        thread.join().expect("ends with its channel");
    }

    #[test]
    fn lively_shards_need_no_patience() {
        let (lines, threads): (Vec<_>, Vec<_>) = (0..3).map(shard).unzip();
        // An hour: the test would hang if it waited for more than the answers.
        assert!(silent_shards(&lines, Duration::from_secs(3600)).is_empty());
        drop(lines);
        threads.into_iter().for_each(|thread| thread.join().expect("ends with its channel"));
    }

    /// How often it is fed, and how often the wait had an end, until it is over at the fourth look.
    fn fed(interval: Option<Duration>, until: Instant) -> (u32, u32) {
        let (feeds, mut looks, mut ends) = (std::cell::Cell::new(0), 0, 0);
        let feed = || feeds.set(feeds.get() + 1);
        feeding(interval, until, feed, |due| {
            looks += 1;
            ends += u32::from(due.is_some());
            if looks == 4 { Some(true) } else { due.is_none().then_some(false) }
        });
        (feeds.get(), ends)
    }

    /// A stop that waited for callers to read their answers was longer than the watchdog's patience, and was killed.
    #[test]
    fn the_watchdog_is_fed_while_callers_read() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(fed(Some(second), now + second * 3_600), (3, 4));
        assert_eq!(fed(Some(second * 2), now + second), (0, 0), "who hangs is not saved");
        assert_eq!(fed(None, now + second), (0, 0), "there is none");
    }
}

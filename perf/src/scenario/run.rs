//! Drives a fleet through the phases of a scenario: open, (go offline), publish, drain.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};

use crate::clock::{self, seconds};
use crate::latency::{Latency, Summary};
use crate::links::Links;
use crate::options::{Options, Phase, Scenario, resolve};
use crate::payload::Track;
use crate::probe::{self, Sample};
use crate::report::{Broker, Connections, Report, Sync, Traffic};
use crate::scenario::fleet::{Common, Counts, Fleet, Pace, Publisher, Receiver};
use crate::schedule::Schedule;
use crate::sync_probe::{Sampler, SyncReport};
use crate::wire::{self, Template};

/// Connections under way at a time, unless a rate or a storm was asked for.
const OPENING_MAX: u64 = 256;
/// Bursts sent between two looks at the sockets, when the generator is behind.
const BURSTS_PER_TURN: u32 = 64;
/// Descriptors that are no connections: standard streams, epoll, files of the report.
const SPARE_FILES: u64 = 16;

/// Runs the scenario. `print` is called with the report as soon as it is complete; `idle` and `connect --hold`
/// keep the connections open after that.
pub fn run(options: &Options, print: &mut dyn FnMut(&mut Report) -> Result<()>) -> Result<Report> {
    let mut run = Run::new(options)?;
    match options.scenario {
        Scenario::Connect => run.connect()?,
        Scenario::Idle => run.idle()?,
        Scenario::Pairs | Scenario::Fanout | Scenario::Fanin | Scenario::Share | Scenario::Mixed => run.live()?,
        Scenario::Retained => run.retained()?,
        Scenario::Offline => run.offline()?,
    }
    let mut report = run.report()?;
    print(&mut report)?;
    match options.scenario {
        Scenario::Connect => run.hold(options.hold)?,
        Scenario::Idle => run.hold(options.duration)?,
        Scenario::Retained => run.clear_retained()?,
        _ => {}
    }
    run.disconnect()?;
    Ok(report)
}

struct Run<'a> {
    options: &'a Options,
    links: Links,
    fleet: Fleet,
    wanted: u64,
    begun: u64,
    before: Option<Sample>,
    connected: Option<Sample>,
    publishing: Publishing,
    sampler: Option<Sampler>,
    sync_probe: Option<SyncReport>,
}

/// Figures of the publishing phase.
#[derive(Default)]
struct Publishing {
    ran: bool,
    start: u64,
    end: u64,
    /// The receivers come after that, from here on; else 0.
    drain_start: u64,
    cpu: u64,
    seconds: Vec<(u64, u64)>,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let target = resolve(&options.host, options.port)?;
        let fleet = build_fleet(options);
        let (receivers, publishers) = (fleet.receivers.len(), fleet.publishers.len());
        let links = receivers + publishers;
        // In a phase of its own each side is up without the other.
        let open = if options.phase == Phase::All { links } else { receivers.max(publishers) };
        let files = probe::raise_file_limit();
        if open as u64 + SPARE_FILES > files {
            bail!("{open} connections need more than the {files} files allowed; raise the hard limit");
        }
        Ok(Self {
            options,
            links: Links::new(target, options.version(), links)?,
            fleet,
            wanted: 0,
            begun: clock::now(),
            before: options.broker_pid.map(probe::sample).transpose()?,
            connected: None,
            publishing: Publishing::default(),
            sampler: None,
            sync_probe: None,
        })
    }

    fn connect(&mut self) -> Result<()> {
        let rate = self.options.connect_rate.unwrap_or(f64::INFINITY);
        self.fleet.persistent = self.options.persistent;
        self.fleet.clean_start = !self.options.persistent;
        self.open(0..self.fleet.receivers.len(), rate)
    }

    fn idle(&mut self) -> Result<()> {
        self.fleet.persistent = self.options.persistent;
        self.open(0..self.fleet.receivers.len(), self.options.connect_rate.unwrap_or(0.0))?;
        self.sample_connected()
    }

    fn live(&mut self) -> Result<()> {
        self.fleet.persistent = self.options.persistent;
        self.open(0..self.links.all.len(), self.options.connect_rate.unwrap_or(0.0))?;
        self.expect_all_up()?;
        self.sample_connected()?;
        self.publish()?;
        self.drain()
    }

    /// All is retained, then the subscribers come.
    fn retained(&mut self) -> Result<()> {
        let receivers = 0..self.fleet.receivers.len();
        let rate = self.options.connect_rate.unwrap_or(0.0);
        self.open(receivers.len()..self.links.all.len(), rate)?;
        self.expect_all_up()?;
        self.publish()?;
        self.await_acknowledgements()?;
        self.sample_connected()?; // what it took to retain them is another story
        let cpu = clock::cpu();
        self.fleet.last_arrival = clock::now();
        self.fleet.arrival_gap_max = 0;
        self.publishing.drain_start = clock::now();
        self.open(receivers, self.options.connect_rate.unwrap_or(f64::INFINITY))?;
        self.publishing.cpu = clock::cpu() - cpu;
        self.drain()
    }

    /// What a run has retained goes with it.
    fn clear_retained(&mut self) -> Result<()> {
        let topics = 0..self.fleet.quota;
        let empty =
            topics.map(|topic| Template::retained(self.options.version(), &retained_topic(self.options, topic), 1, 0));
        self.fleet.publishers[0].restart(empty.collect());
        self.fleet.receivers.iter_mut().for_each(|receiver| receiver.tracks.clear()); // what comes is another story
        let sent = self.fleet.counts.sent;
        self.fleet.pace = Some(Pace::Closed(u64::from(self.options.inflight.unwrap_or(1).max(100))));
        self.fleet.stop_at = u64::MAX;
        self.fleet.hungry = vec![0];
        let publisher = self.fleet.publisher_link(0);
        let mut last = (sent, clock::now());
        while !self.fleet.all_sent() {
            self.feed_hungry();
            self.links.turn(clock::now() + seconds(0.01), &mut self.fleet)?;
            if self.fleet.counts.sent > last.0 {
                last = (self.fleet.counts.sent, clock::now());
            }
            if !self.links.all[publisher].is_open() || clock::now() > last.1 + seconds(self.options.timeout) {
                bail!("{} of {} topics were cleared", self.fleet.counts.sent - sent, self.fleet.quota);
            }
        }
        self.fleet.pace = None;
        self.await_acknowledgements()
    }

    fn offline(&mut self) -> Result<()> {
        let receivers = 0..self.fleet.receivers.len();
        let rate = self.options.connect_rate.unwrap_or(0.0);
        self.fleet.persistent = true;
        if self.options.phase != Phase::Drain {
            self.open(receivers.clone(), rate)?;
            self.expect_all_up()?;
            self.go_offline(receivers.len())?;
            self.open(receivers.len()..self.links.all.len(), rate)?;
            self.expect_all_up()?;
            self.sample_connected()?;
            self.publish()?;
            self.await_acknowledgements()?;
        }
        if self.options.phase != Phase::Fill {
            self.fleet.clean_start = false;
            self.fleet.subscribe = false;
            let cpu = clock::cpu();
            let start = clock::now();
            if self.options.phase == Phase::Drain {
                self.fleet.from_turn = true;
                self.publishing.start = start;
                self.fleet.publishers.iter_mut().for_each(|publisher| publisher.sent = self.fleet.quota);
            }
            self.fleet.last_arrival = start;
            self.fleet.arrival_gap_max = 0;
            self.open(receivers, rate)?;
            self.drain()?;
            if self.options.phase == Phase::Drain {
                self.publishing.cpu = clock::cpu() - cpu;
            }
        }
        Ok(())
    }

    /// Opens these links: all at once (infinite rate), at a rate, or (0) a few at a time. Returns when each is up,
    /// refused or lost, or when time is out.
    fn open(&mut self, ids: std::ops::Range<usize>, rate: f64) -> Result<()> {
        let start = clock::now();
        let (first, count) = (ids.start, ids.len() as u64);
        let before = settled(&self.fleet.counts);
        let stop_waiting = |opened: u64| start + seconds(opened as f64 / rate.max(1.0)) + seconds(self.options.timeout);
        self.wanted += count;
        let mut opened = 0;
        loop {
            let done = settled(&self.fleet.counts) - before;
            let now = clock::now();
            if done >= count || now >= stop_waiting(opened) {
                return Ok(());
            }
            let due = match rate {
                0.0 => done + OPENING_MAX,
                rate if rate.is_infinite() => count,
                rate => ((now - start) as f64 / 1e9 * rate) as u64 + 1,
            };
            let batch_end = opened + 200;
            while opened < due.min(count).min(batch_end) {
                let id = first + opened as usize;
                let turn_at = if rate > 0.0 { start + seconds(opened as f64 / rate) } else { now };
                self.fleet.opening(id, turn_at);
                self.links.open(id).context("cannot open a connection")?;
                opened += 1;
            }
            let wait = if opened < due.min(count) { 0 } else { now + seconds(0.001) };
            self.links.turn(wait, &mut self.fleet)?;
        }
    }

    fn expect_all_up(&self) -> Result<()> {
        let counts = &self.fleet.counts;
        if counts.subscribe_failed > 0 {
            bail!("{} subscriptions were refused", counts.subscribe_failed);
        }
        if counts.up < self.wanted {
            bail!(
                "{} of {} connections came up (refused {:?}, tcp refused {}, lost {}); see --timeout, --connect-rate",
                counts.up,
                self.wanted,
                counts.refused,
                counts.tcp_refused,
                counts.lost_before + counts.lost_after
            );
        }
        Ok(())
    }

    fn sample_connected(&mut self) -> Result<()> {
        if let Some(pid) = self.options.broker_pid {
            let settle = clock::now() + seconds(1.0); // lets the broker finish what connecting began
            self.hold_until(settle)?;
            self.connected = Some(probe::sample(pid)?);
        }
        Ok(())
    }

    fn go_offline(&mut self, receivers: usize) -> Result<()> {
        let target = self.fleet.counts.closed_here + receivers as u64;
        for id in 0..receivers {
            let link = &mut self.links.all[id];
            link.out.extend(wire::DISCONNECT);
            link.close_after_writing();
            self.links.flush(id, &mut self.fleet);
        }
        let deadline = clock::now() + seconds(self.options.timeout);
        while self.fleet.counts.closed_here < target && clock::now() < deadline {
            self.links.turn(clock::now() + seconds(0.01), &mut self.fleet)?;
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        let probe = self.options.sync_probe.as_deref();
        self.sampler = probe.map(|dir| Sampler::start(dir, self.options.sync_probe_bytes)).transpose()?;
        let start = clock::now() + seconds(0.01);
        let cpu = clock::cpu();
        self.begin_publishing(start);
        let mut next_second = start + seconds(1.0);
        let mut burst = 0;
        while clock::now() < self.fleet.stop_at && !self.fleet.all_sent() {
            let due = self.send_due(&mut burst);
            self.feed_hungry();
            let due = if self.fleet.hungry.is_empty() { due } else { 0 };
            let now = clock::now();
            if now >= next_second {
                next_second += seconds(1.0);
                self.tick();
            }
            self.links.turn(due.min(next_second).min(self.fleet.stop_at), &mut self.fleet)?;
            if self.fleet.counts.lost_after > 0 {
                break; // the verdict is clear, and nobody would send the rest
            }
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        self.publishing.end = clock::now();
        self.publishing.cpu = clock::cpu() - cpu;
        self.sync_probe = self.sampler.take().map(Sampler::stop).transpose()?;
        Ok(())
    }

    fn begin_publishing(&mut self, start: u64) {
        let options = self.options;
        let fleet = &mut self.fleet;
        let publishers = fleet.publishers.len() as u64;
        fleet.burst = u64::from(options.burst);
        fleet.stop_at = options.messages.map_or(start + seconds(options.duration), |_| u64::MAX);
        fleet.warm_at = start + seconds(options.warmup);
        fleet.last_arrival = start;
        fleet.arrival_gap_max = 0;
        fleet.pace = Some(match (options.rate, options.inflight) {
            (Some(rate), _) => Pace::Open(Schedule { start, rate, burst: fleet.burst, publishers }),
            (None, limit) => Pace::Closed(u64::from(limit.unwrap_or(1))),
        });
        if let Some(Pace::Closed(_)) = fleet.pace {
            fleet.hungry = (0..fleet.publishers.len()).collect();
        }
        self.publishing = Publishing { ran: true, start, seconds: vec![self.progress()], ..Publishing::default() };
    }

    /// Open loop: sends the bursts that are due; when to look again.
    fn send_due(&mut self, burst: &mut u64) -> u64 {
        let Some(Pace::Open(schedule)) = self.fleet.pace else { return u64::MAX };
        for _ in 0..BURSTS_PER_TURN {
            let due = schedule.burst_time(*burst);
            if due > clock::now() {
                return due;
            }
            let publisher = (*burst % schedule.publishers) as usize;
            self.fleet.publishers[publisher].due += schedule.burst;
            self.pump(publisher);
            *burst += 1;
        }
        0
    }

    /// Closed loop: publishers that may send although nothing arrived on their own links. Each sends one burst by one
    /// write, and stands here again if it may send more.
    fn feed_hungry(&mut self) {
        for _ in 0..BURSTS_PER_TURN {
            let mut hungry = std::mem::take(&mut self.fleet.hungry);
            for &publisher in &hungry {
                self.pump(publisher);
            }
            hungry.clear();
            if self.fleet.hungry.is_empty() {
                self.fleet.hungry = hungry; // keeps the allocation
                return;
            }
        }
    }

    fn pump(&mut self, publisher: usize) {
        let id = self.fleet.publisher_link(publisher);
        self.fleet.pump(publisher, &mut self.links.all[id], clock::now());
        self.links.flush(id, &mut self.fleet);
    }

    /// Once a second.
    fn tick(&mut self) {
        self.publishing.seconds.push(self.progress());
        self.ping();
        if self.options.inflight.is_some() {
            self.fleet.write_off_stalled();
        }
        self.show_progress();
    }

    /// A line that replaces the last one, where somebody looks.
    fn show_progress(&self) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let counts = &self.fleet.counts;
        let passed = clock::now().saturating_sub(self.publishing.start) as f64 / 1e9;
        let part = match self.options.messages {
            Some(messages) => counts.sent as f64 / messages.max(1) as f64,
            None => passed / self.options.duration.max(0.1),
        };
        let filled = (part.clamp(0.0, 1.0) * 30.0) as usize;
        let (sent, received) = (counts.sent, counts.received);
        eprint!("\r[{:30}] {passed:4.0} s  sent {sent}, received {received}\x1b[K", "#".repeat(filled));
    }

    fn ping(&mut self) {
        let half = seconds(f64::from(self.options.keep_alive) / 2.0);
        if let Some(before) = clock::now().checked_sub(half).filter(|_| half > 0) {
            self.links.ping(before, &mut self.fleet);
        }
    }

    /// Acknowledged (QoS 0: sent) and received so far.
    fn progress(&self) -> (u64, u64) {
        let counts = &self.fleet.counts;
        (counts.acknowledged + counts.sent - counts.to_complete, counts.received)
    }

    fn await_acknowledgements(&mut self) -> Result<()> {
        self.wait_while(|fleet| fleet.counts.completed < fleet.counts.to_complete, |fleet| fleet.counts.completed)
    }

    /// Waits until everybody has everything, or nothing has come for too long.
    fn drain(&mut self) -> Result<()> {
        let cpu = clock::cpu();
        self.fleet.pace = None;
        let target = expected(&self.fleet);
        self.wait_while(
            |fleet| fleet.counts.received < target || fleet.counts.completed < fleet.counts.to_complete,
            |fleet| fleet.counts.received + fleet.counts.completed,
        )?;
        self.publishing.cpu += clock::cpu() - cpu;
        Ok(())
    }

    fn wait_while(&mut self, unfinished: impl Fn(&Fleet) -> bool, progress: impl Fn(&Fleet) -> u64) -> Result<()> {
        let all_may_be_lost = self.fleet.publishers.iter().all(|publisher| publisher.qos() == 0);
        let patience = if all_may_be_lost { self.options.timeout.min(2.0) } else { self.options.timeout };
        let mut last = (progress(&self.fleet), clock::now());
        while unfinished(&self.fleet) {
            let now = clock::now();
            let made = progress(&self.fleet);
            if made != last.0 {
                last = (made, now);
            } else if now > last.1 + seconds(patience) {
                break;
            }
            self.links.turn(now + seconds(0.01), &mut self.fleet)?;
        }
        Ok(())
    }

    fn hold(&mut self, time: f64) -> Result<()> {
        self.hold_until(clock::now() + seconds(time))
    }

    fn hold_until(&mut self, deadline: u64) -> Result<()> {
        let mut next_ping = 0;
        while clock::now() < deadline {
            if clock::now() >= next_ping {
                self.ping();
                next_ping = clock::now() + seconds(1.0);
            }
            self.links.turn(deadline.min(clock::now() + seconds(1.0)), &mut self.fleet)?;
        }
        Ok(())
    }

    fn disconnect(&mut self) -> Result<()> {
        for id in 0..self.links.all.len() {
            let link = &mut self.links.all[id];
            if link.is_open() {
                link.out.extend(wire::DISCONNECT);
                link.close_after_writing();
                self.links.flush(id, &mut self.fleet);
            }
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let mut report = Report { connections: self.connections(), ..Report::default() };
        if self.publishing.ran || self.options.scenario == Scenario::Offline {
            report.traffic = Some(self.traffic());
        }
        if let Some(pid) = self.options.broker_pid {
            report.broker = self.broker(probe::sample(pid)?, &report);
        }
        report.sync = self.sync_probe.clone().map(|probe| {
            let p99_us = self.fleet.acknowledge.summary().p99_us;
            Sync {
                p99_to_p50: p99_us / probe.append.p50_us,
                p99_to_p99: p99_us / probe.append.p99_us,
                p99_to_p99_from_due: p99_us / probe.append_from_due.p99_us,
                probe,
            }
        });
        report.faults = faults(&report);
        Ok(report)
    }

    fn connections(&self) -> Connections {
        let counts = &self.fleet.counts;
        let refused: u64 = counts.refused.values().sum();
        Connections {
            wanted: self.wanted,
            accepted: counts.accepted,
            session_present: counts.session_present,
            refused: counts.refused.clone(),
            tcp_refused: counts.tcp_refused,
            lost_before_connack: counts.lost_before,
            lost_after_connack: counts.lost_after,
            unanswered: self.wanted - (counts.accepted + refused + counts.tcp_refused + counts.lost_before),
            seconds_to_last: self.fleet.last_connack.saturating_sub(self.begun) as f64 / 1e9,
            connack: some(&self.fleet.connack),
        }
    }

    fn traffic(&self) -> Traffic {
        let (fleet, counts, publishing) = (&self.fleet, &self.fleet.counts, &self.publishing);
        let seconds_of = |from: u64, to: u64| (to.saturating_sub(from) as f64 / 1e9).max(1e-9);
        let least =
            |of: fn(&(u64, u64)) -> u64| publishing.seconds.windows(2).map(|pair| of(&pair[1]) - of(&pair[0])).min();
        let filling = self.options.scenario == Scenario::Offline && self.options.phase == Phase::Fill;
        Traffic {
            sent: counts.sent,
            acknowledged: counts.acknowledged,
            acknowledged_with_error: counts.acknowledged_with_error,
            received: counts.received,
            missing: if filling { 0 } else { missing(fleet, 0) },
            missing_acknowledged: if filling { 0 } else { missing(fleet, 1) },
            repeated: counts.repeated,
            repeated_exactly_once: counts.repeated_exactly_once,
            downgraded: counts.downgraded,
            out_of_order: counts.late,
            foreign: counts.foreign,
            written_off: counts.written_off,
            sent_per_second: counts.sent as f64 / seconds_of(publishing.start, publishing.end),
            received_per_second: counts.received as f64
                / seconds_of(publishing.start.max(publishing.drain_start), fleet.last_arrival),
            second_min_acknowledged: least(|&(acknowledged, _)| acknowledged),
            second_min_received: least(|&(_, received)| received),
            arrival_gap_max_ms: fleet.arrival_gap_max as f64 / 1e6,
            acknowledge: some(&fleet.acknowledge),
            end_to_end: some(&fleet.end_to_end),
            send_lag: some(&fleet.send_lag),
            generator_cpu_us: publishing.cpu as f64 / 1e3 / (counts.sent + counts.received).max(1) as f64,
        }
    }

    fn broker(&self, after: Sample, report: &Report) -> Option<Broker> {
        let before = self.before?;
        let connections = report.connections.accepted.max(1) as f64;
        let up = self.connected.unwrap_or(after);
        let delivered = report.traffic.as_ref().map_or(0, |traffic| traffic.received);
        let growth = up.rss_bytes as f64 - before.rss_bytes as f64;
        Some(Broker {
            before,
            connected: self.connected,
            after,
            // Retained: one connection is up when it is looked at.
            rss_per_connection: (self.options.scenario != Scenario::Retained).then_some(growth / connections),
            cpu_us_per_connection: Some((up.cpu_seconds - before.cpu_seconds) * 1e6 / connections),
            cpu_us_per_delivered: (delivered > 0)
                .then(|| (after.cpu_seconds - up.cpu_seconds) * 1e6 / delivered as f64),
        })
    }
}

/// Clients of the scenario: topics, filters, who hears whom.
fn build_fleet(options: &Options) -> Fleet {
    let count = options.count;
    let (receivers, publishers) = match options.scenario {
        Scenario::Connect | Scenario::Idle => (count, 0),
        Scenario::Pairs | Scenario::Offline | Scenario::Mixed => (count, count),
        Scenario::Fanout | Scenario::Retained => (count, 1),
        Scenario::Fanin => (1, count),
        Scenario::Share => (options.members.unwrap_or(count), count),
    };
    let qos_of = |number: u32| if options.scenario == Scenario::Mixed { (number % 3) as u8 } else { options.qos };
    let prefix = &options.client_prefix;
    let topic = |number: u32| format!("{prefix}/{number}");
    let receiver = |number: u32| match options.scenario {
        Scenario::Connect if !options.subscribe => Receiver::new(None, options.qos, 0, 0),
        Scenario::Connect | Scenario::Idle => Receiver::new(Some(topic(number)), options.qos, 0, 0),
        Scenario::Pairs | Scenario::Offline | Scenario::Mixed => {
            Receiver::new(Some(topic(number)), qos_of(number), number, 1)
        }
        Scenario::Fanout => Receiver::new(Some(topic(0)), options.qos, 0, 1),
        Scenario::Fanin => Receiver::new(Some(format!("{prefix}/+")), options.qos, 0, count),
        Scenario::Share => Receiver::member(format!("$share/bench/{prefix}/+"), options.qos, count),
        Scenario::Retained => Receiver::of_retained(format!("{prefix}/retained/#"), options.qos),
    };
    let publisher = |number: u32| {
        let large = options.scenario == Scenario::Mixed && number % 5 == 4;
        let payload = if large { 8 * options.payload } else { options.payload };
        let templates = match (options.scenario, options.messages) {
            (Scenario::Retained, Some(topics)) => {
                let of = |number| {
                    Template::retained(options.version(), &retained_topic(options, number), options.qos, payload)
                };
                (0..topics).map(of).collect()
            }
            _ if options.deliver_after.is_some() => vec![Template::scheduled(&topic(number), qos_of(number), payload)],
            _ => vec![Template::new(options.version(), &topic(number), qos_of(number), payload)],
        };
        Publisher::new(templates, number, options.inflight.unwrap_or(options.window))
    };
    let common = Common {
        version: options.version(),
        run: run_id(options),
        prefix: prefix.clone(),
        keep_alive: options.keep_alive,
        login: options.user.clone().map(|user| (user, options.password.clone().unwrap_or_default())),
    };
    let mut fleet =
        Fleet::new(common, (0..receivers).map(receiver).collect(), (0..publishers).map(publisher).collect());
    fleet.deliver_after = options.deliver_after.map(seconds);
    fleet.second_copies = options.second_copies.map(seconds);
    match options.scenario {
        Scenario::Share => fleet.group = vec![Track::default(); count as usize],
        Scenario::Fanout => fleet.copies = u64::from(count),
        _ => {}
    }
    if let Some(messages) = options.messages {
        fleet.quota = messages.div_ceil(u64::from(publishers.max(1)));
    }
    fleet
}

fn retained_topic(options: &Options, number: u64) -> String {
    format!("{}/retained/{number}", options.client_prefix)
}

fn run_id(options: &Options) -> u32 {
    let by_time = (clock::now() / 1_000) as u32;
    options.run_id.unwrap_or(if options.phase == Phase::All { by_time } else { 1 })
}

/// The figures, if anything was counted.
fn some(latency: &Latency) -> Option<Summary> {
    Some(latency.summary()).filter(|summary| summary.count > 0)
}

/// Connections whose opening has come to an end, good or bad.
fn settled(counts: &Counts) -> u64 {
    counts.up + counts.refused.values().sum::<u64>() + counts.tcp_refused + counts.lost_before + counts.lost_after
}

/// Who should have got whose messages: each track with its publisher.
fn tracks(fleet: &Fleet) -> impl Iterator<Item = (&Track, &Publisher)> {
    let of = |receiver: &'_ Receiver| (receiver.first_publisher as usize).min(fleet.publishers.len());
    let heard =
        fleet.receivers.iter().flat_map(move |receiver| receiver.tracks.iter().zip(&fleet.publishers[of(receiver)..]));
    heard.chain(fleet.group.iter().zip(&fleet.publishers))
}

/// Messages that receivers should have by now, all together.
fn expected(fleet: &Fleet) -> u64 {
    tracks(fleet).map(|(_, publisher)| publisher.sent).sum()
}

/// Those that have not come, of publishers of this QoS or above.
fn missing(fleet: &Fleet, qos: u8) -> u64 {
    let counts = tracks(fleet).filter(|(_, publisher)| publisher.qos() >= qos);
    counts.map(|(track, publisher)| track.missing(publisher.sent)).sum()
}

/// What makes the exit code 1. At QoS 0 loss is allowed; at QoS 1 repeats are.
fn faults(report: &Report) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |count: u64, what: &str| {
        if count > 0 {
            faults.push(format!("{count} {what}"));
        }
    };
    let connections = &report.connections;
    check(connections.wanted - connections.accepted, "connections without CONNACK 0");
    check(connections.lost_after_connack, "connections lost after CONNACK");
    if let Some(traffic) = &report.traffic {
        check(traffic.missing_acknowledged, "messages missing");
        check(traffic.acknowledged_with_error, "messages refused");
        check(traffic.repeated_exactly_once, "messages repeated at QoS 2");
        check(traffic.downgraded, "messages at a lower QoS than asked for");
        check(traffic.out_of_order, "messages out of order");
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As after a run of this QoS.
    fn report(qos: u8, missing: u64, repeated: u64, out_of_order: u64) -> Report {
        let traffic = Traffic {
            missing,
            missing_acknowledged: if qos > 0 { missing } else { 0 },
            repeated,
            repeated_exactly_once: if qos == 2 { repeated } else { 0 },
            out_of_order,
            ..Traffic::default()
        };
        let connections = Connections { wanted: 2, accepted: 2, ..Connections::default() };
        Report { traffic: Some(traffic), connections, ..Report::default() }
    }

    #[test]
    fn each_qos_has_its_faults() {
        assert!(faults(&report(0, 5, 5, 0)).is_empty());
        assert_eq!(faults(&report(1, 5, 5, 0)), ["5 messages missing"]);
        assert_eq!(faults(&report(2, 0, 5, 0)), ["5 messages repeated at QoS 2"]);
        let traffic = Some(Traffic { downgraded: 1, ..Traffic::default() });
        assert_eq!(faults(&Report { traffic, ..report(1, 0, 0, 0) }), ["1 messages at a lower QoS than asked for"]);
        for qos in 0..=2 {
            assert_eq!(faults(&report(qos, 0, 0, 1)), ["1 messages out of order"]);
        }
    }

    #[test]
    fn a_refused_connection_is_a_fault() {
        let mut report = report(0, 0, 0, 0);
        report.connections.accepted = 1;
        assert_eq!(faults(&report), ["1 connections without CONNACK 0"]);
    }
}

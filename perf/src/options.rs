//! Command line, and what of it makes no sense.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::disturb::DisturbOptions;
use crate::flamegraph::FlamegraphOptions;
use crate::loopback::LoopbackOptions;
use crate::null_server::NullServerOptions;
use crate::payload::STAMP_BYTES;
use crate::plot::PlotOptions;
use crate::stalls::StallsOptions;
use crate::summary::SummarizeOptions;
use crate::sync_probe::{SyncProbeOptions, check_bytes};
use crate::wire::Version;

/// Load generator for any MQTT broker.
#[derive(Parser, Clone, Debug)]
#[command(name = "postroad-bench", version, args_override_self = true)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What is no load.
    #[command(subcommand)]
    pub tool: Option<Tool>,
    /// A load.
    #[command(flatten)]
    pub load: Option<Options>,
}

/// What stands beside a load, before it, or after it.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Measure an append with its fdatasync on a disk, without any broker.
    SyncProbe(SyncProbeOptions),
    /// Measure what the machine withholds from a thread that only reads the clock.
    Stalls(StallsOptions),
    /// Measure what the kernel takes for bursts over the loopback, without any broker.
    Loopback(LoopbackOptions),
    /// Serve as little as MQTT allows, to see what a load costs the generator itself.
    NullServer(NullServerOptions),
    /// Misbehave towards a broker, beside a load of another process.
    Disturb(DisturbOptions),
    /// Draw figures as SVG.
    Plot(PlotOptions),
    /// Draw a flame graph of what `perf script` has printed.
    Flamegraph(FlamegraphOptions),
    /// Medians of repeated runs, as a Markdown table.
    Summarize(SummarizeOptions),
}

/// Topics of the scenario `retained`: each has a prepared packet.
const RETAINED_MAX: u64 = 1_000_000;

/// The first address of that name.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs().with_context(|| format!("cannot resolve {host}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

/// A load.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to do.
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Address of the broker; from 127.x.x.x, connections spread over 127.0.0.1, 127.0.0.2, …
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
    /// QoS of publishers and subscribers.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Speak MQTT 5 instead of 3.1.1.
    #[arg(long)]
    pub v5: bool,
    /// Connections, pairs, subscribers (fanout, offline, retained), publishers (fanin, share).
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// share: members of the subscription. Default: as many as publishers.
    #[arg(long)]
    pub members: Option<u32>,
    /// Bytes of a payload, of which 24 are the stamp. mixed: each fifth pair has eight times as many.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
    /// Open loop: messages per second of all publishers together.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Closed loop: unacknowledged (QoS 0: undelivered) messages per publisher.
    #[arg(long)]
    pub inflight: Option<u16>,
    /// Open loop: most unacknowledged messages per publisher; what is due beyond waits, and its latency runs.
    #[arg(long, default_value_t = 1024)]
    pub window: u16,
    /// Messages per write; more than one burst leaves in a write only where the socket was full.
    #[arg(long, default_value_t = 1)]
    pub burst: u16,
    /// Seconds of publishing (warm-up included), or of holding idle connections.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds at the start whose latencies are not counted.
    #[arg(long, default_value_t = 0.0)]
    pub warmup: f64,
    /// Stop after this many messages, all publishers together (rounded up to the same number for each). retained: topics.
    #[arg(long)]
    pub messages: Option<u64>,
    /// Subscribers (connect: all clients) have sessions that outlive their connections, under stable ids.
    #[arg(long)]
    pub persistent: bool,
    /// pairs: the server is to publish each message so many seconds after it is sent (postroad's deliver-at; needs --v5). End to end is
    /// then from that moment: how late it comes.
    #[arg(long)]
    pub deliver_after: Option<f64>,
    /// pairs, QoS 1, MQTT 3.1.1: receivers acknowledge only what comes again, which is due so many seconds after the first copy. End to
    /// end is then from that moment: how late it comes again.
    #[arg(long)]
    pub second_copies: Option<f64>,
    /// Connections per second; without it `connect` opens all at once, other scenarios 256 at a time.
    #[arg(long)]
    pub connect_rate: Option<f64>,
    /// connect: hold the connections for so many seconds after the last one is up.
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// connect: each client also subscribes, to a topic of its own.
    #[arg(long)]
    pub subscribe: bool,
    /// offline: only fill the queues, or only drain what a `fill` of equal options left (restart in between).
    #[arg(long, value_enum, default_value_t = Phase::All)]
    pub phase: Phase,
    /// Client ids and topics begin so.
    #[arg(long, default_value = "bench")]
    pub client_prefix: String,
    /// Marks this run's payloads; others are counted as foreign. Default: the time; for `--phase fill|drain`: 1.
    #[arg(long)]
    pub run_id: Option<u32>,
    #[arg(long)]
    pub user: Option<String>,
    #[arg(long, requires = "user")]
    pub password: Option<String>,
    /// Seconds; 0 = none.
    #[arg(long, default_value_t = 600)]
    pub keep_alive: u16,
    /// Seconds to wait for connections, and for the next message while draining.
    #[arg(long, default_value_t = 30.0)]
    pub timeout: f64,
    /// Process whose CPU time and memory to report.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// Meanwhile measure an append with its fdatasync in this directory, four times per second.
    #[arg(long)]
    pub sync_probe: Option<PathBuf>,
    /// Bytes of such an append, a multiple of 4096.
    #[arg(long, default_value_t = 4096)]
    pub sync_probe_bytes: usize,
    /// Also write the report here.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Exit with 0 in spite of loss, re-ordering or repeats at QoS 1 and 2.
    #[arg(long)]
    pub tolerate_loss: bool,
}

/// What to do.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Storm of connections: time to each CONNACK.
    Connect,
    /// Connections with one subscription each, held: memory per connection.
    Idle,
    /// N publishers to N subscribers, one to one.
    Pairs,
    /// One publisher to N subscribers.
    Fanout,
    /// N publishers to one subscriber.
    Fanin,
    /// N publishers to N offline persistent sessions, which then come back and drain.
    Offline,
    /// N publishers to the members of one shared subscription: each message to one of them.
    Share,
    /// N subscribers that come at once to what is retained: each gets all of it.
    Retained,
    /// N publishers to N subscribers, QoS 0, 1 and 2 in turn, small and large payloads.
    Mixed,
}

/// Part of the offline scenario.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Subscribe, fill, drain.
    All,
    /// Subscribe, fill.
    Fill,
    /// Drain.
    Drain,
}

impl Options {
    /// Refuses what makes no sense, in words that say what to change.
    pub fn check(&self) -> Result<()> {
        let traffic = !matches!(self.scenario, Scenario::Connect | Scenario::Idle);
        if self.payload < STAMP_BYTES || self.payload > 200_000_000 {
            bail!("--payload {} is outside {STAMP_BYTES}..=200000000", self.payload);
        }
        if self.scenario == Scenario::Mixed && self.payload > 25_000_000 {
            bail!("mixed has payloads of eight times --payload, which {} is too much for", self.payload);
        }
        if self.count == 0 || self.burst == 0 || self.window == 0 || self.inflight == Some(0) {
            bail!("--count, --burst, --window and --inflight must be at least 1");
        }
        for (name, value) in [("--rate", self.rate), ("--connect-rate", self.connect_rate)] {
            if value.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
                bail!("{name} must be above 0");
            }
        }
        for (name, value) in [("--duration", self.duration), ("--warmup", self.warmup), ("--timeout", self.timeout)] {
            if !(0.0..=1e6).contains(&value) {
                bail!("{name} {value} is outside 0..=1000000 seconds");
            }
        }
        check_bytes(self.sync_probe_bytes).context("--sync-probe-bytes")?;
        if self.rate.is_some() && self.inflight.is_some() {
            bail!("--rate (open loop) and --inflight (closed loop) exclude each other");
        }
        if traffic && self.rate.is_none() && self.inflight.is_none() && self.phase != Phase::Drain {
            bail!("name --rate (open loop) or --inflight (closed loop)");
        }
        if self.scenario == Scenario::Offline && (self.messages.is_none() || self.qos == 0) {
            bail!("offline needs --messages, and --qos 1 or 2: a broker need not store QoS 0");
        }
        let retains = self.scenario == Scenario::Retained;
        if retains
            && (self.messages.is_none_or(|topics| topics == 0 || topics > RETAINED_MAX)
                || self.inflight.is_none()
                || self.qos == 0)
        {
            bail!("retained needs --messages (topics, up to {RETAINED_MAX}), --inflight, and --qos 1 or 2");
        }
        if self.members.is_some() && self.scenario != Scenario::Share || self.members == Some(0) {
            bail!("--members is for the scenario share, and at least 1");
        }
        for (name, value) in [("--deliver-after", self.deliver_after), ("--second-copies", self.second_copies)] {
            if value.is_some_and(|after| !(0.0..self.timeout).contains(&after)) {
                bail!("{name} must be at least 0, and below --timeout: so long is waited for what comes next");
            }
        }
        let is_pairs = self.scenario == Scenario::Pairs;
        if self.deliver_after.is_some() && !(is_pairs && self.v5 && self.qos > 0) {
            bail!("--deliver-after is for the scenario pairs, with --v5 and --qos 1 or 2");
        }
        if self.second_copies.is_some() && (!is_pairs || self.v5 || self.qos != 1) {
            bail!(
                "--second-copies is for the scenario pairs, with --qos 1 and without --v5, which forbids a second copy"
            );
        }
        if self.phase != Phase::All && self.scenario != Scenario::Offline {
            bail!("--phase is for the scenario offline");
        }
        if self.client_prefix.len() > 1_000 || self.client_prefix.contains(['+', '#', '\0']) {
            bail!("--client-prefix must be a valid start of a topic, at most 1000 bytes");
        }
        Ok(())
    }

    /// Protocol version.
    pub fn version(&self) -> Version {
        if self.v5 { Version::V5 } else { Version::V4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Options, String> {
        let words = std::iter::once("postroad-bench").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let options = cli.load.ok_or("no load")?;
        options.check().map_err(|error| format!("{error:#}"))?;
        Ok(options)
    }

    fn tool(line: &str) -> Result<Tool, String> {
        let words = std::iter::once("postroad-bench").chain(line.split_whitespace());
        let tool = Cli::try_parse_from(words).map_err(|error| error.to_string())?.tool.ok_or("no tool")?;
        match &tool {
            Tool::SyncProbe(options) => options.check(),
            Tool::Stalls(options) => options.check(),
            Tool::Loopback(options) => options.check(),
            Tool::NullServer(_) | Tool::Flamegraph(_) => Ok(()),
            Tool::Disturb(options) => options.check(),
            Tool::Plot(options) => options.check(),
            Tool::Summarize(options) => options.check(),
        }
        .map_err(|error| format!("{error:#}"))?;
        Ok(tool)
    }

    #[test]
    fn every_scenario_parses() {
        for line in [
            "connect --count 15000 --persistent",
            "idle --count 15000 --broker-pid 1 --duration 60",
            "pairs --count 50 --qos 1 --rate 100000 --burst 20 --v5 --persistent --warmup 2",
            "fanout --count 1000 --payload 64 --inflight 10",
            "fanin --count 50 --qos 2 --rate 1000 --messages 5000 --json out.json",
            "offline --count 1000 --qos 1 --messages 1000000 --inflight 100 --phase fill",
            "offline --count 1000 --qos 1 --messages 1000000 --phase drain",
            "share --count 10 --members 100 --qos 1 --inflight 50",
            "retained --count 100 --messages 10000 --qos 1 --inflight 100",
            "mixed --count 30 --rate 10000",
            "pairs --count 10 --qos 1 --v5 --rate 1000 --deliver-after 2",
            "pairs --count 10 --qos 1 --rate 1000 --second-copies 0.5",
            "pairs --count 50 --qos 1 --rate 1000 --sync-probe target --sync-probe-bytes 16384",
            "--duration 3 pairs --rate 1000 --port 1884 --duration 5",
        ] {
            check(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (line, reason) in [
            ("pairs", "name --rate"),
            ("pairs --rate 1 --inflight 1", "exclude each other"),
            ("pairs --rate 0", "--rate must be above 0"),
            ("pairs --rate NaN", "--rate must be above 0"),
            ("pairs --rate 1 --payload 23", "outside 24"),
            ("pairs --rate 1 --qos 3", "3 is not in 0..=2"),
            ("pairs --rate 1 --count 0", "at least 1"),
            ("pairs --rate 1 --phase fill", "for the scenario offline"),
            ("offline --rate 1 --messages 5", "need not store QoS 0"),
            ("fanout --rate 1 --client-prefix a/+", "valid start of a topic"),
            ("pairs --rate 1 --members 2", "for the scenario share"),
            ("share --rate 1 --members 0", "at least 1"),
            ("retained --inflight 1 --qos 1", "needs --messages"),
            ("retained --inflight 1 --qos 1 --messages 0", "needs --messages"),
            ("mixed --rate 1 --payload 30000000", "eight times"),
            ("retained --rate 1 --messages 5 --qos 1", "--inflight, and"),
            ("pairs --rate 1 --sync-probe . --sync-probe-bytes 100", "multiple of 4096"),
            ("pairs --rate 1 --qos 1 --v5 --deliver-after 31", "below --timeout"),
            ("pairs --rate 1 --qos 1 --deliver-after 1", "with --v5"),
            ("fanin --rate 1 --qos 1 --v5 --deliver-after 1", "scenario pairs"),
            ("pairs --rate 1 --qos 1 --v5 --second-copies 1", "without --v5"),
            ("dance", "invalid value"),
            ("", "required"),
        ] {
            let error = check(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn the_last_of_two_values_counts() {
        let options = check("--duration 3 pairs --rate 1000 --duration 5").unwrap();
        assert_eq!((options.duration, options.port), (5.0, 1883));
    }

    #[test]
    fn tools_parse() {
        for line in [
            "sync-probe --dir target",
            "sync-probe --dir target --bytes 32768 --seconds 2 --rate 50 --json out.json",
            "disturb garbage --port 1884 --rate 200 --duration 5 --seed 7",
            "disturb half-open --count 1000",
            "disturb stalled-reader --count 10 --filter bench/# --qos 1",
            "disturb flood --count 4 --payload 512",
            "summarize a.1.json a.2.json",
            "summarize --against mosquitto --columns /broker/cpu_us_per_delivered=CPU a.1.json",
            "summarize --criterion target/criterion",
        ] {
            tool(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn tools_refuse_nonsense_with_its_reason() {
        for (line, reason) in [
            ("sync-probe", "--dir"),
            ("sync-probe --dir . --bytes 512", "multiple of 4096"),
            ("sync-probe --dir . --seconds 0", "outside 0..="),
            ("sync-probe --dir . --rate 0", "--rate must be above 0"),
            ("disturb", "required"),
            ("disturb dance", "invalid value"),
            ("disturb flood --count 0", "at least 1"),
            ("disturb garbage --rate 0", "--rate must be above 0"),
            ("disturb stalled-reader --qos 3", "3 is not in 0..=2"),
            ("summarize", "name files"),
            ("summarize --columns cpu a.json", "begins with /"),
        ] {
            let error = tool(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}

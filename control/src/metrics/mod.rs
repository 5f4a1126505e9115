//! The Prometheus text format: names with units, no label per client.
//!
//! One table row per metric of a shard; whoever adds a field to [`ShardReport`] adds a row here.

mod plugins;

use std::fmt::{Display, Write};

use postroad_base::ShardId;

use crate::history::HistoryFigures;
use crate::plugins::PluginsFigures;
use crate::process::ProcessReport;
use crate::report::{Histogram, InterfaceReport, LanesReport, ShardReport};

/// All that one answer to `/metrics` is made of.
pub struct Snapshot<'a> {
    /// Version of the server, and what it was built from.
    pub build: &'a crate::BuildInfo,
    /// The phase, as 1 for the one that holds.
    pub phase: &'a str,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// The process.
    pub process: &'a ProcessReport,
    /// Shards that answered.
    pub shards: &'a [ShardReport],
    /// Shards that were asked.
    pub shards_asked: usize,
    /// What the control plane counts of itself.
    pub http: ListenerFigures,
    /// The same of gRPC.
    pub grpc: ListenerFigures,
    /// Questions that a shard did not take or not answer in time.
    pub unanswered: u64,
    /// The history of messages that somebody follows.
    pub history: HistoryFigures,
    /// Plugins, as far as shards don't count them.
    pub plugins: PluginsFigures,
}

/// What is counted of the listeners of one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerFigures {
    /// Requests answered.
    pub requests: u64,
    /// Connections closed at once because too many were open.
    pub refused: u64,
    /// Connections closed because their peers did not read what they had asked for.
    pub cut_off: u64,
}

/// Writes the whole answer.
pub fn render(snapshot: &Snapshot<'_>) -> String {
    let mut out = Page(String::with_capacity(16 * 1024));
    server(&mut out, snapshot);
    process(&mut out, snapshot.process);
    shards(&mut out, snapshot.shards);
    commits(&mut out, snapshot.shards);
    deliveries(&mut out, snapshot.shards);
    lanes(&mut out, snapshot.shards);
    groups(&mut out, snapshot.shards);
    counted(&mut out, snapshot.shards);
    interfaces(&mut out, snapshot.shards);
    plugins::page(&mut out, snapshot.plugins, snapshot.shards);
    out.0
}

struct Page(String);

impl Page {
    fn family(&mut self, metric: Metric) {
        let Metric { name, kind, help } = metric;
        let kind = kind.word();
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let text = Escaped(text);
            write!(self.0, "{open}{label}=\"{text}\"").expect("a String takes all");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.line(format_args!("{close} {value}"));
    }

    fn single(&mut self, metric: Metric, value: impl Display) {
        let name = metric.name;
        self.family(metric);
        self.sample(name, &[], value);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("a String takes all");
    }
}

/// A label's text, with the three characters escaped that the format asks for.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn server(out: &mut Page, snapshot: &Snapshot<'_>) {
    let build = gauge("postroad_build_info", "Always 1; the labels say what is running.");
    out.family(build);
    out.sample(build.name, &[("version", snapshot.build.version), ("revision", snapshot.build.revision)], 1);
    let phase = gauge("postroad_phase", "1 for the phase that the server is in.");
    out.family(phase);
    for name in crate::Phase::NAMES {
        out.sample(phase.name, &[("phase", name)], u8::from(*name == snapshot.phase));
    }
    out.single(gauge("postroad_uptime_seconds", "Time since the start."), snapshot.uptime_seconds);
    out.single(gauge("postroad_shards", "Shards of the server."), snapshot.shards_asked);
    out.single(gauge("postroad_shards_answering", "Shards that answered this scrape."), snapshot.shards.len());
    let ListenerFigures { requests, refused, cut_off } = snapshot.http;
    out.single(counter("postroad_http_requests_total", "HTTP requests that the control plane answered."), requests);
    out.single(counter("postroad_http_connections_refused_total", "HTTP connections above the limit."), refused);
    out.single(
        counter("postroad_http_connections_cut_off_total", "HTTP connections whose peer did not read."),
        cut_off,
    );
    let ListenerFigures { requests, refused, cut_off } = snapshot.grpc;
    out.single(counter("postroad_grpc_requests_total", "Calls by gRPC, each stream being one."), requests);
    out.single(counter("postroad_grpc_connections_refused_total", "gRPC connections above the limit."), refused);
    out.single(
        counter("postroad_grpc_connections_cut_off_total", "gRPC connections whose peer did not read."),
        cut_off,
    );
    let unanswered =
        counter("postroad_shard_requests_unanswered_total", "Questions that a shard did not answer in time.");
    out.single(unanswered, snapshot.unanswered);
    history(out, snapshot.history);
}

fn history(out: &mut Page, figures: HistoryFigures) {
    let HistoryFigures { kept, dropped, lost, steps, bytes } = figures;
    let told = counter(
        "postroad_trace_steps_total",
        "Steps of followed messages: kept, dropped for want of room in trace.queue_max, or lost since the disk could not be written.",
    );
    out.family(told);
    for (outcome, count) in [("kept", kept), ("dropped", dropped), ("lost", lost)] {
        out.sample(told.name, &[("outcome", outcome)], count);
    }
    out.single(gauge("postroad_trace_steps", "Steps in the history of messages."), steps);
    out.single(gauge("postroad_trace_bytes", "Bytes of these steps."), bytes);
}

fn process(out: &mut Page, process: &ProcessReport) {
    let mut optional = |metric: Metric, value: Option<f64>| {
        if let Some(value) = value {
            out.single(metric, value);
        }
    };
    let number = |value: Option<u64>| value.map(|value| value as f64);
    optional(gauge("process_resident_memory_bytes", "Resident memory."), number(process.resident_bytes));
    optional(gauge("process_virtual_memory_bytes", "Virtual memory."), number(process.virtual_bytes));
    optional(gauge("process_threads", "Threads."), number(process.threads));
    optional(counter("process_cpu_seconds_total", "User and system CPU time."), process.cpu_seconds);
    optional(gauge("process_open_fds", "Open file descriptors."), number(process.open_files));
    optional(gauge("process_max_fds", "Limit of open file descriptors."), number(process.open_files_max));
    let card = counter("postroad_host_network_bytes_total", "Bytes of a network card of this machine, all processes.");
    out.family(card);
    for device in &process.devices {
        out.sample(card.name, &[("device", &device.name), ("direction", "received")], device.received_bytes);
        out.sample(card.name, &[("device", &device.name), ("direction", "sent")], device.sent_bytes);
    }
}

type Row = (Metric, fn(&ShardReport) -> f64);

/// Every metric with one sample per shard.
const SHARD_ROWS: &[Row] = &[
    (counter("postroad_shard_cpu_seconds_total", "CPU time of the shard's thread."), |s| seconds(s.cpu_micros)),
    (counter("postroad_shard_stall_seconds_total", "Time by which turns took too long."), |s| seconds(s.stall_micros)),
    (counter("postroad_shard_stalls_total", "Turns that took stall_max or longer."), |s| s.stalls as f64),
    (gauge("postroad_shard_turn_seconds_max", "Longest turn since the start."), |s| seconds(s.stall_max_micros)),
    (counter("postroad_shard_turns_total", "Turns of the shard's loop."), |s| s.turns as f64),
    (gauge("postroad_shard_memory_bytes", "Memory that the shard accounts for."), |s| s.memory_bytes as f64),
    (gauge("postroad_connections", "Open connections."), |s| s.connections as f64),
    (gauge("postroad_sessions", "Sessions, connected or not."), |s| s.sessions as f64),
    (gauge("postroad_registrations", "Clients that can be pushed to while they are away."), |s| s.registrations as f64),
    (gauge("postroad_subscriptions", "Subscriptions."), |s| s.subscriptions as f64),
    (gauge("postroad_retained_messages", "Retained messages."), |s| s.retained as f64),
    (gauge("postroad_retained_bytes", "Bytes of the retained messages: topics, properties, payloads."), |s| {
        s.retained_bytes as f64
    }),
    (gauge("postroad_dead_letters", "Dead letters."), |s| s.dead_letters as f64),
    (gauge("postroad_dead_letters_bytes", "Bytes of the dead letters: topics, properties, payloads."), |s| {
        s.dead_letters_bytes as f64
    }),
    (gauge("postroad_idempotency_keys", "Idempotency keys that are kept."), |s| s.idempotency_keys as f64),
    (gauge("postroad_scheduled_messages", "Messages that are to be published later."), |s| {
        (s.scheduled.waiting + s.scheduled.under_way) as f64
    }),
    (gauge("postroad_scheduled_under_way_messages", "Of them, those that are due and on their way."), |s| {
        s.scheduled.under_way as f64
    }),
    (gauge("postroad_scheduled_bytes", "Bytes of those messages: topics, properties, payloads."), |s| {
        s.scheduled.bytes as f64
    }),
    (gauge("postroad_groups", "Consumer groups."), |s| s.groups.count as f64),
    (counter("postroad_group_deliveries_total", "Deliveries given to consumers of groups, each time."), |s| {
        s.groups.given as f64
    }),
    (gauge("postroad_queued_messages", "Deliveries that wait or are in flight."), |s| s.queued_messages as f64),
    (gauge("postroad_in_flight_messages", "Deliveries that are sent and not acknowledged."), |s| s.in_flight as f64),
    (counter("postroad_messages_published_total", "Messages taken in."), |s| s.published as f64),
    (counter("postroad_pulls_total", "Times that a client asked for deliveries ($pull/<n>)."), |s| s.pulls as f64),
    (counter("postroad_messages_delivered_total", "Messages sent to receivers."), |s| s.delivered as f64),
    (counter("postroad_messages_acknowledged_total", "Deliveries acknowledged."), |s| s.acknowledged as f64),
    (counter("postroad_messages_forwarded_total", "Messages sent to other shards."), |s| s.forwarded as f64),
    (counter("postroad_reads_parked_total", "Times that reading waited for another shard."), |s| s.parked as f64),
    (counter("postroad_accept_pauses_total", "Pauses for want of file descriptors."), |s| s.accept_paused as f64),
    (counter("postroad_accept_ramp_waits_total", "Times that accepting waited after the start."), |s| {
        s.accept_ramped as f64
    }),
    (counter("postroad_log_commits_total", "Commits written to the log."), |s| s.log.commits as f64),
    (counter("postroad_log_records_total", "Records in those commits."), |s| s.log.records as f64),
    (counter("postroad_log_written_bytes_total", "Bytes of those commits."), |s| s.log.bytes as f64),
    (counter("postroad_log_sync_seconds_total", "Time spent in waiting for the disk."), |s| {
        seconds(s.log.commit.sum_micros)
    }),
    (gauge("postroad_log_young_bytes", "Size of the young generation."), |s| s.log.young_bytes as f64),
    (gauge("postroad_log_old_bytes", "Size of the old generation."), |s| s.log.old_bytes as f64),
];

fn shards(out: &mut Page, shards: &[ShardReport]) {
    for (metric, value) in SHARD_ROWS {
        out.family(*metric);
        for shard in shards {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string())], value(shard));
        }
    }
}

fn commits(out: &mut Page, shards: &[ShardReport]) {
    let help = "Time from the beginning of a commit's write until the shard knew that it is safe.";
    let metric = Metric { name: "postroad_log_commit_seconds", kind: Kind::Histogram, help };
    out.family(metric);
    for shard in shards {
        let commit = &shard.log.commit;
        let bounds = Histogram::BOUNDS_MICROS.iter().map(|micros| Some(seconds(*micros)));
        let buckets = bounds.chain([None]).zip(commit.counts);
        histogram(out, metric.name, shard.shard, buckets, seconds(commit.sum_micros));
    }
}

fn deliveries(out: &mut Page, shards: &[ShardReport]) {
    let help =
        "Time from publishing a message of QoS 1 or 2 until a receiver had it (PUBACK, PUBREC), time offline included.";
    let metric = Metric { name: "postroad_delivery_seconds", kind: Kind::Histogram, help };
    out.family(metric);
    for shard in shards {
        let buckets = shard.times.buckets().map(|(bound, count)| (bound.map(|ms| seconds(ms * 1_000)), count));
        histogram(out, metric.name, shard.shard, buckets, shard.times.sum_ms() as f64 / 1e3);
    }
    let help = "Deliveries of QoS 1 and 2 that are over, by outcome; those that ended with their session are in postroad_counted_total.";
    let metric = counter("postroad_deliveries_ended_total", help);
    out.family(metric);
    for shard in shards {
        for (outcome, count) in &shard.ended {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("outcome", outcome)], count);
        }
    }
}

/// The lanes by which what waits is to leave, and how its clients stand.
const LANE_STATES: [(&str, &str); 4] =
    [("realtime", "queued"), ("drain", "offline"), ("drain", "awaiting"), ("drain", "draining")];

fn lanes(out: &mut Page, shards: &[ShardReport]) {
    let help = "Deliveries of QoS 1 and 2 put in flight, by lane; drain: what had waited when its client came back; retry: what is sent again on a connection that lives, releases of QoS 2 too.";
    let metric = counter("postroad_lane_deliveries_total", help);
    out.family(metric);
    for shard in shards {
        let LanesReport { realtime, drained, retried, .. } = shard.lanes;
        for (lane, count) in [("realtime", realtime), ("drain", drained), ("retry", retried)] {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("lane", lane)], count);
        }
    }
    let help = "Deliveries of QoS 1 and 2 that wait, by the lane by which they are to leave, and its state.";
    let metric = gauge("postroad_lane_messages", help);
    out.family(metric);
    for shard in shards {
        let LanesReport { queued, offline, awaiting, draining, overdue, .. } = shard.lanes;
        let standing = LANE_STATES.into_iter().zip([queued, offline, awaiting, draining]);
        for ((lane, state), count) in standing.chain([(("retry", "overdue"), overdue)]) {
            let labels = [("shard", &*shard.shard.0.to_string()), ("lane", lane), ("state", state)];
            out.sample(metric.name, &labels, count);
        }
    }
    let metric =
        counter("postroad_resends_total", "Deliveries of QoS 1 and 2 that were sent once more, by what made it so.");
    out.family(metric);
    for shard in shards {
        for (cause, count) in [("live", shard.lanes.resent_live), ("reconnect", shard.lanes.resent_reconnect)] {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("cause", cause)], count);
        }
    }
    let help =
        "Time since the oldest of these was published; of what was stored before the start, at least that since then.";
    let metric = gauge("postroad_lane_oldest_seconds", help);
    out.family(metric);
    for shard in shards {
        for ((lane, state), oldest) in LANE_STATES.into_iter().zip(shard.lanes.oldest_ms) {
            let labels = [("shard", &*shard.shard.0.to_string()), ("lane", lane), ("state", state)];
            out.sample(metric.name, &labels, seconds(oldest * 1_000));
        }
    }
    let metric = gauge("postroad_drain_sessions", "Clients that came back and have not been sent all that had waited.");
    out.family(metric);
    for shard in shards {
        for (state, count) in [("awaiting", shard.drains.awaiting), ("draining", shard.drains.begun)] {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("state", state)], count);
        }
    }
}

/// The names of groups are labels, since there are few; a shard tells of its largest ones.
fn groups(out: &mut Page, shards: &[ShardReport]) {
    let metric = gauge("postroad_groups_messages", "Deliveries of all consumer groups, by state.");
    out.family(metric);
    for shard in shards {
        for (state, count) in [("waiting", shard.groups.waiting), ("leased", shard.groups.leased)] {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("state", state)], count);
        }
    }
    let metric = gauge("postroad_group_messages", "Deliveries of the consumer groups with most of them, by state.");
    out.family(metric);
    for shard in shards {
        for (group, waiting, leased) in &shard.groups.largest {
            for (state, count) in [("waiting", waiting), ("leased", leased)] {
                out.sample(metric.name, &[("group", group), ("state", state)], count);
            }
        }
    }
}

/// One histogram as the format wants it: each bucket counts what the ones before it count, too.
fn histogram(
    out: &mut Page,
    name: &str,
    shard: ShardId,
    buckets: impl Iterator<Item = (Option<f64>, u64)>,
    sum_seconds: f64,
) {
    let shard = shard.0.to_string();
    let mut below = 0;
    for (bound, count) in buckets {
        below += count;
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |seconds| seconds.to_string());
        out.sample(&format!("{name}_bucket"), &[("shard", &shard), ("le", &bound)], below);
    }
    out.sample(&format!("{name}_sum"), &[("shard", &shard)], sum_seconds);
    out.sample(&format!("{name}_count"), &[("shard", &shard)], below);
}

fn counted(out: &mut Page, shards: &[ShardReport]) {
    let metric = counter("postroad_counted_total", "What was dropped, refused or noticed, by reason.");
    out.family(metric);
    for shard in shards {
        for (reason, count) in &shard.counted {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("reason", reason)], count);
        }
    }
}

type InterfaceRow = (Metric, fn(&InterfaceReport) -> u64);

/// Every metric with one sample per shard and listener.
const INTERFACE_ROWS: &[InterfaceRow] = &[
    (counter("postroad_interface_accepted_total", "Connections accepted."), |i| i.accepted),
    (gauge("postroad_interface_connections", "Connections open."), |i| i.open),
    (counter("postroad_interface_received_bytes_total", "Bytes received."), |i| i.received_bytes),
    (counter("postroad_interface_sent_bytes_total", "Bytes sent."), |i| i.sent_bytes),
    (counter("postroad_interface_received_packets_total", "Packets received."), |i| i.received_packets),
    (counter("postroad_interface_sent_packets_total", "Packets sent."), |i| i.sent_packets),
];

fn interfaces(out: &mut Page, shards: &[ShardReport]) {
    for (metric, value) in INTERFACE_ROWS {
        out.family(*metric);
        each_interface(shards, |shard, interface| {
            out.sample(metric.name, &[("shard", shard), ("interface", &interface.name)], value(interface));
        });
    }
    let errors = counter("postroad_interface_errors_total", "Errors on connections, by reason.");
    out.family(errors);
    each_interface(shards, |shard, interface| {
        for (reason, count) in &interface.errors {
            let labels = [("shard", shard), ("interface", &interface.name), ("reason", reason)];
            out.sample(errors.name, &labels, count);
        }
    });
    let broken =
        counter("postroad_interface_broken_frames_total", "Frames that ended their connection, by what was wrong.");
    out.family(broken);
    each_interface(shards, |shard, interface| {
        for (reason, count) in &interface.broken_frames {
            let labels = [("shard", shard), ("interface", &interface.name), ("reason", reason)];
            out.sample(broken.name, &labels, count);
        }
    });
}

fn each_interface(shards: &[ShardReport], mut visit: impl FnMut(&str, &InterfaceReport)) {
    for shard in shards {
        let name = shard.shard.0.to_string();
        for interface in &shard.interfaces {
            visit(&name, interface);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot_of(shards: &[ShardReport]) -> String {
        render(&Snapshot {
            build: &crate::BuildInfo { version: "1.2.3", revision: "abc" },
            phase: "serving",
            uptime_seconds: 1.5,
            process: &ProcessReport { threads: Some(4), ..ProcessReport::default() },
            shards,
            shards_asked: 2,
            http: ListenerFigures::default(),
            grpc: ListenerFigures::default(),
            unanswered: 0,
            history: HistoryFigures { kept: 9, dropped: 2, lost: 1, steps: 5, bytes: 600 },
            plugins: PluginsFigures { generation: 7, refused: 3, rollbacks_by_itself: 1, ..PluginsFigures::default() },
        })
    }

    #[test]
    fn figures_of_shards_and_interfaces_are_shown_with_their_units() {
        let mut shard = ShardReport::new(ShardId(1));
        shard.cpu_micros = 2_500_000;
        shard.counted.push(("expired", 7));
        (shard.lanes.drained, shard.lanes.awaiting, shard.lanes.oldest_ms) = (5, 4, [0, 0, 1_500, 0]);
        (shard.lanes.retried, shard.lanes.overdue, shard.lanes.resent_live, shard.lanes.resent_reconnect) =
            (9, 2, 8, 7);
        shard.drains.awaiting = 3;
        shard.groups.largest.push(("orders".into(), 8, 2));
        shard.groups.leased = 2;
        let mut interface = InterfaceReport::new("mqtt".into());
        interface.sent_bytes = 99;
        interface.errors.push(("malformed_packet", 3));
        interface.broken_frames.push(("checksum", 4));
        shard.interfaces.push(interface);
        let text = snapshot_of(&[shard]);
        for line in [
            "postroad_build_info{version=\"1.2.3\",revision=\"abc\"} 1",
            "postroad_phase{phase=\"serving\"} 1",
            "postroad_phase{phase=\"draining\"} 0",
            "postroad_shard_cpu_seconds_total{shard=\"1\"} 2.5",
            "postroad_counted_total{shard=\"1\",reason=\"expired\"} 7",
            "postroad_interface_sent_bytes_total{shard=\"1\",interface=\"mqtt\"} 99",
            "postroad_interface_errors_total{shard=\"1\",interface=\"mqtt\",reason=\"malformed_packet\"} 3",
            "postroad_interface_broken_frames_total{shard=\"1\",interface=\"mqtt\",reason=\"checksum\"} 4",
            "postroad_lane_deliveries_total{shard=\"1\",lane=\"drain\"} 5",
            "postroad_lane_messages{shard=\"1\",lane=\"drain\",state=\"awaiting\"} 4",
            "postroad_lane_deliveries_total{shard=\"1\",lane=\"retry\"} 9",
            "postroad_lane_messages{shard=\"1\",lane=\"retry\",state=\"overdue\"} 2",
            "postroad_resends_total{shard=\"1\",cause=\"live\"} 8",
            "postroad_resends_total{shard=\"1\",cause=\"reconnect\"} 7",
            "postroad_lane_oldest_seconds{shard=\"1\",lane=\"drain\",state=\"awaiting\"} 1.5",
            "postroad_lane_oldest_seconds{shard=\"1\",lane=\"realtime\",state=\"queued\"} 0",
            "postroad_drain_sessions{shard=\"1\",state=\"awaiting\"} 3",
            "postroad_trace_steps_total{outcome=\"dropped\"} 2",
            "postroad_trace_bytes 600",
            "postroad_group_messages{group=\"orders\",state=\"waiting\"} 8",
            "postroad_groups_messages{shard=\"1\",state=\"leased\"} 2",
            "process_threads 4",
            "postroad_shards 2",
            "postroad_shards_answering 1",
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line:?} in\n{text}");
        }
    }

    #[test]
    fn every_family_has_help_and_type_once_and_a_counter_ends_in_total() {
        let text = snapshot_of(&[ShardReport::new(ShardId(0))]);
        let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut names: Vec<&str> = types.iter().filter_map(|line| line.split(' ').next()).collect();
        for line in &types {
            assert_eq!(line.ends_with(" counter"), line.contains("_total "), "{line}");
        }
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(before, names.len(), "a family is declared twice");
    }

    #[test]
    fn a_histogram_s_buckets_add_up() {
        let mut shard = ShardReport::new(ShardId(2));
        shard.ended.push(("refused", 3));
        [1, 700, 10_000_000].iter().for_each(|ms| shard.times.observe(*ms));
        [50, 100, 250, 2_000_000].iter().for_each(|micros| shard.log.commit.observe(*micros));
        let text = snapshot_of(&[shard]);
        for line in [
            "# TYPE postroad_log_commit_seconds histogram",
            "postroad_log_commit_seconds_bucket{shard=\"2\",le=\"0.0001\"} 2",
            "postroad_log_commit_seconds_bucket{shard=\"2\",le=\"0.0002\"} 2",
            "postroad_log_commit_seconds_bucket{shard=\"2\",le=\"0.0003\"} 3",
            "postroad_log_commit_seconds_bucket{shard=\"2\",le=\"1\"} 3",
            "postroad_log_commit_seconds_bucket{shard=\"2\",le=\"+Inf\"} 4",
            "postroad_log_commit_seconds_sum{shard=\"2\"} 2.0004",
            "postroad_log_commit_seconds_count{shard=\"2\"} 4",
            "postroad_log_sync_seconds_total{shard=\"2\"} 2.0004",
            "postroad_delivery_seconds_bucket{shard=\"2\",le=\"0.001\"} 1",
            "postroad_delivery_seconds_bucket{shard=\"2\",le=\"0.512\"} 1",
            "postroad_delivery_seconds_bucket{shard=\"2\",le=\"1.024\"} 2",
            "postroad_delivery_seconds_bucket{shard=\"2\",le=\"+Inf\"} 3",
            "postroad_delivery_seconds_sum{shard=\"2\"} 10000.701",
            "postroad_deliveries_ended_total{shard=\"2\",outcome=\"refused\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line:?} in\n{text}");
        }
    }

    #[test]
    fn label_texts_are_escaped() {
        let mut shard = ShardReport::new(ShardId(0));
        shard.interfaces.push(InterfaceReport::new("a\"b\\c\nd".into()));
        assert!(snapshot_of(&[shard]).contains(r#"interface="a\"b\\c\nd""#));
    }
}

//! `postroad top`: what a server does now, again and again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::Api;
use super::client::printable;
use super::samples::Samples;
use crate::cli::TopArgs;

/// Reasons of drops and refusals that are shown at most.
const REASONS: usize = 5;
/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Figures that are shown as so many per second: what they are called, and their metric.
const RATES: [(&str, &str); 5] = [
    ("published", "postroad_messages_published_total"),
    ("delivered", "postroad_messages_delivered_total"),
    ("acknowledged", "postroad_messages_acknowledged_total"),
    ("forwarded", "postroad_messages_forwarded_total"),
    ("commits", "postroad_log_commits_total"),
];
/// Figures that are shown as they are.
const LEVELS: [(&str, &str); 9] = [
    ("connections", "postroad_connections"),
    ("sessions", "postroad_sessions"),
    ("registrations", "postroad_registrations"),
    ("subscriptions", "postroad_subscriptions"),
    ("retained", "postroad_retained_messages"),
    ("queued", "postroad_queued_messages"),
    ("in flight", "postroad_in_flight_messages"),
    ("scheduled", "postroad_scheduled_messages"),
    ("dead letters", "postroad_dead_letters"),
];

/// Runs the command, until it is interrupted or has shown as much as was asked for.
pub fn top(args: &TopArgs) -> Result<()> {
    let server = Api::new(&args.api);
    let interval = Duration::from_secs(args.interval);
    let is_screen = std::io::stdout().is_terminal() && !args.api.json;
    let mut before = look(&server)?;
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        std::thread::sleep((before.at + interval).saturating_duration_since(Instant::now()));
        shown += 1;
        let now = match look(&server) {
            Ok(now) => now,
            Err(error) => {
                // It may be starting again.
                eprintln!("postroad: {}", printable(&format!("{error:#}")));
                before.at = Instant::now();
                continue;
            }
        };
        let behind = server.get("/v1/clients", &[("order", "backlog".to_owned()), ("limit", args.clients.to_string())]);
        let frame = Frame::new(&before, &now, behind);
        let text = if args.api.json { format!("{}\n", frame.json()) } else { frame.text() };
        let mut out = std::io::stdout().lock();
        write!(out, "{}{text}", if is_screen { CLEAR } else { "" })?;
        out.flush()?;
        before = now;
    }
    Ok(())
}

/// What the server said, and when.
struct Look {
    at: Instant,
    samples: Samples,
}

fn look(server: &Api<'_>) -> Result<Look> {
    let text = server.get_text("/metrics")?;
    Ok(Look { at: Instant::now(), samples: Samples::parse(&text) })
}

/// The figures of one look at a server, and of the time since the last one.
struct Frame {
    phase: String,
    uptime_seconds: u64,
    shards: [u64; 2],
    cpu_percent: f64,
    resident_bytes: f64,
    rates: Vec<(&'static str, f64)>,
    levels: Vec<(&'static str, f64)>,
    /// Median and 99th percentile, in milliseconds: at most so much.
    delivery_ms: [Option<f64>; 2],
    commit_ms: [Option<f64>; 2],
    /// What was dropped, refused or noticed, per second, the most frequent first.
    counted: Vec<(String, f64)>,
    /// By shard: CPU in percent, connections, published and delivered per second.
    by_shard: Vec<(String, [f64; 4])>,
    clients: Result<Vec<Value>, String>,
}

impl Frame {
    fn new(before: &Look, now: &Look, behind: Result<Value>) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(f64::MIN_POSITIVE);
        let (old, new) = (&before.samples, &now.samples);
        let rate = |name: &str| new.growth(old, name) / seconds;
        let times = |name: &str| [0.5, 0.99].map(|share| new.quantile_since(old, name, share).map(|s| s * 1e3));
        let reasons = new.growth_by(old, "postroad_counted_total", "reason").into_iter();
        let reasons = reasons.map(|(why, count)| (why.to_owned(), count / seconds));
        let mut counted: Vec<_> = reasons.filter(|(_, rate)| *rate > 0.0).collect();
        counted.sort_by(|a, b| b.1.total_cmp(&a.1));
        counted.truncate(REASONS);
        let clients = behind.map(|page| page["clients"].as_array().cloned().unwrap_or_default());
        Self {
            phase: new.state("postroad_phase", "phase").unwrap_or("unknown").to_owned(),
            uptime_seconds: new.sum("postroad_uptime_seconds") as u64,
            shards: ["postroad_shards_answering", "postroad_shards"].map(|name| new.sum(name) as u64),
            cpu_percent: rate("process_cpu_seconds_total") * 100.0,
            resident_bytes: new.sum("process_resident_memory_bytes"),
            rates: RATES.map(|(name, metric)| (name, rate(metric))).to_vec(),
            levels: LEVELS.map(|(name, metric)| (name, new.sum(metric))).to_vec(),
            delivery_ms: times("postroad_delivery_seconds"),
            commit_ms: times("postroad_log_commit_seconds"),
            counted,
            by_shard: by_shard(old, new, seconds),
            clients: clients.map_err(|error| format!("{error:#}")),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let Self { phase, uptime_seconds, shards: [answering, shards], cpu_percent, resident_bytes, .. } = self;
        let mib = resident_bytes / f64::from(1 << 20);
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a String takes all");
        line(format_args!(
            "{phase}, up {}, shards {answering} of {shards}, CPU {cpu_percent:.0} %, memory {mib:.0} MiB",
            duration(*uptime_seconds)
        ));
        let rates: Vec<String> = self.rates.iter().map(|(name, rate)| format!("{name} {rate:.0}")).collect();
        line(format_args!("per second: {}", rates.join(", ")));
        let levels: Vec<String> = self.levels.iter().map(|(name, level)| format!("{name} {level:.0}")).collect();
        line(format_args!("now: {}", levels.join(", ")));
        line(format_args!("delivery {}, commit {}", times(self.delivery_ms), times(self.commit_ms)));
        if !self.counted.is_empty() {
            let counted: Vec<String> = self.counted.iter().map(|(why, rate)| format!("{why} {rate:.1}")).collect();
            line(format_args!("noticed per second: {}", counted.join(", ")));
        }
        line(format_args!(
            "\n{:<6} {:>6} {:>12} {:>12} {:>12}",
            "SHARD", "CPU %", "CONNECTIONS", "PUBLISHED/s", "DELIVERED/s"
        ));
        for (shard, [cpu, connections, published, delivered]) in &self.by_shard {
            line(format_args!("{shard:<6} {cpu:>6.0} {connections:>12.0} {published:>12.0} {delivered:>12.0}"));
        }
        match &self.clients {
            Err(why) => line(format_args!("\nno clients are shown: {}", printable(why))),
            Ok(clients) if clients.is_empty() => line(format_args!("\nnothing waits for any client")),
            Ok(clients) => {
                line(format_args!("\n{:<40} {:<16} {:>9}  STATE", "CLIENT", "USER", "BACKLOG"));
                for client in clients {
                    let text = |name: &str| printable(client[name].as_str().unwrap_or("-"));
                    let state = if client["connected"] == true { "here" } else { "away" };
                    let (name, user, backlog) = (text("client"), text("user"), client["backlog"].as_u64().unwrap_or(0));
                    line(format_args!("{name:<40} {user:<16} {backlog:>9}  {state}"));
                }
            }
        }
        out
    }

    fn json(&self) -> Value {
        let pairs = |pairs: &[(&'static str, f64)]| {
            pairs.iter().map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect::<serde_json::Map<_, _>>()
        };
        let counted: serde_json::Map<_, _> =
            self.counted.iter().map(|(why, rate)| (why.clone(), json!(rate))).collect();
        let shard = |(shard, [cpu, connections, published, delivered]): &(String, [f64; 4])| {
            json!({
                "shard": shard,
                "cpu_percent": cpu,
                "connections": connections,
                "published_per_second": published,
                "delivered_per_second": delivered,
            })
        };
        json!({
            "phase": self.phase,
            "uptime_seconds": self.uptime_seconds,
            "shards_answering": self.shards[0],
            "shards": self.shards[1],
            "cpu_percent": self.cpu_percent,
            "resident_bytes": self.resident_bytes,
            "per_second": pairs(&self.rates),
            "now": pairs(&self.levels),
            // Infinity, beyond the last bucket, is null in JSON: so is "nothing".
            "delivery_ms": { "p50": self.delivery_ms[0], "p99": self.delivery_ms[1] },
            "commit_ms": { "p50": self.commit_ms[0], "p99": self.commit_ms[1] },
            "noticed_per_second": counted,
            "by_shard": self.by_shard.iter().map(shard).collect::<Vec<_>>(),
            "clients": self.clients.as_ref().ok(),
            "clients_error": self.clients.as_ref().err(),
        })
    }
}

/// By shard: CPU in percent, connections, published and delivered per second.
fn by_shard(old: &Samples, new: &Samples, seconds: f64) -> Vec<(String, [f64; 4])> {
    let connections = new.by("postroad_connections", "shard");
    let growth = |name| new.growth_by(old, name, "shard");
    let (cpu, published, delivered) = (
        growth("postroad_shard_cpu_seconds_total"),
        growth("postroad_messages_published_total"),
        growth("postroad_messages_delivered_total"),
    );
    let of = |figures: &BTreeMap<&str, f64>, shard: &str| figures.get(shard).copied().unwrap_or(0.0);
    let row = |(shard, cpu): (&&str, &f64)| {
        let [cpu, published, delivered] = [*cpu, of(&published, shard), of(&delivered, shard)].map(|sum| sum / seconds);
        ((*shard).to_owned(), [cpu * 100.0, of(&connections, shard), published, delivered])
    };
    let mut rows: Vec<_> = cpu.iter().map(row).collect();
    rows.sort_by_key(|(shard, _)| shard.parse::<u16>().unwrap_or(u16::MAX));
    rows
}

fn times([median, p99]: [Option<f64>; 2]) -> String {
    match (median, p99) {
        (Some(median), Some(p99)) => format!("p50 ≤ {} ms, p99 ≤ {} ms", round(median), round(p99)),
        _ => "none".to_owned(),
    }
}

/// Without digits that say nothing.
fn round(ms: f64) -> String {
    if ms.is_infinite() { "∞".to_owned() } else { format!("{}", (ms * 1e3).round() / 1e3) }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(published: u64, at_most_2_ms: u64, all: u64) -> Samples {
        Samples::parse(&format!(
            "postroad_phase{{phase=\"serving\"}} 1\npostroad_uptime_seconds 7384\npostroad_shards 2\npostroad_shards_answering 2\n\
             postroad_connections{{shard=\"0\"}} 3\npostroad_connections{{shard=\"1\"}} 4\n\
             postroad_shard_cpu_seconds_total{{shard=\"0\"}} {cpu}\npostroad_shard_cpu_seconds_total{{shard=\"1\"}} 1\n\
             postroad_messages_published_total{{shard=\"0\"}} {published}\nprocess_resident_memory_bytes 10485760\n\
             postroad_counted_total{{shard=\"0\",reason=\"expired\"}} {published}\n\
             postroad_counted_total{{shard=\"0\",reason=\"disk_full\"}} 5\n\
             postroad_delivery_seconds_bucket{{shard=\"0\",le=\"0.002\"}} {at_most_2_ms}\n\
             postroad_delivery_seconds_bucket{{shard=\"0\",le=\"+Inf\"}} {all}\n",
            cpu = published as f64 / 1e3,
        ))
    }

    #[test]
    fn a_frame_shows_what_has_changed() {
        let at = Instant::now();
        let before = Look { at, samples: metrics(1_000, 10, 10) };
        let now = Look { at: at + Duration::from_secs(2), samples: metrics(2_000, 90, 110) };
        let page =
            json!({ "clients": [{ "client": "truck\u{1b}7", "user": null, "backlog": 39, "connected": false }] });
        let frame = Frame::new(&before, &now, Ok(page));
        let text = frame.text();
        for expected in [
            "serving, up 2 h 3 min, shards 2 of 2, CPU 0 %, memory 10 MiB\n",
            "per second: published 500, delivered 0,",
            "now: connections 7, sessions 0,",
            "delivery p50 ≤ 2 ms, p99 ≤ ∞ ms, commit none\n",
            "noticed per second: expired 500.0\n",
            "0          50            3          500            0\n",
            "truck\u{FFFD}7                                  -                       39  away\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let json = frame.json();
        assert_eq!((&json["per_second"]["published"], &json["delivery_ms"]["p50"]), (&json!(500.0), &json!(2.0)));
        let refused = Frame::new(&before, &now, Err(anyhow::anyhow!("403 Forbidden"))).text();
        assert!(refused.contains("no clients are shown: 403 Forbidden"), "{refused}");
    }
}

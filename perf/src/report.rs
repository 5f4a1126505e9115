//! What a run found: one struct, printed as a short table and written as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::latency::Summary;
use crate::probe::Sample;
use crate::sync_probe::SyncReport;

/// Findings of one run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The command line.
    pub command: String,
    /// How connecting went.
    pub connections: Connections,
    /// How publishing and receiving went, if the scenario does that.
    pub traffic: Option<Traffic>,
    /// What the broker's process used, if it was named.
    pub broker: Option<Broker>,
    /// What an append with its fdatasync took on that disk meanwhile, if it was asked for.
    pub sync: Option<Sync>,
    /// Why the exit code is 1; empty if all is well.
    pub faults: Vec<String>,
}

/// Connections.
#[derive(Debug, Default, Serialize)]
pub struct Connections {
    /// Asked for.
    pub wanted: u64,
    /// Had a CONNACK with code 0.
    pub accepted: u64,
    /// Of these, with a session from before.
    pub session_present: u64,
    /// Refused by CONNACK, by code.
    pub refused: BTreeMap<u8, u64>,
    /// TCP refused.
    pub tcp_refused: u64,
    /// Ended by the other side before CONNACK.
    pub lost_before_connack: u64,
    /// Ended by the other side later.
    pub lost_after_connack: u64,
    /// Neither CONNACK nor end in time.
    pub unanswered: u64,
    /// From the beginning to the last CONNACK, seconds.
    pub seconds_to_last: f64,
    /// From each one's turn to its CONNACK.
    pub connack: Option<Summary>,
}

/// Messages.
#[derive(Debug, Default, Serialize)]
pub struct Traffic {
    /// Sent.
    pub sent: u64,
    /// Acknowledged by PUBACK or PUBREC.
    pub acknowledged: u64,
    /// Acknowledged with an error code.
    pub acknowledged_with_error: u64,
    /// Different messages received.
    pub received: u64,
    /// Not received.
    pub missing: u64,
    /// Of these, of QoS 1 and 2.
    pub missing_acknowledged: u64,
    /// Received again.
    pub repeated: u64,
    /// Of these, published at QoS 2.
    pub repeated_exactly_once: u64,
    /// Received at a lower QoS than that of publisher and subscription.
    pub downgraded: u64,
    /// Received after a later one of the same publisher.
    pub out_of_order: u64,
    /// Payloads of another run.
    pub foreign: u64,
    /// QoS 0 closed loop: messages given up after a second without progress.
    pub written_off: u64,
    /// Sent per second of publishing.
    pub sent_per_second: f64,
    /// Received per second, from the first sending (drain: connecting) to the last arrival.
    pub received_per_second: f64,
    /// Fewest acknowledged (QoS 0: sent) in a whole second of publishing.
    pub second_min_acknowledged: Option<u64>,
    /// Fewest received in a whole second of publishing.
    pub second_min_received: Option<u64>,
    /// Longest time without an arrival, milliseconds.
    pub arrival_gap_max_ms: f64,
    /// From intended sending to PUBACK or PUBREC; none at QoS 0.
    pub acknowledge: Option<Summary>,
    /// From intended sending to arrival.
    pub end_to_end: Option<Summary>,
    /// From intended to actual sending: how far the generator itself was behind.
    pub send_lag: Option<Summary>,
    /// CPU of the generator per message sent or received, microseconds.
    pub generator_cpu_us: f64,
}

/// The broker's process.
#[derive(Debug, Serialize)]
pub struct Broker {
    /// Before the first connection.
    pub before: Sample,
    /// With all connections up, before traffic.
    pub connected: Option<Sample>,
    /// At the end.
    pub after: Sample,
    /// Bytes of resident memory per connection.
    pub rss_per_connection: Option<f64>,
    /// CPU of the traffic per message delivered, microseconds.
    pub cpu_us_per_delivered: Option<f64>,
    /// CPU per connection accepted, microseconds.
    pub cpu_us_per_connection: Option<f64>,
}

/// The acknowledgements beside the disk's own time.
#[derive(Debug, Serialize)]
pub struct Sync {
    /// What the disk took.
    pub probe: SyncReport,
    /// p99 of the acknowledgements, in medians of the probe's appends (write and fdatasync). The strict reading.
    pub p99_to_p50: f64,
    /// The same in p99s of the appends.
    pub p99_to_p99: f64,
    /// The same in p99s of the appends from when they were due: both sides counted as an open loop.
    pub p99_to_p99_from_due: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.connections;
        writeln!(f, "connections {}: accepted {} (session present {})", c.wanted, c.accepted, c.session_present)?;
        let refused: u64 = c.refused.values().sum();
        if refused + c.tcp_refused + c.lost_before_connack + c.lost_after_connack + c.unanswered > 0 {
            writeln!(
                f,
                "  refused {:?}, tcp refused {}, lost before CONNACK {}, after {}, unanswered {}",
                c.refused, c.tcp_refused, c.lost_before_connack, c.lost_after_connack, c.unanswered
            )?;
        }
        writeln!(f, "  last CONNACK after {:.3} s", c.seconds_to_last)?;
        writeln!(f, "  {:18}{:>11}{:>11}{:>11}{:>11}{:>11}", "µs", "p50", "p99", "p99.9", "p99.99", "max")?;
        line(f, "connack", &c.connack)?;
        if let Some(traffic) = &self.traffic {
            write!(f, "{traffic}")?;
        }
        if let Some(broker) = &self.broker {
            write!(f, "{broker}")?;
        }
        if let Some(sync) = &self.sync {
            write!(f, "{}", sync.probe)?;
            let (p50, p99, due) = (sync.p99_to_p50, sync.p99_to_p99, sync.p99_to_p99_from_due);
            writeln!(
                f,
                "  acknowledge p99 is {p50:.1} × the p50 of append + fdatasync, {p99:.1} × its p99, {due:.1} × that from when due"
            )?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT: {fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "acknowledge", &self.acknowledge)?;
        line(f, "end to end", &self.end_to_end)?;
        line(f, "send lag", &self.send_lag)?;
        writeln!(f, "messages sent {} ({:.0}/s), acknowledged {}", self.sent, self.sent_per_second, self.acknowledged)?;
        writeln!(f, "  received {} ({:.0}/s)", self.received, self.received_per_second)?;
        writeln!(
            f,
            "  missing {}, repeated {}, out of order {}, foreign {}, refused {}, written off {}",
            self.missing,
            self.repeated,
            self.out_of_order,
            self.foreign,
            self.acknowledged_with_error,
            self.written_off
        )?;
        let second = |least: Option<u64>| least.map_or("-".to_owned(), |least| least.to_string());
        writeln!(
            f,
            "  worst second: {} acknowledged, {} received; longest gap {:.1} ms; generator {:.2} µs CPU per message",
            second(self.second_min_acknowledged),
            second(self.second_min_received),
            self.arrival_gap_max_ms,
            self.generator_cpu_us
        )
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        write!(f, "broker: RSS {:.1} MiB before", mib(self.before.rss_bytes))?;
        if let Some(connected) = &self.connected {
            write!(f, ", {:.1} connected", mib(connected.rss_bytes))?;
        }
        writeln!(f, ", {:.1} after, at most {:.1}", mib(self.after.rss_bytes), mib(self.after.peak_bytes))?;
        for (value, name) in [
            (self.rss_per_connection, "resident bytes per connection"),
            (self.cpu_us_per_connection, "µs CPU per connection"),
            (self.cpu_us_per_delivered, "µs CPU per message delivered"),
        ] {
            if let Some(value) = value {
                writeln!(f, "  {value:.2} {name}")?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, summary: &Option<Summary>) -> fmt::Result {
    let Some(s) = summary else { return Ok(()) };
    writeln!(
        f,
        "  {name:17}{:>11.0}{:>11.0}{:>11.0}{:>11.0}{:>11.0}",
        s.p50_us, s.p99_us, s.p999_us, s.p9999_us, s.max_us
    )
}

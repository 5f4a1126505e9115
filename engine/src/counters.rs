//! What a shard counts about itself: plain numbers, read by its own core when somebody asks.

use std::time::Duration;

use postroad_base::{Now, Outcome, ReasonCode, ShardId, WallMillis};
use postroad_broker::api::Counted;
use postroad_broker::consumers::GroupState;
use postroad_broker::{LaneDepths, Stats};
use postroad_control::{
    DrainsReport, GroupsReport, InterfaceReport, LanesReport, LogReport, ScheduledReport, ShardReport,
};

use postroad_session::framed::Broken;

use crate::config::Config;

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    ConnectionsMax,
    Malformed,
    Version,
    Credentials,
    Busy,
    ShuttingDown,
    Banned,
    Other,
}

const REFUSED: [(Refused, &str); 8] = [
    (Refused::ConnectionsMax, "connections_max"),
    (Refused::Malformed, "malformed_connect"),
    (Refused::Version, "unsupported_version"),
    (Refused::Credentials, "not_authorized"),
    (Refused::Busy, "busy"),
    (Refused::ShuttingDown, "shutting_down"),
    (Refused::Banned, "banned"),
    (Refused::Other, "other"),
];

impl Refused {
    pub(crate) fn of(reason: ReasonCode) -> Self {
        match reason {
            ReasonCode::MalformedPacket | ReasonCode::ProtocolError | ReasonCode::PacketTooLarge => Self::Malformed,
            ReasonCode::UnsupportedProtocolVersion => Self::Version,
            ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized | ReasonCode::BadAuthenticationMethod => {
                Self::Credentials
            }
            ReasonCode::QuotaExceeded | ReasonCode::ServerBusy | ReasonCode::ServerUnavailable => Self::Busy,
            ReasonCode::Banned => Self::Banned,
            ReasonCode::ServerShuttingDown => Self::ShuttingDown,
            _ => Self::Other,
        }
    }
}

/// Why the server closed a connection that broke a rule.
const CLOSED: [(ReasonCode, &str); 8] = [
    (ReasonCode::MalformedPacket, "malformed_packet"),
    (ReasonCode::ProtocolError, "protocol_error"),
    (ReasonCode::KeepAliveTimeout, "keep_alive_timeout"),
    (ReasonCode::PacketTooLarge, "packet_too_large"),
    (ReasonCode::ReceiveMaximumExceeded, "receive_maximum_exceeded"),
    (ReasonCode::TopicAliasInvalid, "topic_alias_invalid"),
    (ReasonCode::TopicNameInvalid, "topic_name_invalid"),
    (ReasonCode::UnspecifiedError, "other"),
];

/// Figures of one listener on this shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interface {
    pub(crate) name: std::sync::Arc<str>,
    pub(crate) accepted: u64,
    pub(crate) open: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_packets: u64,
    pub(crate) sent_packets: u64,
    refused: [u64; REFUSED.len()],
    closed: [u64; CLOSED.len()],
    broken: [u64; Broken::ALL.len()],
}

/// Figures of one shard. All count from the start and never go down, but `Interface::open`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) turns: u64,
    pub(crate) stall_millis: u64,
    pub(crate) stall_millis_max: u64,
    pub(crate) stalls: u64,
    pub(crate) accept_paused: u64,
    /// Waits of the ramp after the start.
    pub(crate) accept_ramped: u64,
    pub(crate) handed_over: u64,
    pub(crate) forwarded: u64,
    pub(crate) parked: u64,
    pub(crate) congested: u64,
    pub(crate) writes: u64,
    pub(crate) too_large: u64,
    pub(crate) panics: u64,
    turn_millis_max: u64,
    /// `stall_max`.
    stall_max_millis: u64,
}

/// What a turn takes beyond this is counted as stalled time.
const TURN_MAX: Duration = Duration::from_millis(20);

impl Counters {
    pub(crate) fn new(config: &Config) -> Self {
        let interface = |name: &str| Interface { name: name.into(), ..Interface::default() };
        Self {
            interfaces: config.listeners.iter().map(|listener| interface(&listener.name)).collect(),
            stall_max_millis: u64::try_from(config.stall_max.as_millis()).unwrap_or(u64::MAX),
            turn_millis_max: u64::try_from(TURN_MAX.as_millis()).expect("20"),
            ..Self::default()
        }
    }

    /// The shard worked without a pause. Says how long, in milliseconds, if that was a stall by `stall_max`.
    pub(crate) fn worked(&mut self, begin: Now, end: Now) -> Option<u64> {
        let millis = end.mono.since(begin.mono);
        self.stall_millis_max = self.stall_millis_max.max(millis);
        self.stall_millis += millis.saturating_sub(self.turn_millis_max);
        let stalled = millis >= self.stall_max_millis;
        self.stalls += u64::from(stalled);
        stalled.then_some(millis)
    }

    pub(crate) fn refused(&mut self, interface: usize, why: Refused) {
        self.interfaces[interface].refused[why as usize] += 1;
    }

    pub(crate) fn protocol_error(&mut self, interface: usize, reason: ReasonCode) {
        let place = CLOSED.iter().position(|(code, _)| *code == reason).unwrap_or(CLOSED.len() - 1);
        self.interfaces[interface].closed[place] += 1;
    }

    pub(crate) fn broken(&mut self, interface: usize, broken: Broken) {
        let place = Broken::ALL.iter().position(|known| *known == broken).expect("all are in the list");
        self.interfaces[interface].broken[place] += 1;
    }

    /// What the control plane shows.
    /// `now`, and when the server was started.
    pub(crate) fn report(
        &self,
        shard: ShardId,
        stats: &Stats,
        log: LogReport,
        largest: Vec<GroupState>,
        [now, started]: [WallMillis; 2],
    ) -> ShardReport {
        ShardReport {
            cpu_micros: thread_cpu_micros(),
            stall_micros: self.stall_millis * 1000,
            turns: self.turns,
            memory_bytes: stats.queued_bytes as u64,
            connections: self.interfaces.iter().map(|interface| interface.open).sum(),
            sessions: stats.sessions as u64,
            registrations: stats.registrations as u64,
            subscriptions: stats.subscriptions as u64,
            retained: stats.retained as u64,
            retained_bytes: stats.retained_bytes as u64,
            dead_letters: stats.letters as u64,
            dead_letters_bytes: stats.letters_bytes as u64,
            idempotency_keys: stats.keys as u64,
            scheduled: ScheduledReport {
                waiting: (stats.scheduled - stats.scheduled_under_way.min(stats.scheduled)) as u64,
                under_way: stats.scheduled_under_way as u64,
                bytes: stats.scheduled_bytes as u64,
            },
            groups: groups_of(stats, largest),
            queued_messages: (stats.queued_messages + stats.inflight) as u64,
            in_flight: stats.inflight as u64,
            lanes: lanes_of(stats, now, started),
            drains: DrainsReport { awaiting: stats.drains_awaiting as u64, begun: stats.drains_begun as u64 },
            pulls: stats.pulls,
            published: stats.received,
            delivered: stats.sent,
            acknowledged: stats.ended(Outcome::Acknowledged),
            ended: Outcome::ALL.iter().map(|outcome| (outcome.name(), stats.ended(*outcome))).collect(),
            times: stats.times,
            stalls: self.stalls,
            stall_max_micros: self.stall_millis_max * 1000,
            forwarded: self.forwarded,
            parked: self.parked,
            accept_paused: self.accept_paused,
            accept_ramped: self.accept_ramped,
            log,
            counted: self.counted(stats),
            interfaces: self.interfaces.iter().map(Interface::report).collect(),
            ..ShardReport::new(shard)
        }
    }

    fn counted(&self, stats: &Stats) -> Vec<(&'static str, u64)> {
        let by_broker = Counted::ALL.iter().map(|what| (what.name(), stats.count(*what)));
        let own = [("packet_too_large_for_receiver", self.too_large), ("panic_in_connection", self.panics)];
        by_broker.chain(own).collect()
    }
}

impl Interface {
    fn report(&self) -> InterfaceReport {
        let refused = REFUSED.iter().map(|(why, name)| (*name, self.refused[*why as usize]));
        let closed = CLOSED.iter().zip(self.closed).map(|((_, name), count)| (*name, count));
        // "other" stands in both lists: one label, one figure.
        let mut errors: Vec<(&'static str, u64)> = Vec::new();
        for (name, count) in refused.chain(closed) {
            match errors.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 += count,
                None => errors.push((name, count)),
            }
        }
        InterfaceReport {
            accepted: self.accepted,
            open: self.open,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            received_packets: self.received_packets,
            sent_packets: self.sent_packets,
            errors,
            broken_frames: Broken::ALL.iter().zip(self.broken).map(|(broken, count)| (broken.name(), count)).collect(),
            ..InterfaceReport::new(std::sync::Arc::clone(&self.name))
        }
    }
}

fn lanes_of(stats: &Stats, now: WallMillis, started: WallMillis) -> LanesReport {
    let age = |oldest: Option<Option<WallMillis>>| oldest.map_or(0, |at| now.since(at.unwrap_or(started)));
    let LaneDepths { realtime, offline, awaiting, draining } = stats.lanes;
    LanesReport {
        realtime: stats.realtime,
        drained: stats.drained,
        queued: realtime as u64,
        offline: offline as u64,
        awaiting: awaiting as u64,
        draining: draining as u64,
        retried: stats.retried,
        overdue: stats.overdue as u64,
        resent_live: stats.resent_live,
        resent_reconnect: stats.resent_reconnect,
        oldest_ms: stats.oldest.map(age),
    }
}

fn groups_of(stats: &Stats, largest: Vec<GroupState>) -> GroupsReport {
    let figures = |state: GroupState| (state.name, state.queue.waiting as u64, state.queue.in_flight as u64);
    GroupsReport {
        count: stats.groups as u64,
        waiting: (stats.group_messages - stats.group_leased) as u64,
        leased: stats.group_leased as u64,
        given: stats.leased,
        largest: largest.into_iter().map(figures).collect(),
    }
}

/// CPU time of the calling thread.
fn thread_cpu_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanos / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_place() {
        for (place, (why, _)) in REFUSED.iter().enumerate() {
            assert_eq!(*why as usize, place);
        }
    }

    #[test]
    fn a_stall_is_counted_with_its_length() {
        let mut counters = Counters::new(&Config { stall_max: Duration::from_millis(500), ..Config::default() });
        let at = |millis| Now { mono: postroad_base::MonoMillis(millis), ..Now::default() };
        assert_eq!([10, 499, 500, 900].map(|end| counters.worked(at(0), at(end))), [None, None, Some(500), Some(900)]);
        assert_eq!((counters.stalls, counters.stall_millis_max), (2, 900));
        assert_eq!(counters.stall_millis, 479 + 480 + 880, "beyond 20 ms each");
    }

    #[test]
    fn an_interface_reports_each_error_once() {
        let mut counters = Counters::new(&Config::default());
        counters.refused(0, Refused::Other);
        counters.protocol_error(0, ReasonCode::Banned);
        counters.protocol_error(0, ReasonCode::MalformedPacket);
        let errors = counters.interfaces[0].report().errors;
        let count = |name| errors.iter().filter(|(n, _)| *n == name).map(|(_, c)| *c).collect::<Vec<_>>();
        assert_eq!((count("other"), count("malformed_packet")), (vec![2], vec![1]));
    }
}

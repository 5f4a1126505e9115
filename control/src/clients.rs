//! What the API tells of clients, and how they are looked for.

use bytestring::ByteString;
use postroad_base::ShardId;
use serde::Serialize;

/// A client as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientReport {
    /// Its name.
    pub client: String,
    /// Who it proved to be last, or whom `auth.file` names.
    pub user: Option<String>,
    /// The groups that it belongs to.
    pub groups: Vec<String>,
    /// Whether it has a connection.
    pub connected: bool,
    /// Its address, while it has.
    pub address: Option<String>,
    /// Deliveries that it has not acknowledged, of both queues.
    pub backlog: usize,
    /// Its session, if it has one.
    pub session: Option<SessionReport>,
    /// Its registration, if it has one.
    pub registration: Option<RegistrationReport>,
    /// How it acknowledges, while it has a connection.
    pub road: Option<RoadReport>,
}

/// How a connected client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RoadReport {
    /// The smoothed time to an acknowledgement, in milliseconds; `None`: there was none yet.
    pub round_trip_ms: Option<u16>,
    /// When an acknowledgement is late, in milliseconds; `None`: nothing is sent again on this connection.
    pub ack_timeout_ms: Option<u64>,
    /// Deliveries that are late and wait to be sent again on this connection.
    pub overdue: usize,
}

/// A client's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionReport {
    /// When its connection came or went last, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Seconds that it outlives its connection; `None`: for ever.
    pub expiry_seconds: Option<u32>,
    /// Subscriptions.
    pub subscriptions: usize,
    /// What it is to get.
    pub queue: QueueReport,
}

/// A client's registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistrationReport {
    /// How it came about.
    pub by: &'static str,
    /// What was pushed to it.
    pub queue: QueueReport,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueReport {
    /// Deliveries that have not been sent.
    pub waiting: usize,
    /// Deliveries in flight.
    pub in_flight: usize,
    /// Bytes of all of them, in memory and stored.
    pub bytes: usize,
}

/// Which clients are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientsFilter {
    /// Only those with a connection, or those without.
    pub connected: Option<bool>,
    /// Only those of this user.
    pub user: Option<ByteString>,
    /// Only those of this group.
    pub group: Option<ByteString>,
    /// Only those whose name begins so.
    pub prefix: Option<String>,
    /// Only those with so many deliveries that they have not acknowledged, or more.
    pub backlog_min: usize,
}

/// A place among the clients of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Past those with a session.
    pub is_past_sessions: bool,
    /// Which one.
    pub number: u32,
}

/// A look at some of one shard's clients.
#[derive(Clone, Debug)]
pub struct ClientsQuery {
    /// Where to go on.
    pub from: Place,
    /// No more are wanted than this.
    pub limit: usize,
    /// Which ones.
    pub filter: ClientsFilter,
    /// Where the answer goes.
    pub answer: flume::Sender<ClientsPage>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientsPage {
    /// The clients.
    pub clients: Vec<ClientReport>,
    /// Where to go on; `None`: that was all of this shard.
    pub next: Option<Place>,
}

/// Where to go on with the clients of all shards, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientsCursor {
    pub shard: ShardId,
    pub place: Place,
}

impl ClientsCursor {
    /// The first client of a shard.
    pub fn first_of(shard: ShardId) -> Self {
        Self { shard, place: Place::default() }
    }

    pub fn text(self) -> String {
        let kind = if self.place.is_past_sessions { 'r' } else { 's' };
        format!("{}{kind}{}", self.shard.0, self.place.number)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (shard, number, is_past_sessions) = match (text.split_once('s'), text.split_once('r')) {
            (Some((shard, number)), None) => (shard, number, false),
            (None, Some((shard, number))) => (shard, number, true),
            _ => return None,
        };
        let place = Place { is_past_sessions, number: number.parse().ok()? };
        Some(Self { shard: ShardId(shard.parse().ok()?), place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for (shard, is_past_sessions, number) in [(0, false, 0), (7, true, 12), (65_535, false, u32::MAX)] {
            let cursor = ClientsCursor { shard: ShardId(shard), place: Place { is_past_sessions, number } };
            assert_eq!(ClientsCursor::parse(&cursor.text()), Some(cursor));
        }
        for text in ["", "s", "1s", "s1", "1x2", "1s2r3", "1s-2", "99999s1"] {
            assert_eq!(ClientsCursor::parse(text), None, "{text}");
        }
    }
}

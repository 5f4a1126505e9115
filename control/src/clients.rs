//! What the API tells of clients, and how they are looked for.

use bytestring::ByteString;
use postroad_base::{ShardId, is_user_name};
use serde::Serialize;

use crate::cursor::Cursor;
use crate::problem::{Kind, Problem};
use crate::publication::{Caller, checked};
use crate::shared::Server;

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
    /// How it gets what waits for it, while it has.
    pub delivery: Option<DeliveryReport>,
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

/// How a connected client gets what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryReport {
    /// `push` or `pull`.
    pub mode: &'static str,
    /// Deliveries that it has asked for and not been sent; `None`: it does not have to ask.
    pub allowance: Option<u16>,
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

/// What is done before a client is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Nothing.
    Show,
    /// Its connection ends.
    CutOff,
    /// What had waited for it is sent now, whatever the scheduler of drains says.
    Drain,
}

/// What is changed in what is known of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientChange {
    /// It is registered, for this user if one is named, in these groups and no others.
    Register {
        /// Whose it is.
        user: Option<ByteString>,
        /// Sorted, each once.
        groups: Vec<ByteString>,
    },
    /// Nothing is known of it any more: connection, session and registration end.
    Unregister,
}

/// Change what is known of a client.
#[derive(Debug)]
pub struct ClientOrder {
    /// Which one.
    pub client: ByteString,
    /// What.
    pub change: ClientChange,
    /// Where the answer goes, once what was done is as safe as `durability` asks.
    pub answer: flume::Sender<ClientChanged>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientChanged {
    /// Done; what is known now.
    Done(Option<Box<ClientReport>>),
    /// `auth.file` names it, and has the last word.
    OfFile,
    /// As many are registered as may be.
    Full,
    /// The disk is full.
    DiskFull,
    /// Nothing is known of it.
    Unknown,
}

impl ClientChange {
    /// Registers it so, if those can be.
    pub(crate) fn register(user: Option<String>, mut groups: Vec<String>) -> Result<Self, Problem> {
        if let Some(wrong) = groups.iter().chain(&user).find(|name| !is_user_name(name)) {
            let why =
                "a name must be 1 to 1,024 bytes without '/', '+', '#' and control characters, and not begin with '$'";
            return Err(Problem::bad(format!("{wrong:?}: {why}")));
        }
        if groups.len() > GROUPS_MAX {
            return Err(Problem::bad(format!("a client is in at most {GROUPS_MAX} groups")));
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(Self::Register { user: user.map(Into::into), groups: groups.into_iter().map(Into::into).collect() })
    }
}

/// Groups that one registration names.
const GROUPS_MAX: usize = 256;

impl Server {
    /// Changes what is known of a client, for a caller who may; what is known of it then.
    pub(crate) async fn change_client(
        &self,
        caller: &Caller,
        client: String,
        change: ClientChange,
    ) -> Result<Option<ClientReport>, Problem> {
        tracing::info!(client, caller = &*caller.name, ?change, "a client is changed through the API");
        if client.is_empty() {
            return Err(Problem::bad("a client must have a name"));
        }
        let client = checked("client", client).map_err(Problem::bad)?;
        match self.api.change_client(client, change).await? {
            ClientChanged::Done(report) => Ok(report.map(|report| *report)),
            ClientChanged::OfFile => Err(Problem::new(
                Kind::NamedByFile,
                "auth.file names this client, and has the last word: change it there",
            )),
            ClientChanged::Full => {
                let full = "as many clients are registered as may be (registrations.max)";
                Err(Problem::new(Kind::Refused(postroad_base::ReasonCode::QuotaExceeded), full))
            }
            ClientChanged::DiskFull => Err(Problem::new(Kind::NoStorage, "the disk is full")),
            ClientChanged::Unknown => Err(unknown_client()),
        }
    }

    /// One client, after something was done to it by a caller who may.
    pub(crate) async fn act_on_client(
        &self,
        caller: &Caller,
        client: &str,
        action: ClientAction,
    ) -> Result<ClientReport, Problem> {
        if action != ClientAction::Show {
            tracing::info!(client, caller = &*caller.name, ?action, "a client is acted on through the API");
        }
        if client.contains('\0') {
            return Err(unknown_client()); // no client has such a name, callers of ours do
        }
        self.api.client(client, action).await?.ok_or_else(unknown_client)
    }
}

pub(crate) fn unknown_client() -> Problem {
    Problem::new(Kind::UnknownClient, "nothing is known of this client")
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

/// Where to go on with the clients of all shards, as text: `2s17`, or `2r17` past those with a session.
pub(crate) type ClientsCursor = Cursor<Place>;

impl ClientsCursor {
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

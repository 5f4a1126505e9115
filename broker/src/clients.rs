//! What an operator can see of clients: those that have a session, then those that are registered and have none.

use std::sync::Arc;

use base::{ClientId, ConnectionId, RegisteredBy, SessionExpiry, WallMillis};
use bytestring::ByteString;
use postroad_base as base;

use crate::broker::Broker;
use crate::queue::Queue;
use crate::session::{ConnectionIndex, Role, Session};

/// A client as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientState {
    /// Its name.
    pub client: ClientId,
    /// Who it proved to be last, or whom `auth.file` names.
    pub user: Option<ByteString>,
    /// The groups that it belongs to.
    pub groups: Arc<[ByteString]>,
    /// Its connection, if it is here.
    pub connection: Option<ConnectionId>,
    /// Deliveries that it has asked for and not been sent; `None`: it is away, or is pushed what comes.
    pub allowance: Option<u16>,
    /// Its session, if it has one.
    pub session: Option<SessionState>,
    /// Its registration, if it has one.
    pub registration: Option<RegistrationState>,
    /// What the road to it is like, while it is here.
    pub road: Option<RoadState>,
}

/// How a connected client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoadState {
    /// The smoothed time to an acknowledgement, in milliseconds; `None`: there was none yet.
    pub round_trip_ms: Option<u16>,
    /// When an acknowledgement is late, in milliseconds; `None`: never, since nothing is sent again on this connection.
    pub ack_timeout_ms: Option<u64>,
    /// Deliveries that are late and wait to be sent again on this connection.
    pub overdue: usize,
}

/// A client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// When its connection came or went last.
    pub since: WallMillis,
    /// How long it outlives its connection.
    pub expiry: SessionExpiry,
    /// Subscriptions.
    pub subscriptions: usize,
    /// What it is to get.
    pub queue: QueueState,
}

/// A client's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationState {
    /// How it came about.
    pub by: RegisteredBy,
    /// What was pushed to it.
    pub queue: QueueState,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Deliveries that have not been sent.
    pub waiting: usize,
    /// Deliveries in flight.
    pub in_flight: usize,
    /// Bytes of all of them, in memory and stored.
    pub bytes: usize,
}

impl QueueState {
    pub(crate) fn of(queue: &Queue) -> Self {
        let in_flight = queue.window.len();
        Self { waiting: queue.messages() - in_flight, in_flight, bytes: queue.bytes_pending() }
    }
}

impl ClientState {
    /// Deliveries that it has not acknowledged.
    pub fn backlog(&self) -> usize {
        let queues = [self.session.map(|session| session.queue), self.registration.map(|known| known.queue)];
        queues.into_iter().flatten().map(|queue| queue.waiting + queue.in_flight).sum()
    }
}

/// Where a walk over all clients of a shard goes on. Who is a client all the time is met once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsCursor {
    /// Clients with a session, from this place on.
    Sessions(u32),
    /// Registered ones without, from this place on.
    Registrations(u32),
}

impl Default for ClientsCursor {
    fn default() -> Self {
        Self::Sessions(0)
    }
}

impl Broker {
    /// One client; `None` if nothing is known of it here.
    pub fn client_state(&self, client: &str) -> Option<ClientState> {
        match self.session_of_client(client) {
            Some(index) => self.state_of_session(&self.sessions[index as usize]),
            None => self.registrations.find(client).and_then(|index| self.state_of_registration(index)),
        }
    }

    /// Walks on over the clients, looking at so many places at most: `take` says whether it wants more. Where the walk goes on;
    /// `None` at its end.
    pub fn walk_clients(
        &self,
        from: ClientsCursor,
        looks_max: u32,
        mut take: impl FnMut(ClientState) -> bool,
    ) -> Option<ClientsCursor> {
        let (mut at, end) = match from {
            ClientsCursor::Sessions(at) => (at, self.sessions.capacity()),
            ClientsCursor::Registrations(at) => (at, self.registrations.places()),
        };
        for _ in 0..looks_max {
            if at as usize >= end {
                return match from {
                    ClientsCursor::Sessions(_) => Some(ClientsCursor::Registrations(0)),
                    ClientsCursor::Registrations(_) => None,
                };
            }
            let state = match from {
                ClientsCursor::Sessions(_) => {
                    self.sessions.get(at as usize).and_then(|session| self.state_of_session(session))
                }
                ClientsCursor::Registrations(_) => self.state_of_registration(at),
            };
            at += 1;
            if state.is_some_and(|state| !take(state)) {
                break;
            }
        }
        Some(match from {
            ClientsCursor::Sessions(_) => ClientsCursor::Sessions(at),
            ClientsCursor::Registrations(_) => ClientsCursor::Registrations(at),
        })
    }

    /// `None` for what is no client: a registration's queue, a session that is ending, a caller of the API.
    fn state_of_session(&self, session: &Session) -> Option<ClientState> {
        let connection = session.connection.map(|place| &self.connections[place as usize]);
        let is_caller = connection.is_some_and(|connection| connection.is_caller());
        if session.role != Role::Session || session.ending || is_caller {
            return None;
        }
        let known = self.registrations.get(session.client.as_str());
        Some(ClientState {
            client: session.client.clone(),
            user: session.principal.user.clone(),
            groups: Arc::clone(&session.principal.groups),
            connection: connection.map(|connection| connection.id),
            allowance: connection.and_then(|connection| connection.allowance),
            session: Some(SessionState {
                since: session.since,
                expiry: session.expiry,
                subscriptions: session.subscriptions.len(),
                queue: QueueState::of(&session.queue),
            }),
            registration: known.map(|known| RegistrationState { by: known.by(), queue: self.queue_of(known.queue) }),
            road: session.connection.map(|place| self.road_state(place)),
        })
    }

    fn road_state(&self, place: ConnectionIndex) -> RoadState {
        RoadState {
            round_trip_ms: self.connections[place as usize].round_trip.smoothed(),
            ack_timeout_ms: self.is_resent_to(place).then(|| self.ack_deadline(place, 0)),
            overdue: self.resends.overdue_of(place),
        }
    }

    /// `None` if there is none at this place, or its client has a session.
    fn state_of_registration(&self, index: u32) -> Option<ClientState> {
        let known = self.registrations.at(index)?;
        if self.session_of_client(known.client.as_str()).is_some() {
            return None;
        }
        Some(ClientState {
            client: known.client.clone(),
            user: known.principal.user.clone(),
            groups: Arc::clone(&known.principal.groups),
            connection: None,
            allowance: None,
            session: None,
            registration: Some(RegistrationState { by: known.by(), queue: self.queue_of(known.queue) }),
            road: None,
        })
    }

    fn queue_of(&self, index: Option<u32>) -> QueueState {
        index.map(|index| QueueState::of(&self.sessions[index as usize].queue)).unwrap_or_default()
    }
}

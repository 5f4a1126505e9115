//! What operators ask of clients.

use std::os::fd::AsFd;

use bytestring::ByteString;
use postroad_base::{ClientId, ConnectionId, RegisteredBy};
use postroad_broker::DeliveryMode;
use postroad_broker::api::{ClientAnswer, Event, Principal};
use postroad_broker::clients::{ClientState, ClientsCursor, QueueState, RegistrationState, RoadState, SessionState};
use postroad_control::{
    ClientAction, ClientChange, ClientChanged, ClientOrder, ClientReport, ClientsFilter, ClientsPage, ClientsQuery,
    DeliveryReport, Place, QueueReport, RegistrationReport, RoadReport, SessionReport,
};

use super::Shard;

/// Places that one question looks at: a million clients are many questions, and deliveries go on in between.
const LOOKS_MAX: u32 = 2048;

impl Shard {
    pub(super) fn find_clients(&self, query: ClientsQuery) {
        let ClientsQuery { from, limit, filter, answer } = query;
        let mut clients = Vec::new();
        let next = self.broker.walk_clients(cursor_of(from), LOOKS_MAX, |state| {
            if fits(&filter, &state) {
                clients.push(self.client_report(state));
            }
            clients.len() < limit
        });
        let _gone = answer.try_send(ClientsPage { clients, next: next.map(place_of) });
    }

    pub(super) fn tell_of_client(
        &mut self,
        client: &ByteString,
        action: ClientAction,
        answer: &flume::Sender<Option<ClientReport>>,
    ) {
        let before = self.broker.client_state(client);
        let name = || ClientId(client.clone());
        let event = match action {
            ClientAction::Show => None,
            ClientAction::CutOff => Some(Event::CutOff { client: name() }),
            ClientAction::Drain => Some(Event::DrainNow { client: name() }),
        };
        if let Some(event) = event.filter(|_| before.is_some()) {
            self.handle(event);
            self.drain_effects();
        }
        // A session that does not outlive its connection is gone now: then it is told as it was.
        let gone = before.map(|state| ClientState { connection: None, allowance: None, session: None, ..state });
        let state = self.broker.client_state(client).or(gone);
        let _gone = answer.try_send(state.map(|state| self.client_report(state)));
    }

    pub(super) fn change_client(&mut self, order: ClientOrder) {
        let ClientOrder { client, change, answer } = order;
        let client = ClientId(client);
        let token = self.asking.changing(client.clone(), answer);
        self.handle(match change {
            ClientChange::Register { user, groups } => {
                Event::Register { token, client, principal: Principal { user, groups: groups.into() } }
            }
            ClientChange::Unregister => Event::Unregister { token, client },
        });
        self.drain_effects();
    }

    pub(super) fn client_done(&mut self, token: u64, answer: ClientAnswer) {
        let Some((client, asker)) = self.asking.changed(token) else { return };
        let known = || self.broker.client_state(client.as_str()).map(|state| self.client_report(state));
        let _gone = asker.try_send(match answer {
            ClientAnswer::Done => ClientChanged::Done(known().map(Box::new)),
            ClientAnswer::OfFile => ClientChanged::OfFile,
            ClientAnswer::Full => ClientChanged::Full,
            ClientAnswer::DiskFull => ClientChanged::DiskFull,
            ClientAnswer::Unknown => ClientChanged::Unknown,
        });
    }

    fn client_report(&self, state: ClientState) -> ClientReport {
        let backlog = state.backlog();
        let ClientState { client, user, groups, connection, allowance, session, registration, road } = state;
        ClientReport {
            client: client.as_str().to_owned(),
            user: user.map(|user| user.to_string()),
            groups: groups.iter().map(ToString::to_string).collect(),
            connected: connection.is_some(),
            delivery: connection.map(|_| delivery_report(allowance)),
            address: connection.and_then(|connection| self.address_of(connection)),
            backlog,
            session: session.map(session_report),
            registration: registration.map(registration_report),
            road: road.map(road_report),
        }
    }

    fn address_of(&self, id: ConnectionId) -> Option<String> {
        let index = crate::connection::connection_index(id);
        let connection = self.connections.get(index).filter(|connection| connection.id == id)?;
        let address = rustix::net::getpeername(connection.socket.as_fd()).ok()??;
        std::net::SocketAddr::try_from(address).ok().map(|address| address.to_string())
    }
}

fn fits(filter: &ClientsFilter, state: &ClientState) -> bool {
    let ClientsFilter { connected, user, group, prefix, backlog_min } = filter;
    connected.is_none_or(|wanted| wanted == state.connection.is_some())
        && user.as_ref().is_none_or(|wanted| state.user.as_ref() == Some(wanted))
        && group.as_ref().is_none_or(|wanted| state.groups.contains(wanted))
        && prefix.as_ref().is_none_or(|wanted| state.client.as_str().starts_with(wanted))
        && state.backlog() >= *backlog_min
}

fn road_report(road: RoadState) -> RoadReport {
    let RoadState { round_trip_ms, ack_timeout_ms, overdue } = road;
    RoadReport { round_trip_ms, ack_timeout_ms, overdue }
}

fn delivery_report(allowance: Option<u16>) -> DeliveryReport {
    let mode = if allowance.is_some() { DeliveryMode::Pull } else { DeliveryMode::Push };
    DeliveryReport { mode: mode.name(), allowance }
}

fn session_report(session: SessionState) -> SessionReport {
    let SessionState { since, expiry, subscriptions, queue } = session;
    let expiry_seconds = (expiry.0 != u32::MAX).then_some(expiry.0);
    SessionReport { since_unix_ms: since.0, expiry_seconds, subscriptions, queue: queue_report(queue) }
}

fn registration_report(registration: RegistrationState) -> RegistrationReport {
    let by = match registration.by {
        RegisteredBy::Connection | RegisteredBy::Assigned => "connection",
        RegisteredBy::File => "auth_file",
        RegisteredBy::Push => "push",
        RegisteredBy::Api => "api",
    };
    RegistrationReport { by, queue: queue_report(registration.queue) }
}

fn queue_report(queue: QueueState) -> QueueReport {
    let QueueState { waiting, in_flight, bytes } = queue;
    QueueReport { waiting, in_flight, bytes }
}

fn cursor_of(place: Place) -> ClientsCursor {
    match place.is_past_sessions {
        false => ClientsCursor::Sessions(place.number),
        true => ClientsCursor::Registrations(place.number),
    }
}

fn place_of(cursor: ClientsCursor) -> Place {
    match cursor {
        ClientsCursor::Sessions(number) => Place { is_past_sessions: false, number },
        ClientsCursor::Registrations(number) => Place { is_past_sessions: true, number },
    }
}

//! From a new socket to a session on its home shard: accept, CONNECT or hello, authentication, hand-over.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use postroad_base::{ClientId, ConnectionId, ReasonCode, ShardId};
use postroad_broker::api::{Event, Principal};

use super::{HandOver, Order, Phase, Shard, TOKEN_DOOR};
use crate::auth::{CheckOutcome, Credentials, Verdict};
use crate::connection::{Connection, Stage, connection_id};
use crate::counters::Refused;
use crate::listener::{self, Accepted};
use crate::session::{Request, Session};

/// Connections taken from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 128;
/// How long accepting pauses when no file descriptor is left.
const ACCEPT_PAUSE_MILLIS: u64 = 100;
/// How long it pauses when the ramp after a start leaves no room.
const RAMP_WAIT_MILLIS: u64 = 10;

impl Shard {
    pub(super) fn accept_some(&mut self, door: usize) {
        if self.phase != Phase::Serving || self.doors.get(door).is_none_or(|door| door.paused) {
            return;
        }
        let room = self.ramp.room(self.now.mono);
        if room == 0 {
            self.counters.accept_ramped += 1;
            return self.pause_door(door, RAMP_WAIT_MILLIS);
        }
        for _ in 0..ACCEPTS_PER_TURN.min(room) {
            match listener::accept(&self.doors[door].listener) {
                Accepted::Connection(socket) => {
                    self.ramp.took();
                    self.welcome(door, socket);
                }
                Accepted::Gone => {}
                Accepted::Nobody => return,
                Accepted::Exhausted(error) => return self.pause_accepting(door, &error),
            }
        }
        // More may wait, and their edge is spent.
        self.doors_again.push(door);
    }

    fn pause_accepting(&mut self, door: usize, error: &std::io::Error) {
        tracing::warn!(shard = self.id.0, %error, "accepting pauses: no file descriptor or memory is left");
        self.counters.accept_paused += 1;
        self.pause_door(door, ACCEPT_PAUSE_MILLIS);
    }

    fn pause_door(&mut self, door: usize, millis: u64) {
        self.doors[door].paused = true;
        self.wheel.insert(self.now.mono.after(millis), TOKEN_DOOR - door as u64);
    }

    /// The time to try again has come.
    pub(super) fn accept_again(&mut self, door: usize) {
        if let Some(door) = self.doors.get_mut(door) {
            door.paused = false;
        }
        self.accept_some(door);
    }

    /// A connection that was accepted here.
    fn welcome(&mut self, door: usize, socket: OwnedFd) {
        self.counters.interfaces[door].accepted += 1;
        if self.common.connections.load(Ordering::Relaxed) >= self.live.connections_max {
            self.counters.refused(door, Refused::ConnectionsMax);
            return; // the socket closes
        }
        let deadline = self.now.mono.after(millis(self.live.config.mqtt.connect_timeout));
        let listener = u16::try_from(door).expect("at most 1,024 listeners");
        if let Some(id) = self.insert(socket, listener, deadline) {
            // What it sent is an edge for the next look at the poller; most have sent their CONNECT already.
            self.schedule(id);
        }
    }

    /// Gives a socket its place here; `None` if it can't be watched.
    fn insert(&mut self, socket: OwnedFd, listener: u16, deadline: postroad_base::MonoMillis) -> Option<ConnectionId> {
        let entry = self.connections.vacant_entry();
        let id = connection_id(self.id, self.serial, entry.key());
        self.serial += 1;
        if let Err(error) = self.poller.add(&socket, id.0) {
            tracing::warn!(shard = self.id.0, %error, "a connection can't be watched");
            return None;
        }
        entry.insert(Connection::new(id, socket, listener, deadline));
        self.common.connections.fetch_add(1, Ordering::Relaxed);
        self.counters.interfaces[usize::from(listener)].open += 1;
        Some(id)
    }

    /// Its CONNECT is complete, and what follows it is kept: who is it?
    pub(super) fn authenticate(&mut self, id: ConnectionId) {
        let shard = self.id;
        let live = Arc::clone(&self.live);
        let placement = self.common.placement.clone();
        let serial = self.serial;
        let Some(Connection { stage: Stage::Authenticating(request), .. }) = self.connection(id) else { return };
        let client = request.client().cloned().unwrap_or_else(|| name_for(&placement, shard, serial));
        self.serial += 1;
        let Some(Connection { stage: Stage::Authenticating(request), .. }) = self.connection(id) else { return };
        let credentials =
            Credentials { user: request.username(), password: request.password(), client: client.as_str() };
        match live.auth.begin(&credentials) {
            Verdict::Known(verdict) => self.admit(id, client, verdict),
            Verdict::Hash(check) => {
                let (inbox, of) = (Arc::clone(&self.inbox), client.clone());
                let answer = move |outcome| inbox.order(Order::Checked { connection: id, client: of, outcome });
                if let Err(reason) = self.common.pool.submit(check, answer) {
                    self.admit(id, client, Err(reason));
                }
            }
        }
    }

    /// A password was checked; the connection may have gone meanwhile.
    pub(super) fn checked(&mut self, id: ConnectionId, client: ClientId, outcome: CheckOutcome) {
        self.counters.panics += u64::from(outcome.is_none());
        self.admit(id, client, outcome.unwrap_or(Err(ReasonCode::ServerUnavailable)));
        self.drain_effects();
    }

    /// The verdict is there: refuse, begin here, or hand over.
    fn admit(&mut self, id: ConnectionId, client: ClientId, verdict: Result<Principal, ReasonCode>) {
        let principal = match verdict {
            Ok(principal) => principal,
            Err(reason) => return self.refuse(id, reason, ""),
        };
        if !matches!(self.phase, Phase::Serving) {
            return self.refuse(id, ReasonCode::ServerShuttingDown, "");
        }
        if self.is_barred(&client) {
            return self.refuse(id, ReasonCode::Banned, "the server has crashed over this client");
        }
        let home = self.common.placement.home(client.as_str().as_bytes());
        if home == self.id {
            let Some(connection) = self.connection(id) else { return };
            let Stage::Authenticating(request) = std::mem::replace(&mut connection.stage, Stage::Handshake) else {
                return;
            };
            return self.begin_session(id, *request, client, principal);
        }
        self.hand_over(id, client, principal, home);
    }

    fn hand_over(&mut self, id: ConnectionId, client: ClientId, principal: Principal, home: ShardId) {
        crate::fault::point("hand-over");
        let Some(connection) = self.remove(id) else { return };
        let Connection { socket, listener, stage: Stage::Authenticating(request), input, .. } = connection else {
            return;
        };
        if let Err(error) = self.poller.remove(&socket) {
            tracing::error!(shard = self.id.0, %error, "a connection can't be taken out of the poller: closed");
            return;
        }
        let inbox = Arc::clone(&self.common.inboxes[usize::from(home.0)]);
        let unread = input.into_bytes();
        match inbox.arrivals.push(HandOver { socket, listener, request, client, principal, unread }) {
            Ok(()) => {
                self.counters.handed_over += 1;
                inbox.doorbell.ring();
            }
            Err(back) => self.refuse_hand_over(back),
        }
    }

    /// The home shard is behind: tell the client to come back, and close.
    fn refuse_hand_over(&mut self, back: HandOver) {
        let deadline = self.now.mono;
        let Some(id) = self.insert(back.socket, back.listener, deadline) else { return };
        if let Some(connection) = self.connection(id) {
            connection.stage = Stage::Authenticating(back.request);
        }
        self.refuse(id, self.refusal_reason_of_full(), "the server is busy, try again");
    }

    /// CONNACK with a reason, then goodbye.
    pub(super) fn refuse(&mut self, id: ConnectionId, reason: ReasonCode, detail: &str) {
        let Some((connection, codec)) = self.speaking(id) else { return };
        if let Stage::Authenticating(request) = &connection.stage {
            let answer = request.refuse(codec, reason, detail);
            connection.output.push(&answer);
        }
        let listener = usize::from(connection.listener);
        self.counters.refused(listener, Refused::of(reason));
        self.linger(id);
    }

    /// A connection whose home is here comes from the shard that accepted it.
    pub(super) fn arrive(&mut self, arrival: HandOver) {
        let HandOver { socket, listener, request, client, principal, unread } = arrival;
        let deadline = self.now.mono;
        let Some(id) = self.insert(socket, listener, deadline) else { return };
        let leaving = matches!(self.phase, Phase::Draining { .. } | Phase::Stopped);
        let Some(connection) = self.connection(id) else { return };
        connection.input = crate::input::Input::unseen(unread);
        if leaving {
            connection.stage = Stage::Authenticating(request);
            return self.refuse(id, ReasonCode::ServerShuttingDown, "");
        }
        self.begin_session(id, *request, client, principal);
    }

    fn begin_session(&mut self, id: ConnectionId, request: Request, client: ClientId, principal: Principal) {
        let (limits, now) = (&self.live.limits, self.now);
        let (session, mut connect) = Session::begin(id, request, client, principal, limits, now);
        // The client's own word first: what it says of itself, then its entry, then its user's; the broker has the option.
        let (client, user) = (&connect.client, connect.principal.user.as_deref());
        connect.delivery = connect.delivery.or_else(|| self.live.auth.delivery_of(client.as_str(), user));
        let probed = session.deadline().is_none() && !self.live.config.stall_timeout.is_zero();
        let shard = self.id.0;
        let Some(connection) = self.connection(id) else { return };
        connection.stage = Stage::Serving(session);
        connection.flags.known = true;
        if probed && let Err(error) = listener::watch_silent(&connection.socket) {
            tracing::warn!(shard, connection = id.0, %error, "a client without keep alive is not probed");
        }
        let client = connect.client.clone();
        crate::crash::welcoming(&client, || {
            self.handle(Event::Connect(Box::new(connect)));
            self.drain_effects();
        });
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A name for a client that came without, whose home is this shard `[MQTT-3.1.3-6]`.
fn name_for(placement: &postroad_base::Placement, shard: ShardId, serial: u64) -> ClientId {
    let mut random = [0; 8];
    crate::random::fill(&mut random);
    let seed = u64::from_le_bytes(random);
    for attempt in 0_u64.. {
        let name = format!("auto-{:016x}-{:x}-{attempt:x}", seed, serial);
        if placement.home(name.as_bytes()) == shard {
            return ClientId(ByteString::from(name));
        }
    }
    unreachable!("one name in as many as there are shards hashes here")
}

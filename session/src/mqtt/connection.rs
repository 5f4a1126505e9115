//! One client's connection after its CONNECT was let in.

use postroad_base::{ClientId, ConnectionId, MonoMillis, Now, ReasonCode};
use postroad_broker::Resend;
use postroad_broker::api::{self, DisconnectCause, Principal};
use postroad_protocol::mqtt::{DecodeError, PACKET_SIZE_MAX, Version};

use super::alias::Aliases;
use super::taken::Taken;
use super::window::Window;
use super::{ConnectRequest, Limits};

/// The state that ends with the connection. Small, since there are many and most are idle.
#[derive(Debug)]
pub struct Connection {
    pub(super) id: ConnectionId,
    pub(super) version: Version,
    /// Whether a DISCONNECT may say why in words.
    pub(super) problem_information: bool,
    /// An answer was larger than the client takes: it misses that answer, so the connection has to end.
    pub(super) starved: bool,
    /// The last packet of either side is through: nothing is written any more.
    pub(super) closed: bool,
    /// Whether CONNECT asked for a session that outlives the connection.
    pub(super) asked_to_last: bool,
    pub(super) topic_alias_maximum: u16,
    /// Seconds, as in force; 0 is none.
    keep_alive: u16,
    pub(super) packet_bytes_max: u32,
    last_packet: MonoMillis,
    pub(super) window: Window,
    pub(super) aliases: Option<Box<Aliases>>,
    pub(super) taken: Option<Box<Taken>>,
    /// Dropped with the CONNACK.
    pub(super) welcome: Option<Box<Welcome>>,
}

/// An idle connection costs little.
const _: () = assert!(size_of::<Connection>() <= 128);

/// What the CONNACK has to tell beyond the broker's answer.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) assigned: Option<ClientId>,
    /// If it is not what the client asked for.
    pub(super) session_expiry: Option<u32>,
    pub(super) server_keep_alive: Option<u16>,
}

/// The connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// What to tell the broker.
    pub cause: DisconnectCause,
    /// What to tell the client, unless it said goodbye itself.
    pub reason: ReasonCode,
    /// Why, for the log and the reason string.
    pub detail: &'static str,
    /// The client sent DISCONNECT: nothing is sent any more `[MQTT-3.14.4-1]`.
    pub by_client: bool,
}

impl Closing {
    /// The client broke a rule, or its time is over.
    pub fn for_error(reason: ReasonCode, detail: &'static str) -> Self {
        Self { cause: DisconnectCause::Lost, reason, detail, by_client: false }
    }
}

impl From<DecodeError> for Closing {
    fn from(error: DecodeError) -> Self {
        Self::for_error(error.reason, error.detail)
    }
}

impl Connection {
    /// Starts the connection of an authenticated client, and says what to ask the broker for. `client` is the
    /// request's, or the one that the server gave.
    pub fn new(
        id: ConnectionId,
        request: ConnectRequest,
        client: ClientId,
        principal: Principal,
        limits: &Limits,
        now: Now,
    ) -> (Self, api::Connect) {
        let server_keep_alive = server_keep_alive(&request, limits);
        let welcome = Welcome {
            assigned: request.client.is_none().then(|| client.clone()),
            session_expiry: request.expiry_was_cut.then_some(request.expiry.0),
            server_keep_alive,
        };
        let connection = Self {
            id,
            version: request.version,
            problem_information: request.problem_information,
            starved: false,
            closed: false,
            // What was cut was more than 0.
            asked_to_last: request.expiry_was_cut || request.expiry.outlives_connection(),
            topic_alias_maximum: request.topic_alias_maximum.min(limits.topic_alias_out_max),
            keep_alive: server_keep_alive.unwrap_or(request.keep_alive),
            packet_bytes_max: request.packet_bytes_max.min(PACKET_SIZE_MAX),
            last_packet: now.mono,
            window: Window::default(),
            aliases: None,
            taken: None,
            welcome: Some(Box::new(welcome)),
        };
        let connect = api::Connect {
            connection: id,
            name: if request.client.is_none() { api::ClientName::Assigned } else { api::ClientName::Chosen },
            client,
            principal,
            clean_start: request.clean_start,
            expiry: request.expiry,
            receive_maximum: request.receive_maximum,
            delivery: request.delivery,
            will: request.will,
            hears_refusals: connection.version.is_v5(),
            // [MQTT-4.4.0-1] of MQTT 5; MQTT 3 leaves it open (3.1.1, section 4.4).
            resend: if connection.version.is_v5() { Resend::Reconnect } else { Resend::Live },
        };
        (connection, connect)
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// What it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the CONNACK is out: before that, nothing may be received or delivered.
    pub fn is_connected(&self) -> bool {
        self.welcome.is_none()
    }

    /// Between CONNACK and the end: only then anything but CONNACK is written `[MQTT-3.2.0-1]`, `[MQTT-3.14.4-1]`.
    pub(super) fn is_open(&self) -> bool {
        self.is_connected() && !self.closed
    }

    /// When to call [`Connection::on_deadline`]: one and a half keep alives after the last packet `[MQTT-3.1.2-22]`.
    pub fn deadline(&self) -> Option<MonoMillis> {
        if self.starved {
            return Some(self.last_packet);
        }
        (self.keep_alive > 0).then(|| self.last_packet.after(u64::from(self.keep_alive) * 1500))
    }

    /// Whether the client has been silent for too long [CON-4].
    pub fn on_deadline(&self, now: Now) -> Option<Closing> {
        if self.starved {
            return Some(self.starvation());
        }
        let is_over = self.deadline().is_some_and(|deadline| deadline <= now.mono);
        is_over.then(|| Closing::for_error(ReasonCode::KeepAliveTimeout, "nothing came for 1.5 keep alives"))
    }

    /// When a packet came last, or the connection was parked last.
    pub fn last_packet(&self) -> MonoMillis {
        self.last_packet
    }

    /// A packet came, or the connection was parked until now: keep alive starts anew.
    pub fn touch(&mut self, now: Now) {
        self.last_packet = now.mono;
    }

    pub(super) fn aliases(&mut self) -> &mut Aliases {
        self.aliases.get_or_insert_default()
    }

    /// `[MQTT-3.1.2-24]` leaves no way to give the client its answer.
    pub(super) fn starvation(&self) -> Closing {
        let detail = "an answer would exceed the client's maximum packet size";
        Closing::for_error(ReasonCode::PacketTooLarge, detail)
    }

    /// Publications of QoS 1 and 2 on this connection that wait for PUBACK or PUBREC. MQTT 3 clients know no receive
    /// maximum: whoever drives the connection holds them by not reading from it.
    pub fn unanswered(&self) -> usize {
        self.window.unanswered()
    }
}

/// The keep alive that an MQTT 5 client is told to use `[MQTT-3.2.2-21]`; older ones can't be told.
fn server_keep_alive(request: &ConnectRequest, limits: &Limits) -> Option<u16> {
    let most = limits.keep_alive_max;
    let is_too_long = most > 0 && (request.keep_alive == 0 || request.keep_alive > most);
    (request.version.is_v5() && is_too_long).then_some(most)
}

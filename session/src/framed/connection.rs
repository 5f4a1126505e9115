//! One device's connection after its hello was let in.

use std::collections::VecDeque;

use postroad_base::{ClientId, ConnectionId, MonoMillis, Now, ReasonCode, SessionExpiry, Tag};
use postroad_broker::Resend;
use postroad_broker::api::{self, DisconnectCause, Principal};
use postroad_protocol::frame::{Abilities, Acknowledgement, Fault};

use super::ConnectRequest;
use super::handshake::Asked;
use super::in_flight::{BROKER_TAG_BITS, InFlight, most_in_flight};

/// The state that ends with the connection. Small, since there are many and most are idle.
#[derive(Debug)]
pub struct Connection {
    pub(super) id: ConnectionId,
    pub(super) client: ClientId,
    /// As they were at the hello: a reload changes them for connections that come later.
    pub(super) abilities: Abilities,
    pub(super) last_frame: MonoMillis,
    /// Gives publishes the tags by which the broker answers.
    pub(super) serial: u16,
    /// Nothing is written any more.
    pub(super) closed: bool,
    /// An answer could not be written: the device misses it, so the connection has to end.
    pub(super) starved: bool,
    /// Publishes that wait for their answer, in their order.
    pub(super) unanswered: VecDeque<(Tag, Asked)>,
    pub(super) in_flight: InFlight,
    /// What the welcome answers; gone with it.
    pub(super) hello: Option<Box<Asked>>,
}

/// An idle connection costs little.
const _: () = assert!(size_of::<Connection>() <= 160);

const _: () = assert!(Broken::ALL.len() == Fault::ALL.len() + 1);

/// What was wrong with what a device has sent; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// The frame itself.
    Frame(Fault),
    /// A frame that has no place there: a second hello, or none.
    Order,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Frame(Fault::TooLong),
        Self::Frame(Fault::Length),
        Self::Frame(Fault::Constant),
        Self::Frame(Fault::Checksum),
        Self::Frame(Fault::Command),
        Self::Frame(Fault::Value),
        Self::Frame(Fault::Function),
        Self::Frame(Fault::Unfit),
        Self::Order,
    ];

    /// As a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frame(fault) => fault.name(),
            Self::Order => "order",
        }
    }
}

/// The connection has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What to tell the broker.
    pub cause: DisconnectCause,
    /// Why, as a reason code.
    pub reason: ReasonCode,
    /// What was broken, if anything was.
    pub broken: Option<Broken>,
    /// Why, for the log.
    pub detail: String,
    /// The device said goodbye.
    pub by_client: bool,
}

impl End {
    pub(super) fn broken(broken: Broken, detail: impl Into<String>) -> Self {
        let reason = match broken {
            Broken::Frame(Fault::TooLong) => ReasonCode::PacketTooLarge,
            Broken::Frame(_) => ReasonCode::MalformedPacket,
            Broken::Order => ReasonCode::ProtocolError,
        };
        let broken = Some(broken);
        Self { cause: DisconnectCause::Lost, reason, broken, detail: detail.into(), by_client: false }
    }

    /// The device is not at fault, or not by a frame.
    pub(super) fn for_reason(reason: ReasonCode, detail: &str) -> Self {
        let detail = detail.to_owned();
        Self { cause: DisconnectCause::Lost, reason, broken: None, detail, by_client: false }
    }
}

impl Connection {
    /// Starts the connection of an authenticated device, and says what to ask the broker for. Its session outlives the
    /// connection for `expiry`, as long as the server allows.
    pub fn new(
        id: ConnectionId,
        request: ConnectRequest,
        principal: Principal,
        expiry: SessionExpiry,
        now: Now,
    ) -> (Self, api::Connect) {
        let ConnectRequest { client, asked, abilities, .. } = request;
        let connection = Self {
            id,
            client: client.clone(),
            abilities,
            last_frame: now.mono,
            serial: 0,
            closed: false,
            starved: false,
            unanswered: VecDeque::new(),
            in_flight: InFlight::default(),
            hello: Some(Box::new(asked)),
        };
        let connect = api::Connect {
            connection: id,
            name: api::ClientName::Chosen,
            client,
            principal,
            clean_start: abilities.clean_start,
            expiry,
            receive_maximum: connection.receive_maximum(),
            delivery: None,
            will: None,
            hears_refusals: abilities.answers.refused,
            resend: connection.resend(),
        };
        (connection, connect)
    }

    /// Pushes that may be in flight at once.
    fn receive_maximum(&self) -> u16 {
        match self.abilities.pushes {
            Some(Acknowledgement::InTurn) => 1,
            Some(Acknowledgement::Tagged { bits }) => most_in_flight(bits),
            Some(Acknowledgement::None) | None => u16::MAX,
        }
    }

    /// While the connection lives, only what keeps its name may be sent again: else a late ack of the first copy would be
    /// taken for that of another push.
    fn resend(&self) -> Resend {
        match self.abilities.pushes {
            Some(Acknowledgement::Tagged { bits }) if bits >= BROKER_TAG_BITS => Resend::Live,
            _ => Resend::Reconnect,
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether the welcome is out: before that, nothing may be received or delivered.
    pub fn is_connected(&self) -> bool {
        self.hello.is_none()
    }

    /// Between the welcome and the end.
    pub(super) fn is_open(&self) -> bool {
        self.is_connected() && !self.closed
    }

    /// When to call [`Connection::on_deadline`]: one and a half keep alives after the last frame, as MQTT has it.
    pub fn deadline(&self) -> Option<MonoMillis> {
        if self.starved {
            return Some(self.last_frame);
        }
        let seconds = u64::from(self.abilities.keep_alive_seconds);
        (seconds > 0).then(|| self.last_frame.after(seconds * 1500))
    }

    /// Whether the device has been silent for too long [CON-4].
    pub fn on_deadline(&self, now: Now) -> Option<End> {
        if self.starved {
            return Some(starvation());
        }
        let is_over = self.deadline().is_some_and(|deadline| deadline <= now.mono);
        is_over.then(|| End::for_reason(ReasonCode::KeepAliveTimeout, "nothing came for 1.5 keep alives"))
    }

    /// When a frame came last, or the connection was parked last.
    pub fn last_frame(&self) -> MonoMillis {
        self.last_frame
    }

    /// A frame came, or the connection was parked until now: keep alive starts anew.
    pub fn touch(&mut self, now: Now) {
        self.last_frame = now.mono;
    }
}

pub(super) fn starvation() -> End {
    End::for_reason(ReasonCode::PacketTooLarge, "an answer does not fit into its frame")
}

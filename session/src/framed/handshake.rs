//! Before the welcome: the hello of a device, wherever its connection was accepted.

use bytes::Bytes;
use bytestring::ByteString;
use postroad_base::{ClientId, ReasonCode};
use postroad_protocol::frame::{Abilities, Codec, Decoded, Fault, Frame, FrameError, Kind};

use super::{Broken, End};

/// Waits for the hello.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake;

/// How far the handshake is.
#[derive(Debug)]
pub enum HandshakeStep {
    /// The frame is not whole yet: at least this many bytes are needed.
    NeedMore {
        /// Bytes from the start of the connection.
        needed: usize,
    },
    /// A device introduces itself.
    Connect {
        /// What it asks for.
        request: Box<ConnectRequest>,
        /// Bytes that the frame took.
        consumed: usize,
    },
}

/// A first frame that is no hello, or one that can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub broken: Broken,
    /// Why, for the log.
    pub detail: String,
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self { broken: Broken::Frame(error.fault), detail: error.detail }
    }
}

/// A hello, owned, so that it can move to the client's home shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Who the device says it is.
    pub client: ClientId,
    /// User name.
    pub username: Option<ByteString>,
    /// Password.
    pub password: Option<Bytes>,
    /// What its answer has to repeat.
    pub(super) asked: Asked,
    /// What may be expected of the device, and told it: as its codec was when it came.
    pub(super) abilities: Abilities,
}

/// What an answer repeats of what it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) tag: Option<u64>,
    pub(super) command: u64,
}

impl Asked {
    pub(super) fn of(frame: &Frame<'_>) -> Self {
        Self { tag: frame.tag, command: frame.command }
    }

    /// The answer that says no more than its kind.
    pub(super) fn answer(self, kind: Kind) -> Frame<'static> {
        Frame { tag: self.tag, command: self.command, ..Frame::new(kind) }
    }
}

impl Handshake {
    /// Reads the hello at the start of `bytes`, of at most `bytes_max`: nobody has proved anything yet.
    ///
    /// # Errors
    /// If the first frame is none, or is broken.
    pub fn receive(&mut self, codec: &mut dyn Codec, bytes: &[u8], bytes_max: usize) -> Result<HandshakeStep, Refusal> {
        let abilities = codec.abilities();
        match codec.decode(bytes, "")? {
            Decoded::Incomplete { needed } if needed > bytes_max => {
                Err(FrameError::new(Fault::TooLong, format!("a first frame of {needed} bytes at least")).into())
            }
            Decoded::Incomplete { needed } => Ok(HandshakeStep::NeedMore { needed }),
            Decoded::Frame { frame, size } if frame.kind == Kind::Hello => {
                let request = Box::new(ConnectRequest::of(&frame, abilities)?);
                Ok(HandshakeStep::Connect { request, consumed: size })
            }
            Decoded::Frame { frame, .. } => {
                Err(Refusal { broken: Broken::Order, detail: format!("{} in the place of hello", frame.kind) })
            }
        }
    }
}

impl ConnectRequest {
    fn of(frame: &Frame<'_>, abilities: Abilities) -> Result<Self, Refusal> {
        // As MQTT has it: two bytes of length, and no null character [MQTT-1.5.4-2].
        if frame.client.is_empty() || frame.client.len() > usize::from(u16::MAX) || frame.client.contains('\0') {
            return Err(FrameError::new(Fault::Value, "a client's name has 1 to 65,535 bytes, and none is 0").into());
        }
        Ok(Self {
            client: ClientId::from(frame.client),
            username: frame.user.map(ByteString::from),
            password: frame.password.map(Bytes::copy_from_slice),
            asked: Asked::of(frame),
            abilities,
        })
    }

    /// The frame that refuses this request; empty if the codec has none.
    pub fn refuse(&self, codec: &mut dyn Codec, reason: ReasonCode) -> Vec<u8> {
        let mut out = Vec::new();
        if self.abilities.answers.refused {
            let frame = Frame { reason: reason.number(), ..self.asked.answer(Kind::Refused) };
            // What can't be said is not: the connection closes either way, and `out` is as before.
            let _ = codec.encode(&frame, &mut out);
        }
        out
    }
}

impl From<Refusal> for End {
    fn from(Refusal { broken, detail }: Refusal) -> Self {
        Self::broken(broken, detail)
    }
}

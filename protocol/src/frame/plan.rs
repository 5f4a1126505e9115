//! What a declaration becomes: names are places, and each message knows what to look at.

use std::sync::Arc;

use super::bits::Bits;
use super::template::Format;
use super::{Abilities, Checksum, Codec, Decoded, Frame, FrameError, Kind};

/// A compiled declaration. It never changes, so that all shards share one.
#[derive(Debug)]
pub struct Plan {
    pub(super) framing: FramingPlan,
    pub(super) fields: Box<[FieldPlan]>,
    /// Where the fields begin and the last one ends, in bits, if each has one size.
    pub(super) starts: Option<Box<[u32]>>,
    /// The fields that have one value only, or one that the others say: constants and checksums.
    pub(super) checked: Box<[u8]>,
    /// Bytes of all fields at least.
    pub(super) bytes_min: u32,
    /// Bytes of a frame at most.
    pub(super) bytes_max: u32,
    /// Constants in front of the first field of variable size, with the bit at which they begin: they are known to be wrong
    /// before a length is believed.
    pub(super) front: Box<[(u8, u32)]>,
    pub(super) readings: Box<[Reading]>,
    pub(super) writings: Box<[Writing]>,
    pub(super) abilities: Abilities,
}

#[derive(Debug)]
pub(super) enum FramingPlan {
    Fixed,
    Delimited(Box<[u8]>),
    Length { bits: Bits, at: u32, plus: i64 },
    Fields,
}

#[derive(Debug)]
pub(super) struct FieldPlan {
    pub(super) name: Box<str>,
    pub(super) shape: ShapePlan,
    /// Bits of all fields behind this one, at least; exactly, if this one is what the others leave.
    pub(super) behind: u32,
}

#[derive(Debug)]
pub(super) enum ShapePlan {
    Number { bits: Bits, constant: Option<u64> },
    Constant(Box<[u8]>),
    Bytes { size: SizePlan, pad: Option<u8> },
    Checksum { algorithm: Checksum, from: u8, to: u8, bits: Bits },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SizePlan {
    Fixed(u32),
    Rest,
    Counted { by: u8, plus: i64 },
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ref {
    Input(Place),
    /// A field that is a number.
    Number(u8),
    /// The connection's client.
    Client,
}

/// Bytes of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A field that is one of bytes.
    Field(u8),
    /// A word of the message's pattern.
    Word(u8),
}

#[derive(Debug)]
pub(super) enum Piece {
    Literal(Box<str>),
    Value(Ref, Format),
}

/// What a part of a message is made of.
#[derive(Debug)]
pub(super) enum Template {
    /// It stays where it is.
    Input(Place),
    Text(Box<[Piece]>),
    Json(Box<[(Box<str>, Ref)]>),
}

/// What of a message a template makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Client,
    User,
    Password,
    Topic,
    Payload,
}

impl Part {
    pub(super) const COUNT: usize = 5;

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
            Self::Password => "password",
            Self::Topic => "topic",
            Self::Payload => "payload",
        }
    }
}

/// A message of devices.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) kind: Kind,
    pub(super) conditions: Box<[(u8, u64)]>,
    pub(super) text: Option<(u8, Box<[PatternPiece]>)>,
    /// By the number of the part.
    pub(super) parts: [Option<Template>; Part::COUNT],
    /// Those that are written; the others stay where they are.
    pub(super) written: Box<[Part]>,
    pub(super) tag: Option<Ref>,
}

/// A piece of a pattern. No two words stand side by side.
#[derive(Debug)]
pub(super) enum PatternPiece {
    Literal(Box<[u8]>),
    Word,
}

/// A message of the server: for each field where its value comes from.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) kind: Kind,
    pub(super) sources: Box<[Source]>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// Zeros, or what its shape says: constants and checksums.
    Shape,
    Value(u64),
    Role(Role),
    /// The whole frame, as the framing counts it.
    FrameLength,
    /// The size of that field, as it counts.
    SizeOf(u8),
    Text(Box<[TextPiece]>),
}

/// What of a frame is written somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Command,
    Tag,
    Topic,
    Payload,
    Reason,
}

#[derive(Debug)]
pub(super) enum TextPiece {
    Literal(Box<[u8]>),
    Role(Role),
}

/// A plan at work, with the memory that it writes to.
#[derive(Clone, Debug)]
pub struct Declared {
    plan: Arc<Plan>,
    read: String,
    written: Vec<u8>,
}

impl Declared {
    /// At work by this plan.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan, read: String::new(), written: Vec::new() }
    }
}

impl Codec for Declared {
    fn decode<'a>(&'a mut self, bytes: &'a [u8], client: &str) -> Result<Decoded<'a>, FrameError> {
        self.read.clear();
        self.plan.decode(bytes, client, &mut self.read)
    }

    fn encode(&mut self, frame: &Frame<'_>, into: &mut Vec<u8>) -> Result<(), FrameError> {
        self.written.clear();
        self.plan.encode(frame, &mut self.written, into)
    }

    fn frame_bytes_max(&self) -> usize {
        self.plan.bytes_max as usize
    }

    fn abilities(&self) -> Abilities {
        self.plan.abilities
    }
}

//! Frames that an operator defines: a declaration ([`Spec`]) is compiled to a [`Plan`], which reads and writes them [INT-1..5].
//!
//! ```text
//!  Spec ─compile─► Plan ─┐                       bytes ─decode─► Frame { kind, client, topic, payload, tag … }
//!                        ├─ Declared ─► Codec
//!  functions (Lua) ──────┘                       Frame ─encode─► bytes
//! ```
//! | noun | file |
//! |---|---|
//! | what an author writes | `spec` |
//! | names resolved, contradictions found | `compile`, `names` |
//! | what runs | `plan` |
//! | where the fields of one frame lie | `layout` |
//! | bytes to a frame and back | `decode`, `encode` |
//! | texts with names in them | `template` |
//! | numbers of any bits, checksums | `bits`, `checksum` |
//! | the frames that are shipped | [`examples`] |
//!
//! Invariants
//! - A codec keeps nothing from one frame to the next: it may be replaced between any two calls.
//! - Whether bytes are a frame, broken, or not whole yet does not depend on how the network cuts them [INT-5]; that they are
//!   broken may be known before the rest has come.
//! - A length is judged before anything is sized by it; reading or writing a frame of up to 15 fields allocates nothing once
//!   the codec is warm.

mod bits;
mod checksum;
mod compile;
mod decode;
mod encode;
pub mod examples;
mod layout;
mod names;
mod plan;
mod spec;
mod template;

use std::fmt;

pub use checksum::Checksum;
pub use plan::{Declared, Plan};
pub use spec::{
    Condition, Endian, Field, Framing, Message, Payload, Shape, Size, Spec, SpecError, TextPattern, Wanted,
};

/// Largest frame of any codec, in bytes.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Largest delimited one: it is searched for its end anew each time something comes.
pub const DELIMITED_BYTES_MAX: u32 = 64 << 10;

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Device: who it is. The first frame, and only that.
    Hello,
    /// Device: are you there?
    Ping,
    /// Device: a message.
    Publish,
    /// Device: it has got a push.
    Ack,
    /// Device: the last frame.
    Bye,
    /// Server: the answer to hello.
    Welcome,
    /// Server: the answer to ping.
    Pong,
    /// Server: a message.
    Push,
    /// Server: a publish is safe.
    Accepted,
    /// Server: a hello or a publish is not taken.
    Refused,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Hello,
        Self::Ping,
        Self::Publish,
        Self::Ack,
        Self::Bye,
        Self::Welcome,
        Self::Pong,
        Self::Push,
        Self::Accepted,
        Self::Refused,
    ];

    /// As authors write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Ping => "ping",
            Self::Publish => "publish",
            Self::Ack => "ack",
            Self::Bye => "bye",
            Self::Welcome => "welcome",
            Self::Pong => "pong",
            Self::Push => "push",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }

    /// The kind that authors call so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether devices send it; else the server does.
    pub fn is_from_device(self) -> bool {
        matches!(self, Self::Hello | Self::Ping | Self::Publish | Self::Ack | Self::Bye)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One frame, in the words of the conversation. What its kind has no use for is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it means.
    pub kind: Kind,
    /// What a device calls its publish or ping, or the server its push; an answer has that of what it answers.
    pub tag: Option<u64>,
    /// The command by which it was known, for answers that repeat it.
    pub command: u64,
    /// Hello: the client's name.
    pub client: &'a str,
    /// Hello: a user name.
    pub user: Option<&'a str>,
    /// Hello: a password.
    pub password: Option<&'a [u8]>,
    /// Publish and push.
    pub topic: &'a str,
    /// Publish and push.
    pub payload: &'a [u8],
    /// Refused: why, as a reason code of MQTT 5.
    pub reason: u8,
}

impl Frame<'_> {
    /// One that says nothing but its kind.
    pub fn new(kind: Kind) -> Self {
        Self { kind, tag: None, command: 0, client: "", user: None, password: None, topic: "", payload: &[], reason: 0 }
    }
}

/// What the start of the input turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not a whole frame yet.
    Incomplete {
        /// Bytes that the frame takes at least, counted from its start; more than there are.
        needed: usize,
    },
    /// A frame that takes the first `size` bytes of the input.
    Frame {
        /// What it says.
        frame: Frame<'a>,
        /// How many bytes to take off the input; at least one.
        size: usize,
    },
}

/// What is wrong with a frame; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Longer than the longest, or a delimiter does not come.
    TooLong,
    /// A length that can't be, or that does not fit its fields.
    Length,
    /// A constant is another one.
    Constant,
    /// A checksum does not match.
    Checksum,
    /// No message has such a command.
    Command,
    /// A field does not hold what it is for: a number, a text, a topic.
    Value,
    /// The functions of the codec failed.
    Function,
    /// What is to be sent does not fit into the frame.
    Unfit,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TooLong,
        Self::Length,
        Self::Constant,
        Self::Checksum,
        Self::Command,
        Self::Value,
        Self::Function,
        Self::Unfit,
    ];

    /// As a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Length => "length",
            Self::Constant => "constant",
            Self::Checksum => "checksum",
            Self::Command => "command",
            Self::Value => "value",
            Self::Function => "function",
            Self::Unfit => "unfit",
        }
    }
}

/// Why bytes are no frame, which ends the connection; or why a frame can't be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({})", fault.name())]
pub struct FrameError {
    /// What kind of fault.
    pub fault: Fault,
    /// In words, with the name of the field and what was found.
    pub detail: String,
}

impl FrameError {
    /// With these words.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into() }
    }
}

/// How pushes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// No frame says so.
    None,
    /// One push at a time; the next ack is for it.
    InTurn,
    /// By tag, a number below two to the power of so many bits.
    Tagged {
        /// From 1 to 64.
        bits: u8,
    },
}

/// What a codec's frames can say: what may be expected of a device, and told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Server frames that exist.
    pub answers: Answers,
    /// How pushes are acknowledged; `None` if there are no pushes.
    pub pushes: Option<Acknowledgement>,
    /// Seconds of silence that a device promises not to exceed (a half more is granted); 0: none.
    pub keep_alive_seconds: u16,
    /// Whether a hello ends the session that was there before.
    pub clean_start: bool,
}

/// Which answers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// To hello.
    pub welcome: bool,
    /// To ping.
    pub pong: bool,
    /// To a publish.
    pub accepted: Option<Accepts>,
    /// To what is not taken.
    pub refused: bool,
}

/// Whose publishes can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Those with a tag.
    Tagged,
    /// All: answers come in the order of the publishes.
    InTurn,
}

/// Reads and writes the frames of one listener. Declarations and functions of scripts are codecs.
pub trait Codec {
    /// Reads the frame at the start of `bytes`. `client` is the name of the device that sends it, empty before its hello.
    ///
    /// # Errors
    /// If it can't become a frame, whatever follows: the connection is over.
    fn decode<'a>(&'a mut self, bytes: &'a [u8], client: &str) -> Result<Decoded<'a>, FrameError>;

    /// Appends a frame to `into`.
    ///
    /// # Errors
    /// If it can't be said in such frames; then `into` is as before.
    fn encode(&mut self, frame: &Frame<'_>, into: &mut Vec<u8>) -> Result<(), FrameError>;

    /// Largest frame, in bytes.
    fn frame_bytes_max(&self) -> usize;

    /// What its frames can say.
    fn abilities(&self) -> Abilities;
}

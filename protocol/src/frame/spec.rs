//! What an author writes, without any language: texts and numbers, names not resolved yet.

use super::{Checksum, Kind};

/// A codec, as its author declares it. [`super::Plan::compile`] says whether it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Where a frame ends.
    pub framing: Framing,
    /// In their order on the wire.
    pub fields: Vec<Field>,
    /// What frames mean; of several that fit, the first counts.
    pub messages: Vec<Message>,
    /// Seconds between two frames of a device at most (a half more is granted); 0: no limit.
    pub keep_alive_seconds: u16,
    /// Whether a hello ends the session that was there before.
    pub clean_start: bool,
}

/// Where a frame ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// All are of one size [INT-1].
    Fixed {
        /// That one.
        bytes: u32,
    },
    /// These bytes end it, and are no part of a field [INT-2].
    Delimited {
        /// 1 to 4 bytes.
        by: Vec<u8>,
        /// Longest frame with its delimiter.
        bytes_max: u32,
    },
    /// A field says it [INT-3].
    Length {
        /// A number in front of all fields of variable size.
        field: String,
        /// The whole frame has `value + plus` bytes.
        plus: i64,
        /// Longest frame.
        bytes_max: u32,
    },
    /// It ends with its last field: each one's size is known from those before it [INT-3].
    Fields {
        /// Longest frame.
        bytes_max: u32,
    },
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// `[a-z_][a-z0-9_]*`, not `client`; unique.
    pub name: String,
    /// What is in it.
    pub shape: Shape,
}

/// What is in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A number; the next one begins where it ends, at any bit.
    Number {
        /// 1 to 64.
        bits: u8,
        /// In two's complement.
        signed: bool,
        /// Little endian only for whole bytes.
        endian: Endian,
        /// It is always this one.
        constant: Option<u64>,
    },
    /// Bytes that are always these.
    Constant(Vec<u8>),
    /// Bytes.
    Bytes {
        /// How many.
        size: Size,
        /// Trimmed from the end when read, filled in when written.
        pad: Option<u8>,
    },
    /// Over all bytes from one field to another, both included.
    Checksum {
        /// Which one.
        algorithm: Checksum,
        /// First field.
        from: String,
        /// Last field.
        to: String,
        /// How it is stored.
        endian: Endian,
    },
}

/// How many bytes a field has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many.
    Fixed(u32),
    /// What the others leave.
    Rest,
    /// `value + plus`, where `value` is that of a number in front of it.
    Counted {
        /// That number.
        field: String,
        /// What the number does not count.
        plus: i64,
    },
}

/// The order of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endian {
    /// High byte first.
    #[default]
    Big,
    /// Low byte first.
    Little,
}

/// What a frame means, and where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub kind: Kind,
    /// The values by which it is known; all must hold. In frames of the server: what is written there.
    pub when: Vec<Condition>,
    /// A pattern that a field's text has.
    pub text: Option<TextPattern>,
    /// Hello: a template of the client's name.
    pub client: Option<String>,
    /// Hello: a template of the user's name.
    pub user: Option<String>,
    /// Hello: a template of the password.
    pub password: Option<String>,
    /// Publish: a template. Push: `"{field}"`, where it is written.
    pub topic: Option<String>,
    /// Publish and push.
    pub payload: Option<Payload>,
    /// A number, or a word of the pattern that is one.
    pub tag: Option<String>,
    /// Refused: where the reason code is written.
    pub reason: Option<String>,
}

impl Message {
    /// One of which nothing is said yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            when: Vec::new(),
            text: None,
            client: None,
            user: None,
            password: None,
            topic: None,
            payload: None,
            tag: None,
            reason: None,
        }
    }
}

/// A field has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// A number that is no constant.
    pub field: String,
    /// Its value.
    pub value: Wanted,
}

/// Which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Is(u64),
    /// In an answer: the command of what is answered, which is the value of its first condition.
    Asked,
}

/// The text of a field: literals and names in braces. A word ends where the next literal begins, the last takes the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPattern {
    /// Bytes.
    pub field: String,
    /// For example `PUB {topic} {payload}`.
    pub pattern: String,
}

/// What the payload of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The bytes of a field or a word; a number as decimal text.
    Field(String),
    /// A JSON object of these. For publishes only.
    Json(Vec<String>),
}

/// Why a declaration can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct SpecError {
    /// What is wrong: "field `content`", "message `publish`", "framing".
    pub place: String,
    /// Why.
    pub detail: String,
}

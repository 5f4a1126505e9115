//! The bytes of one record (`docs/storage-format.md`, "Record"). Encoding can't fail; decoding takes any
//! bytes and answers with a record or an error, never with a panic and never with an allocation that
//! the bytes do not pay for.
//!
//! If you add a kind of record: a new number here and in the document, never a reused one.

mod decode;
mod encode;
pub(crate) mod wire;

pub use decode::{RecordError, decode};
pub use encode::encode;

pub(crate) use decode::{message as decode_message, recipient as decode_recipient};
pub(crate) use encode::{message as encode_message, recipient as encode_recipient};

/// First byte of each record.
mod kind {
    pub const QUEUE_BEGIN: u8 = 1;
    pub const CONNECTED: u8 = 2;
    pub const DISCONNECTED: u8 = 3;
    pub const QUEUE_END: u8 = 4;
    pub const WILL_SET: u8 = 5;
    pub const SUBSCRIBE: u8 = 6;
    pub const UNSUBSCRIBE: u8 = 7;
    pub const PUBLISH: u8 = 8;
    pub const SETTLE: u8 = 9;
    pub const TAGGED: u8 = 10;
    pub const RECEIVED: u8 = 11;
    pub const INBOUND_BEGIN: u8 = 12;
    pub const INBOUND_END: u8 = 13;
    pub const RETAIN: u8 = 14;
    pub const RETAIN_CLEAR: u8 = 15;
    pub const REGISTER: u8 = 16;
    pub const UNREGISTER: u8 = 17;
    pub const WATERMARK: u8 = 18;
    pub const ORDINALS_USED: u8 = 19;
    pub const RETAINED_DUE: u8 = 20;
    pub const RETAINED_GIVEN: u8 = 21;
    pub const TRANSFER: u8 = 22;
    pub const ATTEMPT: u8 = 23;
    pub const PARK: u8 = 24;
    pub const KEY: u8 = 25;
    pub const NOTED: u8 = 26;
    pub const FULL_SYNC: u8 = 27;
}

/// First byte of each field of a message's extras.
mod extra {
    pub const DEATH: u8 = 1;
    pub const ORIGINAL: u8 = 2;
    pub const REQUEUES: u8 = 3;
    pub const LETTER: u8 = 4;
    pub const PRIORITY: u8 = 5;
    pub const COLLAPSE_KEY: u8 = 6;
    pub const DELIVER_AT: u8 = 7;
    pub const IDEMPOTENCY_KEY: u8 = 8;
    pub const RECEIPT: u8 = 9;
    pub const ATTEMPTS_MAX: u8 = 10;
    pub const AGE_MAX: u8 = 11;
    pub const SCHEDULED_BY: u8 = 12;
}

/// Flag bits of how a delivery ended.
mod death_flag {
    pub const PUSH: u8 = 1;
    pub const GROUP: u8 = 1 << 1;
    pub const ERROR: u8 = 1 << 2;
}

/// Flag bits of a message, a will, a recipient and the options of a subscription.
mod flag {
    pub const QOS: u8 = 0b11;
    pub const RETAIN: u8 = 1 << 2;
    pub const EXPIRES: u8 = 1 << 3;
    pub const PUBLISHER: u8 = 1 << 4;
    pub const PROPERTIES: u8 = 1 << 5;
    pub const EXTRAS: u8 = 1 << 6;

    pub const IDENTIFIERS_SHIFT: u8 = 3;
    pub const IDENTIFIERS_MANY: u8 = 3;
    pub const NEAR: u8 = 1 << 5;
    pub const GROUP: u8 = 1 << 6;
    pub const GIVEN: u8 = 1 << 7;

    pub const NO_LOCAL: u8 = 1 << 2;
    pub const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
    pub const RETAIN_HANDLING_SHIFT: u8 = 4;
    pub const IDENTIFIER: u8 = 1 << 6;
}

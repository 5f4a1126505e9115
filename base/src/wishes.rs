//! What a publisher wishes for its message, beyond what MQTT has (DESIGN 5): as user properties of MQTT 5, as fields of the
//! API.

use std::num::NonZeroU32;

use bytestring::ByteString;

use crate::WallMillis;

/// Which of the messages that wait for a recipient go first. Among equals the order of publication stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// After all others.
    Low = 0,
    /// As if nothing was said.
    #[default]
    Normal = 1,
    /// Before all others.
    High = 2,
}

impl Priority {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The one with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }

    /// Its name, in properties and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// Of what a publisher wants to be told. Each level includes those before it; `dead` alone tells only of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReceiptLevel {
    /// The message is as safe as `durability` asks, and for whom.
    Stored = 1,
    /// And each send.
    Sent = 2,
    /// And each acknowledgement, or other end.
    Acknowledged = 3,
    /// Only what ends without an acknowledgement.
    Dead = 4,
}

impl ReceiptLevel {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Stored, Self::Sent, Self::Acknowledged, Self::Dead];

    /// The one with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| *level as u8 == number)
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Its name, in properties and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Sent => "sent",
            Self::Acknowledged => "acknowledged",
            Self::Dead => "dead",
        }
    }
}

/// What is wished for one message. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wishes {
    /// Before or after others.
    pub priority: Priority,
    /// What has this key and has not been sent is replaced by it, in the queue of each recipient.
    pub collapse_key: Option<ByteString>,
    /// Not before that.
    pub deliver_at: Option<WallMillis>,
    /// A repeat under the same key is answered, not published again.
    pub idempotency_key: Option<ByteString>,
    /// What its publisher is told.
    pub receipt: Option<ReceiptLevel>,
    /// How often it is sent to one recipient, instead of `retry.max_attempts`.
    pub attempts_max: Option<NonZeroU32>,
    /// For how many milliseconds, instead of `retry.max_age`; 0: without limit.
    pub age_max_ms: Option<u64>,
}

/// A wish that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub struct WishError {
    /// The name of the user property.
    pub name: &'static str,
    /// What is wrong.
    pub why: &'static str,
}

/// The names of the user properties.
pub mod property {
    /// All of them begin so.
    pub const PREFIX: &str = "postroad-";
    /// `high`, `normal` or `low`.
    pub const PRIORITY: &str = "postroad-priority";
    /// A text.
    pub const COLLAPSE_KEY: &str = "postroad-collapse-key";
    /// Milliseconds since 1970.
    pub const DELIVER_AT: &str = "postroad-deliver-at-unix-ms";
    /// Seconds from the moment at which the server takes it in.
    pub const DELIVER_AFTER: &str = "postroad-deliver-after-seconds";
    /// A text.
    pub const IDEMPOTENCY_KEY: &str = "postroad-idempotency-key";
    /// `stored`, `sent`, `acknowledged` or `dead`.
    pub const RECEIPT: &str = "postroad-receipt";
    /// A number above 0.
    pub const RETRY_ATTEMPTS_MAX: &str = "postroad-retry-attempts-max";
    /// A number; 0: without limit.
    pub const RETRY_AGE_MAX: &str = "postroad-retry-age-max-seconds";
}

impl Wishes {
    /// Longest collapse and idempotency key, in bytes.
    pub const KEY_BYTES_MAX: usize = 255;
    /// Longest time that anything may be put off, in seconds: what is above it was meant otherwise. 10 years.
    pub const SECONDS_MAX: u64 = 10 * 366 * 86_400;

    /// Whether nothing is wished.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What is left of them for a message that repeats this one: it is published now, is another publish, and does not replace
    /// what is newer than the one that it repeats.
    #[must_use]
    pub fn of_repeat(&self) -> Self {
        Self { deliver_at: None, idempotency_key: None, collapse_key: None, ..self.clone() }
    }

    /// Takes in what a user property says, if it is one of these; whether it was. `now` is when the message came in.
    ///
    /// # Errors
    /// If the property is one of these, and its value is none that it can have.
    pub fn take(&mut self, name: &str, value: &str, now: WallMillis) -> Result<bool, WishError> {
        use property as p;
        if !name.starts_with(p::PREFIX) {
            return Ok(false);
        }
        match name {
            p::PRIORITY => {
                self.priority =
                    Priority::from_name(value).ok_or(wrong(p::PRIORITY, "neither high nor normal nor low"))?;
            }
            p::COLLAPSE_KEY => self.collapse_key = Some(key(p::COLLAPSE_KEY, value)?),
            p::DELIVER_AT => self.deliver_at = Some(WallMillis(number(p::DELIVER_AT, value, u64::MAX)?)),
            p::DELIVER_AFTER => {
                self.deliver_at = Some(now.after(1000 * number(p::DELIVER_AFTER, value, Self::SECONDS_MAX)?))
            }
            p::IDEMPOTENCY_KEY => self.idempotency_key = Some(key(p::IDEMPOTENCY_KEY, value)?),
            p::RECEIPT => {
                let level = ReceiptLevel::from_name(value);
                self.receipt =
                    Some(level.ok_or(wrong(p::RECEIPT, "neither stored nor sent nor acknowledged nor dead"))?);
            }
            p::RETRY_ATTEMPTS_MAX => {
                let attempts = number(p::RETRY_ATTEMPTS_MAX, value, u32::MAX.into())?;
                let attempts = u32::try_from(attempts).ok().and_then(NonZeroU32::new);
                self.attempts_max = Some(attempts.ok_or(wrong(p::RETRY_ATTEMPTS_MAX, "not a number above 0"))?);
            }
            p::RETRY_AGE_MAX => self.age_max_ms = Some(1000 * number(p::RETRY_AGE_MAX, value, Self::SECONDS_MAX)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether they can be, as a whole.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self, now: WallMillis) -> Result<(), WishError> {
        if self.deliver_at.is_some_and(|at| at > now.after(1000 * Self::SECONDS_MAX)) {
            return Err(wrong(property::DELIVER_AT, "more than ten years from now"));
        }
        Ok(())
    }

    /// Whether they can be those of a will: its delay interval puts it off, and the server publishes it, which knows what it has done.
    ///
    /// # Errors
    /// If not.
    pub fn check_for_will(&self) -> Result<(), WishError> {
        if self.deliver_at.is_some() {
            return Err(wrong(property::DELIVER_AT, "a will is put off by its delay interval"));
        }
        if self.idempotency_key.is_some() {
            return Err(wrong(property::IDEMPOTENCY_KEY, "a will has none"));
        }
        Ok(())
    }
}

fn wrong(name: &'static str, why: &'static str) -> WishError {
    WishError { name, why }
}

fn key(name: &'static str, value: &str) -> Result<ByteString, WishError> {
    if value.is_empty() || value.len() > Wishes::KEY_BYTES_MAX || value.contains('\0') {
        return Err(wrong(name, "must have 1 to 255 bytes, none of them 0"));
    }
    Ok(value.into())
}

fn number(name: &'static str, value: &str, most: u64) -> Result<u64, WishError> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| is_plain && *number <= most);
    number.ok_or(wrong(name, "not a number, or too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMillis = WallMillis(1_000_000);

    fn taken(properties: &[(&str, &str)]) -> Result<Wishes, WishError> {
        let mut wishes = Wishes::default();
        for (name, value) in properties {
            let _is_wish = wishes.take(name, value, NOW)?;
        }
        wishes.check(NOW)?;
        Ok(wishes)
    }

    #[test]
    fn every_wish_has_a_property() {
        let wishes = taken(&[
            (property::PRIORITY, "high"),
            (property::COLLAPSE_KEY, "temperature"),
            (property::DELIVER_AFTER, "60"),
            (property::IDEMPOTENCY_KEY, "order 7"),
            (property::RECEIPT, "acknowledged"),
            (property::RETRY_ATTEMPTS_MAX, "3"),
            (property::RETRY_AGE_MAX, "0"),
            ("postroad-letter", "0-3-1017"), // of somebody who sends on what we said
            ("colour", "red"),
        ]);
        let expected = Wishes {
            priority: Priority::High,
            collapse_key: Some("temperature".into()),
            deliver_at: Some(WallMillis(1_060_000)),
            idempotency_key: Some("order 7".into()),
            receipt: Some(ReceiptLevel::Acknowledged),
            attempts_max: NonZeroU32::new(3),
            age_max_ms: Some(0),
        };
        assert_eq!(wishes, Ok(expected));
        assert_eq!(taken(&[(property::DELIVER_AT, "77")]).map(|wishes| wishes.deliver_at), Ok(Some(WallMillis(77))));
        assert!(taken(&[("colour", "red")]).is_ok_and(|wishes| wishes.is_none()));
    }

    #[test]
    fn what_can_t_be_is_refused_by_its_name() {
        let long = "x".repeat(256);
        let far = (NOW.0 + 1000 * Wishes::SECONDS_MAX + 1).to_string();
        let cases = [
            (property::PRIORITY, "urgent"),
            (property::COLLAPSE_KEY, ""),
            (property::IDEMPOTENCY_KEY, long.as_str()),
            (property::IDEMPOTENCY_KEY, "a\0b"),
            (property::DELIVER_AT, far.as_str()),
            (property::DELIVER_AT, "tomorrow"),
            (property::DELIVER_AFTER, "-1"),
            (property::DELIVER_AFTER, "+1"),
            (property::DELIVER_AFTER, "18446744073709551615"),
            (property::RECEIPT, "all"),
            (property::RETRY_ATTEMPTS_MAX, "0"),
            (property::RETRY_ATTEMPTS_MAX, "4294967296"),
            (property::RETRY_AGE_MAX, ""),
        ];
        for (name, value) in cases {
            assert_eq!(taken(&[(name, value)]).map_err(|error| error.name), Err(name), "{value:.20}");
        }
    }

    #[test]
    fn a_will_has_no_time_and_no_key() {
        let check = |properties| taken(properties).map(|wishes| wishes.check_for_will().map_err(|error| error.name));
        assert_eq!(check(&[(property::PRIORITY, "high"), (property::RECEIPT, "dead")]), Ok(Ok(())));
        assert_eq!(check(&[(property::DELIVER_AFTER, "1")]), Ok(Err(property::DELIVER_AT)));
        assert_eq!(check(&[(property::IDEMPOTENCY_KEY, "k")]), Ok(Err(property::IDEMPOTENCY_KEY)));
    }

    #[test]
    fn names_and_numbers_are_read_back() {
        for priority in Priority::ALL {
            assert_eq!(Priority::from_name(priority.name()), Some(priority));
            assert_eq!(Priority::from_number(priority as u8), Some(priority));
        }
        for level in ReceiptLevel::ALL {
            assert_eq!(ReceiptLevel::from_name(level.name()), Some(level));
            assert_eq!(ReceiptLevel::from_number(level as u8), Some(level));
        }
        assert!(Priority::Low < Priority::Normal && Priority::Normal < Priority::High);
        assert_eq!((Priority::from_number(3), ReceiptLevel::from_number(0)), (None, None));
    }
}

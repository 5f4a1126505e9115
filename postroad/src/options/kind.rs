//! The types of option values: how each is read, checked against its range, and written.

use std::fmt;
use std::net::SocketAddr;

/// Type, unit and range of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number of things.
    Count { min: u64, max: u64, unit: &'static str },
    /// A size in bytes: a number, or a text such as `"64MiB"`.
    Bytes { min: u64, max: u64 },
    /// A time such as `"500ms"`, `"30s"`, `"5m"`, `"12h"`, `"7d"`. Range and step in milliseconds.
    Time { min: u64, max: u64, step: u64 },
    /// As `Time`, in whole seconds, or `"never"`.
    TimeOrNever { min: u64, max: u64 },
    /// `"auto"`, or a whole number.
    AutoOrCount { min: u64, max: u64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `address:port`; empty is off.
    Address,
    /// A path; empty is none.
    Path,
}

/// A value that has passed its [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Things, bytes or milliseconds.
    Number(u64),
    /// A word, a path, an address.
    Text(String),
}

impl Value {
    /// # Panics
    /// If it is a text: the table's row asks its own kind.
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => panic!("{text:?} where the table promises a number"),
        }
    }

    /// # Panics
    /// If it is a number: the table's row asks its own kind.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => panic!("{number} where the table promises a text"),
        }
    }
}

const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIME_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Kind {
    /// Reads a TOML value.
    ///
    /// # Errors
    /// What is allowed, to follow "must be".
    pub fn read(&self, value: &toml::Value) -> Result<Value, String> {
        match (self, value) {
            (_, toml::Value::String(text)) if !matches!(self, Self::Count { .. }) => self.parse(text),
            (Self::Count { .. } | Self::Bytes { .. } | Self::AutoOrCount { .. }, toml::Value::Integer(number)) => {
                self.parse(&number.to_string())
            }
            _ => Err(self.allowed()),
        }
    }

    /// Reads a text, as `--set` gives it.
    ///
    /// # Errors
    /// What is allowed, to follow "must be".
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let number = match self {
            Self::Count { min, max, .. } => in_range(text.parse().ok(), *min, *max),
            Self::Bytes { min, max } => {
                in_range(with_unit(text, &BYTE_UNITS).or_else(|| text.parse().ok()), *min, *max)
            }
            Self::Time { min, max, step } => in_range(time(text), *min, *max).filter(|ms| ms % step == 0),
            Self::TimeOrNever { .. } | Self::AutoOrCount { .. } | Self::Choice(_) if self.words().contains(&text) => {
                return Ok(Value::Text(text.to_owned()));
            }
            Self::TimeOrNever { min, max } => in_range(time(text), *min, *max).filter(|ms| ms % 1000 == 0),
            Self::AutoOrCount { min, max } => in_range(text.parse().ok(), *min, *max),
            Self::Choice(_) => None,
            Self::Address if text.is_empty() || text.parse::<SocketAddr>().is_ok() => {
                return Ok(Value::Text(text.to_owned()));
            }
            Self::Address => None,
            Self::Path if !text.contains('\0') => return Ok(Value::Text(text.to_owned())),
            Self::Path => None,
        };
        number.map(Value::Number).ok_or_else(|| self.allowed())
    }

    /// The words that it takes beside numbers.
    fn words(&self) -> &'static [&'static str] {
        match self {
            Self::Choice(words) => words,
            Self::TimeOrNever { .. } => &["never"],
            Self::AutoOrCount { .. } => &["auto"],
            _ => &[],
        }
    }

    /// The allowed range in words.
    pub fn allowed(&self) -> String {
        let bytes = |number| self.show(&Value::Number(number));
        match self {
            Self::Count { min, max, unit } => format!("{min} to {max} {unit}").trim_end().to_owned(),
            Self::Bytes { min, max } => format!("{} to {} (bytes, KiB, MiB, GiB)", bytes(*min), bytes(*max)),
            Self::Time { min, max, step } => {
                let whole = if *step == 1000 { ", in whole seconds" } else { "" };
                format!("{} to {} (ms, s, m, h, d){whole}", show_time(*min), show_time(*max))
            }
            Self::TimeOrNever { min, max } => {
                format!("\"never\", or {} to {} (s, m, h, d)", show_time(*min), show_time(*max))
            }
            Self::AutoOrCount { min, max } => format!("\"auto\", or {min} to {max}"),
            Self::Choice(words) => Choices(words).to_string(),
            Self::Address => "an address and port such as \"127.0.0.1:1883\" or \"[::1]:1883\", or \"\" for off".into(),
            Self::Path => "a path, or \"\" for none".into(),
        }
    }

    /// The type in a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Count { .. } => "number",
            Self::Bytes { .. } => "size",
            Self::Time { .. } | Self::TimeOrNever { .. } => "time",
            Self::AutoOrCount { .. } => "number or word",
            Self::Choice(_) => "word",
            Self::Address => "address",
            Self::Path => "path",
        }
    }

    /// The value as an operator writes it, without quotes.
    pub fn show(&self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Text(text)) => text.clone(),
            (Self::Bytes { .. }, Value::Number(number)) => show_bytes(*number),
            (Self::Time { .. } | Self::TimeOrNever { .. }, Value::Number(number)) => show_time(*number),
            (_, Value::Number(number)) => number.to_string(),
        }
    }

    /// The value in TOML.
    pub fn toml(&self, value: &Value) -> String {
        let shown = self.show(value);
        let is_number = matches!(value, Value::Number(_)) && shown.bytes().all(|b| b.is_ascii_digit());
        if is_number { shown } else { toml::Value::String(shown).to_string() }
    }
}

struct Choices(&'static [&'static str]);

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { " or " };
            write!(f, "{before}\"{word}\"")?;
        }
        Ok(())
    }
}

fn in_range(number: Option<u64>, min: u64, max: u64) -> Option<u64> {
    number.filter(|number| (min..=max).contains(number))
}

/// `<digits><unit>`, blanks between them allowed.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn time(text: &str) -> Option<u64> {
    if text == "0" { Some(0) } else { with_unit(text, &TIME_UNITS) }
}

fn show_bytes(number: u64) -> String {
    let unit = BYTE_UNITS[..3].iter().find(|(_, factor)| number > 0 && number.is_multiple_of(*factor));
    unit.map_or_else(|| number.to_string(), |(name, factor)| format!("{}{name}", number / factor))
}

fn show_time(ms: u64) -> String {
    let unit = TIME_UNITS.iter().rev().find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", ms / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Kind = Kind::Bytes { min: 1024, max: 1 << 40 };
    const TIME: Kind = Kind::Time { min: 0, max: 86_400_000, step: 1 };

    #[test]
    fn sizes_and_times_have_units() {
        for (text, bytes) in [("1024", 1024), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("2048B", 2048)] {
            assert_eq!(BYTES.parse(text), Ok(Value::Number(bytes)), "{text}");
        }
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1d", 86_400_000), ("0", 0)] {
            assert_eq!(TIME.parse(text), Ok(Value::Number(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_outside_is_refused_with_the_range() {
        for text in ["1023", "-1", "64Mb", "", "MiB", "99999999999999999999GiB"] {
            assert_eq!(BYTES.parse(text), Err("1KiB to 1024GiB (bytes, KiB, MiB, GiB)".into()), "{text}");
        }
        for text in ["10", "2d", "1.5s", "s"] {
            assert!(TIME.parse(text).is_err(), "{text}");
        }
        let seconds = Kind::Time { min: 0, max: 60_000, step: 1000 };
        assert!(seconds.parse("1500ms").is_err() && seconds.parse("2000ms").is_ok());
    }

    #[test]
    fn toml_types_are_not_mixed_up() {
        let count = Kind::Count { min: 1, max: 9, unit: "" };
        assert_eq!(count.read(&toml::Value::Integer(5)), Ok(Value::Number(5)));
        assert!(count.read(&toml::Value::String("5".into())).is_err());
        assert!(count.read(&toml::Value::Integer(-5)).is_err());
        assert!(TIME.read(&toml::Value::Integer(5)).is_err(), "a time without unit");
        assert!(Kind::Path.read(&toml::Value::Boolean(true)).is_err());
    }

    #[test]
    fn words_are_listed_when_another_is_given() {
        let kind = Kind::Choice(&["fsync", "os"]);
        assert_eq!(kind.parse("sync"), Err("\"fsync\" or \"os\"".into()));
    }

    proptest::proptest! {
        #[test]
        fn numbers_come_back_from_what_is_shown(number in 1024_u64..1 << 40, ms in 0_u64..86_400_000) {
            for (kind, number) in [(BYTES, number), (TIME, ms)] {
                let value = Value::Number(number);
                proptest::prop_assert_eq!(kind.parse(&kind.show(&value)), Ok(value));
            }
        }
    }
}

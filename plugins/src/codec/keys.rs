//! Tables by key: what is there is taken, what is left is unknown.

use postroad_protocol::frame::SpecError;

use crate::Plain;
use crate::diagnostic::nearest;

/// Where what is wrong with the whole table stands.
pub(super) const WHOLE: &str = "codec";

pub(super) type Result<T> = std::result::Result<T, SpecError>;

/// A table with keys of text, and where it stands.
pub(super) struct Keys<'a> {
    place: String,
    entries: &'a [(Plain, Plain)],
    known: &'static [&'static str],
}

impl<'a> Keys<'a> {
    /// A table that may have these keys.
    pub(super) fn of(place: String, plain: &'a Plain, known: &'static [&'static str]) -> Result<Self> {
        let entries = match plain {
            Plain::Map(entries) => &entries[..],
            _ => return Err(error(&place, "expected a table with names")),
        };
        for (key, _) in entries {
            let Some(name) = key.as_str() else { return Err(error(&place, "keys are texts only")) };
            if !known.contains(&name) {
                let shown: String = name.chars().take(64).collect();
                return Err(error(
                    &place,
                    match nearest(name, known.iter().copied()) {
                        Some(near) => format!("unknown key '{shown}': did you mean '{near}'?"),
                        None => format!("unknown key '{shown}': known are {}", known.join(", ")),
                    },
                ));
            }
        }
        Ok(Self { place, entries, known })
    }

    /// The value under a key; nil counts as none.
    pub(super) fn get(&self, key: &str) -> Option<&'a Plain> {
        debug_assert!(self.known.contains(&key));
        let entry = self.entries.iter().find(|(name, _)| name.as_str() == Some(key));
        entry.map(|(_, value)| value).filter(|value| **value != Plain::Nil)
    }

    pub(super) fn place_of(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    pub(super) fn error<T>(&self, detail: impl Into<String>) -> Result<T> {
        Err(error(&self.place, detail))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key).map(|value| self.expect(key, "a text", value.as_str().map(str::to_owned))).transpose()
    }

    /// Any bytes.
    pub(super) fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let bytes = |value: &Plain| match value {
            Plain::Bytes(bytes) => Some(bytes.to_vec()),
            _ => None,
        };
        self.get(key).map(|value| self.expect(key, "a string", bytes(value))).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Plain::Boolean(flag)) => Ok(*flag),
            Some(_) => self.expect(key, "true or false", None),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.get(key).map(|value| self.expect(key, "a whole number", whole(value))).transpose()
    }

    /// A whole number of another size.
    pub(super) fn number<N: TryFrom<i64>>(&self, key: &str) -> Result<Option<N>> {
        let Some(number) = self.integer(key)? else { return Ok(None) };
        let out_of_range = |_| error(&self.place_of(key), format!("{number} is out of range"));
        N::try_from(number).map(Some).map_err(out_of_range)
    }

    /// What must be there.
    pub(super) fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.map_or_else(|| self.error(format!("'{key}' is missing")), Ok)
    }

    /// The elements of an array, with their places; none if it is not there.
    pub(super) fn array(&self, key: &str) -> Result<Vec<(String, &'a Plain)>> {
        let elements = match self.get(key) {
            None => &[][..],
            Some(Plain::Array(elements)) => &elements[..],
            Some(Plain::Map(entries)) if entries.is_empty() => &[][..],
            Some(_) => return self.expect(key, "an array", None),
        };
        let place = |number: usize| format!("{}[{}]", self.place_of(key), number + 1);
        Ok(elements.iter().enumerate().map(|(number, element)| (place(number), element)).collect())
    }

    pub(super) fn expect<T>(&self, key: &str, what: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| error(&self.place_of(key), format!("expected {what}")))
    }
}

/// As Lua has whole numbers: as such, or as a number without a fraction.
pub(super) fn whole(value: &Plain) -> Option<i64> {
    match value {
        Plain::Integer(number) => Some(*number),
        Plain::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
        _ => None,
    }
}

pub(super) fn error(place: &str, detail: impl Into<String>) -> SpecError {
    let place = if place.is_empty() { WHOLE.to_owned() } else { place.to_owned() };
    SpecError { place, detail: detail.into() }
}

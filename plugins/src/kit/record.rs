//! Reading tables of a test: each key is asked for by name, and what nobody asked for is an error, with the nearest name.

use bytes::Bytes;
use bytestring::ByteString;

use crate::Plain;
use crate::diagnostic::nearest;

/// A table whose keys are names, while it is read.
pub(super) struct Fields<'a> {
    what: &'static str,
    entries: Vec<(&'a str, &'a Plain)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Of this table; `what` is what it is called in errors.
    pub(super) fn of(what: &'static str, table: &'a Plain) -> Result<Self, String> {
        let entries = match table {
            Plain::Map(entries) => entries.as_slice(),
            Plain::Nil => &[],
            other => return Err(format!("{what}: expected a table with names, got {}", kind(other))),
        };
        let named = entries.iter().map(|(key, value)| {
            let key = key.as_str().ok_or_else(|| format!("{what}: a key is {}, not a name", kind(key)))?;
            Ok((key, value))
        });
        Ok(Self { what, entries: named.collect::<Result<_, String>>()?, known: Vec::new() })
    }

    /// What stands under a name; `nil` if nothing does.
    pub(super) fn take(&mut self, name: &'static str) -> &'a Plain {
        self.known.push(name);
        self.entries.iter().find(|(key, _)| *key == name).map_or(&Plain::Nil, |(_, value)| *value)
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<ByteString>, String> {
        let value = self.take(name);
        match value {
            Plain::Nil => Ok(None),
            other => other.as_str().map(|text| Some(text.into())).ok_or_else(|| self.wrong(name, "a text", other)),
        }
    }

    pub(super) fn bytes(&mut self, name: &'static str) -> Result<Option<Bytes>, String> {
        match self.take(name) {
            Plain::Nil => Ok(None),
            Plain::Bytes(bytes) => Ok(Some(bytes.clone())),
            other => Err(self.wrong(name, "a string", other)),
        }
    }

    /// A whole number from 0 to `most`.
    pub(super) fn number(&mut self, name: &'static str, most: u64) -> Result<Option<u64>, String> {
        let value = self.take(name);
        let number = match value {
            Plain::Nil => return Ok(None),
            Plain::Integer(number) => u64::try_from(*number).ok(),
            Plain::Number(number) if number.fract() == 0.0 && (0.0..=9e15).contains(number) => Some(*number as u64),
            _ => None,
        };
        let number = number.filter(|number| *number <= most);
        number.map(Some).ok_or_else(|| self.wrong(name, &format!("a whole number from 0 to {most}"), value))
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Result<bool, String> {
        match self.take(name) {
            Plain::Nil => Ok(false),
            Plain::Boolean(value) => Ok(*value),
            other => Err(self.wrong(name, "true or false", other)),
        }
    }

    /// A list of texts; empty if there is none.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<ByteString>, String> {
        let value = self.take(name);
        let wrong = || self.wrong(name, "a list of texts", value);
        match value {
            Plain::Nil => Ok(Vec::new()),
            Plain::Map(entries) if entries.is_empty() => Ok(Vec::new()),
            Plain::Array(items) => {
                items.iter().map(|item| item.as_str().map(ByteString::from).ok_or_else(wrong)).collect()
            }
            _ => Err(wrong()),
        }
    }

    /// Names with texts, in the order of the names: a table of a script has none.
    pub(super) fn pairs(&mut self, name: &'static str) -> Result<Vec<(&'a str, &'a str)>, String> {
        let value = self.take(name);
        let wrong = || self.wrong(name, "a table of texts by names", value);
        let entries = match value {
            Plain::Nil => return Ok(Vec::new()),
            Plain::Map(entries) => entries,
            _ => return Err(wrong()),
        };
        let pair = |(key, value): &'a (Plain, Plain)| key.as_str().zip(value.as_str()).ok_or_else(wrong);
        let mut pairs = entries.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
        pairs.sort_unstable();
        Ok(pairs)
    }

    /// Ends the reading.
    pub(super) fn end(self) -> Result<(), String> {
        let Self { what, entries, known } = self;
        let Some((unknown, _)) = entries.iter().find(|(key, _)| !known.contains(key)) else { return Ok(()) };
        match nearest(unknown, known.iter().copied()) {
            Some(meant) => Err(format!("{what}: unknown key \"{unknown}\": did you mean \"{meant}\"?")),
            None => Err(format!("{what}: unknown key \"{unknown}\": the keys are {}", known.join(", "))),
        }
    }

    fn wrong(&self, name: &str, expected: &str, got: &Plain) -> String {
        format!("{}: {name}: expected {expected}, got {}", self.what, kind(got))
    }
}

/// What a value is, for errors.
fn kind(value: &Plain) -> String {
    match value {
        Plain::Nil => "nil".to_owned(),
        Plain::Boolean(value) => value.to_string(),
        Plain::Integer(value) => value.to_string(),
        Plain::Number(value) => value.to_string(),
        Plain::Bytes(_) => match value.as_str() {
            Some(text) if text.len() <= 40 => format!("\"{text}\""),
            _ => "a string".to_owned(),
        },
        Plain::Array(_) => "a list".to_owned(),
        Plain::Map(_) => "a table".to_owned(),
    }
}

/// Makes a table of names.
#[derive(Default)]
pub(super) struct Table(Vec<(Plain, Plain)>);

impl Table {
    pub(super) fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Plain>) -> Self {
        let value = value.into();
        if value != Plain::Nil {
            self.0.push((name.into(), value));
        }
        self
    }
}

impl From<Table> for Plain {
    fn from(table: Table) -> Self {
        Self::Map(table.0)
    }
}

impl From<&str> for Plain {
    fn from(text: &str) -> Self {
        Self::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Bytes> for Plain {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<bool> for Plain {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<u64> for Plain {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::Number(value as f64), Self::Integer)
    }
}

impl From<f64> for Plain {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl<T: Into<Plain>> From<Vec<T>> for Plain {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Plain>> From<Option<T>> for Plain {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nil, Into::into)
    }
}

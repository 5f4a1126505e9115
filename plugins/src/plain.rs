//! Values of a script as plain data: what goes from one generation to the next, and what a codec's table says.

use bytes::Bytes;

/// Data without functions, coroutines, metatables or cycles.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Plain {
    /// `nil`.
    #[default]
    Nil,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction, or beyond 64 bits.
    Number(f64),
    /// A string: any bytes.
    Bytes(Bytes),
    /// A table whose keys are 1 to n.
    Array(Vec<Plain>),
    /// Any other table; an empty one is a map. Keys are booleans, numbers or strings.
    Map(Vec<(Plain, Plain)>),
}

impl Plain {
    /// The value under a key of text, if it is a map that has one.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// It as text, if it is a string of UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

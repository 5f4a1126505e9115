//! Reads the data types of the wire (MQTT 5, section 1.5) off the front of a slice. Nothing is copied.

use super::{DecodeError, Result};

pub(crate) const SHORT: DecodeError = DecodeError::malformed("packet ends within a field");

/// What is left of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (&head, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn variable_int(&mut self) -> Result<u32> {
        let (value, size) = variable_int(self.rest)?.ok_or(SHORT)?;
        self.rest = &self.rest[size..];
        Ok(value)
    }

    /// Binary data: two bytes of length, then as many bytes.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string: well formed, without surrogates `[MQTT-1.5.4-1]` and without U+0000 `[MQTT-1.5.4-2]`.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::malformed("text is not well-formed UTF-8"))?;
        if bytes.contains(&0) {
            return Err(DecodeError::malformed("text holds the null character"));
        }
        Ok(text)
    }

    /// Skips a byte that is 0; whether there was one.
    pub(crate) fn skip_zero(&mut self) -> bool {
        let is_zero = self.rest.first() == Some(&0);
        self.rest = &self.rest[usize::from(is_zero)..];
        is_zero
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::malformed("bytes behind the last field of the packet")) }
    }
}

/// A variable byte integer at the start of `input`, and its size; `None` if it goes on behind the end.
///
/// At most four bytes, and no more than it needs `[MQTT-1.5.5-1]`.
pub(crate) fn variable_int(input: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::malformed("variable byte integer is longer than its value needs"));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() < 4 {
        Ok(None)
    } else {
        Err(DecodeError::malformed("variable byte integer of more than four bytes"))
    }
}

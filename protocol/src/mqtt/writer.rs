//! Writes the data types of the wire (MQTT 5, section 1.5), or only counts what it would write: sizes come from the
//! code that writes, so they can't disagree with it.

use super::REMAINING_LENGTH_MAX;
use super::property::Property;

/// Appends to a buffer, or counts.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: Option<&'a mut Vec<u8>>,
    len: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn to(out: &'a mut Vec<u8>) -> Self {
        Self { out: Some(out), len: 0 }
    }

    pub(crate) fn counter() -> Self {
        Self { out: None, len: 0 }
    }

    /// Bytes written or counted so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.raw(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn variable_int(&mut self, value: u32) {
        let (bytes, len) = variable_int(value);
        self.raw(&bytes[..len]);
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.u16(length_prefix(bytes.len()));
        self.raw(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.binary(text.as_bytes());
    }

    pub(crate) fn property(&mut self, property: Option<Property<'_>>) {
        if let Some(property) = property {
            property.write(self);
        }
    }

    /// A block of properties with its length in front. `write` is called twice: to count, then to write.
    pub(crate) fn properties(&mut self, write: impl Fn(&mut Writer<'_>)) {
        let mut counter = Writer::counter();
        write(&mut counter);
        self.variable_int(remaining_length(counter.len));
        write(self);
    }
}

/// The two bytes in front of a text.
///
/// # Panics
/// If it has more than 65,535 bytes: the caller had to check.
pub(crate) fn length_prefix(len: usize) -> u16 {
    u16::try_from(len).expect("texts and binary data are checked to have at most 65,535 bytes before they are encoded")
}

/// The remaining length as the wire type.
///
/// # Panics
/// If the packet is larger than the format allows: the caller had to check.
pub(crate) fn remaining_length(len: usize) -> u32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    assert!(len <= REMAINING_LENGTH_MAX, "a packet of {len} bytes can't be encoded: at most {REMAINING_LENGTH_MAX}");
    len
}

/// Size of a packet whose variable header and payload take `body_len` bytes.
pub(crate) fn packet_size(body_len: usize) -> usize {
    1 + variable_int_size(body_len) + body_len
}

/// Bytes that a variable byte integer takes.
pub(crate) fn variable_int_size(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// A variable byte integer and how many of the bytes it takes.
pub(crate) fn variable_int(mut value: u32) -> ([u8; 4], usize) {
    debug_assert!(value <= REMAINING_LENGTH_MAX);
    let mut bytes = [0; 4];
    let mut len = 0;
    loop {
        bytes[len] = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, len + 1);
        }
        bytes[len] |= 0x80;
        len += 1;
    }
}

//! The output of one connection between two writes: small pieces copied together, large payloads by reference.
//!
//! ```text
//! bytes:     |#consumed#|aaaaaaa|bbbbbbbbbb|cc|
//!                       start   ^upto[0]   ^upto[1]
//! on the wire:  aaaaaaa payload[0] bbbbbbbbbb payload[1] cc
//! ```
//! Invariants: `start ≤ upto[0] ≤ upto[1] ≤ … ≤ bytes.len()`; no payload is empty; `payload_bytes` is the sum of their
//! lengths. So a partial write may end at any byte, and an idle connection owns no memory after [`Gather::shrink`].

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Payloads of at least this many bytes are kept by reference instead of copied.
pub const REFERENCE_BYTES_MIN: usize = 1024;

/// Consumed bytes are cut off the front once there are this many and they are the larger part.
const COMPACT_BYTES_MIN: usize = 16 * 1024;

/// Output that waits to be written.
#[derive(Debug, Default)]
pub struct Gather {
    bytes: Vec<u8>,
    start: usize,
    payloads: VecDeque<Payload>,
    payload_bytes: usize,
}

#[derive(Debug)]
struct Payload {
    /// It goes out before `bytes[upto]`.
    upto: usize,
    data: Bytes,
}

impl Gather {
    /// An empty one; owns no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start + self.payload_bytes
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Where to encode to. Only append: what is there already is waiting to be written.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a payload: a copy of a small one, a reference to a large one.
    pub fn push_payload(&mut self, data: &Bytes) {
        if data.len() < REFERENCE_BYTES_MIN {
            return self.push(data);
        }
        self.payload_bytes += data.len();
        self.payloads.push_back(Payload { upto: self.bytes.len(), data: data.clone() });
    }

    /// Fills `slices` from the front with what to write next, and returns how many it filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// The waiting pieces in order, none empty.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = self.start;
        let with_payloads = self.payloads.iter().flat_map(move |payload| {
            let before = &self.bytes[from..payload.upto];
            from = payload.upto;
            [before, &payload.data]
        });
        let tail_start = self.payloads.back().map_or(self.start, |payload| payload.upto);
        with_payloads.chain([&self.bytes[tail_start..]]).filter(|piece| !piece.is_empty())
    }

    /// Takes the first `count` bytes away: they are written.
    ///
    /// # Panics
    /// If fewer wait.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} bytes written, but only {} were waiting", self.len());
        let mut left = count;
        while left > 0 {
            left -= self.consume_copied(left);
            left -= self.consume_payload(left);
        }
        self.compact();
    }

    /// Consumes from the bytes in front of the first payload; returns how many.
    fn consume_copied(&mut self, most: usize) -> usize {
        let end = self.payloads.front().map_or(self.bytes.len(), |payload| payload.upto);
        let count = most.min(end - self.start);
        self.start += count;
        count
    }

    /// Consumes from the first payload, if nothing stands in front of it; returns how many.
    fn consume_payload(&mut self, most: usize) -> usize {
        let Some(payload) = self.payloads.front_mut().filter(|payload| payload.upto == self.start) else {
            return 0;
        };
        let count = most.min(payload.data.len());
        payload.data.advance(count);
        self.payload_bytes -= count;
        if payload.data.is_empty() {
            self.payloads.pop_front();
        }
        count
    }

    /// Frees the room of consumed bytes, at a cost that the bytes consumed before have paid.
    fn compact(&mut self) {
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start >= COMPACT_BYTES_MIN && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.payloads.iter_mut().for_each(|payload| payload.upto -= self.start);
            self.start = 0;
        }
    }

    /// Forgets all that waits, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.payloads.clear();
        (self.start, self.payload_bytes) = (0, 0);
    }

    /// Gives back the memory if nothing waits: an idle connection owns none.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }

    /// Bytes of memory that it owns itself, without the payloads it refers to.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.payloads.capacity() * size_of::<Payload>()
    }
}

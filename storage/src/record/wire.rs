//! Varints, text and bytes: what records and the values of the old generation are made of.

use base::{PartitionId, QueueId, Sequence, WallMillis};
use bytes::Bytes;
use bytestring::ByteString;
use postroad_base as base;

use super::RecordError;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_queue(out: &mut Vec<u8>, queue: QueueId) {
    put_varint(out, u64::from(queue.partition().0));
    put_varint(out, queue.ordinal());
}

/// Takes from the front of a slice, checking lengths first.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RecordError> {
        let (&first, rest) = self.rest.split_first().ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Invalid("varint of more than 64 bits"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.varint()?).map_err(|_| RecordError::Invalid("number above 32 bits"))
    }

    pub(crate) fn slice(&mut self) -> Result<&'a [u8], RecordError> {
        let len = usize::try_from(self.varint()?).map_err(|_| RecordError::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        self.slice().map(Bytes::copy_from_slice)
    }

    pub(crate) fn text(&mut self) -> Result<ByteString, RecordError> {
        let text = std::str::from_utf8(self.slice()?).map_err(|_| RecordError::Invalid("text is not UTF-8"))?;
        Ok(ByteString::from(text))
    }

    /// A count of things of at least one byte each, so that no count asks for more room than its bytes.
    pub(crate) fn count(&mut self) -> Result<usize, RecordError> {
        let count = usize::try_from(self.varint()?).map_err(|_| RecordError::Truncated)?;
        if count > self.rest.len() { Err(RecordError::Truncated) } else { Ok(count) }
    }

    pub(crate) fn queue(&mut self) -> Result<QueueId, RecordError> {
        let partition =
            u16::try_from(self.varint()?).map_err(|_| RecordError::Invalid("partition number above 16 bits"))?;
        let ordinal = self.varint()?;
        if ordinal >> QueueId::ORDINAL_BITS != 0 {
            return Err(RecordError::Invalid("queue ordinal above 48 bits"));
        }
        Ok(QueueId::new(PartitionId(partition), ordinal))
    }

    pub(crate) fn sequence(&mut self) -> Result<Sequence, RecordError> {
        self.varint().map(Sequence)
    }

    pub(crate) fn time(&mut self) -> Result<WallMillis, RecordError> {
        self.varint().map(WallMillis)
    }
}

//! Hashes of bytes. Each byte is charged.

use sha2::{Digest as _, Sha256};

use crate::lua::{Fault, Returned, Stack};

fn bytes_argument<'a>(stack: Stack<'a>) -> Result<&'a [u8], Fault> {
    let bytes = stack.bytes(1).ok_or(Fault::Argument(1, "expected a string"))?;
    stack.host().charge_bytes(bytes.len())?;
    Ok(bytes)
}

pub(super) fn crc32(stack: Stack<'_>) -> Returned {
    stack.push_integer(crc32fast::hash(bytes_argument(stack)?).into());
    Ok(1)
}

pub(super) fn sha256(stack: Stack<'_>) -> Returned {
    let bytes = bytes_argument(stack)?;
    stack.host().charge(bytes.len() as u64 / 8)?; // slower than the others
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    stack.push_bytes(&digest);
    Ok(1)
}

pub(super) fn fnv1a(stack: Stack<'_>) -> Returned {
    let bytes = bytes_argument(stack)?;
    stack.host().charge(bytes.len() as u64 / 8)?;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    stack.push_integer(bytes.iter().fold(0xCBF2_9CE4_8422_2325, step) as i64);
    Ok(1)
}

pub(super) fn xxh64(stack: Stack<'_>) -> Returned {
    let seed = if stack.is_nil(2) { Some(0) } else { stack.integer(2) };
    let seed = seed.ok_or(Fault::Argument(2, "expected a whole number"))?;
    stack.push_integer(xxhash_rust::xxh64::xxh64(bytes_argument(stack)?, seed as u64) as i64);
    Ok(1)
}

//! Bytes as text: hex and base64. What is no such text is data from outside: `nil` and what is wrong.

use super::{nothing_but_scratch, say};
use crate::lua::{Fault, Returned, Stack};

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn bytes_argument<'a>(stack: Stack<'a>) -> Result<&'a [u8], Fault> {
    let bytes = stack.bytes(1).ok_or(Fault::Argument(1, "expected a string"))?;
    stack.host().charge(bytes.len() as u64 / 8 + 1)?;
    stack.host().scratch.clear();
    Ok(bytes)
}

pub(super) fn hex_encode(stack: Stack<'_>) -> Returned {
    let bytes = bytes_argument(stack)?;
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    stack.host().scratch.extend(digits);
    stack.push_scratch();
    Ok(1)
}

pub(super) fn hex_decode(stack: Stack<'_>) -> Returned {
    let text = bytes_argument(stack)?;
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for [high, low] in pairs {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return fail(stack, "not a pair of hexadecimal digits");
        };
        stack.host().scratch.push((high * 16 + low) as u8);
    }
    if !rest.is_empty() {
        return fail(stack, "an odd number of hexadecimal digits");
    }
    stack.push_scratch();
    Ok(1)
}

fn fail(stack: Stack<'_>, text: &str) -> Returned {
    say(stack, format_args!("{text}"));
    nothing_but_scratch(stack)
}

pub(super) fn base64_encode(stack: Stack<'_>) -> Returned {
    let bytes = bytes_argument(stack)?;
    let scratch = &mut stack.host().scratch;
    for three in bytes.chunks(3) {
        let word =
            three.iter().enumerate().fold(0u32, |word, (place, byte)| word | u32::from(*byte) << (16 - 8 * place));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            scratch.push(if place <= three.len() { letter } else { b'=' });
        }
    }
    stack.push_scratch();
    Ok(1)
}

pub(super) fn base64_decode(stack: Stack<'_>) -> Returned {
    let text = bytes_argument(stack)?;
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let letters = &text[..text.len() - padding];
    if letters.len() % 4 == 1 || (padding > 0 && text.len() % 4 != 0) {
        return fail(stack, "not the length of base64");
    }
    let scratch = &mut stack.host().scratch;
    let (mut word, mut bits) = (0u32, 0);
    for letter in letters {
        let Some(value) = value_of(*letter) else { return fail(stack, "not a letter of base64") };
        word = word << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            scratch.push((word >> bits) as u8);
        }
    }
    if word & ((1 << bits) - 1) != 0 {
        return fail(stack, "bits behind the end of base64");
    }
    stack.push_scratch();
    Ok(1)
}

fn value_of(letter: u8) -> Option<u32> {
    Some(match letter {
        b'A'..=b'Z' => u32::from(letter - b'A'),
        b'a'..=b'z' => u32::from(letter - b'a') + 26,
        b'0'..=b'9' => u32::from(letter - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

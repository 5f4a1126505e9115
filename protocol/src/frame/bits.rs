//! Numbers of 1 to 64 bits at any bit of a frame. Bit 0 is the high bit of the first byte.

use super::Endian;

/// Where a number lies, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    /// 1 to 64; with the bits of its first byte in front of it, too, so that it lies in eight bytes.
    pub(super) count: u8,
    pub(super) signed: bool,
    pub(super) endian: Endian,
}

impl Bits {
    /// The number, as it stands: the sign is not extended.
    pub(super) fn read(self, bytes: &[u8], at: u32) -> u64 {
        let (first, skipped, span) = self.window(at);
        let window = &bytes[first..first + span];
        match self.endian {
            Endian::Little => joined(window).swap_bytes() >> (64 - span * 8),
            Endian::Big => joined(window) >> (span * 8 - skipped - usize::from(self.count)) & self.mask(),
        }
    }

    /// Sets its bits where they are 0 before.
    pub(super) fn write(self, bytes: &mut [u8], at: u32, value: u64) {
        let (first, skipped, span) = self.window(at);
        let window = &mut bytes[first..first + span];
        match self.endian {
            Endian::Little => {
                for (place, byte) in window.iter_mut().enumerate() {
                    *byte |= (value >> (8 * place)) as u8;
                }
            }
            Endian::Big => {
                let moved = (value & self.mask()) << (span * 8 - skipped - usize::from(self.count));
                for (place, byte) in window.iter_mut().rev().enumerate() {
                    *byte |= (moved >> (8 * place)) as u8;
                }
            }
        }
    }

    /// First byte, bits of it in front of the number, and bytes that the number lies in.
    fn window(self, at: u32) -> (usize, usize, usize) {
        let skipped = (at % 8) as usize;
        ((at / 8) as usize, skipped, (skipped + usize::from(self.count)).div_ceil(8))
    }

    pub(super) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.count)
    }

    /// The value of bits that were read, with its sign.
    pub(super) fn signed_value(self, raw: u64) -> i64 {
        let unused = 64 - self.count;
        ((raw << unused) as i64) >> unused
    }

    /// The bits of a decimal text; `None` if it is none, or too large.
    pub(super) fn parse(self, text: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(text).ok()?;
        if self.signed {
            let value: i64 = text.parse().ok()?;
            let raw = value as u64 & self.mask();
            return (self.signed_value(raw) == value).then_some(raw);
        }
        text.parse().ok().filter(|value| *value <= self.mask())
    }
}

/// One to eight bytes as a number, the high ones first: what is longer than one load takes two, which may overlap.
fn joined(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(front), Some(back)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_be_bytes(*front)) << ((len - 4) * 8) | u64::from(u32::from_be_bytes(*back));
    }
    if let (Some(front), Some(back)) = (bytes.first_chunk::<2>(), bytes.last_chunk::<2>()) {
        return u64::from(u16::from_be_bytes(*front)) << ((len - 2) * 8) | u64::from(u16::from_be_bytes(*back));
    }
    bytes.first().copied().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(count: u8, signed: bool, endian: Endian) -> Bits {
        Bits { count, signed, endian }
    }

    #[test]
    fn the_high_bits_come_first() {
        let frame = [0xa1, 0x23, 0x45, 0x67, 0x89];
        assert_eq!(bits(4, false, Endian::Big).read(&frame, 0), 0xa);
        assert_eq!(bits(36, false, Endian::Big).read(&frame, 4), 0x1_2345_6789);
        assert_eq!(bits(16, false, Endian::Little).read(&frame, 8), 0x4523);
        assert_eq!(bits(4, true, Endian::Big).signed_value(0xa), -6);
    }

    #[test]
    fn texts_are_numbers_only_if_they_fit() {
        let unsigned = bits(4, false, Endian::Big);
        let signed = bits(4, true, Endian::Big);
        assert_eq!(
            [&b"15"[..], b"16", b"-1", b"", b"1 "].map(|text| unsigned.parse(text)),
            [Some(15), None, None, None, None]
        );
        assert_eq!([&b"7"[..], b"8", b"-8", b"-9"].map(|text| signed.parse(text)), [Some(7), None, Some(8), None]);
    }

    proptest! {
        /// Against one bit at a time.
        #[test]
        fn a_number_is_its_bits(mut bytes in prop::collection::vec(any::<u8>(), 24), at in 0_u32..100, count in 1_u8..=64) {
            prop_assume!(at % 8 + u32::from(count) <= 64);
            let bits = bits(count, false, Endian::Big);
            let bit = |bytes: &[u8], at: u32| u64::from(bytes[at as usize / 8] >> (7 - at % 8) & 1);
            let slow = (at..at + u32::from(count)).fold(0, |value, at| value << 1 | bit(&bytes, at));
            prop_assert_eq!(bits.read(&bytes, at), slow);
            let end = (at + u32::from(count)).div_ceil(8) as usize;
            prop_assert_eq!(bits.read(&bytes[..end], at), slow, "with nothing behind it");
            let (first, whole) = (at as usize / 8, usize::from(count.div_ceil(8)));
            let little = bytes[first..first + whole].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            let bits_of_bytes = Bits { count: 8 * whole as u8, signed: false, endian: Endian::Little };
            prop_assert_eq!(bits_of_bytes.read(&bytes, 8 * first as u32), little, "the low byte first");
            let before = bytes.clone();
            bytes.fill(0);
            bits.write(&mut bytes, at, slow);
            for place in 0..8 * 24 {
                let inside = (at..at + u32::from(count)).contains(&place);
                prop_assert_eq!(bit(&bytes, place), if inside { bit(&before, place) } else { 0 });
            }
        }
    }
}

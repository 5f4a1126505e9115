//! Checksums that frames carry. The tables are made by the compiler.

/// Which checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// CRC-8: polynomial 0x07, from 0.
    Crc8,
    /// CRC-16/X-25: 0x1021 reflected, from 0xffff, inverted.
    Crc16X25,
    /// CRC-16/CCITT-FALSE: 0x1021 from 0xffff.
    Crc16CcittFalse,
    /// CRC-16/MODBUS: 0x8005 reflected, from 0xffff.
    Crc16Modbus,
    /// CRC-32 as Ethernet and gzip have it.
    Crc32,
    /// All bytes, exclusive or.
    Xor,
    /// The sum of all bytes, its low eight bits.
    Sum8,
}

impl Checksum {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Crc8, Self::Crc16X25, Self::Crc16CcittFalse, Self::Crc16Modbus, Self::Crc32, Self::Xor, Self::Sum8];

    /// As authors write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc8 => "crc8",
            Self::Crc16X25 => "crc16_x25",
            Self::Crc16CcittFalse => "crc16_ccitt_false",
            Self::Crc16Modbus => "crc16_modbus",
            Self::Crc32 => "crc32",
            Self::Xor => "xor",
            Self::Sum8 => "sum8",
        }
    }

    /// The one that authors call so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|checksum| checksum.name() == name)
    }

    /// Bits that it takes: 8, 16 or 32.
    pub fn bits(self) -> u8 {
        match self {
            Self::Crc8 | Self::Xor | Self::Sum8 => 8,
            Self::Crc16X25 | Self::Crc16CcittFalse | Self::Crc16Modbus => 16,
            Self::Crc32 => 32,
        }
    }

    /// Of these bytes.
    pub fn of(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Crc8 => straight::<8>(&CRC8, 0, bytes).into(),
            Self::Crc16X25 => (reflected(&X25, 0xffff, bytes) ^ 0xffff).into(),
            Self::Crc16CcittFalse => straight::<16>(&CCITT, 0xffff, bytes).into(),
            Self::Crc16Modbus => reflected(&MODBUS, 0xffff, bytes).into(),
            Self::Crc32 => (!reflected(&CRC32, u32::MAX, bytes)).into(),
            Self::Xor => bytes.iter().fold(0, |sum, byte| sum ^ byte).into(),
            Self::Sum8 => bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).into(),
        }
    }
}

type Table = [u32; 256];

static CRC8: Table = straight_table(8, 0x07);
static CCITT: Table = straight_table(16, 0x1021);
static X25: Table = reflected_table(0x8408);
static MODBUS: Table = reflected_table(0xa001);
static CRC32: Table = reflected_table(0xedb8_8320);

/// High bit first, in a register of `width` bits.
fn straight<const WIDTH: u32>(table: &Table, start: u32, bytes: &[u8]) -> u32 {
    let mask = u32::MAX >> (32 - WIDTH);
    bytes.iter().fold(start, |crc, byte| {
        let index = (crc >> (WIDTH - 8)) as u8 ^ byte;
        crc << 8 & mask ^ table[usize::from(index)]
    })
}

/// Low bit first.
fn reflected(table: &Table, start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
}

const fn straight_table(width: u32, polynomial: u32) -> Table {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u32) << (width - 8);
        let mut bit = 0;
        while bit < 8 {
            let carry = crc >> (width - 1) & 1;
            crc = ((crc << 1) ^ (carry * polynomial)) & (u32::MAX >> (32 - width));
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

const fn reflected_table(polynomial: u32) -> Table {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * polynomial);
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the catalogue of CRCs: each one of "123456789".
    #[test]
    fn each_has_its_check_value() {
        let of = |checksum: Checksum| checksum.of(b"123456789");
        assert_eq!(Checksum::ALL.map(of), [0xf4, 0x906e, 0x29b1, 0x4b37, 0xcbf4_3926, 0x31, 0xdd]);
    }

    #[test]
    fn each_fits_its_bits_and_has_its_name() {
        for checksum in Checksum::ALL {
            assert!(checksum.of(b"any bytes").checked_shr(checksum.bits().into()).unwrap_or(0) == 0);
            assert_eq!(Checksum::from_name(checksum.name()), Some(checksum));
        }
    }
}

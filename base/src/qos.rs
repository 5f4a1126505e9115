//! Quality of service.

/// Delivery guarantee of one message on one hop (MQTT 5, section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level of this number; `None` above 2.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// 0, 1 or 2.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether a message of this level is acknowledged, hence stored.
    pub fn is_acknowledged(self) -> bool {
        self != Self::AtMostOnce
    }
}

//! Each packet has its own list of reason codes; a code that is not on it becomes its nearest relative.

use postroad_base::ReasonCode::{self, *};

/// For CONNACK (MQTT 5, table 3-1; `[MQTT-3.2.2-8]`).
pub(super) fn of_connack(reason: ReasonCode) -> ReasonCode {
    match reason.number() {
        0 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f => reason,
        0x8b => ServerUnavailable,
        _ => UnspecifiedError,
    }
}

/// For DISCONNECT from the server (MQTT 5, table 3-13; `[MQTT-3.14.2-1]`).
pub(super) fn of_disconnect(reason: ReasonCode) -> ReasonCode {
    match reason.number() {
        0 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b | 0x8d..=0x90 | 0x93..=0xa2 => reason,
        0x86 | 0x8a | 0x8c => NotAuthorized,
        0x88 => ServerBusy,
        _ => UnspecifiedError,
    }
}

/// For PUBACK and PUBREC (MQTT 5, tables 3-4 and 3-5; `[MQTT-3.4.2-1]`, `[MQTT-3.5.2-1]`).
pub(super) fn of_puback(reason: ReasonCode) -> ReasonCode {
    match reason.number() {
        0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99 => reason,
        number if number < 0x80 => Success,
        _ => ImplementationSpecificError,
    }
}

/// For PUBREL and PUBCOMP: success, or there is no such identifier (`[MQTT-3.6.2-1]`, `[MQTT-3.7.2-1]`).
pub(super) fn of_pubrel(reason: ReasonCode) -> ReasonCode {
    if reason.is_error() { PacketIdentifierNotFound } else { Success }
}

/// For SUBACK (MQTT 5, table 3-8; `[MQTT-3.9.3-2]`).
pub(super) fn of_suback(reason: ReasonCode) -> ReasonCode {
    match reason.number() {
        0..=2 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2 => reason,
        _ => UnspecifiedError,
    }
}

/// For UNSUBACK (MQTT 5, table 3-9; `[MQTT-3.11.3-2]`).
pub(super) fn of_unsuback(reason: ReasonCode) -> ReasonCode {
    match reason.number() {
        0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 => reason,
        _ => UnspecifiedError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroad_protocol::mqtt::{Ack, ConnAck, Decoded, Disconnect, Packet, SubAck, UnsubAck, Version, decode};

    /// The decoder's tables are the other copy of these lists: what we send, it must accept.
    #[test]
    fn every_code_becomes_one_that_its_packet_may_carry() {
        let tag = postroad_base::Tag::new(1).expect("not 0");
        for &reason in ReasonCode::ALL {
            for packet in [
                Packet::ConnAck(Box::new(ConnAck::new(false, of_connack(reason)))),
                Packet::Disconnect(Disconnect::new(of_disconnect(reason))),
                Packet::PubAck(Ack::new(tag, of_puback(reason))),
                Packet::PubRec(Ack::new(tag, of_puback(reason))),
                Packet::PubRel(Ack::new(tag, of_pubrel(reason))),
                Packet::PubComp(Ack::new(tag, of_pubrel(reason))),
                Packet::SubAck(SubAck::new(tag, [of_suback(reason)].into_iter().collect())),
                Packet::UnsubAck(UnsubAck::new(tag, [of_unsuback(reason)].into_iter().collect())),
            ] {
                let mut bytes = Vec::new();
                packet.encode(Version::V5, &mut bytes);
                let size = bytes.len();
                assert_eq!(decode(&bytes, Some(Version::V5), 1000), Ok(Decoded::Packet { packet, size }), "{reason:?}");
            }
        }
    }
}

//! The fixed header, and the flat `match` over packet types.

use postroad_base::ReasonCode;

use super::ack::{Ack, Auth, Disconnect};
use super::connect::{ConnAck, Connect};
use super::publish::Publish;
use super::reader::{Reader, variable_int};
use super::subscribe::{SubAck, Subscribe, UnsubAck, Unsubscribe};
use super::{DecodeError, Decoded, Packet, PacketType, Result, Version};

/// Decodes the packet at the start of `input`, borrowing from it.
///
/// `version` is `None` until CONNECT has named it: then only CONNECT decodes `[MQTT-3.1.0-1]`. `max_size` is the
/// largest packet, in bytes, that this side takes; it and the first byte are judged before the rest has arrived.
///
/// # Errors
/// With the reason code that the specification names; the connection is over.
pub fn decode<'a>(input: &'a [u8], version: Option<Version>, max_size: u32) -> Result<Decoded<'a>> {
    let Some(&first) = input.first() else {
        return Ok(Decoded::Incomplete { needed: 2 });
    };
    let packet_type = check_first_byte(first, version)?;
    let Some((remaining, length_size)) = variable_int(&input[1..])? else {
        return Ok(Decoded::Incomplete { needed: input.len() + 1 });
    };
    let header = 1 + length_size;
    let size = header + remaining as usize;
    if size > max_size as usize {
        return Err(DecodeError { reason: ReasonCode::PacketTooLarge, detail: "packet is larger than the maximum" });
    }
    let Some(body) = input.get(header..size) else {
        return Ok(Decoded::Incomplete { needed: size });
    };
    // Before CONNECT the version does not matter: `check_first_byte` let nothing else pass.
    let packet = decode_body(packet_type, first, body, version.unwrap_or(Version::V5))?;
    Ok(Decoded::Packet { packet, size })
}

/// The version that a CONNECT at the start of `input` names, also if the rest of it is missing or malformed: so that
/// a refusal can be written in the client's own version. `None` if it names one that we don't speak, or it isn't there.
pub fn connect_version(input: &[u8]) -> Option<Version> {
    if PacketType::from_first_byte(*input.first()?) != Some(PacketType::Connect) {
        return None;
    }
    let (_, length_size) = variable_int(&input[1..]).ok()??;
    let mut reader = Reader::new(&input[1 + length_size..]);
    Version::read(&mut reader).ok()
}

fn check_first_byte(first: u8, version: Option<Version>) -> Result<PacketType> {
    let packet_type = PacketType::from_first_byte(first).ok_or(DecodeError::malformed("packet type 0 is forbidden"))?;
    match (packet_type, version) {
        (PacketType::Publish, Some(_)) => return Ok(packet_type),
        (PacketType::Connect, _) => {}
        (_, None) => return Err(DecodeError::protocol("first packet is not CONNECT")), // [MQTT-3.1.0-1]
        (PacketType::Auth, Some(Version::V3_1 | Version::V3_1_1)) => {
            return Err(DecodeError::malformed("AUTH is of MQTT 5 only"));
        }
        _ => {}
    }
    check_flags(packet_type, first & 0x0f, version)?;
    Ok(packet_type)
}

/// `[MQTT-2.1.3-1]`; MQTT 3.1 allows DUP on what it retries (section 2.1 there).
fn check_flags(packet_type: PacketType, flags: u8, version: Option<Version>) -> Result<()> {
    let retried = version == Some(Version::V3_1) && packet_type.flags() != 0;
    let expected = packet_type.flags();
    if flags == expected || retried && flags & !0b1000 == expected {
        return Ok(());
    }
    Err(DecodeError::malformed("reserved flags of the fixed header are wrong"))
}

fn decode_body(packet_type: PacketType, first: u8, body: &[u8], version: Version) -> Result<Packet<'_>> {
    let mut reader = Reader::new(body);
    let reader = &mut reader;
    let packet = match packet_type {
        PacketType::Publish => return Publish::read(first, reader, version).map(Packet::Publish),
        PacketType::Connect => Packet::Connect(Box::new(Connect::read(reader)?)),
        PacketType::ConnAck => Packet::ConnAck(Box::new(ConnAck::read(reader, version)?)),
        PacketType::PubAck => Packet::PubAck(Ack::read(packet_type, reader, version)?),
        PacketType::PubRec => Packet::PubRec(Ack::read(packet_type, reader, version)?),
        PacketType::PubRel => Packet::PubRel(Ack::read(packet_type, reader, version)?),
        PacketType::PubComp => Packet::PubComp(Ack::read(packet_type, reader, version)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::read(reader, version)?),
        PacketType::SubAck => Packet::SubAck(SubAck::read(reader, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::read(reader, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::read(reader, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::read(reader, version)?),
        PacketType::Auth => Packet::Auth(Auth::read(reader)?),
    };
    reader.end()?;
    Ok(packet)
}

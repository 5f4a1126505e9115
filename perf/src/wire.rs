//! The few MQTT packets that a load generator sends and reads, 3.1.1 and 5.
//!
//! Packets are read in place: [`decode`] borrows from the receive buffer. Outgoing PUBLISH packets come from a
//! [`Template`] in which only packet id and payload stamp change. Encoders append to the output buffer.

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

/// A packet from the broker, as far as a generator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNACK.
    Connack { session_present: bool, code: u8, receive_maximum: u16 },
    /// PUBLISH; the id is 0 at QoS 0.
    Publish { qos: u8, dup: bool, id: u16, payload: &'a [u8] },
    /// PUBACK.
    Puback { id: u16, code: u8 },
    /// PUBREC.
    Pubrec { id: u16, code: u8 },
    /// PUBREL.
    Pubrel { id: u16 },
    /// PUBCOMP.
    Pubcomp { id: u16 },
    /// SUBACK with its worst code.
    Suback { code: u8 },
    /// DISCONNECT from the server.
    Disconnect { code: u8 },
    /// PINGRESP, UNSUBACK, AUTH: nothing to do.
    Other,
}

/// The broker sent something that is no MQTT.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// One packet at the front of `input` and its size; `None` while it is incomplete.
pub fn decode(input: &[u8], version: Version) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((body_at, body_bytes)) = fixed_header(input)? else { return Ok(None) };
    let Some(body) = input.get(body_at..body_at + body_bytes) else { return Ok(None) };
    let packet = parse(input[0], body, version).ok_or(Malformed)?;
    Ok(Some((packet, body_at + body_bytes)))
}

fn parse(first: u8, body: &[u8], version: Version) -> Option<Packet<'_>> {
    let id = || Some(u16::from_be_bytes(*body.first_chunk()?));
    let code = || body.get(2).copied().unwrap_or(0);
    Some(match first >> 4 {
        2 => Packet::Connack {
            session_present: body.first()? & 1 == 1,
            code: *body.get(1)?,
            receive_maximum: if version == Version::V5 { receive_maximum(&body[2..])? } else { u16::MAX },
        },
        3 => publish(first, body, version)?,
        4 => Packet::Puback { id: id()?, code: code() },
        5 => Packet::Pubrec { id: id()?, code: code() },
        6 => Packet::Pubrel { id: id()? },
        7 => Packet::Pubcomp { id: id()? },
        9 => Packet::Suback { code: suback_code(body, version)? },
        14 => Packet::Disconnect { code: body.first().copied().unwrap_or(0) },
        11 | 13 | 15 => Packet::Other,
        _ => return None,
    })
}

fn publish(first: u8, body: &[u8], version: Version) -> Option<Packet<'_>> {
    let qos = (first >> 1) & 3;
    let topic_bytes = usize::from(u16::from_be_bytes(*body.first_chunk()?));
    let mut rest = body.get(2 + topic_bytes..)?;
    let mut id = 0;
    if qos > 0 {
        id = u16::from_be_bytes(*rest.first_chunk()?);
        rest = &rest[2..];
    }
    if version == Version::V5 {
        rest = split_properties(rest)?.1;
    }
    Some(Packet::Publish { qos, dup: first & 8 != 0, id, payload: rest })
}

fn suback_code(body: &[u8], version: Version) -> Option<u8> {
    let rest = body.get(2..)?;
    let codes = if version == Version::V5 { split_properties(rest)?.1 } else { rest };
    codes.iter().copied().max()
}

/// Properties and what follows them.
fn split_properties(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bytes, at) = variable(input).ok()??;
    input.get(at..)?.split_at_checked(bytes)
}

/// The Receive Maximum of a CONNACK; 65,535 if it names none.
fn receive_maximum(input: &[u8]) -> Option<u16> {
    let (mut properties, _) = split_properties(input)?;
    while let Some((&identifier, value)) = properties.split_first() {
        if identifier == 0x21 {
            return Some(u16::from_be_bytes(*value.first_chunk()?));
        }
        properties = value.get(property_bytes(identifier, value)?..)?;
    }
    Some(u16::MAX)
}

/// Size of the value of a property that a CONNACK can hold.
fn property_bytes(identifier: u8, value: &[u8]) -> Option<usize> {
    let text = |at: usize| Some(at + 2 + usize::from(u16::from_be_bytes(*value.get(at..)?.first_chunk()?)));
    match identifier {
        0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Some(1),
        0x13 | 0x22 => Some(2),
        0x11 | 0x27 => Some(4),
        0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => text(0),
        0x26 => text(text(0)?),
        _ => None,
    }
}

/// Sizes of the fixed header at the front of `input` and of what follows it; `None` while the header is incomplete.
pub(crate) fn fixed_header(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(rest) = input.get(1..) else { return Ok(None) };
    Ok(variable(rest)?.map(|(bytes, at)| (at + 1, bytes)))
}

/// A variable byte integer and its own size; `None` while it is incomplete.
fn variable(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (at, &byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if input.len() >= 4 { Err(Malformed) } else { Ok(None) }
}

/// What a CONNECT says.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Protocol version.
    pub version: Version,
    /// Client identifier.
    pub client: &'a str,
    /// Discard what the session held.
    pub clean_start: bool,
    /// Keep the session after the connection.
    pub persistent: bool,
    /// Seconds; 0 = none.
    pub keep_alive: u16,
    /// User name and password.
    pub login: Option<(&'a str, &'a str)>,
}

impl Connect<'_> {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let v5 = self.version == Version::V5;
        // 3.1.1 has one flag for both wishes: a session that is to stay can't be begun clean.
        let clean = if v5 { self.clean_start } else { !self.persistent };
        let login_flags = if self.login.is_some() { 0xC0 } else { 0 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', if v5 { 5 } else { 4 }, u8::from(clean) << 1 | login_flags];
        body.extend(self.keep_alive.to_be_bytes());
        if v5 && self.persistent {
            body.extend([5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF]);
        } else if v5 {
            body.push(0);
        }
        put_text(&mut body, self.client);
        if let Some((user, password)) = self.login {
            put_text(&mut body, user);
            put_text(&mut body, password);
        }
        put_packet(out, 0x10, &body);
    }
}

/// Appends a SUBSCRIBE with packet id 1.
pub fn subscribe(out: &mut Vec<u8>, version: Version, filter: &str, qos: u8) {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    put_text(&mut body, filter);
    body.push(qos);
    put_packet(out, 0x82, &body);
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP in its short form (success).
pub fn acknowledge(out: &mut Vec<u8>, kind: Acknowledge, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind as u8, 2, high, low]);
}

/// First byte of the acknowledging packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Acknowledge {
    /// To a PUBLISH of QoS 1.
    Puback = 0x40,
    /// To a PUBLISH of QoS 2.
    Pubrec = 0x50,
    /// To a PUBREC.
    Pubrel = 0x62,
    /// To a PUBREL.
    Pubcomp = 0x70,
}

/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// DISCONNECT without properties, both versions.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// One PUBLISH packet of fixed size, whose packet id and stamp are patched for each message.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    id_at: usize,
    /// Where the digits of the time stand at which the server is to publish it; 0 if it has none.
    deliver_at: usize,
    payload_at: usize,
}

/// The user property of a message that the server publishes later, and the digits of its value: milliseconds since 1970.
const DELIVER_AT: (&str, usize) = ("postroad-deliver-at-unix-ms", 13);

/// When the server is to publish it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Publish {
    Now,
    /// At a time that it says.
    Later,
}

impl Template {
    /// A PUBLISH to `topic` with `payload_bytes` of filler.
    pub fn new(version: Version, topic: &str, qos: u8, payload_bytes: usize) -> Self {
        Self::with_flags(version, topic, qos << 1, payload_bytes, Publish::Now)
    }

    /// A PUBLISH of MQTT 5 that the server is to publish at a time of its own ([`Template::append`]).
    pub fn scheduled(topic: &str, qos: u8, payload_bytes: usize) -> Self {
        Self::with_flags(Version::V5, topic, qos << 1, payload_bytes, Publish::Later)
    }

    /// The same, to be retained; without payload: what is retained goes.
    pub fn retained(version: Version, topic: &str, qos: u8, payload_bytes: usize) -> Self {
        Self::with_flags(version, topic, qos << 1 | 1, payload_bytes, Publish::Now)
    }

    fn with_flags(version: Version, topic: &str, flags: u8, payload_bytes: usize, publish: Publish) -> Self {
        let mut body = Vec::with_capacity(topic.len() + payload_bytes + 5);
        put_text(&mut body, topic);
        let mut id_at = 0;
        if flags & 6 > 0 {
            id_at = body.len();
            body.extend([0, 0]);
        }
        let mut deliver_at = 0;
        if publish == Publish::Later {
            let (name, digits) = DELIVER_AT;
            body.extend([(5 + name.len() + digits) as u8, 0x26]);
            put_text(&mut body, name);
            deliver_at = body.len() + 2;
            put_text(&mut body, &"0".repeat(digits));
        } else if version == Version::V5 {
            body.push(0);
        }
        let payload_at = body.len();
        body.resize(payload_at + payload_bytes, 0xA5);
        let mut bytes = Vec::new();
        put_packet(&mut bytes, 0x30 | flags, &body);
        let head = bytes.len() - body.len();
        let deliver_at = if publish == Publish::Later { deliver_at + head } else { 0 };
        Self { bytes, id_at: id_at + head, deliver_at, payload_at: payload_at + head }
    }

    /// QoS of its messages.
    pub fn qos(&self) -> u8 {
        self.bytes[0] >> 1 & 3
    }

    /// Appends one message; `id` is ignored at QoS 0, `deliver_at_unix_ms` unless it is scheduled. `stamp` is given the payload, if there
    /// is one.
    pub fn append(&self, out: &mut Vec<u8>, id: u16, deliver_at_unix_ms: u64, stamp: impl FnOnce(&mut [u8])) {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        let packet = &mut out[at..];
        if packet[0] & 0x06 != 0 {
            packet[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
        }
        if self.deliver_at > 0 {
            let mut rest = deliver_at_unix_ms;
            for digit in packet[self.deliver_at..][..DELIVER_AT.1].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        if packet.len() > self.payload_at {
            stamp(&mut packet[self.payload_at..]);
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = u16::try_from(text.len()).expect("options limit names far below 64 KiB");
    out.extend(bytes.to_be_bytes());
    out.extend(text.as_bytes());
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut bytes = body.len();
    while bytes >= 0x80 {
        out.push((bytes & 0x7F) as u8 | 0x80);
        bytes >>= 7;
    }
    out.push(bytes as u8);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_of_both_versions() {
        let mut connect = Connect {
            version: Version::V4,
            client: "c1",
            clean_start: true,
            persistent: false,
            keep_alive: 60,
            login: None,
        };
        let mut out = Vec::new();
        connect.encode(&mut out);
        assert_eq!(out, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02c1");
        connect.version = Version::V5;
        connect.persistent = true;
        connect.clean_start = false;
        connect.login = Some(("u", "p"));
        out.clear();
        connect.encode(&mut out);
        assert_eq!(out, b"\x10\x1a\x00\x04MQTT\x05\xc0\x00\x3c\x05\x11\xff\xff\xff\xff\x00\x02c1\x00\x01u\x00\x01p");
    }

    #[test]
    fn a_template_round_trips_at_every_split() {
        for (version, qos, payload_bytes) in [(Version::V4, 0, 24), (Version::V5, 1, 200), (Version::V5, 2, 20_000)] {
            let template = Template::new(version, "a/b", qos, payload_bytes);
            let mut out = Vec::new();
            template.append(&mut out, 0x1234, 0, |payload| payload[0] = 9);
            for cut in [0, 1, 2, 3, out.len() - 1] {
                assert_eq!(decode(&out[..cut], version), Ok(None), "cut at {cut}");
            }
            let (packet, used) = decode(&out, version).unwrap().unwrap();
            assert_eq!(used, out.len());
            let Packet::Publish { qos: seen, dup: false, id, payload } = packet else { panic!("{packet:?}") };
            assert_eq!((seen, id), (qos, if qos > 0 { 0x1234 } else { 0 }));
            assert_eq!((payload.len(), payload[0], payload[1]), (payload_bytes, 9, 0xA5));
        }
    }

    #[test]
    fn a_scheduled_template_says_when() {
        let mut out = Vec::new();
        Template::scheduled("a", 1, 24).append(&mut out, 7, 1_795_800_000_123, |payload| payload[0] = 9);
        let (packet, used) = decode(&out, Version::V5).unwrap().unwrap();
        let Packet::Publish { qos: 1, dup: false, id: 7, payload } = packet else { panic!("{packet:?}") };
        assert_eq!((used, payload.len(), payload[0]), (out.len(), 24, 9));
        let properties = b"\x2d\x26\x00\x1bpostroad-deliver-at-unix-ms\x00\x0d1795800000123";
        assert!(out.windows(properties.len()).any(|window| window == properties), "{out:?}");
    }

    #[test]
    fn acknowledgements_of_both_lengths() {
        let of = |bytes: &'static [u8]| decode(bytes, Version::V5).unwrap().unwrap().0;
        assert_eq!(of(b"\x40\x02\x00\x07"), Packet::Puback { id: 7, code: 0 });
        assert_eq!(of(b"\x40\x03\x00\x07\x97"), Packet::Puback { id: 7, code: 0x97 });
        assert_eq!(of(b"\x90\x04\x00\x01\x00\x02"), Packet::Suback { code: 2 });
        assert_eq!(of(b"\xe0\x01\x8b"), Packet::Disconnect { code: 0x8B });
        assert_eq!(of(b"\xd0\x00"), Packet::Other);
    }

    #[test]
    fn a_connack_tells_its_receive_maximum() {
        let connack = b"\x20\x0b\x01\x00\x08\x24\x01\x22\x00\x0a\x21\x00\x14";
        let expected = Packet::Connack { session_present: true, code: 0, receive_maximum: 20 };
        assert_eq!(decode(connack, Version::V5), Ok(Some((expected, connack.len()))));
        let expected = Packet::Connack { session_present: false, code: 5, receive_maximum: u16::MAX };
        assert_eq!(decode(b"\x20\x02\x00\x05", Version::V4), Ok(Some((expected, 4))));
    }

    #[test]
    fn nonsense_is_malformed() {
        assert_eq!(decode(b"\x30\xff\xff\xff\xff\x01", Version::V5), Err(Malformed));
        assert_eq!(decode(b"\x00\x00", Version::V5), Err(Malformed));
        assert_eq!(decode(b"\x30\x02\x00\x09", Version::V5), Err(Malformed));
    }
}

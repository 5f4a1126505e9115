//! A plugin's frames in a test: bytes to a frame and back, and the same stream cut at every byte.

use bytes::Bytes;
use postroad_protocol::frame::{Codec, Declared, Decoded, Frame, Kind};

use super::record::{Fields, Table};
use super::world::World;
use crate::codec::{self, Calls, Functions, Made, check_splits};
use crate::{Callable, Failure, Plain, Vm};

/// Calls functions of a codec at the time of the case.
struct AtTime<'a> {
    vm: &'a mut Vm,
    now: postroad_base::Now,
}

impl Calls for AtTime<'_> {
    fn call(&mut self, function: &Callable, arguments: &[Plain]) -> Result<Vec<Plain>, Failure> {
        self.vm.call(self.now, function, arguments)
    }
}

/// Bytes of a device, and its client's name, once that is known.
struct Stream {
    bytes: Bytes,
    client: String,
}

impl Stream {
    fn read(about: &Plain) -> Result<Self, String> {
        let mut fields = Fields::of("stream", about)?;
        let bytes = fields.bytes("bytes")?.ok_or("bytes: a stream has them")?;
        let client = fields.text("client")?.unwrap_or_default().to_string();
        fields.end()?;
        Ok(Self { bytes, client })
    }
}

impl World {
    /// One frame, and how many bytes it takes; what is needed; or what is broken.
    pub(super) fn decode(&mut self, about: &Plain) -> Result<Plain, String> {
        let Stream { bytes, client } = Stream::read(about)?;
        self.with_codec(|codec| {
            Ok(match codec.decode(&bytes, &client) {
                Ok(Decoded::Frame { frame, size }) => {
                    Table::new().with("frame", shown(&frame)).with("size", size as u64)
                }
                Ok(Decoded::Incomplete { needed }) => Table::new().with("needed", needed as u64),
                Err(error) => Table::new().with("broken", error.fault.name()).with("detail", error.detail.as_str()),
            }
            .into())
        })
    }

    /// The bytes of a frame.
    pub(super) fn encode(&mut self, about: &Plain) -> Result<Plain, String> {
        let mut fields = Fields::of("frame", about)?;
        let name = fields.text("kind")?.ok_or("kind: a frame has one")?;
        let kind = Kind::from_name(&name)
            .ok_or_else(|| format!("kind: \"{name}\" is none; they are {}", Kind::ALL.map(Kind::name).join(", ")))?;
        let (tag, command) = (fields.number("tag", u64::MAX)?, fields.number("command", u64::MAX)?.unwrap_or(0));
        let (client, user, password) =
            (fields.text("client")?.unwrap_or_default(), fields.text("user")?, fields.bytes("password")?);
        let (topic, payload) =
            (fields.text("topic")?.unwrap_or_default(), fields.bytes("payload")?.unwrap_or_default());
        let reason = fields.number("reason", 255)?.unwrap_or(0) as u8;
        fields.end()?;
        let (user, password) = (user.as_deref(), password.as_deref());
        let frame =
            Frame { kind, tag, command, client: &client, user, password, topic: &topic, payload: &payload, reason };
        self.with_codec(|codec| {
            let mut bytes = Vec::new();
            codec.encode(&frame, &mut bytes).map_err(|error| error.to_string())?;
            Ok(Plain::Bytes(bytes.into()))
        })
    }

    /// The frames of a stream, which must be the same ones wherever it is cut. Bytes that are left, or break it, are an error.
    pub(super) fn every_split(&mut self, about: &Plain) -> Result<Plain, String> {
        let Stream { bytes, client } = Stream::read(about)?;
        self.with_codec(|codec| {
            check_splits(codec, &bytes, &client).map_err(|error| error.to_string())?;
            let (mut rest, mut frames) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                match codec.decode(rest, &client).map_err(|error| error.to_string())? {
                    Decoded::Frame { frame, size } => {
                        frames.push(Plain::from(shown(&frame)));
                        rest = &rest[size..];
                    }
                    Decoded::Incomplete { needed } => {
                        return Err(format!(
                            "{} bytes are left at the end, which are no frame before there are {needed}",
                            rest.len()
                        ));
                    }
                }
            }
            Ok(Plain::Array(frames))
        })
    }

    fn with_codec<T>(&mut self, work: impl FnOnce(&mut dyn Codec) -> Result<T, String>) -> Result<T, String> {
        let (plugin, now) = (self.plugin().clone(), self.time());
        let vm = self.vm();
        let made = codec::of_plugin(vm, &plugin).ok_or("the plugin has no codec")?.map_err(|flaw| flaw.to_string())?;
        match made {
            Made::Declared(plan) => work(&mut Declared::new(plan)),
            Made::Functions(table) => work(&mut Functions::new(AtTime { vm, now }, *table)),
        }
    }
}

/// A frame as a table: what it does not have is not there.
fn shown(frame: &Frame<'_>) -> Table {
    let Frame { kind, tag, command, client, user, password, topic, payload, reason } = *frame;
    let is_publish = matches!(kind, Kind::Publish | Kind::Push);
    let text = |text: &str| Some(Plain::from(text)).filter(|_| !text.is_empty());
    let bytes = |bytes: &[u8]| Plain::Bytes(Bytes::copy_from_slice(bytes));
    Table::new()
        .with("kind", kind.name())
        .with("tag", tag)
        .with("command", command)
        .with("client", text(client))
        .with("user", user)
        .with("password", password.map(bytes))
        .with("topic", text(topic))
        .with("payload", is_publish.then(|| bytes(payload)))
        .with("reason", (reason > 0).then_some(u64::from(reason)))
}

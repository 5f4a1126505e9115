//! A codec of two functions of a script. Each frame costs a call of the VM, so a declaration is the better one where it can be.

use bytes::Bytes;
use postroad_protocol::frame::{Abilities, Codec, Decoded, Fault, Frame, FrameError, Kind};

use super::FunctionTable;
use super::keys::whole;
use crate::{Callable, Failure, Plain};

/// Who calls functions of a script: the VM, and the time that it is.
pub trait Calls {
    /// At most four results.
    ///
    /// # Errors
    /// As it failed.
    fn call(&mut self, function: &Callable, arguments: &[Plain]) -> Result<Vec<Plain>, Failure>;
}

/// See the module head.
#[derive(Debug)]
pub struct Functions<C> {
    calls: C,
    table: FunctionTable,
    /// What the last frame said.
    last: Owned,
}

/// A frame, owned.
#[derive(Debug, Default)]
struct Owned {
    tag: Option<u64>,
    command: u64,
    client: Bytes,
    user: Option<Bytes>,
    password: Option<Bytes>,
    topic: Bytes,
    payload: Bytes,
}

impl<C: Calls> Functions<C> {
    /// Of this table, called by `calls`, which is the VM that gave it.
    pub fn new(calls: C, table: FunctionTable) -> Self {
        Self { calls, table, last: Owned::default() }
    }

    fn call(&mut self, function: Function, arguments: &[Plain]) -> Result<[Plain; 2], FrameError> {
        let of = match function {
            Function::Decode => &self.table.decode,
            Function::Encode => &self.table.encode,
        };
        let results = self.calls.call(of, arguments).map_err(|failure| failed(failure.text))?;
        let mut results = results.into_iter();
        Ok([results.next().unwrap_or_default(), results.next().unwrap_or_default()])
    }
}

#[derive(Clone, Copy)]
enum Function {
    Decode,
    Encode,
}

fn failed(text: impl Into<String>) -> FrameError {
    FrameError::new(Fault::Function, text)
}

fn text(text: &str) -> Plain {
    Plain::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

/// What a function says besides, in words.
fn words(plain: &Plain) -> String {
    plain.as_str().unwrap_or("the function does not say why").chars().take(200).collect()
}

impl<C: Calls> Codec for Functions<C> {
    fn decode<'a>(&'a mut self, bytes: &'a [u8], client: &str) -> Result<Decoded<'a>, FrameError> {
        // No more than one frame can be: what is behind it would be copied to the script for each.
        let seen = &bytes[..bytes.len().min(self.table.bytes_max)];
        let arguments = [Plain::Bytes(Bytes::copy_from_slice(seen)), text(client)];
        let [frame, number] = self.call(Function::Decode, &arguments)?;
        let number = whole(&number).and_then(|number| usize::try_from(number).ok()).ok_or(number);
        match (frame, number) {
            (Plain::Nil, _) if seen.len() >= self.table.bytes_max => {
                Err(FrameError::new(Fault::TooLong, format!("no frame within {} bytes", self.table.bytes_max)))
            }
            (Plain::Nil, number) => {
                let needed = number.unwrap_or(0).clamp(seen.len() + 1, self.table.bytes_max);
                Ok(Decoded::Incomplete { needed })
            }
            (Plain::Boolean(false), said) => {
                let said = said.map_or_else(|plain| words(&plain), |number| number.to_string());
                Err(FrameError::new(Fault::Value, said))
            }
            (frame @ Plain::Map(_), Ok(size)) if (1..=seen.len()).contains(&size) => {
                let kind = self.last.take(frame)?;
                Ok(Decoded::Frame { frame: self.last.frame(kind)?, size })
            }
            (Plain::Map(_), _) => Err(failed("decode: a frame, and how many bytes of the input it takes")),
            _ => Err(failed("decode returns a frame and its size, nil, or false and what is broken")),
        }
    }

    fn encode(&mut self, frame: &Frame<'_>, into: &mut Vec<u8>) -> Result<(), FrameError> {
        let number = |number: u64| Plain::Integer(number.cast_signed());
        let bytes = |bytes: &[u8]| Plain::Bytes(Bytes::copy_from_slice(bytes));
        let table = Plain::Map(vec![
            (text("kind"), text(frame.kind.name())),
            (text("tag"), frame.tag.map_or(Plain::Nil, number)),
            (text("command"), number(frame.command)),
            (text("topic"), text(frame.topic)),
            (text("payload"), bytes(frame.payload)),
            (text("reason"), number(frame.reason.into())),
        ]);
        let [written, said] = self.call(Function::Encode, &[table])?;
        match written {
            Plain::Bytes(written) if (1..=self.table.bytes_max).contains(&written.len()) => {
                into.extend_from_slice(&written);
                Ok(())
            }
            Plain::Bytes(written) => {
                let most = self.table.bytes_max;
                Err(FrameError::new(Fault::Unfit, format!("{} bytes: a frame has 1 to {most}", written.len())))
            }
            Plain::Nil => Err(FrameError::new(Fault::Unfit, words(&said))),
            _ => Err(failed("encode returns a string, or nil and why not")),
        }
    }

    fn frame_bytes_max(&self) -> usize {
        self.table.bytes_max
    }

    fn abilities(&self) -> Abilities {
        self.table.abilities
    }
}

impl Owned {
    /// Takes what a script says; returns the kind.
    fn take(&mut self, frame: Plain) -> Result<Kind, FrameError> {
        *self = Self::default();
        let Plain::Map(entries) = frame else { return Err(failed("a frame is a table")) };
        let mut kind = None;
        for (key, value) in entries {
            match key.as_str() {
                Some("kind") => kind = value.as_str().and_then(Kind::from_name).filter(|kind| kind.is_from_device()),
                Some("tag") => self.tag = Some(integer("tag", &value)?),
                Some("command") => self.command = integer("command", &value)?,
                Some("client") => self.client = string("client", value)?,
                Some("user") => self.user = Some(string("user", value)?),
                Some("password") => self.password = Some(string("password", value)?),
                Some("topic") => self.topic = string("topic", value)?,
                Some("payload") => self.payload = string("payload", value)?,
                _ => return Err(failed("a frame has kind, tag, command, client, user, password, topic and payload")),
            }
        }
        kind.ok_or_else(|| failed("the kind of a frame is hello, ping, publish, ack or bye"))
    }

    fn frame(&self, kind: Kind) -> Result<Frame<'_>, FrameError> {
        Ok(Frame {
            kind,
            tag: self.tag,
            command: self.command,
            client: utf8("client", &self.client)?,
            user: self.user.as_ref().map(|user| utf8("user", user)).transpose()?,
            password: self.password.as_deref(),
            topic: utf8("topic", &self.topic)?,
            payload: &self.payload,
            reason: 0,
        })
    }
}

fn integer(name: &str, value: &Plain) -> Result<u64, FrameError> {
    let number = whole(value).map(i64::cast_unsigned);
    number.ok_or_else(|| failed(format!("'{name}' of a frame is a whole number")))
}

/// Strings, and whole numbers in decimal.
fn string(name: &str, value: Plain) -> Result<Bytes, FrameError> {
    match value {
        Plain::Bytes(bytes) => Ok(bytes),
        value => {
            let number = whole(&value).ok_or_else(|| failed(format!("'{name}' of a frame is a string")))?;
            Ok(number.to_string().into())
        }
    }
}

fn utf8<'a>(name: &str, bytes: &'a Bytes) -> Result<&'a str, FrameError> {
    std::str::from_utf8(bytes)
        .map_err(|_| FrameError::new(Fault::Value, format!("the {name} is not well-formed UTF-8")))
}

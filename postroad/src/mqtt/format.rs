//! How `sub` prints a message: a format is read once into pieces, then filled per message.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use super::client::Message;
use crate::cli::SubArgs;

/// A format, understood.
pub struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Field(char),
}

const FIELDS: &str = "tpxlqrdmUj";

impl Format {
    /// The format that the flags ask for.
    pub fn new(args: &SubArgs) -> Result<Self> {
        let mut format = match (&args.format, args.verbose) {
            (Some(format), _) => Self::parse(format)?,
            (None, true) => Self::parse("%t %p")?,
            (None, false) => Self::parse("%p")?,
        };
        if !args.no_newline {
            format.pieces.push(Piece::Text(b"\n".to_vec()));
        }
        Ok(format)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let piece = match (character, character == '%' || character == '\\') {
                (_, false) => None,
                (_, true) => characters.next(),
            };
            match (character, piece) {
                ('%', Some('%')) => plain.push(b'%'),
                ('%', Some(field)) if FIELDS.contains(field) => {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Field(field));
                }
                ('%', other) => bail!("unknown %{} in the format; known: %{FIELDS} and %%", shown(other)),
                ('\\', Some('n')) => plain.push(b'\n'),
                ('\\', Some('t')) => plain.push(b'\t'),
                ('\\', Some('0')) => plain.push(0),
                ('\\', Some('\\')) => plain.push(b'\\'),
                ('\\', other) => bail!("unknown \\{} in the format; known: \\n \\t \\0 \\\\", shown(other)),
                (other, _) => plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        pieces.push(Piece::Text(plain));
        Ok(Self { pieces })
    }

    /// The bytes to print for this message.
    pub fn render(&self, message: &Message) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.payload.len() + 64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Field('p') => out.extend_from_slice(&message.payload),
                Piece::Field(field) => out.extend_from_slice(value(*field, message).as_bytes()),
            }
        }
        out
    }
}

fn shown(character: Option<char>) -> String {
    character.map_or_else(String::new, String::from)
}

fn value(field: char, message: &Message) -> String {
    match field {
        't' => message.topic.clone(),
        'x' => message.payload.iter().map(|byte| format!("{byte:02x}")).collect(),
        'l' => message.payload.len().to_string(),
        'q' => message.qos.number().to_string(),
        'r' => u8::from(message.retain).to_string(),
        'd' => u8::from(message.dup).to_string(),
        'm' => message.tag.map_or(0, |tag| tag.get()).to_string(),
        'U' => format!("{:.3}", unix_seconds()),
        'j' => json(message).to_string(),
        other => unreachable!("{other} is not in FIELDS"),
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The payload as text if it is text, else in hex under another name.
fn json(message: &Message) -> serde_json::Value {
    let mut object = serde_json::json!({
        "topic": message.topic,
        "qos": message.qos.number(),
        "retain": message.retain,
        "dup": message.dup,
        "length": message.payload.len(),
        "time": unix_seconds(),
    });
    let mut put = |name: &str, value: serde_json::Value| object[name] = value;
    match std::str::from_utf8(&message.payload) {
        Ok(text) => put("payload", text.into()),
        Err(_) => put("payload_hex", value('x', message).into()),
    }
    let optional = [("content_type", &message.content_type), ("response_topic", &message.response_topic)];
    for (name, text) in optional {
        if let Some(text) = text {
            put(name, text.as_str().into());
        }
    }
    if let Some(tag) = message.tag {
        put("mid", tag.get().into());
    }
    if let Some(seconds) = message.expiry {
        put("expiry", seconds.into());
    }
    if !message.user_properties.is_empty() {
        put("user_properties", serde_json::json!(message.user_properties));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(format: &str, message: &Message) -> String {
        String::from_utf8(Format::parse(format).expect("valid").render(message)).expect("text")
    }

    fn message() -> Message {
        let topic = "a/b".to_owned();
        Message { topic, payload: b"hi".to_vec(), retain: true, ..Message::default() }
    }

    #[test]
    fn fields_and_escapes_are_filled() {
        assert_eq!(rendered("%t|%p|%x|%l|%q|%r|%d|%%\\t\\n\\\\", &message()), "a/b|hi|6869|2|0|1|0|%\t\n\\");
        assert_eq!(rendered("é%p", &message()), "éhi");
    }

    #[test]
    fn json_holds_text_or_hex() {
        let text: serde_json::Value = serde_json::from_str(&rendered("%j", &message())).expect("JSON");
        assert_eq!((&text["topic"], &text["payload"]), (&"a/b".into(), &"hi".into()));
        let binary = Message { payload: vec![0xFF], ..message() };
        let hex: serde_json::Value = serde_json::from_str(&rendered("%j", &binary)).expect("JSON");
        assert_eq!(hex["payload_hex"], "ff");
    }

    #[test]
    fn unknown_fields_are_refused() {
        for format in ["%z", "%", "\\q", "x\\"] {
            assert!(Format::parse(format).is_err(), "{format}");
        }
    }
}

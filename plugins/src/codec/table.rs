//! A codec's table to a declaration, or to what its functions promise.

use postroad_protocol::frame::{
    Abilities, Accepts, Acknowledgement, Answers, Checksum, Condition, Endian, FRAME_BYTES_MAX, Field, Framing, Kind,
    Message, Payload, Shape, Size, Spec, TextPattern, Wanted,
};

use super::FunctionTable;
use super::keys::{Keys, Result, error, whole};
use crate::{CodecTable, Plain};

const KEYS: &[&str] = &["framing", "fields", "messages", "keep_alive", "clean_start"];
const FRAMING_KEYS: &[&str] = &["fixed", "delimiter", "length", "plus", "fields", "longest"];
const FIELD_KEYS: &[&str] = &["name", "bits", "signed", "endian", "constant", "bytes", "pad", "checksum", "from", "to"];
const BYTES_KEYS: &[&str] = &["field", "plus"];
const MESSAGE_KEYS: &[&str] =
    &["kind", "when", "text", "client", "user", "password", "topic", "payload", "tag", "reason"];
const JSON_KEYS: &[&str] = &["json"];
const FUNCTION_KEYS: &[&str] = &["longest", "answers", "acknowledge", "keep_alive", "clean_start"];

/// The declaration in a table of plain data.
///
/// # Errors
/// With the place in the table that is wrong. Whether the declaration can be is [`postroad_protocol::frame::Plan`]'s to say.
pub fn spec_of(table: &Plain) -> Result<Spec> {
    let keys = Keys::of(String::new(), table, KEYS)?;
    let framing = keys.needed("framing", keys.get("framing"))?;
    let fields = keys.array("fields")?.into_iter().map(|(place, field)| self::field(place, field));
    let fields = fields.collect::<Result<Vec<Field>>>()?;
    let messages = keys.array("messages")?.into_iter().map(|(place, message)| self::message(place, message, &fields));
    let messages = messages.collect::<Result<Vec<Message>>>()?;
    Ok(Spec {
        framing: self::framing(keys.place_of("framing"), framing)?,
        fields,
        messages,
        keep_alive_seconds: keys.number("keep_alive")?.unwrap_or(0),
        clean_start: keys.flag("clean_start")?,
    })
}

fn framing(place: String, plain: &Plain) -> Result<Framing> {
    let keys = Keys::of(place, plain, FRAMING_KEYS)?;
    let ways = ["fixed", "delimiter", "length", "fields"].into_iter().filter(|key| keys.get(key).is_some());
    let ways: Vec<&str> = ways.collect();
    let longest = || keys.needed("longest", keys.number("longest")?);
    let [way] = ways[..] else {
        return keys.error("one of 'fixed', 'delimiter', 'length' and 'fields' says where a frame ends");
    };
    let unused = match way {
        "fixed" => &["longest", "plus"][..],
        "length" => &[],
        _ => &["plus"],
    };
    if let Some(key) = unused.iter().find(|key| keys.get(key).is_some()) {
        return keys.error(format!("'{way}' has no use for '{key}'"));
    }
    match way {
        "fixed" => Ok(Framing::Fixed { bytes: keys.needed("fixed", keys.number("fixed")?)? }),
        "delimiter" => {
            let by = keys.needed("delimiter", keys.bytes("delimiter")?)?;
            Ok(Framing::Delimited { by, bytes_max: longest()? })
        }
        "length" => Ok(Framing::Length {
            field: keys.needed("length", keys.text("length")?)?,
            plus: keys.integer("plus")?.unwrap_or(0),
            bytes_max: longest()?,
        }),
        _ if keys.flag("fields")? => Ok(Framing::Fields { bytes_max: longest()? }),
        _ => keys.error("'fields' is true, or not there"),
    }
}

fn field(place: String, plain: &Plain) -> Result<Field> {
    let keys = Keys::of(place, plain, FIELD_KEYS)?;
    let name = keys.needed("name", keys.text("name")?)?;
    let (bits, bytes, checksum) = (keys.number::<u8>("bits")?, keys.get("bytes"), keys.text("checksum")?);
    let (shape, of_use) = match (bits, bytes, checksum) {
        (Some(bits), None, None) => (number(&keys, bits)?, &["bits", "signed", "endian", "constant"][..]),
        (None, Some(bytes), None) => (self::bytes(&keys, bytes)?, &["bytes", "pad"][..]),
        (None, None, Some(name)) => (self::checksum(&keys, &name)?, &["checksum", "from", "to", "endian"][..]),
        (None, None, None) if keys.get("constant").is_some() => {
            (Shape::Constant(keys.bytes("constant")?.unwrap_or_default()), &["constant"][..])
        }
        _ => return keys.error("a field has one of 'bits', 'bytes' and 'checksum', or a 'constant' alone"),
    };
    let needless = FIELD_KEYS.iter().find(|key| **key != "name" && !of_use.contains(key) && keys.get(key).is_some());
    match needless {
        Some(key) => keys.error(format!("field `{name}` has no use for '{key}'")),
        None => Ok(Field { name, shape }),
    }
}

fn number(keys: &Keys<'_>, bits: u8) -> Result<Shape> {
    let constant = match keys.integer("constant")? {
        // Lua's whole numbers are signed: a constant of 64 bits is written as it comes out, in hexadecimal digits.
        Some(constant) if constant < 0 && bits < 64 => {
            return Err(error(&keys.place_of("constant"), "a constant is not below 0: write its bits"));
        }
        constant => constant.map(|constant| constant as u64),
    };
    Ok(Shape::Number { bits, signed: keys.flag("signed")?, endian: endian(keys)?, constant })
}

fn endian(keys: &Keys<'_>) -> Result<Endian> {
    match keys.text("endian")?.as_deref() {
        None | Some("big") => Ok(Endian::Big),
        Some("little") => Ok(Endian::Little),
        Some(_) => keys.expect("endian", "\"big\" or \"little\"", None),
    }
}

fn bytes(keys: &Keys<'_>, plain: &Plain) -> Result<Shape> {
    let size = match plain {
        Plain::Bytes(text) if &text[..] == b"rest" => Size::Rest,
        Plain::Map(_) => {
            let counted = Keys::of(keys.place_of("bytes"), plain, BYTES_KEYS)?;
            let field = counted.needed("field", counted.text("field")?)?;
            Size::Counted { field, plus: counted.integer("plus")?.unwrap_or(0) }
        }
        _ => {
            let fixed = whole(plain).and_then(|bytes| u32::try_from(bytes).ok());
            Size::Fixed(keys.expect("bytes", "a number, \"rest\", or { field = …, plus = … }", fixed)?)
        }
    };
    let pad = match keys.bytes("pad")? {
        None => None,
        Some(pad) if pad.len() == 1 => Some(pad[0]),
        Some(_) => return keys.expect("pad", "a string of one byte", None),
    };
    Ok(Shape::Bytes { size, pad })
}

fn checksum(keys: &Keys<'_>, name: &str) -> Result<Shape> {
    let algorithm = Checksum::from_name(name);
    let known = Checksum::ALL.map(Checksum::name).join(", ");
    Ok(Shape::Checksum {
        algorithm: keys.expect("checksum", &format!("one of {known}"), algorithm)?,
        from: keys.needed("from", keys.text("from")?)?,
        to: keys.needed("to", keys.text("to")?)?,
        endian: endian(keys)?,
    })
}

fn message(place: String, plain: &Plain, fields: &[Field]) -> Result<Message> {
    let keys = Keys::of(place, plain, MESSAGE_KEYS)?;
    let kind = keys.needed("kind", keys.text("kind")?)?;
    let known = Kind::ALL.map(Kind::name).join(", ");
    let kind = keys.expect("kind", &format!("one of {known}"), Kind::from_name(&kind))?;
    Ok(Message {
        kind,
        when: when(&keys, fields)?,
        text: text(&keys)?,
        client: keys.text("client")?,
        user: keys.text("user")?,
        password: keys.text("password")?,
        topic: keys.text("topic")?,
        payload: payload(&keys)?,
        tag: keys.text("tag")?,
        reason: keys.text("reason")?,
    })
}

/// In the order of the fields: the first condition is the command, and a table has no order.
fn when(keys: &Keys<'_>, fields: &[Field]) -> Result<Vec<Condition>> {
    let Some(plain) = keys.get("when") else { return Ok(Vec::new()) };
    let Plain::Map(entries) = plain else { return keys.expect("when", "a table: { field = value }", None) };
    let place = |name: &str| fields.iter().position(|field| field.name == name);
    let mut conditions = Vec::new();
    for (name, value) in entries {
        let field = keys.expect("when", "names of fields", name.as_str())?.to_owned();
        let value = match value.as_str() {
            Some("asked") => Wanted::Asked,
            _ => {
                let number = whole(value).and_then(|number| u64::try_from(number).ok());
                Wanted::Is(keys.expect("when", "whole numbers, or \"asked\"", number)?)
            }
        };
        conditions.push(Condition { field, value });
    }
    conditions.sort_by_key(|condition| place(&condition.field).unwrap_or(usize::MAX));
    Ok(conditions)
}

fn text(keys: &Keys<'_>) -> Result<Option<TextPattern>> {
    let Some(plain) = keys.get("text") else { return Ok(None) };
    let pattern = match plain {
        Plain::Map(entries) => match &entries[..] {
            [(field, pattern)] => field.as_str().zip(pattern.as_str()),
            _ => None,
        },
        _ => None,
    };
    let (field, pattern) =
        keys.expect("text", "a table with one entry: { field = \"PUB {topic} {payload}\" }", pattern)?;
    Ok(Some(TextPattern { field: field.to_owned(), pattern: pattern.to_owned() }))
}

fn payload(keys: &Keys<'_>) -> Result<Option<Payload>> {
    let Some(plain) = keys.get("payload") else { return Ok(None) };
    if let Some(field) = plain.as_str() {
        return Ok(Some(Payload::Field(field.to_owned())));
    }
    let json = Keys::of(keys.place_of("payload"), plain, JSON_KEYS)?;
    let members = json.array("json")?.into_iter().map(|(place, member)| {
        member.as_str().map(str::to_owned).ok_or_else(|| error(&place, "expected the name of a field"))
    });
    Ok(Some(Payload::Json(members.collect::<Result<_>>()?)))
}

/// What the table beside the functions says.
pub(super) fn functions_of(table: &CodecTable) -> Result<FunctionTable> {
    let keys = Keys::of(String::new(), &table.data, FUNCTION_KEYS)?;
    if let Some((name, _)) = table.functions.iter().find(|(name, _)| name != "decode" && name != "encode") {
        return keys.error(format!("unknown function '{name}': known are decode, encode"));
    }
    let function = |name: &str| table.functions.iter().find(|(known, _)| known == name).map(|(_, of)| of.clone());
    let bytes_max: u32 = keys.needed("longest", keys.number("longest")?)?;
    if !(1..=FRAME_BYTES_MAX).contains(&bytes_max) {
        return Err(error(&keys.place_of("longest"), format!("must be 1 to {FRAME_BYTES_MAX}")));
    }
    Ok(FunctionTable {
        decode: keys.needed("decode", function("decode"))?,
        encode: keys.needed("encode", function("encode"))?,
        bytes_max: bytes_max as usize,
        abilities: abilities(&keys)?,
    })
}

fn abilities(keys: &Keys<'_>) -> Result<Abilities> {
    let mut answers = Answers::default();
    let mut pushes = false;
    for (place, kind) in keys.array("answers")? {
        match kind.as_str() {
            Some("welcome") => answers.welcome = true,
            Some("pong") => answers.pong = true,
            Some("accepted") => answers.accepted = Some(Accepts::InTurn),
            Some("accepted_by_tag") => answers.accepted = Some(Accepts::Tagged),
            Some("refused") => answers.refused = true,
            Some("push") => pushes = true,
            _ => return Err(error(&place, "expected welcome, pong, accepted, accepted_by_tag, refused or push")),
        }
    }
    let acknowledgement = acknowledgement(keys)?;
    if !pushes && acknowledgement != Acknowledgement::None {
        return keys.error("'acknowledge', and no \"push\" among the answers");
    }
    Ok(Abilities {
        answers,
        pushes: pushes.then_some(acknowledgement),
        keep_alive_seconds: keys.number("keep_alive")?.unwrap_or(0),
        clean_start: keys.flag("clean_start")?,
    })
}

/// `"in_turn"`, or the bits of a tag.
fn acknowledgement(keys: &Keys<'_>) -> Result<Acknowledgement> {
    let Some(plain) = keys.get("acknowledge") else { return Ok(Acknowledgement::None) };
    if plain.as_str() == Some("in_turn") {
        return Ok(Acknowledgement::InTurn);
    }
    let bits = whole(plain).and_then(|bits| u8::try_from(bits).ok()).filter(|bits| (1..=64).contains(bits));
    let what = "\"in_turn\", or the bits of a push's tag, 1 to 64";
    Ok(Acknowledgement::Tagged { bits: keys.expect("acknowledge", what, bits)? })
}

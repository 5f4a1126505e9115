//! From names to places: the fields of a declaration, and the words of one message.

use super::SpecError;
use super::plan::{Piece, Place, Ref, Template};
use super::spec::{Field, Shape};
use super::template::{Format, Written, parse};

pub(super) fn field_error(name: &str, detail: impl Into<String>) -> SpecError {
    SpecError { place: format!("field `{name}`"), detail: detail.into() }
}

/// What the names of one message may stand for.
pub(super) struct Names<'s> {
    pub(super) fields: &'s [Field],
    pub(super) words: Vec<String>,
}

/// A name that can be written in braces.
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_');
    begins && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The place of a field.
pub(super) fn place_of(fields: &[Field], name: &str) -> Result<u8, String> {
    let place = fields.iter().position(|field| field.name == name);
    let place = place.ok_or_else(|| format!("there is no field `{name}`"))?;
    Ok(u8::try_from(place).expect("no more fields than fit"))
}

impl Names<'_> {
    /// What a name stands for: a word of the message, a field, or the client.
    pub(super) fn find(&self, name: &str) -> Result<Ref, String> {
        if name == "client" {
            return Ok(Ref::Client);
        }
        match self.words.iter().position(|word| word == name) {
            Some(word) => Ok(Ref::Input(Place::Word(u8::try_from(word).expect("no more words than fit")))),
            None => self.field(name).map_err(|error| match self.words.is_empty() {
                true => error,
                false => format!("{error}, and the text has no such word"),
            }),
        }
    }

    fn field(&self, name: &str) -> Result<Ref, String> {
        let place = place_of(self.fields, name)?;
        Ok(match self.fields[usize::from(place)].shape {
            Shape::Number { .. } | Shape::Checksum { .. } => Ref::Number(place),
            Shape::Bytes { .. } | Shape::Constant(_) => Ref::Input(Place::Field(place)),
        })
    }

    /// What is a number: unsigned, or a word.
    pub(super) fn number(&self, name: &str) -> Result<Ref, String> {
        let found = self.find(name)?;
        let is_number = match found {
            Ref::Client | Ref::Input(Place::Field(_)) => false,
            Ref::Input(Place::Word(_)) => true,
            Ref::Number(place) => {
                matches!(self.fields[usize::from(place)].shape, Shape::Number { signed: false, constant: None, .. })
            }
        };
        if is_number { Ok(found) } else { Err(format!("`{name}` is no unsigned number that varies")) }
    }

    pub(super) fn template(&self, text: &str) -> Result<Template, String> {
        let pieces = parse(text)?.into_iter().map(|piece| match piece {
            Written::Literal(literal) => Ok(Piece::Literal(literal.into())),
            Written::Name { name, format } => self.value(&name, format),
        });
        let pieces: Box<[Piece]> = pieces.collect::<Result<_, String>>()?;
        Ok(match *pieces {
            [Piece::Value(Ref::Input(place), Format::Plain)] => Template::Input(place),
            _ => Template::Text(pieces),
        })
    }

    /// What a name alone stands for.
    pub(super) fn named(&self, name: &str) -> Result<Template, String> {
        Ok(match self.find(name)? {
            Ref::Input(place) => Template::Input(place),
            other => Template::Text([Piece::Value(other, Format::Plain)].into()),
        })
    }

    fn value(&self, name: &str, format: Format) -> Result<Piece, String> {
        let found = self.find(name)?;
        if found == Ref::Client && format != Format::Plain {
            return Err("the client is a text: it has no format".to_owned());
        }
        Ok(Piece::Value(found, format))
    }
}

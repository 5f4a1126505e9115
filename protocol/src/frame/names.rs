//! From names to places: the fields of a declaration, and the words of one message.

use super::SpecError;
use super::plan::{Piece, Ref, Template};
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
            Some(word) => Ok(Ref::Word(u8::try_from(word).expect("no more words than fit"))),
            None => place_of(self.fields, name).map(Ref::Field).map_err(|error| match self.words.is_empty() {
                true => error,
                false => format!("{error}, and the text has no such word"),
            }),
        }
    }

    /// What is a number: unsigned, or a word.
    pub(super) fn number(&self, name: &str) -> Result<Ref, String> {
        let found = self.find(name)?;
        let is_number = match found {
            Ref::Client => false,
            Ref::Word(_) => true,
            Ref::Field(place) => {
                matches!(self.fields[usize::from(place)].shape, Shape::Number { signed: false, constant: None, .. })
            }
        };
        if is_number { Ok(found) } else { Err(format!("`{name}` is no unsigned number that varies")) }
    }

    pub(super) fn template(&self, text: &str) -> Result<Template, String> {
        let pieces = parse(text)?.into_iter().map(|piece| match piece {
            Written::Literal(literal) => Ok(Piece::Literal(literal.into_bytes().into())),
            Written::Name { name, format } => self.value(&name, format),
        });
        pieces.collect()
    }

    fn value(&self, name: &str, format: Format) -> Result<Piece, String> {
        let found = self.find(name)?;
        if found == Ref::Client && format != Format::Plain {
            return Err("the client is a text: it has no format".to_owned());
        }
        Ok(Piece::Value(found, format))
    }
}

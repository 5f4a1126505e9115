//! Bytes to a frame.

use std::ops::Range;

use smallvec::SmallVec;

use super::layout::{Extent, Layout, find};
use super::plan::{PatternPiece, PayloadPlan, Piece, Plan, Reading, Ref, ShapePlan};
use super::template::{Format, push_decimal, push_digits, push_json_text};
use super::{Decoded, Fault, Frame, FrameError};

/// The words that a pattern found, as places in the content.
type Words = SmallVec<[Range<u32>; 8]>;

/// A text, where it lies.
#[derive(Clone, Debug)]
enum Part<'a> {
    Input(&'a [u8]),
    /// Among the texts that were written.
    Written(Range<usize>),
}

/// One frame, taken apart.
struct View<'a, 'c> {
    plan: &'c Plan,
    content: &'a [u8],
    layout: &'c Layout,
    words: &'c Words,
    client: &'c str,
}

impl Plan {
    /// See [`super::Codec::decode`]. `texts` is empty, and holds what the frame says and the bytes do not.
    pub(super) fn decode<'a>(
        &self,
        input: &'a [u8],
        client: &str,
        texts: &'a mut Vec<u8>,
    ) -> Result<Decoded<'a>, FrameError> {
        let (size, content) = match self.extent(input)? {
            Extent::Incomplete { needed } => return Ok(Decoded::Incomplete { needed }),
            Extent::Frame { size, content } => (size, &input[..content]),
        };
        let layout = Layout::of(self, content)?;
        self.check(content, &layout)?;
        let (reading, words) = self.reading_of(content, &layout)?;
        let view = View { plan: self, content, layout: &layout, words: &words, client };
        Ok(Decoded::Frame { frame: view.frame(reading, texts)?, size })
    }

    /// Constants and checksums.
    fn check(&self, content: &[u8], layout: &Layout) -> Result<(), FrameError> {
        for (index, field) in self.fields.iter().enumerate() {
            let at = layout.start(index);
            if let ShapePlan::Checksum { algorithm, from, to, bits } = &field.shape {
                let begin = layout.start(usize::from(*from)) as usize / 8;
                let end = layout.start(usize::from(*to) + 1) as usize / 8;
                let (computed, found) = (algorithm.of(&content[begin..end]), bits.read(content, at));
                if computed != found {
                    let detail = format!("field `{}`: {found:#x} came, {computed:#x} is right", field.name);
                    return Err(FrameError::new(Fault::Checksum, detail));
                }
            } else {
                self.check_constant(index, content, at)?;
            }
        }
        Ok(())
    }

    /// The first message that fits.
    fn reading_of(&self, content: &[u8], layout: &Layout) -> Result<(&Reading, Words), FrameError> {
        // Most messages look at the same field first.
        let mut seen = None;
        let mut value_of = |index: u8| match seen {
            Some((known, value)) if known == index => value,
            _ => {
                let value = self.number(index, content, layout);
                seen = Some((index, value));
                value
            }
        };
        for reading in &self.readings {
            if !reading.conditions.iter().all(|(field, value)| value_of(*field) == *value) {
                continue;
            }
            let Some((field, pattern)) = &reading.text else { return Ok((reading, Words::new())) };
            if let Some(words) = self.words_of(usize::from(*field), pattern, content, layout) {
                return Ok((reading, words));
            }
        }
        Err(FrameError::new(Fault::Command, self.unknown_command(content, layout)))
    }

    fn unknown_command(&self, content: &[u8], layout: &Layout) -> String {
        let first = self.readings.iter().find_map(|reading| reading.conditions.first());
        match first {
            Some((field, _)) => {
                let name = &self.fields[usize::from(*field)].name;
                format!("field `{name}`: {} is no command of a device", self.number(*field, content, layout))
            }
            None => "no message of a device has such a text".to_owned(),
        }
    }

    fn number(&self, index: u8, content: &[u8], layout: &Layout) -> u64 {
        match &self.fields[usize::from(index)].shape {
            ShapePlan::Number { bits, .. } | ShapePlan::Checksum { bits, .. } => {
                bits.read(content, layout.start(usize::from(index)))
            }
            ShapePlan::Constant(_) | ShapePlan::Bytes { .. } => 0,
        }
    }

    /// The bytes of a field without its padding; empty for a number.
    fn bytes<'a>(&self, index: usize, content: &'a [u8], layout: &Layout) -> &'a [u8] {
        match &self.fields[index].shape {
            ShapePlan::Bytes { pad, .. } => trimmed(layout.bytes(content, index), *pad),
            ShapePlan::Constant(_) => layout.bytes(content, index),
            ShapePlan::Number { .. } | ShapePlan::Checksum { .. } => &[],
        }
    }

    /// The words of a field's text, if that has the pattern.
    fn words_of(&self, field: usize, pattern: &[PatternPiece], content: &[u8], layout: &Layout) -> Option<Words> {
        let text = self.bytes(field, content, layout);
        let base = layout.start(field) / 8;
        let mut words = Words::new();
        let mut at = 0;
        let mut pieces = pattern.iter().peekable();
        while let Some(piece) = pieces.next() {
            match (piece, pieces.peek()) {
                (PatternPiece::Literal(literal), _) => {
                    at += text[at..].starts_with(literal).then_some(literal.len())?;
                }
                (PatternPiece::Word, Some(PatternPiece::Literal(next))) => {
                    let end = at + find(&text[at..], next)?;
                    words.push(base + at as u32..base + end as u32);
                    at = end;
                }
                (PatternPiece::Word, _) => {
                    words.push(base + at as u32..base + text.len() as u32);
                    at = text.len();
                }
            }
        }
        (at == text.len()).then_some(words)
    }
}

/// Without the padding at its end.
fn trimmed(bytes: &[u8], pad: Option<u8>) -> &[u8] {
    let Some(pad) = pad else { return bytes };
    let len = bytes.iter().rposition(|byte| *byte != pad).map_or(0, |last| last + 1);
    &bytes[..len]
}

impl<'a> View<'a, '_> {
    fn frame(&self, reading: &Reading, texts: &'a mut Vec<u8>) -> Result<Frame<'a>, FrameError> {
        let mut part = |template: &Option<Box<[Piece]>>| match template {
            Some(template) => self.render(template, texts).map(Some),
            None => Ok(None),
        };
        let [client, user, password, topic] =
            [part(&reading.client)?, part(&reading.user)?, part(&reading.password)?, part(&reading.topic)?];
        let payload = self.payload(&reading.payload, texts)?;
        let texts: &'a [u8] = texts;
        let bytes = |part: Option<Part<'a>>| part.map(|part| part.of(texts));
        let command = reading.conditions.first().map_or(0, |(_, value)| *value);
        Ok(Frame {
            kind: reading.kind,
            tag: reading.tag.map(|tag| self.tag(tag)).transpose()?,
            command,
            client: text("client", bytes(client).unwrap_or_default())?,
            user: bytes(user).map(|user| text("user", user)).transpose()?,
            password: bytes(password),
            topic: text("topic", bytes(topic).unwrap_or_default())?,
            payload: payload.of(texts),
            reason: 0,
        })
    }

    /// A template, filled in. What is one piece of the input stays there.
    fn render(&self, template: &[Piece], texts: &mut Vec<u8>) -> Result<Part<'a>, FrameError> {
        if let [Piece::Value(reference, Format::Plain)] = template
            && let Some(bytes) = self.bytes_of(*reference)
        {
            return Ok(Part::Input(bytes));
        }
        let begin = texts.len();
        for piece in template {
            match piece {
                Piece::Literal(literal) => texts.extend_from_slice(literal),
                Piece::Value(reference, format) => self.write(*reference, *format, texts)?,
            }
        }
        Ok(Part::Written(begin..texts.len()))
    }

    /// What a name stands for, if that is bytes of the input.
    fn bytes_of(&self, reference: Ref) -> Option<&'a [u8]> {
        match reference {
            Ref::Client => None,
            Ref::Word(word) => {
                let Range { start, end } = self.words[usize::from(word)];
                Some(&self.content[start as usize..end as usize])
            }
            Ref::Field(index) => match &self.plan.fields[usize::from(index)].shape {
                ShapePlan::Number { .. } | ShapePlan::Checksum { .. } => None,
                ShapePlan::Constant(_) | ShapePlan::Bytes { .. } => {
                    Some(self.plan.bytes(index.into(), self.content, self.layout))
                }
            },
        }
    }

    fn write(&self, reference: Ref, format: Format, texts: &mut Vec<u8>) -> Result<(), FrameError> {
        match (self.bytes_of(reference), reference) {
            (Some(bytes), _) if format == Format::Plain => texts.extend_from_slice(bytes),
            (Some(bytes), _) if push_digits(bytes, format, texts) => {}
            (Some(_), _) => return Err(FrameError::new(Fault::Value, "not digits from 0 to 9 in BCD")),
            (None, Ref::Field(index)) => self.write_number(index, format, texts)?,
            (None, _) => texts.extend_from_slice(self.client.as_bytes()),
        }
        Ok(())
    }

    fn write_number(&self, index: u8, format: Format, texts: &mut Vec<u8>) -> Result<(), FrameError> {
        let raw = self.plan.number(index, self.content, self.layout);
        let field = &self.plan.fields[usize::from(index)];
        match (&field.shape, format) {
            (ShapePlan::Number { bits, .. }, Format::Plain) if bits.signed => {
                let value = bits.signed_value(raw);
                if value < 0 {
                    texts.push(b'-');
                }
                push_decimal(value.unsigned_abs(), texts);
            }
            (_, Format::Plain) => push_decimal(raw, texts),
            (_, Format::Hex | Format::Bcd) => {
                let begin = texts.len();
                let is_right = push_digits(&raw.to_be_bytes(), format, texts);
                let zeros = texts[begin..].iter().take_while(|digit| **digit == b'0').count();
                texts.drain(begin..begin + zeros.min(15));
                if !is_right {
                    let detail = format!("field `{}`: {raw:#x} is not BCD", field.name);
                    return Err(FrameError::new(Fault::Value, detail));
                }
            }
        }
        Ok(())
    }

    fn payload(&self, plan: &PayloadPlan, texts: &mut Vec<u8>) -> Result<Part<'a>, FrameError> {
        match plan {
            PayloadPlan::Empty => Ok(Part::Input(&[])),
            PayloadPlan::Value(reference) => self.render(&[Piece::Value(*reference, Format::Plain)], texts),
            PayloadPlan::Json(members) => {
                let begin = texts.len();
                for (place, (name, reference)) in members.iter().enumerate() {
                    texts.push(if place == 0 { b'{' } else { b',' });
                    push_json_text(name, texts);
                    texts.push(b':');
                    self.write_json(*reference, texts)?;
                }
                texts.push(b'}');
                Ok(Part::Written(begin..texts.len()))
            }
        }
    }

    /// Numbers as numbers; bytes as texts, those that are none in hexadecimal digits.
    fn write_json(&self, reference: Ref, texts: &mut Vec<u8>) -> Result<(), FrameError> {
        match (self.bytes_of(reference), reference) {
            (Some(bytes), _) => match std::str::from_utf8(bytes) {
                Ok(text) => push_json_text(text, texts),
                Err(_) => {
                    texts.push(b'"');
                    push_digits(bytes, Format::Hex, texts);
                    texts.push(b'"');
                }
            },
            (None, Ref::Client) => push_json_text(self.client, texts),
            (None, _) => self.write(reference, Format::Plain, texts)?,
        }
        Ok(())
    }

    fn tag(&self, reference: Ref) -> Result<u64, FrameError> {
        match (self.bytes_of(reference), reference) {
            (None, Ref::Field(index)) => Ok(self.plan.number(index, self.content, self.layout)),
            (bytes, _) => {
                let digits = std::str::from_utf8(bytes.unwrap_or_default()).ok();
                let number = digits.and_then(|digits| digits.parse().ok());
                number.ok_or_else(|| FrameError::new(Fault::Value, "the tag is not a number"))
            }
        }
    }
}

impl<'a> Part<'a> {
    fn of(self, texts: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Input(bytes) => bytes,
            Self::Written(place) => &texts[place],
        }
    }
}

fn text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, FrameError> {
    std::str::from_utf8(bytes)
        .map_err(|_| FrameError::new(Fault::Value, format!("the {what} is not well-formed UTF-8")))
}

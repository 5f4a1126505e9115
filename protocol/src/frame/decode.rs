//! Bytes to a frame.

use std::ops::Range;

use smallvec::SmallVec;

use super::layout::{Extent, Layout, Starts, find};
use super::plan::{Part, PatternPiece, Piece, Place, Plan, Reading, Ref, ShapePlan, Template};
use super::template::{Format, push_digits, push_json_text};
use super::{Decoded, Fault, Frame, FrameError};

/// The words that a pattern found, as places in the content.
type Words = SmallVec<[Range<u32>; 8]>;

/// One frame, taken apart.
struct View<'a, 'c> {
    plan: &'c Plan,
    content: &'a [u8],
    layout: Layout<'c>,
    words: &'c [Range<u32>],
    client: &'c str,
}

impl Plan {
    /// See [`super::Codec::decode`]. `texts` is empty, and holds what the frame says and the bytes do not: nothing
    /// but texts, so that none need be looked at once more.
    pub(super) fn decode<'a>(
        &self,
        input: &'a [u8],
        client: &str,
        texts: &'a mut String,
    ) -> Result<Decoded<'a>, FrameError> {
        let (size, content) = match self.extent(input)? {
            Extent::Incomplete { needed } => return Ok(Decoded::Incomplete { needed }),
            Extent::Frame { size, content } => (size, &input[..content]),
        };
        let (mut starts, mut words) = (Starts::new(), Words::new());
        let layout = Layout::of(self, content, &mut starts)?;
        self.check(content, layout)?;
        let reading = self.reading_of(content, layout, &mut words)?;
        let view = View { plan: self, content, layout, words: &words, client };
        view.message(reading, size, texts)
    }

    /// Constants and checksums.
    fn check(&self, content: &[u8], layout: Layout<'_>) -> Result<(), FrameError> {
        for index in self.checked.iter().map(|index| usize::from(*index)) {
            let (field, at) = (&self.fields[index], layout.start(index));
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

    /// The first message that fits, and its words.
    fn reading_of(&self, content: &[u8], layout: Layout<'_>, words: &mut Words) -> Result<&Reading, FrameError> {
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
            let Some((field, pattern)) = &reading.text else { return Ok(reading) };
            if self.find_words(usize::from(*field), pattern, content, layout, words).is_some() {
                return Ok(reading);
            }
            words.clear();
        }
        Err(FrameError::new(Fault::Command, self.unknown_command(content, layout)))
    }

    fn unknown_command(&self, content: &[u8], layout: Layout<'_>) -> String {
        let first = self.readings.iter().find_map(|reading| reading.conditions.first());
        match first {
            Some((field, _)) => {
                let name = &self.fields[usize::from(*field)].name;
                format!("field `{name}`: {} is no command of a device", self.number(*field, content, layout))
            }
            None => "no message of a device has such a text".to_owned(),
        }
    }

    fn number(&self, index: u8, content: &[u8], layout: Layout<'_>) -> u64 {
        match &self.fields[usize::from(index)].shape {
            ShapePlan::Number { bits, .. } | ShapePlan::Checksum { bits, .. } => {
                bits.read(content, layout.start(usize::from(index)))
            }
            ShapePlan::Constant(_) | ShapePlan::Bytes { .. } => 0,
        }
    }

    /// The bytes of a field without its padding; empty for a number.
    fn bytes<'a>(&self, index: usize, content: &'a [u8], layout: Layout<'_>) -> &'a [u8] {
        match &self.fields[index].shape {
            ShapePlan::Bytes { pad, .. } => trimmed(layout.bytes(content, index), *pad),
            ShapePlan::Constant(_) => layout.bytes(content, index),
            ShapePlan::Number { .. } | ShapePlan::Checksum { .. } => &[],
        }
    }

    /// Appends the words of a field's text; `None` if it does not have the pattern.
    fn find_words(
        &self,
        field: usize,
        pattern: &[PatternPiece],
        content: &[u8],
        layout: Layout<'_>,
        words: &mut Words,
    ) -> Option<()> {
        let text = self.bytes(field, content, layout);
        let base = layout.start(field) / 8;
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
        (at == text.len()).then_some(())
    }
}

/// Without the padding at its end. That can be most of a frame, so it is taken in blocks first.
fn trimmed(bytes: &[u8], pad: Option<u8>) -> &[u8] {
    let Some(pad) = pad else { return bytes };
    without_blocks::<1>(without_blocks::<16>(without_blocks::<128>(bytes, pad), pad), pad)
}

/// Without the blocks at its end that hold nothing but padding.
fn without_blocks<const SIZE: usize>(mut bytes: &[u8], pad: u8) -> &[u8] {
    while let Some((front, block)) = bytes.split_last_chunk::<SIZE>()
        && block.iter().fold(0, |differs, byte| differs | byte ^ pad) == 0
    {
        bytes = front;
    }
    bytes
}

impl<'a> View<'a, '_> {
    /// Writes first what is to be written, so that nothing is copied afterwards.
    fn message(&self, reading: &Reading, size: usize, texts: &'a mut String) -> Result<Decoded<'a>, FrameError> {
        let mut places = [(0, 0); Part::COUNT];
        for part in &reading.written {
            let begin = texts.len();
            match &reading.parts[*part as usize] {
                None | Some(Template::Input(_)) => {}
                Some(Template::Text(pieces)) => self.write_text(*part, pieces, texts)?,
                Some(Template::Json(members)) => self.write_members(members, texts)?,
            }
            places[*part as usize] = (begin, texts.len());
        }
        let texts: &'a str = texts;
        let bytes = |part: Part| match &reading.parts[part as usize] {
            None => None,
            Some(Template::Input(place)) => Some(self.bytes_at(*place)),
            Some(Template::Text(_) | Template::Json(_)) => Some(written(texts, places[part as usize]).as_bytes()),
        };
        let text = |part: Part| match &reading.parts[part as usize] {
            None => Ok(None),
            Some(Template::Input(place)) => text(part, self.bytes_at(*place)).map(Some),
            Some(Template::Text(_) | Template::Json(_)) => Ok(Some(written(texts, places[part as usize]))),
        };
        let frame = Frame {
            kind: reading.kind,
            tag: reading.tag.map(|tag| self.tag(tag)).transpose()?,
            command: reading.conditions.first().map_or(0, |(_, value)| *value),
            client: text(Part::Client)?.unwrap_or_default(),
            user: text(Part::User)?,
            password: bytes(Part::Password),
            topic: text(Part::Topic)?.unwrap_or_default(),
            payload: bytes(Part::Payload).unwrap_or_default(),
            reason: 0,
        };
        Ok(Decoded::Frame { frame, size })
    }

    fn bytes_at(&self, place: Place) -> &'a [u8] {
        match place {
            Place::Field(index) => self.plan.bytes(index.into(), self.content, self.layout),
            Place::Word(word) => {
                let Range { start, end } = self.words[usize::from(word)];
                &self.content[start as usize..end as usize]
            }
        }
    }

    fn write_text(&self, part: Part, pieces: &[Piece], texts: &mut String) -> Result<(), FrameError> {
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => texts.push_str(literal),
                Piece::Value(Ref::Client, _) => texts.push_str(self.client),
                Piece::Value(Ref::Number(index), format) => self.write_number(*index, *format, texts)?,
                Piece::Value(Ref::Input(place), Format::Plain) => texts.push_str(text(part, self.bytes_at(*place))?),
                Piece::Value(Ref::Input(place), format) => {
                    if !push_digits(self.bytes_at(*place), *format, texts) {
                        return Err(FrameError::new(Fault::Value, "not digits from 0 to 9 in BCD"));
                    }
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn write_number(&self, index: u8, format: Format, texts: &mut String) -> Result<(), FrameError> {
        let raw = self.plan.number(index, self.content, self.layout);
        let field = &self.plan.fields[usize::from(index)];
        match (&field.shape, format) {
            (ShapePlan::Number { bits, .. }, Format::Plain) if bits.signed => {
                texts.push_str(itoa::Buffer::new().format(bits.signed_value(raw)));
            }
            (_, Format::Plain) => texts.push_str(itoa::Buffer::new().format(raw)),
            (_, Format::Hex | Format::Bcd) => {
                let begin = texts.len();
                let is_right = push_digits(&raw.to_be_bytes(), format, texts);
                let zeros = texts[begin..].bytes().take_while(|digit| *digit == b'0').count();
                texts.drain(begin..begin + zeros.min(15));
                if !is_right {
                    let detail = format!("field `{}`: {raw:#x} is not BCD", field.name);
                    return Err(FrameError::new(Fault::Value, detail));
                }
            }
        }
        Ok(())
    }

    fn write_members(&self, members: &[(Box<str>, Ref)], texts: &mut String) -> Result<(), FrameError> {
        for (place, (name, reference)) in members.iter().enumerate() {
            texts.push(if place == 0 { '{' } else { ',' });
            push_json_text(name, texts);
            texts.push(':');
            self.write_json(*reference, texts)?;
        }
        texts.push('}');
        Ok(())
    }

    /// Numbers as numbers; bytes as texts, those that are none in hexadecimal digits.
    fn write_json(&self, reference: Ref, texts: &mut String) -> Result<(), FrameError> {
        match reference {
            Ref::Client => push_json_text(self.client, texts),
            Ref::Number(index) => self.write_number(index, Format::Plain, texts)?,
            Ref::Input(place) => match std::str::from_utf8(self.bytes_at(place)) {
                Ok(text) => push_json_text(text, texts),
                Err(_) => {
                    texts.push('"');
                    push_digits(self.bytes_at(place), Format::Hex, texts);
                    texts.push('"');
                }
            },
        }
        Ok(())
    }

    fn tag(&self, reference: Ref) -> Result<u64, FrameError> {
        let digits = match reference {
            Ref::Number(index) => return Ok(self.plan.number(index, self.content, self.layout)),
            Ref::Input(place) => self.bytes_at(place),
            Ref::Client => self.client.as_bytes(),
        };
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| FrameError::new(Fault::Value, "the tag is not a number"))
    }
}

fn written(texts: &str, (begin, end): (usize, usize)) -> &str {
    &texts[begin..end]
}

fn text(part: Part, bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes)
        .map_err(|_| FrameError::new(Fault::Value, format!("the {} is not well-formed UTF-8", part.name())))
}

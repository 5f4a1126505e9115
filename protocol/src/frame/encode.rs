//! A frame to bytes: sizes first, then each field at its place, then what is computed over them.

use smallvec::SmallVec;

use super::layout::find;
use super::plan::{FieldPlan, FramingPlan, Plan, Role, ShapePlan, SizePlan, Source, TextPiece, Writing};
use super::{Fault, Frame, FrameError};

/// Bits at which fields begin, and the end.
type Starts = SmallVec<[u32; 16]>;

impl Plan {
    /// See [`super::Codec::encode`]. `texts` is empty.
    pub(super) fn encode(&self, frame: &Frame<'_>, texts: &mut Vec<u8>, into: &mut Vec<u8>) -> Result<(), FrameError> {
        let writing = self.writings.iter().find(|writing| writing.kind == frame.kind);
        let writing = writing.ok_or_else(|| unfit(format!("there is no message `{}`", frame.kind)))?;
        let before = into.len();
        let written = self.write(writing, frame, texts, into);
        if written.is_err() {
            into.truncate(before);
        }
        written
    }

    fn write(
        &self,
        writing: &Writing,
        frame: &Frame<'_>,
        texts: &mut Vec<u8>,
        into: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        write_text(writing, frame, texts)?;
        let starts = self.starts(writing, frame, texts)?;
        let bits = starts.last().copied().unwrap_or(0);
        let begin = into.len();
        into.resize(begin + bits as usize / 8, 0);
        let content = &mut into[begin..];
        for (index, field) in self.fields.iter().enumerate() {
            let source = &writing.sources[index];
            match &field.shape {
                ShapePlan::Number { .. } => self.write_number(index, source, frame, &starts, content)?,
                ShapePlan::Constant(constant) => place(&starts, index, content).copy_from_slice(constant),
                ShapePlan::Bytes { pad, .. } => {
                    let bytes = bytes_of(source, frame, texts);
                    let (front, rest) = place(&starts, index, content).split_at_mut(bytes.len());
                    front.copy_from_slice(bytes);
                    rest.fill(pad.unwrap_or(0));
                }
                ShapePlan::Checksum { .. } => {}
            }
        }
        self.write_checksums(&starts, content);
        self.end(begin, into)
    }

    /// Where each field begins, by what is written there.
    fn starts(&self, writing: &Writing, frame: &Frame<'_>, texts: &[u8]) -> Result<Starts, FrameError> {
        let mut starts = Starts::new();
        let mut at = 0_u32;
        for (field, source) in self.fields.iter().zip(&writing.sources) {
            starts.push(at);
            let bits = match &field.shape {
                ShapePlan::Number { bits, .. } | ShapePlan::Checksum { bits, .. } => bits.count.into(),
                ShapePlan::Constant(constant) => constant.len() * 8,
                ShapePlan::Bytes { size, pad } => {
                    let bytes = bytes_of(source, frame, texts).len();
                    let room = self.room(field, *size, at, bytes);
                    let is_empty = matches!(source, Source::Shape);
                    if bytes > room || bytes < room && pad.is_none() && !is_empty {
                        return Err(unfit(format!("field `{}` has {room} bytes, not {bytes}", field.name)));
                    }
                    room.saturating_mul(8)
                }
            };
            at = u32::try_from(bits).ok().and_then(|bits| at.checked_add(bits)).unwrap_or(u32::MAX);
            if at > self.bytes_max * 8 {
                return Err(unfit(format!("longer than the longest frame, {} bytes", self.bytes_max)));
            }
        }
        starts.push(at);
        Ok(starts)
    }

    /// Bytes that a field has, of which so many are needed.
    fn room(&self, field: &FieldPlan, size: SizePlan, at: u32, needed: usize) -> usize {
        match (size, &self.framing) {
            (SizePlan::Fixed(bytes), _) => bytes as usize,
            (SizePlan::Rest, FramingPlan::Fixed) => (self.bytes_max * 8).saturating_sub(at + field.behind) as usize / 8,
            (SizePlan::Rest | SizePlan::Counted { .. }, _) => needed,
        }
    }

    fn write_number(
        &self,
        index: usize,
        source: &Source,
        frame: &Frame<'_>,
        starts: &Starts,
        content: &mut [u8],
    ) -> Result<(), FrameError> {
        let field = &self.fields[index];
        let ShapePlan::Number { bits, constant } = &field.shape else { return Ok(()) };
        let misfit = |what: &str| unfit(format!("field `{}` of {} bits: {what}", field.name, bits.count));
        let fits = |value: u64| Some(value).filter(|value| *value <= bits.mask());
        let whole = content.len();
        let value = match source {
            Source::Shape => constant.unwrap_or(0),
            Source::Value(value) => *value,
            Source::Role(Role::Command) => fits(frame.command).ok_or_else(|| misfit("the command is too large"))?,
            Source::Role(Role::Tag) => fits(frame.tag.unwrap_or(0)).ok_or_else(|| misfit("the tag is too large"))?,
            Source::Role(Role::Reason) => fits(frame.reason.into()).ok_or_else(|| misfit("the reason is too large"))?,
            Source::Role(Role::Payload) => {
                bits.parse(frame.payload).ok_or_else(|| misfit("the payload is no such number"))?
            }
            Source::Role(Role::Topic) => {
                bits.parse(frame.topic.as_bytes()).ok_or_else(|| misfit("the topic is no such number"))?
            }
            Source::FrameLength => {
                let FramingPlan::Length { plus, .. } = self.framing else { return Ok(()) };
                counted(whole, plus).and_then(fits).ok_or_else(|| misfit("the frame has another length"))?
            }
            Source::SizeOf(of) => {
                let of = usize::from(*of);
                let ShapePlan::Bytes { size: SizePlan::Counted { plus, .. }, .. } = self.fields[of].shape else {
                    return Ok(());
                };
                let size = (starts[of + 1] - starts[of]) as usize / 8;
                counted(size, plus).and_then(fits).ok_or_else(|| misfit("what it counts has another size"))?
            }
            Source::Text(_) => 0, // texts are of bytes: the compiler has seen to it
        };
        bits.write(content, starts[index], value);
        Ok(())
    }

    /// None is over another one that stands behind it.
    fn write_checksums(&self, starts: &Starts, content: &mut [u8]) {
        for (index, field) in self.fields.iter().enumerate() {
            let ShapePlan::Checksum { algorithm, from, to, bits } = &field.shape else { continue };
            let begin = starts[usize::from(*from)] as usize / 8;
            let end = starts[usize::from(*to) + 1] as usize / 8;
            let value = algorithm.of(&content[begin..end]);
            bits.write(content, starts[index], value);
        }
    }

    /// The delimiter, if there is one.
    fn end(&self, begin: usize, into: &mut Vec<u8>) -> Result<(), FrameError> {
        let content = into.len() - begin;
        if matches!(self.framing, FramingPlan::Fixed) && content != self.bytes_max as usize {
            return Err(unfit(format!("{content} bytes, and all frames have {}", self.bytes_max)));
        }
        if let FramingPlan::Delimited(by) = &self.framing {
            into.extend_from_slice(by);
            if find(&into[begin..], by) != Some(content) {
                return Err(unfit("it holds the delimiter"));
            }
        }
        if into.len() - begin > self.bytes_max as usize {
            return Err(unfit(format!("longer than the longest frame, {} bytes", self.bytes_max)));
        }
        Ok(())
    }
}

fn unfit(detail: impl Into<String>) -> FrameError {
    FrameError::new(Fault::Unfit, detail)
}

/// What a number says that counts so many bytes, less what it does not count.
fn counted(bytes: usize, plus: i64) -> Option<u64> {
    u64::try_from(i128::try_from(bytes).ok()? - i128::from(plus)).ok()
}

fn place<'a>(starts: &Starts, index: usize, content: &'a mut [u8]) -> &'a mut [u8] {
    &mut content[starts[index] as usize / 8..starts[index + 1] as usize / 8]
}

fn bytes_of<'a>(source: &Source, frame: &Frame<'a>, texts: &'a [u8]) -> &'a [u8] {
    match source {
        Source::Role(Role::Payload) => frame.payload,
        Source::Role(Role::Topic) => frame.topic.as_bytes(),
        Source::Text(_) => texts,
        _ => &[],
    }
}

/// The text of the message, if it has one.
fn write_text(writing: &Writing, frame: &Frame<'_>, texts: &mut Vec<u8>) -> Result<(), FrameError> {
    let text = writing.sources.iter().find_map(|source| match source {
        Source::Text(pieces) => Some(pieces),
        _ => None,
    });
    let mut pieces = text.into_iter().flatten().peekable();
    while let Some(piece) = pieces.next() {
        let begin = texts.len();
        match piece {
            TextPiece::Literal(literal) => texts.extend_from_slice(literal),
            TextPiece::Role(role) => write_role(*role, frame, texts),
        }
        if let (TextPiece::Role(_), Some(TextPiece::Literal(next))) = (piece, pieces.peek()) {
            let end = texts.len();
            texts.extend_from_slice(next); // a word must end where its literal begins, and nowhere before
            if find(&texts[begin..], next) != Some(end - begin) {
                return Err(unfit(format!("a word of the text holds `{}`", String::from_utf8_lossy(next))));
            }
            texts.truncate(end);
        }
    }
    Ok(())
}

fn write_role(role: Role, frame: &Frame<'_>, texts: &mut Vec<u8>) {
    match role {
        Role::Command => push_decimal(frame.command, texts),
        Role::Tag => push_decimal(frame.tag.unwrap_or(0), texts),
        Role::Topic => texts.extend_from_slice(frame.topic.as_bytes()),
        Role::Payload => texts.extend_from_slice(frame.payload),
        Role::Reason => push_decimal(frame.reason.into(), texts),
    }
}

fn push_decimal(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

//! Where a frame ends, and where its fields lie: [`Plan::extent`], then [`Layout::of`].

use smallvec::SmallVec;

use super::plan::{FramingPlan, Plan, ShapePlan, SizePlan};
use super::{Fault, FrameError};

/// The front of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Incomplete {
        needed: usize,
    },
    /// A frame of `size` bytes, of which the first `content` are those of its fields.
    Frame {
        size: usize,
        content: usize,
    },
}

/// The bit at which each field begins, and behind the last one the end.
pub(super) type Starts = SmallVec<[u32; 16]>;

/// Where the fields of one frame lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    starts: &'a [u32],
}

impl Plan {
    /// How far the frame at the start of `input` reaches.
    pub(super) fn extent(&self, input: &[u8]) -> Result<Extent, FrameError> {
        match &self.framing {
            FramingPlan::Fixed => {
                self.check_front(input, usize::MAX)?;
                Ok(self.whole(input, self.bytes_max as usize))
            }
            FramingPlan::Delimited(by) => self.delimited(input, by),
            FramingPlan::Length { bits, at, plus } => {
                let header = (at + u32::from(bits.count)).div_ceil(8) as usize;
                self.check_front(input, header)?;
                if input.len() < header {
                    return Ok(Extent::Incomplete { needed: (self.bytes_min as usize).max(header) });
                }
                let said = i128::from(bits.read(input, *at)) + i128::from(*plus);
                let size = self.check_size(said)?;
                self.check_front(input, usize::MAX)?;
                Ok(self.whole(input, size))
            }
            FramingPlan::Fields => {
                self.check_front(input, usize::MAX)?;
                self.by_fields(input)
            }
        }
    }

    /// The constants in front that begin within so many bytes, as far as they have come. What is wrong first has to be so
    /// wherever the network cuts: so those in front of a length are judged before it, the others behind. Of a delimited frame
    /// none is judged early: what has come may be the front of its delimiter.
    fn check_front(&self, input: &[u8], within: usize) -> Result<(), FrameError> {
        for (index, at) in self.front.iter().filter(|(_, at)| (*at as usize / 8) < within) {
            self.check_constant(usize::from(*index), input, *at)?;
        }
        Ok(())
    }

    /// Whether the constant of a field stands at this bit, as far as the bytes reach.
    pub(super) fn check_constant(&self, index: usize, bytes: &[u8], at: u32) -> Result<(), FrameError> {
        let field = &self.fields[index];
        let is_right = match &field.shape {
            ShapePlan::Number { bits, constant: Some(constant) } => {
                let end = (at + u32::from(bits.count)).div_ceil(8) as usize;
                bytes.len() < end || bits.read(bytes, at) == *constant
            }
            ShapePlan::Constant(constant) => {
                let come = bytes.get(at as usize / 8..).unwrap_or_default();
                let both = come.len().min(constant.len());
                come[..both] == constant[..both]
            }
            _ => true,
        };
        if is_right {
            return Ok(());
        }
        Err(FrameError::new(Fault::Constant, format!("field `{}`: not the constant that it has to be", field.name)))
    }

    fn whole(&self, input: &[u8], size: usize) -> Extent {
        if input.len() < size { Extent::Incomplete { needed: size } } else { Extent::Frame { size, content: size } }
    }

    /// A size that was said, before anything waits for so much.
    fn check_size(&self, said: i128) -> Result<usize, FrameError> {
        if said > i128::from(self.bytes_max) {
            let detail = format!("a frame of {said} bytes, the longest has {}", self.bytes_max);
            return Err(FrameError::new(Fault::TooLong, detail));
        }
        if said < i128::from(self.bytes_min) {
            let detail = format!("a frame of {said} bytes, its fields take {} at least", self.bytes_min);
            return Err(FrameError::new(Fault::Length, detail));
        }
        Ok(usize::try_from(said).expect("between the smallest and the largest frame"))
    }

    fn delimited(&self, input: &[u8], by: &[u8]) -> Result<Extent, FrameError> {
        let most = self.bytes_max as usize;
        match find(&input[..input.len().min(most)], by) {
            Some(content) => Ok(Extent::Frame { size: content + by.len(), content }),
            None if input.len() >= most => {
                Err(FrameError::new(Fault::TooLong, format!("no delimiter within {most} bytes")))
            }
            None => Ok(Extent::Incomplete { needed: (input.len() + 1).max(by.len()) }),
        }
    }

    /// Each field says where the next one begins.
    fn by_fields(&self, input: &[u8]) -> Result<Extent, FrameError> {
        match self.walk(input, None, &mut Starts::new())? {
            Walked::Short { needed } => Ok(Extent::Incomplete { needed }),
            Walked::Whole { bits } => Ok(self.whole(input, (bits / 8) as usize)),
        }
    }
}

enum Walked {
    Whole {
        bits: u32,
    },
    /// So many bytes are needed at least to go on.
    Short {
        needed: usize,
    },
}

impl<'a> Layout<'a> {
    /// The layout of the fields of a whole frame. `starts` is empty, and filled where the plan does not know them.
    pub(super) fn of(plan: &'a Plan, content: &[u8], starts: &'a mut Starts) -> Result<Self, FrameError> {
        let misfit = || FrameError::new(Fault::Length, format!("{} bytes are not what the fields take", content.len()));
        let bits = bits_of(content.len());
        if let Some(starts) = &plan.starts {
            return if starts.last() == Some(&bits) { Ok(Self { starts }) } else { Err(misfit()) };
        }
        match plan.walk(content, Some(bits), starts)? {
            Walked::Whole { bits: taken } if taken == bits => Ok(Self { starts }),
            _ => Err(misfit()),
        }
    }

    /// The bit at which a field begins.
    pub(super) fn start(self, index: usize) -> u32 {
        self.starts[index]
    }

    /// The bytes of a field that lies in whole bytes.
    pub(super) fn bytes(self, content: &[u8], index: usize) -> &[u8] {
        &content[self.starts[index] as usize / 8..self.starts[index + 1] as usize / 8]
    }
}

impl Plan {
    /// Goes from field to field, and appends where each begins. `total`: bits that there are, if that is known.
    fn walk(&self, bytes: &[u8], total: Option<u32>, starts: &mut Starts) -> Result<Walked, FrameError> {
        let (mut at, mut is_past_front) = (0, false);
        for field in &self.fields {
            starts.push(at);
            let size = match &field.shape {
                ShapePlan::Number { bits, .. } | ShapePlan::Checksum { bits, .. } => bits.count.into(),
                ShapePlan::Constant(constant) => bits_of(constant.len()),
                ShapePlan::Bytes { size: SizePlan::Fixed(bytes), .. } => bytes * 8,
                ShapePlan::Bytes { size: SizePlan::Rest, .. } => {
                    let taken = at + field.behind;
                    let short =
                        || FrameError::new(Fault::Length, format!("field `{}`: the frame is too short", field.name));
                    total.unwrap_or(0).checked_sub(taken).ok_or_else(short)?
                }
                ShapePlan::Bytes { size: SizePlan::Counted { by, plus }, .. } => {
                    // All in front of the first one has to be there: a constant among that is judged before its count.
                    let has_come = std::mem::replace(&mut is_past_front, true) || bits_of(bytes.len()) >= at;
                    let Some(count) = self.number_in_front(*by, bytes, starts).filter(|_| has_come) else {
                        return Ok(Walked::Short { needed: ((at + field.behind) as usize / 8).max(bytes.len() + 1) });
                    };
                    self.counted(&field.name, count, *plus)? * 8
                }
            };
            at += size;
            if at > self.bytes_max * 8 {
                let detail = format!("field `{}` ends behind the longest frame, {} bytes", field.name, self.bytes_max);
                return Err(FrameError::new(Fault::TooLong, detail));
            }
        }
        starts.push(at);
        Ok(Walked::Whole { bits: at })
    }

    /// A number that lies in front of where the walk is; `None` if it has not come.
    fn number_in_front(&self, index: u8, bytes: &[u8], starts: &[u32]) -> Option<u64> {
        let at = starts[usize::from(index)];
        let ShapePlan::Number { bits, .. } = &self.fields[usize::from(index)].shape else { return None };
        let end = (at + u32::from(bits.count)).div_ceil(8) as usize;
        (bytes.len() >= end).then(|| bits.read(bytes, at))
    }

    /// Bytes of a field that another one counts.
    fn counted(&self, name: &str, count: u64, plus: i64) -> Result<u32, FrameError> {
        let said = i128::from(count) + i128::from(plus);
        if said > i128::from(self.bytes_max) {
            return Err(FrameError::new(Fault::TooLong, format!("field `{name}`: {said} bytes, as its count says")));
        }
        u32::try_from(said)
            .map_err(|_| FrameError::new(Fault::Length, format!("field `{name}`: {said} bytes, as its count says")))
    }
}

/// No frame is longer than [`super::FRAME_BYTES_MAX`].
fn bits_of(bytes: usize) -> u32 {
    u32::try_from(bytes * 8).unwrap_or(u32::MAX)
}

/// Where `wanted`, which is not empty, begins first.
pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (&first, more) = wanted.split_first()?;
    let mut from = 0;
    while let Some(place) = memchr::memchr(first, bytes.get(from..)?) {
        let place = from + place;
        if bytes[place + 1..].starts_with(more) {
            return Some(place);
        }
        from = place + 1;
    }
    None
}

//! A declaration to a plan: each name is found, each size adds up, and each message can be told from the others; or the error
//! says which field or message is wrong.

use super::bits::Bits;
use super::names::{Names, field_error, is_name, place_of};
use super::plan::{
    FieldPlan, FramingPlan, Part, PatternPiece, Piece, Plan, Reading, Ref, Role, ShapePlan, SizePlan, Source, Template,
    TextPiece, Writing,
};
use super::spec::{Endian, Field, Framing, Message, Payload, Shape, Size, Spec, TextPattern, Wanted};
use super::template::{Format, Written, parse};
use super::{Abilities, Accepts, Acknowledgement, Answers, DELIMITED_BYTES_MAX, FRAME_BYTES_MAX, Kind, SpecError};

const FIELDS_MAX: usize = 64;
const MESSAGES_MAX: usize = 256;
const WORDS_MAX: usize = 8;
/// Bits of a tag that is a word.
const WORD_TAG_BITS: u8 = 16;

type Result<T, E = SpecError> = std::result::Result<T, E>;

impl Plan {
    /// Compiles a declaration.
    ///
    /// # Errors
    /// If it contradicts itself; the error names the field or message.
    pub fn compile(spec: &Spec) -> Result<Self> {
        check_names(&spec.fields)?;
        let bytes_max = longest(&spec.framing)?;
        let mut fields: Vec<FieldPlan> =
            spec.fields.iter().map(|field| field_plan(&spec.fields, field, bytes_max)).collect::<Result<_>>()?;
        let front = align(&fields)?;
        let bits = set_behind(&mut fields, bytes_max)?;
        let framing = framing_plan(spec, &fields, bits)?;
        check_rest(&fields, &framing)?;
        let mut plan = Self {
            framing,
            front,
            bytes_min: bits / 8,
            bytes_max,
            starts: starts_of(&fields),
            checked: checked_of(&fields),
            fields: fields.into(),
            readings: Box::default(),
            writings: Box::default(),
            abilities: abilities_of(spec)?,
        };
        plan.check_checksums()?;
        plan.add_messages(spec)?;
        Ok(plan)
    }

    fn check_checksums(&self) -> Result<()> {
        for (index, field) in self.fields.iter().enumerate() {
            let ShapePlan::Checksum { from, to, .. } = field.shape else { continue };
            let (from, to) = (usize::from(from), usize::from(to));
            let error = |detail: &str| Err(field_error(&field.name, detail));
            if from > to {
                return error("the range ends before it begins");
            }
            let later = |place: usize| matches!(self.fields[place].shape, ShapePlan::Checksum { .. }) && place >= index;
            if (from..=to).any(later) {
                return error("the range holds a checksum that is not computed before this one");
            }
            if !self.is_aligned(from) || !self.is_aligned(to + 1) {
                return error("the range does not begin and end with a byte");
            }
        }
        Ok(())
    }

    /// Whether a field begins with a byte.
    fn is_aligned(&self, index: usize) -> bool {
        let bits: u32 = self.fields[..index].iter().map(|field| number_bits(&field.shape)).sum();
        bits.is_multiple_of(8)
    }

    fn add_messages(&mut self, spec: &Spec) -> Result<()> {
        if spec.messages.len() > MESSAGES_MAX {
            return Err(framing_error(format!("more than {MESSAGES_MAX} messages")));
        }
        let mut readings: Vec<Reading> = Vec::new();
        let mut writings: Vec<Writing> = Vec::new();
        for (number, message) in spec.messages.iter().enumerate() {
            let in_place = |detail| message_error(number, message, detail);
            check_roles(message).map_err(in_place)?;
            if message.kind.is_from_device() {
                let reading = self.reading(spec, message).map_err(in_place)?;
                let holds = |condition: &(u8, u64)| reading.conditions.contains(condition);
                let hides = |known: &Reading| known.text.is_none() && known.conditions.iter().all(holds);
                if readings.iter().any(hides) {
                    return Err(in_place("an earlier message fits whatever this one fits".to_owned()));
                }
                readings.push(reading);
            } else {
                if writings.iter().any(|known| known.kind == message.kind) {
                    return Err(in_place("there is one already".to_owned()));
                }
                writings.push(self.writing(spec, message).map_err(in_place)?);
            }
        }
        if !readings.iter().any(|reading| reading.kind == Kind::Hello) {
            return Err(framing_error("no message is a hello"));
        }
        (self.readings, self.writings) = (readings.into(), writings.into());
        Ok(())
    }

    fn reading(&self, spec: &Spec, message: &Message) -> Result<Reading, String> {
        let mut conditions = Vec::new();
        for condition in &message.when {
            let Wanted::Is(value) = condition.value else {
                return Err("only an answer repeats what it was asked".to_owned());
            };
            conditions.push((self.command_field(spec, &condition.field, Some(value))?, value));
        }
        let (text, words) = match &message.text {
            None => (None, Vec::new()),
            Some(text) => {
                let (pieces, words) = Self::pattern(text)?;
                (Some((self.text_field(spec, text)?, pieces)), words)
            }
        };
        let names = Names { fields: &spec.fields, words };
        let template = |text: &Option<String>| text.as_ref().map(|text| names.template(text)).transpose();
        let before_client = |template: Option<Template>| match template {
            Some(template) if names_client(&template) => Err("there is no client before a hello".to_owned()),
            template => Ok(template),
        };
        let payload = message.payload.as_ref().map(|payload| payload_template(&names, payload)).transpose()?;
        let parts = [
            before_client(template(&message.client)?)?,
            before_client(template(&message.user)?)?,
            before_client(template(&message.password)?)?,
            template(&message.topic)?,
            payload,
        ];
        Ok(Reading {
            kind: message.kind,
            conditions: conditions.into(),
            text,
            written: written_of(&parts),
            parts,
            tag: message.tag.as_ref().map(|tag| names.number(tag)).transpose()?,
        })
    }

    fn command_field(&self, spec: &Spec, name: &str, value: Option<u64>) -> Result<u8, String> {
        let place = place_of(&spec.fields, name)?;
        match &self.fields[usize::from(place)].shape {
            ShapePlan::Number { bits, constant: None } => match value {
                Some(value) if value > bits.mask() => {
                    Err(format!("field `{name}` of {} bits is never {value}", bits.count))
                }
                _ if self.is_count(place) => Err(format!("field `{name}` is a length")),
                _ => Ok(place),
            },
            _ => Err(format!("field `{name}` is no number that varies")),
        }
    }

    /// Whether a number says how long the frame or another field is.
    fn is_count(&self, place: u8) -> bool {
        self.length_source(place).is_some()
    }

    fn length_source(&self, place: u8) -> Option<Source> {
        let counts = |field: &FieldPlan| matches!(field.shape, ShapePlan::Bytes { size: SizePlan::Counted { by, .. }, .. } if by == place);
        if let Some(index) = self.fields.iter().position(counts) {
            return Some(Source::SizeOf(u8::try_from(index).expect("no more fields than fit")));
        }
        let FramingPlan::Length { at, .. } = self.framing else { return None };
        let before: u32 = self.fields[..usize::from(place)].iter().map(|field| fixed_bits(&field.shape)).sum();
        let is_number = matches!(self.fields[usize::from(place)].shape, ShapePlan::Number { .. });
        (is_number && before == at && self.has_fixed_place(place)).then_some(Source::FrameLength)
    }

    fn has_fixed_place(&self, place: u8) -> bool {
        !self.fields[..usize::from(place)].iter().any(|field| is_variable(&field.shape))
    }

    /// The pieces of a pattern, and the names of its words.
    fn pattern(text: &TextPattern) -> Result<(Box<[PatternPiece]>, Vec<String>), String> {
        let mut words: Vec<String> = Vec::new();
        let mut pieces: Vec<PatternPiece> = Vec::new();
        for piece in pattern_pieces(text)? {
            pieces.push(match piece {
                Written::Literal(literal) => PatternPiece::Literal(literal.into_bytes().into()),
                Written::Name { name, .. } => {
                    if !is_name(&name) || name == "client" || words.contains(&name) {
                        return Err(format!("`{name}` is no name for a word, or stands there twice"));
                    }
                    words.push(name);
                    PatternPiece::Word
                }
            });
        }
        if words.len() > WORDS_MAX {
            return Err(format!("more than {WORDS_MAX} words"));
        }
        Ok((pieces.into(), words))
    }

    fn text_field(&self, spec: &Spec, text: &TextPattern) -> Result<u8, String> {
        let field = place_of(&spec.fields, &text.field)?;
        match self.fields[usize::from(field)].shape {
            ShapePlan::Bytes { .. } => Ok(field),
            _ => Err(format!("field `{}` has no text", text.field)),
        }
    }

    fn writing(&self, spec: &Spec, message: &Message) -> Result<Writing, String> {
        let mut sources: Vec<Source> = Vec::new();
        for place in 0..self.fields.len() {
            let place = u8::try_from(place).expect("no more fields than fit");
            sources.push(self.length_source(place).unwrap_or(Source::Shape));
        }
        let mut set = |place: u8, source: Source| {
            let field = &spec.fields[usize::from(place)];
            let is_free = matches!(sources[usize::from(place)], Source::Shape)
                && matches!(field.shape, Shape::Number { constant: None, .. } | Shape::Bytes { .. });
            if !is_free {
                return Err(format!("field `{}` is written already: by its shape, as a length, or twice", field.name));
            }
            sources[usize::from(place)] = source;
            Ok(())
        };
        for condition in &message.when {
            let (value, source) = match condition.value {
                Wanted::Is(value) => (Some(value), Source::Value(value)),
                Wanted::Asked if message.kind == Kind::Push => return Err("a push is asked for by nobody".to_owned()),
                Wanted::Asked => (None, Source::Role(Role::Command)),
            };
            set(self.command_field(spec, &condition.field, value)?, source)?;
        }
        let roles = roles_of(message)?;
        let mut used = Vec::new();
        if let Some(text) = &message.text {
            let field = self.text_field(spec, text)?;
            set(field, Source::Text(text_pieces(text, &roles, &mut used)?))?;
        }
        for (name, role) in &roles {
            if used.contains(name) {
                continue;
            }
            let place = place_of(&spec.fields, name)?;
            let is_number = matches!(self.fields[usize::from(place)].shape, ShapePlan::Number { .. });
            if matches!(role, Role::Tag | Role::Reason) && !is_number {
                return Err(format!("field `{name}` is no number"));
            }
            set(place, Source::Role(*role))?;
        }
        Ok(Writing { kind: message.kind, sources: sources.into() })
    }
}

fn framing_error(detail: impl Into<String>) -> SpecError {
    SpecError { place: "framing".to_owned(), detail: detail.into() }
}

fn message_error(number: usize, message: &Message, detail: String) -> SpecError {
    SpecError { place: format!("message {} ({})", number + 1, message.kind), detail }
}

fn check_names(fields: &[Field]) -> Result<()> {
    if fields.is_empty() || fields.len() > FIELDS_MAX {
        return Err(framing_error(format!("a frame has 1 to {FIELDS_MAX} fields, not {}", fields.len())));
    }
    for (place, field) in fields.iter().enumerate() {
        if !is_name(&field.name) || field.name == "client" {
            return Err(field_error(&field.name, "a name is small letters, digits and _, and not `client`"));
        }
        if fields[..place].iter().any(|known| known.name == field.name) {
            return Err(field_error(&field.name, "there are two of this name"));
        }
    }
    Ok(())
}

/// Bytes of the longest frame.
fn longest(framing: &Framing) -> Result<u32> {
    let (bytes, most) = match framing {
        Framing::Fixed { bytes } => (*bytes, FRAME_BYTES_MAX),
        Framing::Delimited { by, bytes_max } => {
            if !(1..=4).contains(&by.len()) {
                return Err(framing_error(format!("a delimiter has 1 to 4 bytes, not {}", by.len())));
            }
            (*bytes_max, DELIMITED_BYTES_MAX)
        }
        Framing::Length { bytes_max, .. } | Framing::Fields { bytes_max } => (*bytes_max, FRAME_BYTES_MAX),
    };
    if !(1..=most).contains(&bytes) {
        return Err(framing_error(format!("a frame has 1 to {most} bytes, not {bytes}")));
    }
    Ok(bytes)
}

fn field_plan(fields: &[Field], field: &Field, bytes_max: u32) -> Result<FieldPlan> {
    let error = |detail: String| field_error(&field.name, detail);
    let shape = match &field.shape {
        Shape::Number { bits, signed, endian, constant } => {
            let bits = number_plan(*bits, *signed, *endian).map_err(error)?;
            if constant.is_some_and(|constant| constant > bits.mask()) {
                return Err(error(format!("the constant does not fit into {} bits", bits.count)));
            }
            ShapePlan::Number { bits, constant: *constant }
        }
        Shape::Constant(bytes) if bytes.is_empty() || bytes.len() > bytes_max as usize => {
            return Err(error("a constant has a byte at least, and no more than a frame".to_owned()));
        }
        Shape::Constant(bytes) => ShapePlan::Constant(bytes.clone().into()),
        Shape::Bytes { size, pad } => {
            ShapePlan::Bytes { size: size_plan(fields, field, size, bytes_max).map_err(error)?, pad: *pad }
        }
        Shape::Checksum { algorithm, from, to, endian } => ShapePlan::Checksum {
            algorithm: *algorithm,
            from: place_of(fields, from).map_err(error)?,
            to: place_of(fields, to).map_err(error)?,
            bits: Bits { count: algorithm.bits(), signed: false, endian: *endian },
        },
    };
    Ok(FieldPlan { name: field.name.as_str().into(), shape, behind: 0 })
}

fn number_plan(bits: u8, signed: bool, endian: Endian) -> Result<Bits, String> {
    if !(1..=64).contains(&bits) {
        return Err(format!("a number has 1 to 64 bits, not {bits}"));
    }
    if endian == Endian::Little && !bits.is_multiple_of(8) {
        return Err(format!("little endian is of whole bytes, not of {bits} bits"));
    }
    Ok(Bits { count: bits, signed, endian })
}

fn size_plan(fields: &[Field], of: &Field, size: &Size, bytes_max: u32) -> Result<SizePlan, String> {
    Ok(match size {
        Size::Fixed(bytes) if (1..=bytes_max).contains(bytes) => SizePlan::Fixed(*bytes),
        Size::Fixed(bytes) => return Err(format!("it has 1 byte at least and no more than a frame, not {bytes}")),
        Size::Rest => SizePlan::Rest,
        Size::Counted { field, plus } => {
            let by = place_of(fields, field)?;
            let own = fields.iter().position(|known| std::ptr::eq(known, of)).unwrap_or(0);
            let is_number =
                matches!(fields[usize::from(by)].shape, Shape::Number { signed: false, constant: None, .. });
            if !is_number || usize::from(by) >= own {
                return Err(format!("its size is said by `{field}`, which is no unsigned number in front of it"));
            }
            let counts_two = |known: &&Field| matches!(&known.shape, Shape::Bytes { size: Size::Counted { field: other, .. }, .. } if other == field);
            if fields.iter().filter(counts_two).count() > 1 {
                return Err(format!("`{field}` says the size of another field, too"));
            }
            if plus.unsigned_abs() > u64::from(FRAME_BYTES_MAX) {
                return Err(format!("{plus} more than it says is no frame"));
            }
            SizePlan::Counted { by, plus: *plus }
        }
    })
}

/// Bits of a number, which alone may begin within a byte.
fn number_bits(shape: &ShapePlan) -> u32 {
    if let ShapePlan::Number { bits, .. } = shape { bits.count.into() } else { 0 }
}

/// Bits of a field at least.
fn fixed_bits(shape: &ShapePlan) -> u32 {
    match shape {
        ShapePlan::Number { bits, .. } | ShapePlan::Checksum { bits, .. } => bits.count.into(),
        ShapePlan::Constant(bytes) => u32::try_from(bytes.len()).expect("no more than a frame") * 8,
        ShapePlan::Bytes { size: SizePlan::Fixed(bytes), .. } => bytes * 8,
        ShapePlan::Bytes { size: SizePlan::Rest, .. } => 0,
        ShapePlan::Bytes { size: SizePlan::Counted { plus, .. }, .. } => {
            u32::try_from((*plus).max(0)).expect("no more than a frame") * 8
        }
    }
}

fn is_variable(shape: &ShapePlan) -> bool {
    matches!(shape, ShapePlan::Bytes { size: SizePlan::Rest | SizePlan::Counted { .. }, .. })
}

fn starts_of(fields: &[FieldPlan]) -> Option<Box<[u32]>> {
    let mut starts = vec![0];
    for field in fields {
        starts.push(starts.last()? + (!is_variable(&field.shape)).then(|| fixed_bits(&field.shape))?);
    }
    Some(starts.into())
}

fn checked_of(fields: &[FieldPlan]) -> Box<[u8]> {
    let is_checked = |shape: &ShapePlan| match shape {
        ShapePlan::Number { constant, .. } => constant.is_some(),
        ShapePlan::Constant(_) | ShapePlan::Checksum { .. } => true,
        ShapePlan::Bytes { .. } => false,
    };
    (0..).zip(fields).filter(|(_, field)| is_checked(&field.shape)).map(|(index, _)| index).collect()
}

/// Bytes begin with a byte, and numbers lie in eight of them. Returns the constants in front, and where they begin.
fn align(fields: &[FieldPlan]) -> Result<Box<[(u8, u32)]>> {
    let mut front = Vec::new();
    let mut at = 0_u32;
    let mut is_front = true;
    for (index, field) in fields.iter().enumerate() {
        let error = |detail: String| Err(field_error(&field.name, detail));
        let skipped = at % 8;
        match &field.shape {
            ShapePlan::Number { bits, .. } if bits.endian == Endian::Little && skipped > 0 => {
                return error("little endian, and does not begin with a byte".to_owned());
            }
            ShapePlan::Number { bits, .. } if skipped + u32::from(bits.count) > 64 => {
                return error(format!("with the {skipped} bits in front of it, it lies in more than eight bytes"));
            }
            ShapePlan::Number { .. } => {}
            _ if skipped > 0 => return error(format!("it begins {skipped} bits into a byte")),
            _ => {}
        }
        is_front &= !is_variable(&field.shape);
        if is_front && matches!(field.shape, ShapePlan::Constant(_) | ShapePlan::Number { constant: Some(_), .. }) {
            front.push((u8::try_from(index).expect("no more fields than fit"), at));
        }
        at = at.saturating_add(fixed_bits(&field.shape));
    }
    if !at.is_multiple_of(8) {
        let last = fields.last().map_or("", |field| &field.name);
        return Err(field_error(last, format!("the frame ends {} bits into a byte", at % 8)));
    }
    Ok(front.into())
}

/// Notes what is behind each field; returns the bits of all, at least.
fn set_behind(fields: &mut [FieldPlan], bytes_max: u32) -> Result<u32> {
    let mut behind = 0_u32;
    for field in fields.iter_mut().rev() {
        field.behind = behind;
        behind = behind.saturating_add(fixed_bits(&field.shape));
    }
    if behind > bytes_max * 8 {
        return Err(framing_error(format!("the fields take {} bytes, the longest frame has {bytes_max}", behind / 8)));
    }
    Ok(behind)
}

fn framing_plan(spec: &Spec, fields: &[FieldPlan], bits: u32) -> Result<FramingPlan> {
    let varies = fields.iter().any(|field| is_variable(&field.shape));
    Ok(match &spec.framing {
        Framing::Fixed { bytes } if !varies && bytes * 8 != bits => {
            return Err(framing_error(format!("a frame has {bytes} bytes, its fields have {}", bits / 8)));
        }
        Framing::Fixed { .. } => FramingPlan::Fixed,
        Framing::Delimited { by, .. } => FramingPlan::Delimited(by.clone().into()),
        Framing::Fields { .. } if bits == 0 => return Err(framing_error("a frame may have no byte at all")),
        Framing::Fields { .. } => FramingPlan::Fields,
        Framing::Length { field, plus, .. } => {
            let place = usize::from(place_of(&spec.fields, field).map_err(framing_error)?);
            let before = &fields[..place];
            let counts = |known: &FieldPlan| matches!(known.shape, ShapePlan::Bytes { size: SizePlan::Counted { by, .. }, .. } if usize::from(by) == place);
            match &fields[place].shape {
                _ if before.iter().any(|field| is_variable(&field.shape)) => {
                    return Err(field_error(field, "it is the length, and stands behind a field of variable size"));
                }
                _ if fields.iter().any(counts) => {
                    return Err(field_error(field, "it is the length of the frame and that of a field"));
                }
                ShapePlan::Number { bits, constant: None } if !bits.signed => FramingPlan::Length {
                    bits: *bits,
                    at: before.iter().map(|field| fixed_bits(&field.shape)).sum(),
                    plus: *plus,
                },
                _ => return Err(field_error(field, "it is the length, and no unsigned number that varies")),
            }
        }
    })
}

/// One field at most takes the rest, and it can be known what that is.
fn check_rest(fields: &[FieldPlan], framing: &FramingPlan) -> Result<()> {
    let mut rest = None;
    for field in fields {
        let ShapePlan::Bytes { size, .. } = &field.shape else { continue };
        match (size, rest, framing) {
            (SizePlan::Rest, _, FramingPlan::Fields) => {
                return Err(field_error(&field.name, "it takes the rest of a frame whose end is not known"));
            }
            (SizePlan::Rest, None, _) => rest = Some(&field.name),
            (SizePlan::Rest | SizePlan::Counted { .. }, Some(first), _) => {
                return Err(field_error(&field.name, format!("it stands behind `{first}`, which takes the rest")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the message has what its kind needs, and nothing that its kind has no use for.
fn check_roles(message: &Message) -> Result<(), String> {
    use Kind::*;
    let Message { kind, client, user, password, topic, payload, tag, reason, .. } = message;
    let kind = *kind;
    let may = [
        ("client", client.is_some(), kind == Hello, kind == Hello),
        ("user", user.is_some(), kind == Hello, false),
        ("password", password.is_some(), kind == Hello, false),
        ("topic", topic.is_some(), matches!(kind, Publish | Push), kind == Publish),
        ("payload", payload.is_some(), matches!(kind, Publish | Push), kind == Push),
        ("tag", tag.is_some(), kind != Bye, false),
        ("reason", reason.is_some(), kind == Refused, false),
    ];
    for (name, is_there, is_allowed, is_needed) in may {
        if is_there && !is_allowed {
            return Err(format!("it has no use for `{name}`"));
        }
        if is_needed && !is_there {
            return Err(format!("it needs `{name}`"));
        }
    }
    Ok(())
}

fn written_of(parts: &[Option<Template>; Part::COUNT]) -> Box<[Part]> {
    let all = [Part::Client, Part::User, Part::Password, Part::Topic, Part::Payload];
    let is_written = |part: &Part| matches!(parts[*part as usize], Some(Template::Text(_) | Template::Json(_)));
    all.into_iter().filter(is_written).collect()
}

fn names_client(template: &Template) -> bool {
    let Template::Text(pieces) = template else { return false };
    pieces.iter().any(|piece| matches!(piece, Piece::Value(Ref::Client, _)))
}

fn payload_template(names: &Names<'_>, payload: &Payload) -> Result<Template, String> {
    match payload {
        Payload::Field(name) => names.named(name),
        Payload::Json(members) if members.is_empty() => Err("the JSON of no fields".to_owned()),
        Payload::Json(members) => {
            let member = |name: &String| Ok((name.as_str().into(), names.find(name)?));
            Ok(Template::Json(members.iter().map(member).collect::<Result<_, String>>()?))
        }
    }
}

/// The pieces of a pattern: no two words side by side, no formats.
fn pattern_pieces(text: &TextPattern) -> Result<Vec<Written>, String> {
    let pieces = parse(&text.pattern)?;
    let is_word = |piece: &Written| matches!(piece, Written::Name { .. });
    if pieces.is_empty() {
        return Err("the text is empty".to_owned());
    }
    if pieces.windows(2).any(|pair| is_word(&pair[0]) && is_word(&pair[1])) {
        return Err(format!("`{}`: nothing stands between two words", text.pattern));
    }
    if pieces.iter().any(|piece| matches!(piece, Written::Name { format: Format::Hex | Format::Bcd, .. })) {
        return Err(format!("`{}`: words have no format", text.pattern));
    }
    Ok(pieces)
}

/// Names that a message of the server gives a meaning.
fn roles_of(message: &Message) -> Result<Vec<(String, Role)>, String> {
    let mut roles = Vec::new();
    if let Some(tag) = &message.tag {
        roles.push((tag.clone(), Role::Tag));
    }
    if let Some(reason) = &message.reason {
        roles.push((reason.clone(), Role::Reason));
    }
    match &message.payload {
        Some(Payload::Field(name)) => roles.push((name.clone(), Role::Payload)),
        Some(Payload::Json(_)) => return Err("JSON is read, not written".to_owned()),
        None => {}
    }
    if let Some(topic) = &message.topic {
        match parse(topic)?.as_slice() {
            [Written::Name { name, format: Format::Plain }] => roles.push((name.clone(), Role::Topic)),
            _ => return Err("the topic of a push is one name in braces: where it is written".to_owned()),
        }
    }
    Ok(roles)
}

fn text_pieces(
    text: &TextPattern,
    roles: &[(String, Role)],
    used: &mut Vec<String>,
) -> Result<Box<[TextPiece]>, String> {
    let piece = |piece: Written| match piece {
        Written::Literal(literal) => Ok(TextPiece::Literal(literal.into_bytes().into())),
        Written::Name { name, .. } => {
            let role = roles.iter().find(|(known, _)| *known == name).map(|(_, role)| *role);
            let role = role.ok_or_else(|| format!("the word `{name}` has no meaning in this message"))?;
            used.push(name);
            Ok(TextPiece::Role(role))
        }
    };
    pattern_pieces(text)?.into_iter().map(piece).collect()
}

fn abilities_of(spec: &Spec) -> Result<Abilities> {
    let of = |kind: Kind| spec.messages.iter().filter(move |message| message.kind == kind);
    let answers = Answers {
        welcome: of(Kind::Welcome).next().is_some(),
        pong: of(Kind::Pong).next().is_some(),
        accepted: of(Kind::Accepted).next().map(|accepted| match accepted.tag {
            Some(_) => Accepts::Tagged,
            None => Accepts::InTurn,
        }),
        refused: of(Kind::Refused).next().is_some(),
    };
    let pushes = match of(Kind::Push).next() {
        None => None,
        Some(push) => Some(acknowledgement(spec, push)?),
    };
    Ok(Abilities { answers, pushes, keep_alive_seconds: spec.keep_alive_seconds, clean_start: spec.clean_start })
}

fn acknowledgement(spec: &Spec, push: &Message) -> Result<Acknowledgement> {
    let mut acks = spec.messages.iter().enumerate().filter(|(_, message)| message.kind == Kind::Ack).peekable();
    if acks.peek().is_none() {
        return Ok(Acknowledgement::None);
    }
    let (mut tagged, mut plain) = (0, 0);
    for (number, ack) in acks {
        match (&ack.tag, &push.tag) {
            (Some(_), None) => return Err(message_error(number, ack, "it has a tag, and no push has one".to_owned())),
            (Some(_), Some(_)) => tagged += 1,
            (None, _) => plain += 1,
        }
        if tagged > 0 && plain > 0 {
            return Err(message_error(number, ack, "some acks have a tag, and some have none".to_owned()));
        }
    }
    Ok(match &push.tag {
        Some(tag) if tagged > 0 => Acknowledgement::Tagged { bits: tag_bits(spec, tag) },
        _ => Acknowledgement::InTurn,
    })
}

/// Bits of the number that a push has for its tag; a word has [`WORD_TAG_BITS`].
fn tag_bits(spec: &Spec, tag: &str) -> u8 {
    match spec.fields.iter().find(|field| field.name == tag).map(|field| &field.shape) {
        Some(Shape::Number { bits, .. }) => *bits,
        _ => WORD_TAG_BITS,
    }
}

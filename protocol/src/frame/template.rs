//! Texts with names in braces: templates that are filled in, and patterns that words are taken out of.

/// A piece of a text as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Literal(String),
    /// A name, and how it is written out: `{name}`, `{name:hex}`.
    Name {
        name: String,
        format: Format,
    },
}

/// How a value is written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// Bytes as they are, numbers in decimal.
    #[default]
    Plain,
    /// Bytes as two digits each, numbers as many digits as they need.
    Hex,
    /// As `Hex`, and none of the digits is above 9.
    Bcd,
}

impl Format {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "hex" => Some(Self::Hex),
            "bcd" => Some(Self::Bcd),
            _ => None,
        }
    }
}

/// Takes a text apart.
pub(super) fn parse(text: &str) -> Result<Vec<Written>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, behind)) = rest.split_once('{') {
        if !literal.is_empty() {
            pieces.push(Written::Literal(literal.to_owned()));
        }
        let (inside, behind) =
            behind.split_once('}').ok_or_else(|| format!("`{text}` opens a brace and does not close it"))?;
        pieces.push(name_of(inside)?);
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Written::Literal(rest.to_owned()));
    }
    Ok(pieces)
}

fn name_of(inside: &str) -> Result<Written, String> {
    let (name, format) = match inside.split_once(':') {
        None => (inside, Format::Plain),
        Some((name, format)) => {
            let known = Format::from_name(format);
            (name, known.ok_or_else(|| format!("`{{{inside}}}`: a format is hex or bcd, not `{format}`"))?)
        }
    };
    Ok(Written::Name { name: name.to_owned(), format })
}

/// Appends bytes as digits; `false`: one of them is above 9, and none may be.
pub(super) fn push_digits(bytes: &[u8], format: Format, out: &mut String) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let most = if format == Format::Bcd { 9 } else { 15 };
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).all(|digit| {
        out.push(char::from(DIGITS[usize::from(digit)]));
        digit <= most
    })
}

/// Appends a JSON string.
pub(super) fn push_json_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\u{0}'..='\u{1f}' => {
                out.push_str("\\u00");
                push_digits(&[character as u8], Format::Hex, out);
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_literals_and_names() {
        let name = |name: &str, format| Written::Name { name: name.to_owned(), format };
        let literal = |text: &str| Written::Literal(text.to_owned());
        assert_eq!(
            parse("a-{b}{c:bcd}/d"),
            Ok(vec![literal("a-"), name("b", Format::Plain), name("c", Format::Bcd), literal("/d")])
        );
        assert!(parse("a{b").is_err_and(|error| error.contains("does not close")));
        assert!(parse("{b:oct}").is_err_and(|error| error.contains("`oct`")));
    }

    #[test]
    fn digits_and_json() {
        let mut out = String::new();
        assert!(push_digits(&[0x12, 0x0f], Format::Hex, &mut out) && !push_digits(&[0x1a], Format::Bcd, &mut out));
        push_json_text("a\"\\\u{1}ü", &mut out);
        assert_eq!(out, "120f1a\"a\\\"\\\\\\u0001ü\"");
    }
}

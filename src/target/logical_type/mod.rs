//! What a column's values must look like beyond their Arrow type.
//!
//! A text that is no UUID, a number that needs more than 32 bits: Arrow's type holds them, production does not. What has a
//! [`LogicalType`] is taken by production; what production takes in some odd notation may have none.

mod array;
mod interval;
mod json;
mod number;

use std::borrow::Cow;

use arrow::datatypes::DataType;

pub use array::elements;

/// What a column's values must look like beyond their Arrow type; a value that does not is none of the column's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogicalType {
    /// Whatever the Arrow type holds.
    #[default]
    Plain,
    /// An Int64 that fits so many bits: 16 or 32.
    Integer(u8),
    /// A Float64 that production keeps in single precision.
    Single,
    /// A decimal number in text that production keeps without rounding it; written with all digits of the scale.
    Number {
        /// Its significant digits.
        precision: u16,
        /// Those behind the point; a negative scale is zeros before it.
        scale: i16,
    },
    /// A text without NUL.
    Text,
    /// A text without NUL that production reads in a way of its own.
    Opaque,
    /// A text without NUL whose trailing blanks do not count; written without them.
    Padded,
    /// Bytes: from text, `\x…` is hexadecimal, and anything else the bytes of the text itself.
    Bytes,
    /// A UUID in any notation with hyphens, braces or neither; written in lower case with hyphens.
    Uuid,
    /// A JSON text, kept as written.
    Json,
    /// A JSON text that a binary form has room for: no `\u0000`, no half of a surrogate pair, no number of thousands of digits.
    Jsonb,
    /// A span of time, `P1Y2DT3H` or `1 year 2 days 03:00:00`, kept as written.
    Interval,
    /// An array literal, `{1,NULL,"a, b"}`, kept as written; and the type and the form of its elements.
    Array(Box<(DataType, LogicalType)>),
}

impl LogicalType {
    /// The value as production takes it; None where it takes none.
    ///
    /// Numbers are judged and left as they are written. Of an array, elements of an Arrow type other than text are judged
    /// by their form alone: whether they are of the type is for a cast of [`elements`].
    pub fn canonical<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        let as_written = |taken: bool| taken.then_some(Cow::Borrowed(text));
        match self {
            Self::Plain => as_written(true),
            Self::Integer(_) => as_written(text.parse().is_ok_and(|value| self.takes_integer(value))),
            Self::Single => as_written(text.parse().is_ok_and(|value: f64| self.float(value).is_some())),
            Self::Number { precision, scale } => number::canonical(text, *precision, *scale).map(Cow::Owned),
            Self::Text | Self::Opaque => as_written(!text.contains('\0')),
            Self::Padded if text.contains('\0') => None,
            Self::Padded => Some(Cow::Borrowed(text.trim_end_matches(' '))),
            Self::Bytes => as_written(bytes(text).is_some()),
            Self::Uuid => uuid(text),
            Self::Json => as_written(json::is_json(text)),
            Self::Jsonb => as_written(json::is_jsonb(text)),
            Self::Interval => as_written(interval::is_interval(text)),
            Self::Array(element) => {
                let (_, form) = element.as_ref();
                as_written(elements(text)?.iter().flatten().all(|element| form.takes_element(element)))
            }
        }
    }

    /// Whether production gives back what is written to it, letter by letter.
    pub fn is_kept_as_written(&self) -> bool {
        !matches!(self, Self::Number { .. } | Self::Opaque | Self::Jsonb | Self::Interval | Self::Array(_))
    }

    /// Whether production takes this integer.
    pub fn takes_integer(&self, value: i64) -> bool {
        match self {
            Self::Integer(16) => i16::try_from(value).is_ok(),
            Self::Integer(_) => i32::try_from(value).is_ok(),
            _ => true,
        }
    }

    /// The number as production keeps it; None where it is infinite or vanishes there.
    pub fn float(&self, value: f64) -> Option<f64> {
        if *self != Self::Single {
            return Some(value);
        }
        let single = value as f32;
        let kept = single.is_finite() && (single == 0.0) == (value == 0.0);
        kept.then_some(single.into())
    }

    /// As [`LogicalType::canonical`], of an element: the server reads it, and not this program.
    fn takes_element(&self, text: &str) -> bool {
        match self {
            // There a backslash begins an escape.
            Self::Bytes => bytes(text).is_some() && (text.starts_with("\\x") || !text.contains('\\')),
            _ => self.canonical(text).is_some(),
        }
    }
}

/// The bytes that a text stands for: `\x` and hexadecimal digits, or any other text, which stands for its own; None for
/// digits that are none.
pub fn bytes(text: &str) -> Option<Cow<'_, [u8]>> {
    let Some(digits) = text.strip_prefix("\\x") else { return Some(Cow::Borrowed(text.as_bytes())) };
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().map(Cow::Owned)
}

/// A UUID with lower-case digits and its four hyphens.
///
/// Read as PostgreSQL reads it: braces around it or not, a hyphen after any four digits or not.
fn uuid(text: &str) -> Option<Cow<'_, str>> {
    let is_canonical = |(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    if text.len() == 36 && text.bytes().enumerate().all(is_canonical) {
        return Some(Cow::Borrowed(text));
    }
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut canonical = String::with_capacity(36);
    let (mut digits, mut after_hyphen) = (0, true);
    for char in inner.chars() {
        match char {
            '-' if !after_hyphen && digits % 4 == 0 && digits < 32 => after_hyphen = true,
            _ if char.is_ascii_hexdigit() && digits < 32 => {
                if matches!(digits, 8 | 12 | 16 | 20) {
                    canonical.push('-');
                }
                canonical.push(char.to_ascii_lowercase());
                digits += 1;
                after_hyphen = false;
            }
            _ => return None,
        }
    }
    (digits == 32).then_some(Cow::Owned(canonical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_in_every_notation_and_written_in_one() {
        let canonical = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            canonical,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            assert_eq!(LogicalType::Uuid.canonical(text).as_deref(), Some(canonical), "{text}");
        }
        for text in [
            "",
            "{}",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a112",
            "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
            "-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
            "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert_eq!(LogicalType::Uuid.canonical(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_hexadecimal_or_the_text_itself() {
        assert_eq!(bytes("\\x00fF").as_deref(), Some(&[0, 255][..]));
        assert_eq!(bytes("\\x").as_deref(), Some(&[][..]));
        assert_eq!(bytes("ä\\").as_deref(), Some("ä\\".as_bytes()));
        assert_eq!(bytes("\\x0"), None);
        assert_eq!(bytes("\\x0g"), None);
    }

    #[test]
    fn a_number_is_as_large_as_production_keeps_it() {
        assert!(LogicalType::Integer(16).takes_integer(-32_768) && !LogicalType::Integer(16).takes_integer(32_768));
        assert!(
            LogicalType::Integer(32).takes_integer(2_147_483_647)
                && !LogicalType::Integer(32).takes_integer(2_147_483_648)
        );
        assert_eq!(LogicalType::Single.float(0.1), Some(f64::from(0.1_f32)));
        assert_eq!(LogicalType::Single.float(-0.0), Some(0.0));
        for value in [1e39, 1e-50, f64::NAN, f64::INFINITY] {
            assert_eq!(LogicalType::Single.float(value), None, "{value}");
        }
    }

    #[test]
    fn a_text_has_no_nul_and_a_padded_one_no_trailing_blanks() {
        assert_eq!(LogicalType::Text.canonical("a "), Some("a ".into()));
        assert_eq!(LogicalType::Text.canonical("a\0"), None);
        assert_eq!(LogicalType::Padded.canonical(" a\t  "), Some(" a\t".into()));
        assert_eq!(LogicalType::Padded.canonical("\0 "), None);
    }
}

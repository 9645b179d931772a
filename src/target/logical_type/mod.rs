//! Constraints of a column on its values beyond their Arrow type.
//!
//! A malformed UUID, or a number of more than 32 bits, may fit the Arrow type although production rejects it. Production accepts every
//! value that conforms to its [`LogicalType`]. A value in a rare notation may fail to conform although production would accept it.

mod array;
mod composite;
mod interval;
mod json;
mod number;

use std::borrow::Cow;

use arrow::datatypes::DataType;

pub use array::elements;
pub use composite::{Component, Range, fields, multirange, range};

/// The constraints of a column on its values beyond their Arrow type. A value that does not conform is rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogicalType {
    /// No constraint.
    #[default]
    Plain,
    /// An Int64 that fits this many bits: 16 or 32.
    Integer(u8),
    /// A Float64 that production stores in single precision.
    Single,
    /// A decimal number in text that production stores without rounding. It is written with all digits of the scale.
    Number {
        /// Its significant digits.
        precision: u16,
        /// The digits behind the point; a negative scale means zeros before it.
        scale: i16,
    },
    /// A text without NUL.
    Text,
    /// A text without NUL in a format of production's that this program does not interpret.
    Opaque,
    /// A text without NUL whose trailing blanks are insignificant; written without them.
    Padded,
    /// Bytes: `\x…` is hexadecimal, and any other text stands for its own bytes.
    Bytes,
    /// A UUID with or without hyphens and braces; written in lower case with hyphens.
    Uuid,
    /// A JSON text, kept as written.
    Json,
    /// A JSON text that `jsonb` can store: no `\u0000`, no unpaired surrogate, no number with thousands of digits, no name twice in one object.
    Jsonb,
    /// A time span, `P1Y2DT3H` or `1 year 2 days 03:00:00`, kept as written.
    Interval,
    /// A time of a day with an offset from UTC, kept as written.
    ZonedTime,
    /// A range literal, `[2024-01-01,)`, kept as written, with the type of its bounds.
    Range(Box<Component>),
    /// A multirange literal, `{[2024-01-01,)}`, kept as written, with the type of its bounds.
    Multirange(Box<Component>),
    /// A composite literal, `(1,,"a, b")`, kept as written, with the types of its columns.
    Composite(Vec<Component>),
    /// A value that production changes in ways that this program does not foresee. None is accepted.
    Unforeseen,
    /// An array literal, `{1,NULL,"a, b"}`, kept as written, or a JSON array, with the types of its elements.
    Array(Box<(DataType, LogicalType)>),
}

impl LogicalType {
    /// Returns the value in the notation that production accepts, or None if production rejects it.
    ///
    /// Numbers are checked and left as written. Array elements are checked by their logical type alone; a cast of [`elements`] checks their
    /// Arrow type. The components of ranges and composite values are checked by casts of [`range`], [`multirange`], and [`fields`].
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
            Self::ZonedTime => as_written(composite::is_zoned_time(text)),
            Self::Range(_) => as_written(!text.contains('\0') && range(text).is_some()),
            Self::Multirange(_) => as_written(!text.contains('\0') && multirange(text).is_some()),
            Self::Composite(columns) => {
                as_written(!text.contains('\0') && fields(text).is_some_and(|fields| fields.len() == columns.len()))
            }
            Self::Unforeseen => None,
            Self::Array(element) if text.starts_with('[') => {
                let literal = array::of_json(text, matches!(element.1, Self::Json | Self::Jsonb))?;
                self.canonical(&literal)?;
                Some(Cow::Owned(literal))
            }
            Self::Array(element) => {
                let (_, form) = element.as_ref();
                as_written(elements(text)?.iter().flatten().all(|element| form.takes_element(element)))
            }
        }
    }

    /// Returns whether production returns a written value unchanged.
    pub fn is_kept_as_written(&self) -> bool {
        !matches!(
            self,
            Self::Number { .. }
                | Self::Opaque
                | Self::Jsonb
                | Self::Interval
                | Self::ZonedTime
                | Self::Range(_)
                | Self::Multirange(_)
                | Self::Composite(_)
                | Self::Unforeseen
                | Self::Array(_)
        )
    }

    /// Returns whether production accepts this integer.
    pub fn takes_integer(&self, value: i64) -> bool {
        match self {
            Self::Integer(16) => i16::try_from(value).is_ok(),
            Self::Integer(_) => i32::try_from(value).is_ok(),
            _ => true,
        }
    }

    /// Returns the number as production stores it; None if it becomes infinite or zero.
    pub fn float(&self, value: f64) -> Option<f64> {
        if *self != Self::Single {
            return Some(value);
        }
        let single = value as f32;
        let kept = single.is_finite() && (single == 0.0) == (value == 0.0);
        kept.then_some(single.into())
    }

    /// Returns whether production accepts an array element as written, because the server reads it and not this program.
    fn takes_element(&self, text: &str) -> bool {
        match self {
            // In an array element, a backslash begins an escape.
            Self::Bytes => bytes(text).is_some() && (text.starts_with("\\x") || !text.contains('\\')),
            _ => self.canonical(text).is_some(),
        }
    }
}

/// Returns the bytes that a text stands for: hexadecimal digits after `\x`, or the text's own bytes. None for invalid digits.
pub fn bytes(text: &str) -> Option<Cow<'_, [u8]>> {
    let Some(digits) = text.strip_prefix("\\x") else { return Some(Cow::Borrowed(text.as_bytes())) };
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().map(Cow::Owned)
}

/// Formats a UUID in lower case with four hyphens.
///
/// Reads it as PostgreSQL does: with or without braces, and with an optional hyphen after each four digits.
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

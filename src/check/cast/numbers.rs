//! Numbers with a decimal character other than a point, and with groups of digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::error::Result;

/// The characters within the numbers of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) struct NumberStyle {
    pub(in crate::check) decimal: char,
    pub(in crate::check) thousands: Option<char>,
}

impl NumberStyle {
    /// Returns texts with a point as the decimal character and without groups, and the rows that are not written so.
    pub(in crate::check) fn plain(self, values: &ArrayRef) -> Result<(ArrayRef, Vec<usize>)> {
        let texts = cast(values, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let mut wrong = Vec::new();
        let plain: StringArray = (0..texts.len())
            .map(|row| {
                let text = texts.is_valid(row).then(|| texts.value(row))?;
                let number = self.number(text);
                if number.is_none() {
                    wrong.push(row);
                }
                number
            })
            .collect();
        Ok((Arc::new(plain), wrong))
    }

    /// Returns a number with a point as the decimal character and without groups.
    fn number(self, text: &str) -> Option<String> {
        let (whole, fraction) = match text.split_once(self.decimal) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let foreign = |char: char| {
            !char.is_ascii_digit() && !matches!(char, '+' | '-' | 'e' | 'E') && (char != '.' || self.decimal != '.')
        };
        if fraction.is_some_and(|fraction| fraction.contains(foreign)) {
            return None;
        }
        let mut plain = match self.thousands {
            Some(character) if whole.contains(character) => {
                let unsigned = whole.trim_start_matches(['+', '-']);
                let mut groups = unsigned.split(character);
                let first = groups.next().unwrap_or_default();
                let of_three = |group: &str| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit());
                if !(1..=3).contains(&first.len()) || !groups.all(of_three) {
                    return None;
                }
                whole.replace(character, "")
            }
            _ => whole.to_owned(),
        };
        if plain.contains(foreign) {
            return None;
        }
        if let Some(fraction) = fraction {
            plain.push('.');
            plain.push_str(fraction);
        }
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_its_style_writes_it_or_not_at_all() {
        let german = NumberStyle { decimal: ',', thousands: Some('.') };
        for (text, number) in [
            ("1.234,50", Some("1234.50")),
            ("-1.234.567,8", Some("-1234567.8")),
            ("0,5", Some("0.5")),
            ("1234", Some("1234")),
            ("1.234", Some("1234")),
            ("1.23", None),
            ("1,234.50", None),
            ("12.34.567", None),
            ("1,2,3", None),
            ("1.234x", None),
        ] {
            assert_eq!(german.number(text).as_deref(), number, "{text}");
        }
        let swiss = NumberStyle { decimal: '.', thousands: Some('\'') };
        assert_eq!(swiss.number("1'234.50").as_deref(), Some("1234.50"));
        let comma = NumberStyle { decimal: ',', thousands: None };
        assert_eq!(comma.number("1.5"), None, "a point is not a decimal comma");
    }
}

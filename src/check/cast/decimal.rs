//! Casts of texts to decimals, without rounding. One pass over the bytes reads nearly all texts of a file.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, Decimal128Array, Decimal256Array, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::i256;

use super::CastLoss;
use crate::error::Result;

/// The number of digits that always fit into 64 bits.
const DIGITS: usize = 18;

/// Casts texts to decimals of up to 38 digits, NULL if a text has no value, and records losses.
pub(in crate::check) fn cast(texts: &StringArray, precision: u8, scale: i8, lost: &mut [CastLoss]) -> Result<ArrayRef> {
    let (values, valid) = each(texts, lost, |text| match plain(text, precision, scale) {
        Some(number) => Ok(number),
        None => scaled(text, precision, scale)?.parse().map_err(|_| CastLoss::Value),
    });
    Ok(Arc::new(Decimal128Array::new(values.into(), valid).with_precision_and_scale(precision, scale)?))
}

/// Casts texts to decimals of up to 76 digits, NULL if a text has no value, and records losses.
pub(in crate::check) fn cast_wide(
    texts: &StringArray,
    precision: u8,
    scale: i8,
    lost: &mut [CastLoss],
) -> Result<ArrayRef> {
    let (values, valid) = each(texts, lost, |text| {
        if let (Some(number), Ok(zeros)) = (plain(text, u8::MAX, 0), u32::try_from(scale)) {
            let unit = i256::from_i128(10).wrapping_pow(zeros);
            let fits = text.len() + usize::from(scale.unsigned_abs()) <= usize::from(precision);
            if fits {
                return Ok(i256::from_i128(number).wrapping_mul(unit));
            }
        }
        i256::from_string(&scaled(text, precision, scale)?).ok_or(CastLoss::Value)
    });
    Ok(Arc::new(Decimal256Array::new(values.into(), valid).with_precision_and_scale(precision, scale)?))
}

fn each<T: Default + Clone>(
    texts: &StringArray,
    lost: &mut [CastLoss],
    number: impl Fn(&str) -> Result<T, CastLoss>,
) -> (Vec<T>, Option<NullBuffer>) {
    let mut values = vec![T::default(); texts.len()];
    let mut valid = BooleanBufferBuilder::new(texts.len());
    for (row, value) in values.iter_mut().enumerate() {
        let number = texts.is_valid(row).then(|| number(texts.value(row)));
        valid.append(matches!(number, Some(Ok(_))));
        match number {
            Some(Ok(number)) => *value = number,
            Some(Err(why)) => lost[row] = why,
            None => {}
        }
    }
    (values, Some(NullBuffer::new(valid.finish())))
}

/// Returns the digits of a number in units of a scale, with a minus if it is negative.
fn scaled(text: &str, precision: u8, scale: i8) -> Result<String, CastLoss> {
    let number = Number::parse(text).ok_or(CastLoss::Value)?;
    if number.digits.is_empty() {
        return Ok("0".to_owned());
    }
    let zeros = number.exponent.saturating_add(i64::from(scale));
    let zeros = usize::try_from(zeros).map_err(|_| CastLoss::Digits)?;
    if number.digits.len().saturating_add(zeros) > usize::from(precision) {
        return Err(CastLoss::Digits);
    }
    let sign = if number.is_negative { "-" } else { "" };
    Ok(format!("{sign}{}{}", number.digits, "0".repeat(zeros)))
}

/// A number in decimal notation: digits · 10^exponent.
struct Number {
    is_negative: bool,
    /// The digits, without zeros at either end; empty for zero.
    digits: String,
    exponent: i64,
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (unsigned, 0_i64),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = whole.to_owned() + fraction;
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        let zeros = all.len() - all.trim_end_matches('0').len();
        let exponent = exponent.saturating_sub(fraction.len() as i64).saturating_add(zeros as i64);
        Some(Self { is_negative: text.starts_with('-'), digits: significant.to_owned(), exponent })
    }
}

/// Parses the usual notation: digits with an optional minus and at most `scale` digits after the point.
fn plain(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    if whole.is_empty() || fraction.len() > scale || whole.len() + scale > DIGITS {
        return None;
    }
    let mut number = 0_i64;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(byte - b'0');
    }
    number *= 10_i64.pow((scale - fraction.len()) as u32);
    let fits = usize::from(precision) >= DIGITS || number < 10_i64.pow(precision.into());
    fits.then(|| i128::from(if digits.len() < text.len() { -number } else { number }))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::compute::{CastOptions, cast_with_options};
    use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type};

    use super::*;

    #[test]
    fn what_is_plain_is_what_arrow_reads() {
        let texts = "0|-0|-0.00|7|007|12.3|-12.30|0.05|.5|-.5|5.|-||.|+5| 5 |5 |1.2.3|1,5|--1|-+1|1-|0x1|٣|nan|1e|e1\
                     |99.99|100|-99.99|-100.00|999999999999999999|1000000000000000000|9999999999999999.99\
                     |12345678901234567890.12|0000000000000000000001|1.0000";
        let texts: Vec<_> = texts.split('|').collect();
        let array: StringArray = texts.iter().map(|text| Some(*text)).chain([None]).collect();
        for (precision, scale) in [(4, 2), (4, 0), (2, 2), (18, 2), (18, 18), (19, 0), (38, 10), (38, 38)] {
            let mut plainly = 0;
            let to = DataType::Decimal128(precision, scale);
            let safe = CastOptions { safe: true, ..CastOptions::default() };
            let by_arrow = cast_with_options(&array, &to, &safe).unwrap();
            let by_arrow = by_arrow.as_primitive::<Decimal128Type>();
            let mut lost = vec![CastLoss::Nothing; array.len()];
            let found = cast(&array, precision, scale, &mut lost).unwrap();
            let wide = cast_wide(&array, precision, scale, &mut lost).unwrap();
            let (found, wide) = (found.as_primitive::<Decimal128Type>(), wide.as_primitive::<Decimal256Type>());
            for (row, text) in texts.iter().enumerate() {
                plainly += usize::from(plain(text, precision, scale).is_some());
                let number = found.is_valid(row).then(|| found.value(row));
                assert_eq!(number, wide.is_valid(row).then(|| wide.value(row).to_i128().unwrap()), "{text:?} as {to}");
                if lost[row] == CastLoss::Digits {
                    assert_eq!(number, None, "{text:?} as {to}");
                } else {
                    let by_arrow = by_arrow.is_valid(row).then(|| by_arrow.value(row));
                    assert_eq!(number, by_arrow, "{text:?} as {to}");
                }
            }
            assert_eq!(plainly > 0, scale < 18, "{to}");
        }
    }

    #[test]
    fn exponents_and_long_fractions_are_read_exactly() {
        let many = format!("99999999.98{}", "9".repeat(48));
        let tiny = format!("0.{}1", "0".repeat(75));
        let zeros = format!("1.5{}", "0".repeat(90));
        for (text, precision, scale, expected) in [
            ("1e2", 14, 2, Ok(10_000)),
            ("1E+2", 14, 2, Ok(10_000)),
            ("-1.5e3", 14, 2, Ok(-150_000)),
            ("1e19", 20, 0, Ok(10_000_000_000_000_000_000)),
            ("1200e-2", 4, 0, Ok(12)),
            ("0e999999", 4, 2, Ok(0)),
            (zeros.as_str(), 4, 2, Ok(150)),
            ("1e-3", 4, 2, Err(CastLoss::Digits)),
            ("1e3", 4, 2, Err(CastLoss::Digits)),
            ("1e9223372036854775807", 38, 2, Err(CastLoss::Digits)),
            ("1e-9223372036854775808", 38, 2, Err(CastLoss::Digits)),
            ("1e99999999999999999999", 38, 2, Err(CastLoss::Value)),
            (many.as_str(), 14, 2, Err(CastLoss::Digits)),
            (tiny.as_str(), 14, 2, Err(CastLoss::Digits)),
        ] {
            let array = StringArray::from(vec![text]);
            let mut lost = [CastLoss::Nothing];
            let found = cast(&array, precision, scale, &mut lost).unwrap();
            let found = found.as_primitive::<Decimal128Type>();
            let found = if found.is_valid(0) { Ok(found.value(0)) } else { Err(lost[0]) };
            assert_eq!(found, expected, "{text}");
            let mut lost = [CastLoss::Nothing];
            let wide = cast_wide(&array, precision, scale, &mut lost).unwrap();
            let wide = wide.as_primitive::<Decimal256Type>();
            let wide = if wide.is_valid(0) { Ok(wide.value(0).to_i128().unwrap()) } else { Err(lost[0]) };
            assert_eq!(wide, expected, "{text}");
        }
    }
}

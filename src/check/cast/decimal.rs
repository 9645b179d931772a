//! Casts of texts to decimals. One pass over the bytes reads nearly all texts of a file; Arrow parses the others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, Decimal128Array, StringArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Decimal128Type};

use super::CastLoss;
use crate::error::Result;

/// A precision that fits any number of a file.
const WIDE: DataType = DataType::Decimal256(76, 38);

/// The number of digits that always fit into 64 bits.
const DIGITS: usize = 18;

/// Casts texts to decimals, NULL if a text has no value, and records losses.
pub(in crate::check) fn cast(texts: &StringArray, precision: u8, scale: i8, lost: &mut [CastLoss]) -> Result<ArrayRef> {
    let mut values = vec![0; texts.len()];
    let mut valid = BooleanBufferBuilder::new(texts.len());
    let mut others = Vec::new();
    for (row, value) in values.iter_mut().enumerate() {
        let is_valid = texts.is_valid(row);
        valid.append(is_valid);
        if is_valid {
            match plain(texts.value(row), precision, scale) {
                Some(number) => *value = number,
                None => others.push(row as u32),
            }
        }
    }
    if !others.is_empty() {
        let safe = CastOptions { safe: true, ..CastOptions::default() };
        let texts = take(texts, &UInt32Array::from(others.clone()), None)?;
        let found = cast_with_options(&texts, &DataType::Decimal128(precision, scale), &safe)?;
        // A text that has a value only with more precision has too many digits.
        let exact = cast_with_options(&texts, &WIDE, &safe)?;
        let differs = distinct(&exact, &cast_with_options(&found, &WIDE, &safe)?)?;
        let numbers = found.as_primitive::<Decimal128Type>();
        for (at, row) in others.into_iter().map(|row| row as usize).enumerate() {
            values[row] = numbers.value(at);
            valid.set_bit(row, found.is_valid(at));
            lost[row] = match (differs.value(at), exact.is_valid(at), found.is_valid(at)) {
                (true, true, _) => CastLoss::Digits,
                (true, false, _) | (false, _, false) => CastLoss::Value,
                (false, _, true) => CastLoss::Nothing,
            };
        }
    }
    let values = Decimal128Array::new(values.into(), Some(NullBuffer::new(valid.finish())));
    Ok(Arc::new(values.with_precision_and_scale(precision, scale)?))
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
    use super::*;

    #[test]
    fn what_is_plain_is_what_arrow_reads() {
        let texts = "0|-0|-0.00|7|007|12.3|-12.30|0.05|.5|-.5|5.|-||.|+5| 5 |5 |1e3|1E-2|1.2.3|1,5|--1|-+1|1-|0x1|٣|nan\
                     |99.99|100|-99.99|-100.00|999999999999999999|1000000000000000000|9999999999999999.99\
                     |12345678901234567890.12|0000000000000000000001|1.0000|1.2345";
        let texts: Vec<_> = texts.split('|').collect();
        let array: StringArray = texts.iter().map(|text| Some(*text)).chain([None]).collect();
        for (precision, scale) in [(4, 2), (4, 0), (2, 2), (18, 2), (18, 18), (19, 0), (38, 10), (38, 38)] {
            let mut plainly = 0;
            let to = DataType::Decimal128(precision, scale);
            let safe = CastOptions { safe: true, ..CastOptions::default() };
            let by_arrow = cast_with_options(&array, &to, &safe).unwrap();
            let by_arrow = by_arrow.as_primitive::<Decimal128Type>();
            for (row, text) in texts.iter().enumerate() {
                if let Some(number) = plain(text, precision, scale) {
                    plainly += 1;
                    assert!(by_arrow.is_valid(row), "{text:?} as {to}");
                    assert_eq!(number, by_arrow.value(row), "{text:?} as {to}");
                }
            }
            assert_eq!(plainly > 0, scale < 18, "{to}");
            let mut lost = vec![CastLoss::Nothing; array.len()];
            let found = cast(&array, precision, scale, &mut lost).unwrap();
            assert_eq!(&found, &(Arc::new(by_arrow.clone()) as ArrayRef), "{to}");
        }
    }
}

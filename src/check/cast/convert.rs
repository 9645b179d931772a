//! Lossless casts from a value's source type to its column's type: a value that does not fit exactly becomes NULL.
//!
//! Arrow does the casts. This module finds what they would change silently: digits, a time zone, half a second.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringArray, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};

use super::float::keeps;
use super::{CastLoss, decimal};
use crate::engine::display_value;
use crate::error::Result;

/// The result of a cast.
pub(in crate::check) struct Converted {
    /// The values; NULL if a row has none.
    pub(in crate::check) values: ArrayRef,
    /// Rows whose value cannot be cast to the type.
    pub(in crate::check) no_value: Vec<usize>,
    /// Rows whose decimal has more digits than the column.
    pub(in crate::check) too_precise: Vec<usize>,
}

/// Years 1 to 9999, in days and in microseconds since 1970: every target stores them, and every text has four digits.
const DAYS: std::ops::Range<i32> = -719_162..2_932_897;
const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

/// Returns values as text.
pub(in crate::check) fn text(values: &ArrayRef) -> ArrayRef {
    if *values.data_type() == DataType::Utf8 { values.clone() } else { text_or_null(values) }
}

/// Returns values as text; NULL for a value that has none, such as a date that cannot be printed.
fn text_or_null(values: &ArrayRef) -> ArrayRef {
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    if let Ok(texts) = cast_with_options(values, &DataType::Utf8, &safe) {
        return texts;
    }
    let text = |row: usize| {
        let text = cast_with_options(&values.slice(row, 1), &DataType::Utf8, &safe).ok()?;
        text.is_valid(0).then(|| text.as_string::<i32>().value(0).to_owned())
    };
    Arc::new((0..values.len()).map(text).collect::<StringArray>())
}

/// Returns numbers as text: floats with the fewest digits that identify them.
fn written(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>().iter();
            Arc::new(floats.map(|value| value.map(|value| format!("{value:e}"))).collect::<StringArray>())
        }
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>().iter();
            Arc::new(floats.map(|value| value.map(|value| format!("{value:e}"))).collect::<StringArray>())
        }
        _ => text(values),
    }
}

/// Casts values to a type. `significant_digits` is the target's limit on the digits of a decimal, if it has one.
pub(in crate::check) fn convert(values: &ArrayRef, to: &DataType, significant_digits: Option<u8>) -> Result<Converted> {
    if *values.data_type() == DataType::Null {
        let values = new_null_array(to, values.len());
        return Ok(Converted { values, no_value: Vec::new(), too_precise: Vec::new() });
    }
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let mut lost = vec![CastLoss::Nothing; values.len()];
    let is_decimal = matches!(to, DataType::Decimal128(..) | DataType::Decimal256(..));
    let from_text = matches!(values.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    // The binary value of a float has digits that were not written; its shortest text has not.
    let exactly = is_decimal && (from_text || values.data_type().is_floating());
    let converted = match to {
        DataType::Decimal128(precision, scale) if exactly => {
            decimal::cast(written(values).as_string(), *precision, *scale, &mut lost)?
        }
        DataType::Decimal256(precision, scale) if exactly => {
            decimal::cast_wide(written(values).as_string(), *precision, *scale, &mut lost)?
        }
        DataType::Utf8 => text_or_null(values),
        _ => cast_with_options(values, to, &safe)?,
    };
    if converted.null_count() != values.null_count() {
        for (row, lost) in lost.iter_mut().enumerate().filter(|(_, lost)| **lost == CastLoss::Nothing) {
            if values.is_valid(row) && converted.is_null(row) {
                *lost = CastLoss::Value;
            }
        }
    }
    if from_text && values.data_type() != to {
        in_text(&text(values), &converted, to, &mut lost);
    } else if values.data_type() != to && *to != DataType::Utf8 && !exactly {
        let back = cast_with_options(&converted, values.data_type(), &safe)?;
        let differs = distinct(&back, values)?;
        for row in (0..values.len()).filter(|row| differs.value(*row) && values.is_valid(*row)) {
            lost[row] = if is_decimal { CastLoss::Digits } else { CastLoss::Value };
        }
    }
    out_of_range(&converted, significant_digits, &mut lost);
    let rows_of = |wanted: CastLoss| (0..lost.len()).filter(|row| lost[*row] == wanted).collect::<Vec<_>>();
    let (no_value, too_precise) = (rows_of(CastLoss::Value), rows_of(CastLoss::Digits));
    let mut values = converted;
    if !(no_value.is_empty() && too_precise.is_empty()) {
        let out: Vec<bool> = lost.iter().map(|lost| *lost != CastLoss::Nothing).collect();
        values = arrow::compute::nullif(&values, &out.into())?;
    }
    if *to == DataType::Float64 {
        // Databases do not distinguish -0 from 0.
        let floats = values.as_primitive::<Float64Type>();
        values = Arc::new(floats.unary::<_, Float64Type>(|value| value + 0.0));
    }
    Ok(Converted { values, no_value, too_precise })
}

/// Finds texts with more information than their value.
fn in_text(texts: &ArrayRef, converted: &ArrayRef, to: &DataType, lost: &mut [CastLoss]) {
    let strings = texts.as_string::<i32>();
    let suspects = |suspicious: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..strings.len()).filter(|row| strings.is_valid(*row) && suspicious(strings.value(*row))).collect()
    };
    match to {
        DataType::Timestamp(_, Some(_)) => {
            for row in suspects(&|text| !has_offset(text) || text.contains(":60")) {
                lost[row] = CastLoss::Value;
            }
        }
        DataType::Date32 => {
            for row in suspects(&|text| text.len() != 10) {
                let midnight = strings.value(row).get(10..).is_some_and(is_midnight);
                if !(midnight && strings.value(row).starts_with(&display_value(converted.as_ref(), row))) {
                    lost[row] = CastLoss::Value;
                }
            }
        }
        DataType::Timestamp(_, None) => {
            let plain = |text: &str| text.len() == 10 || (text.len() == 19 && text.as_bytes()[16] == b':');
            for row in suspects(&|text| !plain(text) || text.ends_with(":60")) {
                if !same_time(strings.value(row), &display_value(converted.as_ref(), row)) {
                    lost[row] = CastLoss::Value;
                }
            }
        }
        DataType::Time64(_) => {
            for row in suspects(&|text| text.len() != 8 || text.ends_with(":60")) {
                let text = strings.value(row);
                let whole = if text.len() == 5 { format!("{text}:00") } else { text.to_owned() };
                if !same_time(&whole, &display_value(converted.as_ref(), row)) {
                    lost[row] = CastLoss::Value;
                }
            }
        }
        DataType::Float64 => {
            let floats = converted.as_primitive::<Float64Type>();
            for row in (0..strings.len()).filter(|row| strings.is_valid(*row) && floats.is_valid(*row)) {
                let (text, value) = (strings.value(row), floats.value(row));
                let is_suspect = text.len() > 15 || !value.is_normal();
                if is_suspect && value.is_finite() && !keeps(text, value, false) {
                    lost[row] = CastLoss::Value;
                }
            }
        }
        _ => {}
    }
}

/// Returns whether a text is a time with an offset from UTC, and with at most microseconds.
fn has_offset(text: &str) -> bool {
    let Some((_, clock)) = text.split_once(['T', 't', ' ']) else { return false };
    let Some(end) = clock.find(['Z', 'z', '+', '-']) else { return false };
    let fraction = clock[..end].split_once('.').map_or("", |(_, fraction)| fraction.trim_end().trim_end_matches('0'));
    fraction.len() <= 6
}

/// Returns whether the part of a text after its date is midnight: `T00:00:00`.
fn is_midnight(rest: &str) -> bool {
    let clock = rest.strip_prefix(['T', ' ']).unwrap_or_default();
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    matches!(clock, "00:00" | "00:00:00") && fraction.bytes().all(|byte| byte == b'0')
}

/// Returns whether a text means the same time as its formatted value. Seconds and zeros of a fraction can be omitted.
fn same_time(text: &str, value: &str) -> bool {
    let plain = |text: &str| {
        let text = text.replace('T', " ");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
        if text.matches(':').count() == 1 { text + ":00" } else { text }
    };
    plain(text) == plain(value)
}

/// Finds values that a target cannot store.
fn out_of_range(values: &ArrayRef, significant_digits: Option<u8>, lost: &mut [CastLoss]) {
    match values.data_type() {
        DataType::Date32 => mark::<Date32Type>(values, lost, CastLoss::Value, |day| !DAYS.contains(&day)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let day = |time: i64| time.div_euclid(MICROSECONDS_A_DAY);
            let years = i64::from(DAYS.start)..i64::from(DAYS.end);
            mark::<TimestampMicrosecondType>(values, lost, CastLoss::Value, |time| !years.contains(&day(time)));
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            mark::<Time64MicrosecondType>(values, lost, CastLoss::Value, |time| {
                !(0..MICROSECONDS_A_DAY).contains(&time)
            });
        }
        DataType::Float64 => mark::<Float64Type>(values, lost, CastLoss::Value, |value| !value.is_finite()),
        DataType::Decimal128(_, scale) => {
            let unit = 10_i128.pow(scale.max(&0).unsigned_abs().into());
            let whole = |value: i128| value % unit == 0 && i64::try_from(value / unit).is_ok();
            let Some(limit) = significant_digits.map(|digits| 10_u128.pow(digits.into())) else { return };
            mark::<Decimal128Type>(values, lost, CastLoss::Digits, |value| {
                let mut digits = value.unsigned_abs();
                while digits >= limit && digits.is_multiple_of(10) {
                    digits /= 10;
                }
                digits >= limit && !whole(value)
            });
        }
        _ => {}
    }
}

fn mark<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    lost: &mut [CastLoss],
    as_what: CastLoss,
    bad: impl Fn(T::Native) -> bool,
) {
    let values: &PrimitiveArray<T> = values.as_primitive();
    for (row, value) in values.iter().enumerate() {
        if value.is_some_and(&bad) {
            lost[row] = as_what;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    /// The rows of texts that have no value of a type.
    fn refused(to: &DataType, values: &[&str]) -> Vec<usize> {
        let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
        convert(&texts(&values), to, None).unwrap().no_value
    }

    #[test]
    fn a_decimal_is_never_rounded() {
        let values = [
            Some("12.30"),
            Some("12.345"),
            Some("12.340"),
            Some("123456"),
            Some("abc"),
            None,
            Some("-0.1"),
            Some("1e-5"),
        ];
        let found = convert(&texts(&values), &DataType::Decimal128(5, 2), None).unwrap();
        assert_eq!(found.too_precise, [1, 3, 7]);
        assert_eq!(found.no_value, [4]);
        let kept: Vec<_> = found.values.as_primitive::<Decimal128Type>().iter().collect();
        assert_eq!(kept, [Some(1230), None, Some(1234), None, None, None, Some(-10), None]);
    }

    #[test]
    fn a_decimal_with_more_digits_than_the_target_keeps_is_found() {
        let values = texts(&[
            Some("123456.5"),
            Some("1234567890123.123"),
            Some("1234567890123456"),
            Some("12345678901234567.5"),
        ]);
        assert_eq!(convert(&values, &DataType::Decimal128(30, 10), Some(15)).unwrap().too_precise, [1, 3]);
        assert_eq!(convert(&values, &DataType::Decimal128(30, 10), None).unwrap().too_precise, [0; 0]);
    }

    #[test]
    fn a_cast_that_would_change_a_number_or_a_time_has_no_value() {
        let no_value = |values: ArrayRef, to: &DataType| convert(&values, to, None).unwrap().no_value;
        assert_eq!(no_value(Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), None])), &DataType::Int64), [1]);
        assert_eq!(no_value(Arc::new(Int64Array::from(vec![(1 << 53) + 1, 1 << 53])), &DataType::Float64), [0]);
        let times = TimestampMicrosecondArray::from(vec![86_400_000_000, 1]);
        assert_eq!(no_value(Arc::new(times), &DataType::Date32), [1]);
        let decimals = Decimal128Array::from(vec![12345, 12300]).with_precision_and_scale(10, 4).unwrap();
        let found = convert(&(Arc::new(decimals) as ArrayRef), &DataType::Decimal128(10, 2), None).unwrap();
        assert_eq!(found.too_precise, [0]);
    }

    #[test]
    fn date_or_time_of_more_precision_has_no_value() {
        let days = [
            "2024-02-29",
            "2024-02-29T00:00:00",
            "2023-02-29",
            "2024-01-01 12:34:56",
            "2024-01-01T00:30:00+02:00",
            "x",
            "",
        ];
        assert_eq!(refused(&DataType::Date32, &days), [2, 3, 4, 5, 6]);
        let times = [
            "2024-01-01T10:20:30",
            "2024-01-01 10:20:30.123456",
            "2024-01-01 10:20:30.120000",
            "2024-01-01",
            "2024-01-01T00:00:00+02:00",
            "2024-01-01T00:00:00Z",
            "2024-01-01 00:00:00.123456789",
            "2016-12-31 23:59:60",
        ];
        assert_eq!(refused(&DataType::Timestamp(TimeUnit::Microsecond, None), &times), [4, 5, 6, 7]);
        let clocks =
            ["10:20:30", "10:20", "10:20:30.5", "120000", "10:20:30.123456789", "23:59:60", "10:00:60", "10:00:60.5"];
        assert_eq!(refused(&DataType::Time64(TimeUnit::Microsecond), &clocks), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn years_have_four_digits() {
        let days: ArrayRef =
            Arc::new(Date32Array::from(vec![DAYS.start - 1, DAYS.start, DAYS.end - 1, DAYS.end, i32::MAX]));
        assert_eq!(convert(&days, &DataType::Date32, None).unwrap().no_value, [0, 3, 4]);
        let time = |day: i32| i64::from(day) * MICROSECONDS_A_DAY;
        let times = TimestampMicrosecondArray::from(vec![
            time(DAYS.start) - 1,
            time(DAYS.start),
            time(DAYS.end) - 1,
            time(DAYS.end),
        ]);
        let times: ArrayRef = Arc::new(times);
        assert_eq!(convert(&times, times.data_type(), None).unwrap().no_value, [0, 3]);
    }

    #[test]
    fn a_time_with_a_zone_says_its_offset() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let taken = ["2024-05-01T10:00:00Z", "2024-05-01 10:00:00.250000+02:00", "2024-05-01T10:00:00-05:30"];
        assert_eq!(refused(&zoned, &taken), Vec::<usize>::new());
        let values = convert(&texts(&[Some(taken[1])]), &zoned, None).unwrap().values;
        assert_eq!(display_value(values.as_ref(), 0), "2024-05-01T08:00:00.250Z");
        assert_eq!(
            refused(
                &zoned,
                &["2024-05-01 10:00:00", "2024-05-01", "2024-05-01T10:00:00.1234567Z", "2024-06-30T23:59:60Z"]
            ),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn a_wide_decimal_loses_no_digit() {
        let wide = DataType::Decimal256(76, 38);
        let many = format!("0.{}", "1".repeat(39));
        let found = convert(&texts(&[Some("12.50"), Some(&many), Some("1e-39"), Some("x")]), &wide, None).unwrap();
        assert_eq!((found.too_precise, found.no_value), (vec![1, 2], vec![3]));
    }

    #[test]
    fn a_float_is_finite_has_one_zero_and_keeps_integers() {
        let values = texts(&[
            Some("1e309"),
            Some("nan"),
            Some("-0.0"),
            Some("9007199254740993"),
            Some("9007199254740992"),
            Some("0.1"),
        ]);
        let found = convert(&values, &DataType::Float64, None).unwrap();
        assert_eq!(found.no_value, [0, 1, 3]);
        assert!(found.values.as_primitive::<Float64Type>().value(2).is_sign_positive());
    }

    #[test]
    fn a_text_that_underflows_has_no_value_as_a_float() {
        let texts = ["1e-400", "-1e-324", "1.23456789e-320", "5e-324", "1.2347e-320", "0e-999", "0.000", "2.5e-308"];
        assert_eq!(refused(&DataType::Float64, &texts), [0, 1, 2]);
    }

    #[test]
    fn a_float_becomes_the_decimal_that_it_is_written_as() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 1.1, 1e19, -2.5e-3, 1.005, f64::NAN, 1e300]));
        let found = convert(&doubles, &DataType::Decimal128(38, 18), None).unwrap();
        let shown: Vec<_> = (0..5).map(|row| display_value(found.values.as_ref(), row)).collect();
        let zeros = |text: &str, count: usize| format!("{text}{}", "0".repeat(count));
        let expected = [
            zeros("0.1", 17),
            zeros("1.1", 17),
            zeros("10000000000000000000.", 18),
            zeros("-0.0025", 14),
            zeros("1.005", 15),
        ];
        assert_eq!(shown, expected);
        assert_eq!((found.no_value, found.too_precise), (vec![5], vec![6]));
        let found = convert(&doubles, &DataType::Decimal128(14, 2), None).unwrap();
        assert_eq!(found.too_precise, [2, 3, 4, 6]);
        let singles: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.1), None, Some(16_777_216.0)]));
        let found = convert(&singles, &DataType::Decimal256(76, 38), None).unwrap();
        assert_eq!(display_value(found.values.as_ref(), 0), zeros("0.1", 37));
        assert_eq!((found.values.null_count(), found.no_value.len()), (1, 0));
    }

    #[test]
    fn nothing_at_all_is_a_value_of_any_type() {
        let nothing = new_null_array(&DataType::Null, 2);
        for to in [DataType::Date32, DataType::Int64, DataType::Boolean, DataType::Binary, DataType::Decimal128(9, 2)] {
            let found = convert(&nothing, &to, None).unwrap();
            assert_eq!((found.values.null_count(), found.no_value.len()), (2, 0), "{to}");
        }
    }

    #[test]
    fn texts_that_are_no_integer_are_found() {
        assert_eq!(refused(&DataType::Int64, &["9223372036854775807", "9223372036854775808", "1.0", ""]), [1, 2, 3]);
    }
}

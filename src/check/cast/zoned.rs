//! Local times and instants, and the reasons why a time cannot be stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use jiff::tz::TimeZone;

use super::convert::convert;
use crate::engine::{instant_of, local_of};
use crate::error::Result;

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Values, and the rows without one with their reasons.
pub(in crate::check) type Localized = (ArrayRef, Vec<(usize, String)>);

/// Converts times to a column with or without a zone, by the time zone that the source sets. Texts with an offset and
/// instants keep their instant in a column with a zone.
pub(in crate::check) fn localized(values: &ArrayRef, to: &DataType, zone: &TimeZone) -> Result<Localized> {
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    match (values.data_type(), to) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Timestamp(_, Some(_))) => {
            let texts = cast(values, &DataType::Utf8)?;
            let with_offset: Vec<bool> =
                texts.as_string::<i32>().iter().map(|text| text.is_some_and(has_offset)).collect();
            let instants = convert(&texts, to, None)?.values;
            let local = convert(&texts, &LOCAL, None)?.values;
            let (converted, mut reasons) = instants_of(&local, zone);
            let instants = instants.as_primitive::<TimestampMicrosecondType>();
            let converted = converted.as_primitive::<TimestampMicrosecondType>();
            let value = |row: usize| {
                let from = if with_offset[row] { instants } else { converted };
                from.is_valid(row).then(|| from.value(row))
            };
            let found: TimestampMicrosecondArray = (0..texts.len()).map(value).collect();
            reasons.retain(|(row, _)| !with_offset[*row]);
            for row in (0..texts.len()).filter(|row| texts.is_valid(*row) && found.is_null(*row)) {
                if reasons.binary_search_by_key(&row, |(row, _)| *row).is_err() {
                    reasons.push((row, reason(&texts, row, &LOCAL).unwrap_or_else(|| "invalid time".into())));
                }
            }
            reasons.sort_by_key(|(row, _)| *row);
            Ok((with_zone(found, to), reasons))
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
            let local = convert(values, &LOCAL, None)?;
            let (instants, mut reasons) = instants_of(&local.values, zone);
            reasons.extend(
                local
                    .no_value
                    .iter()
                    .map(|row| (*row, reason(values, *row, &LOCAL).unwrap_or_else(|| "invalid time".into()))),
            );
            reasons.sort_by_key(|(row, _)| *row);
            Ok((with_zone(instants.as_primitive().clone(), to), reasons))
        }
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None)) => {
            let instants = convert(values, &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), None)?;
            let times = cast_with_options(&instants.values, &DataType::Int64, &safe)?;
            let times = times.as_primitive::<arrow::datatypes::Int64Type>();
            let mut reasons = Vec::new();
            let local: TimestampMicrosecondArray = (0..times.len())
                .map(|row| {
                    let time = times.is_valid(row).then(|| times.value(row))?;
                    local_of(time, zone).map_err(|reason| reasons.push((row, reason))).ok()
                })
                .collect();
            for row in instants.no_value {
                reasons.push((row, reason(values, row, to).unwrap_or_else(|| "invalid time".into())));
            }
            reasons.sort_by_key(|(row, _)| *row);
            Ok((Arc::new(local), reasons))
        }
        _ => Ok((values.clone(), Vec::new())),
    }
}

/// Returns the instants of local times in microseconds.
fn instants_of(local: &ArrayRef, zone: &TimeZone) -> Localized {
    let local = local.as_primitive::<TimestampMicrosecondType>();
    let mut reasons = Vec::new();
    let instants: TimestampMicrosecondArray = (0..local.len())
        .map(|row| {
            let time = local.is_valid(row).then(|| local.value(row))?;
            instant_of(time, zone).map_err(|reason| reasons.push((row, reason))).ok()
        })
        .collect();
    (Arc::new(instants), reasons)
}

fn with_zone(values: TimestampMicrosecondArray, to: &DataType) -> ArrayRef {
    match to {
        DataType::Timestamp(_, zone) => Arc::new(values.with_timezone_opt(zone.clone())),
        _ => Arc::new(values),
    }
}

/// Returns whether a text ends with an offset from UTC.
pub(super) fn has_offset(text: &str) -> bool {
    let clock = text.split_once(['T', 't', ' ']).map_or("", |(_, clock)| clock);
    clock.contains(['Z', 'z', '+', '-'])
}

/// Returns the reason why a value cannot be cast to a type of times, if it is known.
pub(in crate::check) fn reason(values: &ArrayRef, row: usize, to: &DataType) -> Option<String> {
    if !matches!(to, DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_)) || values.is_null(row) {
        return None;
    }
    let is_zoned = matches!(to, DataType::Timestamp(_, Some(_)));
    match values.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(&values.slice(row, 1), &DataType::Utf8).ok()?;
            let text = texts.as_string::<i32>().value(0);
            let fraction = text.rsplit_once('.').map_or("", |(_, rest)| rest);
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let year = text.bytes().take_while(u8::is_ascii_digit).count();
            let is_date = text.as_bytes().get(year) == Some(&b'-');
            if !matches!(to, DataType::Date32) && digits > 6 && fraction[6..digits].bytes().any(|byte| byte != b'0') {
                return Some("the time has nanoseconds; microseconds are the limit".into());
            }
            if is_date && year > 4 {
                return Some("the time is outside the years 1–9999".into());
            }
            if is_date && year < 4 {
                return Some("the year has fewer than four digits".into());
            }
            if is_zoned && is_date && !has_offset(text) {
                return Some("a time without an offset; set `timezone` of the source".into());
            }
            if !is_zoned && has_offset(text) {
                return Some("the column has no time zone, so the offset would be lost".into());
            }
            None
        }
        DataType::Timestamp(unit, _) | DataType::Time64(unit) => {
            let number = cast(&values.slice(row, 1), &DataType::Int64).ok()?;
            let number = number.as_primitive::<arrow::datatypes::Int64Type>().value(0);
            match (unit, to) {
                (_, DataType::Date32) => Some("the time is not midnight, and a date has no time".into()),
                (TimeUnit::Nanosecond, _) if number % 1000 != 0 => {
                    Some("the time has nanoseconds; microseconds are the limit".into())
                }
                _ => Some("the time is outside the years 1–9999".into()),
            }
        }
        DataType::Date32 | DataType::Date64 => Some("the date is outside the years 1–9999".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampNanosecondArray};

    use super::*;
    use crate::engine::{display_value, zone_of};

    fn instant() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn shown(values: &ArrayRef, to: &DataType) -> Vec<String> {
        let (found, reasons) = localized(values, to, &zone_of("Europe/Berlin").unwrap()).unwrap();
        let value = |row: usize| match reasons.iter().find(|(other, _)| *other == row) {
            Some((_, reason)) => reason.clone(),
            None => display_value(found.as_ref(), row),
        };
        (0..found.len()).map(value).collect()
    }

    #[test]
    fn local_texts_become_instants_and_offsets_stay_what_they_are() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            "2020-01-15 12:00:00",
            "2020-03-29 02:30:00",
            "2020-10-25 02:30:00",
            "2020-06-19 06:15:00+02:00",
            "2020-06-19 06:15:00.123456789",
            "soon",
        ]));
        assert_eq!(
            shown(&texts, &instant()),
            [
                "2020-01-15T11:00:00Z",
                "daylight saving skips this local time in Europe/Berlin",
                "daylight saving repeats this local time in Europe/Berlin",
                "2020-06-19T04:15:00Z",
                "the time has nanoseconds; microseconds are the limit",
                "invalid time",
            ]
        );
    }

    #[test]
    fn typed_times_follow_the_zone_as_texts_do() {
        let local: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_579_089_600_000_000_000, 1]));
        let nanoseconds = "the time has nanoseconds; microseconds are the limit";
        assert_eq!(shown(&local, &instant()), ["2020-01-15T11:00:00Z", nanoseconds]);
        let zoned: ArrayRef = Arc::new(
            TimestampNanosecondArray::from(vec![1_579_089_600_000_000_000, 1]).with_timezone("America/New_York"),
        );
        assert_eq!(shown(&zoned, &LOCAL), ["2020-01-15T13:00:00", nanoseconds]);
    }
}

//! Local times and instants: `AT TIME ZONE`, and the time zones of sources.
//!
//! A local time becomes an instant only if it is exactly one: daylight saving skips some local times and repeats others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// An instant with microseconds, as targets store it.
pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

/// A local time with microseconds.
const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Returns the instant of a local time in a zone, both in microseconds since 1970.
///
/// # Errors
/// Returns the reason if the local time does not exist or is ambiguous in its zone.
pub fn instant_of(local: i64, zone: &TimeZone) -> std::result::Result<i64, String> {
    let out_of_range = || "the time is outside the years 1–9999".to_owned();
    let time = jiff::Timestamp::from_microsecond(local).map_err(|_| out_of_range())?;
    let time = TimeZone::UTC.to_datetime(time);
    let name = zone.iana_name().unwrap_or("the zone");
    let offset = match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Gap { .. } => return Err(format!("daylight saving skips this local time in {name}")),
        AmbiguousOffset::Fold { .. } => return Err(format!("daylight saving repeats this local time in {name}")),
    };
    Ok(local - i64::from(offset.seconds()) * 1_000_000)
}

/// Returns the local time of an instant in a zone, both in microseconds since 1970.
///
/// # Errors
/// Returns the reason if the result is outside the years that a local time can have.
pub fn local_of(instant: i64, zone: &TimeZone) -> std::result::Result<i64, String> {
    let out_of_range = || "the time is outside the years 1–9999".to_owned();
    let time = jiff::Timestamp::from_microsecond(instant).map_err(|_| out_of_range())?;
    let local: civil::DateTime = zone.to_datetime(time);
    let local = TimeZone::UTC.to_timestamp(local).map_err(|_| out_of_range())?;
    Ok(local.as_microsecond())
}

/// The function in place of `x AT TIME ZONE 'zone'`: the instant of a local time. An instant keeps its value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    zone: String,
    signature: Signature,
}

/// Returns an expression with the function in place of `AT TIME ZONE`.
///
/// # Errors
/// Returns an error for an unknown zone.
pub(super) fn rewrite(part: Expr) -> Result<datafusion::common::tree_node::Transformed<Expr>> {
    use datafusion::common::tree_node::Transformed;
    match part {
        Expr::Cast(Cast { expr, field }) => match field.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) if zone_of(zone).is_some() => {
                let function =
                    AtTimeZone { zone: zone.to_string(), signature: Signature::any(1, Volatility::Immutable) };
                let function = Arc::new(ScalarUDF::from(function));
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![*expr]))))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) => exec_err!("unknown time zone `{zone}`"),
            _ => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
        },
        part => Ok(Transformed::no(part)),
    }
}

/// Returns the zone of a name such as `Europe/Berlin`, or of an offset such as `+02:00`.
pub fn zone_of(name: &str) -> Option<TimeZone> {
    if let Ok(zone) = TimeZone::get(name) {
        return Some(zone);
    }
    let (sign, digits) =
        name.strip_prefix('+').map(|rest| (1, rest)).or_else(|| name.strip_prefix('-').map(|rest| (-1, rest)))?;
    let (hours, minutes) = digits.split_once(':')?;
    let seconds = hours.parse::<i32>().ok()?.checked_mul(3600)? + minutes.parse::<i32>().ok()?.checked_mul(60)?;
    jiff::tz::Offset::from_seconds(sign * seconds).ok().map(TimeZone::fixed)
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &'static str {
        "at_time_zone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(instant())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(zone) = zone_of(&self.zone) else { return exec_err!("unknown time zone `{}`", self.zone) };
        let values = args.args[0].to_array(args.number_rows)?;
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let with_offset = matches!(values.data_type(), DataType::Timestamp(_, Some(_)));
        let times = if with_offset {
            cast_with_options(&values, &instant(), &strict)?
        } else {
            let local = microseconds(&values)?;
            let local = local.as_primitive::<TimestampMicrosecondType>();
            let mut instants = Vec::with_capacity(local.len());
            for row in 0..local.len() {
                instants.push(match local.is_valid(row) {
                    true => match instant_of(local.value(row), &zone) {
                        Ok(instant) => Some(instant),
                        Err(reason) => return exec_err!("{reason}"),
                    },
                    false => None,
                });
            }
            Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("+00:00"))
        };
        Ok(ColumnarValue::Array(times))
    }
}

/// Returns local times with microseconds; fails if a time has more digits, or a text an offset.
fn microseconds(values: &ArrayRef) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    if let DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View = values.data_type() {
        let texts = arrow::compute::cast(values, &DataType::Utf8)?;
        for text in texts.as_string::<i32>().iter().flatten() {
            let clock = text.get(10..).unwrap_or_default();
            if clock.contains(['+', '-', 'Z', 'z']) {
                return exec_err!("`{text}` has an offset, so `AT TIME ZONE` does not apply to it");
            }
        }
    }
    let local = cast_with_options(values, &LOCAL, &strict)?;
    if values.data_type() == &DataType::Timestamp(TimeUnit::Nanosecond, None) {
        let back = cast_with_options(&local, values.data_type(), &strict)?;
        if back.as_ref() != values.as_ref() {
            return exec_err!("the time has nanoseconds; microseconds are the limit");
        }
    }
    Ok(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        format!("{text}Z").parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn a_skipped_or_repeated_local_time_is_no_instant() {
        let berlin = zone_of("Europe/Berlin").unwrap();
        for (local, instant) in [
            ("2020-01-15T12:00:00", Ok("2020-01-15T11:00:00")),
            ("2020-07-15T12:00:00.000001", Ok("2020-07-15T10:00:00.000001")),
            ("2020-03-29T02:30:00", Err("daylight saving skips this local time in Europe/Berlin")),
            ("2020-10-25T02:30:00", Err("daylight saving repeats this local time in Europe/Berlin")),
        ] {
            let expected = instant.map(micros).map_err(str::to_owned);
            assert_eq!(instant_of(micros(local), &berlin), expected, "{local}");
            if let Ok(instant) = expected {
                assert_eq!(local_of(instant, &berlin), Ok(micros(local)));
            }
        }
    }

    #[test]
    fn a_zone_is_a_name_or_an_offset() {
        assert!(zone_of("Europe/Berlin").is_some() && zone_of("UTC").is_some());
        assert_eq!(
            instant_of(micros("2020-01-15T12:00:00"), &zone_of("+05:30").unwrap()),
            Ok(micros("2020-01-15T06:30:00"))
        );
        assert!(zone_of("Berlin").is_none() && zone_of("").is_none());
    }
}

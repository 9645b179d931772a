//! Casts of the components of arrays, ranges, and composite values: each by the rules of a value of its own.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use jiff::tz::TimeZone;

use super::convert::convert;
use super::float::keeps;
use super::zoned::{Localized, has_offset, localized, reason};
use crate::engine::display_value;
use crate::error::Result;
use crate::target::{CatalogColumn, Component, LogicalType, Range, elements, fields, multirange, range};

/// Returns whether a logical type keeps each component of a text.
pub(super) fn keeps_components(form: &LogicalType, text: &str) -> bool {
    match form {
        LogicalType::Array(element) => {
            let (data_type, form) = element.as_ref();
            elements(text).is_some_and(|elements| keeps_elements(data_type, form, elements))
        }
        _ => components(form, text).is_some_and(|all| all.iter().all(|(component, text)| is_kept(component, text))),
    }
}

fn keeps_elements(data_type: &DataType, form: &LogicalType, elements: Vec<Option<String>>) -> bool {
    if *data_type == DataType::Utf8 {
        return elements.iter().flatten().all(|text| keeps_components(form, text));
    }
    let texts: ArrayRef = Arc::new(StringArray::from_iter(&elements));
    let converted = (*data_type != DataType::Binary).then(|| convert(&texts, data_type, None));
    match converted {
        Some(Ok(converted)) if converted.no_value.is_empty() && converted.too_precise.is_empty() => {
            let floats = converted.values.as_primitive_opt::<Float64Type>();
            let is_kept = |(row, text): (usize, &Option<String>)| match (text, floats) {
                (Some(text), Some(floats)) => keeps(text, floats.value(row), true),
                _ => true,
            };
            *form != LogicalType::Single || elements.iter().enumerate().all(is_kept)
        }
        Some(_) => false,
        None => true,
    }
}

/// Returns the bounds of a range, or the values of a composite literal, with their types. Returns None for an invalid literal.
fn components<'a>(form: &'a LogicalType, text: &str) -> Option<Vec<(&'a Component, String)>> {
    let of_ranges = |component: &'a Component, ranges: Vec<Range>| {
        let bounds = ranges.into_iter().flat_map(|mut range| range.bounds().map(std::mem::take).collect::<Vec<_>>());
        bounds.map(|bound| (component, bound)).collect()
    };
    Some(match form {
        LogicalType::Range(bound) => of_ranges(bound, vec![range(text)?]),
        LogicalType::Multirange(bound) => of_ranges(bound, multirange(text)?),
        LogicalType::Composite(columns) => {
            columns.iter().zip(fields(text)?).filter_map(|(column, text)| Some((column, text?))).collect()
        }
        _ => Vec::new(),
    })
}

fn is_kept(component: &Component, text: &str) -> bool {
    if is_unlimited(&component.data_type, text) {
        return true;
    }
    let shown = if component.form == LogicalType::Padded { text.trim_end_matches(' ') } else { text };
    let is_short = component.max_length.is_none_or(|most| shown.chars().count() as u64 <= most);
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.len() - fraction.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let digits = fraction[..digits].trim_end_matches('0').len();
    let has_form = component.data_type != DataType::Utf8 || component.form.canonical(text).is_some();
    is_short
        && component.digits.is_none_or(|most| digits <= most as usize)
        && has_form
        && keeps_elements(&component.data_type, &component.form, vec![Some(with_seconds(&component.data_type, text))])
}

/// Returns a time with its seconds, which a server adds if a text has none.
fn with_seconds(data_type: &DataType, text: &str) -> String {
    let clock = text.find(['T', 't', ' ']).map(|at| at + 1).filter(|_| matches!(data_type, DataType::Timestamp(..)));
    let Some((date, clock)) = clock.and_then(|at| text.split_at_checked(at)) else { return text.to_owned() };
    match clock.split_at_checked(5) {
        Some((minutes, rest)) if minutes.as_bytes()[2] == b':' && !rest.starts_with([':', '.']) => {
            format!("{date}{minutes}:00{rest}")
        }
        _ => text.to_owned(),
    }
}

/// Returns whether a text is a value beyond all others, which the server keeps.
fn is_unlimited(data_type: &DataType, text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    match data_type {
        DataType::Date32 | DataType::Timestamp(..) => matches!(text.as_str(), "infinity" | "-infinity"),
        DataType::Float64 => matches!(text.as_str(), "infinity" | "-infinity" | "nan"),
        DataType::Decimal128(..) | DataType::Decimal256(..) => text == "nan",
        _ => false,
    }
}

/// Returns the reason why a value cannot be cast to a column, if it is known.
pub(in crate::check) fn loss_reason(values: &ArrayRef, row: usize, column: &CatalogColumn) -> Option<String> {
    if values.is_valid(row) && column.data_type == DataType::Utf8 {
        let texts = super::text(&values.slice(row, 1));
        return component_reason(&column.form, texts.as_string::<i32>().value(0));
    }
    reason(values, row, &column.data_type)
}

/// Returns the reason why a logical type does not keep a component of a text, if it is known.
fn component_reason(form: &LogicalType, text: &str) -> Option<String> {
    let known = |data_type: &DataType, text: &str| {
        let values: ArrayRef = Arc::new(StringArray::from(vec![text]));
        reason(&values, 0, data_type).map(|reason| format!("`{text}`: {reason}"))
    };
    // The time zone of the source is that of scalar values and ranges.
    let in_no_zone = |reason: String| reason.replace("; set `timezone` of the source", "; write it with its offset");
    match form {
        LogicalType::Array(element) => {
            let (data_type, form) = element.as_ref();
            let is_lost = |text: &String| !keeps_elements(data_type, form, vec![Some(text.clone())]);
            let lost = elements(text)?.into_iter().flatten().find(is_lost)?;
            match data_type {
                DataType::Utf8 => component_reason(form, &lost).map(in_no_zone),
                _ => known(data_type, &lost).map(in_no_zone),
            }
        }
        _ => {
            let is_lost = |(component, text): &(&Component, String)| !is_kept(component, text);
            let (component, lost) = components(form, text)?.into_iter().find(is_lost)?;
            let reason = known(&component.data_type, &lost);
            let reason = reason.unwrap_or_else(|| format!("`{lost}`: the type of this part does not keep it"));
            Some(if matches!(form, LogicalType::Composite(_)) { in_no_zone(reason) } else { reason })
        }
    }
}

/// Converts the bounds of ranges without an offset to instants, by the time zone that the source sets.
pub(in crate::check) fn localized_bounds(values: &ArrayRef, form: &LogicalType, zone: &TimeZone) -> Result<Localized> {
    let (LogicalType::Range(bound) | LogicalType::Multirange(bound)) = form else {
        return Ok((values.clone(), Vec::new()));
    };
    if !matches!(bound.data_type, DataType::Timestamp(_, Some(_))) {
        return Ok((values.clone(), Vec::new()));
    }
    let texts = super::text(values);
    let texts = texts.as_string::<i32>();
    let mut reasons = Vec::new();
    let mut found: Vec<Option<Cow<'_, str>>> = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        let Some(text) = texts.is_valid(row).then(|| texts.value(row)) else {
            found.push(None);
            continue;
        };
        match with_offsets(form, bound, text, zone)? {
            Ok(text) => found.push(Some(text)),
            Err(reason) => {
                reasons.push((row, reason));
                found.push(None);
            }
        }
    }
    Ok((Arc::new(StringArray::from_iter(found)), reasons))
}

/// Returns a literal whose bounds have offsets, or the reason why a bound has no instant.
fn with_offsets<'a>(
    form: &LogicalType,
    bound: &Component,
    text: &'a str,
    zone: &TimeZone,
) -> Result<std::result::Result<Cow<'a, str>, String>> {
    let is_many = matches!(form, LogicalType::Multirange(_));
    let ranges = if is_many { multirange(text) } else { range(text).map(|range| vec![range]) };
    let Some(mut ranges) = ranges else { return Ok(Ok(Cow::Borrowed(text))) };
    let mut is_changed = false;
    for bound_text in ranges.iter_mut().flat_map(|range| range.bounds().collect::<Vec<_>>()) {
        if is_unlimited(&bound.data_type, bound_text) || has_offset(bound_text) {
            continue;
        }
        let local: ArrayRef = Arc::new(StringArray::from(vec![with_seconds(&bound.data_type, bound_text)]));
        let (instant, reasons) = localized(&local, &bound.data_type, zone)?;
        if let Some((_, reason)) = reasons.into_iter().next() {
            return Ok(Err(format!("`{bound_text}`: {reason}")));
        }
        *bound_text = display_value(instant.as_ref(), 0);
        is_changed = true;
    }
    if !is_changed {
        return Ok(Ok(Cow::Borrowed(text)));
    }
    let all: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    Ok(Ok(Cow::Owned(if is_many { format!("{{{}}}", all.join(",")) } else { all.concat() })))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;
    use crate::engine::zone_of;

    fn component(data_type: DataType, form: LogicalType) -> Component {
        Component { data_type, form, max_length: None, digits: None }
    }

    fn moment() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn range_of(data_type: DataType) -> LogicalType {
        LogicalType::Range(Box::new(component(data_type, LogicalType::Plain)))
    }

    #[test]
    fn the_bounds_of_a_range_follow_the_rules_of_their_type() {
        let local = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (data_type, text, kept) in [
            (moment(), "[2020-01-01 10:00+02,2020-01-02T00:00:00Z)", true),
            (moment(), "[2020-01-01 10:00:00+02,infinity)", true),
            (moment(), "(,)", true),
            (moment(), "empty", true),
            (moment(), "[2020-01-01 10:00,)", false),
            (moment(), "[2020-01-01 10:00:00.1234567+00,)", false),
            (moment(), "[2020-01-01 10:00:60+00,)", false),
            (moment(), "[now,)", false),
            (local.clone(), "[2020-01-01 10:00,2020-01-02)", true),
            (local.clone(), "[\"2020-01-01 10:00:00.5\",)", true),
            (local.clone(), "[2020-01-01 10:00+05,)", false),
            (local.clone(), "[01/02/2020,)", false),
            (local, "[2020-01-01T00:00:60,)", false),
            (DataType::Date32, "[2020-01-01,2020-01-31]", true),
            (DataType::Date32, "[2020-01-01 10:00,)", false),
            (DataType::Date32, "[today,tomorrow)", false),
            (DataType::Date32, "[,yesterday)", false),
            (DataType::Date32, "[-infinity,epoch)", false),
        ] {
            assert_eq!(keeps_components(&range_of(data_type), text), kept, "{text}");
        }
        let many = LogicalType::Multirange(Box::new(component(moment(), LogicalType::Plain)));
        assert!(keeps_components(&many, "{[2020-01-01 10:00Z,2020-01-02 00:00Z),empty}"));
        assert!(!keeps_components(&many, "{[2020-01-01 10:00Z,2020-01-02 00:00)}"));
        let reason = component_reason(&range_of(moment()), "[2020-01-01 10:00,)").unwrap();
        assert_eq!(reason, "`2020-01-01 10:00`: a time without an offset; set `timezone` of the source");
    }

    #[test]
    fn the_columns_of_a_composite_value_follow_their_types() {
        let form = LogicalType::Composite(vec![
            component(DataType::Decimal128(5, 2), LogicalType::Plain),
            Component {
                digits: Some(0),
                ..component(DataType::Timestamp(TimeUnit::Microsecond, None), LogicalType::Plain)
            },
            Component { max_length: Some(3), ..component(DataType::Utf8, LogicalType::Opaque) },
            component(moment(), LogicalType::Plain),
            component(DataType::Float64, LogicalType::Single),
        ]);
        for (text, kept) in [
            ("(1.20,\"2020-01-01 10:00:00\",abc,\"2020-01-01 10:00:00Z\",0.1)", true),
            ("(,,,,)", true),
            ("(1.234,,,,)", false),
            ("(,\"2020-01-01 10:00:00.6\",,,)", false),
            ("(,,\"abc \",,)", false),
            ("(,,,\"2020-01-01 10:00\",)", false),
            ("(,,,,16777217)", false),
            ("(,,,,", false),
        ] {
            assert_eq!(keeps_components(&form, text), kept, "{text}");
        }
        let nested = LogicalType::Array(Box::new((DataType::Utf8, form)));
        assert!(keeps_components(&nested, "{\"(1.23,,,,)\"}"));
        assert!(!keeps_components(&nested, "{\"(1.234,,,,)\",NULL}"));
    }

    #[test]
    fn elements_of_an_array_are_not_rounded() {
        let singles = LogicalType::Array(Box::new((DataType::Float64, LogicalType::Single)));
        assert!(keeps_components(&singles, "{0.1,NULL,16777216}"));
        assert!(!keeps_components(&singles, "{0.1,16777217}"));
        let times = LogicalType::Array(Box::new((DataType::Time64(TimeUnit::Microsecond), LogicalType::Plain)));
        assert!(keeps_components(&times, "{10:00,10:00:59}"));
        assert!(!keeps_components(&times, "{10:00:60}"));
    }

    #[test]
    fn bounds_without_an_offset_are_in_the_zone_of_the_source() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            Some("[2020-07-01 10:00,2020-07-02 10:00+00)"),
            Some("[2020-03-29 02:30:00,)"),
            Some("[,infinity]"),
            None,
            Some("empty"),
        ]));
        let zone = zone_of("Europe/Berlin").unwrap();
        let (found, reasons) = localized_bounds(&texts, &range_of(moment()), &zone).unwrap();
        let shown: Vec<_> = found.as_string::<i32>().iter().collect();
        let expected = Some("[\"2020-07-01T08:00:00Z\",\"2020-07-02 10:00+00\")");
        assert_eq!(shown, [expected, None, Some("[,infinity]"), None, Some("empty")]);
        let skipped = "`2020-03-29 02:30:00`: daylight saving skips this local time in Europe/Berlin";
        assert_eq!(reasons, [(1, skipped.to_owned())]);
    }
}

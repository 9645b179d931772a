//! Conversion of values between Arrow arrays and SQLite.
//!
//! SQLite has five storage classes; the meaning of a column's declared type beyond them is a convention. This module defines it: dates and
//! times are ISO 8601 text, booleans are 0 and 1, decimals are numbers.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder,
    RecordBatch, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{DataType, Date32Type, SchemaRef, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType};
use rusqlite::types::ValueRef;

use crate::error::{Error, Result};

/// Returns the Arrow type of a declared type, by SQLite's affinity rules (<https://www.sqlite.org/datatype3.html>) and the usual type
/// names.
pub(super) fn data_type(declared: &str) -> DataType {
    let name = declared.to_ascii_uppercase();
    let base = name.split('(').next().unwrap_or_default().trim();
    let numbers = arguments(&name);
    match base {
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "DATE" => DataType::Date32,
        "TIME" => DataType::Time64(TimeUnit::Microsecond),
        "DECIMAL" | "NUMERIC" if !numbers.is_empty() => {
            let precision = numbers[0].clamp(1, 38) as u8;
            DataType::Decimal128(precision, numbers.get(1).copied().unwrap_or(0).min(precision.into()) as i8)
        }
        _ if base.starts_with("TIMESTAMP") || base.starts_with("DATETIME") => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        _ if base.contains("INT") => DataType::Int64,
        _ if ["CHAR", "CLOB", "TEXT", "STRING", "UUID", "JSON"].iter().any(|word| base.contains(word)) => {
            DataType::Utf8
        }
        _ if base.contains("BLOB") || base.contains("BINARY") => DataType::Binary,
        _ if ["DECIMAL", "NUMERIC"].iter().any(|word| base.contains(word)) => ANY_NUMBER,
        _ if ["REAL", "FLOA", "DOUB"].iter().any(|word| base.contains(word)) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// The numbers of a column without a precision: all integers of 64 bits, and decimals.
const ANY_NUMBER: DataType = DataType::Decimal128(38, 18);

/// The reliable digits of a number with decimals, which is a real of 64 bits (<https://www.sqlite.org/floatingpoint.html>).
pub(super) const REAL_DIGITS: u8 = 15;

/// The conversion that a column applies to values (<https://www.sqlite.org/datatype3.html#determination_of_column_affinity>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// Returns the affinity of a declared type; in a STRICT table, `ANY` has none.
    pub(super) fn of(declared: &str, strict: bool) -> Self {
        let name = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if name.is_empty() || has(&["BLOB"]) || (strict && name == "ANY") {
            Self::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Returns whether text is stored unchanged.
    pub(super) fn keeps_text(self) -> bool {
        matches!(self, Self::Text | Self::Blob)
    }
}

/// Returns whether a text is a date as SQLite stores it: `2025-12-31`.
pub(super) fn is_date(text: &str) -> bool {
    text.len() == 10 && days(text).is_some()
}

/// Returns whether a text is a timestamp as SQLite stores it: `2025-12-31 23:59:59`.
pub(super) fn is_timestamp(text: &str) -> bool {
    text.len() == 19 && text.as_bytes()[10] == b' ' && microseconds(text).is_some()
}

const DAY: i64 = 86_400_000_000;

/// Returns the days since 1970 of a date in the years 0001–9999.
fn days(text: &str) -> Option<i32> {
    let day: jiff::civil::Date = plain(text)?.parse().ok()?;
    jiff::civil::date(1970, 1, 1).until(day).ok().map(|span| span.get_days())
}

fn time(text: &str) -> Option<i64> {
    let time: jiff::civil::Time = text.parse().ok()?;
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some(seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1000)
}

/// Returns the microseconds since 1970 of a timestamp without a time zone.
fn microseconds(text: &str) -> Option<i64> {
    match text.get(10..) {
        None | Some("") => Some(i64::from(days(text)?) * DAY),
        Some(rest) if rest.starts_with([' ', 'T']) && !rest.contains(['+', '-', 'Z', 'z', '[']) => {
            Some(i64::from(days(&text[..10])?) * DAY + time(&rest[1..])?)
        }
        _ => None,
    }
}

/// Returns a date if it has exactly the ten characters of `YYYY-MM-DD`.
fn plain(text: &str) -> Option<&str> {
    let shaped = text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    shaped.then_some(text)
}

/// Returns the limit of a text type: 12 for `VARCHAR(12)`.
pub(super) fn max_length(declared: &str) -> Option<u64> {
    let name = declared.to_ascii_uppercase();
    let inside = name.split_once('(')?.1.split(')').next()?;
    if name.contains("CHAR") { inside.trim().parse().ok() } else { None }
}

fn arguments(declared: &str) -> Vec<u32> {
    let inside = declared.split_once('(').and_then(|(_, rest)| rest.split(')').next()).unwrap_or_default();
    inside.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}

/// Converts a decimal to an integer if it is whole, and to the nearest real otherwise.
pub(super) fn decimal(unscaled: i128, scale: i8) -> ValueRef<'static> {
    let few_digits = i64::try_from(unscaled).ok().filter(|number| number.abs() < 10_i64.pow(DIGITS));
    if let (Some(number), Some(unit)) = (few_digits, unit(scale)) {
        return match number % unit {
            0 => ValueRef::Integer(number / unit),
            // Both are exact, so their quotient is the nearest real.
            _ => ValueRef::Real(number as f64 / unit as f64),
        };
    }
    let unit = 10_i128.pow(scale.max(0).unsigned_abs().into());
    match i64::try_from(unscaled / unit) {
        Ok(whole) if unscaled % unit == 0 => ValueRef::Integer(whole),
        _ => ValueRef::Real(decimal_text(unscaled, scale).parse().unwrap_or(f64::NAN)),
    }
}

/// The number of digits up to which decimals and reals convert exactly in both directions.
const DIGITS: u32 = 15;

/// Returns the smallest units per whole, if that number is an exact real.
fn unit(scale: i8) -> Option<i64> {
    let scale = u32::from(scale.max(0).unsigned_abs());
    (scale <= DIGITS).then(|| 10_i64.pow(scale))
}

/// Formats a decimal: 12345 with scale 2 is `123.45`.
fn decimal_text(unscaled: i128, scale: i8) -> String {
    let scale = usize::from(scale.max(0).unsigned_abs());
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let mut text = String::with_capacity(digits.len() + 2);
    if unscaled < 0 {
        text.push('-');
    }
    text.push_str(whole);
    if scale > 0 {
        let _infallible = write!(text, ".{fraction}");
    }
    text
}

/// Converts a real to a decimal. Its shortest text is the number that was written; digits beyond the scale are rounded.
fn unscaled(number: f64, scale: i8) -> Option<i128> {
    if let Some(unit) = unit(scale) {
        let nearest = (number * unit as f64).round();
        // No other number of so few digits maps to this real, so its text is the same.
        if nearest.abs() < 1e15 && (nearest / unit as f64).to_bits() == number.to_bits() {
            return Some(nearest as i128);
        }
    }
    let scale = usize::from(scale.max(0).unsigned_abs());
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let text = if fraction.len() <= scale {
        format!("{whole}{fraction:0<scale$}")
    } else {
        format!("{number:.scale$}").replace('.', "")
    };
    text.parse().ok()
}

/// A builder of Arrow batches from SQLite's rows.
pub(super) struct Collector {
    schema: SchemaRef,
    columns: Vec<Column>,
}

enum Column {
    Integer(Int64Builder),
    Real(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Blob(BinaryBuilder),
    Decimal(Decimal128Builder, u8, i8),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Collector {
    pub(super) fn try_new(schema: SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter().map(|field| Column::try_new(field.data_type())).collect::<Result<_>>()?;
        Ok(Self { schema, columns })
    }

    /// Adds the next value of a column.
    ///
    /// # Errors
    /// If the value does not match the column's type; the text names no location.
    pub(super) fn push(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), String> {
        let declared = self.schema.field(column).data_type();
        self.columns[column].push(value).ok_or_else(|| format!("`{}` is not a valid {declared}", shown(value)))
    }

    pub(super) fn finish(mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(self.schema, columns)?)
    }
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

impl Column {
    fn try_new(data_type: &DataType) -> Result<Self> {
        Ok(match data_type {
            DataType::Int64 => Self::Integer(Int64Builder::new()),
            DataType::Float64 => Self::Real(Float64Builder::new()),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Blob(BinaryBuilder::new()),
            DataType::Decimal128(precision, scale) => Self::Decimal(Decimal128Builder::new(), *precision, *scale),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            other => return Err(Error::internal(format!("a column of type {other} out of SQLite"))),
        })
    }

    /// Adds a value; None if it does not match the column's type.
    fn push(&mut self, value: ValueRef<'_>) -> Option<()> {
        let text = match value {
            ValueRef::Text(bytes) => Some(std::str::from_utf8(bytes).ok()?),
            _ => None,
        };
        if value == ValueRef::Null {
            self.push_null();
            return Some(());
        }
        match (self, value) {
            (Self::Integer(builder), ValueRef::Integer(number)) => builder.append_value(number),
            (Self::Integer(builder), ValueRef::Text(_)) => builder.append_value(text?.trim().parse().ok()?),
            (Self::Integer(builder), ValueRef::Real(number)) if number.fract() == 0.0 && number.abs() < 9e18 => {
                builder.append_value(number as i64);
            }
            (Self::Real(builder), ValueRef::Real(number)) => builder.append_value(number),
            (Self::Real(builder), ValueRef::Integer(number)) => builder.append_value(number as f64),
            (Self::Boolean(builder), ValueRef::Integer(number @ (0 | 1))) => builder.append_value(number == 1),
            (Self::Text(builder), ValueRef::Text(_)) => builder.append_value(text?),
            (Self::Text(builder), ValueRef::Integer(_) | ValueRef::Real(_)) => builder.append_value(shown(value)),
            (Self::Blob(builder), ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => builder.append_value(bytes),
            (Self::Decimal(builder, _, scale), ValueRef::Integer(number)) => {
                builder.append_value(i128::from(number).checked_mul(10_i128.pow(scale.unsigned_abs().into()))?);
            }
            (Self::Decimal(builder, _, scale), ValueRef::Real(number)) => {
                builder.append_value(unscaled(number, *scale)?);
            }
            // Other notations than this program's own are left to Arrow's parsers.
            (Self::Date(builder), ValueRef::Text(_)) => {
                builder.append_value(days(text?).or_else(|| Date32Type::parse(text?))?);
            }
            (Self::Time(builder), ValueRef::Text(_)) => {
                builder.append_value(time(text?).or_else(|| Time64MicrosecondType::parse(text?))?);
            }
            (Self::Timestamp(builder), ValueRef::Text(_)) => {
                builder.append_value(microseconds(text?).or_else(|| TimestampMicrosecondType::parse(text?))?);
            }
            _ => return None,
        }
        Some(())
    }

    fn push_null(&mut self) {
        match self {
            Self::Integer(builder) => builder.append_null(),
            Self::Real(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Blob(builder) => builder.append_null(),
            Self::Decimal(builder, ..) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Real(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Blob(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, precision, scale) => {
                Arc::new(builder.finish().with_precision_and_scale(*precision, *scale)?)
            }
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::storage_values::StorageBatch;
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Schema};
    use rusqlite::types::ToSqlOutput;

    #[test]
    fn declared_types_mean_what_people_mean_by_them() {
        for (declared, expected) in [
            ("INTEGER", DataType::Int64),
            ("bigint", DataType::Int64),
            ("VARCHAR(12)", DataType::Utf8),
            ("DECIMAL(10,2)", DataType::Decimal128(10, 2)),
            ("NUMERIC(20, 4)", DataType::Decimal128(20, 4)),
            ("DECIMAL(300,2)", DataType::Decimal128(38, 2)),
            ("NUMERIC", ANY_NUMBER),
            ("DOUBLE PRECISION", DataType::Float64),
            ("DATE", DataType::Date32),
            ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("BOOLEAN", DataType::Boolean),
            ("BLOB", DataType::Binary),
            ("", DataType::Utf8),
        ] {
            assert_eq!(data_type(declared), expected, "{declared}");
        }
        assert_eq!(max_length("VARCHAR(12)"), Some(12));
        assert_eq!(max_length("DECIMAL(10,2)"), None);
    }

    #[test]
    fn every_value_comes_back_as_it_went() {
        let decimals = [0, 1, -1, 12345, -12345, 999_999_999_999_999, -999_999_999_999_999, 100];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(arrow::array::Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
            Arc::new(arrow::array::Date32Array::from(vec![Some(0), Some(-800_000), Some(20_000), None])),
            Arc::new(arrow::array::StringArray::from(vec![Some("ä'\"\n"), Some(""), None])),
            Arc::new(arrow::array::BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(arrow::array::Float64Array::from(vec![Some(0.1), Some(-1e300), None])),
            Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![
                Some(0),
                Some(1_700_000_000_123_456),
                Some(-1),
                None,
            ])),
            Arc::new(arrow::array::Time64MicrosecondArray::from(vec![Some(0), Some(86_399_999_999), None])),
            Arc::new(
                arrow::array::Decimal128Array::from_iter_values(decimals).with_precision_and_scale(15, 2).unwrap(),
            ),
            Arc::new(
                arrow::array::Decimal128Array::from_iter_values(decimals).with_precision_and_scale(15, 15).unwrap(),
            ),
        ];
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for array in arrays {
            let schema = Arc::new(Schema::new(vec![Field::new("v", array.data_type().clone(), true)]));
            let mut collector = Collector::try_new(schema).unwrap();
            let stored = StorageBatch::of(std::slice::from_ref(&array)).unwrap();
            for row in 0..array.len() {
                let mut statement = connection.prepare("SELECT ?1").unwrap();
                let mut rows = statement.query([ToSqlOutput::Borrowed(stored.value(0, row))]).unwrap();
                let there = rows.next().unwrap().unwrap().get_ref(0).unwrap();
                assert!(stored.is(0, row, there));
                collector.push(0, there).unwrap();
            }
            assert_eq!(collector.finish().unwrap().column(0), &array);
        }
    }

    #[test]
    fn a_moment_of_any_year_of_four_digits_is_read_and_written() {
        let moment = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (data_type, texts) in [
            (
                moment,
                ["9999-12-31 00:00:00", "9999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "1677-09-21 00:12:43"],
            ),
            (DataType::Date32, ["9999-12-31", "0001-01-01", "1969-12-31", "2024-02-29"]),
            (DataType::Time64(TimeUnit::Microsecond), ["00:00:00", "23:59:59.999999", "12:30:00", "12:30:00.500"]),
        ] {
            let schema = Arc::new(Schema::new(vec![Field::new("v", data_type, true)]));
            let mut collector = Collector::try_new(schema).unwrap();
            for text in texts {
                collector.push(0, ValueRef::Text(text.as_bytes())).unwrap();
            }
            let batch = collector.finish().unwrap();
            let stored = StorageBatch::of_batch(&batch).unwrap();
            for (row, text) in texts.iter().enumerate() {
                assert!(stored.is(0, row, ValueRef::Text(text.as_bytes())), "{text}");
            }
        }
    }

    #[test]
    fn a_moment_in_another_notation_is_read_as_before() {
        let schema =
            Arc::new(Schema::new(vec![Field::new("v", DataType::Timestamp(TimeUnit::Microsecond, None), true)]));
        let mut collector = Collector::try_new(schema).unwrap();
        for text in
            ["2024-01-01T10:00:00", "2024-01-01T11:00:00+01:00", "2024-01-01T10:00:00Z", "2024-01-01 10:00:00.000"]
        {
            collector.push(0, ValueRef::Text(text.as_bytes())).unwrap();
        }
        let batch = collector.finish().unwrap();
        let values = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        assert!(values.values().iter().all(|value| *value == 1_704_103_200_000_000), "{values:?}");
        let schema = batch.schema();
        assert!(Collector::try_new(schema).unwrap().push(0, ValueRef::Text("2024-02-30 10:00:00".as_bytes())).is_err());
    }

    #[test]
    fn a_real_is_the_decimal_of_its_shortest_text() {
        for (number, scale, expected) in [
            (0.1, 18, 100_000_000_000_000_000),
            (0.123_456_789_012_345, 18, 123_456_789_012_345_000),
            (-1.5, 2, -150),
            (0.1 + 0.2, 2, 30),
            (1e20, 2, 10_000_000_000_000_000_000_000),
        ] {
            assert_eq!(unscaled(number, scale), Some(expected), "{number}");
        }
        assert_eq!(unscaled(1e300, 2), None);
    }
}

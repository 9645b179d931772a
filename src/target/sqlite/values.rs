//! Values on their way between Arrow arrays and SQLite.
//!
//! SQLite knows five storage classes; what a column's declared type means beyond them is a convention, and this is the
//! one place that holds it: dates and times are ISO 8601 text, booleans 0 and 1, decimals numbers.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
    Int64Builder, RecordBatch, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, UInt32Type,
};
use arrow::temporal_conversions::{date32_to_datetime, time64us_to_time, timestamp_us_to_datetime};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use crate::error::{Error, Result};

/// The Arrow type of a declared type, after SQLite's affinity rules (<https://www.sqlite.org/datatype3.html>) and the
/// names that people use.
pub(super) fn data_type(declared: &str) -> DataType {
    let name = declared.to_ascii_uppercase();
    let base = name.split('(').next().unwrap_or_default().trim();
    let numbers: Vec<u8> = arguments(&name);
    match base {
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "DATE" => DataType::Date32,
        "TIME" => DataType::Time64(TimeUnit::Microsecond),
        "DECIMAL" | "NUMERIC" if !numbers.is_empty() => {
            // A number of SQLite's keeps 15 digits; a value with more is found by the check of the precision.
            let precision = numbers[0].clamp(1, 15);
            DataType::Decimal128(precision, numbers.get(1).copied().unwrap_or(0).min(precision) as i8)
        }
        _ if base.starts_with("TIMESTAMP") || base.starts_with("DATETIME") => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        _ if base.contains("INT") => DataType::Int64,
        _ if ["CHAR", "CLOB", "TEXT", "STRING", "UUID", "JSON"].iter().any(|word| base.contains(word)) => {
            DataType::Utf8
        }
        _ if base.contains("BLOB") || base.contains("BINARY") => DataType::Binary,
        _ if ["REAL", "FLOA", "DOUB", "DECIMAL", "NUMERIC"].iter().any(|word| base.contains(word)) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// The limit of a text type: 12 of `VARCHAR(12)`.
pub(super) fn max_length(declared: &str) -> Option<u64> {
    let name = declared.to_ascii_uppercase();
    let inside = name.split_once('(')?.1.split(')').next()?;
    if name.contains("CHAR") { inside.trim().parse().ok() } else { None }
}

fn arguments(declared: &str) -> Vec<u8> {
    let inside = declared.split_once('(').and_then(|(_, rest)| rest.split(')').next()).unwrap_or_default();
    inside.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}

/// One value of an array as SQLite stores it.
pub(super) fn cell(array: &dyn Array, row: usize) -> Result<ToSqlOutput<'_>> {
    if array.is_null(row) {
        return Ok(ToSqlOutput::Borrowed(ValueRef::Null));
    }
    Ok(match array.data_type() {
        DataType::Int64 => ToSqlOutput::Borrowed(ValueRef::Integer(array.as_primitive::<Int64Type>().value(row))),
        DataType::UInt32 => {
            ToSqlOutput::Borrowed(ValueRef::Integer(array.as_primitive::<UInt32Type>().value(row).into()))
        }
        DataType::Float64 => ToSqlOutput::Borrowed(ValueRef::Real(array.as_primitive::<Float64Type>().value(row))),
        DataType::Boolean => ToSqlOutput::Borrowed(ValueRef::Integer(array.as_boolean().value(row).into())),
        DataType::Utf8 => ToSqlOutput::Borrowed(ValueRef::Text(array.as_string::<i32>().value(row).as_bytes())),
        DataType::Binary => ToSqlOutput::Borrowed(ValueRef::Blob(array.as_binary::<i32>().value(row))),
        DataType::Decimal128(_, scale) => {
            ToSqlOutput::Owned(decimal(array.as_primitive::<Decimal128Type>().value(row), *scale))
        }
        DataType::Date32 => {
            let date = date32_to_datetime(array.as_primitive::<Date32Type>().value(row));
            owned(date.map(|date| date.format("%Y-%m-%d").to_string()), array, row)?
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let time = time64us_to_time(array.as_primitive::<Time64MicrosecondType>().value(row));
            owned(time.map(|time| time.format("%H:%M:%S%.f").to_string()), array, row)?
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let time = timestamp_us_to_datetime(array.as_primitive::<TimestampMicrosecondType>().value(row));
            owned(time.map(|time| time.format("%Y-%m-%d %H:%M:%S%.f").to_string()), array, row)?
        }
        other => return Err(Error::internal(format!("a value of type {other} on its way to SQLite"))),
    })
}

fn owned<'a>(text: Option<String>, array: &dyn Array, row: usize) -> Result<ToSqlOutput<'a>> {
    let text = text.ok_or_else(|| Error::internal(format!("row {row} holds no valid {}", array.data_type())))?;
    Ok(ToSqlOutput::Owned(Value::Text(text)))
}

/// A decimal as an integer where it is one, else as the nearest real.
fn decimal(unscaled: i128, scale: i8) -> Value {
    let unit = 10_i128.pow(scale.max(0).unsigned_abs().into());
    match i64::try_from(unscaled / unit) {
        Ok(whole) if unscaled % unit == 0 => Value::Integer(whole),
        _ => Value::Real(decimal_text(unscaled, scale).parse().unwrap_or(f64::NAN)),
    }
}

/// A decimal as text: 12345 with scale 2 is `123.45`.
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

/// Builds Arrow batches out of SQLite's rows.
pub(super) struct Collector {
    schema: SchemaRef,
    columns: Vec<Column>,
}

enum Column {
    Integer(Int64Builder),
    Row(UInt32Builder),
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
    /// Where the value is none of the column's type, as text without the place.
    pub(super) fn push(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), String> {
        let declared = self.schema.field(column).data_type();
        self.columns[column].push(value).ok_or_else(|| format!("`{}` is no {declared}", shown(value)))
    }

    /// The rows so far.
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
            DataType::UInt32 => Self::Row(UInt32Builder::new()),
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

    /// Adds a value; None where it is not of the column's type.
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
            (Self::Row(builder), ValueRef::Integer(number)) => builder.append_value(u32::try_from(number).ok()?),
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
                // 15 digits are what a real keeps; the nearest value of the scale is the one that was written.
                let unscaled = format!("{number:.*}", usize::from(scale.unsigned_abs())).replace('.', "");
                builder.append_value(unscaled.parse().ok()?);
            }
            (Self::Date(builder), ValueRef::Text(_)) => builder.append_value(Date32Type::parse(text?)?),
            (Self::Time(builder), ValueRef::Text(_)) => builder.append_value(Time64MicrosecondType::parse(text?)?),
            (Self::Timestamp(builder), ValueRef::Text(_)) => {
                builder.append_value(TimestampMicrosecondType::parse(text?)?);
            }
            _ => return None,
        }
        Some(())
    }

    fn push_null(&mut self) {
        match self {
            Self::Integer(builder) => builder.append_null(),
            Self::Row(builder) => builder.append_null(),
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
            Self::Row(builder) => Arc::new(builder.finish()),
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
    use super::*;
    use arrow::datatypes::{Field, Schema};

    #[test]
    fn declared_types_mean_what_people_mean_by_them() {
        for (declared, expected) in [
            ("INTEGER", DataType::Int64),
            ("bigint", DataType::Int64),
            ("VARCHAR(12)", DataType::Utf8),
            ("DECIMAL(10,2)", DataType::Decimal128(10, 2)),
            ("NUMERIC(20, 4)", DataType::Decimal128(15, 4)),
            ("NUMERIC", DataType::Float64),
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
            for row in 0..array.len() {
                let mut statement = connection.prepare("SELECT ?1").unwrap();
                let mut rows = statement.query([cell(&array, row).unwrap()]).unwrap();
                collector.push(0, rows.next().unwrap().unwrap().get_ref(0).unwrap()).unwrap();
            }
            assert_eq!(collector.finish().unwrap().column(0), &array);
        }
    }
}

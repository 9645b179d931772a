//! Rows as SQLite stores them: the values that are bound to a statement, and the values that are read back if nothing changed them.

use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::temporal_conversions::{date32_to_datetime, time64us_to_time, timestamp_us_to_datetime};
use rusqlite::types::ValueRef;

use super::values::decimal;
use crate::error::{Error, Result};

/// A batch of values in SQLite's storage classes. It can be built on any thread. Binding or comparing a value is then little more than an
/// array access.
pub(super) struct StorageBatch {
    columns: Vec<Values>,
    rows: usize,
}

enum Values {
    Integers(Int64Array),
    Reals(Float64Array),
    Texts(StringArray),
    Blobs(BinaryArray),
    /// Decimals: integers if they are whole, reals otherwise.
    Numbers(Vec<ValueRef<'static>>),
}

impl StorageBatch {
    /// Converts columns of equal length.
    pub(super) fn of(columns: &[ArrayRef]) -> Result<Self> {
        let rows = columns.first().map_or(0, Array::len);
        let columns = columns.iter().map(Values::of).collect::<Result<_>>()?;
        Ok(Self { columns, rows })
    }

    pub(super) fn of_batch(batch: &RecordBatch) -> Result<Self> {
        Self::of(batch.columns())
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn push(&mut self, column: Int64Array) {
        self.columns.push(Values::Integers(column));
    }

    pub(super) fn value(&self, column: usize, row: usize) -> ValueRef<'_> {
        match &self.columns[column] {
            Values::Integers(values) if values.is_valid(row) => ValueRef::Integer(values.value(row)),
            Values::Reals(values) if values.is_valid(row) => ValueRef::Real(values.value(row)),
            Values::Texts(values) if values.is_valid(row) => ValueRef::Text(values.value(row).as_bytes()),
            Values::Blobs(values) if values.is_valid(row) => ValueRef::Blob(values.value(row)),
            Values::Numbers(values) => values[row],
            _ => ValueRef::Null,
        }
    }

    /// Returns whether a value is bit for bit the one of a column and row.
    pub(super) fn is(&self, column: usize, row: usize, value: ValueRef<'_>) -> bool {
        match (self.value(column, row), value) {
            // 0.0 and -0.0 are equal, but not identical.
            (ValueRef::Real(here), ValueRef::Real(there)) => here.to_bits() == there.to_bits(),
            (here, there) => here == there,
        }
    }
}

impl Values {
    fn of(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Int64 => Self::Integers(array.as_primitive::<Int64Type>().clone()),
            DataType::Boolean => Self::Integers(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Self::Reals(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Texts(array.as_string::<i32>().clone()),
            DataType::Binary => Self::Blobs(array.as_binary::<i32>().clone()),
            DataType::Decimal128(_, scale) => {
                let numbers = array.as_primitive::<Decimal128Type>().iter();
                Self::Numbers(numbers.map(|number| number.map_or(ValueRef::Null, |n| decimal(n, *scale))).collect())
            }
            DataType::Date32 => texts::<Date32Type, _>(array, |days| date32_to_datetime(days).map(|day| day.date()))?,
            DataType::Time64(TimeUnit::Microsecond) => texts::<Time64MicrosecondType, _>(array, time64us_to_time)?,
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                texts::<TimestampMicrosecondType, _>(array, timestamp_us_to_datetime)?
            }
            other => return Err(Error::internal(format!("a value of type {other} on its way to SQLite"))),
        })
    }
}

/// Formats dates and times in ISO 8601.
fn texts<T: ArrowPrimitiveType, M: std::fmt::Display>(
    array: &ArrayRef,
    moment: impl Fn(T::Native) -> Option<M>,
) -> Result<Values> {
    const LENGTH: usize = 10;
    let values: &PrimitiveArray<T> = array.as_primitive();
    let mut texts = StringBuilder::with_capacity(values.len(), values.len() * LENGTH);
    for (row, value) in values.iter().enumerate() {
        let Some(value) = value else {
            texts.append_null();
            continue;
        };
        let moment =
            moment(value).ok_or_else(|| Error::internal(format!("row {row} holds no valid {}", array.data_type())))?;
        let _infallible = write!(texts, "{moment}");
        texts.append_value("");
    }
    Ok(Values::Texts(texts.finish()))
}

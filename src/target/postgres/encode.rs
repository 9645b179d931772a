//! Arrow batches → `COPY … FROM STDIN (FORMAT binary)`.
//!
//! The format is PostgreSQL's: <https://www.postgresql.org/docs/current/sql-copy.html>. A value's bytes are the input of its type's receive
//! function. Values were checked before, so one that does not fit here is a bug.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array, Int32Array,
    Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use bytes::{BufMut, BytesMut};

use super::numeric;
use super::types::PgType;
use super::{EPOCH_DAYS, EPOCH_MICROSECONDS, SIGNATURE};
use crate::error::{Error, Result};

/// An encoder of batches as rows of a binary COPY.
///
/// Text is sent unchanged to all types that accept it, and an integer of any width to each integer type that it fits.
#[derive(Debug)]
pub(super) struct Encoder {
    columns: Vec<(DataType, CopyColumn)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyColumn {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Decimal {
        scale: u16,
        /// Whether trailing zeros behind the point are dropped.
        shortest: bool,
    },
    Text,
    Jsonb,
    Uuid,
    Bytes,
    Date,
    Time,
    Timestamp,
}

impl Encoder {
    /// Returns an encoder of columns with these types in the batches and in the target.
    ///
    /// # Errors
    /// If a column's two types do not match.
    pub(super) fn try_new(columns: &[(DataType, PgType)]) -> Result<Self> {
        let columns = columns.iter().map(|(arrow, pg)| Ok((arrow.clone(), CopyColumn::try_new(arrow, pg)?)));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        if i16::try_from(columns.len()).is_err() {
            return Err(Error::internal("too many columns for a binary copy"));
        }
        Ok(Self { columns })
    }

    pub(super) fn header(out: &mut BytesMut) {
        out.put_slice(SIGNATURE);
        out.put_u64(0);
    }

    pub(super) fn trailer(out: &mut BytesMut) {
        out.put_i16(-1);
    }

    /// Appends the rows of a batch.
    ///
    /// # Errors
    /// If the batch has other columns, or a value that its column cannot hold. The content of `out` is then unusable.
    pub(super) fn encode(&self, batch: &RecordBatch, out: &mut BytesMut) -> Result<()> {
        if batch.num_columns() != self.columns.len() {
            return Err(Error::internal("a batch to copy does not have the columns of its table"));
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for (values, (data_type, wire)) in batch.columns().iter().zip(&self.columns) {
            if values.data_type() != data_type {
                let found = values.data_type();
                return Err(Error::internal(format!("a column to copy has type {found}, expected {data_type}")));
            }
            let cells = Cells::of(values.as_ref(), *wire).ok_or_else(|| mismatch(data_type, wire))?;
            columns.push((values.nulls(), cells));
        }
        out.reserve(size(batch));
        for row in 0..batch.num_rows() {
            out.put_i16(self.columns.len() as i16);
            for (at, (nulls, cells)) in columns.iter().enumerate() {
                if nulls.is_some_and(|nulls: &NullBuffer| nulls.is_null(row)) {
                    out.put_i32(-1);
                } else if cells.put(row, out).is_none() {
                    let schema = batch.schema();
                    let (name, wire) = (schema.field(at).name(), self.columns[at].1);
                    return Err(Error::internal(format!("a checked value of `{name}` does not fit {wire:?}")));
                }
            }
        }
        Ok(())
    }
}

/// Estimates the bytes that a batch needs. A wrong estimate costs a reallocation and nothing else.
fn size(batch: &RecordBatch) -> usize {
    let data: usize = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    data + batch.num_rows() * (2 + 8 * batch.num_columns())
}

fn mismatch(arrow: &DataType, wire: impl std::fmt::Debug) -> Error {
    Error::internal(format!("{arrow} is not copied into a column of type {wire:?}"))
}

impl CopyColumn {
    fn try_new(arrow: &DataType, pg: &PgType) -> Result<Self> {
        use DataType::{
            Binary, Boolean, Date32, Decimal128, Decimal256, Float64, Int32, Int64, LargeUtf8, Time64, Timestamp, Utf8,
            Utf8View,
        };
        let text = matches!(arrow, Utf8 | LargeUtf8 | Utf8View);
        let integer = matches!(arrow, Int32 | Int64);
        Ok(match (pg.on_the_way(), arrow) {
            (PgType::Bool, Boolean) => Self::Bool,
            (PgType::Int2, _) if integer => Self::Int2,
            (PgType::Int4, _) if integer => Self::Int4,
            (PgType::Int8, _) if integer => Self::Int8,
            (PgType::Float4, Float64) => Self::Float4,
            (PgType::Float8, Float64) => Self::Float8,
            (PgType::Numeric { precision, .. }, Decimal128(_, scale) | Decimal256(_, scale))
                if *arrow == pg.arrow() =>
            {
                Self::Decimal { scale: scale.unsigned_abs().into(), shortest: precision.is_none() }
            }
            (PgType::Text | PgType::Padded | PgType::Enum | PgType::Json, _) if text => Self::Text,
            (PgType::Jsonb, _) if text => Self::Jsonb,
            (PgType::Uuid, _) if text => Self::Uuid,
            (PgType::Bytea, Binary) => Self::Bytes,
            (PgType::Date, Date32) => Self::Date,
            (PgType::Time, Time64(TimeUnit::Microsecond)) => Self::Time,
            (PgType::Timestamp, Timestamp(TimeUnit::Microsecond, None))
            | (PgType::Timestamptz, Timestamp(TimeUnit::Microsecond, Some(_))) => Self::Timestamp,
            _ => return Err(mismatch(arrow, pg)),
        })
    }
}

/// A column of a batch with its types resolved, so that encoding a value is one match.
enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int32(&'a Int32Array, CopyColumn),
    Int64(&'a Int64Array, CopyColumn),
    Float4(&'a Float64Array),
    Float8(&'a Float64Array),
    Decimal128(&'a Decimal128Array, u16, bool),
    Decimal256(&'a Decimal256Array, u16, bool),
    Text(&'a StringArray, CopyColumn),
    LargeText(&'a LargeStringArray, CopyColumn),
    TextView(&'a StringViewArray, CopyColumn),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray),
}

impl<'a> Cells<'a> {
    fn of(values: &'a dyn Array, wire: CopyColumn) -> Option<Self> {
        Some(match (wire, values.data_type()) {
            (CopyColumn::Bool, _) => Self::Bool(values.as_boolean_opt()?),
            (CopyColumn::Int2 | CopyColumn::Int4 | CopyColumn::Int8, DataType::Int32) => {
                Self::Int32(values.as_primitive_opt()?, wire)
            }
            (CopyColumn::Int2 | CopyColumn::Int4 | CopyColumn::Int8, _) => {
                Self::Int64(values.as_primitive_opt()?, wire)
            }
            (CopyColumn::Float4, _) => Self::Float4(values.as_primitive_opt()?),
            (CopyColumn::Float8, _) => Self::Float8(values.as_primitive_opt()?),
            (CopyColumn::Decimal { scale, shortest }, DataType::Decimal128(..)) => {
                Self::Decimal128(values.as_primitive_opt()?, scale, shortest)
            }
            (CopyColumn::Decimal { scale, shortest }, _) => {
                Self::Decimal256(values.as_primitive_opt()?, scale, shortest)
            }
            (CopyColumn::Text | CopyColumn::Jsonb | CopyColumn::Uuid, DataType::Utf8View) => {
                Self::TextView(values.as_string_view_opt()?, wire)
            }
            (CopyColumn::Text | CopyColumn::Jsonb | CopyColumn::Uuid, DataType::LargeUtf8) => {
                Self::LargeText(values.as_string_opt()?, wire)
            }
            (CopyColumn::Text | CopyColumn::Jsonb | CopyColumn::Uuid, _) => Self::Text(values.as_string_opt()?, wire),
            (CopyColumn::Bytes, _) => Self::Bytes(values.as_binary_opt()?),
            (CopyColumn::Date, _) => Self::Date(values.as_primitive_opt()?),
            (CopyColumn::Time, _) => Self::Time(values.as_primitive_opt()?),
            (CopyColumn::Timestamp, _) => Self::Timestamp(values.as_primitive_opt()?),
        })
    }

    /// Appends the length and the bytes of a value; None if it does not fit.
    #[inline]
    fn put(&self, row: usize, out: &mut BytesMut) -> Option<()> {
        match self {
            Self::Bool(values) => put_fixed(out, [u8::from(values.value(row))]),
            Self::Int32(values, wire) => return put_integer(values.value(row).into(), *wire, out),
            Self::Int64(values, wire) => return put_integer(values.value(row), *wire, out),
            Self::Float4(values) => {
                let single = values.value(row) as f32;
                if single.is_infinite() && values.value(row).is_finite() {
                    return None;
                }
                put_fixed(out, single.to_be_bytes());
            }
            Self::Float8(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Decimal128(values, scale, shortest) => numeric::put_128(values.value(row), *scale, *shortest, out),
            Self::Decimal256(values, scale, shortest) => numeric::put_256(values.value(row), *scale, *shortest, out),
            Self::Text(values, wire) => return put_text(values.value(row), *wire, out),
            Self::LargeText(values, wire) => return put_text(values.value(row), *wire, out),
            Self::TextView(values, wire) => return put_text(values.value(row), *wire, out),
            Self::Bytes(values) => {
                let bytes = values.value(row);
                out.put_i32(i32::try_from(bytes.len()).ok()?);
                out.put_slice(bytes);
            }
            Self::Date(values) => {
                // Both ends of the range are PostgreSQL's infinities.
                let day = values.value(row).checked_sub(EPOCH_DAYS).filter(|day| *day != i32::MIN)?;
                put_fixed(out, day.to_be_bytes());
            }
            Self::Time(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Timestamp(values) => {
                let time = values.value(row).checked_sub(EPOCH_MICROSECONDS).filter(|time| *time != i64::MIN)?;
                put_fixed(out, time.to_be_bytes());
            }
        }
        Some(())
    }
}

/// Appends a value of a fixed size, length and bytes at once.
#[inline]
fn put_fixed<const N: usize>(out: &mut BytesMut, value: [u8; N]) {
    let mut field = [0; 12];
    field[..4].copy_from_slice(&(N as i32).to_be_bytes());
    field[4..4 + N].copy_from_slice(&value);
    out.extend_from_slice(&field[..4 + N]);
}

#[inline]
fn put_integer(value: i64, wire: CopyColumn, out: &mut BytesMut) -> Option<()> {
    match wire {
        CopyColumn::Int2 => put_fixed(out, i16::try_from(value).ok()?.to_be_bytes()),
        CopyColumn::Int4 => put_fixed(out, i32::try_from(value).ok()?.to_be_bytes()),
        _ => put_fixed(out, value.to_be_bytes()),
    }
    Some(())
}

#[inline]
fn put_text(text: &str, wire: CopyColumn, out: &mut BytesMut) -> Option<()> {
    match wire {
        CopyColumn::Uuid => {
            out.put_i32(16);
            out.put_slice(&uuid(text)?);
        }
        CopyColumn::Jsonb => {
            // The version of jsonb's binary format, then the text.
            out.put_i32(i32::try_from(text.len() + 1).ok()?);
            out.put_u8(1);
            out.put_slice(text.as_bytes());
        }
        _ => {
            out.put_i32(i32::try_from(text.len()).ok()?);
            out.put_slice(text.as_bytes());
        }
    }
    Some(())
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| (byte as char).to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray};
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;

    /// Returns the bytes of one value, preceded by its length.
    fn field(values: impl Array + 'static, pg: PgType) -> Result<Vec<u8>> {
        let values: ArrayRef = Arc::new(values);
        let schema = Schema::new(vec![Field::new("v", values.data_type().clone(), true)]);
        let encoder = Encoder::try_new(&[(values.data_type().clone(), pg)])?;
        let mut out = BytesMut::new();
        encoder.encode(&RecordBatch::try_new(Arc::new(schema), vec![values])?, &mut out)?;
        assert_eq!(out[..2], [0, 1]);
        Ok(out[2..].to_vec())
    }

    #[test]
    fn a_value_is_written_as_its_receive_function_reads_it() {
        let moment = TimestampMicrosecondArray::from(vec![EPOCH_MICROSECONDS + 1]);
        for (found, expected) in [
            (field(BooleanArray::from(vec![true]), PgType::Bool), &b"\0\0\0\x01\x01"[..]),
            (field(Int64Array::from(vec![-2]), PgType::Int2), b"\0\0\0\x02\xff\xfe"),
            (field(Int64Array::from(vec![7]), PgType::Int4), b"\0\0\0\x04\0\0\0\x07"),
            (field(Int32Array::from(vec![7]), PgType::Int4), b"\0\0\0\x04\0\0\0\x07"),
            (field(Int64Array::from(vec![7]), PgType::Int8), b"\0\0\0\x08\0\0\0\0\0\0\0\x07"),
            (field(Int64Array::from(vec![None]), PgType::Int8), b"\xff\xff\xff\xff"),
            (field(Float64Array::from(vec![1.5]), PgType::Float4), b"\0\0\0\x04\x3f\xc0\0\0"),
            (field(Float64Array::from(vec![1.5]), PgType::Float8), b"\0\0\0\x08\x3f\xf8\0\0\0\0\0\0"),
            (field(StringArray::from(vec!["\u{e4}"]), PgType::Text), b"\0\0\0\x02\xc3\xa4"),
            (field(StringViewArray::from(vec!["ab"]), PgType::Enum), b"\0\0\0\x02ab"),
            (field(LargeStringArray::from(vec!["1 day"]), PgType::Interval), b"\0\0\0\x051 day"),
            (field(StringArray::from(vec!["{}"]), PgType::Jsonb), b"\0\0\0\x03\x01{}"),
            (field(BinaryArray::from(vec![&b"\0"[..]]), PgType::Bytea), b"\0\0\0\x01\0"),
            (field(Date32Array::from(vec![EPOCH_DAYS - 1]), PgType::Date), b"\0\0\0\x04\xff\xff\xff\xff"),
            (field(Time64MicrosecondArray::from(vec![1]), PgType::Time), b"\0\0\0\x08\0\0\0\0\0\0\0\x01"),
            (field(moment.clone(), PgType::Timestamp), b"\0\0\0\x08\0\0\0\0\0\0\0\x01"),
            (field(moment.with_timezone("UTC"), PgType::Timestamptz), b"\0\0\0\x08\0\0\0\0\0\0\0\x01"),
            (
                field(StringArray::from(vec!["00112233-4455-6677-8899-aabbccddeeff"]), PgType::Uuid),
                b"\0\0\0\x10\0\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
            ),
        ] {
            assert_eq!(found.unwrap(), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        for (found, message) in [
            (field(Int64Array::from(vec![32_768]), PgType::Int2), "a checked value of `v` does not fit Int2"),
            (
                field(Int64Array::from(vec![i64::from(u32::MAX)]), PgType::Int4),
                "a checked value of `v` does not fit Int4",
            ),
            (field(Float64Array::from(vec![1e39]), PgType::Float4), "a checked value of `v` does not fit Float4"),
            (field(StringArray::from(vec!["0011"]), PgType::Uuid), "a checked value of `v` does not fit Uuid"),
            (
                field(Date32Array::from(vec![i32::MIN + EPOCH_DAYS]), PgType::Date),
                "a checked value of `v` does not fit Date",
            ),
            (field(Int64Array::from(vec![1]), PgType::Text), "Int64 is not copied into a column of type Text"),
            (
                field(DictionaryArray::<Int32Type>::from_iter(["a"]), PgType::Text),
                "Dictionary(Int32, Utf8) is not copied into a column of type Text",
            ),
        ] {
            assert_eq!(found.unwrap_err().to_string(), message);
        }
    }
}

//! `COPY … TO STDOUT (FORMAT binary)` → Arrow batches.
//!
//! The input is split at arbitrary positions. A field is decoded when it is complete; the remainder waits for the next piece.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, Float64Builder,
    Int64Builder, RecordBatch, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType, Field, SchemaRef, TimeUnit};
use bytes::{Buf, Bytes, BytesMut};

use super::numeric::{self, NoDecimal};
use super::types::PgType;
use super::{EPOCH_DAYS, EPOCH_MICROSECONDS, SIGNATURE};
use crate::error::{Error, Result};

/// The signature, the flags, and the length of an extension, which is empty so far.
const HEADER: usize = SIGNATURE.len() + 8;

/// Bytes at which a batch is full, however few rows it has: an Arrow text column ends at two gigabytes.
const BATCH_BYTES: usize = 32 << 20;

const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

#[derive(Debug)]
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    batch_rows: usize,
    rows: usize,
    bytes: usize,
    at: At,
    /// The bytes of an incomplete field.
    rest: BytesMut,
}

/// The next element of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Header,
    /// The header's extension: this many bytes to skip.
    Extension(usize),
    Row,
    Field(usize),
    End,
}

impl Decoder {
    /// Returns a decoder of rows with these types in the target and this schema, in batches of at most `batch_rows` rows.
    ///
    /// # Errors
    /// If a column's two types do not match.
    pub(super) fn try_new(schema: SchemaRef, types: Vec<PgType>, batch_rows: usize) -> Result<Self> {
        if schema.fields().len() != types.len() {
            return Err(Error::internal("a copy is read under a schema of other columns"));
        }
        let fields = schema.fields().iter().zip(&types);
        let columns = fields.map(|(field, pg)| Column::try_new(field, pg)).collect::<Result<_>>()?;
        let batch_rows = batch_rows.max(1);
        Ok(Self { schema, columns, batch_rows, rows: 0, bytes: 0, at: At::Header, rest: BytesMut::new() })
    }

    /// Decodes the next piece, and returns the batches that it completes.
    ///
    /// # Errors
    /// If a value does not fit its column, or the bytes are not a copy of these columns.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        if self.rest.is_empty() {
            let used = self.read(&piece, &mut batches)?;
            self.rest.extend_from_slice(&piece[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(&piece);
            let used = self.read(&rest, &mut batches)?;
            rest.advance(used);
            self.rest = rest;
        }
        Ok(batches)
    }

    /// Returns the last rows, at the end of the input.
    ///
    /// # Errors
    /// If the copy is incomplete.
    pub(super) fn finish(mut self) -> Result<Option<RecordBatch>> {
        if self.at != At::End {
            return Err(Error::unreachable("production ended a copy before its last row")
                .hint("see the server's log, and run again"));
        }
        if self.rows == 0 { Ok(None) } else { self.batch().map(Some) }
    }

    /// Decodes complete elements, and returns the number of bytes read.
    fn read(&mut self, bytes: &[u8], batches: &mut Vec<RecordBatch>) -> Result<usize> {
        let mut rest = bytes;
        loop {
            match self.at {
                At::Header => {
                    let Some((header, behind)) = rest.split_at_checked(HEADER) else { break };
                    let [.., e0, e1, e2, e3] = header else { break };
                    // The high half of the flags has critical extensions; none are defined.
                    if !header.starts_with(SIGNATURE) || header[SIGNATURE.len()..][..2] != [0, 0] {
                        return Err(Error::internal("production sent no binary copy, or one of an unknown kind"));
                    }
                    self.at = At::Extension(u32::from_be_bytes([*e0, *e1, *e2, *e3]) as usize);
                    rest = behind;
                }
                At::Extension(length) => {
                    let Some(behind) = rest.get(length..) else { break };
                    self.at = At::Row;
                    rest = behind;
                }
                At::Row => {
                    let Some((count, behind)) = rest.split_first_chunk() else { break };
                    rest = behind;
                    self.at = match i16::from_be_bytes(*count) {
                        -1 => At::End,
                        count if usize::try_from(count) == Ok(self.columns.len()) => At::Field(0),
                        count => {
                            let wanted = self.columns.len();
                            return Err(Error::internal(format!(
                                "production sent {count} columns in place of {wanted}"
                            )));
                        }
                    };
                }
                At::Field(at) => {
                    let Some(column) = self.columns.get_mut(at) else {
                        self.at = At::Row;
                        self.rows += 1;
                        if self.rows == self.batch_rows || self.bytes >= BATCH_BYTES {
                            batches.push(self.batch()?);
                        }
                        continue;
                    };
                    let Some((length, behind)) = rest.split_first_chunk() else { break };
                    let value = match i32::from_be_bytes(*length) {
                        -1 => None,
                        length => {
                            let length =
                                usize::try_from(length).map_err(|_| Error::internal("a length is negative"))?;
                            let Some((value, behind)) = behind.split_at_checked(length) else { break };
                            rest = behind;
                            Some(value)
                        }
                    };
                    if let Some(value) = value {
                        self.bytes += value.len();
                        column.push(value).map_err(|why| why.of(self.schema.field(at).name()))?;
                    } else {
                        column.push_null();
                        rest = behind;
                    }
                    self.at = At::Field(at + 1);
                }
                At::End if rest.is_empty() => break,
                At::End => return Err(Error::internal("production sent data after the end of a copy")),
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// The reason that a value of production does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoValue {
    NoNumber,
    TooLong,
    Infinite,
    OutOfRange,
    Midnight,
    NoText,
    Malformed,
}

impl From<NoDecimal> for NoValue {
    fn from(why: NoDecimal) -> Self {
        match why {
            NoDecimal::NoNumber => Self::NoNumber,
            NoDecimal::TooLong => Self::TooLong,
            NoDecimal::Malformed => Self::Malformed,
        }
    }
}

impl NoValue {
    fn of(self, column: &str) -> Error {
        let what = match self {
            Self::NoNumber => "is not a finite number (NaN or infinity)",
            Self::TooLong => "has more digits than there is room for here",
            Self::Infinite => "is infinite",
            Self::OutOfRange => "is beyond the range of its type here",
            Self::Midnight => "is the time 24:00, which is out of range",
            Self::NoText => "is not valid UTF-8",
            Self::Malformed => return Error::internal(format!("production sent `{column}` in an unknown format")),
        };
        Error::data(format!("cannot read column `{column}` of production: a value {what}"))
            .hint("exclude this column from the query, or have the value corrected in production")
    }
}

#[derive(Debug)]
enum Column {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Decimal128(Decimal128Builder, u8, u16),
    Decimal256(Decimal256Builder, u8, u16),
    Text(StringBuilder),
    Padded(StringBuilder),
    Jsonb(StringBuilder),
    Uuid(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Column {
    fn try_new(field: &Field, pg: &PgType) -> Result<Self> {
        let data_type = field.data_type();
        Ok(match (pg.on_the_way(), data_type) {
            (PgType::Bool, DataType::Boolean) => Self::Bool(BooleanBuilder::new()),
            (PgType::Int2 | PgType::Int4 | PgType::Int8, DataType::Int64) => Self::Int(Int64Builder::new()),
            (PgType::Float4 | PgType::Float8, DataType::Float64) => Self::Float(Float64Builder::new()),
            (PgType::Numeric { .. }, DataType::Decimal128(precision, scale @ 0..)) => {
                let builder = Decimal128Builder::new().with_precision_and_scale(*precision, *scale)?;
                Self::Decimal128(builder, *precision, scale.unsigned_abs().into())
            }
            (PgType::Numeric { .. }, DataType::Decimal256(precision, scale @ 0..)) => {
                let builder = Decimal256Builder::new().with_precision_and_scale(*precision, *scale)?;
                Self::Decimal256(builder, *precision, scale.unsigned_abs().into())
            }
            (PgType::Text | PgType::Enum | PgType::Json, DataType::Utf8) => Self::Text(StringBuilder::new()),
            (PgType::Padded, DataType::Utf8) => Self::Padded(StringBuilder::new()),
            (PgType::Jsonb, DataType::Utf8) => Self::Jsonb(StringBuilder::new()),
            (PgType::Uuid, DataType::Utf8) => Self::Uuid(StringBuilder::new()),
            (PgType::Bytea, DataType::Binary) => Self::Bytes(BinaryBuilder::new()),
            (PgType::Date, DataType::Date32) => Self::Date(Date32Builder::new()),
            (PgType::Time, DataType::Time64(TimeUnit::Microsecond)) => Self::Time(Time64MicrosecondBuilder::new()),
            (PgType::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, None))
            | (PgType::Timestamptz, DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()))
            }
            _ => {
                let name = field.name();
                return Err(Error::internal(format!("`{name}` of type {pg:?} is not read as {data_type}")));
            }
        })
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) -> Result<(), NoValue> {
        match self {
            Self::Bool(builder) => builder.append_value(fixed::<1>(bytes)? != [0]),
            Self::Int(builder) => builder.append_value(match bytes.len() {
                2 => i16::from_be_bytes(fixed(bytes)?).into(),
                4 => i32::from_be_bytes(fixed(bytes)?).into(),
                _ => i64::from_be_bytes(fixed(bytes)?),
            }),
            Self::Float(builder) => builder.append_value(match bytes.len() {
                4 => f32::from_be_bytes(fixed(bytes)?).into(),
                _ => f64::from_be_bytes(fixed(bytes)?),
            }),
            Self::Decimal128(builder, precision, scale) => {
                let value = numeric::read_128(bytes, *scale)?;
                if !Decimal128Type::is_valid_decimal_precision(value, *precision) {
                    return Err(NoValue::TooLong);
                }
                builder.append_value(value);
            }
            Self::Decimal256(builder, precision, scale) => {
                let value = numeric::read_256(bytes, *scale)?;
                if !Decimal256Type::is_valid_decimal_precision(value, *precision) {
                    return Err(NoValue::TooLong);
                }
                builder.append_value(value);
            }
            Self::Text(builder) => builder.append_value(text(bytes)?),
            Self::Padded(builder) => builder.append_value(text(bytes)?.trim_end_matches(' ')),
            Self::Jsonb(builder) => match bytes.split_first() {
                Some((1, bytes)) => builder.append_value(text(bytes)?),
                _ => return Err(NoValue::Malformed),
            },
            Self::Uuid(builder) => builder.append_value(text(&uuid(fixed(bytes)?))?),
            Self::Bytes(builder) => builder.append_value(bytes),
            Self::Date(builder) => {
                let day = match i32::from_be_bytes(fixed(bytes)?) {
                    i32::MIN | i32::MAX => return Err(NoValue::Infinite),
                    day => day.checked_add(EPOCH_DAYS).ok_or(NoValue::OutOfRange)?,
                };
                builder.append_value(day);
            }
            Self::Time(builder) => match i64::from_be_bytes(fixed(bytes)?) {
                MICROSECONDS_A_DAY => return Err(NoValue::Midnight),
                time => builder.append_value(time),
            },
            Self::Timestamp(builder) => {
                let time = match i64::from_be_bytes(fixed(bytes)?) {
                    i64::MIN | i64::MAX => return Err(NoValue::Infinite),
                    time => time.checked_add(EPOCH_MICROSECONDS).ok_or(NoValue::OutOfRange)?,
                };
                builder.append_value(time);
            }
        }
        Ok(())
    }

    #[inline]
    fn push_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Decimal128(builder, ..) => builder.append_null(),
            Self::Decimal256(builder, ..) => builder.append_null(),
            Self::Text(builder) | Self::Padded(builder) | Self::Jsonb(builder) | Self::Uuid(builder) => {
                builder.append_null();
            }
            Self::Bytes(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Decimal128(builder, ..) => Arc::new(builder.finish()),
            Self::Decimal256(builder, ..) => Arc::new(builder.finish()),
            Self::Text(builder) | Self::Padded(builder) | Self::Jsonb(builder) | Self::Uuid(builder) => {
                Arc::new(builder.finish())
            }
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], NoValue> {
    bytes.try_into().map_err(|_| NoValue::Malformed)
}

#[inline]
fn text(bytes: &[u8]) -> Result<&str, NoValue> {
    std::str::from_utf8(bytes).map_err(|_| NoValue::NoText)
}

fn uuid(bytes: [u8; 16]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    // The positions of each byte's two digits, with a hyphen before the 5th, 7th, 9th, and 11th byte.
    let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (byte, place) in bytes.into_iter().zip(places) {
        text[place] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[place + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Schema;

    use super::*;

    fn decoder(batch_rows: usize) -> Decoder {
        let fields = vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)];
        let types = vec![PgType::Int4, PgType::Padded];
        Decoder::try_new(Arc::new(Schema::new(fields)), types, batch_rows).unwrap()
    }

    /// Three rows behind a header with an extension of two bytes.
    const COPY: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02xx\
        \0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x03ab \
        \0\x02\xff\xff\xff\xff\0\0\0\0\
        \0\x02\0\0\0\x04\xff\xff\xff\xff\xff\xff\xff\xff";

    #[test]
    fn rows_are_read_wherever_they_are_cut() {
        for size in 1..=COPY.len() {
            let mut decoder = decoder(2);
            let mut batches = Vec::new();
            for piece in COPY.chunks(size) {
                batches.extend(decoder.push(Bytes::from_static(piece)).unwrap());
            }
            assert_eq!(batches.len(), 1);
            assert_eq!(*batches[0].column(0).as_primitive(), Int64Array::from(vec![Some(7), None]));
            assert_eq!(*batches[0].column(1).as_string(), StringArray::from(vec!["ab", ""]));
            batches.extend(decoder.push(Bytes::from_static(b"\xff\xff")).unwrap());
            let last = decoder.finish().unwrap().unwrap();
            assert_eq!(*last.column(0).as_primitive(), Int64Array::from(vec![-1]));
            assert!(last.column(1).is_null(0));
        }
    }

    #[test]
    fn a_copy_that_ends_early_or_late_is_an_error() {
        let mut cut = decoder(9);
        cut.push(Bytes::from_static(COPY)).unwrap();
        assert_eq!(cut.finish().unwrap_err().to_string(), "production ended a copy before its last row");
        let mut long = decoder(9);
        long.push(Bytes::from_static(COPY)).unwrap();
        let error = long.push(Bytes::from_static(b"\xff\xff\0")).unwrap_err();
        assert_eq!(error.to_string(), "production sent data after the end of a copy");
    }

    #[test]
    fn what_is_no_copy_of_the_columns_is_an_error() {
        let header = &COPY[..21];
        for (bytes, message) in [
            (
                b"PGCOPY\n\xff\r\n0\0\0\0\0\0\0\0\0".to_vec(),
                "production sent no binary copy, or one of an unknown kind",
            ),
            ([header, b"\0\x03"].concat(), "production sent 3 columns in place of 2"),
            ([header, b"\0\x02\0\0\0\x03abc"].concat(), "production sent `n` in an unknown format"),
            ([header, b"\0\x02\xff\xff\xff\xfe"].concat(), "a length is negative"),
            (
                [header, b"\0\x02\xff\xff\xff\xff\0\0\0\x01\xff"].concat(),
                "cannot read column `t` of production: a value is not valid UTF-8",
            ),
        ] {
            assert_eq!(decoder(9).push(Bytes::from(bytes)).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_batch_ends_when_it_is_large() {
        let mut decoder = decoder(usize::MAX);
        decoder.push(Bytes::from_static(&COPY[..21])).unwrap();
        let text = vec![b'x'; BATCH_BYTES / 2];
        let head = [&b"\0\x02\xff\xff\xff\xff"[..], &(text.len() as u32).to_be_bytes()].concat();
        let row = Bytes::from([head, text].concat());
        let batches = (0..5).map(|_| decoder.push(row.clone()).unwrap().len()).collect::<Vec<_>>();
        assert_eq!(batches, [0, 1, 0, 1, 0]);
    }
}

//! Columns of fixed-width records: the values of one field in many records, without an allocation per value.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, NullBufferBuilder, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;

use super::number::{Integer, Number, NumberFault};
use super::{Field, Kind, Layout};
use crate::error::{Error, Result};
use crate::spec::Trim;

/// Why a field of a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldFault {
    Number(NumberFault),
    /// The bytes are not text in the encoding.
    Undecodable,
    /// The text contains a NUL character.
    Nul,
    /// The record ends within the field.
    Short,
}

/// The value of a field in a record, before it is decoded.
enum Value<'a> {
    Null,
    Bytes(&'a [u8]),
    Fault(FieldFault),
}

/// A column, and the records whose field cannot be read.
pub(super) struct Column {
    pub(super) values: ArrayRef,
    /// By position among the records, in order.
    pub(super) faults: Vec<(usize, FieldFault)>,
}

impl Field {
    /// Returns the type of the values.
    pub(super) fn data_type(&self) -> DataType {
        match &self.kind {
            Kind::Text(_) => DataType::Utf8,
            Kind::Number(number) if number.is_small_integer() => DataType::Int64,
            Kind::Number(number) => DataType::Decimal128(number.digits, number.scale),
        }
    }

    /// Returns the bytes of the field in a record that may be too short for it.
    pub(super) fn bytes<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        let end = (self.start + self.width).min(record.len());
        record.get(self.start..end).unwrap_or_default()
    }

    fn value<'a>(&self, layout: &Layout, record: &'a [u8]) -> Value<'a> {
        let bytes = self.bytes(record);
        let is_filler = |filler: &u8| bytes.first() == Some(filler) && bytes.iter().all(|byte| byte == filler);
        match &self.kind {
            _ if bytes.is_empty() => Value::Null,
            Kind::Number(number) if number.is_binary() && bytes.len() == self.width => Value::Bytes(bytes),
            Kind::Text(trim) => {
                if layout.null_fillers.iter().any(is_filler) {
                    return Value::Null;
                }
                Value::Bytes(trimmed(bytes, *trim, layout.blank))
            }
            Kind::Number(_) if bytes.len() < self.width => Value::Fault(FieldFault::Short),
            Kind::Number(number) => {
                let is_blank = number.is_zoned() && layout.blank_is_null && is_filler(&layout.blank);
                if is_blank || layout.null_fillers.iter().any(is_filler) { Value::Null } else { Value::Bytes(bytes) }
            }
        }
    }
}

/// Removes blanks.
fn trimmed(mut bytes: &[u8], trim: Trim, blank: u8) -> &[u8] {
    if trim != Trim::None {
        while let [rest @ .., last] = bytes
            && *last == blank
        {
            bytes = rest;
        }
    }
    if trim == Trim::Both {
        while let [first, rest @ ..] = bytes
            && *first == blank
        {
            bytes = rest;
        }
    }
    bytes
}

impl Layout {
    /// Reads a field of records.
    pub(super) fn column(&self, field: &Field, records: &[&[u8]]) -> Result<Column> {
        match &field.kind {
            Kind::Text(_) => self.texts(field, records),
            Kind::Number(number) if number.is_small_integer() => {
                let (values, nulls, faults) = self.numbers::<i64, i64>(field, *number, records);
                Ok(Column { values: Arc::new(Int64Array::new(values, nulls)), faults })
            }
            Kind::Number(number) => {
                let (values, nulls, faults) = match number.is_short() {
                    true => self.numbers::<i64, i128>(field, *number, records),
                    false => self.numbers::<i128, i128>(field, *number, records),
                };
                let values = Decimal128Array::new(values, nulls).with_data_type(field.data_type());
                Ok(Column { values: Arc::new(values), faults })
            }
        }
    }

    /// Reads numbers as `T`, and stores them as `V`.
    #[allow(clippy::type_complexity, reason = "values, NULLs, and faults of a column")]
    fn numbers<T: Integer, V: From<T> + Default + arrow::datatypes::ArrowNativeType>(
        &self,
        field: &Field,
        number: Number,
        records: &[&[u8]],
    ) -> (ScalarBuffer<V>, Option<arrow::buffer::NullBuffer>, Vec<(usize, FieldFault)>) {
        let mut values: Vec<V> = Vec::with_capacity(records.len());
        let mut nulls = NullBufferBuilder::new(records.len());
        let mut faults = Vec::new();
        for (row, record) in records.iter().enumerate() {
            let value = match field.value(self, record) {
                Value::Bytes(bytes) => number.value::<T>(bytes).map_err(FieldFault::Number),
                Value::Fault(fault) => Err(fault),
                Value::Null => {
                    values.push(V::default());
                    nulls.append_null();
                    continue;
                }
            };
            match value {
                Ok(value) => {
                    values.push(V::from(value));
                    nulls.append_non_null();
                }
                Err(fault) => {
                    faults.push((row, fault));
                    values.push(V::default());
                    nulls.append_null();
                }
            }
        }
        (ScalarBuffer::from(values), nulls.finish(), faults)
    }

    fn texts(&self, field: &Field, records: &[&[u8]]) -> Result<Column> {
        let mut text: Vec<u8> = Vec::with_capacity(records.len() * field.width.min(64));
        let mut offsets: Vec<i32> = Vec::with_capacity(records.len() + 1);
        let mut nulls = NullBufferBuilder::new(records.len());
        let mut faults = Vec::new();
        offsets.push(0);
        for (row, record) in records.iter().enumerate() {
            let start = text.len();
            let value = match field.value(self, record) {
                Value::Null => Ok(false),
                Value::Fault(fault) => Err(fault),
                Value::Bytes(bytes) => self.text(bytes, &mut text),
            };
            if value == Ok(true) {
                nulls.append_non_null();
            } else {
                text.truncate(start);
                nulls.append_null();
            }
            faults.extend(value.err().map(|fault| (row, fault)));
            let end = i32::try_from(text.len());
            offsets.push(end.map_err(|_| Error::internal("a batch has more than 2 GiB of text"))?);
        }
        text.shrink_to_fit();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let values = StringArray::try_new(offsets, Buffer::from_vec(text), nulls.finish())?;
        Ok(Column { values: Arc::new(values), faults })
    }

    /// Appends a text, and returns whether it is a value and not NULL.
    fn text(&self, bytes: &[u8], text: &mut Vec<u8>) -> Result<bool, FieldFault> {
        let start = text.len();
        self.decoder.decode(bytes, text).map_err(|_| FieldFault::Undecodable)?;
        let decoded = &text[start..];
        if self.null_values.iter().any(|null| null.as_bytes() == decoded) {
            return Ok(false);
        }
        if decoded.contains(&0) { Err(FieldFault::Nul) } else { Ok(true) }
    }

    /// Returns whether the field of a record has one of these values.
    pub(super) fn matches(&self, condition: &super::Condition, record: &[u8]) -> Result<bool, FieldFault> {
        let field = &self.fields[condition.field];
        match (field.value(self, record), &field.kind) {
            (Value::Null, _) => Ok(condition.texts.iter().any(|text| self.null_values.contains(text))),
            (Value::Fault(fault), _) => Err(fault),
            (Value::Bytes(bytes), Kind::Number(number)) => {
                let value: i128 = number.value(bytes).map_err(FieldFault::Number)?;
                Ok(condition.numbers.contains(&value))
            }
            (Value::Bytes(bytes), Kind::Text(_)) => {
                let mut text = Vec::new();
                self.decoder.decode(bytes, &mut text).map_err(|_| FieldFault::Undecodable)?;
                Ok(condition.texts.iter().any(|value| value.as_bytes() == text))
            }
        }
    }
}

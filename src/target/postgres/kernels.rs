//! The codec of COPY, for benchmarks: whole batches in both directions, in the types that their Arrow types stand for.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::{Bytes, BytesMut};

use super::decode::Decoder;
use super::encode::Encoder;
use super::types::PgType;
use crate::error::{Error, Result};

/// Encodes batches as one binary COPY.
///
/// # Errors
/// If a column has a type without a benchmark.
pub fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).zip(types(schema)?).collect();
    let encoder = Encoder::try_new(&types)?;
    let mut out = BytesMut::new();
    Encoder::header(&mut out);
    batches.iter().try_for_each(|batch| encoder.encode(batch, &mut out))?;
    Encoder::trailer(&mut out);
    Ok(out.freeze())
}

/// Decodes a binary COPY into batches, in pieces of `piece` bytes.
///
/// # Errors
/// If a column has a type without a benchmark, or the bytes are not a COPY of these columns.
pub fn decode(schema: &SchemaRef, copy: &Bytes, piece: usize) -> Result<Vec<RecordBatch>> {
    let mut decoder = Decoder::try_new(schema.clone(), types(schema)?, 8192)?;
    let (mut batches, mut rest) = (Vec::new(), copy.clone());
    while !rest.is_empty() {
        let next = rest.split_to(piece.clamp(1, rest.len()));
        batches.extend(decoder.push(next)?);
    }
    batches.extend(decoder.finish()?);
    Ok(batches)
}

fn types(schema: &SchemaRef) -> Result<Vec<PgType>> {
    let types = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Int64 => Ok(PgType::Int8),
        DataType::Utf8 => Ok(PgType::Text),
        DataType::Date32 => Ok(PgType::Date),
        DataType::Decimal128(precision, scale) => {
            Ok(PgType::Numeric { precision: Some((*precision).into()), scale: (*scale).into() })
        }
        other => Err(Error::internal(format!("{other} is not timed"))),
    });
    types.collect()
}

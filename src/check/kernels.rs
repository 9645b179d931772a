//! The casts of reading, for benchmarks.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::cast::convert;
use crate::error::Result;

/// Casts values, and returns them with the number of rows that have no value.
///
/// # Errors
/// Returns an error if the types are incompatible.
pub fn cast(values: &ArrayRef, to: &DataType) -> Result<(ArrayRef, usize)> {
    let converted = convert(values, to, None)?;
    Ok((converted.values, converted.no_value.len() + converted.too_precise.len()))
}

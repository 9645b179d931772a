//! The casts of reading, for the benches.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::cast::convert;
use crate::error::Result;

/// Values of a type, NULL where there is none, and how many rows have none.
///
/// # Errors
/// Where nothing of the one type is cast to the other.
pub fn cast(values: &ArrayRef, to: &DataType) -> Result<(ArrayRef, usize)> {
    let converted = convert(values, to, None)?;
    Ok((converted.values, converted.no_value.len() + converted.too_precise.len()))
}

//! How a reference that is not resolved to a row is written, and how answers are spread over the rows that asked.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;

use crate::error::{Error, Result};

/// The row refers to nothing: its reference is NULL.
pub(super) const NULL_REFERENCE: u32 = u32::MAX;
/// The row refers to something that is nowhere.
pub(super) const UNRESOLVED: u32 = u32::MAX - 1;

/// Writes what a join found into the array over the rows: row, and the number it refers to.
pub(super) fn scatter(batch: &RecordBatch, targets: &mut [u32], offset: u32) -> Result<()> {
    let (rows, numbers) = (batch.column(0).as_primitive::<UInt32Type>(), batch.column(1).as_primitive::<UInt32Type>());
    for (row, number) in rows.values().iter().zip(numbers.values()) {
        let target = targets.get_mut(*row as usize).ok_or_else(|| Error::internal("a row number beyond the rows"))?;
        *target = offset + number;
    }
    Ok(())
}

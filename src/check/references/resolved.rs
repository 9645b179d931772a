//! Markers for references without a row, and the distribution of answers to rows.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;

use crate::error::{Error, Result};

/// The reference is NULL.
pub(super) const NULL_REFERENCE: u32 = u32::MAX;
/// The reference has no row.
pub(super) const UNRESOLVED: u32 = u32::MAX - 1;

/// Writes the result of a join, pairs of a row and a number, into the targets of the rows.
pub(super) fn scatter(batch: &RecordBatch, targets: &mut [u32], offset: u32) -> Result<()> {
    let (rows, numbers) = (batch.column(0).as_primitive::<UInt32Type>(), batch.column(1).as_primitive::<UInt32Type>());
    for (row, number) in rows.values().iter().zip(numbers.values()) {
        let target = targets.get_mut(*row as usize).ok_or_else(|| Error::internal("a row number beyond the rows"))?;
        *target = offset + number;
    }
    Ok(())
}

//! The first difference between rows that are there and rows that were meant.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::UInt32Type;

use crate::engine::display_value;
use crate::error::Result;

/// How `found` differs from `meant`, in words; None where it does not. Both have `_row` in front and the same columns behind,
/// in order of `_row`.
pub(super) fn difference(found: &[RecordBatch], meant: &RecordBatch) -> Result<Option<String>> {
    let found = concat_batches(&meant.schema(), found)?;
    let numbers = |rows: &RecordBatch| rows.column(0).as_primitive::<UInt32Type>().values().clone();
    if numbers(&found) != numbers(meant) {
        let what = if found.num_rows() > meant.num_rows() { "there are more rows" } else { "rows are missing" };
        return Ok(Some(what.to_owned()));
    }
    for (column, field) in meant.schema().fields().iter().enumerate().skip(1) {
        let (there, here) = (found.column(column), meant.column(column));
        let differ = distinct(there, here)?;
        if let Some(row) = (0..differ.len()).find(|row| differ.value(*row)) {
            let (there, here) = (display_value(there.as_ref(), row), display_value(here.as_ref(), row));
            return Ok(Some(different(field.name(), &there, &here)));
        }
    }
    Ok(None)
}

/// What is said of a value that is not the one that was meant.
pub(super) fn different(column: &str, there: &str, meant: &str) -> String {
    format!("column `{column}` is {there} and {meant} was meant")
}

//! The first difference between found and expected rows.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::Int64Type;

use crate::engine::display_value;
use crate::error::Result;

/// Describes how `found` differs from `expected`; None if it does not. Both have `_row` first and then the same columns, in order of
/// `_row`.
pub(super) fn difference(found: &[RecordBatch], expected: &RecordBatch) -> Result<Option<String>> {
    let found = concat_batches(&expected.schema(), found)?;
    let numbers = |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().clone();
    if numbers(&found) != numbers(expected) {
        let what = if found.num_rows() > expected.num_rows() { "there are more rows" } else { "rows are missing" };
        return Ok(Some(what.to_owned()));
    }
    for (column, field) in expected.schema().fields().iter().enumerate().skip(1) {
        let (there, here) = (found.column(column), expected.column(column));
        let differ = distinct(there, here)?;
        if let Some(row) = (0..differ.len()).find(|row| differ.value(*row)) {
            let (there, here) = (display_value(there.as_ref(), row), display_value(here.as_ref(), row));
            return Ok(Some(different(field.name(), &there, &here)));
        }
    }
    Ok(None)
}

/// Describes a value that differs from the expected one.
pub(super) fn different(column: &str, there: &str, expected: &str) -> String {
    format!("column `{column}` is {there}, expected {expected}")
}

//! Insertion levels for rows that refer to rows of their own table: a referenced row comes first.
//!
//! SQLite checks open references whenever a row arrives, and scans the table for them. With this order there are none.
//! Rows on a cycle, and rows that depend on one, come last, together.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::Schema;

use crate::engine::{RowNumber, row_field, row_numbers};
use crate::error::Result;

/// The level of rows on a cycle.
const LAST: u32 = u32::MAX;
const UNKNOWN: u32 = LAST - 1;
const WAITING: u32 = LAST - 2;

/// Returns by index of a row the number of rows that must precede it in a chain. `parents` returns the rows that a row refers to.
pub(super) fn levels(count: usize, parents: impl Fn(usize) -> Vec<usize>) -> Vec<u32> {
    let mut levels = vec![UNKNOWN; count];
    let mut stack = Vec::new();
    for start in 0..count {
        stack.push(start);
        while let Some(row) = stack.pop() {
            let state = levels[row];
            if state != UNKNOWN && state != WAITING {
                continue;
            }
            let parents = parents(row);
            if state == UNKNOWN {
                levels[row] = WAITING;
                stack.push(row);
                stack.extend(parents.into_iter().filter(|parent| levels[*parent] == UNKNOWN));
                continue;
            }
            // All parents that can be resolved are resolved, so a parent without a level is on a cycle.
            let above = parents.into_iter().map(|parent| levels[parent]);
            levels[row] = above.fold(0, |level, parent| match parent {
                LAST | WAITING | UNKNOWN => LAST,
                parent => level.max(parent.saturating_add(1)),
            });
        }
    }
    levels
}

/// Inserts the levels of a batch's rows after its `_row`. `first` is the table's first row.
pub(super) fn with_level(batch: &RecordBatch, first: RowNumber, levels: &[u32]) -> Result<RecordBatch> {
    let numbers = row_numbers(batch.column(0)).map(|row| levels[row.index(first)]);
    let level: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(i64::from)));
    let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
    fields.insert(1, Arc::new(row_field("_level")));
    columns.insert(1, level);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parents: &[Option<usize>]) -> Vec<u32> {
        levels(parents.len(), |row| parents[row].into_iter().collect())
    }

    #[test]
    fn a_row_comes_after_the_row_it_refers_to() {
        assert_eq!(of(&[Some(3), None, Some(0), Some(1)]), [2, 0, 3, 1]);
        let chain: Vec<_> = (0..100_000).map(|row| (row < 99_999).then_some(row + 1)).collect();
        assert_eq!(of(&chain)[0], 99_999);
    }

    #[test]
    fn rows_on_a_cycle_and_behind_it_come_last() {
        assert_eq!(of(&[Some(1), Some(0), Some(1), None, Some(4)]), [LAST, LAST, LAST, 0, LAST]);
    }
}

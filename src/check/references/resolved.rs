//! The targets of references: a row of the delta, a value of production, or a marker for no row.

use arrow::array::RecordBatch;

use crate::engine::{RowNumber, RowNumbers, row_numbers};
use crate::error::{Error, Result};

/// The reference is NULL.
pub(super) const NULL_REFERENCE: RowNumber = RowNumber::MAX;
/// The reference has no row.
pub(super) const UNRESOLVED: RowNumber = RowNumber::new(u64::MAX - 1);

/// The target of each row of a table.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    /// The number of the table's first row.
    first: RowNumber,
    numbers: RowNumbers,
}

impl Targets {
    /// Returns the targets of the rows from `first`.
    pub(super) fn new(first: RowNumber, numbers: RowNumbers) -> Self {
        Self { first, numbers }
    }

    /// Returns the target of a row.
    pub(super) fn of(&self, row: RowNumber) -> RowNumber {
        self.numbers.at(row.index(self.first))
    }

    /// Replaces the target of a row.
    pub(super) fn set(&mut self, row: RowNumber, target: RowNumber) {
        self.numbers.set(row.index(self.first), target);
    }

    /// Returns the rows with their targets, in order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (RowNumber, RowNumber)> + '_ {
        self.first.through(self.numbers.len()).zip(self.numbers.iter())
    }

    /// Returns the number of the table's first row.
    pub(super) fn first(&self) -> RowNumber {
        self.first
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Returns the number after the table's last row.
    pub(super) fn end(&self) -> RowNumber {
        self.first + self.len()
    }

    /// Makes references without a row NULL, and returns their number.
    pub(super) fn give_up(&mut self) -> u64 {
        let mut count = 0;
        for index in 0..self.len() {
            if self.numbers.at(index) == UNRESOLVED {
                self.numbers.set(index, NULL_REFERENCE);
                count += 1;
            }
        }
        count
    }
}

/// Writes the result of a join, pairs of a row and a number, into the targets of the rows. A target is `offset` rows after the number.
pub(super) fn scatter(batch: &RecordBatch, targets: &mut Targets, offset: RowNumber) -> Result<()> {
    for (row, number) in row_numbers(batch.column(0)).zip(row_numbers(batch.column(1))) {
        if !(targets.first..targets.end()).contains(&row) {
            return Err(Error::internal("a row number beyond the rows"));
        }
        targets.set(row, offset + number.get() as usize);
    }
    Ok(())
}

//! Rows of text on their way into a batch: the common part of CSV and JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::{Batch, Malformed};
use crate::error::Result;

/// The size in bytes at which a batch is complete, regardless of its number of rows.
pub(super) const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The batch that is being filled.
pub(super) struct TextBatchBuilder {
    file: usize,
    schema: SchemaRef,
    rows: usize,
    lines: Vec<u64>,
    columns: Vec<StringBuilder>,
    malformed: Vec<Malformed>,
    skipped: u64,
    bytes: usize,
}

impl TextBatchBuilder {
    pub(super) fn new(file: usize, schema: SchemaRef, rows: usize) -> Self {
        let columns = schema.fields().iter().map(|_| StringBuilder::new()).collect();
        Self { file, schema, rows, lines: Vec::new(), columns, malformed: Vec::new(), skipped: 0, bytes: 0 }
    }

    /// Adds the next row's value in a column; each column gets one value before [`Self::end_row`].
    pub(super) fn value(&mut self, column: usize, value: Option<&str>) {
        match value {
            Some(value) => {
                self.bytes += value.len();
                self.columns[column].append_value(value);
            }
            None => self.columns[column].append_null(),
        }
    }

    /// Completes a row.
    pub(super) fn end_row(&mut self, line: u64) {
        self.lines.push(line);
    }

    /// Adds a row that could not be parsed.
    pub(super) fn malformed(&mut self, malformed: Malformed) {
        self.bytes += malformed.raw.len() * 2;
        self.malformed.push(malformed);
    }

    /// Counts rows that are skipped as declared.
    pub(super) fn skip(&mut self, rows: u64) {
        self.skipped += rows;
    }

    /// Returns whether the batch is complete.
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() + self.malformed.len() >= self.rows || self.bytes >= BATCH_BYTES
    }

    /// Returns the batch, unless it is empty, and starts the next one.
    pub(super) fn take(&mut self) -> Result<Option<Batch>> {
        if self.lines.is_empty() && self.malformed.is_empty() && self.skipped == 0 {
            return Ok(None);
        }
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        let whole = |column: &mut StringBuilder| -> ArrayRef {
            let mut array = column.finish();
            // Builders allocate up to twice their content, and batches are kept for long.
            array.shrink_to_fit();
            Arc::new(array)
        };
        let columns = self.columns.iter_mut().map(whole).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(lines.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let (malformed, skipped) = (std::mem::take(&mut self.malformed), std::mem::take(&mut self.skipped));
        Ok(Some(Batch { file: self.file, lines, rows, malformed, skipped }))
    }
}

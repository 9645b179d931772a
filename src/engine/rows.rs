//! Rows of the delta, in the order of files and lines.
//!
//! A row's number is its position in that order, from 0. Facts about rows (a violation, a new key, a referenced row) are
//! arrays over these numbers. The rows themselves are written once and read as often as needed, from memory up to a limit,
//! and then from the work folder. They are stored by column, so that reading one column costs one column. A column that
//! repeats the values of another is stored once:
//!
//! ```text
//!            _key   account_no   opened_on   source.account_ref   source.opened_on
//! batch 0     ■        = 0           ■              = 0                  ■           in memory
//! batch 1     □        = 0           □              = 0                  □           in the work folder
//! ```

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};

use super::RowNumber;
use super::spill::{Spill, SpillSlot};
use crate::error::{Error, Result};

/// The rows of one table of the delta.
#[derive(Debug)]
pub struct RowStore {
    schema: SchemaRef,
    batches: Vec<StoredBatch>,
    spill: Option<Spill>,
    /// The number of the first row; 0 unless a test counts from elsewhere.
    first: RowNumber,
    count: usize,
    budget: Arc<MemoryBudget>,
    in_memory: usize,
}

/// The remaining bytes of memory for all rows of a run together.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    left: AtomicUsize,
    exceeded: AtomicBool,
}

impl MemoryBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes), exceeded: AtomicBool::new(false) }
    }

    /// Returns whether the budget was ever too small.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_err() {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

/// One batch of rows.
#[derive(Debug)]
struct StoredBatch {
    first: RowNumber,
    count: usize,
    columns: Vec<Column>,
}

#[derive(Debug)]
enum Column {
    Memory(ArrayRef),
    Spilled(SpillSlot),
    /// The values of an earlier column.
    Same(usize),
}

impl RowStore {
    /// Returns the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the numbers of the rows: the first one, and the one after the last.
    pub fn range(&self) -> Range<RowNumber> {
        self.first..self.first + self.count
    }

    /// Returns the numbers of the rows, in order.
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = RowNumber> + Clone + use<> {
        self.first.through(self.count)
    }

    /// Returns the indexes of the columns whose names `choose` accepts.
    pub fn columns(&self, choose: impl Fn(&str) -> bool) -> Vec<usize> {
        let fields = self.schema.fields().iter().enumerate();
        fields.filter(|(_, field)| choose(field.name())).map(|(at, _)| at).collect()
    }

    /// Returns by batch the number of its first row and its number of rows.
    pub fn stretches(&self) -> impl ExactSizeIterator<Item = (RowNumber, usize)> + '_ {
        self.batches.iter().map(|batch| (batch.first, batch.count))
    }

    /// Returns some columns of a batch.
    ///
    /// # Errors
    /// Returns an error if the work folder cannot be read.
    pub fn batch(&self, at: usize, columns: &[usize]) -> Result<RecordBatch> {
        let kept = self.batches.get(at).ok_or_else(|| Error::internal(format!("no batch {at}")))?;
        let fields: Vec<_> = columns.iter().map(|column| self.schema.field(*column).clone()).collect();
        let arrays = columns.iter().map(|column| self.array(kept, *column)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.count));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }

    fn array(&self, kept: &StoredBatch, column: usize) -> Result<ArrayRef> {
        match (&kept.columns[column], &self.spill) {
            (Column::Memory(array), _) => Ok(array.clone()),
            (Column::Same(other), _) => self.array(kept, *other),
            (Column::Spilled(place), Some(spill)) => spill.read(&self.schema.fields()[column], *place),
            (Column::Spilled(_), None) => Err(Error::internal("rows in a missing file")),
        }
    }

    /// Returns some columns of all rows, in order; each batch with the number of its first row.
    pub fn batches(
        self: &Arc<Self>,
        columns: Vec<usize>,
    ) -> impl Iterator<Item = Result<(RowNumber, RecordBatch)>> + Send + use<> {
        let rows = self.clone();
        (0..self.batches.len()).map(move |at| Ok((rows.batches[at].first, rows.batch(at, &columns)?)))
    }
}

impl Drop for RowStore {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.in_memory, Ordering::Relaxed);
    }
}

/// Writes [`RowStore`].
pub struct RowsWriter {
    rows: RowStore,
    folder: PathBuf,
}

impl RowsWriter {
    pub(super) fn new(schema: SchemaRef, budget: &Arc<MemoryBudget>, folder: &Path) -> Self {
        let rows = RowStore {
            schema,
            batches: Vec::new(),
            spill: None,
            first: RowNumber::default(),
            count: 0,
            budget: budget.clone(),
            in_memory: 0,
        };
        Self { rows, folder: folder.to_owned() }
    }

    /// Counts the rows from this number instead of 0.
    #[must_use]
    pub fn starting_at(mut self, first: RowNumber) -> Self {
        self.rows.first = first;
        self
    }

    /// Returns the number of the next row.
    pub fn next(&self) -> RowNumber {
        self.rows.first + self.rows.count
    }

    /// Adds the next rows.
    ///
    /// # Errors
    /// Returns an error if the work folder is full or not writable.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let count = batch.num_rows();
        if count == 0 {
            return Ok(());
        }
        let data: Vec<_> = batch.columns().iter().map(Array::to_data).collect();
        // Equal columns have the same buffers, so only columns with the same first buffer are compared.
        let mut by_buffer: HashMap<Option<*const u8>, Vec<usize>> = HashMap::new();
        let mut same: Vec<Option<usize>> = Vec::with_capacity(data.len());
        for (at, column) in data.iter().enumerate() {
            let others = by_buffer.entry(column.buffers().first().map(arrow::buffer::Buffer::as_ptr)).or_default();
            same.push(others.iter().copied().find(|earlier| data[*earlier].ptr_eq(column)));
            others.push(at);
        }
        let own = || batch.columns().iter().zip(&same).filter(|(_, same)| same.is_none()).map(|(array, _)| array);
        let bytes: usize = own().map(Array::get_array_memory_size).sum();
        // Once rows went to the work folder, all later rows follow them.
        let in_memory = self.rows.spill.is_none() && self.rows.budget.take(bytes);
        if in_memory {
            self.rows.in_memory += bytes;
        }
        let mut columns = Vec::with_capacity(same.len());
        for (at, same) in same.into_iter().enumerate() {
            columns.push(match same {
                Some(other) => Column::Same(other),
                None if in_memory => Column::Memory(batch.column(at).clone()),
                None => {
                    let spill = match &mut self.rows.spill {
                        Some(spill) => spill,
                        none => none.insert(Spill::try_new(&self.folder)?),
                    };
                    Column::Spilled(spill.write(&self.rows.schema.fields()[at], batch.column(at))?)
                }
            });
        }
        self.rows.batches.push(StoredBatch { first: self.next(), count, columns });
        self.rows.count += count;
        Ok(())
    }

    /// Completes the rows.
    pub fn finish(self) -> Arc<RowStore> {
        Arc::new(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn rows_come_back_in_order_whether_they_fit_into_memory_or_not() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let folder = tempfile::tempdir().unwrap();
        for most_in_memory in [0, 3000, 1 << 20] {
            let budget = Arc::new(MemoryBudget::new(most_in_memory));
            let mut writer = RowsWriter::new(schema.clone(), &budget, folder.path());
            for start in (0..1000).step_by(100) {
                let column = Int64Array::from_iter_values(start..start + 100);
                writer.write(&RecordBatch::try_new(schema.clone(), vec![Arc::new(column)]).unwrap()).unwrap();
            }
            let rows = writer.finish();
            assert_eq!(rows.count(), 1000);
            assert_eq!(rows.spill.is_none(), most_in_memory == 1 << 20);
            let mut expected = 0;
            for batch in rows.batches(vec![0]) {
                let (first, batch) = batch.unwrap();
                assert_eq!(first.get(), expected as u64);
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
                assert!(column.values().iter().copied().eq(expected..expected + 100));
                expected += 100;
            }
            assert_eq!(expected, 1000);
            drop(rows);
            assert_eq!(budget.left.load(Ordering::Relaxed), most_in_memory);
        }
    }

    #[test]
    fn identical_column_is_stored_once_and_read_alone() {
        let fields = [("a", DataType::Utf8), ("b", DataType::Decimal128(9, 2)), ("c", DataType::Utf8)];
        let schema = Arc::new(Schema::new(
            fields.map(|(name, data_type)| Field::new(name, data_type, true)).into_iter().collect::<Vec<_>>(),
        ));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("a longer text")]));
        let numbers = Decimal128Array::from(vec![Some(1), None, Some(3)]).with_precision_and_scale(9, 2).unwrap();
        // A cast to the same type gives another array over the same values.
        let again = arrow::compute::cast(&texts, &DataType::Utf8).unwrap();
        let whole = RecordBatch::try_new(schema.clone(), vec![texts, Arc::new(numbers), again]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for most_in_memory in [0, 1 << 20] {
            let mut writer =
                RowsWriter::new(schema.clone(), &Arc::new(MemoryBudget::new(most_in_memory)), folder.path());
            writer.write(&whole).unwrap();
            writer.write(&whole.slice(1, 2)).unwrap();
            let rows = writer.finish();
            assert!(rows.batches.iter().all(|batch| matches!(batch.columns[2], Column::Same(0))));
            assert_eq!(rows.batch(0, &[0, 1, 2]).unwrap(), whole);
            assert_eq!(rows.batch(1, &[2, 1]).unwrap(), whole.slice(1, 2).project(&[2, 1]).unwrap());
            assert_eq!(rows.batch(1, &[]).unwrap().num_rows(), 2);
            assert_eq!(rows.stretches().collect::<Vec<_>>(), [(RowNumber::new(0), 3), (RowNumber::new(3), 2)]);
        }
    }
}

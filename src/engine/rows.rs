//! Rows of the delta, in the order of files and lines, and sets of them.
//!
//! A row's number is its place in that order, from 0: whatever is known about a row (a violation, its new key, the row it
//! refers to) is kept as an array over these numbers, so that the rows themselves are written once and read as often as
//! needed, from memory while they are few and from the work folder when they are many.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::{Error, Result};

/// A set of rows, a bit each.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    bits: Vec<u64>,
    count: usize,
}

impl Mask {
    /// Adds a row; true where it was not in the set.
    pub fn insert(&mut self, row: u32) -> bool {
        let (word, bit) = (row as usize / 64, 1 << (row % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += usize::from(new);
        new
    }

    /// Whether a row is in the set.
    pub fn contains(&self, row: u32) -> bool {
        self.bits.get(row as usize / 64).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }

    /// How many rows are in the set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows that are in this set or the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let bits: Vec<u64> = (0..self.bits.len().max(other.bits.len()))
            .map(|word| self.bits.get(word).unwrap_or(&0) | other.bits.get(word).unwrap_or(&0))
            .collect();
        let count = bits.iter().map(|word| word.count_ones() as usize).sum();
        Self { bits, count }
    }

    /// The rows of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bits.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    word as u32 * 64 + bit
                })
            })
        })
    }

    /// One value a row of `start..start + length`: whether the row is in the set.
    pub fn slice(&self, start: u32, length: usize) -> BooleanBuffer {
        let mut buffer = BooleanBufferBuilder::new(length);
        for row in start..start + length as u32 {
            buffer.append(self.contains(row));
        }
        buffer.finish()
    }

    /// The rows of `start..start + length` that are not in the set, as a filter.
    pub fn others(&self, start: u32, length: usize) -> BooleanArray {
        BooleanArray::new(!&self.slice(start, length), None)
    }
}

/// The rows of one table of the delta.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    memory: Vec<RecordBatch>,
    spilled: Option<Arc<File>>,
    count: u32,
}

impl Rows {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The rows in order, each batch with the number of its first row.
    ///
    /// # Errors
    /// Where the work folder cannot be read.
    pub fn batches(&self) -> Result<impl Iterator<Item = Result<(u32, RecordBatch)>> + Send + use<>> {
        let spilled = match &self.spilled {
            Some(file) => Some(StreamReader::try_new(BufReader::new(FromStart { file: file.clone(), at: 0 }), None)?),
            None => None,
        };
        let batches = self.memory.clone().into_iter().map(Ok).chain(spilled.into_iter().flatten());
        let mut next = 0;
        Ok(batches.map(move |batch| {
            let batch = batch?;
            let first = next;
            next += batch.num_rows() as u32;
            Ok((first, batch))
        }))
    }
}

/// Writes [`Rows`].
pub struct RowsWriter {
    rows: Rows,
    in_memory: usize,
    most_in_memory: usize,
    folder: PathBuf,
    spill: Option<StreamWriter<BufWriter<File>>>,
}

impl RowsWriter {
    pub(super) fn new(schema: SchemaRef, most_in_memory: usize, folder: &Path) -> Self {
        let rows = Rows { schema, memory: Vec::new(), spilled: None, count: 0 };
        Self { rows, in_memory: 0, most_in_memory, folder: folder.to_owned(), spill: None }
    }

    /// How many rows were written, and so the number of the next one.
    pub fn count(&self) -> u32 {
        self.rows.count
    }

    /// Adds the next rows.
    ///
    /// # Errors
    /// Where the work folder is full or cannot be written, or a table has more than 2³¹ rows.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        if self.rows.count as usize + rows > i32::MAX as usize {
            return Err(Error::input("a delta of one table has more than 2,147,483,647 rows")
                .hint("split its files over two runs"));
        }
        self.rows.count += rows as u32;
        if self.spill.is_none() && self.in_memory + batch.get_array_memory_size() <= self.most_in_memory {
            self.in_memory += batch.get_array_memory_size();
            self.rows.memory.push(batch);
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => {
                // The file has no name: whatever ends this program, nothing of it stays behind.
                let file = tempfile::tempfile_in(&self.folder).map_err(|error| work_folder(&self.folder, &error))?;
                self.rows.spilled =
                    Some(Arc::new(file.try_clone().map_err(|error| work_folder(&self.folder, &error))?));
                self.spill.insert(StreamWriter::try_new(BufWriter::new(file), &self.rows.schema)?)
            }
        };
        spill.write(&batch).map_err(|error| work_folder(&self.folder, &error))
    }

    /// Ends the writing.
    pub fn finish(mut self) -> Result<Arc<Rows>> {
        if let Some(mut spill) = self.spill.take() {
            spill.finish().map_err(|error| work_folder(&self.folder, &error))?;
        }
        Ok(Arc::new(self.rows))
    }
}

/// Reads a file from its start, however often it is read at the same time.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn work_folder(path: &Path, error: &impl std::fmt::Display) -> Error {
    Error::unreachable(format!("cannot use the work folder `{}`: {error}", path.display()))
        .hint("set TMPDIR to a folder with room for the delta")
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn a_mask_holds_what_was_put_in_and_counts_it_once() {
        let mut mask = Mask::default();
        assert!(mask.insert(3) && mask.insert(200) && !mask.insert(3));
        assert_eq!(mask.count(), 2);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [3, 200]);
        assert_eq!(mask.others(2, 3).iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
        let mut other = Mask::default();
        other.insert(64);
        assert_eq!(mask.union(&other).iter().collect::<Vec<_>>(), [3, 64, 200]);
    }

    #[test]
    fn rows_come_back_in_order_whether_they_fit_into_memory_or_not() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let folder = tempfile::tempdir().unwrap();
        for most_in_memory in [0, 3000, 1 << 20] {
            let mut writer = RowsWriter::new(schema.clone(), most_in_memory, folder.path());
            for start in (0..1000).step_by(100) {
                let column = Int64Array::from_iter_values(start..start + 100);
                writer.write(RecordBatch::try_new(schema.clone(), vec![Arc::new(column)]).unwrap()).unwrap();
            }
            let rows = writer.finish().unwrap();
            assert_eq!(rows.count(), 1000);
            assert_eq!(rows.spilled.is_none(), most_in_memory == 1 << 20);
            let mut expected = 0;
            for batch in rows.batches().unwrap() {
                let (first, batch) = batch.unwrap();
                assert_eq!(i64::from(first), expected);
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
                assert!(column.values().iter().copied().eq(expected..expected + 100));
                expected += 100;
            }
            assert_eq!(expected, 1000);
        }
    }
}

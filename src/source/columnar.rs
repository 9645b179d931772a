//! Typed rows on their way into a batch: the common part of Parquet and Arrow IPC.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::nested::as_json;
use super::text_batch::BATCH_BYTES;
use super::{Batch, Malformed, Piece, SourceFile};
use crate::error::{Error, Result};

/// Returns the type of a column's values without dictionaries, views, and run-length encoding.
pub(super) fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

/// A batch of a reader, with the values that its types do not hold.
pub(super) struct Decoded {
    pub(super) batch: RecordBatch,
    /// The values by row and column of the batch.
    pub(super) unstorable: BTreeMap<(usize, usize), Unstorable>,
}

/// A value of a file that no type here holds.
pub(super) struct Unstorable {
    /// A phrase about the column.
    pub(super) reason: &'static str,
    /// The exact value, if the batch does not have it.
    pub(super) text: Option<String>,
}

impl From<RecordBatch> for Decoded {
    fn from(batch: RecordBatch) -> Self {
        Self { batch, unstorable: BTreeMap::new() }
    }
}

/// Returns the loaded columns of a file, by their position in the file.
pub(super) fn projection(file: &SourceFile) -> Vec<usize> {
    file.columns.iter().enumerate().filter_map(|(index, place)| place.map(|_| index)).collect()
}

/// Returns the error for a file that its reader cannot decode.
pub(super) fn damaged(file: &SourceFile, error: impl std::fmt::Display) -> Error {
    file.unreadable(error)
        .hint("the file is truncated or damaged; copy it again, and compare its size with the original")
}

/// Runs a decoder over a file that may be damaged. The decoders do not validate everything, so a panic is a fault of
/// the file too.
pub(super) fn guarded<T>(file: &SourceFile, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(damaged(file, "it is inconsistent")))
}

/// Returns the batches of a reader of one file, in the source's schema, with at most `rows` rows each.
///
/// `expected` is the number of rows that the file declares.
pub(super) fn batches(
    index: usize,
    file: SourceFile,
    schema: SchemaRef,
    rows: usize,
    expected: Option<u64>,
    reader: impl Iterator<Item = Result<impl Into<Decoded> + 'static, ArrowError>> + Send + 'static,
) -> Piece {
    from(0, index, file, schema, rows, expected, reader)
}

/// Returns the batches of a part of a file that starts after `before` rows.
pub(super) fn from(
    before: u64,
    index: usize,
    file: SourceFile,
    schema: SchemaRef,
    rows: usize,
    expected: Option<u64>,
    reader: impl Iterator<Item = Result<impl Into<Decoded> + 'static, ArrowError>> + Send + 'static,
) -> Piece {
    let unstorable = BTreeMap::new();
    Box::new(Rows { index, file, schema, limit: rows, expected, reader, before, read: 0, pending: None, unstorable })
}

struct Rows<R> {
    index: usize,
    file: SourceFile,
    schema: SchemaRef,
    /// The maximum number of rows per batch.
    limit: usize,
    expected: Option<u64>,
    reader: R,
    before: u64,
    /// The number of rows returned so far.
    read: u64,
    /// The rest of the reader's batch, and how many of its rows fit into one batch.
    pending: Option<(RecordBatch, usize)>,
    /// The values of the reader's batch that its types do not hold, by number of the row and column of the source.
    unstorable: BTreeMap<(u64, usize), Unstorable>,
}

impl<D: Into<Decoded>, R: Iterator<Item = Result<D, ArrowError>>> Iterator for Rows<R> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl<D: Into<Decoded>, R: Iterator<Item = Result<D, ArrowError>>> Rows<R> {
    fn advance(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some((batch, step)) = self.pending.take() {
                let count = batch.num_rows().min(step);
                if count > 0 {
                    let head = batch.slice(0, count);
                    self.pending = Some((batch.slice(count, batch.num_rows() - count), step));
                    return self.hand_over(&head).map(Some);
                }
            }
            let Self { file, reader, .. } = self;
            let read = guarded(file, || reader.next().transpose().map_err(|error| damaged(file, error)))?;
            let Some(batch) = read else {
                return match self.expected {
                    Some(expected) if expected != self.read => {
                        Err(damaged(&self.file, format!("it declares {expected} rows, but contains {}", self.read)))
                    }
                    _ => Ok(None),
                };
            };
            let Decoded { batch, unstorable } = batch.into();
            let (first, places) = (self.before + self.read + 1, self.file.columns.iter().flatten().collect::<Vec<_>>());
            self.unstorable =
                unstorable.into_iter().map(|((row, at), value)| ((first + row as u64, *places[at]), value)).collect();
            let batch = self.aligned(&batch)?;
            let mut bytes = 0;
            for column in batch.columns() {
                bytes += column.to_data().get_slice_memory_size()?;
            }
            let step = match bytes / BATCH_BYTES {
                0 => self.limit,
                parts => (batch.num_rows() / (parts + 1)).clamp(1, self.limit),
            };
            self.pending = Some((batch, step));
        }
    }

    /// Converts the reader's batch to the columns and types of the source.
    fn aligned(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (column, place) in batch.columns().iter().zip(self.file.columns.iter().flatten()) {
            let wanted = self.schema.field(*place).data_type();
            let column = if column.data_type() == wanted {
                Arc::clone(column)
            } else if plain(column.data_type()).is_nested() {
                let json = guarded(&self.file, || as_json(column).map_err(|error| damaged(&self.file, error)))?;
                Arc::new(json) as ArrayRef
            } else {
                guarded(&self.file, || {
                    cast_with_options(column, wanted, &options).map_err(|error| damaged(&self.file, error))
                })?
            };
            columns[*place] = Some(column);
        }
        let columns: Option<Vec<ArrayRef>> = columns.into_iter().collect();
        let columns = columns.ok_or_else(|| self.file.changed("a column is missing"))?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn hand_over(&mut self, batch: &RecordBatch) -> Result<Batch> {
        let first = self.before + self.read + 1;
        self.read += batch.num_rows() as u64;
        let last = self.before + self.read;
        let lines = first..=last;
        let mut faults = with_nul(batch);
        with_surplus_digits(batch, &mut faults);
        for (line, column) in self.unstorable.range((first, 0)..=(last, usize::MAX)).map(|(place, _)| *place) {
            faults.entry((line - first) as usize).or_insert(column);
        }
        if faults.is_empty() {
            return Ok(Batch {
                file: self.index,
                lines: lines.collect(),
                rows: batch.clone(),
                malformed: Vec::new(),
                skipped: 0,
            });
        }
        let good: BooleanArray = (0..batch.num_rows()).map(|row| Some(!faults.contains_key(&row))).collect();
        let rows = filter_record_batch(batch, &good)?;
        let lines = lines.enumerate().filter(|(row, _)| !faults.contains_key(row)).map(|(_, line)| line).collect();
        let malformed = faults
            .into_iter()
            .map(|(row, column)| {
                let (name, line) = (self.schema.field(column).name(), first + row as u64);
                let what = match (self.unstorable.get(&(line, column)), batch.column(column).data_type()) {
                    (Some(value), _) => value.reason,
                    (None, DataType::Utf8) => "contains a NUL character",
                    (None, _) => "has more digits than its type",
                };
                let exact = |column: usize| self.unstorable.get(&(line, column)).and_then(|value| value.text.clone());
                malformed(batch, row, line, format!("column \"{name}\" {what}"), exact)
            })
            .collect::<Result<_>>()?;
        Ok(Batch { file: self.index, lines, rows, malformed, skipped: 0 })
    }
}

/// Adds the rows with a decimal that has more digits than its own type, with the first such column.
fn with_surplus_digits(batch: &RecordBatch, rows: &mut BTreeMap<usize, usize>) {
    for (column, array) in batch.columns().iter().enumerate() {
        match array.data_type() {
            DataType::Decimal128(precision, _) => {
                let decimals = array.as_primitive::<Decimal128Type>();
                if decimals.validate_decimal_precision(*precision).is_err() {
                    let limit = 10_u128.pow(u32::from(*precision));
                    let surplus = |row: &usize| decimals.is_valid(*row) && decimals.value(*row).unsigned_abs() >= limit;
                    (0..decimals.len()).filter(surplus).for_each(|row| _ = rows.entry(row).or_insert(column));
                }
            }
            DataType::Decimal256(precision, _) => {
                let decimals = array.as_primitive::<Decimal256Type>();
                let surplus = |row: &usize| {
                    decimals.is_valid(*row) && decimals.slice(*row, 1).validate_decimal_precision(*precision).is_err()
                };
                if decimals.validate_decimal_precision(*precision).is_err() {
                    (0..decimals.len()).filter(surplus).for_each(|row| _ = rows.entry(row).or_insert(column));
                }
            }
            _ => {}
        }
    }
}

/// Returns the rows with a NUL character in a text column, with the first such column. No target can store one.
fn with_nul(batch: &RecordBatch) -> BTreeMap<usize, usize> {
    let mut rows = BTreeMap::new();
    for (column, array) in batch.columns().iter().enumerate() {
        let Some(text) = array.as_string_opt::<i32>() else { continue };
        let offsets = text.value_offsets();
        let (start, end) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
        if !text.value_data()[start as usize..end as usize].contains(&0) {
            continue;
        }
        for (row, value) in text.iter().enumerate() {
            if value.is_some_and(|value| value.as_bytes().contains(&0)) {
                rows.entry(row).or_insert(column);
            }
        }
    }
    rows
}

/// Returns a row as texts. `exact` has the values that the batch does not have.
fn malformed(
    batch: &RecordBatch,
    row: usize,
    line: u64,
    reason: String,
    exact: impl Fn(usize) -> Option<String>,
) -> Result<Malformed> {
    let options = FormatOptions::default();
    let mut fields = Vec::with_capacity(batch.num_columns());
    for (at, column) in batch.columns().iter().enumerate() {
        let value = ArrayFormatter::try_new(column, &options)?;
        fields.push(exact(at).or_else(|| column.is_valid(row).then(|| value.value(row).to_string())));
    }
    let raw = fields.iter().map(|field| field.as_deref().unwrap_or_default()).collect::<Vec<_>>().join(",");
    Ok(Malformed { line, raw, fields, reason, lost: false })
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, Int64Array, LargeStringArray, StringArray, StringViewArray};
    use arrow::datatypes::{Field, Int8Type, Schema};

    use super::super::files::Compression;
    use super::*;
    use crate::spec::Format;

    fn file(columns: Vec<Option<usize>>) -> SourceFile {
        SourceFile {
            path: "x".into(),
            name: "x.parquet".into(),
            format: Format::Parquet,
            bytes: 1,
            compression: Compression::None,
            columns,
            numbered: false,
        }
    }

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(
            fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>(),
        ))
    }

    fn text_of(batch: &Batch, column: usize) -> Vec<Option<&str>> {
        batch.rows.column(column).as_string::<i32>().iter().collect()
    }

    #[test]
    fn dictionaries_views_and_narrow_integers_become_plain() {
        let dictionary: DictionaryArray<Int8Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        let batch = RecordBatch::try_from_iter([
            ("d", Arc::new(dictionary) as ArrayRef),
            ("v", Arc::new(StringViewArray::from(vec!["a string that is not inlined", "b", "c"]))),
            ("l", Arc::new(LargeStringArray::from(vec!["1", "2", "3"]))),
            ("n", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ])
        .unwrap();
        for field in batch.schema().fields().iter().take(3) {
            assert_eq!(plain(field.data_type()), DataType::Utf8);
        }
        let wanted =
            schema(&[("n", DataType::Int64), ("d", DataType::Utf8), ("v", DataType::Utf8), ("l", DataType::Utf8)]);
        let file = file(vec![Some(1), Some(2), Some(3), Some(0)]);
        let read: Vec<Batch> =
            batches(0, file, Arc::clone(&wanted), 9, None, [Ok(batch)].into_iter()).collect::<Result<_>>().unwrap();
        assert_eq!(read[0].rows.schema(), wanted);
        assert_eq!(read[0].rows.column(0).as_ref(), &Int64Array::from(vec![1, 2, 3]));
        assert_eq!(text_of(&read[0], 1), [Some("x"), None, Some("x")]);
        assert_eq!(text_of(&read[0], 2), [Some("a string that is not inlined"), Some("b"), Some("c")]);
    }

    #[test]
    fn a_row_with_a_nul_is_malformed_and_keeps_its_number() {
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(4)])) as ArrayRef),
            ("t", Arc::new(StringArray::from(vec![Some("a"), Some("b\0"), None, Some("\0")]))),
        ])
        .unwrap();
        let wanted = schema(&[("n", DataType::Int32), ("t", DataType::Utf8)]);
        let read: Vec<Batch> = batches(0, file(vec![Some(0), Some(1)]), wanted, 3, None, [Ok(batch)].into_iter())
            .collect::<Result<_>>()
            .unwrap();
        assert_eq!(read[0].lines, [1, 3]);
        assert_eq!(text_of(&read[0], 1), [Some("a"), None]);
        assert_eq!(read[0].malformed[0].line, 2);
        assert_eq!(read[0].malformed[0].fields, [Some("2".to_string()), Some("b\0".to_string())]);
        assert_eq!(read[0].malformed[0].reason, "column \"t\" contains a NUL character");
        assert_eq!((read[1].lines.len(), read[1].malformed[0].line), (0, 4));
    }

    #[test]
    fn a_large_batch_is_handed_over_in_parts() {
        let megabyte = "x".repeat(1024 * 1024);
        let array = StringArray::from_iter_values((0..40).map(|_| &megabyte));
        let batch = RecordBatch::try_from_iter([("t", Arc::new(array) as ArrayRef)]).unwrap();
        let wanted = schema(&[("t", DataType::Utf8)]);
        let read: Vec<Batch> = batches(0, file(vec![Some(0)]), wanted, 1000, None, [Ok(batch)].into_iter())
            .collect::<Result<_>>()
            .unwrap();
        assert!(read.len() >= 3 && read.iter().all(|batch| batch.lines.len() <= 16), "{}", read.len());
        assert_eq!(read.iter().flat_map(|batch| batch.lines.clone()).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_of_a_decoder_is_a_damaged_file() {
        let reader = std::iter::from_fn(|| -> Option<Result<RecordBatch, ArrowError>> { panic!("out of bounds") });
        let mut read = batches(0, file(vec![]), schema(&[]), 9, None, reader);
        let error = read.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "cannot read `x.parquet`: it is inconsistent");
    }
}

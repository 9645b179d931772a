//! A segment in the store: its mappings as Parquet, and a manifest that describes them.
//!
//! A segment can have as many mappings as a company has records, so it passes through a temporary file in batches.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use blake3::{Hash, Hasher};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::engine::display_value;
use crate::error::{Error, Result};
use crate::journal::FileHash;
use crate::target::{Batches, Segment};

/// Rows per row group; the writer keeps one row group in memory.
const GROUP_ROWS: usize = 128 << 10;

/// Rows per batch when reading.
const BATCH_ROWS: usize = 8192;

/// The version of a manifest.
pub const VERSION: u32 = 1;

/// The description of a segment in a store. It is written after the mappings; without it, the segment does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The ID of the target that owns the mappings.
    pub target: String,
    /// The segment: run, table, and number of mappings.
    pub segment: Segment,
    /// The columns of the mappings, `legacy_key` first, with their Arrow types.
    pub columns: Vec<Column>,
    /// The size of the file with the mappings, in bytes.
    pub bytes: u64,
    /// The hash of that file.
    pub hash: FileHash,
    /// The smallest and the largest legacy key, in byte order.
    pub legacy_keys: (String, String),
    /// The smallest and the largest new key, with `, ` between their columns.
    pub keys: (String, String),
    /// The time of writing, in UTC (RFC 3339).
    pub written_at: String,
    /// The version of the program that wrote it.
    pub written_by: String,
}

/// A column of mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    pub r#type: String,
}

/// The part of a manifest that is read before its version is known.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

/// The mappings of a segment, in an unnamed temporary file.
#[derive(Debug)]
pub struct Mappings {
    file: File,
    schema: SchemaRef,
    rows: u64,
}

impl Mappings {
    /// Opens the mappings in a Parquet file whose hash has been verified.
    pub(super) fn open(file: File) -> Result<Self, ParquetError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.try_clone()?)?;
        let rows = reader.metadata().file_metadata().num_rows().unsigned_abs();
        Ok(Self { schema: reader.schema().clone(), file, rows })
    }

    /// Returns the columns: `legacy_key`, and those of the key.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the number of mappings in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the mappings in batches, ordered by legacy key.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn batches(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let fault = |error: ParquetError| Error::internal(format!("cannot read mappings from Parquet: {error}"));
        let file = self.file.try_clone().map_err(unusable)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(fault)?;
        let batches = reader.with_batch_size(BATCH_ROWS).build().map_err(fault)?;
        Ok(batches.map(|batch| batch.map_err(Error::from)))
    }

    /// Returns the file, positioned at its start.
    pub(super) fn bytes(&self) -> std::io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// Returns the digest of the mappings.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn digest(&self) -> Result<Hash> {
        let mut digest = Digest::default();
        self.batches()?.try_for_each(|batch| digest.add(&batch?))?;
        Ok(digest.finish())
    }
}

/// A digest of mappings: the hash of all values in order, with the columns' names and types.
#[derive(Default)]
pub struct Digest {
    hasher: Hasher,
    converter: Option<RowConverter>,
}

impl Digest {
    /// Adds the next mappings.
    ///
    /// # Errors
    /// Returns an error if a column's type cannot be ordered.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let converter = match &mut self.converter {
            Some(converter) => converter,
            none => {
                for field in batch.schema().fields() {
                    self.hasher.update(format!("{:?} {}\n", field.name(), field.data_type()).as_bytes());
                }
                none.insert(converter(batch.columns())?)
            }
        };
        for row in &converter.convert_columns(batch.columns())? {
            self.hasher.update(&(row.as_ref().len() as u64).to_le_bytes());
            self.hasher.update(row.as_ref());
        }
        Ok(())
    }

    /// Returns the hash. It is the same for all empty mappings.
    pub fn finish(&self) -> Hash {
        self.hasher.finalize()
    }
}

fn converter(columns: &[ArrayRef]) -> Result<RowConverter> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?)
}

/// Writes the mappings of a segment, `legacy_key` and the key's columns, ordered by legacy key, into a file. Returns the
/// file and its manifest.
///
/// # Errors
/// Returns an error if there are no mappings, or another number than in the ledger.
pub(super) async fn write(
    segment: &Segment,
    target: &str,
    mut mappings: Batches<'_>,
) -> Result<(Manifest, Mappings, Hash)> {
    let mut writing: Option<Writing> = None;
    while let Some(batch) = mappings.next().await {
        let batch = batch?;
        if batch.num_rows() > 0 {
            let writing = match &mut writing {
                Some(writing) => writing,
                none => none.insert(Writing::try_new(batch.schema())?),
            };
            writing.add(&batch)?;
        }
    }
    let Some(writing) = writing else {
        return Err(Error::refused(format!(
            "the key map of `{}` has no mapping of run {}, but its ledger has {}",
            segment.table, segment.run, segment.rows
        ))
        .hint("restore the mappings of a store with `pipeline keymap restore FILE`, or list differences with `pipeline keymap verify FILE`"));
    };
    if writing.rows != segment.rows {
        return Err(Error::refused(format!(
            "the key map of `{}` has {} mappings of run {}, but its ledger has {}",
            segment.table, writing.rows, segment.run, segment.rows
        ))
        .hint("the key map was changed by another program; list differences with `pipeline keymap verify FILE`"));
    }
    writing.finish(segment, target)
}

/// The writer of a segment's file.
struct Writing {
    writer: ArrowWriter<File>,
    file: File,
    schema: SchemaRef,
    rows: u64,
    legacy_keys: Option<(String, String)>,
    keys: RowConverter,
    /// The smallest and the largest key, as ordered rows and as text.
    ends: Option<[(OwnedRow, String); 2]>,
    digest: Digest,
}

impl Writing {
    fn try_new(schema: SchemaRef) -> Result<Self> {
        let file = tempfile::tempfile().map_err(unusable)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(file.try_clone().map_err(unusable)?, schema.clone(), Some(properties));
        let sorts = schema.fields()[1..].iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            writer: writer.map_err(unwritten)?,
            file,
            rows: 0,
            legacy_keys: None,
            keys: RowConverter::new(sorts)?,
            ends: None,
            digest: Digest::default(),
            schema,
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(unwritten)?;
        self.digest.add(batch)?;
        let legacy = batch.column(0).as_string::<i32>();
        let last = legacy.value(batch.num_rows() - 1).to_owned();
        match &mut self.legacy_keys {
            Some((_, greatest)) => *greatest = last,
            none => *none = Some((legacy.value(0).to_owned(), last)),
        }
        let key = &batch.columns()[1..];
        let rows = self.keys.convert_columns(key)?;
        let (mut smallest, mut greatest) = (0, 0);
        for at in 1..rows.num_rows() {
            if rows.row(at) < rows.row(smallest) {
                smallest = at;
            }
            if rows.row(at) > rows.row(greatest) {
                greatest = at;
            }
        }
        let end = |at: usize| {
            let parts: Vec<_> = key.iter().map(|column| display_value(column.as_ref(), at)).collect();
            (rows.row(at).owned(), parts.join(", "))
        };
        match &mut self.ends {
            None => self.ends = Some([end(smallest), end(greatest)]),
            Some([least_yet, greatest_yet]) => {
                if rows.row(smallest) < least_yet.0.row() {
                    *least_yet = end(smallest);
                }
                if rows.row(greatest) > greatest_yet.0.row() {
                    *greatest_yet = end(greatest);
                }
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(self, segment: &Segment, target: &str) -> Result<(Manifest, Mappings, Hash)> {
        self.writer.close().map_err(unwritten)?;
        let mut hasher = Hasher::new();
        let mut file = self.file;
        file.seek(SeekFrom::Start(0)).map_err(unusable)?;
        hasher.update_reader(&file).map_err(unusable)?;
        let manifest = Manifest {
            version: VERSION,
            target: target.to_owned(),
            segment: segment.clone(),
            columns: self.schema.fields().iter().map(|field| column(field)).collect(),
            bytes: hasher.count(),
            hash: hasher.finalize().into(),
            legacy_keys: self.legacy_keys.unwrap_or_default(),
            keys: self.ends.map(|[least, greatest]| (least.1, greatest.1)).unwrap_or_default(),
            written_at: format!("{:.0}", jiff::Timestamp::now()),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mappings = Mappings::open(file).map_err(unwritten)?;
        Ok((manifest, mappings, self.digest.finish()))
    }
}

fn column(field: &Field) -> Column {
    Column { name: field.name().clone(), r#type: field.data_type().to_string() }
}

fn unwritten(error: ParquetError) -> Error {
    Error::internal(format!("cannot write cannot read mappings from Parquet: {error}"))
}

/// Returns the error for an unusable temporary file.
pub(super) fn unusable(error: std::io::Error) -> Error {
    Error::unreachable(format!("cannot use the folder for temporary files: {error}"))
        .hint("set TMPDIR to a folder with space for the key map")
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array, Int16Array, Int32Array,
        Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::i256;
    use futures::StreamExt;
    use proptest::prelude::*;
    use std::sync::Arc;

    use super::*;

    fn mappings(key: Vec<ArrayRef>) -> RecordBatch {
        let legacy: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..key[0].len()).map(|row| format!("L{row:06}"))));
        let columns = std::iter::once(("legacy_key".to_owned(), legacy))
            .chain(key.into_iter().enumerate().map(|(at, values)| (format!("k{at}"), values)));
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn segment(rows: usize) -> Segment {
        Segment { run: "r1".into(), table: "item".into(), rows: rows as u64 }
    }

    fn written(rows: usize, batches: &[RecordBatch]) -> Result<(Manifest, Mappings, Hash)> {
        let batches = futures::stream::iter(batches.to_vec()).map(Ok).boxed();
        futures::executor::block_on(write(&segment(rows), "t", batches))
    }

    fn comes_back(mappings: &RecordBatch) -> Manifest {
        let (manifest, file, digest) = written(mappings.num_rows(), std::slice::from_ref(mappings)).unwrap();
        assert_eq!(
            (manifest.bytes, file.rows()),
            (file.bytes().unwrap().metadata().unwrap().len(), manifest.segment.rows)
        );
        let found: Vec<_> = file.batches().unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(arrow::compute::concat_batches(&mappings.schema(), &found).unwrap().columns(), mappings.columns());
        assert_eq!(file.digest().unwrap(), digest);
        // In however many batches they come, it is the same segment.
        let halves = [mappings.slice(0, 1), mappings.slice(1, mappings.num_rows() - 1)];
        let (again, _, same) = written(mappings.num_rows(), &halves).unwrap();
        assert_eq!((&again.keys, &again.legacy_keys, same), (&manifest.keys, &manifest.legacy_keys, digest));
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        manifest
    }

    #[test]
    fn keys_of_every_type_come_back_as_they_went() {
        let decimals = Decimal128Array::from_iter_values([-1, 0, 10_i128.pow(37)]);
        let wide = Decimal256Array::from_iter_values([i256::MIN / i256::from(7), i256::ZERO, i256::from(9)]);
        let keys: Vec<(ArrayRef, [&str; 2])> = vec![
            (Arc::new(Int64Array::from(vec![7, i64::MIN, i64::MAX])), ["-9223372036854775808", "9223372036854775807"]),
            (Arc::new(Int32Array::from(vec![3, -1, 2])), ["-1", "3"]),
            (Arc::new(Int16Array::from(vec![3, -1, 2])), ["-1", "3"]),
            (Arc::new(StringArray::from(vec!["b", "", "ä|\\\n"])), ["", "ä|\\\n"]),
            (
                Arc::new(decimals.with_precision_and_scale(38, 2).unwrap()),
                ["-0.01", "100000000000000000000000000000000000.00"],
            ),
            (Arc::new(wide.with_precision_and_scale(76, 38).unwrap()), ["", ""]),
            (Arc::new(Date32Array::from(vec![0, -800_000, 20_000])), ["-0221-09-04", "2024-10-04"]),
            (
                Arc::new(TimestampMicrosecondArray::from(vec![1, -1, 0])),
                ["1969-12-31T23:59:59.999999", "1970-01-01T00:00:00.000001"],
            ),
            (Arc::new(Time64MicrosecondArray::from(vec![0, 5, 1])), ["00:00:00", "00:00:00.000005"]),
            (Arc::new(BooleanArray::from(vec![true, false, true])), ["false", "true"]),
            (Arc::new(Float64Array::from(vec![0.5, -1e300, 2.0])), ["-1e300", "2.0"]),
            (Arc::new(BinaryArray::from_vec(vec![b"\0", b"a", b""])), ["", "61"]),
        ];
        for (key, [least, greatest]) in keys {
            let manifest = comes_back(&mappings(vec![key]));
            if !manifest.columns[1].r#type.starts_with("Decimal256") {
                assert_eq!(manifest.keys, (least.to_owned(), greatest.to_owned()), "{:?}", manifest.columns[1]);
            }
            assert_eq!(manifest.legacy_keys, ("L000000".into(), "L000002".into()));
        }
        let pair: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![2, 1, 2])), Arc::new(StringArray::from(vec!["a", "z", "b"]))];
        assert_eq!(comes_back(&mappings(pair)).keys, ("1, z".to_owned(), "2, b".to_owned()));
    }

    #[test]
    fn a_ledger_that_says_otherwise_is_not_backed_up() {
        let mappings = mappings(vec![Arc::new(Int64Array::from(vec![1, 2]))]);
        let error = written(3, std::slice::from_ref(&mappings)).unwrap_err();
        assert!(error.to_string().contains("has 2 mappings of run r1, but its ledger has 3"), "{error}");
        let error = written(3, &[]).unwrap_err();
        assert!(error.to_string().contains("has no mapping of run r1, but its ledger has 3"), "{error}");
        let digest = |rows: usize| written(rows, &[mappings.slice(0, rows)]).unwrap().2;
        assert_ne!(digest(1), digest(2));
    }

    proptest! {
        #[test]
        fn any_mappings_come_back_as_they_went(keys in prop::collection::vec((any::<i64>(), any::<String>()), 1..200)) {
            let (numbers, texts): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
            let manifest = comes_back(&mappings(vec![
                Arc::new(Int64Array::from(numbers.clone())),
                Arc::new(StringArray::from(texts)),
            ]));
            let least = numbers.iter().min().unwrap().to_string();
            let begins_with_least = manifest.keys.0.starts_with(&format!("{least}, "));
            prop_assert!(begins_with_least);
        }
    }
}

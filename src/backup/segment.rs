//! A segment in the store: its mappings as Parquet, and a manifest that says what they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::engine::shown;
use crate::error::{Error, Result};
use crate::target::Segment;

/// The version of a manifest.
pub const VERSION: u32 = 1;

/// What a store knows of a segment. It is written when the mappings are there: a segment without its manifest is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The id of the target that the mappings are of.
    pub target: String,
    /// The segment: run, table and number of mappings.
    pub segment: Segment,
    /// The columns of the mappings, `legacy_key` first, with their Arrow types.
    pub columns: Vec<Column>,
    /// The size of the file with the mappings, in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of that file.
    pub hash: String,
    /// The least and the greatest legacy key, by their bytes.
    pub legacy_keys: (String, String),
    /// The least and the greatest new key, their columns with `, ` between.
    pub keys: (String, String),
    /// When it was written, in UTC (RFC 3339).
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

/// What is read of a manifest before it is understood.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

impl Manifest {
    /// The manifest of a segment, and the file with its mappings: `legacy_key` and the key's columns, in order of the legacy keys.
    ///
    /// # Errors
    /// Where there is none, or they are not as many as the ledger says.
    pub(super) fn of(segment: &Segment, target: &str, mappings: &RecordBatch) -> Result<(Self, Vec<u8>)> {
        let count = mappings.num_rows();
        if count as u64 != segment.rows || count == 0 {
            return Err(Error::refused(format!(
                "the key map of `{}` has {count} mappings of run {}, and its ledger says {}",
                segment.table, segment.run, segment.rows
            ))
            .hint("something but this program changed it: `pipeline keymap verify FILE` lists what differs"));
        }
        let file = encode(mappings)?;
        let columns = mappings.schema().fields().iter().map(|field| column(field)).collect();
        let (least, greatest) = ends(&mappings.columns()[1..])?;
        let key = |row: usize| {
            let parts: Vec<_> = mappings.columns()[1..].iter().map(|column| shown(column.as_ref(), row)).collect();
            parts.join(", ")
        };
        let legacy_key = |row: usize| mappings.column(0).as_string::<i32>().value(row).to_owned();
        let manifest = Self {
            version: VERSION,
            target: target.to_owned(),
            segment: segment.clone(),
            columns,
            bytes: file.len() as u64,
            hash: blake3::hash(&file).to_hex().to_string(),
            legacy_keys: (legacy_key(0), legacy_key(count - 1)),
            keys: (key(least), key(greatest)),
            written_at: format!("{:.0}", jiff::Timestamp::now()),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok((manifest, file))
    }
}

fn column(field: &Field) -> Column {
    Column { name: field.name().clone(), r#type: field.data_type().to_string() }
}

/// The rows with the least and the greatest key.
fn ends(key: &[ArrayRef]) -> Result<(usize, usize)> {
    let fields = key.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(key)?;
    let (mut least, mut greatest) = (0, 0);
    for at in 1..rows.num_rows() {
        if rows.row(at) < rows.row(least) {
            least = at;
        }
        if rows.row(at) > rows.row(greatest) {
            greatest = at;
        }
    }
    Ok((least, greatest))
}

/// Mappings as a Parquet file.
fn encode(mappings: &RecordBatch) -> Result<Vec<u8>> {
    let fault = |error| Error::internal(format!("mappings as Parquet: {error}"));
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, mappings.schema(), Some(properties)).map_err(fault)?;
    writer.write(mappings).map_err(fault)?;
    writer.close().map_err(fault)?;
    Ok(file)
}

/// The mappings of a Parquet file; its hash was looked at before.
pub(super) fn decode(file: Bytes) -> Result<RecordBatch, parquet::errors::ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let fields: Vec<_> = match batches.first() {
        Some(batch) => batch.schema().fields().iter().cloned().collect(),
        None => Vec::new(),
    };
    Ok(concat_batches(&Arc::new(Schema::new(fields)), &batches)?)
}

/// Whether two lists of mappings are the same, whatever their columns are said to be beside their types.
pub fn same(one: &RecordBatch, other: &RecordBatch) -> bool {
    let names = |batch: &RecordBatch| -> Vec<String> {
        batch.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    let mut values = one.columns().iter().zip(other.columns());
    names(one) == names(other) && values.all(|(one, other)| one.to_data() == other.to_data())
}

/// Batches of mappings as one; None where there are no mappings.
pub fn whole(batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    Ok(match batches.first() {
        Some(first) => Some(concat_batches(&first.schema(), batches)?).filter(|whole| whole.num_rows() > 0),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array, Int16Array, Int32Array,
        Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::i256;
    use proptest::prelude::*;

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

    fn comes_back(mappings: &RecordBatch) -> Manifest {
        let (manifest, file) = Manifest::of(&segment(mappings.num_rows()), "t", mappings).unwrap();
        assert_eq!(manifest.bytes, file.len() as u64);
        let found = decode(file.into()).unwrap();
        assert!(same(&found, mappings), "{found:?}");
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
        let error = Manifest::of(&segment(3), "t", &mappings).unwrap_err();
        assert!(error.to_string().contains("has 2 mappings of run r1, and its ledger says 3"), "{error}");
        assert!(!same(&mappings, &mappings.slice(0, 1)));
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

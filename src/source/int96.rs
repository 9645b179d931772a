//! Timestamps in INT96, the deprecated type of Parquet that Spark, Hive, and Impala write: a day and the nanoseconds of the day.
//!
//! The decoder returns 64 bits. Nanoseconds since 1970 overflow outside the years 1677–2262, and seconds never do. Each column is
//! therefore decoded twice, and both halves together are the exact value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use parquet::arrow::ProjectionMask;
use parquet::basic::Type;
use parquet::schema::types::SchemaDescriptor;

use super::columnar::{Decoded, Unstorable};
use super::nested::as_json;

/// The times within nested columns that their decoder changes.
const NESTED: &str = "contains a time outside the years 1677–2262, or one before 1970 with nanoseconds";

/// The schemas by which the columns of a file are decoded.
#[derive(Debug, Clone)]
pub(super) struct Schemas {
    /// The columns as the source has them: INT96 in microseconds.
    pub(super) source: SchemaRef,
    /// INT96 in nanoseconds.
    pub(super) fine: SchemaRef,
    /// INT96 in seconds; within nested columns, in microseconds.
    pub(super) coarse: SchemaRef,
    /// The columns with INT96, by their position in the file.
    columns: Vec<usize>,
}

impl Schemas {
    /// Returns the schemas of a file; None if it has no INT96.
    pub(super) fn of(schema: &Schema, parquet: &SchemaDescriptor) -> Option<Self> {
        if parquet.columns().iter().all(|column| column.physical_type() != Type::INT96) {
            return None;
        }
        let with = |scalar: TimeUnit, nested: TimeUnit| {
            let mut leaves = parquet.columns().iter().map(|column| column.physical_type());
            let field = |field: &FieldRef| {
                in_unit(field, if field.data_type().is_nested() { nested } else { scalar }, &mut leaves)
            };
            let fields: Fields = schema.fields().iter().map(field).collect();
            Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
        };
        let fine = with(TimeUnit::Nanosecond, TimeUnit::Nanosecond);
        let coarse = with(TimeUnit::Second, TimeUnit::Microsecond);
        let columns = fine.fields().iter().zip(coarse.fields()).enumerate();
        let columns = columns.filter(|(_, (fine, coarse))| fine != coarse).map(|(at, _)| at).collect();
        Some(Self { source: with(TimeUnit::Microsecond, TimeUnit::Nanosecond), fine, coarse, columns })
    }

    /// Returns the columns with INT96 among the loaded ones.
    pub(super) fn mask(&self, parquet: &SchemaDescriptor, loaded: &[usize]) -> ProjectionMask {
        ProjectionMask::roots(parquet, self.columns.iter().copied().filter(|column| loaded.contains(column)))
    }

    /// Returns the positions of the columns with INT96 among the loaded ones.
    pub(super) fn positions(&self, loaded: &[usize]) -> Vec<usize> {
        (0..loaded.len()).filter(|at| self.columns.contains(&loaded[*at])).collect()
    }
}

/// Returns a field whose INT96 leaves are timestamps in a unit. `leaves` are the physical types of its leaves and of those that follow.
fn in_unit(field: &FieldRef, unit: TimeUnit, leaves: &mut impl Iterator<Item = Type>) -> FieldRef {
    let mut part = |field: &FieldRef| in_unit(field, unit, leaves);
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(part).collect()),
        DataType::List(item) => DataType::List(part(item)),
        DataType::LargeList(item) => DataType::LargeList(part(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(part(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(part(entries), *sorted),
        other => match (leaves.next(), other) {
            (Some(Type::INT96), DataType::Timestamp(_, zone)) => DataType::Timestamp(unit, zone.clone()),
            _ => other.clone(),
        },
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
}

/// The batches of a file with INT96, from two readers of the same rows.
pub(super) struct Exact<R> {
    /// All loaded columns, with INT96 in nanoseconds.
    pub(super) fine: R,
    /// The loaded columns with INT96, in seconds.
    pub(super) coarse: R,
    /// The positions of the columns of `coarse` in `fine`.
    pub(super) positions: Vec<usize>,
}

impl<R: Iterator<Item = Result<RecordBatch, ArrowError>>> Iterator for Exact<R> {
    type Item = Result<Decoded, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let differ = || ArrowError::ParquetError("its columns have different numbers of rows".into());
        match (self.fine.next()?, self.coarse.next()) {
            (Ok(fine), Some(Ok(coarse))) if fine.num_rows() == coarse.num_rows() => {
                Some(exact(&fine, &coarse, &self.positions))
            }
            (Err(error), _) | (_, Some(Err(error))) => Some(Err(error)),
            _ => Some(Err(differ())),
        }
    }
}

fn exact(fine: &RecordBatch, coarse: &RecordBatch, positions: &[usize]) -> Result<Decoded, ArrowError> {
    let mut columns = fine.columns().to_vec();
    let mut fields: Vec<FieldRef> = fine.schema().fields().iter().cloned().collect();
    let mut unstorable = BTreeMap::new();
    for (column, at) in coarse.columns().iter().zip(positions) {
        let mut add = |row: usize, reason: &'static str, text: Option<String>| {
            unstorable.insert((row, *at), Unstorable { reason, text });
        };
        if column.data_type().is_nested() {
            nested(&columns[*at], column, |row| add(row, NESTED, None))?;
            continue;
        }
        let exact = instants(&columns[*at], column, |row, reason, text| add(row, reason, Some(text)));
        fields[*at] = Arc::new(fields[*at].as_ref().clone().with_data_type(exact.data_type().clone()));
        columns[*at] = exact;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(fine.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    Ok(Decoded { batch, unstorable })
}

/// Returns instants in microseconds, and the rows that they do not hold.
fn instants(fine: &ArrayRef, coarse: &ArrayRef, mut lost: impl FnMut(usize, &'static str, String)) -> ArrayRef {
    let nanoseconds = fine.as_primitive::<TimestampNanosecondType>();
    let seconds = coarse.as_primitive::<TimestampSecondType>();
    let zone = match coarse.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let instant = |row: usize| {
        let second = seconds.is_valid(row).then(|| seconds.value(row))?;
        // Both wrapped around in the same way, so the difference is exact.
        let fraction = nanoseconds.value(row).wrapping_sub(second.wrapping_mul(1_000_000_000));
        let instant = second.checked_mul(1_000_000).and_then(|whole| whole.checked_add(fraction.div_euclid(1000)));
        let text = || format!("{}.{fraction:09}", second_text(coarse, row));
        match instant {
            Some(instant) if fraction % 1000 == 0 => return Some(instant),
            Some(_) => lost(row, "has nanoseconds; microseconds are the limit", text()),
            None => lost(row, "is outside the years 1–9999", text()),
        }
        instant
    };
    let instants: TimestampMicrosecondArray = (0..seconds.len()).map(instant).collect();
    Arc::new(instants.with_timezone_opt(zone))
}

fn second_text(seconds: &ArrayRef, row: usize) -> String {
    let text = crate::engine::display_value(seconds.as_ref(), row);
    text.trim_end_matches('Z').to_owned()
}

/// Finds the rows of a nested column whose times are not those of its nanoseconds.
fn nested(fine: &ArrayRef, coarse: &ArrayRef, mut lost: impl FnMut(usize)) -> Result<(), ArrowError> {
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let (fine, coarse) = (as_json(&cast_with_options(fine, coarse.data_type(), &safe)?)?, as_json(coarse)?);
    (0..fine.len()).filter(|row| fine.is_valid(*row) && fine.value(*row) != coarse.value(*row)).for_each(&mut lost);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use arrow::datatypes::TimestampMicrosecondType;
    use parquet::data_type::{Int96, Int96Type};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::{Batch, Source};
    use crate::spec::SourceSpec;

    use super::*;

    /// A day since 1970 and nanoseconds, as Spark writes them.
    fn int96(day: i64, nanoseconds: u64) -> Int96 {
        let mut value = Int96::new();
        value.set_data(nanoseconds as u32, (nanoseconds >> 32) as u32, (day + 2_440_588) as u32);
        value
    }

    /// Reads a file of one column, whose values are at a depth: 1 is optional, and 3 is in a list.
    fn read(folder: &Path, message: &str, values: &[Int96], definition: &[i16], repetition: Option<&[i16]>) -> Batch {
        let schema = Arc::new(parse_message_type(message).unwrap());
        let file = File::create(folder.join("a.parquet")).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int96Type>().write_batch(values, Some(definition), repetition).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let source = Source::try_new(&SourceSpec::at("a.parquet"), folder).unwrap();
        source.batches(100).next().unwrap().unwrap()
    }

    #[test]
    fn int96_is_exact_outside_the_range_of_nanoseconds() {
        let folder = tempfile::tempdir().unwrap();
        let hour = 3_600_000_000_000;
        let values = [
            int96(2_932_896, 0),
            int96(-719_162, hour),
            int96(18_262, 10 * hour + 123_456_000),
            int96(-1, hour + 1_000),
            int96(18_262, 1_500),
            int96(-719_162, 1),
            int96(2_000_000_000, 0),
        ];
        let read = read(folder.path(), "message m { optional int96 t; }", &values, &[1, 1, 1, 1, 0, 1, 1, 1], None);
        let micros = read.rows.column(0).as_primitive::<TimestampMicrosecondType>();
        let day = 86_400_000_000;
        let expected = [
            Some(2_932_896 * day),
            Some(-719_162 * day + 3_600_000_000),
            Some(18_262 * day + 36_000_123_456),
            Some(-day + 3_600_000_001),
            None,
        ];
        assert_eq!(micros.iter().collect::<Vec<_>>(), expected);
        assert_eq!(read.lines, [1, 2, 3, 4, 5]);
        let reasons: Vec<_> = read.malformed.iter().map(|row| (row.line, row.reason.as_str())).collect();
        let nanoseconds = "column \"t\" has nanoseconds; microseconds are the limit";
        let years = "column \"t\" is outside the years 1–9999";
        assert_eq!(reasons, [(6, nanoseconds), (7, nanoseconds), (8, years)]);
        assert_eq!(read.malformed[0].raw, "2020-01-01T00:00:00.000001500");
        assert_eq!(read.malformed[1].fields, [Some("0001-01-01T00:00:00.000000001".to_owned())]);
    }

    #[test]
    fn int96_within_a_list_is_exact_or_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let message = "message m { optional group l (LIST) { repeated group list { optional int96 element; } } }";
        let values = [int96(18_262, 1), int96(18_262, 0), int96(2_932_896, 0)];
        let read = read(folder.path(), message, &values, &[3, 2, 3, 0, 3], Some(&[0, 1, 0, 0, 0]));
        let texts: Vec<_> = read.rows.column(0).as_string::<i32>().iter().collect();
        let fine = "[\"2020-01-01T00:00:00.000000001\",null]";
        assert_eq!(texts, [Some(fine), Some("[\"2020-01-01T00:00:00\"]"), None]);
        assert_eq!((read.malformed[0].line, read.malformed.len()), (4, 1));
        assert_eq!(read.malformed[0].reason, format!("column \"l\" {NESTED}"));
    }
}

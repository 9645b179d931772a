//! Reject files: every rejected row unchanged, with its location, its checks, and the reasons.
//!
//! There is one CSV file per table, in the dialect of the source, and one Parquet file. The source's columns come first,
//! under their own names. The columns about the reject begin with `_reject_`, which a source ignores, so a corrected file
//! is a delta again. In the CSV file, an apostrophe precedes values that a spreadsheet would take for a formula; a
//! source removes it again. The Parquet file has exact values.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array, new_null_array,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{cast, filter_record_batch, nullif, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::{CheckedTable, ViolationDetail};
use crate::engine::{RowNumber, display_value};
use crate::error::{Error, Result};
use crate::output_files::OutputMode;
use crate::plan::{Check, CheckKind, Compiled, Table, source_column};
use crate::source::guarded;
use crate::spec::{Format, Severity};
use crate::target::{DatabaseCheck, DatabaseCheckKind, TableIndex, bytes};

/// The columns about a reject, in order.
const ABOUT: [&str; 6] =
    ["_reject_file", "_reject_line", "_reject_check", "_reject_column", "_reject_value", "_reject_reason"];

/// A rejected row, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The file.
    pub file: String,
    /// The line, or the number of the row or record in a file without lines; from 1.
    pub line: u64,
    /// The names of the failed checks.
    pub checks: Vec<String>,
    /// The columns of the failed checks.
    pub columns: Vec<String>,
    /// The values of these columns.
    pub values: Vec<String>,
    /// The reasons.
    pub reasons: Vec<String>,
}

impl Reject {
    /// Returns a reject with nothing but its line.
    fn at(line: u64) -> Self {
        Self { file: String::new(), line, checks: vec![], columns: vec![], values: vec![], reasons: vec![] }
    }
}

/// Writes the reject files of all tables with rejects into a folder, and returns their paths by table.
///
/// # Errors
/// Returns an error if the folder is not writable.
pub fn write(
    compiled: &Compiled,
    examined: &[CheckedTable],
    folder: &Path,
    mode: OutputMode,
) -> Result<Vec<Vec<PathBuf>>> {
    let write = |at: TableIndex| match examined[at].rejected() {
        0 => Ok(Vec::new()),
        _ => write_table(compiled, examined, at, folder, mode).map(Vec::from),
    };
    TableIndex::all(examined.len()).map(write).collect()
}

fn write_table(
    compiled: &Compiled,
    examined: &[CheckedTable],
    at: TableIndex,
    folder: &Path,
    mode: OutputMode,
) -> Result<[PathBuf; 2]> {
    let table = &compiled.plan.tables[at];
    let _write = tracing::info_span!("write rejects", of = table.name).entered();
    mode.create_folders(folder).map_err(|error| cannot_write(folder, &error))?;
    let source = &compiled.sources[at];
    let name = file_name(&table.name);
    let csv_path = folder.join(format!("{name}.{}", source.csv_ending()));
    let parquet_path = folder.join(format!("{name}.parquet"));
    let schema = reject_schema(table);
    let mut csv = source.csv_writer(&csv_path, mode).map_err(|error| cannot_write(&csv_path, &error))?;
    let names = schema.fields().iter().map(|field| Some(guarded(Cow::from(field.name()))));
    csv.write(names).map_err(|error| cannot_write(&csv_path, &error))?;
    let parquet = mode.create(&parquet_path).map_err(|error| cannot_write(&parquet_path, &error))?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default())).build();
    let mut parquet = ArrowWriter::try_new(parquet, schema.clone(), Some(properties))
        .map_err(|error| cannot_write(&parquet_path, &error))?;
    let of_source = table.source.fields().len();
    // An empty text, which the writer does not quote.
    let nothing = source.files().first().and_then(|file| (file.format == Format::Csv).then_some(""));
    each(compiled, examined, at, |rows, rejects| {
        let batch = with_reasons(rows, rejects, &schema)?;
        parquet.write(&batch).map_err(|error| cannot_write(&parquet_path, &error))?;
        for row in 0..batch.num_rows() {
            let fields = batch.columns().iter().enumerate().map(|(number, column)| {
                let text = column.is_valid(row).then(|| display_value(column.as_ref(), row));
                match text {
                    None if number < of_source => None,
                    Some(text) if number < of_source || !text.is_empty() => Some(guarded(Cow::from(text))),
                    _ => nothing.map(Cow::from),
                }
            });
            csv.write(fields).map_err(|error| cannot_write(&csv_path, &error))?;
        }
        Ok(())
    })?;
    csv.finish().map_err(|error| cannot_write(&csv_path, &error))?;
    parquet.close().map_err(|error| cannot_write(&parquet_path, &error))?;
    Ok([csv_path, parquet_path])
}

/// The maximum size in bytes of a file name without its extension; file systems allow 255.
const LONGEST_NAME: usize = 200;

/// Returns the file name of a table. Characters with a meaning to a file system are percent-encoded, so that the file
/// stays in its folder and no two tables share one.
fn file_name(table: &str) -> String {
    let mut name = String::with_capacity(table.len());
    for char in table.chars() {
        let is_plain = char.is_ascii_alphanumeric() || matches!(char, '_' | '-') || char == '.' && !name.is_empty();
        if is_plain || (!char.is_ascii() && char.is_alphabetic()) {
            name.push(char);
        } else {
            for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                let _infallible = write!(name, "%{byte:02X}");
            }
        }
    }
    if name.len() <= LONGEST_NAME {
        return name;
    }
    // Two long names can begin alike.
    let hash = blake3::hash(table.as_bytes()).to_hex();
    name.truncate(name.floor_char_boundary(LONGEST_NAME - 20));
    format!("{name}-{}", &hash[..16])
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::unreachable(format!("cannot write the rejects to `{}`: {error}", path.display()))
        .hint("set `output` in the pipeline file to a writable folder")
}

fn reject_schema(table: &Table) -> SchemaRef {
    let source = table.source.fields().iter().map(|field| {
        let field = field.as_ref().clone().with_nullable(true);
        let data_type = storable(field.data_type());
        field.with_data_type(data_type)
    });
    let about = ABOUT
        .iter()
        .map(|name| Field::new(*name, if *name == "_reject_line" { DataType::UInt64 } else { DataType::Utf8 }, true));
    Arc::new(Schema::new(
        source.chain(about).chain([Field::new("_reject_raw", DataType::Utf8, true)]).collect::<Vec<_>>(),
    ))
}

/// Returns the type of a source's column in a Parquet file, which has no intervals.
fn storable(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Interval(_) | DataType::Duration(_) | DataType::Null => DataType::Utf8,
        data_type if data_type.is_nested() => DataType::Utf8,
        data_type => data_type.clone(),
    }
}

/// Returns values as messages show them.
fn as_text(values: &ArrayRef) -> ArrayRef {
    let text = |row: usize| values.is_valid(row).then(|| display_value(values.as_ref(), row));
    Arc::new((0..values.len()).map(text).collect::<StringArray>())
}

fn with_reasons(rows: &RecordBatch, rejects: &[Reject], schema: &SchemaRef) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Reject) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rejects.iter().map(text)))
    };
    let raw = rows.column(rows.num_columns() - 1).clone();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (column, field) in rows.columns()[..rows.num_columns() - 1].iter().zip(schema.fields()) {
        columns.push(match column.data_type() == field.data_type() {
            true => column.clone(),
            false => as_text(column),
        });
    }
    columns.push(texts(&|reject| reject.file.clone()));
    columns.push(Arc::new(UInt64Array::from_iter_values(rejects.iter().map(|reject| reject.line))));
    columns.push(texts(&|reject| reject.checks.join("; ")));
    columns.push(texts(&|reject| reject.columns.join("; ")));
    columns.push(texts(&|reject| reject.values.join("; ")));
    columns.push(texts(&|reject| reject.reasons.join("; ")));
    columns.push(raw);
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Passes the rejects of a table to `handle` in batches, in the order of files and lines: the source's columns with the
/// raw record, and what is wrong with each row.
///
/// # Errors
/// Returns the errors of `handle`, or an error if the work folder cannot be read.
pub fn each(
    compiled: &Compiled,
    examined: &[CheckedTable],
    at: TableIndex,
    mut handle: impl FnMut(&RecordBatch, &[Reject]) -> Result<()>,
) -> Result<()> {
    let source = &compiled.sources[at];
    let file = |number: usize| source.files().get(number).map_or_else(String::new, |file| file.name.clone());
    merge(unreadable(compiled, examined, at), failing(compiled, examined, at), |piece| {
        let mut rejects = piece.rejects;
        for (reject, (number, _)) in rejects.iter_mut().zip(&piece.places) {
            reject.file = file(*number);
        }
        handle(&piece.rows, &rejects)
    })
}

/// A piece of the rejects: their rows, what is wrong with each, and their locations, in the same order.
#[derive(Debug)]
struct Piece {
    rows: RecordBatch,
    rejects: Vec<Reject>,
    /// File index and line.
    places: Vec<(usize, u64)>,
}

impl Piece {
    /// Splits off the rejects before a location.
    fn split_before(&mut self, place: (usize, u64)) -> Self {
        let count = self.places.partition_point(|other| *other < place);
        let rest = self.rows.slice(count, self.rows.num_rows() - count);
        Self {
            rows: std::mem::replace(&mut self.rows, rest).slice(0, count),
            rejects: self.rejects.drain(..count).collect(),
            places: self.places.drain(..count).collect(),
        }
    }
}

/// Merges two sequences of pieces by location.
fn merge(
    mut one: impl Iterator<Item = Result<Piece>>,
    mut other: impl Iterator<Item = Result<Piece>>,
    mut handle: impl FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let (mut left, mut right) = (one.next().transpose()?, other.next().transpose()?);
    loop {
        match (left.take(), right.take()) {
            (None, None) => return Ok(()),
            (Some(piece), None) => {
                handle(piece)?;
                left = one.next().transpose()?;
            }
            (None, Some(piece)) => {
                handle(piece)?;
                right = other.next().transpose()?;
            }
            (Some(mut first), Some(mut second)) => {
                // Neither piece is empty, and no two records have the same location.
                if first.places[0] < second.places[0] {
                    handle(first.split_before(second.places[0]))?;
                } else {
                    handle(second.split_before(first.places[0]))?;
                }
                left = if first.places.is_empty() { one.next().transpose()? } else { Some(first) };
                right = if second.places.is_empty() { other.next().transpose()? } else { Some(second) };
            }
        }
    }
}

/// Returns whether failing a check rejects a row. Unreadable records have separate numbers, so their violations do not
/// name a row.
fn rejects_rows(check: &Check) -> bool {
    check.severity == Severity::Error && check.kind != CheckKind::Parse
}

/// Returns the unreadable records.
fn unreadable<'a>(
    compiled: &'a Compiled,
    examined: &'a [CheckedTable],
    at: TableIndex,
) -> impl Iterator<Item = Result<Piece>> + 'a {
    let malformed = &examined[at].malformed;
    malformed.batches(malformed.columns(|_| true)).map(move |batch| {
        let (_, batch) = batch?;
        let (files, lines) =
            (batch.column(0).as_primitive::<UInt32Type>(), batch.column(1).as_primitive::<UInt64Type>());
        let reasons = batch.column(2).as_string::<i32>();
        let mut rejects = Vec::new();
        let mut places = Vec::new();
        for row in 0..batch.num_rows() {
            places.push((files.value(row) as usize, lines.value(row)));
            let mut reject = Reject::at(lines.value(row));
            reject.checks.push("parse".into());
            reject.reasons.push(reasons.value(row).to_owned());
            rejects.push(reject);
        }
        Ok(Piece { rows: unreadable_rows(&compiled.plan.tables[at], &batch)?, rejects, places })
    })
}

/// Returns the rows that fail a check.
fn failing<'a>(
    compiled: &'a Compiled,
    examined: &'a [CheckedTable],
    at: TableIndex,
) -> impl Iterator<Item = Result<Piece>> + 'a {
    let (table, found) = (&compiled.plan.tables[at], &examined[at]);
    let explain = Explain { compiled, examined, at };
    let mut cursors = vec![0_usize; table.checks.len()];
    let about: Vec<_> = table.checks.iter().map(|check| explain.columns(check)).collect();
    let needed: HashSet<&String> = about.iter().flatten().flatten().collect();
    let rejects_rows = |name: &str| needed.contains(&name.to_owned());
    let columns = found.rows.columns(|name| name.starts_with(&source_column("")) || rejects_rows(name));
    found.rows.stretches().enumerate().filter_map(move |(number, (first, count))| {
        let rejected = &found.findings.rejected;
        if rejected.count_in(first, count) == 0 {
            return None;
        }
        let rejected: Vec<RowNumber> = first.through(count).filter(|row| rejected.contains(*row)).collect();
        let batch = found.rows.batch(number, &columns);
        Some(batch.and_then(|batch| failing_of(&explain, &about, &mut cursors, first, &batch, &rejected)))
    })
}

/// Returns the failing rows of a batch. `columns` and `cursors` are by check: its columns, and its next violation.
fn failing_of(
    explain: &Explain<'_>,
    columns: &[Option<Vec<String>>],
    cursors: &mut [usize],
    first: RowNumber,
    batch: &RecordBatch,
    rejected: &[RowNumber],
) -> Result<Piece> {
    let (table, found) = (&explain.compiled.plan.tables[explain.at], &explain.examined[explain.at]);
    let indices = UInt64Array::from_iter_values(rejected.iter().map(|row| *row - first));
    let kept = take_record_batch(batch, &indices)?;
    let places: Vec<_> = rejected.iter().map(|row| found.locations.locate(*row)).collect();
    let mut rejects: Vec<Reject> = places.iter().map(|(_, line)| Reject::at(*line)).collect();
    for (number, check) in table.checks.iter().enumerate().filter(|(_, check)| rejects_rows(check)) {
        let violations = found.findings.of(number);
        let cursor = &mut cursors[number];
        while let Some(violation) = violations.get(*cursor).filter(|violation| violation.row < first + batch.num_rows())
        {
            *cursor += 1;
            let Ok(place) = rejected.binary_search(&violation.row) else { continue };
            let reject = &mut rejects[place];
            reject.checks.push(check.name.clone());
            if !check.columns.is_empty() {
                reject.columns.push(check.columns.join(", "));
            }
            let value = columns[number].as_ref().and_then(|columns| explain.value(columns, &kept, place));
            reject.values.extend(value);
            reject.reasons.push(explain.reason(check, violation.detail));
        }
    }
    Ok(Piece { rows: source_rows(table, &kept)?, rejects, places })
}

/// Returns the fields of unreadable records as columns of the source, and the raw record.
fn unreadable_rows(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Field> =
        table.source.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let text = batch.column(4 + at);
        columns.push(typed(text, field.data_type())?);
    }
    fields.push(Field::new("_reject_raw", DataType::Utf8, true));
    columns.push(batch.column(3).clone());
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Returns texts as values of a type; NULL if the type does not hold a text. The raw record has it.
fn typed(texts: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let digits = texts.as_string::<i32>().iter().map(|text| bytes(&format!("\\x{}", text?)).map(Cow::into_owned));
    Ok(match data_type {
        DataType::Utf8 => texts.clone(),
        DataType::Binary => Arc::new(digits.collect::<BinaryArray>()),
        DataType::FixedSizeBinary(size) => {
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(digits, *size)?)
        }
        data_type => match cast(texts, data_type) {
            Ok(values) => nullif(&values, &distinct(&as_text(&values), texts)?)?,
            Err(_) => new_null_array(data_type, texts.len()),
        },
    })
}

fn source_rows(table: &Table, kept: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Field> =
        table.source.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut columns: Vec<ArrayRef> = Vec::new();
    // The kept columns end with those of the source, in its order.
    let first = kept.num_columns().checked_sub(fields.len());
    let first = first.ok_or_else(|| Error::internal("source columns are missing"))?;
    columns.extend(kept.columns()[first..].iter().cloned());
    fields.push(Field::new("_reject_raw", DataType::Utf8, true));
    columns.push(new_null_array(&DataType::Utf8, kept.num_rows()));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Renders findings as text.
pub(super) struct Explain<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) examined: &'a [CheckedTable],
    pub(super) at: TableIndex,
}

impl Explain<'_> {
    /// Returns the kept columns that a check reads; `None` for the whole record.
    pub(super) fn columns(&self, check: &Check) -> Option<Vec<String>> {
        let table = &self.compiled.plan.tables[self.at];
        match &check.kind {
            CheckKind::Parse | CheckKind::Query { .. } => None,
            CheckKind::LegacyKey | CheckKind::KeyMap => Some(vec!["_key".into()]),
            CheckKind::Cast { column } | CheckKind::Precision { column } => Some(self.made_from(column)),
            _ => Some(check.columns.iter().map(|name| table.kept_column(name)).collect()),
        }
    }

    /// Returns the values of columns as text.
    pub(super) fn value(&self, columns: &[String], kept: &RecordBatch, row: usize) -> Option<String> {
        let values: Vec<_> = columns
            .iter()
            .filter_map(|name| kept.column_by_name(name))
            .map(|column| display_value(column.as_ref(), row))
            .collect();
        // An expression can contain values from the environment.
        let text = self.compiled.secrets.mask(&values.join(", ")).into_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Returns the source columns that a column is computed from.
    fn made_from(&self, column: &str) -> Vec<String> {
        let table = &self.compiled.plan.tables[self.at];
        let sql = table.computed().find(|(computed, _)| computed.name == column).map_or("", |(_, sql)| sql);
        crate::plan::source_columns(sql, &table.source).iter().map(|name| source_column(name)).collect()
    }

    pub(super) fn reason(&self, check: &Check, detail: ViolationDetail) -> String {
        match detail {
            ViolationDetail::Row { table, row } => {
                let (number, line) = self.examined[table].locations.locate(row);
                let file = self.compiled.sources[table].files().get(number).map_or("", |file| file.name.as_str());
                match &check.kind {
                    CheckKind::LegacyKey => format!("{file}:{line} has the same legacy key"),
                    CheckKind::Unique(_) => format!("{file}:{line} has the same values"),
                    CheckKind::Database(DatabaseCheck { kind: DatabaseCheckKind::Unique { .. }, .. }) => {
                        format!("{file}:{line} has values that production treats as equal")
                    }
                    _ => format!("{}: {file}:{line}", check.reason),
                }
            }
            ViolationDetail::Text(_) => match self.examined[self.at].findings.text(detail) {
                Some(text) => self.compiled.secrets.mask(text).into_owned(),
                None => check.reason.clone(),
            },
            ViolationDetail::None => check.reason.clone(),
        }
    }
}

/// Returns the rows of a batch that are not in `excluded`.
pub(crate) fn accepted(batch: &RecordBatch, excluded: &crate::engine::RowSet, first: RowNumber) -> Result<RecordBatch> {
    Ok(filter_record_batch(batch, &excluded.others(first, batch.num_rows()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_any_name_has_a_file_of_its_own_in_the_folder() {
        for (table, name) in [
            ("account", "account"),
            ("../evil", "%2E.%2Fevil"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            (".", "%2E"),
            ("größe_1-x", "größe_1-x"),
            ("a b\0", "a%20b%00"),
            ("a\u{301}", "a%CC%81"),
        ] {
            assert_eq!(file_name(table), name);
        }
    }

    #[test]
    fn a_text_that_a_type_does_not_hold_is_null() {
        let shown = |texts: &[&str], data_type: &DataType| {
            let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
            let values = typed(&texts, data_type).unwrap();
            (0..texts.len()).map(|row| display_value(values.as_ref(), row)).collect::<Vec<_>>()
        };
        let times = ["2020-01-01T00:00:00.000001", "2020-01-01T00:00:00.000001500", "soon"];
        let microseconds = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        assert_eq!(shown(&times, &microseconds), [times[0], "NULL", "NULL"]);
        assert_eq!(shown(&["00ff"], &DataType::Binary), ["00ff"]);
        assert_eq!(shown(&["00ff"], &DataType::FixedSizeBinary(2)), ["00ff"]);
    }

    fn piece(places: &[(usize, u64)]) -> Result<Piece> {
        let lines: ArrayRef = Arc::new(UInt64Array::from_iter_values(places.iter().map(|place| place.1)));
        let rejects = places.iter().map(|place| Reject::at(place.1)).collect();
        Ok(Piece { rows: RecordBatch::try_from_iter([("line", lines)])?, rejects, places: places.to_vec() })
    }

    #[test]
    fn rejects_come_in_the_order_of_files_and_lines() {
        let unreadable = [piece(&[(0, 3), (0, 9), (1, 2)]), piece(&[(1, 7)])];
        let failing = [piece(&[(0, 2), (0, 4), (0, 5)]), piece(&[(0, 8), (1, 3)]), piece(&[(2, 2)])];
        let mut seen = Vec::new();
        merge(unreadable.into_iter(), failing.into_iter(), |piece| {
            let lines = piece.rows.column(0).as_primitive::<UInt64Type>().values().to_vec();
            assert!(lines.iter().copied().eq(piece.rejects.iter().map(|reject| reject.line)));
            assert!(lines.iter().copied().eq(piece.places.iter().map(|place| place.1)));
            seen.extend(piece.places);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(0, 2), (0, 3), (0, 4), (0, 5), (0, 8), (0, 9), (1, 2), (1, 3), (1, 7), (2, 2)]);
    }
}

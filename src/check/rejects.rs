//! The reject files: every row that is kept out, as it was, with its place, its checks and the reasons.
//!
//! One file a table as CSV and one as Parquet. The source's own columns come first, under their own names, and the columns about
//! the reject begin with `_reject_`: a source leaves those out, so a corrected file is a delta again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::{cast, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::sets::shown;
use super::{Detail, Examined};
use crate::error::{Error, Result};
use crate::plan::{Check, CheckKind, Compiled, Table, source_column};
use crate::spec::Severity;

/// What is said about a reject, in the order of the columns.
const ABOUT: [&str; 6] =
    ["_reject_file", "_reject_line", "_reject_check", "_reject_column", "_reject_value", "_reject_reason"];

/// One rejected row, with all that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The file.
    pub file: String,
    /// The line, or the number of the row in a Parquet or Arrow file.
    pub line: u64,
    /// The names of the checks that it fails.
    pub checks: Vec<String>,
    /// The columns that they are about.
    pub columns: Vec<String>,
    /// The values there.
    pub values: Vec<String>,
    /// The reasons.
    pub reasons: Vec<String>,
}

/// Writes the reject files of all tables that have rejects into a folder; gives their paths.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write(compiled: &Compiled, examined: &[Examined], folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for at in 0..examined.len() {
        if examined[at].rejected() > 0 {
            paths.extend(write_table(compiled, examined, at, folder)?);
        }
    }
    Ok(paths)
}

fn write_table(compiled: &Compiled, examined: &[Examined], at: usize, folder: &Path) -> Result<[PathBuf; 2]> {
    let table = &compiled.plan.tables[at];
    std::fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    let (csv_path, parquet_path) =
        (folder.join(format!("{}.csv", table.name)), folder.join(format!("{}.parquet", table.name)));
    let schema = reject_schema(table);
    let fault = |error: &dyn std::fmt::Display| cannot_write(&csv_path, error);
    let mut csv = csv::Writer::from_path(&csv_path).map_err(|error| fault(&error))?;
    csv.write_record(schema.fields().iter().map(|field| field.name())).map_err(|error| fault(&error))?;
    let parquet = File::create(&parquet_path).map_err(|error| cannot_write(&parquet_path, &error))?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default())).build();
    let mut parquet = ArrowWriter::try_new(parquet, schema.clone(), Some(properties))
        .map_err(|error| cannot_write(&parquet_path, &error))?;
    each(compiled, examined, at, |rows, rejects| {
        let batch = with_reasons(rows, rejects, &schema)?;
        parquet.write(&batch).map_err(|error| cannot_write(&parquet_path, &error))?;
        for row in 0..batch.num_rows() {
            let fields = batch
                .columns()
                .iter()
                .map(|column| if column.is_null(row) { String::new() } else { shown(column.as_ref(), row) });
            csv.write_record(fields).map_err(|error| cannot_write(&csv_path, &error))?;
        }
        Ok(())
    })?;
    csv.flush().map_err(|error| cannot_write(&csv_path, &error))?;
    parquet.close().map_err(|error| cannot_write(&parquet_path, &error))?;
    Ok([csv_path, parquet_path])
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::unreachable(format!("cannot write the rejects to `{}`: {error}", path.display()))
        .hint("set `output` in the pipeline file to a folder that can be written")
}

fn reject_schema(table: &Table) -> SchemaRef {
    let source = table.source.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let about = ABOUT
        .iter()
        .map(|name| Field::new(*name, if *name == "_reject_line" { DataType::UInt64 } else { DataType::Utf8 }, true));
    Arc::new(Schema::new(
        source.chain(about).chain([Field::new("_reject_raw", DataType::Utf8, true)]).collect::<Vec<_>>(),
    ))
}

fn with_reasons(rows: &RecordBatch, rejects: &[Reject], schema: &SchemaRef) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Reject) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rejects.iter().map(text)))
    };
    let raw = rows.column(rows.num_columns() - 1).clone();
    let mut columns = rows.columns()[..rows.num_columns() - 1].to_vec();
    columns.push(texts(&|reject| reject.file.clone()));
    columns.push(Arc::new(UInt64Array::from_iter_values(rejects.iter().map(|reject| reject.line))));
    columns.push(texts(&|reject| reject.checks.join("; ")));
    columns.push(texts(&|reject| reject.columns.join("; ")));
    columns.push(texts(&|reject| reject.values.join("; ")));
    columns.push(texts(&|reject| reject.reasons.join("; ")));
    columns.push(raw);
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Hands the rejects of a table over in batches: the source's columns and the raw record, and what is wrong with each row.
/// Records that could not be read come first.
///
/// # Errors
/// Those of `handle`, and where the work folder cannot be read.
pub fn each(
    compiled: &Compiled,
    examined: &[Examined],
    at: usize,
    mut handle: impl FnMut(&RecordBatch, &[Reject]) -> Result<()>,
) -> Result<()> {
    let (table, source, found) = (&compiled.plan.tables[at], &compiled.sources[at], &examined[at]);
    let file = |number: usize| source.files().get(number).map_or_else(String::new, |file| file.name.clone());
    for batch in found.malformed.batches()? {
        let (_, batch) = batch?;
        let (files, lines) =
            (batch.column(0).as_primitive::<UInt32Type>(), batch.column(1).as_primitive::<UInt64Type>());
        let reasons = batch.column(2).as_string::<i32>();
        let rejects: Vec<_> = (0..batch.num_rows())
            .map(|row| Reject {
                file: file(files.value(row) as usize),
                line: lines.value(row),
                checks: vec!["parse".into()],
                columns: Vec::new(),
                values: Vec::new(),
                reasons: vec![reasons.value(row).to_owned()],
            })
            .collect();
        handle(&unread_rows(table, &batch)?, &rejects)?;
    }
    let explain = Explain { compiled, examined, at };
    let mut cursors = vec![0_usize; table.checks.len()];
    for batch in found.rows.batches()? {
        let (first, batch) = batch?;
        let rejected: Vec<u32> =
            (first..first + batch.num_rows() as u32).filter(|row| found.findings.rejected.contains(*row)).collect();
        if rejected.is_empty() {
            continue;
        }
        let indices = UInt32Array::from_iter_values(rejected.iter().map(|row| row - first));
        let kept = take_record_batch(&batch, &indices)?;
        let mut rejects: Vec<Reject> = rejected
            .iter()
            .map(|row| {
                let (number, line) = found.places.place(*row);
                Reject { file: file(number), line, checks: vec![], columns: vec![], values: vec![], reasons: vec![] }
            })
            .collect();
        for (number, check) in table.checks.iter().enumerate() {
            if check.severity != Severity::Error {
                continue;
            }
            let violations = found.findings.of(number);
            let cursor = &mut cursors[number];
            while let Some(violation) =
                violations.get(*cursor).filter(|violation| violation.row < first + batch.num_rows() as u32)
            {
                *cursor += 1;
                let Ok(place) = rejected.binary_search(&violation.row) else { continue };
                let reject = &mut rejects[place];
                reject.checks.push(check.name.clone());
                if !check.columns.is_empty() {
                    reject.columns.push(check.columns.join(", "));
                }
                reject.values.extend(explain.value(check, &kept, place));
                reject.reasons.push(explain.reason(check, violation.detail));
            }
        }
        handle(&source_rows(table, &kept)?, &rejects)?;
    }
    Ok(())
}

/// The source's columns of records that could not be read, as far as their fields go, and the raw record.
fn unread_rows(table: &Table, batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Field> =
        table.source.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let text = batch.column(4 + at);
        columns.push(match field.data_type() {
            DataType::Utf8 => text.clone(),
            data_type => cast(text, data_type).unwrap_or_else(|_| new_null_array(data_type, batch.num_rows())),
        });
    }
    fields.push(Field::new("_reject_raw", DataType::Utf8, true));
    columns.push(batch.column(3).clone());
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn source_rows(table: &Table, kept: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<Field> =
        table.source.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in &fields {
        let column = kept.column_by_name(&source_column(field.name()));
        columns.push(column.cloned().ok_or_else(|| Error::internal(format!("no source column `{}`", field.name())))?);
    }
    fields.push(Field::new("_reject_raw", DataType::Utf8, true));
    columns.push(new_null_array(&DataType::Utf8, kept.num_rows()));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Puts findings into words.
struct Explain<'a> {
    compiled: &'a Compiled,
    examined: &'a [Examined],
    at: usize,
}

impl Explain<'_> {
    /// The value that a check is about, as text.
    fn value(&self, check: &Check, kept: &RecordBatch, row: usize) -> Option<String> {
        let table = &self.compiled.plan.tables[self.at];
        let columns: Vec<String> = match &check.kind {
            CheckKind::Parse | CheckKind::Query { .. } => return None,
            CheckKind::LegacyKey | CheckKind::KeyMap => vec!["_key".into()],
            CheckKind::Cast { column } | CheckKind::Precision { column } => self.made_from(column),
            _ => check.columns.iter().map(|name| table.kept_column(name)).collect(),
        };
        let values: Vec<_> = columns
            .iter()
            .filter_map(|name| kept.column_by_name(name))
            .map(|column| shown(column.as_ref(), row))
            .collect();
        Some(values.join(", ")).filter(|text| !text.is_empty())
    }

    /// The source columns that a column is computed from.
    fn made_from(&self, column: &str) -> Vec<String> {
        let table = &self.compiled.plan.tables[self.at];
        let sql = table.computed().find(|(computed, _)| computed.name == column).map_or("", |(_, sql)| sql);
        crate::plan::source_columns(sql, &table.source).iter().map(|name| source_column(name)).collect()
    }

    fn reason(&self, check: &Check, detail: Detail) -> String {
        match detail {
            Detail::Row { table, row } => {
                let (table, row) = (table as usize, row);
                let (number, line) = self.examined[table].places.place(row);
                let file = self.compiled.sources[table].files().get(number).map_or("", |file| file.name.as_str());
                match check.kind {
                    CheckKind::LegacyKey => format!("{file}:{line} has the same legacy key"),
                    CheckKind::Unique { .. } => format!("{file}:{line} has the same values"),
                    _ => format!("{}: {file}:{line}", check.reason),
                }
            }
            Detail::Text(_) => match self.examined[self.at].findings.text(detail) {
                Some(text) => self.compiled.secrets.mask(text).into_owned(),
                None => check.reason.clone(),
            },
            Detail::None => check.reason.clone(),
        }
    }
}

/// The rows of a batch that a mask does not hold, for those who write accepted rows.
pub(crate) fn accepted(batch: &RecordBatch, kept_out: &crate::engine::Mask, first: u32) -> Result<RecordBatch> {
    Ok(filter_record_batch(batch, &kept_out.others(first, batch.num_rows()))?)
}

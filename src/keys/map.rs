//! The key map brought in from elsewhere: the mapping of the initial conversion, out of a CSV or Parquet file.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::{SourceSpec, TableSpec};
use crate::target::{CatalogTable, Destination, key_map_schema};

/// Where the key map of a table goes: its key columns, as the pipeline file or else the catalog says.
pub fn destination(spec: Option<&TableSpec>, table: &Arc<CatalogTable>) -> Destination {
    let key = match spec.and_then(|spec| spec.key.as_ref()) {
        Some(key) if key.inherited.is_empty() => key.column.iter().cloned().collect(),
        Some(key) => key.inherited.clone(),
        None => table.primary_key.clone(),
    };
    Destination { table: table.clone(), columns: key.clone(), key, levelled: false }
}

/// Reads a mapping file: `legacy_key` (or the columns of a composite one) and the table's key columns.
///
/// # Errors
/// Where the file cannot be read, lacks a column, has a row that cannot be read, or maps one legacy key or one new key twice.
pub fn read(path: &Path, legacy_key: &[String], destination: &Destination) -> Result<RecordBatch> {
    let shown = path.display();
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "path": path.to_string_lossy() }))
        .map_err(|error| Error::internal(format!("the mapping's source: {error}")))?;
    let source = Source::try_new(&spec, Path::new(""))?;
    let schema = source.schema().clone();
    let legacy: Vec<String> =
        if schema.field_with_name("legacy_key").is_ok() { vec!["legacy_key".into()] } else { legacy_key.to_vec() };
    for name in legacy.iter().chain(&destination.key) {
        if schema.field_with_name(name).is_err() {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
            return Err(Error::input(format!(
                "`{shown}` has no column `{name}`; it has {}",
                crate::engine::list(&names)
            ))
            .hint(format!("a mapping has the columns `legacy_key` and {}", crate::engine::list(&destination.key))));
        }
    }
    let mut batches = Vec::new();
    let mut lines = Vec::new();
    for batch in source.batches(8192) {
        let batch = batch?;
        if let Some(malformed) = batch.malformed.first() {
            return Err(bad_row(path, malformed.line, &malformed.reason));
        }
        lines.extend(batch.lines);
        batches.push(batch.rows);
    }
    let rows = arrow::compute::concat_batches(&schema, &batches)?;
    let texts =
        legacy.iter().map(|name| as_type(&rows, name, &DataType::Utf8, path, &lines)).collect::<Result<Vec<_>>>()?;
    let keys = destination.key.iter().map(|name| {
        let data_type = destination.table.column(name).map_or(DataType::Utf8, |column| column.data_type.clone());
        as_type(&rows, name, &data_type, path, &lines)
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let legacy_key = StringArray::from_iter_values((0..rows.num_rows()).map(|row| one_text(&texts, row)));
    contradictions(path, &lines, &legacy_key, &keys)?;
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..rows.num_rows() as u32));
    let columns = [numbers, Arc::new(legacy_key) as ArrayRef].into_iter().chain(keys).collect();
    Ok(RecordBatch::try_new(key_map_schema(destination), columns)?)
}

/// The parts of a legacy key as one text, written as the plan's SQL writes it.
fn one_text(parts: &[ArrayRef], row: usize) -> String {
    match parts {
        [one] => one.as_string::<i32>().value(row).to_owned(),
        several => {
            let escaped =
                several.iter().map(|part| part.as_string::<i32>().value(row).replace('\\', "\\\\").replace('|', "\\|"));
            escaped.collect::<Vec<_>>().join("|")
        }
    }
}

fn as_type(rows: &RecordBatch, name: &str, data_type: &DataType, path: &Path, lines: &[u64]) -> Result<ArrayRef> {
    let values = rows.column_by_name(name).ok_or_else(|| Error::internal(format!("no column `{name}`")))?;
    let converted = cast_with_options(values, data_type, &CastOptions { safe: true, ..CastOptions::default() })?;
    match (0..converted.len()).find(|row| converted.is_null(*row)) {
        Some(row) if values.is_null(row) => Err(bad_row(path, lines[row], &format!("`{name}` is NULL"))),
        Some(row) => Err(bad_row(path, lines[row], &format!("`{name}` is no {data_type}"))),
        None => Ok(converted),
    }
}

fn contradictions(path: &Path, lines: &[u64], legacy: &StringArray, keys: &[ArrayRef]) -> Result<()> {
    let mut by_legacy: HashMap<&str, usize> = HashMap::with_capacity(legacy.len());
    let mut by_key: HashMap<String, usize> = HashMap::with_capacity(legacy.len());
    for row in 0..legacy.len() {
        if let Some(earlier) = by_legacy.insert(legacy.value(row), row) {
            let text = format!("legacy key `{}` is on line {} already", legacy.value(row), lines[earlier]);
            return Err(bad_row(path, lines[row], &text));
        }
        let key: Vec<_> = keys.iter().map(|column| crate::check::shown(column.as_ref(), row)).collect();
        if let Some(earlier) = by_key.insert(key.join("|"), row) {
            return Err(bad_row(
                path,
                lines[row],
                &format!("key {} is on line {} already", key.join(", "), lines[earlier]),
            ));
        }
    }
    Ok(())
}

fn bad_row(path: &Path, line: u64, reason: &str) -> Error {
    Error::data(format!("{}:{line}: {reason}", path.display()))
        .hint("a mapping is taken whole or not at all: mend the file and import it again")
}

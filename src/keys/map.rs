//! Import of a key map, such as the mapping of an initial conversion, from a CSV or Parquet file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::check::RowLocations;
use crate::engine::{Engine, RowNumber, RowStore, display_value};
use crate::error::{Error, Result};
use crate::source::{Batch, Source};
use crate::spec::{KeySpec, SourceSpec, StartRowNumber, TableSpec};
use crate::target::{AssignedKey, CatalogTable, Destination, LogicalType, SequenceUse, key_map_schema};

/// Returns the destination of a table's key map: its key columns, from the pipeline file or else from the catalog.
pub fn destination(spec: Option<&TableSpec>, table: &Arc<CatalogTable>) -> Destination {
    let key = match spec.and_then(|spec| spec.key.as_ref()) {
        Some(KeySpec { column: Some(column), .. }) => table.identified_by(column),
        Some(key) => key.inherited.clone(),
        None => table.primary_key.clone(),
    };
    let assigned = spec.and_then(|spec| match &spec.key {
        Some(key) => assigned(key, table),
        None => numbered(spec, table),
    });
    Destination {
        table: table.clone(),
        columns: key.clone(),
        key,
        assigned,
        evaluated: Vec::new(),
        is_referred_only: spec.is_none(),
        self_referencing: false,
        commit_checks: Vec::new(),
        changed: Vec::new(),
        reads: Vec::new(),
    }
}

/// Returns the numbers that a key gets; `None` if it is a UUID, or if the rows contain it.
fn assigned(key: &KeySpec, table: &CatalogTable) -> Option<AssignedKey> {
    let column = key.column.clone()?;
    let is_uuid = table.column(&column).is_some_and(|column| column.form == LogicalType::Uuid);
    let sequence = SequenceUse { name: key.sequence.clone(), numbers: key.numbers };
    (key.uuid.is_none() && !is_uuid).then_some(AssignedKey { column, start: key.start_row_number, sequence })
}

/// Returns the column of the primary key that production numbers, unless the pipeline file fills it.
fn numbered(spec: &TableSpec, table: &CatalogTable) -> Option<AssignedKey> {
    let is_filled = |name: &String| {
        spec.columns.get(name).is_some() || spec.relationships.iter().any(|reference| reference.column.contains(name))
    };
    let column = table.primary_key.iter().find(|name| table.serials.contains(name) && !is_filled(name))?;
    Some(AssignedKey::new(column.clone(), StartRowNumber::Auto))
}

/// A mapping file in the engine's rows.
#[derive(Debug)]
pub struct Mapping {
    /// The mappings: `legacy_key`, and the table's key columns.
    pub rows: Arc<RowStore>,
    /// The line of each mapping.
    lines: RowLocations,
    path: PathBuf,
}

impl Mapping {
    /// Returns the line of a mapping.
    pub fn line(&self, row: RowNumber) -> u64 {
        self.lines.locate(row).1
    }

    /// Returns an error about a mapping.
    pub fn bad(&self, row: RowNumber, reason: &str) -> Error {
        bad_row(&self.path, self.line(row), reason)
    }
}

/// Reads a mapping file: `legacy_key`, or the columns of a composite legacy key, and the table's key columns. The mappings
/// stay in memory unless there are many.
///
/// # Errors
/// Returns an error if the file or a row is unreadable, or if a column is missing.
pub fn read(path: &Path, legacy_key: &[String], destination: &Destination, engine: &Engine) -> Result<Mapping> {
    let file = path.display();
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "path": path.to_string_lossy() }))
        .map_err(|error| Error::internal(format!("the mapping's source: {error}")))?;
    let source = Source::try_new(&spec, Path::new(""))?;
    let schema = source.schema().clone();
    // If the pipeline does not load the table, the columns of its legacy key are unknown.
    let legacy: Vec<String> = if legacy_key.is_empty() || schema.field_with_name("legacy_key").is_ok() {
        vec!["legacy_key".into()]
    } else {
        legacy_key.to_vec()
    };
    for name in legacy.iter().chain(&destination.key) {
        if schema.field_with_name(name).is_err() {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
            return Err(Error::input(format!(
                "`{file}` has no column `{name}`; its columns are {}",
                crate::engine::list(&names)
            ))
            .hint(format!(
                "a mapping file requires the columns `legacy_key` and {}",
                crate::engine::list(&destination.key)
            )));
        }
    }
    let staged = key_map_schema(destination);
    let schema = Arc::new(Schema::new(staged.fields()[1..].to_vec()));
    let (mut writer, mut lines) = (engine.rows(schema.clone()), RowLocations::default());
    for batch in source.batches(engine.limits().batch_rows) {
        let batch = batch?;
        if let Some(malformed) = batch.malformed.first() {
            return Err(bad_row(path, malformed.line, &malformed.reason));
        }
        writer.write(&typed(&batch, &legacy, destination, &schema, path)?)?;
        lines.extend(batch.file, &batch.lines);
    }
    Ok(Mapping { rows: writer.finish(), lines, path: path.to_owned() })
}

/// Casts the mappings of a batch to the types of the table's key.
fn typed(
    batch: &Batch,
    legacy: &[String],
    destination: &Destination,
    schema: &SchemaRef,
    path: &Path,
) -> Result<RecordBatch> {
    let (rows, lines) = (&batch.rows, &batch.lines);
    let texts: Vec<_> =
        legacy.iter().map(|name| as_type(rows, name, &DataType::Utf8, path, lines)).collect::<Result<_>>()?;
    let keys = destination.key.iter().map(|name| {
        let data_type = destination.table.column(name).map_or(DataType::Utf8, |column| column.data_type.clone());
        as_type(rows, name, &data_type, path, lines)
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let legacy_key = StringArray::from_iter_values((0..rows.num_rows()).map(|row| one_text(&texts, row)));
    let columns = std::iter::once(Arc::new(legacy_key) as ArrayRef).chain(keys).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Returns the parts of a legacy key as one text, in the format of the plan's SQL.
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
    if let Some(row) = (0..converted.len()).find(|row| converted.is_null(*row)) {
        let what = if values.is_null(row) {
            format!("NULL in `{name}`")
        } else {
            format!("invalid {} in `{name}`: `{}`", noun(data_type), display_value(values, row))
        };
        return Err(bad_row(path, lines[row], &what));
    }
    // A typed file can contain values that do not fit: 1.5 is not a valid key.
    if values.data_type().is_numeric() {
        let back =
            cast_with_options(&converted, values.data_type(), &CastOptions { safe: true, ..CastOptions::default() })?;
        let changed = distinct(&back, values)?;
        if let Some(row) = changed.values().set_indices().next() {
            let text = format!("invalid {} in `{name}`: `{}`", noun(data_type), display_value(values, row));
            return Err(bad_row(path, lines[row], &text));
        }
    }
    Ok(converted)
}

/// Returns the name of a type for messages.
fn noun(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Int16 => "16-bit integer",
        DataType::Int32 => "32-bit integer",
        other if other.is_integer() => "integer",
        other if other.is_numeric() => "number",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(..) => "date and time",
        DataType::Boolean => "boolean",
        _ => "text",
    }
}

fn bad_row(path: &Path, line: u64, reason: &str) -> Error {
    Error::data(format!("{}:{line}: {reason}", path.display()))
        .hint("nothing was imported; fix the file and run the import again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Limits;
    use crate::error::Kind;
    use crate::target::CatalogColumn;

    fn reading(text: &str, legacy_key: &[&str], data_type: DataType) -> Result<RecordBatch> {
        let column = CatalogColumn {
            name: "id".into(),
            declared: String::new(),
            data_type,
            not_null: true,
            has_default: false,
            generated: false,
            max_length: None,
            significant_digits: None,
            form: crate::target::LogicalType::Plain,
        };
        let table = CatalogTable {
            name: "t".into(),
            columns: vec![column],
            primary_key: vec!["id".into()],
            ..Default::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.csv");
        std::fs::write(&path, text).unwrap();
        let legacy_key: Vec<String> = legacy_key.iter().map(ToString::to_string).collect();
        let engine = Engine::try_new(Limits::default()).unwrap();
        let mapping = read(&path, &legacy_key, &destination(None, &Arc::new(table)), &engine)?;
        mapping.rows.batch(0, &[0, 1])
    }

    #[test]
    fn mapping_of_a_table_outside_has_a_legacy_key_column() {
        let error = reading("ref,id\na,1\n", &[], DataType::Int64).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().ends_with("has no column `legacy_key`; its columns are `ref` and `id`"), "{error}");
        let rows = reading("legacy_key,id\na,1\n", &[], DataType::Int64).unwrap();
        assert_eq!(rows.column(0).as_string::<i32>().value(0), "a");
        let rows = reading("p,q,id\na|b,c,1\n", &["p", "q"], DataType::Int64).unwrap();
        assert_eq!(rows.column(0).as_string::<i32>().value(0), "a\\|b|c");
    }

    #[test]
    fn a_key_of_another_type_is_reported_with_its_value() {
        for (value, data_type, reason) in [
            ("x1", DataType::Int64, "invalid integer in `id`: `x1`"),
            ("1.5", DataType::Int64, "invalid integer in `id`: `1.5`"),
            ("70000", DataType::Int16, "invalid 16-bit integer in `id`: `70000`"),
            ("soon", DataType::Date32, "invalid date in `id`: `soon`"),
            ("", DataType::Int64, "NULL in `id`"),
        ] {
            let error = reading(&format!("legacy_key,id\na,{value}\n"), &[], data_type).unwrap_err();
            assert!(error.to_string().ends_with(&format!("map.csv:2: {reason}")), "{error}");
        }
    }
}

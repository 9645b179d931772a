//! Conversion between Arrow batches and SQLite's rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use rusqlite::Connection;
use rusqlite::types::ToSqlOutput;

use super::Names;
use super::storage_values::StorageBatch;
use super::values::Collector;
use crate::error::{Error, Result};

/// Runs a query and collects its rows under a schema.
pub(super) fn select(
    connection: &Connection,
    sql: &str,
    schema: &SchemaRef,
    names: &Names,
) -> Result<Vec<RecordBatch>> {
    const ROWS: usize = 8192;
    let fault = |error: rusqlite::Error| names.error("cannot read", &error);
    let mut statement = connection.prepare(sql).map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    let mut batches = Vec::new();
    let mut collector = Collector::try_new(schema.clone())?;
    let mut count = 0;
    while let Some(row) = rows.next().map_err(fault)? {
        for (at, field) in schema.fields().iter().enumerate() {
            let value = row.get_ref(at).map_err(fault)?;
            collector.push(at, value).map_err(|problem| unlike_its_column(field.name(), &problem))?;
        }
        count += 1;
        if count % ROWS == 0 {
            batches.push(std::mem::replace(&mut collector, Collector::try_new(schema.clone())?).finish()?);
        }
    }
    batches.push(collector.finish()?);
    batches.retain(|batch| batch.num_rows() > 0);
    Ok(batches)
}

/// Returns the error for a value of production that does not match its column's type.
pub(super) fn unlike_its_column(column: &str, problem: &str) -> Error {
    Error::data(format!("production holds a value that is not of its column's type: column `{column}`: {problem}"))
        .hint("fix the value in production, or declare the column with the type that it holds")
}

/// Insertion of batches by prepared multi-row statements. Running one costs about as much as a row or two.
pub(super) struct Inserting {
    many: String,
    one: String,
    /// The rows of a multi-row statement.
    rows: usize,
}

impl Inserting {
    /// The most values in a statement.
    const VALUES: usize = 512;

    /// Prepares the insertion into a table and the columns of a batch. `more` is SQL for additional values of each row.
    pub(super) fn new(into: &str, columns: usize, more: &str) -> Self {
        let row = vec!["?"; columns].into_iter().chain(Some(more).filter(|more| !more.is_empty()));
        let row = format!("({})", row.collect::<Vec<_>>().join(", "));
        let rows = (Self::VALUES / columns.max(1)).clamp(1, 64);
        let insert = |rows: usize| format!("INSERT {into} VALUES {}", vec![row.as_str(); rows].join(", "));
        Self { many: insert(rows), one: insert(1), rows }
    }

    pub(super) fn insert<E>(
        &self,
        connection: &Connection,
        batch: &StorageBatch,
        fault: impl Fn(&rusqlite::Error) -> E,
    ) -> std::result::Result<(), E> {
        let _insert = tracing::info_span!("insert batch", rows = batch.rows()).entered();
        let mut first = 0;
        while first < batch.rows() {
            let is_full = batch.rows() - first >= self.rows;
            let (sql, rows) = if is_full { (&self.many, self.rows) } else { (&self.one, 1) };
            let mut statement = connection.prepare_cached(sql).map_err(|error| fault(&error))?;
            while batch.rows() - first >= rows {
                let mut place = 0;
                for row in first..first + rows {
                    for column in 0..batch.columns() {
                        place += 1;
                        let value = ToSqlOutput::Borrowed(batch.value(column, row));
                        statement.raw_bind_parameter(place, value).map_err(|error| fault(&error))?;
                    }
                }
                statement.raw_execute().map_err(|error| fault(&error))?;
                first += rows;
                if first == batch.rows() {
                    break;
                }
            }
        }
        Ok(())
    }
}

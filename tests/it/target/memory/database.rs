//! The tables of production in memory, and what runs leave beside them.

use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use delta_pipeline::internals::error::{Error, Result};
use delta_pipeline::internals::journal::{Record, RunId};
use delta_pipeline::internals::spec::StartRowNumber;
use delta_pipeline::internals::target::{KeyBlock, KeyRequest, LoadedFile, Period, Policy, RunRecord};

use super::super::rows::shown;

/// Mappings that a run appended to a key map: `legacy_key` and the key's columns.
pub(super) type Mappings = (String, RunId, RecordBatch);

/// What runs leave behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    pub(super) runs: Vec<RunRecord>,
    pub(super) journal: Vec<Record>,
    pub(super) files: Vec<LoadedFile>,
    pub(super) mappings: Vec<Mappings>,
    pub(super) blocks: Vec<(RunId, KeyBlock)>,
    pub(super) ids: Vec<String>,
    pub(super) policy: Option<Policy>,
    pub(super) period: Option<Period>,
    /// The target that holds the writer lock, and its run.
    pub(super) writer: Option<(u64, RunId)>,
}

/// A database that lives as long as its test.
#[derive(Default)]
pub struct MemoryDatabase {
    pub(super) sql: SessionContext,
    pub(super) control: Mutex<Control>,
}

pub(super) fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(error)
}

/// A column as the catalog has it: integers of 64 bits and plain texts.
pub(super) fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other.clone(),
    }
}

pub(super) fn cast_to(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(values) => Ok(cast(values, field.data_type())?),
        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// The values of a row as text; None if one is NULL.
pub(super) fn values(batch: &RecordBatch, columns: &[String], row: usize) -> Option<Vec<String>> {
    let value = |name: &String| {
        let column = batch.column_by_name(name)?;
        column.is_valid(row).then(|| shown(column, row))
    };
    columns.iter().map(value).collect()
}

/// Answers a query over tables of its own.
pub(super) async fn query<'a>(
    sql: &str,
    tables: impl IntoIterator<Item = (&'a str, &'a RecordBatch)>,
) -> Result<Vec<RecordBatch>> {
    let session = SessionContext::new();
    for (name, rows) in tables {
        session.register_batch(name, rows.clone()).map_err(failed)?;
    }
    session.sql(sql).await.map_err(failed)?.collect().await.map_err(failed)
}

impl MemoryDatabase {
    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap()
    }

    /// Executes statements, and returns the rows of the last one.
    pub async fn execute(&self, sql: &str) -> Vec<RecordBatch> {
        let mut rows = Vec::new();
        for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
            let answer = self.sql.sql(statement).await.unwrap_or_else(|error| panic!("{error}\nof {statement:.500}"));
            rows = answer.collect().await.unwrap_or_else(|error| panic!("{error}\nof {statement:.500}"));
        }
        rows
    }

    /// Executes statements on a thread of their own, so that a test that is asynchronous can wait for them.
    pub fn execute_now(&self, sql: &str) -> Vec<RecordBatch> {
        let run = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(self.execute(sql));
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// The rows of a table that meet a condition, in the catalog's types.
    pub(super) async fn rows(&self, table: &str, condition: Option<&str>) -> Result<RecordBatch> {
        let found = match condition {
            Some(condition) => self.sql.sql(&format!("SELECT * FROM \"{table}\" WHERE {condition}")).await,
            None => self.sql.table(table).await,
        };
        let found = found.map_err(failed)?;
        let fields =
            found.schema().fields().iter().map(|field| Field::new(field.name(), plain(field.data_type()), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batches = found.collect().await.map_err(failed)?;
        let batches = batches.iter().map(|batch| cast_to(batch, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(concat_batches(&schema, &batches)?)
    }

    /// Replaces the rows of a table.
    pub(super) async fn replace(&self, table: &str, rows: &[RecordBatch]) -> Result<()> {
        let old = self.sql.table_provider(table).await.map_err(failed)?;
        let rows = rows.iter().map(|rows| cast_to(rows, &old.schema())).collect::<Result<Vec<_>>>()?;
        let mut new = MemTable::try_new(old.schema(), vec![rows]).map_err(failed)?;
        if let Some(constraints) = old.constraints() {
            new = new.with_constraints(constraints.clone());
        }
        self.sql.deregister_table(table).map_err(failed)?;
        self.sql.register_table(table, Arc::new(new)).map(drop).map_err(failed)
    }

    pub(super) async fn next_block(&self, request: &KeyRequest) -> Result<KeyBlock> {
        let rows = self.rows(&request.table, None).await?;
        let column = rows.column_by_name(&request.column).ok_or_else(|| failed("no such key column"))?;
        let prefix = request.text.as_ref().map_or("", |text| text.prefix.as_str());
        let number = |row: usize| shown(column, row).strip_prefix(prefix)?.parse::<i64>().ok();
        let used = (0..rows.num_rows()).filter_map(number);
        let blocks: Vec<_> = self.control().blocks.iter().map(|(_, block)| block.clone()).collect();
        let of_table = blocks.iter().filter(|block| block.table == request.table).map(|block| block.last);
        let largest = used.chain(of_table).max().unwrap_or(0).max(0);
        let first = match request.start {
            StartRowNumber::At(first) => first,
            StartRowNumber::Auto => largest.saturating_add(1),
        };
        let last = first.checked_add(request.count as i64 - 1).filter(|last| *last <= request.largest);
        match last {
            Some(last) => Ok(KeyBlock { table: request.table.clone(), first, last, step: 1 }),
            None => Err(Error::refused(format!("the keys of `{}` overflow", request.table)).hint("choose a wider key")),
        }
    }
}

//! The engine: DataFusion, set up once for a run.
//!
//! Everything that is asked of the delta is SQL over registered tables. User SQL is a query and nothing else: no DDL,
//! no DML, no COPY, no SET.

mod expression;
mod rows;
mod table;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use tempfile::TempDir;

pub use expression::Expression;
pub use rows::{Mask, Rows, RowsWriter};
pub use table::RowsTable;

use crate::error::{Error, Result};

/// How much of the machine a run may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory for the delta's rows, joins, sorts and encoders together.
    pub memory: usize,
    /// Threads that work at the same time.
    pub threads: usize,
    /// Rows in one batch at most.
    pub batch_rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { memory: 1 << 30, threads, batch_rows: 8192 }
    }
}

/// The SQL engine of one run.
pub struct Engine {
    context: SessionContext,
    limits: Limits,
    work: TempDir,
    /// Holds the moment that expressions take for now.
    clock: SimplifyContext,
}

impl Engine {
    /// An engine with nothing registered. Its work folder is removed when it is dropped.
    ///
    /// # Errors
    /// Where the system's temporary folder cannot be written.
    pub fn try_new(limits: Limits) -> Result<Self> {
        let work = TempDir::with_prefix("pipeline-").map_err(|error| {
            Error::unreachable(format!("cannot make a work folder: {error}"))
                .hint("set TMPDIR to a folder with room for the delta")
        })?;
        // Half of the memory is the rows' (they spill by themselves), half is for joins, sorts and aggregates.
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory / 2)))
            .with_temp_file_path(work.path())
            .build_arc()?;
        let config = SessionConfig::new()
            .with_target_partitions(limits.threads)
            .with_batch_size(limits.batch_rows)
            .with_information_schema(false)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let context = SessionContext::new_with_config_rt(config, runtime);
        if let Some(catalog) = context.catalog("datafusion") {
            catalog.register_schema("production", Arc::new(MemorySchemaProvider::new()))?;
        }
        Ok(Self { context, limits, work, clock: SimplifyContext::builder().with_current_time().build() })
    }

    /// What the engine may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The folder for what does not fit into memory. Whoever ends the program without dropping the engine removes it.
    pub fn work_folder(&self) -> &Path {
        self.work.path()
    }

    /// A writer for rows that stay in memory while they are few and go to the work folder when they are many.
    pub fn rows(&self, schema: SchemaRef, share: usize) -> RowsWriter {
        RowsWriter::new(schema, self.limits.memory / 2 / share.max(1), self.work.path())
    }

    /// Makes a table known under a name, `schema.table` or `table`; an earlier one of that name goes.
    pub fn register(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        let _ = self.context.deregister_table(quoted_reference(name))?;
        self.context.register_table(quoted_reference(name), table)?;
        Ok(())
    }

    /// Makes batches known as a table.
    pub fn register_batches(&self, name: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
        let table = datafusion::datasource::MemTable::try_new(schema, vec![batches])?;
        self.register(name, Arc::new(table))
    }

    /// The names of the registered tables.
    fn tables(&self) -> Vec<String> {
        let mut names = Vec::new();
        for schema in ["public", "production"] {
            if let Some(tables) = self.context.catalog("datafusion").and_then(|catalog| catalog.schema(schema)) {
                names.extend(
                    tables
                        .table_names()
                        .into_iter()
                        .filter(|name| !name.starts_with('_'))
                        .map(|name| if schema == "public" { name } else { format!("{schema}.{name}") }),
                );
            }
        }
        names.sort();
        names
    }

    /// Plans a query without running it and gives its output's schema.
    ///
    /// # Errors
    /// As text, for a message at the query's own place: it does not parse or plan, or is no query.
    pub async fn plan(&self, sql: &str) -> Result<SchemaRef, String> {
        let frame =
            self.context.sql_with_options(sql, query_only()).await.map_err(|error| self.explain_error(&error))?;
        let schema = frame.schema().inner().clone();
        frame.create_physical_plan().await.map_err(|error| self.explain_error(&error))?;
        Ok(schema)
    }

    /// The plans of a query as text, logical and physical.
    pub async fn explain(&self, sql: &str) -> Result<String> {
        let frame = self.context.sql_with_options(sql, query_only()).await?;
        let logical = frame.clone().into_optimized_plan()?;
        let physical = frame.create_physical_plan().await?;
        let physical = datafusion::physical_plan::displayable(physical.as_ref()).indent(false);
        Ok(format!("{}\n\n{physical}", logical.display_indent()))
    }

    /// Runs a query; batches come in no particular order unless the query has one.
    ///
    /// # Errors
    /// Where the query does not plan, or is anything but a query.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream> {
        let frame = self.context.sql_with_options(sql, query_only()).await?;
        Ok(frame.execute_stream().await?)
    }

    /// Runs a query and hands each batch of its result to `each`.
    pub async fn for_each(&self, sql: &str, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let mut stream = self.query(sql).await?;
        while let Some(batch) = stream.next().await {
            each(&batch?)?;
        }
        Ok(())
    }

    /// Runs a query and collects its result.
    pub async fn collect(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        self.for_each(sql, |batch| {
            batches.push(batch.clone());
            Ok(())
        })
        .await?;
        Ok(batches)
    }

    /// An error of the engine in the user's words.
    fn explain_error(&self, error: &datafusion::error::DataFusionError) -> String {
        let text = error.strip_backtrace();
        let text = text.split("\n\n").next().unwrap_or_default();
        let text = [
            "Error during planning: ",
            "Schema error: ",
            "SQL error: ",
            "This feature is not implemented: ",
            "type_coercion\ncaused by\n",
            "Error during planning: ",
        ]
        .iter()
        .fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
        let text = text.strip_prefix("ParserError(\"").and_then(|text| text.strip_suffix("\")")).unwrap_or(text);
        if ["DDL not supported", "DML not supported", "Statement not supported"]
            .iter()
            .any(|refused| text.starts_with(refused))
        {
            return "only a query is allowed here: no DDL, no DML, no COPY, no SET".to_owned();
        }
        match text.split_once("table 'datafusion.") {
            Some((_, rest)) if rest.contains("not found") => {
                let name = rest.split('\'').next().unwrap_or_default();
                let name = name.strip_prefix("public.").unwrap_or(name);
                format!("there is no table `{name}` here; there are {}", list(&self.tables()))
            }
            _ => text.replace("datafusion.public.", "").trim().to_owned(),
        }
    }
}

/// Names for a message: `a`, `b` and `c`.
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => format!("`{}`", one.as_ref()),
        [firsts @ .., last] => {
            let firsts: Vec<_> = firsts.iter().map(|name| format!("`{}`", name.as_ref())).collect();
            format!("{} and `{}`", firsts.join(", "), last.as_ref())
        }
    }
}

/// A name as an SQL identifier, whatever is in it.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table's name as a reference that keeps its case: the part before the first dot is a schema only for `production`.
fn quoted_reference(name: &str) -> datafusion::common::TableReference {
    match name.strip_prefix("production.") {
        Some(table) => datafusion::common::TableReference::partial("production", table),
        None => datafusion::common::TableReference::bare(name.to_owned()),
    }
}

fn query_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

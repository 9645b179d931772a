//! The engine: DataFusion, configured once per run.
//!
//! All queries of the delta are SQL over registered tables. SQL of users can only query: no DDL, DML, COPY, or SET.

mod answer;
mod bounded;
mod dates;
mod depth;
mod expression;
mod hash_partitions;
mod query_metrics;
mod row_number;
mod row_set;
mod rows;
mod spill;
mod sql_diagnostic;
mod table;
mod uuid;
mod zones;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::temporal_conversions::as_datetime;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use tempfile::TempDir;

pub use answer::Answer;
pub use expression::{Expression, words};
pub use hash_partitions::{Hashes, parallel_fold};
pub use query_metrics::{Operator, QueryMetrics};
pub use row_number::{RowNumber, RowNumbers, row_array, row_column, row_field, row_numbers};
pub use row_set::{RankedRowSet, RowSet};
pub use rows::{RowStore, RowsWriter};
pub use sql_diagnostic::SqlDiagnostic;
pub use table::RowsTable;
pub use uuid::{parse_uuid, uuid_namespace};
pub use zones::{instant_of, local_of, zone_of};

use crate::error::{Error, Result};
use crate::spec::{LoadSpec, Timeout};

/// The resources of the machine that a run can use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory in bytes for the delta's rows, joins, sorts, and encoders together.
    pub memory: usize,
    /// The number of worker threads.
    pub threads: usize,
    /// The maximum number of rows per batch.
    pub batch_rows: usize,
}

/// Below this memory in bytes, joins can spill to disk, and batches between operators are smaller.
const TIGHT: usize = 512 << 20;

/// Rows per batch between operators with little memory: a merge keeps one batch of each of its runs.
const TIGHT_ROWS: usize = 1024;

impl Limits {
    /// Returns the memory in bytes for joins, sorts, and aggregates together.
    fn pool(self) -> usize {
        self.memory / 4
    }

    /// Returns the maximum size in bytes of the texts of one batch, unless its rows are larger.
    fn text(self) -> usize {
        (self.memory / 4).clamp(32 << 20, 1 << 30)
    }

    /// Returns the bytes that each sort reserves to merge what it has spilled.
    fn held_back(self) -> usize {
        (self.pool() / (8 * self.threads.max(1))).clamp(64 << 10, 10 << 20)
    }
}

impl Default for Limits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { memory: 1 << 30, threads, batch_rows: 8192 }
    }
}

/// The space of a table name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Tables of the delta, by their names.
    Delta,
    /// Tables of production, as `production.<name>`.
    Production,
    /// Temporary tables of the checks, as `internal.<name>`.
    Internal,
}

impl Space {
    /// Returns the name of its schema in SQL.
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Delta => "public",
            Self::Production => "production",
            Self::Internal => "internal",
        }
    }
}

/// The SQL engine of one run.
pub struct Engine {
    context: SessionContext,
    limits: Limits,
    work: TempDir,
    budget: Arc<rows::MemoryBudget>,
    /// The value of `now()` in expressions.
    clock: SimplifyContext,
    moment: jiff::Timestamp,
    patience: Timeout,
    query_log: query_metrics::QueryLog,
}

impl Engine {
    /// Returns an engine without tables. Dropping it removes its work folder.
    ///
    /// # Errors
    /// Returns an error if the system's temporary folder is not writable.
    pub fn try_new(limits: Limits) -> Result<Self> {
        Self::at(limits, jiff::Timestamp::now())
    }

    /// Returns an engine with `moment` as the value of `now()`.
    ///
    /// # Errors
    /// Returns an error if the system's temporary folder is not writable.
    pub fn at(limits: Limits, moment: jiff::Timestamp) -> Result<Self> {
        let private = Permissions::from_mode(0o700);
        let work = tempfile::Builder::new().prefix("pipeline-").permissions(private).tempdir().map_err(|error| {
            Error::unreachable(format!("cannot create a work folder: {error}"))
                .hint("set TMPDIR to a folder with space for the delta")
        })?;
        // Three eighths of the memory are for rows, which spill separately, two for joins, sorts, and aggregates, and one for
        // hashes and their comparison. The rest is for data in transit.
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.pool())))
            .with_temp_file_path(work.path())
            .build_arc()?;
        let config = SessionConfig::new()
            .with_target_partitions(limits.threads)
            .with_batch_size(if limits.memory < TIGHT { limits.batch_rows.min(TIGHT_ROWS) } else { limits.batch_rows })
            .with_sort_spill_reservation_bytes(limits.held_back())
            .with_information_schema(false)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_bool("datafusion.optimizer.prefer_hash_join", limits.memory >= TIGHT);
        let mut context = SessionContext::new_with_config_rt(config, runtime);
        dates::register(&mut context)?;
        bounded::register(&mut context, limits.text())?;
        uuid::register(&context, moment.as_microsecond());
        if let Some(catalog) = context.catalog("datafusion") {
            for space in [Space::Production, Space::Internal] {
                catalog.register_schema(space.schema(), Arc::new(MemorySchemaProvider::new()))?;
            }
        }
        let now = as_datetime::<TimestampMicrosecondType>(moment.as_microsecond()).map(|now| now.and_utc());
        let clock = SimplifyContext::builder().with_query_execution_start_time(now).build();
        let budget = Arc::new(rows::MemoryBudget::new(limits.memory / 8 * 3));
        let (patience, query_log) = (LoadSpec::default().statement_timeout, query_metrics::QueryLog::default());
        Ok(Self { context, limits, work, budget, clock, moment, patience, query_log })
    }

    /// Sets the time limit for each query of a user.
    #[must_use]
    pub fn with_patience(self, patience: Timeout) -> Self {
        Self { patience, ..self }
    }

    /// Returns the resources that the engine can use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the value of `now()` in expressions.
    pub fn moment(&self) -> jiff::Timestamp {
        self.moment
    }

    /// Returns the folder for data that exceeds memory. A caller that ends the program without dropping the engine must remove it.
    pub fn work_folder(&self) -> &Path {
        self.work.path()
    }

    /// Returns a writer for rows, which stay in memory up to a limit and then go to the work folder.
    pub fn rows(&self, schema: SchemaRef) -> RowsWriter {
        RowsWriter::new(schema, &self.budget, self.work.path())
    }

    /// Registers a table; replaces an earlier one of that name.
    pub fn register(&self, space: Space, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        let reference = TableReference::partial(space.schema(), name);
        let _earlier = self.context.deregister_table(reference.clone())?;
        self.context.register_table(reference, table)?;
        Ok(())
    }

    /// Registers batches as a table.
    pub fn register_batches(
        &self,
        space: Space,
        name: &str,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<()> {
        let table = datafusion::datasource::MemTable::try_new(schema, vec![batches])?;
        self.register(space, name, Arc::new(table))
    }

    /// Returns the names of the tables that a user's query can read.
    fn tables(&self) -> Vec<String> {
        let mut names = Vec::new();
        for space in [Space::Delta, Space::Production] {
            let schema = self.context.catalog("datafusion").and_then(|catalog| catalog.schema(space.schema()));
            let tables = schema.map(|schema| schema.table_names()).unwrap_or_default().into_iter();
            names.extend(tables.map(|name| match space {
                Space::Production => format!("production.{name}"),
                _ => name,
            }));
        }
        names.sort();
        names
    }

    /// Returns the state for planning queries, with the run's moment instead of the time of planning.
    fn state(&self) -> SessionState {
        let mut state = self.context.state();
        state.execution_props_mut().query_execution_start_time = self.clock.query_execution_start_time();
        state
    }

    /// Plans a query without running it, and returns its output schema.
    ///
    /// # Errors
    /// Returns the mistake if it does not parse or plan, is not a query, or is not deterministic.
    pub async fn plan(&self, sql: &str) -> Result<SchemaRef, SqlDiagnostic> {
        let explain = |error: DataFusionError| sql_diagnostic::explain(&error, &self.tables(), &[]);
        depth::refuse_deep(sql)?;
        let state = self.state();
        let plan = logical(&state, sql).await.map_err(explain)?;
        if is_volatile(&plan).map_err(explain)? {
            return Err(SqlDiagnostic::new(
                "the query is not deterministic",
                "remove functions such as `random()`: the rejected rows must be the same in every run",
            ));
        }
        let schema = plan.schema().inner().clone();
        refuse_constants(&state.optimize(&plan).map_err(explain)?).map_err(explain)?;
        state.create_physical_plan(&plan).await.map_err(explain)?;
        Ok(schema)
    }

    /// Starts to log queries and their metrics, for [`Engine::logged_queries`].
    pub fn log_queries(&self) {
        self.query_log.begin();
    }

    /// Sets the table and the check that the next queries belong to.
    pub fn about(&self, table: &str, check: &str) {
        self.query_log.about(table, check);
    }

    /// Returns the queries since [`Engine::log_queries`].
    pub fn logged_queries(&self) -> Vec<QueryMetrics> {
        self.query_log.take()
    }

    /// Runs a query. The order of batches is arbitrary unless the query has one.
    ///
    /// # Errors
    /// Returns an error if the query does not plan, or is not a query.
    pub async fn query(&self, sql: &str) -> Result<Answer> {
        // Hash joins do not spill, but merge joins do: use those once rows went to disk.
        self.start(sql, self.budget.exceeded()).await
    }

    /// Runs a query; `spills` selects joins that can spill.
    async fn start(&self, sql: &str, spills: bool) -> Result<Answer> {
        let mut state = self.state();
        if spills {
            state.config_mut().options_mut().optimizer.prefer_hash_join = false;
        }
        let logical = logical(&state, sql).await?;
        let plan = state.create_physical_plan(&logical).await?;
        self.query_log.add(sql, &plan);
        let memory = self.limits.memory;
        let stream = datafusion::physical_plan::execute_stream(plan, Arc::new(TaskContext::from(&state)))?;
        Ok(stream.map(move |batch| batch.map_err(|error| answer::failed(error, memory))).boxed())
    }

    /// Runs a query and passes each batch of its result to `each`.
    pub async fn for_each(&self, sql: &str, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let _query = tracing::info_span!("query");
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
}

/// Returns names for a message: `a`, `b` and `c`.
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

/// Quotes a name as an SQL identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns a value as text, for messages.
pub fn display_value(values: &dyn Array, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(values, &options).map_or_else(|_| "?".into(), |formatter| formatter.value(row).to_string())
}

/// Returns whether any expression of a plan is volatile.
fn is_volatile(plan: &LogicalPlan) -> datafusion::error::Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            found |= expression.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Refuses a plan with a constant that is too large, or that was not computed because it would be.
fn refuse_constants(plan: &LogicalPlan) -> datafusion::error::Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            bounded::refuse_constants(expression)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .map(|_| ())
}

/// Plans a query; refuses any other statement.
async fn logical(state: &SessionState, sql: &str) -> datafusion::error::Result<LogicalPlan> {
    let plan = state.create_logical_plan(sql).await?;
    query_only().verify_plan(&plan)?;
    Ok(plan)
}

fn query_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

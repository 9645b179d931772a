//! The engine: DataFusion, set up once for a run.
//!
//! Everything that is asked of the delta is SQL over registered tables. User SQL is a query and nothing else: no DDL,
//! no DML, no COPY, no SET.

mod answer;
mod bounded;
mod depth;
mod expression;
mod hash_partitions;
mod query_metrics;
mod row_set;
mod rows;
mod spill;
mod sql_diagnostic;
mod table;

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
pub use expression::Expression;
pub use hash_partitions::{AMBIGUOUS, Hashes, parallel_fold};
pub use query_metrics::{Operator, QueryMetrics};
pub use row_set::{RankedRowSet, RowSet};
pub use rows::{RowStore, RowsWriter};
pub use sql_diagnostic::SqlDiagnostic;
pub use table::RowsTable;

use crate::error::{Error, Result};
use crate::spec::{LoadSpec, Timeout};

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

/// Below this much memory, joins are made so that they can go to disk, and batches between operators are smaller.
const TIGHT: usize = 512 << 20;

/// Rows between operators where memory is tight: a merge holds one batch of each of its runs.
const TIGHT_ROWS: usize = 1024;

impl Limits {
    /// Bytes that joins, sorts and aggregates may use together.
    fn pool(self) -> usize {
        self.memory / 4
    }

    /// Bytes that the texts of one batch may have, unless its rows had more already.
    fn text(self) -> usize {
        (self.memory / 4).clamp(32 << 20, 1 << 30)
    }

    /// Bytes that each sort holds back, to be able to merge what it has spilled.
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

/// Whose tables a name is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The delta's own, called by their names.
    Delta,
    /// Production's, called `production.<name>`.
    Production,
    /// What the checks need for a moment, called `internal.<name>`.
    Internal,
}

impl Space {
    /// The name of its schema in SQL.
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
    room: Arc<rows::MemoryBudget>,
    /// Holds the moment that expressions take for now.
    clock: SimplifyContext,
    moment: jiff::Timestamp,
    patience: Timeout,
    notes: query_metrics::QueryLog,
}

impl Engine {
    /// An engine with nothing registered. Its work folder is removed when it is dropped.
    ///
    /// # Errors
    /// Where the system's temporary folder cannot be written.
    pub fn try_new(limits: Limits) -> Result<Self> {
        Self::at(limits, jiff::Timestamp::now())
    }

    /// The same, with the moment that expressions take for now.
    ///
    /// # Errors
    /// As [`Engine::try_new`].
    pub fn at(limits: Limits, moment: jiff::Timestamp) -> Result<Self> {
        let private = Permissions::from_mode(0o700);
        let work = tempfile::Builder::new().prefix("pipeline-").permissions(private).tempdir().map_err(|error| {
            Error::unreachable(format!("cannot make a work folder: {error}"))
                .hint("set TMPDIR to a folder with room for the delta")
        })?;
        // Three eighths of the memory are the rows' (they spill by themselves), two are for joins, sorts and aggregates, one is for
        // hashes and what they are held against; the rest is for what is on its way.
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
        bounded::register(&mut context, limits.text())?;
        if let Some(catalog) = context.catalog("datafusion") {
            for space in [Space::Production, Space::Internal] {
                catalog.register_schema(space.schema(), Arc::new(MemorySchemaProvider::new()))?;
            }
        }
        let now = as_datetime::<TimestampMicrosecondType>(moment.as_microsecond()).map(|now| now.and_utc());
        let clock = SimplifyContext::builder().with_query_execution_start_time(now).build();
        let room = Arc::new(rows::MemoryBudget::new(limits.memory / 8 * 3));
        let (patience, notes) = (LoadSpec::default().statement_timeout, query_metrics::QueryLog::default());
        Ok(Self { context, limits, work, room, clock, moment, patience, notes })
    }

    /// The same engine, with a time limit for each query of a user.
    #[must_use]
    pub fn with_patience(self, patience: Timeout) -> Self {
        Self { patience, ..self }
    }

    /// What the engine may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The moment that expressions take for now.
    pub fn moment(&self) -> jiff::Timestamp {
        self.moment
    }

    /// The folder for what does not fit into memory. Whoever ends the program without dropping the engine removes it.
    pub fn work_folder(&self) -> &Path {
        self.work.path()
    }

    /// A writer for rows that stay in memory while they are few and go to the work folder when they are many.
    pub fn rows(&self, schema: SchemaRef) -> RowsWriter {
        RowsWriter::new(schema, &self.room, self.work.path())
    }

    /// Makes a table known under a name; an earlier one of that name goes.
    pub fn register(&self, space: Space, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        let reference = TableReference::partial(space.schema(), name);
        let _earlier = self.context.deregister_table(reference.clone())?;
        self.context.register_table(reference, table)?;
        Ok(())
    }

    /// Makes batches known as a table.
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

    /// The names of the tables that a user's query can read.
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

    /// The state that queries are planned with: its own would take the moment of the planning for now.
    fn state(&self) -> SessionState {
        let mut state = self.context.state();
        state.execution_props_mut().query_execution_start_time = self.clock.query_execution_start_time();
        state
    }

    /// Plans a query without running it and gives its output's schema.
    ///
    /// # Errors
    /// Where it does not parse or plan, is no query, or has another answer each time.
    pub async fn plan(&self, sql: &str) -> Result<SchemaRef, SqlDiagnostic> {
        let told = |error: DataFusionError| sql_diagnostic::explain(&error, &self.tables(), &[]);
        depth::refuse_deep(sql)?;
        let state = self.state();
        let plan = logical(&state, sql).await.map_err(told)?;
        if is_volatile(&plan).map_err(told)? {
            return Err(SqlDiagnostic::new(
                "the query has another answer each time",
                "what is rejected must be the same in every run: leave `random()` and its like out",
            ));
        }
        let schema = plan.schema().inner().clone();
        refuse_constants(&state.optimize(&plan).map_err(told)?).map_err(told)?;
        state.create_physical_plan(&plan).await.map_err(told)?;
        Ok(schema)
    }

    /// Notes what the queries from here on do, until [`Engine::noted`].
    pub fn note(&self) {
        self.notes.begin();
    }

    /// Says what the next queries are for.
    pub fn about(&self, table: &str, check: &str) {
        self.notes.about(table, check);
    }

    /// The queries that ran since [`Engine::note`].
    pub fn noted(&self) -> Vec<QueryMetrics> {
        self.notes.take()
    }

    /// Runs a query; batches come in no particular order unless the query has one.
    ///
    /// # Errors
    /// Where the query does not plan, or is anything but a query.
    pub async fn query(&self, sql: &str) -> Result<Answer> {
        // A hash join does not spill, a merge join does: where the rows went to disk, joins can.
        self.start(sql, self.room.exceeded()).await
    }

    /// Runs a query, with joins that spill if `spills` says so.
    async fn start(&self, sql: &str, spills: bool) -> Result<Answer> {
        let mut state = self.state();
        if spills {
            state.config_mut().options_mut().optimizer.prefer_hash_join = false;
        }
        let logical = logical(&state, sql).await?;
        let plan = state.create_physical_plan(&logical).await?;
        self.notes.add(sql, &plan);
        let memory = self.limits.memory;
        let stream = datafusion::physical_plan::execute_stream(plan, Arc::new(TaskContext::from(&state)))?;
        Ok(stream.map(move |batch| batch.map_err(|error| answer::failed(error, memory))).boxed())
    }

    /// Runs a query and hands each batch of its result to `each`.
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

/// A value as text, for messages.
pub fn display_value(values: &dyn Array, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(values, &options).map_or_else(|_| "?".into(), |formatter| formatter.value(row).to_string())
}

/// Whether any expression of a plan has another value each time.
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

/// Refuses a plan one of whose constants is too large, or would be.
fn refuse_constants(plan: &LogicalPlan) -> datafusion::error::Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            bounded::refuse_constants(expression)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .map(|_| ())
}

/// Plans a query, and nothing but a query.
async fn logical(state: &SessionState, sql: &str) -> datafusion::error::Result<LogicalPlan> {
    let plan = state.create_logical_plan(sql).await?;
    query_only().verify_plan(&plan)?;
    Ok(plan)
}

fn query_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

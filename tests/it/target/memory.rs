//! A third kind of target, which keeps everything in memory. A target needs the roles and phases, and nothing else of this program.
//!
//! Production is a DataFusion session, so the SQL of the contract works on it. There are no constraints but keys, no roles, and no files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::Constraint;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use delta_pipeline::internals::error::{Error, Kind, Result};
use delta_pipeline::internals::journal::{Record, RunId};
use delta_pipeline::internals::spec::StartRowNumber;
use delta_pipeline::internals::target::{
    Access, Aggregate, Batches, Capabilities, Catalog, CatalogColumn, CatalogTable, CommitPhase, ConstraintViolation,
    DatabaseAnswer, DatabaseQuestion, Destination, Ended, Filter, Governance, InsertError, InsertPhase, Inserted,
    JournalWriter, Journals, KeyBlock, KeyMapStore, KeyRequest, LoadMode, LoadedFile, Loader, LogicalType, Lookup,
    Mode, Period, Policy, Preflight, Production, Provision, QuestionRows, Relation, RollbackPlan, RolledBackTable,
    RowSource, RunHeader, RunRecord, RunRollback, RunStore, RunTable, Segment, StagingPhase, Switch, Test, WriterLock,
    aggregates_schema,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::rows::{batch, shown};

/// Mappings that a run appended to a key map: `legacy_key` and the key's columns.
type Mappings = (String, RunId, RecordBatch);

/// What runs leave behind.
#[derive(Debug, Clone, Default)]
struct Control {
    runs: Vec<RunRecord>,
    journal: Vec<Record>,
    files: Vec<LoadedFile>,
    mappings: Vec<Mappings>,
    blocks: Vec<(RunId, KeyBlock)>,
    ids: Vec<String>,
    policy: Option<Policy>,
    period: Option<Period>,
    /// The target that holds the writer lock, and its run.
    writer: Option<(u64, RunId)>,
}

/// A database that lives as long as its test.
#[derive(Default)]
pub struct MemoryDatabase {
    sql: SessionContext,
    control: Mutex<Control>,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(error)
}

/// A column as the catalog has it: integers of 64 bits and plain texts.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other.clone(),
    }
}

fn cast_to(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(values) => Ok(cast(values, field.data_type())?),
        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// The values of a row as text; None if one is NULL.
fn values(batch: &RecordBatch, columns: &[String], row: usize) -> Option<Vec<String>> {
    let value = |name: &String| {
        let column = batch.column_by_name(name)?;
        column.is_valid(row).then(|| shown(column, row))
    };
    columns.iter().map(value).collect()
}

fn sorted(batch: &RecordBatch) -> Result<RecordBatch> {
    Ok(take_record_batch(batch, &sort_to_indices(batch.column(0), None, None)?)?)
}

/// Answers a query over tables of its own.
async fn query<'a>(
    sql: &str,
    tables: impl IntoIterator<Item = (&'a str, &'a RecordBatch)>,
) -> Result<Vec<RecordBatch>> {
    let session = SessionContext::new();
    for (name, rows) in tables {
        session.register_batch(name, rows.clone()).map_err(failed)?;
    }
    session.sql(sql).await.map_err(failed)?.collect().await.map_err(failed)
}

fn one(batch: RecordBatch) -> Batches<'static> {
    stream::iter([Ok(batch)]).boxed()
}

impl MemoryDatabase {
    fn control(&self) -> MutexGuard<'_, Control> {
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
    async fn rows(&self, table: &str, condition: Option<&str>) -> Result<RecordBatch> {
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
    async fn replace(&self, table: &str, rows: &[RecordBatch]) -> Result<()> {
        let old = self.sql.table_provider(table).await.map_err(failed)?;
        let rows = rows.iter().map(|rows| cast_to(rows, &old.schema())).collect::<Result<Vec<_>>>()?;
        let mut new = MemTable::try_new(old.schema(), vec![rows]).map_err(failed)?;
        if let Some(constraints) = old.constraints() {
            new = new.with_constraints(constraints.clone());
        }
        self.sql.deregister_table(table).map_err(failed)?;
        self.sql.register_table(table, Arc::new(new)).map(drop).map_err(failed)
    }

    async fn next_block(&self, request: &KeyRequest) -> Result<KeyBlock> {
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

/// The target of one session.
pub struct MemoryTarget {
    database: Arc<MemoryDatabase>,
    session: u64,
}

impl MemoryTarget {
    pub fn new(database: &Arc<MemoryDatabase>) -> Self {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        Self { database: database.clone(), session: SESSIONS.fetch_add(1, Ordering::Relaxed) }
    }

    /// The rows of a key map with the run of each: `legacy_key`, the key's columns, `run`.
    fn key_map_rows(&self, key_map: &str) -> Result<Option<RecordBatch>> {
        let control = self.database.control();
        let with_run = |(_, run, rows): &Mappings| {
            let mut columns: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
            columns.push("run".to_owned());
            let runs: ArrayRef = Arc::new(StringArray::from(vec![&**run; rows.num_rows()]));
            let values = rows.columns().iter().cloned().chain([runs]);
            batch(columns.iter().map(String::as_str).zip(values).collect())
        };
        let parts: Vec<_> = control.mappings.iter().filter(|(of, ..)| of == key_map).map(with_run).collect();
        let Some(first) = parts.first() else { return Ok(None) };
        Ok(Some(sorted(&concat_batches(&first.schema(), &parts)?)?))
    }
}

/// A lock ends with the session that holds it.
impl Drop for MemoryTarget {
    fn drop(&mut self) {
        let mut control = self.database.control();
        if control.writer.as_ref().is_some_and(|(session, _)| *session == self.session) {
            control.writer = None;
        }
    }
}

#[async_trait]
impl Production for MemoryTarget {
    async fn catalog(&self) -> Result<Catalog> {
        let schema = self.database.sql.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        let mut tables = Vec::new();
        for name in names {
            let provider = self.database.sql.table_provider(name.as_str()).await.map_err(failed)?;
            let schema = provider.schema();
            let primary_key =
                provider.constraints().into_iter().flat_map(|found| found.iter()).find_map(|one| match one {
                    Constraint::PrimaryKey(columns) => Some(columns.clone()),
                    Constraint::Unique(_) => None,
                });
            let name_of = |at: &usize| schema.field(*at).name().clone();
            tables.push(Arc::new(CatalogTable {
                id: name.clone(),
                key_map: name.clone(),
                columns: schema.fields().iter().map(|field| column(field)).collect(),
                primary_key: primary_key.iter().flatten().map(name_of).collect(),
                name,
                ..CatalogTable::default()
            }));
        }
        Ok(Catalog { tables, ..Catalog::default() })
    }

    async fn preflight(&self, _: &[Destination], _: Access) -> Result<Preflight> {
        Ok(Preflight::default())
    }

    async fn lookup(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let rows = match &lookup.place {
            Relation::Production(table) => self.database.rows(table, lookup.condition.as_deref()).await?,
            Relation::KeyMap(table) => match self.key_map_rows(table)? {
                Some(rows) => rows,
                None => return Ok(Vec::new()),
            },
        };
        let mut answers = Vec::new();
        for asked in keys {
            let fold = |name: &String, of: String| {
                if lookup.ignore_case.contains(name) {
                    format!("translate({of}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')")
                } else {
                    of
                }
            };
            let schema = asked.schema();
            let pairs = lookup.match_on.iter().zip(schema.fields().iter().skip(1)).map(|(name, key)| {
                format!("{} = {}", fold(name, format!("r.\"{name}\"")), fold(name, format!("k.\"{}\"", key.name())))
            });
            let give: String = lookup.give.iter().map(|name| format!(", r.\"{name}\"")).collect();
            let on: Vec<_> = pairs.collect();
            let sql = format!("SELECT k._id{give} FROM k JOIN r ON {}", on.join(" AND "));
            answers.extend(query(&sql, [("k", asked), ("r", &rows)]).await?);
        }
        Ok(answers)
    }

    async fn judge(&self, question: &DatabaseQuestion<'_>, _: &dyn QuestionRows) -> Result<Vec<DatabaseAnswer>> {
        // The catalog names no constraint that only this target could judge.
        Ok(vec![DatabaseAnswer::default(); question.checks.len()])
    }

    async fn scan(
        &self,
        table: &str,
        columns: &[String],
        filters: &[Filter],
        limit: Option<usize>,
    ) -> Result<Batches<'static>> {
        let condition = |Filter { column, test }: &Filter| match test {
            Test::IsNull => format!("\"{column}\" IS NULL"),
            Test::IsNotNull => format!("\"{column}\" IS NOT NULL"),
            Test::Text(how, text) => format!("\"{column}\" {how} '{}'", text.replace('\'', "''")),
            Test::Integer(how, number) => format!("\"{column}\" {how} {number}"),
        };
        let conditions: Vec<_> = ["true".to_owned()].into_iter().chain(filters.iter().map(condition)).collect();
        let rows = self.database.rows(table, Some(&conditions.join(" AND "))).await?;
        let rows = rows.slice(0, rows.num_rows().min(limit.unwrap_or(usize::MAX)));
        let places = columns.iter().map(|name| rows.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(one(rows.project(&places)?))
    }

    async fn loaded_files(&self, files: &[(String, String)]) -> Result<Vec<LoadedFile>> {
        let control = self.database.control();
        let known = |(table, hash): &(String, String)| {
            control.files.iter().rev().find(|file| file.table == *table && file.hash == *hash).cloned()
        };
        Ok(files.iter().filter_map(known).collect())
    }

    async fn preview_keys(&self, requests: &[KeyRequest]) -> Result<Vec<KeyBlock>> {
        // Each request is for another table here.
        let mut blocks = Vec::new();
        for request in requests {
            blocks.push(self.database.next_block(request).await?);
        }
        Ok(blocks)
    }
}

fn column(field: &Field) -> CatalogColumn {
    CatalogColumn {
        name: field.name().clone(),
        declared: field.data_type().to_string(),
        data_type: plain(field.data_type()),
        not_null: !field.is_nullable(),
        has_default: false,
        generated: false,
        max_length: None,
        significant_digits: None,
        form: LogicalType::Plain,
    }
}

#[async_trait]
impl Governance for MemoryTarget {
    async fn now(&self) -> Result<Timestamp> {
        Ok(Timestamp::now())
    }

    async fn policy(&self) -> Result<Policy> {
        Ok(self.database.control().policy.clone().unwrap_or_else(|| Policy::unstated(false)))
    }

    async fn set_policy(&self, policy: &Policy) -> Result<()> {
        self.database.control().policy = Some(policy.clone());
        Ok(())
    }

    async fn mode(&self) -> Result<Mode> {
        Ok(Mode { now: Timestamp::now(), last: self.database.control().period.clone() })
    }

    async fn switch_mode(&self, switch: &Switch) -> Result<()> {
        let mode = self.mode().await?;
        let mut control = self.database.control();
        match switch {
            Switch::On { time, reason, keep } => {
                let (since, by) = (mode.now, "memory".to_owned());
                let period =
                    Period { since, until: since + *time, by, reason: reason.clone(), keep: *keep, ended: None };
                control.period = Some(period);
            }
            Switch::Off { reason } if mode.on().is_some() => {
                let ended = Ended { at: mode.now, by: "memory".to_owned(), run: None, reason: reason.clone() };
                control.period.as_mut().unwrap().ended = Some(ended);
            }
            Switch::Off { .. } => {}
        }
        Ok(())
    }
}

#[async_trait]
impl RunStore for MemoryTarget {
    async fn runs(&self) -> Result<Vec<RunHeader>> {
        let header = |run: &RunRecord| RunHeader {
            id: run.id.clone(),
            pipeline: run.pipeline.clone(),
            started_at: run.started_at.clone(),
        };
        Ok(self.database.control().runs.iter().map(header).collect())
    }

    async fn run(&self, id: &RunId) -> Result<Option<RunRecord>> {
        Ok(self.database.control().runs.iter().find(|run| run.id == *id).cloned())
    }

    async fn journal(&self, run: &RunId) -> Result<Vec<Record>> {
        Ok(self.database.control().journal.iter().filter(|record| record.run == *run).cloned().collect())
    }

    async fn journals(&self, of: Journals, after: &str) -> Result<Vec<Record>> {
        let mut runs: BTreeMap<RunId, Vec<Record>> = BTreeMap::new();
        for record in &self.database.control().journal {
            runs.entry(record.run.clone()).or_default().push(record.clone());
        }
        let ended = |record: &Record| ["verified", "abandoned", "rolled_back"].contains(&record.kind.as_str());
        runs.retain(|run, records| **run > *after && (of == Journals::All || !records.iter().any(ended)));
        Ok(runs.into_values().flatten().collect())
    }

    async fn append_event(&self, record: &Record) -> Result<()> {
        self.database.control().journal.push(record.clone());
        Ok(())
    }

    async fn is_committed(&self, run: &RunId, _: Option<&str>) -> Result<bool> {
        Ok(self.database.control().runs.iter().any(|record| record.id == *run))
    }
}

#[async_trait]
impl KeyMapStore for MemoryTarget {
    async fn key_map(&self, destination: &Destination) -> Result<Batches<'static>> {
        Ok(self.key_map_rows(&destination.table.key_map)?.map_or(stream::empty().boxed(), one))
    }

    async fn segments(&self) -> Result<Vec<Segment>> {
        let segment = |(table, run, rows): &Mappings| Segment {
            run: run.clone(),
            table: table.clone(),
            rows: rows.num_rows() as u64,
        };
        let mut segments: Vec<_> = self.database.control().mappings.iter().map(segment).collect();
        segments.sort();
        Ok(segments)
    }

    async fn segment(&self, table: &str, run: &RunId) -> Result<Batches<'static>> {
        let control = self.database.control();
        let found = control.mappings.iter().find(|(of, by, _)| of == table && by == run);
        Ok(found.map(|(.., rows)| sorted(rows)).transpose()?.map_or(stream::empty().boxed(), one))
    }

    async fn identity(&self, make: bool) -> Result<Vec<String>> {
        let mut control = self.database.control();
        if control.ids.is_empty() && make {
            let seed = format!("{} {}", Timestamp::now().as_nanosecond(), self.session);
            control.ids.push(blake3::hash(seed.as_bytes()).to_hex()[..32].to_owned());
        }
        Ok(control.ids.clone())
    }

    async fn missing_rows(&self, destination: &Destination, run: &RunId) -> Result<Vec<String>> {
        let rows = self.database.rows(&destination.table.name, None).await?;
        let there: Vec<_> = (0..rows.num_rows()).filter_map(|row| values(&rows, &destination.key, row)).collect();
        let control = self.database.control();
        let own = control.mappings.iter().filter(|(of, by, _)| *of == destination.table.key_map && by == run);
        let missing = own.flat_map(|(.., mapped)| {
            (0..mapped.num_rows())
                .filter(|row| !values(mapped, &destination.key, *row).is_some_and(|key| there.contains(&key)))
                .map(|row| shown(mapped.column(0), row))
                .collect::<Vec<_>>()
        });
        Ok(missing.collect())
    }
}

#[async_trait]
impl WriterLock for MemoryTarget {
    async fn lock(&self, run: &RunId) -> Result<()> {
        let mut control = self.database.control();
        match &control.writer {
            Some((session, holder)) if *session != self.session => {
                Err(Error::new(Kind::Unreachable, format!("run {holder} is loading")).hint("wait until it ends"))
            }
            _ => {
                control.writer = Some((self.session, run.clone()));
                Ok(())
            }
        }
    }

    async fn unlock(&self) -> Result<()> {
        self.database.control().writer = None;
        Ok(())
    }
}

#[async_trait]
impl Loader for MemoryTarget {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn begin(&self, run: &RunId, _: LoadMode) -> Result<Box<dyn StagingPhase>> {
        self.lock(run).await?;
        let (database, run) = (self.database.clone(), run.clone());
        Ok(Box::new(MemoryLoad {
            database,
            run,
            staged: BTreeMap::new(),
            inserted: Vec::new(),
            left: Control::default(),
            ends_mode: false,
        }))
    }

    async fn compare(&self, destination: &Destination, expected: Batches<'_>) -> Result<Option<String>> {
        let rows = self.database.rows(&destination.table.name, None).await?;
        difference(destination, &rows, &expected.try_collect::<Vec<_>>().await?)
    }
}

/// Returns the first difference between rows and the expected ones, found by their keys.
#[allow(clippy::unnecessary_wraps, reason = "its callers answer with it")]
fn difference(destination: &Destination, rows: &RecordBatch, expected: &[RecordBatch]) -> Result<Option<String>> {
    let key = |batch: &RecordBatch, row| values(batch, &destination.key, row);
    let there: BTreeMap<_, _> = (0..rows.num_rows()).map(|row| (key(rows, row), row)).collect();
    for batch in expected {
        for row in 0..batch.num_rows() {
            let Some(found) = there.get(&key(batch, row)) else { return Ok(Some("rows are missing".to_owned())) };
            for name in &destination.columns {
                let value = |of: &RecordBatch, row| of.column_by_name(name).map(|column| shown(column, row));
                let (is, meant) = (value(rows, *found), value(batch, row));
                if is != meant {
                    let text = |value: Option<String>| value.unwrap_or_default();
                    return Ok(Some(format!("column `{name}` is {}, expected {}", text(is), text(meant))));
                }
            }
        }
    }
    Ok(None)
}

/// A load in any of its phases. Nothing of it is in the database before the commit.
struct MemoryLoad {
    database: Arc<MemoryDatabase>,
    run: RunId,
    /// By table: rows and mappings.
    staged: BTreeMap<String, [Vec<RecordBatch>; 2]>,
    inserted: Vec<(String, Vec<RecordBatch>)>,
    /// What the commit adds to the control data.
    left: Control,
    ends_mode: bool,
}

impl MemoryLoad {
    async fn copy(&mut self, destination: &Destination, which: usize, rows: Batches<'_>) -> Result<u64> {
        let rows: Vec<_> = rows.try_collect().await?;
        let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        self.staged.entry(destination.table.name.clone()).or_default()[which] = rows;
        Ok(count)
    }

    fn mappings(&self, destination: &Destination, rows: Range<usize>) -> Result<RecordBatch> {
        let [_, keys] = self.staged.get(&destination.table.name).cloned().unwrap_or_default();
        let columns: Vec<_> = ["legacy_key".to_owned()].into_iter().chain(destination.key.iter().cloned()).collect();
        let field = |name: &String| {
            Field::new(
                name,
                destination.table.column(name).map_or(DataType::Utf8, |found| found.data_type.clone()),
                true,
            )
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let keys = keys.iter().map(|batch| cast_to(batch, &schema)).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&schema, &keys)?;
        let end = rows.end.min(all.num_rows());
        Ok(all.slice(rows.start, end - rows.start))
    }
}

#[async_trait]
impl JournalWriter for MemoryLoad {
    async fn append_event(&mut self, record: &Record) -> Result<()> {
        self.database.control().journal.push(record.clone());
        Ok(())
    }
}

#[async_trait]
impl StagingPhase for MemoryLoad {
    async fn reserve(&mut self, request: &KeyRequest) -> Result<KeyBlock> {
        let block = self.database.next_block(request).await?;
        self.database.control().blocks.push((self.run.clone(), block.clone()));
        Ok(block)
    }

    async fn defaults(&mut self, _: &Destination, count: u64) -> Result<RecordBatch> {
        // The catalog has no column with a default.
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count as usize));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
    }

    async fn loaded_files(&mut self, files: &[(String, String)]) -> Result<Vec<LoadedFile>> {
        MemoryTarget::new(&self.database).loaded_files(files).await
    }

    fn direct_path(&mut self, destinations: &[Destination]) -> Vec<bool> {
        vec![false; destinations.len()]
    }

    async fn clear_staging(&mut self, destinations: &[Destination]) -> Result<()> {
        for destination in destinations {
            self.staged.remove(&destination.table.name);
        }
        Ok(())
    }

    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64> {
        self.copy(destination, 0, rows).await
    }

    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64> {
        self.copy(destination, 1, keys).await
    }

    async fn lock_mode(&mut self) -> Result<Mode> {
        MemoryTarget::new(&self.database).mode().await
    }

    async fn lock_policy(&mut self) -> Result<Policy> {
        MemoryTarget::new(&self.database).policy().await
    }

    async fn begin_insert(self: Box<Self>, _: &[Destination]) -> Result<Box<dyn InsertPhase>, InsertError> {
        Ok(self)
    }
}

#[async_trait]
impl InsertPhase for MemoryLoad {
    async fn insert(&mut self, destinations: &[Destination], _: &dyn RowSource) -> Result<Vec<Inserted>, InsertError> {
        let mut inserted = Vec::new();
        for destination in destinations {
            let [rows, _] = self.staged.get(&destination.table.name).cloned().unwrap_or_default();
            let there = self.database.rows(&destination.table.name, None).await?;
            let keys: Vec<_> = (0..there.num_rows()).map(|row| values(&there, &destination.key, row)).collect();
            let is_taken = |batch: &RecordBatch, row| keys.contains(&values(batch, &destination.key, row));
            if let Some(row) = rows.iter().find_map(|batch| (0..batch.num_rows()).find(|row| is_taken(batch, *row))) {
                let (table, reason) =
                    (destination.table.name.clone(), "another session has inserted these values".to_owned());
                return Err(ConstraintViolation {
                    table,
                    constraint: "PRIMARY KEY".to_owned(),
                    reason,
                    rows: vec![row as u32],
                }
                .into());
            }
            let mappings = self.mappings(destination, 0..usize::MAX)?;
            let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
            inserted.push(Inserted { rows: count, mappings: mappings.num_rows() as u64, verified: false });
            self.left.mappings.push((destination.table.key_map.clone(), self.run.clone(), mappings));
            self.inserted.push((destination.table.name.clone(), rows));
        }
        Ok(inserted)
    }

    async fn append_key_map(
        &mut self,
        destination: &Destination,
        run: &RunId,
        rows: Range<u32>,
    ) -> Result<u64, InsertError> {
        let mappings = self.mappings(destination, rows.start as usize..rows.end as usize)?;
        let count = mappings.num_rows() as u64;
        self.left.mappings.push((destination.table.key_map.clone(), run.clone(), mappings));
        Ok(count)
    }

    async fn adopt(&mut self, id: &str) -> Result<()> {
        self.left.ids.push(id.to_owned());
        Ok(())
    }

    async fn validate_deferred(&mut self, _: &[Destination], _: &dyn RowSource) -> Result<(), InsertError> {
        Ok(())
    }

    async fn aggregates(
        &mut self,
        destination: &Destination,
        aggregates: &[(String, Aggregate)],
    ) -> Result<RecordBatch> {
        let own = self.inserted.iter().filter(|(table, _)| *table == destination.table.name).flat_map(|(_, rows)| rows);
        let own = own.map(|rows| cast_to(rows, &destination.table.schema())).collect::<Result<Vec<_>>>()?;
        let rows = concat_batches(&destination.table.schema(), &own)?;
        let sql = aggregates.iter().map(|(name, aggregate)| match aggregate {
            Aggregate::NonNull => format!(", count(\"{name}\")"),
            Aggregate::Sum => format!(", sum(\"{name}\")"),
            Aggregate::Min => format!(", min(\"{name}\")"),
            Aggregate::Max => format!(", max(\"{name}\")"),
        });
        let found = query(&format!("SELECT count(*){} FROM t", sql.collect::<String>()), [("t", &rows)]).await?;
        let schema = aggregates_schema(destination, aggregates);
        let columns =
            found[0].columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)?)
    }

    async fn compare(&mut self, destination: &Destination, expected: Batches<'_>) -> Result<Option<String>> {
        let own = self.inserted.iter().filter(|(table, _)| *table == destination.table.name).flat_map(|(_, rows)| rows);
        let own = own.map(|rows| cast_to(rows, &destination.table.schema())).collect::<Result<Vec<_>>>()?;
        difference(
            destination,
            &concat_batches(&destination.table.schema(), &own)?,
            &expected.try_collect::<Vec<_>>().await?,
        )
    }

    fn finish(self: Box<Self>) -> Box<dyn CommitPhase> {
        self
    }
}

#[async_trait]
impl CommitPhase for MemoryLoad {
    async fn record_run(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()> {
        self.left.runs.push(run.clone());
        self.left.files.extend_from_slice(files);
        Ok(())
    }

    async fn end_mode(&mut self) -> Result<()> {
        self.ends_mode = true;
        Ok(())
    }

    async fn append_event_with_rows(&mut self, record: &Record) -> Result<()> {
        self.left.journal.push(record.clone());
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), InsertError> {
        for (table, rows) in &self.inserted {
            let there = self.database.rows(table, None).await?;
            self.database.replace(table, &[vec![there], rows.clone()].concat()).await?;
        }
        let Self { database, left, run, ends_mode, .. } = *self;
        let mut control = database.control();
        control.runs.extend(left.runs);
        control.files.extend(left.files);
        control.journal.extend(left.journal);
        control.mappings.extend(left.mappings.into_iter().filter(|(.., rows)| rows.num_rows() > 0));
        for id in left.ids {
            if !control.ids.contains(&id) {
                control.ids.push(id);
            }
        }
        if let Some(period) =
            control.period.as_mut().filter(|period| ends_mode && !period.keep && period.ended.is_none())
        {
            period.ended =
                Some(Ended { at: Timestamp::now(), by: "memory".to_owned(), run: Some(run.to_string()), reason: None });
        }
        Ok(())
    }

    async fn roll_back(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl RunRollback for MemoryTarget {
    async fn holdings(&self, run: &RunId) -> Result<Vec<RunTable>> {
        let control = self.database.control();
        let table = |(table, _, rows): &Mappings| {
            let key = |row: usize| {
                (1..rows.num_columns()).map(|at| shown(rows.column(at), row)).collect::<Vec<_>>().join("|")
            };
            let keys = (key(0), key(rows.num_rows() - 1));
            RunTable { table: table.clone(), rows: rows.num_rows() as u64, keys, triggers: Vec::new() }
        };
        Ok(control.mappings.iter().filter(|(_, by, _)| by == run).map(table).collect())
    }

    async fn plan_rollback(&self, run: &RunId, _: &[String]) -> Result<RollbackPlan> {
        Ok(RollbackPlan { tables: self.holdings(run).await?, ..RollbackPlan::default() })
    }

    async fn roll_back_run(&self, record: &Record, _: bool, _: &[String]) -> Result<Vec<RolledBackTable>> {
        let own: Vec<_> =
            self.database.control().mappings.iter().filter(|(_, by, _)| *by == record.run).cloned().collect();
        let mut rolled_back = Vec::new();
        for (table, _, mapped) in own {
            let rows = self.database.rows(&table, None).await?;
            let key: Vec<_> = mapped.schema().fields().iter().skip(1).map(|field| field.name().clone()).collect();
            let keys: Vec<_> = (0..mapped.num_rows()).map(|row| values(&mapped, &key, row)).collect();
            let stay = (0..rows.num_rows()).filter(|row| !keys.contains(&values(&rows, &key, *row)));
            let stay = UInt64Array::from_iter_values(stay.map(|row| row as u64));
            let deleted = (rows.num_rows() - stay.len()) as u64;
            self.database.replace(&table, &[take_record_batch(&rows, &stay)?]).await?;
            rolled_back.push(RolledBackTable { table, deleted, mappings: keys.len() as u64 });
        }
        let mut control = self.database.control();
        control.mappings.retain(|(_, by, _)| *by != record.run);
        control.journal.push(record.clone());
        Ok(rolled_back)
    }
}

#[async_trait]
impl Provision for MemoryTarget {
    async fn setup(&self, _: &[Destination], _: Option<&str>) -> Result<()> {
        Ok(())
    }
}

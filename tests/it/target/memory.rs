//! A third kind of target, which keeps everything in memory. A target needs the roles and phases, and nothing else of this program.
//!
//! Production is a DataFusion session, so the SQL of the contract works on it. There are no constraints but keys, no roles, and no files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::Field;
use async_trait::async_trait;
use datafusion::common::Constraint;
use delta_pipeline::internals::error::{Error, Kind, Result};
use delta_pipeline::internals::journal::{FileHash, Record, RunId};
use delta_pipeline::internals::target::{
    Access, Batches, Capabilities, Catalog, CatalogColumn, CatalogTable, DatabaseCheckRequest, DatabaseCheckResult,
    DatabaseCheckRows, Destination, Ended, Filter, Governance, Journals, KeyBlock, KeyMapStore, KeyRequest, LoadMode,
    LoadedFile, Loader, LogicalType, Lookup, Mode, Period, Policy, Preflight, Production, Provision, Relation,
    RollbackPlan, RolledBackTable, RunHeader, RunRecord, RunRollback, RunStore, RunTable, Segment, StagingPhase,
    Switch, Test, WriterLock,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::rows::{batch, shown};
pub use database::MemoryDatabase;
use database::{Control, Mappings, failed, plain, query, values};
use load::{MemoryLoad, difference};

mod database;
mod load;

fn sorted(batch: &RecordBatch) -> Result<RecordBatch> {
    Ok(take_record_batch(batch, &sort_to_indices(batch.column(0), None, None)?)?)
}

fn one(batch: RecordBatch) -> Batches<'static> {
    stream::iter([Ok(batch)]).boxed()
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

    async fn evaluate_checks(
        &self,
        question: &DatabaseCheckRequest<'_>,
        _: &dyn DatabaseCheckRows,
    ) -> Result<Vec<DatabaseCheckResult>> {
        // The catalog names no constraint that only this target could evaluator.
        Ok(vec![DatabaseCheckResult::default(); question.checks.len()])
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

    async fn loaded_files(&self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        let control = self.database.control();
        let known = |(table, hash): &(String, FileHash)| {
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

    async fn holder(&self) -> Result<Option<RunId>> {
        Ok(self.database.control().writer.as_ref().map(|(_, run)| run.clone()))
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

//! A load into SQLite: a single transaction that begins with the write lock. So nothing can change between the reservation of keys and the
//! commit. Only earlier journal entries are written outside of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::batches::{Inserting, select};
use super::direct_path::{DirectPath, Place, ahead};
use super::storage_values::StorageBatch;
use super::values::Affinity;
use super::violations::Refusals;
use super::{
    Held, Names, compare, control_schema, direct_path, inserted, key_map, keys, mode, object_registry, policy, rollback,
};
use crate::engine::{RowNumber, ident};
use crate::error::{Error, Result};
use crate::journal::{FileHash, Record, RunId};
use crate::spec::{ForeignKeys, LoadSpec};
use crate::target::references::References;
use crate::target::{
    Aggregate, Batches, CatalogColumn, CommitPhase, ConstraintViolation, Destination, InsertError, InsertPhase,
    Inserted, JournalWriter, KeyBlock, KeyRequest, LoadedFile, Mode, Policy, RowSource, RunRecord, StagingPhase,
    TableIndex, aggregates_schema,
};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::StreamExt;

/// A transaction that is rolled back unless it is committed.
pub(super) struct SqliteLoad {
    connection: Held,
    names: Names,
    run: RunId,
    spec: LoadSpec,
    open: bool,
    /// By table, the first and the last key of its block, if they are integers.
    keys: BTreeMap<String, (String, String)>,
    direct: Vec<String>,
    /// By table on the direct path, how its rows are found again.
    places: BTreeMap<String, Place>,
}

impl SqliteLoad {
    pub(super) fn begin(connection: Held, names: Names, run: &RunId, spec: LoadSpec) -> Result<Self> {
        let fault = |error: rusqlite::Error| names.error("cannot begin to write to", &error);
        // The pragma has no effect inside a transaction.
        connection.pragma_update(None, "foreign_keys", spec.foreign_keys == ForeignKeys::Triggers).map_err(fault)?;
        let (keys, direct, places) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Ok(Self { connection, names, run: run.to_owned(), spec, open: false, keys, direct, places })
    }

    fn open(&mut self) -> Result<()> {
        if !self.open {
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(self.fault("cannot begin to write to"))?;
            self.open = true;
            control_schema::make(&self.connection, &self.names)?;
        }
        Ok(())
    }

    fn make_staging_tables(&self, destination: &Destination) -> rusqlite::Result<()> {
        let table = &destination.table.name;
        let (rows, keys) = (self.names.staging(table), self.names.staged_keys(table));
        let columns = idents(&destination.columns);
        let key = idents(&destination.key);
        let level = if destination.self_referencing { "_level, " } else { "" };
        // A column without a type stores every value unchanged; the insertion applies production's types.
        let sql = format!(
            "DROP TABLE IF EXISTS main.{rows}; DROP TABLE IF EXISTS main.{keys};
             CREATE TABLE main.{rows} (_row INTEGER PRIMARY KEY, {level}{columns});
             CREATE TABLE main.{keys} (_row INTEGER PRIMARY KEY, legacy_key TEXT NOT NULL UNIQUE, {key});"
        );
        self.connection.execute_batch(&sql)?;
        let made = [self.names.staging_name(table), self.names.staged_keys_name(table)];
        made.iter().try_for_each(|name| object_registry::register(&self.connection, name))?;
        self.make_history(destination)
    }

    fn make_history(&self, destination: &Destination) -> rusqlite::Result<()> {
        let table = &destination.table.key_map;
        let typed: Vec<_> = named(destination, &destination.key).map(declared).collect();
        key_map::make_table(&self.connection, table, &typed.join(", "), &destination.key)
    }

    /// Appends staged mappings to the key map as those of a run.
    fn append(&self, destination: &Destination, run: &RunId, rows: Range<RowNumber>) -> Result<u64, InsertError> {
        let _append = tracing::info_span!("append key map", of = destination.table.name).entered();
        let key = idents(&destination.key);
        let table = &destination.table.name;
        let sql = format!(
            "INSERT INTO main.{} (legacy_key, {key}, segment) SELECT legacy_key, {key}, ?1 FROM main.{}
             WHERE _row >= ?2 AND _row < ?3 ORDER BY _row",
            Names::mappings(&destination.table.key_map),
            self.names.staged_keys(table)
        );
        let refusals = self.refusals(destination);
        let number = key_map::number(&self.connection, &destination.table.key_map, run)
            .map_err(self.fault("cannot read the key map of"))?;
        let appended =
            self.connection.execute(&sql, (number, rows.start.get().cast_signed(), rows.end.get().cast_signed()));
        Ok(appended.map_err(|error| refusals.of_key_map(&error))? as u64)
    }

    fn insert_rows(&self, destination: &Destination) -> Result<u64, InsertError> {
        let _insert = tracing::info_span!("insert", of = destination.table.name).entered();
        let refusals = self.refusals(destination);
        refusals.commit_checks()?;
        let columns = idents(&destination.columns);
        let order = if destination.self_referencing { "_level, _row" } else { "_row" };
        // OR ABORT overrides production's own ON CONFLICT: REPLACE would delete rows, and IGNORE would lose some.
        let sql = format!(
            "INSERT OR ABORT INTO main.{} ({columns}) SELECT {columns} FROM main.{} ORDER BY {order}",
            ident(&destination.table.name),
            self.names.staging(&destination.table.name)
        );
        Ok(self.connection.execute(&sql, []).map_err(|error| refusals.of(&error))? as u64)
    }

    fn fault(&self, doing: &str) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let (names, doing) = (self.names.clone(), doing.to_owned());
        move |error| names.error(&doing, &error)
    }

    fn copy(&self, table: &str, columns: usize, rows: Batches<'_>) -> Result<u64> {
        let inserting = Inserting::new(&format!("INTO main.{table}"), columns, "");
        let mut count = 0;
        ahead(rows.map(|batch| StorageBatch::of_batch(&batch?)), |stored| {
            let stored = stored?;
            let fault = |error: &rusqlite::Error| self.names.error(&format!("cannot stage into {table} of"), error);
            inserting.insert(&self.connection, &stored, fault)?;
            count += stored.rows() as u64;
            Ok::<_, Error>(())
        })?;
        Ok(count)
    }

    fn refusals<'a>(&'a self, destination: &'a Destination) -> Refusals<'a> {
        Refusals { connection: &self.connection, names: &self.names, destination }
    }

    fn takes_direct_path(&self, destination: &Destination) -> bool {
        self.direct.contains(&destination.table.name)
    }

    fn direct_path_of<'a>(&'a self, destination: &'a Destination) -> Option<DirectPath<'a>> {
        let place = self.places.get(&destination.table.name).filter(|_| self.takes_direct_path(destination))?;
        Some(DirectPath { connection: &self.connection, names: &self.names, destination, place })
    }

    fn insert_all(&self, destinations: &[Destination], delta: &dyn RowSource) -> Result<Vec<Inserted>, InsertError> {
        let mut rows = Vec::with_capacity(destinations.len());
        let mut referred = Vec::new();
        for (at, destination) in TableIndex::enumerate(destinations) {
            rows.push(match self.direct_path_of(destination) {
                None => self.insert_rows(destination)?,
                Some(direct) => {
                    let set_based = self.spec.foreign_keys == ForeignKeys::SetBased;
                    let references = || References::try_new(destination, destinations, &self.keys);
                    let mut references = set_based.then(references).transpose()?;
                    let refused = |error: &rusqlite::Error| self.refusals(destination).at_once(error);
                    let inserted = direct.insert(delta.staged_rows(at)?, &mut references, &refused)?;
                    referred.extend(references.map(|references| (destination, references)));
                    inserted
                }
            });
            delta.on_inserted(at, rows[at]);
        }
        for (destination, references) in referred {
            if let Some(direct) = self.direct_path_of(destination)
                && !direct.answered(references)?
            {
                return Err(ConstraintViolation {
                    table: destination.table.name.clone(),
                    constraint: "FOREIGN KEY".to_owned(),
                    reason: "a row that its rows refer to is not there".to_owned(),
                    rows: Vec::new(),
                }
                .into());
            }
        }
        let mut all = Vec::with_capacity(destinations.len());
        for (at, destination) in TableIndex::enumerate(destinations) {
            let direct = self.direct_path_of(destination);
            let mappings = match &direct {
                None => self.append(destination, &self.run, RowNumber::ALL)?,
                Some(direct) => {
                    let refused = |error: &rusqlite::Error| self.refusals(destination).of_key_map_at_once(error);
                    direct.map(&self.run, at, delta, &refused)?
                }
            };
            key_map::record(&self.connection, &destination.table, &self.run, mappings)
                .map_err(self.fault("cannot record the key map in"))?;
            all.push(Inserted { rows: rows[at], mappings, verified: direct.is_some() });
        }
        Ok(all)
    }

    /// Rolls the insertion back and repeats it from staging, to identify the violating rows. Nothing of it is committed.
    async fn ask(&mut self, destinations: &[Destination], delta: &dyn RowSource) -> Result<(), InsertError> {
        self.direct.clear();
        self.connection.execute_batch("ROLLBACK").map_err(self.fault("cannot roll back"))?;
        self.open = false;
        self.clear_staging(destinations).await?;
        for (at, destination) in TableIndex::enumerate(destinations) {
            self.stage(destination, delta.staged_rows(at)?).await?;
            self.stage_keys(destination, delta.key_map(at)?).await?;
        }
        self.insert_all(destinations, delta)?;
        self.validate_deferred(destinations, delta).await
    }
}

/// Returns whether a table refers to one that is loaded later.
fn has_cycle(destinations: &[Destination]) -> bool {
    let leads_ahead = |at: usize| destinations[at].leads_ahead(&destinations[at + 1..]).next().is_some();
    (0..destinations.len()).any(leads_ahead)
}

fn idents(names: &[String]) -> String {
    names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")
}

/// Declares a key column of the key map, with a type that reads as production's. Text stays text, whatever production's type does to it.
fn declared(column: &CatalogColumn) -> String {
    let changes_text = column.data_type == DataType::Utf8 && !Affinity::of(&column.declared, false).keeps_text();
    format!("{} {}", ident(&column.name), if changes_text { "TEXT" } else { &column.declared })
}

fn named<'a>(destination: &'a Destination, names: &'a [String]) -> impl Iterator<Item = &'a CatalogColumn> {
    names.iter().filter_map(|name| destination.table.column(name))
}

#[async_trait]
impl JournalWriter for SqliteLoad {
    async fn append_event(&mut self, record: &Record) -> Result<()> {
        if self.open {
            control_schema::append_event(&self.connection, record).map_err(self.fault("cannot write the journal in"))
        } else {
            control_schema::append_event_alone(&self.connection, &self.names, record)
        }
    }
}

#[async_trait]
impl StagingPhase for SqliteLoad {
    async fn reserve(&mut self, request: &KeyRequest) -> Result<KeyBlock> {
        self.open()?;
        let block = keys::next_block(&self.connection, request, &self.names)?;
        if request.count > 0 {
            self.connection
                .execute(
                    "INSERT INTO delta_block (table_name, first, last, run) VALUES (?1, ?2, ?3, ?4)",
                    (&block.table, block.first, block.last, &self.run),
                )
                .map_err(self.fault("cannot reserve keys in"))?;
        }
        if request.text.is_none() {
            self.keys.insert(block.table.clone(), (block.first.to_string(), block.last.to_string()));
        }
        Ok(block)
    }

    async fn defaults(&mut self, destination: &Destination, count: u64) -> Result<RecordBatch> {
        self.open()?;
        keys::defaults(&self.connection, destination, count, &self.names)
    }

    async fn loaded_files(&mut self, files: &[(String, FileHash)]) -> Result<Vec<LoadedFile>> {
        self.open()?;
        control_schema::loaded_files(&self.connection, files).map_err(self.fault("cannot read the runs of"))
    }

    fn direct_path(&mut self, destinations: &[Destination]) -> Vec<bool> {
        let mut direct = direct_path::eligible(&self.spec, destinations, &self.keys);
        if self.spec.foreign_keys == ForeignKeys::Triggers && has_cycle(destinations) {
            // Deferred foreign keys are checked as sets, from staging.
            direct.fill(false);
        }
        let names = destinations.iter().zip(&direct).filter(|(_, direct)| **direct);
        self.direct = names.map(|(destination, _)| destination.table.name.clone()).collect();
        direct
    }

    async fn clear_staging(&mut self, destinations: &[Destination]) -> Result<()> {
        self.open()?;
        object_registry::refuse_taken(&self.connection, &self.names, destinations)?;
        destinations
            .iter()
            .try_for_each(|destination| self.make_staging_tables(destination))
            .map_err(self.fault("cannot make the staging tables in"))
    }

    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64> {
        let columns = destination.columns.len() + 1 + usize::from(destination.self_referencing);
        self.copy(&self.names.staging(&destination.table.name), columns, rows)
    }

    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64> {
        self.copy(&self.names.staged_keys(&destination.table.name), destination.key.len() + 2, keys)
    }

    async fn lock_mode(&mut self) -> Result<Mode> {
        self.open()?;
        // The transaction has the file's write lock.
        mode::read(&self.connection).map_err(self.fault("cannot read the conversion mode of"))
    }

    async fn lock_policy(&mut self) -> Result<Policy> {
        self.open()?;
        policy::read(&self.connection).map_err(self.fault("cannot read the policy of"))
    }

    async fn begin_insert(
        mut self: Box<Self>,
        destinations: &[Destination],
    ) -> Result<Box<dyn InsertPhase>, InsertError> {
        self.open()?;
        if has_cycle(destinations) {
            // Until the transaction ends.
            self.connection
                .pragma_update(None, "defer_foreign_keys", true)
                .map_err(self.fault("cannot defer foreign keys in"))?;
        }
        Ok(self)
    }
}

#[async_trait]
impl InsertPhase for SqliteLoad {
    async fn insert(
        &mut self,
        destinations: &[Destination],
        delta: &dyn RowSource,
    ) -> Result<Vec<Inserted>, InsertError> {
        let direct: Vec<_> =
            destinations.iter().filter(|destination| self.direct.contains(&destination.table.name)).collect();
        object_registry::refuse_taken(&self.connection, &self.names, destinations)?;
        for (at, destination) in TableIndex::enumerate(destinations) {
            self.refusals(destination).references(at, delta)?;
        }
        let made = direct.iter().try_for_each(|destination| self.make_history(destination));
        made.map_err(self.fault("cannot make the key map in"))?;
        let place = |destination: &&Destination| {
            let name = &destination.table.name;
            let block = self.keys.get(name).filter(|_| direct_path::is_block(destination));
            let place = match block {
                Some((first, last)) => Place::Block(first.clone(), last.clone()),
                None => Place::before(&self.connection, &destination.table)?,
            };
            Ok((name.clone(), place))
        };
        let places: rusqlite::Result<_> = direct.iter().map(place).collect();
        self.places = places.map_err(self.fault("cannot read"))?;
        match self.insert_all(destinations, delta) {
            Err(InsertError::Violation(refusal)) if refusal.rows.is_empty() && !self.direct.is_empty() => {
                Err(self.ask(destinations, delta).await.err().unwrap_or(refusal.into()))
            }
            inserted => inserted,
        }
    }

    async fn append_key_map(
        &mut self,
        destination: &Destination,
        run: &RunId,
        rows: Range<RowNumber>,
    ) -> Result<u64, InsertError> {
        let appended = self.append(destination, run, rows)?;
        key_map::record_counted(&self.connection, &destination.table, run)
            .map_err(self.fault("cannot record the key map in"))?;
        Ok(appended)
    }

    async fn adopt(&mut self, id: &str) -> Result<()> {
        key_map::adopt(&self.connection, id).map_err(self.fault("cannot record the target ID in"))
    }

    async fn validate_deferred(&mut self, destinations: &[Destination], _: &dyn RowSource) -> Result<(), InsertError> {
        let staged = || destinations.iter().filter(|destination| !self.takes_direct_path(destination));
        if self.spec.foreign_keys == ForeignKeys::SetBased || has_cycle(destinations) {
            staged().try_for_each(|destination| self.refusals(destination).foreign_keys())?;
        }
        // Not earlier, because a trigger of a later table may have changed rows of an earlier one.
        for Destination { table, key, .. } in staged() {
            rollback::keep_content(&self.connection, table, key, &self.run)
                .map_err(self.fault("cannot record the rows in"))?;
        }
        Ok(())
    }

    async fn aggregates(&mut self, destination: &Destination, totals: &[(String, Aggregate)]) -> Result<RecordBatch> {
        let mut wanted = vec!["count(*)".to_owned()];
        for (name, total) in totals {
            let column = format!("p.{}", ident(name));
            wanted.push(match (total, destination.table.column(name).map(|column| &column.data_type)) {
                (Aggregate::NonNull, _) => format!("count({column})"),
                (Aggregate::Sum, Some(DataType::Decimal128(_, scale))) => {
                    let zeros = "0".repeat(scale.unsigned_abs().into());
                    format!("sum(CAST(round({column} * 1{zeros}) AS INTEGER))")
                }
                (Aggregate::Sum, _) => format!("sum({column})"),
                // Compares bytes, as in the delta, whatever the column's collation, and even if it stores digits as a number.
                (Aggregate::Min, Some(DataType::Utf8)) => format!("min(CAST({column} AS TEXT) COLLATE BINARY)"),
                (Aggregate::Max, Some(DataType::Utf8)) => format!("max(CAST({column} AS TEXT) COLLATE BINARY)"),
                (Aggregate::Min, _) => format!("min({column} COLLATE BINARY)"),
                (Aggregate::Max, _) => format!("max({column} COLLATE BINARY)"),
            });
        }
        let sql = format!("SELECT {} FROM {}", wanted.join(", "), inserted(destination, &self.names));
        let found = select(&self.connection, &sql, &aggregates_schema(destination, totals), &self.names)?;
        found.into_iter().next().ok_or_else(|| Error::internal("no totals"))
    }

    async fn compare(
        &mut self,
        destination: &Destination,
        at: TableIndex,
        delta: &dyn RowSource,
    ) -> Result<Option<String>> {
        let mut expected = delta.expected_rows(at)?;
        while let Some(batch) = expected.next().await {
            if let Some(how) = compare(&self.connection, destination, &batch?, &self.names)? {
                return Ok(Some(how));
            }
        }
        Ok(None)
    }

    fn finish(self: Box<Self>) -> Box<dyn CommitPhase> {
        self
    }
}

#[async_trait]
impl CommitPhase for SqliteLoad {
    async fn record_run(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()> {
        self.open()?;
        let fault = self.fault("cannot record the run in");
        self.connection
            .execute(
                "INSERT INTO delta_run (id, pipeline, started_at, report) VALUES (?1, ?2, ?3, ?4)",
                (&run.id, &run.pipeline, &run.started_at, &run.report),
            )
            .map_err(&fault)?;
        for file in files {
            self.connection
                .execute(
                    "INSERT INTO delta_file (hash, table_name, name, run) VALUES (?1, ?2, ?3, ?4)",
                    (&*file.hash, &file.table, &file.name, &file.run),
                )
                .map_err(&fault)?;
        }
        Ok(())
    }

    async fn end_mode(&mut self) -> Result<()> {
        self.open()?;
        mode::end_with(&self.connection, &self.run).map_err(self.fault("cannot end the conversion mode of"))
    }

    async fn append_event_with_rows(&mut self, record: &Record) -> Result<()> {
        self.open()?;
        control_schema::append_event(&self.connection, record).map_err(self.fault("cannot write the journal in"))
    }

    async fn commit(mut self: Box<Self>) -> Result<(), InsertError> {
        let _commit = tracing::info_span!("COMMIT").entered();
        self.connection.execute_batch("COMMIT").map_err(self.fault("cannot commit to"))?;
        self.open = false;
        Ok(())
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        if self.open {
            self.connection.execute_batch("ROLLBACK").map_err(self.fault("cannot roll back"))?;
            self.open = false;
        }
        Ok(())
    }
}

impl Drop for SqliteLoad {
    fn drop(&mut self) {
        if self.open {
            // Nothing can be done about a failure here. SQLite rolls back automatically when the file is opened again.
            self.connection.execute_batch("ROLLBACK").ok();
        }
        self.connection.pragma_update(None, "foreign_keys", true).ok();
    }
}

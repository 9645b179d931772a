//! One load into SQLite: a single transaction that begins with the write lock, so that no key, no reference and no row can
//! be overtaken between reserving keys and committing. Only what the journal says before that stands outside of it.

use std::ops::Range;

use super::refusal::Refusals;
use super::rollback::CONTENT;
use super::values::Affinity;
use super::{
    Held, Names, compare, control, history, insert_batch, insert_sql, inserted, keys, mode, own, rollback, select,
};
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::journal::Record;
use crate::spec::ForeignKeys;
use crate::target::{
    Batches, Block, CatalogColumn, Delta, Destination, Inserted, KeyRequest, Load, LoadedFile, Mode, RunRecord,
    Stopped, Total, totals_schema,
};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::StreamExt;

/// A transaction that is rolled back unless it is committed.
pub(super) struct SqliteLoad {
    connection: Held,
    names: Names,
    run: String,
    foreign_keys: ForeignKeys,
    open: bool,
}

impl SqliteLoad {
    pub(super) fn begin(connection: Held, names: Names, run: &str, foreign_keys: ForeignKeys) -> Result<Self> {
        let fault = |error: rusqlite::Error| names.error("cannot begin to write to", &error);
        // Inside a transaction the switch does nothing.
        connection.pragma_update(None, "foreign_keys", foreign_keys == ForeignKeys::Triggers).map_err(fault)?;
        Ok(Self { connection, names, run: run.to_owned(), foreign_keys, open: false })
    }

    /// Begins the transaction where it has not begun.
    fn open(&mut self) -> Result<()> {
        if !self.open {
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(self.fault("cannot begin to write to"))?;
            self.open = true;
            control::make(&self.connection, &self.names)?;
        }
        Ok(())
    }

    fn make_staging_tables(&self, destination: &Destination) -> rusqlite::Result<()> {
        let table = &destination.table.name;
        let (rows, keys, history) = (self.names.staging(table), self.names.staged_keys(table), Names::history(table));
        let plain = |names: &[String]| names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
        let columns = plain(&destination.columns);
        let key = plain(&destination.key);
        let typed: Vec<_> = named(destination, &destination.key).map(declared).collect();
        let level = if destination.levelled { "_level, " } else { "" };
        // A column without a type keeps every value as it is; production's own types come in at the insertion.
        let sql = format!(
            "DROP TABLE IF EXISTS main.{rows}; DROP TABLE IF EXISTS main.{keys};
             CREATE TABLE main.{rows} (_row INTEGER PRIMARY KEY, {level}{columns});
             CREATE TABLE main.{keys} (_row INTEGER PRIMARY KEY, legacy_key TEXT NOT NULL UNIQUE, {key});
             CREATE TABLE IF NOT EXISTS main.{history} (legacy_key TEXT PRIMARY KEY, {}, run TEXT NOT NULL, {CONTENT} INTEGER, UNIQUE ({key}));
             CREATE INDEX IF NOT EXISTS main.{} ON {history} (run);",
            typed.join(", "),
            ident(&Names::by_run_name(table)),
        );
        self.connection.execute_batch(&sql)?;
        rollback::make_column(&self.connection, &Names::history_name(table))?;
        let made = [self.names.staging_name(table), self.names.staged_keys_name(table)];
        let kept = [Names::history_name(table), Names::by_run_name(table)];
        made.iter().chain(&kept).try_for_each(|name| own::register(&self.connection, name))
    }

    /// Appends staged mappings to the history as a run's.
    fn append(&self, destination: &Destination, run: &str, rows: Range<u32>) -> Result<u64, Stopped> {
        let _append = tracing::info_span!("append key map", of = destination.table.name).entered();
        let key: Vec<_> = destination.key.iter().map(|name| ident(name)).collect();
        let key = key.join(", ");
        let table = &destination.table.name;
        let sql = format!(
            "INSERT INTO main.{} (legacy_key, {key}, run) SELECT legacy_key, {key}, ?1 FROM main.{}
             WHERE _row >= ?2 AND _row < ?3 ORDER BY _row",
            Names::history(table),
            self.names.staged_keys(table)
        );
        let refusals = Refusals { connection: &self.connection, names: &self.names, destination };
        let appended = self.connection.execute(&sql, (run, rows.start, rows.end));
        Ok(appended.map_err(|error| refusals.of_key_map(&error))? as u64)
    }

    /// Inserts the staged rows of a table.
    fn insert_rows(&self, destination: &Destination) -> Result<u64, Stopped> {
        let _insert = tracing::info_span!("insert", of = destination.table.name).entered();
        let refusals = Refusals { connection: &self.connection, names: &self.names, destination };
        refusals.promises(false)?;
        let columns: Vec<_> = destination.columns.iter().map(|name| ident(name)).collect();
        let columns = columns.join(", ");
        let order = if destination.levelled { "_level, _row" } else { "_row" };
        // OR ABORT: a constraint of production's own that says ON CONFLICT REPLACE would delete rows, and IGNORE lose some.
        let sql = format!(
            "INSERT OR ABORT INTO main.{} ({columns}) SELECT {columns} FROM main.{} ORDER BY {order}",
            ident(&destination.table.name),
            self.names.staging(&destination.table.name)
        );
        let inserted = self.connection.execute(&sql, []).map_err(|error| refusals.of(&error))?;
        refusals.promises(true)?;
        Ok(inserted as u64)
    }

    fn fault(&self, doing: &str) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let (names, doing) = (self.names.clone(), doing.to_owned());
        move |error| names.error(&doing, &error)
    }

    async fn copy(&mut self, table: String, columns: usize, mut rows: Batches<'_>) -> Result<u64> {
        let sql = insert_sql(&table, columns);
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            insert_batch(&self.connection, &sql, &batch, &self.fault(&format!("cannot stage into {table} of")))?;
            count += batch.num_rows() as u64;
        }
        Ok(count)
    }
}

/// A key column of the history, with a type that is read as production's; text stays text, whatever production calls it.
fn declared(column: &CatalogColumn) -> String {
    let changes_text = column.data_type == DataType::Utf8 && !Affinity::of(&column.declared, false).keeps_text();
    format!("{} {}", ident(&column.name), if changes_text { "TEXT" } else { &column.declared })
}

fn named<'a>(destination: &'a Destination, names: &'a [String]) -> impl Iterator<Item = &'a CatalogColumn> {
    names.iter().filter_map(|name| destination.table.column(name))
}

#[async_trait]
impl Load for SqliteLoad {
    async fn note(&mut self, record: &Record) -> Result<()> {
        if self.open {
            control::note(&self.connection, record).map_err(self.fault("cannot write the journal in"))
        } else {
            control::note_alone(&self.connection, &self.names, record)
        }
    }

    async fn is_staged(&mut self, _: &Destination, _: u64) -> Result<bool> {
        // Staging is inside the transaction: what was cut off has left nothing.
        Ok(false)
    }

    async fn reserve(&mut self, request: &KeyRequest) -> Result<Block> {
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
        Ok(block)
    }

    async fn loaded_files(&mut self, files: &[(String, String)]) -> Result<Vec<LoadedFile>> {
        self.open()?;
        control::loaded_files(&self.connection, files).map_err(self.fault("cannot read the runs of"))
    }

    async fn clean_staging(&mut self, destinations: &[Destination]) -> Result<()> {
        self.open()?;
        own::refuse_taken(&self.connection, &self.names, destinations)?;
        destinations
            .iter()
            .try_for_each(|destination| self.make_staging_tables(destination))
            .map_err(self.fault("cannot make the staging tables in"))
    }

    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64> {
        self.copy(
            self.names.staging(&destination.table.name),
            destination.columns.len() + 1 + usize::from(destination.levelled),
            rows,
        )
        .await
    }

    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64> {
        self.copy(self.names.staged_keys(&destination.table.name), destination.key.len() + 2, keys).await
    }

    async fn hold_mode(&mut self) -> Result<Mode> {
        self.open()?;
        // The transaction has the file's write lock.
        mode::read(&self.connection).map_err(self.fault("cannot read the conversion mode of"))
    }

    async fn end_mode(&mut self) -> Result<()> {
        self.open()?;
        mode::end_with(&self.connection, &self.run).map_err(self.fault("cannot end the conversion mode of"))
    }

    async fn open_insertion(&mut self, _: &[Destination]) -> Result<(), Stopped> {
        self.open()?;
        Ok(())
    }

    async fn insert(&mut self, destinations: &[Destination], delta: &dyn Delta) -> Result<Vec<Inserted>, Stopped> {
        let mut all = Vec::with_capacity(destinations.len());
        for (at, destination) in destinations.iter().enumerate() {
            let rows = self.insert_rows(destination)?;
            let mappings = self.append(destination, &self.run, 0..u32::MAX)?;
            history::note(&self.connection, &destination.table.name, &self.run, mappings)
                .map_err(self.fault("cannot note the key map in"))?;
            all.push(Inserted { rows, mappings });
            delta.inserted(at, rows);
        }
        Ok(all)
    }

    async fn append_key_map(&mut self, destination: &Destination, run: &str, rows: Range<u32>) -> Result<u64, Stopped> {
        let appended = self.append(destination, run, rows)?;
        history::note_counted(&self.connection, &destination.table.name, run)
            .map_err(self.fault("cannot note the key map in"))?;
        Ok(appended)
    }

    async fn adopt(&mut self, id: &str) -> Result<()> {
        history::adopt(&self.connection, id).map_err(self.fault("cannot note another id in"))
    }

    async fn settle(&mut self, destinations: &[Destination]) -> Result<(), Stopped> {
        if self.foreign_keys == ForeignKeys::SetBased {
            for destination in destinations {
                Refusals { connection: &self.connection, names: &self.names, destination }.foreign_keys()?;
            }
        }
        // Not before: a trigger of a later table may have changed rows of an earlier one.
        for Destination { table, key, .. } in destinations {
            rollback::keep_content(&self.connection, &table.name, key, &self.run)
                .map_err(self.fault("cannot note the rows in"))?;
        }
        Ok(())
    }

    async fn totals(&mut self, destination: &Destination, totals: &[(String, Total)]) -> Result<RecordBatch> {
        let mut wanted = vec!["count(*)".to_owned()];
        for (name, total) in totals {
            let column = format!("p.{}", ident(name));
            wanted.push(match (total, destination.table.column(name).map(|column| &column.data_type)) {
                (Total::NonNull, _) => format!("count({column})"),
                (Total::Sum, Some(DataType::Decimal128(_, scale))) => {
                    let zeros = "0".repeat(scale.unsigned_abs().into());
                    format!("sum(CAST(round({column} * 1{zeros}) AS INTEGER))")
                }
                (Total::Sum, _) => format!("sum({column})"),
                // Bytes decide, as in the delta, whatever collation the column has.
                (Total::Min, _) => format!("min({column} COLLATE BINARY)"),
                (Total::Max, _) => format!("max({column} COLLATE BINARY)"),
            });
        }
        let sql = format!("SELECT {} FROM {}", wanted.join(", "), inserted(destination, &self.names));
        let found = select(&self.connection, &sql, &totals_schema(destination, totals), &self.names)?;
        found.into_iter().next().ok_or_else(|| Error::internal("no totals"))
    }

    async fn compare(&mut self, destination: &Destination, mut meant: Batches<'_>) -> Result<Option<String>> {
        while let Some(batch) = meant.next().await {
            if let Some(how) = compare(&self.connection, destination, &batch?, &self.names)? {
                return Ok(Some(how));
            }
        }
        Ok(None)
    }

    async fn record(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()> {
        self.open()?;
        let fault = self.fault("cannot note the run in");
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
                    (&file.hash, &file.table, &file.name, &file.run),
                )
                .map_err(&fault)?;
        }
        Ok(())
    }

    async fn note_with_rows(&mut self, record: &Record) -> Result<()> {
        self.open()?;
        control::note(&self.connection, record).map_err(self.fault("cannot write the journal in"))
    }

    async fn transaction(&mut self) -> Result<Option<String>> {
        // Nobody else answers a COMMIT of SQLite's: it is in the file or it is not.
        Ok(None)
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let _commit = tracing::info_span!("COMMIT").entered();
        self.connection.execute_batch("COMMIT").map_err(self.fault("cannot commit to"))?;
        self.open = false;
        Ok(())
    }

    async fn roll_back(mut self: Box<Self>) -> Result<()> {
        if self.open {
            self.connection.execute_batch("ROLLBACK").map_err(self.fault("cannot take back what was written to"))?;
            self.open = false;
        }
        Ok(())
    }
}

impl Drop for SqliteLoad {
    fn drop(&mut self) {
        if self.open {
            // Nothing can be done about a failure here: SQLite rolls back by itself when the file is opened next.
            self.connection.execute_batch("ROLLBACK").ok();
        }
        self.connection.pragma_update(None, "foreign_keys", true).ok();
    }
}

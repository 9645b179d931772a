//! The insertion: rows go into production from staging or on the direct path, and their mappings on a second connection.

use std::collections::BTreeMap;
use std::task::Poll;

use arrow::array::RecordBatch;
use futures::future::{Either, try_select};
use futures::stream::poll_fn;
use futures::{StreamExt, pin_mut};
use tokio::sync::Notify;

use super::super::begin_session;
use super::super::connect::Session;
use super::super::copied::Comparison;
use super::super::copy::{CopyColumn, CopyTarget, Insert, Refused};
use super::super::staging::Staged;
use super::super::violations::is_about_rows;
use super::super::{direct_path, trigger};
use super::numbers::NumberedColumn;
use super::{ABORT, PgLoad};
use crate::engine::RowNumber;
use crate::error::{Error, Result};
use crate::spec::ForeignKeys;
use crate::target::references::{Distinct, References};
use crate::target::{Batches, ConstraintViolation, Destination, InsertError, RowSource, TableIndex};

/// The reason that an insertion aborts. The caller stops all other connections before it queries which rows caused the error.
pub(super) enum InsertAbort<'a> {
    InsertError(InsertError),
    /// The server reported an error for rows of this table.
    Rows(&'a Destination, tokio_postgres::Error),
    /// The server reported an error for mappings of this table.
    Mappings(&'a Destination, tokio_postgres::Error),
}

/// The numbers of inserted rows and mappings, by table, and the session with the uncommitted mappings unless it is the main one.
pub(super) struct InsertOutcome {
    pub(super) rows: Vec<u64>,
    pub(super) mappings: Vec<u64>,
    pub(super) beside: Option<Session>,
}

impl<S: Into<InsertError>> From<S> for InsertAbort<'_> {
    fn from(stopped: S) -> Self {
        Self::InsertError(stopped.into())
    }
}

/// The rows of production that a table's rows refer to.
struct Referred<'a> {
    destination: &'a Destination,
    rows: Vec<Distinct>,
}

impl PgLoad {
    /// Inserts all rows and appends their mappings: on two connections, or on the main one in a mock run.
    pub(super) async fn insert_and_append<'a>(
        &self,
        destinations: &'a [Destination],
        delta: &dyn RowSource,
        compared: bool,
    ) -> Result<InsertOutcome, InsertAbort<'a>> {
        let all_sent = Notify::new();
        let inserting = async {
            let (insert, references) = (self.insert_all(destinations, delta, &all_sent), self.make_reference_tables());
            let (rows, referred) = if self.is_rehearsal() {
                // With a single session, one after the other.
                references.await?;
                insert.await?
            } else {
                let (inserted, made) = futures::join!(insert, references);
                let inserted = inserted?;
                made?;
                inserted
            };
            // Rows of the direct path are read back while mappings are still appended, unless a trigger may change them later.
            let compare = async { if compared { self.compare_all(destinations, delta).await } else { Ok(()) } };
            let stage = async { Ok(self.stage_references(&referred).await?) };
            futures::try_join!(compare, stage)?;
            self.hold_all(destinations, &referred, delta).await?;
            Ok::<_, InsertAbort<'_>>(rows)
        };
        if self.is_rehearsal() {
            let rows = inserting.await?;
            let mappings = self.append_all(&self.main, destinations, delta).await?;
            return Ok(InsertOutcome { rows, mappings, beside: None });
        }
        let appending = async {
            let doing = "cannot append to the key map";
            // If no second session is available, this fails before rows are sent.
            let beside = begin_session(&self.connector, doing).await?;
            if self.spec.foreign_keys == ForeignKeys::Triggers && !destinations.is_empty() {
                // The server's check of each row limits the speed. Until the server has all rows, mappings would only compete for its
                // processors.
                all_sent.notified().await;
            }
            beside.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(self.fault(doing))?;
            let mappings = self.append_all(&beside, destinations, delta).await?;
            for destination in destinations {
                let summarized =
                    beside.execute("SELECT delta.summarize($1)", &[&self.staged(destination).id().key_map()]).await;
                summarized.map_err(self.fault(doing))?;
            }
            Ok::<_, InsertAbort<'_>>((mappings, beside))
        };
        pin_mut!(inserting, appending);
        let (rows, (mappings, beside)) = match try_select(inserting, appending).await {
            Ok(Either::Left((rows, appending))) => (rows, self.main.wait_for(appending).await?),
            Ok(Either::Right(((mappings, beside), inserting))) => {
                (beside.wait_for(inserting).await?, (mappings, beside))
            }
            Err(cut) => return Err(cut.factor_first().0),
        };
        Ok(InsertOutcome { rows, mappings, beside: Some(beside) })
    }

    /// Creates the staging tables for referenced keys. Used with `foreign_keys: set_based` only.
    async fn make_reference_tables(&self) -> Result<()> {
        if self.spec.foreign_keys != ForeignKeys::SetBased {
            return Ok(());
        }
        let direct: Vec<_> =
            self.all.iter().filter(|destination| self.takes_direct_path(destination)).cloned().collect();
        self.make_staging(&direct, |staged| staged.make_rows(&self.run)).await
    }

    /// Inserts the rows of all tables, in order. Returns the referenced keys of tables on the direct path if no trigger checks them.
    /// Notifies `all_sent` when the server has all rows, which may be long before it has checked them.
    async fn insert_all<'a>(
        &self,
        destinations: &'a [Destination],
        delta: &dyn RowSource,
        all_sent: &Notify,
    ) -> Result<(Vec<u64>, Vec<Referred<'a>>), InsertAbort<'a>> {
        let (mut inserted, mut referred) = (Vec::with_capacity(destinations.len()), Vec::new());
        for (at, destination) in TableIndex::enumerate(destinations) {
            let _insert = tracing::info_span!("insert", of = destination.table.name);
            let all_sent = (at.get() + 1 == destinations.len()).then_some(all_sent);
            let rows = if self.takes_direct_path(destination) {
                let (rows, references) = self.copy_direct(destination, at, delta, all_sent).await?;
                referred.extend(references.map(|rows| Referred { destination, rows }));
                rows
            } else {
                all_sent.inspect(|all_sent| all_sent.notify_one());
                self.insert_staged(destination).await?
            };
            delta.on_inserted(at, rows);
            inserted.push(rows);
        }
        Ok((inserted, referred))
    }

    /// Returns the first and the last key of each table whose rows are those of a block.
    fn own_blocks(&self) -> BTreeMap<String, (String, String)> {
        let of_block = self.all.iter().filter(|destination| self.has_block(destination));
        let named = of_block.filter_map(|destination| self.keys.get_key_value(&destination.table.name));
        named.map(|(name, keys)| (name.clone(), keys.clone())).collect()
    }

    /// Compares the rows that took the direct path with the delta.
    async fn compare_all(&self, destinations: &[Destination], delta: &dyn RowSource) -> Result<(), InsertError> {
        for (at, destination) in
            TableIndex::enumerate(destinations).filter(|(_, destination)| self.takes_direct_path(destination))
        {
            let _compare = tracing::info_span!("compare", of = destination.table.name);
            if let Some(how) = self.compare_direct(destination, at, delta).await? {
                return Err(delta.mismatch_error(at, &how).into());
            }
        }
        Ok(())
    }

    /// Compares the rows of a table on the direct path with the delta. Returns the first difference in words.
    pub(super) async fn compare_direct(
        &self,
        destination: &Destination,
        at: TableIndex,
        delta: &dyn RowSource,
    ) -> Result<Option<String>> {
        let staged = self.staged(destination);
        let name = &destination.table.name;
        if let Some(copied) = self.copied.get(name) {
            let comparison = Comparison {
                connector: &self.connector,
                client: &self.main,
                staged,
                copied,
                arranged: &|batch| self.arranged(destination, batch),
            };
            return comparison.run(&|| delta.expected_rows(at)).await;
        }
        let keys = self.keys.get(name).ok_or_else(|| Error::internal("a table without keys"))?;
        direct_path::compare(&self.connector, &self.main, &staged, keys, delta.expected_rows(at)?).await
    }

    /// Returns a batch of rows in the order in which it is copied. If the table has triggers, they receive the rows in the order of the
    /// delta.
    fn arranged(&self, destination: &Destination, rows: RecordBatch) -> Result<RecordBatch> {
        let is_sorted = self.spec.foreign_keys == ForeignKeys::Triggers && destination.table.triggers.is_empty();
        if is_sorted { direct_path::by_reference(&rows, &destination.table.foreign_keys) } else { Ok(rows) }
    }

    async fn insert_staged<'a>(&self, destination: &'a Destination) -> Result<u64, InsertAbort<'a>> {
        let staged = self.staged(destination);
        let has_casts = destination.columns.iter().any(|name| !self.known.staged_as(staged.table(), name).0.is_empty());
        let numbers = if self.is_rehearsal() { self.numbers(destination).await? } else { Vec::new() };
        let insert = if numbers.is_empty() { staged.insert() } else { self.numbered_insert(&staged, &numbers).await? };
        self.as_production(has_casts).await?;
        let inserted = self.main.execute(&insert, &[]).await;
        let inserted = inserted.map_err(|error| InsertAbort::Rows(destination, error))?;
        self.as_ourselves().await?;
        Ok(inserted)
    }

    /// Returns SQL that inserts the rows with the numbers of a mock run. If they are part of production's defaults, a view keeps these as they
    /// are parsed with this program's search path.
    async fn numbered_insert(&self, staged: &Staged<'_>, numbers: &[NumberedColumn]) -> Result<String> {
        let values = numbers.iter().enumerate().map(|(at, number)| format!(", {} AS _more{at}", number.sql));
        let rows = format!("SELECT s.*{} FROM {} AS s", values.collect::<String>(), staged.rows());
        let names: Vec<_> = numbers.iter().map(|number| number.column.clone()).collect();
        if numbers.iter().all(|number| number.is_qualified) {
            return Ok(staged.insert_from(&format!("({rows})"), &names));
        }
        let view = format!("DROP VIEW IF EXISTS pg_temp.numbered; CREATE TEMPORARY VIEW numbered AS {rows}");
        self.main.batch_execute(&view).await.map_err(self.fault("cannot number the rows of a mock run"))?;
        Ok(staged.insert_from("pg_temp.numbered", &names))
    }

    /// Applies the settings that production's own code expects.
    async fn as_production(&self, has_casts: bool) -> Result<()> {
        let theirs = trigger::production_settings(&self.names, has_casts);
        self.main.batch_execute(&theirs).await.map_err(self.fault("cannot insert"))
    }

    async fn as_ourselves(&self) -> Result<()> {
        self.main.batch_execute(trigger::OURS).await.map_err(self.fault("cannot insert"))
    }

    /// Copies rows into production on the direct path.
    async fn copy_direct<'a>(
        &self,
        destination: &'a Destination,
        at: TableIndex,
        delta: &dyn RowSource,
        all_sent: Option<&Notify>,
    ) -> Result<(u64, Option<Vec<Distinct>>), InsertAbort<'a>> {
        let staged = self.staged(destination);
        let columns: Vec<_> = destination.columns.iter().map(|name| staged.wire(name)).collect();
        let set_based = self.spec.foreign_keys == ForeignKeys::SetBased;
        let mut references =
            set_based.then(|| References::try_new(destination, &self.all, &self.own_blocks())).transpose()?;
        let rows = delta.staged_rows(at)?.map(|batch| {
            let batch = batch?;
            if let Some(references) = &mut references {
                references.add(&batch)?;
            }
            self.arranged(destination, destination.columns_alone(&batch)?)
        });
        let rows = rows.chain(poll_fn(|_| {
            all_sent.inspect(|all_sent| all_sent.notify_one());
            Poll::Ready(None)
        }));
        let live = staged.live();
        let into = CopyTarget { connector: &self.connector, table: &live, columns: &columns };
        let is_checked = !set_based && !destination.table.foreign_keys.is_empty();
        let insert = if is_checked { Insert::Rows } else { Insert::Pages };
        self.as_production(false).await?;
        match into.stream(&self.main, rows.boxed(), insert).await {
            Ok(copied) => {
                self.as_ourselves().await?;
                Ok((copied, references.map(References::distinct).transpose()?))
            }
            Err(Refused::Failed(error)) => Err(error.into()),
            Err(Refused::Server(error)) => Err(InsertAbort::Rows(destination, error)),
        }
    }

    /// Stages one row for each row of production that is referred to.
    async fn stage_references(&self, referred: &[Referred<'_>]) -> Result<()> {
        for Referred { destination, rows } in referred {
            let table = self.staged(destination).rows();
            let columns = self.staged(destination).wires();
            for Distinct { rows, .. } in rows {
                let named = |column: &&CopyColumn| rows.column_by_name(&column.name).is_some();
                let columns: Vec<_> = columns.iter().filter(named).cloned().collect();
                let into = CopyTarget { connector: &self.connector, table: &table, columns: &columns };
                into.send(self.side(), std::slice::from_ref(rows)).await?;
            }
        }
        Ok(())
    }

    /// Locks all referenced rows, if triggers do not.
    async fn hold_all(
        &self,
        destinations: &[Destination],
        referred: &[Referred<'_>],
        delta: &dyn RowSource,
    ) -> Result<(), InsertError> {
        for Referred { destination, .. } in referred {
            match self.hold_references(destination).await {
                Err(InsertError::Violation(some)) => return Err(self.all_orphans(destination, delta, some).await),
                held => held?,
            }
        }
        if self.spec.foreign_keys == ForeignKeys::SetBased && !self.direct.is_empty() {
            for destination in destinations.iter().filter(|destination| !self.takes_direct_path(destination)) {
                if let Err(missing) = self.hold_references(destination).await {
                    self.main.batch_execute(ABORT).await.ok();
                    return Err(missing);
                }
            }
        }
        Ok(())
    }

    /// Locks the rows that staged rows refer to until the transaction ends.
    pub(super) async fn hold_references(&self, destination: &Destination) -> Result<(), InsertError> {
        let _hold = tracing::info_span!("hold references", of = destination.table.name);
        let names: Vec<_> = self.all.iter().map(|destination| self.staged(destination).id().key_map()).collect();
        let table = self.staged(destination).id().key_map();
        let sql = "SELECT reference, referenced, staged_row FROM delta.hold_references($1, $2)";
        let orphans = self.main.query(sql, &[&table, &names]).await;
        let orphans = orphans.map_err(self.fault("cannot lock referenced rows"))?;
        let Some(first) = orphans.first() else { return Ok(()) };
        let constraint: String = first.get(0);
        let same = orphans.iter().filter(|row| row.get::<_, &str>(0) == constraint);
        let rows = same.map(|row| RowNumber::new(row.get::<_, i64>(2).unsigned_abs())).collect();
        let reason = format!("`{}` has no such row", first.get::<_, &str>(1));
        Err(ConstraintViolation { table: destination.table.name.clone(), constraint, reason, rows }.into())
    }

    /// Extends a violation, which has one row per missing referenced row, to all rows that refer to them.
    async fn all_orphans(
        &self,
        destination: &Destination,
        delta: &dyn RowSource,
        some: ConstraintViolation,
    ) -> InsertError {
        self.stage_to_ask(delta).await;
        let all = self.hold_references(destination).await;
        self.main.batch_execute(ABORT).await.ok();
        match all {
            Err(InsertError::Violation(all)) => all.into(),
            _ => some.into(),
        }
    }

    /// Rolls the insertion back, so that violating rows can be identified with all rows in staging. Nothing is written any more.
    async fn ask(
        &self,
        error: &tokio_postgres::Error,
        delta: &dyn RowSource,
        asked: impl Future<Output = InsertError>,
    ) -> InsertError {
        let is_missing = self.is_rehearsal() || !self.direct.is_empty();
        if is_missing && is_about_rows(error) {
            self.stage_to_ask(delta).await;
        } else {
            self.main.batch_execute(ABORT).await.ok();
        }
        let stopped = asked.await;
        self.main.batch_execute(ABORT).await.ok();
        stopped
    }

    /// Rolls the insertion back, and stages the rows that took the direct path, to find the violating ones. This staging is part of a
    /// transaction that is rolled back.
    pub(super) async fn stage_to_ask(&self, delta: &dyn RowSource) {
        let staged = async {
            let fault = self.fault("cannot stage rows");
            self.main.batch_execute("ROLLBACK; BEGIN").await.map_err(&fault)?;
            for (at, destination) in TableIndex::enumerate(&self.all) {
                if !self.is_rehearsal() && !self.takes_direct_path(destination) {
                    continue;
                }
                let staged = self.staged(destination);
                self.main.batch_execute(&staged.make(&self.run)).await.map_err(&fault)?;
                let (rows, keys) = (staged.rows(), staged.keys());
                let into = CopyTarget { connector: &self.connector, table: &rows, columns: &staged.wires() };
                into.copy(std::slice::from_ref(&self.main), delta.staged_rows(at)?).await?;
                let into = CopyTarget { table: &keys, columns: &staged.key_wires(), ..into };
                into.copy(std::slice::from_ref(&self.main), delta.key_map(at)?).await?;
            }
            Ok::<_, Error>(())
        };
        // If that fails, the error names no rows.
        if staged.await.is_err() {
            self.main.batch_execute(ABORT).await.ok();
        }
    }

    async fn append_all<'a>(
        &self,
        session: &Session,
        destinations: &'a [Destination],
        delta: &dyn RowSource,
    ) -> Result<Vec<u64>, InsertAbort<'a>> {
        let mut appended = Vec::with_capacity(destinations.len());
        for (at, destination) in TableIndex::enumerate(destinations) {
            let table = &destination.table.name;
            let _append = tracing::info_span!("append key map", of = table);
            self.forget(session, destination).await?;
            let of_table = match self.takes_direct_path(destination) {
                true => self.append_direct(session, destination, delta.key_map(at)?).await,
                false => self.append_staged(session, destination).await.map_err(Refused::Server),
            };
            appended.push(of_table.map_err(|refused| match refused {
                Refused::Failed(error) => error.into(),
                Refused::Server(error) => InsertAbort::Mappings(destination, error),
            })?);
        }
        Ok(appended)
    }

    /// Appends mappings that are not staged.
    async fn append_direct(
        &self,
        session: &Session,
        destination: &Destination,
        mappings: Batches<'_>,
    ) -> Result<u64, Refused> {
        let table = self.staged(destination).id();
        let begun = session.execute("SELECT delta.begin_mappings($1, $2)", &[&self.run, &table.key_map()]).await;
        begun.map_err(Refused::Server)?;
        let columns: Vec<_> =
            self.staged(destination).key_wires().into_iter().skip(1).chain([CopyColumn::text("run")]).collect();
        let rows = mappings.map(|batch| direct_path::of_run(&batch?, &self.run));
        let into = CopyTarget { connector: &self.connector, table: &table.mappings(), columns: &columns };
        into.stream(session, rows.boxed(), Insert::Pages).await
    }

    /// Returns why rows could not be inserted, with the table if it is known.
    pub(super) async fn of_rows(
        &self,
        destination: Option<&Destination>,
        doing: &str,
        error: &tokio_postgres::Error,
        delta: &dyn RowSource,
    ) -> InsertError {
        if let Some(error) = error.as_db_error().filter(|error| trigger::function(error).is_some()) {
            return self.of_production(destination, doing, error, delta).await;
        }
        if let (Some(destination), Some(error)) = (destination, error.as_db_error())
            && let Some(violation) = self.of_constraint(destination, error, delta).await
        {
            return violation;
        }
        let explained = self.connector.explain(doing, error);
        let asked = async {
            match destination {
                Some(destination) => self.refusals(destination).of(error, explained).await,
                None => explained.into(),
            }
        };
        self.ask(error, delta, asked).await
    }

    /// Returns why the mappings of a table could not be appended.
    pub(super) async fn of_mappings(
        &self,
        destination: &Destination,
        error: &tokio_postgres::Error,
        delta: &dyn RowSource,
    ) -> InsertError {
        self.ask(error, delta, self.not_appended(destination, error)).await
    }
}

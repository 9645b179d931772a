//! The search for the row that production refuses, if no query of the staged rows can find it: by its own code, by a constraint that only it
//! can evaluate, or by a value. For a trigger that runs before a row is copied, the server reports the row.
//! Otherwise the staged rows are tried again in halves, and each try is rolled back.

use std::ops::Range;

use futures::StreamExt;
use tokio_postgres::error::{DbError, SqlState};

use super::super::errors::is_about_a_value;
use super::super::trigger::{self, Trigger};
use super::{ABORT, PgLoad};
use crate::engine::{RowNumber, row_numbers};
use crate::error::{Error, Result};
use crate::target::{ConstraintViolation, Destination, InsertError, RowSource, TableIndex};

/// The most rows of a table that are tried again, because that takes as long as inserting them.
const MOST: u64 = 1_000_000;

impl PgLoad {
    /// Returns why a function of production ended the insertion into a table, or into an unknown one. Nothing is written any more.
    pub(super) async fn of_production(
        &self,
        into: Option<&Destination>,
        doing: &str,
        error: &DbError,
        delta: &dyn RowSource,
    ) -> InsertError {
        let function = trigger::function(error).unwrap_or_default();
        self.main.batch_execute("ROLLBACK").await.ok();
        let tables =
            self.all.iter().filter(|destination| into.is_none_or(|into| into.table.name == destination.table.name));
        let ids: Vec<_> = tables.map(|destination| self.staged(destination).id()).collect();
        let tables: Vec<_> = ids.into_iter().map(|id| (id.schema, id.name)).collect();
        // If that fails, the error does not name the trigger.
        let triggers = trigger::calling(&self.main, function, &tables).await.unwrap_or_default();
        let at = self.all.iter().position(|destination| match (into, triggers.first()) {
            (Some(into), _) => into.table.name == destination.table.name,
            (None, Some(first)) => self.staged(destination).id().relation() == first.relation(),
            (None, None) => false,
        });
        let at = at.map(TableIndex::new);
        let stopped = match at {
            Some(at) => self.of_trigger(at, error, &triggers, delta).await,
            None => None,
        };
        self.main.batch_execute(ABORT).await.ok();
        stopped.unwrap_or_else(|| {
            let failed = trigger::explain(error, &triggers).unwrap_or_else(|| Error::data(error.message()));
            failed.doing(doing).into()
        })
    }

    /// Returns a violation with its row, if the error is about a row and not about the function itself.
    async fn of_trigger(
        &self,
        at: TableIndex,
        error: &DbError,
        triggers: &[Trigger],
        delta: &dyn RowSource,
    ) -> Option<InsertError> {
        if trigger::is_about_itself(error) {
            return None;
        }
        let row = match trigger::copied_row(error) {
            Some(row) => copied(row, at, delta).await.ok().flatten(),
            None => self.tried(at, error, delta, false).await,
        };
        let refusal = ConstraintViolation {
            table: self.all[at].table.name.clone(),
            constraint: trigger::named(error, triggers),
            reason: trigger::reason(error),
            rows: row.into_iter().collect(),
        };
        Some(refusal.into())
    }

    /// Returns the violation of a constraint or of a type that no query of the staged rows finds, with its row. None for all others. Nothing
    /// is written any more.
    pub(super) async fn of_constraint(
        &self,
        destination: &Destination,
        error: &DbError,
        delta: &dyn RowSource,
    ) -> Option<InsertError> {
        let table = &destination.table;
        let constraint = error.constraint().unwrap_or_else(|| error.code().code());
        let is_evaluated = table.database_checks.iter().any(|check| check.name == format!("unique({constraint})"));
        let in_pairs = match error.code() {
            &SqlState::CHECK_VIOLATION => false,
            &SqlState::EXCLUSION_VIOLATION => true,
            &SqlState::UNIQUE_VIOLATION if is_evaluated => true,
            code if is_about_a_value(code) => false,
            _ => return None,
        };
        let at = self.all.iter().position(|destination| destination.table.name == table.name)?;
        let at = TableIndex::new(at);
        self.main.batch_execute("ROLLBACK").await.ok();
        let row = self.tried(at, error, delta, in_pairs).await;
        self.main.batch_execute(ABORT).await.ok();
        let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let (table, constraint) = (table.name.clone(), constraint.to_owned());
        let reason = format!("{}{detail}", error.message());
        Some(ConstraintViolation { table, constraint, reason, rows: row.into_iter().collect() }.into())
    }

    /// Returns the first staged row that fails again in the same way; `in_pairs`, if it may do so only together with an earlier row.
    async fn tried(&self, at: TableIndex, error: &DbError, delta: &dyn RowSource, in_pairs: bool) -> Option<RowNumber> {
        self.stage_to_ask(delta).await;
        for before in &self.all[..at.get()] {
            self.main.batch_execute(&trigger::production_settings(&self.names, true)).await.ok()?;
            self.main.batch_execute(&self.staged(before).insert()).await.ok()?;
        }
        self.main.batch_execute(trigger::OURS).await.ok()?;
        let staged = self.staged(&self.all[at]);
        let ends = format!("SELECT min(_row), max(_row) FROM {}", staged.rows());
        let ends = self.main.query_one(&ends, &[]).await.ok()?;
        let (first, last): (Option<i64>, Option<i64>) = (ends.get(0), ends.get(1));
        let mut rows = first?.unsigned_abs()..last?.unsigned_abs() + 1;
        if rows.end - rows.start > MOST {
            return None;
        }
        if in_pairs {
            let (first, mut found) = (rows.start, rows.start..rows.end);
            while found.end - found.start > 1 {
                let middle = found.start + (found.end - found.start) / 2;
                let fails = self.fails_again(&self.all[at], first..middle, error).await;
                found = if fails { found.start..middle } else { middle..found.end };
            }
            return self
                .fails_again(&self.all[at], first..found.end, error)
                .await
                .then_some(RowNumber::new(found.start));
        }
        while rows.end - rows.start > 1 {
            let middle = rows.start + (rows.end - rows.start) / 2;
            let fails = self.fails_again(&self.all[at], rows.start..middle, error).await;
            rows = if fails { rows.start..middle } else { middle..rows.end };
        }
        // Rows that fail only together are reported without a row number.
        let first = rows.start;
        self.fails_again(&self.all[at], rows, error).await.then_some(RowNumber::new(first))
    }

    async fn fails_again(&self, destination: &Destination, rows: Range<u64>, error: &DbError) -> bool {
        let tried = format!(
            "SAVEPOINT tried; {}; {} WHERE s._row OPERATOR(pg_catalog.>=) {} AND s._row OPERATOR(pg_catalog.<) {};
             SET CONSTRAINTS ALL IMMEDIATE",
            trigger::production_settings(&self.names, true),
            self.staged(destination).insert(),
            rows.start,
            rows.end
        );
        let tried = self.main.batch_execute(&tried).await;
        self.main.batch_execute("ROLLBACK TO tried").await.ok();
        let again = tried.err().and_then(|again| again.as_db_error().map(|again| same(again, error)));
        again.unwrap_or(false)
    }
}

fn same(one: &DbError, other: &DbError) -> bool {
    let code = |error: &DbError| -> SqlState { error.code().clone() };
    code(one) == code(other)
        && one.constraint() == other.constraint()
        && trigger::function(one) == trigger::function(other)
}

/// Returns the row number of the n-th copied row.
async fn copied(row: u64, at: TableIndex, delta: &dyn RowSource) -> Result<Option<RowNumber>> {
    let mut batches = delta.staged_rows(at)?;
    let mut before = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let place = row - 1 - before;
        if place < batch.num_rows() as u64 {
            return Ok(batch.column_by_name("_row").and_then(|rows| row_numbers(rows).nth(place as usize)));
        }
        before += batch.num_rows() as u64;
    }
    Ok(None)
}

//! Protection between check and commit: the locks that a load takes on production, and the check in its last statement.

use arrow::array::{Array, RecordBatch};
use tokio_postgres::error::{DbError, SqlState};

use super::super::commit_checks::Referenced;
use super::super::lookup::text_of;
use super::{ABORT, PgLoad};
use crate::engine::{RowNumber, literal, row_numbers};
use crate::error::{Error, Result};
use crate::spec::Lock;
use crate::target::{
    CommitCheck, CommitCheckKind, ConstraintViolation, Destination, InsertError, RowSource, TableIndex,
};

/// Returns values as texts.
fn nullable(values: &dyn Array, rows: &std::ops::Range<usize>) -> Vec<Option<String>> {
    rows.clone().map(|row| values.is_valid(row).then(|| text_of(values, row))).collect()
}

/// The error code of the last statement's own check.
const TAKEN: &str = "DP004";

const KEYS_PER_CALL: usize = 10_000;

impl PgLoad {
    /// Prevents other sessions from writing to tables with values that no index keeps unique, if the pipeline file requires it. A mock run
    /// does not, because none of its rows stay to conflict with.
    pub(super) async fn lock_tables(&self, destinations: &[Destination]) -> Result<()> {
        if self.spec.lock == Lock::None || self.is_rehearsal() {
            return Ok(());
        }
        for destination in destinations.iter().filter(|destination| destination.has_free_values()) {
            let (table, key_map) = (&destination.table.name, self.staged(destination).id().key_map());
            let held = self.main.execute("SELECT delta.hold_table($1)", &[&key_map]).await;
            held.map_err(self.fault(&format!("cannot lock `{table}` against other writers")))?;
        }
        Ok(())
    }

    /// Locks the rows of production that the delta refers to without a foreign key.
    pub(super) async fn lock_references(
        &self,
        destinations: &[Destination],
        delta: &dyn RowSource,
    ) -> Result<(), InsertError> {
        for (at, destination) in TableIndex::enumerate(destinations) {
            for CommitCheck { check, what } in &destination.commit_checks {
                let CommitCheckKind::Reference { column, to, by, .. } = what else { continue };
                let Some(referenced) = Referenced::of(what, &self.known, &self.names) else { continue };
                let missing = self.lock_rows(&referenced, &delta.referenced(at, column)?).await?;
                if missing.is_empty() {
                    continue;
                }
                let (table, rows) = (&destination.table.name, delta.referring(at, column, &missing)?);
                return Err(ConstraintViolation::of_reference(table, check, to, by, rows).into());
            }
        }
        Ok(())
    }

    /// Locks rows by their keys. For each row that is missing, returns the first row of the delta that refers to it.
    async fn lock_rows(&self, of: &Referenced<'_>, rows: &RecordBatch) -> Result<Vec<RowNumber>> {
        let _lock = tracing::info_span!("lock references", of = of.table, rows = rows.num_rows());
        let column = |name: &str| rows.column_by_name(name);
        let (Some(numbers), Some(keys)) = (column("_row"), column("key")) else {
            return Err(Error::internal("references without their keys"));
        };
        let numbers: Vec<_> = row_numbers(numbers).collect();
        let doing = format!("cannot lock the rows of `{}` that the delta refers to", of.table);
        let mut missing = Vec::new();
        for first in (0..rows.num_rows()).step_by(KEYS_PER_CALL) {
            let chunk = first..rows.num_rows().min(first + KEYS_PER_CALL);
            let texts = |values: &dyn Array| chunk.clone().map(|row| text_of(values, row)).collect::<Vec<_>>();
            let keys = texts(keys.as_ref());
            let named = (rows.num_columns() > 2).then(|| {
                let columns: Vec<_> =
                    rows.columns()[2..].iter().map(|named| nullable(named.as_ref(), &chunk)).collect();
                // All values of the first key, then all of the second.
                (0..keys.len())
                    .flat_map(|row| columns.iter().map(move |column| column[row].clone()))
                    .collect::<Vec<_>>()
            });
            let sql =
                "SELECT place FROM delta.lock_references($1::text, $2::text, $3::text[]::name[], $4, $5) AS place";
            let asked = self.main.query(sql, &[&of.schema, &of.table, &of.columns, &keys, &named]).await;
            for row in asked.map_err(self.fault(&doing))? {
                // The server counts from 1.
                let place = usize::try_from(row.get::<_, i64>(0)).map_err(Error::internal)?;
                missing.extend(numbers.get(first + place - 1));
            }
        }
        Ok(missing)
    }

    /// Returns SQL that fails if another row has a value that no index keeps unique. Each statement ends with a semicolon. It is sent
    /// together with the COMMIT, so that nothing but the server's own work is between them.
    pub(super) fn last_check(&self) -> String {
        let mut sql = String::new();
        for destination in &self.all {
            let staged = self.staged(destination);
            for CommitCheck { check, what } in &destination.commit_checks {
                let CommitCheckKind::Unique { columns, ignore_case } = what else { continue };
                let Some(same) = staged.same_values(columns, ignore_case) else { continue };
                // Counts, so that the server plans for all rows and not for the first of many.
                let body = format!(
                    "DECLARE others bigint;
                     BEGIN
                         SELECT count(*) INTO others FROM {} AS s JOIN {} AS p ON {same} WHERE {};
                         IF others > 0 THEN
                             RAISE EXCEPTION USING ERRCODE = {}, MESSAGE = 'taken', TABLE = {}, CONSTRAINT = {};
                         END IF;
                     END",
                    staged.rows(),
                    staged.own_rows(),
                    staged.not_of_the_load(),
                    literal(TAKEN),
                    literal(&destination.table.name),
                    literal(check)
                );
                sql.extend(["DO ", &literal(&body), "; "]);
            }
        }
        sql
    }

    /// Returns the violation that the last statement found; None for any other error.
    pub(super) async fn found_taken(&self, error: &tokio_postgres::Error) -> Option<InsertError> {
        if error.code() != Some(&SqlState::from_code(TAKEN)) {
            return None;
        }
        let of = error.as_db_error().map(|error| (error.table(), error.constraint()));
        self.main.batch_execute(ABORT).await.ok();
        let named = |destination: &&Destination| of.is_some_and(|(table, _)| table == Some(&destination.table.name));
        let destination = self.all.iter().find(named)?;
        // The rows are queried after the load's own are rolled back. If the other session has rolled back too, there are none.
        Some(match self.refusals(destination).commit_checks().await {
            Err(stopped) => stopped,
            Ok(()) => {
                let check = error.as_db_error().and_then(DbError::constraint).unwrap_or_default();
                ConstraintViolation::of_uniqueness(&destination.table.name, check, Vec::new()).into()
            }
        })
    }
}

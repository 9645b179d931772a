//! Identification of the rows that violate a constraint: the server names the constraint, and the staged rows are queried.

use tokio_postgres::Client;
use tokio_postgres::error::{DbError, SqlState};

use super::connect::Connector;
use super::names::qualified;
use super::staging::Staged;
use crate::engine::{RowNumber, ident};
use crate::error::{Error, Result};
use crate::target::sql::violations as sql;
use crate::target::{CommitCheckKind, ConstraintViolation, Destination, InsertError};

/// Returns whether an error is about rows that can be found in staging.
pub(super) fn is_about_rows(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::UNIQUE_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION, SqlState::NOT_NULL_VIOLATION];
    error.code().is_some_and(|code| codes.contains(code))
}

/// The queries for the violating rows of one table.
pub(super) struct Refusals<'a> {
    pub(super) connector: &'a Connector,
    pub(super) client: &'a Client,
    pub(super) staged: Staged<'a>,
    /// All tables of the load, because references may lead to their staged rows.
    pub(super) all: &'a [Destination],
}

impl Refusals<'_> {
    /// Returns the violation behind an error of the insertion, queried after the rollback; `explained` is the error in the user's terms.
    pub(super) async fn of(&self, error: &tokio_postgres::Error, explained: Error) -> InsertError {
        let Some(refused) = error.as_db_error() else { return explained.into() };
        let asked = match refused.code() {
            &SqlState::UNIQUE_VIOLATION => self.taken(&self.unique_columns(refused), &[]).await,
            &SqlState::FOREIGN_KEY_VIOLATION => self.orphans_of_staging().await,
            &SqlState::NOT_NULL_VIOLATION => {
                let null = refused.column().map(|name| format!("s.{} IS NULL", ident(name)));
                self.rows(null.as_deref().unwrap_or("false")).await
            }
            &SqlState::CHECK_VIOLATION | &SqlState::EXCLUSION_VIOLATION => Ok(Vec::new()),
            _ => return explained.into(),
        };
        let detail = refused.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        ConstraintViolation {
            table: self.staged.table().to_owned(),
            constraint: refused.constraint().unwrap_or_else(|| refused.code().code()).to_owned(),
            reason: format!("{}{detail}", refused.message()),
            rows: asked.unwrap_or_default(),
        }
        .into()
    }

    /// Returns the violation behind an error of appending the key map.
    pub(super) async fn of_key_map(&self, error: &tokio_postgres::Error, explained: Error) -> InsertError {
        if error.code() != Some(&SqlState::UNIQUE_VIOLATION) {
            return explained.into();
        }
        let rows = self.numbers(&sql::mapped(&self.staged.keys(), &self.staged.id().key_map_view())).await;
        ConstraintViolation::of_key_map(self.staged.table(), rows.unwrap_or_default()).into()
    }

    /// Checks again that production has none of the values that no index keeps unique.
    pub(super) async fn commit_checks(&self) -> Result<(), InsertError> {
        for commit_check in &self.staged.destination.commit_checks {
            if let CommitCheckKind::Unique { columns, ignore_case } = &commit_check.what {
                let not_own = format!(" AND {}", self.staged.not_of_the_load());
                let rows = self.taken_by(columns, ignore_case, &not_own).await?;
                ConstraintViolation::of_uniqueness(self.staged.table(), &commit_check.check, rows).if_any()?;
            }
        }
        Ok(())
    }

    /// Returns the columns of the constraint or index that an error names.
    fn unique_columns(&self, refused: &DbError) -> Vec<String> {
        let table = &self.staged.destination.table;
        let unique = table.uniques.iter().find(|unique| Some(unique.name.as_str()) == refused.constraint());
        unique.map_or_else(|| table.primary_key.clone(), |unique| unique.columns.clone())
    }

    /// Returns the staged rows whose values production already has.
    async fn taken(&self, columns: &[String], ignore_case: &[String]) -> Result<Vec<RowNumber>> {
        self.taken_by(columns, ignore_case, "").await
    }

    /// Returns the staged rows whose values are in a row `p` of production for which `more` holds.
    async fn taken_by(&self, columns: &[String], ignore_case: &[String], more: &str) -> Result<Vec<RowNumber>> {
        let Some(same) = self.staged.same_values(columns, ignore_case) else { return Ok(Vec::new()) };
        self.rows(&format!("EXISTS (SELECT FROM {} AS p WHERE {same}{more})", self.staged.own_rows())).await
    }

    /// Returns the staged rows whose references lead neither to production nor to staged rows.
    async fn orphans_of_staging(&self) -> Result<Vec<RowNumber>> {
        let mut rows = Vec::new();
        for key in sql::filled(self.staged.destination) {
            let mut condition = self.orphan(&key.columns, &key.to, &key.to_columns);
            if let Some(parent) = self.all.iter().find(|parent| parent.table.name == key.to) {
                let parent = Staged { destination: parent, ..self.staged };
                condition = format!("{condition} AND {}", self.nowhere(&parent.rows(), &key.to_columns, &key.columns));
            }
            rows.extend(self.rows(&condition).await?);
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    /// Returns SQL that tests whether a staged row refers to a row that production does not have.
    fn orphan(&self, columns: &[String], to: &str, to_columns: &[String]) -> String {
        let parent = match self.staged.known.tables.get(to) {
            Some(table) => table.own_rows(),
            None => qualified(&self.staged.names.production, to),
        };
        format!("{} AND {}", sql::none_is_null("s", columns), self.nowhere(&parent, to_columns, columns))
    }

    fn nowhere(&self, table: &str, its: &[String], columns: &[String]) -> String {
        let values: Vec<_> = columns.iter().map(|column| self.staged.value(column)).collect();
        sql::no_row_has(table, its, &values)
    }

    async fn rows(&self, condition: &str) -> Result<Vec<RowNumber>> {
        self.numbers(&sql::staged(&self.staged.rows(), condition)).await
    }

    async fn numbers(&self, sql: &str) -> Result<Vec<RowNumber>> {
        let doing = format!("cannot check the rows of `{}`", self.staged.table());
        let rows = self.client.query(sql, &[]).await.map_err(|error| self.connector.explain(&doing, &error))?;
        Ok(rows.iter().map(|row| RowNumber::new(row.get::<_, i64>(0).unsigned_abs())).collect())
    }
}

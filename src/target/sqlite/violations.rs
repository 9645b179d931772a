//! Identification of the rows that violate a constraint: SQLite names the constraint, and the staged rows are queried.

use arrow::array::RecordBatch;
use rusqlite::{Connection, ErrorCode};

use super::Names;
use super::direct_path::is_there;
use super::storage_values::StorageBatch;
use crate::engine::{RowNumber, ident, row_numbers};
use crate::error::Result;
use crate::target::sql::violations as sql;
use crate::target::{CommitCheckKind, ConstraintViolation, Destination, InsertError, RowSource, TableIndex};

/// The queries for the violating rows of one table, inside a load's transaction.
pub(super) struct Refusals<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    pub(super) destination: &'a Destination,
}

impl Refusals<'_> {
    /// Returns the violation behind an error of the insertion, without its rows.
    pub(super) fn at_once(&self, error: &rusqlite::Error) -> InsertError {
        self.without_rows(error, "cannot insert into", |table| ConstraintViolation {
            table: table.to_owned(),
            constraint: text(error),
            reason: String::new(),
            rows: Vec::new(),
        })
    }

    /// Returns the violation behind an error of appending the key map, without its rows.
    pub(super) fn of_key_map_at_once(&self, error: &rusqlite::Error) -> InsertError {
        let violation = |table: &str| ConstraintViolation::of_key_map(table, Vec::new());
        self.without_rows(error, "cannot append the key map of", violation)
    }

    fn without_rows(
        &self,
        error: &rusqlite::Error,
        doing: &str,
        violation: impl Fn(&str) -> ConstraintViolation,
    ) -> InsertError {
        let table = &self.destination.table.name;
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => violation(table).into(),
            _ => self.names.error(&format!("{doing} `{table}` in"), error).into(),
        }
    }

    /// Returns the violation behind an error of the insertion.
    pub(super) fn of(&self, error: &rusqlite::Error) -> InsertError {
        let table = &self.destination.table;
        let failed = self.names.error(&format!("cannot insert into `{}` of", table.name), error);
        if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
            return failed.into();
        }
        let text = text(error);
        let (kind, what) = text.split_once(" constraint failed").unwrap_or(("", &text));
        let what = what.trim_start_matches(": ");
        let asked = match kind {
            // An index over an expression, or over some rows.
            "UNIQUE" if what.starts_with("index ") => self.tried(&text),
            "UNIQUE" => self.unique(&columns(what), &[]),
            "FOREIGN KEY" => self.foreign_keys_of_staging(),
            "NOT NULL" => {
                let null = columns(what).iter().map(|name| format!("s.{} IS NULL", ident(name))).collect::<Vec<_>>();
                self.staged(&null.join(" OR "))
            }
            _ => self.tried(&text),
        };
        match asked {
            Ok(rows) => {
                ConstraintViolation { table: table.name.clone(), constraint: text.clone(), reason: String::new(), rows }
                    .into()
            }
            Err(_) => failed.into(),
        }
    }

    /// Returns the first staged row that fails in the same way, alone or together with earlier rows. The insertion is rolled back.
    fn tried(&self, expected: &str) -> rusqlite::Result<Vec<RowNumber>> {
        let staging = format!("main.{}", self.names.staging(&self.destination.table.name));
        let ends = format!("SELECT min(_row), max(_row) FROM {staging}");
        let (first, last): (Option<i64>, Option<i64>) =
            self.connection.query_row(&ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
        let columns: Vec<_> = self.destination.columns.iter().map(|name| ident(name)).collect();
        let columns = columns.join(", ");
        let sql = format!(
            "INSERT OR ABORT INTO main.{} ({columns}) SELECT {columns} FROM {staging} WHERE _row BETWEEN ?1 AND ?2 ORDER BY _row",
            ident(&self.destination.table.name)
        );
        let fails = |last: i64| -> rusqlite::Result<bool> {
            self.connection.execute_batch("SAVEPOINT tried")?;
            let inserted = self.connection.execute(&sql, [first, last]);
            self.connection.execute_batch("ROLLBACK TO tried; RELEASE tried")?;
            Ok(inserted.is_err_and(|error| text(&error) == expected))
        };
        if !fails(last)? {
            return Ok(Vec::new());
        }
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if fails(middle)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(vec![RowNumber::new(low.cast_unsigned())])
    }

    /// Returns the violation behind an error of appending the key map.
    pub(super) fn of_key_map(&self, error: &rusqlite::Error) -> InsertError {
        let table = &self.destination.table.name;
        let failed = self.names.error(&format!("cannot append the key map of `{table}` in"), error);
        if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
            return failed.into();
        }
        let staged_keys = format!("main.{}", self.names.staged_keys(table));
        let mappings = format!("main.{}", Names::mappings(&self.destination.table.key_map));
        match self.rows(&sql::mapped(&staged_keys, &mappings)) {
            Ok(rows) => ConstraintViolation::of_key_map(table, rows).into(),
            Err(_) => failed.into(),
        }
    }

    /// Checks again, before the insertion, that production has none of the values that no index keeps unique. No other program can write
    /// from here on, because the transaction has the file's write lock.
    pub(super) fn commit_checks(&self) -> Result<(), InsertError> {
        for commit_check in &self.destination.commit_checks {
            if let CommitCheckKind::Unique { columns, ignore_case } = &commit_check.what {
                let rows = self.asked(self.unique(columns, ignore_case))?;
                ConstraintViolation::of_uniqueness(&self.destination.table.name, &commit_check.check, rows).if_any()?;
            }
        }
        Ok(())
    }

    /// Checks again that the rows exist that the delta refers to without a foreign key.
    pub(super) fn references(&self, at: TableIndex, delta: &dyn RowSource) -> Result<(), InsertError> {
        for commit_check in &self.destination.commit_checks {
            let CommitCheckKind::Reference { column, to, to_column, with, by } = &commit_check.what else { continue };
            let more: Vec<&String> = with.iter().chain(by).collect();
            let missing = self.missing(&delta.referenced(at, column)?, to, to_column, &more)?;
            if !missing.is_empty() {
                let (table, rows) = (&self.destination.table.name, delta.referring(at, column, &missing)?);
                ConstraintViolation::of_reference(table, &commit_check.check, to, by, rows).if_any()?;
            }
        }
        Ok(())
    }

    /// Returns the first row of the delta that refers to each missing row.
    fn missing(&self, rows: &RecordBatch, to: &str, to_column: &str, more: &[&String]) -> Result<Vec<RowNumber>> {
        let fault = |error: rusqlite::Error| self.names.error("cannot look for referenced rows in", &error);
        let more: String = more.iter().map(|name| format!(" AND {} IS ?", ident(name))).collect();
        let sql = format!("SELECT 1 FROM main.{} WHERE {} = ?{more}", ident(to), ident(to_column));
        let mut statement = self.connection.prepare(&sql).map_err(fault)?;
        let keys = StorageBatch::of(&rows.columns()[1..])?;
        let mut missing = Vec::new();
        for (at, row) in row_numbers(rows.column(0)).enumerate() {
            if !is_there(&mut statement, &keys, at).map_err(fault)? {
                missing.push(row);
            }
        }
        Ok(missing)
    }

    /// Checks all references of the table's rows as a set.
    pub(super) fn foreign_keys(&self) -> Result<(), InsertError> {
        for key in &self.destination.table.foreign_keys {
            let rows = self.asked(self.orphans(&key.columns, &key.to, &key.to_columns))?;
            let constraint = format!("FOREIGN KEY ({}) REFERENCES {}", key.columns.join(", "), key.to);
            let (table, reason) = (self.destination.table.name.clone(), format!("`{}` has no such row", key.to));
            ConstraintViolation { table, constraint, reason, rows }.if_any()?;
        }
        Ok(())
    }

    fn asked(&self, rows: rusqlite::Result<Vec<RowNumber>>) -> Result<Vec<RowNumber>> {
        let doing = || format!("cannot check the rows of `{}` in", self.destination.table.name);
        rows.map_err(|error| self.names.error(&doing(), &error))
    }

    fn unique(&self, columns: &[String], ignore_case: &[String]) -> rusqlite::Result<Vec<RowNumber>> {
        let same = columns.iter().map(|name| {
            let collation = if ignore_case.contains(name) { " COLLATE NOCASE" } else { "" };
            format!("p.{0} = s.{0}{collation}", ident(name))
        });
        let same: Vec<_> = same.collect();
        let table = ident(&self.destination.table.name);
        self.staged(&format!("EXISTS (SELECT 1 FROM main.{table} AS p WHERE {})", same.join(" AND ")))
    }

    fn foreign_keys_of_staging(&self) -> rusqlite::Result<Vec<RowNumber>> {
        let mut rows = Vec::new();
        for key in sql::filled(self.destination) {
            let mut orphan = vec![
                sql::none_is_null("s", &key.columns),
                sql::no_row_has(&format!("main.{}", ident(&key.to)), &key.to_columns, &values("s", &key.columns)),
            ];
            if key.to == self.destination.table.name {
                let staging = format!("main.{}", self.names.staging(&key.to));
                orphan.push(sql::no_row_has(&staging, &key.to_columns, &values("s", &key.columns)));
            }
            rows.extend(self.staged(&orphan.join(" AND "))?);
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    /// Returns the numbers of the staged rows that satisfy a condition over `s`.
    fn staged(&self, condition: &str) -> rusqlite::Result<Vec<RowNumber>> {
        self.rows(&sql::staged(&format!("main.{}", self.names.staging(&self.destination.table.name)), condition))
    }

    /// Returns the numbers of the inserted rows whose references lead nowhere. The compared values are those of production.
    fn orphans(&self, columns: &[String], to: &str, to_columns: &[String]) -> rusqlite::Result<Vec<RowNumber>> {
        self.rows(&sql::first(&format!(
            "SELECT k._row FROM {} WHERE {} AND {}",
            super::inserted(self.destination, self.names),
            sql::none_is_null("p", columns),
            sql::no_row_has(&format!("main.{}", ident(to)), to_columns, &values("p", columns))
        )))
    }

    fn rows(&self, sql: &str) -> rusqlite::Result<Vec<RowNumber>> {
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| super::row_number(row, 0))?;
        rows.collect()
    }
}

/// SQL: the values of a row's columns.
fn values(of: &str, columns: &[String]) -> Vec<String> {
    columns.iter().map(|name| format!("{of}.{}", ident(name))).collect()
}

fn text(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns the columns of `table.a, table.b`, as SQLite names them.
fn columns(what: &str) -> Vec<String> {
    what.split(", ").map(|name| name.rsplit('.').next().unwrap_or(name).to_owned()).collect()
}

//! Identification of the rows that violate a constraint: SQLite names the constraint, and the staged rows are queried.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;
use rusqlite::{Connection, ErrorCode};

use super::Names;
use super::direct_path::is_there;
use super::storage_values::StorageBatch;
use crate::engine::ident;
use crate::error::Result;
use crate::target::{CommitCheckKind, ConstraintViolation, Destination, ForeignKey, InsertError, RowSource};

const MOST: usize = 1000;

/// The constraint and reason of legacy keys that are already mapped.
const KEY_MAP: (&str, &str) = ("key_map", "another run has converted them");

/// The queries for the violating rows of one table, inside a load's transaction.
pub(super) struct Refusals<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    pub(super) destination: &'a Destination,
}

impl Refusals<'_> {
    /// Returns the violation behind an error of the insertion, without its rows.
    pub(super) fn at_once(&self, error: &rusqlite::Error) -> InsertError {
        self.without_rows(error, "cannot insert into", &text(error), "")
    }

    /// Returns the violation behind an error of appending the key map, without its rows.
    pub(super) fn of_key_map_at_once(&self, error: &rusqlite::Error) -> InsertError {
        self.without_rows(error, "cannot append the key map of", KEY_MAP.0, KEY_MAP.1)
    }

    fn without_rows(&self, error: &rusqlite::Error, doing: &str, constraint: &str, reason: &str) -> InsertError {
        let table = self.destination.table.name.clone();
        if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
            return self.names.error(&format!("{doing} `{table}` in"), error).into();
        }
        ConstraintViolation { table, constraint: constraint.to_owned(), reason: reason.to_owned(), rows: Vec::new() }
            .into()
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
            "UNIQUE" => self.unique(&columns(what), &[]),
            "FOREIGN KEY" => self.foreign_keys_of_staging(),
            "NOT NULL" => {
                let null = columns(what).iter().map(|name| format!("s.{} IS NULL", ident(name))).collect::<Vec<_>>();
                self.staged(&null.join(" OR "))
            }
            _ => Ok(Vec::new()),
        };
        match asked {
            Ok(rows) => {
                ConstraintViolation { table: table.name.clone(), constraint: text.clone(), reason: String::new(), rows }
                    .into()
            }
            Err(_) => failed.into(),
        }
    }

    /// Returns the violation behind an error of appending the key map.
    pub(super) fn of_key_map(&self, error: &rusqlite::Error) -> InsertError {
        let table = &self.destination.table.name;
        let failed = self.names.error(&format!("cannot append the key map of `{table}` in"), error);
        if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
            return failed.into();
        }
        let sql = format!(
            "SELECT k._row FROM main.{} AS k WHERE k.legacy_key IN (SELECT legacy_key FROM main.{})",
            self.names.staged_keys(table),
            Names::mappings(&self.destination.table.key_map)
        );
        match self.rows(&sql) {
            Ok(rows) => ConstraintViolation {
                table: table.clone(),
                constraint: KEY_MAP.0.into(),
                reason: KEY_MAP.1.into(),
                rows,
            }
            .into(),
            Err(_) => failed.into(),
        }
    }

    /// Checks again, before the insertion, that production has none of the values that no index keeps unique. No other program can write
    /// from here on, because the transaction has the file's write lock.
    pub(super) fn promises(&self) -> Result<(), InsertError> {
        for promise in &self.destination.promises {
            if let CommitCheckKind::Unique { columns, ignore_case } = &promise.what {
                let rows = self.unique(columns, ignore_case);
                self.refuse(&promise.check, "another session has inserted these values".to_owned(), rows)?;
            }
        }
        Ok(())
    }

    /// Checks again that the rows exist that the delta refers to without a foreign key.
    pub(super) fn references(&self, at: usize, delta: &dyn RowSource) -> Result<(), InsertError> {
        for promise in &self.destination.promises {
            let CommitCheckKind::Reference { column, to, to_column, by } = &promise.what else { continue };
            let missing = self.missing(&delta.referenced(at, column)?, to, to_column, by.as_ref())?;
            if !missing.is_empty() {
                let changed = by.as_ref().map_or(String::new(), |by| format!(", or its `{by}` was changed"));
                let reason = format!("the row of `{to}` that they refer to was deleted concurrently{changed}");
                self.refuse(&promise.check, reason, Ok(delta.referring(at, column, &missing)?))?;
            }
        }
        Ok(())
    }

    /// Returns the first row of the delta that refers to each missing row.
    fn missing(&self, rows: &RecordBatch, to: &str, to_column: &str, by: Option<&String>) -> Result<Vec<u32>> {
        let fault = |error: rusqlite::Error| self.names.error("cannot look for referenced rows in", &error);
        let by = by.map_or(String::new(), |by| format!(" AND {} = ?", ident(by)));
        let sql = format!("SELECT 1 FROM main.{} WHERE {} = ?{by}", ident(to), ident(to_column));
        let mut statement = self.connection.prepare(&sql).map_err(fault)?;
        let keys = StorageBatch::of(&rows.columns()[1..])?;
        let mut missing = Vec::new();
        for (at, row) in rows.column(0).as_primitive::<UInt32Type>().values().iter().enumerate() {
            if !is_there(&mut statement, &keys, at).map_err(fault)? {
                missing.push(*row);
            }
        }
        Ok(missing)
    }

    /// Checks all references of the table's rows as a set.
    pub(super) fn foreign_keys(&self) -> Result<(), InsertError> {
        for key in &self.destination.table.foreign_keys {
            let constraint = format!("FOREIGN KEY ({}) REFERENCES {}", key.columns.join(", "), key.to);
            let reason = format!("`{}` has no such row", key.to);
            self.refuse(&constraint, reason, self.orphans(&key.columns, &key.to, &key.to_columns))?;
        }
        Ok(())
    }

    fn refuse(&self, constraint: &str, reason: String, rows: rusqlite::Result<Vec<u32>>) -> Result<(), InsertError> {
        let table = &self.destination.table.name;
        let rows = rows.map_err(|error| self.names.error(&format!("cannot check the rows of `{table}` in"), &error))?;
        if rows.is_empty() {
            return Ok(());
        }
        Err(ConstraintViolation { table: table.clone(), constraint: constraint.to_owned(), reason, rows }.into())
    }

    fn unique(&self, columns: &[String], ignore_case: &[String]) -> rusqlite::Result<Vec<u32>> {
        let same = columns.iter().map(|name| {
            let collation = if ignore_case.contains(name) { " COLLATE NOCASE" } else { "" };
            format!("p.{0} = s.{0}{collation}", ident(name))
        });
        let same: Vec<_> = same.collect();
        let table = ident(&self.destination.table.name);
        self.staged(&format!("EXISTS (SELECT 1 FROM main.{table} AS p WHERE {})", same.join(" AND ")))
    }

    fn foreign_keys_of_staging(&self) -> rusqlite::Result<Vec<u32>> {
        let mut rows = Vec::new();
        let filled = |key: &&ForeignKey| key.columns.iter().all(|name| self.destination.columns.contains(name));
        for key in self.destination.table.foreign_keys.iter().filter(filled) {
            let mut nowhere =
                vec![there("s", &key.columns), nowhere(&ident(&key.to), &key.to_columns, "s", &key.columns)];
            if key.to == self.destination.table.name {
                nowhere.push(self::nowhere(&self.names.staging(&key.to), &key.to_columns, "s", &key.columns));
            }
            rows.extend(self.staged(&nowhere.join(" AND "))?);
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    fn staged(&self, condition: &str) -> rusqlite::Result<Vec<u32>> {
        let staging = self.names.staging(&self.destination.table.name);
        self.rows(&format!("SELECT s._row FROM main.{staging} AS s WHERE {condition}"))
    }

    /// Returns the inserted rows whose reference leads nowhere, by the values in production.
    fn orphans(&self, columns: &[String], to: &str, to_columns: &[String]) -> rusqlite::Result<Vec<u32>> {
        self.rows(&format!(
            "SELECT k._row FROM {} WHERE {} AND {}",
            super::inserted(self.destination, self.names),
            there("p", columns),
            nowhere(&ident(to), to_columns, "p", columns)
        ))
    }

    fn rows(&self, sql: &str) -> rusqlite::Result<Vec<u32>> {
        let mut statement = self.connection.prepare(&format!("{sql} ORDER BY 1 LIMIT {MOST}"))?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    }
}

/// Returns SQL that tests that none of these columns is NULL.
fn there(of: &str, columns: &[String]) -> String {
    let there: Vec<_> = columns.iter().map(|name| format!("{of}.{} IS NOT NULL", ident(name))).collect();
    there.join(" AND ")
}

/// Returns SQL that tests that no row of a table has these values.
fn nowhere(table: &str, its: &[String], of: &str, columns: &[String]) -> String {
    let same: Vec<_> =
        its.iter().zip(columns).map(|(its, column)| format!("r.{} = {of}.{}", ident(its), ident(column))).collect();
    format!("NOT EXISTS (SELECT 1 FROM main.{table} AS r WHERE {})", same.join(" AND "))
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

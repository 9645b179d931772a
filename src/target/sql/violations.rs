//! Which rows violate which constraint: the violations that targets find themselves, and the queries for the rows of a constraint that
//! production names. A staged row is `s`, a row of production `r` or `p`.

use crate::engine::{RowNumber, ident, list};
use crate::target::{ConstraintViolation, Destination, ForeignKey, InsertError};

/// The most rows that a violation lists. More would add nothing.
const MOST: usize = 1000;

impl ConstraintViolation {
    /// Returns the violation of the key map: other mappings of the same legacy keys exist.
    pub(in crate::target) fn of_key_map(table: &str, rows: Vec<RowNumber>) -> Self {
        let reason = "another run has converted them".to_owned();
        Self { table: table.to_owned(), constraint: "key_map".to_owned(), reason, rows }
    }

    /// Returns the violation of a uniqueness that a check found and no index enforces.
    pub(in crate::target) fn of_uniqueness(table: &str, check: &str, rows: Vec<RowNumber>) -> Self {
        let reason = "another session has inserted these values".to_owned();
        Self { table: table.to_owned(), constraint: check.to_owned(), reason, rows }
    }

    /// Returns the violation of a reference that a check found and no foreign key enforces. `by` are the columns of `to` by which the row
    /// was found; none if that was its key.
    pub(in crate::target) fn of_reference(
        table: &str,
        check: &str,
        to: &str,
        by: &[String],
        rows: Vec<RowNumber>,
    ) -> Self {
        let changed = if by.is_empty() { String::new() } else { format!(", or its {} was changed", list(by)) };
        let reason = format!("the row of `{to}` that they refer to was deleted concurrently{changed}");
        Self { table: table.to_owned(), constraint: check.to_owned(), reason, rows }
    }

    /// Returns the violation as an error if it has rows.
    pub(in crate::target) fn if_any(self) -> Result<(), InsertError> {
        if self.rows.is_empty() { Ok(()) } else { Err(self.into()) }
    }
}

/// Returns the foreign keys whose columns a load fills.
pub(in crate::target) fn filled(destination: &Destination) -> impl Iterator<Item = &ForeignKey> {
    let filled = |key: &&ForeignKey| key.columns.iter().all(|name| destination.columns.contains(name));
    destination.table.foreign_keys.iter().filter(filled)
}

/// SQL: the numbers of the staged rows that satisfy a condition.
pub(in crate::target) fn staged(staging: &str, condition: &str) -> String {
    first(&format!("SELECT s._row FROM {staging} AS s WHERE {condition}"))
}

/// SQL: the numbers of the staged mappings whose legacy keys are mapped already.
pub(in crate::target) fn mapped(staged_keys: &str, mappings: &str) -> String {
    first(&format!("SELECT k._row FROM {staged_keys} AS k WHERE k.legacy_key IN (SELECT legacy_key FROM {mappings})"))
}

/// SQL: the first numbers of a query, in order.
pub(in crate::target) fn first(query: &str) -> String {
    format!("{query} ORDER BY 1 LIMIT {MOST}")
}

/// SQL: none of these columns is NULL.
pub(in crate::target) fn none_is_null(of: &str, columns: &[String]) -> String {
    let filled: Vec<_> = columns.iter().map(|name| format!("{of}.{} IS NOT NULL", ident(name))).collect();
    filled.join(" AND ")
}

/// SQL: no row of a relation has these values in its columns.
pub(in crate::target) fn no_row_has(relation: &str, columns: &[String], values: &[String]) -> String {
    let same: Vec<_> =
        columns.iter().zip(values).map(|(column, value)| format!("r.{} = {value}", ident(column))).collect();
    format!("NOT EXISTS (SELECT 1 FROM {relation} AS r WHERE {})", same.join(" AND "))
}

//! The rollback of a run: its rows, the conflicts, and the result.

use serde::Serialize;

use crate::error::Error;
use crate::journal::RunId;

/// The rows that a run has in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunTable {
    /// The table.
    pub table: String,
    /// How many rows the run inserted: as many as the mappings that it appended to the key map.
    pub rows: u64,
    /// Their first and last key; the parts of a composite key are separated by `|`.
    pub keys: (String, String),
    /// The triggers that a deletion fires.
    pub triggers: Vec<String>,
}

/// A kind of conflict that prevents the rollback of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollbackConflict {
    /// The table that has the conflicting rows.
    pub table: String,
    /// A description that follows the count: `changed since`.
    pub what: String,
    /// How many rows are in conflict.
    pub count: u64,
    /// The first ten: a row's key, and after `by` the key of the row that refers to it.
    pub samples: Vec<String>,
}

/// The rows that a rollback would delete, and the conflicts that prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RollbackPlan {
    /// The tables, by name.
    pub tables: Vec<RunTable>,
    /// The conflicts; empty if the run can be rolled back.
    pub conflicts: Vec<RollbackConflict>,
    /// Effects of the rollback besides deleting rows.
    pub notes: Vec<String>,
}

/// The result of a rollback in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolledBackTable {
    /// The table.
    pub table: String,
    /// How many rows were deleted; none of the run's remains.
    pub deleted: u64,
    /// How many mappings were deleted; none if triggers had written the rows with the run.
    pub mappings: u64,
}

/// The most samples per kind of conflict.
pub(super) const MAX_SAMPLES: usize = 10;

impl RollbackPlan {
    /// Returns the number of the run's rows in production.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Returns the error of a run that cannot be rolled back.
    pub fn refusal(&self, run: &RunId) -> Error {
        let lines: String = self.conflicts.iter().map(|conflict| format!("\n  {conflict}")).collect();
        Error::refused(format!(
            "cannot roll back run {run}: some of its rows have been changed or are referenced{lines}"
        ))
        .hint("nothing was changed; roll back later runs first, and have other programs remove their own references")
    }
}

impl RollbackConflict {
    /// Adds a sample to a kind of conflict.
    pub(super) fn tell(conflicts: &mut Vec<Self>, table: &str, what: &str, count: u64, samples: String) {
        match conflicts.iter_mut().find(|conflict| conflict.table == table && conflict.what == what) {
            Some(conflict) => conflict.samples.push(samples),
            None => {
                conflicts.push(Self { table: table.to_owned(), what: what.to_owned(), count, samples: vec![samples] });
            }
        }
    }
}

impl std::fmt::Display for RollbackConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, what, count, samples } = self;
        let more = if *count > samples.len() as u64 { ", …" } else { "" };
        write!(f, "`{table}`: {count} {what}: {}{more}", samples.join(", "))
    }
}

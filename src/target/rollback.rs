//! The rollback of a run: what the run holds, what is in the way, and what is gone in the end.

use serde::Serialize;

use crate::error::Error;

/// What a run holds of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunTable {
    /// The table.
    pub table: String,
    /// How many rows the run inserted, which is how many mappings it appended to the key map.
    pub rows: u64,
    /// The first and the last of their keys; the parts of a composite key with `|` between.
    pub keys: (String, String),
    /// The triggers that a deletion fires.
    pub triggers: Vec<String>,
}

/// Something of one kind that keeps a run from being taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollbackConflict {
    /// The table whose rows it is about.
    pub table: String,
    /// What it is, to stand behind how many there are: `changed since`.
    pub what: String,
    /// How many there are.
    pub count: u64,
    /// The first ten: a row's key, and behind `by` the key of the row that refers to it.
    pub told: Vec<String>,
}

/// What a run holds, and what is in the way of taking it back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RollbackPlan {
    /// The tables, by name.
    pub tables: Vec<RunTable>,
    /// What is in the way; nothing if the run can be rolled back.
    pub obstacles: Vec<RollbackConflict>,
    /// What the rollback does beside deleting rows.
    pub notes: Vec<String>,
}

/// What became of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolledBackTable {
    /// The table.
    pub table: String,
    /// How many rows were deleted; none of the run's is left.
    pub deleted: u64,
    /// How many mappings went; none if triggers had written the rows with the run.
    pub mappings: u64,
}

/// Names what is in the way at most, of each kind.
pub(super) const TOLD: usize = 10;

impl RollbackPlan {
    /// How many rows of production are the run's.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Why the run cannot be taken back.
    pub fn refusal(&self, run: &str) -> Error {
        let lines: String = self.obstacles.iter().map(|obstacle| format!("\n  {obstacle}")).collect();
        Error::refused(format!(
            "cannot roll back run {run}: some of its rows have been changed or are referenced{lines}"
        ))
        .hint("nothing was changed; roll back later runs first, and have other programs remove their own references")
    }
}

impl RollbackConflict {
    /// Adds one more of a kind.
    pub(super) fn tell(obstacles: &mut Vec<Self>, table: &str, what: &str, count: u64, told: String) {
        match obstacles.iter_mut().find(|obstacle| obstacle.table == table && obstacle.what == what) {
            Some(obstacle) => obstacle.told.push(told),
            None => obstacles.push(Self { table: table.to_owned(), what: what.to_owned(), count, told: vec![told] }),
        }
    }
}

impl std::fmt::Display for RollbackConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, what, count, told } = self;
        let more = if *count > told.len() as u64 { ", …" } else { "" };
        write!(f, "`{table}`: {count} {what}: {}{more}", told.join(", "))
    }
}

//! The report of a rollback, or of its dry run.

use serde::Serialize;

use super::escape::visible;
use super::text::{align, grid, lines, number};
use super::{Report, VERSION};
use crate::journal::RunId;
use crate::target::{RollbackConflict, RollbackPlan, RolledBackTable};

/// The report of a rollback.
#[derive(Debug, Clone, Serialize)]
pub struct Rollback {
    /// The version of this format.
    pub version: u32,
    /// The run ID.
    pub run: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The target, without secrets.
    pub target: String,
    /// How it ended.
    pub verdict: Outcome,
    /// The tables, by name.
    pub tables: Vec<RollbackTable>,
    /// The conflicts that prevent the rollback.
    pub conflicts: Vec<RollbackConflict>,
    /// Facts that were verified before the commit.
    pub proven: Vec<String>,
    /// Side effects, such as triggers.
    pub notes: Vec<String>,
}

/// The outcome of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The run's rows were deleted from production.
    RolledBack,
    /// No rows of the run were in production, and it can no longer be resumed.
    #[serde(rename = "given_up")]
    Abandoned,
    /// Dry run: the run can be rolled back.
    Possible,
    /// Dry run: conflicts prevent the rollback.
    Impossible,
}

/// One table of a rollback.
#[derive(Debug, Clone, Serialize)]
pub struct RollbackTable {
    /// The table's name.
    pub name: String,
    /// The number of rows that were deleted, or would be deleted.
    pub rows: u64,
    /// The number of their key mappings, which are deleted too.
    pub mappings: u64,
    /// The first and the last key of these rows.
    pub keys: (String, String),
    /// The number of these rows that remain; None in a dry run.
    pub left: Option<u64>,
}

/// Facts that are verified for each table. If one does not hold, the transaction is rolled back.
const PROVEN: [&str; 2] = [
    "no row with a key of the run remains, and none of its mappings",
    "each table: as many rows deleted as the run had inserted, and none of them had changed",
];

impl Rollback {
    /// Creates the report for a run without rows in production.
    pub fn abandoned(run: &RunId, pipeline: &str, target: &str, dry: bool) -> Self {
        let verdict = if dry { Outcome::Possible } else { Outcome::Abandoned };
        let note = "none of its rows are in production; the next run empties its staging, and its keys are not reused";
        let plan = RollbackPlan { notes: vec![note.to_owned()], ..RollbackPlan::default() };
        Self::new(run, pipeline, target, verdict, plan)
    }

    /// Creates the report of a planned rollback.
    pub fn of(run: &RunId, pipeline: &str, target: &str, plan: RollbackPlan) -> Self {
        let verdict = if plan.conflicts.is_empty() { Outcome::Possible } else { Outcome::Impossible };
        Self::new(run, pipeline, target, verdict, plan)
    }

    fn new(run: &RunId, pipeline: &str, target: &str, verdict: Outcome, plan: RollbackPlan) -> Self {
        let mut notes = plan.notes;
        let mut tables = Vec::new();
        for table in plan.tables {
            if !table.triggers.is_empty() {
                let triggers = table.triggers.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                notes.push(format!("deleting from `{}` fires its triggers: {triggers}", table.table));
            }
            tables.push(RollbackTable {
                name: table.table,
                rows: table.rows,
                mappings: table.rows,
                keys: table.keys,
                left: None,
            });
        }
        let (run, pipeline, target) = (run.to_owned(), pipeline.to_owned(), target.to_owned());
        let (conflicts, proven) = (plan.conflicts, Vec::new());
        Self { version: VERSION, run, pipeline, target, verdict, tables, conflicts, proven, notes }
    }

    /// Completes the report after the rollback.
    #[must_use]
    pub fn done(mut self, tables: &[RolledBackTable]) -> Self {
        self.verdict = Outcome::RolledBack;
        self.proven = PROVEN.map(str::to_owned).to_vec();
        for done in tables {
            match self.tables.iter_mut().find(|table| table.name == done.table && done.mappings > 0) {
                Some(table) => (table.rows, table.mappings, table.left) = (done.deleted, done.mappings, Some(0)),
                None if done.deleted == 0 => {}
                None => self.notes.push(format!(
                    "{} rows of `{}` were also deleted; triggers had written them with the run's rows",
                    number(done.deleted),
                    done.table
                )),
            }
        }
        self
    }

    /// Adds a note on triggers from the run's own report.
    #[must_use]
    pub fn of_report(mut self, report: Option<&Report>) -> Self {
        let fired = report.iter().flat_map(|report| &report.tables).filter(|table| !table.triggers.is_empty());
        let names: Vec<_> = fired.map(|table| format!("`{}`", table.name)).collect();
        if !names.is_empty() && !self.tables.is_empty() {
            let note = format!("rows that triggers on {} wrote to other tables remain", names.join(", "));
            self.notes.push(note);
        }
        self
    }

    /// Formats the report as text.
    pub fn text(&self) -> String {
        let mut parts = vec![format!("{}: {}\n", self.pipeline, self.verdict())];
        if !self.tables.is_empty() {
            let mut grid = grid(&["table", "rows", "keys from", "to"]);
            for table in &self.tables {
                let (from, to) = table.keys.clone();
                grid.add_row([table.name.clone(), number(table.rows), from, to]);
            }
            (1..=3).for_each(|column| align(&mut grid, column));
            parts.push(lines(&grid));
        }
        parts.push(self.conflicts.iter().map(|conflict| format!("  conflict: {conflict}\n")).collect());
        let proven = self.proven.iter().map(|fact| format!("  proven: {fact}\n"));
        parts.push(proven.chain(self.notes.iter().map(|note| format!("  note: {note}\n"))).collect());
        parts.push(format!("  run {} · {}\n", self.run, self.target));
        parts.retain(|part| !part.is_empty());
        visible(&parts.join("\n")).into_owned()
    }

    fn verdict(&self) -> String {
        let (rows, tables) = (number(self.tables.iter().map(|table| table.rows).sum()), self.tables.len());
        let of = format!("{rows} rows of {tables} table{}", if tables == 1 { "" } else { "s" });
        match self.verdict {
            Outcome::RolledBack => format!("rolled back: {of} and their key mappings deleted"),
            Outcome::Abandoned => "the run is abandoned".to_owned(),
            Outcome::Possible if self.tables.is_empty() => "a rollback would abandon the run".to_owned(),
            Outcome::Possible => format!("a rollback would delete {of} and their key mappings"),
            Outcome::Impossible => "the run cannot be rolled back because of conflicts".to_owned(),
        }
    }
}

//! What a rollback did, or would do.

use std::fmt::Write as _;

use serde::Serialize;

use super::escape::visible;
use super::text::{align, grid, lines, number};
use super::{Report, VERSION};
use crate::target::{RollbackConflict, RollbackPlan, RolledBackTable};

/// The report of a rollback.
#[derive(Debug, Clone, Serialize)]
pub struct Rollback {
    /// The version of this format.
    pub version: u32,
    /// The run.
    pub run: String,
    /// Its pipeline.
    pub pipeline: String,
    /// The target, without secrets.
    pub target: String,
    /// How it ended.
    pub verdict: Outcome,
    /// The tables, by name.
    pub tables: Vec<RollbackTable>,
    /// What is in the way.
    pub obstacles: Vec<RollbackConflict>,
    /// What was proven before the commit.
    pub proven: Vec<String>,
    /// What to know beside it.
    pub notes: Vec<String>,
}

/// How a rollback ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The run's rows are gone from production.
    RolledBack,
    /// Nothing of the run was in production, and it will not be resumed.
    GivenUp,
    /// A dry run: it can be taken back.
    Possible,
    /// A dry run: it cannot.
    Impossible,
}

/// One table of a rollback.
#[derive(Debug, Clone, Serialize)]
pub struct RollbackTable {
    /// Its name.
    pub name: String,
    /// The run's rows: those that were deleted, or would be.
    pub rows: u64,
    /// Their mappings in the key map, which went with them.
    pub mappings: u64,
    /// The first and the last of their keys.
    pub keys: (String, String),
    /// How many of them are left; None in a dry run.
    pub left: Option<u64>,
}

/// What is proven of each table, or nothing is changed.
const PROVEN: [&str; 2] = [
    "no row with a key of the run is left, and none of its mappings",
    "of each table as many rows were deleted as the run had inserted, and none was changed",
];

impl Rollback {
    /// Of a run of which nothing is in production.
    pub fn given_up(run: &str, pipeline: &str, target: &str, dry: bool) -> Self {
        let verdict = if dry { Outcome::Possible } else { Outcome::GivenUp };
        let kept =
            "nothing of it is in production: its staging is emptied by the next run, and its keys are not used again";
        Self::new(run, pipeline, target, verdict, RollbackPlan::default()).noting(kept.to_owned())
    }

    /// What would be taken back.
    pub fn of(run: &str, pipeline: &str, target: &str, survey: RollbackPlan) -> Self {
        let verdict = if survey.obstacles.is_empty() { Outcome::Possible } else { Outcome::Impossible };
        Self::new(run, pipeline, target, verdict, survey)
    }

    fn new(run: &str, pipeline: &str, target: &str, verdict: Outcome, survey: RollbackPlan) -> Self {
        let mut notes = survey.notes;
        let mut tables = Vec::new();
        for holding in survey.tables {
            if !holding.triggers.is_empty() {
                let triggers = holding.triggers.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                notes.push(format!("deleting from `{}` fires its triggers: {triggers}", holding.table));
            }
            tables.push(RollbackTable {
                name: holding.table,
                rows: holding.rows,
                mappings: holding.rows,
                keys: holding.keys,
                left: None,
            });
        }
        let (run, pipeline, target) = (run.to_owned(), pipeline.to_owned(), target.to_owned());
        let (obstacles, proven) = (survey.obstacles, Vec::new());
        Self { version: VERSION, run, pipeline, target, verdict, tables, obstacles, proven, notes }
    }

    fn noting(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    /// The same, done.
    #[must_use]
    pub fn done(mut self, taken_back: &[RolledBackTable]) -> Self {
        self.verdict = Outcome::RolledBack;
        self.proven = PROVEN.map(str::to_owned).to_vec();
        for done in taken_back {
            match self.tables.iter_mut().find(|table| table.name == done.table && done.mappings > 0) {
                Some(table) => (table.rows, table.mappings, table.left) = (done.deleted, done.mappings, Some(0)),
                None => self.notes.push(format!(
                    "{} rows of `{}` went too: triggers had written them with the run's",
                    number(done.deleted),
                    done.table
                )),
            }
        }
        self
    }

    /// What is to be known of a run whose report is here.
    #[must_use]
    pub fn of_report(mut self, report: Option<&Report>) -> Self {
        let fired = report.iter().flat_map(|report| &report.tables).filter(|table| !table.triggers.is_empty());
        let names: Vec<_> = fired.map(|table| format!("`{}`", table.name)).collect();
        if !names.is_empty() && !self.tables.is_empty() {
            let note = format!("what triggers wrote elsewhere when the run inserted into {} stays", names.join(", "));
            self.notes.push(note);
        }
        self
    }

    /// The report as text.
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
        let mut told = String::new();
        for (what, texts) in [("proven", &self.proven), ("note", &self.notes)] {
            told.extend(texts.iter().map(|text| format!("  {what}: {text}\n")));
        }
        let obstacles: String = self.obstacles.iter().map(|obstacle| format!("  in the way: {obstacle}\n")).collect();
        parts.push(obstacles);
        parts.push(told);
        let mut last = String::new();
        let _infallible = writeln!(last, "  run {} · {}", self.run, self.target);
        parts.push(last);
        parts.retain(|part| !part.is_empty());
        visible(&parts.join("\n")).into_owned()
    }

    fn verdict(&self) -> String {
        let (rows, tables) = (number(self.tables.iter().map(|table| table.rows).sum()), self.tables.len());
        let of = format!("{rows} rows of {tables} table{}", if tables == 1 { "" } else { "s" });
        match self.verdict {
            Outcome::RolledBack => format!("rolled back: {of} and their key map are gone from production"),
            Outcome::GivenUp => "the run is given up".to_owned(),
            Outcome::Possible if self.tables.is_empty() => "a rollback gives the run up".to_owned(),
            Outcome::Possible => format!("a rollback takes {of} and their key map out of production"),
            Outcome::Impossible => "a rollback is refused: rows of the run are in other hands".to_owned(),
        }
    }
}

//! What the checks found: which rows fail which check, and why.

use std::collections::HashMap;

use crate::engine::RowSet;
use crate::plan::Table;
use crate::spec::Severity;

/// The findings of one table.
#[derive(Debug, Default)]
pub struct Findings {
    violations: Vec<Vec<Violation>>,
    texts: Texts,
    /// Rows that are kept out.
    pub rejected: RowSet,
    /// Rows that are left out as declared.
    pub skipped: RowSet,
}

/// One row that fails a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The row's number.
    pub row: u32,
    /// More about it.
    pub detail: ViolationDetail,
}

/// What there is to say of a violation beside the check's own reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationDetail {
    /// Nothing.
    None,
    /// Another row has part in it: a row of a table of the plan.
    Row {
        /// The table's number in the plan.
        table: u32,
        /// The row's number.
        row: u32,
    },
    /// A text of its own.
    Text(u32),
}

/// Texts, each kept once. Past a number of different ones no more are kept: the check's own reason is said then.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<String, u32>,
    list: Vec<String>,
}

const MOST_TEXTS: usize = 100_000;

impl Findings {
    /// No findings yet, for a table's checks.
    pub fn new(table: &Table) -> Self {
        Self { violations: vec![Vec::new(); table.checks.len()], ..Self::default() }
    }

    /// Notes that a row fails a check; one whose severity is `error` rejects it.
    pub fn add(&mut self, table: &Table, check: usize, row: u32, detail: ViolationDetail) {
        self.violations[check].push(Violation { row, detail });
        if table.checks[check].severity == Severity::Error {
            self.rejected.insert(row);
        }
    }

    /// Notes that a row fails a check, with a text of its own.
    pub fn add_text(&mut self, table: &Table, check: usize, row: u32, text: &str) {
        let detail = self.texts.intern(text);
        self.add(table, check, row, detail);
    }

    /// Notes a record that cannot be read: it has no number among the rows, but one of its own.
    pub fn add_malformed(&mut self, check: usize, number: u32) {
        self.violations[check].push(Violation { row: number, detail: ViolationDetail::None });
    }

    /// The rows that fail a check, in the order they were found.
    pub fn of(&self, check: usize) -> &[Violation] {
        &self.violations[check]
    }

    /// Sorts every check's rows.
    pub fn sort(&mut self) {
        for violations in &mut self.violations {
            violations.sort_by_key(|violation| violation.row);
            violations.dedup_by_key(|violation| violation.row);
        }
    }

    /// The text of a detail.
    pub fn text(&self, detail: ViolationDetail) -> Option<&str> {
        match detail {
            ViolationDetail::Text(at) => self.texts.list.get(at as usize).map(String::as_str),
            _ => None,
        }
    }

    /// Rows that are neither rejected nor skipped are accepted: this is the set of the others.
    pub fn kept_out(&self) -> RowSet {
        self.rejected.union(&self.skipped)
    }
}

impl Texts {
    fn intern(&mut self, text: &str) -> ViolationDetail {
        if let Some(at) = self.known.get(text) {
            return ViolationDetail::Text(*at);
        }
        if self.list.len() >= MOST_TEXTS {
            return ViolationDetail::None;
        }
        let at = self.list.len() as u32;
        self.known.insert(text.to_owned(), at);
        self.list.push(text.to_owned());
        ViolationDetail::Text(at)
    }
}

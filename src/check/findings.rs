//! Findings: the rows that fail checks, and the reasons.

use std::collections::HashMap;

use crate::engine::RowSet;
use crate::plan::Table;
use crate::spec::Severity;

/// The findings of one table.
#[derive(Debug, Default)]
pub struct Findings {
    violations: Vec<Vec<Violation>>,
    texts: Texts,
    /// Rejected rows.
    pub rejected: RowSet,
    /// Rows that are skipped as declared.
    pub skipped: RowSet,
}

/// A row that fails a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The row's number in the table.
    pub row: u32,
    /// The detail that completes the check's reason.
    pub detail: ViolationDetail,
}

/// The detail of a violation, beyond the check's own reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationDetail {
    /// No detail.
    None,
    /// Another row that is involved.
    Row {
        /// The other row's table, as an index into the plan.
        table: u32,
        /// The other row's number.
        row: u32,
    },
    /// A separate text, as an index into the findings' texts.
    Text(u32),
}

/// Distinct texts. Their number is limited; violations beyond it show the check's own reason.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<String, u32>,
    list: Vec<String>,
}

const MOST_TEXTS: usize = 100_000;

impl Findings {
    /// Returns empty findings for a table's checks.
    pub fn new(table: &Table) -> Self {
        Self { violations: vec![Vec::new(); table.checks.len()], ..Self::default() }
    }

    /// Records that a row fails a check. If the check's severity is `error`, the row is rejected.
    pub fn add(&mut self, table: &Table, check: usize, row: u32, detail: ViolationDetail) {
        self.violations[check].push(Violation { row, detail });
        if table.checks[check].severity == Severity::Error {
            self.rejected.insert(row);
        }
    }

    /// Records that a row fails a check, with a separate text.
    pub fn add_text(&mut self, table: &Table, check: usize, row: u32, text: &str) {
        let detail = self.texts.intern(text);
        self.add(table, check, row, detail);
    }

    /// Records an unreadable record, by its number among the unreadable records.
    pub fn add_malformed(&mut self, check: usize, number: u32) {
        self.violations[check].push(Violation { row: number, detail: ViolationDetail::None });
    }

    /// Returns the violations of a check, in the order they were found.
    pub fn of(&self, check: usize) -> &[Violation] {
        &self.violations[check]
    }

    /// Sorts the violations of every check by row.
    pub fn sort(&mut self) {
        for violations in &mut self.violations {
            violations.sort_by_key(|violation| violation.row);
            violations.dedup_by_key(|violation| violation.row);
        }
    }

    /// Returns the text of a detail, if it has one.
    pub fn text(&self, detail: ViolationDetail) -> Option<&str> {
        match detail {
            ViolationDetail::Text(at) => self.texts.list.get(at as usize).map(String::as_str),
            _ => None,
        }
    }

    /// Returns the rows that are rejected or skipped; all others are accepted.
    pub fn excluded(&self) -> RowSet {
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

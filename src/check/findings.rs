//! Findings: the rows that fail checks, and the reasons.

use std::collections::HashMap;

use crate::engine::{RowNumber, RowNumbers, RowSet};
use crate::plan::Table;
use crate::spec::Severity;
use crate::target::TableIndex;

/// The findings of one table.
#[derive(Debug, Default)]
pub struct Findings {
    violations: Vec<Violations>,
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
    pub row: RowNumber,
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
        /// The other row's table.
        table: TableIndex,
        /// The other row's number.
        row: RowNumber,
    },
    /// A separate text, as an index into the findings' texts.
    Text(u32),
}

/// The violations of one check, by column: a violation takes 12 bytes if the row numbers of both tables are narrow, as those of
/// [`RowNumbers`] are.
#[derive(Debug, Clone, Default)]
pub struct Violations {
    rows: RowNumbers,
    /// The other row's table, [`TEXT`], or [`NO_DETAIL`].
    kinds: Vec<u32>,
    /// The other row's number, or the index of the text.
    details: RowNumbers,
}

const NO_DETAIL: u32 = u32::MAX;
const TEXT: u32 = u32::MAX - 1;

impl Violations {
    fn push(&mut self, Violation { row, detail }: Violation) {
        let (kind, detail) = match detail {
            ViolationDetail::None => (NO_DETAIL, RowNumber::new(0)),
            ViolationDetail::Text(at) => (TEXT, RowNumber::new(at.into())),
            ViolationDetail::Row { table, row } => (table.get() as u32, row),
        };
        self.rows.push(row);
        self.kinds.push(kind);
        self.details.push(detail);
    }

    /// Returns the number of violations.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the violation at an index.
    pub fn get(&self, index: usize) -> Option<Violation> {
        let detail = match *self.kinds.get(index)? {
            NO_DETAIL => ViolationDetail::None,
            TEXT => ViolationDetail::Text(self.details.at(index).get() as u32),
            table => ViolationDetail::Row { table: TableIndex::new(table as usize), row: self.details.at(index) },
        };
        Some(Violation { row: self.rows.at(index), detail })
    }

    /// Returns the violations in order.
    pub fn iter(&self) -> impl Iterator<Item = Violation> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Sorts the violations by row, and keeps the first of each row.
    fn sort(&mut self) {
        if self.rows.iter().is_sorted_by(|one, other| one < other) {
            return;
        }
        let mut violations: Vec<_> = self.iter().collect();
        violations.sort_by_key(|violation| violation.row);
        violations.dedup_by_key(|violation| violation.row);
        *self = Self::default();
        for violation in violations {
            self.push(violation);
        }
    }
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
        Self { violations: vec![Violations::default(); table.checks.len()], ..Self::default() }
    }

    /// Records that a row fails a check. If the check's severity is `error`, the row is rejected.
    pub fn add(&mut self, table: &Table, check: usize, row: RowNumber, detail: ViolationDetail) {
        self.violations[check].push(Violation { row, detail });
        if table.checks[check].severity == Severity::Error {
            self.rejected.insert(row);
        }
    }

    /// Records that a row fails a check, with a separate text.
    pub fn add_text(&mut self, table: &Table, check: usize, row: RowNumber, text: &str) {
        let detail = self.texts.intern(text);
        self.add(table, check, row, detail);
    }

    /// Records an unreadable record, by its number among the unreadable records.
    pub fn add_malformed(&mut self, check: usize, number: RowNumber) {
        self.violations[check].push(Violation { row: number, detail: ViolationDetail::None });
    }

    /// Returns the violations of a check, in the order they were found.
    pub fn of(&self, check: usize) -> &Violations {
        &self.violations[check]
    }

    /// Sorts the violations of every check by row.
    pub fn sort(&mut self) {
        self.violations.iter_mut().for_each(Violations::sort);
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

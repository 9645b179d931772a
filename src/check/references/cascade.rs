//! Rejection of the rows that refer to rejected or skipped rows.

use super::Resolved;
use crate::check::set_checks::number;
use crate::check::{Checker, ViolationDetail};
use crate::engine::{RowNumber, RowNumbers};
use crate::error::Result;
use crate::plan::CheckKind;
use crate::target::TableIndex;

impl Checker<'_> {
    /// Rejects the children of rejected rows, recursively within the table.
    pub(in crate::check) fn cascade(&mut self, at: TableIndex) -> Result<()> {
        let table = &self.plan.tables[at];
        let mut inside = Vec::new();
        for (reference_index, reference) in table.references.iter().enumerate() {
            let parent = reference.parent.filter(|_| reference.by.is_empty() && reference.first == reference_index);
            let Some(parent) = parent else { continue };
            let check = number(table, &|kind| *kind == CheckKind::ParentRejected { reference: reference_index })?;
            if parent == at {
                inside.push((reference_index, check));
                continue;
            }
            for row in self.tables[at].rows.numbers() {
                let target = self.tables[at].resolved[reference_index].parent(row);
                if target.is_some_and(|target| self.tables[parent].findings.skipped.contains(target)) {
                    // A row of a table in a cycle can be skipped after references to it were resolved.
                    self.reject_with_skipped(at, reference_index, row)?;
                }
                if let Some(target) = target.filter(|target| self.tables[parent].findings.rejected.contains(*target)) {
                    self.reject_with_parent(
                        at,
                        reference_index,
                        check,
                        row,
                        ViolationDetail::Row { table: parent, row: target },
                    );
                }
            }
        }
        let children = inside
            .iter()
            .map(|(reference_index, _)| Children::new(&self.tables[at].resolved[*reference_index]))
            .collect::<Vec<_>>();
        for ((reference_index, _), children) in inside.iter().zip(&children) {
            // A row can be skipped after references to it were resolved; those references no longer have a row.
            let check = number(table, &|kind| *kind == CheckKind::Relationship { reference: *reference_index })?;
            let skipped: Vec<RowNumber> = self.tables[at].findings.skipped.iter().collect();
            for child in skipped.iter().flat_map(|row| children.of(*row)) {
                if !self.tables[at].findings.skipped.contains(child) {
                    self.tables[at].findings.add_text(table, check, child, "the referenced row is skipped");
                }
            }
        }
        let mut waiting: Vec<RowNumber> = self.tables[at].findings.rejected.iter().collect();
        while let Some(row) = waiting.pop() {
            for ((reference_index, check), children) in inside.iter().zip(&children) {
                for child in children.of(row) {
                    let known = self.tables[at].findings.rejected.contains(child);
                    self.reject_with_parent(
                        at,
                        *reference_index,
                        *check,
                        child,
                        ViolationDetail::Row { table: at, row },
                    );
                    if !known && self.tables[at].findings.rejected.contains(child) {
                        waiting.push(child);
                    }
                }
            }
        }
        Ok(())
    }

    /// Rejects a row that refers to a skipped one, at most once per reference.
    fn reject_with_skipped(&mut self, at: TableIndex, reference_index: usize, row: RowNumber) -> Result<()> {
        let table = &self.plan.tables[at];
        let check = number(table, &|kind| *kind == CheckKind::Relationship { reference: reference_index })?;
        if !self.tables[at].findings.skipped.contains(row) && self.tables[at].cascaded[reference_index].insert(row) {
            self.tables[at].findings.add_text(table, check, row, "the referenced row is skipped");
        }
        Ok(())
    }

    /// Rejects a row with the row that it refers to, at most once per reference.
    fn reject_with_parent(
        &mut self,
        at: TableIndex,
        reference_index: usize,
        check: usize,
        row: RowNumber,
        detail: ViolationDetail,
    ) {
        if !self.tables[at].findings.skipped.contains(row) && self.tables[at].cascaded[reference_index].insert(row) {
            self.tables[at].findings.add(&self.plan.tables[at], check, row, detail);
        }
    }
}

/// By row, the rows of the same table that refer to it.
struct Children {
    first: RowNumber,
    /// By row, the index of its first child in `rows`; and the number of all children.
    starts: RowNumbers,
    rows: RowNumbers,
}

impl Children {
    fn new(resolved: &Resolved) -> Self {
        let (first, count) = (resolved.targets.first(), resolved.targets.len());
        let parent = |row: RowNumber| resolved.parent(row).filter(|parent| *parent != row);
        let mut starts = RowNumbers::zeros(count + 1);
        for target in first.through(count).filter_map(parent) {
            let after = target.index(first) + 1;
            starts.set(after, starts.at(after) + 1);
        }
        for at in 1..=count {
            starts.set(at, starts.at(at) + starts.at(at - 1).get() as usize);
        }
        let mut next = starts.clone();
        let mut rows = RowNumbers::zeros(starts.at(count).get() as usize);
        for row in first.through(count) {
            if let Some(target) = parent(row) {
                let place = next.at(target.index(first));
                rows.set(place.get() as usize, row);
                next.set(target.index(first), place + 1);
            }
        }
        Self { first, starts, rows }
    }

    fn of(&self, row: RowNumber) -> impl Iterator<Item = RowNumber> + '_ {
        let start = |index: usize| self.starts.at(index).get() as usize;
        let index = row.index(self.first);
        (start(index)..start(index + 1)).map(|place| self.rows.at(place))
    }
}

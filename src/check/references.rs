//! Resolution of references to rows.
//!
//! A reference is resolved in the delta first, then in the key map's history. A reference with `by` is resolved only in
//! production. The result is an array over the rows: the number of a row of the delta, or of a value of production. Keys
//! are assigned later, by one `take`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

mod cascade;
mod foreign_key;
mod join;
mod lookup;
mod resolved;

use super::set_checks::number;
use super::{Checker, ViolationDetail};
use crate::engine::{RowNumber, RowNumbers, RowSet, row_array, row_numbers};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Reference};
use crate::target::TableIndex;
use join::BuildSide;
use resolved::{NULL_REFERENCE, Targets, UNRESOLVED};

/// The rows that a table's rows refer to by one reference.
#[derive(Debug)]
pub struct Resolved {
    /// By row: below `parents` a row of the delta, from there an index into `found`, or a marker for no row.
    targets: Targets,
    /// The end of the rows of the delta that can be referred to.
    parents: RowNumber,
    found: ArrayRef,
    /// The values by which each value of `found` was looked up, and those that its condition tested, if the reference has `by`.
    named: Vec<ArrayRef>,
}

/// The number of bytes that are hashed in one piece. Larger pieces save calls for tables with many rows.
const HASHED_AT_ONCE: usize = 1 << 16;

impl Resolved {
    /// Returns the row of the delta that a row refers to.
    pub fn parent(&self, row: RowNumber) -> Option<RowNumber> {
        Some(self.targets.of(row)).filter(|target| *target < self.parents)
    }

    /// Returns the rows of the delta that `count` rows from `first` refer to, and NULL for rows that refer to none.
    pub fn parents(&self, first: RowNumber, count: usize) -> Int64Array {
        first.through(count).map(|row| self.parent(row).map(|parent| parent.get().cast_signed())).collect()
    }

    /// Returns the index in `found` of a target.
    fn index(&self, target: RowNumber) -> Option<usize> {
        (self.parents..UNRESOLVED).contains(&target).then(|| target.index(self.parents))
    }

    /// Returns the keys of `count` rows from `first`. `own` returns the keys of rows of the delta.
    pub fn keys(
        &self,
        first: RowNumber,
        count: usize,
        own: impl FnOnce(&Int64Array) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        let parents = self.parents(first, count);
        if parents.null_count() == count {
            return self.in_production(first, count);
        }
        let own = own(&parents)?;
        if self.found.is_empty() {
            return Ok(own);
        }
        let in_delta = arrow::compute::is_not_null(&parents)?;
        Ok(zip(&in_delta, &own, &self.in_production(first, count)?)?)
    }

    /// Returns the keys of `count` rows from `first` that refer to production, and NULL for the others.
    pub fn in_production(&self, first: RowNumber, count: usize) -> Result<ArrayRef> {
        let found = |row: RowNumber| self.index(self.targets.of(row)).map(|index| index as u64);
        let indices: UInt64Array = first.through(count).map(found).collect();
        Ok(take(&self.found, &indices, None)?)
    }

    /// Returns the keys of production that these rows refer to.
    ///
    /// # Errors
    /// Returns an error if Arrow rejects the values, which it has accepted before.
    pub fn of_rows(&self, rows: &dyn Array) -> Result<ArrayRef> {
        let found = |row: RowNumber| self.index(self.targets.of(row)).map(|index| index as u64);
        let indices: UInt64Array = row_numbers(rows).map(found).collect();
        Ok(take(&self.found, &indices, None)?)
    }

    /// Returns the values of production that rows refer to.
    pub fn found(&self) -> &ArrayRef {
        &self.found
    }

    /// Returns the distinct values of production that rows refer to, except for rows in `without`. The columns are the
    /// number of the first such row (`_row`), `key`, and, for a reference with `by`, the values it was looked up by (`named`).
    ///
    /// # Errors
    /// Returns an error if Arrow rejects the values, which it has accepted before.
    pub fn referenced(&self, without: &RowSet) -> Result<RecordBatch> {
        let mut seen = vec![false; self.found.len()];
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        for (row, value) in self.values(without) {
            if !std::mem::replace(&mut seen[value], true) && self.found.is_valid(value) {
                rows.push(row);
                values.push(value as u64);
            }
        }
        let values = UInt64Array::from(values);
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("_row".to_owned(), Arc::new(row_array(rows.into_iter()))),
            ("key".to_owned(), take(&self.found, &values, None)?),
        ];
        for (at, named) in self.named.iter().enumerate() {
            columns.push((format!("named{at}"), take(named, &values, None)?));
        }
        Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))?)
    }

    /// Returns the rows, except for those in `without`, that refer to the same values of production as `rows`.
    pub fn same_as(&self, rows: &[RowNumber], without: &RowSet) -> Vec<RowNumber> {
        let wanted: HashSet<RowNumber> = rows.iter().map(|row| self.targets.of(*row)).collect();
        let is_wanted = |(row, value): (RowNumber, usize)| wanted.contains(&(self.parents + value)).then_some(row);
        self.values(without).filter_map(is_wanted).collect()
    }

    /// Returns the hash of the references of all rows except those in `without`, in order.
    ///
    /// # Errors
    /// Returns an error if Arrow cannot encode the values.
    pub fn hash(&self, without: &RowSet) -> Result<String> {
        let converter = RowConverter::new(vec![SortField::new(self.found.data_type().clone())])?;
        let values = converter.convert_columns(std::slice::from_ref(&self.found))?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::with_capacity(2 * HASHED_AT_ONCE);
        let width = |end: RowNumber| if RowNumbers::is_narrow(end) { 4 } else { 8 };
        let (row_width, parent_width) = (width(self.targets.end()), width(self.parents));
        for (row, target) in self.targets.iter().filter(|(row, _)| !without.contains(*row)) {
            bytes.extend_from_slice(&row.get().to_le_bytes()[..row_width]);
            match target {
                NULL_REFERENCE | UNRESOLVED => bytes.push(0),
                parent if parent < self.parents => {
                    bytes.push(1);
                    bytes.extend_from_slice(&parent.get().to_le_bytes()[..parent_width]);
                }
                found => {
                    let value = values.row(found.index(self.parents));
                    bytes.push(2);
                    bytes.extend_from_slice(&(value.as_ref().len() as u64).to_le_bytes());
                    bytes.extend_from_slice(value.as_ref());
                }
            }
            if bytes.len() >= HASHED_AT_ONCE {
                hasher.update(&bytes);
                bytes.clear();
            }
        }
        Ok(hasher.update(&bytes).finalize().to_hex().to_string())
    }

    /// Returns the rows that refer to values of production, each with the index of its value.
    fn values<'a>(&'a self, without: &'a RowSet) -> impl Iterator<Item = (RowNumber, usize)> + 'a {
        let found = self.targets.iter().filter_map(|(row, target)| Some((row, self.index(target)?)));
        found.filter(|(row, _)| !without.contains(*row))
    }
}

impl Checker<'_> {
    /// Resolves one reference of a table whose parent table has been checked.
    pub(super) async fn resolve(&mut self, at: TableIndex, reference_index: usize) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let reference = &table.references[reference_index];
        let column = reference.text_column();
        let _check = self.about(
            at,
            table.check(|kind| *kind == CheckKind::Relationship { reference: reference_index }).unwrap_or(usize::MAX),
        );
        let mut targets = self.unresolved_targets(at, &column)?;
        let (mut parents, mut found) = (RowNumber::default(), self.no_values(reference));
        if let Some(parent) = reference.parent {
            parents = self.tables[parent].rows.range().end;
            found = self.in_delta(at, reference_index, parent, &mut targets).await?;
        }
        if self.catalog.guessed {
            // Without a target, these rows could still be in the key map or in production.
            self.tables[at].unverified_references.push(targets.give_up());
            self.tables[at].resolved.push(Resolved { targets, parents, found, named: Vec::new() });
            return Ok(());
        }
        // The first reference to the same row reports what is missing.
        let check = (reference.first == reference_index)
            .then(|| number(table, &|kind| *kind == CheckKind::Relationship { reference: reference_index }))
            .transpose()?;
        let offset = parents + found.len();
        let unresolved = self.find(at, reference_index, offset, &mut targets).await?;
        let found = concat(&[&found, &unresolved.values])?;
        for (row, target) in targets.iter() {
            let Some(check) = check else { break };
            if target != UNRESOLVED || self.tables[at].findings.skipped.contains(row) {
                continue;
            }
            match unresolved.why.get(&row) {
                Some(why) => self.tables[at].findings.add_text(table, check, row, why),
                None => self.tables[at].findings.add(table, check, row, ViolationDetail::None),
            }
        }
        // A reference with `by` is never resolved in the delta, so all values of `found` have a name.
        self.tables[at].resolved.push(Resolved { targets, parents, found, named: unresolved.named });
        Ok(())
    }

    /// Returns an empty array of the type of a reference's keys.
    fn no_values(&self, reference: &Reference) -> ArrayRef {
        let column = self.catalog.table(&reference.to).and_then(|to| to.column(&reference.give));
        new_empty_array(column.map_or(&DataType::Null, |column| &column.data_type))
    }

    /// Resolves references to rows of the delta. A row that is skipped because production has it stands for production's
    /// row, whose keys are returned.
    async fn in_delta(
        &self,
        at: TableIndex,
        reference_index: usize,
        parent: TableIndex,
        targets: &mut Targets,
    ) -> Result<ArrayRef> {
        let reference = &self.plan.tables[at].references[reference_index];
        let examined = &self.tables[parent];
        // One row per legacy key.
        let named = BuildSide { rows: &examined.rows, column: "_key", without: &examined.repeated };
        named.find(self.engine, &self.tables[at].rows, &reference.text_column(), targets).await?;
        let (skipped, existing) = (&examined.findings.skipped, &examined.existing);
        if skipped.is_empty() {
            return Ok(self.no_values(reference));
        }
        let values = examined.rows.range().end.through(existing.rows.len());
        let numbers: HashMap<RowNumber, RowNumber> = existing.rows.iter().zip(values).collect();
        for row in self.tables[at].rows.numbers() {
            let target = targets.of(row);
            if target < UNRESOLVED && skipped.contains(target) {
                targets.set(row, numbers.get(&target).copied().unwrap_or(UNRESOLVED));
            }
        }
        if existing.rows.is_empty() { Ok(self.no_values(reference)) } else { existing.values(&reference.give) }
    }

    fn unresolved_targets(&self, at: TableIndex, column: &str) -> Result<Targets> {
        let rows = &self.tables[at].rows;
        let mut targets = RowNumbers::with_capacity(rows.count());
        for batch in rows.batches(rows.columns(|name| name == column)) {
            let (_, batch) = batch?;
            let texts = batch.column_by_name(column).ok_or_else(|| Error::internal(format!("no column `{column}`")))?;
            targets.extend((0..texts.len()).map(|row| if texts.is_null(row) { NULL_REFERENCE } else { UNRESOLVED }));
        }
        Ok(Targets::new(rows.range().start, targets))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};

    use super::*;
    use crate::engine::row_numbers;

    /// The first rows of the tables that are tested: as of small tables, and beyond 32 bits.
    const FIRST: [RowNumber; 3] = [RowNumber::new(0), RowNumber::new((1 << 32) - 3), RowNumber::new((1 << 32) - 15)];

    /// What a row of the test refers to.
    #[derive(Debug, Clone, Copy)]
    enum To {
        Delta(usize),
        Production(usize),
        Null,
    }

    use To::{Delta, Null, Production};

    /// References of four rows of a table to a table of ten rows, both with this first row.
    fn resolved(first: RowNumber, values: [&str; 2], targets: [To; 4]) -> Resolved {
        let parents = first + 10;
        let targets = targets.map(|target| match target {
            Delta(row) => first + row,
            Production(value) => parents + value,
            Null => NULL_REFERENCE,
        });
        Resolved {
            targets: Targets::new(first, targets.into_iter().collect()),
            parents,
            found: Arc::new(StringArray::from(values.to_vec())),
            named: Vec::new(),
        }
    }

    #[test]
    fn hash_is_of_what_rows_refer_to() {
        let none = RowSet::default();
        for first in FIRST {
            let hash = |values, targets| resolved(first, values, targets).hash(&none).unwrap();
            let one = hash(["x", "yy"], [Delta(3), Production(0), Null, Production(1)]);
            let other = hash(["yy", "x"], [Delta(3), Production(1), Null, Production(0)]);
            assert_eq!(other, one, "answers come in any order");
            for (values, targets) in [
                (["x", "yy"], [Delta(4), Production(0), Null, Production(1)]),
                (["x", "yy"], [Delta(3), Production(1), Null, Production(0)]),
                (["x", "yy"], [Delta(3), Production(0), Production(1), Production(1)]),
                (["xy", "y"], [Delta(3), Production(0), Null, Production(1)]),
            ] {
                assert_ne!(hash(values, targets), one, "{targets:?}");
            }
            // A row that does not stay refers to nothing that is loaded.
            let without = RowSet::from_iter([first + 3]);
            let last = |value| {
                resolved(first, ["x", "yy"], [Delta(3), Production(0), Null, Production(value)]).hash(&without).unwrap()
            };
            assert_eq!(last(0), last(1));
        }
    }

    #[test]
    fn each_value_of_production_is_given_once_with_its_first_row() {
        for first in FIRST {
            let without = RowSet::from_iter([first + 1]);
            let resolved = resolved(first, ["x", "yy"], [Production(0), Production(1), Production(1), Production(1)]);
            let rows = resolved.referenced(&without).unwrap();
            assert!(row_numbers(rows.column(0)).eq([first, first + 2]));
            assert_eq!(rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("x"), Some("yy")]);
            assert_eq!(resolved.same_as(&[first + 2], &without), [first + 2, first + 3]);
        }
    }

    #[test]
    fn rows_get_the_keys_of_the_delta_and_of_production() {
        for first in FIRST {
            let resolved = resolved(first, ["x", "yy"], [Delta(9), Production(1), Null, Delta(0)]);
            let own = |parents: &Int64Array| -> Result<ArrayRef> {
                let key = |row: i64| format!("new {}", RowNumber::new(row.cast_unsigned()) - first);
                Ok(Arc::new(parents.iter().map(|row| row.map(key)).collect::<StringArray>()))
            };
            let keys = resolved.keys(first, 4, own).unwrap();
            let keys: Vec<_> = keys.as_string::<i32>().iter().collect();
            assert_eq!(keys, [Some("new 9"), Some("yy"), None, Some("new 0")]);
        }
    }
}

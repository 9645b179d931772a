//! Resolution of references to rows.
//!
//! A reference is resolved in the delta first, then in the key map's history. A reference with `by` is resolved only in
//! production. The result is an array over the rows: the number of a row of the delta, or of a value of production. Keys
//! are assigned later, by one `take`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_empty_array};
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
use crate::engine::RowSet;
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Reference};
use join::BuildSide;
use resolved::{NULL_REFERENCE, UNRESOLVED};

/// The rows that a table's rows refer to by one reference.
#[derive(Debug)]
pub struct Resolved {
    /// By row: below `parents` a row of the delta, above it an index into `found`, or a marker for no row.
    targets: Vec<u32>,
    parents: u32,
    found: ArrayRef,
    /// The values by which each value of `found` was looked up, and those that its condition tested, if the reference has `by`.
    named: Vec<ArrayRef>,
}

/// The number of bytes that are hashed in one piece. Larger pieces save calls for tables with many rows.
const HASHED_AT_ONCE: usize = 1 << 16;

impl Resolved {
    /// Returns the row of the delta that a row refers to.
    pub fn parent(&self, row: u32) -> Option<u32> {
        Some(self.targets[row as usize]).filter(|target| *target < self.parents)
    }

    /// Returns the keys of `count` rows from `first`. `own` returns the keys of rows of the delta.
    pub fn keys(
        &self,
        first: u32,
        count: usize,
        own: impl FnOnce(&UInt32Array) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        let parents: UInt32Array = (first..first + count as u32).map(|row| self.parent(row)).collect();
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
    pub fn in_production(&self, first: u32, count: usize) -> Result<ArrayRef> {
        let range = first as usize..first as usize + count;
        let found = |target: u32| (self.parents..UNRESOLVED).contains(&target).then(|| target - self.parents);
        let indices: UInt32Array = self.targets[range].iter().map(|target| found(*target)).collect();
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
            if !std::mem::replace(&mut seen[value as usize], true) && self.found.is_valid(value as usize) {
                rows.push(row);
                values.push(value);
            }
        }
        let values = UInt32Array::from(values);
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("_row".to_owned(), Arc::new(UInt32Array::from(rows))),
            ("key".to_owned(), take(&self.found, &values, None)?),
        ];
        for (at, named) in self.named.iter().enumerate() {
            columns.push((format!("named{at}"), take(named, &values, None)?));
        }
        Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))?)
    }

    /// Returns the rows, except for those in `without`, that refer to the same values of production as `rows`.
    pub fn same_as(&self, rows: &[u32], without: &RowSet) -> Vec<u32> {
        let wanted: HashSet<u32> = rows.iter().map(|row| self.targets[*row as usize]).collect();
        let is_wanted = |(row, value): (u32, u32)| wanted.contains(&(self.parents + value)).then_some(row);
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
        for (row, target) in self.targets.iter().enumerate().filter(|(row, _)| !without.contains(*row as u32)) {
            bytes.extend_from_slice(&(row as u32).to_le_bytes());
            match *target {
                NULL_REFERENCE | UNRESOLVED => bytes.push(0),
                parent if parent < self.parents => {
                    bytes.push(1);
                    bytes.extend_from_slice(&parent.to_le_bytes());
                }
                found => {
                    let value = values.row((found - self.parents) as usize);
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
    fn values<'a>(&'a self, without: &'a RowSet) -> impl Iterator<Item = (u32, u32)> + 'a {
        let targets = (0_u32..).zip(&self.targets);
        let found = targets.filter(|(_, target)| (self.parents..UNRESOLVED).contains(*target));
        found.filter(|(row, _)| !without.contains(*row)).map(|(row, target)| (row, target - self.parents))
    }
}

impl Checker<'_> {
    /// Resolves one reference of a table whose parent table has been checked.
    pub(super) async fn resolve(&mut self, at: usize, reference_index: usize) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let reference = &table.references[reference_index];
        let column = reference.text_column();
        let _check = self.about(
            at,
            table.check(|kind| *kind == CheckKind::Relationship { reference: reference_index }).unwrap_or(usize::MAX),
        );
        let mut targets = self.unresolved_targets(at, &column)?;
        let (mut parents, mut found) = (0, self.no_values(reference));
        if let Some(parent) = reference.parent {
            parents = self.tables[parent].rows.count();
            found = self.in_delta(at, reference_index, parent, &mut targets).await?;
        }
        if self.catalog.guessed {
            // Without a target, these rows could still be in the key map or in production.
            let missing = targets.iter_mut().filter(|target| **target == UNRESOLVED);
            self.tables[at].unverified_references.push(missing.map(|target| *target = NULL_REFERENCE).count() as u64);
            self.tables[at].resolved.push(Resolved { targets, parents, found, named: Vec::new() });
            return Ok(());
        }
        // The first reference to the same row reports what is missing.
        let check = (reference.first == reference_index)
            .then(|| number(table, &|kind| *kind == CheckKind::Relationship { reference: reference_index }))
            .transpose()?;
        let offset = parents + found.len() as u32;
        let unresolved = self.find(at, reference_index, offset, &mut targets).await?;
        let found = concat(&[&found, &unresolved.values])?;
        for (row, target) in targets.iter().enumerate() {
            let (row, Some(check)) = (row as u32, check) else { break };
            if *target != UNRESOLVED || self.tables[at].findings.skipped.contains(row) {
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
        at: usize,
        reference_index: usize,
        parent: usize,
        targets: &mut [u32],
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
        let numbers: HashMap<u32, u32> = existing.rows.iter().copied().zip(examined.rows.count()..).collect();
        for target in targets.iter_mut().filter(|target| **target < UNRESOLVED && skipped.contains(**target)) {
            *target = numbers.get(target).copied().unwrap_or(UNRESOLVED);
        }
        if existing.rows.is_empty() { Ok(self.no_values(reference)) } else { existing.values(&reference.give) }
    }

    fn unresolved_targets(&self, at: usize, column: &str) -> Result<Vec<u32>> {
        let rows = &self.tables[at].rows;
        let mut targets = Vec::with_capacity(rows.count() as usize);
        for batch in rows.batches(rows.columns(|name| name == column)) {
            let (_, batch) = batch?;
            let texts = batch.column_by_name(column).ok_or_else(|| Error::internal(format!("no column `{column}`")))?;
            targets.extend((0..texts.len()).map(|row| if texts.is_null(row) { NULL_REFERENCE } else { UNRESOLVED }));
        }
        Ok(targets)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::UInt32Type;

    use super::*;

    /// References of four rows: to a row of the delta, to a value of production, to nothing, and to another value.
    fn resolved(values: [&str; 2], targets: [u32; 4]) -> Resolved {
        Resolved {
            targets: targets.to_vec(),
            parents: 10,
            found: Arc::new(StringArray::from(values.to_vec())),
            named: Vec::new(),
        }
    }

    #[test]
    fn hash_is_of_what_rows_refer_to() {
        let none = RowSet::default();
        let one = resolved(["x", "yy"], [3, 10, NULL_REFERENCE, 11]).hash(&none).unwrap();
        assert_eq!(
            resolved(["yy", "x"], [3, 11, NULL_REFERENCE, 10]).hash(&none).unwrap(),
            one,
            "answers come in any order"
        );
        for other in [
            resolved(["x", "yy"], [4, 10, NULL_REFERENCE, 11]),
            resolved(["x", "yy"], [3, 11, NULL_REFERENCE, 10]),
            resolved(["x", "yy"], [3, 10, 11, 11]),
            resolved(["xy", "y"], [3, 10, NULL_REFERENCE, 11]),
        ] {
            assert_ne!(other.hash(&none).unwrap(), one, "{other:?}");
        }
        // A row that does not stay refers to nothing that is loaded.
        let mut without = RowSet::default();
        without.insert(3);
        let (x, yy) =
            (resolved(["x", "yy"], [3, 10, NULL_REFERENCE, 11]), resolved(["x", "yy"], [3, 10, NULL_REFERENCE, 10]));
        assert_eq!(x.hash(&without).unwrap(), yy.hash(&without).unwrap());
    }

    #[test]
    fn each_value_of_production_is_given_once_with_its_first_row() {
        let mut without = RowSet::default();
        without.insert(1);
        let resolved = resolved(["x", "yy"], [10, 11, 11, 11]);
        let rows = resolved.referenced(&without).unwrap();
        assert_eq!(rows.column(0).as_primitive::<UInt32Type>().values()[..], [0, 2]);
        assert_eq!(rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("x"), Some("yy")]);
        assert_eq!(resolved.same_as(&[2], &without), [2, 3]);
    }
}

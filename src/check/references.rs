//! Resolution of references to rows.
//!
//! A reference is resolved in the delta first, then in the key map's history. A reference with `by` is resolved only in
//! production. The result is an array over the rows: the number of a row of the delta, or of a value of production. Keys
//! are assigned later, by one `take`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array, new_empty_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{concat, filter, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use arrow::row::{RowConverter, SortField};

mod join;
mod resolved;

use super::set_checks::{number, typed};
use super::{Checker, ViolationDetail};
use crate::engine::{RowSet, RowsTable, Space, ident, list};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Reference, Table};
use crate::target::{CatalogTable, Lookup, Relation};
use join::BuildSide;
use resolved::{NULL_REFERENCE, UNRESOLVED, scatter};

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

    /// Resolves the remaining references: sends the distinct texts to the target, which answers by number.
    async fn find(&self, at: usize, reference_index: usize, offset: u32, targets: &mut [u32]) -> Result<Unresolved> {
        let reference = &self.plan.tables[at].references[reference_index];
        let mut unresolved = Unresolved { values: self.no_values(reference), named: Vec::new(), why: HashMap::new() };
        if !targets.contains(&UNRESOLVED) {
            return Ok(unresolved);
        }
        let column = reference.text_column();
        let mut resolved = RowSet::default();
        for (row, _) in targets.iter().enumerate().filter(|(_, target)| **target != UNRESOLVED) {
            resolved.insert(row as u32);
        }
        let rows = self.tables[at].rows.clone();
        self.engine.register(
            Space::Internal,
            "unresolved",
            RowsTable::new(rows, Arc::new(resolved), |name| name == column),
        )?;
        let text = ident(&column);
        let mut texts = Vec::new();
        self.engine
            .for_each(&format!("SELECT DISTINCT {text} AS text FROM internal.unresolved"), |batch| {
                texts.push(batch.column(0).clone());
                Ok(())
            })
            .await?;
        if texts.is_empty() {
            return Ok(unresolved);
        }
        let texts = concat(&texts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let (answers, why) = self.ask_for(reference, &texts).await?;
        // Map the answers, and the reasons for missing ones, back to the rows.
        let texts = texts.as_string::<i32>();
        let to_rows = async |numbers: Vec<u32>, ids: &[u32], each: &mut dyn FnMut(&RecordBatch) -> Result<()>| {
            let texts: ArrayRef =
                Arc::new(StringArray::from_iter_values(ids.iter().map(|id| texts.value(*id as usize))));
            let numbers: ArrayRef = Arc::new(UInt32Array::from(numbers));
            let answered = RecordBatch::try_from_iter([("_id", numbers), ("text", texts)])?;
            self.engine.register_batches(Space::Internal, "answered", answered.schema(), vec![answered])?;
            let sql = format!(
                "SELECT u._row, a._id FROM internal.answered a JOIN internal.unresolved u ON a.text = u.{text}"
            );
            self.engine.for_each(&sql, each).await
        };
        if !answers.ids.is_empty() {
            let numbers = (0..answers.ids.len() as u32).collect();
            to_rows(numbers, &answers.ids, &mut |batch| scatter(batch, targets, offset)).await?;
            (unresolved.values, unresolved.named) = (answers.values, answers.named);
        }
        if !why.is_empty() {
            let ids: Vec<u32> = why.keys().copied().collect();
            to_rows(ids.clone(), &ids, &mut |batch| {
                let (rows, ids) =
                    (batch.column(0).as_primitive::<UInt32Type>(), batch.column(1).as_primitive::<UInt32Type>());
                let whys =
                    rows.values().iter().zip(ids.values()).filter_map(|(row, id)| Some((*row, why.get(id)?.clone())));
                unresolved.why.extend(whys);
                Ok(())
            })
            .await?;
        }
        Ok(unresolved)
    }

    /// Queries the target for the keys of texts: through the key map and then production, from which the row may have been
    /// deleted, or in production by the column `by`.
    async fn ask_for(&self, reference: &Reference, texts: &ArrayRef) -> Result<(Answers, HashMap<u32, String>)> {
        let production = Relation::Production(reference.to.clone());
        let give = vec![reference.give.clone()];
        let to = self.catalog.table(&reference.to);
        let (question, mut why) = whole(reference, texts)?;
        let answers = match reference.by.as_slice() {
            [_, ..] => self.ask_by(reference, to, texts, &question).await?,
            [] => {
                let key = match reference.parent {
                    Some(parent) => self.plan.tables[parent].key.columns().to_vec(),
                    None => to.map(|to| to.primary_key.clone()).unwrap_or_default(),
                };
                let history =
                    Lookup::new(Relation::KeyMap(reference.to.clone()), vec!["legacy_key".into()], key.clone());
                let mapped = self.lookup(&history, &[question]).await?;
                let live = Lookup::new(production, key, give);
                let live = if mapped.is_empty() { Vec::new() } else { self.lookup(&live, &mapped).await? };
                let answers = Answers::new(&live, self.no_values(reference))?;
                for batch in &mapped {
                    let deleted = batch
                        .column(0)
                        .as_primitive::<UInt32Type>()
                        .values()
                        .iter()
                        .filter(|id| !answers.known.contains(**id));
                    let reason =
                        format!("in the key map, but its row of `{}` was deleted from production", reference.to);
                    why.extend(deleted.map(|id| (*id, reason.clone())));
                }
                answers
            }
        };
        let several = format!(
            "more than one row of `{}` has this {}",
            reference.to,
            if reference.by.is_empty() { "`legacy key`".to_owned() } else { list(&reference.by) }
        );
        why.extend(answers.ambiguous.iter().map(|id| (id, several.clone())));
        Ok((answers, why))
    }

    /// Queries production for the rows with these values in the columns `by`, for which the reference's condition is true.
    async fn ask_by(
        &self,
        reference: &Reference,
        to: Option<&Arc<CatalogTable>>,
        texts: &ArrayRef,
        question: &RecordBatch,
    ) -> Result<Answers> {
        let asked = parts_of(reference, texts, question, to)?;
        let mut give: Vec<String> = vec![reference.give.clone()];
        let tested = reference.condition.iter().flat_map(|condition| &condition.columns);
        give.extend(reference.by.iter().chain(tested.filter(|name| !reference.by.contains(name))).cloned());
        // Each column is read once, whatever its uses.
        let mut distinct = give.clone();
        distinct.sort();
        distinct.dedup();
        let lookup = Lookup::new(Relation::Production(reference.to.clone()), reference.by.clone(), distinct);
        let mut found = self.lookup(&lookup, &[asked]).await?;
        if let Some(condition) = &reference.condition {
            found = found.iter().map(|batch| self.only(&condition.sql, batch)).collect::<Result<_>>()?;
        }
        let wanted: Vec<RecordBatch> = found
            .iter()
            .map(|batch| {
                let place = |name: &String| batch.schema().index_of(name);
                let columns = std::iter::once(Ok(0)).chain(give.iter().map(place)).collect::<Result<Vec<_>, _>>()?;
                Ok(batch.project(&columns)?)
            })
            .collect::<Result<_>>()?;
        Answers::new(&wanted, self.no_values(reference))
    }

    /// Returns the answers for which a condition is true.
    fn only(&self, sql: &str, batch: &RecordBatch) -> Result<RecordBatch> {
        let expression = self.engine.expression(sql, &batch.schema()).map_err(Error::internal)?;
        let is_true = expression.evaluate(batch).map_err(|error| {
            Error::data(format!("cannot evaluate `where` ({sql}): {error}"))
                .hint("nothing was loaded; fix the condition")
        })?;
        Ok(filter_record_batch(batch, is_true.as_boolean())?)
    }

    /// Rejects the children of rejected rows, recursively within the table.
    pub(super) fn cascade(&mut self, at: usize) -> Result<()> {
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
            for row in 0..self.tables[at].rows.count() {
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
                        ViolationDetail::Row { table: parent as u32, row: target },
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
            let skipped: Vec<u32> = self.tables[at].findings.skipped.iter().collect();
            for child in skipped.iter().flat_map(|row| children.of(*row)) {
                if !self.tables[at].findings.skipped.contains(*child) {
                    self.tables[at].findings.add_text(table, check, *child, "the referenced row is skipped");
                }
            }
        }
        let mut waiting: Vec<u32> = self.tables[at].findings.rejected.iter().collect();
        while let Some(row) = waiting.pop() {
            for ((reference_index, check), children) in inside.iter().zip(&children) {
                for child in children.of(row) {
                    let known = self.tables[at].findings.rejected.contains(*child);
                    self.reject_with_parent(
                        at,
                        *reference_index,
                        *check,
                        *child,
                        ViolationDetail::Row { table: at as u32, row },
                    );
                    if !known && self.tables[at].findings.rejected.contains(*child) {
                        waiting.push(*child);
                    }
                }
            }
        }
        Ok(())
    }

    /// Rejects a row that refers to a skipped one, at most once per reference.
    fn reject_with_skipped(&mut self, at: usize, reference_index: usize, row: u32) -> Result<()> {
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
        at: usize,
        reference_index: usize,
        check: usize,
        row: u32,
        detail: ViolationDetail,
    ) {
        if !self.tables[at].findings.skipped.contains(row) && self.tables[at].cascaded[reference_index].insert(row) {
            self.tables[at].findings.add(&self.plan.tables[at], check, row, detail);
        }
    }

    /// Checks a foreign key that no relationship resolves: production or the delta must have the values.
    pub(super) async fn foreign_key(
        &mut self,
        at: usize,
        check: usize,
        columns: &[String],
        to: &str,
        to_columns: &[String],
    ) -> Result<()> {
        let table = &self.plan.tables[at];
        let _check = self.about(at, check);
        let names: Vec<_> = columns.iter().map(|name| ident(name)).collect();
        if !self.register_unknown(&table.name, &names, to, to_columns).await? {
            return Ok(());
        }
        let same = |other: &str, others: &[String]| {
            let pairs: Vec<_> =
                names.iter().zip(others).map(|(name, theirs)| format!("c.{name} = {other}.{theirs}")).collect();
            pairs.join(" AND ")
        };
        // An accepted row of the delta may also have the values, if the referenced table is loaded in the same run.
        let mut not_in_delta = String::new();
        if let Some(parent) = self.plan.position(to).filter(|parent| computes(&self.plan.tables[*parent], to_columns)) {
            let without = Arc::new(self.tables[parent].findings.excluded());
            let read = |name: &str| to_columns.iter().any(|column| column == name);
            let parents = RowsTable::new(self.tables[parent].rows.clone(), without, read);
            self.engine.register(Space::Internal, "parents", parents)?;
            let theirs: Vec<_> = to_columns.iter().map(|name| ident(name)).collect();
            not_in_delta = format!(" WHERE NOT EXISTS (SELECT 1 FROM internal.parents d WHERE {})", same("d", &theirs));
        }
        let child = ident(&table.name);
        let missing =
            format!("SELECT c._row FROM internal.unknown a JOIN {child} c ON {}{not_in_delta}", same("a", &names));
        let mut rows = RowSet::default();
        self.engine
            .for_each(&missing, |batch| {
                for row in batch.column(0).as_primitive::<UInt32Type>().values() {
                    rows.insert(*row);
                }
                Ok(())
            })
            .await?;
        let findings = &mut self.tables[at].findings;
        let failing: Vec<_> = rows.iter().filter(|row| !findings.skipped.contains(*row)).collect();
        for row in failing {
            findings.add(table, check, row, ViolationDetail::None);
        }
        Ok(())
    }

    /// Registers the distinct values of a foreign key that production does not have, as `internal.unknown`. Returns
    /// whether there are any.
    async fn register_unknown(&self, table: &str, names: &[String], to: &str, to_columns: &[String]) -> Result<bool> {
        let not_null: Vec<_> = names.iter().map(|name| format!("{name} IS NOT NULL")).collect();
        let (list, child, not_null) = (names.join(", "), ident(table), not_null.join(" AND "));
        let distinct = self.engine.collect(&format!("SELECT DISTINCT {list} FROM {child} WHERE {not_null}")).await?;
        let (mut questions, mut next) = (Vec::new(), 0_u32);
        for batch in distinct {
            let ids: ArrayRef = Arc::new(UInt32Array::from_iter_values(next..next + batch.num_rows() as u32));
            next += batch.num_rows() as u32;
            let mut fields = vec![Arc::new(Field::new("_id", DataType::UInt32, false))];
            fields.extend(batch.schema().fields().iter().cloned());
            let columns = std::iter::once(ids).chain(batch.columns().iter().cloned()).collect();
            questions.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        }
        let Some(schema) = questions.first().map(RecordBatch::schema) else { return Ok(false) };
        let lookup = Lookup::new(Relation::Production(to.to_owned()), to_columns.to_vec(), Vec::new());
        let mut known = RowSet::default();
        for answer in self.lookup(&lookup, &questions).await? {
            for id in answer.column(0).as_primitive::<UInt32Type>().values() {
                known.insert(*id);
            }
        }
        if known.count() == next as usize {
            return Ok(false);
        }
        let unknown = |question: &RecordBatch| {
            let ids = question.column(0).as_primitive::<UInt32Type>().values().iter();
            filter_record_batch(question, &ids.map(|id| Some(!known.contains(*id))).collect())
        };
        let unknown = questions.iter().map(unknown).collect::<Result<_, _>>()?;
        self.engine.register_batches(Space::Internal, "unknown", schema, unknown)?;
        Ok(true)
    }
}

/// The references that the delta does not resolve, after the target was queried.
struct Unresolved {
    /// Values of production.
    values: ArrayRef,
    /// The values by which they were looked up, and those that its condition tested, if the reference has `by`.
    named: Vec<ArrayRef>,
    /// By row, the reason for having no value, if there is more than the check's own.
    why: HashMap<u32, String>,
}

/// The target's answers to a question: for each text with exactly one value, its number and the value.
struct Answers {
    ids: Vec<u32>,
    values: ArrayRef,
    /// Further columns of the answers.
    named: Vec<ArrayRef>,
    known: RowSet,
    ambiguous: RowSet,
}

impl Answers {
    fn new(batches: &[RecordBatch], none: ArrayRef) -> Result<Self> {
        let (mut known, mut ambiguous) = (RowSet::default(), RowSet::default());
        let all = || batches.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt32Type>().values());
        for id in all() {
            if !known.insert(*id) {
                ambiguous.insert(*id);
            }
        }
        let ids = all().copied().filter(|id| !ambiguous.contains(*id)).collect();
        let single: BooleanArray = all().map(|id| Some(!ambiguous.contains(*id))).collect();
        let column = |at: usize| -> Result<ArrayRef> {
            let parts: Vec<_> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
            Ok(filter(&concat(&parts)?, &single)?)
        };
        let count = batches.first().map_or(0, RecordBatch::num_columns);
        let values = if batches.is_empty() { none } else { column(1)? };
        let named = (2..count).map(column).collect::<Result<_>>()?;
        Ok(Self { ids, values, named, known, ambiguous })
    }
}

/// Returns a question for texts, without those whose reference is NULL in part, and the reason for each of these.
fn whole(reference: &Reference, texts: &ArrayRef) -> Result<(RecordBatch, HashMap<u32, String>)> {
    let ids: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..texts.len() as u32));
    let question = RecordBatch::try_from_iter([("_id", ids), ("text", texts.clone())])?;
    let mut why = HashMap::new();
    if reference.parts > 1 {
        for (id, text) in (0_u32..).zip(texts.as_string::<i32>()) {
            if text.is_some_and(|text| parts(text).contains(&None)) {
                why.insert(id, "only a part of the reference is NULL".to_owned());
            }
        }
    }
    let is_whole = (0..texts.len() as u32).map(|id| Some(!why.contains_key(&id))).collect();
    Ok((filter_record_batch(&question, &is_whole)?, why))
}

/// Returns the question for production's columns `by`: the parts of each text, in the types of the columns.
fn parts_of(
    reference: &Reference,
    texts: &ArrayRef,
    question: &RecordBatch,
    to: Option<&Arc<CatalogTable>>,
) -> Result<RecordBatch> {
    let texts = texts.as_string::<i32>();
    let ids = question.column(0).as_primitive::<UInt32Type>().values();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(ids.len()); reference.by.len()];
    for id in ids {
        let text = texts.value(*id as usize);
        let values = if reference.parts > 1 { parts(text) } else { vec![Some(text.to_owned())] };
        for (column, value) in columns.iter_mut().zip(values.into_iter().chain(std::iter::repeat(None))) {
            column.push(value);
        }
    }
    let named = columns
        .into_iter()
        .enumerate()
        .map(|(at, values)| (format!("by{at}"), Arc::new(StringArray::from(values)) as ArrayRef, true));
    let ids = [("_id".to_owned(), question.column(0).clone(), false)];
    let mut asked = RecordBatch::try_from_iter_with_nullable(ids.into_iter().chain(named))?;
    for (at, name) in reference.by.iter().enumerate() {
        if let Some(column) = to.and_then(|to| to.column(name)) {
            asked = typed(&asked, 1 + at, column)?;
        }
    }
    Ok(asked)
}

/// Returns the parts of a text that joins several; None for a part that is NULL.
fn parts(text: &str) -> Vec<Option<String>> {
    let (mut parts, mut part, mut is_null) = (Vec::new(), String::new(), false);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '|' => parts.push((!std::mem::take(&mut is_null)).then(|| std::mem::take(&mut part))),
            '\\' => match chars.next() {
                Some('N') => is_null = true,
                next => part.extend(next),
            },
            char => part.push(char),
        }
    }
    parts.push((!is_null).then_some(part));
    parts
}

/// By row, the rows of the same table that refer to it.
struct Children {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Children {
    fn new(resolved: &Resolved) -> Self {
        let parent = |row: u32| resolved.parent(row).filter(|parent| *parent != row);
        let count = resolved.targets.len() as u32;
        let mut starts = vec![0; count as usize + 1];
        for target in (0..count).filter_map(parent) {
            starts[target as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; starts.last().copied().unwrap_or(0) as usize];
        for row in 0..count {
            if let Some(target) = parent(row) {
                rows[next[target as usize] as usize] = row;
                next[target as usize] += 1;
            }
        }
        Self { starts, rows }
    }

    fn of(&self, row: u32) -> &[u32] {
        &self.rows[self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize]
    }
}

/// Returns whether the rows of a table compute all of these columns.
fn computes(table: &Table, columns: &[String]) -> bool {
    columns.iter().all(|name| table.computed().any(|(column, _)| column.name == *name))
}

#[cfg(test)]
mod tests {
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
    fn a_text_of_several_parts_is_taken_apart_as_it_was_joined() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("a|b"), [some("a"), some("b")]);
        assert_eq!(parts("a\\|b|"), [some("a|b"), some("")]);
        assert_eq!(parts("\\\\N|\\N"), [some("\\N"), None]);
        assert_eq!(parts("\\N|c"), [None, some("c")]);
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

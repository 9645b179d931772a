//! Foreign keys that no relationship resolves.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;

use crate::check::{Checker, ViolationDetail};
use crate::engine::{RowNumber, RowSet, RowsTable, Space, ident, row_column, row_field, row_numbers};
use crate::error::Result;
use crate::plan::Table;
use crate::target::{Lookup, Relation, TableIndex};

impl Checker<'_> {
    /// Checks a foreign key that no relationship resolves: production or the delta must have the values.
    pub(in crate::check) async fn foreign_key(
        &mut self,
        at: TableIndex,
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
                for row in row_numbers(batch.column(0)) {
                    rows.insert(row);
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
        let (mut questions, mut next) = (Vec::new(), RowNumber::default());
        for batch in distinct {
            let ids = row_column(next, batch.num_rows());
            next = next + batch.num_rows();
            let mut fields = vec![Arc::new(row_field("_id"))];
            fields.extend(batch.schema().fields().iter().cloned());
            let columns = std::iter::once(ids).chain(batch.columns().iter().cloned()).collect();
            questions.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        }
        let Some(schema) = questions.first().map(RecordBatch::schema) else { return Ok(false) };
        let lookup = Lookup::new(Relation::Production(to.to_owned()), to_columns.to_vec(), Vec::new());
        let mut known = RowSet::default();
        for answer in self.lookup(&lookup, &questions).await? {
            for id in row_numbers(answer.column(0)) {
                known.insert(id);
            }
        }
        if known.count() as u64 == next.get() {
            return Ok(false);
        }
        let unknown = |question: &RecordBatch| {
            let ids = row_numbers(question.column(0));
            filter_record_batch(question, &ids.map(|id| Some(!known.contains(id))).collect())
        };
        let unknown = questions.iter().map(unknown).collect::<Result<_, _>>()?;
        self.engine.register_batches(Space::Internal, "unknown", schema, unknown)?;
        Ok(true)
    }
}

/// Returns whether the rows of a table compute all of these columns.
fn computes(table: &Table, columns: &[String]) -> bool {
    columns.iter().all(|name| table.computed().any(|(column, _)| column.name == *name))
}

//! Constraints that only production can evaluate: it is asked about the rows before anything is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use futures::{StreamExt, stream};

use super::{CheckedTable, Checker, ViolationDetail};
use crate::engine::{RowNumber, RowSet, display_value, row_column, row_field, row_numbers};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, ColumnSource, Table};
use crate::target::{
    Batches, DatabaseCheck, DatabaseCheckKind, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows,
    TableIndex, new_key_column,
};

impl Checker<'_> {
    /// Runs the checks that production judges: either those of columns with references, or all others.
    pub(super) async fn evaluated_by_production(&mut self, at: TableIndex, with_references: bool) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let reads_reference =
            |check: &DatabaseCheck| check.columns.iter().any(|column| table.reference(column).is_some());
        let checks = table.checks.iter().enumerate().filter_map(|(number, check)| match &check.kind {
            CheckKind::Database(check) if reads_reference(check) == with_references => Some((number, check)),
            _ => None,
        });
        let checks: Vec<_> = checks.collect();
        let Some((first, _)) = checks.first() else { return Ok(()) };
        let _check = self.about(at, *first);
        let filled: Vec<_> = table.columns.iter().map(|column| column.name.clone()).collect();
        // Rows may refer to new rows of this table or of an earlier one.
        let of_new = table.references.iter().filter(|reference| reference.parent.is_some() && reference.by.is_empty());
        let references: Vec<_> = of_new.map(|reference| reference.column.clone()).collect();
        let give = self.existing_columns(at);
        let asked: Vec<_> = checks.iter().map(|(_, check)| *check).collect();
        let question = DatabaseCheckRequest {
            table: &table.name,
            checks: &asked,
            filled: &filled,
            references: &references,
            give: &give,
        };
        let columns: Vec<_> = question.columns().cloned().collect();
        let rows = EvaluatedRows {
            table,
            checked: &self.tables[at],
            without: self.tables[at].findings.excluded(),
            columns: &columns,
            references: &references,
            beyond_ascii: asked.iter().all(|check| check.beyond_ascii),
        };
        let answers = self.target.evaluate_checks(&question, &rows).await?;
        let (conflicts, others): (Vec<_>, Vec<_>) = checks
            .into_iter()
            .zip(answers)
            .partition(|((_, check), _)| matches!(check.kind, DatabaseCheckKind::Exclusion { .. }));
        // A row conflicts only with rows that stay.
        for ((number, check), answer) in others.into_iter().chain(conflicts) {
            self.answered(at, number, check, &references, answer)?;
        }
        Ok(())
    }

    /// Records production's answer about one check.
    fn answered(
        &mut self,
        at: TableIndex,
        number: usize,
        check: &DatabaseCheck,
        references: &[String],
        answer: DatabaseCheckResult,
    ) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        if let Some(reason) = answer.unanswered {
            self.tables[at].unanswered.push(format!("{}: {} ({reason})", check.name, check.declared));
        }
        let unknown = self.unknown(at, check, references);
        for (row, text) in answer.rows.into_iter().filter(|(row, _)| !unknown.contains(*row)) {
            match text {
                Some(text) => self.tables[at].findings.add_text(table, number, row, &text),
                None => self.tables[at].findings.add(table, number, row, ViolationDetail::None),
            }
        }
        let groups: Vec<_> = answer.groups.into_iter().filter(|(row, _)| !unknown.contains(*row)).collect();
        self.duplicates(at, number, &groups);
        // Of rows that conflict, the earlier one stays.
        for (earlier, later) in answer.conflicts {
            let findings = &mut self.tables[at].findings;
            if !findings.rejected.contains(earlier) && !unknown.contains(earlier) && !unknown.contains(later) {
                findings.add(table, number, later, ViolationDetail::Row { table: at, row: earlier });
            }
        }
        for known in answer.existing {
            self.exists_in_production(at, number, check, &known)?;
        }
        Ok(())
    }

    /// Records rows that conflict with rows of production.
    fn exists_in_production(
        &mut self,
        at: TableIndex,
        number: usize,
        check: &DatabaseCheck,
        known: &RecordBatch,
    ) -> Result<()> {
        let table = &self.plan.tables[at];
        let keys = table.catalog.primary_key.len();
        let is_same = matches!(check.kind, DatabaseCheckKind::Unique { .. });
        let what = if is_same { "exists in production" } else { "conflicts with production" };
        let mut skipped = Vec::new();
        for (row, id) in row_numbers(known.column(0)).enumerate() {
            let key: Vec<_> = (1..=keys).map(|column| display_value(known.column(column), row)).collect();
            let text = format!("{what}: `{}` {}", table.name, key.join(", "));
            if is_same {
                skipped.push(self.exists(at, number, id, &text));
            } else {
                self.tables[at].findings.add_text(table, number, id, &text);
            }
        }
        if is_same {
            self.tables[at].existing.add(&filter_record_batch(known, &skipped.into())?);
        }
        Ok(())
    }

    /// Returns the rows about which production's answer says nothing, because the check reads the key of a new row. Equality of such keys
    /// is known.
    fn unknown(&self, at: TableIndex, check: &DatabaseCheck, references: &[String]) -> RowSet {
        let table = &self.plan.tables[at];
        let is_compared = |column: &String| match &check.kind {
            DatabaseCheckKind::Unique { values, .. } => {
                let (own, others): (Vec<_>, Vec<_>) =
                    values.iter().partition(|value| value.column.as_ref() == Some(column));
                !own.is_empty() && others.iter().all(|value| value.column.is_some())
            }
            _ => false,
        };
        let read = check.columns.iter().filter(|column| references.contains(column) && !is_compared(column));
        let read: Vec<_> = read.filter_map(|column| self.tables[at].resolved.get(table.reference(column)?)).collect();
        let mut unknown = RowSet::default();
        for row in self.tables[at].rows.numbers() {
            if read.iter().any(|resolved| resolved.parent(row).is_some()) {
                unknown.insert(row);
            }
        }
        unknown
    }
}

/// The rows of a question.
struct EvaluatedRows<'a> {
    table: &'a Table,
    checked: &'a CheckedTable,
    without: RowSet,
    columns: &'a [String],
    references: &'a [String],
    /// Whether rows with ASCII text alone are excluded.
    beyond_ascii: bool,
}

impl DatabaseCheckRows for EvaluatedRows<'_> {
    fn rows(&self) -> Result<Batches<'_>> {
        let rows = &self.checked.rows;
        let places = rows.columns(|name| self.columns.iter().any(|column| column == name));
        let batches = rows.batches(places).map(|batch| {
            let (first, batch) = batch?;
            let count = batch.num_rows();
            let rows = filter_record_batch(&self.batch(first, &batch)?, &self.without.others(first, count))?;
            Ok(if self.beyond_ascii { filter_record_batch(&rows, &beyond_ascii(&rows))? } else { rows })
        });
        Ok(stream::iter(batches).boxed())
    }
}

impl EvaluatedRows<'_> {
    fn batch(&self, first: RowNumber, batch: &RecordBatch) -> Result<RecordBatch> {
        let count = batch.num_rows();
        let numbers = row_column(first, count);
        let mut fields = vec![row_field("_row")];
        let mut arrays = vec![numbers];
        let fills: BTreeMap<_, _> = self.table.columns.iter().map(|column| (&column.name, &column.fill)).collect();
        for name in self.columns {
            let resolved = match fills.get(name) {
                Some(ColumnSource::Reference(reference)) => self.checked.resolved.get(*reference),
                _ => None,
            };
            let array = match resolved {
                Some(resolved) => resolved.in_production(first, count)?,
                None => batch
                    .column_by_name(name)
                    .cloned()
                    .ok_or_else(|| Error::internal(format!("a question about `{name}`, which nothing fills")))?,
            };
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
            if let Some(resolved) = resolved.filter(|_| self.references.contains(name)) {
                fields.push(Field::new(new_key_column(name), DataType::Int64, true));
                arrays.push(Arc::new(resolved.parents(first, count)));
            }
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}

/// Returns which rows have non-ASCII text in any column.
fn beyond_ascii(rows: &RecordBatch) -> BooleanArray {
    let texts: Vec<_> = rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>()).collect();
    let is_beyond = |row: usize| texts.iter().any(|text| text.is_valid(row) && !text.value(row).is_ascii());
    (0..rows.num_rows()).map(|row| Some(is_beyond(row))).collect()
}

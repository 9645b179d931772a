//! Checks of rows against each other, the key map, and production, decided by SQL over sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Int64Type, Schema};

use super::cast::kept;
use super::{Checker, Resolved, ViolationDetail};
use crate::engine::{
    Hashes, RowNumber, RowSet, RowsTable, Space, display_value, ident, row_column, row_field, row_numbers,
};
use crate::error::{Error, Kind, Result};
use crate::plan::{CheckKind, ColumnSource, Key, Table, Unique, rows_of};
use crate::spec::{Duplicates, ExistingRowPolicy};
use crate::target::{CatalogColumn, Lookup, Relation, TableIndex};

/// Letters for comparisons that ignore case: only ASCII, like SQLite's NOCASE.
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";

/// The maximum number of rows per query of the target.
const ROWS_A_QUESTION: usize = 1 << 19;

impl Checker<'_> {
    /// Finds rows that share a legacy key, and marks all but one of each group as repeated.
    pub(super) async fn legacy_key(&mut self, at: TableIndex) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let check = number(table, &|kind| *kind == CheckKind::LegacyKey)?;
        let _check = self.about(at, check);
        let found = self.groups(at, &["_key".to_owned()], &[], &RowSet::default()).await?;
        self.tables[at].repeated = self.duplicates(at, check, &found);
        let mut all = RowSet::default();
        for (row, _) in &found {
            all.insert(*row);
        }
        // Rows that do not stay are ignored by unique checks.
        self.tables[at].same_record = match table.duplicates {
            Duplicates::First => self.tables[at].repeated.clone(),
            Duplicates::Reject => all,
        };
        Ok(())
    }

    /// Finds rows that share the values of a unique constraint. Rows with a repeated legacy key are ignored.
    pub(super) async fn unique(&mut self, at: TableIndex, check: usize, unique: &Unique) -> Result<()> {
        let table = &self.plan.tables[at];
        let _check = self.about(at, check);
        let Unique { columns, ignore_case, .. } = unique;
        let columns: Vec<_> = columns.iter().map(|name| table.kept_column(name)).collect();
        let outside = self.outside(at, unique).await?;
        let others = self.tables[at].same_record.union(&outside);
        let found = self.groups(at, &columns, ignore_case, &others).await?;
        self.duplicates(at, check, &found);
        Ok(())
    }

    /// Returns the rows to which a unique constraint does not apply.
    async fn outside(&self, at: TableIndex, unique: &Unique) -> Result<RowSet> {
        let mut outside = RowSet::default();
        if let Some(condition) = &unique.condition {
            let table = ident(&self.plan.tables[at].name);
            let sql = format!("SELECT _row FROM {table} WHERE ({}) IS NOT TRUE", condition.sql);
            self.engine
                .for_each(&sql, |batch| {
                    for row in row_numbers(batch.column(0)) {
                        outside.insert(row);
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(outside)
    }

    /// Returns the rows of groups that share values, in order: a row, and the first row of its group.
    async fn groups(
        &self,
        at: TableIndex,
        columns: &[String],
        ignore_case: &[String],
        without: &RowSet,
    ) -> Result<Vec<(RowNumber, RowNumber)>> {
        let rows = &self.tables[at].rows;
        let wanted = |name: &str| columns.iter().any(|column| column == name);
        let places = rows.columns(wanted);
        let hashes = Hashes::new(rows, &places, without, self.engine.limits()).ignoring_case(ignore_case);
        let perhaps = hashes.repeated()?;
        if perhaps.is_empty() {
            return Ok(Vec::new());
        }
        // Few rows usually have the same hash; SQL decides whether they have the same values.
        let others = Arc::new(perhaps.inverted(rows.range()));
        self.engine.register(Space::Internal, "unique", RowsTable::new(rows.clone(), others, wanted))?;
        let table = "internal.unique";
        let compared = |of: &str| {
            let compared = columns.iter().map(move |name| match ignore_case.contains(name) {
                true => format!("translate({of}.{}, '{UPPER}', '{LOWER}')", ident(name)),
                false => format!("{of}.{}", ident(name)),
            });
            compared.collect::<Vec<_>>()
        };
        let named: Vec<_> = compared("i").iter().enumerate().map(|(at, key)| format!("{key} AS _k{at}")).collect();
        let there: Vec<_> = compared("i").iter().map(|key| format!("{key} IS NOT NULL")).collect();
        let same: Vec<_> = compared("t").iter().enumerate().map(|(at, key)| format!("{key} = d._k{at}")).collect();
        let sql = format!(
            "SELECT t._row, d._first FROM (
                 SELECT {named}, min(i._row) AS _first FROM {table} i WHERE {there} GROUP BY {keys} HAVING count(*) > 1
             ) d JOIN {table} t ON {same}",
            named = named.join(", "),
            there = there.join(" AND "),
            keys = compared("i").join(", "),
            same = same.join(" AND "),
        );
        let mut found = Vec::new();
        self.engine
            .for_each(&sql, |batch| {
                found.extend(row_numbers(batch.column(0)).zip(row_numbers(batch.column(1))));
                Ok(())
            })
            .await?;
        found.sort_unstable();
        Ok(found)
    }

    /// Records the duplicates of each group, each with another row of its group. Returns all rows except the one of each
    /// group that stays or could stay: the first without other violations.
    pub(super) fn duplicates(&mut self, at: TableIndex, check: usize, found: &[(RowNumber, RowNumber)]) -> RowSet {
        let table = &self.plan.tables[at];
        let mut groups: BTreeMap<RowNumber, Vec<RowNumber>> = BTreeMap::new();
        for (row, first) in found {
            groups.entry(*first).or_default().push(*row);
        }
        let mut repeated = RowSet::default();
        for rows in groups.values() {
            let findings = &mut self.tables[at].findings;
            let good = rows.iter().find(|row| !findings.rejected.contains(**row));
            let Some(stays) = good.or(rows.first()).copied() else { continue };
            for row in rows.iter().filter(|row| **row != stays) {
                repeated.insert(*row);
            }
            for (number, row) in rows.iter().enumerate() {
                let other = if number == 0 { rows.get(1) } else { rows.first() };
                let other = match table.duplicates {
                    // A row with other violations is not a duplicate of the row that stays.
                    Duplicates::First if *row == stays || findings.rejected.contains(*row) => continue,
                    Duplicates::First => stays,
                    Duplicates::Reject => other.copied().unwrap_or(stays),
                };
                findings.add(table, check, *row, ViolationDetail::Row { table: at, row: other });
            }
        }
        repeated
    }

    /// Finds rows whose legacy key is already in the key map.
    pub(super) async fn key_map(&mut self, at: TableIndex) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let Some(check) = table.check(|kind| *kind == CheckKind::KeyMap) else { return Ok(()) };
        let _check = self.about(at, check);
        let give: Vec<_> = table.key.columns().iter().cloned().chain(["run".to_owned()]).collect();
        let lookup = Lookup::new(Relation::KeyMap(table.name.clone()), vec!["legacy_key".into()], give);
        let rows = &self.tables[at].rows;
        let questions = rows.batches(rows.columns(|name| name == "_key")).map(|batch| {
            let (first, batch) = batch?;
            question(first, vec![("_key", batch.column(0).clone())])
        });
        for answer in self.ask(questions, &lookup).await? {
            let last = answer.num_columns() - 1;
            for (row, number) in row_numbers(answer.column(0)).enumerate() {
                let key: Vec<_> = (1..last).map(|column| display_value(answer.column(column), row)).collect();
                let text = format!(
                    "converted by run {}, with key {}",
                    display_value(answer.column(last), row),
                    key.join(", ")
                );
                self.exists(at, check, number, &text);
            }
        }
        Ok(())
    }

    /// Finds rows whose values production already has. Rows that refer to a new row cannot be among them.
    pub(super) async fn unique_in_production(&mut self, at: TableIndex, check: usize, unique: &Unique) -> Result<()> {
        let _check = self.about(at, check);
        let outside = self.outside(at, unique).await?;
        let plan = self.plan;
        let table = &plan.tables[at];
        let lookup = Lookup {
            place: Relation::Production(table.name.clone()),
            match_on: unique.columns.clone(),
            ignore_case: unique.ignore_case.clone(),
            condition: unique.condition.as_ref().map(|condition| condition.own.clone()),
            give: self.existing_columns(at),
        };
        let rows = &self.tables[at].rows;
        let read = rows.columns(|name| unique.columns.iter().any(|column| column == name));
        let questions = rows.batches(read).map(|batch| {
            let (first, batch) = batch?;
            let question = production_values(table, &self.tables[at].resolved, first, &batch, &unique.columns)?;
            if outside.is_empty() {
                return Ok(question);
            }
            let about: Vec<_> = row_numbers(question.column(0)).map(|row| !outside.contains(row)).collect();
            Ok(filter_record_batch(&question, &about.into())?)
        });
        let answers = self.ask(questions, &lookup).await?;
        let keys = table.catalog.primary_key.len();
        for answer in answers {
            let mut skipped = Vec::new();
            for (row, number) in row_numbers(answer.column(0)).enumerate() {
                let key: Vec<_> = (1..=keys).map(|column| display_value(answer.column(column), row)).collect();
                let text = format!("exists in production: `{}` {}", table.name, key.join(", "));
                skipped.push(self.exists(at, check, number, &text));
            }
            self.tables[at].existing.add(&filter_record_batch(&answer, &skipped.into())?);
        }
        Ok(())
    }

    /// Returns the columns to query of existing rows: the primary key, and columns that references read.
    pub(super) fn existing_columns(&self, at: TableIndex) -> Vec<String> {
        let table = &self.plan.tables[at];
        let mut wanted = table.catalog.primary_key.clone();
        for reference in self.plan.tables.iter().flat_map(|table| &table.references) {
            if reference.to == table.name && !wanted.contains(&reference.give) {
                wanted.push(reference.give.clone());
            }
        }
        wanted
    }

    /// Applies the policy for an existing row: skips it unless it has other violations, or rejects it. Returns whether the
    /// row is newly skipped.
    pub(super) fn exists(&mut self, at: TableIndex, check: usize, row: RowNumber, text: &str) -> bool {
        let table = &self.plan.tables[at];
        let findings = &mut self.tables[at].findings;
        match table.existing {
            ExistingRowPolicy::Skip => !findings.rejected.contains(row) && findings.skipped.insert(row),
            ExistingRowPolicy::Reject => {
                findings.add_text(table, check, row, text);
                false
            }
        }
    }

    /// Finds rows that a user's query returns.
    pub(super) async fn query(&mut self, at: TableIndex, check: usize, sql: &str) -> Result<()> {
        let plan = self.plan;
        let table = &plan.tables[at];
        let _check = self.about(at, check);
        let mut rows = RowSet::default();
        let (range, count) = (self.tables[at].rows.range(), self.tables[at].rows.count());
        let sql = rows_of(sql);
        let asked = self.engine.ask(&sql, |batch| {
            for (row, number) in
                batch.column(0).as_primitive::<Int64Type>().values().iter().zip(row_numbers(batch.column(0)))
            {
                if !range.contains(&number) {
                    return Err(Error::data(format!("it returned row {row}, but `{}` has {count} rows", table.name))
                        .hint(format!("select `_row` from `{}`, not from another table", table.name)));
                }
                rows.insert(number);
            }
            Ok(())
        });
        asked.await.map_err(|error| {
            // A computation that fails is the fault of the data or of the query.
            let error = if error.kind() == Kind::Internal { error.of_kind(Kind::Data) } else { error };
            error.doing(format!("check `{}` of `{}`", table.checks[check].name, table.name))
        })?;
        for row in rows.iter() {
            self.tables[at].findings.add(table, check, row, ViolationDetail::None);
        }
        Ok(())
    }

    /// Queries the target, in groups of questions.
    async fn ask(
        &self,
        questions: impl Iterator<Item = Result<RecordBatch>>,
        lookup: &Lookup,
    ) -> Result<Vec<RecordBatch>> {
        let (mut batches, mut waiting, mut answers) = (Vec::new(), 0, Vec::new());
        for question in questions {
            let question = question?;
            waiting += question.num_rows();
            batches.push(question);
            if waiting >= ROWS_A_QUESTION {
                answers.extend(self.lookup(lookup, &batches).await?);
                batches.clear();
                waiting = 0;
            }
        }
        if waiting > 0 {
            answers.extend(self.lookup(lookup, &batches).await?);
        }
        Ok(answers)
    }
}

/// Returns the index of a check.
pub(super) fn number(table: &Table, wanted: &dyn Fn(&CheckKind) -> bool) -> Result<usize> {
    table.check(wanted).ok_or_else(|| Error::internal("a check that every table has is missing"))
}

/// Returns the values of columns as in production, after `_id`, without rows that have a NULL or a key of this run.
fn production_values(
    table: &Table,
    resolved: &[Resolved],
    first: RowNumber,
    batch: &RecordBatch,
    columns: &[String],
) -> Result<RecordBatch> {
    let count = batch.num_rows();
    let mut values = Vec::with_capacity(columns.len());
    for name in columns {
        let column = table.columns.iter().find(|column| column.name == *name);
        let column = column.ok_or_else(|| Error::internal(format!("a look-up by `{name}`, which nothing fills")))?;
        let array = match &column.fill {
            ColumnSource::Reference(reference) => resolved[*reference].in_production(first, count)?,
            _ => batch.column_by_name(name).cloned().ok_or_else(|| Error::internal(format!("no column `{name}`")))?,
        };
        values.push((name.as_str(), array));
    }
    question(first, values)
}

/// Returns values after the numbers of their rows, as `_id`, without rows that have a NULL.
fn question(first: RowNumber, values: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let count = values.first().map_or(0, |(_, array)| array.len());
    let numbers = row_column(first, count);
    let mut fields = vec![row_field("_id")];
    fields.extend(values.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)));
    let nulls =
        values.iter().fold(None, |nulls, (_, array)| NullBuffer::union(nulls.as_ref(), array.logical_nulls().as_ref()));
    let columns = std::iter::once(numbers).chain(values.into_iter().map(|(_, array)| array)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => Ok(filter_record_batch(&batch, &BooleanArray::new(nulls.into_inner(), None))?),
        None => Ok(batch),
    }
}

/// Returns whether columns receive a new key in this run, so that production cannot have their values.
pub(super) fn is_new(table: &Table, columns: &[String]) -> bool {
    matches!(&table.key, Key::Assigned { column, .. } if columns.contains(column))
}

/// Casts texts to the type of a production column, for a lookup by it; invalid texts become NULL.
pub(super) fn typed(batch: &RecordBatch, column: usize, of: &CatalogColumn) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    // A precision that production does not declare says nothing about its rows.
    columns[column] = kept(&columns[column], &CatalogColumn { significant_digits: None, ..of.clone() })?.values;
    let mut fields: Vec<_> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[column] = Field::new(fields[column].name(), of.data_type.clone(), true);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

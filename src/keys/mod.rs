//! Keys: every accepted row gets its new key, and its references get the keys of the rows they refer to.
//!
//! Row numbers are dense over all rows in the order of files and lines. A key is the block's first number plus the number
//! of accepted rows before the row:
//!
//! ```text
//! row        0    1    2    3    4
//! accepted   yes  yes  no   yes  yes
//! key        1000 1001 NULL 1002 1003       block 1000 to 1003
//! ```
//!
//! The same delta therefore gets the same keys for any number of threads, and a reference is one `take` of its parent's
//! keys.

mod levels;
pub mod map;
mod offset;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{cast, concat, filter, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

pub use offset::{offset, written};

use crate::check::{CheckedTable, Resolved, rejects::accepted};
use crate::engine::{RankedRowSet, RowNumber, row_array, row_field};
use crate::error::{Error, Result};
use crate::plan::{Column, ColumnSource, Key, Plan, Table};
use crate::target::{KeyBlock, KeyRequest, TableIndex, key_map_schema};

/// Returns the keys that a table requests from the target; `None` if its rows bring their keys.
pub fn request(table: &Table, accepted: u64) -> Option<KeyRequest> {
    match &table.key {
        Key::Assigned { column, start, text, largest, sequence, .. } => Some(KeyRequest {
            table: table.name.clone(),
            column: column.clone(),
            start: *start,
            sequence: sequence.clone(),
            count: accepted,
            text: text.clone(),
            largest: *largest,
        }),
        _ => None,
    }
}

/// The new keys of all tables of a run, and the rows with their keys as production receives them.
///
/// An assigned key is a count of accepted rows, so it is computed on demand and not stored.
pub struct Keys<'a> {
    plan: &'a Plan,
    examined: &'a [CheckedTable],
    excluded: Vec<RankedRowSet>,
    /// By table, its block, if its keys are assigned.
    blocks: Vec<Option<KeyBlock>>,
    /// By table, the defaults of its accepted rows, if production's defaults are part of its key.
    defaults: Vec<Option<RecordBatch>>,
    /// By table and reference, the values by which rows of the delta are referred to, unless these are assigned.
    given: Vec<Vec<Option<ArrayRef>>>,
    /// By table whose rows refer to each other, the insertion levels.
    levels: Vec<Option<Vec<u32>>>,
}

impl<'a> Keys<'a> {
    /// Assigns keys from the blocks, one per table with assigned keys, and from production's defaults of the accepted rows.
    ///
    /// # Errors
    /// Returns an error if the work folder cannot be read.
    pub fn assign(
        plan: &'a Plan,
        examined: &'a [CheckedTable],
        blocks: &[Option<KeyBlock>],
        defaults: Vec<Option<RecordBatch>>,
    ) -> Result<Self> {
        let excluded = examined.iter().map(|table| table.findings.excluded().ranked()).collect();
        let blocks = blocks.to_vec();
        let mut keys = Self { plan, examined, excluded, blocks, defaults, given: Vec::new(), levels: Vec::new() };
        for (at, table) in TableIndex::enumerate(&plan.tables) {
            let mut given = Vec::new();
            for reference in &table.references {
                given.push(match reference.parent.filter(|_| reference.by.is_empty()) {
                    Some(parent) => keys.values(parent, &reference.give)?,
                    _ => None,
                });
            }
            keys.given.push(given);
            let found = &examined[at];
            let to_itself: Vec<usize> =
                (0..table.references.len()).filter(|which| table.refers_to_itself(at, *which)).collect();
            keys.levels.push((!to_itself.is_empty()).then(|| {
                let first = found.rows.range().start;
                levels::levels(found.rows.count(), |index| {
                    let row = first + index;
                    let parents = to_itself.iter().filter_map(|which| found.resolved[*which].parent(row));
                    parents.filter(|parent| *parent != row).map(|parent| parent.index(first)).collect()
                })
            }));
        }
        Ok(keys)
    }

    /// Returns the keys of rows of a table, in a block that begins at `first`.
    fn offset(&self, at: TableIndex, rows: &Int64Array, first: i64, step: i64) -> Int64Array {
        offset(&self.excluded[at], self.examined[at].rows.range().start, rows, first, step)
    }

    /// Returns production's defaults of a column for rows of a table; NULL for rejected and skipped rows.
    fn evaluated(&self, at: TableIndex, column: &str, rows: &Int64Array) -> Result<ArrayRef> {
        let values = self.defaults[at].as_ref().and_then(|defaults| defaults.column_by_name(column));
        let values = values.ok_or_else(|| Error::internal(format!("the default of `{column}` was not computed")))?;
        Ok(take(values, &self.offset(at, rows, 0, 1), None)?)
    }

    /// Returns the assigned keys of rows of a table, as production stores them; NULL for rejected and skipped rows.
    fn assigned(&self, at: TableIndex, rows: &Int64Array) -> Result<ArrayRef> {
        let table = &self.plan.tables[at];
        let (Key::Assigned { column, text, .. }, Some(block)) = (&table.key, &self.blocks[at]) else {
            return Err(Error::internal(format!("`{}` has no assigned keys", table.name)));
        };
        let data_type = table.catalog.column(column).map_or(DataType::Int64, |column| column.data_type.clone());
        written(&self.offset(at, rows, block.first, block.step), text.as_ref(), &data_type)
    }

    /// Returns the values of a referenced column for all rows of a table, by their numbers; None if they are assigned, and so computed on
    /// demand.
    fn values(&self, at: TableIndex, name: &str) -> Result<Option<ArrayRef>> {
        let table = &self.plan.tables[at];
        let rows = &self.examined[at].rows;
        let mut parts = Vec::new();
        match table.columns.iter().find(|column| column.name == name).map(|column| &column.fill) {
            Some(ColumnSource::Key | ColumnSource::Default) => return Ok(None),
            Some(ColumnSource::Reference(which)) => {
                if self.given.len() <= at.get() {
                    return Err(Error::pipeline(format!(
                        "the key of `{}` is made of the key of a table that refers to it",
                        table.name
                    ))
                    .hint("load one of the two tables in a separate pipeline"));
                }
                for (first, count) in rows.stretches() {
                    parts.push(self.referred(at, *which, first, count)?);
                }
            }
            Some(ColumnSource::Computed(_)) | None => {
                for batch in rows.batches(rows.columns(|column| column == name)) {
                    parts.extend(batch?.1.column_by_name(name).cloned());
                }
            }
        }
        Ok(Some(match parts.is_empty() {
            true => new_null_array(&DataType::Null, 0),
            false => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        }))
    }

    /// Returns the assigned values of a referenced column for rows of a table.
    fn on_demand(&self, at: TableIndex, name: &str, rows: &Int64Array) -> Result<ArrayRef> {
        match &self.plan.tables[at].key {
            Key::Assigned { column, .. } if column == name => self.assigned(at, rows),
            _ => self.evaluated(at, name, rows),
        }
    }

    /// Returns the accepted rows of a table as production receives them: `_row` and the destination's columns, in order.
    pub fn rows(&self, at: TableIndex) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + '_> {
        let rows = &self.examined[at].rows;
        let wanted: Vec<_> = self.plan.tables[at].columns.iter().collect();
        let computed = |name: &str| self.plan.tables[at].computed().any(|(column, _)| column.name == name);
        Ok(rows.batches(rows.columns(computed)).map(move |batch| {
            let (first, batch) = batch?;
            self.finished(at, first, &batch, &wanted)
        }))
    }

    /// Returns a batch of [`Keys::rows`] as it is staged: with `_level` after `_row` if rows of the table refer to each other.
    pub fn staged(&self, at: TableIndex, batch: RecordBatch) -> Result<RecordBatch> {
        match &self.levels[at] {
            Some(levels) => levels::with_level(&batch, self.examined[at].rows.range().start, levels),
            None => Ok(batch),
        }
    }

    /// Returns the key map of a table: `_row`, `legacy_key`, and the key's columns, in order.
    pub fn map(&self, at: TableIndex) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + '_> {
        let destination = self.plan.tables[at].destination();
        let schema = key_map_schema(&destination);
        let columns = &self.plan.tables[at].columns;
        let of_key = |name: &String| columns.iter().find(|column| column.name == *name);
        let wanted: Vec<_> = destination.key.iter().filter_map(of_key).collect();
        let rows = &self.examined[at].rows;
        let read = rows.columns(|name| name == "_key" || destination.key.iter().any(|column| column == name));
        Ok(rows.batches(read).map(move |batch| {
            let (first, batch) = batch?;
            let legacy = batch.column_by_name("_key").cloned().ok_or_else(|| Error::internal("no column `_key`"))?;
            let legacy = filter(&legacy, &self.excluded[at].mask().others(first, batch.num_rows()))?;
            let mut columns = self.finished(at, first, &batch, &wanted)?.columns().to_vec();
            columns.insert(1, legacy);
            Ok(RecordBatch::try_new(schema.clone(), columns)?)
        }))
    }

    /// Returns the distinct rows of production that a column of a table refers to; see [`Resolved::referenced`].
    ///
    /// # Errors
    /// Returns an error if no reference fills the column.
    pub fn referenced(&self, at: TableIndex, column: &str) -> Result<RecordBatch> {
        let table = &self.plan.tables[at];
        let rows = self.resolved(at, column)?.referenced(self.excluded[at].mask())?;
        let others: Vec<_> = table.reference(column).into_iter().flat_map(|which| table.others_of(which)).collect();
        if others.is_empty() {
            return Ok(rows);
        }
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("_row".to_owned(), rows.column(0).clone()), ("key".to_owned(), rows.column(1).clone())];
        for (place, other) in others.into_iter().enumerate() {
            columns.push((format!("key{}", place + 1), self.examined[at].resolved[other].of_rows(rows.column(0))?));
        }
        let named = rows.columns()[2..].iter().enumerate();
        columns.extend(named.map(|(at, named)| (format!("named{at}"), named.clone())));
        Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))?)
    }

    /// Returns the accepted rows that refer by a column to the same rows as `rows`.
    ///
    /// # Errors
    /// Returns an error if no reference fills the column.
    pub fn referring(&self, at: TableIndex, column: &str, rows: &[RowNumber]) -> Result<Vec<RowNumber>> {
        Ok(self.resolved(at, column)?.same_as(rows, self.excluded[at].mask()))
    }

    fn resolved(&self, at: TableIndex, column: &str) -> Result<&Resolved> {
        let which = self.plan.tables[at].reference(column);
        let resolved = which.and_then(|which| self.examined[at].resolved.get(which));
        resolved
            .ok_or_else(|| Error::internal(format!("`{column}` of `{}` is not a reference", self.plan.tables[at].name)))
    }

    /// Returns the accepted rows of a batch: `_row` and the requested columns.
    fn finished(
        &self,
        at: TableIndex,
        first: RowNumber,
        batch: &RecordBatch,
        wanted: &[&Column],
    ) -> Result<RecordBatch> {
        let count = batch.num_rows();
        let _keys = tracing::info_span!("put keys in", of = self.plan.tables[at].name, rows = count).entered();
        let numbers = Arc::new(row_array(first.through(count)));
        let mut columns: Vec<ArrayRef> = vec![numbers.clone()];
        for column in wanted {
            let values = match &column.fill {
                ColumnSource::Computed(_) => batch.column_by_name(&column.name).cloned(),
                ColumnSource::Key => Some(self.assigned(at, &numbers)?),
                ColumnSource::Default => Some(self.evaluated(at, &column.name, &numbers)?),
                ColumnSource::Reference(which) => {
                    Some(cast(&self.referred(at, *which, first, count)?, &column.data_type)?)
                }
            };
            columns.push(values.ok_or_else(|| Error::internal(format!("nothing fills `{}`", column.name)))?);
        }
        accepted(&RecordBatch::try_new(schema_of(wanted), columns)?, self.excluded[at].mask(), first)
    }

    /// Returns the keys that rows of a table refer to by one of its references.
    fn referred(&self, at: TableIndex, which: usize, first: RowNumber, count: usize) -> Result<ArrayRef> {
        let resolved = &self.examined[at].resolved[which];
        let reference = &self.plan.tables[at].references[which];
        resolved.keys(first, count, |parents| {
            let keys = match (&self.given[at][which], reference.parent) {
                (Some(given), Some(parent)) => {
                    let start = self.examined[parent].rows.range().start.get().cast_signed();
                    take(given, &parents.unary::<_, Int64Type>(|row| row - start), None)?
                }
                (None, Some(parent)) => self.on_demand(parent, &reference.give, parents)?,
                (_, None) => return Err(Error::internal("a row of the delta without a table")),
            };
            Ok(cast(&keys, resolved.found().data_type())?)
        })
    }
}

/// Returns the schema of [`Keys::rows`].
pub fn schema(table: &Table) -> SchemaRef {
    schema_of(&table.columns.iter().collect::<Vec<_>>())
}

fn schema_of(columns: &[&Column]) -> SchemaRef {
    let columns = columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true));
    Arc::new(Schema::new(std::iter::once(row_field("_row")).chain(columns).collect::<Vec<_>>()))
}

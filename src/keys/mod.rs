//! Keys: every accepted row gets its new system key, and its references get theirs.
//!
//! Row numbers are dense over all rows in the order of files and lines. The accepted ones among them are counted, and the
//! block's first number is added:
//!
//! ```text
//! row        0    1    2    3    4
//! accepted   yes  yes  no   yes  yes
//! key        1000 1001 NULL 1002 1003       block 1000 to 1003
//! ```
//!
//! So the same delta gets the same keys at any number of threads, and a reference is one `take` of its parent's keys.

mod levels;
pub mod map;
mod offset;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use offset::{offset, written};

use crate::check::{Examined, rejects::accepted};
use crate::engine::Mask;
use crate::error::{Error, Result};
use crate::plan::{Column, Fill, Key, Plan, Table};
use crate::target::{Block, KeyRequest, key_map_schema};

/// What a table asks of the target: None where its rows bring their keys.
pub fn request(table: &Table, accepted: u64) -> Option<KeyRequest> {
    match &table.key {
        Key::Assigned { column, start, text, largest } => Some(KeyRequest {
            table: table.name.clone(),
            column: column.clone(),
            start: *start,
            count: accepted,
            text: text.clone(),
            largest: *largest,
        }),
        _ => None,
    }
}

/// The new keys of all tables of a run, and through them the rows as production gets them.
pub struct Keys<'a> {
    plan: &'a Plan,
    examined: &'a [Examined],
    kept_out: Vec<Mask>,
    /// By table, the assigned keys of all its rows; NULL for those that are kept out.
    assigned: Vec<Option<ArrayRef>>,
    /// By table and reference, the parent's keys.
    parents: Vec<Vec<ArrayRef>>,
    /// By table whose rows refer to each other, the order of insertion.
    levels: Vec<Option<Vec<u32>>>,
}

impl<'a> Keys<'a> {
    /// Assigns keys out of the blocks, one a table that has assigned keys.
    ///
    /// # Errors
    /// Where the work folder cannot be read.
    pub fn assign(plan: &'a Plan, examined: &'a [Examined], blocks: &[Option<Block>]) -> Result<Self> {
        let kept_out: Vec<Mask> = examined.iter().map(|table| table.findings.kept_out()).collect();
        let mut assigned = Vec::with_capacity(plan.tables.len());
        for (at, table) in plan.tables.iter().enumerate() {
            assigned.push(match (&table.key, &blocks[at]) {
                (Key::Assigned { column, text, .. }, Some(block)) => {
                    let data_type =
                        table.catalog.column(column).map_or(DataType::Int64, |column| column.data_type.clone());
                    Some(written(
                        &offset(&kept_out[at], examined[at].rows.count(), block.first),
                        text.as_ref(),
                        &data_type,
                    )?)
                }
                _ => None,
            });
        }
        let mut keys = Self { plan, examined, kept_out, assigned, parents: Vec::new(), levels: Vec::new() };
        for (at, table) in plan.tables.iter().enumerate() {
            let mut parents = Vec::new();
            for (which, reference) in table.references.iter().enumerate() {
                let data_type = examined[at].resolved[which].found().data_type();
                parents.push(match reference.parent.filter(|_| reference.by.is_none()) {
                    Some(parent) => cast(&keys.values(parent, &reference.give)?, data_type)?,
                    None => new_null_array(data_type, 0),
                });
            }
            keys.parents.push(parents);
            let found = &examined[at];
            let to_itself: Vec<usize> =
                (0..table.references.len()).filter(|which| table.refers_to_itself(at, *which)).collect();
            keys.levels.push((!to_itself.is_empty()).then(|| {
                levels::levels(found.rows.count(), |row| {
                    to_itself
                        .iter()
                        .filter_map(|which| found.resolved[*which].parent(row))
                        .filter(|parent| *parent != row)
                        .collect()
                })
            }));
        }
        Ok(keys)
    }

    /// The values of a column that others refer to, for all rows of a table.
    fn values(&self, at: usize, column: &str) -> Result<ArrayRef> {
        let table = &self.plan.tables[at];
        if let (Key::Assigned { column: key, .. }, Some(keys)) = (&table.key, &self.assigned[at])
            && key == column
        {
            return Ok(keys.clone());
        }
        let mut parts = Vec::new();
        for batch in self.examined[at].rows.batches()? {
            let (_, batch) = batch?;
            parts.extend(batch.column_by_name(column).cloned());
        }
        match parts.is_empty() {
            true => Ok(new_null_array(&DataType::Null, 0)),
            false => Ok(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?),
        }
    }

    /// The accepted rows of a table as production gets them: `_row` and the destination's columns, in order.
    pub fn rows(&self, at: usize) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + '_> {
        Ok(self.examined[at].rows.batches()?.map(move |batch| {
            let (first, batch) = batch?;
            self.finished(at, first, &batch)
        }))
    }

    /// A batch of [`Keys::rows`] as it is staged: with `_level` behind `_row` where rows of the table refer to each other.
    pub fn staged(&self, at: usize, batch: RecordBatch) -> Result<RecordBatch> {
        match &self.levels[at] {
            Some(levels) => levels::with_level(&batch, levels),
            None => Ok(batch),
        }
    }

    /// The key map of a table: `_row`, `legacy_key` and the key's columns, in order.
    pub fn map(&self, at: usize) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + '_> {
        let destination = self.plan.tables[at].destination();
        let schema = key_map_schema(&destination);
        Ok(self.examined[at].rows.batches()?.map(move |batch| {
            let (first, batch) = batch?;
            let legacy = batch.column_by_name("_key").cloned().ok_or_else(|| Error::internal("no column `_key`"))?;
            let mut columns = vec![numbers(first, batch.num_rows()), legacy];
            for name in &destination.key {
                let column = self.plan.tables[at].columns.iter().find(|column| column.name == *name);
                columns.extend(column.map(|column| self.filled(at, column, first, &batch)).transpose()?);
            }
            let accepted = self.kept_out[at].others(first, batch.num_rows());
            let columns = columns.iter().map(|values| arrow::compute::filter(values, &accepted));
            Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)?)
        }))
    }

    fn finished(&self, at: usize, first: u32, batch: &RecordBatch) -> Result<RecordBatch> {
        let table = &self.plan.tables[at];
        let mut columns = vec![numbers(first, batch.num_rows())];
        for column in &table.columns {
            columns.push(self.filled(at, column, first, batch)?);
        }
        accepted(&RecordBatch::try_new(schema(table), columns)?, &self.kept_out[at], first)
    }

    /// The values of a column in the rows of a batch.
    fn filled(&self, at: usize, column: &Column, first: u32, batch: &RecordBatch) -> Result<ArrayRef> {
        let count = batch.num_rows();
        let values = match &column.fill {
            Fill::Computed(_) => batch.column_by_name(&column.name).cloned(),
            Fill::Key => self.assigned[at].as_ref().map(|keys| keys.slice(first as usize, count)),
            Fill::Reference(which) => {
                let keys = self.examined[at].resolved[*which].keys(&self.parents[at][*which], first, count)?;
                Some(cast(&keys, &column.data_type)?)
            }
        };
        values.ok_or_else(|| Error::internal(format!("nothing fills `{}`", column.name)))
    }
}

/// The numbers of the rows of a batch.
fn numbers(first: u32, count: usize) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(first..first + count as u32))
}

/// The columns of [`Keys::rows`].
pub fn schema(table: &Table) -> SchemaRef {
    let columns = table.columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true));
    Arc::new(Schema::new(
        std::iter::once(Field::new("_row", DataType::UInt32, false)).chain(columns).collect::<Vec<_>>(),
    ))
}

/// The row numbers of a batch of [`Keys::rows`].
pub fn row_numbers(batch: &RecordBatch) -> &[u32] {
    batch.column(0).as_primitive::<arrow::datatypes::UInt32Type>().values()
}

//! The direct path: the tables whose rows are inserted into production without staging. Their rows are compared with the delta and mapped
//! in one pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use futures::executor::block_on_stream;
use futures::{Stream, StreamExt};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use super::batches::{Inserting, unlike_its_column};
use super::rollback::{CONTENT, RowFingerprint};
use super::storage_values::StorageBatch;
use super::values::Collector;
use super::{Names, columns_of_p, key_map};
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::spec::{ForeignKeys, LoadSpec, Staging};
use crate::target::difference::difference;
use crate::target::references::{Distinct, References};
use crate::target::{Batches, Destination, InsertError, RowSource};

const AHEAD: usize = 2;

/// Returns which tables need no staging. Their keys are a block of integers, by which their rows are found again, and no later check needs
/// staged rows. If any table has triggers, inserted rows may change until the commit, so none is eligible.
pub(super) fn eligible(
    spec: &LoadSpec,
    destinations: &[Destination],
    keys: &BTreeMap<String, (String, String)>,
) -> Vec<bool> {
    let none_fires = destinations.iter().all(|destination| destination.table.triggers.is_empty());
    let may = |destination: &Destination| {
        let Destination { table, key, assigned, self_referencing, .. } = destination;
        let in_order = !self_referencing || spec.foreign_keys == ForeignKeys::SetBased;
        let is_indexed = table.primary_key == *key || table.uniques.iter().any(|unique| unique.columns == *key);
        let is_key = assigned.as_ref().is_some_and(|assigned| *key == [assigned.column.as_str()]);
        is_key && keys.contains_key(&table.name) && !destination.has_free_values() && in_order && is_indexed
    };
    let wanted = spec.staging == Staging::WhenNeeded && none_fires;
    destinations.iter().map(|destination| wanted && may(destination)).collect()
}

/// Processes items while another thread produces the next ones.
pub(super) fn ahead<T: Send, E>(
    things: impl Stream<Item = T> + Send + Unpin,
    mut work: impl FnMut(T) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || block_on_stream(things).try_for_each(|thing| sender.send(thing)).ok());
        receiver.into_iter().try_for_each(&mut work)
    })
}

pub(super) struct DirectPath<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    pub(super) destination: &'a Destination,
    pub(super) keys: &'a (String, String),
}

impl DirectPath<'_> {
    /// Inserts rows as they arrive, and collects what they refer to if references are checked as a set.
    pub(super) fn insert(
        &self,
        rows: Batches<'_>,
        references: &mut Option<References>,
        refused: &dyn Fn(&rusqlite::Error) -> InsertError,
    ) -> Result<u64, InsertError> {
        let _insert = tracing::info_span!("insert", of = self.destination.table.name).entered();
        let columns: Vec<_> = self.destination.columns.iter().map(|name| ident(name)).collect();
        // OR ABORT overrides production's own ON CONFLICT: REPLACE would delete rows, and IGNORE would lose some.
        let into = format!("OR ABORT INTO main.{} ({})", ident(&self.destination.table.name), columns.join(", "));
        let inserting = Inserting::new(&into, columns.len(), "");
        let stored = rows.map(|batch| {
            let batch = batch?;
            if let Some(references) = references.as_mut() {
                references.add(&batch)?;
            }
            StorageBatch::of_batch(&self.destination.columns_alone(&batch)?)
        });
        let mut count = 0;
        ahead(stored, |stored| {
            let stored = stored?;
            inserting.insert(self.connection, &stored, refused)?;
            count += stored.rows() as u64;
            Ok::<_, InsertError>(())
        })?;
        Ok(count)
    }

    /// Reads the inserted rows back in order of their keys, compares them with the delta, and appends their mappings with row hashes.
    /// Nothing changes the rows from here on.
    pub(super) fn map(
        &self,
        run: &str,
        at: usize,
        delta: &dyn RowSource,
        refused: &dyn Fn(&rusqlite::Error) -> InsertError,
    ) -> Result<u64, InsertError> {
        let fault = |error: rusqlite::Error| self.names.error("cannot read", &error);
        let destination = self.destination;
        let table = &destination.table.name;
        let _map = tracing::info_span!("append key map", of = table).entered();
        let content = RowFingerprint::of(self.connection, table, &destination.columns).map_err(fault)?;
        let key = destination.key.first().map(|key| ident(key)).unwrap_or_default();
        let sql = format!(
            "SELECT 1{}{} FROM main.{} AS p WHERE p.{key} BETWEEN {} AND {} ORDER BY p.{key}",
            columns_of_p(&destination.columns),
            columns_of_p(content.others()),
            ident(table),
            self.keys.0,
            self.keys.1
        );
        let mut statement = self.connection.prepare(&sql).map_err(fault)?;
        let mut there = ProductionReader { rows: statement.raw_query(), names: self.names, content };
        let mut content = there.content.clone();
        let keys: Vec<_> = destination.key.iter().map(|name| ident(name)).collect();
        let into = format!(
            "INTO main.{} (legacy_key, {}, {CONTENT}, segment)",
            Names::mappings(&destination.table.key_map),
            keys.join(", ")
        );
        let number = key_map::number(self.connection, &destination.table.key_map, run).map_err(fault)?;
        let inserting = Inserting::new(&into, keys.len() + 2, &number.to_string());
        let expected = delta.expected_rows(at)?.zip(delta.key_map(at)?);
        let expected = expected.map(|(expected, mappings)| ExpectedBatch::try_new(expected?, &mappings?, &mut content));
        let mut count = 0;
        ahead(expected, |expected| {
            let mut expected = expected?;
            let contents = there.next(&expected)?.map_err(|how| delta.mismatch_error(at, &how))?;
            expected.mappings.push(contents);
            inserting.insert(self.connection, &expected.mappings, refused)?;
            count += expected.mappings.rows() as u64;
            Ok::<_, InsertError>(())
        })?;
        if there.rows.next().map_err(fault)?.is_some() {
            return Err(delta.mismatch_error(at, "there are more rows").into());
        }
        Ok(count)
    }

    /// Returns whether every row of production that the rows refer to exists.
    pub(super) fn answered(&self, references: References) -> Result<bool> {
        let fault = |error: rusqlite::Error| self.names.error("cannot look for referenced rows in", &error);
        for Distinct { foreign_key, rows } in references.distinct()? {
            let reference = &self.destination.table.foreign_keys[foreign_key];
            let same: Vec<_> = reference.to_columns.iter().map(|name| format!("{} = ?", ident(name))).collect();
            let sql = format!("SELECT 1 FROM main.{} WHERE {}", ident(&reference.to), same.join(" AND "));
            let mut statement = self.connection.prepare(&sql).map_err(fault)?;
            let stored = StorageBatch::of(&rows.columns()[rows.num_columns() - reference.columns.len()..])?;
            for row in 0..stored.rows() {
                if !is_there(&mut statement, &stored, row).map_err(fault)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Returns whether a statement finds a row by keys.
pub(super) fn is_there(statement: &mut Statement<'_>, keys: &StorageBatch, row: usize) -> rusqlite::Result<bool> {
    for column in 0..keys.columns() {
        statement.raw_bind_parameter(column + 1, ToSqlOutput::Borrowed(keys.value(column, row)))?;
    }
    Ok(statement.raw_query().next()?.is_some())
}

struct ExpectedBatch {
    rows: RecordBatch,
    stored: StorageBatch,
    mappings: StorageBatch,
    /// The hash of each row, if the delta has all of its columns.
    contents: Option<Vec<i64>>,
}

impl ExpectedBatch {
    fn try_new(rows: RecordBatch, mappings: &RecordBatch, content: &mut RowFingerprint) -> Result<Self> {
        let stored = StorageBatch::of(&rows.columns()[1..])?;
        let is_all = content.others().is_empty();
        let hash = |row| content.hash(|place| Ok::<_, Error>(stored.value(place - 1, row)));
        let contents = is_all.then(|| (0..stored.rows()).map(hash).collect::<Result<_>>()).transpose()?;
        Ok(Self { mappings: StorageBatch::of(&mappings.columns()[1..])?, rows, stored, contents })
    }
}

/// A reader of the inserted rows of production.
struct ProductionReader<'a> {
    rows: rusqlite::Rows<'a>,
    names: &'a Names,
    content: RowFingerprint,
}

impl ProductionReader<'_> {
    /// Returns the hashes of as many rows as expected, or in words how the rows differ. A value that is stored in another notation is read
    /// as its column's type.
    fn next(&mut self, expected: &ExpectedBatch) -> Result<Result<Int64Array, String>> {
        let _read = tracing::info_span!("read back batch", rows = expected.stored.rows()).entered();
        let fault = |error: rusqlite::Error| self.names.error("cannot read", &error);
        let columns = expected.stored.columns();
        let mut contents = Vec::with_capacity(expected.stored.rows());
        let mut others = Mismatches::default();
        for row in 0..expected.stored.rows() {
            let Some(there) = self.rows.next().map_err(fault)? else { return Ok(Err("rows are missing".to_owned())) };
            let mut as_written = true;
            for column in 0..columns {
                as_written = as_written && expected.stored.is(column, row, there.get_ref(column + 1).map_err(fault)?);
            }
            let content = expected.contents.as_ref().filter(|_| as_written).map(|contents| contents[row]);
            contents.push(match content {
                Some(content) => content,
                None => self.content.hash(|place| there.get_ref(place)).map_err(fault)?,
            });
            if !as_written {
                others.push(expected, row, |column| there.get_ref(column + 1).map_err(fault))?;
            }
        }
        Ok(others.difference(expected)?.map_or_else(|| Ok(Int64Array::from(contents)), Err))
    }
}

/// Rows that are not stored bit for bit as they were written.
#[derive(Default)]
struct Mismatches {
    numbers: Vec<u32>,
    found: Option<Collector>,
}

impl Mismatches {
    fn push<'a>(
        &mut self,
        expected: &ExpectedBatch,
        row: usize,
        value: impl Fn(usize) -> Result<ValueRef<'a>>,
    ) -> Result<()> {
        let schema = expected.rows.schema();
        let columns: Vec<usize> = (1..schema.fields().len()).collect();
        let collector = match &mut self.found {
            Some(collector) => collector,
            None => self.found.insert(Collector::try_new(Arc::new(schema.project(&columns)?))?),
        };
        for column in columns {
            collector
                .push(column - 1, value(column - 1)?)
                .map_err(|problem| unlike_its_column(schema.field(column).name(), &problem))?;
        }
        self.numbers.push(row as u32);
        Ok(())
    }

    /// Describes how they differ from the expected rows.
    fn difference(self, expected: &ExpectedBatch) -> Result<Option<String>> {
        let Some(found) = self.found else { return Ok(None) };
        let expected = take_record_batch(&expected.rows, &UInt32Array::from(self.numbers))?;
        let found = found.finish()?;
        let columns = std::iter::once(expected.column(0).clone()).chain(found.columns().iter().cloned());
        difference(&[RecordBatch::try_new(expected.schema(), columns.collect())?], &expected)
    }
}

//! The direct path: the tables whose rows are inserted into production without staging. Their rows are compared with the delta and mapped
//! in one pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{Int64Array, RecordBatch, UInt64Array};
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
use crate::target::{Batches, CatalogTable, Destination, InsertError, RowSource, TableIndex, UniqueConstraint};

const AHEAD: usize = 2;

/// Returns which tables need no staging. Each has a key that production keeps unique, and that is known before the rows are inserted, so
/// that they are found again. No later check needs staged rows. If any table has triggers, inserted rows may change until the commit, so none is eligible.
pub(super) fn eligible(
    spec: &LoadSpec,
    destinations: &[Destination],
    keys: &BTreeMap<String, (String, String)>,
) -> Vec<bool> {
    let none_fires = destinations.iter().all(|destination| destination.table.triggers.is_empty());
    let may = |destination: &Destination| {
        let Destination { table, key, self_referencing, .. } = destination;
        let in_order = !self_referencing || spec.foreign_keys == ForeignKeys::SetBased;
        let is_whole = |unique: &UniqueConstraint| unique.condition.is_none() && unique.columns == *key;
        let is_indexed = table.primary_key == *key || table.uniques.iter().any(is_whole);
        let is_block = is_block(destination) && keys.contains_key(&table.name);
        let is_given = !key.is_empty() && key.iter().all(|name| destination.columns.contains(name));
        (is_block || is_given) && !destination.has_free_values() && in_order && is_indexed
    };
    let wanted = spec.staging == Staging::WhenNeeded && none_fires;
    destinations.iter().map(|destination| wanted && may(destination)).collect()
}

/// Returns whether the key of each row is the number that it was assigned.
pub(super) fn is_block(destination: &Destination) -> bool {
    destination.assigned.as_ref().is_some_and(|assigned| destination.key == [assigned.column.as_str()])
}

/// How the inserted rows of a table are found again.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Their keys are a block, from the first to the last.
    Block(String, String),
    /// They follow a rowid, in the order of the delta: the name by which SQL reads rowids, and that rowid.
    Behind(&'static str, i64),
    /// By their keys, one by one.
    ByKey,
}

impl Place {
    /// Looks at a table before rows without a block of keys are inserted.
    pub(super) fn before(connection: &Connection, table: &CatalogTable) -> rusqlite::Result<Self> {
        let sql = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1";
        let is_keyed: bool = connection.query_row(sql, [&table.name], |row| row.get(0))?;
        // The rowid is the key then, and the delta has its rows in another order.
        let integer = |key: &String| table.column(key).is_some_and(|key| key.declared.eq_ignore_ascii_case("integer"));
        let is_alias = matches!(table.primary_key.as_slice(), [key] if integer(key));
        let is_free = |name: &&str| !table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(is_free) else { return Ok(Self::ByKey) };
        if is_keyed || is_alias {
            return Ok(Self::ByKey);
        }
        let sql = format!("SELECT coalesce(max(p.{rowid}), 0) FROM main.{} AS p", ident(&table.name));
        let last: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        // After the largest rowid, SQLite takes free ones at random.
        Ok(if last < i64::MAX / 2 { Self::Behind(rowid, last) } else { Self::ByKey })
    }

    /// Returns SQL that selects the rows `p`, in the order of the delta or one by one.
    fn condition(&self, key: &[String]) -> String {
        let first = key.first().map(|key| ident(key)).unwrap_or_default();
        match self {
            Self::Block(from, to) => format!("p.{first} BETWEEN {from} AND {to} ORDER BY p.{first}"),
            Self::Behind(rowid, last) => format!("p.{rowid} > {last} ORDER BY p.{rowid}"),
            Self::ByKey => key.iter().map(|key| format!("p.{} = ?", ident(key))).collect::<Vec<_>>().join(" AND "),
        }
    }
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
    pub(super) place: &'a Place,
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
        at: TableIndex,
        delta: &dyn RowSource,
        refused: &dyn Fn(&rusqlite::Error) -> InsertError,
    ) -> Result<u64, InsertError> {
        let fault = |error: rusqlite::Error| self.names.error("cannot read", &error);
        let destination = self.destination;
        let table = &destination.table.name;
        let _map = tracing::info_span!("append key map", of = table).entered();
        let content = RowFingerprint::of(self.connection, table, &destination.columns).map_err(fault)?;
        let sql = format!(
            "SELECT 1{}{} FROM main.{} AS p WHERE {}",
            columns_of_p(&destination.columns),
            columns_of_p(content.others()),
            ident(table),
            self.place.condition(&destination.key)
        );
        let mut statement = self.connection.prepare(&sql).map_err(fault)?;
        let rows = match self.place {
            Place::ByKey => {
                let place = |name: &String| destination.columns.iter().position(|column| column == name);
                InsertedRows::ByKey(
                    self.connection.prepare(&sql).map_err(fault)?,
                    destination.key.iter().filter_map(place).collect(),
                )
            }
            _ => InsertedRows::InOrder(statement.raw_query()),
        };
        let mut there = ProductionReader { rows, names: self.names, content };
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
        if let InsertedRows::InOrder(rows) = &mut there.rows
            && rows.next().map_err(fault)?.is_some()
        {
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

/// The inserted rows, as a query returns them.
enum InsertedRows<'a> {
    /// All of them, in the order of the delta.
    InOrder(rusqlite::Rows<'a>),
    /// One by one, and the places of its key among the columns of a row.
    ByKey(Statement<'a>, Vec<usize>),
}

/// A reader of the inserted rows of production.
struct ProductionReader<'a> {
    rows: InsertedRows<'a>,
    names: &'a Names,
    content: RowFingerprint,
}

impl ProductionReader<'_> {
    /// Returns the hashes of as many rows as expected, or in words how the rows differ. A value that is stored in another notation is read
    /// as its column's type.
    fn next(&mut self, expected: &ExpectedBatch) -> Result<Result<Int64Array, String>> {
        let _read = tracing::info_span!("read back batch", rows = expected.stored.rows()).entered();
        let fault = |error: rusqlite::Error| self.names.error("cannot read", &error);
        let mut contents = Vec::with_capacity(expected.stored.rows());
        let mut others = Mismatches::default();
        let Self { rows, content, .. } = self;
        for row in 0..expected.stored.rows() {
            let hash = match rows {
                InsertedRows::InOrder(rows) => {
                    let there = rows.next().map_err(fault)?;
                    there.map(|there| others.compare(expected, row, there, content, &fault)).transpose()?
                }
                InsertedRows::ByKey(statement, key) => {
                    for (at, column) in key.iter().enumerate() {
                        let value = ToSqlOutput::Borrowed(expected.stored.value(*column, row));
                        statement.raw_bind_parameter(at + 1, value).map_err(fault)?;
                    }
                    let mut rows = statement.raw_query();
                    let there = rows.next().map_err(fault)?;
                    there.map(|there| others.compare(expected, row, there, content, &fault)).transpose()?
                }
            };
            let Some(hash) = hash else { return Ok(Err("rows are missing".to_owned())) };
            contents.push(hash);
        }
        Ok(others.difference(expected)?.map_or_else(|| Ok(Int64Array::from(contents)), Err))
    }
}

/// Rows that are not stored bit for bit as they were written.
#[derive(Default)]
struct Mismatches {
    numbers: Vec<u64>,
    found: Option<Collector>,
}

impl Mismatches {
    /// Compares a row with the expected one, and returns its hash.
    fn compare(
        &mut self,
        expected: &ExpectedBatch,
        row: usize,
        there: &rusqlite::Row<'_>,
        content: &mut RowFingerprint,
        fault: &dyn Fn(rusqlite::Error) -> Error,
    ) -> Result<i64> {
        let mut as_written = true;
        for column in 0..expected.stored.columns() {
            as_written = as_written && expected.stored.is(column, row, there.get_ref(column + 1).map_err(fault)?);
        }
        let hash = match expected.contents.as_ref().filter(|_| as_written) {
            Some(contents) => contents[row],
            None => content.hash(|place| there.get_ref(place)).map_err(fault)?,
        };
        if !as_written {
            self.push(expected, row, |column| there.get_ref(column + 1).map_err(fault))?;
        }
        Ok(hash)
    }

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
        self.numbers.push(row as u64);
        Ok(())
    }

    /// Describes how they differ from the expected rows.
    fn difference(self, expected: &ExpectedBatch) -> Result<Option<String>> {
        let Some(found) = self.found else { return Ok(None) };
        let expected = take_record_batch(&expected.rows, &UInt64Array::from(self.numbers))?;
        let found = found.finish()?;
        let columns = std::iter::once(expected.column(0).clone()).chain(found.columns().iter().cloned());
        difference(&[RecordBatch::try_new(expected.schema(), columns.collect())?], &expected)
    }
}

//! Rows that go straight into production, without staging them first: which tables may have theirs inserted so, and how what is there is
//! held against the delta and mapped, in one reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::executor::block_on_stream;
use futures::{Stream, StreamExt};
use rusqlite::{Connection, Statement};

use super::batches::{Inserting, unlike_its_column};
use super::rollback::{CONTENT, Content};
use super::values::{self, Collector};
use super::{Names, columns_of_p};
use crate::engine::{ident, literal};
use crate::error::{Error, Result};
use crate::spec::{ForeignKeys, LoadSpec, Staging};
use crate::target::difference::difference;
use crate::target::references::{Distinct, References};
use crate::target::{Batches, Delta, Destination, Stopped};

/// Batches that are made ahead while earlier ones are worked on.
const AHEAD: usize = 2;

/// Which tables need no staging: their keys are a block of integers, by which their rows are found again, and no check asks again what no
/// constraint keeps true. Where anything fires triggers, what is inserted may change until the commit: then none.
pub(super) fn straight(
    spec: &LoadSpec,
    destinations: &[Destination],
    keys: &BTreeMap<String, (String, String)>,
) -> Vec<bool> {
    let none_fires = destinations.iter().all(|destination| destination.table.triggers.is_empty());
    let may = |destination: &Destination| {
        let Destination { table, key, levelled, promises, .. } = destination;
        let in_order = !levelled || spec.foreign_keys == ForeignKeys::SetBased;
        let is_indexed = table.primary_key == *key || table.uniques.iter().any(|unique| unique.columns == *key);
        keys.contains_key(&table.name) && promises.is_empty() && in_order && is_indexed
    };
    let wanted = spec.staging == Staging::WhenNeeded && none_fires;
    destinations.iter().map(|destination| wanted && may(destination)).collect()
}

/// Works on things that another thread makes meanwhile.
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

/// One table whose rows go straight.
pub(super) struct Straight<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    pub(super) destination: &'a Destination,
    /// The first and the last key of its block.
    pub(super) keys: &'a (String, String),
}

impl Straight<'_> {
    /// Inserts rows as they come; what they refer to is noted where that is looked at as a set.
    pub(super) fn insert(
        &self,
        rows: Batches<'_>,
        references: &mut Option<References>,
        refused: &dyn Fn(&rusqlite::Error) -> Stopped,
    ) -> Result<u64, Stopped> {
        let _insert = tracing::info_span!("insert", of = self.destination.table.name).entered();
        let columns: Vec<_> = self.destination.columns.iter().map(|name| ident(name)).collect();
        // OR ABORT: a constraint of production's own that says ON CONFLICT REPLACE would delete rows, and IGNORE lose some.
        let into = format!("OR ABORT INTO main.{} ({})", ident(&self.destination.table.name), columns.join(", "));
        let inserting = Inserting::new(&into, columns.len(), "");
        let mut count = 0;
        ahead(rows, |batch| {
            let batch = batch?;
            if let Some(references) = references {
                references.add(&batch)?;
            }
            inserting.insert(self.connection, &self.destination.columns_alone(&batch)?, refused)?;
            count += batch.num_rows() as u64;
            Ok::<_, Stopped>(())
        })?;
        Ok(count)
    }

    /// Reads the inserted rows back in order of their keys, holds them against the delta, and appends their mappings, each with what its
    /// row is. Nothing changes the rows from here on.
    pub(super) fn map(
        &self,
        run: &str,
        at: usize,
        delta: &dyn Delta,
        refused: &dyn Fn(&rusqlite::Error) -> Stopped,
    ) -> Result<u64, Stopped> {
        let fault = |error: rusqlite::Error| self.names.error("cannot read", &error);
        let destination = self.destination;
        let table = &destination.table.name;
        let _map = tracing::info_span!("append key map", of = table).entered();
        let content = Content::of(self.connection, table, &destination.columns).map_err(fault)?;
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
        let mut there = There { rows: statement.raw_query(), names: self.names, content };
        let keys: Vec<_> = destination.key.iter().map(|name| ident(name)).collect();
        let into = format!("INTO main.{} (legacy_key, {}, {CONTENT}, run)", Names::history(table), keys.join(", "));
        let inserting = Inserting::new(&into, keys.len() + 2, &literal(run));
        let mut count = 0;
        ahead(delta.meant(at)?.zip(delta.key_map(at)?), |(meant, mappings)| {
            let (meant, mappings) = (meant?, mappings?);
            let (found, contents) = there.next(&meant)?;
            if let Some(how) = difference(&[found], &meant)? {
                return Err(delta.differs(at, &how).into());
            }
            let mut fields: Vec<_> = mappings.schema().fields().iter().skip(1).cloned().collect();
            fields.push(Arc::new(Field::new(CONTENT, DataType::Int64, false)));
            let columns = mappings.columns().iter().skip(1).cloned().chain([Arc::new(contents) as ArrayRef]);
            let mappings =
                RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect()).map_err(Error::from)?;
            inserting.insert(self.connection, &mappings, refused)?;
            count += mappings.num_rows() as u64;
            Ok::<_, Stopped>(())
        })?;
        if there.rows.next().map_err(fault)?.is_some() {
            return Err(delta.differs(at, "there are more rows").into());
        }
        Ok(count)
    }

    /// Whether every row of production that the rows refer to is there.
    pub(super) fn answered(&self, references: References) -> Result<bool> {
        let fault = |error: rusqlite::Error| self.names.error("cannot look for referenced rows in", &error);
        for Distinct { foreign_key, rows } in references.distinct()? {
            let reference = &self.destination.table.foreign_keys[foreign_key];
            let same: Vec<_> = reference.to_columns.iter().map(|name| format!("{} = ?", ident(name))).collect();
            let sql = format!("SELECT 1 FROM main.{} WHERE {}", ident(&reference.to), same.join(" AND "));
            let mut statement = self.connection.prepare(&sql).map_err(fault)?;
            let columns = &rows.columns()[rows.num_columns() - reference.columns.len()..];
            for row in 0..rows.num_rows() {
                if !is_there(&mut statement, columns, row, &fault)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn is_there(
    statement: &mut Statement<'_>,
    columns: &[ArrayRef],
    row: usize,
    fault: &dyn Fn(rusqlite::Error) -> Error,
) -> Result<bool> {
    for (at, column) in columns.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, values::cell(column.as_ref(), row)?).map_err(fault)?;
    }
    Ok(statement.raw_query().next().map_err(fault)?.is_some())
}

/// Rows of production as they are read back.
struct There<'a> {
    rows: rusqlite::Rows<'a>,
    names: &'a Names,
    content: Content,
}

impl There<'_> {
    /// The next rows, as many as were meant and with their numbers, and what each one is; fewer at the end.
    fn next(&mut self, meant: &RecordBatch) -> Result<(RecordBatch, Int64Array)> {
        let _read = tracing::info_span!("read back batch", rows = meant.num_rows()).entered();
        let fault = |error: rusqlite::Error| self.names.error("cannot read", &error);
        let schema = meant.schema();
        let columns: Vec<usize> = (1..meant.num_columns()).collect();
        let mut collector = Collector::try_new(Arc::new(schema.project(&columns)?))?;
        let mut contents = Vec::with_capacity(meant.num_rows());
        while contents.len() < meant.num_rows()
            && let Some(row) = self.rows.next().map_err(fault)?
        {
            for at in &columns {
                let value = row.get_ref(*at).map_err(fault)?;
                collector
                    .push(at - 1, value)
                    .map_err(|problem| unlike_its_column(schema.field(*at).name(), &problem))?;
            }
            contents.push(self.content.hash(row).map_err(fault)?);
        }
        let numbers = meant.column(0).slice(0, contents.len());
        let found = std::iter::once(numbers).chain(collector.finish()?.columns().iter().cloned()).collect();
        Ok((RecordBatch::try_new(schema, found)?, Int64Array::from(contents)))
    }
}

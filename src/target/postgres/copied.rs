//! The rows that a load has copied into a table, found again although their keys are no block.
//!
//! COPY writes rows one after the other, and mostly to new pages at the end of the table. There they are read in the order of the delta,
//! without an index. Rows that fill gaps in earlier pages, or that a trigger has rewritten, are looked up by their keys.

use std::collections::VecDeque;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::row::{RowConverter, Rows, SortField};
use futures::StreamExt;
use tokio_postgres::{Client, Error as PgError};

use super::connect::Connector;
use super::copy::{self, CopyColumn};
use super::lookup::literal_rows;
use super::reading::{numbered, unnumbered};
use super::staging::Staged;
use crate::engine::{RowSet, ident, literal, row_numbers};
use crate::error::{Error, Result};
use crate::target::difference::difference;
use crate::target::{Batches, Destination};

/// Rows that are looked up with one query.
const KEYS: usize = 4096;

/// The marks that distinguish the rows of a load from all others of their table.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    /// The transaction that writes them, as rows name it.
    transaction: String,
    /// The page at which the table ended before, where the server can read a table from a page on.
    page: Option<i64>,
}

impl Copied {
    /// Looks at a table before rows are copied into it, by their own transaction.
    pub(super) async fn before(client: &Client, table: &str) -> Result<Self, PgError> {
        let sql = "SELECT (pg_current_xact_id()::xid)::text, CASE
                WHEN c.relkind = 'r' AND m.amname = 'heap' AND current_setting('server_version_num')::integer >= 140000
                THEN greatest(pg_relation_size(c.oid) / current_setting('block_size')::bigint - 1, 0) END
            FROM pg_class AS c LEFT JOIN pg_am AS m ON m.oid = c.relam WHERE c.oid = $1::text::regclass";
        let row = client.query_one(sql, &[&table]).await?;
        Ok(Self { transaction: row.get(0), page: row.get(1) })
    }
}

/// A comparison of copied rows with the expected ones.
pub(super) struct Comparison<'a> {
    pub(super) connector: &'a Connector,
    pub(super) client: &'a Client,
    pub(super) staged: Staged<'a>,
    pub(super) copied: &'a Copied,
    /// Returns a batch of the delta in the order in which it was copied.
    pub(super) arranged: &'a (dyn Fn(RecordBatch) -> Result<RecordBatch> + Sync),
}

impl Comparison<'_> {
    /// Returns the first difference in words. `expected` returns the rows of the delta, which have `_row` first.
    pub(super) async fn run<'e>(&self, expected: &(dyn Fn() -> Result<Batches<'e>> + Sync)) -> Result<Option<String>> {
        let mut elsewhere = RowSet::default();
        if let Some(how) = self.compare_in_order(expected()?, &mut elsewhere).await? {
            return Ok(Some(how));
        }
        if elsewhere.is_empty() {
            return Ok(None);
        }
        let mut batches = expected()?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let wanted: BooleanArray =
                row_numbers(batch.column(0)).map(|number| Some(elsewhere.contains(number))).collect();
            let batch = filter_record_batch(&batch, &wanted)?;
            for first in (0..batch.num_rows()).step_by(KEYS) {
                let part = batch.slice(first, KEYS.min(batch.num_rows() - first));
                if let Some(how) = self.compare_by_key(&part).await? {
                    return Ok(Some(how));
                }
            }
        }
        Ok(None)
    }

    fn destination(&self) -> &Destination {
        self.staged.destination
    }

    fn columns(&self) -> Vec<CopyColumn> {
        self.destination().columns.iter().map(|name| self.staged.wire(name)).collect()
    }

    fn wanted(&self) -> String {
        self.columns().iter().map(|column| column.read("p")).collect::<Vec<_>>().join(", ")
    }

    /// Compares the rows in new pages with the expected ones. Rows that are not found there go to `elsewhere`.
    async fn compare_in_order(&self, mut expected: Batches<'_>, elsewhere: &mut RowSet) -> Result<Option<String>> {
        let mut there = match self.copied.page {
            Some(page) => {
                let query = format!(
                    "SELECT {} FROM {} AS p WHERE p.ctid >= '({page},0)'::tid AND p.xmin = {}::xid",
                    self.wanted(),
                    self.staged.own_rows(),
                    literal(&self.copied.transaction)
                );
                Ahead::of(copy::read(self.connector, self.client, &query, &self.columns()).await?)
            }
            None => Ahead::of(futures::stream::empty().boxed()),
        };
        let keys = KeyRows::try_new(self.destination())?;
        while let Some(batch) = expected.next().await {
            let batch = (self.arranged)(batch?)?;
            let found = there.peek(&batch).await?;
            let pairs = keys.pairs(&batch, &found)?;
            for (row, number) in row_numbers(batch.column(0)).enumerate() {
                if !pairs.contains(row) {
                    elsewhere.insert(number);
                }
            }
            let count = pairs.count();
            there.skip(count);
            let (batch, found) = pairs.of(&batch, &found)?;
            let found = numbered(&batch, &found)?;
            if let Some(how) = difference(&[found], &batch)? {
                return Ok(Some(how));
            }
        }
        // Rows that a trigger has rewritten come last. It may insert rows of its own too.
        let left = there.rest().await?;
        let is_more = left > elsewhere.count() && self.destination().table.triggers.is_empty();
        Ok(is_more.then(|| "there are more rows".to_owned()))
    }

    /// Compares rows with those of production that have the same keys.
    async fn compare_by_key(&self, expected: &RecordBatch) -> Result<Option<String>> {
        let key = &self.destination().key;
        let (mut columns, mut declared) = (vec![CopyColumn::number("n")], vec!["n bigint".to_owned()]);
        let mut values = vec![expected.column(0).clone()];
        for (at, name) in key.iter().enumerate() {
            columns.push(CopyColumn { name: format!("k{at}"), ..self.staged.wire(name) });
            declared.push(format!("k{at} {}", self.staged.declared(name)));
            values.push(expected.column_by_name(name).cloned().ok_or_else(keyless)?);
        }
        let names = columns.iter().map(|column| (column.name.as_str(), true)).zip(values);
        let keys =
            RecordBatch::try_from_iter_with_nullable(names.map(|((name, nullable), values)| (name, values, nullable)))?;
        let same: Vec<_> = key.iter().enumerate().map(|(at, name)| format!("p.{} = k.k{at}", ident(name))).collect();
        // OFFSET keeps the server from reading the whole table instead of one row per key.
        let query = format!(
            "SELECT p.* FROM ({}) AS k CROSS JOIN LATERAL (SELECT {} FROM {} AS p WHERE {} OFFSET 0) AS p ORDER BY k.n",
            literal_rows(&columns, &declared, &[keys]),
            self.wanted(),
            self.staged.own_rows(),
            same.join(" AND ")
        );
        let found = copy::receive(self.connector, self.client, &query, &self.columns()).await?;
        difference(&[numbered(expected, &concat_batches(&unnumbered(expected)?, &found)?)?], expected)
    }
}

fn keyless() -> Error {
    Error::internal("rows without their key")
}

/// Rows of production that are looked at before they are taken.
struct Ahead<'a> {
    rows: Batches<'a>,
    read: VecDeque<RecordBatch>,
}

impl<'a> Ahead<'a> {
    fn of(rows: Batches<'a>) -> Self {
        Self { rows, read: VecDeque::new() }
    }

    /// Returns as many of the next rows as expected, or fewer at the end.
    async fn peek(&mut self, expected: &RecordBatch) -> Result<RecordBatch> {
        while self.read.iter().map(RecordBatch::num_rows).sum::<usize>() < expected.num_rows() {
            let Some(batch) = self.rows.next().await else { break };
            self.read.push_back(batch?);
        }
        let rows = concat_batches(&unnumbered(expected)?, &self.read)?;
        Ok(rows.slice(0, rows.num_rows().min(expected.num_rows())))
    }

    /// Takes rows that were looked at.
    fn skip(&mut self, mut count: usize) {
        while let Some(batch) = self.read.pop_front() {
            if batch.num_rows() > count {
                self.read.push_front(batch.slice(count, batch.num_rows() - count));
                return;
            }
            count -= batch.num_rows();
        }
    }

    /// Returns how many rows are left.
    async fn rest(&mut self) -> Result<usize> {
        let mut count = self.read.iter().map(RecordBatch::num_rows).sum();
        while let Some(batch) = self.rows.next().await {
            count += batch?.num_rows();
        }
        Ok(count)
    }
}

/// The keys of rows in a form that can be compared.
struct KeyRows {
    key: Vec<String>,
    converter: RowConverter,
}

/// Which rows of the delta are which rows of production.
enum Pairs {
    /// The first ones, one by one.
    First(usize),
    /// By their places.
    Some(Vec<u32>),
}

impl KeyRows {
    fn try_new(destination: &Destination) -> Result<Self> {
        let types = destination.key.iter().filter_map(|name| destination.table.column(name));
        let types = types.map(|column| SortField::new(column.data_type.clone())).collect();
        Ok(Self { key: destination.key.clone(), converter: RowConverter::new(types)? })
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let key: Option<Vec<_>> = self.key.iter().map(|name| batch.column_by_name(name).cloned()).collect();
        Ok(self.converter.convert_columns(&key.ok_or_else(keyless)?)?)
    }

    /// Finds the rows of the delta among those of production, which have the same order and lack some.
    fn pairs(&self, expected: &RecordBatch, found: &RecordBatch) -> Result<Pairs> {
        let (wanted, there) = (self.rows(expected)?, self.rows(found)?);
        let count = there.num_rows();
        if (0..count).all(|row| wanted.row(row) == there.row(row)) {
            return Ok(Pairs::First(count));
        }
        let mut at = 0;
        let mut paired = Vec::new();
        for row in 0..wanted.num_rows() {
            if at < count && wanted.row(row) == there.row(at) {
                paired.push(row as u32);
                at += 1;
            }
        }
        Ok(Pairs::Some(paired))
    }
}

impl Pairs {
    fn count(&self) -> usize {
        match self {
            Self::First(count) => *count,
            Self::Some(rows) => rows.len(),
        }
    }

    fn contains(&self, row: usize) -> bool {
        match self {
            Self::First(count) => row < *count,
            Self::Some(rows) => rows.binary_search(&(row as u32)).is_ok(),
        }
    }

    /// Returns the rows of both sides that belong together.
    fn of(&self, expected: &RecordBatch, found: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
        let found = found.slice(0, self.count());
        Ok(match self {
            Self::First(count) => (expected.slice(0, *count), found),
            Self::Some(rows) => (take_record_batch(expected, &UInt32Array::from(rows.clone()))?, found),
        })
    }
}

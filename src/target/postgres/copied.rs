//! The rows that a load has copied into a table, found again although their keys are no block.
//!
//! COPY writes rows one after the other, and mostly to new pages at the end of the table. There they are read in the order of the delta,
//! without an index; a short row may lie in the rest of an earlier page. Rows that fill gaps of the former pages, or that a trigger has rewritten, are looked up by their keys.

use std::collections::{HashMap, HashSet, VecDeque};

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, interleave_record_batch, take_record_batch};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
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

/// Rows of production that are looked at for the next one of the delta.
const AHEAD: usize = 64;

/// Rows that are kept in memory until their turn comes.
const ROWS_ASIDE: usize = 1 << 17;

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
        let mut aside = Aside::new(KeyRows::try_new(self.destination())?);
        while let Some(batch) = expected.next().await {
            let batch = (self.arranged)(batch?)?;
            let found = there.peek(&batch).await?;
            let matched = aside.matched(&batch, &found)?;
            there.skip(matched.passed);
            for (row, number) in row_numbers(batch.column(0)).enumerate() {
                if matched.missing.contains(&row) {
                    elsewhere.insert(number);
                }
            }
            for (batch, found) in matched.pairs {
                let found = numbered(&batch, &found)?;
                if let Some(how) = difference(&[found], &batch)? {
                    return Ok(Some(how));
                }
            }
        }
        // Rows that a trigger has rewritten come last. It may insert rows of its own too.
        let left = there.rest().await? + aside.count;
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

    /// Returns as many of the next rows as expected and some more, or fewer at the end.
    async fn peek(&mut self, expected: &RecordBatch) -> Result<RecordBatch> {
        let wanted = expected.num_rows() + AHEAD;
        while self.read.iter().map(RecordBatch::num_rows).sum::<usize>() < wanted {
            let Some(batch) = self.rows.next().await else { break };
            self.read.push_back(batch?);
        }
        let rows = concat_batches(&unnumbered(expected)?, &self.read)?;
        Ok(rows.slice(0, rows.num_rows().min(wanted)))
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

impl KeyRows {
    fn try_new(destination: &Destination) -> Result<Self> {
        let types = destination.key.iter().filter_map(|name| destination.table.column(name));
        let types = types.map(|column| SortField::new(column.data_type.clone())).collect();
        Ok(Self { key: destination.key.clone(), converter: RowConverter::new(types)? })
    }

    fn of(&self, batch: &RecordBatch) -> Result<Rows> {
        let key: Option<Vec<_>> = self.key.iter().map(|name| batch.column_by_name(name).cloned()).collect();
        Ok(self.converter.convert_columns(&key.ok_or_else(keyless)?)?)
    }
}

/// Rows of production that lie before those of their neighbors in the delta. The server puts a short row into the rest of an earlier page.
struct Aside {
    keys: KeyRows,
    rows: Vec<RecordBatch>,
    /// By key, the place of a row among `rows`.
    places: HashMap<OwnedRow, (usize, usize)>,
    /// The number of rows that no row of the delta has matched.
    count: usize,
}

/// The rows of a batch of the delta and of production that have the same keys.
struct Matched {
    /// Pairs of batches, row by row.
    pairs: Vec<(RecordBatch, RecordBatch)>,
    /// The rows of the delta that were not found.
    missing: HashSet<usize>,
    /// The number of rows of production that are done with.
    passed: usize,
}

impl Aside {
    fn new(keys: KeyRows) -> Self {
        Self { keys, rows: Vec::new(), places: HashMap::new(), count: 0 }
    }

    /// Matches a batch of the delta with the next rows of production.
    fn matched(&mut self, expected: &RecordBatch, found: &RecordBatch) -> Result<Matched> {
        let (wanted, there) = (self.keys.of(expected)?, self.keys.of(found)?);
        let count = wanted.num_rows().min(there.num_rows());
        if count == wanted.num_rows() && (0..count).all(|row| wanted.row(row) == there.row(row)) {
            let pairs = vec![(expected.clone(), found.slice(0, count))];
            return Ok(Matched { pairs, missing: HashSet::new(), passed: count });
        }
        let places: HashMap<_, _> = (0..wanted.num_rows()).map(|row| (wanted.row(row), row)).collect();
        let (mut in_order, mut skipped) = ((Vec::new(), Vec::new()), Vec::new());
        let (mut row, mut at) = (0, 0);
        // The rows of the delta before the next one that production has here.
        let mut passed_over = Vec::new();
        while row < wanted.num_rows() {
            if at < there.num_rows() && wanted.row(row) == there.row(at) {
                in_order.0.push(row as u32);
                in_order.1.push(at as u32);
                (row, at) = (row + 1, at + 1);
                continue;
            }
            // The nearest of them: one that is far ahead lies in the rest of an earlier page.
            let near = (at..there.num_rows().min(at + AHEAD))
                .filter_map(|at| {
                    let place = places.get(&there.row(at)).filter(|place| **place >= row);
                    place.map(|place| (at, *place))
                })
                .min_by_key(|(at, place)| (*place, *at));
            let (next_at, next_row) = near.unwrap_or((at, wanted.num_rows()));
            skipped.extend((at..next_at).map(|at| at as u32));
            passed_over.extend(row..next_row);
            (row, at) = (next_row, next_at);
        }
        self.set_aside(found, &there, &skipped)?;
        let taken: Vec<_> = passed_over.iter().map(|row| self.places.remove(&wanted.row(*row).owned())).collect();
        let missing =
            passed_over.iter().zip(&taken).filter(|(_, place)| place.is_none()).map(|(row, _)| *row).collect();
        let of_aside: (Vec<u32>, Vec<_>) =
            passed_over.iter().zip(taken).filter_map(|(row, place)| Some((*row as u32, place?))).unzip();
        self.count -= of_aside.1.len();
        let take = |batch: &RecordBatch, rows: Vec<u32>| take_record_batch(batch, &UInt32Array::from(rows));
        let mut pairs = vec![(take(expected, in_order.0)?, take(found, in_order.1)?)];
        if !of_aside.1.is_empty() {
            let rows: Vec<_> = self.rows.iter().collect();
            pairs.push((take(expected, of_aside.0)?, interleave_record_batch(&rows, &of_aside.1)?));
        }
        Ok(Matched { pairs, missing, passed: at })
    }

    /// Keeps rows of production for later batches of the delta. Beyond a number, they are looked up by their keys instead.
    fn set_aside(&mut self, found: &RecordBatch, keys: &Rows, rows: &[u32]) -> Result<()> {
        self.count += rows.len();
        if rows.is_empty() || self.places.len() > ROWS_ASIDE {
            return Ok(());
        }
        for (place, row) in rows.iter().enumerate() {
            self.places.insert(keys.row(*row as usize).owned(), (self.rows.len(), place));
        }
        self.rows.push(take_record_batch(found, &UInt32Array::from(rows.to_vec()))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;

    use super::*;

    fn keys() -> KeyRows {
        KeyRows { key: vec!["id".into()], converter: RowConverter::new(vec![SortField::new(DataType::Int64)]).unwrap() }
    }

    fn rows(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
        RecordBatch::try_from_iter([("id", ids)]).unwrap()
    }

    #[test]
    fn rows_in_earlier_pages_and_in_gaps_cost_no_others_their_place() {
        let mut aside = Aside::new(keys());
        // 2 lies in a gap; 7 and 9 lie in rests of earlier pages.
        let matched = aside.matched(&rows([1, 2, 3, 4]), &rows([1, 7, 3, 9, 4, 5, 6])).unwrap();
        assert_eq!(matched.pairs, [(rows([1, 3, 4]), rows([1, 3, 4]))]);
        assert_eq!((matched.missing, matched.passed, aside.count), (HashSet::from([1]), 5, 2));
        let matched = aside.matched(&rows([5, 6, 7, 8]), &rows([5, 6, 10])).unwrap();
        assert_eq!(matched.pairs, [(rows([5, 6]), rows([5, 6])), (rows([7]), rows([7]))]);
        assert_eq!((matched.missing, matched.passed, aside.count), (HashSet::from([3]), 2, 1));
        let matched = aside.matched(&rows([9, 10]), &rows([10])).unwrap();
        assert_eq!(matched.pairs, [(rows([10]), rows([10])), (rows([9]), rows([9]))]);
        assert_eq!((matched.missing, matched.passed, aside.count), (HashSet::new(), 1, 0));
    }

    #[test]
    fn a_row_before_its_neighbors_of_the_same_batch_is_kept_aside() {
        let mut aside = Aside::new(keys());
        let found = rows([0, 150].into_iter().chain(1..150).chain(151..200));
        let matched = aside.matched(&rows(0..200), &found).unwrap();
        let others = || rows((0..150).chain(151..200));
        assert_eq!(matched.pairs, [(others(), others()), (rows([150]), rows([150]))]);
        assert_eq!((matched.missing, matched.passed, aside.count), (HashSet::new(), 200, 0));
    }

    #[test]
    fn a_batch_that_lies_elsewhere_passes_over_nothing() {
        let mut aside = Aside::new(keys());
        let matched = aside.matched(&rows(0..100), &rows(100..300)).unwrap();
        assert_eq!((matched.missing.len(), matched.passed, aside.count), (100, 0, 0));
        let matched = aside.matched(&rows(100..300), &rows(100..300)).unwrap();
        assert_eq!((matched.missing.len(), matched.passed), (0, 200));
    }
}

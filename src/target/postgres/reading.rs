//! Comparison of rows from the server with the delta, batch by batch. Neither is ever in memory as a whole.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tokio_postgres::Client;

use super::connect::Connector;
use super::copy::{self, CopyColumn};
use crate::error::Result;
use crate::target::Batches;
use crate::target::difference::difference;

pub(super) const ROW: &str = "_row";

/// Compares the rows of a query with the expected ones, which have `_row` first. Returns the first difference in words. The query returns
/// its rows in order, with or without row numbers.
pub(super) async fn compare(
    connector: &Connector,
    client: &Client,
    query: &str,
    columns: &[CopyColumn],
    mut expected: Batches<'_>,
) -> Result<Option<String>> {
    let numbered = columns.first().is_some_and(|column| column.name == ROW);
    let mut there =
        Reading { rows: copy::read(connector, client, query, columns).await?, read: VecDeque::new(), numbered };
    while let Some(expected) = expected.next().await {
        let expected = expected?;
        let found = there.next(&expected).await?;
        let compare = tracing::info_span!("compare rows", rows = expected.num_rows());
        if let Some(how) = compare.in_scope(|| difference(&[found], &expected))? {
            return Ok(Some(how));
        }
    }
    let more = there.is_more().await?;
    Ok(more.then(|| "there are more rows".to_owned()))
}

/// Returns the schema of expected rows without their numbers.
pub(super) fn unnumbered(expected: &RecordBatch) -> Result<SchemaRef> {
    let columns: Vec<usize> = (1..expected.num_columns()).collect();
    Ok(Arc::new(expected.schema().project(&columns)?))
}

/// Returns rows with the numbers of as many expected ones.
pub(super) fn numbered(expected: &RecordBatch, rows: &RecordBatch) -> Result<RecordBatch> {
    let numbers = expected.column(0).slice(0, rows.num_rows().min(expected.num_rows()));
    let columns = [numbers].into_iter().chain(rows.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(expected.schema(), columns)?)
}

/// Rows of production, read in batches of any requested size.
struct Reading<'a> {
    rows: Batches<'a>,
    read: VecDeque<RecordBatch>,
    /// Whether they have row numbers.
    numbered: bool,
}

impl Reading<'_> {
    /// Returns as many rows as expected, or fewer at the end. Rows without numbers take the expected ones.
    async fn next(&mut self, expected: &RecordBatch) -> Result<RecordBatch> {
        let wanted = expected.num_rows();
        let mut parts = Vec::new();
        let mut count = 0;
        while count < wanted {
            let Some(batch) = self.pull().await? else { break };
            let taken = batch.num_rows().min(wanted - count);
            parts.push(batch.slice(0, taken));
            if taken < batch.num_rows() {
                self.read.push_front(batch.slice(taken, batch.num_rows() - taken));
            }
            count += taken;
        }
        let schema = expected.schema();
        if self.numbered {
            return Ok(concat_batches(&schema, &parts)?);
        }
        numbered(expected, &concat_batches(&unnumbered(expected)?, &parts)?)
    }

    async fn pull(&mut self) -> Result<Option<RecordBatch>> {
        match self.read.pop_front() {
            Some(batch) => Ok(Some(batch)),
            None => self.rows.next().await.transpose(),
        }
    }

    async fn is_more(&mut self) -> Result<bool> {
        while let Some(batch) = self.pull().await? {
            if batch.num_rows() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! Rows of the delta as a table for SQL.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use super::{RowNumber, RowSet, RowStore, row_column, row_field};
use crate::error::Result;

/// Some columns of [`RowStore`], after each row's number as `_row`, without the rows of a set. It reads only the columns
/// that a query needs, and only batches with a remaining row.
#[derive(Debug)]
pub struct RowsTable {
    rows: Arc<RowStore>,
    without: Arc<RowSet>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl RowsTable {
    /// Returns a table of the columns whose names `choose` accepts.
    pub fn new(rows: Arc<RowStore>, without: Arc<RowSet>, choose: impl Fn(&str) -> bool) -> Arc<Self> {
        let columns = rows.columns(choose);
        let mut fields = vec![Arc::new(row_field("_row"))];
        fields.extend(columns.iter().map(|at| rows.schema().fields()[*at].clone()));
        Arc::new(Self { rows, without, columns, schema: Arc::new(Schema::new(fields)) })
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let batches = self.rows.stretches().len();
        let parts = session.config().target_partitions().clamp(1, batches.max(1));
        let part = |number: usize| -> Arc<dyn PartitionStream> {
            Arc::new(Part {
                rows: self.rows.clone(),
                without: self.without.clone(),
                columns: projection.iter().map(|at| at.checked_sub(1).map(|at| self.columns[at])).collect(),
                schema: schema.clone(),
                batches: batches * number / parts..batches * (number + 1) / parts,
            })
        };
        let parts = (0..parts).map(part).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), parts, None, Vec::new(), false, limit)?))
    }
}

/// Some of the batches of a [`RowsTable`], as one partition of a query.
#[derive(Debug, Clone)]
struct Part {
    rows: Arc<RowStore>,
    without: Arc<RowSet>,
    /// `None` for the row's number.
    columns: Vec<Option<usize>>,
    schema: SchemaRef,
    batches: std::ops::Range<usize>,
}

impl Part {
    fn batch(&self, at: usize, first: RowNumber, count: usize) -> Result<RecordBatch> {
        let wanted: Vec<usize> = self.columns.iter().copied().flatten().collect();
        let mut read = self.rows.batch(at, &wanted)?.columns().to_vec().into_iter();
        let number = || Some(row_column(first, count));
        let columns = self.columns.iter().filter_map(|column| column.map_or_else(number, |_| read.next()));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns.collect(), &options)?;
        Ok(match self.without.count_in(first, count) {
            0 => batch,
            _ => filter_record_batch(&batch, &self.without.others(first, count))?,
        })
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let this = self.clone();
        let stretches: Vec<(RowNumber, usize)> =
            self.rows.stretches().skip(self.batches.start).take(self.batches.len()).collect();
        let batches = self.batches.clone().zip(stretches).filter_map(move |(at, (first, count))| {
            let left = this.without.count_in(first, count) < count;
            left.then(|| this.batch(at, first, count).map_err(|error| DataFusionError::External(Box::new(error))))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

//! Rows of the delta as a table that SQL can be asked about.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use super::{Mask, Rows};
use crate::error::Result;

/// Some columns of [`Rows`], with each row's number as `_row` in front, without the rows of a mask.
#[derive(Debug)]
pub struct RowsTable {
    rows: Arc<Rows>,
    without: Arc<Mask>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl RowsTable {
    /// A table of the columns that `choose` accepts by name.
    pub fn try_new(rows: Arc<Rows>, without: Arc<Mask>, choose: impl Fn(&str) -> bool) -> Result<Arc<StreamingTable>> {
        let columns: Vec<usize> = rows
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| choose(field.name()))
            .map(|(at, _)| at)
            .collect();
        let mut fields = vec![Arc::new(Field::new("_row", DataType::UInt32, false))];
        fields.extend(columns.iter().map(|at| rows.schema().fields()[*at].clone()));
        let schema = Arc::new(Schema::new(fields));
        let partition = Arc::new(Self { rows, without, columns, schema: schema.clone() });
        Ok(Arc::new(StreamingTable::try_new(schema, vec![partition])?))
    }

    fn batch(&self, first: u32, batch: &RecordBatch) -> Result<RecordBatch> {
        let count = batch.num_rows();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from_iter_values(first..first + count as u32))];
        columns.extend(self.columns.iter().map(|at| batch.column(*at).clone()));
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        Ok(if self.without.is_empty() {
            batch
        } else {
            filter_record_batch(&batch, &self.without.others(first, count))?
        })
    }
}

impl PartitionStream for RowsTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let external = |error: crate::error::Error| DataFusionError::External(Box::new(error));
        let this = Self {
            rows: self.rows.clone(),
            without: self.without.clone(),
            columns: self.columns.clone(),
            schema: self.schema.clone(),
        };
        let batches: Box<dyn Iterator<Item = Result<RecordBatch, DataFusionError>> + Send> = match self.rows.batches() {
            Ok(batches) => Box::new(batches.map(move |batch| {
                let (first, batch) = batch.map_err(external)?;
                this.batch(first, &batch).map_err(external)
            })),
            Err(error) => Box::new(std::iter::once(Err(external(error)))),
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

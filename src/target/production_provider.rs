//! A table of production for user SQL that names `production.<table>`: read with projection and filters pushed down.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatchOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt, stream};

use super::{CatalogTable, Filter, Production, Test};
use crate::error::Error;

/// A production table that is read on demand.
pub struct ProductionTable {
    target: Arc<dyn Production>,
    name: String,
    schema: SchemaRef,
}

impl ProductionTable {
    /// Returns a provider for a table of the target's catalog.
    pub fn new(target: Arc<dyn Production>, table: &CatalogTable) -> Self {
        Self { target, name: table.name.clone(), schema: table.schema() }
    }
}

impl fmt::Debug for ProductionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "production.{}", self.name)
    }
}

/// Translates a filter of the engine for targets: comparisons of a column with a text or an integer, and NULL tests.
fn translate(filter: &Expr) -> Option<Filter> {
    use datafusion::common::ScalarValue::{Int64, Utf8};
    let (column, test) = match filter {
        Expr::IsNull(inner) => (inner.as_ref(), Test::IsNull),
        Expr::IsNotNull(inner) => (inner.as_ref(), Test::IsNotNull),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let turned = matches!(left.as_ref(), Expr::Literal(..));
            let (column, value) = if turned { (right, left) } else { (left, right) };
            let how = match (op, turned) {
                (Operator::Eq, _) => "=",
                (Operator::Lt, false) | (Operator::Gt, true) => "<",
                (Operator::LtEq, false) | (Operator::GtEq, true) => "<=",
                (Operator::Gt, false) | (Operator::Lt, true) => ">",
                (Operator::GtEq, false) | (Operator::LtEq, true) => ">=",
                _ => return None,
            };
            let test = match value.as_ref() {
                Expr::Literal(Utf8(Some(text)), _) => Test::Text(how, text.clone()),
                Expr::Literal(Int64(Some(number)), _) => Test::Integer(how, *number),
                _ => return None,
            };
            (column.as_ref(), test)
        }
        _ => return None,
    };
    match column {
        Expr::Column(column) => Some(Filter { column: column.name.clone(), test }),
        _ => None,
    }
}

#[async_trait]
impl TableProvider for ProductionTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match translate(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let filters: Vec<Filter> = filters.iter().filter_map(translate).collect();
        let (target, name) = (self.target.clone(), self.name.clone());
        let rows = Rows { target, name, columns, filters, limit, schema: schema.clone() };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, Vec::new(), false, limit)?))
    }
}

/// The rows of a production table for one query, streamed at the query's pace.
struct Rows {
    target: Arc<dyn Production>,
    name: String,
    columns: Vec<String>,
    filters: Vec<Filter>,
    limit: Option<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "production.{} {:?}", self.name, self.columns)
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (target, name, columns) = (self.target.clone(), self.name.clone(), self.columns.clone());
        let (filters, limit, schema) = (self.filters.clone(), self.limit, self.schema.clone());
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let read = async move { target.scan(&name, &columns, &filters, limit).await };
        let batches = stream::once(read).try_flatten().map(move |batch| {
            let batch = batch.map_err(external)?;
            // Without columns, only the number of rows counts.
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = if schema.fields().is_empty() { Vec::new() } else { batch.columns().to_vec() };
            Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

//! A table of production for user SQL that names `production.<table>`: read with projection and filters pushed down.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatchOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::unparser::expr_to_sql;

use super::{CatalogTable, Target};

/// A production table, read when it is asked for.
pub struct ProductionTable {
    target: Arc<dyn Target>,
    name: String,
    schema: SchemaRef,
}

impl ProductionTable {
    /// The table of a target's catalog.
    pub fn new(target: Arc<dyn Target>, table: &CatalogTable) -> Self {
        Self { target, name: table.name.clone(), schema: table.schema() }
    }
}

impl fmt::Debug for ProductionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "production.{}", self.name)
    }
}

/// A filter as SQL that every target reads the same way: comparisons of a column with a text or an integer, NULL tests.
fn condition(filter: &Expr) -> Option<String> {
    use datafusion::common::ScalarValue::{Int64, Utf8};
    let plain = match filter {
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => matches!(inner.as_ref(), Expr::Column(_)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq,
            right,
        }) => {
            matches!(
                (left.as_ref(), right.as_ref()),
                (Expr::Column(_), Expr::Literal(Utf8(Some(_)) | Int64(Some(_)), _))
                    | (Expr::Literal(Utf8(Some(_)) | Int64(Some(_)), _), Expr::Column(_))
            )
        }
        _ => false,
    };
    if !plain {
        return None;
    }
    // The scan has one table, so its columns need no table in front of them.
    let bare = filter
        .clone()
        .transform(|expr| {
            Ok(match expr {
                Expr::Column(column) => {
                    Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(column.name)))
                }
                other => Transformed::no(other),
            })
        })
        .ok()?;
    expr_to_sql(&bare.data).ok().map(|sql| sql.to_string())
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
        let support = |filter: &&Expr| match condition(filter) {
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
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&wanted)?);
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let conditions: Vec<String> = filters.iter().filter_map(condition).collect();
        let condition = (!conditions.is_empty()).then(|| conditions.join(" AND "));
        let batches = self
            .target
            .scan(&self.name, &columns, condition.as_deref())
            .await
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        // Without columns only the number of rows counts.
        let batches = batches
            .into_iter()
            .map(|batch| {
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = if columns.is_empty() { Vec::new() } else { batch.columns().to_vec() };
                Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }
}

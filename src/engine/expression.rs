//! One SQL expression over the columns of a batch, compiled once and evaluated batch by batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::Expr;

use super::{Engine, SqlDiagnostic, bounded, depth, sql_diagnostic};
use crate::error::{Error, Result as Outcome};

/// An SQL expression that gives one value a row.
#[derive(Debug, Clone)]
pub struct Expression {
    sql: String,
    columns: Vec<String>,
    data_type: DataType,
    compiled: Arc<dyn PhysicalExpr>,
    /// Bytes of the values of one batch at most, unless the batch itself has more.
    most: usize,
}

impl Engine {
    /// Compiles an expression over the columns of `schema`.
    ///
    /// # Errors
    /// Where it does not parse, names a column that is not there, does
    /// not type, holds a subquery or an aggregate, or has another value each time it is asked.
    pub fn expression(&self, sql: &str, schema: &Schema) -> Result<Expression, SqlDiagnostic> {
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
        let told = |error| sql_diagnostic::explain(&error, &[], &columns);
        depth::refuse_deep(sql)?;
        let known = DFSchema::try_from(schema.clone()).map_err(told)?;
        let logical = self.context.parse_sql_expr(sql, &known).map_err(told)?;
        if logical.is_volatile() {
            return Err(SqlDiagnostic::new(
                "the expression has another value each time",
                "keys and counts must be the same in every run: leave `random()` and its like out",
            ));
        }
        let mut columns: Vec<String> = logical.column_refs().into_iter().map(|column| column.name.clone()).collect();
        columns.sort();
        let compiled = self.compile(logical, known).map_err(told)?;
        let data_type = compiled.data_type(schema).map_err(told)?;
        Ok(Expression { sql: sql.trim().to_owned(), columns, data_type, compiled, most: self.limits.text() })
    }

    /// Coerces, folds constants and compiles. `current_date()` and `now()` are constants: one moment for the whole run.
    fn compile(&self, logical: Expr, known: DFSchema) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
        let state = self.state();
        let known = Arc::new(known);
        let moment = SimplifyContext::builder()
            .with_schema(known.clone())
            .with_config_options(state.config_options().clone())
            .with_query_execution_start_time(self.clock.query_execution_start_time())
            .build();
        let simplifier = ExprSimplifier::new(moment);
        let logical = bounded::Rewrite::new(self.limits.text()).apply(logical)?;
        let coerced = simplifier.coerce(logical, &known)?;
        refuse_overflow(&state, &coerced)?;
        let folded = simplifier.simplify(coerced)?;
        bounded::refuse_constants(&folded)?;
        let compiled = state.create_physical_expr(folded, &known)?;
        Ok(compiled.transform_up(|part| Ok(checked(part)))?.data)
    }
}

/// Refuses constants that overflow: where the engine computes them beforehand, they would wrap around.
fn refuse_overflow(state: &SessionState, expression: &Expr) -> datafusion::error::Result<()> {
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    expression
        .apply(|part| {
            let is_arithmetic = matches!(part, Expr::BinaryExpr(binary)
                if matches!(binary.op, Operator::Plus | Operator::Minus | Operator::Multiply));
            if is_arithmetic
                && part.column_refs().is_empty()
                && let Ok(compiled) = state.create_physical_expr(part.clone(), &DFSchema::empty())
                && let Err(error) = compiled.transform_up(|part| Ok(checked(part)))?.data.evaluate(&one_row)
                && let DataFusionError::ArrowError(overflow, _) = error.find_root()
                && matches!(**overflow, ArrowError::ArithmeticOverflow(_))
            {
                return Err(error);
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map(|_| ())
}

/// Arithmetic that overflows fails instead of wrapping around.
fn checked(part: Arc<dyn PhysicalExpr>) -> Transformed<Arc<dyn PhysicalExpr>> {
    let Some(binary) = part.downcast_ref::<BinaryExpr>() else { return Transformed::no(part) };
    let checked =
        BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone()).with_fail_on_overflow(true);
    Transformed::yes(Arc::new(checked))
}

impl Expression {
    /// The expression as it was written.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The columns that it reads, sorted.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The type of its values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The value of every row of a batch.
    ///
    /// # Errors
    /// Where one row's value cannot be computed, for the whole batch: halve it to find the row.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let value = self.compiled.evaluate(batch).map_err(|error| error.strip_backtrace())?;
        if let ColumnarValue::Scalar(value) = &value
            && value.size().saturating_mul(batch.num_rows()) > self.most.max(batch.get_array_memory_size())
        {
            return Err(format!("{} rows of {} bytes are too many for one batch", batch.num_rows(), value.size()));
        }
        value.into_array(batch.num_rows()).map_err(|error| error.strip_backtrace())
    }

    /// The values of two parts of a batch as one.
    ///
    /// # Errors
    /// If they take more memory together than the values of a batch may.
    pub fn join(&self, batch: &RecordBatch, first: &ArrayRef, second: &ArrayRef) -> Outcome<ArrayRef> {
        let held = |values: &ArrayRef| values.to_data().get_slice_memory_size().unwrap_or_default();
        let bytes = held(first) + held(second);
        let most = self.most.max(batch.get_array_memory_size());
        if bytes > most {
            let rows = first.len() + second.len();
            return Err(Error::pipeline(format!(
                "the values of `{}` take {bytes} bytes for {rows} rows, and {most} bytes are the most",
                self.sql
            ))
            .hint("shorten the values, or give more memory with `--memory-limit`"));
        }
        Ok(concat(&[first, second])?)
    }
}

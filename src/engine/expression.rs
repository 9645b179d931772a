//! An SQL expression over the columns of a batch, compiled once and evaluated per batch.

use std::collections::HashSet;
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
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::{Engine, SqlDiagnostic, bounded, dates, depth, sql_diagnostic, zones};
use crate::error::{Error, Result as Outcome};

/// An SQL expression with one value per row.
#[derive(Debug, Clone)]
pub struct Expression {
    sql: String,
    columns: Vec<String>,
    data_type: DataType,
    compiled: Arc<dyn PhysicalExpr>,
    /// The columns of a batch that `compiled` sees.
    projection: Vec<usize>,
    /// The maximum size in bytes of the values of one batch, unless the batch itself is larger.
    most: usize,
}

impl Engine {
    /// Compiles an expression over the columns of `schema`.
    ///
    /// # Errors
    /// Returns the mistake if the expression does not parse or type, names a missing column, contains a subquery or an
    /// aggregate, or is volatile.
    pub fn expression(&self, sql: &str, schema: &Schema) -> Result<Expression, SqlDiagnostic> {
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
        let explain = |error| sql_diagnostic::explain(&error, &[], &columns);
        depth::refuse_deep(sql)?;
        // Planning costs time for each column, so it sees only those that the expression can name.
        let projection = named_columns(sql, schema);
        let schema = &schema.project(&projection).map_err(|error| explain(error.into()))?;
        let known = DFSchema::try_from(schema.clone()).map_err(explain)?;
        let logical = self.context.parse_sql_expr(sql, &known).map_err(explain)?;
        if logical.is_volatile() {
            return Err(SqlDiagnostic::new(
                "the expression is not deterministic",
                "remove functions such as `random()`: keys and counts must be the same in every run",
            ));
        }
        let mut columns: Vec<String> = logical.column_refs().into_iter().map(|column| column.name.clone()).collect();
        columns.sort();
        let compiled = self.compile(logical, known).map_err(explain)?;
        let data_type = compiled.data_type(schema).map_err(explain)?;
        let (sql, most) = (sql.trim().to_owned(), self.limits.text());
        Ok(Expression { sql, columns, data_type, compiled, projection, most })
    }

    /// Coerces types, folds constants, and compiles. `current_date()` and `now()` are constants: one moment per run.
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
        let century = known.metadata().get("century").and_then(|year| year.parse().ok());
        let logical = logical.transform_up(|part| Ok(dates::with_century(part, century)))?.data;
        let logical = logical.transform_up(zones::rewrite)?.data;
        let coerced = simplifier.coerce(logical, &known)?;
        refuse_overflow(&state, &coerced)?;
        let folded = simplifier.simplify(coerced)?;
        bounded::refuse_constants(&folded)?;
        let compiled = state.create_physical_expr(folded, &known)?;
        Ok(compiled.transform_up(|part| Ok(checked(part)))?.data)
    }
}

/// Returns the words of SQL, as they name columns; None if SQL cannot be split into words.
pub fn words(sql: &str) -> Option<HashSet<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
    let word = |token| match token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    };
    Some(tokens.into_iter().filter_map(word).collect())
}

/// Returns the indexes of the columns whose names are among the words of SQL.
fn named_columns(sql: &str, schema: &Schema) -> Vec<usize> {
    let Some(words) = words(sql) else { return (0..schema.fields().len()).collect() };
    match words.len() {
        // A few words are compared faster than all names are hashed.
        0..8 => {
            let is_named = |name: &String| words.iter().any(|word| word == name);
            (0..schema.fields().len()).filter(|at| is_named(schema.field(*at).name())).collect()
        }
        _ => (0..schema.fields().len()).filter(|at| words.contains(schema.field(*at).name())).collect(),
    }
}

/// Refuses constants that overflow, which the engine would compute with wrapping arithmetic.
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

/// Makes arithmetic fail on overflow instead of wrapping.
fn checked(part: Arc<dyn PhysicalExpr>) -> Transformed<Arc<dyn PhysicalExpr>> {
    let Some(binary) = part.downcast_ref::<BinaryExpr>() else { return Transformed::no(part) };
    let checked =
        BinaryExpr::new(binary.left().clone(), *binary.op(), binary.right().clone()).with_fail_on_overflow(true);
    Transformed::yes(Arc::new(checked))
}

impl Expression {
    /// Returns the expression as written.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Returns the columns that it reads, sorted.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the type of its values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Returns the value for each row of a batch.
    ///
    /// # Errors
    /// Returns the engine's message if the value of any row cannot be computed; halve the batch to find the row.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let seen = batch.project(&self.projection).map_err(|error| error.to_string())?;
        let value = self.compiled.evaluate(&seen).map_err(|error| error.strip_backtrace())?;
        if let ColumnarValue::Scalar(value) = &value
            && value.size().saturating_mul(batch.num_rows()) > self.most.max(batch.get_array_memory_size())
        {
            return Err(format!("{} rows of {} bytes exceed the limit of a batch", batch.num_rows(), value.size()));
        }
        value.into_array(batch.num_rows()).map_err(|error| error.strip_backtrace())
    }

    /// Concatenates the values of two parts of a batch.
    ///
    /// # Errors
    /// Returns an error if together they exceed the size limit of a batch's values.
    pub fn join(&self, batch: &RecordBatch, first: &ArrayRef, second: &ArrayRef) -> Outcome<ArrayRef> {
        let size = |values: &ArrayRef| values.to_data().get_slice_memory_size().unwrap_or_default();
        let bytes = size(first) + size(second);
        let most = self.most.max(batch.get_array_memory_size());
        if bytes > most {
            let rows = first.len() + second.len();
            return Err(Error::pipeline(format!(
                "the values of `{}` take {bytes} bytes for {rows} rows; {most} bytes is the limit",
                self.sql
            ))
            .hint("shorten the values, or increase `--memory-limit`"));
        }
        Ok(concat(&[first, second])?)
    }
}

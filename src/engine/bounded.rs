//! Bounds for functions whose values can be far larger than their arguments.
//!
//! DataFusion computes constants while it plans, and does not count texts toward the memory limit:
//! `repeat('x', 4000000000)` would take four gigabytes before the first row is read, and `lpad(name, 1000000)` eight for
//! one batch. Each such function is therefore wrapped, and its result is checked against a bound before it is computed.
//! `||` is one of them, as [`Concatenation`].

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::{BinaryExpr as Physical, Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;

/// The maximum size of a constant in bytes: one for each row of a batch is then half a gigabyte.
pub(super) const CONSTANT: usize = 64 << 10;

/// The end of a message about a size limit.
pub(super) const ARE_THE_MOST: &str = "bytes is the limit";

/// The relation between the size of a function's values and its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// A text, and the number of repetitions.
    Repeated,
    /// A text, and the number of characters to pad it to.
    Padded,
    /// A text, the part to replace, and its replacement.
    Replaced,
    /// A text, a pattern, the replacement of its matches, and flags.
    Matched,
    /// The concatenation of all texts.
    Joined,
    /// A separator, and texts that it separates.
    Separated,
}

const GROWING: [(&str, Growth); 7] = [
    ("repeat", Growth::Repeated),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::Matched),
    ("concat", Growth::Joined),
    ("concat_ws", Growth::Separated),
];

/// A function with a bound.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    function: Arc<ScalarUDF>,
    growth: Growth,
    /// The maximum size in bytes of all values of a batch, unless an argument is larger.
    batch: usize,
}

/// Wraps all growing functions of a context. `batch` is the bound in bytes for the values of one batch.
pub(super) fn register(context: &mut SessionContext, batch: usize) -> Result<()> {
    for (name, growth) in GROWING {
        let function = context.udf(name)?;
        SessionContext::register_udf(context, ScalarUDF::from(Bounded { function, growth, batch }));
    }
    context.register_function_rewrite(Arc::new(Rewrite::new(batch)))
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // Constants in the concatenation are bounded as well.
        let texts = args.iter().filter_map(Expr::as_literal).map(size_of).sum::<usize>();
        if texts > CONSTANT { Ok(ExprSimplifyResult::Original(args)) } else { self.function.simplify(args, info) }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts: Vec<_> = args.args.iter().map(Texts::new).collect();
        let bytes = self.growth.bytes(&texts, rows);
        let largest = texts.iter().map(|texts| texts.total(rows)).max().unwrap_or_default();
        let most = if constant { CONSTANT } else { self.batch.max(largest) };
        if bytes > most {
            let name = self.name();
            return match (constant, rows) {
                (true, _) => {
                    exec_err!("`{name}` would return a constant of {bytes} bytes; {CONSTANT} bytes is the limit")
                }
                (_, 1) => exec_err!("`{name}` would return a value of {bytes} bytes; {most} bytes is the limit"),
                _ => exec_err!("`{name}` would return {bytes} bytes for {rows} rows; {most} bytes is the limit"),
            };
        }
        self.function.invoke_with_args(args)
    }
}

impl Growth {
    /// The maximum size in bytes of all values of a batch.
    fn bytes(self, args: &[Texts<'_>], rows: usize) -> usize {
        let length = |at: usize, row: usize| args.get(at).map_or(0, |texts| texts.text(row).len());
        let each = |bytes: &dyn Fn(usize) -> usize| (0..rows).map(bytes).fold(0, usize::saturating_add);
        let joined = || args.iter().map(|texts| texts.total(rows)).fold(0, usize::saturating_add);
        match self {
            Self::Joined => joined(),
            Self::Separated => {
                let separators = args.len().saturating_sub(2);
                joined().saturating_add(args.first().map_or(0, |texts| texts.total(rows)).saturating_mul(separators))
            }
            Self::Repeated => each(&|row| length(0, row).saturating_mul(args[1].number(row))),
            Self::Padded => {
                let ascii = |row: usize| args.get(2).is_none_or(|fill| fill.text(row).is_ascii());
                let padded = |row: usize| args[1].number(row).saturating_mul(if ascii(row) { 1 } else { 4 });
                each(&|row| length(0, row).max(padded(row)))
            }
            Self::Replaced => {
                let grows = |row: usize| length(2, row).saturating_sub(length(1, row));
                let perhaps = |row: usize| length(0, row) / length(1, row).max(1) + 1;
                let matches = |row: usize| args[0].text(row).matches(args[1].text(row)).count();
                let bytes = |row: usize, times: &dyn Fn(usize) -> usize| {
                    length(0, row).saturating_add(match grows(row) {
                        0 => 0,
                        bytes => bytes.saturating_mul(times(row)),
                    })
                };
                let most = each(&|row| bytes(row, &perhaps));
                // Count matches only if their number matters.
                if most <= CONSTANT { most } else { each(&|row| bytes(row, &matches)) }
            }
            Self::Matched => each(&|row| {
                let all = args.get(3).is_some_and(|flags| flags.text(row).contains('g'));
                let times = if all { length(0, row) + 1 } else { 1 };
                // A replacement can refer to the match; all matches together are at most as long as the text.
                let named = (length(2, row) / 2).saturating_mul(length(0, row));
                length(0, row).saturating_add(length(2, row).saturating_mul(times)).saturating_add(named)
            }),
        }
    }
}

/// An argument of a function.
enum Texts<'a> {
    One(&'a ScalarValue),
    Each(&'a ArrayRef),
}

impl<'a> Texts<'a> {
    fn new(value: &'a ColumnarValue) -> Self {
        match value {
            ColumnarValue::Scalar(value) => Self::One(value),
            ColumnarValue::Array(values) => Self::Each(values),
        }
    }

    /// Returns the text of a row; "" for NULL.
    fn text(&self, row: usize) -> &'a str {
        match self {
            Self::One(value) => value.try_as_str().flatten().unwrap_or_default(),
            Self::Each(values) if values.is_null(row) => "",
            Self::Each(values) => match values.data_type() {
                DataType::Utf8 => values.as_string::<i32>().value(row),
                DataType::LargeUtf8 => values.as_string::<i64>().value(row),
                DataType::Utf8View => values.as_string_view().value(row),
                _ => "",
            },
        }
    }

    /// Returns the number of a row; 0 for NULL and negative numbers.
    fn number(&self, row: usize) -> usize {
        let number = match self {
            Self::One(ScalarValue::Int64(number)) => number.unwrap_or_default(),
            Self::One(_) => 0,
            Self::Each(values) => values
                .as_primitive_opt::<Int64Type>()
                .filter(|values| values.is_valid(row))
                .map_or(0, |values| values.value(row)),
        };
        usize::try_from(number).unwrap_or_default()
    }

    /// Returns the size in bytes of all rows.
    fn total(&self, rows: usize) -> usize {
        match self {
            Self::One(value) => size_of(value).saturating_mul(rows),
            Self::Each(values) => match values.data_type() {
                DataType::Utf8 => bytes_between(values.as_string::<i32>().value_offsets()),
                DataType::LargeUtf8 => bytes_between(values.as_string::<i64>().value_offsets()),
                DataType::Utf8View => values.as_string_view().lengths().map(|length| length as usize).sum(),
                _ => 0,
            },
        }
    }
}

fn bytes_between<O: arrow::array::OffsetSizeTrait>(offsets: &[O]) -> usize {
    match offsets {
        [first, .., last] => last.as_usize() - first.as_usize(),
        _ => 0,
    }
}

/// Returns the size in bytes of a text.
fn size_of(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) => bytes.len(),
        value => value.try_as_str().flatten().map_or(0, str::len),
    }
}

/// Refuses an expression with a constant that is too large, or that was not computed because it would be.
pub(super) fn refuse_constants(expression: &Expr) -> Result<()> {
    let refuse = |part: &Expr| match too_large(part) {
        Some((what, bytes)) => exec_err!("{what} of {bytes} bytes; {CONSTANT} {ARE_THE_MOST}"),
        None => Ok(TreeNodeRecursion::Continue),
    };
    expression.apply(refuse).map(|_| ())
}

/// Returns a constant that is too large, and its size in bytes.
fn too_large(part: &Expr) -> Option<(String, usize)> {
    let (what, bytes) = match part {
        Expr::Literal(value, _) => ("a constant".to_owned(), size_of(value)),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let bounded = (func.inner().as_ref() as &dyn Any).downcast_ref::<Bounded>()?;
            let texts: Option<Vec<_>> = args.iter().map(|arg| arg.as_literal().map(Texts::One)).collect();
            (format!("`{}` would return a constant", func.name()), bounded.growth.bytes(&texts?, 1))
        }
        _ => return None,
    };
    (bytes > CONSTANT).then_some((what, bytes))
}

/// `||` as a function, so that it can have a bound. Computes the same result as DataFusion's operator.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = types else { return exec_err!("`||` requires two values") };
        let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else { return exec_err!("`||` requires two values") };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (mut fields, mut columns, mut sides) = (Vec::new(), Vec::new(), Vec::<Arc<dyn PhysicalExpr>>::new());
        for arg in args.args {
            sides.push(match arg {
                ColumnarValue::Scalar(value) => Arc::new(Literal::new(value)),
                ColumnarValue::Array(values) => {
                    let name = format!("c{}", columns.len());
                    fields.push(Field::new(&name, values.data_type().clone(), true));
                    columns.push(values);
                    Arc::new(Column::new(&name, columns.len() - 1))
                }
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let [left, right] = sides.as_slice() else { return exec_err!("`||` requires two values") };
        Physical::new(left.clone(), Operator::StringConcat, right.clone()).evaluate(&batch)
    }
}

/// A planner extension that replaces `a || b` by the function.
#[derive(Debug)]
pub(super) struct Rewrite {
    function: Arc<ScalarUDF>,
}

impl Rewrite {
    pub(super) fn new(batch: usize) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        let function = Arc::new(ScalarUDF::from(Concatenation { signature }));
        Self { function: Arc::new(ScalarUDF::from(Bounded { function, growth: Growth::Joined, batch })) }
    }

    /// Returns an expression with the function in place of every `||`.
    pub(super) fn apply(&self, expression: Expr) -> Result<Expr> {
        expression.transform_up(|part| Ok(self.one(part))).map(|done| done.data)
    }

    fn one(&self, part: Expr) -> Transformed<Expr> {
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let args = vec![*left, *right];
                Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(self.function.clone(), args)))
            }
            part => Transformed::no(part),
        }
    }
}

impl FunctionRewrite for Rewrite {
    fn name(&self) -> &'static str {
        "bounded concatenation"
    }

    fn rewrite(&self, part: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(self.one(part))
    }
}

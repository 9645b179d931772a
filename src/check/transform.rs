//! From source rows to typed rows, and the checks that look at one row alone: one pass over each batch.
//!
//! An expression that cannot be computed for a row fails its whole batch; the batch is halved until the rows are found, so that
//! they become rejects and the rest goes on at full speed.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::engine::{Engine, Expression};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Table};

/// The compiled expressions of one table.
pub(super) struct Transform {
    key: Expression,
    filter: Option<Expression>,
    references: Vec<Expression>,
    computed: Vec<Computed>,
    checks: Vec<(usize, Expression)>,
    cast_key: usize,
    checked: SchemaRef,
    kept: SchemaRef,
}

struct Computed {
    expression: Expression,
    data_type: DataType,
    name: String,
    cast: usize,
    precision: Option<usize>,
}

/// A batch of typed rows.
pub(super) struct Transformed {
    /// The rows, under [`Table::kept_schema`].
    pub(super) rows: RecordBatch,
    /// Check, row in the batch, and what there is to say.
    pub(super) violations: Vec<(usize, usize, Option<String>)>,
    /// Rows that the pipeline's own WHERE leaves out.
    pub(super) skipped: Vec<usize>,
}

impl Transform {
    pub(super) fn try_new(engine: &Engine, table: &Table) -> Result<Self> {
        let compile = |sql: &str, schema: &Schema| engine.expression(sql, schema).map_err(Error::internal);
        let number = |wanted: &dyn Fn(&CheckKind) -> bool| {
            table.check(wanted).ok_or_else(|| Error::internal("a check that every table has is missing"))
        };
        let checked = table.checked_schema();
        let mut computed = Vec::new();
        for (column, sql) in table.computed() {
            computed.push(Computed {
                expression: compile(sql, &table.source)?,
                data_type: column.data_type.clone(),
                name: column.name.clone(),
                cast: number(&|kind| matches!(kind, CheckKind::Cast { column: name } if *name == column.name))?,
                precision: table
                    .check(|kind| matches!(kind, CheckKind::Precision { column: name } if *name == column.name)),
            });
        }
        let mut checks = Vec::new();
        for (at, check) in table.checks.iter().enumerate() {
            if let CheckKind::Row { violated } = &check.kind {
                checks.push((at, compile(violated, &checked)?));
            }
        }
        Ok(Self {
            key: compile(&table.legacy_key, &table.source)?,
            filter: table.filter.as_ref().map(|sql| compile(sql, &table.source)).transpose()?,
            references: table
                .references
                .iter()
                .map(|reference| compile(&reference.from, &table.source))
                .collect::<Result<_>>()?,
            computed,
            checks,
            cast_key: number(&|kind| *kind == CheckKind::LegacyKey)?,
            checked,
            kept: table.kept_schema(),
        })
    }

    /// Computes, casts and checks the rows of a batch.
    pub(super) fn apply(&self, source: &RecordBatch) -> Result<Transformed> {
        let mut violations = Vec::new();
        let key = text(&self.key.evaluate(source).map_err(Error::internal)?)?;
        for row in 0..key.len() {
            if key.is_null(row) {
                violations.push((self.cast_key, row, Some("the legacy key is NULL".to_owned())));
            }
        }
        let skipped = self.skipped(source, &mut violations)?;
        let mut checked = Vec::with_capacity(self.checked.fields().len());
        for reference in &self.references {
            checked.push(text(&reference.evaluate(source).map_err(Error::internal)?)?);
        }
        // The rows for which a column has no value, by the column's name: a check of that column says nothing new of them.
        let mut failed: HashSet<(&str, usize)> = HashSet::new();
        for column in &self.computed {
            let (values, errors) = evaluate(&column.expression, source)?;
            for (row, error) in errors {
                failed.insert((&column.name, row));
                violations.push((column.cast, row, Some(error)));
            }
            let converted = convert(&values, &column.data_type)?;
            for row in converted.no_value {
                failed.insert((&column.name, row));
                violations.push((column.cast, row, None));
            }
            for row in converted.too_precise {
                failed.insert((&column.name, row));
                violations.push((column.precision.unwrap_or(column.cast), row, None));
            }
            checked.push(converted.values);
        }
        let checked = RecordBatch::try_new(self.checked.clone(), checked)?;
        for (check, expression) in &self.checks {
            let (values, errors) = evaluate(expression, &checked)?;
            let says_nothing_new = |row: usize| {
                !failed.is_empty() && expression.columns().iter().any(|column| failed.contains(&(column.as_str(), row)))
            };
            let values = values.as_boolean();
            let rows =
                (0..values.len()).filter(|row| values.is_valid(*row) && values.value(*row)).map(|row| (row, None));
            let errors = errors.into_iter().map(|(row, error)| (row, Some(error)));
            violations.extend(
                rows.chain(errors).filter(|(row, _)| !says_nothing_new(*row)).map(|(row, text)| (*check, row, text)),
            );
        }
        let columns =
            std::iter::once(key).chain(checked.columns().iter().cloned()).chain(source.columns().iter().cloned());
        let rows = RecordBatch::try_new(self.kept.clone(), columns.collect())?;
        violations.retain(|(_, row, _)| skipped.binary_search(row).is_err());
        Ok(Transformed { rows, violations, skipped })
    }

    fn skipped(
        &self,
        source: &RecordBatch,
        violations: &mut Vec<(usize, usize, Option<String>)>,
    ) -> Result<Vec<usize>> {
        let Some(filter) = &self.filter else { return Ok(Vec::new()) };
        let (wanted, errors) = evaluate(filter, source)?;
        let failed: Vec<usize> = errors.iter().map(|(row, _)| *row).collect();
        violations.extend(errors.into_iter().map(|(row, error)| (self.cast_key, row, Some(format!("WHERE: {error}")))));
        let wanted = wanted.as_boolean();
        Ok((0..wanted.len())
            .filter(|row| !(wanted.is_valid(*row) && wanted.value(*row)) && failed.binary_search(row).is_err())
            .collect())
    }
}

fn text(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(if *values.data_type() == DataType::Utf8 { values.clone() } else { cast(values, &DataType::Utf8)? })
}

/// The value of every row, NULL for those that have none, which are listed with what is wrong.
fn evaluate(expression: &Expression, batch: &RecordBatch) -> Result<(ArrayRef, Vec<(usize, String)>)> {
    let mut errors = Vec::new();
    let values = evaluate_part(expression, batch, 0, &mut errors)?;
    Ok((values, errors))
}

fn evaluate_part(
    expression: &Expression,
    batch: &RecordBatch,
    first: usize,
    errors: &mut Vec<(usize, String)>,
) -> Result<ArrayRef> {
    match (expression.evaluate(batch), batch.num_rows()) {
        (Ok(values), _) => Ok(values),
        (Err(error), 0 | 1) => {
            let error = error.lines().next().unwrap_or_default();
            let error = error.strip_prefix("Execution error: ").unwrap_or(error);
            errors.push((first, error.strip_prefix("Arrow error: ").unwrap_or(error).to_owned()));
            Ok(new_null_array(expression.data_type(), batch.num_rows()))
        }
        (Err(_), rows) => {
            let half = rows / 2;
            let left = evaluate_part(expression, &batch.slice(0, half), first, errors)?;
            let right = evaluate_part(expression, &batch.slice(half, rows - half), first + half, errors)?;
            Ok(concat(&[&left, &right])?)
        }
    }
}

struct Converted {
    values: ArrayRef,
    no_value: Vec<usize>,
    too_precise: Vec<usize>,
}

/// Casts values to a type without losing anything: what does not fit exactly has no value.
fn convert(values: &ArrayRef, to: &DataType) -> Result<Converted> {
    if values.data_type() == to {
        return Ok(Converted { values: values.clone(), no_value: Vec::new(), too_precise: Vec::new() });
    }
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let from_text = matches!(values.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    let converted = cast_with_options(values, to, &safe)?;
    let lost = |converted: &dyn Array| -> Vec<usize> {
        if converted.null_count() == values.null_count() {
            return Vec::new();
        }
        (0..values.len()).filter(|row| values.is_valid(*row) && converted.is_null(*row)).collect()
    };
    let mut no_value = lost(&converted);
    let mut too_precise = Vec::new();
    match to {
        DataType::Utf8 => {}
        DataType::Decimal128(_, scale) if from_text => {
            let texts = text(values)?;
            let texts = texts.as_string::<i32>();
            let digits_after_point =
                |row: usize| texts.value(row).split_once('.').map_or(0, |(_, digits)| digits.len());
            let suspects: Vec<usize> = (0..texts.len())
                .filter(|row| texts.is_valid(*row))
                .filter(|row| converted.is_null(*row) || digits_after_point(*row) > usize::from(scale.unsigned_abs()))
                .collect();
            if !suspects.is_empty() {
                // Wide enough for any number that a file holds: a value that is one here, but another there, has too many digits.
                let wide = DataType::Decimal256(76, 38);
                let exact = cast_with_options(values, &wide, &safe)?;
                let kept = cast_with_options(&converted, &wide, &safe)?;
                let differs = distinct(&exact, &kept)?;
                too_precise.extend(suspects.iter().filter(|row| exact.is_valid(**row) && differs.value(**row)));
                no_value.retain(|row| exact.is_null(*row));
            }
        }
        _ if from_text => {}
        _ => {
            let back = cast_with_options(&converted, values.data_type(), &safe)?;
            let differs = distinct(&back, values)?;
            let changed: Vec<usize> =
                (0..values.len()).filter(|row| differs.value(*row) && values.is_valid(*row)).collect();
            if matches!(to, DataType::Decimal128(..)) {
                no_value.clear();
                too_precise = changed;
            } else {
                no_value = changed;
            }
        }
    }
    let values = if no_value.is_empty() && too_precise.is_empty() {
        converted
    } else {
        without(&converted, &no_value, &too_precise)?
    };
    Ok(Converted { values, no_value, too_precise })
}

/// The values, NULL in the given rows.
fn without(values: &ArrayRef, some: &[usize], others: &[usize]) -> Result<ArrayRef> {
    let mut out = vec![false; values.len()];
    for row in some.iter().chain(others) {
        out[*row] = true;
    }
    Ok(Arc::new(arrow::compute::nullif(values, &out.into())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn a_decimal_is_never_rounded() {
        let values =
            texts(&[Some("12.30"), Some("12.345"), Some("12.340"), Some("123456"), Some("abc"), None, Some("-0.1")]);
        let found = convert(&values, &DataType::Decimal128(5, 2)).unwrap();
        assert_eq!(found.too_precise, [1, 3]);
        assert_eq!(found.no_value, [4]);
        let values = found.values.as_primitive::<arrow::datatypes::Decimal128Type>();
        let kept: Vec<_> = values.iter().collect();
        assert_eq!(kept, [Some(1230), None, Some(1234), None, None, None, Some(-10)]);
    }

    #[test]
    fn a_cast_that_would_change_a_number_or_a_time_has_no_value() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), None]));
        assert_eq!(convert(&floats, &DataType::Int64).unwrap().no_value, [1]);
        let large: ArrayRef = Arc::new(Int64Array::from(vec![(1 << 53) + 1, 1 << 53]));
        assert_eq!(convert(&large, &DataType::Float64).unwrap().no_value, [0]);
        let decimals: ArrayRef =
            Arc::new(Decimal128Array::from(vec![12345, 12300]).with_precision_and_scale(10, 4).unwrap());
        assert_eq!(convert(&decimals, &DataType::Decimal128(10, 2)).unwrap().too_precise, [0]);
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![86_400_000_000, 1]));
        assert_eq!(convert(&times, &DataType::Date32).unwrap().no_value, [1]);
    }

    #[test]
    fn texts_that_are_no_value_of_the_type_are_found() {
        let values = texts(&[Some("2024-02-29"), Some("2023-02-29"), Some("x"), None]);
        assert_eq!(convert(&values, &DataType::Date32).unwrap().no_value, [1, 2]);
        let values = texts(&[Some("9223372036854775807"), Some("9223372036854775808"), Some("1.0"), Some("")]);
        assert_eq!(convert(&values, &DataType::Int64).unwrap().no_value, [1, 2, 3]);
    }

    #[test]
    fn the_rows_that_an_expression_fails_for_are_found_and_the_others_have_their_values() {
        let engine = Engine::try_new(crate::engine::Limits::default()).unwrap();
        let schema = Arc::new(Schema::new(vec![arrow::datatypes::Field::new("d", DataType::Utf8, true)]));
        let expression = engine.expression("to_date(d, '%d.%m.%Y')", &schema).unwrap();
        let days: Vec<Option<&str>> =
            (0..100).map(|row| Some(if row % 33 == 5 { "31.02.2024" } else { "01.02.2024" })).collect();
        let batch = RecordBatch::try_new(schema, vec![texts(&days)]).unwrap();
        let (values, errors) = evaluate(&expression, &batch).unwrap();
        assert_eq!(errors.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [5, 38, 71]);
        assert_eq!((values.len(), values.null_count()), (100, 3));
        assert!(errors[0].1.contains("31.02.2024"), "{}", errors[0].1);
    }
}

//! The transform from source rows to typed rows, with the checks of single rows: one pass over each batch.
//!
//! An expression that fails for one row fails its whole batch. The batch is then halved until the failing rows are
//! found, so that only these are rejected, and the rest continues at full speed.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use jiff::tz::TimeZone;

use super::cast::{NumberStyle, kept, localized, localized_bounds, loss_reason, text};
use crate::engine::{Engine, Expression, zone_of};
use crate::error::{Error, Result};
use crate::plan::{CheckKind, Table};
use crate::source::setting;
use crate::target::{CatalogColumn, LogicalType};

/// The compiled expressions of one table.
pub(super) struct Transform {
    key: Expression,
    filter: Option<(usize, Expression)>,
    references: Vec<Expression>,
    computed: Vec<Computed>,
    checks: Vec<(usize, Expression)>,
    legacy_key: usize,
    checked: SchemaRef,
    kept: SchemaRef,
}

struct Computed {
    expression: Expression,
    kept: CatalogColumn,
    name: String,
    cast: usize,
    precision: Option<usize>,
    /// The time zone of times without an offset.
    zone: Option<TimeZone>,
    /// The notation of numbers in texts.
    numbers: Option<NumberStyle>,
}

/// A batch of typed rows.
pub(super) struct Transformed {
    /// The rows, with [`Table::kept_schema`].
    pub(super) rows: RecordBatch,
    /// The violations of the rows.
    pub(super) violations: Vec<TransformError>,
    /// If `select` has a WHERE, the source rows that it includes; the others are not in `rows`.
    pub(super) wanted: Option<BooleanArray>,
}

/// A violation: the check, the row in the batch, and the reason if it differs from the check's.
pub(super) type TransformError = (usize, usize, Option<String>);

impl Transform {
    pub(super) fn try_new(engine: &Engine, table: &Table) -> Result<Self> {
        let compile = |sql: &str, schema: &Schema| engine.expression(sql, schema).map_err(Error::internal);
        let number = |wanted: &dyn Fn(&CheckKind) -> bool| {
            table.check(wanted).ok_or_else(|| Error::internal("a check that every table has is missing"))
        };
        let checked = table.checked_schema();
        let mut computed = Vec::new();
        let (mut casts, mut precisions) = (HashMap::new(), HashMap::new());
        for (at, check) in table.checks.iter().enumerate() {
            match &check.kind {
                CheckKind::Cast { column } => _ = casts.entry(column.as_str()).or_insert(at),
                CheckKind::Precision { column } => _ = precisions.entry(column.as_str()).or_insert(at),
                _ => {}
            }
        }
        for (column, sql) in table.computed() {
            computed.push(Computed {
                expression: compile(sql, &table.source)?,
                kept: table
                    .catalog
                    .column(&column.name)
                    .cloned()
                    .ok_or_else(|| Error::internal(format!("production has no column `{}`", column.name)))?,
                name: column.name.clone(),
                cast: *casts
                    .get(column.name.as_str())
                    .ok_or_else(|| Error::internal("a check that every column has is missing"))?,
                precision: precisions.get(column.name.as_str()).copied(),
                zone: setting(&table.source, "timezone", &column.name).and_then(zone_of),
                numbers: number_style(&table.source, &column.name).filter(|_| column.data_type.is_numeric()),
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
            filter: match &table.filter {
                Some(sql) => Some((number(&|kind| *kind == CheckKind::Filter)?, compile(sql, &table.source)?)),
                None => None,
            },
            references: table
                .references
                .iter()
                .map(|reference| compile(&reference.from, &table.source))
                .collect::<Result<_>>()?,
            computed,
            checks,
            legacy_key: number(&|kind| *kind == CheckKind::LegacyKey)?,
            checked,
            kept: table.kept_schema(),
        })
    }

    /// Computes, casts, and checks the rows of a batch.
    pub(super) fn apply(&self, source: &RecordBatch) -> Result<Transformed> {
        let mut violations = Vec::new();
        let (source, wanted) = self.wanted(source, &mut violations)?;
        let source = &source;
        let (key, errors) = evaluate(&self.key, source)?;
        let key = text(&key);
        let unreadable: HashSet<usize> = errors.iter().map(|(row, _)| *row).collect();
        violations.extend(errors.into_iter().map(|(row, error)| (self.legacy_key, row, Some(error))));
        for row in (0..key.len()).filter(|row| !unreadable.contains(row)) {
            if key.is_null(row) {
                violations.push((self.legacy_key, row, Some("NULL legacy key".to_owned())));
            } else if key.as_string::<i32>().value(row).contains('\0') {
                violations.push((self.legacy_key, row, Some("the legacy key contains a NUL character".to_owned())));
            }
        }
        let mut checked = Vec::with_capacity(self.checked.fields().len());
        for reference in &self.references {
            checked.push(text(&reference.evaluate(source).map_err(Error::data)?));
        }
        // Rows without a value, by column name. Further checks of the column would only repeat the violation.
        let mut failed: HashSet<(&str, usize)> = HashSet::new();
        for column in &self.computed {
            let (values, errors) = evaluate(&column.expression, source)?;
            for (row, error) in errors {
                failed.insert((&column.name, row));
                violations.push((column.cast, row, Some(error)));
            }
            let (values, errors) = column.read(values)?;
            for (row, error) in errors {
                failed.insert((&column.name, row));
                violations.push((column.cast, row, Some(error)));
            }
            let converted = kept(&values, &column.kept)?;
            for row in converted.no_value {
                failed.insert((&column.name, row));
                violations.push((column.cast, row, loss_reason(&values, row, &column.kept)));
            }
            for row in converted.too_precise {
                failed.insert((&column.name, row));
                violations.push((column.precision.unwrap_or(column.cast), row, None));
            }
            checked.push(converted.values);
        }
        let count = RecordBatchOptions::new().with_row_count(Some(source.num_rows()));
        let checked = RecordBatch::try_new_with_options(self.checked.clone(), checked, &count)?;
        for (check, expression) in &self.checks {
            let (values, errors) = evaluate(expression, &checked)?;
            let repeats = |row: usize| {
                !failed.is_empty() && expression.columns().iter().any(|column| failed.contains(&(column.as_str(), row)))
            };
            let values = values.as_boolean();
            let rows =
                (0..values.len()).filter(|row| values.is_valid(*row) && values.value(*row)).map(|row| (row, None));
            let errors = errors.into_iter().map(|(row, error)| (row, Some(error)));
            violations
                .extend(rows.chain(errors).filter(|(row, _)| !repeats(*row)).map(|(row, text)| (*check, row, text)));
        }
        let columns =
            std::iter::once(key).chain(checked.columns().iter().cloned()).chain(source.columns().iter().cloned());
        let rows = RecordBatch::try_new(self.kept.clone(), columns.collect())?;
        Ok(Transformed { rows, violations, wanted })
    }

    /// Applies the WHERE of `select`, and returns the included rows. A row for which it fails is included as a violation.
    fn wanted(
        &self,
        source: &RecordBatch,
        violations: &mut Vec<TransformError>,
    ) -> Result<(RecordBatch, Option<BooleanArray>)> {
        let Some((check, filter)) = &self.filter else { return Ok((source.clone(), None)) };
        let (values, errors) = evaluate(filter, source)?;
        let values = values.as_boolean();
        let mut wanted: Vec<bool> = (0..values.len()).map(|row| values.is_valid(row) && values.value(row)).collect();
        for (row, _) in &errors {
            wanted[*row] = true;
        }
        for (row, error) in errors {
            let number = wanted[..row].iter().filter(|wanted| **wanted).count();
            violations.push((*check, number, Some(error)));
        }
        let wanted = BooleanArray::from(wanted);
        Ok((filter_record_batch(source, &wanted)?, Some(wanted)))
    }
}

impl Computed {
    /// Applies the source's time zone and notation of numbers to the values of an expression.
    fn read(&self, values: ArrayRef) -> Result<(ArrayRef, Vec<(usize, String)>)> {
        let is_text = matches!(values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match (&self.zone, self.numbers) {
            (Some(zone), _) if matches!(self.kept.data_type, DataType::Timestamp(..)) => {
                localized(&values, &self.kept.data_type, zone)
            }
            (Some(zone), _)
                if matches!(self.kept.form, LogicalType::Range(_) | LogicalType::Multirange(_)) && is_text =>
            {
                localized_bounds(&values, &self.kept.form, zone)
            }
            (None, _)
                if is_local(values.data_type()) && matches!(self.kept.data_type, DataType::Timestamp(_, Some(_))) =>
            {
                let reason = "a time without a zone; set `timezone` of the source, or use `AT TIME ZONE`";
                let rows = (0..values.len()).filter(|row| values.is_valid(*row));
                let errors = rows.map(|row| (row, reason.to_owned())).collect();
                Ok((new_null_array(&self.kept.data_type, values.len()), errors))
            }
            (_, Some(style)) if is_text => {
                let (plain, wrong) = style.plain(&values)?;
                let decimal = style.decimal;
                let reason =
                    |row| (row, format!("the number is not written with `{decimal}` as its decimal character"));
                Ok((plain, wrong.into_iter().map(reason).collect()))
            }
            _ => Ok((values, Vec::new())),
        }
    }
}

/// Returns whether values of a type are local times.
fn is_local(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, None))
}

/// Returns the notation of numbers in texts that the source sets for a column.
fn number_style(source: &Schema, column: &str) -> Option<NumberStyle> {
    let character = |name| setting(source, name, column).and_then(|text| text.chars().next());
    let (decimal, thousands) = (character("decimal"), character("thousands"));
    let style = NumberStyle { decimal: decimal.unwrap_or('.'), thousands };
    (decimal.is_some() || thousands.is_some()).then_some(style)
}

/// Returns the value of each row, and the errors of rows without one.
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
            expression.join(batch, &left, &right)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn rows_with_failing_expressions_are_found_others_valued() {
        let engine = Engine::try_new(crate::engine::Limits::default()).unwrap();
        let schema =
            Arc::new(Schema::new(vec![arrow::datatypes::Field::new("d", arrow::datatypes::DataType::Utf8, true)]));
        let expression = engine.expression("to_date(d, '%d.%m.%Y')", &schema).unwrap();
        let days: Vec<Option<&str>> =
            (0..100).map(|row| Some(if row % 33 == 5 { "31.02.2024" } else { "01.02.2024" })).collect();
        let batch = RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(days))]).unwrap();
        let (values, errors) = evaluate(&expression, &batch).unwrap();
        assert_eq!(errors.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [5, 38, 71]);
        assert_eq!((values.len(), values.null_count()), (100, 3));
        assert!(errors[0].1.contains("31.02.2024"), "{}", errors[0].1);
    }
}

//! Control totals of the delta, to be compared with those of production: the number of rows, and per column the number of values and
//! their sum, or their smallest and largest.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use crate::engine::display_value;
use crate::error::{Error, Result};
use crate::plan::Table;
use crate::report::TriggerColumn;
use crate::target::{Aggregate, InsertPhase};

/// Totals of one table.
pub(super) struct ControlTotals {
    rows: u64,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    non_null: i64,
    sum: i128,
    /// The sum of absolute values. If it fits, no order of addition overflows.
    size: i128,
    smallest: ScalarValue,
    largest: ScalarValue,
    /// Whether a trigger of production decides the values.
    is_decided: bool,
    /// Whether production gives values back as they were written.
    comparable: bool,
}

/// The smallest and the largest value of an array; NULL for types without an order that all targets share.
fn bounds(values: &ArrayRef) -> Result<(ScalarValue, ScalarValue)> {
    macro_rules! primitive {
        ($type:ty) => {{
            let values = values.as_primitive::<$type>();
            (
                ScalarValue::new_primitive::<$type>(min(values), values.data_type())?,
                ScalarValue::new_primitive::<$type>(max(values), values.data_type())?,
            )
        }};
    }
    Ok(match values.data_type() {
        DataType::Int64 => primitive!(Int64Type),
        DataType::Float64 => primitive!(Float64Type),
        DataType::Date32 => primitive!(Date32Type),
        DataType::Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType),
        DataType::Decimal128(..) => primitive!(Decimal128Type),
        DataType::Decimal256(..) => primitive!(Decimal256Type),
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            (ScalarValue::from(min_string(values)), ScalarValue::from(max_string(values)))
        }
        _ => (ScalarValue::Null, ScalarValue::Null),
    })
}

/// Returns what production has in the columns whose values its triggers decide.
pub(super) async fn final_values(table: &Table, load: &mut dyn InsertPhase) -> Result<Vec<TriggerColumn>> {
    let has_order = |name: &String| {
        table.catalog.column(name).is_some_and(|column| {
            let (smallest, _) =
                bounds(&new_null_array(&column.data_type, 0)).unwrap_or((ScalarValue::Null, ScalarValue::Null));
            column.form.is_kept_as_written() && smallest.data_type() != DataType::Null
        })
    };
    let mut asked = Vec::new();
    for name in &table.triggered {
        asked.push((name.clone(), Aggregate::NonNull));
        if has_order(name) {
            asked.extend([Aggregate::Min, Aggregate::Max].map(|aggregate| (name.clone(), aggregate)));
        }
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let found = load.aggregates(&table.destination(), &asked).await?;
    let mut columns: Vec<TriggerColumn> = Vec::new();
    for ((name, aggregate), values) in asked.into_iter().zip(&found.columns()[1..]) {
        let text = (!values.is_null(0)).then(|| display_value(values.as_ref(), 0));
        match (aggregate, columns.last_mut(), text) {
            (Aggregate::Min, Some(column), Some(text)) => column.range = Some((text.clone(), text)),
            (Aggregate::Max, Some(TriggerColumn { range: Some((_, last)), .. }), Some(text)) => *last = text,
            (Aggregate::NonNull, _, Some(text)) => {
                columns.push(TriggerColumn { column: name, values: text.parse().unwrap_or_default(), range: None });
            }
            _ => {}
        }
    }
    Ok(columns)
}

impl ControlTotals {
    pub(super) fn new(table: &Table) -> Self {
        let column = |name: &String| Column {
            name: name.clone(),
            non_null: 0,
            sum: 0,
            size: 0,
            smallest: ScalarValue::Null,
            largest: ScalarValue::Null,
            is_decided: table.triggered.contains(name),
            comparable: table.catalog.column(name).is_none_or(|column| column.form.is_kept_as_written()),
        };
        Self { rows: 0, columns: table.columns.iter().map(|found| column(&found.name)).collect() }
    }

    /// Adds the rows of a batch: `_row` and the table's columns.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        for (column, values) in self.columns.iter_mut().zip(&batch.columns()[1..]) {
            column.non_null += (values.len() - values.null_count()) as i64;
            let mut add = |value: i128| {
                column.sum += value;
                column.size = column.size.saturating_add(value.abs());
            };
            match values.data_type() {
                DataType::Int64 => {
                    values.as_primitive::<Int64Type>().iter().flatten().for_each(|value| add(value.into()));
                }
                DataType::Decimal128(..) => values.as_primitive::<Decimal128Type>().iter().flatten().for_each(add),
                _ => {}
            }
            let (smallest, largest) = bounds(values)?;
            if !smallest.is_null() && (column.smallest.is_null() || smallest < column.smallest) {
                column.smallest = smallest;
            }
            if !largest.is_null() && (column.largest.is_null() || largest > column.largest) {
                column.largest = largest;
            }
        }
        Ok(())
    }

    /// Compares these totals with those of production.
    ///
    /// # Errors
    /// If they differ. The load must not be committed then.
    pub(super) async fn compare(&self, table: &Table, load: &mut dyn InsertPhase) -> Result<()> {
        let mut asked = Vec::new();
        let mut expected = Vec::new();
        for column in &self.columns {
            if column.is_decided {
                continue;
            }
            asked.push((column.name.clone(), Aggregate::NonNull));
            expected.push(column.non_null.to_string());
            // Sums are compared only if no database rounds or overflows on the way.
            let most: i128 = match table.catalog.column(&column.name).map(|column| &column.data_type) {
                Some(DataType::Int64) => i64::MAX.into(),
                Some(DataType::Decimal128(..)) => 1 << 53,
                _ => 0,
            };
            if column.size < most && column.non_null > 0 {
                asked.push((column.name.clone(), Aggregate::Sum));
                expected.push(column.sum.to_string());
            } else if !column.smallest.is_null() && column.comparable {
                asked.push((column.name.clone(), Aggregate::Min));
                expected.push(display_value(column.smallest.to_array()?.as_ref(), 0));
                asked.push((column.name.clone(), Aggregate::Max));
                expected.push(display_value(column.largest.to_array()?.as_ref(), 0));
            }
        }
        let found = load.aggregates(&table.destination(), &asked).await?;
        let rows = display_value(found.column(0).as_ref(), 0);
        let differs = |what: &str, expected: &str, found: &str| {
            Error::pipeline(format!(
                "`{}` does not reconcile: {what} is {found} in production, expected {expected}",
                table.name
            ))
            .hint("nothing was loaded; check for a trigger of production that changes rows")
        };
        if rows != self.rows.to_string() {
            return Err(differs("the number of rows", &self.rows.to_string(), &rows));
        }
        for (at, ((name, total), expected)) in asked.iter().zip(&expected).enumerate() {
            let found = display_value(found.column(at + 1).as_ref(), 0);
            if found != *expected {
                let what = match total {
                    Aggregate::NonNull => "number of values",
                    Aggregate::Sum => "sum",
                    Aggregate::Min => "smallest value",
                    Aggregate::Max => "largest value",
                };
                return Err(differs(&format!("the {what} of `{name}`"), expected, &found));
            }
        }
        Ok(())
    }
}

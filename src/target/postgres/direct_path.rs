//! The direct path: the tables whose rows are copied into production without staging, and the comparison of these rows with the delta.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::{SortColumn, lexsort_to_indices, partition, take_arrays, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use tokio_postgres::Client;

use super::catalog::PgCatalog;
use super::connect::Connector;
use super::reading;
use super::staging::Staged;
use crate::engine::{ident, literal};
use crate::error::Result;
use crate::spec::{LoadSpec, Staging};
use crate::target::{Batches, Destination, ForeignKey, KeyBlock, UniqueConstraint};

/// Returns which tables need no staging. Each has a key that production keeps unique, and that is known before the rows are copied, so that
/// they are found again. Production accepts their values as copied, returns them unchanged, and has no rules for an INSERT. No later check
/// needs staged rows.
pub(super) fn eligible(
    known: &PgCatalog,
    spec: &LoadSpec,
    destinations: &[Destination],
    blocks: &BTreeMap<String, KeyBlock>,
) -> Vec<bool> {
    let may = |destination: &Destination| {
        let Destination { table, key, .. } = destination;
        let has_rules = known.tables.get(&table.name).is_some_and(|table| !table.rules.is_empty());
        let is_block = is_block(destination) && blocks.get(&table.name).is_some_and(|block| block.step == 1);
        let is_given =
            is_unique(destination) && !key.is_empty() && key.iter().all(|name| destination.columns.contains(name));
        (is_block || is_given)
            && !has_rules
            && !destination.has_free_values()
            && destination.changed.is_empty()
            && destination.columns.iter().all(|name| known.is_kept_as_copied(table, name))
    };
    destinations.iter().map(|destination| spec.staging == Staging::WhenNeeded && may(destination)).collect()
}

/// Returns whether production keeps the key of each row unique.
fn is_unique(Destination { table, key, .. }: &Destination) -> bool {
    let is_whole = |unique: &UniqueConstraint| {
        unique.condition.is_none() && unique.own.is_none() && unique.ignore_case.is_empty() && unique.columns == *key
    };
    table.primary_key == *key || table.uniques.iter().any(is_whole)
}

/// Returns whether the keys of a table's rows are a block of consecutive numbers, by which they are found again in their order.
pub(super) fn is_block(destination: &Destination) -> bool {
    destination.assigned.as_ref().is_some_and(|assigned| destination.key == [assigned.column.as_str()])
}

/// Sorts the rows of a batch by the reference that leads to the most rows. A server that checks each row then finds the page that it has
/// just read.
pub(super) fn by_reference(batch: &RecordBatch, references: &[ForeignKey]) -> Result<RecordBatch> {
    let (mut most, mut order) = (1, None);
    for reference in references {
        let columns: Option<Vec<_>> =
            reference.columns.iter().map(|name| batch.column_by_name(name).cloned()).collect();
        let Some(columns) = columns else { continue };
        let by: Vec<_> = columns.iter().map(|values| SortColumn { values: values.clone(), options: None }).collect();
        let sorted = lexsort_to_indices(&by, None)?;
        let count = partition(&take_arrays(&columns, &sorted, None)?)?.len();
        if count > most {
            (most, order) = (count, Some(sorted));
        }
    }
    match order {
        Some(order) => Ok(take_record_batch(batch, &order)?),
        None => Ok(batch.clone()),
    }
}

/// Returns a batch of a key map without row numbers, and with the run as its last column.
pub(super) fn of_run(batch: &RecordBatch, run: &str) -> Result<RecordBatch> {
    let run: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(run, batch.num_rows())));
    let schema = batch.schema();
    let fields = schema.fields().iter().skip(1).cloned().chain([Arc::new(Field::new("run", DataType::Utf8, false))]);
    let columns = batch.columns().iter().skip(1).cloned().chain([run]);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns.collect())?)
}

/// Compares the rows of production whose keys are in a block with the expected ones, in order of their keys. Returns the first difference
/// in words.
pub(super) async fn compare(
    connector: &Connector,
    client: &Client,
    staged: &Staged<'_>,
    (first, last): &(String, String),
    expected: Batches<'_>,
) -> Result<Option<String>> {
    let destination = staged.destination;
    let Some(key) = destination.key.first() else { return Ok(None) };
    let columns: Vec<_> = destination.columns.iter().map(|name| staged.wire(name)).collect();
    let wanted: Vec<_> = columns.iter().map(|column| column.read("p")).collect();
    let key = ident(key);
    let query = format!(
        "SELECT {} FROM {} AS p WHERE p.{key} BETWEEN {} AND {} ORDER BY p.{key}",
        wanted.join(", "),
        staged.own_rows(),
        literal(first),
        literal(last)
    );
    reading::compare(connector, client, &query, &columns, expected).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(columns: [(&str, &[Option<i64>]); 3]) -> RecordBatch {
        let columns = columns.map(|(name, values)| (name, Arc::new(Int64Array::from(values.to_vec())) as ArrayRef));
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true))).unwrap()
    }

    fn reference(columns: &[&str]) -> ForeignKey {
        let columns: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
        ForeignKey { to_columns: columns.clone(), columns, to: "parent".to_owned(), ..ForeignKey::default() }
    }

    fn keys(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_follow_the_widest_reference_and_stay_whole() {
        let rows = batch([
            ("key", &[Some(1), Some(2), Some(3), Some(4), Some(5)]),
            ("region", &[Some(2), Some(1), Some(2), Some(1), Some(1)]),
            ("customer", &[Some(50), Some(20), None, Some(40), Some(20)]),
        ]);
        let sent = by_reference(&rows, &[reference(&["region"]), reference(&["customer"])]).unwrap();
        let customers: Vec<_> = sent.column(2).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(customers, [None, Some(20), Some(20), Some(40), Some(50)]);
        let mut again = keys(&sent);
        again.sort_unstable();
        assert_eq!(again, [1, 2, 3, 4, 5]);
        for row in 0..5 {
            let was = keys(&sent)[row] as usize - 1;
            assert_eq!(sent.slice(row, 1), rows.slice(was, 1));
        }
    }

    #[test]
    fn rows_that_all_refer_to_one_row_or_to_none_stay_as_they_are() {
        let rows = batch([
            ("key", &[Some(3), Some(1), Some(2)]),
            ("region", &[Some(7), Some(7), Some(7)]),
            ("customer", &[Some(9), Some(8), Some(7)]),
        ]);
        assert_eq!(by_reference(&rows, &[reference(&["region"])]).unwrap(), rows);
        assert_eq!(by_reference(&rows, &[reference(&["elsewhere"])]).unwrap(), rows);
        assert_eq!(by_reference(&rows, &[]).unwrap(), rows);
        let by_two = by_reference(&rows, &[reference(&["region", "customer"])]).unwrap();
        assert_eq!(keys(&by_two), [2, 1, 3]);
    }
}

//! Questions about production: whether values of the delta are keys, unique values, or earlier legacy keys there.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema};
use futures::TryStreamExt;

use crate::engine::{RowNumber, display_value, row_column, row_field, row_numbers};
use crate::target::{CatalogTable, Lookup, Production, Relation};

/// The number of distinct values that one question contains at most.
const VALUES: usize = 200;

/// The number of rows of production that are read to find values without an index.
const ROWS: usize = 10_000;

/// Answers questions about production. An unanswered question counts as values that are not found, because an inference must not prevent
/// a draft.
pub(super) struct Probe<'a> {
    target: &'a dyn Production,
}

impl<'a> Probe<'a> {
    pub(super) fn new(target: &'a dyn Production) -> Self {
        Self { target }
    }

    /// Returns the percentage of the values that a column of production has. The column has an index.
    pub(super) async fn in_column(&self, table: &CatalogTable, column: &str, values: &BTreeSet<&str>) -> usize {
        let Some(found) = table.column(column) else { return 0 };
        let known: Vec<&str> = values.iter().copied().filter(|value| found.form.canonical(value).is_some()).collect();
        let canonical: Vec<_> = known.iter().filter_map(|value| found.form.canonical(value)).collect();
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(canonical.iter().take(VALUES)));
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let Ok(keys) = cast_with_options(&texts, &found.data_type, &options) else { return 0 };
        let lookup = Lookup::new(Relation::Production(table.name.clone()), vec![column.to_owned()], Vec::new());
        self.share(&lookup, keys, values.len()).await
    }

    /// Returns the percentage of the values that are legacy keys of earlier runs.
    pub(super) async fn in_key_map(&self, table: &CatalogTable, values: &BTreeSet<&str>) -> usize {
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(values.iter().take(VALUES)));
        let lookup = Lookup::new(Relation::KeyMap(table.key_map.clone()), vec!["legacy_key".to_owned()], Vec::new());
        self.share(&lookup, keys, values.len()).await
    }

    /// Returns the percentage of the values that are among the first rows of a column without an index.
    pub(super) async fn in_first_rows(&self, table: &CatalogTable, column: &str, values: &BTreeSet<&str>) -> usize {
        let Ok(batches) = self.target.scan(&table.name, &[column.to_owned()], &[], Some(ROWS)).await else { return 0 };
        let Ok(batches) = batches.try_collect::<Vec<_>>().await else { return 0 };
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch.column(0), row)));
        let known: BTreeSet<String> = rows
            .filter(|(column, row)| column.is_valid(*row))
            .map(|(column, row)| display_value(column.as_ref(), row))
            .collect();
        percent(values.iter().filter(|value| known.contains(**value)).count(), values.len())
    }

    async fn share(&self, lookup: &Lookup, keys: ArrayRef, asked: usize) -> usize {
        let ids = row_column(RowNumber::default(), keys.len());
        let present: Vec<bool> = (0..keys.len()).map(|row| keys.is_valid(row)).collect();
        let fields = vec![row_field("_id"), Field::new(&lookup.match_on[0], keys.data_type().clone(), true)];
        let schema = Arc::new(Schema::new(fields));
        let Ok(batch) = RecordBatch::try_new(schema, vec![ids, keys]) else { return 0 };
        let Ok(batch) = arrow::compute::filter_record_batch(&batch, &present.into()) else { return 0 };
        let Ok(answers) = self.target.lookup(lookup, &[batch]).await else { return 0 };
        let found: BTreeSet<_> = answers.iter().flat_map(|batch| row_numbers(batch.column(0))).collect();
        percent(found.len(), asked.min(VALUES))
    }
}

fn percent(count: usize, total: usize) -> usize {
    (count * 100).checked_div(total).unwrap_or(0)
}

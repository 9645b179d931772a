//! Mappings on their way into the key map: held as the delta's rows are, so that there may be more of them than memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use futures::{StreamExt, stream};

use crate::engine::{
    Engine, Hashes, RowNumber, RowSet, RowStore, RowsTable, Space, display_value, ident, row_column, row_field,
    row_numbers,
};
use crate::error::{Error, Result};
use crate::journal::RunId;
use crate::target::{Batches, Destination, Lookup, Production, Relation, key_map_schema};

/// Mappings that are asked about in one question.
const QUESTION: usize = 32 << 10;

/// The schema of mappings: `legacy_key`, and the key's columns.
pub(super) fn schema(destination: &Destination) -> SchemaRef {
    let staged = key_map_schema(destination);
    Arc::new(Schema::new(staged.fields()[1..].to_vec()))
}

/// Two mappings of one legacy key, or of one key.
#[derive(Debug)]
pub(super) struct Twice {
    /// The columns that both have the same values in.
    columns: Vec<String>,
    /// The values.
    values: Vec<String>,
    /// The earlier row.
    pub(super) first: RowNumber,
    /// The later row.
    pub(super) second: RowNumber,
}

impl Twice {
    /// The two rows that are the same.
    pub(super) fn what(&self) -> String {
        match self.columns.as_slice() {
            [column] if column == "legacy_key" => format!("legacy key `{}`", self.values.join(", ")),
            _ => format!("key {}", self.values.join(", ")),
        }
    }
}

/// The first mapping whose legacy key, or whose key, an earlier one has.
pub(super) async fn twice(engine: &Engine, rows: &Arc<RowStore>) -> Result<Option<Twice>> {
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut found: Option<Twice> = None;
    for columns in [&names[..1], &names[1..]] {
        let twice = twice_in(engine, rows, columns).await?;
        found = match (found, twice) {
            (Some(one), Some(other)) => Some(if other.second < one.second { other } else { one }),
            (one, other) => one.or(other),
        };
    }
    Ok(found)
}

async fn twice_in(engine: &Engine, rows: &Arc<RowStore>, columns: &[String]) -> Result<Option<Twice>> {
    let wanted = |name: &str| columns.iter().any(|column| column == name);
    let none = RowSet::default();
    let perhaps = Hashes::new(rows, &rows.columns(wanted), &none, engine.limits()).repeated()?;
    if perhaps.is_empty() {
        return Ok(None);
    }
    // Few mappings share a hash. SQL decides whether they are equal.
    let others = Arc::new(perhaps.inverted(rows.range()));
    engine.register(Space::Internal, "mapping", RowsTable::new(rows.clone(), others, wanted))?;
    let list = columns.iter().map(|column| ident(column)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT _row, _first, {list} FROM (
             SELECT *, min(_row) OVER (PARTITION BY {list}) AS _first,
                 row_number() OVER (PARTITION BY {list} ORDER BY _row) AS _number FROM internal.mapping) q
         WHERE _number = 2 ORDER BY _row LIMIT 1"
    );
    let mut found = None;
    engine
        .for_each(&sql, |batch| {
            let mut rows = row_numbers(batch.column(0)).zip(row_numbers(batch.column(1)));
            if let Some((second, first)) = rows.next().filter(|_| found.is_none()) {
                found = Some(Twice {
                    columns: columns.to_vec(),
                    values: batch.columns()[2..].iter().map(|values| display_value(values.as_ref(), 0)).collect(),
                    first,
                    second,
                });
            }
            Ok(())
        })
        .await?;
    Ok(found)
}

/// Which mappings the key map has already, after all of them are compared with it and with production; `mapping` is what they are
/// called. Asks some at a time.
///
/// # Errors
/// If one contradicts the key map, or its row is not in production.
pub(super) async fn known(
    target: &dyn Production,
    destination: &Destination,
    mapping: &str,
    rows: &Arc<RowStore>,
) -> Result<RowSet> {
    let mut known = RowSet::default();
    let all = rows.columns(|_| true);
    let (mut waiting, mut first, mut count) = (Vec::new(), RowNumber::default(), 0);
    for batch in rows.batches(all) {
        let (at, batch) = batch?;
        if waiting.is_empty() {
            first = at;
        }
        count += batch.num_rows();
        waiting.push(batch);
        if count >= QUESTION {
            known_among(target, destination, mapping, first, &joined(&waiting)?, &mut known).await?;
            waiting.clear();
            count = 0;
        }
    }
    if !waiting.is_empty() {
        known_among(target, destination, mapping, first, &joined(&waiting)?, &mut known).await?;
    }
    Ok(known)
}

fn joined(batches: &[RecordBatch]) -> Result<RecordBatch> {
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    Ok(concat_batches(&schema, batches)?)
}

/// Does this for a part of the mappings, whose first row is `first`.
pub(super) async fn known_among(
    target: &dyn Production,
    destination: &Destination,
    mapping: &str,
    first: RowNumber,
    rows: &RecordBatch,
    known: &mut RowSet,
) -> Result<()> {
    let table = &destination.table.name;
    let key_of = |row: RowNumber| -> Vec<String> {
        rows.columns()[1..].iter().map(|column| display_value(column.as_ref(), row.index(first))).collect()
    };
    let contradiction = |row: RowNumber, what: String| {
        let legacy = display_value(rows.column(0).as_ref(), row.index(first));
        Error::data(format!("row {} of `{mapping}` (legacy key `{legacy}`) contradicts {what}", row + 1))
            .hint("nothing was imported, because the key map is append-only; find out which mapping is right")
    };
    let key: Vec<usize> = (1..rows.num_columns()).collect();
    let by_key = question(rows, first, &key)?;
    let lookup = Lookup::new(Relation::KeyMap(table.clone()), vec!["legacy_key".into()], destination.key.clone());
    for answer in target.lookup(&lookup, &[question(rows, first, &[0])?]).await? {
        for (at, row) in row_numbers(answer.column(0)).enumerate() {
            let there: Vec<_> = answer.columns()[1..].iter().map(|column| display_value(column.as_ref(), at)).collect();
            if there != key_of(row) {
                return Err(contradiction(row, format!("the key map: its key is {} there", there.join(", "))));
            }
            known.insert(row);
        }
    }
    let lookup = Lookup::new(Relation::KeyMap(table.clone()), destination.key.clone(), vec!["legacy_key".into()]);
    for answer in target.lookup(&lookup, std::slice::from_ref(&by_key)).await? {
        for (at, row) in row_numbers(answer.column(0)).enumerate() {
            if !known.contains(row) {
                let (legacy, key) = (display_value(answer.column(1).as_ref(), at), key_of(row).join(", "));
                return Err(contradiction(row, format!("the key map: key {key} belongs to legacy key `{legacy}`")));
            }
        }
    }
    let missing = not_in_production(target, destination, &by_key).await?;
    match missing.iter().find(|row| !known.contains(**row)) {
        Some(row) => Err(contradiction(*row, format!("production: `{table}` has no row {}", key_of(*row).join(", ")))),
        None => Ok(()),
    }
}

/// The mappings that are not in `without` as they are staged, with their own numbers.
pub(super) fn staged<'a>(rows: &'a Arc<RowStore>, destination: &Destination, without: &'a RowSet) -> Batches<'a> {
    let schema = key_map_schema(destination);
    let batches = rows.batches(rows.columns(|_| true)).map(move |batch| {
        let (first, batch) = batch?;
        let count = batch.num_rows();
        let numbers = row_column(first, count);
        let columns = std::iter::once(numbers).chain(batch.columns().iter().cloned()).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        let wanted: BooleanArray = without.others(first, count);
        Ok(filter_record_batch(&batch, &wanted)?)
    });
    stream::iter(batches).boxed()
}

/// Columns of a batch as a question: `_id` is the row's number, that of the first one is `first`.
pub(super) fn question(rows: &RecordBatch, first: RowNumber, columns: &[usize]) -> Result<RecordBatch> {
    let mut fields = vec![row_field("_id")];
    let mut values = vec![row_column(first, rows.num_rows())];
    for column in columns {
        fields.push(rows.schema().field(*column).clone());
        values.push(rows.column(*column).clone());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?)
}

/// The rows of a question by key that production does not have.
pub(super) async fn not_in_production(
    target: &dyn Production,
    destination: &Destination,
    by_key: &RecordBatch,
) -> Result<Vec<RowNumber>> {
    let lookup = Lookup::new(Relation::Production(destination.table.name.clone()), destination.key.clone(), Vec::new());
    let mut there = RowSet::default();
    for answer in target.lookup(&lookup, std::slice::from_ref(by_key)).await? {
        for row in row_numbers(answer.column(0)) {
            there.insert(row);
        }
    }
    Ok(row_numbers(by_key.column(0)).filter(|row| !there.contains(*row)).collect())
}

/// How many mappings each run has.
pub(super) fn count_runs(runs: &ArrayRef, by_run: &mut BTreeMap<RunId, u64>) {
    for run in runs.as_string::<i32>().iter().flatten() {
        match by_run.get_mut(run) {
            Some(count) => *count += 1,
            None => drop(by_run.insert(run.into(), 1)),
        }
    }
}

//! Rows on their way into a target and back, short to write.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use delta_pipeline::internals::engine::RowNumber;
use delta_pipeline::internals::error::{Error, Result};
use delta_pipeline::internals::journal::{Event, Input, Journal, Started, TableManifest};
use delta_pipeline::internals::target::{
    Batches, ConstraintViolation, Destination, InsertError, InsertPhase, Inserted, JournalWriter, LoadMode, RowSource,
    RunRecord, StagingPhase, TableIndex, Target,
};
use futures::{StreamExt, TryStreamExt, stream};

/// A table and the rows that go into it: its columns by name.
pub type Part<'a> = (&'a Destination, Vec<(&'a str, ArrayRef)>);

pub fn numbers<N: Into<Option<i64>>>(values: impl IntoIterator<Item = N>) -> ArrayRef {
    Arc::new(values.into_iter().map(Into::into).collect::<Int64Array>())
}

pub fn texts<'a, T: Into<Option<&'a str>>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(values.into_iter().map(Into::into).collect::<StringArray>())
}

/// The rows with these numbers.
pub fn numbered<const N: usize>(numbers: [u64; N]) -> Vec<RowNumber> {
    numbers.map(RowNumber::new).to_vec()
}

/// The numbers of rows, from one on.
pub fn counted(from: u32, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((i64::from(from)..).take(rows)))
}

/// A batch of columns whose values may be NULL.
pub fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<_> =
        columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(columns.first().map(|(_, values)| values.len()));
    let columns = columns.into_iter().map(|(_, values)| values).collect();
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap()
}

/// A value as text.
pub fn shown(values: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(values.as_ref(), &options).unwrap().value(row).to_string()
}

/// The rows of batches, their values with `|` between, sorted.
/// All rows of a stream.
pub async fn taken(batches: Result<Batches<'_>>) -> Vec<RecordBatch> {
    batches.unwrap().try_collect().await.unwrap()
}

pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values: Vec<_> = batch.columns().iter().map(|values| shown(values, row)).collect();
            lines.push(values.join("|"));
        }
    }
    lines.sort();
    lines
}

fn column(columns: &[(&str, ArrayRef)], name: &str) -> ArrayRef {
    let found = columns.iter().find(|(found, _)| *found == name);
    found.unwrap_or_else(|| panic!("the rows have no `{name}`")).1.clone()
}

/// The rows as production should have them, numbered.
pub fn expected((destination, columns): &Part<'_>) -> RecordBatch {
    let rows = destination.columns.iter().map(|name| (name.as_str(), column(columns, name)));
    batch([("_row", counted(0, columns[0].1.len()))].into_iter().chain(rows).collect())
}

/// The rows as they are staged: with `_level` where the table wants it.
pub fn staged(part: &Part<'_>) -> RecordBatch {
    let rows = expected(part);
    if !part.0.self_referencing {
        return rows;
    }
    let (schema, level) = (rows.schema(), column(&part.1, "_level"));
    let mut all: Vec<_> =
        schema.fields().iter().map(|field| field.name().as_str()).zip(rows.columns().to_vec()).collect();
    all.insert(1, ("_level", level));
    batch(all)
}

/// Their key map; the legacy key of the key 1|2 is `L1|2`.
pub fn mapped((destination, columns): &Part<'_>) -> RecordBatch {
    let keys: Vec<_> = destination.key.iter().map(|name| (name.as_str(), column(columns, name))).collect();
    let rows = keys[0].1.len();
    let legacy = (0..rows).map(|row| {
        let values: Vec<_> = keys.iter().map(|(_, values)| shown(values, row)).collect();
        format!("L{}", values.join("|"))
    });
    let legacy: ArrayRef = Arc::new(StringArray::from_iter_values(legacy));
    batch([vec![("_row", counted(0, rows)), ("legacy_key", legacy)], keys].concat())
}

/// Stages rows and their key map.
pub async fn stage(load: &mut dyn StagingPhase, part: &Part<'_>) -> Result<()> {
    let (rows, keys) = (staged(part), mapped(part));
    let count = rows.num_rows() as u64;
    assert_eq!(load.stage(part.0, stream::iter([Ok(rows)]).boxed()).await?, count);
    assert_eq!(load.stage_keys(part.0, stream::iter([Ok(keys)]).boxed()).await?, count);
    Ok(())
}

fn all(parts: &[Part<'_>]) -> Vec<Destination> {
    parts.iter().map(|(destination, _)| (*destination).clone()).collect()
}

/// Begins a load and stages everything.
pub async fn begin(target: &dyn Target, run: &str, parts: &[Part<'_>]) -> Result<Box<dyn StagingPhase>> {
    let mut load = target.begin(&run.into(), LoadMode::Commit).await?;
    load.clear_staging(&all(parts)).await?;
    for part in parts {
        stage(load.as_mut(), part).await?;
    }
    Ok(load)
}

/// What a run brings, once more.
pub struct Rows<'a>(pub &'a [Part<'a>]);

impl RowSource for Rows<'_> {
    fn staged_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter([Ok(staged(&self.0[at]))]).boxed())
    }

    fn expected_rows(&self, at: TableIndex) -> Result<Batches<'_>> {
        self.staged_rows(at)
    }

    fn key_map(&self, at: TableIndex) -> Result<Batches<'_>> {
        Ok(stream::iter([Ok(mapped(&self.0[at]))]).boxed())
    }

    fn referenced(&self, at: TableIndex, column: &str) -> Result<RecordBatch> {
        let values = self::column(&self.0[at].1, column);
        let (mut rows, mut seen) = (Vec::new(), Vec::new());
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            if !seen.contains(&shown(&values, row)) {
                seen.push(shown(&values, row));
                rows.push(row as i64);
            }
        }
        let rows: ArrayRef = Arc::new(Int64Array::from(rows));
        let mut columns = vec![("key", take(&values, &rows, None)?), ("_row", rows.clone())];
        if let Some((_, named)) = self.0[at].1.iter().find(|(name, _)| *name == "named") {
            columns.insert(0, ("named", take(named, &rows, None)?));
        }
        columns.reverse();
        Ok(batch(columns))
    }

    fn referring(&self, at: TableIndex, column: &str, rows: &[RowNumber]) -> Result<Vec<RowNumber>> {
        let values = self::column(&self.0[at].1, column);
        let wanted: Vec<_> = rows.iter().map(|row| shown(&values, row.get() as usize)).collect();
        let referring = (0..values.len()).filter(|row| wanted.contains(&shown(&values, *row)));
        Ok(referring.map(|row| RowNumber::new(row as u64)).collect())
    }

    fn mismatch_error(&self, _: TableIndex, how: &str) -> Error {
        Error::internal(how)
    }
}

/// What is inserted of so many rows.
pub fn inserted(rows: u64) -> Inserted {
    Inserted { rows, mappings: rows, verified: false }
}

/// Inserts rows that are staged, or that need not be.
pub async fn insert(load: Box<dyn StagingPhase>, parts: &[Part<'_>]) -> Result<Box<dyn InsertPhase>, InsertError> {
    let destinations = all(parts);
    let mut load = load.begin_insert(&destinations).await?;
    let expected: Vec<_> = parts.iter().map(|(_, columns)| inserted(columns[0].1.len() as u64)).collect();
    assert_eq!(load.insert(&destinations, &Rows(parts)).await?, expected);
    load.validate_deferred(&destinations, &Rows(parts)).await?;
    Ok(load)
}

/// Inserts rows and commits them.
pub async fn commit(load: Box<dyn StagingPhase>, parts: &[Part<'_>], run: &str) -> Result<(), InsertError> {
    let mut load = insert(load, parts).await?.finish();
    load.record_run(&record(run), &[]).await?;
    load.commit().await
}

/// A whole load.
pub async fn load(target: &dyn Target, run: &str, parts: &[Part<'_>]) -> Result<()> {
    let load = begin(target, run, parts).await?;
    commit(load, parts, run).await?;
    target.unlock().await
}

/// Notes what a run is: one that may reserve keys for a thousand rows of a table, and load the files of the tables that most tests have.
pub async fn announce<L: JournalWriter + ?Sized>(load: &mut L, run: &str, tables: &[&str]) {
    let file = |hash: &str| Input { name: hash.into(), hash: hash.into(), reload_of: None };
    let keyed = tables.iter().map(|table| (*table, 1 << 40));
    let ids = keyed.chain([("item", 0), ("part", 0)]);
    let tables = ids
        .flat_map(|(table, rows)| [(table.to_owned(), rows), (format!("public.{table}"), rows)])
        .map(|(table, rows)| TableManifest {
            table,
            rows,
            verdicts: String::new(),
            references: std::collections::BTreeMap::new(),
            files: ["h1", "h2", "h3"].map(file).to_vec(),
        })
        .collect();
    let started = Started { pipeline: "p".into(), plan: "h".into(), moment: "m".into(), tables };
    // A load of a run that has begun before goes on with it.
    load.append_event(&Journal::new(&run.into()).record(Event::Started(started)).unwrap()).await.ok();
}

pub fn record(run: &str) -> RunRecord {
    RunRecord { id: run.into(), pipeline: "p".into(), started_at: format!("2025 {run}"), report: "{}".into() }
}

/// What was refused.
pub fn refused<T>(result: Result<T, InsertError>) -> ConstraintViolation {
    match result {
        Ok(_) => panic!("nothing was refused"),
        Err(InsertError::Violation(refusal)) => refusal,
        Err(InsertError::Other(error)) => panic!("it failed instead: {error:?}"),
    }
}

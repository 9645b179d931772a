//! The key map's history: bringing in the mapping of the initial conversion, and proving that what is there holds.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use futures::StreamExt;
use futures::stream;

use super::Opened;
use super::load::record;
use super::session::run_id;
use crate::engine::{Mask, list, shown};
use crate::error::{Error, Result};
use crate::keys::map;
use crate::report::{Command, FileReport, Report, TableReport, VERSION, Verdict};
use crate::target::{Access, Destination, Intent, Lookup, Place, Target};

/// Brings the mapping of an initial conversion into the key map: append only, all rows or none.
///
/// # Errors
/// Where a row contradicts another one or the key map, or maps to a key that production does not have.
pub async fn import(opened: &Opened, mapping: &Path, table: &str) -> Result<Report> {
    let started = jiff::Timestamp::now();
    let destination = destination(opened, table)?;
    let run = run_id(started);
    opened.target.preflight(std::slice::from_ref(&destination), Access::Write).await?;
    opened.safeguards.admit(opened.target.as_ref()).await?;
    opened.target.claim(&run).await?;
    let spec = opened.document.spec.as_ref().and_then(|spec| spec.tables.get(table));
    let legacy_key = spec.map_or_else(Vec::new, |spec| spec.legacy_key.clone());
    let rows = map::read(mapping, &legacy_key, &destination)?;
    let new = new_rows(opened.target.as_ref(), &destination, mapping, &rows).await?;
    let (read, count) = (rows.num_rows() as u64, new.num_rows() as u64);
    let report = Report {
        version: VERSION,
        run: run.clone(),
        pipeline: opened.document.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default(),
        command: Command::Import,
        target: opened.shown.clone(),
        started_at: started.to_string(),
        verdict: if count == 0 { Verdict::Empty } else { Verdict::Loaded },
        reasons: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
        tables: vec![TableReport {
            name: table.to_owned(),
            files: vec![FileReport { name: mapping.display().to_string(), bytes: 0, hash: String::new() }],
            read,
            rejected: 0,
            skipped: read - count,
            accepted: count,
            inserted: count,
            verdicts: String::new(),
            keys: None,
            checks: Vec::new(),
            left_to_production: Vec::new(),
            triggers: Vec::new(),
        }],
        steps: Vec::new(),
        rejects: None,
    };
    if count > 0 {
        let mut load = opened.target.begin(&run, Intent::Keep).await?;
        load.clean_staging(std::slice::from_ref(&destination)).await?;
        load.stage_keys(&destination, stream::iter([Ok(new)]).boxed()).await?;
        let next = "import the mapping again";
        opened.safeguards.admit_insertion(opened.target.as_ref(), load.as_mut(), next).await?;
        load.open_insertion(std::slice::from_ref(&destination)).await?;
        let appended = load.append_key_map(&destination).await?;
        super::load::expect(table, "appended to the key map", appended, count)?;
        load.record(&record(&report)?, &[]).await?;
        load.commit().await?;
    }
    opened.target.release().await?;
    Ok(report)
}

fn destination(opened: &Opened, table: &str) -> Result<Destination> {
    let found = opened.catalog.table(table).ok_or_else(|| {
        Error::usage(format!("production has no table `{table}`"))
            .hint(format!("its tables are {}", list(&opened.catalog.names())))
    })?;
    let destination = map::destination(opened.document.spec.as_ref().and_then(|spec| spec.tables.get(table)), found);
    if destination.key.is_empty() {
        return Err(Error::pipeline(format!("`{table}` has no key"))
            .hint("name its key column in the pipeline file: `key: { column: … }`"));
    }
    Ok(destination)
}

/// The rows of a mapping that the key map does not have yet, held against it and against production.
async fn new_rows(
    target: &dyn Target,
    destination: &Destination,
    mapping: &Path,
    rows: &RecordBatch,
) -> Result<RecordBatch> {
    let table = &destination.table.name;
    let contradiction = |row: u32, what: String| {
        let legacy = shown(rows.column(1).as_ref(), row as usize);
        Error::data(format!("row {} of `{}` (legacy key `{legacy}`) contradicts {what}", row + 1, mapping.display()))
            .hint("the key map is append only, nothing was brought in: mend the file, or find out which of the two is right")
    };
    let key: Vec<usize> = (2..rows.num_columns()).collect();
    let by_key = question(rows, &key)?;

    let mut known = Mask::default();
    let lookup = Lookup::new(Place::KeyMap(table.clone()), vec!["legacy_key".into()], destination.key.clone());
    for answer in target.lookup(&lookup, &[question(rows, &[1])?]).await? {
        for (at, row) in ids(&answer).iter().enumerate() {
            let there: Vec<_> = answer.columns()[1..].iter().map(|column| shown(column.as_ref(), at)).collect();
            if there != key_of(rows, *row) {
                return Err(contradiction(*row, format!("the key map: its key is {} there", there.join(", "))));
            }
            known.insert(*row);
        }
    }
    let lookup = Lookup::new(Place::KeyMap(table.clone()), destination.key.clone(), vec!["legacy_key".into()]);
    for answer in target.lookup(&lookup, std::slice::from_ref(&by_key)).await? {
        for (at, row) in ids(&answer).iter().enumerate() {
            if !known.contains(*row) {
                let legacy = shown(answer.column(1).as_ref(), at);
                return Err(contradiction(
                    *row,
                    format!("the key map: key {} belongs to legacy key `{legacy}`", key_of(rows, *row).join(", ")),
                ));
            }
        }
    }
    let missing = not_in_production(target, destination, &by_key).await?;
    if let Some(row) = missing.first() {
        return Err(contradiction(*row, format!("production: `{table}` has no row {}", key_of(rows, *row).join(", "))));
    }
    let new: BooleanArray = known.others(0, rows.num_rows());
    Ok(filter_record_batch(rows, &new)?)
}

/// Columns of a batch as a question: `_id` is the row's number.
fn question(rows: &RecordBatch, columns: &[usize]) -> Result<RecordBatch> {
    let mut fields = vec![Field::new("_id", DataType::UInt32, false)];
    let mut values: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from_iter_values(0..rows.num_rows() as u32))];
    for column in columns {
        fields.push(rows.schema().field(*column).clone());
        values.push(rows.column(*column).clone());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?)
}

fn ids(answer: &RecordBatch) -> &[u32] {
    answer.column(0).as_primitive::<UInt32Type>().values()
}

fn key_of(rows: &RecordBatch, row: u32) -> Vec<String> {
    rows.columns()[2..].iter().map(|column| shown(column.as_ref(), row as usize)).collect()
}

/// The rows of a question by key that production does not have.
async fn not_in_production(target: &dyn Target, destination: &Destination, by_key: &RecordBatch) -> Result<Vec<u32>> {
    let lookup = Lookup::new(Place::Production(destination.table.name.clone()), destination.key.clone(), Vec::new());
    let mut there = Mask::default();
    for answer in target.lookup(&lookup, std::slice::from_ref(by_key)).await? {
        for row in ids(&answer) {
            there.insert(*row);
        }
    }
    Ok((0..by_key.num_rows() as u32).filter(|row| !there.contains(*row)).collect())
}

/// Legacy keys of a run whose new key is not in production.
///
/// # Errors
/// Where the target does not answer.
pub(super) async fn missing(target: &dyn Target, destination: &Destination, run: &str) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for batch in target.key_map(destination).await? {
        let of_run = batch.column(batch.num_columns() - 1).as_string::<i32>();
        let of_run: BooleanArray = of_run.iter().map(|of| Some(of == Some(run))).collect();
        let batch = filter_record_batch(&batch, &of_run)?;
        let key: Vec<usize> = (1..=destination.key.len()).collect();
        let rows = not_in_production(target, destination, &question(&batch, &key)?).await?;
        missing.extend(rows.iter().map(|row| shown(batch.column(0).as_ref(), *row as usize)));
    }
    Ok(missing)
}

/// What is known of one table's key map.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verified {
    /// The table.
    pub table: String,
    /// How many mappings its history has.
    pub mappings: u64,
    /// Legacy keys whose new key is not in production.
    pub missing: Vec<String>,
}

/// Proves the key map of every table of a pipeline: each new key is in production. That no legacy key and no new key is there twice
/// is a constraint of the history itself.
///
/// # Errors
/// Where the target does not answer.
pub async fn verify(opened: &Opened) -> Result<Vec<Verified>> {
    let names: Vec<String> = opened.catalog.tables.iter().map(|table| table.name.clone()).collect();
    let mut verified = Vec::new();
    for name in names {
        let Ok(destination) = destination(opened, &name) else { continue };
        let batches = opened.target.key_map(&destination).await?;
        let mut found = Verified { table: name, mappings: 0, missing: Vec::new() };
        for batch in &batches {
            found.mappings += batch.num_rows() as u64;
            let key: Vec<usize> = (1..=destination.key.len()).collect();
            let by_key = question(batch, &key)?;
            for row in not_in_production(opened.target.as_ref(), &destination, &by_key).await? {
                found.missing.push(shown(batch.column(0).as_ref(), row as usize));
            }
        }
        if found.mappings > 0 {
            verified.push(found);
        }
    }
    Ok(verified)
}

//! Restores mappings that the key map lacks from the store, under the runs that created them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};

use super::accounting::{expect, record};
use super::backup::{of_another, place};
use super::keymap::{mapped, report};
use super::{OpenPipeline, incoming, journals};
use crate::backup::{Manifest, Store};
use crate::engine::{Engine, RowNumber, RowSet, RowStore, RowsWriter, list};
use crate::error::{Error, Result};
use crate::failpoint::stop_at;
use crate::journal::{Phase, RunId};
use crate::report::{Command, FileReport, Verdict};
use crate::target::{Access, Destination, LoadMode, Segment};

/// Options of a restore. By default it restores everything that the store has.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only what this run had mapped.
    pub run: Option<String>,
    /// Only the mappings of this table.
    pub table: Option<String>,
    /// The id of the target whose store this target adopts.
    pub adopt: Option<String>,
}

/// Result of a restore.
#[derive(Debug, serde::Serialize)]
pub struct RestoreReport {
    /// The version of this format.
    pub version: u32,
    /// The store.
    pub store: String,
    /// The run id of the restore, or None if nothing was missing.
    pub restored_by: Option<RunId>,
    /// The segments that were examined.
    pub segments: Vec<RestoredSegment>,
    /// Segments that were skipped, with the reason.
    pub notes: Vec<String>,
}

/// A segment, and the number of its mappings that were restored.
#[derive(Debug, serde::Serialize)]
pub struct RestoredSegment {
    /// The segment.
    #[serde(flatten)]
    pub segment: Segment,
    /// How many mappings the history had lacked.
    pub restored: u64,
}

/// The mappings of one table that the history lacks, segment after segment.
struct MissingMappings {
    destination: Destination,
    rows: Arc<RowStore>,
    segments: Vec<(Manifest, Range<RowNumber>)>,
}

/// Missing mappings while they are collected.
struct Collecting {
    destination: Destination,
    writer: RowsWriter,
    segments: Vec<(Manifest, Range<RowNumber>)>,
}

/// Puts back the mappings that the history lacks: all of them in one transaction, or none.
///
/// # Errors
/// If the store is damaged or belongs to another target, or if a mapping contradicts the key map, production, or another mapping.
pub async fn restore(opened: &OpenPipeline, engine: &Engine, wanted: &RestoreOptions) -> Result<RestoreReport> {
    let started = jiff::Timestamp::now();
    let target = opened.target.as_ref();
    target.preflight(&[], Access::Write).await?;
    opened.safeguards.admit(target).await?;
    target.lock(&RunId::at(started)).await?;
    let restored = restore_claimed(opened, engine, wanted, started).await?;
    target.unlock().await?;
    Ok(restored)
}

async fn restore_claimed(
    opened: &OpenPipeline,
    engine: &Engine,
    wanted: &RestoreOptions,
    started: jiff::Timestamp,
) -> Result<RestoreReport> {
    let store = place(opened)?.open(false)?;
    let adopted = owned(opened, &store, wanted).await?;
    let mut restored = RestoreReport {
        version: 1,
        store: store.shown().to_owned(),
        restored_by: None,
        segments: Vec::new(),
        notes: Vec::new(),
    };
    let chosen = chosen(opened, &store, wanted, &mut restored.notes).await?;
    let missing = missing(opened, engine, &store, chosen, &mut restored.segments).await?;
    for missing in &missing {
        refuse_contradictions(engine, missing).await?;
    }
    if missing.is_empty() && adopted.is_none() {
        return Ok(restored);
    }
    restored.restored_by = Some(restore_missing(opened, &missing, adopted.as_ref(), started).await?);
    Ok(restored)
}

/// Returns the mappings of the chosen segments that the key map lacks, by table. Adds each examined segment to `seen`.
async fn missing(
    opened: &OpenPipeline,
    engine: &Engine,
    store: &Store,
    chosen: Vec<Manifest>,
    seen: &mut Vec<RestoredSegment>,
) -> Result<Vec<MissingMappings>> {
    let target = opened.target.as_ref();
    let mut tables: BTreeMap<String, Collecting> = BTreeMap::new();
    for manifest in chosen {
        let Segment { table, run, .. } = &manifest.segment;
        let mappings = store.read(&manifest).await?;
        let destination = destination(opened, &manifest, mappings.schema())?;
        target.preflight(std::slice::from_ref(&destination), Access::Write).await?;
        let name = format!("{table}, run {run}");
        let collecting = match tables.entry(table.clone()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(Collecting {
                writer: engine.rows(incoming::schema(&destination)),
                destination: destination.clone(),
                segments: Vec::new(),
            }),
        };
        let (begin, mut first) = (collecting.writer.next(), RowNumber::default());
        for batch in mappings.batches()? {
            let batch = batch?;
            let rows = RecordBatch::try_new(incoming::schema(&destination), batch.columns().to_vec())?;
            let mut known = RowSet::default();
            incoming::known_among(target, &destination, &name, first, &rows, &mut known).await?;
            let count = rows.num_rows();
            collecting.writer.write(&filter_record_batch(&rows, &known.others(first, count))?)?;
            first = first + count;
        }
        let restored = begin..collecting.writer.next();
        seen.push(RestoredSegment { segment: manifest.segment.clone(), restored: restored.end - restored.start });
        if !restored.is_empty() {
            collecting.segments.push((manifest, restored));
        }
    }
    let missing = tables.into_values().map(|collecting| MissingMappings {
        destination: collecting.destination,
        rows: collecting.writer.finish(),
        segments: collecting.segments,
    });
    Ok(missing.filter(|missing| missing.rows.count() > 0).collect())
}

/// Puts the mappings back, all in one transaction; gives the id that this is listed by.
async fn restore_missing(
    opened: &OpenPipeline,
    missing: &[MissingMappings],
    adopted: Option<&String>,
    started: jiff::Timestamp,
) -> Result<RunId> {
    let target = opened.target.as_ref();
    let tables = missing.iter().map(|missing| {
        let table = &missing.destination.table.name;
        let file = |manifest: &Manifest| FileReport {
            name: format!("{table}, run {}", manifest.segment.run),
            bytes: manifest.bytes,
            hash: manifest.hash.clone(),
            ..FileReport::default()
        };
        let read = missing.segments.iter().map(|(manifest, _)| manifest.segment.rows).sum();
        let files = missing.segments.iter().map(|(manifest, _)| file(manifest)).collect();
        mapped(table, files, read, missing.rows.count() as u64)
    });
    let report = report(opened, Command::Restore, started, Verdict::Loaded, tables.collect());
    let destinations: Vec<_> = missing.iter().map(|missing| missing.destination.clone()).collect();
    let mut load = target.begin(&report.run, LoadMode::Commit).await?;
    load.clear_staging(&destinations).await?;
    let all = RowSet::default();
    for MissingMappings { destination, rows, .. } in missing {
        load.stage_keys(destination, incoming::staged(rows, destination, &all)).await?;
    }
    opened.safeguards.admit_insertion(target, load.as_mut(), "restore the key map again").await?;
    let mut load = load.begin_insert(&destinations).await?;
    for MissingMappings { destination, segments, .. } in missing {
        for (manifest, rows) in segments {
            let restored = load.append_key_map(destination, &manifest.segment.run, rows.clone()).await?;
            expect(&destination.table.name, "restored to the key map", restored, rows.end - rows.start)?;
            stop_at("mid-restore");
        }
    }
    if let Some(id) = adopted {
        load.adopt(id).await?;
    }
    let mut load = load.finish();
    load.record_run(&record(&report)?, &[]).await?;
    load.commit().await?;
    Ok(report.run)
}

/// Checks that the store belongs to this target. Returns the id that the target adopts, if any.
async fn owned(opened: &OpenPipeline, store: &Store, wanted: &RestoreOptions) -> Result<Option<String>> {
    let Some(owner) = store.owner().await? else {
        return Err(Error::input(format!("the store `{}` is empty: there is nothing to restore from", store.shown()))
            .hint("check `safeguards.backup`"));
    };
    let ids = opened.target.identity(false).await?;
    if ids.contains(&owner.id) {
        return Ok(None);
    }
    match &wanted.adopt {
        Some(id) if *id == owner.id => Ok(Some(owner.id)),
        _ => Err(of_another(store, &owner.target, &owner.id)),
    }
}

/// The segments to restore: those of runs that the target knows, or that were asked for by their run.
async fn chosen(
    opened: &OpenPipeline,
    store: &Store,
    wanted: &RestoreOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<Manifest>> {
    let sizes = store.sizes().await?;
    let (manifests, mut damaged) = store.manifests(&sizes).await?;
    let is_wanted = |segment: &Segment| {
        wanted.run.as_ref().is_none_or(|run| segment.run == run.as_str())
            && wanted.table.as_ref().is_none_or(|table| {
                *table == segment.table
                    || opened.catalog.table(table).is_some_and(|table| table.key_map == segment.table)
            })
    };
    let all = wanted.run.is_none() && wanted.table.is_none();
    let asked: Vec<_> = manifests.into_iter().filter(|manifest| is_wanted(&manifest.segment)).collect();
    if !damaged.is_empty() && (all || asked.is_empty()) {
        return Err(damaged.swap_remove(0));
    }
    if asked.is_empty() && !all {
        return Err(Error::usage(format!("the store `{}` has no such segment", store.shown()))
            .hint("`pipeline keymap list FILE` lists those that it has"));
    }
    let known = known_runs(opened, &asked, notes).await?;
    let (mut chosen, mut unknown, mut gone) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for manifest in asked {
        let Segment { run, table, .. } = &manifest.segment;
        if opened.catalog.of_key_map(table).is_none() {
            gone.insert(table.clone());
        } else if known.contains(run) || wanted.run.is_some() || wanted.adopt.is_some() {
            chosen.push(manifest);
        } else {
            unknown.insert(run.clone());
        }
    }
    if !unknown.is_empty() {
        let runs: Vec<_> = unknown.iter().collect();
        notes.push(format!(
            "skipped the mappings of {}: the target has no such run; it was rolled back, or it belongs to a copy",
            list(&runs)
        ));
    }
    if !gone.is_empty() {
        let tables: Vec<_> = gone.iter().collect();
        notes.push(format!(
            "skipped {}: production has no such table, or it is outside this pipeline's schema and namespace",
            list(&tables)
        ));
    }
    Ok(chosen)
}

/// The runs of these segments that the target knows and that were not rolled back.
async fn known_runs(opened: &OpenPipeline, asked: &[Manifest], notes: &mut Vec<String>) -> Result<BTreeSet<RunId>> {
    let target = opened.target.as_ref();
    let mut known: BTreeSet<RunId> = target.runs().await?.into_iter().map(|run| run.id).collect();
    let runs: BTreeSet<&RunId> = asked.iter().map(|manifest| &manifest.segment.run).collect();
    for run in runs {
        let Some(found) = journals::find(target, run).await? else { continue };
        match found.journal {
            Ok(journal) if journal.state().is_none_or(|state| state.phase != Phase::RolledBack) => {}
            Ok(_) => {
                known.remove(run);
            }
            Err(error) => {
                known.remove(run);
                notes.push(format!("skipped the mappings of run {run}: {error}; `--run {run}` restores them anyway"));
            }
        }
    }
    Ok(known)
}

/// Returns the destination of a segment's mappings, with their key columns.
fn destination(opened: &OpenPipeline, manifest: &Manifest, schema: &Schema) -> Result<Destination> {
    let key_map = &manifest.segment.table;
    let found = opened.catalog.of_key_map(key_map).ok_or_else(|| Error::internal(format!("no table `{key_map}`")))?;
    let table = &found.name;
    let key: Vec<String> = schema.fields().iter().skip(1).map(|field| field.name().clone()).collect();
    let fits =
        |field: &Arc<Field>| found.column(field.name()).is_some_and(|column| column.data_type == *field.data_type());
    if schema.fields().first().is_none_or(|field| field.name() != "legacy_key")
        || !schema.fields()[1..].iter().all(fits)
    {
        let columns: Vec<_> =
            manifest.columns[1..].iter().map(|column| format!("{} {}", column.name, column.r#type)).collect();
        return Err(Error::pipeline(format!(
            "the mappings of `{table}` by run {} have the key {}, which production's table does not have",
            manifest.segment.run,
            list(&columns)
        ))
        .hint("production's key has changed since: import these mappings with `pipeline keymap import`"));
    }
    match super::keymap::destination(opened, table) {
        Ok(known) if known.key == key => Ok(known),
        _ => Ok(Destination {
            table: found.clone(),
            columns: key.clone(),
            key,
            assigned: None,
            evaluated: Vec::new(),
            is_referred_only: false,
            self_referencing: false,
            commit_checks: Vec::new(),
            changed: Vec::new(),
            reads: Vec::new(),
        }),
    }
}

/// Refuses mappings of different runs that map one legacy key, or one key, twice.
async fn refuse_contradictions(engine: &Engine, missing: &MissingMappings) -> Result<()> {
    let Some(twice) = incoming::twice(engine, &missing.rows).await? else { return Ok(()) };
    let run = |row: RowNumber| {
        let segment = missing.segments.iter().find(|(_, rows)| rows.contains(&row));
        segment.map_or("", |(manifest, _)| &*manifest.segment.run)
    };
    Err(Error::data(format!(
        "{} of `{}` is in the segments of run {} and of run {}",
        twice.what(),
        missing.destination.table.name,
        run(twice.first),
        run(twice.second)
    ))
    .hint("nothing was restored; one of the runs was rolled back or belongs to a copy. `--run RUN` restores the mappings of one run"))
}

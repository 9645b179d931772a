//! The key map restored: earlier mappings that the history lacks are put back out of the store, as what their runs had mapped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use futures::{StreamExt, stream};

use super::Opened;
use super::backup::{of_another, place};
use super::keymap::{mapped, new_rows, report};
use super::load::{expect, record};
use super::resume::journals;
use super::session::run_id;
use crate::backup::{Manifest, Store};
use crate::engine::{list, shown};
use crate::error::{Error, Result};
use crate::journal::{Phase, stop_at};
use crate::report::{Command, FileReport, Verdict};
use crate::target::{Access, Destination, Intent, Segment, key_map_schema};

/// What is to be restored: all that the store has, where nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only what this run had mapped.
    pub run: Option<String>,
    /// Only the mappings of this table.
    pub table: Option<String>,
    /// The id of the target that the store was made for, where this one is to go on with it.
    pub adopt: Option<String>,
}

/// What was restored.
#[derive(Debug, serde::Serialize)]
pub struct Restored {
    /// The version of this format.
    pub version: u32,
    /// The store.
    pub store: String,
    /// The id that the restoring itself is listed by; None where nothing was to be put back.
    pub restored_by: Option<String>,
    /// The segments that were looked at.
    pub segments: Vec<PutBack>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A segment, and how many of its mappings were put back.
#[derive(Debug, serde::Serialize)]
pub struct PutBack {
    /// The segment.
    #[serde(flatten)]
    pub segment: Segment,
    /// How many mappings the history had lacked.
    pub put_back: u64,
}

/// The mappings of one table that the history lacks.
struct Lacking {
    destination: Destination,
    segments: Vec<(Manifest, RecordBatch)>,
}

/// Puts back the mappings that the history lacks: all of them in one transaction, or none.
///
/// # Errors
/// Where the store is another target's or damaged, or a mapping contradicts the key map, production or another mapping.
pub async fn restore(opened: &Opened, wanted: &Wanted) -> Result<Restored> {
    let started = jiff::Timestamp::now();
    let target = opened.target.as_ref();
    target.preflight(&[], Access::Write).await?;
    opened.safeguards.admit(target).await?;
    target.claim(&run_id(started)).await?;
    let restored = restore_claimed(opened, wanted, started).await?;
    target.release().await?;
    Ok(restored)
}

async fn restore_claimed(opened: &Opened, wanted: &Wanted, started: jiff::Timestamp) -> Result<Restored> {
    let target = opened.target.as_ref();
    let store = place(opened)?.open(false)?;
    let adopted = owned(opened, &store, wanted).await?;
    let mut restored = Restored {
        version: 1,
        store: store.shown().to_owned(),
        restored_by: None,
        segments: Vec::new(),
        notes: Vec::new(),
    };
    let mut lacking: BTreeMap<String, Lacking> = BTreeMap::new();
    for manifest in chosen(opened, &store, wanted, &mut restored.notes).await? {
        let Segment { table, run, .. } = &manifest.segment;
        let mappings = store.read(&manifest).await?;
        let destination = destination(opened, &manifest, &mappings)?;
        target.preflight(std::slice::from_ref(&destination), Access::Write).await?;
        let rows = numbered(&destination, 0, &mappings)?;
        let rows = new_rows(target, &destination, &format!("{table}, run {run}"), &rows).await?;
        restored.segments.push(PutBack { segment: manifest.segment.clone(), put_back: rows.num_rows() as u64 });
        if rows.num_rows() > 0 {
            let of = lacking.entry(table.clone()).or_insert_with(|| Lacking { destination, segments: Vec::new() });
            of.segments.push((manifest, rows));
        }
    }
    lacking.values().try_for_each(refuse_contradictions)?;
    if lacking.is_empty() && adopted.is_none() {
        return Ok(restored);
    }

    let tables = lacking.iter().map(|(table, lacking)| {
        let file = |manifest: &Manifest| FileReport {
            name: format!("{table}, run {}", manifest.segment.run),
            bytes: manifest.bytes,
            hash: manifest.hash.clone(),
            ..FileReport::default()
        };
        let read = lacking.segments.iter().map(|(manifest, _)| manifest.segment.rows).sum();
        let count = lacking.segments.iter().map(|(_, rows)| rows.num_rows() as u64).sum();
        mapped(table, lacking.segments.iter().map(|(manifest, _)| file(manifest)).collect(), read, count)
    });
    let report = report(opened, Command::Restore, started, Verdict::Loaded, tables.collect());
    let destinations: Vec<_> = lacking.values().map(|lacking| lacking.destination.clone()).collect();
    let mut load = target.begin(&report.run, Intent::Keep).await?;
    load.clean_staging(&destinations).await?;
    for Lacking { destination, segments } in lacking.values() {
        let mut first = 0;
        let mut batches = Vec::new();
        for (_, rows) in segments {
            batches.push(Ok(numbered(
                destination,
                first,
                &rows.project(&(1..rows.num_columns()).collect::<Vec<_>>())?,
            )?));
            first += rows.num_rows() as u32;
        }
        load.stage_keys(destination, stream::iter(batches).boxed()).await?;
    }
    opened.safeguards.admit_insertion(target, load.as_mut(), "restore the key map again").await?;
    load.open_insertion(&destinations).await?;
    for Lacking { destination, segments } in lacking.values() {
        let mut first = 0;
        for (manifest, rows) in segments {
            let last = first + rows.num_rows() as u32;
            let put_back = load.append_key_map(destination, &manifest.segment.run, first..last).await?;
            expect(&destination.table.name, "put back into the key map", put_back, rows.num_rows() as u64)?;
            first = last;
            stop_at("mid-restore");
        }
    }
    if let Some(id) = &adopted {
        load.adopt(id).await?;
    }
    load.record(&record(&report)?, &[]).await?;
    load.commit().await?;
    restored.restored_by = Some(report.run);
    Ok(restored)
}

/// Holds the store to be this target's; an id that the target goes by from now on, where it adopts it.
async fn owned(opened: &Opened, store: &Store, wanted: &Wanted) -> Result<Option<String>> {
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
async fn chosen(opened: &Opened, store: &Store, wanted: &Wanted, notes: &mut Vec<String>) -> Result<Vec<Manifest>> {
    let sizes = store.sizes().await?;
    let (manifests, mut damaged) = store.manifests(&sizes).await?;
    let is_wanted = |segment: &Segment| {
        wanted.run.as_ref().is_none_or(|run| *run == segment.run)
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
    let mut known: BTreeSet<String> = opened.target.runs().await?.into_iter().map(|run| run.id).collect();
    for journal in journals(opened.target.as_ref(), None).await? {
        if journal.state().is_some_and(|state| state.phase == Phase::RolledBack) {
            known.remove(journal.run());
        }
    }
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
            "left out what {} mapped: the target does not know such a run, as when it was rolled back or was a copy's",
            list(&runs)
        ));
    }
    if !gone.is_empty() {
        let tables: Vec<_> = gone.iter().collect();
        notes.push(format!(
            "left out {}: production has no such table, or it is not one of this pipeline's schema and namespace",
            list(&tables)
        ));
    }
    Ok(chosen)
}

/// Where the mappings of a segment go: the key is as they have it.
fn destination(opened: &Opened, manifest: &Manifest, mappings: &RecordBatch) -> Result<Destination> {
    let key_map = &manifest.segment.table;
    let found = opened.catalog.of_key_map(key_map).ok_or_else(|| Error::internal(format!("no table `{key_map}`")))?;
    let table = &found.name;
    let schema = mappings.schema();
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
        .hint("production's key was changed since: such mappings can be imported by hand, and not restored"));
    }
    match super::keymap::destination(opened, table) {
        Ok(known) if known.key == key => Ok(known),
        _ => Ok(Destination {
            table: found.clone(),
            columns: key.clone(),
            key,
            assigned: None,
            levelled: false,
            promises: Vec::new(),
            reads: Vec::new(),
        }),
    }
}

/// Mappings as they are staged, their numbers from `first` on.
fn numbered(destination: &Destination, first: u32, mappings: &RecordBatch) -> Result<RecordBatch> {
    let last = first + mappings.num_rows() as u32;
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(first..last));
    let columns = std::iter::once(numbers).chain(mappings.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(key_map_schema(destination), columns)?)
}

/// Refuses mappings of different runs that map one legacy key, or one key, twice.
fn refuse_contradictions(lacking: &Lacking) -> Result<()> {
    let [(_, first), ..] = lacking.segments.as_slice() else { return Ok(()) };
    let rows = concat_batches(
        &Arc::new(Schema::new(first.schema().fields().clone())),
        lacking.segments.iter().map(|(_, rows)| rows),
    )?;
    let runs = lacking
        .segments
        .iter()
        .flat_map(|(manifest, rows)| std::iter::repeat_n(&manifest.segment.run, rows.num_rows()));
    let legacy = rows.column(1).as_string::<i32>();
    let (mut by_legacy, mut by_key) = (HashMap::new(), HashMap::new());
    for (row, run) in runs.enumerate() {
        let key: Vec<_> = rows.columns()[2..].iter().map(|column| shown(column.as_ref(), row)).collect();
        let key = key.join(", ");
        let other = by_legacy
            .insert(legacy.value(row), run)
            .map(|other| (format!("legacy key `{}`", legacy.value(row)), other));
        let other = other.or_else(|| by_key.insert(key.clone(), run).map(|other| (format!("key {key}"), other)));
        if let Some((what, other)) = other {
            return Err(Error::data(format!(
                "{what} of `{}` is in the segments of run {other} and of run {run}",
                lacking.destination.table.name
            ))
            .hint("one of the runs was rolled back or is a copy's: `--run RUN` restores what one run had mapped; nothing was put back"));
        }
    }
    Ok(())
}

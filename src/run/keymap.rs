//! The key map's history: bringing in the mapping of the initial conversion, and proving that what is there holds.

use std::collections::BTreeMap;
use std::path::Path;

use futures::StreamExt;

use super::accounting::record;
use super::{OpenPipeline, incoming};
use crate::backup::{Digest, Store};
use crate::engine::{Engine, RowNumber, display_value, list};
use crate::error::{Error, Kind, Result};
use crate::journal::RunId;
use crate::keys::map;
use crate::report::{Command, FileReport, PROGRAM, Report, TableReport, VERSION, Verdict};
use crate::target::{Access, Destination, LoadMode, Segment};

/// Brings the mapping of an initial conversion into the key map: append only, all rows or none.
///
/// # Errors
/// If a row contradicts another row or the key map, or maps to a key that production does not have.
pub async fn import(opened: &OpenPipeline, engine: &Engine, mapping: &Path, table: &str) -> Result<Report> {
    let started = jiff::Timestamp::now();
    let destination = destination(opened, table)?;
    let run = RunId::at(started);
    opened.target.preflight(std::slice::from_ref(&destination), Access::Write).await?;
    opened.safeguards.admit(opened.target.as_ref()).await?;
    opened.target.lock(&run).await?;
    let spec = opened.document.spec.as_ref().and_then(|spec| spec.tables.get(table));
    let legacy_key = spec.map_or_else(Vec::new, |spec| spec.legacy_key.clone());
    let read = map::read(mapping, &legacy_key, &destination, engine)?;
    if let Some(twice) = incoming::twice(engine, &read.rows).await? {
        return Err(read.bad(twice.second, &format!("{} is on line {} already", twice.what(), read.line(twice.first))));
    }
    let name = mapping.display().to_string();
    let known = incoming::known(opened.target.as_ref(), &destination, &name, &read.rows).await?;
    let rows = read.rows;
    let (read, count) = (rows.count() as u64, (rows.count() - known.count()) as u64);
    let verdict = if count == 0 { Verdict::Empty } else { Verdict::Loaded };
    let file = FileReport { name, ..FileReport::default() };
    let tables = vec![mapped(table, vec![file], read, count)];
    let mut report = Report { run: run.clone(), ..report(opened, Command::Import, started, verdict, tables) };
    if count > 0 {
        super::backup::before_import(opened).await?;
        let mut load = opened.target.begin(&run, LoadMode::Commit).await?;
        load.clear_staging(std::slice::from_ref(&destination)).await?;
        load.stage_keys(&destination, incoming::staged(&rows, &destination, &known)).await?;
        let next = "import the mapping again";
        opened.safeguards.admit_insertion(opened.target.as_ref(), load.as_mut(), next).await?;
        let mut load = load.begin_insert(std::slice::from_ref(&destination)).await?;
        let appended = load.append_key_map(&destination, &run, RowNumber::ALL).await?;
        super::accounting::expect(table, "appended to the key map", appended, count)?;
        let mut load = load.finish();
        load.record_run(&record(&report)?, &[]).await?;
        load.commit().await?;
        report.warnings.extend(super::backup::after_import(opened).await);
    }
    opened.target.unlock().await?;
    Ok(report)
}

/// Returns the report of a command that imports or restores mappings.
pub(super) fn report(
    opened: &OpenPipeline,
    command: Command,
    started: jiff::Timestamp,
    verdict: Verdict,
    tables: Vec<TableReport>,
) -> Report {
    Report {
        version: VERSION,
        run: RunId::at(started),
        pipeline: opened.document.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default(),
        file: opened.document.path.display().to_string(),
        command,
        target: opened.shown.clone(),
        started_at: started.to_string(),
        verdict,
        reasons: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
        tables,
        key_map: None,
        steps: Vec::new(),
        rejects: None,
        program: PROGRAM.to_owned(),
    }
}

/// A table of such a report.
pub(super) fn mapped(table: &str, files: Vec<FileReport>, read: u64, count: u64) -> TableReport {
    TableReport {
        name: table.to_owned(),
        files,
        read,
        skipped: read - count,
        accepted: count,
        inserted: count,
        ..TableReport::default()
    }
}

pub(super) fn destination(opened: &OpenPipeline, table: &str) -> Result<Destination> {
    let found = opened.catalog.table(table).ok_or_else(|| {
        Error::usage(format!("production has no table `{table}`"))
            .hint(format!("its tables are {}", list(&opened.catalog.names())))
    })?;
    let destination = map::destination(opened.document.spec.as_ref().and_then(|spec| spec.tables.get(table)), found);
    if destination.key.is_empty() {
        return Err(Error::pipeline(format!("`{table}` has no key"))
            .hint("name its key column in the pipeline file: `key: { column: … }`"));
    }
    // Only mappings are imported, and no rows.
    Ok(Destination { is_referred_only: true, ..destination })
}

/// Audit of one table's key map.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TableAudit {
    /// The table.
    pub table: String,
    /// How many mappings its history has.
    pub mappings: u64,
    /// Legacy keys whose new key is not in production.
    pub missing: Vec<String>,
}

/// Audit of the key map.
#[derive(Debug, serde::Serialize)]
pub struct KeyMapAudit {
    /// The version of this format.
    pub version: u32,
    /// The tables that have mappings.
    pub tables: Vec<TableAudit>,
    /// Differences between the key map and its ledger.
    pub differences: Vec<String>,
    /// The store, or None if the pipeline file names none.
    pub store: Option<StoreVerified>,
    /// Facts that are not faults.
    pub notes: Vec<String>,
}

/// Audit of the store.
#[derive(Debug, Default, serde::Serialize)]
pub struct StoreVerified {
    /// The store.
    pub store: String,
    /// How many of its segments the key map has.
    pub segments: u64,
    /// How many mappings those have.
    pub mappings: u64,
    /// Damage, and differences to the key map.
    pub differences: Vec<String>,
}

impl KeyMapAudit {
    /// Whether everything is as it should be.
    pub fn holds(&self) -> bool {
        let store = self.store.as_ref().is_none_or(|store| store.differences.is_empty());
        store && self.differences.is_empty() && self.tables.iter().all(|table| table.missing.is_empty())
    }
}

/// Proves the key map of every table: each new key is in production, each run's mappings are as many as the ledger says, and the
/// store has every one of them. That no legacy key and no new key is there twice is a constraint of the history itself.
///
/// # Errors
/// If the target or the store does not answer.
pub async fn verify(opened: &OpenPipeline) -> Result<KeyMapAudit> {
    let ledger = opened.target.segments().await?;
    let mut found =
        KeyMapAudit { version: 1, tables: Vec::new(), differences: Vec::new(), store: None, notes: Vec::new() };
    for table in &opened.catalog.tables {
        let Ok(destination) = destination(opened, &table.name) else { continue };
        let mut verified = TableAudit { table: table.name.clone(), mappings: 0, missing: Vec::new() };
        let mut by_run: BTreeMap<RunId, u64> = BTreeMap::new();
        let mut mappings = opened.target.key_map(&destination).await?;
        while let Some(batch) = mappings.next().await {
            let batch = batch?;
            verified.mappings += batch.num_rows() as u64;
            let key: Vec<usize> = (1..=destination.key.len()).collect();
            let by_key = incoming::question(&batch, RowNumber::default(), &key)?;
            for row in incoming::not_in_production(opened.target.as_ref(), &destination, &by_key).await? {
                verified.missing.push(display_value(batch.column(0).as_ref(), row.get() as usize));
            }
            incoming::count_runs(batch.column(batch.num_columns() - 1), &mut by_run);
        }
        for segment in ledger.iter().filter(|segment| segment.table == table.key_map) {
            by_run.entry(segment.run.clone()).or_default();
        }
        for (run, count) in by_run {
            let recorded = ledger.iter().find(|segment| segment.table == table.key_map && segment.run == run);
            let recorded = recorded.map_or(0, |segment| segment.rows);
            if recorded != count {
                found.differences.push(format!(
                    "the key map of `{}` has {count} mappings of run {run}, but its ledger records {recorded}",
                    table.name
                ));
            }
        }
        if verified.mappings > 0 {
            found.tables.push(verified);
        }
    }
    if let Some(place) = opened.backup() {
        found.store = Some(verify_store(opened, &place.open(false)?, &ledger, &mut found.notes).await?);
    }
    Ok(found)
}

/// Holds every object of a store against its manifest, and every segment against the history.
async fn verify_store(
    opened: &OpenPipeline,
    store: &Store,
    ledger: &[Segment],
    notes: &mut Vec<String>,
) -> Result<StoreVerified> {
    let mut found = StoreVerified { store: store.shown().to_owned(), ..StoreVerified::default() };
    let (owner, ids) = (store.owner().await?, opened.target.identity(false).await?);
    if let Some(owner) = owner.filter(|owner| !ids.contains(&owner.id)) {
        found.differences.push(super::backup::of_another(store, &owner.target, &owner.id).to_string());
        return Ok(found);
    }
    let (manifests, damaged) = store.manifests(&store.sizes().await?).await?;
    found.differences.extend(damaged.iter().map(ToString::to_string));
    let same = |one: &Segment, other: &Segment| (&one.run, &one.table) == (&other.run, &other.table);
    for manifest in &manifests {
        let Segment { run, table, .. } = &manifest.segment;
        let mappings = match store.read(manifest).await {
            Ok(mappings) => mappings,
            Err(error) if error.kind() == Kind::Refused => {
                found.differences.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        if !ledger.iter().any(|segment| same(segment, &manifest.segment)) {
            notes.push(format!("the store has mappings of `{table}` by run {run}, which the key map does not have"));
            continue;
        }
        found.segments += 1;
        found.mappings += manifest.segment.rows;
        let mut there = Digest::default();
        let mut segment = opened.target.segment(table, run).await?;
        while let Some(batch) = segment.next().await {
            there.add(&batch?)?;
        }
        if there.finish() != mappings.digest()? {
            found.differences.push(format!("the mappings of `{table}` by run {run} are not those in the store"));
        }
    }
    for segment in ledger.iter().filter(|segment| opened.catalog.of_key_map(&segment.table).is_some()) {
        let is_named = damaged.iter().any(|error| error.to_string().contains(&*segment.run));
        if !is_named && !manifests.iter().any(|manifest| same(&manifest.segment, segment)) {
            found
                .differences
                .push(format!("the store lacks the mappings of `{}` by run {}", segment.table, segment.run));
        }
    }
    Ok(found)
}

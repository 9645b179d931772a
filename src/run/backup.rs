//! The key map's backup: in a run before anything is written and after the commit, and as a command.

use futures::{StreamExt, TryStreamExt, stream};

use super::{OpenPipeline, RunContext};
use crate::backup::{Manifest, Sizes, Store, StoreLocation};
use crate::engine::list;
use crate::error::{Error, Result};
use crate::journal::Event;
use crate::journal::RunId;
use crate::report::{KeyMapReport, MappingsReport, Report};
use crate::target::{Access, Catalog, Segment, Target};

/// How many manifests are read at the same time.
const AT_ONCE: usize = 16;

/// A store that is this target's own, opened to be written.
struct Backup<'a> {
    store: Store,
    id: String,
    target: &'a dyn Target,
    catalog: &'a Catalog,
}

/// Result of a backup.
#[derive(Debug, Default, serde::Serialize)]
pub struct BackupReport {
    /// The version of this format.
    pub version: u32,
    /// The store.
    pub store: String,
    /// How many segments it had already.
    pub there: u64,
    /// The segments that were written.
    pub written: Vec<Segment>,
    /// Tables whose history is not backed up: production no longer has them.
    pub left_out: Vec<String>,
}

impl<'a> Backup<'a> {
    /// Opens a store, makes an empty one this target's, and refuses another's.
    async fn open(place: &StoreLocation, target: &'a dyn Target, catalog: &'a Catalog, shown: &str) -> Result<Self> {
        let store = place.open(true)?;
        let owner = store.owner().await?;
        let ids = target.identity(true).await?;
        let id = match (owner, ids.last()) {
            (_, None) => return Err(Error::internal("the target has no id")),
            (None, Some(id)) => {
                store.take(id, shown).await?;
                id.clone()
            }
            (Some(owner), Some(_)) if ids.contains(&owner.id) => owner.id,
            (Some(owner), Some(_)) => return Err(of_another(&store, &owner.target, &owner.id)),
        };
        Ok(Self { store, id, target, catalog })
    }

    /// Writes the segments that the store lacks. Of all others it reads the manifests and compares the sizes.
    async fn complete(&self, segments: &[Segment]) -> Result<BackupReport> {
        let sizes = self.store.sizes().await?;
        let mut done = BackupReport { version: 1, store: self.store.shown().to_owned(), ..BackupReport::default() };
        let manifests: Vec<Option<Manifest>> = stream::iter(segments)
            .map(|segment| self.store.manifest(segment, &sizes))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (segment, manifest) in segments.iter().zip(manifests) {
            if manifest.is_some() {
                done.there += 1;
            } else if self.catalog.of_key_map(&segment.table).is_none() {
                if !done.left_out.contains(&segment.table) {
                    done.left_out.push(segment.table.clone());
                }
            } else {
                self.write(segment).await?;
                done.written.push(segment.clone());
            }
        }
        Ok(done)
    }

    async fn write(&self, segment: &Segment) -> Result<()> {
        let mappings = self.target.segment(&segment.table, &segment.run).await?;
        self.store.write(segment, &self.id, mappings).await.map(|_| ())
    }
}

/// A store that belongs to another target.
pub(super) fn of_another(store: &Store, target: &str, id: &str) -> Error {
    Error::refused(format!("the store `{}` belongs to another target: `{target}` (ID {id})", store.shown())).hint(format!(
        "nothing was written; set `safeguards.backup` to another place. If this target lost its control tables, adopt the store: \
         `pipeline keymap restore FILE --adopt {id}`"
    ))
}

/// Brings the store up to date before a run writes anything.
///
/// # Errors
/// If the store is unreachable, damaged, or belongs to another target. The run must not begin then.
pub(super) async fn before(context: &RunContext) -> Result<(KeyMapReport, Vec<String>)> {
    let target = context.target.as_ref();
    let (mut backed_up, mut warnings) = (None, Vec::new());
    let mut segments = target.segments().await?;
    if let Some(place) = &context.backup {
        let backup = Backup::open(place, target, &context.catalog, &context.shown)
            .await
            .map_err(|error| error.doing("the key map is not backed up"))?;
        segments = target.segments().await?;
        let done = backup.complete(&segments).await.map_err(|error| error.doing("the key map is not backed up"))?;
        if !done.left_out.is_empty() {
            warnings.push(left_out(&done.left_out));
        }
        backed_up = Some(done);
    }
    let tables = context.compiled.plan.tables.iter().map(|table| {
        let before = mappings(&context.catalog, &segments, &table.name);
        MappingsReport { table: table.name.clone(), before, appended: 0, now: before }
    });
    let report = KeyMapReport {
        store: backed_up.as_ref().map(|done| done.store.clone()),
        there: backed_up.as_ref().map_or(0, |done| done.there),
        backed_up: backed_up.map_or_else(Vec::new, |done| done.written),
        own: Vec::new(),
        tables: tables.collect(),
    };
    Ok((report, warnings))
}

/// Returns the journal's event of a backup, or None without one.
pub(super) fn event(report: &KeyMapReport) -> Option<Event> {
    let store = report.store.clone()?;
    let mappings = report.backed_up.iter().map(|segment| segment.rows).sum();
    Some(Event::BackedUp { store, segments: report.backed_up.len() as u64, mappings })
}

/// Backs up what a run has mapped itself, now that it is committed.
///
/// # Errors
/// If the store cannot be written. The rows are committed, so the caller only warns.
pub(super) async fn after(context: &RunContext, report: &mut Report) -> Result<()> {
    let Some(key_map) = &mut report.key_map else { return Ok(()) };
    let segments = context.target.segments().await?;
    for table in &mut key_map.tables {
        table.now = mappings(&context.catalog, &segments, &table.table);
    }
    let Some(place) = &context.backup else { return Ok(()) };
    let own: Vec<_> = segments.into_iter().filter(|segment| segment.run == report.run).collect();
    let backup = Backup::open(place, context.target.as_ref(), &context.catalog, &context.shown).await?;
    key_map.own = backup.complete(&own).await?.written;
    Ok(())
}

fn mappings(catalog: &Catalog, segments: &[Segment], table: &str) -> u64 {
    let table = catalog.table(table).map_or(table, |table| table.key_map.as_str());
    segments.iter().filter(|segment| segment.table == table).map(|segment| segment.rows).sum()
}

fn left_out(tables: &[String]) -> String {
    format!("the key map of {} is not backed up: production no longer has such a table", list(tables))
}

/// The place of the backup.
///
/// # Errors
/// If the pipeline file names no store.
pub(super) fn place(opened: &OpenPipeline) -> Result<StoreLocation> {
    opened.backup().ok_or_else(|| {
        Error::pipeline("the pipeline file configures no backup of the key map")
            .hint("add `safeguards: { backup: ./backups }`: a folder, or an object store's URL")
    })
}

/// Backs the key map up now.
///
/// # Errors
/// As before a run.
pub async fn backup(opened: &OpenPipeline) -> Result<BackupReport> {
    let target = opened.target.as_ref();
    target.preflight(&[], Access::Write).await?;
    target.lock(&RunId::at(jiff::Timestamp::now())).await?;
    let done = backup_locked(opened).await?;
    target.unlock().await?;
    Ok(done)
}

/// Backs up the key map under the writer lock.
async fn backup_locked(opened: &OpenPipeline) -> Result<BackupReport> {
    let target = opened.target.as_ref();
    let backup = Backup::open(&place(opened)?, target, &opened.catalog, &opened.shown).await?;
    backup.complete(&target.segments().await?).await
}

/// Backs up the key map before a command appends to it, if the pipeline file names a store.
///
/// # Errors
/// As before a run.
pub(super) async fn before_import(opened: &OpenPipeline) -> Result<()> {
    if opened.backup().is_some() {
        backup_locked(opened).await.map_err(|error| error.doing("the key map is not backed up"))?;
    }
    Ok(())
}

/// Backs up the key map after a command has appended to it. Returns a warning on failure, since the mappings are committed.
pub(super) async fn after_import(opened: &OpenPipeline) -> Option<String> {
    opened.backup()?;
    let error = backup_locked(opened).await.err()?;
    Some(format!("the imported mappings are not backed up: {error}; run `pipeline keymap backup FILE`"))
}

/// A segment of the key map, and the places that have it.
#[derive(Debug, serde::Serialize)]
pub struct SegmentStatus {
    /// The segment.
    #[serde(flatten)]
    pub segment: Segment,
    /// Whether the key map's ledger has it.
    pub in_target: bool,
    /// Its manifest, if the store has it.
    pub stored: Option<Manifest>,
}

/// The segments of the key map and of its store.
#[derive(Debug, serde::Serialize)]
pub struct SegmentList {
    /// The version of this format.
    pub version: u32,
    /// The store, or None if the pipeline file names none.
    pub store: Option<String>,
    /// The segments, in order of their runs.
    pub segments: Vec<SegmentStatus>,
    /// Problems of the store.
    pub problems: Vec<String>,
}

/// Lists the segments of the key map and of its store; reads no mapping.
///
/// # Errors
/// If the target or the store does not answer.
pub async fn segments(opened: &OpenPipeline) -> Result<SegmentList> {
    let ledger = opened.target.segments().await?;
    let mut listing = SegmentList { version: 1, store: None, segments: Vec::new(), problems: Vec::new() };
    let mut manifests = Vec::new();
    if let Some(place) = opened.backup() {
        listing.store = Some(place.shown().to_owned());
        let store = place.open(false)?;
        let (owner, ids) = (store.owner().await?, opened.target.identity(false).await?);
        if let Some(owner) = owner.filter(|owner| !ids.contains(&owner.id)) {
            listing.problems.push(of_another(&store, &owner.target, &owner.id).to_string());
        }
        let sizes: Sizes = store.sizes().await?;
        let (found, damaged) = store.manifests(&sizes).await?;
        listing.problems.extend(damaged.iter().map(ToString::to_string));
        manifests = found;
    }
    let same = |segment: &Segment, manifest: &Manifest| {
        (&segment.run, &segment.table) == (&manifest.segment.run, &manifest.segment.table)
    };
    for segment in ledger {
        let stored = manifests.iter().position(|manifest| same(&segment, manifest)).map(|at| manifests.remove(at));
        listing.segments.push(SegmentStatus { segment, in_target: true, stored });
    }
    listing.segments.extend(manifests.into_iter().map(|manifest| SegmentStatus {
        segment: manifest.segment.clone(),
        in_target: false,
        stored: Some(manifest),
    }));
    listing.segments.sort_by(|one, other| one.segment.cmp(&other.segment));
    Ok(listing)
}

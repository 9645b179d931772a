//! Targets: production, its staging area, and its control tables, behind one trait per role.
//!
//! A [`Target`] plays several roles, one trait each: [`roles`]. A load goes through [`phases`]: one transaction from the first row of
//! production to the run's own row.

mod catalog;
mod database_check;
mod difference;
mod key_block;
mod logical_type;
mod lookup;
mod migration;
mod mode;
mod none;
pub mod phases;
mod policy;
pub mod postgres;
mod production_provider;
mod references;
pub mod roles;
mod rollback;
mod sql;
pub mod sqlite;
mod table_index;
mod violations;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use futures::stream::BoxStream;

pub use catalog::{Catalog, CatalogColumn, CatalogTable, CheckConstraint, Condition, ForeignKey, UniqueConstraint};
pub use database_check::{
    ComparedValue, DatabaseCheck, DatabaseCheckKind, DatabaseCheckRequest, DatabaseCheckResult, DatabaseCheckRows,
    new_key_column,
};
use difference::different;
pub use key_block::{AssignedKey, KeyBlock, KeyRequest, SequenceUse, TextKey};
pub use logical_type::{Component, LogicalType, Range, bytes, elements, fields, multirange, range};
pub use lookup::{Filter, Lookup, Relation, Test};
pub use mode::{Ended, Mode, Period, Switch, shown};
pub use none::NoTarget;
pub use phases::{CommitPhase, InsertPhase, JournalWriter, StagingPhase};
pub use policy::{MAX_KEY_BLOCK, Policy};
pub use production_provider::ProductionTable;
pub use roles::{
    Capabilities, Governance, KeyMapStore, Loader, Production, Provision, RunRollback, RunStore, Target, WriterLock,
};
pub use rollback::{RollbackConflict, RollbackPlan, RolledBackTable, RunTable};
pub use table_index::TableIndex;
pub use violations::{ConstraintViolation, InsertError};

use crate::engine::{RowNumber, row_field};
use crate::error::{Error, Result};
use crate::journal::{FileHash, RunId};
use crate::spec::{CreateFrom, LoadSpec, SafeguardsSpec, TargetSpec};

/// The access that a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only: the target is opened so that it cannot be written.
    Read,
    /// Load rows.
    Write,
    /// Create the control objects.
    Setup,
    /// Set policy and mode, or roll a run back: as the operator, if that is not the loader login. Creates no database.
    Administer,
}

/// A target as the pipeline file or the command line names it, with every `${…}` filled in.
#[derive(Debug)]
pub struct TargetConfig<'a> {
    /// The URL.
    pub url: &'a str,
    /// Its name in messages, without secrets.
    pub shown: &'a str,
    /// The target's other settings.
    pub spec: &'a TargetSpec,
    /// How rows are inserted.
    pub load: &'a LoadSpec,
    /// The conditions that must hold before rows are inserted.
    pub safeguards: &'a SafeguardsSpec,
    /// Further schemas with tables of the pipeline, which are named `schema.table`.
    pub schemas: &'a [String],
    /// The namespace of the pipeline's legacy keys; empty for the default one.
    pub namespace: &'a str,
    /// Bytes of memory that the target may use for uncommitted writes.
    pub memory: usize,
    /// The folder that a relative path in the URL starts from.
    pub folder: &'a Path,
    /// The folder of the pipeline file, which other relative paths start from.
    pub script_folder: &'a Path,
}

/// The kinds of target, as the pipeline file names them.
const KINDS: [&str; 2] = ["postgres", "sqlite"];

/// Opens the target that a URL names.
///
/// # Errors
/// If the URL's scheme or a kind of target under `create_from` is unknown, or the target cannot be reached.
pub async fn open(address: &TargetConfig<'_>, access: Access) -> Result<Arc<dyn Target>> {
    if let Some(other) = address.spec.create_from.iter().flat_map(CreateFrom::kinds).find(|kind| !KINDS.contains(kind))
    {
        return Err(Error::pipeline(format!("unknown kind of target in `target.create_from`: `{other}`"))
            .hint(format!("write {}", crate::engine::list(&KINDS))));
    }
    match address.url.split_once(':') {
        Some(("sqlite", rest)) => Ok(Arc::new(sqlite::SqliteTarget::open(rest, address, access)?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(postgres::PgTarget::open(address, access).await?)),
        _ => Err(Error::pipeline(format!("unsupported target URL scheme: `{}`", address.shown))
            .hint("write `sqlite:FILE`, for example `sqlite:customer.db`, or `postgres://USER@HOST/DATABASE`")),
    }
}

/// A table that rows are loaded into.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The table in the catalog.
    pub table: Arc<CatalogTable>,
    /// The columns that are written, in order.
    pub columns: Vec<String>,
    /// The key columns, which identify a row.
    pub key: Vec<String>,
    /// The column that is given numbers; None if keys are not assigned.
    pub assigned: Option<AssignedKey>,
    /// Those of the columns whose values are production's default, computed before the rows are staged.
    pub evaluated: Vec<String>,
    /// Whether rows are only referred to and never loaded: the destination has a key map and no more.
    pub is_referred_only: bool,
    /// Whether rows refer to rows of the same table. A staged row then has a `_level`, and lower levels are inserted first.
    pub self_referencing: bool,
    /// Properties that the checks verified and that no constraint of production enforces. They are checked again when rows are inserted.
    pub commit_checks: Vec<CommitCheck>,
    /// Columns whose final value a trigger of production decides. They are not compared with the delta.
    pub changed: Vec<String>,
    /// The other tables of production that it depends on: those that its rows refer to, and those that its own SQL names.
    pub reads: Vec<String>,
}

impl Destination {
    /// Returns whether some values must be unique although no index of production enforces it.
    fn has_free_values(&self) -> bool {
        self.commit_checks.iter().any(|commit_check| matches!(commit_check.what, CommitCheckKind::Unique { .. }))
    }

    /// Returns the places of the columns that production must have as in the delta.
    fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|at| !self.changed.contains(&self.columns[*at]))
    }

    /// Returns the foreign keys that lead to tables which are loaded later.
    fn leads_ahead(&self, later: &[Self]) -> impl Iterator<Item = &ForeignKey> {
        let is_later = |key: &&ForeignKey| later.iter().any(|destination| destination.table.name == key.to);
        let is_filled = |key: &&ForeignKey| key.columns.iter().all(|name| self.columns.contains(name));
        self.table.foreign_keys.iter().filter(is_later).filter(is_filled)
    }

    /// Returns a staged batch with the destination's columns alone.
    fn columns_alone(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let in_front = 1 + usize::from(self.self_referencing);
        Ok(batch.project(&(in_front..batch.num_columns()).collect::<Vec<_>>())?)
    }
}

/// A property of production that held when the checks ran, and that another program may have changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitCheck {
    /// The check that verified it.
    pub check: String,
    /// The property itself.
    pub what: CommitCheckKind,
}

/// The property that a [`CommitCheck`] verifies for each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitCheckKind {
    /// No row of production has its values in these columns.
    Unique {
        /// The columns.
        columns: Vec<String>,
        /// The columns that are compared without regard to the case of ASCII letters.
        ignore_case: Vec<String>,
    },
    /// The row that a column refers to exists.
    Reference {
        /// The column.
        column: String,
        /// The referenced table.
        to: String,
        /// The referenced column.
        to_column: String,
        /// The other columns of the referenced key, if it has several.
        with: Vec<String>,
        /// The columns of the referenced table whose values were looked up or tested; none if the row was found by its legacy key. The row
        /// must still have these values.
        by: Vec<String>,
    },
}

/// A number or value that is equal on both sides if nothing was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The count of non-NULL values.
    NonNull,
    /// The sum; decimals count in their smallest unit.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
}

/// A file that was loaded before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedFile {
    /// Its hash.
    pub hash: FileHash,
    /// The table that it was loaded into.
    pub table: String,
    /// Its name at that time.
    pub name: String,
    /// The run that loaded it.
    pub run: RunId,
}

/// A run in a list, without its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHeader {
    /// Its id.
    pub id: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, in UTC (RFC 3339).
    pub started_at: String,
}

/// A run as recorded in the target.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, in UTC (RFC 3339).
    pub started_at: String,
    /// Its report as JSON.
    pub report: String,
}

/// A selection of journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journals {
    /// The journals of all runs.
    All,
    /// The journals of runs without an end, which may be resumed or abandoned.
    Open,
}

impl Journals {
    const PAGE: usize = 64;

    /// SQL: the kinds of events that end a run.
    const ENDS: &'static str = "('verified', 'abandoned', 'rolled_back')";
}

/// The purpose of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// The rows stay.
    Commit,
    /// Everything is rolled back: nothing is written outside of the transaction, and no key is reserved.
    Rehearse,
}

/// The mappings that one run appended to the key map of one table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Segment {
    /// The run.
    pub run: RunId,
    /// The table.
    pub table: String,
    /// The number of mappings.
    pub rows: u64,
}

/// A stream of row batches.
pub type Batches<'a> = BoxStream<'a, Result<RecordBatch>>;

/// The accepted rows of a run and their key maps, readable as often as needed. Tables are numbered by their position among the
/// destinations.
pub trait RowSource: Send + Sync {
    /// Returns the rows of a table as [`StagingPhase::stage`] expects them.
    ///
    /// # Errors
    /// If they cannot be read.
    fn staged_rows(&self, at: TableIndex) -> Result<Batches<'_>>;

    /// Returns the rows of a table as [`InsertPhase::compare`] expects them.
    ///
    /// # Errors
    /// If they cannot be read.
    fn expected_rows(&self, at: TableIndex) -> Result<Batches<'_>>;

    /// Returns the key map of a table as [`StagingPhase::stage_keys`] expects it.
    ///
    /// # Errors
    /// If it cannot be read.
    fn key_map(&self, at: TableIndex) -> Result<Batches<'_>>;

    /// Returns the rows of production that a column refers to, each once. A batch has `_row` (the first row that refers to it), `key`, the
    /// other columns of a key of several, and the values that were looked up, unless it was the legacy key.
    ///
    /// # Errors
    /// If the column is not a reference.
    fn referenced(&self, _at: TableIndex, column: &str) -> Result<RecordBatch> {
        Err(Error::internal(format!("`{column}` is not a reference")))
    }

    /// Returns the rows whose column refers to the same rows as these do.
    ///
    /// # Errors
    /// If the column is not a reference.
    fn referring(&self, _at: TableIndex, column: &str, _rows: &[RowNumber]) -> Result<Vec<RowNumber>> {
        Err(Error::internal(format!("`{column}` is not a reference")))
    }

    /// Reports how many rows of a table were inserted.
    fn on_inserted(&self, _at: TableIndex, _rows: u64) {}

    /// Returns the error for a table whose rows in production differ from the delta; `how` describes the difference.
    fn mismatch_error(&self, at: TableIndex, how: &str) -> Error;
}

/// The result of an insertion into one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The rows that were inserted.
    pub rows: u64,
    /// The mappings that were appended to its key map.
    pub mappings: u64,
    /// Whether all rows were compared with the delta, and nothing changes them before the commit.
    pub verified: bool,
}

/// Findings about a run before it begins.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// Findings that need attention but do not stop the run.
    pub warnings: Vec<String>,
    /// How the run will proceed: keys, locks, triggers.
    pub notes: Vec<String>,
}

/// Refuses to switch off production's own check of each row if that is unsafe. It would switch triggers off too, and references that
/// production fills are in no set that is checked.
fn refuse_set_based(destinations: &[Destination]) -> Result<()> {
    let with: Vec<_> = destinations
        .iter()
        .filter(|destination| !destination.table.triggers.is_empty())
        .map(|destination| destination.table.name.as_str())
        .collect();
    let hint = "set `load.foreign_keys` to `triggers`, the default";
    if !with.is_empty() {
        let message =
            format!("`foreign_keys: set_based` does not support tables with triggers: {}", crate::engine::list(&with));
        return Err(Error::pipeline(message).hint(hint));
    }
    for destination in destinations {
        let table = &destination.table;
        let of_production = |name: &&String| {
            let by_itself = table.column(name).is_some_and(|column| column.has_default || column.generated);
            by_itself && !destination.columns.contains(name)
        };
        if let Some(column) = table.foreign_keys.iter().flat_map(|key| &key.columns).find(of_production) {
            let message = format!(
                "`foreign_keys: set_based` does not support references that production fills: `{column}` of `{}`",
                table.name
            );
            return Err(Error::pipeline(message).hint(format!("give the column a value, or {hint}")));
        }
    }
    Ok(())
}

/// Returns the schema of [`InsertPhase::aggregates`]: the number of rows, then each aggregate.
pub fn aggregates_schema(destination: &Destination, totals: &[(String, Aggregate)]) -> SchemaRef {
    use arrow::datatypes::{Field, Schema};
    let mut fields = vec![Field::new("rows", DataType::Int64, false)];
    for (name, total) in totals {
        let data_type = match (total, destination.table.column(name)) {
            (Aggregate::Min | Aggregate::Max, Some(column)) => column.data_type.clone(),
            _ => DataType::Int64,
        };
        fields.push(Field::new(name, data_type, true));
    }
    Arc::new(Schema::new(fields))
}

/// Returns the type of a text column.
pub fn text() -> DataType {
    DataType::Utf8
}

/// Returns the schema of a staged key map: `_row`, `legacy_key`, and the key's columns.
pub fn key_map_schema(destination: &Destination) -> SchemaRef {
    use arrow::datatypes::{Field, Schema};
    let mut fields = vec![row_field("_row"), Field::new("legacy_key", text(), false)];
    fields.extend(destination.key.iter().filter_map(|name| destination.table.column(name)).map(CatalogColumn::field));
    Arc::new(Schema::new(fields))
}

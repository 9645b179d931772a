//! Where rows go: production, its staging area and its control tables, behind one trait per role.
//!
//! A [`Target`] plays several roles, one trait each: [`roles`]. A load goes through [`phases`]: one transaction from the first row of
//! production to the run's own row.

mod catalog;
mod difference;
mod key_block;
mod logical_type;
mod lookup;
mod migration;
mod mode;
mod none;
mod phases;
mod policy;
pub mod postgres;
mod production_provider;
mod references;
mod roles;
mod rollback;
pub mod sqlite;
mod violations;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use futures::stream::BoxStream;

pub use catalog::{Catalog, CatalogColumn, CatalogTable, CheckConstraint, Condition, ForeignKey, UniqueConstraint};
use difference::different;
pub use key_block::{KeyBlock, KeyRequest, TextKey};
pub use logical_type::{LogicalType, bytes, elements};
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
pub use violations::{ConstraintViolation, InsertError};

use crate::error::{Error, Result};
use crate::spec::{LoadSpec, SafeguardsSpec, StartRowNumber, TargetSpec};

/// What a command will do with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only ask: the target is opened so that it cannot be written.
    Read,
    /// Load rows.
    Write,
    /// Make what the target keeps for loads.
    Setup,
    /// Decide what loads may do, or take one back: as who may do that, where it is not who loads. Makes no database.
    Administer,
}

/// A target as the pipeline file or the command line names it, with every `${…}` filled in.
#[derive(Debug)]
pub struct TargetConfig<'a> {
    /// The URL.
    pub url: &'a str,
    /// What is said of it in messages: no secrets.
    pub shown: &'a str,
    /// The target's other settings.
    pub spec: &'a TargetSpec,
    /// How rows are inserted.
    pub load: &'a LoadSpec,
    /// What must hold before.
    pub safeguards: &'a SafeguardsSpec,
    /// The namespace of the pipeline's legacy keys; empty for the only one.
    pub namespace: &'a str,
    /// Bytes of memory that the target may take for what is written and not committed yet.
    pub memory: usize,
    /// The folder that a relative path in the URL starts from.
    pub folder: &'a Path,
    /// The folder that the other relative paths start from: the pipeline file's.
    pub script_folder: &'a Path,
}

/// Opens the target that an address names.
///
/// # Errors
/// Where the URL's scheme is unknown or the target cannot be reached.
pub async fn open(address: &TargetConfig<'_>, access: Access) -> Result<Arc<dyn Target>> {
    match address.url.split_once(':') {
        Some(("sqlite", rest)) => Ok(Arc::new(sqlite::SqliteTarget::open(rest, address, access)?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(postgres::PgTarget::open(address, access).await?)),
        _ => Err(Error::pipeline(format!("the target `{}` is of no known kind", address.shown))
            .hint("write `sqlite:FILE`, for example `sqlite:customer.db`, or `postgres://USER@HOST/DATABASE`")),
    }
}

/// A table that rows are loaded into.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The table, as the catalog states it.
    pub table: Arc<CatalogTable>,
    /// The columns that are written, in order.
    pub columns: Vec<String>,
    /// The columns that identify a row: the key.
    pub key: Vec<String>,
    /// Where its keys start, where rows are given one.
    pub assigned: Option<StartRowNumber>,
    /// Whether rows refer to rows of the same table: a staged row then has a `_level`, and lower ones are inserted first.
    pub self_referencing: bool,
    /// What the checks found true and no constraint of production keeps true: asked again when rows are inserted.
    pub promises: Vec<CommitCheck>,
    /// The other tables of production that the pipeline reads for it: those that its rows refer to, and those that its own SQL names.
    pub reads: Vec<String>,
}

impl Destination {
    /// Whether rows must have values that no other row has, and no index of production keeps others from having them.
    fn has_free_values(&self) -> bool {
        self.promises.iter().any(|promise| matches!(promise.what, CommitCheckKind::Unique { .. }))
    }

    /// A staged batch with the destination's columns alone.
    fn columns_alone(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let in_front = 1 + usize::from(self.self_referencing);
        Ok(batch.project(&(in_front..batch.num_columns()).collect::<Vec<_>>())?)
    }
}

/// Something that was true of production when the checks ran, and that another program may have made untrue since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitCheck {
    /// The check that found it true.
    pub check: String,
    /// What it is.
    pub what: CommitCheckKind,
}

/// What a [`CommitCheck`] says of each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitCheckKind {
    /// No row of production has its values in these columns.
    Unique {
        /// The columns.
        columns: Vec<String>,
        /// Those of them that are compared without regard to the case of ASCII letters.
        ignore_case: Vec<String>,
    },
    /// The row that a column refers to is there.
    Reference {
        /// The column.
        column: String,
        /// The referenced table.
        to: String,
        /// The column there.
        to_column: String,
        /// The column there whose value led to the row, where it is not found by its legacy key: that is still so.
        by: Option<String>,
    },
}

/// One number or value that is the same on both sides when nothing got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// How many values are not NULL.
    NonNull,
    /// The sum; of decimals as an integer of their smallest unit.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
}

/// A file whose bytes were loaded before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedFile {
    /// Its hash.
    pub hash: String,
    /// The table that it was loaded into.
    pub table: String,
    /// Its name then.
    pub name: String,
    /// The run that loaded it.
    pub run: String,
}

/// A run as it is listed: without its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHeader {
    /// Its id.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, in UTC (RFC 3339).
    pub started_at: String,
}

/// A run as the target remembers it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RunRecord {
    /// Its id.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, in UTC (RFC 3339).
    pub started_at: String,
    /// Its report as JSON.
    pub report: String,
}

/// Whose journals are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journals {
    /// Those of all runs.
    All,
    /// Those of runs that have no end, and may be resumed or given up.
    Open,
}

impl Journals {
    /// Runs in one page.
    const PAGE: usize = 64;

    /// SQL: the kinds of events that end a run.
    const ENDS: &'static str = "('verified', 'abandoned', 'rolled_back')";
}

/// What a load is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// Its rows are to stay.
    Commit,
    /// All of it is taken back: nothing is written outside of its transaction, and no key is reserved.
    Rehearse,
}

/// The mappings that one run appended to the key map's history of one table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Segment {
    /// The run.
    pub run: String,
    /// The table.
    pub table: String,
    /// How many mappings.
    pub rows: u64,
}

/// Rows on their way.
pub type Batches<'a> = BoxStream<'a, Result<RecordBatch>>;

/// The accepted rows of a run and their key maps, to be read as often as they are needed; tables by their place among the destinations.
pub trait RowSource: Send + Sync {
    /// The rows of a table as they are staged, see [`Load::stage`].
    ///
    /// # Errors
    /// Where they cannot be read.
    fn staged_rows(&self, at: usize) -> Result<Batches<'_>>;

    /// The same rows as they are compared, see [`Load::compare`].
    ///
    /// # Errors
    /// Where they cannot be read.
    fn expected_rows(&self, at: usize) -> Result<Batches<'_>>;

    /// Its key map as it is staged, see [`Load::stage_keys`].
    ///
    /// # Errors
    /// Where it cannot be read.
    fn key_map(&self, at: usize) -> Result<Batches<'_>>;

    /// The rows of production that a column of a table refers to, each once: `_row`, the first row that does, `key`, and `named`, the value
    /// that led to it, where it is not found by its legacy key.
    ///
    /// # Errors
    /// If the column is no reference.
    fn referenced(&self, _at: usize, column: &str) -> Result<RecordBatch> {
        Err(Error::internal(format!("`{column}` is not a reference")))
    }

    /// The rows that refer to the same as these rows by a column of a table.
    ///
    /// # Errors
    /// If the column is no reference.
    fn referring(&self, _at: usize, column: &str, _rows: &[u32]) -> Result<Vec<u32>> {
        Err(Error::internal(format!("`{column}` is not a reference")))
    }

    /// Hears that so many rows of a table went in.
    fn on_inserted(&self, _at: usize, _rows: u64) {}

    /// What is said of a table whose rows in production are not those of the delta: how they differ, in words.
    fn mismatch_error(&self, at: usize, how: &str) -> Error;
}

/// What an insertion did to one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The rows that went into production.
    pub rows: u64,
    /// The mappings that were appended to its key map.
    pub mappings: u64,
    /// Whether all rows were held against the delta, and nothing changes them between here and the commit.
    pub verified: bool,
}

/// What is known of a run into a target before it begins.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// What to look at, though it stops nothing.
    pub warnings: Vec<String>,
    /// How it will be done: keys, locks, triggers.
    pub notes: Vec<String>,
}

/// Refuses to switch production's own check of each row off where tables have triggers, which would be off with it, and where a
/// reference is filled by production, which no set of the load's values is held against.
fn refuse_set_based(destinations: &[Destination]) -> Result<()> {
    let with: Vec<_> = destinations
        .iter()
        .filter(|destination| !destination.table.triggers.is_empty())
        .map(|destination| destination.table.name.as_str())
        .collect();
    let hint = "set `load.foreign_keys` to `triggers`, the default";
    if !with.is_empty() {
        let message =
            format!("`foreign_keys: set_based` is not for tables with triggers: {}", crate::engine::list(&with));
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
                "`foreign_keys: set_based` is not for references that production fills: `{column}` of `{}`",
                table.name
            );
            return Err(Error::pipeline(message).hint(format!("give the column a value, or {hint}")));
        }
    }
    Ok(())
}

/// The schema of [`Load::totals`]: the number of rows, then each total.
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

/// The type of a text column.
pub fn text() -> DataType {
    DataType::Utf8
}

/// The schema of a staged key map: `_row`, `legacy_key`, and the key's columns.
pub fn key_map_schema(destination: &Destination) -> SchemaRef {
    use arrow::datatypes::{Field, Schema};
    let mut fields = vec![Field::new("_row", DataType::UInt32, false), Field::new("legacy_key", text(), false)];
    fields.extend(destination.key.iter().filter_map(|name| destination.table.column(name)).map(CatalogColumn::field));
    Arc::new(Schema::new(fields))
}

//! Where rows go: production, its staging area and its control tables, behind one trait.
//!
//! A [`Target`] answers questions, and keeps the journal. What writes rows is a [`Load`]: one transaction from the first row of
//! production to the run's own row. One that is dropped is rolled back.

mod catalog;
mod difference;
mod key_block;
mod logical_type;
mod lookup;
mod migration;
mod mode;
mod none;
mod policy;
pub mod postgres;
mod production_provider;
mod references;
mod rollback;
pub mod sqlite;
mod violations;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;

pub use catalog::{Catalog, CatalogColumn, CatalogTable, CheckConstraint, Condition, ForeignKey, UniqueConstraint};
use difference::different;
pub use key_block::{KeyBlock, KeyRequest, TextKey};
pub use logical_type::{LogicalType, bytes, elements};
pub use lookup::{Filter, Lookup, Relation, Test};
pub use mode::{Ended, Mode, Period, Switch, shown};
pub use none::NoTarget;
pub use policy::{MAX_KEY_BLOCK, Policy};
pub use production_provider::ProductionTable;
pub use rollback::{RollbackConflict, RollbackPlan, RolledBackTable, RunTable};
pub use violations::{ConstraintViolation, InsertError};

use crate::error::{Error, Result};
use crate::journal::Record;
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
    pub levelled: bool,
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
        let in_front = 1 + usize::from(self.levelled);
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

/// A target that is asked.
#[async_trait]
pub trait Target: Send + Sync {
    /// The schema of the live tables.
    async fn catalog(&self) -> Result<Catalog>;

    /// Refuses a run into these tables that cannot end well: own tables that cannot be made, rights that are missing or too
    /// many, constraints of production that do not hold. Gives what should be known of it. Writes nothing.
    async fn preflight(&self, destinations: &[Destination], access: Access) -> Result<Preflight>;

    /// The SQL of what a target keeps for its loads: control objects, roles, and grants; `owner` is the role that owns them, if one is
    /// named. None if the target needs no SQL.
    async fn setup_script(&self, destinations: &[Destination], owner: Option<&str>) -> Result<Option<String>>;

    /// Sets the target up: runs that SQL. A second setup changes nothing that is right already.
    async fn setup(&self, destinations: &[Destination], owner: Option<&str>) -> Result<()>;

    /// Looks the delta's values up. A batch of `keys` has `_id` (UInt32) and then a column for each of
    /// `lookup.match_on`; the answer has `_id` and `lookup.give`, one row a match. The cost follows the keys, not the
    /// table, where production has an index.
    async fn lookup(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>>;

    /// Reads columns of a production table, for user SQL that names it: all rows, or any so many. What the filters leave out may
    /// be left out; what they keep must come. Rows come as they are read, a bounded number at a time; without columns the batches have
    /// one that only counts.
    async fn scan(
        &self,
        table: &str,
        columns: &[String],
        filters: &[Filter],
        limit: Option<usize>,
    ) -> Result<Batches<'static>>;

    /// Which of these files, by table and hash, were loaded.
    async fn loaded_files(&self, files: &[(String, String)]) -> Result<Vec<LoadedFile>>;

    /// Which numbers a block would have if it were reserved now. Writes nothing.
    async fn foresee(&self, request: &KeyRequest) -> Result<KeyBlock>;

    /// The runs, oldest first, without their reports.
    async fn runs(&self) -> Result<Vec<RunHeader>>;

    /// A run with its report; None if there is no such run.
    async fn run(&self, id: &str) -> Result<Option<RunRecord>>;

    /// The key map's history of a table, in order of its legacy keys; empty where there is none. Rows come as they are read.
    async fn key_map(&self, destination: &Destination) -> Result<Batches<'static>>;

    /// What the target's clock says.
    async fn now(&self) -> Result<jiff::Timestamp>;

    /// Returns what the target requires of every run. A target that was made now, from `create_from`, requires nothing.
    async fn policy(&self) -> Result<Policy>;

    /// States what the target requires from now on.
    ///
    /// # Errors
    /// If this login is not the operator's.
    async fn set_policy(&self, policy: &Policy) -> Result<()>;

    /// Conversion mode, by the target's clock.
    async fn mode(&self) -> Result<Mode>;

    /// Switches conversion mode.
    ///
    /// # Errors
    /// Where this user may not: who loads cannot let himself in.
    async fn switch_mode(&self, switch: &Switch) -> Result<()>;

    /// Takes the lock that all who write to this target take in turns, for a run; it is held until [`Target::release`], or until this
    /// process ends, however it ends.
    ///
    /// # Errors
    /// Where somebody else has it: who, and since when.
    async fn claim(&self, run: &str) -> Result<()>;

    /// Gives the lock back.
    async fn release(&self) -> Result<()>;

    /// The journal of a run, in its order.
    async fn journal(&self, run: &str) -> Result<Vec<Record>>;

    /// The whole journals of the next runs whose ids follow `after`, run after run: of all runs, or of those without an end. As few as make a
    /// page; none if there are no more.
    async fn journals(&self, of: Journals, after: &str) -> Result<Vec<Record>>;

    /// Adds an entry to a journal, where no load is at work.
    async fn note(&self, record: &Record) -> Result<()>;

    /// Whether a run was committed whose COMMIT went out and was not answered: `transaction` is what [`Load::transaction`] said.
    async fn committed(&self, run: &str, transaction: Option<&str>) -> Result<bool>;

    /// The segments of the key map's history, in order of their runs, as the ledger has them: the history is not read.
    async fn segments(&self) -> Result<Vec<Segment>>;

    /// The mappings that a run appended: `legacy_key` and the key's columns, in order of the legacy keys' bytes. The cost
    /// follows the segment, not the history. Rows come as they are read.
    async fn segment(&self, table: &str, run: &str) -> Result<Batches<'static>>;

    /// The ids by which this target is told from others, the oldest first; one that has none is given one where `make` says so.
    async fn identity(&self, make: bool) -> Result<Vec<String>>;

    /// The legacy keys of the rows that a run inserted into a table and that are gone from production; the cost follows the run.
    async fn gone(&self, destination: &Destination, run: &str) -> Result<Vec<String>>;

    /// What a committed run holds in each table.
    async fn holdings(&self, run: &str) -> Result<Vec<RunTable>>;

    /// What a committed run holds, and what is in the way of its rollback: rows that were changed since or are gone, and rows that refer
    /// to its own and are not. `accepted` are tables that were altered or dropped since, of which the operator knows that nothing else was.
    /// Leaves nothing changed.
    ///
    /// # Errors
    /// If the rollback would fail for another reason: with that one.
    async fn survey(&self, run: &str, accepted: &[String]) -> Result<RollbackPlan>;

    /// Rolls a committed run back, under the lock: its rows and its key map go, and the entry comes into the journal, all in one
    /// transaction; conversion mode ends with it where that is asked for.
    ///
    /// # Errors
    /// If anything is in the way, or something else than the run's rows would go: nothing is changed then.
    async fn take_back(&self, record: &Record, end_mode: bool, accepted: &[String]) -> Result<Vec<RolledBackTable>>;

    /// Begins a load, under the lock; takes it where it is not held yet.
    async fn begin(&self, run: &str, intent: LoadMode) -> Result<Box<dyn Load>>;

    /// Holds the rows of the last load against what was meant: the first difference, in words.
    async fn compare(&self, destination: &Destination, meant: Batches<'_>) -> Result<Option<String>>;

    /// Brings the statistics of these tables up to date where so many new rows make a difference to them.
    async fn analyze(&self, destinations: &[Destination], inserted: &[u64]) -> Result<()>;
}

/// Rows on their way.
pub type Batches<'a> = BoxStream<'a, Result<RecordBatch>>;

/// The accepted rows of a run and their key maps, to be read as often as they are needed; tables by their place among the destinations.
pub trait RowSource: Send + Sync {
    /// The rows of a table as they are staged, see [`Load::stage`].
    ///
    /// # Errors
    /// Where they cannot be read.
    fn rows(&self, at: usize) -> Result<Batches<'_>>;

    /// The same rows as they are compared, see [`Load::compare`].
    ///
    /// # Errors
    /// Where they cannot be read.
    fn meant(&self, at: usize) -> Result<Batches<'_>>;

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
        Err(Error::internal(format!("`{column}` is no reference")))
    }

    /// The rows that refer to the same as these rows by a column of a table.
    ///
    /// # Errors
    /// If the column is no reference.
    fn referring(&self, _at: usize, column: &str, _rows: &[u32]) -> Result<Vec<u32>> {
        Err(Error::internal(format!("`{column}` is no reference")))
    }

    /// Hears that so many rows of a table went in.
    fn inserted(&self, _at: usize, _rows: u64) {}

    /// What is said of a table whose rows in production are not those of the delta: how they differ, in words.
    fn differs(&self, at: usize, how: &str) -> Error;
}

/// What an insertion did to one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The rows that went into production.
    pub rows: u64,
    /// The mappings that were appended to its key map.
    pub mappings: u64,
    /// Whether all rows were held against the delta, and nothing changes them between here and the commit.
    pub compared: bool,
}

/// What is known of a run into a target before it begins.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// What to look at, though it stops nothing.
    pub warnings: Vec<String>,
    /// How it will be done: keys, locks, triggers.
    pub notes: Vec<String>,
}

/// A load: everything that is written. Production and the key map's history are written in one transaction, which
/// [`Load::open_insertion`] begins at the latest and [`Load::commit`] ends.
#[async_trait]
pub trait Load: Send {
    /// Adds an entry to the journal now, whatever becomes of the insertion where the target can do that.
    async fn note(&mut self, record: &Record) -> Result<()>;

    /// Whether staging holds, from before the run was interrupted, exactly these rows of a table and these keys, value by value. A target
    /// that cannot tell says no: they are staged again then.
    async fn is_staged(&mut self, destination: &Destination, rows: Batches<'_>, keys: Batches<'_>) -> Result<bool>;

    /// Reserves a block of keys for this run; one that it has already is given again.
    async fn reserve(&mut self, request: &KeyRequest) -> Result<KeyBlock>;

    /// Which of these files, by table and hash, were loaded: by another run, while this one waited for its turn.
    async fn loaded_files(&mut self, files: &[(String, String)]) -> Result<Vec<LoadedFile>>;

    /// Which of these tables, whose keys are reserved, have their rows copied straight into production: they are not staged, and what was
    /// inserted is held against the delta itself.
    fn straight(&mut self, destinations: &[Destination]) -> Vec<bool> {
        vec![false; destinations.len()]
    }

    /// Empties the staging tables and key maps of these tables; touches no table that this program did not make.
    async fn clean_staging(&mut self, destinations: &[Destination]) -> Result<()>;

    /// Bulk-copies rows into staging; a batch has `_row`, `_level` where the destination is levelled, and the destination's columns.
    async fn stage(&mut self, destination: &Destination, rows: Batches<'_>) -> Result<u64>;

    /// Bulk-copies the key map into `ck_<table>`; a batch has `_row`, `legacy_key` and the key's columns.
    async fn stage_keys(&mut self, destination: &Destination, keys: Batches<'_>) -> Result<u64>;

    /// Conversion mode as the insertion finds it; from here to the end of its transaction nobody changes it.
    async fn hold_mode(&mut self) -> Result<Mode>;

    /// Returns what the target requires; it stays so until the transaction of the insertion ends.
    async fn hold_policy(&mut self) -> Result<Policy>;

    /// Ends conversion mode with this run, if its rows are committed; one that is to be kept stays on.
    async fn end_mode(&mut self) -> Result<()>;

    /// Begins the insertion: nothing that staged rows refer to can go away from here on.
    async fn open_insertion(&mut self, destinations: &[Destination]) -> Result<(), InsertError>;

    /// Inserts the rows of these tables into production, in their order, and appends their key maps to the history, each as a segment of
    /// this run: what is staged, and out of `delta` what is not. What they refer to is locked until the commit, whether a foreign key
    /// covers it or not.
    async fn insert(
        &mut self,
        destinations: &[Destination],
        delta: &dyn RowSource,
    ) -> Result<Vec<Inserted>, InsertError>;

    /// Appends staged mappings of a table, by their row numbers, to its history as a run's: this one, or an earlier one that had appended
    /// them.
    async fn append_key_map(
        &mut self,
        destination: &Destination,
        run: &str,
        rows: Range<u32>,
    ) -> Result<u64, InsertError>;

    /// Has the target go by another id too: the store of that one is its own from now on.
    async fn adopt(&mut self, id: &str) -> Result<()>;

    /// Has production decide on everything that it put off until all tables are there; which rows it refuses is asked of staging, or of
    /// `delta`.
    async fn settle(&mut self, destinations: &[Destination], delta: &dyn RowSource) -> Result<(), InsertError>;

    /// Totals over the rows in production that this load inserted, found by their keys: one row, under
    /// [`totals_schema`].
    async fn totals(&mut self, destination: &Destination, totals: &[(String, Aggregate)]) -> Result<RecordBatch>;

    /// As [`Target::compare`], before the commit.
    async fn compare(&mut self, destination: &Destination, meant: Batches<'_>) -> Result<Option<String>>;

    /// Notes the run and its files.
    async fn record(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()>;

    /// Adds an entry to the journal that is there if the rows are.
    async fn note_with_rows(&mut self, record: &Record) -> Result<()>;

    /// The number of the transaction that inserts, where the target can be asked later what became of it.
    async fn transaction(&mut self) -> Result<Option<String>>;

    /// The sequences that this load moved, which taking it back does not undo.
    async fn moved(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Makes it all visible, at once. The last statement before that asks whether production still has none of the values that no index
    /// keeps free.
    async fn commit(self: Box<Self>) -> Result<(), InsertError>;

    /// Takes everything back.
    async fn roll_back(self: Box<Self>) -> Result<()>;
}

/// Refuses to switch production's own check of each row off where tables have triggers, which would be off with it, and where a
/// reference is filled by production, which no set of the load's values is held against.
fn refuse_set_based(destinations: &[Destination]) -> Result<()> {
    let with: Vec<_> = destinations
        .iter()
        .filter(|destination| !destination.table.triggers.is_empty())
        .map(|destination| destination.table.name.as_str())
        .collect();
    let hint = "write `foreign_keys: triggers`, which is what runs without `load`";
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
pub fn totals_schema(destination: &Destination, totals: &[(String, Aggregate)]) -> SchemaRef {
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

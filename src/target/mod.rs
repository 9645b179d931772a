//! Where rows go: production, its staging area and its control tables, behind one trait.
//!
//! A [`Target`] answers questions and writes nothing. What writes is a [`Load`]: one transaction from the first staged
//! row to the run's own row. One that is dropped is rolled back.

mod catalog;
pub mod sqlite;
mod table;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;

pub use catalog::{Catalog, CatalogColumn, CatalogTable, CheckConstraint, ForeignKey, UniqueConstraint};
pub use table::ProductionTable;

use crate::error::{Error, Result};
use crate::spec::{StartRowNumber, TargetSpec};

/// What a command will do with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only ask: the target is opened so that it cannot be written.
    Read,
    /// Load rows.
    Write,
}

/// A target as the pipeline file or the command line names it, with every `${…}` filled in.
#[derive(Debug)]
pub struct Address<'a> {
    /// The URL.
    pub url: &'a str,
    /// What is said of it in messages: no secrets.
    pub shown: &'a str,
    /// The target's other settings.
    pub spec: &'a TargetSpec,
    /// The folder that a relative path in the URL starts from.
    pub folder: &'a Path,
    /// The folder that the other relative paths start from: the pipeline file's.
    pub script_folder: &'a Path,
}

/// Opens the target that an address names.
///
/// # Errors
/// Where the URL's scheme is unknown or the target cannot be reached.
pub fn open(address: &Address<'_>, access: Access) -> Result<Arc<dyn Target>> {
    match address.url.split_once(':') {
        Some(("sqlite", rest)) => Ok(Arc::new(sqlite::SqliteTarget::open(rest, address, access)?)),
        _ => Err(Error::pipeline(format!("the target `{}` is of no known kind", address.shown))
            .hint("write `sqlite:FILE`, for example `sqlite:customer.db`")),
    }
}

/// A question about rows that exist: which of the delta's values are there?
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Where to look.
    pub place: Place,
    /// The columns there that are held against the columns of the question, in order.
    pub match_on: Vec<String>,
    /// Those of them that are compared without regard to the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// The columns there that are wanted for each match.
    pub give: Vec<String>,
}

/// A place to look things up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A table of production.
    Production(String),
    /// The key map's history of a table; its columns are `legacy_key`, the table's key columns and `run`.
    KeyMap(String),
}

/// A request for keys of one table.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// The table.
    pub table: String,
    /// Its key column.
    pub column: String,
    /// Where keys start.
    pub start: StartRowNumber,
    /// How many are needed.
    pub count: u64,
    /// How a text key is written; None for integers.
    pub text: Option<TextKey>,
    /// The largest number that the column can hold.
    pub largest: i64,
}

/// A key that is text of a fixed width: a prefix and a number padded with zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextKey {
    /// What it begins with.
    pub prefix: String,
    /// All its characters.
    pub width: usize,
}

impl TextKey {
    /// The largest number that fits.
    pub fn largest(&self) -> i64 {
        let digits = self.width.saturating_sub(self.prefix.chars().count()).min(18) as u32;
        10_i64.pow(digits) - 1
    }

    /// The key of a number.
    pub fn format(&self, number: i64) -> String {
        format!("{}{number:0digits$}", self.prefix, digits = self.width.saturating_sub(self.prefix.chars().count()))
    }
}

/// Keys of one table that belong to one run: `first` to `last`, both included.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Block {
    /// The table.
    pub table: String,
    /// The first number.
    pub first: i64,
    /// The last number; `first - 1` for an empty block.
    pub last: i64,
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
    /// Whether rows refer to rows of the same table: a staged row then has a `_level`, and lower ones are inserted first.
    pub levelled: bool,
}

/// One number or value that is the same on both sides when nothing got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
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

/// A target that is asked.
#[async_trait]
pub trait Target: Send + Sync {
    /// The schema of the live tables.
    async fn catalog(&self) -> Result<Catalog>;

    /// Refuses a run into these tables whose own tables cannot be made, because production has something of their names or
    /// two of them want the same. Writes nothing.
    async fn preflight(&self, destinations: &[Destination]) -> Result<()>;

    /// Looks the delta's values up. A batch of `keys` has `_id` (UInt32) and then a column for each of
    /// `lookup.match_on`; the answer has `_id` and `lookup.give`, one row a match. The cost follows the keys, not the
    /// table, where production has an index.
    async fn lookup(&self, lookup: &Lookup, keys: &[RecordBatch]) -> Result<Vec<RecordBatch>>;

    /// Reads columns of a production table, for user SQL that names it; `condition` is SQL over its columns.
    async fn scan(&self, table: &str, columns: &[String], condition: Option<&str>) -> Result<Vec<RecordBatch>>;

    /// Which of these files, by table and hash, were loaded.
    async fn loaded_files(&self, files: &[(String, String)]) -> Result<Vec<LoadedFile>>;

    /// Which numbers a block would have if it were reserved now. Writes nothing.
    async fn foresee(&self, request: &KeyRequest) -> Result<Block>;

    /// The runs, oldest first.
    async fn runs(&self) -> Result<Vec<RunRecord>>;

    /// The key map's history of a table, in order of its legacy keys; empty where there is none.
    async fn key_map(&self, destination: &Destination) -> Result<Vec<RecordBatch>>;

    /// Begins a load; one at a time.
    async fn begin(&self, run: &str) -> Result<Box<dyn Load>>;

    /// The rows of the last load, in the order of their numbers in the delta: `_row` and the destination's columns.
    async fn read_back(&self, destination: &Destination) -> Result<Vec<RecordBatch>>;
}

/// A load: everything that is written, in one transaction.
#[async_trait]
pub trait Load: Send {
    /// Reserves a block of keys for this run.
    async fn reserve(&mut self, request: &KeyRequest) -> Result<Block>;

    /// Which of these files, by table and hash, were loaded: by another run, while this one waited for its turn.
    async fn loaded_files(&mut self, files: &[(String, String)]) -> Result<Vec<LoadedFile>>;

    /// Empties the staging tables and key maps of these tables; touches no table that this program did not make.
    async fn clean_staging(&mut self, destinations: &[Destination]) -> Result<()>;

    /// Bulk-copies rows into staging; a batch has `_row`, `_level` where the destination is levelled, and the destination's columns.
    async fn stage(&mut self, destination: &Destination, rows: BoxStream<'_, Result<RecordBatch>>) -> Result<u64>;

    /// Bulk-copies the key map into `ck_<table>`; a batch has `_row`, `legacy_key` and the key's columns.
    async fn stage_keys(&mut self, destination: &Destination, keys: BoxStream<'_, Result<RecordBatch>>) -> Result<u64>;

    /// Inserts the staged rows of a table into production.
    async fn insert(&mut self, destination: &Destination) -> Result<u64>;

    /// Appends the staged key map of a table to its history.
    async fn append_key_map(&mut self, destination: &Destination) -> Result<u64>;

    /// Totals over the rows in production that this load inserted, found by their keys: one row, under
    /// [`totals_schema`].
    async fn totals(&mut self, destination: &Destination, totals: &[(String, Total)]) -> Result<RecordBatch>;

    /// As [`Target::read_back`], before the commit.
    async fn read_back(&mut self, destination: &Destination) -> Result<Vec<RecordBatch>>;

    /// Notes the run and its files.
    async fn record(&mut self, run: &RunRecord, files: &[LoadedFile]) -> Result<()>;

    /// Makes it all visible, at once.
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// The schema of [`Load::totals`]: the number of rows, then each total.
pub fn totals_schema(destination: &Destination, totals: &[(String, Total)]) -> SchemaRef {
    use arrow::datatypes::{Field, Schema};
    let mut fields = vec![Field::new("rows", DataType::Int64, false)];
    for (name, total) in totals {
        let data_type = match (total, destination.table.column(name)) {
            (Total::Min | Total::Max, Some(column)) => column.data_type.clone(),
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

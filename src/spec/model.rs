//! The pipeline file as the user wrote it.
//!
//! These types are the file's reference: the JSON Schema that `pipeline schema` prints is made from
//! them, and the comment on each field is what an editor shows.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::output_files::OutputMode;

use super::value::{OrderedMap, Scalar, StartRowNumber, Threshold, TimeOfDay, Timeout};

/// A pipeline: delta files in, production rows out.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Delta pipeline")]
pub struct PipelineSpec {
    /// The version of this format: 1.
    pub version: u32,
    /// The pipeline's name: letters, digits, `-` and `_`. It names the run in the target and its reports.
    pub name: String,
    /// Where the rows go. Left out, `check`, `validate` and `explain` tell what the delta alone can tell; all else needs it.
    pub target: Option<TargetSpec>,
    /// What must hold before anything is written.
    #[serde(default)]
    pub safeguards: SafeguardsSpec,
    /// How rows are inserted.
    #[serde(default)]
    pub load: LoadSpec,
    /// Which key map legacy keys are looked up in and appended to.
    #[serde(default)]
    pub key_map: KeyMapSpec,
    /// The folder for rejects and reports, relative to this file; a run's own are in `<output>/<run id>/`.
    #[serde(default = "default_output")]
    pub output: PathBuf,
    /// Who may read rejects, reports, journals, and backups in folders, as the octal permission bits of the files: `"0640"` lets the
    /// group read them. The owner may always read and write; others may at most read. A folder can be entered by those who
    /// may read its files; one that is there already keeps its mode. Object stores have rules of their own. Default: `"0600"`,
    /// the user who runs the pipeline, because these files are full of records of people.
    #[serde(default)]
    pub output_mode: OutputMode,
    /// The target tables to load, by name. Their order does not matter: references decide it.
    pub tables: OrderedMap<TableSpec>,
}

fn default_output() -> PathBuf {
    PathBuf::from("runs")
}

/// Where the rows go.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// `sqlite:FILE`, relative to this file, or `postgres://USER@HOST:PORT/DATABASE`.
    pub url: String,
    /// A file of SQL statements that makes the database where there is none yet: for demos, tests and
    /// production-like copies. Never run on a database that has any table. One file, or one for each kind of target.
    /// On PostgreSQL it is one transaction: its own `BEGIN` and `COMMIT` are left out, and commands of psql are refused. Commands that write
    /// nothing keep nothing of it.
    pub create_from: Option<CreateFrom>,
    /// The schema of the live tables; `main` on SQLite, `public` on PostgreSQL if it is left out.
    pub production: Option<String>,
    /// The schema where rows are proven before they go live; on SQLite a prefix of table names (`staging_account`).
    #[serde(default = "default_staging")]
    pub staging: String,
}

impl TargetSpec {
    /// The target of a URL, with nothing else said.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), create_from: None, production: None, staging: default_staging() }
    }
}

/// What makes a database: SQL is not the same everywhere.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CreateFrom {
    /// A file for whatever target the URL names.
    Any(PathBuf),
    /// A file for each kind of target.
    Each(CreateFromEach),
}

/// A file of SQL for each kind of target.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateFromEach {
    /// For a SQLite file.
    pub sqlite: Option<PathBuf>,
    /// For a PostgreSQL database.
    pub postgres: Option<PathBuf>,
}

impl CreateFrom {
    /// The file for SQLite.
    pub fn sqlite(&self) -> Option<&PathBuf> {
        match self {
            Self::Any(file) => Some(file),
            Self::Each(each) => each.sqlite.as_ref(),
        }
    }

    /// The file for PostgreSQL.
    pub fn postgres(&self) -> Option<&PathBuf> {
        match self {
            Self::Any(file) => Some(file),
            Self::Each(each) => each.postgres.as_ref(),
        }
    }
}

fn default_staging() -> String {
    "staging".into()
}

/// What must hold before anything is written.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SafeguardsSpec {
    /// How many rows of a table may be rejected, as a number (`20`) or a share of the rows read (`1%`). With more,
    /// nothing is loaded. Default: 0.
    pub max_rejects: Option<Threshold>,
    /// Where the key map is backed up before anything is written: a folder relative to this file, or the URL of an object store
    /// (`s3://`, `gs://`, `az://`, `https://`; credentials come from the environment). Left out, it is not backed up.
    pub backup: Option<String>,
    /// Whether who loads may be able to update or delete in production. A run never does; the server can hold it to that.
    #[serde(default)]
    pub least_privilege: LeastPrivilege,
    /// Whether somebody must have switched conversion mode on (`pipeline mode on`) before anything is written. Default: `required` on
    /// PostgreSQL, `off` on SQLite.
    pub conversion_mode: Option<ConversionMode>,
    /// When runs may begin and insert; left out, at any time.
    pub window: Option<WindowSpec>,
}

/// Which key map legacy keys are looked up in and appended to.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyMapSpec {
    /// A name for the legacy system, if records of several are converted into the same tables: a legacy key of one is never taken for an
    /// equal key of another. Letters, digits, `-` and `_`.
    pub namespace: Option<String>,
}

/// Whether a target must be in conversion mode before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConversionMode {
    /// Nothing is written without it.
    Required,
    /// It is not asked for.
    Off,
}

/// When runs may begin and insert, by the target's clock. What the clocks of the time zone show decides: an hour that they skip is
/// missing in the window, and one that they show twice counts twice.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The days on which the window opens: `mon`, `tue`, `wed`, `thu`, `fri`, `sat` and `sun`; left out, all of them. One that opens on
    /// `sat` at 22:00 and closes at 06:00 is Saturday's to its end.
    pub days: Option<Vec<Day>>,
    /// When it opens, such as `"22:00"`.
    pub from: TimeOfDay,
    /// When it closes, such as `"06:00"`; a time before `from` is the next day's.
    pub to: TimeOfDay,
    /// The time zone by its IANA name, such as `Europe/Berlin`.
    pub timezone: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "their names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Whether who loads may be able to do more than a load needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeastPrivilege {
    /// The report says so.
    #[default]
    Warn,
    /// A run is refused.
    Require,
}

/// How rows are inserted.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadSpec {
    /// How references are held.
    pub foreign_keys: ForeignKeys,
    /// How long a statement waits for a lock that another program holds, such as `5s` or `500ms`. A COMMIT on SQLite waits as long for other
    /// programs' reading to end.
    pub lock_timeout: Timeout,
    /// How long one statement may take, such as `30min` or `4h`.
    pub statement_timeout: Timeout,
    /// How many connections copy rows into staging at the same time; PostgreSQL only.
    pub connections: u8,
    /// Which rows go through staging; PostgreSQL only.
    pub staging: Staging,
    /// What is locked beside the rows that are referred to; PostgreSQL only, since SQLite has one writer at a time.
    pub lock: Lock,
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            foreign_keys: ForeignKeys::default(),
            lock_timeout: Timeout::from_secs(5),
            statement_timeout: Timeout::from_secs(4 * 60 * 60),
            connections: 2,
            staging: Staging::default(),
            lock: Lock::default(),
        }
    }
}

/// What a load locks so that a uniqueness holds which the pipeline file states (`checks: [{ unique: … }]`) and no index of production
/// enforces, and so that integer keys are free which come from no sequence: without this lock, PostgreSQL targets need such a table's
/// `start_row_number`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// Nothing: the last statement before the COMMIT checks such a uniqueness again. It does not see rows that another session has
    /// inserted and commits later.
    #[default]
    None,
    /// The tables with such a uniqueness, and those with such keys, which continue from the largest. From the beginning of the insertion to
    /// the COMMIT, other sessions wait when they write to them, and read them as before. The load waits for sessions that have written and
    /// not committed, up to `lock_timeout`.
    Table,
}

/// Which rows go through staging.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Staging {
    /// All rows: the last transaction has none of them on its way, only on the server.
    Always,
    /// Those of tables that need it. The others are brought straight into production inside the last transaction, which is faster where
    /// the network is, and read back before it commits. Staging is needed by rows that bring their own key, and by checks that no
    /// constraint of production keeps true; on PostgreSQL by columns that the server casts or writes in another way (intervals, arrays,
    /// jsonb); on SQLite by keys that are texts, by triggers, and by references to rows of the same table that are looked at row by row.
    #[default]
    WhenNeeded,
}

/// How references are held while rows are inserted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForeignKeys {
    /// Production looks at every row by itself.
    #[default]
    Triggers,
    /// Referenced rows are locked, all references are checked as one set, and production's own check of each row is off for this
    /// transaction. Only for tables without triggers of their own, and on PostgreSQL only where the role may set
    /// `session_replication_role` (`pipeline setup` grants it).
    SetBased,
}

/// One target table: where its rows come from, and what must be true of them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// The delta files of this table.
    pub source: SourceSpec,
    /// The source columns that identify a record in the legacy system.
    pub legacy_key: Vec<String>,
    /// How a row gets its new key. Left out, the table's primary key must be among the columns.
    pub key: Option<KeySpec>,
    /// Target column: SQL expression over the source columns. A target column that is not named here takes the source
    /// column of its own name.
    #[serde(default)]
    pub columns: OrderedMap<String>,
    /// A whole `SELECT … FROM source` instead of `columns`; its output columns are the target's.
    pub select: Option<String>,
    /// References to other tables, resolved to the new keys.
    #[serde(default)]
    pub relationships: Vec<RelationshipSpec>,
    /// What must be true of each row, beside what production's catalog states already.
    #[serde(default)]
    pub checks: Vec<CheckSpec>,
    /// Rows of this delta that share a legacy key or the values of a unique constraint.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// Rows whose legacy key is in the key map already, or whose unique values are in production.
    #[serde(default)]
    pub existing: ExistingRowPolicy,
    /// This table's own limit, instead of `safeguards.max_rejects`.
    pub max_rejects: Option<Threshold>,
}

/// The delta files of one table.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// A file, a folder (all its files of the format) or a glob, relative to this file.
    pub path: String,
    /// The format; by default the file name's extension tells it.
    pub format: Option<Format>,
    /// Source columns that are not loaded, on purpose. A source column that nothing uses and that is not listed here is an
    /// error: data must not get lost in silence. `"*"` ignores all such columns.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// How CSV files are written.
    #[serde(default)]
    pub csv: CsvSpec,
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values (RFC 4180), `.csv` or `.tsv`; also with `.gz` or `.zst`.
    Csv,
    /// One JSON object a line: `.json`, `.jsonl` or `.ndjson`; also with `.gz` or `.zst`.
    Json,
    /// Apache Parquet: `.parquet`.
    Parquet,
    /// Arrow IPC, file or stream: `.arrow` or `.feather`.
    Arrow,
}

/// How CSV files are written.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSpec {
    /// The character between fields; by default `,` (a tab for `.tsv`).
    pub delimiter: Option<char>,
    /// The character around fields that hold the delimiter.
    pub quote: char,
    /// Whether the first line names the columns.
    pub header: bool,
    /// The column names where there is no header, in order.
    pub names: Vec<String>,
    /// Unquoted or quoted, these values are NULL.
    pub null_values: Vec<String>,
    /// The character encoding.
    pub encoding: Encoding,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self {
            delimiter: None,
            quote: '"',
            header: true,
            names: Vec::new(),
            null_values: vec![String::new()],
            encoding: Encoding::default(),
        }
    }
}

/// A character encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Encoding {
    /// UTF-8; a row with invalid bytes is rejected.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// Latin-1 as it is found in files, that is Windows-1252.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// How a row gets its new key: an offset of its own (`column`), or its parent's key plus something of its own (`inherited`).
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeySpec {
    /// The key column; integer, or text with `width`.
    pub column: Option<String>,
    /// The offset that keys count from: `auto` is production's own sequence or the maximum plus one.
    pub start_row_number: StartRowNumber,
    /// What a text key begins with.
    pub prefix: Option<String>,
    /// The number of characters of a text key, prefix included; the number is padded with zeros.
    pub width: Option<usize>,
    /// The columns of a key that is inherited: at least one is a reference in `relationships`, the others are the row's own.
    pub inherited: Vec<String>,
}

/// A reference to another table (or to a row of the same table).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelationshipSpec {
    /// The target column that gets the referenced row's key.
    pub column: String,
    /// The source columns that hold the referenced row's legacy key; by default the source column of the same name.
    #[serde(default)]
    pub from: Vec<String>,
    /// The referenced table.
    pub to: String,
    /// The referenced table's column that `from` holds a value of, where that is a value of production and no legacy key.
    pub by: Option<String>,
}

/// Rows of one delta that are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// The first row in the order of files and lines that passes its own checks stays, the others are rejected.
    First,
    /// All of them are rejected.
    #[default]
    Reject,
}

/// Rows that are in production already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExistingRowPolicy {
    /// They are rejected.
    #[default]
    Reject,
    /// They are left out, and counted as skipped.
    Skip,
}

/// One check: exactly one of `not_null`, `unique`, `accepted_values`, `range`, `matches`, `length`, `expression` and `sql`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckSpec {
    /// None of these columns is NULL.
    pub not_null: Option<Vec<String>>,
    /// No two rows have the same values in these columns together, in the delta and in production.
    pub unique: Option<Vec<String>>,
    /// The column has one of these values.
    pub accepted_values: Option<AcceptedValues>,
    /// The column lies between two bounds, both included.
    pub range: Option<Range>,
    /// The column matches a regular expression.
    pub matches: Option<Matches>,
    /// The column's number of characters lies between two bounds, both included.
    pub length: Option<Length>,
    /// An SQL expression over the target columns that is true; NULL passes.
    pub expression: Option<String>,
    /// A query that returns the rows that fail: its column `_row` names them.
    pub sql: Option<String>,
    /// The check's name; by default it is made of its kind and column.
    pub name: Option<String>,
    /// `error` rejects a row that fails, `warn` only counts it.
    pub severity: Severity,
    /// The check looks only at rows for which this SQL expression is true.
    pub r#where: Option<String>,
    /// With more failing rows than this (number or share) the report warns.
    pub warn_if: Option<Threshold>,
    /// With more failing rows than this (number or share) nothing is loaded.
    pub error_if: Option<Threshold>,
}

/// What a violation does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is counted and told.
    Warn,
    /// It rejects the row.
    #[default]
    Error,
}

/// The values that a column may have.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedValues {
    /// The target column.
    pub column: String,
    /// Its values; NULL passes.
    pub values: Vec<Scalar>,
}

/// The bounds of a column.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The target column.
    pub column: String,
    /// The smallest value.
    pub min: Option<Scalar>,
    /// The largest value.
    pub max: Option<Scalar>,
}

/// The pattern of a column.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    /// The target column.
    pub column: String,
    /// The regular expression (syntax of the Rust `regex` crate); not anchored.
    pub pattern: String,
}

/// The bounds of a column's length.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// The target column.
    pub column: String,
    /// The smallest number of characters.
    pub min: Option<u64>,
    /// The largest number of characters.
    pub max: Option<u64>,
}

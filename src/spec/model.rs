//! The pipeline file as the user wrote it.
//!
//! The JSON Schema that `pipeline schema` prints is generated from these types. Editors show the doc
//! comment of each field.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::output_files::OutputMode;

use super::source::SourceSpec;
use super::value::{Names, OrderedMap, Scalar, StartRowNumber, Threshold, TimeOfDay, Timeout};

/// A pipeline: delta files in, production rows out.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Delta pipeline")]
pub struct PipelineSpec {
    /// The version of the file format: 1.
    pub version: u32,
    /// The pipeline's name: letters, digits, `-` and `_`. The target and the reports show it with each run.
    pub name: String,
    /// The target database. If omitted, `check`, `validate` and `explain` work from the delta alone; other commands
    /// require it.
    pub target: Option<TargetSpec>,
    /// The conditions that must hold before anything is written.
    #[serde(default)]
    pub safeguards: SafeguardsSpec,
    /// The settings of the insertion.
    #[serde(default)]
    pub load: LoadSpec,
    /// The key map in which legacy keys are looked up and recorded.
    #[serde(default)]
    pub key_map: KeyMapSpec,
    /// The folder for rejects and reports, relative to this file. Each run writes to `<output>/<run id>/`.
    #[serde(default = "default_output")]
    pub output: PathBuf,
    /// The permission bits, in octal, of the files for rejects, reports, journals, and backups in folders: `"0640"` lets
    /// the group read them. The owner can always read and write; others can at most read. Users who can read the files
    /// can enter a new folder; an existing folder keeps its mode. Object stores control access themselves. Default:
    /// `"0600"`, the user who runs the pipeline, because these files contain personal data.
    #[serde(default)]
    pub output_mode: OutputMode,
    /// The target tables to load, by name, or as `schema.name` outside of the production schema. References determine the load
    /// order.
    pub tables: OrderedMap<TableSpec>,
}

impl PipelineSpec {
    /// Returns the schemas that the names of tables may begin with: `sales` of `sales.customer`.
    pub fn schemas(&self) -> Vec<String> {
        let referred =
            self.tables.iter().flat_map(|(_, table)| table.relationships.iter().map(|reference| &reference.to));
        let names = self.tables.iter().map(|(name, _)| name).chain(referred);
        let mut schemas: Vec<_> = names.filter_map(|name| Some(name.split_once('.')?.0.to_owned())).collect();
        schemas.sort();
        schemas.dedup();
        schemas
    }
}

fn default_output() -> PathBuf {
    PathBuf::from("runs")
}

/// The target database.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// `sqlite:FILE`, relative to this file, or `postgres://USER@HOST:PORT/DATABASE`.
    pub url: String,
    /// A file of SQL statements that creates the database if it does not exist: for demos, tests, and production-like
    /// copies. It never runs on a database that has a table. One file, or one per kind of target. On PostgreSQL it runs
    /// as one transaction: its own `BEGIN` and `COMMIT` are skipped, and psql commands are rejected. Commands that write
    /// nothing do not keep what it creates.
    pub create_from: Option<CreateFrom>,
    /// The schema of the live tables. Default: `main` on SQLite, `public` on PostgreSQL.
    pub production: Option<String>,
    /// The schema in which rows are checked before they go live; on SQLite, a prefix of table names (`staging_account`).
    #[serde(default = "default_staging")]
    pub staging: String,
}

impl TargetSpec {
    /// Returns the target at a URL, with defaults for all other fields.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), create_from: None, production: None, staging: default_staging() }
    }
}

/// The SQL that creates a database: one file, or one per kind of target.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CreateFrom {
    /// One file for every kind of target.
    Any(PathBuf),
    /// One file per kind of target, by its name: `sqlite`, `postgres`. A kind without a file is not created.
    Each(OrderedMap<PathBuf>),
}

impl CreateFrom {
    /// Returns the file for a kind of target, if any.
    pub fn file(&self, kind: &str) -> Option<&PathBuf> {
        match self {
            Self::Any(file) => Some(file),
            Self::Each(each) => each.iter().find(|(name, _)| name == kind).map(|(_, file)| file),
        }
    }

    /// Returns the kinds of target that it names.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        let each = match self {
            Self::Any(_) => [].as_slice(),
            Self::Each(each) => each,
        };
        each.iter().map(|(name, _)| name.as_str())
    }
}

fn default_staging() -> String {
    "staging".into()
}

/// The conditions that must hold before anything is written.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SafeguardsSpec {
    /// The maximum number of rejected rows per table, as a number (`20`) or a share of the rows read (`1%`). If a table
    /// has more, nothing is loaded. Default: 0.
    pub max_rejects: Option<Threshold>,
    /// The backup store for the key map, written before anything else. A folder relative to this file, or an object store
    /// (`s3://`, `gs://`, `az://`, `https://`) with credentials from the environment. If omitted, there is no backup.
    pub backup: Option<String>,
    /// Whether a run accepts a loader login that can update or delete in production. A run itself never does either.
    #[serde(default)]
    pub least_privilege: LeastPrivilege,
    /// Whether conversion mode must be on (`pipeline mode on`) before anything is written. Default: `required` on
    /// PostgreSQL, `off` on SQLite.
    pub conversion_mode: Option<ConversionMode>,
    /// When runs can begin and insert. Default: at any time.
    pub window: Option<WindowSpec>,
}

/// The key map in which legacy keys are looked up and recorded.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyMapSpec {
    /// A name for the legacy system. Set it if several systems are converted into the same tables, because their legacy
    /// keys can be equal. Letters, digits, `-` and `_`.
    pub namespace: Option<String>,
}

/// Whether a target must be in conversion mode before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConversionMode {
    /// Nothing is written unless the mode is on.
    Required,
    /// The mode is not checked.
    Off,
}

/// When runs can begin and insert, by the target's clock. The window follows local time in its zone: the hour
/// skipped by daylight saving is absent, and the repeated hour counts twice.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The days on which the window opens: `mon`, `tue`, `wed`, `thu`, `fri`, `sat` and `sun`. Default: every day. A
    /// window from 22:00 on `sat` to 06:00 belongs to Saturday until it closes.
    pub days: Option<Vec<Day>>,
    /// The opening time, such as `"22:00"`.
    pub from: TimeOfDay,
    /// The closing time, such as `"06:00"`. A time before `from` is on the next day.
    pub to: TimeOfDay,
    /// The time zone by its IANA name, such as `Europe/Berlin`.
    pub timezone: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are self-explanatory")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Whether a run accepts a loader login with more privileges than a load needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeastPrivilege {
    /// The report warns.
    #[default]
    Warn,
    /// The run is refused.
    Require,
}

/// The settings of the insertion.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadSpec {
    /// The method of checking foreign keys.
    pub foreign_keys: ForeignKeys,
    /// The maximum time that a statement waits for a lock of another program, such as `5s` or `500ms`. On SQLite, it is
    /// also the time that a COMMIT waits for readers.
    pub lock_timeout: Timeout,
    /// The maximum duration of one statement, such as `30min` or `4h`.
    pub statement_timeout: Timeout,
    /// The number of connections that copy rows into staging at the same time; PostgreSQL only.
    pub connections: u8,
    /// The rows that go through staging; PostgreSQL only.
    pub staging: Staging,
    /// Locks in addition to those of referenced rows; PostgreSQL only, because SQLite allows one writer at a time.
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

/// Locks in addition to those of referenced rows. They protect uniqueness that only the pipeline file declares
/// (`checks: [{ unique: … }]`), and integer keys without a sequence. Without locks, a table with such keys needs
/// `start_row_number` on PostgreSQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// Nothing. The last statement before the COMMIT checks declared uniqueness again. It does not see rows that another
    /// session has inserted but not yet committed.
    #[default]
    None,
    /// The tables with declared uniqueness, and the tables with such keys, which continue from the largest. From the
    /// beginning of the insertion to the COMMIT, other sessions can read these tables, but wait to write. The load waits
    /// up to `lock_timeout` for sessions with uncommitted writes.
    Table,
}

/// The rows that go through staging.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Staging {
    /// All rows: the final transaction copies nothing over the network.
    Always,
    /// Only tables that need it. Other tables are copied directly into production in the final transaction, and read back
    /// before the commit; this is faster if the network is fast. A table needs staging if its key is not known before or
    /// not unique in production, or if a check is not enforced by a constraint of production. On PostgreSQL, so do columns
    /// that the server casts or rewrites (intervals, arrays, jsonb). On SQLite, so do triggers, and row-by-row references
    /// within a table.
    #[default]
    WhenNeeded,
}

/// The method of checking foreign keys during the insertion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForeignKeys {
    /// Production checks every row with its own constraints.
    #[default]
    Triggers,
    /// Referenced rows are locked, all references are checked as one set, and production's check of each row is off for
    /// this transaction. Only for tables without user-defined triggers. On PostgreSQL, the role must be allowed to set
    /// `session_replication_role` (`pipeline setup` grants it).
    SetBased,
}

/// One target table: the source of its rows, and their checks.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// The delta files of the table.
    pub source: SourceSpec,
    /// The source columns that identify a record in the legacy system.
    pub legacy_key: Vec<String>,
    /// The key that a row gets. If omitted, the table's primary key must be among the columns.
    pub key: Option<KeySpec>,
    /// Target columns, each with an SQL expression over the source columns. A target column that is not listed takes the
    /// source column of the same name.
    #[serde(default)]
    pub columns: OrderedMap<String>,
    /// A complete `SELECT … FROM source` instead of `columns`; its output columns are the target columns.
    pub select: Option<String>,
    /// The columns that triggers of production fill or change, each with what the trigger does.
    #[serde(default)]
    pub triggers: OrderedMap<TriggerEffect>,
    /// References to other tables, resolved to the new keys.
    #[serde(default)]
    pub relationships: Vec<RelationshipSpec>,
    /// Checks in addition to the constraints that production's catalog declares.
    #[serde(default)]
    pub checks: Vec<CheckSpec>,
    /// The policy for rows of this delta that share a legacy key or the values of a unique constraint.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// The policy for rows whose legacy key is in the key map, or whose unique values are in production.
    #[serde(default)]
    pub existing: ExistingRowPolicy,
    /// The limit for this table; overrides `safeguards.max_rejects`.
    pub max_rejects: Option<Threshold>,
}

/// The key that a row gets: a number or a UUID (`column`), or the parent's key and further columns (`inherited`).
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeySpec {
    /// The key column: an integer, a UUID, or a text if `width` or `uuid` is set. If the primary key has further columns,
    /// these are filled like all others: by an expression, a reference, or production's default.
    pub column: Option<String>,
    /// The number that keys start from: `auto` uses production's sequence, or the maximum plus one.
    pub start_row_number: StartRowNumber,
    /// The sequence that other programs take keys from, as `schema.name`, or as `name` in the production schema;
    /// PostgreSQL only. Keys that are texts can take its numbers too. Default: the sequence of the column's default or identity.
    pub sequence: Option<String>,
    /// The meaning of a number of a sequence whose INCREMENT is not 1.
    pub numbers: SequenceNumbers,
    /// The prefix of a text key.
    pub prefix: Option<String>,
    /// The length of a text key in characters, prefix included. The number is padded with zeros.
    pub width: Option<usize>,
    /// Keys are UUIDs of this version. Default: `v5` if the column's type is `uuid`.
    pub uuid: Option<UuidVersion>,
    /// The namespace of `uuid: v5`, as a UUID: a key is then exactly version 5 of this namespace and the legacy key. Default:
    /// one that the table's name and `key_map.namespace` determine.
    pub uuid_namespace: Option<String>,
    /// The columns of an inherited key. At least one of them is a reference in `relationships`.
    pub inherited: Vec<String>,
}

/// The version of UUIDs that are assigned as keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UuidVersion {
    /// A hash of a namespace and the legacy key: equal in a mock run, in the run, and in a repeated run.
    V5,
    /// Ordered by the time of the run. Each run gets different ones.
    V7,
    /// Without order. Each run gets different ones.
    V4,
}

/// The meaning of a number of a sequence whose INCREMENT is not 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SequenceNumbers {
    /// Each key is a number of the sequence. These keys are free regardless of how other programs use their numbers.
    #[default]
    Keys,
    /// Other programs use each number for a block of INCREMENT keys that ends or begins with it, as persistence frameworks
    /// do. The keys of a run are consecutive, and take few numbers.
    Blocks,
}

/// A reference to another table (or to a row of the same table).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelationshipSpec {
    /// The target column that receives the key of the referenced row. A list for a key of several columns, in the order of the
    /// referenced table's primary key or as the foreign key pairs them.
    pub column: Names,
    /// The source columns with the legacy key of the referenced row. Default: the source columns named like `column`. The
    /// reference is NULL if all columns that only this reference uses are NULL. If only some of them are, the row is rejected.
    #[serde(default)]
    pub from: Vec<String>,
    /// The referenced table.
    pub to: String,
    /// The columns of the referenced table that `from` contains the values of, in order: `code`, or `[code, location]`.
    /// Production's own equality decides. If omitted, `from` is a legacy key.
    pub by: Option<Names>,
    /// Only rows of the referenced table for which this SQL expression over its columns is true, such as
    /// `valid_to IS NULL`. Requires `by`.
    pub r#where: Option<String>,
}

/// The policy for rows of one delta that are duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// The first row, in the order of files and lines, that passes its own checks stays; the others are rejected.
    First,
    /// All duplicates are rejected.
    #[default]
    Reject,
}

/// The effect of a trigger of production on a column of an inserted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerEffect {
    /// It gives the column its value, and the delta gives none. The column may be NOT NULL.
    Fills,
    /// It may change the value of the delta, or give one if the delta has NULL.
    Changes,
}

/// The policy for rows that production already has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExistingRowPolicy {
    /// The rows are rejected.
    #[default]
    Reject,
    /// The rows are skipped, and counted as such.
    Skip,
}

/// One check: exactly one of `not_null`, `unique`, `accepted_values`, `range`, `matches`, `length`, `expression` and `sql`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckSpec {
    /// None of these columns is NULL.
    pub not_null: Option<Vec<String>>,
    /// No two rows have the same values in these columns, in the delta and in production together.
    pub unique: Option<Vec<String>>,
    /// The column has one of these values.
    pub accepted_values: Option<AcceptedValues>,
    /// The column is between two bounds, both inclusive.
    pub range: Option<Range>,
    /// The column matches a regular expression.
    pub matches: Option<Matches>,
    /// The column's length in characters is between two bounds, both inclusive.
    pub length: Option<Length>,
    /// An SQL expression over the target columns that must be true; NULL passes.
    pub expression: Option<String>,
    /// A query that returns the failing rows in the column `_row`.
    pub sql: Option<String>,
    /// The check's name. Default: its kind and column.
    pub name: Option<String>,
    /// `error` rejects a row that fails, `warn` only counts it.
    pub severity: Severity,
    /// The check applies only to rows for which this SQL expression is true.
    pub r#where: Option<String>,
    /// If more rows than this number or share fail, the report warns.
    pub warn_if: Option<Threshold>,
    /// If more rows than this number or share fail, nothing is loaded.
    pub error_if: Option<Threshold>,
}

/// The effect of a violation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The row is counted and reported.
    Warn,
    /// The row is rejected.
    #[default]
    Error,
}

/// The accepted values of a column.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedValues {
    /// The target column.
    pub column: String,
    /// The accepted values; NULL passes.
    pub values: Vec<Scalar>,
}

/// The bounds of a column.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The target column.
    pub column: String,
    /// The minimum, inclusive; `None` for no lower bound.
    pub min: Option<Scalar>,
    /// The maximum, inclusive; `None` for no upper bound.
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

/// The bounds of a column's length in characters.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// The target column.
    pub column: String,
    /// The minimum, inclusive; `None` for no lower bound.
    pub min: Option<u64>,
    /// The maximum, inclusive; `None` for no upper bound.
    pub max: Option<u64>,
}

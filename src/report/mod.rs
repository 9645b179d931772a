//! Reports: the result of a command as text, JSON, HTML, JUnit XML, Markdown, or GitHub annotations.

mod check_sql;
mod escape;
mod github;
mod html;
mod junit;
mod markdown;
mod rollback;
mod text;
mod timeline;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check_sql::check_sql;
pub use escape::{is_harmful, visible};
pub use github::{github, property, value};
pub use html::{Links, html, url_segment};
pub use junit::junit;
pub use markdown::{BEGINNING as MARKDOWN_BEGINNING, markdown};
pub use rollback::{Outcome, Rollback, RollbackTable};
pub use text::{step, text};
pub use timeline::timeline;

use crate::check::{CheckedTable, Evidence, LineHistogram, evidence};
use crate::diagnostic::LineNumbers;
use crate::error::{Error, Result};
use crate::journal::{FileHash, RunId};
use crate::path;
use crate::plan::{CheckOrigin, Compiled, Key, Table};
use crate::progress::Timing;
use crate::spec::Severity;
use crate::target::{KeyBlock, RunRecord, Segment, TableIndex};

/// The version of the JSON report.
pub const VERSION: u32 = 1;

/// The version of this program.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The report of a command on a delta.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The version of this format.
    pub version: u32,
    /// The run ID.
    pub run: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The path of the pipeline file, as given on the command line.
    #[serde(default)]
    pub file: String,
    /// The command that made the report.
    pub command: Command,
    /// The target, without secrets.
    pub target: String,
    /// The start of the run, in UTC (RFC 3339).
    pub started_at: String,
    /// The outcome.
    pub verdict: Verdict,
    /// The reasons for a failure of the data, one sentence each.
    pub reasons: Vec<String>,
    /// Findings that did not stop the load, one sentence each.
    pub warnings: Vec<String>,
    /// Side effects of the load beyond inserting rows, such as locks and triggers.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The tables, in load order.
    pub tables: Vec<TableReport>,
    /// The key map and its backup; null if nothing was loaded.
    #[serde(default)]
    pub key_map: Option<KeyMapReport>,
    /// The steps with their time, rows, and bytes.
    pub steps: Vec<Timing>,
    /// The folder with the reject files, one CSV and one Parquet file per table; null if no rows were rejected.
    pub rejects: Option<String>,
    /// The version of the program that made the report.
    #[serde(default)]
    pub program: String,
}

/// The key map of a run: its mappings and their backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyMapReport {
    /// The backup store, without secrets; null if the pipeline file names none.
    pub store: Option<String>,
    /// The number of segments that were already in the store.
    pub there: u64,
    /// The segments that were written to the store before the load.
    pub backed_up: Vec<Segment>,
    /// The run's own segments, which are written to the store after the commit. Empty in the report that the target stores, which is older.
    pub own: Vec<Segment>,
    /// The number of mappings, per table of the run.
    pub tables: Vec<MappingsReport>,
}

/// The number of mappings of one table, as recorded in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MappingsReport {
    /// The table's name.
    pub table: String,
    /// Mappings before this run.
    pub before: u64,
    /// Mappings that this run appended.
    pub appended: u64,
    /// Mappings after this run.
    pub now: u64,
}

/// The command that made a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// All checks without a load.
    Validate,
    /// A preview of a run.
    Plan,
    /// A load.
    Run,
    /// The resumed load of an interrupted or failed run.
    Resume,
    /// A load that is rolled back at its end.
    Mock,
    /// An import of key mappings.
    Import,
    /// A restore of key mappings.
    Restore,
}

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The data passed its checks, and was not loaded.
    Passed,
    /// The data failed its checks, and nothing was loaded.
    Failed,
    /// The rows were loaded into production.
    Loaded,
    /// There were no rows to load.
    Empty,
}

/// One table of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableReport {
    /// The table's name.
    pub name: String,
    /// The table's line in the pipeline file.
    #[serde(default)]
    pub line: Option<u64>,
    /// The delta files of the table.
    pub files: Vec<FileReport>,
    /// Number of rows read from the files.
    pub read: u64,
    /// Number of rejected rows.
    pub rejected: u64,
    /// Number of rows skipped by the rules of the pipeline file.
    pub skipped: u64,
    /// Number of accepted rows, which a run inserts.
    pub accepted: u64,
    /// Number of inserted rows.
    pub inserted: u64,
    /// The hash of the verdicts on all rows: rejected, skipped, or accepted.
    #[serde(default)]
    pub verdicts: String,
    /// The hash of the resolved references of the accepted rows, per column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, String>,
    /// The first and the last new key, as production writes them.
    pub keys: Option<(String, String)>,
    /// The checks with their number of violations.
    pub checks: Vec<CheckReport>,
    /// Constraints that no check covers, so that only production enforces them.
    pub enforced_by_database: Vec<String>,
    /// Columns that nothing fills, so that production uses the default or NULL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfilled: Vec<String>,
    /// The table's triggers, which fire for every row.
    pub triggers: Vec<String>,
    /// The columns whose values a trigger of production decides, as they are in production.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trigger_columns: Vec<TriggerColumn>,
    /// The reasons why this table blocks the load, one sentence each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The distribution of the rejected rows over the lines of each file.
    #[serde(default)]
    pub places: Vec<LineHistogram>,
    /// The names of the table's reject files in the folder `rejects` of the report.
    #[serde(default)]
    pub rejects: Vec<String>,
}

/// A column whose values a trigger of production decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerColumn {
    /// The column's name.
    pub column: String,
    /// Number of rows of the run with a value other than NULL.
    pub values: u64,
    /// The smallest and the largest value of these rows; null without values, and for types without an order.
    pub range: Option<(String, String)>,
}

impl std::fmt::Display for TriggerColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { column, values, range } = self;
        match range {
            Some((first, last)) if first == last => write!(f, "{column} ({values} × {first})"),
            Some((first, last)) => write!(f, "{column} ({values} values from {first} to {last})"),
            None => write!(f, "{column} ({values} values)"),
        }
    }
}

/// One file of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileReport {
    /// The path of the file.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of the content.
    pub hash: FileHash,
    /// Number of records that the filter of the table does not exclude.
    #[serde(default)]
    pub records: u64,
    /// The line of the last of these records.
    #[serde(default)]
    pub last_line: u64,
}

/// One check of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// The check's name.
    pub name: String,
    /// The effect of a violation.
    pub severity: Severity,
    /// The origin: `built-in`, `pipeline file`, or `production: ` and the constraint.
    pub origin: String,
    /// Number of rows that violate the check.
    pub violations: u64,
    /// The columns that the check examines.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Description of a violation.
    #[serde(default)]
    pub reason: String,
    /// The line of the pipeline file that declares the check; null for checks from production and built-in checks.
    #[serde(default)]
    pub line: Option<u64>,
    /// Examples and statistics of the violations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl Report {
    /// Reads the report that a run stored in its target.
    ///
    /// # Errors
    /// If a newer version of this program wrote the report, or the report was changed.
    pub fn read(record: &RunRecord) -> Result<Self> {
        serde_json::from_str(&record.report).map_err(|error| {
            let fields: serde_json::Value = serde_json::from_str(&record.report).unwrap_or_default();
            let is_newer = fields["version"].as_u64().is_some_and(|version| version > VERSION.into());
            Error::internal(format!("cannot read the report of run {}: {error}", record.id)).hint(if is_newer {
                "a newer version of this program wrote it; use that version"
            } else {
                "this program did not write it; the run's folder has a copy of a report that it wrote"
            })
        })
    }

    /// Records the number of mappings that the run appended to a table's key map.
    pub fn append_mappings(&mut self, index: TableIndex, appended: u64) {
        if let Some(table) = self.key_map.as_mut().and_then(|key_map| key_map.tables.get_mut(index.get())) {
            table.appended = appended;
            table.now = table.before + appended;
        }
    }
}

impl Report {
    /// Returns the checks with violations, those with the most first.
    fn violations(&self) -> Vec<(&TableReport, &CheckReport)> {
        let checks = self.tables.iter().flat_map(|table| table.checks.iter().map(move |check| (table, check)));
        let mut violated: Vec<_> = checks.filter(|(_, check)| check.violations > 0).collect();
        violated.sort_by_key(|(_, check)| Reverse(check.violations));
        violated
    }

    fn seconds(&self) -> f64 {
        self.steps.iter().map(|timing| timing.seconds).sum()
    }

    /// Returns whether the command inserted rows, including rows of a mock run.
    fn has_inserted(&self) -> bool {
        let is_mocked = self.command == Command::Mock && self.tables.iter().any(|table| table.inserted > 0);
        self.verdict == Verdict::Loaded || is_mocked
    }

    /// Returns facts about the tables that ask for no action, one sentence each.
    fn table_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for table in &self.tables {
            let mut note = |what: &str, list: &[String], separator: &str| {
                if !list.is_empty() {
                    notes.push(format!("`{}`: {what}: {}", table.name, list.join(separator)));
                }
            };
            note("production uses the default or NULL", &table.unfilled, ", ");
            note("enforced by production only", &table.enforced_by_database, "; ");
            note("triggers that fire for every row", &table.triggers, ", ");
            let decided: Vec<_> = table.trigger_columns.iter().map(ToString::to_string).collect();
            note("columns as the triggers left them", &decided, ", ");
        }
        notes
    }

    /// Returns the label of the last count of a table.
    fn last_label(&self) -> &'static str {
        if self.has_inserted() { "inserted" } else { "accepted" }
    }

    /// Returns the last count of a table: the inserted rows, or the accepted ones if no rows were inserted.
    fn last_count(&self, table: &TableReport) -> u64 {
        if self.has_inserted() { table.inserted } else { table.accepted }
    }
}

impl CheckReport {
    fn effect(&self) -> &'static str {
        if self.severity == Severity::Error { "rejected" } else { "warned" }
    }
}

impl TableReport {
    /// Creates the report of a checked table.
    ///
    /// # Errors
    /// If the work folder cannot be read.
    pub fn new(
        compiled: &Compiled,
        index: TableIndex,
        checked: &[CheckedTable],
        hashes: &[FileHash],
        lines: &LineNumbers,
    ) -> Result<Self> {
        let (table, result) = (&compiled.plan.tables[index], &checked[index]);
        let evidence = evidence(compiled, checked, index)?;
        let files = compiled.sources[index].files().iter().zip(hashes).zip(evidence.extents);
        let files = files.map(|((file, hash), (records, last_line))| FileReport {
            name: file.name.clone(),
            bytes: file.bytes,
            hash: hash.clone(),
            records,
            last_line,
        });
        let checks = table.checks.iter().zip(evidence.checks).enumerate().map(|(number, (check, evidence))| {
            let violations = result.findings.of(number).len() as u64;
            CheckReport {
                name: check.name.clone(),
                severity: check.severity,
                origin: origin(&check.origin),
                violations,
                columns: check.columns.clone(),
                reason: compiled.secrets.mask(&check.reason).into_owned(),
                line: match &check.origin {
                    CheckOrigin::File(path) => lines.line(path),
                    CheckOrigin::Builtin | CheckOrigin::Catalog(_) => None,
                },
                evidence: (violations > 0).then_some(evidence),
            }
        });
        let excluded = result.findings.excluded();
        let references = table.references.iter().zip(&result.resolved);
        let references =
            references.map(|(reference, resolved)| Ok((reference.column.clone(), resolved.hash(&excluded)?)));
        Ok(Self {
            name: table.name.clone(),
            line: lines.line(&path!["tables", table.name]),
            files: files.collect(),
            read: result.read(),
            rejected: result.rejected(),
            skipped: result.skipped(),
            accepted: result.accepted(),
            verdicts: result.verdicts(),
            references: references.collect::<Result<_>>()?,
            checks: checks.collect(),
            enforced_by_database: table.enforced_by_database.iter().chain(&result.unanswered).cloned().collect(),
            unfilled: table.unfilled.clone(),
            triggers: table.catalog.triggers.clone(),
            places: evidence.rejected,
            ..Self::default()
        })
    }

    /// Records the keys of a block.
    pub fn set_keys(&mut self, table: &Table, block: Option<&KeyBlock>) {
        let Some(block) = block.filter(|block| block.first <= block.last) else { return };
        if let Key::Assigned { text, .. } = &table.key {
            let format = |number: i64| text.as_ref().map_or_else(|| number.to_string(), |text| text.format(number));
            self.keys = Some((format(block.first), format(block.last)));
        }
    }
}

/// Returns the JSON Schema of the JSON report.
pub fn json_schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<Report>()
}

/// Describes the origin of a check.
pub fn origin(origin: &CheckOrigin) -> String {
    match origin {
        CheckOrigin::Builtin => "built-in".into(),
        CheckOrigin::Catalog(constraint) => format!("production: {constraint}"),
        CheckOrigin::File(_) => "pipeline file".into(),
    }
}

//! What a run tells: one value that is folded from what happened, and shown as text, JSON, HTML, JUnit, Markdown or annotations.

mod check_sql;
mod escape;
mod github;
mod html;
mod junit;
mod markdown;
mod rollback;
mod text;
mod timeline;

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
pub use timeline::story;

use crate::check::{CheckedTable, Evidence, LineHistogram, evidence};
use crate::diagnostic::LineNumbers;
use crate::error::{Error, Result};
use crate::path;
use crate::plan::{CheckOrigin, Compiled, Key, Table};
use crate::progress::Timing;
use crate::spec::Severity;
use crate::target::{KeyBlock, RunRecord, Segment};

/// The version of the JSON report.
pub const VERSION: u32 = 1;

/// The version of this program.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The report of one command over a delta.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The version of this format.
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file, as it was named on the command line.
    #[serde(default)]
    pub file: String,
    /// What was asked for.
    pub command: Command,
    /// The target, without secrets.
    pub target: String,
    /// When it began, in UTC (RFC 3339).
    pub started_at: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, where the data failed: one sentence each.
    pub reasons: Vec<String>,
    /// What to look at, though it stopped nothing.
    pub warnings: Vec<String>,
    /// How it is done, where that is more than inserting rows: keys, locks, triggers.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The tables, in the order they are loaded.
    pub tables: Vec<TableReport>,
    /// What became of the key map; None where nothing is loaded.
    #[serde(default)]
    pub key_map: Option<KeyMapReport>,
    /// The steps, with their wall-clock seconds and what went through them.
    pub steps: Vec<Timing>,
    /// The folder with the reject files, a CSV and a Parquet file a table; None where nothing was rejected.
    pub rejects: Option<String>,
    /// The version of the program that made it.
    #[serde(default)]
    pub program: String,
}

/// The key map of a run: what was backed up of it, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyMapReport {
    /// The store, without secrets; None where the pipeline file names none.
    pub store: Option<String>,
    /// How many segments the store had already.
    pub there: u64,
    /// The segments that went there before anything was written.
    pub backed_up: Vec<Segment>,
    /// The run's own segments that went there after the commit; empty in the report that the target keeps, which is older.
    pub own: Vec<Segment>,
    /// By table of the run, how many mappings there are.
    pub tables: Vec<MappingsReport>,
}

/// The mappings of one table, as the key map's ledger has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MappingsReport {
    /// The table.
    pub table: String,
    /// Those of earlier runs, before this one.
    pub before: u64,
    /// Those that this run appended.
    pub appended: u64,
    /// All that there are now.
    pub now: u64,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// All checks, no load.
    Validate,
    /// What a run will do.
    Plan,
    /// The load.
    Run,
    /// The load of a run that was cut off or had failed.
    Resume,
    /// The load, taken back at its end.
    Mock,
    /// Bringing in a key map.
    Import,
    /// Putting back a key map.
    Restore,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The data passes: a run would load it.
    Passed,
    /// The data failed, nothing was loaded.
    Failed,
    /// The rows are in production.
    Loaded,
    /// There is no row to load.
    Empty,
}

/// One table of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// Where it begins in the pipeline file.
    #[serde(default)]
    pub line: Option<u64>,
    /// Its files.
    pub files: Vec<FileReport>,
    /// Rows that the files have.
    pub read: u64,
    /// Rows that are kept out.
    pub rejected: u64,
    /// Rows that are left out as declared.
    pub skipped: u64,
    /// Rows that are accepted: what a run inserts.
    pub accepted: u64,
    /// Rows that were inserted.
    pub inserted: u64,
    /// The hash of which rows are rejected and which are skipped.
    #[serde(default)]
    pub verdicts: String,
    /// By column that refers to rows, the hash of what the accepted rows refer to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, String>,
    /// The new keys, from and to, as production writes them.
    pub keys: Option<(String, String)>,
    /// The checks and how many rows fail each.
    pub checks: Vec<CheckReport>,
    /// Constraints that no check expresses.
    pub left_to_production: Vec<String>,
    /// The table's triggers, which fire for every row.
    pub triggers: Vec<String>,
    /// Why nothing is loaded, as far as this table is the reason: one sentence each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Where in the files the rejected rows are.
    #[serde(default)]
    pub places: Vec<LineHistogram>,
    /// The names of its reject files in the report's folder of them.
    #[serde(default)]
    pub rejects: Vec<String>,
}

/// One file of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes.
    pub hash: String,
    /// How many records it has that the pipeline's own WHERE does not leave out.
    #[serde(default)]
    pub records: u64,
    /// The line of the last of them.
    #[serde(default)]
    pub last_line: u64,
}

/// One check of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// What a violation does.
    pub severity: Severity,
    /// Where it comes from.
    pub origin: String,
    /// How many rows fail it.
    pub violations: u64,
    /// The columns that it is about.
    #[serde(default)]
    pub columns: Vec<String>,
    /// What is wrong with a row that fails it.
    #[serde(default)]
    pub reason: String,
    /// The line of the pipeline file that says it; None where production or this program does.
    #[serde(default)]
    pub line: Option<u64>,
    /// What is shown of the rows that fail it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl Report {
    /// The report that a run left in its target.
    ///
    /// # Errors
    /// Where a newer version wrote it.
    pub fn read(record: &RunRecord) -> Result<Self> {
        serde_json::from_str(&record.report).map_err(|error| {
            Error::internal(format!("the report of run {} cannot be read: {error}", record.id))
                .hint("a newer version of this program wrote it: use that one")
        })
    }

    /// Notes what a run appended to the key map of a table.
    pub fn append_mappings(&mut self, at: usize, appended: u64) {
        if let Some(table) = self.key_map.as_mut().and_then(|key_map| key_map.tables.get_mut(at)) {
            table.appended = appended;
            table.now = table.before + appended;
        }
    }
}

impl TableReport {
    /// The table as it was examined.
    ///
    /// # Errors
    /// Where the work folder cannot be read.
    pub fn new(
        compiled: &Compiled,
        at: usize,
        examined: &[CheckedTable],
        hashes: &[String],
        lines: &LineNumbers,
    ) -> Result<Self> {
        let (table, found) = (&compiled.plan.tables[at], &examined[at]);
        let shown = evidence(compiled, examined, at)?;
        let files = compiled.sources[at].files().iter().zip(hashes).zip(shown.extents);
        let files = files.map(|((file, hash), (records, last_line))| FileReport {
            name: file.name.clone(),
            bytes: file.bytes,
            hash: hash.clone(),
            records,
            last_line,
        });
        let checks = table.checks.iter().zip(shown.checks).enumerate().map(|(number, (check, evidence))| {
            let violations = found.findings.of(number).len() as u64;
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
        let without = found.findings.excluded();
        let references = table.references.iter().zip(&found.resolved);
        let references =
            references.map(|(reference, resolved)| Ok((reference.column.clone(), resolved.hash(&without)?)));
        Ok(Self {
            name: table.name.clone(),
            line: lines.line(&path!["tables", table.name]),
            files: files.collect(),
            read: found.read(),
            rejected: found.rejected(),
            skipped: found.skipped(),
            accepted: found.accepted(),
            verdicts: found.verdicts(),
            references: references.collect::<Result<_>>()?,
            checks: checks.collect(),
            left_to_production: table.enforced_by_database.clone(),
            triggers: table.catalog.triggers.clone(),
            places: shown.rejected,
            ..Self::default()
        })
    }

    /// Notes the keys of a block.
    pub fn set_keys(&mut self, table: &Table, block: Option<&KeyBlock>) {
        let Some(block) = block.filter(|block| block.first <= block.last) else { return };
        if let Key::Assigned { text, .. } = &table.key {
            let written = |number: i64| text.as_ref().map_or_else(|| number.to_string(), |text| text.format(number));
            self.keys = Some((written(block.first), written(block.last)));
        }
    }
}

/// The JSON Schema of the JSON report.
pub fn json_schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<Report>()
}

/// Where a check comes from, in words.
pub fn origin(origin: &CheckOrigin) -> String {
    match origin {
        CheckOrigin::Builtin => "every run".into(),
        CheckOrigin::Catalog(constraint) => format!("production: {constraint}"),
        CheckOrigin::File(_) => "pipeline file".into(),
    }
}
